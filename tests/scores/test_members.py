"""Members from files: what each cell, column and row becomes, to the digit, and what is refused, word by word."""

from pathlib import Path

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from scoring.errors import first_of
from scoring.files.writing import write_json
from scoring.inputs.orders import option_orders
from scoring.inputs.questions import Question
from scoring.scores.exposure import CALIBRATION, TRAINING, VALIDATION
from scoring.scores.folder import columns_of, open_scores, write_results
from scoring.scores.logits import OptionLogits, write_part
from scoring.scores.members import Member, MemberPool, aligned, match_calibrations, read_members
from scoring.scores.pooling import PoolOptions, pool_files
from scoring.stats.calibration import Calibration
from scoring.stats.pools import EnsembleError, PoolSettings
from scoring.tables.answers import AnswerTable
from tests.shared.number_files import write_csv, write_table
from tests.shared.predictions import draw_rows, members
from tests.shared.scores_folders import change_columns, change_settings, two_folders, write_scores

pytestmark = pytest.mark.filterwarnings("error")
NAN = float("nan")


# ------------------------------------------------------------------ SCORES folders
def scores_folder(folder, orders="cyclic", **identity):
    """Three rows of two members in all cyclic orders of three options; the last row has no score."""
    shape = (3, 2, len(option_orders(3, orders)))
    logits = OptionLogits.empty(["r0", "r1", "r2"], ["m", "n"], 3, orders)
    rng = np.random.default_rng(0)
    logits.logits[:2] = rng.normal(0, 2, (2, *shape[1:], 3))
    logits.label_mass[:2] = rng.uniform(0.5, 1, (2, *shape[1:]))
    logits.top_token[:2], logits.status = 32, ["ok", "ok", "no picture"]
    questions = [Question(f"r{row}", row + 1, (), "q", ("x", "y", "z"), "abc"[row], "count") for row in range(3)]
    exposed = np.array([[TRAINING, 0], [0, VALIDATION], [0, 0]])
    (folder / "logits").mkdir(parents=True)
    write_part(folder / "logits", 0, logits)
    write_results(folder, columns_of(questions, exposed), logits, [Calibration(), Calibration(2.0)])
    entries = [
        {"member": "m", "temperature": 1.0, "fingerprint": "fm", "pixels": 512, "data": {"file": "of m"}},
        {"member": "n", "temperature": 2.0, "fingerprint": None},
    ]
    record = {
        "checkpoints": entries,
        "identity": {"letters": "abc", "orders": orders} | identity,
        "data": {"file": "of all"},
    }
    write_json(folder / "run.json", record)
    return logits, entries


def test_the_members_of_a_folder_have_its_rows_their_mean_over_orders_and_their_calibrations(tmp_path):
    logits, _ = scores_folder(tmp_path / "a")
    m, n = read_members(tmp_path / "a")
    for member, source in enumerate((m, n)):
        mean = log_softmax(logits.logits[:2, member].astype(float), axis=-1).mean(1)
        assert np.allclose(source.logits[:2], log_softmax(mean, axis=1)) and np.isnan(source.logits[2]).all()
        mass = logits.label_mass[:, member].mean(1)
        assert np.allclose(source.label_mass, mass, equal_nan=True) and np.isfinite(mass).tolist() == [
            True,
            True,
            False,
        ]
        assert source.ids == ["r0", "r1", "r2"] and source.status == ["ok", "ok", "no picture"]
        assert source.questions == open_scores(tmp_path / "a").questions and source.path == tmp_path / "a"
        assert source.notes == []
    assert (m.name, n.name) == ("m", "n") and (m.fingerprint, n.fingerprint) == ("fm", "")
    assert (m.calibration.temperature, n.calibration.temperature) == (1.0, 2.0)
    assert m.exposed.tolist() == [TRAINING, 0, 0] and n.exposed.tolist() == [0, VALIDATION, 0]
    assert m.data == {"file": "of m"} and n.data == {"file": "of all"}


def test_label_mass_is_the_mean_of_the_orders_that_were_shown(tmp_path):
    logits, _ = scores_folder(tmp_path / "a")
    logits.logits[0, :, 1:], logits.label_mass[0, :, 1:], logits.top_token[0, :, 1:] = NAN, NAN, -1
    write_part(tmp_path / "a" / "logits", 0, logits)
    m, _ = read_members(tmp_path / "a")
    expected = [logits.label_mass[0, 0, 0], logits.label_mass[1, 0].mean(), NAN]
    assert np.allclose(m.label_mass, expected, equal_nan=True)


