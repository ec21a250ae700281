"""Linear layers whose adapters learn: one product forward and one back, each with the weight unpacked from 4 bits.

PEFT's own layer keeps a copy of its input after dropout for the backward pass. On a card these keep a seed, and draw
the mask again where it is needed. Layers that take the same input are one function of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F

from scoring.engine.capabilities import has_kernels
from scoring.engine.linear import MergedLinear, half_product
from train.dropout import Dropout, Mask
from train.recompute import computed_again

ADAPTER = "default"  # PEFT's name for the one adapter of a training


class TrainableLinear(MergedLinear):
    """A linear layer with PEFT's adapter: (…, K) -> (…, N). It learns while the network trains.

    While it answers trees, it scores with the adapter as it is now. number: the layer's, for its dropout.
    """

    def __init__(self, inner: torch.nn.Module, dtype: torch.dtype):
        super().__init__(inner, dtype)
        self.number, self.dropout = 0, Dropout(0.0)  # the network's, once it is assembled
        self.learns = ADAPTER in getattr(inner, "lora_A", {})
        self.scales = self.absmax if self.packed is not None else None  # of blocks, in 32 bits
        if self.packed is not None and self.nested_absmax is not None:
            self.scales = torch.ops.bitsandbytes.dequantize_blockwise(
                self.absmax, self.nested_absmax, self.nested_code, self.blocks[1], torch.float32
            ).add_(self.nested_offset)
        self.adapter = Adapter.of(inner) if self.learns else None

    def select(self, adapter: str | None) -> None:
        if adapter == ADAPTER and self.adapter is not None:
            down, up = (weight.detach() for weight in self.adapter.weights)
            self.adapters[ADAPTER] = ((up * self.adapter.scale).to(self.dtype), down.to(self.dtype))
        super().select(adapter)

    def base_weight(self) -> torch.Tensor:
        """(N, K) without the adapter, in 16 or 32 bits."""
        if self.packed is None:
            assert self.weight is not None  # it is held in the one form or the other
            return self.weight
        weight: torch.Tensor = torch.ops.bitsandbytes.dequantize_4bit.default(
            self.packed, self.scales, self.blocks[0], self.kind, self.shape, self.dtype
        )
        return weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) if self.merged or not self.training else self.beside(x)[0]

    def beside(self, x: torch.Tensor, *others: Any) -> Sequence[torch.Tensor]:
        if self.merged or not self.training:
            return super().beside(x, *others)
        products = _products_outside_of_graphs if torch.compiler.is_compiling() else learning_products
        outputs: Sequence[torch.Tensor] = products(x, (self, *others))
        return outputs


@dataclass
class Adapter:
    """The adapter of a layer: weights are lora_A (R, K) and lora_B (N, R). cast: both in 16 bits, where x is."""

    weights: tuple[torch.Tensor, torch.Tensor]
    scale: float
    cast: tuple[torch.Tensor, torch.Tensor]

    @classmethod
    def of(cls, inner: Any) -> "Adapter":
        """Of PEFT's layer."""
        weights = inner.lora_A[ADAPTER].weight, inner.lora_B[ADAPTER].weight
        return cls(weights, inner.scaling[ADAPTER], weights)


class CastAdapters:
    """All adapters of a network in the type of its residual stream, cast at once."""

    def __init__(self, linears: Sequence[MergedLinear], stream: torch.dtype):
        adapters = [linear.adapter for linear in linears if isinstance(linear, TrainableLinear)]
        learning = [adapter for adapter in adapters if adapter is not None and adapter.weights[0].dtype != stream]
        for adapter in learning:
            down, up = (torch.empty_like(weight, dtype=stream, requires_grad=False) for weight in adapter.weights)
            adapter.cast = down, up
        self.weights = [weight for adapter in learning for weight in adapter.weights]
        self.cast = [weight for adapter in learning for weight in adapter.cast]

    def update(self) -> None:
        """Before a forward: the weights may have changed."""
        if self.cast:
            with torch.no_grad():
                torch._foreach_copy_(self.cast, self.weights)


