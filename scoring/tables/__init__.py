"""Tables of questions as people have them -> `Question`s, with every problem named."""
