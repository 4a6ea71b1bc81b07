"""Exact refits: C0 and C1 free again with a variant in the model, for many variants at once.

With a variant's effects ``A1 γ`` in the model the maximum likelihood of (C0, C1) is close to the null model's, and so is
the curvature there. Newton steps with the information of the null model, one matrix for all variants, then converge
in a few steps. Rows enter through their moments alone: a step costs the same whatever the number of samples.

A variant's (C0, C1) is held as ``N`` and ``A`` with ``N (τ C0 + C1) Nᵀ = I`` and ``N τ C0 Nᵀ = A``, starting in the
axes of the null model. N changes by triangular factors close to I, so that the information of the null model stays
the right one, and the axes that C0 leaves empty stay the last ones: a step is one along that face of the cone. What
does not converge that way (the optimum lies on another face, or far away) is left to the search of null models.
"""

from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.contrasts import Contrasts, CoupledDesign
from kron2sum_cli.model.fitting import BOUNDARY, CERTIFIED_GAIN, Fit, climb
from kron2sum_cli.model.information import DirectionCovariance, direction_covariance
from kron2sum_cli.model.likelihood import LOG2PI
from kron2sum_cli.model.row_moments import RowMoments, VariantMoments, row_moments
from kron2sum_cli.model.spectrum import Array
from kron2sum_cli.model.trait_axes import TraitAxes

GAIN_TOLERANCE = 1e-7
"""A refit ends when the next step is predicted to add no more than this to the log-likelihood."""

MAX_STEPS = 40
SHORTEST = 1e-2
"""A refit that can only take a smaller share than this of a step is left to the search of null models."""

RESIDUAL_ROOM = 0.1
"""Refits may lower the smallest ratio of residual to genetic variance of the null model by this factor."""

BATCH_BYTES = 1 << 19
"""Size of the largest array of a batch of variants: several of them should stay in a core's own cache."""

Indices = NDArray[np.intp]


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
    """One (C0, C1) a variant: N and A (b, p, p)."""

    N: Array
    A: Array


@dataclass(frozen=True)
class _Points:
    """The likelihood at one state a variant.

    Attributes
    ----------
    lml : (b,)
    E0, E1 : (b, p, p) the next step, of A and I - A
    predicted : (b,) what it is predicted to add to the likelihood
    off_face : (b,) what the best step off the face of C0 is predicted to add
    gamma : (b, e) effects
    information : (b, e, e) of the effects
    """

    lml: Array
    E0: Array
    E1: Array
    predicted: Array
    off_face: Array
    gamma: Array
    information: Array


Record = TypeVar("Record", _State, _Points, VariantMoments)


def _take(record: Record, which: Indices) -> Record:
    return replace(record, **{f.name: getattr(record, f.name)[which] for f in fields(record)})


def _put(record: Record, which: Indices, other: Record) -> None:
    for f in fields(record):
        getattr(record, f.name)[which] = getattr(other, f.name)


