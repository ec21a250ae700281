"""Answers a request with a `Scorer`: typed questions -> `Question`s -> probabilities -> typed answers.

Questions of one request are asked together, so that what they have in common is computed once. What is wrong with the
request is a `RequestError`; what is wrong with one question is the status of its answer.
"""

from collections.abc import Sequence
from dataclasses import replace
from threading import Lock

from scoring.errors import CallError, InputError, ScoringError, first_of
from scoring.inputs.option_letters import repeats_options
from scoring.inputs.orders import OrdersError
from scoring.inputs.pictures import PictureError, PictureLimits, picture_size, read_picture
from scoring.inputs.prepare import TOO_LONG
from scoring.inputs.prompt import LETTERS
from scoring.inputs.questions import Question
from scoring.library.answers import Answer
from scoring.library.ask_limits import AskLimits, CancelToken
from scoring.library.owner import CLOSED
from scoring.library.rows import question_of, table_of
from scoring.library.scorer import Scorer
from scoring.serving.content import question_text
from scoring.serving.fetching import FetchedPictures, PictureFetcher
from scoring.serving.request import (
    AskedRequest,
    Part,
    QuestionAnswer,
    RemotePicture,
    RequestError,
    Usage,
    Wrong,
    refuse,
)
from scoring.serving.settings import ServeSettings

PICTURE = "picture: "  # begins the status of a question whose picture cannot be read
MOST_CHARACTERS = 16  # of text for each token that a request may have; more is refused before it is encoded


class DecisionService:
    """Answers requests from any thread. most_tokens: of one request, in all option orders."""

    def __init__(self, scorer: Scorer, settings: ServeSettings):
        self.scorer, self.most_tokens = scorer, settings.most_tokens
        self.limits, self.fetch_seconds = settings.limits, settings.body_seconds
        self.fetcher = PictureFetcher(settings.fetch_from, settings.limits.picture_bytes)
        self.picture_limits = PictureLimits(settings.limits.picture_pixels, settings.limits.picture_bytes)
        self._reading = Lock()  # one picture at a time is decoded to find the broken one

    def answer(self, asked: AskedRequest, token: CancelToken | None = None) -> tuple[list[QuestionAnswer], Usage]:
        """The answers in the questions' order, and what they took.

        Raises RequestError, and `concurrent.futures.CancelledError` once the token is cancelled.
        """
        fetched = FetchedPictures(self.fetcher, self.limits.body_bytes, self.fetch_seconds)
        given = _with_pictures(asked.input, asked.picture_places, fetched)
        whole = [
            replace(each, instructions=_with_pictures(each.instructions, each.picture_places, fetched))
            for each in asked.questions
        ]
        asked = replace(asked, input=given, questions=tuple(whole))
        questions = [self._question(number, asked) for number in range(len(whole))]
        self._check_length(asked, questions)
        limits = AskLimits(self.most_tokens, cancel=token)
        try:
            answers = self.scorer.ask_together(table_of(questions), orders=asked.orders, limits=limits)
        except OrdersError as error:
            raise _orders_error(asked, questions, error) from None
        except CallError as error:
            raise RequestError(400, str(error), asked.place, "context_length_exceeded") from None
        except ScoringError as error:
            if str(error) == CLOSED:
                raise RequestError(503, "the server is stopping; try again later", code="stopping") from None
            raise
        places = self._places_of_broken(asked, answers)
        if answers and not any(answer.scored for answer in answers):
            _refuse_all(asked, answers, places)
        typed = zip(questions, answers, places)
        return [_typed(*each) for each in typed], Usage(limits.tokens)

    def _check_length(self, asked: AskedRequest, questions: Sequence[Question]) -> None:
        """Raises RequestError for texts that cannot have few enough tokens."""
        characters = sum(len(question.question) + sum(map(len, question.options)) for question in questions)
        if characters > MOST_CHARACTERS * self.most_tokens:
            found = f"{characters:,} characters, those of the input with each question"
            expected = f"expected at most {self.most_tokens:,} tokens: ask less at once"
            raise RequestError(400, f"{found}; {expected}", asked.place, "context_length_exceeded")

    def _question(self, number: int, asked: AskedRequest) -> Question:
        """Raises RequestError where it cannot be asked."""
        question = asked.questions[number]
        text, pictures = question_text(asked.input, question.instructions)
        try:
            return question_of(
                pictures,
                text,
                question.options,
                hint=question.hint,
                task_type=question.task_type,
                id=str(number),
                limits=self.picture_limits,
                wordless=True,
            )
        except PictureError as error:
            self._refuse_pictures(asked)
            what = f"{error.found}; expected {error.expected}"
            raise RequestError(400, f"{question.place}: {what}", question.place, "invalid_image") from None
        except InputError as error:
            told = [": ".join(filter(None, (each.column, each.found))) for each in error.problems]
            what = "; ".join(f"{found}; expected {each.expected}" for found, each in zip(told, error.problems))
            raise RequestError(400, f"{question.place}: {what}", question.place, "invalid_question") from None

    def _refuse_pictures(self, asked: AskedRequest) -> None:
        """Raises RequestError with all pictures whose files cannot be used."""
        wrongs = []
        pictures = _placed(asked.input, asked.picture_places)
        for question in asked.questions:
            pictures += _placed(question.instructions, question.picture_places)
        for place, picture in dict(pictures).items():
            try:
                picture_size(picture, self.picture_limits)
            except PictureError as error:
                wrongs.append(Wrong(place, f"{error.found}; expected {error.expected}", "invalid_image"))
        refuse(wrongs)

    def _places_of_broken(self, asked: AskedRequest, answers: Sequence[Answer]) -> list[str]:
        """For each question the place of the picture for which it has no answer; "" where that is not the reason."""
        broken: dict[str, bool] = {}
        places = []
        for question, answer in zip(asked.questions, answers):
            found = ""
            if not answer.scored and answer.status.startswith(PICTURE):
                pictures = _placed(asked.input, asked.picture_places)
                pictures += _placed(question.instructions, question.picture_places)
                for place, picture in pictures:
                    if place not in broken:
                        broken[place] = len(pictures) == 1 or self._is_broken(picture)
                found = next((place for place, _ in pictures if broken[place]), "")
            places.append(found)
        return places

    def _is_broken(self, picture: bytes) -> bool:
        """Whether a picture cannot be decoded."""
        try:
            with self._reading:
                read_picture(picture, self.picture_limits)
        except PictureError:
            return True
        return False


