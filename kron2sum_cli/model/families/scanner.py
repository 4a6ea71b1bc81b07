"""Scores and information of variants under a null model of families."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg

from kron2sum_cli.model.block_scanner import BlockStatistics, PairStatistics
from kron2sum_cli.model.families.fitting import fixed_effects
from kron2sum_cli.model.families.likelihood import FamilyPoint
from kron2sum_cli.model.families.spectrum import FamiliesOfSize, FamilyRotation
from kron2sum_cli.model.prediction import EffectsOfCovariates
from kron2sum_cli.model.sets.fixed_effects import SetScores
from kron2sum_cli.model.sets.scanner import SetScanner
from kron2sum_cli.model.spectrum import Array, Floats, Indices, parts_of, weighted_products

CACHED_GENOTYPES = 1 << 18
"""Genotypes of a block that are multiplied at once, few enough to stay in the cache of a core."""

FEWEST_SAMPLES = 256
"""Samples whose products are added in the precision of the scanner before they go into a sum in double, at least."""

RELATIVES_AT_ONCE = 4096
"""Samples with relatives that are rotated at once, about."""


@dataclass(frozen=True)
class Relatives:
    """Some whole families of m members, r samples together, at these rows of the samples with relatives.

    ``Ut`` (r/m, m, m) is their part of Uᵀ, a block for every family. In their rows ``weights`` (r, p + 1) are inverse
    variances and a column of ones, and ``weighted`` (r, lc) is ``B_k∘X`` for k = 1, 2, ...
    """

    rows: slice
    Ut: Floats
    weights: Floats
    weighted: Floats

    def rotate(self, G: Floats) -> Floats:
        """Their rows (r, b) of ``UᵀG``, for variants (b, r') of all samples with relatives."""
        own = np.ascontiguousarray(G[:, self.rows].T)
        return np.asarray(np.matmul(self.Ut, own.reshape(*self.Ut.shape[:2], -1)).reshape(own.shape))


@dataclass(frozen=True)
class FamilyScanner:
    """``u`` and ``v`` of blocks of variants under a null model of families.

    ``u_j = gᵀUα_j`` needs no rotation, and ``v_j = Σ_i g̃_i² w_ij - ‖L_j⁻¹XᵀW_jg̃‖²`` that of samples with relatives
    alone. The weights of all axes are smooth functions of the eigenvalue, so ``[W_1 … W_p] ≈ B Cᵀ`` with few columns of
    B, one where all samples without relatives have the same eigenvalue: ``XᵀW_jg̃ = Σ_k c_jk (B_k∘X)ᵀg̃`` and
    ``Σ_i g̃_i² w_ij = Σ_k c_jk Σ_i g̃_i² b_ik``, a few thin products for all axes.

    - ``alpha`` (n, p): ``Uα``, in samples.
    - ``products`` (n, p + kc): ``Uα``, and ``B_k∘X`` for k = 1, 2, ..., which is 0 for samples with relatives.
    - ``squares`` (n, q): what squares of samples without relatives are multiplied with; 0 for the others.
    - ``from_squares`` (p + 1, q): what turns these sums into ``Σ_i g_i² w_ij`` and ``Σ_i g_i²``.
    - ``related`` (r',): the samples with relatives, by their position.
    - ``relatives``: what is computed with them.
    - ``from_weighted`` (p, c, kc + lc): what turns ``(B_k∘X)ᵀg̃``, of samples without and with relatives, into
      ``L_j⁻¹XᵀW_jg̃``.
    """

    alpha: Floats
    products: Floats
    squares: Floats
    from_squares: Array
    related: Indices
    relatives: tuple[Relatives, ...]
    from_weighted: Array

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """The precision in which it multiplies."""
        return self.alpha.dtype

    def statistics(self, G: Floats) -> BlockStatistics:
        """Statistics of a block of variants G (n, b), without missing values, in the precision of the scanner.

        The length outside the span of X is that of g times the smallest share of its information on an axis that the
        covariates leave.
        """
        (linear,), (squares,) = self._sums([G], [(0, 0)])
        return self._statistics(linear, squares)

    def pair_statistics(self, G: Floats, H: Floats) -> PairStatistics:
        """Statistics of two columns a variant, G (n, b) and H (n, b): as `statistics`, with a third product."""
        (of_G, of_H), (first, second, both) = self._sums([G, H], [(0, 0), (1, 1), (0, 1)])
        p = self.alpha.shape[1]
        cross = both[:, :-1].copy()
        for j, M in enumerate(self.from_weighted):
            cross[:, j] -= np.sum((of_G[:, p:] @ M.T) * (of_H[:, p:] @ M.T), axis=1)
        return PairStatistics(self._statistics(of_G, first), self._statistics(of_H, second), cross)

    def _sums(self, blocks: Sequence[Floats], pairs: Sequence[tuple[int, int]]) -> tuple[list[Array], list[Array]]:
        """Sums over the samples, a stretch of them at a time, so that genotypes are read from memory once.

        Of every block (n, b) ``gᵀUα`` and ``(B_k∘X)ᵀg̃``, (b, p + kc + lc); of every pair of blocks
        ``Σ_i g̃_i h̃_i w_ij`` and ``Σ_i g̃_i h̃_i``, (b, p + 1).
        """
        n, b = blocks[0].shape
        linear = [np.zeros((b, self.products.shape[1])) for _ in blocks]
        squares = [np.zeros((b, self.squares.shape[1])) for _ in pairs]
        for rows in parts_of(n, max(FEWEST_SAMPLES, CACHED_GENOTYPES // max(b, 1))):
            parts = [block.T[:, rows] for block in blocks]
            for total, part in zip(linear, parts, strict=True):
                total += part @ self.products[rows]
            for total, (i, k) in zip(squares, pairs, strict=True):
                total += (parts[i] * parts[k]) @ self.squares[rows]
        of_relatives = self.from_weighted.shape[2] - (self.products.shape[1] - self.alpha.shape[1])
        weighted = [np.zeros((b, of_relatives)) for _ in blocks]
        quadratic = [total @ self.from_squares.T for total in squares]
        own = [np.take(block.T, self.related, axis=1) for block in blocks]
        for some in self.relatives:
            rotated = [some.rotate(one) for one in own]
            for total, part in zip(weighted, rotated, strict=True):
                total += part.T @ some.weighted
            for total, (i, k) in zip(quadratic, pairs, strict=True):
                total += (rotated[i] * rotated[k]).T @ some.weights
        return [np.hstack(both) for both in zip(linear, weighted, strict=True)], quadratic

    def _statistics(self, linear: Array, squares: Array) -> BlockStatistics:
        """Statistics of variants from their `_sums`."""
        p = self.alpha.shape[1]
        u, of_covariates = linear[:, :p].copy(), linear[:, p:]
        weighted, length = squares[:, :-1], squares[:, -1]
        v = weighted.copy()
        for j, M in enumerate(self.from_weighted):
            v[:, j] -= np.sum((of_covariates @ M.T) ** 2, axis=1)
        left = np.min(np.divide(v, weighted, out=np.zeros_like(v), where=weighted > 0), axis=1)
        return BlockStatistics(u, v, length * np.maximum(left, 0.0), np.zeros(len(length)))


def family_scanner(point: FamilyPoint, dtype: type[np.floating] = np.float32) -> FamilyScanner:
    """The scanner of blocks at a null model, in single or double precision."""
    data, rotation = point.data, point.data.spectrum.rotation
    n, p, c = data.nsamples, data.ntraits, data.ncovariates
    tolerance = float(np.finfo(dtype).eps)
    pieces, alone = _pieces(rotation), np.ones(n, dtype=np.bool_)
    related = np.concatenate([np.empty(0, np.intp), *(group.members.ravel() for group in pieces)])
    alone[related] = False
    alpha = rotation.to_samples(point.alpha).astype(dtype)
    weights = np.hstack([point.W, np.ones((n, 1))])
    basis, coefficients = low_rank(point.W[alone], tolerance)
    products = np.zeros((n, p + basis.shape[1] * c), dtype)
    products[:, :p] = alpha
    products[alone, p:] = _times_covariates(basis, data.X[alone])
    of_squares, from_squares = low_rank(weights[alone], tolerance)
    squares = np.zeros((n, of_squares.shape[1]), dtype)
    squares[alone] = of_squares
    others, coefficients_of_others = low_rank(point.W[related], tolerance)
    relatives, start = [], 0
    for group in pieces:
        members, rows = group.members.ravel(), slice(start, start + group.members.size)
        weighted = _times_covariates(others[rows], data.X[members])
        Ut = np.ascontiguousarray(group.U.transpose(0, 2, 1), dtype)
        relatives.append(Relatives(rows, Ut, weights[members].astype(dtype), weighted.astype(dtype)))
        start = rows.stop
    solved = np.linalg.inv(point.chol)
    from_weighted = [
        np.einsum("jab,jk->jakb", solved, C).reshape(p, c, C.shape[1] * c)
        for C in (coefficients, coefficients_of_others)
    ]
    return FamilyScanner(
        alpha=alpha,
        products=products,
        squares=squares,
        from_squares=from_squares,
        related=related,
        relatives=tuple(relatives),
        from_weighted=np.concatenate(from_weighted, axis=2),
    )


def _times_covariates(basis: Array, X: Array) -> Array:
    """``B_k∘X`` for k = 1, 2, ..., side by side: (r, kc)."""
    return (basis[:, :, None] * X[:, None, :]).reshape(len(X), basis.shape[1] * X.shape[1])


def _pieces(rotation: FamilyRotation) -> list[FamiliesOfSize]:
    """All families, about `RELATIVES_AT_ONCE` samples at a time."""
    pieces = []
    for group in rotation.families:
        f, m = group.members.shape
        for some in parts_of(f, RELATIVES_AT_ONCE // m):
            pieces.append(FamiliesOfSize(group.members[some], group.U[some]))
    return pieces


def explained_by_covariates(point: FamilyPoint, rows: Array) -> Array:
    """``L_j⁻¹XᵀW_jg̃`` for rotated variants (n, q) on every axis: (p, c, q); its squares are taken from g̃ᵀW_jg̃."""
    weighted = (point.data.X * w[:, None] for w in point.W.T)
    solved = [linalg.solve_triangular(L, M.T @ rows, lower=True) for L, M in zip(point.chol, weighted, strict=True)]
    return np.stack(solved)


@dataclass(frozen=True)
class FamilySetScanner(SetScanner):
    """Sets of variants under a null model of families, in the precision of its rotation; ``alpha`` (n, p) is ``Uα``.

    Of a block there are the rotated variants (n, b), and their scores (p, b) along the trait axes.
    """

    point: FamilyPoint
    rotation: FamilyRotation
    alpha: Floats

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """The precision in which it multiplies."""
        return self.alpha.dtype

    def arrays(self, G: Floats) -> tuple[Floats, ...]:
        """See `SetScanner.arrays`."""
        return self.rotation.to_rows(G), (G.T @ self.alpha).astype(np.float64).T

    def length(self, *arrays: Floats) -> Array:
        """See `sets.scanner.RotatedVariants.length`."""
        rows = arrays[0]
        explained = (self.point.data.X.astype(rows.dtype).T @ rows).astype(np.float64)
        whole = np.einsum("ib,ib->b", rows, rows, dtype=np.float64)
        return np.asarray(np.maximum(whole - np.einsum("cb,cb->b", explained, explained), 0.0))

    def scores(self, *arrays: Floats) -> SetScores:
        """See `SetScanner.scores`."""
        rows, u = arrays[0].astype(np.float64), np.asarray(arrays[1].T, np.float64)
        V = weighted_products(rows, self.point.W)
        sizes = np.einsum("jaa->ja", V).copy()
        for of_axis, taken in zip(V, explained_by_covariates(self.point, rows), strict=True):
            of_axis -= taken.T @ taken
        return SetScores(u, V, sizes)


def family_set_scanner(point: FamilyPoint, dtype: type[np.floating]) -> FamilySetScanner:
    """The scanner of sets at a null model, in single or double precision."""
    rotation = point.data.spectrum.rotation
    alpha = np.asfortranarray(rotation.to_samples(point.alpha).astype(dtype))
    return FamilySetScanner(point, rotation.in_precision(dtype), alpha)


def effects_of_covariates(point: FamilyPoint, K: Array) -> EffectsOfCovariates:
    """The fixed effects of a null model, for samples with relatedness K (n, t) to its own."""
    data, Tinv = point.data, point.axes.Tinv
    p, c = data.ntraits, data.ncovariates
    taken = explained_by_covariates(point, data.spectrum.rotation.to_rows(K))
    half = [linalg.solve_triangular(data.R, linalg.solve_triangular(L, np.eye(c), lower=True).T) for L in point.chol]
    R = np.stack(half)  # H_j⁻¹ of the covariates as given is R_jR_jᵀ
    explained = np.einsum("aj,jcd,jdt->tjac", Tinv, R, taken, optimize=True).reshape(K.shape[1], p, p * c)
    covariance = np.einsum("aj,bj,jcd,jed->acbe", Tinv, Tinv, R, R, optimize=True).reshape(p * c, p * c)
    return EffectsOfCovariates(np.eye(p), fixed_effects(point)[0], covariance, explained)


def low_rank(W: Array, tolerance: float) -> tuple[Array, Array]:
    """B (n, k) and C (p, k) with ``W = BCᵀ``, every column to a relative error of ``tolerance`` or little more."""
    lengths = np.linalg.norm(W, axis=0)
    lengths = np.where(lengths > 0, lengths, 1.0)
    Q, R = np.linalg.qr(W / lengths)
    left, sizes, right = np.linalg.svd(R)
    k = int(np.count_nonzero(sizes > tolerance * sizes.max(initial=0.0)))
    return Q @ (left[:, :k] * sizes[:k]), lengths[:, None] * right[:k].T
