"""How precisely C0 and C1 are known: the covariance of their estimates, from the curvature of the likelihood.

In the trait axes of the optimum symmetric perturbations (E0, E1) of the two diagonals are the directions; one number
for each pair of axes (j ≥ l) and each matrix. With ``α = K⁻¹r`` and ``w`` the inverse variances, the observed
information of the contrasts is ::

    Σ_l e_lᵀ [Σ_i w_il (s_i α_i, α_i)(s_i α_i, α_i)ᵀ] e_l - ½ Σ_jl (Q2 E0² + 2 Q1 E0 E1 + Q0 E1²)_jl,

``e_l`` the l-th columns of E0 and E1, ``Qk = Σ_i s_i^k w_ij w_il``. Its expectation is the last sum with the opposite
sign: 2 × 2 blocks, one for each pair.

On a face of a cone (axes without genetic, or without residual, variance; a C0 of bounded rank) only directions along
the face are free. The face is curved: moving row j of a factor off an empty axis j adds ``E_jl E_kl / c_l²`` to the
empty block, where the score does not vanish, and that is part of the curvature of the likelihood along the face.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import linalg

from kron2sum_cli.model.climbing import BOUNDARY
from kron2sum_cli.model.likelihood import (
    Grams,
    LikelihoodPoint,
    Point,
    grams_less_effects,
    mean_block,
    normalised_effects,
)
from kron2sum_cli.model.spectrum import Array, Indices, Mask
from kron2sum_cli.model.trait_axes import TraitAxes, pairs_of_axes

OBSERVED_TRAITS = 40
"""Largest number of traits for which the information is the observed one, a dense matrix; else it is the expected."""

OBSERVED_EFFECTS = 100
"""The same for the number of fixed effects of a trait design."""

NOT_TOLD_APART = 1e-6
"""Smallest determinant of the 2 × 2 information of a pair of axes, over the product of its diagonal; below it the
genetic and the residual variance are not told apart."""

SINGULAR_INFORMATION = 1e-11
"""Smallest share of a direction's information that the other directions may leave; below it the information counts as
singular."""


@dataclass(frozen=True)
class DirectionCovariance:
    """Covariance of the estimated (E0, E1) over the pairs of axes ``np.tril_indices(p)``, N = p(p+1)/2 of them.

    ``v00`` and ``v11`` are of the entries of E0 and of E1, ``v01`` of those of E0 with those of E1: vectors (N,) where
    pairs are independent, matrices (N, N) else. Zero in directions that are not free, NaN throughout where the
    information is not positive definite.
    """

    v00: Array
    v01: Array
    v11: Array

    @property
    def matrix(self) -> Array:
        """The covariance of all entries, those of E0 first: (2N, 2N)."""
        v00, v01, v11 = (v if v.ndim == 2 else np.diag(v) for v in (self.v00, self.v01, self.v11))
        return np.block([[v00, v01], [v01.T, v11]])


def uses_observed_information(ntraits: int, neffects: int) -> bool:
    """Whether standard errors are those of the observed information.

    ``neffects`` is the number ac of fixed effects of a trait design of rank a < p; 0 without one.
    """
    return ntraits <= OBSERVED_TRAITS and neffects <= OBSERVED_EFFECTS


def direction_covariance(point: Point, rank: int) -> DirectionCovariance:
    """Inverse information of (C0, C1) in the axes of an optimum; C0 has at most this rank.

    Exact for REML and ML; where `uses_observed_information` is false it is the inverse of the expected information,
    which for REML with a trait design leaves out terms of order ac/(np).
    """
    neffects = 0 if point.coupled is None else point.coupled.beta.size
    if uses_observed_information(point.data.ntraits, neffects):
        return inverse_along_face(observed_information(point), point, rank)
    empty = faces(point.axes, point.data.mean_eigenvalue, rank)
    return invert_pairs(expected_information(point), free_directions(*empty))


def inverse_along_face(information: Array, point: LikelihoodPoint, rank: int) -> DirectionCovariance:
    """Inverse of the information (2N, 2N) of (E0, E1) at an optimum, along its face; C0 has at most this rank."""
    empty = faces(point.axes, point.data.mean_eigenvalue, rank)
    curvature = face_curvature(point.axes, point.score0, point.score1, *empty)
    return invert_dense(information + curvature, free_directions(*empty))


def faces(axes: TraitAxes, mean_eigenvalue: float, rank: int) -> tuple[Mask, Mask]:
    """Which axes (p,) have no genetic variance, and which no residual variance; C0 has at most this rank."""
    empty0 = (mean_eigenvalue * axes.c0**2 < BOUNDARY) | (np.arange(axes.c0.size) >= rank)
    return empty0, axes.c1**2 < BOUNDARY


def free_directions(empty0: Mask, empty1: Mask) -> Mask:
    """Which entries of (E0, E1) lie along the faces with these empty axes: (2N,)."""
    i, j = pairs_of_axes(empty0.size)
    return np.concatenate([~(empty0[i] & empty0[j]), ~(empty1[i] & empty1[j])])


def expected_information(point: Point) -> tuple[Array, Array, Array]:
    """Information of the pairs' entries of E0, of E0 with E1, and of E1: three (N,).

    ``½ tr(K⁻¹ ∂K K⁻¹ ∂K)``, K that of the contrasts under REML; an off-diagonal pair changes two entries of K.
    """
    return expected_of_pairs(full_grams(point))


def expected_of_pairs(grams: Grams) -> tuple[Array, Array, Array]:
    """The expected information from the sums Q0, Q1, Q2 (p, p)."""
    Q0, Q1, Q2 = grams
    i, j = pairs_of_axes(len(Q0))
    twice = np.where(i == j, 0.5, 1.0)
    return twice * Q2[i, j], twice * Q1[i, j], twice * Q0[i, j]


def inverse_of_pairs(axes: TraitAxes, grams: Grams) -> tuple[Array, Array, Array]:
    """Inverses of the matrices ``[[Q2, Q1], [Q1, Q0]]`` of every pair: their entries of E0, of both, and of E1: (p, p).

    Between axes that C0 leaves empty E0 is known, and between axes that no sample has both of (traits of different
    samples, without relationships) E1, too: 0.
    """
    Q0, Q1, Q2 = grams
    determinant = Q0 * Q2 - Q1**2
    full = axes.c0 > 0
    free = np.logical_or.outer(full, full) & (determinant > NOT_TOLD_APART * Q0 * Q2)
    safe = np.where(free, determinant, 1.0)
    alone = np.where(Q0 > 0, 1 / np.where(Q0 > 0, Q0, 1.0), 0.0)
    return np.where(free, Q0 / safe, 0.0), np.where(free, -Q1 / safe, 0.0), np.where(free, Q2 / safe, alone)


def full_grams(point: Point) -> Grams:
    """``tr(K_j⁻¹ M K_l⁻¹ M')`` for (M, M') = (I, I), (GGᵀ, I), (GGᵀ, GGᵀ): over the contrasts, or for ML all rows."""
    Q = point.grams
    if point.reml or point.data.ncovariates == 0:
        return Q
    Q0, Q1, Q2 = (of_rows + of_mean for of_rows, of_mean in zip(Q, _mean_grams(point), strict=True))
    return Q0, Q1, Q2


def grams_given_effects(point: Point) -> Grams:
    """`full_grams` under REML where the effects of an invertible trait design are in the model.

    Along an axis ``P_j = W_j - F_jF_jᵀ``, F as `likelihood.normalised_effects` has it.
    """
    if point.coupled is None:
        return point.grams
    F = normalised_effects(point.data, point.coupled, point.W)
    return grams_less_effects(point, point.data.s, point.grams, lambda rows: F[:, rows])


def _mean_grams(point: Point) -> Grams:
    """Gram matrices of the projected covariates, which ML adds to those of the contrasts.

    ``K_j⁻¹ = diag(W_j, 0) + F_jF_jᵀ`` with ``F_j = [-c0_j² W_j Kmx; I] S_j^-½``. The rows of GGᵀF_j are
    ``c1_j² W_j Kmx S_j^-½``, and ``F_jᵀGGᵀF_l = S_j^-½ᵀ (A + c1_j² c1_l² R W_j W_l Rᵀ) S_l^-½``, a sum for the reason
    that `MeanBlock` gives, with its A and R.
    """
    data, W = point.data, point.W
    p, c = data.ntraits, data.ncovariates
    block, root_s = mean_block(data, point.axes, W), np.sqrt(data.s)[:, None, None]
    half = np.linalg.inv(block.cholesky).transpose(0, 2, 1)
    rows = np.einsum("ij,ci,jcq->ijq", W, block.R, half, optimize=True)
    genetic, residual = (root[:, None] ** 2 * rows for root in (point.axes.c0, point.axes.c1))
    lower, moved = -root_s * genetic, root_s * residual
    below, upper = residual.reshape(-1, p * c), half.transpose(1, 0, 2).reshape(c, p * c)
    flat = lower.reshape(-1, p * c)
    FF, FGF = flat.T @ flat + upper.T @ upper, below.T @ below + upper.T @ block.A @ upper

    def total(rows: Array, gram: Array) -> Array:
        one = rows.sum(axis=2).T @ W
        return np.asarray(one + one.T + gram.reshape(p, c, p, c).sum(axis=(1, 3)))

    return total(lower**2, FF**2), total(moved * lower, FGF * FF), total(moved**2, FGF**2)


def observed_information(point: Point) -> Array:
    """Minus the second derivatives of the log-likelihood in the entries of (E0, E1): (2N, 2N), both matrices' pairs."""
    data, W = point.data, point.W
    both = np.hstack([data.s[:, None] * point.alpha, point.alpha])
    effects = np.empty((data.ntraits, len(data.Z), 0))
    if point.coupled is not None:
        effects = normalised_effects(data, point.coupled, W)

    def gram_of(axis: int) -> Array:
        gram: Array = (both * W[:, axis, None]).T @ both
        if point.reml and effects.size:
            stacked = np.vstack([data.s[None, :, None] * effects, effects])
            gram += np.einsum("aiq,i,biq->ab", stacked, W[:, axis], stacked, optimize=True)
        return gram

    return of_axes(gram_of, expected_information(point)) - _explained_by_effects(point, both, effects)


