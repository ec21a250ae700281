"""Trainings on a handful of the demo's rows, and one that is killed midway."""

import json

from scoring.files.lock import lock_folder
from train.config import TrainConfig
from train.inputs import TrainContext, TrainingInputs
from train.start import start
from train.trainer import Trainer

QUICK = TrainConfig(epochs=1, batch=4, learning_rate=2e-3, warmup=0.1, batch_tokens=350)  # two forwards a step


def trainer_of(base, rows, valid, out, config, say=lambda text: None, **options):
    return Trainer(TrainingInputs(str(base), rows, valid, out, config, **options), TrainContext(say=say))


def trained(base, questions, out, config=QUICK, rows=10, valid=6, **options):
    """(the training, the results of its epochs), as `run` trains, which returns the results alone."""
    trainer = trainer_of(base, questions[:rows], questions[100 : 100 + valid], out, config, **options)
    with lock_folder(out):
        training = trainer.setup()
        trainer.train(training)
        trainer.finish(training)
    return training, training.state.results


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def losses(out):
    lines = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    return [line.get("loss", line.get("valid_loss")) for line in lines]


def train_in_folds(base, rows, out, config, folds, overwrite=False):
    lines: list[str] = []
    start(TrainingInputs(str(base), rows, [], out, config), TrainContext(say=lines.append), folds, overwrite)
    return lines


def contents(folder):
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


PLAIN = TrainConfig(dropout=0.0, batch_tokens=700)
