"""Label logits: the narrow table between the model and everything that is computed from it.

On disk a folder of Parquet parts, one for each batch, written beside and renamed. Whoever keeps them can redo
every later step in a second, without a model.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow.dataset import dataset

from scoring.inputs.prompt import LETTERS
from scoring.results.files import write_table


@dataclass
class OptionLogits:
    """Raw label logits of N rows and M members, K letters at most.

    logits: (N, M, K) float32 by the data's option; NaN where a row has fewer options or no score.
    label_mass: (N, M) float32, the share of the full softmax that falls on the row's letters.
    top_token: (N, M) int64, the id of the vocabulary's argmax; -1 without a score.
    status: (N,) "ok", or why the row has no score.
    """

    ids: list[str]
    members: list[str]
    logits: np.ndarray
    label_mass: np.ndarray
    top_token: np.ndarray
    status: list[str]

    @classmethod
    def empty(cls, ids: list[str], members: list[str], letters: int) -> "OptionLogits":
        """Rows without a score yet."""
        shape = (len(ids), len(members))
        return cls(
            list(ids),
            list(members),
            np.full((*shape, letters), np.nan, np.float32),
            np.full(shape, np.nan, np.float32),
            np.full(shape, -1, np.int64),
            ["not scored"] * len(ids),
        )

    @property
    def scored(self) -> np.ndarray:
        """(N,) bool: rows with a score from every member."""
        return np.array([status == "ok" for status in self.status], bool)


def part_path(folder: Path, number: int) -> Path:
    return folder / f"part-{number:06d}.parquet"


def write_part(folder: Path, number: int, part: OptionLogits) -> None:
    """One batch as a Parquet file: a row for each (id, member), written beside, synced and renamed."""
    count, members, letters = part.logits.shape
    repeat = np.repeat(np.arange(count), members)
    labels = part.logits.reshape(count * members, letters)
    columns = {
        "id": [part.ids[row] for row in repeat],
        "member": part.members * count,
        "order": [LETTERS[: int(np.isfinite(values).sum())] or LETTERS[:letters] for values in labels],
        **{f"l_{letter}": pa.array(labels[:, at], from_pandas=True) for at, letter in enumerate(LETTERS[:letters])},
        "label_mass": pa.array(part.label_mass.ravel(), from_pandas=True),
        "top_token": part.top_token.ravel(),
        "status": [part.status[row] for row in repeat],
    }
    write_table(part_path(folder, number), pa.table(columns))


def read_parts(folder: Path, ids: list[str], members: list[str], letters: int) -> OptionLogits:
    """All parts of a folder, as rows in the order of `ids`; ids without a part stay unscored.

    Raises ValueError where a part holds an id or member that is not asked for.
    """
    result = OptionLogits.empty(ids, members, letters)
    paths = [str(path) for path in sorted(folder.glob("part-*.parquet"))]
    if not paths:
        return result
    parts = dataset(paths, format="parquet").to_table().to_pandas()
    row, member = pd.Index(ids).get_indexer(parts["id"]), pd.Index(members).get_indexer(parts["member"])
    if (foreign := parts[(row < 0) | (member < 0)]).size:
        first = foreign.iloc[0]
        raise ValueError(
            f"{folder}: a row (id {first['id']!r}, member {first['member']!r}) that this run does not have"
        )
    result.logits[row, member] = parts[[f"l_{letter}" for letter in LETTERS[:letters]]].to_numpy(np.float32)
    result.label_mass[row, member] = parts["label_mass"].to_numpy(np.float32)
    result.top_token[row, member] = parts["top_token"].to_numpy()
    for at, status in zip(row.tolist(), parts["status"].tolist()):
        result.status[at] = status
    return result
