"""Exact refits: C0 and C1 free again with a variant in the model, for many variants at once.

With a variant's effects ``A1 γ`` in the model the maximum likelihood of (C0, C1) is close to the null model's, so
Fisher scoring in the trait axes of every variant (one 2 × 2 system a pair of axes) converges in a few steps. Rows enter
through their moments alone: a step costs the same whatever the number of samples. Where C0 has lost rank a step stays
on that face of the cone, unless the score points into it. What does not converge that way is left to the search that
fits null models.
"""

from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.contrasts import Contrasts, CoupledDesign
from kron2sum_cli.model.fitting import BOUNDARY, Fit, climb
from kron2sum_cli.model.likelihood import LOG2PI
from kron2sum_cli.model.row_moments import RowMoments, VariantMoments, row_moments
from kron2sum_cli.model.spectrum import Array
from kron2sum_cli.model.trait_axes import TraitAxes

GAIN_TOLERANCE = 1e-7
"""A refit ends when the next step is predicted to add no more than this to the log-likelihood."""

MAX_STEPS = 40
SHORTEST = 1e-3
"""A refit whose steps must be shorter than this share of a scoring step is left to the search of null models."""

RESIDUAL_ROOM = 0.1
"""Refits may lower the smallest ratio of residual to genetic variance of the null model by this factor."""

BATCH_BYTES = 1 << 19
"""Size of the largest array of a batch of variants: several of them should stay in a core's own cache."""


@dataclass(frozen=True)
class Refit:
    """Maximum likelihood with the variant in the model, for b variants.

    Attributes
    ----------
    lml : (b,) log-likelihood; NaN where the refit did not converge
    beta : (b, p) effects on the traits
    se : (b, p) their standard errors
    """

    lml: Array
    beta: Array
    se: Array


@dataclass(frozen=True)
class _State:
    """One (C0, C1) a variant, in its trait axes: ``T C0 Tᵀ = diag(d0)``, ``T C1 Tᵀ = diag(d1)``, ``τ d0 + d1 = 1``."""

    T: Array
    d0: Array
    d1: Array


@dataclass(frozen=True)
class _Points:
    """The likelihood at one state a variant, the next step (E0, E1) and its predicted gain, γ (b, e) and H (b, e, e)."""

    lml: Array
    E0: Array
    E1: Array
    predicted: Array
    gamma: Array
    information: Array


@dataclass(frozen=True)
class _Problem:
    """What the refits of a block have in common."""

    moments: RowMoments
    null: Fit
    design: Array

    @property
    def data(self) -> Contrasts:
        return self.moments.data


Record = TypeVar("Record", _State, _Points, VariantMoments)


def _take(record: Record, which: NDArray[np.intp]) -> Record:
    return replace(record, **{f.name: getattr(record, f.name)[which] for f in fields(record)})


def _put(record: Record, which: NDArray[np.intp], other: Record) -> None:
    for f in fields(record):
        getattr(record, f.name)[which] = getattr(other, f.name)


