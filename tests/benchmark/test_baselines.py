"""The libraries' own ways: what they answer, and batches that do not fit."""

import pytest
import torch

from scoring.benchmark import baselines
from scoring.benchmark.generate import Generated
from scoring.benchmark.summary import WAYS, BatchSize
from scoring.engine.reference import reference_logits


def test_the_padded_forward_gives_the_logits_of_the_reference(bench):
    scorer = bench.scorer
    prepared = [scorer.prepare(question) for question in bench.questions]
    assert len({len(sequence.ids) for sequence, _ in prepared}) > 1  # so that there is padding
    scorer.model.use(scorer.adapters[0])
    for (labels, top), row in zip(bench.baselines.batched["padded"].answer_batch(prepared), prepared, strict=True):
        expected = reference_logits(scorer.model.network, *row)
        assert labels.tolist() == pytest.approx(expected[scorer.label_ids[:4]].tolist(), abs=1e-4)
        assert top == int(expected.argmax())


def test_one_token_is_the_first_of_two(bench):
    prepared = [bench.scorer.prepare(question) for question in bench.questions]
    bench.scorer.model.use(bench.scorer.adapters[0])
    one, two = (bench.baselines.batched[name].answer_batch(prepared) for name in ("one", "batched"))
    assert [row.first_token for row in one] == [row.first_token for row in two]
    letters = "".join(row.new_text for row in one)
    assert len(letters) == 2 and set(letters) <= set("abcd")
    assert all(len(after.new_text) >= len(before.new_text) for before, after in zip(one, two, strict=True))


def test_a_batch_that_does_not_fit_is_not_taken(bench, monkeypatch):
    """The largest that fits is taken; with enough memory, all rows."""

    def fits(most):
        def generate(network, chat, prepared, new_tokens):
            if len(prepared) > most:
                raise torch.OutOfMemoryError("no room")
            return [Generated("a", 1, "a")] * len(prepared)

        monkeypatch.setattr(baselines, "generate_batch", generate)
        return bench.baselines._largest_batch(bench.baselines.batched["batched"].answer_batch, list(range(6)))

    assert fits(5).rows == 4
    size = fits(100)
    assert size.rows == 6 or size.rates[4] > size.rates[6]  # a smaller one only where it was faster
    with pytest.raises(torch.OutOfMemoryError):
        fits(1)


def test_a_batch_that_no_longer_fits_is_halved(bench, monkeypatch):
    batch_sizes = []

    def generate(network, chat, prepared, new_tokens):
        batch_sizes.append(len(prepared))
        if len(prepared) > 2:
            raise torch.OutOfMemoryError("no room")
        return [Generated(str(row), 1, str(row)) for row in prepared]

    monkeypatch.setattr(baselines, "generate_batch", generate)
    answer_batch = bench.baselines.batched["batched"].answer_batch
    halves = bench.baselines._in_halves(answer_batch, list(range(6)))
    assert [generated.text for generated in halves] == list("012345")
    assert batch_sizes == [6, 3, 1, 2, 3, 1, 2]


def test_each_ways_batch_is_measured_by_itself(bench, monkeypatch):
    """The batches for 16 tokens are those for two."""
    measured_by = {way.answer_batch: name for name, way in bench.baselines.batched.items()}
    sizes = {"one": 5, "batched": 3, "padded": 4}
    monkeypatch.setattr(
        bench.baselines, "_largest_batch", lambda answer_batch, rows: BatchSize(sizes[measured_by[answer_batch]], {})
    )
    monkeypatch.setattr(bench.baselines, "batch_rows", {})
    chosen = bench.baselines.choose_batches([name for name in WAYS if name != "batched"])
    assert {name: size.rows for name, size in chosen.items()} == {"one": 5, "strong": 3, "padded": 4}
    assert bench.baselines.batch_rows == {"one": 5, "strong": 3, "padded": 4}
