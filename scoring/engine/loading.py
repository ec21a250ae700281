"""The model of a run: one base, in 4 or 16 bits, and the adapters that it switches between.

In: a base's folder, and checkpoints whose adapters belong to it. Out: a `Model`, whose `network` is transformers' own.
Next: `packed`, which makes a model answer trees of prompts.
"""

import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from scoring.checkpoints.adapter import ADAPTER_FILE, lora_config
from scoring.checkpoints.checkpoint import Checkpoint
from scoring.checkpoints.quantization import why_no_4bit
from scoring.checkpoints.weights import BaseWeights, CheckpointError, check_base, stored_bits
from scoring.engine import Network
from scoring.engine.device_map import GIB, devices_of, free_bytes, make_device_map, move_inputs_to_layers
from scoring.engine.exclusive import loading
from scoring.engine.families.parts import NetworkParts
from scoring.engine.families.registry import parts_of
from scoring.engine.weight_reader import WeightReader
from scoring.errors import ScoringError
from scoring.inputs.families.family import Family
from scoring.inputs.families.registry import family_of_config


class DeviceError(ScoringError):
    """A device that this machine does not have."""


def default_device() -> torch.device:
    """The current card, or the CPU of a machine without one."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def device_of(name: str | torch.device | None) -> torch.device:
    """The device of that name; the default one for None and "auto". Raises DeviceError where it is not here."""
    if name is None or name == "auto":
        return default_device()
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    try:
        device = torch.device(name) if isinstance(name, str | torch.device) else None
    except RuntimeError:
        device = None
    here = device and (device.type == "cpu" or (device.type == "cuda" and (device.index or 0) < cards))
    if not device or not here:
        known = ", ".join(["cpu", *(f"cuda:{number}" for number in range(cards))])
        raise DeviceError(f"device {str(name)!r}: PyTorch has no such device here; expected one of {known}, or auto")
    return device


def default_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on cards that compute with it, float16 on older ones, float32 on the CPU (where it is faster)."""
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def device_name(device: torch.device) -> str:
    """The card's name, or how many threads a CPU has."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"


def settle_functions() -> None:
    """Call each of MKL's functions once, in one thread, and let MKL add up in one order from now on.

    At its first call a function is given the kernel for this processor. Two threads that make that call at once, as
    PyTorch's do, may be given different ones: one process in fifty had other cosines of picture positions, and so other
    bits in its first batch (benchmarks/LOG.md, 2026-11-26).

    MKL reads `MKL_CBWR` at the first call of all. Without it the order of MKL's sums depends on the numbers' addresses
    in memory, and one of eight trainings ended with other bits (benchmarks/LOG.md); its cost is too small to measure.
    Where a program has called MKL before, as with any product of PyTorch's matrices, it keeps the mode that it chose:
    it sets the variable itself if it wants the same bits in every process.
    """
    chosen = os.environ.get("MKL_CBWR")
    os.environ["MKL_CBWR"] = chosen or "AUTO,STRICT"
    try:
        for function in (torch.cos, torch.sin, torch.exp, torch.log, torch.tanh):
            function(torch.ones(64))
    finally:
        if chosen is None:
            del os.environ["MKL_CBWR"]
        else:
            os.environ["MKL_CBWR"] = chosen


def out_of_memory(error: Exception) -> bool:
    """Whether the card or the host ran out of memory (for the host PyTorch raises a bare RuntimeError)."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


