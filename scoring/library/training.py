"""`train` as a function: everything between the rows of a table and a checkpoint.

Nothing here imports torch before the rows, the choices and the base are known to be good.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scoring.checkpoints.checkpoint import find_base
from scoring.errors import CallError
from scoring.files.reading import FileError
from scoring.inputs.families.registry import family_of
from scoring.inputs.prompt import PromptTemplate
from scoring.messages import Say
from scoring.tables.usable import answered, for_bases
from train.config import TrainConfig
from train.folder import check_out
from train.log import check_trackers
from train.lora import check_choices

if TYPE_CHECKING:
    from scoring.inputs.questions import Question
    from scoring.tables.table import Table
    from train.inputs import TrainingInputs


@dataclass(frozen=True)
class TrainRequest:
    """What is to be trained, apart from the rows: see `train`."""

    base: str
    out: Path
    config: TrainConfig
    template: PromptTemplate | Path | None = None
    pixels: int | None = None
    folds: int | None = None
    trackers: tuple[str, ...] = ()
    overwrite: bool = False
    skip_bad_rows: bool = False


@dataclass(frozen=True)
class Prepared:
    """A training whose inputs are good. left_out: how many rows of the table were left out."""

    inputs: "TrainingInputs"
    left_out: int


def prepare(
    request: TrainRequest, read: "Callable[[], Table]", read_valid: "Callable[[], Table] | None", say: Say
) -> Prepared:
    """Check everything that can be checked before the base is loaded; then import what trains.

    read, read_valid: give the training and the validation table, without the rows that may not be used. Raises
    CallError, ConfigError, LogError, FolderError, InputError, SplitError, TemplateError or CheckpointError.
    """
    folds, config = request.folds, request.config
    if folds and read_valid:
        raise CallError("--folds validates on parts of DATA; leave out --valid")
    check_trackers(request.trackers)
    if not request.overwrite:
        check_out(request.out, folds)
    table = read()
    bases = _bases_here(request.base)
    table = for_bases(table, bases, request.skip_bad_rows, say)
    rows, valid_rows = answered(table), []
    if read_valid:
        valid_rows = _validation_rows(rows, for_bases(read_valid(), bases, request.skip_bad_rows, say), say)
    elif not folds:
        rows, valid_rows = _split(rows, config, say)
    template = PromptTemplate.read(request.template) if isinstance(request.template, Path) else request.template
    check_choices(find_base(request.base), config)
    held_out = f"{folds} folds" if folds else f"{len(valid_rows):,} validation rows"
    say(f"{len(rows):,} training rows, {held_out}; loading {request.base} …")
    from scoring.run.ahead import begun

    with begun(bases):
        import train.start  # noqa: F401 - while threads read the base
        from train.inputs import TrainingInputs

    source = table.about() | {"file": table.file.name, "split": "separate table" if read_valid else "by picture"}
    inputs = TrainingInputs(
        request.base, rows, valid_rows, request.out, config, template, request.pixels, source, request.trackers
    )
    return Prepared(inputs, len(table.questions) - len(table.good))


def _bases_here(base: str) -> list[Path]:
    """The folder of a base that is on this machine; none where it is yet to be fetched, or cannot be used."""
    try:
        folder = find_base(base, local_only=True)
        family_of(folder)
    except FileError:  # which is told when the training is planned
        return []
    return [folder]


def _validation_rows(rows: "list[Question]", table: "Table", say: Say) -> "list[Question]":
    """The rows of a validation table. Tells which pictures they share with training; raises where they share rows."""
    from train.split import check_valid

    valid_rows = answered(table)
    for notice in check_valid(rows, valid_rows, table.file):
        say(notice)
    return valid_rows


def _split(rows: "list[Question]", config: TrainConfig, say: Say) -> "tuple[list[Question], list[Question]]":
    """Training and validation rows of one table; notices about them are told."""
    from train.split import split

    train_rows, valid_rows, notices = split(rows, config.valid_share, config.seed)
    for notice in notices:
        say(notice)
    return train_rows, valid_rows
