"""The model that learns: a frozen base with one LoRA adapter, on the same prefix tree as scoring."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F

from scoring.engine.attention import packed_attention
from scoring.engine.batches import PreparedBatch
from scoring.engine.capabilities import device_has_kernels
from scoring.engine.device_map import free_bytes
from scoring.engine.exclusive import computing, loading
from scoring.engine.forward import encode_pictures, leaf_states
from scoring.engine.fused import FusedAttention, FusedFeedForward
from scoring.engine.linear import whole_sums
from scoring.engine.loading import Model, old_names_unsaid
from scoring.engine.packed import CPU_TOKENS, PackedModel, compiling_pays
from scoring.engine.stand_in import StandIn
from scoring.inputs.pixels import PixelPolicy
from scoring.inputs.prompt import LETTERS
from train.config import TrainConfig
from train.dropout import Dropout
from train.linear import ADAPTER, CastAdapters, TrainableLinear
from train.lora import add_lora, present_targets
from train.recompute import recompute_layers

FEWEST_TOKENS, MOST_TOKENS = 1_024, 24_576  # of one forward on a card


@dataclass(frozen=True)
class Memory:
    """Whether activations are kept (`fast`) or recomputed in the backward pass (`low`), and tokens of one forward."""

    mode: str
    tokens: int

    @classmethod
    def least(cls, memories: "Sequence[Memory]") -> "Memory":
        """What all of several processes have room for."""
        mode = "low" if any(memory.mode == "low" for memory in memories) else "fast"
        return cls(mode, min(memory.tokens for memory in memories))

    def chosen(self, config: TrainConfig) -> "Memory":
        """With the mode and tokens that this call chooses: after an out-of-memory error it may need less."""
        mode = self.mode if config.memory == "auto" else config.memory
        return replace(self, mode=mode, tokens=config.batch_tokens or self.tokens)


class LearningModel:
    """`loss_backward` adds the gradients of rows; `packed.answer` scores with the adapter as it is now.

    weights: the trainable ones, all of the adapter. network: transformers' module, with PEFT's layers in it. label_ids:
    the letters' token ids. Raises ConfigError where no layer has a targeted name.
    """

    def __init__(self, folder: Path, config: TrainConfig, policy: PixelPolicy, label_ids: list[int]):
        self.config, self.label_ids = config, label_ids
        with loading(), seeded(config.seed):
            self.model = Model.load(folder, config.quantization)
            self.network = cast(Any, self.model.network)
            family = self.model.parts.family
            targets = family.targets(config.targets)
            present = present_targets(self.network, targets)
            with old_names_unsaid():
                self.peft = add_lora(self.network, config, family)
        if missing := set(targets) - set(present):
            self.model.notes.append(f"no adapter on {', '.join(sorted(missing))}: the experts of this base have none")
        self.packed = PackedModel(self.model, [ADAPTER], policy, "4bit", TrainableLinear)
        head = self.network.get_output_embeddings()
        self.adapted_head: Any = head if ADAPTER in getattr(head, "lora_A", {}) else None
        self.dropout = Dropout(config.dropout)
        for number, linear in enumerate(self.packed.linears):
            if isinstance(linear, TrainableLinear):  # all are, which `PackedModel` does not know
                linear.number, linear.dropout = number, self.dropout
        self.cast = CastAdapters(self.packed.linears, self.packed.stream)
        self.weights = [weight for weight in self.peft.parameters() if weight.requires_grad]
        self.scaler = torch.amp.GradScaler(self.model.device.type, enabled=self.model.dtype == torch.float16)
        self.scaler.scale(torch.zeros((), device=self.model.device))  # initialised, also where a step has no row here

    # ------------------------------------------------------------ memory
    def choose_memory(self, step_tokens: int) -> Memory:
        """As `--memory` and `--batch-tokens` say, or else by the free memory. step_tokens: tokens of one step."""
        config, device = self.config, self.model.device
        if device.type == "cpu":
            return Memory("low" if config.memory == "low" else "fast", config.batch_tokens or CPU_TOKENS)
        sizes, layer = self.model.parts.sizes, self._layer_bytes()
        token = {"fast": sizes.layers * layer, "low": sizes.layers * sizes.width * self.packed.stream.itemsize}
        token["low"] += 2 * layer  # one layer's and its gradients
        room = 0.8 * free_bytes(device) - 18 * sum(weight.numel() for weight in self.weights)  # gradients, AdamW, EMA
        room -= sum(linear.expanded_bytes for linear in self.packed.linears) / sizes.layers  # of one layer at a time
        fit = {mode: int(room / needed) for mode, needed in token.items()}
        mode = config.memory if config.memory != "auto" else ("fast" if fit["fast"] >= step_tokens else "low")
        return Memory(mode, config.batch_tokens or max(FEWEST_TOKENS, min(MOST_TOKENS, fit[mode])))

    def _layer_bytes(self) -> int:
        """What a layer keeps of a token for the backward pass.

        Where attention and feed-forward are fused, that is four hidden states (before and after each norm), queries
        before and after their rotation and attended, keys and values likewise, and three of the feed-forward's. The
        library's own operations keep more: measured (benchmarks/LOG.md).
        """
        parts, size = self.model.parts, self.packed.stream.itemsize
        sizes, modules = parts.sizes, {type(module) for module in parts.language.modules()}
        fused = {FusedAttention, FusedFeedForward} <= modules and not sizes.copies
        elements = (16 + sizes.copies) * sizes.width + 4 * sizes.inner
        if fused and device_has_kernels(self.model.device, self.packed.stream):
            heads = (sizes.heads + sizes.key_value_heads) * sizes.head_size
            elements = 4 * sizes.width + 3 * heads + 3 * sizes.inner
        return size * elements + 100 * sizes.recurrent  # of linear attention in 32 bits: measured

    def use(self, memory: Memory, steps: int, step_tokens: int) -> str:
        """Set up the network for `steps` more steps, compiled where that pays; return a line about it."""
        self.recompute(memory.mode == "low")
        if self.config.compile == "auto":  # where layers are recomputed it was slower (benchmarks/LOG.md)
            compiled = memory.mode == "fast" and compiling_pays(self.model.folder, 3 * steps * step_tokens)[0]
        else:
            compiled = self.config.compile == "on"
        if compiled:
            self.packed.compile()
        activations = {"low": "recomputed in", "fast": "kept for"}[memory.mode]
        return (
            f"activations are {activations} the backward pass, at most {memory.tokens:,} tokens in one forward"
            f"{', compiled' if compiled else ''}"
        )

    def recompute(self, on: bool) -> None:
        """Let layers recompute their activations in the backward pass, or keep them."""
        parts = self.model.parts
        self.network.gradient_checkpointing_disable()
        if on:
            *layers, _ = parts.language.layers  # the last one computes the leaves alone
            recompute_layers([layer.inner if isinstance(layer, StandIn) else layer for layer in layers])
            if self.packed.members[0].adapts_vision:
                recompute_layers(parts.blocks)

    # ------------------------------------------------------------ learning
    def loss_backward(self, ready: PreparedBatch, position: tuple[int, ...], step_rows: int) -> torch.Tensor:
        """Add the gradients of these rows' share of the mean loss of a step of `step_rows` rows; return that share.

        position: in the training; this forward's dropout is drawn from it.
        """
        self.dropout.begin(*position)
        self.cast.update()
        with self.packing():  # also in the backward pass, where layers may be recomputed
            loss = answer_loss(
                self.logits(ready),
                self.label_ids,
                torch.tensor([LETTERS.index(question.answer) for question in ready.questions]),
                torch.tensor([len(question.options) for question in ready.questions]),
                self.config.label_mass_weight,
            )
            loss = loss.sum() / step_rows
            torch.autograd.backward(self.scaler.scale(loss))
        return loss.detach()

    @contextmanager
    def packing(self) -> Iterator[None]:
        """Inside, the network attends by segments, and `logits` can be called."""
        with computing(), self.packed.patch_products(), packed_attention(self.model.parts), whole_sums():
            yield

    def logits(self, ready: PreparedBatch) -> torch.Tensor:
        """(B, V) float32 logits of the answers' first tokens, in the order of the rows; differentiable."""
        packed, parts = self.packed, self.model.parts
        assert ready.tensors is not None  # a batch without faults has all of its rows
        batch = ready.tensors.unfilled().to(self.model.device)
        with torch.set_grad_enabled(torch.is_grad_enabled() and packed.members[0].adapts_vision):
            features = encode_pictures(parts, batch, packed.values, packed.policy)
        states = leaf_states(parts, batch, features, packed.stream)
        logits = F.linear(states.to(self.model.head.dtype), self.model.head).float()
        return logits if self.adapted_head is None else logits + self._head_adapter(states.float())

    def _head_adapter(self, states: torch.Tensor) -> torch.Tensor:
        """(B, V) what the adapter on the head adds, as PEFT's layer would: scale · dropout(x) Aᵀ Bᵀ."""
        if (drawn := self.dropout.draw(len(self.packed.linears), states)) is not None:
            states = states * drawn / (1 - self.dropout.share)
        head = self.adapted_head
        down, up, scale = head.lora_A[ADAPTER].weight, head.lora_B[ADAPTER].weight, head.scaling[ADAPTER]
        logits: torch.Tensor = states @ down.T @ up.T * scale
        return logits


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, PyTorch draws the numbers of this seed, on the CPU and the current card; outside, the caller's go on."""
    cards = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(cards):
        torch.default_generator.manual_seed(seed)
        if cards:
            torch.cuda.manual_seed(seed)
        yield


def answer_loss(
    logits: torch.Tensor, label_ids: list[int], answers: torch.Tensor, options: torch.Tensor, mass_weight: float
) -> torch.Tensor:
    """(B,) cross-entropy over a row's letters plus `mass_weight` times -log of their share of all tokens.

    With mass_weight 1 it is the cross-entropy of the answer's token over the vocabulary. answers: (B,) the correct
    option's index. options: (B,) how many there are.
    """
    answers, options = (tensor.to(logits.device) for tensor in (answers, options))
    labels = torch.stack([logits[:, label] for label in label_ids], 1)
    labels = labels.masked_fill(torch.arange(len(label_ids), device=logits.device) >= options[:, None], -torch.inf)
    total = labels.logsumexp(1)
    return total - labels.gather(1, answers[:, None])[:, 0] + mass_weight * (logits.logsumexp(1) - total)


def average(averages: Sequence[torch.Tensor], weights: Sequence[torch.Tensor], decay: float, step: int) -> None:
    """Update the moving averages in place. At first they span fewer steps, to forget the initial weights."""
    decay = min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        torch._foreach_lerp_([*averages], [*weights], 1 - decay)
