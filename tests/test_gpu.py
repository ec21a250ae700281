"""On a CUDA device, by hand: `python -m pytest -m gpu`. The same demo, in the card's own types."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
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
    from scoring.engine.batch_scorer import BatchScorer

    return BatchScorer.load(FOLD0, device="cpu").score(test_rows)


@contextmanager
def waiting_is_an_error():
    """Inside, any question of the host to the card raises."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def softmax(logits: np.ndarray) -> np.ndarray:
    values = np.exp(logits[:, 0, 0] - logits[:, 0, 0].max(1, keepdims=True))
    return values / values.sum(1, keepdims=True)


@pytest.mark.parametrize(
    "dtype, quantization, agreement",
    [(None, "nf4", 0.97), (None, "none", 0.9), (torch.float16, "nf4", 0.97), (torch.float32, "nf4", 1.0)],
)
def test_the_card_answers_as_the_cpu_does(on_cpu, test_rows, dtype, quantization, agreement):
    from scoring.checkpoints.plan import plan_members
    from scoring.engine.batch_scorer import BatchScorer

    plan = plan_members([FOLD0], quantization=quantization, allow_mismatch=True)
    found = BatchScorer(plan, "cuda", dtype).score(test_rows)
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
    from scoring.checkpoints.plan import plan_members
    from scoring.engine.batch_scorer import BatchScorer

    scorer = BatchScorer(plan_members([FOLD0]), "cuda", weights=request.param.split(",")[0])
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
    from scoring.engine.batches import prepare_batch
    from scoring.engine.tree import Tree

    _, scorer = on_card
    ready = prepare_batch(scorer.prepare, test_rows[:16], "cyclic")
    sequences, pictures = ready.sequences, ready.picture_numbers
    tree, flat = (answers(scorer, Tree.build(sequences, pictures, share), ready) for share in (True, False))
    assert torch.equal(tree, flat)


def test_several_pictures_or_none_have_the_same_bits_in_any_company(on_card, test_rows):
    """As options, between texts and first, beside rows in words alone; the tree, too, against whole rows."""
    from dataclasses import replace

    from benchmarks.exactness import answers
    from scoring.engine.batches import prepare_batch
    from scoring.engine.tree import Tree

    def asked(row, count, question, options):
        sources = test_rows[row : row + count]
        pictures = tuple(source.pictures[0] for source in sources)
        sizes = tuple(source.sizes[0] for source in sources)
        return replace(test_rows[row], pictures=pictures, sizes=sizes, question=question, options=options)

    _, scorer = on_card
    rows = []
    for row in range(0, 24, 3):
        options = test_rows[row].options
        rows += [
            asked(row, 0, test_rows[row].question, options),
            asked(row, 2, "<image 2> or <image 1>?", options),
            asked(row, 3, "Which?", ("<image 2>", "<image 3>", "none")),
            asked(row, 1, test_rows[row].question, options),
        ]
    whole = scorer.score(rows, "cyclic").logits
    for size in (1, 5):
        assert np.array_equal(scorer.score(rows, "cyclic", batch_rows=size).logits, whole, equal_nan=True)
    ready = prepare_batch(scorer.prepare, rows, "cyclic")
    sequences, pictures = ready.sequences, ready.picture_numbers
    tree, flat = (answers(scorer, Tree.build(sequences, pictures, share), ready) for share in (True, False))
    assert torch.equal(tree, flat)


