"""Answers a request with a `Scorer`: typed questions -> `Question`s -> probabilities -> typed answers.

Questions of one request are asked together, so that what they have in common is computed once. What is wrong with the
request is a `RequestError`; what is wrong with one question is the status of its answer.
"""

from collections.abc import Sequence
from dataclasses import replace

from scoring.errors import CallError, InputError, ScoringError
from scoring.inputs.orders import OrdersError
from scoring.inputs.pictures import PictureError, PictureLimits
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
    AskedQuestion,
    AskedRequest,
    Part,
    QuestionAnswer,
    RemotePicture,
    RequestError,
    Usage,
)
from scoring.serving.settings import ServeSettings

MOST_CHARACTERS = 16  # of text for each token that a request may have; more is refused before it is encoded


class DecisionService:
    """Answers requests from any thread. most_tokens: of one request, in all option orders."""

    def __init__(self, scorer: Scorer, settings: ServeSettings):
        self.scorer, self.most_tokens = scorer, settings.most_tokens
        self.limits, self.fetch_seconds = settings.limits, settings.body_seconds
        self.fetcher = PictureFetcher(settings.fetch_from, settings.limits.picture_bytes)
        self.picture_limits = PictureLimits(settings.limits.picture_pixels, settings.limits.picture_bytes)

    def answer(self, asked: AskedRequest, token: CancelToken | None = None) -> tuple[list[QuestionAnswer], Usage]:
        """The answers in the questions' order, and what they took.

        Raises RequestError, and `concurrent.futures.CancelledError` once the token is cancelled.
        """
        fetched = FetchedPictures(self.fetcher, self.limits.body_bytes, self.fetch_seconds)
        given = self._with_pictures(asked.input, fetched)
        questions = [
            self._question(number, given, replace(each, instructions=self._with_pictures(each.instructions, fetched)))
            for number, each in enumerate(asked.questions)
        ]
        self._check_length(questions)
        limits = AskLimits(self.most_tokens, cancel=token)
        try:
            answers = self.scorer.ask_together(table_of(questions), orders=asked.orders, limits=limits)
        except OrdersError as error:
            raise RequestError(400, str(error), "orders", "invalid_orders") from None
        except CallError as error:
            raise RequestError(400, str(error), "input", "context_length_exceeded") from None
        except ScoringError as error:
            if str(error) == CLOSED:
                raise RequestError(503, "the server is stopping; try again later", code="stopping") from None
            raise
        if asked.questions and not any(answer.scored for answer in answers):
            reasons = "; ".join(dict.fromkeys(answer.status for answer in answers))
            raise RequestError(422, f"no answer: {reasons}", code="no_answer")
        return [_typed(question, answer) for question, answer in zip(questions, answers)], Usage(limits.tokens)

    def _check_length(self, questions: Sequence[Question]) -> None:
        """Raises RequestError for texts that cannot have few enough tokens."""
        characters = sum(len(question.question) + sum(map(len, question.options)) for question in questions)
        if characters > MOST_CHARACTERS * self.most_tokens:
            found = f"{characters:,} characters, those of the input with each question"
            expected = f"expected at most {self.most_tokens:,} tokens: ask less at once"
            raise RequestError(400, f"{found}; {expected}", "input", "context_length_exceeded")

    def _with_pictures(self, parts: Sequence[Part], fetched: FetchedPictures) -> tuple[Part, ...]:
        """The parts with pictures in place of their addresses."""
        return tuple(fetched[part.url] if isinstance(part, RemotePicture) else part for part in parts)

    def _question(self, number: int, given: tuple[Part, ...], asked: AskedQuestion) -> Question:
        """Raises RequestError where it cannot be asked."""
        param = f"questions[{number}]"
        text, pictures = question_text(given, asked.instructions)
        try:
            return question_of(
                pictures,
                text,
                asked.options,
                hint=asked.hint,
                task_type=asked.task_type,
                id=str(number),
                limits=self.picture_limits,
            )
        except PictureError as error:
            what = f"{error.found}; expected {error.expected}"
            raise RequestError(400, f"{param}: {what}", param, "invalid_image") from None
        except InputError as error:
            what = "; ".join(f"{each.column}: {each.found}; expected {each.expected}" for each in error.problems)
            raise RequestError(400, f"{param}: {what}", param, "invalid_question") from None


def _typed(question: Question, answer: Answer) -> QuestionAnswer:
    if not answer.scored:
        return QuestionAnswer((), answer.label_mass, answer.margin, status=answer.status)
    letters = LETTERS[: len(question.options)]
    members = {name: tuple(each[letter] for letter in letters) for name, each in answer.members.items()}
    return QuestionAnswer(tuple(answer[letter] for letter in letters), answer.label_mass, answer.margin, members)