def learning_products(x: torch.Tensor, layers: tuple[TrainableLinear, ...]) -> Sequence[torch.Tensor]:
    """What each layer makes of x (…, K), with gradients for x and for the adapters of those that have one."""
    weights = [weight for layer in layers for weight in (layer.adapter.weights if layer.adapter else (None, None))]
    outputs: Sequence[torch.Tensor] = LoraProducts.apply(x, layers, *weights)  # type: ignore[no-untyped-call]
    return outputs


# by itself it costs more than a product
_products_outside_of_graphs = torch.compiler.disable(learning_products)  # type: ignore[no-untyped-call]


class LoraProducts(torch.autograd.Function):
    """x (…, K) -> x Wᵀ + bias + scale · dropout(x) Aᵀ Bᵀ of each layer, with gradients for x and for each A and B.

    weights: A and B of each layer, None where it has none.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, layers: tuple[TrainableLinear, ...], *weights: torch.Tensor | None
    ) -> tuple[torch.Tensor, ...]:
        flat = x.reshape(-1, x.shape[-1])
        flat = flat.contiguous() if has_kernels(flat) else flat
        base = [layer.base_weight() for layer in layers]
        outputs = [_product(flat, weight, layer.bias) for weight, layer in zip(base, layers)]
        ctx.layers, ctx.shape = layers, x.shape
        ctx.base = base if computed_again() else [None] * len(layers)  # its backward pass follows at once
        ctx.save_for_backward(flat, *(_add_by_kernels if has_kernels(flat) else _add)(flat, layers, outputs))
        return tuple(output.view(*x.shape[:-1], -1) for output in outputs)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        flat, *saved = ctx.saved_tensors
        outputs = [
            _Output(layer, grad.reshape(-1, grad.shape[-1]), weight)
            for layer, grad, weight in zip(ctx.layers, grads, ctx.base)
        ]
        learn = _learn_by_kernels if has_kernels(flat) else _learn
        x_grad, weight_grads = learn(flat, outputs, saved, ctx.needs_input_grad[0])
        return x_grad.view(ctx.shape) if x_grad is not None else None, None, *weight_grads


@dataclass
class _Output:
    """What a layer gave, in the backward pass: its gradient (T, N). known: the layer's weight, where it was kept."""

    layer: TrainableLinear
    grad: torch.Tensor
    known: torch.Tensor | None

    def weight(self) -> torch.Tensor:
        return self.layer.base_weight() if self.known is None else self.known


WeightGrads = list[torch.Tensor | None]  # of each layer's A and B; None where it has none


# ------------------------------------------------------------ by kernels
def _add_by_kernels(
    flat: torch.Tensor, layers: Sequence[TrainableLinear], outputs: list[torch.Tensor]
) -> list[torch.Tensor | None]:
    """Add what adapters give to the outputs; returns what the backward pass needs: (n, T, R) of the n adapters."""
    adapters = [(layer.adapter, output) for layer, output in zip(layers, outputs) if layer.adapter]
    if not adapters:
        return []
    downs, masks, scale = _adapters(layers)
    inner: torch.Tensor = _kernels().narrow_products(flat, downs, masks, scale)
    for (adapter, output), narrow in zip(adapters, inner):
        output.addmm_(narrow, adapter.cast[1].T)
    return [inner]


