"""`score --ray` leaves the files of one process, whatever is lost meanwhile; two nodes of a cluster on this machine."""

import json
import os
import signal
from types import SimpleNamespace

import psutil
import pytest
import ray
import torch
from ray.cluster_utils import Cluster

from benchmarks import command_line
from benchmarks.faults import SCORED, content
from scoring.cluster import costs, workers
from scoring.cluster.actor import Answered
from scoring.cluster.connection import ClusterError, Room
from scoring.cluster.workers import ActorLoop, RayWorkers
from scoring.messages import Say
from scoring.run.options import RunContext, RunOptions
from scoring.run.run_folder import RunState
from scoring.run.scheduler import Batch, Scheduler
from scoring.scores.logits import OptionLogits
from scoring.tables import reading
from tests.shared.demo import BOTH, DEMO, FOLD0
from tests.shared.folds import make_folds
from tests.shared.ray_clusters import ray_folder, ray_variables, wait_for

TEST = DEMO / "test.csv"
ONE = ["score", TEST, "--ckpt", FOLD0, "--no-verify", "--batch-tokens", 400]


PLACES = ["head", "other"]
NOTICED_SOON = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 1000, "health_check_timeout_ms": 3000}


class KeptWorkers(RayWorkers):
    """Actors that all tests of this module share: they load the libraries once. At first there is one on each node."""

    created = 0

    def close(self) -> None:
        """At the end of a call they stay."""

    def _resources(self):
        return 2, {"num_cpus": 0}

    def _create(self, resources):
        place = {"resources": {PLACES[self.created]: 0.1}} if self.created < len(PLACES) else {}
        self.created += 1
        return super()._create(resources | place)

    def taken(self, actors: int | None, say: Say, stop) -> RayWorkers:
        """As if they were made for this call."""
        assert actors == 2
        self.say, self.stop = say, stop
        if self.pool:
            self.pool.say, self.pool.stop = say, stop
        return self


@pytest.fixture(scope="module")
def cluster():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the actors have
    with ray_folder():
        head = {"num_cpus": 2, "include_dashboard": False, "_system_config": NOTICED_SOON}
        cluster = Cluster(True, head_node_args=head | {"resources": {"head": 1}})
        cluster.add_node(num_cpus=2, resources={"other": 1})
        ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
        yield cluster
        ray.shutdown()
        cluster.shutdown()
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def kept(cluster):
    kept = KeptWorkers(2, print, None)
    yield kept
    if kept.pool:
        kept.pool.close()


@pytest.fixture
def ray_cli(quick_cli, kept, monkeypatch):
    """`quick_cli` with two actors of the cluster."""
    monkeypatch.setattr(workers, "RayWorkers", kept.taken)
    return lambda *arguments, **more: quick_cli(*arguments, "--ray", "--ray-actors", 2, **more)


@pytest.fixture
def expected(quick_cli, tmp_path):
    """The files of one process."""

    def make(*arguments, check: int = 0, run: str = ".") -> dict[str, bytes]:
        out = tmp_path / "one"
        if not out.exists():
            quick_cli(*arguments, "--out", out, check=check)
        return content(out / run, SCORED)

    return make


def broken_pictures(tmp_path, small_table):
    """A table whose second row has a picture that ends early, and its fourth one that is none any more."""
    table = small_table(8)
    pictures = [tmp_path / line.split(",")[1] for line in table.read_text().splitlines()[1:]]
    pictures[1].write_bytes(pictures[1].read_bytes()[:-2000])
    pictures[3].write_bytes(pictures[3].read_bytes()[:300])
    return table


# ------------------------------------------------------------------ the same files
@pytest.mark.parametrize(
    "more, runs",
    [
        ((), ["."]),
        (("--ckpt", BOTH[1], "--orders", "cyclic"), ["."]),
        (("--orders", "adaptive"), ["."]),
        (("--ckpt", BOTH[1], "--orders", "1,2"), [".", "runs/1", "runs/2"]),  # the second run's plan is adopted
    ],
    ids=["one order", "two checkpoints, cyclic", "adaptive", "two runs"],
)
def test_the_files_are_those_of_one_process(ray_cli, expected, tmp_path, more, runs):
    call = [*ONE, "--limit", 16, *more]
    ray_cli(*call, "--out", tmp_path / "ray")
    for run in runs:
        assert content(tmp_path / "ray" / run, SCORED) == expected(*call, run=run)
    run_json = json.loads((tmp_path / "ray" / runs[-1] / "run.json").read_text())
    assert sum(process["rows"] for process in run_json["processes"]) >= 16 and run_json["weights"] == "16bit"


