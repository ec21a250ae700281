"""The rows of the report page: question, options and answers, flags for the filters, and a small picture."""

import base64
import io
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from scoring.benchmark.summary import ENGINE
from scoring.inputs.pictures import PictureError, read_picture
from scoring.inputs.prompt import LETTERS
from scoring.messages import ProgressBar
from scoring.report.ensemble_plots import disagreement
from scoring.report.records import BenchAnswer, BenchRow, BenchRun
from scoring.scores.folder import Scores
from scoring.scores.logits import SCORED, OptionLogits
from scoring.scores.probabilities import margins, predictions

SURE = 0.7  # the least probability of a sure answer
SIDES = (320, 256, 192, 160, 128, 96, 64, 32)  # longest sides of pictures, in pixels; the page takes the largest it can
QUALITY, READERS = 60, 8  # of WebP; threads
LONGEST_TEXT = 1_000  # characters of a cell
MOST_MEMBERS = 8  # named in a row


@dataclass(frozen=True)
class Filter:
    """A button of the page that shows the rows with one flag. key: on the keyboard. meaning: its help."""

    key: str
    label: str
    meaning: str


FILTERS = {  # by flag
    "wrong": Filter("w", "wrong and sure", f"answered wrongly with a probability of {SURE} or more"),
    "members": Filter("m", "members disagree", "not all members of the ensemble give the same answer"),
    "orders": Filter("o", "orders disagree", "another order of the options changes the answer"),
    "generation": Filter("g", "generation differs", "a generated text gives another letter than the engine, or none"),
    "label": Filter("l", "label doubtful", "the label is probably wrong: one of the flagged rows of suspects.csv"),
    "unscored": Filter("u", "unscored", "no score, or no letter"),
}


@dataclass(frozen=True)
class Option:
    """An option with its letter, text and probability; p is None without a score."""

    letter: str
    text: str
    p: float | None
    chosen: bool
    right: bool


@dataclass(frozen=True)
class Reply:
    """What a member, an order of the options or a way of a benchmark answers to a row."""

    source: str
    letter: str
    p: float | None = None
    text: str | None = None


@dataclass(frozen=True)
class Row:
    """One row as the page shows it. pictures: their files. flags: names of FILTERS.

    confidence: the probability of the answer; margin: its lead over the next one; None without a score. disagreement:
    of the members, in nats.
    """

    number: int
    id: str
    pictures: list[str]
    question: str
    options: list[Option]
    answer: str
    letter: str
    status: str
    task_type: str
    flags: list[str] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    confidence: float | None = None
    margin: float | None = None
    disagreement: float = 0.0

    @property
    def verdict(self) -> str:
        """`right`, `wrong` or `unscored`; "" where the right answer is not known."""
        if not self.letter:
            return "unscored"
        return ("right" if self.letter == self.answer else "wrong") if self.answer else ""

    @property
    def p_right(self) -> float | None:
        """Probability of the right option."""
        return next((option.p for option in self.options if option.right), None)


# ------------------------------------------------------------------ SCORES
class MemberVotes:
    """Each member's answers. log_p: (M, N, K) of the members `names`."""

    def __init__(self, names: list[str], log_p: np.ndarray):
        self.names, self.log_p = names, log_p
        self.best = np.where(np.isnan(log_p), -np.inf, log_p).argmax(2)
        self.disagreement = np.nan_to_num(disagreement(log_p))

    @property
    def differ(self) -> np.ndarray:
        """(N,) bool: rows in which not all members give the same answer."""
        differ: np.ndarray = (self.best != self.best[0]).any(0)
        return differ

    def replies(self, row: int) -> list[Reply]:
        return [
            Reply(name, LETTERS[self.best[member, row]], float(np.exp(self.log_p[member, row].max())))
            for member, name in enumerate(self.names[:MOST_MEMBERS])
        ]


