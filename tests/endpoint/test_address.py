"""An endpoint's address, as people write it."""

import pytest

from scoring.endpoint.address import parse_address
from scoring.errors import CallError


@pytest.mark.parametrize(
    "url, api, route",
    [
        ("http://127.0.0.1:8000", "decisions", "http://127.0.0.1:8000/v1/decisions"),
        ("http://127.0.0.1:8000/", "systemone", "http://127.0.0.1:8000/v1/systemone"),
        ("https://openrouter.ai/api/v1", "decisions", "https://openrouter.ai/api/v1/decisions"),
        ("https://example.com/v1/systemone/", "systemone", "https://example.com/v1/systemone"),
        ("https://example.com/any/decisions", "decisions", "https://example.com/any/decisions"),
        ("http://[::1]:80/gateway", "decisions", "http://[::1]:80/gateway/v1/decisions"),
    ],
)
def test_a_server_its_version_or_the_route_itself_can_be_named(url, api, route):
    found = parse_address(url, api)
    assert found.route == route and found.models == route.rpartition("/")[0] + "/models"


@pytest.mark.parametrize(
    "url, told",
    [
        ("127.0.0.1:8000", "expected an address such as"),
        ("ftp://example.com", "expected an address such as"),
        ("http://", "expected an address such as"),
        ("http://host:port", "expected such as"),
        ("http://a b", "expected an address such as"),
        ("https://me:secret@example.com", "would record"),
        ("https://secret@example.com", "would record"),
        ("https://example.com/v1?key=secret", "would record"),
        ("https://example.com/v1/systemone", "--api is decisions"),
    ],
)
def test_an_address_that_is_none_or_holds_a_secret_is_refused_without_showing_it(url, told):
    with pytest.raises(CallError, match=told) as refused:
        parse_address(url, "decisions")
    assert "secret" not in str(refused.value)


def test_a_member_has_a_name_that_can_be_a_file():
    assert parse_address("https://h.example:9/v1", "decisions").member("a/b c:d") == "a-b-c-d@h.example"


def test_only_this_machine_is_here():
    here = ["http://127.0.0.1:1", "http://localhost", "http://[::1]:5"]
    assert all(parse_address(url, "decisions").is_here for url in here)
    assert not parse_address("http://127.example.com", "decisions").is_here
