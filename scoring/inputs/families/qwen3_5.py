"""Qwen3.5, dense and as a mixture of experts: of four layers three have linear attention, and one attends."""

from dataclasses import replace

from scoring.inputs.families.qwen3_vl import QWEN3_VL

QWEN3_5 = replace(
    QWEN3_VL,
    name="Qwen3.5",
    model_types=("qwen3_5", "qwen3_5_moe"),
    mixtures=("qwen3_5_moe",),
    unread=("mtp.",),
    kept_whole=(".in_proj_a", ".in_proj_b", ".shared_expert_gate"),
)
