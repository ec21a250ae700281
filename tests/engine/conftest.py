"""Rows of the demo."""

import pytest


@pytest.fixture(scope="session")
def rows(test_rows):
    """Every 16th of the demo's: four to six of each kind."""
    return test_rows[::16]
