"""Trainings that several files look at: each is made once for a process.

Fixtures import what loads torch: a run of tests that need no model starts without it.
"""

import shutil

import pytest

from scoring.tables.reading import read_table


@pytest.fixture(scope="session")
def questions(demo):
    return read_table(demo / "train.csv").questions


@pytest.fixture(scope="session")
def first(base, questions, tmp_path_factory):
    from tests.shared.trainings import trained

    out = tmp_path_factory.mktemp("first") / "ckpt"
    return out, *trained(base, questions, out, valid=12)


@pytest.fixture
def stopped(base, questions, tmp_path, monkeypatch):
    """Begin a training in the folder given, and kill it after two steps."""
    from tests.shared.trainings import Killed, trained
    from train.training import Training

    def stop(out, config, **rows):
        save = Training.save_state

        def kill(self):
            save(self)
            if self.state.step == 2:
                raise Killed

        monkeypatch.setattr(Training, "save_state", kill)
        with pytest.raises(Killed):
            trained(base, questions, out, config, **rows)
        monkeypatch.setattr(Training, "save_state", save)

    return stop


@pytest.fixture(scope="session")
def folded(base, questions, tmp_path_factory):
    """Three folds of twelve rows, finished."""
    from tests.shared.trainings import QUICK, train_in_folds

    out = tmp_path_factory.mktemp("folded") / "folds"
    train_in_folds(base, questions[:12], out, QUICK, 3)
    return out


@pytest.fixture
def unloaded(monkeypatch):
    """Whoever loads a model fails."""

    def load(*arguments):
        raise AssertionError("a model is loaded")

    monkeypatch.setattr("train.trainer.LearningModel", load)


@pytest.fixture(scope="module")
def base_in_4_bits(base, tmp_path_factory):
    """The demo's base as `…-bnb-4bit` folders hold it."""
    from scoring.engine.loading import Model

    folder = tmp_path_factory.mktemp("four") / "base"
    shutil.copytree(base, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    Model.load(base).network.save_pretrained(folder)
    return folder
