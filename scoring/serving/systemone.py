"""`POST /v1/systemone`: the bodies as `typesafe-sdk` types them, and four fields more.

A request may have `orders` and `members`, a question `hint` and `task_type`. `assets` are pictures by a placeholder,
which stands as or inside a string of the state or of instructions; those in criteria are refused. JSON is written on
one line. A `noul` question is a predicate; `box` questions are refused.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal
from uuid import uuid4

from pydantic import StrictStr

from scoring.errors import quoted
from scoring.serving.answers import choice_confidence, expected_level, extras, score_confidence
from scoring.serving.checking import YES_NO, Checks
from scoring.serving.request import (
    AskedQuestion,
    AskedRequest,
    Limits,
    Part,
    QuestionAnswer,
    RequestError,
    Usage,
    Wrong,
    refuse,
)
from scoring.serving.shapes import Fields, QuestionFields, RequestFields, at_most, chosen, kinds, validated

MOST_CHOICES = 255
KIND: dict[str, Literal["choice", "predicate", "score"]] = {"choice": "choice", "noul": "predicate", "score": "score"}


def _content(*, null: bool) -> Any:
    types = {str: "a text", dict: "an object", list: "a list"} | ({type(None): "null"} if null else {})
    members = {"a text": StrictStr, "an object": dict[StrictStr, Any], "a list": list[Any], "null": None}
    return chosen(lambda value: types.get(type(value), ""), {name: members[name] for name in types.values()})


CONTENT: Any = _content(null=False)
OPTIONAL: Any = _content(null=True)


class _Question(QuestionFields):
    instructions: OPTIONAL = None


class _NoulCriteria(Fields):
    true: OPTIONAL = None
    false: OPTIONAL = None


class _Noul(_Question):
    type: Literal["noul"]
    criteria: _NoulCriteria | None = None


class _Choice(_Question):
    type: Literal["choice"]
    criteria: Annotated[dict[StrictStr, OPTIONAL], at_most(MOST_CHOICES)]


class _Score(_Question):
    type: Literal["score"]
    criteria: Annotated[list[CONTENT], at_most(MOST_CHOICES)]


class _Asset(Fields):
    type: Literal["image"] | None = None
    format: Any = None  # that of the bytes counts
    data_base64: StrictStr | None = None
    part: StrictStr | None = None


class _Request(RequestFields):
    state: CONTENT
    questions: dict[StrictStr, kinds({"choice": _Choice, "noul": _Noul, "score": _Score})]  # type: ignore[valid-type]
    assets: dict[StrictStr, _Asset] | None = None


def parse(body: object, limits: Limits, parts: Mapping[str, bytes] | None = None) -> AskedRequest:
    """A body as JSON gives it; parts: the pictures of a multipart body. Raises RequestError with all that is wrong."""
    given = body if isinstance(body, dict) else {}
    questions, assets = given.get("questions"), given.get("assets")
    wrongs = []
    if isinstance(questions, dict):
        if not 1 <= len(questions) <= limits.questions:
            code = "too_many_questions" if questions else "too_few_questions"
            found = f"{len(questions):,} questions; expected 1 to {limits.questions:,}"
            wrongs.append(Wrong("questions", found, code))
        else:
            unsupported = "box questions are not supported; this server answers choice, noul and score"
            wrongs += [
                Wrong(f"questions.{_shown(str(name))}", unsupported, "unsupported_question")
                for name, question in questions.items()
                if isinstance(question, dict) and question.get("type") == "box"
            ]
    if isinstance(assets, dict) and len(assets) > limits.pictures:
        found = f"{len(assets):,} pictures; expected at most {limits.pictures:,}"
        wrongs.append(Wrong("assets", found, "too_many_pictures"))
    refuse(wrongs)
    checks = Checks(limits, "the name of an asset")
    asked = validated(_Request, body, checks.wrongs)
    pictures = _Pictures(asked.assets or {}, parts or {}, checks)
    state = checks.parts("state", pictures.content("state", asked.state))
    places = checks.places()
    found_questions = tuple(_question(name, each, state, pictures, checks) for name, each in asked.questions.items())
    pictures.check_used()
    orders = checks.orders("orders", asked.orders)
    checks.finish()
    return AskedRequest(asked.model, state, found_questions, orders, bool(asked.members), "state", places)


class _Pictures:
    """The pictures of a request by their placeholders, and which of them were placed."""

    def __init__(self, assets: Mapping[str, _Asset], parts: Mapping[str, bytes], checks: Checks):
        self.checks, self.used = checks, set[str]()
        self.contents = {name: self._read(name, asset, parts) for name, asset in assets.items()}
        claimed = {asset.part for asset in assets.values()}
        for name in parts.keys() - claimed:
            found = "no asset names this part of the body; name it, or leave it out"
            checks.add(f"assets ({_shown(name)})", found, "unused_part")
        longest_first = sorted(filter(None, assets), key=len, reverse=True)
        self.names = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
        self.key = uuid4().hex  # marks a picture's place while it is in JSON
        self.numbers = {name: number for number, name in enumerate(assets)}
        self.places = re.compile(f"{self.key}-([0-9]+);")

    def _read(self, name: str, asset: _Asset, parts: Mapping[str, bytes]) -> bytes:
        param = f"assets.{_shown(name)}"
        if not name.strip():
            self.checks.add(param, "a placeholder without a sign; expected a text that stands in its place")
        if asset.part is not None:
            if asset.part in parts:
                return self.checks.picture(f"{param}.part", parts[asset.part])
            found = f"the body has no part named {quoted(asset.part)}; send it as multipart/form-data"
            self.checks.add(f"{param}.part", found, "missing_part")
        elif asset.data_base64 is not None:
            return self.checks.base64(f"{param}.data_base64", asset.data_base64)
        else:
            self.checks.add(param, "no picture; send data_base64, or part", "missing_required_parameter")
        return b""

    def content(self, param: str, content: Any) -> list[Part]:
        """Text, or JSON on one line, cut at the pictures' places."""
        if content is None:
            return []
        if not isinstance(content, str) and not self.checks.is_shallow(param, content):
            return []
        marked = self._marked(content)
        text = marked if isinstance(marked, str) else self.checks.json(param, marked)
        names = list(self.contents)
        found: list[Part] = []
        for index, piece in enumerate(self.places.split(text)):
            if index % 2:
                name = names[int(piece)]
                self.used.add(name)
                found.append(self.contents[name])
                self.checks.placed.append(f"assets.{_shown(name)}")
            else:
                found.append(piece)
        return found

    def _marked(self, content: Any) -> Any:
        """The content with a mark in place of every placeholder in its strings."""
        if self.names is None:
            return content
        if isinstance(content, str):
            return self.names.sub(lambda match: f"{self.key}-{self.numbers[match[0]]};", content)
        if isinstance(content, dict):
            return {key: self._marked(value) for key, value in content.items()}
        return [self._marked(value) for value in content] if isinstance(content, list) else content

    def words(self, param: str, content: Any) -> str:
        """The same where pictures cannot be."""
        parts = self.content(param, content)
        if any(not isinstance(part, str) for part in parts):
            found = "pictures in criteria are not supported; name the picture in the state or the instructions"
            self.checks.add(param, found, "unsupported_picture")
        return "".join(part for part in parts if isinstance(part, str))

    def check_used(self) -> None:
        """A picture that is named nowhere would be lost in silence."""
        for name in self.contents.keys() - self.used:
            found = "this placeholder is nowhere in the state or in instructions; put it where the picture belongs"
            self.checks.add(f"assets.{_shown(name)}", found, "unused_asset")


