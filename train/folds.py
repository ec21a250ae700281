"""K adapters, each validated on the part that it was not trained on: a picture is never on both sides, by content."""

import math
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from scoring.errors import UserError
from scoring.inputs.questions import Question
from scoring.run.processes import Processes, Queue
from train.folder import finished
from train.split import UNKNOWN, picture_groups, strata


class FoldError(UserError):
    """Rows that cannot be parted in so many folds."""


def fold_places(questions: list[Question], folds: int, seed: int) -> list[np.ndarray]:
    """For each fold the places of its validation rows, in order: stratified by task type, grouped by picture.

    A picture is known by its content, whatever its name. Raises FoldError where the pictures are too few.
    """
    firsts = picture_groups(questions)
    groups = [_name(questions[first], first) for first in firsts]  # the splitter sorts them
    pictures = len(set(firsts))
    if pictures < folds:
        raise FoldError(
            f"{pictures} picture{'s' * (pictures != 1)} cannot be parted in {folds} folds; expected a smaller --folds, "
            "or more pictures"
        )
    labels = strata(questions)
    if max(Counter(labels).values()) < folds:  # no type has a row for each fold
        labels = [UNKNOWN] * len(questions)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # that a type has fewer rows than there are folds: it is in some of them
        warnings.simplefilter("ignore", UserWarning)
        found = [np.sort(valid) for _, valid in splitter.split(groups, labels, groups)]
    if empty := [number for number, places in enumerate(found) if not len(places)]:
        raise FoldError(f"fold {empty[0]} would have no row: few pictures have most rows; try a smaller --folds")
    return found


def _name(question: Question, number: int) -> str:
    """A picture's name, by that of its first row."""
    return str(question.picture) if isinstance(question.picture, Path) else f"row {number:09}"


def train_folds(
    questions: list[Question],
    folds: int,
    seed: int,
    out: Path,
    trainer: Callable[[list[Question], list[Question], Path, bool], object],
    say: Callable[[str], None],
    processes: Processes | None = None,
) -> None:
    """Train OUT/fold0 …, those that are finished left as they are; then OUT/out-of-fold.

    trainer: (training rows, validation rows, folder, whether by one process alone) -> what has `check_folder()`,
    `run()` and `kept()`, the best epoch's validation. processes: each trains folds of its own where there are as many
    of them, and one that is done takes another; fewer folds are trained one after the other by all processes.

    Raises FolderError or StateError, before anything is loaded, where a fold's folder holds another training.
    """
    from scoring.checkpoints.adapter import adapter_fingerprint
    from scoring.checkpoints.calibrate import calibrate_folds
    from scoring.checkpoints.checkpoint import read_checkpoint
    from train.validation import write_scores

    processes = processes or Processes()
    apart = processes.count <= folds
    places, parts = fold_places(questions, folds, seed), {}
    trainers = {}
    for number, places_of_fold in enumerate(places):
        held_out = set(places_of_fold.tolist())
        train = [question for row, question in enumerate(questions) if row not in held_out]
        valid = [questions[row] for row in places_of_fold]
        trainers[number] = trainer(train, valid, out / f"fold{number}", apart)
    for one in trainers.values():
        one.check_folder()
    processes.barrier("folds")  # none writes before all have looked

    def kept(number: int, tell: bool = True):
        """A fold's validation, trained where it is not yet."""
        one, valid = trainers.pop(number), places[number]  # a model goes with its trainer
        if not finished(out / f"fold{number}"):
            rows = len(questions) - len(valid)
            say(f"fold {number}: {rows:,} training rows, {len(valid):,} validation rows")
            one.run()
        elif tell:
            say(f"fold {number}: finished before")
        return one.kept()

    queue = Queue(processes, f"{out.name}/folds", list(range(folds)))
    for number in queue.take() if apart else queue.todo:
        parts[number] = kept(number)
    if not processes.first:
        queue.close({})
        return
    if apart:
        queue.collect_reports(lambda _: None, patience=math.inf)  # a fold may take hours
    parts = {f"fold{number}": parts.get(number) or kept(number, tell=False) for number in range(folds)}
    adapters = [adapter_fingerprint(out / name) for name in parts]
    settings = read_checkpoint(str(out / "fold0")).manifest.settings
    write_scores(out / "out-of-fold", questions, parts, places, adapters, settings)
    say(f"out-of-fold logits of all {len(questions):,} rows: {out / 'out-of-fold'}")
    calibration, _ = calibrate_folds(out / "out-of-fold", out)
    say(f"calibration of the pool of folds: {calibration.choice[0]}")
