"""A row -> the body that asks for it in all its orders: a question for each order, about one input.

The options' texts are the values of a choice question; where two of a row read alike, or one is blank, its letters are,
and the texts are their descriptions. Pictures that stand in no text are the input, and the question the instructions;
without such pictures the question is the input. Options that are pictures are put behind the question, each after its
letter: no interface takes them as options.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from scoring.endpoint.address import Api
from scoring.endpoint.pictures import EncodedPicture
from scoring.inputs.image_marks import MARK, parts_of
from scoring.inputs.orders import reordered
from scoring.inputs.prompt import LETTERS
from scoring.inputs.questions import Question

INSTRUCTIONS = "Choose the right answer."  # for servers of others, where the question is the input

Parts = Sequence[str | EncodedPicture]


@dataclass(frozen=True)
class AskedOrder:
    """A row in an order of its options, as a choice question. values: of the choices, as they are shown."""

    name: str
    instructions: Parts
    values: tuple[str, ...]
    descriptions: tuple[str, ...] = ()  # of the values; none where they speak for themselves


@dataclass(frozen=True)
class AskedRow:
    """A row in its orders. input: what they have in common."""

    input: Parts
    orders: tuple[AskedOrder, ...]


@dataclass(frozen=True)
class Server:
    """Who is asked. is_ours: it takes hints and types of tasks, and is told to show the options once, as they are."""

    api: Api
    model: str
    is_ours: bool = False


def names_letters(question: Question) -> bool:
    """Whether its options are told apart by letters, not by their texts."""
    texts = {option.strip() for option in question.options}
    return len(texts) < len(question.options) or "" in texts or _has_pictures(question)


def _has_pictures(question: Question) -> bool:
    """Whether options are, or hold, pictures."""
    return any(map(MARK.search, question.options))


def word(question: Question, orders: Sequence[str], pictures: Sequence[EncodedPicture], is_ours: bool) -> AskedRow:
    """The row in orders of its options, such as `cabd`. pictures: those of the row."""
    given: Parts = []
    asked = []
    for number, order in enumerate(orders, 1):
        shown = reordered(question, order)
        text, values = shown.question, shown.options
        descriptions: tuple[str, ...] = ()
        if names_letters(question):
            values, descriptions = tuple(LETTERS[: len(order)]), shown.options
        if _has_pictures(question):
            lines = [f"{letter}: {option}" for letter, option in zip(values, shown.options)]
            text, descriptions = "\n".join([f"{text}\n", *lines]), ()
        parts = [part if isinstance(part, str) else pictures[part] for part in parts_of(text, len(pictures))]
        leading = next((number for number, part in enumerate(parts) if isinstance(part, str)), len(parts))
        given, instructions = parts[:leading], parts[leading:]
        if question.task_hint and not is_ours:
            instructions.append(f"\n\n{question.task_hint}")
        asked.append(AskedOrder(f"answer_{number}", instructions, values, descriptions))
    if given:
        return AskedRow(given, tuple(asked))
    told = [] if is_ours else [INSTRUCTIONS]
    if _has_pictures(question):  # so that the instructions differ between orders
        return AskedRow(told, tuple(asked))
    return AskedRow(asked[0].instructions, tuple(replace(order, instructions=told) for order in asked))


def body_of(row: AskedRow, server: Server, question: Question) -> dict[str, Any]:
    """The JSON to send."""
    told = {"hint": question.task_hint, "task_type": question.task_type} if server.is_ours else {}
    extras = {name: text for name, text in told.items() if text}
    body = _decisions(row, extras) if server.api == "decisions" else _systemone(row, extras)
    return {"model": server.model, **body} | ({"orders": "1"} if server.is_ours else {})


# ------------------------------------------------------------------ POST /v1/decisions
def _decisions(row: AskedRow, extras: dict[str, str]) -> dict[str, Any]:
    """extras: further fields of each question."""
    given = _content(row.input)
    questions = [
        {
            "type": "choice",
            "name": order.name,
            "instructions": _content(order.instructions),
            "choices": [
                {"value": value} | ({"description": text} if text.strip() else {}) for value, text in _described(order)
            ],
            **extras,
        }
        for order in row.orders
    ]
    return {"input": given if isinstance(given, str) else [{"role": "user", "content": given}], "questions": questions}


def _described(order: AskedOrder) -> list[tuple[str, str]]:
    """Each value with its description, or ""."""
    return list(zip(order.values, order.descriptions or [""] * len(order.values)))


def _content(parts: Parts) -> str | list[dict[str, str]]:
    """A text, or parts where there are pictures."""
    if all(isinstance(part, str) for part in parts):
        return "".join(map(str, parts))
    return [
        {"type": "input_text", "text": part}
        if isinstance(part, str)
        else {"type": "input_image", "image_url": part.data_url}
        for part in parts
    ]


# ------------------------------------------------------------------ POST /v1/systemone
def _systemone(row: AskedRow, extras: dict[str, str]) -> dict[str, Any]:
    """extras: further fields of each question."""
    assets = {
        _placeholder(part): {
            "type": "image",
            "format": "jpg" if part.format == "jpeg" else part.format,
            "data_base64": part.base64,
        }
        for parts in (row.input, *(order.instructions for order in row.orders))
        for part in parts
        if not isinstance(part, str)
    }
    questions = {
        order.name: {
            "type": "choice",
            "instructions": _placed(order.instructions) or None,
            "criteria": {value: text or None for value, text in _described(order)},
            **extras,
        }
        for order in row.orders
    }
    return {"state": _placed(row.input), "questions": questions} | ({"assets": assets} if assets else {})


def _placed(parts: Parts) -> str:
    """A text with placeholders for pictures."""
    return "".join(part if isinstance(part, str) else _placeholder(part) for part in parts)


def _placeholder(picture: EncodedPicture) -> str:
    return f"image-{sha256(picture.content).hexdigest()[:32]}"
