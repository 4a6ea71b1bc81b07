"""The maximum of the likelihood of families, and how precisely it is known."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np
from scipy import linalg

from kron2sum_cli.errors import ConvergenceError
from kron2sum_cli.model import climbing
from kron2sum_cli.model.climbing import Certificate, Optimum
from kron2sum_cli.model.families.likelihood import FamilyPoint, FamilyTraits, evaluate
from kron2sum_cli.model.fitting import (
    FEW_ROWS,
    GENETIC_SHARES,
    higher_of,
    nested_fits,
)
from kron2sum_cli.model.information import (
    DirectionCovariance,
    expected_of_pairs,
    face_curvature,
    faces,
    free_directions,
    invert_dense,
    of_axes,
)
from kron2sum_cli.model.spectrum import Array
from kron2sum_cli.model.trait_axes import TraitAxes, axes_of_factors
from kron2sum_cli.model.trust_region import Curvature, ObservedRows

CHEAP = 1_000_000
"""Samples times squared traits up to which a fit starts from all shares."""

MAX_STEPS = 200

SAMPLES_PER_COVARIATE = 1000
"""From so many samples a covariate on a search takes the information without regard to covariates, whose part is of the
order of c/n: that changes no maximum, and its steps as little."""


@dataclass(frozen=True)
class FamilyLikelihood:
    """The likelihood of families, to climb; see `climbing.Likelihood`."""

    data: FamilyTraits
    reml: bool

    @property
    def floor(self) -> float:
        """Smallest c1 that a climb may reach."""
        return 0.0

    @property
    def tau(self) -> float:
        """Mean eigenvalue of GGᵀ."""
        return self.data.mean_eigenvalue

    @property
    def ncells(self) -> int:
        """Number of contrasts of all traits."""
        return self.data.nrows * self.data.ntraits

    @property
    def may_lose_C1(self) -> bool:
        """Whether an axis may have no residual variance at all."""
        return bool(self.data.s.min(initial=np.inf) > 0)

    def evaluate(self, axes: TraitAxes) -> FamilyPoint:
        """The likelihood at one point."""
        return evaluate(self.data, axes, self.reml)

    def corrected(self, point: FamilyPoint) -> Self:
        """Itself: its curvatures are exact."""
        return self

    def curvature(self, point: FamilyPoint) -> Curvature:
        """The expected and the observed information of pairs of axes, and the Hessian."""
        data = self.data
        grams = point.grams_of_rows if data.nsamples >= SAMPLES_PER_COVARIATE * data.ncovariates else point.grams
        change = partial(FamilyPoint.curvature, point, grams=grams)
        return Curvature(grams, ObservedRows(data.s, point.alpha, point.W), change)


def starting_axes(data: FamilyTraits, share: float) -> TraitAxes:
    """The covariance of the residuals, this share of it to τC0 and the rest to C1.

    Raises NumericalError where traits are linear combinations of each other.
    """
    tau = data.mean_eigenvalue
    R = linalg.qr(data.residuals / np.sqrt(data.nrows), mode="r")[0][: data.ntraits]
    return axes_of_factors(np.sqrt(share / tau) * R.T, np.sqrt(1 - share) * R.T, tau)


def climb(data: FamilyTraits, start: TraitAxes, rank: int, reml: bool) -> Optimum[FamilyPoint]:
    """Climb from ``start`` to an optimum with C0 of at most this rank."""
    return climbing.climb(FamilyLikelihood(data, reml), start, rank, MAX_STEPS)


def climb_near(data: FamilyTraits, start: TraitAxes, rank: int, reml: bool) -> Optimum[FamilyPoint]:
    """See `model.fitting.climb_near`."""
    found = climb(data, start, rank, reml)
    return higher_of(found, lambda: fits(data, [rank], reml)[0]) if may_have_several_maxima(data) else found


def fits(data: FamilyTraits, ranks: Sequence[int], reml: bool) -> list[Optimum[FamilyPoint]]:
    """Maximise over C0 of at most each of these ranks (or of 0 alone); of several starts the best end is kept.

    Raises ConvergenceError where an optimum is not certified.
    """
    if not any(ranks):
        return [_without_genetic_variance(data, reml)]
    starts = even_starts(data) if is_cheap(data) else [starting_axes(data, GENETIC_SHARES[0])]
    full = max((climb(data, start, data.ntraits, reml) for start in starts), key=lambda f: f.point.lml)

    def search(rank: int) -> Optimum[FamilyPoint]:
        places = [full.point.axes, *starts]
        lower = [climb(data, place, rank, reml) for place in places] if rank < data.ntraits else [full]
        best = max(lower, key=lambda f: f.point.lml)
        if not best.certificate.certified:
            raise ConvergenceError(best.certificate.complaint(best.point.lml), best)
        return best

    return nested_fits(ranks, data.mean_eigenvalue, partial(climb, data, reml=reml), search)


def even_starts(data: FamilyTraits) -> list[TraitAxes]:
    """Starts with all shares of genetic variance, the same of every trait."""
    return [starting_axes(data, share) for share in GENETIC_SHARES]


def is_cheap(data: FamilyTraits) -> bool:
    """Whether a fit can afford several climbs."""
    return bool(data.nsamples * data.ntraits**2 <= CHEAP)


def may_have_several_maxima(data: FamilyTraits) -> bool:
    """Whether there are so few samples for each of several traits that several maxima are likely, and climbs cheap."""
    return data.ntraits > 1 and data.nrows < FEW_ROWS * data.ntraits and is_cheap(data)


def _without_genetic_variance(data: FamilyTraits, reml: bool) -> Optimum[FamilyPoint]:
    """The maximum for C0 = 0: C1 is the covariance of the residuals, over n - c under REML and over n under ML."""
    p = data.ntraits
    rows = data.nrows if reml else data.nsamples
    R = linalg.qr(data.residuals / np.sqrt(rows), mode="r")[0][:p]
    point = evaluate(data, axes_of_factors(np.zeros((p, 0)), R.T, data.mean_eigenvalue), reml)
    gradient = float(np.linalg.norm(point.score1))
    certificate = Certificate(
        predicted_gain=gradient**2 / max(data.nrows, 1),
        cone_gain=0.0,
        gradient_norm=gradient,
        smallest_C0=0.0,
        smallest_C1=1.0,
        active_C0=0,
        active_C1=0,
        steps=0,
        evaluations=1,
    )
    return Optimum(point, 0, certificate)


def observed_information(point: FamilyPoint) -> Array:
    """Minus the second derivatives of the log-likelihood in the entries of (E0, E1): (2N, 2N), N = p(p+1)/2 pairs."""
    data = point.data
    both = np.hstack([data.s[:, None] * point.alpha, point.alpha])

    def gram_of(axis: int) -> Array:
        weighted = both * point.W[:, axis, None]
        gram: Array = weighted.T @ both
        if data.ncovariates:
            explained = linalg.solve_triangular(point.chol[axis], data.X.T @ weighted, lower=True)
            gram -= explained.T @ explained
        return gram

    return of_axes(gram_of, expected_of_pairs(point.grams))


def direction_covariance(point: FamilyPoint, rank: int) -> DirectionCovariance:
    """Inverse observed information of (C0, C1) in the axes of an optimum; C0 has at most this rank."""
    empty = faces(point.axes, point.data.mean_eigenvalue, rank)
    curvature = face_curvature(point.axes, point.score0, point.score1, *empty)
    return invert_dense(observed_information(point) + curvature, free_directions(*empty))


def fixed_effects(point: FamilyPoint) -> tuple[Array, Array]:
    """B (c, p) of the covariates as they were given, and its standard errors (c, p)."""
    data, Tinv = point.data, point.axes.Tinv
    if data.ncovariates == 0:
        return np.empty((0, data.ntraits)), np.empty((0, data.ntraits))
    B = linalg.solve_triangular(data.R, point.b @ Tinv.T)
    variances = np.empty((data.ntraits, data.ncovariates))
    for j, L in enumerate(point.chol):
        # R⁻¹H⁻¹R⁻ᵀ = (R⁻¹L⁻ᵀ)(R⁻¹L⁻ᵀ)ᵀ
        half = linalg.solve_triangular(data.R, linalg.solve_triangular(L, np.eye(len(L)), lower=True).T)
        variances[j] = np.sum(half**2, axis=1)
    return B, np.sqrt((Tinv**2 @ variances).T)
