"""Folds on a Ray cluster: the bytes of one process, whatever is lost or stopped, and an end to all faults."""

import json
import shutil
from dataclasses import replace
from threading import Event

import pytest

from benchmarks.command_line import free_port
from scoring.cluster import head as heads
from scoring.cluster.connection import ClusterError, connected
from scoring.engine.batch_scorer import machine
from scoring.inputs.pictures import PictureError
from scoring.messages import silent
from tests.shared.ray_clusters import ray_folder
from tests.shared.trainings import QUICK, contents, train_in_folds
from train import ray_folds
from train.folder import FolderError, finished
from train.inputs import TrainContext, TrainError, TrainingInputs
from train.ray_folds import FoldActor, RayFolds
from train.start import start
from train.state import StateError

ray = pytest.importorskip("ray")
LONGER = replace(QUICK, epochs=5, batch=2, save_every=1)


@pytest.fixture(scope="module")
def cluster():
    """A cluster of this machine's cores."""
    with ray_folder(), connected("local", silent):
        yield


@pytest.fixture
def calls(monkeypatch):
    """Every call of the cluster, as it is made; each hears of its folds soon."""
    made = []
    monkeypatch.setattr(ray_folds, "POLL", 0.05)

    class Watched(ray_folds._Call):
        def __init__(self, *given):
            super().__init__(*given)
            made.append(self)

    monkeypatch.setattr(ray_folds, "_Call", Watched)
    return made


def train_on_ray(base, rows, out, config, workers, say, stop=None):
    context = TrainContext(say=say, stop=stop or Event(), fold_workers=workers)
    start(TrainingInputs(str(base), rows, [], out, config), context, 2)


def without_speed(folder):
    """The files' bytes; the log without the rows per second."""
    files = contents(folder)
    for name in files:
        if name.endswith("train.jsonl"):
            lines = [json.loads(line) for line in files[name].decode().splitlines()]
            files[name] = [{key: value for key, value in line.items() if key != "rows_per_second"} for line in lines]
    return files


class Elsewhere:
    """Workers of a machine of another kind."""

    def machine(self):
        return machine() | {"device": "cuda"}

    def train(self, folds, context):
        raise AssertionError("nothing fits")


def test_a_fold_that_is_lost_and_all_that_are_stopped_end_with_the_bytes_of_one_process(
    base, questions, tmp_path, cluster, calls
):
    assert RayFolds(2).machine() == machine()
    lines, stop, out, rows = [], Event(), tmp_path / "ray" / "folds", questions[:8]

    def say(text):
        lines.append(text)
        if text.startswith("fold1: epoch 1"):
            ray.kill(next(fold for fold in calls[0].running if fold.name == "fold1").actor)
        if text.startswith("fold1: going on"):
            stop.set()

    with pytest.raises(KeyboardInterrupt, match=r"fold1: \d+ of 10 steps are saved"):
        train_on_ray(base, rows, out, LONGER, RayFolds(2), say, stop)
    assert any(line.startswith("fold1: its process is lost") for line in lines) and not finished(out / "fold1")
    with pytest.raises(StateError, match="device was cpu, now cuda"):
        train_on_ray(base, rows, out, LONGER, Elsewhere(), say)
    train_in_folds(base, rows, out, LONGER, 2)
    train_in_folds(base, rows, tmp_path / "one" / "folds", LONGER, 2)
    assert without_speed(out) == without_speed(tmp_path / "one" / "folds")
    with pytest.raises(FolderError, match="rank was 16, now 8"):
        train_on_ray(base, rows, out, replace(LONGER, rank=8), RayFolds(), say)


def test_an_error_of_one_fold_ends_the_call_and_the_others_save_their_steps(base, questions, tmp_path, cluster):
    picture = tmp_path / "breaks.jpg"
    shutil.copy(questions[3].picture, picture)
    rows = [replace(row, pictures=(picture,)) if row is questions[3] else row for row in questions[:8]]

    def say(text):
        if text.startswith("fold 1:"):  # all is planned
            picture.write_bytes(picture.read_bytes()[:600])

    with pytest.raises(PictureError, match=f"row '{questions[3].id}'"):
        train_on_ray(base, rows, tmp_path / "folds", replace(LONGER, epochs=90), RayFolds(2), say)
    assert {path.name for path in (tmp_path / "folds").glob("fold?/training_*")} >= {"training_state.safetensors"}


def test_the_loss_of_the_head_ends_the_call(base, questions, tmp_path, cluster, calls, monkeypatch):
    monkeypatch.setattr(heads, "GONE_SECONDS", 0.2)
    monkeypatch.setattr(heads, "LOOK_SECONDS", 0.05)
    out, nobody = tmp_path / "folds", f"127.0.0.1:{free_port()}"

    def say(text):
        if text.startswith("fold1: epoch 1"):
            calls[0].head.address = nobody

    with pytest.raises(ClusterError, match=rf"the head of the Ray cluster \({nobody}\) is gone; the same command"):
        train_on_ray(base, questions[:8], out, replace(LONGER, epochs=90), RayFolds(2), say)
    assert not calls[0].running and not finished(out / "fold1")


def test_a_fold_that_loses_every_process_ends_the_call(base, questions, tmp_path, cluster):
    lines: list[str] = []
    fold = ray_folds._Fold(TrainingInputs(str(base), questions[:4], [], tmp_path / "fold1", QUICK))
    call = ray_folds._Call([], 1, {}, TrainContext(say=lines.append))
    for _ in range(2):
        call._retry(fold, "its node is gone")
        assert call.waiting.popleft() is fold
    with pytest.raises(ClusterError, match="3 processes ended while training fold1, the last: its node is gone"):
        call._retry(fold, "its node is gone")
    assert lines == ["fold1: its process is lost (its node is gone); going on in another"] * 2


def test_a_node_without_the_folder_of_the_call_says_so(tmp_path):
    with pytest.raises(TrainError, match="expected the same folder on every node"):
        FoldActor().train(None, tmp_path / "elsewhere")


@pytest.mark.parametrize(
    "options, message",
    [
        (["--ray"], "one adapter over several cards stays with torchrun"),
        (["--folds", 2, "--ray-actors", 2], "--ray-actors: for --ray"),
    ],
)
def test_ray_is_for_folds(options, message, quick_cli, tmp_path):
    done = quick_cli("train", "t.csv", "--base", "demo/base", "--out", tmp_path / "out", *options, check=2)
    assert message in " ".join(done.stderr.replace("│", " ").split())
