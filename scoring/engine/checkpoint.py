"""A checkpoint folder: an adapter, what it was made for, and whether it can work. No torch, no weights loaded.

A checkpoint is a PEFT adapter folder (`adapter_config.json`, `adapter_model.safetensors`), ours with
`scoring.json` and `calibration.json` or anyone's without, or a whole model folder (`config.json`). Weights are read
from safetensors alone; their headers tell names and shapes, so that an adapter that does not fit its base
is found, and refused with the names of its keys, before anything is loaded.
"""

import csv
import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from scoring.inputs.objects import FileError, as_object, read_json, read_object
from scoring.inputs.pictures import PixelPolicy
from scoring.inputs.prompt import LETTERS, PromptTemplate
from scoring.results.calibration import Calibration, read_calibration
from scoring.results.exposure import TRAINING, VALIDATION, exposure, read_rows

ADAPTER_FILE, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
MANIFEST, CALIBRATION = "scoring.json", "calibration.json"
LORA_PARTS = ("lora_A.weight", "lora_B.weight", "lora_magnitude_vector")
MIXTURE = "qwen3_vl_moe"  # of experts
MODEL_TYPES = ("qwen3_vl", MIXTURE)


class CheckpointError(FileError):
    """A base or checkpoint that cannot be used; the message says which, why, and what to do."""


@dataclass
class Manifest:
    """`scoring.json`: everything besides the weights that a score depends on, and how the adapter was made."""

    base: str = ""  # hub id, or a folder relative to the checkpoint's
    revision: str | None = None
    base_fingerprint: str | None = ""
    template: dict[str, str] = field(default_factory=lambda: asdict(PromptTemplate()))
    letters: str = "abcd"
    pixels: dict[str, int] = field(default_factory=dict)  # min_pixels, max_pixels
    quantization: Literal["nf4", "none"] = "nf4"
    dtype: str = ""
    data: dict = field(default_factory=dict)
    training: dict = field(default_factory=dict)
    metrics: dict = field(default_factory=dict)
    versions: dict = field(default_factory=dict)

    def __post_init__(self):
        if foreign := set(self.template) - set(PromptTemplate.__dataclass_fields__):
            raise ValueError(f"template has {', '.join(sorted(foreign))}; expected system, user, option and hint")
        if not 2 <= len(self.letters) <= len(LETTERS) or not LETTERS.startswith(self.letters):
            raise ValueError(f"letters is {self.letters!r}; expected the first 2 to 26 of the alphabet, such as abcd")
        if self.pixels and self.pixels.get("max_pixels", 0) < 1:
            raise ValueError(f"pixels is {self.pixels}; expected max_pixels, such as 200704")

    @property
    def prompt(self) -> PromptTemplate:
        return PromptTemplate(**self.template)

    @property
    def settings(self) -> dict:
        """What logits depend on besides the adapter, as a run tells it of its members."""
        return {
            "base": self.base_fingerprint,
            "template": self.prompt.fingerprint,
            "pixels": self.pixels.get("max_pixels"),
            "quantization": self.quantization,
        }

    def policy(self, base: Path) -> PixelPolicy:
        """The base's patch sizes with this checkpoint's pixel budget."""
        return PixelPolicy.of_base(base, self.pixels.get("max_pixels"))


@dataclass
class AdapterConfig:
    """What is needed of `adapter_config.json`, and what kind of value it must be."""

    r: int
    lora_alpha: float
    peft_type: str | None = None
    base_model_name_or_path: str | None = None
    revision: str | None = None
    alpha_pattern: dict[str, float] | None = None
    target_modules: list[str] | str | None = None

    def __post_init__(self):
        if str(self.peft_type).upper() != "LORA":
            raise ValueError(f"an adapter of type {str(self.peft_type).upper()}; expected LORA")


