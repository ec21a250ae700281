"""A campaign of faults against the product, with counts: nothing may crash, hang, be lost or be made up.

    python -m benchmarks.faults                                   everything: twenty minutes on two cores
    python -m benchmarks.faults --score-kills 5 --train-kills 2 --tables 200 --pictures 200 --requests 300

Kills: `score` and `train` on the demo, killed by the system at a random moment and started again; every result must
have the bytes of an undisturbed run's. Full disk: every write of both is in turn the first that fails. Tables and
pictures: good ones, damaged at random (Hypothesis draws and shrinks); each is read whole or refused with a reason.
Requests: see `damaged_requests.py`.
"""

import csv
import gzip
import io
import json
import random
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import click
from hypothesis import HealthCheck, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from PIL import Image
from tqdm import tqdm

from benchmarks import command_line
from benchmarks.damaged_requests import damaged_requests
from scoring.errors import InputError
from scoring.inputs.pictures import PictureError, read_picture
from scoring.inputs.prompt import LETTERS
from scoring.tables.reading import read_table

ROOT = Path(__file__).resolve().parent.parent
LONGEST = 5.0  # seconds that one damaged file may take
SCORED = ("probabilities.csv", "submission.csv", "metrics.json", "questions.parquet", "plan.json", "logits/*")
TRAINED = (
    *("adapter_model.safetensors", "adapter_config.json", "validation.csv", "calibration.json"),
    *("last/adapter_model.safetensors", "validation/logits/*"),
)


# ------------------------------------------------------------------ kills
def small_table(folder: Path, rows: int) -> Path:
    """The demo's first test rows in a folder of their own, over the demo's pictures."""
    lines = (ROOT / "demo" / "test.csv").read_text("utf-8").splitlines()[: rows + 1]
    (folder / "images").symlink_to(ROOT / "demo" / "images")
    (folder / "rows.csv").write_text("\n".join(lines) + "\n", "utf-8")
    return folder / "rows.csv"


def content(folder: Path, patterns: tuple[str, ...]) -> dict[str, bytes]:
    """Every result by name."""
    paths = [path for pattern in patterns for path in sorted(folder.glob(pattern))]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def score_command(folder: Path, out: Path) -> list:
    table = ["score", folder / "rows.csv", "--allow-outside", "--ckpt", "demo/checkpoints/fold0"]
    return [*table, "--batch-tokens", 400, "--out", out]


def train_command(folder: Path, out: Path) -> list:
    table = ["train", folder / "rows.csv", "--allow-outside", "--base", "demo/base"]
    return [*table, "--epochs", 2, "--batch", 4, "--learning-rate", 1e-3, "--save-every", 1, "--out", out]


def kills(command: Callable, rows: int, patterns: tuple[str, ...], times: int, seed: int) -> dict:
    """Kill a command `times` times at random moments, each in a new folder, and let it finish."""
    counts = {"kills": times, "before_the_end": 0, "went_on": 0, "other_bytes": 0, "half_written": 0, "failed": 0}
    draw = random.Random(seed)
    with TemporaryDirectory() as work:
        folder = Path(work)
        small_table(folder, rows)
        command_line.run(*command(folder, folder / "warm"))  # imports, and the disk's cache
        start = time.monotonic()
        done = command_line.run(*command(folder, folder / "whole"))
        seconds = time.monotonic() - start
        assert done.returncode == 0, done.stderr
        expected = content(folder / "whole", patterns)
        for number in tqdm(range(times), unit="kill", desc=command.__name__):
            out = folder / f"killed{number}"
            process = command_line.start(*command(folder, out))
            process.join(draw.uniform(0, seconds))
            counts["before_the_end"] += process.is_alive()
            process.kill()
            process.join()
            done = command_line.run(*command(folder, out))
            already = "holds a checkpoint" in done.stderr  # the kill came after the end
            counts["failed"] += done.returncode != 0 and not already
            counts["went_on"] += "going on" in done.stderr
            counts["other_bytes"] += content(out, patterns) != expected
            counts["half_written"] += bool(list(out.rglob("*.tmp")))
    return counts | {"seconds_of_a_whole_run": round(seconds, 2)}


# ------------------------------------------------------------------ a full disk
FULL = """
import os, errno, sys
import scoring.files.writing as files
left, sync = [{writes}], os.fsync
def full(descriptor):
    left[0] -= 1
    if left[0] < 0: raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    sync(descriptor)
files.os.fsync = full
import cli
sys.argv = ["cli.py", *{words!r}]
cli.main()
"""


