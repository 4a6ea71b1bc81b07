"""Blocks of variants: how a scan is cut into them, and each from genotypes to rows of the result table."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError, counted
from kron2sum_cli.files import scan_columns as column
from kron2sum_cli.files.genome_wide import Largest
from kron2sum_cli.files.scan_columns import axis_columns
from kron2sum_cli.files.scan_metadata import INDEPENDENT_TESTS
from kron2sum_cli.files.scan_table import scan_batch
from kron2sum_cli.genotypes.counts import GenotypeCounts, genotype_counts
from kron2sum_cli.genotypes.filters import VariantFilters, passes
from kron2sum_cli.genotypes.source import GenotypeSource
from kron2sum_cli.model.block_scanner import BlockStatistics, Scanner
from kron2sum_cli.model.bootstrap import SimulatedTraits, largest_of_second, largest_statistics
from kron2sum_cli.model.collinearity import COLLINEAR, GenotypedCovariates
from kron2sum_cli.model.hypotheses import Hypothesis, TestContext, TestResult, pack_information, test, trait_effects
from kron2sum_cli.model.inflation import CORRELATED_AT_ONCE, independent_tests
from kron2sum_cli.model.second_column import SecondStatistics, SecondTests, second_statistics, test_second
from kron2sum_cli.model.trait_axes import TraitAxes
from kron2sum_cli.option_values import BOTH_COLUMNS, DOMINANCE, INTERACTION
from kron2sum_cli.scan.inputs import ScanInputs
from kron2sum_cli.scan.refits import BlockRefit, RefitPlan, SecondColumns, SecondRefit, refit_block
from kron2sum_cli.scan.second_column import SecondColumn
from kron2sum_cli.settings import ScanSettings

IN_SPAN = "variants in the span of the covariates (empty statistics)"
IN_SPAN_OF_TRAIT = "variants in the span of the covariates in the samples of a trait (empty statistics)"
IN_SPAN_OF_GIVEN = "variants in the span of the covariates and of the variants conditioned on (empty statistics)"
DETERMINING_ONE = "variants that explain a trait, or a combination of traits, completely (not refitted)"
DETERMINING = "variants that explain the traits completely (statistics at the limit of the precision)"

SECOND_IN_SPAN = {
    INTERACTION: "interactions in the span of the variant and the covariates (empty statistics)",
    DOMINANCE: "dominance deviations in the span of the variant and the covariates (empty statistics)",
}

Coding = Literal["additive", "dominant", "recessive", "genotypic"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

logger = logging.getLogger("kron2sum.scan")

BLOCK_BYTES = 32 << 20
"""Genotypes of one block in memory, unless ``--memory`` asks for less."""

WIDE_BLOCK_BYTES = 128 << 20
"""The same for families with missing cells, whose tables are many times as large as a block and read for each."""

SMALLEST_BLOCK = 16
"""Fewest variants in a block."""

COPIES_OF_BLOCK = 4
"""Arrays of the size of a block that a thread holds at once: read, selected, rotated, and what BLAS packs."""

SIMULATED_COPIES = 4
"""Arrays in double precision of the size of a block's scores of simulated traits that a thread holds at once."""

BASE_BYTES = 300 << 20
"""What Python and its libraries take."""


@dataclass(frozen=True)
class Scan:
    """What is done with every block of variants under one null model.

    ``samples`` (n,) are rows of the genotypes, and ``tests`` begin with that of an effect on any trait. With
    ``spans_intercept`` a constant lies in the span of X, so that variants may be centred. ``observed`` (n, p) are the
    cells of the traits, None where all were observed. ``covariates`` judge variants over the samples in which they were
    genotyped, and ``conditioned`` says whether the effects of other variants are in the model.
    """

    genotypes: GenotypeSource
    samples: NDArray[np.intp]
    filters: VariantFilters
    scanner: Scanner
    spans_intercept: bool
    axes: TraitAxes
    context: TestContext
    tests: Sequence[Hypothesis]
    refit: RefitPlan | None
    traits: Sequence[str]
    observed: Mask | None
    covariates: GenotypedCovariates
    columns: pa.Schema
    conditioned: bool = False
    coding: Coding = "additive"
    second: SecondColumn | None = None
    simulated: SimulatedTraits | None = None

    @property
    def in_span(self) -> str:
        """Why a variant that varies is not tested."""
        if self.conditioned:
            return IN_SPAN_OF_GIVEN
        return IN_SPAN if self.observed is None else IN_SPAN_OF_TRAIT


