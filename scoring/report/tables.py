"""Metrics, comparisons and benchmarks as tables for the terminal."""


def table_of(metrics: dict) -> str:
    """Metrics as a terminal table: overall, by task type, and by whatever else was asked for."""
    rows = [("", "rows", "accuracy", "95 %", "NLL", "Brier", "ECE", "noise floor")]
    groups = [("all", metrics["overall"])]
    for column, found in metrics.get("by", {}).items():
        prefix = "" if column == "task_type" else f"{column}: "
        groups += [(prefix + name, group) for name, group in found.items()]
    for name, group in groups:
        accuracy, error = group["accuracy"], group["ece"]
        rows.append(
            (
                name,
                f"{group['rows']:,}",
                f"{accuracy['value']:.3f}",
                f"{accuracy['low']:.3f} – {accuracy['high']:.3f}",
                f"{group['nll']['value']:.3f}",
                f"{group['brier']['value']:.3f}",
                f"{error['value']:.3f}",
                f"{error['floor_mean']:.3f} (≤ {error['floor_95']:.3f})",
            )
        )
    return _table(rows)


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width) for at, (cell, width) in enumerate(zip(row, widths))
        )
        for row in rows
    ]
    return "\n".join([lines[0], "─" * len(lines[0]), *lines[1:]])


FIGURES = {
    "nll": "NLL",
    "brier": "Brier score",
    "ece": "ECE, 15 bins of equal mass",
    "rms_calibration_error": "RMS calibration error, debiased",
    "smooth_ece": "smooth ECE",
    "classwise_ece": "class-wise ECE",
    "auroc": "AUROC of confidence",
    "aurc": "area under risk–coverage",
    "recall_std": "spread of recall over letters",
}


def details_of(metrics: dict) -> str:
    """The other figures of all rows, and what they allow to be answered."""
    overall, rows = metrics["overall"], [("all rows", "", "95 %")]
    for name, told_as in FIGURES.items():
        found = overall[name]
        if found["value"] is None:
            rows.append((told_as, "–", "all right, or all wrong"))
        else:
            rows.append((told_as, f"{found['value']:.4f}", f"{found['low']:.4f} – {found['high']:.4f}"))
    lines = [_table(rows), ""]
    chosen = metrics["selective"]
    lines.append(_threshold_line(chosen))
    for found in metrics.get("orders", []):
        share = found["letter_share"]
        letters = f"; probability by letter {' '.join(f'{part:.2f}' for part in share)}" if share else ""
        lines.append(
            f"{found['member']}: {found['all_agree']:.0%} of rows have one answer in all their orders, another order "
            f"changes {found['changed_by_another']:.0%} of answers{letters}"
        )
    if sets := metrics.get("sets"):
        lines.append(
            f"Sets asked to hold the right option in {sets['asked']:.0%}: they do in {sets['covered']:.1%}, with "
            f"{sets['mean_size']:.2f} options on average."
        )
    if suspects := metrics.get("suspects"):
        lines.append(_suspects_line(suspects))
    return "\n".join(lines)


def _threshold_line(chosen: dict) -> str:
    if "reason" in chosen:
        return f"No confidence threshold is promised: {chosen['reason']}. Evaluate rows that no member has met."
    left_out = chosen.get("left_out", 0)
    rows = f"the {chosen['rows']:,} rows that no member has met" if left_out else "the rows"
    if chosen["threshold"] is None:
        many = f"{rows} ({left_out:,} are left out)" if left_out else "so many rows"
        return f"No confidence threshold can promise {chosen['wanted']:.0%} right on {many}."
    return (
        f"Answers with a probability of {chosen['threshold']:.2f} or more are right in {chosen['accuracy']:.1%} "
        f"(at least {chosen['bound']:.1%}, with 95 % certainty): {chosen['coverage']:.0%} of {rows}."
    )


def _suspects_line(suspects: dict) -> str:
    if not suspects["file"]:
        return f"Labels are not checked: {suspects['reason']}."
    count, first, rows = suspects["flagged"], suspects["first"], suspects["rows"]
    left_out, trained = "", suspects["left_out"]
    if trained:
        left_out = f"; {trained:,} {'rows of the training are' if trained > 1 else 'row of the training is'} left out"
    if not count:
        return f"No label looks wrong; the least credible ones are in {suspects['file']}{left_out}."
    many = f"; so many of {rows:,} rows speak of a weak model rather than of wrong labels" if 10 * count > rows else ""
    return (
        f"At most {count:,} {'label looks' if count == 1 else 'labels look'} wrong; look at "
        f"{'it' if count == 1 else 'them'} in {suspects['file']}, first: {first['id']} (labelled {first['answer']}, "
        f"the model says {first['pred']} with {first['p_pred']:.2f}){many}{left_out}."
    )


def members_of(metrics: dict) -> str:
    """Members and pool of an ensemble, what each adds, and whether the pool is worth it."""
    from scoring.stats.comparison import verdict

    found = metrics["ensemble"]
    rows = [("member", "weight", "accuracy", "95 %", "NLL", "ECE", "adds to the pool: accuracy", "NLL")]
    for part in found["members"]:
        rows.append(
            (
                part["member"],
                f"{part['weight']:.2f}",
                *_accuracy_nll_ece(part),
                f"{part['adds']['accuracy']:+.4f}",
                f"{-part['adds']['nll']:+.4f} ± {part['adds']['error']:.4f}",
            )
        )
    rows.append((f"pool ({found['pool']['kind']})", "", *_accuracy_nll_ece(metrics["overall"]), "", ""))
    pairs, kappa = found["agreement"], found["agreement"]["fleiss_kappa"]
    lines = [
        _table(rows),
        "",
        f"All members give the same answer in {pairs['all_agree']:.0%} of rows"
        + (f"; Fleiss' kappa {kappa:.2f}." if kappa is not None else "."),
        f"The pool against its best member, {found['best']}: "
        f"{verdict(found['pool_against_best'], (found['best'], 'the pool'))}.",
    ]
    for part in found["members"]:
        if part["adds"]["hurts"]:
            lines.append(
                f"{part['member']} hurts: without it the pool's NLL is {-part['adds']['nll']:.4f} lower. Leave it out."
            )
    return "\n".join(lines)


