"""What rows cost is the same wherever it is worked out; what is lost, refused or late there. One cluster, two cores."""

import os
import time
from dataclasses import replace
from pathlib import Path
from threading import Event, Timer

import pytest
import ray

from scoring.checkpoints.plan import plan_members
from scoring.cluster import costs
from scoring.cluster.connection import ClusterError
from scoring.cluster.costs import CostTasks, PromptSettings, free_cores, work_out
from scoring.errors import CallError
from scoring.run.options import RunOptions
from scoring.run.scheduler import Scheduler
from tests.shared.demo import FOLD0
from tests.shared.ray_clusters import ray_folder, wait_for


@pytest.fixture(scope="module", autouse=True)
def cluster():
    with ray_folder():
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        yield
        ray.shutdown()


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(costs, "FEWEST_ROWS", 10)
    monkeypatch.setattr(costs, "CHUNK", 3)


class Counted(CostTasks):
    """Says what it would have said, and counts the chunks that were worked out in this process."""

    def __init__(self, scheduler: Scheduler, cores: int = 2):
        wait_for(lambda: free_cores() == cores, lambda: f"{free_cores()} cores are free")
        self.said: list[str] = []
        self.here = 0
        super().__init__(scheduler, Event(), Event(), self.said.append)

    def _here(self, chunk):
        self.here += 1
        return super()._here(chunk)


@pytest.fixture
def scheduler(table):
    """Of rows with pictures and without, and one that is longer than the context."""
    rows = table.questions
    rows[4] = replace(rows[4], question="long " * 3_000)
    rows[7:9] = [replace(row, pictures=(), sizes=()) for row in rows[7:9]]
    return Scheduler(table, plan_members([str(FOLD0)]), RunOptions())


def instead(monkeypatch, function) -> None:
    """Let tasks do something else."""
    monkeypatch.setattr(costs, "work_out", function)


@pytest.mark.parametrize("orders", ["1", "cyclic", "pride"])
def test_costs_and_batches_are_those_of_one_process(table, scheduler, orders, monkeypatch):
    monkeypatch.setattr("scoring.run.scheduler.FEWEST_SAMPLED", 6)
    one, other = (Scheduler(table, scheduler.plan, RunOptions(orders)) for _ in range(2))
    tasks, expected = Counted(other), one.costs()
    found = tasks.costs()
    assert found == expected and tasks.here == 0 and any(isinstance(cost, str) for share in found for cost in share)
    for each, share in ((one, expected), (other, found)):
        each.add_costs([share])
        each.schedule(900, lambda number: False)
    assert other.batches == one.batches and other.unscorable == one.unscorable


def test_few_rows_and_rows_for_which_no_core_is_free_stay_here(scheduler, monkeypatch):
    def refuse(*given):
        raise CallError("a task was started")

    instead(monkeypatch, refuse)
    expected = scheduler.costs()
    monkeypatch.setattr(costs, "FEWEST_ROWS", 21)
    assert Counted(scheduler).costs() == expected
    monkeypatch.setattr(costs, "FEWEST_ROWS", 20)
    with pytest.raises(CallError, match="^a task was started$"):
        Counted(scheduler).costs()

    @ray.remote(num_cpus=1.5)
    class Model:
        def load(self):
            return True

    actor = Model.remote()
    assert ray.get(actor.load.remote())
    assert Counted(scheduler, 0).costs() == expected
    ray.kill(actor)


def test_a_process_that_is_killed_once_is_replaced_and_one_that_always_is_ends_the_run(
    scheduler, tmp_path, monkeypatch
):
    mark = tmp_path / "killed"

    def dying_once(*given):
        if not mark.exists():
            mark.touch()
            os._exit(1)
        return work_out(*given)

    instead(monkeypatch, dying_once)
    assert Counted(scheduler).costs() == scheduler.costs() and mark.exists()

    instead(monkeypatch, lambda *given: os._exit(1))
    with pytest.raises(ClusterError, match=r"^3 processes ended while counting the tokens of rows '.+' to '.+', the l"):
        Counted(scheduler).costs()


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"files": "others"}, "another tokenizer or configuration on .*; expected the same on every node"),
        ({"base": Path("nowhere")}, "^nowhere: not on .*; expected the same path on every node"),
    ],
)
def test_a_node_with_other_files_is_refused(scheduler, monkeypatch, changes, told, capfd):
    settings = replace(PromptSettings.of_plan(scheduler.plan), **changes)
    monkeypatch.setattr(PromptSettings, "of_plan", lambda plan: settings)
    with pytest.raises(ClusterError, match=told):
        Counted(scheduler).costs()
    assert "Unhandled" not in capfd.readouterr().err


def slow(settings, orders, rows):
    time.sleep(60)


def test_tasks_that_nobody_waits_for_are_ended(scheduler, monkeypatch):
    instead(monkeypatch, slow)
    tasks = Counted(scheduler)
    Timer(0.3, tasks.stop.set).start()
    assert tasks.costs() == [[]] and not tasks.said
    tasks = Counted(scheduler)  # which waits for the cores of those
    Timer(0.3, tasks.ended.set).start()
    with pytest.raises(KeyboardInterrupt):
        tasks.costs()


def test_where_tasks_find_no_core_this_process_goes_on_by_itself(scheduler, tmp_path, monkeypatch):
    def second_is_late(settings, orders, rows):
        begun = tmp_path / "begun"
        if len(rows) == 3 and rows[0][0] == second and not begun.exists():
            begun.touch()
            time.sleep(60)
        return work_out(settings, orders, rows)

    second = scheduler.passes[0][1][3].question
    instead(monkeypatch, second_is_late)
    monkeypatch.setattr(costs, "PATIENCE_SECONDS", 3.0)
    tasks = Counted(scheduler)
    assert tasks.costs() == scheduler.costs() and tasks.here == 1
    assert tasks.said == ["for 3 s no core of the cluster counted tokens; now this process does"]
