"""A linear layer that multiplies once: its weight, expanded from 4 bits where it is in 4 bits, plus the adapter.

In: x (…, K). Out: (…, N), by W + up @ down with W (N, K), up (N, R), down (R, K).

PEFT multiplies twice, by the weight and by the low-rank adapter. Adding first costs a sum over the weight, which does
not matter for a batch of thousands of tokens, and makes a row's bits independent of the batch: kernels split the narrow
product of an adapter by the number of rows, but not the wide one.

Next: `packed`, which puts these in the place of a network's layers.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from scoring.engine.capabilities import has_kernels, kernels
from scoring.engine.stand_in import Replacement, StandIn

FEWEST_ROWS = 1024  # of products with weights of uneven rows


def plain_weight_from_4bit(  # noqa: PLR0913 - a custom operator takes tensors and numbers alone
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
    if has_kernels(up) and up.shape[1] and shape[1] % blocks[0] == 0:
        source = kernels().FourBits(packed, code_of(kind, packed.device), absmax, tuple(nested), *blocks)
        merged: torch.Tensor = kernels().make_weight(source, shape, up, down)
        return merged
    if nested:
        scales, code, offset = nested
        absmax = torch.ops.bitsandbytes.dequantize_blockwise(absmax, scales, code, blocks[1], torch.float32) + offset
    weight: torch.Tensor = torch.ops.bitsandbytes.dequantize_4bit(packed, absmax, blocks[0], kind, shape, dtype)
    return weight.addmm_(up, down) if up.shape[1] else weight


@cache
def code_of(kind: str, device: torch.device) -> torch.Tensor:
    """(16,) float32: what the 4-bit weights of a kind are, in units of their block's scale."""
    from bitsandbytes.functional import get_4bit_type

    code: torch.Tensor = get_4bit_type(kind, device)  # type: ignore[no-untyped-call]
    return code


# for compiled layers; called by itself it costs as much as a small product
weight_from_4bit = torch.library.custom_op("scoring::weight_from_4bit", plain_weight_from_4bit, mutates_args=())