@dataclass
class Checkpoint:
    """One member of a run. `adapter` is its PEFT configuration, or None for a whole model."""

    name: str
    folder: Path
    manifest: Manifest
    adapter: dict | None
    calibration: Calibration | None
    notes: list[str] = field(default_factory=list)

    def fingerprint(self) -> str:
        """16 hexadecimal digits of the adapter's (or model's) content."""
        if self.adapter is None:
            return base_fingerprint(self.folder)
        return file_fingerprint(self.folder / ADAPTER_FILE)

    def exposed(self, columns: dict[str, list], table: str, calibration: Calibration | None = None) -> np.ndarray:
        """(N,) flags of `results/exposure.py`: how this checkpoint has met the rows of a table before.

        columns: of questions.parquet; table: the SHA-256 of the file they come from. A checkpoint without a record of
        its rows is known by its table alone; where that is the same, the rows of validation.csv were held out.
        """
        rows, calibrated = read_rows(self.folder), calibration.digests if calibration else ()
        found = exposure(columns["digest"], rows, calibrated)
        if rows is None and table and self.manifest.data.get("sha256") == table:
            held_out = self._validation_ids()
            found |= np.array([VALIDATION if id in held_out else TRAINING for id in columns["id"]], np.uint8)
        return found

    def _validation_ids(self) -> set[str]:
        path = self.folder / "validation.csv"
        if not path.exists():
            return set()
        with open(path, encoding="utf-8", newline="") as file:
            return {row["id"] for row in csv.DictReader(file)}

    def base_folder(self) -> Path:
        """The base model's folder on this machine, fetched from the hub where it is an id."""
        return (
            self.folder if self.adapter is None else find_base(self.manifest.base, self.folder, self.manifest.revision)
        )


def find_base(base: str, beside: Path | None = None, revision: str | None = None, local_only: bool = False) -> Path:
    """A base as a folder: itself, relative to the checkpoint, or the hub's (with `@revision`).

    local_only: do not download.
    """
    for folder in (Path(base), beside / base if beside else None):
        if folder and folder.is_dir():
            return folder
    if re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", base) and not base.startswith("."):
        return _fetch(base, revision, local_only)
    raise CheckpointError(
        f"base {base!r}: no such folder, and no hub id; expected a folder with config.json or "
        "an id like Qwen/Qwen3-VL-8B-Instruct; name it with --base"
    )


def _fetch(name: str, revision: str | None = None, local_only: bool = False) -> Path:
    """A hub repository's configuration and safetensors: no code, no pickles."""
    from huggingface_hub import snapshot_download

    name, _, at = name.partition("@")
    try:
        return Path(
            snapshot_download(
                name,
                revision=at or revision,
                local_files_only=local_only,
                allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.txt"],
            )
        )
    except Exception as error:  # the hub's client raises network, authentication and lookup errors of many kinds
        reason = str(error).strip().split("\n")[0]
        raise CheckpointError(
            f"{name}: neither a folder nor to be had from the hub ({reason}); check the name, the "
            "network, or give a local folder"
        ) from None


