"""The identity of a training: its choices, base, prompt, pixel budget and rows. Equal identities, equal adapters."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scoring.checkpoints.weights import base_fingerprint
from scoring.inputs.digests import question_digests
from scoring.inputs.prompt import PromptTemplate
from scoring.inputs.questions import Question
from train.config import TrainConfig
from train.folder import CHANGEABLE, ROW_KEYS
from train.split import picture_groups


def rows_digest(rows: Sequence[Question], digests: Sequence[str]) -> str:
    """16 hexadecimal digits of what a training sees of its rows, in their order.

    digests: (N,) of `scoring.inputs.digests.question_digests`, so that the pictures count by content.
    """
    contents = [(row.id, digest, row.options, row.answer, row.task_hint) for row, digest in zip(rows, digests)]
    return hashlib.sha256(repr(contents).encode()).hexdigest()[:16]


class TrainingRows:
    """The rows of a training, and the digests by which they are recognised. Pictures count by content."""

    def __init__(self, train: list[Question], valid: list[Question]):
        self.train, self.valid = train, valid
        self.train_digests, self.valid_digests = question_digests(train), question_digests(valid)

    def to_json(self) -> dict[str, Any]:
        """For the manifest: counts, and digests of all rows."""
        return {
            "train_rows": len(self.train),
            "valid_rows": len(self.valid),
            "valid_pictures": len(set(picture_groups(self.valid))),
            "train_digest": rows_digest(self.train, self.train_digests),
            "valid_digest": rows_digest(self.valid, self.valid_digests),
        }


def identity_of(
    config: TrainConfig, base: Path, template: PromptTemplate, pixels: int | None, rows: TrainingRows
) -> dict[str, Any]:
    """name -> value of all that the adapter depends on besides the machine, as JSON reads it back."""
    record = rows.to_json()
    identifying = (record[name] for name in ("train_rows", "valid_rows", "train_digest", "valid_digest"))
    values = {name: value for name, value in asdict(config).items() if name not in CHANGEABLE} | {
        "base": base_fingerprint(base),
        "template": template.fingerprint,
        "pixels": pixels,
        **dict(zip(ROW_KEYS, identifying)),
    }
    identity: dict[str, Any] = json.loads(json.dumps(values))
    return identity
