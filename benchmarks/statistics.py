"""Do the statistics keep their promises, and how long do they take?

    python -m benchmarks.statistics --out FILE

Simulations, 1,000 repeats each: whether fits find the true temperature, whether intervals and sets cover as often as
they say, how often a letter bias is fitted where there is none, and whether thresholds reach their accuracy. Then
`evaluate` and `calibrate` run on files of 10,000 and 1,000,000 rows, as a user calls them, in processes of their own.
"""

import json
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np
from scipy.special import softmax
from tqdm import tqdm

import scoring
from benchmarks import DEMO, cli_command
from benchmarks.synthetic import draw_answers, make_questions, write_scores
from scoring.checkpoints.checkpoint import read_checkpoint
from scoring.files.writing import write_json
from scoring.stats.calibration import LabelledRows, calibrate, fit_temperature, nll
from scoring.stats.comparison import compare
from scoring.stats.metrics import ece, measure
from scoring.stats.selective import option_sets, set_quantile, threshold_for


def temperatures(repeats: int) -> dict:
    """Temperatures fitted on 1,000 rows and used on 5,000 others."""
    rng, off, excess, errors = np.random.default_rng(1), [], [], []
    for _ in tqdm(range(repeats), "temperatures"):
        true = np.exp(rng.uniform(np.log(0.5), np.log(4)))
        logits = rng.normal(0, 3, (6000, 4))
        y = draw_answers(softmax(logits / true, axis=1), rng)
        fit = fit_temperature(logits[:1000], y[:1000])
        off.append(abs(np.log(fit.temperature / true)) / fit.standard_error)
        others, answers = logits[1000:], y[1000:]
        excess.append(nll(others, answers, fit.temperature) - nll(others, answers, true))
        p = softmax(others / fit.temperature, axis=1)
        errors.append(ece(p.max(1), (p.argmax(1) == answers).astype(float)))
    return {
        "within_4_standard_errors": np.mean(np.array(off) <= 4),
        "within_1.96": np.mean(np.array(off) <= 1.96),
        "nll_excess_mean": np.mean(excess),
        "nll_excess_share_under_.005": np.mean(np.array(excess) <= 0.005),
        "ece15_mean": np.mean(errors),
        "ece15_share_under_.03": np.mean(np.array(errors) <= 0.03),
    }


def intervals(repeats: int, rows: int = 400) -> dict:
    """How often 95 % intervals hold the truth, which is the value on 400,000 rows of the same model."""
    rng = np.random.default_rng(2)

    def sample(count: int) -> tuple[np.ndarray, np.ndarray]:
        z = rng.normal(0, 2, (count, 4))
        return softmax(1.3 * z, axis=1), draw_answers(softmax(z, axis=1), rng)

    p, y = sample(400_000)
    truth = {name: value["value"] for name, value in measure(p, y).items() if isinstance(value, dict)}
    covered: dict[str, list] = {name: [] for name in ("accuracy", "nll", "brier", "auroc", "aurc")}
    differences = []
    for _ in tqdm(range(repeats), "intervals"):
        p, y = sample(rows)
        metrics = measure(p, y)
        for name, values in covered.items():
            values.append(metrics[name]["low"] <= truth[name] <= metrics[name]["high"])
        noisy = p * np.exp(rng.normal(0, 0.3, p.shape))
        difference = compare(p, noisy / noisy.sum(1, keepdims=True), y)["nll"]["difference"]
        differences.append((difference["value"], difference["low"], difference["high"]))
    value, low, high = np.array(differences).T
    middle = value.mean()
    return {
        **{name: np.mean(values) for name, values in covered.items()},
        "nll_difference": np.mean((low <= middle) & (middle <= high)),
        "rows": rows,
    }


