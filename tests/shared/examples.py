"""The Python in documents: blocks that run, with what they print, and blocks whose calls are looked up."""

import ast
import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import scoring
from benchmarks import command_line

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```\n", re.S | re.M)
NUMBER = re.compile(r"-?\d+(?:\.(\d+))?")
END = "--- the end of a block ---"


@dataclass(frozen=True)
class Example:
    """A `python` block, the number of the line above it, and what it prints: the `text` block behind it, or nothing."""

    code: str
    line: int
    shown: str


def examples_of(path: Path) -> list[Example]:
    text = path.read_text("utf-8")
    found = list(BLOCK.finditer(text))
    return [
        Example(block[2], text.count("\n", 0, block.start(2)), after[2] if after[1] == "text" else "")
        for block, after in zip(found, [*found[1:], re.match("()()", "")])
        if block[1] == "python" and after is not None
    ]


def printed_by(path: Path, examples: list[Example], folder: Path) -> list[str]:
    """What each block prints, run in a process of their own one after the other, in one namespace, in this folder."""
    codes = [(example.code, example.line) for example in examples]
    program = (
        f"import ast\nnames = {{'__name__': '__main__'}}\nfor code, line in {codes!r}:\n"
        f"    tree = ast.increment_lineno(ast.parse(code), line)  # so that tracebacks name the document's line\n"
        f"    exec(compile(tree, {str(path)!r}, 'exec'), names)\n    print({END!r})"
    )
    done = command_line.run(program, program="benchmarks.command_line", cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.split(f"{END}\n")[:-1]


def agrees(shown: str, printed: str) -> bool:
    """Whether both are the same text; numbers with decimals may differ by one in the last digit that is shown."""
    if NUMBER.sub("#", shown) != NUMBER.sub("#", printed):
        return False
    pairs = zip(NUMBER.finditer(shown), NUMBER.finditer(printed))
    return all(
        abs(float(one[0]) - float(two[0])) <= 1.001 * 10 ** -len(one[1]) if one[1] else one[0] == two[0]
        for one, two in pairs
    )


# ------------------------------------------------------------------ what is looked up
class Calls(ast.NodeVisitor):
    """Goes through a block and refuses what is not there: a public name, a parameter, an attribute of a result.

    `refused` holds the lines that do not fit.
    """

    def __init__(self) -> None:
        self.known: dict[str, Any] = {}  # names that were imported
        self.types: dict[str, Any] = {}  # class of a variable, where a call of ours gives it
        self.refused: list[str] = []

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.module == "scoring":
            for alias in node.names:
                if alias.name in scoring.__all__:
                    self.known[alias.name] = getattr(scoring, alias.name)
                else:
                    self.refused.append(ast.unparse(node))

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        called = self._called(node.value.func) if isinstance(node.value, ast.Call) else None
        if called is not None and isinstance(node.targets[0], ast.Name):
            given = called if inspect.isclass(called) else inspect.signature(called).return_annotation
            name = given.strip('"') if isinstance(given, str) else given
            self.types[node.targets[0].id] = getattr(scoring, name, None) if isinstance(name, str) else name

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.generic_visit(node)
        kind = self._owner(node)
        if inspect.isclass(kind) and node.attr not in {*dir(kind), *inspect.get_annotations(kind)}:
            self.refused.append(ast.unparse(node))

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        called = self._called(node.func)
        if called is None or any(isinstance(value, ast.Starred) for value in node.args):
            return
        of_object = isinstance(node.func, ast.Attribute) and self._owner(node.func) in self.types.values()
        try:
            inspect.signature(called).bind(
                *[None] * (len(node.args) + of_object), **{word.arg: None for word in node.keywords}
            )
        except TypeError as error:
            self.refused.append(f"{ast.unparse(node)}: {error}")

    def _called(self, node: ast.expr) -> Any:
        """What a call calls, where that is ours."""
        if isinstance(node, ast.Name):
            return self.known.get(node.id)
        return getattr(self._owner(node), node.attr, None) if isinstance(node, ast.Attribute) else None

    def _owner(self, node: ast.Attribute) -> Any:
        """The class, or a variable's class, that an attribute is of; None where it is not known."""
        name = node.value.id if isinstance(node.value, ast.Name) else ""
        return self.known.get(name, self.types.get(name))


def refused_calls(code: str) -> list[str]:
    """What a block calls that is not there, or with arguments that it does not take. Raises SyntaxError."""
    calls = Calls()
    calls.visit(ast.parse(code))
    return calls.refused
