"""Exact refits: C0 and C1 free again with a variant in the model, for many variants at once.

With a variant's effects ``A1 γ`` in the model the maximum likelihood of (C0, C1) is close to the null model's, so
Fisher scoring in the trait axes of every variant (one 2 × 2 system a pair of axes) converges in a few steps. What does
not converge that way, because the optimum lies on the boundary or C0 has a bounded rank, is left to the search that
fits null models.
"""

from dataclasses import dataclass, replace

import numpy as np

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.contrasts import Contrasts, CoupledDesign
from kron2sum_cli.model.fitting import Fit, climb
from kron2sum_cli.model.likelihood import LOG2PI
from kron2sum_cli.model.spectrum import Array
from kron2sum_cli.model.trait_axes import TraitAxes

GAIN_TOLERANCE = 1e-7
"""A refit ends when the next step is predicted to add no more than this to the log-likelihood."""

MAX_STEPS = 30
BATCH_CELLS = 1 << 21
"""Rows times traits times variants that are refitted at once."""


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
    """One (C0, C1) a variant, in its trait axes: ``T C0 Tᵀ = diag(d0)``, ``T C1 Tᵀ = diag(d1)``."""

    T: Array
    Tinv: Array
    d0: Array
    d1: Array

    def take(self, which: Array) -> "_State":
        return _State(self.T[which], self.Tinv[which], self.d0[which], self.d1[which])

    def put(self, which: Array, other: "_State") -> None:
        for name in ("T", "Tinv", "d0", "d1"):
            getattr(self, name)[which] = getattr(other, name)


@dataclass(frozen=True)
class _Points:
    """The likelihood at one state a variant, the step of Fisher scoring, and the effects."""

    lml: Array
    E0: Array
    E1: Array
    predicted: Array
    effects: Array
    covariance: Array


def refit(data: Contrasts, null: Fit, variants: Array, design: Array) -> Refit:
    """Refit with effects in the span of ``design``.

    Parameters
    ----------
    data : rotated traits, covariates projected out
    null : the maximum likelihood (not restricted) fit without the variant
    variants : (m, b) rotated variants
    design : (p, e), full column rank

    Returns
    -------
    Log-likelihoods by ML and the effects; NaN for a variant whose refit did not converge.
    """
    m, b = variants.shape
    p = data.ntraits
    size = max(1, BATCH_CELLS // (m * p))
    parts = [_refit_batch(data, null, variants[:, k : k + size], design) for k in range(0, b, size)]
    return Refit(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("lml", "beta", "se")))


def _refit_batch(data: Contrasts, null: Fit, variants: Array, design: Array) -> Refit:
    b, p = variants.shape[1], data.ntraits
    G = np.ascontiguousarray(variants.T)
    state = _initial(null.point.axes, b)
    points = _evaluate(data, state, G, design)
    lml, effects, covariance = points.lml, points.effects, points.covariance
    interior = null.rank >= p and null.certificate.active_C0 == 0 and null.certificate.active_C1 == 0
    converged = np.zeros(b, bool)
    active = np.arange(b) if interior else np.empty(0, np.intp)
    E0, E1, length = points.E0, points.E1, np.ones(b)
    predicted = points.predicted
    for _ in range(MAX_STEPS):
        done = predicted[active] <= GAIN_TOLERANCE
        converged[active[done]] = True
        active = active[~done & (length[active] > 1e-3)]
        if not active.size:
            break
        trial, valid = _move(state.take(active), E0[active] * length[active, None, None],
                             E1[active] * length[active, None, None], data.mean_eigenvalue)
        length[active[~valid]] *= 0.5
        tried, trial = active[valid], trial.take(valid)
        if not tried.size:
            continue
        points = _evaluate(data, trial, G[tried], design)
        better = points.lml >= lml[tried] - 1e-11 * np.abs(lml[tried])
        length[tried[~better]] *= 0.5
        won = tried[better]
        length[won] = 1.0
        state.put(won, trial.take(better))
        for kept, new in ((lml, points.lml), (E0, points.E0), (E1, points.E1), (predicted, points.predicted),
                          (effects, points.effects), (covariance, points.covariance)):
            kept[won] = new[better]
    beta = effects @ design.T
    se = np.sqrt(np.einsum("te,bef,tf->bt", design, covariance, design, optimize=True))
    for k in np.flatnonzero(~converged):
        lml[k], beta[k], se[k] = _one(data, null, variants[:, k], design)
    return Refit(lml, beta, se)


def _initial(axes: TraitAxes, b: int) -> _State:
    def repeat(M: Array) -> Array:
        return np.repeat(M[None], b, axis=0)

    return _State(repeat(axes.T), repeat(axes.Tinv), repeat(axes.c0**2), repeat(axes.c1**2))


