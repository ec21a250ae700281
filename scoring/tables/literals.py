"""Values that a cell writes as text: as JSON does, or as Python does."""

import ast
import json
from typing import Any


def value_in(text: str) -> Any:
    """The value that a text writes as JSON or as Python does; None where it is another text."""
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            continue
    return None
