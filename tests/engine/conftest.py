"""Rows of the demo."""

import pytest


@pytest.fixture(scope="session")
def rows(test_rows):
    """Every third of the demo's, of all kinds and pictures."""
    return test_rows[::3]
