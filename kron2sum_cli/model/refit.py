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
    state = _initial(problem.null.point.axes, problem.data.mean_eigenvalue, variants.square.shape[0])
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


def _initial(axes: TraitAxes, tau: float, b: int) -> _State:
    h = tau * axes.c0**2
    h = np.where(h < BOUNDARY, 0.0, h)
    return _State(*(np.repeat(M[None], b, axis=0) for M in (axes.T, h / tau, 1 - h)))


def _axes(state: _State) -> TraitAxes:
    """The axes of a single state."""
    order = np.argsort(-state.d0)
    T = state.T[order]
    return TraitAxes(T, np.linalg.inv(T), np.sqrt(state.d0[order]), np.sqrt(state.d1[order]))


def _evaluate(problem: _Problem, state: _State, variants: VariantMoments) -> _Points:
    """Log-likelihood, scoring step and effects at one state a variant."""
    moments, data = problem.moments, problem.data
    b, p = state.d0.shape
    sigma, counts, ones = moments.nodes, moments.counts, np.ones_like(moments.nodes)
    variances = state.d0[:, :, None] * sigma + state.d1[:, :, None]
    W = 1 / variances
    R, gamma, information = _residual_moments(problem, state, variants, W)
    WW = W[:, :, None] * W[:, None, :]
    Q = (WW.reshape(-1, sigma.size) @ (counts * [sigma**2, sigma, ones]).T).reshape(b, p, p, 3)
    R *= WW
    outer = (R.reshape(-1, sigma.size) @ np.array([sigma, ones]).T).reshape(b, p, p, 2)
    trace0, trace1, logdet = W @ (sigma * counts), W @ counts, (np.log(variances) @ counts).sum(axis=1)
    if data.ncovariates:
        extra, extra0, extra1 = _mean_terms(moments, state, W)
        logdet, trace0, trace1 = logdet + extra, trace0 + extra0, trace1 + extra1
    logdet -= 2 * data.nsamples * np.linalg.slogdet(state.T)[1]
    # rᵀK⁻¹r = αᵀKα, and K is s d0 + d1.
    quadratic = np.einsum("bj,bjj->b", state.d0, outer[..., 0]) + np.einsum("bj,bjj->b", state.d1, outer[..., 1])
    lml = -0.5 * (data.nsamples * p * LOG2PI + logdet + quadratic)
    S0, S1 = 0.5 * (outer[..., 0] - _diagonal(trace0)), 0.5 * (outer[..., 1] - _diagonal(trace1))
    E0, E1, predicted = _step(state, (S0, S1), Q, problem.null.rank)
    return _Points(lml, E0, E1, predicted, gamma, information)


def _residual_moments(
    problem: _Problem, state: _State, variants: VariantMoments, W: Array
) -> tuple[Array, Array, Array]:
    """Moments (b, p, p, K) of pairs of axes less the effects, the effects γ (b, e), and their information (b, e, e)."""
    (b, p), T, traits = state.d0.shape, state.T, problem.moments.traits
    cross = T @ variants.cross
    D = T @ problem.design
    v = (W @ variants.square[:, :, None])[:, :, 0]
    information = D.transpose(0, 2, 1) @ (v[:, :, None] * D)
    u = np.einsum("bjk,bjk->bj", W, cross)
    gamma = np.linalg.solve(information, D.transpose(0, 2, 1) @ u[:, :, None])
    effects = D @ gamma
    cross -= 0.5 * effects * variants.square[:, None, :]
    half = (T.reshape(b * p, p) @ traits.reshape(p, -1)).reshape(b, p, p, -1)
    R = T[:, None] @ half
    explained = effects[:, :, :, None] * cross[:, None]
    R -= explained
    R -= explained.transpose(0, 2, 1, 3)
    return R, gamma[:, :, 0], information


def _diagonal(values: Array) -> Array:
    return np.asarray(values[:, :, None] * np.eye(values.shape[1]))


def _step(state: _State, scores: tuple[Array, Array], Q: Array, rank: int) -> tuple[Array, Array, Array]:
    """The next scoring step (E0, E1) and its predicted gain, on the face of C0 or, if that gains more, off it."""
    E0, E1, predicted = _scoring_step(*scores, Q)
    empty = state.d0 == 0
    on_face = np.flatnonzero(empty.any(axis=1))
    if not on_face.size:
        return E0, E1, predicted
    S0, S1, Q, d0, empty = scores[0][on_face], scores[1][on_face], Q[on_face], state.d0[on_face], empty[on_face]
    face0, face1, within = _scoring_step_on_face(S0, S1, Q, d0)
    off = _gain_off_face(S0, Q, empty)
    room = np.count_nonzero(~empty, axis=1) < rank
    stay = ~(room & (off > np.maximum(within, GAIN_TOLERANCE)))
    kept = on_face[stay]
    E0[kept], E1[kept], predicted[kept] = face0[stay], face1[stay], within[stay]
    return E0, E1, predicted


def _scoring_step(S0: Array, S1: Array, Q: Array) -> tuple[Array, Array, Array]:
    """Solve ``½ [Q2 Q1; Q1 Q0] (E0, E1) = (S0, S1)`` for every pair of axes; ``½(<S0, E0> + <S1, E1>)``."""
    Q2, Q1, Q0 = Q[..., 0], Q[..., 1], Q[..., 2]
    det = np.maximum(Q2 * Q0 - Q1**2, 1e-12 * Q2 * Q0)
    E0, E1 = 2 * (Q0 * S0 - Q1 * S1) / det, 2 * (Q2 * S1 - Q1 * S0) / det
    return E0, E1, 0.5 * (np.sum(S0 * E0, axis=(1, 2)) + np.sum(S1 * E1, axis=(1, 2)))


