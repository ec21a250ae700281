"""The house stays as drawn: who may import whom, no room too large, nothing of this machine in the files."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WINGS = ["scoring/inputs", "scoring/engine", "scoring/results", "train"]
# A wing never imports from one to its right, except that the engine fills and files the results.
ALLOWED = {
    "scoring/inputs": {"scoring.inputs"},
    "scoring/engine": {"scoring.inputs", "scoring.engine", "scoring.results"},
    "scoring/results": {"scoring.inputs", "scoring.results"},
    "train": {"scoring.inputs", "scoring.engine", "scoring.results", "train"},
}
HEAVY = {"torch", "transformers", "peft", "bitsandbytes", "accelerate"}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("wing", WINGS)
def test_the_order_of_imports(wing):
    for path in (ROOT / wing).glob("*.py"):
        for name in imports(path):
            top = name.split(".")[0]
            if top in ("scoring", "train", "demo", "benchmarks", "tests", "cli"):
                room = ".".join(name.split(".")[:2]) if top == "scoring" else top
                assert room in ALLOWED[wing] or name == "scoring", f"{path} imports {name}"
            if wing in ("scoring/inputs", "scoring/results"):
                assert top not in HEAVY, f"{path} imports {name}"


def test_no_room_over_600_lines():
    for path in [
        *ROOT.glob("scoring/**/*.py"),
        *ROOT.glob("train/*.py"),
        ROOT / "cli.py",
        *ROOT.glob("demo/making/*.py"),
    ]:
        assert len(path.read_text().splitlines()) <= 600, path


@pytest.mark.parametrize(
    "module",
    [
        "cli",
        "scoring",
        "scoring.inputs.questions",
        "scoring.results.folder",
        "scoring.engine.checkpoint",
        "scoring.engine.describe",
        "scoring.engine.plan",
        "scoring.engine.tree",
    ],
)
def test_what_loads_no_torch(module):
    code = f"import sys, {module}; assert not {HEAVY} & set(sys.modules), {HEAVY} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_command_line_imports_click_alone_at_first():
    code = "import sys, cli; assert not {'numpy', 'pandas', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.splitlines() if not name.endswith((".jpg", ".safetensors", ".png"))]


def test_texts_name_no_path_of_a_machine():
    own = re.escape(str(ROOT))
    for path in tracked():
        if path.exists() and path.name != "test_house.py":
            found = re.search(rf"{own}|/home/\w+|/root/|\bfile:///", path.read_text("utf-8", errors="ignore"))
            assert not found, f"{path}: {found[0]}"


def test_the_demo_keeps_its_size():
    demo = ROOT / "demo"
    assert sum(path.stat().st_size for path in (demo / "images").iterdir()) <= 12e6
    assert (demo / "base" / "model.safetensors").stat().st_size <= 16e6
    for fold in ("fold0", "fold1"):
        assert 1.0e6 < (demo / "checkpoints" / fold / "adapter_model.safetensors").stat().st_size < 1.6e6
