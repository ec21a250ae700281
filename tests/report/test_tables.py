"""Tables: what the terminal prints, and that the page shows the same cells and sentences."""

import json
from html.parser import HTMLParser

import pytest

from scoring.report.page import write_report
from scoring.report.records import Comparison, Details, Metrics, Threshold, read_record
from scoring.report.tables import (
    Table,
    bench_tables,
    comparison_table,
    details_table,
    members_table,
    metrics_table,
    threshold_note,
    to_text,
)
from scoring.scores.evaluation import compare_folders, evaluate_scores
from scoring.scores.folder import open_scores
from tests.shared.report_folders import bench_json, folder


class PageTables(HTMLParser):
    """Titles, cells and notes of a page's tables, as a browser would show them."""

    def __init__(self):
        super().__init__()
        self.titles, self.tables, self.notes = [], [], []
        self.open: list[str] | None = None

    def handle_starttag(self, tag, attributes):
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.open = self.tables[-1][-1]
            self.open.append("")
        elif tag == "h2" or ("class", "note") in attributes:
            self.open = self.titles if tag == "h2" else self.notes
            self.open.append("")

    def handle_endtag(self, tag):
        if tag in ("th", "td", "h2", "p"):
            self.open = None

    def handle_data(self, data):
        if self.open is not None:
            self.open[-1] += data


def on_page(path) -> PageTables:
    page = PageTables()
    page.feed(write_report(path).read_text("utf-8"))
    return page


