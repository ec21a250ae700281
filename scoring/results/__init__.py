"""What the answers are worth: logits on disk, probabilities, calibration, metrics. Never torch."""
