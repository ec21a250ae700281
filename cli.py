"""The command line: parse, call one function, print. Nothing heavy is imported before a command needs it."""

import atexit
import gc
import os
import sys
import warnings
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from scoring.serving.options import ScorerChoices, ServeChoices, both, scorer_options, serve_options
from scoring.terminal.endpoint_options import (
    ASKED_ALONE,
    NOT_ASKED,
    EndpointChoices,
    check_endpoint,
    endpoint_options,
    endpoint_price_option,
    token_price_option,
)
from scoring.terminal.errors import BAD_INPUT, SOME_UNSCORED, report_errors, stoppable
from scoring.terminal.help import SectionedGroup
from scoring.terminal.options import (
    PIXELS,
    EngineChoices,
    Finite,
    ModelChoices,
    RunChoices,
    TableOptions,
    answers_option,
    base_option,
    bench_options,
    file_options,
    form_option,
    model_options,
    one_pixels,
    only_value,
    pool_options,
    run_options,
    sample_option,
    several_pixels,
    table_options,
)
from scoring.terminal.ray_options import RayChoices, ray_options
from scoring.terminal.reading import column_names, read, read_in_ranges
from scoring.terminal.results import Results, print_calibrations, print_results
from scoring.terminal.session import Session
from train.config import TrainConfig
from train.log import TRACKERS
from train.options import training_options

if TYPE_CHECKING:
    from scoring.report.records import Metrics
    from scoring.run.options import RunResult
    from scoring.scores.folder import Scores
    from scoring.stats.sets import SetRequest
    from scoring.tables.sample import SampleSubmission
    from train.ray_folds import RayFolds

warnings.filterwarnings("ignore", category=FutureWarning)  # of libraries, to their own callers
warnings.filterwarnings("ignore", module=r"PIL\.")  # of what is odd in a file; what matters is a fault of its row
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")  # the same bits in every process, see `settle_functions`
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # nothing here forks
os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")  # batches differ in size
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
# Libraries make a million objects when they are imported, and all live on. To look for garbage among them, at Python's
# own threshold of 700 and once more at the end, took a quarter of a short `score`; none is left (benchmarks/LOG.md).
gc.set_threshold(1_000_000)
atexit.register(gc.freeze)

SECTIONS = {
    "Data": ("check",),
    "Training": ("train",),
    "Scoring": ("score", "merge", "bench"),
    "Evaluation": ("evaluate", "calibrate", "report", "show"),
    "Combining": ("ensemble", "soup", "export"),
    "Serving": ("serve",),
}


@click.group(
    cls=SectionedGroup,
    sections=SECTIONS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name="logit-scoring", prog_name="logit-scoring")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def main(context: click.Context, debug: bool) -> None:
    """Answer multiple-choice questions about pictures with one forward pass, and get calibrated probabilities.

    \b
    A first tour:
      python cli.py check    test.csv
      python cli.py train    train.csv --base Qwen/Qwen3-VL-8B-Instruct --out ckpt/fold0
      python cli.py score    test.csv --ckpt ckpt/fold0 --out scores/test
      python cli.py evaluate scores/test
      python cli.py report   scores/test
    """
    context.obj = Session(debug)


@main.command()
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path))
@table_options
@click.option("--deep", is_flag=True, help="Decode the pictures completely, not only their headers.")
@click.option("--ckpt", help="Checkpoint that is to answer: rows with pictures are problems if its base sees none.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, for programs.")
@click.option(
    "--write",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the good rows to this CSV, in the columns that need no options to be read; faulty rows are left out.",
)
@click.pass_obj
def check(  # noqa: PLR0913 its parameters are its options
    session: Session,
    data: tuple[Path, ...],
    reading: TableOptions,
    deep: bool,
    ckpt: str | None,
    as_json: bool,
    write: Path | None,
) -> None:
    """Check tables and their pictures, and list all problems.

    Tells how the answers are spread over the letters, which rows and pictures are there twice and, of several tables,
    which are in more than one.

    Exit code 0: all rows are good. 2: there are problems. 3: some rows are bad, and --skip-bad-rows or --write left
    them out.
    """
    with report_errors(session):
        from scoring.terminal.checking import CheckRequest, check_tables

        bases = []
        if ckpt:
            from scoring.library.checking import bases_of

            bases = bases_of(ckpt)
        sys.exit(check_tables(session.console, data, CheckRequest(reading, deep, as_json, write, bases)))


