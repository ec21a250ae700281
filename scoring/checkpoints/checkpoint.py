"""A checkpoint folder: an adapter, what it was made for, and whether it can work. No torch, no weights loaded.

A checkpoint is a PEFT adapter folder (`adapter_config.json`, `adapter_model.safetensors`), ours with
`scoring.json` and `calibration.json` or anyone's without, or a whole model folder (`config.json`). Weights are read
from safetensors alone; their headers tell names and shapes, so that an adapter that does not fit its base
is found, and refused with the names of its keys, before anything is loaded.
"""

import csv
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from scoring.checkpoints.adapter import (
    ADAPTER_CONFIG,
    ADAPTER_FILE,
    AdapterCheck,
    AdapterConfig,
    adapter_fingerprint,
    check_adapter,
    config_faults,
    unknown_settings,
)
from scoring.checkpoints.weights import BaseWeights, CheckpointError, base_fingerprint, first_names, sampled_fingerprint
from scoring.files.reading import as_object, read_json, read_object
from scoring.inputs.pictures import PixelPolicy
from scoring.inputs.prompt import LETTERS, PromptTemplate
from scoring.scores.exposure import TRAINING, VALIDATION, exposure, read_rows
from scoring.stats.calibration import Calibration, read_calibration

MANIFEST, CALIBRATION = "scoring.json", "calibration.json"
# Files that a training leaves beside an adapter, and that no score depends on.
STATES = re.compile(r"(optimizer|scheduler|lr_scheduler|scaler|rng_state|random_states|training_args|trainer_state).*")
WEIGHT_FILES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".npz", ".npy", ".pkl")


@dataclass
class Manifest:
    """`scoring.json`: everything besides the weights that a score depends on, and how the adapter was made."""

    base: str = ""  # hub id, or a folder relative to the checkpoint's
    revision: str | None = None
    base_fingerprint: str | None = ""
    base_stored: Literal["nf4", "fp4", ""] = ""  # where the base itself was in 4 bits
    base_codes: str = ""  # of `nf4_codes`: the same for this base in 16 and in 4 bits
    template: dict[str, str] = field(default_factory=lambda: asdict(PromptTemplate()))
    letters: str = "abcd"
    pixels: dict[str, int] = field(default_factory=dict)  # min_pixels, max_pixels
    quantization: Literal["nf4", "fp4", "none"] = "nf4"
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
class Checkpoint:
    """One member of a run. `adapter` is its configuration, or None for a whole model.

    declared: whether a manifest says what it was made with; else the manifest holds the defaults. beside: files of
    weights in its folder that nothing reads.
    """

    name: str
    folder: Path
    manifest: Manifest
    adapter: AdapterConfig | None
    calibration: Calibration | None
    notes: list[str] = field(default_factory=list)
    declared: bool = True
    beside: list[str] = field(default_factory=list)
    _checked: tuple[Path, AdapterCheck] | None = field(default=None, repr=False)

    def fingerprint(self) -> str:
        """16 hexadecimal digits of the adapter's (or model's) content."""
        return base_fingerprint(self.folder) if self.adapter is None else adapter_fingerprint(self.folder)

    def renew(self, base: Path) -> None:
        """Put today's fingerprint where the manifest records a first one, which saw less, of this very base."""
        if self.manifest.base_fingerprint and self.manifest.base_fingerprint == sampled_fingerprint(base):
            self.manifest.base_fingerprint = base_fingerprint(base)

    def check(self, base: BaseWeights) -> AdapterCheck:
        """How its adapter fits that base, looked at once; empty for a whole model.

        Raises CheckpointError with all that keeps it from working.
        """
        if self.adapter is None:
            return AdapterCheck()
        if self._checked is None or self._checked[0] != base.folder:
            check = check_adapter(self.folder, base, self.adapter)
            check.raise_for_faults(self.folder)
            self._checked = base.folder, check
        return self._checked[1]

    def exposed(self, columns: dict[str, list], table: str, calibration: Calibration | None = None) -> np.ndarray:
        """(N,) flags of `scores/exposure.py`: how this checkpoint has met the rows of a table before.

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
    if not base:
        raise CheckpointError(f"{beside or 'the checkpoint'}: names no base; name the model it was made on with --base")
    for folder in (Path(base), beside / base if beside else None):
        if folder and folder.is_dir():
            return folder
    if is_hub_id(base):
        return _fetch(base, revision, local_only)
    raise CheckpointError(
        f"base {base!r}: no such folder, and no hub id; expected a folder with config.json or "
        "an id like Qwen/Qwen3-VL-8B-Instruct; name it with --base"
    )


def is_hub_id(name: str) -> bool:
    """Whether a name can be a hub repository's, such as Qwen/Qwen3-VL-8B-Instruct or org/name@revision."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", name) is not None and not name.startswith(".")


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
    folder, on_hub = Path(name) if Path(name).is_dir() else None, []
    if folder is None:
        if not is_hub_id(name) or Path(name).exists():
            raise CheckpointError(f"checkpoint {name!r}: no such folder; expected an adapter folder or a hub id")
        folder, on_hub = _fetch(name), _files_on_hub(name)
    manifest = read_object(Manifest, folder / MANIFEST)
    values = read_json(folder / ADAPTER_CONFIG)
    adapter, notes = None, []
    if values is not None:
        _refuse_incomplete(folder, on_hub)
        if faults := config_faults(values):
            raise CheckpointError(f"{folder / ADAPTER_CONFIG}: " + "; and ".join(faults))
        adapter = as_object(AdapterConfig, values, folder / ADAPTER_CONFIG)
        if unknown := unknown_settings(values):
            notes.append(f"{folder / ADAPTER_CONFIG}: {', '.join(unknown)} not known here, and passed over")
    elif not (folder / "config.json").exists():
        raise CheckpointError(_nothing_here(folder))
    declared = manifest is not None
    if manifest is None:
        manifest = Manifest(adapter.base_model_name_or_path or "", adapter.revision) if adapter else Manifest()
        if adapter:
            notes.append(f"{folder}: no {MANIFEST}; scored with the defaults: the Korean template, 448x448 pixels, NF4")
    if base:
        manifest.base, manifest.revision = base, None
    return Checkpoint(
        Path(os.path.abspath(folder)).name,
        folder,
        manifest,
        adapter,
        read_calibration(folder / CALIBRATION),
        notes,
        declared,
        sorted({*_weights_beside(path.name for path in folder.iterdir()), *_weights_beside(on_hub)}) if adapter else [],
    )


