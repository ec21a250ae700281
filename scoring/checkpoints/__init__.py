"""What weights are: bases, adapters, checkpoints, and whether they fit each other. No model is loaded here."""
