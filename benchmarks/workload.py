"""What is timed: a base, checkpoints and tables, with the shapes of a real model and random weights, or the demo's.

Such a base is a folder like the real one (config, tokenizer, chat template, sharded safetensors), so the code that
loads it is the code that runs for a user who has the real weights. Its answers mean nothing; its speed does, and so do
the agreement of two ways of computing. The programs' common options and measurements are here too:

    python -m benchmarks.throughput --size 8b --tokenizer DIR --work DIR
"""

import csv
import json
import random
import shutil
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

import scoring
from benchmarks import DEMO
from benchmarks.shapes import SHAPES, Shape
from scoring.checkpoints.weights import BaseWeights
from scoring.engine.packed import PackedModel, product_rate

GIB = 2**30
SHARD = 4 * GIB
WORDS = (
    "검은 흰 갈색 회색 고양이 강아지 말 토끼 나무 위 아래 옆 사람 자동차 건물 창문 빨간 파란 노란 초록 둥근 네모난 "
    "오래된 새로운 세 네 다섯"
).split()


@dataclass
class Workload:
    """Tables by name: `single` has one question about each picture; `four`, which the 8B alone has, asks four."""

    base: Path
    checkpoints: list[Path]
    tables: dict[str, Path]


# ------------------------------------------------------------------ options
size_option = click.option(
    "--size",
    type=click.Choice(["demo", *SHAPES]),
    default="demo",
    show_default=True,
    help="Which model is timed; 8b is Qwen3-VL's.",
)


def full_size_options(command: Callable) -> Callable:
    """The options --tokenizer, --layers, --work and --out."""
    for option in (
        click.option("--out", type=click.Path(path_type=Path), help="JSON file to write."),
        click.option("--work", type=click.Path(path_type=Path), help="Folder for weights and pictures."),
        click.option("--layers", type=int, help="Fewer layers than the model has, to try this program."),
        click.option(
            "--tokenizer", type=click.Path(path_type=Path, exists=True), help="Folder of Qwen3-VL's real tokenizer."
        ),
    ):
        command = option(command)
    return command


def work_folder(work: Path | None) -> Path:
    """The folder of --work, or `benchmarks/work`; made where it is missing."""
    folder = work or Path("benchmarks/work")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# ------------------------------------------------------------------ measurements
def matrix_rate() -> float:
    """Floating point operations a second of one large matrix product on this machine."""
    return product_rate(8192 if torch.cuda.is_available() else 1024)


def circumstances(rate: float, size: str, layers: int | None) -> dict:
    """What a report begins with: the call, the machine and its rate of `matrix_rate`, the versions."""
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    return {
        "command": " ".join(sys.argv[1:]),
        "device": card,
        "product_tflops": rate / 1e12,
        "versions": scoring.versions(),
        "size": size if not layers else f"{size}, {layers} layers",
    }


def reset_peak() -> None:
    """Empty PyTorch's cache and count the card's peak memory anew; does nothing without a card."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> dict[str, float]:
    """GiB on the card at most since `reset_peak`, used by tensors and reserved by PyTorch; empty without a card."""
    if not torch.cuda.is_available():
        return {}
    return {
        "peak_gib": round(torch.cuda.max_memory_allocated() / GIB, 2),
        "reserved_gib": round(torch.cuda.max_memory_reserved() / GIB, 2),
    }


def multiplied_weights(packed: PackedModel, visual: torch.nn.Module) -> tuple[int, int]:
    """How many weights a token of the language model is multiplied with, and how many a patch of a picture."""
    language = sum(linear.shape[0] * linear.shape[1] for linear in packed.linears)
    vision = sum(
        weight.numel()
        for name, weight in visual.named_parameters()
        if weight.ndim > 1 and "pos_embed" not in name and "merger" not in name
    )
    return language, vision


# ------------------------------------------------------------------ what is timed
def of_size(
    size: str, folder: Path, tokenizer: Path | None, rows: int, checkpoints: int = 5, layers: int | None = None
) -> Workload:
    """The workload of --size; one of the real shapes is made in `folder` where it is missing."""
    if size == "demo":
        return demo()
    base = folder / ("base" if size == "8b" else f"base-{size}")
    if not (base / "config.json").exists():
        make_base(base, SHAPES[size], tokenizer, layers)
    return full_size(base, rows, checkpoints)


def demo() -> Workload:
    """The demo's base, both checkpoints and the test table."""
    return Workload(
        DEMO / "base",
        [DEMO / "checkpoints" / "fold0", DEMO / "checkpoints" / "fold1"],
        {"single": DEMO / "test.csv"},
    )


