"""The Bartlett factor of refits: how much larger than its degrees of freedom their likelihood ratio is on average.

A likelihood ratio L of d degrees of freedom exceeds χ² where samples are few, because C0 and C1 fit what they are
estimated from. Its mean under the null hypothesis is ``d f``, and ``L/f`` is close to χ² (Bartlett 1937; Lawley 1956).
The factor f depends on the null model and the hypothesis alone, and is found by simulation: traits without any effect,
and variants inherited as the relationship matrix says, ``g ~ N(0, GGᵀ)``, fitted as in a refit, with climbs that start
from the covariances of the simulation. These are the null model's except for the genetic shares of variance of the
trait axes: estimates of few samples lie at 0 and 1 where the truth does not, a chosen rank lies below it, and L is
smaller at such a boundary. See `expected_shares`. Under a null model of lower rank each simulated trait is fitted with
that rank or with full rank, as one-sided AIC chooses.

The mean of L needs few traits, because L is compared with a statistic of known mean on the same trait and variant. That
is the χ² with the covariances that the trait was simulated from, whose mean is d, and to first order what the estimates
of C0 and C1 change of it: a step of Fisher scoring from the true covariances, whose mean is 0, times the derivative of
the χ² in them. What is left has a hundredth of the variance of L.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from kron2sum_cli.errors import ConvergenceError, NumericalError
from kron2sum_cli.model.block_scanner import BlockStatistics, PairStatistics
from kron2sum_cli.model.climbing import Optimum
from kron2sum_cli.model.hypotheses import Hypothesis, orthonormal, reduction
from kron2sum_cli.model.information import inverse_of_pairs
from kron2sum_cli.model.likelihood import Grams, LikelihoodPoint
from kron2sum_cli.model.spectrum import Array, Floats, Indices
from kron2sum_cli.model.trait_axes import TraitAxes

FEWEST_TRAITS, MOST_TRAITS = 8, 80
"""Traits that are simulated for a factor: at least so many, and no more."""

STANDARD_ERROR = 0.005
"""No more traits are simulated where every factor's standard error is below this."""

DISTANCES = np.array([0.99, 0.9, 0.75, 0.6, 0.45, 0.3, 0.2, 0.1, 0.05, 0.02])
"""Distances from an estimated share of variance, over those to 0 and to 1, where its likelihood is evaluated."""

ENOUGH = 0.5
"""Smallest share of the simulated variants of a trait whose refits must end at a maximum: if fewer do, they are those
with small likelihood ratios, and their mean says nothing."""


@dataclass(frozen=True)
class Refit:
    """Maxima with a variant in the model, for b variants.

    ``lml`` (b,) is NaN where a refit did not converge; effects on the traits and their standard errors are (b, p).
    """

    lml: Array
    beta: Array
    se: Array


class SecondOf(Protocol):
    """Makes the second columns of variants that are simulated."""

    def __call__(self, G: Array) -> Array:
        """Second columns (n, b) of variants G (n, b), which are normal with relationships as covariance."""


class Refits(Protocol):
    """Refits under one null model, of complete traits or of observed cells."""

    @property
    def null(self) -> Optimum[Any]:
        """The maximum without a variant."""

    @property
    def null_lml(self) -> float:
        """The largest log-likelihood without a variant."""

    @property
    def reml(self) -> bool:
        """Whether it is that of the contrasts of the covariates."""

    def of_variants(self, G: Floats, outside: Array) -> Callable[[Array], Refit]:
        """Refits of variants G (n, b) with effects in the span of a design (p, e).

        ``outside`` (b,) is their squared length outside the rotation and the covariates.
        """

    def of_pairs(self, G: Floats, H: Floats, Q: Floats) -> Refit:
        """Refits with effects of both columns, of G (n, b) and of H (n, b), on all traits; found are those of H.

        Q (n, c) is an orthonormal basis of the covariates.
        """

    def simulated(self, truth: TraitAxes, rng: np.random.Generator, second: "SecondOf | None" = None) -> "Simulated":
        """Simulate traits with the covariances of these axes, without effects; fit them (`fitting.of_rank_or_full`).

        Simulate variants, too, with second columns or without.
        """


