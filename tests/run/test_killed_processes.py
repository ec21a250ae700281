"""A process of several is killed: the others end too, and the next start completes the files of one."""

from pathlib import Path

import pytest

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


def test_the_first_waits_for_a_limited_time_and_the_next_start_completes(tmp_path, small_table):
    """Without torchrun, which would end it at once."""
    arguments = ["score", small_table(9), "--ckpt", FOLD0, "--orders", "1,2", "--batch-tokens", 200]
    processes, out = killed_halfway(tmp_path, arguments, 1, "import scoring.run.processes as p; p.LIMIT = 6")
    told = stderr_of_all(processes[:1], tmp_path / "err")[0]
    assert processes[0].exitcode == 1 and told.count("waited 6 s in vain for process 1; start all again") == 1
    begun = next(out.glob("runs/*/logits"))
    (begun / "8.parquet.host-1.tmp").write_bytes(b"half")
    run_alone(*arguments, "--out", out)
    assert not list(out.glob("**/*.tmp"))
    run_alone(*arguments, "--out", tmp_path / "one")
    for run in (".", "runs/1", "runs/2"):
        assert content(out / run, SCORED) == content(tmp_path / "one" / run, SCORED)


def test_without_the_first_process_the_others_end_and_the_next_start_completes(tmp_path, small_table):
    arguments = ["score", small_table(9), "--ckpt", FOLD0, "--batch-tokens", 200]
    processes, out = killed_halfway(tmp_path, arguments, 0)
    told = stderr_of_all(processes[1:], tmp_path / "err", first=1)[0]
    assert processes[1].exitcode == 1 and "is gone" in told and "Traceback" not in told
    told = run_together(3, tmp_path / "again", *arguments, "--out", out)
    assert "going on:" in told[0] and told[1:] == ["", ""]
    run_alone(*arguments, "--out", tmp_path / "one")
    assert content(out, SCORED) == content(tmp_path / "one", SCORED)


@pytest.mark.parametrize("restarts", [0, 3])
def test_torchrun_ends_the_rest_or_starts_all_again(tmp_path, small_table, restarts):
    """With --max-restarts what was filed is kept, also with --overwrite; without them, for the next call."""
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
    group = ["--nproc_per_node", "2", "--max-restarts", restarts, "--master_port", command_line.free_port()]
    program = forked_program(tmp_path, code)
    torchrun = command_line.start(
        *group, program, program="torch.distributed.run", env=ONE_THREAD, err=tmp_path / "torchrun"
    )
    torchrun.join(250)
    messages = "".join(path.read_text("utf-8") for name in ("torchrun", "worker*") for path in tmp_path.glob(name))
    assert torchrun.exitcode == (0 if restarts else 1) and (tmp_path / "killed").exists(), messages
    if not restarts:
        assert not (tmp_path / "two" / "run.json").exists()
        messages = "".join(run_together(3, tmp_path / "again", *arguments, "--out", tmp_path / "two"))
    assert messages.count("going on:") == 1
    assert content(tmp_path / "two", SCORED) == content(tmp_path / "one", SCORED)
