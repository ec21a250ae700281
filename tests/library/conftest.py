"""The demo's first checkpoint as programs have it, loaded once."""

import pytest


@pytest.fixture(scope="session")
def asked(scorer, demo):
    """A `Scorer` around the model that all tests share."""
    from scoring.library.scorer import Scorer
    from scoring.library.settings import ScorerSettings
    from scoring.run.options import ModelOptions

    settings = ScorerSettings((str(demo / "checkpoints" / "fold0"),), ModelOptions(), verify=False)
    with Scorer(settings, scorer) as public:
        yield public


@pytest.fixture(scope="session")
def rows(test_rows):
    """Some of the demo's, of each kind."""
    return test_rows[::40]