def _exit_if(left_out: bool) -> None:
    """End with exit code 3 where rows were left out."""
    if left_out:
        sys.exit(SOME_UNSCORED)


@main.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--base", required=True, help="Base model: folder or hub id, such as Qwen/Qwen3-VL-8B-Instruct.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Checkpoint folder to write.")
@click.option(
    "--valid",
    type=click.Path(path_type=Path),
    help="Validation table.  [default: a share of the pictures of DATA, see --valid-share]",
)
@table_options
@click.option(
    "--template",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Prompt template, a TOML file.  [default: the built-in one]",
)
@click.option(
    "--pixels",
    type=PIXELS,
    help="Pixel budget, such as 448 for 448x448.  [default: 448, within the limits of the base]",
)
@training_options
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    help="TOML file of training options, and of columns' names in a section [columns]; the command line wins.",
)
@click.option(
    "--folds",
    type=click.IntRange(2),
    help="Train this many adapters, OUT/fold0, OUT/fold1 …; each is validated on a part of DATA that it does not see.",
)
@click.option(
    "--log", "trackers", type=click.Choice(list(TRACKERS)), multiple=True, help="Also log to this tracker. Repeatable."
)
@click.option("--overwrite", is_flag=True, help="Start anew, replacing a checkpoint or an unfinished training in OUT.")
@ray_options
@click.pass_obj
def train(  # noqa: PLR0913 its parameters are its options
    session: Session,
    /,
    data: Path,
    base: str,
    out: Path,
    valid: Path | None,
    reading: TableOptions,
    template: Path | None,
    pixels: int | None,
    file: Path | None,
    folds: int | None,
    trackers: tuple[str, ...],
    overwrite: bool,
    cluster: RayChoices,
    **choices: Any,
) -> None:
    """Train a LoRA adapter on a 4-bit base.

    DATA is a table with answers. The epoch with the best validation NLL (negative log-likelihood) is kept, with a
    temperature fitted on the validation rows. The same command continues a training that was stopped or killed.
    """
    console = session.console
    with report_errors(session, distributed=True):
        cluster.check_training(session, folds)
        from scoring.library.training import TrainRequest, prepare

        config = TrainConfig.read(file, **choices)
        reading = replace(reading, columns=column_names(reading, file))
        skip = reading.skip_bad_rows
        request = TrainRequest(base, out, config, template, pixels, folds, trackers, overwrite, skip)
        # decoded whole: a broken picture would stop the training halfway
        read_rows = partial(read, console, data, reading, deep=True)
        read_valid = partial(read, console, valid, replace(reading, split=None), deep=True) if valid else None
        prepared = prepare(request, read_rows, read_valid, console.say)
        from train.inputs import TrainContext
        from train.start import start

        with stoppable(session), cluster.connected(session):
            context = TrainContext(
                **vars(session.context()),
                say_everyone=partial(console.say, everyone=True),
                fold_workers=_fold_workers(cluster),
            )
            start(prepared.inputs, context, folds, overwrite)
        click.echo(f"checkpoint: {out}")
        _exit_if(prepared.left_out > 0)


def _fold_workers(cluster: RayChoices) -> "RayFolds | None":
    """What trains folds on the cluster that is asked for; None where none is."""
    if cluster.ray is None:
        return None
    from train.ray_folds import RayFolds

    return RayFolds(cluster.ray_actors)


