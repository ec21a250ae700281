"""The weights of a base and an adapter together, one at a time: what `export` writes."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from scoring.checkpoints.adapter import ADAPTER_FILE, LORA_A, LORA_B, MAGNITUDE, names_of
from scoring.checkpoints.checkpoint import Checkpoint
from scoring.checkpoints.quantization import why_no_4bit
from scoring.checkpoints.weights import BaseWeights, CheckpointError, StoredTensor, stored_bits
from scoring.inputs.families.family import HEAD, HEAD_WEIGHT

ROWS_AT_ONCE = 16_384  # of a weight that an adapter is added to


class MergeBase:
    """The weights of a base as `score` multiplies with them: in 16 or 32 bits, or what their 4 bits stand for."""

    def __init__(self, weights: BaseWeights, quantization: str):
        self.weights, self.quantization = weights, quantization
        self._stored_in_4bit = bool(stored_bits(weights.folder))
        self._linear = set(weights.linear)

    def tensor(self, name: str) -> torch.Tensor:
        """One weight, in the base's dtype or in float32."""
        weight = _read_tensor(self.weights.tensors[name])
        if name in self.weights.packed:
            return self._unpacked(name, weight)
        return _through_4bit(weight, self.quantization) if self._is_quantized(name) else weight

    def _is_quantized(self, name: str) -> bool:
        """Whether a base in 16 bits is loaded with this weight in 4 bits."""
        module = name.removesuffix(".weight")
        if self._stored_in_4bit or self.quantization == "none":
            return False
        return module in self._linear and self.weights.family.is_quantized(module)

    def _unpacked(self, name: str, packed: torch.Tensor) -> torch.Tensor:
        from bitsandbytes.functional import QuantState, dequantize_4bit

        prefix = f"{name}."
        parameters = {
            key.removeprefix(prefix): _read_tensor(tensor)
            for key, tensor in self.weights.tensors.items()
            if key.startswith(prefix)
        }
        state = QuantState.from_dict(parameters, torch.device("cpu"))
        state.dtype = torch.float32
        unpacked: torch.Tensor = dequantize_4bit(packed, state)
        return unpacked.view(*self.weights.packed[name].shape)


