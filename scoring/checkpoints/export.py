"""Export: a checkpoint as one whole model folder, or an adapter with only what scoring needs, to give away.

The whole model is the base with the adapter added to its weights, as `score` multiplies with them: where the checkpoint
is used on a 4-bit base, to the values that those 4 bits stand for. transformers and other engines load the folder.

One shard at a time is in memory. Everything is written into a hidden folder beside OUT, which is renamed in the end, so
that a killed export leaves nothing that looks complete.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file

import scoring
from scoring.checkpoints.adapter import ADAPTER_CONFIG, ADAPTER_FILE
from scoring.checkpoints.checkpoint import CALIBRATION, MANIFEST, Checkpoint, is_hub_id
from scoring.checkpoints.compatibility import quantization_of, read_sound
from scoring.checkpoints.decision_files import DECISION_FILES, write_decision_files
from scoring.checkpoints.merge import Merge, MergeBase
from scoring.checkpoints.weights import BaseWeights, CheckpointError, base_fingerprint, stored_bits
from scoring.files.reading import read_json
from scoring.files.writing import write_json
from scoring.inputs.pixels import PixelPolicy
from scoring.inputs.tokens import ChatTokenizer
from scoring.messages import Progress, ProgressBar
from scoring.scores.exposure import ROWS
from scoring.stats.calibration import Calibration, read_calibration

INDEX = "model.safetensors.index.json"
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
UNFINISHED = ".unfinished"
SMALL_FILES = (".json", ".jinja", ".txt", ".model")  # of a base: configuration, tokenizer, template, pictures


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
            merge.notes += _set_pixels(checkpoint, folder, hidden)
            write_json(hidden / "config.json", merge.config())
            files += _write_manifest(merge, options.dtype, hidden)
            files += _copy_records(merge, hidden)
            merge.notes += _write_decision_files(checkpoint, folder, hidden, read_calibration(hidden / CALIBRATION))
            files += _decision_files_in(hidden)
    finally:
        if bar:
            bar.close()
    return Exported(out, ["config.json", *files], size, merge.notes)


def _plan_merge(checkpoint: Checkpoint, folder: Path, options: ExportOptions) -> Merge:
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


def _check_space(out: Path, merge: Merge) -> int:
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


def _set_pixels(checkpoint: Checkpoint, base: Path, folder: Path) -> list[str]:
    """Put the checkpoint's pixels into the copied picture settings, from which other engines take them; notes on it.

    They stay the base's where the checkpoint names none, and in families that count them otherwise.
    """
    policy, notes = checkpoint.manifest.policy(base), []
    if not checkpoint.manifest.pixels or type(policy) is not PixelPolicy:
        return []
    size = {"shortest_edge": policy.min_pixels, "longest_edge": policy.max_pixels}
    for name in ("processor_config.json", "preprocessor_config.json"):
        values = read_json(folder / name) or {}
        settings = values.get("image_processor") if name == "processor_config.json" else values
        if isinstance(settings, dict) and settings and settings.get("size") != size:
            for limit in ("min_pixels", "max_pixels"):
                settings.pop(limit, None)
            settings["size"] = size
            write_json(folder / name, values)
            notes.append(f"{name}: pictures have the checkpoint's {policy.max_pixels:,} pixels, in place of the base's")
    return notes


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
        calibrations = {
            path.name: read_calibration(path) for path in sorted(checkpoint.folder.glob("calibration*.json"))
        }
        for name, calibration in ({CALIBRATION: checkpoint.calibration} | calibrations).items():
            if calibration:
                calibration.fingerprint |= {"base": fingerprint, "adapter": fingerprint, "quantization": "none"}
                calibration.note = f"fitted on {checkpoint.name} before it was exported"
                write_json(folder / name, calibration.to_json())
                files.append(name)
    if (checkpoint.folder / ROWS).exists():
        shutil.copyfile(checkpoint.folder / ROWS, folder / ROWS)
        files.append(ROWS)
    return files


def _write_decision_files(
    checkpoint: Checkpoint, base: Path, folder: Path, calibration: Calibration | None
) -> list[str]:
    """Write the settings of transformers' `pipeline("decision")`, where the prompt is known; notes for the user.

    calibration: that of what is exported, if it has one.
    """
    if not checkpoint.declared and not checkpoint.decisions:
        return []
    return write_decision_files(folder, ChatTokenizer(base), checkpoint.manifest.prompt, calibration)


def _decision_files_in(folder: Path) -> list[str]:
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
        of_decisions = _write_decision_files(checkpoint, folder, hidden, checkpoint.calibration)
        files += _decision_files_in(hidden)
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
