"""Profile-likelihood intervals of heritabilities.

The heritability of trait t is fixed at h by writing row t of the factors (C0 = L0L0ᵀ, C1 = L1L1ᵀ) as a length times a
direction: the lengths are ``√(v h/ḡ)`` and ``√(v (1 - h))``, v the trait's variance. That leaves no constraint, and
L-BFGS maximises over the rest, in the trait axes of the fit, in which all unknowns are of size 1.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.likelihood import Point, evaluate
from kron2sum_cli.model.spectrum import Array
from kron2sum_cli.model.trait_axes import axes_of_factors

FIRST_STEP = 0.02
"""Heritability is first changed by this much in the search for an end of an interval."""

PRECISION = 1e-5
"""Ends of an interval are found to this precision."""

EMPTY_AXIS = 0.05
"""An axis without genetic or residual variance starts a search with this length: at 0 the gradient would vanish."""

MAX_ITERATIONS = 1000

DEEP = 1e3
"""How far below the level of an interval differences in log-likelihood are told apart."""

NOT_DEFINED = 1e300
"""Minus the log-likelihood where C1 is singular and GGᵀ, too: finite, or line searches stumble."""


@dataclass(frozen=True)
class Interval:
    """A profile-likelihood interval of a heritability.

    Attributes
    ----------
    low, high : its ends
    at_boundary : whether an end is 0 or 1, because the likelihood does not fall far enough before it
    """

    low: float
    high: float
    at_boundary: bool


@dataclass(frozen=True)
class _Profile:
    """The likelihood at fixed heritabilities of one trait; unknowns are (M0, M1, log v), ``L = T⁻¹M``."""

    fitted: Point
    trait: int
    mean_diagonal: float
    rank: int

    def start(self) -> Array:
        """The unknowns at the fit."""
        axes = self.fitted.axes
        root = np.sqrt(self.fitted.data.mean_eigenvalue)
        M0 = np.diag(np.maximum(axes.c0, EMPTY_AXIS / root))[:, : self.rank]
        M1 = np.diag(np.maximum(axes.c1, EMPTY_AXIS))
        total = self.mean_diagonal * axes.C0[self.trait, self.trait] + axes.C1[self.trait, self.trait]
        return np.concatenate([M0.ravel(), M1.ravel(), [np.log(total)]])

    def maximum(self, h: float, start: Array) -> tuple[float, Array]:
        """The highest log-likelihood with this heritability, and the unknowns there."""

        def objective(x: Array) -> tuple[float, Array]:
            return self._objective(h, x)

        result = optimize.minimize(
            objective,
            start,
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": MAX_ITERATIONS, "maxcor": 30, "ftol": 1e-13, "gtol": 1e-4},
        )
        return -float(result.fun), np.asarray(result.x)

    def _objective(self, h: float, x: Array) -> tuple[float, Array]:
        """Minus the log-likelihood and its gradient."""
        p, t, Tinv = self.fitted.data.ntraits, self.trait, self.fitted.axes.Tinv
        M0, M1 = np.split(x[:-1], [p * self.rank])
        variance = np.exp(x[-1])
        rows0 = _FixedRow(Tinv @ M0.reshape(p, self.rank), t, float(np.sqrt(variance * h / self.mean_diagonal)))
        rows1 = _FixedRow(Tinv @ M1.reshape(p, p), t, float(np.sqrt(variance * (1 - h))))
        F0, F1 = rows0.factor(), rows1.factor()
        try:
            point = evaluate(
                self.fitted.data, axes_of_factors(F0, F1, self.fitted.data.mean_eigenvalue), self.fitted.reml
            )
        except (NumericalError, np.linalg.LinAlgError):
            return NOT_DEFINED, np.zeros_like(x)
        T = point.axes.T
        g0, g1 = 2 * T.T @ (point.score0 @ (T @ F0)), 2 * T.T @ (point.score1 @ (T @ F1))
        of_variance = 0.5 * float(F0[t] @ g0[t] + F1[t] @ g1[t])
        of_M0, of_M1 = Tinv.T @ rows0.gradient(g0), Tinv.T @ rows1.gradient(g1)
        return -point.lml, -np.concatenate([of_M0.ravel(), of_M1.ravel(), [of_variance]])


@dataclass(frozen=True)
class _FixedRow:
    """A factor L (p, r) whose row ``row`` only gives a direction; its length is given."""

    L: Array
    row: int
    length: float

    def factor(self) -> Array:
        """L with the row at its length."""
        F = self.L.copy()
        F[self.row] *= self.length / np.linalg.norm(F[self.row])
        return F

    def gradient(self, g: Array) -> Array:
        """The gradient in L of what has the gradient g in the factor."""
        size = float(np.linalg.norm(self.L[self.row]))
        direction = self.L[self.row] / size
        out = g.copy()
        out[self.row] = self.length / size * (g[self.row] - direction * (direction @ g[self.row]))
        return out


def heritability_interval(point: Point, trait: int, mean_diagonal: float, rank: int, level: float = 0.95) -> Interval:
    """All heritabilities h of a trait with ``2 (l_max - l(h)) ≤ χ²₁(level)``, l(h) the maximum over all else.

    Parameters
    ----------
    point : the optimum
    trait : position of the trait
    mean_diagonal : mean diagonal of the centred GGᵀ, ḡ in ``h = ḡ C0_tt / (ḡ C0_tt + C1_tt)``
    rank : largest rank of C0 allowed
    level : of confidence, between 0 and 1; near a boundary the interval covers at least about that often

    Raises
    ------
    NumericalError
        Where the trait is no trait of the model or the level is not between 0 and 1.
    """
    if not 0 <= trait < point.data.ntraits:
        raise NumericalError(f"trait {trait} is not one of the model's {point.data.ntraits} traits")
    if not 0 < level < 1:
        raise NumericalError(f"the level of an interval must lie between 0 and 1; it is {level}")
    profile = _Profile(point, trait, mean_diagonal, rank)
    genetic = mean_diagonal * point.axes.C0[trait, trait]
    centre = float(genetic / (genetic + point.axes.C1[trait, trait]))
    floor = point.lml - 0.5 * float(stats.chi2.ppf(level, 1))
    low, high = (_end(profile.maximum, profile.start(), centre, end, floor) for end in (0.0, 1.0))
    return Interval(low, high, low == 0.0 or high == 1.0)


def _end(
    maximum: Callable[[float, Array], tuple[float, Array]],
    start: Array,
    centre: float,
    boundary: float,
    floor: float,
) -> float:
    """Where the profile falls to ``floor`` between the centre and the boundary; the boundary if it does not.

    Each maximum starts from the nearest one found before: outward in growing steps, then by Brent's method.
    """
    sign = 1.0 if boundary > centre else -1.0
    inside, width = centre, FIRST_STEP
    while True:
        outside = centre + sign * min(width, abs(boundary - centre))
        if abs(boundary - outside) < PRECISION:
            outside = boundary
        value, found = maximum(outside, start)
        if value < floor:
            break
        if outside == boundary:
            return boundary
        inside, start, width = outside, found, 2 * width

    def excess(h: float) -> float:
        return max(maximum(h, start)[0] - floor, -DEEP)

    if excess(inside) <= 0:
        raise NumericalError(
            f"the profile likelihood of a heritability could not be maximised near its estimate {centre:.4g}"
        )
    return float(optimize.brentq(excess, inside, outside, xtol=PRECISION))
