"""One thread loads while none computes; who waits to load comes next."""

import os
import threading
import time

import pytest

from scoring.engine import exclusive
from scoring.engine.exclusive import Turns, computing, loading


def in_thread(function) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def done(*threads: threading.Thread) -> bool:
    for thread in threads:
        thread.join(10)
    return not any(thread.is_alive() for thread in threads)


def test_threads_compute_side_by_side_and_load_alone():
    turns, inside, seen = Turns(), [], []
    together = threading.Barrier(3, timeout=10)

    def compute():
        with turns.computing():
            together.wait()  # all three are in it at once, or this fails
            inside.append("computes")
            time.sleep(0.02)
            inside.remove("computes")

    def load():
        with turns.loading():
            seen.append(list(inside))
            inside.append("loads")
            time.sleep(0.02)
            inside.remove("loads")

    computers = [in_thread(compute) for _ in range(3)]
    loaders = [in_thread(load) for _ in range(4)]
    assert done(*computers, *loaders) and not together.broken
    assert seen == [[]] * 4


def test_who_waits_to_load_comes_before_those_who_compute_later():
    turns, order, waits = Turns(), [], threading.Event()

    def load():
        waits.set()
        with turns.loading():
            order.append("load")

    def compute():
        with turns.computing():
            order.append("compute")

    with turns.computing():
        loader = in_thread(load)
        waits.wait(10)
        while not turns._waiting:
            time.sleep(0.001)
        later = in_thread(compute)
        later.join(0.05)
        assert later.is_alive() and order == []
        with turns.computing():  # one's own batch goes on
            pass
    assert done(loader, later) and order == ["load", "compute"]


def test_a_thread_may_take_a_side_twice_and_compute_while_it_loads_but_not_load_while_it_computes():
    with loading(), loading(), computing():
        pass
    with loading():
        with computing(), loading():
            pass
    with computing(), computing():
        with pytest.raises(RuntimeError, match="wait for itself"):
            with loading():
                pass
    with loading():  # and all is given back
        pass


def test_an_error_gives_the_side_back():
    for side in (loading, computing):
        with pytest.raises(KeyError):
            with side():
                raise KeyError
    assert done(in_thread(lambda: loading().__enter__()))
    exclusive._begin_anew()  # which that thread never left


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_does_not_wait_for_threads_that_it_lacks():
    entered, leave = threading.Event(), threading.Event()

    def hold():
        with computing():
            entered.set()
            leave.wait(10)

    holder = in_thread(hold)
    entered.wait(10)
    child = os.fork()
    if not child:
        with loading():
            os._exit(0)
    for _ in range(1000):
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            break
        time.sleep(0.01)
    leave.set()
    assert pid == child and os.waitstatus_to_exitcode(status) == 0 and done(holder)
