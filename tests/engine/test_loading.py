"""The model of a run: its base is loaded whole, in 4 bits where that can be."""

import math
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from scoring.checkpoints.weights import (
    BaseWeights,
    CheckpointError,
)
from scoring.engine.batch_scorer import BatchScorer
from scoring.engine.loading import DeviceError, Model, WeightForm, check_room, device_of, settle_functions
from scoring.tables.reading import read_questions


def test_without_bitsandbytes_there_are_16_or_32_bits_and_a_note(demo, monkeypatch):
    monkeypatch.setattr("scoring.engine.loading.why_no_4bit", lambda: "no library for this card")
    loaded = BatchScorer.load(str(demo / "checkpoints" / "fold0"))
    assert loaded.model.quantization == "none" and "no library for this card" in loaded.model.notes[0]


def test_a_sharded_folder_loads_the_same(sharded, plain_base):
    assert len(list(sharded.glob("*.safetensors"))) > 3
    loaded = Model.load(sharded, "none")
    expected = plain_base.network.state_dict().values()
    for (name, weight), expected_weight in zip(loaded.network.state_dict().items(), expected):
        assert torch.equal(weight, expected_weight), name
    assert BaseWeights.of(sharded).shapes["model.language_model.norm.weight"] == (256,)


def test_a_base_that_does_not_fit_a_card_is_refused_with_what_would(base):
    """The demo's: 5 layers of two million weights are quantized, embeddings, tower and norms are not."""
    weights, float16 = BaseWeights.of(base), {name: 2 * math.prod(shape) for name, shape in sizes(base).items()}
    linear = [name for name in float16 if ".layers." in name and "norm" not in name]
    whole = sum(float16.values())
    in_4bit = whole - sum(float16[name] for name in linear) * (1 - (0.5 + 1 / 64) / 2)
    forms = [WeightForm.choose(base, kind, torch.float16) for kind in ("none", "nf4")]
    check_room(weights, forms[0], whole)
    check_room(weights, forms[1], math.ceil(in_4bit))
    with pytest.raises(CheckpointError, match=r"GiB in float16.*: --quantization nf4, in which .*, or several"):
        check_room(weights, forms[0], whole - 1)
    for form in forms:
        with pytest.raises(CheckpointError, match=r"free on the card; expected room for all of them: several"):
            check_room(weights, form, int(in_4bit) - 1)


def sizes(base):
    return {name: tensor.shape for name, tensor in load_file(base / "model.safetensors").items()}


def test_missing_weights_never_start_at_random(sharded, base):

    for path in sharded.glob("model*"):
        path.unlink()
    weights = load_file(base / "model.safetensors")
    weights.pop("model.language_model.norm.weight")
    save_file(weights, sharded / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="model.language_model.norm.weight"):
        Model.load(sharded, "none")


@pytest.mark.parametrize("name", ["cuda:9", "tpu", "meta", "", 5])
def test_a_device_that_is_not_here_is_refused_by_name(name):
    assert device_of("cpu") == torch.device("cpu") and device_of(None) == device_of("auto")
    with pytest.raises(DeviceError, match=f"device '{name}': .* expected one of cpu"):
        device_of(name)


def test_threads_load_at_once_while_another_scores(scorer, demo):
    """transformers, PEFT and PyTorch switch things of the whole process while they load."""
    questions = read_questions(demo / "test.csv")[:2]
    other = BatchScorer.load(str(demo / "checkpoints" / "fold1"))
    expected = [one.score(questions).logits for one in (scorer, other)]
    wrong, loaded, start = [], threading.Event(), threading.Barrier(5, timeout=60)

    def compare(found: BatchScorer, fold: int) -> None:
        try:
            if not np.array_equal(found.score(questions).logits, expected[fold]):
                wrong.append(f"other numbers of fold{fold}")
        except Exception as error:
            wrong.append(repr(error))

    def load(number: int) -> None:
        start.wait()
        try:
            compare(BatchScorer.load(str(demo / "checkpoints" / f"fold{number % 2}")), number % 2)
        except Exception as error:
            wrong.append(repr(error))

    def score() -> None:
        start.wait()
        while not loaded.is_set():
            compare(scorer, 0)

    loaders = [threading.Thread(target=load, args=[number]) for number in range(4)]
    scores = threading.Thread(target=score)
    for thread in [*loaders, scores]:
        thread.start()
    for thread in loaders:
        thread.join(120)
    loaded.set()
    scores.join(30)
    assert wrong == [] and not any(thread.is_alive() for thread in [*loaders, scores])


def test_mkl_is_told_for_a_moment_to_add_up_in_one_order(monkeypatch):
    """In a process of its own, since MKL decides once: at its first call."""
    code = (
        "import ctypes, os, pathlib, sys, torch\n"
        "from scoring.engine.loading import settle_functions\n"
        "library = ctypes.CDLL(pathlib.Path(torch.__file__).parent / 'lib' / 'libtorch_cpu.so')\n"
        "if not hasattr(library, 'mkl_serv_cbwr_get'): sys.exit(5)\n"
        "settle_functions()\n"
        "assert 'MKL_CBWR' not in os.environ, os.environ['MKL_CBWR']\n"
        "torch.ones(99, 99) @ torch.ones(99, 99)\n"
        "assert library.mkl_serv_cbwr_get(-1) == 2 | 1 << 16, 'AUTO and STRICT, by mkl_types.h'"
    )
    environment = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE, text=True)
    if done.returncode == 5:
        pytest.skip("this PyTorch comes without MKL")
    assert done.returncode == 0, done.stderr
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")  # what the host has chosen
    settle_functions()
    assert os.environ["MKL_CBWR"] == "COMPATIBLE"
