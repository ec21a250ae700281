"""Texts and pictures in their places, as the model's prompt takes them."""

from collections.abc import Sequence

from scoring.serving.request import Part, RemotePicture, RequestError


def question_text(input: Sequence[Part], instructions: Sequence[Part]) -> tuple[str, list[bytes]]:
    """The text of a question, and its pictures: the input, an empty line, and the instructions.

    Pictures before all text are not named in it: they come first in any case. Others have a mark `<image N>`.
    Raises RequestError where there is neither text nor picture, and ValueError for a picture that was not fetched.

    >>> question_text([b"1", "left", b"2", "right"], ["Equal?"])
    ('left<image 2>right\\n\\nEqual?', [b'1', b'2'])
    """
    pictures: list[bytes] = []
    begun, texts = False, []
    for parts in (input, instructions):
        words = []
        for part in parts:
            if isinstance(part, RemotePicture):
                raise ValueError("a picture that was not fetched; fetch it first")
            if isinstance(part, str):
                words.append(part)
                begun = begun or bool(part.strip())
            else:
                pictures.append(part)
                if begun:
                    words.append(f"<image {len(pictures)}>")
        texts.append("".join(words))
    text = "\n\n".join(each for each in texts if each.strip())
    if not text and not pictures:
        raise RequestError(400, "the input and the instructions are empty; send a text or a picture", "input", "empty")
    return text, pictures


def merged(parts: Sequence[Part]) -> tuple[Part, ...]:
    """The parts without empty texts, and texts that follow each other as one."""
    found: list[Part] = []
    for part in parts:
        if isinstance(part, str) and found and isinstance(last := found[-1], str):
            found[-1] = last + part
        elif part != "":
            found.append(part)
    return tuple(found)
