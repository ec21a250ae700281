"""The inputs of a model: tables of questions, pictures, prompts, option orders and token sequences. No torch here."""
