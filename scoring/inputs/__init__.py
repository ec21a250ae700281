"""What is asked: tables of questions, pictures, prompts, option orders and token sequences. No torch here."""
