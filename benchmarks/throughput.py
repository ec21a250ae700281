"""How many rows a second does every way of answering score? All ways get the same rows, in one run on one machine.

    python -m benchmarks.throughput                                  the demo: some minutes on two cores
    python -m benchmarks.throughput --size 8b --tokenizer DIR --work DIR --rows 2000

The 8B, and the shapes of other families (`--size qwen2.5-vl-7b` and others), need a GPU, 25 GB in
--work, and a folder with Qwen3's tokenizer.json, tokenizer_config.json and Qwen3-VL's chat template. Loading and
compilation are reported apart. A way of the engine is a whole `score`: from reading the table's prompts and pictures to
`probabilities.csv` on disk.
"""

import json
import math
import os
import resource
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import torch

from benchmarks import workload
from benchmarks.exactness import exactness
from scoring.benchmark.generate import generate_batch, generate_text
from scoring.benchmark.padded import collate, padded_states
from scoring.checkpoints.plan import Plan, plan_members
from scoring.engine.batch_scorer import BatchScorer
from scoring.engine.batches import prepare_batch
from scoring.engine.forward import project
from scoring.engine.stand_in import unwrap
from scoring.files.writing import write_json
from scoring.inputs.questions import Question
from scoring.messages import silent
from scoring.run.options import RunContext, RunOptions
from scoring.run.run import run
from scoring.tables.reading import read_table
from scoring.tables.table import Table

os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")  # as cli.py does
WARM_UP = 4  # rows that are answered one at a time before the clock starts
SMALL_CARD = 10 * workload.GIB  # what PyTorch may hold in the way that stands for a 12 GB card


@dataclass
class Way:
    """A way of answering. With `weights` it is a whole run of the engine, else one of the libraries' ways."""

    name: str
    rows: int
    table: str = "single"
    batch: int = 0  # rows in a batch of the baselines
    orders: str = "1"
    members: int = 1
    weights: str = ""  # how the engine keeps the base: auto, 4bit or 16bit; "" for a baseline
    batch_tokens: int | None = None
    small_card: bool = False


def ways_of(size: str, rows: int, modes: list[str], batch: int | None, single: int) -> list[Way]:
    """All ways, baselines first. rows: of the engine's ways; single: of the notebook's way at 8B."""
    if size == "demo":
        batch = batch or 16
        return [
            Way("the notebook: generate 2 tokens, a row at a time", min(rows, 40), batch=1),
            Way(f"generate 2 tokens, {batch} rows", min(rows, 200), batch=batch),
            Way(f"padded forward, {batch} rows (transformers and peft)", rows, batch=batch),
            Way("engine: one order", rows, weights="auto"),
            Way("engine: cyclic orders (4)", rows, orders="cyclic", weights="auto"),
            Way("engine: 2 checkpoints", rows, members=2, weights="auto"),
        ]
    batch = batch or 32
    baselines = [
        Way("the notebook: generate 2 tokens, a row at a time", single, batch=1),
        Way(f"generate 2 tokens, {batch} rows", max(128, batch), batch=batch),
        Way(f"padded forward, {batch} rows (transformers and peft)", max(128, batch), batch=batch),
    ]
    engine = []
    for weights in modes:
        engine += [
            Way("engine: one order", rows, weights=weights),
            Way("engine: 4 questions a picture", rows, "four", weights=weights),
            Way("engine: cyclic orders (4)", rows, orders="cyclic", weights=weights),
        ]
    small = Way("engine: one order, 10 GiB at most", rows, weights="4bit", batch_tokens=12_288, small_card=True)
    many = [Way("engine: 5 checkpoints", rows, members=5, weights=weights) for weights in reversed(modes)]
    return [*baselines, *engine, *([small] if "4bit" in modes else []), *many]