def test_a_members_entry_has_the_runs_settings_where_it_has_none_itself(tmp_path):
    _, entries = scores_folder(tmp_path / "a", base="b", template="t", pixels=1024, quantization="nf4", other=1)
    m, n = read_members(tmp_path / "a")
    settings = {"orders": "cyclic", "base": "b", "template": "t", "pixels": 1024, "quantization": "nf4"}
    letters = {"letters": "abc"}
    assert n.entry == settings | letters | entries[1] and m.entry == settings | letters | entries[0]
    assert n.settings == settings | {"fingerprint": None}
    assert m.settings == settings | {"fingerprint": "fm", "pixels": 512}


def test_a_folder_that_names_no_orders_was_scored_in_one(tmp_path):
    scores_folder(tmp_path / "a", orders="1")
    record = open_scores(tmp_path / "a").run_json
    del record["identity"]["orders"], record["data"]
    write_json(tmp_path / "a" / "run.json", record)
    m, n = read_members(tmp_path / "a")
    expected = {"orders": "1", "letters": "abc", "member": "n", "temperature": 2.0, "fingerprint": None}
    assert n.entry == expected and n.data == {}
    assert m.entry["orders"] == "1" and m.data == {"file": "of m"}


# ------------------------------------------------------------------ answers of a table
def with_answers(path, answers):
    (member,) = read_members(path, answers=AnswerTable(Path("answers.csv"), answers, {}))
    return member


def refusal_of(path, answers):
    with pytest.raises(EnsembleError) as error:
        with_answers(path, answers)
    return str(error.value)


def test_answers_of_a_table_fill_what_is_empty_and_a_note_counts_them(tmp_path):
    path = write_table(tmp_path / "m.csv", "id,p_a,p_b,answer\nx,0.6,0.4,a\ny,0.5,0.5,\nz,1,0,\n")
    one, both = with_answers(path, {"x": "a", "y": "b", "u": "a"}), with_answers(path, {"y": "b", "z": "a"})
    assert one.questions["answer"] == ["a", "b", ""] and both.questions["answer"] == ["a", "b", "a"]
    assert one.notes[1:] == [f"answers.csv: has 2 of the 3 ids of {path}, fills in 1 answer"]
    assert both.notes[1:] == [f"answers.csv: has 2 of the 3 ids of {path}, fills in 2 answers"]


def test_an_answer_of_a_table_that_is_no_option_of_its_row_is_named(tmp_path):
    path = write_table(tmp_path / "m.csv", "id,p_a,p_b\nx,0.6,0.4\ny,0.5,0.5\n")
    assert refusal_of(path, {"x": "b", "y": "c"}) == (
        f"{path}: answers that are no letter of an option with a number: 'y' ('c'); expected letters, such as a"
    )


@pytest.mark.parametrize("answers, example", [({}, "for it has no row"), ({"u": "a", "v": "a"}, "such as 'u'")])
def test_a_table_with_none_of_the_ids_is_refused(tmp_path, answers, example):
    path = write_table(tmp_path / "m.csv", "id,p_a,p_b\nx,0.6,0.4\ny,0.5,0.5\n")
    assert refusal_of(path, answers) == (
        f"answers.csv: none of its ids, {example}, is an id of {path}, such as 'x'; expected the answers of these rows"
    )


def test_rows_that_have_another_answer_already_are_named(tmp_path):
    path = write_table(tmp_path / "m.csv", "id,p_a,p_b,answer\nx,0.6,0.4,a\ny,0.5,0.5,b\n")
    assert refusal_of(path, {"x": "b", "y": "b"}) == (
        f"{path}: 1 row has another answer in answers.csv: 'x' (a, and b in the table); "
        "expected one right answer for each id"
    )
    assert refusal_of(path, {"x": "b", "y": "a"}) == (
        f"{path}: 2 rows have another answer in answers.csv: 'x' (a, and b in the table), "
        "'y' (b, and a in the table); expected one right answer for each id"
    )


# ------------------------------------------------------------------ calibrations
def test_rows_of_a_given_calibration_are_flagged_beside_what_is_known_of_them():
    known = {"digest": ["w", "x", "y", "z"], "picture_digest": ["p"] * 4, "question": ["q"] * 4}
    exposed = np.array([TRAINING, VALIDATION | CALIBRATION, CALIBRATION, 0], np.uint8)
    member = Member("m", list("wxyz"), np.zeros((4, 2)), questions=known, exposed=exposed)
    given = Calibration(2.0, digests=["x", "z"], fingerprint={"member": "m", "orders": "1"})
    (calibrated,) = match_calibrations([member], [given])
    assert calibrated.exposed.tolist() == [TRAINING, VALIDATION | CALIBRATION, 0, CALIBRATION]
    assert calibrated.exposed.dtype == np.uint8 and calibrated.calibration is given


