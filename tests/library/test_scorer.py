"""The public scorer: ask, score, stream, close, and what it refuses."""

import gc
import multiprocessing
import pickle
import threading
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from scoring.errors import InputError, ScoringError
from scoring.inputs.orders import OrdersError
from scoring.inputs.pictures import PictureError
from scoring.library.scorer import Scorer


def ask(scorer, row, **options):
    return scorer.ask(row.pictures, row.question, row.options, hint=row.task_hint, task_type=row.task_type, **options)


def test_a_question_is_asked_with_its_picture_in_any_form(asked, rows):
    row = rows[0]
    answer = ask(asked, row)
    assert list(answer) == list("abcd") and sum(answer.values()) == pytest.approx(1)
    assert answer.letter == max(answer, key=answer.get) == row.answer
    assert answer.option == row.options["abcd".index(row.answer)]
    assert 0.9 < answer.label_mass <= 1 and answer.scored
    with Image.open(row.picture) as picture:
        forms = [str(row.picture), row.picture.read_bytes(), picture.copy(), np.asarray(picture.convert("RGB"))]
    for form in forms:
        assert ask(asked, replace(row, pictures=(form,))) == answer
    assert len(asked.ask(row.picture, row.question, row.options[:2])) == 2
    assert asked.ask(None, row.question, row.options) == asked.ask([], row.question, row.options) != answer


@pytest.mark.parametrize("orders", ["1", "cyclic", "adaptive", 3])
def test_asking_in_other_orders_gives_what_score_gives(asked, rows, orders):
    answers = asked.score(rows[:4], orders=orders)
    for row, scored in zip(rows[:4], answers):
        answer = ask(asked, row, orders=orders)
        assert dict(answer) == pytest.approx(dict(scored), abs=1e-5)
        assert (answer.margin, answer.label_mass) == pytest.approx((scored.margin, scored.label_mass), abs=1e-5)


def test_what_cannot_be_asked_is_refused_by_name(asked, rows, tmp_path):
    row = rows[0]
    with pytest.raises(InputError, match="options"):
        asked.ask(row.picture, row.question, ["one"])
    with pytest.raises(InputError, match="dict"):
        asked.ask(row.picture, row.question, {"a": "x", "b": "y"})
    with pytest.raises(PictureError, match="no file"):
        asked.ask(tmp_path / "none.jpg", row.question, row.options)
    broken = row.picture.read_bytes()[:500]
    with pytest.raises(PictureError):
        asked.ask(broken, row.question, row.options)
    for orders in ("bogus", "pride"):
        with pytest.raises(OrdersError):
            ask(asked, row, orders=orders)
    with pytest.raises(OrdersError, match="list their options too"):
        asked.ask(row.picture, "Which? (a) red (b) blue", ["red", "blue"], orders="cyclic")


def test_one_bad_row_costs_itself_alone(asked, rows, tmp_path):
    given = [rows[0], {"question": "What?", "path": "none.jpg", "a": "x", "b": "y"}, None, rows[1]]
    seen = []
    answers = asked.score(given, images=rows[0].picture.parent, progress=lambda done, total: seen.append((done, total)))
    assert [answer.scored for answer in answers] == [True, False, False, True]
    assert "no file" in answers.status[1] and answers.letters[1] == ""
    assert dict(answers[3]) == pytest.approx(dict(ask(asked, rows[1])), abs=1e-5)
    assert seen[0] == (0, 2) and seen[-1] == (2, 2)


def test_a_stream_gives_answers_in_order_and_holds_few_rows(asked, rows, monkeypatch):
    monkeypatch.setattr("scoring.library.scorer.STREAMED", 3)
    taken = []

    def questions():
        for number in range(40):
            taken.append(number)
            row = rows[number % len(rows)]
            yield {"path": str(row.picture), "question": row.question, **dict(zip("abcd", row.options))}

    stream = asked.stream(questions())
    first = [next(stream) for _ in range(4)]
    assert [answer.id for answer in first] == ["1", "2", "3", "4"] and len(taken) < 12
    stream.close()
    listed = list(asked.stream(rows[:3]))
    assert [dict(answer) for answer in listed] == [pytest.approx(dict(ask(asked, row)), abs=1e-5) for row in rows[:3]]


def test_a_scorer_is_sent_to_processes_as_what_it_is_loaded_from(asked, scorer):
    assert len(pickle.dumps(asked)) < 2_000
    function, arguments = asked.__reduce__()
    assert function is Scorer and arguments == (asked.settings,)


def told(scorer, row, tell):
    try:
        tell(str(ask(scorer, row)))
    except ScoringError as error:
        tell(str(error))


def test_a_forked_child_is_told_what_to_do(asked, rows):
    context = multiprocessing.get_context("fork")
    answer = context.SimpleQueue()
    child = context.Process(target=told, args=(asked, rows[0], answer.put))
    child.start()
    child.join(30)
    child.kill()
    assert not answer.empty() and "before the process was forked" in answer.get()


def test_a_closed_scorer_refuses_and_frees_its_thread(asked, scorer, rows):
    with Scorer(asked.settings, scorer) as other:
        assert ask(other, rows[0]).scored
        working = [thread for thread in threading.enumerate() if thread.name == "scoring"]
    assert "closed" in repr(other)
    assert len([thread for thread in threading.enumerate() if thread.name == "scoring"]) == len(working) - 1
    for call in (lambda: ask(other, rows[0]), lambda: other.score(rows[:1]), lambda: list(other.stream(rows[:1]))):
        with pytest.raises(ScoringError, match="closed"):
            call()
    other.close()  # once more, which does nothing


def test_a_scorer_that_nobody_holds_frees_its_thread(asked, scorer, rows):
    before = threading.active_count()
    other = Scorer(asked.settings, scorer)
    ask(other, rows[0])
    assert threading.active_count() == before + 1
    del other
    gc.collect()
    assert threading.active_count() == before
