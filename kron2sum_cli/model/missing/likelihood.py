"""The log-likelihood of the observed cells, its score and an approximate curvature at one point.

With ``D = [E, A ⊗ Qx]`` (missing cells, fixed effects of a basis of X), ``H = DᵀPD`` and ``Q = P - PDH⁻¹DᵀP``, for a
filling z::

    2 lml(ML)   = -(np - q) log 2π - log|K| - log|H_EE| - zᵀQz,
    2 lml(REML) = -(np - q - ca) log 2π + log|M_oᵀM_o| - log|K| - log|H| - zᵀQz,

and the score in the direction ∂K is ``½ αᵀ∂Kα - ½ tr(Q'∂K)``, ``α = Qz``, which is 0 in missing cells; Q' is Q for
REML, and Q of ``D = E`` for ML. One Cholesky factor of H gives all of it.

Effects that were added (`observed.with_added`) are columns of D after the covariates', and maximised over under ML and
REML alike: H of the determinant, and Q', leave them out. Under REML that is the likelihood of the contrasts of the
covariates with the added effects as its only fixed effects.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import linalg

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.likelihood import LOG2PI, Grams, cholesky_solve, row_grams
from kron2sum_cli.model.missing.design import (
    CellDesign,
    design_at,
    has_large_weights,
    inverse_of,
    precision_factor,
    row_traces,
)
from kron2sum_cli.model.missing.observed import ObservedCells, PointOfCells
from kron2sum_cli.model.spectrum import Array
from kron2sum_cli.model.trait_axes import TraitAxes


@dataclass(frozen=True)
class ObservedPoint(PointOfCells):
    """The likelihood of the observed cells, with a dense relationship matrix.

    - ``W`` (m, p): inverse variances of all cells, in rotated rows and axes.
    - ``chol`` (q + ca, q + ca): lower Cholesky factor of ``H = DᵀPD``.
    - ``theta`` (q + ca,): by how much the filling of every missing cell is too large, then the effects of Qx, column by
      column.
    - ``alpha`` (m, p): ``Qz`` in the span of V.
    - ``alpha_outside`` (q, p): ``Qz`` outside V, as coefficients of the missing cells' unit vectors; no rows where V is
      complete.
    """

    data: ObservedCells
    W: Array
    design: CellDesign
    chol: Array
    theta: Array
    alpha: Array
    alpha_outside: Array

    def at(self, axes: TraitAxes) -> "ObservedPoint":
        """The same likelihood at other covariances; raises as `evaluate` does."""
        return evaluate(self.data, axes, self.reml)

    @property
    def quadratic(self) -> float:
        """``rᵀK⁻¹r`` of the observed cells."""
        inside = float(np.sum(self.alpha**2 / self.W))
        if self.data.outside_root is None:
            return inside
        return inside + float(np.sum((self.data.outside_root @ self.alpha_outside) ** 2 / self.design.outside_weight))

    @property
    def restricting(self) -> CellDesign:
        """The missing cells, and under REML the covariates' effects: the columns that the determinants take."""
        return self.design.leading(nrestricting(self.data, self.reml))

    @property
    def B(self) -> Array:
        """Fixed effects of the covariates, (c, a)."""
        (a, c, _), q = self.data.to_X.shape, self.data.ncells
        B = np.einsum("kij,kj->ik", self.data.to_X, self.theta[q : q + a * c].reshape(a, c))
        return B if self.data.B_of_means is None else np.asarray(B + self.data.B_of_means)

    @property
    def B_covariance(self) -> Array:
        """``(M_oᵀK_oo⁻¹M_o)⁻¹`` of all fixed effects, vec(B) first, (ca, ca) or more where some were added."""
        q, prior, (a, c, _) = self.data.ncells, self.data.prior, self.data.to_X.shape
        covariance = cholesky_solve(self.chol[q:, q:], np.eye(self.chol.shape[0] - q))
        if prior is not None:
            root = np.linalg.solve(self.data.A, self.axes.Tinv * self.axes.c0)
            covariance[: a * c, : a * c] -= np.kron(root @ root.T, prior * np.eye(c))
        left_out = self.design.left_out - q
        covariance[left_out, left_out] = 0.0
        to_X = linalg.block_diag(*self.data.to_X, np.eye(len(covariance) - a * c))
        return np.asarray(to_X @ covariance @ to_X.T)

    @property
    def completed(self) -> Array:
        """Conditional mean of every missing cell given the observed ones, (q,)."""
        return np.asarray(self.data.filling - self.theta[: self.data.ncells])

    @property
    def completed_variance(self) -> Array:
        """Conditional variance of every missing cell, (q,), with that of the estimated fixed effects."""
        q = self.data.ncells
        inverse = inverse_of(self.chol)
        return np.asarray(np.diag(inverse)[:q].copy())

    @property
    def information_of_rows(self) -> Array:
        """Diagonal of Q, (m, p): the information that is left in every rotated row and axis."""
        left = 1 - self.W * np.einsum("mjj->mj", self._traces[0])
        return np.asarray(self.W * np.clip(left, 0.0, 1.0))

    def alpha_samples(self) -> Array:
        """``Qz`` over the samples: (n, p) in the axes."""
        filled = self.data.filled
        out = np.asarray(filled.V @ self.alpha)
        if self.data.outside_root is not None:
            np.add.at(out, self.data.rows, self.alpha_outside)
            out -= filled.V @ (self.data.U.T @ self.alpha_outside)
        return out

    @cached_property
    def _traces(self) -> tuple[Array, Array]:
        """``D H⁻¹ Dᵀ`` of the score's D at every rotated row, (m, p, p), and the sum of those outside V, (p, p)."""
        left, p = self.restricting, self.data.ntraits
        if left.size == 0:
            return np.zeros((len(self.W), p, p)), np.zeros((p, p))
        return row_traces(left, inverse_of(self.chol[: left.size, : left.size]))

    @cached_property
    def scores(self) -> tuple[Array, Array]:
        """See `LikelihoodPoint.scores`."""
        filled, W, alpha, outside_weight = self.data.filled, self.W, self.alpha, self.design.outside_weight
        traces, of_outside = self._traces
        weighted, s = traces * W[:, :, None] * W[:, None, :], filled.s
        score0 = alpha.T @ (s[:, None] * alpha) - np.diag(s @ W) + np.tensordot(s, weighted, 1)
        score1 = alpha.T @ alpha - np.diag(W.sum(axis=0) + filled.noutside * outside_weight) + weighted.sum(axis=0)
        if self.data.outside_root is not None:
            seen = self.data.outside_root @ self.alpha_outside
            score1 = score1 + seen.T @ seen + np.multiply.outer(outside_weight, outside_weight) * of_outside
        return 0.5 * score0, 0.5 * score1

    @property
    def grams(self) -> Grams:
        """About twice the expected information of a pair of axes, for powers 0, 1, 2 of the eigenvalues: (p, p) each.

        ``QKQ = Q`` gives the squared length of every row of Q in the metric of K; as if K were flat around it.
        """
        Q0, Q1, Q2 = row_grams(np.sqrt(self.W * self.information_of_rows), self.data.filled.s)
        outside_weight = self.design.outside_weight
        noutside = max(self.data.filled.noutside - self.data.ncells / self.data.ntraits, 0)
        return Q0 + noutside * np.multiply.outer(outside_weight, outside_weight), Q1, Q2

    def curvature(self, E0: Array, E1: Array) -> tuple[Array, Array]:
        """Change of (score0, score1) for a small step (E0, E1), by the average information.

        ``-½ ∂Kα Q dKα`` has the mean of the Hessian (Gilmour, Thompson and Cullis 1995). Its error changes the speed of
        a Newton step, not where it ends.
        """
        s = self.data.filled.s[:, None]
        moved = (s * self.alpha) @ E0 + self.alpha @ E1
        change, change_outside = self.project(moved, self.alpha_outside @ E1)
        d0, d1 = change.T @ (s * self.alpha), change.T @ self.alpha
        root = self.data.outside_root
        if root is not None:
            d1 = d1 + (root @ change_outside).T @ (root @ self.alpha_outside)
        return -0.25 * (d0 + d0.T), -0.25 * (d1 + d1.T)

    def project(self, F: Array, F_outside: Array) -> tuple[Array, Array]:
        """``Qf`` for f with rows F (m, p) in the span of V and coefficients F_outside (q, p) outside."""
        outside_weight = self.design.outside_weight
        theta = cholesky_solve(self.chol, self.design.transposed(self.W * F, F_outside * outside_weight))
        inside, outside = self.design.times(theta)
        return self.W * (F - inside), (F_outside - outside) * outside_weight


