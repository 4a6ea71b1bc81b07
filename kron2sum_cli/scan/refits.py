"""Refits of variants whose tests are small: under which null models, of which designs, and their tests."""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import ConvergenceError
from kron2sum_cli.model.bartlett import Refits, SecondOf, bartlett_factors
from kron2sum_cli.model.collinearity import ExplainedTraits
from kron2sum_cli.model.fitting import SAME_OPTIMUM
from kron2sum_cli.model.hypotheses import Hypothesis, Statistic
from kron2sum_cli.model.null_model import CompleteNullModel, NullModel
from kron2sum_cli.model.random_slopes import (
    SlopesData,
    SlopesPoint,
    fit_slopes,
    slope_shares,
    slopes_data_of,
    slopes_tests,
)
from kron2sum_cli.model.second_column import pair_hypotheses
from kron2sum_cli.model.tail_probability import chi2_mlog10p
from kron2sum_cli.option_values import BOTH_COLUMNS
from kron2sum_cli.scan.inputs import ScanInputs
from kron2sum_cli.scan.second_column import Interaction
from kron2sum_cli.settings import ScanSettings

logger = logging.getLogger("kron2sum.scan")

Array = NDArray[np.float64]

LEAST_GAIN = -1e-6
"""A larger model whose log-likelihood is lower than a smaller one's by more than this did not reach its maximum."""

OF_GENOME = "genome"
"""Name in metadata of the null model that Bartlett factors are of."""


Value = TypeVar("Value")


class Once(Generic[Value]):
    """What the first thread that asks for it computes, for all."""

    def __init__(self, compute: Callable[[], Value]) -> None:
        self._compute, self._lock, self._found = compute, threading.Lock(), list[Value]()

    def __call__(self) -> Value:
        """The value."""
        with self._lock:
            if not self._found:
                self._found.append(self._compute())
            return self._found[0]


@dataclass(frozen=True)
class RefitPlan:
    """What is refitted under one null model: variants with a test above ``mlog10p``.

    The first of the ``hypotheses`` is that of an effect on any trait. ``pairs`` are those of the second column of a
    variant and of both columns; none without second columns. Bartlett ``factors`` divide the likelihood ratios of the
    hypotheses, then those of the pairs. ``slopes`` test second columns in the place of refits. ``explained`` tells with
    which variants the likelihood has no maximum; None where the traits are not at hand.
    """

    refits: Refits
    hypotheses: Sequence[Hypothesis]
    factors: Once[Array] = field(repr=False)
    mlog10p: float
    pairs: Sequence[Hypothesis] = ()
    slopes: "RandomSlopes | None" = None
    explained: ExplainedTraits | None = None

    def has_no_maximum(self, G: NDArray[np.floating]) -> NDArray[np.bool_]:
        """With which variants G (n, k) the likelihood has no maximum: those that explain traits completely."""
        return np.zeros(G.shape[1], dtype=np.bool_) if self.explained is None else self.explained.by(G)


@dataclass(frozen=True)
class SecondColumns:
    """Second columns of h variants that are fitted again.

    ``H`` (n, k) are those of the k ``variants`` (h,) in which they can be tested; ``basis`` (n, c) is an orthonormal
    basis of the covariates.
    """

    H: NDArray[np.floating]
    variants: NDArray[np.bool_]
    basis: NDArray[np.floating]


@dataclass(frozen=True)
class SecondRefit:
    """Refits of k second columns, with their effects (k, p).

    Tests (k,) are two: of their effects given those of the first columns, and of the effects of both.
    """

    chisq: Sequence[Array]
    mlog10p: Sequence[Array]
    beta: Array
    se: Array


@dataclass(frozen=True)
class RandomSlopes:
    """Tests of interactions with random slopes of the covariate.

    ``fitted`` are the contrasts of a null model, and their likelihood at its maximum; None where that was not found.
    """

    fitted: Once[tuple[SlopesData, SlopesPoint] | None]
    stat: Statistic
    ntraits: int

    def test(self, G: NDArray[np.floating], H: NDArray[np.floating]) -> SecondRefit:
        """Test variants G (n, k) and their products H (n, k) with the covariate; NaN where there is no fit."""
        fitted = self.fitted() if G.shape[1] else None
        if fitted is None:
            nothing, effects = np.full(G.shape[1], np.nan), np.full((G.shape[1], self.ntraits), np.nan)
            return SecondRefit([nothing, nothing], [nothing, nothing], effects, effects)
        found = slopes_tests(*fitted, G, H, self.stat)
        results = (found.interaction, found.joint)
        return SecondRefit([r.chisq for r in results], [r.mlog10p for r in results], found.beta, found.se)


