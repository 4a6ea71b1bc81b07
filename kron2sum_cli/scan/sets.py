"""Joint tests of sets of variants: one row a set."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby, repeat
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from kron2sum_cli.errors import InputError, NumericalError
from kron2sum_cli.files.arrow import numbers, texts
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
from kron2sum_cli.files.scan_metadata import Span
from kron2sum_cli.files.scan_table import ScanWriter, scan_batch
from kron2sum_cli.files.table_writers import compressed_output
from kron2sum_cli.files.trait_design import asked_hypotheses
from kron2sum_cli.genotypes.chromosomes import Region, encode_chromosomes, normalise_chromosome
from kron2sum_cli.genotypes.counts import genotype_counts
from kron2sum_cli.genotypes.filters import passes
from kron2sum_cli.model.hypotheses import Hypothesis, TestContext, compare, named_hypothesis
from kron2sum_cli.model.kernel_tests import beta_weights
from kron2sum_cli.model.random_effects import (
    SetNull,
    SetTest,
    VariantSetScores,
    kernel_of,
    random_effects_mlog10p,
)
from kron2sum_cli.model.set_test import SetReduction, SetScores, reduce_set
from kron2sum_cli.progress import Progress
from kron2sum_cli.scan.blocks import in_order
from kron2sum_cli.scan.inputs import ScanInputs, open_inputs
from kron2sum_cli.scan.metadata import null_scale, scan_metadata
from kron2sum_cli.scan.set_files import VariantSet, read_sets, windows
from kron2sum_cli.settings import DEFAULT_REFIT, FIXED, ScanSettings

logger = logging.getLogger("kron2sum.scan")

EXPLAINING = "sets that explain the traits completely (empty statistics)"
NOT_THERE = "members of sets are no variant of the scan"
NO_RESULT = "tests of sets without a result (empty statistics)"
CONSTANT = "variants of sets left out: no variation"


@dataclass(frozen=True)
class _Members:
    """A set with its variants found.

    Attributes
    ----------
    name : str
        Of the set
    order : int
        Its place in the file, from which random numbers start
    positions : NDArray (q,)
        Variants in the genotypes, increasing
    weights : NDArray (q,) or None
        Their weights, where the file of sets has them
    chromosome : str or None
        Whose null model the set is tested with
    """

    name: str
    order: int
    positions: NDArray[np.intp]
    weights: NDArray[np.float64] | None
    chromosome: str | None


@dataclass(frozen=True)
class _SetPlan:
    """What is done with every set under one null model.

    Attributes
    ----------
    inputs : ScanInputs
        Genotypes, samples and filters
    settings : ScanSettings
        What was asked
    scores : callable
        Scores and information of genotypes (n, q)
    null : SetNull
        The null model
    hypotheses : sequence of Hypothesis
        Any effect, then the further ones
    schema : pa.Schema
        Columns of the table
    """

    inputs: ScanInputs
    settings: ScanSettings
    scores: Callable[[NDArray[np.float64]], SetScores]
    null: SetNull
    hypotheses: Sequence[Hypothesis]
    schema: pa.Schema


@dataclass(frozen=True)
class _SetResult:
    """One row of the table, what was counted, and why tests have no result."""

    row: pa.RecordBatch
    counts: Mapping[str, int]
    reasons: Sequence[str]


def scan_sets(settings: ScanSettings, progress: Progress) -> None:
    """Test every set of ``--sets`` or ``--windows`` and write their table.

    Raises
    ------
    InputError, NumericalError, OutputError, UsageError
        Where a file, the options or the numbers do not allow it.
    """
    inputs = open_inputs(replace(settings, shard=None))
    null = inputs.null
    hypotheses = [named_hypothesis("any", null.traits)]
    hypotheses += asked_hypotheses(settings.tests, null.traits, null.whole.axes.Tinv)
    schema = set_schema([h.name for h in hypotheses[1:]], settings.set_tests)
    allowed = np.flatnonzero(inputs.selection.asked)
    members, counts, span = _find(settings, inputs, allowed)
    metadata = replace(scan_metadata(_without_refits(settings), inputs), span=span)
    reasons: list[str] = []
    with (
        compressed_output(settings.out) as file,
        threadpool_limits(limits=1, user_api="blas"),
        ScanWriter(file, schema, settings.to) as writer,
        progress.task("Testing", len(members), "sets") as advance,
    ):
        for chromosome, group in groupby(members, key=lambda one: one.chromosome):
            plan = _plan(settings, inputs, hypotheses, schema, chromosome)
            for result, _ in in_order(partial(_test_set, plan), list(group), settings.common.threads):
                writer.write(result.row)
                counts.update(result.counts)
                reasons.extend(result.reasons)
                advance(1)
        writer.metadata = replace(metadata, counts=dict(counts))
    _report(counts, reasons)
    logger.info("results written to %s", settings.out)


def _report(counts: Counter[str], reasons: Sequence[str]) -> None:
    """Say what was counted, and what has no result."""
    if counts[EXPLAINING]:
        logger.warning(
            "%d %s: they have as many effects as there are values; split them", counts[EXPLAINING], EXPLAINING
        )
    if reasons:
        logger.warning("%d %s, the first: %s", len(reasons), NO_RESULT, reasons[0])
    for reason, number in counts.items():
        logger.info("%d %s", number, reason)


def _without_refits(settings: ScanSettings) -> ScanSettings:
    """The settings as they apply to sets, which are not fitted again."""
    if settings.refit not in (0.0, DEFAULT_REFIT):
        logger.warning("--refit %g: sets of variants are not refitted", settings.refit)
    return replace(settings, refit=0.0)


def _find(
    settings: ScanSettings, inputs: ScanInputs, allowed: NDArray[np.intp]
) -> tuple[list[_Members], Counter[str], Span]:
    """The variants of every set of the shard that the options allow, what was counted, and what the table covers.

    A shard is a stretch of the sets, whose table covers these; another table covers the variants that were asked for.

    Raises
    ------
    InputError
        Where there are none.
    """
    table = inputs.genotypes.variants.table
    codes, code_of_variant, human = encode_chromosomes(table["CHR"])
    pos = np.asarray(table["POS"], dtype=np.int64)
    if settings.windows is not None:
        sets, path = windows(codes, code_of_variant[allowed], pos[allowed], *settings.windows), "--windows"
    else:
        path = str(settings.sets)
        sets = read_sets(path, settings.set_weights if settings.beta is None else None)
    start, stop, span = 0, len(sets), inputs.selection.span
    if settings.shard is not None:
        part, parts = settings.shard
        start, stop = len(sets) * (part - 1) // parts, len(sets) * part // parts
        span = Span(((start, stop),), ((0, len(sets)),), len(sets))
    sets = sets[start:stop]
    named = _named(sets, table["SNPID"], allowed)
    places = _places(codes, human, code_of_variant, pos, allowed)
    found = []
    counts = Counter({"sets": len(sets), NOT_THERE: 0})
    unknown: list[tuple[str | Region, str]] = []
    for order, one in enumerate(sets, start):
        weight_of: dict[int, float] = {}
        for member, weight in zip(one.members, one.weights or repeat(1.0), strict=False):
            here = named.get(member, []) if isinstance(member, str) else places.inside(member)
            if not here:
                unknown.append((member, one.name))
            for position in here:
                if weight_of.setdefault(position, weight) != weight:
                    raise InputError(f"{path}: {member} has two different weights in set {one.name}")
        ordered = np.array(sorted(weight_of), dtype=np.intp)
        weights = np.array([weight_of[k] for k in ordered.tolist()]) if one.weights else None
        on = {codes[int(code)] for code in np.unique(code_of_variant[ordered])}
        found.append(_Members(one.name, order, ordered, weights, _null_of(on, one, path, inputs)))
    if settings.shard is None and not any(len(one.positions) for one in found):
        raise InputError(
            f"{path}: none of its sets has a variant of the scan; check its names and regions against"
            f" {inputs.genotypes.path}"
        )
    if unknown:
        counts[NOT_THERE] = len(unknown)
        logger.warning("%s: %d %s, such as %s of set %s", path, len(unknown), NOT_THERE, *unknown[0])
    return found, counts, span


def _named(sets: Sequence[VariantSet], column: pa.ChunkedArray, allowed: NDArray[np.intp]) -> dict[str, list[int]]:
    """Where the variants are whose names are members of sets."""
    names = {member for one in sets for member in one.members if isinstance(member, str)}
    named = np.flatnonzero(np.asarray(pc.is_in(column, value_set=texts(sorted(names)))))
    named = np.intersect1d(named, allowed, assume_unique=True)
    found: dict[str, list[int]] = {}
    for position, name in zip(named.tolist(), column.take(numbers(named)).to_pylist(), strict=True):
        found.setdefault(name, []).append(position)
    return found


@dataclass(frozen=True)
class _Places:
    """Variants in the order of chromosomes and positions, to find those of a region.

    Attributes
    ----------
    codes : sequence of str
        Chromosomes
    human : bool
        Whether 23 to 26 are X, Y, XY and MT
    first : NDArray (codes + 1,)
        Where each chromosome begins in ``pos``
    pos : NDArray (m,)
        Positions, increasing within a chromosome
    variants : NDArray (m,)
        The variants there
    """

    codes: Sequence[str]
    human: bool
    first: NDArray[np.intp]
    pos: NDArray[np.int64]
    variants: NDArray[np.intp]

    def inside(self, region: Region) -> list[int]:
        """The variants of a region; none where its chromosome is not there."""
        code = normalise_chromosome(region.chromosome, self.human)
        if code not in self.codes:
            return []
        k = self.codes.index(code)
        pos = self.pos[self.first[k] : self.first[k + 1]]
        start, end = np.searchsorted(pos, region.first), np.searchsorted(pos, region.last, side="right")
        return [int(one) for one in self.variants[self.first[k] + start : self.first[k] + end]]


def _places(
    codes: Sequence[str],
    human: bool,
    code_of_variant: NDArray[np.intp],
    pos: NDArray[np.int64],
    allowed: NDArray[np.intp],
) -> _Places:
    code, place = code_of_variant[allowed], pos[allowed]
    order = np.lexsort((place, code))
    first = np.searchsorted(code[order], np.arange(len(codes) + 1))
    return _Places(codes, human, first, place[order], allowed[order])


def _null_of(chromosomes: set[str], one: VariantSet, path: str, inputs: ScanInputs) -> str | None:
    """Whose null model a set is tested with: with LOCO that of its chromosome."""
    there = chromosomes & set(inputs.null.chromosomes)
    if there and len(chromosomes) > 1:
        raise InputError(
            f"{path}, line {one.line}: set {one.name} has variants on chromosomes {', '.join(sorted(chromosomes))}, and"
            " the null model leaves out one chromosome at a time; split the set, or fit without --loco"
        )
    return next(iter(there), None)


def _plan(
    settings: ScanSettings,
    inputs: ScanInputs,
    hypotheses: Sequence[Hypothesis],
    schema: pa.Schema,
    chromosome: str | None,
) -> _SetPlan:
    summary = inputs.null.whole if chromosome is None else inputs.null.chromosomes[chromosome]
    context = null_scale(inputs.null, chromosome).context(settings.stat, "double")
    null = SetNull(summary.axes, summary.mean_diagonal, context)
    return _SetPlan(inputs, settings, inputs.null.load(chromosome).set_scores(), null, hypotheses, schema)


def _test_set(plan: _SetPlan, members: _Members) -> _SetResult:
    """One row of the table."""
    chosen = _choose(plan, members)
    scores = plan.scores(chosen.G)
    counts = Counter(chosen.dropped)
    columns: dict[str, object] = _description(plan, members, chosen)
    if FIXED in plan.settings.set_tests:
        columns |= _fixed_effects(plan, scores)
        counts[EXPLAINING] += columns["DF"] > 0 and columns["CHISQ"] is None  # type: ignore[operator]
    others = [name for name in plan.settings.set_tests if name != FIXED]
    reasons: list[str] = []
    if others:
        columns |= {TOP.name: None, TOP_SHARE.name: None}
        one = VariantSetScores(scores, chosen.weights, chosen.eaf, (plan.settings.common.seed, members.order))
        columns |= _random_effects(plan, one, others, reasons)
        columns |= _strongest(plan, one, chosen.positions)
    row = scan_batch(plan.schema, {name: [value] for name, value in columns.items()})
    return _SetResult(row, counts, [f"set {members.name}: {reason}" for reason in reasons])


def _description(plan: _SetPlan, members: _Members, chosen: "_Chosen") -> dict[str, object]:
    """The columns that say what the set is."""
    table = plan.inputs.genotypes.variants.table
    chromosomes = table["CHR"].take(numbers(chosen.positions)).unique().to_pylist()
    places = table["POS"].take(numbers(chosen.positions)).to_pylist() if len(chromosomes) == 1 else [None]
    return {
        SET.name: members.name,
        SET_CHR.name: chromosomes[0] if len(chromosomes) == 1 else None,
        START.name: places[0] if places == [None] else min(places),
        END.name: places[0] if places == [None] else max(places),
        NVAR.name: len(chosen.positions),
        NVAR_LEFT_OUT.name: len(members.positions) - len(chosen.positions),
        CARRIERS.name: chosen.carriers,
    }


def _fixed_effects(plan: _SetPlan, scores: SetScores) -> dict[str, object]:
    """The columns of the joint test of the variants' fixed effects, for every hypothesis."""
    columns: dict[str, object] = {}
    context = plan.null.context
    for k, hypothesis in enumerate(plan.hypotheses):
        suffix = "." + hypothesis.name if k else ""
        below = reduce_set(scores, hypothesis.base, context.T)
        above = reduce_set(scores, hypothesis.full, context.T)
        chisq = mlog10p = None
        if above.rank > below.rank and _leaves_something(above, context):
            drops = (np.array([below.chisq]), np.array([above.chisq]))
            result = compare(*drops, below.rank, above.rank, context)
            chisq, mlog10p = float(result.chisq[0]), float(result.mlog10p[0])
        columns |= {"CHISQ" + suffix: chisq, "DF" + suffix: above.rank - below.rank, "MLOG10P" + suffix: mlog10p}
        if not k:
            columns["P"] = None if mlog10p is None else 10.0**-mlog10p
    return columns


