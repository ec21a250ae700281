"""The fast way: a loaded model that answers trees of prompts with all adapters of a run.

In: a `TreeBatch` of B sequences and the K ids of the letters. Out: `AnswerLogits`, labels (B, K), for each member.
`PackedModel` puts the layers of `linear` in the place of the network's, so that each adapter is added to the weights,
and lets the network attend as `attention` does. It also decides how many tokens fit, and whether compiling pays.

Next: `reference`, which it must agree with; `scorer`, which turns its answers into an `OptionLogits`.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from scoring.checkpoints.weights import CheckpointError
from scoring.engine.attention import packed_attention
from scoring.engine.capabilities import device_has_kernels
from scoring.engine.device_map import GIB, devices_of, free_bytes
from scoring.engine.exclusive import computing
from scoring.engine.families.registry import parts_class
from scoring.engine.forward import AnswerLogits, Deepstacked, TreeBatch, encode_pictures, leaf_states, project
from scoring.engine.fused import fused_modules
from scoring.engine.linear import MergedLinear, plain_lora, uneven_linears, whole_sums
from scoring.engine.loading import Model, default_device, default_dtype
from scoring.engine.stand_in import unwrap
from scoring.files.cache import cache_folder
from scoring.files.reading import read_json
from scoring.inputs.families.registry import family_of
from scoring.inputs.pixels import PixelPolicy

ROOM = 8 * GIB  # what expanded weights must leave free on a card
FEWEST_TOKENS, MOST_TOKENS = 2_048, 49_152  # of an automatic batch on a card; beyond, nothing is gained
CPU_TOKENS = 2_560  # of an automatic batch or one forward of training on a CPU; beyond, nothing is gained
GAIN = 0.1  # of compiled layers, where they are not fused: the share of time that they save at least
COMPILE_SECONDS = 26  # what compiling them took on an H100 (benchmarks/LOG.md)


@dataclass
class Member:
    """An adapter of the run (None: the base alone).

    merged: whether it can be added to weights. adapts_vision: whether it changes the vision tower.
    """

    adapter: str | None
    merged: bool
    adapts_vision: bool


class PackedModel:
    """Answers a `TreeBatch` with every member. One base serves them all; pictures are encoded once for all of them.

    The network itself stays the library's: outside of `answer` it attends and multiplies as transformers and PEFT do.
    """

    def __init__(
        self,
        model: Model,
        adapters: list[str | None],
        policy: PixelPolicy,
        weights: str = "auto",
        linear: type[MergedLinear] = MergedLinear,
    ):
        """weights: `auto`, `4bit` or `16bit`. linear: the class of linear layers (training has its own)."""
        self.model, self.policy, self.network = model, policy, model.network
        self.compiled = False
        self.stream = torch.float32 if model.dtype == torch.float16 else model.dtype
        self.parts = parts = model.parts
        language = parts.language
        if model.dtype == torch.float16:
            for module in parts.seeing:
                module.float()  # its norms overflow in float16
            for layer in (layer for module in parts.seeing for layer in module.modules()):
                if hasattr(layer, "compute_dtype"):
                    layer.compute_dtype = torch.float32
        unwrap(self.network.model)  # packed before, in another way
        self.linears = wrap(language.layers, model.dtype, linear)
        in_vision = [
            layer for module in parts.seeing for layer in wrap(module, parts.vision.dtype, linear, adapters_only=True)
        ]
        self.linears += in_vision
        self.patches = parts.pack_projection()
        uneven = [replacement for module in parts.seeing for replacement in uneven_linears(module)]
        for replacement in (*uneven, *parts.recurrent_layers(), *fused_modules(parts)):
            replacement.put_in()
        for number in range(parts.deepstack):
            language.layers[number] = Deepstacked(language.layers[number], number)
        self.members = [
            Member(
                adapter,
                all(plain_lora(linear.inner, adapter) for linear in self.linears),
                any(adapter in getattr(linear.inner, "lora_A", {}) for linear in in_vision),
            )
            for adapter in adapters
        ]
        seen_in = parts.vision.dtype if parts.vision else self.stream
        self.values = torch.from_numpy(policy.values).to(model.device, seen_in)
        self.weights = self._store_weights(weights)

    def _store_weights(self, weights: str) -> str:
        """Keep the weights in 4 bits or expand them; which was done. The logits have the same bits either way."""
        need, free = sum(linear.expanded_bytes for linear in self.linears), free_bytes(self.model.device)
        if len(devices_of(self.network)) > 1 and weights == "auto":  # several cards were necessary: room is short
            return "4bit"
        room = ROOM if self.model.device.type == "cuda" else need  # on a CPU as much again must stay free
        if weights == "auto":
            weights = "16bit" if need + room <= free else "4bit"
            if need >= GIB:
                storage = "expanded to 16 bits at load" if weights == "16bit" else "kept in 4 bits"
                self.model.notes.append(
                    f"weights {storage}: expanded they take {need / GIB:.1f} of {free / GIB:.1f} GiB free"
                )
        if weights == "16bit":
            if need > free:
                raise CheckpointError(
                    f"--weights 16bit: expanded they take {need / GIB:.1f} GiB, and {free / GIB:.1f} GiB are free "
                    "beside the base; expected room for them: --weights 4bit takes none"
                )
            mergeable = [member.adapter for member in self.members if member.merged]
            only = mergeable[0] if len(self.members) == 1 and mergeable else None
            for linear in self.linears:
                linear.expand(only)
        return weights

    @computing()
    @torch.no_grad()
    def answer(self, batch: TreeBatch, label_ids: list[int]) -> list[AnswerLogits]:
        """The letters' logits of every sequence of the tree, for each member in turn."""
        answers, features = [], None
        with packed_attention(self.parts), whole_sums():
            for number, member in enumerate(self.members):
                with self.switched(member):
                    if features is None or member.adapts_vision or self.members[number - 1].adapts_vision:
                        features = encode_pictures(self.parts, batch, self.values, self.policy)
                    states = leaf_states(self.parts, batch, features, self.stream)
                head = self.model.head
                answers.append(
                    project(states.to(head.device), head, label_ids, self.model.head_adapter(member.adapter))
                )
        return answers

    @contextmanager
    def switched(self, member: Member) -> Iterator[None]:
        """Inside, the network multiplies with that member's weights. Each product makes its weight anew."""
        if not member.merged:
            self.model.use(member.adapter)
        for linear in self.linears:
            linear.select(member.adapter)
            linear.merged = member.merged
        try:
            with self.patch_products():
                yield
        finally:
            for linear in self.linears:
                linear.merged = False

    @contextmanager
    def patch_products(self) -> Iterator[None]:
        """Inside, patches go through one matrix product, where the family's tower has patches for it."""
        for product in self.patches:
            product.merged = True
        try:
            yield
        finally:
            for product in self.patches:
                product.merged = False

    def compile(self) -> None:
        """Let layers and blocks compile at their first batch. What an earlier process compiled is found on disk."""
        from torch._inductor.runtime.cache_dir_utils import default_cache_dir

        if os.environ.get("TORCHINDUCTOR_CACHE_DIR", default_cache_dir()) == default_cache_dir():  # torch sets that one
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache_folder() / "inductor")
        torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
        options = same_bits()
        for layer in self.parts.language.layers[:-1]:
            (layer.inner if isinstance(layer, Deepstacked) else layer).compile(dynamic=True, options=options)
        for block in self.parts.blocks:
            block.compile(dynamic=True, options=options)
        self.compiled = True

    def batch_tokens(self) -> int:
        """How many tokens of a tree fit into the memory that is free now, by the bytes that a token takes."""
        if self.model.device.type != "cuda":
            return CPU_TOKENS
        sizes = self.parts.sizes
        heads = (sizes.heads + 2 * sizes.key_value_heads) * sizes.head_size
        token = self.stream.itemsize * ((6 + sizes.copies) * sizes.width + 3 * sizes.inner + 3 * heads)
        fit = int(0.8 * min(map(free_bytes, devices_of(self.network))) / token)
        return max(FEWEST_TOKENS, min(MOST_TOKENS, fit // 1024 * 1024))


def same_bits() -> dict[str, bool]:
    """The compiler's options under which a row has the same bits in every batch and run.

    The order of sums is then chosen neither by timing nor by the number of rows.

    They go with each compilation: set as globals they last for one, after which PyTorch restores
    `use_deterministic_algorithms` and with it `deterministic` (benchmarks/LOG.md, 2026-11-26).
    """
    import torch._inductor.config as inductor

    if hasattr(inductor, "batch_invariant"):  # PyTorch 2.13 and later
        return {"deterministic": True, "batch_invariant": True}
    return {"deterministic": True, "triton.persistent_reductions": False}  # those look at the number of rows


def compiling_pays(base: Path, tokens: int) -> tuple[bool, str]:
    """Whether compiled layers make up for their compilation on so many tokens of a tree, and what to say about it.

    Fused ones do not: 102.3 compiled rows/s against 104.4 on an H200 (benchmarks/LOG.md).
    """
    if not torch.cuda.is_available() or layers_are_fused(base):
        return False, ""
    sizes = family_of(base).sizes(read_json(base / "config.json") or {})
    width, heads = sizes.width, sizes.heads + sizes.key_value_heads
    weights = sizes.layers * (2 * width * heads * sizes.head_size + 3 * width * sizes.inner)
    seconds = 2 * weights * tokens / (0.5 * product_rate())
    if seconds * GAIN > COMPILE_SECONDS:
        return True, ""
    return (
        False,
        f"not compiled: about {seconds:,.0f} s of scoring are too short to earn it back (--compile on compiles)",
    )


def layers_are_fused(base: Path) -> bool:
    """Whether kernels do on this card what a compiler would make of the layers."""
    device = default_device()
    return parts_class(family_of(base)).rotate is None and device_has_kernels(device, default_dtype(device))


def product_rate(size: int = 4096) -> float:
    """FLOP/s of this machine on a large matrix product, in the type that it scores in."""
    device = default_device()
    numbers = torch.Generator(device).manual_seed(0)  # the program's own numbers are not drawn
    a = torch.randn(size, size, generator=numbers, device=device, dtype=default_dtype(device))
    for _ in range(3):
        a @ a
    _wait(device)
    start = time.perf_counter()
    for _ in range(10):
        a @ a
    _wait(device)
    return 10 * 2 * size**3 / (time.perf_counter() - start)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def wrap(
    root: nn.Module, dtype: torch.dtype, linear: type[MergedLinear] = MergedLinear, adapters_only: bool = False
) -> list[MergedLinear]:
    """Put a `MergedLinear` (or `linear`) in the place of each linear layer under `root`, PEFT's included; all of them.

    adapters_only: only where an adapter is on the layer.
    """
    wrapped = []
    for name, child in list(root.named_children()):
        adapted = hasattr(child, "lora_A")
        if adapted or isinstance(child, nn.Linear):
            if adapted or not adapters_only:
                wrapped.append(linear(child, dtype))
                setattr(root, name, wrapped[-1])
        else:
            wrapped += wrap(child, dtype, linear, adapters_only)
    return wrapped
