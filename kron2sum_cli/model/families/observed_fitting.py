"""The maximum of the likelihood of observed cells of families, and how precisely it is known.

The search is that of observed cells with a dense matrix (`missing.fitting`): from the fit of the filled traits, by the
average information, or by the observed one where that predicts badly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import linalg

from kron2sum_cli.model import climbing
from kron2sum_cli.model.climbing import Optimum
from kron2sum_cli.model.families import fitting as complete_fitting
from kron2sum_cli.model.families.likelihood import FamilyTraits, family_traits
from kron2sum_cli.model.families.observed import ObservedFamilies
from kron2sum_cli.model.families.observed_likelihood import ObservedFamilyPoint, evaluate, sum_of
from kron2sum_cli.model.fitting import GENETIC_SHARES, even_starts, starting_axes
from kron2sum_cli.model.information import DirectionCovariance
from kron2sum_cli.model.missing.fitting import (
    MAX_STEPS,
    LikelihoodOfCells,
    best_beside,
    change_of_scores,
    climbs,
    corrected_start,
    fits_of_cells,
    has_few_cells,
    has_few_common_samples,
)
from kron2sum_cli.model.missing.information import (
    directions,
    inverse_information,
    uses_observed_information,
    without_residual,
)
from kron2sum_cli.model.spectrum import Array
from kron2sum_cli.model.trait_axes import TraitAxes
from kron2sum_cli.model.trust_region import ScoreChange

CHEAP = 1_000_000
"""Entries of the inverse covariances of families up to which a fit starts from all shares."""

EFFECT_PRODUCTS = 2e11
"""Largest number of multiplications for the part of the observed information that pairs of fixed effects have. It is of
the order of c/n of the whole, and left out where it takes more."""


@dataclass(frozen=True)
class ObservedFamilyLikelihood(LikelihoodOfCells[ObservedFamilyPoint]):
    """The likelihood of observed cells of families."""

    data: ObservedFamilies

    @property
    def ncells(self) -> int:
        """Number of contrasts of the observed cells."""
        return max(self.data.nobserved - self.data.kept.size, 1)

    def evaluate(self, axes: TraitAxes) -> ObservedFamilyPoint:
        """The likelihood at one point."""
        return evaluate(self.data, axes, self.reml)

    def average(self, point: ObservedFamilyPoint) -> ScoreChange:
        """See `LikelihoodOfCells.average`."""
        return partial(change_of_scores, 0.5 * score_products(point))

    def lacking(self, point: ObservedFamilyPoint) -> Array:
        """See `LikelihoodOfCells.lacking`."""
        return 0.5 * (score_products(point) - trace_products(point))


def climb(data: ObservedFamilies, start: TraitAxes, rank: int, reml: bool) -> Optimum[ObservedFamilyPoint]:
    """Climb from ``start`` to an optimum with C0 of at most this rank."""
    return climbing.climb(ObservedFamilyLikelihood(data, reml), start, rank, MAX_STEPS)


def climb_near(data: ObservedFamilies, start: TraitAxes, rank: int, reml: bool) -> Optimum[ObservedFamilyPoint]:
    """See `missing.fitting.climb_near`."""
    climb_from = partial(climb, data, rank=rank, reml=reml)
    found = climb_from(start)
    return best_beside(found, data, climb_from) if is_searched_beside(data) else found


def fits(data: ObservedFamilies, ranks: Sequence[int], reml: bool) -> list[Optimum[ObservedFamilyPoint]]:
    """Maximise over C0 of at most each of these ranks (or of 0 alone).

    Of several starts the best end is kept, as `missing.fitting.best_of` says. Raises ConvergenceError where no optimum
    could be certified; its result is the best point found.
    """
    climb_from, full = partial(climb, data, reml=reml), data.ntraits if any(ranks) else 0
    of_full_rank = climbs(_starts(data, full, reml), partial(climb_from, rank=full))
    places = [one.point.axes for one in of_full_rank]
    return fits_of_cells(data, ranks, climb_from, of_full_rank, places, is_searched_beside(data))


def _starts(data: ObservedFamilies, rank: int, reml: bool) -> list[TraitAxes]:
    traits = filled_traits(data)
    even = starting_axes(traits, GENETIC_SHARES[0])
    filled = complete_fitting.climb(traits, even, data.ntraits, reml).point.axes if rank else even.truncated(0)
    starts = [corrected_start(data, filled)]
    return starts + (even_starts(traits) if rank and is_cheap(data) else [])


def is_cheap(data: ObservedFamilies) -> bool:
    """Whether a fit can afford several climbs."""
    return sum(group.entries for group in data.groups) <= CHEAP


def is_searched_thoroughly(data: ObservedFamilies) -> bool:
    """Whether several maxima are likely, and climbs are cheap."""
    return has_few_cells(data.nobserved - data.kept.size, data.ntraits) and is_cheap(data)


def is_searched_beside(data: ObservedFamilies) -> bool:
    """Whether a search also starts from beside its end; see `missing.fitting.is_searched_beside`."""
    return is_searched_thoroughly(data) and has_few_common_samples(data)


def filled_traits(data: ObservedFamilies) -> FamilyTraits:
    """The traits with 0, the mean of their residuals, in missing cells."""
    return family_traits(data.spectrum, data.Y, data.Q)


def information(point: ObservedFamilyPoint) -> Array:
    """Observed information of (E0, E1), or by the rule of a dense matrix the average one: (2N, 2N)."""
    data = point.data
    size = int(np.count_nonzero(data.missing)) + data.kept.size
    if not uses_observed_information(data.ntraits, data.nsamples, size):
        return 0.5 * score_products(point)
    return score_products(point) - 0.5 * trace_products(point)


def direction_covariance(point: ObservedFamilyPoint, rank: int) -> DirectionCovariance:
    """Inverse information of (C0, C1) in the axes of an optimum; C0 has at most this rank."""
    return inverse_information(information(point), point, rank, without_residual(point))


def score_products(point: ObservedFamilyPoint) -> Array:
    """``αᵀ∂V P ∂'Vα`` for every two directions: (2N, 2N)."""
    data = point.data
    found = sum_of(
        group.score_products(inverse, point.alpha) for group, inverse in zip(data.groups, point.inverses, strict=True)
    )
    basis = _basis(point.axes)
    products = _between(basis, found.products)
    if not data.kept.size:
        return products
    effects = np.concatenate([basis @ one.reshape(basis.shape[1], -1)[:, data.kept] for one in found.effects])
    half = linalg.solve_triangular(point.chol, effects.T, lower=True)
    return np.asarray(products - half.T @ half)


