"""Generate-plus-extract against the single forward pass, on the same rows in one run."""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import scoring
from scoring.engine.generate import extract_choice, generate_text
from scoring.engine.reference import reference_logits
from scoring.engine.scorer import Scorer
from scoring.inputs.prompt import LETTERS
from scoring.inputs.questions import Question
from scoring.results.compare import mcnemar
from scoring.results.files import write_text
from scoring.results.metrics import wilson

BATCH_ROWS = 16


def compare(scorer: Scorer, questions: list[Question], out: Path, progress: Callable) -> str:
    """Run all ways, write `bench.json`, and return a table.

    Each way takes every row from file to answer. `generate` is the notebook's: one row at a time, two greedy tokens,
    the letter dug out of the decoded text. `forward` is one row at a time too; `batched` is what `score` does.
    """
    network, prepare = scorer.model.network, scorer.prepare
    scorer.model.use(scorer.adapters[0])
    labels = scorer.label_ids[:4]
    generate_text(network, prepare.chat, *prepare(questions[0]))  # warm-up, not timed
    reference_logits(network, *prepare(questions[0]))

    rows, bar = [], progress(3 * len(questions))
    for question in questions:  # interleaved, so that a machine's drift hits both alike
        start = time.perf_counter()
        text, first = generate_text(network, prepare.chat, *prepare(question))
        letter, fallback = extract_choice(text)
        generated = time.perf_counter()
        logits = reference_logits(network, *prepare(question))
        options = logits[labels[: len(question.options)]]
        chosen, top = LETTERS[int(options.argmax())], int(logits.argmax())
        done = time.perf_counter()
        rows.append(
            {
                "id": question.id,
                "answer": question.answer,
                "generated": letter,
                "fallback": fallback,
                "text": text.strip().splitlines()[-1] if text.strip() else "",
                "forward": chosen,
                "first_token": first,
                "top_token": top,
                "generate_seconds": generated - start,
                "forward_seconds": done - generated,
            }
        )
        bar.update(2)
    start = time.perf_counter()
    batched = []
    for at in range(0, len(questions), BATCH_ROWS):
        part = scorer.score_batch(questions[at : at + BATCH_ROWS], 4)
        batched += [
            LETTERS[int(np.nanargmax(values[0, 0]))] if status == "ok" else ""
            for values, status in zip(part.logits, part.status)
        ]
        bar.update(len(part.ids))
    batched_seconds = time.perf_counter() - start
    bar.close()
    for row, letter in zip(rows, batched):
        row["batched"] = letter

    ways = {
        "generate": ("generated", sum(row["generate_seconds"] for row in rows)),
        "forward": ("forward", sum(row["forward_seconds"] for row in rows)),
        "batched": ("batched", batched_seconds),
    }
    answered = [row for row in rows if row["answer"]]
    right = {key: np.array([row[key] == row["answer"] for row in answered], bool) for key in ("generated", "forward")}
    report = {
        "rows": len(rows),
        "device": str(scorer.model.device),
        "dtype": str(scorer.model.dtype).removeprefix("torch."),
        "quantization": scorer.model.quantization,
        "checkpoint": scorer.plan.members[0],
        "versions": scoring.versions(),
        "ways": {name: _way(rows, key, seconds) for name, (key, seconds) in ways.items()},
        "agreement": statistics.mean(row["generated"] == row["forward"] for row in rows),
        "fallbacks": sum(row["fallback"] for row in rows),
        "same_first_token": sum(row["first_token"] == row["top_token"] for row in rows),
        "mcnemar_p": mcnemar(right["generated"], right["forward"]) if answered else None,
        "per_row": rows,
    }
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "bench.json", json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    return _table(report, out)


def _way(rows: list[dict], key: str, seconds: float) -> dict:
    """Speed of one way and, where there are answers, its accuracy with Wilson's 95 % interval."""
    way = {"seconds": seconds, "rows_per_second": len(rows) / seconds}
    answered = [row for row in rows if row["answer"]]
    if answered:
        right = sum(row[key] == row["answer"] for row in answered)
        way |= {"accuracy": right / len(answered)} | wilson(right, len(answered))
    return way


def _table(report: dict, out: Path) -> str:
    base = report["ways"]["generate"]["rows_per_second"]
    lines = [f"{'':<34}{'rows/s':>8}{'ratio':>8}{'accuracy':>10}{'95 %':>16}"]
    lines.append("─" * len(lines[0]))
    titles = {
        "generate": "generate 2 tokens, extract (seed)",
        "forward": "one forward, one row",
        "batched": f"one forward, {BATCH_ROWS} rows (score)",
    }
    for name, way in report["ways"].items():
        quality = f"{way['accuracy']:>10.3f}{way['low']:>9.3f} – {way['high']:.3f}" if "accuracy" in way else ""
        lines.append(f"{titles[name]:<34}{way['rows_per_second']:>8.1f}{way['rows_per_second'] / base:>7.2f}x{quality}")
    n = report["rows"]
    lines.append(
        f"generate and forward give the same letter in {report['agreement']:.1%} of {n} rows; "
        f'{report["fallbacks"]} fallbacks to "a"'
        + (f"; McNemar p = {report['mcnemar_p']:.2f}" if report["mcnemar_p"] is not None else "")
    )
    lines.append(f"generation starts with the forward's top token in {report['same_first_token']} of {n} rows")
    lines.append(f"all rows: {out / 'bench.json'}")
    return "\n".join(lines)
