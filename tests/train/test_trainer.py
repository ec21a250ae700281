"""Training on a handful of demo rows: repeatable to the bit, honest about loss and accumulation."""

import json
import re
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import train.trainer
from benchmarks import command_line
from scoring import Scorer
from scoring.checkpoints.checkpoint import folds_of, read_checkpoint
from scoring.checkpoints.plan import plan_members
from scoring.files.lock import lock_folder
from scoring.inputs.pictures import PictureError
from scoring.inputs.questions import read_table
from scoring.scores.evaluation import evaluate_scores
from scoring.scores.folder import open_scores
from train.config import TrainConfig
from train.folder import FolderError, check_out, discard, finished
from train.folds import assign_folds, train_folds
from train.inputs import TrainContext, TrainError, TrainingInputs
from train.log import LogError, check_trackers
from train.model import LearningModel, Memory
from train.start import start
from train.state import SavedState, StateError, write_state
from train.trainer import Trainer
from train.training import Training
from train.validation import Validator

QUICK = TrainConfig(epochs=1, batch=8, learning_rate=2e-3, warmup=0.1, batch_tokens=700)


@pytest.fixture(scope="module")
def questions(demo):
    return read_table(demo / "train.csv").questions


def trainer_of(base, rows, valid, out, config, say=lambda text: None, **options):
    return Trainer(TrainingInputs(str(base), rows, valid, out, config, **options), TrainContext(say))


def trained(base, questions, out, config=QUICK, rows=20, **options):
    """(the training, the results of its epochs), as `run` trains, which returns the results alone."""
    trainer = trainer_of(base, questions[:rows], questions[100:124], out, config, **options)
    with lock_folder(out):
        training = trainer.setup()
        trainer.train(training)
        trainer.finish(training)
    return training, training.state.results


@pytest.fixture(scope="module")
def first(base, questions, tmp_path_factory):
    out = tmp_path_factory.mktemp("first") / "ckpt"
    return out, *trained(base, questions, out)


def test_the_files_of_a_checkpoint(first, base):
    out, _, results = first
    assert sorted(path.name for path in out.iterdir()) == [
        ".lock",
        "adapter_config.json",
        "adapter_model.safetensors",
        "calibration.json",
        "last",
        "rows.parquet",
        "scoring.json",
        "train.jsonl",
        "train.toml",
        "validation",
        "validation.csv",
    ]
    checkpoint = read_checkpoint(str(out))
    manifest = checkpoint.manifest
    assert manifest.training["learning_rate"] == 2e-3 and manifest.quantization == "nf4" and manifest.letters == "abcd"
    assert manifest.pixels == {"min_pixels": 36864, "max_pixels": 36864} and manifest.metrics["nll"] == results[0].nll
    assert checkpoint.calibration.fingerprint["adapter"] == checkpoint.fingerprint()
    assert (
        manifest.base == json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"] == str(base)
    )
    steps = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in steps] == [1, 2, 3, 3] and steps[-1]["valid_nll"] > 0
    assert len((out / "validation.csv").read_text().splitlines()) == 25


def test_the_last_step_takes_the_rows_that_are_left_and_the_schedule_ends_with_it(first):
    """20 rows in steps of 8: three steps, the last of 4 rows; the rate falls in a line to 0 after them."""
    steps = [json.loads(line) for line in (first[0] / "train.jsonl").read_text().splitlines()][:3]
    assert np.allclose([entry["learning_rate"] for entry in steps], [2e-3, 2e-3 * 2 / 3, 2e-3 / 3], atol=1e-6)
    assert first[1].state.rows_done == 20


def test_gradients_are_clipped(base, questions, tmp_path):
    """AdamW hides how long a gradient is, unless it is as short as its epsilon."""
    training, _ = trained(base, questions, tmp_path, replace(QUICK, clip=1e-13), rows=8)
    moved = max(weight.abs().max().item() for weight in training.model.weights if not weight.abs().max() > 1e-2)
    assert moved < 2e-3 * 1e-3


