"""A benchmark's report from its raw measurements: speed, cost, answers, and every row on which ways differ.

In: questions and a `Measurement` of each way. Out: the content of `bench.json`, and the sentences that go with it.
"""

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoring.inputs.digests import picture_digest, picture_path
from scoring.inputs.pictures import Picture
from scoring.inputs.prompt import LETTERS
from scoring.inputs.questions import Question
from scoring.stats.metrics import measure_members
from scoring.stats.resampling import clusters_of, mcnemar, share_of

FIRST_RUN_ROWS = 2_000  # of the run whose time from the start is told
MOST_TEXTS = 5  # that begin with no letter, in the report
# Names of ways, as in --ways and bench.json. `seed` is the competition notebook, with which this project began.
ENGINE, NOTEBOOK, SINGLE = "engine", "seed", "forward"
ENGINE_4BIT, ENGINE_16BIT = "engine-4bit", "engine-16bit"
DECISION = "decision"
ASKED = "endpoint"


@dataclass(frozen=True)
class Way:
    """A way to answer.

    batched: whether it answers several rows at once. tokens: the most that it generates for a row; 0: it reads logits.
    """

    title: str
    batched: bool
    tokens: int = 0

    @property
    def probabilities(self) -> bool:
        """Whether it gives probabilities: the ways that read logits do."""
        return self.tokens == 0


WAYS = {
    NOTEBOOK: Way("generate, one row (notebook)", False, 2),
    "one": Way("generate 1 token, batches", True, 1),
    "batched": Way("generate, batches", True, 2),
    "strong": Way("generate 16, better extractor", True, 16),
    SINGLE: Way("one forward, one row", False),
    "padded": Way("padded forward, batches", True),
    ENGINE_4BIT: Way("engine, 4-bit weights", True),
    ENGINE_16BIT: Way("engine, 16-bit weights", True),
    ENGINE: Way("engine (score)", True),
    "cyclic": Way("engine, cyclic orders", True),
    DECISION: Way("transformers' decision pipeline", False),
}
DEFAULT_WAYS = tuple(name for name in WAYS if name != DECISION)  # that one is measured where it is asked for
SERVER = Way("server over HTTP", True)  # under the name ASKED: measured where one is named, beside the ways
# The libraries' ways in batches. The engine is compared with them where their weights are the same.
LIKE_FOR_LIKE = {
    "padded": "the padded forward",
    "one": "generating one token",
    "batched": "generating two tokens",
}


@dataclass
class Answer:
    """A way's answer to one row.

    letter: "" where it gives none. token: the id of the first token that it generates, or of the token with the highest
    logit. text: what it generated. fallback: whether the text had no letter and `letter` is the default. p: (K,) the
    options' probabilities, where it has them.
    """

    letter: str
    token: int = -1
    text: str | None = None
    fallback: bool = False
    p: list[float] | None = None


@dataclass
class TimedAnswers:
    """A way's answers to N rows.

    row_seconds: (N,) a row's seconds, or its share of its batch's. seconds: of all rows; None: the caller measures.
    """

    answers: list[Answer]
    row_seconds: list[float]
    seconds: float | None = None


@dataclass
class Repeat:
    """One timed pass of a way over N rows. row_seconds: (N,) as in `TimedAnswers`. The others: see `meter.Meter`."""

    seconds: float
    row_seconds: list[float]
    device_bytes: int | None = None
    host_bytes: int | None = None
    joules: float | None = None


@dataclass(frozen=True)
class BatchSize:
    """How many rows a way answers at once, and rows per second by each size that was tried."""

    rows: int
    rates: dict[int, float]


@dataclass(frozen=True)
class WaySetup:
    """What a way is measured with: its linear layers' weights, `4bit` or `16bit`, and the rows of its batches."""

    weights: str | None = None
    batch: BatchSize | None = None

    def to_json(self) -> dict[str, Any]:
        result: dict[str, Any] = {"weights": self.weights} if self.weights else {}
        if self.batch:
            rates = {str(size): rate for size, rate in self.batch.rates.items()}
            result |= {"batch_rows": self.batch.rows, "rows_per_second_by_batch": rates}
        return result


@dataclass
class Measurement:
    """A way's answers in its first repeat, all its repeats, and in how many rows a later one gave another letter.

    price_per_row: of a server, where it is known.
    """

    answers: list[Answer]
    repeats: list[Repeat] = field(default_factory=list)
    unsteady: int = 0
    setup: WaySetup = field(default_factory=WaySetup)
    price_per_row: float | None = None


