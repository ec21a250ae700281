"""A server around the model that all tests share."""

import pytest

from tests.shared.serving import running

pytest.importorskip("uvicorn")


@pytest.fixture(scope="session")
def served(asked):
    """The address of a server that everybody on this machine may ask."""
    with running(asked) as address:
        yield address


@pytest.fixture(scope="session")
def rows(test_rows):
    """Some of the demo's, of each kind."""
    return test_rows[::25]


@pytest.fixture(scope="session")
def scores(asked, rows):
    """The probabilities that `score` gives the rows, by id."""
    return {answer.id: dict(answer) for answer in asked.score(rows)}
