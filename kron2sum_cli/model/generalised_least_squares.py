"""Fixed effects at a given (C0, C1) by generalised least squares, one trait axis at a time.

Effects added to the null model are fitted on what the null model's own leave of them (Frisch, Waugh and Lovell in the
metric of K⁻¹). Where covariates are projected out, theirs follow from the contrasts: on axis j the rows of a sample
vector f predict ``c0_j² Kxm W_j f̃`` of ``Qxᵀf``, and the rest, ``γ_j(f)``, is what the fixed effects have to explain.
That takes no inverse of their covariance S_j, which is singular where C1 is and GGᵀ is centred on the covariates.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg

from kron2sum_cli.model.collinearity import TOLERANCE
from kron2sum_cli.model.contrasts import CoupledDesign
from kron2sum_cli.model.likelihood import Coupled, Point, mean_block
from kron2sum_cli.model.spectrum import Array, Indices, Mask, weighted_products

Term = tuple[Array, Array]
"""A_k (p, a_k) and F_k (n, q_k) of the fixed effects ``(A_k ⊗ F_k) vec(B_k)``."""


@dataclass(frozen=True)
class SampleVectors:
    """q vectors over samples F (covariates, variants) in the rotated rows: ``VᵀF`` (m, q).

    ``projected`` (c, q) is ``QxᵀF``, and ``outside`` (q, q) are inner products of what lies outside both, where GGᵀ is
    0. ``in_span`` (q,) says which columns lie in the span of the projected covariates.
    """

    rows: Array
    projected: Array
    outside: Array
    in_span: Mask


@dataclass(frozen=True)
class Metric:
    """``K⁻¹`` at a point, as seen from the contrasts: one matrix over samples an axis.

    ``Qx`` (n, c) is a basis of the projected covariates, which the contrasts leave out.
    """

    point: Point
    Qx: Array

    def vectors(self, F: Array) -> SampleVectors:
        """Rotate F (n, q)."""
        data = self.point.data
        rows, projected = data.V.T @ F, self.Qx.T @ F
        outside = np.zeros((F.shape[1], F.shape[1]))
        if data.noutside:
            rest = F - data.V @ rows - self.Qx @ projected
            outside = rest.T @ rest
        left = np.sum(rows**2, axis=0) + np.diag(outside)
        return SampleVectors(rows, projected, outside, left <= TOLERANCE**2 * np.sum(F**2, axis=0))

    def grams(self, F: SampleVectors) -> Array:
        """``FᵀP_jF`` for every axis, P_j without coupled fixed effects: (p, q, q)."""
        point = self.point
        return weighted_products(F.rows, point.W) + point.outside_weight[:, None, None] * F.outside

    def scores(self, F: SampleVectors) -> Array:
        """``FᵀK⁻¹r`` for every axis, r the residual of the null model: (q, p)."""
        return np.asarray(F.rows.T @ self.point.alpha)


@dataclass(frozen=True)
class Effects:
    """Estimates of one fixed-effect term ``(A_k ⊗ F_k) vec(B_k)``: B and its standard errors, (q_k, a_k)."""

    B: Array
    se: Array


@dataclass(frozen=True)
class LeastSquares:
    """Generalised least squares of several terms.

    - ``beta`` (N,): estimates, NaN for columns that lie in the span of those before them.
    - ``covariance`` (N, N): ``(MᵀK⁻¹M)⁻¹`` for M the estimated columns side by side, NaN elsewhere.
    - ``quadratic``: ``rᵀK⁻¹r``.
    - ``shapes``: shape (q_k, a_k) of every B_k.
    - ``combination`` (rank, N): all columns as combinations of the estimated ones.
    """

    beta: Array
    covariance: Array
    quadratic: float
    rank: int
    shapes: tuple[tuple[int, int], ...]
    combination: Array

    def effects(self, term: int, scale: float) -> Effects:
        """B_k (q, a) and its standard errors with the covariance K times ``scale``."""
        start = sum(q * a for q, a in self.shapes[:term])
        q, a = self.shapes[term]
        block = slice(start, start + q * a)
        # A variance of 0 (K singular) may come out as a small negative number.
        se = np.sqrt(scale * np.maximum(np.diag(self.covariance)[block], 0.0))
        return Effects(self.beta[block].reshape(a, q).T, se.reshape(a, q).T)


def least_squares(K: Metric, terms: Sequence[Term]) -> LeastSquares:
    """Fit ``Σ_k (A_k ⊗ F_k) vec(B_k)``.

    The terms are the null model's own fixed effects (A, X), and at most one that is added. Columns of an added term may
    lie in the span of others: they are left out and their estimates are NaN.
    """
    (A, X), coupled = terms[0], K.point.coupled
    null = _ProjectedNull(K, A) if coupled is None else _CoupledNull(K, coupled)
    shapes = tuple((F.shape[1], design.shape[1]) for design, F in terms)
    size = A.shape[1] * X.shape[1]
    fitted = LeastSquares(null.beta(), null.covariance(), K.point.quadratic, size, shapes, np.eye(size))
    return _with_added(fitted, null, terms[1]) if len(terms) > 1 else fitted


def _with_added(fitted: LeastSquares, null: "_ProjectedNull | _CoupledNull", added: Term) -> LeastSquares:
    """The fit with one more term, ``β1 = H1⁻¹ score`` with covariance ``H1⁻¹``, and ``β0 - L β1`` for the first."""
    K, (A1, X1) = null.K, added
    D, F = K.point.axes.T @ A1, K.vectors(X1)
    L = null.explained(D, F)
    whole = _kron_sum(D, D, K.grams(F))
    H1 = null.given(whole, D, F)
    kept = independent_columns(H1, np.where(np.tile(F.in_span, A1.shape[1]), 0.0, np.diag(whole)))
    score = (D.T @ K.scores(F).T).reshape(-1)[kept]
    covariance1 = linalg.cho_solve(linalg.cho_factor(H1[np.ix_(kept, kept)], lower=True), np.eye(kept.size))
    of_added = covariance1 @ H1[kept]
    of_added[:, kept] = np.eye(kept.size)
    of_null = L - L[:, kept] @ of_added
    nothing = np.zeros((kept.size, L.shape[0]))
    combination = np.block([[np.eye(L.shape[0]), of_null], [nothing, of_added]])
    L = L[:, kept]
    beta1, cross = covariance1 @ score, -L @ covariance1
    estimated = np.concatenate([np.arange(L.shape[0]), L.shape[0] + kept])
    beta = np.full(L.shape[0] + H1.shape[0], np.nan)
    beta[estimated] = np.concatenate([fitted.beta - L @ beta1, beta1])
    covariance = np.full((beta.size, beta.size), np.nan)
    covariance[np.ix_(estimated, estimated)] = np.block(
        [[fitted.covariance - cross @ L.T, cross], [cross.T, covariance1]]
    )
    quadratic, rank = fitted.quadratic - float(beta1 @ score), fitted.rank + int(kept.size)
    return LeastSquares(beta, covariance, quadratic, rank, fitted.shapes, combination)


@dataclass(frozen=True)
class _ProjectedNull:
    """Effects ``(A ⊗ X) vec(B)`` of projected covariates, A invertible."""

    K: Metric
    A: Array

    @property
    def _traits(self) -> Array:
        """``(A⁻¹T⁻¹)ᵀ`` (p, a): the change of B for a unit effect on each axis."""
        return np.asarray(np.linalg.solve(self.A, self.K.point.axes.Tinv).T)

    def _solve(self, M: Array) -> Array:
        """``Rx⁻¹M``."""
        return np.asarray(linalg.solve_triangular(self.K.point.data.Rx, M, check_finite=False))

    def beta(self) -> Array:
        point, data = self.K.point, self.K.point.data
        gamma = data.Yx @ point.axes.T.T - point.axes.c0**2 * (data.Kxm @ point.alpha)
        return np.asarray((self._solve(gamma) @ self._traits).T.reshape(-1))

    def covariance(self) -> Array:
        point = self.K.point
        S = mean_block(point.data, point.axes, point.W).S
        inverse = self._solve(np.eye(point.data.ncovariates))
        return _kron_sum(self._traits, self._traits, inverse @ S @ inverse.T)

    def explained(self, D: Array, F: SampleVectors) -> Array:
        """Change of the null model's effects for a unit of every added effect: (ca, qe)."""
        point, data = self.K.point, self.K.point.data
        predicted = np.einsum("ci,ij,iq->jcq", data.Kxm, point.W, F.rows, optimize=True)
        gamma = F.projected - point.axes.c0[:, None, None] ** 2 * predicted
        return _kron_sum(self._traits, D, self._solve(np.eye(data.ncovariates)) @ gamma)

    def given(self, H: Array, D: Array, F: SampleVectors) -> Array:
        """The Gram matrix of added columns given the null model's effects, which contrasts do not contain."""
        return H


