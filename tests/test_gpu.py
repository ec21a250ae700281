"""On a CUDA device, by hand: `python -m pytest -m gpu`. The same demo, in the card's own types."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
FOLD0 = "demo/checkpoints/fold0"

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(scope="module")
def on_cpu(test_rows):
    """Label logits of the demo's test rows in float32 on this machine's CPU."""
    from scoring import Scorer

    return Scorer.load(FOLD0, device="cpu").score(test_rows)


def softmax(logits: np.ndarray) -> np.ndarray:
    values = np.exp(logits[:, 0, 0] - logits[:, 0, 0].max(1, keepdims=True))
    return values / values.sum(1, keepdims=True)


@pytest.mark.parametrize(
    "dtype, quantization, agreement",
    [(None, "nf4", 0.97), (None, "none", 0.9), (torch.float16, "nf4", 0.97), (torch.float32, "nf4", 1.0)],
)
def test_the_card_answers_as_the_cpu_does(on_cpu, test_rows, dtype, quantization, agreement):
    from scoring.engine.plan import plan_members
    from scoring.engine.scorer import Scorer

    plan = plan_members([FOLD0], quantization=quantization, allow_mismatch=True)
    found = Scorer(plan, "cuda", dtype).score(test_rows)
    assert set(found.status) == {"ok"}
    same = (found.logits[:, 0, 0].argmax(1) == on_cpu.logits[:, 0, 0].argmax(1)).mean()
    moved = np.abs(softmax(found.logits) - softmax(on_cpu.logits)).max(1)
    right = np.mean(["abcd"[at] == row.answer for at, row in zip(found.logits[:, 0, 0].argmax(1), test_rows)])
    print(
        f"\n{dtype}, {quantization}: same letter {same:.4f}, median |dp| {np.median(moved):.5f}, accuracy {right:.4f}"
    )
    assert same >= agreement


@pytest.fixture(scope="module", params=["4bit", "16bit", "4bit, compiled"])
def on_card(request):
    from scoring.engine.plan import plan_members
    from scoring.engine.scorer import Scorer

    scorer = Scorer(plan_members([FOLD0]), "cuda", weights=request.param.split(",")[0])
    if "compiled" in request.param:
        scorer.packed.compile()
    return request.param, scorer


def test_a_row_has_the_same_bits_in_any_company(on_card, test_rows):
    _, scorer = on_card
    whole = scorer.score(test_rows[:64]).logits
    for size in (1, 7):
        assert np.array_equal(scorer.score(test_rows[:64], batch_rows=size).logits, whole)
    order = np.random.default_rng(0).permutation(64)
    assert np.array_equal(scorer.score([test_rows[at] for at in order]).logits, whole[order])


def test_a_tree_has_the_same_bits_as_whole_rows(on_card, test_rows):
    from benchmarks.exactness import answers
    from scoring.engine.batches import make_ready
    from scoring.engine.tree import Tree

    _, scorer = on_card
    ready = make_ready(scorer.prepare, test_rows[:16], "cyclic")
    tree, flat = (answers(scorer, Tree.build(ready.sequences, ready.picture, share), ready) for share in (True, False))
    assert torch.equal(tree, flat)


def test_weights_in_4_and_16_bits_give_the_same_bits(test_rows):
    from scoring.engine.plan import plan_members
    from scoring.engine.scorer import Scorer

    plan = plan_members([FOLD0, "demo/checkpoints/fold1"])
    kept, expanded = (Scorer(plan, "cuda", weights=weights).score(test_rows[:64]) for weights in ("4bit", "16bit"))
    assert np.array_equal(kept.logits, expanded.logits)


def test_the_host_does_not_wait_within_a_batch(on_card, test_rows):
    """Any question to the card raises while the batch is begun."""
    from scoring.engine.batches import make_ready, with_tensors

    _, scorer = on_card
    ready = with_tensors(make_ready(scorer.prepare, test_rows[:64], "1"), scorer.prepare, "cuda")
    scorer.answer(ready, 4)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        scorer.answer(ready, 4)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_train_and_score_on_the_card(cli, tmp_path):
    start = time.monotonic()
    cli("train", "demo/train.csv", "--base", "demo/base", "--out", tmp_path / "ckpt", "--learning-rate", 1e-3)
    manifest = json.loads((tmp_path / "ckpt" / "scoring.json").read_text())
    print(f"\ntrained in {time.monotonic() - start:.0f} s: {manifest['metrics']}")
    assert manifest["quantization"] == "nf4" and manifest["metrics"]["accuracy"] > 0.6
    cli("score", "demo/test.csv", "--ckpt", tmp_path / "ckpt", "--ckpt", FOLD0, "--out", tmp_path / "scores")
    about = json.loads((tmp_path / "scores" / "run.json").read_text())
    print(about["identity"], json.loads((tmp_path / "scores" / "metrics.json").read_text())["overall"]["accuracy"])
    assert about["identity"]["device"] == "cuda" and about["counts"]["scored"] == 400


def test_a_killed_run_on_the_card_ends_with_the_same_bytes(cli, tmp_path):
    arguments = ["score", "demo/test.csv", "--ckpt", FOLD0, "--batch-tokens", "400"]
    cli(*arguments, "--out", tmp_path / "whole")
    process = subprocess.Popen([sys.executable, "cli.py", *arguments, "--out", str(tmp_path / "killed")], cwd=ROOT)
    parts, until = tmp_path / "killed" / "logits", time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None and len(list(parts.glob("*.parquet"))) < 3:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert "going on:" in cli(*arguments, "--out", tmp_path / "killed").stderr
    for name in ("probabilities.csv", *(f"logits/{path.name}" for path in (tmp_path / "whole" / "logits").iterdir())):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_card_without_bitsandbytes_scores_in_16_bits(cli, tmp_path):
    hidden = tmp_path / "hidden" / "bitsandbytes"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ImportError('not for this machine')")
    environment = os.environ | {"PYTHONPATH": str(hidden.parent)}
    done = cli("score", "demo/test.csv", "--ckpt", FOLD0, "--out", tmp_path / "scores", env=environment)
    assert "no 4-bit weights here (not for this machine): the base is kept in bfloat16" in done.stderr
    assert "400 of 400 rows scored" in done.stdout
    print(done.stdout)
