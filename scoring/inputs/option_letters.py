"""Letters that stand before options in texts ("A. cat", "(b) dog"), in the spellings that people give them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from scoring.inputs.prompt import LETTERS

CIRCLED = "①②③④⑤⑥⑦⑧⑨⑩⑪⑫⑬⑭⑮⑯⑰⑱⑲⑳㉑㉒㉓㉔㉕㉖"
# Signs of other widths and forms -> plain ones, one for one.
PLAIN = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {ord(a): ord(b) for a, b in zip("、。’", ",.'")}
_FIRST_LETTER = re.compile(r"\s*(?:[(\[（［]?\s?[AaＡａ]\s?[)\].:）］．：]|①)")


@dataclass(frozen=True)
class Style:
    """A spelling of letters before options. safe: too rare in running text to be there by chance."""

    name: str
    pattern: re.Pattern[str]
    safe: bool

    def letter(self, match: re.Match[str]) -> str:
        return LETTERS[CIRCLED.index(match[1])] if match[1] in CIRCLED else match[1].lower()


def _styles() -> list[Style]:
    styles = [Style("①", re.compile(f"([{CIRCLED}])"), True)]
    for first, letters in (("A", "[A-Z]"), ("a", "[a-z]")):
        styles += [
            Style(f"({first})", re.compile(rf"(?<![A-Za-z0-9_(])\(\s?({letters})\s?\)[.:]?"), True),
            Style(f"[{first}]", re.compile(rf"(?<![A-Za-z0-9_\[])\[({letters})\][.:]?"), True),
            Style(f"{first})", re.compile(rf"(?<![^\s,;|?:])({letters})\)"), False),
            Style(f"{first}.", re.compile(rf"(?<![^\s,;|?:])({letters})\.(?!\.)(?=\s|$|(?<=\n..)|(?<=^..))"), False),
            Style(f"{first}:", re.compile(rf"(?<![^\s,;|?:])({letters})\s?:(?!:)"), False),
        ]
    return styles


STYLES = _styles()


def strip_letters(options: Sequence[str]) -> list[str] | None:
    """Options without the letters before them; None unless all begin with their own, in one spelling.

    "A. cat", "B. dog" or "(a) cat", "(b) dog": not "A cat", "B dog", which may be texts.
    """
    if len(options) < 2 or not _FIRST_LETTER.match(options[0]):
        return None
    for style in STYLES:
        matches = [style.pattern.match(option.strip().translate(PLAIN)) for option in options]
        letters = [style.letter(match) for match in matches if match]
        texts = [option.strip()[match.end() :].strip() for option, match in zip(options, matches) if match]
        if letters == list(LETTERS[: len(options)]) and all(texts):
            return texts
    return None


def repeats_options(question: str, options: Sequence[str]) -> bool:
    """Whether a question's text holds all of these options, each behind its letter, in one spelling."""
    if len(options) < 2 or not all(option in question for option in options):
        return False
    plain = question.translate(PLAIN)
    texts = [option.strip().translate(PLAIN) for option in options]
    for style in STYLES:
        held = set()
        for match in style.pattern.finditer(plain):
            place, start = LETTERS.index(style.letter(match)), match.end()
            if place < len(texts) and re.compile(rf"\s*{re.escape(texts[place])}(?!\w)").match(plain, start):
                held.add(place)
        if len(held) == len(texts):
            return True
    return False
