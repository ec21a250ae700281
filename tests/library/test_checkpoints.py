"""`soup`, `export` and `describe` as functions: what the commands write and print."""

import subprocess
import sys

import pytest

from scoring.checkpoints.weights import CheckpointError
from scoring.errors import CallError
from scoring.library.checkpoints import describe, export, soup
from tests.shared.demo import BOTH, FOLD0
from tests.shared.trainings import contents


@pytest.fixture(autouse=True)
def beside_the_demo(monkeypatch, demo):
    monkeypatch.chdir(demo.parent)


def test_a_soup_is_that_of_the_command(quick_cli, tmp_path):
    quick_cli("soup", *BOTH, "--out", tmp_path / "command", "--weights", "0.7,0.3")
    assert soup(BOTH, tmp_path / "function", weights=[0.7, 0.3]) == tmp_path / "function"
    assert contents(tmp_path / "function") == contents(tmp_path / "command")
    with pytest.raises(CheckpointError, match="holds files already; choose another out="):
        soup(BOTH, tmp_path / "function")
    with pytest.raises(CheckpointError, match="2 checkpoints, 3 weights; expected two or more"):
        soup(BOTH, tmp_path / "other", weights=[1, 1, 1])


@pytest.mark.parametrize("weights", [[0.5, float("nan")], [float("inf"), 1]])
def test_weights_are_finite(tmp_path, weights):
    with pytest.raises(CallError, match="expected finite numbers"):
        soup(BOTH, tmp_path / "soup", weights=weights)


def test_a_model_is_exported_as_by_the_command(quick_cli, tmp_path):
    steps, call = [], {"dtype": "fp16", "quantization": "none"}
    words = [word for name, value in call.items() for word in (f"--{name}", value)]
    quick_cli("export", FOLD0, "--out", tmp_path / "command", *words)
    exported = export(FOLD0, str(tmp_path / "function"), **call, progress=lambda *step: steps.append(step))
    assert contents(tmp_path / "function") == contents(tmp_path / "command")
    assert steps[0] == (0, exported.size) and steps[-1] == (exported.size, exported.size)
    assert exported.folder == tmp_path / "function" and "model.safetensors" in exported.files


def test_an_adapter_is_exported_as_by_the_command(quick_cli, tmp_path):
    name = "Qwen/Qwen3-VL-8B-Instruct"
    quick_cli("export", FOLD0, "--out", tmp_path / "command", "--adapter-only", "--base-name", name)
    exported = export(FOLD0, tmp_path / "function", adapter_only=True, base_name=name)
    assert contents(tmp_path / "function") == contents(tmp_path / "command") and exported.notes[0] == f"base: {name}"


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"base_name": "a/b"}, "base_name is for adapter_only=True"),
        ({"dtype": "int8"}, "dtype='int8': expected 'bf16' or 'fp16' or 'fp32'"),
        ({"quantization": "int8"}, "quantization='int8': expected None or 'nf4' or 'none'"),
    ],
)
def test_what_cannot_be_exported_is_refused(tmp_path, arguments, message):
    with pytest.raises(CallError, match=message):
        export(FOLD0, tmp_path / "out", **arguments)


def test_a_description_is_that_of_the_command(quick_cli, base):
    assert quick_cli("show", FOLD0, "--base", base).stdout == describe(FOLD0, base).text + "\n"
    assert describe(FOLD0).faults == [] and dict(describe(FOLD0).rows)["letters"] == "abcd"


def test_a_description_needs_no_torch():
    code = (
        "import sys\nfrom scoring.library.checkpoints import describe\nfrom scoring.library.checking import check\n"
        "assert describe('demo/checkpoints/fold0').rows and not check('demo/test.csv').problems\n"
        "assert 'torch' not in sys.modules and 'click' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
