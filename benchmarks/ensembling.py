"""Which pool is right, and how long do files take?

    python -m benchmarks.ensembling --out FILE

Simulated members that are too sure of themselves and err apart, pooled in the five ways that people use, temperatures
fitted on one half of the rows and NLL taken on the other. Then `ensemble` on files of 20 members, as a user calls it,
in a process of its own: seconds from its start to its end, and its memory at the highest.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np
from scipy.special import log_softmax
from tqdm import tqdm

import scoring
from benchmarks.statistics import ROOT, drawn, scores_folder
from scoring.files.writing import write_json
from scoring.stats.calibration import fit_temperature, nll
from scoring.stats.pools import pool

SHARP, NOISE, SPREAD = 12.0, 0.3, 2.5  # of members: how much too sure, how far apart; of the truth's logits
WATCHED = "import resource,subprocess,sys\nsubprocess.run(sys.argv[1:],check=True,stdout=2)\n"
WATCHED += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"


def members(count: int, rows: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(M, N, 4) log-probabilities of over-confident members, each with errors of its own, and (N,) answers."""
    z = rng.normal(0, SPREAD, (rows, 4))
    noisy = z + rng.normal(0, NOISE * SPREAD, (count, rows, 4))
    return log_softmax(SHARP * noisy / SPREAD, axis=2), drawn(z, rng)


def five_ways(log_p: np.ndarray, y: np.ndarray) -> dict[str, dict[str, float]]:
    """NLL on the second half of the rows, as pooled and with a temperature of the pool; what is fitted is fitted on the
    first. As shipped, a pool has a temperature of its own where `--fit` names labelled rows."""
    half = len(y) // 2
    fit, far = slice(0, half), slice(half, None)

    def both(pooled: np.ndarray) -> dict[str, float]:
        temperature = fit_temperature(pooled[fit], y[fit]).temperature
        return {"as pooled": nll(pooled[far], y[far]), "with a temperature": nll(pooled[far], y[far], temperature)}

    own = np.stack([log_softmax(part / fit_temperature(part[fit], y[fit]).temperature, axis=1) for part in log_p])
    best = int(np.argmin([nll(part[fit], y[fit]) for part in own]))
    return {
        "temperature each, log (default)": both(pool(own)),
        "temperature each, linear": both(pool(own, "linear")),
        "raw log": both(pool(log_p)),
        "raw linear": both(pool(log_p, "linear")),
        "best member": {"as pooled": nll(log_p[best][far], y[far]), "with a temperature": nll(own[best][far], y[far])},
    }


def simulated(repeats: int, count: int = 5, rows: int = 4_000) -> dict:
    """Means over the repeats, and in how many of them the default is the lowest of its kind."""
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
    """`ensemble` on CSV files of others, and on SCORES folders with answers (so with metrics and leave-one-out)."""
    log_p, y = members(count, rows, np.random.default_rng(2))
    ids = [f"row{at}" for at in range(rows)]
    tables, folders = [], []
    for at, part in enumerate(log_p):
        tables.append(folder / f"member{at}.csv")
        cells = np.char.mod("%.6f", np.exp(part))
        lines = (",".join(line) for line in np.column_stack([ids, cells]).tolist())
        tables[-1].write_text("id,p_a,p_b,p_c,p_d\n" + "\n".join(lines) + "\n")
        entry = {"member": f"member{at}", "fingerprint": f"{at:016x}", "temperature": SHARP}
        folders.append(scores_folder(folder / f"scores{at}", part, y, entry))
    found = []
    for kind, paths in (("csv", tables), ("scores", folders)):
        call = [
            sys.executable,
            str(ROOT / "cli.py"),
            "ensemble",
            *map(str, paths),
            "--out",
            str(folder / f"out-{kind}"),
        ]
        start = time.monotonic()
        done = subprocess.run([sys.executable, "-c", WATCHED, *call], check=True, capture_output=True, text=True)
        took, peak = time.monotonic() - start, int(done.stdout) / 2**20
        found.append({"files": kind, "members": count, "rows": rows, "seconds": round(took, 1), "gib": round(peak, 2)})
        click.echo(json.dumps(found[-1]), err=True)
    return found


@click.command()
@click.option("--repeats", default=200, show_default=True)
@click.option("--members", "count", default=20, show_default=True, help="Members of the files that are timed.")
@click.option("--rows", default=100_000, show_default=True, help="Their rows.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file to write.")
def main(repeats: int, count: int, rows: int, out: Path | None) -> None:
    """The five ways, then the files."""
    report = {"versions": scoring.versions(), "simulated": simulated(repeats)}
    click.echo(json.dumps(report["simulated"], indent=1))
    with TemporaryDirectory() as folder:
        report["files"] = from_files(count, rows, Path(folder))
    if out:
        write_json(out, report)


if __name__ == "__main__":
    main()
