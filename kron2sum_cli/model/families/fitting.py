"""The maximum of the likelihood of families, and how precisely it is known."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import linalg

from kron2sum_cli.errors import ConvergenceError
from kron2sum_cli.model import climbing
from kron2sum_cli.model.climbing import Likelihood, Optimum
from kron2sum_cli.model.families.likelihood import FamilyPoint, FamilyTraits, evaluate
from kron2sum_cli.model.fitting import (
    GENETIC_SHARES,
    even_starts,
    has_few_rows,
    higher_of,
    is_cheap,
    nested_fits,
    starting_axes,
)
from kron2sum_cli.model.information import DirectionCovariance, expected_of_pairs, inverse_along_face, of_axes
from kron2sum_cli.model.spectrum import Array
from kron2sum_cli.model.trait_axes import TraitAxes
from kron2sum_cli.model.trust_region import Curvature, ObservedRows

MAX_STEPS = 200

SAMPLES_PER_COVARIATE = 1000
"""From so many samples a covariate on a search takes the information without regard to covariates, whose part is of the
order of c/n: that changes no maximum, and its steps as little."""


@dataclass(frozen=True)
class FamilyLikelihood(Likelihood[FamilyPoint]):
    """The likelihood of families, to climb."""

    data: FamilyTraits

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

    def curvature(self, point: FamilyPoint) -> Curvature:
        """The expected and the observed information of pairs of axes, and the Hessian."""
        data = self.data
        grams = point.grams_of_rows if data.nsamples >= SAMPLES_PER_COVARIATE * data.ncovariates else point.grams
        change = partial(FamilyPoint.curvature, point, grams=grams)
        return Curvature(grams, ObservedRows(data.s, point.alpha, point.W), change)


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
    largest = data.ntraits if any(ranks) else 0
    starts = even_starts(data) if largest and is_cheap(data) else [starting_axes(data, GENETIC_SHARES[0])]
    full = max((climb(data, start, largest, reml) for start in starts), key=lambda f: f.point.lml)

    def search(rank: int) -> Optimum[FamilyPoint]:
        places = [full.point.axes, *starts]
        lower = [climb(data, place, rank, reml) for place in places] if rank < largest else [full]
        best = max(lower, key=lambda f: f.point.lml)
        if not best.certificate.certified:
            raise ConvergenceError(best.certificate.complaint(best.point.lml), best)
        return best

    return nested_fits(ranks, data.mean_eigenvalue, partial(climb, data, reml=reml), search)


def may_have_several_maxima(data: FamilyTraits) -> bool:
    """Whether the likelihood of so few samples may have several maxima, and it is cheap to look for them."""
    return has_few_rows(data) and is_cheap(data)


def observed_information(point: FamilyPoint) -> Array:
    """Minus the second derivatives of the log-likelihood in the entries of (E0, E1): (2N, 2N), N = p(p+1)/2 pairs."""
    data = point.data
    both = np.hstack([data.s[:, None] * point.alpha, point.alpha])

    def gram_of(axis: int) -> Array:
        weighted = both * point.W[:, axis, None]
        explained = linalg.solve_triangular(point.chol[axis], data.X.T @ weighted, lower=True)
        return np.asarray(weighted.T @ both - explained.T @ explained)

    return of_axes(gram_of, expected_of_pairs(point.grams))


def direction_covariance(point: FamilyPoint, rank: int) -> DirectionCovariance:
    """Inverse observed information of (C0, C1) in the axes of an optimum; C0 has at most this rank."""
    return inverse_along_face(observed_information(point), point, rank)


def fixed_effects(point: FamilyPoint) -> tuple[Array, Array]:
    """B (c, p) of the covariates as they were given, and its standard errors (c, p)."""
    data, Tinv = point.data, point.axes.Tinv
    B = linalg.solve_triangular(data.R, point.b @ Tinv.T)
    variances = np.empty((data.ntraits, data.ncovariates))
    for j, L in enumerate(point.chol):
        # R⁻¹H⁻¹R⁻ᵀ = (R⁻¹L⁻ᵀ)(R⁻¹L⁻ᵀ)ᵀ
        half = linalg.solve_triangular(data.R, linalg.solve_triangular(L, np.eye(len(L)), lower=True).T)
        variances[j] = np.sum(half**2, axis=1)
    return B, np.sqrt((Tinv**2 @ variances).T)
