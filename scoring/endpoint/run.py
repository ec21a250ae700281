"""A resumable run over an endpoint: ask for the rows that have no score yet, file their answers, write the results.

Answers are filed as they come, some hundred to a part. The same call asks for the rows that have no score: those that
were not asked, and those that got no answer. It ends early where nobody answers: no row by which that is found out gets
lost, and none is asked in vain.
"""

import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np

import scoring
from scoring.endpoint.address import Address
from scoring.endpoint.answers import describe_rounding
from scoring.endpoint.asking import Asker, RowAnswer, Usage, ask_rows
from scoring.endpoint.client import Client, Patience
from scoring.endpoint.errors import EndpointError, StoppedError
from scoring.endpoint.requests import Server, names_letters
from scoring.errors import CallError, counted
from scoring.files.lock import lock_folder
from scoring.files.reading import read_object
from scoring.files.writing import write_json
from scoring.inputs.orders import CYCLIC_SUBSETS, check_orders
from scoring.inputs.referring import count_referring
from scoring.messages import Progress, ProgressBar, Say
from scoring.run.run_folder import RunState, prepare_folder, read_state
from scoring.scores.evaluation import LOW_MASS, exposure_warnings
from scoring.scores.external import read_calibrations
from scoring.scores.finalize import ScoredRun, write_run
from scoring.scores.folder import Columns, columns_of
from scoring.scores.logits import Layout, OptionLogits, read_parts, write_part
from scoring.scores.members import Member, match_calibrations
from scoring.scores.probabilities import member_logits
from scoring.stats.calibration import Calibration
from scoring.stats.sets import SetRequest, check_sets
from scoring.tables.sample import SampleSubmission
from scoring.tables.table import Table

PART_ROWS, PART_SECONDS = 256, 15.0  # a part is filed after so many rows, or so long
FEWEST_FAILED = 20  # rows without an answer, one after the other, after which nothing more is asked
USAGE = "usage.json"


@dataclass(frozen=True)
class EndpointOptions:
    """Who is asked, and how. orders: 1, cyclic, all or a number. calibration: a file. price: of 1M input tokens."""

    address: Address
    model: str
    token: str | None = field(default=None, repr=False)
    concurrency: int = 8
    patience: Patience = Patience()
    orders: str = "1"
    calibration: Path | None = None
    sets: SetRequest | None = None
    sample: SampleSubmission | None = None
    price: float | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.orders in CYCLIC_SUBSETS:
            raise CallError(f"--orders {self.orders} with --endpoint: expected 1, cyclic, all or a number")

    @property
    def member(self) -> str:
        """What results call the model."""
        return self.address.member(self.model)


@dataclass
class EndpointContext:
    """What a run talks to. stop: once it is set, the rows that are asked are filed, and KeyboardInterrupt raised."""

    progress: Progress
    say: Say = print
    stop: Event = field(default_factory=Event)


@dataclass
class EndpointResult:
    """What a run leaves. scored_now: rows that this call scored. usage: of all calls. notes: sentences about it."""

    logits: OptionLogits
    metrics: dict[str, Any] | None
    warnings: list[str]
    scored_now: int
    seconds: dict[str, float]
    usage: Usage
    notes: list[str]


def score_endpoint(table: Table, out: Path, options: EndpointOptions, context: EndpointContext) -> EndpointResult:
    """Score a table into `out` by asking an endpoint; go on where an earlier run with the same inputs stopped.

    Raises EndpointError where nobody answers there, the token, model or route is wrong, or all rows fail; RunError
    where `out` holds the results of other inputs; OrdersError, InputError (sample), EnsembleError (calibration),
    SetsError; KeyboardInterrupt once it is asked to stop and has filed what was asked.
    """
    check_orders(table.questions, options.orders)
    if options.sample:
        options.sample.rows_in([question.id for question in table.questions])
    with lock_folder(out):
        return _EndpointRun(table, out, options, context).run()


