"""What more processes are worth: the same scoring and the same training by one and by several, on one machine.

    python -m benchmarks.scaling                                                          the demo, a core for each
    python -m benchmarks.scaling --size 8b --tokenizer DIR --work DIR --processes 2       two cards

Every row is a whole command under torchrun. Scoring is timed from the first prompt planned to `probabilities.csv` on
disk: by the first process's clock, but from the moment on when any of them began to score. Training is timed from its
fifth step on. Loading and compilation are apart.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import torch

from benchmarks import workload
from scoring.engine.packed import product_rate

ROOT = Path(__file__).resolve().parent.parent
SETTLED = 4  # steps of a training that are not timed
VALIDATED = 16  # rows that a training is validated on


def torchrun(processes: int, *arguments) -> float:
    """Seconds of the whole command, started as a user starts it."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    threads = {} if torch.cuda.is_available() else {"OMP_NUM_THREADS": "1"}
    start = time.perf_counter()
    subprocess.run([*command, "cli.py", *map(str, arguments)], cwd=ROOT, env=os.environ | threads, check=True)
    return round(time.perf_counter() - start, 1)


def scored(load: workload.Workload, processes: int, folder: Path, further: list) -> dict:
    """One `score` of the whole table."""
    arguments = [load.tables["single"], "--base", load.base, "--ckpt", load.checkpoints[0], "--allow-mismatch"]
    wall = torchrun(processes, "score", *arguments, "--out", folder, *further)
    about = json.loads((folder / "run.json").read_text("utf-8"))
    seconds, each = about["seconds"], [process["seconds"] for process in about["processes"]]
    rate = about["counts"]["scored_now"] / (seconds["planning"] + seconds["scoring"] - each[0] + max(each))
    found = {"what": "score", "rows": about["counts"]["rows"], "rows_per_second": rate, "wall": wall, **seconds}
    return found | {"batch_tokens": about["identity"]["batch_tokens"], "each": about["processes"]}


def trained(load: workload.Workload, processes: int, folder: Path, batch: int, further: list) -> dict:
    """One epoch of `train`; whether it compiles is left to it."""
    table = load.tables["train"]
    arguments = [table, "--valid", load.tables["valid"], "--base", load.base, "--epochs", 1, "--batch", batch]
    wall = torchrun(processes, "train", *arguments, "--learning-rate", 1e-5, "--out", folder, *further)
    lines = [json.loads(line) for line in (folder / "train.jsonl").read_text("utf-8").splitlines()]
    steps = [line for line in lines if "rows_per_second" in line]
    ends = [line["step"] * batch / line["rows_per_second"] for line in steps]
    rate = (len(steps) - 1 - SETTLED) * batch / (ends[-2] - ends[SETTLED - 1])  # the last step may be a part of one
    return {"what": "train", "batch": batch, "steps": len(steps), "rows_per_second": rate, "wall": wall}


def same(ours: Path, theirs: Path) -> bool:
    return (ours / "probabilities.csv").read_bytes() == (theirs / "probabilities.csv").read_bytes()


@click.command()
@click.option("--size", type=click.Choice(["demo", "8b"]), default="demo", show_default=True)
@click.option("--processes", default=2, show_default=True, help="Compared with one.")
@click.option("--rows", default=400, show_default=True, help="Of the table.")
@click.option("--score/--no-score", "scoring", default=True, help="Whether scoring is timed too.")
@click.option("--batches", default="16", show_default=True, help="Rows of a training step, comma-separated.")
@click.option("--batch-tokens", type=int, help="Of scoring.  [default: by memory]")
@click.option("--steps", default=24, show_default=True, help="Of each training.")
@click.option("--memory", default="auto", show_default=True, help="Of training: auto, low or fast.")
@click.option(
    "--forward-tokens", default=0, show_default=True, help="Of one forward in training.  [default: by memory]"
)
@click.option("--compile", "compiling", default="auto", show_default=True)
@click.option("--tokenizer", type=click.Path(path_type=Path, exists=True), help="Folder of the real tokenizer, for 8b.")
@click.option("--layers", type=int, help="Fewer layers than the 8B has, to try this program.")
@click.option("--work", type=click.Path(path_type=Path), help="Folder for weights and pictures.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file to write.")
def main(
    size,
    processes,
    rows,
    scoring,
    batches,
    batch_tokens,
    steps,
    memory,
    forward_tokens,
    compiling,
    tokenizer,
    layers,
    work,
    out,
) -> None:
    """Time one process and several, and print a table."""
    work = work or Path("benchmarks/work")
    work.mkdir(parents=True, exist_ok=True)
    rate = product_rate(8192 if torch.cuda.is_available() else 1024)
    torch.cuda.empty_cache()
    load = workload.demo() if size == "demo" else workload.full_size(work, tokenizer, rows, 1, layers=layers)
    lines = load.tables["single"].read_text("utf-8").splitlines()
    images = load.tables["single"].parent
    report = workload.circumstances(rate, size, layers) | {"cards": torch.cuda.device_count(), "ways": []}
    with TemporaryDirectory(dir=work) as name:
        folder, further = Path(name), ["--compile", compiling, "--images", images]
        load.tables["single"] = _table(folder / "score.csv", lines[: rows + 1])
        load.tables["valid"] = _table(folder / "valid.csv", lines[: 1 + VALIDATED])
        jobs = [(0, count) for count in (1, processes)] if scoring else []
        jobs += [(int(batch), count) for batch in batches.split(",") if batch for count in (1, processes)]
        for batch, count in jobs:
            place = folder / f"{batch}-{count}"
            if batch:
                apart = lines[1 + VALIDATED :]  # no row that is trained on may be validated on
                wanted = [apart[row % len(apart)].split(",", 1)[1] for row in range(steps * batch)]
                rows_of_it = [lines[0], *(f"{row:06d},{line}" for row, line in enumerate(wanted))]
                load.tables["train"] = _table(folder / "train.csv", rows_of_it)
                learning = ["--memory", memory, "--batch-tokens", forward_tokens]
                found = trained(load, count, place, batch, [*further, *learning])
            else:
                found = scored(load, count, place, [*further, *(["--batch-tokens", batch_tokens] * bool(batch_tokens))])
                found["same_bytes"] = same(place, folder / "0-1")
            report["ways"].append({"processes": count, **found})
            click.echo(json.dumps(report["ways"][-1]), err=True)
            if out:
                out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    click.echo(f"{report['cards'] or 'no'} × {report['device']}, {report['size']}")
    for one, several in zip(report["ways"][::2], report["ways"][1::2]):
        what = f"{one['what']}{', steps of ' + str(one['batch']) + ' rows' if 'batch' in one else ''}"
        rates = one["rows_per_second"], several["rows_per_second"]
        click.echo(f"{what:<28}{rates[0]:>9.2f}{rates[1]:>9.2f} rows/s {rates[1] / rates[0]:>7.2f} times")


def _table(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


if __name__ == "__main__":
    main()
