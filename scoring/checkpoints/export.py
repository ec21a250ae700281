"""Export: a checkpoint as one whole model folder, or an adapter with only what scoring needs, to give away.

The whole model is the base with the adapter added to its weights, as `score` multiplies with them: where the checkpoint
is used on a 4-bit base, to the values that those 4 bits stand for. transformers and other engines load the folder.

One shard at a time is in memory. Everything is written into a hidden folder beside OUT, which is renamed in the end, so
that a killed export leaves nothing that looks complete.
"""

import json
import math
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

import scoring
from scoring.checkpoints.adapter import ADAPTER_CONFIG, ADAPTER_FILE, LORA_A, LORA_B, MAGNITUDE, names_of
from scoring.checkpoints.checkpoint import CALIBRATION, MANIFEST, Checkpoint, is_hub_id
from scoring.checkpoints.compatibility import quantization_of, read_sound
from scoring.checkpoints.decision_files import DECISION_FILES, write_decision_files
from scoring.checkpoints.quantization import why_no_4bit
from scoring.checkpoints.weights import BaseWeights, CheckpointError, StoredTensor, base_fingerprint, stored_bits
from scoring.files.reading import read_json
from scoring.files.writing import write_json
from scoring.inputs.families.family import HEAD, HEAD_WEIGHT
from scoring.inputs.tokens import ChatTokenizer
from scoring.messages import Progress, ProgressBar
from scoring.scores.exposure import ROWS
from scoring.stats.calibration import read_calibration

INDEX = "model.safetensors.index.json"
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
UNFINISHED = ".unfinished"
SMALL_FILES = (".json", ".jinja", ".txt", ".model")  # of a base: configuration, tokenizer, template, pictures
ROWS_AT_ONCE = 16_384  # of a weight that an adapter is added to


@dataclass(frozen=True)
class ExportOptions:
    """What a whole model is written as.

    dtype: bf16, fp16 or fp32. quantization: of the base that the adapter is added to, `nf4` or `none`; None: as `score`
    uses it. shard_bytes: the most bytes of a file, unless a single weight is larger.
    """

    dtype: str = "bf16"
    quantization: str | None = None
    shard_bytes: int = 4 * 2**30


@dataclass(frozen=True)
class Exported:
    """What was written, and notes for the user."""

    folder: Path
    files: list[str]
    size: int  # bytes of weights
    notes: list[str]


# ------------------------------------------------------------------ base and adapter as one model
def export_model(
    name: str,
    out: Path,
    base: str | None = None,
    options: ExportOptions | None = None,
    progress: Progress | None = None,
) -> Exported:
    """Write the checkpoint `name` into the new folder `out`; a checkpoint that is a whole model with its own weights.

    base: in place of the one that the checkpoint names. progress: opens a bar of bytes. Raises CheckpointError where
    the checkpoint cannot be scored, OSError where the disk is full.
    """
    options = options or ExportOptions()
    checkpoint, folder = _read_one(name, base)
    check_empty(out)
    merge = _plan_merge(checkpoint, folder, options)
    merge.check_names()
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    size = _check_space(out, merge)
    bar = progress(size) if progress else None
    try:
        with _whole_folder(out) as hidden:
            files = _write_shards(merge, hidden, options.shard_bytes, bar)
            files += _copy_small_files(folder, hidden)
            write_json(hidden / "config.json", merge.config())
            files += _write_manifest(merge, options.dtype, hidden)
            files += _copy_records(merge, hidden)
            files += _write_decision_files(checkpoint, folder, hidden, merge.notes)
    finally:
        if bar:
            bar.close()
    return Exported(out, ["config.json", *files], size, merge.notes)


def _plan_merge(checkpoint: Checkpoint, folder: Path, options: ExportOptions) -> "Merge":
    """Raises CheckpointError or MismatchError where base and adapter cannot be merged as the options say."""
    scored_in, requested = quantization_of(checkpoint, folder, None), options.quantization
    if checkpoint.adapter is None:  # nothing to add: its weights as they are
        requested = requested or stored_bits(folder) or "none"
    quantization = quantization_of(checkpoint, folder, requested)
    merge = Merge(checkpoint, MergeBase(BaseWeights.of(folder), quantization), DTYPES[options.dtype])
    if quantization != scored_in:
        merge.notes.append(
            f"the checkpoint is scored with --quantization {scored_in}, but exported with {quantization}: the model's "
            "answers differ, so no calibration is copied"
        )
    return merge


