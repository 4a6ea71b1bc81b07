"""Options of the commands: how each is typed, what it defaults to, `--config`, and how values become settings."""

import csv
import math
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from kron2sum_cli import settings as defaults
from kron2sum_cli.cli.command import GroupedOption, did_you_mean, setting_name
from kron2sum_cli.errors import InputError, UsageError
from kron2sum_cli.files.run_log import default_log
from kron2sum_cli.option_values import STDIO, GenomeWide, Significance
from kron2sum_cli.resources import available_threads
from kron2sum_cli.settings import CommonSettings, ExportSettings, FitSettings, ScanSettings

if TYPE_CHECKING:
    from kron2sum_cli.genotypes.chromosomes import Region

    ParamType = click.ParamType[Any]
else:  # generic from click 8.5 on
    ParamType = click.ParamType

Command = TypeVar("Command", bound=Callable[..., Any])
Settings = TypeVar("Settings", FitSettings, ScanSettings, ExportSettings)
Made = TypeVar("Made")

_NOT_IN_FILE = ("config", "help", "version")
"""Options that the file of --config cannot give."""

FILE = click.Path(allow_dash=True, readable=False)  # who opens it says better why it cannot be read


class _Text(ParamType):
    """A value read from one word of the command line by a function.

    An environment variable has one such value, or several with ``separator`` between.
    """

    def __init__(self, metavar: str, read: Callable[[str], Any], separator: str = "") -> None:
        self.name = metavar
        self._read, self._separator = read, separator

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._read(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)

    def split_envvar_value(self, rv: str) -> list[str]:
        return [part for word in rv.split(self._separator) if (part := word.strip())] if self._separator else [rv]


class _Number(click.FloatRange):
    """A finite number in a range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


def _read_names(text: str) -> tuple[str, ...]:
    try:
        # One that holds a comma stands in double quotes, as in CSV.
        (line,) = csv.reader([text], skipinitialspace=True, strict=True)
    except (csv.Error, ValueError):
        raise ValueError(
            f"{text!r}: quotes around a name do not match; write '\"a,b\"' for a name with a comma"
        ) from None
    names = tuple(name.strip() for name in line)
    if not names or not all(names):
        raise ValueError(f"{text!r}: a name is empty; give names with commas between")
    return names


def _read_rank(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{text!r} is neither a whole number from 1 on nor auto")
    return int(text)


def _read_shard(text: str) -> tuple[int, int]:
    part, slash, parts = text.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal()):
        raise ValueError(f"{text!r} is not I/N, such as 2/10 for the second of ten parts")
    if not 1 <= int(part) <= int(parts):
        raise ValueError(f"{text!r}: the part must lie between 1 and the number of parts")
    return int(part), int(parts)


def _read_windows(text: str) -> tuple[int, int]:
    lengths = [_LENGTH.fullmatch(word.strip()) for word in text.split(",")]
    if len(lengths) > 2 or not all(lengths):
        raise ValueError(f"{text!r} is not SIZE,STEP in bp, kb or Mb, such as 100kb,50kb")
    found = [round(float(one[1]) * _UNITS[one[2].lower()]) for one in lengths if one is not None]
    return found[0], found[-1]


def _read_chromosomes(text: str) -> tuple[tuple[str, ...], ...]:
    # Imported here because it imports numpy, for which --help need not wait.
    from kron2sum_cli.genotypes.chromosomes import parse_chromosomes

    return parse_chromosomes(text)


def _read_region(text: str) -> "tuple[Region, ...]":
    from kron2sum_cli.genotypes.chromosomes import parse_region

    return (parse_region(text),)


def _read_significance(text: str) -> Significance:
    kind, colon, number = text.rpartition(":")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if kind != ("gw" if colon else "") or not 0 < value < 1:
        raise ValueError(f"{text!r} is neither a P between 0 and 1 nor gw:LEVEL, such as gw:0.05")
    return GenomeWide(value) if colon else value


def _flatten(ctx: click.Context, param: click.Parameter, values: Iterable[Iterable[Any]]) -> tuple[Any, ...]:
    return tuple(chain.from_iterable(values))


NAMES = _Text("NAMES", _read_names)
CHROMOSOMES = _Text("LIST", _read_chromosomes)
REGION = _Text("CHR:FROM-TO", _read_region, separator=" ")
TEST = _Text("TEST", lambda text: (text,), separator=";")
RANK = _Text("K", _read_rank)
SHARD = _Text("I/N", _read_shard)
WINDOWS = _Text("SIZE,STEP", _read_windows)
SIGNIFICANCE = _Text("P", _read_significance)
_LENGTH = re.compile(r"(\d+(?:\.\d+)?) ?(|bp|kb|mb)", re.IGNORECASE)
_UNITS = {"": 1, "bp": 1, "kb": 1000, "mb": 1_000_000}

option = partial(click.option, cls=GroupedOption)
"""`click.option` with the further attribute `group`, the heading in the help."""

names_option = partial(option, type=NAMES, multiple=True, callback=_flatten)
file_option = partial(option, type=FILE, metavar="FILE")
flag_option = partial(option, is_flag=True)
genotypes_option = partial(file_option, "--geno", "--bed", "--pgen", "--bgen", "--vcf", "geno", multiple=True)


def genotype_file_options(group: str) -> Callable[[Command], Command]:
    """The files of samples and variants that belong to genotypes."""
    beside = "beside the file"
    return _all_of(
        file_option("--sample", group=group, absent=f"in or {beside}", help="Samples of BGEN files or BIMBAM tables."),
        file_option("--bim", group=group, absent=beside, help="Variants of a PLINK 1 file."),
        file_option("--fam", group=group, absent=beside, help="Samples of PLINK 1 files."),
        file_option("--map", group=group, help="Chromosomes and positions of the variants of a table of genotypes."),
    )


def _all_of(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one, in this order."""

    def decorate(command: Command) -> Command:
        for one in reversed(options):
            command = one(command)
        return command

    return decorate


