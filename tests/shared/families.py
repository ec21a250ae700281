"""Tiny bases of random weights, one for each family, with the demo's tokenizer: made in seconds."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
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
# What Qwen3.5's writes of a system turn and a user's: texts are trimmed, and thinking is left empty where it is off.
QWEN3_5_TEMPLATE = (
    "{%- macro written(content) %}{% if content is string %}{{ content }}{% else %}{% for item in content %}"
    "{{ '<|vision_start|><|image_pad|><|vision_end|>' if item.type == 'image' else item.text }}"
    "{% endfor %}{% endif %}{% endmacro %}{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\n' + written(message.content)|trim + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}"
    "{% else %}{{ '<think>\n' }}{% endif %}{% endif %}"
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
# That of LLaVA-OneVision's repositories: pictures come before all texts.
LLAVA_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + ' '}}"
    "{# Render all images first #}{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>' }}{% endfor %}{# Render all video then #}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'video') %}{{ '<video>' }}{% endfor %}"
    "{# Render all text next #}{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ '\n' + content['text'] }}"
    "{% endfor %}{% else %}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ '\n' + content['text'] }}{% endgeneration %}{% endfor %}{% endif %}{{'<|im_end|>'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
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
LLAVA_TOKENS = {"<|image_pad|>": "<image>", "<|video_pad|>": "<video>", "": ()}
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
# As those of the hub repositories of Qwen3, Qwen2.5 and Llama 3, without what they write of tools and past answers.
QWEN3_TEMPLATE = (
    "{%- if messages[0].role == 'system' %}{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}"
    "{%- endif %}{%- for message in messages %}"
    "{%- if message.content is string %}{%- set content = message.content %}{%- else %}{%- set content = '' %}"
    "{%- endif %}{%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}"
    "{{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}"
    "{%- endif %}{%- endif %}"
)
QWEN2_5_TEMPLATE = (
    "{%- if messages[0]['role'] == 'system' %}"
    "{{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}{%- else %}"
    "{{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}"
    "{%- endif %}{%- for message in messages %}"
    "{%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
LLAMA_TEMPLATE = (
    "{{- bos_token }}{%- if not date_string is defined %}{%- if strftime_now is defined %}"
    "{%- set date_string = strftime_now('%d %b %Y') %}{%- else %}{%- set date_string = '26 Jul 2024' %}{%- endif %}"
    "{%- endif %}{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content']|trim %}"
    "{%- set messages = messages[1:] %}{%- else %}{%- set system_message = '' %}{%- endif %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' }}{{- 'Today Date: ' + date_string + '\\n\\n' }}"
    "{{- system_message }}{{- '<|eot_id|>' }}{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}"
    "{{- message['content'] | trim + '<|eot_id|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)
TILE = 56  # pixels on a side, of families that cut pictures into tiles
PINPOINTS = [[TILE * rows, TILE * columns] for rows in range(1, 5) for columns in range(1, 5)]
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
    "qwen3_5": {
        "text_config": TEXT
        | {
            "num_hidden_layers": 4,
            "layer_types": ["linear_attention", "full_attention"] * 2,
            "head_dim": 32,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 24,
            "rope_parameters": MROPE
            | {"mrope_section": [3, 3, 2], "mrope_interleaved": True, "partial_rotary_factor": 0.5},
        },
        "vision_config": TOWER
        | {
            "patch_size": 16,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "out_hidden_size": 64,
            "num_position_embeddings": 144,
        },
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
    "llava_onevision": {
        "text_config": TEXT | {"model_type": "qwen2"},
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "image_size": 56,
            "patch_size": 11,  # five to a side, and a pixel over
            "vision_use_head": False,
        },
        "image_grid_pinpoints": PINPOINTS,
        "vision_aspect_ratio": "anyres_max_2",
    },
    "qwen3": TEXT | {"head_dim": 16},
    "qwen2": TEXT,
    "llama": TEXT,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
MIXTURES: dict[str, dict[str, Any]] = {
    "qwen3_5_moe": CONFIGS["qwen3_5"]
    | {"text_config": CONFIGS["qwen3_5"]["text_config"] | EXPERTS | {"shared_expert_intermediate_size": 32}},
    "qwen3_moe": TEXT | {"head_dim": 16, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 48},
}
TEMPLATES = (
    dict.fromkeys(CONFIGS, QWEN2_TEMPLATE)
    | dict.fromkeys(("glm4v", "glm46v"), GLM_TEMPLATE)
    | dict.fromkeys(("qwen3_5", "qwen3_5_moe"), QWEN3_5_TEMPLATE)
    | {"internvl": INTERNVL_TEMPLATE, "llava_onevision": LLAVA_TEMPLATE}
)
TOKENS = {
    "glm4v": GLM_TOKENS,
    "glm46v": GLM_TOKENS,
    "internvl": INTERNVL_TOKENS,
    "llava_onevision": LLAVA_TOKENS,
}
# The library's processor of pictures, and how often its limits count a pixel.
PROCESSORS = dict.fromkeys(CONFIGS, ("Qwen2VLImageProcessorPil", 1)) | {
    "glm4v": ("Glm4vImageProcessorPil", 2),
    "glm46v": ("Glm46VImageProcessorPil", 2),
    "internvl": ("GotOcr2ImageProcessorPil", 1),
    "llava_onevision": ("LlavaOnevisionImageProcessorPil", 1),
}
# Of text models the chat template, and which of the demo's control tokens are named otherwise: those of pictures are.
PLAIN_TOKENS = {"<|image_pad|>": "<|fim_pad|>", "<|vision_start|>": "<|object_ref_start|>"}
THINKING = {"<|vision_pad|>": "<think>", "<|video_pad|>": "</think>"}
LLAMA_TOKENS = {
    "<|image_pad|>": "<|python_tag|>",
    "<|vision_start|>": "<|begin_of_text|>",
    "<|vision_end|>": "<|end_header_id|>",
    "<|im_start|>": "<|start_header_id|>",
    "<|im_end|>": "<|eot_id|>",
}
TEXT_MODELS: dict[str, tuple[str, dict[str, str]]] = {
    "qwen3": (QWEN3_TEMPLATE, PLAIN_TOKENS | THINKING),
    "qwen3_moe": (QWEN3_TEMPLATE, PLAIN_TOKENS | THINKING),
    "qwen2": (QWEN2_5_TEMPLATE, PLAIN_TOKENS),
    "llama": (LLAMA_TEMPLATE, LLAMA_TOKENS),
}
SEEING = [model_type for model_type in CONFIGS if model_type not in TEXT_MODELS]  # families that see pictures
PICTURES = {"min_pixels": 3136, "max_pixels": 12_845_056, "patch_size": 14, "merge_size": 2, "temporal_patch_size": 2}
TILES = {
    "internvl": {
        "size": {"height": TILE, "width": TILE},
        "min_patches": 1,
        "max_patches": 12,
        "crop_to_patches": False,
    },
    "llava_onevision": {"size": {"height": TILE, "width": TILE}, "image_grid_pinpoints": PINPOINTS},
}


def library_patches(model_type: str, folder: Path, picture: Image.Image, pixels: int) -> tuple[tuple[int, ...], Any]:
    """The grid and the patches that the library's processor makes of a picture within a budget."""
    import transformers

    name, factor = PROCESSORS[model_type]
    processor = getattr(transformers, name).from_pretrained(folder)
    if model_type == "internvl":
        tiles = {"crop_to_patches": True, "max_patches": pixels // TILE**2}
        cut = processor(images=[picture], return_tensors="np", **tiles)
        return (int(cut["num_patches"][0]), TILE // 14, TILE // 14), cut["pixel_values"]
    if model_type == "llava_onevision":
        within = pinpoints_within(pixels)
        cut = processor(images=[picture], return_tensors="np", image_grid_pinpoints=within)
        return (max(map(math.prod, within)) // TILE**2, *map(int, cut["image_sizes"][0])), cut["pixel_values"][0]
    size = {"shortest_edge": factor * pixels, "longest_edge": factor * pixels}
    cut = processor(images=[picture], size=size, return_tensors="np")
    return tuple(cut["image_grid_thw"][0]), cut["pixel_values"]


def pinpoints_within(pixels: int) -> list[list[int]]:
    """Those of `PINPOINTS` that have no more pixels."""
    return [[height, width] for height, width in PINPOINTS if height * width <= pixels]


def system_turn(model_type: str, text: str) -> dict[str, Any]:
    """As its chat template takes it: in most families a string."""
    content: Any = [{"type": "text", "text": text}] if model_type == "llava_onevision" else text
    return {"role": "system", "content": content}


def library_tokens(model_type: str, grid: tuple[int, ...], alone: bool) -> int:
    """How many tokens the processor of the library gives a picture of that grid. alone: of a question with one."""
    if model_type != "llava_onevision":
        return math.prod(grid) // 4
    from transformers import LlavaOnevisionImageProcessorPil, LlavaOnevisionProcessor

    tiles, height, width = grid
    processor = LlavaOnevisionProcessor.__new__(LlavaOnevisionProcessor)  # its tokenizer and videos are not needed
    vars(processor).update(
        image_token="<image>",
        num_image_tokens=25,
        vision_aspect_ratio="anyres_max_2",
        vision_feature_select_strategy="full",
    )
    processor.image_processor = LlavaOnevisionImageProcessorPil(image_grid_pinpoints=pinpoints_within(tiles * TILE**2))
    inputs = {"batch_num_images": [1 if alone else 2], "image_sizes": [[height, width]]}
    text = processor.replace_image_token(inputs | {"pixel_values": [np.empty((1, 3, TILE, TILE))]}, 0)
    return text.count("<image>")


def tiny_base(
    model_type: str, demo_base: Path, folder: Path, tied: bool = False, text: dict[str, Any] | None = None
) -> Path:
    """A base in float32 of a known model type in a new folder, as the library saves it.

    text: changes to the language model's part of the configuration.
    """
    from transformers import AutoModelForImageTextToText

    if model_type in TEXT_MODELS:
        return _tiny_text_base(model_type, demo_base, folder, tied)
    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "preprocessor_config.json"):
        shutil.copy(demo_base / name, folder)
    config, tokens = (CONFIGS | MIXTURES)[model_type], json.loads((demo_base / "config.json").read_text())
    if config is None:
        config = tokens
    else:
        (folder / "chat_template.jinja").write_text(TEMPLATES[model_type])
        rename_control_tokens(folder, TOKENS.get(model_type, {}))
        if not model_type.startswith("qwen3"):  # which have the demo's
            pictures = TILES.get(model_type, PICTURES)
            (folder / "preprocessor_config.json").write_text(json.dumps(pictures | CLIP))
        config = config | {name: value for name, value in tokens.items() if name.endswith("_token_id")}
    config = config | {"model_type": model_type, "tie_word_embeddings": tied}
    config["text_config"] = config["text_config"] | {"tie_word_embeddings": tied} | (text or {})
    _write_network(folder, config, AutoModelForImageTextToText)
    return folder


def _tiny_text_base(model_type: str, demo_base: Path, folder: Path, tied: bool) -> Path:
    """One that sees no pictures: with the tokens and the template of its family, and no settings of pictures."""
    from transformers import AutoModelForCausalLM

    folder.mkdir(parents=True)
    template, renamed = TEXT_MODELS[model_type]
    (folder / "chat_template.jinja").write_text(template)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(demo_base / name, folder)
    rename_control_tokens(folder, renamed)
    if model_type == "llama":
        settings = json.loads((folder / "tokenizer_config.json").read_text()) | {"bos_token": "<|begin_of_text|>"}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    config = (CONFIGS | MIXTURES)[model_type] or {}
    _write_network(folder, config | {"model_type": model_type, "tie_word_embeddings": tied}, AutoModelForCausalLM)
    return folder


def _write_network(folder: Path, config: dict[str, Any], auto_model: Any) -> None:
    """A network of random weights with its configuration. auto_model: the class of transformers that makes it."""
    import torch
    from transformers import AutoConfig

    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    network = auto_model.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
    for name, weight in network.named_parameters():
        if name.endswith("A_log"):  # a state that is remembered over a whole prompt
            weight.data.uniform_(-6, 0)
            continue
        torch.nn.init.normal_(weight, std=0.15) if weight.ndim > 1 else weight.data.add_(0.1 * torch.randn_like(weight))
    network.save_pretrained(folder)


def rename_control_tokens(folder: Path, tokens: dict[str, Any]) -> None:
    """In the tokenizer's files. tokens: new names by the demo's; those under "" are new ones."""
    if not tokens:
        return
    description = json.loads((folder / "tokenizer.json").read_text())
    added = description["added_tokens"]
    for token in added:
        token["content"] = tokens.get(token["content"], token["content"])
    following = max(token["id"] for token in added) + 1
    added += [added[-1] | {"content": name, "id": following + number} for number, name in enumerate(tokens.get("", ()))]
    (folder / "tokenizer.json").write_text(json.dumps(description))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": settings["tokenizer_class"]}))
