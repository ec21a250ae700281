"""A resumable run: plan the batches, score what has no part yet, write the results.

Which rows form which batch is decided from the whole table before the first is scored, and written down with
everything the logits depend on (`plan.json`). A part is a batch. A run that was killed computes the same batches
again, skips those that have their part, and ends with the same bytes.
"""

import gc
import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

import scoring
from scoring.engine.batches import Cost, Ready, costs_of, make_ready, plan_batches, read_ahead
from scoring.engine.forward import AnswerLogits
from scoring.engine.packed import compiling_pays
from scoring.engine.plan import Plan
from scoring.engine.scorer import Scorer, machine
from scoring.inputs.pictures import PictureError
from scoring.inputs.questions import Question, Table
from scoring.results.files import write_text
from scoring.results.folder import RunError, evaluate_folder, warnings_of, write_results
from scoring.results.logits import OptionLogits, part_path, read_parts, write_part

WARM_UP_ROWS = 8


@dataclass
class RunOptions:
    """How a run is done. `None` and "auto" are chosen by what this machine has, and written down."""

    orders: str = "1"
    batch_tokens: int | None = None
    weights: str = "auto"
    compile: str = "auto"
    overwrite: bool = False


@dataclass
class Finished:
    """What a run leaves: its results as read back from the parts, and what is to be said about them."""

    logits: OptionLogits
    metrics: dict | None
    warnings: list[str]
    scored_now: int
    seconds: dict[str, float]
    peak_bytes: int = 0


def run(
    table: Table,
    plan: Plan,
    out: Path,
    options: RunOptions | None = None,
    progress: Callable | None = None,
    say: Callable[[str], None] = print,
    scorer: Scorer | None = None,
) -> Finished:
    """Score a table into `out`; go on where an earlier run with the same inputs stopped.

    progress: `progress(total_rows, done_rows)` gives an object with `update(rows)`, `show(**values)` and `close()`.
    scorer: of this plan, where it is loaded already. Raises RunError where `out` holds the results of other inputs.
    """
    gc.freeze()  # the model's and the libraries' objects live on: looking through them cost .6 s of a run of 10 s
    try:
        return _run(_Job(table, plan, out, options or RunOptions(), say, scorer), progress)
    finally:
        gc.unfreeze()


def _run(job: "_Job", progress: Callable | None) -> Finished:
    start = time.monotonic()
    job.plan_rows()
    seconds = {"planning": time.monotonic() - start - job.load_seconds, "loading": 0.0, "compiling": 0.0}
    if job.todo:
        job.load()
        seconds |= {"loading": job.load_seconds, "compiling": job.warm_up()}
    start = time.monotonic()
    if job.todo:
        job.score(progress)
    logits = job.read()
    log_p = write_results(job.out, job.table.questions, logits, job.plan.temperatures)
    seconds |= {"scoring": time.monotonic() - start, "waiting_for_pictures": job.waited}
    metrics = evaluate_folder(job.out, logits, log_p)
    finished = Finished(
        logits, metrics, warnings_of(logits, job.label_ids), len(job.planned) - job.done, seconds, job.peak_bytes
    )
    job.write_about(finished)
    return finished


