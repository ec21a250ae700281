"""Shards of a table: which batches each one scores, for job arrays without a process group, and their merge.

Every shard schedules the whole table, and scores its share of the batches into a folder of its own. A batch has the
same rows and bits whoever scores it, so the merged folder is, byte for byte, what one process would have left.
"""

import heapq
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scoring.files.differences import changed
from scoring.files.lock import lock_folder
from scoring.files.reading import read_json, read_object
from scoring.files.writing import write_json, write_table, write_whole
from scoring.scores.finalize import ScoredRun, write_run
from scoring.scores.folder import RunError, check_replaceable, typed_columns
from scoring.scores.logits import Layout, OptionLogits, part_path, read_parts
from scoring.stats.calibration import Calibration
from scoring.stats.sets import SetRequest
from scoring.tables.sample import SampleSubmission

SHARD = "shard.json"


def assign_batches(tokens: Sequence[int], shard: tuple[int, int]) -> list[int]:
    """The batches of shard i of n (from 1): the most expensive first, each to the shard with the fewest tokens."""
    loads = [(0, number) for number in range(1, shard[1] + 1)]
    assigned = []
    for batch in sorted(range(len(tokens)), key=lambda batch: (-tokens[batch], batch)):
        load, number = heapq.heappop(loads)
        heapq.heappush(loads, (load + tokens[batch], number))
        if number == shard[0]:
            assigned.append(batch)
    return sorted(assigned)


@dataclass
class _Shard:
    """`shard.json`: which one of how many, its parts, and what the end of the run needs besides them.

    shard: (number, count), numbered from 1. about: what becomes run.json. statuses: of rows that no batch holds.
    """

    shard: list[int]
    parts: list[int]
    about: dict[str, Any]
    calibrations: list[dict[str, Any]]
    label_ids: list[int]
    statuses: dict[str, str] = field(default_factory=dict)
    sets: SetRequest | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def number(self) -> int:
        return self.shard[0]

    @property
    def count(self) -> int:
        return self.shard[1]

    @property
    def run(self) -> dict[str, Any]:
        """What all shards of one run have in common."""
        sets = asdict(self.sets) if self.sets else None
        return {**self.about["identity"], "shard": self.count, "sets": sets}


def leave_shard(scored: ScoredRun, shard: tuple[int, int], parts: list[int], statuses: dict[str, str]) -> None:
    """Write what `merge` needs of a shard whose parts are complete."""
    write_table(scored.out / "questions.parquet", pa.table(typed_columns(scored.columns)))
    values = {
        "shard": list(shard),
        "parts": parts,
        "about": scored.run_json,
        "calibrations": [calibration.to_json() for calibration in scored.calibrations],
        "label_ids": scored.label_ids,
        "statuses": statuses,
        "sets": asdict(scored.sets) if scored.sets else None,
        "warnings": list(scored.warnings),
    }
    write_json(scored.out / SHARD, values)


def merge(
    folders: Sequence[Path], out: Path, overwrite: bool = False, sample: SampleSubmission | None = None
) -> tuple[OptionLogits, dict[str, Any] | None, list[str]]:
    """The shards' parts as one finished SCORES folder; (logits, metrics, warnings).

    sample: whose header, ids and order submission.csv has. Raises RunError, naming all faults at once, where shards are
    missing, double, not finished or of different runs; InputError where no row has an id of the sample.
    """
    shards = [_read(folder) for folder in folders]
    _check(folders, shards)
    check_replaceable(out, overwrite)
    if sample:
        sample.rows_in(pq.read_table(folders[0] / "questions.parquet", columns=["id"])["id"].to_pylist())
    with lock_folder(out):
        (out / "logits").mkdir(exist_ok=True)
        for folder, shard in zip(folders, shards):
            for number in shard.parts:
                _copy(part_path(folder / "logits", number), part_path(out / "logits", number))
        plan = read_json(folders[0] / "plan.json") or {}
        write_json(out / "plan.json", {key: value for key, value in plan.items() if key != "shard"})
        scored = replace(_whole_run(folders, shards, out), sample=sample)
        written = write_run(scored)
        return scored.logits, written.metrics, written.warnings


def _whole_run(folders: Sequence[Path], shards: list[_Shard], out: Path) -> ScoredRun:
    """The whole run, as its shards describe it."""
    first, reports = shards[0], [shard.about for shard in shards]
    columns = pq.read_table(folders[0] / "questions.parquet").to_pydict()
    identity = {key: value for key, value in first.about["identity"].items() if key != "shard"}
    members = [entry["member"] for entry in first.about["checkpoints"]]
    layout = Layout(columns["id"], members, len(identity["letters"]), identity["orders"])
    logits = read_parts(out / "logits", layout)
    logits.status = [first.statuses.get(id, status) for id, status in zip(logits.ids, logits.status)]
    run_json = first.about | {
        "command": sys.argv,
        "identity": identity,
        "split": max(report["split"] for report in reports),
        "notes": list(dict.fromkeys(note for report in reports for note in report["notes"])),
        "counts": first.about["counts"] | {"scored_now": sum(report["counts"]["scored_now"] for report in reports)},
        "seconds": {key: sum(report["seconds"].get(key, 0.0) for report in reports) for key in first.about["seconds"]},
        "peak_gpu_bytes": max(report["peak_gpu_bytes"] for report in reports),
        "processes": [process for report in reports for process in report["processes"]],
        "sources": [str(folder) for folder in folders],
    }
    calibrations = [Calibration.from_json(values, folders[0] / SHARD) for values in first.calibrations]
    return ScoredRun(out, run_json, columns, logits, calibrations, first.label_ids, first.sets, first.warnings)


def _read(folder: Path) -> _Shard:
    if shard := read_object(_Shard, folder / SHARD):
        return shard
    begun = (folder / "plan.json").exists()
    state = "begun, and not finished; the same command goes on" if begun else "no shard"
    raise RunError(f"{folder}: {state}; expected what `score --shard` leaves when it is done")


def _check(folders: Sequence[Path], shards: list[_Shard]) -> None:
    """Raises RunError with everything that keeps these from being each shard of one run once."""
    faults: list[str] = []
    folders_of: dict[int, list[str]] = {}
    for folder, shard in zip(folders, shards):
        folders_of.setdefault(shard.number, []).append(str(folder))
        faults += _differences(folder, shard.run, folders[0], shards[0].run)
        if lost := [number for number in shard.parts if not part_path(folder / "logits", number).exists()]:
            example = part_path(Path("logits"), lost[0])
            faults.append(f"{folder}: {len(lost)} of its parts are missing, such as {example}")
    count = shards[0].count
    for number, names in sorted(folders_of.items()):
        if len(names) > 1:
            faults.append(f"shard {number} of {count} is there {len(names)} times: {', '.join(names)}")
    if missing := [str(number) for number in range(1, count + 1) if number not in folders_of]:
        faults.append(f"missing of {count} shards: {', '.join(missing)}")
    if faults:
        raise RunError("\n".join([*faults, "expected every shard of one run once"]))


def _differences(folder: Path, run: dict[str, Any], first_folder: Path, first_run: dict[str, Any]) -> list[str]:
    return [
        f"{folder}: {'the number of shards' if name == 'shard' else name} is {change.now}, but {first_folder} has "
        f"{change.before}"
        for name, change in changed(first_run, run, sorted({*run, *first_run})).items()
    ]


def _copy(source: Path, target: Path) -> None:
    with open(source, "rb") as file:
        write_whole(target, lambda beside: shutil.copyfileobj(file, beside))
