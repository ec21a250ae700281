"""The documents keep their word: links lead somewhere, files and options exist, commands and examples run.

A command in a `bash` block runs; where it names the real 8B and one's own tables, on the demo's. A `sh` block needs
cards, hosts or hours: its programs and options are looked up. So it is with Python: the `python` blocks of a document
run one after the other in one namespace, and print what the `text` block behind them shows; the calls of a `py` block
are looked up.
"""

import re
import shlex
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

import cli
import scoring
from benchmarks import command_line
from tests.shared.examples import agrees, examples_of, printed_by, refused_calls
from tests.shared.processes import stderr_of_all

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
LINK = re.compile(r"(?<!`)\[[^\]]*\]\(([^)\s]+)\)")
# Those that speak of the product as it is now, in the order in which the README names them: later commands use what
# earlier ones leave.
GUIDES = list(
    dict.fromkeys(
        [README]
        + [ROOT / link for link in LINK.findall(README.read_text("utf-8")) if re.fullmatch(r"(docs/)?[^/#]+\.md", link)]
        + sorted(ROOT.glob("docs/*.md"))
        + [ROOT / "demo" / "README.md"]
    )
)
GUIDES.remove(ROOT / "CHANGELOG.md")
DOCUMENTS = [*GUIDES, ROOT / "CHANGELOG.md", *ROOT.glob("benchmarks/*.md"), *ROOT.glob("tests/**/*.md")]
PROGRAMS = sorted(ROOT.glob("benchmarks/*.py"))
ELSEWHERE = {"--help", "--debug", "--max-restarts"}  # options of click's and torchrun's
QUICK = {  # the same, on fewer rows
    "score": ["--limit", "5"],
    "bench": ["--limit", "1", "--repeats", "1"],
    "train": ["--epochs", "1"],
}


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(path: Path) -> list[tuple[str, str]]:
    """(language, text) of a document's blocks of code."""
    return re.findall(r"^```(\w*)\n(.*?)^```", path.read_text("utf-8"), re.S | re.M)


def prose(path: Path) -> str:
    """A document without its blocks of code."""
    return re.sub(r"^```\w*\n.*?^```", "", path.read_text("utf-8"), flags=re.S | re.M)


def commands(path: Path, language: str) -> list[str]:
    """The lines of a document's blocks in a language; those that go on with a backslash are one."""
    text = "".join(block for kind, block in blocks(path) if kind == language).replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def anchors(path: Path) -> set[str]:
    """What GitHub makes of a document's headings."""
    seen: Counter = Counter()
    found = set()
    for title in re.findall(r"^#{1,6} +(.+?) *$", prose(path), re.M):
        slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


# ------------------------------------------------------------------ form
def test_the_readme_is_read_in_two_minutes():
    assert len(README.read_text("utf-8").splitlines()) <= 130


@pytest.mark.parametrize("path", GUIDES, ids=named)
def test_no_line_of_prose_is_wider_than_140_characters(path):
    wide = [line for line in prose(path).splitlines() if len(line) > 140 and not line.startswith(("|", "<!--"))]
    assert not wide, wide[0]