class Bench:
    """One loaded base. Adapters are added when a way needs them."""

    def __init__(self, load: workload.Workload, rate: float, compiling: str, work: Path):
        self.load, self.rate, self.compiling, self.work = load, rate, compiling, work
        self.scorer: BatchScorer | None = None
        self.packed_as: tuple[int, str] | None = None  # number of members, weights

    def plan(self, way: Way) -> Plan:
        """Which checkpoints a way loads."""
        names = [str(name) for name in self.load.checkpoints[: way.members]]
        return plan_members(names, str(self.load.base), orders=way.orders)

    def ready(self, way: Way) -> BatchScorer:
        """The scorer of a way: the same base, packed as the way wants it."""
        wanted = (way.members, way.weights or "4bit")
        if self.scorer is None or self.packed_as != wanted:
            model = self.scorer.model if self.scorer else None
            if model and way.members > len(model.adapters):
                unwrap(model.network.model)
            self.scorer = None
            self.scorer, self.packed_as = BatchScorer(self.plan(way), weights=wanted[1], model=model), wanted
        return self.scorer

    def measure(self, way: Way) -> dict:
        """One repeat of a way: rows a second and, on a card, its memory."""
        table = read_table(self.load.tables[way.table])
        table.questions = table.questions[: way.rows]
        scorer = self.ready(way)
        workload.reset_peak()
        result = self._run(way, scorer, table) if way.weights else self._loop(way, scorer, table.questions)
        result |= workload.peak_memory()
        return result | {"rows": len(table.questions), "rows_per_second": len(table.questions) / result["seconds"]}

    def _run(self, way: Way, scorer: BatchScorer, table: Table) -> dict:
        """A whole `score` by the engine."""
        options = RunOptions(way.orders, batch_tokens=way.batch_tokens, compile=self.compiling)
        if way.small_card:
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(SMALL_CARD / total)
        try:
            with TemporaryDirectory(dir=self.work) as folder:
                out = Path(folder) / "s"
                finished = run(table, scorer, out, options, RunContext(say=silent))
                record = json.loads((out / "run.json").read_text())
        finally:
            if way.small_card:
                torch.cuda.set_per_process_memory_fraction(1.0)
        assert finished.logits.scored.all(), finished.warnings
        seconds = finished.seconds["planning"] + finished.seconds["scoring"]
        tokens, patches = record["counts"]["tokens"], self._patches(table.questions)
        return {
            "seconds": seconds,
            "planning": finished.seconds["planning"],
            "compiling": finished.seconds["compiling"],
            "waiting_for_pictures": finished.seconds["waiting_for_pictures"],
            "tokens_a_row": tokens / way.rows,
            "batch_tokens": record["identity"]["batch_tokens"],
            "split": record["split"],
            "roofline": self._operations(tokens * way.members, patches) / seconds / self.rate,
        }

    def profile(self, rows: int = 128, lines: int = 14) -> list[dict]:
        """Where the time of one batch goes: the kernels that take longest, in ms."""
        from torch.profiler import ProfilerActivity, profile

        questions = read_table(self.load.tables["single"]).questions[:rows]
        ready = prepare_batch(self.scorer.prepare, questions, "1")
        activities = [ProfilerActivity.CUDA] if torch.cuda.is_available() else [ProfilerActivity.CPU]
        for _ in range(2):
            self.scorer.answer(ready, 4)
        start = time.perf_counter()
        self.scorer.answer(ready, 4)
        seconds = time.perf_counter() - start
        with profile(activities=activities) as recorded:
            self.scorer.answer(ready, 4)
        kernel_time = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        events = sorted(recorded.key_averages(), key=lambda event: -getattr(event, kernel_time))
        return [
            {"kernel": f"whole batch of {len(questions)} rows", "ms": seconds * 1e3, "calls": 1},
            *(
                {"kernel": event.key[:90], "ms": round(getattr(event, kernel_time) / 1e3, 1), "calls": event.count}
                for event in events[:lines]
            ),
        ]

    def _patches(self, questions: list[Question]) -> int:
        """Patches of all pictures, each counted once."""
        policy = self.scorer.prepare.policy
        sizes = dict(pair for question in questions for pair in zip(question.pictures, question.sizes))
        grids = {picture: policy.grid(*size) for picture, size in sizes.items()}
        return sum(math.prod(grid) for grid in grids.values())

    def _operations(self, tokens: int, patches: int) -> float:
        """Floating point operations of the weights alone: two for each weight and token, or patch."""
        language, vision = workload.multiplied_weights(self.scorer.packed, self.scorer.model.parts.vision)
        return 2.0 * language * tokens + 2.0 * vision * patches

    @torch.no_grad()
    def _loop(self, way: Way, scorer: BatchScorer, questions: list[Question]) -> dict:
        """The libraries' own ways, through PEFT's layers; the time of a row starts with its file.

        Batches hold rows of about one length, and pictures are read ahead. The notebook's way prepares one row after
        the other.
        """
        network, prepare = scorer.model.network, scorer.prepare
        scorer.model.use(scorer.adapters[0])
        sequences = prepare.encode_many([(question, question.sizes, "") for question in questions])
        ordered = [questions[row] for row in sorted(range(len(questions)), key=lambda row: len(sequences[row].ids))]

        def answer(prepared: list) -> None:
            if "padded" in way.name:
                batch = collate(*map(list, zip(*prepared))).to(scorer.model.device)
                project(padded_states(network, batch), scorer.model.head, scorer.label_ids[:4]).top.cpu()
            elif way.batch == 1:
                generate_text(network, prepare.chat, *prepared[0])
            else:
                generate_batch(network, prepare.chat, prepared)

        for first in range(WARM_UP if way.batch == 1 else 1):  # not timed
            answer([prepare(question) for question in ordered[first : first + way.batch]])
        start = time.perf_counter()
        with ThreadPoolExecutor() as pool:
            prepared_rows = (map if way.batch == 1 else pool.map)(prepare, ordered)
            for batch in iter(lambda: list(islice(prepared_rows, way.batch)), []):
                answer(batch)
        return {"seconds": time.perf_counter() - start}


