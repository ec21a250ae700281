"""What lies in safetensors files: names, shapes, fingerprints, and what a quantized base stores. Nothing is loaded.

A base may hold its weights in 16 or 32 bits, or in bitsandbytes' 4 bits, as `…-bnb-4bit` folders do. There a weight is
stored as packed bytes, with its shape and kind in a small JSON tensor beside it. Every other way to quantize is refused
by the name that `config.json` gives.
"""

import hashlib
import json
import math
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from scoring.files.reading import FileError, read_json, read_object

MIXTURE = "qwen3_vl_moe"  # of experts
MODEL_TYPES = ("qwen3_vl", MIXTURE)
FLOATS = ("F32", "BF16", "F16", "F64")  # safetensors' names
ITEM_SIZES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "I64": 8, "I32": 4, "I8": 1, "U8": 1, "BOOL": 1}
ROUTER = ".mlp.gate"  # of a mixture: two-dimensional, but no linear layer
HEAD_WEIGHT, TABLE = "lm_head.weight", "model.language_model.embed_tokens.weight"
STATE = ".quant_state.bitsandbytes__"  # a tensor of JSON beside each packed weight
PACKED_PARTS = re.compile(r"\.(absmax|quant_map|nested_absmax|nested_quant_map|quant_state\.bitsandbytes__\w+)$")
CACHED = 64 * 2**20  # bytes from which on a file's digest is remembered
BLOCK = 16 * 2**20


class CheckpointError(FileError):
    """A base or checkpoint that cannot be used; the message says which, why, and what to do."""


# ------------------------------------------------------------------ one file
def read_header(path: Path) -> dict[str, dict]:
    """Tensor name -> dtype, shape, data_offsets, and `start`, its place in the file.

    Raises CheckpointError for a truncated or foreign file, and for entries that contradict themselves.
    """
    size = path.stat().st_size
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(size - 8, 100_000_000):
                raise ValueError("no safetensors header")
            header = json.loads(file.read(length))
        if not isinstance(header, dict):
            raise ValueError("no safetensors header")
    except (ValueError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a safetensors file, or cut off ({error}); copy it again") from None
    header.pop("__metadata__", None)
    if wrong := [name for name, entry in header.items() if not _is_entry(entry)]:
        raise CheckpointError(f"{path}: its header describes {first_names(wrong)} in no way that can be; copy it again")
    end = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if end != size:
        raise CheckpointError(
            f"{path}: {size:,} bytes, but its header describes {end:,}; it was cut off, or added to: copy it again"
        )
    for entry in header.values():
        entry["start"] = 8 + length + entry["data_offsets"][0]
    return header


def _is_entry(entry: object) -> bool:
    """Whether a header's entry has a type, a shape and offsets that belong together."""
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str):
        return False
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    if not isinstance(shape, list) or not isinstance(offsets, list) or len(offsets) != 2:
        return False
    if not all(type(number) is int and number >= 0 for number in (*shape, *offsets)) or offsets[0] > offsets[1]:
        return False
    size = ITEM_SIZES.get(entry["dtype"])
    return size is None or offsets[1] - offsets[0] == math.prod(shape) * size


def first_names(names: list[str]) -> str:
    """The first five, and how many more there are, for a message."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def tensor_bytes(path: Path, entry: dict, first: int | None = None) -> bytes:
    """A tensor's bytes, or the first so many of them, by its entry in `read_header`."""
    size = entry["data_offsets"][1] - entry["data_offsets"][0]
    with open(path, "rb") as file:
        file.seek(entry["start"])
        return file.read(size if first is None else min(size, first))


def values_of(path: Path, entry: dict, first: int | None = None) -> np.ndarray:
    """A tensor of floats as (N,) float32 or float64, flat; or the first so many of its values."""
    data = tensor_bytes(path, entry, first and first * ITEM_SIZES[entry["dtype"]])
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


