"""Qwen3.5: of four layers three have linear attention, whose state the nodes of the tree hand on, and one attends."""

import torch
import torch.nn.functional as F
from transformers.models.qwen3_5.modeling_qwen3_5 import (
    apply_rotary_pos_emb,
    causal_conv1d_fn,
    torch_chunk_gated_delta_rule,
)

from scoring.engine.families.qwen3_vl import Qwen3VLParts
from scoring.engine.nodes import chunk_of
from scoring.engine.recurrent import NodeBatch, RecurrentLayer
from scoring.engine.stand_in import Replacement


class GatedDeltaNet(RecurrentLayer):
    """Stands for the library's: its projections, its convolution, the gated delta rule by its function, its norm.

    Yang et al., Gated Delta Networks, 2024: a state S (keys' size, values' size) for each head decays by exp(g), then
    learns the value v of key k at the rate beta: S = exp(g) S, S = S + beta k (v - Sᵀ k)ᵀ; the query q reads Sᵀ q.
    """

    def branch(self, hidden: torch.Tensor, nodes: NodeBatch) -> torch.Tensor:
        layer = self.inner
        mixed, z, a, b = (
            projection(hidden) for projection in (layer.in_proj_qkv, layer.in_proj_z, layer.in_proj_a, layer.in_proj_b)
        )
        weight = layer.conv1d.weight.squeeze(1).to(mixed.dtype)  # float16 where the stream is in float32
        mixed = nodes.convolve(mixed, lambda rows: causal_conv1d_fn(rows, weight, layer.conv1d.bias, layer.activation))
        decay = -layer.A_log.float().exp() * F.softplus(a.float() + layer.dt_bias)
        output = nodes.carry(self._rule, [mixed, decay, b.sigmoid()])
        gated = layer.norm(output.reshape(-1, layer.head_v_dim), z.reshape(-1, layer.head_v_dim))
        projected: torch.Tensor = layer.out_proj(gated.view(len(hidden), -1))
        return projected

    def _rule(
        self, rows: list[torch.Tensor], own: torch.Tensor, state: torch.Tensor | None, hand_on: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """n nodes: (n, L, heads, values' size) and (n, heads, keys' size, values' size)."""
        layer, (mixed, decay, beta) = self.inner, rows
        query, key, value = torch.split(mixed, [layer.key_dim, layer.key_dim, layer.value_dim], -1)
        query, key = (  # each of their heads serves several of the values
            part.reshape(*own.shape, -1, layer.head_k_dim).repeat_interleave(layer.num_v_heads // layer.num_k_heads, 2)
            for part in (query, key)
        )
        output, end = torch_chunk_gated_delta_rule(
            query,
            key,
            value.reshape(*own.shape, -1, layer.head_v_dim),
            g=decay.masked_fill(~own[..., None], 0),
            beta=beta.masked_fill(~own[..., None], 0),
            chunk_size=chunk_of(own.shape[1]),
            initial_state=state,
            output_final_state=hand_on,
            use_qk_l2norm_in_kernel=True,
        )
        return output, end


class Qwen35Parts(Qwen3VLParts):
    """Of a dense model or a mixture of experts: the tower of Qwen3-VL without features for the first layers."""

    rotate = staticmethod(apply_rotary_pos_emb)
    recurrent = True
    recordable = False

    def recurrent_layers(self) -> list[Replacement]:
        return [
            Replacement(layer, "linear_attn", GatedDeltaNet(layer.linear_attn))
            for layer in self.language.layers
            if hasattr(layer, "linear_attn")
        ]
