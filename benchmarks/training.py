"""How many rows a second training takes: the notebook's step, the libraries' padded step and ours, in one run.

    python -m benchmarks.training                                     the demo: minutes on two cores
    python -m benchmarks.training --size 8b --tokenizer DIR --work DIR

A step is one as `train` does it: pictures read from files, forward, back, clipping, AdamW. Loading and compilation
are apart.
"""

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import torch
import torch.nn.functional as F

from benchmarks import workload
from scoring.bench.padded import collate, padded_states
from scoring.engine.packed import product_rate, put_back, unwrap
from scoring.inputs.questions import read_table
from train.config import TrainConfig
from train.inputs import TrainContext, TrainingInputs
from train.model import Memory
from train.plan import TrainingPlan
from train.steps import run_steps
from train.trainer import Trainer

GIB = 2**30


@dataclass
class Way:
    name: str
    kind: str  # "seed", "padded" or a memory mode
    batch: int
    dropout: float
    compiled: bool = False


def ways_of(on_card: bool) -> list[Way]:
    small = [
        Way("the notebook: a row at a time, loss on every token, recomputing", "seed", 1, 0.05),
        Way("padded, answer's token alone (transformers and PEFT)", "padded", 16, 0.05),
        Way("tree, activations kept", "fast", 16, 0.05),
        Way("tree, activations kept, no dropout", "fast", 16, 0.0),
        Way("tree, recomputing", "low", 16, 0.05),
    ]
    if not on_card:
        return small
    compiled = [
        Way(f"tree, {name}{tail}, compiled", kind, batch, dropout, True)
        for kind, name, batch in (
            ("low", "recomputing", 16),
            ("low", "recomputing", 32),
            ("low", "recomputing", 48),
            ("fast", "activations kept", 16),
            ("fast", "activations kept", 20),
            ("fast", "activations kept", 22),
        )
        for dropout, tail in ((0.05, ""), (0.0, ", no dropout"))
    ]
    return small[:3] + small[4:] + compiled


class Bench:
    """One loaded model; every way trains it on."""

    def __init__(self, load: workload.Workload, work: Path, rate: float, rows: int):
        questions = read_table(load.tables["single"]).questions[:rows]
        self.rate, config = rate, TrainConfig(learning_rate=1e-5, epochs=1, compile="off", save_every=10**9)
        inputs = TrainingInputs(str(load.base), questions, questions[:16], work, config)
        self.training = Trainer(inputs, TrainContext(say=lambda text: None)).load()
        self.model, self.device = self.training.model, self.training.model.model.device
        self.compiled = False
        layers = self.model.packed.linears
        self.language = sum(linear.shape[0] * linear.shape[1] for linear in layers)
        visual = self.model.network.model.visual.named_parameters()
        self.visual = sum(
            weight.numel() for name, weight in visual if weight.ndim > 1 and "pos" not in name and "merger" not in name
        )

    def measure(self, way: Way, steps: int) -> dict:
        start = time.perf_counter()
        run = self._plain(way) if way.kind in ("seed", "padded") else self._tree(way)
        run(2)
        self._wait()
        warm = time.perf_counter() - start
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            held = torch.cuda.memory_allocated()
        start = time.perf_counter()
        run(steps)
        self._wait()
        seconds = time.perf_counter() - start
        found = {"way": way.name, "batch": way.batch, "dropout": way.dropout, "warm_up": round(warm, 1)}
        found |= {"seconds": round(seconds, 2), "rows_per_second": steps * way.batch / seconds}
        if way.kind in ("low", "fast"):
            # forward, and back through activations; recomputing is forward once more. The vision tower is frozen.
            passes = {"fast": 2, "low": 3}[way.kind]
            flop = 2 * self.language * self.tokens * passes + 2 * self.visual * self.patches
            found["roofline"] = flop * found["rows_per_second"] / self.rate
        if self.device.type == "cuda":
            found["held_gib"] = round(held / GIB, 2)  # between steps: weights, adapter, optimizer
            found["peak_gib"] = round(torch.cuda.max_memory_allocated() / GIB, 2)
            found["reserved_gib"] = round(torch.cuda.max_memory_reserved() / GIB, 2)
        return found

    def _tree(self, way: Way):
        training, inputs = self.training, self.training.plan.inputs
        self.model.dropout.share = way.dropout
        self.model.recompute(way.kind == "low")
        if way.compiled and not self.compiled:
            self.model.packed.compile()
            self.compiled = True
        whole = len(inputs.train) // way.batch * way.batch
        config = replace(inputs.config, batch=way.batch)
        plan = TrainingPlan(replace(inputs, train=inputs.train[:whole], config=config))
        memory = Memory(way.kind, 10**9 if self.device.type == "cuda" else training.memory.tokens)
        training = replace(training, plan=plan, memory=memory)
        costs = plan.train_costs
        self.tokens = costs[0].prefix_tokens / way.batch + sum(cost.tokens for cost in costs) / len(costs)
        self.patches = sum(cost.picture_tokens for cost in costs) / len(costs) * plan.preparer.policy.merge**2
        return lambda steps: run_steps(training, 1, whole // way.batch - steps)

    def _plain(self, way: Way):
        """The libraries' own layers; prompts and pictures are prepared before the clock starts."""
        plan, model, network = self.training.plan, self.model, self.model.network
        rows = [plan.preparer(question) for question in plan.inputs.train[: max(16, way.batch)]]

        def run(steps: int) -> None:
            taken = unwrap(network)
            network.train()
            if self.device.type == "cuda" or way.kind == "seed":
                model.recompute(True)
                network.model.language_model.layers[-1].gradient_checkpointing = True
            for module in network.modules():
                for adapter in getattr(module, "lora_dropout", {}).values():
                    if hasattr(adapter, "p"):
                        adapter.p = way.dropout
            for step in range(steps):
                part = [rows[(step * way.batch + at) % len(rows)] for at in range(way.batch)]
                batch = collate(*map(list, zip(*part))).to(self.device)
                with torch.autocast(self.device.type, model.model.dtype, enabled=self.device.type == "cuda"):
                    if way.kind == "seed":
                        inputs = batch.inputs(network.config.image_token_id)
                        loss = network(**inputs, use_cache=False, labels=batch.ids).loss
                    else:
                        logits = F.linear(padded_states(network, batch), model.model.head).float()
                        loss = F.cross_entropy(logits, torch.tensor([model.label_ids[0]] * way.batch).to(logits.device))
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.weights, 1.0)
                self.training.state.optimizer.step()
                self.training.state.optimizer.zero_grad(set_to_none=True)
            model.recompute(False)
            put_back(taken)

        return run

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


