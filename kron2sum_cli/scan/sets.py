"""Joint tests of sets of variants, one row a set: a block of sets is read, filtered and rotated once, then tested."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import groupby, product
from typing import cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kron2sum_cli.errors import NumericalError, counted
from kron2sum_cli.files.genome_wide import name_of_test
from kron2sum_cli.files.scan_columns import (
    CARRIERS,
    END,
    MLOG10P_SET,
    NVAR,
    NVAR_LEFT_OUT,
    P_SET,
    SET,
    SET_CHR,
    START,
    TOP,
    TOP_SHARE,
    set_schema,
)
from kron2sum_cli.files.scan_table import scan_batch
from kron2sum_cli.genotypes.counts import GenotypeCounts
from kron2sum_cli.genotypes.filters import passes
from kron2sum_cli.model.bootstrap import SimulatedTraits
from kron2sum_cli.model.collinearity import GenotypedCovariates
from kron2sum_cli.model.conditioning import conditioned_set_scanner
from kron2sum_cli.model.hypotheses import Hypothesis, TestContext
from kron2sum_cli.model.sets.bootstrap import SimulatedTest, simulated_set_mlog10p
from kron2sum_cli.model.sets.fixed_effects import test_set
from kron2sum_cli.model.sets.kernel_tests import any_effect_kernel, beta_weights, weighted_scores
from kron2sum_cli.model.sets.random_effects import SetNull, SetTest, VariantSetScores, random_effects_mlog10p
from kron2sum_cli.model.sets.scanner import RotatedVariants, SetScanner, SetVariants
from kron2sum_cli.progress import Progress
from kron2sum_cli.scan.block import (
    BlockResult,
    block_width,
    centred,
    missing_genotypes,
    outside_covariates,
    read_counted,
    simulated_scores,
    within,
)
from kron2sum_cli.scan.inputs import ScanInputs, open_inputs
from kron2sum_cli.scan.nulls import genotyped_covariates
from kron2sum_cli.scan.set_members import Members, SetBlock, blocks_of_sets, find_sets
from kron2sum_cli.scan.table import result_table, scan_metadata, simulated_traits
from kron2sum_cli.settings import FIXED, ScanSettings

logger = logging.getLogger("kron2sum.scan")

MANY_EFFECTS = "sets have so many effects for the values that χ² makes P of fixed too small"
LARGEST_SHIFT = 0.3
"""By how many standard deviations of χ² the mean of a likelihood ratio may exceed its degrees of freedom."""
EXPLAINING = "sets that explain the traits completely (empty statistics)"
NO_RESULT = "tests of sets without a result (empty statistics)"
LEFT_OUT = "variants of sets left out"

Mask = NDArray[np.bool_]
Indices = NDArray[np.intp]


@dataclass(frozen=True)
class SetPlan:
    """What is done with every set under one null model; its hypotheses begin with that of any effect.

    With ``spans_intercept`` a constant lies in the span of X, so that variants may be centred; ``covariates`` judge
    variants over the samples in which they were genotyped.
    """

    inputs: ScanInputs
    settings: ScanSettings
    scanner: SetScanner
    spans_intercept: bool
    covariates: GenotypedCovariates
    null: SetNull
    hypotheses: Sequence[Hypothesis]
    schema: pa.Schema
    simulated: SimulatedTraits | None = None


def scan_sets(settings: ScanSettings, progress: Progress) -> None:
    """Test every set of ``--sets`` or ``--windows`` and write their table.

    Raises InputError, NumericalError, OutputError, UsageError where a file, the options or the numbers do not allow it.
    """
    inputs = open_inputs(replace(settings, shard=None))
    schema = set_schema([test.name for test in inputs.tests[1:]], settings.set_tests, settings.bootstrap > 0)
    found, width = find_sets(settings, inputs), block_width(settings, inputs)
    blocks, counts = blocks_of_sets(found, width), found.counts
    metadata = replace(scan_metadata(settings, inputs), span=found.span)
    logger.info("%s to test in %s", counted(counts["sets"], "sets"), counted(len(blocks), "blocks"))
    with result_table(settings, schema, metadata, found.counts, width) as table:
        of_nulls = ((null, list(group)) for null, group in groupby(blocks, key=lambda block: block.chromosome))
        plan_under = partial(_plan, settings, inputs, schema)
        with progress.task("Testing", counts["sets"], "sets") as advance:
            for _ in table.results(
                of_nulls, lambda null: partial(test_sets, plan_under(null)), lambda block: len(block.sets), advance
            ):
                pass  # they are written, and counted, as they come
    _report(table.counts)
    logger.info("results written to %s", settings.out)
    table.report_thresholds()


def _plan(settings: ScanSettings, inputs: ScanInputs, schema: pa.Schema, chromosome: str | None) -> SetPlan:
    """What is done with every set under the null model without a chromosome, or (None) that of the whole genome."""
    loaded = inputs.load(chromosome)
    model, scanner = loaded.model, loaded.model.set_scanner(inputs.dtype)
    if loaded.given is not None:
        scanner = conditioned_set_scanner(scanner, loaded.given)
    null = SetNull(
        model.summary.axes, model.summary.mean_diagonal, loaded.scale.context(settings.stat, settings.precision)
    )
    covariates = genotyped_covariates(inputs.null.description, inputs.conditioned)
    simulated = simulated_traits(settings, inputs, loaded)
    return SetPlan(inputs, settings, scanner, model.spans_intercept, covariates, null, inputs.tests, schema, simulated)


def _report(counts: Mapping[str, int]) -> None:
    """Say what was counted, and what has no result."""
    if counts.get(EXPLAINING):
        logger.warning(
            "%s: as many effects as there are values; split such sets", counted(counts[EXPLAINING], EXPLAINING)
        )
    if counts.get(MANY_EFFECTS):
        logger.warning(
            "%s; use --stat f, another --set-test, or fewer variants a set", counted(counts[MANY_EFFECTS], MANY_EFFECTS)
        )
    for reason, number in counts.items():
        if number and reason != MANY_EFFECTS:
            level = logging.WARNING if reason.startswith(NO_RESULT) else logging.INFO
            logger.log(level, "%s", counted(number, reason))


@dataclass(frozen=True)
class _Variants:
    """The b variants of a block, at increasing positions in the genotypes.

    Of every variant: whether it is ``passing`` the filters, is as ``rare`` as sets may have it, varies given the
    covariates (``outside``), and has genotypes that are ``rounded``, no whole numbers; its ``column`` in ``rotated``,
    which has those that vary; and which samples are ``carriers`` (n, b) of the rarer allele. ``simulated`` are scores
    (c, p, B) of the c that vary in simulated data sets.
    """

    positions: Indices
    names: pa.ChunkedArray
    chromosomes: list[str]
    pos: list[int]
    counts: GenotypeCounts
    passing: Mask
    rare: Mask
    outside: Mask
    rounded: Mask
    rotated: RotatedVariants
    column: Indices
    carriers: Mask
    simulated: NDArray[np.floating] | None


def test_sets(plan: SetPlan, block: SetBlock) -> BlockResult:
    """Rows of the table for the sets of a block."""
    variants = _read(plan, block.variants)
    counts: Counter[str] = Counter()
    largest = _Largest(plan, variants.simulated)
    rows = [_test_set(plan, variants, members, counts, largest) for members in block.sets]
    columns = {name: [row.get(name) for row in rows] for name in plan.schema.names}
    return BlockResult(scan_batch(plan.schema, columns), counts, {}, largest.found)


test_sets.__test__ = False  # type: ignore[attr-defined]  # not a test of this code


class _Largest:
    """The largest -log10 P of every test over sets, for each simulated data set, as the sets come.

    ``u`` (c, p, B) are scores of the variants of the block that vary; None without simulated data sets.
    """

    def __init__(self, plan: SetPlan, u: NDArray[np.floating] | None) -> None:
        self._plan, self._u = plan, u
        tests = product(plan.settings.set_tests, plan.hypotheses)
        self._largest = {} if u is None else {self._name(*test): np.zeros(u.shape[2]) for test in tests}

    def _name(self, how: str, tested: Hypothesis) -> str:
        return name_of_test(how, tested.name, tested is self._plan.hypotheses[0])

    @property
    def found(self) -> dict[str, tuple[float, ...]]:
        """They, by the name of the test."""
        return {name: tuple(values.tolist()) for name, values in self._largest.items()}

    def add(self, how: str, one: VariantSetScores, tested: Hypothesis, columns: Indices) -> None:
        """Take a set whose variants are ``columns`` of those that vary."""
        simulated = self._plan.simulated
        if self._u is None or simulated is None:
            return
        u, name = self._u[columns].astype(np.float64), self._name(how, tested)
        found = simulated_set_mlog10p(cast(SimulatedTest, how), one, u, simulated, tested, self._plan.null)
        np.maximum(self._largest[name], found, out=self._largest[name])


def _read(plan: SetPlan, positions: Indices) -> _Variants:
    """Read, count, filter and rotate the variants of a block."""
    inputs, settings, source = plan.inputs, plan.settings, plan.inputs.genotypes
    genotypes, counts = read_counted(source, positions, inputs.samples, inputs.filters)
    carriers = genotypes >= 0.5
    flipped = np.flatnonzero(counts.eaf > 0.5)
    carriers[:, flipped] = genotypes[:, flipped] <= source.ploidy - 0.5
    varying = ~counts.constant
    rounded = _rounded(genotypes, source.has_dosages)
    if plan.covariates.observed is None:
        judged, absent = missing_genotypes(genotypes, counts, varying, plan.covariates)
    else:  # the length of a variant is then one over all samples, whatever the traits that they have
        judged, absent = np.arange(np.count_nonzero(varying)), np.isnan(genotypes[:, varying])
    G = centred(genotypes, counts, varying, plan.scanner.dtype, plan.spans_intercept)
    rotated = plan.scanner.rotate(G)
    outside = outside_covariates(rotated.length, counts, varying)
    outside[judged] &= ~plan.covariates.explain(G, judged, absent, of_every_trait=True)
    table = source.variants.table.take(positions)
    most = 0.5 if settings.set_max_maf is None else settings.set_max_maf
    return _Variants(
        positions=positions,
        names=table["SNPID"],
        chromosomes=table["CHR"].to_pylist(),
        pos=table["POS"].to_pylist(),
        counts=counts,
        passing=passes(counts, inputs.filters)[0],
        rare=np.nan_to_num(counts.maf) <= most,
        outside=within(varying, outside),
        rounded=rounded,
        rotated=rotated,
        column=np.cumsum(varying) - 1,
        carriers=carriers,
        simulated=None if plan.simulated is None else simulated_scores(plan.simulated, G),
    )


def _rounded(genotypes: NDArray[np.float32], has_dosages: bool) -> Mask:
    """Which variants (b,) have genotypes that are no whole numbers, which single precision rounds."""
    if not has_dosages:
        return np.zeros(genotypes.shape[1], dtype=bool)
    return np.asarray(np.any(np.isfinite(genotypes) & (genotypes != np.rint(genotypes)), axis=0))


def _test_set(
    plan: SetPlan, variants: _Variants, members: Members, counts: Counter[str], largest: _Largest
) -> dict[str, object]:
    """One row of the table; what is counted is added to ``counts``."""
    in_block = np.searchsorted(variants.positions, members.positions)
    kept = _choose(plan, variants, in_block, counts)
    chosen = in_block[kept]
    columns, eaf = variants.column[chosen], variants.counts.eaf[chosen]
    weights = _weights(plan, members, kept, eaf)
    read = cache(partial(_genotypes, plan, members.positions[kept]))
    of_set = SetVariants(variants.rotated, columns, read, variants.rounded[chosen])
    with_sum = cache(partial(of_set.scores_with_sum, weights))
    row = _description(members, variants, chosen)
    row[CARRIERS.name] = _carriers(variants, chosen, plan.settings.founders)
    seed = (plan.settings.common.seed, members.order)
    one = VariantSetScores(of_set.scores(), of_set.scores_of_sum, with_sum, of_set.genotypes_of_sum, weights, eaf, seed)
    if FIXED in plan.settings.set_tests:
        row |= _fixed_effects(plan, one, partial(largest.add, FIXED, columns=columns))
        counts[EXPLAINING] += bool(row["DF"]) and row["CHISQ"] is None
        counts[MANY_EFFECTS] += row["CHISQ"] is not None and _has_many_effects(int(str(row["DF"])), plan.null.context)
    others = [name for name in plan.settings.set_tests if name != FIXED]
    if others and chosen.size:
        row |= _random_effects(plan, one, others, counts, partial(largest.add, columns=columns))
        row |= _strongest(plan, one, variants, chosen)
    return row


def _genotypes(plan: SetPlan, positions: Indices) -> NDArray[np.floating]:
    """The variants of a set (n, q) as they are rotated, in double precision."""
    genotypes, counts = read_counted(plan.inputs.genotypes, positions, plan.inputs.samples, plan.inputs.filters)
    return centred(genotypes, counts, ~counts.constant, np.dtype(np.float64), plan.spans_intercept)


def _choose(plan: SetPlan, variants: _Variants, in_block: Indices, counts: Counter[str]) -> Mask:
    """Which variants of a set are tested; the others are counted."""
    passing, rare, outside = (mask[in_block] for mask in (variants.passing, variants.rare, variants.outside))
    varying = ~variants.counts.constant[in_block]
    if not passing.all():
        by_option = passes(variants.counts.take(in_block), plan.inputs.filters)[1]
        counts.update({f"{LEFT_OUT}: {option}": number for option, number in by_option.items()})
    counts[f"{LEFT_OUT}: no variation"] += int(np.sum(passing & ~varying))
    counts[f"{LEFT_OUT}: --set-max-maf"] += int(np.sum(passing & varying & ~rare))
    given = "the variants conditioned on" if plan.inputs.conditioned is not None else "the covariates"
    counts[f"{LEFT_OUT}: no variation given {given}"] += int(np.sum(passing & varying & rare & ~outside))
    return np.asarray(passing & varying & rare & outside)


def _weights(plan: SetPlan, members: Members, kept: Mask, eaf: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights (s,) of the variants of a set that are tested."""
    if plan.settings.beta is not None:
        return beta_weights(eaf, *plan.settings.beta)
    return np.ones(eaf.size) if members.weights is None else members.weights[kept]


