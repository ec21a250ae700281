"""The steps of an epoch: forward and backward over each step's rows, one update of the weights, one line of the log."""

from collections.abc import Iterator
from contextlib import closing
from itertools import count, islice

import numpy as np
from numpy.typing import NDArray

from scoring.engine.batches import PreparedBatch, read_ahead
from scoring.engine.costs import plan_batches
from scoring.inputs.questions import Question
from train.batches import AugmentingPreparer, epoch_order, shuffled
from train.inputs import TrainError
from train.state import Update
from train.training import Training

Rows = NDArray[np.int64]  # indices of training rows


def run_steps(training: Training, epoch: int, done: int) -> None:
    """Run all steps of an epoch after the first `done`.

    Raises TrainError where the loss is not finite, PictureError where a picture cannot be read, KeyboardInterrupt once
    a process is asked to stop.
    """
    plan, config = training.plan, training.plan.config
    training.model.network.train()
    steps = epoch_order(len(plan.inputs.train), config.batch, config.seed, epoch)[done:]
    forwards = [_share_of_step(training, rows) for rows in steps]
    preparer = AugmentingPreparer(**vars(plan.preparer), strength=config.augment, seed=config.seed, epoch=epoch)
    questions = (([_question(training, row, epoch) for row in rows], "1") for share in forwards for rows in share)
    ahead = read_ahead(preparer, questions, training.model.model.device.type)
    with closing(ahead), training.model.packing():  # its threads end with the epoch
        for rows, share in zip(steps, forwards):
            _run_step(training, epoch, rows, islice(ahead, len(share)))


def _share_of_step(training: Training, rows: Rows) -> list[Rows]:
    """This process's rows of a step in forwards that fit into memory, those of a picture together."""
    costs = training.plan.train_costs
    share = rows[training.group.assign_rows([costs[row] for row in rows])]
    return [share[batch] for batch in plan_batches([costs[row] for row in share], training.memory.tokens)]


def _question(training: Training, row: int, epoch: int) -> Question:
    """The row as this epoch has it."""
    question, config = training.plan.inputs.train[row], training.plan.config
    return shuffled(question, config.seed, epoch) if config.shuffle_options else question


def _run_step(training: Training, epoch: int, rows: Rows, batches: Iterator[PreparedBatch]) -> None:
    """One step on `rows`, of which this process computes `batches`."""
    state, config = training.state, training.plan.config
    loss, stop_requested = _compute_gradients(training, len(rows), batches)
    if not np.isfinite(loss):
        ids = ", ".join(training.plan.inputs.train[row].id for row in rows)
        raise TrainError(
            f"step {state.step + 1}: the loss is {loss}; rows of this step: {ids}. "
            "Lower --learning-rate, or look at these rows"
        )
    update = state.update(len(rows))
    _report_step(training, epoch, loss, update)
    if training.bar:
        training.bar.update(len(rows))
    if state.step % training.plan.steps_per_epoch:  # at the end of an epoch its validation comes first
        if state.step % config.save_every == 0:
            training.save_state()
        training.stop_if(stop_requested)


def _compute_gradients(training: Training, step_rows: int, batches: Iterator[PreparedBatch]) -> tuple[float, bool]:
    """Sum the gradients of a step over all processes: (mean loss, whether a process was asked to stop)."""
    model, processes = training.model, training.context.processes
    losses = []
    for number, ready in zip(count(processes.rank, processes.count), batches):
        ready.raise_for_faults()
        position = (training.plan.config.seed, training.state.step, number)
        losses.append(model.loss_backward(ready, position, step_rows))
    total = sum(loss.item() for loss in losses)
    loss, requests = training.group.sum_gradients(model.weights, total, float(training.stop_requested))
    return loss, bool(requests)


def _report_step(training: Training, epoch: int, loss: float, update: Update) -> None:
    state = training.state
    training.log.write(
        state.step,
        epoch=epoch,
        loss=loss,
        learning_rate=update.learning_rate,
        gradient_norm=update.gradient_norm,
        rows_per_second=round(training.stopwatch.rows_per_second(state.rows_done), 2),
    )
    if training.bar:
        training.bar.show(epoch=f"{epoch}/{training.plan.config.epochs}", loss=f"{loss:.3f}")