def full_disk(command: Callable, rows: int, patterns: tuple[str, ...], most: int) -> dict:
    """Fill the disk from the n-th write on, for n = 0, 1, … until the command succeeds."""
    counts = {"writes": 0, "told": 0, "parts_lost": 0, "other_bytes": 0, "failed": 0}
    with TemporaryDirectory() as work:
        folder = Path(work)
        small_table(folder, rows)
        command_line.run(*command(folder, folder / "whole"))
        expected = content(folder / "whole", patterns)
        for number in tqdm(range(most), unit="write", desc=f"full disk, {command.__name__}"):
            out = folder / f"full{number}"
            done = command_line.python(FULL.format(writes=number, words=[str(word) for word in command(folder, out)]))
            if done.returncode == 0:
                break
            counts["writes"] += 1
            counts["told"] += "no space left on the disk" in done.stderr and "Traceback" not in done.stderr
            before = content(out, ("logits/*.parquet",))
            done = command_line.run(*command(folder, out))
            after = content(out, patterns)
            counts["failed"] += done.returncode != 0
            counts["parts_lost"] += any(after.get(name) != data for name, data in before.items())
            counts["other_bytes"] += after != expected
    return counts


# ------------------------------------------------------------------ damaged files
CUTS = st.floats(0, 1, exclude_max=True)
SPECIAL = [b'"', b",", b";", b"\t", b"\n", b"\r", b"\0", b"\xff", b"\xef\xbb\xbf", b"\x1a", b"<|im_end|>", b"=1"]
DAMAGE = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "drop", "insert", "double", "swap"]),
        CUTS,
        CUTS,
        st.one_of(st.sampled_from(SPECIAL), st.binary(max_size=4)),
    ),
    min_size=1,
    max_size=3,
)


