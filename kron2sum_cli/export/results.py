"""The results of a scan as pictures, reports and GWAS-SSF read them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.files.scan_columns import ANY, CHR, EA, END, MLOG10P, MLOG10P_SET, NEA, POS, SET, SNPID, START
from kron2sum_cli.files.scan_metadata import ScanMetadata
from kron2sum_cli.model.bootstrap import threshold
from kron2sum_cli.option_values import GenomeWide, Significance
from kron2sum_cli.settings import FIXED

Array = NDArray[np.float64]

JOINT = "joint test"
"""What pictures and reports call the test of any effect."""


@dataclass(frozen=True)
class ScanTest:
    """One test of every variant, or set.

    The label, for people, is the trait, the name of the test, or `JOINT`. ``column`` has its -log10 p, and
    ``df_column`` its degrees of freedom; None for 1.
    """

    __test__ = False  # not a test of this code, whatever its name

    label: str
    column: str
    df_column: str | None


@dataclass(frozen=True)
class ScanResults:
    """The table of a scan, or of its parts joined.

    ``name`` is the table, for messages. ``rows`` reads some columns of all rows, in order, and may be called again.
    ``traits`` are those to show, ``chosen_tests`` names of the tests to draw (``--test``), empty for the joint test and
    those of the traits.
    """

    name: str
    columns: tuple[str, ...]
    metadata: ScanMetadata
    rows: Callable[[Sequence[str]], Iterable[pa.RecordBatch]]
    traits: tuple[str, ...]
    chosen_tests: tuple[str, ...] = ()

    def read(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Some columns of all rows, in order; a table that lacks one of them is refused."""
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
    def is_of_sets(self) -> bool:
        """Whether a row is a set of variants."""
        return SET.name in self.columns

    @property
    def noun(self) -> str:
        """What a row is."""
        return "set" if self.is_of_sets else "variant"

    @property
    def set_tests(self) -> dict[str, list[ScanTest]]:
        """The tests of a table of sets by what they ask, any effect first: one for each way to test sets.

        Degrees of freedom differ from set to set: λ is told from the p.
        """
        found: dict[str, list[ScanTest]] = {ANY: []}
        for name in self.columns:
            kind, _, rest = name.partition(".")
            if kind == MLOG10P.name:
                how, asked = FIXED, rest or ANY
            elif kind == MLOG10P_SET.name:
                how, _, asked = rest.partition(".")
                asked = asked or ANY
            else:
                continue
            label = how if asked == ANY else f"{how}.{asked}"
            found.setdefault(asked, []).append(ScanTest(label, name, None))
        return found

    @property
    def main_tests(self) -> list[ScanTest]:
        """The joint test, then those of several traits; of sets, the test of any effect by every way to test them."""
        if self.is_of_sets:
            return self.set_tests[ANY]
        return self.trait_tests if len(self.metadata.traits) == 1 else [self.joint, *self.trait_tests]

    @property
    def further_tests(self) -> list[ScanTest]:
        """All tests of the table but `main_tests`."""
        if self.is_of_sets:
            return [test for asked, tests in self.set_tests.items() if asked != ANY for test in tests]
        of_traits = {f"MLOG10P.{trait}" for trait in self.metadata.traits}
        found = [name for name in self.columns if name.startswith("MLOG10P.") and name not in of_traits]
        names = [name.removeprefix("MLOG10P.") for name in found]
        return [ScanTest(name, f"MLOG10P.{name}", f"DF.{name}") for name in names]

    @property
    def all_tests(self) -> list[ScanTest]:
        """Every test of the table."""
        return [*self.main_tests, *self.further_tests]

    @property
    def drawn_tests(self) -> list[ScanTest]:
        """The tests that a picture shows."""
        if not self.chosen_tests:
            return self.main_tests
        if self.is_of_sets:
            return [test for name in self.chosen_tests for test in self.set_tests[name]]
        known = {ANY: self.joint} | {test.label: test for test in [*self.further_tests, *self.trait_tests]}
        return [known[name] for name in self.chosen_tests]

    def degrees_of_freedom(self, test: ScanTest) -> int:
        """Degrees of freedom of a test; 1 where no variant has a statistic."""
        if test.df_column is not None:
            for batch in self.read([test.df_column]):
                known = batch.column(test.df_column).drop_null()
                if len(known):
                    return int(known[0].as_py())
        return 1


