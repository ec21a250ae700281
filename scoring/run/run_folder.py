"""The folder of a run: which run it belongs to, and what that run decided for itself."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scoring.files.differences import changed, describe
from scoring.files.lock import LOCK
from scoring.files.reading import as_object, read_json
from scoring.files.writing import write_json
from scoring.scores.folder import RunError

RANGES = "ranges"  # the folder of ranges that are not put together yet, see `ranges.py`
ROWS_HELD = "rows_held"  # in `plan.json`: rows of a range, where a table is scored in ranges


@dataclass
class RunState:
    """`plan.json`: what the logits depend on, and what the run decided once, for every start of it.

    split: a power of two, the pieces into which a batch must be cut to fit into memory.
    """

    identity: dict[str, Any]
    batch_tokens: int
    compile: bool
    split: int = 1

    @property
    def settings(self) -> dict[str, Any]:
        """The identity and the decisions that change no logits' meaning but their batches: all except `split`."""
        return {**self.identity, "batch_tokens": self.batch_tokens, "compile": self.compile}

    def to_json(self) -> dict[str, Any]:
        """The content of `plan.json`, and of the message to other processes."""
        return {**self.settings, "split": self.split}

    @classmethod
    def from_json(cls, values: dict[str, Any], source: object) -> "RunState":
        """Raises FileError, naming `source`, where a decision is missing or of another type."""
        decisions = as_object(_Decisions, values, source)
        identity = {key: value for key, value in values.items() if key not in _Decisions.__dataclass_fields__}
        return cls(identity, decisions.batch_tokens, decisions.compile, decisions.split)


@dataclass
class _Decisions:
    """What a run decided for itself, as its plan holds it."""

    batch_tokens: int
    compile: bool
    split: int


def write_state(out: Path, state: RunState) -> None:
    """Write `plan.json`."""
    write_json(out / "plan.json", state.to_json())


def read_state(out: Path, wanted: dict[str, Any], overwrite: bool) -> RunState | None:
    """The state of this very run, where it was begun before; None where it is new.

    wanted: what this run must have been begun with. overwrite: remove what another run left. Raises RunError where
    `out` holds another run or other files.
    """
    before = read_plan(out, wanted, overwrite)
    return None if before is None else RunState.from_json(before, out / "plan.json")


def read_plan(out: Path, wanted: dict[str, Any], overwrite: bool) -> dict[str, Any] | None:
    """The same as the values of `plan.json`."""
    path = out / "plan.json"
    if overwrite and path.exists():
        remove_run(out)
    before = read_json(path)
    if before is not None:
        if changes := changed(before, wanted, [*wanted, ROWS_HELD]):
            raise RunError(
                f"{out} holds the results of another run: {describe(changes)}. "
                "Choose another --out, or start anew with --overwrite"
            )
        return before
    if out.exists() and not overwrite and any(not _left_by_a_start(path) for path in out.iterdir()):
        raise RunError(f"{out} exists and holds other files; choose another --out, or add --overwrite")
    return None


def remove_run(out: Path) -> None:
    """Remove what a run has left in its folder, its plan last; other files stay."""
    for folder in (out / "logits", out / RANGES, out / "members"):
        shutil.rmtree(folder, ignore_errors=True)
    for path in (out / "metrics.json", out / "run.json", out / "plan.json"):
        path.unlink(missing_ok=True)


def check_same(identity: dict[str, Any], first: dict[str, Any]) -> None:
    """Raises RunError where this process does not see what the first process sees."""
    if changes := changed(first, identity, identity):
        differences = "; ".join(
            f"{name} is {change.now}, but {change.before} to the first process" for name, change in changes.items()
        )
        raise RunError(f"{differences}; expected the same files, packages and kinds of device on every machine")


def prepare_folder(out: Path, state: RunState, is_new: bool) -> None:
    """Make the folder of parts, write the state of a new run, and remove half-written parts."""
    parts = out / "logits"
    parts.mkdir(parents=True, exist_ok=True)
    if is_new:
        write_state(out, state)
    remove_unfinished(parts)


def remove_unfinished(parts: Path) -> None:
    """Remove the files that a process which is gone was writing."""
    for unfinished in parts.glob("*.tmp"):
        unfinished.unlink()


def _left_by_a_start(path: Path) -> bool:
    """Whether a run leaves this file when it is killed before its plan is written."""
    return path.name in ("plan.json.tmp", LOCK) or (path.name == "logits" and path.is_dir() and not any(path.iterdir()))