def _random_effects(
    plan: _SetPlan, one: VariantSetScores, names: Sequence[str], reasons: list[str]
) -> dict[str, object]:
    """The columns of the other tests, for every hypothesis; why a test has no result goes to ``reasons``."""
    columns: dict[str, object] = {}
    for name in names:
        for k, hypothesis in enumerate(plan.hypotheses):
            if name == "lr" and k:
                continue
            mlog10p = None
            if one.eaf.size:
                try:
                    mlog10p = random_effects_mlog10p(cast(SetTest, name), one, hypothesis, plan.null)
                except NumericalError as error:
                    reasons.append(f"{name}: {error}")
            columns[MLOG10P_SET.named(name, *([hypothesis.name] if k else []))] = mlog10p
            if not k:
                columns[P_SET.named(name)] = None if mlog10p is None else 10.0**-mlog10p
    return columns


def _strongest(plan: _SetPlan, one: VariantSetScores, positions: NDArray[np.intp]) -> dict[str, object]:
    """The variant with the largest share of the statistic of skat for any effect."""
    if not one.eaf.size:
        return {}
    z = kernel_of(one.scores, one.weights, plan.hypotheses[0], plan.null).z
    terms = np.sum(z**2, axis=0)
    best = int(np.argmax(terms))
    if not terms[best] > 0:
        return {}
    name = plan.inputs.genotypes.variants.table["SNPID"][int(positions[best])].as_py()
    return {TOP.name: name, TOP_SHARE.name: float(terms[best] / np.sum(terms))}


