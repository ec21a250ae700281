"""A resumable run: plan the batches, score what has no part yet, write the results.

Which rows form which batch is decided from the whole table before the first is scored, and written down with
everything the logits depend on (`plan.json`). A part is a batch. A run that was killed computes the same batches
again, skips those that have their part, and ends with the same bytes.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import scoring
from scoring.engine.scorer import Plan, Scorer, machine
from scoring.inputs.pictures import PictureError
from scoring.inputs.questions import Question, Table
from scoring.results.files import write_text
from scoring.results.folder import RunError, warnings_of, write_results
from scoring.results.logits import OptionLogits, part_path, read_parts, write_part

BATCH_TOKENS = {"cpu": 2_560, "cuda": 16_384}  # padded tokens a batch


@dataclass
class Finished:
    """What a run leaves: its results as read back from the parts, and what is to be said about them."""

    logits: OptionLogits
    metrics: dict | None
    warnings: list[str]
    scored_now: int
    seconds: float


def plan_batches(lengths: list[int], budget: int) -> list[list[int]]:
    """Row numbers of each batch: like lengths together, at most `budget` padded tokens (but one row at least)."""
    order = sorted(range(len(lengths)), key=lambda row: (lengths[row], row))
    batches: list[list[int]] = []
    for row in order:
        if batches and (len(batches[-1]) + 1) * lengths[row] <= budget:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def run(
    table: Table,
    plan: Plan,
    out: Path,
    batch_tokens: int | None = None,
    overwrite: bool = False,
    progress: Callable | None = None,
    say: Callable[[str], None] = print,
) -> Finished:
    """Score a table into `out`; go on where an earlier run with the same inputs stopped.

    progress: `progress(total_rows, done_rows)` gives an object with `update(rows)` and `close()`.
    Raises RunError where `out` holds the results of other inputs (unless `overwrite`).
    """
    here = machine()
    identity = {
        "data": table.digest,
        "rows": len(table.questions),
        **plan.identity,
        **here,
        "letters": table.letters,
        "batch_tokens": batch_tokens or BATCH_TOKENS[here["device"]],
    }
    parts = _claim(out, identity, overwrite)
    label_ids = plan.preparer.chat.label_ids(table.letters)
    status, lengths, planned = {}, [], []
    for question in table.questions:
        if question.fault:
            status[question.id] = question.fault
            continue
        try:
            lengths.append(len(plan.preparer.encode(question).ids))
            planned.append(question)
        except PictureError as error:
            status[question.id] = error.found
    batches = plan_batches(lengths, identity["batch_tokens"])
    todo = [number for number in range(len(batches)) if not part_path(parts, number).exists()]
    done = len(planned) - sum(len(batches[number]) for number in todo)
    if done:
        say(f"going on: {done:,} of {len(planned):,} rows have their scores already")
    load_seconds, start = 0.0, time.monotonic()
    if todo:
        scorer = Scorer(plan)
        load_seconds = time.monotonic() - start
        for note in scorer.model.notes:
            say(note)
        plan.notes += scorer.model.notes
        start = time.monotonic()
        _score(scorer, planned, batches, todo, parts, len(table.letters), done, progress)
    seconds = time.monotonic() - start
    logits = read_parts(parts, [question.id for question in table.questions], plan.members, len(table.letters))
    for row, question in enumerate(table.questions):
        logits.status[row] = status.get(question.id, logits.status[row])
    metrics = write_results(out, table.questions, logits, plan.temperatures)
    finished = Finished(logits, metrics, warnings_of(logits, label_ids), len(planned) - done, seconds)
    write_text(
        out / "run.json",
        json.dumps(
            {
                "command": sys.argv,
                "data": {"file": str(table.file), "sha256": table.digest},
                "base": str(plan.checkpoints[0].manifest.base),
                "checkpoints": [
                    {
                        "member": member,
                        "folder": str(checkpoint.folder),
                        "fingerprint": fingerprint,
                        "temperature": temperature,
                    }
                    for checkpoint, (member, fingerprint), temperature in zip(
                        plan.checkpoints, plan.identity["adapters"].items(), plan.temperatures
                    )
                ],
                "identity": identity,
                "versions": scoring.versions(),
                "notes": plan.notes,
                "warnings": finished.warnings,
                "counts": {
                    "rows": len(logits.ids),
                    "scored": int(logits.scored.sum()),
                    "scored_now": finished.scored_now,
                    "unscored": int((~logits.scored).sum()),
                    "batches": len(batches),
                },
                "seconds": {"loading": round(load_seconds, 3), "scoring": round(seconds, 3)},
            },
            indent=2,
            ensure_ascii=False,
        )
        + "\n",
    )
    return finished


def _claim(out: Path, identity: dict, overwrite: bool) -> Path:
    """The folder of parts of this very run; made, or checked to be the same as before."""
    parts, path = out / "logits", out / "plan.json"
    if overwrite and path.exists():
        shutil.rmtree(parts, ignore_errors=True)
        path.unlink()
    if path.exists():
        before = json.loads(path.read_text("utf-8"))
        changed = [key for key in identity if before.get(key) != identity[key]]
        if changed:
            differences = "; ".join(f"{key} was {before.get(key)}, now {identity[key]}" for key in changed)
            raise RunError(
                f"{out} holds the results of another run: {differences}. "
                "Choose another --out, or start anew with --overwrite"
            )
    elif out.exists() and not overwrite and any(not _left_by_a_start(path) for path in out.iterdir()):
        raise RunError(f"{out} exists and holds other files; choose another --out, or add --overwrite")
    parts.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        write_text(path, json.dumps(identity, indent=2, ensure_ascii=False) + "\n")
    for unfinished in parts.glob("*.tmp"):
        unfinished.unlink()
    return parts


def _left_by_a_start(path: Path) -> bool:
    """What a run leaves that was killed before its plan was written."""
    return path.name == "plan.json.tmp" or (path.name == "logits" and path.is_dir() and not any(path.iterdir()))


def _score(
    scorer: Scorer,
    questions: list[Question],
    batches: list[list[int]],
    todo: list[int],
    parts: Path,
    letters: int,
    done: int,
    progress: Callable | None,
) -> None:
    bar = progress(len(questions), done) if progress else None
    try:
        for number in todo:
            write_part(parts, number, scorer.score_batch([questions[row] for row in batches[number]], letters))
            if bar:
                bar.update(len(batches[number]))
    finally:
        if bar:
            bar.close()
