"""The lead variants of a scan over all its tests, with what a reader wants to know of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kron2sum_cli.reports.clumping import Clumping, Clumps
from kron2sum_cli.reports.genome import measure_genome
from kron2sum_cli.reports.lead_variants import Candidates, clump_candidates, find_candidates
from kron2sum_cli.reports.scan_view import ScanTest, ScanView

_COLUMNS = ("EAF", "N")


@dataclass(frozen=True)
class Locus:
    """A lead variant.

    Attributes
    ----------
    row : its columns of the result table
    size : how many significant variants belong to it, itself among them
    passes : the tests that it passes
    """

    row: Mapping[str, Any]
    size: int
    passes: tuple[ScanTest, ...]


@dataclass(frozen=True)
class Loci:
    """Lead variants, the strongest first.

    Attributes
    ----------
    found : the loci, each led by the variant with the smallest p of any test
    significant : for the column of every test how many variants pass it
    leads : for the column of every test how many loci it has when clumped by itself
    """

    found: tuple[Locus, ...]
    significant: Mapping[str, int]
    leads: Mapping[str, int]


def find_loci(view: ScanView, tests: Sequence[ScanTest], threshold: float, clumping: Clumping) -> Loci:
    """Clump the significant variants of all tests together, and of each by itself.

    Parameters
    ----------
    view : the table
    tests : those that count
    threshold : -log10 p of significance
    clumping : which variants belong to a lead variant
    """
    of_traits = [f"{kind}.{trait}" for trait in view.traits for kind in ("BETA", "SE", "MLOG10P")]
    refit = [name for name in ("MLOG10P_REFIT",) if name in view.columns]
    columns = [*_COLUMNS, "MLOG10P", *refit, *of_traits]
    found = find_candidates(view, measure_genome(view), tests, columns, threshold)
    by_test = [np.asarray(found.rows.column(test.column).to_numpy(), dtype=float) for test in tests]
    together, *each = clump_candidates(found, [found.scores, *by_test], threshold, clumping)
    names = [test.column for test in tests]
    significant = {name: int(np.sum(scores >= threshold)) for name, scores in zip(names, by_test, strict=True)}
    leads = {name: len(clumps.leads) for name, clumps in zip(names, each, strict=True)}
    return Loci(_loci(found, together, tests, threshold), significant, leads)


def _loci(found: Candidates, clumps: Clumps, tests: Sequence[ScanTest], threshold: float) -> tuple[Locus, ...]:
    rows = found.rows.take(clumps.leads).to_pylist()
    loci = []
    for row, size in zip(rows, clumps.sizes.tolist(), strict=True):
        values = {test: row[test.column] for test in tests}
        passes = tuple(test for test, value in values.items() if value is not None and value >= threshold)
        loci.append(Locus(row, size, passes))
    return tuple(loci)
