"""The Bartlett factor of refits: how much larger than its degrees of freedom their likelihood ratio is on average.

A likelihood ratio L of d degrees of freedom exceeds χ² where samples are few, because C0 and C1 fit what they are
estimated from. Its mean under the null hypothesis is ``d f``, and ``L/f`` is close to χ² (Bartlett 1937; Lawley 1956).
The factor f depends on the null model and the hypothesis alone, and is found by simulation: traits from the fitted null
model, without any effect, and variants inherited as the relationship matrix says, ``g ~ N(0, GGᵀ)``, fitted as in a
refit, with climbs that start from the covariances of the simulation.

The mean of L needs few traits, because L is compared with a statistic of known mean on the same trait and variant. That
is the χ² with the covariances that the trait was simulated from, whose mean is d, and to first order what the estimates
of C0 and C1 change of it: a step of Fisher scoring from the true covariances, whose mean is 0, times the derivative of
the χ² in them. What is left has a hundredth of the variance of L.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import ConvergenceError, NumericalError
from kron2sum_cli.model.hypotheses import Hypothesis, orthonormal, reduction
from kron2sum_cli.model.spectrum import Array
from kron2sum_cli.model.trait_axes import TraitAxes

FEWEST_TRAITS, MOST_TRAITS = 8, 30
"""Traits that are simulated for a factor: at least so many, and no more."""

STANDARD_ERROR = 0.01
"""No more traits are simulated where every factor's standard error is below this."""

ENOUGH = 0.5
"""Smallest share of the simulated variants of a trait whose refits end at a maximum; of fewer, those with a small
likelihood ratio are left, and their mean says nothing."""

NO_CONVERGENCE = "the search of the null model's maximum did not converge"

NOT_TOLD_APART = 1e-6
"""The genetic and the residual variance of a pair of axes whose information has a smaller determinant than this share
are not told apart."""


@dataclass(frozen=True)
class Refit:
    """The maximum with the variant in the model, for b variants.

    Attributes
    ----------
    lml : NDArray (b,)
        Log-likelihood; NaN where the refit did not converge.
    beta : NDArray (b, p)
        Effects on the traits.
    se : NDArray (b, p)
        Their standard errors.
    """

    lml: Array
    beta: Array
    se: Array


class Refits(Protocol):
    """Refits under one null model, of complete traits or of observed cells."""

    @property
    def null_lml(self) -> float:
        """The largest log-likelihood without a variant."""

    @property
    def reml(self) -> bool:
        """Whether it is that of the contrasts of the covariates."""

    def of_variants(self, G: NDArray[np.floating], outside: Array) -> Callable[[Array], Refit]:
        """Refits of variants G (n, b) with effects in the span of a design (p, e).

        ``outside`` (b,) is their squared length outside the rotation and the covariates.
        """

    def simulated(self, rng: np.random.Generator) -> "Simulated":
        """Simulate the traits under the null model, and variants, and fit the traits."""


@dataclass(frozen=True)
class Simulated:
    """Traits simulated under a null model, and b variants without effect.

    Attributes
    ----------
    null_lml : float
        The largest log-likelihood of the simulated traits without a variant.
    refit : callable
        From a design (p, e) to refits of the variants with effects in its span.
    at_truth : AtTruth
        What is known of the variants with the covariances of the simulation.
    """

    null_lml: float
    refit: Callable[[Array], Refit]
    at_truth: "AtTruth"

    def lml(self, design: Array) -> Array:
        """Log-likelihoods (b,) with effects in the span of a design (p, e); e may be 0."""
        if design.shape[1] == 0:
            return np.full(self.at_truth.u.shape[0], self.null_lml)
        return self.refit(design).lml


@dataclass(frozen=True)
class AtTruth:
    """Score and information of b variants at the covariances that the traits were simulated from.

    Attributes
    ----------
    axes : TraitAxes
        Trait axes of these covariances.
    u : NDArray (b, p)
        Score along the axes.
    v : NDArray (b, p) or (b, p, p)
        Information.
    change : NDArray (b, p, p)
        ``M1ᵀP ∂K P M1``, what the information loses by a change ∂K of the covariances: the step of Fisher scoring that
        the simulated traits ask for. M1 are the columns of a variant along the axes.
    """

    axes: TraitAxes
    u: Array
    v: Array
    change: Array

    def chisq(self, design: Array) -> Array:
        """χ² (b,) of effects in the span of the design; its mean is the rank of the design."""
        return reduction(self.u, self.v, design, self.axes.T)

    def chisq_change(self, design: Array) -> Array:
        """First-order change (b,) of that χ² in its mean, ``-tr[(DᵀVD)⁻¹ Dᵀ change D]``; its mean is 0."""
        if design.shape[1] == 0:
            return np.zeros(self.u.shape[0])
        D = orthonormal(self.axes.T @ design)
        V = self.v if self.v.ndim == 3 else self.v[:, :, None] * np.eye(self.v.shape[1])
        return -np.asarray(np.trace(np.linalg.solve(D.T @ V @ D, D.T @ self.change @ D), axis1=1, axis2=2))


