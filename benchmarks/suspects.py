"""Are wrong labels recognised? Labels of real questions are changed at random; every method of cleanlab looks for them.

    python -m benchmarks.suspects FOLDER --out FILE

FOLDER holds mmbench.parquet and oodcv.parquet: option logits of 20 vision-language models (id, member, answer, a
column for each letter; see `benchmarks/real_logits.py`). Each model is calibrated on one half of the questions; in the
other half 5 % of the labels are changed to another of the four options. Letters e and f ("I don't know", "None of the
above") are never right in the data and are left out. A second measurement keeps them, as the data have them.

Two more measurements: how many labels are flagged where one letter is rarely right, and how long a million rows take.
"""

import json
import subprocess
import sys
import time
import warnings
from importlib import metadata
from pathlib import Path

import click
import numpy as np
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from scipy.special import log_softmax
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from tqdm import tqdm

import scoring
from benchmarks.real_logits import read_benchmark
from benchmarks.synthetic import draw_answers
from scoring.files.writing import write_json
from scoring.scores.suspects import as_balanced_classes, find_suspects
from scoring.stats.calibration import fit_temperature
from scoring.stats.pools import pool

LETTERS, SIX = "abcd", "abcdef"
SETS = ("mmbench", "oodcv")  # names of the files
BEST = 5  # models in the small pool
POOL = f"pool of the best {BEST}"
QUALITIES = {
    "self_confidence": {"method": "self_confidence"},
    "self_confidence, adjusted": {"method": "self_confidence", "adjust_pred_probs": True},
    "normalized_margin": {"method": "normalized_margin"},
    "normalized_margin, adjusted": {"method": "normalized_margin", "adjust_pred_probs": True},
    "confidence_weighted_entropy": {"method": "confidence_weighted_entropy"},
}
FILTERS = (
    "prune_by_noise_rate",
    "prune_by_class",
    "both",
    "confident_learning",
    "predicted_neq_given",
    "low_normalized_margin",
    "low_self_confidence",
)
PRODUCT = "the product"  # low_self_confidence with about the same threshold for all letters: `as_balanced_classes`
IMPORT = "import time; start = time.monotonic(); import cleanlab.filter; print(time.monotonic() - start)"


def calibrated_systems(path: Path, letters: str = LETTERS) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Name -> (N, K) probabilities of the evaluated half, (N,) answers; K letters.

    The model that is most accurate on the half that calibrates comes first; the pools are last.
    """
    benchmark = read_benchmark(path)
    names, answers = benchmark.members, benchmark.answers
    fitted, rest = train_test_split(np.arange(len(answers)), train_size=0.5, random_state=42)
    raw, y = log_softmax(benchmark.logits[:, :, : len(letters)], axis=2), answers[rest]
    temperatures = [fit_temperature(model[fitted], answers[fitted]).temperature for model in raw]
    log_p = np.stack([log_softmax(model[rest] / value, axis=1) for model, value in zip(raw, temperatures)])
    best = np.argsort(-(raw[:, fitted].argmax(2) == answers[fitted]).mean(1), kind="stable")
    systems = {names[model]: np.exp(log_p[model]) for model in best}
    systems[POOL] = np.exp(pool(log_p[best[:BEST]]))
    systems[f"pool of all {len(names)}"] = np.exp(pool(log_p))
    return systems, y


def change(
    y: np.ndarray, share: float, rng: np.random.Generator, letters: int = len(LETTERS)
) -> tuple[np.ndarray, np.ndarray]:
    """(N,) labels, about that share of them changed to another option, and (N,) whether each was changed."""
    wrong = rng.random(len(y)) < share
    return np.where(wrong, (y + rng.integers(1, letters, len(y))) % letters, y), wrong


def of_six_letters(path: Path, share: float, draws: int) -> dict[str, float]:
    """AUROC of the product's label quality by system, with probabilities of all six letters.

    Labels are changed to any of the six, e and f among them.
    """
    systems, y = calibrated_systems(path, SIX)
    auroc = {}
    for system, p in systems.items():
        values = []
        for draw in range(draws):
            labels, wrong = change(y, share, np.random.default_rng(draw), len(SIX))
            values.append(roc_auc_score(wrong, -get_label_quality_scores(labels, p, method="self_confidence")))
        auroc[system] = mean_of(values)
    return auroc


def flags_by(way: str, p: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N,) whether each label is flagged, by the product or one of cleanlab's filters."""
    if way == PRODUCT:
        return find_suspects(p, labels).flags
    return find_label_issues(labels, p, filter_by=way, n_jobs=1)


def measure(p: np.ndarray, y: np.ndarray, share: float, draws: int) -> dict:
    """AUROC of every label quality, flags of every filter, the product's first rows: means over the draws."""
    auroc = {name: [] for name in QUALITIES}
    flags = {way: [] for way in (PRODUCT, *FILTERS)}
    first = []
    for draw in range(draws):
        labels, wrong = change(y, share, np.random.default_rng(draw))
        for name, options in QUALITIES.items():
            auroc[name].append(roc_auc_score(wrong, -get_label_quality_scores(labels, p, **options)))
        for way in flags:
            flagged = flags_by(way, p, labels)
            flags[way].append((flagged.sum(), wrong[flagged].mean(), flagged[wrong].mean()))
        first.append(wrong[find_suspects(p, labels).order[:20]].mean())
    return {
        "accuracy": round(float((p.argmax(1) == y).mean()), 4),
        "auroc": {name: round(float(np.mean(values)), 4) for name, values in auroc.items()},
        "auroc_deviation_over_draws": round(float(np.std(auroc["self_confidence"])), 4),
        "wrong_among_the_first_20": round(float(np.mean(first)), 3),
        "flagged_without_a_change": int(find_suspects(p, y).flags.sum()),
        "filters": {
            way: dict(zip(("flagged", "precision", "recall"), np.mean(values, 0).round(3).tolist()))
            for way, values in flags.items()
        },
    }


