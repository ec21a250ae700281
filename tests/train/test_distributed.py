"""A training in several processes: the weights of one, whoever has which row, and an end for all where one fails."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.distributed import HashStore

from benchmarks import command_line
from scoring import read_questions
from scoring.engine.batches import TokenCost
from scoring.files.lock import HoldError, check_held, hold
from scoring.run.processes import ProcessError, Processes
from tests.run.test_processes import ALONE, ended, with_code
from train.config import TrainConfig
from train.distributed import Together
from train.model import LearningModel, Memory
from train.trainer import Trainer, TrainError

CHOICES = ["--epochs", 2, "--batch", 4, "--learning-rate", 1e-3, "--dropout", 0]
QUIET = "import scoring.run.processes as p; p.SILENT = 3"
FILES = ("adapter_model.safetensors", "last/adapter_model.safetensors", "validation.csv", "train.jsonl")


@pytest.fixture
def command(small_table):
    """A training of 10 rows, held against 6 others; the last step of an epoch has two rows."""
    table, valid = small_table(10), small_table(16, "valid.csv")
    lines = valid.read_text("utf-8").splitlines()
    valid.write_text("\n".join([lines[0], *lines[11:]]) + "\n", "utf-8")
    return ["train", table, "--base", "demo/base", "--valid", valid, *CHOICES, "--out"]


def alone(*arguments) -> None:
    process = command_line.start(*arguments, env=ALONE)
    process.join()
    assert process.exitcode == 0


def together(count: int, err: Path, *arguments) -> list[str]:
    processes = command_line.start_several(count, *arguments, err=err)
    told = ended(processes, err)
    assert not any(process.exitcode for process in processes), told
    return told


def same_training(one: Path, other: Path) -> None:
    """Equal weights, losses and validation, but for the order of sums."""
    for name in FILES[:2]:
        ours, theirs = load_file(one / name), load_file(other / name)
        assert ours.keys() == theirs.keys()
        length = sum(weight.square().sum() for weight in ours.values()) ** 0.5
        distance = sum((ours[key] - theirs[key]).square().sum() for key in ours) ** 0.5
        assert distance < 1e-4 * length
    ours, theirs = (
        [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()] for folder in (one, other)
    )
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs):
        assert a.keys() == b.keys()
        for key in {*a} - {"rows_per_second"}:
            assert a[key] == pytest.approx(b[key], rel=2e-3, abs=2e-5), (key, a, b)
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in other.iterdir())


def test_two_processes_train_as_one(tmp_path, command):
    alone(*command, tmp_path / "one")
    told = together(2, tmp_path / "err", *command, tmp_path / "two")
    same_training(tmp_path / "one", tmp_path / "two")
    assert told[1] == "" and told[0].count("epoch 1: validation loss") == 1


def test_what_two_processes_began_one_goes_on_with_and_three_end(tmp_path, command):
    alone(*command, tmp_path / "one")
    out, err = tmp_path / "two", tmp_path / "err"
    program, text = with_code(QUIET, [*command, out, "--save-every", 1])
    processes = command_line.start_several(2, text, program=program, err=err)
    command_line.wait_until(processes[0], lambda: (out / "train.jsonl").exists() and _lines(out) >= 2)
    processes[1].kill()
    told = ended(processes, err)
    assert processes[0].exitcode == 1 and "start all again" in told[0], told
    process = command_line.start(*command, out, "--save-every", 1, env=ALONE, err=str(err))
    command_line.wait_until(process, lambda: _lines(out) >= 4)
    os.kill(process.pid, 15)
    process.join()
    assert process.exitcode in (0, 130) and "going on:" in err.read_text("utf-8")
    if process.exitcode:
        assert "going on:" in together(3, err, *command, out)[0]
    same_training(tmp_path / "one", out)


def _lines(out: Path) -> int:
    return (out / "train.jsonl").read_text().count("\n")


@pytest.mark.parametrize("number", [15, 2])
def test_all_stop_at_one_step_where_all_are_asked_to(tmp_path, command, number):
    out, err = tmp_path / "two", tmp_path / "err"
    processes = command_line.start_several(2, *command, out, err=err)
    command_line.wait_until(processes[0], lambda: (out / "train.jsonl").exists() and _lines(out) >= 1)
    for process in processes:
        os.kill(process.pid, number)
    told = ended(processes, err)
    assert [process.exitcode for process in processes] == [130, 130], told
    assert "of 6 steps are saved" in told[0] and "the same command goes on" in told[0]


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
    told = "".join(ended(processes, tmp_path / "err"))
    assert [process.exitcode for process in processes] == [1, 1] and told.count("RuntimeError: the card is broken") == 1


def test_a_fold_for_each_process(tmp_path, small_table):
    command = ["train", small_table(12), "--base", "demo/base", *CHOICES, "--epochs", 1, "--folds", 3, "--out"]
    alone(*command, tmp_path / "one")
    told = together(2, tmp_path / "err", *command, tmp_path / "two")
    for name in [f"fold{fold}/{name}" for fold in range(3) for name in FILES[:3]]:
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes(), name
    ours, theirs = (json.loads((tmp_path / name / "out-of-fold/metrics.json").read_text()) for name in ("one", "two"))
    assert ours == theirs and "fold1: epoch 1" in "".join(told)


def test_fewer_folds_than_processes_are_trained_by_all(tmp_path, small_table):
    command = ["train", small_table(12), "--base", "demo/base", *CHOICES, "--epochs", 1, "--folds", 2, "--out"]
    alone(*command, tmp_path / "one")
    together(3, tmp_path / "err", *command, tmp_path / "three")
    for fold in ("fold0", "fold1"):
        same_training(tmp_path / "one" / fold, tmp_path / "three" / fold)


# ------------------------------------------------------------------ shares
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 300)), min_size=1, max_size=24), st.integers(1, 5))
def test_every_row_has_one_process_and_pictures_stay_together(rows, count):
    costs = [TokenCost(picture, 3, 144, own) for picture, own in rows]
    shares = []
    for rank in range(count):
        one = Together.__new__(Together)
        one.processes = Processes(rank, count)
        shares.append(one.share(costs))
    assert sorted(row for share in shares for row in share) == list(range(len(rows)))
    pictures = [{rows[row][0] for row in share} for share in shares]
    assert sum(map(len, pictures)) == len(set.union(*pictures))


def test_alone_nothing_is_sent():
    one = Together(Processes(), torch.device("cpu"), "x")
    weight = torch.nn.Parameter(torch.ones(2))
    assert one.add_gradients([weight], 1.5, 0.0) == [1.5, 0.0] and weight.grad is None
    assert one.any(True) and not one.any(False) and one.share([TokenCost("a", 1, 2, 3)] * 3) == [0, 1, 2]
    assert np.array_equal(one.add(np.ones(2)), np.ones(2))


# ------------------------------------------------------------------ what all must agree in
@pytest.fixture
def two():
    """Two processes of one call, in this one."""
    store = HashStore()
    return [Processes(rank, 2, store, store) for rank in range(2)]


def test_memory_is_what_all_have_room_for():
    kept, again = {"mode": "fast", "tokens": 9_000}, {"mode": "low", "tokens": 20_000}
    assert Memory.least([kept, again]) == Memory("low", 9_000) and Memory.least([kept]) == Memory("fast", 9_000)


def test_a_folder_that_not_all_share_is_told(two, base, demo, tmp_path, monkeypatch):
    rows = read_questions(demo / "train.csv")[:4]
    trainers = [
        Trainer(str(base), rows, rows, tmp_path / str(one.rank) / "out", TrainConfig(), processes=one) for one in two
    ]
    states = {trainers[0].out: ({}, {"step": 1_050})}
    monkeypatch.setattr("train.trainer.read_state", lambda out, identity: states.get(out))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(trainers[0]._state)
        with pytest.raises(TrainError, match="holds step 1,050 to the first process, 0 here; expected one that all"):
            trainers[1]._state()
        assert first.result() == ({}, {"step": 1_050})


def test_a_hold_that_is_not_seen_is_told(tmp_path):
    with hold(tmp_path / "held"):
        check_held(tmp_path / "held", 0)
    with pytest.raises(HoldError, match="not the folder that the first process writes into"):
        check_held(tmp_path / "other", 0)


def test_who_trains_a_fold_alone_hears_of_faults_too(two, monkeypatch):
    monkeypatch.setattr("scoring.run.processes.PARTING", 0)
    one = Together(two[0].alone(), torch.device("cpu"), "x")
    assert one.add_gradients([], 1.5) == [1.5]
    two[1].fail("the card is broken", 3)
    with pytest.raises(ProcessError, match="process 1 on .*: the card is broken") as told:
        one.add_gradients([], 1.5)
    assert told.value.code == 3 and told.value.original == "the card is broken"


def test_once_is_once_whoever_asks(two):
    assert two[0].first_time("overwrite") and not two[1].first_time("overwrite") and Processes().first_time("overwrite")


def test_in_float16_a_process_without_rows_unscales_too(base, demo, tmp_path, monkeypatch):
    monkeypatch.setattr("scoring.engine.loading.default_dtype", lambda device: torch.float16)
    prepare = Trainer(str(base), *[read_questions(demo / "train.csv")[:2]] * 2, tmp_path, TrainConfig()).prepare
    model = LearningModel(base, TrainConfig(), prepare.policy, prepare.chat.label_ids("abcd"))
    optimizer = torch.optim.AdamW(model.weights)
    for weight in model.weights:
        weight.grad = torch.full_like(weight, model.scaler.get_scale())  # as the others' sum
    model.scaler.unscale_(optimizer)
    assert model.weights[0].grad.max() == 1
