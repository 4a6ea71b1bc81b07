"""Independent signals (``--stepwise``): locus by locus the strongest variant given those chosen, until none passes.

A locus is what lies near the strongest variant given all signals that were found on its chromosome before. They stay
in the model, so that no signal is found again by linkage disequilibrium, however far it reaches. C0 and C1 are those of
the null model, as with ``--condition``.
"""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kron2sum_cli.errors import ConvergenceError, NumericalError
from kron2sum_cli.files import scan_columns as column
from kron2sum_cli.files.genome_wide import Largest
from kron2sum_cli.files.outputs import atomic_output, is_stream
from kron2sum_cli.files.scan_columns import LOCUS, STEP
from kron2sum_cli.files.scan_metadata import NullScale
from kron2sum_cli.files.scan_table import ScanWriter, scan_batch
from kron2sum_cli.genotypes.chromosomes import encode_chromosomes, filled_positions
from kron2sum_cli.genotypes.counts import genotype_counts
from kron2sum_cli.genotypes.filters import passes
from kron2sum_cli.genotypes.genotype_table import UNPLACED
from kron2sum_cli.genotypes.source import imputed_genotypes
from kron2sum_cli.model.block_scanner import BlockStatistics, Scanner
from kron2sum_cli.model.bootstrap import threshold
from kron2sum_cli.model.collinearity import GenotypedCovariates
from kron2sum_cli.model.conditioning import GivenVariants, estimated_given, given_variants, statistics_given
from kron2sum_cli.model.hypotheses import Hypothesis, TestContext, test, trait_effects
from kron2sum_cli.model.null_model import NullModel, TraitData
from kron2sum_cli.model.satterthwaite import EffectiveContrasts
from kron2sum_cli.option_values import GenomeWide
from kron2sum_cli.progress import Advance, Progress
from kron2sum_cli.scan.block import Scan, centred, is_identifiable, missing_genotypes, read_counted
from kron2sum_cli.scan.inputs import ScanInputs
from kron2sum_cli.scan.nulls import (
    KnownNull,
    contrasts_of_tests,
    genotyped_covariates,
    null_scale,
    refuse_few_contrasts,
    where_called,
)
from kron2sum_cli.scan.table import in_order
from kron2sum_cli.settings import ScanSettings

logger = logging.getLogger("kron2sum.scan")

MOST_EFFECTS = 0.5
"""Largest number of effects of chosen variants, as a share of the degrees of freedom of the null model, or of the
contrasts of all traits that its covariances rest on."""

ROUNDING_OF_TIES = 256
"""By how many units of rounding, as a share, -log10 P of copies of a variant may differ."""

Array = NDArray[np.float64]
Positions = NDArray[np.intp]
Mask = NDArray[np.bool_]
Part = TypeVar("Part")


@dataclass(frozen=True)
class Signal:
    """A variant (its position in the file) chosen at a step of its locus, counted from 1, with its P at that step."""

    variant: int
    step: int
    mlog10p: float


@dataclass(frozen=True)
class JointEffects:
    """One signal in the model of all signals of its chromosome: its effects on the p traits given all other signals."""

    mlog10p: float
    beta: Array
    se: Array
    trait_mlog10p: Array

    @classmethod
    def unknown(cls, p: int) -> "JointEffects":
        """Those of a variant that cannot be tested."""
        nothing = np.full(p, np.nan)
        return cls(np.nan, nothing, nothing, nothing)


@dataclass(frozen=True)
class TestedVariants:
    """Variants that can be tested, by their increasing positions in the file, with statistics under the null model."""

    __test__ = False  # not a test class, whatever its name

    variants: Positions
    statistics: BlockStatistics

    def take(self, kept: Mask) -> "TestedVariants":
        """Some of them."""
        return TestedVariants(self.variants[kept], self.statistics.take(kept))


