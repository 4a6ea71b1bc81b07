"""The strongest variant of every locus: clumping by distance."""

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kron2sum_cli.reports.genome import Genome, placed_batches
from kron2sum_cli.reports.scan_view import Array, ScanTest, ScanView, numbers

MOST_CANDIDATES = 5000
"""Beside all significant variants, so many of the strongest are looked at for leads."""


@dataclass(frozen=True)
class Candidates:
    """Variants among which leads are looked for, in the order of the table.

    Attributes
    ----------
    rows : their columns
    codes, positions : (m,) chromosome (index into the genome's) and placed position
    scores : (m,) the greatest -log10 p of the tests
    """

    rows: pa.Table
    codes: NDArray[np.intp]
    positions: NDArray[np.int64]
    scores: Array


def find_candidates(
    view: ScanView, genome: Genome, tests: Sequence[ScanTest], columns: Sequence[str], threshold: float
) -> Candidates:
    """All variants with -log10 p of some test at the threshold or above, and the strongest of the others.

    Parameters
    ----------
    view, genome : the table and its chromosomes
    tests : a variant counts by the smallest p of these
    columns : what is to be known of each
    threshold : -log10 p
    """
    wanted = list(dict.fromkeys([*columns, *(test.column for test in tests)]))
    found: list[Candidates] = []
    floor, enough = -np.inf, 4 * MOST_CANDIDATES
    for batch, codes, positions in placed_batches(view, wanted, genome):
        scores = np.fmax.reduce([numbers(batch, test.column) for test in tests])
        kept = np.flatnonzero(scores > floor)
        rows = pa.Table.from_batches([batch]).take(kept)
        found.append(Candidates(rows, codes[kept], positions[kept], scores[kept]))
        if sum(len(part.scores) for part in found) > enough:
            found = [_strongest(found, threshold)]
            weak = found[0].scores[found[0].scores < threshold]
            floor = float(weak.min()) if weak.size else np.nextafter(threshold, 0)
            enough = 2 * len(found[0].scores) + 4 * MOST_CANDIDATES
    return _strongest(found, threshold) if found else _none(wanted)


def _strongest(parts: Sequence[Candidates], threshold: float) -> Candidates:
    """All significant variants, and others up to `MOST_CANDIDATES` in all; of equal ones the first."""
    rows = pa.concat_tables([part.rows for part in parts])
    scores = np.concatenate([part.scores for part in parts])
    order = np.argsort(-scores, kind="stable")
    room = max(MOST_CANDIDATES, int(np.count_nonzero(scores >= threshold)))
    kept = np.sort(order[:room])
    codes = np.concatenate([part.codes for part in parts])[kept]
    positions = np.concatenate([part.positions for part in parts])[kept]
    return Candidates(rows.take(kept), codes, positions, scores[kept])


def _none(columns: Sequence[str]) -> Candidates:
    rows = pa.table({name: pa.array([], pa.float64()) for name in columns})
    return Candidates(rows, np.empty(0, np.intp), np.empty(0, np.int64), np.empty(0))


@dataclass(frozen=True)
class Clumps:
    """Loci, the strongest first.

    Attributes
    ----------
    leads : (k,) the lead variant of each
    sizes : (k,) how many variants belong to each, the lead among them
    """

    leads: NDArray[np.intp]
    sizes: NDArray[np.intp]


def clump(codes: NDArray[np.intp], positions: NDArray[np.int64], scores: Array, window: int) -> Clumps:
    """Loci of variants: the strongest takes all within `window` bases, then the strongest of the rest, and so on.

    Parameters
    ----------
    codes, positions, scores : (m,) chromosome, position and strength of each variant; of equally strong ones the
        first leads
    window : largest distance to the lead, on either side

    Returns
    -------
    Indices into the m variants. A variant between two leads belongs to the stronger one.
    """
    leads: list[int] = []
    sizes: list[int] = []
    taken: dict[int, list[tuple[int, int]]] = {}
    for variant in np.argsort(-scores, kind="stable").tolist():
        position = int(positions[variant])
        on_chromosome = taken.setdefault(int(codes[variant]), [])
        at = bisect_left(on_chromosome, (position, -1))
        near = [locus for there, locus in on_chromosome[max(at - 1, 0) : at + 1] if abs(there - position) <= window]
        if near:
            sizes[min(near)] += 1
        else:
            insort(on_chromosome, (position, len(leads)))
            leads.append(variant)
            sizes.append(1)
    return Clumps(np.array(leads, dtype=np.intp), np.array(sizes, dtype=np.intp))
