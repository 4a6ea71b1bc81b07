"""The maximum of the likelihood over C0 ⪰ 0 (of bounded rank) and C1 ⪰ 0: where climbs start, and which is kept.

With few samples for each trait a likelihood can have several maxima, most of them where some combinations of the traits
have no residual variance. Starts from corners are near such maxima, and starts pushed to a face from a maximum already
found are near those beside it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise

import numpy as np
from scipy import linalg

from kron2sum_cli.errors import ConvergenceError, NumericalError
from kron2sum_cli.model import climbing
from kron2sum_cli.model.climbing import BOUNDARY, Likelihood, Optimum, PointT
from kron2sum_cli.model.contrasts import Contrasts
from kron2sum_cli.model.families.likelihood import FamilyTraits
from kron2sum_cli.model.information import full_grams
from kron2sum_cli.model.likelihood import Point, covariates_singular, evaluate
from kron2sum_cli.model.spectrum import Array
from kron2sum_cli.model.trait_axes import TraitAxes, axes_of_factors
from kron2sum_cli.model.trust_region import Curvature, ObservedRows

SAME_OPTIMUM = 1e-6
"""Climbs that end less than this apart in log-likelihood have found the same optimum."""

MAX_STEPS = 500
"""Largest number of steps of a climb."""

SMALLEST_C1 = 1e-6
"""Smallest c1 of a climb where the likelihood grows without bound as C1 becomes singular."""

NO_MAXIMUM = (
    "the likelihood has no maximum: it grows without bound as C1 becomes singular where GGᵀ is singular, too. Leave out"
    " one of each pair of samples with the same genotypes, and samples without any"
)

UNDER_ML = "; under ML, use a relationship matrix that is not centred on the analysed samples, or REML"
"""What else may give a likelihood a maximum that has none (`NO_MAXIMUM`), unless it is that of REML."""

DETERMINED = (
    "the likelihood has no maximum: a trait, or a combination of traits, is a linear combination of the covariates and"
    " the columns of G, such as a trait that one variant of the relationship matrix determines. Make the matrix of more"
    " variants than samples, or without that variant, or leave the trait out"
)


NO_CONVERGENCE = "the search of the null model's maximum did not converge"

Fit = Optimum[Point]
"""A fit of traits without missing cells."""

Rows = Contrasts | FamilyTraits
"""Complete traits in rows that are independent."""

GENETIC_SHARES = (0.5, 0.1, 0.9)
"""Genetic shares of variance from which climbs start; the first alone where a climb is not `CHEAP`."""

CHEAP = 1_000_000
"""Rows times squared traits up to which a fit climbs from all starts."""

FEW_ROWS = 30
"""Contrasts of each trait below which a fit climbs from corners and from pushed starts, too."""

MOST_CORNER_AXES = 8
"""Largest number of axes that are nearly all genetic in a start from a corner."""

CORNER_SHARES = (0.99, 0.3)
"""Genetic shares of those axes, and of the others."""

CORNER_WEIGHTS = (0.9, 0.99)
"""Genetic shares for which rows are weighted to find such axes."""

PUSHED_SHARE = 0.9999
"""Genetic share of an axis that is pushed to where it has no residual variance."""


@dataclass(frozen=True)
class CompleteLikelihood(Likelihood[Point]):
    """The likelihood of traits without missing cells, to climb."""

    data: Contrasts

    @property
    def ncells(self) -> int:
        """Number of contrasts of all traits."""
        return self.data.nrows * self.data.ntraits

    @cached_property
    def floor(self) -> float:
        """Smallest c1 that a climb may reach: above 0 where the likelihood has no maximum."""
        return 0.0 if bounded(self.data, self.reml) else SMALLEST_C1

    @property
    def may_lose_C1(self) -> bool:
        """Whether an axis may have no residual variance at all: GGᵀ is regular on the contrasts."""
        return bool(self.data.noutside == 0 and self.data.s.min(initial=np.inf) > 0)

    def evaluate(self, axes: TraitAxes) -> Point:
        """The likelihood at one point."""
        return evaluate(self.data, axes, self.reml)

    def curvature(self, point: Point) -> Curvature:
        """The expected and the observed information of pairs of axes, and the exact Hessian."""
        grams = full_grams(point)
        rows = ObservedRows(self.data.s, point.alpha, point.W)
        return Curvature(grams, rows, partial(point.curvature, grams))


def climb(data: Contrasts, start: TraitAxes, rank: int, reml: bool) -> Fit:
    """Climb from ``start`` to an optimum with C0 of at most this rank; its certificate says whether it got there."""
    return climbing.climb(CompleteLikelihood(data, reml), start, rank, MAX_STEPS)


def climb_near(data: Contrasts, start: TraitAxes, rank: int, reml: bool) -> Fit:
    """The optimum reached from that of similar data; where several are likely the one of a search if that is higher."""
    found = climb(data, start, rank, reml)
    several = has_few_rows(data) and is_cheap(data)
    return higher_of(found, partial(fit, data, rank, reml)) if several else found


def higher_of(found: Optimum[PointT], search: Callable[[], Optimum[PointT]]) -> Optimum[PointT]:
    """A certified optimum, or that of a search where it is higher; one that is not certified is not searched for."""
    if not found.certificate.certified:
        return found
    try:
        searched = search()
    except ConvergenceError:
        return found
    return searched if searched.point.lml > found.point.lml + SAME_OPTIMUM else found


def bounded(data: Contrasts, reml: bool) -> bool:
    """Whether the likelihood has a maximum.

    Where GGᵀ has null directions in which some combination of the traits is 0, a C1 without variance in that
    combination makes the density infinite: with fewer null directions than traits (two samples with the same
    genotypes are one) there always is such a combination. Under ML the same holds for any combination where the null
    directions lie in the span of the covariates (a matrix centred on the analysed samples).
    """
    null = data.s <= 0
    singular = bool(data.noutside) or bool(null.any()) or (not reml and covariates_singular(data))
    if not singular:
        return True
    basis = linalg.qr(data.residuals, mode="economic")[0]
    return int(np.linalg.matrix_rank(basis[null], tol=SMALLEST_C1)) == data.ntraits


def fit(data: Contrasts, rank: int, reml: bool) -> Fit:
    """Maximise over C0 of at most this rank; see `fits`."""
    return fits(data, [rank], reml)[0]


def fits(data: Contrasts, ranks: Sequence[int], reml: bool) -> list[Fit]:
    """Maximise over C0 of at most each of these ranks.

    Small problems can have several optima, and there a search is cheap: it is then made from several starts and the
    best is kept. A fit of lower rank starts from those of full rank, truncated. Raises ConvergenceError where no
    optimum could be certified; its result is the best point found.
    """
    cheap = is_cheap(data)
    thorough = may_have_several_maxima(data, reml)
    starts = even_starts(data) if cheap else [starting_axes(data, GENETIC_SHARES[0])]
    far = far_starts(data, max(ranks)) if thorough else []
    of_full_rank = distinct([climb(data, start, data.ntraits, reml) for start in starts + far])

    def search(rank: int) -> Fit:
        if rank == data.ntraits:
            return _best_of(data, of_full_rank, reml, thorough)
        places = [f.point.axes for f in of_full_rank] + starts[:1] * cheap
        places += far_starts(data, rank) if thorough else []
        return _best_of(data, [climb(data, place, rank, reml) for place in places], reml, thorough)

    return nested_fits(ranks, data.mean_eigenvalue, partial(climb, data, reml=reml), search)


def nested_fits(
    ranks: Sequence[int],
    tau: float,
    climb_from: Callable[[TraitAxes, int], Optimum[PointT]],
    search: Callable[[int], Optimum[PointT]],
) -> list[Optimum[PointT]]:
    """The fits of several ranks of which one is to be chosen, each at least as high as those of lower ranks.

    A maximum whose C0 is of lower rank than it might be is that of the ranks between, too; where a lower rank has the
    higher likelihood, a higher one climbs on from there. Two kinds of ranks below the largest are left out: those that
    cannot have the smallest one-sided AIC, and those without a certified optimum.

    ``tau`` is the mean eigenvalue of GGᵀ. ``climb_from`` gives the optimum of a rank that is reached from given axes,
    ``search`` the best one that a search finds. Raises ConvergenceError as ``search`` does for the largest rank.
    """
    found: dict[int, Optimum[PointT]] = {}
    higher: Optimum[PointT] | None = None
    for rank in sorted(set(ranks), reverse=True):
        if higher and higher.least_aic(rank) >= min(fitted.one_sided_aic for fitted in found.values()):
            continue
        try:
            higher = found[rank] = _within(higher, rank, tau, climb_from) or search(rank)
        except ConvergenceError:
            if higher is None:
                raise
    for lower, rank in pairwise(sorted(found)):
        if found[lower].point.lml > found[rank].point.lml + SAME_OPTIMUM:
            better = climb_from(found[lower].point.axes, rank)
            found[rank] = better if better.certificate.certified else found[rank]
    return [found[rank] for rank in ranks if rank in found]


def _within(
    higher: Optimum[PointT] | None, rank: int, tau: float, climb_from: Callable[[TraitAxes, int], Optimum[PointT]]
) -> Optimum[PointT] | None:
    """The maximum of a higher rank where it is one of this rank, too; else None."""
    if higher is None or np.any(tau * higher.point.axes.c0[rank:] ** 2 >= BOUNDARY):
        return None
    same = climb_from(higher.point.axes, rank)
    is_same = same.certificate.certified and same.point.lml > higher.point.lml - SAME_OPTIMUM
    return same if is_same else None


def of_rank_or_full(rank: int, ntraits: int, climb_of_rank: Callable[[int], Optimum[PointT]]) -> Optimum[PointT]:
    """The certified optimum of a rank, or of full rank where one-sided AIC prefers it, as ``--rank auto`` chooses."""
    return min((certified(climb_of_rank(k)) for k in sorted({rank, ntraits})), key=lambda found: found.one_sided_aic)


def certified(found: Optimum[PointT]) -> Optimum[PointT]:
    """What the search of a null model's maximum found; raises ConvergenceError where that is not certified."""
    if not found.certificate.certified:
        raise ConvergenceError(NO_CONVERGENCE)
    return found