def trace_products(point: ObservedFamilyPoint) -> Array:
    """``tr(P∂V P∂'V)`` for every two directions, by ML with V⁻¹ for P: (2N, 2N)."""
    data, basis = point.data, _basis(point.axes)
    pairs = list(zip(data.groups, point.inverses, strict=True))
    restricted = point.reml and data.kept.size > 0
    Hinv = point.effects_inverse if restricted else None
    products = sum_of(
        group.trace_products(inverse, None if Hinv is None else group.leverage(inverse, Hinv))
        for group, inverse in pairs
    )
    found = _between(basis, products)
    p, c = data.ntraits, data.ncovariates
    if not restricted or data.nsamples * float(p * p * c) ** 2 > EFFECT_PRODUCTS:
        return found
    of_effects = sum_of(group.effect_products(inverse) for group, inverse in pairs)
    seen = of_effects.transpose(0, 1, 4, 2, 3, 5, 6).reshape(2, p * p, (p * c) ** 2)
    half = []
    for one in np.concatenate([basis @ part for part in seen]):
        H = one.reshape(p * c, p * c)[np.ix_(data.kept, data.kept)]
        left = linalg.solve_triangular(point.chol, H, lower=True)
        half.append(linalg.solve_triangular(point.chol, left.T, lower=True).ravel())
    flat = np.stack(half)
    return np.asarray(found + flat @ flat.T)


def _basis(axes: TraitAxes) -> Array:
    """Changes of C0 or C1 by the entries of E0 or E1 of every pair of axes: (N, p²)."""
    E = directions(axes.c0.size)
    return np.asarray((axes.Tinv @ E @ axes.Tinv.T).reshape(len(E), -1))


def _between(basis: Array, products: Array) -> Array:
    """From products for changes of C0, of C0 and C1, and of C1 to those of all directions: (2N, 2N)."""
    size = basis.shape[1]
    first, mixed, second = (basis @ one.reshape(size, size) @ basis.T for one in products)
    return np.block([[first, mixed], [mixed.T, second]])


def fixed_effects(point: ObservedFamilyPoint) -> tuple[Array, Array]:
    """Covariates' effects (c, p) as they were given, and their covariance (pc, pc), those on a trait side by side."""
    data = point.data
    p, c = data.ntraits, data.ncovariates
    B = data.B_taken + np.einsum("jab,bj->aj", data.to_X, point.B)
    covariance = np.einsum("jab,jbkd,ked->jake", data.to_X, point.effects_inverse, data.to_X, optimize=True)
    return B, covariance.reshape(p * c, p * c)


def effect_errors(point: ObservedFamilyPoint, covariance: Array) -> Array:
    """Standard errors (c, p) of the effects of `fixed_effects`; NaN where they are left out."""
    data = point.data
    errors = np.sqrt(np.maximum(np.diag(covariance), 0.0)).reshape(data.ntraits, data.ncovariates).T
    return np.where(data.left_out, np.nan, errors)
