"""What identifies a training: its choices, base, prompt, pixel budget and rows. Equal ones give the same adapter."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from scoring.engine.weights import base_fingerprint
from scoring.inputs.prompt import PromptTemplate
from scoring.inputs.questions import Question
from train.config import TrainConfig
from train.folder import FREE, ROW_KEYS


def rows_digest(rows: Sequence[Question], digests: Sequence[str]) -> str:
    """16 hexadecimal digits of what a training sees of its rows, in their order.

    digests: (N,) of `scoring.inputs.digests.question_digests`, so that the pictures count by content.
    """
    seen = [(row.id, digest, row.options, row.answer, row.task_hint) for row, digest in zip(rows, digests)]
    return hashlib.sha256(repr(seen).encode()).hexdigest()[:16]


def identity_of(
    config: TrainConfig, base: Path, template: PromptTemplate, pixels: int, counts: tuple[int, int], rows: Sequence[str]
) -> dict:
    """name -> value, as JSON gives it back. counts, rows: number and `rows_digest` of training and validation rows."""
    values = {name: value for name, value in asdict(config).items() if name not in FREE} | {
        "base": base_fingerprint(base),
        "template": template.fingerprint,
        "pixels": pixels,
        **dict(zip(ROW_KEYS, (*counts, *rows))),
    }
    return json.loads(json.dumps(values))
