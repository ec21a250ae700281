"""What a SCORES folder is worth: metrics, comparison, calibration and warnings, from its files alone."""

from collections.abc import Sequence

import numpy as np

from scoring.errors import quoted
from scoring.files.writing import write_json
from scoring.inputs.prompt import LETTERS
from scoring.scores import position
from scoring.scores.exposure import CALIBRATION, TRAINING, VALIDATION, known_by_content, numbers_of
from scoring.scores.folder import RunError, Scores
from scoring.scores.logits import OptionLogits
from scoring.scores.probabilities import member_logits
from scoring.scores.suspects import write_suspects
from scoring.stats import comparison as comparing
from scoring.stats.calibration import FEWEST, Calibration, LabelledRows, calibrate
from scoring.stats.metrics import evaluate, measure_members
from scoring.stats.pools import PoolSettings, agreement, leave_one_out
from scoring.stats.resampling import clusters_of
from scoring.stats.selective import no_threshold, risk_coverage, threshold_for

LOW_MASS, MANY_OTHERS, MANY_TIES, FEW_AGREE = 0.9, 0.01, 0.005, 0.7
LETTER_GAP = 0.1  # between a letter's share of answers and what it should be
FAR = 3.0  # a temperature past this, or under its inverse


def judge(
    scores: Scores, by: dict[str, list[str]] | None = None, wanted: float = 0.95, suspects: bool = False
) -> dict | None:
    """All metrics of the rows that have an answer, also into metrics.json; None where there is none.

    by: further columns to group by, a value for each row of the folder. wanted: accuracy that a threshold must promise.
    suspects: write suspects.csv too, see `scores/suspects.py`.
    """
    rows = scores.answered
    if not len(rows):
        return None
    p, y = np.exp(scores.log_p[rows]), scores.answers(rows)
    columns = {"task_type": scores.column("task_type", rows)}
    columns |= {name: [values[row] or "unknown" for row in rows] for name, values in (by or {}).items()}
    metrics = evaluate(p, y, columns, scores.pictures(rows))
    confidence, right = np.nanmax(p, 1), (np.nanargmax(p, 1) == y).astype(float)
    metrics["risk_coverage"] = risk_coverage(confidence, right)
    metrics["selective"] = _threshold(scores, rows, confidence, right, wanted)
    metrics["orders"] = order_report(scores.logits)
    if len(scores.logits.members) > 1:
        metrics["ensemble"] = judge_members(scores, rows, y)
    if sets := scores.about.get("sets"):
        held = scores.held()[rows]
        metrics["sets"] = {
            "asked": sets["level"],
            "method": sets.get("method", "lac"),
            "covered": float(held[np.arange(len(y)), y].mean()),
            "mean_size": float(held.sum(1).mean()),
        }
    if suspects:
        metrics["suspects"] = write_suspects(scores, rows)
    metrics["warnings"] = exposure_warnings(scores.logits.members, scores.exposed)
    write_json(scores.folder / "metrics.json", metrics)
    return metrics


def _threshold(scores: Scores, rows: np.ndarray, confidence: np.ndarray, right: np.ndarray, wanted: float) -> dict:
    """`threshold_for` of the rows that no member has met, which alone are like rows to come; `left_out`, how many are.

    rows: (R,) labelled ones, with their confidence and whether they are right.
    """
    met = scores.exposed[rows]
    unseen = (met == 0).all(1)
    if unseen.all():
        return threshold_for(confidence, right, wanted, clusters=clusters_of(scores.pictures(rows)))
    left_out = {"rows": int(unseen.sum()), "left_out": int((~unseen).sum())}
    if not unseen.any():
        names = {TRAINING: "trained", VALIDATION: "validated", CALIBRATION: "calibrated"}
        ways = [name for flag, name in names.items() if (met & flag).any()]
        how = " or ".join([", ".join(ways[:-1]), ways[-1]]) if len(ways) > 1 else ways[0]
        return no_threshold(wanted, f"every labelled row was {how} on") | left_out
    clusters = clusters_of(scores.pictures(rows[unseen]))
    return threshold_for(confidence[unseen], right[unseen], wanted, clusters=clusters) | left_out


