"""Scores and information of variants under a null model of families."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.model.block_scanner import BlockStatistics, squared_lengths
from kron2sum_cli.model.families.likelihood import FamilyPoint
from kron2sum_cli.model.families.spectrum import FamilyRotation
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
    weights : NDArray (n, p)
        Inverse variances.
    Q : NDArray (n, c)
        Orthonormal basis of the covariates, in samples.
    weighted : NDArray (n, kc)
        ``B_k∘X`` in rotated rows, for k = 1, 2, ...
    from_weighted : NDArray (p, c, kc)
        What turns ``(B_k∘X)ᵀg̃`` into ``L_j⁻¹XᵀW_jg̃``.
    """

    rotation: FamilyRotation
    alpha: NDArray[np.floating]
    weights: NDArray[np.floating]
    Q: NDArray[np.floating]
    weighted: NDArray[np.floating]
    from_weighted: Array

    def statistics(self, G: NDArray[np.floating]) -> BlockStatistics:
        """Statistics of a block of variants G (n, b), without missing values, in the precision of the scanner."""
        rows = self.rotation.to_rows(G)
        u = (G.T @ self.alpha).astype(np.float64)
        sums = (rows.T @ self.weighted).astype(np.float64)
        np.multiply(rows, rows, out=rows)
        v = (rows.T @ self.weights).astype(np.float64)
        for j, M in enumerate(self.from_weighted):
            v[:, j] -= np.sum((sums @ M.T) ** 2, axis=1)
        length = squared_lengths(G.T) - squared_lengths((self.Q.T @ G).T)
        return BlockStatistics(u, v, np.maximum(length, 0.0), np.zeros(len(length)))


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
        weights=np.asfortranarray(point.W.astype(dtype)),
        Q=rotation.to_samples(data.X).astype(dtype),
        weighted=np.asfortranarray(weighted.astype(dtype)),
        from_weighted=from_weighted,
    )


def low_rank(W: Array, tolerance: float) -> tuple[Array, Array]:
    """B (n, k) and C (p, k) with ``W = BCᵀ`` to a relative error of ``tolerance`` in the largest singular value."""
    Q, R = np.linalg.qr(W)
    left, sizes, right = np.linalg.svd(R)
    k = int(np.count_nonzero(sizes > tolerance * sizes[0]))
    return Q @ (left[:, :k] * sizes[:k]), right[:k].T
