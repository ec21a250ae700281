"""Who gets which batch when actors are lost: tiny actors in place of a model's, on one cluster of this machine."""

from threading import Event, Timer

import pytest
import ray

from benchmarks.command_line import free_port
from scoring.cluster import head as heads
from scoring.cluster import pool as pools
from scoring.cluster.connection import ClusterError
from scoring.cluster.head import Head
from scoring.cluster.pool import ATTEMPTS, IN_HAND, ActorPool
from scoring.errors import CallError
from tests.shared.ray_actors import SmallActor, SmallBatch
from tests.shared.ray_clusters import ray_folder


@pytest.fixture(scope="module", autouse=True)
def cluster():
    with ray_folder():
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        yield
        ray.shutdown()


@pytest.fixture
def start(tmp_path):
    """Start a pool. fates: of its actors in the order in which they are started; the last is that of all later ones."""
    pool = None

    def make(count: int = 1, *fates: str, **options) -> ActorPool:
        nonlocal pool
        left, said = list(fates or [""]), []

        def create():
            fate = left.pop(0) if len(left) > 1 else left[0]
            placed = {"num_cpus": 0, "resources": {"nowhere": 1}} if fate == "no room" else {"num_cpus": 0}
            actor = ray.remote(SmallActor).options(max_concurrency=IN_HAND, **placed)
            return actor.remote(tmp_path, fate)

        pool = ActorPool(create, count, said.append, Event())
        pool.said = said
        return pool

    yield make
    pool.close()
    assert not pool.members


def numbers(pool: ActorPool, batches: list[SmallBatch]) -> list[int]:
    """The numbers of the batches that are answered, sorted."""
    return sorted(number for number, _ in pool.answers(batches, "1"))


def times_asked(tmp_path) -> dict[int, int]:
    return {int(path.name[5:]): path.stat().st_size for path in tmp_path.glob("asked*")}


def plain(count: int, **fates: str) -> list[SmallBatch]:
    """Batches 0 to count - 1. fates: by names such as b3."""
    return [SmallBatch(number, fates.get(f"b{number}", "")) for number in range(count)]


def test_every_batch_is_answered_once_and_all_actors_take_part(start, tmp_path):
    pool = start(2)
    processes = pool.load()
    assert len(set(processes)) == 2
    answers = list(pool.answers(plain(20), "1"))
    assert sorted(number for number, _ in answers) == list(range(20))
    assert {process for _, process in answers} == set(processes)
    assert set(times_asked(tmp_path).values()) == {1} and pool.said == []


def test_a_batch_whose_actor_is_killed_goes_to_another_and_that_is_replaced(start):
    pool = start(2)
    before = pool.load()
    answers = dict(pool.answers([*plain(6, b1="kill once"), *(SmallBatch(n, "slow") for n in range(6, 12))], "1"))
    assert sorted(answers) == list(range(12))
    assert len(pool.said) == 1 and pool.said[0].startswith("an actor is lost (")
    assert len(pool.members) == 2 and set(pool.call("load")) != set(before)


def test_a_batch_that_kills_every_actor_is_named_and_the_others_are_answered(start, tmp_path):
    pool = start(2)
    answered = []
    with pytest.raises(ClusterError, match=r"3 actors ended while answering batch 2 \(rows 'row2' to 'row2'\)"):
        for number, _ in pool.answers(plain(5, b2="kill"), "1"):
            answered.append(number)
    assert sorted(answered) == [0, 1, 3, 4] and times_asked(tmp_path)[2] == ATTEMPTS


def test_an_error_of_an_actor_is_raised_as_it_is(start):
    pool = start(1)
    with pytest.raises(CallError, match=r"^batch 3 has no letters$"):
        numbers(pool, plain(6, b3="raise"))
    with pytest.raises(CallError, match=r"^no such files$"):
        pool.call("refuse")


def test_actors_that_end_while_they_load_end_the_call_after_some(start):
    pool = start(2, "", "die at load")
    with pytest.raises(ClusterError, match="3 actors ended while loading, the last: "):
        pool.load()


def test_an_actor_that_ends_while_it_loads_is_replaced(start):
    pool = start(1, "die at load", "")
    assert len(pool.load()) == 1 and len(pool.said) == 1


def test_replacements_that_end_while_they_load_end_the_run_where_no_actor_is_left(start):
    pool = start(1, "", "die at load")
    with pytest.raises(ClusterError, match="3 actors ended while loading, the last: "):
        numbers(pool, plain(4, b1="kill once"))


