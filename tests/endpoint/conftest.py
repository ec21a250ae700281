"""A server that a test tells how to answer, and a client of it that does not wait long."""

from contextlib import ExitStack

import pytest

from scoring.endpoint.address import parse_address
from scoring.endpoint.client import Client
from tests.shared.endpoint_server import QUICK, endpoint_server, falling


@pytest.fixture
def serving():
    """Start a server with this way to reply; it ends with the test."""
    with ExitStack() as stack:
        yield lambda reply=falling: stack.enter_context(endpoint_server(reply))


@pytest.fixture
def client_of():
    """A client of a server."""
    with ExitStack() as stack:

        def make(server, api="decisions", patience=QUICK, **more):
            return stack.enter_context(Client(parse_address(server.url, api), patience=patience, **more))

        yield make
