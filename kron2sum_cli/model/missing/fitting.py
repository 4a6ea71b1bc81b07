"""The maximum of the likelihood of the observed cells over C0 and C1.

The search is that of complete data (`model.fitting`), on the score of the observed cells and their average
information; where that predicts badly (on a face of bounded rank), on the observed information. It starts from the fit
of the traits with missing cells filled in by means, corrected for what that takes away: with o_a the share of samples
that have trait a and o_ab of those that have both, filling in means leaves about ``o_a o_b C0_ab`` of C0 and
``o_ab C1_ab + (o_ab - o_a o_b) ḡ C0_ab`` of C1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
from scipy import linalg

from kron2sum_cli.errors import ConvergenceError, NumericalError
from kron2sum_cli.model import fitting
from kron2sum_cli.model.fitting import Certificate
from kron2sum_cli.model.likelihood import Point
from kron2sum_cli.model.missing.information import affordable, information
from kron2sum_cli.model.missing.likelihood import ObservedPoint, evaluate
from kron2sum_cli.model.missing.observed import ObservedCells
from kron2sum_cli.model.spectrum import Array
from kron2sum_cli.model.trait_axes import TraitAxes, axes_of_covariances

CHEAP = 2e8
"""Multiplications of one likelihood up to which a search is made from all starts."""

SINGULAR_C1 = 1e-6
"""A search that ends below this residual share of variance, where GGᵀ has null directions, ran off to a singular C1."""

NO_MAXIMUM = (
    "C1 tends to a singular matrix, and GGᵀ is singular, too: the likelihood has no maximum, or one where it cannot be"
    " evaluated. Leave out one of each pair of samples with the same genotypes, and traits observed on few samples;"
    " under ML, use a relationship matrix that is not centred on the analysed samples, or REML"
)

MAX_STEPS = 150

NARROW = 0.1
"""A trust region narrower than this, of 1 for a step to which the likelihood is just not indifferent, asks for the
observed information."""

LEAST_SHARE = 0.02
"""Smallest share of variance, genetic and residual, of any combination of traits in a corrected start."""


@dataclass(frozen=True)
class ObservedFit:
    """A fitted model: the point, the largest rank of C0 allowed, and the certificate of the optimum.

    The gains of the certificate are predicted by the average information, or the observed one where a search used it.
    """

    point: ObservedPoint
    rank: int
    certificate: Certificate


@dataclass(frozen=True)
class _ObservedChart(fitting._Chart):
    """A chart with the curvature given as a matrix.

    Attributes
    ----------
    information : (2N, 2N) minus the second derivatives in the entries of (E0, E1)
    """

    information: Array

    def hessian_product(self, point: Point, grams: tuple[Array, Array, Array], x: Array) -> Array:
        """Hessian of the log-likelihood times x."""
        P, N = self.split(x)
        i, j = np.tril_indices(self.axes.c0.size)
        steps = np.concatenate([E[i, j] for E in self.directions(P, N)])
        change = -np.where(i == j, 1.0, 0.5) * (self.information @ steps).reshape(2, -1)
        d = np.zeros((2, *P.shape))
        d[:, i, j] = d[:, j, i] = change
        return self.join(2 * (d[0] * self.axes.c0 + point.score0 @ P), 2 * (d[1] * self.axes.c1 + point.score1 @ N))


class _Search(fitting._Search):
    """The climb of complete data with the likelihood of the observed cells in the place of theirs."""

    def __init__(self, cells: ObservedCells, start: TraitAxes, rank: int, reml: bool) -> None:
        self.cells, self.data, self.rank, self.reml = cells, cells.filled, rank, reml
        self.tau = self.data.mean_eigenvalue
        self.floor = fitting.FLOOR if cells.singular else 0.0
        self.steps, self.evaluations = 0, 1
        self.exact = False
        self.point = self._evaluate(start.truncated(rank))
        self.widen()

    def _evaluate(self, axes: TraitAxes) -> Point:
        return cast(Point, evaluate(self.cells, axes, self.reml))

    def plan(self) -> fitting._Plan:
        """The local model at the point reached."""
        point = cast(ObservedPoint, self.point)
        self.exact = self.exact or (self.radius < NARROW and affordable(point))
        chart = fitting._Chart(point.axes, self.tau, self.rank)
        if self.exact:
            chart = _ObservedChart(point.axes, self.tau, self.rank, information(point))
        grams = point.grams()
        return fitting._Plan(chart, grams, fitting._preconditioner(chart, self.point, grams))

    def attempt(self, axes: Callable[[], TraitAxes]) -> Point | None:
        """The likelihood at these axes, None where it is not defined."""
        self.evaluations += 1
        try:
            reached = axes()
            if reached.c1.min() < self.floor:
                return None
            point = self._evaluate(reached)
        except (NumericalError, np.linalg.LinAlgError):
            return None
        return point if np.isfinite(point.lml) else None


def climb(data: ObservedCells, start: TraitAxes, rank: int, reml: bool) -> ObservedFit:
    """Climb from ``start`` to an optimum with C0 of at most this rank; its certificate says whether it got there."""
    search = _Search(data, start, rank, reml)
    while search.steps < MAX_STEPS and search.radius > 1e-9:
        plan = search.plan()
        step = fitting._trust_region_step(plan, search.point, search.radius)
        if step.predicted > fitting.GAIN_TOLERANCE or (step.at_edge and search.radius < 1e-3):
            search.newton(plan, step)
            search.snap()
        elif not search.snap():
            certificate = fitting._certificate(search, plan, step.predicted)
            if certificate.cone_gain <= fitting.GAIN_TOLERANCE or not search.enter_cone(plan):
                return _result(search, certificate)
        search.steps += 1
    plan = search.plan()
    predicted = fitting._trust_region_step(plan, search.point, np.inf).predicted
    return _result(search, fitting._certificate(search, plan, predicted))


def _result(search: _Search, certificate: Certificate) -> ObservedFit:
    return ObservedFit(cast(ObservedPoint, search.point), search.rank, certificate)


def corrected_start(data: ObservedCells, filled: TraitAxes) -> TraitAxes:
    """The axes of a fit of the filled traits, corrected for the filling."""
    observed = data.observed().astype(float)
    both = observed.T @ observed / data.nsamples
    product = np.multiply.outer(np.diag(both), np.diag(both))
    both = np.maximum(both, 1 / data.nsamples)
    tau = data.filled.mean_eigenvalue
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


def fit(data: ObservedCells, rank: int, reml: bool) -> ObservedFit:
    """Maximise over C0 of at most this rank.

    Cheap problems are searched from further starts, too, and the best is kept. A fit of lower rank starts from the one
    of full rank, truncated.

    Raises
    ------
    ConvergenceError
        Where no optimum could be certified; its result is the best point found.
    """
    p = data.ntraits
    fits = [climb(data, start, p, reml) for start in _starts(data, reml)]
    if rank < p:
        fits = [climb(data, found.point.axes, rank, reml) for found in fits]
    # Where the likelihood may have no maximum a search that runs away is no rival of one that ends at a local one.
    certified = [found for found in fits if found.certificate.certified] if data.singular else []
    best = max(certified or fits, key=lambda found: found.point.lml)
    if not best.certificate.certified:
        raise ConvergenceError(_complaint(best), best)
    return best


def _starts(data: ObservedCells, reml: bool) -> list[TraitAxes]:
    filled = fitting.climb(data.filled, fitting.starting_axes(data.filled, fitting.SHARES[0]), data.ntraits, reml)
    starts = [corrected_start(data, filled.point.axes)]
    size = data.ncells + data.A.shape[1] * data.X.shape[1]
    if size**2 * (data.U.shape[1] + size) <= CHEAP:
        starts += [fitting.starting_axes(data.filled, share) for share in fitting.SHARES]
    return starts


def _complaint(fit: ObservedFit) -> str:
    certificate = fit.certificate
    if fit.point.data.singular and certificate.smallest_C1 < SINGULAR_C1:
        return NO_MAXIMUM
    return (
        f"the null model did not converge: after {certificate.steps} steps the log-likelihood is {fit.point.lml:.6f},"
        f" and a gain of {max(certificate.predicted_gain, certificate.cone_gain):.3g} is still predicted"
    )