def information_change(squares: Array, s: Array, weights: Array, step: tuple[Array, Array]) -> Array:
    """``M1ᵀP ∂K P M1`` (b, p, p) with ``∂K = E0 s + E1`` a row.

    Parameters
    ----------
    squares : Array (m, b)
        Squares of the rotated variants.
    s : Array (m,)
        Eigenvalues.
    weights : Array (m, p)
        Inverse variances along the axes.
    step : (E0, E1)
        From `scoring_step`.
    """
    m, p = weights.shape
    pairs = (weights[:, :, None] * weights[:, None, :]).reshape(m, p * p)
    moved0, moved1 = ((M.T @ pairs).reshape(-1, p, p) for M in (squares * s[:, None], squares))
    return np.asarray(moved0 * step[0] + moved1 * step[1])


def scoring_step(
    axes: TraitAxes, grams: tuple[Array, Array, Array], score0: Array, score1: Array
) -> tuple[Array, Array]:
    """The step (E0, E1), each (p, p), of Fisher scoring from C0 and C1; pairs of axes are independent of each other.

    Parameters
    ----------
    axes : TraitAxes
        Of C0 and C1. Between axes that C0 leaves empty there is no step of C0.
    grams : three Arrays (p, p)
        ``Σ_i s_i^k w_ij w_il`` for k = 0, 1, 2.
    score0, score1 : Array (p, p)
        Along the axes.
    """
    Q0, Q1, Q2 = grams
    determinant = Q0 * Q2 - Q1**2
    full = axes.c0 > 0
    free = np.logical_or.outer(full, full) & (determinant > NOT_TOLD_APART * Q0 * Q2)
    safe = np.where(free, determinant, 1.0)
    E0 = np.where(free, 2 * (Q0 * score0 - Q1 * score1) / safe, 0.0)
    E1 = np.where(free, 2 * (Q2 * score1 - Q1 * score0) / safe, 2 * score1 / Q0)
    return E0, E1


def bartlett_factors(refits: Refits, hypotheses: Sequence[Hypothesis], seed: int) -> Array:
    """The factors (h,) by which likelihood ratios of refits are divided; ones where the null model is by ML.

    Parameters
    ----------
    refits : Refits
        Under the null model.
    hypotheses : sequence of Hypothesis
        Those tested.
    seed : int
        Of the simulation.

    Raises
    ------
    ConvergenceError
        Where too few simulated traits could be fitted, or refitted with variants.
    """
    ones = np.ones(len(hypotheses))
    if not refits.reml:
        return ones
    rng = np.random.default_rng(seed)
    excess: list[Array] = []
    change: list[Array] = []
    for _ in range(MOST_TRAITS):
        try:
            simulated = refits.simulated(rng)
        except (ConvergenceError, NumericalError, np.linalg.LinAlgError):
            continue
        both = np.array([_excess(simulated, hypothesis) for hypothesis in hypotheses])
        if np.all(np.isfinite(both)):
            excess.append(both[:, 0])
            change.append(both[:, 1])
        if len(excess) >= FEWEST_TRAITS:
            mean, error = _controlled(np.array(excess), np.array(change))
            if np.all(error < STANDARD_ERROR):
                break
    if len(excess) < FEWEST_TRAITS:
        raise ConvergenceError("too few traits simulated under the null model could be fitted")
    if np.any(mean <= -1):
        raise ConvergenceError("the likelihood ratios of traits simulated under the null model have no positive mean")
    return np.asarray(ones + mean)


def _excess(simulated: Simulated, hypothesis: Hypothesis) -> tuple[float, float]:
    """Means over the variants, a degree of freedom: what refits exceed the χ² by, and its first-order change."""
    base, full, truth = hypothesis.base, hypothesis.full, simulated.at_truth
    ratio = 2 * (simulated.lml(full) - simulated.lml(base))
    excess = ratio - (truth.chisq(full) - truth.chisq(base))
    change = truth.chisq_change(full) - truth.chisq_change(base)
    found = np.isfinite(excess)
    if found.mean() < ENOUGH:
        return np.nan, np.nan
    return float(excess[found].mean()) / hypothesis.df, float(change[found].mean()) / hypothesis.df


def _controlled(excess: Array, change: Array) -> tuple[Array, Array]:
    """Means (h,) of the excess (traits, h) given that the change has mean 0, and their standard errors."""
    centred = change - change.mean(axis=0)
    variance = np.sum(centred**2, axis=0)
    slope = np.sum(centred * excess, axis=0) / np.where(variance > 0, variance, 1.0)
    left = excess - np.clip(slope, 0.0, 1.0) * change
    return left.mean(axis=0), left.std(axis=0, ddof=1) / np.sqrt(len(left))


def outside_rows(rng: np.random.Generator, nrows: int, p: int) -> Array:
    """R (at most p rows, p) with ``RᵀR = NᵀN`` for N (nrows, p) of standard normal numbers, without N.

    A QR decomposition of N has such an R, whose diagonal are roots of χ² numbers (Bartlett 1933).
    """
    if nrows <= p:
        return rng.normal(size=(nrows, p))
    R = np.triu(rng.normal(size=(p, p)), 1)
    return np.asarray(R + np.diag(np.sqrt(rng.chisquare(nrows - np.arange(p)))))