def _check_space(out: Path, merge: "Merge") -> int:
    """The bytes of weights to write. Raises CheckpointError where the disk lacks them."""
    size = sum(merge.bytes_of(tensor) for tensor in merge.names)
    free = shutil.disk_usage(out.parent).free
    if free < size:
        raise CheckpointError(f"{out}: needs {size / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free; free some space")
    return size


def _read_one(name: str, base: str | None) -> tuple[Checkpoint, Path]:
    """The only checkpoint of a name, and its base's folder. Raises CheckpointError or MismatchError."""
    checkpoints, folders = read_sound([name], base)
    if len(checkpoints) > 1:
        several = ", ".join(str(checkpoint.folder) for checkpoint in checkpoints)
        raise CheckpointError(f"{name}: {len(checkpoints)} checkpoints; export one of {several}, or make their `soup`")
    return checkpoints[0], folders[0]


@contextmanager
def _whole_folder(out: Path) -> Iterator[Path]:
    """A hidden folder to write into.

    It becomes `out`; where that is an empty folder already, its files are moved there, `config.json` last. After an
    error it is deleted.
    """
    inside = out.exists()  # an empty folder, perhaps a drive of its own
    hidden = out / UNFINISHED if inside else out.parent / f".{out.name}{UNFINISHED}"
    shutil.rmtree(hidden, ignore_errors=True)  # of a call that was killed
    hidden.mkdir()
    try:
        yield hidden
        for path in hidden.iterdir():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        if inside:
            for path in sorted(hidden.iterdir(), key=lambda path: path.name in ("config.json", ADAPTER_CONFIG)):
                os.replace(path, out / path.name)
        else:
            hidden.rename(out)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


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


def _shards(merge: Merge, limit: int) -> Iterator[list[str]]:
    """The weights of each file: of at most `limit` bytes, unless it is a single one."""
    names: list[str] = []
    size = 0
    for name in merge.names:
        if names and size + merge.bytes_of(name) > limit:
            yield names
            names, size = [], 0
        names.append(name)
        size += merge.bytes_of(name)
    yield names


def _write_shards(merge: Merge, folder: Path, limit: int, bar: ProgressBar | None) -> list[str]:
    """Write the weights, with an index where they are several files; the files' names."""
    shards = list(_shards(merge, limit))
    files: list[str] = []
    file_of: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = "model.safetensors" if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        tensors = {}
        for name in names:
            tensors[merge.file_name(name)] = merge.tensor(name)
            file_of[merge.file_name(name)] = file
            if bar:
                bar.update(merge.bytes_of(name))
        save_file(tensors, folder / file, {"format": "pt"})
        files.append(file)
    if len(shards) > 1:
        size = sum(merge.bytes_of(name) for name in merge.names)
        write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": file_of})
        files.append(INDEX)
    return files


def _copy_small_files(source: Path, folder: Path) -> list[str]:
    """Tokenizer, chat template, picture and generation settings of the base."""
    others = (
        INDEX,
        "config.json",
        MANIFEST,
        ADAPTER_CONFIG,
        "hf_quant_config.json",
        "trainer_state.json",
        *DECISION_FILES,
    )
    names = [
        path.name
        for path in sorted(source.iterdir())
        if path.is_file()
        and path.suffix in SMALL_FILES
        and path.name not in others
        and not path.name.startswith((CALIBRATION.split(".")[0], "metrics"))
        and not path.name.endswith(".index.json")
    ]
    for name in names:
        shutil.copyfile(source / name, folder / name)
    return names


def _write_manifest(merge: Merge, dtype: str, folder: Path) -> list[str]:
    """A manifest with which `score` takes the folder as it took the checkpoint."""
    checkpoint = merge.checkpoint
    source = {
        "checkpoint": checkpoint.name,
        "fingerprint": checkpoint.fingerprint(),
        "base": checkpoint.manifest.base,
        "quantization": merge.quantization,
    }
    manifest = replace(
        checkpoint.manifest,
        base="",
        revision=None,
        base_fingerprint="",
        base_stored="",
        base_codes="",
        quantization="none",
        dtype=dtype,
        training=checkpoint.manifest.training | {"exported": source},
        versions=scoring.versions(),
    )
    write_json(folder / MANIFEST, asdict(manifest))
    return [MANIFEST]


