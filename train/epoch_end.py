"""The end of an epoch: validate, save the checkpoints, report; and whether to stop early."""

import numpy as np

from scoring.checkpoints.adapter import adapter_fingerprint
from scoring.checkpoints.checkpoint import read_checkpoint
from scoring.files.writing import write_text
from train.checkpoint import save_checkpoint
from train.training import Training
from train.validation import FOLDER, HeldOutRows, Validation, Validator, best, write_epochs, write_scores


def end_epoch(training: Training, epoch: int) -> None:
    """Validate the adapter (its moving average, where there is one), save it, and report.

    Raises PictureError where a picture cannot be read.
    """
    training.model.network.eval()
    with training.state.averaged():
        result = _validate(training, epoch)
        training.state.results.append(result)
        if training.first:
            _save_checkpoints(training, result)
    if training.first:
        write_epochs(training.plan.out / "validation.csv", training.plan.inputs.valid, training.state.results)
        _report_epoch(training, result)


def stops_early(training: Training) -> bool:
    """Whether the last `patience` epochs were no better than an earlier one. Prints a line if so."""
    patience, results = training.plan.config.patience, training.state.results
    if not patience or not results or len(results) - best(results).epoch < patience:
        return False
    training.context.say(f"stopped early: no better epoch in the last {patience}")
    return True


def _validate(training: Training, epoch: int) -> Validation:
    plan = training.plan
    validator = Validator(
        training.model, plan.preparer, plan.inputs.valid, plan.valid_costs, training.memory.tokens, training.group
    )
    return validator.validate(epoch, plan.config.generate)


def _save_checkpoints(training: Training, result: Validation) -> None:
    """The last epoch into OUT/last; where it is the best so far, also into OUT, with its validation logits.

    What a checkpoint lacks is told at the first epoch.
    """
    plan = training.plan
    notes = save_checkpoint(plan.out / "last", training.model, plan, training.memory, result)
    for note in notes if result.epoch == 1 else []:
        training.context.say(note)
    if result is not best(training.state.results):
        return
    save_checkpoint(plan.out, training.model, plan, training.memory, result)
    indices = np.arange(len(plan.inputs.valid))
    adapter = HeldOutRows(plan.out.name, adapter_fingerprint(plan.out), indices, result.scores)
    settings = read_checkpoint(str(plan.out)).manifest.settings.to_json()
    write_scores(plan.out / FOLDER, plan.inputs.valid, [adapter], settings)
    write_text(plan.out / "train.toml", plan.config.to_toml())


def _report_epoch(training: Training, result: Validation) -> None:
    is_best = result is best(training.state.results)
    generate, temperature = training.plan.config.generate, result.calibration.temperature
    training.log.write(
        training.state.step,
        epoch=result.epoch,
        valid_loss=result.loss,
        valid_accuracy=result.accuracy,
        valid_nll=result.nll,
        valid_nll_calibrated=result.calibrated_nll,
        temperature=temperature,
        best=is_best,
        **({"valid_accuracy_generated": result.generated} if generate else {}),
    )
    generated = f", {result.generated:.3f} by generating" if generate else ""
    training.context.say(
        f"epoch {result.epoch}: validation loss {result.loss:.3f}, accuracy {result.accuracy:.3f}{generated}, "
        f"NLL {result.nll:.3f}, {result.calibrated_nll:.3f} after T = {temperature:.2f}"
        f"{' (best so far, kept)' if is_best else ''}"
    )
