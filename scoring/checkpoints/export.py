"""A checkpoint as one whole model folder, or as what a friend needs of an adapter.

The whole model is the base with the adapter added to its weights, as `score` multiplies with them: where the checkpoint
is used on a 4-bit base, on what those 4 bits stand for. transformers loads the folder by itself, and other engines can.

Weights go through memory one shard at a time. Everything is written into a hidden folder beside OUT, which is renamed
in the end: an export that was killed leaves nothing that looks whole.
"""

import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

import scoring
from scoring.checkpoints.adapter import ADAPTER_CONFIG, ADAPTER_FILE, HEAD, names_of
from scoring.checkpoints.checkpoint import CALIBRATION, MANIFEST, Checkpoint, is_hub_id
from scoring.checkpoints.plan import quantization_of, read_sound
from scoring.checkpoints.quantization import NOT_QUANTIZED, why_no_4bit
from scoring.checkpoints.weights import HEAD_WEIGHT, TABLE, BaseWeights, CheckpointError, base_fingerprint, stored_bits
from scoring.files.reading import read_json
from scoring.files.writing import write_json
from scoring.scores.exposure import ROWS
from scoring.stats.calibration import read_calibration

SHARD = 4 * 2**30  # bytes
INDEX = "model.safetensors.index.json"
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
UNFINISHED = ".unfinished"
SMALL_FILES = (".json", ".jinja", ".txt", ".model")  # of a base: configuration, tokenizer, template, pictures
ROWS_AT_ONCE = 16_384  # of a weight that an adapter is added to


@dataclass
class Exported:
    """What was written, and what is to be said about it."""

    folder: Path
    files: list[str]
    size: int  # bytes of weights
    notes: list[str]


# ------------------------------------------------------------------ base and adapter as one model
def export_model(
    name: str,
    out: Path,
    dtype: str = "bf16",
    base: str | None = None,
    quantization: str | None = None,
    progress: Callable | None = None,
    shard: int = SHARD,
) -> Exported:
    """Write the checkpoint `name` into the new folder `out`; the base of a checkpoint that is a whole model as it is.

    quantization: `nf4` or `none`, as in `score`. progress: `progress(total_bytes)` gives an object with `update(bytes)`
    and `close()`. Raises CheckpointError where the checkpoint cannot be scored, OSError where the disk is full.
    """
    checkpoint, folder = _one(name, base)
    check_empty(out)
    weights, scored_in = BaseWeights.of(folder), quantization_of(checkpoint, folder, None)
    if checkpoint.adapter is None:  # nothing to add: its weights as they are
        quantization = quantization or stored_bits(folder) or "none"
    merge = Merge(checkpoint, weights, quantization_of(checkpoint, folder, quantization), DTYPES[dtype])
    merge.check_names()
    if merge.quantization != scored_in:
        merge.notes.append(
            f"the checkpoint is scored with --quantization {scored_in}, this is made with {merge.quantization}: other "
            "answers, and no calibration goes along"
        )
    size = sum(merge.bytes_of(tensor) for tensor in merge.names)
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(out.parent).free
    if free < size:
        raise CheckpointError(f"{out}: {size / 1e9:.1f} GB are to be written, but {free / 1e9:.1f} GB are free there")
    bar = progress(size) if progress else None
    try:
        with _whole_folder(out) as beside:
            files = _write_shards(merge, beside, size, shard, bar)
            files += _copy_small_files(folder, beside)
            write_json(beside / "config.json", merge.config())
            files += _write_about(checkpoint, merge, dtype, beside, scored_in)
    finally:
        if bar:
            bar.close()
    return Exported(out, ["config.json", *files], size, merge.notes)


def _one(name: str, base: str | None) -> tuple[Checkpoint, Path]:
    """The one checkpoint of a name, and its base's folder. Raises CheckpointError or MismatchError."""
    checkpoints, folders = read_sound([name], base)
    if len(checkpoints) > 1:
        several = ", ".join(str(checkpoint.folder) for checkpoint in checkpoints)
        raise CheckpointError(f"{name}: {len(checkpoints)} checkpoints; export one of them, or their soup: {several}")
    return checkpoints[0], folders[0]


@contextmanager
def _whole_folder(out: Path) -> Iterator[Path]:
    """A hidden folder to write into. In the end its files are `out`'s, whole, `config.json` last; else it is gone."""
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


