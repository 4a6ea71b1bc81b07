"""The likelihood of families at one point, with the covariates in the model.

The contrasts of the covariates would fill the blocks of `spectrum`, so X stays. Along trait axis j, with ``W_j`` the
inverse variances of the rows,

    H_j = XᵀW_jX        b_j = H_j⁻¹XᵀW_jy_j        P_j = W_j - W_jX H_j⁻¹XᵀW_j

and ``2 l = -(n - c)p log 2π - log|K| - Σ_j log|H_j| - Σ_j y_jᵀP_jy_j`` under REML, for an X with orthonormal columns.
Everything costs O(np(p + c²)).
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import linalg

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.families.spectrum import FamilySpectrum
from kron2sum_cli.model.likelihood import LOG2PI, Grams, LikelihoodPoint, grams_less_effects, row_grams
from kron2sum_cli.model.spectrum import ROWS_AT_ONCE, Array, parts_of, weighted_products
from kron2sum_cli.model.trait_axes import TraitAxes


@dataclass(frozen=True)
class FamilyTraits:
    """The data of one likelihood: traits and covariates in the rows of a `FamilySpectrum`.

    ``Z`` (n, p) are rotated traits ``UᵀY``, and ``X`` (n, c) rotated covariates ``UᵀQ``, Q an orthonormal basis of the
    covariates, which as they were given are QR.
    """

    spectrum: FamilySpectrum
    Z: Array
    X: Array
    R: Array

    @property
    def s(self) -> Array:
        """Eigenvalues (n,)."""
        return self.spectrum.s

    @property
    def nsamples(self) -> int:
        """Number of samples, n."""
        return int(self.Z.shape[0])

    @property
    def ntraits(self) -> int:
        """Number of traits, p."""
        return int(self.Z.shape[1])

    @property
    def ncovariates(self) -> int:
        """Number of covariates, c."""
        return int(self.X.shape[1])

    @property
    def nrows(self) -> int:
        """Number of contrasts of a trait, n - c."""
        return self.nsamples - self.ncovariates

    @cached_property
    def mean_eigenvalue(self) -> float:
        """Mean eigenvalue of GGᵀ over the contrasts of the covariates, τ."""
        of_covariates = float(np.sum(self.s[:, None] * self.X**2))
        return (float(self.s.sum()) - of_covariates) / self.nrows

    @cached_property
    def residuals(self) -> Array:
        """Rotated traits (n, p) less what ordinary least squares on the covariates explains."""
        return np.asarray(self.Z - self.X @ (self.X.T @ self.Z))


def with_effects(data: FamilyTraits, S: Array) -> FamilyTraits:
    """The data with effects of S (n, k) on every trait; S is orthonormal, and orthogonal to the covariates."""
    rotated = data.spectrum.rotation.to_rows(S)
    return replace(data, X=np.hstack([data.X, rotated]), R=linalg.block_diag(data.R, np.eye(S.shape[1])))


def family_traits(spectrum: FamilySpectrum, Y: Array, X: Array) -> FamilyTraits:
    """Rotate traits Y (n, p) and covariates X (n, c).

    Raises NumericalError where X does not have full column rank, or there are too few samples.
    """
    n, c = X.shape
    if c >= n:
        raise NumericalError(f"{c} covariates need more than {n} samples: give fewer covariates")
    Q, R = linalg.qr(X, mode="economic")
    if np.any(np.abs(np.diag(R)) <= 1e-9 * np.linalg.norm(X, axis=0)):
        raise NumericalError("a covariate lies in the span of the others: leave it out")
    rotation = spectrum.rotation
    return FamilyTraits(spectrum, rotation.to_rows(Y), rotation.to_rows(np.asarray(Q)), np.asarray(R))


@dataclass(frozen=True)
class FamilyPoint(LikelihoodPoint):
    """The likelihood of families at one (C0, C1), in its trait axes; compare `likelihood.Point`.

    ``W`` (n, p) are inverse variances, ``alpha`` (n, p) is ``P_j y_j``, rotated, ``chol`` (p, c, c) are lower Cholesky
    factors of every H_j, and ``b`` (c, p) the fixed effects of the orthonormal covariates along every axis.
    """

    data: FamilyTraits
    W: Array
    alpha: Array
    chol: Array
    b: Array

    @cached_property
    def scores(self) -> tuple[Array, Array]:
        """See `LikelihoodPoint.scores`."""
        data, W, alpha = self.data, self.W, self.alpha
        trace0, trace1 = data.s @ W, W.sum(axis=0)
        if self.reml:
            taken0, taken1 = _traces_of_effects(data, W, self.chol)
            trace0, trace1 = trace0 - taken0, trace1 - taken1
        score0 = alpha.T @ (data.s[:, None] * alpha) - np.diag(trace0)
        score1 = alpha.T @ alpha - np.diag(trace1)
        return 0.5 * score0, 0.5 * score1

    def at(self, axes: TraitAxes) -> "FamilyPoint":
        """The likelihood of the same data at other covariances."""
        return evaluate(self.data, axes, self.reml)

    @property
    def quadratic(self) -> float:
        """``rᵀK⁻¹r``."""
        return float(np.sum(self.alpha**2 / self.W))

    @property
    def information_of_rows(self) -> Array:
        """Inverse variances (n, p)."""
        return self.W

    def normalised_effects(self, rows: slice) -> Array:
        """``F_j = W_jX L_j⁻ᵀ`` in some rows, so that ``P_j = W_j - F_jF_jᵀ``: (p, rows, c)."""
        weighted = self.W[rows].T[:, :, None] * self.data.X[rows]
        return np.asarray(weighted @ np.linalg.inv(self.chol).transpose(0, 2, 1))

    @cached_property
    def grams_of_rows(self) -> Grams:
        """`grams` under ML, from which those under REML differ by a share of the order of c/n."""
        return row_grams(self.W, self.data.s)

    @cached_property
    def grams(self) -> Grams:
        """``tr(P_j M P_l M')`` for (M, M') = (I, I), (GGᵀ, I), (GGᵀ, GGᵀ): three (p, p); under ML with W for P."""
        if not self.reml or self.data.ncovariates == 0:
            return self.grams_of_rows
        return grams_less_effects(self, self.data.s, self.grams_of_rows, self.normalised_effects)

    def project(self, F: Array) -> Array:
        """``P_j f_j`` on every axis, for F (n, p, k) in rotated rows."""
        WF, X = self.W[:, :, None] * F, self.data.X
        explained = np.empty_like(WF)
        for j, L in enumerate(self.chol):
            explained[:, j] = X @ linalg.cho_solve((L, True), X.T @ WF[:, j])
        return np.asarray(WF - self.W[:, :, None] * explained)

    def curvature(self, E0: Array, E1: Array, grams: Grams | None = None) -> tuple[Array, Array]:
        """Change of (score0, score1) for a small step (E0, E1), with the ``grams`` of this point or of one nearby."""
        Q0, Q1, Q2 = self.grams if grams is None else grams
        sa = self.data.s[:, None] * self.alpha
        change = self.project((sa @ E0 + self.alpha @ E1)[:, :, None])[:, :, 0]
        d0, d1 = change.T @ sa, change.T @ self.alpha
        return (
            -0.5 * (d0 + d0.T) + 0.5 * (Q2 * E0 + Q1 * E1),
            -0.5 * (d1 + d1.T) + 0.5 * (Q1 * E0 + Q0 * E1),
        )


def evaluate(data: FamilyTraits, axes: TraitAxes, reml: bool) -> FamilyPoint:
    """The likelihood at one point; O(np(p + c²)).

    Raises NumericalError where a variance is 0 (C1 is singular and GGᵀ has a null direction), or covariates are
    collinear.
    """
    variances = axes.variances(data.s)
    if variances.min(initial=np.inf) <= 0:
        raise NumericalError("the likelihood is not defined: C1 is singular where GGᵀ is singular, too")
    W, Z, X = 1 / variances, data.Z @ axes.T.T, data.X
    n, p, c = data.nsamples, data.ntraits, data.ncovariates
    try:
        chol = np.asarray(np.linalg.cholesky(weighted_products(X, W)), np.float64)
    except np.linalg.LinAlgError:
        raise NumericalError("the covariates are collinear along a trait axis: leave one of them out") from None
    right = X.T @ (W * Z)
    b = np.stack([linalg.cho_solve((L, True), r) for L, r in zip(chol, right.T, strict=True)], axis=1)
    residual = Z - X @ b
    alpha = W * residual
    logdet = float(np.log(variances).sum()) - 2 * n * axes.logdet_T
    ndof = n * p
    if reml:
        logdet += 2 * float(np.log(np.diagonal(chol, axis1=1, axis2=2)).sum()) + 2 * c * axes.logdet_T
        ndof -= c * p
    lml = -0.5 * (ndof * LOG2PI + logdet + float(np.sum(alpha * residual)))
    return FamilyPoint(data, reml, axes, lml, W, alpha, chol, b)


def _traces_of_effects(data: FamilyTraits, W: Array, chol: Array) -> tuple[Array, Array]:
    """``tr(H_j⁻¹ XᵀW_j M W_jX)`` for M = GGᵀ and I, each (p,)."""
    taken0, taken1 = np.zeros(len(chol)), np.zeros(len(chol))
    inverse = np.linalg.inv(chol)
    for rows in parts_of(data.nsamples, ROWS_AT_ONCE):
        for j, M in enumerate(inverse):
            lengths = W[rows, j] ** 2 * np.sum((data.X[rows] @ M.T) ** 2, axis=1)
            taken0[j] += data.s[rows] @ lengths
            taken1[j] += lengths.sum()
    return taken0, taken1
