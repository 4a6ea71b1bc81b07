"""One block of variants, from genotypes to rows of the result table."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kron2sum_cli.files.arrow import flags, numbers
from kron2sum_cli.files.scan_columns import TRAIT_N, axis_columns
from kron2sum_cli.files.scan_table import scan_batch
from kron2sum_cli.genotypes.counts import GenotypeCounts, genotype_counts
from kron2sum_cli.genotypes.filters import VariantFilters, passes
from kron2sum_cli.genotypes.source import GenotypeSource
from kron2sum_cli.model.block_scanner import BlockStatistics, Scanner
from kron2sum_cli.model.hypotheses import Hypothesis, TestContext, TestResult, pack_information, test, trait_effects
from kron2sum_cli.model.trait_axes import TraitAxes
from kron2sum_cli.scan.refits import RefitPlan, refit_block
from kron2sum_cli.scan.resume import FinishedBlock

COLLINEAR = 1e-6
"""A variant of whose squared length less than this share lies outside the covariates has no statistics."""

EXPLAINED = {"float32": 1e-5, "float64": 1e-12}
"""A variant that leaves less than this share of ``rᵀK⁻¹r`` has no statistics: what is left is rounding."""

IN_SPAN = "variants in the span of the covariates (empty statistics)"
IN_SPAN_OF_TRAIT = "variants in the span of the covariates in the samples of a trait (empty statistics)"

REFIT_COLUMNS = ("CHISQ_REFIT", "MLOG10P_REFIT", "BETA_REFIT.", "SE_REFIT.")
"""How the names of columns of refits begin."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ScanPlan:
    """What is done with every block under one null model.

    Attributes
    ----------
    source : the genotypes
    rows : (n,) positions of the analysed samples in them
    filters : on the genotypes of the analysed samples
    scanner : the null model, ready for blocks
    centred : whether X has an intercept, so that variants may be centred
    axes : trait axes of the null model
    context : the null model's scale, for tests
    hypotheses : the any-effect hypothesis, then the others
    refit : which variants are refitted and how; None for none
    traits : names
    observed : (n, p) which cells of the traits were observed; None where all were
    schema : of the result table
    """

    source: GenotypeSource
    rows: NDArray[np.intp]
    filters: VariantFilters
    scanner: Scanner
    centred: bool
    axes: TraitAxes
    context: TestContext
    hypotheses: Sequence[Hypothesis]
    refit: RefitPlan | None
    traits: Sequence[str]
    observed: NDArray[np.bool_] | None
    schema: pa.Schema


@dataclass(frozen=True)
class Block:
    """Variants between two fixed edges of the file.

    All of them are computed, so that no number depends on where a shard or a region ends; some are asked for.

    Attributes
    ----------
    positions : (b,) in the file, increasing
    wanted : (b,) those whose rows are asked for
    """

    positions: NDArray[np.intp]
    wanted: NDArray[np.bool_]


def scan_block(plan: ScanPlan, block: Block) -> FinishedBlock:
    """Read, filter, test."""
    dosages = plan.source.read(block.positions, plan.rows)
    counts = genotype_counts(dosages, hard_calls=plan.filters.need_hard_calls)
    kept, left_out = _passing(counts, plan.filters, block.wanted)
    tally = Counter({f"variants left out by {option}": number for option, number in left_out.items()})
    of_traits = None if plan.observed is None else _trait_counts(plan.observed, dosages, counts)
    tested = np.flatnonzero(kept & ~counts.constant)
    G = _prepare(plan, dosages, counts, tested)
    del dosages  # as large as the rotated variants, whose place this may be
    usable, statistics = _usable(plan.scanner.statistics(G), counts, tested, block.wanted)
    in_span = int(np.count_nonzero(block.wanted[tested])) - len(usable)
    with np.errstate(all="ignore"):  # the statistic of a variant that leaves nothing is infinite or NaN
        joint = test(statistics.u, statistics.v, plan.hypotheses[0], plan.context)
    left = _something_left(plan, joint)
    explaining, usable, statistics = len(usable) - len(left), usable[left], _take(statistics, left)
    tested = tested[usable]
    others = [test(statistics.u, statistics.v, hypothesis, plan.context) for hypothesis in plan.hypotheses[1:]]
    results = [joint.take(left), *others]
    columns = _Columns(len(kept), tested)
    _add_tests(columns, plan, results)
    _add_effects(columns, plan, statistics)
    if plan.refit is not None:
        tally.update(_add_refits(columns, plan, plan.refit, results, G, usable, statistics.outside))
    else:
        for name in plan.schema.names:
            if name.startswith(REFIT_COLUMNS):  # asked for, but the null model allows none
                columns.put(name, np.full(len(tested), np.nan))
    kept &= block.wanted
    tally["variants tested"] = len(tested)
    absent = kept & (counts.n_called == 0)
    tally["variants without any genotype (empty frequency and statistics)"] = int(np.count_nonzero(absent))
    tally["variants without variation (empty statistics)"] = int(np.count_nonzero(kept & counts.constant & ~absent))
    tally[IN_SPAN if plan.observed is None else IN_SPAN_OF_TRAIT] = in_span
    tally["variants that explain the traits completely (empty statistics)"] = explaining
    if of_traits is not None:
        columns.columns |= {TRAIT_N.named(trait): n for trait, n in zip(plan.traits, of_traits.T, strict=True)}
    batch = scan_batch(plan.schema, columns.columns | _identity(plan, block.positions, counts))
    if not kept.all():
        batch = batch.filter(flags(kept))
    return FinishedBlock(batch, tally)