@contextmanager
def _as_checkpoint_error(path: Path, problem: str) -> Iterator[None]:
    """Raise CheckpointError for whatever a library raises where a file from elsewhere holds nonsense.

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
        raise CheckpointError(f"{path}: {problem} ({reason}); expected files that were made together") from error


# ------------------------------------------------------------ the base
IN_4BIT = 0.5 + 1 / 64  # bytes of a weight, with its share of its block's scale


@dataclass(frozen=True)
class WeightForm:
    """In which types a base's weights are held.

    dtype: of what is not quantized. quantization: `nf4`, `fp4` or `none`. stored: whether the base's files hold weights
    in 4 bits already. mixture: whether it is a mixture of experts. family: what model it is. note: what to say about
    the choice, or "".
    """

    dtype: torch.dtype
    quantization: str
    stored: bool
    mixture: bool
    family: Family
    note: str = ""

    @classmethod
    def choose(cls, folder: Path, quantization: str, dtype: torch.dtype) -> "WeightForm":
        """What the base's files and this machine allow. Raises CheckpointError where they allow nothing."""
        config = check_base(folder)
        family = family_of_config(config, folder)
        mixture = family.is_mixture(config)
        stored, no_4bit, note = stored_bits(folder), why_no_4bit(), ""
        if mixture and dtype == torch.float16:
            raise CheckpointError(
                f"{folder}: a mixture of experts, which is not computed in float16; expected cards that compute in "
                "bfloat16 (NVIDIA: compute capability 8 or later)"
            )
        if stored and no_4bit:
            raise CheckpointError(f"{folder}: its weights are in 4 bits, which cannot be read here ({no_4bit})")
        quantization = stored or quantization
        if quantization != "none" and no_4bit:
            note = f"no 4-bit weights here ({no_4bit}): the base is kept in {_name(dtype)}"
            quantization = "none"
        return cls(dtype, quantization, bool(stored), mixture, family, note)

    @property
    def four_bit(self) -> bool:
        return self.quantization != "none"

    @property
    def name(self) -> str:
        """For messages."""
        return "4 bits" if self.four_bit else _name(self.dtype)

    def options(self) -> dict[str, Any]:
        """Arguments of `from_pretrained`. Files in 4 bits say so themselves."""
        if not self.four_bit or self.stored:
            return {}
        from transformers import BitsAndBytesConfig

        config = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=True,
            bnb_4bit_quant_type=self.quantization,
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=self.dtype,
            llm_int8_skip_modules=[*self.family.not_quantized, *self.family.kept_whole],
        )
        return {"quantization_config": config}


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _read_network(folder: Path, form: WeightForm, device: torch.device | None) -> Network:
    """The base from safetensors, on one device, or (None) over all cards. Raises CheckpointError, see `Model.load`."""
    problem = f"no {form.family.name} can be built of it and the weights beside it"
    with _as_checkpoint_error(folder / "config.json", problem):
        if device and reads_ahead(device):
            with closing(WeightReader(folder, device)) as reader:  # it begins while transformers is imported
                network, issues = _build_of(reader, folder, form)
        else:
            options = _options_of(form, {"": device} if device else _map_over_all_cards(folder, form))
            auto_model = _auto_model(form)
            with _bars_for_people():
                network, issues = auto_model.from_pretrained(
                    folder, use_safetensors=True, trust_remote_code=False, **options
                )
    for kind, keys in issues.items():
        if keys:
            raise CheckpointError(
                f"{folder}: {kind.replace('_', ' ')}: {', '.join(map(str, sorted(keys)[:5]))} (of {len(keys)}); "
                "expected weights that fit the configuration exactly"
            )
    _compute_in(network, form)
    return network.requires_grad_(False).eval()


def reads_ahead(device: torch.device) -> bool:
    """Whether threads read a base ahead of transformers: on a CPU it maps the files into memory."""
    return device.type == "cuda"


def _build_of(reader: WeightReader, folder: Path, form: WeightForm) -> tuple[Network, dict[str, Any]]:
    """What `from_pretrained` makes of the folder, from a reader's tensors."""
    auto_model = _auto_model(form)
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    model_class = auto_model._model_mapping[type(config)]  # which takes a state; the class of all models does not
    with _bars_for_people():
        network, issues = model_class.from_pretrained(
            None, config=config, state_dict=reader.state, **_options_of(form, {"": reader.device})
        )
    network.config.name_or_path = str(folder)
    if (folder / "generation_config.json").exists():
        network.generation_config = transformers.GenerationConfig.from_pretrained(folder)
    return network, issues


def _auto_model(form: WeightForm) -> Any:
    """transformers' class for models of this family."""
    import transformers

    return getattr(transformers, form.family.auto_model)