def table_of(results: list[dict]) -> str:
    """The results as a table for a terminal."""
    lines = [f"{'':<50}{'weights':>8}{'rows/s':>9}{'peak GiB':>10}{'tokens':>8}{'roofline':>10}"]
    lines.append("─" * len(lines[0]))
    for way in results:
        peak = f"{way['peak_gib']:.1f}" if "peak_gib" in way else ""
        tokens = f"{way['tokens_a_row']:.0f}" if "tokens_a_row" in way else ""
        share = f"{way['roofline']:.0%}" if "roofline" in way else ""
        lines.append(
            f"{way['way']:<50}{way['weights']:>8}{way['rows_per_second']:>9.1f}{peak:>10}{tokens:>8}{share:>10}"
        )
    return "\n".join(lines)


@click.command()
@workload.size_option
@click.option("--rows", default=2000, show_default=True, help="Rows of the engine's ways (the demo has 400).")
@click.option("--rows-of-many", type=int, help="Rows of the ways with several checkpoints.  [default: --rows]")
@click.option("--repeats", type=int, help="Repeats, taking turns; medians are reported.  [default: 3, 8b: 1]")
@click.option("--batch-rows", "batch", type=int, help="Rows in a batch of the libraries' ways.  [default: 16, 8b: 32]")
@click.option("--single-rows", "single", default=16, show_default=True, help="Rows of the notebook's way at 8B.")
@click.option("--modes", default="16bit,4bit", show_default=True, help="Weights of the engine at 8B.")
@click.option("--ways", default="", help="Only ways whose name contains one of these, comma-separated.")
@click.option(
    "--compile",
    "compiling",
    type=click.Choice(["on", "off"]),
    default="on",
    show_default=True,
    help="Compile layers on a card.",
)
@click.option(
    "--exact/--no-exact", default=True, help="Also profile, and at 8B compare with the reference and other batches."
)
@workload.full_size_options
def main(
    size, rows, rows_of_many, repeats, batch, single, modes, ways, compiling, exact, tokenizer, layers, work, out
) -> None:
    """Time every way of answering and print a table."""
    work = workload.work_folder(work)
    rate = workload.matrix_rate()
    load = workload.of_size(size, work, tokenizer, rows, layers=layers)
    rows = min(rows, len(read_table(load.tables["single"]).questions))
    report = workload.circumstances(rate, size, layers) | {"exactness": {}, "profile": {}, "ways": []}
    chosen = [
        way
        for way in ways_of(size, rows, modes.split(","), batch, min(single, rows))
        if not ways or any(name in f"{way.name} {way.weights}" for name in ways.split(","))
    ]
    click.echo(f"{report['device']}: matrix product {rate / 1e12:.1f} TFLOP/s; workload ready", err=True)
    for way in chosen:
        way.rows = min(way.rows, rows_of_many or way.rows) if way.members > 1 else way.rows
    bench = Bench(load, rate, compiling if torch.cuda.is_available() else "off", work)
    measured: dict[int, list[dict]] = {}
    if size != "demo" and exact:  # before anything is compiled
        report["exactness"]["eager"] = exactness(bench.ready(Way("", 0, weights="4bit")), load.tables["single"])
        click.echo(json.dumps(report["exactness"]["eager"]), err=True)
    for repeat in range(repeats or (3 if size == "demo" else 1)):
        for number, way in enumerate(chosen):
            result = bench.measure(way)
            measured.setdefault(number, []).append(result)
            rounded = {key: round(value, 3) if isinstance(value, float) else value for key, value in result.items()}
            click.echo(f"{repeat + 1}: {way.name} {way.weights}: {json.dumps(rounded)}", err=True)
            if exact and size != "demo" and way.weights == "4bit" and "compiled" not in report["exactness"]:
                report["exactness"]["compiled"] = exactness(bench.scorer, load.tables["single"], rows=64)
                click.echo(json.dumps(report["exactness"]["compiled"]), err=True)
            if exact and way.weights and not report["profile"]:
                report["profile"][way.weights] = bench.profile()
                for line in report["profile"][way.weights]:
                    click.echo(f"  {line['ms']:>8.1f} ms {line['calls']:>6} {line['kernel']}", err=True)
            report["ways"] = [_median(chosen[index], runs) for index, runs in measured.items()]
            report["peak_rss_gib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
            if out:
                out.parent.mkdir(parents=True, exist_ok=True)
                write_json(out, report)
    click.echo(f"{report['device']}, matrix product {rate / 1e12:.1f} TFLOP/s, {report['size']}")
    click.echo(table_of(report["ways"]))
    click.echo(f"peak memory of this process on the host: {report['peak_rss_gib']} GiB")


def _median(way: Way, runs: list[dict]) -> dict:
    """Medians over a way's repeats, and the rows a second of each."""
    medians = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    return {"way": way.name, "weights": way.weights, **medians, "each": [run["rows_per_second"] for run in runs]}


if __name__ == "__main__":
    main()