def refit(data: Contrasts, null: Fit, variants: Array, design: Array, outside: Array | None = None) -> Refit:
    """Refit with effects in the span of ``design``.

    Parameters
    ----------
    data : rotated traits, covariates projected out
    null : the maximum likelihood (not restricted) fit without the variant
    variants : (m, b) rotated variants, ``VᵀG``
    design : (p, e), full column rank
    outside : (b,) squared lengths of the variants outside V and the covariates; needed where ``data.nsilent`` is not 0

    Returns
    -------
    Log-likelihoods by ML and the effects; NaN for a variant whose refit did not converge, and for one of length 0.

    Raises
    ------
    ValueError
        Where ``outside`` is missing, the null model has covariates that are not projected out, or it is restricted.
    """
    if data.design is not None or null.point.reml:
        raise ValueError("refits need a null model by maximum likelihood with an invertible trait design A")
    if outside is None:
        if data.nsilent:
            raise ValueError("GGᵀ has null directions outside V: refits need the variants' squared lengths there")
        outside = np.zeros(variants.shape[1])
    p = data.ntraits
    problem = _Problem(row_moments(data, _smallest_ratio(data, null)), null, design)
    present = np.flatnonzero(np.einsum("ib,ib->b", variants, variants) + outside > 0)
    size = max(8, BATCH_BYTES // (8 * p * p * problem.moments.nodes.size))
    found = Refit(*(np.full((variants.shape[1], *shape), np.nan) for shape in ((), (p,), (p,))))
    for k in range(0, present.size, size):
        batch = present[k : k + size]
        part = _refit_batch(problem, variants[:, batch], outside[batch])
        for name in ("lml", "beta", "se"):
            getattr(found, name)[batch] = getattr(part, name)
    return found


def _smallest_ratio(data: Contrasts, null: Fit) -> float:
    """The smallest d1/d0 that refits may reach."""
    genetic, residual = null.point.axes.c0**2, null.point.axes.c1**2
    tau = data.mean_eigenvalue
    ratio = float(np.min(np.maximum(residual, BOUNDARY) / np.maximum(genetic, BOUNDARY)))
    return RESIDUAL_ROOM * min(ratio, tau)


def _refit_batch(problem: _Problem, variants: Array, outside: Array) -> Refit:
    design = problem.design
    state, points = _climb(problem, problem.moments.of_variants(variants, outside))
    beta = points.gamma @ design.T
    half = np.linalg.solve(np.linalg.cholesky(points.information), design.T)
    found = Refit(points.lml, beta, np.sqrt(np.sum(half**2, axis=1)))
    for k in np.flatnonzero(~(points.predicted <= GAIN_TOLERANCE)):
        axes = _axes(_take(state, k))
        found.lml[k], found.beta[k], found.se[k] = _one(problem, axes, variants[:, k], outside[k])
    return found


def _climb(problem: _Problem, variants: VariantMoments) -> tuple[_State, _Points]:
    """Climb from the null model to the optimum of every variant; the predicted gain tells which got there."""
    state = _initial(problem.null.point.axes, variants.square.shape[0])
    points = _evaluate(problem, state, variants)
    if problem.null.certificate.active_C1:
        points.predicted[:] = np.inf
        return state, points
    length = np.ones(points.lml.size)
    for _ in range(MAX_STEPS):
        rising = np.flatnonzero((points.predicted > GAIN_TOLERANCE) & (length > SHORTEST))
        if not rising.size:
            break
        trial, valid = _move(problem, _take(state, rising), _take(points, rising), length[rising])
        length[rising[~valid]] *= 0.5
        tried, trial = rising[valid], _take(trial, np.flatnonzero(valid))
        reached = _evaluate(problem, trial, _take(variants, tried))
        higher = reached.lml >= points.lml[tried] - 1e-12 * np.abs(points.lml[tried])
        length[tried] = np.where(higher, 1.0, 0.5 * length[tried])
        won = np.flatnonzero(higher)
        _put(state, tried[won], _take(trial, won))
        _put(points, tried[won], _take(reached, won))
    return state, points


def _initial(axes: TraitAxes, b: int) -> _State:
    return _State(*(np.repeat(M[None], b, axis=0) for M in (axes.T, axes.c0**2, axes.c1**2)))


def _axes(state: _State) -> TraitAxes:
    """The axes of a single state."""
    order = np.argsort(-state.d0)
    T = state.T[order]
    return TraitAxes(T, np.linalg.inv(T), np.sqrt(state.d0[order]), np.sqrt(state.d1[order]))


def _evaluate(problem: _Problem, state: _State, variants: VariantMoments) -> _Points:
    """Log-likelihood, scoring step and effects at one state a variant."""
    moments, data = problem.moments, problem.data
    sigma, counts, p = moments.nodes, moments.counts, data.ntraits
    variances = state.d0[:, :, None] * sigma + state.d1[:, :, None]
    W = 1 / variances
    R, gamma, information = _residual_moments(problem, state, variants, W)
    WW = W[:, :, None] * W[:, None, :]
    Q = WW @ (counts * np.array([sigma**2, sigma, np.ones_like(sigma)])).T
    R *= WW
    outer = R @ np.array([sigma, np.ones_like(sigma)]).T
    trace0, trace1, logdet = W @ (sigma * counts), W @ counts, np.log(variances) @ counts
    if data.ncovariates:
        extra, extra0, extra1 = _mean_terms(moments, state, W)
        logdet, trace0, trace1 = logdet + extra, trace0 + extra0, trace1 + extra1
    ...