def nrestricting(data: ObservedCells, reml: bool) -> int:
    """How many columns of the design, the first ones, the determinants of the likelihood take."""
    return data.ncells + (data.A.shape[1] * data.X.shape[1] if reml else 0)


def evaluate(data: ObservedCells, axes: TraitAxes, reml: bool) -> ObservedPoint:
    """The likelihood of the observed cells at one point; O(q²m + q³).

    Raises NumericalError where K of the observed cells is singular, or fixed effects are collinear over them.
    """
    filled = data.filled
    variances = axes.variances(filled.s)
    if variances.min(initial=np.inf) <= 0 or (filled.noutside and axes.c1.min() <= 0):
        raise NumericalError("the likelihood is not defined: C1 is singular where GGᵀ is singular, too")
    W = 1 / variances
    design = design_at(data, axes)
    chol = precision_factor(design, W)
    Z = filled.Z @ axes.T.T
    theta = np.zeros(design.size)
    residual, residual_outside = Z, np.zeros((data.ncells if data.outside_root is not None else 0, data.ntraits))
    for _ in range(1 + has_large_weights(design, W)):
        theta = theta + cholesky_solve(chol, design.transposed(W * residual, residual_outside * design.outside_weight))
        inside, outside = design.times(theta)
        residual, residual_outside = (Z - inside if theta.size else Z), -outside
    alpha, alpha_outside = W * residual, residual_outside * design.outside_weight
    point = ObservedPoint(data, reml, axes, np.nan, W, design, chol, theta, alpha, alpha_outside)
    return replace(point, lml=_log_density(point))


def _log_density(point: ObservedPoint) -> float:
    data, axes, chol, reml = point.data, point.axes, point.chol, point.reml
    filled, q = data.filled, data.ncells
    logdet = -float(np.log(point.W).sum()) - 2 * filled.nrows * axes.logdet_T
    if filled.noutside:
        logdet += 2 * filled.noutside * float(np.log(axes.c1).sum())
    ndof = filled.nrows * data.ntraits - q
    size = nrestricting(data, reml)
    logdet += float(2 * np.log(np.diag(chol)[:size]).sum())
    if reml:
        ndof -= size - q - int(np.count_nonzero(data.left_out))
        logdet -= data.logdet_MtM
    return -0.5 * (ndof * LOG2PI + logdet + point.quadratic)