def distinct_maxima(
    starts: Sequence[TraitAxes], climb_from: Callable[[TraitAxes], Optimum[PointT]]
) -> list[Optimum[PointT]]:
    """The null model's maxima that climbs from starts end at, one of each log-likelihood, the highest first.

    Raises ConvergenceError where no climb ends at a maximum.
    """
    found: list[Optimum[PointT]] = []
    for axes in starts:
        try:
            found.append(certified(climb_from(axes)))
        except (ConvergenceError, NumericalError, np.linalg.LinAlgError):
            continue
    if not found:
        raise ConvergenceError(NO_CONVERGENCE)
    return sorted(distinct(found), key=lambda fit: -fit.point.lml)


def _best_of(data: Contrasts, found: list[Fit], reml: bool, thorough: bool) -> Fit:
    """The highest of several fits, or, if ``thorough``, of those that places beside it lead to.

    Without a global maximum a search that runs away is no rival of one that ends at a local maximum.
    """
    has_maximum = bounded(data, reml)
    certified = [f for f in found if f.certificate.certified]
    best = max(found if has_maximum else certified or found, key=lambda f: f.point.lml)
    if thorough:
        beside = partial(pushed_axes, rank=best.rank, tau=data.mean_eigenvalue)
        best = best_around(best, beside, partial(climb, data, rank=best.rank, reml=reml))
    if not best.certificate.certified:
        raise ConvergenceError(
            best.certificate.complaint(best.point.lml) if has_maximum else _no_maximum(data, reml), best
        )
    return best


