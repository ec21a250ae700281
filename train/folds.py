"""Training in folds: K adapters, each validated on the part of the rows that it was not trained on.

A picture, by content, is never in both parts.
"""

import warnings
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from scoring.checkpoints.adapter import adapter_fingerprint
from scoring.checkpoints.calibrate import calibrate_folds
from scoring.checkpoints.checkpoint import read_checkpoint
from scoring.errors import ScoringError
from scoring.inputs.questions import Question
from scoring.run.processes import Queue
from train.folder import STATE, finished
from train.inputs import FoldWorkers, TrainContext, TrainingInputs
from train.split import UNKNOWN, picture_groups, strata
from train.trainer import Trainer
from train.validation import HeldOutRows, read_scores, write_scores

OUT_OF_FOLD = "out-of-fold"  # folder of all folds' validation rows
LIMIT = 86_400.0  # seconds without a step in any process, after which a fold is no longer waited for


class FoldError(ScoringError):
    """Rows that cannot be split into so many folds."""


def assign_folds(questions: list[Question], folds: int, seed: int) -> list[NDArray[np.int64]]:
    """For each fold the indices of its validation rows, ascending: stratified by task type, grouped by picture.

    Pictures are equal by content, whatever their names. Raises FoldError where the pictures are too few.
    """
    firsts = picture_groups(questions)
    groups = [_name(questions[first], first) for first in firsts]  # the splitter sorts them
    pictures = len(set(firsts))
    if pictures < folds:
        raise FoldError(
            f"{pictures} picture{'' if pictures == 1 else 's'} cannot be split into {folds} folds; expected a smaller "
            "--folds, or more pictures"
        )
    labels = strata(questions)
    if max(Counter(labels).values()) < folds:  # no type has a row for each fold
        labels = [UNKNOWN] * len(questions)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # a type with fewer rows than folds is in some of them
        warnings.simplefilter("ignore", UserWarning)
        indices = [np.sort(valid) for _, valid in splitter.split(groups, labels, groups)]
    if empty := [number for number, rows in enumerate(indices) if not len(rows)]:
        raise FoldError(f"fold {empty[0]} would have no row: few pictures have most rows; try a smaller --folds")
    return indices


def _name(question: Question, number: int) -> str:
    """The name of a picture: its path, or its first row's number where it has none. number: that row's index."""
    return str(question.picture) if isinstance(question.picture, Path) else f"row {number:09}"


# ------------------------------------------------------------------ training
@dataclass(frozen=True)
class _Fold:
    """One fold: the indices of its validation rows in the table, and what trains it."""

    number: int
    valid_rows: NDArray[np.int64]
    trainer: Trainer

    @property
    def folder(self) -> Path:
        return self.trainer.out


def train_folds(inputs: TrainingInputs, folds: int, context: TrainContext) -> None:
    """Train OUT/fold0, OUT/fold1 …, each on all rows but one part; then write OUT/out-of-fold and calibrate it.

    Finished folds are left as they are. With at least as many folds as processes, each process trains a fold alone and
    takes another when it is done; fewer folds are trained one after the other by all processes together. Where the
    context has workers, they train the folds.

    Raises FolderError or StateError, before anything is loaded, where a fold's folder holds another training.
    """
    if context.fold_workers:
        _train_elsewhere(inputs, folds, context, context.fold_workers)
        return
    processes = context.processes
    one_process_each = processes.count <= folds
    plan = _plan_folds(inputs, folds, context, apart=one_process_each and processes.count > 1)
    for fold in plan:
        fold.trainer.check_folder()
    processes.barrier("folds")  # no process writes before all have checked
    queue = Queue(processes, f"{inputs.out.name}/folds", list(range(folds)))
    for number in queue.take() if one_process_each else queue.todo:
        _train_fold(plan[number], context)
    if not processes.first:
        queue.close({})
        return
    if one_process_each:
        queue.collect_reports(lambda: processes.add("steps", 0), LIMIT)
    for fold in plan:
        if not finished(fold.folder):  # of a process that did not finish it
            _train_fold(fold, context)
    _write_out_of_fold(inputs, plan, context)


def _train_elsewhere(inputs: TrainingInputs, folds: int, context: TrainContext, workers: FoldWorkers) -> None:
    """The same, where workers train the folds. What is unfinished is checked by the machine that they run on."""
    plan = _plan_folds(inputs, folds, context, apart=False)
    todo = [fold for fold in plan if not finished(fold.folder)]
    if any((fold.folder / STATE).exists() for fold in todo):
        machine = workers.machine()
        for fold in todo:
            fold.trainer.plan.identity = machine | fold.trainer.plan.choices
    for fold in plan:
        fold.trainer.check_folder()
    for fold in plan:
        _announce(fold, context)
    workers.train([fold.trainer.plan.inputs for fold in todo], context)
    _write_out_of_fold(inputs, plan, context)


def _plan_folds(inputs: TrainingInputs, folds: int, context: TrainContext, apart: bool) -> list[_Fold]:
    """The folds and what trains them. apart: each is trained by one process alone."""
    plan = []
    for number, valid_rows in enumerate(assign_folds(inputs.train, folds, inputs.config.seed)):
        folder, held_out = inputs.out / f"fold{number}", set(valid_rows.tolist())
        train = [question for row, question in enumerate(inputs.train) if row not in held_out]
        valid = [inputs.train[row] for row in valid_rows]
        trainer = Trainer(
            replace(inputs, train=train, valid=valid, out=folder), context.alone(folder.name) if apart else context
        )
        plan.append(_Fold(number, valid_rows, trainer))
    return plan


def _train_fold(fold: _Fold, context: TrainContext) -> None:
    """Train a fold, unless it is finished."""
    _announce(fold, context)
    if not finished(fold.folder):
        fold.trainer.run()


def _announce(fold: _Fold, context: TrainContext) -> None:
    """Say what is to be trained, or that it was."""
    inputs = fold.trainer.plan.inputs
    if finished(fold.folder):
        context.say(f"fold {fold.number}: already finished")
    else:
        context.say(f"fold {fold.number}: {len(inputs.train):,} training rows, {len(inputs.valid):,} validation rows")


def _write_out_of_fold(inputs: TrainingInputs, plan: list[_Fold], context: TrainContext) -> None:
    """All rows as a SCORES folder, each scored by the fold that had not seen it, and one calibration for all folds."""
    folder = inputs.out / OUT_OF_FOLD
    adapters = [
        HeldOutRows(fold.folder.name, adapter_fingerprint(fold.folder), fold.valid_rows, read_scores(fold.folder))
        for fold in plan
    ]
    settings = read_checkpoint(str(plan[0].folder)).manifest.settings.to_json()
    write_scores(folder, inputs.train, adapters, settings)
    context.say(f"out-of-fold logits of all {len(inputs.train):,} rows: {folder}")
    calibration, _ = calibrate_folds(folder, inputs.out)
    context.say(f"calibration of the pool of folds: {calibration.choice[0]}")
