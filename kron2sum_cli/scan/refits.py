"""Refits of the variants of a block whose tests are small."""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import ConvergenceError
from kron2sum_cli.model.bartlett import Refits, bartlett_factors
from kron2sum_cli.model.hypotheses import Hypothesis
from kron2sum_cli.model.tail_probability import chi2_mlog10p

logger = logging.getLogger("kron2sum.scan")

Array = NDArray[np.float64]

LEAST_GAIN = -1e-6
"""A larger model whose log-likelihood is lower than a smaller one's by more than this did not reach its maximum."""


OF_GENOME = "genome"
"""Name in metadata of the null model that Bartlett factors are of."""


class Factors:
    """Bartlett factors of the null model of the whole genome, computed by the first thread that refits a variant."""

    def __init__(self, compute: Callable[[], Array]) -> None:
        self._compute, self._lock, self._found = compute, threading.Lock(), np.empty(0)

    def __call__(self) -> Array:
        """The factors (h,), one a hypothesis."""
        with self._lock:
            if not self._found.size:
                self._found = self._compute()
            return self._found


@dataclass(frozen=True)
class RefitPlan:
    """What is refitted under one null model.

    Attributes
    ----------
    refits : Refits
        Refits under this model.
    hypotheses : Sequence of Hypothesis
        The hypotheses tested, that of an effect on any trait first.
    factors : Factors
        By which their likelihood ratios are divided.
    mlog10p : float
        Variants with a test above it are fitted again.
    """

    refits: Refits
    hypotheses: Sequence[Hypothesis]
    factors: Factors = field(repr=False)
    mlog10p: float


@dataclass(frozen=True)
class BlockRefit:
    """Refits of h variants.

    Attributes
    ----------
    chisq, mlog10p : Sequence of NDArray (h,)
        Statistic and -log10 P of every hypothesis, NaN where a refit did not converge.
    beta, se : NDArray (h, p)
        Effects on the traits and their standard errors, from the refit with effects on all traits.
    factors : dict
        By null model (`OF_GENOME`) and hypothesis, what likelihood ratios were divided by; empty where nothing was
        fitted again.
    """

    chisq: Sequence[Array]
    mlog10p: Sequence[Array]
    beta: Array
    se: Array
    factors: dict[str, dict[str, float]]


def simulated_factors(refits: Refits, hypotheses: Sequence[Hypothesis], seed: int) -> Array:
    """Bartlett factors (h,) by simulation; where that fails, a warning, and NaN, as the statistics are then."""
    try:
        return bartlett_factors(refits, hypotheses, seed)
    except ConvergenceError as error:
        logger.warning("no variants are refitted: %s", error)
        return np.full(len(hypotheses), np.nan)


def refit_plan(
    refits: Refits, hypotheses: Sequence[Hypothesis], threshold: float, seed: int, factors: Factors | None = None
) -> RefitPlan:
    """The plan for refits of variants with a test below ``threshold`` (positive).

    ``factors`` are those of the whole genome's null model, for one without a chromosome; None simulates its own.
    """
    if factors is None:
        factors = Factors(lambda: simulated_factors(refits, hypotheses, seed))
    return RefitPlan(refits, hypotheses, factors, -float(np.log10(threshold)))


def refit_block(plan: RefitPlan, G: NDArray[np.floating], outside: Array) -> BlockRefit:
    """Refit variants under every design that the hypotheses compare.

    Parameters
    ----------
    plan : RefitPlan
        Of the null model.
    G : NDArray (n, h)
        Variants, without missing values.
    outside : Array (h,)
        Their squared lengths outside the rotation and the covariates.
    """
    h, p = G.shape[1], plan.hypotheses[0].full.shape[0]
    if h == 0:
        nothing = [np.empty(0) for _ in plan.hypotheses]
        return BlockRefit(nothing, nothing, np.empty((0, p)), np.empty((0, p)), {})
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
    chisq = []
    for hypothesis, factor in zip(plan.hypotheses, factors, strict=True):
        gain = lml(hypothesis.full) - lml(hypothesis.base)
        chisq.append(np.where(gain > LEAST_GAIN, np.maximum(2 * gain, 0.0), np.nan) / factor)
    mlog10p = [chi2_mlog10p(x, hypothesis.df) for x, hypothesis in zip(chisq, plan.hypotheses, strict=True)]
    if not np.isfinite(factors).all():
        return BlockRefit(chisq, mlog10p, joint.beta, joint.se, {})
    named = {hypothesis.name: float(factor) for hypothesis, factor in zip(plan.hypotheses, factors, strict=True)}
    return BlockRefit(chisq, mlog10p, joint.beta, joint.se, {OF_GENOME: named})
