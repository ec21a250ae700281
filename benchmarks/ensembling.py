"""Which way to pool members is right, and how long does `ensemble` take on files?

    python -m benchmarks.ensembling --out FILE

First, members are simulated that are overconfident and err independently. They are pooled in the five ways that people
use; temperatures are fitted on one half of the rows, and NLL is taken on the other. Then `ensemble` runs on files of 20
members, as a user calls it, in a process of its own: the seconds from start to end, and the peak memory.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np
from scipy.special import log_softmax, softmax
from tqdm import tqdm

import scoring
from benchmarks import cli_command
from benchmarks.synthetic import draw_answers, make_questions, write_scores
from scoring.files.writing import write_json
from scoring.stats.calibration import fit_temperature, nll
from scoring.stats.pools import pool

SPREAD = 2.5  # standard deviation of the true logits
NOISE = 0.3  # of a member's errors, as a share of SPREAD
SHARPNESS = 12.0  # standard deviation of the members' logits: nearly five times too large
# Runs a command and prints the most memory that it had, in KiB.
PEAK_MEMORY_OF = """\
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=2)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def members(count: int, rows: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(M, N, 4) log-probabilities of overconfident members, each with its own errors, and (N,) answers."""
    z = rng.normal(0, SPREAD, (rows, 4))
    noisy = z + rng.normal(0, NOISE * SPREAD, (count, rows, 4))
    return log_softmax(SHARPNESS * noisy / SPREAD, axis=2), draw_answers(softmax(z, axis=1), rng)


def five_ways(log_p: np.ndarray, y: np.ndarray) -> dict[str, dict[str, float]]:
    """NLL on the second half of the rows, as pooled and with a temperature of the pool. All fits use the first half.

    The product gives a pool its own temperature where `--fit` names labelled rows.
    """
    half = len(y) // 2
    fit, rest = slice(0, half), slice(half, None)

    def both(pooled: np.ndarray) -> dict[str, float]:
        temperature = fit_temperature(pooled[fit], y[fit]).temperature
        return {"as pooled": nll(pooled[rest], y[rest]), "with a temperature": nll(pooled[rest], y[rest], temperature)}

    calibrated = np.stack(
        [log_softmax(member / fit_temperature(member[fit], y[fit]).temperature, axis=1) for member in log_p]
    )
    best = int(np.argmin([nll(member[fit], y[fit]) for member in calibrated]))
    return {
        "temperature each, log (default)": both(pool(calibrated)),
        "temperature each, linear": both(pool(calibrated, "linear")),
        "raw log": both(pool(log_p)),
        "raw linear": both(pool(log_p, "linear")),
        "best member": {
            "as pooled": nll(log_p[best][rest], y[rest]),
            "with a temperature": nll(calibrated[best][rest], y[rest]),
        },
    }


def simulated(repeats: int, count: int = 5, rows: int = 4_000) -> dict:
    """Mean NLL over the repeats, and the share of repeats in which the default is the lowest of its kind."""
    rng = np.random.default_rng(1)
    runs = [five_ways(*members(count, rows, rng)) for _ in tqdm(range(repeats), "pools")]
    result: dict = {"members": count, "rows": rows, "repeats": repeats, "nll": {}, "default_is_lowest": {}}
    for kind in ("as pooled", "with a temperature"):
        table = {way: np.array([run[way][kind] for run in runs]) for way in runs[0]}
        result["nll"][kind] = {way: round(float(values.mean()), 4) for way, values in table.items()}
        default, *others = table.values()
        result["default_is_lowest"][kind] = float((default <= np.min(others, 0)).mean())
    return result


def from_files(count: int, rows: int, folder: Path) -> list[dict]:
    """Times `ensemble` on CSV files, and on SCORES folders with answers (which adds metrics and leave-one-out)."""
    log_p, y = members(count, rows, np.random.default_rng(2))
    ids = [f"row{row}" for row in range(rows)]
    tables, folders = [], []
    for number, member in enumerate(log_p):
        tables.append(folder / f"member{number}.csv")
        cells = np.char.mod("%.6f", np.exp(member))
        lines = (",".join(line) for line in np.column_stack([ids, cells]).tolist())
        tables[-1].write_text("id,p_a,p_b,p_c,p_d\n" + "\n".join(lines) + "\n")
        entry = {"member": f"member{number}", "fingerprint": f"{number:016x}", "temperature": SHARPNESS}
        folders.append(write_scores(folder / f"scores{number}", make_questions(y), member[:, None], [entry]))
    timings = []
    for kind, paths in (("csv", tables), ("scores", folders)):
        command = cli_command("ensemble", *paths, "--out", folder / f"out-{kind}")
        start = time.monotonic()
        watched = [sys.executable, "-c", PEAK_MEMORY_OF, *command]
        done = subprocess.run(watched, check=True, capture_output=True, text=True)
        seconds, gib = time.monotonic() - start, int(done.stdout) / 2**20
        timings.append(
            {"files": kind, "members": count, "rows": rows, "seconds": round(seconds, 1), "gib": round(gib, 2)}
        )
        click.echo(json.dumps(timings[-1]), err=True)
    return timings


@click.command()
@click.option("--repeats", default=200, show_default=True, help="Simulations of the five ways.")
@click.option("--members", "count", default=20, show_default=True, help="Members in the files that are timed.")
@click.option("--rows", default=100_000, show_default=True, help="Rows in the files that are timed.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file to write.")
def main(repeats: int, count: int, rows: int, out: Path | None) -> None:
    """Compare the five ways to pool, then time `ensemble` on files."""
    report = {"versions": scoring.versions(), "simulated": simulated(repeats)}
    click.echo(json.dumps(report["simulated"], indent=1))
    with TemporaryDirectory() as folder:
        report["files"] = from_files(count, rows, Path(folder))
    if out:
        write_json(out, report)


if __name__ == "__main__":
    main()
