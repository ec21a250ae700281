"""The packed forward against the oracle, the oracle against generation, and a row against itself in other company."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from scoring.benchmark.generate import generate_text
from scoring.checkpoints.plan import plan_members
from scoring.engine.batch_scorer import BatchScorer
from scoring.engine.batches import prepare_batch, with_tensors
from scoring.engine.families.parts import patches_of
from scoring.engine.forward import TreeBatch, _fill_leaves, project, sums_in_float32
from scoring.engine.packed import PackedModel
from scoring.engine.reference import model_inputs, reference_logits
from scoring.engine.tree import Tree
from scoring.inputs.orders import option_orders
from scoring.inputs.pictures import read_picture
from scoring.inputs.questions import Question
from tests.shared.demo import BOTH
from tests.shared.references import as_fake, without_content
from tests.shared.trees import sequence_of


@pytest.fixture(scope="session")
def prepared(scorer, rows):
    return [scorer.prepare(question) for question in rows]


@pytest.fixture(scope="session")
def reference(scorer, prepared):
    """(N, V) logits of the rows, one at a time by transformers' own forward."""
    scorer.model.use(scorer.adapters[0])
    return torch.stack([reference_logits(scorer.model.network, *row) for row in prepared])


@pytest.fixture(scope="session")
def labels(scorer, reference):
    """(N, 4) the reference's label logits."""
    return reference[:, scorer.label_ids[:4]].numpy()


def in_batches(scorer, questions, size, orders="1"):
    return scorer.score(questions, orders, batch_rows=size)


@pytest.mark.parametrize("size", [64, 7])
def test_batches_equal_the_reference_on_every_row(scorer, rows, reference, labels, size):
    result = in_batches(scorer, rows, size)
    assert np.abs(result.logits[:, 0, 0] - labels).max() < 1e-4
    assert result.top_token[:, 0, 0].tolist() == reference.argmax(1).tolist()
    mass = reference.softmax(1)[:, scorer.label_ids[:4]].sum(1).numpy()
    assert np.abs(result.label_mass[:, 0, 0] - mass).max() < 1e-5


def test_a_row_alone_equals_the_reference(scorer, rows, labels):
    result = in_batches(scorer, rows[:20], 1)
    assert np.abs(result.logits[:, 0, 0] - labels[:20]).max() < 1e-4


def test_shuffled_rows_equal_the_reference(scorer, rows, labels):
    order = np.random.default_rng(0).permutation(len(rows))
    result = in_batches(scorer, [rows[row] for row in order], 64)
    assert np.abs(result.logits[:, 0, 0] - labels[order]).max() < 1e-4


def asked_about(question: Question, picture, number: int) -> Question:
    return replace(question, id=f"{number}", pictures=(picture,), sizes=((picture.width, picture.height),))


def test_questions_that_share_a_picture_equal_the_reference(scorer, rows):
    """Rows of 12 questions about 4 pictures, in one tree: each picture's tokens are computed once."""
    pictures = [read_picture(question.picture) for question in rows[:4]]
    rows = [asked_about(rows[index], pictures[index % 4], index) for index in range(12)]
    ready = prepare_batch(scorer.prepare, rows, "1")
    assert len(ready.pictures) == 4 and len(Tree.build(ready.sequences, ready.picture_numbers).pictures) == 4
    result = scorer.collect(ready, scorer.begin(ready, 4), 4)
    scorer.model.use(scorer.adapters[0])
    for index, row in enumerate(rows):
        expected = reference_logits(scorer.model.network, *scorer.prepare(row))[scorer.label_ids[:4]]
        assert np.abs(result.logits[index, 0, 0] - expected.numpy()).max() < 1e-4


