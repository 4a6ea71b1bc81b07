"""How precisely C0 and C1 are known from the observed cells.

Directions are those of `model.information`: symmetric perturbations (E0, E1) in the trait axes of the optimum, one
number a pair of axes and matrix. The observed information is ``αᵀ∂Q∂'α - ½ tr(Q∂Q∂')``; its trace takes a matrix over
the missing cells for every direction. Where these would be too large the average information, ``½ αᵀ∂Q∂'α``, whose
mean is the same, takes its place.
"""

import math
from dataclasses import replace

import numpy as np

from kron2sum_cli.model.information import (
    DirectionCovariance,
    face_curvature,
    faces,
    free_directions,
    invert_dense,
    pair_positions,
    symmetric,
)
from kron2sum_cli.model.missing.design import CellDesign, half_solve, inverse_of, row_traces
from kron2sum_cli.model.missing.likelihood import ObservedPoint
from kron2sum_cli.model.missing.observed import PointOfCells
from kron2sum_cli.model.missing.undetermined import undetermined_directions
from kron2sum_cli.model.spectrum import Array, Mask, parts_of
from kron2sum_cli.model.trait_axes import pairs_of_axes

NO_RESIDUAL = 1e-7
"""An axis whose residual share of variance is below this, where the likelihood falls with it, is on the boundary: where
GGᵀ is singular, or nearly so, a search cannot reach 0 itself."""

RELIABLE_SHARE = 1e-6
"""Residual share that such an axis has where its score and its information are taken: where GGᵀ is singular, both are
rounding nearer to the boundary, and hardly change up to here."""

EXACT_ENTRIES, EXACT_OPERATIONS = 1 << 25, 2e11
"""Entries of all directions' matrices over the missing cells, or multiplications, up to which the information is the
observed one."""

LARGEST_PART = 1 << 25
"""Largest number of entries of those matrices that are made at once."""


def direction_covariance(point: ObservedPoint, rank: int) -> DirectionCovariance:
    """Inverse information of (C0, C1) in the axes of an optimum; C0 has at most this rank."""
    low = without_residual(point)
    if point.data.singular and low.any():
        point = point.at(replace(point.axes, c1=np.where(low, np.sqrt(RELIABLE_SHARE), point.axes.c1)))
    return inverse_information(information(point), point, rank, low)


def without_residual(point: PointOfCells) -> Mask:
    """Which axes (p,) have hardly any residual variance."""
    return np.asarray(point.axes.c1**2 < NO_RESIDUAL)


