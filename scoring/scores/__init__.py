"""Option logits on disk and what is made of them: probabilities, members, pools, evaluation. Never imports torch."""
