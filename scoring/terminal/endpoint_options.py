"""The options of a server that is asked in place of checkpoints, and which others go with them. Imports click alone."""

import os
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import click
from click.core import ParameterSource

from scoring.terminal.options import Finite, as_record, together

if TYPE_CHECKING:
    from scoring.benchmark.asked import AskedServer
    from scoring.endpoint.address import Address
    from scoring.endpoint.client import Patience

TOKEN = "SCORING_TOKEN"


@dataclass(frozen=True)
class EndpointChoices:
    """endpoint: None where checkpoints are loaded. token_variable: the environment variable with the token."""

    endpoint: str | None
    asked_model: str | None
    api: Literal["decisions", "systemone"]
    concurrency: int
    retries: int
    timeout: float
    token_variable: str

    def address(self) -> "Address":
        """Raises CallError for what is no address."""
        from scoring.endpoint.address import parse_address

        return parse_address(self.endpoint or "", self.api)

    def server(self, price: float | None) -> "AskedServer":
        """As a benchmark measures it. price: of a million input tokens. Raises CallError, UsageError."""
        from scoring.benchmark.asked import AskedServer

        parts = self.address(), self.asked_model or "", self.token(), self.concurrency, self.patience()
        return AskedServer(*parts, price)

    def patience(self) -> "Patience":
        from scoring.endpoint.client import Patience

        return Patience(self.retries, self.timeout)

    def token(self) -> str | None:
        """None where the environment has none. Raises UsageError for one that no header can hold."""
        token = os.environ.get(self.token_variable, "").strip()
        if not token and self.token_variable != TOKEN:
            raise click.UsageError(f"--token-env {self.token_variable}: there is no such variable; set it to the token")
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise click.UsageError(f"{self.token_variable} holds no token: expected letters, digits and signs alone")
        return token or None


endpoint_options = together(
    click.option(
        "--endpoint",
        help="Ask this server in place of checkpoints, such as http://127.0.0.1:8000: `serve`, or any other that has "
        "the decisions API.",
    ),
    click.option("--model", "asked_model", help="With --endpoint: the model's name there."),
    click.option(
        "--api",
        type=click.Choice(["decisions", "systemone"]),
        default="decisions",
        show_default=True,
        help="With --endpoint: POST /v1/decisions or POST /v1/systemone.",
    ),
    click.option(
        "--concurrency",
        type=click.IntRange(1, 1024),
        default=8,
        show_default=True,
        help="With --endpoint: rows that are asked for at a time.",
    ),
    click.option(
        "--retries",
        type=click.IntRange(0, 100),
        default=5,
        show_default=True,
        help="With --endpoint: further tries where the server is busy, fails or does not answer; each waits longer.",
    ),
    click.option(
        "--timeout",
        type=Finite(0, min_open=True),
        default=60,
        show_default=True,
        help="With --endpoint: seconds to wait for an answer.",
    ),
    click.option(
        "--token-env",
        "token_variable",
        metavar="NAME",
        default=TOKEN,
        show_default=True,
        help="With --endpoint: environment variable that holds the token.",
    ),
    as_record(EndpointChoices, "asked"),
)
token_price_option = click.option(
    "--price",
    type=Finite(0, min_open=True),
    help="With --endpoint: price of a million input tokens, to report what the run costs.",
)
endpoint_price_option = click.option(
    "--endpoint-price",
    type=Finite(0, min_open=True),
    help="With --endpoint: price of a million input tokens there, to report costs.",
)
# Parameters of `score` that say what it loads, and how, or that checkpoints alone have.
NOT_ASKED = (
    *("checkpoints", "base", "template", "pixels", "quantization", "allow_mismatch", "margin", "device_map", "verify"),
    *("shard", "batch_tokens", "weights", "compile", "out_of_fold", "ray", "ray_actors"),
)
# Parameters that nothing but an endpoint has.
ASKED_ALONE = ("asked_model", "api", "concurrency", "retries", "timeout", "token_variable")


def check_endpoint(asked: EndpointChoices, loads: Collection[str], needs: str, own: Collection[str]) -> None:
    """Raises UsageError with all options of this call that do not go together, or the one that is missing.

    loads: parameters that say what is loaded, and how, which an endpoint decides by itself. needs: the parameter that
    is missing where neither it nor an endpoint is given; "" for none. own: parameters that only an endpoint has.
    """
    context = click.get_current_context()
    if asked.endpoint is None:
        if wrong := _given(context, own):
            raise click.UsageError(f"{', '.join(wrong)}: for --endpoint; add that, or leave them out")
        if needs and not context.params.get(needs):
            [missing] = [param for param in context.command.params if param.name == needs]
            raise click.MissingParameter("Name a checkpoint, or a server with --endpoint", context, missing)
        return
    if wrong := _given(context, loads):
        raise click.UsageError(
            f"{', '.join(wrong)} with --endpoint: the server decides that, or there is none of it; leave them out"
        )
    if not asked.asked_model:
        raise click.UsageError("Missing option '--model': the model's name at --endpoint")


def _given(context: click.Context, names: Collection[str]) -> list[str]:
    """The options of these parameters that the command line gives, as they are written there."""
    return [
        (param.secondary_opts or param.opts)[0] if context.params.get(param.name) is False else param.opts[0]
        for param in context.command.params
        if param.name in names and context.get_parameter_source(param.name) is ParameterSource.COMMANDLINE
    ]
