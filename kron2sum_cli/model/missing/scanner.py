"""Tests of variants on the observed cells, with C0 and C1 fixed at the null model.

With M1 the p columns of a variant g, one a trait axis, and ``Q = P - PDH⁻¹DᵀP`` (D: missing cells and fixed effects)::

    u = M1ᵀ Q y, its j-th entry gᵀα_j,       V = M1ᵀ Q M1 = diag(Σ_i g̃_i² w_ij) - ‖L⁻¹ DᵀP M1‖²,   H = LLᵀ.

``DᵀP M1`` needs ``K_j⁻¹g`` in the rows with missing cells only: one thin product an axis after the rotation, shared by
all cells of a row. Then comes one product with L⁻¹, whatever the number of variants.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import linalg

from kron2sum_cli.model.block_scanner import BlockStatistics, PairStatistics, least_left
from kron2sum_cli.model.collinearity import GenotypedCovariates
from kron2sum_cli.model.likelihood import cholesky_solve
from kron2sum_cli.model.missing.design import (
    LARGEST_WEIGHT,
    CellDesign,
    design_at,
    half_solve,
    has_large_weights,
    precision_factor,
)
from kron2sum_cli.model.missing.likelihood import ObservedPoint
from kron2sum_cli.model.missing.observed import ObservedCells, with_cells_inside
from kron2sum_cli.model.spectrum import EPSILON, Array, Floats, Indices, parts_of, weighted_products

COLUMNS_AT_ONCE = 128
"""Number of columns of L⁻¹ in one product; blocks above its diagonal, which are 0, are left out."""

BATCH_ENTRIES, FEWEST_VARIANTS = 1 << 21, 32
"""Number of entries of ``L⁻¹DᵀP M1`` that are held at a time, and the smallest number of variants."""

SURELY_LEFT = 1e-6
"""Share of information that is no rounding, however different the inverse variances."""

UNITS_OF_ROUNDING = 256
"""Smallest information of an effect, in units of rounding of that of complete data; below it the effect is not
estimable."""

LEFT_FOR_SINGLE = 0.05
"""Smallest share of the complete data's information that the missing cells may leave, in any direction of the traits,
for single precision: the error of a statistic is that of the products divided by this share."""


@dataclass(frozen=True)
class CutRows:
    """The k rows B whose inverse variances are cut at `LARGEST_WEIGHT`, where C1 and GGᵀ are both nearly singular.

    They have inverse variances of 10⁹ there, and ``Q = P - PDH⁻¹DᵀP`` is a difference of numbers of that size, most of
    which the missing cells take away. With the cut weights P_l and ``LLᵀ = H_l = DᵀP_lD`` nothing is larger than what
    the observed cells know (Woodbury; Δ is what is cut off)::

        Q = Q_l + Rᵀ S⁻¹ R,      R = B (I - D H_l⁻¹ Dᵀ P_l),      S = Δ⁻¹ + B D H_l⁻¹ Dᵀ Bᵀ.

    - ``rows``, ``axes`` (k,): rotated row and trait axis of each.
    - ``explained`` (q + ca, k): ``L⁻¹DᵀBᵀ``.
    - ``root`` (k, k): lower Cholesky factor of S.
    - ``outside_weight`` (p,): inverse variances outside V, where variants alone have a part; None where there is
      nothing outside.
    """

    rows: Indices
    axes: Indices
    explained: Array
    root: Array
    outside_weight: Array | None

    def left(self, rotated: Floats, explained: Floats) -> Array:
        """``S^-½ B (M1 - D H_l⁻¹ DᵀP_l M1)`` of variants ``VᵀG`` (m, b) with ``L⁻¹DᵀP_l M1``: (b, p, k)."""
        left: Array = -np.asarray(explained @ self.explained, np.float64)
        left[:, self.axes, np.arange(self.axes.size)] += rotated[self.rows].T
        flat = half_solve(self.root, left.reshape(-1, self.axes.size).T)
        return np.asarray(flat.T.reshape(left.shape))


@dataclass(frozen=True)
class ObservedScanner:
    """``u`` and ``V`` (p, p) of blocks of variants given the observed cells.

    - ``rotation`` (m + p, n): ``[V, α]ᵀ`` in the precision of the scan.
    - ``weights`` (m, p): inverse variances.
    - ``thin`` (r + c, m): rows of V with missing cells, each once, then the covariates, rotated.
    - ``index`` (q + ca,): row of ``thin`` of every column of the design.
    - ``loadings`` (p, q + ca): loading of every column, along the axes.
    - ``inverse`` (q + ca, q + ca): ``L⁻¹``.
    - ``missing_rows`` (r,): samples of the first rows of ``thin``.
    - ``outside_weight`` (p,): inverse variances outside V; None where there is nothing outside.
    - ``Qx`` (n, c): orthonormal basis of the covariates.
    - ``covariates``: those of the null model, over the samples of every trait.
    - ``in_double``: the same in double precision, for variants for which single is not enough; None where this one is
      in double.
    - ``cut``: rows whose ``weights`` are cut; None where none are.
    """

    rotation: Floats
    weights: Floats
    thin: Floats
    index: Indices
    loadings: Floats
    inverse: Floats
    missing_rows: Indices
    outside_weight: Floats | None
    Qx: Floats
    covariates: GenotypedCovariates
    in_double: "ObservedScanner | None" = None
    cut: CutRows | None = None

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """Variants are taken in double precision, whatever that of the rotation."""
        return np.dtype(np.float64)

    def rotate(self, G: Floats) -> Array:
        """Rotated variants ``VᵀG`` (m, b) in double precision."""
        return np.asarray(self.rotation[: self.weights.shape[0]] @ G, dtype=np.float64)

    def statistics(self, G: Floats) -> BlockStatistics:
        """Statistics of a block of variants G (n, b), without missing values, in the precision of the rotation.

        Variants of which the missing cells leave too little for that are computed in double. Where X has an intercept,
        centre G first: that changes nothing but rounding. ``length`` is 0 for a variant whose effects the samples of a
        trait do not tell from the covariates', or from each other.
        """
        found, left = self._statistics(np.asarray(G, self.rotation.dtype))
        if self.in_double is None:
            return estimable(found, left, G, self.covariates)
        weak = np.flatnonzero(~(left > LEFT_FOR_SINGLE))
        if weak.size:
            found.put(weak, self.in_double.statistics(np.asarray(G[:, weak], np.float64)))
        return found

    def pair_statistics(self, G: Floats, H: Floats) -> PairStatistics:
        """Statistics of two columns a variant, G (n, b) and H (n, b): as `statistics`, with a third product."""
        found, left_G, left_H = self._pair_statistics(*(np.asarray(one, self.rotation.dtype) for one in (G, H)))
        if self.in_double is None:
            first = estimable(found.first, left_G, G, self.covariates)
            return replace(found, first=first, second=estimable(found.second, left_H, H, self.covariates))
        least = np.minimum(np.minimum(left_G, left_H), found.given_first()[2])
        weak = np.flatnonzero(~(least > LEFT_FOR_SINGLE))
        if weak.size:
            anew = self.in_double.pair_statistics(*(np.asarray(one[:, weak], np.float64) for one in (G, H)))
            found.first.put(weak, anew.first)
            found.second.put(weak, anew.second)
            found.cross[weak] = anew.cross
        return found

    def _statistics(self, G: Floats) -> tuple[BlockStatistics, Array]:
        """Statistics, and the smallest share (b,) of the terms of complete data that is left in any direction."""
        u, rotated = self._rotated(G)
        ((V, terms),) = self._information([(G, rotated)], [(0, 0)])
        return self._block(G, u, V), least_left(V, terms)

    def _pair_statistics(self, G: Floats, H: Floats) -> tuple[PairStatistics, Array, Array]:
        """Statistics of two columns a variant, and the smallest share (b,) that is left of either's terms."""
        (u_G, of_G), (u_H, of_H) = self._rotated(G), self._rotated(H)
        (V_G, terms_G), (V_H, terms_H), (cross, _) = self._information([(G, of_G), (H, of_H)], [(0, 0), (1, 1), (0, 1)])
        found = PairStatistics(self._block(G, u_G, V_G), self._block(H, u_H, V_H), cross)
        return found, least_left(V_G, terms_G), least_left(V_H, terms_H)

    def _information(
        self, blocks: Sequence[tuple[Floats, Floats]], pairs: Sequence[tuple[int, int]]
    ) -> list[tuple[Array, Array]]:
        """``M1ᵀQM1'`` (b, p, p) of pairs of blocks, which are variants (n, b) and rotated ones (m, b).

        Beside it how large the terms (b, p) are of which it is made.
        """
        found = []
        for i, k in pairs:
            complete, terms = self._complete(*blocks[i], *blocks[k])
            found.append((complete[:, :, None] * np.eye(complete.shape[1]), terms))
        for part in self._parts(blocks[0][0].shape[1]):
            taken = [self.explained(G[:, part], rotated[:, part]) for G, rotated in blocks]
            for (V, _), (i, k) in zip(found, pairs, strict=True):
                V[part] -= taken[i] @ taken[k].transpose(0, 2, 1)
            if self.cut is not None:
                left = [self.cut.left(of[:, part], one) for (_, of), one in zip(blocks, taken, strict=True)]
                for (V, terms), (i, k) in zip(found, pairs, strict=True):
                    V[part] += left[i] @ left[k].transpose(0, 2, 1)
                    terms[part] += np.sum(left[i] * left[k], axis=2)
        return found

    def _rotated(self, G: Floats) -> tuple[Array, Floats]:
        """Scores (b, p) and rotated variants (m, b)."""
        m = self.weights.shape[0]
        rotated = self.rotation @ G
        return rotated[m:].T.astype(np.float64), rotated[:m]

    def _complete(self, G: Floats, of_G: Floats, H: Floats, of_H: Floats) -> tuple[Array, Array]:
        """Information of complete data without fixed effects (b, p), of variants (n, b) and rotated ones (m, b).

        Beside it how large the terms are of which it is made: what is outside V is a difference of lengths.
        """
        products = of_G * of_H
        found = (products.T @ self.weights).astype(np.float64)
        if self.cut is not None and self.cut.outside_weight is not None:
            outside = np.sum(self._outside(G, of_G) * self._outside(H, of_H), axis=0)
            found += np.multiply.outer(outside, self.cut.outside_weight)
        if self.outside_weight is None:
            return found, found
        weight = self.outside_weight.astype(np.float64)
        length = np.einsum("ib,ib->b", G, H, dtype=np.float64)
        outside = length - products.sum(axis=0, dtype=np.float64)
        found += np.multiply.outer(np.maximum(outside, 0.0) if H is G else outside, weight)
        return found, np.maximum(found, np.multiply.outer(length, weight))

    def _outside(self, G: Floats, rotated: Floats) -> Floats:
        """What variants G (n, b) have outside V."""
        return np.asarray(G - self.rotation[: len(rotated)].T @ rotated)

    def set_information(self, G: Array, rotated: Array) -> tuple[Array, Array]:
        """``M1ᵀQM1'`` of all pairs of q variants G (n, q) and ``VᵀG``: (p, p, q, q); how large its terms are (p, q).

        This scanner is in double precision.
        """
        complete = weighted_products(rotated, self.weights)
        if self.outside_weight is not None:
            outside = G.T @ G - rotated.T @ rotated
            complete = complete + self.outside_weight[:, None, None] * outside
        if self.cut is not None and self.cut.outside_weight is not None:
            rest = self._outside(G, rotated)
            complete = complete + self.cut.outside_weight[:, None, None] * (rest.T @ rest)
        taken, terms = self.explained(G, rotated), np.einsum("jaa->ja", complete)
        V = -np.einsum("ajx,blx->jlab", taken, taken, optimize=True)
        V[np.arange(len(complete)), np.arange(len(complete))] += complete
        if self.cut is not None:
            left = self.cut.left(rotated, taken)
            V += np.einsum("ajk,blk->jlab", left, left, optimize=True)
            terms = terms + np.sum(left**2, axis=2).T
        return V, terms

    def _parts(self, b: int) -> list[slice]:
        """The b variants of a block, some at a time."""
        return parts_of(b, max(FEWEST_VARIANTS, BATCH_ENTRIES // max(self.loadings.size, 1)))

    def _block(self, G: Floats, u: Array, V: Array) -> BlockStatistics:
        """Statistics of variants G (n, b) with the length that covariates leave of complete data."""
        projected = self.Qx.T @ G
        total = np.einsum("ib,ib->b", G, G, dtype=np.float64)
        length = total - np.einsum("cb,cb->b", projected, projected, dtype=np.float64)
        return BlockStatistics(u, V, length, np.zeros(len(length)))

    def explained(self, G: Floats, rotated: Floats) -> Floats:
        """``(L⁻¹DᵀP M1)ᵀ`` for variants G (n, b) and ``VᵀG`` (m, b): (b, p, q + ca)."""
        b, p, r = rotated.shape[1], self.weights.shape[1], self.missing_rows.size
        seen = np.empty((b, p, self.index.size), dtype=rotated.dtype)
        outside = None
        if self.outside_weight is not None:
            outside = G[self.missing_rows].T - rotated.T @ self.thin[:r].T
        for j in range(p):
            product = (rotated * self.weights[:, j, None]).T @ self.thin.T
            if outside is not None and self.outside_weight is not None:
                product[:, :r] += self.outside_weight[j] * outside
            np.multiply(product[:, self.index], self.loadings[j], out=seen[:, j])
        flat = seen.reshape(b * p, self.index.size)
        out = np.empty_like(flat)
        for part in parts_of(flat.shape[1], COLUMNS_AT_ONCE):
            np.matmul(flat[:, : part.stop], self.inverse[part, : part.stop].T, out=out[:, part])
        return out.reshape(seen.shape)

    def project(self, F: Array) -> Array:
        """``Qf`` for k data sets F (n, p, k) in the axes, over the samples (n, p, k); this scanner is in double."""
        (m, p), r, (n, _, k) = self.weights.shape, self.missing_rows.size, F.shape
        V, cells = self.rotation[:m].T, self.thin[:r]
        rows = (V.T @ F.reshape(n, -1)).reshape(m, p, k)
        weights = self.outside_weight if self.outside_weight is not None else np.zeros(p)
        outside = (
            F - (V @ rows.reshape(m, -1)).reshape(F.shape) if self.outside_weight is not None else np.zeros(F.shape)
        )
        seen = np.zeros((self.index.size, k))
        for j in range(p):
            product = self.thin @ (self.weights[:, j, None] * rows[:, j])
            product[:r] += weights[j] * outside[self.missing_rows, j]
            seen += self.loadings[j][:, None] * product[self.index]
        theta = self.inverse.T @ (self.inverse @ seen)
        projected = np.empty(F.shape)
        for j in range(p):
            taken = np.zeros((len(self.thin), k))
            np.add.at(taken, self.index, self.loadings[j][:, None] * theta)
            projected[:, j] = V @ (self.weights[:, j, None] * (rows[:, j] - self.thin.T @ taken))
            outside[self.missing_rows, j] -= taken[:r]
            projected[:, j] += weights[j] * (outside[:, j] + V @ (cells.T @ taken[:r]))
        return projected


def estimable(found: BlockStatistics, left: Array, G: Floats, covariates: GenotypedCovariates) -> BlockStatistics:
    """Statistics with length 0 for variants G (n, b) whose effects the observed cells do not tell.

    ``left`` (b,) is the smallest share of the information of complete data that is left in any direction. Where it may
    be rounding the samples of every trait are asked whether the covariates explain the variant there.
    """
    length = np.where(left > UNITS_OF_ROUNDING * EPSILON, found.length, 0.0)
    unsure = np.flatnonzero(~(left > SURELY_LEFT))
    everywhere = np.broadcast_to(np.False_, (len(G), unsure.size))
    length[unsure[covariates.explain(G, unsure, everywhere)]] = 0.0
    return replace(found, length=length)


def observed_scanner(point: ObservedPoint, dtype: type[np.floating] = np.float32) -> ObservedScanner:
    """The scanner of blocks at a null model of the observed cells, in single or double precision."""
    in_double = _scanner_in(np.float64, point)
    return in_double if dtype == np.float64 else replace(_scanner_in(dtype, point), in_double=in_double)


def _scanner_in(dtype: type[np.floating], point: ObservedPoint) -> ObservedScanner:
    return _scanner_of(dtype, point.data, point.design, point.W, point.chol, point.alpha_samples())


def _scanner_of(
    dtype: type[np.floating], data: ObservedCells, design: CellDesign, W: Array, L: Array, scores: Array
) -> ObservedScanner:
    """The scanner of weights W (m, p) and ``LLᵀ = DᵀPD``, with scores ``Qz`` over the samples (n, p) in the axes."""
    m, p = W.shape
    rotation = np.empty((m + p, data.nsamples), dtype=dtype)
    rotation[:m] = data.filled.V.T
    rotation[m:] = scores.T
    rows, first, of_cell = np.unique(data.rows, return_index=True, return_inverse=True)
    c, a = data.Qx_rotated.shape[1], data.A.shape[1]
    of_effect = rows.size + np.tile(np.arange(c), a if c else 0)
    inverse = linalg.solve_triangular(L, np.eye(len(L)), lower=True)
    return ObservedScanner(
        rotation=rotation,
        weights=W.astype(dtype),
        thin=np.vstack([data.U[first], data.Qx_rotated.T]).astype(dtype),
        index=np.concatenate([of_cell, of_effect]),
        loadings=np.ascontiguousarray(design.loadings.T, dtype=dtype),
        inverse=inverse.astype(dtype),
        missing_rows=rows,
        outside_weight=design.outside_weight.astype(dtype) if data.outside_root is not None else None,
        Qx=data.Qx.astype(dtype),
        covariates=GenotypedCovariates(data.X, data.observed()),
    )


def variant_scanner(point: ObservedPoint, dtype: type[np.floating] = np.float32) -> ObservedScanner:
    """The scanner of blocks of variants that is right for the inverse variances of a null model."""
    if has_large_weights(point.design, point.W):
        return _cut_scanner(point)
    return observed_scanner(point, dtype)


def _cut_scanner(point: ObservedPoint) -> ObservedScanner:
    """The scanner of cut weights, with the scores of Q; V is so wide that no missing cell has a part outside."""
    data = with_cells_inside(point.data)
    design = design_at(data, point.axes)
    W = 1 / point.axes.variances(data.filled.s)
    cut = np.minimum(W, LARGEST_WEIGHT)
    L = precision_factor(design, cut)
    rows, axes = np.nonzero(W > LARGEST_WEIGHT)
    parts = [block.loading[axes] * block.U[:, rows] for block in design.blocks]
    explained = half_solve(L, np.vstack(parts))
    S = explained.T @ explained + np.diag(1 / (W - cut)[rows, axes])
    outside_weight = 1 / point.axes.c1**2 if data.filled.noutside else None
    found = CutRows(rows, axes, explained, linalg.cholesky(S, lower=True), outside_weight)

    residual = data.filled.Z @ point.axes.T.T
    nothing = np.zeros((0, len(point.axes.c0)))
    residual = residual - design.times(cholesky_solve(L, design.transposed(cut * residual, nothing)))[0]
    of_rows = linalg.cho_solve((found.root, True), residual[rows, axes])
    taken = design.times(linalg.solve_triangular(L, explained @ of_rows, lower=True, trans="T"))[0]
    alpha = cut * (residual - taken)
    alpha[rows, axes] += of_rows
    scanner = _scanner_of(np.float64, data, design, cut, L, np.asarray(data.filled.V @ alpha))
    return replace(scanner, cut=found)