def test_a_mixture_of_experts_answers_as_the_reference(mixture, test_rows):
    """In any company; the same bits are not promised, since an expert's product has as many rows as tokens chose it.

    On an H100 in bfloat16: median .046, at most .165 (benchmarks/LOG.md).
    """
    from scoring.checkpoints.plan import plan_members
    from scoring.engine.batch_scorer import BatchScorer
    from scoring.engine.reference import reference_logits

    scorer = BatchScorer(plan_members([str(mixture)], quantization="nf4"))
    whole, alone = scorer.score(test_rows[:64]).logits, scorer.score(test_rows[:64], batch_rows=3).logits
    print(f"\nin other company: {np.abs(whole - alone).max():.4f}, bits alike: {np.array_equal(whole, alone)}")
    expected = [
        reference_logits(scorer.model.network, *scorer.prepare(question))[scorer.label_ids[:4]].cpu().numpy()
        for question in test_rows[:64]
    ]
    off = np.abs(whole[:, 0, 0] - np.stack(expected)).max(1)
    others = np.abs(whole[:, 0, 0] - np.roll(expected, 1, axis=0)).max(1)  # of the rows before: what a mix-up would be
    print(f"from the reference: {np.median(off):.4f}, at most {off.max():.4f}; of other rows {np.median(others):.4f}")
    assert np.abs(whole - alone).max() < 0.35 and np.median(off) < 0.1 and off.max() < 0.35
    assert np.median(others) > 5 * np.median(off)


def test_weights_in_4_and_16_bits_give_the_same_bits(test_rows):
    from scoring.checkpoints.plan import plan_members
    from scoring.engine.batch_scorer import BatchScorer

    plan = plan_members([FOLD0, "demo/checkpoints/fold1"])
    kept, expanded = (BatchScorer(plan, "cuda", weights=weights).score(test_rows[:64]) for weights in ("4bit", "16bit"))
    assert np.array_equal(kept.logits, expanded.logits)


@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_tensors_that_are_read_ahead_have_the_bits_and_types_that_the_library_gives_them(monkeypatch, quantization):
    from scoring.engine.loading import Model

    ahead = Model.load(Path("demo/base"), quantization, "cuda").network.state_dict()
    monkeypatch.setattr("scoring.engine.loading.reads_ahead", lambda device: False)
    plain = Model.load(Path("demo/base"), quantization, "cuda").network.state_dict()
    assert ahead.keys() == plain.keys()
    for name, weight in ahead.items():
        assert weight.dtype == plain[name].dtype and torch.equal(weight, plain[name]), name


def test_the_host_does_not_wait_within_a_batch(on_card, test_rows):
    """Any question to the card raises while the batch is begun."""
    from scoring.engine.batches import prepare_batch, with_tensors

    _, scorer = on_card
    ready = with_tensors(prepare_batch(scorer.prepare, test_rows[:64], "1"), "cuda")
    scorer.answer(ready, 4)
    torch.cuda.synchronize()
    with waiting_is_an_error():
        scorer.begin(ready, 4)


def test_a_batch_is_collected_while_later_ones_are_still_computed(on_card, test_rows):
    from scoring.engine.batches import prepare_batch, with_tensors

    _, scorer = on_card
    parts = (test_rows[:4], test_rows)
    first, later = (with_tensors(prepare_batch(scorer.prepare, rows, "1"), "cuda") for rows in parts)
    expected = scorer.score(test_rows[:4]).logits
    scorer.answer(later, 4)
    begun = scorer.begin(first, 4)
    torch.cuda._sleep(2_000_000_000)  # cycles: about a second
    behind = scorer.begin(later, 4)
    assert np.array_equal(scorer.collect(first, begun, 4).logits, expected)
    assert not behind.ready
    behind.wait()
    assert behind.ready


@pytest.fixture(scope="module", params=["4bit", "16bit", "two checkpoints"])
def recording(request):
    """A scorer whose small batches may be recorded as CUDA graphs."""
    from scoring.checkpoints.plan import plan_members
    from scoring.engine.batch_scorer import BatchScorer

    several = request.param == "two checkpoints"
    scorer = BatchScorer(
        plan_members([FOLD0, "demo/checkpoints/fold1"] if several else [FOLD0]),
        "cuda",
        weights="4bit" if several else request.param,
    )
    assert scorer.graphs.why_not == ""
    return scorer


def same(one, other) -> bool:
    """Whether two results have the same bits."""
    return all(
        np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True)
        for name in ("logits", "label_mass", "top_token")
    )


