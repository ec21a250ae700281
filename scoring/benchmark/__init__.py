"""The benchmark: generating a text and extracting a letter, against comparing logits."""
