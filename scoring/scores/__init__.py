"""What the answers are worth: option logits on disk, probabilities, members, pools, evaluation. Never torch."""
