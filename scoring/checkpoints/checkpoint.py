"""A checkpoint folder: an adapter, what it was made for, and whether it can work. No torch, no weights loaded.

A checkpoint is a PEFT adapter folder (`adapter_config.json`, `adapter_model.safetensors`), with `scoring.json` and
`calibration.json` where `train` wrote it, or a whole model folder (`config.json`). Weights are read from safetensors
files only. Their headers give names and shapes, so that an adapter that does not fit its base is refused, with the
names of its keys, before anything is loaded.
"""

import csv
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from scoring.checkpoints.adapter import ADAPTER_CONFIG, ADAPTER_FILE, AdapterCheck, adapter_fingerprint, check_adapter
from scoring.checkpoints.adapter_config import AdapterConfig, config_faults, unknown_settings
from scoring.checkpoints.decision_files import DECISION_CONFIG
from scoring.checkpoints.decision_reading import Decisions, read_decisions
from scoring.checkpoints.weights import BaseWeights, CheckpointError, base_fingerprint, first_names, sampled_fingerprint
from scoring.files.reading import as_object, read_json, read_object
from scoring.inputs.families.registry import policy_of
from scoring.inputs.pixels import PixelPolicy
from scoring.inputs.prompt import LETTERS, LetterCase, PromptTemplate
from scoring.scores.exposure import TRAINING, VALIDATION, exposure, read_rows
from scoring.stats.calibration import Calibration, read_calibration

MANIFEST, CALIBRATION = "scoring.json", "calibration.json"
# Files that a training leaves beside an adapter, and that scores do not depend on.
TRAINING_STATES = re.compile(
    r"(optimizer|scheduler|lr_scheduler|scaler|rng_state|random_states|training_args|trainer_state).*"
)
WEIGHT_FILES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".npz", ".npy", ".pkl")
Flags = NDArray[np.uint8]  # how rows were met before: see `scores/exposure.py`


@dataclass(frozen=True)
class LogitSettings:
    """What logits depend on besides the adapter. None: unknown, or as the base has it."""

    base: str | None  # its fingerprint
    template: str  # its fingerprint
    pixels: int | None  # the most pixels of a picture
    quantization: str  # of the base: nf4, fp4 or none

    def to_json(self) -> dict[str, Any]:
        """As files record it."""
        return asdict(self)


@dataclass
class Manifest:
    """`scoring.json`: everything besides the weights that a score depends on, and how the adapter was made."""

    base: str = ""  # hub id, or a folder relative to the checkpoint's
    revision: str | None = None
    base_fingerprint: str | None = ""
    base_stored: Literal["nf4", "fp4", ""] = ""  # where the base itself was in 4 bits
    base_codes: str = ""  # of `nf4_codes`: the same for this base in 16 and in 4 bits
    template: dict[str, str] = field(default_factory=lambda: PromptTemplate().to_json())
    letters: str = "abcd"
    pixels: dict[str, int] = field(default_factory=dict)  # min_pixels, max_pixels
    quantization: Literal["nf4", "fp4", "none"] = "nf4"
    dtype: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if unknown := set(self.template) - set(PromptTemplate.__dataclass_fields__):
            expected = ", ".join(PromptTemplate.__dataclass_fields__)
            raise ValueError(f"template has {', '.join(sorted(unknown))}; expected {expected}")
        _ = self.prompt  # checks its values
        if not 2 <= len(self.letters) <= len(LETTERS) or not LETTERS.startswith(self.letters):
            raise ValueError(f"letters is {self.letters!r}; expected the first 2 to 26 of the alphabet, such as abcd")
        if self.pixels and self.pixels.get("max_pixels", 0) < 1:
            raise ValueError(f"pixels is {self.pixels}; expected max_pixels, such as 200704")

    @property
    def prompt(self) -> PromptTemplate:
        texts = dict(self.template)
        case = cast(LetterCase, texts.pop("letters", "lower"))  # which PromptTemplate checks
        return PromptTemplate(**texts, letters=case)

    @property
    def settings(self) -> LogitSettings:
        """What the checkpoint was made with."""
        return LogitSettings(
            self.base_fingerprint, self.prompt.fingerprint, self.pixels.get("max_pixels"), self.quantization
        )

    def renewed(self, base: Path) -> "Manifest":
        """With the current fingerprint of `base`, where the manifest records this base by the first version of it.

        See `sampled_fingerprint`: checkpoints of early versions record that one.
        """
        if self.base_fingerprint and self.base_fingerprint == sampled_fingerprint(base):
            return replace(self, base_fingerprint=base_fingerprint(base))
        return self

    def policy(self, base: Path) -> PixelPolicy:
        """The base's patch sizes with this checkpoint's pixel budget."""
        return policy_of(base, self.pixels.get("max_pixels"))