def summarise(
    questions: Sequence[Question],
    measurements: dict[str, Measurement],
    label_ids: list[int],
    price: float | None = None,
    cost_rows: int = 100_000,
) -> dict[str, Any]:
    """The report's `ways`: speed, cost and answers of each; `first_token`: a check; and `per_row`.

    label_ids: token ids of the letters. price: of this machine per hour. cost_rows: rows of a data set whose cost the
    report gives.
    """
    answered = [row for row, question in enumerate(questions) if question.answer]
    right = {
        name: np.array([measured.answers[row].letter == questions[row].answer for row in answered], bool)
        for name, measured in measurements.items()
    }
    ways = {}
    for name, measured in measurements.items():
        speed, kind = _speed(measured, len(questions)), SERVER if name == ASKED else WAYS[name]
        cost = _cost(speed["rows_per_second"], price, cost_rows)
        if name == ASKED:  # this machine only waits
            cost["money"] = None if measured.price_per_row is None else measured.price_per_row * cost_rows
        ways[name] = {
            "title": kind.title,
            "batched": kind.batched,
            "tokens": kind.tokens,
            "probabilities": kind.probabilities,
            **measured.setup.to_json(),
            **speed,
            **_quality(measured, questions, answered, right[name]),
            "cost": cost,
        }
        if ENGINE in measurements and name != ENGINE:
            ways[name]["against_engine"] = {
                "differ": _differing(questions, measured, measurements[ENGINE]),
                "only_this_right": int((right[name] & ~right[ENGINE]).sum()),
                "only_engine_right": int((right[ENGINE] & ~right[name]).sum()),
                "mcnemar_p": mcnemar(right[name], right[ENGINE], _clusters(questions, answered)) if answered else None,
            }
    if NOTEBOOK in ways:
        for way in ways.values():
            way["ratio"] = way["rows_per_second"] / ways[NOTEBOOK]["rows_per_second"]
    _compare_like_for_like(ways)
    return {
        "rows": len(questions),
        "ways": ways,
        "first_token": _first_tokens(questions, measurements, label_ids),
        "per_row": [_row(question, row, measurements) for row, question in enumerate(questions)],
    }


def _differing(questions: Sequence[Question], one: Measurement, other: Measurement) -> list[str]:
    """Ids of the rows to which two ways give different letters."""
    triples = zip(questions, one.answers, other.answers)
    return [question.id for question, first, second in triples if first.letter != second.letter]


def _clusters(questions: Sequence[Question], rows: list[int]) -> NDArray[Any] | None:
    """Which of these rows show the same pictures; None where each shows its own."""
    return clusters_of([" ".join(map(_name, questions[row].pictures)) or str(row) for row in rows])


def _name(picture: Picture) -> str:
    """A picture's path, or the digest of one without a file."""
    return picture_path(picture) or picture_digest(picture)


def _compare_like_for_like(ways: dict[str, dict[str, Any]]) -> None:
    """Add `like_for_like` to the libraries' ways in batches: the engine's speed as a multiple of theirs.

    The engine is the one with the same weights and one order of the options. Nothing is added where that was not
    measured.
    """
    engines = {ways[name].get("weights"): name for name in (ENGINE, ENGINE_16BIT, ENGINE_4BIT) if name in ways}
    for way in (ways[name] for name in LIKE_FOR_LIKE if name in ways):
        weights = way.get("weights")
        if weights and weights in engines:
            engine = engines[weights]
            way["like_for_like"] = {
                "engine": engine,
                "weights": weights,
                "engine_ratio": ways[engine]["rows_per_second"] / way["rows_per_second"],
            }


def like_for_like_text(ways: dict[str, dict[str, Any]]) -> str:
    """The comparisons of `like_for_like` in a sentence; "" where there are none."""
    pairs = {name: ways[name]["like_for_like"] for name in LIKE_FOR_LIKE if "like_for_like" in ways.get(name, {})}
    if not pairs:
        return ""
    bits = next(iter(pairs.values()))["weights"].removesuffix("bit")
    ratios = ", ".join(f"{pair['engine_ratio']:.2f}x as fast as {LIKE_FOR_LIKE[name]}" for name, pair in pairs.items())
    return f"Like for like ({bits}-bit weights, batches, one order): the engine is {ratios}."


def first_run_text(first_run: dict[str, float] | None, ways: dict[str, dict[str, Any]]) -> str:
    """What comes before the engine's first answers, and what it makes of a run; "" where that was not measured.

    first_run: seconds of `starting` (libraries and table), `loading` (the model) and `first_batch`.
    """
    engine = ways.get(ENGINE) or ways.get(ENGINE_16BIT) or ways.get(ENGINE_4BIT)
    if not first_run or not engine:
        return ""
    before, rate = sum(first_run.values()), engine["rows_per_second"]
    seconds = before + FIRST_RUN_ROWS / rate
    starting, loading, first = (f"{first_run[name]:.1f}" for name in ("starting", "loading", "first_batch"))
    return (
        f"First run: {before:.1f} s pass before the engine is at speed ({starting} to start, {loading} to load, "
        f"{first} for the first rows), so that {FIRST_RUN_ROWS:,} rows take {seconds:,.0f} s: "
        f"{FIRST_RUN_ROWS / seconds:.1f} rows/s. Long run: {rate:.1f} rows/s."
    )


