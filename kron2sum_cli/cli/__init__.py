"""The command line: parse, call one function of `fit`, `scan` or `export`, print.

Modules that import numpy are imported by the commands as they run, because ``kron2sum --version`` and ``--help`` must
not wait for them.
"""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

import click
from click.shell_completion import shell_complete

from kron2sum_cli._version import __version__
from kron2sum_cli.cli.command import SuggestingGroup
from kron2sum_cli.cli.export import export
from kron2sum_cli.cli.fit import fit
from kron2sum_cli.cli.messages import say, silence
from kron2sum_cli.cli.scan import scan
from kron2sum_cli.cli.signals import Stopped, stopping_on_signals
from kron2sum_cli.errors import Kron2SumError, UsageError, readable
from kron2sum_cli.files.outputs import NO_SPACE

PROGRAM = "kron2sum"
_COMPLETE = "_KRON2SUM_COMPLETE"

__all__ = ["cli", "main", "run"]


@click.group(
    cls=SuggestingGroup,
    context_settings={
        "auto_envvar_prefix": PROGRAM.upper(),
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
    },
    epilog="They work in this order: fit writes null.npz, scan reads it and writes scan.parquet, export prints that. "
    "kron2sum COMMAND --help has all options of a command, and examples.",
)
@click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s", allow_from_autoenv=False)
def cli() -> None:
    """Multi-trait association scans with a linear mixed model."""


for command in (fit, scan, export):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command line as a process of its own, which ends with it: signals end it within a second.

    The arguments, without the program's name, are by default those of the process. The exit code is 0 done, 1 bad
    input, numbers or files, 2 usage, 3 not converged, 128 + a signal.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        with stopping_on_signals(_typed(arguments)):
            try:
                code = run(arguments)
            except Stopped as error:
                code = _report(error, _typed(arguments))  # in here further signals are ignored
            _end(code)
    except Stopped as error:  # before the work began, or after it was done
        _end(_report(error, _typed(arguments)))


def _end(code: int) -> NoReturn:
    """End the process, what was said and written to its end."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # full, closed or absent: told before, as far as possible
            stream.flush()
    # Not sys.exit, which waits for the threads of a computation and takes all libraries apart for a tenth of a second.
    os._exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code; nothing but a signal is raised."""
    try:
        code = _complete() if _COMPLETE in os.environ else _invoke(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader of the output has seen enough (| head).
        if sys.stdout is not None:
            silence(sys.stdout.fileno())
        return 0
    except Stopped:
        raise
    except (Exception, KeyboardInterrupt) as error:
        return _report(error, _typed(arguments))
    return code


def _invoke(arguments: Sequence[str]) -> int:
    try:
        with cli.make_context(PROGRAM, list(arguments), obj=tuple(arguments)) as ctx:
            cli.invoke(ctx)
    except click.exceptions.Exit as error:
        return error.exit_code
    return 0


def _complete() -> int:
    """Answer the shell that asks for completions; see ``docs``."""
    return shell_complete(cli, {}, PROGRAM, _COMPLETE, os.environ[_COMPLETE])


def _typed(arguments: Sequence[str]) -> str:
    """The command that a message is about, such as "kron2sum scan"."""
    name = next((word for word in arguments if word in cli.commands), None)
    return f"{PROGRAM} {name}" if name else PROGRAM


def _report(error: BaseException, command: str) -> int:
    """Say on standard error what ended a command, such as "kron2sum scan"; returns the exit code."""
    if isinstance(error, click.UsageError):
        return _report_usage(error, command)
    if isinstance(error, KeyboardInterrupt):
        say(f"{command}: {_with_notes(str(error) or 'interrupted', error)}")
        return error.exit_code if isinstance(error, Stopped) else 130
    message = _with_notes(_explain(error), error)
    # Options may be wrong in several ways, told line by line; any other message is one line.
    for line in message.split("\n") if isinstance(error, UsageError) else [message]:
        say(f"{command}: error: {readable(line)}")
    return error.exit_code if isinstance(error, Kron2SumError) else 1


def _explain(error: BaseException) -> str:
    """The message for a failure that is not one of the usage."""
    if isinstance(error, Kron2SumError):
        return str(error)
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, MemoryError):
        remedy = "give a smaller --memory or --threads, or a larger machine"
        return f"not enough memory{f' ({error})' if str(error) else ''}; {remedy}"
    if isinstance(error, ImportError):
        return f"a library cannot be loaded ({error}); allow more memory, or install kron2sum again"
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        of = f" for {error.filename}" if error.filename else ""
        return f"no space left{of} ({error.strerror}); free some or write elsewhere"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"internal error ({type(error).__name__}: {error}); --debug shows where; please report it"


def _report_usage(error: click.UsageError, command: str) -> int:
    if error.ctx is not None:
        command = error.ctx.command_path
    say(f"{command}: error: {readable(error.format_message())}{_origin(error)}")
    say(f"Try '{command} --help'.")
    return UsageError.exit_code


def _origin(error: click.UsageError) -> str:
    """Where a bad value came from, if not from the command line."""
    if not isinstance(error, click.BadParameter) or error.ctx is None or error.param is None:
        return ""
    name = error.param.name or ""
    source = error.ctx.get_parameter_source(name)
    if source is click.core.ParameterSource.ENVIRONMENT:
        return f" (from the environment, such as {error.ctx.auto_envvar_prefix}_{name.upper()})"
    if source is click.core.ParameterSource.DEFAULT_MAP:
        return " (from the file of --config)"
    return ""


def _with_notes(message: str, error: BaseException) -> str:
    """The message, then the notes of the error, such as how to go on."""
    return "; ".join([message, *getattr(error, "__notes__", ())])
