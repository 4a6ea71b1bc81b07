"""Scores and information of variants under a null model of families."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from kron2sum_cli.model.block_scanner import BlockStatistics, PairStatistics
from kron2sum_cli.model.families.fitting import fixed_effects
from kron2sum_cli.model.families.likelihood import FamilyPoint
from kron2sum_cli.model.families.spectrum import FamilyRotation
from kron2sum_cli.model.prediction import EffectsOfCovariates
from kron2sum_cli.model.set_test import SetScores, weighted_products
from kron2sum_cli.model.spectrum import Array


@dataclass(frozen=True)
class FamilyScanner:
    """``u`` and ``v`` of blocks of variants under a null model of families.

    ``u_j = gᵀUα_j`` needs no rotation, and ``v_j = Σ_i g̃_i² w_ij - ‖L_j⁻¹XᵀW_jg̃‖²``. The weights of all axes are smooth
    functions of the eigenvalue, so ``[W_1 … W_p] ≈ B Cᵀ`` with few columns of B: ``XᵀW_jg̃ = Σ_k c_jk (B_k∘X)ᵀg̃``, one
    thin product for all axes.

    Attributes
    ----------
    rotation : FamilyRotation
        In the precision of the scan.
    alpha : NDArray (n, p)
        ``Uα``, in samples.
    weights : NDArray (n, p + 1)
        Inverse variances, and a column of ones.
    weighted : NDArray (n, kc)
        ``B_k∘X`` in rotated rows, for k = 1, 2, ...
    from_weighted : NDArray (p, c, kc)
        What turns ``(B_k∘X)ᵀg̃`` into ``L_j⁻¹XᵀW_jg̃``.
    """

    rotation: FamilyRotation
    alpha: NDArray[np.floating]
    weights: NDArray[np.floating]
    weighted: NDArray[np.floating]
    from_weighted: Array

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """The precision in which it multiplies."""
        return self.alpha.dtype

    def rotate(self, G: NDArray[np.floating]) -> Array:
        """Rotated variants ``UᵀG`` (n, b) in double precision."""
        return self.rotation.to_rows(G.astype(np.float64))

    def statistics(self, G: NDArray[np.floating]) -> BlockStatistics:
        """Statistics of a block of variants G (n, b), without missing values, in the precision of the scanner.

        The length outside the span of X is that of g times the smallest share of its information on an axis that the
        covariates leave.
        """
        rows = self.rotation.to_rows(G)
        of_covariates = self._of_covariates(rows)
        np.multiply(rows, rows, out=rows)
        return self._statistics(G, rows, of_covariates)

    def pair_statistics(self, G: NDArray[np.floating], H: NDArray[np.floating]) -> PairStatistics:
        """Statistics of two columns a variant, G (n, b) and H (n, b): as `statistics`, with a third product."""
        first, second = self.rotation.to_rows(G), self.rotation.to_rows(H)
        of_first, of_second = self._of_covariates(first), self._of_covariates(second)
        cross = ((first * second).T @ self.weights).astype(np.float64)[:, :-1]
        for j, M in enumerate(self.from_weighted):
            cross[:, j] -= np.sum((of_first @ M.T) * (of_second @ M.T), axis=1)
        np.multiply(first, first, out=first)
        np.multiply(second, second, out=second)
        return PairStatistics(self._statistics(G, first, of_first), self._statistics(H, second, of_second), cross)

    def _of_covariates(self, rows: NDArray[np.floating]) -> Array:
        """``(B_k∘X)ᵀg̃`` of rotated variants (n, b), (b, kc)."""
        return (rows.T @ self.weighted).astype(np.float64)

    def _statistics(
        self, G: NDArray[np.floating], squares: NDArray[np.floating], of_covariates: Array
    ) -> BlockStatistics:
        """Statistics of variants G (n, b) from the squares of their rows (n, b) and their `_of_covariates`."""
        u = (G.T @ self.alpha).astype(np.float64)
        sums = (squares.T @ self.weights).astype(np.float64)
        weighted, length = sums[:, :-1], sums[:, -1]
        v = weighted.copy()
        for j, M in enumerate(self.from_weighted):
            v[:, j] -= np.sum((of_covariates @ M.T) ** 2, axis=1)
        left = np.min(np.divide(v, weighted, out=np.zeros_like(v), where=weighted > 0), axis=1)
        return BlockStatistics(u, v, length * np.maximum(left, 0.0), np.zeros(len(length)))


def family_scanner(point: FamilyPoint, dtype: type[np.floating] = np.float32) -> FamilyScanner:
    """The scanner of blocks at a null model, in single or double precision."""
    data = point.data
    rotation = data.spectrum.rotation
    p, c = data.ntraits, data.ncovariates
    basis, coefficients = low_rank(point.W, float(np.finfo(dtype).eps))
    k = basis.shape[1]
    weighted = (basis[:, :, None] * data.X[:, None, :]).reshape(data.nsamples, k * c)
    solved = np.linalg.inv(point.chol) if c else np.empty((p, 0, 0))
    from_weighted = np.einsum("jab,jk->jakb", solved, coefficients).reshape(p, c, k * c)
    return FamilyScanner(
        rotation=rotation.in_precision(dtype),
        alpha=np.asfortranarray(rotation.to_samples(point.alpha).astype(dtype)),
        weights=np.asfortranarray(np.hstack([point.W, np.ones((data.nsamples, 1))]).astype(dtype)),
        weighted=np.asfortranarray(weighted.astype(dtype)),
        from_weighted=from_weighted,
    )


def explained_by_covariates(point: FamilyPoint, rows: Array) -> Array:
    """``L_j⁻¹XᵀW_jg̃`` for rotated variants (n, q) on every axis: (p, c, q); its squares are taken from g̃ᵀW_jg̃."""
    X = point.data.X
    if X.shape[1] == 0:
        return np.empty((point.data.ntraits, 0, rows.shape[1]))
    products = [
        linalg.solve_triangular(L, (X * point.W[:, j, None]).T @ rows, lower=True) for j, L in enumerate(point.chol)
    ]
    return np.stack(products)


@dataclass(frozen=True)
class FamilyVariants:
    """A block of variants under a null model of families.

    Attributes
    ----------
    point : FamilyPoint
        The null model
    rows : NDArray (n, b)
        Rotated variants
    u : NDArray (b, p)
        Their scores along the trait axes
    """

    point: FamilyPoint
    rows: NDArray[np.floating]
    u: Array

    @property
    def length(self) -> Array:
        """See `set_scanner.RotatedVariants.length`."""
        X = self.point.data.X.astype(self.rows.dtype)
        explained = (X.T @ self.rows).astype(np.float64)
        whole = np.einsum("ib,ib->b", self.rows, self.rows, dtype=np.float64)
        return np.asarray(np.maximum(whole - np.einsum("cb,cb->b", explained, explained), 0.0))

    def scores(self, members: NDArray[np.intp]) -> SetScores:
        """See `set_scanner.RotatedVariants.scores`."""
        rows = self.rows[:, members].astype(np.float64)
        V = weighted_products(rows, self.point.W)
        for of_axis, taken in zip(V, explained_by_covariates(self.point, rows), strict=True):
            of_axis -= taken.T @ taken
        return SetScores(self.u[members], V, np.einsum("jaa->ja", V))


@dataclass(frozen=True)
class FamilySetScanner:
    """Sets of variants under a null model of families.

    Attributes
    ----------
    point : FamilyPoint
        The null model
    rotation : FamilyRotation
        In the precision of the scan
    alpha : NDArray (n, p)
        ``Uα``, in samples
    """

    point: FamilyPoint
    rotation: FamilyRotation
    alpha: NDArray[np.floating]

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """The precision in which it multiplies."""
        return self.alpha.dtype

    def rotate(self, G: NDArray[np.floating]) -> FamilyVariants:
        """See `set_scanner.SetScanner.rotate`."""
        return FamilyVariants(self.point, self.rotation.to_rows(G), (G.T @ self.alpha).astype(np.float64))


def family_set_scanner(point: FamilyPoint, dtype: type[np.floating]) -> FamilySetScanner:
    """The scanner of sets at a null model, in single or double precision."""
    rotation = point.data.spectrum.rotation
    alpha = np.asfortranarray(rotation.to_samples(point.alpha).astype(dtype))
    return FamilySetScanner(point, rotation.in_precision(dtype), alpha)


def family_projection(point: FamilyPoint, F: Array) -> Array:
    """``W_jf_j - W_jX(XᵀW_jX)⁻¹XᵀW_jf_j`` for data F (n, p, k) in the trait axes, over the samples: (n, p, k)."""
    rotation, X = point.data.spectrum.rotation, point.data.X
    rows = rotation.to_rows(F.reshape(len(F), -1)).reshape(F.shape)
    for j in range(F.shape[1]):
        W = point.W[:, j, None]
        if X.shape[1]:
            rows[:, j] -= X @ linalg.cho_solve((point.chol[j], True), (X * W).T @ rows[:, j])
        rows[:, j] *= W
    return rotation.to_samples(rows.reshape(len(F), -1)).reshape(F.shape)


def effects_of_covariates(point: FamilyPoint, K: Array) -> EffectsOfCovariates:
    """The fixed effects of a null model, for samples with relatedness K (n, t) to its own."""
    data, Tinv = point.data, point.axes.Tinv
    p, c = data.ntraits, data.ncovariates
    taken = explained_by_covariates(point, data.spectrum.rotation.to_rows(K))
    half = [linalg.solve_triangular(data.R, linalg.solve_triangular(L, np.eye(c), lower=True).T) for L in point.chol]
    R = np.stack(half) if c else np.empty((p, 0, 0))  # H_j⁻¹ of the covariates as given is R_jR_jᵀ
    explained = np.einsum("aj,jcd,jdt->tjac", Tinv, R, taken, optimize=True).reshape(K.shape[1], p, p * c)
    covariance = np.einsum("aj,bj,jcd,jed->acbe", Tinv, Tinv, R, R, optimize=True).reshape(p * c, p * c)
    return EffectsOfCovariates(np.eye(p), fixed_effects(point)[0], covariance, explained)


def low_rank(W: Array, tolerance: float) -> tuple[Array, Array]:
    """B (n, k) and C (p, k) with ``W = BCᵀ`` to a relative error of ``tolerance`` in the largest singular value."""
    Q, R = np.linalg.qr(W)
    left, sizes, right = np.linalg.svd(R)
    k = int(np.count_nonzero(sizes > tolerance * sizes[0]))
    return Q @ (left[:, :k] * sizes[:k]), right[:k].T