def weight_files(folder: Path) -> list[Path]:
    """What transformers reads: `model.safetensors`, else the files that an index names. Raises CheckpointError."""
    if (whole := folder / "model.safetensors").exists():
        return [whole]
    named, there = shard_names(folder), sorted(folder.glob("*.safetensors"))
    if not there:
        raise CheckpointError(f"{folder}: no safetensors weights; expected model.safetensors or its shards")
    if missing := sorted(named - {path.name for path in there}):
        raise CheckpointError(f"{folder}: missing {first_names(missing)}; the download is not complete")
    if not named:
        raise CheckpointError(
            f"{folder}: {first_names([path.name for path in there])}, but neither model.safetensors nor an index that "
            "says which of them belong together"
        )
    return [path for path in there if path.name in named]


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
        headers = {path: read_header(path) for path in weight_files(folder)}
        tensors = {name: (path, entry) for path, header in headers.items() for name, entry in header.items()}
        weights = cls(folder, read_json(folder / "config.json") or {}, tensors)
        weights._refuse_odd_types()
        return weights

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
                except (ValueError, KeyError, TypeError, OverflowError):
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
        if HEAD_WEIGHT not in shapes and (table := shapes.get(TABLE)):
            shapes[HEAD_WEIGHT] = table
        return shapes

    @property
    def linear(self) -> list[str]:
        """The linear layers, and nothing else that an adapter could sit on."""
        others = ("embed_tokens", "pos_embed", *([ROUTER] if self.config.get("model_type") == MIXTURE else []))
        names = (name.removesuffix(".weight") for name, shape in self.shapes.items() if len(shape) == 2)
        return [name for name in names if f"{name}.weight" in self.shapes and not name.endswith(others)]

    def _refuse_odd_types(self) -> None:
        for name, (path, entry) in self.tensors.items():
            if entry["dtype"] not in FLOATS and name not in self.packed and not PACKED_PARTS.search(name):
                raise CheckpointError(
                    f"{path}: {name} is stored as {entry['dtype']}; expected weights in BF16, F16 or F32, or in "
                    "bitsandbytes' 4 bits"
                )
        stored = stored_bits(self.folder, self.config)
        if bool(self.packed) != bool(stored):
            says, are = ("", "none is") if stored else ("no ", f"so stored: {first_names(sorted(self.packed))}")
            raise CheckpointError(
                f"{self.folder}: config.json tells of {says}weights in 4 bits, but {are}; expected files of one model"
            )
        if HEAD_WEIGHT in self.packed:
            raise CheckpointError(
                f"{self.folder}: its lm_head is in 4 bits too, which is not supported: name another base"
            )


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
def file_digests(paths: list[Path]) -> list[str]:
    """SHA-256 of each file's content. Large files are read once: their digests are remembered by size and times."""
    states = [_state(path) for path in paths]
    known = _remembered() if any(state[1] >= CACHED for state in states) else {}
    with ThreadPoolExecutor(4) as pool:
        digests = list(pool.map(lambda each: known.get(each[1]) or _digest(str(each[0]), each[1]), zip(paths, states)))
    new = {state: digest for state, digest in zip(states, digests) if state[1] >= CACHED and state not in known}
    if new:
        _remember(new)
    return digests


def _state(path: Path) -> tuple:
    """What changes with a file's content, and stays where only its folder is renamed."""
    about = path.stat()
    return f"{about.st_dev}-{about.st_ino}", about.st_size, about.st_mtime_ns, about.st_ctime_ns


@lru_cache(maxsize=256)
def _digest(path: str, state: tuple) -> str:
    """state: so that a file that changes is read again."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def cache_folder() -> Path:
    """Where what can be made again is kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "logit-scoring"


def _remembered() -> dict[tuple, str]:
    try:
        entries = json.loads((cache_folder() / "digests.json").read_text("utf-8"))["files"]
        return {(key, *state): digest for key, *state, digest in entries}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _remember(digests: dict[tuple, str]) -> None:
    """For the next run; a folder that cannot be written costs that run its time, and nothing else."""
    from scoring.files.writing import write_json

    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        with FileLock(cache_folder() / "digests.lock", timeout=10):
            entries = [[*state, digest] for state, digest in (_remembered() | digests).items()]
            write_json(cache_folder() / "digests.json", {"files": entries})
    except (OSError, Timeout):
        return


def base_fingerprint(folder: Path) -> str:
    """16 hexadecimal digits of a base: of its configuration and of every byte of its weights."""
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    files = weight_files(folder)
    for path, content in zip(files, file_digests(files)):
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


# The 16 values of NF4, by Dettmers et al., QLoRA, 2023.
NF4 = np.array(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
        *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ],
    np.float32,
)
COMPARED, CODES_APART = 8, 0.01  # linear layers whose first block of 64 weights is compared; share that may differ


def nf4_codes(weights: BaseWeights) -> str:
    """Hexadecimal digits: the NF4 codes of the first 64 weights of some linear layers, as stored, or as they would be.

    The same for a model in 16 bits and in NF4 but for roundings, and others for a model that was trained further. ""
    for a base that is stored in 4 bits of another kind.
    """
    names = sorted(name for name in weights.linear if ".language_model.layers." in name)
    chosen = [names[round(share)] for share in np.linspace(0, len(names) - 1, COMPARED)] if names else []
    codes = ""
    for name in (f"{name}.weight" for name in chosen):
        path, entry = weights.tensors[name]
        if state := weights.packed.get(name):
            if state.get("quant_type") != "nf4" or state.get("blocksize") != 64:
                return ""
            codes += tensor_bytes(path, entry, 32).hex()
            continue
        block = values_of(path, entry, 64).astype(np.float32)
        scaled = block / max(np.abs(block).max(), 1e-30)
        codes += "".join(f"{code:x}" for code in np.abs(scaled[:, None] - NF4).argmin(1))
    return codes


def same_codes(ours: str, theirs: str) -> bool:
    """Whether two of `nf4_codes` are of one model."""
    if not ours or len(ours) != len(theirs):
        return False
    return sum(a != b for a, b in zip(ours, theirs)) <= CODES_APART * len(ours)
