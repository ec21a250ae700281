"""Every choice of a training is an option, whose default is left to the file."""

from dataclasses import fields

import click

from train.config import TrainConfig
from train.options import training_options


def test_every_choice_is_an_option_and_those_not_given_are_none():
    given = {}
    command = click.command()(training_options(lambda **values: given.update(values)))
    arguments = ["--rank", "4", "--learning-rate", "2e-4", "--schedule", "cosine", "--no-shuffle-options"]
    command.main(arguments, standalone_mode=False)
    assert [option.name for option in command.params] == [field.name for field in fields(TrainConfig)]
    assert given.keys() == {option.name for option in command.params}
    asked = {"rank": 4, "learning_rate": 2e-4, "schedule": "cosine", "shuffle_options": False}
    assert {name: value for name, value in given.items() if value is not None} == asked


def test_the_help_names_the_defaults():
    command = click.command()(training_options(lambda **values: None))
    helps = {option.name: option.help for option in command.params}
    assert "[default: 1" in helps["rank"] and f"[default: {','.join(TrainConfig().targets)}]" in helps["targets"]