def mean_of(values: list[float]) -> float:
    """The mean to four decimals."""
    return round(float(np.mean(values)), 4)


def rare_letter(p: np.ndarray, y: np.ndarray, share: float, draws: int) -> dict:
    """Numbers of flags where the last letter is right in 4 of about 400 rows.

    They come from cleanlab with its threshold for each letter, from cleanlab with options ordered as in the product,
    and from a single threshold for all letters, which this function computes.
    """
    last = y == len(LETTERS) - 1
    rows = np.concatenate([np.flatnonzero(~last)[:400], np.flatnonzero(last)[:4]])
    counts = {"wrong": [], "a_threshold_per_letter": [], "letters_made_equal": [], "one_threshold": []}
    for draw in range(draws):
        labels, wrong = change(y[rows], share, np.random.default_rng(draw))
        labelled = p[rows, labels]
        others = p[rows].copy()
        others[np.arange(len(rows)), labels] = 0
        threshold = labelled.mean()
        counts["wrong"].append(wrong.sum())
        counts["a_threshold_per_letter"].append(flags_by("low_self_confidence", p[rows], labels).sum())
        balanced, classes = as_balanced_classes(p[rows], labels)
        counts["letters_made_equal"].append(flags_by("low_self_confidence", balanced, classes).sum())
        counts["one_threshold"].append(((others.max(1) >= threshold) & (others.max(1) > labelled)).sum())
    return {"rows": len(rows)} | {name: round(float(np.mean(values)), 1) for name, values in counts.items()}


def seconds(rows: int) -> dict:
    """Seconds of `find_suspects` on so many rows of four options, and of importing cleanlab in a new process."""
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(len(LETTERS), 0.3), rows)
    y = draw_answers(p, rng)
    start = time.monotonic()
    find_suspects(p, y)
    seconds_to_find = time.monotonic() - start
    command = [sys.executable, "-c", IMPORT]
    imports = [float(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(5)]
    return {
        "rows": rows,
        "find_suspects": round(seconds_to_find, 2),
        "import_cleanlab": round(float(np.median(imports)), 2),
    }


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--share", default=0.05, show_default=True, help="Share of the labels that are changed.")
@click.option("--draws", default=20, show_default=True, help="How often labels are changed anew.")
@click.option("--rows", default=1_000_000, show_default=True, help="Rows that are timed.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file to write.")
def main(folder: Path, share: float, draws: int, rows: int, out: Path | None) -> None:
    """Measure every model and both pools on both files, and print a line for each."""
    warnings.filterwarnings("ignore", module="cleanlab")  # it warns of classes with few examples
    report = {
        "versions": scoring.versions() | {"cleanlab": metadata.version("cleanlab")},
        "share_changed": share,
        "draws": draws,
        "seconds": seconds(rows),
        "sets": {},
    }
    for name in SETS:
        systems, y = calibrated_systems(folder / f"{name}.parquet")
        measured = {}
        for system, p in tqdm(systems.items(), name):
            measured[system] = figures = measure(p, y, share, draws)
            flagged = figures["filters"][PRODUCT]
            click.echo(
                f"{name:8} {system:31} accuracy {figures['accuracy']:.3f}  "
                f"AUROC {figures['auroc']['self_confidence']:.3f}  "
                f"first 20: {figures['wrong_among_the_first_20']:.0%} wrong  flagged {flagged['flagged']:.0f} of "
                f"{len(y):,}: precision {flagged['precision']:.2f}, recall {flagged['recall']:.2f}"
            )
        models, best = list(systems)[:-2], list(systems)[:BEST]
        filters = {system: figures.pop("filters") for system, figures in measured.items()}
        report["sets"][name] = {
            "rows": len(y),
            "auroc_mean_of_models": {
                quality: mean_of([measured[model]["auroc"][quality] for model in models]) for quality in QUALITIES
            },
            "auroc_of_the_best": {model: measured[model]["auroc"]["self_confidence"] for model in best},
            "filters_mean_of_the_best": {
                way: {key: mean_of([filters[model][way][key] for model in best]) for key in filters[best[0]][way]}
                for way in (PRODUCT, *FILTERS)
            },
            "rare_letter": {system: rare_letter(systems[system], y, share, draws) for system in (best[0], POOL)},
            "systems": {system: figures | {PRODUCT: filters[system][PRODUCT]} for system, figures in measured.items()},
        }
        report["sets"][name]["auroc_of_six_letters"] = of_six_letters(folder / f"{name}.parquet", share, draws)
        summary = {
            key: report["sets"][name][key]
            for key in ("auroc_mean_of_models", "filters_mean_of_the_best", "rare_letter")
        }
        click.echo(f"{name}: {json.dumps(summary, indent=1)}")
    if out:
        write_json(out, report)


if __name__ == "__main__":
    main()
