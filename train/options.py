"""The choices of a training as options of the command line. Imports click alone."""

from dataclasses import fields

import click

from train.config import TrainConfig


def training_options(command):
    """An option for each choice of `TrainConfig`; those not given are left to the file, then to the defaults."""
    for found in reversed(fields(TrainConfig)):
        about, name = found.metadata, f"--{found.name.replace('_', '-')}"
        default = ",".join(found.default) if found.name == "targets" else found.default
        kind = click.Choice(about["among"]) if about["among"] else {int: int, float: float}.get(found.type, str)
        told = f"{about['help']}" + ("" if found.type is bool else f"  [default: {default}]")
        switch = f"{name}/--no-{name[2:]}" if found.type is bool else name
        command = click.option(switch, default=None, type=None if found.type is bool else kind, help=told)(command)
    return command
