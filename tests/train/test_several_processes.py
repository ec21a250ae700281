"""A training in several processes: the weights of one, and an end for all where one fails."""

import json
import os
from pathlib import Path

import pytest
from safetensors.torch import load_file

from benchmarks import command_line
from tests.shared.processes import ONE_THREAD, forked_program, run_alone, run_together, stderr_of_all, with_code
from tests.shared.tables import copy_rows

CHOICES = ["--epochs", 2, "--batch", 3, "--learning-rate", 1e-3, "--dropout", 0]
IMPATIENT = "import scoring.run.processes as p; p.LIMIT = 6"
FILES = ("adapter_model.safetensors", "last/adapter_model.safetensors", "validation.csv", "train.jsonl")


def training_of(folder: Path, demo: Path) -> list:
    """The call, up to its folder: a training of 8 rows, held against 3 others; an epoch's last step has two rows."""
    table, valid = copy_rows(demo, folder, 8), copy_rows(demo, folder, 11, "valid.csv")
    lines = valid.read_text("utf-8").splitlines()
    valid.write_text("\n".join([lines[0], *lines[9:]]) + "\n", "utf-8")
    return ["train", table, "--base", "demo/base", "--valid", valid, *CHOICES, "--out"]


@pytest.fixture
def command(demo, tmp_path):
    return training_of(tmp_path, demo)


@pytest.fixture(scope="module")
def one(demo, tmp_path_factory):
    """The folder of the same training in one process."""
    folder = tmp_path_factory.mktemp("one")
    run_alone(*training_of(folder, demo), folder / "out")
    return folder / "out"


def same_training(one: Path, other: Path) -> None:
    """Equal weights, losses and validation, but for the order of sums."""
    for name in FILES[:2]:
        first, second = load_file(one / name), load_file(other / name)
        assert first.keys() == second.keys()
        length = sum(weight.square().sum() for weight in first.values()) ** 0.5
        distance = sum((first[key] - second[key]).square().sum() for key in first) ** 0.5
        assert distance < 1e-4 * length
    first, second = (
        [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()] for folder in (one, other)
    )
    assert len(first) == len(second)
    for a, b in zip(first, second):
        assert a.keys() == b.keys()
        for key in {*a} - {"rows_per_second"}:
            assert a[key] == pytest.approx(b[key], rel=2e-3, abs=2e-5), (key, a, b)
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in other.iterdir())


def test_two_processes_train_as_one(tmp_path, command, one):
    messages = run_together(2, tmp_path / "err", *command, tmp_path / "two")
    same_training(one, tmp_path / "two")
    assert messages[1] == "" and messages[0].count("epoch 1: validation loss") == 1


def test_two_hosts_train_as_one(tmp_path, command, one):
    """Two torchruns that share a folder: docs/scaling.md's line."""
    program = forked_program(tmp_path, with_code("", [*command, tmp_path / "two"])[1])
    meeting = ["--rdzv_backend", "c10d", "--rdzv_endpoint", f"127.0.0.1:{command_line.free_port()}"]
    group = ["--nnodes", "2", "--nproc_per_node", "1", *meeting, program]
    hosts = [command_line.start(*group, program="torch.distributed.run", env=ONE_THREAD) for _ in range(2)]
    for host in hosts:
        host.join(120)
    assert [host.exitcode for host in hosts] == [0, 0]
    same_training(one, tmp_path / "two")


def test_what_two_processes_began_one_goes_on_with_and_three_end(tmp_path, command, one):
    out, err = tmp_path / "two", tmp_path / "err"
    program, text = with_code(IMPATIENT, [*command, out, "--save-every", 1])
    processes = command_line.start_several(2, text, program=program, err=err)
    command_line.wait_until(processes[0], lambda: (out / "train.jsonl").exists() and _lines(out) >= 2)
    processes[1].kill()
    messages = stderr_of_all(processes, err)
    assert processes[0].exitcode == 1 and "start all again" in messages[0], messages
    process = command_line.start(*command, out, "--save-every", 1, env=ONE_THREAD, err=str(err))
    command_line.wait_until(process, lambda: _lines(out) >= 4)
    os.kill(process.pid, 15)
    process.join()
    assert process.exitcode in (0, 130) and "going on:" in err.read_text("utf-8")
    if process.exitcode:
        assert "going on:" in run_together(3, err, *command, out)[0]
    same_training(one, out)


def _lines(out: Path) -> int:
    return (out / "train.jsonl").read_text().count("\n")


@pytest.mark.parametrize("number", [15, 2])
def test_all_stop_at_one_step_where_all_are_asked_to(tmp_path, command, number):
    out, err = tmp_path / "two", tmp_path / "err"
    processes = command_line.start_several(2, *command, out, err=err)
    command_line.wait_until(processes[0], lambda: (out / "train.jsonl").exists() and _lines(out) >= 1)
    for process in processes:
        os.kill(process.pid, number)
    messages = stderr_of_all(processes, err)
    assert [process.exitcode for process in processes] == [130, 130], messages
    assert "of 6 steps are saved" in messages[0] and "the same command goes on" in messages[0]


def test_an_error_of_one_ends_all_with_its_message(tmp_path, command):
    broken = (
        "import os\nfrom train.model import LearningModel\nwhole = LearningModel.loss_backward\n"
        "def backward(*given):\n"
        "    if os.environ['RANK'] == '1': raise RuntimeError('the card is broken')\n"
        "    return whole(*given)\n"
        "LearningModel.loss_backward = backward"
    )
    program, text = with_code(broken, [*command, tmp_path / "two"])
    processes = command_line.start_several(2, text, program=program, err=tmp_path / "err")
    messages = "".join(stderr_of_all(processes, tmp_path / "err"))
    assert [process.exitcode for process in processes] == [1, 1]
    assert messages.count("RuntimeError: the card is broken") == 1


def test_a_fold_for_each_process(tmp_path, small_table):
    command = ["train", small_table(6), "--base", "demo/base", *CHOICES, "--epochs", 1, "--folds", 3, "--out"]
    run_alone(*command, tmp_path / "one")
    messages = run_together(2, tmp_path / "err", *command, tmp_path / "two")
    for name in [f"fold{fold}/{name}" for fold in range(3) for name in FILES[:3]]:
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes(), name
    first, second = (json.loads((tmp_path / name / "out-of-fold/metrics.json").read_text()) for name in ("one", "two"))
    assert first == second and "fold1: epoch 1" in "".join(messages)


def test_fewer_folds_than_processes_are_trained_by_all(tmp_path, small_table):
    command = ["train", small_table(6), "--base", "demo/base", *CHOICES, "--epochs", 1, "--folds", 2, "--out"]
    run_alone(*command, tmp_path / "one")
    run_together(3, tmp_path / "err", *command, tmp_path / "three")
    for fold in ("fold0", "fold1"):
        same_training(tmp_path / "one" / fold, tmp_path / "three" / fold)