@dataclass(frozen=True)
class Block:
    """Variants between two fixed edges of the file, some of which are asked for.

    All of them are computed, so that no number depends on where a shard or a region ends; the table has those ``asked``
    for.
    """

    variants: NDArray[np.intp]
    asked: Mask


@dataclass(frozen=True)
class BlockResult:
    """What a block gives to the result table.

    ``counts`` are numbers of variants by what became of them, ``refit_factors`` what likelihood ratios of refits were
    divided by, by null model and test, and ``largest`` the largest -log10 P of every test and trait in the rows, for
    each simulated data set.
    """

    rows: pa.RecordBatch
    counts: Mapping[str, int]
    refit_factors: Mapping[str, Mapping[str, float]]
    largest: Largest = field(default_factory=dict)


@dataclass(frozen=True)
class Pairs:
    """Those variants of a block that were tested with their second columns, k of b.

    ``variants`` (b,) are these, and ``determining`` (b,) those of them that explain the traits completely with both
    columns.
    """

    second: SecondColumn
    statistics: SecondStatistics
    tests: SecondTests
    variants: Mask
    determining: Mask

    def refitted(self, variants: Mask) -> Mask:
        """Which of the variants (b,) that are fitted again are so with their second columns."""
        return variants & self.variants & ~self.determining

    def columns_of(self, variants: Mask) -> SecondColumns:
        """The second columns of variants (b,) that are fitted again."""
        chosen = self.refitted(variants)
        return SecondColumns(self.statistics.H.T[chosen[self.variants]].T, chosen[variants], self.second.basis)


def test_block(scan: Scan, block: Block) -> BlockResult:
    """Read one block of b variants, filter it, test it, fit it again. All masks are over the variants of the block."""
    genotypes, counts = read_counted(scan.genotypes, block.variants, scan.samples, scan.filters)
    passing, left_out = _passing(counts, scan.filters, block.asked)
    columns = _variant_columns(scan, block, genotypes, counts)
    coded = _coded(scan, genotypes, counts)
    varying = passing & ~coded.constant
    gaps, absent = missing_genotypes(genotypes, coded, varying, scan.covariates)
    deviations = None if scan.second is None else scan.second.of_dosages(genotypes, varying)
    G = centred(genotypes, coded, varying, scan.scanner.dtype, scan.spans_intercept)
    del genotypes  # as large as the rotated variants, whose place this may be
    second = None if scan.second is None else _second(scan, scan.second, G, deviations, gaps, absent)
    statistics = scan.scanner.statistics(G) if second is None else second.first
    identifiable = is_identifiable(statistics, coded, varying)
    identifiable[gaps] &= ~scan.covariates.explain(G, gaps, absent)
    tested = block.asked & within(varying, identifiable)
    statistics = statistics.take(tested[varying])
    largest: Largest = {} if scan.simulated is None else _largest(scan, scan.simulated, G, tested[varying], statistics)
    results = [test(statistics.u, statistics.v, hypothesis, scan.context) for hypothesis in scan.tests]
    determining = within(tested, scan.context.leaves_nothing(results[0]))
    columns |= _test_columns(scan, tested, results) | _trait_columns(scan, tested, statistics)
    tally = Counter({f"variants left out by {option}": number for option, number in left_out.items()})
    pairs = None
    if scan.second is not None and second is not None:
        both = tested & within(varying, second.identifiable)
        pairs = _test_pairs(scan, scan.second, second.take(both[varying]), both)
        columns |= _second_columns(scan, pairs)
        if scan.simulated is not None:
            largest = {**largest, **_largest_of_second(scan, scan.simulated, pairs, G.T[both[varying]].T)}
        tally[SECOND_IN_SPAN[scan.second.name]] = int(np.count_nonzero(tested & ~both))
    factors: Mapping[str, Mapping[str, float]] = {}
    if scan.refit is not None:
        asked = _refitted(scan.refit, tested, results, pairs) & ~determining  # with nothing left: no likelihood
        refitted = within(asked, ~scan.refit.has_no_maximum(G[:, np.flatnonzero(asked[varying])]))
        tally[DETERMINING_ONE] = int(np.count_nonzero(asked & ~refitted))
        of_second = None if pairs is None else pairs.columns_of(refitted)
        chosen = np.flatnonzero(refitted[varying])
        done = refit_block(scan.refit, G[:, chosen], statistics.outside[refitted[tested]], of_second)
        factors = done.factors
        columns |= _refit_columns(scan, refitted, done, pairs)
        tally.update(_refit_counts(done))
    # Without refits their columns are empty; P values over the whole scan are known only at its end.
    columns |= {name: np.full(len(tested), np.nan) for name in scan.columns.names if name not in columns}
    tally.update(_statistics_counts(scan, block, coded, passing, varying, tested, determining))
    tally[INDEPENDENT_TESTS] = _independent_tests(G, identifiable, tested[varying])
    rows, kept = scan_batch(scan.columns, columns), passing & block.asked
    return BlockResult(rows if kept.all() else rows.filter(pa.array(kept)), tally, factors, largest)


