"""What are option orders worth, and what do they cost? Every way of `--orders` scores the same rows.

    python -m benchmarks.orders                                the demo, two cores: six minutes
    python -m benchmarks.orders --out FILE --ckpt demo/checkpoints/fold1

Each way has its own calibration, from rows that the checkpoint was not trained on.
"""

import csv
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import click

from benchmarks import DEMO, workload
from scoring.checkpoints.calibrate import calibrate_checkpoint
from scoring.checkpoints.plan import Plan, plan_members
from scoring.engine.batch_scorer import BatchScorer
from scoring.files.writing import write_json
from scoring.messages import silent
from scoring.run.options import RunContext, RunOptions
from scoring.run.run import run
from scoring.scores.evaluation import compare_folders, evaluate_scores
from scoring.scores.folder import open_scores
from scoring.tables.reading import read_table
from scoring.tables.table import Table

ORDERS = ("1", "pride", "2", "adaptive", "cyclic", "all")


class Scored(NamedTuple):
    """One run: its SCORES folder, its seconds without loading, and its message about orders."""

    folder: Path
    seconds: float
    note: str


class Bench:
    """One loaded model, and two tables: rows that it was not trained on, for calibration, and test rows."""

    def __init__(self, ckpt: Path, work: Path):
        self.work, self.fold = work, work / ckpt.name
        shutil.copytree(ckpt, self.fold)
        with open(ckpt / "validation.csv", encoding="utf-8", newline="") as file:
            held_out = {row["id"] for row in csv.DictReader(file)}
        train = read_table(DEMO / "train.csv")
        self.held_out = replace(train, questions=[row for row in train.questions if row.id in held_out])
        self.test = read_table(DEMO / "test.csv")
        self.scorer = BatchScorer(self.plan("1"))

    def plan(self, orders: str) -> Plan:
        """The plan of the checkpoint as it is calibrated now."""
        return plan_members([str(self.fold)], str(DEMO / "base"), orders=orders)

    def score(self, table: Table, orders: str, name: str) -> Scored:
        """Score a table in these orders, into a folder that `name` begins."""
        out = self.work / f"{name}-{orders}"
        shutil.rmtree(out, ignore_errors=True)
        start = time.monotonic()
        scorer = self.scorer.with_plan(self.plan(orders))
        done = run(table, scorer, out, RunOptions(orders), RunContext(say=silent))
        return Scored(out, time.monotonic() - start - done.seconds["loading"], done.orders_note)

    def calibrate(self, orders: str) -> float:
        """Calibrate the checkpoint for these orders; its temperature."""
        scores = self.score(self.held_out, orders, "held-out").folder
        return calibrate_checkpoint(scores, str(self.fold))[0].temperature


@click.command()
@click.option(
    "--ckpt",
    type=click.Path(path_type=Path),
    default=DEMO / "checkpoints" / "fold0",
    help="Checkpoint of the demo.  [default: fold0]",
)
@click.option("--repeats", default=3, show_default=True, help="Repeats, taking turns; medians are reported.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file to write.")
def main(ckpt: Path, repeats: int, out: Path | None) -> None:
    """Score the demo's test rows in every way and print a table."""
    report = workload.circumstances(workload.matrix_rate(), "demo", None) | {"checkpoint": ckpt.name, "ways": []}
    with TemporaryDirectory() as folder:
        bench = Bench(ckpt, Path(folder))
        temperatures = {orders: bench.calibrate(orders) for orders in ORDERS}
        runs: dict[str, list[Scored]] = {orders: [] for orders in ORDERS}
        for _ in range(repeats):
            for orders in ORDERS:
                runs[orders].append(bench.score(bench.test, orders, "test"))
        one, cyclic = (open_scores(runs[orders][0].folder) for orders in ("1", "cyclic"))
        gains = compare_folders(one, cyclic)
        for orders in ORDERS:
            scores = open_scores(runs[orders][0].folder)
            overall, paired = evaluate_scores(scores)["overall"], compare_folders(one, scores)
            rows, prompts = len(scores.logits.ids), int((scores.logits.top_token[:, 0] >= 0).sum())
            report["ways"].append(
                {
                    "orders": orders,
                    "rows_per_second": rows / median(scored.seconds for scored in runs[orders]),
                    "prompts_per_row": prompts / rows,
                    "temperature": temperatures[orders],
                    **{name: overall[name] for name in ("accuracy", "nll", "ece")},
                    "against_one_order": paired,
                    "share_of_cyclic_gain": {
                        name: paired[name]["difference"]["value"] / gains[name]["difference"]["value"]
                        for name in ("accuracy", "nll")
                    },
                    "told": runs[orders][0].note,
                }
            )
            click.echo(json.dumps(report["ways"][-1]), err=True)
    if out:
        write_json(out, report)
    click.echo(
        "orders    prompts/row  rows/s  accuracy      NLL     ECE (floor)         T  gain kept: accuracy, NLL       p"
    )
    for way in report["ways"]:
        share, paired = way["share_of_cyclic_gain"], way["against_one_order"]["accuracy"]
        click.echo(
            f"{way['orders']:<10}{way['prompts_per_row']:>10.2f}{way['rows_per_second']:>9.1f}"
            f"{way['accuracy']['value']:>10.4f}{way['nll']['value']:>9.4f}{way['ece']['value']:>8.3f} "
            f"({way['ece']['floor_95']:.3f}) {way['temperature']:>9.2f}{share['accuracy']:>12.0%}{share['nll']:>8.0%}"
            f"{paired['mcnemar_p']:>14.2g}"
        )


if __name__ == "__main__":
    main()
