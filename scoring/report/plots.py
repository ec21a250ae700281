"""Pictures of an evaluation: calibration, risk and coverage, letters, task types."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from scoring.files.writing import write_whole
from scoring.scores.folder import Scores
from scoring.stats.metrics import BINS, equal_mass_bins
from scoring.stats.selective import lower_bound

INK, PALE, BAND = "#2f86c9", "#8c959f80", "#8c959f40"  # to be read on white and on black


def draw_folder(scores: Scores, metrics: dict) -> Path:
    """`evaluation.png` in the folder: four panels; its path."""
    rows = scores.answered
    p, y = np.exp(scores.log_p[rows]), scores.answers(rows)
    figure = Figure(figsize=(11, 8), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2)
    confidence, right = np.nanmax(p, 1), (np.nanargmax(p, 1) == y).astype(float)
    draw_reliability(axes[0, 0], confidence, right, metrics["overall"]["ece"])
    draw_risk(axes[0, 1], metrics)
    draw_letters(axes[1, 0], metrics["overall"]["letters"])
    draw_groups(axes[1, 1], metrics)
    figure.subplots_adjust(0.07, 0.06, 0.98, 0.95, wspace=0.25, hspace=0.3)
    path = scores.folder / "evaluation.png"
    write_whole(path, lambda file: figure.savefig(file, format="png"))
    return path


def draw_reliability(axis, confidence: np.ndarray, right: np.ndarray, ece: dict) -> None:
    """Bins of equal mass, each with a 95 % band of where a perfectly calibrated model's accuracy would fall."""
    bins = equal_mass_bins(confidence, BINS)
    count = np.bincount(bins)
    sure, hit = (np.bincount(bins, values) / count for values in (confidence, right))
    spread = 1.96 * np.sqrt(np.bincount(bins, confidence * (1 - confidence))) / count
    axis.fill_between(sure, np.clip(sure - spread, 0, 1), np.clip(sure + spread, 0, 1), color=BAND, label="noise, 95 %")
    axis.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    axis.plot(sure, hit, "o-", color=INK, label="measured")
    axis.set(
        title=f"Calibration: ECE {ece['value']:.3f}, noise floor up to {ece['floor_95']:.3f}",
        xlabel="probability of the answer",
        ylabel="share of right answers",
        xlim=(min(0.2, sure.min()), 1.02),
        ylim=(0, 1.02),
    )
    axis.legend(frameon=False)


def draw_risk(axis, metrics: dict) -> None:
    """Accuracy of the surest rows by their share, its lower bound, and the threshold that was asked for."""
    curve = metrics["risk_coverage"]
    coverage, risk = ([point[name] for point in curve] for name in ("coverage", "risk"))
    axis.plot(coverage, [1 - value for value in risk], color=INK)
    seen = np.round(np.array(coverage) * metrics["overall"]["rows"])
    bound = lower_bound(np.round((1 - np.array(risk)) * seen), seen, 0.95)
    chosen = metrics["selective"]
    if not chosen.get("left_out"):  # of rows that a member has met no bound says anything
        axis.plot(coverage, bound, color=INK, linestyle=":", linewidth=1)
    title = f"no threshold promises {chosen['wanted']:.0%}"
    if chosen["threshold"] is not None:
        title = f"{chosen['wanted']:.0%} right from p ≥ {chosen['threshold']:.2f} on, {chosen['coverage']:.0%} of rows"
        if chosen.get("left_out"):
            title += " not met before"
        else:
            axis.axvline(chosen["coverage"], color="grey", linewidth=0.8)
    axis.set(title=title, xlabel="share of rows answered, the surest first", ylabel="accuracy among them", xlim=(0, 1))
    axis.set_ylim(max(0.0, min(1 - max(risk), bound[len(bound) // 4 :].min()) - 0.05), 1.005)


def draw_letters(axis, letters: list[dict]) -> None:
    """How often each letter is right, and how often it is answered."""
    names = [chr(ord("a") + at) for at in range(len(letters))]
    place, total = np.arange(len(letters)), sum(letter["rows"] for letter in letters)
    axis.bar(place - 0.2, [letter["rows"] / total for letter in letters], 0.4, color=PALE, label="right")
    axis.bar(place + 0.2, [letter["predicted"] for letter in letters], 0.4, color=INK, label="answered")
    axis.set_xticks(place, names)
    axis.set(title="Letters: how often right, how often answered", ylabel="share of rows")
    axis.margins(y=0.25)
    axis.legend(frameon=False, ncols=2, loc="upper right")


def draw_groups(axis, metrics: dict) -> None:
    """Accuracy of all rows and of each task type."""
    groups = {"all": metrics["overall"], **metrics["by"].get("task_type", {})}
    names = list(groups)[::-1][:20]
    for at, name in enumerate(names):
        found = groups[name]["accuracy"]
        axis.plot([found["low"], found["high"]], [at, at], color=INK, linewidth=2)
        axis.plot(found["value"], at, "o", color=INK)
    axis.set_yticks(range(len(names)), [f"{name} ({groups[name]['rows']:,})" for name in names])
    axis.set(title="Accuracy by task type, 95 %", xlim=(0, 1.02))
    axis.grid(axis="x", alpha=0.3)
