"""Do the statistics keep their promises, and how long do they take?

    python -m benchmarks.statistics --out FILE

Simulations of 1,000 repeats: temperatures come back, intervals and sets cover as often as they say, the letter bias and
the thresholds are right as often as promised. Then `evaluate` and `calibrate` on files of 10,000 and 1,000,000 rows, as
a user calls them, in processes of their own.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np
from scipy.special import softmax
from tqdm import tqdm

import scoring
from scoring.files.writing import write_json
from scoring.inputs.questions import Question
from scoring.scores.folder import write_results
from scoring.scores.logits import OptionLogits, write_part
from scoring.stats.calibration import Calibration, LabelledRows, calibrate, fit_temperature, nll
from scoring.stats.comparison import compare
from scoring.stats.metrics import ece, measure
from scoring.stats.selective import option_sets, set_quantile, threshold_for

ROOT = Path(__file__).resolve().parent.parent


def drawn(z: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(N,) answers from softmax(z)."""
    return (softmax(z, axis=1).cumsum(1) > rng.random((len(z), 1))).argmax(1)


def temperatures(repeats: int) -> dict:
    """Fitted on 1,000 rows, used on 5,000 others."""
    rng, off, excess, errors = np.random.default_rng(1), [], [], []
    for _ in tqdm(range(repeats), "temperatures"):
        true = np.exp(rng.uniform(np.log(0.5), np.log(4)))
        logits = rng.normal(0, 3, (6000, 4))
        y = drawn(logits / true, rng)
        found = fit_temperature(logits[:1000], y[:1000])
        off.append(abs(np.log(found.temperature / true)) / found.standard_error)
        far, truth = logits[1000:], y[1000:]
        excess.append(nll(far, truth, found.temperature) - nll(far, truth, true))
        p = softmax(far / found.temperature, axis=1)
        errors.append(ece(p.max(1), (p.argmax(1) == truth).astype(float)))
    return {
        "within_4_standard_errors": np.mean(np.array(off) <= 4),
        "within_1.96": np.mean(np.array(off) <= 1.96),
        "nll_excess_mean": np.mean(excess),
        "nll_excess_share_under_.005": np.mean(np.array(excess) <= 0.005),
        "ece15_mean": np.mean(errors),
        "ece15_share_under_.03": np.mean(np.array(errors) <= 0.03),
    }


def intervals(repeats: int, rows: int = 400) -> dict:
    """How often 95 % intervals hold the truth, which is that of 400,000 rows of the same model."""
    rng = np.random.default_rng(2)

    def sample(n):
        z = rng.normal(0, 2, (n, 4))
        return softmax(1.3 * z, axis=1), drawn(z, rng)

    p, y = sample(400_000)
    truth = {name: value["value"] for name, value in measure(p, y).items() if isinstance(value, dict)}
    held: dict[str, list] = {name: [] for name in ("accuracy", "nll", "brier", "auroc", "aurc")}
    differ = []
    for _ in tqdm(range(repeats), "intervals"):
        p, y = sample(rows)
        found = measure(p, y)
        for name, values in held.items():
            values.append(found[name]["low"] <= truth[name] <= found[name]["high"])
        noisy = p * np.exp(rng.normal(0, 0.3, p.shape))
        other = compare(p, noisy / noisy.sum(1, keepdims=True), y)["nll"]["difference"]
        differ.append((other["value"], other["low"], other["high"]))
    differences = np.array(differ)
    middle = differences[:, 0].mean()
    return {
        **{name: np.mean(values) for name, values in held.items()},
        "nll_difference": np.mean((differences[:, 1] <= middle) & (middle <= differences[:, 2])),
        "rows": rows,
    }


def sets(repeats: int, level: float = 0.9) -> dict:
    """Conformal sets of a temperature fitted on the very rows that give the quantile, as `score --sets` does."""
    rng, covered, sizes = np.random.default_rng(3), [], []
    for _ in tqdm(range(repeats), "sets"):
        z = rng.normal(0, 2, (600, 4))
        y = drawn(z, rng)
        found = calibrate(LabelledRows(2.5 * z[:200], y[:200]), temperature_only=True)
        p = np.exp(found.apply(2.5 * z[200:]))
        held = option_sets(p, set_quantile(np.array(found.nonconformity), level))
        covered.append(held[np.arange(400), y[200:]].mean())
        sizes.append(held.sum(1).mean())
    return {"asked": level, "covered": np.mean(covered), "mean_size": np.mean(sizes), "rows": 200}


