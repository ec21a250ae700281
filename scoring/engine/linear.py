"""A linear layer that multiplies once: its weight, from 4 bits where need be, with the adapter added to it.

The usual way multiplies twice, by the weight and by the low-rank adapter. Adding first costs a sum over the weight,
which a batch of thousands of tokens does not notice, and makes a row's bits independent of the batch: the narrow
product of an adapter is split by the number of rows, the wide one is not.
"""

import torch
import torch.nn.functional as F
from torch import nn


def plain_weight_from_4bit(
    packed: torch.Tensor,
    absmax: torch.Tensor,
    nested: list[torch.Tensor],
    shape: list[int],
    blocks: list[int],
    kind: str,
    dtype: torch.dtype,
    up: torch.Tensor,
    down: torch.Tensor,
) -> torch.Tensor:
    """A weight from bitsandbytes' 4-bit form, in 16 or 32 bits, plus `up @ down`, rounded once more.

    packed: two weights a byte. absmax: a scale for each block of weights; where it is in 8 bits, `nested` holds its own
    scales, code and offset. up (N, R), down (R, K): the adapter, R = 0 for none.
    """
    if nested:
        scales, code, offset = nested
        absmax = torch.ops.bitsandbytes.dequantize_blockwise(absmax, scales, code, blocks[1], torch.float32) + offset
    weight = torch.ops.bitsandbytes.dequantize_4bit(packed, absmax, blocks[0], kind, shape, dtype)
    return weight.addmm_(up, down) if up.shape[1] else weight


# for compiled layers; called by itself it costs as much as a small product
weight_from_4bit = torch.library.custom_op("scoring::weight_from_4bit", plain_weight_from_4bit, mutates_args=())


@weight_from_4bit.register_fake
def _(packed, absmax, nested, shape, blocks, kind, dtype, up, down):
    return packed.new_empty(shape, dtype=dtype)


@torch.library.custom_op("scoring::weight_with_adapter", mutates_args=())
def weight_with_adapter(weight: torch.Tensor, up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    """(N, K) a weight in 16 or 32 bits plus `up @ down`, rounded once."""
    return torch.addmm(weight, up, down)


@weight_with_adapter.register_fake
def _(weight, up, down):
    return torch.empty_like(weight)


class MergedLinear(nn.Module):
    """Stands for a linear layer, quantised or not, with or without PEFT's adapters around it.

    `inner` is that layer. While `merged` is off, calls go to it: the oracle, the baseline and adapters that are not
    plain LoRA use the libraries' own arithmetic.
    """

    def __init__(self, inner: nn.Module, dtype: torch.dtype):
        super().__init__()
        self.inner, self.dtype, self.merged = inner, dtype, False
        layer = inner.get_base_layer() if hasattr(inner, "get_base_layer") else inner
        self.shape = [layer.out_features, layer.in_features]
        self.bias = layer.bias
        self.adapters: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        weight = layer.weight.data
        state = getattr(layer.weight, "quant_state", None)
        self._hold("weight", weight if state is None else None)
        self._hold("packed", None if state is None else weight)
        if state is not None:
            self.kind = state.quant_type
            self._hold("absmax", state.absmax)
            self.blocks = [state.blocksize, state.state2.blocksize if state.nested else 0]
            for name in ("absmax", "code"):
                self._hold(f"nested_{name}", getattr(state.state2, name) if state.nested else None)
            self._hold("nested_offset", state.offset if state.nested else None)
        self._hold("down", torch.empty(0, self.shape[1], dtype=dtype, device=weight.device))
        self._hold("up", torch.empty(self.shape[0], 0, dtype=dtype, device=weight.device))
        self.none = (self.up, self.down)
        for name in getattr(inner, "lora_A", {}):
            up, down = (getattr(inner, part)[name].weight.data for part in ("lora_B", "lora_A"))
            self.adapters[name] = ((up.float() * inner.scaling[name]).to(dtype), down.to(dtype))

    def _hold(self, name: str, tensor: torch.Tensor | None) -> None:
        self.register_buffer(name, tensor, persistent=False)

    def select(self, adapter: str | None) -> None:
        """Which adapter the weight is made with; None, or one that does not touch this layer: none."""
        self.up, self.down = self.adapters.get(adapter, self.none)

    @property
    def expanded_bytes(self) -> int:
        """What `expand` would take: nothing where the weight is there already and no adapter is folded into it."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize if self.packed is not None or self.adapters else 0

    def expand(self, only: str | None = None) -> None:
        """Keep the weight in 16 or 32 bits. `only`: the run's one adapter, which is added for good."""
        self.select(only)
        self.weight, self.packed = self.make_weight(), None
        if only:
            self.adapters = {only: self.none}
        self.select(None)

    def make_weight(self) -> torch.Tensor:
        """(N, K) the weight with the selected adapter: the same bits from 4 as from 16 bits."""
        if self.packed is not None:
            nested = [] if self.nested_absmax is None else [self.nested_absmax, self.nested_code, self.nested_offset]
            return weight_from_4bit(
                self.packed, self.absmax, nested, self.shape, self.blocks, self.kind, self.dtype, self.up, self.down
            )
        return weight_with_adapter(self.weight, self.up, self.down) if self.up.shape[1] else self.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.merged:
            return self.inner(x)
        weight = self.make_weight()
        return F.linear(x, weight, self.bias) if x.dtype == weight.dtype else half_product(x, weight, self.bias)


class PatchProduct(nn.Module):
    """Stands for a convolution whose windows do not overlap: one matrix product, which convolutions are slow to see."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner, self.merged = inner, False

    @property
    def weight(self) -> torch.Tensor:
        return self.inner.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.merged:
            return self.inner(x)
        return F.linear(x.flatten(1), self.inner.weight.flatten(1), self.inner.bias)


def half_product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """A float32 stream through a float16 product, for cards without bfloat16.

    Rows are scaled by a power of two to at most 1, so that neither they nor their sums overflow.
    """
    power = torch.exp2(torch.ceil(torch.log2(x.abs().amax(-1, keepdim=True).clamp(min=1e-30))))
    y = F.linear((x / power).to(weight.dtype), weight).to(x.dtype) * power
    return y if bias is None else y + bias.to(x.dtype)


def plain_lora(inner: nn.Module, adapter: str) -> bool:
    """Whether that adapter of a PEFT layer is a sum of weight and low-rank product, and nothing else."""
    return adapter not in getattr(inner, "lora_A", {}) or not getattr(inner, "lora_variant", {}).get(adapter)
