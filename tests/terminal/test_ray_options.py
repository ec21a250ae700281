"""`score --ray`: which options go together, and a cluster that is started here: stopped, and out of memory."""

import os
import shlex
import signal
from contextlib import nullcontext
from types import SimpleNamespace

import click
import pytest
from ray._private.worker import print_to_stdstream

from benchmarks import command_line
from scoring.cluster import connection
from scoring.terminal.ray_options import RayChoices
from scoring.terminal.session import Session
from tests.shared.demo import FOLD0
from tests.shared.processes import with_code
from tests.shared.ray_clusters import ray_folder, ray_variables

CALL = ["score", "demo/test.csv", "--ckpt", FOLD0, "--no-verify", "--batch-tokens", 300, "--limit", 60]
RAY = ["--ray", "--ray-actors", 1]


@pytest.fixture
def own():
    """The environment of a command whose cluster is its own; none of it is left at the end."""
    with ray_folder():
        yield ray_variables()


@pytest.mark.parametrize(
    "choices, processes, device_map, told",
    [
        (RayChoices(None, 2), None, "none", "--ray-actors: for --ray; add that, or leave it out"),
        (RayChoices("", None), SimpleNamespace(count=2), "none", "start it without torchrun"),
        (RayChoices("", None), None, "auto", "--ray has a model on each card, --device-map auto one on all"),
    ],
)
def test_options_that_do_not_go_together(choices, processes, device_map, told):
    with pytest.raises(click.UsageError) as error:
        choices.check(Session(processes=processes), device_map)
    assert told in error.value.message


def test_the_command_line_refuses_them(quick_cli):
    score = ["score", "demo/test.csv"]
    for words, told in (
        (["--ckpt", FOLD0, "--ray-actors", 2], "--ray-actors: for --ray"),
        (["--ckpt", FOLD0, "--ray", "--device-map", "auto"], "--device-map auto"),
        (["--endpoint", "http://x", "--model", "m", "--ray"], "--ray with --endpoint"),
        (["--ckpt", FOLD0, "--ray", "127.0.0.1:1"], "error: 127.0.0.1:1: [Errno 111] Connection refused; expected a"),
        (["--ckpt", FOLD0, "--ray", "--ray-actors", 0], "--ray-actors"),
    ):
        assert told in quick_cli(*score, *words, check=2).stderr


def test_without_ray_the_context_has_no_workers():
    with RayChoices(None, None).context(Session()) as context:
        assert context.workers is None


def test_what_ray_prints_on_stdout_goes_to_stderr(monkeypatch, capsys):
    """Its driver prints the loss of a node there, and has no setting for it."""
    monkeypatch.setattr(connection, "connected", lambda address, say: nullcontext())
    with RayChoices("", None).connected(Session()):
        print_to_stdstream({"lines": ["a node is dead"], "pid": "raylet", "is_err": False}, False)
    print("results")
    told = capsys.readouterr()
    assert told.out == "results\n" and "a node is dead" in told.err


def test_ctrl_c_files_what_is_in_hand_and_tells_how_to_go_on(tmp_path, own):
    """The terminal sends it to the whole group, so to actors too. Nothing else is told than in one process."""
    words, out = [*CALL, *RAY, "--out", tmp_path / "ray"], tmp_path / "ray"
    program, code = with_code("import os; os.setsid()", words)
    process = command_line.start(code, program=program, env=own, err=tmp_path / "err")
    command_line.wait_until(process, lambda: len(list(out.glob("logits/*.parquet"))) > 2, 60)
    os.killpg(process.pid, signal.SIGINT)
    process.join(60)
    parts, told = len(list(out.glob("logits/*.parquet"))), (tmp_path / "err").read_text()
    go_on = shlex.join(["python", "cli.py", *map(str, words)])
    assert process.exitcode == 130 and told.splitlines() == [
        f"Ray: 1 node, 0 cards, {os.cpu_count()} cores",
        "60 rows, 1 checkpoint; loading …",
        "",
        "stopping after the current work is saved; press Ctrl-C again to stop at once",
        "",
        told.splitlines()[5],
        f"go on with: {go_on}",
    ]
    assert told.splitlines()[5].startswith(f"stopped: {parts} of ")


def test_actors_for_which_there_is_no_memory_end_the_run(tmp_path, own):
    """Ray's own watch over memory ends them, here from the first byte on."""
    scarce = own | {"RAY_memory_usage_threshold": "0.001", "RAY_memory_monitor_refresh_ms": "100"}
    done = command_line.run(*CALL, *RAY, "--out", tmp_path / "ray", env=scarce, timeout=120)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "error: 3 actors ended while loading, the last: " in done.stderr
    assert done.stderr.count("low on memory") == 3
