"""Messages name what a program can give, not what the command line offers."""

import ast
import inspect
import re
import traceback
from pathlib import Path

import pytest

import scoring
from scoring.errors import InputError, Problem, ScoringError
from scoring.inputs.pictures import PictureError
from scoring.library.wording import COMMANDS, WORDS, copy_of, for_callers, for_programs

ROOT = Path(__file__).resolve().parents[2]
FAULT = Problem("t.csv", 0, 0, "", "path", "no file 'a.jpg'", "a picture", "give its folder with --images")


def test_an_option_becomes_the_argument_of_that_name_with_its_value():
    assert for_programs("add --allow-mismatch") == "add allow_mismatch=True"
    assert for_programs("--no-verify scores without this check") == "verify=False scores without this check"
    assert for_programs("with --orders pride: use --orders cyclic or pride") == (
        'with orders="pride": use orders="cyclic" or pride'
    )
    assert (
        for_programs("name it with --base, or `--quantization nf4`.") == 'name it with base=, or `quantization="nf4"`.'
    )
    assert for_programs("--sets: none; --sets 0.9: one") == "sets: none; sets=0.9: one"
    assert for_programs("lower --max-picture-bytes; --device-map auto spreads") == (
        'lower limits=PictureLimits(file_bytes=…); device="auto" spreads'
    )
    assert for_programs("such as --ways engine. Add --overwrite.") == 'such as ways=["engine"]. Add overwrite=True.'


def test_names_of_columns_become_one_dict():
    assert for_programs("give --column path=Image") == 'give columns={"path": "Image"}'
    assert for_programs("--column a=X --column b=Y and so on") == 'columns={"a": "X", "b": "Y"} and so on'
    assert for_programs("add --column 'path=Image File'") == 'add columns={"path": "Image File"}'


def test_a_whole_command_stays_one_and_is_named_as_it_is_installed():
    told = "`logit-scoring score TRAIN.csv --out-of-fold`, then `calibrate`"
    assert for_programs("`score TRAIN.csv --out-of-fold`, then `calibrate`") == told
    assert for_programs(told) == told  # also where public calls call each other


def test_text_that_only_looks_like_an_option_stays():
    for text in ("found '--bases'; a -- b", "--imagesx", "no option"):
        assert for_programs(text) == text


@for_callers
def refuse(error: Exception) -> None:
    """Raises it."""
    raise error


def test_an_error_keeps_its_type_its_traceback_and_its_attributes_in_other_words():
    with pytest.raises(InputError) as raised:
        refuse(InputError([FAULT]))
    assert str(raised.value) == (
        "t.csv: column path: found no file 'a.jpg'; expected a picture; give its folder with images="
    )
    assert raised.value.problems[0].fix == "give its folder with images=" and FAULT.fix.endswith("--images")
    assert traceback.extract_tb(raised.tb)[-1].name == "refuse"
    picture = PictureError("a.jpg is outside", "a picture inside", "add --allow-outside")
    with pytest.raises(PictureError, match="add allow_outside=True"):
        refuse(picture)
    assert picture.fix == "add allow_outside=True"
    with pytest.raises(TypeError, match="--images"):  # whatever is no message of ours
        refuse(TypeError("--images"))


class Caller:
    """Public calls of all kinds."""

    @for_callers
    def method(self) -> None:
        raise ScoringError("--base")

    @classmethod
    @for_callers
    def make(cls) -> None:
        raise ScoringError("--base")

    @for_callers
    def each(self):
        got = yield 1
        assert got == 2
        raise ScoringError("--base")


def test_methods_and_generators_are_translated_too():
    caller = Caller()
    for call in (caller.method, Caller.make):
        with pytest.raises(ScoringError, match="^base=$"):
            call()
    generator = caller.each()
    assert next(generator) == 1
    with pytest.raises(ScoringError, match="^base=$"):
        generator.send(2)
    assert Caller.each.__name__ == "each" and refuse.__doc__ == "Raises it."


def test_a_copy_for_another_thread_has_message_attributes_and_cause_and_a_traceback_of_its_own():
    with pytest.raises(InputError) as original:
        try:
            raise KeyError("deep")
        except KeyError as deep:
            raise InputError([FAULT]) from deep
    error, before = original.value, len(traceback.extract_tb(original.tb))
    twin = copy_of(error)
    with pytest.raises(InputError) as raised:
        refuse(twin)
    assert raised.value is twin is not error and twin.__cause__ is error.__cause__ is not None
    assert twin.problems[0].fix == "give its folder with images=" and error.problems == [FAULT]
    assert len(traceback.extract_tb(error.__traceback__)) == before < len(traceback.extract_tb(twin.__traceback__))


def messages(path: Path) -> list[str]:
    """Every text in a file that is no docstring; … stands for what is filled in."""
    tree = ast.parse(path.read_text())
    skipped = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(value) for value in node.values}
        elif isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            first = node.body[0] if node.body else None
            skipped |= {id(first.value)} if isinstance(first, ast.Expr) else set()
    texts = []
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts.append(node.value)
        elif isinstance(node, ast.JoinedStr):
            texts.append("".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values))
    return texts


def own_messages() -> list[str]:
    """The texts of all that programs call: not those of the command line itself."""
    command_line = {
        ROOT / "train" / "options.py",
        *ROOT.glob("scoring/terminal/*.py"),
        *ROOT.glob("scoring/library/*.py"),
        *ROOT.glob("scoring/endpoint/*.py"),  # which commands alone have
        *ROOT.glob("scoring/serving/*.py"),
        *ROOT.glob("scoring/cluster/*.py"),
    }
    paths = {*ROOT.glob("scoring/**/*.py"), *ROOT.glob("train/*.py")} - command_line
    return [text for path in sorted(paths) for text in messages(path)]


def test_every_option_that_a_message_names_has_a_programs_words():
    named = [text for text in own_messages() if re.search(r"--[a-z]", text)]
    assert len(named) > 80
    left = [text for text in named if "--" in re.sub(r"`logit-scoring [^`]*`", "", for_programs(text))]
    assert left == ["scale it down, or raise --max-picture-{}"]  # completed with one of two names:
    assert {"--max-picture-pixels", "--max-picture-bytes"} < WORDS.keys()


def parameters_of(value: object) -> set[str]:
    """The names that a public call, or a class with its public methods, can be given."""
    if not callable(value) or (inspect.isclass(value) and issubclass(value, Exception)):
        return set()
    methods = [each for name, each in vars(value).items() if name[0] != "_"] if inspect.isclass(value) else []
    calls = [value, *(getattr(each, "__func__", each) for each in methods)]
    return {name for call in calls if callable(call) for name in inspect.signature(call).parameters}


def test_what_they_name_is_a_parameter_of_a_public_call():
    known = {name for public in scoring.__all__ for name in parameters_of(getattr(scoring, public))}
    named = {name for words in WORDS.values() for name in re.findall(r"(\w+)=", words)} | {"columns"}
    assert named - known == set()
    classes = {name for words in WORDS.values() for name in re.findall(r"(\w+)\(", words)}
    assert classes == {"PictureLimits", "SetRequest"} < {*scoring.__all__}


def test_no_option_has_words_that_no_message_needs():
    texts = " ".join(own_messages()) + " --max-picture-pixels --max-picture-bytes"
    assert [option for option in WORDS if not re.search(rf"{option}(?![\w-])", texts)] == []


def test_commands_are_those_of_the_command_line():
    import cli

    assert set(COMMANDS) == set(cli.main.commands)
