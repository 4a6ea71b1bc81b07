"""What people see while a command runs, all of it on standard error."""

import logging
import os
import shlex
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from kron2sum_cli.cli.command import unknown_variables
from kron2sum_cli.cli.messages import StderrHandler, count, status
from kron2sum_cli.files.run_log import LOGGER, recorded_run
from kron2sum_cli.progress import Advance, Progress
from kron2sum_cli.settings import CommonSettings, ExportSettings, FitSettings, ScanSettings

SECONDS_BETWEEN_LINES = 30.0


@contextmanager
def session(ctx: click.Context, settings: FitSettings | ScanSettings | ExportSettings) -> Iterator[Progress]:
    """Show and record what a command does; yields the listener to pass to its function."""
    handler = StderrHandler(ctx.command_path, settings.common)
    command_line = shlex.join([ctx.find_root().info_name or "", *ctx.obj])
    level = LOGGER.level
    LOGGER.setLevel(logging.DEBUG)
    LOGGER.addHandler(handler)
    try:
        with recorded_run(command_line, settings):
            for problem in unknown_variables(ctx):
                LOGGER.warning("%s", problem)
            yield _progress(settings.common, handler)
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)


class LineProgress:
    """For a log or a pipe: a line now and then about a long step, nothing about a short one."""

    def __init__(self, seconds_between: float = SECONDS_BETWEEN_LINES) -> None:
        self._seconds_between = seconds_between

    @contextmanager
    def task(self, label: str, total: int | None, unit: str) -> Iterator[Advance]:
        """One step; see `Progress`."""
        started = said = time.monotonic()
        done = 0
        guard = threading.Lock()

        def advance(units: int) -> None:
            nonlocal done, said
            with guard:
                done += units
                now = time.monotonic()
                if now - said < self._seconds_between:
                    return
                said = now
                line = status(done, total, unit, now - started)
            LOGGER.info("%s: %s", label, line)

        yield advance
        LOGGER.debug("%s: %s %s in %.2f s", label, count(done), unit, time.monotonic() - started)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table, line by line; see `Progress`."""
        from kron2sum_cli.cli.terminal import table_lines

        for line in table_lines(header, rows):
            LOGGER.info("%s", line)


def _progress(common: CommonSettings, handler: StderrHandler) -> Progress:
    """Bars on a terminal, else lines."""
    on_terminal = sys.stderr is not None and sys.stderr.isatty()
    if common.quiet or not on_terminal or os.environ.get("TERM") in (None, "", "dumb"):
        return LineProgress()
    from kron2sum_cli.cli.terminal import BarProgress

    return BarProgress(handler, LineProgress(float("inf")))
