"""Figures of the report page: SVG for a light page and for a dark one, each with a description in words."""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from scoring.inputs.prompt import LETTERS
from scoring.report.ensemble_plots import draw_agreement
from scoring.report.plots import INK, draw_estimate, draw_groups, draw_letters, draw_reliability, draw_risk
from scoring.report.records import Bench, BenchWay, Estimate, Metrics
from scoring.report.tables import threshold_note
from scoring.scores.folder import Scores

SIZE = (5.6, 4.2)  # inches
PAPER = {"light": "#1f2328", "dark": "#e6edf3"}  # colour of texts and lines; the background is the page's own
INKED = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")


@dataclass(frozen=True)
class FigureViews:
    """svg: the figure for a `light` and for a `dark` page. description: what it shows, for people who do not see it."""

    title: str
    svg: dict[str, str]
    description: str


def draw_views(title: str, draw: Callable[[Axes], None], description: str) -> FigureViews:
    """Call `draw(axis)` on an axis, and ink the figure for each kind of page. Texts stay texts, in the page's fonts."""
    settings: dict[Any, Any] = dict.fromkeys(INKED, PAPER["light"]) | {
        "svg.fonttype": "none",
        "svg.hashsalt": title,  # the same bytes every time
        "font.family": "sans-serif",
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with rc_context(settings):
        figure = Figure(figsize=SIZE, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.subplots())
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    light = file.getvalue()[file.getvalue().index("<svg") :]
    svg = {name: re.sub(rf"((?:fill|stroke): ){PAPER['light']}", rf"\g<1>{ink}", light) for name, ink in PAPER.items()}
    return FigureViews(title, svg, description)


# ------------------------------------------------------------------ SCORES
def figures_of_scores(scores: Scores, metrics: Metrics | None) -> list[FigureViews]:
    """The plots of `evaluation.png` and `ensemble.png`, and the confusion of letters.

    Without metrics: how sure the answers are.
    """
    if metrics is None:
        return [_confidences(scores)] if scores.logits.scored.any() else []
    rows = scores.answered
    p, y = np.exp(scores.log_p[rows]), scores.answers(rows)
    best = np.nanargmax(p, 1)
    figures = [
        _calibration(np.nanmax(p, 1), (best == y).astype(float), metrics),
        draw_views(
            "Risk and coverage",
            lambda axis: draw_risk(axis, metrics),
            f"Accuracy of the surest rows against their share. {threshold_note(metrics.selective)}",
        ),
        _letters(metrics),
        _confusion(best, y, p.shape[1]),
    ]
    if len(metrics.task_types) > 1:
        shares = "; ".join(f"{name} {group.accuracy.text('.0%')}" for name, group in metrics.task_types.items())
        figures.append(
            draw_views("Task types", lambda axis: draw_groups(axis, metrics), f"Accuracy by task type: {shares}.")
        )
    if metrics.ensemble:
        agreement = metrics.ensemble.agreement
        figures.append(
            draw_views(
                "Members",
                lambda axis: draw_agreement(axis, scores.logits.members, agreement),
                "How often each pair of members gives the same answer: all members do in "
                f"{agreement.all_agree:.0%} of rows.",
            )
        )
    return figures


def _calibration(confidence: np.ndarray, right: np.ndarray, metrics: Metrics) -> FigureViews:
    ece = metrics.overall.ece
    return draw_views(
        "Calibration",
        lambda axis: draw_reliability(axis, confidence, right, ece),
        f"Reliability diagram: expected calibration error {ece.text()} ({ece.interval()}). A perfectly calibrated "
        f"model would show {ece.floor_mean:.3f} on average, and up to {ece.floor_95:.3f} by chance.",
    )


def _letters(metrics: Metrics) -> FigureViews:
    letters = metrics.overall.letters
    shares = "; ".join(
        f"{name} right {letter.rows / metrics.overall.rows:.0%}, answered {letter.predicted:.0%}"
        for name, letter in zip(LETTERS, letters)
    )
    return draw_views(
        "Letters", lambda axis: draw_letters(axis, letters), f"How often each letter is right and answered: {shares}."
    )


def _confusion(best: np.ndarray, y: np.ndarray, letters: int) -> FigureViews:
    """Rows by their right letter y (N,) and the answered one, best (N,)."""
    counts = np.zeros((letters, letters), int)
    np.add.at(counts, (y, best), 1)
    names = list(LETTERS[:letters])

    def draw(axis: Axes) -> None:
        axis.imshow(counts / np.maximum(counts.sum(1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
        axis.set_xticks(range(letters), names)
        axis.set_yticks(range(letters), names)
        for row, column in np.ndindex(counts.shape):
            dark = counts[row, column] > 0.5 * max(counts[row].sum(), 1)
            axis.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", color="w" if dark else "k")
        axis.set(title="Rows by right and answered letter", xlabel="answered", ylabel="right")

    by_letter = "; ".join(
        f"right {name}: " + ", ".join(f"{answered} {count:,}" for answered, count in zip(names, row))
        for name, row in zip(names, counts)
    )
    return draw_views("Confusion", draw, f"Answered letters by the right one: {by_letter}.")


def _confidences(scores: Scores) -> FigureViews:
    """How sure the answers are, where no row has a right answer to compare with."""
    confidence = np.nanmax(np.exp(scores.log_p[scores.logits.scored]), 1)

    def draw(axis: Axes) -> None:
        axis.hist(confidence, bins=25, color=INK)
        axis.set(title="Confidence", xlabel="probability of the answer", ylabel="rows")

    low, median = np.quantile(confidence, [0.1, 0.5])
    return draw_views(
        "Confidence",
        draw,
        f"Half of the rows have an answer with a probability of {median:.2f} or more, a tenth less than {low:.2f}.",
    )


# ------------------------------------------------------------------ bench
def figures_of_bench(bench: Bench) -> list[FigureViews]:
    """Speed of each way, and accuracy where there are answers."""
    ways = list(bench.ways.values())
    speeds = "; ".join(f"{way.title} {way.rows_per_second:.1f}" for way in ways)
    figures = [draw_views("Throughput", lambda axis: _draw_speed(axis, ways), f"Rows a second: {speeds}.")]
    accuracies = {way.title: way.accuracy for way in ways if way.accuracy}
    if len(accuracies) == len(ways):
        shares = "; ".join(f"{title} {accuracy.text('.1%')}" for title, accuracy in accuracies.items())
        figures.append(draw_views("Accuracy", lambda axis: _draw_accuracy(axis, accuracies), f"Accuracy: {shares}."))
    return figures


def _draw_speed(axis: Axes, ways: list[BenchWay]) -> None:
    positions = range(len(ways))
    axis.barh(positions, [way.rows_per_second for way in ways], color=INK)
    for position, way in zip(positions, ways):
        label = ", ".join(filter(None, [f"{way.rows_per_second:.1f}", way.ratio_text, way.weights]))
        axis.annotate(label, (way.rows_per_second, position), (4, 0), textcoords="offset points", va="center")
    axis.set_yticks(positions, [way.title for way in ways])
    axis.invert_yaxis()
    axis.margins(x=0.45)
    axis.set(title="Rows a second", xlabel="rows/s, median of the repeats")


def _draw_accuracy(axis: Axes, accuracies: dict[str, Estimate]) -> None:
    for position, accuracy in enumerate(accuracies.values()):
        draw_estimate(axis, position, accuracy)
    axis.set_yticks(range(len(accuracies)), list(accuracies))
    axis.invert_yaxis()
    axis.set(title="Accuracy, 95 %", xlim=(0, 1.02))
    axis.grid(axis="x", alpha=0.3)