def _description(members: Members, variants: _Variants, chosen: Indices) -> dict[str, object]:
    """The columns that say what the set is."""
    chromosomes = {variants.chromosomes[k] for k in chosen.tolist()}
    one = len(chromosomes) == 1
    pos = [variants.pos[k] for k in chosen.tolist()]
    return {
        SET.name: members.name,
        SET_CHR.name: min(chromosomes) if one else None,
        START.name: min(pos) if one else None,
        END.name: max(pos) if one else None,
        NVAR.name: len(chosen),
        NVAR_LEFT_OUT.name: len(members.positions) - len(chosen),
    }


def _carriers(variants: _Variants, chosen: Indices, founders: bool) -> int:
    """Samples with the rarer allele of any variant; of founders, who all have some, with the rarest founder."""
    carriers = variants.carriers[:, chosen]
    if founders:
        return int(np.min(np.sum(carriers, axis=0), initial=len(carriers)))
    return int(np.sum(np.any(carriers, axis=1)))


def _fixed_effects(
    plan: SetPlan, one: VariantSetScores, add: Callable[[VariantSetScores, Hypothesis], None]
) -> dict[str, object]:
    """The columns of the joint test of the variants' fixed effects, for every hypothesis."""
    columns: dict[str, object] = {}
    for k, hypothesis in enumerate(plan.hypotheses):
        suffix = "." + hypothesis.name if k else ""
        df, result = test_set(one.scores, hypothesis, plan.null.context)
        chisq = mlog10p = None
        if result is not None:
            chisq, mlog10p = float(result.chisq[0]), float(result.mlog10p[0])
            add(one, hypothesis)
        columns |= {"CHISQ" + suffix: chisq, "DF" + suffix: df, "MLOG10P" + suffix: mlog10p}
        if not k:
            columns["P"] = None if mlog10p is None else 10.0**-mlog10p
    return columns