def _scoring_step_on_face(S0: Array, S1: Array, Q: Array, d0: Array) -> tuple[Array, Array, Array]:
    """The step with pairs of empty axes held at 0 in C0; the curvature of the face adds to the information."""
    empty = d0 == 0
    held = empty[:, :, None] & empty[:, None, :]
    out = np.maximum(-np.einsum("bii->bi", S0), 0)
    bend = np.where(empty, 0.0, 2 / np.where(empty, 1.0, d0))[:, :, None] * np.where(empty, out, 0.0)[:, None, :]
    Q = Q.copy()
    Q[..., 0] += bend + bend.transpose(0, 2, 1)
    Q[..., 1][held] = 0.0
    return _scoring_step(np.where(held, 0.0, S0), S1, Q)


def _gain_off_face(S0: Array, Q: Array, empty: Array) -> Array:
    """What the best step ``t vvᵀ`` from the face into the cone of C0 is predicted to gain."""
    held = empty[:, :, None] & empty[:, None, :]
    values, vectors = np.linalg.eigh(np.where(held, S0, 0.0))
    slope, squares = np.maximum(values[:, -1], 0.0), vectors[:, :, -1] ** 2
    return np.asarray(slope**2 / np.einsum("bi,bij,bj->b", squares, Q[..., 0], squares))


def _mean_terms(moments: RowMoments, state: _State, W: Array) -> tuple[Array, Array, Array]:
    """Log determinant of the projected covariates' conditional covariance and its derivatives, a variant."""
    (b, p), c = state.d0.shape, moments.data.ncovariates
    Kxx, a, d1 = moments.data.Kxx, state.d0[..., None, None], state.d1[..., None, None]

    def weighted(weights: Array) -> Array:
        return np.asarray((weights @ moments.covariates.T).reshape(b, p, c, c))

    KWK = weighted(W)
    S = a * Kxx + d1 * np.eye(c) - a**2 * KWK
    inverse = np.linalg.inv(S)
    dS0 = Kxx - 2 * a * KWK + a**2 * weighted(moments.nodes * W**2)
    dS1 = np.eye(c) + a**2 * weighted(W**2)
    return (
        np.linalg.slogdet(S)[1].sum(axis=1),
        np.einsum("bjcd,bjdc->bj", inverse, dS0),
        np.einsum("bjcd,bjdc->bj", inverse, dS1),
    )


def _move(problem: _Problem, state: _State, points: _Points, length: Array) -> tuple[_State, NDArray[np.bool_]]:
    """The states after a step, and which of them are inside the cone of C1; C0 is put on the nearest face."""
    tau, p = problem.data.mean_eigenvalue, problem.data.ntraits
    A0 = _diagonal(state.d0) + length[:, None, None] * points.E0
    A1 = _diagonal(state.d1) + length[:, None, None] * points.E1
    if np.any(state.d0 == 0):
        A0 += _bend(A0, state.d0 == 0)
    sizes, Q = np.linalg.eigh(tau * A0 + A1)
    valid = sizes[:, 0] > 1e-8 * sizes[:, -1]
    half = Q / np.sqrt(np.where(valid[:, None], sizes, 1.0))[:, None, :]
    h, R = np.linalg.eigh(half.transpose(0, 2, 1) @ (tau * A0) @ half)
    h[:, : p - problem.null.rank] = 0.0
    h = np.where(h < BOUNDARY, 0.0, h)
    valid &= (1 - h[:, -1]) * tau >= problem.moments.smallest_ratio * h[:, -1]
    return _State((half @ R).transpose(0, 2, 1) @ state.T, h / tau, 1 - h), valid


def _bend(A0: Array, empty: Array) -> Array:
    """What keeps the rank of C0 in a step along its face: ``BᵀA⁻¹B`` between empty axes, A and B between the others."""
    full = ~empty
    A = np.where(full[:, :, None] & full[:, None, :], A0, np.eye(A0.shape[1]))
    B = np.where(full[:, :, None] & empty[:, None, :], A0, 0.0)
    return np.asarray(B.transpose(0, 2, 1) @ np.linalg.solve(A, B))


def _one(problem: _Problem, start: TraitAxes, variant: Array, outside: float) -> tuple[float, Array, Array]:
    """Refit one variant by the search of null models."""
    data, design = problem.data, problem.design
    nothing = np.full(data.ntraits, np.nan)
    alternative = _with_variant(data, variant, outside, design)
    try:
        fitted = climb(alternative, start, problem.null.rank, False)
    except (NumericalError, np.linalg.LinAlgError):
        return np.nan, nothing, nothing
    coupled = fitted.point.coupled
    if not fitted.certificate.certified or coupled is None:
        return np.nan, nothing, nothing
    half = np.linalg.solve(coupled.chol, design.T)
    return fitted.point.lml, design @ coupled.beta[0], np.sqrt(np.sum(half**2, axis=0))


def _with_variant(data: Contrasts, variant: Array, outside: float, design: Array) -> Contrasts:
    """The data with the variant as a coupled fixed effect; what it has outside V is one more row."""
    if not data.nsilent:
        return replace(data, design=CoupledDesign(design, variant[:, None], 0.0))
    rows = np.append(variant, np.sqrt(outside))
    return replace(
        data,
        Z=np.vstack([data.Z, np.zeros((1, data.ntraits))]),
        s=np.append(data.s, 0.0),
        nsilent=data.nsilent - 1,
        Kxm=np.hstack([data.Kxm, np.zeros((data.ncovariates, 1))]),
        design=CoupledDesign(design, rows[:, None], 0.0),
    )
