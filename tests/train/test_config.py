"""The choices of a training: from a file, from options, and those that cannot be."""

import pytest

from train.config import ConfigError, TrainConfig


def test_choices_come_from_the_file_and_options_win(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('rank = 8\ntargets = ["q_proj"]\nlearning_rate = 2e-4\n')
    config = TrainConfig.read(path, rank=4, epochs=None)
    assert (config.rank, config.targets, config.learning_rate, config.epochs) == (4, ("q_proj",), 2e-4, 3)
    path.write_text(config.to_toml())
    assert TrainConfig.read(path) == config


def test_the_section_of_columns_is_no_choice(tmp_path):
    (tmp_path / "mine.toml").write_text('rank = 8\n[columns]\nquestion = "Q"\n')
    assert TrainConfig.read(tmp_path / "mine.toml") == TrainConfig(rank=8)


def test_the_defaults_are_the_notebooks():
    config = TrainConfig()
    assert (config.rank, config.alpha, config.dropout, config.learning_rate) == (16, 32, 0.05, 1e-4)
    assert (config.batch, config.epochs, config.warmup, config.seed, config.valid_share) == (16, 3, 0.03, 42, 0.1)
    assert len(config.targets) == 7 and config.schedule == "linear" and not config.augment and not config.ema


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rnak = 8", "unknown: rnak; expected some of epochs"),
        ("rank = 0", "rank: found 0; expected a whole number from 1"),
        ("rank = true", "rank: found True"),
        ('schedule = "square"', "schedule: found 'square'; expected one of linear, cosine, constant"),
        ("dropout = 1.0", "dropout: found 1.0; expected a number from 0 to 0.95"),
        ("learning_rate = 0", "learning_rate: found 0; expected a number above 0"),
        ("targets = 3", "targets: found 3; expected a list of names"),
        ("rslora = 1", "rslora: found 1; expected true or false"),
        ("rank = ", "expected a TOML file"),
    ],
)
def test_wrong_choices_are_named(tmp_path, text, message):
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        TrainConfig.read(tmp_path / "mine.toml")
