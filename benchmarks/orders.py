"""What option orders are worth, and what they cost: every way of `--orders` on the same rows, each calibrated on rows
that the checkpoint was not trained on.

    python -m benchmarks.orders                                the demo, two cores: six minutes
    python -m benchmarks.orders --out FILE --ckpt demo/checkpoints/fold1
"""

import csv
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import click

from benchmarks import workload
from scoring.checkpoints.calibrate import calibrate_checkpoint
from scoring.checkpoints.plan import plan_members
from scoring.engine.packed import product_rate
from scoring.engine.scorer import Scorer
from scoring.files.writing import write_json
from scoring.inputs.questions import Table, read_table
from scoring.messages import silent
from scoring.run.options import RunContext, RunOptions
from scoring.run.run import run
from scoring.scores.evaluation import compare_folders, evaluate_scores
from scoring.scores.folder import open_scores

DEMO = workload.DEMO
ORDERS = ("1", "pride", "2", "adaptive", "cyclic", "all")


class Bench:
    """One loaded model; tables of held-out and of test rows."""

    def __init__(self, ckpt: Path, work: Path):
        self.work, self.fold = work, work / ckpt.name
        shutil.copytree(ckpt, self.fold)
        with open(ckpt / "validation.csv", encoding="utf-8", newline="") as file:
            held_out = {row["id"] for row in csv.DictReader(file)}
        train = read_table(DEMO / "train.csv")
        self.held_out = replace(train, questions=[row for row in train.questions if row.id in held_out])
        self.test = read_table(DEMO / "test.csv")
        self.scorer = Scorer(self.plan("1"))

    def plan(self, orders: str):
        return plan_members([str(self.fold)], str(DEMO / "base"), orders=orders)

    def score(self, table: Table, orders: str, name: str) -> tuple[Path, float, str]:
        """Folder, seconds, and what is said about orders."""
        out = self.work / f"{name}-{orders}"
        shutil.rmtree(out, ignore_errors=True)
        start = time.monotonic()
        scorer = self.scorer.with_plan(self.plan(orders))
        done = run(table, scorer, out, RunOptions(orders), RunContext(say=silent))
        return out, time.monotonic() - start - done.seconds["loading"], done.orders_note

    def calibrate(self, orders: str) -> float:
        out, _, _ = self.score(self.held_out, orders, "held-out")
        return calibrate_checkpoint(out, str(self.fold))[0].temperature


@click.command()
@click.option("--ckpt", type=click.Path(path_type=Path), default=DEMO / "checkpoints" / "fold0")
@click.option("--repeats", default=3, show_default=True, help="Of each timing, interleaved; medians are told.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file to write.")
def main(ckpt: Path, repeats: int, out: Path | None) -> None:
    """Score the demo's test rows in every way and print a table."""
    report = workload.circumstances(product_rate(1024), "demo", None) | {"checkpoint": ckpt.name, "ways": []}
    with TemporaryDirectory() as folder:
        bench = Bench(ckpt, Path(folder))
        temperatures = {orders: bench.calibrate(orders) for orders in ORDERS}
        found = {orders: [] for orders in ORDERS}
        for _ in range(repeats):
            for orders in ORDERS:
                found[orders].append(bench.score(bench.test, orders, "test"))
        one, every = (open_scores(found[orders][0][0]) for orders in ("1", "cyclic"))
        gains = compare_folders(one, every)
        for orders in ORDERS:
            path, _, told = found[orders][0]
            scores = open_scores(path)
            overall, paired = evaluate_scores(scores)["overall"], compare_folders(one, scores)
            prompts = int((scores.logits.top_token[:, 0] >= 0).sum())
            report["ways"].append(
                {
                    "orders": orders,
                    "rows_per_second": len(scores.logits.ids) / median(seconds for _, seconds, _ in found[orders]),
                    "prompts_per_row": prompts / len(scores.logits.ids),
                    "temperature": temperatures[orders],
                    **{name: overall[name] for name in ("accuracy", "nll", "ece")},
                    "against_one_order": paired,
                    "share_of_cyclic_gain": {
                        name: paired[name]["difference"]["value"] / gains[name]["difference"]["value"]
                        for name in ("accuracy", "nll")
                    },
                    "told": told,
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
