"""What the options of `serve` mean for the scorer and the server."""

from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from scoring.errors import CallError
from scoring.inputs.orders import OrdersError
from scoring.library.settings import ScorerSettings
from scoring.serving.options import ScorerChoices, ServeChoices, both, scorer_options, serve_options
from scoring.serving.request import Limits
from scoring.serving.settings import TOKEN_VARIABLE, ServeSettings

TOKEN = "0123456789abcdef"


@click.command()
@scorer_options
@serve_options
@click.pass_obj
def command(found: list[Any], scorer: ScorerChoices, serving: ServeChoices) -> None:
    found += [serving.settings(scorer.checkpoints), scorer.settings()]


@pytest.fixture(autouse=True)
def without_token(monkeypatch):
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)


def invoke(*words: object) -> tuple[Result, list[Any]]:
    found: list[Any] = []
    return CliRunner().invoke(command, [str(word) for word in words], obj=found), found


def settings(*words: object) -> tuple[ServeSettings, ScorerSettings]:
    done, found = invoke(*words)
    assert done.exit_code == 0, done.output
    serving, scorer = found
    return serving, scorer


def test_the_defaults_are_those_of_the_library_and_of_the_server():
    serving, scorer = settings("--ckpt", "folder/fold0")
    assert serving == ServeSettings(("fold0",), limits=Limits())
    assert scorer == ScorerSettings(("folder/fold0",), scorer.model)


def test_every_option_of_the_server_arrives(tmp_path):
    (tmp_path / "token").write_text(TOKEN)
    words = ["--ckpt", "x", "--name", "a", "--name", "b", "--host", "0.0.0.0", "--port", 0]
    words += ["--token-file", tmp_path / "token", "--allow-fetch", "h.example", "--allow-fetch", "i.example:81"]
    words += ["--max-body-bytes", 2**30, "--max-questions", 2, "--max-pictures", 3, "--max-picture-bytes", 4]
    words += ["--max-picture-pixels", 5, "--max-tokens", 6, "--max-waiting", 7, "--body-seconds", 0.5]
    limits = Limits(body_bytes=2**30, questions=2, pictures=3, picture_bytes=4, picture_pixels=5)
    expected = ServeSettings(
        names=("a", "b"),
        host="0.0.0.0",
        port=0,
        token=TOKEN,
        limits=limits,
        most_tokens=6,
        most_waiting=7,
        most_bytes=2**32,  # some bodies of that size fit
        fetch_from=("h.example", "i.example:81"),
        body_seconds=0.5,
    )
    assert settings(*words)[0] == expected


def test_every_option_of_the_scorer_arrives(tmp_path):
    template = tmp_path / "t.toml"
    template.write_text('system = "s"\n')
    words = ["--ckpt", "a", "--ckpt", "b", "--base", "c", "--template", template, "--pixels", "448,560"]
    words += ["--quantization", "none", "--allow-mismatch", "--orders", "1,cyclic", "--margin", 0.5]
    words += ["--calibration", "none", "--device", "cpu", "--no-verify", "--batch-tokens", 1024, "--weights", "16bit"]
    scorer = settings(*words)[1]
    expected = ScorerSettings.of(
        ["a", "b"], "c", template, "448,560", "none", True, ["1", "cyclic"], "none", "cpu", "16bit", 0.5, 1024, False
    )
    assert scorer == expected and scorer.pixels == (448**2, 560**2) and scorer.model.template
    assert settings("--ckpt", "a", "--device-map", "auto")[1].device == "auto"


@pytest.mark.parametrize(
    "checkpoints, name",
    [(["folder/a/"], "a"), (["a/x", "b/x", "c/y"], "x+y"), (["org/name@main"], "name@main"), (["."], "here")],
)
def test_the_model_is_called_as_its_checkpoints_are(checkpoints, name, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    words = [word for checkpoint in checkpoints for word in ("--ckpt", checkpoint)]
    assert settings(*words)[0].names == (name,)


def test_the_token_of_the_environment_is_used(monkeypatch):
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    assert settings("--ckpt", "x", "--host", "0.0.0.0")[0].token == TOKEN
    monkeypatch.delenv(TOKEN_VARIABLE)
    assert settings("--ckpt", "x", "--host", "0.0.0.0", "--without-token")[0].token is None


@pytest.mark.parametrize(
    "words, error",
    [
        (["--host", "0.0.0.0"], CallError),
        (["--allow-fetch", "https://h.example"], CallError),
        (["--token-file", "missing"], CallError),
        (["--orders", "pride"], OrdersError),
        (["--orders", "1,nonsense"], OrdersError),
        (["--batch-tokens", "1"], (CallError, SystemExit)),
    ],
)
def test_what_does_not_go_together_is_an_error_that_the_command_line_tells(words, error):
    done, _ = invoke("--ckpt", "x", *words)
    assert isinstance(done.exception, error) and done.exit_code != 0


@pytest.mark.parametrize(
    "words, told",
    [
        ([], "--ckpt"),
        (["--ckpt", "x", "--device", "cpu", "--device-map", "auto"], "give one of the two"),
        (["--ckpt", "x", "--port", 65_536], "--port"),
        (["--ckpt", "x", "--port", -1], "--port"),
        (["--ckpt", "x", "--max-questions", 0], "--max-questions"),
        (["--ckpt", "x", "--body-seconds", 0], "--body-seconds"),
        (["--ckpt", "x", "--body-seconds", "inf"], "--body-seconds"),
        (["--ckpt", "x", "--pixels", "none"], "--pixels"),
    ],
)
def test_values_that_cannot_be_are_told_with_their_option(words, told):
    done, _ = invoke(*words)
    assert done.exit_code == 2 and told in done.output


def test_what_is_wrong_with_either_part_is_told_together():
    def first():
        raise CallError("no such host")

    def second():
        raise click.UsageError("no such orders")

    with pytest.raises(CallError, match="no such host\nno such orders"):
        both(first, second)
    with pytest.raises(CallError, match="no such orders"):
        both(lambda: 1, second)
    assert both(lambda: 1, lambda: "two") == (1, "two")
