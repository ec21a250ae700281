"""Safetensors files: names, shapes and fingerprints of weights, and what a quantized base stores. Loads no model.

A base holds its weights in 16 or 32 bits, or in bitsandbytes' 4 bits, as `…-bnb-4bit` folders do. A 4-bit weight is
stored as packed bytes, with its shape and kind in a small JSON tensor beside it. Any other quantization is refused by
the name that `config.json` gives it.
"""

import hashlib
import json
import math
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from scoring.errors import ScoringError
from scoring.files.cache import cache_folder
from scoring.files.reading import FileError, read_json, read_object
from scoring.inputs.families.family import HEAD, HEAD_WEIGHT, Family
from scoring.inputs.families.registry import FamilyError, family_of_config

FLOATS = ("F32", "BF16", "F16", "F64")  # safetensors' names
ITEM_SIZES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "I64": 8, "I32": 4, "I8": 1, "U8": 1, "BOOL": 1}
STATE = ".quant_state.bitsandbytes__"  # a tensor of JSON beside each packed weight
PACKED_PARAMETERS = re.compile(r"\.(absmax|quant_map|nested_absmax|nested_quant_map|quant_state\.bitsandbytes__\w+)$")
CACHED = 64 * 2**20  # bytes: the digests of files that are at least so large are remembered between runs
BLOCK, HASHED = 16 * 2**20, 16  # bytes that are read at once, and files

Floats = NDArray[np.float32] | NDArray[np.float64]


class CheckpointError(FileError):
    """A base or checkpoint that cannot be used; the message says which, why, and what to do."""