class MergeAdapter:
    """An adapter's factors by the base's modules, in float32. Raises CheckpointError where it does not fit the base."""

    def __init__(self, checkpoint: Checkpoint, weights: BaseWeights):
        self._checkpoint = checkpoint
        self._key_of = {location: key for key, location in checkpoint.check(weights).keys.items()}

    def adapts(self, module: str) -> bool:
        """Whether the module has an adapter."""
        return (module, LORA_A) in self._key_of

    def add(self, module: str, weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """The module's (N, K) weight with the adapter added, in `dtype`: W + s·B·A, with DoRA at its magnitude."""
        config = self._checkpoint.require_adapter()
        scaling = config.scaling(*names_of(module, self._key_of[module, LORA_A]))
        down, up = self._read(module, LORA_A), self._read(module, LORA_B) * scaling
        magnitude = self._read(module, MAGNITUDE) if config.use_dora else None
        merged = torch.empty(weight.shape, dtype=dtype)
        for start in range(0, len(weight), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            total = torch.addmm(weight[rows].float(), up[rows], down)
            if magnitude is not None:
                total *= (magnitude[rows] / total.norm(dim=1))[:, None]
            merged[rows] = total.to(dtype)
        return merged

    def _read(self, module: str, parameter: str) -> torch.Tensor:
        return _read_key(self._checkpoint.folder / ADAPTER_FILE, self._key_of[module, parameter]).float()


class Merge:
    """The weights of base and adapter together, one at a time. names: of the exported model's weights."""

    def __init__(self, checkpoint: Checkpoint, base: MergeBase, dtype: torch.dtype):
        self.checkpoint, self.base, self.weights, self.dtype = checkpoint, base, base.weights, dtype
        self.quantization = base.quantization
        if self.quantization != "none" and (reason := why_no_4bit()):
            raise CheckpointError(
                f"{checkpoint.folder}: it is used on a base in 4 bits, which cannot be read here ({reason}); "
                "--quantization none adds the adapter to the weights in 16 bits, which gives other answers"
            )
        self.adapter = MergeAdapter(checkpoint, self.weights)
        self.names = [name for name in self.weights.shapes if name in self.weights.tensors]
        self.notes: list[str] = []
        self._head_apart = HEAD_WEIGHT not in self.weights.tensors and self.adapter.adapts(HEAD)
        if self._head_apart:
            self.names.append(HEAD_WEIGHT)
            self.notes.append(
                "the head has an adapter, so it is written separately: in the base it shares the embeddings"
            )
        if self.quantization != "none" and checkpoint.adapter:
            self.notes.append(
                f"the adapter was added to what the base's 4 bits ({self.quantization}) stand for, as `score` does; "
                "score the exported model with no --quantization"
            )

    def check_names(self) -> None:
        """Raises CheckpointError where the configuration's model has other weights: it could not be loaded."""
        import transformers

        with torch.device("meta"):
            config = transformers.AutoConfig.from_pretrained(self.weights.folder, trust_remote_code=False)
            config.quantization_config = None
            auto_model: Any = getattr(transformers, self.weights.family.auto_model)
            network: torch.nn.Module = auto_model.from_config(config, trust_remote_code=False)
        expected, written = set(network.state_dict()), set(map(self.weights.family.parameter_name, self.names))
        if (
            HEAD_WEIGHT not in written
            and self.weights.family.embeddings in written
            and getattr(config, "tie_word_embeddings", False)  # by default too, where the file does not say
        ):
            expected.discard(HEAD_WEIGHT)
        if wrong := sorted(expected ^ written):
            raise CheckpointError(
                f"{self.weights.folder}: its weights are not those of its config.json: {', '.join(wrong[:5])} (of "
                f"{len(wrong)}); expected weights that fit the configuration exactly"
            )

    def file_name(self, name: str) -> str:
        """The name of one weight in the exported files: that in the base's."""
        tensor = self.weights.tensors.get(name)
        return tensor.name if tensor else name

    def bytes_of(self, name: str) -> int:
        """The bytes of one weight of the exported model."""
        return self.dtype.itemsize * math.prod(self.weights.shapes[name])

    def config(self) -> dict[str, Any]:
        """The base's `config.json` for the exported weights."""
        config: dict[str, Any] = json.loads(json.dumps(self.weights.config))
        dtype = str(self.dtype).removeprefix("torch.")
        for section in (config, config.get("text_config"), config.get("vision_config")):
            if isinstance(section, dict):
                section.pop("quantization_config", None)
                section.pop("torch_dtype", None)
                if "dtype" in section or section is config:
                    section["dtype"] = dtype
                if HEAD_WEIGHT in self.names and (section is config or "tie_word_embeddings" in section):
                    section["tie_word_embeddings"] = False
        return config

    def tensor(self, name: str) -> torch.Tensor:
        """One weight of the exported model."""
        weight = self.base.tensor(self.weights.family.embeddings if name == HEAD_WEIGHT and self._head_apart else name)
        module = name.removesuffix(".weight")
        if self.adapter.adapts(module):
            return self.adapter.add(module, weight, self.dtype)
        return weight.to(self.dtype).contiguous()


def _read_tensor(tensor: StoredTensor) -> torch.Tensor:
    return _read_key(tensor.path, tensor.name)


def _read_key(path: Path, key: str) -> torch.Tensor:
    with safe_open(path, "pt") as file:
        tensor: torch.Tensor = file.get_tensor(key)
        return tensor


def _through_4bit(weight: torch.Tensor, kind: str) -> torch.Tensor:
    """A weight of a base in 16 bits, quantized to 4 bits and back, as `Model.load` quantizes it; float32."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    packed, state = quantize_4bit(weight.float(), blocksize=64, compress_statistics=True, quant_type=kind)
    state.dtype = torch.float32
    unpacked: torch.Tensor = dequantize_4bit(packed, state)
    return unpacked.view(weight.shape)