@main.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--ckpt", "checkpoints", multiple=True, help="Checkpoint: folder or hub id. Repeatable: an ensemble.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for the results.  [default: scores/NAME, for NAME.csv]"
)
@table_options
@model_options
@several_pixels
@run_options
@sample_option
@click.option("--limit", type=click.IntRange(1), help="Score only the first N rows.")
@click.option(
    "--out-of-fold",
    is_flag=True,
    help="DATA is the training table of the folds in --ckpt: score each row by the fold that did not see it.",
)
@ray_options
@endpoint_options
@token_price_option
@click.pass_obj
def score(  # noqa: PLR0913 its parameters are its options
    session: Session,
    data: Path,
    checkpoints: tuple[str, ...],
    out: Path | None,
    reading: TableOptions,
    model: ModelChoices,
    pixels: list[int] | None,
    orders: str,
    calibration: str,
    choices: RunChoices,
    sample: Path | None,
    limit: int | None,
    out_of_fold: bool,
    cluster: RayChoices,
    asked: EndpointChoices,
    price: float | None,
) -> None:
    """Score a table by the logits of the letters, and pool checkpoints.

    Writes a SCORES folder: probabilities.csv, submission.csv (id and answer), logits/*.parquet, run.json and, where
    there are answers, metrics.json. The same command continues a run that was stopped or killed. With --endpoint and
    --model a server is asked in place of checkpoints.
    """
    with report_errors(session, distributed=True):
        check_endpoint(asked, NOT_ASKED, needs="checkpoints", own=(*ASKED_ALONE, "price"))
        if asked.endpoint is not None:
            from scoring.terminal.asking import AskedRun, score_by_endpoint

            wanted = AskedRun(asked, choices, orders, calibration, sample, price).options()
            table = read(session.console, data, reading)
            score_by_endpoint(session, replace(table, questions=table.questions[:limit]), wanted, out)
            return
        cluster.check(session, choices.device_map)
        from scoring.library.runs import ScoreRequest, Scoring

        if out_of_fold:
            only_value(orders.split(","), "--orders")
            only_value(pixels, "--pixels")
            only_value(checkpoints, "--ckpt")
        request = ScoreRequest(
            checkpoints,
            out,
            model.base,
            orders.split(","),
            calibration,
            pixels or (),
            sample,
            limit,
            out_of_fold,
            reading.skip_bad_rows,
        )
        with cluster.context(session) as context:
            scoring = Scoring(request, partial(read_in_ranges, session.console, data, reading), session.console.say)
            scoring.plan(model.options(), choices.options())
            with stoppable(session):
                result = scoring.run(context)
        if out_of_fold and result.logits is not None:
            print_results(Results(scoring.out, bool(result.logits.scored.all()), result.metrics, result.warnings))
        elif not out_of_fold:
            _print_scored(result, scoring.out, scoring.table.count, choices.shard)


def _read_sample(path: Path | None) -> "SampleSubmission | None":
    """The sample submission in a file; None where no file is named."""
    from scoring.tables.sample import read_sample

    return read_sample(path) if path else None


def _print_scored(result: "RunResult", out: Path, rows: int, shard: tuple[int, int] | None) -> None:
    """Print what a run left. In the other processes of a call it has no logits, and nothing is printed."""
    if result.logits is None:
        return
    speed = f", {result.scored_now / result.seconds['scoring']:.1f} rows/s" if result.scored_now else ""
    if shard:
        number, count = shard
        click.echo(f"shard {number} of {count} is done{speed}; when all are done, merge them with `merge`")
        return
    lines = [result.orders_note] if result.orders_note else []
    lines.append(f"{result.scored_rows:,} of {rows:,} rows scored{speed}")
    print_results(Results(out, result.scored_rows == rows, result.metrics, result.warnings, lines=lines))


