"""The design of missing cells and fixed effects at one point, in the trait axes.

Every column of ``[E, A ⊗ Qx]`` is a trait loading times a vector over samples: the unit vector of a sample for a
missing cell, a column of Qx for a fixed effect. Columns with the same loading form a block, a thin matrix over the
rotated rows. For blocks A and B with loadings t and t' (in the axes) and rows U and U'::

    (DᵀPD)_AB = U diag(Σ_j w_j t_j t'_j) U'ᵀ,

one matrix product a pair of blocks, whatever the number of traits.
"""

from dataclasses import dataclass

import numpy as np
from scipy import linalg
from scipy.linalg import lapack

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.missing.observed import ObservedCells
from kron2sum_cli.model.spectrum import Array, Indices
from kron2sum_cli.model.trait_axes import TraitAxes

SINGULAR_DESIGN = 1e-13
"""Smallest share of its squared length, in the metric of K⁻¹, that a column may have outside the span of the others;
below it the design counts as singular."""

QR_BLOCK = 32
"""Number of columns that an orthogonal triangularisation takes at a time."""

LARGEST_WEIGHT = 1e4
"""Largest inverse variance of a rotated row in the trait axes, whose total variance is about 1, that the Gram matrix of
the design takes. Larger ones, along which C1 and GGᵀ are both nearly singular, would drown the others in rounding."""

SMALLEST_HALF = 64
"""Smallest number of rows of a symmetric product that is split in two halves."""


@dataclass(frozen=True)
class DesignBlock:
    """Columns of the design with one trait loading.

    ``columns`` are their positions in the design, ``loading`` (p,) is along the trait axes, and ``U`` (r, m) are their
    vectors over the rotated rows.
    """

    columns: slice
    loading: Array
    U: Array


@dataclass(frozen=True)
class CellDesign:
    """``D = [E, A ⊗ Qx]`` in the trait axes: q missing cells, then ca fixed effects, column by column of B.

    - ``blocks``: in the order of the columns, missing cells first.
    - ``loadings`` (q + ca, p): loading of every column.
    - ``ncells``, ``neffects``: number of missing cells, q, and of fixed effects, ca.
    - ``outside_root`` (r, q), ``outside_gram`` (q, q): the missing cells' unit vectors outside V, and their inner
      products; None where there is nothing outside.
    - ``outside_weight`` (p,): inverse variances outside V, 0 where there is nothing outside.
    - ``left_out`` (k,): columns of fixed effects that are left out: zeros, which get an information of 1 and so an
      effect of 0.
    """

    blocks: tuple[DesignBlock, ...]
    loadings: Array
    ncells: int
    neffects: int
    outside_root: Array | None
    outside_gram: Array | None
    outside_weight: Array
    left_out: Indices

    @property
    def size(self) -> int:
        """Number of columns, q + ca."""
        return self.ncells + self.neffects

    def gram(self, W: Array, outside_weight: Array) -> Array:
        """Lower triangle of ``DᵀWD``, (q + ca, q + ca) in Fortran order; entries above it are undefined.

        Weights W (m, p) of the rows and axes are not negative; ``outside_weight`` (p,) is that of the axes outside V.
        """
        H = np.zeros((self.size, self.size), order="F")
        for k, left in enumerate(self.blocks):
            for right in self.blocks[: k + 1]:
                loading = left.loading * right.loading
                H[left.columns, right.columns] = _product(left, right, W @ loading)
                if self.outside_gram is not None and left.columns.start < self.ncells:
                    inner = self.outside_gram[left.columns, right.columns]
                    H[left.columns, right.columns] += float(np.sum(outside_weight * loading)) * inner
        return H

    def beyond(self, W: Array, outside_weight: Array) -> Array:
        """``W^½D`` of the rows and axes with a weight (m, p) other than 0, inside V and outside: (k, q + ca)."""
        rows = [np.zeros((0, self.size))]
        for j in np.flatnonzero(W.any(axis=0)):
            heavy = np.flatnonzero(W[:, j])
            parts = [block.loading[j] * block.U[:, heavy].T for block in self.blocks]
            rows.append(np.sqrt(W[heavy, j, None]) * np.hstack(parts))
        for j in np.flatnonzero(outside_weight) if self.outside_root is not None else ():
            cells = np.sqrt(outside_weight[j]) * self.outside_root * self.loadings[: self.ncells, j]
            rows.append(np.hstack([cells, np.zeros((len(cells), self.neffects))]))
        return np.vstack(rows)

    def leading(self, size: int) -> "CellDesign":
        """The design of the first ``size`` columns: all missing cells, and the fixed effects of some terms or none."""
        blocks = tuple(b for b in self.blocks if b.columns.start < size)
        neffects = size - self.ncells
        outside = self.outside_root, self.outside_gram, self.outside_weight
        return CellDesign(
            blocks, self.loadings[:size], self.ncells, neffects, *outside, self.left_out[self.left_out < size]
        )

    def transposed(self, F: Array, outside: Array) -> Array:
        """``Dᵀf`` for f with rows F (m, p) in the span of V and coefficients (q, p) of the cells' vectors outside."""
        parts = [block.U @ (F @ block.loading) for block in self.blocks]
        out = np.concatenate(parts) if parts else np.empty(0)
        if self.outside_root is not None:
            seen = self.outside_root.T @ (self.outside_root @ outside)
            out[: self.ncells] += np.sum(self.loadings[: self.ncells] * seen, axis=1)
        return np.asarray(out)

    def times(self, theta: Array) -> tuple[Array, Array]:
        """``Dθ``: its rows (m, p) in the span of V, and coefficients (q, p) of the cells' vectors outside."""
        rows = [theta[b.columns] @ b.U for b in self.blocks]
        loadings = np.array([b.loading for b in self.blocks])
        inside = np.array(rows).T @ loadings if rows else np.zeros((0, self.outside_weight.size))
        outside = self.loadings[: self.ncells] * theta[: self.ncells, None]
        return inside, outside if self.outside_gram is not None else np.zeros((0, self.outside_weight.size))