test_block.__test__ = False  # type: ignore[attr-defined]  # not a test of this code


def read_counted(
    source: GenotypeSource, variants: NDArray[np.intp], samples: NDArray[np.intp], filters: VariantFilters
) -> tuple[NDArray[np.float32], GenotypeCounts]:
    """Genotypes (n, b) of variants in the samples of a scan, and their counts as the filters need them."""
    genotypes = source.read(variants, samples)
    return genotypes, genotype_counts(genotypes, filters.need_hard_calls, source.has_dosages, source.ploidy)


def within(mask: Mask, part: Mask) -> Mask:
    """A mask (b,) narrowed by one over its true entries."""
    narrowed = mask.copy()
    narrowed[mask] = part
    return narrowed


def _passing(counts: GenotypeCounts, filters: VariantFilters, asked: Mask) -> tuple[Mask, Mapping[str, int]]:
    """Which variants pass the filters on genotypes, and how many of those asked for do not, by filter."""
    passing, left_out = passes(counts, filters)
    if not asked.all():
        left_out = passes(counts.take(np.flatnonzero(asked)), filters)[1]
    return passing, left_out


def _coded(scan: Scan, genotypes: NDArray[np.float32], counts: GenotypeCounts) -> GenotypeCounts:
    """Genotypes, in the place of dosages, as they enter the model, and their counts."""
    if scan.coding in ("additive", "genotypic"):
        return counts
    return genotype_counts(recode(genotypes, scan.coding, scan.genotypes.ploidy), ploidy=1)


def recode(dosages: NDArray[np.float32], coding: Coding, ploidy: int = 2) -> NDArray[np.float32]:
    """Genotypes in the place of dosages (n, m) of the effect allele, in the array itself; NaN stays.

    One copy and more are 1 where the effect allele is dominant, all copies where it is recessive, and dosages between
    whole numbers go along straight lines, as in plink2: ``min(x, 1)`` and ``max(x - (ploidy - 1), 0)``. Other codings
    have one column beside dosages, and leave them as they are.
    """
    if coding == "dominant":
        np.minimum(dosages, np.float32(1), out=dosages)
    elif coding == "recessive":
        dosages -= np.float32(ploidy - 1)
        np.maximum(dosages, np.float32(0), out=dosages)
    return dosages


