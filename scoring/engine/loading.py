"""The model of a run: one base, in 4 or 16 bits, and the adapters that are switched on it."""

import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from scoring.checkpoints.adapter import ADAPTER_FILE, lora_config
from scoring.checkpoints.checkpoint import Checkpoint
from scoring.checkpoints.quantization import NOT_QUANTIZED, why_no_4bit
from scoring.checkpoints.weights import MIXTURE, BaseWeights, CheckpointError, check_base, stored_bits
from scoring.engine.device_map import GIB, cards, follow, place

# What stays in 16 or 32 bits. An explicit list replaces the library's own; names match from the start.


def default_device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def default_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on cards that compute with it, float16 on older ones, float32 on the CPU (where it is faster)."""
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def device_name(device: torch.device) -> str:
    """The card's name, or how many threads a CPU has."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"


_BROKEN: list[str] = []  # why the import failed the first time


def settle_functions() -> None:
    """Call each of MKL's functions once, in one thread.

    At its first call a function is given the kernel for this processor. Two threads that make that call at once, as
    PyTorch's do, may be given different ones: one process in fifty had other cosines of picture positions, and so other
    bits in its first batch (benchmarks/LOG.md, 2026-11-26).
    """
    for function in (torch.cos, torch.sin, torch.exp, torch.log, torch.tanh):
        function(torch.ones(64))


