"""What is asked: tables of questions, pictures, prompts and token sequences. No torch here."""