def _learn_by_kernels(
    flat: torch.Tensor, outputs: list[_Output], saved: list[torch.Tensor], x_learns: bool
) -> tuple[torch.Tensor | None, WeightGrads]:
    """The gradients of x and of the adapters."""
    x_grad = None
    for output in outputs if x_learns else ():
        weight = output.weight()
        x_grad = output.grad @ weight if x_grad is None else x_grad.addmm_(output.grad, weight)
    learning = [output for output in outputs if output.layer.adapter]
    if not learning:
        return x_grad, [None, None] * len(outputs)
    (inner,), up_grads = saved, []
    inner_grad = torch.empty_like(inner)
    for output, narrow, narrow_grad in zip(learning, inner, inner_grad):
        assert output.layer.adapter is not None
        torch.mm(output.grad, output.layer.adapter.cast[1], out=narrow_grad)
        up_grads.append((output.grad.T @ narrow).float())
    downs, masks, scale = _adapters([output.layer for output in learning])
    down_grads = _kernels().narrow_products_backward(flat, [*zip(downs, masks)], inner_grad, x_grad, scale)
    pairs = iter(zip(down_grads, up_grads))
    return x_grad, [grad for output in outputs for grad in (next(pairs) if output.layer.adapter else (None, None))]


def _adapters(layers: Sequence[TrainableLinear]) -> tuple[list[torch.Tensor], list[Mask], float]:
    """Each A, its mask, and the scale of all, of those layers that have one."""
    learning = [(layer, layer.adapter) for layer in layers if layer.adapter]
    downs = [adapter.cast[0] for _, adapter in learning]
    masks = [layer.dropout.mask(layer.number) for layer, _ in learning]
    return downs, masks, learning[0][1].scale / (1 - masks[0].share)


@cache
def _kernels() -> ModuleType:
    from train import kernels  # needs Triton

    return kernels


# ------------------------------------------------------------ without kernels
def _add(
    flat: torch.Tensor, layers: Sequence[TrainableLinear], outputs: list[torch.Tensor]
) -> list[torch.Tensor | None]:
    """Add what adapters give to the outputs; returns each layer's narrow product (T, R), and what was drawn for it."""
    saved: list[torch.Tensor | None] = []
    for layer, output in zip(layers, outputs):
        inner = drawn = None
        if layer.adapter:
            down, up = layer.adapter.cast
            drawn = layer.dropout.draw(layer.number, flat)
            inner = _masked(flat, drawn) @ down.T
            output.addmm_(inner, up.T, alpha=layer.adapter.scale / (1 - layer.dropout.share))
        saved += inner, None if flat.is_cuda else drawn
    return saved


def _learn(
    flat: torch.Tensor, outputs: list[_Output], saved: list[torch.Tensor | None], x_learns: bool
) -> tuple[torch.Tensor | None, WeightGrads]:
    """The gradients of x and of the adapters. The last layer comes first, as where each is a function of its own."""
    x_grad, weight_grads = None, WeightGrads()
    for output, inner, drawn in reversed([*zip(outputs, saved[::2], saved[1::2])]):
        layer, grad = output.layer, output.grad
        own = _product(grad, output.weight().T) if x_learns else None
        down_grad = up_grad = None
        if layer.adapter and inner is not None:
            down, up = layer.adapter.cast
            scale, kind = layer.adapter.scale / (1 - layer.dropout.share), layer.adapter.weights[0].dtype
            drawn = drawn if drawn is not None else layer.dropout.draw(layer.number, flat)
            up_grad = (grad.T @ inner).to(kind).mul_(scale)
            inner_grad = (grad @ up).mul_(scale)
            down_grad = (inner_grad.T @ _masked(flat, drawn)).to(kind)
            if own is not None:
                own.add_(_masked(inner_grad @ down, drawn))
        weight_grads = [down_grad, up_grad, *weight_grads]
        x_grad = own if x_grad is None or own is None else x_grad.add_(own)
    return x_grad, weight_grads


def _masked(x: torch.Tensor, drawn: torch.Tensor | None) -> torch.Tensor:
    """`x` without what dropout drops. drawn: 1 or 0 for each element; None without dropout."""
    return x if drawn is None else x * drawn


def _product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    return F.linear(x, weight, bias) if x.dtype == weight.dtype else half_product(x, weight, bias)
