"""Option logits: the narrow table between the model and everything that is computed from it.

On disk they are a folder of Parquet parts, one for each batch or range of rows, each written under another name and
renamed. Whoever keeps them can repeat every later step in a second, without a model.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from scoring.files.reading import FileError
from scoring.files.writing import whole_file, write_table
from scoring.inputs.orders import option_orders
from scoring.inputs.prompt import LETTERS

LINES = 1 << 20  # of a part that are in memory at a time, about
# The status of a row with a score, and of one that no part holds. Any other one says why a row has no score.
SCORED, NOT_SCORED = "ok", "not scored"


@dataclass(frozen=True)
class Layout:
    """The rows (ids), members, letters and option orders of a table of logits; orders: see `option_orders`."""

    ids: list[str]
    members: list[str]
    letters: int
    orders: str = "1"


@dataclass
class OptionLogits:
    """Raw logits of N rows, M members and O option orders, with K letters at most.

    logits: (N, M, O, K) float32 by the data's option; NaN where a row has fewer options or orders, or no score.
    label_mass: (N, M, O) float32, the share of the full softmax that falls on the row's letters.
    top_token: (N, M, O) int64, the id of the vocabulary's argmax; -1 without a score.
    status: (N,) SCORED, or why the row has no score.
    orders: the choice of orders, such as `1` or `cyclic`; see `option_orders`.

    >>> OptionLogits.empty(["q1", "q2"], ["fold0"], letters=4, orders="cyclic").logits.shape
    (2, 1, 4, 4)
    """

    ids: list[str]
    members: list[str]
    logits: np.ndarray
    label_mass: np.ndarray
    top_token: np.ndarray
    status: list[str]
    orders: str = "1"

    @classmethod
    def empty(cls, ids: list[str], members: list[str], letters: int, orders: str = "1") -> "OptionLogits":
        """Rows without a score yet."""
        shape = (len(ids), len(members), len(option_orders(letters, orders)))
        return cls(
            list(ids),
            list(members),
            np.full((*shape, letters), np.nan, np.float32),
            np.full(shape, np.nan, np.float32),
            np.full(shape, -1, np.int64),
            [NOT_SCORED] * len(ids),
            orders,
        )

    def add(self, part: "OptionLogits", rows: Sequence[int] | None = None) -> None:
        """Add what a part holds of these rows (default: all): scores, or the reason why a row has none.

        Its orders may be others than the rows have already, and it may have fewer letters.
        """
        rows = range(len(self.ids)) if rows is None else rows
        known = np.array([status != NOT_SCORED for status in part.status], bool)
        for index in np.flatnonzero(known).tolist():
            self.status[rows[index]] = part.status[index]
        _, members, orders, letters = part.logits.shape
        present = known[:, None, None] & (np.isfinite(part.label_mass) | np.isfinite(part.logits).any(-1))
        at = np.ix_(rows, range(members), range(orders))
        for name in ("label_mass", "top_token"):
            values = getattr(self, name)
            values[at] = np.where(present, getattr(part, name), values[at])
        at = np.ix_(rows, range(members), range(orders), range(letters))
        self.logits[at] = np.where(present[..., None], part.logits, self.logits[at])

    def of_member(self, member: int) -> "OptionLogits":
        """The part of one member, given by its index: M is 1."""
        only = slice(member, member + 1)
        return replace(
            self,
            members=self.members[only],
            logits=self.logits[:, only],
            label_mass=self.label_mass[:, only],
            top_token=self.top_token[:, only],
        )

    def of_rows(self, start: int, stop: int, letters: int) -> "OptionLogits":
        """The rows from `start` to `stop`, which have at most so many letters: as if they were scored alone."""
        rows, orders = slice(start, stop), slice(len(option_orders(letters, self.orders)))
        return replace(
            self,
            ids=self.ids[rows],
            logits=self.logits[rows, :, orders, :letters],
            label_mass=self.label_mass[rows, :, orders],
            top_token=self.top_token[rows, :, orders],
            status=self.status[rows],
        )

    def take(self, rows: np.ndarray) -> "OptionLogits":
        """These (R,) rows."""
        return replace(
            self,
            ids=[self.ids[row] for row in rows.tolist()],
            logits=self.logits[rows],
            label_mass=self.label_mass[rows],
            top_token=self.top_token[rows],
            status=[self.status[row] for row in rows.tolist()],
        )

    @classmethod
    def joined(cls, parts: "Sequence[OptionLogits]") -> "OptionLogits":
        """The rows of several, one after the other, of the same members, letters and orders."""
        return replace(
            parts[0],
            ids=[id for part in parts for id in part.ids],
            logits=np.concatenate([part.logits for part in parts]),
            label_mass=np.concatenate([part.label_mass for part in parts]),
            top_token=np.concatenate([part.top_token for part in parts]),
            status=[status for part in parts for status in part.status],
        )

    @property
    def scored(self) -> np.ndarray:
        """(N,) bool: rows with a score from every member."""
        return np.array([status == SCORED for status in self.status], bool)


def part_path(folder: Path, number: int) -> Path:
    """The file of a batch, or of a range of rows, in the folder of parts; its number is theirs."""
    return folder / f"part-{number:06d}.parquet"


def write_part(folder: Path, number: int, part: OptionLogits, mark: str = "") -> None:
    """One batch, or range of rows, as a Parquet file with a line for each (id, member, order), written whole.

    A row without a score is in the file too, in the data's order, with the reason. mark: see `write_whole`.
    """
    path, step = part_path(folder, number), max(1, LINES // part.label_mass[:1].size if len(part.ids) else 1)
    if len(part.ids) <= step:
        write_table(path, _lines_of(part), mark)
        return
    pieces = (part.take(np.arange(start, min(start + step, len(part.ids)))) for start in range(0, len(part.ids), step))
    first = _lines_of(next(pieces))
    with whole_file(path, mark) as file, pq.ParquetWriter(file, first.schema) as writer:
        writer.write_table(first)
        for piece in pieces:
            writer.write_table(_lines_of(piece))


def _lines_of(part: OptionLogits) -> pa.Table:
    """A part as the lines of its file."""
    letters = part.logits.shape[3]
    present = np.isfinite(part.logits).any(-1)
    options = np.isfinite(part.logits).any((1, 2)).sum(-1)
    present[~part.scored, :, 0] = True
    row, member, order = np.nonzero(present)
    orders = {count: option_orders(count, part.orders) for count in set(options[options > 0].tolist())}
    names = [LETTERS[:letters], *(name for orders_of_count in orders.values() for name in orders_of_count)]
    begin = dict(zip(orders, np.cumsum([1, *map(len, orders.values())]).tolist()))  # of a count's orders in `names`
    first = np.array([begin.get(count, 0) for count in range(letters + 1)])
    columns = {
        "id": pa.array(part.ids, pa.string()).take(pa.array(row)),
        "member": pa.array(part.members, pa.string()).take(pa.array(member)),
        "order": pa.array(names).take(pa.array(first[options[row]] + order * (options[row] > 0))),
        **{
            f"l_{letter}": pa.array(part.logits[row, member, order, index], from_pandas=True)
            for index, letter in enumerate(LETTERS[:letters])
        },
        "label_mass": pa.array(part.label_mass[row, member, order], from_pandas=True),
        "top_token": part.top_token[row, member, order],
        "status": pa.array(part.status, pa.string()).take(pa.array(row)),
    }
    return pa.table(columns)


def _read(paths: list[Path], letters: int) -> Iterator[pa.Table]:
    """All lines of these parts, with their logits, label mass, top token and status, many at a time.

    Raises FileError.
    """
    names = [
        "label_mass",
        "top_token",
        "status",
        "id",
        "member",
        "order",
        *(f"l_{letter}" for letter in LETTERS[:letters]),
    ]
    waiting: list[pa.Table] = []
    lines = 0
    for path in paths:  # pyarrow's datasets import pandas, and are no faster
        for table in _read_part(path, names):
            waiting.append(table)
            lines += len(table)
            if lines >= LINES:
                yield _concatenated(waiting, path.parent)
                waiting, lines = [], 0
    if waiting:
        yield _concatenated(waiting, paths[0].parent)


def _concatenated(tables: list[pa.Table], folder: Path) -> pa.Table:
    """Raises FileError where they have other columns."""
    try:
        return pa.concat_tables(tables)
    except pa.ArrowException:
        raise FileError(f"{folder}: parts of different runs; expected those of one") from None


def _read_part(path: Path, names: list[str]) -> Iterator[pa.Table]:
    """These columns of a part, a row group at a time. Raises FileError."""
    try:
        with pq.ParquetFile(path) as file:
            if missing := [name for name in names if name not in file.schema_arrow.names]:
                raise pa.ArrowInvalid(f"it has no column {missing[0]}")
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, names).select(names)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).strip().split("\n")[0]
        raise FileError(f"{path}: damaged ({reason}); delete it, and repeat the command that scored it") from None


def read_parts(folder: Path, layout: Layout, count: int | None = None) -> OptionLogits:
    """All parts of a folder, or the first `count` ones, in this layout; ids without a part stay unscored.

    Raises FileError where a part is damaged, or holds an id, member or order that the layout does not have.
    """
    return _read_in_layout(sorted(folder.glob("part-*.parquet"))[:count], layout)


def read_part(path: Path, layout: Layout) -> OptionLogits:
    """A single part in this layout. Raises FileError as `read_parts`."""
    return _read_in_layout([path], layout)


def _read_in_layout(paths: list[Path], layout: Layout) -> OptionLogits:
    """All rows of these parts."""
    ids, members, letters, orders = layout.ids, layout.members, layout.letters, layout.orders
    result = OptionLogits.empty(ids, members, letters, orders)
    order_index = {
        name: index for size in range(2, letters + 1) for index, name in enumerate(option_orders(size, orders))
    }
    known = {"id": pa.array(ids, pa.string()), "member": pa.array(members), "order": pa.array(list(order_index))}
    status = np.array(result.status, object)
    for lines in _read(paths, letters):
        row, member, order = (
            pc.fill_null(pc.index_in(lines[name], values), -1).to_numpy() for name, values in known.items()
        )
        if (foreign := np.flatnonzero((row < 0) | (member < 0) | (order < 0))).size:
            example = lines.slice(foreign[0], 1).to_pylist()[0]
            raise FileError(
                f"{paths[0].parent}: found a row (id {example['id']!r}, member {example['member']!r}, "
                f"order {example['order']!r}) that this run does not have"
            )
        order = np.array(list(order_index.values()))[order]
        for index, letter in enumerate(LETTERS[:letters]):
            result.logits[row, member, order, index] = lines[f"l_{letter}"].to_numpy()
        result.label_mass[row, member, order] = lines["label_mass"].to_numpy()
        result.top_token[row, member, order] = lines["top_token"].to_numpy()
        encoded = lines["status"].combine_chunks().dictionary_encode()
        status[row] = np.array(encoded.dictionary.to_pylist(), object)[encoded.indices.to_numpy()]
    result.status = status.tolist()
    return result
