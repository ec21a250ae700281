"""Evaluate a SCORES folder: metrics, comparison, calibration and warnings, from its files alone."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from scoring.errors import quoted
from scoring.files.writing import write_json
from scoring.inputs.prompt import LETTERS
from scoring.scores import position
from scoring.scores.circular import circular_accuracy
from scoring.scores.exposure import CALIBRATION, TRAINING, VALIDATION, known_by_content, numbers_of
from scoring.scores.folder import Columns, RunError, Scores
from scoring.scores.logits import OptionLogits
from scoring.scores.position import OrderAgreement
from scoring.scores.probabilities import member_logits
from scoring.scores.suspects import write_suspects
from scoring.stats.calibration import FEWEST, Calibration, LabelledRows, calibrate
from scoring.stats.comparison import compare
from scoring.stats.metrics import evaluate, measure_members
from scoring.stats.pools import PoolSettings, agreement, leave_one_out
from scoring.stats.resampling import clusters_of
from scoring.stats.selective import Threshold, no_threshold, risk_coverage, threshold_for

# Where a warning starts.
LOW_MASS = 0.9  # 5th percentile of the label mass
MANY_OTHERS = 0.01  # share of rows whose likeliest token is no letter
MANY_TIES = 0.005  # share of forwards whose two likeliest letters have the same logit
LETTER_GAP, FEWEST_FOR_GAP = 0.1, 40  # between a letter's share of answers and the expected one; rows
FEW_AGREE = 0.7  # share of rows with the same answer in every order
FAR = 3.0  # a temperature above this, or below its inverse
MOST_NAMED = 10  # rows that a warning names


def evaluate_scores(
    scores: Scores, columns: dict[str, list[str]] | None = None, target: float = 0.95, suspects: bool = False
) -> dict[str, Any] | None:
    """`measure_scores`, written to metrics.json in the folder too.

    suspects: write suspects.csv too, see `scores/suspects.py`.
    """
    metrics = measure_scores(scores, columns, target)
    if metrics is None:
        return None
    if suspects:
        warnings = metrics.pop("warnings")
        metrics |= {"suspects": write_suspects(scores, scores.answered), "warnings": warnings}
    write_json(scores.folder / "metrics.json", metrics)
    return metrics


def measure_scores(
    scores: Scores, columns: dict[str, list[str]] | None = None, target: float = 0.95
) -> dict[str, Any] | None:
    """All metrics of the rows that have an answer; None without such rows. No file is written.

    columns: further columns to group by, with a value for each row of the folder. target: accuracy that the confidence
    threshold must promise.
    """
    rows = scores.answered
    if not len(rows):
        return None
    p, y = np.exp(scores.log_p[rows]), scores.answers(rows)
    groups = {"task_type": scores.column("task_type", rows)}
    groups |= {name: [values[row] or "unknown" for row in rows] for name, values in (columns or {}).items()}
    metrics = evaluate(p, y, groups, scores.pictures(rows))
    confidence, right = np.nanmax(p, 1), (np.nanargmax(p, 1) == y).astype(float)
    metrics["risk_coverage"] = risk_coverage(confidence, right)
    metrics["selective"] = _threshold(scores, rows, confidence, right, target)
    metrics["orders"] = order_report(scores.logits)
    if circular := circular_accuracy(scores):
        metrics["circular"] = circular
    if len(scores.logits.members) > 1:
        metrics["ensemble"] = evaluate_members(scores, rows, y)
    if sets := scores.run.sets:
        in_set = scores.option_sets()[rows]
        metrics["sets"] = {
            "asked": sets.level,
            "method": sets.method,
            "covered": float(in_set[np.arange(len(y)), y].mean()),
            "mean_size": float(in_set.sum(1).mean()),
        }
    metrics["warnings"] = exposure_warnings(scores.logits.members, scores.exposed)
    return metrics


def _threshold(scores: Scores, rows: np.ndarray, confidence: np.ndarray, right: np.ndarray, target: float) -> Threshold:
    """The confidence threshold, from the rows that no member has met before: they alone are like rows to come.

    rows: (R,) labelled rows, with their confidence and whether they are right. Where rows are left out, `rows` and
    `left_out` count both kinds.
    """
    exposed = scores.exposed[rows]
    unseen = (exposed == 0).all(1)
    if unseen.all():
        return threshold_for(confidence, right, target, clusters=clusters_of(scores.pictures(rows)))
    if not unseen.any():
        names = {TRAINING: "trained", VALIDATION: "validated", CALIBRATION: "calibrated"}
        uses = [name for flag, name in names.items() if (exposed & flag).any()]
        listed = " or ".join([", ".join(uses[:-1]), uses[-1]]) if len(uses) > 1 else uses[0]
        threshold = no_threshold(target, f"every labelled row was {listed} on")
    else:
        clusters = clusters_of(scores.pictures(rows[unseen]))
        threshold = threshold_for(confidence[unseen], right[unseen], target, clusters=clusters)
    return {**threshold, "rows": int(unseen.sum()), "left_out": int((~unseen).sum())}


def evaluate_members(scores: Scores, rows: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """Metrics of each member and what it adds to the pool, how members agree, and the pool against the best member.

    rows: (R,) labelled rows. y: (R,) indices of their right options.
    """
    log_p = scores.members[:, rows]
    p, clusters = np.exp(log_p), clusters_of(scores.pictures(rows))
    settings = scores.pool or PoolSettings()
    weights = settings.weights or [1 / len(log_p)] * len(log_p)
    metrics = measure_members(p, y, clusters)
    best = int(np.argmin(np.array([values["nll"]["value"] for values in metrics], float)))
    gains = leave_one_out(log_p, y, replace(settings, weights=weights), clusters)
    return {
        "pool": asdict(replace(settings, weights=weights)),
        "members": [
            {"member": name, "weight": weight, **values, "adds": gain}
            for name, weight, values, gain in zip(scores.logits.members, weights, metrics, gains)
        ],
        "agreement": agreement(log_p),
        "best": scores.logits.members[best],
        "pool_against_best": compare(p[best], np.exp(scores.log_p[rows]), y, clusters),
    }


# ------------------------------------------------------------------ two folders
def compare_folders(first: Scores, second: Scores) -> dict[str, Any]:
    """`compare_scores`, written to FIRST/comparison.json."""
    comparison = compare_scores(first, second)
    folders = {"first": str(first.folder), "second": str(second.folder)}
    write_json(first.folder / "comparison.json", folders | comparison)
    return comparison


def compare_scores(first: Scores, second: Scores) -> dict[str, Any]:
    """Compare two folders on the rows that are scored and answered in both, by id. No file is written.

    Raises RunError where they have no such row, or different questions or answers under one id.
    """
    first_rows, second_rows = _common_rows(first, second)
    y = first.answers(first_rows)
    if (differ := first_rows[y != second.answers(second_rows)]).size:
        example = first.logits.ids[differ[0]]
        raise RunError(f"{_rows_have(differ.size)} different answers in the two folders, such as id {example!r}")
    _check_same_questions(first, first_rows, second, second_rows)
    letters = min(first.log_p.shape[1], second.log_p.shape[1])
    p = np.exp(first.log_p[first_rows][:, :letters])
    q = np.exp(second.log_p[second_rows][:, :letters])
    comparison = compare(p, q, y, clusters_of(first.pictures(first_rows)))
    comparison["only_in_one"] = len(first.answered) + len(second.answered) - 2 * len(first_rows)
    return comparison


def _common_rows(first: Scores, second: Scores) -> tuple[np.ndarray, np.ndarray]:
    """(R,) rows of each folder that are scored and answered in both. Raises RunError where there is none."""
    row_of = {second.logits.ids[row]: row for row in second.answered.tolist()}
    first_rows = [row for row in first.answered.tolist() if first.logits.ids[row] in row_of]
    if not first_rows:
        raise RunError(f"{first.folder} and {second.folder} have no scored and answered row in common (by id)")
    return np.array(first_rows), np.array([row_of[first.logits.ids[row]] for row in first_rows])


def _check_same_questions(first: Scores, first_rows: np.ndarray, second: Scores, second_rows: np.ndarray) -> None:
    """Raises RunError where rows of one id have another picture, question or options, as far as both are known."""
    known = {"picture_digest": "picture", "question": "question", "choices": "options", "options": "number of options"}
    for name, noun in known.items():
        differ = []
        for row, other in zip(first_rows.tolist(), second_rows.tolist()):
            value, other_value = first.questions[name][row], second.questions[name][other]
            if value and other_value and value != other_value:
                differ.append(row)
        if differ:
            raise RunError(
                f"{_rows_have(len(differ))} another {noun} under the same id in the two folders, such as id "
                f"{first.logits.ids[differ[0]]!r}; expected the same questions"
            )


# ------------------------------------------------------------------ calibration
def calibrate_folder(
    scores: Scores, member: int, exposed: np.ndarray, fingerprint: dict[str, Any], orders: str | None = None
) -> Calibration:
    """A calibration of one member on the folder's labelled rows that it was not trained on.

    exposed: (N,) flags that say how the member has met the rows before (`scores/exposure.py`). orders: those in which
    the member scored the rows, where they are not the folder's. Raises RunError where no row may be used.
    """
    rows = scores.answered[exposed[scores.answered] & TRAINING == 0]
    if not len(rows):
        raise RunError(
            f"{scores.folder}: found no scored row with an answer that the checkpoint was not trained on; a "
            "calibration on training rows would be far too confident. Score other labelled rows"
        )
    orders, logits = orders or scores.logits.orders, scores.logits
    pride = logits.orders == "pride"
    values = position.in_one_order(logits, member) if pride else member_logits(logits, member)
    y, clusters = scores.answers(rows), clusters_of(scores.pictures(rows))
    types = [scores.questions["task_type"][row] for row in rows]
    labelled = LabelledRows(values[rows], y, types, clusters)
    fitted = calibrate(labelled, one_order=orders == "1", fingerprint=fingerprint)
    fitted_rows = FittedRows(rows, values, scores.questions, exposed, len(scores.answered) - len(rows))
    fitted = fitted_rows.recorded_in(fitted)
    if pride:
        several = position.in_all_orders(logits)[rows]
        pictures = clusters_of(scores.pictures(rows[several]))
        labelled = LabelledRows(member_logits(logits, member)[rows][several], y[several], None, pictures)
        of_several = calibrate(labelled, one_order=False)
        fitted.all_orders = of_several.temperature if of_several.rows else None
        fitted.choice.append(f"rows shown in all orders: {of_several.choice[0]}")
    return fitted


@dataclass(frozen=True, eq=False)
class FittedRows:
    """The rows that a calibration was fitted on.

    rows: (R,) their indices. logits: (N, K), questions, exposed: (N,) of all rows. left_out: number of labelled rows
    that were left out because the checkpoint was trained on them.
    """

    rows: np.ndarray
    logits: np.ndarray
    questions: Columns
    exposed: np.ndarray
    left_out: int = 0

    def recorded_in(self, calibration: Calibration) -> Calibration:
        """The calibration with what recognises its rows, how many are validation rows, and how many were left out."""
        rows, known = self.rows, [known_by_content(self.questions, row) for row in self.rows]
        calibration = replace(
            calibration,
            digests=[self.questions["digest"][row] for row in rows],
            selected=int((self.exposed[rows] & VALIDATION > 0).sum()),
        )
        if not all(known):
            numbers = [[] if is_known else numbers_of(self.logits[row]) for row, is_known in zip(rows, known)]
            calibration = replace(calibration, numbers=numbers)
        if not self.left_out:
            return calibration
        noun, verb = ("row", "is") if self.left_out == 1 else ("rows", "are")
        note = f"{self.left_out:,} {noun} that the checkpoint was trained on {verb} left out"
        if len(rows) >= FEWEST:
            return replace(calibration, choice=[*calibration.choice, note])
        first, *others = calibration.choice
        return replace(calibration, note=f"{calibration.note}; {note}", choice=[f"{first}; {note}", *others])


def calibrate_out_of_fold(scores: Scores, fingerprint: dict[str, Any]) -> Calibration:
    """One temperature for all folds of a training, from its out-of-fold rows; it holds what their option sets need."""
    rows = scores.answered
    fitted = calibrate(
        LabelledRows(
            member_logits(scores.logits, 0)[rows], scores.answers(rows), None, clusters_of(scores.pictures(rows))
        ),
        one_order=False,
        fingerprint=fingerprint,
        temperature_only=True,
    )
    folds = scores.questions.get("fold")
    fitted.folds = [folds[row] for row in rows] if folds else []
    fitted.digests = [scores.questions["digest"][row] for row in rows]
    fitted.selected = int((scores.exposed[rows, 0] & VALIDATION > 0).sum())
    return fitted


# ------------------------------------------------------------------ orders
def order_report(logits: OptionLogits) -> list[dict[str, Any]]:
    """For each member with rows in several orders: their agreement, and the share of probability at each letter."""
    report = []
    for member, agreed in _order_agreements(logits):
        share = position.letter_share(logits, member)
        entry = {"member": logits.members[member], **asdict(agreed)}
        report.append(entry | {"letter_share": None if share is None else share.tolist()})
    return report


def _order_agreements(logits: OptionLogits) -> list[tuple[int, OrderAgreement]]:
    """Index and agreement of each member with rows in several orders."""
    agreements = [(member, position.agreement(logits, member)) for member in range(len(logits.members))]
    return [(member, agreed) for member, agreed in agreements if agreed]


# ------------------------------------------------------------------ warnings
def warnings_of(
    logits: OptionLogits,
    label_ids: list[int],
    calibrations: list[Calibration],
    answers: list[str] | None = None,
    log_p: np.ndarray | None = None,
) -> list[str]:
    """What a reader of the numbers must know, with its usual causes.

    label_ids: tokens of the letters, [] where they are not known. answers: (N,) right letters, "" where unknown. log_p:
    (N, K) of the pool.
    """
    scored = logits.scored
    if not scored.any():
        reasons = dict.fromkeys(logits.status)
        return [f"no row has a score: {'; '.join(list(reasons)[:5])}"]
    known_answers = np.array(answers or [""] * len(scored))[scored]
    warnings = [
        *_low_mass(logits, scored, label_ids),
        *_many_ties(logits, scored),
        *_preferred_letter(None if log_p is None else log_p[scored], known_answers),
        *_unlike_orders(logits),
        *_far_temperatures(logits, calibrations),
    ]
    unscored = np.flatnonzero(~scored).tolist()
    first = [(logits.ids[row], logits.status[row]) for row in unscored[:MOST_NAMED]]
    return warnings + unscored_warnings(len(unscored), first)


def unscored_warnings(count: int, first: Sequence[tuple[str, str]]) -> list[str]:
    """A warning where rows have no score. first: the ids of some, each with the reason."""
    if not count:
        return []
    named = ", ".join(f"{quoted(id)} ({reason})" for id, reason in first)
    return [f"{_rows_have(count)} no score: {named}{' …' if count > len(first) else ''}"]


def _low_mass(logits: OptionLogits, scored: np.ndarray, label_ids: list[int]) -> list[str]:
    """Letters that get little of the whole softmax, or likeliest tokens that are no letters. scored: (N,) bool."""
    if not np.isfinite(logits.label_mass[scored]).any() or not (logits.top_token[scored] >= 0).any():
        return []  # numbers from files have no label mass
    mass = float(np.nanquantile(logits.label_mass[scored], 0.05))
    tokens = logits.top_token[scored]
    others = float((~np.isin(tokens[tokens >= 0], label_ids)).mean()) if len(label_ids) else 0.0
    if mass >= LOW_MASS and others <= MANY_OTHERS:
        return []
    return [
        f"low label mass: its 5th percentile is {mass:.2f}, and in {others:.1%} of rows the likeliest token is no "
        "letter. Usual causes: a prompt other than in training (its wording, or A for a), a 'thinking' model, "
        "or a base that was not fine-tuned. Compare the template with the checkpoint's (`show`); `bench` shows "
        "what the model writes."
    ]


def _many_ties(logits: OptionLogits, scored: np.ndarray) -> list[str]:
    """Forwards whose two likeliest letters have the same logit. scored: (N,) bool."""
    best = np.sort(np.where(np.isnan(logits.logits[scored]), -np.inf, logits.logits[scored]), axis=-1)
    present = np.isfinite(best[..., -1])
    ties = float((best[..., -1] == best[..., -2])[present].mean())
    if ties <= MANY_TIES:
        return []
    return [
        f"many ties: in {ties:.1%} of forwards the two likeliest letters have the same logit. Usual causes: logits "
        "that were rounded to 16 bits, probabilities that a server rounded, or options with the same text."
    ]


def _preferred_letter(log_p: np.ndarray | None, answers: np.ndarray) -> list[str]:
    """A letter that is answered more often than it is right, or than 1 in K where answers are not known.

    log_p: (R, K) of the pool, None where it is not known. answers: (R,) right letters, or "".
    """
    if log_p is None:
        return []
    full = np.isfinite(log_p).all(1)
    if full.sum() < FEWEST_FOR_GAP:
        return []
    count = log_p.shape[1]
    given = np.bincount(log_p[full].argmax(1), minlength=count) / full.sum()
    expected, than = np.full(count, 1 / count), f"1 in {count}"
    if (answers[full] != "").all():
        expected = np.array([(answers[full] == letter).mean() for letter in LETTERS[:count]])
        than = "it is right"
    letter = int((given - expected).argmax())
    share, expected_share = given[letter], expected[letter]
    if share - expected_share < max(LETTER_GAP, 4 * np.sqrt(expected_share * (1 - expected_share) / full.sum())):
        return []
    return [
        f"one letter preferred: {LETTERS[letter]} is answered in {share:.0%} of rows, more often than {than} "
        f"({expected_share:.0%}). Usual causes: training data whose answers were not balanced, or a base that prefers "
        "a letter. `--orders cyclic` averages it out."
    ]


def _unlike_orders(logits: OptionLogits) -> list[str]:
    """Members whose answers depend on the order of the options."""
    return [
        f"orders disagree: {logits.members[member]} gives the same answer in every option order in "
        f"{agreed.all_agree:.0%} of {agreed.rows:,} rows; another order changes {agreed.changed_by_another:.0%} of its "
        "answers. One order alone would not be worth much here; the results are averages over the orders."
        for member, agreed in _order_agreements(logits)
        if agreed.all_agree < FEW_AGREE
    ]


def _far_temperatures(logits: OptionLogits, calibrations: list[Calibration]) -> list[str]:
    """Members whose temperature is far from 1."""
    return [
        f"{member}: its temperature is {calibration.temperature:.2f}, far from 1. Usual causes: trained for too long "
        "(over 1) or hardly at all (under 1), or fitted on rows that are not like these."
        for member, calibration in zip(logits.members, calibrations)
        if not 1 / FAR <= calibration.temperature <= FAR
    ]


def exposure_warnings(members: Sequence[str], exposed: np.ndarray) -> list[str]:
    """For each member the number of rows that it has met before it scored them, and what that means for metrics.

    exposed: (N, M) flags, see `scores/exposure.py`. A row of the training counts as that alone.
    """
    warnings = []
    for member, flags in zip(members, exposed.T):
        new = flags & TRAINING == 0
        for met, text in (
            (~new, "were in the training of {}: metrics of these rows say nothing about new ones"),
            (
                new & (flags & VALIDATION > 0),
                "are validation rows of {}: its epoch was chosen on them, so metrics of these rows flatter it",
            ),
            (
                new & (flags & CALIBRATION > 0),
                "are those that the calibration of {} was fitted on; its gain on them is not what others get",
            ),
        ):
            if count := int(met.sum()):
                warnings.append(f"{count:,} of {len(flags):,} rows {text.format(member)}")
    return warnings


def _rows_have(count: int) -> str:
    """The beginning of a message, such as "1 row has" or "2 rows have"."""
    return f"{count:,} {'row has' if count == 1 else 'rows have'}"