class _EndpointRun:
    def __init__(self, table: Table, out: Path, options: EndpointOptions, context: EndpointContext):
        self.table, self.out, self.options, self.context = table, out, options, context
        self.questions = table.questions
        ids = [question.id for question in self.questions]
        self.layout = Layout(ids, [options.member], len(table.letters), options.orders)
        self.usage = Usage()
        self.seconds = 0.0
        self.failed = 0  # rows without an answer, one after the other
        self.any_scored = False

    def run(self) -> EndpointResult:
        columns = columns_of(self.questions)
        self._calibrated(self._empty(), columns)  # raises before anything is asked
        self._begin()
        todo = self._todo()
        if todo:
            self._ask(todo)
        logits = read_parts(self.out / "logits", self.layout)
        for row, question in enumerate(self.questions):
            logits.status[row] = question.fault or logits.status[row]
        calibration, exposed = self._calibrated(logits, columns)
        columns["exposed"] = exposed.tolist()
        warnings = [*_low_mass(logits), *exposure_warnings(logits.members, exposed)]
        notes = self._notes(logits)
        scored_now = int(logits.scored[todo].sum()) if todo else 0
        run_json = self._run_json(calibration, len(todo), notes)
        written = write_run(
            ScoredRun(
                self.out, run_json, columns, logits, [calibration], [], self.options.sets, warnings, self.options.sample
            )
        )
        return EndpointResult(
            logits, written.metrics, written.warnings, scored_now, {"scoring": self.seconds}, self.usage, notes
        )

    # ------------------------------------------------------------ before and after
    def _identity(self) -> dict[str, Any]:
        """What the probabilities depend on."""
        table, options = self.table, self.options
        return {
            "data": table.digest,
            "rows": len(self.questions),
            "endpoint": options.address.route,
            "model": options.model,
            "letters": table.letters,
            "orders": options.orders,
            **table.identity(),
        }

    def _begin(self) -> None:
        """Take up the folder. Raises RunError where it holds another run."""
        identity = self._identity()
        before = read_state(self.out, identity, self.options.overwrite)
        if before is None:
            (self.out / USAGE).unlink(missing_ok=True)
        prepare_folder(self.out, before or RunState(identity, 0, False), before is None)
        self.usage = read_object(Usage, self.out / USAGE) or Usage()

    def _todo(self) -> list[int]:
        """The rows that have no score, and can be asked."""
        scored = read_parts(self.out / "logits", self.layout).scored
        self.any_scored = bool(scored.any())
        return [row for row, question in enumerate(self.questions) if not question.fault and not scored[row]]

    def _empty(self, rows: Sequence[int] | None = None) -> OptionLogits:
        layout = self.layout
        ids = layout.ids if rows is None else [layout.ids[row] for row in rows]
        return OptionLogits.empty(ids, layout.members, layout.letters, layout.orders)

    def _calibrated(self, logits: OptionLogits, columns: Columns) -> tuple[Calibration, np.ndarray]:
        """The calibration of --calibration, and (N, 1) flags of the rows that it was fitted on."""
        entry = {"orders": self.options.orders, "letters": self.table.letters}
        member = Member(logits.members[0], logits.ids, member_logits(logits, 0), questions=columns, entry=entry)
        if self.options.calibration:
            [member] = match_calibrations([member], read_calibrations(self.options.calibration))
        if self.options.sets:
            check_sets([member.calibration], self.options.sets, self.options.orders)
        return member.calibration, member.flags[:, None]

    # ------------------------------------------------------------ asking
    def _ask(self, todo: list[int]) -> None:
        """Ask for these rows, and file the answers. Raises EndpointError, or KeyboardInterrupt."""
        options, context = self.options, self.context
        with Client(options.address, options.token, options.patience, options.concurrency, context.stop) as client:
            try:
                server = Server(options.address.api, options.model, client.is_ours())
            except StoppedError:
                raise KeyboardInterrupt from None
            self._tell(server, todo)
            known = sum(not question.fault for question in self.questions)
            bar = context.progress(known, known - len(todo))
            waiting: list[RowAnswer] = []
            start = filed = time.monotonic()
            ask, answered = Asker(client, server, options.orders).ask, 0
            try:
                with closing(ask_rows(ask, self.questions, todo, options.concurrency, context.stop)) as answers:
                    for answer in answers:
                        answered += 1
                        waiting.append(answer)
                        self._count(answer, bar)
                        if len(waiting) >= PART_ROWS or time.monotonic() - filed > PART_SECONDS:
                            self._file(waiting)
                            waiting, filed = [], time.monotonic()
            finally:
                self._file(waiting)
                bar.close()
                self.seconds = time.monotonic() - start
        if answered < len(todo):
            raise KeyboardInterrupt(f"{known - len(todo) + answered:,} of {counted(known, 'row')} asked")

    def _tell(self, server: Server, todo: list[int]) -> None:
        """Say what a person should know before it costs money."""
        address, say = self.options.address, self.context.say
        if address.route.startswith("http:") and self.options.token and not address.is_here:
            say("the token is sent unencrypted: --endpoint has http, not https")
        if lettered := sum(names_letters(self.questions[row]) for row in todo):
            say(
                f"{counted(lettered, 'row')} of {len(todo):,} with options that read alike, are blank or are pictures: "
                "their options are named by letters"
            )
        whose = "our own server: hints and task types are sent, too" if server.is_ours else "another server"
        say(f"{counted(len(todo), 'row')} to ask for at {address.route} ({whose})")

    def _count(self, answer: RowAnswer, bar: ProgressBar) -> None:
        """Raises EndpointError where row after row gets no answer."""
        self.usage.add(answer.usage)
        bar.update(1)
        if (cost := self.usage.cost(self.options.price)) is not None:
            bar.show(cost=f"{cost:.2f}")
        if scored := len(answer.logits) > 0:
            self.any_scored = True
        elif not answer.overloaded and self.any_scored:
            return  # of this row alone
        self.failed = 0 if scored else self.failed + 1
        if self.failed >= max(FEWEST_FAILED, 2 * self.options.concurrency):
            raise EndpointError(
                f"{self.options.address.route}: {self.failed} rows one after the other have no answer, the last: "
                f"{answer.status}; nothing more is asked. Once that is mended, the same command goes on"
            )

    def _file(self, answers: list[RowAnswer]) -> None:
        """Write a part of these answers, and what all answers took."""
        if not answers:
            return
        answers = sorted(answers, key=lambda answer: answer.row)
        part = self._empty([answer.row for answer in answers])
        for index, answer in enumerate(answers):
            orders, letters = answer.logits.shape
            part.logits[index, 0, :orders, :letters] = answer.logits
            part.label_mass[index, 0, :orders] = answer.label_mass
            part.status[index] = answer.status
        parts = sorted((self.out / "logits").glob("part-*.parquet"))
        number = int(parts[-1].stem.removeprefix("part-")) + 1 if parts else 0
        write_part(self.out / "logits", number, part)
        write_json(self.out / USAGE, asdict(self.usage))

    # ------------------------------------------------------------ what is recorded
    def _notes(self, logits: OptionLogits) -> list[str]:
        """What a reader of the numbers should know of them."""
        notes = [describe_rounding(logits.logits)] if logits.scored.any() else []
        fixed = count_referring(self.questions) if self.options.orders != "1" else 0
        if fixed:
            notes.append(f"{counted(fixed, 'row')} whose options refer to each other: asked in one order alone")
        usage = self.usage
        if usage.requests:
            cost = usage.cost(self.options.price)
            told = f"{counted(usage.requests, 'answer')}, {counted(usage.input_tokens, 'input token')}"
            told += f" without those of {usage.uncounted:,} answers that tell none" if usage.uncounted else ""
            notes.append(told + ("" if cost is None else f", cost {cost:,.4g} at {self.options.price:g} a million"))
        if len(usage.models) > 1:
            names = ", ".join(f"{name} ({count:,})" for name, count in usage.models.items())
            notes.append(f"answered by more than one model: {names}")
        return notes

    def _run_json(self, calibration: Calibration, asked: int, notes: list[str]) -> dict[str, Any]:
        """run.json, except for what follows from the logits."""
        options = self.options
        identity = self._identity()
        return {
            "command": sys.argv,
            "data": self.table.about(),
            "checkpoints": [
                {
                    "member": options.member,
                    "fingerprint": None,
                    "orders": options.orders,
                    "temperature": calibration.temperature,
                    "calibration": calibration.stripped(),
                    "endpoint": options.address.route,
                    "model": options.model,
                }
            ],
            "identity": identity,
            "usage": asdict(self.usage)
            | {"price_per_million_input_tokens": options.price, "cost": self.usage.cost(options.price)},
            "versions": scoring.versions(),
            "notes": notes,
            "warnings": [],  # added when the run is finished
            "counts": {"rows": len(self.questions), "scored": 0, "scored_now": asked, "unscored": 0},
            "seconds": {"scoring": round(self.seconds, 3)},
        }


def _low_mass(logits: OptionLogits) -> list[str]:
    """Where the server tells it: options that get little of the whole softmax."""
    masses = logits.label_mass[np.isfinite(logits.label_mass)]
    if not len(masses) or (mass := float(np.quantile(masses, 0.05))) >= LOW_MASS:
        return []
    return [
        f"low label mass: its 5th percentile is {mass:.2f}, so that the model would say something else than an option. "
        "Usual causes: options that do not answer the question, or a model that was not trained for such questions"
    ]