def choices(repeats: int) -> dict:
    """How often more than a temperature is taken in vain, and how often thresholds break their word."""
    rng, letters, groups, broken, given = np.random.default_rng(4), 0, 0, 0, 0
    types = ["x"] * 200 + ["y"] * 200
    z = rng.normal(0, 4, (400_000, 4))
    p, y = softmax(z, axis=1), drawn(z, rng)
    sure, right = p.max(1), p.argmax(1) == y
    for _ in tqdm(range(repeats), "choices"):
        z = rng.normal(0, 2, (400, 4))
        found = calibrate(LabelledRows(1.5 * z, drawn(z, rng), types))
        letters, groups = letters + bool(found.letters), groups + bool(found.groups)
        rows = rng.integers(0, len(sure), 400)
        chosen = threshold_for(sure[rows], right[rows].astype(float), 0.9)["threshold"]
        if chosen is not None:
            given, broken = given + 1, broken + (right[sure >= chosen].mean() < 0.9)
    return {
        "letter_bias_taken_in_vain": letters / repeats,
        "task_types_taken_in_vain": groups / repeats,
        "thresholds_given": given / repeats,
        "thresholds_that_broke_their_word": broken / repeats,
    }


def scores_folder(folder: Path, z: np.ndarray, y: np.ndarray, entry: dict) -> Path:
    """A SCORES folder of one member, two rows a picture. z: (N, 4) its logits. entry: what run.json tells of it."""
    rows, ids = len(z), [f"row{at}" for at in range(len(z))]
    types = ("object", "count", "color", "location", "category")
    questions = [
        Question(id, at + 1, Path(f"{at // 2}.jpg"), "?", ("w", "x", "y", "z"), "abcd"[y[at]], types[at % 5])
        for at, id in enumerate(ids)
    ]
    shape = (rows, 1, 1)
    mass, top = np.ones(shape, np.float32), np.full(shape, 1)
    logits = OptionLogits(ids, [entry["member"]], z[:, None, None].astype(np.float32), mass, top, ["ok"] * rows)
    (folder / "logits").mkdir(parents=True)
    write_part(folder / "logits", 0, logits)
    write_results(folder, questions, logits, [Calibration(entry["temperature"])])
    write_json(folder / "run.json", {"checkpoints": [entry], "identity": {"letters": "abcd", "orders": "1"}})
    return folder


def seconds(rows: int, folder: Path) -> dict:
    """Whole commands on a SCORES folder of that many rows, from the start of the process to its end."""
    rng = np.random.default_rng(rows)
    z = rng.normal(0, 2, (rows, 4)).astype(np.float32)
    y = drawn(z, rng)
    checkpoint = ROOT / "demo" / "checkpoints" / "fold0"
    from scoring.checkpoints.checkpoint import read_checkpoint

    entry = {"member": "m", "fingerprint": read_checkpoint(str(checkpoint)).fingerprint(), "temperature": 1.0}
    scores = scores_folder(folder / f"rows{rows}", 1.6 * z, y, entry)
    told = {"rows": rows}
    for name, call in {
        "evaluate": ["evaluate", scores],
        "evaluate, two folders": ["evaluate", scores, scores],
        "calibrate": ["calibrate", scores, "--ckpt", checkpoint, "--out", scores / "calibration.json"],
    }.items():
        start = time.monotonic()
        subprocess.run([sys.executable, str(ROOT / "cli.py"), *map(str, call)], check=True, capture_output=True)
        told[name] = round(time.monotonic() - start, 2)
        click.echo(f"{rows:,} rows, {name}: {told[name]} s", err=True)
    return told


@click.command()
@click.option("--repeats", default=1_000, show_default=True)
@click.option("--rows", default="10000,1000000", show_default=True, help="Sizes of the folders that are timed.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file to write.")
def main(repeats: int, rows: str, out: Path | None) -> None:
    """Run every simulation, time every command, print what was found."""
    report = {"repeats": repeats, "versions": scoring.versions()}
    report["seconds"] = []
    with TemporaryDirectory() as folder:
        for size in filter(None, rows.split(",")):
            report["seconds"].append(seconds(int(size), Path(folder)))
    for part in (temperatures, intervals, sets, choices):
        report[part.__name__] = {name: round(float(value), 5) for name, value in part(repeats).items()}
        click.echo(f"{part.__name__}: {json.dumps(report[part.__name__])}")
    if out:
        write_json(out, report)


if __name__ == "__main__":
    main()