@contextmanager
def _bars_for_people() -> Iterator[None]:
    """Inside, transformers shows no progress bars where stderr is no terminal."""
    from transformers.utils.logging import EmptyTqdm, set_tqdm_hook

    if sys.stderr is not None and sys.stderr.isatty():
        yield
        return
    # tqdm's own bar would start a thread, also where it shows nothing
    before = set_tqdm_hook(lambda _, args, options: EmptyTqdm(*args, **options))  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        set_tqdm_hook(before)


def _options_of(form: WeightForm, device_map: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `from_pretrained`."""
    return {
        "dtype": form.dtype,
        "device_map": device_map,
        "attn_implementation": "sdpa",
        "output_loading_info": True,
        **form.options(),
    }


@contextmanager
def old_names_unsaid() -> Iterator[None]:
    """Inside, PEFT may ask a network for what transformers has given another name, without a warning in the host."""
    from transformers import PreTrainedModel

    old = vars(PreTrainedModel).get("is_gradient_checkpointing")
    new = vars(PreTrainedModel).get("is_activation_checkpointing")
    if old is None or new is None:
        yield
        return
    PreTrainedModel.is_gradient_checkpointing = new  # type: ignore[method-assign]
    try:
        yield
    finally:
        PreTrainedModel.is_gradient_checkpointing = old  # type: ignore[method-assign]


def check_room(weights: BaseWeights, form: WeightForm, free: int) -> None:
    """Raises CheckpointError where weights in this form do not fit into so many bytes, with what would."""
    stored = {name: shape for name, shape in weights.shapes.items() if name in weights.tensors}  # a tied head is not
    plain = {name: math.prod(shape) * form.dtype.itemsize for name, shape in stored.items()}
    quantized = {f"{name}.weight" for name in weights.linear if form.family.is_quantized(name)}
    in_4bit = sum(size * (IN_4BIT / form.dtype.itemsize if name in quantized else 1) for name, size in plain.items())
    needed = in_4bit if form.four_bit else sum(plain.values())
    if needed <= free:
        return
    others = "several cards with --device-map auto, fewer programs on this one, or a smaller base"
    if not form.four_bit and in_4bit <= free and not why_no_4bit():
        others = f"--quantization nf4, in which they take {in_4bit / GIB:.1f} GiB, or {others}"
    raise CheckpointError(
        f"{weights.folder}: its weights take {needed / GIB:.1f} GiB in {form.name}, and {free / GIB:.1f} GiB are free "
        f"on the card; expected room for all of them: {others}"
    )


def _map_over_all_cards(folder: Path, form: WeightForm) -> dict[str, int]:
    free = {card: torch.cuda.mem_get_info(card)[0] for card in range(torch.cuda.device_count())}
    return make_device_map(folder, form.dtype, form.four_bit, free)


def _compute_in(network: Network, form: WeightForm) -> None:
    """Let quantized layers compute in the model's type, whatever type they were stored for."""
    for layer in network.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):  # else bitsandbytes repacks weights that are read here
            layer.support_avx512bf16_for_cpu = False  # and answers a float32 model in bfloat16: logits .05 off
        if form.stored and hasattr(layer, "compute_dtype"):  # that of whoever stored it
            layer.compute_dtype, layer.compute_type_is_set = form.dtype, True


