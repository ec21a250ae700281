"""What a person sees in the terminal: progress bars, errors, and what is said about a table that is read."""

import errno
import json
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

BUG, BAD_INPUT, SOME_UNSCORED, STOPPED = 1, 2, 3, 130  # exit codes; 0 is done
DEMO_ROWS = 80  # of a benchmark without arguments


_here = None  # this process among those of its call, once they have come together


def _come_together():
    """The processes of this call, where several were started, or None; all but the first say nothing from then on."""
    global _here
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        from scoring.run.processes import join

        _here = join()
        if not _here.first:
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 for as long as the process lives
    return _here


def say(text: str, everyone: bool = False) -> None:
    """A line on stderr, above a progress bar where there is one. everyone: by all processes, not the first alone."""
    if _here and not _here.first and not everyone:
        return
    if "tqdm" in sys.modules:
        sys.modules["tqdm"].tqdm.write(text, file=sys.stderr)
    else:
        print(text, file=sys.stderr)


class Bar:
    """A progress bar on stderr with rows/s and the time left; a line every half minute where stderr is no terminal."""

    def __init__(self, total: int, done: int = 0, unit: str = "row", scale: bool = False):
        from tqdm import tqdm

        terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=total,
            initial=done,
            unit=unit,
            unit_scale=scale,
            dynamic_ncols=terminal,
            smoothing=0.1,
            mininterval=0.2 if terminal else 30,
            delay=0 if terminal else 30,
            disable=bool(_here and not _here.first),
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
def told(together: bool = False):
    """Errors that a user can cause as messages with exit code 2; others as one line with 1, or a trace with --debug.

    together: inside, this process is one of those that torchrun or accelerate started, if they did; they are yielded.
    """
    if not together and int(os.environ.get("WORLD_SIZE") or 1) > 1 and int(os.environ.get("RANK") or 0):
        sys.exit(0)  # of several processes one is enough
    try:
        yield _come_together() if together else None
    except click.ClickException:
        raise
    except KeyboardInterrupt as stopped:
        told_more = f": {stopped}" if str(stopped) else ""
        say(f"\nstopped{told_more}{_resuming()}")
        if _here and _here.first:
            _here.fail("stopped", STOPPED)
        elif _here:  # it only leaves
            _here.part()
        sys.exit(STOPPED)
    except Exception as error:
        text, code = _meaning(error)
        if _here:
            text, code = _among_others(error, text, code)
        if click.get_current_context().obj:
            raise
        if text:
            click.echo(f"error: {text}", err=True)
        sys.exit(code)


def _meaning(error: Exception) -> tuple[str, int]:
    """An error in a person's words, and the exit code."""
    if found := _of_the_machine(error):
        return f"{found[0]}{_resuming()}", found[1]
    if type(error).__name__ in ("OutOfMemoryError", "MemoryError", "ArrowMemoryError"):
        return f"out of memory; lower --batch-tokens, or close other programs{_resuming()}", BUG
    if isinstance(error, ValueError) and type(error).__module__.split(".")[0] in ("scoring", "train"):
        return str(error), BAD_INPUT
    return (
        f"{type(error).__name__}: {error}\nThis is a fault of the program or the machine; "
        "--debug (before the command) shows the trace."
    ), BUG


def _among_others(error: Exception, text: str, code: int) -> tuple[str, int]:
    """Let the other processes end too; what this one has to say then ("" where one of its host has said that), and its
    exit code."""
    original = getattr(error, "original", None)  # of an error that another process told
    speaks = _here.first_to_say(original or text)
    if original is None:
        _here.fail(text, code)
        text = text if _here.first else f"{_here.name}: {text}"
    else:
        _here.part()
        code = error.code
    return text if speaks else "", code


def _resuming() -> str:
    """The command that goes on, where there is one: the same, but that it starts nothing anew."""
    if click.get_current_context().info_name not in ("score", "train"):
        return ""
    if _here:
        return f"\nthe same command{', without --overwrite,' * ('--overwrite' in sys.argv)} goes on"
    words = [word for word in sys.argv if word != "--overwrite"]
    return f"\ngo on with: {shlex.join(['python', *words] if words[0].endswith('.py') else words)}"


