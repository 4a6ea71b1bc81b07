"""Score and information of blocks of variants with C0 and C1 fixed: the products that a scan consists of."""

import threading
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.model.likelihood import Point, normalised_effects
from kron2sum_cli.model.spectrum import Array

LEFT_BY_EFFECTS = 1e-9
"""Smallest share of a variant's information, in any direction of the traits, that coupled fixed effects may leave;
below it the variant counts as collinear with them."""

SQUARES_AT_ONCE = 512
"""Number of squares that are added in single precision before they go into a sum in double."""


@dataclass(frozen=True)
class BlockStatistics:
    """Score and information of every variant of a block along the trait axes.

    Attributes
    ----------
    u : NDArray (b, p)
        Score ``gᵀ P_j y_j``.
    v : NDArray (b, p) or (b, p, p)
        Information ``gᵀ P_j g``: the effect on axis j is u/v with variance 1/v. (b, p, p) where fixed effects or
        missing cells couple the axes.
    length : NDArray (b,)
        Squared length of g outside the span of X.
    outside : NDArray (b,)
        The part of that length outside V, too, where GGᵀ is 0.
    """

    u: Array
    v: Array
    length: Array
    outside: Array


class Scanner(Protocol):
    """Score and information of blocks of variants under one null model."""

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """The precision in which it multiplies, and in which it takes variants."""

    def rotate(self, G: NDArray[np.floating]) -> Array:
        """Rotated variants ``VᵀG`` (m, b) in double precision, for refits."""

    def statistics(self, G: NDArray[np.floating]) -> BlockStatistics:
        """Statistics of a block of variants G (n, b), without missing values; centred where X has an intercept."""


@dataclass(frozen=True)
class BlockScanner:
    """``u`` and ``v`` of blocks of variants for A = I (or any invertible A): thin products after one rotation.

    The score needs no rotated variant, ``u = gᵀ(Vα)``: its p columns ride along as further rows of the rotation.

    Attributes
    ----------
    rotation : NDArray (m + p, n)
        ``[V, Vα]ᵀ`` in the precision of the scan, α = K⁻¹r of the null model.
    weights : NDArray (m, p + 1)
        Inverse variances W, and a column of ones.
    outside_weight : NDArray (p,) or None
        Inverse variances outside V and X; None where there is nothing outside.
    Qx : NDArray (n, c)
        Basis of X, needed for what is outside.
    """

    rotation: NDArray[np.floating]
    weights: NDArray[np.floating]
    outside_weight: Array | None
    Qx: NDArray[np.floating]
    _own: threading.local = field(default_factory=threading.local, repr=False, compare=False)

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """That of the rotation."""
        return self.rotation.dtype

    def rotate(self, G: NDArray[np.floating]) -> Array:
        """Rotated variants ``VᵀG`` (m, b) in double precision, for refits."""
        return np.asarray(self.rotation[: self.weights.shape[0]] @ G, dtype=np.float64)

    def statistics(self, G: NDArray[np.floating]) -> BlockStatistics:
        """Statistics of a block of variants G (n, b), without missing values, in the precision of the rotation.

        Where X has an intercept, centre G first: that changes nothing but rounding.
        """
        m = self.weights.shape[0]
        rotated = np.matmul(self.rotation, G, out=self._workspace(G))
        u = rotated[m:].T.astype(np.float64)
        squares = rotated[:m]
        np.multiply(squares, squares, out=squares)
        sums = (squares.T @ self.weights).astype(np.float64)
        v, length = sums[:, :-1], sums[:, -1]
        outside = np.zeros(len(length))
        if self.outside_weight is not None:
            projected = squared_lengths((self.Qx.T @ G).T)
            outside = np.maximum(squared_lengths(G.T) - length - projected, 0.0)
            v, length = v + np.multiply.outer(outside, self.outside_weight), length + outside
        return BlockStatistics(u, v, length, outside)

    def _workspace(self, G: NDArray[np.floating]) -> NDArray[np.floating]:
        """Memory for a rotated block, kept for every thread: freeing it after each block would fragment the heap."""
        shape, dtype = (self.rotation.shape[0], G.shape[1]), np.result_type(self.rotation, G)
        size = shape[0] * shape[1]
        memory: NDArray[np.floating] | None = getattr(self._own, "memory", None)
        if memory is None or memory.size < size or memory.dtype != dtype:
            memory = self._own.memory = np.empty(size, dtype)
        return memory[:size].reshape(shape)


