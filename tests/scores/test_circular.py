"""CircularEval: VLMEvalKit's rule on an example worked out by hand, rows with fewer orders, several members."""

import json
from pathlib import Path

import numpy as np
import pytest

from scoring.inputs.orders import option_orders
from scoring.inputs.questions import Question
from scoring.scores.circular import circular_accuracy
from scoring.scores.evaluation import evaluate_scores
from scoring.scores.folder import Scores, columns_of, open_scores, write_results
from scoring.scores.logits import OptionLogits, write_part
from scoring.stats.calibration import Calibration
from scoring.stats.resampling import clusters_of, share_of

# Four questions in four rotations, as VLMEvalKit writes them: a rotated copy of question i has the index i + k * 10**6.
# Rotation k shows at A the option that stands k places further on, so that an answer B becomes A, then D, then C.
# index: (right letter, the model's letter), by the letters of that rotation.
ROTATIONS = {
    1: ("B", "B"), 1_000_001: ("A", "A"), 2_000_001: ("D", "D"), 3_000_001: ("C", "C"),  # right in all: counts
    2: ("A", "A"), 1_000_002: ("D", "D"), 2_000_002: ("C", "A"), 3_000_002: ("B", "B"),  # wrong in one: does not
    3: ("D", "A"), 1_000_003: ("C", "A"), 2_000_003: ("B", "A"), 3_000_003: ("A", "A"),  # says A always: does not
    4: ("C", "C"), 1_000_004: ("B", "B"), 2_000_004: ("A", "A"), 3_000_004: ("D", "D"),  # right in all: counts
}  # fmt: skip
HITS = {1: True, 2: False, 3: False, 4: True}  # by their rule: two of four, though 12 of 16 answers are right


def rotated(letter, order):
    """The data's option at a letter of an order, such as d for B in cdab."""
    return order["ABCD".index(letter)]


def folder_of(answers, right, counts=None, members=1, orders="cyclic", temperatures=None):
    """Scores whose rows answer with these options: answers[row][member][order], None where that has no score."""
    rows, letters = len(answers), 4
    logits = OptionLogits.empty([f"r{row}" for row in range(rows)], [f"m{m}" for m in range(members)], letters, orders)
    logits.status = ["ok"] * rows
    counts = counts or [letters] * rows
    for row, of_members in enumerate(answers):
        for member, of_orders in enumerate(of_members):
            for order, option in enumerate(of_orders):
                if option is not None:
                    chosen = np.arange(counts[row]) == "abcd".index(option)
                    logits.logits[row, member, order, : counts[row]] = np.where(chosen, 2.0, 0.5)
    questions = [Question(f"r{row}", row + 1, (), "q", tuple("wxyz"[: counts[row]]), right[row]) for row in range(rows)]
    calibrations = [Calibration(t) for t in temperatures or [1.0] * members]
    return scores_of(logits, questions, calibrations)


def scores_of(logits, questions, calibrations, pool=None):
    entries = [{"member": name, "temperature": 1.0} for name in logits.members]
    run_json = {"checkpoints": entries, "identity": {"letters": "abcd", "orders": logits.orders}}
    if pool:
        run_json["pool"] = pool
    return Scores(Path(), run_json, logits, calibrations, columns_of(questions))


# ------------------------------------------------------------------ the rule
def test_what_vlmevalkits_rule_counts_is_counted_on_four_rows_worked_out_by_hand():
    orders = option_orders(4, "cyclic")
    assert orders == ["abcd", "bcda", "cdab", "dabc"]  # rotation k is the order k
    right, answers = [], []
    for question, hit in HITS.items():
        group = [ROTATIONS[question + k * 1_000_000] for k in range(4)]
        assert all(gold == said for gold, said in group) == hit
        golds = {rotated(gold, order) for (gold, _), order in zip(group, orders)}
        assert len(golds) == 1  # every rotation asks for the same option
        right.append(golds.pop())
        answers.append([[rotated(said, order) for (_, said), order in zip(group, orders)]])
    assert right == ["b", "a", "d", "c"] and answers[2] == [["a", "b", "c", "d"]]  # at A stands another one each time
    found = circular_accuracy(folder_of(answers, right))
    assert (found["value"], found["rows"], found["fewer_orders"], found["right_in_fewer"]) == (0.5, 4, 0, 0)
    interval = share_of(np.array(list(HITS.values())))
    assert (found["low"], found["high"]) == (interval["low"], interval["high"])
    assert sum(gold == said for gold, said in ROTATIONS.values()) == 12


