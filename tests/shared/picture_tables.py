"""Makes the files of tests/cases/tables that hold pictures: `python -m tests.shared.picture_tables`.

The questions and pictures are made up here; only the columns are those of the benchmarks.
"""

import base64
import csv
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

TABLES = Path(__file__).resolve().parent.parent / "cases" / "tables"
TEXTS = [
    ("그림에 있는 도형은 무엇인가요?", "자세히 보세요", ("사각형", "원", "삼각형", "별"), "B"),
    ("What colour is the shape?", None, ("red", "green", "yellow", "blue"), "D"),
    ("도형은 어느 쪽에 있나요?", None, ("왼쪽", "오른쪽", "위", "아래"), "A"),
]
SHAPES = [("PNG", (40, 30), "red"), ("JPEG", (48, 36), "blue"), ("PNG", (30, 40), "green")]
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])  # as Hugging Face's datasets store a picture


def pictures() -> list[bytes]:
    """The three pictures, as the bytes of files."""
    made = []
    for format, size, color in SHAPES:
        picture, file = Image.new("RGB", size, "white"), io.BytesIO()
        ImageDraw.Draw(picture).ellipse((4, 4, 20, 20), fill=color)
        picture.save(file, format)
        made.append(file.getvalue())
    return made


def coded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def image(data: bytes) -> dict:
    return {"bytes": data, "path": None}


def _write_parquet(path: Path, columns: dict[str, list], types: dict[str, pa.DataType]) -> None:
    pq.write_table(pa.table({name: pa.array(values, types.get(name)) for name, values in columns.items()}), path)


def _write_tsv(path: Path, cells: list[str]) -> None:
    """A table as VLMEvalKit has them, with these cells as pictures."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["index", "image", "question", "hint", *"ABCD", "answer", "category", "l2-category", "split"])
        for number, (cell, (question, hint, options, answer)) in enumerate(zip(cells, TEXTS), 100):
            writer.writerow([number, cell, question, hint or "", *options, answer, "shapes", "coarse", "dev"])


def write_tables(folder: Path) -> None:
    """All files, into `folder`."""
    first, second, third = pictures()
    questions, hints, options, answers = (list(column) for column in zip(*TEXTS))
    lettered = {letter: [texts[number] for texts in options] for number, letter in enumerate("ABCD")}
    mmbench = {"index": [100, 101, 102], "question": questions, "hint": hints, **lettered, "answer": answers}
    mmbench |= {"category": ["shapes"] * 3, "image": [image(first), image(second), image(third)]}
    _write_parquet(folder / "mmbench_ko.parquet", mmbench, {"image": IMAGE})
    dtc = {"index": ["100", "101", "102"], "image": mmbench["image"], "question": questions}
    dtc |= {f"choice_{letter.lower()}": texts for letter, texts in lettered.items()}
    _write_parquet(folder / "k_dtcbench.parquet", dtc | {"answer": answers}, {"image": IMAGE})
    seed = {"question_id": ["100", "101", "102"], "question": questions, "answer": answers}
    seed |= {f"choice_{letter.lower()}": texts for letter, texts in lettered.items()}
    seed |= {"image": [[image(data)] for data in (first, second, third)]}
    _write_parquet(folder / "seed_bench.parquet", seed, {"image": pa.list_(IMAGE)})
    blink = {"idx": [100, 101, 102], "question": questions, "choices": options}
    blink |= {"image_1": mmbench["image"], "image_2": [None, image(first), None], "image_3": [None] * 3}
    blink |= {"answer": [f"({answer})" for answer in answers]}
    _write_parquet(folder / "blink.parquet", blink, {f"image_{number}": IMAGE for number in (1, 2, 3)})
    _write_tsv(folder / "vlmevalkit_base64.tsv", [coded(first), coded(second), coded(third)])
    _write_tsv(folder / "vlmevalkit_references.tsv", ["102", coded(second), coded(third)])
    _write_tsv(folder / "vlmevalkit_lists.tsv", [str([coded(first), coded(second)]), coded(second), coded(third)])


if __name__ == "__main__":
    write_tables(TABLES)