def of_axes(gram_of: Callable[[int], Array], expected: tuple[Array, Array, Array]) -> Array:
    """``Σ_l e_lᵀ G_l e_l`` less the expected information of every pair: (2N, 2N) in the entries of (E0, E1).

    The matrices ``gram_of`` an axis, G_l (2p, 2p), are over the l-th columns of E0 and of E1.
    """
    pairs = expected[0].size
    p = math.isqrt(2 * pairs)
    index = pair_positions(p)
    H = np.zeros((2 * pairs, 2 * pairs))
    for axis in range(p):
        rows = np.concatenate([index[axis], pairs + index[axis]])
        H[np.ix_(rows, rows)] += gram_of(axis)
    a, b, d = expected
    first, second = np.arange(pairs), pairs + np.arange(pairs)
    H[first, first] -= a
    H[first, second] -= b
    H[second, first] -= b
    H[second, second] -= d
    return H


def _explained_by_effects(point: Point, both: Array, effects: Array) -> Array:
    """Information that coupled fixed effects F take: ``Σ_q (αᵀ∂K f_q)²``, and by REML ``½ Σ_qr (f_qᵀ∂K f_r)²``."""
    s, (p, _, q) = point.data.s, effects.shape
    pairs = p * (p + 1) // 2
    taken = np.zeros((2 * pairs, 2 * pairs))
    if q == 0:
        return taken
    rows = _as_functionals(both, effects)
    taken += rows.T @ rows
    if point.reml:
        for k in range(q):
            one = effects[:, :, k].T
            rows = _as_functionals(np.hstack([s[:, None] * one, one]), effects)
            taken += 0.5 * rows.T @ rows
    return taken


