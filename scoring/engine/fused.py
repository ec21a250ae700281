"""What stands for a layer's modules while trees are answered: on cards each of them is one kernel over the tokens.

In and out: as the network's own modules, (1, T, D) of T tokens. Without kernels (CPUs, older cards, layers that are
compiled) they compute what the library's modules do. While a network is not packed, calls go to these.

Next: `kernels`; `packed`, which puts them in; `families`, which say how heads are rotated.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from scoring.engine import Network
from scoring.engine.attention import attend, attend_paths, segments_of
from scoring.engine.capabilities import has_kernels, kernels
from scoring.engine.families.parts import NetworkParts, Rotation
from scoring.engine.stand_in import Replacement, StandIn


class FusedModule(StandIn):
    """Stands for a module of the network whose parts are `parts`."""

    def __init__(self, inner: nn.Module, parts: NetworkParts):
        super().__init__(inner)
        self.parts = parts


class FusedNorm(FusedModule):
    """Each token over the root of its mean square, times a weight."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor
        if self.parts.packing and has_kernels(hidden):
            output = kernels().rms_norm(hidden, self.inner.weight, self.inner.variance_epsilon)
        else:
            output = self.inner(hidden)
        return output


class FusedFeedForward(FusedModule):
    """down(silu(gate(x)) · up(x))"""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        gate, up = self.inner.gate_proj.beside(hidden, self.inner.up_proj)
        if self.parts.packing and has_kernels(gate):
            inside = kernels().silu_product(gate, up)
        else:
            inside = self.inner.act_fn(gate) * up
        output: torch.Tensor = self.inner.down_proj(inside)
        return output


class FusedAttention(FusedModule):
    """Attention on a tree, whose heads are rotated half against half after their norm, where they have one."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: Rotation,
        attention_mask: torch.Tensor | None = None,
        keys_and_values: tuple[torch.Tensor, torch.Tensor] | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """keys_and_values: those of all tokens, where `hidden_states` are of some."""
        inner = self.inner
        if not self.parts.packing:
            outputs: tuple[torch.Tensor, torch.Tensor | None] = inner(
                hidden_states=hidden_states,
                position_embeddings=position_embeddings,
                attention_mask=attention_mask,
                **kwargs,
            )
            return outputs
        if keys_and_values:
            projected, (key, value) = inner.q_proj(hidden_states), keys_and_values
        else:
            projected, keys, values = inner.q_proj.beside(hidden_states, inner.k_proj, inner.v_proj)
            key, value = self._turned_keys(keys, position_embeddings), self._heads(values)
        query = self._turned(projected, getattr(inner, "q_norm", None), position_embeddings)
        segments = segments_of(kwargs, inner.scaling, causal=True)
        attended = attend_paths(query, key, value, segments, kwargs["key_index"])
        return inner.o_proj(attended.flatten(1)[None]), None

    def keys_and_values(self, hidden: torch.Tensor, rotation: Rotation) -> tuple[torch.Tensor, torch.Tensor]:
        """(T, G, head size) each, of hidden states after the layer's norm (1, T, D)."""
        keys, values = self.inner.k_proj.beside(hidden, self.inner.v_proj)
        return self._turned_keys(keys, rotation), self._heads(values)

    def _turned_keys(self, projected: torch.Tensor, rotation: Rotation) -> torch.Tensor:
        return self._turned(projected, getattr(self.inner, "k_norm", None), rotation)

    def _heads(self, projected: torch.Tensor) -> torch.Tensor:
        return projected[0].view(projected.shape[1], -1, self.inner.head_dim)

    def _turned(self, projected: torch.Tensor, norm: Network | None, rotation: Rotation) -> torch.Tensor:
        """(T, H, head size) heads of a projection, rotated."""
        heads, (cos, sin) = self._heads(projected), (angles[0] for angles in rotation)
        output: torch.Tensor
        if has_kernels(heads):
            of_heads = kernels().HeadNorm(norm.weight, norm.variance_epsilon) if norm else None
            output = kernels().turn(heads, cos, sin, of_heads)
            return output
        heads = norm(heads) if norm else heads
        first, second = heads.chunk(2, -1)
        return heads * cos[:, None] + torch.cat((-second, first), -1) * sin[:, None]


class FusedPatchAttention(FusedModule):
    """Attention of a vision tower that takes all patches as one sequence, where nothing learns."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        cu_seqlens: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        max_seqlen: int | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """(patches, D) -> (patches, D), within the pictures or windows that `cu_seqlens` bounds."""
        inner = self.inner
        fused = self.parts.packing and has_kernels(hidden_states) and not torch.is_grad_enabled()
        output: torch.Tensor
        if fused and position_embeddings is not None and max_seqlen is not None:
            patches = inner.qkv(hidden_states).unflatten(-1, (3, inner.num_heads, -1))
            kernels().turn_patches(patches, *position_embeddings)
            bounds = (cu_seqlens, cu_seqlens, max_seqlen, max_seqlen)
            output = inner.proj(attend(*patches.unbind(1), *bounds, inner.scaling, False).flatten(1))
        else:
            output = inner(
                hidden_states,
                cu_seqlens=cu_seqlens,
                position_embeddings=position_embeddings,
                max_seqlen=max_seqlen,
                **kwargs,
            )
        return output


def fused_modules(parts: NetworkParts) -> Iterator[Replacement]:
    """What stands for the modules of a network's layers and of its tower's blocks."""
    silu, fuses_attention = parts.language.config.hidden_act == "silu", parts.rotate is None
    for parent in parts.language.modules():
        for name, child in parent.named_children():
            if fuses_attention and hasattr(child, "q_proj"):
                yield Replacement(parent, name, FusedAttention(child, parts))
            elif type(child).__name__.endswith("RMSNorm") and hasattr(child, "variance_epsilon"):
                if not (fuses_attention and name in ("q_norm", "k_norm")):  # these are a part of the attention
                    yield Replacement(parent, name, FusedNorm(child, parts))
            elif silu and all(hasattr(child, f"{part}_proj") for part in ("gate", "up", "down")):
                yield Replacement(parent, name, FusedFeedForward(child, parts))
    for block in parts.blocks if parts.packs_patches else ():
        attention = getattr(block, "attn", None)
        if isinstance(attention, nn.Module) and hasattr(attention, "qkv"):
            yield Replacement(block, "attn", FusedPatchAttention(attention, parts))
