"""The maximum of the likelihood over C0 ⪰ 0 (of bounded rank) and C1 ⪰ 0: where climbs start, and which is kept."""

from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import linalg

from kron2sum_cli.errors import ConvergenceError
from kron2sum_cli.model import climbing
from kron2sum_cli.model.certificate import Certificate
from kron2sum_cli.model.contrasts import Contrasts
from kron2sum_cli.model.information import full_grams
from kron2sum_cli.model.likelihood import Point, covariates_singular, evaluate
from kron2sum_cli.model.starts import (
    SHARES,
    far_starts,
    has_few_rows,
    is_cheap,
    pushed_axes,
    starting_axes,
    without_covariates,
)
from kron2sum_cli.model.trait_axes import TraitAxes
from kron2sum_cli.model.trust_region import Curvature, ObservedRows

SAME = 1e-6
"""Searches that end less than this apart in log-likelihood have found the same optimum."""

MAX_STEPS = 500

FLOOR = 1e-6
"""Smallest c1 of a search where the likelihood grows without bound as C1 becomes singular."""

NO_MAXIMUM = (
    "the likelihood has no maximum: it grows without bound as C1 becomes singular where GGᵀ is singular, too. Leave out"
    " one of each pair of samples with the same genotypes; under ML, use a relationship matrix that is not centred on"
    " the analysed samples, or REML"
)


@dataclass(frozen=True)
class Fit:
    """A fitted model: the point, its rank, and its certificate."""

    point: Point
    rank: int
    certificate: Certificate


@dataclass(frozen=True)
class CompleteLikelihood:
    """The likelihood of traits without missing cells, to climb.

    Attributes
    ----------
    data : what it is the likelihood of
    reml : restricted or not
    floor : smallest c1 that a climb may reach
    """

    data: Contrasts
    reml: bool
    floor: float

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
        return may_lose_C1(self.data)

    def evaluate(self, axes: TraitAxes) -> Point:
        """The likelihood at one point."""
        return evaluate(self.data, axes, self.reml)

    def curvature(self, point: Point, mispredicted: bool) -> Curvature:
        """The expected and the observed information of pairs of axes, and the exact Hessian."""
        grams = full_grams(point)
        rows = ObservedRows(self.data.s, point.alpha, point.W)
        return Curvature(grams, rows, partial(point.curvature, grams))


def may_lose_C1(data: Contrasts) -> bool:
    """Whether GGᵀ is regular on the contrasts, so that the likelihood is defined for a singular C1."""
    return bool(data.nsilent == 0 and data.s.min(initial=np.inf) > 0)


def climb(data: Contrasts, start: TraitAxes, rank: int, reml: bool) -> Fit:
    """Climb from ``start`` to an optimum with C0 of at most this rank; its certificate says whether it got there."""
    likelihood = CompleteLikelihood(data, reml, 0.0 if bounded(data, reml) else FLOOR)
    summit = climbing.climb(likelihood, start, rank, MAX_STEPS)
    return Fit(summit.point, rank, summit.certificate)


def bounded(data: Contrasts, reml: bool) -> bool:
    """Whether the likelihood has a maximum.

    Where GGᵀ has null directions in which some combination of the traits is 0, a C1 without variance in that
    combination makes the density infinite: with fewer null directions than traits (two samples with the same
    genotypes are one) there always is such a combination. Under ML the same holds for any combination where the null
    directions lie in the span of the covariates (a matrix centred on the analysed samples).
    """
    null = data.s <= 0
    singular = bool(data.nsilent) or bool(null.any()) or (not reml and covariates_singular(data))
    if not singular:
        return True
    residual = without_covariates(data)
    basis = linalg.qr(residual, mode="economic")[0]
    return int(np.linalg.matrix_rank(basis[null], tol=FLOOR)) == data.ntraits


def fit(data: Contrasts, rank: int, reml: bool) -> Fit:
    """Maximise over C0 of at most this rank.

    Small problems can have several optima, and there a search is cheap: it is then made from several starts and the
    best is kept. A fit of lower rank starts from those of full rank, truncated.
    """
    p, has_maximum, cheap = data.ntraits, bounded(data, reml), is_cheap(data)
    thorough = cheap and has_maximum and has_few_rows(data)
    starts = [starting_axes(data, share) for share in (SHARES if cheap else SHARES[:1])]
    far = far_starts(data, rank) if thorough else []
    fits = _distinct([climb(data, start, p, reml) for start in starts + far])
    if rank < p:
        starts = [f.point.axes for f in fits] + starts[:1] * cheap + far
        fits = [climb(data, start, rank, reml) for start in starts]
    # Without a global maximum a search that runs away is no rival of one that ends at a local maximum.
    certified = [f for f in fits if f.certificate.certified]
    best = max(fits if has_maximum else certified or fits, key=lambda f: f.point.lml)
    if thorough:
        best = _best_around(data, best, reml)
    if not best.certificate.certified:
        raise ConvergenceError(best.certificate.complaint(best.point.lml) if has_maximum else NO_MAXIMUM, best)
    return best


def _best_around(data: Contrasts, best: Fit, reml: bool) -> Fit:
    """The best of a fit and those that climbs from the faces beside it lead to, until there is none better."""
    while True:
        beside = [climb(data, start, best.rank, reml) for start in pushed_axes(data, best.point.axes, best.rank)]
        better = max(beside, key=lambda f: f.point.lml, default=best)
        if better.point.lml <= best.point.lml + SAME:
            return best
        best = better


def _distinct(fits: list[Fit]) -> list[Fit]:
    """Fits with different log-likelihoods, certified ones first."""
    kept: list[Fit] = []
    for found in sorted(fits, key=lambda f: not f.certificate.certified):
        if all(abs(found.point.lml - other.point.lml) > SAME for other in kept):
            kept.append(found)
    return kept
