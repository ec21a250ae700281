"""Right values on the logits of real models, computed here without the product; and the document about them."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import log_softmax
from scipy.stats import chi2
from sklearn.metrics import accuracy_score, log_loss

from benchmarks.real_logits import PUBLISHED, avx512_order, published_row, read_benchmark
from scoring.scores.evaluation import evaluate_scores
from scoring.scores.external import open_or_import
from scoring.scores.folder import Scores
from scoring.scores.pooling import PoolOptions, import_file, pool_files
from scoring.stats.calibration import fit_temperature, nll
from scoring.stats.metrics import measure
from scoring.stats.selective import nonconformity, option_sets, set_quantile

ROOT = Path(__file__).resolve().parent.parent.parent
CASES = ROOT / "tests" / "cases" / "real_logits.parquet"
REPORT = ROOT / "benchmarks" / "results" / "real-logits-cpu-2026-11-28.json"
DOCUMENT = ROOT / "docs" / "real-models.md"
MODELS = ["Yi-VL-6B", "cogagent-vqa-hf", "mplug-owl2-llama2-7b"]
RIGHT = {"Yi-VL-6B": 158, "cogagent-vqa-hf": 150, "mplug-owl2-llama2-7b": 155}  # of 200
HALVES = [slice(0, 100), slice(100, 200)]
BENCHMARKS = {"MMBench": "mmbench", "OOD-CV": "oodcv"}


def logits_of(model: str) -> tuple[np.ndarray, np.ndarray]:
    """(200, 6) float64 logits and (200,) answers, as the file has them."""
    table = pd.read_parquet(CASES)
    rows = table[table["member"] == model]
    return rows[list("abcdef")].to_numpy(np.float64), np.array(["abcdef".index(letter) for letter in rows["answer"]])


def loss_at(z: np.ndarray, y: np.ndarray, temperature: float) -> float:
    """NLL in nats, of (N, 6) logits."""
    return float(-log_softmax(z / temperature, axis=1)[np.arange(len(y)), y].mean())


def temperature_on_a_grid(z: np.ndarray, y: np.ndarray) -> float:
    """The likeliest of 0.05 to 20, to a ten-thousandth."""
    low, high = np.log(0.05), np.log(20)
    for _ in range(4):
        grid = np.linspace(low, high, 61)
        best = grid[np.argmin([loss_at(z, y, t) for t in np.exp(grid)])]
        low, high = best - (high - low) / 60, best + (high - low) / 60
    return float(np.exp(best))


def test_the_three_models_answer_the_same_200_rows():
    table = pd.read_parquet(CASES)
    assert list(table.columns) == ["id", *"abcdef", "answer", "member", "task_type"]
    assert (table[list("abcdef")].dtypes == np.float32).all()
    assert list(table["member"].unique()) == MODELS and len(table) == 600
    first, *others = (table[table["member"] == model].drop(columns=list("abcdef")) for model in MODELS)
    assert first["id"].is_unique
    for other in others:
        for column in ("id", "answer", "task_type"):
            assert (other[column].to_numpy() == first[column].to_numpy()).all()


@pytest.mark.parametrize("model", MODELS)
def test_accuracy_and_nll_are_those_of_sklearn(model):
    z, y = logits_of(model)
    figures = measure(np.exp(log_softmax(z, axis=1)), y)
    assert figures["accuracy"]["value"] == accuracy_score(y, z.argmax(1)) == RIGHT[model] / 200
    p = np.exp(log_softmax(z, axis=1))
    assert figures["nll"]["value"] == pytest.approx(log_loss(y, p, labels=range(6)), abs=1e-6)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("half", HALVES)
def test_the_temperature_is_the_likeliest_of_a_grid(model, half):
    """Or 1, where a sharper one is not significantly likelier."""
    z, y = (values[half] for values in logits_of(model))
    expected = temperature_on_a_grid(z, y)
    ratio = 2 * len(y) * (loss_at(z, y, 1.0) - loss_at(z, y, expected))
    if expected < 1 and ratio <= chi2.ppf(0.95, 1):
        expected = 1.0
    assert fit_temperature(z, y).temperature == pytest.approx(expected, rel=2e-4)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("half", [0, 1])
def test_the_temperature_does_not_harm_the_other_half(model, half):
    z, y = logits_of(model)
    fitted, other = HALVES[half], HALVES[1 - half]
    temperature = fit_temperature(z[fitted], y[fitted]).temperature
    assert loss_at(z[other], y[other], temperature) <= loss_at(z[other], y[other], 1.0) + 0.002
    assert nll(z[other], y[other], temperature) == pytest.approx(loss_at(z[other], y[other], temperature), abs=1e-9)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("level, rank", [(0.8, 81), (0.9, 91), (0.95, 96)])  # ⌈101 · level⌉
def test_lac_sets_are_those_of_a_loop(model, level, rank):
    z, y = logits_of(model)
    p = np.exp(log_softmax(z, axis=1))
    quantile = sorted(1 - p[row, y[row]] for row in range(100))[rank - 1]
    assert set_quantile(nonconformity(p[:100])[np.arange(100), y[:100]], level) == pytest.approx(quantile, abs=1e-12)
    sets = [{option for option in range(6) if 1 - p[row, option] <= quantile} for row in range(100, 200)]
    assert [set(np.flatnonzero(row)) for row in option_sets(p[100:], quantile)] == sets


@pytest.mark.parametrize("model", MODELS)
def test_aps_sets_are_those_of_a_loop(model):
    """The likeliest options down to the quantile; of two that are equally likely the earlier letter first."""
    z, y = logits_of(model)
    p = np.exp(log_softmax(z, axis=1))

    def downwards(row: int) -> list[tuple[int, float]]:
        total, listed = 0.0, []
        for option in sorted(range(6), key=lambda letter: (-p[row, letter], letter)):
            total += p[row, option]
            listed.append((option, total))
        return listed

    quantile = sorted(dict(downwards(row))[y[row]] for row in range(100))[90]
    values = nonconformity(p[:100], "aps")[np.arange(100), y[:100]]
    assert set_quantile(values, 0.9) == pytest.approx(quantile, abs=1e-12)
    sets = [{option for option, total in downwards(row) if total <= quantile + 1e-12} for row in range(100, 200)]
    assert [set(np.flatnonzero(row)) for row in option_sets(p[100:], quantile, "aps")] == sets


# ------------------------------------------------------------------ as a user has them
def mean_of_logarithms(models: list[str] = MODELS) -> np.ndarray:
    """(200, 6) log-probabilities of the equal log pool."""
    return log_softmax(np.mean([log_softmax(logits_of(model)[0], axis=1) for model in models], axis=0), axis=1)


def check_pool(scores: Scores) -> None:
    y = logits_of(MODELS[0])[1]
    expected = mean_of_logarithms()
    assert scores.logits.members == MODELS and np.abs(scores.log_p - expected).max() < 1e-5
    metrics = evaluate_scores(scores)
    assert metrics["overall"]["accuracy"]["value"] == accuracy_score(y, expected.argmax(1)) == 0.815
    assert metrics["overall"]["nll"]["value"] == pytest.approx(log_loss(y, np.exp(expected), labels=range(6)), abs=1e-5)
    for member in metrics["ensemble"]["members"]:
        z = logits_of(member["member"])[0]
        assert member["accuracy"]["value"] == RIGHT[member["member"]] / 200
        assert member["nll"]["value"] == pytest.approx(loss_at(z, y, 1.0), abs=1e-5)
    assert metrics["ensemble"]["best"] == "cogagent-vqa-hf"
    differences = metrics["ensemble"]["pool_against_best"]
    assert differences["accuracy"]["difference"]["value"] == pytest.approx(0.815 - 0.75)


def test_members_in_one_file_become_members(tmp_path):
    imported = import_file(CASES, tmp_path / "imported")
    assert any("read as logits" in note for note in imported.notes)
    check_pool(imported.scores)
    scores, notes = open_or_import(CASES, tmp_path / "opened", "auto", None, [])
    assert any("read as logits" in note for note in notes)
    check_pool(scores)
    check_pool(pool_files([CASES], tmp_path / "pooled").scores)


def test_files_of_one_model_each_are_the_same_pool(tmp_path):
    table = pd.read_parquet(CASES)
    paths = [tmp_path / f"{number}.parquet" for number in range(3)]
    for path, model in zip(paths, MODELS):
        rows = table[table["member"] == model]
        rows.sample(frac=1, random_state=1).to_parquet(path) if path is paths[1] else rows.to_parquet(path)
    check_pool(pool_files(paths, tmp_path / "pooled").scores)


@pytest.mark.parametrize("factor", [1, 2])
def test_the_pool_has_the_likeliest_temperature_of_labelled_rows(tmp_path, factor):
    """Of logits twice as large. As they are, a sharper one is not significantly likelier: 1."""
    table = pd.read_parquet(CASES)
    table[list("abcdef")] *= factor
    half = table["id"].isin(table["id"].unique()[:100])
    labelled, rest = tmp_path / "labelled.parquet", tmp_path / "rest.parquet"
    table[half].to_parquet(labelled)
    table[~half].to_parquet(rest)
    scores = pool_files([rest], tmp_path / "pooled", PoolOptions(fit=labelled)).scores
    log_p, y = factor * mean_of_logarithms(), logits_of(MODELS[0])[1]
    likeliest = temperature_on_a_grid(log_p[:100], y[:100])
    assert likeliest == pytest.approx(factor * 0.8845, abs=1e-3)
    expected = likeliest if factor == 2 else 1.0
    assert scores.pool.temperature == pytest.approx(expected, rel=2e-4)
    assert np.abs(scores.log_p - log_softmax(log_p[100:] / expected, axis=1)).max() < 1e-3


# ------------------------------------------------------------------ the published table, and the document
def test_equal_numbers_stand_in_the_order_of_a_cpu_with_avx512():
    cases = {
        (0.5, 0.5, 0.0, 0.0, 0.0, 0.0): [1, 0, 4, 5, 2, 3],
        (0.2, 0.2, 0.2, 0.2, 0.2, 0.0): [4, 3, 1, 2, 0, 5],
        (0.1, 0.3, 0.3, 0.1, 0.1, 0.1): [1, 2, 4, 5, 3, 0],
        (0.25, 0.1, 0.25, 0.1, 0.25, 0.05): [4, 2, 0, 3, 1, 5],
    }
    assert [row.tolist() for row in avx512_order(np.array(list(cases)))] == list(cases.values())
    p = np.random.default_rng(0).random((1000, 6))
    assert (avx512_order(p) == np.argsort(-p, axis=1)).all()


def test_copies_of_a_question_stay_on_one_side():
    benchmark = read_benchmark(CASES)
    ids = pd.read_parquet(CASES)["id"].iloc[:200].astype(int).to_numpy() % 1_000_000
    drawn, others = benchmark.draw(np.random.default_rng(3), 100)
    assert sorted([*drawn, *others]) == list(range(200)) and 100 <= len(drawn) < 104
    assert not set(ids[drawn]) & set(ids[others]) and len(set(ids)) == 181


def test_a_row_of_the_table_is_that_of_a_loop():
    """As the source computes it, in plain Python; on these rows, with sklearn's halves."""
    from sklearn.model_selection import train_test_split

    z, y = logits_of("Yi-VL-6B")
    p = np.exp(log_softmax(z, axis=1))
    labelled, rest = train_test_split(range(200), train_size=0.5, random_state=42)
    order = avx512_order(p)
    up_to = {row: dict(zip(order[row].tolist(), p[row, order[row]].cumsum())) for row in range(200)}
    sizes = []
    for values in ({row: dict(enumerate(1 - p[row])) for row in range(200)}, up_to):
        quantile = np.quantile([values[row][y[row]] for row in labelled], np.ceil(101 * 0.9) / 100, method="higher")
        sizes.append(np.mean([max(1, sum(value <= quantile for value in values[row].values())) for row in rest]))
    accuracy = np.mean([z[row].argmax() == y[row] for row in rest])
    row = published_row(z, y, further=1, as_source=True)
    assert row["accuracy"] == pytest.approx(100 * accuracy) and row["set_size"] == pytest.approx(np.mean(sizes))
    assert row["uacc"] == pytest.approx(100 * np.mean([accuracy * 6**0.5 / size for size in sizes]))