@dataclass(frozen=True)
class ConditionalTests:
    """Tests of variants given others, under one null model.

    ``given`` (n, k) are the variants of ``--condition``, and ``called`` (n, q) where those of them with missing
    genotypes were genotyped. ``known`` is what the scan knows of the null model given these alone, and ``scale`` that
    of tests without them. Variants are read ``width`` at a time.
    """

    settings: ScanSettings
    scan: Scan
    model: NullModel
    scale: NullScale
    known: KnownNull
    data: TraitData
    given: Array
    width: int
    called: Mask | None = None

    @property
    def ntraits(self) -> int:
        """Number of traits, p."""
        return len(self.scan.traits)

    def has_room(self, chosen: Sequence[int]) -> bool:
        """Whether one more variant may be chosen."""
        effects, room = self.ntraits * (self.given.shape[1] + len(chosen) + 1), float(self.scale.residual_df)
        contrasts = self.context(self.scale).contrasts_of(self.scan.tests[0])
        if contrasts is not None:
            room = min(room, self.ntraits * contrasts)
        return bool(effects <= MOST_EFFECTS * room)

    def context(self, scale: NullScale) -> TestContext:
        """The scale of tests by the statistic of the scan."""
        return scale.context(self.settings.stat, self.settings.precision)

    def testable(self, variants: Positions) -> TestedVariants:
        """Those of some variants of the file that pass the filters and vary given the covariates."""
        parts = self.in_parts(self._testable, variants)
        statistics = BlockStatistics.joined([part.statistics for part in parts])
        return TestedVariants(np.concatenate([part.variants for part in parts]), statistics)

    def given_chosen(self, chosen: Sequence[int]) -> "TestsGiven":
        """Tests of variants given those of ``--condition`` and some variants of the file.

        Raises NumericalError where these explain the traits completely, or the covariances rest on too few contrasts;
        ConvergenceError where they cannot be estimated.
        """
        G, absent = imputed_genotypes(self.scan.genotypes, np.array(chosen, np.intp), self.scan.samples)
        given, known = np.hstack([self.given, G]), self.scan.covariates
        model, contrasts = self._estimated(given, len(chosen) > 0)
        effects = given_variants(model, given, self.data.own_covariates) if given.shape[1] else None
        scale = null_scale(self.data, model.summary, self.scale.chromosome, contrasts, effects)
        refuse_few_contrasts(contrasts_of_tests(scale, self.scan.tests, self.scan.traits), scale.chromosome)
        judge = GenotypedCovariates(np.hstack([known.X, given]), known.observed, where_called(absent, self.called))
        return TestsGiven(self, model, self.context(scale), effects, judge)

    def _estimated(self, given: Array, are_chosen: bool) -> tuple[NullModel, EffectiveContrasts | None]:
        """The null model and its contrasts, with C0 and C1 given variants where the statistic rests on that.

        Of those of ``--condition`` alone the scan has estimated them.
        """
        if self.settings.stat != "satterthwaite" or not given.shape[1]:
            return self.model, self.scale.contrasts
        if are_chosen:
            return estimated_given(self.model, given, self.data.own_covariates)
        return self.model.at(self.known.summary), self.known.scale.contrasts

    def strongest(self, tested: TestedVariants, mlog10p: Array, least: float) -> tuple[int, float] | None:
        """The variant with the smallest P, the first of those equal but for rounding, where that is small enough."""
        largest = float(np.max(mlog10p, where=~np.isnan(mlog10p), initial=-np.inf))
        if not largest >= least:
            return None
        rounding = ROUNDING_OF_TIES * float(np.finfo(self.scan.scanner.dtype).eps)
        best = int(np.argmax(mlog10p >= (1 - rounding) * largest))
        return int(tested.variants[best]), float(mlog10p[best])

    def joint_effects(self, chosen: Sequence[int]) -> list[JointEffects]:
        """Of every chosen variant in the model of all: its effects given the others."""
        tested, found = self.testable(np.sort(np.array(chosen, np.intp))), []
        for variant in chosen:
            others = [other for other in chosen if other != variant]
            try:
                found.append(self.given_chosen(others).effects_of(tested.take(tested.variants == variant)))
            except (NumericalError, ConvergenceError):
                found.append(JointEffects.unknown(self.ntraits))
        return found

    def in_parts(self, work: Callable[[Positions], Part], variants: Positions) -> list[Part]:
        """What is done with variants in the parts in which they are read, at least one, which may be empty."""
        parts = np.split(variants, range(self.width, len(variants), self.width))
        return [result for result, _ in in_order(work, parts, self.settings.common.threads)]

    def read(self, variants: Positions) -> tuple[Array, Mask]:
        """Genotypes (n, b), less their means where the covariates span a constant, and which are missing."""
        G, absent = imputed_genotypes(self.scan.genotypes, variants, self.scan.samples)
        return G - G.mean(axis=0) if self.scan.spans_intercept else G, absent

    def _testable(self, variants: Positions) -> TestedVariants:
        scan = self.scan
        genotypes, counts = read_counted(scan.genotypes, variants, scan.samples, scan.filters)
        varying = passes(counts, scan.filters)[0] & ~counts.constant
        gaps, absent = missing_genotypes(genotypes, counts, varying, scan.covariates)
        G = centred(genotypes, counts, varying, scan.scanner.dtype, scan.spans_intercept)
        statistics = scan.scanner.statistics(G)
        free = is_identifiable(statistics, counts, varying)
        free[gaps] &= ~scan.covariates.explain(G, gaps, absent)
        return TestedVariants(variants[varying][free], statistics.take(free))


