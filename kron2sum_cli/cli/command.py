"""Commands whose help shows options in groups and ends with examples that run."""

import os
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import groupby
from typing import Any

import click

COMMON_GROUP = "Common options"


class GroupedOption(click.Option):
    """An option that belongs to a group in the help, and can be set from the environment by any name.

    ``group`` is its heading in the help, which shows its default, or ``absent``: what happens without it, where that is
    not a value that it could be given.

    ``--geno``, also called ``--bed``, is read from ``KRON2SUM_SCAN_GENO`` or ``KRON2SUM_SCAN_BED``;
    ``--intercept/--no-intercept`` also from ``KRON2SUM_FIT_NO_INTERCEPT``, with the opposite meaning.
    """

    def __init__(self, *args: Any, group: str = COMMON_GROUP, absent: str | None = None, **attributes: Any) -> None:
        attributes["show_default"] = absent is None and attributes.get("default") not in (None, "")
        super().__init__(*args, **attributes)
        self.group = group
        if absent is not None:
            self.help = f"{self.help}  [default: {absent}]"

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Names and help, with the default and the range in one pair of brackets."""
        record = super().get_help_record(ctx)
        return None if record is None else (record[0], record[1].replace("]  [", "; "))

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """The value in the environment; None where there is none or it is empty.

        Raises click.UsageError if several variables, named after its aliases or its opposite, set it.
        """
        prefix = ctx.auto_envvar_prefix
        if prefix is None or not self.allow_from_autoenv:
            return super().resolve_envvar_value(ctx)
        same = (self.name or "", *map(setting_name, self.opts))
        opposite = [f"{prefix}_{setting_name(name).upper()}" for name in self.secondary_opts]
        variables = dict.fromkeys([*(f"{prefix}_{name.upper()}" for name in same), *opposite])
        given = [variable for variable in variables if os.environ.get(variable)]
        if len(given) > 1:
            raise click.UsageError(f"{' and '.join(given)} in the environment set the same option; keep one", ctx)
        if not given:
            return None
        value = os.environ[given[0]]
        return str(not click.BOOL.convert(value, self, ctx)) if given[0] in opposite else value


def unknown_variables(ctx: click.Context) -> Iterator[str]:
    """Warnings of environment variables that are named like options of this command and belong to none of them."""
    prefix = f"{ctx.auto_envvar_prefix}_"
    names = {
        setting_name(name)
        for option in ctx.command.params
        if isinstance(option, click.Option)
        for name in (option.name or "", *option.opts, *option.secondary_opts)
    }
    known = sorted(f"{prefix}{name.upper()}" for name in names)
    for variable in sorted(os.environ):
        if variable.startswith(prefix) and variable not in known:
            close = get_close_matches(variable, known, n=1)
            yield f"{variable} in the environment is no option" + (f"; did you mean {close[0]}?" if close else "")


def setting_name(option: str) -> str:
    """The name of an option in the environment and in a configuration: ``--grm-maf`` is ``grm_maf``."""
    return option.lstrip("-").replace("-", "_")


class GroupedCommand(click.Command):
    """A command with options in groups, whose help ends with examples."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.examples = tuple(examples)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the command line; an option that takes one value may be given once, under one of its names."""
        if not ctx.resilient_parsing:
            self._refuse_repeated(ctx, args)
        return super().parse_args(ctx, args)

    def _refuse_repeated(self, ctx: click.Context, args: Sequence[str]) -> None:
        """Refuse the first option that is given more often than it takes values."""
        values, _, order = self.make_parser(ctx).parse_args(args=list(args))
        self._refuse_swallowed(ctx, values)
        for option, times in Counter(order).items():
            if times < 2 or not isinstance(option, click.Option) or option.multiple or option.count:
                continue
            typed = _spellings(option, args)
            opposites = not set(typed).isdisjoint(option.secondary_opts) and not set(typed).isdisjoint(option.opts)
            if opposites:
                raise click.UsageError(f"{' and '.join(dict.fromkeys(typed))} exclude each other; give one", ctx)
            if not option.is_flag:
                again = f"{typed[0]} twice" if len(set(typed)) == 1 else " and ".join(dict.fromkeys(typed))
                raise click.UsageError(f"{again}: this option takes one value; give it once", ctx)

    def _refuse_swallowed(self, ctx: click.Context, values: Mapping[str, Any]) -> None:
        """Refuse an option whose value is another option: its own was forgotten."""
        options = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        names = {name for option in options for name in (*option.opts, *option.secondary_opts)}
        for option in options:
            value = values.get(option.name or "")
            for word in value if isinstance(value, list) else [value]:
                if isinstance(word, str) and word.partition("=")[0] in names:
                    raise click.UsageError(f"{option.opts[0]}: needs a value, and {word} stands there", ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under the heading of their group, in the order of declaration."""
        options = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        for group, members in groupby(options, key=lambda option: getattr(option, "group", COMMON_GROUP)):
            with formatter.section(group):
                formatter.write_dl([record for option in members if (record := option.get_help_record(ctx))])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, as they have to be typed."""
        super().format_epilog(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(" " * formatter.current_indent + example + "\n")

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; with --debug an error shows where it came from."""
        # Arrow's own allocator keeps some 20 MiB that it does not use, and more where a file has many variants.
        os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
        try:
            return super().invoke(ctx)
        except Exception:
            if ctx.params.get("debug"):
                traceback.print_exc()
            raise


def _spellings(option: click.Option, args: Sequence[str]) -> list[str]:
    """How an option was typed each time, in order."""
    names = (*option.opts, *option.secondary_opts)
    words = (word.partition("=")[0] for word in args)
    return [word for word in words if word in names] or [option.opts[0]]


class SuggestingGroup(click.Group):
    """Commands in the order in which they are used; a mistyped one is met with a suggestion."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the command line; an empty one is met with the help, as an error."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(2)
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order of declaration."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that was typed, or fail with the nearest one."""
        name = args[0]
        if name not in self.commands and not name.startswith("-"):
            ctx.fail(f"no command {name!r}{did_you_mean(name, self.commands)}")
        return super().resolve_command(ctx, args)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A suggestion to end a message with: the nearest known name, or all of them."""
    known = list(known)
    close = get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(known)}"
