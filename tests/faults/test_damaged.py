"""Small files of checkpoints, bases and results with a value that cannot be: named, never a trace, never a guess."""

import copy
import json
import random
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

import cli
from scoring.checkpoints.checkpoint import read_checkpoint
from scoring.files.reading import FileError
from tests.shared.tables import copy_rows

FOLD0, FOLD1 = (f"demo/checkpoints/{name}" for name in ("fold0", "fold1"))
ROOT = Path(__file__).resolve().parents[2]
GONE = object()
VALUES = (None, 7, "x", [], {}, [1], -1.5, GONE)


def invoke(*words, among=(0, 2, 3)):
    """The command in this process: exit code 1 would be a fault of ours."""
    done = CliRunner().invoke(cli.main, [str(word) for word in words])
    assert done.exit_code in among, f"{words}: {done.exit_code}\n{done.stderr}"
    return done


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    return Path(shutil.copytree(FOLD0, tmp_path / "damaged"))


@pytest.mark.parametrize(
    "name, text, told",
    [
        ("scoring.json", '{"base": "../../base", "pixels": 5}', "pixels is 5; expected an object"),
        ("scoring.json", '{"letters": ["a"], "template": "x"}', "template is 'x'; expected an object"),
        ("scoring.json", '{"base": 7}', "base is 7; expected a valid string"),
        ("scoring.json", '{"pixels": {"max_pixels": -1}}', "expected max_pixels"),
        ("scoring.json", '{"template": {"colour": "x"}}', "template has colour; expected system, user, option"),
        ("scoring.json", '{"template": {"letters": "Upper"}}', "letters are 'Upper'; expected lower or upper"),
        ("scoring.json", '{"letters": "abd"}', "letters is 'abd'; expected the first 2 to 26"),
        ("scoring.json", '{"quantization": "int8"}', "quantization is 'int8'; expected 'nf4', 'fp4' or 'none'"),
        ("scoring.json", "[]", "found a list; expected a JSON object"),
        ("scoring.json", "{", "the file is damaged"),
        ("calibration.json", '{"temperature": "hot"}', "found no calibration"),
        ("calibration.json", '{"temperature": "hot", "fingerprint": {"orders": "1"}}', "temperature is 'hot'"),
        ("calibration.json", '{"temperature": 0, "fingerprint": {"orders": "1"}}', "expected a temperature above 0"),
        ("adapter_config.json", '{"peft_type": "LORA", "r": "many", "lora_alpha": 1}', "r is 'many'; expected"),
        ("adapter_config.json", '{"peft_type": "LORA"}', "found no r; expected one; found no lora_alpha"),
        ("adapter_config.json", '{"peft_type": "IA3", "r": 1, "lora_alpha": 1}', "an adapter of type IA3"),
        ("adapter_config.json", "null", "found a NoneType; expected a JSON object"),
    ],
)
def test_a_damaged_file_of_a_checkpoint_is_named(checkpoint, name, text, told):
    (checkpoint / name).write_text(text)
    with pytest.raises(FileError) as caught:
        read_checkpoint(str(checkpoint))
    assert str(caught.value).startswith(str(checkpoint / name)) and told in str(caught.value)
    done = invoke("show", checkpoint, "--base", "demo/base", among=(2,))
    assert str(caught.value) in done.stderr.replace("\n", "") or told in done.stderr


def places(value, place=()):
    """Every place of a JSON value; of long lists the first two."""
    yield place
    parts = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, part in parts:
        yield from places(part, (*place, key))


def changed(value, place, new):
    """A copy with another value there, or without it."""
    if not place:
        return new
    value = copy.deepcopy(value)
    holder = value
    for key in place[:-1]:
        holder = holder[key]
    if new is GONE:
        del holder[place[-1]]
    else:
        holder[place[-1]] = new
    return value


def attack(path: Path, cases: int, *calls) -> None:
    """Each call after each of so many changes to the file."""
    text = path.read_text("utf-8")
    whole = json.loads(text)
    every = [(place, new) for place in places(whole) for new in VALUES if place or new is not GONE]
    for place, new in random.Random(0).sample(every, min(cases, len(every))):
        path.write_text(json.dumps(changed(whole, place, new)))
        for call in calls:
            invoke(*call)
    path.write_text(text)