def _passing(
    counts: GenotypeCounts, filters: VariantFilters, wanted: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], Mapping[str, int]]:
    """Which variants pass the filters on genotypes, and how many of those asked for do not, by filter."""
    kept, left_out = passes(counts, filters)
    if not wanted.all():
        left_out = passes(counts.take(np.flatnonzero(wanted)), filters)[1]
    return kept, left_out


def _trait_counts(
    observed: NDArray[np.bool_], dosages: NDArray[np.float32], counts: GenotypeCounts
) -> NDArray[np.int32]:
    """Samples with a genotype and each trait, for every variant: (b, p)."""
    found = np.tile(observed.sum(axis=0).astype(np.int32), (dosages.shape[1], 1))
    some = np.flatnonzero(counts.n_called < len(observed))
    absent = np.isnan(dosages[:, some]).astype(np.float32)
    found[some] -= (absent.T @ observed.astype(np.float32)).astype(np.int32)
    return found


class _Columns:
    """Columns of a block in which only some variants have statistics; NaN is an empty cell."""

    def __init__(self, size: int, tested: NDArray[np.intp]) -> None:
        self.size, self.tested = size, tested
        self.columns: dict[str, object] = {}

    def put(self, name: str, values: Array, of: NDArray[np.intp] | None = None) -> None:
        """A column with the values of the tested variants (or of some of them, by their position)."""
        column = np.full(self.size, np.nan)
        column[self.tested if of is None else self.tested[of]] = values
        self.columns[name] = column

    def put_integer(self, name: str, value: int) -> None:
        """A column with the same whole number for every tested variant."""
        mask = np.ones(self.size, dtype=np.bool_)
        mask[self.tested] = False
        self.columns[name] = numbers(np.full(self.size, value, dtype=np.int32), mask)


def _prepare(
    plan: ScanPlan, dosages: NDArray[np.float32], counts: GenotypeCounts, tested: NDArray[np.intp]
) -> NDArray[np.floating]:
    """Centred, mean-imputed genotypes (n, b) of the tested variants."""
    n, b = len(plan.rows), len(tested)
    by_variant = dosages.T
    if b < len(by_variant):
        by_variant = by_variant[tested]
    means = (2 * counts.eaf[tested]).astype(np.float32)
    if plan.centred:
        by_variant -= means[:, None]
        means = np.zeros_like(means)
    for k in np.flatnonzero(counts.n_called[tested] < n):
        row = by_variant[k]
        row[np.isnan(row)] = means[k]
    return by_variant.T.astype(plan.scanner.dtype, copy=False)


def _usable(
    statistics: BlockStatistics, counts: GenotypeCounts, tested: NDArray[np.intp], wanted: NDArray[np.bool_]
) -> tuple[NDArray[np.intp], BlockStatistics]:
    """Positions among the tested of those asked for that vary given the covariates, and their statistics."""
    f, called = counts.eaf[tested], counts.n_called[tested]
    # Hardy-Weinberg's variance bounds the scale well enough for a threshold of 1e-6.
    typical = np.maximum(2 * f * (1 - f) * called, 1e-3)
    varies = (statistics.length > COLLINEAR * typical) & np.all(_diagonal(statistics.v) > 0, axis=1)
    usable = np.flatnonzero(varies & wanted[tested])
    return usable, _take(statistics, usable)