@dataclass(frozen=True)
class Simulated:
    """Traits simulated under a null model, and b variants without effect.

    ``null_lml`` is the largest log-likelihood of these traits without a variant, and ``refit`` makes refits of the
    variants with effects in the span of a design (p, e). ``refit_both`` refits two columns a variant, with effects on
    all traits, and ``both_at_truth`` has 2p axes, those of the first column, then those of the second; None where
    variants have one column.
    """

    null_lml: float
    refit: Callable[[Array], Refit]
    at_truth: "AtTruth"
    refit_both: Callable[[], Refit] | None = None
    both_at_truth: "AtTruth | None" = None

    def with_pairs(self, at_truth: "AtTruth", refit: Callable[[], Refit]) -> "Simulated":
        """The same with second columns."""
        return replace(self, refit_both=refit, both_at_truth=at_truth)

    def truth_of(self, design: Array) -> "AtTruth":
        """What is known where a design (p, e), or of two columns (2p, e), is tested."""
        one = design.shape[0] == self.at_truth.T.shape[0]
        return self.at_truth if one or self.both_at_truth is None else self.both_at_truth

    def lml(self, design: Array) -> Array:
        """Log-likelihoods (b,) with effects in the span of a design (p, e), or (2p, e) of two columns; e may be 0.

        Of two columns the designs are those of effects on all traits, of the first column or of both.
        """
        (rows, e), p = design.shape, self.at_truth.T.shape[0]
        if e == 0:
            return np.full(self.at_truth.u.shape[0], self.null_lml)
        if rows == e == 2 * p and self.refit_both is not None:
            return self.refit_both().lml
        return self.refit(design[:p]).lml


@dataclass(frozen=True)
class AtTruth:
    """Score and information of b variants at the covariances that traits were simulated from.

    ``u`` (b, p) and ``v`` (b, p) or (b, p, p) are along the trait axes ``T`` (p, p) of these covariances. ``change``
    (b, p, p) is ``M1ᵀP ∂K P M1``, what the information loses by a change ∂K of the covariances: the step of Fisher
    scoring that the simulated traits ask for. M1 are the columns of a variant along the axes.
    """

    T: Array
    u: Array
    v: Array
    change: Array

    def chisq(self, design: Array) -> Array:
        """χ² (b,) of effects in the span of the design; its mean is the rank of the design."""
        return reduction(self.u, self.v, design, self.T)

    def chisq_change(self, design: Array) -> Array:
        """First-order change (b,) of that χ² in its mean, ``-tr[(DᵀVD)⁻¹ Dᵀ change D]``; its mean is 0."""
        if design.shape[1] == 0:
            return np.zeros(self.u.shape[0])
        D = orthonormal(self.T @ design)
        V = self.v if self.v.ndim == 3 else self.v[:, :, None] * np.eye(self.v.shape[1])
        return -np.asarray(np.trace(np.linalg.solve(D.T @ V @ D, D.T @ self.change @ D), axis1=1, axis2=2))


