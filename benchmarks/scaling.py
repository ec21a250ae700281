"""What do more processes gain? The same scoring and the same training by one process and by several, on one machine.

    python -m benchmarks.scaling                                                          the demo, a core for each
    python -m benchmarks.scaling --size 8b --tokenizer DIR --work DIR --processes 2       two cards

Every timing is a whole command under torchrun. Scoring is timed from the first prompt planned to `probabilities.csv` on
disk, by the first process's clock; the time counts from the moment at which the first of all processes began to score.
Training is timed from its fifth step on. Loading and compilation are reported apart.
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

from benchmarks import ROOT, workload
from scoring.files.writing import write_json

SETTLED = 4  # steps at the beginning of a training that are not timed
VALIDATED = 16  # rows that a training is validated on


def torchrun(processes: int, *arguments) -> float:
    """Run a command in so many processes, as a user starts it; the seconds of all of it."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    threads = {} if torch.cuda.is_available() else {"OMP_NUM_THREADS": "1"}
    start = time.perf_counter()
    subprocess.run([*command, "cli.py", *map(str, arguments)], cwd=ROOT, env=os.environ | threads, check=True)
    return round(time.perf_counter() - start, 1)


def scored(load: workload.Workload, processes: int, out: Path, further: list) -> dict:
    """Time one `score` of the whole table. further: more arguments of the command."""
    arguments = [load.tables["single"], "--base", load.base, "--ckpt", load.checkpoints[0], "--allow-mismatch"]
    wall = torchrun(processes, "score", *arguments, "--out", out, *further)
    record = json.loads((out / "run.json").read_text("utf-8"))
    seconds, each = record["seconds"], [process["seconds"] for process in record["processes"]]
    rate = record["counts"]["scored_now"] / (seconds["planning"] + seconds["scoring"] - each[0] + max(each))
    result = {"what": "score", "rows": record["counts"]["rows"], "rows_per_second": rate, "wall": wall, **seconds}
    return result | {"batch_tokens": record["identity"]["batch_tokens"], "each": record["processes"]}


def trained(load: workload.Workload, processes: int, out: Path, batch: int, further: list) -> dict:
    """Time one epoch of `train`. further: more arguments of the command."""
    table = load.tables["train"]
    arguments = [table, "--valid", load.tables["valid"], "--base", load.base, "--epochs", 1, "--batch", batch]
    wall = torchrun(processes, "train", *arguments, "--learning-rate", 1e-5, "--out", out, *further)
    lines = [json.loads(line) for line in (out / "train.jsonl").read_text("utf-8").splitlines()]
    steps = [line for line in lines if "rows_per_second" in line]
    ends = [line["step"] * batch / line["rows_per_second"] for line in steps]
    rate = (len(steps) - 1 - SETTLED) * batch / (ends[-2] - ends[SETTLED - 1])  # the last step may have fewer rows
    return {"what": "train", "batch": batch, "steps": len(steps), "rows_per_second": rate, "wall": wall}


def same(first: Path, second: Path) -> bool:
    """Whether two SCORES folders have the same probabilities, byte for byte."""
    return (first / "probabilities.csv").read_bytes() == (second / "probabilities.csv").read_bytes()


@click.command()
@workload.size_option
@click.option("--processes", default=2, show_default=True, help="How many are compared with one.")
@click.option("--rows", default=400, show_default=True, help="Rows of the table that is scored.")
@click.option("--score/--no-score", "scoring", default=True, help="Whether scoring is timed too.")
@click.option("--batches", default="16", show_default=True, help="Rows of a training step, comma-separated.")
@click.option("--batch-tokens", type=int, help="Tokens in a batch of scoring.  [default: by memory]")
@click.option("--steps", default=24, show_default=True, help="Steps of each training.")
@click.option("--memory", default="auto", show_default=True, help="Memory of training: auto, low or fast.")
@click.option(
    "--forward-tokens",
    default=0,
    show_default=True,
    help="Tokens in one forward of training; 0 chooses them by memory.",
)
@click.option("--compile", "compiling", default="auto", show_default=True, help="Compile layers: auto, on or off.")
@workload.full_size_options
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
    work = workload.work_folder(work)
    rate = workload.matrix_rate()
    torch.cuda.empty_cache()
    load = workload.of_size(size, work, tokenizer, rows, 1, layers)
    lines = load.tables["single"].read_text("utf-8").splitlines()
    images = load.tables["single"].parent
    report = workload.circumstances(rate, size, layers) | {"cards": torch.cuda.device_count(), "ways": []}
    with TemporaryDirectory(dir=work) as name:
        folder, common = Path(name), ["--compile", compiling, "--images", images]
        load.tables["single"] = _table(folder / "score.csv", lines[: rows + 1])
        load.tables["valid"] = _table(folder / "valid.csv", lines[: 1 + VALIDATED])
        jobs = [(0, count) for count in (1, processes)] if scoring else []
        jobs += [(int(batch), count) for batch in batches.split(",") if batch for count in (1, processes)]
        for batch, count in jobs:  # a batch of 0: scoring
            result_folder = folder / f"{batch}-{count}"
            if batch:
                others = lines[1 + VALIDATED :]  # no row that is trained on may be validated on
                cells = [others[row % len(others)].split(",", 1)[1] for row in range(steps * batch)]
                renumbered = [f"{row:06d},{line}" for row, line in enumerate(cells)]
                load.tables["train"] = _table(folder / "train.csv", [lines[0], *renumbered])
                options = ["--memory", memory, "--batch-tokens", forward_tokens]
                result = trained(load, count, result_folder, batch, [*common, *options])
            else:
                options = ["--batch-tokens", batch_tokens] if batch_tokens else []
                result = scored(load, count, result_folder, [*common, *options])
                result["same_bytes"] = same(result_folder, folder / "0-1")
            report["ways"].append({"processes": count, **result})
            click.echo(json.dumps(report["ways"][-1]), err=True)
            if out:
                write_json(out, report)
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
