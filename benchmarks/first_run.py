"""Where do the seconds of a whole `score` go, from the start of Python to its end, the first time and later?

    python -m benchmarks.first_run                                            the demo: a minute on two cores
    python -m benchmarks.first_run --size 8b --tokenizer DIR --work DIR --rows 2000
    python -m benchmarks.first_run --before DIR -- --weights 4bit             another checkout too, taking turns

Each run is the real command in a process of its own. The weights and pictures lie in the page cache: all are read
once before. What a machine keeps between runs lies in folders of this program, so that each repeat has three runs:

    new        nothing is kept: Python compiles its modules, kernels are compiled, the base is read for its fingerprint
    installed  the modules' bytecode is kept, as where packages were installed by pip
    again      everything is kept
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

import click

from benchmarks import workload
from benchmarks.command_line import ROOT
from scoring.files.writing import write_json

STATES = ("new", "installed", "again")
BLOCK = 64 * 2**20  # bytes
IMPORT_ROWS = 8  # of the run that measures what imports take
TITLES = {
    "table": "Python starts, the table is read",
    "libraries": "libraries, fingerprint, plan",
    "loading_tokenizer": "  loading: tokenizer",
    "loading_libraries": "  loading: 4-bit library, card",
    "loading_weights": "  loading: weights read and quantized",
    "loading_adapters": "  loading: adapters",
    "loading_layers": "  loading: layers put in, expanded",
    "loading": "loading, all of it",
    "planning": "prompts encoded, batches planned",
    "compiling": "layers compiled",
    "verifying": "first row compared",
    "first_batch": "first batch",
    "other_batches": "other batches",
    "results": "results written",
    "end": "metrics, end of Python",
    "total": "total",
    "loading_and_scoring": "loading and scoring, as run.json has them",
    "imports": "imports, all of them (a run of its own)",
}


@dataclass(frozen=True)
class Command:
    """A `score` of one checkout. code: its folder. options: further ones."""

    name: str
    code: Path
    load: workload.Workload
    rows: int
    options: tuple[str, ...]

    def words(self, out: Path, rows: int) -> list[str]:
        """The command line after Python's name."""
        ckpt, base = self.load.checkpoints[0].resolve(), self.load.base.resolve()
        table = self.load.tables["single"].resolve()
        words = ["cli.py", "score", table, "--ckpt", ckpt, "--base", base, "--out", out, "--limit", rows]
        return [*map(str, words), *self.options]


def environment(kept: Path) -> dict[str, str]:
    """In which everything that is kept between runs lies in the folder `kept`."""
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return variables | {
        "PYTHONPYCACHEPREFIX": str(kept / "bytecode"),
        "XDG_CACHE_HOME": str(kept / "cache"),
        "TRITON_CACHE_DIR": str(kept / "triton"),
        "CUDA_CACHE_PATH": str(kept / "cuda"),
    }


def forget(kept: Path) -> None:
    """Keep the bytecode alone."""
    for folder in kept.iterdir():
        if folder.name != "bytecode":
            shutil.rmtree(folder)