def test_all_orders_equal_the_reference(scorer, rows):
    """24 orders of a question in one tree; logits come back by the data's option, whatever letter it stood at."""
    rows = [rows[0], replace(rows[9], options=rows[9].options[:3])]
    result = in_batches(scorer, rows, 2, "all")
    scorer.model.use(scorer.adapters[0])
    for index, row in enumerate(rows):
        orders = option_orders(len(row.options), "all")
        assert len(orders) == (24 if len(row.options) == 4 else 6)
        for order_index, order in enumerate(orders):
            reordered = replace(row, options=tuple(row.options["abcd".index(letter)] for letter in order))
            expected = reference_logits(scorer.model.network, *scorer.prepare(reordered))[
                scorer.label_ids[: len(order)]
            ]
            by_option = result.logits[index, 0, order_index, ["abcd".index(letter) for letter in order]]
            assert np.abs(by_option - expected.numpy()).max() < 1e-4
        assert np.isnan(result.logits[index, 0, len(orders) :]).all()


@pytest.mark.parametrize("names", [BOTH[:1], BOTH])
def test_4_bit_and_expanded_weights_give_the_same_bits(names, rows):
    plan = plan_members(names)
    packed, expanded = (BatchScorer(plan, weights=weights).score(rows[:8]) for weights in ("4bit", "16bit"))
    assert np.array_equal(packed.logits, expanded.logits) and np.array_equal(packed.label_mass, expanded.label_mass)


@pytest.fixture(scope="module")
def in_bfloat16():
    return BatchScorer(plan_members(BOTH[:1]), dtype=torch.bfloat16)


def test_in_bfloat16_a_row_has_the_same_bits_in_any_company(in_bfloat16, rows):
    scorer, rows = in_bfloat16, rows[:5]
    whole = scorer.score(rows, batch_rows=5)
    for size in (1, 3):
        assert np.array_equal(scorer.score(rows, batch_rows=size).logits, whole.logits)
    order = np.random.default_rng(1).permutation(5)
    assert np.array_equal(scorer.score([rows[index] for index in order], batch_rows=5).logits, whole.logits[order])


def test_in_bfloat16_a_tree_has_the_same_bits_as_whole_rows(in_bfloat16, test_rows):
    """On a card all rows do; on the CPU, whose attention is cut by the length of the queries, not all."""
    scorer = in_bfloat16
    ready = prepare_batch(scorer.prepare, test_rows[:4], "cyclic")
    tree = scorer.answer(ready, 4)[0].labels
    flat = Tree.build(ready.sequences, ready.picture_numbers, share=False)
    batch = TreeBatch.of(flat, ready.pictures, ready.grids, "cpu")
    assert len(flat.ids) > 2 * len(Tree.build(ready.sequences, ready.picture_numbers).ids)
    assert torch.equal(scorer.packed.answer(batch, scorer.label_ids[:4])[0].labels, tree)


def test_float16_keeps_a_float32_stream(rows, scorer):
    """As on cards without bfloat16: products in float16, everything else in float32."""
    half = BatchScorer(plan_members(BOTH[:1]), dtype=torch.float16)
    assert half.packed.stream == torch.float32
    result, whole = half.score(rows[:8]), scorer.score(rows[:8])
    assert np.abs(result.logits - whole.logits).max() < 0.05
    assert (result.logits.argmax(-1) == whole.logits.argmax(-1)).all()


def test_generation_starts_with_the_references_argmax_on_every_row(scorer, prepared, reference):
    scorer.model.use(scorer.adapters[0])
    for row, top in zip(prepared, reference.argmax(1).tolist()):
        assert generate_text(scorer.model.network, scorer.prepare.chat, *row, new_tokens=1)[1] == top


def test_the_library_finds_the_same_positions(scorer, prepared, reference):
    """Positions given by us or counted by the model: the same logits."""
    sequence, patches = prepared[0]
    scorer.model.use(scorer.adapters[0])
    inputs = model_inputs(scorer.model.parts, sequence, patches, "cpu")
    with torch.no_grad():
        given = scorer.model.network(**inputs, position_ids=torch.from_numpy(sequence.positions())[:, None]).logits[
            0, -1
        ]
    assert (given - reference[0]).abs().max() < 1e-5


