"""Trait axes: the linear combinations of traits that C0 and C1 both leave uncorrelated."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.linalg import lapack

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.spectrum import Array, Indices, Mask


@dataclass(frozen=True)
class TraitAxes:
    """A simultaneous diagonaliser: ``T C0 Tᵀ = diag(c0²)``, ``T C1 Tᵀ = diag(c1²)``, ``τ c0² + c1² = 1``.

    τ is the mean eigenvalue of GGᵀ, so that τ c0² is the share of variance of an axis that is genetic.
    Square roots are kept because a share near 0 or 1 is exact in them, not in its complement.

    Axes are rows of T (p, p), and column k of its inverse Tinv is an effect along axis k. c0 and c1 (p,) are square
    roots of the genetic and the residual variance of every axis, not negative; c0 decreasing.
    """

    T: Array
    Tinv: Array
    c0: Array
    c1: Array

    @property
    def C0(self) -> Array:
        """C0 (p, p)."""
        L = self.Tinv * self.c0
        return np.asarray(L @ L.T)

    @property
    def C1(self) -> Array:
        """C1 (p, p)."""
        L = self.Tinv * self.c1
        return np.asarray(L @ L.T)

    @property
    def logdet_T(self) -> float:
        """``log|det T|``."""
        return float(np.linalg.slogdet(self.T)[1])

    def well_conditioned(self, design: Array) -> Array:
        """A basis (p, e) of the span of ``design``, orthonormal along the axes: units of traits do not matter."""
        return np.asarray(self.Tinv @ np.linalg.qr(self.T @ design)[0])

    def truncated(self, rank: int) -> "TraitAxes":
        """The same axes, with all variance of those after the first ``rank`` residual."""
        kept = np.arange(self.c0.size) < rank
        return TraitAxes(self.T, self.Tinv, np.where(kept, self.c0, 0.0), np.where(kept, self.c1, 1.0))

    def with_shares(self, genetic: Array, tau: float) -> "TraitAxes":
        """The same axes with other genetic shares of variance (p,), in decreasing order of these."""
        order = np.argsort(-genetic)
        shares = genetic[order]
        return TraitAxes(self.T[order], self.Tinv[:, order], np.sqrt(shares / tau), np.sqrt(1 - shares))

    def with_residual(self, chosen: Mask, root: float, tau: float) -> "TraitAxes":
        """Axes of the same C0 and another C1: residual shares of variance ``root²`` along the chosen axes (p,)."""
        genetic, size = np.sqrt((1 - root**2) / tau), np.ones(self.c0.size)
        size[chosen] = self.c0[chosen] / genetic
        c0, c1 = np.where(chosen, genetic, self.c0), np.where(chosen, root, self.c1)
        return TraitAxes(self.T / size[:, None], self.Tinv * size, c0, c1)

    def raised(self, floor: float, tau: float) -> "TraitAxes":
        """Axes of the same C0, and of a C1 raised to residual shares of variance of at least ``floor²``."""
        low = self.c1 < floor
        return self.with_residual(low, floor, tau) if low.any() else self

    def with_mean_eigenvalue(self, tau: float) -> "TraitAxes":
        """Axes of the same C0 and C1 for data with another mean eigenvalue τ of GGᵀ."""
        size = np.sqrt(tau * self.c0**2 + self.c1**2)
        return TraitAxes(self.T / size[:, None], self.Tinv * size, self.c0 / size, self.c1 / size)

    def variances(self, s: Array) -> Array:
        """Variance of every (row, axis) entry, ``s_i c0_j² + c1_j²``: (m, p)."""
        return np.asarray(np.multiply.outer(s, self.c0**2) + self.c1**2)


@cache
def pairs_of_axes(p: int) -> tuple[Indices, Indices]:
    """The pairs (j, l) of axes with j ≥ l, as ``np.tril_indices`` has them; not to be written to."""
    return np.tril_indices(p)


def axes_of_factors(L0: Array, L1: Array, tau: float) -> TraitAxes:
    """Axes of ``C0 = L0L0ᵀ`` and ``C1 = L1L1ᵀ`` by the cosine-sine decomposition of the stacked factors.

    With ``[√τ L0, L1]ᵀ = [Q0; Q1] R`` and ``Q1 = P diag(c1) Wᵀ``: ``T = (R⁻¹W)ᵀ``. Small cosines and sines keep their
    relative accuracy, which those of C0 and C1 themselves would not. The sign of an axis is free: an effect along it
    raises the trait that it changes most, in standard deviations.

    The factors have any number of columns; ``tau`` is the mean eigenvalue of GGᵀ, positive. Raises NumericalError where
    τ C0 + C1 is singular.
    """
    p = L0.shape[0]
    root = np.sqrt(tau)
    size = np.sqrt(np.sum((root * L0) ** 2, axis=1) + np.sum(L1**2, axis=1))
    if not np.all(np.isfinite(size)) or np.any(size == 0):
        raise NumericalError("the covariance of the traits is zero or not finite")
    stacked = np.vstack([root * L0.T, L1.T]) / size
    Q, R = np.linalg.qr(stacked)
    if R.shape[0] < p or np.min(np.abs(np.diag(R))) < 1e-13:
        raise NumericalError("the covariance of the traits is singular: some traits are linear combinations of others")
    Q0, Q1 = Q[: L0.shape[1]], Q[L0.shape[1] :]
    _, c1, Wt = np.linalg.svd(Q1)
    c1 = np.concatenate([c1, np.zeros(p - c1.size)])[::-1]
    W = Wt[::-1].T
    c0 = np.linalg.norm(Q0 @ W, axis=0)
    c0[L0.shape[1] :] = 0
    norm = np.hypot(c0, c1)
    effects = R.T @ W
    sign = np.sign(effects[np.argmax(np.abs(effects), axis=0), np.arange(p)])
    T = (lapack.dtrtrs(R, W)[0] * sign).T / size  # R is regular; solve_triangular would take ten times as long
    Tinv = size[:, None] * (effects * sign)
    return TraitAxes(T, Tinv, c0 / norm / root, np.minimum(c1 / norm, 1.0))


def axes_of_covariances(C0: Array, C1: Array, tau: float) -> TraitAxes:
    """Axes of two symmetric positive semi-definite matrices (p, p)."""
    return axes_of_factors(factor(C0), factor(C1), tau)


def factor(C: Array) -> Array:
    """L (p, p) with ``C = LLᵀ``, for C symmetric positive semi-definite (p, p), scaled to its diagonal.

    Raises NumericalError where C is not symmetric or has an eigenvalue below -1e-8 of its scale.
    """
    if not np.allclose(C, C.T, rtol=1e-8, atol=1e-8 * np.max(np.abs(C), initial=0)):
        raise NumericalError("a trait covariance matrix must be symmetric")
    size = np.sqrt(np.where(np.diag(C) > 0, np.diag(C), 1.0))
    values, vectors = np.linalg.eigh(C / np.multiply.outer(size, size))
    if values[0] < -1e-8:
        raise NumericalError(
            "a trait covariance matrix must be positive semi-definite; its smallest scaled eigenvalue is"
            f" {values[0]:.3g}"
        )
    return np.asarray(size[:, None] * (vectors * np.sqrt(np.maximum(values, 0.0))))