@dataclass(frozen=True)
class TestsGiven:
    """Tests of variants given some others, whose ``effects`` are in the ``model``; None where there are none.

    ``judge`` tells which variants the given ones explain wherever both were genotyped.
    """

    __test__ = False  # not a test class, whatever its name

    tests: ConditionalTests
    model: NullModel
    context: TestContext
    effects: GivenVariants | None
    judge: GenotypedCovariates

    def mlog10p(self, tested: TestedVariants) -> Array:
        """-log10 P of any effect of every variant; NaN for combinations of the given ones."""
        statistics = self.statistics(tested)
        free = _identifiable(statistics)
        found = np.full(len(tested.variants), np.nan)
        found[free] = test(statistics.u[free], statistics.v[free], self._any_effect, self.context).mlog10p
        return found

    def effects_of(self, one: TestedVariants) -> JointEffects:
        """The test and the effects of one variant."""
        statistics = self.statistics(one)
        if not _identifiable(statistics).any():
            return JointEffects.unknown(self.tests.ntraits)
        result = test(statistics.u, statistics.v, self._any_effect, self.context)
        effects = trait_effects(statistics.u, statistics.v, self.model.summary.axes.Tinv, self.context)
        return JointEffects(result.mlog10p[0], effects.beta[0], effects.se[0], effects.mlog10p[0])

    def statistics(self, tested: TestedVariants) -> BlockStatistics:
        """Score and information of variants."""
        tests, plain = self.tests, tested.statistics
        if self.effects is None:
            return plain
        dtype = tests.scan.scanner.dtype
        if self.model is not tests.model:
            scanner = self.model.scanner(dtype.type)
            plain = BlockStatistics.joined(tests.in_parts(partial(self._scored, scanner), tested.variants))
        parts = tests.in_parts(partial(self._explained, self.effects), tested.variants)
        explained, in_span = (np.concatenate([part[k] for part in parts]) for k in (0, 1))
        statistics = statistics_given(plain, explained, self.effects.z, float(np.finfo(dtype).eps))
        return replace(statistics, length=np.where(in_span, 0.0, statistics.length))

    @property
    def _any_effect(self) -> Hypothesis:
        return self.tests.scan.tests[0]

    def _scored(self, scanner: Scanner, variants: Positions) -> BlockStatistics:
        return scanner.statistics(self.tests.read(variants)[0].astype(scanner.dtype))

    def _explained(self, effects: GivenVariants, variants: Positions) -> tuple[Array, Mask]:
        """``M1ᵀF`` of some variants, and which of them the given ones explain wherever both were genotyped."""
        G, absent = self.tests.read(variants)
        judged = np.flatnonzero(self.judge.judges(np.asarray(absent.any(axis=0))))
        in_span = np.zeros(len(variants), dtype=np.bool_)
        in_span[judged] = self.judge.explain(G, judged, absent[:, judged])
        n, p, e = effects.F.shape
        return np.asarray(G.T @ effects.F.reshape(n, p * e)).reshape(len(variants), p, e), in_span


