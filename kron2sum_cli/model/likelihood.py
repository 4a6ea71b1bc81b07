"""The log-likelihood, its score and its curvature at one point, in the trait axes of that point.

In the axes ``C0`` and ``C1`` are ``diag(c0²)`` and ``diag(c1²)``, every entry of ``Z Tᵀ`` is independent with
variance ``s_i c0_j² + c1_j²``, and symmetric perturbations E0, E1 (p, p) of the two diagonals are the directions.
Scores are the symmetric matrices S0, S1 with ``dl = <S0, E0> + <S1, E1>``. In the coordinates of the traits the
score of C0 is ``Tᵀ S0 T``.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, Self

import numpy as np
from scipy import linalg
from scipy.linalg import lapack

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.contrasts import Contrasts
from kron2sum_cli.model.spectrum import EPSILON, ROWS_AT_ONCE, Array, parts_of, weighted_products
from kron2sum_cli.model.trait_axes import TraitAxes

LOG2PI = float(np.log(2 * np.pi))

Grams = tuple[Array, Array, Array]
"""Sums for powers 0, 1 and 2 of the eigenvalues of GGᵀ, (p, p) each."""


class HasMeanEigenvalue(Protocol):
    """The data of a likelihood."""

    @property
    def mean_eigenvalue(self) -> float:
        """Mean eigenvalue of GGᵀ over the contrasts, τ."""

    @property
    def ntraits(self) -> int:
        """Number of traits, p."""


@dataclass(frozen=True)
class LikelihoodPoint(ABC):
    """The likelihood at one (C0, C1), whatever its data.

    ``lml`` is the log-likelihood with all constants, restricted to the contrasts of the covariates or not (``reml``),
    and ``axes`` are the trait axes of (C0, C1).
    """

    data: HasMeanEigenvalue
    reml: bool
    axes: TraitAxes
    lml: float

    @abstractmethod
    def at(self, axes: TraitAxes) -> Self:
        """The same likelihood at other covariances; raises NumericalError where it is not defined."""

    @property
    @abstractmethod
    def quadratic(self) -> float:
        """``rᵀK⁻¹r``."""

    @cached_property
    @abstractmethod
    def scores(self) -> tuple[Array, Array]:
        """Derivatives in C0 and C1 along the axes, symmetric (p, p); made when asked for: a trial may do without."""

    @property
    def score0(self) -> Array:
        """Derivative in C0."""
        return self.scores[0]

    @property
    def score1(self) -> Array:
        """Derivative in C1."""
        return self.scores[1]

    @property
    @abstractmethod
    def grams(self) -> Grams:
        """``tr(P_j M P_l M')`` for (M, M') = (I, I), (GGᵀ, I), (GGᵀ, GGᵀ), (p, p) each; with missing cells about so."""

    @property
    @abstractmethod
    def information_of_rows(self) -> Array:
        """Information of the rotated rows along the axes, (m, p): inverse variances less what missing cells take."""


@dataclass(frozen=True)
class MeanBlock:
    """Covariance of the fixed effects of projected covariates on every axis j, given the contrasts: (p, c, c).

    ``S_j = c0_j² Kxx + c1_j² I - c0_j⁴ Kxm W_j Kmx`` is the covariance of the fixed effects ``Qxᵀ X B`` of axis j. As
    c1_j tends to 0 this difference can be smaller than its terms by ten orders of magnitude, and rounding makes its
    score and its curvature contradict each other. With ``R = Kxm diag(s)^-½`` and ``A = Kxx - RRᵀ`` it is the sum
    ``c0_j² A + c1_j² (I + c0_j² R W_j Rᵀ)``, and its derivatives ``dS0`` and ``dS1`` by c0_j² and c1_j² are sums, too.
    """

    A: Array
    R: Array
    S: Array
    dS0: Array
    dS1: Array

    @property
    def cholesky(self) -> Array:
        """Lower Cholesky factors of every S_j, (p, c, c).

        Raises NumericalError where one is not positive definite.
        """
        try:
            return np.asarray(np.linalg.cholesky(self.S), np.float64)
        except np.linalg.LinAlgError:
            raise NumericalError(
                "the likelihood is not defined: C1 is singular and GGᵀ is so along the covariates"
            ) from None

    @property
    def logdet(self) -> float:
        """``Σ_j log|S_j|``."""
        return 2 * float(np.sum(np.log(np.diagonal(self.cholesky, axis1=1, axis2=2))))

    def traces(self) -> tuple[Array, Array]:
        """``tr(S_j⁻¹ dS_j)`` for both derivatives, each (p,)."""
        inverse = np.linalg.inv(self.S)
        return np.einsum("jab,jba->j", inverse, self.dS0), np.einsum("jab,jba->j", inverse, self.dS1)


@dataclass(frozen=True)
class Coupled:
    """Generalised least squares of the coupled fixed effects at one point.

    ``TA`` (p, a) is the trait design in the axes, ``chol`` (ac, ac) the lower Cholesky factor of
    ``H = Σ_j t_j t_jᵀ ⊗ XᵀW_jX``, and ``beta`` (c, a) estimates B.
    """

    TA: Array
    chol: Array
    beta: Array


@dataclass(frozen=True)
class Point(LikelihoodPoint):
    """The likelihood of complete traits.

    - ``W`` (m, p): inverse variances.
    - ``alpha`` (m, p): ``W`` times the residuals: K⁻¹r in rotated rows and axes.
    - ``coupled``: estimates of coupled fixed effects; None where all covariates are projected out.
    """

    data: Contrasts
    W: Array
    alpha: Array
    coupled: Coupled | None

    def at(self, axes: TraitAxes) -> "Point":
        """The same likelihood at other covariances; raises as `evaluate` does."""
        return evaluate(self.data, axes, self.reml)

    @property
    def outside_weight(self) -> Array:
        """Inverse variances of contrasts outside V, (p,); 0 where there are none."""
        if self.data.noutside == 0:
            return np.zeros(self.axes.c1.size)
        return np.asarray(1 / self.axes.c1**2)

    @property
    def information_of_rows(self) -> Array:
        """Inverse variances (m, p)."""
        return self.W

    @cached_property
    def scores(self) -> tuple[Array, Array]:
        """See `LikelihoodPoint.scores`."""
        data, W, alpha, s = self.data, self.W, self.alpha, self.data.s[:, None]
        trace0, trace1 = data.s @ W, W.sum(axis=0) + data.noutside * self.outside_weight
        if not self.reml and data.ncovariates:
            extra0, extra1 = mean_block(data, self.axes, W).traces()
            trace0, trace1 = trace0 + extra0, trace1 + extra1
        score0, score1 = alpha.T @ (s * alpha) - np.diag(trace0), alpha.T @ alpha - np.diag(trace1)
        if self.reml and self.coupled is not None:
            F = normalised_effects(data, self.coupled, W)
            flat, scaled = F.reshape(len(F), -1), (F * s).reshape(len(F), -1)
            score0, score1 = score0 + scaled @ flat.T, score1 + flat @ flat.T
        return 0.5 * score0, 0.5 * score1

    @property
    def quadratic(self) -> float:
        """``rᵀK⁻¹r``."""
        return float(np.sum(self.alpha**2 / self.W))

    @property
    def grams(self) -> Grams:
        """See `row_grams`: twice the expected information of a pair of axes."""
        Q0, Q1, Q2 = row_grams(self.W, self.data.s)
        outside = self.outside_weight
        return Q0 + self.data.noutside * np.multiply.outer(outside, outside), Q1, Q2

    def curvature(self, grams: Grams, E0: Array, E1: Array) -> tuple[Array, Array]:
        """Change of (score0, score1) for a small step (E0, E1); ``grams`` as `information.full_grams` gives them."""
        Q0, Q1, Q2 = grams
        a, s = self.alpha, self.data.s[:, None]
        sa = s * a
        change = _apply_P(self, sa @ E0 + a @ E1)
        d0, d1 = change.T @ sa, change.T @ a
        if self.reml and self.coupled is not None:
            extra0, extra1 = _restriction_curvature(self, self.coupled, E0, E1)
            d0, d1 = d0 + extra0, d1 + extra1
        return (
            -0.5 * (d0 + d0.T) + 0.5 * (Q2 * E0 + Q1 * E1),
            -0.5 * (d1 + d1.T) + 0.5 * (Q1 * E0 + Q0 * E1),
        )


def evaluate(data: Contrasts, axes: TraitAxes, reml: bool) -> Point:
    """The likelihood at one point; O(mp² + mpc²).

    ML: ``2 lml = -np log 2π - log|K| - rᵀK⁻¹r``. REML (LaMotte 2007): ``2 lml = -(np - ca) log 2π + log|MᵀM| - log|K| -
    log|MᵀK⁻¹M| - rᵀK⁻¹r``. Raises NumericalError where a variance is 0: C1 is singular and GGᵀ has a null direction.
    """
    variances = axes.variances(data.s)
    smallest = variances.min(initial=np.inf)
    singular = axes.c1.min() <= 0
    if smallest <= 0 or (singular and (data.noutside or (not reml and covariates_singular(data)))):
        raise NumericalError("the likelihood is not defined: C1 is singular where GGᵀ is singular, too")
    W = 1 / variances
    Z = data.Z @ axes.T.T
    coupled = _least_squares(data, axes, W, Z) if data.design is not None else None
    residual = Z if coupled is None else Z - data.design.X @ coupled.beta @ coupled.TA.T  # type: ignore[union-attr]
    alpha = W * residual
    logdet = _logdet_contrasts(data, axes, variances)
    ndof = data.nrows * data.ntraits
    if not reml and data.ncovariates:
        logdet += mean_block(data, axes, W).logdet - 2 * data.ncovariates * axes.logdet_T
        ndof += data.ncovariates * data.ntraits
    if reml and coupled is not None:
        logdet += 2 * float(np.log(np.diag(coupled.chol)).sum()) - data.design.logdet_MtM  # type: ignore[union-attr]
        ndof -= coupled.beta.size
    lml = -0.5 * (ndof * LOG2PI + logdet + float(np.sum(alpha * residual)))
    return Point(data, reml, axes, lml, W, alpha, coupled)


def row_grams(W: Array, s: Array) -> Grams:
    """``Σ_i s_i^k w_ij w_il`` for k = 0, 1, 2, each (p, p), of weights W (m, p) and eigenvalues s (m,)."""
    sW = s[:, None] * W
    return W.T @ W, W.T @ sW, sW.T @ sW


def grams_less_effects(point: LikelihoodPoint, s: Array, grams: Grams, effects: Callable[[slice], Array]) -> Grams:
    """`LikelihoodPoint.grams` of ``P_j = W_j - F_jF_jᵀ`` from those of W; ``effects`` gives rows of F (p, m, c)."""
    Q, crossed, W = list(grams), [], point.information_of_rows
    for rows in parts_of(len(s), ROWS_AT_ONCE):
        F = effects(rows)
        p, _, c = F.shape
        squares = np.sum(F**2, axis=2)
        for power in range(3):
            taken = (squares * s[rows] ** power) @ W[rows]
            Q[power] = Q[power] - taken - taken.T
        flat = F.transpose(1, 0, 2).reshape(-1, p * c)
        crossed.append(np.array([flat.T @ flat, flat.T @ (s[rows, None] * flat)]))
    of_I, of_GG = np.sum(crossed, axis=0).reshape(2, p, c, p, c)
    for power, (one, other) in enumerate(((of_I, of_I), (of_GG, of_I), (of_GG, of_GG))):
        Q[power] = Q[power] + np.einsum("jalb,jalb->jl", one, other)
    return Q[0], Q[1], Q[2]


def logdet_covariance(point: Point) -> float:
    """``log|K|``; minus infinity where C1 is singular and GGᵀ is singular on the covariates."""
    data, axes = point.data, point.axes
    logdet = _logdet_contrasts(data, axes, 1 / point.W)
    if data.ncovariates == 0:
        return logdet
    if axes.c1.min() == 0 and covariates_singular(data):
        return -np.inf
    block = mean_block(data, axes, point.W)
    return logdet + block.logdet - 2 * data.ncovariates * axes.logdet_T


def _logdet_contrasts(data: Contrasts, axes: TraitAxes, variances: Array) -> float:
    """Log determinant of the covariance of all contrasts of all traits."""
    logdet = float(np.log(variances).sum()) - 2 * data.nrows * axes.logdet_T
    return logdet + 2 * data.noutside * float(np.log(axes.c1).sum()) if data.noutside else logdet


def mean_block(data: Contrasts, axes: TraitAxes, W: Array) -> MeanBlock:
    """The conditional covariance of the projected fixed effects on every axis, and its derivatives."""
    a, b = axes.c0[:, None, None] ** 2, axes.c1[:, None, None] ** 2
    c, (A, R) = data.ncovariates, conditional_covariance(data)
    pairs = (R[:, None, :] * R[None, :, :]).reshape(c * c, W.shape[0])

    def weighted(weights: Array) -> Array:
        return np.asarray((pairs @ weights).T.reshape(W.shape[1], c, c))

    eye = np.eye(c)
    return MeanBlock(
        A=A,
        R=R,
        S=a * A + b * (eye + a * weighted(W)),
        dS0=A + b**2 * weighted(W**2),
        dS1=eye + a**2 * weighted(data.s[:, None] * W**2),
    )


def conditional_covariance(data: Contrasts) -> tuple[Array, Array]:
    """GGᵀ of the projected covariates given the contrasts, ``Kxx - RRᵀ`` (c, c), and ``R = Kxm diag(s)^-½`` (c, m)."""
    root = np.sqrt(data.s)
    R = np.divide(data.Kxm, root, out=np.zeros_like(data.Kxm), where=root > 0)
    return data.Kxx - R @ R.T, R


def covariates_singular(data: Contrasts) -> bool:
    """Whether GGᵀ, given the contrasts, is singular on the projected covariates."""
    if data.ncovariates == 0:
        return False
    noise = data.nsamples * EPSILON * max(float(data.s.max(initial=0.0)), float(np.trace(data.Kxx)))
    return bool(np.linalg.eigvalsh(conditional_covariance(data)[0])[0] <= noise)


def _least_squares(data: Contrasts, axes: TraitAxes, W: Array, Z: Array) -> Coupled:
    design = data.design
    assert design is not None
    TA, X = axes.T @ design.A, design.X
    (p, a), c = TA.shape, X.shape[1]
    of_A = (TA[:, :, None] * TA[:, None, :]).reshape(p, a * a)
    pairs = of_A.T @ weighted_products(X, W).reshape(p, c * c)
    try:
        H = pairs.reshape(a, a, c, c).swapaxes(1, 2).reshape(a * c, a * c)
        chol = np.asarray(np.linalg.cholesky(H), np.float64)
    except np.linalg.LinAlgError:
        raise NumericalError("the fixed effects are collinear: A or X does not have full column rank") from None
    rhs = (TA.T @ (X.T @ (W * Z)).T).reshape(-1)
    beta = cholesky_solve(chol, rhs).reshape(a, c).T
    return Coupled(TA, chol, beta)


def cholesky_solve(L: Array, b: Array) -> Array:
    """``(LLᵀ)⁻¹b`` for b (N,) or (N, k); for a few effects scipy's `cho_solve` would take ten times as long."""
    return np.asarray(lapack.dpotrs(L, b, lower=1)[0]) if b.size else b.copy()


