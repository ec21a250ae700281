"""What checkpoints from elsewhere cost on a card: the guard at load, bases in 4 bits, export, fingerprints.

    python -m benchmarks.foreign                                                           the demo
    python -m benchmarks.foreign --size 8b --tokenizer DIR --work DIR --out FILE           the 8B's shapes

Differences are of label logits, their mean taken off, between this product and transformers with PEFT's own loading of
the same folders, a row at a time.
"""

import gc
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np
import psutil
import torch

from benchmarks import workload
from scoring.checkpoints.plan import plan_members
from scoring.checkpoints.weights import base_fingerprint
from scoring.engine.guard import compare_first
from scoring.engine.loading import Model, default_device, default_dtype
from scoring.engine.packed import product_rate
from scoring.engine.reference import reference_logits
from scoring.engine.scorer import Scorer
from scoring.files.writing import write_json
from scoring.inputs.questions import Question, read_table

ROOT = Path(__file__).resolve().parent.parent
SMALL = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "preprocessor_config.json")


def plan_of(checkpoint: Path, base: Path | None):
    return plan_members([str(checkpoint)], base and str(base), allow_mismatch=True)


def label_logits(scorer: Scorer, rows: list[Question]) -> np.ndarray:
    """(N, 4), their mean taken off."""
    return centred(scorer.score(rows).logits[:, 0, 0, :4])


def centred(logits: np.ndarray) -> np.ndarray:
    return logits - logits.mean(1, keepdims=True)


def by_libraries(base: Path, adapter: Path | None, scorer: Scorer, rows: list[Question]) -> np.ndarray:
    """The same from transformers, with PEFT where there is an adapter, in this machine's type."""
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText, BitsAndBytesConfig

    device, dtype = default_device(), default_dtype(default_device())
    stored = "quantization_config" in (base / "config.json").read_text("utf-8")
    options = {}
    if not stored and scorer.plan.quantization == "nf4":
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
    found = [reference_logits(network, *scorer.prepare(row))[scorer.label_ids[:4]].cpu().numpy() for row in rows]
    return centred(np.stack(found))


def differences(ours: np.ndarray, theirs: np.ndarray) -> dict:
    """How far two sets of label logits are apart."""
    off = np.abs(ours - theirs).max(1)
    same = float((ours.argmax(1) == theirs.argmax(1)).mean())
    spread = float(np.ptp(theirs, axis=1).mean())
    return {"largest": float(off.max()), "median": float(np.median(off)), "same_letter": same, "spread": spread}


def free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def timed(call) -> tuple[float, object]:
    start = time.perf_counter()
    result = call()
    return round(time.perf_counter() - start, 3), result


def first_batch(load: workload.Workload, rows: list[Question], guard: bool) -> dict:
    """Seconds of a process's first batch and of the next, and of the guard before them."""
    scorer, values = Scorer(plan_of(load.checkpoints[0], load.base)), {}
    if guard:
        seconds, compared = timed(lambda: compare_first(scorer, rows))
        values = {"guard": seconds, **compared.to_json()}
    return values | {
        "first_batch": timed(lambda: scorer.score(rows))[0],
        "next_batch": timed(lambda: scorer.score(rows))[0],
    }


def guarded(arguments: list[str]) -> dict:
    """What the guard adds to a process that scores: with it and without, each in processes of its own, in turn."""
    found: dict[str, list[dict]] = {"with": [], "without": []}
    for _ in range(2):
        for kind, values in found.items():
            command = [sys.executable, "-m", "benchmarks.foreign", "--first-batch", kind, *arguments]
            done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
            values.append(json.loads(done.stdout.splitlines()[-1]))
    seconds = {
        kind: min(sum(value for key, value in each.items() if key in ("guard", "first_batch")) for each in values)
        for kind, values in found.items()
    }
    return {"seconds_added": round(seconds["with"] - seconds["without"], 3), **found}


