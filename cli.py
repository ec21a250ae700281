"""The command line: parse, call one function, print. Nothing heavy is imported before a command needs it."""

import os
import sys
import warnings
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from scoring.report.tables import table_of
from scoring.terminal.options import (
    PIXELS,
    Finite,
    answers_option,
    anyones_options,
    bench_options,
    data_options,
    form_option,
    model_options,
    one_pixels,
    pool_options,
    run_options,
    several_pixels,
)
from scoring.terminal.terminal import BAD_INPUT, SOME_UNSCORED, Bar, answered, read, say, stoppable, tell_results, told
from train.config import TrainConfig
from train.log import TRACKERS, check_trackers
from train.options import training_options

warnings.filterwarnings("ignore", category=FutureWarning)  # of libraries, to their own callers
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # nothing here forks
os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")  # batches differ in size
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="logit-scoring", prog_name="logit-scoring")
@click.option("--debug", is_flag=True, help="Show the trace of an error.")
@click.pass_context
def main(context: click.Context, debug: bool) -> None:
    """Answer multiple-choice questions about pictures by one forward pass, with probabilities.

    \b
      python cli.py check  test.csv                                      is the table fit to be scored?
      python cli.py train  train.csv --base Qwen/Qwen3-VL-8B-Instruct --out ckpt/fold0
      python cli.py score  test.csv --ckpt ckpt/fold0 --ckpt ckpt/fold1   submission and probabilities
      python cli.py evaluate scores/test                                 how good are they?
      python cli.py calibrate scores/valid --ckpt ckpt/fold0             make probabilities honest
      python cli.py ensemble scores/a scores/b --out scores/both         pool them, from files
      python cli.py merge  part1 part2 --out scores/test                 shards of a table, into one
      python cli.py soup   ckpt/fold0 ckpt/fold1 --out ckpt/soup         average adapters into one
    python cli.py export ckpt/fold0 --out ckpt/whole                   one model, for other engines too
      python cli.py bench                                                against generating a text
      python cli.py report scores/test                                   a page to look at and to send
      python cli.py show   ckpt/fold0                                    what is this checkpoint?
    """
    context.obj = debug


@main.command()
@click.argument("data", type=click.Path(path_type=Path))
@data_options
@click.option("--deep", is_flag=True, help="Decode every pixel, not the headers alone.")
@click.option("--json", "as_json", is_flag=True, help="For programs: everything that was found, on stdout.")
def check(data: Path, reading, deep, as_json) -> None:
    """Read a table and look at every picture; tell all problems at once.

    Exit code 0: all rows are good. 2: something is wrong, everything is listed. 3: some rows are bad and
    --skip-bad-rows was given.
    """
    with told():
        if as_json:
            from scoring.terminal.terminal import check_as_json

            sys.exit(check_as_json(data, reading, deep))
        table = read(data, reading, deep)
        pictures = len({question.picture for question in table.good})
        click.echo(
            f"{data}: {len(table.good):,} good rows, {len(table.letters)} options, {pictures:,} pictures"
            f"{', with answers' if any(question.answer for question in table.good) else ', no answers'}"
        )
        if len(table.good) < len(table.questions):
            sys.exit(SOME_UNSCORED)


