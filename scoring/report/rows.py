"""The rows of a report: what was asked and answered, what is worth a look, and each picture, small."""

import base64
import io
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from scoring.bench.summary import ENGINE
from scoring.inputs.pictures import PictureError, read_picture
from scoring.inputs.prompt import LETTERS
from scoring.report.ensemble_plots import disagreement
from scoring.scores.folder import Scores
from scoring.scores.probabilities import margins, predictions

SURE = 0.7  # an answer of that probability is a sure one
SIDES = (320, 256, 192, 160, 128, 96, 64, 32)  # of pictures, in pixels: the largest that the page has room for
QUALITY, READERS = 60, 8
LONGEST_TEXT = 1_000  # characters of a cell that are shown
MOST_MEMBERS = 8  # that are shown in a row

FILTERS = {  # flag: (key, label, what it means)
    "wrong": ("w", "wrong and sure", f"answered wrongly with a probability of {SURE} or more"),
    "members": ("m", "members disagree", "not all members of the ensemble give the same answer"),
    "orders": ("o", "orders disagree", "another order of the options changes the answer"),
    "generation": ("g", "generation differs", "a generated text gives another letter than the engine, or none"),
    "label": ("l", "label doubtful", "the label is probably wrong: one of the flagged rows of suspects.csv"),
    "unscored": ("u", "unscored", "no score, or no letter"),
}


@dataclass
class Option:
    """letter, text and probability of one option; p is None without a score."""

    letter: str
    text: str
    p: float | None
    chosen: bool
    right: bool


@dataclass
class Said:
    """What a member, an order or a way says of a row."""

    who: str
    letter: str
    p: float | None = None
    text: str | None = None


@dataclass
class Row:
    """One row as the page shows it. picture: its file; thumbnail: its number among the page's pictures, or None."""

    number: int
    id: str
    picture: str
    question: str
    options: list[Option]
    answer: str
    letter: str
    status: str
    task_type: str
    flags: list[str] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)
    confidence: float | None = None
    margin: float | None = None
    apart: float = 0.0  # disagreement of the members, in nats
    thumbnail: int | None = None

    @property
    def verdict(self) -> str:
        if not self.letter:
            return "unscored"
        return ("right" if self.letter == self.answer else "wrong") if self.answer else ""

    @property
    def p_right(self) -> float | None:
        """Probability of the right option."""
        return next((option.p for option in self.options if option.right), None)


def rows_of_scores(scores: Scores, most: int, suspects: Collection[str] = ()) -> list[Row]:
    """At most so many rows of a SCORES folder: see `sample`. suspects: ids of rows whose label is probably wrong."""
    logits, questions = scores.logits, scores.questions
    letters, p = predictions(logits, scores.log_p), np.exp(scores.log_p)
    lead = margins(scores.log_p)
    members = scores.members if len(logits.members) > 1 else None
    best = None if members is None else np.where(np.isnan(members), -np.inf, members).argmax(2)
    apart = np.zeros(len(letters)) if members is None else np.nan_to_num(disagreement(members))
    votes = np.where(np.isfinite(logits.logits), logits.logits, -np.inf)
    shown = np.isfinite(logits.logits).any(3)
    by_order = votes.argmax(3)
    flags = {
        "wrong": np.array([bool(a) and a != b for a, b in zip(questions["answer"], letters)])
        & (np.nan_to_num(p).max(1) >= SURE)
        & logits.scored,
        "members": np.zeros(len(letters), bool) if best is None else (best != best[0]).any(0) & logits.scored,
        "orders": ((by_order != by_order[:, :, :1]) & shown).any((1, 2)) & logits.scored,
        "label": np.array([id in suspects for id in logits.ids]),
        "unscored": ~logits.scored,
    }
    found = []
    for at in sample(flags, most):
        count = int(questions["options"][at])
        said = []
        if members is not None:
            said = [
                Said(name, LETTERS[best[member, at]], float(np.exp(members[member, at].max())))
                for member, name in enumerate(logits.members[:MOST_MEMBERS])
                if logits.scored[at]
            ]
        elif (orders := shown[at].sum()) > 1:
            letter, times = np.unique(by_order[at][shown[at]], return_counts=True)
            said = [Said(f"{n} of {orders} orders", LETTERS[one]) for one, n in zip(letter, times.tolist())]
        row = Row(
            at + 1,
            logits.ids[at],
            questions["picture"][at],
            cut(questions["question"][at]),
            _options(questions["choices"][at] or [""] * count, p[at, :count], letters[at], questions["answer"][at]),
            questions["answer"][at],
            letters[at],
            logits.status[at],
            questions["task_type"][at],
            [name for name, there in flags.items() if there[at]],
            said,
            float(np.nanmax(p[at])) if letters[at] else None,
            float(lead[at]) if letters[at] else None,
            float(apart[at]),
        )
        found.append(row)
    return found