def _has_many_effects(df: int, context: TestContext) -> bool:
    """Whether the mean of the likelihood ratio, ``-N log(1 - d/N)`` with N values, is far from that of χ², d."""
    if context.statistic != "lr":
        return False
    mean = -context.size * np.log1p(-df / context.size)
    return bool(mean - df > LARGEST_SHIFT * np.sqrt(2 * df))


def _random_effects(
    plan: SetPlan,
    one: VariantSetScores,
    names: Sequence[str],
    counts: Counter[str],
    add: Callable[[str, VariantSetScores, Hypothesis], None],
) -> dict[str, object]:
    """The columns of the other tests, for every hypothesis; why a test has no result is counted."""
    columns: dict[str, object] = {}
    for name in names:
        for k, hypothesis in enumerate(plan.hypotheses):
            mlog10p = None
            try:
                mlog10p = random_effects_mlog10p(cast(SetTest, name), one, hypothesis, plan.null)
                add(name, one, hypothesis)
            except NumericalError as error:
                counts[f"{NO_RESULT}: {name}: {error}"] += 1
            columns[MLOG10P_SET.named(name, *([hypothesis.name] if k else []))] = mlog10p
            if not k:
                columns[P_SET.named(name)] = None if mlog10p is None else 10.0**-mlog10p
    return columns


def _strongest(plan: SetPlan, one: VariantSetScores, variants: _Variants, chosen: Indices) -> dict[str, object]:
    """The variant with the largest share of the statistic of skat for any effect."""
    F = any_effect_kernel(plan.null.axes, plan.null.mean_diagonal)
    terms = np.sum(weighted_scores(one.scores, F, one.weights) ** 2, axis=0)
    best = int(np.argmax(terms))
    if not terms[best] > 0:
        return {}
    name = variants.names[int(chosen[best])].as_py()
    return {TOP.name: name, TOP_SHARE.name: float(terms[best] / np.sum(terms))}