def _product(left: DesignBlock, right: DesignBlock, weights: Array) -> Array:
    if left is right:
        root = left.U * np.sqrt(weights)
        return np.asarray(root @ root.T)
    if left.U.shape[0] <= right.U.shape[0]:
        return np.asarray((left.U * weights) @ right.U.T)
    return np.asarray(left.U @ (right.U * weights).T)


def design_at(data: ObservedCells, axes: TraitAxes) -> CellDesign:
    """The design in the axes of a point."""
    blocks = []
    edges = np.searchsorted(data.traits, np.arange(data.ntraits + 1))
    for j in np.flatnonzero(np.diff(edges)):
        cells = slice(int(edges[j]), int(edges[j + 1]))
        blocks.append(DesignBlock(cells, axes.T[:, j], data.U[cells]))
    start = data.ncells
    left_out = start + np.flatnonzero(data.left_out.T)
    for A, X in data.terms:
        vectors = np.ascontiguousarray(X.T)
        for loading in (axes.T @ A).T if vectors.size else ():
            columns = slice(start, start + vectors.shape[0])
            absent = np.isin(np.arange(start, columns.stop), left_out)
            own = np.where(absent[:, None], 0.0, vectors) if absent.any() else vectors
            blocks.append(DesignBlock(columns, loading, own))
            start = columns.stop
    outside_weight = 1 / axes.c1**2 if data.filled.noutside else np.zeros(axes.c1.size)
    counts = [block.U.shape[0] for block in blocks]
    loadings = np.repeat(np.array([block.loading for block in blocks]).reshape(-1, axes.c1.size), counts, axis=0)
    loadings[left_out] = 0.0
    outside = data.outside_root, data.outside_gram, outside_weight
    return CellDesign(tuple(blocks), loadings, data.ncells, start - data.ncells, *outside, left_out)


def precision_factor(design: CellDesign, W: Array) -> Array:
    """Lower Cholesky factor L of ``H = DᵀPD`` for inverse variances W (m, p).

    The factor of what weights up to `LARGEST_WEIGHT` give is updated by the rows of those above it. Formed as one
    matrix, weights of 10⁸ would leave the others, and with them the determinant, eight digits. Raises NumericalError
    where K is singular, or fixed effects are linear combinations of each other over the observed cells.
    """
    light, light_outside = np.minimum(W, LARGEST_WEIGHT), np.minimum(design.outside_weight, LARGEST_WEIGHT)
    H = design.gram(light, light_outside)
    H[design.left_out, design.left_out] = 1.0
    L = _factorise(H, design.ncells)
    return _updated(L, design.beyond(W - light, design.outside_weight - light_outside))