def test_seeds_repeat_the_training_bit_for_bit(first, base, questions, tmp_path):
    out, _, results = first
    _, again = trained(base, questions, tmp_path / "again")
    assert (tmp_path / "again" / "adapter_model.safetensors").read_bytes() == (
        out / "adapter_model.safetensors"
    ).read_bytes()
    assert np.array_equal(again[0].scores.logits, results[0].scores.logits)
    assert (tmp_path / "again" / "adapter_config.json").read_bytes() == (out / "adapter_config.json").read_bytes()
    trained(base, questions, tmp_path / "other", replace(QUICK, seed=1))
    assert (tmp_path / "other" / "adapter_model.safetensors").read_bytes() != (
        out / "adapter_model.safetensors"
    ).read_bytes()


def test_scoring_the_checkpoint_gives_its_validation_logits(first, questions):
    out, _, results = first
    scored = Scorer.load(str(out)).score(questions[100:124])
    assert np.abs(scored.logits[:, 0, 0] - results[0].scores.logits).max() < 1e-4


def test_a_loss_that_is_no_number_stops_with_the_rows(base, questions, tmp_path, monkeypatch):
    monkeypatch.setattr(LearningModel, "loss_backward", lambda *arguments: torch.tensor(float("nan")))
    with pytest.raises(TrainError, match=questions[0].id[:5]):
        trained(base, questions, tmp_path / "nan")


def test_the_best_epoch_is_kept(base, questions, tmp_path, monkeypatch):
    """Epoch 2 is made worse: the folder keeps epoch 1, the tables tell both."""
    validate = Validator.validate

    def worse(*arguments):
        result = validate(*arguments)
        if result.epoch == 2:
            result.calibration.nll_after += 10
        return result

    monkeypatch.setattr(Validator, "validate", worse)
    out = tmp_path / "two"
    trained(base, questions, out, replace(QUICK, epochs=2), rows=8)
    adapters = [(folder / "adapter_model.safetensors").read_bytes() for folder in (out, out / "last")]
    assert adapters[0] != adapters[1]
    assert read_checkpoint(str(out)).manifest.metrics["epoch"] == 1
    assert read_checkpoint(str(out / "last")).manifest.metrics["epoch"] == 2
    table = (out / "validation.csv").read_text().splitlines()
    assert len(table) == 1 + 2 * 24 and {line.rsplit(",", 1)[1] for line in table[1:]} == {"1", "2"}
    again = tmp_path / "early"
    results = trained(base, questions, again, replace(QUICK, epochs=4, patience=1), rows=8)[1]
    assert [result.epoch for result in results] == [1, 2] and not (again / "training_state.safetensors").exists()


def test_validation_rows_are_a_scores_folder(first, questions):
    out, _, results = first
    scores = open_scores(out / "validation")
    logits = scores.logits
    assert np.array_equal(logits.logits[:, 0, 0], results[0].scores.logits) and logits.scored.all()
    assert evaluate_scores(scores)["overall"]["nll"]["value"] == pytest.approx(results[0].nll, abs=1e-6)


# ------------------------------------------------------------------ going on
class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@pytest.fixture(scope="module")
def whole(base, questions, tmp_path_factory):
    """A training of two epochs of four steps that nothing killed."""
    config = replace(QUICK, epochs=2, batch=6, save_every=1, ema=0.9, schedule="cosine", shuffle_options=True)
    out = tmp_path_factory.mktemp("whole") / "ckpt"
    trained(base, questions, out, config)
    return out, config


