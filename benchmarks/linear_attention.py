"""Is the prefix tree faster than padding where three of four layers have linear attention? Random weights, real code.

    python -m benchmarks.linear_attention                                   a CPU: two small models, in minutes
    python -m benchmarks.linear_attention --size 9b --rows 128 --pixels 200704 --padded-rows 32 --out FILE    a card

The same rows of the demo are answered by the tree and by transformers' own forward over padded prompts, in one order of
the options and in all cyclic ones. Pictures are read and prompts encoded before the clock starts. The ways take turns;
of each pair the ratio counts. On a CPU the clock is that of the process, which other work does not touch.
"""

import itertools
import json
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import torch

from benchmarks import DEMO, workload
from benchmarks.shapes import QWEN3_5_9B
from scoring.benchmark.padded import collate, padded_states
from scoring.engine.batches import build_tensors, prepare_batch
from scoring.engine.costs import costs_of, plan_batches
from scoring.engine.forward import project
from scoring.engine.loading import Model, default_device, default_dtype
from scoring.engine.nodes import Nodes
from scoring.engine.packed import PackedModel
from scoring.files.writing import write_json
from scoring.inputs.families.registry import policy_of
from scoring.inputs.prepare import Preparer
from scoring.inputs.prompt import PromptTemplate
from scoring.tables.reading import read_table

SMALL = {"num_attention_heads": 4, "num_key_value_heads": 2, "linear_num_key_heads": 4, "linear_num_value_heads": 8}
# What smaller models have other than Qwen3.5-9B: in the language model, and in the vision tower.
SIZES: dict[str, tuple[dict[str, int], dict[str, int]]] = {
    "tiny": (
        SMALL
        | {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 4, "head_dim": 32}
        | {"linear_key_head_dim": 16, "linear_value_head_dim": 16},
        {"hidden_size": 32, "intermediate_size": 128, "depth": 2, "num_heads": 2, "out_hidden_size": 64},
    ),
    "small": (
        SMALL
        | {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8, "head_dim": 128}
        | {"linear_key_head_dim": 64, "linear_value_head_dim": 64},
        {"hidden_size": 128, "intermediate_size": 512, "depth": 4, "num_heads": 4, "out_hidden_size": 512},
    ),
    "9b": ({}, {}),
}


