"""Figures of a report: drawn once for a light page and once for a dark one, as SVG, each with its content in words."""

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from scoring.inputs.prompt import LETTERS
from scoring.report.ensemble_plots import draw_agreement
from scoring.report.plots import INK, draw_groups, draw_letters, draw_reliability, draw_risk
from scoring.scores.folder import Scores

SIZE = (5.6, 4.2)  # inches
PAPER = {"light": "#1f2328", "dark": "#e6edf3"}  # the colour of texts and lines; the ground is the page's own


@dataclass
class FigureViews:
    """svg: by `light` and `dark`. told: what there is to see, for those who do not see it."""

    title: str
    svg: dict[str, str]
    told: str


def drawn(title: str, draw: Callable, told: str) -> FigureViews:
    """`draw(axis)` on an axis for each kind of page; texts stay texts, so that the page's own fonts are used."""
    svg = {}
    for name, ink in PAPER.items():
        colours = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
        settings = dict.fromkeys(colours, ink) | {
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
        svg[name] = file.getvalue()[file.getvalue().index("<svg") :]
    return FigureViews(title, svg, told)


def figures_of_scores(scores: Scores, metrics: dict | None) -> list[FigureViews]:
    """What `evaluation.png` and `ensemble.png` show, and who is taken for whom."""
    if metrics is None:
        return [_confidences(scores)] if scores.logits.scored.any() else []
    rows = scores.answered
    p, y = np.exp(scores.log_p[rows]), scores.answers(rows)
    best = np.nanargmax(p, 1)
    confidence, right = np.nanmax(p, 1), (best == y).astype(float)
    overall, chosen = metrics["overall"], metrics["selective"]
    error = overall["ece"]
    if "reason" in chosen:
        promise = f"no threshold is promised, since {chosen['reason']}"
    elif chosen["threshold"] is None:
        promise = f"no threshold promises {chosen['wanted']:.0%} on so many rows"
    else:
        promise = (
            f"answers from a probability of {chosen['threshold']:.2f} on are right in {chosen['accuracy']:.1%}: "
            f"{chosen['coverage']:.0%} of the rows" + (" that no member has met" if chosen.get("left_out") else "")
        )
    found = [
        drawn(
            "Calibration",
            lambda axis: draw_reliability(axis, confidence, right, error),
            f"Reliability diagram: expected calibration error {error['value']:.3f} "
            f"({error['low']:.3f} to {error['high']:.3f}); perfect calibration would show {error['floor_mean']:.3f}, "
            f"and up to {error['floor_95']:.3f} by chance.",
        ),
        drawn(
            "Risk and coverage",
            lambda axis: draw_risk(axis, metrics),
            f"Accuracy of the surest rows against their share: {promise}.",
        ),
        drawn(
            "Letters",
            lambda axis: draw_letters(axis, overall["letters"]),
            "How often each letter is right and answered: "
            + "; ".join(
                f"{letter} right {part['rows'] / overall['rows']:.0%}, answered {part['predicted']:.0%}"
                for letter, part in zip(LETTERS, overall["letters"])
            )
            + ".",
        ),
        _confusion(best, y, p.shape[1]),
    ]
    if len(metrics["by"].get("task_type", {})) > 1:
        told = "; ".join(f"{name} {part['accuracy']['value']:.0%}" for name, part in metrics["by"]["task_type"].items())
        found.append(drawn("Task types", lambda axis: draw_groups(axis, metrics), f"Accuracy by task type: {told}."))
    if "ensemble" in metrics:
        agreement = metrics["ensemble"]["agreement"]
        found.append(
            drawn(
                "Members",
                lambda axis: draw_agreement(axis, scores.logits.members, agreement),
                f"Who gives the same answer as whom: all members do in {agreement['all_agree']:.0%} of rows.",
            )
        )
    return found


def _confusion(best: np.ndarray, y: np.ndarray, letters: int) -> FigureViews:
    """Rows by their right letter and the answered one."""
    counts = np.zeros((letters, letters), int)
    np.add.at(counts, (y, best), 1)
    names = list(LETTERS[:letters])

    def draw(axis) -> None:
        axis.imshow(counts / np.maximum(counts.sum(1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
        axis.set_xticks(range(letters), names)
        axis.set_yticks(range(letters), names)
        for row, column in np.ndindex(counts.shape):
            dark = counts[row, column] > 0.5 * max(counts[row].sum(), 1)
            axis.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", color="w" if dark else "k")
        axis.set(title="Rows by right and answered letter", xlabel="answered", ylabel="right")

    told = "; ".join(
        f"right {names[row]}: " + ", ".join(f"{names[at]} {counts[row, at]:,}" for at in range(letters))
        for row in range(letters)
    )
    return drawn("Confusion", draw, f"Answered letters by the right one: {told}.")


def _confidences(scores: Scores) -> FigureViews:
    """Without answers: how sure it is."""
    confidence = np.nanmax(np.exp(scores.log_p[scores.logits.scored]), 1)

    def draw(axis) -> None:
        axis.hist(confidence, bins=25, color=INK)
        axis.set(title="How sure it is", xlabel="probability of the answer", ylabel="rows")

    low, middle = np.quantile(confidence, [0.1, 0.5])
    told = f"Half of the rows have an answer with a probability of {middle:.2f} or more, a tenth less than {low:.2f}."
    return drawn("Confidence", draw, told)


def figures_of_bench(found: dict) -> list[FigureViews]:
    """Speed, and where there are answers, accuracy of each way."""
    ways = list(found["ways"].values())
    titles, places = [way["title"] for way in ways], range(len(ways))

    def speed(axis) -> None:
        values = [way["rows_per_second"] for way in ways]
        axis.barh(places, values, color=INK)
        for at, way in zip(places, ways):
            ratio = f", {way['ratio']:.1f}x" if "ratio" in way else ""
            weights = f", {way['weights']}" if "weights" in way else ""
            label = f"{values[at]:.1f}{ratio}{weights}"
            axis.annotate(label, (values[at], at), (4, 0), textcoords="offset points", va="center")
        axis.set_yticks(places, titles)
        axis.invert_yaxis()
        axis.margins(x=0.45)
        axis.set(title="Rows a second", xlabel="rows/s, median of the repeats")

    def quality(axis) -> None:
        for at, way in zip(places, ways):
            right = way["accuracy"]
            axis.plot([right["low"], right["high"]], [at, at], color=INK, linewidth=2)
            axis.plot(right["value"], at, "o", color=INK)
        axis.set_yticks(places, titles)
        axis.invert_yaxis()
        axis.set(title="Accuracy, 95 %", xlim=(0, 1.02))
        axis.grid(axis="x", alpha=0.3)

    told = "; ".join(f"{way['title']} {way['rows_per_second']:.1f}" for way in ways)
    views = [drawn("Throughput", speed, f"Rows a second: {told}.")]
    if all(way["accuracy"] for way in ways):
        told = "; ".join(f"{way['title']} {way['accuracy']['value']:.1%}" for way in ways)
        views.append(drawn("Accuracy", quality, f"Accuracy: {told}."))
    return views
