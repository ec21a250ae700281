"""Our own server is asked as any other, and gives what `score` gives."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scoring.endpoint.address import parse_address
from scoring.endpoint.errors import EndpointError
from scoring.endpoint.run import EndpointContext, EndpointOptions, score_endpoint
from scoring.messages import silent
from scoring.scores.folder import open_scores
from scoring.tables.table import Table
from tests.shared.endpoint_server import Bar
from tests.shared.serving import running

pytest.importorskip("uvicorn")
TOKEN = "a-token-of-the-tests"


@pytest.fixture(scope="module")
def table(test_rows):
    """Rows of the demo, and some whose pictures stand elsewhere, or are none."""
    rows = [replace(row, id=f"demo {row.id}") for row in test_rows[::40]]
    first, second, third = rows[:3]
    pair = (first.picture, second.picture)
    rows += [
        replace(first, id="inside", question="Look at <image 1> first. " + first.question),
        replace(second, id="two", pictures=pair, question=f"{second.question} <image 2> shows it."),
        replace(third, id="none", pictures=(), sizes=()),
        replace(third, id="refers", options=("a dog", "a cat", "both a and b")),
    ]
    return Table(Path("rows.csv"), "digest", [replace(row, answer="") for row in rows])


@pytest.fixture(scope="module")
def address(asked):
    with running(asked, token=TOKEN) as found:
        yield found


@pytest.mark.filterwarnings("ignore::scoring.ScoringWarning")
@pytest.mark.parametrize("api, orders", [("decisions", "1"), ("decisions", "cyclic"), ("systemone", "cyclic")])
def test_probabilities_over_http_are_those_of_score(asked, table, address, tmp_path, api, orders):
    said: list[str] = []
    options = EndpointOptions(parse_address(address, api), "fold0", TOKEN, orders=orders)
    context = EndpointContext(Bar, said.append, threading.Event())
    result = score_endpoint(table, tmp_path / "out", options, context)
    assert "our own server" in said[-1] and result.logits.scored.all()
    expected = asked.score(table.questions, orders=orders)
    found = np.exp(open_scores(tmp_path / "out").log_p)
    for row, answer in zip(found, expected):
        assert np.allclose(row[: len(answer)], list(answer.values()), atol=1e-5), answer.id
    mass = np.nanmean(result.logits.label_mass[:, 0], axis=1)
    assert np.allclose(mass, [answer.label_mass for answer in expected], atol=1e-4)
    assert result.usage.input_tokens > 0 and not result.usage.uncounted


def test_a_token_that_is_wrong_ends_the_run(table, address, tmp_path):
    options = EndpointOptions(parse_address(address, "decisions"), "fold0", "another-token")
    with pytest.raises(EndpointError, match="the token is wrong"):
        score_endpoint(table, tmp_path / "out", options, EndpointContext(Bar, silent))
    options = EndpointOptions(parse_address(address, "decisions"), "fold7", TOKEN)
    with pytest.raises(EndpointError, match="there is no model 'fold7'; expected fold0"):
        score_endpoint(table, tmp_path / "out2", options, EndpointContext(Bar, silent))