@dataclass
class _Job:
    """One call of `run`, step by step."""

    table: Table
    plan: Plan
    out: Path
    options: RunOptions
    say: Callable[[str], None]
    scorer: Scorer | None = None
    status: dict[str, str] = field(default_factory=dict)  # of rows that no batch holds
    planned: list[Question] = field(default_factory=list)
    load_seconds: float = 0.0
    waited: float = 0.0  # for pictures that were not read yet
    peak_bytes: int = 0

    def plan_rows(self) -> None:
        """Claim the folder, and decide which rows form which batch."""
        self.letters = len(self.table.letters)
        self.label_ids = self.plan.preparer.chat.label_ids(self.table.letters)
        identity = {
            "data": self.table.digest,
            "rows": len(self.table.questions),
            **self.plan.identity,
            **machine(),
            "letters": self.table.letters,
            "orders": self.options.orders,
        }
        asked = {"batch_tokens": self.options.batch_tokens}
        if self.options.compile != "auto":
            asked["compile"] = self.options.compile == "on"
        before = check_folder(
            self.out,
            identity | {key: value for key, value in asked.items() if value is not None},
            self.options.overwrite,
        )
        costs = self._costs()
        self.tokens = sum(cost.own for cost in costs) + sum({cost.picture: cost.seen for cost in costs}.values())
        if before:
            self.state = before
        else:
            self.state = identity | self._chosen(asked) | {"split": 1}
        self.parts = claim_folder(self.out, self.state, before)
        self.batches = plan_batches(costs, self.state["batch_tokens"])
        self.todo = [number for number in range(len(self.batches)) if not part_path(self.parts, number).exists()]
        self.done = len(self.planned) - sum(len(self.batches[number]) for number in self.todo)
        if self.done:
            self.say(f"going on: {self.done:,} of {len(self.planned):,} rows have their scores already")

    def _costs(self) -> list[Cost]:
        """What each row that can be scored adds to a batch; the others' reasons go into `status`."""
        good = [question for question in self.table.questions if not question.fault]
        self.status = {question.id: question.fault for question in self.table.questions if question.fault}
        costs = []
        for question, found in zip(good, costs_of(self.plan.preparer, good, self.options.orders)):
            if isinstance(found, PictureError):
                self.status[question.id] = found.found
            else:
                self.planned.append(question)
                costs.append(found)
        return costs

    def _chosen(self, asked: dict) -> dict:
        """What this run decides for itself, once: a run that goes on uses the same."""
        chosen = dict(asked)
        if chosen["batch_tokens"] is None:
            self.load()
            chosen["batch_tokens"] = self.scorer.packed.batch_tokens()
        if "compile" not in chosen:
            chosen["compile"], why = compiling_pays(self.plan.base, self.tokens * len(self.plan.members))
            if why:
                self.say(why)
        return chosen

    def load(self) -> None:
        if self.scorer is None:
            start = time.monotonic()
            self.scorer = Scorer(self.plan, weights=self.options.weights)
            self.load_seconds = time.monotonic() - start
            for note in self.scorer.model.notes:
                self.say(note)
            self.plan.notes += self.scorer.model.notes

    def warm_up(self) -> float:
        """Compile, where that was chosen, on a few rows whose results are dropped; seconds that it took."""
        if not self.state["compile"]:
            return 0.0
        start = time.monotonic()
        if not self.scorer.packed.compiled:
            self.say("compiling the layers for this card (the next run finds most of it on disk) …")
            self.scorer.packed.compile()
        rows = [self.planned[row] for row in self.batches[self.todo[0]][:WARM_UP_ROWS]]
        ready = make_ready(self.plan.preparer, rows, self.options.orders)
        for found in self.scorer.answer(ready, self.letters):
            found.top.cpu()
        return time.monotonic() - start

    # ------------------------------------------------------------ scoring
    def score(self, progress: Callable | None) -> None:
        """Every batch that has no part yet; while one is on the device, the last one's results are written."""
        device = self.scorer.model.device.type
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        batches = [[self.planned[row] for row in self.batches[number]] for number in self.todo]
        bar = progress(len(self.planned), self.done) if progress else None
        waiting = None
        ahead = read_ahead(self.plan.preparer, batches, self.options.orders, device)
        try:
            for number in self.todo:
                start = time.monotonic()
                ready = next(ahead)
                self.waited += time.monotonic() - start
                begun = self._begin(ready)
                if waiting:
                    self._finish(*waiting, bar)
                waiting = number, ready, begun
            if waiting:
                self._finish(*waiting, bar)
        finally:
            ahead.close()
            if bar:
                bar.close()
            if device == "cuda":
                self.peak_bytes = torch.cuda.max_memory_allocated()

    def _begin(self, ready: Ready) -> list[tuple[Ready, list[AnswerLogits]]]:
        """The forward of a batch, in as many pieces as memory has been found to need."""
        pieces = [ready]
        for _ in range(self.state["split"].bit_length() - 1):
            pieces = [half for piece in pieces for half in piece.halves()]
        begun = []
        while pieces:
            piece = pieces.pop(0)
            try:
                begun.append((piece, self.scorer.answer(piece, self.letters)))
                continue
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
            torch.cuda.empty_cache()  # outside of `except`: the trace would keep the tensors
            halves = piece.halves()
            if len(halves) == 1:
                piece.faults |= dict.fromkeys(piece.rows, "out of memory, alone in its batch")
                begun.append((piece, []))
                continue
            self._split(ready, len(begun) + len(pieces) + 2)
            pieces = halves + pieces
        return begun

    def _split(self, ready: Ready, pieces: int) -> None:
        """Remember that batches of this run must be cut into pieces: this and the next starts do so at once."""
        split = self.state["split"]
        while split < pieces:
            split *= 2
        if split > self.state["split"]:
            if self.state["split"] == 1:
                self.say(
                    f"out of memory with {self.state['batch_tokens']:,} tokens a batch: going on in pieces that fit; "
                    "a smaller --batch-tokens fits at once"
                )
            self.state["split"] = split
            write_plan(self.out, self.state)

    def _finish(self, number: int, ready: Ready, begun: list, bar) -> None:
        """Results of a batch into its part. Rows of a part stand in the batch's order, however it was cut."""
        part = OptionLogits.empty(
            [question.id for question in ready.questions], self.plan.members, self.letters, self.options.orders
        )
        for piece, answers in begun:
            part.take(self.scorer.collect(piece, answers, self.letters, self.options.orders))
        for row, fault in ready.faults.items():
            part.status[row] = fault
        write_part(self.parts, number, part)
        if bar:
            if self.scorer.model.device.type == "cuda":
                bar.show(GPU=f"{torch.cuda.memory_reserved() / 2**30:.1f} GiB")
            bar.update(len(ready.questions))

    # ------------------------------------------------------------ results
    def read(self) -> OptionLogits:
        logits = read_parts(
            self.parts,
            [question.id for question in self.table.questions],
            self.plan.members,
            self.letters,
            self.options.orders,
        )
        for row, question in enumerate(self.table.questions):
            logits.status[row] = self.status.get(question.id, logits.status[row])
        return logits

    def write_about(self, finished: Finished) -> None:
        """`run.json`, last of all: what was done, with what, and how long it took."""
        plan, logits = self.plan, finished.logits
        about = {
            "command": sys.argv,
            "data": {"file": str(self.table.file), "sha256": self.table.digest},
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
            "identity": {key: value for key, value in self.state.items() if key != "split"},
            "weights": self.scorer.packed.weights if self.scorer else None,
            "split": self.state["split"],
            "versions": scoring.versions(),
            "notes": plan.notes,
            "warnings": finished.warnings,
            "counts": {
                "rows": len(logits.ids),
                "scored": int(logits.scored.sum()),
                "scored_now": finished.scored_now,
                "unscored": int((~logits.scored).sum()),
                "batches": len(self.batches),
                "tokens": self.tokens,
            },
            "seconds": {key: round(value, 3) for key, value in finished.seconds.items()},
            "peak_gpu_bytes": finished.peak_bytes,
        }
        write_text(self.out / "run.json", json.dumps(about, indent=2, ensure_ascii=False) + "\n")