def _leaves_something(reduction: SetReduction, context: TestContext) -> bool:
    """Whether a set has fewer effects than there are values, so that something is left to test them with."""
    return reduction.rank < context.residual_df


@dataclass(frozen=True)
class _Chosen:
    """The variants of a set that are tested.

    Attributes
    ----------
    positions : NDArray (s,)
        In the genotypes
    G : NDArray (n, s)
        Mean-imputed genotypes
    eaf : NDArray (s,)
        Frequencies of the effect alleles
    weights : NDArray (s,)
        Weights of the variants
    carriers : int
        Samples with the rarer allele of one of them
    dropped : mapping of str to int
        Variants left out, and why
    """

    positions: NDArray[np.intp]
    G: NDArray[np.float64]
    eaf: NDArray[np.float64]
    weights: NDArray[np.float64]
    carriers: int
    dropped: Mapping[str, int]


def _choose(plan: _SetPlan, members: _Members) -> _Chosen:
    """The variants that vary and pass the filters."""
    inputs, settings = plan.inputs, plan.settings
    dosages = inputs.genotypes.read(members.positions, inputs.samples)
    genotypes = inputs.genotypes
    counts = genotype_counts(dosages, inputs.filters.need_hard_calls, genotypes.has_dosages, genotypes.ploidy)
    passing, by_filter = passes(counts, inputs.filters)
    dropped = {f"variants of sets left out: {option}": number for option, number in by_filter.items()}
    varying = passing & ~counts.constant
    dropped[CONSTANT] = int(np.sum(passing & counts.constant))
    chosen = varying
    if settings.set_max_maf is not None:
        chosen = varying & (np.nan_to_num(counts.maf) <= settings.set_max_maf)
        dropped["variants of sets left out: --set-max-maf"] = int(np.sum(varying & ~chosen))
    kept = np.flatnonzero(chosen)
    G, eaf = dosages[:, kept].astype(np.float64), counts.eaf[kept]
    rarer = np.where(eaf > 0.5, genotypes.ploidy - G, G)
    carriers = int(np.sum(np.any(np.nan_to_num(rarer) >= 0.5, axis=1)))
    if settings.beta is not None:
        weights = beta_weights(eaf, *settings.beta)
    else:
        weights = np.ones(len(kept)) if members.weights is None else members.weights[kept]
    # Covariates are projected out afterwards: without an intercept the mean has to be put in, not taken off.
    return _Chosen(
        members.positions[kept], np.where(np.isnan(G), counts.mean[kept], G), eaf, weights, carriers, dropped
    )
