"""Tiny bases of random weights, one for each family, with the demo's tokenizer: made in seconds."""

import json
import shutil
from pathlib import Path
from typing import Any

from PIL import Image

CLIP = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 4096,
    "max_position_embeddings": 2048,
    "bos_token_id": None,
    "eos_token_id": 4090,
}
MROPE = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 3, 3]}  # halves of heads of 16
TOWER = {"depth": 3, "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2}
# Of Qwen2-VL's and Qwen2.5-VL's hub repositories.
QWEN2_TEMPLATE = (
    "{% set image_count = namespace(value=0) %}{% set video_count = namespace(value=0) %}"
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}"
    "{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}"
    "{% set image_count.value = image_count.value + 1 %}"
    "{% if add_vision_id %}Picture {{ image_count.value }}: {% endif %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' or 'video' in content %}"
    "{% set video_count.value = video_count.value + 1 %}"
    "{% if add_vision_id %}Video {{ video_count.value }}: {% endif %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# As the text of GLM-4.1V's: a system turn must be a string; turns have no end.
GLM_TEMPLATE = (
    "[gMASK]<sop>\n{%- for message in messages %}<|{{ message.role }}|>\n"
    "{% if message.content is string or message.role == 'system' %}{{ message.content }}{% else %}"
    "{% for item in message.content %}{% if item.type == 'text' %}{{ item.text }}"
    "{% else %}<|begin_of_image|><|image|><|end_of_image|>{% endif %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
# As that of InternVL3's repositories that end in -hf: the processor puts <img> and </img> around the picture.
INTERNVL_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'}}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for content in message['content'] %}{% if content['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}"
    "{% elif content['type'] == 'video' %}{{ '<video>\n' }}"
    "{% elif content['type'] == 'text' %}{{ content['text'] }}{% endif %}{% endfor %}{% endif %}{{'<|im_end|>\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{'<|im_start|>assistant\n' }}{% endif %}"
)
# Control tokens that take the place of the demo's, or follow them.
GLM_TOKENS = {
    "<|im_start|>": "<|user|>",
    "<|im_end|>": "<|assistant|>",
    "<|vision_start|>": "<|begin_of_image|>",
    "<|vision_end|>": "<|end_of_image|>",
    "<|image_pad|>": "<|image|>",
    "<|video_pad|>": "<|video|>",
    "<|vision_pad|>": "[gMASK]",
    "": ("<sop>", "<|system|>"),
}
INTERNVL_TOKENS = {
    "<|vision_start|>": "<img>",
    "<|vision_end|>": "</img>",
    "<|image_pad|>": "<IMG_CONTEXT>",
    "<|video_pad|>": "<video>",
    "": (),
}
GLM = {
    "text_config": TEXT
    | {
        "model_type": "glm4v_text",
        "vocab_size": 4112,
        "rope_parameters": MROPE | {"partial_rotary_factor": 0.5, "mrope_section": [1, 1, 2]},
    },
    "vision_config": TOWER
    | {
        "model_type": "glm4v_vision",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 2,
        "out_hidden_size": 64,
        "image_size": 112,
    },
}
# For each model type its configuration, and the settings of its pictures; None: the demo's.
CONFIGS: dict[str, dict[str, Any] | None] = {
    "qwen3_vl": None,
    "qwen2_5_vl": {
        "text_config": TEXT | {"rope_parameters": MROPE},
        "vision_config": TOWER
        | {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "out_hidden_size": 64,
            "window_size": 56,
            "fullatt_block_indexes": [1],
        },
    },
    "qwen2_vl": {
        "text_config": TEXT | {"rope_parameters": MROPE},
        "vision_config": TOWER | {"embed_dim": 32, "num_heads": 2, "mlp_ratio": 2, "hidden_size": 64},
    },
    "glm4v": GLM,
    "glm46v": GLM,
    "internvl": {
        "text_config": TEXT
        | {"model_type": "qwen2", "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}},
        "vision_config": {
            "model_type": "internvl_vision",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "attention_bias": True,
            "image_size": [56, 56],
            "patch_size": [14, 14],
        },
        "downsample_ratio": 0.5,
    },
}
TEMPLATES = (
    dict.fromkeys(CONFIGS, QWEN2_TEMPLATE)
    | dict.fromkeys(("glm4v", "glm46v"), GLM_TEMPLATE)
    | {"internvl": INTERNVL_TEMPLATE}
)
TOKENS = {"glm4v": GLM_TOKENS, "glm46v": GLM_TOKENS, "internvl": INTERNVL_TOKENS}
# The library's processor of pictures, and how often its limits count a pixel.
PROCESSORS = dict.fromkeys(CONFIGS, ("Qwen2VLImageProcessorPil", 1)) | {
    "glm4v": ("Glm4vImageProcessorPil", 2),
    "glm46v": ("Glm46VImageProcessorPil", 2),
    "internvl": ("GotOcr2ImageProcessorPil", 1),
}
PICTURES = {"min_pixels": 3136, "max_pixels": 12_845_056, "patch_size": 14, "merge_size": 2, "temporal_patch_size": 2}
TILE = 56  # pixels on a side, of families that cut pictures into tiles
TILES = {"size": {"height": TILE, "width": TILE}, "min_patches": 1, "max_patches": 12, "crop_to_patches": False}


def library_patches(model_type: str, folder: Path, picture: Image.Image, pixels: int) -> tuple[tuple[int, ...], Any]:
    """The grid and the patches that the library's processor makes of a picture within a budget."""
    import transformers

    name, factor = PROCESSORS[model_type]
    processor = getattr(transformers, name).from_pretrained(folder)
    if model_type == "internvl":
        tiles = {"crop_to_patches": True, "max_patches": pixels // TILE**2}
        cut = processor(images=[picture], return_tensors="np", **tiles)
        return (int(cut["num_patches"][0]), TILE // 14, TILE // 14), cut["pixel_values"]
    size = {"shortest_edge": factor * pixels, "longest_edge": factor * pixels}
    cut = processor(images=[picture], size=size, return_tensors="np")
    return tuple(cut["image_grid_thw"][0]), cut["pixel_values"]


def tiny_base(
    model_type: str, demo_base: Path, folder: Path, tied: bool = False, text: dict[str, Any] | None = None
) -> Path:
    """A base in float32 of a known model type in a new folder, as the library saves it.

    text: changes to the language model's part of the configuration.
    """
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "preprocessor_config.json"):
        shutil.copy(demo_base / name, folder)
    config, tokens = CONFIGS[model_type], json.loads((demo_base / "config.json").read_text())
    if config is None:
        config = tokens
    else:
        (folder / "chat_template.jinja").write_text(TEMPLATES[model_type])
        rename_control_tokens(folder, TOKENS.get(model_type, {}))
        (folder / "preprocessor_config.json").write_text(
            json.dumps((TILES if model_type == "internvl" else PICTURES) | CLIP)
        )
        config = config | {name: value for name, value in tokens.items() if name.endswith("_token_id")}
    config = config | {"model_type": model_type, "tie_word_embeddings": tied}
    config["text_config"] = config["text_config"] | {"tie_word_embeddings": tied} | (text or {})
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    network = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.15) if weight.ndim > 1 else weight.data.add_(0.1 * torch.randn_like(weight))
    network.save_pretrained(folder)
    return folder


def rename_control_tokens(folder: Path, tokens: dict[str, Any]) -> None:
    """In the tokenizer's files. tokens: new names by the demo's; those under "" are new ones."""
    if not tokens:
        return
    description = json.loads((folder / "tokenizer.json").read_text())
    added = description["added_tokens"]
    for token in added:
        token["content"] = tokens.get(token["content"], token["content"])
    following = max(token["id"] for token in added) + 1
    added += [added[-1] | {"content": name, "id": following + number} for number, name in enumerate(tokens[""])]
    (folder / "tokenizer.json").write_text(json.dumps(description))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": settings["tokenizer_class"]}))