@dataclass
class Checkpoint:
    """One member of a run. `adapter` is its configuration, or None for a whole model.

    declared: whether the folder has a manifest; else `manifest` holds the defaults. unread: files of weights in its
    folder that nothing reads. decisions: what describes it in place of a manifest, if anything does.
    """

    name: str
    folder: Path
    manifest: Manifest
    adapter: AdapterConfig | None
    calibration: Calibration | None
    notes: list[str] = field(default_factory=list)
    declared: bool = True
    unread: list[str] = field(default_factory=list)
    decisions: Decisions | None = None
    _checked: tuple[Path, AdapterCheck] | None = field(default=None, repr=False)

    def fingerprint(self) -> str:
        """16 hexadecimal digits of the adapter's (or model's) content."""
        return base_fingerprint(self.folder) if self.adapter is None else adapter_fingerprint(self.folder)

    @property
    def prompt_fault(self) -> str:
        """Why its prompt is not known though files describe it; "" where it is, or where none do."""
        return self.decisions.fault if self.decisions else ""

    def require_adapter(self) -> AdapterConfig:
        """The adapter's configuration. Raises CheckpointError for a whole model."""
        if self.adapter is None:
            raise CheckpointError(f"{self.folder}: a whole model; expected an adapter")
        return self.adapter

    def renewed(self, base: Path) -> "Checkpoint":
        """With a manifest that records the current fingerprint of this base: see `Manifest.renewed`."""
        return replace(self, manifest=self.manifest.renewed(base))

    def check(self, base: BaseWeights) -> AdapterCheck:
        """How its adapter fits that base, checked once; empty for a whole model.

        Raises CheckpointError with everything that keeps it from working.
        """
        if self.adapter is None:
            return AdapterCheck()
        if self._checked is None or self._checked[0] != base.folder:
            check = check_adapter(self.folder, base, self.adapter)
            check.raise_for_faults(self.folder)
            self._checked = base.folder, check
        return self._checked[1]

    def exposed(self, columns: dict[str, list[str]], table: str, calibration: Calibration | None = None) -> Flags:
        """(N,) flags of `scores/exposure.py`: how this checkpoint has met the rows of a table before.

        columns: of questions.parquet; table: the SHA-256 of the file they come from. A checkpoint without a record of
        its rows recognises its training table as a whole, by `table`; the rows of validation.csv were held out of it.
        """
        rows, calibrated = read_rows(self.folder), calibration.digests if calibration else ()
        flags: Flags = exposure(columns["digest"], rows, calibrated)
        if rows is None and table and self.manifest.data.get("sha256") == table:
            held_out = self._validation_ids()
            flags |= np.array([VALIDATION if id in held_out else TRAINING for id in columns["id"]], np.uint8)
        return flags

    def _validation_ids(self) -> set[str]:
        path = self.folder / "validation.csv"
        if not path.exists():
            return set()
        with open(path, encoding="utf-8", newline="") as file:
            return {row["id"] for row in csv.DictReader(file)}

    def base_folder(self, local_only: bool = False) -> Path:
        """The base model's folder on this machine; without `local_only` fetched from the hub where it is an id."""
        if self.adapter is None:
            return self.folder
        return find_base(self.manifest.base, self.folder, self.manifest.revision, local_only)


