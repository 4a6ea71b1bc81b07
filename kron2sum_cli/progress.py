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

        Parameters
        ----------
        label : str
            What is being done, such as "Scanning".
        total : int or None
            The number of units to do; None where it cannot be known.
        unit : str
            What is counted, in the plural, such as "variants".

        Returns
        -------
        context manager
            Yields the function to call with each number of units finished.
        """

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table for people.

        Parameters
        ----------
        header : sequence of str
            The names of its columns.
        rows : sequence of sequences of str
            Its rows, whose first cells name them.
        """


class NoProgress:
    """The listener that says nothing, for use as a library."""

    @contextmanager
    def task(self, label: str, total: int | None, unit: str) -> Iterator[Advance]:
        """A step that nobody watches."""
        yield lambda units: None

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table that nobody reads."""
