"""Generation, as the notebook has it."""

from scoring.benchmark.generate import generate_batch, generate_text


def test_batched_generation_begins_as_single_generation(scorer, test_rows):
    scorer.model.use(scorer.adapters[0])
    prepared = [scorer.prepare(row) for row in test_rows[:9]]
    network, chat = scorer.model.network, scorer.prepare.chat
    assert generate_batch(network, chat, prepared) == [generate_text(network, chat, *row) for row in prepared]
