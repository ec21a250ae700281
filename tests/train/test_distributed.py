"""What the processes of a training share: its rows, its gradients, and what all must agree in."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed import HashStore

from scoring import read_questions
from scoring.engine.costs import TokenCost
from scoring.run.processes import ProcessError, Processes
from train.config import TrainConfig
from train.distributed import TrainingGroup
from train.inputs import TrainContext, TrainError, TrainingInputs
from train.model import LearningModel, Memory
from train.plan import TrainingPlan
from train.state import SavedState
from train.trainer import Trainer


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


def test_who_trains_a_fold_alone_hears_of_faults_too(two, monkeypatch):
    monkeypatch.setattr("scoring.run.processes.PARTING", 0)
    group = TrainingGroup(two[0].alone(), torch.device("cpu"), "x")
    assert group.sum_gradients([], 1.5) == [1.5]
    two[1].fail("the card is broken", 3)
    with pytest.raises(ProcessError, match="process 1 on .*: the card is broken") as error:
        group.sum_gradients([], 1.5)
    assert error.value.code == 3 and two[0].add("steps", 0) == 2


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
