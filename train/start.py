"""A training from its rows to its folder: one adapter or several folds, by one process or by all of its call."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from scoring.files.lock import check_held, hold
from scoring.inputs.questions import Question
from scoring.run.processes import Processes
from train.config import TrainConfig
from train.folder import discard
from train.folds import train_folds
from train.trainer import Trainer


def start(
    base: str,
    rows: list[Question],
    valid: list[Question],
    out: Path,
    config: TrainConfig,
    folds: int | None,
    overwrite: bool,
    say: Callable[..., None],
    progress: Callable,
    processes: Processes | None,
    **further,
) -> None:
    """Train on `rows`, watched on `valid`, or in `folds` that hold out parts of `rows`; `overwrite` what is in `out`.

    say: `say(text, everyone)`, also by those who are not the first if `everyone`. further: for each `Trainer`, whose
    errors are raised; HoldError too, and FolderError where `out` holds other folds.
    """
    processes = processes or Processes()

    def trainer(train_rows: list[Question], held_out: list[Question], folder: Path, apart: bool = False) -> Trainer:
        def named(text: str) -> None:
            say(f"{folder.name}: {text}", True)

        team, told = (processes.alone(), named) if apart and processes.count > 1 else (processes, say)
        own = {"say": told, "progress": progress, "processes": team}
        return Trainer(base, train_rows, held_out, folder, config, **own, **further)

    with hold(out) if processes.first else nullcontext():
        if overwrite and processes.first and processes.first_time("overwrite"):
            discard(out)  # not before the new table and base are known to be good
        processes.barrier("start")
        check_held(out)
        if folds:
            train_folds(rows, folds, config.seed, out, trainer, say, processes)
        else:
            trainer(rows, valid, out).run()
