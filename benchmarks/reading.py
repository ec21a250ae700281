"""How long does `check` take to read a large table, and in how much memory?

    python -m benchmarks.reading                 1,000,000 rows over 480 pictures: a quarter of a minute
    python -m benchmarks.reading --pictures 100000 --rows 100000

The rows are as long as real ones. The pictures are the demo's, under as many names (symbolic links) as are asked for.
The whole command is timed.
"""

import csv
import itertools
import json
import os
import resource
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from benchmarks import DEMO, cli_command
from scoring.files.writing import write_json

QUESTION = "사진 속에서 사람이 들고 있는 물건의 이름과 그 물건이 놓여 있던 곳을 바르게 말한 것은 무엇인가요? ({})"
OPTIONS = ("식탁 위에 있던 물병 {}", "책상 옆에 있던 우산 {}", "창가에 놓인 화분 {}", "벽에 걸린 시계 {}")


def make_table(folder: Path, rows: int, pictures: int) -> Path:
    """A table of so many rows over so many pictures, with answers and task types."""
    (folder / "images").mkdir()
    demo = sorted((DEMO / "images").iterdir())
    for number, picture in zip(range(pictures), itertools.cycle(demo)):
        os.symlink(picture, folder / "images" / f"{number:07}.jpg")
    path = folder / "large.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "path", "question", "a", "b", "c", "d", "answer", "task_type", "task_hint"])
        for row in range(rows):
            options = [option.format(row % 97) for option in OPTIONS]
            question = QUESTION.format(row)
            picture = f"images/{row % pictures:07}.jpg"
            writer.writerow([f"{row:08}", picture, question, *options, "abcd"[row % 4], f"type{row % 5}", ""])
    return path


@click.command()
@click.option("--rows", default=1_000_000, show_default=True, help="Rows of the table.")
@click.option("--pictures", default=480, show_default=True, help="Pictures that the rows share.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file to write.")
def main(rows: int, pictures: int, out: Path | None) -> None:
    """Make the table, check it, and print seconds and memory."""
    with TemporaryDirectory() as folder:
        table = make_table(Path(folder), rows, pictures)
        size = table.stat().st_size
        start = time.perf_counter()
        done = subprocess.run(cli_command("check", table, "--allow-outside"), capture_output=True, text=True)
        seconds = time.perf_counter() - start
    report = {
        "command": f"python -m benchmarks.reading --rows {rows} --pictures {pictures}",
        "rows": rows,
        "pictures": pictures,
        "megabytes": round(size / 1e6, 1),
        "exit": done.returncode,
        "said": done.stdout.partition("\n")[0].removeprefix(f"{table}: "),
        "seconds": round(seconds, 1),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20, 2),
    }
    click.echo(json.dumps(report, ensure_ascii=False))
    if out:
        write_json(out, report)


if __name__ == "__main__":
    main()