def test_a_table_that_no_process_holds(ray_cli, expected, tmp_path, small_table, monkeypatch):
    monkeypatch.setattr(reading, "ROWS_HELD", 7)
    path = small_table(18)
    lines = path.read_text("utf-8").splitlines(keepends=True)
    lines[8:15] = [line.replace("images/", "none/") for line in lines[8:15]]
    path.write_text("".join(lines), "utf-8")
    call = ["score", path, *ONE[2:], "--skip-bad-rows"]
    ray_cli(*call, "--out", tmp_path / "ray", check=3)
    assert content(tmp_path / "ray", SCORED) == expected(*call, check=3)
    assert len(list((tmp_path / "ray" / "logits").iterdir())) == 3


def test_batches_as_large_as_fit_are_measured_by_the_actors(ray_cli, expected, tmp_path):
    call = [*ONE[:-2], "--limit", 6]
    ray_cli(*call, "--out", tmp_path / "ray")
    assert content(tmp_path / "ray", SCORED) == expected(*call)


def test_batches_are_the_same_where_the_cluster_counts_tokens(ray_cli, expected, tmp_path, monkeypatch):
    call = [*ONE, "--limit", 12]
    files = expected(*call)
    monkeypatch.setattr(costs, "FEWEST_ROWS", 10)
    monkeypatch.setattr(costs, "CHUNK", 5)
    monkeypatch.setattr(Scheduler, "costs", lambda *given, **more: pytest.fail("tokens were counted by one process"))
    ray_cli(*call, "--out", tmp_path / "ray")
    assert content(tmp_path / "ray", SCORED) == files


def test_pictures_that_cannot_be_read_have_the_same_words(ray_cli, expected, tmp_path, small_table):
    call = [*ONE[:1], broken_pictures(tmp_path, small_table), *ONE[2:], "--skip-bad-rows"]
    ray_cli(*call, "--out", tmp_path / "ray", check=3)
    files = content(tmp_path / "ray", SCORED)
    assert files == expected(*call, check=3)
    assert b"truncated" in files["probabilities.csv"]


def test_pictures_inside_of_a_table(ray_cli, expected, tmp_path):
    call = [*ONE[:1], "tests/cases/tables/mmbench_ko.parquet", *ONE[2:]]
    ray_cli(*call, "--out", tmp_path / "ray")
    assert content(tmp_path / "ray", SCORED) == expected(*call)


def test_rows_by_the_fold_that_had_not_seen_them(ray_cli, expected, tmp_path):
    folds = make_folds(tmp_path / "folds", 12)
    call = ["score", TEST, "--ckpt", folds, "--limit", 12, "--out-of-fold", "--no-verify", "--batch-tokens", 400]
    ray_cli(*call, "--out", tmp_path / "ray")
    for run in (".", "runs/fold0", "runs/fold1"):
        assert content(tmp_path / "ray" / run, SCORED) == expected(*call, run=run)


@pytest.mark.parametrize("ray_first", [True, False], ids=["ray first", "ray goes on"])
def test_what_was_begun_in_one_way_goes_on_in_the_other(ray_cli, quick_cli, expected, tmp_path, ray_first):
    call, out = [*ONE, "--limit", 12], tmp_path / "both"
    files = expected(*call)
    first, second = (ray_cli, quick_cli) if ray_first else (quick_cli, ray_cli)
    first(*call, "--out", out)
    kept = sorted((out / "logits").iterdir())[::2]
    for part in set((out / "logits").iterdir()) - set(kept):
        part.unlink()
    before = [part.stat().st_mtime_ns for part in kept]
    assert "going on: " in second(*call, "--out", out).stderr
    assert content(out, SCORED) == files and [part.stat().st_mtime_ns for part in kept] == before
    assert json.loads((out / "run.json").read_text())["weights"] == "16bit"


# ------------------------------------------------------------------ what is refused
def test_nodes_with_other_files_are_refused_by_name(ray_cli, tmp_path, monkeypatch):
    whole = workers._with_whole_paths

    def other(plan):
        found = whole(plan)
        found.adapters = {"fold0": "another"}
        return found

    monkeypatch.setattr(workers, "_with_whole_paths", other)
    done = ray_cli(*ONE, "--limit", 4, "--out", tmp_path / "ray", check=2)
    assert "error: fold0: other files on " in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "room, wanted, found",
    [
        (Room((4.0, 4.0), 4), None, (4, {"num_gpus": 1, "num_cpus": 1})),
        (Room((4.0, 4.0), 4), 3, (3, {"num_gpus": 1, "num_cpus": 1})),
        (Room((4.0, 4.0), 0), None, (2, {"num_cpus": 4.0})),
        (Room((0.0, 4.0), 0), 3, (3, {"num_cpus": 1.0})),
    ],
)
def test_an_actor_for_each_card_else_for_each_node(monkeypatch, room, wanted, found):
    monkeypatch.setattr(Room, "of_cluster", lambda: room)
    assert RayWorkers(wanted, print, None)._resources() == found


