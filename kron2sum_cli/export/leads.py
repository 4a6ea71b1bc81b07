"""The strongest variants of a result table, and which of them lead a locus."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.export.genome import Genome, placed_batches
from kron2sum_cli.export.results import Array, ScanTest, ScanView, numbers

WINDOW = 500_000
"""Variants farther than so many bases from a lead variant do not belong to it."""

R2 = 0.1
"""With genotypes, neither do those whose r² with it is smaller."""


class Linkage(Protocol):
    """Linkage disequilibrium between variants of a result table."""

    @property
    def description(self) -> str:
        """The genotypes and whose they are, for people."""

    @property
    def source(self) -> str:
        """The genotype files, for messages."""

    def places(self, variants: pa.Table) -> NDArray[np.intp]:
        """Where variants (columns CHR, POS, SNPID, EA, NEA) are in the genotypes; -1 for those that are not there."""

    def r2(self, lead: int, others: NDArray[np.intp]) -> Array:
        """r² of one variant with each of the others, all by their place."""


@dataclass(frozen=True)
class Clumping:
    """Which variants belong to a lead variant.

    Attributes
    ----------
    window : those no more than so many bases from it,
    r2 : and, where `linkage` is known, with at least this r²
    linkage : None for distance alone
    """

    window: int = WINDOW
    r2: float = R2
    linkage: Linkage | None = None

    @property
    def said(self) -> str:
        """How, in a sentence that follows "lead variants:"."""
        window = f"{self.window / 1000:g} kb"
        if self.linkage is None:
            return f"clumped by distance: a lead variant is the strongest within {window}"
        return (
            f"clumped by linkage disequilibrium: a lead variant takes all within {window} whose r² with it is"
            f" {self.r2:g} or more, {self.linkage.description}"
        )


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


def clump(
    codes: NDArray[np.intp],
    positions: NDArray[np.int64],
    scores: Array,
    window: int,
    linked: Callable[[int, NDArray[np.intp]], NDArray[np.bool_]] | None = None,
    most: int | None = None,
) -> Clumps:
    """Loci of variants: the strongest takes those within `window` bases that are linked to it, and so on.

    Parameters
    ----------
    codes, positions, scores : (m,) chromosome, position and strength of each variant; of equally strong ones the
        first leads
    window : largest distance to the lead, on either side
    linked : which of some variants are linked to a lead; asked once a lead, for those near it that none has taken;
        None where all are
    most : find the strongest so many loci only; None for all

    Returns
    -------
    Indices into the m variants. A variant that could belong to two leads belongs to the stronger one.
    """
    along = np.lexsort((positions, codes))
    starts = np.searchsorted(codes[along], np.arange(codes.max(initial=-1) + 2))
    placed = positions[along]
    free = np.ones(len(codes), dtype=np.bool_)
    leads: list[int] = []
    sizes: list[int] = []
    for variant in np.argsort(-scores, kind="stable").tolist():
        if not free[variant]:
            continue
        if len(leads) == most:
            break
        free[variant] = False
        first, last = starts[codes[variant]], starts[codes[variant] + 1]
        edges = (positions[variant] - window, positions[variant] + window + 1)
        low, high = first + np.searchsorted(placed[first:last], edges)
        members = along[low:high][free[along[low:high]]]
        if linked is not None and members.size:
            members = members[linked(variant, members)]
        free[members] = False
        leads.append(variant)
        sizes.append(1 + len(members))
    return Clumps(np.array(leads, dtype=np.intp), np.array(sizes, dtype=np.intp))


MOST_CANDIDATES = 5000
"""Beside all significant variants, so many of the strongest are looked at for leads."""

_IDENTITY = ("CHR", "POS", "SNPID", "EA", "NEA")


@dataclass(frozen=True)
class Candidates:
    """Variants among which leads are looked for, in the order of the table.

    Attributes
    ----------
    rows : their columns, among them CHR, POS, SNPID, EA and NEA
    numbers : (m,) which rows of the table they are
    codes, positions : (m,) chromosome (index into the genome's) and placed position
    scores : (m,) the greatest -log10 p of the tests
    """

    rows: pa.Table
    numbers: NDArray[np.intp]
    codes: NDArray[np.intp]
    positions: NDArray[np.int64]
    scores: Array

    def take(self, kept: NDArray[np.intp]) -> "Candidates":
        """Some of them, in this order."""
        return Candidates(
            self.rows.take(kept), self.numbers[kept], self.codes[kept], self.positions[kept], self.scores[kept]
        )


def find_candidates(
    view: ScanView, genome: Genome, tests: Sequence[ScanTest], columns: Sequence[str], threshold: float
) -> Candidates:
    """All variants with -log10 p of some test at the threshold or above, and the strongest of the others.

    Parameters
    ----------
    view, genome : the table and its chromosomes
    tests : a variant counts by the smallest p of these
    columns : what is to be known of each, beside its place, name and alleles
    threshold : -log10 p
    """
    wanted = list(dict.fromkeys([*_IDENTITY, *columns, *(test.column for test in tests)]))
    found: list[Candidates] = []
    floor, enough, start = -np.inf, 4 * MOST_CANDIDATES, 0
    for batch, codes, positions in placed_batches(view, wanted, genome):
        scores = np.fmax.reduce([numbers(batch, test.column) for test in tests])
        kept = np.flatnonzero(scores > floor)
        rows = pa.Table.from_batches([batch]).take(kept)
        found.append(Candidates(rows, start + kept, codes[kept], positions[kept], scores[kept]))
        start += len(batch)
        if sum(len(part.scores) for part in found) > enough:
            found = [_strongest(found, threshold)]
            weak = found[0].scores[found[0].scores < threshold]
            floor = float(weak.min()) if weak.size else np.nextafter(threshold, 0)
            enough = 2 * len(found[0].scores) + 4 * MOST_CANDIDATES
    return _strongest(found, threshold) if found else _none(wanted)


def _strongest(parts: Sequence[Candidates], threshold: float) -> Candidates:
    """All significant variants, and others up to `MOST_CANDIDATES` in all; of equal ones the first."""
    whole = Candidates(
        pa.concat_tables([part.rows for part in parts]),
        np.concatenate([part.numbers for part in parts]),
        np.concatenate([part.codes for part in parts]),
        np.concatenate([part.positions for part in parts]),
        np.concatenate([part.scores for part in parts]),
    )
    order = np.argsort(-whole.scores, kind="stable")
    room = max(MOST_CANDIDATES, int(np.count_nonzero(whole.scores >= threshold)))
    return whole.take(np.sort(order[:room]))


def _none(columns: Sequence[str]) -> Candidates:
    rows = pa.table({name: pa.array([], pa.float64()) for name in columns})
    nothing = np.empty(0, np.intp)
    return Candidates(rows, nothing, nothing, np.empty(0, np.int64), np.empty(0))


def clump_candidates(
    found: Candidates, scores: Sequence[Array], threshold: float, clumping: Clumping, most: int | None = None
) -> list[Clumps]:
    """Loci of the candidates by each of several tests.

    Parameters
    ----------
    found : m candidates
    scores : for each test (m,) -log10 p, NaN where there is none
    threshold : smallest -log10 p of a variant of a locus
    clumping : which variants belong together
    most : find the strongest so many loci of each test only; None for all

    Returns
    -------
    For each test indices into the candidates.

    Raises
    ------
    InputError
        If a variant is not in the genotypes that linkage disequilibrium is to be told from.
    """
    passing = [np.flatnonzero(values >= threshold) for values in scores]
    wanted = np.unique(np.concatenate(passing))
    places = None if clumping.linkage is None else _places(found, wanted, clumping.linkage)
    loci = []
    for high, values in zip(passing, scores, strict=True):
        linked = None if places is None else _linked(places[high], clumping)
        clumps = clump(found.codes[high], found.positions[high], values[high], clumping.window, linked, most)
        loci.append(Clumps(high[clumps.leads], clumps.sizes))
    return loci


def _places(found: Candidates, wanted: NDArray[np.intp], linkage: Linkage) -> NDArray[np.intp]:
    """Where the wanted candidates are in the genotypes; -1 for the others."""
    places = np.full(len(found.scores), -1, dtype=np.intp)
    places[wanted] = linkage.places(found.rows.select(_IDENTITY).take(wanted))
    absent = wanted[places[wanted] < 0]
    if absent.size:
        chromosome, position, name, *alleles = (
            found.rows.column(column)[int(absent[0])].as_py() for column in _IDENTITY
        )
        raise InputError(
            f"{linkage.source}: lacks {absent.size} of the {len(wanted)} variants to clump, such as {name} at"
            f" {chromosome}:{position} with alleles {' and '.join(map(str, alleles))}; give the genotypes that were"
            " scanned, or clump by distance (without --geno)"
        )
    return places


def _linked(places: NDArray[np.intp], clumping: Clumping) -> Callable[[int, NDArray[np.intp]], NDArray[np.bool_]]:
    """Which of some variants are in linkage disequilibrium with a lead, all by their index into the places."""
    linkage = clumping.linkage
    assert linkage is not None
    return lambda lead, near: np.asarray(linkage.r2(int(places[lead]), places[near]) >= clumping.r2)