# ------------------------------------------------------------------ links and names
@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_links_lead_to_files_and_headings_that_exist(path):
    for link in LINK.findall(prose(path)):
        if re.match(r"https?://", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.is_relative_to(ROOT) and target.exists(), f"{link}: no such file"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading in {target.name}"


def test_anchors_are_githubs(tmp_path):
    (tmp_path / "a.md").write_text("# One · `two`, three!\n## A_b\n## A_b\n```\n# no heading\n```\n", "utf-8")
    assert anchors(tmp_path / "a.md") == {"one--two-three", "a_b", "a_b-1"}


def test_the_readme_links_to_every_document():
    linked = {(ROOT / link.split("#")[0]).resolve() for link in LINK.findall(README.read_text("utf-8"))}
    assert {*ROOT.glob("docs/*.md"), ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"} <= linked


@pytest.mark.parametrize("name", ["README.md", "docs/architecture.md"])
def test_the_map_names_every_room(name):
    text = (ROOT / name).read_text("utf-8")
    rooms = {path.parent.name for path in ROOT.glob("scoring/*/__init__.py")}
    assert not [room for room in rooms | {"errors", "train", "cli.py"} if not re.search(rf"\b{room}\b", text)]


@pytest.mark.parametrize("path", GUIDES, ids=named)
def test_files_that_are_named_exist(path):
    places = r"[\w/.-]+/[\w.-]+\.py|(?:scoring|train|tests|benchmarks|docs|demo)/[\w/.-]+\.\w+"
    for name in re.findall(rf"`({places})`", prose(path)):
        assert any((folder / name).exists() for folder in (ROOT, ROOT / "scoring", path.parent)), f"{name} is not there"


def test_the_map_names_modules_that_exist():
    rows = re.findall(
        r"^\| `((?:scoring/)?\w+)` \| (.*) \|$", (ROOT / "docs" / "architecture.md").read_text("utf-8"), re.M
    )
    named = [(room, module) for room, text in rows for module in re.findall(r"`(\w+)`", text)]
    assert len(named) > 40
    assert not [(room, module) for room, module in named if not (ROOT / room / f"{module}.py").exists()]


def test_the_log_has_an_index_of_its_entries():
    log = ROOT / "benchmarks" / "LOG.md"
    index, *entries = re.split(r"^## (?=\d{4}-)", log.read_text("utf-8"), flags=re.M)
    assert len(entries) > 20
    linked = {link.removeprefix("#") for link in LINK.findall(index)}
    assert {anchor for anchor in anchors(log) if re.match(r"\d{4}-", anchor)} == linked


# ------------------------------------------------------------------ commands
def options_of(command: str) -> set[str]:
    return {name for option in cli.main.commands[command].params for name in (*option.opts, *option.secondary_opts)}


def options_in(program: Path) -> set[str]:
    """Options that a program of ours declares, and its modules beside it that declare some for several."""
    texts = [path.read_text("utf-8") for path in (program, ROOT / "benchmarks" / "workload.py")]
    return set(re.findall(r"--[a-z][\w-]*", "".join(texts)))


def calls() -> Iterator[tuple[str, str]]:
    """(document, line): everything that documents call, in blocks and in the text."""
    for path in GUIDES:
        lines = commands(path, "bash") + commands(path, "sh")
        for line in lines + re.findall(r"`(python (?:cli\.py|-m) [^`]+)`", prose(path)):
            for call in re.findall(r"(?:python )?(cli\.py \w.*|-m (?:benchmarks|demo)\.\w.*)", line.split("  #")[0]):
                yield named(path), call


@pytest.mark.parametrize("document, call", sorted(set(calls())))
def test_what_is_called_exists_with_its_options(document, call):
    words = call.split()
    known = {"--help"}
    if words[0] == "cli.py":
        known |= options_of(words[1])
    else:
        program = ROOT / f"{words[1].replace('.', '/')}.py"
        assert program.exists(), call
        known |= options_in(program)
    assert {word.split("=")[0] for word in words if word.startswith("--")} <= known, call


@pytest.mark.parametrize("path", GUIDES, ids=named)
def test_options_that_are_named_exist(path):
    known = ELSEWHERE.union(*map(options_of, cli.main.commands), *map(options_in, PROGRAMS))
    for code in re.findall(r"`([^`\n]+)`", prose(path)):
        for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", code):
            assert option in known, code


COMMANDS = [(path, line) for path in GUIDES for line in commands(path, "bash")]
WITH_PYTHON = [path for path in GUIDES if any(kind == "python" for kind, _ in blocks(path))]
NOT_RUN = [(path, block) for path in GUIDES for kind, block in blocks(path) if kind == "py"]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder as a user's: the repository's files, and tables of one's own."""
    folder = tmp_path_factory.mktemp("user")
    for name in ("cli.py", "demo", "Makefile", "setup.cfg", "constraints.txt"):
        (folder / name).symlink_to(ROOT / name)
    for name, table, first in (("train", "train", 1), ("test", "test", 1), ("valid", "test", 41)):
        lines = (ROOT / "demo" / f"{table}.csv").read_text("utf-8").splitlines()
        (folder / f"{name}.csv").write_text("\n".join([lines[0], *lines[first : first + 8]]) + "\n", "utf-8")
    shutil.copytree(ROOT / "demo" / "images", folder / "images")
    return folder


def test_the_documents_have_commands_and_examples():
    assert len(COMMANDS) > 30 and {README, ROOT / "docs" / "library.md"} == {*WITH_PYTHON} and NOT_RUN
    assert len({line for _, line in COMMANDS}) == len(COMMANDS), "a command stands in two places"


@pytest.mark.parametrize("command", [pytest.param(line, id=f"{named(path)}: {line}") for path, line in COMMANDS])
def test_command(command, workplace, quick_cli, monkeypatch):
    words = shlex.split(command.split("  #")[0].replace("Qwen/Qwen3-VL-8B-Instruct", "demo/base"))
    if words[0] == "make":
        subprocess.run(["make", "-n", *words[1:]], cwd=workplace, check=True, capture_output=True)
        return
    if words[0] in ("git", "cd", "pip"):
        return  # how one gets here
    if words[0] == "torchrun":
        start_as_torchrun_does(words[1:], workplace)
        return
    assert words[:2] == ["python", "cli.py"], command
    further = QUICK.get(words[2], [])
    if words[2] == "bench" and "--ways" not in words:
        further = [*further, "--ways", "engine"]
    if words[2] not in ("train", "bench"):  # which set up a process for themselves
        monkeypatch.chdir(workplace)
        quick_cli(*words[2:], *further)
        return
    done = command_line.run(*words[2:], *further, cwd=workplace)
    assert done.returncode == 0, done.stderr


def start_as_torchrun_does(words: list[str], folder: Path) -> None:
    """torchrun's own parser reads the line; the processes are forked from one that has imported the libraries.

    A torchrun that starts them is in tests/run/test_killed_processes.py.
    """
    line = get_args_parser().parse_args(words)
    program, command, *options = [line.training_script, *line.training_script_args]
    assert program == "cli.py"
    further = QUICK[command] + ["--batch", "8"] * (command == "train")
    err = folder / "stderr"
    processes = command_line.start_several(int(line.nproc_per_node), command, *options, *further, err=err, cwd=folder)
    messages = stderr_of_all(processes, err)
    assert [process.exitcode for process in processes] == [0] * len(processes), messages


# ------------------------------------------------------------------ Python
@pytest.mark.parametrize("path", WITH_PYTHON, ids=named)
def test_the_python_of_a_document_prints_what_is_shown(path, tmp_path):
    (tmp_path / "demo").symlink_to(ROOT / "demo")
    examples = examples_of(path)
    for example, printed in zip(examples, printed_by(path, examples, tmp_path), strict=True):
        assert agrees(example.shown, printed), f"line {example.line}: shown\n{example.shown}printed\n{printed}"


@pytest.mark.parametrize("block", [block for _, block in NOT_RUN])
def test_calls_that_take_long_fit_what_they_call(block):
    assert refused_calls(block) == []


def test_what_does_not_fit_is_found():
    imported = "from scoring import Scorer, score\n"
    assert refused_calls("from scoring import Nothing") == ["from scoring import Nothing"]
    for code in ("score('t', 'c')", "score('t', 'c', 'o', pixel=1)", "Scorer.lod('c')"):
        assert refused_calls(imported + code), code
    for use in ("s.closed()", "s.ask(1)", "s.score([], order=1)"):
        assert refused_calls(f"{imported}s = Scorer.load('c')\n{use}"), use
    assert refused_calls(f"{imported}answers = score('t', 'c', 'o')\nanswers.saved") == ["answers.saved"]
    assert refused_calls(f"{imported}with Scorer.load('c', orders='1') as s:\n    s.ask('p', 'q', ['x', 'y'])") == []


def test_numbers_may_differ_in_the_last_digit_shown_and_nothing_else():
    assert agrees("p 0.85 of 40\n", "p 0.86 of 40\n") and agrees("-0.0", "0.0")
    for printed in ("p 0.87 of 40\n", "p 0.85 of 41\n", "p 0.85 of 40", "q 0.85 of 40\n"):
        assert not agrees("p 0.85 of 40\n", printed)


def test_every_error_that_a_program_can_meet_is_in_the_table_of_errors():
    table = (ROOT / "docs" / "library.md").read_text("utf-8").partition("## Errors")[2]
    errors = {name for name in scoring.__all__ if name.endswith("Error")}
    assert {*re.findall(r"^\|.*", table, re.M)} and errors <= {*re.findall(r"\w+Error", table)}
