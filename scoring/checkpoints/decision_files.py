"""`decision.json` and `decision_template.jinja`: a checkpoint for transformers' `pipeline("decision")`. No torch.

The template holds the whole prompt: the turns as the base's chat template writes them, and the texts of the
checkpoint's `PromptTemplate` as string literals. Its first line is a comment with that template and a digest of the
rest, from which it is read back exactly.
"""

import hashlib
import json
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from scoring.errors import ScoringError
from scoring.files.reading import read_json
from scoring.files.writing import write_json, write_text
from scoring.inputs.prompt import PLACEHOLDER, PromptTemplate
from scoring.inputs.tokens import ChatTokenizer, TokenError
from scoring.stats.calibration import Calibration

DECISION_CONFIG, DECISION_TEMPLATE = "decision.json", "decision_template.jinja"
DECISION_FILES = (DECISION_CONFIG, DECISION_TEMPLATE)
KINDS = ("choice", "score", "noul")  # of questions
OWN = re.compile(r"\{#- scoring (\{[^#]*\}) ([0-9a-f]{64}) -#\}\n")
# {put}: the text of a value. A string with pictures comes as a list of blocks, also deep in a JSON value. Pictures
# before all text are counted, since they come first in the turn; the others stand in their places.
MACROS = """\
{%- macro block(x) -%}
  {{- x is sequence and x is not string and x is not mapping and x and x[0] is mapping
      and x[0].type in ("text", "image") and x|selectattr("type", "equalto", "image")|list|length > 0 -}}
{%- endmacro -%}
{%- macro put(x, at) -%}
  {%- if x is none -%}
  {%- elif x is string -%}
    {%- if x.strip() -%}{%- set at.begun = true -%}{%- endif -%}
    {{- x -}}
  {%- elif block(x) == "True" -%}
    {%- for part in x -%}
      {%- if part.type == "text" -%}
        {%- if part.text.strip() -%}{%- set at.begun = true -%}{%- endif -%}
        {{- part.text -}}
      {%- elif at.begun -%}
        {{- PICTURE -}}
      {%- else -%}
        {%- set at.leading = at.leading + 1 -%}
      {%- endif -%}
    {%- endfor -%}
  {%- else -%}
    {%- set at.begun = true -%}
    {{- json(x) -}}
  {%- endif -%}
{%- endmacro -%}
{%- macro json(x) -%}
  {%- if x is mapping -%}
    {{- "{" -}}
    {%- for key, value in x.items() -%}
      {{- (", " if not loop.first else "") ~ key|tojson ~ ": " ~ json(value) -}}
    {%- endfor -%}
    {{- "}" -}}
  {%- elif block(x) == "True" -%}
    {{- '"' -}}
    {%- for part in x -%}{{- (part.text|tojson)[1:-1] if part.type == "text" else PICTURE -}}{%- endfor -%}
    {{- '"' -}}
  {%- elif x is sequence and x is not string -%}
    {{- "[" -}}
    {%- for value in x -%}{{- (", " if not loop.first else "") ~ json(value) -}}{%- endfor -%}
    {{- "]" -}}
  {%- else -%}
    {{- x|tojson -}}
  {%- endif -%}
{%- endmacro -%}
"""
QUESTION = """\
{%- set at = namespace(begun=false, leading=0, options="") -%}
{%- set about, asked = put(state, at), put(question.instructions, at) -%}
{%- set both = about.strip() and asked.strip() -%}
{%- set question_text = about ~ "\\n\\n" ~ asked if both else about if about.strip() else asked -%}
{%- set letters = question.labels|join(", ") -%}
{%- set at.begun = true -%}
{%- for value in question.options -%}
  {%- set letter, more = question.labels[loop.index0], put(question.descriptions[loop.index0], at) -%}
  {%- if question.type == "score" -%}
    {%- set option = more -%}
  {%- else -%}
    {%- set option = ("Yes" if value == "true" else "No") if question.type == "noul" else put(value, at) -%}
    {%- set option = option ~ ": " ~ more if more else option -%}
  {%- endif -%}
  {%- set at.options = at.options ~ ("" if loop.first else "\\n") ~ (OPTION) -%}
{%- endfor -%}
"""


class DecisionFileError(ScoringError):
    """A prompt that `decision_template.jinja` cannot hold, or such a file that cannot be read."""


@dataclass(frozen=True)
class Turns:
    """A base's conversation around the texts: before the system text, after it, a picture, and after the user's."""

    before: str
    between: str
    picture: str
    after: str

    @classmethod
    def of(cls, chat: ChatTokenizer, system: bool) -> "Turns":
        """Raises DecisionFileError where pictures are written otherwise in other places."""
        text, first, second = "\ue0000\ue001", "\ue0000\ue001", "\ue0001\ue001"
        head, after = chat.rendered(system, (True,)).split(text)
        before, between = head.split("\ue000s\ue001") if system else (head, "")
        if not chat.family.sees_pictures:
            return cls(before, between, "", after)
        shown = chat.rendered(system, (False, True))
        picture = shown.removeprefix(head).removesuffix(text + after)
        if shown != head + picture + text + after or (
            chat.rendered(system, (True, False, True)) != head + first + picture + second + after
        ):
            raise DecisionFileError("the base's chat template writes pictures otherwise in other places")
        return cls(before, between, picture, after)


