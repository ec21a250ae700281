"""Fine-tuning: a table of answered questions becomes a checkpoint that `scoring` reads."""