def batch_text(way: dict[str, Any]) -> str:
    """How many rows a way answers at once, for a cell of a table. The engine cuts its batches by tokens."""
    if "batch_rows" in way:
        return f"{way['batch_rows']} rows"
    if "batched" not in way:  # of an older version
        return "–"
    return "by tokens" if way["batched"] else "1 row"


def batch_sizes_text(ways: dict[str, dict[str, Any]]) -> str:
    """How the rows of a batch were chosen; "" where no way has such batches."""
    sizes = {int(size) for way in ways.values() for size in way.get("rows_per_second_by_batch", {})}
    if not sizes:
        return ""
    tried = ", ".join(map(str, sorted(sizes)))
    return f"Rows of a batch: the largest of {tried} that fits and is about as fast as the fastest."


def _speed(measured: Measurement, rows: int) -> dict[str, Any]:
    """Medians over the repeats; quantiles over the rows of all repeats."""
    seconds = [repeat.seconds for repeat in measured.repeats]
    row_seconds = np.concatenate([repeat.row_seconds for repeat in measured.repeats])
    middle, slow = np.quantile(row_seconds, [0.5, 0.95])
    joules = [repeat.joules for repeat in measured.repeats if repeat.joules is not None]
    return {
        "seconds": seconds,
        "rows_per_second": rows / statistics.median(seconds),
        "seconds_per_row": {"p50": float(middle), "p95": float(slow)},
        "peak_device_bytes": _largest(repeat.device_bytes for repeat in measured.repeats),
        "peak_host_bytes": _largest(repeat.host_bytes for repeat in measured.repeats),
        "joules_per_row": statistics.median(joules) / rows if joules else None,
    }


def _largest(values: Iterable[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)


def _quality(
    measured: Measurement, questions: Sequence[Question], answered: list[int], right: NDArray[np.bool_]
) -> dict[str, Any]:
    """Accuracy with Wilson's interval over pictures; NLL with the bootstrap's where the way has probabilities."""
    result: dict[str, Any] = {
        "accuracy": None,
        "nll": None,
        "unanswered": sum(not answer.letter for answer in measured.answers),
        "fallbacks": sum(answer.fallback for answer in measured.answers),
        "unsteady": measured.unsteady,
    }
    if answered:
        result["accuracy"] = share_of(right, _clusters(questions, answered))
    scored = {row: p for row in answered if (p := measured.answers[row].p) is not None}
    if scored:
        rows = list(scored)
        probabilities = np.zeros((1, len(rows), max(map(len, scored.values()))))
        for index, row in enumerate(rows):
            probabilities[0, index, : len(scored[row])] = scored[row]
        y = np.array([LETTERS.index(questions[row].answer) for row in rows])
        result["nll"] = measure_members(probabilities, y, _clusters(questions, rows))[0]["nll"]
    return result


def _cost(rows_per_second: float, price: float | None, rows: int) -> dict[str, Any]:
    hours = rows / rows_per_second / 3600
    return {"rows": rows, "hours": hours, "money": None if price is None else hours * price}


def _first_tokens(
    questions: Sequence[Question], measurements: dict[str, Measurement], label_ids: list[int]
) -> dict[str, Any] | None:
    """Rows whose likeliest token is a letter's, and those of them whose generation starts with another token.

    Both come from the libraries' own forward of one row alone, so no such row is expected. `others`, where there are
    any: the most frequent texts that are generated where the likeliest token is no letter's, with their numbers of
    rows. Returns None where one of the two ways was not measured.
    """
    if NOTEBOOK not in measurements or SINGLE not in measurements:
        return None
    pairs = list(zip(questions, measurements[SINGLE].answers, measurements[NOTEBOOK].answers))
    checked = [
        (question, top, first) for question, top, first in pairs if top.token in label_ids[: len(question.options)]
    ]
    others = Counter(
        first.text or "" for question, top, first in pairs if top.token not in label_ids[: len(question.options)]
    )
    result = {
        "rows": len(pairs),
        "top_is_a_label": len(checked),
        "violations": [question.id for question, top, first in checked if first.token != top.token],
    }
    return result | ({"others": dict(others.most_common(MOST_TEXTS))} if others else {})


def _row(question: Question, row: int, measurements: dict[str, Measurement]) -> dict[str, Any]:
    """Everything about one row: the question, and each way's answer."""
    answers: dict[str, dict[str, Any]] = {}
    for name, measured in measurements.items():
        answer = measured.answers[row]
        answers[name] = {"letter": answer.letter}
        if answer.text is not None:
            answers[name] |= {"text": answer.text, "fallback": answer.fallback}
        if answer.p is not None:
            answers[name]["p"] = [round(value, 6) for value in answer.p]
    more = list(map(picture_path, question.pictures[1:]))
    return {
        "id": question.id,
        "picture": picture_path(question.picture),
        **({"more_pictures": more} if more else {}),
        "question": question.question,
        "options": list(question.options),
        "answer": question.answer,
        "task_type": question.task_type,
        "ways": answers,
    }
