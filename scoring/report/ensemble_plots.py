"""A picture of an ensemble: calibration before and after, who agrees with whom, the rows that divide its members."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.special import rel_entr

from scoring.files.writing import write_whole
from scoring.inputs.pictures import PictureError, read_picture
from scoring.inputs.prompt import LETTERS
from scoring.report.plots import draw_reliability
from scoring.scores.folder import Scores
from scoring.scores.probabilities import member_log_probabilities
from scoring.stats.calibration import Calibration
from scoring.stats.metrics import measure_members
from scoring.stats.pools import pool

ROWS = 8  # that divide the members, shown with their pictures
SIDE = 224  # pixels of a shown picture
MOST_NAMED = 12  # members with their numbers in the matrix


def draw_ensemble(scores: Scores, metrics: dict) -> Path:
    """`ensemble.png` in the folder; its path."""
    figure = Figure(figsize=(13, 10.5), dpi=110)
    FigureCanvasAgg(figure)
    top, bottom = figure.subfigures(2, 1, height_ratios=(1, 1.5))
    axes = top.subplots(1, 3)
    _before_and_after(axes[:2], scores)
    draw_agreement(axes[2], scores.logits.members, metrics["ensemble"]["agreement"])
    top.subplots_adjust(0.06, 0.16, 0.98, 0.88, wspace=0.3)
    _divided(bottom, scores)
    path = scores.folder / "ensemble.png"
    write_whole(path, lambda file: figure.savefig(file, format="png"))
    return path


def disagreement(log_p: np.ndarray) -> np.ndarray:
    """(N,) Jensen–Shannon divergence of (M, N, K) members in nats: 0 where all say the same; NaN without a score."""
    p = np.exp(log_p)
    apart = rel_entr(np.nan_to_num(p), np.nan_to_num(p.mean(0))).sum(2).mean(0)
    return np.where(np.isfinite(p).any((0, 2)), apart, np.nan)


def _before_and_after(axes, scores: Scores) -> None:
    """Members as they are, pooled; and the pool with every temperature."""
    rows = scores.answered
    types = scores.questions["task_type"]
    raw = member_log_probabilities(scores.logits, [Calibration()] * len(scores.logits.members), types)[:, rows]
    kind = {name: value for name, value in scores.how.items() if name != "temperature"}
    p, y = np.exp(np.stack([pool(raw, **kind), scores.log_p[rows]])), scores.answers(rows)
    for axis, told, part, found in zip(axes, ("Before", "After"), p, measure_members(p, y)):
        draw_reliability(axis, np.nanmax(part, 1), (np.nanargmax(part, 1) == y).astype(float), found["ece"])
        axis.set_title(f"{told} temperatures: NLL {found['nll']['value']:.3f}, ECE {found['ece']['value']:.3f}")


def draw_agreement(axis, members: list[str], agreement: dict) -> None:
    """The share of rows in which each pair of members gives the same answer."""
    same = np.array(agreement["pairwise"])
    axis.imshow(same, cmap="Blues", vmin=min(0.5, same.min()), vmax=1)
    places = range(len(members))
    axis.set_xticks(places, members, rotation=45, ha="right")
    axis.set_yticks(places, members)
    if len(members) <= MOST_NAMED:
        for row, column in np.ndindex(same.shape):
            pale = same[row, column] > 0.85
            axis.text(column, row, f"{same[row, column]:.0%}", ha="center", va="center", color="wk"[not pale])
    kappa = agreement["fleiss_kappa"]
    axis.set_title("Same answer" + (f", Fleiss' kappa {kappa:.2f}" if kappa is not None else ""))


def _divided(figure, scores: Scores) -> None:
    """The rows on whose probabilities the members differ most, with picture, answers and the right one."""
    apart = np.nan_to_num(disagreement(scores.members), nan=-1.0)
    rows = [row for row in np.argsort(-apart, kind="stable")[:ROWS] if apart[row] >= 0]
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
            axis.text(0.5, 0.5, "picture not found", ha="center", va="center", transform=axis.transAxes)
        axis.set_title(_answers(scores, row), fontsize=9)
    figure.subplots_adjust(0.02, 0.02, 0.98, 0.84, hspace=0.45, wspace=0.1)


def _answers(scores: Scores, row: int) -> str:
    """The row's id and right letter, and how many members answer what, each with its mean probability."""
    answers = np.nanargmax(scores.members[:, row], 1)
    sure = np.exp(scores.members[:, row].max(1))
    told = [f"{LETTERS[at]}: {(answers == at).sum()} × {sure[answers == at].mean():.2f}" for at in np.unique(answers)]
    right = scores.questions["answer"][row]
    return f"{scores.logits.ids[row]}{f' (right: {right})' if right else ''}\n" + ",  ".join(told)
