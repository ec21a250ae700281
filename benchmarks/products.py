"""Do the matrix products of a model have the same bits for a row, however many rows are multiplied?

    python -m benchmarks.products --size qwen2.5-vl-7b

Needs a card. Each distinct product of the model's linear layers is made for several numbers of rows, as cuBLAS chooses
by itself, and with sums over parts of a row (split-K) forbidden. A batch's bits can only be those of a row alone where
none of them differs. Among these numbers are all that small trees are filled up to (`scoring/engine/buckets.py`), and
64 leaves. The head's product, whose rows come in blocks of one size, is made with each row at other places of a block.
"""

import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import click
import torch
import torch.nn.functional as F

from benchmarks.shapes import SHAPES
from scoring.engine.buckets import MOST_TOKENS, STEP
from scoring.engine.forward import HEAD_BLOCK, float32_product
from scoring.files.writing import write_json

FILLED_UP = range(STEP, MOST_TOKENS + 2 * STEP, STEP)  # the most tokens, and a filler for each of up to 64 segments
ROWS = (*sorted({*FILLED_UP, 361, 777, 1537}), 4096, 8192, 16_384, 32_768)
MOST = 49_152
COMPARED = 64  # first rows of each product


def products(size: str) -> dict[tuple[int, int, bool], str]:
    """(outputs, inputs, bias) of the linear layers of a real model, each with the name of one layer."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = dict(SHAPES[size].config)
    with torch.device("meta"):
        network = AutoModelForImageTextToText.from_config(AutoConfig.for_model(config.pop("model_type"), **config))
    return {
        (layer.out_features, layer.in_features, layer.bias is not None): name
        for name, layer in network.named_modules()
        if isinstance(layer, torch.nn.Linear) and "lm_head" not in name
    }


def measured(outputs: int, inputs: int, bias: bool) -> dict:
    """Numbers of rows at which the first rows of a product have other bits than among the most, and its time in ms."""
    generator = torch.Generator("cuda").manual_seed(0)
    options = {"generator": generator, "device": "cuda", "dtype": torch.bfloat16}
    rows = torch.randn(MOST, inputs, **options)
    weight, added = torch.randn(outputs, inputs, **options) * 0.02, torch.randn(outputs, **options) if bias else None
    expected = F.linear(rows, weight, added)[:COMPARED]
    others = [n for n in ROWS if not torch.equal(F.linear(rows[:n], weight, added)[:COMPARED], expected[:n])]
    times = {f"ms_{n}": _time(partial(F.linear, rows[:n], weight, added)) for n in (64, 361, 384, 16_384)}
    return {"other_bits_at": others, **times}


def measured_head(outputs: int, inputs: int) -> dict:
    """Of the head's product: turns of a block's rows after which a row has other bits, and its time in ms."""
    generator = torch.Generator("cuda").manual_seed(0)
    options = {"generator": generator, "device": "cuda", "dtype": torch.bfloat16}
    rows, head = torch.randn(HEAD_BLOCK["cuda"], inputs, **options), torch.randn(outputs, inputs, **options) * 0.02
    expected = float32_product(rows, head)
    others = [turn for turn in range(1, len(rows)) if not _turned(rows, head, turn).equal(expected)]
    return {"other_bits_after": others, "ms": _time(partial(float32_product, rows, head))}


def _turned(rows: torch.Tensor, head: torch.Tensor, turn: int) -> torch.Tensor:
    """The product of rows at other places, put back."""
    return float32_product(rows.roll(turn, 0), head).roll(-turn, 0)


def _time(product: Callable[[], torch.Tensor], repeats: int = 20) -> float:
    product()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        product()
    torch.cuda.synchronize()
    return round((time.perf_counter() - start) / repeats * 1e3, 4)


def ways() -> Iterator[str]:
    """As cuBLAS chooses, and without split-K, which PyTorch can forbid cuBLASLt alone."""
    matmul = torch.backends.cuda.matmul
    yield "default"
    torch.backends.cuda.preferred_blas_library("cublaslt")
    yield "cuBLASLt"
    matmul.allow_bf16_reduced_precision_reduction = (False, False)
    yield "cuBLASLt without split-K"
    matmul.allow_bf16_reduced_precision_reduction = (True, True)
    torch.backends.cuda.preferred_blas_library("default")


@click.command()
@click.option("--size", "sizes", type=click.Choice([*SHAPES]), multiple=True, help="Which models.  [default: all]")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file to write.")
def main(sizes, out) -> None:
    """Print each product with its numbers of rows that have other bits."""
    report = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "products": []}
    for size in sizes or SHAPES:
        for (outputs, inputs, bias), name in products(size).items():
            for way in ways():
                line = {"size": size, "layer": name, "outputs": outputs, "inputs": inputs, "bias": bias, "way": way}
                report["products"].append(line | measured(outputs, inputs, bias))
                click.echo(json.dumps(report["products"][-1]))
        text = SHAPES[size].config["text_config"]
        for way in ways():
            line = {"size": size, "layer": "lm_head", "outputs": text["vocab_size"], "inputs": text["hidden_size"]}
            line |= {"way": way}
            report["products"].append(line | measured_head(line["outputs"], line["inputs"]))
            click.echo(json.dumps(report["products"][-1]))
    if out:
        write_json(out, report)


if __name__ == "__main__":
    main()
