"""What the server is started with is wrong before a model is loaded: no token, a bad one, a host that is none."""

import pytest

from scoring.errors import CallError
from scoring.serving import settings
from scoring.serving.settings import TOKEN_VARIABLE, ServeSettings, is_host, is_loopback, read_token, require_packages

TOKEN = "0123456789abcdef"


@pytest.fixture(autouse=True)
def without_token(monkeypatch):
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost", "LocalHost"])
def test_this_machine_alone_needs_no_token(host):
    assert is_loopback(host) and ServeSettings(("m",), host=host).token is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.1", "example.com", "127.1", "localhost.example.com"])
def test_others_need_a_token_unless_it_is_said(host):
    with pytest.raises(CallError, match=rf"there is no token; expected 127.0.0.1, or a token in .*{TOKEN_VARIABLE}"):
        ServeSettings(("m",), host=host)
    assert ServeSettings(("m", "n"), host=host, token=TOKEN).name == "m"
    assert ServeSettings(("m",), host=host, without_token=True).token is None


def test_a_token_comes_from_a_file_or_the_environment(tmp_path, monkeypatch):
    file = tmp_path / "token"
    file.write_text(f"\n{TOKEN}\r\n")
    assert read_token(None) is None and read_token(file) == TOKEN
    monkeypatch.setenv(TOKEN_VARIABLE, f" {TOKEN}x\n")
    assert read_token(None) == TOKEN + "x" and read_token(file) == TOKEN
    monkeypatch.setenv(TOKEN_VARIABLE, "  ")
    assert read_token(None) is None


@pytest.mark.parametrize(
    "content", [b"", b" \n", b"short", b"0123456789 abcdef", b"0123456789\nabcdef", "ü".encode() * 16]
)
def test_a_token_that_is_none_is_told_and_not_shown(content, tmp_path, monkeypatch):
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(CallError, match="expected a token of at least 16 letters and digits") as caught:
        read_token(file)
    assert str(file) in str(caught.value)
    assert not content.strip() or content.decode().strip() not in str(caught.value)
    if content.strip():
        monkeypatch.setenv(TOKEN_VARIABLE, content.decode())
        with pytest.raises(CallError, match=f"the environment variable {TOKEN_VARIABLE}: "):
            read_token(None)


def test_a_token_file_that_cannot_be_read_is_told(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff" * 20)
    for file in (tmp_path / "missing", tmp_path, tmp_path / "binary"):
        with pytest.raises(CallError, match="cannot be read .*; expected a file with the token alone"):
            read_token(file)


def test_hosts_to_fetch_from_are_hosts():
    good = ("example.com", "Example.com:8443", "10.0.0.1", "[2001:db8::1]:80", "münchen.example")
    assert all(map(is_host, good)) and ServeSettings(("m",), fetch_from=good).fetch_from == good
    for host in (
        "",
        "https://example.com",
        "example.com/x",
        "*.example.com",
        "a@b",
        "a:x",
        "a:99999",
        "a:0",
        "a b",
        ":80",
    ):
        with pytest.raises(CallError, match="no host; expected one alone, such as images.example.com"):
            ServeSettings(("m",), fetch_from=("example.com", host))


def test_packages_that_are_missing_are_named(monkeypatch):
    require_packages()
    monkeypatch.setitem(settings.PACKAGES, "a-package", "no_module_of_this_name")
    with pytest.raises(CallError, match=r"`serve` needs a-package: pip install 'logit-scoring\[serve\]'"):
        require_packages()
