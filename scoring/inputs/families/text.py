"""Language models that see no pictures: Qwen3, dense and as a mixture of experts, Qwen2.5 and Llama 3."""

from dataclasses import replace

from scoring.inputs.families.family import Family

QWEN3 = Family(
    name="Qwen3",
    model_types=("qwen3", "qwen3_moe"),
    mixtures=("qwen3_moe",),
    image_token="",
    end_of_turn="<|im_end|>",
    auto_model="AutoModelForCausalLM",
    language="model.",
    vision="",
    not_linear=("embed_tokens",),
)
QWEN2 = replace(QWEN3, name="Qwen2.5", model_types=("qwen2",), mixtures=())
LLAMA = replace(QWEN2, name="Llama 3", model_types=("llama",), end_of_turn="<|eot_id|>")
