"""A folder of Parquet files as one table, as datasets are published: `data/test-00000-of-00004.parquet` and so on.

The part of a name before `-00000-of-` is the split that the file belongs to. Files without it are one table, except
where all their names are those of splits (`train.parquet`, `test.parquet`).
"""

import hashlib
import re
from bisect import bisect_left
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from scoring.errors import first_of, quoted
from scoring.readers.parquet import ParquetTable, open_parquet
from scoring.readers.records import Row, table_fault

SHARD = re.compile(r"(?P<split>.+?)-(?P<number>\d+)-of-(?P<count>\d+)(-[0-9a-f]+)?\.parquet")
SPLITS = {"train", "training", "dev", "val", "valid", "validation", "test", "testing", "eval", "evaluation"}
CHOOSE = "choose one with --split NAME"


@dataclass(frozen=True)
class ShardedTable:
    """The rows of all files, in the order of their names, numbered on from file to file.

    file: the folder. split: the one that the files belong to; "" where their names tell none. ends: the number of the
    last row of each file.
    """

    file: Path
    split: str
    shards: list[ParquetTable]
    ends: list[int]
    digest: str

    @property
    def files(self) -> list[Path]:
        return [shard.file for shard in self.shards]

    @property
    def format(self) -> str:
        plural = "" if len(self.shards) == 1 else "s"
        split = f" of the split {quoted(self.split)}" if self.split else ""
        return f"Parquet, {len(self.shards)} file{plural}{split}"

    @property
    def header(self) -> list[str]:
        return self.shards[0].header

    @property
    def notices(self) -> list[str]:
        return []

    @property
    def count(self) -> int:
        return self.ends[-1]

    def rows(self, without: Collection[str] = (), after: int = 0) -> Iterator[Row]:
        for shard, end in zip(self.shards, self.ends):
            if end > after:
                start = end - shard.count
                order = [shard.header.index(name) for name in self.header]
                for row in shard.rows(without, max(0, after - start)):
                    yield Row(start + row.number, 0, [row.cells[index] for index in order])

    def place_of(self, number: int) -> tuple[Path, int]:
        index = bisect_left(self.ends, number)
        return self.shards[index].file, number - (self.ends[index - 1] if index else 0)


def open_shards(folder: Path, split: str | None = None) -> ShardedTable:
    """The table in a folder. Raises InputError where it is not certain which files it is made of, or one is missing.

    split: the split to take, where the files belong to several.
    """
    files = _files_by_split(folder)
    if split in files:
        name = split
    elif len(files) == 1 and (split is None or "" in files):
        name = next(iter(files))
    else:
        names = first_of(quoted(name) if name else f"files without one ({files[''][0].name}, …)" for name in files)
        if split is not None:
            raise table_fault(folder, f"no split {quoted(split)} among {names}", "one of them", "correct --split")
        raise table_fault(folder, f"files of {len(files)} splits: {names}", "those of one", CHOOSE)
    _check_complete(folder, name, files[name])
    shards = [open_parquet(path) for path in files[name]]
    _check_columns(shards)
    digest = hashlib.sha256("\n".join(shard.digest for shard in shards).encode()).hexdigest()
    return ShardedTable(folder, name, shards, list(accumulate(shard.count for shard in shards)), digest)


def _files_by_split(folder: Path) -> dict[str, list[Path]]:
    """The Parquet files in a folder or its folder `data`, by the split that their names tell; "" if they tell none."""
    for place in (folder, folder / "data"):
        files = sorted(path for path in place.glob("*.parquet") if path.is_file() and not path.name.startswith("."))
        if files:
            break
    else:
        inside = sorted({path.parent.name for path in folder.glob("*/*.parquet")})
        found = "a folder without Parquet files"
        if inside:
            found += f", with such in its folders {first_of(map(quoted, inside))}"
        fix = "name one of these folders" if inside else "name the file in it"
        raise table_fault(folder, found, "a table: a file, or a folder of Parquet files", fix)
    shards = [SHARD.fullmatch(path.name) for path in files]
    by_name = all(path.stem in SPLITS for path, shard in zip(files, shards) if not shard)
    splits: dict[str, list[Path]] = {}
    for path, shard in zip(files, shards):
        splits.setdefault(shard["split"] if shard else path.stem if by_name else "", []).append(path)
    return splits


def _check_complete(folder: Path, split: str, files: list[Path]) -> None:
    """Raise InputError unless the numbers in the names are all of those that the names promise, each once."""
    shards = [shard for path in files if (shard := SHARD.fullmatch(path.name))]
    if not shards:
        return
    counts, numbers = sorted({int(shard["count"]) for shard in shards}), [int(shard["number"]) for shard in shards]
    of = f"of the split {quoted(split)}"
    if len(counts) > 1:
        found = f"files {of} from several sets: of {' and of '.join(map(str, counts))}"
        raise table_fault(folder, found, "one set of files", "remove the others")
    if len(set(numbers)) < len(numbers):
        twice = next(number for number in numbers if numbers.count(number) > 1)
        raise table_fault(folder, f"file {twice} {of} twice", "each file once", "remove the other")
    if missing := sorted(set(range(counts[0])) - set(numbers)):
        found = f"{len(numbers)} of {counts[0]} files {of}; missing: {first_of(f'{number:05}' for number in missing)}"
        raise table_fault(folder, found, "all of them", "download the missing files")


def _check_columns(shards: list[ParquetTable]) -> None:
    """Raise InputError unless all files have the same columns, in any order."""
    first = shards[0]
    for shard in shards[1:]:
        if differing := sorted({*shard.header} ^ {*first.header}):
            names = first_of(map(quoted, differing))
            found = f"other columns than in {first.file.name}; only in one of them: {names}"
            raise table_fault(shard.file, found, "the same columns in every file", "make the files alike")