def _second(
    scan: Scan,
    second: SecondColumn,
    G: NDArray[np.floating],
    deviations: NDArray[np.floating] | None,
    incomplete: NDArray[np.intp],
    absent: Mask,
) -> SecondStatistics:
    """Statistics of variants G (n, k) and of their second columns, some of them with genotypes that are absent."""
    H = second.of_variants(G, deviations, scan.spans_intercept)
    found = second_statistics(scan.scanner, G, H, second.basis)
    found.identifiable[incomplete] &= ~scan.covariates.explain(H, incomplete, absent, G)
    if scan.covariates.observed is not None:  # over the samples of one trait the first column may explain the second
        complete = np.setdiff1d(np.arange(G.shape[1]), incomplete)
        nothing = np.broadcast_to(np.False_, (len(G), complete.size))
        found.identifiable[complete] &= ~scan.covariates.explain(H, complete, nothing, G)
    return found


def centred(
    genotypes: NDArray[np.float32],
    counts: GenotypeCounts,
    varying: Mask,
    dtype: np.dtype[np.floating],
    spans_intercept: bool,
) -> NDArray[np.floating]:
    """Genotypes of the variants that vary, centred where X has an intercept, missing ones at the mean.

    The memory of the genotypes is used where all vary and the precision is theirs.
    """
    by_variant = (genotypes.T if varying.all() else genotypes.T[varying]).astype(dtype, copy=False)
    means = counts.mean[varying].astype(by_variant.dtype)
    if spans_intercept:
        by_variant -= means[:, None]
        means = np.zeros_like(means)
    if np.any(counts.n_called[varying] < counts.n_samples):
        np.copyto(by_variant, means[:, None], where=np.isnan(by_variant))
    return by_variant.T


def missing_genotypes(
    genotypes: NDArray[np.float32], counts: GenotypeCounts, varying: Mask, covariates: GenotypedCovariates
) -> tuple[NDArray[np.intp], Mask]:
    """Variants to be judged over the samples in which they were genotyped, by their places (k,) among those that vary.

    Beside these, where their genotypes are missing (n, k).
    """
    judged = varying & covariates.judges(counts.n_called < counts.n_samples)
    return np.flatnonzero(judged[varying]), np.isnan(genotypes[:, judged])


def is_identifiable(statistics: BlockStatistics, counts: GenotypeCounts, varying: Mask) -> Mask:
    """Which of the variants that vary do so given the covariates, too."""
    return outside_covariates(statistics.length, counts, varying) & statistics.have_information


def outside_covariates(length: Array, counts: GenotypeCounts, varying: Mask) -> Mask:
    """Which of the variants that vary have enough of their squared length, ``length``, outside the covariates."""
    frequency, called = counts.eaf[varying], counts.n_called[varying]
    # Hardy-Weinberg's variance is near enough for a threshold of 1e-6.
    variance = np.maximum(2 * frequency * (1 - frequency) * called, 1e-3)
    return np.asarray(length > COLLINEAR * variance)


def _largest(
    scan: Scan, simulated: SimulatedTraits, G: NDArray[np.floating], tested: Mask, statistics: BlockStatistics
) -> Largest:
    """The largest statistics of the simulated data sets in the tested ones of variants G (n, b)."""
    u = simulated_scores(simulated, G)[tested]
    found = largest_statistics(simulated, u, statistics.v, scan.tests, scan.traits, scan.context)
    return {name: tuple(values.tolist()) for name, values in found.items()}


def _largest_of_second(
    scan: Scan, simulated: SimulatedTraits, pairs: Pairs, G: NDArray[np.floating]
) -> dict[str, tuple[float, ...]]:
    """The largest statistics of the simulated data sets in second columns of variants G (n, k)."""
    u, u_second = simulated_scores(simulated, G), simulated_scores(simulated, pairs.statistics.H)
    found = largest_of_second(simulated, u, u_second, pairs.statistics, scan.context)
    names = (pairs.second.name, BOTH_COLUMNS)
    return {name: tuple(values.tolist()) for name, values in zip(names, found, strict=True)}


def _test_pairs(scan: Scan, second: SecondColumn, statistics: SecondStatistics, variants: Mask) -> Pairs:
    """Test the second columns of some variants (b,)."""
    tests = test_second(statistics, scan.axes.Tinv, scan.context, second.contrasts)
    return Pairs(second, statistics, tests, variants, within(variants, scan.context.leaves_nothing(tests.joint)))


