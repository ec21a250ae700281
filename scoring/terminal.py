"""What a person sees in the terminal: progress bars, errors, and what is said about a table that is read."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

BUG, BAD_INPUT, SOME_UNSCORED = 1, 2, 3  # exit codes; 0 is done
DEMO_ROWS = 80  # of a benchmark without arguments


def say(text: str) -> None:
    """A line on stderr, above a progress bar where there is one."""
    if "tqdm" in sys.modules:
        sys.modules["tqdm"].tqdm.write(text, file=sys.stderr)
    else:
        print(text, file=sys.stderr)


class Bar:
    """A progress bar on stderr with rows/s and the time left; a line every half minute where stderr is no terminal."""

    def __init__(self, total: int, done: int = 0, unit: str = "row"):
        from tqdm import tqdm

        terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=total,
            initial=done,
            unit=unit,
            dynamic_ncols=terminal,
            smoothing=0.1,
            mininterval=0.2 if terminal else 30,
            delay=0 if terminal else 30,
        )

    def update(self, count: int) -> None:
        self._bar.update(count)

    def show(self, **values) -> None:
        self._bar.set_postfix(values, refresh=False)

    def close(self) -> None:
        self._bar.close()

    @classmethod
    def over(cls, items: Iterable, total: int, unit: str) -> Iterator:
        """The items, counted, where there are many."""
        if total < 1_000:
            yield from items
            return
        bar = cls(total, unit=unit)
        for item in items:
            bar.update(1)
            yield item
        bar.close()


@contextmanager
def told():
    """Errors that a user can cause as messages with exit code 2; others as one line with 1, or a trace with --debug."""
    try:
        yield
    except click.ClickException:
        raise
    except KeyboardInterrupt:
        resumes = click.get_current_context().info_name in ("score", "train")
        click.echo(f"\nstopped{'; the same command goes on from here' if resumes else ''}", err=True)
        sys.exit(130)
    except Exception as error:
        if click.get_current_context().obj:
            raise
        expected = isinstance(error, ValueError) and type(error).__module__.split(".")[0] in ("scoring", "train")
        if not expected and type(error).__name__ == "OutOfMemoryError":
            click.echo("error: out of memory; lower --batch-tokens", err=True)
        else:
            click.echo(
                f"error: {error}"
                if expected
                else f"error: {type(error).__name__}: {error}\nThis is a fault of the program or the machine; "
                "--debug (before the command) shows the trace.",
                err=True,
            )
        sys.exit(BAD_INPUT if expected else BUG)


def read(data: Path, images, allow_outside: bool, skip_bad_rows: bool, deep: bool = False):
    """The table, its notices said; its problems raised, or with --skip-bad-rows said, if a good row is left."""
    from scoring.inputs.problems import InputError, describe
    from scoring.inputs.questions import read_table

    table = read_table(
        data, images, allow_outside, deep, progress=lambda found, total: Bar.over(found, total, "picture")
    )
    for notice in table.notices:
        say(notice)
    if table.problems and not (skip_bad_rows and table.good):
        raise InputError(table.problems)
    if table.problems:
        click.echo(describe(table.problems), err=True)
        click.echo(
            f"going on without {len(table.questions) - len(table.good):,} of {len(table.questions):,} rows", err=True
        )
    return table


def answered(table):
    """The good rows of a table, every one with its answer."""
    from scoring.inputs.problems import InputError, Problem

    missing = [
        Problem(
            str(table.file),
            question.row,
            0,
            question.id,
            "answer",
            "no answer",
            "the right option's letter",
            "fill it in, or drop the row",
        )
        for question in table.good
        if not question.answer
    ]
    if missing:
        raise InputError(missing)
    return table.good


def or_demo(data: Path | None, ckpt: str | None, limit: int | None) -> tuple[Path, str, int | None]:
    """What is to be benchmarked: the embedded demo where nothing is named."""
    if data is not None and ckpt is None:
        raise click.UsageError("name the checkpoint with --ckpt")
    demo = Path(__file__).resolve().parent.parent / "demo"
    if data is None and not (demo / "test.csv").exists():
        raise click.UsageError(
            "the demo is not installed with the package; run bench from a clone, or give DATA and --ckpt"
        )
    if data is None:
        return demo / "test.csv", ckpt or str(demo / "checkpoints" / "fold0"), limit or DEMO_ROWS
    return data, ckpt, limit
