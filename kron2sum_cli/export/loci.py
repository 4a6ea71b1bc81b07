"""Loci: the strongest variants of a scan, which others belong to each, and from where to where its cause may lie.

Variants belong together by distance, or by linkage disequilibrium in the genotypes of the scan.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.export.genome import Genome, located_batches
from kron2sum_cli.export.results import Array, ScanResults, ScanTest, Thresholds, column_values, thresholds_of_tests
from kron2sum_cli.files.null_file import NullFile
from kron2sum_cli.files.outputs import guard_inputs
from kron2sum_cli.files.samples import Samples, match
from kron2sum_cli.genotypes.chromosomes import normalise_chromosome
from kron2sum_cli.genotypes.open import SeveralFiles, open_genotype_file
from kron2sum_cli.genotypes.source import GenotypeSource, Variants
from kron2sum_cli.model.spectrum import parts_of
from kron2sum_cli.option_values import FILES_OF_GENOTYPES, Significance
from kron2sum_cli.settings import DEFAULT_CLUMP_KB, DEFAULT_CLUMP_R2, DEFAULT_SIGNIFICANCE

MOST_CANDIDATES = 5000
"""Beside all significant variants, so many of the strongest are looked at for leads."""

LOD_DROP = 1.5
"""Largest difference from the LOD score of the lead variant within a LOD interval."""

PROBABILITY = 0.95
"""Posterior probability of a Bayes interval."""

logger = logging.getLogger("kron2sum.export")

_CELLS_AT_ONCE = 1 << 22
"""Genotypes that are read at once (32 MiB as float64), whatever the number of variants near a lead."""

ANY_PLOIDY = 100
"""Copies that a table may count: r² is the same whatever a sample has."""

VARIANT_KEY = ("CHR", "POS", "SNPID", "EA", "NEA")
"""Columns that tell variants apart."""


@dataclass(frozen=True)
class GenotypeLinkage:
    """r² among the samples of a scan, as the ``description`` says it to people."""

    genotypes: SeveralFiles
    description: str

    def find(self, variants: pa.Table) -> NDArray[np.intp]:
        """Index (m,) of variants, by name, chromosome, position and pair of alleles; -1 for those that are not there.

        They have the columns of `VARIANT_KEY`.
        """
        names = pa.array(variants.column("SNPID").to_pylist(), pa.string())
        table = self.genotypes.variants.table
        near = np.flatnonzero(np.asarray(pc.is_in(table["SNPID"], value_set=names).combine_chunks()))
        known: dict[tuple[object, ...], int] = {}
        for key, index in zip(_keys(table.select(VARIANT_KEY).take(near)), near.tolist(), strict=True):
            known.setdefault(key, index)
        return np.array([known.get(key, -1) for key in _keys(variants)], dtype=np.intp)

    def r2(self, lead: int, others: NDArray[np.intp]) -> NDArray[np.float64]:
        """r² of one variant with each of the others, missing genotypes at the variant's mean.

        ``r² = (xᵀy)² / (xᵀx yᵀy)``, x and y centred; 0 for a variant that does not vary.
        """
        x = self._centred(np.array([lead]))[:, 0]
        order = np.argsort(others)
        found = np.empty(len(others))
        for part in parts_of(len(others), _CELLS_AT_ONCE // len(x)):
            block = order[part]
            y = self._centred(others[block])
            squares = (x @ x) * np.einsum("ij,ij->j", y, y)
            found[block] = np.divide((x @ y) ** 2, squares, out=np.zeros(len(block)), where=squares > 0)
        return found

    def _centred(self, variants: NDArray[np.intp]) -> NDArray[np.float64]:
        """Dosages (n, k) of k variants, their indices increasing, less their mean; 0 where missing."""
        dosages = self.genotypes.read(variants, np.arange(len(self.genotypes.samples))).astype(np.float64)
        missing = np.isnan(dosages)
        called = np.maximum(np.count_nonzero(~missing, axis=0), 1)
        return np.asarray(np.where(missing, 0.0, dosages - np.nansum(dosages, axis=0) / called))


def _keys(variants: pa.Table) -> list[tuple[object, ...]]:
    """What makes a variant the same one, whichever allele a format names first."""
    spelled = {code: normalise_chromosome(code) for code in variants.column("CHR").unique().to_pylist()}
    columns = (variants.column(name).to_pylist() for name in VARIANT_KEY)
    return [
        (spelled[code], position, name, frozenset(alleles))
        for code, position, name, *alleles in zip(*columns, strict=True)
    ]


def open_linkage(
    paths: Sequence[str], out: str, null: NullFile | None, files: Mapping[str, str | None] | None = None
) -> GenotypeLinkage:
    """Open the genotypes of a scan, which the output must not be, to tell linkage disequilibrium from.

    The samples are those of the null model, without it all of the first file. ``files`` belong to the genotypes, by
    their options (`option_values.FILES_OF_GENOTYPES`). Raises InputError if a file cannot be read, or lacks one of the
    samples; OutputError if the output is one of the files.
    """
    sample, bim, fam, variant_map = map((files or {}).get, FILES_OF_GENOTYPES)
    sources = tuple(
        open_genotype_file(path, sample=sample, bim=bim, fam=fam, variant_map=variant_map, ploidy=ANY_PLOIDY)
        for path in paths
    )
    for source in sources:
        guard_inputs(out, source.files)
    samples = sources[0].samples if null is None else null.samples
    rows = tuple(_rows(samples, source) for source in sources)
    variants = pa.concat_tables([source.variants.table for source in sources])
    names = ", ".join(source.path for source in sources)
    kind = "samples of the genotypes" if null is None else "analysed samples"
    genotypes = SeveralFiles(sources, rows, samples, Variants(variants, names))
    description = f"among the {len(samples):,} {kind}, with missing genotypes at the mean"
    logger.info("lead variants clumped by linkage disequilibrium %s, in %s", description, names)
    if null is None:
        logger.info("give the null model (--null) to take the analysed samples only")
    return GenotypeLinkage(genotypes, description)


def _rows(samples: Samples, source: GenotypeSource) -> NDArray[np.intp]:
    rows = match(samples, source.samples)
    absent = np.flatnonzero(rows < 0)
    if absent.size:
        raise InputError(
            f"{source.path}: lacks {absent.size} of the {len(samples)} samples of {samples.source}, such as"
            f" {samples.label(int(absent[0]))}; give the genotypes that were scanned"
        )
    return rows


@dataclass(frozen=True)
class Clumping:
    """Which variants are lead variants, and which belong to them.

    - ``significance``: largest p of a lead variant and of those that belong to it.
    - ``window``: largest distance of a variant of a locus from its lead variant, in base pairs.
    - ``r2``: smallest r² of a variant of a locus with its lead variant, where `linkage` is known.
    - ``linkage``: the genotypes; None for distance alone.
    """

    significance: Significance = DEFAULT_SIGNIFICANCE
    window: int = round(1000 * DEFAULT_CLUMP_KB)
    r2: float = DEFAULT_CLUMP_R2
    linkage: GenotypeLinkage | None = None

    @property
    def description(self) -> str:
        """How lead variants were found: the end of a sentence that begins "lead variants:"."""
        window = f"{self.window / 1000:g} kb"
        if self.linkage is None:
            return f"clumped by distance: a lead variant is the strongest within {window}"
        return (
            f"clumped by linkage disequilibrium: a lead variant takes all within {window} whose r² with it is"
            f" {self.r2:g} or more, {self.linkage.description}"
        )


@dataclass(frozen=True)
class Clumps:
    """Loci, the strongest first: index (k,) of the lead variant of each, and how many variants belong to it in all."""

    leads: NDArray[np.intp]
    sizes: NDArray[np.intp]


@dataclass(frozen=True)
class Candidates:
    """Variants among which leads are looked for, in the order of the table.

    - ``rows``: their columns, among them CHR, POS, SNPID, EA and NEA.
    - ``row_numbers`` (m,): which rows of the table they are, counted from 0.
    - ``chromosomes``, ``positions`` (m,): index into the genome's chromosomes, and position as `located_batches` gives
      it.
    - ``excess`` (m,): largest difference between -log10 p of a test and its threshold, over the tests.
    """

    rows: pa.Table
    row_numbers: NDArray[np.intp]
    chromosomes: NDArray[np.intp]
    positions: NDArray[np.int64]
    excess: Array

    def take(self, kept: NDArray[np.intp]) -> "Candidates":
        """Some of them, in this order."""
        return Candidates(
            self.rows.take(kept),
            self.row_numbers[kept],
            self.chromosomes[kept],
            self.positions[kept],
            self.excess[kept],
        )


@dataclass(frozen=True)
class Loci:
    """The significant variants of a scan and how they make loci.

    The indices of all clumps are into the ``candidates``. Loci are ``together`` by the smallest p of any of the
    ``tests``, and ``by_test`` by each alone, under its column, as is how many variants are ``significant``.
    """

    tests: tuple[ScanTest, ...]
    candidates: Candidates
    together: Clumps
    by_test: dict[str, Clumps]
    significant: dict[str, int]
    thresholds: Thresholds

    def passed(self, variant: int) -> list[ScanTest]:
        """The tests that a candidate passes."""
        row = self.candidates.rows.slice(variant, 1)
        return [test for test in self.tests if column_values(row, test.column)[0] >= self.thresholds.of(test)]

    def strongest_tests(self) -> list[ScanTest]:
        """The test in which the lead variant of each locus has the smallest p."""
        rows = self.candidates.rows.take(self.together.leads)
        strength = np.array([column_values(rows, test.column) for test in self.tests])
        return [self.tests[k] for k in np.nanargmax(strength, axis=0)]


def find_loci(
    scan: ScanResults, genome: Genome, tests: Sequence[ScanTest], columns: Sequence[str], clumping: Clumping
) -> Loci:
    """Clump the significant variants of all tests together, and of each by itself.

    Beside their place, names, alleles and tests, the candidates have the ``columns`` that are named. Raises InputError
    if a variant is not in the genotypes that linkage disequilibrium is to be told from, or a test has no threshold.
    """
    thresholds = thresholds_of_tests(scan, tests, clumping.significance)
    found = find_candidates(scan, genome, tests, columns, thresholds)
    excess = {test.column: column_values(found.rows, test.column) - thresholds.of(test) for test in tests}
    together, *each = clump_candidates(found, genome, [found.excess, *excess.values()], clumping)
    by_test = dict(zip(excess, each, strict=True))
    significant = {column: int(np.sum(values >= 0)) for column, values in excess.items()}
    return Loci(tuple(tests), found, together, by_test, significant, thresholds)


def find_candidates(
    scan: ScanResults, genome: Genome, tests: Sequence[ScanTest], columns: Sequence[str], thresholds: Thresholds
) -> Candidates:
    """All variants with -log10 p of some test at its threshold or above, and the strongest of the others.

    A variant counts by the test in which it is farthest above the threshold.
    """
    wanted = list(dict.fromkeys([*VARIANT_KEY, *columns, *(test.column for test in tests)]))
    found: list[Candidates] = []
    floor, enough, start = -np.inf, 4 * MOST_CANDIDATES, 0
    for batch, chromosomes, positions in located_batches(scan, wanted, genome):
        excess = np.fmax.reduce([column_values(batch, test.column) - thresholds.of(test) for test in tests])
        kept = np.flatnonzero(excess > floor)
        rows = pa.Table.from_batches([batch]).take(kept)
        found.append(Candidates(rows, start + kept, chromosomes[kept], positions[kept], excess[kept]))
        start += len(batch)
        if sum(len(part.excess) for part in found) > enough:
            found = [_strongest(found)]
            weak = found[0].excess[found[0].excess < 0]
            floor = float(weak.min()) if weak.size else np.nextafter(0, -1)
            enough = 2 * len(found[0].excess) + 4 * MOST_CANDIDATES
    if found:
        return _strongest(found)
    rows = pa.table({name: pa.array([], pa.float64()) for name in wanted})
    nothing = np.empty(0, np.intp)
    return Candidates(rows, nothing, nothing, np.empty(0, np.int64), np.empty(0))


def _strongest(parts: Sequence[Candidates]) -> Candidates:
    """All significant variants, and others up to `MOST_CANDIDATES` in all; of equal ones the first."""
    whole = Candidates(
        pa.concat_tables([part.rows for part in parts]),
        np.concatenate([part.row_numbers for part in parts]),
        np.concatenate([part.chromosomes for part in parts]),
        np.concatenate([part.positions for part in parts]),
        np.concatenate([part.excess for part in parts]),
    )
    order = np.argsort(-whole.excess, kind="stable")
    number = max(MOST_CANDIDATES, int(np.count_nonzero(whole.excess >= 0)))
    return whole.take(np.sort(order[:number]))


def clump_candidates(
    found: Candidates, genome: Genome, by_test: Sequence[Array], clumping: Clumping, most: int | None = None
) -> list[Clumps]:
    """Loci of the m candidates by each of several tests, as indices into them.

    ``by_test`` (m,) is how far -log10 p of each test lies above its threshold, NaN where there is none. With ``most``
    only the strongest so many loci of each test are found, significant or not; None is for all significant ones. Raises
    InputError if a variant is not in the genotypes that linkage disequilibrium is to be told from.
    """
    least = 0.0 if most is None else -np.inf
    passing = [np.flatnonzero(excess >= least) for excess in by_test]
    linkage = clumping.linkage
    indices = None if linkage is None else _genotype_indices(found, np.unique(np.concatenate(passing)), linkage)
    loci = []
    for high, excess in zip(passing, by_test, strict=True):
        linked = None if indices is None or linkage is None else _linked(indices[high], linkage, clumping.r2)
        chromosomes = found.chromosomes[high]
        unplaced = genome.unplaced[chromosomes]
        clumps = clump(chromosomes, found.positions[high], excess[high], clumping.window, unplaced, linked, most)
        loci.append(Clumps(high[clumps.leads], clumps.sizes))
    return loci


def clump(
    chromosomes: NDArray[np.intp],
    positions: NDArray[np.int64],
    strength: Array,
    window: int,
    unplaced: NDArray[np.bool_],
    linked: Callable[[int, NDArray[np.intp]], NDArray[np.bool_]] | None = None,
    most: int | None = None,
) -> Clumps:
    """Loci: the strongest variant leads those within `window` bases that are linked to it, then the strongest left, ...

    A variant that could belong to two leads belongs to the stronger one. Distances between unplaced variants are not
    known: one takes those of its chromosome that are linked to it, and none where linkage is not known.

    - ``chromosomes``, ``positions`` (m,): where the variants are.
    - ``strength`` (m,): -log10 p of each, less a threshold; of equally strong ones the first leads.
    - ``window``: largest distance to the lead, on either side.
    - ``unplaced`` (m,): variants on unplaced chromosomes.
    - ``linked``: which of some variants are linked to a lead; asked once a lead, for those near it that none has taken.
      None where linkage is not known.
    - ``most``: find the strongest so many loci only; None for all.

    Returns indices into the m variants.
    """
    order = np.lexsort((positions, chromosomes))
    starts = np.searchsorted(chromosomes[order], np.arange(chromosomes.max(initial=-1) + 2))
    ordered_positions = positions[order]
    free = np.ones(len(chromosomes), dtype=np.bool_)
    leads: list[int] = []
    sizes: list[int] = []
    for variant in np.argsort(-strength, kind="stable").tolist():
        if not free[variant]:
            continue
        if len(leads) == most:
            break
        free[variant] = False
        first, last = starts[chromosomes[variant]], starts[chromosomes[variant] + 1]
        if not unplaced[variant]:
            edges = (positions[variant] - window, positions[variant] + window + 1)
            first, last = first + np.searchsorted(ordered_positions[first:last], edges)
        elif linked is None:
            last = first
        members = order[first:last][free[order[first:last]]]
        if linked is not None and members.size:
            members = members[linked(variant, members)]
        free[members] = False
        leads.append(variant)
        sizes.append(1 + len(members))
    return Clumps(np.array(leads, dtype=np.intp), np.array(sizes, dtype=np.intp))


def _genotype_indices(found: Candidates, wanted: NDArray[np.intp], linkage: GenotypeLinkage) -> NDArray[np.intp]:
    """Index of the wanted candidates in the genotypes; -1 for the others."""
    indices = np.full(len(found.excess), -1, dtype=np.intp)
    indices[wanted] = linkage.find(found.rows.select(VARIANT_KEY).take(wanted))
    absent = wanted[indices[wanted] < 0]
    if absent.size:
        chromosome, position, name, *alleles = (
            found.rows.column(column)[int(absent[0])].as_py() for column in VARIANT_KEY
        )
        raise InputError(
            f"{linkage.genotypes.path}: lacks {absent.size} of the {len(wanted)} variants to clump, such as {name} at"
            f" {chromosome}:{position} with alleles {' and '.join(map(str, alleles))}; give the genotypes that were"
            " scanned, or clump by distance (without --geno)"
        )
    return indices


def _linked(
    indices: NDArray[np.intp], linkage: GenotypeLinkage, r2: float
) -> Callable[[int, NDArray[np.intp]], NDArray[np.bool_]]:
    """Which of some variants have r² with a lead; variants are numbered as `indices` has them."""
    return lambda lead, others: np.asarray(linkage.r2(int(indices[lead]), indices[others]) >= r2)


# Intervals


@dataclass(frozen=True)
class LocusInterval:
    """Intervals of a locus by the test in which its lead variant is strongest, as positions on the chromosome.

    They are the first and last position of the 1.5 LOD and of the 95% Bayes interval; None for a variant without a
    position.
    """

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
            found.append(LocusInterval(None, None))
            continue
        positions, lod = profiles[test, chromosome]
        first, last = _locus(positions, lod, position, window)
        positions, lod = positions[first:last], lod[first:last]
        found.append(LocusInterval(lod_interval(positions, lod), bayes_interval(positions, lod)))
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


def _locus(positions: NDArray[np.int64], lod: Array, position: int, window: int) -> tuple[int, int]:
    """The variants from the strongest at a position outwards, as far as the window reaches and none is stronger.

    Returns the index of the first of them, and that after the last.
    """
    edges = (position, position + 1, position - window, position + window + 1)
    own, behind_own, first, last = np.searchsorted(positions, edges).tolist()
    lead = own + int(np.argmax(lod[own:behind_own]))
    stronger = np.flatnonzero(lod > lod[lead])
    before, after = stronger[stronger < lead], stronger[stronger > lead]
    if before.size:
        first = max(first, int(before[-1]) + 1)
    if after.size:
        last = min(last, int(after[0]))
    return first, last