def decision_template(chat: ChatTokenizer, template: PromptTemplate) -> str:
    """The text of `decision_template.jinja`. Raises DecisionFileError, TokenError."""
    turns = Turns.of(chat, bool(template.system))
    option = _expression(template.option, letter="letter", option="option")
    names = {"question": "question_text", "options": "at.options", "letters": "letters", "hint": '""'}
    parts = [
        _literal(turns.before),
        *([_expression(template.system, letters="letters"), _literal(turns.between)] if template.system else []),
        "(PICTURE * at.leading)",
        _expression(template.user, **names),
        _literal(turns.after),
    ]
    # Tokens that a template names are text where a request has them: those that are not special must be named.
    body = (
        f"{{%- set CONTROL = [{', '.join(map(_literal, sorted(chat.control)))}] -%}}\n"
        f"{{%- set PICTURE = {_literal(turns.picture)} -%}}\n"
        "{%- set THINKING = enable_thinking -%}\n"  # which processors are given where the base's own template has it
        + MACROS
        + QUESTION.replace("(OPTION)", option)
        + "{{- "
        + "\n  ~ ".join(parts)
        + " -}}\n"
    )
    return f"{{#- scoring {_comment(template)} {_digest(body)} -#}}\n{body}"


def read_template(folder: Path) -> PromptTemplate | None:
    """The template that a folder's `decision_template.jinja` was made of.

    None where there is no such file, or one of others, or one that was changed. Raises DecisionFileError where it is
    damaged.
    """
    path = folder / DECISION_TEMPLATE
    if not path.exists():
        return None
    try:
        text = path.read_text("utf-8")
        match = OWN.match(text)
        if not match or _digest(text[match.end() :]) != match[2]:
            return None
        return PromptTemplate(**json.loads(match[1]))
    except (OSError, ValueError, TypeError, ScoringError) as error:
        expected = "expected a file as it was written; copy it again, or delete it"
        raise DecisionFileError(f"{path}: cannot be read ({error}); {expected}") from None


def write_decision_files(
    folder: Path, chat: ChatTokenizer, template: PromptTemplate, calibration: Calibration | None
) -> list[str]:
    """Write both files into a checkpoint's folder, and say what they do not hold.

    Nothing is written where the prompt cannot be expressed; then the only note says why.
    """
    try:
        text, labels = decision_template(chat, template), _readable_labels(chat, template)
    except (DecisionFileError, TokenError) as error:
        return [f"{DECISION_CONFIG} and {DECISION_TEMPLATE} were not written: {error}"]
    temperature, notes = _temperature(calibration)
    config = {
        "labels": {"choice": labels, "score": labels, "noul": labels[:2]},
        "temperature": dict.fromkeys(KINDS, temperature),
        "noul_options": ["true", "false"],
        "sanitize_control_tokens": True,
        "adapter": None,
    }
    write_text(folder / DECISION_TEMPLATE, text)
    write_json(folder / DECISION_CONFIG, config)
    return notes


def update_temperature(folder: Path, calibration: Calibration) -> list[str]:
    """Put another calibration's temperature into `decision.json`, where the folder has that file; notes as above.

    A file that is damaged, or whose prompt is not the one that was calibrated, stays as it is; the note says so.
    """
    if not (folder / DECISION_CONFIG).exists():
        return []
    try:
        config, template = read_json(folder / DECISION_CONFIG) or {}, read_template(folder)
    except ScoringError as error:
        return [f"{DECISION_CONFIG}: keeps its temperature: {error}"]
    if template is None:
        return [f"{DECISION_CONFIG}: keeps its temperature, since {DECISION_TEMPLATE} is not what `train` wrote"]
    temperature, notes = _temperature(calibration)
    write_json(folder / DECISION_CONFIG, config | {"temperature": dict.fromkeys(KINDS, temperature)})
    return notes


def _readable_labels(chat: ChatTokenizer, template: PromptTemplate) -> list[str]:
    """The first letters that are one token by themselves, as the pipeline reads them, and the same as answers.

    Raises DecisionFileError where those are fewer than two.
    """
    labels: list[str] = []
    with suppress(TokenError):
        for letter in template.labels:
            if chat.tokenizer.encode(letter, add_special_tokens=False).ids != chat.label_ids(
                letter, bool(template.system)
            ):
                break
            labels.append(letter)
    if len(labels) < 2:
        raise DecisionFileError("the letters by themselves, which the pipeline reads, are other tokens than as answers")
    return labels


def _temperature(calibration: Calibration | None) -> tuple[float, list[str]]:
    """The temperature for `decision.json`, and what a calibration has beyond it."""
    if calibration is None:
        return 1.0, []
    if calibration.letters or calibration.groups:
        form = "a bias for each letter" if calibration.letters else "temperatures by task type"
        return 1.0, [f"{DECISION_CONFIG}: the calibration has {form}, which it cannot hold: its temperature is 1"]
    return calibration.temperature, []


def _expression(text: str, **names: str) -> str:
    """A text with placeholders as a jinja expression. names: placeholder -> the expression that fills it."""
    parts, position = [], 0
    for match in PLACEHOLDER.finditer(text):
        if match[1] in names:
            parts += [_literal(text[position : match.start()]), names[match[1]]]
            position = match.end()
    return " ~ ".join([*parts, _literal(text[position:])])


def _literal(text: str) -> str:
    """A text as a jinja string: no tag, comment or quote in it is ever one of the template's."""
    return json.dumps(text, ensure_ascii=False)


def _comment(template: PromptTemplate) -> str:
    return json.dumps(template.to_json(), ensure_ascii=False).replace("#", "\\u0023")  # which would end a comment


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()
