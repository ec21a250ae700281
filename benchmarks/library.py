"""How many questions a second does the library answer, asked by 1 to 64 threads at once, and with the bits of `score`?

    python -m benchmarks.library                                             the demo: two minutes on two cores
    python -m benchmarks.library --size 8b --tokenizer DIR --work DIR --out FILE
    python -m benchmarks.library --memory 5000                               also the memory of so many questions
    python -m benchmarks.library --processes                                 also imports and other processes

`Scorer.score` of the same rows and every number of threads take turns, `--repeats` times; medians are reported. A time
is that of a whole call: from the file of a picture to its probabilities.
"""

import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import click
import numpy as np
import psutil

from benchmarks import workload
from scoring import Scorer
from scoring.files.writing import write_json
from scoring.inputs.questions import Question
from scoring.library.answer import Answer
from scoring.tables.reading import read_table

MIB = 2**20
EACH = 64  # questions of a thread, at most
IMPORTS = {
    "python": "pass",
    "import scoring": "import scoring",
    "from scoring import Question": "from scoring import Question",
    "from scoring import Answers": "from scoring import Answers",
    "from scoring import Scorer": "from scoring import Scorer",
}


@dataclass
class Asked:
    """Questions that threads ask in turn. seconds: of each call; answers: by the question's number."""

    scorer: Scorer
    questions: list[Question]
    seconds: list[float] = field(default_factory=list)
    answers: dict[int, Answer] = field(default_factory=dict)
    errors: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._next, self._lock = iter(enumerate(self.questions)), threading.Lock()

    def by(self, threads: int) -> float:
        """Ask them all; the seconds that it took. Raises what a call raised."""
        workers = [threading.Thread(target=self._ask) for _ in range(threads)]
        start = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if self.errors:
            raise self.errors[0]
        return time.perf_counter() - start

    def _questions(self) -> Iterator[tuple[int, Question]]:
        while True:
            with self._lock:
                following = next(self._next, None)
            if following is None:
                return
            yield following

    def _ask(self) -> None:
        try:
            for number, question in self._questions():
                start = time.perf_counter()
                answer = ask(self.scorer, question)
                self.seconds.append(time.perf_counter() - start)
                self.answers[number] = answer
        except BaseException as error:
            self.errors.append(error)


def ask(scorer: Scorer, question: Question) -> Answer:
    """One call, as a program makes it."""
    return scorer.ask(
        question.pictures, question.question, question.options, hint=question.task_hint, task_type=question.task_type
    )


def medians(runs: list[dict], scored: list[float]) -> dict:
    """Of one way's repeats: rows a second, latencies, the share of the rate of `score`, and the largest difference."""
    median = {name: statistics.median(run[name] for run in runs) for name in ("a_second", "p50_ms", "p95_ms")}
    shares = [run["a_second"] / score for run, score in zip(runs, scored)]
    return {
        **{name: round(value, 2) for name, value in median.items()},
        "share_of_score": round(statistics.median(shares), 3),
        "largest_difference": max(run["apart"] for run in runs),
    }


def measure(scorer: Scorer, questions: list[Question], threads: list[int], repeats: int) -> dict:
    """Rows a second of `score` and of each number of threads, with latencies and the largest difference of a p."""
    scored: list[float] = []
    ways: dict[int, list[dict]] = {count: [] for count in threads}
    for _ in range(repeats):
        start = time.perf_counter()
        answers = scorer.score(questions)
        scored.append(len(questions) / (time.perf_counter() - start))
        for count in threads:
            asked = Asked(scorer, questions[: EACH * count])
            seconds = asked.by(count)
            apart = max(
                abs(p - answers[number][letter]) for number, row in asked.answers.items() for letter, p in row.items()
            )
            p50, p95 = np.percentile(asked.seconds, [50, 95]) * 1e3
            ways[count].append(
                {"a_second": len(asked.questions) / seconds, "p50_ms": p50, "p95_ms": p95, "apart": apart}
            )
    rate = statistics.median(scored)
    results = [{"threads": count, **medians(runs, scored)} for count, runs in ways.items()]
    return {"rows": len(questions), "repeats": repeats, "score_rows_per_second": round(rate, 2), "asking": results}


def memory(scorer: Scorer, questions: list[Question], asks: int) -> dict:
    """MiB that the process holds after each tenth of so many questions, by four threads."""
    process, held = psutil.Process(), []
    for _ in range(10):
        count = max(asks // 10, 1)
        Asked(scorer, [questions[number % len(questions)] for number in range(count)]).by(4)
        held.append(round(process.memory_info().rss / MIB, 1))
    return {"asks": asks, "mib": held}


def import_seconds(repeats: int = 5) -> dict[str, float]:
    """Seconds of a new process that imports, by what it imports: medians, taking turns."""
    times: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for _ in range(repeats):
        for name, program in IMPORTS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], check=True)
            times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {name: round(value - (medians["python"] if name != "python" else 0), 3) for name, value in medians.items()}