# ------------------------------------------------------------------ one file
@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a safetensors file, as the file's header describes it."""

    path: Path
    name: str  # in the file
    dtype: str  # safetensors' name of it
    shape: tuple[int, ...]
    start: int  # of its bytes in the file
    size: int  # in bytes

    def read_bytes(self, limit: int | None = None) -> bytes:
        """Its bytes; with `limit` the first of them only."""
        with open(self.path, "rb") as file:
            file.seek(self.start)
            return file.read(self.size if limit is None else min(self.size, limit))

    def read_values(self, limit: int | None = None) -> Floats:
        """(N,) float32 or float64: a tensor of floats, flat; with `limit` the first of its values only."""
        data = self.read_bytes(None if limit is None else limit * ITEM_SIZES[self.dtype])
        if self.dtype == "BF16":  # numpy has no such type: the upper half of a float32
            return (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
        if self.dtype == "F64":
            return np.frombuffer(data, np.float64)
        if self.dtype == "F16":
            return np.frombuffer(data, np.float16).astype(np.float32)
        return np.frombuffer(data, np.float32)


def read_header(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file by name.

    Raises CheckpointError for a truncated or foreign file, and for entries that contradict themselves.
    """
    entries, start = _read_entries(path)
    if wrong := [name for name, entry in entries.items() if not _is_entry(entry)]:
        raise CheckpointError(f"{path}: its header describes {first_names(wrong)} in an impossible way; copy it again")
    tensors = {}
    for name, entry in entries.items():
        first, last = entry["data_offsets"]
        tensors[name] = StoredTensor(path, name, entry["dtype"], tuple(entry["shape"]), start + first, last - first)
    end = max((tensor.start + tensor.size for tensor in tensors.values()), default=start)
    size = path.stat().st_size
    if end != size:
        raise CheckpointError(
            f"{path}: {size:,} bytes, but its header describes {end:,}; it was cut off, or added to: copy it again"
        )
    return tensors


def _read_entries(path: Path) -> tuple[dict[str, Any], int]:
    """The entries of a file's header, unchecked, and where in the file their data begin."""
    size = path.stat().st_size
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(size - 8, 100_000_000):
                raise ValueError("no safetensors header")
            entries = json.loads(file.read(length))
        if not isinstance(entries, dict):
            raise ValueError("no safetensors header")
    except (ValueError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a safetensors file, or cut off ({error}); copy it again") from None
    entries.pop("__metadata__", None)
    return entries, 8 + length


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
    """The first five names, and how many more there are, for a message."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


# ------------------------------------------------------------------ a folder of weights
@dataclass
class _Index:
    weight_map: dict[str, str]


def shard_names(folder: Path) -> set[str]:
    """The files that an index names.

    Raises FileError where it names one outside the folder: a library would read it anywhere on the machine.
    """
    path = folder / "model.safetensors.index.json"
    index = read_object(_Index, path)
    names = set(index.weight_map.values()) if index else set()
    if outside := sorted(name for name in names if not re.fullmatch(r"[\w.-]+\.safetensors", name)):
        raise CheckpointError(f"{path}: names {', '.join(outside[:5])}; expected safetensors files beside it only")
    return names


def weight_files(folder: Path) -> list[Path]:
    """What transformers reads: `model.safetensors`, else the files that an index names. Raises CheckpointError."""
    if (whole := folder / "model.safetensors").exists():
        return [whole]
    named, paths = shard_names(folder), sorted(folder.glob("*.safetensors"))
    if not paths:
        raise CheckpointError(f"{folder}: no safetensors weights; expected model.safetensors or its shards")
    if missing := sorted(named - {path.name for path in paths}):
        raise CheckpointError(f"{folder}: missing {first_names(missing)}; the download is not complete")
    if not named:
        raise CheckpointError(
            f"{folder}: {first_names([path.name for path in paths])}, but neither model.safetensors nor an index that "
            "says which of them belong together"
        )
    return [path for path in paths if path.name in named]


@dataclass(frozen=True)
class PackedState:
    """How bitsandbytes packed a weight into 4 bits. shape: of the weight as the model has it."""

    shape: tuple[int, ...]
    kind: object  # "nf4" or "fp4", as the file says
    block_size: object

    @classmethod
    def of(cls, tensor: StoredTensor) -> "PackedState":
        """From the tensor of JSON beside the weight. Raises ValueError, KeyError, TypeError or OverflowError."""
        values = json.loads(tensor.read_bytes())
        shape = tuple(int(side) for side in values["shape"])
        return cls(shape, values.get("quant_type"), values.get("blocksize"))


@dataclass
class BaseWeights:
    """The weights of a model folder, from its configuration and the headers of its (sharded) safetensors files.

    family: what model it is. tensors: every stored tensor of the network by its module's name, which the file
    may spell otherwise.
    """

    folder: Path
    config: dict[str, Any]
    family: Family
    tensors: dict[str, StoredTensor]

    @classmethod
    def of(cls, folder: Path) -> "BaseWeights":
        """Raises CheckpointError where there are no weights, a shard is missing, or a type is not supported."""
        tensors: dict[str, StoredTensor] = {}
        config = check_base(folder)
        family = _family(config, folder)
        for path in weight_files(folder):
            tensors |= {
                family.module_name(name): tensor
                for name, tensor in read_header(path).items()
                if not name.startswith(family.unread)
            }
        weights = cls(folder, config, family, tensors)
        weights._refuse_types()
        weights._refuse_contradictions()
        return weights

    @cached_property
    def packed(self) -> dict[str, PackedState]:
        """The weights that are stored in 4 bits."""
        states = {}
        for name, tensor in self.tensors.items():
            weight, _, kind = name.partition(STATE)
            if kind:
                try:
                    states[weight] = PackedState.of(tensor)
                except (ValueError, KeyError, TypeError, OverflowError):
                    raise CheckpointError(
                        f"{tensor.path}: {name} does not say how {weight} is packed; the file is damaged"
                    ) from None
        return states

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of each weight of the model: unpacked, and with the head also where it is the embeddings."""
        shapes = {
            name: (self.packed[name].shape if name in self.packed else ()) or tensor.shape
            for name, tensor in self.tensors.items()
            if not PACKED_PARAMETERS.search(name)
        }
        if HEAD_WEIGHT not in shapes and (embeddings := shapes.get(self.family.embeddings)):
            shapes[HEAD_WEIGHT] = embeddings
        return shapes

    @property
    def linear(self) -> list[str]:
        """The linear layers, without other two-dimensional weights such as embeddings."""
        others = self.family.others(self.config)
        names = (name.removesuffix(".weight") for name, shape in self.shapes.items() if len(shape) == 2)
        return [
            name
            for name in names
            if f"{name}.weight" in self.shapes and not name.endswith(others) and self.family.experts not in name
        ]

    def _refuse_types(self) -> None:
        """Raises CheckpointError for weights that are stored in a type that is not supported."""
        for name, tensor in self.tensors.items():
            if tensor.dtype not in FLOATS and name not in self.packed and not PACKED_PARAMETERS.search(name):
                raise CheckpointError(
                    f"{tensor.path}: {name} is stored as {tensor.dtype}; expected weights in BF16, F16 or F32, or in "
                    "bitsandbytes' 4 bits"
                )

    def _refuse_contradictions(self) -> None:
        """Raises CheckpointError where configuration and files disagree about 4 bits, or the head is in 4 bits."""
        stored = stored_bits(self.folder, self.config)
        if bool(self.packed) != bool(stored):
            declared = "weights" if stored else "no weights"
            actual = "none is" if stored else f"these are: {first_names(sorted(self.packed))}"
            raise CheckpointError(
                f"{self.folder}: config.json declares {declared} in 4 bits, but {actual}; expected files of one model"
            )
        if HEAD_WEIGHT in self.packed:
            raise CheckpointError(
                f"{self.folder}: its {HEAD} is in 4 bits too, which is not supported: name another base"
            )
        if any(self.family.experts in name for name in self.packed):
            raise CheckpointError(
                f"{self.folder}: its experts are in 4 bits, which is not supported: name the model in 16 bits"
            )


# ------------------------------------------------------------------ what kind of base
def check_base(folder: Path) -> dict[str, Any]:
    """The base's `config.json`.

    Raises CheckpointError where it is of no known family, or quantized in an unsupported way.
    """
    config = read_json(folder / "config.json")
    if config is None:
        raise CheckpointError(f"{folder}: no config.json; expected the folder of a model")
    _family(config, folder)
    shard_names(folder)
    stored_bits(folder, config)
    return config


def _family(config: dict[str, Any], folder: Path) -> Family:
    """Raises CheckpointError where it is not known."""
    try:
        return family_of_config(config, folder)
    except FamilyError as error:
        raise CheckpointError(str(error)) from None


def stored_bits(folder: Path, config: dict[str, Any] | None = None) -> str:
    """How a base is stored: "" in 16 or 32 bits, `nf4` or `fp4` in bitsandbytes' 4 bits.

    Raises CheckpointError, with the name that `quantization_config` gives, where it is quantized in another way.
    """
    settings = _quantization_config(read_json(folder / "config.json") or {} if config is None else config)
    if not settings:
        return ""
    method = str(
        settings.get("quant_method") or ("bitsandbytes" if "load_in_4bit" in settings else "an unnamed method")
    )
    if method.startswith("bitsandbytes"):
        kind = settings.get("bnb_4bit_quant_type", "fp4")
        if kind in ("nf4", "fp4") and (settings.get("load_in_4bit") or settings.get("_load_in_4bit")):
            return str(kind)
        in_8_bits = settings.get("load_in_8bit") or settings.get("_load_in_8bit")
        method = "bitsandbytes in 8 bits" if in_8_bits else str(settings)
    raise CheckpointError(
        f"{folder}: its weights are quantized by {method} (quantization_config in config.json), which is not "
        "supported; expected weights in 16 or 32 bits, or in bitsandbytes' 4 bits: name the model that it was made from"
    )


def _quantization_config(config: dict[str, Any]) -> dict[str, Any]:
    """`quantization_config` of the model, or of its language model; {} where there is none."""
    text = config.get("text_config")
    settings = config.get("quantization_config") or (
        text.get("quantization_config") if isinstance(text, dict) else None
    )
    if not settings:
        return {}
    return settings if isinstance(settings, dict) else {"quant_method": str(settings)}


# ------------------------------------------------------------------ fingerprints
class _FileState(NamedTuple):
    """What tells that a file's content is unchanged: it changes with the content, but not if a folder is renamed."""

    file: str  # device and inode
    size: int
    modified: int  # nanoseconds
    changed: int

    @classmethod
    def of(cls, path: Path) -> "_FileState":
        status = path.stat()
        return cls(f"{status.st_dev}-{status.st_ino}", status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class StoppedError(ScoringError):
    """Nobody needs the digests any more."""


_digests: dict[_FileState, str] = {}  # that this process knows


def file_digests(paths: list[Path], stop: Event | None = None) -> list[str]:
    """SHA-256 of each file's content. Large files are read once: their digests are remembered by size and times.

    stop: once it is set, StoppedError is raised.
    """
    states = [_FileState.of(path) for path in paths]
    known = _read_digests() if any(state.size >= CACHED for state in states) else {}

    def digest(path: Path, state: _FileState) -> str:
        if state not in _digests:
            _digests[state] = known.get(state) or _digest(path, stop)
        return _digests[state]

    with ThreadPoolExecutor(HASHED) as pool:
        digests = list(pool.map(digest, paths, states))
    new = {state: digest for state, digest in zip(states, digests) if state.size >= CACHED and state not in known}
    if new:
        _add_digests(new)
    return digests


def _digest(path: Path, stop: Event | None) -> str:
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while block := file.read(BLOCK):
            if stop and stop.is_set():
                raise StoppedError
            digest.update(block)
    return digest.hexdigest()


def _read_digests() -> dict[_FileState, str]:
    """The remembered digests; none where their file is missing or damaged."""
    try:
        entries = json.loads((cache_folder() / "digests.json").read_text("utf-8"))["files"]
        return {_FileState(*state): digest for *state, digest in entries}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _add_digests(digests: dict[_FileState, str]) -> None:
    """Remember digests. Where the folder cannot be written, the next run reads the files again."""
    from scoring.files.writing import write_json

    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        with FileLock(cache_folder() / "digests.lock", timeout=10):
            entries = [[*state, digest] for state, digest in (_read_digests() | digests).items()]
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
    """The first version of a base's fingerprint, which old checkpoints record: of 17 samples of each file."""
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with open(path, "rb") as file:
            for sample in range(17):
                file.seek(max(0, size - 65536) * sample // 16)
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
COMPARED = 8  # linear layers whose first block of weights is compared
CODES_APART = 0.01  # share of the codes that may differ


def nf4_codes(weights: BaseWeights) -> str:
    """The NF4 codes of the first 64 weights of some linear layers, as hexadecimal digits: as stored, or as computed.

    They are the same, up to rounding, for a model in 16 bits and in NF4, and differ for a model that was trained
    further. "" for a base that is stored in 4 bits of another kind.
    """
    names = sorted(name for name in weights.linear if name.startswith(weights.family.layers))
    chosen = [names[round(index)] for index in np.linspace(0, len(names) - 1, COMPARED)] if names else []
    codes = ""
    for name in (f"{name}.weight" for name in chosen):
        tensor, state = weights.tensors[name], weights.packed.get(name)
        if state is None:
            codes += _nf4_codes_of(tensor.read_values(64))
        elif state.kind == "nf4" and state.block_size == 64:
            codes += tensor.read_bytes(32).hex()
        else:
            return ""
    return codes


def _nf4_codes_of(block: Floats) -> str:
    """The NF4 codes of one block of weights, as hexadecimal digits."""
    values = block.astype(np.float32)
    scaled = values / max(np.abs(values).max(), 1e-30)
    return "".join(f"{code:x}" for code in np.abs(scaled[:, None] - NF4).argmin(1))


def same_codes(first: str, second: str) -> bool:
    """Whether two results of `nf4_codes` are of one model."""
    if not first or len(first) != len(second):
        return False
    return sum(a != b for a, b in zip(first, second)) <= CODES_APART * len(first)