def number_option(
    *names: str, high: float | None = None, open_ends: bool = False, **attributes: Any
) -> Callable[[Command], Command]:
    """An option that takes a finite number from 0 to a bound, both of which ``open_ends`` exclude."""
    within = _Number(0, high, min_open=open_ends, max_open=open_ends and high is not None)
    return option(*names, type=within, **{"metavar": "NUMBER", **attributes})


def count_option(*names: str, least: int = 1, **attributes: Any) -> Callable[[Command], Command]:
    """An option that takes a whole number from the least one on."""
    return option(*names, type=click.IntRange(min=least), **{"metavar": "N", **attributes})


# Options from a TOML file: one table a command, keys named as the options


def load_config(ctx: click.Context, param: click.Parameter, path: str | None) -> str | None:
    """Let the file's table for this command stand for defaults, and keep its path (a callback of ``--config``).

    Raises InputError if the file cannot be read or is not TOML; UsageError if a table is no command, a key no option,
    or a value not what the option takes; all are named.
    """
    if path is None:
        return None
    tables = _read(path)
    assert ctx.parent is not None
    assert isinstance(ctx.parent.command, click.Group)
    commands = ctx.parent.command.commands
    problems: list[str] = []
    for name, table in tables.items():
        if name not in commands and not isinstance(table, dict):
            problems.append(f"{path}: {name} stands above the tables; move it below {_tables_for(name, commands)}")
        elif name not in commands:
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


def _tables_for(key: str, commands: Mapping[str, click.Command]) -> str:
    """The tables that a key may stand in, or all where none has it, such as ``[fit] or [scan]``."""
    name = key.replace("-", "_")
    with_it = [command for command, one in commands.items() if name in _options_by_name(one)]
    return " or ".join(f"[{command}]" for command in with_it or commands)


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


common_options = _all_of(
    count_option("--threads", absent="all that the process may use", help="Threads that run at once."),
    count_option("--memory", metavar="MIB", absent="no bound", help="Upper bound on the working set in MiB."),
    count_option("--seed", least=0, default=defaults.DEFAULT_SEED, help="Seed of every random number."),
    file_option(
        "--log",
        absent="OUT.log; none for -",
        help="Log: what was read, counted and left out, and the time of each step.",
    ),
    flag_option("-q", "--quiet", help="Say nothing but warnings and errors."),
    flag_option("-v", "--verbose", help="Say on standard error all that the log holds."),
    file_option(
        "--config",
        is_eager=True,
        callback=load_config,
        help="TOML file with a table a command and a key an option. The command line and the environment "
        "(such as KRON2SUM_SCAN_THREADS=4) go before it.",
    ),
    flag_option("--debug", help="After an error, show where in the program it arose."),
)
"""The options that every command has."""


def settings_from(kind: type[Settings], values: dict[str, Any], problems: Sequence[str] = ()) -> Settings:
    """The settings of a command from the values of its options by name; all that is wrong is told at once.

    Raises UsageError with a line for each problem: those known already, of the common options and of the command's own.
    """
    values.pop("debug")
    threads, memory, log = values.pop("threads"), values.pop("memory"), values.pop("log")
    common, wrong_common = _made(
        CommonSettings,
        threads=available_threads() if threads is None else threads,
        memory_mib=memory,
        seed=values.pop("seed"),
        log=default_log(values["out"]) if log is None else log,
        config=values.pop("config"),
        quiet=values.pop("quiet"),
        verbose=values.pop("verbose"),
    )
    settings, wrong = _made(kind, **values, common=common or CommonSettings())
    if settings is None or common is None or problems:
        raise UsageError("\n".join(wrong_common + list(problems) + wrong))
    return settings


def _made(kind: type[Made], **values: Any) -> tuple[Made | None, list[str]]:
    try:
        return kind(**values), []
    except UsageError as error:
        return None, [str(error)]


def refuse_terminal(out: str) -> None:
    """Refuse to write a binary format to a screen."""
    if out == STDIO and sys.stdout is not None and sys.stdout.isatty():
        raise UsageError("the output is not text and standard output is a terminal; name a file with --out")