def test_recorded_passes_have_the_bits_of_a_batch_and_of_passes_that_are_not(recording, test_rows, monkeypatch):
    rows, ways = test_rows[:64], [(1, "1"), (7, "1"), (2, "cyclic"), (1, "cyclic")]
    whole = {orders: recording.score(rows, orders) for orders in ("1", "cyclic")}
    for size, orders in ways * 2:  # one shape after the other, each of them again
        assert same(recording.score(rows, orders, batch_rows=size), whole[orders])
    count = len(recording.graphs.recorded)
    print(f"\n{count} graphs")
    assert count > 1 and recording.graphs.why_not == ""
    monkeypatch.setattr(recording.graphs, "why_not", "not now")
    for size, orders in ways:
        assert same(recording.score(rows, orders, batch_rows=size), whole[orders])
    assert len(recording.graphs.recorded) == count


def test_answers_of_recorded_passes_stay_while_more_are_asked_for(recording, test_rows):
    """The host runs ahead: all are begun before the first is read."""
    from scoring.engine.batches import prepare_batch

    rows = test_rows[:8]
    batches = [prepare_batch(recording.prepare, [row], "1") for row in rows]
    begun = [recording.begin(batch, 4) for _ in range(3) for batch in batches]
    whole = recording.score(rows)
    for number, (batch, pending) in enumerate(zip(batches * 3, begun)):
        assert np.array_equal(recording.collect(batch, pending, 4).logits[0], whole.logits[number % len(rows)])


def test_a_recorded_pass_that_was_dropped_is_recorded_again(recording, test_rows, monkeypatch):
    rows = test_rows[:6]
    monkeypatch.setattr("scoring.engine.graphs.MOST_GRAPHS", 1)
    monkeypatch.setattr("scoring.engine.graphs.REPAID", 2)
    whole = {orders: recording.score(rows * 11, orders) for orders in ("1", "cyclic")}
    for _ in range(3):
        for orders in ("1", "cyclic"):
            found = recording.score(rows, orders, batch_rows=1)
            assert np.array_equal(found.logits, whole[orders].logits[: len(rows)])
    recording.graphs.clear()
    assert np.array_equal(recording.score(rows, batch_rows=1).logits, whole["1"].logits[: len(rows)])


def test_the_host_does_not_wait_for_a_recorded_pass(recording, test_rows):
    from scoring.engine.batches import prepare_batch

    for _ in range(3):
        recording.score(test_rows[:1])
    ready = prepare_batch(recording.prepare, test_rows[:1], "1")
    torch.cuda.synchronize()
    with waiting_is_an_error():
        recording.begin(ready, 4)


def test_a_pass_that_cannot_be_recorded_is_answered_all_the_same(test_rows, monkeypatch):
    from scoring.engine.batch_scorer import BatchScorer

    scorer = BatchScorer.load(FOLD0)
    whole, answer = scorer.score(test_rows[:64]), scorer.packed.answer

    def waiting(*arguments):
        torch.cuda.synchronize()  # raises while a pass is recorded
        return answer(*arguments)

    monkeypatch.setattr(scorer.packed, "answer", waiting)
    for _ in range(3):
        assert np.array_equal(scorer.score(test_rows[:1]).logits, whole.logits[:1])
    print(f"\n{scorer.model.notes[-1]}")
    assert "could not be recorded" in scorer.graphs.why_not and scorer.graphs.why_not in scorer.model.notes[-1]
    torch.randn(3, device="cuda")  # others still get random numbers
    assert same(scorer.score(test_rows[:64]), whole)