def normalised_effects(data: Contrasts, coupled: Coupled, W: Array) -> Array:
    """``F = K⁻¹M H^-½`` for coupled fixed effects: (p, m, ac). ``tr(H⁻¹ MᵀK⁻¹ ∂K K⁻¹M) = Σ_q F_qᵀ ∂K F_q``."""
    design, (c, a) = data.design, coupled.beta.shape
    assert design is not None
    half = linalg.solve_triangular(coupled.chol, np.eye(a * c), lower=True).reshape(a * c, a, c)
    product = np.einsum("qkb,jk,ib->jiq", half, coupled.TA, design.X, optimize=True)
    return np.asarray(product * W.T[:, :, None])


def _restriction_curvature(point: Point, coupled: Coupled, E0: Array, E1: Array) -> tuple[Array, Array]:
    """Minus what ``-log|H|/2`` adds to the change of the scores: ``Σ_q F_qᵀ∂K W F_q - ½ Σ_qr (F_qᵀ∂K F_r) F_qᵀF_r``."""
    F = normalised_effects(point.data, coupled, point.W).transpose(2, 1, 0)
    sF = point.data.s[:, None] * F
    moved = sF @ E0 + F @ E1
    N = np.einsum("qij,rij->qr", moved, F, optimize=True)
    change = point.W * moved - 0.5 * np.einsum("qr,rij->qij", N, F, optimize=True)
    rows = change.reshape(-1, F.shape[2]).T
    return rows @ sF.reshape(-1, F.shape[2]), rows @ F.reshape(-1, F.shape[2])


def _apply_P(point: Point, B: Array) -> Array:
    """``P B`` for B (m, p) in rotated rows and axes: W∘B less what the coupled fixed effects explain."""
    WB = point.W * B
    if point.coupled is None:
        return np.asarray(WB)
    design, coupled = point.data.design, point.coupled
    assert design is not None
    c, a = coupled.beta.shape
    rhs = (coupled.TA.T @ (design.X.T @ WB).T).reshape(-1)
    effects = cholesky_solve(coupled.chol, rhs).reshape(a, c).T
    return np.asarray(WB - point.W * (design.X @ effects @ coupled.TA.T))
