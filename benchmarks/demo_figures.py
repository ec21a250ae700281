"""How good is the demo? The figures of the table in `demo/README.md`, by the commands that it names.

python -m benchmarks.demo_figures --out FILE               two cores: three minutes
"""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import click

import scoring
from scoring.files.writing import write_json

ROOT = Path(__file__).resolve().parent.parent
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
    """What the table shows of metrics.json."""
    overall = metrics["overall"]
    return {
        "accuracy": overall["accuracy"],
        "nll": overall["nll"]["value"],
        "ece": {name: overall["ece"][name] for name in ("value", "floor_95")},
        "by": {name: part["accuracy"]["value"] for name, part in metrics["by"]["task_type"].items()},
    }


@click.command()
@click.option("--out", type=click.Path(path_type=Path), help="JSON file to write.")
def main(out: Path | None) -> None:
    """Score demo/test.csv in every way of the table."""
    report = {"command": "python -m benchmarks.demo_figures", "versions": scoring.versions(), "ways": {}}
    with TemporaryDirectory() as folder:
        for number, (name, arguments) in enumerate(WAYS.items()):
            scores = Path(folder) / str(number)
            command = [sys.executable, "cli.py", "score", "demo/test.csv", *arguments, "--out", str(scores)]
            subprocess.run(command, cwd=ROOT, check=True)
            report["ways"][name] = figures(json.loads((scores / "metrics.json").read_text("utf-8")))
            click.echo(json.dumps({name: report["ways"][name]}, ensure_ascii=False), err=True)
    if out:
        write_json(out, report)


if __name__ == "__main__":
    main()
