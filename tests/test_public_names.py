"""What `from scoring import …` gives: names that are imported late, known to editors, and not in each other's way."""

import ast
import doctest
import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import scoring

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = sorted(path.stem for path in (ROOT / "scoring" / "library").glob("[a-z]*.py"))


def test_every_name_is_there_and_completed_and_documented():
    assert dir(scoring) == sorted(scoring.__all__) and len(set(scoring.__all__)) == len(scoring.__all__)
    for name in scoring.__all__:
        value = getattr(scoring, name)
        assert name == "__version__" or inspect.getdoc(value), name
    assert scoring.Template is scoring.PromptTemplate
    with pytest.raises(AttributeError, match="no attribute 'Scores'"):
        scoring.Scores  # noqa: B018


def test_type_checkers_are_told_the_same_names_from_the_same_modules():
    tree = ast.parse((ROOT / "scoring" / "__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    told = {
        alias.asname: (node.module, alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert told | {"Template": told["PromptTemplate"]} == scoring._MODULE_OF
    assert ast.unparse(block.body[-1]) == "Template = PromptTemplate"
    for package in ("scoring", "train"):
        assert (ROOT / package / "py.typed").exists()


def test_no_name_is_that_of_a_package_or_module_in_scoring():
    """Importing `scoring.stats.metrics` sets `stats` on the package: a public `stats` would be gone."""
    inside = {path.stem for path in (ROOT / "scoring").iterdir()}
    assert not inside & {*scoring.__all__}
    code = (
        "import scoring.stats.metrics, scoring.library.training, train.config, scoring.checkpoints.soup\n"
        "import scoring\nassert callable(scoring.train) and callable(scoring.soup) and callable(scoring.metrics)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_import_loads_nothing_heavy_and_neither_does_completion():
    code = (
        "import sys; before = set(sys.modules)\n"
        "import scoring; dir(scoring), scoring.InputError, scoring.ScoringWarning\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)\n"
        "assert new == {'scoring'}, new"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_every_error_that_a_caller_can_meet_is_public():
    """What is raised inside a call and caught there again has no name outside."""
    inside = {*"AnswerError InlineError ConversationError StoppedError TooManyPixelsError".split()}
    inside |= {"_LongCellError", "_TwiceError", "RequestError", "DecisionFileError", "PipelineUnavailableError"}
    inside |= {"EndpointError", "NoAnswerError", "ClusterError", "LostError"}  # of commands that are no calls
    inside |= {"TooLongError"}  # a PictureError
    defined = {
        node.name
        for path in [*ROOT.glob("scoring/**/*.py"), *ROOT.glob("train/*.py")]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith("Error") for base in node.bases)
    }
    assert inside < defined | {"ScoringError"} and defined - inside - {*scoring.__all__} == set()


@pytest.mark.parametrize("name", ["scoring", *(f"scoring.library.{name}" for name in LIBRARY)])
def test_the_examples_of_the_docstrings_run(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    result = doctest.testmod(import_module(name))
    assert result.failed == 0 and (result.attempted or name != "scoring")
