"""A row and an order of its options -> the body that asks for it.

The options' texts are the values of a choice question; where two of a row read alike, or one is blank, its letters are,
and the texts are their descriptions. Pictures that stand in no text are the input, and the question the instructions;
without such pictures the question is the input. Options that are pictures are put behind the question, each after its
letter: no interface takes them as options.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from scoring.endpoint.address import Api
from scoring.endpoint.pictures import EncodedPicture
from scoring.inputs.image_marks import MARK, parts_of
from scoring.inputs.orders import reordered
from scoring.inputs.prompt import LETTERS
from scoring.inputs.questions import Question

NAME = "answer"  # of the question in a request
INSTRUCTIONS = "Choose the right answer."  # where the question is the input, and the server is another's

Parts = Sequence[str | EncodedPicture]


@dataclass(frozen=True)
class Wording:
    """A row as a choice question. values: of the choices, in the order in which they are shown."""

    input: Parts
    instructions: Parts
    values: tuple[str, ...]
    descriptions: tuple[str, ...] = ()  # of the values; none where they speak for themselves


@dataclass(frozen=True)
class Server:
    """Who is asked. is_ours: it takes hints and types of tasks, and is told to show the options once, as they are."""

    api: Api
    model: str
    is_ours: bool = False


def names_letters(question: Question) -> bool:
    """Whether its options are told apart by letters, not by their texts."""
    texts = {option.strip() for option in question.options}
    return len(texts) < len(question.options) or "" in texts or any(map(MARK.search, question.options))


def word(question: Question, order: str, pictures: Sequence[EncodedPicture], is_ours: bool) -> Wording:
    """The row in an order of its options, such as `cabd`. pictures: those of the row."""
    shown = reordered(question, order)
    text, options = shown.question, shown.options
    values = options
    descriptions: tuple[str, ...] = ()
    if names_letters(question):
        values, descriptions = tuple(LETTERS[: len(options)]), options
        if any(map(MARK.search, options)):
            lines = [f"{letter}: {option}" for letter, option in zip(values, options)]
            text, descriptions = "\n".join([f"{text}\n", *lines]), ()
    parts = [part if isinstance(part, str) else pictures[part] for part in parts_of(text, len(pictures))]
    leading = next((number for number, part in enumerate(parts) if isinstance(part, str)), len(parts))
    given, asked = parts[:leading], parts[leading:]
    if shown.task_hint and not is_ours:
        asked.append(f"\n\n{shown.task_hint}")
    if not given:
        given, asked = asked, [] if is_ours else [INSTRUCTIONS]
    return Wording(given, asked, values, descriptions)


def body_of(wording: Wording, server: Server, question: Question) -> dict[str, Any]:
    """The JSON to send."""
    body = _decisions(wording) if server.api == "decisions" else _systemone(wording)
    asked = body["questions"][0 if server.api == "decisions" else NAME]
    if server.is_ours:
        body["orders"] = "1"
        told = {"hint": question.task_hint, "task_type": question.task_type}
        asked |= {name: text for name, text in told.items() if text}
    return {"model": server.model, **body}


# ------------------------------------------------------------------ POST /v1/decisions
def _decisions(wording: Wording) -> dict[str, Any]:
    choices = [{"value": value} for value in wording.values]
    for choice, description in zip(choices, wording.descriptions):
        choice |= {"description": description} if description.strip() else {}
    given = _content(wording.input)
    asked = {"type": "choice", "name": NAME, "instructions": _content(wording.instructions), "choices": choices}
    return {
        "input": given if isinstance(given, str) else [{"role": "user", "content": given}],
        "questions": [asked],
    }


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
def _systemone(wording: Wording) -> dict[str, Any]:
    assets = {
        _placeholder(part): {
            "type": "image",
            "format": "jpg" if part.format == "jpeg" else part.format,
            "data_base64": part.base64,
        }
        for part in (*wording.input, *wording.instructions)
        if not isinstance(part, str)
    }
    descriptions = wording.descriptions or [""] * len(wording.values)
    asked = {
        "type": "choice",
        "instructions": _placed(wording.instructions) or None,
        "criteria": {value: text or None for value, text in zip(wording.values, descriptions)},
    }
    body = {"state": _placed(wording.input), "questions": {NAME: asked}}
    return body | ({"assets": assets} if assets else {})


def _placed(parts: Parts) -> str:
    """A text with placeholders for pictures."""
    return "".join(part if isinstance(part, str) else _placeholder(part) for part in parts)


def _placeholder(picture: EncodedPicture) -> str:
    return f"image-{sha256(picture.content).hexdigest()[:32]}"
