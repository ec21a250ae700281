"""A table in shards: which batches each scores, for job arrays without a process group, and their folders as one run.

Every shard plans the whole table, and scores its share of the batches into a folder of its own. A batch has the same
rows and bits whoever scores it, so the merged folder is, byte for byte, what one process would have left.
"""

import heapq
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from scoring.files.lock import lock_folder
from scoring.files.reading import read_json, read_object
from scoring.files.writing import write_json, write_table, write_whole
from scoring.scores.finalize import Ending
from scoring.scores.folder import RunError, typed_columns
from scoring.scores.logits import OptionLogits, part_path, read_parts
from scoring.scores.pooling import claim
from scoring.stats.calibration import Calibration
from scoring.stats.sets import SetRequest

SHARD = "shard.json"


def own_batches(tokens: Sequence[int], shard: tuple[int, int]) -> list[int]:
    """The batches of shard i of n (from 1): the most expensive first, each to whoever has the fewest tokens yet."""
    loads = [(0, number) for number in range(1, shard[1] + 1)]
    own = []
    for batch in sorted(range(len(tokens)), key=lambda batch: (-tokens[batch], batch)):
        load, number = heapq.heappop(loads)
        heapq.heappush(loads, (load + tokens[batch], number))
        own += [batch] * (number == shard[0])
    return sorted(own)


@dataclass
class _Shard:
    """`shard.json`: which one of how many, its parts, and what the end of the run needs besides them."""

    shard: list[int]
    parts: list[int]
    about: dict
    calibrations: list[dict]
    label_ids: list[int]
    statuses: dict[str, str] = field(default_factory=dict)  # of rows that no batch holds
    sets: SetRequest | None = None
    warnings: list[str] = field(default_factory=list)


def leave_shard(ending: Ending, shard: tuple[int, int], parts: list[int], statuses: dict[str, str]) -> None:
    """File what `merge` needs of a shard whose parts are all there."""
    write_table(ending.out / "questions.parquet", pa.table(typed_columns(ending.columns)))
    values = {
        "shard": list(shard),
        "parts": parts,
        "about": ending.about,
        "calibrations": [found.to_json() for found in ending.calibrations],
        "label_ids": ending.label_ids,
        "statuses": statuses,
        "sets": asdict(ending.sets) if ending.sets else None,
        "warnings": list(ending.warnings),
    }
    write_json(ending.out / SHARD, values)


def merge(folders: Sequence[Path], out: Path, overwrite: bool = False) -> tuple[OptionLogits, dict | None, list[str]]:
    """The shards' parts as one finished SCORES folder; (logits, metrics, warnings).

    Raises RunError where shards are missing or double, are not finished, or are of different runs: all told at once.
    """
    found = [_read(folder) for folder in folders]
    _check(folders, found)
    claim(out, overwrite)
    with lock_folder(out):
        (out / "logits").mkdir(exist_ok=True)
        for folder, shard in zip(folders, found):
            for number in shard.parts:
                _copy(part_path(folder / "logits", number), part_path(out / "logits", number))
        plan = read_json(folders[0] / "plan.json")
        write_json(out / "plan.json", {key: value for key, value in plan.items() if key != "shard"})
        ending = _ending(folders, found, out)
        return ending.logits, *ending.finish()


def _ending(folders: Sequence[Path], found: list[_Shard], out: Path) -> Ending:
    """The whole run, as its shards tell it."""
    first, abouts = found[0], [shard.about for shard in found]
    columns = pq.read_table(folders[0] / "questions.parquet").to_pydict()
    identity = {key: value for key, value in first.about["identity"].items() if key != "shard"}
    members = [entry["member"] for entry in first.about["checkpoints"]]
    logits = read_parts(out / "logits", columns["id"], members, len(identity["letters"]), identity["orders"])
    logits.status = [first.statuses.get(id, status) for id, status in zip(logits.ids, logits.status)]
    about = first.about | {
        "command": sys.argv,
        "identity": identity,
        "split": max(part["split"] for part in abouts),
        "notes": list(dict.fromkeys(note for part in abouts for note in part["notes"])),
        "counts": first.about["counts"] | {"scored_now": sum(part["counts"]["scored_now"] for part in abouts)},
        "seconds": {key: sum(part["seconds"][key] for part in abouts) for key in first.about["seconds"]},
        "peak_gpu_bytes": max(part["peak_gpu_bytes"] for part in abouts),
        "processes": [process for part in abouts for process in part["processes"]],
        "sources": [str(folder) for folder in folders],
    }
    calibrations = [Calibration.from_json(values, folders[0] / SHARD) for values in first.calibrations]
    return Ending(out, about, columns, logits, calibrations, first.label_ids, first.sets, first.warnings)


def _read(folder: Path) -> _Shard:
    if found := read_object(_Shard, folder / SHARD):
        return found
    begun = (folder / "plan.json").exists()
    told = "begun, and not finished; the same command goes on" if begun else "no shard"
    raise RunError(f"{folder}: {told}; expected what `score --shard` leaves when it is done")


def _check(folders: Sequence[Path], found: list[_Shard]) -> None:
    """RunError for everything that keeps these from being each shard of one run once."""
    faults = []
    count = found[0].shard[1]
    runs = [
        shard.about["identity"] | {"shard": shard.shard[1], "sets": shard.sets and asdict(shard.sets)}
        for shard in found
    ]
    holding: dict[int, list[str]] = {}
    for folder, shard, run in zip(folders, found, runs):
        holding.setdefault(shard.shard[0], []).append(str(folder))
        for key in sorted({*run, *runs[0]}):
            if run.get(key) != runs[0].get(key):
                name = "the number of shards" if key == "shard" else key
                faults.append(f"{folder}: {name} is {run.get(key)}, but {folders[0]} has {runs[0].get(key)}")
        if lost := [number for number in shard.parts if not part_path(folder / "logits", number).exists()]:
            faults.append(f"{folder}: {len(lost)} of its parts are gone, such as {part_path(Path('logits'), lost[0])}")
    for number, places in sorted(holding.items()):
        if len(places) > 1:
            faults.append(f"shard {number} of {count} is there {len(places)} times: {', '.join(places)}")
    if missing := [str(number) for number in range(1, count + 1) if number not in holding]:
        faults.append(f"missing of {count} shards: {', '.join(missing)}")
    if faults:
        raise RunError("\n".join([*faults, "expected every shard of one run once"]))


def _copy(source: Path, target: Path) -> None:
    with open(source, "rb") as file:
        write_whole(target, lambda beside: shutil.copyfileobj(file, beside))