def find_base(base: str, beside: Path | None = None, revision: str | None = None, local_only: bool = False) -> Path:
    """The folder of a base: the folder of this name, or relative to the checkpoint folder `beside`, or from the hub.

    A hub id may have an `@revision`. local_only: do not download. Raises CheckpointError where there is none.
    """
    if not base:
        raise CheckpointError(f"{beside or 'the checkpoint'}: names no base; name the model it was made on with --base")
    for folder in (Path(base), beside / base if beside else None):
        if folder and folder.is_dir():
            return folder
    if is_hub_id(base):
        return _fetch(base, revision, local_only)
    raise CheckpointError(
        f"base {base!r}: no such folder, and not a hub id; expected a folder with config.json or "
        "an id like Qwen/Qwen3-VL-8B-Instruct; name it with --base"
    )


def is_hub_id(name: str) -> bool:
    """Whether a name can be a hub repository's, such as Qwen/Qwen3-VL-8B-Instruct or org/name@revision."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", name) is not None and not name.startswith(".")


def _fetch(name: str, revision: str | None = None, local_only: bool = False) -> Path:
    """The local folder of a hub repository's configuration and safetensors: no code, no pickles are fetched.

    Raises CheckpointError where the hub does not give them.
    """
    from huggingface_hub import snapshot_download

    name, _, named_revision = name.partition("@")
    try:
        return Path(
            snapshot_download(
                name,
                revision=named_revision or revision,
                local_files_only=local_only,
                allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.txt"],
            )
        )
    except Exception as error:  # the hub's client raises network, authentication and lookup errors of many kinds
        reason = str(error).strip().split("\n")[0]
        raise CheckpointError(
            f"{name}: neither a folder nor available from the hub ({reason}); check the name and the network, or give "
            "a local folder"
        ) from None


# ------------------------------------------------------------------ reading
def read_checkpoint(name: str, base: str | None = None) -> Checkpoint:
    """The checkpoint in a folder or hub repository; `base` overrides the one it names. Raises FileError."""
    folder, hub_files = _locate(name)
    manifest = read_object(Manifest, folder / MANIFEST)
    decisions = None if manifest else read_decisions(folder)
    if decisions and decisions.config.adapter and not (folder / ADAPTER_CONFIG).exists():
        base = base or (str(folder) if (folder / "config.json").exists() else None)  # the model beside it
        folder, hub_files = _adapter_inside(folder, decisions.config.adapter), []
        manifest = read_object(Manifest, folder / MANIFEST)
        decisions = None if manifest else decisions
    adapter, notes = _read_adapter(folder, hub_files)
    if adapter is None and not (folder / "config.json").exists():
        raise CheckpointError(_describe_no_checkpoint(folder))
    declared = manifest is not None
    if manifest is None:
        manifest = Manifest(adapter.base_model_name_or_path or "", adapter.revision) if adapter else Manifest()
        if adapter and not decisions:
            notes.append(
                f"{folder}: no {MANIFEST}; where no option says otherwise, it is scored with the defaults: the Korean "
                "template, 448x448 pixels, NF4"
            )
    if base:
        manifest = replace(manifest, base=base, revision=None)
    calibration = read_calibration(folder / CALIBRATION)
    if decisions:
        notes.append(f"{folder}: no {MANIFEST}; {decisions.summary}")
        if decisions.template:
            manifest = replace(manifest, template=decisions.template.to_json())
        calibration = calibration or decisions.calibration
    unread = {*_unread_weights(path.name for path in folder.iterdir()), *_unread_weights(hub_files)}
    return Checkpoint(
        name=Path(os.path.abspath(folder)).name,
        folder=folder,
        manifest=manifest,
        adapter=adapter,
        calibration=calibration,
        notes=notes,
        declared=declared,
        unread=sorted(unread) if adapter else [],
        decisions=decisions,
    )


def _adapter_inside(folder: Path, name: str) -> Path:
    """The subfolder that a folder's `decision.json` names. Raises CheckpointError where no adapter is in it."""
    if not (folder / name / ADAPTER_CONFIG).is_file():
        found = f"{folder / DECISION_CONFIG}: adapter is {name!r}"
        raise CheckpointError(f"{found}; expected a folder in it with {ADAPTER_CONFIG}")
    return folder / name


