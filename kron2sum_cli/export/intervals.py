"""Where the cause of a locus lies: intervals around a lead variant, from the LOD scores of its neighbours."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from kron2sum_cli.export.genome import Genome, located_batches
from kron2sum_cli.export.leads import Loci
from kron2sum_cli.export.results import Array, ScanResults, ScanTest, column_values

LOD_DROP = 1.5
"""Largest difference from the LOD score of the lead variant within a LOD interval."""

PROBABILITY = 0.95
"""Posterior probability of a Bayes interval."""


@dataclass(frozen=True)
class LocusInterval:
    """Intervals of a locus by the test in which its lead variant is strongest, as positions on the chromosome.

    They are the first and last position of the 1.5 LOD and of the 95% Bayes interval; None for a variant without a
    position.
    """

    test: ScanTest
    lod: tuple[int, int] | None
    bayes: tuple[int, int] | None


def locus_intervals(scan: ScanResults, genome: Genome, loci: Loci, window: int) -> list[LocusInterval]:
    """Intervals of every locus of a scan of variants.

    They reach no farther than `window` bases from the lead variant, and no farther than a variant that is stronger in
    the same test.
    """
    tests = loci.strongest_tests()
    leads = loci.candidates.take(loci.together.leads)
    profiles = _profiles(scan, genome, tests, leads.chromosomes)
    found = []
    for k, test in enumerate(tests):
        chromosome, position = int(leads.chromosomes[k]), int(leads.positions[k])
        if genome.unplaced[chromosome] or position < 1:
            found.append(LocusInterval(test, None, None))
            continue
        positions, lod = profiles[test, chromosome]
        lead = _index_of_lead(positions, lod, position)
        first, last = _locus(positions, lod, lead, window)
        positions, lod = positions[first:last], lod[first:last]
        found.append(LocusInterval(test, lod_interval(positions, lod), bayes_interval(positions, lod)))
    return found


def lod_interval(positions: NDArray[np.int64], lod: Array) -> tuple[int, int]:
    """From the variant before the first within `LOD_DROP` of the highest LOD score to the one after the last.

    As ``lodint`` of R/qtl (Broman and Sen 2009). Positions (m,) increase.
    """
    within = np.flatnonzero(lod > lod.max() - LOD_DROP)
    return int(positions[max(within[0] - 1, 0)]), int(positions[min(within[-1] + 1, len(lod) - 1)])


def bayes_interval(positions: NDArray[np.int64], lod: Array) -> tuple[int, int]:
    """The variants of the smallest set with `PROBABILITY`, and what lies between them.

    For one causal variant with a flat prior along the chromosome: the posterior of a variant is ``10^LOD`` times the
    length of the chromosome that is nearest to it (``bayesint`` of R/qtl). Positions (m,) increase.
    """
    ends = np.concatenate([positions[:1], positions, positions[-1:]]).astype(float)
    width = (ends[2:] - ends[:-2]) / 2
    posterior = 10.0 ** (lod - lod.max()) * width
    if not posterior.sum() > 0:
        best = int(np.argmax(lod))
        return int(positions[best]), int(positions[best])
    order = np.argsort(-lod, kind="stable")
    reached = np.cumsum(posterior[order]) / posterior.sum()
    chosen = order[: int(np.searchsorted(reached, PROBABILITY)) + 1]
    return int(positions[chosen.min()]), int(positions[chosen.max()])


def _profiles(
    scan: ScanResults, genome: Genome, tests: Sequence[ScanTest], chromosomes: NDArray[np.intp]
) -> dict[tuple[ScanTest, int], tuple[NDArray[np.int64], Array]]:
    """Positions and LOD scores, in the order of the map, of every test on the chromosomes where it has a lead."""
    wanted = {(test, int(chromosome)) for test, chromosome in zip(tests, chromosomes, strict=True)}
    parts: dict[tuple[ScanTest, int], list[tuple[NDArray[np.int64], Array]]] = {key: [] for key in wanted}
    columns = [_statistic(test) for test in dict.fromkeys(tests)]
    for batch, of_batch, positions in located_batches(scan, columns, genome) if wanted else ():
        for test, chromosome in wanted:
            here = np.flatnonzero(of_batch == chromosome)
            if here.size:
                lod = _lod(column_values(batch, _statistic(test))[here], test)
                known = ~np.isnan(lod)
                parts[test, chromosome].append((positions[here][known], lod[known]))
    profiles = {}
    for key, found in parts.items():
        positions, lod = (np.concatenate(values) for values in zip(*found, strict=True))
        order = np.argsort(positions, kind="stable")
        profiles[key] = positions[order], lod[order]
    return profiles


def _statistic(test: ScanTest) -> str:
    """The column that LOD scores of a test are told from: χ², or of a single trait -log10 p."""
    return test.column if test.df_column is None else test.column.replace("MLOG10P", "CHISQ", 1)


def _lod(values: Array, test: ScanTest) -> Array:
    """LOD scores, ``χ² / (2 ln 10)``; of a test of one degree of freedom from -log10 p by the normal quantile."""
    if test.df_column is None:
        values = scipy.special.ndtri_exp(-values * np.log(10) - np.log(2)) ** 2
    return np.asarray(values / (2 * np.log(10)))


def _index_of_lead(positions: NDArray[np.int64], lod: Array, position: int) -> int:
    """The strongest variant at a position."""
    first, last = np.searchsorted(positions, (position, position + 1))
    return int(first + np.argmax(lod[first:last]))


def _locus(positions: NDArray[np.int64], lod: Array, lead: int, window: int) -> tuple[int, int]:
    """The variants from the lead outwards as far as the window reaches and none is stronger: first, and after last."""
    first, last = np.searchsorted(positions, (positions[lead] - window, positions[lead] + window + 1)).tolist()
    stronger = np.flatnonzero(lod > lod[lead])
    before, after = stronger[stronger < lead], stronger[stronger > lead]
    return max(first, int(before[-1]) + 1 if before.size else 0), min(last, int(after[0]) if after.size else len(lod))