@dataclass(frozen=True)
class _CoupledNull:
    """Effects ``(A ⊗ X) vec(B)`` with A of rank below p."""

    K: Metric
    coupled: Coupled

    @property
    def _design(self) -> CoupledDesign:
        design = self.K.point.data.design
        assert design is not None
        return design

    def beta(self) -> Array:
        return self._design.effects_of_given(self.coupled.beta.T.reshape(-1, 1))[:, 0]

    def covariance(self) -> Array:
        root = self._design.effects_of_given(self._half_solve(np.eye(self.coupled.beta.size)).T)
        return np.asarray(root @ root.T)

    def _half_solve(self, M: Array) -> Array:
        """``L⁻¹M``, LLᵀ the Gram matrix of the effects of the basis."""
        return np.asarray(linalg.solve_triangular(self.coupled.chol, M, lower=True))

    def _explained(self, D: Array, F: SampleVectors) -> Array:
        """``L⁻¹`` times the products of the basis and the added columns: (ca, qe)."""
        grams = np.einsum("ic,ij,iq->jcq", self._design.X, self.K.point.W, F.rows, optimize=True)
        return self._half_solve(_kron_sum(self.coupled.TA, D, grams))

    def explained(self, D: Array, F: SampleVectors) -> Array:
        """Change of the null model's effects for a unit of every added effect: (ca, qe)."""
        half = self._explained(D, F)
        effects = linalg.solve_triangular(self.coupled.chol, half, lower=True, trans="T")
        return self._design.effects_of_given(np.asarray(effects))

    def given(self, H: Array, D: Array, F: SampleVectors) -> Array:
        """The Gram matrix of added columns given the null model's effects."""
        half = self._explained(D, F)
        return np.asarray(H - half.T @ half)


