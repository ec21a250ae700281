"""`score --endpoint`: what the command asks of the room `endpoint`, and what it prints of the result."""

from dataclasses import dataclass
from pathlib import Path

import click

from scoring.endpoint.run import EndpointContext, EndpointOptions, score_endpoint
from scoring.inputs.orders import parse_orders
from scoring.tables.sample import read_sample, tell_lacking
from scoring.tables.table import Table
from scoring.terminal.endpoint_options import EndpointChoices
from scoring.terminal.errors import stoppable
from scoring.terminal.options import RunChoices
from scoring.terminal.results import Results, print_results
from scoring.terminal.session import Session


@dataclass(frozen=True)
class AskedRun:
    """The options of `score` that go with an endpoint."""

    asked: EndpointChoices
    choices: RunChoices
    orders: str = "1"
    calibration: str = "auto"
    sample: Path | None = None
    price: float | None = None

    def options(self) -> EndpointOptions:
        """Raises CallError, UsageError, OrdersError, or InputError for the sample."""
        return EndpointOptions(
            address=self.asked.address(),
            model=self.asked.asked_model or "",
            token=self.asked.token(),
            concurrency=self.asked.concurrency,
            patience=self.asked.patience(),
            orders=parse_orders(self.orders),
            calibration=None if self.calibration in ("auto", "none") else Path(self.calibration),
            sets=self.choices.sets,
            sample=read_sample(self.sample) if self.sample else None,
            price=self.price,
            overwrite=self.choices.overwrite,
        )


def score_by_endpoint(session: Session, table: Table, options: EndpointOptions, out: Path | None) -> None:
    """Ask for the rows of a table, and print what came of it. Raises what `score_endpoint` raises.

    out: None for scores/NAME, for a table NAME.csv.
    """
    if session.processes:
        raise click.UsageError("--endpoint asks from one process; start it without torchrun, and raise --concurrency")
    out = out or Path("scores") / table.file.name.split(".")[0]
    if options.sample:
        tell_lacking(options.sample, [question.id for question in table.questions], session.console.say)
    context = EndpointContext(session.console.progress, session.console.say, session.stop)
    with stoppable(session):
        result = score_endpoint(table, out, options, context)
    speed = f", {result.scored_now / result.seconds['scoring']:.1f} rows/s" if result.scored_now else ""
    scored = f"{int(result.logits.scored.sum()):,} of {len(table.questions):,} rows scored{speed}"
    print_results(
        Results(out, bool(result.logits.scored.all()), result.metrics, result.warnings, lines=[*result.notes, scored])
    )