def _identifiable(statistics: BlockStatistics) -> Mask:
    """Variants that vary given those chosen."""
    return np.asarray((statistics.length > 0) & statistics.have_information)


def loci_of(
    tests: ConditionalTests,
    variants: Positions,
    bp: NDArray[np.int64],
    candidates: Positions,
    window: int,
    least: float,
    advance: Advance,
) -> list[list[Signal]]:
    """The loci of one chromosome, the first found first, each with its signals in the order in which they were chosen.

    Signals are chosen among ``variants`` (v,), positions in the file, which lie at ``bp`` (v,) of the chromosome, and
    have at least this -log10 P. Loci are looked for near the ``candidates`` among them, and ``advance`` is told of
    those done. A locus reaches ``window`` base pairs from its strongest variant; all are one locus where that is
    negative.
    """
    chosen: list[int] = []
    loci: list[list[Signal]] = []
    waiting = tests.testable(candidates)
    advance(len(candidates) - len(waiting.variants))
    try:
        given = tests.given_chosen(chosen)
        while len(waiting.variants) and tests.has_room(chosen):
            best = tests.strongest(waiting, given.mlog10p(waiting), least)
            if best is None:
                break
            distance = np.abs(bp - bp[np.searchsorted(variants, best[0])])
            near = variants if window < 0 else variants[distance <= window]
            locus, signals = tests.testable(near), list[Signal]()
            loci.append(signals)
            while tests.has_room(chosen):
                mlog10p = given.mlog10p(locus)
                best = tests.strongest(locus, mlog10p, least)
                if best is None:
                    _log_locus(tests.scan, near, signals, mlog10p)
                    break
                signals.append(Signal(best[0], len(signals) + 1, best[1]))
                chosen.append(best[0])
                if tests.has_room(chosen):
                    given = tests.given_chosen(chosen)
            left = ~np.isin(waiting.variants, near)
            advance(int(np.count_nonzero(~left)))
            waiting = waiting.take(left)
    except (NumericalError, ConvergenceError) as error:
        logger.warning("no variant is tested given the %d chosen: %s", len(chosen), error)
    if not tests.has_room(chosen):
        logger.warning("%d signals on a chromosome are as many as so few samples allow: there may be more", len(chosen))
    advance(len(waiting.variants))
    return [signals for signals in loci if signals]


def _log_locus(scan: Scan, near: Positions, signals: Sequence[Signal], mlog10p: Array) -> None:
    """Say in the log what was chosen from the variants of a locus, and how many are not tested any more."""
    names = scan.genotypes.variants.table["SNPID"]
    collinear = int(np.count_nonzero(np.isnan(mlog10p))) - len(signals)
    logger.debug(
        "locus of %d variants: %s; %d tested last, %d others are combinations of signals or covariates",
        len(near),
        ", ".join(names[signal.variant].as_py() for signal in signals) or "nothing is left of it given other signals",
        int(np.count_nonzero(~np.isnan(mlog10p))),
        max(collinear, 0),
    )


# From and to files


