"""What a training leaves of an epoch: an adapter as PEFT writes it, our manifest, and the temperature."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import scoring
from scoring.engine.adapter import adapter_fingerprint
from scoring.engine.checkpoint import CALIBRATION, MANIFEST, Manifest, base_name
from scoring.engine.packed import put_back, unwrap
from scoring.engine.plan import calibration_fingerprint
from scoring.engine.weights import BaseWeights, base_fingerprint, nf4_codes, stored_bits
from scoring.results.exposure import write_rows
from scoring.results.files import write_json
from train.lora import save_lora
from train.split import picture_groups
from train.validation import Validation

if TYPE_CHECKING:
    from train.loop import Trainer


def save_checkpoint(trainer: "Trainer", folder: Path, result: Validation) -> None:
    """A PEFT folder with its manifest and the temperature that was fitted on the validation rows."""
    base, revision = base_name(trainer.base, folder), ""
    if not Path(trainer.base).is_dir():  # only a hub id has a revision; a folder's name may hold an @
        base, _, revision = base.partition("@")
    taken = unwrap(trainer.model.model.network)
    try:
        save_lora(trainer.model.peft, folder, base)
    finally:
        put_back(taken)
    write_rows(folder, trainer.train_digests, trainer.valid_digests)
    manifest = _manifest(trainer, base, revision, result)
    write_json(folder / MANIFEST, asdict(manifest))
    result.calibration.selected = len(trainer.valid) if trainer.config.epochs > 1 else 0
    result.calibration.fingerprint = calibration_fingerprint(manifest, adapter_fingerprint(folder))
    write_json(folder / CALIBRATION, result.calibration.to_json())


def _rows_of(trainer: "Trainer") -> dict:
    """What the manifest records of the rows."""
    train_digest, valid_digest = trainer.rows_digests
    return {
        "train_rows": len(trainer.train),
        "valid_rows": len(trainer.valid),
        "valid_pictures": len(set(picture_groups(trainer.valid))),
        "train_digest": train_digest,
        "valid_digest": valid_digest,
    }


def _manifest(trainer: "Trainer", base: str, revision: str, result: Validation) -> Manifest:
    policy, model = trainer.prepare.policy, trainer.model.model
    return Manifest(
        base=base,
        revision=revision or None,
        base_fingerprint=base_fingerprint(trainer.folder),
        base_stored=stored_bits(trainer.folder),
        base_codes=nf4_codes(BaseWeights.of(trainer.folder)),
        template=asdict(trainer.prepare.template),
        letters=trainer.letters,
        pixels={"min_pixels": policy.min_pixels, "max_pixels": policy.max_pixels},
        quantization=model.quantization,
        dtype=str(model.dtype).removeprefix("torch."),
        data=trainer.data | _rows_of(trainer),
        training=asdict(trainer.config) | {"memory": trainer.memory.mode, "batch_tokens": trainer.memory.tokens},
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