@main.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--base", required=True, help="Base model: a folder or a hub id such as Qwen/Qwen3-VL-8B-Instruct.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Checkpoint folder to write.")
@click.option("--valid", type=click.Path(path_type=Path), help="Validation table.  [default: 10 % of the pictures]")
@data_options
@click.option("--template", type=click.Path(path_type=Path, dir_okay=False), help="Prompt template, a TOML file.")
@click.option(
    "--pixels", type=PIXELS, help="Pixel budget, such as 448 for 448x448.  [default: that, within the base's limits]"
)
@training_options
@click.option("--config", "file", type=click.Path(path_type=Path), help="Training choices, a TOML file; options win.")
@click.option("--folds", type=click.IntRange(2), help="Train K adapters, OUT/fold0 …, each held against its own part.")
@click.option("--log", "trackers", type=click.Choice(list(TRACKERS)), multiple=True, help="Also log there; repeatable.")
@click.option("--overwrite", is_flag=True, help="Replace a checkpoint that is there, or an unfinished training.")
def train(
    data: Path, base, out: Path, valid, reading, template, pixels, file, folds, trackers, overwrite, **choices
) -> None:
    """Fine-tune a LoRA on the 4-bit base; keep the epoch with the best validation NLL, with its temperature.

    The same command goes on where a killed training stopped.
    """
    with told(together=True) as processes:
        from scoring.checkpoints.checkpoint import find_base
        from scoring.inputs.prompt import PromptTemplate
        from train.folder import check_out
        from train.lora import check_choices
        from train.split import check_valid, split

        if folds and valid:
            raise click.UsageError("--folds holds out parts of DATA itself; leave out --valid")
        config = TrainConfig.read(file, **choices)
        check_trackers(trackers)
        if not overwrite:
            check_out(out, folds)
        table = read(data, reading, deep=True)  # a broken picture would stop the training halfway
        rows, valid_rows, notices = answered(table), [], []
        if valid:
            valid_rows = answered(read(valid, reading, deep=True))
            notices = check_valid(rows, valid_rows, valid)
        elif not folds:
            rows, valid_rows, notices = split(rows, config.valid_share, config.seed)
        for notice in notices:
            say(notice)
        prompt = PromptTemplate.read(template) if template else None
        check_choices(find_base(base), config)
        held_out = f"{folds} folds" if folds else f"{len(valid_rows):,} validation rows"
        say(f"{len(rows):,} training rows, {held_out}; loading {base} …")

        from scoring.run.processes import Processes
        from train.inputs import TrainContext, TrainingInputs
        from train.start import start

        source = {"file": data.name, "sha256": table.digest, "split": "separate table" if valid else "by picture"}
        inputs = TrainingInputs(base, rows, valid_rows, out, config, prompt, pixels, source, trackers)
        with stoppable() as stop:
            context = TrainContext(say, partial(say, everyone=True), Bar, stop, processes or Processes())
            start(inputs, context, folds, overwrite)
        click.echo(f"checkpoint: {out}")
        if len(table.good) < len(table.questions):
            sys.exit(SOME_UNSCORED)


@main.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--ckpt", "checkpoints", multiple=True, required=True, help="Checkpoint: folder or hub id; repeat for an ensemble."
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the results.  [default: scores/DATA]")
@data_options
@model_options
@several_pixels
@run_options
@click.option("--limit", type=click.IntRange(1), help="Score the first N rows alone.")
@click.option(
    "--out-of-fold",
    is_flag=True,
    help="DATA is the training table of the folds in CKPT: each row by the fold that had not seen it.",
)
@click.option("--overwrite", is_flag=True, help="Start anew where the folder holds another run.")
def score(data: Path, checkpoints, out, reading, template, orders, limit, calibration, out_of_fold, **choices) -> None:
    """Score a table by one forward pass; several checkpoints are pooled.

    Writes probabilities.csv, submission.csv, logits/*.parquet, run.json and, with answers, metrics.json. The same
    command goes on where a killed run stopped.
    """
    with told(together=True) as processes:
        from scoring.inputs.orders import parse_orders
        from scoring.inputs.prompt import PromptTemplate

        orders = [parse_orders(part) for part in orders.split(",")]
        table = read(data, reading)
        table.questions = table.questions[:limit]
        out = out or Path("scores") / data.name.split(".")[0]
        prompt = PromptTemplate.read(template) if template else None
        from scoring.checkpoints.checkpoint import folds_of

        count = sum(len(folds_of(name)) for name in checkpoints)
        say(f"{len(table.questions):,} rows, {count} checkpoint{'s' * (count > 1)}; loading …")

        from scoring.run.groups import RunOptions, check_sets, plan_groups, run_groups

        model = {name: choices.pop(name) for name in ("base", "pixels", "quantization", "allow_mismatch")}
        if out_of_fold:
            from scoring.run.out_of_fold import score_out_of_fold
            from scoring.terminal.options import one_setting

            model |= {"template": prompt, "pixels": one_setting(model["pixels"], "--pixels")}
            options = RunOptions(orders=one_setting(orders, "--orders"), **choices)
            folder = one_setting(checkpoints, "--ckpt")
            with stoppable() as stop:
                finished = score_out_of_fold(table, folder, out, options, model, Bar, say, stop, processes)
            if finished.logits is not None:
                tell_results(out, finished.logits, finished.metrics, finished.warnings)
            return
        groups = plan_groups(checkpoints, template=prompt, orders=orders, calibration=calibration, **model)
        check_sets(groups, choices["sets"], table, model["allow_mismatch"])
        for note in dict.fromkeys(note for group in groups for note in group.plan.notes):
            say(note)
        with stoppable() as stop:
            finished = run_groups(table, groups, out, RunOptions(**choices), Bar, say, stop, processes)
        if finished.logits is None:  # the first process tells the results
            return
        speed = f", {finished.scored_now / finished.seconds['scoring']:.1f} rows/s" if finished.scored_now else ""
        if choices["shard"]:
            click.echo("shard {} of {} is done{}; when all are: merge".format(*choices["shard"], speed))
            return
        lines = [finished.about_orders] * bool(finished.about_orders)
        lines.append(f"{int(finished.logits.scored.sum()):,} of {len(table.questions):,} rows scored{speed}")
        tell_results(out, finished.logits, finished.metrics, finished.warnings, lines=lines)


