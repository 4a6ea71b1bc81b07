"""One block of variants, from genotypes to rows of the result table."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kron2sum_cli.genotypes.counts import GenotypeCounts, genotype_counts
from kron2sum_cli.genotypes.filters import VariantFilters, passes
from kron2sum_cli.genotypes.source import GenotypeSource
from kron2sum_cli.model.hypotheses import Hypothesis, TestContext, TestResult, test, trait_effects
from kron2sum_cli.model.scanner import BlockScanner, BlockStatistics
from kron2sum_cli.model.trait_axes import TraitAxes
from kron2sum_cli.tables.scan_table import scan_batch

COLUMN_TILE = 16
"""Blocks are padded with empty variants to a multiple of this: a variant's numbers then do not depend on how many
neighbours were left out of its block."""

COLLINEAR = 1e-6
"""A variant of whose squared length less than this share lies outside the covariates has no statistics."""

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
    any_effect : the any-effect hypothesis
    hypotheses : further hypotheses
    traits : names
    schema : of the result table
    """

    source: GenotypeSource
    rows: NDArray[np.intp]
    filters: VariantFilters
    scanner: BlockScanner
    centred: bool
    axes: TraitAxes
    context: TestContext
    any_effect: Hypothesis
    hypotheses: Sequence[Hypothesis]
    traits: Sequence[str]
    schema: pa.Schema


@dataclass(frozen=True)
class BlockRows:
    """Rows of the result table, and what became of the block's variants."""

    batch: pa.RecordBatch
    counts: Mapping[str, int]


def scan_block(plan: ScanPlan, positions: NDArray[np.intp]) -> BlockRows:
    """Read, filter, test; positions are variants of the file, increasing."""
    dosages = plan.source.read(positions, plan.rows)
    counts = genotype_counts(dosages, hard_calls=plan.filters.need_hard_calls)
    kept, left_out = passes(counts, plan.filters)
    tally = Counter({f"variants left out by {option}": number for option, number in left_out.items()})
    tested = np.flatnonzero(kept & ~counts.constant)
    statistics = plan.scanner.statistics(_prepare(plan, dosages, counts, tested))
    usable, statistics = _usable(statistics, dosages, counts, tested)
    tested = tested[usable]
    tally["variants tested"] = len(tested)
    tally["variants without variation (empty statistics)"] = int(np.count_nonzero(kept & counts.constant))
    tally["variants in the span of the covariates (empty statistics)"] = int(np.count_nonzero(~usable))
    columns = _columns(plan, statistics, len(kept), tested)
    columns |= _identity(plan, positions, counts)
    batch = scan_batch(plan.schema, columns)
    if not kept.all():
        batch = batch.filter(pa.array(kept))
    return BlockRows(batch, tally)


def _prepare(
    plan: ScanPlan, dosages: NDArray[np.float32], counts: GenotypeCounts, tested: NDArray[np.intp]
) -> NDArray[np.floating]:
    """Centred, mean-imputed genotypes (n, b) of the tested variants, padded with zeros."""
    n, b = len(plan.rows), len(tested)
    by_variant = dosages.T
    padded = -(-b // COLUMN_TILE) * COLUMN_TILE
    if padded != len(by_variant) or b != padded:
        copy = np.zeros((padded, n), dtype=np.float32)
        copy[:b] = by_variant[tested]
        by_variant = copy
    means = (2 * counts.eaf[tested]).astype(np.float32)
    if plan.centred:
        by_variant[:b] -= means[:, None]
        means = np.zeros_like(means)
    for k in np.flatnonzero(counts.n_called[tested] < n):
        row = by_variant[k]
        row[np.isnan(row)] = means[k]
    return by_variant.T.astype(plan.scanner.rotation.dtype, copy=False)


def _usable(
    statistics: BlockStatistics, dosages: NDArray[np.float32], counts: GenotypeCounts, tested: NDArray[np.intp]
) -> tuple[NDArray[np.bool_], BlockStatistics]:
    """Which tested variants vary given the covariates, and their statistics."""
    b = len(tested)
    f, called = counts.eaf[tested], counts.n_called[tested]
    # Hardy-Weinberg's variance bounds the scale well enough for a threshold of 1e-6.
    typical = np.maximum(2 * f * (1 - f) * called, 1e-3)
    length = statistics.length[:b]
    usable = (length > COLLINEAR * typical) & np.all(statistics.v[:b] > 0, axis=1)
    return usable, BlockStatistics(statistics.u[:b][usable], statistics.v[:b][usable], length[usable])


def _columns(plan: ScanPlan, statistics: BlockStatistics, size: int, tested: NDArray[np.intp]) -> dict[str, object]:
    """Columns of statistics, NaN (an empty cell) where a variant has none."""
    u, v = statistics.u, statistics.v

    def spread(values: Array) -> Array:
        column = np.full(size, np.nan)
        column[tested] = values
        return column

    def degrees(df: int) -> pa.Array:
        mask = np.ones(size, dtype=np.bool_)
        mask[tested] = False
        return pa.array(np.full(size, df, dtype=np.int32), mask=mask)

    def of_test(result: TestResult, suffix: str) -> dict[str, object]:
        return {
            "CHISQ" + suffix: spread(result.chisq),
            "DF" + suffix: degrees(result.df),
            "MLOG10P" + suffix: spread(result.mlog10p),
        }

    any_effect = test(u, v, plan.any_effect, plan.context)
    columns = of_test(any_effect, "")
    columns["P"] = spread(10.0**-any_effect.mlog10p)
    effects = trait_effects(u, v, plan.axes.Tinv, plan.context)
    for j, trait in enumerate(plan.traits):
        columns[f"BETA.{trait}"] = spread(effects.beta[:, j])
        columns[f"SE.{trait}"] = spread(effects.se[:, j])
        columns[f"MLOG10P.{trait}"] = spread(effects.mlog10p[:, j])
        columns[f"INFO.{j + 1}"] = spread(v[:, j])
    for hypothesis in plan.hypotheses:
        columns |= of_test(test(u, v, hypothesis, plan.context), "." + hypothesis.name)
    return columns


def _identity(plan: ScanPlan, positions: NDArray[np.intp], counts: GenotypeCounts) -> dict[str, object]:
    table = plan.source.variants.table
    first, last = int(positions[0]), int(positions[-1])
    if last - first + 1 == len(positions):
        part = table.slice(first, len(positions))
    else:
        part = table.take(pa.array(positions))
    columns: dict[str, object] = {name: part[name] for name in ("CHR", "POS", "SNPID", "EA", "NEA")}
    return columns | {"EAF": counts.eaf, "N": counts.n_called.astype(np.int32)}