def has_large_weights(design: CellDesign, W: Array) -> bool:
    """Whether any inverse variance is above `LARGEST_WEIGHT`."""
    return bool(max(W.max(initial=0.0), design.outside_weight.max()) > LARGEST_WEIGHT)


def _factorise(H: Array, ncells: int) -> Array:
    """Lower Cholesky factor, in place, of a Gram matrix whose first ``ncells`` columns are missing cells."""
    sizes = np.diag(H).copy()
    if sizes.size == 0:
        return H
    L, info = lapack.dpotrf(H, lower=1, clean=1, overwrite_a=1)
    if 0 < info <= ncells or not np.all(np.isfinite(sizes)):
        raise NumericalError("the likelihood is not defined: the covariance of the missing cells is singular")
    if info != 0 or np.any(np.diag(L)[ncells:] ** 2 <= SINGULAR_DESIGN * sizes[ncells:]):
        raise NumericalError(
            "the fixed effects are collinear over the observed cells: the samples of a trait do not tell its covariates"
            " apart"
        )
    return np.asarray(L)


def _updated(L: Array, rows: Array) -> Array:
    """Lower Cholesky factor (N, N) of ``LLᵀ + rowsᵀ rows``, by orthogonal triangularisation."""
    if rows.size == 0:
        return L
    R, *_ = lapack.dtpqrt(0, min(QR_BLOCK, len(L)), np.asfortranarray(L.T), np.asfortranarray(rows))
    return np.asarray((np.sign(np.diag(R))[:, None] * np.triu(R)).T, order="F")


def inverse_of(L: Array) -> Array:
    """Lower triangle of ``(LLᵀ)⁻¹``; entries above it are 0."""
    if L.shape[0] == 0:
        return L.copy(order="F")
    inverse, info = lapack.dpotri(L, lower=1)
    if info != 0:
        raise NumericalError("the covariance of the missing cells is singular")
    return np.asarray(inverse)


def half_solve(L: Array, b: Array) -> Array:
    """``L⁻¹b`` for b (N,) or (N, k)."""
    return np.asarray(linalg.solve_triangular(L, b, lower=True, check_finite=False))


def row_traces(design: CellDesign, S: Array) -> tuple[Array, Array]:
    """Diagonal blocks of ``D S Dᵀ``: the (p, p) block of every rotated row, and the sum of those outside V.

    S (N, N) is symmetric; its lower triangle is read. Returns (m, p, p) over the rotated rows, and (p, p).
    """
    size, p = len(design.blocks), design.outside_weight.size
    m = design.blocks[0].U.shape[1] if size else 0
    inside, outside = np.zeros((size, size, m)), np.zeros((size, size))
    for k, left in enumerate(design.blocks):
        for other, right in enumerate(design.blocks[: k + 1]):
            own = other == k
            part = S[left.columns, right.columns]
            part = np.tril(part) + np.tril(part, -1).T if own else part
            inside[k, other] = inside[other, k] = _own_rows(part, left.U) if own else _rows(part, left.U, right.U)
            if design.outside_gram is not None and left.columns.start < design.ncells:
                inner = design.outside_gram[left.columns, right.columns]
                outside[k, other] = outside[other, k] = np.sum(part * inner)
    loadings = np.array([block.loading for block in design.blocks]).reshape(size, p)
    half = (loadings.T @ inside.reshape(size, size * m)).reshape(p, size, m)
    return half.transpose(2, 0, 1) @ loadings, loadings.T @ outside @ loadings


def _rows(S: Array, U: Array, R: Array) -> Array:
    """Diagonal of ``UᵀSR``."""
    return np.asarray(np.einsum("rm,rm->m", S @ R, U))


def _own_rows(S: Array, U: Array) -> Array:
    """Diagonal of ``UᵀSU`` for S symmetric, in little more than half the operations."""
    half = U.shape[0] // 2
    if half < SMALLEST_HALF:
        return _rows(S, U, U)
    apart = _rows(S[half:, :half], U[half:], U[:half])
    return _own_rows(S[:half, :half], U[:half]) + _own_rows(S[half:, half:], U[half:]) + 2 * apart
