"""Profile-likelihood intervals of heritabilities.

The factors of C0 and C1 are written in coordinates of which the first is the trait, scaled to variance 1, and the
others are what the other traits have besides it (all uncorrelated at the fit). The heritability of the trait is fixed
at h by giving the first row of the factors the lengths ``√(v h/ḡ)`` and ``√(v (1 - h))``, v its variance: that leaves
no constraint, and L-BFGS maximises over the rest. Heritabilities are searched on the scale of their log odds, on which
neither 0 nor 1 is crowded.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.likelihood import LikelihoodPoint
from kron2sum_cli.model.spectrum import Array
from kron2sum_cli.model.trait_axes import axes_of_factors
from kron2sum_cli.model.uncertainty import Interval

FIRST_STEP = 0.4
"""The log odds of a heritability are first changed by this much in the search for an end of an interval."""

LOG_ODDS_PRECISION = 1e-4
"""Ends of an interval are found to this precision, in log odds."""

LARGEST_LOG_ODDS = 35.0
"""Log odds of a heritability that is 1 to double precision."""

EMPTY_AXIS = 0.05
"""Length with which an axis without genetic or residual variance starts: at 0 the gradient would vanish."""

EMPTY_LENGTH = 1e-9
"""An axis is empty where it is shorter than this."""

MAX_ITERATIONS = 1000

LARGEST_DROP = 1e3
"""Where the log-likelihood is farther than this below that of the fit, it is taken to be this far below."""

NOT_DEFINED = 1e300
"""Minus the log-likelihood where C1 is singular and GGᵀ, too: finite, or line searches stumble."""


@dataclass(frozen=True)
class _Maximum:
    """A log-likelihood and the unknowns that have it."""

    lml: float
    x: Array


@dataclass(frozen=True)
class _Profile:
    """The likelihood at fixed heritabilities of one trait; unknowns are (M0, M1, log v), with factors ``basis @ M``.

    The trait is the first coordinate of the ``basis`` (p, p), times ``√scale``, its standard deviation at the fit.
    ``mean_diagonal`` is ḡ, that of the centred GGᵀ, and ``rank`` the largest of C0.
    """

    fitted: LikelihoodPoint
    basis: Array
    scale: float
    mean_diagonal: float
    rank: int

    @staticmethod
    def of_trait(fitted: LikelihoodPoint, trait: int, mean_diagonal: float, rank: int) -> "_Profile":
        """The profile of a trait: axes are turned so that the first one is the trait."""
        Tinv = fitted.axes.Tinv
        turn = np.linalg.qr(Tinv[trait][:, None], mode="complete")[0]
        return _Profile(fitted, Tinv @ turn, float(Tinv[trait] @ Tinv[trait]), mean_diagonal, rank)

    def starts(self) -> tuple[Array, Array]:
        """The unknowns at the fit, and with half of every coordinate's variance genetic."""
        axes, p = self.fitted.axes, self.basis.shape[0]
        root = np.sqrt(self.fitted.data.mean_eigenvalue)
        c0 = np.where(root * axes.c0 < EMPTY_LENGTH, EMPTY_AXIS / root, axes.c0)
        c1 = np.where(axes.c1 < EMPTY_LENGTH, EMPTY_AXIS, axes.c1)
        turn, half = (axes.T @ self.basis).T, np.sqrt(0.5) * np.eye(p)
        pairs = ((turn * c0, turn * c1), (half / root, half))
        at_fit, even = (np.concatenate([M0[:, : self.rank].ravel(), M1.ravel(), [0.0]]) for M0, M1 in pairs)
        return at_fit, even

    def maximum(self, log_odds: float, starts: Sequence[Array]) -> _Maximum:
        """The highest log-likelihood with this heritability that is found from several starts."""
        return max((self._climb(log_odds, start) for start in starts), key=lambda found: found.lml)

    def _climb(self, log_odds: float, start: Array) -> _Maximum:
        """The highest log-likelihood from one start."""

        def objective(x: Array) -> tuple[float, Array]:
            with np.errstate(over="ignore", invalid="ignore"):
                return self._objective(log_odds, x)

        result = scipy.optimize.minimize(
            objective,
            start,
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": MAX_ITERATIONS, "maxcor": 30, "ftol": 1e-13, "gtol": 1e-4},
        )
        return _Maximum(-float(result.fun), np.asarray(result.x))

    def _objective(self, log_odds: float, x: Array) -> tuple[float, Array]:
        """Minus the log-likelihood and its gradient."""
        p, basis, data = self.basis.shape[0], self.basis, self.fitted.data
        M0, M1 = np.split(x[:-1], [p * self.rank])
        variance = np.exp(x[-1])
        genetic = variance * scipy.special.expit(log_odds) / self.mean_diagonal
        rows0 = _FixedRow(M0.reshape(p, self.rank), float(np.sqrt(genetic)))
        rows1 = _FixedRow(M1.reshape(p, p), float(np.sqrt(variance * scipy.special.expit(-log_odds))))
        F0, F1 = rows0.factor(), rows1.factor()
        try:
            point = self.fitted.at(axes_of_factors(basis @ F0, basis @ F1, data.mean_eigenvalue))
        except (NumericalError, np.linalg.LinAlgError):
            return NOT_DEFINED, np.zeros_like(x)
        turn = point.axes.T @ basis
        g0, g1 = 2 * turn.T @ (point.score0 @ (turn @ F0)), 2 * turn.T @ (point.score1 @ (turn @ F1))
        of_variance = 0.5 * float(F0[0] @ g0[0] + F1[0] @ g1[0])
        gradient = np.concatenate([rows0.gradient(g0).ravel(), rows1.gradient(g1).ravel(), [of_variance]])
        if not (np.isfinite(point.lml) and np.all(np.isfinite(gradient))):
            return NOT_DEFINED, np.zeros_like(x)
        return -point.lml, -gradient