def test_the_report_has_the_60_published_figures(report):
    table = report["published"]
    assert table["agree"] == table["cells"] == 60 and not table["wrong"]
    assert [row["model"] for row in table["models"]] == list(PUBLISHED)
    for row in table["models"]:
        for name, printed in zip(BENCHMARKS.values(), PUBLISHED[row["model"]]):
            assert tuple(round(row[name][figure], 2) for figure in ("accuracy", "set_size", "uacc")) == printed


def tables_of(text: str) -> dict[str, list[dict[str, str]]]:
    """The rows of each table of a document, as header -> cell, by the heading above it."""
    result = {}
    for heading, body in re.findall(r"^#+ (.+?)\n(.*?)(?=^#|\Z)", text, re.M | re.S):
        lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines() if line[:1] == "|"]
        if lines:
            result[heading] = [dict(zip(lines[0], line)) for line in lines[2:]]
    return result


def agree(cell: str, *values: float) -> bool:
    """Whether a cell's numbers are these, to the last digit that it shows."""
    texts = re.findall(r"[-+]?\d+\.?\d*", cell)
    return len(texts) == len(values) and all(
        abs(float(text) - value) <= 0.5 * 10.0 ** -len(text.partition(".")[2]) + 1e-9
        for text, value in zip(texts, values)
    )