@pytest.mark.parametrize("step", [2, 5])  # within the first epoch; at a later one's first step
def test_a_killed_training_ends_with_the_same_bytes(base, questions, whole, tmp_path, monkeypatch, step):
    (whole, config), killed = whole, tmp_path / "ckpt"
    save = Training.save_state

    def kill(self):
        save(self)
        if self.state.step == step:
            self.log.write(step, loss=9.0)  # a line after the saved state, which is cut off
            raise Killed

    monkeypatch.setattr(Training, "save_state", kill)
    with pytest.raises(Killed):
        trained(base, questions, killed, config)
    monkeypatch.setattr(Training, "save_state", save)
    with pytest.raises(StateError, match="rank was 16, now 8"):
        trained(base, questions, killed, replace(config, rank=8))
    lines: list[str] = []
    trainer_of(base, questions[:20], questions[100:124], killed, config, lines.append).run()
    assert any(f"going on: {step} steps are done" in line for line in lines)
    for name in ("adapter_model.safetensors", "last/adapter_model.safetensors", "validation.csv"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    logs = [[json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()] for out in (whole, killed)]
    assert [(row["step"], row.get("loss")) for row in logs[0]] == [(row["step"], row.get("loss")) for row in logs[1]]


def test_a_training_killed_by_the_system_goes_on_to_the_same_bytes(cli, small_table, tmp_path):
    table = small_table(12)
    choices = ["--epochs", 2, "--batch", 2, "--learning-rate", 1e-3, "--save-every", 1, "--seed", 1]
    command = ["train", table, "--base", "demo/base", "--valid-share", 0.3, *choices, "--out"]
    cli(*command, tmp_path / "whole")
    killed = tmp_path / "killed"
    process, log = command_line.start(*command, killed), killed / "train.jsonl"
    command_line.wait_until(process, lambda: log.exists() and log.read_text().count("\n") >= 3)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL and not finished(killed), "killed too late to show anything"
    before = log.read_text().splitlines()
    steps = int(re.search(r"going on: (\d+) steps are done", cli(*command, killed).stderr)[1])
    assert 2 <= steps < 8
    logs = [(out / "train.jsonl").read_text().splitlines() for out in (tmp_path / "whole", killed)]
    assert logs[1][:2] == before[:2]  # steps that were done are not done again: their speed is in these lines
    whole, resumed = ([json.loads(line) | {"rows_per_second": 0} for line in lines] for lines in logs)
    assert whole == resumed and len(whole) == 8 + 2
    for name in ("adapter_model.safetensors", "validation.csv", "calibration.json", "last/adapter_model.safetensors"):
        assert (killed / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert not list(killed.glob("*.tmp"))


def test_a_training_killed_before_its_first_epoch_is_filed_is_not_finished(base, questions, tmp_path, monkeypatch):
    def kill(*arguments):
        raise Killed

    monkeypatch.setattr(train.epoch_end, "write_epochs", kill)  # the adapter is written, the state after it is not
    with pytest.raises(Killed):
        trained(base, questions, tmp_path, rows=8)
    assert (tmp_path / "adapter_model.safetensors").exists() and not finished(tmp_path)
    monkeypatch.undo()
    trained(base, questions, tmp_path, rows=8)
    assert finished(tmp_path)


def test_a_damaged_state_is_reported(base, questions, tmp_path):
    (tmp_path / "training_state.safetensors").write_bytes(b"nothing")
    with pytest.raises(StateError, match="damaged: start anew with --overwrite"):
        trained(base, questions, tmp_path)


@pytest.fixture
def stopped(base, questions, tmp_path, monkeypatch):
    """Begin a training in the folder given, and kill it after two steps."""

    def stop(out, config):
        save = Training.save_state

        def kill(self):
            save(self)
            if self.state.step == 2:
                raise Killed

        monkeypatch.setattr(Training, "save_state", kill)
        with pytest.raises(Killed):
            trained(base, questions, out, config)
        monkeypatch.setattr(Training, "save_state", save)

    return stop


def losses(out):
    lines = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    return [line.get("loss", line.get("valid_loss")) for line in lines]


def test_a_training_goes_on_with_the_memory_that_is_chosen_now(base, questions, stopped, tmp_path):
    config = replace(QUICK, epochs=2, save_every=1, dropout=0.0, memory="fast")
    trained(base, questions, tmp_path / "whole", config)
    out = tmp_path / "ckpt"
    stopped(out, config)
    training, _ = trained(base, questions, out, replace(config, memory="low", batch_tokens=400))
    assert training.memory == Memory("low", 400) and training.model.network.is_gradient_checkpointing
    recorded = read_checkpoint(str(out)).manifest.training
    assert (recorded["memory"], recorded["batch_tokens"]) == ("low", 400)
    assert len(losses(out)) == 8 and np.allclose(losses(out), losses(tmp_path / "whole"), rtol=0, atol=1e-5)


def test_a_training_goes_on_with_the_memory_of_its_state_where_none_is_chosen(base, questions, stopped, tmp_path):
    stopped(tmp_path, replace(QUICK, save_every=1, memory="low", batch_tokens=400))
    training, _ = trained(base, questions, tmp_path, replace(QUICK, save_every=1, memory="auto", batch_tokens=0))
    assert training.memory == Memory("low", 400)


def test_a_constant_rate_is_warmed_up_to(base, questions, tmp_path):
    config = replace(QUICK, schedule="constant", warmup=0.5, batch=2)
    trained(base, questions, tmp_path, config)
    rates = [json.loads(line)["learning_rate"] for line in (tmp_path / "train.jsonl").read_text().splitlines()[:-1]]
    assert rates == pytest.approx([0, 4e-4, 8e-4, 1.2e-3, 1.6e-3, *[2e-3] * 5], abs=1e-6)


# ------------------------------------------------------------------ pictures that break
def test_a_picture_that_breaks_in_training_does_not_block_the_next_start(base, questions, tmp_path):
    """In the second epoch, when there is an adapter: without its row the training starts anew."""
    picture = tmp_path / "breaks.jpg"
    shutil.copy(questions[3].picture, picture)
    rows = [replace(row, picture=picture) if row is questions[3] else row for row in questions[:8]]
    out, config = tmp_path / "ckpt", replace(QUICK, epochs=2, batch=2, save_every=1)

    def say(text):
        if text.startswith("epoch 1:"):
            picture.write_bytes(picture.read_bytes()[:600])

    with pytest.raises(PictureError, match=f"row '{questions[3].id}'"):
        trainer_of(base, rows, questions[100:124], out, config, say).run()
    assert (out / "adapter_model.safetensors").exists() and not finished(out)
    check_out(out, None)
    with pytest.raises(StateError, match="rank was 16, now 8"):  # another choice is not what mends a picture
        trainer_of(base, rows, questions[100:124], out, replace(config, rank=8), say).run()
    lines: list[str] = []
    good = [row for row in rows if row.picture != picture]
    trainer_of(base, good, questions[100:124], out, config, lines.append).run()
    assert any(
        f"starting anew without the row that stopped the training before: row '{questions[3].id}'" in line
        for line in lines
    )
    assert finished(out) and not (out / "training_fault.json").exists()
    trainer_of(base, good, questions[100:124], tmp_path / "fresh", config, lines.append).run()
    adapters = [(folder / "adapter_model.safetensors").read_bytes() for folder in (out, tmp_path / "fresh")]
    assert adapters[0] == adapters[1]


def test_a_picture_that_is_mended_lets_the_training_go_on(base, questions, tmp_path):
    picture = tmp_path / "breaks.jpg"
    shutil.copy(questions[3].picture, picture)
    rows = [replace(row, picture=picture) if row is questions[3] else row for row in questions[:8]]
    out, config = tmp_path / "ckpt", replace(QUICK, epochs=2, batch=2, save_every=1)
    broken = trainer_of(base, rows, questions[100:124], out, config)
    picture.unlink()
    with pytest.raises(PictureError):
        broken.run()
    shutil.copy(questions[3].picture, picture)
    lines: list[str] = []
    trainer_of(base, rows, questions[100:124], out, config, lines.append).run()
    assert any(line.startswith("going on: ") for line in lines) and finished(out)


def broken_table(small_table):
    """Eight rows; the second one's picture has its header and half of its pixels."""
    table = small_table(8)
    picture = table.parent / table.read_text("utf-8").splitlines()[2].split(",")[1]
    picture.write_bytes(picture.read_bytes()[: picture.stat().st_size // 2])
    return table


def test_a_cut_picture_is_found_before_the_base_is_loaded(cli, small_table, tmp_path):
    table, out = broken_table(small_table), tmp_path / "ckpt"
    command = ["train", table, "--base", "demo/base", "--epochs", 1, "--batch", 4, "--out", out]
    refused = cli(*command, check=2).stderr
    assert "row 2 (line 3, id 'test_0001'), column path" in refused and "broken pixels" in refused
    assert "loading" not in refused and not out.exists()
    done = cli(*command, "--skip-bad-rows", check=3).stderr
    assert "broken pixels" in done and "going on without 1 of 8 rows" in done and finished(out)
    assert read_checkpoint(str(out)).manifest.data["train_rows"] == 6


# ------------------------------------------------------------------ tables that do not do
def test_the_checkpoint_records_how_validation_rows_were_held_out(cli, small_table, tmp_path):
    table, out = small_table(12), tmp_path / "ckpt"
    command = ["train", table, "--base", "demo/base", "--epochs", 1, "--batch", 8, "--valid-share", 0.2, "--out", out]
    cli(*command)
    data = json.loads((out / "scoring.json").read_text())["data"]
    assert (data["split"], data["train_rows"], data["valid_rows"], data["valid_pictures"]) == ("by picture", 9, 3, 3)


def test_validating_on_trained_rows_is_refused_before_the_base_is_loaded(cli, small_table, tmp_path):
    table, out = small_table(12), tmp_path / "ckpt"
    done = cli("train", table, "--valid", table, "--base", "demo/base", "--out", out, check=2)
    assert "12 of 12 rows are also in training: 'test_0000'" in done.stderr
    assert "loading" not in done.stderr and not out.exists()


@pytest.mark.parametrize("further", [[], ["--folds", 2]])
def test_one_row_is_too_few_to_train(cli, small_table, tmp_path, further):
    done = cli("train", small_table(1), "--base", "demo/base", "--out", tmp_path / "ckpt", *further, check=2)
    assert "1 picture cannot be" in done.stderr and "expected" in done.stderr and "Traceback" not in done.stderr


def test_two_rows_are_enough_to_train(cli, small_table, tmp_path):
    cli("train", small_table(2), "--base", "demo/base", "--epochs", 1, "--out", tmp_path / "ckpt")
    assert finished(tmp_path / "ckpt")


# ------------------------------------------------------------------ folds and trackers
FOLDS = replace(QUICK, batch=4)


def train_in_folds(base, rows, out, config, folds, overwrite=False):
    lines: list[str] = []
    start(TrainingInputs(str(base), rows, [], out, config), TrainContext(lines.append), folds, overwrite)
    return lines


@pytest.fixture(scope="module")
def folded(base, questions, tmp_path_factory):
    """Three folds of twelve rows, finished."""
    out = tmp_path_factory.mktemp("folded") / "folds"
    train_in_folds(base, questions[:12], out, FOLDS, 3)
    return out


def contents(folder):
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.fixture
def unloaded(monkeypatch):
    """Whoever loads a model fails."""

    def load(*arguments):
        raise AssertionError("a model is loaded")

    monkeypatch.setattr(train.trainer, "LearningModel", load)


def test_finished_folds_are_not_trained_again(base, questions, folded, tmp_path, unloaded):
    out = shutil.copytree(folded, tmp_path / "folds")
    lines = train_in_folds(base, questions[:12], out, FOLDS, 3)
    assert [line for line in lines if "finished before" in line] == [f"fold {n}: finished before" for n in range(3)]
    assert contents(out).keys() == contents(folded).keys()
    longer = replace(FOLDS, memory="low", batch_tokens=300, save_every=7)  # what does not change an adapter
    train_in_folds(base, questions[:12], out, longer, 3)


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"config": replace(FOLDS, epochs=3)},
            "fold0 holds a finished training with other choices: epochs was 1, now 3",
        ),
        ({"config": replace(FOLDS, targets=("q_proj",))}, "targets was .*, now .'q_proj'."),
        ({"rows": 9}, "training rows was 8, now 6; validation rows was 4, now 3"),
        ({"rows": 12, "answer": "other"}, "content of training rows was [0-9a-f]{16}, now [0-9a-f]{16}"),
        ({"folds": 4}, "training rows was 8, now 9; validation rows was 4, now 3"),
        ({"base": "other"}, "base was [0-9a-f]{16}, now [0-9a-f]{16}"),
    ],
)
def test_finished_folds_of_other_choices_are_refused(base, questions, folded, tmp_path, unloaded, change, message):
    rows = questions[: change.get("rows", 12)]
    if "answer" in change:
        rows = [replace(row, answer="a" if row.answer != "a" else "b") for row in rows]
    if "base" in change:
        base = shutil.copytree(base, tmp_path / "base")
        (base / "config.json").write_text((base / "config.json").read_text() + "\n")
    out = shutil.copytree(folded, tmp_path / "folds")
    with pytest.raises(FolderError, match=message) as error:
        train_in_folds(base, rows, out, change.get("config", FOLDS), change.get("folds", 3))
    assert "Choose another --out, or start anew with --overwrite" in str(error.value)
    assert contents(out) == contents(folded)