def out_of_memory(error: Exception) -> bool:
    """Of the card, or of the host (which PyTorch tells by a bare RuntimeError)."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


@contextmanager
def _building(path: Path, what: str):
    """CheckpointError for what a library raises, of whatever kind, where a stranger's file tells it nonsense.

    What this machine lacks, memory, a file or a package, is raised as it is.
    """
    try:
        yield
    except (OSError, ImportError, CheckpointError):
        raise
    except Exception as error:  # measured: RuntimeError, TypeError, IndexError, AttributeError and others
        if out_of_memory(error) or "CUDA" in str(error):
            raise
        reason = f"{type(error).__name__}: {str(error).strip()}".split("\n")[0]
        raise CheckpointError(f"{path}: {what} ({reason}); expected files that were made together") from error


@dataclass
class Model:
    """`network` is the Qwen3-VL module; adapters are injected into it, and `use` switches between them."""

    network: torch.nn.Module
    folder: Path
    device: torch.device
    dtype: torch.dtype
    quantization: str  # "nf4" or "none"
    notes: list[str] = field(default_factory=list)
    _peft: torch.nn.Module | None = None

    @classmethod
    def load(
        cls,
        folder: Path,
        quantization: str = "nf4",
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        spread: bool = False,
    ) -> "Model":
        """The base from safetensors. Falls back to 16 bits, with a note, where there is no bitsandbytes.

        spread: over all cards, where there are several. Raises CheckpointError where weights are missing, left over,
        or of another shape, and where the cards have no room for them.
        """
        reason = why_no_4bit()  # before a library imports bitsandbytes by itself
        from transformers import AutoModelForImageTextToText, BitsAndBytesConfig
        from transformers.utils.logging import disable_progress_bar

        if not sys.stderr.isatty():
            disable_progress_bar()
        mixture = check_base(folder)["model_type"] == MIXTURE
        settle_functions()
        device = torch.device(device) if device else default_device()
        dtype, notes, options = dtype or default_dtype(device), [], {}
        plain = str(dtype).removeprefix("torch.")
        if mixture and dtype == torch.float16:
            raise CheckpointError(
                f"{folder}: a mixture of experts, which is not computed in float16; expected cards that compute in "
                "bfloat16 (NVIDIA: compute capability 8 or later)"
            )
        stored = stored_bits(folder)
        if stored and reason:
            raise CheckpointError(f"{folder}: its weights are in 4 bits, which cannot be read here ({reason})")
        quantization = stored or quantization
        if quantization != "none" and reason:
            notes.append(f"no 4-bit weights here ({reason}): the base is kept in {plain}")
            quantization = "none"
        if quantization != "none" and not stored:
            options["quantization_config"] = BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type=quantization,
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=dtype,
                llm_int8_skip_modules=NOT_QUANTIZED,
            )
        placed: dict = {"": device}
        spread = spread and torch.cuda.device_count() > 1
        with _building(folder / "config.json", "no Qwen3-VL can be built of it and the weights beside it"):
            if spread:
                free = {card: torch.cuda.mem_get_info(card)[0] for card in range(torch.cuda.device_count())}
                placed = place(folder, dtype, NOT_QUANTIZED, quantization != "none", free)
            network, found = AutoModelForImageTextToText.from_pretrained(
                folder,
                dtype=dtype,
                device_map=placed,
                use_safetensors=True,
                trust_remote_code=False,
                attn_implementation="sdpa",
                output_loading_info=True,
                **options,
            )
        wrong = {kind: keys for kind, keys in found.items() if keys}
        if wrong:
            kind, keys = next(iter(wrong.items()))
            raise CheckpointError(
                f"{folder}: {kind.replace('_', ' ')}: {', '.join(map(str, sorted(keys)[:5]))} (of {len(keys)}); "
                "expected weights that fit the configuration exactly"
            )
        for layer in network.modules():
            if hasattr(layer, "support_avx512bf16_for_cpu"):  # else bitsandbytes repacks weights that are read here
                layer.support_avx512bf16_for_cpu = False  # and answers a float32 model in bfloat16: logits .05 off
            if stored and hasattr(layer, "compute_dtype"):  # that of whoever stored it
                layer.compute_dtype, layer.compute_type_is_set = dtype, True
        network.requires_grad_(False)
        if mixture and quantization != "none":
            size = sum(weight.nbytes for name, weight in network.named_parameters() if ".experts." in name)
            notes.append(f"the experts stay in {plain}, {size / GIB:.1f} GiB: only linear layers are quantized")
        if spread:
            follow(network)
            used = cards(network)
            device = used[0]
            if len(used) > 1:
                notes.append(
                    f"the base lies on {len(used)} cards, which work one after the other: no faster than one of them. "
                    "If it fits on each, torchrun with a process for each card is that many times as fast"
                )
        return cls(network.eval(), folder, device, dtype, quantization, notes)

    @property
    def head(self) -> torch.Tensor:
        """(V, D) the rows that turn a hidden state into logits, without an adapter."""
        return self.network.get_output_embeddings().weight

    def head_adapter(self, name: str | None) -> tuple[torch.Tensor, torch.Tensor] | None:
        """(V, R) and (R, D) whose product is added to the head's rows, in float32; None where that adapter has none."""
        layer = self.network.get_output_embeddings()
        if name not in getattr(layer, "lora_A", {}):
            return None
        up, down = layer.lora_B[name].weight.data, layer.lora_A[name].weight.data
        return up.float() * layer.scaling[name], down.float()

    def add_adapter(self, checkpoint: Checkpoint, name: str) -> None:
        """Load a checkpoint's LoRA beside the others. Raises CheckpointError where its keys do not fit."""
        from peft import PeftModel, set_peft_model_state_dict
        from safetensors.torch import load_file

        check = checkpoint.check(BaseWeights.of(self.folder))
        config = lora_config(checkpoint.adapter, check)
        if self._peft is None:
            self._peft = PeftModel(self.network, config, adapter_name=name)
        else:
            self._peft.add_adapter(name, config)
        with _building(checkpoint.folder / ADAPTER_FILE, "it cannot be read"):
            weights = load_file(checkpoint.folder / ADAPTER_FILE)
        state = {f"base_model.model.{module}.{part}": weights[key] for key, (module, part) in check.keys.items()}
        with _building(checkpoint.folder / ADAPTER_FILE, "its weights do not fit the base"):
            result = set_peft_model_state_dict(self._peft, state, adapter_name=name)
        lost = [key for key in result.missing_keys if f".{name}." in key] + list(result.unexpected_keys)
        if lost:
            raise CheckpointError(
                f"{checkpoint.folder}: {len(lost)} weights did not arrive in the model: {', '.join(lost[:5])}"
            )
        self.network.eval().requires_grad_(False)

    @property
    def adapters(self) -> list[str]:
        """The names of those that are loaded."""
        return list(self._peft.peft_config) if self._peft else []

    def use(self, name: str | None) -> None:
        """Switch to one adapter; None is the base alone."""
        if self._peft is None:
            return
        if name is None:
            self._peft.base_model.disable_adapter_layers()
        else:
            self._peft.base_model.enable_adapter_layers()
            self._peft.set_adapter(name, inference_mode=True)
