"""What lies in safetensors files: names, shapes, fingerprints, and what a quantized base stores. Nothing is loaded.

A base may hold its weights in 16 or 32 bits, or in bitsandbytes' 4 bits, as `…-bnb-4bit` folders do. There a weight is
stored as packed bytes, with its shape and kind in a small JSON tensor beside it. Every other way to quantize is refused
by the name that `config.json` gives.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from scoring.inputs.objects import FileError, read_json, read_object

MIXTURE = "qwen3_vl_moe"  # of experts
MODEL_TYPES = ("qwen3_vl", MIXTURE)
FLOATS = ("F32", "BF16", "F16", "F64")  # safetensors' names
STATE = ".quant_state.bitsandbytes__"  # a tensor of JSON beside each packed weight
PACKED_PARTS = re.compile(r"\.(absmax|quant_map|nested_absmax|nested_quant_map|quant_state\.bitsandbytes__\w+)$")
CACHED = 64 * 2**20  # bytes from which on a file's digest is remembered
BLOCK = 16 * 2**20


class CheckpointError(FileError):
    """A base or checkpoint that cannot be used; the message says which, why, and what to do."""


# ------------------------------------------------------------------ one file
def read_header(path: Path) -> dict[str, dict]:
    """Tensor name -> dtype, shape and place in the file. Raises CheckpointError for a truncated or foreign file."""
    size = path.stat().st_size
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(size - 8, 100_000_000):
                raise ValueError("no safetensors header")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        end = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: not a safetensors file, or cut off ({error}); copy it again") from None
    if end != size:
        raise CheckpointError(
            f"{path}: {size:,} bytes, but its header tells of {end:,}; the file was cut off: copy it again"
        )
    for entry in header.values():
        entry["start"] = 8 + length + entry["data_offsets"][0]
    return header


def tensor_bytes(path: Path, entry: dict) -> bytes:
    """A tensor's bytes, by its entry in `read_header`."""
    with open(path, "rb") as file:
        file.seek(entry["start"])
        return file.read(entry["data_offsets"][1] - entry["data_offsets"][0])


