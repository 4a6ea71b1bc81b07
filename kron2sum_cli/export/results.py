"""A result table as the reports see it: its columns, what it says of its making, and its rows as often as needed."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.files.scan_metadata import ScanMetadata

Array = NDArray[np.float64]

JOINT = "joint test"
"""What the reports call the test of any effect."""


@dataclass(frozen=True)
class ScanTest:
    """One test of every variant.

    Attributes
    ----------
    label : for people: the trait, the name of the test, or `JOINT`
    column : where its -log10 p stands
    df_column : where its degrees of freedom stand; None for 1
    """

    __test__ = False  # not a test class, whatever its name

    label: str
    column: str
    df_column: str | None


@dataclass(frozen=True)
class ScanView:
    """A result table to report on.

    Attributes
    ----------
    name : the table, for messages
    columns : the names of its columns
    metadata : what it says of its making
    rows : reads columns of all rows, in order; may be called again
    traits : the traits to show
    """

    name: str
    columns: tuple[str, ...]
    metadata: ScanMetadata
    rows: Callable[[Sequence[str]], Iterable[pa.RecordBatch]]
    traits: tuple[str, ...]

    def read(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Some columns of all rows, in order.

        Raises
        ------
        InputError
            If the table lacks one of them.
        """
        lacking = [name for name in columns if name not in self.columns]
        if lacking:
            raise InputError(
                f"{self.name}: has no column {lacking[0]}, which is needed here;"
                " give a table of kron2sum scan with all its columns"
            )
        return (batch for batch in self.rows(list(dict.fromkeys(columns))) if len(batch))

    @property
    def joint(self) -> ScanTest:
        """The test of any effect on the traits that were scanned together."""
        return ScanTest(JOINT, "MLOG10P", "DF")

    @property
    def trait_tests(self) -> list[ScanTest]:
        """The test of each trait to show."""
        return [ScanTest(trait, f"MLOG10P.{trait}", None) for trait in self.traits]

    @property
    def main_tests(self) -> list[ScanTest]:
        """The joint test and each trait's; of a scan of one trait these are one and the same."""
        return self.trait_tests if len(self.metadata.traits) == 1 else [self.joint, *self.trait_tests]

    @property
    def further_tests(self) -> list[ScanTest]:
        """The tests of the scan beside the joint one and those of the traits."""
        of_traits = {f"MLOG10P.{trait}" for trait in self.metadata.traits}
        found = [name for name in self.columns if name.startswith("MLOG10P.") and name not in of_traits]
        names = [name.removeprefix("MLOG10P.") for name in found]
        return [ScanTest(name, f"MLOG10P.{name}", f"DF.{name}") for name in names]

    def degrees_of_freedom(self, test: ScanTest) -> int:
        """Of a test; 1 where no variant has a statistic."""
        if test.df_column is not None:
            for batch in self.read([test.df_column]):
                known = batch.column(test.df_column).drop_null()
                if len(known):
                    return int(known[0].as_py())
        return 1


def numbers(batch: pa.RecordBatch, column: str) -> Array:
    """A column as float64, NaN where a cell is empty."""
    return np.asarray(batch.column(column).cast(pa.float64()).to_numpy(zero_copy_only=False))


def level_text(threshold: float) -> str:
    """The p-value of a -log10 p, for people.

    Examples
    --------
    >>> level_text(7.30103), level_text(1.30103)
    ('5e-8', '0.05')
    """
    return f"{10.0**-threshold:.2g}".replace("e-0", "e-")
