"""What `Answers` do with results: load, save, pool and calibrate them. What commands print goes to the log."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from scoring.checkpoints.calibrate import CalibrateOptions, calibrate_checkpoint
from scoring.errors import CallError
from scoring.library.labels import GivenAnswers, answer_table, labelled
from scoring.library.messages import say_to_log
from scoring.scores.evaluation import measure_scores
from scoring.scores.external import calibrate_members
from scoring.scores.finalize import write_scores
from scoring.scores.folder import RunError, Scores, Source, check_replaceable, open_scores
from scoring.scores.number_files import is_number_file
from scoring.scores.pooling import POOLED, PoolOptions, import_scores, pool_scores
from scoring.stats.calibration import Calibration
from scoring.stats.sets import OptionSets
from scoring.tables.sample import read_sample

IN_MEMORY = Path("answers")  # the name of results that were never written, in messages
# Of a SCORES folder that is replaced; first the file that makes it a finished one:
REPLACED = ("run.json", "plan.json", "metrics.json", "comparison.json", "suspects.csv", "members/*.csv")


def loaded(path: Path, form: str, answers: GivenAnswers | None, calibrations: Sequence[Calibration]) -> Scores:
    """The results in a SCORES folder or a file of numbers, see `Answers.load`. No file is written."""
    if not is_number_file(path) and not calibrations:
        return labelled(open_scores(path), answers)
    options = PoolOptions(form=form, calibrations=calibrations)
    imported = import_scores(path, options)
    if answers is not None:
        imported = import_scores(path, replace(options, answers=answer_table(answers, imported.scores.logits.ids)))
    for note in imported.notes:
        say_to_log(note)
    return replace(imported.scores, folder=path)


def saved(scores: Scores, out: Path, overwrite: bool = False, sample: Path | None = None) -> Path:
    """Write the results as the SCORES folder `out`; see `Answers.save`."""
    wanted = read_sample(sample) if sample else None
    if wanted:
        wanted.rows_in(scores.logits.ids)
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file; expected a folder, or the name of a new one")
    check_replaceable(out, overwrite)
    if scores.sets is None and scores.run.sets:  # those of a folder are read before they are replaced
        scores = replace(scores, sets=OptionSets(scores.option_sets(), None, ""))
    for name in REPLACED:
        for path in out.glob(name):
            path.unlink()
    write_scores(replace(scores, folder=out), wanted)
    return out


def evaluated(scores: Scores, columns: dict[str, list[str]], accuracy: float) -> dict[str, Any]:
    """All metrics, see `Answers.evaluate`. columns: to group by."""
    if not 0 < accuracy < 1:
        raise CallError(f"accuracy={accuracy}: expected what a threshold must promise, between 0 and 1, such as 0.95")
    metrics = measure_scores(scores, columns, accuracy)
    if metrics is None:
        raise RunError("no scored row has an answer to evaluate against; give the right letters by answers=")
    return metrics


def pooled(
    sources: Sequence[Source],
    options: PoolOptions | None = None,
    run_json: dict[str, Any] | None = None,
    warnings: Sequence[str] = (),
) -> Scores:
    """The members of all sources as one pool. run_json, warnings: further values and warnings for run.json."""
    numbered = [
        replace(source, folder=Path(f"{source.folder}-{number}"))  # tells them apart in messages
        if isinstance(source, Scores) and source.folder in (IN_MEMORY, POOLED)
        else source
        for number, source in enumerate(sources, 1)
    ]
    result = pool_scores(numbered, options, run_json, warnings)
    for note in result.notes:
        say_to_log(note)
    return result.scores


def calibrated(scores: Scores, member: str | None = None, ckpt: str | None = None) -> Calibration:
    """A calibration of a member, or of the checkpoint that scored the rows, which gets it; see `Answers.calibrate`."""
    names = scores.logits.members
    if ckpt is not None:
        calibration, path = calibrate_checkpoint(scores, ckpt, CalibrateOptions(say=say_to_log))
        say_to_log(f"calibration: {path}")
    else:
        if member not in names and (member or len(names) > 1):
            raise CallError(f"member={member!r}: expected one of {', '.join(names)}")
        calibration = calibrate_members(scores, say=say_to_log)[member or names[0]]
    for text in calibration.choice:
        say_to_log(text)
    return calibration