def test_members_of_a_pool_have_the_temperatures_of_their_rows_task_types():
    """At temperature 2 probabilities of 4 : 1 are 2 : 1."""
    logits = np.log(np.tile([0.8, 0.2], (2, 2, 1)))
    names = [Member(name, ["x", "y"], logits[0]) for name in "mn"]
    pool = MemberPool(names, logits, [Calibration(1.0, groups={"count": 2.0}), Calibration()], PoolSettings())
    p = np.exp(pool.calibrated(logits, ["count", "object"]))
    assert p[0] == pytest.approx(np.array([[2 / 3, 1 / 3], [0.8, 0.2]]))
    assert p[1] == pytest.approx(np.array([[0.8, 0.2], [0.8, 0.2]]))


# ------------------------------------------------------------------ members side by side
def source_of(name, ids, values, **questions):
    return Member(name, list(ids), np.array(values, float), questions=questions)


def test_members_are_put_in_the_order_of_the_first_ones_rows(tmp_path):
    first = source_of("m", "xyz", [[1, 2], [3, 4], [5, 6]])
    second = source_of("n", "zxy", [[50, 60, NAN], [10, 20, NAN], [30, 40, NAN]])
    third = source_of("o", "xyz", [[7, 8], [9, 0], [1, 1]])
    values = aligned([first, second, third])
    assert values.shape == (3, 3, 3) and np.isnan(values[:, :, 2]).all()
    assert values[:, :, :2].tolist() == [
        [[1, 2], [3, 4], [5, 6]],
        [[10, 20], [30, 40], [50, 60]],
        [[7, 8], [9, 0], [1, 1]],
    ]


def test_all_faults_of_all_members_are_named_at_once():
    first = source_of("m", "xyz", [[1, 2, 3, NAN]] * 3)
    others = [
        source_of("n", "xyx", [[1, 2, 3]] * 3),
        source_of("o", "xvwz", [[1, 2, 3]] * 4),
        source_of("p", "xyzu", [[1, 2, 3]] * 4),
        source_of("q", "x", [[1, 2, 3]]),
        source_of("r", "zyx", [[1, 2, NAN], [1, 2, 3], [1, 2, NAN]]),
        source_of("s", "xyz", [[1, 2, 3, NAN], [1, 2, NAN, 3], [NAN, 2, 3, 1]]),
    ]
    with pytest.raises(EnsembleError) as error:
        aligned([first, *others])
    assert str(error.value).split("\n") == [
        "n: ids more than once: 'x'",
        "o: ids of m that are missing: 'y'",
        "o: ids that m does not have: 'v', 'w'",
        "p: ids that m does not have: 'u'",
        "q: ids of m that are missing: 'y', 'z'",
        "r: another number of options than in m: 'x' (3 and 2), 'z' (3 and 2)",
        "s: other options than in m: 'y' (abc and abd), 'z' (abc and bcd)",
    ]


def test_the_first_members_ids_may_not_repeat_either():
    with pytest.raises(EnsembleError, match=r"^m: ids more than once: 'x', 'y', 'x'$"):
        aligned([source_of("m", "xyxyx", [[1, 2]] * 5)])


def test_rows_that_one_member_has_not_scored_may_have_any_number_of_options():
    first = source_of("m", "xy", [[NAN, NAN, NAN], [1, 2, 3]])
    second = source_of("n", "xy", [[1, 2, NAN], [NAN, NAN, NAN]])
    expected = [[[NAN] * 3, [1, 2, 3]], [[1, 2, NAN], [NAN] * 3]]
    assert np.array_equal(aligned([first, second]), expected, equal_nan=True)


@pytest.mark.parametrize(
    "column, values, others, what",
    [
        ("picture_digest", ["d", "e", "f"], ["d", "e", "g"], "picture"),
        ("question", ["q", "r", "s"], ["q", "r", "t"], "question"),
        ("choices", [["u"], ["v"], ["w"]], [["u"], ["v"], ["x"]], "options' texts"),
    ],
)
def test_another_question_under_one_id_is_named_wherever_its_row_stands(column, values, others, what):
    first = source_of("m", "xyz", [[1, 2]] * 3, **{column: values})
    same = source_of("n", "zyx", [[1, 2]] * 3, **{column: values[::-1]})
    other = source_of("o", "zyx", [[1, 2]] * 3, **{column: others[::-1]})
    assert aligned([first, same]).shape == (2, 3, 2)
    with pytest.raises(EnsembleError) as error:
        aligned([first, same, other])
    assert str(error.value) == f"o: another {what} under the id of m: 'z'"


