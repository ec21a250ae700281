"""A head that is gone ends a run in good order, long before Ray would end it."""

import socket
import subprocess
import sys
import time
from pathlib import Path
from threading import Event, Timer

import pytest

from benchmarks import command_line
from scoring.cluster import head as heads
from scoring.cluster.connection import ClusterError
from scoring.cluster.head import Head
from tests.shared.demo import FOLD0
from tests.shared.processes import with_code
from tests.shared.ray_clusters import processes_of, ray_folder, ray_variables

SOONER = "import scoring.cluster.head as head; head.GONE_SECONDS, head.LOOK_SECONDS = 1.0, 0.2"


@pytest.fixture
def listening():
    """Somebody listens there until it is closed."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def head(listening, monkeypatch):
    monkeypatch.setattr(heads, "GONE_SECONDS", 0.3)
    monkeypatch.setattr(heads, "LOOK_SECONDS", 0.1)
    return Head(f"127.0.0.1:{listening.getsockname()[1]}")


def check_for(head: Head, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        head.check()
        time.sleep(0.01)


def test_one_that_answers_again_in_time_is_not_lost(head, listening):
    check_for(head, 0.5)
    address = listening.getsockname()
    listening.close()
    check_for(head, 0.2)
    with socket.create_server(address):
        check_for(head, 0.5)
        assert head.wait(Event())
    with pytest.raises(ClusterError, match=rf"^the head of the Ray cluster \(127.0.0.1:{address[1]}\) is gone; the "):
        check_for(head, 1)


def test_one_look_in_vain_is_not_enough_where_nobody_looked_for_long(head, listening):
    listening.close()
    time.sleep(0.4)
    head.check()
    time.sleep(0.15)
    head.check()
    time.sleep(0.15)
    with pytest.raises(ClusterError, match="is gone"):
        head.check()


def test_it_is_waited_for_until_it_is_lost_or_the_run_is_to_stop(head, listening):
    stop = Event()
    listening.close()
    Timer(0.1, stop.set).start()
    assert not head.wait(stop)
    with pytest.raises(ClusterError, match="is gone"):
        head.wait(Event())


def test_where_it_cannot_be_reached_nothing_is_looked_at(monkeypatch):
    monkeypatch.setattr(heads, "LOOK_SECONDS", 0.0)
    head = Head(None)
    head.check()
    assert head.wait(Event())


@pytest.fixture
def own_head():
    """(address, folder of its files) of a cluster whose processes are no children of this one."""
    with ray_folder() as folder:
        port = command_line.free_port()
        words = ["--head", "--port", str(port), "--num-cpus", "1", "--include-dashboard", "false"]
        program = Path(sys.executable).with_name("ray")
        done = subprocess.run([program, "start", "--disable-usage-stats", *words], capture_output=True, timeout=60)
        try:
            assert done.returncode == 0, done.stderr
            yield f"127.0.0.1:{port}", folder
        finally:
            for process in processes_of(folder):
                process.kill()


def test_a_command_ends_with_a_message_where_the_head_is_lost(own_head, tmp_path):
    address, folder = own_head
    words = ["score", "demo/test.csv", "--ckpt", FOLD0, "--no-verify", "--batch-tokens", 200, "--out", tmp_path / "ray"]
    program, code = with_code(SOONER, [*words, "--ray", address])
    files = {"out": tmp_path / "out", "err": tmp_path / "err"}
    driver = command_line.start(code, program=program, env=ray_variables(), **files)
    command_line.wait_until(driver, lambda: len(list(tmp_path.glob("ray/logits/*.parquet"))) > 2, 60)
    killed = time.monotonic()
    [server] = [each for each in processes_of(folder) if each.name() == "gcs_server"]
    server.kill()
    driver.join(30)
    told = (tmp_path / "err").read_text()
    assert driver.exitcode == 2 and time.monotonic() - killed < 20, told
    assert "error: the head of the Ray cluster (" in told and "Traceback" not in told
    assert (tmp_path / "out").read_text() == ""