def values_of(path: Path, entry: dict) -> np.ndarray:
    """A tensor of floats as (N,) float32 or float64, flat."""
    data = tensor_bytes(path, entry)
    if entry["dtype"] == "BF16":  # numpy has no such type: the upper half of a float32
        return (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
    if entry["dtype"] == "F64":
        return np.frombuffer(data, np.float64)
    return np.frombuffer(data, {"F16": np.float16, "F32": np.float32}[entry["dtype"]]).astype(np.float32, copy=False)


# ------------------------------------------------------------------ a folder of weights
@dataclass
class _Index:
    weight_map: dict[str, str]


def shard_names(folder: Path) -> set[str]:
    """The files that an index names. Raises FileError where one is not beside it: a library would read it anywhere."""
    path = folder / "model.safetensors.index.json"
    index = read_object(_Index, path)
    names = set(index.weight_map.values()) if index else set()
    if outside := sorted(name for name in names if not re.fullmatch(r"[\w.-]+\.safetensors", name)):
        raise CheckpointError(f"{path}: names {', '.join(outside[:5])}; expected safetensors files beside it alone")
    return names


@dataclass
class BaseWeights:
    """The weights of a model folder, from its configuration and the headers of its (sharded) safetensors files.

    tensors: the name of every stored tensor -> (its file, its entry in the header).
    """

    folder: Path
    config: dict
    tensors: dict[str, tuple[Path, dict]]

    @classmethod
    def of(cls, folder: Path) -> "BaseWeights":
        """Raises CheckpointError where there are none, where shards are missing, or of types that are not known."""
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise CheckpointError(f"{folder}: no safetensors weights; expected model.safetensors or its shards")
        named = shard_names(folder)
        if missing := sorted(named - {path.name for path in files}):
            raise CheckpointError(f"{folder}: missing {', '.join(missing)}; the download is not complete")
        files = [path for path in files if not named or path.name in named]
        tensors = {name: (path, entry) for path in files for name, entry in read_header(path).items()}
        found = cls(folder, read_json(folder / "config.json") or {}, tensors)
        found._refuse_odd_types()
        return found

    @cached_property
    def packed(self) -> dict[str, dict]:
        """Weight in 4 bits -> what bitsandbytes says of it: quant_type, blocksize, shape, dtype and others."""
        states = {}
        for name, (path, entry) in self.tensors.items():
            weight, _, kind = name.partition(STATE)
            if kind:
                try:
                    states[weight] = json.loads(tensor_bytes(path, entry))
                    states[weight]["shape"] = tuple(int(side) for side in states[weight]["shape"])
                except (ValueError, KeyError, TypeError):
                    raise CheckpointError(
                        f"{path}: {name} does not say how {weight} is packed; the file is damaged"
                    ) from None
        return states

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of every weight as the model has it: unpacked, and with the head where it is the embeddings."""
        shapes = {
            name: self.packed.get(name, {}).get("shape") or tuple(entry["shape"])
            for name, (_, entry) in self.tensors.items()
            if not PACKED_PARTS.search(name)
        }
        if "lm_head.weight" not in shapes and (table := shapes.get("model.language_model.embed_tokens.weight")):
            shapes["lm_head.weight"] = table
        return shapes

    @property
    def linear(self) -> list[str]:
        """The linear layers, and nothing else that an adapter could sit on."""
        tables = ("embed_tokens", "pos_embed")
        names = (name.removesuffix(".weight") for name, shape in self.shapes.items() if len(shape) == 2)
        return [name for name in names if f"{name}.weight" in self.shapes and not name.endswith(tables)]

    def _refuse_odd_types(self) -> None:
        for name, (path, entry) in self.tensors.items():
            if entry["dtype"] not in FLOATS and name not in self.packed and not PACKED_PARTS.search(name):
                raise CheckpointError(
                    f"{path}: {name} is stored as {entry['dtype']}; expected weights in BF16, F16 or F32, or in "
                    "bitsandbytes' 4 bits"
                )


def weight_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of all weights of a model folder, see `BaseWeights`."""
    return BaseWeights.of(folder).shapes


# ------------------------------------------------------------------ what kind of base
def check_base(folder: Path) -> dict:
    """The base's `config.json`. Raises CheckpointError where this is no Qwen3-VL, or quantized in a way not known."""
    config = read_json(folder / "config.json")
    if config is None:
        raise CheckpointError(f"{folder}: no config.json; expected a Qwen3-VL model folder")
    if config.get("model_type") not in MODEL_TYPES:
        raise CheckpointError(f"{folder}: model type {config.get('model_type')!r}; expected {' or '.join(MODEL_TYPES)}")
    shard_names(folder)
    stored_bits(folder, config)
    return config


def stored_bits(folder: Path, config: dict | None = None) -> str:
    """How a base is stored: "" in 16 or 32 bits, `nf4` or `fp4` in bitsandbytes' 4 bits.

    Raises CheckpointError, with the name that `quantization_config` gives, where it is quantized in another way.
    """
    config = read_json(folder / "config.json") or {} if config is None else config
    text = config.get("text_config")
    about = config.get("quantization_config") or (text.get("quantization_config") if isinstance(text, dict) else None)
    if not about:
        return ""
    about = about if isinstance(about, dict) else {"quant_method": str(about)}
    method = str(about.get("quant_method") or ("bitsandbytes" if "load_in_4bit" in about else "an unnamed method"))
    if method.startswith("bitsandbytes") and (about.get("load_in_4bit") or about.get("_load_in_4bit")):
        kind = about.get("bnb_4bit_quant_type", "fp4")
        if kind in ("nf4", "fp4"):
            return kind
    if method.startswith("bitsandbytes"):
        method = "bitsandbytes in 8 bits" if about.get("load_in_8bit") or about.get("_load_in_8bit") else str(about)
    raise CheckpointError(
        f"{folder}: its weights are quantized by {method} (quantization_config in config.json), which is not "
        "supported; expected weights in 16 or 32 bits, or in bitsandbytes' 4 bits: name the model that it was made from"
    )


# ------------------------------------------------------------------ fingerprints
def file_digest(path: Path) -> str:
    """SHA-256 of a file's content. A large file is read once: its digest is remembered by its size and times."""
    about = path.stat()
    key = str(path.resolve())
    state = [about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino]
    if about.st_size >= CACHED and (known := _remembered().get(key)) and known[:-1] == state:
        return known[-1]
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while block := file.read(BLOCK):
            digest.update(block)
    if about.st_size >= CACHED:
        _remember(key, [*state, digest.hexdigest()])
    return digest.hexdigest()


def cache_folder() -> Path:
    """Where what can be made again is kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "logit-scoring"


def _remembered() -> dict[str, list]:
    try:
        known = json.loads((cache_folder() / "digests.json").read_text("utf-8"))
        return {key: value for key, value in known.items() if isinstance(value, list) and len(value) == 5}
    except (OSError, ValueError, AttributeError):
        return {}


def _remember(key: str, value: list) -> None:
    """For the next run; a folder that cannot be written costs that run its time, and nothing else."""
    from scoring.results.files import write_json

    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        write_json(cache_folder() / "digests.json", _remembered() | {key: value})
    except OSError:
        return


def base_fingerprint(folder: Path) -> str:
    """16 hexadecimal digits of a base: of its configuration and of every byte of its weights."""
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    files = sorted(folder.glob("*.safetensors"))
    with ThreadPoolExecutor(4) as pool:
        for path, content in zip(files, pool.map(file_digest, files)):
            digest.update(f"{path.name} {content}".encode())
    return digest.hexdigest()[:16]


def sampled_fingerprint(folder: Path) -> str:
    """What checkpoints and calibrations recorded before every byte counted: of each file the header and 16 samples."""
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with open(path, "rb") as file:
            for share in range(17):
                file.seek(max(0, size - 65536) * share // 16)
                digest.update(file.read(65536))
    return digest.hexdigest()[:16]


def norms_digest(weights: BaseWeights) -> str:
    """16 hexadecimal digits of the language model's norms, which no quantization touches: the same for a model in 16
    and in 4 bits, and another for every model that was trained further as a whole."""
    digest = hashlib.sha256()
    for name, values in sorted(_norms(weights)):
        digest.update(name.encode() + values.tobytes())
    return digest.hexdigest()[:16]


def _norms(weights: BaseWeights) -> Iterator[tuple[str, np.ndarray]]:
    for name, (path, entry) in weights.tensors.items():
        if "language_model" in name and name.endswith("norm.weight") and entry["dtype"] in FLOATS:
            yield name, values_of(path, entry).astype(np.float32)
