"""What is timed: a base, checkpoints and tables, with the shapes of the real 8B and random weights, or the demo's.

The 8B is a folder like the real one (config, tokenizer, chat template, sharded safetensors), so the code that loads it
is the code that runs for a user who has the real weights. Its answers mean nothing; its speed does, and so does whether
two ways of computing agree. The programs' common options and measurements are here too:

    python -m benchmarks.throughput --size 8b --tokenizer DIR --work DIR
"""

import csv
import json
import random
import shutil
import sys
from collections.abc import Callable
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
from scoring.engine.packed import PackedModel, product_rate

GIB = 2**30
SHARD = 4 * GIB
# config.json of Qwen/Qwen3-VL-8B-Instruct
CONFIG = {
    "architectures": ["Qwen3VLForConditionalGeneration"],
    "model_type": "qwen3_vl",
    "image_token_id": 151655,
    "video_token_id": 151656,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "tie_word_embeddings": False,
    "text_config": {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "dtype": "bfloat16",
        "eos_token_id": 151645,
        "head_dim": 128,
        "hidden_act": "silu",
        "hidden_size": 4096,
        "initializer_range": 0.02,
        "intermediate_size": 12288,
        "max_position_embeddings": 262144,
        "model_type": "qwen3_vl_text",
        "num_attention_heads": 32,
        "num_hidden_layers": 36,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-06,
        "rope_theta": 5000000,
        "use_cache": True,
        "vocab_size": 151936,
        "rope_scaling": {"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"},
    },
    "vision_config": {
        "deepstack_visual_indexes": [8, 16, 24],
        "depth": 27,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_size": 1152,
        "in_channels": 3,
        "initializer_range": 0.02,
        "intermediate_size": 4304,
        "model_type": "qwen3_vl",
        "num_heads": 16,
        "num_position_embeddings": 2304,
        "out_hidden_size": 4096,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    },
}
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
    "--size", type=click.Choice(["demo", "8b"]), default="demo", show_default=True, help="Which model is timed."
)


def full_size_options(command: Callable) -> Callable:
    """The options --tokenizer, --layers, --work and --out."""
    for option in (
        click.option("--out", type=click.Path(path_type=Path), help="JSON file to write."),
        click.option("--work", type=click.Path(path_type=Path), help="Folder for weights and pictures."),
        click.option("--layers", type=int, help="Fewer layers than the 8B has, to try this program."),
        click.option(
            "--tokenizer", type=click.Path(path_type=Path, exists=True), help="Folder of the real tokenizer, for 8b."
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
    """The workload of --size; the 8B is made in `folder` where it is missing."""
    return demo() if size == "demo" else full_size(folder, tokenizer, rows, checkpoints, layers)


def demo() -> Workload:
    """The demo's base, both checkpoints and the test table."""
    return Workload(
        DEMO / "base",
        [DEMO / "checkpoints" / "fold0", DEMO / "checkpoints" / "fold1"],
        {"single": DEMO / "test.csv"},
    )


def full_size(folder: Path, tokenizer: Path, rows: int, checkpoints: int = 5, layers: int | None = None) -> Workload:
    """The 8B in `folder`. tokenizer: a folder with the real `tokenizer.json` and chat template.

    layers: how many, to try a program where all of them do not fit.
    """
    base = folder / "base"
    if not (base / "config.json").exists():
        make_base(base, tokenizer, layers)
    names = [folder / f"fold{number}" for number in range(checkpoints)]
    for number, name in enumerate(names):
        if not name.exists():
            make_adapter(name, base, number)
    make_pictures(folder / "images", rows)
    tables = {"single": folder / "single.csv", "four": folder / "four.csv"}
    make_table(tables["single"], rows, 1)
    make_table(tables["four"], rows, 4)
    return Workload(base, names, tables)


def make_base(folder: Path, tokenizer: Path, layers: int | None) -> None:
    """A base folder with random bfloat16 weights of the right shapes, in shards with an index."""
    from transformers import AutoConfig, Qwen3VLForConditionalGeneration

    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tokenizer / name, folder / name)
    shutil.copy(DEMO / "base" / "preprocessor_config.json", folder)
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    settings["size"] = {"shortest_edge": 65536, "longest_edge": 16777216}  # as the real 8B has
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    config = json.loads(json.dumps(CONFIG))
    if layers:
        config["text_config"]["num_hidden_layers"] = layers
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    with torch.device("meta"):
        shapes = Qwen3VLForConditionalGeneration(AutoConfig.from_pretrained(folder)).state_dict()
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


def make_adapter(folder: Path, base: Path, seed: int, rank: int = 16) -> None:
    """A random LoRA on the seven projections, with weights about as large as trained ones."""
    from train.config import SEVEN_PROJECTIONS

    folder.mkdir(parents=True)
    text = json.loads((base / "config.json").read_text())["text_config"]
    width, inner, head = text["hidden_size"], text["intermediate_size"], text["head_dim"]
    queries, keys = text["num_attention_heads"] * head, text["num_key_value_heads"] * head
    shapes = {
        "self_attn.q_proj": (queries, width),
        "self_attn.k_proj": (keys, width),
        "self_attn.v_proj": (keys, width),
        "self_attn.o_proj": (width, queries),
        "mlp.gate_proj": (inner, width),
        "mlp.up_proj": (inner, width),
        "mlp.down_proj": (width, inner),
    }
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for layer in range(text["num_hidden_layers"]):
        for name, (outputs, inputs) in shapes.items():
            key = f"base_model.model.model.language_model.layers.{layer}.{name}"
            weights[f"{key}.lora_A.weight"] = torch.randn(rank, inputs, generator=generator) * 0.01
            weights[f"{key}.lora_B.weight"] = torch.randn(outputs, rank, generator=generator) * 0.01
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": list(SEVEN_PROJECTIONS),
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
