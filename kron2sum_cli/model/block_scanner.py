"""Score and information of blocks of variants with C0 and C1 fixed: the products that a scan consists of."""

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from kron2sum_cli.model.likelihood import Point, normalised_effects
from kron2sum_cli.model.spectrum import Array, Floats, Indices, Mask, parts_of
from kron2sum_cli.model.trait_axes import TraitAxes

LEFT_BY_EFFECTS = 1e-9
"""Smallest share of a variant's information, in any direction of the traits, that coupled fixed effects may leave;
below it the variant counts as collinear with them."""

LEAST_FOR_SINGLE = 1e-4
"""Smallest variance of a trait axis in a row, of 1 on average, for which single precision is enough."""

MOST_CANCELLED, MOST_CANCELLED_IN_DOUBLE = 10.0, 1e5
"""How often the terms of the information outside V may hold the information of a variant, in single precision and in
double: what they leave is off by some of these times the rounding of a length."""

PRODUCTS_AT_ONCE = 512
"""Number of products that are added in single precision before they go into a sum in double."""


@dataclass(frozen=True)
class BlockStatistics:
    """Score and information of every variant of a block along the trait axes.

    - ``u`` (b, p): score ``gᵀ P_j y_j``.
    - ``v`` (b, p) or (b, p, p): information ``gᵀ P_j g``: the effect on axis j is u/v with variance 1/v. (b, p, p)
      where fixed effects or missing cells couple the axes.
    - ``length`` (b,): squared length of g outside the span of X.
    - ``outside`` (b,): the part of that length outside V, too, where GGᵀ is 0.
    """

    u: Array
    v: Array
    length: Array
    outside: Array

    def take(self, variants: Indices | Mask) -> "BlockStatistics":
        """The statistics of some variants."""
        return BlockStatistics(*(part[variants] for part in self._parts()))

    @staticmethod
    def joined(blocks: "Sequence[BlockStatistics]") -> "BlockStatistics":
        """The statistics of several blocks as one."""
        return BlockStatistics(*map(np.concatenate, zip(*(block._parts() for block in blocks), strict=True)))

    @property
    def have_information(self) -> Mask:
        """Which variants have information along every trait axis, (b,)."""
        information = np.einsum("bjj->bj", self.v) if self.v.ndim == 3 else self.v
        return np.asarray(np.all(information > 0, axis=1))

    def put(self, variants: Indices, anew: "BlockStatistics") -> None:
        """Put statistics computed anew in the place of those of some variants."""
        for part, of_some in zip(self._parts(), anew._parts(), strict=True):
            part[variants] = of_some

    def _parts(self) -> tuple[Array, ...]:
        return self.u, self.v, self.length, self.outside


@dataclass(frozen=True)
class PairStatistics:
    """Score and information of the two columns ``[g, h]`` of every variant of a block.

    Each of ``first`` and ``second`` is alone; ``cross`` (b, p) or (b, p, p) is the information ``gᵀ P_j h`` that the
    two share, where rows of (p, p) are the axes of g.
    """

    first: BlockStatistics
    second: BlockStatistics
    cross: Array

    def regression(self) -> Array:
        """``v⁻¹C``, the effects of g that look like those of h: (b, p) or (b, p, p); 0 where g has no information."""
        first, C = self.first, self.cross
        if C.ndim == 2:
            return np.divide(C, first.v, out=np.zeros_like(C), where=first.v > 0)
        known = (first.length > 0) & (least_left(first.v, np.einsum("bjj->bj", first.v)) > 0)
        V = np.where(known[:, None, None], first.v, np.eye(C.shape[1]))
        return np.where(known[:, None, None], scaled_solve(V, C), 0.0)

    def given_first(self) -> tuple[Array, Array, Array]:
        """Score (b, p) and information of h given effects of g on all traits, ``u_h - Cᵀv⁻¹u`` and ``v_h - Cᵀv⁻¹C``.

        The third is the smallest share (b,) of v_h that is left; 0 where g or h has no information.
        """
        first, second, C, taken = self.first, self.second, self.cross, self.regression()
        if C.ndim == 2:
            u, v = second.u - taken * first.u, second.v - taken * C
            known = (first.v > 0) & (second.v > 0)
            return u, v, np.min(np.divide(v, second.v, out=np.zeros_like(v), where=known), axis=1)
        u = second.u - np.einsum("bjk,bj->bk", taken, first.u)
        v = second.v - C.transpose(0, 2, 1) @ taken
        v = (v + v.transpose(0, 2, 1)) / 2
        known = (first.length > 0) & (least_left(first.v, np.einsum("bjj->bj", first.v)) > 0)
        return u, v, np.where(known, least_left(v, np.einsum("bjj->bj", second.v)), 0.0)