def simulated_scores(simulated: SimulatedTraits, G: NDArray[np.floating]) -> NDArray[np.floating]:
    """Scores (b, p, B) of variants G (n, b) in the simulated data sets."""
    n, p, number = simulated.scores.shape
    return (G.T @ simulated.scores.reshape(n, p * number)).reshape(-1, p, number)


def _refitted(refit: RefitPlan, tested: Mask, results: Sequence[TestResult], pairs: Pairs | None) -> Mask:
    """Which variants have a test that is small enough to fit them again."""
    if refit.mlog10p <= 0:
        return tested
    largest = np.max([result.mlog10p for result in results], axis=0)
    found = within(tested, largest > refit.mlog10p)
    if pairs is not None:
        of_pairs = np.maximum(pairs.tests.second.mlog10p, pairs.tests.joint.mlog10p)
        found |= within(pairs.variants, of_pairs > refit.mlog10p)
    return found


# Columns: arrays (b,), with NaN or null where a variant has no value


def _variant_columns(
    scan: Scan, block: Block, genotypes: NDArray[np.float32], counts: GenotypeCounts
) -> dict[str, Any]:
    table = scan.genotypes.variants.table
    first, b = int(block.variants[0]), len(block.variants)
    contiguous = int(block.variants[-1]) - first + 1 == b
    part = table.slice(first, b) if contiguous else table.take(block.variants)
    columns: dict[str, Any] = {known.name: part[known.name] for known in column.IDENTITY_COLUMNS}
    columns |= {column.EAF.name: counts.eaf, column.N.name: counts.n_called.astype(np.int32)}
    if column.INFO.name in scan.columns.names:
        columns[column.INFO.name] = counts.info
    if scan.observed is not None:
        of_traits = _trait_counts(scan.observed, genotypes, counts)
        columns |= {column.TRAIT_N.named(trait): of_traits[:, j] for j, trait in enumerate(scan.traits)}
    return columns


def _trait_counts(observed: Mask, genotypes: NDArray[np.float32], counts: GenotypeCounts) -> NDArray[np.int32]:
    """Samples with a genotype and each trait, for every variant: (b, p)."""
    found = np.tile(observed.sum(axis=0).astype(np.int32), (genotypes.shape[1], 1))
    incomplete = counts.n_called < counts.n_samples
    absent = np.isnan(genotypes[:, incomplete]).astype(np.float32)
    found[incomplete] -= (absent.T @ observed.astype(np.float32)).astype(np.int32)
    return found


def _test_columns(scan: Scan, tested: Mask, results: Sequence[TestResult]) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for hypothesis, result in zip(scan.tests, results, strict=True):
        columns |= _columns_of_test(hypothesis.name, result, tested)
    return columns | {column.P.name: _spread(10.0 ** -results[0].mlog10p, tested)}


def _columns_of_test(name: str, result: TestResult, tested: Mask) -> dict[str, Any]:
    return {
        column.CHISQ.named(name): _spread(result.chisq, tested),
        column.DF.named(name): pa.array(np.full(len(tested), result.df, dtype=np.int32), mask=~tested),
        column.MLOG10P.named(name): _spread(result.mlog10p, tested),
    }


def _trait_columns(scan: Scan, tested: Mask, statistics: BlockStatistics) -> dict[str, Any]:
    effects = trait_effects(statistics.u, statistics.v, scan.axes.Tinv, scan.context)
    kinds = (column.BETA, column.SE, column.TRAIT_MLOG10P)
    columns = _of_traits(scan, kinds, (effects.beta, effects.se, effects.mlog10p), tested)
    information = pack_information(statistics.v)
    names = axis_columns(len(scan.traits), coupled=statistics.v.ndim == 3)
    return columns | {name: _spread(information[:, k], tested) for k, name in enumerate(names)}