class Merge:
    """The weights of base and adapter together, one at a time; `names` are those of the exported model."""

    def __init__(self, checkpoint: Checkpoint, weights: BaseWeights, quantization: str, dtype: torch.dtype):
        self.checkpoint, self.weights, self.dtype, self.quantization = checkpoint, weights, dtype, quantization
        self.notes: list[str] = []
        self.stored = stored_bits(weights.folder)
        if quantization != "none" and (reason := why_no_4bit()):
            raise CheckpointError(
                f"{checkpoint.folder}: it is used on a base in 4 bits, which cannot be read here ({reason}); "
                "--quantization none adds the adapter to the weights in 16 bits, which gives other answers"
            )
        self.adapter = checkpoint.adapter
        self.key_of = {located: key for key, located in checkpoint.check(weights).keys.items()}
        self.names = [name for name in weights.shapes if name in weights.tensors]
        self.head_apart = HEAD_WEIGHT not in weights.tensors and (HEAD, "lora_A.weight") in self.key_of
        if self.head_apart:
            self.names.append(HEAD_WEIGHT)
            self.notes.append(
                "the head has an adapter, so it is written separately: in the base it shares the embeddings"
            )
        self.linear = set(weights.linear)
        if quantization != "none" and self.adapter:
            self.notes.append(
                f"the adapter was added to what the base's 4 bits ({quantization}) stand for, as `score` does; "
                "score the exported model with no --quantization"
            )

    def check_names(self) -> None:
        """CheckpointError where the configuration's model has other weights than these: it could not be loaded."""
        from transformers import AutoConfig, AutoModelForImageTextToText

        with torch.device("meta"):
            config = AutoConfig.from_pretrained(self.weights.folder, trust_remote_code=False)
            config.quantization_config = None
            network = AutoModelForImageTextToText.from_config(config, trust_remote_code=False)
        wanted, written = set(network.state_dict()), set(self.names)
        if HEAD_WEIGHT not in written and TABLE in written and self.weights.config.get("tie_word_embeddings"):
            wanted.discard(HEAD_WEIGHT)
        if wrong := sorted(wanted ^ written):
            raise CheckpointError(
                f"{self.weights.folder}: its weights are not those of its config.json: {', '.join(wrong[:5])} (of "
                f"{len(wrong)}); expected weights that fit the configuration exactly"
            )

    def bytes_of(self, name: str) -> int:
        return self.dtype.itemsize * math.prod(self.weights.shapes[name])

    def config(self) -> dict:
        """The base's `config.json` for the exported weights."""
        config = json.loads(json.dumps(self.weights.config))
        dtype = str(self.dtype).removeprefix("torch.")
        for part in (config, config.get("text_config"), config.get("vision_config")):
            if isinstance(part, dict):
                part.pop("quantization_config", None)
                part.pop("torch_dtype", None)
                if "dtype" in part or part is config:
                    part["dtype"] = dtype
                if HEAD_WEIGHT in self.names and (part is config or "tie_word_embeddings" in part):
                    part["tie_word_embeddings"] = False
        return config

    def tensor(self, name: str) -> torch.Tensor:
        """One weight of the exported model."""
        module = name.removesuffix(".weight")
        source = TABLE if name == HEAD_WEIGHT and self.head_apart else name
        weight = self._of_base(source)
        if (module, "lora_A.weight") not in self.key_of:
            return weight.to(self.dtype).contiguous()
        down, up = (self._of_adapter(module, f"lora_{factor}.weight") for factor in "AB")
        up = up * self.adapter.scaling(*names_of(module, self.key_of[module, "lora_A.weight"]))
        merged = torch.empty(weight.shape, dtype=self.dtype)
        size = self._of_adapter(module, "lora_magnitude_vector") if self.adapter.use_dora else None
        for start in range(0, len(weight), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            total = torch.addmm(weight[rows].float(), up[rows], down)
            if size is not None:
                total *= (size[rows] / total.norm(dim=1))[:, None]
            merged[rows] = total.to(self.dtype)
        return merged

    def _of_adapter(self, module: str, part: str) -> torch.Tensor:
        with safe_open(self.checkpoint.folder / ADAPTER_FILE, "pt") as file:
            return file.get_tensor(self.key_of[module, part]).float()

    def _of_base(self, name: str) -> torch.Tensor:
        path, _ = self.weights.tensors[name]
        with safe_open(path, "pt") as file:
            weight = file.get_tensor(name)
            if name in self.weights.packed:
                return self._unpacked(name, weight)
        module = name.removesuffix(".weight")
        if (
            self.stored
            or self.quantization == "none"
            or module not in self.linear
            or module.startswith(tuple(NOT_QUANTIZED))
        ):
            return weight
        return _through_4bit(weight, self.quantization)

    def _unpacked(self, name: str, packed: torch.Tensor) -> torch.Tensor:
        from bitsandbytes.functional import QuantState, dequantize_4bit

        parts = {}
        for key, (path, _) in self.weights.tensors.items():
            if key.startswith(f"{name}."):
                with safe_open(path, "pt") as file:
                    parts[key.removeprefix(f"{name}.")] = file.get_tensor(key)
        state = QuantState.from_dict(parts, torch.device("cpu"))
        state.dtype = torch.float32
        return dequantize_4bit(packed, state).view(*self.weights.packed[name]["shape"])


def _through_4bit(weight: torch.Tensor, kind: str) -> torch.Tensor:
    """What is left of a weight in bitsandbytes' 4 bits, as `Model.load` has them made of a base in 16 bits."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    packed, state = quantize_4bit(weight.float(), blocksize=64, compress_statistics=True, quant_type=kind)
    state.dtype = torch.float32
    return dequantize_4bit(packed, state).view(weight.shape)


def _shards(merge: Merge, limit: int) -> Iterator[list[str]]:
    names, size = [], 0
    for name in merge.names:
        if names and size + merge.bytes_of(name) > limit:
            yield names
            names, size = [], 0
        names.append(name)
        size += merge.bytes_of(name)
    yield names


def _write_shards(merge: Merge, folder: Path, size: int, limit: int, bar) -> list[str]:
    shards = list(_shards(merge, limit))
    place, files = {}, []
    for number, names in enumerate(shards, 1):
        file = "model.safetensors" if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        tensors = {}
        for name in names:
            tensors[name] = merge.tensor(name)
            place[name] = file
            if bar:
                bar.update(merge.bytes_of(name))
        save_file(tensors, folder / file, {"format": "pt"})
        files.append(file)
    if len(shards) > 1:
        write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": place})
        files.append(INDEX)
    return files


def _copy_small_files(source: Path, folder: Path) -> list[str]:
    """Tokenizer, chat template, picture and generation settings of the base."""
    others = (INDEX, "config.json", MANIFEST, ADAPTER_CONFIG, "hf_quant_config.json", "trainer_state.json")
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


def _write_about(checkpoint: Checkpoint, merge: Merge, dtype: str, folder: Path, scored_in: str) -> list[str]:
    """Manifest, calibrations and record of rows, so that `score` takes the folder as it took the checkpoint."""
    source = {"checkpoint": checkpoint.name, "fingerprint": checkpoint.fingerprint(), "base": checkpoint.manifest.base}
    manifest = replace(
        checkpoint.manifest,
        base="",
        revision=None,
        base_fingerprint="",
        base_stored="",
        base_codes="",
        quantization="none",
        dtype=dtype,
        training=checkpoint.manifest.training | {"exported": source | {"quantization": merge.quantization}},
        versions=scoring.versions(),
    )
    files = [MANIFEST]
    write_json(folder / MANIFEST, asdict(manifest))
    fingerprint = base_fingerprint(folder)
    same = merge.quantization == scored_in
    for path in sorted(checkpoint.folder.glob("calibration*.json")) if same else ():
        calibration = read_calibration(path)
        calibration.fingerprint |= {"base": fingerprint, "adapter": fingerprint, "quantization": "none"}
        calibration.note = f"fitted on {checkpoint.name} before it was exported"
        write_json(folder / path.name, calibration.to_json())
        files.append(path.name)
    if (checkpoint.folder / ROWS).exists():
        shutil.copyfile(checkpoint.folder / ROWS, folder / ROWS)
        files.append(ROWS)
    return files


def check_empty(out: Path) -> None:
    """CheckpointError where `out` holds anything."""
    if out.exists() and (not out.is_dir() or any(path.name != UNFINISHED for path in out.iterdir())):
        raise CheckpointError(f"{out} holds files already; choose another --out")


# ------------------------------------------------------------------ an adapter for a friend
def export_adapter(name: str, out: Path, base_name: str | None = None, base: str | None = None) -> Exported:
    """Copy what scoring needs of an adapter into the new folder `out`, its base named so that it is found elsewhere.

    base_name: a hub id, with or without @revision. Raises CheckpointError where none is known.
    """
    checkpoint, folder = _one(name, base)
    if checkpoint.adapter is None:
        raise CheckpointError(f"{checkpoint.folder}: a whole model; copy its folder as it is")
    check_empty(out)
    identity, revision = _base_for_others(checkpoint, folder, base_name)
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    names = [ADAPTER_FILE, *(path.name for path in sorted(checkpoint.folder.glob("calibration*.json")))]
    names += [ROWS] * (checkpoint.folder / ROWS).exists()
    with _whole_folder(out) as beside:
        for file in names:
            shutil.copyfile(checkpoint.folder / file, beside / file)
        if checkpoint.declared:
            write_json(beside / MANIFEST, asdict(replace(checkpoint.manifest, base=identity, revision=revision)))
            names.append(MANIFEST)
        named = {"base_model_name_or_path": identity, "revision": revision}
        write_json(beside / ADAPTER_CONFIG, read_json(checkpoint.folder / ADAPTER_CONFIG) | named)
        names.append(ADAPTER_CONFIG)
    left = sorted(path.name + "/" * path.is_dir() for path in checkpoint.folder.iterdir() if path.name not in names)
    notes = [f"base: {identity}{f'@{revision}' if revision else ''}"]
    notes.append(f"left out, since no score needs it: {', '.join(left)}" if left else "nothing was left out")
    return Exported(out, sorted(names), (out / ADAPTER_FILE).stat().st_size, notes)


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
    if found := re.search(r"models--([\w.-]+?)--([\w.-]+)/snapshots/(\w+)$", folder.resolve().as_posix()):
        return f"{found[1]}/{found[2]}", found[3]
    raise CheckpointError(
        f"{checkpoint.folder}: its base is the folder {folder}, on this machine; name the hub id that it came "
        "from with --base-name, such as Qwen/Qwen3-VL-8B-Instruct"
    )