def out_of_memory(error: Exception) -> bool:
    """Of the card, or of the host (which PyTorch tells by a bare RuntimeError)."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


# ------------------------------------------------------------------ the folder of a run
def write_plan(out: Path, state: dict) -> None:
    write_text(out / "plan.json", json.dumps(state, indent=2, ensure_ascii=False) + "\n")


def check_folder(out: Path, identity: dict, overwrite: bool) -> dict | None:
    """The plan of this very run, where it was begun before; None where it is new. Raises RunError for another's."""
    path = out / "plan.json"
    if overwrite and path.exists():
        shutil.rmtree(out / "logits", ignore_errors=True)
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
        return before
    if out.exists() and not overwrite and any(not _left_by_a_start(path) for path in out.iterdir()):
        raise RunError(f"{out} exists and holds other files; choose another --out, or add --overwrite")
    return None


def claim_folder(out: Path, state: dict, before: dict | None) -> Path:
    """The folder of parts, made where it is new, rid of what was half written."""
    parts = out / "logits"
    parts.mkdir(parents=True, exist_ok=True)
    if before is None:
        write_plan(out, state)
    for unfinished in parts.glob("*.tmp"):
        unfinished.unlink()
    return parts


def _left_by_a_start(path: Path) -> bool:
    """What a run leaves that was killed before its plan was written."""
    return path.name == "plan.json.tmp" or (path.name == "logits" and path.is_dir() and not any(path.iterdir()))
