"""Questions -> chat messages. The default is the competition notebook's Korean prompt, character by character.

A template is plain text with placeholders: `{question}`, `{options}`, `{letters}` and `{hint}`. The text of
a cell is inserted unchanged, once: braces in a question stay braces.
"""

import hashlib
import json
import re
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from scoring.errors import UserError

LETTERS = "abcdefghijklmnopqrstuvwxyz"


class TemplateError(UserError):
    """A template file that cannot be used; the message says what to change."""


@dataclass(frozen=True)
class PromptTemplate:
    """The texts around a question. `hint` and its placeholder are left out if a row has no hint."""

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

    @classmethod
    def read(cls, path: str | Path) -> "PromptTemplate":
        """From a TOML file with any of the fields `system`, `user`, `option`, `hint`.

        Raises TemplateError if the file has other fields, or if one of them lacks a placeholder.
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
        template = cls(**values)
        for field, placeholders in (
            ("user", ("{question}", "{options}")),
            ("option", ("{letter}", "{option}")),
            ("hint", ("{task_hint}",)),
        ):
            if missing := [name for name in placeholders if name not in getattr(template, field)]:
                raise TemplateError(f"{path}: {field} has no {' and no '.join(missing)}; add the placeholder")
        return template

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with any character of the template."""
        return hashlib.sha256(json.dumps(asdict(self), ensure_ascii=False).encode()).hexdigest()[:16]

    def render(self, question: str, options: Sequence[str], hint: str = "") -> tuple[str, str]:
        """The system and the user text of one question; `options` in the order of their letters."""
        letters = ", ".join(LETTERS[: len(options)])
        lines = [_fill(self.option, letter=letter, option=text) for letter, text in zip(LETTERS, options)]
        user = _fill(
            self.user,
            question=question,
            options="\n".join(lines),
            letters=letters,
            hint=_fill(self.hint, task_hint=hint) if hint else "",
        )
        return _fill(self.system, letters=letters), user


def _fill(text: str, **values: str) -> str:
    """Every `{name}` of `values` replaced in one pass, so that a value is never searched for placeholders."""
    return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), text)
