"""How a pipeline says how far it is, without knowing who listens."""

from collections.abc import Callable, Iterator
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
        label : what is being done, such as "Scanning"
        total : the number of units to do; None where it cannot be known
        unit : what is counted, in the plural, such as "variants"

        Returns
        -------
        A context that yields the function to call with each number of units finished.
        """


class NoProgress:
    """The listener that says nothing, for use as a library."""

    @contextmanager
    def task(self, label: str, total: int | None, unit: str) -> Iterator[Advance]:
        """A step that nobody watches."""
        yield lambda units: None