@dataclass(frozen=True)
class BlockRefit:
    """Refits of h variants: tests (h,) of every hypothesis, NaN where a refit did not converge, and effects (h, p).

    Effects are from the refit with effects on all traits. ``factors`` are what likelihood ratios were divided by, by
    null model (`OF_GENOME`) and hypothesis; empty where nothing was fitted again.
    """

    chisq: Sequence[Array]
    mlog10p: Sequence[Array]
    beta: Array
    se: Array
    factors: dict[str, dict[str, float]]
    second: SecondRefit | None = None


def refit_plan(
    settings: ScanSettings,
    inputs: ScanInputs,
    model: NullModel,
    chromosome: str | None,
    factors: Once[NDArray[np.float64]] | None,
) -> RefitPlan | None:
    """How to fit variants again; None, with a warning, where the null model is no maximum of its likelihood.

    ``factors`` are those of the whole genome's null model, for one without a chromosome; None for its own.
    """
    of_null = f"the null model of chromosome {chromosome}" if chromosome else "the null model"
    try:
        refits = model.refits()
    except ConvergenceError as error:
        logger.warning("no variants are refitted under %s: %s", of_null, error)
        return None
    if refits.null_lml > model.summary.lml + SAME_OPTIMUM:
        logger.warning(
            "%s has log-likelihood %.4f, and there is a higher maximum, %.4f, from which refits go out: fit it again",
            of_null,
            model.summary.lml,
            refits.null_lml,
        )
    pairs, second = _pairs(settings, inputs)
    slopes = _random_slopes(settings, inputs, chromosome)
    data = inputs.null.description
    explained = None if inputs.null.metadata.takes_predictions_off else ExplainedTraits(data.Y, data.X)
    if factors is None:
        factors = Once(lambda: simulated_factors(refits, [*inputs.tests, *pairs], settings.common.seed, second))
    return RefitPlan(refits, inputs.tests, factors, -float(np.log10(inputs.refit)), pairs, slopes, explained)


def factors_of_genome(settings: ScanSettings, inputs: ScanInputs) -> Once[NDArray[np.float64]]:
    """Bartlett factors of the whole genome's null model, which those without a chromosome share.

    They depend on the samples, the covariates and the spectrum of the relationship matrix, which a chromosome hardly
    changes: among the eight models of an intercross of 20 chromosomes that refitted variants they were 0.957 to 0.961.
    """
    pairs, second = _pairs(settings, inputs)

    def compute() -> NDArray[np.float64]:
        refits = inputs.null.load(None, inputs.dtype).refits()
        return simulated_factors(refits, [*inputs.tests, *pairs], settings.common.seed, second)

    return Once(compute)


def _pairs(settings: ScanSettings, inputs: ScanInputs) -> tuple[Sequence[Hypothesis], SecondOf | None]:
    """The hypotheses of second columns, and what simulates them; none where variants have none, or random slopes."""
    name = settings.second_test
    if name is None or settings.random_slopes:
        return (), None
    second = second_of_simulated(inputs.interaction, settings.coding == "genotypic")
    return pair_hypotheses(name, BOTH_COLUMNS, len(inputs.null.traits)), second


def second_of_simulated(interaction: Interaction | None, genotypic: bool) -> SecondOf | None:
    """Second columns of simulated variants (`Refits`); None where variants have none.

    Products with the covariate; for dominance the squares, which are related as the squares of relationships are.
    """
    if interaction is not None:
        covariate = interaction.standardised[:, None]
        return lambda G: G * covariate
    return (lambda G: G**2 - np.mean(G**2, axis=0)) if genotypic else None


