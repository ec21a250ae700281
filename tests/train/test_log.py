"""The log of a training, and the trackers that get its numbers."""

import json
import sys
from types import SimpleNamespace

import pytest

from tests.shared.trainings import trained
from train.log import LogError, check_trackers


def test_trackers_get_the_numbers_of_the_log(base, questions, tmp_path, monkeypatch):
    written: dict[str, list] = {"wandb": [], "trackio": [], "tensorboard": []}

    class Run:
        def __init__(self, name):
            self.log = lambda values, step: written[name].append((step, values))
            self.finish = lambda: written[name].append("closed")

    class Board:
        def __init__(self, folder):
            self.close = lambda: written["tensorboard"].append("closed")

        def add_scalar(self, key, value, step):
            written["tensorboard"].append((step, {key: value}))

    runs = {name: Run(name) for name in ("wandb", "trackio")}
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **_: runs["wandb"]))
    trackio = SimpleNamespace(init=lambda **_: None, log=runs["trackio"].log, finish=runs["trackio"].finish)
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Board))
    trained(base, questions, tmp_path / "ckpt", rows=4, trackers=("wandb", "trackio", "tensorboard"))
    lines = [json.loads(line) for line in (tmp_path / "ckpt" / "train.jsonl").read_text().splitlines()]
    for name in ("wandb", "trackio"):
        assert written[name][-1] == "closed" and len(written[name]) == len(lines) + 1
        assert written[name][0][1]["loss"] == lines[0]["loss"]
    assert (1, {"loss": lines[0]["loss"]}) in written["tensorboard"] and written["tensorboard"][-1] == "closed"


def test_a_tracker_that_is_not_installed_is_reported_at_once(monkeypatch):
    monkeypatch.setattr("train.log.find_spec", lambda name: None)
    with pytest.raises(LogError, match="--log trackio needs a package that is not installed: pip install trackio"):
        check_trackers(("trackio",))