@dataclass(frozen=True)
class Thresholds:
    """From which -log10 p on each test of a scan is passed.

    The significance was asked for, one p for all tests, or a level over the whole scan; ``of_columns`` has the -log10 p
    of every test that counts, under its column.
    """

    significance: Significance
    of_columns: dict[str, float]

    def of(self, test: ScanTest) -> float:
        """-log10 p from which on a test is passed."""
        return self.of_columns[test.column]

    @property
    def text(self) -> str:
        """Significance in words, as `significance_text` has it."""
        return significance_text(self.significance)


def thresholds_of_tests(scan: ScanResults, tests: Sequence[ScanTest], significance: Significance) -> Thresholds:
    """The thresholds of some tests of a scan.

    Raises InputError where they are to come from simulated scans, and a test has none, or too few.
    """
    if not isinstance(significance, GenomeWide):
        return Thresholds(significance, {test.column: float(-np.log10(significance)) for test in tests})
    found = {}
    for test in tests:
        largest = scan.metadata.largest.get(name_in_metadata(scan, test), ())
        level = threshold(np.array(largest), significance.level) if largest else None
        if level is None:
            of_scan = "" if test in (scan.joint, *scan.trait_tests) else f" and --test {test.label}"
            named = name_in_metadata(scan, test)
            raise InputError(
                f"{scan.name}: --significance {significance} needs {significance.least_bootstrap} simulated scans with"
                f" the test {named}, and it has {len(largest)}; scan with --bootstrap{of_scan}"
            )
        found[test.column] = level
    return Thresholds(significance, found)


def name_in_metadata(scan: ScanResults, test: ScanTest) -> str:
    """What the thresholds in the metadata call a test."""
    return ANY if test == scan.joint else test.label


def sets_as_variants(batch: pa.RecordBatch, columns: Sequence[str]) -> pa.RecordBatch:
    """Rows of sets with columns of variants, for which they have the `stored_columns_of_sets`.

    A variant's name, position and alleles are a set's name, its middle, and nothing.
    """
    arrays = []
    for name in columns:
        if name in (EA.name, NEA.name):
            arrays.append(pa.array([""] * len(batch)))
        elif name == POS.name:
            ends = pc.add(batch.column(START.name), batch.column(END.name))
            arrays.append(pc.divide(ends, 2).fill_null(0))
        elif name == CHR.name:
            arrays.append(batch.column(name).fill_null("0"))
        else:
            arrays.append(batch.column(SET.name if name == SNPID.name else name))
    return pa.RecordBatch.from_arrays(arrays, names=list(columns))


def stored_columns_of_sets(columns: Sequence[str]) -> list[str]:
    """The columns of a table of sets that those of variants are made from."""
    stored = {POS.name: (START.name, END.name), **dict.fromkeys((SNPID.name, EA.name, NEA.name), (SET.name,))}
    return list(dict.fromkeys(source for name in columns for source in stored.get(name, (name,))))


def column_values(rows: pa.RecordBatch | pa.Table, column: str) -> Array:
    """A column of numbers as float64, NaN where a cell is empty."""
    return np.asarray(rows.column(column).cast(pa.float64()))


def significance_text(significance: Significance) -> str:
    """Significance in words.

    >>> significance_text(5e-8), significance_text(0.05), significance_text(GenomeWide(0.05))
    ('p ≤ 5e-8', 'p ≤ 0.05', 'genome-wide p ≤ 0.05')
    """
    if isinstance(significance, GenomeWide):
        return f"genome-wide p ≤ {significance.level:g}"
    return f"p ≤ {significance:.2g}".replace("e-0", "e-")
