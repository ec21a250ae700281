"""A prompt as another tool has it: capital letters, no system turn, other words."""

from scoring.inputs.prompt import PromptTemplate

THEIRS = PromptTemplate(
    system="",
    user="{question}\n{options}\nReply with {letters} and nothing else.{hint}",
    option="{letter}. {option}",
    hint="\nA hint: {task_hint}",
    letters="upper",
)
THEIR_FILE = r"""
system = ""
user = "{question}\n{options}\nReply with {letters} and nothing else.{hint}"
option = "{letter}. {option}"
hint = "\nA hint: {task_hint}"
letters = "upper"
"""
