"""From an exception to one message and an exit code."""

import click

from kron2sum_cli.cli.messages import say
from kron2sum_cli.cli.signals import Stopped
from kron2sum_cli.errors import Kron2SumError, UsageError, readable
from kron2sum_cli.files.outputs import NO_SPACE

EXIT_BAD_INPUT = 1
EXIT_USAGE = 2


def report(error: BaseException, command: str) -> int:
    """Say on standard error what went wrong.

    Parameters
    ----------
    error : BaseException
        What ended the command.
    command : str
        Such as "kron2sum scan".

    Returns
    -------
    int
        The exit code: that of the class of the error; 1 for anything unforeseen.
    """
    if isinstance(error, click.UsageError):
        return _report_usage(error, command)
    if isinstance(error, KeyboardInterrupt):
        say(f"{command}: {_with_notes(str(error) or 'interrupted', error)}")
        return error.exit_code if isinstance(error, Stopped) else 130
    message = _with_notes(explain(error), error)
    # Options may be wrong in several ways, told line by line; any other message is one line.
    for line in message.split("\n") if isinstance(error, UsageError) else [message]:
        say(f"{command}: error: {readable(line)}")
    return error.exit_code if isinstance(error, Kron2SumError) else EXIT_BAD_INPUT


def explain(error: BaseException) -> str:
    """The message for a failure that is not one of the usage."""
    if isinstance(error, Kron2SumError):
        return str(error)
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, MemoryError):
        remedy = "give a smaller --memory or --threads, or a larger machine"
        return f"not enough memory{_in_brackets(error)}; {remedy}"
    if isinstance(error, ImportError):
        return f"a library cannot be loaded ({error}); allow more memory, or install kron2sum again"
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        return f"no space left{_of_file(error)} ({error.strerror}); free some or write elsewhere"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"internal error ({type(error).__name__}: {error}); --debug shows where; please report it"


def _report_usage(error: click.UsageError, command: str) -> int:
    if error.ctx is not None:
        command = error.ctx.command_path
    say(f"{command}: error: {readable(error.format_message())}{_origin(error)}")
    say(f"Try '{command} --help'.")
    return EXIT_USAGE


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


def _in_brackets(error: BaseException) -> str:
    return f" ({error})" if str(error) else ""


def _of_file(error: OSError) -> str:
    return f" for {error.filename}" if error.filename else ""