@dataclass(frozen=True)
class _FixedRow:
    """A factor M (p, r) whose first row only gives a direction; its length is given."""

    M: Array
    length: float

    def factor(self) -> Array:
        """M with its first row scaled to its length."""
        F = self.M.copy()
        F[0] *= self.length / np.linalg.norm(F[0])
        return F

    def gradient(self, g: Array) -> Array:
        """The gradient in M of a function that has the gradient g in the factor."""
        size = float(np.linalg.norm(self.M[0]))
        direction = self.M[0] / size
        out = g.copy()
        out[0] = self.length / size * (g[0] - direction * (direction @ g[0]))
        return out


def heritability_interval(
    point: LikelihoodPoint, trait: int, mean_diagonal: float, rank: int, level: float = 0.95
) -> Interval:
    """All heritabilities h of a trait with ``2 (l_max - l(h)) ≤ χ²₁(level)``, l(h) the maximum over all else.

    The point is the optimum over C0 of at most this rank, ``mean_diagonal`` that of the centred GGᵀ, ḡ in
    ``h = ḡ C0_tt / (ḡ C0_tt + C1_tt)``. Near a boundary the interval covers at least about as often as its level,
    between 0 and 1. Raises NumericalError where the trait is no trait of the model or the level is not between 0 and 1.
    """
    if not 0 <= trait < point.data.ntraits:
        raise NumericalError(f"trait {trait} is not one of the model's {point.data.ntraits} traits")
    if not 0 < level < 1:
        raise NumericalError(f"the level of an interval must lie between 0 and 1; it is {level}")
    profile = _Profile.of_trait(point, trait, mean_diagonal, rank)
    genetic, residual = mean_diagonal * point.axes.C0[trait, trait], point.axes.C1[trait, trait]
    with np.errstate(divide="ignore"):
        centre = float(np.clip(np.log(genetic) - np.log(residual), -LARGEST_LOG_ODDS, LARGEST_LOG_ODDS))
    floor = point.lml - 0.5 * float(scipy.special.chdtri(1, 1 - level))
    low, high = (_end(profile, centre, boundary, floor) for boundary in (-LARGEST_LOG_ODDS, LARGEST_LOG_ODDS))
    return Interval(
        low=0.0 if low == -LARGEST_LOG_ODDS else float(scipy.special.expit(low)),
        high=1.0 if high == LARGEST_LOG_ODDS else float(scipy.special.expit(high)),
        at_boundary=low == -LARGEST_LOG_ODDS or high == LARGEST_LOG_ODDS,
    )


def _end(profile: _Profile, centre: float, boundary: float, floor: float) -> float:
    """Where the profile falls to ``floor`` between the centre and the boundary; the boundary if it does not.

    Outward in growing steps, each maximum searched from the one before and from an even start; then Brent's method on
    the square root of the drop, which is nearly straight, from the maxima on both sides.
    """
    inside, step = centre, FIRST_STEP if boundary > 0 else -FIRST_STEP
    at_fit, even = profile.starts()
    near = profile.maximum(centre, [at_fit])
    if near.lml < floor:
        h = scipy.special.expit(centre)
        raise NumericalError(f"the profile likelihood could not be maximised near the estimated heritability {h:.4g}")
    while True:
        outside = float(np.clip(inside + step, -LARGEST_LOG_ODDS, LARGEST_LOG_ODDS))
        found = profile.maximum(outside, [near.x, even])
        if found.lml < floor:
            break
        if outside == boundary:
            return boundary
        inside, near, step = outside, found, 2 * step

    known, top = {inside: near, outside: found}, profile.fitted.lml

    def beyond(log_odds: float) -> float:
        at = known.get(log_odds) or profile.maximum(log_odds, [near.x, found.x])
        return float(np.sqrt(np.clip(top - at.lml, 0.0, LARGEST_DROP)) - np.sqrt(top - floor))

    return float(scipy.optimize.brentq(beyond, inside, outside, xtol=LOG_ODDS_PRECISION))
