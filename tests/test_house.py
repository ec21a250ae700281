"""The house stays as drawn: who may import whom, what loads no torch, nothing of this machine in the files."""

import ast
import re
import subprocess
import sys
from configparser import ConfigParser
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# From the ground up: a room imports from the rooms before it, and from itself.
ROOMS = [
    "errors",
    "messages",
    "files",
    "readers",
    "inputs",
    "tables",
    "stats",
    "scores",
    "checkpoints",
    "engine",
    "run",
    "cluster",
    "endpoint",
    "benchmark",
    "report",
    "terminal",
]
FLOORS = [*(f"scoring.{room}" for room in ROOMS), "train", "scoring.library", "scoring.serving", "cli"]
WITHOUT_TORCH = FLOORS[: FLOORS.index("scoring.checkpoints")]
# Modules whose logic other tests cover; those of every other module are in tests/<room>/test_<module>.py.
COVERED_BY = {
    "scoring.messages": "faults/test_runs.py",
    "scoring.inputs.questions": "inputs/test_prepare.py",
    "scoring.tables.open_table": "tables/test_large.py",
    "scoring.tables.rows": "tables/test_reading.py",
    "scoring.tables.survey": "tables/test_reading.py",
    "scoring.tables.table": "tables/test_reading.py",
    "scoring.scores.finalize": "run/test_run.py",
    "scoring.checkpoints.merge": "checkpoints/test_export.py",
    "scoring.inputs.families.family": "inputs/test_families.py",
    "scoring.inputs.families.registry": "inputs/test_families.py",
    "scoring.inputs.families.glm4v": "engine/test_families.py",
    "scoring.inputs.families.internvl": "inputs/test_tiles.py",
    "scoring.inputs.families.tiles": "inputs/test_tiles.py",
    "scoring.inputs.families.llava_onevision": "inputs/test_anyres.py",
    "scoring.inputs.families.qwen2_vl": "engine/test_families.py",
    "scoring.inputs.families.qwen3_vl": "engine/test_families.py",
    "scoring.inputs.families.text": "engine/test_families.py",
    "scoring.inputs.families.qwen3_5": "engine/test_linear_attention.py",
    "scoring.engine.families.parts": "engine/test_families.py",
    "scoring.engine.families.registry": "engine/test_families.py",
    "scoring.engine.families.glm4v": "engine/test_families.py",
    "scoring.engine.families.internvl": "engine/test_tiles.py",
    "scoring.engine.families.llava_onevision": "engine/test_anyres.py",
    "scoring.engine.families.qwen2_vl": "engine/test_families.py",
    "scoring.engine.families.qwen3_vl": "engine/test_families.py",
    "scoring.engine.families.text": "engine/test_families.py",
    "scoring.engine.families.qwen3_5": "engine/test_linear_attention.py",
    "scoring.engine.reference": "engine/test_forward.py",
    "scoring.scores.result_writer": "run/test_ranges.py",
    "scoring.run.coordinator": "run/test_processes.py",
    "scoring.run.joining": "run/test_ranges.py",
    "scoring.run.loader": "run/test_run.py",
    "scoring.run.options": "run/test_groups.py",
    "scoring.endpoint.errors": "endpoint/test_client.py",
    "scoring.library.member_run": "library/test_equal.py",
    "scoring.report.figures": "report/test_page.py",
    "scoring.report.plots": "scores/test_evaluation.py",
    "scoring.terminal.errors": "test_exit_codes.py",
    "scoring.terminal.reading": "faults/test_inputs.py",
    "scoring.terminal.session": "run/test_processes.py",
    "train.inputs": "train/test_trainer.py",
    "train.lora": "checkpoints/test_weights.py",
    "train.training": "train/test_state.py",
}
HEAVY = {"torch", "transformers", "peft", "bitsandbytes", "accelerate"}


