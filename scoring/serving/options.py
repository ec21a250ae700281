"""The options of the command `serve`, and what they mean for the scorer and the server. Imports nothing heavy."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from scoring.errors import CallError, ScoringError
from scoring.serving.request import Limits
from scoring.serving.settings import ServeSettings, read_token
from scoring.terminal.options import (
    Finite,
    ModelChoices,
    as_record,
    batch_tokens_option,
    calibration_option,
    device_map_option,
    margin_option,
    model_options,
    orders_option,
    several_pixels,
    together,
    verify_option,
    weights_option,
)

T = TypeVar("T")
U = TypeVar("U")

if TYPE_CHECKING:
    from scoring.library.settings import ScorerSettings


BODIES = 4  # of the largest size, at least, that may be in hand at a time: one is there up to three times


@dataclass(frozen=True)
class ScorerChoices:
    """What answers, as given."""

    checkpoints: tuple[str, ...]
    model: ModelChoices
    pixels: list[int] | None
    orders: str
    margin: float
    calibration: str
    device: str | None
    device_map: str
    verify: bool
    batch_tokens: int | None
    weights: str

    def settings(self) -> "ScorerSettings":
        """Raises OrdersError, TemplateError, CallError, and click.UsageError."""
        from scoring.library.settings import ScorerSettings

        if self.device and self.device_map == "auto":
            raise click.UsageError("--device names one device, --device-map auto takes all; give one of the two")
        settings = ScorerSettings.of(
            ckpt=self.checkpoints,
            base=self.model.base,
            template=self.model.template,
            pixels=self.pixels,
            quantization=self.model.quantization,
            allow_mismatch=self.model.allow_mismatch,
            orders=self.orders.split(","),
            calibration=self.calibration,
            device="auto" if self.device_map == "auto" else self.device,
            weights=self.weights,
            margin=self.margin,
            batch_tokens=self.batch_tokens,
            verify=self.verify,
        )
        settings.refuse_tables_alone(settings.orders)
        return settings


@dataclass(frozen=True)
class ServeChoices:
    """How the server listens and what it allows, as given."""

    names: tuple[str, ...]
    host: str
    port: int
    token_file: Path | None
    without_token: bool
    fetch_from: tuple[str, ...]
    most_body: int
    most_questions: int
    most_pictures: int
    most_picture_bytes: int
    most_picture_pixels: int
    most_tokens: int
    most_waiting: int
    body_seconds: float

    def settings(self, checkpoints: tuple[str, ...]) -> ServeSettings:
        """Raises CallError, also for a token that cannot be read."""
        return ServeSettings(
            names=self.names or ("+".join(dict.fromkeys(Path(os.path.abspath(name)).name for name in checkpoints)),),
            host=self.host,
            port=self.port,
            token=read_token(self.token_file),
            without_token=self.without_token,
            limits=Limits(
                body_bytes=self.most_body,
                questions=self.most_questions,
                pictures=self.most_pictures,
                picture_bytes=self.most_picture_bytes,
                picture_pixels=self.most_picture_pixels,
            ),
            most_tokens=self.most_tokens,
            most_waiting=self.most_waiting,
            most_bytes=max(ServeSettings.most_bytes, BODIES * self.most_body),
            fetch_from=self.fetch_from,
            body_seconds=self.body_seconds,
        )


scorer_options = together(
    click.option(
        "--ckpt",
        "checkpoints",
        multiple=True,
        required=True,
        help="Checkpoint: folder or hub id. Repeatable: an ensemble.",
    ),
    model_options,
    several_pixels,
    orders_option,
    margin_option,
    calibration_option,
    click.option("--device", help="Device, such as cuda:1.  [default: the first GPU, else the CPU]"),
    device_map_option,
    verify_option,
    batch_tokens_option,
    weights_option,
    as_record(ScorerChoices, "scorer"),
)


def _most(name: str, parameter: str, default: int, text: str) -> Callable[[Any], Any]:
    return click.option(
        f"--max-{name}", parameter, type=click.IntRange(1), default=default, show_default=True, help=text
    )


serve_options = together(
    click.option(
        "--name",
        "names",
        multiple=True,
        help="Name of the model in requests and answers. Repeatable: other names for it.  [default: the checkpoint's]",
    ),
    click.option("--host", default=ServeSettings.host, show_default=True, help="Address to listen on."),
    click.option(
        "--port",
        type=click.IntRange(0, 65_535),
        default=ServeSettings.port,
        show_default=True,
        help="0: any free port.",
    ),
    click.option(
        "--token-file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="File with the token that every request must carry.  [default: the environment variable SCORING_TOKEN, "
        "if it is set]",
    ),
    click.option("--without-token", is_flag=True, help="Listen on an address that others can reach without a token."),
    click.option(
        "--allow-fetch",
        "fetch_from",
        multiple=True,
        metavar="HOST",
        help="Fetch pictures that requests name by a URL from this host. Repeatable.  [default: from none]",
    ),
    _most("body-bytes", "most_body", Limits.body_bytes, "Most bytes of a request."),
    _most("questions", "most_questions", Limits.questions, "Most questions of a request."),
    _most("pictures", "most_pictures", Limits.pictures, "Most pictures of a request."),
    _most("picture-bytes", "most_picture_bytes", Limits.picture_bytes, "Most bytes of a picture's file."),
    _most("picture-pixels", "most_picture_pixels", Limits.picture_pixels, "Most pixels of a picture."),
    _most("tokens", "most_tokens", ServeSettings.most_tokens, "Most tokens of a request, in all option orders."),
    _most(
        "waiting",
        "most_waiting",
        ServeSettings.most_waiting,
        "Most requests at a time, computed or waiting; more get 429.",
    ),
    click.option(
        "--body-seconds",
        type=Finite(0, min_open=True),
        default=ServeSettings.body_seconds,
        show_default=True,
        help="Time in which a request must arrive.",
    ),
    as_record(ServeChoices, "serving"),
)


def both(first: Callable[[], T], second: Callable[[], U]) -> tuple[T, U]:
    """The results of both. Raises CallError with all that they find wrong."""
    faults: list[str] = []
    results: list[Any] = []
    for make in (first, second):
        try:
            results.append(make())
        except (ScoringError, click.UsageError) as error:
            faults.append(error.message if isinstance(error, click.UsageError) else str(error))
    if faults:
        raise CallError("\n".join(faults))
    return results[0], results[1]
