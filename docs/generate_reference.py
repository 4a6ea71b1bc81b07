"""Writes what the program itself knows into the reference: python docs/generate_reference.py

The whole of reference/commands.md comes from the commands, the tables of columns in reference/files.md from their
register, `kron2sum_cli.files.scan_columns`.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import click

from kron2sum_cli.cli import PROGRAM, cli
from kron2sum_cli.cli.command import COMMON_GROUP, GroupedCommand, GroupedOption
from kron2sum_cli.files.scan_columns import COLUMNS, Column

PAGE = Path(__file__).parent / "reference" / "commands.md"
FILES = Path(__file__).parent / "reference" / "files.md"

_NOTE = re.compile(r"(.*?)(?:  \[(?:default: )?(.*)\])?")

INTRODUCTION = """\
<!-- Made by docs/generate_reference.py: change the commands, then run it again. -->

# Commands

`kron2sum COMMAND --help` prints the same. Every option can also come from the environment
(`KRON2SUM_SCAN_THREADS=4` is `kron2sum scan --threads 4`) and from a file; see
[Options from elsewhere](../how-to/shell.md).
"""


def reference() -> str:
    """The whole page."""
    sections = [INTRODUCTION]
    for name, command in cli.commands.items():
        assert isinstance(command, GroupedCommand)
        sections.append("\n".join(_command(name, command)))
    common = _options(next(iter(cli.commands.values())))[COMMON_GROUP]
    sections.append("\n".join(["## Common options", "", "Every command has them.", "", *_table(common)]))
    return "\n".join(sections) + "\n"


def _command(name: str, command: GroupedCommand) -> Iterator[str]:
    with click.Context(command, parent=click.Context(cli, **cli.context_settings), info_name=name) as ctx:
        usage = " ".join(command.collect_usage_pieces(ctx))
    yield from (f"## {PROGRAM} {name}", "", f"{command.help}", "")
    yield from ("```text", f"{PROGRAM} {name} {usage}", "```", "")
    for group, options in _options(command).items():
        if group != COMMON_GROUP:
            yield from (f"### {group}", "", *_table(options), "")
    yield from ("### Examples", "", "```text", *command.examples, "```", "")


def _options(command: click.Command) -> dict[str, list[GroupedOption]]:
    """The options by the heading of their group."""
    groups: dict[str, list[GroupedOption]] = {}
    for option in command.params:
        if isinstance(option, GroupedOption):
            groups.setdefault(option.group, []).append(option)
    return groups


def _table(options: list[GroupedOption]) -> Iterator[str]:
    yield from ("| option | meaning | default; range |", "|---|---|---|")
    for option in options:
        record = option.get_help_record(click.Context(click.Command("")))
        assert record is not None
        names, text = record
        meaning, default = _NOTE.fullmatch(text).groups("")  # type: ignore[union-attr]  # matches any text
        choices = names.replace("[", "{").replace("|", ",").replace("]", "}")
        yield f"| `{choices}` | {_escaped(meaning)} | {_escaped(default)} |"


def _escaped(text: str) -> str:
    """Text for a cell: a bar would end it, an asterisk would begin emphasis."""
    return text.replace("*", "&#42;").replace("|", "&#124;")


_TABLE_OF_COLUMNS = re.compile("(?<=<!-- columns -->\n).*?(?=<!-- end of columns -->)", re.DOTALL)
_ENDINGS = {"test": "NAME", "set test": "HOW", "trait": "T", "axis": "k", "pair": "T1.T2"}


def page_of_files() -> str:
    """The page of files as it is, with the table of columns as they are declared."""
    lines = ["| column | of every | type | holds |", "|---|---|---|---|", *map(_row_of_column, COLUMNS)]
    return _TABLE_OF_COLUMNS.sub(lambda _: "\n".join([*lines, ""]), FILES.read_text(encoding="utf-8"))


def _row_of_column(column: Column) -> str:
    ending = _ENDINGS.get(column.of)
    names = [column.name] if column.of == "test" else []
    if ending is not None and column.name != "P":
        names.append(column.named(ending))
    shown = ", ".join(f"`{name}`" for name in names or [column.name])
    return f"| {shown} | {column.of} | {column.type} | {_escaped(column.meaning)} |"


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
    FILES.write_text(page_of_files(), encoding="utf-8")