def _second_columns(scan: Scan, pairs: Pairs) -> dict[str, Any]:
    second, tests, variants = pairs.second, pairs.tests, pairs.variants
    columns: dict[str, Any] = {}
    for name, result in ((second.name, tests.second), (BOTH_COLUMNS, tests.joint)):
        columns |= _columns_of_test(name, result, variants)
    effects = (tests.effects.beta / second.scale, tests.effects.se / second.scale, tests.effects.mlog10p)
    return columns | _of_traits(scan, column.columns_of_second(second.name), effects, variants)


def _refit_columns(scan: Scan, refitted: Mask, done: BlockRefit, pairs: Pairs | None) -> dict[str, Any]:
    columns = _refit_tests([hypothesis.name for hypothesis in scan.tests], done, refitted)
    columns |= _of_traits(scan, (column.BETA_REFIT, column.SE_REFIT), (done.beta, done.se), refitted)
    if pairs is None or done.second is None:
        return columns
    second, both = pairs.second, pairs.refitted(refitted)
    effects = (done.second.beta / second.scale, done.second.se / second.scale)
    columns |= _refit_tests((second.name, BOTH_COLUMNS), done.second, both)
    return columns | _of_traits(scan, column.refit_columns_of_second(second.name), effects, both)


def _refit_tests(names: Sequence[str], done: BlockRefit | SecondRefit, refitted: Mask) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for name, chisq, mlog10p in zip(names, done.chisq, done.mlog10p, strict=True):
        columns[column.CHISQ_REFIT.named(name)] = _spread(chisq, refitted)
        columns[column.MLOG10P_REFIT.named(name)] = _spread(mlog10p, refitted)
    return columns


def _of_traits(scan: Scan, kinds: Sequence[column.Column], values: Sequence[Array], variants: Mask) -> dict[str, Any]:
    """Columns of every trait, one of each kind, from values (k, p) of some variants."""
    columns: dict[str, Any] = {}
    for kind, of_traits in zip(kinds, values, strict=True):
        columns |= {kind.named(trait): _spread(of_traits[:, j], variants) for j, trait in enumerate(scan.traits)}
    return columns


def _spread(values: Array, variants: Mask) -> Array:
    """A column with values at some variants."""
    spread = np.full(len(variants), np.nan)
    spread[variants] = values
    return spread


# Counts


def _independent_tests(G: NDArray[np.floating], identifiable: Mask, tested: Mask) -> int:
    """To how many independent tests the tested ones of variants G (n, v) amount.

    The first identifiable ones say what share of the variants of the block counts; that share of them, evenly spaced,
    is counted where they are tested, so that the numbers of parts of a block add up to that of the whole.
    """
    variants = np.flatnonzero(identifiable)
    some = variants[:CORRELATED_AT_ONCE]
    share = independent_tests(G, some) / max(len(some), 1)
    counted = np.diff(np.rint(share * np.arange(len(variants) + 1)))
    return int(counted[tested[variants]].sum())


def _refit_counts(done: BlockRefit) -> dict[str, int]:
    failed = int(np.count_nonzero(np.isnan(np.vstack([*done.chisq, done.beta.T, done.se.T])).any(axis=0)))
    if done.second is not None:
        failed += int(np.count_nonzero(np.isnan(np.vstack([*done.second.chisq, done.second.beta.T])).any(axis=0)))
    return {"variants refitted": len(done.beta), "refits that did not converge (empty cells)": failed}


def _statistics_counts(
    scan: Scan,
    block: Block,
    counts: GenotypeCounts,
    passing: Mask,
    varying: Mask,
    tested: Mask,
    determining: Mask,
) -> dict[str, int]:
    """How many of the variants asked for were tested, and why the others were not."""
    absent = passing & (counts.n_called == 0)
    found = {
        "variants tested": tested,
        "variants without any genotype (empty frequency and statistics)": absent,
        "variants without variation (empty statistics)": passing & counts.constant & ~absent,
        scan.in_span: varying & ~tested,
        DETERMINING: determining,
    }
    return {reason: int(np.count_nonzero(variants & block.asked)) for reason, variants in found.items()}


