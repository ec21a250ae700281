"""How long does `check` take to read a large table, and in how much memory?

    python -m benchmarks.reading                 1,000,000 rows over 480 pictures: a quarter of a minute
    python -m benchmarks.reading --pictures 100000 --rows 100000
    python -m benchmarks.reading --inside        1,000,000 rows of a Parquet file, each with a picture of its own inside

The rows are as long as real ones. The pictures are the demo's, under as many names (symbolic links) as are asked for;
inside a Parquet file they are scaled down to about 2 KB, and the file has row groups of 100,000 rows. The whole command
is timed.
"""

import csv
import io
import itertools
import json
import os
import resource
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from benchmarks import DEMO, cli_command
from scoring.files.writing import write_json

QUESTION = "사진 속에서 사람이 들고 있는 물건의 이름과 그 물건이 놓여 있던 곳을 바르게 말한 것은 무엇인가요? ({})"
ROW_GROUP = 100_000  # rows
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


def make_parquet(folder: Path, rows: int, pictures: int) -> Path:
    """A Parquet file with the columns of MMBench: each row with one of so many pictures inside."""
    small = [_scaled_down(picture) for picture in sorted((DEMO / "images").iterdir())]
    path = folder / "large.parquet"
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    names = ["index", "question", "A", "B", "C", "D", "answer", "category"]
    schema = pa.schema([*((name, pa.string()) for name in names), ("image", image)])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, ROW_GROUP):
            group = range(start, min(start + ROW_GROUP, rows))
            texts = [
                [f"{row:08}", QUESTION.format(row), *(option.format(row % 97) for option in OPTIONS), "ABCD"[row % 4]]
                for row in group
            ]
            columns = [*map(list, zip(*texts)), [f"type{row % 5}" for row in group]]
            images = [{"bytes": _numbered(small[row % len(small)], row % pictures), "path": None} for row in group]
            arrays = [*(pa.array(column, pa.string()) for column in columns), pa.array(images, image)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=ROW_GROUP)
    return path


def _scaled_down(path: Path) -> bytes:
    """A picture as a JPEG of about 2 KB."""
    with Image.open(path) as picture, io.BytesIO() as file:
        picture.convert("RGB").resize((128, 96)).save(file, "JPEG", quality=60)
        return file.getvalue()


def _numbered(jpeg: bytes, number: int) -> bytes:
    """The same picture as another file: with a comment in its header."""
    comment = f"{number:010}".encode()
    return jpeg[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + jpeg[2:]


@click.command()
@click.option("--rows", default=1_000_000, show_default=True, help="Rows of the table.")
@click.option("--pictures", type=int, help="Pictures that the rows share.  [default: 480; inside: one for each row]")
@click.option("--inside", is_flag=True, help="A Parquet file with the pictures inside.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file to write.")
def main(rows: int, pictures: int | None, inside: bool, out: Path | None) -> None:
    """Make the table, check it, and print seconds and memory."""
    pictures = pictures or (rows if inside else 480)
    with TemporaryDirectory() as folder:
        table = (make_parquet if inside else make_table)(Path(folder), rows, pictures)
        size = table.stat().st_size
        start = time.perf_counter()
        done = subprocess.run(cli_command("check", table, "--allow-outside"), capture_output=True, text=True)
        seconds = time.perf_counter() - start
    report = {
        "command": f"python -m benchmarks.reading{' --inside' * inside} --rows {rows} --pictures {pictures}",
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
