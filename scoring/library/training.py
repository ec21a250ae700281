"""`train` as a function: everything between the rows of a table and a checkpoint.

Nothing here imports torch before the rows, the choices and the base are known to be good.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from scoring.checkpoints.checkpoint import find_base, folds_of, read_checkpoint
from scoring.errors import CallError
from scoring.files.reading import FileError
from scoring.inputs.families.registry import family_of
from scoring.inputs.prompt import PromptTemplate
from scoring.library.arguments import (
    Progressed,
    Rows,
    budget_of,
    context_of,
    refuse_several_processes,
    template_of,
    usable_rows,
)
from scoring.library.messages import say_to_log
from scoring.library.wording import for_callers
from scoring.messages import Say
from scoring.tables.column_names import read_column_names
from scoring.tables.reading import TableOptions
from scoring.tables.usable import answered, for_bases
from train.config import ConfigError, TrainConfig
from train.folder import check_out
from train.log import check_trackers
from train.lora import check_choices

if TYPE_CHECKING:
    from scoring.inputs.questions import Question
    from scoring.tables.table import Table
    from train.inputs import TrainingInputs


@dataclass(frozen=True)
class TrainedCheckpoint:
    """A checkpoint's folder, and how good its best epoch is on the rows that were held out.

    epoch: the best one, counted from 1. loss: mean cross-entropy over the vocabulary. accuracy: from 0 to 1. nll,
    nll_calibrated: over the letters, before and after the `temperature`.
    """

    folder: Path
    epoch: int
    loss: float
    accuracy: float
    nll: float
    nll_calibrated: float
    temperature: float


@dataclass(frozen=True)
class Trained:
    """A training that is finished.

    folder: the checkpoint, or the folder of folds; what takes a checkpoint takes it. checkpoints: the one in it, or
    each fold. left_out: how many rows of the table could not be used.
    """

    folder: Path
    checkpoints: list[TrainedCheckpoint]
    left_out: int = 0


@for_callers
def train(  # noqa: PLR0913 - each by its name, as the command's options
    data: Rows,
    base: str | Path,
    out: str | Path,
    *,
    valid: Rows | None = None,
    images: str | Path | None = None,
    template: PromptTemplate | str | Path | None = None,
    pixels: int | str | None = None,
    config: TrainConfig | Mapping[str, Any] | str | Path | None = None,
    folds: int | None = None,
    trackers: Sequence[str] = (),
    overwrite: bool = False,
    skip_bad_rows: bool = False,
    options: TableOptions | None = None,
    progress: Progressed | None = None,
    stop: Event | None = None,
) -> Trained:
    """Train a LoRA adapter on a 4-bit base, as `train` of the command line does: the same checkpoint, to the bit.

    data: rows with answers: a table's path, a `Table`, a DataFrame, dicts or `Question`s.
    base: folder or hub id. out: the checkpoint folder to write.
    valid: rows to validate on; by default a share of the pictures of `data` is held out (`TrainConfig.valid_share`).
    images: the folder that paths of pictures are relative to.
    template: the prompt, a `Template` or its TOML file. pixels: the budget of a picture; below 10,000 it is the side of
    a square.
    config: a `TrainConfig`, a mapping of some of its fields, or a TOML file of them.
    folds: train so many adapters, OUT/fold0, OUT/fold1 …, each validated on a part of the rows.
    trackers: some of `tensorboard`, `wandb` and `trackio`.
    overwrite: start anew, replacing a checkpoint or an unfinished training in `out`.
    skip_bad_rows: leave faulty rows out. options: how tables are read.
    progress: called with (rows done, rows of all epochs) after each step; each fold has its own.
    stop: once it is set, the training saves its step and raises KeyboardInterrupt.

    The same call, without `overwrite`, continues a training that was stopped, interrupted or killed: from the step at
    which it was stopped, or from the last one that was saved (`TrainConfig.save_every`).

    Raises a `ScoringError` before the base is loaded where something is wrong: InputError with all faults of the rows,
    ConfigError, SplitError, FolderError where `out` holds something else, CheckpointError for the base, and others.

    >>> trained = train("train.csv", "Qwen/Qwen3-VL-8B-Instruct", "ckpt", config={"epochs": 1})  # doctest: +SKIP
    >>> trained.checkpoints[0].accuracy  # doctest: +SKIP
    """
    refuse_several_processes("train")
    if folds is not None and folds < 2:
        raise CallError(f"folds={folds!r}: expected 2 or more, or None for a single adapter")
    request = TrainRequest(
        base=str(base),
        out=Path(out),
        config=_config(config),
        template=template_of(template),
        pixels=None if pixels is None else budget_of(pixels),
        folds=folds,
        trackers=(trackers,) if isinstance(trackers, str) else tuple(trackers),
        overwrite=overwrite,
        skip_bad_rows=skip_bad_rows,
    )
    options = _table_options(options or TableOptions(), config)

    def read() -> "Table":
        return usable_rows(data, images, options, skip_bad_rows)

    def read_valid() -> "Table":
        return usable_rows(valid, images, replace(options, split=None), skip_bad_rows)

    prepared = prepare(request, read, None if valid is None else read_valid, say_to_log)
    from scoring.run.groups import release_memory
    from train.inputs import TrainContext
    from train.start import start

    start(prepared.inputs, TrainContext(**vars(context_of(progress, stop))), folds, overwrite)
    release_memory()
    return Trained(request.out, [_trained(name) for name in folds_of(str(out))], prepared.left_out)


def _config(config: TrainConfig | Mapping[str, Any] | str | Path | None) -> TrainConfig:
    """Raises ConfigError where a choice is unknown or wrong."""
    if isinstance(config, TrainConfig):
        return config
    if isinstance(config, str | Path):
        return TrainConfig.read(Path(config))
    known = [setting.name for setting in fields(TrainConfig)]
    if unknown := sorted(set(config or {}) - set(known)):
        raise ConfigError(f"config: unknown: {', '.join(unknown)}; expected some of {', '.join(known)}")
    return TrainConfig.read(None, **(config or {}))


def _table_options(options: TableOptions, config: object) -> TableOptions:
    """With the names of columns in the section [columns] of a file of choices. Raises FileError.

    Pictures are decoded whole: a broken one would stop the training halfway.
    """
    names = read_column_names(Path(config), section_only=True) if isinstance(config, str | Path) else {}
    return replace(options, columns=names | options.columns, deep=True)


def _trained(folder: str) -> TrainedCheckpoint:
    metrics = read_checkpoint(folder).manifest.metrics
    names = [each.name for each in fields(TrainedCheckpoint)][1:]
    return TrainedCheckpoint(Path(folder), **{name: metrics[name] for name in names})


# ------------------------------------------------------------------ what the command does, too
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
