"""Options that stand in a question's text behind their letters: cut out, or refused where that is not certain.

Three ways of writing are read: one option a line ("A. cat"), options behind a heading ("Options: A: cat, B: dog"), and
options behind a question mark or the end of a sentence ("What is it? (A) cat (B) dog"). The letters are all in one
spelling and run A, B, … once each. The question is what stands before them. An instruction after them ("Answer with
the option's letter …") belongs to no option and is cut off; any other text there makes the row faulty.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from scoring.errors import ScoringError, quoted
from scoring.inputs.option_letters import PLAIN, STYLES, Style
from scoring.inputs.prompt import LETTERS

EXPECTED = "a question, and after it options behind letters that run A, B, … once each, as in 'A. cat' and 'B. dog'"
_HEADING = re.compile(
    r"(?<!\w)(?:(?:answer |possible )?(?:options?|choices?)|answers|candidates|옵션|선택지|선지|보기|选项|選択肢)"
    r"(?:\s*:\s*|[ \t]*\n\s*)",
    re.IGNORECASE,
)
_LONGEST_INSTRUCTION = 400  # characters
_JOINED = re.compile(r"(?:^|\s)(?:and|or|또는|혹은|및)$", re.IGNORECASE)

# ------------------------------------------------------------------ instructions after the options
_ORDER = (
    "answer|respond|reply|select|choose|pick|provide|give|output|return|write|indicate|state|put|end|think|explain|"
    "do not|don't|only|just|your answer|the answer|finally"
)
_LINES = [
    rf"(?:please |now |then |so )*(?:{_ORDER})\b.*\b(?:letters?|options?|choices?|alternatives?|answer(?:s|ing)?)\b.*",
    r"(?:please )?(?:answer|respond|reply)\b.*\b(?:directly|single word|word or (?:phrase|number)|explanations?)\b.*",
    r"(?:answer|정답|답|答案|回答|答え)\s*[:?]?",
    r".*(?:답|선택|고르|골라|선지|보기|알파벳|문자|글자|기호).*(?:세요|시오|하라|해라|쓰라|골라라|할 것|하기)",
    r"请.*(?:选项|选择|字母|回答|答案).*",
    r".*(?:選択肢|記号|文字|アルファベット).*(?:答え|選ん|選択し|回答).*",
]
_INSTRUCTION = re.compile("|".join(f"(?:{line})" for line in _LINES), re.IGNORECASE)
# Whole sentences that are taken for instructions even in the line of the last option, behind a space.
_SENTENCES = [
    r"(?:please )?(?:answer|respond|reply)(?: directly)? with (?:only )?(?:the|one) (?:letter|option)[^.?!\n]*",
    r"(?:please )?(?:answer|respond|reply) with the option's letter[^.?!\n]*",
    r"(?:please )?(?:select|choose|pick) the (?:correct|right|best) (?:answer|option|choice)[^.?!\n]*",
    r"주어진 선택지 중 해당 옵션의 문자로 직접 답하세요",
    r"请直接回答选项字母",
]
_SENTENCE = re.compile(rf"(?<=\s)(?:{'|'.join(_SENTENCES)})[.!]?\s*$", re.IGNORECASE)


class InlineError(ScoringError):
    """A text whose options cannot be told for certain; `found` says why, EXPECTED what is read."""

    def __init__(self, found: str):
        super().__init__(f"{found}; expected {EXPECTED}")
        self.found = found


class InlineQuestion(NamedTuple):
    """A question without its options. instruction: what was cut off after the last option; "" if nothing."""

    question: str
    options: list[str]
    instruction: str


def cut_options(text: str) -> InlineQuestion:
    """The question and the options that a text holds. Raises InlineError where they are not certain.

    `<image>` marks at the end of a text without others come before the question: no option owns them.
    """
    body, instruction = _without_instruction(_with_marks_first(text))
    plain = body.translate(PLAIN)
    found = _after_heading(plain) or _in_lines(plain) or _after_a_sentence(plain)
    if found is None:
        raise InlineError(f"no list of options in {quoted(text)}")
    question = body[: found.start].strip()
    if not re.sub(r"<image(?: \d+)?>", "", question).strip():
        raise InlineError(f"no question before the options in {quoted(text)}")
    options = [body[start:end].strip() for start, end in found.spans]
    return InlineQuestion(question, options, " ".join(instruction.split()))


# ------------------------------------------------------------------ letters in a text
class _Mark(NamedTuple):
    letter: str
    start: int
    end: int
    first: bool  # in its line, or in the list
    separated: bool  # from what stands before it, by a comma or the like


class _List(NamedTuple):
    """A list of options. start: where it begins, with its heading. spans: (start, end) of each option's text."""

    start: int
    spans: list[tuple[int, int]]