def test_patches_are_cut_on_the_device_as_on_the_host(scorer, rows):
    policy = scorer.prepare.policy
    picture = read_picture(rows[0].picture)
    pixels = torch.from_numpy(np.stack([policy.resized(picture), 255 - policy.resized(picture)]))
    result = patches_of(pixels, torch.from_numpy(policy.values), policy)
    assert np.array_equal(result[: len(result) // 2].numpy(), policy.patches(picture))


def test_pictures_of_several_sizes_in_one_batch(scorer, rows):
    pictures = [read_picture(question.picture) for question in rows[:3]]
    pictures[1] = pictures[1].resize((400, 90))
    pictures[2] = pictures[2].crop((0, 0, 60, 200))
    rows = [asked_about(rows[index], pictures[index % 3], index) for index in range(6)]
    result = scorer.score(rows)
    scorer.model.use(scorer.adapters[0])
    for index, row in enumerate(rows):
        expected = reference_logits(scorer.model.network, *scorer.prepare(row))[scorer.label_ids[:4]]
        assert np.abs(result.logits[index, 0, 0] - expected.numpy()).max() < 1e-4


def test_the_head_in_pieces_equals_the_head_at_once(monkeypatch):
    torch.manual_seed(0)
    states, head = torch.randn(21, 16), torch.randn(1000, 16)
    whole = states @ head.T
    monkeypatch.setattr("scoring.engine.forward.VOCABULARY_CHUNK", 64)
    result = project(states.bfloat16(), head.bfloat16(), [3, 999, 0])
    exact = states.bfloat16().float() @ head.bfloat16().float().T
    assert torch.allclose(result.labels, exact[:, [3, 999, 0]], atol=1e-5)
    assert torch.allclose(result.log_total, exact.logsumexp(1), atol=1e-5) and (result.top == exact.argmax(1)).all()
    assert result.labels.dtype == torch.float32 and (result.labels - whole[:, [3, 999, 0]]).abs().max() < 0.2
    alone = torch.cat([project(states[index : index + 1], head, [3]).log_total for index in range(21)])
    assert torch.equal(alone, project(states, head, [3]).log_total)


def test_a_card_multiplies_the_head_in_16_bits_and_sums_in_float32(monkeypatch):
    """With a product that stands for the card's: labels, sum and likeliest token are all of that product."""
    torch.manual_seed(0)
    states, head = torch.randn(21, 16).bfloat16(), torch.randn(1000, 16).bfloat16()
    expected, seen = project(states, head, [3, 999, 0]), []

    def product(rows, head):
        seen.append(tuple(rows.shape))
        return rows.float() @ head.float().T

    monkeypatch.setattr("scoring.engine.forward.sums_in_float32", lambda *arguments: True)
    monkeypatch.setattr("scoring.engine.forward.float32_product", product)
    found = project(states, head, [3, 999, 0])
    assert seen == [(16, 16), (16, 16)]  # whole blocks
    assert (found.labels - expected.labels).abs().max() < 1e-5 and found.labels.dtype == torch.float32
    assert (found.log_total - expected.log_total).abs().max() < 1e-5 and torch.equal(found.top, expected.top)
    alone = torch.cat([project(states[index : index + 1], head, [3]).log_total for index in range(21)])
    assert torch.equal(alone, found.log_total)
    project(states, head, [3], (torch.zeros(1000, 1), torch.zeros(1, 16)))
    assert len(seen) == 2 + 21  # an adapter of the head goes the other way


@pytest.mark.parametrize(
    "states, head, so",
    [(torch.bfloat16, torch.bfloat16, True), (torch.float32, torch.bfloat16, False), (torch.float16,) * 2 + (False,)],
)
def test_only_a_card_in_bfloat16_sums_the_head_in_float32(states, head, so):
    assert not sums_in_float32(torch.zeros(1, 2, dtype=states), torch.zeros(3, 2, dtype=head))
    with FakeTensorMode():
        on_card = [torch.empty(3, 2, dtype=dtype, device="cuda") for dtype in (states, head)]
    assert sums_in_float32(*on_card) == so


@pytest.mark.parametrize(
    "device, count, filled", [("cpu", 3, 16), ("cpu", 17, 32), ("cuda", 64, 64), ("cuda", 65, 512)]
)
def test_few_leaves_are_filled_up_to_a_small_block(device, count, filled):
    """By the last one, which there is its only key; nothing of the others changes."""
    tree = Tree.build([sequence_of([1, 2, number]) for number in range(count)], [[]] * count)
    leaves, keys, bounds = _fill_leaves(tree, device)
    assert len(leaves) == filled and bounds[-1] == len(keys) == 3 * count + filled - count
    assert leaves[:count].tolist() == tree.leaves.tolist() and keys[: 3 * count].tolist() == tree.leaf_keys.tolist()
    assert (leaves[count:] == tree.leaves[-1]).all() and (keys[3 * count :] == tree.leaves[-1]).all()
    assert (np.diff(bounds)[count:] == 1).all() and bounds.dtype == np.int32


def test_all_indices_of_a_batch_lie_in_one_buffer(scorer, rows):
    """So that one copy takes them to a card; a batch without a picture, and one without filled-up leaves, too."""
    for questions in (rows[:3], [replace(rows[0], pictures=(), sizes=())]):
        ready = prepare_batch(scorer.prepare, questions, "1")
        tree = Tree.build(ready.sequences, ready.picture_numbers)
        for batch in (whole := TreeBatch.of(tree, ready.pictures, ready.grids, "cpu"), whole.unfilled()):
            assert batch.to(torch.device("cpu")) is batch
            there = batch.to(torch.device("meta"))
            for name, value in vars(batch).items():
                if isinstance(value, torch.Tensor):
                    other = getattr(there, name)
                    assert (value.shape, value.dtype) == (other.shape, other.dtype) and other.is_meta
                    assert value.storage_offset() == other.storage_offset()
                    assert value.untyped_storage().data_ptr() == batch.buffer.untyped_storage().data_ptr()
        assert torch.equal(whole.ids, torch.from_numpy(tree.ids)) and whole.query_bounds.dtype == torch.int32
        assert torch.equal(whole.leaf_bounds[:2], torch.from_numpy(tree.leaf_bounds[:2]))


def test_the_host_never_asks_the_device_within_a_batch(rows):
    """On tensors without content, whatever must know a value or a count raises: there a card would be waited for."""
    scorer = BatchScorer(plan_members(BOTH), weights="4bit")
    ready = with_tensors(prepare_batch(scorer.prepare, rows[:5], "1"), "cpu")
    scorer.answer(ready, 4)  # what is worked out once a size of picture
    with without_content() as mode:
        batch = TreeBatch(*map(partial(as_fake, mode), vars(ready.tensors).values()))
        answers = scorer.packed.answer(batch, scorer.label_ids[:4])
    assert [tuple(result.labels.shape) for result in answers] == [(5, 4), (5, 4)]


def test_the_network_is_the_librarys_own_outside_of_an_answer(scorer, rows):
    scorer.score(rows[:2])
    config = scorer.model.network.config
    assert [config._attn_implementation, config.text_config._attn_implementation] == ["sdpa", "sdpa"]
    assert config.vision_config._attn_implementation == "sdpa"
    assert not any(layer.merged for layer in (*scorer.packed.linears, *scorer.packed.patches))
    assert isinstance(scorer.packed, PackedModel) and len(scorer.packed.linears) == 7 * 5


def test_pending_answers_of_a_cpu_are_ready(scorer, test_rows):
    pending = scorer.begin(prepare_batch(scorer.prepare, test_rows[:3], "1"), 4)
    assert pending.ready and pending.event is None
    answers = pending.wait()
    assert torch.equal(answers[0].labels, scorer.answer(prepare_batch(scorer.prepare, test_rows[:3], "1"), 4)[0].labels)
    empty = scorer.begin(prepare_batch(scorer.prepare, [], "1"), 4)
    assert empty.ready and empty.wait() == []
