"""Qwen3-VL, dense and as a mixture of experts."""

from scoring.inputs.families.family import Family

QWEN3_VL = Family(
    name="Qwen3-VL",
    model_types=("qwen3_vl", "qwen3_vl_moe"),
    mixtures=("qwen3_vl_moe",),
    image_token="<|image_pad|>",
    end_of_turn="<|im_end|>",
    picture_settings={"patch_size": 16, "image_mean": [0.5] * 3, "image_std": [0.5] * 3},
)