def _marks(text: str, style: Style, start: int = 0) -> list[_Mark]:
    """All letters of a style from `start` on."""
    marks = []
    for match in style.pattern.finditer(text, start):
        nearest = max(start, match.start() - 100)
        before = text[nearest : match.start()].rstrip(" \t")
        first = before.endswith("\n") or (not before and nearest == start)
        separated = first or before.rstrip().endswith((",", ";", "|"))
        marks.append(_Mark(style.letter(match), match.start(), match.end(), first, separated))
    return marks


def _run(marks: Sequence[_Mark]) -> bool:
    """Whether the letters are a, b, … once each, two at least."""
    return len(marks) > 1 and [mark.letter for mark in marks] == list(LETTERS[: len(marks)])


def _spans(text: str, marks: Sequence[_Mark]) -> list[tuple[int, int]]:
    """(start, end) of the text behind each letter, without blanks."""
    ends = [*(mark.start for mark in marks[1:]), len(text)]
    spans = []
    for mark, end in zip(marks, ends):
        option = text[mark.end : end]
        start = mark.end + len(option) - len(option.lstrip())
        spans.append((start, max(start, start + len(option.strip()))))
    return spans


def _options(text: str, marks: list[_Mark], in_line: bool) -> list[tuple[int, int]]:
    """The spans of the options behind these letters, without the commas between them. Raises InlineError.

    in_line: several options may stand in a line.
    """
    spans = _spans(text, marks)
    texts = [text[start:end] for start, end in spans]
    if not all(texts):
        raise InlineError(f"nothing behind the letter {marks[texts.index('')].letter.upper()} in {quoted(text)}")
    if "\n" in texts[-1]:
        raise InlineError(f"{quoted(texts[-1].split(chr(10), 1)[1].strip())} after the last option")
    commas = [option.endswith((",", ";", "|")) for option in texts[:-1]]
    if all(commas):
        spans = [*((start, start + len(text[start : end - 1].rstrip())) for start, end in spans[:-1]), spans[-1]]
    elif in_line and any(commas):
        raise InlineError(f"commas between some options and not between others in {quoted(text[marks[0].start :])}")
    texts = [text[start:end] for start, end in spans]
    if in_line and any(map(_JOINED.search, texts)):
        raise InlineError(f"options in a sentence, {quoted(text[marks[0].start :])}")
    if not all(texts):
        raise InlineError(f"an empty option in {quoted(text[marks[0].start :])}")
    return spans


def _listed(marks: Sequence[_Mark]) -> str:
    return ", ".join(mark.letter.upper() for mark in marks[:10]) + ("…" if len(marks) > 10 else "")


# ------------------------------------------------------------------ where a list begins
def _after_heading(text: str) -> _List | None:
    """The list directly behind a heading such as "Options:"; None where there is none. Raises InlineError."""
    found = []
    for heading in _HEADING.finditer(text):
        for style in STYLES:
            match = style.pattern.match(text, heading.end())
            if match and style.letter(match) == "a":
                found.append((heading, style))
    if not found:
        return None
    if len(found) > 1:
        raise InlineError(f"{len(found)} lists of options in {quoted(text)}")
    heading, style = found[0]
    apart = _ends(text[: heading.start()], ".?!:…")
    return _List(heading.start() if apart else heading.end(), _choose(text, _marks(text, style, heading.end())))


