"""How questions are answered: checkpoints, the model, its forward, and the resumable run."""