def sets(repeats: int, level: float = 0.9) -> dict:
    """Conformal sets, with a temperature fitted on the very rows that give the quantile, as `score --sets` does."""
    rng, covered, sizes = np.random.default_rng(3), [], []
    for _ in tqdm(range(repeats), "sets"):
        z = rng.normal(0, 2, (600, 4))
        y = draw_answers(softmax(z, axis=1), rng)
        calibration = calibrate(LabelledRows(2.5 * z[:200], y[:200]), temperature_only=True)
        p = np.exp(calibration.apply(2.5 * z[200:]))
        held = option_sets(p, set_quantile(np.array(calibration.nonconformity), level))
        covered.append(held[np.arange(400), y[200:]].mean())
        sizes.append(held.sum(1).mean())
    return {"asked": level, "covered": np.mean(covered), "mean_size": np.mean(sizes), "rows": 200}


def choices(repeats: int) -> dict:
    """How often more than a temperature is fitted where nothing more is true, and how often thresholds are too low."""
    rng, letters, groups, broken, given = np.random.default_rng(4), 0, 0, 0, 0
    types = ["x"] * 200 + ["y"] * 200
    z = rng.normal(0, 4, (400_000, 4))
    p = softmax(z, axis=1)
    y = draw_answers(p, rng)
    confidence, right = p.max(1), p.argmax(1) == y
    for _ in tqdm(range(repeats), "choices"):
        z = rng.normal(0, 2, (400, 4))
        calibration = calibrate(LabelledRows(1.5 * z, draw_answers(softmax(z, axis=1), rng), types))
        letters, groups = letters + bool(calibration.letters), groups + bool(calibration.groups)
        rows = rng.integers(0, len(confidence), 400)
        threshold = threshold_for(confidence[rows], right[rows].astype(float), 0.9)["threshold"]
        if threshold is not None:
            given, broken = given + 1, broken + (right[confidence >= threshold].mean() < 0.9)
    return {
        "letter_bias_taken_in_vain": letters / repeats,
        "task_types_taken_in_vain": groups / repeats,
        "thresholds_given": given / repeats,
        "thresholds_that_broke_their_word": broken / repeats,
    }


def seconds(rows: int, folder: Path) -> dict:
    """Seconds of whole commands on a SCORES folder of that many rows, from the start of the process to its end."""
    rng = np.random.default_rng(rows)
    z = rng.normal(0, 2, (rows, 4)).astype(np.float32)
    questions = make_questions(draw_answers(softmax(z, axis=1), rng))
    checkpoint = DEMO / "checkpoints" / "fold0"
    entry = {"member": "m", "fingerprint": read_checkpoint(str(checkpoint)).fingerprint(), "temperature": 1.0}
    scores = write_scores(folder / f"rows{rows}", questions, 1.6 * z[:, None], [entry])
    timings = {"rows": rows}
    for name, arguments in {
        "evaluate": ["evaluate", scores],
        "evaluate, two folders": ["evaluate", scores, scores],
        "calibrate": ["calibrate", scores, "--ckpt", checkpoint, "--out", scores / "calibration.json"],
    }.items():
        start = time.monotonic()
        subprocess.run(cli_command(*arguments), check=True, capture_output=True)
        timings[name] = round(time.monotonic() - start, 2)
        click.echo(f"{rows:,} rows, {name}: {timings[name]} s", err=True)
    return timings


@click.command()
@click.option("--repeats", default=1_000, show_default=True, help="Repeats of each simulation.")
@click.option("--rows", default="10000,1000000", show_default=True, help="Sizes of the folders that are timed.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file to write.")
def main(repeats: int, rows: str, out: Path | None) -> None:
    """Time every command, run every simulation, and print the results."""
    report = {"repeats": repeats, "versions": scoring.versions()}
    report["seconds"] = []
    with TemporaryDirectory() as folder:
        for size in filter(None, rows.split(",")):
            report["seconds"].append(seconds(int(size), Path(folder)))
    for simulation in (temperatures, intervals, sets, choices):
        name = simulation.__name__
        report[name] = {key: round(float(value), 5) for key, value in simulation(repeats).items()}
        click.echo(f"{name}: {json.dumps(report[name])}")
    if out:
        write_json(out, report)


if __name__ == "__main__":
    main()
