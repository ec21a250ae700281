"""What a benchmark found, from its raw measurements: speed, cost, answers, and every row on which ways differ."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from scoring.inputs.prompt import LETTERS
from scoring.inputs.questions import Question
from scoring.results.compare import mcnemar
from scoring.results.metrics import clusters_of, measure_members, wilson

ENGINE, NOTEBOOK, SINGLE = "engine", "seed", "forward"
WAYS = {
    NOTEBOOK: "generate, one row (notebook)",
    "batched": "generate, batches",
    "strong": "generate 16, better extractor",
    SINGLE: "one forward, one row",
    ENGINE: "engine (score)",
    "cyclic": "engine, cyclic orders",
}


@dataclass
class Answer:
    """What a way says of a row. letter: "" where it gives none. p: the options' probabilities, where it has them.

    token: the id with which its generation starts, or to which its forward gives the highest logit.
    """

    letter: str
    token: int = -1
    text: str | None = None
    fallback: bool = False
    p: list[float] | None = None


@dataclass
class Repeat:
    """One timed pass of a way over all rows. row_seconds: (N,) each row's, or its share of its batch's."""

    seconds: float
    row_seconds: list[float]
    device_bytes: int | None = None
    host_bytes: int | None = None
    joules: float | None = None


@dataclass
class Measured:
    """A way's answers in its first repeat, all its repeats, and rows whose letter was another in a later one."""

    answers: list[Answer]
    repeats: list[Repeat] = field(default_factory=list)
    unsteady: int = 0
    about: dict = field(default_factory=dict)


def summarise(
    questions: Sequence[Question],
    measured: dict[str, Measured],
    label_ids: list[int],
    price: float | None = None,
    size: int = 100_000,
) -> dict:
    """`ways`: speed, cost and answers of each; `first_token`: the check that must find nothing; `per_row`.

    label_ids: of the letters. price: of an hour of this machine. size: rows of the data set whose cost is told.
    """
    known = [row for row, question in enumerate(questions) if question.answer]
    right = {
        name: np.array([found.answers[row].letter == questions[row].answer for row in known], bool)
        for name, found in measured.items()
    }
    ways = {}
    for name, found in measured.items():
        ways[name] = {
            "title": WAYS[name],
            **found.about,
            **_speed(found, len(questions)),
            **_answers(found, questions, known, right[name]),
        }
        ways[name]["cost"] = _cost(ways[name]["rows_per_second"], price, size)
        if ENGINE in measured and name != ENGINE:
            ours = measured[ENGINE].answers
            other = [row for row, (a, b) in enumerate(zip(found.answers, ours)) if a.letter != b.letter]
            ways[name]["against_engine"] = {
                "differ": [questions[row].id for row in other],
                "only_this_right": int((right[name] & ~right[ENGINE]).sum()),
                "only_engine_right": int((right[ENGINE] & ~right[name]).sum()),
                "mcnemar_p": mcnemar(right[name], right[ENGINE]) if known else None,
            }
    if NOTEBOOK in ways:
        for way in ways.values():
            way["ratio"] = way["rows_per_second"] / ways[NOTEBOOK]["rows_per_second"]
    return {
        "rows": len(questions),
        "ways": ways,
        "first_token": _first_tokens(questions, measured, label_ids),
        "per_row": [_row(question, row, measured) for row, question in enumerate(questions)],
    }


def _speed(found: Measured, rows: int) -> dict:
    seconds = [repeat.seconds for repeat in found.repeats]
    each = np.concatenate([repeat.row_seconds for repeat in found.repeats])
    middle, slow = np.quantile(each, [0.5, 0.95])
    joules = [repeat.joules for repeat in found.repeats if repeat.joules is not None]
    return {
        "seconds": seconds,
        "rows_per_second": rows / statistics.median(seconds),
        "seconds_per_row": {"p50": float(middle), "p95": float(slow)},
        "peak_device_bytes": _most(repeat.device_bytes for repeat in found.repeats),
        "peak_host_bytes": _most(repeat.host_bytes for repeat in found.repeats),
        "joules_per_row": statistics.median(joules) / rows if joules else None,
    }


def _most(values) -> int | None:
    return max((value for value in values if value is not None), default=None)


def _answers(found: Measured, questions: Sequence[Question], known: list[int], right: np.ndarray) -> dict:
    """Accuracy with Wilson's interval; NLL with its bootstrap interval where the way has probabilities."""
    result = {
        "accuracy": None,
        "nll": None,
        "unanswered": sum(not answer.letter for answer in found.answers),
        "fallbacks": sum(answer.fallback for answer in found.answers),
        "unsteady": found.unsteady,
    }
    if known:
        hits = int(right.sum())
        result["accuracy"] = {"value": hits / len(known)} | wilson(hits, len(known))
    scored = [row for row in known if found.answers[row].p is not None]
    if scored:
        p = np.zeros((1, len(scored), max(len(found.answers[row].p) for row in scored)))
        for at, row in enumerate(scored):
            p[0, at, : len(found.answers[row].p)] = found.answers[row].p
        y = np.array([LETTERS.index(questions[row].answer) for row in scored])
        pictures = clusters_of([str(questions[row].picture) for row in scored])
        result["nll"] = measure_members(p, y, pictures)[0]["nll"]
    return result


def _cost(rows_per_second: float, price: float | None, size: int) -> dict:
    hours = size / rows_per_second / 3600
    return {"rows": size, "hours": hours, "money": None if price is None else hours * price}


def _first_tokens(questions: Sequence[Question], measured: dict[str, Measured], label_ids: list[int]) -> dict | None:
    """Rows whose top token is a label, and those of them whose generation starts otherwise: both of one row alone, by
    the library's own forward, so that not one may."""
    if NOTEBOOK not in measured or SINGLE not in measured:
        return None
    pairs = list(zip(questions, measured[SINGLE].answers, measured[NOTEBOOK].answers))
    checked = [
        (question, top, first) for question, top, first in pairs if top.token in label_ids[: len(question.options)]
    ]
    return {
        "rows": len(pairs),
        "top_is_a_label": len(checked),
        "violations": [question.id for question, top, first in checked if first.token != top.token],
    }


def _row(question: Question, row: int, measured: dict[str, Measured]) -> dict:
    """Everything that was asked and said, for whoever wants to look at a row."""
    said = {}
    for name, found in measured.items():
        answer = found.answers[row]
        said[name] = {"letter": answer.letter}
        if answer.text is not None:
            said[name] |= {"text": answer.text, "fallback": answer.fallback}
        if answer.p is not None:
            said[name]["p"] = [round(value, 6) for value in answer.p]
    return {
        "id": question.id,
        "picture": str(question.picture or ""),
        "question": question.question,
        "options": list(question.options),
        "answer": question.answer,
        "task_type": question.task_type,
        "ways": said,
    }