def run(command: Command, kept: Path) -> dict[str, float]:
    """One run of the command: its seconds by phase, and its peak memory in GiB."""
    with TemporaryDirectory() as folder:
        out = Path(folder) / "scores"
        start = time.time()
        process = subprocess.Popen(
            [sys.executable, *command.words(out, command.rows)],
            cwd=command.code,
            env=environment(kept),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        said: list[tuple[float, str]] = []
        reader = Thread(target=lambda: said.extend((time.time(), line) for line in process.stderr))
        reader.start()
        peak = max(_peaks(process))
        end = time.time()
        reader.join()
        if process.returncode:
            raise click.ClickException("".join(line for _, line in said))
        table = next(moment for moment, line in said if "loading …" in line)
        record = json.loads((out / "run.json").read_text())
        return phases(record["seconds"], Moments.of(out, start, table, end)) | {
            "host_gib": round(peak / workload.GIB, 2),
            "card_gib": round(record["peak_gpu_bytes"] / workload.GIB, 2),
        }


def _peaks(process: subprocess.Popen) -> Iterator[int]:
    """The process's peak memory in bytes, again and again until it ends."""
    yield 0
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            continue
        yield from (int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
        time.sleep(0.05)


@dataclass(frozen=True)
class Moments:
    """Of a run, as seconds since 1970: its start, the end of reading the table, files' times, and its end."""

    start: float
    table: float
    plan: float
    first_part: float
    last_part: float
    results: float
    end: float

    @classmethod
    def of(cls, out: Path, start: float, table: float, end: float) -> "Moments":
        """With the times of the files in a SCORES folder."""
        parts = sorted(path.stat().st_mtime for path in (out / "logits").glob("*.parquet"))
        plan, results = ((out / name).stat().st_mtime for name in ("plan.json", "run.json"))
        return cls(start, table, plan, parts[0], parts[-1], results, end)


def phases(seconds: dict[str, float], at: Moments) -> dict[str, float]:
    """Seconds by phase, one after the other, from run.json's and the moments. An older run.json has fewer."""
    before_batches = seconds["planning"] + seconds["loading"]
    steps = {name: seconds[name] for name in TITLES if name.startswith("loading_") and name in seconds}
    prepared = seconds["verifying"] + seconds["compiling"]
    found = {
        "table": at.table - at.start,
        "libraries": at.plan - at.table - before_batches,
        **steps,
        "loading": seconds["loading"],
        "planning": seconds["planning"],
        "compiling": seconds["compiling"],
        "verifying": seconds["verifying"],
        "first_batch": at.first_part - at.plan - prepared,
        "other_batches": at.last_part - at.first_part,
        "results": at.results - at.last_part,
        "end": at.end - at.results,
        "total": at.end - at.start,
        "loading_and_scoring": seconds["loading"] + seconds["scoring"],
    }
    return {name: round(value, 3) for name, value in found.items()}


def import_seconds(command: Command, kept: Path) -> float:
    """What imports take in a run of a few rows, as Python tells them."""
    with TemporaryDirectory() as folder:
        words = [sys.executable, "-X", "importtime", *command.words(Path(folder) / "scores", IMPORT_ROWS)]
        finished = subprocess.run(words, cwd=command.code, env=environment(kept), capture_output=True, text=True)
    if finished.returncode:
        raise click.ClickException(finished.stderr[-2000:])
    lines = (line.split("|")[0].split(":") for line in finished.stderr.splitlines() if line.startswith("import time:"))
    return round(sum(int(own) for _, own in lines if own.strip().isdigit()) / 1e6, 2)


def read_once(load: workload.Workload) -> None:
    """Read the base, the checkpoint and the pictures, so that they lie in the page cache."""
    folders = [load.base, load.checkpoints[0], load.tables["single"].parent / "images"]
    for path in (path for folder in folders for path in folder.rglob("*") if path.is_file()):
        with open(path, "rb", buffering=0) as file:
            while file.read(BLOCK):
                pass


def table_of(report: dict) -> str:
    """The medians, a line for each phase and a column for each checkout and state."""
    columns = {f"{way['command']}, {way['state']}": way["seconds"] for way in report["ways"]}
    lines = [f"{'seconds':<45}" + "".join(f"{name:>18}" for name in columns)]
    lines.append("─" * len(lines[0]))
    for key, title in TITLES.items():
        values = [f"{each[key]:.2f}" if key in each else "" for each in columns.values()]
        if any(values):
            lines.append(f"{title:<45}" + "".join(f"{value:>18}" for value in values))
    for key, title in (("host_gib", "peak of the process, GiB"), ("card_gib", "peak on the card, GiB")):
        lines.append(f"{title:<45}" + "".join(f"{each[key]:>18.2f}" for each in columns.values()))
    return "\n".join(lines)


@click.command()
@workload.size_option
@click.option("--rows", default=2000, show_default=True, help="Rows to score (the demo has 400).")
@click.option("--repeats", default=1, show_default=True, help="Repeats of the three runs; medians are reported.")
@click.option(
    "--before", type=click.Path(path_type=Path, exists=True), help="Another checkout, whose runs take turns with these."
)
@click.option("--imports/--no-imports", default=True, help="Also measure imports, in runs of their own.")
@workload.full_size_options
@click.argument("options", nargs=-1)
def main(size, rows, repeats, before, imports, layers, tokenizer, work, out, options) -> None:
    """Time whole runs of `score` by phase. OPTIONS, after --, are further ones of that command."""
    work = workload.work_folder(work)
    load = workload.of_size(size, work, tokenizer, rows, checkpoints=1, layers=layers)
    read_once(load)
    commands = [Command("now", ROOT, load, rows, options)]
    if before:
        commands.insert(0, Command("before", before.resolve(), load, rows, options))
    report = workload.circumstances(workload.matrix_rate(), size, layers) | {"rows": rows, "ways": []}
    runs: dict[tuple[str, str], list[dict[str, float]]] = {}
    for repeat in range(repeats):
        for command in commands:
            with TemporaryDirectory() as folder:
                for state in STATES:
                    kept = Path(folder)
                    if state == "installed":
                        forget(kept)
                    measured = run(command, kept)
                    runs.setdefault((command.name, state), []).append(measured)
                    click.echo(f"{repeat + 1}: {command.name}, {state}: {json.dumps(measured)}", err=True)
                if imports and not repeat:
                    with TemporaryDirectory() as empty:
                        runs[command.name, "new"][0]["imports"] = import_seconds(command, Path(empty))
                    runs[command.name, "again"][0]["imports"] = import_seconds(command, kept)
            report["ways"] = [
                {"command": name, "state": state, "seconds": _medians(each), "each": each}
                for (name, state), each in runs.items()
            ]
            if out:
                out.parent.mkdir(parents=True, exist_ok=True)
                write_json(out, report)
    click.echo(f"{report['device']}, {report['size']}, {rows} rows at most")
    click.echo(table_of(report))


def _medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {key: round(statistics.median(run[key] for run in runs if key in run), 3) for key in runs[0]}


if __name__ == "__main__":
    main()