@pytest.mark.parametrize("name", ["scoring.json", "calibration.json", "adapter_config.json"])
def test_any_value_of_a_checkpoint_may_be_wrong(checkpoint, name):
    attack(checkpoint / name, 80, ["show", checkpoint, "--base", "demo/base"])


@pytest.fixture(scope="module")
def table(demo, tmp_path_factory) -> Path:
    return copy_rows(demo, tmp_path_factory.mktemp("table"), 8)


@pytest.fixture(scope="module")
def score(table) -> list:
    """The call, up to its folder."""
    return ["score", table, "--ckpt", FOLD0, "--ckpt", FOLD1, "--out"]


@pytest.fixture(scope="module")
def scored(score, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scored") / "s"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        invoke(*score, folder)
    return folder


@pytest.fixture
def scores(scored, tmp_path) -> Path:
    return Path(shutil.copytree(scored, tmp_path / "s"))


def test_any_value_of_a_run_may_be_wrong(scores, tmp_path):
    pooled = ["ensemble", scores, "--out", tmp_path / "pool", "--overwrite"]
    calibrated = ["calibrate", scores, "--ckpt", FOLD0, "--out", tmp_path / "calibration.json"]
    attack(scores / "run.json", 16, ["evaluate", scores, "--no-plot"], calibrated)
    attack(scores / "run.json", 3, pooled, ["report", scores])
    (scores / "run.json").write_text('{"checkpoints": [], "identity": {"letters": 4}}')
    told = invoke("evaluate", scores, among=(2,)).stderr
    assert "run.json: identity.letters is 4; expected a valid string" in told


@pytest.mark.usefixtures("known_models")
@pytest.mark.parametrize("name", ["questions.parquet", "logits/part-000000.parquet"])
@pytest.mark.parametrize("cut", [0, 100, -10])
def test_a_cut_off_part_is_named(score, scores, name, cut):
    path = scores / name
    path.write_bytes(path.read_bytes()[:cut])
    told = invoke("evaluate", scores, among=(2,)).stderr
    assert path.name in told
    if name.startswith("logits"):
        assert "delete it" in told
        assert "delete it" in invoke(*score, scores, among=(2,)).stderr
        path.unlink()
        assert "8 of 8 rows scored" in invoke(*score, scores, among=(0,)).stdout


def test_any_value_of_a_plan_may_be_wrong(score, scores):
    attack(scores / "plan.json", 12, [*score, scores])


@pytest.mark.parametrize("name", ["preprocessor_config.json", "tokenizer_config.json"])
def test_any_value_of_a_bases_small_files_may_be_wrong(base, table, tmp_path, name):
    copied = shutil.copytree(base, tmp_path / "base")
    out = ["--allow-mismatch", "--overwrite", "--out", tmp_path / "s"]
    attack(copied / name, 5, ["score", table, "--limit", 2, "--ckpt", FOLD0, "--base", copied, *out])


@pytest.mark.parametrize(
    "name, data, told",
    [
        ("chat_template.jinja", b"", "leaves texts or a picture out"),
        ("chat_template.jinja", b"{{ bad", "chat template cannot be used"),
        ("chat_template.jinja", b"\xff\xfe", "chat template cannot be used"),
        ("tokenizer.json", b"{", "needs the fast tokenizer"),
        ("config.json", b'{"model_type": "qwen3_vl", "text_config": 7}', "config.json: text_config is 7"),
    ],
)
def test_a_damaged_base_is_named(base, table, tmp_path, name, data, told):
    _score_on(base, table, tmp_path, name, data, told)


@pytest.mark.parametrize("part, field", [("vision_config", "depth"), ("text_config", "hidden_size")])
def test_a_configuration_that_does_not_fit_the_weights_is_named(base, table, tmp_path, part, field):
    whole = json.loads((base / "config.json").read_text("utf-8"))
    whole[part][field] = "x"
    told = "config.json: no Qwen3-VL can be built"
    _score_on(base, table, tmp_path, "config.json", json.dumps(whole).encode(), told)


def _score_on(base, table, tmp_path, name: str, data: bytes, told: str) -> None:
    copied = shutil.copytree(base, tmp_path / "base")
    (copied / name).write_bytes(data)
    out = ["--allow-mismatch", "--out", tmp_path / "s"]
    done = invoke("score", table, "--limit", 2, "--ckpt", FOLD0, "--base", copied, *out, among=(2,))
    assert told in done.stderr
