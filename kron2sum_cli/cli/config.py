"""Options from a TOML file: one table a command, keys named as the options."""

import sys
import tomllib
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import click

from kron2sum_cli.cli.command import did_you_mean, setting_name
from kron2sum_cli.errors import InputError, UsageError
from kron2sum_cli.option_values import STDIO

_NOT_IN_FILE = ("config", "help", "version")


def load_config(ctx: click.Context, param: click.Parameter, path: str | None) -> str | None:
    """Let the file's table for this command stand for defaults, and keep its path (a callback of ``--config``).

    Raises
    ------
    InputError
        If the file cannot be read or is not TOML.
    UsageError
        If a table is no command, a key no option, or a value not what the option takes; all are named.
    """
    if path is None:
        return None
    tables = _read(path)
    assert ctx.parent is not None
    assert isinstance(ctx.parent.command, click.Group)
    commands = ctx.parent.command.commands
    problems: list[str] = []
    for name, table in tables.items():
        if name not in commands:
            problems.append(f"{path}: no command [{name}]{did_you_mean(name, commands)}")
        elif not isinstance(table, dict):
            problems.append(f"{path}: {name} must be a table: write [{name}]")
        else:
            settings, wrong = _settings(commands[name], table, f"{path}: [{name}]")
            problems.extend(wrong)
            if name == ctx.info_name:
                ctx.default_map = settings
    if problems:
        raise UsageError("\n".join(problems))
    return path


def _read(path: str) -> dict[str, Any]:
    try:
        with nullcontext(sys.stdin.buffer) if path == STDIO else open(path, "rb") as file:
            return tomllib.loads(file.read().decode("utf-8-sig"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file; check the path") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except ValueError as error:
        raise InputError(f"{path}: is not a TOML file: {error}") from error


def _settings(command: click.Command, table: Mapping[str, Any], place: str) -> tuple[dict[str, Any], list[str]]:
    """Values by the names of the command's parameters, and what is wrong with the table."""
    options = _options_by_name(command)
    settings: dict[str, Any] = {}
    problems = []
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in options:
            known = [other.replace("_", "-") for other in options]
            problems.append(f"{place}: no option {key!r}{did_you_mean(key.replace('_', '-'), known)}")
            continue
        option, negated = options[name]
        assert option.name is not None
        if option.name in settings:
            problems.append(f"{place}: {key} sets what another key sets already")
        try:
            settings[option.name] = _value(option, value, negated)
        except ValueError as error:
            problems.append(f"{place}: {key} = {value!r}: {error}")
    return settings, problems


def _options_by_name(command: click.Command) -> dict[str, tuple[click.Option, bool]]:
    """Each long name of each option; True where it is the opposite of the parameter."""
    found: dict[str, tuple[click.Option, bool]] = {}
    for option in command.params:
        if isinstance(option, click.Option) and option.name not in _NOT_IN_FILE:
            for opposite, names in ((False, option.opts), (True, option.secondary_opts)):
                found |= {setting_name(name): (option, opposite) for name in names if name.startswith("--")}
    return found


def _value(option: click.Option, value: Any, negated: bool) -> Any:
    """A value as the option would get it from the command line: text, which its type then reads."""
    if option.is_flag:
        if not isinstance(value, bool):
            raise ValueError("must be true or false")
        return value is not negated
    if option.multiple:
        return tuple(_text(item) for item in (value if isinstance(value, list) else [value]))
    return _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("must be a text or a number")
    return str(value)