def test_a_finished_fold_beside_others_that_are_not_is_refused_before_those_are_trained(
    base, questions, folded, tmp_path, unloaded
):
    out = shutil.copytree(folded, tmp_path / "folds")
    shutil.rmtree(out / "fold0")
    before = contents(out)
    with pytest.raises(FolderError, match="fold1 holds a finished training with other choices: epochs was 1, now 3"):
        train_in_folds(base, questions[:12], out, replace(FOLDS, epochs=3), 3)
    assert contents(out) == before


def test_an_unfinished_fold_of_other_choices_is_refused_before_others_are_trained(
    base, questions, folded, tmp_path, unloaded
):
    out = shutil.copytree(folded, tmp_path / "folds")
    shutil.rmtree(out / "fold0")
    trainer = trainer_of(base, questions[:1], questions[1:2], out / "fold2", replace(FOLDS, epochs=3))
    write_state(out / "fold2", SavedState({}, {"identity": trainer.plan.identity}))
    with pytest.raises(
        StateError, match="fold2 holds an unfinished training with other choices: .*epochs was 3, now 1"
    ):
        train_in_folds(base, questions[:12], out, FOLDS, 3)
    assert not (out / "fold0").exists()


def test_finished_folds_of_older_versions_are_known_by_what_they_record(base, questions, folded, tmp_path, unloaded):
    out = shutil.copytree(folded, tmp_path / "folds")
    for path in out.glob("fold*/scoring.json"):
        about = json.loads(path.read_text())
        del about["data"]["train_digest"], about["data"]["valid_digest"], about["training"]["ema"]
        path.write_text(json.dumps(about))
    assert "fold 2: finished before" in train_in_folds(base, questions[:12], out, FOLDS, 3)
    with pytest.raises(FolderError, match="training rows was 8, now 6"):
        train_in_folds(base, questions[:9], out, FOLDS, 3)


