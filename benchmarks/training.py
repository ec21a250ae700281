"""How many rows a second does a training take: by the notebook's step, the libraries' padded step, and ours?

    python -m benchmarks.training                                     the demo: some minutes on two cores
    python -m benchmarks.training --size 8b --tokenizer DIR --work DIR

All ways run in one process. A step is one of `train`: pictures read from files, forward, backward, clipping, AdamW.
Loading and compilation are reported apart.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import torch
import torch.nn.functional as F

from benchmarks import workload
from scoring.benchmark.padded import collate, padded_states
from scoring.engine.stand_in import put_back, unwrap
from scoring.files.writing import write_json
from scoring.messages import silent
from scoring.tables.reading import read_table
from train.config import TrainConfig
from train.inputs import TrainContext, TrainingInputs
from train.model import Memory
from train.plan import TrainingPlan
from train.steps import run_steps
from train.trainer import Trainer


@dataclass
class Way:
    """A way of training, with `batch` rows in a step."""

    name: str
    kind: str  # "notebook", "padded" or a memory mode of `train`: "low" or "fast"
    batch: int
    dropout: float
    compiled: bool = False


def ways_of(on_card: bool) -> list[Way]:
    """All ways; compiled ones on a card alone."""
    plain = [
        Way("the notebook: a row at a time, loss on every token, recomputing", "notebook", 1, 0.05),
        Way("padded, answer's token alone (transformers and PEFT)", "padded", 16, 0.05),
        Way("tree, activations kept", "fast", 16, 0.05),
        Way("tree, activations kept, no dropout", "fast", 16, 0.0),
        Way("tree, recomputing", "low", 16, 0.05),
    ]
    if not on_card:
        return plain
    plain.append(Way("tree, recomputing", "low", 32, 0.05))
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
    return plain[:3] + plain[4:] + compiled


class Bench:
    """One loaded model, which every way trains further."""

    def __init__(self, load: workload.Workload, work: Path, rate: float, rows: int):
        questions = read_table(load.tables["single"]).questions[:rows]
        self.rate, config = rate, TrainConfig(learning_rate=1e-5, epochs=1, compile="off", save_every=10**9)
        inputs = TrainingInputs(str(load.base), questions, questions[:16], work, config)
        self.training = Trainer(inputs, TrainContext(say=silent)).load()
        self.model, self.device = self.training.model, self.training.model.model.device
        self.compiled = False
        self.weights = workload.multiplied_weights(self.model.packed, self.model.model.parts.vision)

    def measure(self, way: Way, steps: int) -> dict:
        """Rows a second over so many steps, after two that are not timed; on a card, its memory."""
        start = time.perf_counter()
        run, operations = self._plain(way) if way.kind in ("notebook", "padded") else self._tree(way)
        run(2)
        self._wait()
        warm_up = time.perf_counter() - start
        workload.reset_peak()
        held = torch.cuda.memory_allocated() if self.device.type == "cuda" else 0  # weights, adapter, optimizer
        start = time.perf_counter()
        run(steps)
        self._wait()
        seconds = time.perf_counter() - start
        result = {"way": way.name, "batch": way.batch, "dropout": way.dropout, "warm_up": round(warm_up, 1)}
        result |= {"seconds": round(seconds, 2), "rows_per_second": steps * way.batch / seconds}
        if operations:
            result["roofline"] = operations * result["rows_per_second"] / self.rate
        if self.device.type == "cuda":
            result |= {"held_gib": round(held / workload.GIB, 2)} | workload.peak_memory()
        return result

    def _tree(self, way: Way) -> tuple[Callable[[int], object], float]:
        """The product's steps, and the floating point operations of a row."""
        training, inputs = self.training, self.training.plan.inputs
        self.model.dropout.share = way.dropout
        self.model.recompute(way.kind == "low")
        if way.compiled and not self.compiled:
            self.model.packed.compile()
            self.compiled = True
        rows = len(inputs.train) // way.batch * way.batch
        config = replace(inputs.config, batch=way.batch)
        plan = TrainingPlan(replace(inputs, train=inputs.train[:rows], config=config))
        memory = Memory(way.kind, 10**9 if self.device.type == "cuda" else training.memory.tokens)
        training = replace(training, plan=plan, memory=memory)
        costs = plan.train_costs
        tokens = costs[0].prefix_tokens / way.batch + sum(cost.tokens for cost in costs) / len(costs)
        patches = sum(cost.picture_tokens for cost in costs) / len(costs) * plan.preparer.policy.merge**2
        # forward, and back through activations; recomputing is forward once more. The vision tower is frozen.
        passes = {"fast": 2, "low": 3}[way.kind]
        language, vision = self.weights
        operations = 2 * language * tokens * passes + 2 * vision * patches
        return lambda steps: run_steps(training, 1, rows // way.batch - steps), operations

    def _plain(self, way: Way) -> tuple[Callable[[int], object], None]:
        """Steps through the libraries' own layers; prompts and pictures are prepared before the clock starts."""
        plan, model, network = self.training.plan, self.model, self.model.network
        rows = [plan.preparer(question) for question in plan.inputs.train[: max(16, way.batch)]]

        def run(steps: int) -> None:
            removed = unwrap(network)
            network.train()
            if self.device.type == "cuda" or way.kind == "notebook":
                network.gradient_checkpointing_enable({"use_reentrant": False})
                network.disable_input_require_grads()  # the library turns it on for another kind of checkpointing
            for module in network.modules():
                for adapter in getattr(module, "lora_dropout", {}).values():
                    if hasattr(adapter, "p"):
                        adapter.p = way.dropout
            for step in range(steps):
                prepared = [rows[(step * way.batch + number) % len(rows)] for number in range(way.batch)]
                batch = collate(*map(list, zip(*prepared))).to(self.device)
                with torch.autocast(self.device.type, model.model.dtype, enabled=self.device.type == "cuda"):
                    if way.kind == "notebook":
                        inputs = batch.inputs(model.model.parts)
                        loss = network(**inputs, use_cache=False, labels=batch.ids).loss
                    else:
                        logits = F.linear(padded_states(network, batch), model.model.head).float()
                        loss = F.cross_entropy(logits, torch.tensor([model.label_ids[0]] * way.batch).to(logits.device))
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.weights, 1.0)
                self.training.state.optimizer.step()
                self.training.state.optimizer.zero_grad(set_to_none=True)
            model.recompute(False)
            put_back(removed)

        return run, None

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