def exported(checkpoint: Path, base: Path, out: Path) -> dict:
    """One `export` in a process of its own, and its memory at the highest: of its own, and with the files it maps."""
    command = [sys.executable, str(ROOT / "cli.py"), "export", str(checkpoint), "--base", str(base), "--out", str(out)]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    watched, own, with_files = psutil.Process(process.pid), 0, 0
    while process.poll() is None:
        try:
            memory = watched.memory_info()
        except psutil.NoSuchProcess:
            break
        own, with_files = max(own, memory.rss - memory.shared), max(with_files, memory.rss)
        time.sleep(0.02)
    if process.wait():
        raise RuntimeError(f"export ended with {process.returncode}")
    size = sum(path.stat().st_size for path in out.glob("*.safetensors"))
    shards = [path.stat().st_size for path in out.glob("*.safetensors")]
    return {
        "seconds": round(time.perf_counter() - start, 1),
        "gb": size / 1e9,
        "shards": len(shards),
        "largest_shard_gb": max(shards) / 1e9,
        "peak_gb": own / 1e9,
        "peak_with_mapped_files_gb": with_files / 1e9,
    }


@click.command()
@click.option("--size", type=click.Choice(["demo", "8b"]), default="demo", show_default=True)
@click.option("--rows", default=16, show_default=True, help="Rows that are compared.")
@click.option("--tokenizer", type=click.Path(path_type=Path, exists=True), help="Folder of the real tokenizer, for 8b.")
@click.option("--layers", type=int, help="Fewer layers than the 8B has, to try this program.")
@click.option("--work", type=click.Path(path_type=Path), help="Folder for weights and pictures.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file to write.")
@click.option("--guard-alone", is_flag=True, help="Nothing but what the guard costs.")
@click.option("--first-batch", "first", type=click.Choice(["with", "without"]), hidden=True)
def main(size, rows, tokenizer, layers, work, out, guard_alone, first) -> None:
    """Measure all of it, and print it."""
    work = work or Path("benchmarks/work")
    work.mkdir(parents=True, exist_ok=True)
    rate = 0.0 if first else product_rate(8192 if torch.cuda.is_available() else 1024)
    load = workload.demo() if size == "demo" else workload.full_size(work, tokenizer, rows, 1, layers=layers)
    questions = read_table(load.tables["single"]).questions[:rows]
    if first:
        click.echo(json.dumps(first_batch(load, questions, first == "with")))
        return
    checkpoint, report = load.checkpoints[0], workload.circumstances(rate, size, layers)

    def tell(name: str, values: dict) -> None:
        report[name] = values
        click.echo(f"{name}: {json.dumps(values)}", err=True)
        if out:
            write_json(out, report)

    free()
    given = {"--size": size, "--rows": rows, "--tokenizer": tokenizer, "--layers": layers, "--work": work}
    tell("guard", guarded([str(part) for pair in given.items() if pair[1] is not None for part in pair]))
    if guard_alone:
        return
    with TemporaryDirectory(dir=work) as name:
        folder = Path(name)
        first, _ = timed(lambda: base_fingerprint(load.base))
        again, _ = timed(lambda: base_fingerprint(load.base))
        size_of = sum(path.stat().st_size for path in load.base.glob("*.safetensors")) / 1e9
        tell("fingerprint", {"seconds": first, "seconds_again": again, "gb": size_of})
        scorer = Scorer(plan_of(checkpoint, load.base))
        ours = label_logits(scorer, questions)
        free()
        tell("base_in_16_bits", differences(ours, by_libraries(load.base, checkpoint, scorer, questions)))
        del scorer
        free()
        four = folder / "four"
        saved, _ = timed(lambda: Model.load(load.base).network.save_pretrained(four))
        for file in SMALL:
            shutil.copy(load.base / file, four)
        free()
        scorer = Scorer(plan_of(checkpoint, four))
        stored = label_logits(scorer, questions)
        against = differences(stored, by_libraries(four, checkpoint, scorer, questions))
        del scorer
        free()
        gb = sum(path.stat().st_size for path in four.glob("*.safetensors")) / 1e9
        from_16 = float(np.abs(stored - ours).max())
        tell("base_in_4_bits", against | {"gb": gb, "seconds_to_save": saved, "from_the_16_bit_base": from_16})
        whole = folder / "whole"
        values = exported(checkpoint, load.base, whole)
        scorer = Scorer(plan_of(whole, None))
        again = label_logits(scorer, questions)
        values["score_of_it"] = differences(again, ours)
        free()
        values["transformers_of_it"] = differences(by_libraries(whole, None, scorer, questions), ours)
        tell("export", values)


if __name__ == "__main__":
    main()
