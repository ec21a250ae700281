"""How many questions a second does `serve` answer, asked by 1 to 64 clients at once, and with the bits of `score`?

    python -m benchmarks.serving                                             the demo: two minutes on two cores
    python -m benchmarks.serving --size 8b --tokenizer DIR --work DIR --out FILE

`Scorer.score` of the same rows, `Scorer.ask` by one thread, and every number of clients take turns, `--repeats` times;
medians are reported. Clients are threads of a process of their own, each with a connection that stays open, over the
loopback; each asks for one row at a time, with the bytes of its picture's file in a data URL. A time is that from the
first byte of a request to the last of its answer.
"""

import base64
import http.client
import json
import multiprocessing
import statistics
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import click
import numpy as np

EACH = 64  # questions of a client, at most
STARTING_SECONDS = 60


def body_of(question: Any, model: str) -> bytes:
    """What a client of /v1/decisions asks for a row."""
    pictures = [
        {"type": "input_image", "image_url": "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()}
        for path in question.pictures
    ]
    asked = {
        "type": "choice",
        "instructions": question.question,
        "choices": [{"value": option} for option in question.options],
        "hint": question.task_hint,
        "task_type": question.task_type,
    }
    given = [{"role": "user", "content": pictures}] if pictures else ""
    return json.dumps({"model": model, "input": given, "questions": [asked]}, ensure_ascii=False).encode()


def ask_all(port: int, bodies: list[bytes], clients: int) -> tuple[float, list[float], list[list[float]]]:
    """Seconds of all requests together, of each, and the probabilities of each; in a process of its own."""
    seconds = [0.0] * len(bodies)
    found: list[list[float]] = [[] for _ in bodies]
    numbers, lock, errors = iter(range(len(bodies))), threading.Lock(), []

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        try:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                start = time.perf_counter()
                connection.request("POST", "/v1/decisions", bodies[number], {"content-type": "application/json"})
                response = connection.getresponse()
                content = response.read()
                seconds[number] = time.perf_counter() - start
                if response.status != 200:
                    raise OSError(content[:500])
                answer = json.loads(content)["answers"][0]
                found[number] = [each["probability"] for each in answer["probabilities"]]
        except BaseException as error:
            errors.append(str(error))
        finally:
            connection.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise RuntimeError(errors[0])
    return time.perf_counter() - start, seconds, found


def measure(scorer: Any, port: int, questions: list[Any], counts: list[int], repeats: int) -> dict[str, Any]:
    """Rows a second of `score` and of each number of clients, with latencies and the largest difference of a p."""
    from benchmarks.library import Asked, medians

    bodies = [body_of(question, "demo") for question in questions]
    context = multiprocessing.get_context("spawn")
    scored: list[float] = []
    asked_p50: list[float] = []
    ways: dict[int, list[dict[str, float]]] = {count: [] for count in counts}
    with ProcessPoolExecutor(1, context) as others:
        others.submit(ask_all, port, bodies[:64], 4).result()  # every shape once, and the process is there
        for _ in range(repeats):
            start = time.perf_counter()
            answers = scorer.score(questions)
            scored.append(len(questions) / (time.perf_counter() - start))
            asked = Asked(scorer, questions[:EACH])
            asked.by(1)
            asked_p50.append(float(np.percentile(asked.seconds, 50)) * 1e3)
            for count in counts:
                part = bodies[: EACH * count]
                whole, seconds, found = others.submit(ask_all, port, part, count).result()
                pairs = [zip(row, answer.values()) for row, answer in zip(found, answers)]
                apart = max(abs(p - q) for row in pairs for p, q in row)
                p50, p95 = np.percentile(seconds, [50, 95]) * 1e3
                ways[count].append({"a_second": len(part) / whole, "p50_ms": p50, "p95_ms": p95, "apart": apart})
    results = [{"clients": count, **medians(runs, scored)} for count, runs in ways.items()]
    return {
        "rows": len(questions),
        "repeats": repeats,
        "score_rows_per_second": round(statistics.median(scored), 2),
        "ask_p50_ms": round(statistics.median(asked_p50), 2),
        "serving": results,
    }


def table_of(result: dict[str, Any]) -> str:
    """The results as a table for a terminal."""
    lines = [f"{'clients':>8}{'a second':>10}{'of score':>10}{'p50 ms':>9}{'p95 ms':>9}{'from score':>12}"]
    lines.append("─" * len(lines[0]))
    for way in result["serving"]:
        lines.append(
            f"{way['clients']:>8}{way['a_second']:>10.1f}{way['share_of_score']:>10.0%}{way['p50_ms']:>9.1f}"
            f"{way['p95_ms']:>9.1f}{way['largest_difference']:>12.1e}"
        )
    score, ask = result["score_rows_per_second"], result["ask_p50_ms"]
    return "\n".join([*lines, f"score: {score:.1f} rows/s; Scorer.ask by one thread: p50 {ask:.1f} ms"])


def benchmark() -> click.Command:
    """The command; what it imports loads torch, which the clients' process does without."""
    from benchmarks import workload
    from scoring import Scorer
    from scoring.files.writing import write_json
    from scoring.serving.server import listen, make_server
    from scoring.serving.settings import ServeSettings
    from scoring.tables.reading import read_table

    @click.command()
    @workload.size_option
    @click.option("--rows", default=400, show_default=True, help="How many questions are asked; the demo has 400.")
    @click.option("--clients", default="1,8,64", show_default=True, help="How many ask at once.")
    @click.option("--repeats", default=3, show_default=True, help="Repeats, taking turns; medians are reported.")
    @click.option("--weights", default="auto", show_default=True, help="Weights of the engine.")
    @workload.full_size_options
    def main(size, rows, clients, repeats, weights, tokenizer, layers, work, out) -> None:
        """Ask over HTTP and print a table."""
        rate = workload.matrix_rate()
        load = workload.of_size(size, workload.work_folder(work), tokenizer, rows, 1, layers)
        table = read_table(load.tables["single"])
        different = [row for row in table.questions if len({*row.options}) == len(row.options)]
        questions = different[:rows]  # the choices of a request are told apart by their texts
        report = workload.circumstances(rate, size, layers) | {"weights": weights}
        settings = ServeSettings(("demo",), port=0)
        checkpoint, base = str(load.checkpoints[0]), str(load.base)
        with Scorer.load(checkpoint, base, weights=weights) as scorer, listen(settings) as bound:
            scorer.score(questions[: min(len(questions), 256)])  # every shape once
            server = make_server(scorer, settings)
            thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
            thread.start()
            counts = [int(count) for count in clients.split(",")]
            report |= measure(scorer, bound.getsockname()[1], questions, counts, repeats)
            server.should_exit = True
            thread.join(STARTING_SECONDS)
        click.echo(f"{report['device']}, matrix product {rate / 1e12:.1f} TFLOP/s, {report['size']}")
        click.echo(table_of(report))
        if out:
            out.parent.mkdir(parents=True, exist_ok=True)
            write_json(out, report)

    return main


if __name__ == "__main__":
    benchmark()()
