"""How questions are answered: the prefix tree, the packed forward, the model, and the reference for all of it."""
