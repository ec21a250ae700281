"""The real models whose shapes are timed with random weights: config.json and picture settings of their repositories.

GLM-4.1V, InternVL3 and Qwen3.5 stand here with Qwen3's tokenizer, under their own control tokens. GLM's own vocabulary
is a quarter of a percent smaller, Qwen3.5's larger by two thirds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
TOKEN_IDS = {
    "image_token_id": 151655,
    "video_token_id": 151656,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
}
TOWER = {"in_channels": 3, "initializer_range": 0.02, "spatial_merge_size": 2, "temporal_patch_size": 2}

QWEN2_5_7B = {  # the language model of two of them
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "dtype": "bfloat16",
    "eos_token_id": 151645,
    "hidden_act": "silu",
    "hidden_size": 3584,
    "initializer_range": 0.02,
    "intermediate_size": 18944,
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-06,
}


@dataclass(frozen=True)
class Shape:
    """config: of config.json. pictures: of preprocessor_config.json. tokens: names of control tokens by Qwen3-VL's.

    template: the chat template, where it is not Qwen3-VL's.
    """

    config: dict[str, Any]
    pictures: dict[str, Any]
    tokens: Mapping[str, str] = field(default_factory=dict)
    template: str = ""


QWEN3_VL_8B = Shape(
    {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        **TOKEN_IDS,
        "tie_word_embeddings": False,
        "text_config": {
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": 151643,
            "dtype": "bfloat16",
            "eos_token_id": 151645,
            "head_dim": 128,
            "hidden_act": "silu",
            "hidden_size": 4096,
            "initializer_range": 0.02,
            "intermediate_size": 12288,
            "max_position_embeddings": 262144,
            "model_type": "qwen3_vl_text",
            "num_attention_heads": 32,
            "num_hidden_layers": 36,
            "num_key_value_heads": 8,
            "rms_norm_eps": 1e-06,
            "rope_theta": 5000000,
            "use_cache": True,
            "vocab_size": 151936,
            "rope_scaling": {"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"},
        },
        "vision_config": TOWER
        | {
            "deepstack_visual_indexes": [8, 16, 24],
            "depth": 27,
            "hidden_act": "gelu_pytorch_tanh",
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "model_type": "qwen3_vl",
            "num_heads": 16,
            "num_position_embeddings": 2304,
            "out_hidden_size": 4096,
            "patch_size": 16,
        },
    },
    {
        "size": {"shortest_edge": 65536, "longest_edge": 16777216},
        "patch_size": 16,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    },
)
QWEN2_5_VL_7B = Shape(
    {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        **TOKEN_IDS,
        "tie_word_embeddings": False,
        "text_config": QWEN2_5_7B
        | {
            "max_position_embeddings": 128000,
            "model_type": "qwen2_5_vl_text",
            "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": [16, 24, 24]},
            "vocab_size": 152064,
        },
        "vision_config": TOWER
        | {
            "depth": 32,
            "fullatt_block_indexes": [7, 15, 23, 31],
            "hidden_act": "silu",
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "model_type": "qwen2_5_vl",
            "num_heads": 16,
            "out_hidden_size": 3584,
            "patch_size": 14,
            "window_size": 112,
        },
    },
    CLIP | {"min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2},
)
GLM_4_1V_9B = Shape(
    {
        "architectures": ["Glm4vForConditionalGeneration"],
        "model_type": "glm4v",
        **TOKEN_IDS,
        "tie_word_embeddings": False,
        "text_config": {
            "attention_dropout": 0.0,
            "dtype": "bfloat16",
            "eos_token_id": 151645,
            "hidden_act": "silu",
            "hidden_size": 4096,
            "initializer_range": 0.02,
            "intermediate_size": 13696,
            "max_position_embeddings": 65536,
            "model_type": "glm4v_text",
            "num_attention_heads": 32,
            "num_hidden_layers": 40,
            "num_key_value_heads": 2,
            "pad_token_id": 151643,
            "rms_norm_eps": 1e-05,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [8, 12, 12],
                "partial_rotary_factor": 0.5,
            },
            "vocab_size": 151936,
        },
        "vision_config": TOWER
        | {
            "attention_bias": False,
            "depth": 24,
            "hidden_act": "silu",
            "hidden_size": 1536,
            "image_size": 336,
            "intermediate_size": 13696,
            "model_type": "glm4v_vision",
            "num_heads": 12,
            "out_hidden_size": 4096,
            "patch_size": 14,
            "rms_norm_eps": 1e-05,
        },
    },
    CLIP
    | {
        "size": {"shortest_edge": 12544, "longest_edge": 9633792},
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
    },
    {
        "<|im_start|>": "<|user|>",
        "<|im_end|>": "<|assistant|>",
        "<|vision_start|>": "<|begin_of_image|>",
        "<|vision_end|>": "<|end_of_image|>",
        "<|image_pad|>": "<|image|>",
        "<|video_pad|>": "<|video|>",
    },
    "{%- for message in messages %}"
    "{% if message.role == 'system' %}{{ message.content }}\n{% elif message.content is string %}"
    "<|{{ message.role }}|>\n{{ message.content }}{% else %}<|{{ message.role }}|>\n"
    "{% for item in message.content %}{% if item.type == 'text' %}{{ item.text }}"
    "{% else %}<|begin_of_image|><|image|><|end_of_image|>{% endif %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
)
QWEN3_5_9B = Shape(
    {
        "architectures": ["Qwen3_5ForConditionalGeneration"],
        "model_type": "qwen3_5",
        **TOKEN_IDS,
        "tie_word_embeddings": False,
        "text_config": {
            "attention_bias": False,
            "attention_dropout": 0.0,
            "dtype": "bfloat16",
            "eos_token_id": 151645,
            "head_dim": 256,
            "hidden_act": "silu",
            "hidden_size": 4096,
            "initializer_range": 0.02,
            "intermediate_size": 12288,
            "layer_types": [*["linear_attention"] * 3, "full_attention"] * 8,
            "linear_conv_kernel_dim": 4,
            "linear_key_head_dim": 128,
            "linear_num_key_heads": 16,
            "linear_num_value_heads": 32,
            "linear_value_head_dim": 128,
            "max_position_embeddings": 262144,
            "model_type": "qwen3_5_text",
            "num_attention_heads": 16,
            "num_hidden_layers": 32,
            "num_key_value_heads": 4,
            "rms_norm_eps": 1e-06,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000000,
                "mrope_interleaved": True,
                "mrope_section": [11, 11, 10],
                "partial_rotary_factor": 0.25,
            },
            "vocab_size": 151936,
        },
        "vision_config": TOWER
        | {
            "depth": 27,
            "hidden_act": "gelu_pytorch_tanh",
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "model_type": "qwen3_5_vision",
            "num_heads": 16,
            "num_position_embeddings": 2304,
            "out_hidden_size": 4096,
            "patch_size": 16,
        },
    },
    QWEN3_VL_8B.pictures,
)
INTERNVL3_8B = Shape(
    {
        "architectures": ["InternVLForConditionalGeneration"],
        "model_type": "internvl",
        "downsample_ratio": 0.5,
        "image_seq_length": 256,
        "image_token_id": 151655,
        "tie_word_embeddings": False,
        "text_config": QWEN2_5_7B
        | {
            "max_position_embeddings": 32768,
            "model_type": "qwen2",
            "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1000000.0},
            "vocab_size": 151674,
        },
        "vision_config": {
            "attention_bias": True,
            "hidden_size": 1024,
            "image_size": [448, 448],
            "intermediate_size": 4096,
            "model_type": "internvl_vision",
            "num_attention_heads": 16,
            "num_hidden_layers": 24,
            "patch_size": [14, 14],
        },
    },
    {
        "size": {"height": 448, "width": 448},
        "crop_to_patches": False,
        "min_patches": 1,
        "max_patches": 12,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    },
    {"<|vision_start|>": "<img>", "<|vision_end|>": "</img>", "<|image_pad|>": "<IMG_CONTEXT>"},
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'}}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for item in message['content'] %}{% if item['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}"
    "{% elif item['type'] == 'text' %}{{ item['text'] }}{% endif %}{% endfor %}{% endif %}{{'<|im_end|>\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{'<|im_start|>assistant\n' }}{% endif %}",
)
SHAPES = {
    "8b": QWEN3_VL_8B,
    "qwen2.5-vl-7b": QWEN2_5_VL_7B,
    "glm-4.1v-9b": GLM_4_1V_9B,
    "internvl3-8b": INTERNVL3_8B,
    "qwen3.5-9b": QWEN3_5_9B,
}