@weight_from_4bit.register_fake
def _weight_from_4bit_fake(  # noqa: PLR0913 - the operator's arguments
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
    return packed.new_empty(shape, dtype=dtype)


def plain_weight_with_adapter(weight: torch.Tensor, up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    """(N, K) a weight in 16 or 32 bits plus `up @ down`, rounded once."""
    if has_kernels(up):
        merged: torch.Tensor = kernels().make_weight(weight, list(weight.shape), up, down)
        return merged
    return torch.addmm(weight, up, down)


weight_with_adapter = torch.library.custom_op(
    "scoring::weight_with_adapter", plain_weight_with_adapter, mutates_args=()
)


@weight_with_adapter.register_fake
def _weight_with_adapter_fake(weight: torch.Tensor, up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(weight)


class MergedLinear(StandIn):
    """Stands for a linear layer, quantised or not, with or without PEFT's adapters around it.

    `inner` is that layer. While `merged` is off, calls go to it: the oracle, the baseline and adapters that are not
    plain LoRA use the libraries' own arithmetic.
    """

    merged: bool
    bias: torch.Tensor | None
    weight: torch.Tensor | None  # (N, K) in 16 or 32 bits; None while it is kept in 4 bits
    packed: torch.Tensor | None  # the 4-bit form, see `weight_from_4bit`, and what belongs to it
    absmax: torch.Tensor
    nested_absmax: torch.Tensor | None
    nested_code: Any
    nested_offset: Any
    blocks: list[int]
    kind: str
    up: torch.Tensor
    down: torch.Tensor

    def __init__(self, inner: nn.Module, dtype: torch.dtype):
        super().__init__(inner)
        self.dtype, self.merged = dtype, False
        layer: Any = inner.get_base_layer() if hasattr(inner, "get_base_layer") else inner  # type: ignore[operator]
        self.shape: list[int] = [layer.out_features, layer.in_features]
        self.bias = layer.bias
        self.adapters: dict[str | None, tuple[torch.Tensor, torch.Tensor]] = {}
        weight = layer.weight.data
        state = getattr(layer.weight, "quant_state", None)
        self._add_buffer("weight", weight if state is None else None)
        self._add_buffer("packed", None if state is None else weight)
        if state is not None:
            self._add_4bit_state(state)
        down = torch.empty(0, self.shape[1], dtype=dtype, device=weight.device)
        up = torch.empty(self.shape[0], 0, dtype=dtype, device=weight.device)
        self._add_buffer("down", down)
        self._add_buffer("up", up)
        self.no_adapter = (up, down)
        for name in getattr(inner, "lora_A", {}):
            lora_up, lora_down = (getattr(inner, part)[name].weight.data for part in ("lora_B", "lora_A"))
            scale = self.inner.scaling[name]
            self.adapters[name] = ((lora_up.float() * scale).to(dtype), lora_down.to(dtype))

    def _add_4bit_state(self, state: Any) -> None:
        """Take over a bitsandbytes `QuantState`."""
        self.kind = state.quant_type
        self._add_buffer("absmax", state.absmax)
        self.blocks = [state.blocksize, state.state2.blocksize if state.nested else 0]
        for name in ("absmax", "code"):
            self._add_buffer(f"nested_{name}", getattr(state.state2, name) if state.nested else None)
        self._add_buffer("nested_offset", state.offset if state.nested else None)

    def _add_buffer(self, name: str, tensor: torch.Tensor | None) -> None:
        self.register_buffer(name, tensor, persistent=False)

    def select(self, adapter: str | None) -> None:
        """Choose the adapter that the weight is made with; None, or one that does not touch this layer: none."""
        self.up, self.down = self.adapters.get(adapter, self.no_adapter)

    @property
    def expanded_bytes(self) -> int:
        """What `expand` would take: nothing where the weight is expanded already and no adapter is added to it."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize if self.packed is not None or self.adapters else 0

    def expand(self, only: str | None = None) -> None:
        """Keep the weight in 16 or 32 bits. only: the run's one adapter, which is added for good."""
        self.select(only)
        self.weight, self.packed = self.make_weight(), None
        if only:
            self.adapters = {only: self.no_adapter}
        self.select(None)

    def make_weight(self) -> torch.Tensor:
        """(N, K) the weight with the selected adapter: the same bits from 4 as from 16 bits."""
        if self.packed is not None:
            nested = [] if self.nested_absmax is None else [self.nested_absmax, self.nested_code, self.nested_offset]
            from_4bit = weight_from_4bit if torch.compiler.is_compiling() else plain_weight_from_4bit
            weight: torch.Tensor = from_4bit(
                self.packed, self.absmax, nested, self.shape, self.blocks, self.kind, self.dtype, self.up, self.down
            )
            return weight
        assert self.weight is not None  # it is kept in the one form or the other
        with_adapter = weight_with_adapter if torch.compiler.is_compiling() else plain_weight_with_adapter
        return with_adapter(self.weight, self.up, self.down) if self.up.shape[1] else self.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.merged:
            output: torch.Tensor = self.inner(x)
            return output
        weight = self.make_weight()
        return F.linear(x, weight, self.bias) if x.dtype == weight.dtype else half_product(x, weight, self.bias)

    def beside(self, x: torch.Tensor, *others: Any) -> Sequence[torch.Tensor]:
        """What this layer and others make of the same input. Layers that learn do so at once."""
        return [layer(x) for layer in (self, *others)]


class PatchProduct(StandIn):
    """Stands for a convolution whose windows do not overlap: as one matrix product it is faster."""

    merged: bool

    def __init__(self, inner: nn.Module):
        super().__init__(inner)
        self.merged = False

    @property
    def weight(self) -> torch.Tensor:
        weight: torch.Tensor = self.inner.weight
        return weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.merged:
            output: torch.Tensor = self.inner(x)
            return output
        return F.linear(x.flatten(1), self.inner.weight.flatten(1), self.inner.bias)


class TileProduct(PatchProduct):
    """The same for a convolution over whole tiles (N, 3, height, width), out (N, D, rows, columns).

    The kernel that a library chooses for a convolution may depend on the number of tiles, and a tile's bits with it.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.merged:
            output: torch.Tensor = self.inner(x)
            return output
        height, width = self.inner.kernel_size
        patches = x.unfold(2, height, height).unfold(3, width, width).permute(0, 2, 3, 1, 4, 5).flatten(3)
        return F.linear(patches, self.inner.weight.flatten(1), self.inner.bias).permute(0, 3, 1, 2)


class UnevenLinear(StandIn):
    """Stands for a linear layer whose weight's rows do not fill 16 bytes each, such as Qwen2.5-VL's of 3,420 numbers.

    For these cuBLAS has other kernels, which sum in another order for 192 or 576 to 768 rows (benchmarks/LOG.md). So
    fewer than FEWEST_ROWS are filled up.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, T, N) of (…, T, K)."""
        count = x.shape[-2]
        filled = F.pad(x, (0, 0, 0, max(FEWEST_ROWS - count, 0))) if x.is_cuda else x
        output: torch.Tensor = self.inner(filled)[..., :count, :]
        return output


def uneven_linears(root: nn.Module) -> list[Replacement]:
    """What stands for the linear layers under `root` whose rows do not fill 16 bytes each, if no adapter is on them."""
    return [
        Replacement(parent, name, UnevenLinear(child))
        for parent in root.modules()
        if not isinstance(parent, StandIn) and not hasattr(parent, "base_layer")
        for name, child in parent.named_children()
        if type(child) is nn.Linear and child.in_features * child.weight.itemsize % 16
    ]


_whole_lock, _whole = threading.Lock(), ExitStack()
_summing = 0  # threads inside `whole_sums`


@contextmanager
def whole_sums() -> Iterator[None]:
    """Inside, matrix products on cards sum each row whole, so that its bits do not depend on how many rows there are.

    For few rows cuBLAS adds up parts of a sum (split-K). PyTorch can forbid that to cuBLASLt alone; every product of
    three models was then the same for 64 to 49,152 rows (`benchmarks/products.py`), but for those of `UnevenLinear`.
    PyTorch's settings are the whole process's: where several threads are inside, the last one to leave puts them back.
    """
    global _summing
    if not torch.cuda.is_available():
        yield
        return
    with _whole_lock:
        if not _summing:
            _whole.enter_context(_set_to_whole_sums())
        _summing += 1
    try:
        yield
    finally:
        with _whole_lock:
            _summing -= 1
            if not _summing:
                _whole.close()


@contextmanager
def _set_to_whole_sums() -> Iterator[None]:
    backends, matmul = torch.backends.cuda, torch.backends.cuda.matmul
    names = [f"allow_{name}_reduced_precision_reduction" for name in ("bf16", "fp16")]
    library = backends.preferred_blas_library()
    before = [(getattr(matmul, name), getattr(matmul, f"{name}_split_k", True)) for name in names]
    backends.preferred_blas_library("cublaslt")
    try:
        for name in names:
            setattr(matmul, name, (False, False))
        yield
    finally:
        for name, value in zip(names, before):
            setattr(matmul, name, value)
        backends.preferred_blas_library(library)


def half_product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """(…, N) a float32 x (…, K) times a float16 weight (N, K), for cards without bfloat16.

    Rows are scaled by a power of two to at most 1, so that neither they nor their sums overflow.
    """
    power = torch.exp2(torch.ceil(torch.log2(x.abs().amax(-1, keepdim=True).clamp(min=1e-30))))
    y = F.linear((x / power).to(weight.dtype), weight).to(x.dtype) * power
    return y if bias is None else y + bias.to(x.dtype)


def plain_lora(inner: nn.Module, adapter: str | None) -> bool:
    """Whether an adapter of a PEFT layer is a sum of weight and low-rank product, and nothing else."""
    return adapter not in getattr(inner, "lora_A", {}) or not getattr(inner, "lora_variant", {}).get(adapter)