@main.command("merge")
@click.argument("shards", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the merged results.")
@sample_option
@click.option("--overwrite", is_flag=True, help="Replace existing results.")
@click.pass_obj
def merge_shards(session: Session, shards: tuple[Path, ...], out: Path, sample: Path | None, overwrite: bool) -> None:
    """Merge the shards of a table that `score --shard` scored.

    The merged folder is the one that a single run would have written. Missing shards, duplicates and shards of another
    run are refused by name.
    """
    with report_errors(session):
        from scoring.run.shards import merge
        from scoring.tables.sample import tell_lacking

        wanted = _read_sample(sample)
        logits, metrics, notes = merge(shards, out, overwrite, wanted)
        tell_lacking(wanted, logits.ids, session.console.say)
        print_results(Results(out, bool(logits.scored.all()), metrics, notes))


@main.command()
@click.argument("scores", type=click.Path(path_type=Path))
@click.option("--ckpt", help="Checkpoint (or folder of folds) that scored the rows; it gets the calibration.")
@click.option("--out", type=click.Path(path_type=Path), help="File to write.  [default: in the checkpoint's folder]")
@form_option
@answers_option
@click.pass_obj
def calibrate(  # noqa: PLR0913 its parameters are its options
    session: Session, scores: Path, ckpt: str | None, out: Path | None, form: str, answers: Path | None
) -> None:
    """Fit a temperature on labelled rows that were not trained on.

    SCORES is a folder that `score`, `ensemble` or `merge` wrote, or any CSV or Parquet file with id, a column for each
    letter, and answers. A letter bias or temperatures by task type are fitted too where that pays off.

    \b
    With --ckpt       the calibration goes into the checkpoint's folder, where `score` finds it.
    With --out alone  each member of SCORES is calibrated, into a file for `ensemble` and `evaluate`.

    Where SCORES is a file, leave out --ckpt. Reports what was chosen, why, and the gain on rows held out of the fit.
    """
    with report_errors(session):
        if ckpt:
            from scoring.checkpoints.calibrate import CalibrateOptions, calibrate_checkpoint

            options = CalibrateOptions(out, answers, session.console.say)
            calibration, path = calibrate_checkpoint(scores, ckpt, options)
            calibrations = {"": calibration}
        elif out:
            from scoring.scores.external import calibrate_file

            calibrations, path = calibrate_file(scores, out, form, answers, session.console.say), out
        else:
            raise click.UsageError("name the checkpoint with --ckpt, or the file to write with --out")
        print_calibrations(calibrations)
        click.echo(f"calibration: {path}")


@main.command()
@click.argument("scores", type=click.Path(path_type=Path))
@click.argument("other", required=False, type=click.Path(path_type=Path))
@click.option("--by", multiple=True, help="Also group the metrics by this column of the table. Repeatable.")
@click.option(
    "--data", type=click.Path(path_type=Path), help="Table with the columns of --by.  [default: the scored table]"
)
@click.option(
    "--accuracy",
    type=Finite(0, 1, min_open=True, max_open=True),
    default=0.95,
    show_default=True,
    help="Target accuracy of the confidence threshold.",
)
@click.option("--plot/--no-plot", default=True, show_default=True, help="Draw evaluation.png (and ensemble.png).")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for the results of a file, or of a folder with --answers or --calibration; those of OTHER go into "
    "OUT/other.  [default: a folder in scores/]",
)
@file_options
@click.pass_obj
def evaluate(  # noqa: PLR0913 its parameters are its options
    session: Session,
    scores: Path,
    other: Path | None,
    by: tuple[str, ...],
    data: Path | None,
    accuracy: float,
    plot: bool,
    out: Path | None,
    form: str,
    answers: Path | None,
    calibrations: tuple[Path, ...],
) -> None:
    """Report every metric with its uncertainty, or compare two results.

    SCORES is a folder that `score`, `ensemble` or `merge` wrote, or any CSV or Parquet file with id, a column for each
    letter (probabilities, log-probabilities or logits) and, where known, answer, task_type and member. With OTHER, the
    two are compared row by row.

    Writes metrics.json, evaluation.png and suspects.csv (rows whose label may be wrong) into the folder; with several
    members ensemble.png; with OTHER only comparison.json.
    """
    with report_errors(session):
        from scoring.report.records import Comparison, read_record
        from scoring.report.tables import comparison_table, to_text
        from scoring.scores.evaluation import compare_folders
        from scoring.scores.external import open_or_import

        results, notes = open_or_import(scores, out, form, answers, calibrations)
        for note in notes:
            session.console.say(note)
        if other:
            other_out = out / "other" / other.stem if out else None
            others, notes = open_or_import(other, other_out, form, answers, ())
            for note in notes:
                session.console.say(note)
            comparison = read_record(Comparison, compare_folders(results, others))
            click.echo(to_text(comparison_table(comparison, (str(scores), str(other)))))
            return
        metrics = _evaluate(results, scores, _columns(results, by, data), accuracy)
        if plot:
            _plot(results, metrics)