@click.command()
@click.option("--size", type=click.Choice(["demo", "8b"]), default="demo", show_default=True)
@click.option("--rows", default=400, show_default=True, help="Rows of the table.")
@click.option("--steps", default=18, show_default=True, help="Timed steps of 16 rows; others as many rows.")
@click.option("--ways", default="", help="Only ways whose name contains one of these, separated by semicolons.")
@click.option("--tokenizer", type=click.Path(path_type=Path, exists=True), help="Folder of the real tokenizer, for 8b.")
@click.option("--layers", type=int, help="Fewer layers than the 8B has, to try this program.")
@click.option("--work", type=click.Path(path_type=Path), help="Folder for weights and pictures.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file to write.")
def main(size, rows, steps, ways, tokenizer, layers, work, out) -> None:
    """Time every way of training and print a table."""
    work = work or Path("benchmarks/work")
    work.mkdir(parents=True, exist_ok=True)
    on_card = torch.cuda.is_available()
    rate = product_rate(8192 if on_card else 1024)
    load = workload.demo() if size == "demo" else workload.full_size(work, tokenizer, rows, layers=layers)
    report = workload.circumstances(rate, size, layers) | {"ways": []}
    with TemporaryDirectory(dir=work) as folder:
        bench = Bench(load, Path(folder), rate, rows)
        for way in ways_of(on_card):
            if ways and not any(part in way.name for part in ways.split(";")):
                continue
            try:
                found = bench.measure(way, max(2, steps * 16 // way.batch // (8 if way.kind == "seed" else 1)))
            except torch.OutOfMemoryError:
                found = {"way": way.name, "batch": way.batch, "dropout": way.dropout, "rows_per_second": 0.0}
                torch.cuda.empty_cache()
            report["ways"].append(found)
            click.echo(json.dumps(found), err=True)
            if out:
                out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    click.echo(f"{report['device']}, matrix product {rate / 1e12:.1f} TFLOP/s, {report['size']}")
    for way in report["ways"]:
        peak = f"{way['peak_gib']:6.1f} GiB" if "peak_gib" in way else ""
        share = f"{way['roofline']:6.0%}" if "roofline" in way else ""
        click.echo(f"{way['way']:<66}{way['batch']:>4}{way['rows_per_second']:>8.2f} rows/s {peak} {share}")


if __name__ == "__main__":
    main()