def _kron_sum(left: Array, right: Array, grams: Array) -> Array:
    """``Σ_j left_j right_jᵀ ⊗ grams_j``."""
    a, b = left.shape[1], right.shape[1]
    blocks = np.einsum("jk,jl,jqr->kqlr", left, right, grams, optimize=True)
    return np.asarray(blocks.reshape(a * grams.shape[1], b * grams.shape[2]))


def independent_columns(H: Array, sizes: Array, tolerance: float = 1e-12) -> Indices:
    """Indices of columns that do not lie in the span of the columns before them, from their Gram matrix H.

    A column counts as dependent where what the others leave of its squared length is not above ``tolerance`` times
    ``sizes``, or where its size is 0.
    """
    if _all_independent(H, sizes, tolerance):
        return np.arange(H.shape[0])
    kept: list[int] = []
    L = np.zeros(H.shape)
    for k in range(H.shape[0]):
        size = len(kept)
        row = linalg.solve_triangular(L[:size, :size], H[kept, k], lower=True) if size else np.empty(0)
        left = H[k, k] - row @ row
        if sizes[k] > 0 and left > tolerance * sizes[k]:
            L[size, :size], L[size, size] = row, np.sqrt(left)
            kept.append(k)
    return np.array(kept, dtype=np.intp)


def telling_columns(H: Array, sizes: Array, tolerance: float) -> Indices:
    """As many columns as are independent, from their Gram matrix H: of dependent ones those that leave the most.

    `independent_columns` takes them as they come. Where columns before an exact combination of them are nearly
    dependent, it divides what rounding leaves of that by the little that they leave.
    """
    left = np.flatnonzero((sizes > 0) & (np.diag(H) > tolerance * sizes))
    if not left.size:
        return left
    root = np.sqrt(sizes[left])
    _, order, rank, _ = linalg.lapack.dpstrf(H[np.ix_(left, left)] / (root[:, None] * root), tol=tolerance, lower=1)
    return np.asarray(left[np.sort(order[:rank] - 1)])


def _all_independent(H: Array, sizes: Array, tolerance: float) -> bool:
    """Whether every column counts as independent: the squared diagonal of a Cholesky factor is what is left of each."""
    try:
        left = np.diag(np.linalg.cholesky(H)) ** 2
    except np.linalg.LinAlgError:
        return False
    return bool(np.all((left > tolerance * sizes) & (sizes > 0)))