def read_checkpoint(name: str, base: str | None = None) -> Checkpoint:
    """The checkpoint in a folder or hub repository; `base` overrides the one it names. Raises FileError."""
    folder = Path(name) if Path(name).is_dir() else None
    if folder is None:
        if not re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", name) or name.startswith(".") or Path(name).exists():
            raise CheckpointError(f"checkpoint {name!r}: no such folder; expected an adapter folder or a hub id")
        folder = _fetch(name)
    calibration = read_calibration(folder / CALIBRATION)
    manifest = read_object(Manifest, folder / MANIFEST)
    adapter = read_json(folder / ADAPTER_CONFIG)
    if adapter is None and not (folder / "config.json").exists():
        raise CheckpointError(
            f"{folder}: neither {ADAPTER_CONFIG} nor config.json; expected an adapter or a model folder"
        )
    config = None if adapter is None else as_object(AdapterConfig, adapter, folder / ADAPTER_CONFIG)
    if adapter is not None and not (folder / ADAPTER_FILE).exists():
        pickles = sorted(path.name for path in folder.glob("*.bin")) + sorted(path.name for path in folder.glob("*.pt"))
        raise CheckpointError(
            f"{folder}: no {ADAPTER_FILE}"
            + (
                f", but {', '.join(pickles)}: pickles can run code and are refused; save the adapter as safetensors"
                if pickles
                else "; the folder is not complete"
            )
        )
    notes = []
    if manifest is None:
        manifest = Manifest(config.base_model_name_or_path or "", config.revision) if config else Manifest()
        if adapter is not None:
            notes.append(f"{folder}: no {MANIFEST}; scored with the defaults: the Korean template, 448x448 pixels, NF4")
    if base:
        manifest.base, manifest.revision = base, None
    return Checkpoint(Path(os.path.abspath(folder)).name, folder, manifest, adapter, calibration, notes)


def base_name(base: str, out: Path) -> str:
    """How a checkpoint names its base: a hub id as it is; a folder relative to the checkpoint where both lie in the
    working directory, so that they can be moved together; else in full."""
    if not Path(base).is_dir():
        return base
    folder, here = Path(base).resolve(), Path.cwd()
    together = folder.is_relative_to(here) and out.resolve().is_relative_to(here)
    return os.path.relpath(folder, out.resolve()) if together else str(folder)


def folds_of(name: str) -> list[str]:
    """The checkpoints that a name stands for: those in a folder of folds, or itself."""
    folder = Path(name)
    if not folder.is_dir() or (folder / ADAPTER_CONFIG).exists() or (folder / "config.json").exists():
        return [name]
    folds = [path.parent for path in folder.glob(f"fold*/{ADAPTER_CONFIG}")]
    return [str(path) for path in sorted(folds, key=lambda path: (len(path.name), path.name))] or [name]


# ------------------------------------------------------------------ what lies in safetensors files
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


def weight_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of all weights of a model folder, from the headers of its (sharded) safetensors files."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise CheckpointError(f"{folder}: no safetensors weights; expected model.safetensors or its shards")
    if missing := sorted(_shards(folder) - {path.name for path in files}):
        raise CheckpointError(f"{folder}: missing {', '.join(missing)}; the download is not complete")
    return {name: tuple(entry["shape"]) for path in files for name, entry in read_header(path).items()}


@dataclass
class _Index:
    weight_map: dict[str, str]


def _shards(folder: Path) -> set[str]:
    """The files that an index names. Raises FileError where one is not beside it: a library would read it anywhere."""
    path = folder / "model.safetensors.index.json"
    index = read_object(_Index, path)
    names = set(index.weight_map.values()) if index else set()
    if outside := sorted(name for name in names if not re.fullmatch(r"[\w.-]+\.safetensors", name)):
        raise CheckpointError(f"{path}: names {', '.join(outside[:5])}; expected safetensors files beside it alone")
    return names


def file_fingerprint(path: Path) -> str:
    """16 hexadecimal digits of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def base_fingerprint(folder: Path) -> str:
    """16 hexadecimal digits of a base: its configuration, and of every weight file the header and 16 samples."""
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with open(path, "rb") as file:
            for share in range(17):
                file.seek(max(0, size - 65536) * share // 16)
                digest.update(file.read(65536))
    return digest.hexdigest()[:16]


def check_base(folder: Path) -> dict:
    """The base's `config.json`. Raises CheckpointError where this is no Qwen3-VL folder."""
    config = read_json(folder / "config.json")
    if config is None:
        raise CheckpointError(f"{folder}: no config.json; expected a Qwen3-VL model folder")
    if config.get("model_type") not in MODEL_TYPES:
        raise CheckpointError(f"{folder}: model type {config.get('model_type')!r}; expected {' or '.join(MODEL_TYPES)}")
    _shards(folder)
    return config


