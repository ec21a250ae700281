"""The folder of a run: whose it is, and what may go on in it."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from scoring.files.lock import LOCK
from scoring.files.reading import as_object, read_json
from scoring.files.writing import write_json
from scoring.scores.folder import RunError


@dataclass
class _Chosen:
    """What a run decided for itself, in its plan."""

    batch_tokens: int
    compile: bool
    split: int


def write_plan(out: Path, state: dict) -> None:
    """What the run has decided, once."""
    write_json(out / "plan.json", state)


def check_folder(out: Path, identity: dict, overwrite: bool) -> dict | None:
    """The plan of this very run, where it was begun before; None where it is new. Raises RunError for another's."""
    path = out / "plan.json"
    if overwrite and path.exists():
        shutil.rmtree(out / "logits", ignore_errors=True)
        path.unlink()
    if path.exists():
        before = read_json(path)
        if changed := _differences(identity, before):
            differences = "; ".join(f"{key} was {before.get(key)}, now {identity[key]}" for key in changed)
            raise RunError(
                f"{out} holds the results of another run: {differences}. "
                "Choose another --out, or start anew with --overwrite"
            )
        as_object(_Chosen, before, path)
        return before
    if out.exists() and not overwrite and any(not _left_by_a_start(path) for path in out.iterdir()):
        raise RunError(f"{out} exists and holds other files; choose another --out, or add --overwrite")
    return None


def check_same(identity: dict, state: dict) -> None:
    """Raises RunError where this process and the first, which told `state`, do not see the same."""
    if changed := _differences(identity, state):
        told = "; ".join(f"{key} is {identity[key]}, but {state.get(key)} to the first process" for key in changed)
        raise RunError(f"{told}; expected the same files, packages and kinds of device on every machine")


def _differences(identity: dict, state: dict) -> list[str]:
    return [key for key in identity if state.get(key) != identity[key]]


def claim_folder(out: Path, state: dict, before: dict | None) -> Path:
    """The folder of parts, made where it is new, rid of what was half written."""
    parts = out / "logits"
    parts.mkdir(parents=True, exist_ok=True)
    if before is None:
        write_plan(out, state)
    tidy(parts)
    return parts


def tidy(parts: Path) -> None:
    """Do away with what processes that are gone had half written."""
    for unfinished in parts.glob("*.tmp"):
        unfinished.unlink()


def _left_by_a_start(path: Path) -> bool:
    """What a run leaves that was killed before its plan was written."""
    return path.name in ("plan.json.tmp", LOCK) or (path.name == "logits" and path.is_dir() and not any(path.iterdir()))
