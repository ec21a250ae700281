"""The checkpoint of an epoch: an adapter as PEFT writes it, the manifest, and the calibration."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal, cast

import scoring
from scoring.checkpoints.adapter import adapter_fingerprint
from scoring.checkpoints.checkpoint import CALIBRATION, MANIFEST, Manifest, base_name
from scoring.checkpoints.decision_files import write_decision_files
from scoring.checkpoints.member_calibration import calibration_fingerprint
from scoring.checkpoints.weights import BaseWeights, base_fingerprint, nf4_codes, stored_bits
from scoring.engine.stand_in import put_back, unwrap
from scoring.files.writing import write_json
from scoring.scores.exposure import write_rows
from train.lora import save_lora
from train.model import LearningModel, Memory
from train.plan import TrainingPlan
from train.validation import Validation

# What the functions that give these as `str` say they give.
Stored = Literal["nf4", "fp4", ""]
Quantization = Literal["nf4", "fp4", "none"]


def save_checkpoint(
    folder: Path, model: LearningModel, plan: TrainingPlan, memory: Memory, result: Validation
) -> list[str]:
    """Write a PEFT folder with its manifest and the calibration that was fitted on the validation rows.

    Returns notes for the user, the same at each epoch.
    """
    base, revision = base_name(plan.inputs.base, folder), ""
    if not Path(plan.inputs.base).is_dir():  # only a hub id has a revision; a folder's name may hold an @
        base, _, revision = base.partition("@")
    manifest = replace(_manifest(plan, model, memory, result), base=base, revision=revision or None)
    layers = unwrap(model.network)
    try:
        save_lora(model.peft, folder, base)
    finally:
        put_back(layers)
    write_rows(folder, plan.rows.train_digests, plan.rows.valid_digests)
    write_json(folder / MANIFEST, asdict(manifest))
    calibration = replace(
        result.calibration,
        selected=len(plan.rows.valid) if plan.config.epochs > 1 else 0,
        fingerprint=calibration_fingerprint(manifest, adapter_fingerprint(folder)),
    )
    write_json(folder / CALIBRATION, calibration.to_json())
    return write_decision_files(folder, plan.preparer.chat, plan.preparer.template, calibration)


def _manifest(plan: TrainingPlan, model: LearningModel, memory: Memory, result: Validation) -> Manifest:
    """All but the base's name and revision."""
    policy, loaded = plan.preparer.policy, model.model
    return Manifest(
        base_fingerprint=base_fingerprint(plan.base_folder),
        base_stored=cast(Stored, stored_bits(plan.base_folder)),
        base_codes=nf4_codes(BaseWeights.of(plan.base_folder)),
        template=plan.preparer.template.to_json(),
        letters=plan.letters,
        pixels={"min_pixels": policy.min_pixels, "max_pixels": policy.max_pixels} if policy.budget else {},
        quantization=cast(Quantization, loaded.quantization),
        dtype=str(loaded.dtype).removeprefix("torch."),
        data=plan.inputs.data | plan.rows.to_json(),
        training=asdict(plan.config) | {"memory": memory.mode, "batch_tokens": memory.tokens},
        versions=scoring.versions(),
        metrics={
            "epoch": result.epoch,
            "loss": result.loss,
            "accuracy": result.accuracy,
            "nll": result.nll,
            "nll_calibrated": result.calibrated_nll,
            "temperature": result.calibration.temperature,
        },
    )