def inverse_information(H: Array, point: PointOfCells, rank: int, low: Mask) -> DirectionCovariance:
    """Inverse of the information H (2N, 2N) of (E0, E1) at an optimum; C0 has at most this rank.

    Of the axes that are `low` in residual variance those are on the boundary along which the likelihood falls. Along
    undetermined residual covariances the information is 0. Any other in its place leaves the variances of what
    does not depend on them as they are.
    """
    empty0, empty1 = faces(point.axes, point.data.mean_eigenvalue, rank)
    empty = empty0, empty1 | (low & (np.diag(point.score1) <= 0))
    H = H + face_curvature(point.axes, point.score0, point.score1, *empty)
    free = free_directions(*empty)
    flat = undetermined_directions(point.data, point.axes)
    if flat.size and free[len(free) // 2 :].all():
        H = H + np.trace(H) / len(H) * flat @ flat.T
    return invert_dense(H, free)


def information(point: ObservedPoint) -> Array:
    """Observed information of (E0, E1), or where that takes too long the average one, (2N, 2N)."""
    if not affordable(point):
        return 0.5 * score_products(point)
    return score_products(point) - 0.5 * trace_products(point)


def lacking_information(point: ObservedPoint) -> Array:
    """What the observed information of (E0, E1) has that the average one lacks, (2N, 2N)."""
    return 0.5 * (score_products(point) - trace_products(point))


def affordable(point: ObservedPoint) -> bool:
    """Whether the observed information of this point takes little enough time."""
    return uses_observed_information(point.data.ntraits, point.data.nsamples, point.design.size)


def uses_observed_information(ntraits: int, nsamples: int, ncolumns: int) -> bool:
    """Whether standard errors are those of the observed information, for this many missing cells and fixed effects."""
    if ntraits * (ntraits + 1) * ncolumns**2 <= EXACT_ENTRIES:
        return True
    return min(_operations(ntraits, nsamples, ncolumns)) <= EXACT_OPERATIONS


def _operations(ntraits: int, nrows: int, ncolumns: int) -> tuple[float, float]:
    """Multiplications of `trace_products` over pairs of columns of the design, and over pairs of rotated rows."""
    p, m, size = float(ntraits), nrows, ncolumns
    return 2 * p * (p + 1) * size**2 * m + (p * (p + 1) * size) ** 2, (p * m) ** 2 * (size + 3 * p**2)


def score_products(point: ObservedPoint) -> Array:
    """``αᵀ∂Q∂'α`` for every two directions: (2N, 2N)."""
    data, W, design = point.data, point.W, point.design
    p = data.ntraits
    pairs = p * (p + 1) // 2
    index = pair_positions(p)
    both = np.hstack([data.filled.s[:, None] * point.alpha, point.alpha])
    U = _rows_of(design, both.shape[0])
    loadings = design.loadings
    outside = data.outside_gram @ point.alpha_outside if data.outside_gram is not None else None
    products, rhs = np.zeros((2 * pairs, 2 * pairs)), np.zeros((design.size, 2 * pairs))
    for axis in range(p):
        rows = np.concatenate([index[axis], pairs + index[axis]])
        weighted = both * W[:, axis, None]
        products[np.ix_(rows, rows)] += weighted.T @ both
        seen = U @ weighted
        if outside is not None:
            outside_weight = design.outside_weight[axis]
            of_C1 = rows[p:]
            products[np.ix_(of_C1, of_C1)] += outside_weight * (point.alpha_outside.T @ outside)
            seen[: data.ncells, p:] += outside_weight * outside
        rhs[:, rows] += loadings[:, axis, None] * seen
    half = half_solve(point.chol, rhs)
    return np.asarray(products - half.T @ half)


def trace_products(point: ObservedPoint) -> Array:
    """``tr(Q∂Q∂')`` for every two directions, Q that of the score: (2N, 2N)."""
    design = point.restricting
    L = point.chol[: design.size, : design.size]
    rows = _weighted_rows(design, point.W)
    F = half_solve(L, rows.reshape(len(rows), rows.shape[1] * rows.shape[2])).reshape(rows.shape)
    if goes_over_rows(rows.shape[1], rows.shape[2], rows.shape[0]):
        return _products_over_rows(design, point, F)
    return _products_of_P(design, point, L) + _products_over_columns(point, F)


def goes_over_rows(ntraits: int, nrows: int, ncolumns: int) -> bool:
    """Whether traces are sums over pairs of rotated rows, not over pairs of columns of the design: what takes less."""
    over_columns, over_rows = _operations(ntraits, nrows, ncolumns)
    return over_rows <= over_columns


def entries_of_products(ntraits: int, nrows: int, ncolumns: int) -> int:
    """Entries of the largest matrices of `trace_products`."""
    p, m, size = ntraits, nrows, ncolumns
    return min(2 * (p * m) ** 2 if goes_over_rows(p, m, size) else p * (p + 1) * size**2, 2 * LARGEST_PART)


def _products_over_rows(design: CellDesign, point: ObservedPoint, F: Array) -> Array:
    """``tr(Q∂Q∂')`` for every two directions from Q itself: (2N, 2N).

    With ``F_j = L⁻¹ D_jᵀ W_j`` the block of axes a and d is ``Q_ad = δ_ad W_a - F_aᵀF_d``, and with ∂ the weights δ of
    the rows between axes a and b, and ∂' the weights δ' between axes c and d, the trace is the sum of
    ``δδ'ᵀ ∘ Q_ad ∘ Q_bc``: an entry of the Gram matrix of all blocks.
    """
    p, m = F.shape[1:]
    s, outside_weight = point.data.filled.s, design.outside_weight
    outside = m - s.size
    weights = np.hstack([point.W.T, np.repeat(outside_weight[:, None], outside, axis=1)])
    root = np.concatenate([np.sqrt(s), np.zeros(outside)])
    of_C0, of_both, of_C1 = np.zeros((3, p * p, p * p))
    for part in parts_of(m, LARGEST_PART // (2 * p * p * m)):
        blocks = _blocks_of_Q(F, weights, part)
        of_C1 += _gram(blocks)
        blocks *= root[part, None]  # in place, for they are the largest matrices
        of_both += _gram(blocks)
        blocks *= root
        of_C0 += _gram(blocks)
    axes = np.arange(p) * (p + 1)
    left = point.data.filled.noutside - outside
    of_C1[np.ix_(axes, axes)] += left * np.multiply.outer(outside_weight, outside_weight)
    first, mixed, second = map(_between_directions, (of_C0, of_both, of_C1))
    return np.block([[first, mixed], [mixed.T, second]])


def _blocks_of_Q(F: Array, weights: Array, part: slice) -> Array:
    """Some rows of the blocks of -Q, whose products are those of Q, for every two axes: (pp, k, m)."""
    N, p, m = F.shape
    own = np.arange(part.start, part.stop)
    Q = F[:, :, part].reshape(N, p * own.size).T @ F.reshape(N, p * m)
    Q = Q.reshape(p, own.size, p, m)
    axis = np.arange(p)[:, None]
    Q[axis, own - part.start, axis, own] -= weights[:, part]
    return np.ascontiguousarray(Q.transpose(0, 2, 1, 3)).reshape(p * p, own.size, m)


def _gram(blocks: Array) -> Array:
    """Sums of the products of the entries of every two of the blocks (k, ...): (k, k)."""
    flat = blocks.reshape(len(blocks), -1)
    return np.asarray(flat @ flat.T)


def _between_directions(gram: Array) -> Array:
    """``Σ gram[ad, bc]`` over the entries (a, b) of one direction and (c, d) of another: (N, N)."""
    p = math.isqrt(len(gram))
    G = gram.reshape(p, p, p, p)
    i, j = pairs_of_axes(p)
    half = np.where(i == j, 0.5, 1.0)
    a, b = i[:, None], j[:, None]
    total = G[a, j, b, i] + G[b, j, a, i] + G[a, i, b, j] + G[b, i, a, j]
    return np.asarray(np.multiply.outer(half, half) * total)


def _products_of_P(design: CellDesign, point: ObservedPoint, L: Array) -> Array:
    """``tr(P∂P∂') - 2 tr(DH⁻¹DᵀP∂P∂'P)`` for every two directions: (2N, 2N)."""
    bases = directions(point.data.ntraits)
    s, W = point.data.filled.s, point.W
    powers = np.stack([s**2, s, np.ones_like(s)])
    traces, outside = row_traces(design, inverse_of(L)) if design.size else (np.zeros((s.size, *W.shape[1:] * 2)), None)
    N = bases.shape[0]
    total = np.zeros((2 * N, 2 * N))
    for power, places in enumerate((((0, 0),), ((0, 1), (1, 0)), ((1, 1),))):
        gram = W.T @ (powers[power][:, None] * W)
        weighted = traces * (W[:, :, None] * W[:, None, :] * powers[power][:, None, None])
        once = np.einsum("ijl,ir->jlr", weighted, W, optimize=True)
        if power == 2:
            outside_weight = design.outside_weight
            gram = gram + point.data.filled.noutside * np.multiply.outer(outside_weight, outside_weight)
            if design.outside_gram is not None and outside is not None:
                once = once + np.einsum("jl,j,l,r->jlr", outside, outside_weight, outside_weight, outside_weight)
        block = np.einsum("ajl,bjl,jl->ab", bases, bases, gram, optimize=True)
        block = block - 2 * np.einsum("alr,brj,jlr->ab", bases, bases, once, optimize=True)
        for r, c in places:
            total[r * N : (r + 1) * N, c * N : (c + 1) * N] = block
    return total


def _products_over_columns(point: ObservedPoint, F: Array) -> Array:
    """``tr(H⁻¹DᵀP∂PD H⁻¹DᵀP∂'PD)`` for every two directions: (2N, 2N).

    With ``F_j = L⁻¹ D_jᵀ W_j``, D_j the rows of axis j, the direction of axes (j, k) is ``F_j ∂ F_kᵀ + F_k ∂ F_jᵀ``
    between the columns of D, ∂ the eigenvalues for C0 and ones for C1.
    """
    s = point.data.filled.s
    of_C0 = np.concatenate([s, np.zeros(F.shape[2] - s.size)])
    pairs = [(j, k) for j in range(F.shape[1]) for k in range(j + 1)]
    total = np.zeros((2 * len(pairs), 2 * len(pairs)))
    parts = parts_of(len(F), math.isqrt(LARGEST_PART // (2 * len(pairs))))
    for number, rows in enumerate(parts):
        for columns in parts[: number + 1]:
            stacked = np.empty((2, len(pairs), rows.stop - rows.start, columns.stop - columns.start))
            for which, weights in enumerate((of_C0, np.ones_like(of_C0))):
                for place, (j, k) in enumerate(pairs):
                    stacked[which, place] = _between_columns(F, rows, columns, weights, j, k)
            total += (1 if columns == rows else 2) * _gram(stacked.reshape(2 * len(pairs), -1))
    return total


def _between_columns(F: Array, rows: slice, columns: slice, weights: Array, j: int, k: int) -> Array:
    """The direction of axes (j, k) between some columns of the design and some others."""
    product = (F[rows, j] * weights) @ F[columns, k].T
    if j == k:
        return np.asarray(product)
    return np.asarray(product + (product.T if rows == columns else (F[rows, k] * weights) @ F[columns, j].T))


def _weighted_rows(design: CellDesign, W: Array) -> Array:
    """``DᵀW``, (N, p, k): rows inside V and then those outside."""
    U = _rows_of(design, W.shape[0])
    inside = design.loadings[:, :, None] * U[:, None, :] * W.T
    if design.outside_root is None:
        return np.asarray(inside)
    root = np.zeros((design.size, len(design.outside_root)))
    root[: design.ncells] = design.outside_root.T
    outside = design.loadings[:, :, None] * root[:, None, :] * design.outside_weight[:, None]
    return np.concatenate([inside, outside], axis=2)


def directions(p: int) -> Array:
    """The symmetric matrices of all pairs of axes, (N, p, p)."""
    return symmetric(np.eye(p * (p + 1) // 2))


def _rows_of(design: CellDesign, m: int) -> Array:
    """The vectors of all columns over the rotated rows, (q + ca, m)."""
    return np.vstack([block.U for block in design.blocks]) if design.blocks else np.empty((0, m))
