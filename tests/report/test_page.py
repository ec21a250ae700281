"""The report page as a file: what it contains, what it must not contain, how large it is."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from scoring.report.figures import INK, PAPER, draw_views
from scoring.report.page import BYTES, write_report
from scoring.scores.evaluation import compare_folders, evaluate_scores
from scoring.scores.folder import RunError, open_scores, write_results
from scoring.scores.logits import OptionLogits, write_part
from scoring.scores.pooling import PoolOptions, pool_files
from scoring.stats.calibration import Calibration
from tests.shared.report_folders import HOSTILE, bench_json, folder

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def without_figures(monkeypatch):
    """Figures take two seconds a page, and do not matter to what a test looks for."""
    monkeypatch.setattr("scoring.report.page.figures_of_scores", lambda *arguments: [])


def test_a_page_of_scores_has_rows_metrics_and_pictures(tmp_path):
    text = write_report(folder(tmp_path / "s", unscored=[3])).read_text("utf-8")
    assert text.count("<article") == 40 and "무엇인가요 7?" in text and "option w7" in text
    assert "picture: a broken picture" in text
    for name in (
        "accuracy",
        "calibration error",
        "By task type",
        "Reliability diagram",
        "Answered letters by the right",
    ):
        assert name in text
    assert text.count("data:image/webp;base64,") == 10  # each file once
    assert "of 40" in text and "39" in text


def test_nothing_is_loaded_from_anywhere(tmp_path):
    for path in (folder(tmp_path / "s", members=2), bench_json(tmp_path / "b")):
        text = write_report(path).read_text("utf-8")
        addresses = re.findall(r'(?:src|href)="([^"]*)"', text)
        assert addresses and all(address.startswith(("data:", "#")) for address in addresses)
        assert "default-src 'none'" in text
        assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org)", text.replace("%3A//www.w3.org", ""))


@pytest.mark.usefixtures("without_figures")
def test_hostile_cells_stay_text(tmp_path):
    paths = [folder(tmp_path / "s", hostile=True, n=12), bench_json(tmp_path / "b", hostile=True)]
    for text in (write_report(path).read_text("utf-8") for path in paths):
        assert "<script>window" not in text and "<img src=x" not in text and HOSTILE not in text
        assert "&lt;script&gt;window.hacked=1&lt;/script&gt;" in text and "{{ 7*7 }}" in text


def test_the_same_folder_gives_the_same_page(tmp_path):
    path = folder(tmp_path / "s", members=2, orders="cyclic")
    first = write_report(path, tmp_path / "1.html").read_bytes()
    assert write_report(path, tmp_path / "2.html").read_bytes() == first


def test_a_page_of_an_ensemble_has_members_and_disagreement(tmp_path):
    members = [folder(tmp_path / "a", members=1), folder(tmp_path / "b", members=2, orders="cyclic")]
    questions = [pq.read_table(member / "questions.parquet") for member in members]
    column = questions[1].column_names.index("answer")
    pq.write_table(questions[1].set_column(column, "answer", questions[0]["answer"]), members[1] / "questions.parquet")
    pool_files(members, tmp_path / "pool", PoolOptions(names=["a-m0", "b-m0", "b-m1"]))
    text = write_report(tmp_path / "pool").read_text("utf-8")
    assert "adds to the pool: accuracy" in text and "against its best member" in text
    assert "How often each pair of members gives the same answer" in text
    assert "members disagree (" in text and "option w7" in text and "a-m0</span>" in text
    text = write_report(members[1]).read_text("utf-8")
    assert "orders disagree (" in text


@pytest.mark.usefixtures("without_figures")
def test_a_comparison_is_shown(tmp_path):
    first, second = folder(tmp_path / "a"), folder(tmp_path / "b")
    compare_folders(open_scores(first), open_scores(second))
    assert "exact McNemar p" in write_report(first).read_text("utf-8")


@pytest.mark.usefixtures("without_figures")
def test_groups_that_evaluate_was_asked_for_are_shown(tmp_path):
    path = folder(tmp_path / "s")
    evaluate_scores(open_scores(path), {"colour": ["red", "blue"] * 20})
    assert "colour: blue" in write_report(path).read_text("utf-8")


def test_a_page_without_answers_or_pictures_says_so(tmp_path):
    text = write_report(folder(tmp_path / "s", answers=False, pictures=0)).read_text("utf-8")
    assert "accuracy" not in text.split("<script")[0] and "Half of the rows have an answer" in text
    assert text.count("no picture") == 40


@pytest.mark.usefixtures("without_figures")
def test_a_page_without_a_scored_row_is_written(tmp_path):
    text = write_report(folder(tmp_path / "s", n=5, unscored=range(5))).read_text("utf-8")
    assert "unscored (5)" in text


def test_a_page_of_a_benchmark_has_replies_ratios_and_costs(tmp_path):
    text = write_report(bench_json(tmp_path / "b")).read_text("utf-8")
    assert "generation differs (1)" in text and '<q dir="auto">none</q>' in text
    assert "3.00x as fast as the notebook" in text and "100 rows take, at 2 an hour: seed 1.0 h (2.00)" in text
    assert "wrong and sure" not in text  # no such row


@pytest.mark.usefixtures("without_figures")
def test_pages_of_a_thousand_pictures_and_of_long_texts_stay_under_the_limit(tmp_path):
    path = folder(tmp_path / "s", n=1000, pictures=100, grain=60)
    text = write_report(path)
    assert text.stat().st_size < BYTES and text.read_text("utf-8").count("<article") == 1000
    columns = open_scores(path).questions
    long = write_report_of_long_texts(tmp_path / "long", columns)
    assert long.stat().st_size < BYTES and "characters)" in long.read_text("utf-8")
    assert "of 1,000 rows are shown" in long.read_text("utf-8")


def write_report_of_long_texts(out, columns):
    """Cells of 20,000 characters are cut, and where still too long fewer rows are shown."""
    n = len(columns["id"])
    logits = OptionLogits.empty(columns["id"], ["m"], 4)
    logits.logits[:] = np.random.default_rng(0).normal(size=logits.logits.shape)
    logits.status = ["ok"] * n
    (out / "logits").mkdir(parents=True)
    write_part(out / "logits", 0, logits)
    long = columns | {"question": ["가" * 20_000] * n, "choices": [["나" * 5_000] * 4] * n}
    write_results(out, long, logits, [Calibration()])
    record = {"checkpoints": [{"member": "m", "temperature": 1.0}], "identity": {"letters": "abcd"}}
    (out / "run.json").write_text(json.dumps(record))
    return write_report(out)


def test_a_figure_for_a_dark_page_differs_in_its_ink_alone():
    figure = draw_views("Letters", lambda axis: axis.set_title("fill", color=INK), "")
    light, dark = figure.svg["light"], figure.svg["dark"]
    assert light.count(f": {PAPER['light']}") > 5 and PAPER["light"] not in dark and INK in dark
    assert dark.replace(PAPER["dark"], PAPER["light"]) == light


def test_folders_without_readable_results_are_refused(tmp_path):
    with pytest.raises(RunError, match=r"no run\.json and no bench\.json"):
        write_report(tmp_path)
    (tmp_path / "bench.json").write_text('{"ways": {"generate": {}}}')
    with pytest.raises(RunError, match="run it again"):
        write_report(tmp_path)


@pytest.mark.usefixtures("without_figures")
def test_folders_of_older_versions_have_no_texts(tmp_path):
    import pyarrow.parquet as pq

    path = folder(tmp_path / "s")
    table = pq.read_table(path / "questions.parquet").drop(["question", "choices"])
    pq.write_table(table, path / "questions.parquet")
    assert "question not known here" in write_report(path).read_text("utf-8")


def test_the_report_command_loads_no_torch(tmp_path):
    path = folder(tmp_path / "s", members=2)
    code = (
        "import sys, cli\n"
        f"try: cli.main(['report', {str(path)!r}, '--out', {str(tmp_path / 'new' / 'page.html')!r}])\n"
        "except SystemExit as end: assert not end.code\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "new" / "page.html").exists() and "report: " in done.stdout


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's ratio of two colours."""

    def light(colour: str) -> float:
        channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        linear = [channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4 for channel in channels]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    high, low = sorted((light(one), light(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_can_be_told_apart():
    """WCAG AA, on a light page and on a dark one: 4.5 for texts, 3 for bars."""
    css = (ROOT / "scoring" / "report" / "assets" / "report.css").read_text()
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    for theme in (css[: css.index("@media")], css[css.index("@media") : css.index("* {")]):
        colours = dict(re.findall(r"--(\w+): (#\w{6})", theme))
        assert len(colours) == 11
        for ground in ("ground", "raised"):
            for text in ("ink", "soft", "accent", "right", "wrong", "notice"):
                assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
        assert contrast(colours["bar"], colours["ground"]) >= 3
        assert contrast(colours["accent"], colours["ground"]) >= 4.5  # a pressed button's text