@main.command()
@click.argument("shards", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the results of all.")
@click.option("--overwrite", is_flag=True, help="Replace what is there.")
def merge(shards: tuple[Path, ...], out: Path, overwrite) -> None:
    """Make one SCORES folder of what `score --shard 1/n` to `n/n` left, the same as one process would have left.

    Shards that are missing, double or of another run are named.
    """
    with told():
        from scoring.run.shards import merge as put_together

        tell_results(out, *put_together(shards, out, overwrite))


@main.command()
@click.argument("scores", type=click.Path(path_type=Path))
@click.option("--ckpt", help="The checkpoint (or folder of folds) that scored them: its folder gets the calibration.")
@click.option("--out", type=click.Path(path_type=Path), help="File to write.  [default: in the checkpoint's folder]")
@form_option
@answers_option
def calibrate(scores: Path, ckpt: str, out, form, answers) -> None:
    """Fit a temperature on labelled rows that the checkpoint was not trained on, and more where that is earned.

    SCORES is a folder, or anyone's file: CSV or Parquet with id, a column for each letter, and answers. Of a folder
    either --ckpt or --out is enough, with --out alone each of its members is calibrated; a file needs --out and no
    --ckpt. `score` uses a checkpoint's calibration without being told; `ensemble` and `evaluate` take the file with
    --calibration. Says what was chosen and why, with the gain on rows held out of the fit.
    """
    with told():
        if ckpt:
            from scoring.checkpoints.calibrate import calibrate_checkpoint

            found, path = calibrate_checkpoint(scores, ckpt, out, answers, say)
            found = {"": found}
        elif out:
            from scoring.scores.external import calibrate_file

            found, path = calibrate_file(scores, out, form, answers, say), out
        else:
            raise click.UsageError("name the checkpoint with --ckpt, or the file to write with --out")
        for member, calibration in found.items():
            click.echo("\n".join(([f"{member}:"] if len(found) > 1 else []) + calibration.choice))
            if calibration.gain == calibration.gain:  # a number
                before, after, gain = calibration.nll_before, calibration.nll_after, calibration.gain
                click.echo(
                    f"NLL {before:.4f} → {after:.4f} on these {calibration.rows:,} rows; on rows held out of the fit "
                    f"{'gained' if gain >= 0 else 'lost'} {abs(gain):.4f} ± {calibration.gain_error:.4f}"
                )
        click.echo(f"calibration: {path}")


@main.command()
@click.argument("scores", type=click.Path(path_type=Path))
@click.argument("other", required=False, type=click.Path(path_type=Path))
@click.option("--by", multiple=True, help="Group by this column of the data too; repeatable.")
@click.option("--data", type=click.Path(path_type=Path), help="The table, for --by.  [default: where it was scored]")
@click.option(
    "--accuracy",
    type=Finite(0, 1, min_open=True, max_open=True),
    default=0.95,
    show_default=True,
    help="Accuracy that a confidence threshold must promise.",
)
@click.option("--plot/--no-plot", default=True, show_default=True, help="Draw evaluation.png (and ensemble.png).")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for a file's results; those of OTHER go into its folder `other`.  [default: scores/FILE]",
)
@anyones_options
def evaluate(scores: Path, other, by, data, accuracy, plot, out, form, answers, calibrations) -> None:
    """Every metric with its uncertainty, overall and by task type; with OTHER, a paired comparison of the two.

    SCORES is a folder, or anyone's file: CSV or Parquet with `id`, a column for each letter (probabilities,
    log-probabilities or logits), and where it has them `answer`, `task_type` and `member`. Writes metrics.json,
    evaluation.png and suspects.csv (rows that were not trained on, whose label may be wrong) into the folder, of
    several members ensemble.png too, with OTHER comparison.json.
    """
    with told():
        from scoring.report.tables import comparison_of, details_of, members_of
        from scoring.scores.evaluation import compare_folders, judge
        from scoring.scores.external import opened
        from scoring.scores.folder import RunError

        found, notes = opened(scores, out, form, answers, calibrations)
        for note in notes:
            say(note)
        if other:
            theirs, notes = opened(other, out / "other" / other.stem if out else None, form, answers, ())
            for note in notes:
                say(note)
            click.echo(comparison_of(compare_folders(found, theirs), (str(scores), str(other))))
            return
        columns = {}
        if by:
            from scoring.inputs.questions import read_columns

            about = found.about.get("data", {})
            values = read_columns(data or Path(about["file"]), by, about.get("columns", {}).get("id", "id"))
            columns = {name: [values[name].get(id, "") for id in found.logits.ids] for name in by}
        metrics = judge(found, columns, accuracy, suspects=True)
        if metrics is None:
            raise RunError(
                f"{scores}: no scored row has an answer; nothing to evaluate against (--answers names a table)"
            )
        parts = [table_of(metrics), details_of(metrics)]
        if "ensemble" in metrics:
            parts.append(members_of(metrics))
        click.echo("\n\n".join(parts))
        if plot:
            from scoring.report.plots import draw_folder

            click.echo(f"\npicture: {draw_folder(found, metrics)}")
            if "ensemble" in metrics:
                from scoring.report.ensemble_plots import draw_ensemble

                click.echo(f"picture: {draw_ensemble(found, metrics)}")