def full_size(base: Path, rows: int, checkpoints: int = 5) -> Workload:
    """Adapters of a base, pictures and tables beside it."""
    folder = base.parent
    names = [folder / f"fold{number}{base.name.removeprefix('base')}" for number in range(checkpoints)]
    for number, name in enumerate(names):
        if not name.exists():
            make_adapter(name, base, number)
    make_pictures(folder / "images", rows)
    tables = {"single": folder / "single.csv", "four": folder / "four.csv"}
    make_table(tables["single"], rows, 1)
    make_table(tables["four"], rows, 4)
    return Workload(base, names, tables)


def make_base(folder: Path, shape: Shape, tokenizer: Path, layers: int | None) -> None:
    """A base folder with random bfloat16 weights of the right shapes, in shards with an index.

    tokenizer: a folder with Qwen3-VL's `tokenizer.json` and chat template. layers: how many, to try a program where all
    of them do not fit.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText

    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tokenizer / name, folder / name)
    if shape.tokens:
        rename_control_tokens(folder / "tokenizer.json", shape.tokens)
    if shape.template:
        (folder / "chat_template.jinja").write_text(shape.template)
    (folder / "preprocessor_config.json").write_text(json.dumps(shape.pictures))
    config = json.loads(json.dumps(shape.config))
    if layers:
        config["text_config"]["num_hidden_layers"] = layers
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    with torch.device("meta"):
        shapes = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(folder)).state_dict()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(0)
    shard, size, index = {}, 0, {}

    def flush() -> None:
        nonlocal shard, size
        name = f"model-{len(set(index.values())):05d}.safetensors"
        save_file(shard, folder / name, metadata={"format": "pt"})
        index.update(dict.fromkeys(shard, name))
        shard, size = {}, 0

    for key, shape in shapes.items():
        if key.endswith("bias"):
            weight = torch.zeros(shape.shape, dtype=torch.bfloat16)
        elif "norm" in key:
            weight = torch.ones(shape.shape, dtype=torch.bfloat16)
        else:
            weight = torch.randn(shape.shape, generator=generator, device=device, dtype=torch.bfloat16).mul_(0.02).cpu()
        shard[key] = weight
        size += weight.numel() * 2
        if size > SHARD:
            flush()
    flush()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def rename_control_tokens(path: Path, names: Mapping[str, str]) -> None:
    """In tokenizer.json."""
    description = json.loads(path.read_text())
    for token in description["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    path.write_text(json.dumps(description))


def make_adapter(folder: Path, base: Path, seed: int, rank: int = 16) -> None:
    """A random LoRA on the projections of the language model's layers, with weights about as large as trained ones."""
    from train.config import SEVEN_PROJECTIONS
    from train.lora import target_modules

    folder.mkdir(parents=True)
    weights = BaseWeights.of(base)
    targets = weights.family.targets(SEVEN_PROJECTIONS)
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name in weights.linear:
        if not name.startswith(weights.family.layers) or name.split(".")[-1] not in targets:
            continue
        outputs, inputs = weights.shapes[f"{name}.weight"]
        key = f"base_model.model.{name}"
        tensors[f"{key}.lora_A.weight"] = torch.randn(rank, inputs, generator=generator) * 0.01
        tensors[f"{key}.lora_B.weight"] = torch.randn(outputs, rank, generator=generator) * 0.01
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": target_modules(list(weights.linear), targets, weights.family),
        "base_model_name_or_path": str(base),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))


def make_pictures(folder: Path, count: int) -> None:
    """640x480 JPEG files with large shapes and fine grain: about 60 KB each, like photographs."""
    folder.mkdir(exist_ok=True)

    def make(number: int) -> None:
        rng = np.random.default_rng(number)
        forms = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((640, 480), Image.BICUBIC)
        grain = Image.fromarray(rng.integers(0, 256, (240, 320, 3), dtype=np.uint8)).resize((640, 480), Image.BILINEAR)
        Image.blend(forms, grain, 0.15).save(folder / f"{number:06d}.jpg", quality=90)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(make, [number for number in range(count) if not (folder / f"{number:06d}.jpg").exists()]))


def make_table(path: Path, rows: int, questions: int) -> None:
    """A table of Korean questions, about as long as real ones; `questions` of them about each picture."""
    rng = random.Random(0)

    def words(low: int, high: int) -> str:
        return " ".join(rng.choice(WORDS) for _ in range(rng.randint(low, high)))

    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["id", "path", "question", "a", "b", "c", "d", "answer", "task_type", "task_hint"])
        for row in range(rows):
            question = f"이 사진에서 {words(2, 10)} 무엇인가요?"
            options = [words(1, 6) for _ in range(4)]
            picture = f"images/{row // questions:06d}.jpg"
            table.writerow([f"{row:06d}", picture, question, *options, rng.choice("abcd"), "object", "물체 인식"])