def _no_maximum(data: Contrasts, reml: bool) -> str:
    """Why the likelihood is not `bounded`.

    As many null directions as traits are enough, unless some combination of the traits is 0 in all of them.
    """
    if data.noutside + np.count_nonzero(data.s <= 0) >= data.ntraits:
        return DETERMINED
    return NO_MAXIMUM if reml else NO_MAXIMUM + UNDER_ML


def best_around(
    best: Optimum[PointT],
    places_beside: Callable[[TraitAxes], Sequence[TraitAxes]],
    climb_from: Callable[[TraitAxes], Optimum[PointT]],
) -> Optimum[PointT]:
    """The best fit that climbs from places beside it lead to, repeated until none is better."""
    while True:
        better = best
        for start in places_beside(best.point.axes):
            try:
                found = climb_from(start)
            except (NumericalError, np.linalg.LinAlgError):
                continue
            if found.certificate.certified and found.point.lml > better.point.lml + SAME_OPTIMUM:
                better = found
        if better is best:
            return best
        best = better


def distinct(fits: Sequence[Optimum[PointT]]) -> list[Optimum[PointT]]:
    """Fits with different log-likelihoods, certified ones first."""
    kept: list[Optimum[PointT]] = []
    for found in sorted(fits, key=lambda f: not f.certificate.certified):
        if all(abs(found.point.lml - other.point.lml) > SAME_OPTIMUM for other in kept):
            kept.append(found)
    return kept


