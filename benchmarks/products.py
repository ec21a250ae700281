"""Do the matrix products of a model have the same bits for a row, however many rows are multiplied?

    python -m benchmarks.products --size qwen2.5-vl-7b

Needs a card. Each distinct product of the model's linear layers is made for several numbers of rows, as cuBLAS chooses
by itself, and with sums over parts of a row (split-K) forbidden. A batch's bits can only be those of a row alone where
none of them differs.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import click
import torch
import torch.nn.functional as F

from benchmarks.shapes import SHAPES
from scoring.files.writing import write_json

ROWS = (64, 128, 256, 361, 512, 777, 1024, 1537, 2048, 4096, 8192, 16_384, 32_768)
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
    return {"other_bits_at": others, **{f"ms_{n}": _time(rows[:n], weight, added) for n in (361, 16_384)}}


def _time(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, repeats: int = 20) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        F.linear(rows, weight, bias)
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
    if out:
        write_json(out, report)


if __name__ == "__main__":
    main()