def _refuse_incomplete(folder: Path, on_hub: list[str]) -> None:
    """CheckpointError where an adapter's weights are not there, or not in one safetensors file."""
    if (folder / ADAPTER_FILE).exists():
        return
    shards = sorted(path.name for path in folder.glob("adapter_model-*.safetensors"))
    names = {*(path.name for path in folder.iterdir()), *on_hub}
    pickles = sorted(name for name in names if name.endswith((".bin", ".pt", ".pth")) and "/" not in name)
    if shards:
        why = f", but {', '.join(shards)}: an adapter in several files; save it as one"
    elif pickles:
        why = f", but {', '.join(pickles)}: pickles can run code and are refused; save the adapter as safetensors"
    else:
        why = "; the folder is not complete"
    raise CheckpointError(f"{folder}: no {ADAPTER_FILE}{why}")


def _nothing_here(folder: Path) -> str:
    """What to say of a folder that is no checkpoint: the ones that lie in it, where there are any."""
    inside = sorted(
        {
            path.parent
            for depth in ("*", "*/*")
            for name in (ADAPTER_CONFIG, "config.json")
            for path in folder.glob(f"{depth}/{name}")
        }
    )
    said = f"{folder}: neither {ADAPTER_CONFIG} nor config.json; "
    if not inside:
        return said + "expected an adapter or a model folder"
    return said + f"name one of the checkpoints inside: {first_names([str(path) for path in inside])}"


def _weights_beside(names: Iterable[str]) -> list[str]:
    """Files of weights beside an adapter that neither PEFT nor this program reads, but their training may have made."""
    passed = (ADAPTER_FILE, "adapter_model.bin")
    return [
        name
        for name in names
        if name.endswith(WEIGHT_FILES) and "/" not in name and name not in passed and not STATES.match(name)
    ]


def _files_on_hub(name: str) -> list[str]:
    """The files of a hub repository, of which `_fetch` brings some; none where the hub cannot be asked."""
    from huggingface_hub import HfApi

    name, _, revision = name.partition("@")
    try:
        return HfApi().list_repo_files(name, revision=revision or None)
    except Exception:  # offline, or of the many kinds that its client raises: what was fetched before is used
        return []


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