def judge_members(scores: Scores, rows: np.ndarray, y: np.ndarray) -> dict:
    """Each member and the pool, what each member adds, how they agree, and the pool against the best member."""
    log_p = scores.members[:, rows]
    p, how = np.exp(log_p), {"kind": "log", "weights": [1 / len(log_p)] * len(log_p), "temperature": 1.0} | scores.how
    clusters = clusters_of(scores.pictures(rows))
    found = measure_members(p, y, clusters)
    best = int(np.argmin([part["nll"]["value"] for part in found]))
    added = leave_one_out(log_p, y, PoolSettings(how["kind"], list(how["weights"]), how["temperature"]), clusters)
    return {
        "pool": how,
        "members": [
            {"member": name, "weight": weight, **part, "adds": gain}
            for name, weight, part, gain in zip(scores.logits.members, how["weights"], found, added)
        ],
        "agreement": agreement(log_p),
        "best": scores.logits.members[best],
        "pool_against_best": comparing.compare(p[best], np.exp(scores.log_p[rows]), y, clusters),
    }


def compare_folders(first: Scores, second: Scores) -> dict:
    """Both on the rows that both have scored and that have an answer, by id; also into FIRST/comparison.json."""
    place = {id: row for row, id in enumerate(second.logits.ids)}
    have = set(second.answered.tolist())
    pairs = [(row, place[id]) for row in first.answered if (id := first.logits.ids[row]) in place and place[id] in have]
    if not pairs:
        raise RunError(f"{first.folder} and {second.folder} have no scored and answered row in common (by id)")
    ours, theirs = map(np.array, zip(*pairs))
    y = first.answers(ours)
    if (other := np.flatnonzero(y != second.answers(theirs))).size:
        row = ours[other[0]]
        raise RunError(
            f"{_rows_have(other.size)} different answers in the two folders, such as id {first.logits.ids[row]!r}"
        )
    for name, what in (("picture_digest", "picture"), ("question", "question"), ("choices", "options")):
        mine, its = first.questions[name], second.questions[name]
        if differ := [row for row, at in pairs if mine[row] and its[at] and mine[row] != its[at]]:
            raise RunError(
                f"{_rows_have(len(differ))} another {what} under the same id in the two folders, such as id "
                f"{first.logits.ids[differ[0]]!r}; expected the same questions"
            )
    letters = min(first.log_p.shape[1], second.log_p.shape[1])
    p, q = (np.exp(scores.log_p[rows][:, :letters]) for scores, rows in ((first, ours), (second, theirs)))
    found = comparing.compare(p, q, y, clusters_of(first.pictures(ours)))
    found["only_in_one"] = len(first.answered) + len(second.answered) - 2 * len(pairs)
    write_json(first.folder / "comparison.json", {"first": str(first.folder), "second": str(second.folder)} | found)
    return found


def calibrate_folder(
    scores: Scores, member: int, exposed: np.ndarray, fingerprint: dict, orders: str | None = None
) -> Calibration:
    """A calibration of one member on the folder's labelled rows that it was not trained on.

    exposed: (N,) how the member has met the rows before (`scores/exposure.py`). orders: in which the member was shown
    the options, where that is not the folder's. Raises RunError where no row may be used.
    """
    rows = scores.answered[exposed[scores.answered] & TRAINING == 0]
    if not len(rows):
        raise RunError(
            f"{scores.folder}: no scored row with an answer that the checkpoint was not trained on; a calibration on "
            "rows of its training would be far too sure of itself. Score other labelled rows"
        )
    orders, logits = orders or scores.logits.orders, scores.logits
    pride = logits.orders == "pride"
    values = position.in_one_order(logits, member) if pride else member_logits(logits, member)
    y, clusters = scores.answers(rows), clusters_of(scores.pictures(rows))
    types = [scores.questions["task_type"][row] for row in rows]
    fitted = calibrate(LabelledRows(values[rows], y, types, clusters), one_order=orders == "1", fingerprint=fingerprint)
    note_rows(fitted, rows, values, scores.questions, exposed, len(scores.answered) - len(rows))
    if pride:
        shown = position.in_all_orders(logits)[rows]
        several = calibrate(
            LabelledRows(
                member_logits(logits, member)[rows][shown], y[shown], None, clusters_of(scores.pictures(rows[shown]))
            ),
            one_order=False,
        )
        fitted.all_orders = several.temperature if several.rows else None
        fitted.choice.append(f"rows shown in all orders: {several.choice[0]}")
    return fitted