# ------------------------------------------------------------------ does the adapter fit
@dataclass
class AdapterCheck:
    """`keys` maps each tensor of the file to (module of the base, part); the rest is what is wrong with it."""

    keys: dict[str, tuple[str, str]]
    unknown: list[str]  # no module of the base, or no part of a LoRA
    misfits: list[str]  # shapes that do not belong to the module
    incomplete: list[str]  # modules that lack lora_A or lora_B
    effect: bool  # whether any lora_B has a value other than 0

    def raise_for_faults(self, folder: Path) -> None:
        """CheckpointError naming the first keys, unless all is well."""
        for keys, what in (
            (self.unknown, "match no module of the base"),
            (self.misfits, "have another shape than the base's"),
            (self.incomplete, "lack their lora_A or lora_B"),
        ):
            if keys:
                more = f" … and {len(keys) - 5} more" if len(keys) > 5 else ""
                raise CheckpointError(
                    f"{folder / ADAPTER_FILE}: {len(keys)} keys {what}: {', '.join(keys[:5])}{more}; "
                    "expected LoRA weights made for this base"
                )
        if not self.effect:
            raise CheckpointError(
                f"{folder / ADAPTER_FILE}: every lora_B is zero: the adapter does nothing; "
                "the training did not run, or was not saved"
            )


def check_adapter(folder: Path, base_shapes: dict[str, tuple[int, ...]]) -> AdapterCheck:
    """Hold an adapter file against the names and shapes of its base, reading headers and lora_B bytes alone."""
    path = folder / ADAPTER_FILE
    header = read_header(path)
    check = AdapterCheck({}, [], [], [], False)
    parts_of: dict[str, set[str]] = {}
    with open(path, "rb") as file:
        for key, entry in header.items():
            found = _locate_key(key, base_shapes)
            if not found:
                check.unknown.append(key)
                continue
            module, part = check.keys[key] = found
            parts_of.setdefault(module, set()).add(part)
            outputs, inputs = base_shapes[f"{module}.weight"][:2]
            expected = {"lora_A.weight": (None, inputs), "lora_B.weight": (outputs, None)}.get(part)
            if expected and any(want not in (None, have) for want, have in zip(expected, entry["shape"])):
                check.misfits.append(f"{key} {entry['shape']}")
            if part == "lora_B.weight" and not check.effect:
                file.seek(entry["start"])
                check.effect = any(file.read(entry["data_offsets"][1] - entry["data_offsets"][0]))
    check.incomplete = [module for module, parts in parts_of.items() if not {"lora_A.weight", "lora_B.weight"} <= parts]
    return check


def _locate_key(key: str, base_shapes: dict[str, tuple[int, ...]]) -> tuple[str, str] | None:
    """(module of the base, part) that an adapter's key means, whoever wrote it.

    Known spellings: PEFT's `base_model.model.` with or without an adapter name before `weight`; text-only and
    older names without `language_model`, or with it in another place (transformers before 4.52, LLaMA-Factory,
    ms-swift, Unsloth).
    """
    name = re.sub(r"^(base_model\.model\.)", "", key)
    name = re.sub(r"\.(lora_A|lora_B)\.(?!weight$)[^.]+\.weight$", r".\1.weight", name)
    name = re.sub(r"\.lora_magnitude_vector(\..+)?$", ".lora_magnitude_vector", name)
    part = next((part for part in LORA_PARTS if name.endswith("." + part)), None)
    if part is None:
        return None
    module = name[: -len(part) - 1]
    text = re.sub(
        r"^(model\.)?(language_model\.)?(model\.)?(language_model\.)?layers\.", "model.language_model.layers.", module
    )
    visual = re.sub(r"^(model\.)?visual\.", "model.visual.", module)
    for candidate in (module, text, visual, f"model.{module}"):
        if f"{candidate}.weight" in base_shapes:
            return candidate, part
    return None
