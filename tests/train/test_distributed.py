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
from scoring.files.lock import LockError, check_folder_is_shared, lock_folder
from scoring.run.processes import ProcessError, Processes
from tests.run.test_processes import ALONE, ended, with_code
from train.config import TrainConfig
from train.distributed import TrainingGroup
from train.inputs import TrainContext, TrainError, TrainingInputs
from train.model import LearningModel, Memory
from train.plan import TrainingPlan
from train.state import SavedState
from train.trainer import Trainer

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
    messages = ended(processes, err)
    assert not any(process.exitcode for process in processes), messages
    return messages


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


def test_two_processes_train_as_one(tmp_path, command):
    alone(*command, tmp_path / "one")
    messages = together(2, tmp_path / "err", *command, tmp_path / "two")
    same_training(tmp_path / "one", tmp_path / "two")
    assert messages[1] == "" and messages[0].count("epoch 1: validation loss") == 1


def test_what_two_processes_began_one_goes_on_with_and_three_end(tmp_path, command):
    alone(*command, tmp_path / "one")
    out, err = tmp_path / "two", tmp_path / "err"
    program, text = with_code(QUIET, [*command, out, "--save-every", 1])
    processes = command_line.start_several(2, text, program=program, err=err)
    command_line.wait_until(processes[0], lambda: (out / "train.jsonl").exists() and _lines(out) >= 2)
    processes[1].kill()
    messages = ended(processes, err)
    assert processes[0].exitcode == 1 and "start all again" in messages[0], messages
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
    messages = ended(processes, err)
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
    messages = "".join(ended(processes, tmp_path / "err"))
    assert [process.exitcode for process in processes] == [1, 1]
    assert messages.count("RuntimeError: the card is broken") == 1


def test_a_fold_for_each_process(tmp_path, small_table):
    command = ["train", small_table(12), "--base", "demo/base", *CHOICES, "--epochs", 1, "--folds", 3, "--out"]
    alone(*command, tmp_path / "one")
    messages = together(2, tmp_path / "err", *command, tmp_path / "two")
    for name in [f"fold{fold}/{name}" for fold in range(3) for name in FILES[:3]]:
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes(), name
    first, second = (json.loads((tmp_path / name / "out-of-fold/metrics.json").read_text()) for name in ("one", "two"))
    assert first == second and "fold1: epoch 1" in "".join(messages)


def test_fewer_folds_than_processes_are_trained_by_all(tmp_path, small_table):
    command = ["train", small_table(12), "--base", "demo/base", *CHOICES, "--epochs", 1, "--folds", 2, "--out"]
    alone(*command, tmp_path / "one")
    together(3, tmp_path / "err", *command, tmp_path / "three")
    for fold in ("fold0", "fold1"):
        same_training(tmp_path / "one" / fold, tmp_path / "three" / fold)


# ------------------------------------------------------------------ shares
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 300)), min_size=1, max_size=24), st.integers(1, 5))
def test_every_row_has_one_process_and_pictures_stay_together(rows, count):
    costs = [TokenCost(picture, 3, 144, tokens) for picture, tokens in rows]
    shares = []
    for rank in range(count):
        group = TrainingGroup.__new__(TrainingGroup)
        group.processes = Processes(rank, count)
        shares.append(group.assign_rows(costs))
    assert sorted(row for share in shares for row in share) == list(range(len(rows)))
    pictures = [{rows[row][0] for row in share} for share in shares]
    assert sum(map(len, pictures)) == len(set.union(*pictures))


def test_alone_nothing_is_sent():
    group = TrainingGroup(Processes(), torch.device("cpu"), "x")
    weight = torch.nn.Parameter(torch.ones(2))
    assert group.sum_gradients([weight], 1.5, 0.0) == [1.5, 0.0] and weight.grad is None
    assert group.any_process(True) and not group.any_process(False)
    assert group.assign_rows([TokenCost("a", 1, 2, 3)] * 3) == [0, 1, 2]
    assert np.array_equal(group.sum(np.ones(2)), np.ones(2))


# ------------------------------------------------------------------ what all must agree in
@pytest.fixture
def two():
    """Two processes of one call, in this one."""
    store = HashStore()
    return [Processes(rank, 2, store, store) for rank in range(2)]


def test_memory_is_what_all_have_room_for():
    fast, low = Memory("fast", 9_000), Memory("low", 20_000)
    assert Memory.least([fast, low]) == Memory("low", 9_000) and Memory.least([fast]) == fast


def test_a_folder_that_not_all_share_is_told(two, base, demo, tmp_path, monkeypatch):
    rows = read_questions(demo / "train.csv")[:4]
    trainers = [
        Trainer(
            TrainingInputs(str(base), rows, rows, tmp_path / str(processes.rank) / "out", TrainConfig()),
            TrainContext(processes=processes),
        )
        for processes in two
    ]
    saved = SavedState({}, {"step": 1_050})
    states = {trainers[0].out: saved}
    monkeypatch.setattr("train.trainer.read_state", lambda out, identity: states.get(out))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(trainers[0].read_saved_state)
        message = "holds step 1,050 for the first process, but 0 for process 1 on .*; expected a folder that all"
        with pytest.raises(TrainError, match=message):
            trainers[1].read_saved_state()
        assert first.result() is saved


def test_a_hold_that_is_not_seen_is_told(tmp_path):
    with lock_folder(tmp_path / "held"):
        check_folder_is_shared(tmp_path / "held", 0)
    with pytest.raises(LockError, match="not the folder that the first process writes into"):
        check_folder_is_shared(tmp_path / "other", 0)


def test_who_trains_a_fold_alone_hears_of_faults_too(two, monkeypatch):
    monkeypatch.setattr("scoring.run.processes.PARTING", 0)
    group = TrainingGroup(two[0].alone(), torch.device("cpu"), "x")
    assert group.sum_gradients([], 1.5) == [1.5]
    two[1].fail("the card is broken", 3)
    with pytest.raises(ProcessError, match="process 1 on .*: the card is broken") as error:
        group.sum_gradients([], 1.5)
    assert error.value.code == 3 and error.value.original == "the card is broken"


def test_once_is_once_whoever_asks(two):
    assert two[0].first_time("overwrite") and not two[1].first_time("overwrite") and Processes().first_time("overwrite")


def test_in_float16_a_process_without_rows_unscales_too(base, demo, tmp_path, monkeypatch):
    monkeypatch.setattr("scoring.engine.loading.default_dtype", lambda device: torch.float16)
    rows = read_questions(demo / "train.csv")[:2]
    preparer = TrainingPlan(TrainingInputs(str(base), rows, rows, tmp_path, TrainConfig())).preparer
    model = LearningModel(base, TrainConfig(), preparer.policy, preparer.chat.label_ids("abcd"))
    optimizer = torch.optim.AdamW(model.weights)
    for weight in model.weights:
        weight.grad = torch.full_like(weight, model.scaler.get_scale())  # as the others' sum
    model.scaler.unscale_(optimizer)
    assert model.weights[0].grad.max() == 1
