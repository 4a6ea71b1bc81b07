"""How a command says how far it is and shows a table, without knowing who listens."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[int], None]
"""Called with the number of units finished since the last call; from any thread."""


class Progress(Protocol):
    """A listener to the progress of long steps."""

    def task(self, label: str, total: int | None, unit: str) -> AbstractContextManager[Advance]:
        """One step of the work.

        The label says what is being done, such as "Scanning", and the unit what is counted, in the plural, such as
        "variants". ``total`` is None where it cannot be known. Yields the function to call with each number of units
        finished.
        """

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table for people.

        The header names its columns, and the first cells of its rows name these.
        """


class NoProgress:
    """The listener that says nothing, for use as a library."""

    @contextmanager
    def task(self, label: str, total: int | None, unit: str) -> Iterator[Advance]:
        """A step that nobody watches."""
        yield lambda units: None

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table that nobody reads."""