def _columns(results: "Scores", names: tuple[str, ...], data: Path | None) -> dict[str, list[str]]:
    """These columns of the table that was scored, in the order of the results' rows."""
    if not names:
        return {}
    from scoring.scores.external import table_columns

    if data is None and "file" not in results.run_json.get("data", {}):
        raise click.UsageError("--by needs --data here: these results do not record one table that they come from")
    return table_columns(results, names, data)


def _evaluate(results: "Scores", path: Path, columns: dict[str, list[str]], accuracy: float) -> "Metrics":
    """Write and print all metrics. Raises RunError where no row has an answer."""
    from scoring.report.records import Details, Metrics, read_record
    from scoring.report.tables import details_table, members_table, metrics_table, to_text
    from scoring.scores.evaluation import evaluate_scores
    from scoring.scores.folder import RunError

    values = evaluate_scores(results, columns, accuracy, suspects=True)
    if values is None:
        raise RunError(
            f"{path}: no scored row has an answer to evaluate against; name a table of answers with --answers"
        )
    metrics = read_record(Metrics, values)
    tables = [metrics_table(metrics), details_table(read_record(Details, values))]
    if metrics.ensemble:
        tables.append(members_table(metrics))
    click.echo("\n\n".join(to_text(table) for table in tables))
    return metrics


def _plot(results: "Scores", metrics: "Metrics") -> None:
    """Draw the pictures of an evaluation, and print where they are."""
    from scoring.report.plots import draw_folder

    click.echo(f"\npicture: {draw_folder(results, metrics)}")
    if metrics.ensemble:
        from scoring.report.ensemble_plots import draw_ensemble

        click.echo(f"picture: {draw_ensemble(results, metrics)}")


@main.command()
@click.argument("scores", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder for the pooled results, a SCORES folder too."
)
@pool_options
@sample_option
@click.option("--overwrite", is_flag=True, help="Replace an existing ensemble.")
@click.pass_obj
def ensemble(  # noqa: PLR0913 its parameters are its options
    session: Session,
    scores: tuple[Path, ...],
    out: Path,
    kind: str,
    weights: str,
    fit: Path | None,
    form: str,
    answers: Path | None,
    calibrations: tuple[Path, ...],
    sets: "SetRequest | None",
    sample: Path | None,
    overwrite: bool,
) -> None:
    """Pool the results of several runs or files, matched by id.

    Each of SCORES is a folder that `score`, `ensemble` or `merge` wrote, or a CSV or Parquet file with id and a column
    for each letter. Rows with one id must be the same question with the same options. By default each member keeps its
    own temperature, and the log-probabilities are averaged. Reports what each member adds and, where there are
    answers, what other weights would give.
    """
    with report_errors(session):
        from scoring.report.records import Metrics, read_record
        from scoring.report.tables import members_table, to_text
        from scoring.scores.external import read_files
        from scoring.scores.folder import check_replaceable
        from scoring.scores.pooling import PoolOptions, pool_files
        from scoring.tables.sample import tell_lacking

        check_replaceable(out, overwrite)
        known, given = read_files(answers, calibrations)
        wanted = _read_sample(sample)
        options = PoolOptions(kind, weights, form, fit, given, known, sets, sample=wanted)
        pooled = pool_files(scores, out, options)
        tell_lacking(wanted, pooled.scores.logits.ids, session.console.say)
        for note in pooled.notes:
            click.echo(note, err=True)
        tables = ""
        if pooled.metrics:
            tables = "\n\n" + to_text(members_table(read_record(Metrics, pooled.metrics)))
        print_results(Results(out, bool(pooled.scores.logits.scored.all()), pooled.metrics, tables=tables))


