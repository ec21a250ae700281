"""The list of commands in `--help`."""

import click
from click.testing import CliRunner

from scoring.terminal.help import SectionedGroup


def test_commands_stand_under_their_headings_and_all_others_last():
    group = SectionedGroup("main", sections={"Data": ("second",), "Empty": ()})
    for name in ("first", "second"):
        group.add_command(click.Command(name, help=f"The {name} one."))
    lines = CliRunner().invoke(group, ["--help"]).output.splitlines()
    headings = [line for line in lines if line.endswith(":") and not line.startswith(("Usage", " "))]
    assert [heading for heading in headings if heading != "Options:"] == ["Data:", "Other:"]
    assert lines.index("  second  The second one.") == lines.index("Data:") + 1
    assert lines.index("  first   The first one.") == lines.index("Other:") + 1


def test_help_names_every_command(cli):
    text = cli("--help").stdout
    for command in ("check", "train", "score", "calibrate", "evaluate", "bench", "show"):
        assert f"\n  {command} " in text
        assert "--help" in cli(command, "--help").stdout