class Questions:
    """A dataset whose worker processes answer: each loads the scorer that it was sent."""

    def __init__(self, scorer: Scorer, questions: list[Question]):
        self.scorer, self.questions = scorer, questions

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, number: int) -> dict[str, float]:
        return dict(ask(self.scorer, self.questions[number]))


def in_processes(scorer: Scorer, questions: list[Question], most_seconds: float = 120) -> dict:
    """What a spawned worker of a DataLoader answers, and what a forked child is told."""
    import multiprocessing

    from torch.utils.data import DataLoader

    expected = [dict(ask(scorer, question)) for question in questions]
    start = time.perf_counter()
    loader = DataLoader(
        Questions(scorer, questions), None, num_workers=1, multiprocessing_context="spawn", timeout=most_seconds
    )
    answers = list(loader)
    seconds = time.perf_counter() - start
    apart = max(abs(row[letter] - p) for row, one in zip(answers, expected) for letter, p in one.items())
    context = multiprocessing.get_context("fork")
    told = context.SimpleQueue()
    child = context.Process(target=_told, args=(scorer, questions[0], told.put))
    child.start()
    child.join(most_seconds)
    text = told.get() if not told.empty() else "nothing"
    child.kill()
    return {"worker_s": round(seconds, 2), "worker_largest_difference": apart, "forked_child_is_told": text}


def _told(scorer: Scorer, question: Question, tell: Callable[[str], object]) -> None:
    try:
        ask(scorer, question)
        tell("an answer")
    except Exception as error:
        tell(str(error))


def table_of(result: dict) -> str:
    """The results as a table for a terminal."""
    lines = [f"{'threads':>8}{'a second':>10}{'of score':>10}{'p50 ms':>9}{'p95 ms':>9}{'from score':>12}"]
    lines.append("─" * len(lines[0]))
    for way in result["asking"]:
        lines.append(
            f"{way['threads']:>8}{way['a_second']:>10.1f}{way['share_of_score']:>10.0%}{way['p50_ms']:>9.1f}"
            f"{way['p95_ms']:>9.1f}{way['largest_difference']:>12.1e}"
        )
    return "\n".join([*lines, f"score: {result['score_rows_per_second']:.1f} rows/s"])


@click.command()
@workload.size_option
@click.option("--rows", default=400, show_default=True, help="How many questions are asked; the demo has 400.")
@click.option("--threads", default="1,4,16,64", show_default=True, help="How many ask at once.")
@click.option("--repeats", default=3, show_default=True, help="Repeats, taking turns; medians are reported.")
@click.option("--members", default=1, show_default=True, help="How many checkpoints answer.")
@click.option("--weights", default="auto", show_default=True, help="Weights of the engine.")
@click.option("--memory", "asks", type=int, help="Also ask so many questions, and report the memory.")
@click.option("--processes", is_flag=True, help="Also time imports, and ask in other processes.")
@workload.full_size_options
def main(size, rows, threads, repeats, members, weights, asks, processes, tokenizer, layers, work, out) -> None:
    """Ask by threads and print a table."""
    rate = workload.matrix_rate()
    load = workload.of_size(size, workload.work_folder(work), tokenizer, rows, members, layers)
    questions = read_table(load.tables["single"]).questions[:rows]
    report = workload.circumstances(rate, size, layers) | {"members": members, "weights": weights}
    checkpoints = [str(name) for name in load.checkpoints[:members]]
    with Scorer.load(checkpoints, str(load.base), weights=weights) as scorer:
        scorer.score(questions[: min(len(questions), 256)])  # every shape once
        Asked(scorer, questions[:64]).by(1)
        report |= measure(scorer, questions, [int(count) for count in threads.split(",")], repeats)
        click.echo(f"{report['device']}, matrix product {rate / 1e12:.1f} TFLOP/s, {report['size']}")
        click.echo(table_of(report))
        if asks:
            report["memory"] = memory(scorer, questions, asks)
            click.echo(json.dumps(report["memory"]))
        if processes:
            report |= {"import_s": import_seconds(), **in_processes(scorer, questions[:3])}
            click.echo(json.dumps({name: report[name] for name in ("import_s", "worker_s", "forked_child_is_told")}))
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, report)


if __name__ == "__main__":
    main()