def _as_functionals(left: Array, effects: Array) -> Array:
    """``Σ_jl left_jᵀ E_jl f_lq`` as rows (q, 2N) over the pairs; left (m, 2p) for E0 and E1."""
    p = effects.shape[0]
    i, j = pairs_of_axes(p)
    products = np.einsum("ia,liq->qal", left, effects, optimize=True)
    both = []
    for M in (products[:, :p], products[:, p:]):
        both.append(np.where(i == j, 0.5, 1.0) * (M[:, i, j] + M[:, j, i]))
    return np.hstack(both)


def face_curvature(axes: TraitAxes, score0: Array, score1: Array, empty0: Mask, empty1: Mask) -> Array:
    """Information along a face that the score on its empty axes adds: ``-2 Σ_l e_lᵀ S e_l / c_l²``."""
    p = axes.c0.size
    pairs = p * (p + 1) // 2
    index = pair_positions(p)
    H = np.zeros((2 * pairs, 2 * pairs))
    parts = ((0, empty0, score0, axes.c0), (pairs, empty1, score1, axes.c1))
    for start, empty, score, root in parts:
        none = np.flatnonzero(empty)
        for axis in np.flatnonzero(~empty):
            rows = start + index[axis, none]
            H[np.ix_(rows, rows)] -= 2 * score[np.ix_(none, none)] / root[axis] ** 2
    return H


