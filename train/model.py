"""The model that learns: a frozen base with one LoRA, answered and trained on the same prefix tree as scoring."""

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from scoring.engine.attention import packed_attention
from scoring.engine.batches import PreparedBatch
from scoring.engine.forward import encode_pictures, leaf_states
from scoring.engine.loading import Model
from scoring.engine.packed import CPU_TOKENS, PackedModel, compiling_pays, feed_forward, free_bytes
from scoring.inputs.pictures import PixelPolicy
from scoring.inputs.prompt import LETTERS
from train.config import TrainConfig
from train.linear import ADAPTER, Dropout, TrainableLinear
from train.lora import add_lora

MOST_TOKENS = 24_576


@dataclass
class Memory:
    """Whether activations are kept (`fast`) or computed again on the way back (`low`), and tokens of one forward."""

    mode: str
    tokens: int

    @classmethod
    def least(cls, found: list[dict]) -> "Memory":
        """What all of several processes have room for."""
        mode = "low" if any(one["mode"] == "low" for one in found) else "fast"
        return cls(mode, min(one["tokens"] for one in found))


class LearningModel:
    """`loss_backward` adds gradients of rows; `packed.answer` scores with the adapter as it is."""

    def __init__(self, folder: Path, config: TrainConfig, policy: PixelPolicy, label_ids: list[int]):
        torch.manual_seed(config.seed)
        self.config, self.label_ids = config, label_ids
        self.model = Model.load(folder, config.quantization)
        self.peft = add_lora(self.model.network, config)
        if passed := set(config.targets) - set(self.peft.peft_config[ADAPTER].target_modules):
            self.model.notes.append(f"no adapter on {', '.join(sorted(passed))}: the experts of this base have none")
        self.packed = PackedModel(self.model, [ADAPTER], policy, "4bit", TrainableLinear)
        head = self.model.network.get_output_embeddings()
        self.head = head if ADAPTER in getattr(head, "lora_A", {}) else None
        self.dropout = Dropout(config.dropout)
        for number, linear in enumerate(self.packed.linears):
            linear.number, linear.dropout = number, self.dropout
        self.weights = [weight for weight in self.peft.parameters() if weight.requires_grad]
        self.scaler = torch.amp.GradScaler(self.model.device.type, enabled=self.model.dtype == torch.float16)
        self.scaler.scale(torch.zeros((), device=self.model.device))  # ready, also if a step's first share has no row

    # ------------------------------------------------------------ memory
    def choose_memory(self, step_tokens: int) -> Memory:
        """What `--memory` and `--batch-tokens` say, or what this machine has room for."""
        config, device = self.config, self.model.device
        if device.type == "cpu":
            return Memory("low" if config.memory == "low" else "fast", config.batch_tokens or CPU_TOKENS)
        text = self.model.network.config.text_config
        (inner, copies), width, size = feed_forward(text.to_dict()), text.hidden_size, self.packed.stream.itemsize
        layer = size * ((16 + copies) * width + 4 * inner)  # bytes that a token leaves in a layer for the way back
        kept = {"fast": text.num_hidden_layers * layer, "low": text.num_hidden_layers * width * size + 2 * layer}
        room = 0.8 * free_bytes(device) - 16 * sum(weight.numel() for weight in self.weights)  # gradients, AdamW, EMA
        fit = {mode: int(room / need) for mode, need in kept.items()}
        mode = config.memory if config.memory != "auto" else ("fast" if fit["fast"] >= step_tokens else "low")
        return Memory(mode, config.batch_tokens or max(1_024, min(MOST_TOKENS, fit[mode])))

    def use(self, memory: Memory, steps: int, step_tokens: int) -> str:
        """Set it up, compiled where that pays; what there is to say about it."""
        self.recompute(memory.mode == "low")
        if self.config.compile == "auto":  # where layers are computed again it was slower (benchmarks/LOG.md)
            compiled = memory.mode == "fast" and compiling_pays(self.model.folder, 3 * steps * step_tokens)[0]
        else:
            compiled = self.config.compile == "on"
        if compiled:
            self.packed.compile()
        how = {"low": "computed again on the way back", "fast": "kept for the way back"}[memory.mode]
        return f"activations are {how}, at most {memory.tokens:,} tokens in one forward{', compiled' * compiled}"

    def recompute(self, on: bool) -> None:
        """Whether layers compute their activations again on the way back."""
        network = self.model.network
        network.gradient_checkpointing_disable()
        if on:
            network.gradient_checkpointing_enable({"use_reentrant": False})
            network.disable_input_require_grads()  # what the library turns on with it is for another kind
            network.model.language_model.layers[-1].gradient_checkpointing = False  # it is called with the leaves alone

    # ------------------------------------------------------------ learning
    def loss_backward(self, ready: PreparedBatch, place: tuple[int, ...], step_rows: int) -> torch.Tensor:
        """Gradients of the rows' share of the step's mean loss, which is returned.

        place: what this forward's dropout is drawn from.
        """
        self.dropout.begin(*place)
        with self.packing():  # also on the way back, where layers may be computed again
            loss = answer_loss(
                self.logits(ready),
                self.label_ids,
                torch.tensor([LETTERS.index(question.answer) for question in ready.questions]),
                torch.tensor([len(question.options) for question in ready.questions]),
                self.config.label_mass_weight,
            )
            loss = loss.sum() / step_rows
            self.scaler.scale(loss).backward()
        return loss.detach()

    @contextmanager
    def packing(self):
        """Inside, the network attends by segments, and `logits` can be called."""
        self.packed.patches.merged = True
        try:
            with packed_attention(self.model.network):
                yield
        finally:
            self.packed.patches.merged = False

    def logits(self, ready: PreparedBatch) -> torch.Tensor:
        """(B, V) float32 logits of the answers' first tokens, in the order of the rows; differentiable."""
        packed, network = self.packed, self.model.network
        batch = ready.tensors.unfilled().to(self.model.device)
        with torch.set_grad_enabled(torch.is_grad_enabled() and packed.members[0].adapts_vision):
            features = encode_pictures(network, batch, packed.values, packed.policy)
        states = leaf_states(network, batch, features, packed.stream)
        logits = F.linear(states.to(self.model.head.dtype), self.model.head).float()
        return logits if self.head is None else logits + self._learned_head(states.float())

    def _learned_head(self, states: torch.Tensor) -> torch.Tensor:
        """(B, V) what the adapter on the head adds, as PEFT's layer would: scale · dropout(x) Aᵀ Bᵀ."""
        if (kept := self.dropout.kept(len(self.packed.linears), states)) is not None:
            states = states * kept / (1 - self.dropout.share)
        down, up = self.head.lora_A[ADAPTER].weight, self.head.lora_B[ADAPTER].weight
        return states @ down.T @ up.T * self.head.scaling[ADAPTER]


def answer_loss(
    logits: torch.Tensor, label_ids: list[int], answers: torch.Tensor, options: torch.Tensor, mass_weight: float
) -> torch.Tensor:
    """(B,) cross-entropy over a row's letters plus `mass_weight` times -log of their share of all tokens.

    With 1 that is cross-entropy of the answer's token over the vocabulary. answers, options: (B,) index and count.
    """
    answers, options = (tensor.to(logits.device) for tensor in (answers, options))
    labels = torch.stack([logits[:, label] for label in label_ids], 1)
    labels = labels.masked_fill(torch.arange(len(label_ids), device=logits.device) >= options[:, None], -torch.inf)
    among = labels.logsumexp(1)
    return among - labels.gather(1, answers[:, None])[:, 0] + mass_weight * (logits.logsumexp(1) - among)


def average(averages: list[torch.Tensor], weights: list[torch.Tensor], decay: float, step: int) -> None:
    """One step of the moving average: of few steps at first, so that the beginning is forgotten."""
    decay = min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        torch._foreach_lerp_(averages, weights, 1 - decay)
