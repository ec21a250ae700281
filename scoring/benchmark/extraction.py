"""Reading a letter from a generated text: as the competition notebook does, and a better way that may find none."""

import re
from collections.abc import Sequence

from scoring.inputs.prompt import LETTERS

NOTEBOOK_LETTERS = ("a", "b", "c", "d")
FALLBACK = "a"


def extract_choice(text: str) -> tuple[str, bool]:
    """(letter, whether it is the fallback "a") of a *whole* decoded text, prompt included, as the notebook reads it.

    The last line that is not empty decides: its first word that is a letter.
    """
    lines = [line.strip() for line in text.strip().lower().splitlines() if line.strip()]
    words = lines[-1].split() if lines else []
    letter = next((word for word in words if word in NOTEBOOK_LETTERS), None)
    return (letter, False) if letter else (FALLBACK, True)


def extract_stated(text: str, options: Sequence[str], labels: str = LETTERS) -> str:
    """The letter that a *generated* text states (without the prompt), "" where it states none or more than one.

    labels: the letters as the prompt shows them, in lower or upper case; the result is in lower case.

    In this order, the first that finds a letter decides: the whole text is a letter, bare or with `().:*`; "answer: b",
    "answer is b", "정답: b", "정답은 b"; the text begins with a letter in brackets or before `)`, `.` or `:`; all
    letters in brackets are the same one; one option's text is repeated, and no other's; one letter stands alone as a
    word. In either case of letters that word is no "a" (an article), and among capitals neither an "A" that begins a
    sentence nor "I".
    """
    written, text, letters = text.strip(), text.strip().lower(), LETTERS[: len(options)]
    alone = text.strip(" \t\r\n()[]{}<>.:,;!*\"'`")
    if len(alone) == 1 and alone in letters:
        return alone
    bracketed = rf"[(\[{{<*]+\s*([{letters}])\s*[)\]}}>*]+"
    stated = rf"(?:answer|option|choice|정답|답)\s*(?:is|은|는)?\s*[:=]?\s*[(\[*\"']*([{letters}])(?![a-z0-9])"
    first = rf"^(?:{bracketed}|([{letters}])\s*[).:](?!\w))"
    for pattern in (stated, first, bracketed):
        matches = {letter for match in re.finditer(pattern, text) for letter in match.groups() if letter}
        if matches:
            return matches.pop() if len(matches) == 1 else ""
    if repeated := _repeated_options(text, options):
        return letters[repeated.pop()] if len(repeated) == 1 else ""
    words = _single_capitals(written, labels[: len(options)]) if labels.isupper() else _single_letters(text, letters)
    return words.pop() if len(words) == 1 else ""


def _single_letters(text: str, letters: str) -> set[str]:
    """The letters that stand alone as a word, but for the article "a"."""
    return set(re.findall(rf"(?<![\w'])([{letters.replace('a', '')}])(?![\w'])", text))


def _single_capitals(text: str, labels: str) -> set[str]:
    """The capitals that stand alone as a word, in lower case, but for "A cat" at a sentence's beginning and for "I"."""
    text = re.sub(r"(?:^|(?<=[.!?\n]))(\s*)A(?=\s+\w)", r"\1", text)
    return {word.lower() for word in re.findall(rf"(?<![\w'])([{labels.replace('I', '')}])(?![\w'])", text)}


def _repeated_options(text: str, options: Sequence[str]) -> set[int]:
    """The options whose text occurs in the text; one that only occurs inside of another option's does not count."""
    repeated: set[int] = set()
    rest = text
    for index in sorted(range(len(options)), key=lambda index: -len(options[index])):
        option = options[index].strip().lower()
        if not option:
            continue
        pattern = (r"\b" if option[0].isalnum() and option[0].isascii() else "") + re.escape(option)
        pattern += r"\b" if option[-1].isalnum() and option[-1].isascii() else ""
        if re.search(pattern, rest):
            repeated |= {other for other in range(len(options)) if options[other].strip().lower() == option}
            rest = re.sub(pattern, "\0", rest)
    return repeated