@dataclass(frozen=True)
class Truth:
    """The covariances that traits were simulated from.

    Eigenvalues ``s`` (m,) of the rows, their information ``weights`` (m, p) along the axes ``T`` (p, p), and the
    ``step`` (E0, E1) of `scoring_step`.
    """

    T: Array
    s: Array
    weights: Array
    step: tuple[Array, Array]

    @staticmethod
    def at(point: LikelihoodPoint, s: Array) -> "Truth":
        """From the likelihood of the simulated traits at these covariances."""
        step = scoring_step(point.axes, point.grams, point.score0, point.score1)
        return Truth(point.axes.T, s, point.information_of_rows, step)

    def of_variants(self, statistics: BlockStatistics, rows: Array) -> AtTruth:
        """What is known of variants with rotated columns (m, b)."""
        change = information_change(rows**2, self.s, self.weights, self.step)
        return AtTruth(self.T, statistics.u, statistics.v, change)

    def of_pairs(self, pairs: PairStatistics, columns: Array) -> AtTruth:
        """What is known of two rotated columns (m, b, 2) a variant, along 2p axes: the first, then the second."""
        p, b = len(self.T), len(pairs.cross)
        v, change = np.empty((2, b, 2, p, 2, p))
        turned = pairs.cross.transpose(0, 2, 1) if pairs.cross.ndim == 3 else pairs.cross
        both = (pairs.first.v, pairs.cross), (turned, pairs.second.v)
        for one, other in np.ndindex(2, 2):
            block = both[one][other]
            v[:, one, :, other] = block if block.ndim == 3 else block.reshape(b, p, 1) * np.eye(p)
            products = columns[:, :, one] * columns[:, :, other]
            change[:, one, :, other] = information_change(products, self.s, self.weights, self.step)
        T, u = np.asarray(np.kron(np.eye(2), self.T), np.float64), np.hstack([pairs.first.u, pairs.second.u])
        return AtTruth(T, u, v.reshape(b, 2 * p, 2 * p), change.reshape(b, 2 * p, 2 * p))


def information_change(squares: Array, s: Array, weights: Array, step: tuple[Array, Array]) -> Array:
    """``M1ᵀP ∂K P M1`` (b, p, p) with ``∂K = E0 s + E1`` a row, (E0, E1) from `scoring_step`.

    ``squares`` (m, b) are those of the rotated variants, or products of their two columns; ``weights`` (m, p) inverse
    variances along the axes.
    """
    m, p = weights.shape
    pairs = (weights[:, :, None] * weights[:, None, :]).reshape(m, p * p)
    moved0, moved1 = ((M.T @ pairs).reshape(-1, p, p) for M in (squares * s[:, None], squares))
    return np.asarray(moved0 * step[0] + moved1 * step[1])


def scoring_step(axes: TraitAxes, grams: Grams, score0: Array, score1: Array) -> tuple[Array, Array]:
    """The step (E0, E1), each (p, p), of Fisher scoring from C0 and C1; pairs of axes are independent of each other.

    ``grams`` are ``Σ_i s_i^k w_ij w_il`` for k = 0, 1, 2, and the scores along the axes.
    """
    of_E0, of_both, of_E1 = inverse_of_pairs(axes, grams)
    return 2 * (of_E0 * score0 + of_both * score1), 2 * (of_both * score0 + of_E1 * score1)


def bartlett_factors(
    refits: Refits, hypotheses: Sequence[Hypothesis], seed: int, second: SecondOf | None = None
) -> Array:
    """The factors (h,) by which likelihood ratios of refits are divided; ones where the null model is by ML.

    Hypotheses of two columns are as `second_column.pair_hypotheses` has them; ``second`` makes the second columns.
    Raises ConvergenceError where too few simulated traits could be fitted, or refitted with variants.
    """
    found = np.ones(len(hypotheses))
    if not refits.reml:
        return found
    groups = [one for one in _by_columns(hypotheses) if one.size]
    drawn = [_SimulatedFactors([hypotheses[k] for k in group]) for group in groups]
    rng, truth = np.random.default_rng(seed), expected_shares(refits.null)
    for _ in range(MOST_TRAITS):
        try:
            simulated = refits.simulated(truth, rng, second)
        except (ConvergenceError, NumericalError, np.linalg.LinAlgError):
            continue
        lml = _cached(simulated.lml)
        for one in drawn:
            one.add(simulated, lml)
        if all(one.is_enough for one in drawn):
            break
    for group, one in zip(groups, drawn, strict=True):
        found[group] += one.mean()
    return found


