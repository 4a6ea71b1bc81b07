"""The Bartlett factor of refits: how much larger than its degrees of freedom their likelihood ratio is on average.

A likelihood ratio L of d degrees of freedom exceeds χ² where samples are few, because C0 and C1 fit what they are
estimated from. Its mean under the null hypothesis is ``d f``, and ``L/f`` is close to χ² (Bartlett 1937; Lawley 1956).
The factor f depends on the null model and the hypothesis alone, and is found by simulation: traits without any effect,
and variants inherited as the relationship matrix says, ``g ~ N(0, GGᵀ)``, fitted as in a refit, with climbs that start
from the covariances of the simulation. These are the null model's except for the genetic shares of variance of the
trait axes: estimates of few samples lie at 0 and 1 where the truth does not, a chosen rank lies below it, and L is
smaller at such a boundary. See `expected_shares`. Under a null model of lower rank each simulated trait is fitted with
that rank or with full rank, as one-sided AIC chooses.

The mean of L needs few traits, because L is compared with statistics of known mean on the same trait and variant: with
the χ² of the covariances that the trait was simulated from, whose mean is d, and with what the estimates of C0 and C1
change of it to first and second order (`control_variates`). What is left has about a thousandth of the variance of L.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from kron2sum_cli.errors import ConvergenceError, NumericalError
from kron2sum_cli.model.climbing import Optimum
from kron2sum_cli.model.control_variates import AtTruth, mean_by_controls
from kron2sum_cli.model.hypotheses import Hypothesis
from kron2sum_cli.model.spectrum import Array, Floats, Indices
from kron2sum_cli.model.trait_axes import TraitAxes

FEWEST_TRAITS, MOST_TRAITS = 8, 80
"""Traits that are simulated for a factor: at least so many, and no more."""

STANDARD_ERROR = 0.01
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
    at_truth: AtTruth
    refit_both: Callable[[], Refit] | None = None
    both_at_truth: AtTruth | None = None

    def with_pairs(self, at_truth: AtTruth, refit: Callable[[], Refit]) -> "Simulated":
        """The same with second columns."""
        return replace(self, refit_both=refit, both_at_truth=at_truth)

    def truth_of(self, design: Array) -> AtTruth:
        """What is known where a design (p, e), or of two columns (2p, e), is tested."""
        one = design.shape[0] == len(self.at_truth.along.T)
        return self.at_truth if one or self.both_at_truth is None else self.both_at_truth

    def lml(self, design: Array) -> Array:
        """Log-likelihoods (b,) with effects in the span of a design (p, e), or (2p, e) of two columns; e may be 0.

        Of two columns the designs are those of effects on all traits, of the first column or of both.
        """
        (rows, e), p = design.shape, len(self.at_truth.along.T)
        if e == 0:
            return np.full(len(self.at_truth.along.u), self.null_lml)
        if rows == e == 2 * p and self.refit_both is not None:
            return self.refit_both().lml
        return self.refit(design[:p]).lml


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
            lml = _cached(simulated.lml)
            for one in drawn:
                one.add(simulated, lml)
        except (ConvergenceError, NumericalError, np.linalg.LinAlgError):
            continue
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
        self.controls: list[Array] = []
        self.is_enough = False

    def add(self, simulated: Simulated, lml: Callable[[Array], Array]) -> None:
        """Take simulated traits."""
        if self.is_enough:
            return
        both = [_excess(simulated, lml, hypothesis) for hypothesis in self.hypotheses]
        excess, controls = np.array([one[0] for one in both]), np.array([one[1] for one in both])
        if np.all(np.isfinite(excess)):
            self.excess.append(excess)
            self.controls.append(controls)
        if len(self.excess) >= FEWEST_TRAITS:
            self.is_enough = bool(np.all(self._means()[1] < STANDARD_ERROR))

    def mean(self) -> Array:
        """Factors (h,) less one."""
        if len(self.excess) < FEWEST_TRAITS:
            raise ConvergenceError("too few traits simulated under the null model could be fitted")
        mean = self._means()[0]
        if np.any(mean <= -1):
            raise ConvergenceError(
                "the likelihood ratios of traits simulated under the null model have no positive mean"
            )
        return mean

    def _means(self) -> tuple[Array, Array]:
        """The means (h,) and their standard errors."""
        found = [
            mean_by_controls(excess, controls)
            for excess, controls in zip(np.array(self.excess).T, np.array(self.controls).swapaxes(0, 1), strict=True)
        ]
        return np.array([mean for mean, _ in found]), np.array([error for _, error in found])


def _cached(lml: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """The same, each design computed once."""
    done: dict[bytes, Array] = {}

    def found(design: Array) -> Array:
        key = repr(design.shape).encode() + design.tobytes()
        if key not in done:
            done[key] = lml(design)
        return done[key]

    return found


def _excess(simulated: Simulated, lml: Callable[[Array], Array], hypothesis: Hypothesis) -> tuple[float, Array]:
    """Means over the variants, a degree of freedom: what refits exceed the χ² by, and its control variates."""
    base, full, truth = hypothesis.base, hypothesis.full, simulated.truth_of(hypothesis.full)
    ratio = 2 * (lml(full) - lml(base))
    excess = ratio - (truth.chisq(full) - truth.chisq(base))
    controls = truth.controls(full) - truth.controls(base)
    found = np.isfinite(excess)
    if found.mean() < ENOUGH:
        return np.nan, np.zeros(len(controls))
    return float(excess[found].mean()) / hypothesis.df, controls[:, found].mean(axis=1) / hypothesis.df


def outside_rows(rng: np.random.Generator, nrows: int, p: int) -> Array:
    """R (at most p rows, p) with ``RᵀR = NᵀN`` for N (nrows, p) of standard normal numbers, without N.

    A QR decomposition of N has such an R, whose diagonal are roots of χ² numbers (Bartlett 1933).
    """
    if nrows <= p:
        return rng.normal(size=(nrows, p))
    R = np.triu(rng.normal(size=(p, p)), 1)
    return np.asarray(R + np.diag(np.sqrt(rng.chisquare(nrows - np.arange(p)))))