def words(rows) -> list[list[str]]:
    """Rows of cells or lines of text as their words: padding and columns do not count."""
    return [(row if isinstance(row, str) else " ".join(row)).split() for row in rows]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of each kind with the tables that belong to them, by name."""
    out = tmp_path_factory.mktemp("tables")
    one, other, several = folder(out / "one"), folder(out / "other", unscored=[3]), folder(out / "several", members=3)
    metrics = read_record(Metrics, evaluate_scores(open_scores(one), {"colour": ["red", "blue"] * 20}))
    comparison = read_record(Comparison, compare_folders(open_scores(one), open_scores(other)))
    pooled = read_record(Metrics, evaluate_scores(open_scores(several)))
    rotated = folder(out / "cyclic", orders="cyclic")
    in_orders = evaluate_scores(open_scores(rotated))
    rotated_tables = [metrics_table(read_record(Metrics, in_orders)), details_table(read_record(Details, in_orders))]
    bench = bench_json(out / "bench")
    return {
        "one": (one, [metrics_table(metrics), comparison_table(comparison, (str(one), str(other)))]),
        "several": (several, [metrics_table(pooled), members_table(pooled)]),
        "cyclic": (rotated, rotated_tables),
        "bench": (bench, bench_tables(json.loads((bench / "bench.json").read_text()))),
    }


@pytest.mark.parametrize("name", ["one", "several", "cyclic", "bench"])
def test_the_terminal_and_the_page_have_the_same_cells_and_notes(folders, name):
    path, tables = folders[name]
    page = on_page(path)
    assert page.tables == [[table.header, *table.rows] for table in tables]
    assert page.notes[:-1] == [
        line for table in tables for line in ([table.legend] if table.legend else []) + table.notes
    ]
    assert [title for title in page.titles if title in {table.title for table in tables}] == [t.title for t in tables]
    for table in tables:
        header, rule, *rows = to_text(table).split("\n\n")[0].splitlines()
        assert set(rule) == {"─"} and words([header, *rows]) == words([table.header, *table.rows])
        assert to_text(table).splitlines()[len(rows) + 3 :] == table.notes


def test_columns_are_aligned_on_the_terminal():
    table = Table(
        "title", ["", "rows", "95 %"], [["all", "1,000", "0.1 – 0.2"], ["a group", "7", "–"]], legend="legend"
    )
    grid = "          rows       95 %\n─────────────────────────\nall      1,000  0.1 – 0.2\na group      7          –"
    assert to_text(table) == grid


def test_notes_come_after_all_tables_and_warnings_last():
    first = Table("", ["", "n"], [["x", "1"]], ["of the first"], ["look out"])
    second = Table("", ["", "n"], [["y", "2"]], ["of the second", "and more"])
    assert to_text(first, second) == (
        "   n\n────\nx  1\n\n   n\n────\ny  2\n\nof the first\nof the second\nand more\nwarning: look out"
    )


# ------------------------------------------------------------------ metrics
def test_metrics_are_shown_for_all_rows_and_each_group(folders):
    table = folders["one"][1][0]
    assert table.title == "By task type, colour" and table.header[-1] == "noise floor"
    assert [row[0] for row in table.rows] == ["all", "count", "object", "colour: blue", "colour: red"]
    assert table.rows[0][1] == "40" and all("(≤ 0." in row[-1] for row in table.rows)


def test_a_metric_that_is_not_defined_has_a_dash_and_a_reason(tmp_path):
    metrics = evaluate_scores(open_scores(folder(tmp_path / "s")))
    metrics["overall"]["auroc"] = {"value": None, "low": None, "high": None}
    table = details_table(read_record(Details, metrics))
    assert ["AUROC of confidence", "–", "all right, or all wrong"] in table.rows and len(table.rows) == 9


def chosen(**values) -> Threshold:
    nothing = {"wanted": 0.95, "threshold": None, "coverage": 0.0, "accuracy": None, "bound": None}
    return Threshold(**nothing | values)


@pytest.mark.parametrize(
    "threshold, note",
    [
        (chosen(), "No confidence threshold can promise 95% right on so many rows."),
        (
            chosen(rows=1200, left_out=80),
            "No confidence threshold can promise 95% right on the 1,200 rows that no member has met (80 are left out).",
        ),
        (
            chosen(reason="every labelled row was trained on", left_out=9),
            "No confidence threshold is promised: every labelled row was trained on. Evaluate rows that no member has "
            "met.",
        ),
        (
            chosen(threshold=0.7, coverage=0.5, accuracy=0.98, bound=0.95),
            "Answers with a probability of 0.70 or more are right in 98.0% (at least 95.0%, with 95 % certainty): 50% "
            "of the rows.",
        ),
    ],
)
def test_a_note_says_what_a_threshold_promises(threshold, note):
    assert threshold_note(threshold) == note


def test_orders_and_sets_are_described_in_notes(tmp_path):
    metrics = evaluate_scores(open_scores(folder(tmp_path / "s", orders="cyclic")))
    metrics |= {"sets": {"asked": 0.9, "method": "lac", "covered": 0.925, "mean_size": 1.5}}
    _, order, sets = details_table(read_record(Details, metrics)).notes
    assert order.startswith("m0: ") and "another order changes" in order and "probability by letter 0." in order
    assert sets == "Sets asked to hold the right option in 90%: they do in 92.5%, with 1.50 options on average."


def circular_table(tmp_path, **values) -> Table:
    metrics = evaluate_scores(open_scores(folder(tmp_path / "s")))
    assert "circular" not in metrics  # a run in one order
    nothing = {"value": None, "low": None, "high": None, "rows": 0, "fewer_orders": 0, "right_in_fewer": 0}
    return details_table(read_record(Details, metrics | {"circular": nothing | values}))


def test_circular_eval_is_a_row_of_its_own(tmp_path):
    table = circular_table(tmp_path, value=0.75, low=0.7, high=0.79, rows=400)
    assert table.rows[-1] == ["CircularEval: right in every cyclic order", "0.7500", "0.7000 – 0.7900"]
    assert len(table.rows) == 10 and len(table.notes) == 1


def test_rows_that_circular_eval_leaves_out_are_told_with_what_they_could_change(tmp_path):
    """300 of 400 rows are right in every order; of 100 others 80 are right in theirs: 300 to 380 of 500."""
    table = circular_table(tmp_path, value=0.75, low=0.7, high=0.79, rows=400, fewer_orders=100, right_in_fewer=80)
    assert table.notes[-1] == (
        "CircularEval is of 400 rows: 100 rows have fewer orders, 80 of them right in these. Shown in every order too, "
        "they would make it 0.6000 to 0.7600."
    )


def test_circular_eval_of_no_row_has_a_dash_and_a_reason(tmp_path):
    table = circular_table(tmp_path, fewer_orders=1, right_in_fewer=1)
    assert table.rows[-1] == ["CircularEval: right in every cyclic order", "–", "no row has them all"]
    assert "of 0 rows: 1 row has fewer orders, 1 of them right in these" in table.notes[-1]
    assert table.notes[-1].endswith("they would make it 0.0000 to 1.0000.")


# ------------------------------------------------------------------ ensembles
def test_the_pool_stands_below_its_members(folders):
    table = folders["several"][1][1]
    assert [row[0] for row in table.rows] == ["m0", "m1", "m2", "pool (log)"] and table.rows[-1][-2:] == ["", ""]
    assert "Fleiss' kappa" in table.notes[0] and table.notes[1].startswith("The pool against its best member, m")


def test_a_member_that_hurts_is_named(tmp_path):
    metrics = evaluate_scores(open_scores(folder(tmp_path / "s", members=2)))
    metrics["ensemble"]["members"][1]["adds"] |= {"nll": -0.02, "error": 0.001, "hurts": True}
    notes = members_table(read_record(Metrics, metrics)).notes
    assert notes[-1] == "m1 hurts: without it the pool's NLL is 0.0200 lower. Leave it out."


def test_one_member_has_no_table_of_members(tmp_path):
    metrics = read_record(Metrics, evaluate_scores(open_scores(folder(tmp_path / "s"))))
    with pytest.raises(ValueError, match="metrics of one member"):
        members_table(metrics)


# ------------------------------------------------------------------ comparisons
@pytest.mark.parametrize(
    "count, words", [(0, "in both. Only"), (1, "; 1 row is in only one"), (2, "; 2 rows are in only one of them. Only")]
)
def test_rows_that_two_systems_do_not_share_are_counted(tmp_path, count, words):
    first, second = folder(tmp_path / "a"), folder(tmp_path / "b")
    comparison = compare_folders(open_scores(first), open_scores(second)) | {"only_in_one": count}
    table = comparison_table(read_record(Comparison, comparison), ("one", "other"))
    assert [row[0] for row in table.rows[:3]] == ["one", "other", "difference"] and table.rows[2][1] == "+0.0000"
    assert words in table.notes[0] and "exact McNemar p = 1. So " in table.notes[0]


# ------------------------------------------------------------------ benchmarks
def bench(tmp_path) -> dict:
    return json.loads((bench_json(tmp_path / "b") / "bench.json").read_text())


def test_columns_without_a_value_are_left_out(tmp_path):
    values = bench(tmp_path)
    header = ["", "rows/s", "ratio", "s a row, p50", "p95", "host GiB"]
    assert bench_tables(values)[0].header == header
    values["ways"]["engine"] |= {"joules_per_row": 1.5, "weights": "4bit"}
    table = bench_tables(values)[0]
    assert table.header == [*header[:1], "weights", *header[1:], "J a row"]
    assert table.rows == [
        ["generate", "–", "3.0", "1.00x", "0.100", "0.200", "1.00", "–"],
        ["engine (score)", "4bit", "9.0", "3.00x", "0.100", "0.200", "1.00", "1.50"],
    ]


def test_the_cost_names_each_way_and_its_price(tmp_path):
    values = bench(tmp_path)
    values["ways"]["engine"]["cost"] |= {"hours": 0.5, "money": 1.0}
    assert bench_tables(values)[0].notes[0] == "100 rows take, at 2 an hour: seed 1.0 h (2.00), engine 30.0 min (1.00)."
    values["price_per_hour"] = None
    assert bench_tables(values)[0].notes[0] == "100 rows take: seed 1.0 h, engine 30.0 min."


def test_letters_that_changed_between_repeats_are_a_warning_in_the_terminal_and_on_the_page(tmp_path):
    values = bench(tmp_path)
    assert not bench_tables(values)[1].warnings
    values["ways"]["seed"]["unsteady"] = 2
    text = "letters that changed between repeats: seed 2"
    assert to_text(*bench_tables(values)).splitlines()[-1] == f"warning: {text}"
    (tmp_path / "b" / "bench.json").write_text(json.dumps(values))
    assert f"<li>{text}</li>" in write_report(tmp_path / "b").read_text("utf-8")


def test_a_way_without_answers_has_dashes(tmp_path):
    values = bench(tmp_path)
    for way in values["ways"].values():
        way |= {"accuracy": None, "nll": None}
    values["ways"]["seed"]["against_engine"]["mcnemar_p"] = None
    rows = bench_tables(values)[1].rows
    assert rows[0] == ["generate", "–", "–", "–", "0", "1", "1", "–"]
    assert rows[1] == ["engine (score)", "–", "–", "–", "0", "1", "", ""]