def _with_pictures(parts: Sequence[Part], places: Sequence[str], fetched: FetchedPictures) -> tuple[Part, ...]:
    """The parts with pictures in place of their addresses. Raises RequestError with the place of one that has none."""
    found: list[Part] = []
    pictures = 0
    for part in parts:
        if isinstance(part, RemotePicture):
            try:
                part = fetched[part.url]
            except RequestError as error:
                place = _place(places, pictures)
                raise RequestError(error.status, f"{place}: {error.message}", place, error.code) from None
        pictures += not isinstance(part, str)
        found.append(part)
    return tuple(found)


def _placed(parts: Sequence[Part], places: Sequence[str]) -> list[tuple[str, bytes]]:
    """The pictures with their places."""
    pictures = [part for part in parts if isinstance(part, bytes)]
    return [(_place(places, number), picture) for number, picture in enumerate(pictures)]


def _place(places: Sequence[str], number: int) -> str:
    return places[number] if number < len(places) else f"picture {number + 1}"


def _orders_error(asked: AskedRequest, questions: Sequence[Question], error: OrdersError) -> RequestError:
    """What is wrong with the orders of a request, which are its own, or those of the server."""
    found = [
        each.place for each, question in zip(asked.questions, questions)
        if repeats_options(question.question, question.options)
    ]  # fmt: skip
    if not found:
        return RequestError(400, str(error), "orders", "invalid_orders")
    what = f"{first_of(found)}: the text lists the options too, and would contradict them in another order"
    fix = "send the orders 1, or take the options out of the text"
    return RequestError(400, f"{what}; {fix}", "orders", "invalid_orders")


def _refuse_all(asked: AskedRequest, answers: Sequence[Answer], places: Sequence[str]) -> None:
    """Raises RequestError: no question has an answer."""
    statuses = [_status(answer, place) for answer, place in zip(answers, places)]
    lengths = [found for status in statuses if (found := TOO_LONG.match(status))]
    if len(lengths) == len(statuses):
        tokens, most = max(lengths, key=lambda found: int(found[1].replace(",", ""))).groups()
        message = f"{tokens} tokens; this model reads at most {most}: shorten the input"
        raise RequestError(400, message, asked.place, "context_length_exceeded")
    raise RequestError(
        422, f"no answer: {'; '.join(dict.fromkeys(statuses))}", next(filter(None, places), None), "no_answer"
    )


def _status(answer: Answer, place: str) -> str:
    return f"{place}: {answer.status.removeprefix(PICTURE)}" if place else answer.status


def _typed(question: Question, answer: Answer, place: str) -> QuestionAnswer:
    """place: of the picture for which there is no answer."""
    if not answer.scored:
        return QuestionAnswer((), answer.label_mass, answer.margin, status=_status(answer, place))
    letters = LETTERS[: len(question.options)]
    members = {name: tuple(each[letter] for letter in letters) for name, each in answer.members.items()}
    return QuestionAnswer(tuple(answer[letter] for letter in letters), answer.label_mass, answer.margin, members)
