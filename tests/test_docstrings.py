"""Examples in docstrings: whatever is public has one, and they run."""

import doctest
import inspect
from importlib import import_module
from pathlib import Path

import pytest

import scoring

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for folder in ("scoring", "train")
    for path in (ROOT / folder).rglob("*.py")
    if ">>> " in path.read_text("utf-8") and "library" not in path.parts and path.parent != ROOT / "scoring"
)  # those of the library itself: tests/test_public_names.py
WITHOUT = {"Problem", "ScoringWarning", "Table", "versions"}  # made by the library, or nothing to show


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    failed, attempted = doctest.testmod(import_module(name))
    assert attempted and not failed


def test_whatever_is_public_has_an_example():
    public = {name for name in scoring.__all__ if not name.endswith(("Error", "__"))} - WITHOUT
    assert not [name for name in public if ">>> " not in (inspect.getdoc(getattr(scoring, name)) or "")]
