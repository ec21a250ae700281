"""How long does one question take, and how much of that is the card's? A batch of one row, and `Scorer.ask`.

    python -m benchmarks.one_question                                            the demo: a minute on two cores
    python -m benchmarks.one_question --size 8b --tokenizer DIR --work DIR --out FILE

Each question has a picture of its own, all of one size. All are asked twice before the clock starts, so that on a card
every shape of theirs is recorded as a CUDA graph (`scoring/engine/graphs.py`); how long that takes is reported apart.
A time is that of a whole call: from the file of the picture to probabilities or logits on the host.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import click
import numpy as np
import torch

from benchmarks import workload
from scoring.checkpoints.plan import plan_members
from scoring.engine.batch_scorer import BatchScorer
from scoring.engine.loading import Model
from scoring.files.writing import write_json
from scoring.inputs.questions import Question
from scoring.library.scorer import Scorer
from scoring.library.settings import ScorerSettings
from scoring.run.options import ModelOptions
from scoring.tables.reading import read_table

WARM_UP = 2  # times that every question is asked before the clock starts


@dataclass(frozen=True)
class Way:
    """A call, in one order of the options or in all cyclic ones. weights: as the engine keeps the base."""

    call: str
    orders: str
    weights: str
    graphs: bool


def ways_of(weights: list[str], graphs: list[bool]) -> list[Way]:
    """All ways of the same weights, one after the other."""
    calls = [("score", "1"), ("score", "cyclic"), ("ask", "1")]
    return [Way(*call, form, on) for form in weights for on in graphs for call in calls]


class Asking:
    """One loaded base and the questions. repeats: how often each is asked once the clock runs."""

    def __init__(self, load: workload.Workload, questions: list[Question], repeats: int, members: int):
        names = tuple(str(name) for name in load.checkpoints[:members])
        self.settings = ScorerSettings(names, ModelOptions(str(load.base)), verify=False)
        self.plan = plan_members(names, str(load.base))
        self.questions, self.repeats = questions, repeats
        self.model: Model | None = None
        self.scorer: BatchScorer | None = None
        self.weights = ""

    def ready(self, way: Way) -> BatchScorer:
        """The scorer of a way, without graphs of others."""
        if self.scorer is None or self.weights != way.weights:
            self.model, self.scorer = self.scorer.model if self.scorer else None, None
            self.scorer, self.weights = BatchScorer(self.plan, weights=way.weights, model=self.model), way.weights
            self.unsupported = self.scorer.graphs.why_not
        self.scorer.graphs.clear()
        self.scorer.graphs.why_not = self.unsupported if way.graphs else "measured without"
        return self.scorer

    def call(self, scorer: BatchScorer, way: Way) -> Callable[[Question], object]:
        """What is timed."""
        if way.call == "score":
            return lambda question: scorer.score([question], way.orders)
        asked = Scorer(self.settings, scorer)
        return lambda question: asked.ask(
            question.pictures, question.question, question.options, hint=question.task_hint
        )

    def measure(self, way: Way) -> dict:
        """Milliseconds of a call, and on a card of its kernels; seconds to record a graph, and the memory of all."""
        scorer = self.ready(way)
        ask, free = self.call(scorer, way), free_memory()
        recording = []
        for question in self.questions * WARM_UP:
            count, seconds = len(scorer.graphs.recorded), timed(ask, question)
            if len(scorer.graphs.recorded) > count:
                recording.append(seconds)
        times = [timed(ask, question) * 1e3 for _ in range(self.repeats) for question in self.questions]
        result = {"calls": len(times), "p50_ms": np.percentile(times, 50), "p95_ms": np.percentile(times, 95)}
        if torch.cuda.is_available():
            result |= on_card(ask, self.questions[0])
            result |= {"graphs_held": len(scorer.graphs.recorded), "why_not": scorer.graphs.why_not}
        if recording:
            result |= {"recording_s": float(np.median(recording)), "graphs_gib": (free - free_memory()) / workload.GIB}
        return asdict(way) | result


def timed(ask: Callable[[Question], object], question: Question) -> float:
    """Seconds of a call, which ends when its answers are on the host."""
    start = time.perf_counter()
    ask(question)
    return time.perf_counter() - start


def free_memory() -> int:
    """Bytes of the card that nobody holds; 0 without one."""
    if not torch.cuda.is_available():
        return 0
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info()[0]


def on_card(ask: Callable[[Question], object], question: Question) -> dict:
    """Of one call: milliseconds of all kernels and copies together, how many they are, and which take longest."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    ask(question)
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        ask(question)
        torch.cuda.synchronize()
    events = [event for event in recorded.key_averages() if event.device_type == DeviceType.CUDA]
    longest = sorted(events, key=lambda event: -event.self_device_time_total)[:12]
    return {
        "device_ms": sum(event.self_device_time_total for event in events) / 1e3,
        "kernels": sum(event.count for event in events),
        "longest": [[event.key[:90], round(event.self_device_time_total / 1e3, 3), event.count] for event in longest],
    }


def table_of(results: list[dict]) -> str:
    """The results as a table for a terminal."""
    lines = [
        f"{'':<16}{'weights':>8}{'graphs':>8}{'p50 ms':>9}{'p95 ms':>9}{'card ms':>9}{'kernels':>9}{'to record':>11}"
    ]
    lines.append("─" * len(lines[0]))
    for way in results:
        card = [f"{way['device_ms']:.1f}", f"{way['kernels']}"] if "kernels" in way else ["", ""]
        recording = f"{way['recording_s']:.2f} s" if "recording_s" in way else ""
        lines.append(
            f"{way['call'] + ', ' + way['orders']:<16}{way['weights']:>8}{'on' if way['graphs'] else 'off':>8}"
            f"{way['p50_ms']:>9.1f}{way['p95_ms']:>9.1f}{card[0]:>9}{card[1]:>9}{recording:>11}"
        )
    return "\n".join(lines)


@click.command()
@workload.size_option
@click.option("--questions", default=32, show_default=True, help="How many are asked, each with its own picture.")
@click.option("--repeats", default=3, show_default=True, help="How often each is asked once the clock runs.")
@click.option("--members", default=1, show_default=True, help="How many checkpoints answer.")
@click.option("--modes", default="16bit,4bit", show_default=True, help="Weights of the engine.")
@click.option(
    "--graphs",
    type=click.Choice(["both", "on", "off"]),
    default="both",
    show_default=True,
    help="With CUDA graphs or without; on a CPU always without.",
)
@workload.full_size_options
def main(size, questions, repeats, members, modes, graphs, tokenizer, layers, work, out) -> None:
    """Time single questions and print a table."""
    rate = workload.matrix_rate()
    load = workload.of_size(size, workload.work_folder(work), tokenizer, questions, members, layers)
    rows = read_table(load.tables["single"]).questions[:questions]
    switches = {"both": [True, False], "on": [True], "off": [False]}[graphs]
    asking = Asking(load, rows, repeats, members)
    report = workload.circumstances(rate, size, layers) | {"questions": len(rows), "members": members, "ways": []}
    for way in ways_of(modes.split(","), switches if torch.cuda.is_available() else [False]):
        report["ways"].append(asking.measure(way))
        click.echo(json.dumps(report["ways"][-1]), err=True)
        if out:
            out.parent.mkdir(parents=True, exist_ok=True)
            write_json(out, report)
    click.echo(f"{report['device']}, matrix product {rate / 1e12:.1f} TFLOP/s, {report['size']}")
    click.echo(table_of(report["ways"]))


if __name__ == "__main__":
    main()