def test_rows_with_fewer_options_have_as_many_orders():
    """Three options: right in all three; right in two of three. Two options: right in both."""
    three, two = ["a", "a", "a", None], ["b", "b", None, None]
    scores = folder_of([[three], [["c", "c", "a", None]], [two], [list("dddd")]], "acbd", [3, 3, 2, 4])
    found = circular_accuracy(scores)
    assert (found["value"], found["rows"], found["fewer_orders"]) == (0.75, 4, 0)


def test_rows_without_a_score_in_one_of_their_orders_are_counted_apart():
    """In the order of the data alone (right, and wrong); one order missing; complete; no label; no score."""
    one, other = ["a", None, None, None], ["b", None, None, None]
    answers = [[one], [other], [["a", "a", None, "a"]], [list("aaaa")], [list("aaaa")], [[None] * 4]]
    scores = folder_of(answers, ["a", "a", "a", "a", "", "a"])
    scores.logits.status[5] = "picture: an empty file"
    found = circular_accuracy(scores)
    assert (found["value"], found["rows"]) == (1.0, 1)
    assert (found["fewer_orders"], found["right_in_fewer"]) == (3, 2)


def test_an_order_in_which_an_option_has_no_number_is_missing():
    scores = folder_of([[list("aaaa")], [list("bbbb")]], "ab")
    scores.logits.logits[0, 0, 2, 3] = np.nan
    found = circular_accuracy(scores)
    assert (found["value"], found["rows"], found["fewer_orders"], found["right_in_fewer"]) == (1.0, 1, 1, 1)


def test_without_a_row_in_every_order_there_is_no_share():
    found = circular_accuracy(folder_of([[["a", None, None, None]]], "a"))
    assert found == {"value": None, "low": None, "high": None, "rows": 0, "fewer_orders": 1, "right_in_fewer": 1}


@pytest.mark.parametrize("orders", ["1", "2", "adaptive", "pride"])
def test_runs_in_other_orders_have_none(orders):
    count = len(option_orders(4, orders))
    assert circular_accuracy(folder_of([[["a"] * count]], "a", orders=orders)) is None


