"""What do checkpoints from elsewhere cost? The guard at load, bases in 4 bits, export, fingerprints.

    python -m benchmarks.foreign                                                           the demo
    python -m benchmarks.foreign --size 8b --tokenizer DIR --work DIR --out FILE           the 8B's shapes

Differences are between label logits, less their mean, of this product and of transformers with PEFT, which loads the
same folders by its own code and answers one row at a time.
"""

import gc
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np
import psutil
import torch

from benchmarks import ROOT, cli_command, workload
from scoring.checkpoints.plan import Plan, plan_members
from scoring.checkpoints.weights import base_fingerprint
from scoring.engine.batch_scorer import BatchScorer
from scoring.engine.guard import compare_first
from scoring.engine.loading import Model, default_device, default_dtype
from scoring.engine.reference import reference_logits
from scoring.files.writing import write_json
from scoring.inputs.questions import Question
from scoring.tables.reading import read_table

SMALL_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "preprocessor_config.json")


def plan_of(checkpoint: Path, base: Path | None) -> Plan:
    """The plan of one checkpoint, on its own base or another."""
    return plan_members([str(checkpoint)], base and str(base), allow_mismatch=True)


def label_logits(scorer: BatchScorer, rows: list[Question]) -> np.ndarray:
    """(N, 4) label logits by this product, less their mean."""
    return centred(scorer.score(rows).logits[:, 0, 0, :4])


def centred(logits: np.ndarray) -> np.ndarray:
    """Logits (N, K) less the mean of each row."""
    return logits - logits.mean(1, keepdims=True)


def by_libraries(base: Path, adapter: Path | None, scorer: BatchScorer, rows: list[Question]) -> np.ndarray:
    """(N, 4) label logits by transformers, with PEFT where there is an adapter, in this machine's type of numbers."""
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText, BitsAndBytesConfig

    device, dtype = default_device(), default_dtype(default_device())
    stored_in_4_bits = "quantization_config" in (base / "config.json").read_text("utf-8")
    options = {}
    if not stored_in_4_bits and scorer.plan.quantization == "nf4":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            llm_int8_skip_modules=["lm_head", "model.visual"],
        )
    network = AutoModelForImageTextToText.from_pretrained(base, dtype=dtype, device_map={"": device}, **options)
    for layer in network.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False
    if adapter:
        PeftModel.from_pretrained(network, adapter)
    network.eval()
    logits = [reference_logits(network, *scorer.prepare(row))[scorer.label_ids[:4]].cpu().numpy() for row in rows]
    return centred(np.stack(logits))


def differences(logits: np.ndarray, expected: np.ndarray) -> dict:
    """How far two sets of label logits (N, 4) are apart. spread: mean range of the expected ones in a row."""
    distance = np.abs(logits - expected).max(1)
    same = float((logits.argmax(1) == expected.argmax(1)).mean())
    spread = float(np.ptp(expected, axis=1).mean())
    return {
        "largest": float(distance.max()),
        "median": float(np.median(distance)),
        "same_letter": same,
        "spread": spread,
    }


def free() -> None:
    """Give back the memory of models that are no longer used."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def timed(call: Callable[[], object]) -> tuple[float, object]:
    """Seconds of a call, and its result."""
    start = time.perf_counter()
    result = call()
    return round(time.perf_counter() - start, 3), result


def first_batch(load: workload.Workload, rows: list[Question], guard: bool) -> dict:
    """Seconds of a process's first batch and of the next, and of the guard before them where it is asked for."""
    scorer, guard_figures = BatchScorer(plan_of(load.checkpoints[0], load.base)), {}
    if guard:
        seconds, comparison = timed(lambda: compare_first(scorer, rows))
        guard_figures = {"guard": seconds, **comparison.to_json()}
    return guard_figures | {
        "first_batch": timed(lambda: scorer.score(rows))[0],
        "next_batch": timed(lambda: scorer.score(rows))[0],
    }


def guarded(arguments: list[str]) -> dict:
    """What the guard adds to a process that scores: with it and without, in turn, each in processes of its own."""
    runs: dict[str, list[dict]] = {"with": [], "without": []}
    for _ in range(2):
        for kind, results in runs.items():
            command = [sys.executable, "-m", "benchmarks.foreign", "--first-batch", kind, *arguments]
            done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
            results.append(json.loads(done.stdout.splitlines()[-1]))
    seconds = {
        kind: min(result.get("guard", 0) + result["first_batch"] for result in results)
        for kind, results in runs.items()
    }
    return {"seconds_added": round(seconds["with"] - seconds["without"], 3), **runs}


