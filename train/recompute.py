"""Layers that keep their inputs alone, and are computed again in the backward pass.

PyTorch's own checkpointing packs and unpacks every tensor that the backward pass needs by Python functions, one by one,
which took a tenth of a step's time. Nothing random is restored here: dropout is drawn by its place (`dropout`).
"""

from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from scoring.engine import Network

_again: ContextVar[bool] = ContextVar("computed_again", default=False)


def recompute_layers(layers: Iterable[Network]) -> None:
    """Let these layers of transformers be recomputed, until the network's `gradient_checkpointing_disable`."""
    for layer in layers:  # what the library sets for a function of its own
        layer.gradient_checkpointing, layer._gradient_checkpointing_func = True, recomputed


def recomputed(run: Callable[..., torch.Tensor], hidden: torch.Tensor, *args: Any) -> torch.Tensor:
    """run(hidden, *args), computed again in the backward pass. Only `hidden` and weights may have gradients."""
    if torch.compiler.is_compiling():
        compiled: torch.Tensor = checkpoint(run, hidden, *args, use_reentrant=False)
        return compiled
    if not torch.is_grad_enabled():
        return run(hidden, *args)
    anchor = torch.empty(0, requires_grad=True)  # the weights' gradients are wanted also where `hidden` has none
    output: torch.Tensor = _Recomputed.apply(hidden, anchor, run, args)  # type: ignore[no-untyped-call]
    return output


def computed_again() -> bool:
    """Whether this is inside of a layer that is computed again, whose own backward pass follows at once."""
    return _again.get()


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, anchor: torch.Tensor, run: Callable[..., torch.Tensor], args: tuple[Any, ...]
    ) -> torch.Tensor:
        ctx.save_for_backward(hidden)
        ctx.run, ctx.args = run, args
        return run(hidden, *args)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden = ctx.saved_tensors[0].detach().requires_grad_(ctx.needs_input_grad[0])
        token = _again.set(True)
        try:
            with torch.enable_grad():
                output = ctx.run(hidden, *ctx.args)
        finally:
            _again.reset(token)
        if output.requires_grad:
            torch.autograd.backward(output, grad)
        return hidden.grad, None, None, None
