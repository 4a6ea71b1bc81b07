"""What rich draws: bars of progress on a terminal, and tables; runs that draw nothing do not wait for rich to load."""

import io
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from kron2sum_cli.cli.messages import StderrHandler, say, status
from kron2sum_cli.errors import readable
from kron2sum_cli.files.run_log import LOGGER
from kron2sum_cli.progress import Advance, Progress

_WIDEST = 100_000


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
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(bar_width=30), _Status())
        with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
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
