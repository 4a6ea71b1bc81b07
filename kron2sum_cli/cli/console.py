"""What people see while a command runs, all of it on standard error: lines, or on a terminal bars; and tables."""

import io
import logging
import os
import shlex
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import click
from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from kron2sum_cli.cli.command import unknown_variables
from kron2sum_cli.cli.messages import StderrHandler, count, say, status
from kron2sum_cli.errors import readable
from kron2sum_cli.files.run_log import LOGGER, recorded_run
from kron2sum_cli.progress import Advance, Progress
from kron2sum_cli.settings import CommonSettings, ExportSettings, FitSettings, ScanSettings

SECONDS_BETWEEN_LINES = 30.0
_WIDEST = 100_000


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


def _progress(common: CommonSettings, handler: StderrHandler) -> Progress:
    """Bars on a terminal, else lines."""
    on_terminal = sys.stderr is not None and sys.stderr.isatty()
    if common.quiet or not on_terminal or os.environ.get("TERM") in (None, "", "dumb"):
        return LineProgress()
    return BarProgress(handler, LineProgress(float("inf")))


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
        for line in table_lines(header, rows):
            LOGGER.info("%s", line)


class BarProgress:
    """For a terminal: a bar with count, speed and time left; a spinner where the end is not known.

    ``logged`` is who else listens to the steps.
    """

    def __init__(self, handler: StderrHandler, logged: Progress) -> None:
        self._handler = handler
        self._logged = logged
        self.bars: Bars | None = None

    @contextmanager
    def task(self, label: str, total: int | None, unit: str) -> Iterator[Advance]:
        """One step; see `Progress`."""
        with ExitStack() as stack:
            logged = stack.enter_context(self._logged.task(label, total, unit))
            bars = self.bars or stack.enter_context(self._shown())
            bar = bars.add_task(label, total=total, unit=unit)
            stack.callback(bars.remove_task, bar)

            def advance(units: int) -> None:
                logged(units)
                bars.advance(bar, units)

            yield advance

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table on the screen; line by line in the log; see `Progress`."""
        for line in table_lines(header, rows):
            LOGGER.info("%s", line, extra={"is_drawn": True})
        console = self.bars.console if self.bars is not None else Console(stderr=True)
        console.print(_rich_table(header, rows))

    @contextmanager
    def _shown(self) -> Iterator[Bars]:
        """The display of all steps that run now; it lasts as long as the outermost."""
        bars = _bars()
        with bars:
            self.bars = bars
            self._handler.say = partial(bars.console.print, markup=False, highlight=False, soft_wrap=True)
            try:
                yield bars
            finally:
                self.bars, self._handler.say = None, say


class _Status(ProgressColumn):
    """What `status` says."""

    def render(self, task: Task) -> Text:
        """Render a step."""
        total = None if task.total is None else int(task.total)
        return Text(status(int(task.completed), total, task.fields["unit"], task.elapsed or 0.0))


def _bars() -> Bars:
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(bar_width=30), _Status())
    return Bars(*columns, console=Console(stderr=True), transient=True)


def _rich_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table without lines: names to the left, values to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for k, name in enumerate(header):
        table.add_column(Text(readable(name)), justify="right" if k else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(readable(cell)) for cell in row))
    return table


def table_lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table as text without any control character, as wide as it has to be."""
    console = Console(width=_WIDEST, color_system=None, file=io.StringIO(), legacy_windows=False)
    with console.capture() as captured:
        console.print(_rich_table(header, rows))
    return [line.rstrip() for line in captured.get().splitlines()]