def _random_slopes(settings: ScanSettings, inputs: ScanInputs, chromosome: str | None) -> RandomSlopes | None:
    """Tests of interactions with random slopes, under the null model without a chromosome; None where not asked for."""
    interaction = inputs.interaction
    if not settings.random_slopes or interaction is None:
        return None

    def fit() -> tuple[SlopesData, SlopesPoint] | None:
        model = inputs.null.load(chromosome, np.float64)
        assert isinstance(model, CompleteNullModel)
        axes = model.summary.axes
        data = slopes_data_of(model.contrasts, model.Qx, interaction.standardised)
        try:
            point = fit_slopes(data, axes.C0, axes.C1)
        except ConvergenceError as error:
            logger.warning("no interactions are tested with random slopes: %s", error)
            return None
        of_model = f" without chromosome {chromosome}" if chromosome else ""
        shares = [
            f"{trait} {genetic:.3f} and {residual:.3f}"
            for trait, genetic, residual in zip(inputs.null.traits, *slope_shares(point), strict=True)
        ]
        logger.info(
            "random slopes on %s%s: genetic and residual variance a standard deviation, over that at the mean: %s",
            interaction.name,
            of_model,
            ", ".join(shares),
        )
        return data, point

    return RandomSlopes(Once(fit), settings.stat, len(inputs.null.traits))


def simulated_factors(
    refits: Refits, hypotheses: Sequence[Hypothesis], seed: int, second: SecondOf | None = None
) -> Array:
    """Bartlett factors (h,); where they cannot be simulated that is said, and they are NaN, as are the statistics."""
    try:
        return bartlett_factors(refits, hypotheses, seed, second)
    except ConvergenceError as error:
        logger.warning("no variants are refitted: %s", error)
        return np.full(len(hypotheses), np.nan)


def refit_block(
    plan: RefitPlan, G: NDArray[np.floating], outside: Array, second: SecondColumns | None = None
) -> BlockRefit:
    """Refit variants G (n, h), without missing values, under every design that the hypotheses compare.

    ``outside`` (h,) are their squared lengths outside the rotation and the covariates.
    """
    h, p = G.shape[1], plan.hypotheses[0].full.shape[0]
    if h == 0:
        nothing, no_effects = [np.empty(0) for _ in plan.hypotheses], np.empty((0, p))
        of_second = None if second is None else SecondRefit(nothing[:1] * 2, nothing[:1] * 2, no_effects, no_effects)
        return BlockRefit(nothing, nothing, no_effects, no_effects, {}, of_second)
    refit = plan.refits.of_variants(G, outside)
    joint = refit(np.eye(p))
    done: dict[bytes, Array] = {}

    def lml(design: Array) -> Array:
        if design.shape[1] == 0:
            return np.full(h, plan.refits.null_lml)
        if design.shape[1] == p:
            return joint.lml
        key = design.tobytes()
        if key not in done:
            done[key] = refit(design).lml
        return done[key]

    factors = plan.factors()
    of_tests, of_pairs = np.split(factors, [len(plan.hypotheses)])
    gains = [lml(hypothesis.full) - lml(hypothesis.base) for hypothesis in plan.hypotheses]
    chisq, mlog10p = _tests(gains, plan.hypotheses, of_tests)
    done_of_second = None if second is None else _refit_second(plan, G, second, joint.lml, of_pairs)
    names = [hypothesis.name for hypothesis in (*plan.hypotheses, *plan.pairs)]
    known = {OF_GENOME: dict(zip(names, factors.tolist(), strict=True))} if np.isfinite(factors).all() else {}
    return BlockRefit(chisq, mlog10p, joint.beta, joint.se, known, done_of_second)


def _tests(gains: Sequence[Array], hypotheses: Sequence[Hypothesis], factors: Array) -> tuple[list[Array], list[Array]]:
    """Likelihood ratios over their factors, and their -log10 P, from gains in log-likelihood (h,)."""
    chisq = [
        np.where(gain > LEAST_GAIN, np.maximum(2 * gain, 0.0), np.nan) / factor
        for gain, factor in zip(gains, factors, strict=True)
    ]
    return chisq, [chi2_mlog10p(x, hypothesis.df) for x, hypothesis in zip(chisq, hypotheses, strict=True)]


def _refit_second(
    plan: RefitPlan, G: NDArray[np.floating], second: SecondColumns, alone: Array, factors: Array
) -> SecondRefit:
    """Refit variants with their second columns; ``alone`` (h,) are the log-likelihoods without these."""
    if plan.slopes is not None:
        return plan.slopes.test(G[:, second.variants], second.H)
    both = plan.refits.of_pairs(G[:, second.variants], second.H, second.basis)
    gains = [both.lml - alone[second.variants], both.lml - plan.refits.null_lml]
    return SecondRefit(*_tests(gains, plan.pairs, factors), both.beta, both.se)
