"""What a model gets is what its family's own processor gives it: ids to the last, pictures but for rounding."""

import json

import numpy as np
import pytest

from scoring.inputs.families.registry import policy_of
from scoring.inputs.prepare import Preparer
from scoring.inputs.prompt import PromptTemplate
from tests.shared.families import CONFIGS, SEEING, tiny_base
from tests.shared.golden import FILE, PIXELS, question, sample

GOLDEN = json.loads(FILE.read_text())
LEVEL = 1 / 255 / 0.25  # of a channel, over the smallest standard deviation of a family


@pytest.mark.parametrize("model_type", CONFIGS)
def test_prompts_and_pictures_are_those_of_the_familys_processor(base, tmp_path, model_type):
    """Pictures are resized by Pillow here, and by torchvision there: their levels differ by rounding."""
    folder, sees_pictures = tiny_base(model_type, base, tmp_path / "base"), model_type in SEEING
    policy = policy_of(folder, PIXELS if sees_pictures else None)
    sequence, patches = Preparer.of_base(folder, PromptTemplate(), policy)(question(sees_pictures))
    assert sequence.ids.tolist() == GOLDEN[model_type]["ids"]
    if sees_pictures:
        made, expected = sample(patches), GOLDEN[model_type]["patches"]
        assert made["shape"] == expected["shape"] and abs(made["mean"] - expected["mean"]) < 0.1 * LEVEL
        assert np.abs(np.subtract(made["values"], expected["values"])).max() < 2.1 * LEVEL
