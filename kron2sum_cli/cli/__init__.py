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
from kron2sum_cli.cli.failures import report
from kron2sum_cli.cli.fit import fit
from kron2sum_cli.cli.messages import silence
from kron2sum_cli.cli.scan import scan
from kron2sum_cli.cli.signals import Stopped, stopping_on_signals

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

    Parameters
    ----------
    arguments : sequence of str or None
        Without the program's name; None for those of the process.

    The exit code is 0 done, 1 bad input, numbers or files, 2 usage, 3 not converged, 128 + a signal.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        with stopping_on_signals(_typed(arguments)):
            try:
                code = run(arguments)
            except Stopped as error:
                code = report(error, _typed(arguments))  # in here further signals are ignored
            _end(code)
    except Stopped as error:  # before the work began, or after it was done
        _end(report(error, _typed(arguments)))


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
        return report(error, _typed(arguments))
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
