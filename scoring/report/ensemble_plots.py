"""Plots of an ensemble (`ensemble.png`): calibration before and after, agreement, the rows that divide the members."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from scipy.special import rel_entr

from scoring.files.reading import as_object
from scoring.files.writing import write_whole
from scoring.inputs.pictures import PictureError, read_picture
from scoring.inputs.prompt import LETTERS
from scoring.report.plots import draw_reliability
from scoring.report.records import Agreement, Calibrated, Metrics
from scoring.scores.folder import Scores
from scoring.scores.probabilities import member_log_probabilities
from scoring.stats.calibration import Calibration
from scoring.stats.metrics import measure_members
from scoring.stats.pools import PoolSettings

ROWS = 8  # rows that divide the members, with their pictures
SIDE = 224  # longest side of such a picture, in pixels
MOST_NUMBERED = 12  # members in a matrix whose cells show numbers


def draw_ensemble(scores: Scores, metrics: Metrics) -> Path:
    """Draw `ensemble.png` in the folder; its path. Raises ValueError for the metrics of one member."""
    ensemble = metrics.ensemble
    if ensemble is None:
        raise ValueError("metrics of one member; expected those of an ensemble")
    figure = Figure(figsize=(13, 10.5), dpi=110)
    FigureCanvasAgg(figure)
    top, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=(1, 1.5))[:, 0]
    before, after, agreement = top.subplots(1, 3)
    _draw_calibration(before, after, scores)
    draw_agreement(agreement, scores.logits.members, ensemble.agreement)
    top.subplots_adjust(0.06, 0.16, 0.98, 0.88, wspace=0.3)
    _draw_divided_rows(bottom, scores)
    path = scores.folder / "ensemble.png"
    write_whole(path, lambda file: figure.savefig(file, format="png"))
    return path


def disagreement(log_p: np.ndarray) -> np.ndarray:
    """(N,) Jensen–Shannon divergence of (M, N, K) members in nats: 0 where all are alike; NaN without a score."""
    p = np.exp(log_p)
    divergence = rel_entr(np.nan_to_num(p), np.nan_to_num(p.mean(0))).sum(2).mean(0)
    return np.where(np.isfinite(p).any((0, 2)), divergence, np.nan)


def _draw_calibration(before: Axes, after: Axes, scores: Scores) -> None:
    """Reliability of the pool of raw members, and of the pool with every temperature."""
    rows = scores.answered
    types = scores.questions["task_type"]
    raw = member_log_probabilities(scores.logits, [Calibration()] * len(scores.logits.members), types)[:, rows]
    settings = replace(scores.pool or PoolSettings(), temperature=1.0)
    p, y = np.exp(np.stack([settings.pool(raw), scores.log_p[rows]])), scores.answers(rows)
    for axis, title, pooled, values in zip((before, after), ("Before", "After"), p, measure_members(p, y)):
        measured = as_object(Calibrated, {**values}, "metrics of a pool")
        draw_reliability(axis, np.nanmax(pooled, 1), (np.nanargmax(pooled, 1) == y).astype(float), measured.ece)
        axis.set_title(f"{title} temperatures: NLL {measured.nll.text()}, ECE {measured.ece.text()}")


def draw_agreement(axis: Axes, members: list[str], agreement: Agreement) -> None:
    """The share of rows in which each pair of members gives the same answer."""
    same = np.array(agreement.pairwise)
    axis.imshow(same, cmap="Blues", vmin=min(0.5, same.min()), vmax=1)
    positions = range(len(members))
    axis.set_xticks(positions, members, rotation=45, ha="right")
    axis.set_yticks(positions, members)
    if len(members) <= MOST_NUMBERED:
        for row, column in np.ndindex(same.shape):
            colour = "w" if same[row, column] > 0.85 else "k"  # dark cells have white numbers
            axis.text(column, row, f"{same[row, column]:.0%}", ha="center", va="center", color=colour)
    kappa = agreement.fleiss_kappa
    axis.set_title("Same answer" + (f", Fleiss' kappa {kappa:.2f}" if kappa is not None else ""))


def _draw_divided_rows(figure: SubFigure, scores: Scores) -> None:
    """The rows on whose probabilities the members differ most, with picture, answers and the right one."""
    divergence = np.nan_to_num(disagreement(scores.members), nan=-1.0)
    rows = [row for row in np.argsort(-divergence, kind="stable")[:ROWS] if divergence[row] >= 0]
    figure.suptitle("Rows that divide the members most")
    axes = figure.subplots(2, ROWS // 2).flatten()
    for axis in axes:
        axis.axis("off")
    for axis, row in zip(axes, rows):
        try:
            picture = read_picture(scores.questions["picture"][row])
            picture.thumbnail((SIDE, SIDE))
            axis.imshow(picture)
        except PictureError:
            missing = "picture not found" if scores.questions["picture"][row] else "no picture"
            axis.text(0.5, 0.5, missing, ha="center", va="center", transform=axis.transAxes)
        axis.set_title(_answers_text(scores, row), fontsize=9)
    figure.subplots_adjust(0.02, 0.02, 0.98, 0.84, hspace=0.45, wspace=0.1)


def _answers_text(scores: Scores, row: int) -> str:
    """The row's id and right letter, and for each letter how many members answer it, with what mean probability."""
    answers = np.nanargmax(scores.members[:, row], 1)
    confidence = np.exp(scores.members[:, row].max(1))
    counts = []
    for letter in np.unique(answers):
        voters = answers == letter
        counts.append(f"{LETTERS[letter]}: {voters.sum()} × {confidence[voters].mean():.2f}")
    right = scores.questions["answer"][row]
    return f"{scores.logits.ids[row]}{f' (right: {right})' if right else ''}\n" + ",  ".join(counts)