def remove_earlier_signals(settings: ScanSettings) -> None:
    """Remove the table of signals of an earlier scan with the same ``--out``: they are not of the new table."""
    path = settings.signals_path
    if settings.stepwise is not None or is_stream(settings.out) or path in settings.input_paths:
        return
    try:
        with open(path, encoding="utf-8") as file:
            is_ours = file.readline().startswith(f"{LOCUS.name}\t{STEP.name}\t")
        if is_ours:
            os.remove(path)
            logger.info("%s removed: it had the signals of an earlier scan", path)
    except (OSError, UnicodeDecodeError):
        return


def _least_mlog10p(settings: ScanSettings) -> float:
    """The -log10 P below which no variant can be a signal, whatever the threshold over the whole scan."""
    p = settings.stepwise.level if isinstance(settings.stepwise, GenomeWide) else settings.stepwise
    return np.inf if p is None else float(-np.log10(p))


def strong_places(settings: ScanSettings, rows: pa.RecordBatch) -> pa.RecordBatch:
    """Where those variants of a result table lie that can be signals by their P of any effect."""
    strong = pc.fill_null(pc.greater_equal(rows.column(column.MLOG10P.name), _least_mlog10p(settings)), False)
    return rows.select([column.CHR.name, column.POS.name, column.MLOG10P.name]).filter(strong)


def write_signals(
    settings: ScanSettings,
    inputs: ScanInputs,
    strong: Sequence[pa.RecordBatch],
    largest: Largest,
    width: int,
    progress: Progress,
) -> None:
    """Choose independent signals near the `strong_places` and write their table."""
    least, schema = _threshold(settings, largest), column.signal_schema(inputs.null.traits)
    table = inputs.genotypes.variants.table
    candidates = inputs.selection.asked & _is_at(table, strong, least)
    codes, code_of_variant, _ = encode_chromosomes(table["CHR"], inputs.null.left_out)
    bp = filled_positions(code_of_variant, np.asarray(table["POS"]))
    rows: list[pa.RecordBatch] = []
    tests: ConditionalTests | None = None
    model_of = ""
    nloci = 0
    with progress.task("Independent signals", int(np.count_nonzero(candidates)), "variants") as advance:
        for code in np.unique(code_of_variant[candidates]).tolist():
            left_out = inputs.null.left_out.get(codes[code], "")
            if tests is None or left_out != model_of:
                tests = None  # else two rotations would be in memory while the next is read
                tests, model_of = _conditional_tests(settings, inputs, left_out or None, width), left_out
            here = np.flatnonzero(inputs.selection.asked & (code_of_variant == code))
            of_code = np.flatnonzero(candidates & (code_of_variant == code))
            unplaced = codes[code] == UNPLACED or not bp[here].any()
            window = -1 if unplaced else round(1000 * settings.stepwise_kb)
            loci = loci_of(tests, here, bp[here], of_code, window, least, advance)
            loci.sort(key=lambda signals: signals[0].variant)
            if loci:
                rows.append(_rows(tests, loci, nloci + 1, schema))
            nloci += len(loci)
    path = settings.signals_path
    with atomic_output(path) as file, ScanWriter(file, schema, "tsv") as writer:
        for batch in rows:
            writer.write(batch)
    nsignals = sum(len(batch) for batch in rows)
    logger.info(
        "%d independent signal%s at %d loc%s, P below %.3g given those chosen before (--stepwise %s), written to %s",
        nsignals,
        "s" * (nsignals != 1),
        nloci,
        "us" if nloci == 1 else "i",
        10.0**-least,
        settings.stepwise,
        path,
    )


def _threshold(settings: ScanSettings, largest: Largest) -> float:
    """The least -log10 P of a signal."""
    if not isinstance(settings.stepwise, GenomeWide):
        return _least_mlog10p(settings)
    found = threshold(np.array(largest["any"]), settings.stepwise.level) if "any" in largest else None
    return np.inf if found is None else found


