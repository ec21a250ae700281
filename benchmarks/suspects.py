"""Are wrong labels found? Labels of real model outputs are changed at random, and looked for in every way of cleanlab.

    python -m benchmarks.suspects FOLDER --out FILE

FOLDER holds mmbench.parquet and oodcv.parquet: option logits of 20 vision-language models (id, member, answer, a
column for each letter; made from the public repository EnSec-AI/VLM-Uncertainty-Bench). Each model is calibrated on one
half of the questions; in the other half 5 % of the labels are changed to another of the four options. Letters e and f
("I don't know", "None of the above") are never right there and are left out; once more with them, as the data have
them. Then the other side: how many labels are flagged where one letter is rarely right, and how long a million rows
take.
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
import pandas as pd
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from scipy.special import log_softmax
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from tqdm import tqdm

import scoring
from scoring.files.writing import write_json
from scoring.scores.suspects import as_balanced_classes, find_suspects
from scoring.stats.calibration import fit_temperature
from scoring.stats.pools import pool

LETTERS, SIX = "abcd", "abcdef"
SETS = ("mmbench", "oodcv")
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
PRODUCT = "the product"  # low_self_confidence with letters made equal, see `as_balanced_classes`
IMPORT = "import time; start = time.monotonic(); import cleanlab.filter; print(time.monotonic() - start)"


def read_models(path: Path, letters: str = LETTERS) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names of M models, (M, N, K) logits of K letters, (N,) answers; every model has the same
    questions in the same order."""
    table = pd.read_parquet(path)
    names = list(dict.fromkeys(table["member"]))
    parts = [table[table["member"] == name] for name in names]
    if any(part["id"].tolist() != parts[0]["id"].tolist() for part in parts):
        raise click.ClickException(f"{path}: the models do not have the same questions in the same order")
    logits = np.stack([part[list(letters)].to_numpy(float) for part in parts])
    return names, logits, np.array([LETTERS.index(letter) for letter in parts[0]["answer"]])


def calibrated_systems(path: Path, letters: str = LETTERS) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Name -> (N, 4) probabilities of the evaluated half, (N,) answers. The model that is most accurate on the half
    that calibrates comes first; the pools are last."""
    names, logits, answers = read_models(path, letters)
    fitted, rest = train_test_split(np.arange(len(answers)), train_size=0.5, random_state=42)
    raw, y = log_softmax(logits, axis=2), answers[rest]
    temperatures = [fit_temperature(part[fitted], answers[fitted]).temperature for part in raw]
    log_p = np.stack([log_softmax(part[rest] / value, axis=1) for part, value in zip(raw, temperatures)])
    best = np.argsort(-(raw[:, fitted].argmax(2) == answers[fitted]).mean(1), kind="stable")
    systems = {names[model]: np.exp(log_p[model]) for model in best}
    systems[POOL] = np.exp(pool(log_p[best[:BEST]]))
    systems[f"pool of all {len(names)}"] = np.exp(pool(log_p))
    return systems, y


def change(
    y: np.ndarray, share: float, rng: np.random.Generator, letters: int = len(LETTERS)
) -> tuple[np.ndarray, np.ndarray]:
    """(N,) labels of which about that share is another option's, and (N,) which."""
    wrong = rng.random(len(y)) < share
    return np.where(wrong, (y + rng.integers(1, letters, len(y))) % letters, y), wrong


def of_six_letters(path: Path, share: float, draws: int) -> dict[str, float]:
    """AUROC of the product's label quality by system, where labels are changed to any of the six letters, e and f
    among them, and all six have probabilities."""
    systems, y = calibrated_systems(path, SIX)
    found = {}
    for system, p in systems.items():
        values = []
        for draw in range(draws):
            labels, wrong = change(y, share, np.random.default_rng(draw), len(SIX))
            values.append(roc_auc_score(wrong, -get_label_quality_scores(labels, p, method="self_confidence")))
        found[system] = mean_of(values)
    return found


def flags_by(way: str, p: np.ndarray, labels: np.ndarray) -> np.ndarray:
    if way == PRODUCT:
        return find_suspects(p, labels).flags
    return find_label_issues(labels, p, filter_by=way, n_jobs=1)


def measure(p: np.ndarray, y: np.ndarray, share: float, draws: int) -> dict:
    """AUROC of every label quality, flags of every filter, and the product's first rows, as means over the draws."""
    auroc = {name: [] for name in QUALITIES}
    flags = {way: [] for way in (PRODUCT, *FILTERS)}
    first = []
    for draw in range(draws):
        labels, wrong = change(y, share, np.random.default_rng(draw))
        for name, how in QUALITIES.items():
            auroc[name].append(roc_auc_score(wrong, -get_label_quality_scores(labels, p, **how)))
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
    return round(float(np.mean(values)), 4)


def rare_letter(p: np.ndarray, y: np.ndarray, share: float, draws: int) -> dict:
    """Flags where the last letter is right in 4 of about 400 rows: with cleanlab's threshold for each letter, and
    with letters made equal. `one_threshold` counts with a single threshold, by hand."""
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
    """`find_suspects` on that many rows of four options, and the import of cleanlab in a process of its own."""
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(len(LETTERS), 0.3), rows)
    y = (p.cumsum(1) > rng.random((rows, 1))).argmax(1)
    start = time.monotonic()
    find_suspects(p, y)
    took = time.monotonic() - start
    call = [sys.executable, "-c", IMPORT]
    imports = [float(subprocess.run(call, check=True, capture_output=True, text=True).stdout) for _ in range(5)]
    return {"rows": rows, "find_suspects": round(took, 2), "import_cleanlab": round(float(np.median(imports)), 2)}


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--share", default=0.05, show_default=True, help="Share of the labels that are changed.")
@click.option("--draws", default=20, show_default=True, help="Times that other labels are changed.")
@click.option("--rows", default=1_000_000, show_default=True, help="Rows of the timing.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file to write.")
def main(folder: Path, share: float, draws: int, rows: int, out: Path | None) -> None:
    """Every model and both pools of both sets; a line each."""
    warnings.filterwarnings("ignore", module="cleanlab")  # classes with few examples
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
            measured[system] = one = measure(p, y, share, draws)
            chosen = one["filters"][PRODUCT]
            click.echo(
                f"{name:8} {system:31} accuracy {one['accuracy']:.3f}  AUROC {one['auroc']['self_confidence']:.3f}  "
                f"first 20: {one['wrong_among_the_first_20']:.0%} wrong  flagged {chosen['flagged']:.0f} of "
                f"{len(y):,}: precision {chosen['precision']:.2f}, recall {chosen['recall']:.2f}"
            )
        models, best = list(systems)[:-2], list(systems)[:BEST]
        filters = {system: one.pop("filters") for system, one in measured.items()}
        report["sets"][name] = {
            "rows": len(y),
            "auroc_mean_of_models": {
                quality: mean_of([measured[model]["auroc"][quality] for model in models]) for quality in QUALITIES
            },
            "auroc_of_the_best": {model: measured[model]["auroc"]["self_confidence"] for model in best},
            "filters_mean_of_the_best": {
                way: {part: mean_of([filters[model][way][part] for model in best]) for part in filters[best[0]][way]}
                for way in (PRODUCT, *FILTERS)
            },
            "rare_letter": {system: rare_letter(systems[system], y, share, draws) for system in (best[0], POOL)},
            "systems": {system: one | {PRODUCT: filters[system][PRODUCT]} for system, one in measured.items()},
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