def test_a_row_of_the_head_has_the_same_bits_at_every_place():
    """And those of a float32 product, but for rounding; at the sizes of Qwen3-VL-8B."""
    from scoring.engine.forward import float32_product, project
    from scoring.engine.linear import whole_sums

    torch.manual_seed(0)
    states = torch.randn(300, 4096, device="cuda", dtype=torch.bfloat16)
    head = torch.randn(151_936, 4096, device="cuda", dtype=torch.bfloat16) * 0.02
    labels = [64, 65, 66, 67, 151_935]
    with whole_sums():
        many, few, one = (project(states[-count:], head, labels) for count in (300, 130, 1))
        turned = project(states.roll(77, 0), head, labels)
        logits = float32_product(states[:128], head)
    for name in ("labels", "log_total", "top"):
        all_rows = getattr(many, name)
        assert torch.equal(getattr(few, name), all_rows[-130:]) and torch.equal(getattr(one, name), all_rows[-1:])
        assert torch.equal(getattr(turned, name), all_rows.roll(77, 0))
    assert (logits - states[:128].float() @ head.float().T).abs().max() < 1e-3
    assert torch.equal(many.labels[:128], logits[:, labels]) and torch.equal(many.top[:128], logits.argmax(1))
    assert (many.log_total[:128] - logits.double().logsumexp(1)).abs().max() < 1e-4


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


@pytest.mark.parametrize("memory", ["fast", "low"])
def test_gradients_on_the_card_are_those_of_float32(base, test_rows, tmp_path, memory):
    from scoring.engine.batches import prepare_batch, with_tensors
    from train.config import TrainConfig
    from train.inputs import TrainContext, TrainingInputs
    from train.trainer import Trainer

    found = {}
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("scoring.engine.loading.default_dtype", lambda device, dtype=dtype: dtype)
            config = TrainConfig(dropout=0.0, memory=memory, compile="off")
            inputs = TrainingInputs(str(base), test_rows[:16], test_rows[:16], tmp_path, config)
            training = Trainer(inputs, TrainContext(say=lambda text: None)).load()
            training.close()
        model, generator = training.model, torch.Generator().manual_seed(0)
        for weight in model.weights:
            weight.data.copy_(torch.randn(weight.shape, generator=generator) * 0.02)
        model.network.train()
        preparer = training.plan.preparer
        ready = with_tensors(prepare_batch(preparer, test_rows[:16], "1"), "cuda")
        model.loss_backward(ready, (0,), 16)
        assert model.scaler.is_enabled() == (dtype == torch.float16)
        found[dtype] = torch.cat([weight.grad.flatten() for weight in model.weights]) / model.scaler.get_scale()
    for dtype in (torch.bfloat16, torch.float16):
        off = ((found[dtype] - found[torch.float32]).norm() / found[torch.float32].norm()).item()
        print(f"\n{memory}, {dtype}: gradients {off:.4f} from float32's")
        assert off < 0.05


def test_float16_training_on_the_card_learns(base, demo, tmp_path, monkeypatch):
    from scoring.tables.reading import read_table
    from train.config import TrainConfig
    from train.inputs import TrainContext, TrainingInputs
    from train.trainer import Trainer

    monkeypatch.setattr("scoring.engine.loading.default_dtype", lambda device: torch.float16)
    rows = read_table(demo / "train.csv").questions
    config = TrainConfig(epochs=1, learning_rate=1e-3)
    trainer = Trainer(
        TrainingInputs(str(base), rows[60:], rows[:60], tmp_path / "ckpt", config), TrainContext(say=print)
    )
    training = trainer.setup()
    trainer.train(training)
    result = training.state.results[0]
    print(f"\nfloat16, one epoch: accuracy {result.accuracy:.3f}, NLL {result.nll:.3f}")
    assert training.model.scaler.is_enabled() and result.nll < 1.0


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
    others = os.environ.get("PYTHONPATH", "")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(hidden.parent), others]))}
    done = cli("score", "demo/test.csv", "--ckpt", FOLD0, "--out", tmp_path / "scores", env=environment)
    assert "no 4-bit weights here (not for this machine): the base is kept in bfloat16" in done.stderr
    assert "400 of 400 rows scored" in done.stdout
    print(done.stdout)


TWO = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two cards")