def _choose(text: str, marks: list[_Mark]) -> list[tuple[int, int]]:
    """The spans of the options of a list whose first letter is the first of `marks`. Raises InlineError."""
    lines = [mark for mark in marks if mark.first]
    separated = [mark for mark in marks if mark.separated]
    if _run(lines):
        if len(marks) > len(lines) and _run(marks) and all(end > start for start, end in _spans(text, marks)):
            raise InlineError(f"an option in a line of its own, and others in one line, {quoted(text)}")
        return _options(text, lines, in_line=False)
    if _run(marks):
        return _options(text, marks, in_line=True)
    if _run(separated):
        return _options(text, separated, in_line=True)
    raise InlineError(f"options behind the letters {_listed(marks)}")


def _in_lines(text: str) -> _List | None:
    """The list with an option a line; None where no line begins with the letter A or a. Raises InlineError."""
    lists = []
    for style in STYLES:
        marks = _marks(text, style)
        lines = [mark for mark in marks if mark.first]
        if len(lines) > 1 and any(mark.letter == "a" for mark in lines):
            lists.append((style, lines, marks))
    runs = [(style, lines, marks) for style, lines, marks in lists if _run(lines)]
    if len(runs) > 1:
        raise InlineError(f"lists of options in several spellings, {' and '.join(style.name for style, *_ in runs)}")
    if not runs:
        broken = [lines for _, lines, marks in lists if not _run(marks)]
        if broken:
            raise InlineError(f"lines that begin with the letters {_listed(broken[0])}")
        return None
    _, lines, marks = runs[0]
    behind = [mark for mark in marks if mark.start >= lines[0].start]
    return _List(lines[0].start, _choose(text, behind))


def _after_a_sentence(text: str) -> _List | None:
    """The list in one line, behind a question mark or, for letters in brackets, a sentence. Raises InlineError."""
    runs = []
    for style in STYLES:
        marks = _marks(text, style)
        if _run(marks) and (style.safe or style.name[0] == "A"):
            before = text[: marks[0].start]
            if _ends(before, ".?!:…") if style.safe else _ends(before.rstrip(), "?:"):
                runs.append((style, marks))
    if len(runs) > 1:
        raise InlineError(f"lists of options in several spellings, {' and '.join(style.name for style, _ in runs)}")
    if not runs:
        return None
    marks = runs[0][1]
    spans = _options(text, marks, in_line=True)
    if any("?" in text[start:end] for start, end in spans):
        raise InlineError(f"a question behind the letters, {quoted(text[marks[0].start :])}")
    return _List(marks[0].start, spans)


def _with_marks_first(text: str) -> str:
    stripped = text.rstrip()
    while stripped.endswith("<image>"):
        stripped = stripped.removesuffix("<image>").rstrip()
    if "<image" in stripped or len(stripped) == len(text.rstrip()):
        return text
    return text[len(stripped) :].strip() + "\n" + stripped


def _ends(text: str, signs: str) -> bool:
    """Whether a text is empty, or ends with a line or with one of these signs."""
    stripped = text.rstrip()
    return not stripped or "\n" in text[len(stripped) :] or stripped.rstrip("\"')]")[-1:] in tuple(signs)


def _without_instruction(text: str) -> tuple[str, str]:
    """(text without the instruction at its end, the instruction or "")."""
    lines = text.rstrip().split("\n")
    kept = len(lines)
    while kept > 1:
        line = lines[kept - 1].translate(PLAIN).strip()
        if line and not _is_instruction(line):
            break
        kept -= 1
    body, cut = "\n".join(lines[:kept]).rstrip(), "\n".join(lines[kept:]).strip()
    window = max(0, len(body) - _LONGEST_INSTRUCTION)
    if not cut and (sentence := _SENTENCE.search(body.translate(PLAIN), window)):
        body, cut = body[: sentence.start()].rstrip(), body[sentence.start() :].strip()
    return body, cut


def _is_instruction(line: str) -> bool:
    """Whether a line says how to answer. line: in plain signs, without blanks around it."""
    if len(line) > _LONGEST_INSTRUCTION or any(style.pattern.match(line) for style in STYLES):
        return False
    return _INSTRUCTION.fullmatch(line.strip("*_()").rstrip(".!").strip()) is not None