def blocks_by_null(inputs: ScanInputs, width: int) -> Iterator[tuple[str | None, list[Block]]]:
    """Blocks in the order of the file, grouped by the chromosome that the null model leaves out.

    That is None for the null model of the whole genome: without LOCO, and for chromosomes that the GRM has none of.
    """
    selection, null_of_chr = inputs.selection, inputs.null_of_chr
    named = np.flatnonzero(selection.named)
    if not inputs.null.chromosomes:
        yield None, blocks_of(named, selection.asked, width)
        return
    spelled = inputs.genotypes.variants.table["CHR"].combine_chunks().dictionary_encode()
    nulls_of_spelled = [null_of_chr.get(name) for name in spelled.dictionary.to_pylist()]
    nulls = list(dict.fromkeys(nulls_of_spelled))
    null_of_variant = np.array([nulls.index(null) for null in nulls_of_spelled])[np.asarray(spelled.indices)]
    without = 0
    for variants in np.split(named, np.flatnonzero(np.diff(null_of_variant[named])) + 1):
        asked = int(np.count_nonzero(selection.asked[variants]))
        if not asked:
            continue
        chromosome = nulls[int(null_of_variant[variants[0]])]
        without += asked if chromosome is None else 0
        yield chromosome, blocks_of(variants, selection.asked, width)
    if without:
        if inputs.null.metadata.takes_predictions_off:
            logger.warning(
                "%s on chromosomes without predictions: tested with the traits as they are",
                counted(without, "variants"),
            )
        else:
            logger.warning(
                "%s on chromosomes that the GRM has none of: tested with the whole GRM's null",
                counted(without, "variants"),
            )


def blocks_of(variants: NDArray[np.intp], asked: NDArray[np.bool_], width: int) -> list[Block]:
    """Blocks cut at multiples of the width in the file, those of which something is asked for.

    ``variants`` (b,) are positions in the file, increasing; ``asked`` (v,) says which variants of the file are asked
    for.
    """
    edges = np.arange(width, 1 + variants.max(initial=0), width)
    parts = np.split(variants, np.searchsorted(variants, edges))
    return [Block(part, asked[part]) for part in parts if asked[part].any()]


def block_width(settings: ScanSettings, inputs: ScanInputs) -> int:
    """Variants in a block: a power of two that fits the memory.

    Raises InputError where the null model and the smallest blocks need more than ``--memory``.
    """
    null = inputs.null
    d, n, size = null.description, len(null.samples), null.itemsize(inputs.model_dtype)
    columns = 1 if settings.second_test is None else 2
    per_variant = columns * COPIES_OF_BLOCK * n * (8 if d.has_missing else size)  # missing cells take doubles
    block_bytes = WIDE_BLOCK_BYTES if null.of_families and d.has_missing else BLOCK_BYTES
    p, limit = len(null.traits), settings.common.memory_mib
    of_data_sets = p * settings.bootstrap
    numbers = max(n, p * p, of_data_sets)  # genotypes, information about the effects, scores of simulated traits
    width = min(inputs.selection.largest_block, max(SMALLEST_BLOCK, block_bytes // (numbers * size)))
    per_variant += columns * SIMULATED_COPIES * 8 * of_data_sets
    if limit is not None:
        models = 2 if null.chromosomes and inputs.refit else 1  # that of the whole genome for Bartlett factors
        model = models * null.scanner_bytes(size) + n * of_data_sets * size
        if settings.null == "-":  # held whole
            model += 8 * n * null.nrows * (1 + len(null.chromosomes))
        left = limit * 2**20 - model - BASE_BYTES
        fits = left // (per_variant * settings.common.threads)
        if fits < SMALLEST_BLOCK:
            needed = (model + BASE_BYTES + SMALLEST_BLOCK * per_variant * settings.common.threads) >> 20
            raise InputError(
                f"--memory {limit}: the null model of {n} samples and {settings.common.threads} threads need"
                f" {needed + 1} MiB; allow that, or use fewer threads"
            )
        width = min(width, int(fits))
    return 1 << (int(width).bit_length() - 1)
