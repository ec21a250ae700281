"""Tables of metrics, comparisons and benchmarks, built once for the terminal and the page.

A builder makes a `Table` of text cells from a record of metrics.json or comparison.json, or from bench.json. `to_text`
lays tables out for the terminal; the page's template (`assets/report.html`) shows the same cells as HTML.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from scoring.errors import quoted
from scoring.report.records import (
    NO_VALUE,
    Bench,
    BenchWay,
    CircularAccuracy,
    Comparison,
    Details,
    Estimate,
    Gain,
    Group,
    LabelCheck,
    Member,
    Metrics,
    OrderAgreement,
    SetCoverage,
    Threshold,
    number,
    read_record,
)


@dataclass(frozen=True)
class Table:
    """header and rows: cells of text, the first of each row its name. notes: sentences below it.

    warnings: what a reader must know; the terminal prints them last, the page shows them at its top. title and legend
    (what the columns mean): for the page alone.
    """

    title: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    legend: str = ""


def to_text(*tables: Table) -> str:
    """The tables one below the other, then their notes and warnings, a line each."""
    lines = [line for table in tables for line in table.notes]
    lines += [f"warning: {line}" for table in tables for line in table.warnings]
    return "\n\n".join([*map(_grid, tables), *(["\n".join(lines)] if lines else [])])


def _grid(table: Table) -> str:
    """Header, rule and rows in columns: the first to the left, the others to the right."""
    rows = [table.header, *table.rows]
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    return "\n".join([lines[0], "─" * len(lines[0]), *lines[1:]])


# ------------------------------------------------------------------ metrics
def metrics_table(metrics: Metrics) -> Table:
    """Metrics of all rows, by task type, and by the columns that `evaluate --by` named."""
    rows = [_group_row("all", metrics.overall)]
    for column, groups in metrics.by.items():
        prefix = "" if column == "task_type" else f"{column}: "
        rows += [_group_row(prefix + name, group) for name, group in groups.items()]
    title = f"By {', '.join(column.replace('_', ' ') for column in metrics.by)}" if metrics.by else "All rows"
    return Table(title, ["", "rows", "accuracy", "95 %", "NLL", "Brier", "ECE", "noise floor"], rows)


def _group_row(name: str, group: Group) -> list[str]:
    return [
        name,
        f"{group.rows:,}",
        group.accuracy.text(),
        group.accuracy.interval(),
        group.nll.text(),
        group.brier.text(),
        group.ece.text(),
        f"{group.ece.floor_mean:.3f} (≤ {group.ece.floor_95:.3f})",
    ]


def details_table(details: Details) -> Table:
    """Further metrics of all rows, and CircularEval where the run has every cyclic order.

    In its notes: the confidence threshold, option orders, rows that CircularEval leaves out, sets, suspicious labels.
    """
    overall = details.overall
    rows = [
        _estimate_row("NLL", overall.nll),
        _estimate_row("Brier score", overall.brier),
        _estimate_row("ECE, 15 bins of equal mass", overall.ece),
        _estimate_row("RMS calibration error, debiased", overall.rms_calibration_error),
        _estimate_row("smooth ECE", overall.smooth_ece),
        _estimate_row("class-wise ECE", overall.classwise_ece),
        _estimate_row("AUROC of confidence", overall.auroc),
        _estimate_row("area under risk–coverage", overall.aurc),
        _estimate_row("spread of recall over letters", overall.recall_std),
    ]
    notes = [threshold_note(details.selective), *map(_order_note, details.orders)]
    if details.circular:
        rows.append(_circular_row(details.circular))
        notes += _circular_notes(details.circular)
    if details.sets:
        notes.append(_sets_note(details.sets))
    if details.suspects:
        notes.append(_labels_note(details.suspects))
    return Table("Further metrics", ["all rows", "", "95 %"], rows, notes)


def _estimate_row(name: str, estimate: Estimate) -> list[str]:
    if estimate.value is None:
        return [name, NO_VALUE, "all right, or all wrong"]
    return [name, estimate.text(".4f"), estimate.interval(".4f")]


def threshold_note(chosen: Threshold) -> str:
    """What a confidence threshold promises, or why none does."""
    if chosen.reason:
        return f"No confidence threshold is promised: {chosen.reason}. Evaluate rows that no member has met."
    rows = f"the {chosen.rows:,} rows that no member has met" if chosen.left_out else "the rows"
    if chosen.threshold is None:
        rows = f"{rows} ({chosen.left_out:,} are left out)" if chosen.left_out else "so many rows"
        return f"No confidence threshold can promise {chosen.wanted:.0%} right on {rows}."
    return (
        f"Answers with a probability of {chosen.threshold:.2f} or more are right in {chosen.accuracy:.1%} "
        f"(at least {chosen.bound:.1%}, with 95 % certainty): {chosen.coverage:.0%} of {rows}."
    )


def _order_note(orders: OrderAgreement) -> str:
    share = orders.letter_share
    letters = f"; probability by letter {' '.join(f'{value:.2f}' for value in share)}" if share else ""
    return (
        f"{orders.member}: {orders.all_agree:.0%} of rows have one answer in all their orders, another order "
        f"changes {orders.changed_by_another:.0%} of answers{letters}"
    )


def _circular_row(circular: CircularAccuracy) -> list[str]:
    interval = "no row has them all" if circular.value is None else circular.interval(".4f")
    return ["CircularEval: right in every cyclic order", circular.text(".4f"), interval]


def _circular_notes(circular: CircularAccuracy) -> list[str]:
    """Where rows are left out, how many, and between which values the share would be with them."""
    fewer, right = circular.fewer_orders, circular.right_in_fewer
    if not fewer:
        return []
    rows_have = "row has" if fewer == 1 else "rows have"
    total, all_right = circular.rows + fewer, (circular.value or 0) * circular.rows
    return [
        f"CircularEval is of {circular.rows:,} rows: {fewer:,} {rows_have} fewer orders, {right:,} of them right in "
        f"these. Shown in every order too, they would make it {all_right / total:.4f} to "
        f"{(all_right + right) / total:.4f}."
    ]


def _sets_note(sets: SetCoverage) -> str:
    return (
        f"Sets asked to hold the right option in {sets.asked:.0%}: they do in {sets.covered:.1%}, with "
        f"{sets.mean_size:.2f} options on average."
    )


def _labels_note(check: LabelCheck) -> str:
    if not check.file:
        return f"Labels are not checked: {check.reason}."
    left_out = ""
    if check.left_out:
        rows_are = "rows of the training are" if check.left_out > 1 else "row of the training is"
        left_out = f"; {check.left_out:,} {rows_are} left out"
    if not check.flagged or check.first is None:
        return f"No label looks wrong; the least credible ones are in {check.file}{left_out}."
    many = ""
    if 10 * check.flagged > check.rows:
        many = f"; so many of {check.rows:,} rows suggest a weak model rather than wrong labels"
    labels_look, them = ("label looks", "it") if check.flagged == 1 else ("labels look", "them")
    return (
        f"At most {check.flagged:,} {labels_look} wrong; look at {them} in {check.file}, first: {check.first.id} "
        f"(labelled {check.first.answer}, the model says {check.first.pred} with {check.first.p_pred:.2f})"
        f"{many}{left_out}."
    )


# ------------------------------------------------------------------ ensembles
def members_table(metrics: Metrics) -> Table:
    """Members and pool of an ensemble, what each member adds, and how the pool compares with the best of them.

    Raises ValueError for the metrics of one member.
    """
    from scoring.stats.comparison import verdict  # with SciPy, which the command line does not wait for

    ensemble = metrics.ensemble
    if ensemble is None:
        raise ValueError("metrics of one member; expected those of an ensemble")
    header = ["member", "weight", "accuracy", "95 %", "NLL", "ECE", "adds to the pool: accuracy", "NLL"]
    rows = [
        [member.member, f"{member.weight:.2f}", *_accuracy_nll_ece(member), *_gain_cells(member.adds)]
        for member in ensemble.members
    ]
    rows.append([f"pool ({ensemble.pool.kind})", "", *_accuracy_nll_ece(metrics.overall), "", ""])
    kappa, names = ensemble.agreement.fleiss_kappa, (ensemble.best, "the pool")
    notes = [
        f"All members give the same answer in {ensemble.agreement.all_agree:.0%} of rows"
        + (f"; Fleiss' kappa {kappa:.2f}." if kappa is not None else "."),
        f"The pool against its best member, {ensemble.best}: {verdict(asdict(ensemble.pool_against_best), names)}.",
    ]
    notes += [
        f"{member.member} hurts: without it the pool's NLL is {member.adds.nll_change:.4f} lower. Leave it out."
        for member in ensemble.members
        if member.adds.hurts
    ]
    return Table("Members", header, rows, notes)


def _accuracy_nll_ece(measured: Group | Member) -> list[str]:
    ece = f"{measured.ece.text()} (≤ {measured.ece.floor_95:.3f})"
    return [measured.accuracy.text(), measured.accuracy.interval(), measured.nll.text(), ece]


def _gain_cells(gain: Gain) -> list[str]:
    return [f"{gain.accuracy:+.4f}", f"{gain.nll_change:+.4f} ± {gain.error:.4f}"]


# ------------------------------------------------------------------ comparisons
def comparison_table(comparison: Comparison, names: tuple[str, str]) -> Table:
    """Two systems on the same rows, and in words which is better. names: of the systems."""
    from scoring.stats.comparison import verdict

    accuracy, nll = comparison.accuracy, comparison.nll
    gain, change = accuracy.difference, nll.difference
    rows = [
        [names[0], f"{accuracy.first:.4f}", f"{nll.first:.4f}"],
        [names[1], f"{accuracy.second:.4f}", f"{nll.second:.4f}"],
        ["difference", number(gain.value, "+.4f"), number(change.value, "+.4f")],
        ["  95 %, from", number(gain.low, "+.4f"), number(change.low, "+.4f")],
        ["  to", number(gain.high, "+.4f"), number(change.high, "+.4f")],
        ["smallest effect seen 4 times in 5", f"{accuracy.smallest:.4f}", f"{nll.smallest:.4f}"],
    ]
    rows_are = "row is" if comparison.only_in_one == 1 else "rows are"
    not_shared = f"; {comparison.only_in_one:,} {rows_are} in only one of them" if comparison.only_in_one else ""
    note = (
        f"{comparison.rows:,} rows in both{not_shared}. Only the first is right in {accuracy.only_first:,}, "
        f"only the second in {accuracy.only_second:,}: exact McNemar p = {accuracy.mcnemar_p:.2g}. "
        f"So {verdict(asdict(comparison), names)}."
    )
    return Table("Comparison", ["", "accuracy", "NLL"], rows, [note])


# ------------------------------------------------------------------ benchmarks
def bench_tables(values: dict[str, Any]) -> list[Table]:
    """Speed and cost of each way of a benchmark, and its answers. values: bench.json."""
    bench = read_record(Bench, values)
    return [_speed_table(bench, values), _answers_table(bench)]


def _speed_table(bench: Bench, values: dict[str, Any]) -> Table:
    from scoring.benchmark.summary import batch_sizes_text, batch_text, first_run_text, like_for_like_text

    ways = values["ways"]
    header = ["", "weights", "batch", "rows/s", "ratio", "s a row, p50", "p95", "GPU GiB", "host GiB", "J a row"]
    rows = [
        [
            way.title,
            way.weights or NO_VALUE,
            batch_text(ways[name]),
            f"{way.rows_per_second:.1f}",
            way.ratio_text,
            f"{way.seconds_per_row.p50:.3f}",
            f"{way.seconds_per_row.p95:.3f}",
            number(way.peak_device_bytes, ".2f", unit=2**30),
            number(way.peak_host_bytes, ".2f", unit=2**30),
            number(way.joules_per_row, ".2f"),
        ]
        for name, way in bench.ways.items()
    ]
    notes = [
        _cost_note(bench.ways, bench.price_per_hour),
        like_for_like_text(ways),
        first_run_text(values.get("first_run"), ways),
        batch_sizes_text(ways),
    ]
    return Table(
        "Speed and cost",
        *_without_empty_columns(header, rows),
        notes=[note for note in notes if note],
        legend="In batches, a row's seconds are its share of the batch's. Host memory is that of the whole process.",
    )


def _answers_table(bench: Bench) -> Table:
    header = ["", "accuracy", "95 %", "NLL", "no letter", 'else "a"', "not engine's", "McNemar p"]
    notes, warnings = [], []
    if check := bench.first_token:
        notes.append(
            f"In {check.top_is_a_label:,} of {check.rows:,} rows the likeliest token is a letter; generation "
            f"starts with another one in {len(check.violations)} of them (0 expected)."
        )
    if check and check.others:
        texts = ", ".join(f"{quoted(text)} ({rows:,})" for text, rows in check.others.items())
        notes.append(f"Where it is no letter, the texts begin with {texts}.")
    if unsteady := [f"{name} {way.unsteady}" for name, way in bench.ways.items() if way.unsteady]:
        warnings.append(f"letters that changed between repeats: {', '.join(unsteady)}")
    return Table("Answers", header, [_answers_row(way) for way in bench.ways.values()], notes, warnings)


def _answers_row(way: BenchWay) -> list[str]:
    other = way.against_engine
    return [
        way.title,
        way.accuracy.text() if way.accuracy else NO_VALUE,
        way.accuracy.interval() if way.accuracy else NO_VALUE,
        way.nll.text() if way.nll else NO_VALUE,
        f"{way.unanswered:,}",
        f"{way.fallbacks:,}",
        f"{len(other.differ):,}" if other else "",
        number(other.mcnemar_p, ".2g") if other else "",
    ]


def _without_empty_columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows without the columns that have no value in any row."""
    filled = [any(cell not in ("", NO_VALUE) for cell in column) for column in zip(*rows)]
    first, *others = [[cell for cell, keep in zip(row, filled) if keep] for row in (header, *rows)]
    return first, others


def _cost_note(ways: dict[str, BenchWay], price: float | None) -> str:
    from scoring.benchmark.summary import ASKED

    known = {name: way.cost.money is not None if name == ASKED else price for name, way in ways.items()}
    costs = [
        f"{name} {way.cost.duration}" + (f" ({number(way.cost.money, '.2f')})" if known[name] else "")
        for name, way in ways.items()
    ]
    rows = next(iter(ways.values())).cost.rows
    return f"{rows:,} rows take{f', at {price:g} an hour' if price else ''}: {', '.join(costs)}."
