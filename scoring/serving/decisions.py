"""`POST /v1/decisions`: the bodies as the `openai` package types them, and two fields more.

A request may have `orders` and `members`, a question `hint` and `task_type`. What is about caches, users and the state
of calls is read over; every other field that is not known is an error. A conversation becomes one text, in which each
message has its role above it; a single user message is taken as it is.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import StrictBool, StrictStr

from scoring.serving.answers import choice_confidence, expected_level, extras, score_confidence
from scoring.serving.checking import YES_NO, Checks
from scoring.serving.request import (
    AskedQuestion,
    AskedRequest,
    Limits,
    Part,
    QuestionAnswer,
    RemotePicture,
    Usage,
    Wrong,
    refuse,
)
from scoring.serving.shapes import (
    MOST_ITEMS,
    Fields,
    FirstFault,
    QuestionFields,
    RequestFields,
    at_most,
    chosen,
    kinds,
    not_supported,
    path,
    text_or,
    validated,
)

MOST_CHOICES = 255  # of the interface


class _Text(Fields):
    type: Literal["input_text"]
    text: StrictStr
    prompt_cache_breakpoint: Any = None


class _Image(Fields):
    type: Literal["input_image"]
    file_id: not_supported("no file is kept here; send the picture in image_url") = None  # type: ignore[valid-type]
    image_url: StrictStr
    detail: Any = None
    prompt_cache_breakpoint: Any = None


class _Json(Fields):
    type: Literal["input_json"]
    data: chosen(  # type: ignore[valid-type]
        lambda value: "an object" if isinstance(value, dict) else "a list" if isinstance(value, list) else "",
        {"an object": dict[StrictStr, Any], "a list": list[Any]},
    )
    prompt_cache_breakpoint: Any = None


class _OutputText(Fields):
    type: Literal["output_text"]
    text: StrictStr
    annotations: Any = None
    logprobs: Any = None


class _Refusal(Fields):
    type: Literal["refusal"]
    refusal: StrictStr


def _parts(**models: Any) -> Any:
    """A text, or parts, of which the first wrong one is told."""
    return text_or(Annotated[list[kinds(models)], FirstFault(), at_most(MOST_ITEMS)])  # type: ignore[misc]


ANY = _parts(input_text=_Text, input_image=_Image, input_json=_Json)
WORDS = _parts(input_text=_Text)
OUTPUT = _parts(input_text=_Text, input_image=_Image)


class _Message(Fields):
    type: Literal["message"] = "message"
    id: Any = None
    status: Any = None
    phase: Any = None


class _User(_Message):
    role: Literal["user"]
    content: ANY  # type: ignore[valid-type]


class _Instructing(_Message):
    role: Literal["developer", "system"]
    content: WORDS  # type: ignore[valid-type]


class _Assistant(_Message):
    role: Literal["assistant"]
    content: _parts(output_text=_OutputText, refusal=_Refusal)  # type: ignore[valid-type]


class _Call(Fields):
    call_id: StrictStr
    name: StrictStr
    id: Any = None
    status: Any = None
    namespace: Any = None


class _FunctionCall(_Call):
    type: Literal["function_call"]
    arguments: StrictStr


class _CustomCall(_Call):
    type: Literal["custom_tool_call"]
    input: StrictStr


class _Output(Fields):
    type: Literal["function_call_output", "custom_tool_call_output"]
    call_id: StrictStr
    output: OUTPUT  # type: ignore[valid-type]
    id: Any = None
    status: Any = None


ROLES = {"user": _User, "developer": _Instructing, "system": _Instructing, "assistant": _Assistant}
ITEMS = {
    "message": kinds(ROLES, "role"),
    "function_call": _FunctionCall,
    "function_call_output": _Output,
    "custom_tool_call": _CustomCall,
    "custom_tool_call_output": _Output,
}


class _Question(QuestionFields):
    instructions: ANY  # type: ignore[valid-type]
    name: StrictStr | None = None


class _Predicate(_Question):
    type: Literal["predicate"]


class _Choice(Fields):
    value: chosen(  # type: ignore[valid-type]
        lambda value: "true or false" if isinstance(value, bool) else "a text" if isinstance(value, str) else "",
        {"a text": StrictStr, "true or false": StrictBool},
    )
    description: StrictStr | None = None


class _ChoiceQuestion(_Question):
    type: Literal["choice"]
    choices: Annotated[list[_Choice], at_most(MOST_CHOICES)]


class _Level(Fields):
    label: StrictStr
    description: StrictStr | None = None


class _ScoreQuestion(_Question):
    type: Literal["score"]
    levels: Annotated[list[_Level], at_most(MOST_CHOICES)]


class _Request(RequestFields):
    input: text_or(  # type: ignore[valid-type]
        Annotated[list[kinds(ITEMS, default="message")], at_most(MOST_ITEMS)],
        "a list of messages",
    )
    questions: list[kinds({"choice": _ChoiceQuestion, "predicate": _Predicate, "score": _ScoreQuestion})]  # type: ignore[valid-type]
    prompt_cache_key: Any = None
    prompt_cache_options: Any = None
    prompt_cache_retention: Any = None
    safety_identifier: Any = None


def parse(body: object, limits: Limits, parts: Mapping[str, bytes] | None = None) -> AskedRequest:
    """A body as JSON gives it; parts: of a multipart body, which this interface does not have.

    Raises RequestError with all that is wrong.
    """
    if parts:
        refuse(
            [Wrong("", "pictures as parts of the body are for /v1/systemone; send them as data URLs in input_image")]
        )
    questions = body.get("questions") if isinstance(body, dict) else None
    if isinstance(questions, list) and not 1 <= len(questions) <= limits.questions:
        code = "too_many_questions" if questions else "too_few_questions"
        refuse([Wrong("questions", f"{len(questions):,} questions; expected 1 to {limits.questions:,}", code)])
    checks = Checks(limits, "an input_image part")
    asked = validated(_Request, body, checks.wrongs)
    if isinstance(asked.input, str):
        given = checks.parts("input", [asked.input])
    else:
        given = checks.parts("input", _conversation(asked.input, checks))
    places = checks.places()
    found = tuple(_question(number, each, given, checks) for number, each in enumerate(asked.questions))
    orders = checks.orders("orders", asked.orders)
    checks.finish()
    return AskedRequest(asked.model, given, found, orders, bool(asked.members), "input", places)


def _conversation(items: Sequence[Any], checks: Checks) -> list[Part]:
    """Messages as one text, each under a line that says whose it is."""
    if len(items) == 1 and isinstance(items[0], _User):
        return _content(path("input", 0, "content"), items[0].content, checks)
    parts: list[Part] = []
    calls: dict[tuple[str, str], str] = {}
    for number, item in enumerate(items):
        parts.append("\n\n" if parts else "")
        if isinstance(item, _Message):
            parts += [f"{item.role}:\n", *_content(path("input", number, "content"), item.content, checks)]  # type: ignore[attr-defined]
        elif isinstance(item, _Call):
            calls[item.type, item.call_id] = item.name  # type: ignore[attr-defined]
            parts += [f"call of {item.name}:\n", item.arguments if isinstance(item, _FunctionCall) else item.input]  # type: ignore[attr-defined]
        else:
            name = calls.get((item.type.removesuffix("_output"), item.call_id))
            if name is None:
                found = "there is no earlier call with this id; send the call before its output"
                checks.add(path("input", number, "call_id"), found, "unknown_call")
            parts += [f"output of {name}:\n", *_content(path("input", number, "output"), item.output, checks)]
    return parts


def _content(param: str, content: str | Sequence[Any], checks: Checks) -> list[Part]:
    """Texts and pictures of a message. JSON is on a line of its own."""
    if isinstance(content, str):
        return [content]
    parts: list[Part] = []
    after_json = False
    for number, part in enumerate(content):
        place = f"{param}[{number}]"
        picture: bytes | RemotePicture | None = None
        text = ""
        if isinstance(part, _Image):
            picture = checks.address(f"{place}.image_url", part.image_url)
        elif isinstance(part, _Json):
            text = checks.json(f"{place}.data", part.data)
        else:
            text = part.refusal if isinstance(part, _Refusal) else part.text
        before = parts[-1] if parts else b""
        if picture is None and isinstance(before, str) and (after_json or isinstance(part, _Json)):
            parts.append("" if before.endswith("\n") or text.startswith("\n") else "\n")
        parts.append(text if picture is None else picture)
        after_json = isinstance(part, _Json)
    return parts


def _question(number: int, asked: Any, given: Sequence[Part], checks: Checks) -> AskedQuestion:
    param = path("questions", number)
    instructions = checks.parts(f"{param}.instructions", _content(f"{param}.instructions", asked.instructions, checks))
    places = checks.places()
    checks.not_empty(f"{param}.instructions", given, instructions)
    values: tuple[str | bool, ...] = (True, False)
    options: tuple[str, ...] = YES_NO
    if not isinstance(asked, _Predicate):
        name = "choices" if isinstance(asked, _ChoiceQuestion) else "levels"
        place = f"{param}.{name}"
        items = getattr(asked, name)
        values = tuple(item.value if name == "choices" else item.label for item in items)
        texts = [str(value).lower() if isinstance(value, bool) else value for value in values]
        options = tuple(
            checks.option(f"{place}[{index}]", text, item.description or "")
            for index, (text, item) in enumerate(zip(texts, items))
        )
        checks.count(place, name[:-1], len(items), checks.choices, f"too_many_{name}")
        checks.distinct(place, values, options)
    return AskedQuestion(
        None if asked.name is None else checks.name(f"{param}.name", asked.name),
        asked.type,
        instructions,
        values,
        options,
        checks.text(f"{param}.hint", asked.hint or ""),
        checks.text(f"{param}.task_type", asked.task_type or ""),
        param,
        places,
    )


def render(request: AskedRequest, answers: Sequence[QuestionAnswer], usage: Usage, model: str) -> dict[str, Any]:
    """The body of the response. A question without an answer is a refusal that tells the reason."""
    return {
        "model": model,
        "answers": [_answer(request, asked, answer) for asked, answer in zip(request.questions, answers, strict=True)],
        "usage": {
            "input_tokens": usage.input_tokens,
            "input_tokens_details": {"cache_write_tokens": 0, "cached_tokens": 0},
            "output_tokens": 0,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage.input_tokens,
        },
    }


def _answer(request: AskedRequest, asked: AskedQuestion, answer: QuestionAnswer) -> dict[str, Any]:
    if answer.status != "ok":
        return {"type": "refusal", "name": asked.name, "reason": answer.status}
    found: dict[str, Any] = {"type": asked.kind, "name": asked.name}
    probabilities = answer.probabilities
    pairs = list(zip(asked.values, probabilities, strict=True))
    if asked.kind == "predicate":
        found["probability"] = probabilities[0]
    elif asked.kind == "choice":
        found["choice"] = max(pairs, key=lambda pair: pair[1])[0]
        found["confidence"] = choice_confidence(probabilities)
        found["probabilities"] = [{"value": value, "probability": each} for value, each in pairs]
    else:
        found["score"] = expected_level(probabilities)
        found["confidence"] = score_confidence(probabilities)
        found["probabilities"] = [
            {"value": level, "label": label, "probability": each} for level, (label, each) in enumerate(pairs)
        ]
    return found | extras(request, answer)
