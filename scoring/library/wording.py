"""Messages in a program's words: `--allow-mismatch` of the command line is `allow_mismatch=True` of a call.

The other rooms name what the command line offers. Where their errors pass through a public call, `for_callers` puts
them into the words of whoever called.
"""

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from scoring.errors import Problem, ScoringError

P = ParamSpec("P")
R = TypeVar("R")
E = TypeVar("E", bound=BaseException)

COMMANDS = "check train score merge bench evaluate calibrate report show ensemble soup export serve".split()
# Options of the command line -> the words of a program. Flags, and what has another name there:
WORDS = {
    "--no-verify": "verify=False",
    "--ckpt": "ckpt=",
    "--format": "form=",
    "--pool": "kind=",
    "--log": "trackers=",
    "--device-map": "device=",
    "--max-picture-pixels": "limits=PictureLimits(pixels=…)",
    "--max-picture-bytes": "limits=PictureLimits(file_bytes=…)",
    "--sets-method": "SetRequest(method=…)",
    "--sets-seed": "SetRequest(seed=…)",
    **{
        f"--{name}": f"{name.replace('-', '_')}=True"
        for name in "allow-mismatch allow-outside deep out-of-fold overwrite shuffle-options skip-bad-rows "
        "text-only-rows".split()
    },
    # Those with the same name:
    **{
        f"--{name}": f"{name.replace('-', '_')}="
        for name in "answers base base-name batch-tokens by calibration compile encoding fit folds images layout "
        "learning-rate margin orders out pixels quantization sample sets shard split valid valid-share ways weights "
        "write".split()
    },
}
NUMBERS = ("--batch-tokens", "--folds", "--learning-rate", "--margin", "--pixels", "--sets", "--shard", "--valid-share")
LISTS = ("--log", "--ways")  # whose value is a list in a program
FREE = ("--encoding", "--images", "--log", "--split", "--ways")  # whose value may be any word
NO_VALUES = "or and if to of out with that is"  # words that follow an option in a sentence
VALUES = (  # words that are an option's value wherever they follow one
    "none nf4 fp4 auto cyclic all adaptive pride log linear vote equal nll fit greedy letters choices inline chat text "
    "from-0 from-1 lac aps on off"
)
COLUMN = r"""--column (?:'[^'=]+=[^']*'|[^\s='`]+=[^\s,;)`]*)"""
OPTION = re.compile(
    rf"(?P<command>`(?:{'|'.join(COMMANDS)})\b[^`]*--[^`]*`)|(?P<told>`logit-scoring [^`]*`)"
    rf"|(?P<columns>{COLUMN}(?: {COLUMN})*)|(?P<column>--column\b)"
    rf"|(?P<option>{'|'.join(sorted(WORDS, key=len, reverse=True))})(?![\w-])"
    r"(?: (?P<value>…|(?!--)[^\s;:,)('`]+(?:,\d[^\s;:,)('`]*)*)|(?P<colon>:))?"
)


def for_programs(text: str) -> str:
    """A message with the options that it names as a program gives them; the whole commands in it can be run as told.

    >>> for_programs("give the folder with --images, or add --allow-outside")
    'give the folder with images=, or add allow_outside=True'
    >>> for_programs("it is refused with --quantization nf4; name it with --column path=NAME")
    'it is refused with quantization="nf4"; name it with columns={"path": "NAME"}'
    >>> for_programs("make one with `calibrate SCORES --ckpt CKPT`")
    'make one with `logit-scoring calibrate SCORES --ckpt CKPT`'
    """
    return OPTION.sub(_in_words, text) if "--" in text else text


def _in_words(found: re.Match[str]) -> str:
    if found["command"]:
        return f"`logit-scoring {found['command'][1:]}"
    if found["told"]:
        return found[0]
    if found["columns"]:
        pairs = (column.split(" ", 1)[1].strip("'").split("=", 1) for column in re.findall(COLUMN, found[0]))
        return f"columns={{{', '.join(f'{_quoted(name)}: {_quoted(value)}' for name, value in pairs)}}}"
    if found["column"]:
        return "columns="
    option, rest = found["option"], found["value"] or ""
    words, value = WORDS[option], rest.removesuffix(".")
    if found["colon"]:
        return f"{words.removesuffix('=')}:"
    if words.endswith(("True", "False")) or not _is_value(option, value):
        return f"{words} {rest}" if rest else words
    shown = value if option in NUMBERS or value == "…" else _quoted(value)
    shown = f"[{shown}]" if option in LISTS else shown
    end = rest[len(value) :]
    return (words.replace("…", shown) if "…" in words else words + shown) + end


def _is_value(option: str, word: str) -> bool:
    """Whether the word behind an option is its value, and not the next one of a sentence."""
    if not word or word in NO_VALUES.split():
        return False
    return option in FREE or word in VALUES.split() or bool(re.search(r"[\d/\\…]|[A-Z]", word))


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _translated(value: Any) -> Any:
    """An attribute of an error in a program's words: a text, a problem, or a list of them."""
    if isinstance(value, str):
        return for_programs(value)
    if isinstance(value, Problem):
        found, expected, fix = map(for_programs, (value.found, value.expected, value.fix))
        return replace(value, found=found, expected=expected, fix=fix)
    if type(value) in (list, tuple):
        return type(value)(map(_translated, value))
    return value


@contextmanager
def programs_words() -> Iterator[None]:
    """Inside, an error that can be corrected has its message and attributes put into a program's words.

    It stays the same object, of the same type, with its traceback.
    """
    try:
        yield
    except ScoringError as error:
        error.args = _translated(error.args)
        for name, value in vars(error).items():
            setattr(error, name, _translated(value))
        raise


def for_callers(function: Callable[P, R]) -> Callable[P, R]:
    """A public call: the errors that pass through it name what a program can give it, see `programs_words`.

    Functions, methods and generators; of a class method it is the inner decorator.
    """
    if inspect.isgeneratorfunction(function):

        @wraps(function)
        def generate(*args: P.args, **kwargs: P.kwargs) -> Any:
            with programs_words():
                return (yield from function(*args, **kwargs))

        return generate

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with programs_words():
            return function(*args, **kwargs)

    return call


def copy_of(error: E) -> E:
    """An error to raise in another thread: each thread that it is raised in adds to a traceback of its own."""
    twin = copy(error)
    twin.__cause__, twin.__suppress_context__ = error.__cause__, error.__suppress_context__
    return twin.with_traceback(error.__traceback__)
