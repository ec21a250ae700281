"""`train` as a function: the bits of the command, its checks before anything is loaded, and no trace in the program."""

import logging
from dataclasses import replace
from threading import Event

import pytest

from scoring.errors import CallError, InputError
from scoring.library.training import Trained, train
from scoring.tables.reading import TableOptions, read_table
from train.config import ConfigError, TrainConfig
from train.folder import FolderError
from train.log import LogError
from train.split import SplitError

CONFIG = {"epochs": 1, "batch": 2, "learning_rate": 1e-3, "rank": 4, "valid_share": 0.4}
FILES = ("adapter_model.safetensors", "adapter_config.json", "calibration.json", "rows.parquet", "validation.csv")


@pytest.fixture(scope="module")
def table(demo, tmp_path_factory):
    """The first ten rows that the demo was trained on, beside its pictures' folder."""
    lines = (demo / "train.csv").read_text("utf-8").splitlines()
    path = tmp_path_factory.mktemp("table") / "ten.csv"
    path.write_text("\n".join(lines[:11]) + "\n", "utf-8")
    return path


def test_a_training_that_is_stopped_and_continued_has_the_bits_of_the_command(
    quick_cli, base, demo, table, tmp_path, caplog
):
    import torch

    options = [word for name, value in CONFIG.items() for word in (f"--{name.replace('_', '-')}", value)]
    quick_cli("train", table, "--images", demo, "--base", base, "--out", tmp_path / "command", *options)
    out, stop, steps, state = tmp_path / "function", Event(), [], torch.get_rng_state()

    def stop_after_a_step(done, total):
        steps.append((done, total))
        if done:
            stop.set()

    call = {"images": demo, "config": CONFIG, "overwrite": False}
    with pytest.raises(KeyboardInterrupt, match="of 3 steps are saved"):
        train(str(table), base, str(out), **call, progress=stop_after_a_step, stop=stop)
    with caplog.at_level(logging.INFO, "scoring"):
        trained = train(read_table(table, TableOptions(images=demo)), str(base), out, **call)
    assert steps[:2] == [(0, 6), (2, 6)] and torch.equal(torch.get_rng_state(), state)
    assert "6 training rows, 4 validation rows" in caplog.text and "going on: " in caplog.text
    for name in FILES:
        assert (out / name).read_bytes() == (tmp_path / "command" / name).read_bytes(), name
    [checkpoint] = trained.checkpoints
    assert trained == Trained(out, [checkpoint]) and checkpoint.folder == out and checkpoint.epoch == 1
    assert 0 <= checkpoint.accuracy <= 1 and 0 < checkpoint.nll_calibrated < 10 and checkpoint.temperature > 0
    with pytest.raises(FolderError, match="holds a checkpoint; choose another out=, or add overwrite=True"):
        train(table, base, out, **call)


@pytest.fixture
def refused(base, demo, table, tmp_path, monkeypatch):
    """A call that must not come as far as the model."""
    monkeypatch.setattr("train.trainer.LearningModel", None)

    def call(rows=table, base=base, **arguments):
        with pytest.raises(ValueError) as error:
            train(rows, base, tmp_path / "out", **{"images": demo} | arguments)
        assert not (tmp_path / "out").exists()
        return error.value

    return call


def test_what_is_wrong_is_told_before_anything_is_loaded_in_a_programs_words(refused, demo, table, tmp_path):
    assert isinstance(refused(valid=table, folds=2), CallError)
    assert isinstance(refused(folds=1), CallError)
    assert isinstance(refused(config={"rank": 0}), ConfigError)
    error = refused(config={"ranks": 4})
    assert isinstance(error, ConfigError) and "unknown: ranks; expected some of epochs" in str(error)
    assert "expected some of tensorboard, wandb, trackio" in str(refused(trackers=["board"]))
    assert isinstance(refused(trackers="board"), LogError)
    assert "rows are also in training" in str(refused(valid=table))
    error = refused(config={"valid_share": 0.9, "epochs": 1}, rows=first_rows(table, demo, 1))
    assert isinstance(error, SplitError) and "name a validation table with valid=" in str(error)
    assert "no layer of" in str(refused(config={"targets": ["q_proj", "nothing"]}))
    assert "no such folder" in str(refused(base="./none"))
    unanswered = first_rows(table, demo, 4)
    unanswered.questions[1] = replace(unanswered.questions[1], answer="")
    error = refused(rows=unanswered)
    assert isinstance(error, InputError) and [problem.row for problem in error.problems] == [2]
    (tmp_path / "broken.csv").write_text("path,question,a,b,answer\nnone.jpg,What?,x,y,a\n")
    assert "column path" in str(refused(rows=tmp_path / "broken.csv"))


def first_rows(table, demo, count):
    read = read_table(table, TableOptions(images=demo))
    return replace(read, questions=read.questions[:count])


def test_one_of_several_processes_is_refused(refused, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "this is one of 2 processes (WORLD_SIZE is 2)" in str(refused())


def test_a_file_of_choices_names_columns_too(refused, demo, table, tmp_path):
    text = table.read_text("utf-8")
    (tmp_path / "named.csv").write_text(text.replace("question", "Q", 1), "utf-8")
    (tmp_path / "choices.toml").write_text('targets = ["nothing"]\n[columns]\nquestion = "Q"\n')
    assert "no layer of" in str(refused(rows=tmp_path / "named.csv", config=tmp_path / "choices.toml"))
    assert "column question" in str(refused(rows=tmp_path / "named.csv", config=TrainConfig()))


def test_faulty_rows_are_left_out_where_that_is_permitted_and_each_fold_is_told(
    refused, base, demo, table, tmp_path, caplog, monkeypatch
):
    lines = table.read_text("utf-8").splitlines()
    lines[2] = lines[2].replace("images/", "images/none-", 1)
    (tmp_path / "one_bad.csv").write_text("\n".join(lines) + "\n", "utf-8")
    assert isinstance(refused(rows=tmp_path / "one_bad.csv"), InputError)
    started = []
    monkeypatch.setattr("train.start.start", lambda *arguments: started.append(arguments))
    with caplog.at_level(logging.INFO, "scoring"):
        folder = demo / "checkpoints"  # as a training would have left it
        trained = train(tmp_path / "one_bad.csv", base, folder, images=demo, skip_bad_rows=True, folds=2)
    assert "going on without 1 of 10 rows" in caplog.text and "9 training rows, 2 folds" in caplog.text
    [(inputs, _, folds, overwrite)] = started
    assert (len(inputs.train), inputs.valid, folds, overwrite, trained.left_out) == (9, [], 2, False, 1)
    assert [checkpoint.folder for checkpoint in trained.checkpoints] == [folder / "fold0", folder / "fold1"]
    assert all(checkpoint.accuracy > 0.5 for checkpoint in trained.checkpoints)