def damaged(data: bytes, changes: list) -> bytes:
    """`data` after some changes, each at a position given as a share of its length."""
    for kind, first, second, more in changes:
        start, end = sorted((int(first * len(data)), int(second * len(data))))
        piece = data[start:end]
        if kind == "flip" and data:
            data = data[:start] + bytes([data[start] ^ (more[0] if more else 1)]) + data[start + 1 :]
        elif kind == "cut":
            data = data[:end]
        elif kind == "drop":
            data = data[:start] + data[start + len(piece) // 8 :]
        elif kind == "insert":
            data = data[:start] + more + data[start:]
        elif kind == "double":
            data = data[:end] + piece[:200] + data[end:]
        elif kind == "swap":
            data = data[:start] + piece[::-1] + data[end:]
    return data


def good_tables() -> list[bytes]:
    """One table in every form that is read."""
    rows = [
        ["id", "path", "question", "a", "b", "c", "d", "answer", "task_type", "task_hint"],
        ["001", "p.png", "무엇인가요?", "None", "001", "x, y", "고양이", "a", "t", ""],
        ["002", "p.png", 'two\nlines, "quoted"', "1", "2", "3", "", "(C)", "t", "h"],
        ["003", "p.png", "<|im_end|>", "네", "아니요", "", "", "아니요", "", ""],
        ["004", "p.png", "q", "nan", "-", "{a}", "=1+1", "", "", ""],
    ]
    tables = []
    for delimiter, ending in ((",", "\n"), (";", "\r\n"), ("\t", "\r")):
        text = io.StringIO(newline="")
        csv.writer(text, delimiter=delimiter, lineterminator=ending).writerows(rows)
        tables += [text.getvalue().encode(name) for name in ("utf-8", "utf-8-sig", "utf-16", "cp949")]
    return [*tables, gzip.compress(tables[0], mtime=0)]


def check_table(path: Path) -> str:
    """What became of a table: `refused`, `faulty` or `good`. Raises where something was made up."""
    try:
        table = read_table(path)
    except InputError as error:
        assert error.problems and all(problem.found and problem.expected and problem.fix for problem in error.problems)
        return "refused"
    data = path.read_bytes()
    data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    encodings = ("utf-16", "utf-16-le", "utf-16-be", "utf-8-sig", "cp949")
    texts = [data.decode(name, "ignore") for name in encodings]
    for question in table.good:
        assert 2 <= len(question.options) <= 26 and all(option.strip() for option in question.options)
        assert question.question.strip() and question.id.strip() and question.sizes == ((40, 30),)
        assert question.answer in ("", *LETTERS[: len(question.options)])
        for cell in (question.question, *question.options):  # as written: quotes in a cell are doubled in the file
            assert any(cell in text or cell.replace('"', '""') in text for text in texts), cell
    return "faulty" if table.problems else "good"


def check_picture(path: Path) -> str:
    """What became of a picture: `refused` or `good`."""
    try:
        picture = read_picture(path)
    except PictureError as error:
        assert error.found and error.expected and error.fix
        return "refused"
    assert picture.mode == "RGB" and min(picture.size) > 0
    return "good"


def good_pictures() -> list[bytes]:
    """Small pictures in every format and some of their kinds."""
    with Image.open(next((ROOT / "demo" / "images").iterdir())) as opened:
        picture = opened.convert("RGB").resize((48, 40))
    pictures = []
    kinds = [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("WEBP", {"lossless": True})]
    kinds += [("GIF", {}), ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("PPM", {}), ("ICO", {})]
    for form, options in kinds:
        buffer = io.BytesIO()
        picture.save(buffer, form, **options)
        pictures.append(buffer.getvalue())
    for mode in ("CMYK", "L", "P", "RGBA", "LA"):
        buffer = io.BytesIO()
        picture.convert(mode).save(buffer, "JPEG" if mode == "CMYK" else "PNG")
        pictures.append(buffer.getvalue())
    return pictures


def damage(good: list[bytes], check: Callable, times: int, name: str, seed: int) -> dict:
    """`times` damaged files, each read or refused in time. Hypothesis raises with the smallest that is neither."""
    counts = {"files": 0, "slowest_seconds": 0.0}
    bar = tqdm(total=times, unit="file", desc=name)
    with TemporaryDirectory() as work:
        folder = Path(work)
        Image.new("RGB", (40, 30), "red").save(folder / "p.png")

        @seeded(seed)
        @settings(max_examples=times, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(st.sampled_from(good), DAMAGE)
        def one(data: bytes, changes: list) -> None:
            path = folder / "damaged"
            path.write_bytes(damaged(data, changes))
            start = time.monotonic()
            ending = check(path)
            seconds = time.monotonic() - start
            assert seconds < LONGEST, f"{seconds:.1f} s"
            counts[ending] = counts.get(ending, 0) + 1
            counts["files"] += 1
            counts["slowest_seconds"] = round(max(counts["slowest_seconds"], seconds), 3)
            bar.update(1)

        one()
    bar.close()
    return counts


def served(times: int, seed: int) -> dict:
    """Damaged requests against a server of the demo, in this process."""
    from scoring.library.scorer import Scorer

    with Scorer.load(str(ROOT / "demo" / "checkpoints" / "fold0"), verify=False) as scorer:
        return damaged_requests(scorer, good_pictures(), damaged, times, seed)


@click.command()
@click.option("--score-kills", default=200, show_default=True)
@click.option("--train-kills", default=50, show_default=True)
@click.option("--writes", default=200, show_default=True, help="Writes that fail, at most, of each command.")
@click.option("--tables", default=10_000, show_default=True)
@click.option("--pictures", default=10_000, show_default=True)
@click.option("--requests", default=10_000, show_default=True, help="Damaged requests to a running server.")
@click.option("--seed", default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="JSON file to write.")
def main(
    score_kills: int, train_kills: int, writes: int, tables: int, pictures: int, requests: int, seed: int, out
) -> None:
    """Run the campaign and print its counts; exit with 1 if a count that must be 0 is not."""
    start = time.monotonic()
    report = {
        "tables": damage(good_tables(), check_table, tables, "tables", seed) if tables else {},
        "pictures": damage(good_pictures(), check_picture, pictures, "pictures", seed) if pictures else {},
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10),
        "requests": served(requests, seed) if requests else {},
        "full_disk_score": full_disk(score_command, 24, SCORED, writes) if writes else {},
        "full_disk_train": full_disk(train_command, 8, TRAINED, writes) if writes else {},
        "score": kills(score_command, 24, SCORED, score_kills, seed) if score_kills else {},
        "train": kills(train_command, 8, TRAINED, train_kills, seed + 1) if train_kills else {},
    }
    must_be_zero = ("other_bytes", "half_written", "failed", "parts_lost", "hung", "other_bits", "too_much_memory")
    campaigns = {name: counts for name, counts in report.items() if isinstance(counts, dict)}
    bad = [f"{name}.{key}" for name, counts in campaigns.items() for key in must_be_zero if counts.get(key)]
    report |= {"bad": bad, "seconds": round(time.monotonic() - start), "command": " ".join(sys.argv[1:])}
    click.echo(json.dumps(report, indent=1))
    if out:
        out.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    if bad:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
