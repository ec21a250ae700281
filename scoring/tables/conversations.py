"""Conversations as LLaVA, ShareGPT, ms-swift and OpenAI's tools write them -> a question and its answer.

A row is one human turn and at most one answer. A system turn in front is left out: the prompt template has its own.
"""

from typing import Any, NamedTuple

from scoring.errors import ScoringError, quoted
from scoring.readers.records import as_text

EXPECTED = "one human turn with a question, and at most one answer"
_ROLES = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bot", "model"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
}
_PICTURES = ("image", "image_url", "input_image")  # types of parts, and keys that hold the picture in one
_TEXTS = ("text", "input_text", "output_text")
_OTHER_MEDIA = ("<video>", "<audio>")


class ConversationError(ScoringError):
    """Turns that are no question with at most one answer; `found` says what they are, EXPECTED what is read."""

    def __init__(self, found: str):
        super().__init__(f"{found}; expected {EXPECTED}")
        self.found = found


class Conversation(NamedTuple):
    """A question, with `<image>` where a picture stands in its turn, and its answer.

    pictures: those that the turn itself holds, as cells; empty where it holds marks alone. system: the text of the
    turn that is left out. answer, system: "" if there is none.
    """

    question: str
    answer: str = ""
    pictures: tuple[Any, ...] = ()
    system: str = ""


def read_turns(turns: Any) -> Conversation:
    """The conversation in a list of turns. Raises ConversationError.

    A turn is {"from": "human", "value": text}, {"role": "user", "content": text or list of parts}, or a pair
    {"human": text, "assistant": text}.
    """
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, dict) for turn in turns):
        raise ConversationError(f"{quoted(as_text(turns))}, no list of turns" if turns else "an empty cell")
    read = [part for turn in turns for part in _turns_of(turn)]
    system = ""
    if read[0][0] == "system":
        system = _text_of(read.pop(0)[1])[0]
    roles = [role for role, _ in read]
    if roles not in (["user"], ["user", "assistant"]):
        count = roles.count("user")
        found = f"{count} human turns" if count > 1 else f"turns of {', '.join(roles) or 'the system alone'}"
        raise ConversationError(found)
    question, pictures = _text_of(read[0][1])
    answer, others = _text_of(read[1][1]) if len(read) > 1 else ("", ())
    if others or "<image>" in answer:
        raise ConversationError("a picture in the answer")
    return Conversation(question, answer, pictures, system)


def read_query(query: Any, response: Any, history: Any, system: Any) -> Conversation:
    """The conversation of ms-swift's columns of these names; None where there is no such column.

    Raises ConversationError.
    """
    if history:
        raise ConversationError(f"a history of {len(history) if isinstance(history, list) else 'several'} turns")
    turns = [{"role": "user", "content": query}]
    if response is not None:
        turns.append({"role": "assistant", "content": response})
    if system:
        turns.insert(0, {"role": "system", "content": system})
    return read_turns(turns)


def _turns_of(turn: dict[str, Any]) -> list[tuple[str, Any]]:
    """(role, content) of a turn, or of the two of a pair. Raises ConversationError."""
    for role_key, content_key in (("from", "value"), ("role", "content")):
        if (name := turn.get(role_key)) is not None:
            role = _ROLES.get(as_text(name).strip().lower())
            if role is None:
                raise ConversationError(f"a turn of {quoted(as_text(name))}")
            return [(role, turn.get(content_key))]
    if "human" in turn:
        return [("user", turn["human"]), *(("assistant", turn[name]) for name in ("assistant",) if name in turn)]
    raise ConversationError(f"a turn with the keys {', '.join(map(quoted, turn))}")


def _text_of(content: Any) -> tuple[str, tuple[Any, ...]]:
    """(text with `<image>` marks, pictures) of a turn's content. Raises ConversationError."""
    parts = content if isinstance(content, list) else [content]
    texts: list[str] = []
    pictures: list[Any] = []
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else "text"
        if kind in _PICTURES:
            texts.append("<image>")
            pictures.append(_picture_of(part))
        elif kind in _TEXTS:
            text = as_text(part.get("text") if isinstance(part, dict) else part)
            texts.append("\n" + text if texts and texts[-1] != "<image>" else text)
        else:
            raise ConversationError(f"a part of the type {quoted(as_text(kind))}")
    text = "".join(texts)
    if media := [mark for mark in _OTHER_MEDIA if mark in text]:
        raise ConversationError(f"{media[0]} in a turn")
    held = [picture for picture in pictures if picture is not None]
    if held and (len(held) < len(pictures) or text.count("<image>") > len(pictures)):
        raise ConversationError("pictures in some parts of a turn and marks in others")
    return text, tuple(held)


def _picture_of(part: dict[str, Any]) -> Any:
    """The picture that a part holds, as a cell: a path, a data URL, an object with bytes; None if only a mark."""
    for key in (*_PICTURES, "url", "path"):
        if (value := part.get(key)) is not None:
            return value["url"] if isinstance(value, dict) and isinstance(value.get("url"), str) else value
    return None