def _locate(name: str) -> tuple[Path, list[str]]:
    """A checkpoint's folder, fetched where it is a hub id, and the names of all files of its hub repository.

    Raises CheckpointError where there is no such folder or repository.
    """
    if Path(name).is_dir():
        return Path(name), []
    if not is_hub_id(name) or Path(name).exists():
        raise CheckpointError(f"checkpoint {name!r}: no such folder; expected a checkpoint's folder or a hub id")
    return _fetch(name), _files_on_hub(name)


def _read_adapter(folder: Path, hub_files: list[str]) -> tuple[AdapterConfig | None, list[str]]:
    """An adapter's configuration (None for a whole model) and notes on it. Raises FileError if it cannot be applied."""
    path = folder / ADAPTER_CONFIG
    values = read_json(path)
    if values is None:
        return None, []
    _refuse_incomplete(folder, hub_files)
    if faults := config_faults(values):
        raise CheckpointError(f"{path}: " + "; and ".join(faults))
    unknown = unknown_settings(values)
    notes = [f"{path}: unknown settings were ignored: {', '.join(unknown)}"] if unknown else []
    return as_object(AdapterConfig, values, path), notes


def _refuse_incomplete(folder: Path, hub_files: list[str]) -> None:
    """Raises CheckpointError where an adapter's weights are missing, or not in one safetensors file."""
    if (folder / ADAPTER_FILE).exists():
        return
    shards = sorted(path.name for path in folder.glob("adapter_model-*.safetensors"))
    names = {*(path.name for path in folder.iterdir()), *hub_files}
    pickles = sorted(name for name in names if name.endswith((".bin", ".pt", ".pth")) and "/" not in name)
    if shards:
        reason = f", but {', '.join(shards)}: an adapter in several files; save it as one"
    elif pickles:
        reason = f", but {', '.join(pickles)}: pickles can run code and are refused; save the adapter as safetensors"
    else:
        reason = "; the folder is not complete"
    raise CheckpointError(f"{folder}: no {ADAPTER_FILE}{reason}")


def _describe_no_checkpoint(folder: Path) -> str:
    """The message for a folder that is no checkpoint: it names the checkpoints inside, where there are any."""
    inside = sorted(
        {
            path.parent
            for depth in ("*", "*/*")
            for name in (ADAPTER_CONFIG, "config.json")
            for path in folder.glob(f"{depth}/{name}")
        }
    )
    remedy = "expected an adapter or a model folder"
    if inside:
        remedy = f"name one of the checkpoints inside: {first_names([str(path) for path in inside])}"
    return f"{folder}: neither {ADAPTER_CONFIG} nor config.json; {remedy}"


def _unread_weights(names: Iterable[str]) -> list[str]:
    """Files of weights beside an adapter that neither PEFT nor this program reads, but its training may have made."""
    read = (ADAPTER_FILE, "adapter_model.bin")
    return [
        name
        for name in names
        if name.endswith(WEIGHT_FILES) and "/" not in name and name not in read and not TRAINING_STATES.match(name)
    ]


def _files_on_hub(name: str) -> list[str]:
    """All files of a hub repository, of which `_fetch` gets some; [] where the hub cannot be reached."""
    from huggingface_hub import HfApi

    name, _, revision = name.partition("@")
    try:
        return HfApi().list_repo_files(name, revision=revision or None)
    except Exception:  # offline, or one of the client's many errors: what was fetched before is used
        return []


def base_name(base: str, out: Path) -> str:
    """How the checkpoint in `out` names its base: a hub id as it is, a folder in full.

    Where both folders lie in the working directory, relative to the checkpoint, so that they can be moved together.
    """
    if not Path(base).is_dir():
        return base
    folder, current = Path(base).resolve(), Path.cwd()
    together = folder.is_relative_to(current) and out.resolve().is_relative_to(current)
    return os.path.relpath(folder, out.resolve()) if together else str(folder)


def folds_of(name: str) -> list[str]:
    """The checkpoints that a name stands for: those in a folder of folds, or itself."""
    folder = Path(name)
    if not folder.is_dir() or (folder / ADAPTER_CONFIG).exists() or (folder / "config.json").exists():
        return [name]
    folds = [path.parent for path in folder.glob(f"fold*/{ADAPTER_CONFIG}")]
    return [str(path) for path in sorted(folds, key=lambda path: (len(path.name), path.name))] or [name]