def test_more_actors_than_cards_and_nodes_without_cores_are_refused(monkeypatch):
    monkeypatch.setattr(Room, "of_cluster", lambda: Room((4.0,), 2))
    with pytest.raises(ClusterError, match="--ray-actors 3: the cluster has 2 cards; expected no more actors"):
        RayWorkers(3, print, None)._resources()
    monkeypatch.setattr(Room, "of_cluster", lambda: Room((0.0,), 0))
    with pytest.raises(ClusterError, match="the cluster has no cores"):
        RayWorkers(None, print, None)._resources()


# ------------------------------------------------------------------ what is lost
def after_batches(monkeypatch, count: int, happens) -> None:
    """Let something happen once an actor has answered so many batches. happens: gets the last answer."""
    file, filed = ActorLoop._file, []

    def filing(loop, answered):
        file(loop, answered)
        filed.append(answered)
        if len(filed) == count:
            happens(answered)

    monkeypatch.setattr(ActorLoop, "_file", filing)


def test_a_node_that_is_removed(cluster, ray_cli, expected, tmp_path, monkeypatch):
    [node] = cluster.worker_nodes

    def remove(_) -> None:
        theirs = psutil.Process(node.all_processes["raylet"][0].process.pid).children(recursive=True)
        cluster.remove_node(node, allow_graceful=False)
        wait_for(lambda: not any(each.is_running() for each in theirs), lambda: f"left: {theirs}")

    after_batches(monkeypatch, 3, remove)
    call = [*ONE, "--limit", 30]
    done = ray_cli(*call, "--out", tmp_path / "ray")
    assert "an actor is lost (" in done.stderr
    assert content(tmp_path / "ray", SCORED) == expected(*call)


def test_an_actor_that_is_killed(ray_cli, expected, tmp_path, monkeypatch):
    after_batches(monkeypatch, 3, lambda answered: os.kill(int(answered.process.split()[-1]), signal.SIGKILL))
    call = [*ONE, "--limit", 30]
    done = ray_cli(*call, "--out", tmp_path / "ray")
    assert "an actor is lost (" in done.stderr
    assert content(tmp_path / "ray", SCORED) == expected(*call)


def all_free() -> bool:
    """Whether nobody uses a core of the nodes that are left."""
    return ray.available_resources().get("CPU") == ray.cluster_resources().get("CPU")


def test_a_driver_that_is_killed_and_goes_on_with_more_actors(cluster, ray_cli, expected, tmp_path):
    call, out = [*ONE, "--limit", 40, "--out", tmp_path / "ray"], tmp_path / "ray"
    words = [*call, "--ray", cluster.address, "--ray-actors", 1]
    driver = command_line.start(*words, env=ray_variables(), err=tmp_path / "err")
    command_line.wait_until(driver, lambda: len(list(out.glob("logits/*.parquet"))) > 2, 60)
    driver.kill()
    driver.join()
    assert not (out / "run.json").exists() and list(out.glob("logits/*.parquet")), (tmp_path / "err").read_text()
    assert ray_cli(*call).stderr.count("going on: ") == 1
    assert content(out, SCORED) == expected(*call[:-2])
    wait_for(all_free, lambda: "its actors are left")


# ------------------------------------------------------------------ what does not fit
def test_batches_that_an_actor_cut_in_pieces_are_told_once_and_remembered(tmp_path):
    said, asked = [], []
    parts = [OptionLogits.empty([f"row{number}"], ["fold0"], 4, "1") for number in range(3)]
    answers = [Answered(number, part, 2, 0.1, None, 0, "here") for number, part in enumerate(parts)]

    class Pool:
        def call(self, method, batch):
            return [0.5, 1.5]

        def answers(self, batches, orders, split):
            asked.append(split)
            return iter(answers)

    pool = Pool()
    shared = SimpleNamespace(say=said.append, ready=lambda *given: pool)
    plan = SimpleNamespace(plan=None, options=RunOptions(), context=RunContext(), letters=4)
    job = SimpleNamespace(**vars(plan), out=tmp_path, parts=tmp_path / "logits")
    job.parts.mkdir()
    scheduler = SimpleNamespace(batches={n: Batch(n, [], "1") for n in range(3)}, rows_done=0, rows_in=len)
    loop = ActorLoop(shared, job, scheduler, RunState({}, 900, False), SimpleNamespace(load=list, verifying_seconds=0))
    loop.run(SimpleNamespace(todo=[0, 1, 2]))
    assert len(said) == 1 and said[0].startswith("out of memory with 900 tokens a batch: going on in pieces")
    assert json.loads((tmp_path / "plan.json").read_text())["split"] == 2 and len(list(job.parts.iterdir())) == 3
    loop.run(SimpleNamespace(todo=[0, 1, 2]))
    assert asked == [1, 2] and len(said) == 1 and loop.loader.verifying_seconds == 3
    assert loop.reported() == [{"process": "here", "rows": 6, "seconds": 0.6, "verified": None}]