class OrderVotes:
    """The answers in each order of the options."""

    def __init__(self, logits: OptionLogits):
        finite = np.isfinite(logits.logits)
        self.seen = finite.any(3)  # (N, M, O) bool: orders in which a row was shown
        self.best = np.where(finite, logits.logits, -np.inf).argmax(3)

    @property
    def differ(self) -> np.ndarray:
        """(N,) bool: rows in which another order changes the answer of a member."""
        differ: np.ndarray = ((self.best != self.best[:, :, :1]) & self.seen).any((1, 2))
        return differ

    def replies(self, row: int) -> list[Reply]:
        """For each letter that was answered in how many orders; nothing of a row that was shown in one order."""
        orders = int(self.seen[row].sum())
        if orders < 2:
            return []
        letters, counts = np.unique(self.best[row][self.seen[row]], return_counts=True)
        return [Reply(f"{count} of {orders} orders", LETTERS[letter]) for letter, count in zip(letters, counts)]


def rows_of_scores(scores: Scores, limit: int, suspects: Collection[str] = ()) -> list[Row]:
    """At most `limit` rows of a SCORES folder: see `sample`. suspects: ids of rows whose label is probably wrong."""
    logits, questions = scores.logits, scores.questions
    letters, p, lead = predictions(logits, scores.log_p), np.exp(scores.log_p), margins(scores.log_p)
    members = MemberVotes(logits.members, scores.members) if len(logits.members) > 1 else None
    orders = OrderVotes(logits)
    wrong = np.array([bool(answer) and answer != letter for answer, letter in zip(questions["answer"], letters)], bool)
    flags = {
        "wrong": wrong & (np.nan_to_num(p).max(1) >= SURE) & logits.scored,
        "members": members.differ & logits.scored if members else np.zeros(len(letters), bool),
        "orders": orders.differ & logits.scored,
        "label": np.array([id in suspects for id in logits.ids]),
        "unscored": ~logits.scored,
    }

    def replies(index: int) -> list[Reply]:
        if members is None:
            return orders.replies(index)
        return members.replies(index) if logits.scored[index] else []

    def pictures(index: int) -> list[str]:
        more = questions["more_pictures"][index] if "more_pictures" in questions else []
        return [file for file in (questions["picture"][index], *more) if file]

    def row(index: int) -> Row:
        count, letter, answer = int(questions["options"][index]), letters[index], questions["answer"][index]
        texts = questions["choices"][index] or [""] * count
        return Row(
            number=index + 1,
            id=logits.ids[index],
            pictures=pictures(index),
            question=cut(questions["question"][index] or ""),
            options=_options(texts, p[index, :count], letter, answer),
            answer=answer,
            letter=letter,
            status=logits.status[index],
            task_type=questions["task_type"][index],
            flags=[name for name, flagged in flags.items() if flagged[index]],
            replies=replies(index),
            confidence=float(np.nanmax(p[index])) if letter else None,
            margin=float(lead[index]) if letter else None,
            disagreement=float(members.disagreement[index]) if members else 0.0,
        )

    return [row(index) for index in sample(flags, limit)]


# ------------------------------------------------------------------ bench
def rows_of_bench(bench: BenchRun, limit: int) -> list[Row]:
    """At most `limit` rows of a benchmark; letter and probabilities are the engine's, or else the last way's."""
    rows = bench.per_row
    main = ENGINE if ENGINE in bench.ways else list(bench.ways)[-1]
    answers = [row.ways[main] for row in rows]
    confidence = np.array([answer.confidence or 0.0 for answer in answers])
    wrong = np.array([bool(row.answer) and answer.letter != row.answer for row, answer in zip(rows, answers)], bool)
    flags = {
        "wrong": wrong & (confidence >= SURE),
        "generation": np.array([_generation_differs(row, answer) for row, answer in zip(rows, answers)], bool),
        "unscored": np.array([not answer.letter for answer in answers], bool),
    }
    titles = {name: way.title for name, way in bench.ways.items()}
    return [
        _bench_row(index, rows[index], main, titles, [name for name, flagged in flags.items() if flagged[index]])
        for index in sample(flags, limit)
    ]


