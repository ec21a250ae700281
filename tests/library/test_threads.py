"""A `Scorer` in programs with threads of their own: callbacks, event loops, pools that outlive it."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from scoring.errors import ScoringError
from scoring.library.scorer import Scorer


@pytest.fixture
def own(asked, scorer):
    """A scorer that a test may close."""
    with Scorer(asked.settings, scorer) as own:
        yield own


def ask(scorer, row, **options):
    return scorer.ask(row.pictures, row.question, row.options, hint=row.task_hint, **options)


def test_a_callback_may_ask_and_what_it_raises_ends_the_work(own, rows):
    alone, inside = ask(own, rows[3]), []
    answers = own.score(rows[:2], progress=lambda done, total: inside.append(ask(own, rows[3])))
    assert len(answers) == 2 and inside and all(dict(answer) == dict(alone) for answer in inside)
    with pytest.raises(ZeroDivisionError):
        own.score(rows[:2], progress=lambda done, total: 1 / (total - done))
    with pytest.raises(ScoringError, match="closed"):
        own.score(rows[:2], progress=lambda done, total: own.close())


def test_an_event_loop_asks_through_threads(own, rows):
    async def gather():
        return await asyncio.gather(*(asyncio.to_thread(ask, own, row) for row in rows[:4]))

    for answer, row in zip(asyncio.run(gather()), rows):
        assert all(abs(answer[letter] - p) < 4e-6 for letter, p in ask(own, row).items())


def test_orders_and_numbers_of_options_are_mixed_at_once(own, rows):
    words = list(dict.fromkeys(option for row in rows for option in row.options))
    wanted = [(count, orders) for count in (2, 3, 5, 26) for orders in ("1", "2", "1,3", "adaptive")]
    asked = [(rows[0].pictures, rows[0].question, words[:count], orders) for count, orders in wanted[:-1]]

    def answer(pictures, question, options, orders):
        return own.ask(pictures, question, options, orders=orders)

    alone = [answer(*each) for each in asked]
    with ThreadPoolExecutor(len(asked)) as threads:
        together = list(threads.map(lambda each: answer(*each), asked))
    for one, other in zip(alone, together):
        assert one.keys() == other.keys() and all(abs(one[letter] - other[letter]) < 4e-6 for letter in one)


def test_a_pool_that_outlives_the_scorer_is_told(own, rows):
    with ThreadPoolExecutor(4) as threads:
        futures = [threads.submit(ask, own, row) for row in rows]
        own.close()
        late = threads.submit(ask, own, rows[0])
    assert "closed" in str(late.exception())
    assert all(future.exception() is None or "closed" in str(future.exception()) for future in futures)
