"""Questions -> chat messages. The default is the competition notebook's Korean prompt, character by character.

A template is plain text with placeholders: `{question}`, `{options}`, `{letters}` and `{hint}`. The text of
a cell is inserted unchanged, once: braces in a question stay braces.

Options are a, b, … in tables and results. The template alone says whether the model sees and answers a or A.
"""

import hashlib
import json
import re
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal, get_args

from scoring.errors import ScoringError

LETTERS = "abcdefghijklmnopqrstuvwxyz"
LetterCase = Literal["lower", "upper"]
# The placeholders of each text: those that it must contain, and those that it may contain.
REQUIRED = {"user": ("question", "options"), "option": ("letter", "option"), "hint": ("task_hint",)}
ALLOWED = {"system": ("letters",), "user": ("letters", "hint")}
PLACEHOLDER = re.compile(r"\{(\w+)\}")
MARKS = re.compile(r"<\|[\w-]+\|>|<image(?: ?\d+)?>")  # of turns and pictures, as other tools write them into texts


class TemplateError(ScoringError):
    """A template file that cannot be used; the message says what to change."""


@dataclass(frozen=True)
class PromptTemplate:
    """The texts around a question, and the case of the letters. Raises TemplateError for another case.

    system: "" for a conversation without a system turn. hint: left out, with its placeholder, if a row has no hint.
    letters: in which case options are shown to the model and answered by it.

    >>> PromptTemplate(system="", user="{question} {options}", option="{letter}={option}").render("Who?", ["I", "you"])
    ('', 'Who? a=I\\nb=you')
    """

    system: str = (
        "당신은 시각 정보를 세밀하게 분석하여 질문에 논리적으로 답하는 비주얼 AI 전문가입니다. "
        "이미지에서 주요 대상과 그 특징(형태, 재질, 위치, 배경)을 관찰하고, "
        "보기 중 가장 가능성이 높은 정답을 선택하세요. "
        "최종 출력은 반드시 {letters} 중 하나의 소문자 한 글자만 작성하세요."
    )
    user: str = (
        "질문: {question}\n\n보기:\n{options}\n\n"
        "이미지를 관찰한 후, 가장 알맞은 보기를 고르세요. "
        "정답은 반드시 소문자 알파벳 {letters} 중 하나로만 답하세요.{hint}"
    )
    option: str = "({letter}) {option}"
    hint: str = "\n\n힌트: {task_hint}"
    letters: LetterCase = "lower"

    def __post_init__(self) -> None:
        if self.letters not in get_args(LetterCase):
            raise TemplateError(f"the template's letters are {self.letters!r}; expected lower or upper")

    @classmethod
    def read(cls, path: str | Path) -> "PromptTemplate":
        """From a TOML file with any of the fields `system`, `user`, `option`, `hint`, `letters`.

        Raises TemplateError if the file has other fields, or if one of them cannot be meant.
        """
        try:
            values = tomllib.loads(Path(path).read_text("utf-8"))
        except OSError as error:
            raise TemplateError(f"{path}: cannot be read ({error.strerror}); give a TOML file") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise TemplateError(f"{path}: not a TOML file ({error})") from None
        known = {field.name for field in fields(cls)}
        if wrong := [name for name, value in values.items() if name not in known or not isinstance(value, str)]:
            raise TemplateError(f"{path}: {', '.join(wrong)}: expected texts named {', '.join(sorted(known))}")
        try:
            template = cls(**values)
        except TemplateError as error:
            raise TemplateError(f"{path}: {error}") from None
        if fault := template._fault():
            raise TemplateError(f"{path}: {fault}")
        return template

    @property
    def labels(self) -> str:
        """The letters as the model sees and answers them, in the order of `LETTERS`."""
        return LETTERS.upper() if self.letters == "upper" else LETTERS

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with any character of the template."""
        # An empty system text was once an empty turn: without one, prompts and thus logits are others.
        values = self.to_json() | {"system": self.system or None}
        return hashlib.sha256(json.dumps(values, ensure_ascii=False).encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, str]:
        """The fields as a manifest has them: without the letters where they are the default's."""
        values: dict[str, str] = asdict(self)
        if self.letters == "lower":
            del values["letters"]
        return values

    def differing(self, other: "PromptTemplate") -> list[str]:
        """The names of the fields in which two templates differ."""
        return [field.name for field in fields(self) if getattr(self, field.name) != getattr(other, field.name)]

    def _fault(self) -> str:
        """What cannot be meant, and what to do; "" where there is nothing."""
        texts = ("system", "user", "option", "hint")
        if fault := next(filter(None, (_text_fault(name, getattr(self, name)) for name in texts)), ""):
            return fault
        if self.system and not self.system.strip():
            return 'system is blank; give a text, or "" for a conversation without a system turn'
        own = self.differing(PromptTemplate())
        if self.letters == "upper" and (defaults := [name for name in ("system", "user") if name not in own]):
            return (
                f"letters is upper, but the default {' and '.join(defaults)} would ask for a lower-case letter; give "
                'texts of your own (system = "" leaves that turn out)'
            )
        return ""

    def render(self, question: str, options: Sequence[str], hint: str = "") -> tuple[str, str]:
        """The system and the user text of one question; `options` in the order of their letters."""
        letters = ", ".join(self.labels[: len(options)])
        lines = [_fill(self.option, letter=letter, option=text) for letter, text in zip(self.labels, options)]
        user = _fill(
            self.user,
            question=question,
            options="\n".join(lines),
            letters=letters,
            hint=_fill(self.hint, task_hint=hint) if hint else "",
        )
        return _fill(self.system, letters=letters), user


def _text_fault(name: str, text: str) -> str:
    """What is wrong with one of a template's texts, and what to do; "" where nothing is."""
    found, required = set(PLACEHOLDER.findall(text)), REQUIRED.get(name, ())
    if missing := [f"{{{placeholder}}}" for placeholder in required if placeholder not in found]:
        return f"{name} has no {' and no '.join(missing)}; add the placeholder"
    filled = (*required, *ALLOWED.get(name, ()))
    known = {placeholder for placeholders in (*REQUIRED.values(), *ALLOWED.values()) for placeholder in placeholders}
    if misplaced := sorted((found & known).difference(filled)):
        expected = ", ".join(f"{{{placeholder}}}" for placeholder in filled)
        return f"{name} has {{{misplaced[0]}}}, which is not filled there; expected {expected}"
    if mark := MARKS.search(text):
        return (
            f"{name} has {mark[0]}, which the model would read as ordinary text; leave it out: the base's chat "
            "template marks the turns, and the picture comes before the user's text"
        )
    return ""


def _fill(text: str, **values: str) -> str:
    """Every `{name}` of `values` replaced in one pass, so that a value is never searched for placeholders."""
    return PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), text)