def exported(checkpoint: Path, base: Path, out: Path) -> dict:
    """One `export` in a process of its own: seconds, sizes, and its peak memory without and with the files it maps."""
    start = time.perf_counter()
    command = cli_command("export", checkpoint, "--base", base, "--out", out)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    watched, without_files, with_files = psutil.Process(process.pid), 0, 0
    while process.poll() is None:
        try:
            memory = watched.memory_info()
        except psutil.NoSuchProcess:
            break
        without_files, with_files = max(without_files, memory.rss - memory.shared), max(with_files, memory.rss)
        time.sleep(0.02)
    if process.wait():
        raise RuntimeError(f"export ended with {process.returncode}")
    shards = [path.stat().st_size for path in out.glob("*.safetensors")]
    return {
        "seconds": round(time.perf_counter() - start, 1),
        "gb": sum(shards) / 1e9,
        "shards": len(shards),
        "largest_shard_gb": max(shards) / 1e9,
        "peak_gb": without_files / 1e9,
        "peak_with_mapped_files_gb": with_files / 1e9,
    }


def gigabytes(folder: Path) -> float:
    """The size of a folder's weights."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 1e9


@click.command()
@workload.size_option
@click.option("--rows", default=16, show_default=True, help="Rows that are compared.")
@workload.full_size_options
@click.option("--guard-alone", is_flag=True, help="Measure only what the guard costs.")
@click.option("--first-batch", "first", type=click.Choice(["with", "without"]), hidden=True)
def main(size, rows, tokenizer, layers, work, out, guard_alone, first) -> None:
    """Measure guard, fingerprint, bases and export, and print the figures."""
    work = workload.work_folder(work)
    rate = 0.0 if first else workload.matrix_rate()
    load = workload.of_size(size, work, tokenizer, rows, 1, layers)
    questions = read_table(load.tables["single"]).questions[:rows]
    if first:
        click.echo(json.dumps(first_batch(load, questions, first == "with")))
        return
    checkpoint, report = load.checkpoints[0], workload.circumstances(rate, size, layers)

    def record(name: str, figures: dict) -> None:
        report[name] = figures
        click.echo(f"{name}: {json.dumps(figures)}", err=True)
        if out:
            write_json(out, report)

    free()
    options = {"--size": size, "--rows": rows, "--tokenizer": tokenizer, "--layers": layers, "--work": work}
    given = [(option, str(value)) for option, value in options.items() if value is not None]
    record("guard", guarded([word for pair in given for word in pair]))
    if guard_alone:
        return
    with TemporaryDirectory(dir=work) as name:
        folder = Path(name)
        seconds, _ = timed(lambda: base_fingerprint(load.base))
        seconds_again, _ = timed(lambda: base_fingerprint(load.base))
        record("fingerprint", {"seconds": seconds, "seconds_again": seconds_again, "gb": gigabytes(load.base)})
        scorer = BatchScorer(plan_of(checkpoint, load.base))
        from_16_bits = label_logits(scorer, questions)
        free()
        expected = by_libraries(load.base, checkpoint, scorer, questions)
        record("base_in_16_bits", differences(from_16_bits, expected))
        del scorer
        free()
        in_4_bits = folder / "four"
        seconds, _ = timed(lambda: Model.load(load.base).network.save_pretrained(in_4_bits))
        for file in SMALL_FILES:
            shutil.copy(load.base / file, in_4_bits)
        free()
        scorer = BatchScorer(plan_of(checkpoint, in_4_bits))
        from_4_bits = label_logits(scorer, questions)
        against_libraries = differences(from_4_bits, by_libraries(in_4_bits, checkpoint, scorer, questions))
        del scorer
        free()
        figures = {
            "gb": gigabytes(in_4_bits),
            "seconds_to_save": seconds,
            "from_the_16_bit_base": float(np.abs(from_4_bits - from_16_bits).max()),
        }
        record("base_in_4_bits", against_libraries | figures)
        whole_model = folder / "whole"
        figures = exported(checkpoint, load.base, whole_model)
        scorer = BatchScorer(plan_of(whole_model, None))
        figures["score_of_it"] = differences(label_logits(scorer, questions), from_16_bits)
        free()
        figures["transformers_of_it"] = differences(by_libraries(whole_model, None, scorer, questions), from_16_bits)
        record("export", figures)


if __name__ == "__main__":
    main()