def test_with_actors_left_it_goes_on_without_such_replacements(start):
    pool = start(2, "", "", "die at load")
    slow = [SmallBatch(number, "slow") for number in range(4, 64)]  # until the third replacement is lost, too
    assert numbers(pool, [*plain(4, b1="kill once"), *slow]) == list(range(64))
    assert len(pool.said) == 2 and pool.said[1].endswith("going on with 1 actor")


def test_a_stop_lets_what_is_in_hand_be_answered(start, tmp_path):
    pool, answered = start(1), []
    pool.load()
    with pytest.raises(KeyboardInterrupt):
        for number, _ in pool.answers([SmallBatch(number, "slow") for number in range(30)], "1"):
            answered.append(number)
            pool.stop.set()
    assert 1 <= len(answered) <= IN_HAND and len(times_asked(tmp_path)) == len(answered)


def test_a_stop_while_actors_start_and_where_what_is_in_hand_takes_too_long(start, monkeypatch):
    pool = start(1, "slow at load")
    pool.stop.set()
    with pytest.raises(KeyboardInterrupt):
        pool.load()
    monkeypatch.setattr(pools, "PARTING_SECONDS", 0.0)
    pool.stop.clear()
    Timer(0.2, pool.stop.set).start()
    with pytest.raises(KeyboardInterrupt):
        numbers(pool, [SmallBatch(number, "slow") for number in range(30)])


def test_without_room_for_an_actor_the_run_ends_in_time(start, monkeypatch):
    monkeypatch.setattr(pools, "START_SECONDS", 1.0)
    pool = start(1, "", "no room")
    with pytest.raises(ClusterError, match="no actor is left, and none could be started for 1 s"):
        numbers(pool, plain(3, b0="kill once"))
    pool.close()
    pool = start(2, "", "no room")
    with pytest.raises(ClusterError, match="1 of 2 actors did not start within 1 s; expected room for all"):
        pool.load()


def test_a_batch_that_takes_too_long_ends_the_run(start, monkeypatch):
    pool = start(1)
    pool.load()
    monkeypatch.setattr(pools, "STUCK_SECONDS", 0.1)
    monkeypatch.setattr(pools, "POLL", 0.1)
    with pytest.raises(ClusterError, match="no batch was answered for 0 s"):
        numbers(pool, [SmallBatch(0, "slow")])


def test_an_actor_that_starts_late_takes_part(start):
    pool = start(1)
    pool.load()
    pool.count = 2
    pool.renew()
    slow = [SmallBatch(number, "slow") for number in range(16)]
    assert len({process for _, process in pool.answers(slow, "1")}) == 2
    assert len(pool.members) == 2


def test_what_is_being_started_is_started_anew_where_others_adopt_something_else(start):
    pool = start(1, "", "no room", "")
    pool.load()
    pool.count = 2
    pool.renew()
    [waiting] = pool._starting.values()
    pool.call("adopt", "another plan")
    pool.renew()
    [started] = pool._starting.values()
    assert started is not waiting and pool.call("words") == [["another plan"]]
    assert numbers(pool, [SmallBatch(number, "slow") for number in range(8)]) == list(range(8))


def test_an_actor_that_was_lost_between_two_calls_is_replaced(start):
    pool = start(2)
    pool.load()
    ray.kill(pool.members[0].handle)
    assert len(pool.call("words")) == 2
    assert numbers(pool, plain(4)) == [0, 1, 2, 3]


@pytest.fixture
def lose_head(monkeypatch):
    """Let a pool's head be where nobody is, and be lost soon."""
    monkeypatch.setattr(heads, "GONE_SECONDS", 0.2)
    monkeypatch.setattr(heads, "LOOK_SECONDS", 0.1)
    return lambda pool: setattr(pool, "head", Head(f"127.0.0.1:{free_port()}"))


def test_the_loss_of_the_head_ends_the_run(start, lose_head):
    pool, answered = start(1, "", "no room"), []
    pool.load()
    lose_head(pool)
    with pytest.raises(ClusterError, match=r"the head of the Ray cluster \(127.0.0.1:\d+\) is gone"):
        for number, _ in pool.answers([SmallBatch(number, "slow") for number in range(30)], "1"):
            answered.append(number)
    assert answered
    pool.count = 2
    lose_head(pool)
    with pytest.raises(ClusterError, match="is gone"):
        pool.renew()
    lose_head(pool)
    with pytest.raises(ClusterError, match="is gone"):
        pool.call("sleep")


def test_without_its_head_no_actor_takes_the_place_of_one_that_is_lost(start, lose_head):
    pool = start(1)
    pool.load()
    pool.create = None
    lose_head(pool)
    with pytest.raises(ClusterError, match="is gone"):
        numbers(pool, plain(3, b0="kill once"))
    assert not pool._starting