@dataclass
class Model:
    """A base and its adapters. `network` is transformers' module; adapters are injected into it, and `use` switches.

    seconds: what it took to load the base's `weights` and the `adapters`.
    """

    network: Network
    folder: Path
    device: torch.device
    dtype: torch.dtype
    quantization: str  # "nf4", "fp4" or "none"
    notes: list[str]
    seconds: dict[str, float]
    _peft: Any = None  # PEFT's model around `network`, once there is an adapter

    @classmethod
    @loading()
    def load(
        cls,
        folder: Path,
        quantization: str = "nf4",
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> "Model":
        """The base from safetensors. Falls back to 16 bits, with a note, where there is no bitsandbytes.

        While it loads, no other thread loads or answers (see `exclusive`).

        device: the default one where none is given; "auto": over all cards, where there are several. Raises
        DeviceError, and CheckpointError where weights are missing, left over, or of another shape, and where the cards
        have no room.
        """
        start = time.monotonic()
        why_no_4bit()  # before a library imports bitsandbytes by itself
        settle_functions()
        over_cards = device == "auto" and torch.cuda.device_count() > 1
        target = device_of(device)
        form = WeightForm.choose(folder, quantization, dtype or default_dtype(target))
        if target.type == "cuda" and not over_cards:
            check_room(BaseWeights.of(folder), form, free_bytes(target))
        network = _read_network(folder, form, None if over_cards else target)
        notes = [form.note] if form.note else []
        if form.mixture and form.four_bit:
            size = sum(weight.nbytes for name, weight in network.named_parameters() if ".experts." in name)
            notes.append(
                f"the experts stay in {_name(form.dtype)}, {size / GIB:.1f} GiB: only linear layers are quantized"
            )
        if over_cards:
            move_inputs_to_layers(network)
            target, *others = devices_of(network)
            if others:
                notes.append(
                    f"the base lies on {1 + len(others)} cards, which work one after the other: no faster than one of "
                    "them. If it fits on each, torchrun with a process for each card is that many times as fast"
                )
        seconds = {"weights": time.monotonic() - start, "adapters": 0.0}
        return cls(network, folder, target, form.dtype, form.quantization, notes, seconds)

    @cached_property
    def parts(self) -> NetworkParts:
        """Where the network keeps what the engine uses."""
        return parts_of(self.network)

    @property
    def head(self) -> torch.Tensor:
        """(V, D) the rows that turn a hidden state into logits, without an adapter."""
        weight: torch.Tensor = self.network.get_output_embeddings().weight
        return weight

    def head_adapter(self, name: str | None) -> tuple[torch.Tensor, torch.Tensor] | None:
        """(V, R) and (R, D) float32, whose product is added to the head's rows; None where that adapter has none."""
        layer = self.network.get_output_embeddings()
        if name not in getattr(layer, "lora_A", {}):
            return None
        up, down = layer.lora_B[name].weight.data, layer.lora_A[name].weight.data
        return up.float() * layer.scaling[name], down.float()

    @loading()
    def add_adapter(self, checkpoint: Checkpoint, name: str) -> None:
        """Load a checkpoint's LoRA beside the others. Raises CheckpointError where its keys do not fit."""
        from peft import PeftModel, set_peft_model_state_dict
        from safetensors.torch import load_file
        from transformers.initialization import no_init_weights

        start = time.monotonic()
        check = checkpoint.check(BaseWeights.of(self.folder))
        assert checkpoint.adapter is not None  # of a base alone there is nothing to add
        config = lora_config(checkpoint.adapter, check)
        with no_init_weights(), old_names_unsaid():  # every value of a new layer comes from the file
            if self._peft is None:
                self._peft = PeftModel(self.network, config, adapter_name=name)
            else:
                self._peft.add_adapter(name, config)
        with _as_checkpoint_error(checkpoint.folder / ADAPTER_FILE, "it cannot be read"):
            weights = load_file(checkpoint.folder / ADAPTER_FILE)
        state = {f"base_model.model.{module}.{part}": weights[key] for key, (module, part) in check.keys.items()}
        with _as_checkpoint_error(checkpoint.folder / ADAPTER_FILE, "its weights do not fit the base"):
            result: Any = set_peft_model_state_dict(self._peft, state, adapter_name=name)
        lost = [key for key in result.missing_keys if f".{name}." in key] + list(result.unexpected_keys)
        if lost:
            raise CheckpointError(
                f"{checkpoint.folder}: {len(lost)} weights did not arrive in the model: {', '.join(lost[:5])}"
            )
        self.network.eval().requires_grad_(False)
        self.seconds["adapters"] += time.monotonic() - start

    @property
    def adapters(self) -> list[str]:
        """The names of the loaded adapters."""
        return list(self._peft.peft_config) if self._peft else []

    def use(self, name: str | None) -> None:
        """Switch to one adapter; None: the base alone."""
        if self._peft is None:
            return
        if name is None:
            self._peft.base_model.disable_adapter_layers()
        else:
            self._peft.base_model.enable_adapter_layers()
            self._peft.set_adapter(name, inference_mode=True)
