"""The list of commands in `--help`, under headings."""

from typing import Any

import click


class SectionedGroup(click.Group):
    """A group of commands whose help lists them by section. sections: heading -> names, in their order."""

    def __init__(self, *arguments: Any, sections: dict[str, tuple[str, ...]], **settings: Any):
        super().__init__(*arguments, **settings)
        self.sections = sections

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.commands))
        listed = [name for names in self.sections.values() for name in names]
        others = tuple(name for name in self.list_commands(ctx) if name not in listed)
        for heading, names in {**self.sections, "Other": others}.items():
            rows = [
                (name.ljust(width), self.commands[name].get_short_help_str(formatter.width - width - 6))
                for name in names
            ]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)