def _generation_differs(row: BenchRow, answer: BenchAnswer) -> bool:
    """Whether a generated text gives another letter than the main way's answer."""
    return any(other.text is not None and other.letter != answer.letter for other in row.ways.values())


def _bench_row(index: int, row: BenchRow, main: str, titles: dict[str, str], flags: list[str]) -> Row:
    """main: the way whose answer is the row's. titles: of all ways."""
    answer = row.ways[main]
    p = np.array(answer.p or [np.nan] * len(row.options))
    return Row(
        number=index + 1,
        id=row.id,
        pictures=[file for file in (row.picture, *row.more_pictures) if file],
        question=cut(row.question),
        options=_options(row.options, p, answer.letter, row.answer),
        answer=row.answer,
        letter=answer.letter,
        status=SCORED if answer.letter else "no letter",
        task_type=row.task_type,
        flags=flags,
        replies=[
            Reply(titles[name], reply.letter, reply.confidence, None if reply.text is None else cut(reply.text))
            for name, reply in row.ways.items()
        ],
        confidence=answer.confidence,
        margin=float(np.diff(np.sort(p))[-1]) if answer.p else None,
    )


# ------------------------------------------------------------------ both
def sample(flags: dict[str, np.ndarray], limit: int) -> list[int]:
    """Row numbers in their order: all, or where there are more than `limit`, half of them flagged ones and the rest
    drawn evenly (the same ones every time)."""
    count = len(next(iter(flags.values())))
    if count <= limit:
        return list(range(count))
    rng = np.random.default_rng(0)
    flagged = np.flatnonzero(np.any(list(flags.values()), axis=0))
    chosen = rng.choice(flagged, min(len(flagged), limit // 2), replace=False)
    others = np.setdiff1d(np.arange(count), chosen)
    return sorted([*chosen.tolist(), *rng.choice(others, limit - len(chosen), replace=False).tolist()])


def _options(texts: Sequence[str], p: np.ndarray, letter: str, answer: str) -> list[Option]:
    return [
        Option(name, cut(text), float(value) if np.isfinite(value) else None, name == letter, name == answer)
        for name, text, value in zip(LETTERS, texts, p)
    ]


def cut(text: str) -> str:
    """A text of at most LONGEST_TEXT characters, or its beginning and its length."""
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]} … ({len(text):,} characters)"


# ------------------------------------------------------------------ pictures
def thumbnails(rows: Sequence[Row], room: int, progress: Callable[[int], ProgressBar] | None = None) -> dict[str, str]:
    """WebP pictures of the rows as data addresses, by file: as large as `room` bytes allow for all of them.

    A picture that cannot be read is left out.
    """
    files = list(dict.fromkeys(file for row in rows for file in row.pictures))
    bar = progress(len(files)) if progress else None

    def read(file: str) -> Image.Image | None:
        picture = _small_picture(file)
        if bar:
            bar.update(1)
        return picture

    with ThreadPoolExecutor(READERS) as pool:
        pictures = {file: picture for file, picture in zip(files, pool.map(read, files)) if picture}
        addresses: dict[str, str] = {}
        for side in SIDES:
            made = list(pool.map(_data_address, pictures.values(), [side] * len(pictures)))
            if sum(map(len, made)) <= room:
                addresses = dict(zip(pictures, made))
                break
    if bar:
        bar.close()
    return addresses


def _small_picture(file: str) -> Image.Image | None:
    """A picture of at most the largest of SIDES; None where it cannot be read."""
    try:
        picture = read_picture(file)
    except PictureError:
        return None
    picture.thumbnail((SIDES[0], SIDES[0]))
    return picture


def _data_address(picture: Image.Image, side: int) -> str:
    small, file = picture.copy(), io.BytesIO()
    small.thumbnail((side, side))
    small.save(file, "WEBP", quality=QUALITY, method=2)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
