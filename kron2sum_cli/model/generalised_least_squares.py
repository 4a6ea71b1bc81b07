"""Fixed effects at a given (C0, C1): inner products in the metric of K⁻¹, one trait axis at a time."""

from dataclasses import dataclass

import numpy as np
from scipy import linalg

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.likelihood import Point, mean_block
from kron2sum_cli.model.spectrum import Array


@dataclass(frozen=True)
class SampleVectors:
    """Vectors over samples (covariates, variants) in the rotated rows.

    Attributes
    ----------
    rows : (m, q) ``VᵀF``
    projected : (c, q) ``QxᵀF``
    outside : (q, q) inner products of what lies outside both, where GGᵀ is 0
    """

    rows: Array
    projected: Array
    outside: Array


@dataclass(frozen=True)
class Metric:
    """``K⁻¹`` as one matrix over samples an axis, in the rows and the projected covariates.

    ``fᵀK_j⁻¹g = f̃ᵀW_jg̃ + outside / c1_j² + γ_j(f)ᵀ S_j⁻¹ γ_j(g)`` with ``γ_j(f) = Qxᵀf - c0_j² Kxm W_j f̃``.

    Attributes
    ----------
    point : where the metric is taken
    Qx : (n, c) basis of the projected covariates
    Sinv : (p, c, c)
    """

    point: Point
    Qx: Array
    Sinv: Array

    def vectors(self, F: Array) -> SampleVectors:
        """Rotate F (n, q)."""
        data = self.point.data
        rows, projected = data.V.T @ F, self.Qx.T @ F
        outside = np.zeros((F.shape[1], F.shape[1]))
        if data.nsilent:
            rest = F - data.V @ rows - self.Qx @ projected
            outside = rest.T @ rest
        return SampleVectors(rows, projected, outside)

    def grams(self, F: SampleVectors) -> Array:
        """``FᵀK_j⁻¹F`` for every axis: (p, q, q)."""
        point = self.point
        rows = np.einsum("ia,ij,ib->jab", F.rows, point.W, F.rows, optimize=True)
        gamma = self._gamma(F)
        given = np.einsum("jca,jcd,jdb->jab", gamma, self.Sinv, gamma, optimize=True)
        return np.asarray(rows + point.silent_weight[:, None, None] * F.outside + given)

    def products_with_traits(self, F: SampleVectors) -> Array:
        """``FᵀK_j⁻¹y_j`` for every axis: (q, p)."""
        point, data = self.point, self.point.data
        Z, Yx = data.Z @ point.axes.T.T, data.Yx @ point.axes.T.T
        WZ = point.W * Z
        given = Yx - point.axes.c0**2 * (data.Kxm @ WZ)
        return np.asarray(
            F.rows.T @ WZ + np.einsum("jca,jcd,dj->aj", self._gamma(F), self.Sinv, given, optimize=True)
        )

    def quadratic_of_traits(self) -> float:
        """``yᵀK⁻¹y``."""
        point, data = self.point, self.point.data
        Z, Yx = data.Z @ point.axes.T.T, data.Yx @ point.axes.T.T
        WZ = point.W * Z
        given = Yx - point.axes.c0**2 * (data.Kxm @ WZ)
        return float(np.sum(WZ * Z) + np.einsum("cj,jcd,dj->", given, self.Sinv, given, optimize=True))

    def _gamma(self, F: SampleVectors) -> Array:
        """``γ_j(F)``: (p, c, q)."""
        point, data = self.point, self.point.data
        weighted = np.einsum("ci,ij,iq->jcq", data.Kxm, point.W, F.rows, optimize=True)
        return np.asarray(F.projected - point.axes.c0[:, None, None] ** 2 * weighted)


def metric(point: Point, Qx: Array) -> Metric:
    """The metric of K⁻¹ at a point; Qx (n, c) spans the covariates that the contrasts leave out."""
    S = mean_block(point.data, point.axes, point.W).S
    return Metric(point, Qx, np.linalg.inv(S) if S.size else S)


@dataclass(frozen=True)
class Effects:
    """Estimates of one fixed-effect term ``(A_k ⊗ F_k) vec(B_k)``: B and its covariance in the order of vec."""

    B: Array
    se: Array