@main.command("soup")
@click.argument("checkpoints", nargs=-1, required=True)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Checkpoint folder to write.")
@click.option("--weights", help="Weight of each checkpoint, such as 0.5,0.3,0.2.  [default: equal]")
@base_option
@click.pass_obj
def average_adapters(
    session: Session, checkpoints: tuple[str, ...], out: Path, weights: str | None, base: str | None
) -> None:
    """Average adapters into one adapter, exactly.

    The result scores as fast as a single checkpoint.
    """
    with report_errors(session):
        from scoring.checkpoints.checkpoint import folds_of
        from scoring.checkpoints.soup import given_weights, soup

        count = sum(len(folds_of(name)) for name in checkpoints)
        for text in soup(list(checkpoints), out, given_weights(weights, count), base):
            click.echo(text)
        click.echo(f"checkpoint: {out}")


@main.command()
@click.argument("ckpt")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write.")
@click.option(
    "--dtype",
    type=click.Choice(["bf16", "fp16", "fp32"]),
    default="bf16",
    show_default=True,
    help="Number format of the exported weights.",
)
@base_option
@click.option(
    "--quantization",
    type=click.Choice(["nf4", "none"]),
    help="nf4: add the adapter to the values that the base has in 4 bits. none: to its original weights.  "
    "[default: as `score` uses the checkpoint]",
)
@click.option("--adapter-only", is_flag=True, help="Copy only the adapter and the files that scoring needs.")
@click.option("--base-name", help="With --adapter-only: hub id of the base, where the checkpoint names a folder.")
@click.pass_obj
def export(  # noqa: PLR0913 its parameters are its options
    session: Session,
    ckpt: str,
    out: Path,
    dtype: str,
    base: str | None,
    quantization: str | None,
    adapter_only: bool,
    base_name: str | None,
) -> None:
    """Write base and adapter as one model, for other engines too.

    transformers, other engines and `score` load the folder like any model. --adapter-only writes no model: it copies
    the adapter, without the files that its training left.
    """
    with report_errors(session):
        if base_name and not adapter_only:
            raise click.UsageError("--base-name is for --adapter-only; add that, or leave --base-name out")
        from scoring.checkpoints.export import ExportOptions, export_adapter, export_model

        if adapter_only:
            exported = export_adapter(ckpt, out, base_name, base)
        else:
            bar = partial(session.console.progress, unit="B", scale=True)
            exported = export_model(ckpt, out, base, ExportOptions(dtype, quantization), bar)
        for note in exported.notes:
            session.console.say(note)
        click.echo(f"{', '.join(exported.files)}\n{exported.size / 1e9:.2f} GB of weights: {out}")


@main.command("bench")
@click.argument("data", required=False, type=click.Path(path_type=Path))
@click.option("--ckpt", help="Checkpoint: folder or hub id.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for bench.json and report.html.  [default: bench]")
@click.option("--limit", type=click.IntRange(1), help="Use only the first N rows.  [default: 80 of the demo, else all]")
@bench_options
@endpoint_options
@endpoint_price_option
@table_options
@model_options
@one_pixels
@click.pass_obj
def measure_ways(  # noqa: PLR0913 its parameters are its options
    session: Session,
    data: Path | None,
    ckpt: str | None,
    out: Path | None,
    limit: int | None,
    ways: list[str] | None,
    repeats: int,
    price: float | None,
    cost_rows: int,
    choices: EngineChoices,
    asked: EndpointChoices,
    endpoint_price: float | None,
    reading: TableOptions,
    model: ModelChoices,
    pixels: int | None,
) -> None:
    """Measure one forward pass against generating text.

    All ways answer the same rows, those of DATA or of the demo in this repository. With --endpoint a server answers
    them, too.

    \b
    seed          the competition notebook: one row at a time, 2 greedy tokens, a letter or else "a"
    one           1 greedy token in left-padded batches, the same extraction
    batched       2 greedy tokens in left-padded batches, the same extraction
    strong        up to 16 greedy tokens in left-padded batches, a better extraction that may find no letter
    forward       transformers and PEFT: one forward pass a row, comparing the logits of the letters
    padded        the same in right-padded batches
    engine-4bit   the engine of `score`, its weights in 4 bits, as in the ways above
    engine-16bit  the engine of `score`, its weights expanded to 16 bits
    engine        what `score` does, with the weights that --weights chooses
    cyclic        what `score --orders cyclic` does
    decision      transformers' pipeline("decision"), a request at a time and without hints; only where it is named
    """
    with report_errors(session):
        check_endpoint(asked, (), needs="", own=(*ASKED_ALONE, "endpoint_price"))
        from scoring.library.benchmarking import rows_or_demo

        file, name, limit = rows_or_demo(data, ckpt, limit)
        table = read(session.console, file, reading)
        rows = replace(table, questions=table.good[:limit])
        out = out or Path("bench")
        session.console.say(f"{len(rows.questions):,} rows; loading …")
        from scoring.run.ahead import bases_here, begun

        with begun(bases_here([name], model.base)):
            import psutil

            from scoring.benchmark.measure import BenchOptions, bench
            from scoring.report.page import write_report
            from scoring.report.tables import bench_tables, to_text

        console = session.console
        began = psutil.Process().create_time()
        options = BenchOptions(out, model.options(pixels), choices.options(), ways, repeats, price, cost_rows, began)
        if asked.endpoint is not None:
            options = replace(options, endpoint=asked.server(endpoint_price))
        measured = bench(rows, name, options, console.progress, console.say)
        click.echo(to_text(*bench_tables(measured)))
        click.echo(f"\nall rows: {out / 'bench.json'}\nreport:   {write_report(out)}")
        _exit_if(len(table.good) < len(table.questions))