def _evaluate(data: Contrasts, state: _State, G: Array, design: Array) -> _Points:
    """Log-likelihood, scoring step and effects at one state a variant; G (b, m)."""
    b, p = state.d0.shape
    s, m = data.s, data.s.size
    Z = (data.Z @ state.T.transpose(2, 0, 1).reshape(p, b * p)).reshape(m, b, p).transpose(1, 0, 2)
    variances = s[None, :, None] * state.d0[:, None, :] + state.d1[:, None, :]
    W = 1 / variances
    alpha = W * Z
    u = np.matmul(G[:, None, :], alpha)[:, 0]
    v = np.matmul((G**2)[:, None, :], W)[:, 0]
    D = state.T @ design
    H = np.einsum("bje,bj,bjf->bef", D, v, D, optimize=True)
    covariance = np.linalg.inv(H)
    effects = np.einsum("bef,bjf,bj->be", covariance, D, u, optimize=True)
    quadratic = np.einsum("bij,bij->b", alpha, Z) - np.einsum("bje,be,bj->b", D, effects, u, optimize=True)
    alpha = alpha - W * (G[:, :, None] * np.einsum("bje,be->bj", D, effects)[:, None, :])
    logdet = np.log(variances).sum(axis=(1, 2)) - 2 * data.nsamples * np.linalg.slogdet(state.T)[1]
    trace0, trace1 = np.matmul(s[None, None, :], W)[:, 0], W.sum(axis=1)
    silent = np.zeros_like(state.d1) if data.nsilent == 0 else 1 / state.d1
    if data.nsilent:
        logdet += data.nsilent * np.log(state.d1).sum(axis=1)
        trace1 = trace1 + data.nsilent * silent
    if data.ncovariates:
        extra, extra0, extra1 = _mean_terms(data, state, W)
        logdet, trace0, trace1 = logdet + extra, trace0 + extra0, trace1 + extra1
    lml = -0.5 * (data.nsamples * p * LOG2PI + logdet + quadratic)
    sW = s[None, :, None] * W
    Wt, alpha_t = W.transpose(0, 2, 1), alpha.transpose(0, 2, 1)
    S0 = 0.5 * (alpha_t @ (s[None, :, None] * alpha) - _diagonal(trace0))
    S1 = 0.5 * (alpha_t @ alpha - _diagonal(trace1))
    Q0 = Wt @ W + data.nsilent * silent[:, :, None] * silent[:, None, :]
    E0, E1 = _scoring_step(S0, S1, Q0, Wt @ sW, sW.transpose(0, 2, 1) @ sW)
    predicted = 0.5 * (np.sum(S0 * E0, axis=(1, 2)) + np.sum(S1 * E1, axis=(1, 2)))
    return _Points(lml, E0, E1, predicted, effects, covariance)


def _diagonal(values: Array) -> Array:
    return np.asarray(values[:, :, None] * np.eye(values.shape[1]))


def _scoring_step(S0: Array, S1: Array, Q0: Array, Q1: Array, Q2: Array) -> tuple[Array, Array]:
    """Solve ``½ [Q2 Q1; Q1 Q0] (E0, E1) = (S0, S1)`` for every pair of axes."""
    det = np.maximum(Q2 * Q0 - Q1**2, 1e-12 * Q2 * Q0)
    return 2 * (Q0 * S0 - Q1 * S1) / det, 2 * (Q2 * S1 - Q1 * S0) / det


def _mean_terms(data: Contrasts, state: _State, W: Array) -> tuple[Array, Array, Array]:
    """Log determinant of the projected covariates' conditional covariance and its derivatives, a variant."""
    b, p = state.d0.shape
    c, Kxm = data.ncovariates, data.Kxm
    a, d1 = state.d0[..., None, None], state.d1[..., None, None]
    pairs = (Kxm[:, None, :] * Kxm[None, :, :]).reshape(c * c, -1)

    def weighted(weights: Array) -> Array:
        return np.asarray((pairs @ weights).transpose(0, 2, 1).reshape(b, p, c, c))

    KWK, KWWK, KsWWK = weighted(W), weighted(W**2), weighted(data.s[None, :, None] * W**2)
    S = a * data.Kxx + d1 * np.eye(c) - a**2 * KWK
    inverse = np.linalg.inv(S)
    dS0 = data.Kxx - 2 * a * KWK + a**2 * KsWWK
    dS1 = np.eye(c) + a**2 * KWWK
    logdet = np.linalg.slogdet(S)[1].sum(axis=1)
    return (
        logdet,
        np.einsum("bjcd,bjdc->bj", inverse, dS0),
        np.einsum("bjcd,bjdc->bj", inverse, dS1),
    )


def _move(state: _State, E0: Array, E1: Array, tau: float) -> tuple[_State, Array]:
    """The states after a step, and which of them are inside the cones."""
    A0 = _diagonal(state.d0) + E0
    A1 = _diagonal(state.d1) + E1
    sizes, Q = np.linalg.eigh(tau * A0 + A1)
    valid = sizes[:, 0] > 1e-12 * sizes[:, -1]
    root = np.sqrt(np.where(valid[:, None], sizes, 1.0))
    half = Q / root[:, None, :]
    h, R = np.linalg.eigh(half.transpose(0, 2, 1) @ (tau * A0) @ half)
    valid &= (h[:, 0] > 0) & (h[:, -1] < 1)
    rotation = (half @ R).transpose(0, 2, 1)
    back = (Q * root[:, None, :]) @ R
    return _State(rotation @ state.T, state.Tinv @ back, h / tau, 1 - h), valid


def _one(data: Contrasts, null: Fit, variant: Array, design: Array) -> tuple[float, Array, Array]:
    """Refit one variant by the search of null models."""
    nothing = np.full(data.ntraits, np.nan)
    alternative = replace(data, design=CoupledDesign(design, variant[:, None], 0.0))
    try:
        fitted = climb(alternative, null.point.axes, null.rank, False)
    except (NumericalError, np.linalg.LinAlgError):
        return np.nan, nothing, nothing
    coupled = fitted.point.coupled
    if not fitted.certificate.certified or coupled is None:
        return np.nan, nothing, nothing
    half = np.linalg.solve(coupled.chol, design.T)
    return fitted.point.lml, design @ coupled.beta[0], np.sqrt(np.sum(half**2, axis=0))
