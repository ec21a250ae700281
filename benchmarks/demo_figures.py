"""How good is the demo? Makes the figures of the table in `demo/README.md`, by the commands that the table names.

python -m benchmarks.demo_figures --out FILE               two cores: three minutes
"""

import json
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import click

import scoring
from benchmarks import ROOT, cli_command
from scoring.files.writing import write_json

FOLDS = [f"demo/checkpoints/fold{number}" for number in (0, 1)]
WAYS = {
    "base, NF4, not tuned": ["--ckpt", "demo/base"],
    "fold0": ["--ckpt", FOLDS[0]],
    "fold1": ["--ckpt", FOLDS[1]],
    "both pooled": ["--ckpt", FOLDS[0], "--ckpt", FOLDS[1]],
    "fold0, `--orders cyclic`": ["--ckpt", FOLDS[0], "--orders", "cyclic"],
    "both, `--orders cyclic`": ["--ckpt", FOLDS[0], "--ckpt", FOLDS[1], "--orders", "cyclic"],
}


def figures(metrics: dict) -> dict:
    """What the table shows of a `metrics.json`."""
    overall = metrics["overall"]
    return {
        "accuracy": overall["accuracy"],
        "nll": overall["nll"]["value"],
        "ece": {name: overall["ece"][name] for name in ("value", "floor_95")},
        "by": {task_type: of_type["accuracy"]["value"] for task_type, of_type in metrics["by"]["task_type"].items()},
    }


@click.command()
@click.option("--out", type=click.Path(path_type=Path), help="JSON file to write.")
def main(out: Path | None) -> None:
    """Score demo/test.csv in every way that the table shows."""
    report = {"command": "python -m benchmarks.demo_figures", "versions": scoring.versions(), "ways": {}}
    with TemporaryDirectory() as folder:
        for number, (name, arguments) in enumerate(WAYS.items()):
            scores = Path(folder) / str(number)
            command = cli_command("score", "demo/test.csv", *arguments, "--out", scores)
            subprocess.run(command, cwd=ROOT, check=True)
            report["ways"][name] = figures(json.loads((scores / "metrics.json").read_text("utf-8")))
            click.echo(json.dumps({name: report["ways"][name]}, ensure_ascii=False), err=True)
    if out:
        write_json(out, report)


if __name__ == "__main__":
    main()
