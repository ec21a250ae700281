"""Which options go with an endpoint, and which with checkpoints."""

import click
import pytest
from click.testing import CliRunner

from scoring.terminal.endpoint_options import ASKED_ALONE, TOKEN, EndpointChoices, check_endpoint, endpoint_options


def call(*words: str):
    @click.command()
    @click.option("--ckpt", "checkpoints", multiple=True)
    @click.option("--verify/--no-verify", default=True)
    @click.option("--price", type=float)
    @endpoint_options
    def command(checkpoints, verify, price, asked: EndpointChoices):
        check_endpoint(asked, ("checkpoints", "verify"), needs="checkpoints", own=(*ASKED_ALONE, "price"))
        click.echo(asked.token())

    return CliRunner().invoke(command, words)


SERVER = ("--endpoint", "http://x", "--model", "m")


@pytest.mark.parametrize(
    "words, told",
    [
        ([], "Missing option '--ckpt'. Name a checkpoint, or a server with --endpoint"),
        (
            ["--ckpt", "x", "--model", "m", "--price", "2", "--api", "decisions"],
            "--price, --model, --api: for --endpoint",
        ),
        ([*SERVER, "--ckpt", "x", "--no-verify"], "--ckpt, --no-verify with --endpoint: the server decides that"),
        (SERVER[:2], "Missing option '--model'"),
        ([*SERVER, "--token-env", "NONE_SUCH"], "--token-env NONE_SUCH: there is no such variable"),
        ([*SERVER, "--timeout", "0"], "--timeout"),
        ([*SERVER, "--concurrency", "0"], "--concurrency"),
    ],
)
def test_what_does_not_go_together_is_told_at_once(words, told):
    done = call(*words)
    assert done.exit_code == 2 and told in done.output, done.output


def test_the_token_comes_from_the_environment_alone(monkeypatch):
    monkeypatch.delenv(TOKEN, raising=False)
    assert call(*SERVER).output == "\n" and call("--ckpt", "x").exit_code == 0
    monkeypatch.setenv(TOKEN, " sk-1 \n")
    assert call(*SERVER).output == "sk-1\n"
    monkeypatch.setenv("MINE", "sk-2")
    assert call(*SERVER, "--token-env", "MINE").output == "sk-2\n"
    for wrong in ("two words", "line\nbreak", "열쇠"):
        monkeypatch.setenv(TOKEN, wrong)
        done = call(*SERVER)
        assert done.exit_code == 2 and "holds no token" in done.output and wrong not in done.output
