"""What a benchmark found, from its raw measurements: speed, cost, answers, and every row on which ways differ."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from scoring.inputs.prompt import LETTERS
from scoring.inputs.questions import Question
from scoring.stats.metrics import measure_members
from scoring.stats.resampling import clusters_of, mcnemar, share_of

ENGINE, NOTEBOOK, SINGLE = "engine", "seed", "forward"
ENGINE_4BIT, ENGINE_16BIT = "engine-4bit", "engine-16bit"


@dataclass(frozen=True)
class Way:
    """A way to answer. batched: several rows at once. tokens: generated for a row at most; 0 where logits are read."""

    title: str
    batched: bool
    tokens: int = 0

    @property
    def probabilities(self) -> bool:
        """Whether it gives probabilities: those that read logits do."""
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
}
# The libraries' ways in batches, which the engine is compared with where their weights are the same.
LIKE_FOR_LIKE = {
    "padded": "the padded forward",
    "one": "generating one token",
    "batched": "generating two tokens",
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
    """A way's answers in its first repeat, all its repeats, and rows whose letter was another in a later one.

    about: more to be filed with the way, such as the `weights` in which its linear layers multiply, `4bit` or `16bit`.
    """

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
    pictures = clusters_of([str(questions[row].picture or row) for row in known]) if known else None
    ways = {}
    for name, found in measured.items():
        ways[name] = {
            "title": WAYS[name].title,
            "batched": WAYS[name].batched,
            "tokens": WAYS[name].tokens,
            "probabilities": WAYS[name].probabilities,
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
                "mcnemar_p": mcnemar(right[name], right[ENGINE], pictures) if known else None,
            }
    if NOTEBOOK in ways:
        for way in ways.values():
            way["ratio"] = way["rows_per_second"] / ways[NOTEBOOK]["rows_per_second"]
    _compare_like_for_like(ways)
    return {
        "rows": len(questions),
        "ways": ways,
        "first_token": _first_tokens(questions, measured, label_ids),
        "per_row": [_row(question, row, measured) for row, question in enumerate(questions)],
    }


def _compare_like_for_like(ways: dict[str, dict]) -> None:
    """Add `like_for_like` to the libraries' ways in batches: the engine's speed as a multiple of theirs, with the same
    weights and one order of the options. Without such an engine among the ways there is none."""
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


def like_for_like_text(ways: dict[str, dict]) -> str:
    """The comparisons of `like_for_like` in a sentence; "" where there are none."""
    pairs = {name: ways[name]["like_for_like"] for name in LIKE_FOR_LIKE if "like_for_like" in ways.get(name, {})}
    if not pairs:
        return ""
    bits = next(iter(pairs.values()))["weights"].removesuffix("bit")
    ratios = ", ".join(f"{pair['engine_ratio']:.2f}x as fast as {LIKE_FOR_LIKE[name]}" for name, pair in pairs.items())
    return f"Like for like ({bits}-bit weights, batches, one order): the engine is {ratios}."


def batch_text(way: dict) -> str:
    """How many rows a way answers at once, for a cell of a table: the engine cuts its batches by tokens."""
    if "batch_rows" in way:
        return f"{way['batch_rows']} rows"
    return {True: "by tokens", False: "1 row", None: "–"}[way.get("batched")]


def batch_sizes_text(ways: dict[str, dict]) -> str:
    """How the rows of a batch were chosen; "" where no way has such batches."""
    sizes = {int(size) for way in ways.values() for size in way.get("rows_per_second_by_batch", {})}
    if not sizes:
        return ""
    tried = ", ".join(map(str, sorted(sizes)))
    return f"Rows of a batch: the largest of {tried} that fits and is about as fast as the fastest."


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
    """Accuracy with Wilson's interval over pictures; NLL with the bootstrap's where the way has probabilities."""
    result = {
        "accuracy": None,
        "nll": None,
        "unanswered": sum(not answer.letter for answer in found.answers),
        "fallbacks": sum(answer.fallback for answer in found.answers),
        "unsteady": found.unsteady,
    }
    if known:
        result["accuracy"] = share_of(right, clusters_of([str(questions[row].picture or row) for row in known]))
    scored = [row for row in known if found.answers[row].p is not None]
    if scored:
        p = np.zeros((1, len(scored), max(len(found.answers[row].p) for row in scored)))
        for at, row in enumerate(scored):
            p[0, at, : len(found.answers[row].p)] = found.answers[row].p
        y = np.array([LETTERS.index(questions[row].answer) for row in scored])
        pictures = clusters_of([str(questions[row].picture or row) for row in scored])
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