@main.command()
@click.argument("scores", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the pool: a SCORES folder too.")
@pool_options
@click.option("--overwrite", is_flag=True, help="Replace an ensemble that is there.")
def ensemble(
    scores: tuple[Path, ...], out: Path, kind, weights, fit, form, answers, calibrations, sets, overwrite
) -> None:
    """Pool SCORES folders, or files (CSV or Parquet) with an id and a column for each letter, matched by id.

    Rows of one id must be the same question with the same options. Default: each member at its own temperature, mean of
    log-probabilities. Tells what each member adds and, where there are labels, what other weights would give.
    """
    with told():
        from scoring.report.tables import members_of
        from scoring.scores.external import read_files
        from scoring.scores.pooling import PoolOptions, claim, pool_files

        claim(out, overwrite)
        known, given = read_files(answers, calibrations)
        options = PoolOptions(kind, weights, form, fit, given, known, sets)
        found = pool_files(scores, out, options)
        for text in found.told:
            click.echo(text, err=True)
        tables = "\n\n" + members_of(found.metrics) if found.metrics else ""
        tell_results(out, found.scores.logits, found.metrics, tables=tables)


@main.command()
@click.argument("checkpoints", nargs=-1, required=True)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Checkpoint folder to write.")
@click.option("--weights", help="A number for each, such as 0.5,0.3,0.2.  [default: equal]")
@click.option("--base", help="Base model, where it is not where the checkpoints say.")
def soup(checkpoints: tuple[str, ...], out: Path, weights, base) -> None:
    """Average adapters into one adapter, exactly: as fast to score as a single checkpoint."""
    with told():
        from scoring.checkpoints.checkpoint import folds_of
        from scoring.checkpoints.soup import given_weights
        from scoring.checkpoints.soup import soup as cook

        count = sum(len(folds_of(name)) for name in checkpoints)
        for text in cook(list(checkpoints), out, given_weights(weights, count), base):
            click.echo(text)
        click.echo(f"checkpoint: {out}")


@main.command()
@click.argument("ckpt")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write.")
@click.option("--dtype", type=click.Choice(["bf16", "fp16", "fp32"]), default="bf16", show_default=True)
@click.option("--base", help="Base model, where it is not where the checkpoint says.")
@click.option(
    "--quantization",
    type=click.Choice(["nf4", "none"]),
    help="What the adapter is added to: the base as it is in 4 bits, or as it is.  [default: as scored]",
)
@click.option("--adapter-only", is_flag=True, help="Copy what scoring needs of the adapter, to give it away.")
@click.option("--base-name", help="With --adapter-only: the base's hub id, where the checkpoint names a folder.")
def export(ckpt: str, out: Path, dtype, base, quantization, adapter_only, base_name) -> None:
    """Write base and adapter as one whole model, which transformers, other engines and `score` load by themselves.

    With --adapter-only: the adapter alone, without what its training left beside it.
    """
    with told():
        if base_name and not adapter_only:
            raise click.UsageError("--base-name belongs to --adapter-only")
        from scoring.checkpoints.export import export_adapter, export_model

        if adapter_only:
            exported = export_adapter(ckpt, out, base_name, base)
        else:
            bar = partial(Bar, unit="B", scale=True)
            exported = export_model(ckpt, out, dtype, base, quantization, bar)
        for note in exported.notes:
            say(note)
        click.echo(f"{', '.join(exported.files)}\n{exported.size / 1e9:.2f} GB of weights: {out}")


@main.command()
@click.argument("data", required=False, type=click.Path(path_type=Path))
@click.option("--ckpt", help="Checkpoint: folder or hub id.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for bench.json and report.html.  [default: bench]")
@click.option("--limit", type=click.IntRange(1), help="The first N rows alone.  [default: 80 of the demo, else all]")
@bench_options
@data_options
@model_options
@one_pixels
def bench(data, ckpt, out, limit, ways, repeats, price, cost_rows, reading, template, **choices) -> None:
    """Generating a text and digging a letter out of it, against one forward pass, on the same rows.

    \b
    seed          the notebook: one row at a time, 2 greedy tokens, a letter or else "a"
    one           1 greedy token in left-padded batches, the same extractor
    batched       2 greedy tokens in left-padded batches, the same extractor
    strong        up to 16 tokens in batches, a stronger extractor that may find no letter
    forward       one forward pass a row, the logits of the letters compared
    padded        the same in padded batches, by transformers and PEFT
    engine-4bit   the engine with its weights in 4 bits, as in the ways above
    engine-16bit  the engine with its weights expanded to 16 bits
    engine        what `score` does here, with the weights that --weights chooses
    cyclic        what `score --orders cyclic` does

    Without arguments on the embedded demo.
    """
    with told():
        from scoring.inputs.prompt import PromptTemplate
        from scoring.terminal.terminal import or_demo

        data, ckpt, limit = or_demo(data, ckpt, limit)
        table = read(data, reading)
        complete = len(table.good) == len(table.questions)
        table.questions = table.good[:limit]
        out = out or Path("bench")
        click.echo(f"{len(table.questions):,} rows; loading …", err=True)

        from scoring.bench.measure import bench as measure
        from scoring.report.tables import ways_of
        from scoring.run.run import RunOptions

        options = RunOptions(**{name: choices.pop(name) for name in ("batch_tokens", "weights", "compile")})
        model = choices | {"template": PromptTemplate.read(template) if template else None}
        found = measure(table, ckpt, out, model, options, Bar, ways, repeats, price, cost_rows, say)
        from scoring.report.page import write_report

        click.echo(ways_of(found))
        click.echo(f"\nall rows: {out / 'bench.json'}\nreport:   {write_report(out)}")
        if not complete:
            sys.exit(SOME_UNSCORED)


@main.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Page to write.  [default: DIR/report.html]")
@click.option("--rows", type=click.IntRange(1), default=1000, show_default=True, help="Rows that are shown at most.")
def report(folder: Path, out, rows) -> None:
    """One HTML page about a folder of `score`, `ensemble` or `bench`: figures, tables, and the rows with pictures.

    DIR may also be anyone's file of numbers, as `evaluate` takes it: its page is in scores/FILE, or with --out there
    alone.

    It needs no network and no other file: send it to whom you like.
    """
    with told():
        from scoring.report.page import write_report
        from scoring.scores.members import is_file

        with ExitStack() as stack:
            if is_file(folder):
                from scoring.scores.external import opened

                results = Path(stack.enter_context(TemporaryDirectory())) / folder.stem if out else None
                scores, notes = opened(folder, results, "auto", None, ())
                folder = scores.folder
                for note in notes if results is None else notes[:-1]:  # the last names the folder
                    say(note)
            click.echo(f"report: {write_report(folder, out, rows, lambda total: Bar(total, unit='picture'))}")


@main.command()
@click.argument("ckpt")
@click.option("--base", help="Base model, where it is not where the checkpoint says.")
def show(ckpt: str, base) -> None:
    """Everything about a checkpoint, without loading the model."""
    with told():
        from scoring.checkpoints.checkpoint import read_checkpoint
        from scoring.checkpoints.description import describe

        text, sound = describe(read_checkpoint(ckpt, base))
        click.echo(text)
        if not sound:
            sys.exit(BAD_INPUT)


if __name__ == "__main__":
    main()
