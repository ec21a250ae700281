"""Who is in hand, who is told to come again, and who is given up."""

import asyncio

import pytest

from scoring.serving import in_hand
from scoring.serving.in_hand import InHand
from scoring.serving.request import RequestError


def test_more_than_the_most_come_again_after_as_long_as_requests_take(monkeypatch):
    clock = iter([0.0, 200.0])
    monkeypatch.setattr(in_hand.time, "monotonic", lambda: next(clock))
    hand = InHand(1)
    with hand.request():
        with pytest.raises(RequestError, match="1 requests wait already; try again in 1 s") as caught:
            with hand.request():
                raise AssertionError
        assert caught.value.status == 429 and hand.count == 1
    assert hand.count == 0 and hand.retry_after == 0.1 * 200


def test_once_it_stops_nothing_new_is_taken_and_no_body_is_waited_for():
    hand = InHand(2)

    async def ask():
        with hand.request():
            await hand.arriving(asyncio.sleep(60))

    async def main():
        asking = asyncio.ensure_future(ask())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        hand.stop()
        with pytest.raises(RequestError, match="stopping") as caught:
            await asking
        assert caught.value.status == 503

    asyncio.run(main())
    assert hand.dropped == 1
    with pytest.raises(RequestError, match="stopping"):
        with hand.request():
            raise AssertionError


def test_what_is_dropped_is_withdrawn_and_told_why():
    hand = InHand(2)
    with hand.request() as token:
        assert hand.given_up() is None and not token.cancelled
        hand.drop()
        assert token.cancelled and hand.given_up().status == 503 and hand.dropped == 1