@cache
def modules() -> dict[str, Path]:
    """The product's modules by their names."""
    paths = [*ROOT.glob("scoring/**/*.py"), *ROOT.glob("train/*.py"), ROOT / "cli.py"]
    names = (".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths)
    return dict(zip(names, paths))


@cache
def imports(path: Path) -> frozenset[str]:
    """Every module that a file imports, at its top or inside functions; of a package, the modules taken from it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inside = {f"{node.module}.{alias.name}" for alias in node.names} & modules().keys()
            names |= inside or {node.module or ""}
    return frozenset(names)


def floor_of(module: str) -> int:
    """The number of the room that a module is in; -1 for the package itself."""
    return next((number for number, room in enumerate(FLOORS) if f"{module}.".startswith(f"{room}.")), -1)


@pytest.mark.parametrize("room", FLOORS)
def test_no_room_imports_from_one_above_it(room):
    for module, path in modules().items():
        if floor_of(module) == FLOORS.index(room):
            for name in imports(path):
                top = name.split(".")[0]
                assert top not in ("demo", "benchmarks", "tests"), f"{path} imports {name}"
                assert floor_of(name) <= floor_of(module), f"{path} imports {name}"
                assert room not in WITHOUT_TORCH or top not in HEAVY, f"{path} imports {name}"


def test_every_module_is_in_a_room():
    assert [name for name in modules() if floor_of(name) < 0] == ["scoring"]


def test_no_modules_import_each_other_in_a_circle():
    known = {name: path for name, path in modules().items() if name != "scoring"}  # its names are imported late
    graph = {name: imports(path) & known.keys() - {name} for name, path in known.items()}
    TopologicalSorter(graph).prepare()  # CycleError names the circle


WITHOUT_TORCH = [
    "cli",
    "scoring",
    "scoring.tables.reading",
    "scoring.scores.folder",
    "scoring.checkpoints.checkpoint",
    "scoring.checkpoints.description",
    "scoring.checkpoints.plan",
    "scoring.engine.tree",
    "scoring.engine.costs",
    "scoring.cluster.costs",
]


def test_what_loads_no_torch():
    code = (
        f"import importlib, sys\nfor module in {WITHOUT_TORCH}:\n    importlib.import_module(module)\n"
        f"    assert not {HEAVY} & set(sys.modules), (module, {HEAVY} & set(sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_command_line_imports_click_alone_at_first():
    code = "import sys, cli; assert not {'numpy', 'pandas', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_check_imports_no_more_than_it_needs():
    """Each of these takes from .2 to 2 s, the whole check of a small table less than one.

    Nor does it look for garbage among what it imports, also not when it ends.
    """
    unneeded = {*HEAVY, "pandas", "pyarrow.dataset", "scipy", "sklearn", "matplotlib"}
    code = (
        "import atexit, gc, sys\natexit.register(lambda: print(gc.get_freeze_count() > 10_000))\nimport cli\n"
        "sys.argv, before = ['cli.py', 'check', 'demo/test.csv'], gc.get_stats()\n"
        "try:\n    cli.main()\nfinally:\n    assert gc.get_stats() == before\n"
        f"    assert not {unneeded} & set(sys.modules), {unneeded} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    assert done.stdout.endswith("True\n")


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.splitlines() if not name.endswith((".jpg", ".safetensors", ".png"))]


def mirror(module: str) -> Path:
    """The test file of a module: tests/stats/test_pools.py of scoring.stats.pools."""
    *rooms, name = module.removeprefix("scoring.").split(".")
    return ROOT.joinpath("tests", *rooms, f"test_{name}.py")


def test_every_module_has_a_test_file_of_its_name():
    tested = {name for name, path in modules().items() if path.name != "__init__.py" and name != "cli"}
    missing = sorted(name for name in tested - COVERED_BY.keys() if not mirror(name).exists())
    assert not missing, f"no test file of the name of {missing}"
    needless = sorted(name for name in COVERED_BY if name not in tested or mirror(name).exists())
    assert not needless, f"no exception is needed for {needless}"
    assert not [name for name in COVERED_BY.values() if not (ROOT / "tests" / name).exists()]


def test_what_tests_share_has_its_own_room():
    """No test file imports from another: what several need is in tests/shared."""
    for path in ROOT.glob("tests/**/*.py"):
        shared = {
            name for name in imports(path) if name.split(".")[0] == "tests" and not name.startswith("tests.shared.")
        }
        assert not shared, f"{path} imports {shared}"


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


def test_pytest_runs_the_tests_of_every_folder():
    settings = ConfigParser()
    settings.read(ROOT / "setup.cfg")
    folders = {path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("tests/*/test_*.py")}
    assert folders <= set(settings["tool:pytest"]["testpaths"].split())
