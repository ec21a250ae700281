"""The choices of a training as options of the command line. Imports click alone."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import click

from train.config import TrainConfig

Command = Callable[..., Any]


def training_options(command: Command) -> Command:
    """An option for each choice of `TrainConfig`; those not given are left to the file, then to the defaults."""
    for setting in reversed(fields(TrainConfig)):
        switch, text, among = f"--{setting.name.replace('_', '-')}", setting.metadata["help"], setting.metadata["among"]
        if setting.type is bool:
            switches = f"{switch}/--no-{switch[2:]}"
            command = click.option(switches, default=None, help=text)(command)
        else:
            default = ",".join(setting.default) if isinstance(setting.default, tuple) else setting.default
            kind = click.Choice(among) if among else setting.type if setting.type in (int, float) else str
            command = click.option(switch, default=None, type=kind, help=f"{text}  [default: {default}]")(command)
    return command