@dataclass(frozen=True)
class LeastSquares:
    """Generalised least squares of several terms.

    Attributes
    ----------
    H : (N, N) ``MᵀK⁻¹M`` for M the terms side by side
    beta : (N,) estimates, NaN for columns that lie in the span of those before them
    covariance : (N, N) ``H⁻¹`` on the estimated columns, NaN elsewhere
    quadratic : ``rᵀK⁻¹r``
    rank : number of estimated columns
    shapes : (q_k, a_k) of every B_k
    """

    H: Array
    beta: Array
    covariance: Array
    quadratic: float
    rank: int
    shapes: tuple[tuple[int, int], ...]

    def effects(self, term: int, scale: float) -> Effects:
        """B_k (q, a) and its standard errors with the covariance K times ``scale``."""
        start = sum(q * a for q, a in self.shapes[:term])
        q, a = self.shapes[term]
        block = slice(start, start + q * a)
        se = np.sqrt(scale * np.diag(self.covariance)[block])
        return Effects(self.beta[block].reshape(a, q).T, se.reshape(a, q).T)


def least_squares(K: Metric, terms: list[tuple[Array, Array]], aliased: bool = False) -> LeastSquares:
    """Fit ``Σ_k (A_k ⊗ F_k) vec(B_k)``, A_k (p, a_k), F_k (n, q_k).

    Parameters
    ----------
    aliased : whether columns may lie in the span of others: they are then left out and have NaN estimates

    Raises
    ------
    NumericalError
        Where columns are collinear and ``aliased`` is false.
    """
    T = K.point.axes.T
    F = K.vectors(np.hstack([F for _, F in terms]))
    grams, rhs = K.grams(F), K.products_with_traits(F)
    edges = np.cumsum([0] + [f.shape[1] for _, f in terms])
    spans = [slice(edges[k], edges[k + 1]) for k in range(len(terms))]
    designs = [T @ A for A, _ in terms]
    H = np.block([[_kron_sum(t, u, grams[:, a, b]) for u, b in zip(designs, spans, strict=True)]
                  for t, a in zip(designs, spans, strict=True)])
    right = np.concatenate([(t.T @ rhs[a].T).reshape(-1) for t, a in zip(designs, spans, strict=True)])
    kept = independent_columns(H)
    if kept.size < H.shape[0] and not aliased:
        raise NumericalError("the fixed effects are collinear: a column lies in the span of those before it")
    beta = np.full(H.shape[0], np.nan)
    covariance = np.full(H.shape, np.nan)
    cho = linalg.cho_factor(H[np.ix_(kept, kept)], lower=True) if kept.size else None
    if cho is not None:
        beta[kept] = linalg.cho_solve(cho, right[kept])
        covariance[np.ix_(kept, kept)] = linalg.cho_solve(cho, np.eye(kept.size))
    explained = float(beta[kept] @ right[kept])
    shapes = tuple((f.shape[1], A.shape[1]) for A, f in terms)
    return LeastSquares(H, beta, covariance, K.quadratic_of_traits() - explained, int(kept.size), shapes)


def _kron_sum(left: Array, right: Array, grams: Array) -> Array:
    """``Σ_j left_j right_jᵀ ⊗ grams_j``."""
    a, b = left.shape[1], right.shape[1]
    blocks = np.einsum("jk,jl,jqr->kqlr", left, right, grams, optimize=True)
    return np.asarray(blocks.reshape(a * grams.shape[1], b * grams.shape[2]))


def independent_columns(H: Array, tolerance: float = 1e-10) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Positions of columns that do not lie in the span of the columns before them, from their Gram matrix H.

    A column counts as dependent where what the others leave of its squared length is below ``tolerance`` of it.
    """
    kept: list[int] = []
    L = np.zeros(H.shape)
    for k in range(H.shape[0]):
        size = len(kept)
        row = linalg.solve_triangular(L[:size, :size], H[kept, k], lower=True) if size else np.empty(0)
        left = H[k, k] - row @ row
        if H[k, k] > 0 and left > tolerance * H[k, k]:
            L[size, :size], L[size, size] = row, np.sqrt(left)
            kept.append(k)
    return np.array(kept, dtype=np.intp)