def _shown(name: str) -> str:
    return quoted(name)[1:-1] or "''"


def _question(name: str, asked: Any, state: Sequence[Part], pictures: _Pictures, checks: Checks) -> AskedQuestion:
    param = f"questions.{_shown(name)}"
    checks.name(param, name)
    instructions = checks.parts(f"{param}.instructions", pictures.content(f"{param}.instructions", asked.instructions))
    places = checks.places()
    checks.not_empty(f"{param}.instructions", state, instructions)
    place = f"{param}.criteria"
    values: tuple[Any, ...] = (True, False)
    if isinstance(asked, _Noul):
        told = asked.criteria or _NoulCriteria()
        words = [pictures.words(f"{place}.{key}", getattr(told, key)) for key in ("true", "false")]
        options = tuple(checks.option(place, value, text) for value, text in zip(YES_NO, words))
    elif isinstance(asked, _Choice):
        values = tuple(asked.criteria)
        options = tuple(
            checks.option(f"{place}.{_shown(value)}", value, pictures.words(f"{place}.{_shown(value)}", text))
            for value, text in asked.criteria.items()
        )
    else:
        values = tuple(asked.criteria)
        options = tuple(
            checks.option(f"{place}[{level}]", pictures.words(f"{place}[{level}]", text))
            for level, text in enumerate(values)
        )
    checks.distinct(place, options, options)
    noun = "level" if isinstance(asked, _Score) else "choice"
    checks.count(place, noun, len(options), checks.choices, f"too_many_{noun}s")
    checks.places()  # of criteria, which are refused
    hint = checks.text(f"{param}.hint", asked.hint or "")
    task_type = checks.text(f"{param}.task_type", asked.task_type or "")
    return AskedQuestion(name, KIND[asked.type], instructions, values, options, hint, task_type, param, places)


def render(request: AskedRequest, answers: Sequence[QuestionAnswer], usage: Usage, model: str) -> dict[str, Any]:
    """The body of the response. Raises RequestError 422 where a question has no answer, which it cannot tell."""
    pairs = list(zip(request.questions, answers, strict=True))
    if missing := [f"{_shown(str(asked.name))}: {each.status}" for asked, each in pairs if each.status != "ok"]:
        raise RequestError(422, "no answer to\n" + "\n".join(missing), "questions", "no_answer")
    return {
        "model": model,
        "answers": {str(asked.name): _answer(asked, answer) | extras(request, answer) for asked, answer in pairs},
        "usage": {"input_tokens": usage.input_tokens, "output_tokens": 0},
    }


def _answer(asked: AskedQuestion, answer: QuestionAnswer) -> dict[str, Any]:
    probabilities = answer.probabilities
    if asked.kind == "predicate":
        return {"type": "noul", "noul": probabilities[0]}
    if asked.kind == "choice":
        by_name = dict(zip(map(str, asked.values), probabilities, strict=True))
        return {
            "type": "choice",
            "choice": max(by_name, key=by_name.__getitem__),
            "confidence": choice_confidence(probabilities),
            "probabilities": by_name,
        }
    return {
        "type": "score",
        "score": expected_level(probabilities),
        "confidence": score_confidence(probabilities),
        "legend": {str(level): value for level, value in enumerate(asked.values)},
        "probabilities": {str(level): each for level, each in enumerate(probabilities)},
    }