def precision_for(axes: TraitAxes, s: Array, outside: bool, asked: type[np.floating]) -> type[np.floating]:
    """The precision that scans need: double where an axis has hardly any variance in some row.

    Axes have variance 1 on average. ``s`` (m,) are eigenvalues of the relationship matrix, and ``outside`` says whether
    there are contrasts outside V, of eigenvalue 0. The precision is the one ``asked`` where all have enough.
    """
    least = float(np.min(axes.variances(s), initial=np.inf))
    least = min(least, float(np.min(axes.c1**2))) if outside else least
    return np.float64 if least < LEAST_FOR_SINGLE else asked


class Scanner(Protocol):
    """Score and information of blocks of variants under one null model."""

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """The precision in which it multiplies, and in which it takes variants."""

    def statistics(self, G: Floats) -> BlockStatistics:
        """Statistics of a block of variants G (n, b), without missing values; centred where X has an intercept."""

    def pair_statistics(self, G: Floats, H: Floats) -> PairStatistics:
        """Statistics of two columns a variant, those of G (n, b) and of H (n, b)."""


class ThreadMemory(threading.local):
    """Memory for one array, which every thread keeps: freeing it after each block would fragment the heap."""

    _memory: NDArray[Any] = np.empty(0)

    def take(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array that was not written yet, in the memory of what this thread took before."""
        size = math.prod(shape)
        if self._memory.size < size or self._memory.dtype != dtype:
            self._memory = np.empty(size, dtype)
        return self._memory[:size].reshape(shape)


@dataclass(frozen=True)
class BlockScanner:
    """``u`` and ``v`` of blocks of variants for A = I (or any invertible A): thin products after one rotation.

    The score needs no rotated variant, ``u = gᵀ(Vα)``: its p columns ride along as further rows of the rotation.

    - ``rotation`` (m + p, n): ``[V, Vα]ᵀ`` in the precision of the scan, α = K⁻¹r of the null model.
    - ``weights`` (m, p + 1): inverse variances W, and a column of ones.
    - ``outside_weight`` (p,): inverse variances outside V and X; None where there is nothing outside.
    - ``Qx`` (n, c): basis of X, needed for what is outside.
    """

    rotation: Floats
    weights: Floats
    outside_weight: Array | None
    Qx: Floats
    _memory: ThreadMemory = field(default_factory=ThreadMemory, repr=False, compare=False)

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """That of the rotation."""
        return self.rotation.dtype

    def rotate(self, G: Floats) -> Array:
        """Rotated variants ``VᵀG`` (m, b) in double precision, for refits."""
        return np.asarray(self.rotation[: self.weights.shape[0]] @ G, dtype=np.float64)

    def statistics(self, G: Floats) -> BlockStatistics:
        """Statistics of a block of variants G (n, b), without missing values, in the precision of the rotation.

        Where X has an intercept, centre G first: that changes nothing but rounding.
        """
        (rows,), (u,) = self._rotated(G)
        np.multiply(rows, rows, out=rows)
        return BlockStatistics(u, *self._information(rows, G))

    def pair_statistics(self, G: Floats, H: Floats) -> PairStatistics:
        """Statistics of two columns a variant, G (n, b) and H (n, b): as `statistics`, with a third product."""
        (first, second), (u_first, u_second) = self._rotated(G, H)
        products = first * second
        cross, _, outside = self._sums(products, G, H)
        np.multiply(first, first, out=first)
        np.multiply(second, second, out=second)
        found = [self._information(first, G), self._information(second, H)]
        if self.outside_weight is not None:
            weak = np.union1d(*(self._cancelled(v, length) for v, length, _ in found))
            outside[weak] = self._outside(G[:, weak], H[:, weak])
            cross = cross + np.multiply.outer(outside, self.outside_weight)
        return PairStatistics(BlockStatistics(u_first, *found[0]), BlockStatistics(u_second, *found[1]), cross)

    def _rotated(self, *blocks: Floats) -> tuple[Floats, Sequence[Array]]:
        """Blocks (n, b) in the rows, (m, b) each, and their scores (b, p)."""
        m = self.weights.shape[0]
        shape = (len(blocks), self.rotation.shape[0], blocks[0].shape[1])
        rotated = self._memory.take(shape, np.result_type(self.rotation, *blocks))
        for block, out in zip(blocks, rotated, strict=True):
            np.matmul(self.rotation, block, out=out)
        return rotated[:, :m], [one[m:].T.astype(np.float64) for one in rotated]

    def _information(self, squares: Floats, G: Floats) -> tuple[Array, Array, Array]:
        """``v``, ``length`` and ``outside`` of variants G (n, b) with squares (m, b) in the rows."""
        v, length, outside = self._sums(squares, G, G)
        outside = np.maximum(outside, 0.0)
        if self.outside_weight is not None:
            weak = self._cancelled(v + np.multiply.outer(outside, self.outside_weight), length + outside)
            outside[weak] = self._outside(G[:, weak], G[:, weak])
            v, length = v + np.multiply.outer(outside, self.outside_weight), length + outside
        return v, length, outside

    def _cancelled(self, v: Array, length: Array) -> Indices:
        """Variants of which rounding of the part outside V, a difference of lengths, would be seen in v (b, p)."""
        assert self.outside_weight is not None
        terms = np.multiply.outer(length, self.outside_weight)
        most = MOST_CANCELLED if self.rotation.dtype == np.float32 else MOST_CANCELLED_IN_DOUBLE
        return np.flatnonzero(np.any(terms > most * v, axis=1))

    def _outside(self, G: Floats, H: Floats) -> Array:
        """Inner products (b,) of what G and H (n, b) have outside V and X, which is made first."""
        V, Qx = self.rotation[: self.weights.shape[0]].T, self.Qx
        parts = [one - V @ (V.T @ one) - Qx @ (Qx.T @ one) for one in ((G,) if H is G else (G, H))]
        return np.asarray(np.einsum("ib,ib->b", parts[0], parts[-1], dtype=np.float64))

    def _sums(self, products: Floats, G: Floats, H: Floats) -> tuple[Array, Array, Array]:
        """Products (m, b) of the rows of G and H added up by the weights (b, p), without them, and outside (b,)."""
        sums = (products.T @ self.weights).astype(np.float64)
        inside = sums[:, -1]
        if self.outside_weight is None:
            return sums[:, :-1], inside, np.zeros(len(inside))
        of_G = (self.Qx.T @ G).T
        projected = inner_products(of_G, of_G if H is G else (self.Qx.T @ H).T)
        return sums[:, :-1], inside, inner_products(G.T, H.T) - inside - projected


def inner_products(rows: Floats, others: Floats) -> Array:
    """Inner products of the rows of two (b, n); short parts of a row in its own precision, their sum in double."""
    b, n = rows.shape
    total = np.zeros(b)
    for part in parts_of(n, PRODUCTS_AT_ONCE):
        total += np.einsum("bi,bi->b", rows[:, part], others[:, part])
    return total


@dataclass(frozen=True)
class CoupledBlockScanner:
    """``u`` and ``V`` (p, p) of blocks of variants for a trait design A of rank below p.

    ``P = K⁻¹ - FFᵀ`` with ``F = K⁻¹M H^-½``, so that ``V_jl = δ_jl Σ_i g̃_i² w_ij - Σ_q (g̃ᵀF_jq)(g̃ᵀF_lq)``. In double
    precision, because variants cannot be centred.

    ``diagonal`` is the scanner of ``K⁻¹`` without the fixed effects. ``F`` (m, pq) has the p axes of every effect q
    side by side.
    """

    diagonal: BlockScanner
    F: Array

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """That of the rotation."""
        return self.diagonal.dtype

    def rotate(self, G: Floats) -> Array:
        """Rotated variants ``VᵀG`` (m, b)."""
        return self.diagonal.rotate(G)

    def statistics(self, G: Floats) -> BlockStatistics:
        """Statistics of a block of variants G (n, b), without missing values."""
        plain = self.diagonal.statistics(G)
        return self._given_effects(plain, self._explained(G))

    def pair_statistics(self, G: Floats, H: Floats) -> PairStatistics:
        """Statistics of two columns a variant, G (n, b) and H (n, b), without missing values."""
        plain, of_G, of_H = self.diagonal.pair_statistics(G, H), self._explained(G), self._explained(H)
        cross = plain.cross[:, :, None] * np.eye(plain.cross.shape[1]) - of_G @ of_H.transpose(0, 2, 1)
        first, second = self._given_effects(plain.first, of_G), self._given_effects(plain.second, of_H)
        return PairStatistics(first, second, cross)

    def _explained(self, G: Floats) -> Array:
        """``(g̃ᵀF_jq)`` of every variant and axis, (b, p, q)."""
        p = self.diagonal.weights.shape[1] - 1
        return (self.rotate(G).T @ self.F).reshape(G.shape[1], p, self.F.shape[1] // p)

    def _given_effects(self, plain: BlockStatistics, explained: Array) -> BlockStatistics:
        """Statistics with the fixed effects in the model."""
        V = plain.v[:, :, None] * np.eye(plain.v.shape[1]) - explained @ explained.transpose(0, 2, 1)
        length = np.where(least_left(V, plain.v) > LEFT_BY_EFFECTS, plain.length, 0.0)
        return BlockStatistics(plain.u, V, length, plain.outside)


def least_left(V: Array, complete: Array) -> Array:
    """Smallest share (b,) that V (b, p, p) is of information ``complete`` (b, p), in any direction of the axes."""
    size = np.sqrt(np.where(complete > 0, complete, 1.0))
    return np.asarray(np.linalg.eigvalsh(V / (size[:, :, None] * size[:, None, :]))[:, 0])


def scaled_solve(V: Array, M: Array) -> Array:
    """``V⁻¹M`` for V (b, p, p) and M (b, p, k), scaled to a diagonal of ones: axes may differ much."""
    size = np.sqrt(np.einsum("bii->bi", V))[:, :, None]
    return np.asarray(np.linalg.solve(V / (size * size.transpose(0, 2, 1)), M / size) / size)


def block_scanner(
    point: Point, Qx: Array, dtype: type[np.floating] = np.float32, rows: Floats | None = None
) -> BlockScanner | CoupledBlockScanner:
    """The scanner of blocks at a null model, in single or double precision (double where the axes are coupled).

    ``rows`` (m + p, n), whose first m are ``Vᵀ``, become its rotation where they have that precision.
    """
    data = point.data
    if point.coupled is not None and data.design is not None:
        effects = normalised_effects(data, point.coupled, point.W)
        F = effects.transpose(1, 0, 2).reshape(effects.shape[1], -1)
        return CoupledBlockScanner(diagonal_scanner(point, Qx, np.float64, rows), F)
    return diagonal_scanner(point, Qx, dtype, rows)


def diagonal_scanner(point: Point, Qx: Array, dtype: type[np.floating], rows: Floats | None) -> BlockScanner:
    """The scanner of blocks at a null model without regard to fixed effects that are not projected out."""
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