def note_rows(
    fitted: Calibration,
    rows: np.ndarray,
    logits: np.ndarray,
    questions: dict[str, list],
    exposed: np.ndarray,
    left: int = 0,
) -> None:
    """Into a calibration: which rows it was fitted on, how many of them are validation rows, how many were left out.

    rows: (R,) those of the fit. logits: (N, K), questions, exposed: (N,) of all rows. left: labelled rows that the
    checkpoint was trained on.
    """
    fitted.digests = [questions["digest"][row] for row in rows]
    if not all(known_by_content(questions, row) for row in rows):
        fitted.numbers = [[] if known_by_content(questions, row) else numbers_of(logits[row]) for row in rows]
    fitted.selected = int((exposed[rows] & VALIDATION > 0).sum())
    if not left:
        return
    rows_are = ("row", "is") if left == 1 else ("rows", "are")
    left_out = "{:,} {} that the checkpoint was trained on {} left out".format(left, *rows_are)
    if len(rows) < FEWEST:
        fitted.note += f"; {left_out}"
        fitted.choice[0] += f"; {left_out}"
    else:
        fitted.choice.append(left_out)


def _rows_have(count: int) -> str:
    return f"{count:,} {'row has' if count == 1 else 'rows have'}"


def calibrate_out_of_fold(scores: Scores, fingerprint: dict) -> Calibration:
    """One temperature of all folds of a training, from its out-of-fold rows, with what sets of the folds' pool need."""
    rows = scores.answered
    fitted = calibrate(
        LabelledRows(
            member_logits(scores.logits, 0)[rows], scores.answers(rows), None, clusters_of(scores.pictures(rows))
        ),
        one_order=False,
        fingerprint=fingerprint,
        more=False,
    )
    folds = scores.questions.get("fold")
    fitted.folds = [folds[row] for row in rows] if folds else []
    fitted.digests = [scores.questions["digest"][row] for row in rows]
    fitted.selected = int((scores.exposed[rows, 0] & VALIDATION > 0).sum())
    return fitted


def order_report(logits: OptionLogits) -> list[dict]:
    """For each member that saw rows in several orders: agreement, and the share of probability at each letter."""
    found = []
    for at, member in enumerate(logits.members):
        if agreed := position.agreement(logits, at):
            share = position.letter_share(logits, at)
            found.append({"member": member, **agreed, "letter_share": None if share is None else share.tolist()})
    return found


# ------------------------------------------------------------------ warnings
def warnings_of(
    logits: OptionLogits,
    label_ids: list[int],
    calibrations: list[Calibration],
    answers: list[str] | None = None,
    log_p: np.ndarray | None = None,
) -> list[str]:
    """What a reader of the numbers must know, with its usual cause."""
    scored = logits.scored
    if not scored.any():
        reasons = dict.fromkeys(logits.status)
        return [f"no row has a score: {'; '.join(list(reasons)[:5])}"]
    warnings = [
        *_mass(logits, scored, label_ids),
        *_ties(logits, scored),
        *_letters(log_p[scored] if log_p is not None else None, np.array(answers or [""] * len(scored))[scored]),
        *_orders(logits),
        *_temperatures(logits, calibrations),
    ]
    if unscored := np.flatnonzero(~scored).tolist():
        named = ", ".join(f"{quoted(logits.ids[row])} ({logits.status[row]})" for row in unscored[:10])
        warnings.append(f"{_rows_have(len(unscored))} no score: {named}{' …' if len(unscored) > 10 else ''}")
    return warnings