def test_an_adapter_from_elsewhere_is_no_finished_fold(base, questions, folded, tmp_path, unloaded):
    out = shutil.copytree(folded, tmp_path / "folds")
    (out / "fold1" / "scoring.json").unlink()
    with pytest.raises(FolderError, match="fold1 holds an adapter without scoring.json"):
        train_in_folds(base, questions[:12], out, FOLDS, 3)


def test_folds_of_a_training_with_more_of_them_are_refused_and_named(folded):
    check_out(folded, 3)
    check_out(folded, 4)  # the rows of the folds show it later
    with pytest.raises(FolderError, match="holds fold2 of a training in more folds than 2; .*--overwrite"):
        check_out(folded, 2)
    with pytest.raises(FolderError, match=r"holds folds \(fold0, fold1, fold2\); .*--overwrite"):
        check_out(folded, None)


def test_overwriting_leaves_no_fold_behind(base, questions, folded, tmp_path):
    out = shutil.copytree(folded, tmp_path / "folds")
    for name in ("notes", "fold9"):  # of somebody else
        (out / name).mkdir()
        (out / name / "read.me").write_text("mine")
    train_in_folds(base, questions[:12], out, FOLDS, 2, overwrite=True)
    assert [Path(name).name for name in folds_of(str(out))] == ["fold0", "fold1"]
    assert read_checkpoint(str(out / "fold0")).manifest.data["train_rows"] == 6
    assert (out / "notes" / "read.me").exists() and (out / "fold9" / "read.me").exists()
    assert open_scores(out / "out-of-fold").logits.scored.all()


