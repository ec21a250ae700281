"""What a command prints about the results that it wrote."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scoring.terminal.errors import SOME_UNSCORED

if TYPE_CHECKING:
    from scoring.stats.calibration import Calibration


@dataclass(frozen=True)
class Results:
    """What a run or a pool left in the folder `out`.

    complete: whether every row has a score. tables: printed after the metrics. lines: printed after the warnings.
    """

    out: Path
    complete: bool
    metrics: dict[str, Any] | None
    warnings: Sequence[str] = ()
    tables: str = ""
    lines: Sequence[str] = ()


def print_results(results: Results) -> None:
    """Print metrics, warnings and where the files are; end with exit code 3 where a row has no score."""
    from scoring.report.records import Metrics, read_record
    from scoring.report.tables import metrics_table, to_text

    if results.metrics:
        click.echo(to_text(metrics_table(read_record(Metrics, results.metrics))) + results.tables)
    for warning in results.warnings:
        click.echo(f"warning: {warning}", err=True)
    for line in results.lines:
        click.echo(line)
    click.echo(f"submission:    {results.out / 'submission.csv'}\nprobabilities: {results.out / 'probabilities.csv'}")
    if not results.complete:
        sys.exit(SOME_UNSCORED)


def print_calibrations(calibrations: "dict[str, Calibration]") -> None:
    """Print what was chosen for each member, why, and what it gains."""
    for member, calibration in calibrations.items():
        heading = [f"{member}:"] if len(calibrations) > 1 else []
        click.echo("\n".join([*heading, *calibration.choice]))
        if not math.isnan(calibration.gain):
            before, after, gain = calibration.nll_before, calibration.nll_after, calibration.gain
            click.echo(
                f"NLL {before:.4f} → {after:.4f} on these {calibration.rows:,} rows; on rows held out of the fit "
                f"{'gained' if gain >= 0 else 'lost'} {abs(gain):.4f} ± {calibration.gain_error:.4f}"
            )