@click.command()
@workload.size_option
@click.option("--rows", default=400, show_default=True, help="Rows of the table.")
@click.option("--steps", default=18, show_default=True, help="Timed steps of 16 rows; other ways get as many rows.")
@click.option("--most-gib", type=float, help="What PyTorch may hold of the card's memory.")
@click.option("--compiled/--no-compiled", default=True, help="Also compiled ways, on a card.")
@click.option("--ways", default="", help="Only ways whose name contains one of these, separated by semicolons.")
@workload.full_size_options
def main(size, rows, steps, most_gib, compiled, ways, tokenizer, layers, work, out) -> None:
    """Time every way of training and print a table."""
    work = workload.work_folder(work)
    rate = workload.matrix_rate()
    load = workload.of_size(size, work, tokenizer, rows, layers=layers)
    report = workload.circumstances(rate, size, layers) | {"ways": []}
    with TemporaryDirectory(dir=work) as folder:
        bench = Bench(load, Path(folder), rate, rows)
        if most_gib:  # once the model is loaded, which looks at all that is free
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(most_gib * workload.GIB / total)
        for way in ways_of(torch.cuda.is_available()):
            if (way.compiled and not compiled) or ways and not any(name in way.name for name in ways.split(";")):
                continue
            slower = 8 if way.kind == "notebook" else 1
            try:
                result = bench.measure(way, max(1, steps * 16 // way.batch // slower))
            except torch.OutOfMemoryError:
                result = {"way": way.name, "batch": way.batch, "dropout": way.dropout, "rows_per_second": 0.0}
                torch.cuda.empty_cache()
            report["ways"].append(result)
            click.echo(json.dumps(result), err=True)
            if out:
                write_json(out, report)
    click.echo(f"{report['device']}, matrix product {rate / 1e12:.1f} TFLOP/s, {report['size']}")
    for way in report["ways"]:
        peak = f"{way['peak_gib']:6.1f} GiB" if "peak_gib" in way else ""
        share = f"{way['roofline']:6.0%}" if "roofline" in way else ""
        click.echo(f"{way['way']:<66}{way['batch']:>4}{way['rows_per_second']:>8.2f} rows/s {peak} {share}")


if __name__ == "__main__":
    main()
