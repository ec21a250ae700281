"""A process of several is killed: the others finish, or the next start does, with the files of one."""

from pathlib import Path

from benchmarks import command_line
from benchmarks.faults import SCORED, content
from tests.shared.demo import FOLD0
from tests.shared.processes import ONE_THREAD, forked_program, run_alone, run_together, stderr_of_all, with_code


def killed_halfway(tmp_path, arguments, which: int, code: str = "") -> tuple[list, Path]:
    """Two processes of which one is killed once some batches are filed."""
    err, out = tmp_path / "err", tmp_path / "two"
    program, text = with_code(code, [*arguments, "--out", out])
    processes = command_line.start_several(2, text, program=program, err=err)
    command_line.wait_until(processes[which], lambda: len(list(out.glob("**/logits/*.parquet"))) > 2)
    processes[which].kill()
    processes[which].join()
    assert not (out / "run.json").exists()
    return processes, out


def test_the_rest_finishes_what_a_killed_process_leaves(tmp_path, small_table):
    """The run that it was killed in, and the next of the same call."""
    arguments = ["score", small_table(9), "--ckpt", FOLD0, "--orders", "1,2", "--batch-tokens", 200]
    processes, out = killed_halfway(tmp_path, arguments, 1, "import scoring.run.processes as p; p.SILENT = 3")
    told = stderr_of_all(processes[:1], tmp_path / "err")[0]
    assert processes[0].exitcode == 0 and told.count("process 1 does not respond any more") == 1
    assert not list(out.glob("**/*.tmp"))
    run_alone(*arguments, "--out", tmp_path / "one")
    for run in (".", "runs/1", "runs/2"):
        assert content(out / run, SCORED) == content(tmp_path / "one" / run, SCORED)


def test_without_the_first_process_the_others_end_and_the_next_start_completes(tmp_path, small_table):
    arguments = ["score", small_table(9), "--ckpt", FOLD0, "--batch-tokens", 200]
    processes, out = killed_halfway(tmp_path, arguments, 0)
    told = stderr_of_all(processes[1:], tmp_path / "err", first=1)[0]
    assert processes[1].exitcode == 1 and "is gone" in told and "Traceback" not in told
    told = run_together(2, tmp_path / "again", *arguments, "--out", out)
    assert "going on:" in told[0] and told[1] == ""
    run_alone(*arguments, "--out", tmp_path / "one")
    assert content(out, SCORED) == content(tmp_path / "one", SCORED)


def test_two_hosts_that_start_anew_where_a_process_was_killed(tmp_path, small_table):
    """Two torchruns, as on two hosts that share a folder: docs/scaling.md's line for Slurm. What was filed is kept."""
    arguments = ["score", small_table(9), "--ckpt", FOLD0, "--batch-tokens", 200]
    run_alone(*arguments, "--out", tmp_path / "one")
    words = ["cli.py", *map(str, arguments), "--overwrite", "--out", str(tmp_path / "two")]
    code = (
        "import os, signal, sys, time\nfrom pathlib import Path\nfrom scoring.engine.batch_scorer import BatchScorer\n"
        "import scoring.run.processes as p; p.PARTING = 0.5\n"  # nobody is left to read a message
        f"mark, parts = Path({str(tmp_path / 'killed')!r}), Path({str(tmp_path / 'two')!r})\n"
        "whole = BatchScorer.begin\n"
        "def begin(*given):\n"
        "    if os.environ['RANK'] == '1' and not mark.exists() and len(list(parts.glob('logits/*.parquet'))) > 1:\n"
        "        mark.touch()\n        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    time.sleep(0 if mark.exists() else 0.3)\n    return whole(*given)\n"
        f"BatchScorer.begin = begin\nimport cli\nsys.argv = {words!r}\ncli.main()\n"
    )
    program = forked_program(tmp_path, code)
    meeting = ["--rdzv_backend", "c10d", "--rdzv_endpoint", f"127.0.0.1:{command_line.free_port()}"]
    group = ["--nnodes", "2", "--nproc_per_node", "1", "--max-restarts", "3", *meeting]
    hosts = [
        command_line.start(
            *group, program, program="torch.distributed.run", env=ONE_THREAD, err=tmp_path / f"host{host}"
        )
        for host in range(2)
    ]
    for host in hosts:
        host.join(250)
    messages = "".join(path.read_text("utf-8") for name in ("host*", "worker*") for path in tmp_path.glob(name))
    assert [host.exitcode for host in hosts] == [0, 0], messages
    assert (tmp_path / "killed").exists() and messages.count("going on:") == 1
    assert messages.count("9 of 9 rows scored") == 1
    assert content(tmp_path / "two", SCORED) == content(tmp_path / "one", SCORED)
