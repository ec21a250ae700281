"""K adapters, each validated on the part that it was not trained on: a picture never stands on both sides."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from scoring.engine.processes import Processes, Queue
from scoring.inputs.questions import Question
from train.folder import finished
from train.split import strata


class FoldError(ValueError):
    """Rows that cannot be parted in so many folds."""


def fold_places(questions: list[Question], folds: int, seed: int) -> list[np.ndarray]:
    """For each fold the places of its validation rows, in order: stratified by task type, grouped by picture."""
    groups = [str(question.picture) for question in questions]
    pictures = len(set(groups))
    if pictures < folds:
        raise FoldError(f"{pictures} pictures cannot be parted in {folds} folds; expected a smaller --folds")
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    found = [np.sort(valid) for _, valid in splitter.split(groups, strata(questions), groups)]
    if empty := [number for number, places in enumerate(found) if not len(places)]:
        raise FoldError(f"fold {empty[0]} would have no row: few pictures have most rows; try a smaller --folds")
    return found


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

    trainer: (training rows, validation rows, folder, whether by one process alone) -> what has `run()` and `kept()`,
    the best epoch's validation. processes: each trains folds of its own where there are as many of them, and one that
    is done takes another; fewer folds are trained one after the other by all processes.
    """
    from scoring.engine.checkpoint import ADAPTER_FILE, file_fingerprint
    from train.validation import write_scores

    processes = processes or Processes()
    apart = processes.count <= folds
    places, parts = fold_places(questions, folds, seed), {}

    def kept(number: int, tell: bool = True):
        """A fold's validation, trained where it is not yet."""
        folder, valid = out / f"fold{number}", places[number]
        held_out = set(valid.tolist())
        rows = [question for at, question in enumerate(questions) if at not in held_out]
        one = trainer(rows, [questions[at] for at in valid], folder, apart)
        if not finished(folder):
            say(f"fold {number}: {len(rows):,} training rows, {len(valid):,} validation rows")
            one.run()
        elif tell:
            say(f"fold {number}: finished before")
        return one.kept()

    queue = Queue(processes, f"{out.name}/folds", list(range(folds)))
    for number in queue.take() if apart else queue.todo:
        parts[number] = kept(number)
    if not processes.first:
        queue.over({})
        return
    if apart:
        queue.settle(lambda _: None, patience=math.inf)  # a fold may take hours
    parts = {f"fold{number}": parts.get(number) or kept(number, tell=False) for number in range(folds)}
    adapters = [file_fingerprint(out / name / ADAPTER_FILE) for name in parts]
    write_scores(out / "out-of-fold", questions, parts, places, adapters)
    say(f"out-of-fold logits of all {len(questions):,} rows: {out / 'out-of-fold'}")