def make_model(size: str, folder: Path) -> Model:
    """A model of random weights on this machine's device. folder: where its configuration and tokenizer are put.

    Its tokenizer and chat template are the demo's.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText

    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "preprocessor_config.json"):
        shutil.copy(DEMO / "base" / name, folder)
    demo = json.loads((DEMO / "base" / "config.json").read_text())
    config = json.loads(json.dumps(QWEN3_5_9B.config))
    config |= {name: value for name, value in demo.items() if name.endswith("_token_id")}
    text, tower = SIZES[size]
    config["text_config"] |= text | {name: demo["text_config"][name] for name in ("vocab_size", "eos_token_id")}
    config["vision_config"] |= tower
    text = config["text_config"]
    text["layer_types"] = text["layer_types"][: text["num_hidden_layers"]]
    pairs = text["head_dim"] // 8  # that are rotated: a quarter of a head
    text["rope_parameters"]["mrope_section"] = [pairs - 2 * (pairs // 3), pairs // 3, pairs // 3]
    (folder / "config.json").write_text(json.dumps(config))
    device = default_device()
    torch.manual_seed(0)
    with device:
        network = AutoModelForImageTextToText.from_config(
            AutoConfig.from_pretrained(folder), dtype=default_dtype(device), attn_implementation="sdpa"
        )
    return Model(network.eval().requires_grad_(False), folder, device, default_dtype(device), "none")


class Bench:
    """One model, and the rows of the demo prepared in every order of `orders`, in the batches of each way."""

    def __init__(self, model: Model, rows: int, pixels: int | None, orders: str, padded_rows: int):
        self.model = model
        policy = policy_of(model.folder, pixels)
        self.prepare = Preparer.of_base(model.folder, PromptTemplate(), policy)
        self.packed = PackedModel(model, [None], policy, "16bit")
        self.label_ids = self.prepare.label_ids(4)
        questions = read_table(DEMO / "test.csv").questions[:rows]
        costs = list(costs_of(self.prepare, questions, orders))
        planned = plan_batches(costs, self.packed.batch_tokens())
        self.batches = [prepare_batch(self.prepare, [questions[row] for row in rows], orders) for rows in planned]
        self.prompts = [(batch, number) for batch in self.batches for number in range(len(batch.sequences))]
        self.prompts.sort(key=lambda prompt: len(prompt[0].sequences[prompt[1]].ids))
        patches = {question.id: self.prepare(question)[1] for question in questions}
        self.padded = []
        for start in range(0, len(self.prompts), padded_rows):
            part = self.prompts[start : start + padded_rows]
            shown = [batch.questions[batch.rows[number]].id for batch, number in part]
            self.padded.append(([batch.sequences[number] for batch, number in part], [patches[row] for row in shown]))

    @torch.no_grad()
    def tree(self) -> torch.Tensor:
        """(prompts, 4) label logits by the engine, batch by batch."""
        labels = []
        for batch in self.batches:
            tensors = build_tensors(batch, self.model.device.type).to(self.model.device)
            labels.append(self.packed.answer(tensors, self.label_ids)[0].labels)
        return torch.cat(labels)

    @torch.no_grad()
    def padding(self) -> torch.Tensor:
        """(prompts, 4) label logits by transformers, in the order of `prompts`."""
        labels = []
        for sequences, pictures in self.padded:
            states = padded_states(self.model.network, collate(sequences, pictures).to(self.model.device))
            labels.append(project(states, self.model.head, self.label_ids).labels)
        return torch.cat(labels)

    def counts(self) -> dict[str, int]:
        """Tokens and nodes of all trees, and tokens of the padded prompts."""
        trees = [build_tensors(batch, "cpu").tree for batch in self.batches]
        cut = [Nodes.of(tree) for tree in trees]
        return {
            "prompts": len(self.prompts),
            "batches": len(self.batches),
            "tokens_of_the_trees": sum(len(tree.ids) for tree in trees),
            "nodes": sum(len(nodes.parents) for nodes in cut),
            "levels_at_most": max(int(nodes.levels.max()) + 1 for nodes in cut),
            "tokens_padded": sum(len(part) * max(len(row.ids) for row in part) for part, _ in self.padded),
        }

    def difference(self) -> dict[str, float]:
        """The largest label logit, and how far the ways' are apart at most."""
        ends = itertools.accumulate((len(batch.sequences) for batch in self.batches), initial=0)
        first = {id(batch): start for batch, start in zip(self.batches, ends)}
        order = [first[id(batch)] + number for batch, number in self.prompts]
        tree, padding = self.tree()[order].float(), self.padding().float()
        return {"largest_logit": padding.abs().max().item(), "difference": (tree - padding).abs().max().item()}


def seconds(way: Callable[[], Any]) -> float:
    """Of one call: on a card until it is done, on a CPU of the process's own time."""
    if not torch.cuda.is_available():
        start = time.process_time()
        way()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    way()
    torch.cuda.synchronize()
    return time.perf_counter() - start


@click.command()
@click.option("--size", "sizes", multiple=True, type=click.Choice([*SIZES]), help="Models.  [default: tiny, small]")
@click.option("--rows", default=48, show_default=True, help="Rows of the demo's test table.")
@click.option("--pixels", type=int, help="Of a picture.  [default: the demo's]")
@click.option("--padded-rows", default=16, show_default=True, help="Prompts in a batch of the padded way.")
@click.option("--repeats", default=5, show_default=True, help="Pairs; medians are reported.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file to write.")
def main(sizes, rows, pixels, padded_rows, repeats, out) -> None:
    """Time both ways and print a table."""
    report = workload.circumstances(workload.matrix_rate(), ", ".join(sizes or ("tiny", "small")), None) | {"ways": []}
    for size in sizes or ("tiny", "small"):
        with TemporaryDirectory() as folder:
            model = make_model(size, Path(folder))
            for orders in ("1", "cyclic"):
                bench = Bench(model, rows, pixels, orders, padded_rows)
                measured = {"size": size, "orders": orders} | bench.counts() | bench.difference()  # also warms up
                workload.reset_peak()
                pairs = []
                for number in range(repeats):
                    ways = (bench.tree, bench.padding) if number % 2 else (bench.padding, bench.tree)
                    taken = {way.__name__: seconds(way) for way in ways}
                    pairs.append((taken["tree"], taken["padding"]))
                ratios = [padding / tree for tree, padding in pairs]
                measured |= {
                    "tree_seconds": statistics.median(tree for tree, _ in pairs),
                    "padding_seconds": statistics.median(padding for _, padding in pairs),
                    "times_as_fast": statistics.median(ratios),
                    "each": ratios,
                }
                measured |= workload.peak_memory()
                report["ways"].append(measured)
                click.echo(json.dumps({k: round(v, 6) if isinstance(v, float) else v for k, v in measured.items()}))
            del bench, model
    if out:
        write_json(out, report)


if __name__ == "__main__":
    main()