@TWO
@pytest.mark.parametrize("experts", [False, True])
def test_a_base_on_two_cards_answers_with_the_bits_of_one(monkeypatch, test_rows, mixture, experts):
    from scoring.checkpoints.plan import plan_members
    from scoring.engine.batch_scorer import BatchScorer
    from scoring.engine.device_map import devices_of

    plan = plan_members([str(mixture) if experts else FOLD0], quantization="nf4")
    one = BatchScorer(plan, weights="4bit")
    placed = dict.fromkeys(["model.visual", "lm_head"], 0)
    placed |= {f"model.language_model.{name}": 0 for name in ("embed_tokens", "rotary_emb", "layers.0", "layers.1")}
    placed |= {f"model.language_model.{name}": 1 for name in ("layers.2", "layers.3", "layers.4", "norm")}
    monkeypatch.setattr(
        "scoring.engine.loading.make_device_map", lambda *given: placed
    )  # else so small a base lies on one
    two = BatchScorer(plan, weights="4bit", device="auto")
    assert len(devices_of(two.model.network)) == 2
    assert any("lies on 2 cards, which work one after the other" in note for note in two.model.notes)
    assert np.array_equal(one.score(test_rows[:64]).logits, two.score(test_rows[:64]).logits)


@TWO
@pytest.mark.parametrize("faulty", ["score", "train"])
def test_an_error_on_one_card_ends_all(tmp_path, faulty):
    table = ["demo/test.csv", "--ckpt", FOLD0, "--batch-tokens", "400"]
    if faulty == "train":
        table = ["demo/train.csv", "--base", "demo/base", "--batch", "4", "--epochs", "1"]
    broken = (
        "import os, sys, time\nimport torch\nfrom scoring.engine.packed import PackedModel as M\n"
        "from train.model import LearningModel as L\nanswer, backward = M.answer, L.loss_backward\n"
        "def late(of):\n"
        "    def called(*given):\n"
        "        if os.environ['RANK'] == '1': raise RuntimeError('the card is broken')\n"
        "        time.sleep(.05)\n        return of(*given)\n"
        "    return called\n"
        "M.answer, L.loss_backward = late(answer), late(backward)\nimport cli\n"
        f"sys.argv = {['cli.py', faulty, *table, '--out', str(tmp_path / 'out')]!r}\ncli.main()\n"
    )
    program = tmp_path / "broken.py"
    program.write_text(broken)
    start = time.monotonic()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(program)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment)
    assert done.returncode and done.stderr.count("error: process 1 on") == 1 and "card is broken" in done.stderr
    assert time.monotonic() - start < 120


@TWO
def test_two_cards_train_as_one(cli, tmp_path):
    choices = ["--batch", 8, "--epochs", 1, "--dropout", 0, "--learning-rate", 1e-4, "--compile", "off"]
    command = ["train", "demo/train.csv", "--base", "demo/base", *choices, "--out"]
    cli(*command, tmp_path / "one")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "cli.py"]
    subprocess.run([*torchrun, *map(str, command), tmp_path / "two"], check=True, timeout=250)
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / name / "train.jsonl").read_text().splitlines()[:-1]]
        for name in ("one", "two")
    ]
    assert len(losses[0]) == len(losses[1]) and max(abs(a - b) for a, b in zip(*losses)) < 0.05


@pytest.mark.parametrize("outputs, inputs", [(4096, 12_288), (256, 4096), (1280, 3420)])
def test_a_product_has_the_same_bits_for_few_rows_and_for_many(outputs, inputs):
    """For few rows cuBLAS by itself adds up parts of these sums: feed-forward, keys of GLM, Qwen2.5-VL's tower."""
    from scoring.engine.linear import uneven_linears, whole_sums

    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(inputs, outputs, device="cuda", dtype=torch.bfloat16))
    for replacement in uneven_linears(network):
        replacement.put_in()
    rows = torch.randn(16_384, inputs, device="cuda", dtype=torch.bfloat16)
    with whole_sums(), torch.no_grad():
        few = (48, 64, 128, 192, 256, 320, 361, 384, 448, 512, 576, 704, 768, 1024, 2048)
        products = {n: network(rows[:n])[:48] for n in (*few, 16_384)}
    assert all(torch.equal(product, products[16_384]) for product in products.values())
    assert torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction_split_k