def squared_lengths(rows: NDArray[np.floating]) -> Array:
    """Sums of squares of the rows of (b, n); short parts of a row in its own precision, their sum in double."""
    b, n = rows.shape
    total = np.zeros(b)
    for start in range(0, n, SQUARES_AT_ONCE):
        part = rows[:, start : start + SQUARES_AT_ONCE]
        total += np.einsum("bi,bi->b", part, part)
    return total


@dataclass(frozen=True)
class CoupledBlockScanner:
    """``u`` and ``V`` (p, p) of blocks of variants for a trait design A of rank below p.

    ``P = K⁻¹ - FFᵀ`` with ``F = K⁻¹M H^-½``, so that ``V_jl = δ_jl Σ_i g̃_i² w_ij - Σ_q (g̃ᵀF_jq)(g̃ᵀF_lq)``. In double
    precision, because variants cannot be centred.

    Attributes
    ----------
    diagonal : BlockScanner
        The scanner of ``K⁻¹`` without the fixed effects.
    F : NDArray (m, pq)
        ``K⁻¹M H^-½``, the p axes of every effect q side by side.
    """

    diagonal: BlockScanner
    F: Array

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """That of the rotation."""
        return self.diagonal.dtype

    def rotate(self, G: NDArray[np.floating]) -> Array:
        """Rotated variants ``VᵀG`` (m, b)."""
        return self.diagonal.rotate(G)

    def statistics(self, G: NDArray[np.floating]) -> BlockStatistics:
        """Statistics of a block of variants G (n, b), without missing values."""
        plain = self.diagonal.statistics(G)
        b, p = plain.u.shape
        explained = (self.rotate(G).T @ self.F).reshape(b, p, self.F.shape[1] // p)
        V = plain.v[:, :, None] * np.eye(p) - explained @ explained.transpose(0, 2, 1)
        size = np.sqrt(np.where(plain.v > 0, plain.v, 1.0))
        left = np.linalg.eigvalsh(V / (size[:, :, None] * size[:, None, :]))[:, 0]
        return BlockStatistics(plain.u, V, np.where(left > LEFT_BY_EFFECTS, plain.length, 0.0), plain.outside)


def block_scanner(
    point: Point, Qx: Array, dtype: type[np.floating] = np.float32, rows: NDArray[np.floating] | None = None
) -> BlockScanner | CoupledBlockScanner:
    """The scanner of blocks at a null model, in single or double precision (double where the axes are coupled).

    ``rows`` (m + p, n), whose first m are ``Vᵀ``, become its rotation where they have that precision.
    """
    data = point.data
    if point.coupled is not None and data.design is not None:
        effects = normalised_effects(data, point.coupled, point.W)
        F = effects.transpose(1, 0, 2).reshape(effects.shape[1], -1)
        return CoupledBlockScanner(_diagonal_scanner(point, Qx, np.float64, rows), F)
    return _diagonal_scanner(point, Qx, dtype, rows)


def _diagonal_scanner(
    point: Point, Qx: Array, dtype: type[np.floating], rows: NDArray[np.floating] | None
) -> BlockScanner:
    data = point.data
    m, p = point.W.shape
    if rows is None or rows.dtype != dtype:
        rotation = np.empty((m + p, data.nsamples), dtype=dtype)
        rotation[:m] = data.V.T
    else:
        rotation = rows
    rotation[m:] = data.to_samples(point.alpha).T
    return BlockScanner(
        rotation=rotation,
        weights=np.hstack([point.W, np.ones((m, 1))]).astype(dtype),
        outside_weight=point.outside_weight if data.noutside else None,
        Qx=Qx.astype(dtype),
    )
