"""Questions are withdrawn with a token, before and while they wait."""

import warnings
from concurrent.futures import CancelledError, Future
from dataclasses import replace

import pytest

from scoring.errors import CallError
from scoring.library.ask_limits import AskLimits, CancelToken


def test_a_token_cancels_what_it_watches_and_what_comes_later():
    token, waiting, done, later = CancelToken(), Future(), Future(), Future()
    token.watch(waiting)
    token.watch(done)
    done.set_result(1)
    token.cancel()
    token.watch(later)
    assert waiting.cancelled() and later.cancelled() and done.result() == 1


def test_withdrawn_questions_are_not_computed(asked, rows):
    token = CancelToken()
    token.cancel()
    with pytest.raises(CancelledError):
        asked.ask_together(rows[:2], limits=AskLimits(cancel=token))


def test_questions_with_too_many_tokens_are_refused_before_they_wait(asked, rows):
    limits = AskLimits()
    asked.ask_together(rows[:1], limits=limits)
    assert limits.tokens > 100
    with pytest.raises(CallError, match=f"{limits.tokens:,} tokens.*expected at most 100"):
        asked.ask_together(rows[:1], limits=AskLimits(most_tokens=100))


@pytest.mark.parametrize("orders", ["1", "cyclic", "adaptive"])
def test_questions_asked_together_get_what_score_gives(asked, rows, orders):
    questions = [*rows[:3], replace(rows[0], id="again", options=rows[0].options[:2], answer=""), rows[3]]
    questions.append(replace(rows[1], id="faulty", fault="no picture"))
    expected = list(asked.score(questions[:5], orders=orders))
    answers = asked.ask_together(questions, orders=orders)
    for answer, scored in zip(answers, expected):
        assert dict(answer) == pytest.approx(dict(scored), abs=1e-5) and answer.letter == scored.letter
        assert answer.label_mass == pytest.approx(scored.label_mass, abs=1e-5)
        assert answer.margin == pytest.approx(scored.margin, abs=1e-5)
        assert answer.members == {"fold0": pytest.approx(dict(answer))}
    assert answers[5].status == "no picture" and not answers[5]


def test_questions_with_unreadable_pictures_say_so_without_a_warning(asked, rows, tmp_path):
    broken = tmp_path / "broken.jpg"
    content = rows[0].picture.read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    questions = [replace(rows[0], id=name, pictures=(broken,)) for name in ("first", "second")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answers = asked.ask_together(questions)
    assert all(answer.status.startswith("picture: ") and not answer for answer in answers)


def test_rows_may_be_dicts_and_share_their_picture(asked, rows):
    row, limits = rows[0], AskLimits()
    given = [{"path": str(row.picture), "question": text, "choices": list(row.options)} for text in ("What?", "Who?")]
    answers = asked.ask_together(
        [*given, {"path": "none.jpg", "question": "What?", "choices": ["one", "two"]}], limits=limits
    )
    for answer, each in zip(answers, given):
        alone = asked.ask(row.picture, each["question"], row.options)
        assert dict(answer) == pytest.approx(dict(alone), abs=1e-5)
    assert "none.jpg" in answers[2].status and not answers[2].scored
    single = AskLimits()
    asked.ask_together(given[:1], limits=single)
    assert limits.tokens < 2 * single.tokens
