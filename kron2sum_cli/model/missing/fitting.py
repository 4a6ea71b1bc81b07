"""The maximum of the likelihood of the observed cells over C0 and C1.

The search is that of complete data (`model.fitting`), on the score of the observed cells and their average information.
Where that predicts badly (on a face of bounded rank, or where much is left that a trait design does not explain), what
the observed information has beside it is added, and found anew where it predicts badly again. The search starts from
the fit of the traits with missing cells filled in by means, corrected for what that takes away: with o_a the share of
samples that have trait a and o_ab of those that have both, filling in means leaves about ``o_a o_b C0_ab`` of C0 and
``o_ab C1_ab + (o_ab - o_a o_b) ḡ C0_ab`` of C1.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Self

import numpy as np
from scipy import linalg

from kron2sum_cli.errors import ConvergenceError, NumericalError, VanishingCombinationError
from kron2sum_cli.model import climbing, fitting
from kron2sum_cli.model.climbing import CERTIFIED_GAIN, Likelihood, Optimum, PointT
from kron2sum_cli.model.fitting import (
    FEW_ROWS,
    GENETIC_SHARES,
    MOST_CORNER_AXES,
    best_around,
    distinct,
    even_starts,
    has_few_rows,
    nested_fits,
    pushed_axes,
    starting_axes,
)
from kron2sum_cli.model.information import lower_triangle, symmetric
from kron2sum_cli.model.missing.information import (
    affordable,
    entries_of_products,
    lacking_information,
    uses_observed_information,
)
from kron2sum_cli.model.missing.likelihood import ObservedPoint, evaluate
from kron2sum_cli.model.missing.observed import ObservedCells, PartlyObserved
from kron2sum_cli.model.spectrum import Array, Mask
from kron2sum_cli.model.trait_axes import TraitAxes, axes_of_covariances
from kron2sum_cli.model.trust_region import Correction, Curvature, ScoreChange

CHEAP_LIKELIHOOD = 2e8
"""Largest number of multiplications of one likelihood for which a fit climbs from all starts."""

CHEAP_SEARCH = 3e7
"""The same for a fit of many samples with few cells, which then searches beside its optimum, too."""

SINGULAR_C1 = 1e-6
"""A climb that ends below this residual share of variance, where GGᵀ has null directions, has no maximum."""

NO_MAXIMUM = (
    "C1 tends to a singular matrix, and GGᵀ is singular, too: the likelihood has no maximum, or one where it cannot be"
    " evaluated. Leave out one of each pair of samples with the same genotypes, samples without any, and traits"
    " observed on few samples"
)

VANISHING_SHARE = 1e-5
"""A combination of traits in which a climb without a certified end left less than this share of their variance, genetic
and residual together, has none: as it is lost in ever smaller parts, few steps come nearer."""

SLOWLY_VANISHING_SHARE = 1e-4
"""The same where fewer samples than traits have all traits of the combination, so that there is one that can vanish: a
climb whose likelihood grows by ever less on the way to 0 may end its steps as far from there."""

LEAST_WEIGHT = 1e-2
"""Smallest weight of a trait in such a combination that makes it a part of it, where the squares add up to 1."""

NO_VARIANCE = (
    "the likelihood has no maximum, or one where it cannot be evaluated: too few samples ({}) have all of traits %s,"
    " and it grows as a combination of these traits loses all variance, genetic and residual. Leave out one of them, or"
    " covariates"
)

MAX_STEPS = 150

UNEVEN_SHARES = (0.9, 0.1)
"""Genetic shares of variance of one trait and of all others, or the reverse, in starts where these differ."""

INSIDE_SHARE = 0.02
"""By which share of their variance covariances of traits are taken off the boundary of the cone."""

DOUBLE_BYTES = 8
"""A number in double precision."""

LEAST_SHARE = 0.02
"""Smallest share of variance, genetic and residual, of any combination of traits in a corrected start."""


ObservedFit = Optimum[ObservedPoint]
"""A fit of the observed cells. The gains in its certificate are predicted by the average information, or by the
observed one where a search used it."""


@dataclass(frozen=True)
class LikelihoodOfCells(Likelihood[PointT]):
    """A likelihood of observed cells, to climb by the average information.

    ``correction`` is what the observed information adds to it, where that was found at a point near by.
    """

    data: PartlyObserved
    correction: Correction | None = field(default=None, kw_only=True)

    @property
    def floor(self) -> float:
        """Smallest c1 that a climb may reach: above 0 where GGᵀ has null directions."""
        return float(np.sqrt(CERTIFIED_GAIN / (2 * self.ncells))) if self.data.singular else 0.0

    @property
    def may_lose_C1(self) -> bool:
        """Whether an axis may have no residual variance at all."""
        return not self.data.singular

    @abstractmethod
    def average(self, point: PointT) -> ScoreChange:
        """Change of the scores at a point by the average information."""

    @abstractmethod
    def lacking(self, point: PointT) -> Array | None:
        """What the observed information of (E0, E1) adds to the average one, (2N, 2N); None if that costs too much."""

    def curvature(self, point: PointT) -> Curvature:
        """The average information, and what the observed one adds to it."""
        change = self.average(point)
        if self.correction is not None:
            change = self.correction.added_to(change, point.axes)
        return Curvature(point.grams, None, change)

    def corrected(self, point: PointT) -> Self:
        """With what the observed information adds to the average one at this point, where that is affordable."""
        lacking = self.lacking(point)
        if lacking is None:
            return self
        return replace(self, correction=Correction(point.axes, partial(change_of_scores, lacking)))


@dataclass(frozen=True)
class ObservedLikelihood(LikelihoodOfCells[ObservedPoint]):
    """The likelihood of the observed cells, with a dense relationship matrix."""

    data: ObservedCells

    @property
    def ncells(self) -> int:
        """Number of contrasts of all traits, those of missing cells included."""
        return self.data.filled.nrows * self.data.ntraits

    def evaluate(self, axes: TraitAxes) -> ObservedPoint:
        """The likelihood at one point."""
        return evaluate(self.data, axes, self.reml)

    def average(self, point: ObservedPoint) -> ScoreChange:
        """See `LikelihoodOfCells.average`."""
        return point.curvature

    def lacking(self, point: ObservedPoint) -> Array | None:
        """See `LikelihoodOfCells.lacking`."""
        return lacking_information(point) if affordable(point) else None


def change_of_scores(of_directions: Array, E0: Array, E1: Array) -> tuple[Array, Array]:
    """Change of (score0, score1) for a small step, by the information (2N, 2N) of the entries of (E0, E1)."""
    steps = np.concatenate([lower_triangle(E0), lower_triangle(E1)])
    d0, d1 = symmetric((of_directions @ steps).reshape(2, -1))
    half = np.where(np.eye(len(E0)) == 1, -1.0, -0.5)
    return half * d0, half * d1


def climb(data: ObservedCells, start: TraitAxes, rank: int, reml: bool) -> ObservedFit:
    """Climb from ``start`` to an optimum with C0 of at most this rank; its certificate says whether it got there."""
    return climbing.climb(ObservedLikelihood(data, reml), start, rank, MAX_STEPS)


def corrected_start(data: PartlyObserved, filled: TraitAxes) -> TraitAxes:
    """The axes of a fit of the filled traits, corrected for the filling."""
    observed = data.observed().astype(float)
    both = observed.T @ observed / data.nsamples
    product = np.multiply.outer(np.diag(both), np.diag(both))
    both = np.maximum(both, 1 / data.nsamples)
    tau = data.mean_eigenvalue
    C0 = filled.C0 / product
    C1 = (filled.C1 - (both - product) * tau * C0) / both
    size = np.sqrt(tau * np.diag(C0) + np.diag(C1))
    scale = np.multiply.outer(size, size)
    C0, C1 = _floored(tau * C0 / scale) / tau, _floored(C1 / scale)
    return axes_of_covariances(C0 * scale, C1 * scale, tau)


def _floored(C: Array) -> Array:
    """C (p, p) with eigenvalues of at least `LEAST_SHARE`."""
    values, vectors = linalg.eigh(C)
    return np.asarray((vectors * np.maximum(values, LEAST_SHARE)) @ vectors.T)


def climb_near(data: ObservedCells, start: TraitAxes, rank: int, reml: bool) -> ObservedFit:
    """The optimum reached from the optimum of similar data, and where few cells were observed from beside it, too."""
    climb_from = partial(climb, data, rank=rank, reml=reml)
    found = climb_from(start)
    return best_beside(found, data, climb_from) if is_searched_beside(data) else found


def fit(data: ObservedCells, rank: int, reml: bool) -> ObservedFit:
    """Maximise over C0 of at most this rank; see `fits`."""
    return fits(data, [rank], reml)[0]


def fits(data: ObservedCells, ranks: Sequence[int], reml: bool) -> list[ObservedFit]:
    """Maximise over C0 of at most each of these ranks.

    Cheap problems are searched from further starts, too, and the best is kept. A fit of lower rank starts from those of
    full rank, truncated, and from the first of their starts. Raises ConvergenceError where no optimum could be
    certified; its result is the best point found.
    """
    climb_from, starts = partial(climb, data, reml=reml), _starts(data, reml)
    of_full_rank = climbs(starts, partial(climb_from, rank=data.ntraits))
    places = [one.point.axes for one in distinct(of_full_rank)] + starts[:1]
    return fits_of_cells(data, ranks, climb_from, of_full_rank, places, is_searched_thoroughly(data))


def fits_of_cells(
    data: PartlyObserved,
    ranks: Sequence[int],
    climb_from: Callable[[TraitAxes, int], Optimum[PointT]],
    of_full_rank: Sequence[Optimum[PointT]],
    places: Sequence[TraitAxes],
    beside: bool,
) -> list[Optimum[PointT]]:
    """The best of each rank (`best_of`, `fitting.nested_fits`): of lower ranks those that climbs from places lead to.

    If ``beside``, climbs also start from beside the best.
    """

    def search(rank: int) -> Optimum[PointT]:
        def climb_of_rank(start: TraitAxes) -> Optimum[PointT]:
            return climb_from(start, rank)

        best = best_of(climbs(places, climb_of_rank) if rank < of_full_rank[0].rank else of_full_rank, data)
        return best_beside(best, data, climb_of_rank) if beside else best

    return nested_fits(ranks, data.mean_eigenvalue, climb_from, search)


def is_searched_thoroughly(data: ObservedCells) -> bool:
    """Whether several maxima are likely, and climbs are cheap."""
    ncontrasts = data.filled.nrows * data.ntraits - data.ncells
    largest = CHEAP_LIKELIHOOD if has_few_rows(data.filled) else CHEAP_SEARCH
    return has_few_cells(ncontrasts, data.ntraits) and is_cheap(data, largest)


def has_few_cells(ncontrasts: int, ntraits: int) -> bool:
    """Whether so few contrasts of cells of each of several traits were observed that several maxima are likely."""
    return ntraits > 1 and ncontrasts < FEW_ROWS * ntraits**2


def has_few_common_samples(data: PartlyObserved) -> bool:
    """Whether so few samples have both of some two traits that these may not say which sign a correlation has."""
    observed = data.observed().astype(float)
    return bool((observed.T @ observed).min() < FEW_ROWS)


def is_searched_beside(data: ObservedCells) -> bool:
    """Whether a search from a maximum of similar data, such as that of a refit, also starts from beside its end."""
    return is_searched_thoroughly(data) and has_few_common_samples(data)


def best_beside(
    best: Optimum[PointT], data: PartlyObserved, climb_from: Callable[[TraitAxes], Optimum[PointT]]
) -> Optimum[PointT]:
    """The best fit that climbs from `places_beside` it lead to, repeated until none is better."""
    return best_around(best, partial(places_beside, data, rank=best.rank), climb_from)


def places_beside(data: PartlyObserved, axes: TraitAxes, rank: int) -> list[TraitAxes]:
    """Starts at the faces of the boundary, and where a trait's residual covariances have the other sign.

    Where some two traits have few samples in common also where their heritabilities differ.
    """
    tau = data.mean_eigenvalue
    uneven = uneven_axes(axes, tau) if has_few_common_samples(data) else []
    return [*pushed_axes(axes, rank, tau), *reflected_axes(axes, tau), *uneven]


def uneven_axes(axes: TraitAxes, tau: float) -> list[TraitAxes]:
    """Starts with the total covariance of an optimum: each trait in turn is the most, or the least, heritable one.

    Without many samples that have both of two traits the likelihood hardly joins what each says of its heritability.
    """
    p = axes.c0.size
    total = tau * axes.C0 + axes.C1
    total = (1 - INSIDE_SHARE) * total + INSIDE_SHARE * np.diag(np.diag(total))
    starts = []
    for k in range(1 if p == 2 else min(p, MOST_CORNER_AXES)):
        for own, others in (UNEVEN_SHARES, UNEVEN_SHARES[::-1]):
            shares = np.where(np.arange(p) == k, own, others)
            C0, C1 = (np.sqrt(np.multiply.outer(h, h)) * total for h in (shares, 1 - shares))
            starts.append(axes_of_covariances(C0 / tau, C1, tau))
    return starts


def reflected_axes(axes: TraitAxes, tau: float) -> list[TraitAxes]:
    """Starts across from an optimum: the residual covariances of each trait in turn have the other sign.

    Few samples that have both of two traits may say that their residuals are strongly correlated, and not which way.
    The starts are a little inside the boundary.
    """
    p = axes.c0.size
    total = np.diag(np.diag(tau * axes.C0 + axes.C1))
    C0, C1 = ((1 - INSIDE_SHARE) * C + INSIDE_SHARE * np.diag(np.diag(C)) for C in (axes.C0, axes.C1))
    starts = []
    for k in range(1 if p == 2 else min(p, MOST_CORNER_AXES)):
        signs = np.where(np.arange(p) == k, -1.0, 1.0)
        reflected = np.multiply.outer(signs, signs) * C1
        starts.append(axes_of_covariances(C0 + INSIDE_SHARE / tau * total, reflected + INSIDE_SHARE * total, tau))
    return starts


def climbs(starts: Sequence[TraitAxes], climb_from: Callable[[TraitAxes], Optimum[PointT]]) -> list[Optimum[PointT]]:
    """Climbs from starts at which the likelihood is defined; where a search of higher rank ran away to it need not be.

    Raises NumericalError where it is defined at none of them.
    """
    fits: list[Optimum[PointT]] = []
    reason: NumericalError | None = None
    for start in starts:
        try:
            fits.append(climb_from(start))
        except NumericalError as error:
            reason = error
    if reason is not None and not fits:
        raise reason
    return fits


def best_of(fits: Sequence[Optimum[PointT]], data: PartlyObserved) -> Optimum[PointT]:
    """The highest of fits; one that runs away where the likelihood has no maximum is no rival of a local maximum.

    Raises ConvergenceError where it is not certified.
    """
    rivals = [
        found
        for found in fits
        if found.certificate.certified or not (data.singular or vanishing_combination(found.point.axes).any())
    ]
    best = max(rivals or fits, key=lambda found: found.point.lml)
    if not best.certificate.certified:
        raise _complaint(best, data)
    return best


def _complaint(best: Optimum[PointT], data: PartlyObserved) -> ConvergenceError:
    """Why there is no certified optimum."""
    parts = vanishing_combination(best.point.axes, SLOWLY_VANISHING_SHARE)
    count = int(np.count_nonzero(data.observed()[:, parts].all(axis=1)))
    if count < np.count_nonzero(parts) or vanishing_combination(best.point.axes).any():
        return VanishingCombinationError(NO_VARIANCE.format(count), tuple(map(int, np.flatnonzero(parts))), best)
    if data.singular and best.certificate.smallest_C1 < SINGULAR_C1:
        return ConvergenceError(NO_MAXIMUM if best.point.reml else NO_MAXIMUM + fitting.UNDER_ML, best)
    return ConvergenceError(best.certificate.complaint(best.point.lml), best)


def vanishing_combination(axes: TraitAxes, share: float = VANISHING_SHARE) -> Mask:
    """The traits (p,) of the combination with less than this share of variance, genetic and residual; none without one.

    Where k traits have all been observed on fewer than k + c samples (c covariates), some combination of them is a
    combination of the covariates in all of these samples. As its variance tends to 0 the density tends to infinity: the
    likelihood has no maximum, if often a local one.
    """
    total = axes.Tinv @ axes.Tinv.T
    size = np.sqrt(np.diag(total))
    shares, combinations = linalg.eigh(total / np.multiply.outer(size, size))
    return np.asarray((np.abs(combinations[:, 0]) > LEAST_WEIGHT) & (shares[0] < share))


def is_cheap(data: ObservedCells, largest: float = CHEAP_LIKELIHOOD) -> bool:
    """Whether a likelihood takes so few multiplications that a fit can afford several climbs."""
    size = data.ncells + data.A.shape[1] * data.X.shape[1]
    return bool(size**2 * (data.U.shape[1] + size) <= largest)


def _starts(data: ObservedCells, reml: bool) -> list[TraitAxes]:
    filled = fitting.climb(data.filled, starting_axes(data.filled, GENETIC_SHARES[0]), data.ntraits, reml)
    starts = [corrected_start(data, filled.point.axes)]
    return starts + even_starts(data.filled) if is_cheap(data) else starts


@dataclass(frozen=True)
class MissingCost:
    """The size of a problem with missing cells.

    - ``ncells``, ``nrows``: missing cells, q, and samples with one.
    - ``fit_bytes``: memory of the fit beyond that of complete traits.
    - ``likelihood_flops``: floating point operations of one likelihood and its gradient.
    - ``scan_ratio``: operations of the scan of a variant, as a multiple of its rotation.
    """

    ncells: int
    nrows: int
    fit_bytes: int
    likelihood_flops: float
    scan_ratio: float


def missing_cost(missing: Mask, ncovariates: int, rank: int) -> MissingCost:
    """The cost for a pattern of missing cells (n, p), this many covariates, and GGᵀ of at most this rank."""
    n, p = missing.shape
    m = min(n, rank + ncovariates + p)
    q, rows = int(missing.sum()), int(missing.any(axis=1).sum())
    size = q + p * ncovariates
    largest = int(missing.sum(axis=0).max(initial=0))
    inside_and_outside = m if m == n else m + rows
    products, columns = 0, 0
    if uses_observed_information(p, n, size):
        products, columns = entries_of_products(p, inside_and_outside, size), 2 * p + 2
    matrices = 4 * size**2 + products + (q + 2 * largest + columns * size) * m + (p * p + 6 * p) * m
    pairs = float(np.sum(np.multiply.outer(missing.sum(axis=0), missing.sum(axis=0)))) * m
    return MissingCost(
        ncells=q,
        nrows=rows,
        fit_bytes=DOUBLE_BYTES * matrices,
        likelihood_flops=3 * pairs + float(size) ** 3,
        scan_ratio=1 + p * (rows + ncovariates) / n + 0.6 * p * size**2 / (n * m),
    )