@pytest.mark.parametrize("unknown", [{}, {"question": []}, {"question": ["", ""]}, {"question": ["", "r"]}])
def test_questions_that_one_member_does_not_know_are_not_compared(unknown):
    first = source_of("m", "xy", [[1, 2]] * 2, question=["q", "r"])
    second = source_of("n", "xy", [[1, 2]] * 2, **unknown)
    assert aligned([first, second]).shape == aligned([second, first]).shape == (2, 2, 2)


def test_every_kind_of_difference_between_two_rows_is_named():
    first = source_of("m", "xy", [[1, 2, 3]] * 2, picture_digest=["d", "d"], question=["q", "q"], choices=[["u"]] * 2)
    second = source_of(
        "n", "xy", [[1, 2, NAN], [1, 2, 3]], picture_digest=["e", "d"], question=["q", "r"], choices=[["v"], ["u"]]
    )
    with pytest.raises(EnsembleError) as error:
        aligned([first, second])
    assert str(error.value).split("\n") == [
        "n: another number of options than in m: 'x' (3 and 2)",
        "n: another picture under the id of m: 'x'",
        "n: another question under the id of m: 'y'",
        "n: another options' texts under the id of m: 'x'",
    ]


# ------------------------------------------------------------------ lists of faults
@pytest.mark.parametrize(
    "count, expected",
    [
        (1, "0"),
        (10, "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"),
        (11, "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 … and 1 more"),
        (1244, "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 … and 1,234 more"),
    ],
)
def test_ten_faults_are_named_and_the_others_counted(count, expected):
    assert first_of(str(number) for number in range(count)) == expected


def test_options_are_matched_one_by_one(tmp_path):
    first = write_table(tmp_path / "a.csv", "id,p_a,p_b,p_c,p_d\nx,0,0.2,0.8,\n")
    second = write_table(tmp_path / "b.csv", "id,p_a,p_b,p_c,p_d\nx,0,0.2,,0.8\n")
    with pytest.raises(EnsembleError, match=r"b: other options than in a: 'x' \(abc and abd\)"):
        pool_files([first, second], tmp_path / "out")


@pytest.mark.parametrize(
    "column, change, problem",
    [
        ("choices", lambda value: value[::-1], "another options' texts under the id"),
        ("question", lambda value: value + "?", "another question under the id"),
        ("picture_digest", lambda value: "f" * 16, "another picture under the id"),
    ],
)
def test_another_question_under_one_id_is_refused(tmp_path, column, change, problem):
    """Two folders with the same ids and reversed options were pooled: .74 became .383."""
    first, second = write_scores(tmp_path / "a"), write_scores(tmp_path / "b", temperature=1.0)
    for folder in (first, second):
        change_columns(folder, picture_digest=[f"{row // 2:016x}" for row in range(200)])
    values = open_scores(second).questions[column]
    change_columns(second, **{column: [*values[:3], *map(change, values[3:5]), *values[5:]]})
    with pytest.raises(EnsembleError) as error:
        pool_files([first, second], tmp_path / "out")
    assert problem in str(error.value) and "'row3', 'row4'" in str(error.value)


def test_answers_that_differ_are_refused(tmp_path):
    first = write_table(tmp_path / "a.csv", "id,a,b,answer\nx,0.4,0.6,a\n")
    second = write_table(tmp_path / "b.csv", "id,a,b,answer\nx,0.3,0.7,b\n")
    with pytest.raises(EnsembleError, match=r"answers of members differ: 'x' \(a and b of b\)"):
        pool_files([first, second], tmp_path / "out")


def test_a_calibration_for_one_choice_of_orders_serves_no_other(tmp_path):
    a, b = two_folders(tmp_path)
    change_settings(b, orders="cyclic")
    calibration = Calibration(2.0, fingerprint={"adapter": "fb", "orders": "1"})
    with pytest.raises(EnsembleError, match="orders is 1, but b was scored in orders cyclic"):
        pool_files([a, b], tmp_path / "x", PoolOptions(calibrations=[calibration]))
    calibration.fingerprint["orders"] = "cyclic"
    pooled = pool_files([a, b], tmp_path / "out", PoolOptions(calibrations=[calibration]))
    assert [entry.temperature for entry in pooled.scores.calibrations] == [1.0, 2.0]


