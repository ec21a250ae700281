"""What comes from strangers: code in checkpoints and templates, ways out of folders, HTML in cells. Each is tried."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

FOLD0 = "demo/checkpoints/fold0"


class Evil:
    """Unpickled, it leaves a file."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture
def mark(tmp_path) -> Path:
    return tmp_path / "code-ran"


@pytest.fixture
def stolen(demo, tmp_path) -> Path:
    """A copy of a checkpoint, to be made evil."""
    return Path(shutil.copytree(demo / "checkpoints" / "fold0", tmp_path / "stolen"))


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt", "adapter_model.safetensors"])
def test_a_pickle_in_an_adapter_does_not_run(cli, stolen, mark, small_table, tmp_path, name):
    for known in ("adapter_model.safetensors", "calibration.json"):  # a calibration tells another adapter before
        (stolen / known).unlink()
    (stolen / name).write_bytes(pickle.dumps(Evil(mark)))
    arguments = ["--ckpt", stolen, "--base", "demo/base", "--out", tmp_path / "scores"]
    done = cli("score", small_table(3), *arguments, check=2)
    told = "not a safetensors file" if name.endswith("safetensors") else "pickles can run code"
    assert told in done.stderr
    assert "Traceback" not in done.stderr and not mark.exists()
    assert not cli("show", stolen, "--base", "demo/base", check=2).stdout.count("Traceback") and not mark.exists()
    pickle.loads(pickle.dumps(Evil(mark)))  # the trap itself works
    assert mark.exists()


def test_code_beside_a_base_does_not_run(cli, base, mark, small_table, tmp_path):
    """`auto_map` names a class of a file beside the weights, as remote code does."""
    evil = Path(shutil.copytree(base, tmp_path / "evil"))
    (evil / "modeling_evil.py").write_text(f"open({str(mark)!r}, 'w')\n")
    for name in ("config.json", "preprocessor_config.json", "tokenizer_config.json"):
        told = json.loads((evil / name).read_text("utf-8"))
        classes = ("AutoConfig", "AutoModel", "AutoModelForImageTextToText", "AutoProcessor", "AutoImageProcessor")
        told["auto_map"] = dict.fromkeys(classes, "modeling_evil.Evil")
        told["auto_map"]["AutoTokenizer"] = ["modeling_evil.Evil", "modeling_evil.Evil"]
        (evil / name).write_text(json.dumps(told))
    command = ["--ckpt", FOLD0, "--base", evil, "--allow-mismatch", "--out", tmp_path / "scores"]
    cli("score", small_table(3), *command)
    assert not mark.exists()


def test_bitsandbytes_fetches_no_code(mark, small_table, tmp_path):
    """With the package `kernels` it would, on a CPU with AVX512-BF16, and run it."""
    fake = tmp_path / "packages" / "kernels"
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text(f"def get_kernel(*given, **more):\n    open({str(mark)!r}, 'w')\n")
    environment = os.environ | {"PYTHONPATH": str(fake.parent)}
    table = str(small_table(3))
    score = ["score", table, "--ckpt", FOLD0, "--out", str(tmp_path / "scores")]
    train = ["train", table, "--base", "demo/base", "--epochs", "1", "--out", str(tmp_path / "ckpt")]
    compiler = "torch._inductor.compile_fx"  # which bitsandbytes would import: two seconds
    code = (
        f"import sys, cli\nfor words in {[score, train]!r}: cli.main(words, standalone_mode=False)\n"
        f"assert 'bitsandbytes' in sys.modules and {compiler!r} not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and (tmp_path / "ckpt" / "adapter_model.safetensors").exists(), done.stderr
    assert not mark.exists() and "kernels" not in done.stderr


def test_a_chat_template_reaches_nothing(cli, base, mark, small_table, tmp_path):
    evil = Path(shutil.copytree(base, tmp_path / "evil"))
    way_out = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    (evil / "chat_template.jinja").write_text(way_out)
    command = ["--ckpt", FOLD0, "--base", evil, "--allow-mismatch", "--out", tmp_path / "scores"]
    done = cli("score", small_table(3), *command, check=2)
    assert "chat template" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("place", ["../stolen.safetensors", "{absolute}", "sub/x.safetensors", "weights.bin"])
def test_an_index_of_shards_names_no_other_place(cli, base, small_table, tmp_path, place):
    """transformers would open whatever file the index of a local folder names."""
    evil = Path(shutil.copytree(base, tmp_path / "evil"))
    place = place.format(absolute=tmp_path / "stolen.safetensors")
    (evil / "model.safetensors").rename(tmp_path / "stolen.safetensors")
    (evil / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": {"x": place}}))
    command = ["--ckpt", FOLD0, "--base", evil, "--allow-mismatch", "--out", tmp_path / "scores"]
    done = cli("score", small_table(3), *command, check=2)
    assert "expected safetensors files beside it only" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("cell", ["../secret.png", "link.png", "sub/../../secret.png", "{absolute}"])
def test_paths_stay_inside(cli, tmp_path, cell):
    inside = tmp_path / "inside"
    (inside / "sub").mkdir(parents=True)
    Image.new("RGB", (40, 30), "red").save(tmp_path / "secret.png")
    (inside / "link.png").symlink_to(tmp_path / "secret.png")
    cell = cell.format(absolute=tmp_path / "secret.png")
    (inside / "t.csv").write_text(f"id,path,question,a,b\n1,{cell},q,x,y\n", "utf-8")
    done = cli("check", inside / "t.csv", check=2)
    assert "leads outside" in done.stderr and "--allow-outside" in done.stderr
    assert "1 good rows" in cli("check", inside / "t.csv", "--allow-outside").stdout


def test_html_in_cells_is_text_in_the_page(cli, tmp_path, small_table):
    table, attack = small_table(3), "<img src=x onerror=alert(1)></script><script>alert(2)</script>"
    lines = table.read_text("utf-8").splitlines()
    cells = lines[1].split(",")
    cells[0], cells[2], cells[3] = attack, attack, attack
    table.write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]) + "\n", "utf-8")
    cli("score", table, "--ckpt", FOLD0, "--out", tmp_path / "scores")
    cli("report", tmp_path / "scores")
    page = (tmp_path / "scores" / "report.html").read_text("utf-8")
    assert "<img src=x" not in page and "<script>alert" not in page and "</script><script>" not in page


def test_formulas_in_cells_stay_text(cli, tmp_path, small_table):
    """A spreadsheet would run them: ids are copied as they are, which the security note tells."""
    table = small_table(3)
    table.write_text(table.read_text("utf-8").replace("test_0000", "=1+1", 1), "utf-8")
    cli("score", table, "--ckpt", FOLD0, "--out", tmp_path / "scores")
    assert (tmp_path / "scores" / "submission.csv").read_text("utf-8").splitlines()[1].startswith("=1+1,")
