"""Lines through `logging`, warnings of a category of its own, and progress by a function."""

import logging
import warnings

import pytest

from scoring.library.messages import LOGGER, ProgressOf, ScoringWarning, say_to_log, warn


def test_lines_go_to_the_logger_scoring_which_has_no_level_and_shows_nothing_by_itself(caplog, capsys):
    assert LOGGER.name == "scoring" and LOGGER.level == logging.NOTSET
    assert [type(handler) for handler in LOGGER.handlers] == [logging.NullHandler]
    say_to_log("50% read; lower --batch-tokens")  # at the host's level, which is WARNING by default
    assert not caplog.records
    with caplog.at_level(logging.INFO, "scoring"):
        say_to_log("50% read; lower --batch-tokens")
    (record,) = caplog.records
    assert record.getMessage() == "50% read; lower batch_tokens=" and record.levelno == logging.INFO
    assert capsys.readouterr() == ("", "")


def test_a_warning_has_a_category_of_its_own_and_names_the_line_that_called_the_library():
    with pytest.warns(ScoringWarning) as caught:
        warn(["low label mass", "`--orders cyclic` averages it out"])
    assert [str(warning.message) for warning in caught] == ["low label mass", '`orders="cyclic"` averages it out']
    assert {warning.filename for warning in caught} == {__file__} and issubclass(ScoringWarning, UserWarning)
    inside = {"warn": warn, "__name__": "scoring.library.scorer"}
    exec("def score():\n    warn(['one'])", inside)
    with pytest.warns(ScoringWarning) as caught:
        inside["score"]()
    assert caught[0].filename == __file__


def test_a_program_can_make_them_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error", ScoringWarning)
        with pytest.raises(ScoringWarning, match="low label mass"):
            warn(["low label mass"])


def test_progress_is_told_at_the_start_and_after_each_step():
    told = []
    progress = ProgressOf(lambda done, total: told.append((done, total)))
    bar = progress(10, 4)  # a continued run
    bar.update(2)
    bar.show(rows="1")
    bar.update(4)
    bar.close()
    assert told == [(4, 10), (6, 10), (10, 10)]