def lower_triangle(M: Array) -> Array:
    """Entries (..., N) of matrices (..., p, p) at the pairs ``np.tril_indices(p)``."""
    return np.asarray(M[..., *pairs_of_axes(M.shape[-1])])


def symmetric(packed: Array) -> Array:
    """Symmetric matrices (..., p, p) from their `lower_triangle`."""
    return np.asarray(packed[..., pair_positions((math.isqrt(8 * packed.shape[-1] + 1) - 1) // 2)])


@cache
def pair_positions(p: int) -> Indices:
    """Position (p, p) of the pairs (j, l) and (l, j) in ``np.tril_indices(p)``; not to be written to."""
    i, j = pairs_of_axes(p)
    index = np.empty((p, p), dtype=np.intp)
    index[i, j] = index[j, i] = np.arange(i.size)
    index.flags.writeable = False
    return index


def invert_pairs(information: tuple[Array, Array, Array], free: Mask) -> DirectionCovariance:
    """Inverse on the free directions of the information of pairs, as `expected_information` gives it."""
    a, b, d = information
    free0, free1 = np.split(free, 2)
    together = free0 & free1
    determinant = a * d - b**2
    if np.any(determinant[together] <= SINGULAR_INFORMATION * (a * d)[together]):
        return _undefined(a.shape)
    safe = np.where(together, determinant, 1.0)
    return DirectionCovariance(
        v00=np.where(together, d / safe, np.where(free0, 1 / a, 0.0)),
        v01=np.where(together, -b / safe, 0.0),
        v11=np.where(together, a / safe, np.where(free1, 1 / d, 0.0)),
    )


def invert_dense(information: Array, free: Mask) -> DirectionCovariance:
    """Inverse on the free directions by Cholesky, each scaled to information 1."""
    pairs = free.size // 2
    kept = np.flatnonzero(free)
    H = information[np.ix_(kept, kept)]
    diagonal = np.diag(H)
    if not np.all(diagonal > 0):
        return _undefined((pairs, pairs))
    size = 1 / np.sqrt(diagonal)
    try:
        L = linalg.cholesky(size[:, None] * H * size, lower=True)
    except linalg.LinAlgError:
        return _undefined((pairs, pairs))
    if np.min(np.diag(L), initial=1.0) ** 2 <= SINGULAR_INFORMATION:
        return _undefined((pairs, pairs))
    V = np.zeros(information.shape)
    V[np.ix_(kept, kept)] = size[:, None] * linalg.cho_solve((L, True), np.eye(kept.size)) * size
    return DirectionCovariance(V[:pairs, :pairs], V[:pairs, pairs:], V[pairs:, pairs:])


def _undefined(shape: tuple[int, ...]) -> DirectionCovariance:
    nothing = np.full(shape, np.nan)
    return DirectionCovariance(nothing, nothing, nothing)