# ------------------------------------------------------------------ against a loop
def noisy(n, orders, members=1, seed=0):
    """Rows of two to four options with noise in each order; every seventh is scored in the data's order alone."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(2, 5, n)
    logits = OptionLogits.empty([f"r{row}" for row in range(n)], [f"m{m}" for m in range(members)], 4, orders)
    logits.status = ["ok"] * n
    questions = []
    for row, count in enumerate(counts.tolist()):
        y = int(rng.integers(count))
        names = option_orders(count, orders)[: 1 if row % 7 == 0 else None]
        for member in range(members):
            z = rng.normal(0, 1, (len(names), count))
            z[:, y] += 2
            logits.logits[row, member, : len(names), :count] = z
        options = tuple("wxyz"[:count])
        questions.append(
            Question(f"r{row}", row + 1, (Path(f"{row // 2}.jpg"),), f"q{row}", options, "abcd"[y], "xy"[row % 2])
        )
    return logits, questions


def test_all_orders_and_cyclic_ones_equal_a_loop_over_rows():
    for orders in ("cyclic", "all"):
        logits, questions = noisy(80, orders)
        hits, pictures, fewer = [], [], []
        for row, question in enumerate(questions):
            count = len(question.options)
            by_name = dict(zip(option_orders(count, orders), logits.logits[row, 0]))
            said = [
                "abcd"[int(np.argmax(by_name[name][:count]))]
                for name in option_orders(count, "cyclic")
                if np.isfinite(by_name[name][:count]).all()
            ]
            right = all(letter == question.answer for letter in said)
            if len(said) == count:
                hits.append(right)
                pictures.append(question.picture)
            else:
                fewer.append(right)
        found = circular_accuracy(scores_of(logits, questions, [Calibration()]))
        assert (found["rows"], found["fewer_orders"], found["right_in_fewer"]) == (len(hits), 12, sum(fewer))
        assert len(hits) == 68 and 0.2 < np.mean(hits) < 0.8
        wanted = share_of(np.array(hits), clusters_of(pictures))  # rows of one picture belong together
        assert {key: found[key] for key in wanted} == pytest.approx(wanted) and "design_effect" in wanted


def test_several_members_are_pooled_in_each_order():
    """Two of three members are wrong in one order, where the third is surer: what decides is their pool."""
    answers = [[list("aaaa"), list("abaa"), list("abaa")], [list("bbbb"), list("bbab"), list("bbab")]]
    scores = folder_of(answers, "ab", members=3)
    assert circular_accuracy(scores)["value"] == 0.0
    scores.logits.logits[0, 0, 1, 0] = 9.0
    assert circular_accuracy(scores)["value"] == 0.5
    scores.calibrations = [Calibration(20.0), Calibration(), Calibration()]  # unsure again
    assert circular_accuracy(scores)["value"] == 0.0


@pytest.mark.parametrize(
    "pool", [None, {"kind": "log", "weights": [0.9, 0.1]}, {"kind": "linear", "weights": [0.3, 0.7]}]
)
def test_members_are_calibrated_and_pooled_as_the_run_pools_them(pool):
    logits, questions = noisy(60, "cyclic", members=2)
    calibrations = [Calibration(0.4, letters=[0.0, 3.0, 0.0, 0.0]), Calibration(1.0, groups={"x": 5.0, "y": 0.2})]
    hits = []
    for row, question in enumerate(questions):
        count = len(question.options)
        z = logits.logits[row, :, :count, :count].astype(float)
        if not np.isfinite(z).all():
            continue
        temperatures = [0.4, {"x": 5.0, "y": 0.2}[question.task_type]]  # a letter bias is for one order alone
        p = np.exp(z / np.array(temperatures)[:, None, None])
        p /= p.sum(2, keepdims=True)
        weights = np.array((pool or {}).get("weights", [0.5, 0.5]))[:, None, None]
        pooled = (weights * (p if pool and pool["kind"] == "linear" else np.log(p))).sum(0)
        hits.append((pooled.argmax(1) == "abcd".index(question.answer)).all())
    found = circular_accuracy(scores_of(logits, questions, calibrations, pool and pool | {"temperature": 1.5}))
    assert found["rows"] == len(hits) and found["value"] == pytest.approx(np.mean(hits))
    plain = circular_accuracy(scores_of(logits, questions, [Calibration(), Calibration()]))
    assert plain["value"] != found["value"]  # the settings matter on these rows


def test_a_row_that_one_member_has_not_in_every_order_is_counted_apart():
    scores = folder_of([[list("aaaa"), ["a", None, "a", "a"]], [list("bbbb"), list("bbbb")]], "ab", members=2)
    found = circular_accuracy(scores)
    assert (found["rows"], found["value"], found["fewer_orders"], found["right_in_fewer"]) == (1, 1.0, 1, 1)


# ------------------------------------------------------------------ in metrics.json
def test_metrics_json_has_it_only_for_runs_in_every_cyclic_order(tmp_path):
    for orders in ("cyclic", "all", "2", "1"):
        logits, questions = noisy(40, orders)
        out = tmp_path / orders
        (out / "logits").mkdir(parents=True)
        write_part(out / "logits", 0, logits)
        write_results(out, questions, logits, [Calibration()])
        entries = [{"member": "m0", "temperature": 1.0}]
        record = {"checkpoints": entries, "identity": {"letters": "abcd", "orders": orders}}
        (out / "run.json").write_text(json.dumps(record))
        evaluate_scores(open_scores(out))
        written = json.loads((out / "metrics.json").read_text())
        assert ("circular" in written) == (orders in ("cyclic", "all"))
        if "circular" in written:
            assert written["circular"] == circular_accuracy(open_scores(out))
            assert written["circular"]["rows"] + written["circular"]["fewer_orders"] == written["overall"]["rows"]
