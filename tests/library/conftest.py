"""The demo's first checkpoint as programs have it, loaded once."""

import pytest


@pytest.fixture(scope="session")
def rows(test_rows):
    """Some of the demo's, of each kind."""
    return test_rows[::40]
