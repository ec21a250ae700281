"""A training from its rows to its folder: one adapter or several folds, by one process or by all of its call."""

from contextlib import nullcontext

from scoring.files.lock import check_folder_is_shared, lock_folder
from train.folder import discard
from train.folds import train_folds
from train.inputs import TrainContext, TrainingInputs
from train.trainer import Trainer


def start(inputs: TrainingInputs, context: TrainContext, folds: int | None = None, overwrite: bool = False) -> None:
    """Train one adapter, or one for each of `folds` that hold out parts of the training rows.

    overwrite: replace what is in the folder. Raises the errors of `Trainer`, LockError where another process writes
    into the folder, and FolderError where it holds other folds.
    """
    out, processes = inputs.out, context.processes
    with lock_folder(out) if processes.first else nullcontext():
        if overwrite and processes.first and processes.first_time("overwrite"):
            discard(out)  # only now that the new table and base are known to be good
        processes.barrier("start")
        check_folder_is_shared(out)
        if folds:
            train_folds(inputs, folds, context)
        else:
            Trainer(inputs, context).run()