def rows_of_bench(found: dict, most: int) -> list[Row]:
    """At most so many rows of a benchmark; the letter and probabilities are the engine's, or of the last way's."""
    rows = found["per_row"]
    main = ENGINE if ENGINE in found["ways"] else list(found["ways"])[-1]
    answers = [row["ways"][main] for row in rows]
    sure = np.array([max(answer.get("p") or [0]) for answer in answers])
    flags = {
        "wrong": np.array(
            [bool(row["answer"]) and answer["letter"] != row["answer"] for row, answer in zip(rows, answers)]
        )
        & (sure >= SURE),
        "generation": np.array(
            [
                any("text" in said and said["letter"] != answer["letter"] for said in row["ways"].values())
                for row, answer in zip(rows, answers)
            ]
        ),
        "unscored": np.array([not answer["letter"] for answer in answers]),
    }
    titles = {name: way["title"] for name, way in found["ways"].items()}
    result = []
    for at in sample(flags, most):
        row, answer = rows[at], answers[at]
        p = np.array(answer.get("p") or [np.nan] * len(row["options"]))
        result.append(
            Row(
                at + 1,
                row["id"],
                row["picture"],
                cut(row["question"]),
                _options(row["options"], p, answer["letter"], row["answer"]),
                row["answer"],
                answer["letter"],
                "ok" if answer["letter"] else "no letter",
                row["task_type"],
                [name for name, there in flags.items() if there[at]],
                [
                    Said(titles[name], said["letter"], max(said["p"]) if "p" in said else None, cut(said.get("text")))
                    for name, said in row["ways"].items()
                ],
                float(sure[at]) if "p" in answer else None,
                float(np.diff(np.sort(p))[-1]) if "p" in answer else None,
            )
        )
    return result


def sample(flags: dict[str, np.ndarray], most: int) -> list[int]:
    """Row numbers in their order: all, or where there are more than `most`, half of them flagged ones and the rest
    drawn evenly (the same ones every time)."""
    count = len(next(iter(flags.values())))
    if count <= most:
        return list(range(count))
    rng = np.random.default_rng(0)
    flagged = np.flatnonzero(np.any(list(flags.values()), axis=0))
    chosen = rng.choice(flagged, min(len(flagged), most // 2), replace=False)
    others = np.setdiff1d(np.arange(count), chosen)
    return sorted([*chosen.tolist(), *rng.choice(others, most - len(chosen), replace=False).tolist()])


def _options(texts: Sequence[str], p: np.ndarray, letter: str, answer: str) -> list[Option]:
    return [
        Option(name, cut(text), float(value) if np.isfinite(value) else None, name == letter, name == answer)
        for name, text, value in zip(LETTERS, texts, p)
    ]


def cut(text: str | None) -> str | None:
    if text is None or len(text) <= LONGEST_TEXT:
        return text
    return f"{text[:LONGEST_TEXT]} … ({len(text):,} characters)"


def thumbnails(rows: list[Row], room: int, progress: Callable | None = None) -> list[str]:
    """WebP pictures as data addresses, each file once, as large as `room` bytes allow; rows get their number.

    A picture that cannot be read leaves its rows without one.
    """
    files = list(dict.fromkeys(row.picture for row in rows if row.picture))
    bar = progress(len(files)) if progress else None

    def read(file: str):
        try:
            picture = read_picture(file)
            picture.thumbnail((SIDES[0], SIDES[0]))
        except PictureError:
            picture = None
        if bar:
            bar.update(1)
        return picture

    with ThreadPoolExecutor(READERS) as pool:
        pictures = {file: picture for file, picture in zip(files, pool.map(read, files)) if picture}
        for side in SIDES:
            made = dict(zip(pictures, pool.map(lambda picture: _webp(picture, side), pictures.values())))  # noqa: B023
            if sum(map(len, made.values())) <= room:
                break
        else:
            made = {}
    if bar:
        bar.close()
    numbers = {file: number for number, file in enumerate(made)}
    for row in rows:
        row.thumbnail = numbers.get(row.picture)
    return list(made.values())


def _webp(picture, side: int) -> str:
    small, file = picture.copy(), io.BytesIO()
    small.thumbnail((side, side))
    small.save(file, "WEBP", quality=QUALITY, method=2)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
