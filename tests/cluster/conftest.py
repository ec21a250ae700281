"""The first rows of the demo's test table."""

import pytest

from scoring.tables.reading import read_table


@pytest.fixture
def table(demo):
    found = read_table(demo / "test.csv")
    found.questions = found.questions[:20]
    return found