def _accuracy_nll_ece(part: dict) -> tuple[str, ...]:
    accuracy = part["accuracy"]
    return (
        f"{accuracy['value']:.3f}",
        f"{accuracy['low']:.3f} – {accuracy['high']:.3f}",
        f"{part['nll']['value']:.3f}",
        f"{part['ece']['value']:.3f} (≤ {part['ece']['floor_95']:.3f})",
    )


def comparison_of(found: dict, names: tuple[str, str]) -> str:
    """Two systems on the same rows, as a table and a sentence."""
    from scoring.stats.comparison import verdict

    right, loss = found["accuracy"], found["nll"]
    rows = [("", "accuracy", "NLL")]
    rows += [(name, f"{right[which]:.4f}", f"{loss[which]:.4f}") for name, which in zip(names, ("first", "second"))]
    for label, part in (("difference", "value"), ("  95 %, from", "low"), ("  to", "high")):
        rows.append((label, f"{right['difference'][part]:+.4f}", f"{loss['difference'][part]:+.4f}"))
    rows.append(("smallest effect seen 4 times in 5", f"{right['smallest']:.4f}", f"{loss['smallest']:.4f}"))
    apart = f"; {found['only_in_one']:,} rows are in one alone" if found["only_in_one"] else ""
    return (
        f"{_table(rows)}\n\n{found['rows']:,} rows in both{apart}. Only the first is right in {right['only_first']:,}, "
        f"only the second in {right['only_second']:,}: exact McNemar p = {right['mcnemar_p']:.2g}. "
        f"So {verdict(found, names)}."
    )


def ways_of(found: dict) -> str:
    """A benchmark: speed and cost, answers, and what they say of generating against reading logits."""
    from scoring.bench.summary import batch_sizes_text, batch_text, like_for_like_text

    ways = found["ways"]
    speed = [("", "weights", "batch", "rows/s", "ratio", "s a row, p50", "p95", "GPU GiB", "host GiB", "J a row")]
    answers = [("", "accuracy", "95 %", "NLL", "no letter", 'else "a"', "not engine's", "McNemar p")]
    for way in ways.values():
        spent, right, other = way["seconds_per_row"], way["accuracy"], way.get("against_engine")
        speed.append(
            (
                way["title"],
                way.get("weights", "–"),
                batch_text(way),
                f"{way['rows_per_second']:.1f}",
                f"{way['ratio']:.2f}x" if "ratio" in way else "",
                f"{spent['p50']:.3f}",
                f"{spent['p95']:.3f}",
                _gib(way["peak_device_bytes"]),
                _gib(way["peak_host_bytes"]),
                _or_dash(way["joules_per_row"], ".2f"),
            )
        )
        answers.append(
            (
                way["title"],
                f"{right['value']:.3f}" if right else "–",
                f"{right['low']:.3f} – {right['high']:.3f}" if right else "–",
                _or_dash(way["nll"] and way["nll"]["value"], ".3f"),
                f"{way['unanswered']:,}",
                f"{way['fallbacks']:,}",
                f"{len(other['differ']):,}" if other else "",
                _or_dash(other["mcnemar_p"], ".2g") if other else "",
            )
        )
    speed = [[cell for cell, told in zip(row, _told_at_all(speed)) if told] for row in speed]
    lines = [_table(speed), "", _table(answers), "", *_cost_lines(ways, found)]
    lines += filter(None, [like_for_like_text(ways), batch_sizes_text(ways)])
    if check := found["first_token"]:
        lines.append(
            f"In {check['top_is_a_label']:,} of {check['rows']:,} rows the likeliest token is a letter; generation "
            f"starts with another one in {len(check['violations'])} of them (0 expected)."
        )
    if unsteady := {name: way["unsteady"] for name, way in ways.items() if way["unsteady"]}:
        told = ", ".join(f"{name} {count}" for name, count in unsteady.items())
        lines.append(f"warning: letters that another repeat did not repeat: {told}")
    return "\n".join(lines)


def _told_at_all(rows: list[tuple[str, ...]]) -> list[bool]:
    return [any(cell not in ("", "–") for cell in column[1:]) for column in zip(*rows)]


def _cost_lines(ways: dict, found: dict) -> list[str]:
    price = found["price_per_hour"]
    rows = next(iter(ways.values()))["cost"]["rows"]
    parts = [
        f"{name} {_duration(way['cost']['hours'])}" + (f" ({way['cost']['money']:.2f})" if price else "")
        for name, way in ways.items()
    ]
    priced = f", at {price:g} an hour" if price else ""
    return [f"{rows:,} rows take{priced}: {', '.join(parts)}."]


def _duration(hours: float) -> str:
    return f"{hours:,.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"


def _gib(value: int | None) -> str:
    return "–" if value is None else f"{value / 2**30:.2f}"


def _or_dash(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
