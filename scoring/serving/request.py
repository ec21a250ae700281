"""A request as both interfaces give it, its limits, and what is wrong with one."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from scoring.errors import MAX_LISTED, ScoringError, counted

MAX_MESSAGE = 4_000  # characters of an error's message
TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


@dataclass(frozen=True)
class RemotePicture:
    """A picture to fetch."""

    url: str


Part = str | bytes | RemotePicture  # text, an encoded picture, or a picture to fetch; in their places
Kind = Literal["choice", "predicate", "score"]


@dataclass(frozen=True)
class AskedQuestion:
    """One question. `values`: what the answer names, in the request's order: True and False of a predicate, the labels
    of levels. `options`: the same as the model reads them. `hint` and `task_type` are as in a table. `place`: the field
    that holds it, and `picture_places`: those of the pictures of its instructions, for messages.
    """

    name: str | None
    kind: Kind
    instructions: tuple[Part, ...]
    values: tuple[Any, ...]
    options: tuple[str, ...]
    hint: str = ""
    task_type: str = ""
    place: str = "questions"
    picture_places: tuple[str, ...] = ()


@dataclass(frozen=True)
class AskedRequest:
    """Questions about one input. `orders`: of options, as `score` takes them; None: as the server was started.

    `members`: whether the answers tell what each checkpoint says. `place`: the field of the input, and
    `picture_places`: those of its pictures, for messages.
    """

    model: str
    input: tuple[Part, ...]
    questions: tuple[AskedQuestion, ...]
    orders: str | None = None
    members: bool = False
    place: str = "input"
    picture_places: tuple[str, ...] = ()


@dataclass(frozen=True)
class QuestionAnswer:
    """Probabilities of a question's options in their order, also by each member. `status`: ok, or why there is none."""

    probabilities: tuple[float, ...]
    label_mass: float
    margin: float
    members: dict[str, tuple[float, ...]] = field(default_factory=dict)
    status: str = "ok"


@dataclass(frozen=True)
class Usage:
    """What a request took."""

    input_tokens: int


@dataclass(frozen=True)
class Limits:
    """The most of a request. body_bytes, picture_bytes: of the body, and of each picture's file. text_chars: of all
    texts together. pictures: in all places of the request. choices: options of a question, no more than the model's.
    picture_pixels: of each picture, before it is decoded.
    """

    body_bytes: int = 64 * 2**20
    questions: int = 400
    choices: int = 26
    text_chars: int = 1_000_000
    pictures: int = 64
    picture_bytes: int = 20 * 2**20
    picture_pixels: int = 50_000_000


class RequestError(ScoringError):
    """Why a request has no answer. status: of HTTP. param: the field that is wrong. code: a word for programs.

    retry_after: seconds after which it is worth another try.
    """

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None, retry_after: int = 1
    ):
        self.status, self.param, self.code, self.retry_after = status, param, code, retry_after
        cut = message if len(message) <= MAX_MESSAGE else message[:MAX_MESSAGE] + "…"
        self.message = cut.encode("utf-8", "backslashreplace").decode()  # half characters can be sent nowhere
        if param is not None:
            self.param = param[:200].encode("utf-8", "backslashreplace").decode()
        super().__init__(self.message)

    def body(self) -> dict[str, dict[str, str | None]]:
        """OpenAI's error object.

        >>> RequestError(400, "no question", "questions", "invalid_value").body()["error"]["type"]
        'invalid_request_error'
        """
        kind = TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


@dataclass(frozen=True)
class Wrong:
    """One thing that is wrong with a request."""

    param: str
    message: str
    code: str = "invalid_value"
    status: int = 400

    @property
    def text(self) -> str:
        return f"{self.param}: {self.message}" if self.param else self.message


def refuse(wrongs: Sequence[Wrong]) -> None:
    """Raises RequestError with all that is wrong, if anything is. Its status, field and code are those of the first."""
    if not wrongs:
        return
    lines = [wrong.text for wrong in wrongs[:MAX_LISTED]]
    if len(wrongs) > MAX_LISTED:
        lines.append(f"… and {counted(len(wrongs) - MAX_LISTED, 'more problem')}")
    first = wrongs[0]
    raise RequestError(first.status, "\n".join(lines), first.param or None, first.code)