TWICE = {
    "its probabilities": ("p_{}", np.exp),
    "four digits of them": ("p_{}", lambda z: np.round(np.exp(z), 4)),
    "rounded logits": ("l_{}", lambda z: np.round(z, 4)),
    "logits a little higher": ("l_{}", lambda z: z + 3),
    "16 bits of a mantissa": ("l_{}", lambda z: z.astype(np.float32)),
    "less sure": ("l_{}", lambda z: z / 1.7),
    "surer, to four digits": ("p_{}", lambda z: np.round(softmax(1.4 * z, axis=1), 4)),
}


@pytest.mark.parametrize("case", TWICE)
def test_a_member_that_is_there_twice_in_another_form_is_refused(tmp_path, case):
    log_p, _, ids = draw_rows(200, 5)
    pattern, make = TWICE[case]
    one = write_csv(tmp_path / "one.csv", ids, log_p[1] + 2, "l_{}")
    two = write_csv(tmp_path / "two.csv", ids[::-1], make(log_p[1])[::-1], pattern)
    other = write_csv(tmp_path / "other.csv", ids, np.exp(log_p[0]))
    with pytest.raises(
        EnsembleError, match=r"one of .*one\.csv and two of .*two\.csv have the same numbers in every"
    ) as e:
        pool_files([one, other, two], tmp_path / "out")
    assert ("temperature" in str(e.value)) == case.endswith(("sure", "surer, to four digits"))
    pool_files([other, two], tmp_path / "out")


def test_a_folder_and_its_own_probabilities_are_one_member(tmp_path):
    folder = write_scores(tmp_path / "a")
    change_settings(folder, calibration={"temperature": 2.0, "letters": [0.0, 0.3, -0.4, 0.9]})
    first = open_scores(folder)
    write_csv(tmp_path / "own.csv", first.logits.ids, np.round(np.exp(first.log_p), 6))
    with pytest.raises(EnsembleError, match="have the same numbers in every row, but for rounding"):
        pool_files([folder, tmp_path / "own.csv"], tmp_path / "out")


def test_members_that_are_sure_of_the_same_answers_are_two(tmp_path):
    """All but a few rows look alike once they are rounded."""
    rng = np.random.default_rng(0)
    z = np.eye(4)[rng.integers(0, 4, 400)] * 14
    paths = [
        write_csv(tmp_path / f"{name}.csv", [*map(str, range(400))], z + rng.normal(0, 1, z.shape), "l_{}")
        for name in "ab"
    ]
    assert len(pool_files(paths, tmp_path / "out").scores.logits.members) == 2


def test_every_kind_of_fault_of_a_file_is_named(tmp_path):
    log_p, _ = members(1, 30)
    p, ids = np.exp(log_p[0]), [f"r{row}" for row in range(30)]
    good = write_csv(tmp_path / "good.csv", ids, p)
    cases = {
        "missing: 'r0', 'r1'": (ids[2:], p[2:]),
        "does not have: 'x0'": ([*ids[:-1], "x0"], p),
        "ids more than once: 'r0'": ([*ids, "r0"], np.vstack([p, p[:1]])),
        "another number of options": (ids, np.exp(log_softmax(log_p[0][:, :3], axis=1))),
        "must sum to 1; not so in 'r3'": (ids, np.where(np.arange(30)[:, None] == 3, p * 0.5, p)),
    }
    for message, (names, values) in cases.items():
        with pytest.raises(EnsembleError, match=message):
            pool_files([good, write_csv(tmp_path / "bad.csv", names, values)], tmp_path / "out")
    (tmp_path / "bad.csv").write_text("id,p_a,p_b\nr0,half,0.5\n")
    with pytest.raises(EnsembleError, match="p_a is 'half'"):
        read_members(tmp_path / "bad.csv")
    (tmp_path / "bad.csv").write_text("name,x\n1,2\n")
    with pytest.raises(EnsembleError, match="expected `id` and a column for each letter"):
        read_members(tmp_path / "bad.csv")
    with pytest.raises(EnsembleError, match="1 member"):
        pool_files([good], tmp_path / "out")
    with pytest.raises(EnsembleError, match="2 numbers"):
        pool_files([good, good], tmp_path / "out", PoolOptions(weights="1,2,3"))
    with pytest.raises(EnsembleError, match="the same numbers in every row: one member would count twice"):
        pool_files([good, good], tmp_path / "out")
