"""Rows of the demo."""

import pytest


@pytest.fixture(scope="session")
def rows(test_rows):
    """Every sixth of the demo's, of all kinds."""
    return test_rows[::6]