def even_starts(data: Rows) -> list[TraitAxes]:
    """Starts with all shares of genetic variance, the same of every trait."""
    return [starting_axes(data, share) for share in GENETIC_SHARES]


def starting_axes(data: Rows, share: float) -> TraitAxes:
    """Axes whose τC0 is this share of the covariance of the contrasts, and whose C1 is the rest.

    Raises NumericalError where traits are linear combinations of each other or GGᵀ is zero on the contrasts.
    """
    if data.mean_eigenvalue <= 0:
        raise NumericalError(
            "the relationship matrix is zero given the covariates: C0 cannot be estimated; use another matrix, or"
            " --grm none"
        )
    return _shared(data, _root_of_covariance(data), share)


def is_cheap(data: Rows) -> bool:
    """Whether a fit can afford several climbs."""
    return bool(data.Z.shape[0] * data.ntraits**2 <= CHEAP)


def has_few_rows(data: Rows) -> bool:
    """Whether there are so few samples for each of several traits that several maxima are likely."""
    return data.ntraits > 1 and data.nrows < FEW_ROWS * data.ntraits


def may_have_several_maxima(data: Contrasts, reml: bool) -> bool:
    """Whether the likelihood of so few samples may have several maxima, and it is cheap to look for them."""
    return is_cheap(data) and has_few_rows(data) and bounded(data, reml)


def far_starts(data: Contrasts, rank: int) -> list[TraitAxes]:
    """Starts with some axes, or all, nearly all genetic."""
    p = data.ntraits
    corners = [start for weight in CORNER_WEIGHTS for start in corner_axes(data, min(rank, p - 1), weight)]
    return [starting_axes(data, CORNER_SHARES[0]), *corners]


def corner_axes(data: Contrasts, largest: int, weight: float) -> list[TraitAxes]:
    """Starts with 1 to ``largest`` axes nearly all genetic.

    Such axes vary little in rows of small eigenvalues s. They are those in which both the covariance of the contrasts
    and ``Zᵀ diag(1 / (1 - h + h s/τ)) Z``, h the weight, are diagonal, in the order of the latter.
    """
    root = _root_of_covariance(data)
    scaled = linalg.solve_triangular(root, data.residuals.T, lower=True)
    variances = 1 - weight + weight * data.s / data.mean_eigenvalue
    loadings = root @ linalg.eigh((scaled / variances) @ scaled.T)[1]
    counts = range(1, min(largest, MOST_CORNER_AXES) + 1)
    return [_shared(data, loadings, np.where(np.arange(data.ntraits) < k, *CORNER_SHARES)) for k in counts]


def pushed_axes(axes: TraitAxes, rank: int, tau: float) -> list[TraitAxes]:
    """Starts beside an optimum: each axis that may have genetic variance, in turn, has almost no other."""
    order = np.arange(axes.c0.size)
    starts = []
    for k in np.flatnonzero(tau * axes.c0[: min(rank, MOST_CORNER_AXES)] ** 2 < PUSHED_SHARE):
        c0 = np.where(order == k, np.sqrt(PUSHED_SHARE / tau), axes.c0)
        c1 = np.where(order == k, np.sqrt(1 - PUSHED_SHARE), axes.c1)
        starts.append(axes_of_factors(axes.Tinv * c0, axes.Tinv * c1, tau))
    return starts


def _shared(data: Rows, loadings: Array, shares: Array | float) -> TraitAxes:
    """Axes with these genetic shares, of all or of each; loadings (p, p) of the axes scaled to variance 1."""
    tau = data.mean_eigenvalue
    return axes_of_factors(loadings * np.sqrt(shares / tau), loadings * np.sqrt(1 - shares), tau)


def _root_of_covariance(data: Rows) -> Array:
    """Lower triangular L (p, p) with ``LLᵀ`` the covariance of the contrasts."""
    return np.asarray(linalg.qr(data.residuals, mode="r")[0][: data.ntraits].T / np.sqrt(data.nrows))