def _take(statistics: BlockStatistics, variants: NDArray[np.intp]) -> BlockStatistics:
    parts = (statistics.u, statistics.v, statistics.length, statistics.outside)
    return BlockStatistics(*(part[variants] for part in parts))


def _something_left(plan: ScanPlan, joint: TestResult) -> NDArray[np.intp]:
    """Positions of the variants that leave more of the traits unexplained than rounding does."""
    rounding = EXPLAINED[plan.scanner.dtype.name]
    # The statistic is np log(q0 / q1); a q1 of 0 or less makes it infinite or NaN.
    return np.flatnonzero(joint.chisq < -plan.context.size * np.log(rounding))


def _diagonal(v: Array) -> Array:
    return np.einsum("bjj->bj", v) if v.ndim == 3 else v


def _suffix(k: int, hypothesis: Hypothesis) -> str:
    """What the columns of the k-th hypothesis end with; nothing for the any-effect one, which comes first."""
    return "." + hypothesis.name if k else ""


def _add_tests(columns: _Columns, plan: ScanPlan, results: Sequence[TestResult]) -> None:
    for k, (hypothesis, result) in enumerate(zip(plan.hypotheses, results, strict=True)):
        suffix = _suffix(k, hypothesis)
        columns.put("CHISQ" + suffix, result.chisq)
        columns.put_integer("DF" + suffix, result.df)
        columns.put("MLOG10P" + suffix, result.mlog10p)
    columns.put("P", 10.0 ** -results[0].mlog10p)


def _add_effects(columns: _Columns, plan: ScanPlan, statistics: BlockStatistics) -> None:
    effects = trait_effects(statistics.u, statistics.v, plan.axes.Tinv, plan.context)
    for j, trait in enumerate(plan.traits):
        columns.put(f"BETA.{trait}", effects.beta[:, j])
        columns.put(f"SE.{trait}", effects.se[:, j])
        columns.put(f"MLOG10P.{trait}", effects.mlog10p[:, j])
    information = pack_information(statistics.v)
    coupled = statistics.v.ndim == 3
    for k, name in enumerate(axis_columns(len(plan.traits), coupled)):
        columns.put(name, information[:, k])


def _add_refits(
    columns: _Columns,
    plan: ScanPlan,
    refit: RefitPlan,
    results: Sequence[TestResult],
    G: NDArray[np.floating],
    usable: NDArray[np.intp],
    outside: Array,
) -> dict[str, int]:
    """Refit the variants with a small test, and count them."""
    largest = np.max([result.mlog10p for result in results], axis=0)
    hits = np.flatnonzero(largest > refit.mlog10p) if refit.mlog10p > 0 else np.arange(len(usable))
    done = refit_block(refit, G[:, usable[hits]], outside[hits], plan.hypotheses)
    for k, hypothesis in enumerate(plan.hypotheses):
        suffix = _suffix(k, hypothesis)
        columns.put("CHISQ_REFIT" + suffix, done.chisq[k], hits)
        columns.put("MLOG10P_REFIT" + suffix, done.mlog10p[k], hits)
    for j, trait in enumerate(plan.traits):
        columns.put(f"BETA_REFIT.{trait}", done.beta[:, j], hits)
        columns.put(f"SE_REFIT.{trait}", done.se[:, j], hits)
    failed = int(np.count_nonzero(np.isnan(np.vstack([*done.chisq, done.beta.T, done.se.T])).any(axis=0)))
    return {"variants refitted": len(hits), "refits that did not converge (empty cells)": failed}


def _identity(plan: ScanPlan, positions: NDArray[np.intp], counts: GenotypeCounts) -> dict[str, object]:
    table = plan.source.variants.table
    first, last = int(positions[0]), int(positions[-1])
    whole = last - first + 1 == len(positions)
    part = table.slice(first, len(positions)) if whole else table.take(numbers(positions))
    columns: dict[str, object] = {name: part[name] for name in ("CHR", "POS", "SNPID", "EA", "NEA")}
    return columns | {"EAF": counts.eaf, "N": counts.n_called.astype(np.int32)}