@dataclass(frozen=True)
class Refitter:
    """What the refits under one null model have in common.

    Attributes
    ----------
    data : rotated traits, covariates projected out
    null : the maximum likelihood (not restricted) fit without a variant
    moments : of the rows, traits in the axes of the null model
    metric : inverse information of the null model in its axes
    empty : number of axes that C0 leaves empty, the last ones
    """

    data: Contrasts
    null: Fit
    moments: RowMoments
    metric: DirectionCovariance
    empty: int

    def refit(self, variants: Array, design: Array, outside: Array | None = None) -> Refit:
        """Refit with effects in the span of ``design``.

        Parameters
        ----------
        variants : (m, b) rotated variants, ``VᵀG``
        design : (p, e), full column rank
        outside : (b,) squared lengths of the variants outside V and the covariates; needed where rows are silent

        Returns
        -------
        Log-likelihoods by ML and the effects; NaN for a variant whose refit did not converge, and for one of length 0.

        Raises
        ------
        ValueError
            Where ``outside`` is needed and missing.
        """
        p, b = self.data.ntraits, variants.shape[1]
        if outside is None:
            if self.data.nsilent:
                raise ValueError("GGᵀ has null directions outside V: refits need the variants' squared lengths there")
            outside = np.zeros(b)
        present = np.flatnonzero(np.einsum("ib,ib->b", variants, variants) + outside > 0)
        size = max(8, BATCH_BYTES // (8 * p * p * self.moments.nodes.size))
        found = Refit(np.full(b, np.nan), np.full((b, p), np.nan), np.full((b, p), np.nan))
        for k in range(0, present.size, size):
            batch = present[k : k + size]
            part = _refit_batch(self, variants[:, batch], outside[batch], design)
            found.lml[batch], found.beta[batch], found.se[batch] = part.lml, part.beta, part.se
        return found


def refitter(data: Contrasts, null: Fit) -> Refitter:
    """Prepare refits under a null model.

    Raises
    ------
    ValueError
        Where the null model is restricted or has covariates that are not projected out.
    """
    if data.design is not None or null.point.reml:
        raise ValueError("refits need a null model by maximum likelihood with an invertible trait design A")
    axes, tau = null.point.axes, data.mean_eigenvalue
    genetic, residual = tau * axes.c0**2, np.maximum(axes.c1**2, BOUNDARY)
    ratio = float(np.min(residual / np.maximum(genetic, residual)))
    return Refitter(
        data=data,
        null=null,
        moments=row_moments(replace(data, Z=data.Z @ axes.T.T), RESIDUAL_ROOM * tau * ratio),
        metric=direction_covariance(null.point, null.rank),
        empty=int(np.count_nonzero(genetic < BOUNDARY)),
    )


def refit(data: Contrasts, null: Fit, variants: Array, design: Array, outside: Array | None = None) -> Refit:
    """Refit one block of variants: see `refitter` and `Refitter.refit`."""
    return refitter(data, null).refit(variants, design, outside)


def _refit_batch(fitter: Refitter, variants: Array, outside: Array, design: Array) -> Refit:
    state, points = _climb(fitter, fitter.moments.of_variants(variants, outside), design)
    half = np.linalg.solve(np.linalg.cholesky(points.information), design.T)
    found = Refit(points.lml, points.gamma @ design.T, np.sqrt(np.sum(half**2, axis=1)))
    reached = (points.predicted <= GAIN_TOLERANCE) & (points.off_face <= CERTIFIED_GAIN)
    for k in np.flatnonzero(~reached):
        start = _axes(fitter, state.N[k], state.A[k])
        found.lml[k], found.beta[k], found.se[k] = _one(fitter, start, variants[:, k], outside[k], design)
    return found


def _climb(fitter: Refitter, variants: VariantMoments, design: Array) -> tuple[_State, _Points]:
    """Climb from the null model towards the optimum of every variant."""
    state = _initial(fitter, variants.square.shape[0])
    points, _ = _evaluate(fitter, state, variants, design)
    if fitter.null.certificate.active_C1 or not np.all(np.isfinite(fitter.metric.v11)):
        points.predicted[:] = np.inf
        return state, points
    length = np.ones(points.lml.size)
    for _ in range(MAX_STEPS):
        rising = np.flatnonzero((points.predicted > GAIN_TOLERANCE) & (length > SHORTEST))
        if not rising.size:
            break
        trial, defined = _move(fitter, _take(state, rising), _take(points, rising), length[rising])
        reached, inside = _evaluate(fitter, trial, _take(variants, rising), design)
        higher = defined & inside & (reached.lml >= points.lml[rising] - 1e-12 * np.abs(points.lml[rising]))
        length[rising] = np.where(higher, 1.0, 0.5 * length[rising])
        won = np.flatnonzero(higher)
        _put(state, rising[won], _take(trial, won))
        _put(points, rising[won], _take(reached, won))
    return state, points


def _initial(fitter: Refitter, b: int) -> _State:
    h = fitter.data.mean_eigenvalue * fitter.null.point.axes.c0**2
    h[h.size - fitter.empty :] = 0.0
    return _State(np.repeat(np.eye(h.size)[None], b, axis=0), np.repeat(np.diag(h)[None], b, axis=0))


def _axes(fitter: Refitter, N: Array, A: Array) -> TraitAxes:
    """The axes of one state, in traits."""
    h, R = np.linalg.eigh(A)
    h, R = np.clip(h[::-1], 0.0, 1.0), R[:, ::-1]
    h[h.size - fitter.empty :] = 0.0
    T = R.T @ N @ fitter.null.point.axes.T
    return TraitAxes(T, np.linalg.inv(T), np.sqrt(h / fitter.data.mean_eigenvalue), np.sqrt(1 - h))


def _evaluate(
    fitter: Refitter, state: _State, variants: VariantMoments, design: Array
) -> tuple[_Points, NDArray[np.bool_]]:
    """The likelihood at one state a variant; and whether the state is inside the cones, with room for the moments."""
    moments, data, tau = fitter.moments, fitter.data, fitter.data.mean_eigenvalue
    (b, p), sigma, counts = state.A.shape[:2], moments.nodes, moments.counts
    h, R = np.linalg.eigh(state.A)
    inside = (h[:, fitter.empty :] > BOUNDARY).all(axis=1) & ((1 - h[:, -1]) * tau >= moments.smallest_ratio * h[:, -1])
    h[:, : fitter.empty] = 0.0
    h[~inside] = 0.5
    T = R.transpose(0, 2, 1) @ state.N
    d0, d1 = h / tau, 1 - h
    variances = d0[:, :, None] * sigma + d1[:, :, None]
    W = 1 / variances
    residual, gamma, information = _residual_moments(fitter, T, W, variants, design)
    WW = (W[:, :, None] * W[:, None, :]).reshape(-1, sigma.size)
    weights = np.array([sigma, np.ones_like(sigma)]).T
    alpha = ((WW * residual.reshape(-1, sigma.size)) @ weights).reshape(b, p, p, 2)
    trace0, trace1, logdet = W @ (sigma * counts), W @ counts, (np.log(variances) @ counts).sum(axis=1)
    if data.ncovariates:
        extra, extra0, extra1 = _mean_terms(moments, d0, d1, W)
        logdet, trace0, trace1 = logdet + extra, trace0 + extra0, trace1 + extra1
    logdet -= 2 * data.nsamples * (np.linalg.slogdet(T)[1] + fitter.null.point.axes.logdet_T)
    # rᵀK⁻¹r = αᵀKα, and K is s d0 + d1.
    quadratic = np.einsum("bj,bjj->b", d0, alpha[..., 0]) + np.einsum("bj,bjj->b", d1, alpha[..., 1])
    lml = -0.5 * (data.nsamples * p * LOG2PI + logdet + quadratic)
    S0, S1 = 0.5 * (alpha[..., 0] - _diagonal(trace0)), 0.5 * (alpha[..., 1] - _diagonal(trace1))
    off_face = _gain_off_face(fitter, S0, W)
    E0, E1, predicted = _step(fitter, R @ S0 @ R.transpose(0, 2, 1), R @ S1 @ R.transpose(0, 2, 1))
    return _Points(lml, tau * E0, E1, predicted, off_face, gamma, information), inside


def _residual_moments(
    fitter: Refitter, T: Array, W: Array, variants: VariantMoments, design: Array
) -> tuple[Array, Array, Array]:
    """Moments (b, p, p, K) of pairs of axes less the effects, the effects γ (b, e), and their information (b, e, e)."""
    b, p = W.shape[:2]
    cross = T @ variants.cross
    D = T @ (fitter.null.point.axes.T @ design)
    v = W @ variants.square[:, :, None]
    u = np.einsum("bjk,bjk->bj", W, cross)
    information = D.transpose(0, 2, 1) @ (v * D)
    gamma = np.linalg.solve(information, D.transpose(0, 2, 1) @ u[:, :, None])
    effects = D @ gamma
    cross -= 0.5 * effects * variants.square[:, None, :]
    half = (T.reshape(b * p, p) @ fitter.moments.traits.reshape(p, -1)).reshape(b, p, p, -1)
    residual = T[:, None] @ half
    explained = effects[:, :, :, None] * cross[:, None]
    residual -= explained
    residual -= explained.transpose(0, 2, 1, 3)
    return residual, gamma[:, :, 0], information


def _diagonal(values: Array) -> Array:
    return np.asarray(values[:, :, None] * np.eye(values.shape[1]))


def _step(fitter: Refitter, S0: Array, S1: Array) -> tuple[Array, Array, Array]:
    """The Newton step (E0, E1) for scores (b, p, p), and its predicted gain."""
    p, metric = S0.shape[1], fitter.metric
    i, j = np.tril_indices(p)
    twice = np.where(i == j, 1.0, 2.0)
    g0, g1 = twice * S0[:, i, j], twice * S1[:, i, j]
    if metric.v11.ndim == 1:
        x0, x1 = g0 * metric.v00 + g1 * metric.v01, g0 * metric.v01 + g1 * metric.v11
    else:
        x0, x1 = g0 @ metric.v00 + g1 @ metric.v01.T, g0 @ metric.v01 + g1 @ metric.v11
    E = np.empty((2, *S0.shape))
    E[0][:, i, j] = E[0][:, j, i] = x0
    E[1][:, i, j] = E[1][:, j, i] = x1
    return E[0], E[1], 0.5 * (np.einsum("bn,bn->b", g0, x0) + np.einsum("bn,bn->b", g1, x1))


def _gain_off_face(fitter: Refitter, S0: Array, W: Array) -> Array:
    """What the best step ``t vvᵀ`` from the face into the cone of C0 is predicted to gain; the empty axes come first."""
    q, moments, p = fitter.empty, fitter.moments, S0.shape[1]
    if q == 0 or p - q >= fitter.null.rank:
        return np.zeros(S0.shape[0])
    values, vectors = np.linalg.eigh(S0[:, :q, :q])
    slope, squares = np.maximum(values[:, -1], 0.0), vectors[:, :, -1] ** 2
    weights = (squares[:, None] @ W[:, :q])[:, 0]
    return np.asarray(slope**2 / (weights**2 @ (moments.counts * moments.nodes**2)))


def _mean_terms(moments: RowMoments, d0: Array, d1: Array, W: Array) -> tuple[Array, Array, Array]:
    """Log determinant of the projected covariates' conditional covariance and its derivatives, a variant."""
    (b, p), c = d0.shape, moments.data.ncovariates
    Kxx, a = moments.data.Kxx, d0[..., None, None]

    def weighted(weights: Array) -> Array:
        return np.asarray((weights @ moments.covariates.T).reshape(b, p, c, c))

    KWK = weighted(W)
    S = a * Kxx + d1[..., None, None] * np.eye(c) - a**2 * KWK
    inverse = np.linalg.inv(S)
    dS0 = Kxx - 2 * a * KWK + a**2 * weighted(moments.nodes * W**2)
    dS1 = np.eye(c) + a**2 * weighted(W**2)
    return (
        np.linalg.slogdet(S)[1].sum(axis=1),
        np.einsum("bjcd,bjdc->bj", inverse, dS0),
        np.einsum("bjcd,bjdc->bj", inverse, dS1),
    )


def _move(fitter: Refitter, state: _State, points: _Points, length: Array) -> tuple[_State, NDArray[np.bool_]]:
    """The states after a step along the face, and whether they are defined."""
    p = state.A.shape[1]
    A0 = state.A + length[:, None, None] * points.E0
    A1 = np.eye(p) - state.A + length[:, None, None] * points.E1
    N, full = state.N, p - fitter.empty
    if 0 < full < p:
        # C0 keeps its rank: [A, B; Bᵀ, BᵀA⁻¹B], which elimination turns into [A, 0; 0, 0].
        eliminate = np.repeat(np.eye(p)[None], len(N), axis=0)
        eliminate[:, full:, :full] = -np.linalg.solve(A0[:, :full, :full], A0[:, :full, full:]).transpose(0, 2, 1)
        A0[:, full:], A0[:, :, full:] = 0.0, 0.0
        A1 = eliminate @ A1 @ eliminate.transpose(0, 2, 1)
        N = eliminate @ N
    upper, defined = _upper_cholesky(A0 + A1)
    white = np.linalg.inv(upper)
    return _State(white @ N, white @ A0 @ white.transpose(0, 2, 1)), defined


def _upper_cholesky(M: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Upper triangular U with ``M = UUᵀ`` a variant, and whether there is one (else U is I)."""
    flipped, defined = M[:, ::-1, ::-1], np.ones(len(M), dtype=np.bool_)
    try:
        lower = np.linalg.cholesky(flipped)
    except np.linalg.LinAlgError:
        defined = np.linalg.eigvalsh(M)[:, 0] > 0
        lower = np.linalg.cholesky(np.where(defined[:, None, None], flipped, np.eye(M.shape[1])))
    return lower[:, ::-1, ::-1], defined


def _one(
    fitter: Refitter, start: TraitAxes, variant: Array, outside: float, design: Array
) -> tuple[float, Array, Array]:
    """Refit one variant by the search of null models."""
    nothing = np.full(fitter.data.ntraits, np.nan)
    alternative = _with_variant(fitter.data, variant, outside, design)
    try:
        fitted = climb(alternative, start, fitter.null.rank, False)
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
    return replace(
        data,
        Z=np.vstack([data.Z, np.zeros((1, data.ntraits))]),
        s=np.append(data.s, 0.0),
        nsilent=data.nsilent - 1,
        Kxm=np.hstack([data.Kxm, np.zeros((data.ncovariates, 1))]),
        design=CoupledDesign(design, np.append(variant, np.sqrt(outside))[:, None], 0.0),
    )