def _mass(logits: OptionLogits, scored: np.ndarray, label_ids: list[int]) -> list[str]:
    if not np.isfinite(logits.label_mass[scored]).any() or not (logits.top_token[scored] >= 0).any():
        return []  # of numbers from files
    mass = float(np.nanquantile(logits.label_mass[scored], 0.05))
    tokens = logits.top_token[scored]
    others = float((~np.isin(tokens[tokens >= 0], label_ids)).mean())
    if mass >= LOW_MASS and others <= MANY_OTHERS:
        return []
    return [
        f"low label mass: its 5th percentile is {mass:.2f}, and in {others:.1%} of rows the likeliest token is no "
        "letter. Usual causes: a prompt other than in training, a 'thinking' model, or a base that was not "
        "fine-tuned. Compare the template with the checkpoint's (`show`)."
    ]


def _ties(logits: OptionLogits, scored: np.ndarray) -> list[str]:
    best = np.sort(np.where(np.isnan(logits.logits[scored]), -np.inf, logits.logits[scored]), axis=-1)
    there = np.isfinite(best[..., -1])
    ties = float((best[..., -1] == best[..., -2])[there].mean())
    if ties <= MANY_TIES:
        return []
    return [
        f"many ties: in {ties:.1%} of forwards the two likeliest letters have the same logit. Usual causes: logits "
        "that were rounded to 16 bits, or options with the same text."
    ]


def _letters(log_p: np.ndarray | None, answers: np.ndarray) -> list[str]:
    """One letter answered more often than it is right, or than 1 in K where answers are not known."""
    if log_p is None:
        return []
    full = np.isfinite(log_p).all(1)
    if full.sum() < 40:
        return []
    count = log_p.shape[1]
    given = np.bincount(log_p[full].argmax(1), minlength=count) / full.sum()
    known = answers[full] != ""
    expected, than = np.full(count, 1 / count), f"1 in {count}"
    if known.all():
        expected = np.array([(answers[full] == letter).mean() for letter in LETTERS[:count]])
        than = "it is right"
    at = int((given - expected).argmax())
    gap = given[at] - expected[at]
    if gap < max(LETTER_GAP, 4 * np.sqrt(expected[at] * (1 - expected[at]) / full.sum())):
        return []
    return [
        f"one letter preferred: {LETTERS[at]} is answered in {given[at]:.0%} of rows, more often than {than} "
        f"({expected[at]:.0%}). Usual causes: training data whose answers were not balanced, or a base that leans on a "
        "letter. `--orders cyclic` averages it out."
    ]


def _orders(logits: OptionLogits) -> list[str]:
    return [
        f"orders disagree: {found['member']} gives the same answer in every option order in {found['all_agree']:.0%} "
        f"of {found['rows']:,} rows; another order changes {found['changed_by_another']:.0%} of its answers. One order "
        "alone would not be worth much here; their average is what is written."
        for found in order_report(logits)
        if found["all_agree"] < FEW_AGREE
    ]


def _temperatures(logits: OptionLogits, calibrations: list[Calibration]) -> list[str]:
    return [
        f"{member}: its temperature is {found.temperature:.2f}, far from 1. Usual causes: trained for too long (over "
        "1) or hardly at all (under 1), or fitted on rows that are not like these."
        for member, found in zip(logits.members, calibrations)
        if not 1 / FAR <= found.temperature <= FAR
    ]


def exposure_warnings(members: Sequence[str], exposed: np.ndarray) -> list[str]:
    """For each member, rows among those scored that it has met before. exposed: (N, M), see `scores/exposure.py`."""
    warnings = []
    for member, flags in zip(members, exposed.T):
        for flag, text in (
            (TRAINING, "were in the training of {}: metrics of these rows say nothing about new ones"),
            (
                VALIDATION,
                "are validation rows of {}: its epoch was chosen on them, so metrics of these rows flatter it",
            ),
            (
                CALIBRATION,
                "are those that the calibration of {} was fitted on; its gain on them is not what others get",
            ),
        ):
            met = (flags & flag > 0) & (flag == TRAINING or flags & TRAINING == 0)
            if count := int(met.sum()):
                warnings.append(f"{count:,} of {len(flags):,} rows {text.format(member)}")
    return warnings
