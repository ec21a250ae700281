"""The folder of a training, before anything heavy is loaded: what is in the way there?"""

from pathlib import Path

from scoring.engine.checkpoint import ADAPTER_CONFIG, ADAPTER_FILE

STATE = "training_state.safetensors"  # of a training that is not finished


class FolderError(ValueError):
    """A folder that holds something else."""


def finished(folder: Path) -> bool:
    """Whether a training ended here."""
    return (folder / ADAPTER_FILE).exists() and not (folder / STATE).exists()


def check_out(out: Path, folds: bool) -> None:
    """Raises FolderError where another training's results are in the way."""
    other = "a checkpoint" if finished(out) or (folds and (out / ADAPTER_CONFIG).exists()) else ""
    if not folds and (out / "fold0").exists():
        other = "folds"
    if other:
        raise FolderError(f"{out} holds {other}; choose another --out, or add --overwrite")


def discard(out: Path) -> None:
    """Do away with a training that is to be replaced."""
    for folder in (out, *out.glob("fold*")):
        for name in (STATE, ADAPTER_FILE):
            (folder / name).unlink(missing_ok=True)