def _is_at(table: pa.Table, strong: Sequence[pa.RecordBatch], least: float) -> Mask:
    """Which variants of the genotypes lie where a variant has at least this -log10 P."""
    strong_positions: dict[str, set[int]] = {}
    for batch in strong:
        for row in batch.to_pylist():
            if row["MLOG10P"] >= least:
                strong_positions.setdefault(row["CHR"], set()).add(row["POS"])
    encoded = table["CHR"].combine_chunks().dictionary_encode()
    indices, positions = np.asarray(encoded.indices), np.asarray(table["POS"])
    found = np.zeros(len(positions), dtype=np.bool_)
    for k, name in enumerate(encoded.dictionary.to_pylist()):
        if name in strong_positions:
            here = np.flatnonzero(indices == k)
            found[here] = np.isin(positions[here], list(strong_positions[name]))
    return found


def _conditional_tests(
    settings: ScanSettings, inputs: ScanInputs, chromosome: str | None, width: int
) -> ConditionalTests:
    """Tests under the null model without a chromosome, or (None) that of the whole genome."""
    null, data, n = inputs.null, inputs.null.description, len(inputs.samples)
    model = null.load(chromosome, np.float64)  # signals are given in double precision
    summary = model.summary
    known = inputs.nulls[chromosome]
    scale, given, called = known.scale, np.empty((n, 0)), None
    if inputs.conditioned is not None:
        contrasts = model.effective_contrasts() if settings.stat == "satterthwaite" else None
        scale = null_scale(data, summary, chromosome, contrasts)
        given, called = inputs.conditioned.G, inputs.conditioned.called
    scan = Scan(
        genotypes=inputs.genotypes,
        samples=inputs.samples,
        filters=inputs.filters,
        scanner=model.scanner(np.float64 if data.has_missing else inputs.dtype),
        spans_intercept=model.spans_intercept,
        axes=summary.axes,
        context=scale.context(settings.stat, settings.precision),
        tests=inputs.tests[:1],
        refit=None,
        traits=null.traits,
        observed=np.isfinite(data.Y) if data.has_missing else None,
        covariates=genotyped_covariates(data, None),
        columns=pa.schema([]),
    )
    return ConditionalTests(settings, scan, model, scale, known, data, given, width, called)


def _rows(tests: ConditionalTests, loci: Sequence[Sequence[Signal]], first: int, schema: pa.Schema) -> pa.RecordBatch:
    """Rows of the loci of a chromosome, numbered from ``first``."""
    signals = [signal for locus in loci for signal in locus]
    joint = tests.joint_effects([signal.variant for signal in signals])
    variants = np.array([signal.variant for signal in signals], dtype=np.intp)
    order = np.argsort(variants)
    genotypes = tests.scan.genotypes
    counts = genotype_counts(genotypes.read(variants[order], tests.scan.samples), ploidy=genotypes.ploidy)
    counts = counts.take(np.argsort(order))
    part = genotypes.variants.table.take(pa.array(variants))
    columns = {known.name: part[known.name] for known in column.IDENTITY_COLUMNS}
    columns |= {
        column.LOCUS.name: np.repeat(np.arange(first, first + len(loci)), [len(locus) for locus in loci]),
        column.STEP.name: np.array([signal.step for signal in signals]),
        column.EAF.name: counts.eaf,
        column.N.name: counts.n_called.astype(np.int32),
        column.MLOG10P.name: np.array([signal.mlog10p for signal in signals]),
        column.MLOG10P_JOINT.name: np.array([effects.mlog10p for effects in joint]),
    }
    for j, trait in enumerate(tests.scan.traits):
        columns |= {
            column.BETA.named(trait): np.array([effects.beta[j] for effects in joint]),
            column.SE.named(trait): np.array([effects.se[j] for effects in joint]),
            column.TRAIT_MLOG10P.named(trait): np.array([effects.trait_mlog10p[j] for effects in joint]),
        }
    return scan_batch(schema, columns)