def test_overwriting_one_checkpoint_with_folds_leaves_folds_alone(first, base, questions, tmp_path):
    out = shutil.copytree(first[0], tmp_path / "ckpt")
    with pytest.raises(FolderError, match="holds a checkpoint"):
        check_out(out, 2)
    discard(out)
    assert sorted(path.name for path in out.iterdir()) == [".lock", "train.toml", "validation.csv"]
    check_out(out, 2)


def test_folds_are_refused_where_a_training_without_them_is_not_finished(base, questions, stopped, tmp_path):
    stopped(tmp_path, replace(QUICK, save_every=1))
    with pytest.raises(FolderError, match="holds an unfinished training without folds"):
        check_out(tmp_path, 2)


def test_folds_leave_out_of_fold_logits_and_are_scored_together(base, questions, tmp_path):
    out, lines = tmp_path / "folds", []
    inputs = TrainingInputs(str(base), questions[:42], [], out, replace(QUICK, seed=0))
    train_folds(inputs, 2, TrainContext(lines.append))
    logits = open_scores(out / "out-of-fold").logits
    assert logits.scored.all() and logits.ids == [row.id for row in questions[:42]]
    assert [Path(name).name for name in folds_of(str(out))] == ["fold0", "fold1"]
    valid_rows = assign_folds(questions[:42], 2, 0)[1]
    scored = Scorer.load(str(out / "fold1")).score([questions[row] for row in valid_rows])
    assert np.abs(scored.logits - logits.logits[valid_rows]).max() < 1e-4
    assert plan_members([str(out)]).members == ["fold0", "fold1"]
    before = (out / "out-of-fold" / "probabilities.csv").read_bytes()
    train_folds(inputs, 2, TrainContext(lines.append))  # nothing is trained again
    assert "fold 1: finished before" in lines
    assert (out / "out-of-fold" / "probabilities.csv").read_bytes() == before


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
    trained(base, questions, tmp_path / "ckpt", rows=8, trackers=("wandb", "trackio", "tensorboard"))
    lines = [json.loads(line) for line in (tmp_path / "ckpt" / "train.jsonl").read_text().splitlines()]
    for name in ("wandb", "trackio"):
        assert written[name][-1] == "closed" and len(written[name]) == len(lines) + 1
        assert written[name][0][1]["loss"] == lines[0]["loss"]
    assert (1, {"loss": lines[0]["loss"]}) in written["tensorboard"] and written["tensorboard"][-1] == "closed"


def test_a_tracker_that_is_not_installed_is_reported_at_once(monkeypatch):
    monkeypatch.setattr("train.log.find_spec", lambda name: None)
    with pytest.raises(LogError, match="--log trackio needs a package that is not installed: pip install trackio"):
        check_trackers(("trackio",))


def test_generating_gives_its_accuracy_too(base, questions, tmp_path):
    _, results = trained(base, questions, tmp_path / "ckpt", replace(QUICK, generate=True), rows=8)
    last = json.loads((tmp_path / "ckpt" / "train.jsonl").read_text().splitlines()[-1])
    assert 0 <= results[0].generated <= 1 and last["valid_accuracy_generated"] == round(results[0].generated, 6)