def expected_shares(null: Optimum[Any]) -> TraitAxes:
    """The axes of a maximum with the expected genetic share of variance of each, given the others.

    The posterior mean ``∫ h L(h) dh / ∫ L(h) dh`` with a uniform prior from 0 to 1, by the trapezoidal rule. Axes that
    a lower rank leaves without genetic variance have one, too: the rank may be chosen, and the truth above it. Without
    relatedness (rank 0) all shares are 0.
    """
    axes: TraitAxes = null.point.axes
    if null.rank == 0:
        return axes
    estimated, tau = 1 - axes.c1**2, null.point.data.mean_eigenvalue
    expected = estimated.copy()

    def lml(k: int, share: float) -> float:
        """Log-likelihood with another share of axis k; -inf where it is not defined."""
        shares = np.where(np.arange(estimated.size) == k, share, estimated)
        try:
            return float(null.point.at(axes.with_shares(shares, tau)).lml)
        except (NumericalError, np.linalg.LinAlgError):
            return -np.inf

    for k, share in enumerate(estimated):
        below, above = share * (1 - DISTANCES), share + (1 - share) * DISTANCES
        shares = np.concatenate([below, [share], above[::-1]])
        logs = [lml(k, h) for h in below] + [null.point.lml] + [lml(k, h) for h in above[::-1]]
        likelihood = np.exp(np.array(logs) - max(logs))
        expected[k] = np.trapezoid(shares * likelihood, shares) / np.trapezoid(likelihood, shares)
    return axes.with_shares(expected, tau)


def _by_columns(hypotheses: Sequence[Hypothesis]) -> tuple[Indices, Indices]:
    """Which hypotheses are of one column, and which of two: factors of the first are the same without the second."""
    rows = np.array([hypothesis.full.shape[0] for hypothesis in hypotheses])
    return np.flatnonzero(rows == rows.min()), np.flatnonzero(rows > rows.min())


class _SimulatedFactors:
    """The factors of some hypotheses, from simulated traits, until their standard errors are small."""

    def __init__(self, hypotheses: Sequence[Hypothesis]) -> None:
        self.hypotheses = hypotheses
        self.excess: list[Array] = []
        self.change: list[Array] = []
        self.is_enough = False

    def add(self, simulated: Simulated, lml: Callable[[Array], Array]) -> None:
        """Take simulated traits."""
        if self.is_enough:
            return
        both = np.array([_excess(simulated, lml, hypothesis) for hypothesis in self.hypotheses])
        if np.all(np.isfinite(both)):
            self.excess.append(both[:, 0])
            self.change.append(both[:, 1])
        if len(self.excess) >= FEWEST_TRAITS:
            error = _by_control_variate(np.array(self.excess), np.array(self.change))[1]
            self.is_enough = bool(np.all(error < STANDARD_ERROR))

    def mean(self) -> Array:
        """Factors (h,) less one."""
        if len(self.excess) < FEWEST_TRAITS:
            raise ConvergenceError("too few traits simulated under the null model could be fitted")
        mean = _by_control_variate(np.array(self.excess), np.array(self.change))[0]
        if np.any(mean <= -1):
            raise ConvergenceError(
                "the likelihood ratios of traits simulated under the null model have no positive mean"
            )
        return mean


def _cached(lml: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """The same, each design computed once."""
    done: dict[bytes, Array] = {}

    def found(design: Array) -> Array:
        key = repr(design.shape).encode() + design.tobytes()
        if key not in done:
            done[key] = lml(design)
        return done[key]

    return found


def _excess(simulated: Simulated, lml: Callable[[Array], Array], hypothesis: Hypothesis) -> tuple[float, float]:
    """Means over the variants, a degree of freedom: what refits exceed the χ² by, and its first-order change."""
    base, full, truth = hypothesis.base, hypothesis.full, simulated.truth_of(hypothesis.full)
    ratio = 2 * (lml(full) - lml(base))
    excess = ratio - (truth.chisq(full) - truth.chisq(base))
    change = truth.chisq_change(full) - truth.chisq_change(base)
    found = np.isfinite(excess)
    if found.mean() < ENOUGH:
        return np.nan, np.nan
    return float(excess[found].mean()) / hypothesis.df, float(change[found].mean()) / hypothesis.df


def _by_control_variate(excess: Array, change: Array) -> tuple[Array, Array]:
    """Means (h,) of the excess (traits, h), their control variate the change, whose mean is 0; and standard errors."""
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
