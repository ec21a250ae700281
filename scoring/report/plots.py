"""Plots of an evaluation (`evaluation.png`): calibration, risk and coverage, letters, task types.

The functions that take an axis also draw the page's figures (`figures.py`).
"""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from scoring.files.writing import write_whole
from scoring.inputs.prompt import LETTERS
from scoring.report.records import CalibrationError, Estimate, Letter, Metrics
from scoring.scores.folder import Scores
from scoring.stats.metrics import BINS, equal_mass_bins
from scoring.stats.selective import lower_bound

INK, PALE, BAND = "#2f86c9", "#8c959f80", "#8c959f40"  # readable on white and on black
MOST_GROUPS = 20  # task types in a plot


def draw_folder(scores: Scores, metrics: Metrics) -> Path:
    """Draw `evaluation.png` in the folder, four panels; its path. metrics: those of the folder."""
    rows = scores.answered
    p, y = np.exp(scores.log_p[rows]), scores.answers(rows)
    figure = Figure(figsize=(11, 8), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2)
    confidence, right = np.nanmax(p, 1), (np.nanargmax(p, 1) == y).astype(float)
    draw_reliability(axes[0, 0], confidence, right, metrics.overall.ece)
    draw_risk(axes[0, 1], metrics)
    draw_letters(axes[1, 0], metrics.overall.letters)
    draw_groups(axes[1, 1], metrics)
    figure.subplots_adjust(0.07, 0.06, 0.98, 0.95, wspace=0.25, hspace=0.3)
    path = scores.folder / "evaluation.png"
    write_whole(path, lambda file: figure.savefig(file, format="png"))
    return path


def draw_reliability(axis: Axes, confidence: np.ndarray, right: np.ndarray, ece: CalibrationError) -> None:
    """Accuracy by confidence in bins of equal mass, with the 95 % band of a perfectly calibrated model's accuracy.

    confidence: (N,) probability of the answer. right: (N,) 1 where it is right, else 0.
    """
    bins = equal_mass_bins(confidence, BINS)
    count = np.bincount(bins)
    mean_confidence, accuracy = (np.bincount(bins, values) / count for values in (confidence, right))
    spread = 1.96 * np.sqrt(np.bincount(bins, confidence * (1 - confidence))) / count
    low, high = np.clip(mean_confidence - spread, 0, 1), np.clip(mean_confidence + spread, 0, 1)
    axis.fill_between(mean_confidence, low, high, color=BAND, label="noise, 95 %")
    axis.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    axis.plot(mean_confidence, accuracy, "o-", color=INK, label="measured")
    axis.set(
        title=f"Calibration: ECE {ece.text()}, noise floor up to {ece.floor_95:.3f}",
        xlabel="probability of the answer",
        ylabel="share of right answers",
        xlim=(min(0.2, mean_confidence.min()), 1.02),
        ylim=(0, 1.02),
    )
    axis.legend(frameon=False)


def draw_risk(axis: Axes, metrics: Metrics) -> None:
    """Accuracy of the surest rows by their share, its lower bound, and the confidence threshold."""
    coverage = np.array([point.coverage for point in metrics.risk_coverage])
    accuracy = 1 - np.array([point.risk for point in metrics.risk_coverage])
    axis.plot(coverage, accuracy, color=INK)
    covered = np.round(coverage * metrics.overall.rows)
    bound = lower_bound(np.round(accuracy * covered), covered, 0.95)
    chosen = metrics.selective
    if not chosen.left_out:  # the bound does not hold for rows that a member has met
        axis.plot(coverage, bound, color=INK, linestyle=":", linewidth=1)
    title = f"no threshold promises {chosen.wanted:.0%}"
    if chosen.threshold is not None:
        title = f"{chosen.wanted:.0%} right from p ≥ {chosen.threshold:.2f} on, {chosen.coverage:.0%} of rows"
        if chosen.left_out:
            title += " not met before"
        else:
            axis.axvline(chosen.coverage, color="grey", linewidth=0.8)
    axis.set(title=title, xlabel="share of rows answered, the surest first", ylabel="accuracy among them", xlim=(0, 1))
    axis.set_ylim(max(0.0, min(accuracy.min(), bound[len(bound) // 4 :].min()) - 0.05), 1.005)


def draw_letters(axis: Axes, letters: list[Letter]) -> None:
    """How often each letter is right, and how often it is answered."""
    positions, total = np.arange(len(letters)), sum(letter.rows for letter in letters)
    axis.bar(positions - 0.2, [letter.rows / total for letter in letters], 0.4, color=PALE, label="right")
    axis.bar(positions + 0.2, [letter.predicted for letter in letters], 0.4, color=INK, label="answered")
    axis.set_xticks(positions, list(LETTERS[: len(letters)]))
    axis.set(title="Letters: how often right, how often answered", ylabel="share of rows")
    axis.margins(y=0.25)
    axis.legend(frameon=False, ncols=2, loc="upper right")


def draw_groups(axis: Axes, metrics: Metrics) -> None:
    """Accuracy of all rows and of each task type."""
    groups = {"all": metrics.overall, **metrics.task_types}
    names = list(groups)[::-1][:MOST_GROUPS]
    for position, name in enumerate(names):
        draw_estimate(axis, position, groups[name].accuracy)
    axis.set_yticks(range(len(names)), [f"{name} ({groups[name].rows:,})" for name in names])
    axis.set(title="Accuracy by task type, 95 %", xlim=(0, 1.02))
    axis.grid(axis="x", alpha=0.3)


def draw_estimate(axis: Axes, position: int, estimate: Estimate) -> None:
    """A dot for the value and a line for its interval, at the height `position`; nothing where it is not defined."""
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return
    axis.plot([estimate.low, estimate.high], [position, position], color=INK, linewidth=2)
    axis.plot(estimate.value, position, "o", color=INK)