def _copy_records(merge: Merge, folder: Path) -> list[str]:
    """The checkpoint's calibrations, where the exported model gives the same answers, and its record of rows."""
    checkpoint, files = merge.checkpoint, []
    if merge.quantization == quantization_of(checkpoint, merge.weights.folder, None):
        fingerprint = base_fingerprint(folder)
        for path in sorted(checkpoint.folder.glob("calibration*.json")):
            if calibration := read_calibration(path):
                calibration.fingerprint |= {"base": fingerprint, "adapter": fingerprint, "quantization": "none"}
                calibration.note = f"fitted on {checkpoint.name} before it was exported"
                write_json(folder / path.name, calibration.to_json())
                files.append(path.name)
    if (checkpoint.folder / ROWS).exists():
        shutil.copyfile(checkpoint.folder / ROWS, folder / ROWS)
        files.append(ROWS)
    return files


def _write_decision_files(checkpoint: Checkpoint, base: Path, folder: Path, notes: list[str]) -> list[str]:
    """The settings of transformers' `pipeline("decision")`, where the prompt is known; adds to the notes.

    folder: holds the calibration that belongs to what is exported, if any does.
    """
    if not checkpoint.declared:
        return []
    calibration = read_calibration(folder / CALIBRATION)
    notes += write_decision_files(folder, ChatTokenizer(base), checkpoint.manifest.prompt, calibration)
    return [name for name in DECISION_FILES if (folder / name).exists()]


def check_empty(out: Path) -> None:
    """Raises CheckpointError where `out` holds anything."""
    if out.exists() and (not out.is_dir() or any(path.name != UNFINISHED for path in out.iterdir())):
        raise CheckpointError(f"{out} holds files already; choose another --out")


# ------------------------------------------------------------------ an adapter to give away
def export_adapter(name: str, out: Path, base_name: str | None = None, base: str | None = None) -> Exported:
    """Copy what scoring needs of an adapter into the new folder `out`, its base named so that others find it.

    base_name: a hub id, with or without @revision. Raises CheckpointError where none is known.
    """
    checkpoint, folder = _read_one(name, base)
    if checkpoint.adapter is None:
        raise CheckpointError(f"{checkpoint.folder}: a whole model; copy its folder as it is")
    check_empty(out)
    identity, revision = _base_for_others(checkpoint, folder, base_name)
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    files = [ADAPTER_FILE, *(path.name for path in sorted(checkpoint.folder.glob("calibration*.json")))]
    if (checkpoint.folder / ROWS).exists():
        files.append(ROWS)
    with _whole_folder(out) as hidden:
        for file in files:
            shutil.copyfile(checkpoint.folder / file, hidden / file)
        if checkpoint.declared:
            write_json(hidden / MANIFEST, asdict(replace(checkpoint.manifest, base=identity, revision=revision)))
            files.append(MANIFEST)
        of_decisions: list[str] = []
        files += _write_decision_files(checkpoint, folder, hidden, of_decisions)
        config = read_json(checkpoint.folder / ADAPTER_CONFIG) or {}
        write_json(hidden / ADAPTER_CONFIG, config | {"base_model_name_or_path": identity, "revision": revision})
        files.append(ADAPTER_CONFIG)
    of_base = f"base: {identity}{f'@{revision}' if revision else ''}"
    notes = [of_base, *of_decisions, _note_left_out(checkpoint.folder, files)]
    return Exported(out, sorted(files), (out / ADAPTER_FILE).stat().st_size, notes)


def _note_left_out(folder: Path, files: list[str]) -> str:
    """What stays behind of a checkpoint's folder."""
    left_out = sorted(path.name + ("/" if path.is_dir() else "") for path in folder.iterdir() if path.name not in files)
    return f"left out, since no score needs it: {', '.join(left_out)}" if left_out else "nothing was left out"


def _base_for_others(checkpoint: Checkpoint, folder: Path, given: str | None) -> tuple[str, str | None]:
    """The base as a hub id and a revision: as given, as the checkpoint names it, or as the hub's cache does."""
    if given:
        if not is_hub_id(given):
            raise CheckpointError(f"base {given!r}: expected a hub id, such as Qwen/Qwen3-VL-8B-Instruct")
        identity, _, revision = given.partition("@")
        return identity, revision or None
    manifest = checkpoint.manifest
    if is_hub_id(manifest.base) and not Path(manifest.base).is_dir():
        identity, _, revision = manifest.base.partition("@")
        return identity, revision or manifest.revision
    if match := re.search(r"models--([\w.-]+?)--([\w.-]+)/snapshots/(\w+)$", folder.resolve().as_posix()):
        return f"{match[1]}/{match[2]}", match[3]
    raise CheckpointError(
        f"{checkpoint.folder}: its base is the folder {folder}, on this machine; name the hub id that it came "
        "from with --base-name, such as Qwen/Qwen3-VL-8B-Instruct"
    )