def check_row(row: dict[str, str], *expected: object) -> None:
    """Cells of a row: texts as they are, numbers to the last digit shown, of tuples all of them."""
    cells = list(row.values())
    assert len(cells) == len(expected), row
    for cell, value in zip(cells, expected):
        if isinstance(value, str):
            assert cell == value, row
        else:
            assert agree(cell, *(value if isinstance(value, tuple) else (value,))), (row, value)


@pytest.fixture(scope="module")
def report() -> dict:
    return json.loads(REPORT.read_text("utf-8"))


@pytest.fixture(scope="module")
def document() -> dict[str, list[dict[str, str]]]:
    return tables_of(DOCUMENT.read_text("utf-8"))


def test_the_document_has_the_published_table(report, document):
    rows = document["The published table"]
    assert [row["model"] for row in rows] == list(PUBLISHED)
    for row, entry in zip(rows, report["published"]["models"]):
        figures = [entry[name][key] for key in ("accuracy", "set_size", "uacc") for name in BENCHMARKS.values()]
        check_row(row, entry["model"], *figures)


def test_the_document_has_the_figures_of_calibration_sets_and_thresholds(report, document):
    worth = {title: report["worth"][name] for title, name in BENCHMARKS.items()}
    for row, (title, figures) in zip(document["Temperature"], worth.items(), strict=True):
        keys = "nll_before nll_after nll_before_worst_model nll_after_worst_model ece_before ece_after floor_after"
        check_row(row, title, *(figures["calibration"][key] for key in keys.split()))
    sets = [(title, entry) for title, figures in worth.items() for entry in figures["sets"]]
    for row, (title, entry) in zip(document["Sets"], sets, strict=True):
        keys = "level covered covered_lowest covered_highest size size_smallest size_largest"
        check_row(row, title, *(entry[key] for key in keys.split()))
    for row, (title, figures) in zip(document["Thresholds"], worth.items(), strict=True):
        keys = "cases given observed_at_least_wanted significantly_below answered"
        check_row(row, title, *(figures["thresholds"][key] for key in keys.split()))
    rules = [
        (title, what, figures["rule"][key])
        for title, figures in worth.items()
        for key, what in (("task_types", "temperature by task type"), ("letter_bias", "letter bias, a to d alone"))
        if key in figures["rule"]
    ]
    for row, (title, what, rule) in zip(document["More than a temperature"], rules, strict=True):
        check_row(row, title, what, *(rule[key] for key in ("taken", "nll_saved_where_taken", "least", "most")))
    for row, (title, figures) in zip(document["Letters that are never right"], worth.items(), strict=True):
        check_row(row, title, figures["rule"]["nll_temperature"], figures["rule"]["nll_temperature_four_letters"])


