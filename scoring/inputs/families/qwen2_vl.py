"""Qwen2-VL and Qwen2.5-VL. Their files name modules as before transformers 4.52: `model.layers…` and `visual…`."""

from dataclasses import replace

from scoring.inputs.families.family import Family
from scoring.inputs.pixels import CLIP_COLOURS

QWEN2_5_VL = Family(
    name="Qwen2.5-VL",
    model_types=("qwen2_5_vl",),
    image_token="<|image_pad|>",
    end_of_turn="<|im_end|>",
    picture_settings={"patch_size": 14, **CLIP_COLOURS},
    renamed=(
        (r"^visual\.", "model.visual."),
        (r"^model\.(?!language_model\.|visual\.)", "model.language_model."),
    ),
)
QWEN2_VL = replace(QWEN2_5_VL, name="Qwen2-VL", model_types=("qwen2_vl",))
