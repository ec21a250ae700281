"""What a training leaves of an epoch: an adapter as PEFT writes it, our manifest, and the temperature."""

from dataclasses import asdict, dataclass
from pathlib import Path

import scoring
from scoring.checkpoints.adapter import adapter_fingerprint
from scoring.checkpoints.checkpoint import CALIBRATION, MANIFEST, Manifest, base_name
from scoring.checkpoints.member_calibration import calibration_fingerprint
from scoring.checkpoints.weights import BaseWeights, base_fingerprint, nf4_codes, stored_bits
from scoring.engine.packed import put_back, unwrap
from scoring.files.writing import write_json
from scoring.inputs.prepare import Preparer
from scoring.scores.exposure import write_rows
from train.config import TrainConfig
from train.identity import TrainingRows
from train.lora import save_lora
from train.model import LearningModel, Memory
from train.validation import Validation


@dataclass(frozen=True)
class Provenance:
    """What a checkpoint was made of, for its manifest. base: as it was named; folder: where it lies."""

    base: str
    folder: Path
    preparer: Preparer
    letters: str
    rows: TrainingRows
    config: TrainConfig
    memory: Memory
    data: dict


def save_checkpoint(folder: Path, model: LearningModel, provenance: Provenance, result: Validation) -> None:
    """A PEFT folder with its manifest and the temperature that was fitted on the validation rows."""
    base, revision = base_name(provenance.base, folder), ""
    if not Path(provenance.base).is_dir():  # only a hub id has a revision; a folder's name may hold an @
        base, _, revision = base.partition("@")
    taken = unwrap(model.model.network)
    try:
        save_lora(model.peft, folder, base)
    finally:
        put_back(taken)
    rows = provenance.rows
    write_rows(folder, rows.train_digests, rows.valid_digests)
    manifest = _manifest(provenance, model, base, revision, result)
    write_json(folder / MANIFEST, asdict(manifest))
    result.calibration.selected = len(rows.valid) if provenance.config.epochs > 1 else 0
    result.calibration.fingerprint = calibration_fingerprint(manifest, adapter_fingerprint(folder))
    write_json(folder / CALIBRATION, result.calibration.to_json())


def _manifest(made: Provenance, model: LearningModel, base: str, revision: str, result: Validation) -> Manifest:
    policy, loaded = made.preparer.policy, model.model
    return Manifest(
        base=base,
        revision=revision or None,
        base_fingerprint=base_fingerprint(made.folder),
        base_stored=stored_bits(made.folder),
        base_codes=nf4_codes(BaseWeights.of(made.folder)),
        template=asdict(made.preparer.template),
        letters=made.letters,
        pixels={"min_pixels": policy.min_pixels, "max_pixels": policy.max_pixels},
        quantization=loaded.quantization,
        dtype=str(loaded.dtype).removeprefix("torch."),
        data=made.data | made.rows.to_json(),
        training=asdict(made.config) | {"memory": made.memory.mode, "batch_tokens": made.memory.tokens},
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