def test_the_document_has_the_figures_of_pools(report, document):
    sizes = (2, 5, 10, 20)
    difference = ("nll_difference", "nll_low", "nll_high")
    for title, name in BENCHMARKS.items():
        entries = {(entry["members"], entry["way"]): entry for entry in report["pools"][name]["pools"]}
        ways = list(dict.fromkeys(way for _, way in entries))
        assert len(ways) == 6 and {entry["halvings"] for entry in entries.values()} == {20}
        *rows, last = document[f"Pools on {title}"]
        for row, way in zip(rows, ways, strict=True):
            cells = [entries[1 if way == "best member" else size, way] for size in sizes]
            check_row(row, way, *((entry["accuracy"], entry["nll"]) for entry in cells))
        cells = [entries[size, ways[-1]] for size in sizes]
        check_row(last, f"NLL: {ways[-1]} − best member", *(tuple(entry[key] for key in difference) for entry in cells))
        fitted = {(entry["members"], entry["way"]): entry for entry in report["pools"][name]["fitted"]}
        assert {entry["halvings"] for entry in fitted.values()} == {5}
        rows = document[f"Fitted weights on {title}"]
        for row, way in zip(rows[:3], ("equal weights", "fitted weights", "greedy weights"), strict=True):
            check_row(row, way, *((fitted[size, way]["accuracy"], fitted[size, way]["nll"]) for size in sizes))
        for row, way in zip(rows[3:], ("fitted weights", "greedy weights"), strict=True):
            cells = [fitted[size, way] for size in sizes]
            check_row(row, f"NLL: {way} − equal weights", *(tuple(entry[key] for key in difference) for entry in cells))


@pytest.mark.parametrize("what", ["questions", "rows"])
def test_the_document_has_the_figures_of_labelled_rows(report, document, what):
    entries = {(entry["labelled"], entry["members"], entry["way"]): entry for entry in report["labelled"][what]}
    ways = {"best member": (1, "best member")}
    for way in ("equal weights", "fitted weights", "greedy weights", "fitted, always"):
        ways |= {f"{way}, {size} members": (size, way) for size in (10, 20)}
    for row, (title, (size, way)) in zip(document[f"Labelled {what}"], ways.items(), strict=True):
        figures = [entries[count, size, way] for count in (131, 437, 2188)]
        check_row(row, title, *((entry["accuracy"], entry["nll"]) for entry in figures))
