"""What programs use: objects that people have go in, and what `score` computes comes out.

The other rooms take tables and folders. Here are `Scorer` (safe from any thread), rows and pictures in whatever form a
program holds them, `Answers`, and functions that do what the commands do.
"""