@main.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Page to write.  [default: DIR/report.html]")
@click.option("--rows", type=click.IntRange(1), default=1000, show_default=True, help="Largest number of rows to show.")
@click.pass_obj
def report(session: Session, folder: Path, out: Path | None, rows: int) -> None:
    """Write an HTML page with the figures, tables and rows of a result.

    DIR is a folder that `score`, `ensemble`, `merge` or `bench` wrote, or a file of scores as `evaluate` reads it. The
    page of a file goes into scores/FILE, or to --out. It needs no network and no other file: send it to anyone.
    """
    with report_errors(session):
        from scoring.report.page import write_report
        from scoring.scores.number_files import is_number_file

        with ExitStack() as stack:
            if is_number_file(folder):
                from scoring.scores.external import open_or_import

                results = Path(stack.enter_context(TemporaryDirectory())) / folder.stem if out else None
                scores, notes = open_or_import(folder, results, "auto", None, ())
                folder = scores.folder
                for note in notes if results is None else notes[:-1]:  # the last names the folder
                    session.console.say(note)
            progress = partial(session.console.progress, unit="picture")
            click.echo(f"report: {write_report(folder, out, rows, progress)}")


@main.command()
@click.argument("ckpt")
@base_option
@click.pass_obj
def show(session: Session, ckpt: str, base: str | None) -> None:
    """Describe a checkpoint, without loading the model."""
    with report_errors(session):
        from scoring.checkpoints.checkpoint import read_checkpoint
        from scoring.checkpoints.description import describe

        description = describe(read_checkpoint(ckpt, base))
        click.echo(description.text)
        if description.faults:
            sys.exit(BAD_INPUT)


@main.command()
@scorer_options
@serve_options
@click.pass_obj
def serve(session: Session, scorer: ScorerChoices, serving: ServeChoices) -> None:
    """Answer over HTTP: typed questions in, a probability for every option out.

    \b
    POST /v1/decisions   as the package openai has it
    POST /v1/systemone   as typesafe-sdk has it
    GET  /v1/models, /health, /metrics

    The probabilities are those that `score` gives. Needs the extra `serve`: pip install 'logit-scoring[serve]'.
    """
    with report_errors(session):
        from scoring.serving.settings import require_packages

        require_packages()
        settings, scorer_settings = both(lambda: serving.settings(scorer.checkpoints), scorer.settings)
        from scoring.library.scorer import Scorer
        from scoring.serving import server

        if server.serve(lambda: Scorer(scorer_settings, say=session.console.say), settings, session.console.say):
            sys.exit(1)


if __name__ == "__main__":
    main()