def _of_the_machine(error: Exception) -> tuple[str, int] | None:
    """What a disk, a drive or a right that is missing means, and the exit code."""
    number = getattr(error, "errno", None) if isinstance(error, OSError) else None
    if "No space left on device" in str(error):  # as libraries in other languages tell it
        number = errno.ENOSPC
    if number is None:
        return None
    where = f"{error.filename}: " if getattr(error, "filename", None) else ""
    if number in (errno.ENOSPC, errno.EDQUOT):
        return f"{where}no space left on the disk; free some. Rows and steps that were saved are kept", BUG
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{where}{os.strerror(number)}; expected a file or folder of yours", BAD_INPUT
    return f"{where}{os.strerror(number)}; is the file or the drive still there?", BUG


@contextmanager
def stoppable():
    """An event that the first Ctrl-C (or SIGTERM) sets, for a run to stop at the next good place; another stops now."""
    asked = threading.Event()

    def ask(number, frame) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        if not _here or _here.first:
            os.write(2, b"\nstopping after what is at hand is saved; once more: at once\n")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    if _here:
        _here.stop = asked
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def look(data: Path, reading: dict, deep: bool = False):
    """The table as it is, faulty rows and all. reading: what `data_options` ask for."""
    from scoring.inputs.pictures import limit_pictures
    from scoring.inputs.questions import read_table

    limit_pictures(reading["picture_pixels"], reading["picture_bytes"])
    asked = {name: reading[name] for name in ("images", "allow_outside", "columns")}
    return read_table(data, **asked, deep=deep, progress=lambda found, total: Bar.over(found, total, "picture"))


def read(data: Path, reading: dict, deep: bool = False):
    """The table, its notices said; its problems raised, or with --skip-bad-rows said, if a good row is left."""
    from scoring.errors import InputError, describe

    table = look(data, reading, deep)
    for notice in table.notices:
        say(notice)
    if table.problems and not (reading["skip_bad_rows"] and table.good):
        raise InputError(table.problems)
    if table.problems:
        say(describe(table.problems))
        say(f"going on without {len(table.questions) - len(table.good):,} of {len(table.questions):,} rows")
    return table


def check_as_json(data: Path, reading: dict, deep: bool) -> int:
    """What `check` finds, on stdout for programs; the exit code."""
    from dataclasses import asdict

    from scoring.errors import InputError

    report = {"file": str(data), "readable": True, "rows": 0, "good": 0, "options": 0, "pictures": 0, "answers": 0}
    try:
        table = look(data, reading, deep)
        report |= {
            "rows": len(table.questions),
            "good": len(table.good),
            "options": len(table.letters),
            "pictures": len({question.picture for question in table.good}),
            "answers": sum(bool(question.answer) for question in table.good),
            "notices": table.notices,
        }
        problems = table.problems
    except InputError as error:
        report |= {"readable": False, "notices": []}
        problems = error.problems
    code = 0 if not problems else SOME_UNSCORED if reading["skip_bad_rows"] and report["good"] else BAD_INPUT
    report |= {"problems": [asdict(problem) for problem in problems], "exit": code}
    click.echo(json.dumps(report, ensure_ascii=False, indent=1))
    return code


def tell_results(
    out: Path, logits, metrics: dict | None, warnings: Iterable[str] = (), tables: str = "", lines: Iterable[str] = ()
) -> None:
    """What a run or a pool left, and where; exit code 3 where a row has no score.

    tables: after the metrics'. lines: after the warnings.
    """
    from scoring.report.tables import metrics_table, to_text

    if metrics:
        click.echo(to_text(metrics_table(metrics)) + tables)
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    for line in lines:
        click.echo(line)
    click.echo(f"submission:    {out / 'submission.csv'}\nprobabilities: {out / 'probabilities.csv'}")
    if not logits.scored.all():
        sys.exit(SOME_UNSCORED)


def answered(table):
    """The good rows of a table, every one with its answer."""
    from scoring.errors import InputError, Problem

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
    demo = Path(__file__).resolve().parents[2] / "demo"
    if data is None and not (demo / "test.csv").exists():
        raise click.UsageError(
            "the demo is not installed with the package; run bench from a clone, or give DATA and --ckpt"
        )
    if data is None:
        return demo / "test.csv", ckpt or str(demo / "checkpoints" / "fold0"), limit or DEMO_ROWS
    return data, ckpt, limit
