"""What do actors of a Ray cluster gain, and what does Ray's start cost? Beside one process, and beside torchrun.

    python -m benchmarks.ray_scoring                                                      the demo, on two cores
    python -m benchmarks.ray_scoring --size 8b --tokenizer DIR --work DIR --counts 1,2,4  one, two and four cards

Every timing is a whole command, in turn. `rows_per_second` counts from the first prompt planned to `probabilities.csv`
on disk, without loading; `wall` is all of it, with the start of Python, of Ray, and loading.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import torch

from benchmarks import ROOT, workload
from benchmarks.scaling import same
from scoring.files.writing import write_json

WAYS = ("alone", "torchrun", "ray")


def command_of(way: str, count: int) -> list[str]:
    """How a user starts `score` in so many processes."""
    if way == "torchrun":
        launched = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
        return [*launched, "cli.py", "score"]
    return [sys.executable, "cli.py", "score", *(["--ray", "--ray-actors", str(count)] if way == "ray" else [])]


def measure(way: str, count: int, arguments: list[Any], out: Path) -> dict[str, Any]:
    """One run of a whole command."""
    line = command_of(way, count)
    position = line.index("score") + 1
    threads = {"OMP_NUM_THREADS": "1"} if way == "torchrun" and not torch.cuda.is_available() else {}
    start = time.perf_counter()
    subprocess.run(
        [*line[:position], *map(str, arguments), "--out", str(out), *line[position:]],
        cwd=ROOT,
        env=os.environ | threads,
        check=True,
    )
    wall = time.perf_counter() - start
    record = json.loads((out / "run.json").read_text("utf-8"))
    seconds = record["seconds"]
    rate = record["counts"]["scored_now"] / (seconds["planning"] + seconds["scoring"])
    return {"rows_per_second": rate, "wall": wall, "loading": seconds["loading"], "first_batch": seconds["first_batch"]}


@click.command()
@workload.size_option
@click.option("--rows", default=400, show_default=True, help="Rows of the table that is scored.")
@click.option("--counts", default="1,2", show_default=True, help="Numbers of processes, comma-separated.")
@click.option("--batch-tokens", type=int, help="Tokens in a batch.  [default: by memory]")
@click.option("--repeats", default=1, show_default=True, help="Repeats, taking turns; medians are reported.")
@click.option("--weights", default="auto", show_default=True, help="Weights of the engine.")
@workload.full_size_options
def main(size, rows, counts, batch_tokens, repeats, weights, tokenizer, layers, work, out) -> None:
    """Time every way, and print a table."""
    work = workload.work_folder(work)
    rate = workload.matrix_rate()
    torch.cuda.empty_cache()
    load = workload.of_size(size, work, tokenizer, rows, 1, layers)
    lines = load.tables["single"].read_text("utf-8").splitlines()
    arguments = ["--images", load.tables["single"].parent, "--base", load.base, "--ckpt", load.checkpoints[0]]
    arguments += ["--allow-mismatch", "--compile", "off", "--weights", weights]
    arguments += ["--batch-tokens", batch_tokens] if batch_tokens else []
    ways = [("alone", 1), *((way, int(count)) for way in WAYS[1:] for count in counts.split(","))]
    measured: dict[tuple[str, int], list[dict[str, Any]]] = {way: [] for way in ways}
    report = workload.circumstances(rate, size, layers) | {"cards": torch.cuda.device_count(), "rows": rows}
    with TemporaryDirectory(dir=work) as name:
        folder = Path(name)
        table = folder / "score.csv"
        table.write_text("\n".join(lines[: rows + 1]) + "\n", "utf-8")
        for repeat in range(repeats):
            for way, count in ways:
                result_folder = folder / f"{way}-{count}-{repeat}"
                result = measure(way, count, [table, *arguments], result_folder)
                result["same_bytes"] = same(result_folder, folder / "alone-1-0")
                measured[way, count].append(result)
                click.echo(json.dumps({"way": way, "processes": count, **result}), err=True)
    report["ways"] = [
        {"way": way, "processes": count, **_median(results)} for (way, count), results in measured.items()
    ]
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, report)
    click.echo(f"{report['cards'] or 'no'} × {report['device']}, {report['size']}, {rows} rows")
    click.echo(f"{'way':<10}{'processes':>10}{'rows/s':>10}{'whole s':>10}{'loading s':>11}  same bytes")
    for way in report["ways"]:
        numbers = f"{way['rows_per_second']:>10.1f}{way['wall']:>10.1f}{way['loading']:>11.1f}"
        click.echo(f"{way['way']:<10}{way['processes']:>10}{numbers}  {way['same_bytes']}")


def _median(results: list[dict[str, Any]]) -> dict[str, Any]:
    numbers = ("rows_per_second", "wall", "loading", "first_batch")
    medians = {name: round(statistics.median(result[name] for result in results), 2) for name in numbers}
    return medians | {"same_bytes": all(result["same_bytes"] for result in results)}


if __name__ == "__main__":
    main()
