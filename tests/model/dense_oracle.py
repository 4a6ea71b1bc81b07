"""The model spelled out: the n·p × n·p covariance, scipy's multivariate normal, textbook least squares.

Slow, and as short as the definitions. Nothing here is imported from the package.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import null_space
from scipy.stats import multivariate_normal

Array = NDArray[np.float64]


def vec(M: Array) -> Array:
    """Columns stacked."""
    return M.T.reshape(-1)


@dataclass(frozen=True)
class Data:
    """One data set: Y (n, p), A (p, a), X (n, c), G (n, r)."""

    Y: Array
    A: Array
    X: Array
    G: Array

    @cached_property
    def contrasts(self) -> Array:
        """Orthonormal combinations of vec(Y) that no B changes."""
        M = np.kron(self.A, self.X)
        return null_space(M.T) if M.shape[1] else np.eye(M.shape[0])


@dataclass(frozen=True)
class Dense:
    """``vec(Y) ~ N((A ⊗ X) vec(B), C0 ⊗ GGᵀ + C1 ⊗ I)`` at one (C0, C1)."""

    data: Data
    C0: Array
    C1: Array

    @cached_property
    def K(self) -> Array:
        G = self.data.G
        return np.kron(self.C0, G @ G.T) + np.kron(self.C1, np.eye(G.shape[0]))

    @cached_property
    def M(self) -> Array:
        return np.kron(self.data.A, self.data.X)

    @cached_property
    def root(self) -> Array:
        """Lower Cholesky factor of K."""
        return np.linalg.cholesky(self.K)

    def fixed_effects(self, M: Array) -> tuple[Array, Array]:
        """Generalised least squares of vec(Y) on M: estimates and ``(MᵀK⁻¹M)⁻¹``."""
        white = np.linalg.solve(self.root, M)
        beta = np.linalg.lstsq(white, np.linalg.solve(self.root, vec(self.data.Y)), rcond=None)[0]
        return beta, np.linalg.inv(white.T @ white)

    def log_density(self, M: Array, beta: Array, scale: float = 1.0) -> float:
        return float(multivariate_normal(M @ beta, scale * self.K).logpdf(vec(self.data.Y)))

    def lml(self, restricted: bool) -> float:
        """ML: the density at the best B. REML: the density of orthonormal contrasts that no B changes."""
        if not restricted:
            return self.log_density(self.M, self.fixed_effects(self.M)[0])
        N = self.data.contrasts
        contrasts = N.T @ vec(self.data.Y)
        return float(multivariate_normal(np.zeros(contrasts.size), N.T @ self.K @ N).logpdf(contrasts))

    def scale(self, M: Array) -> float:
        """The common scale of K that maximises the density, ``rᵀK⁻¹r / (np)``."""
        r = np.linalg.solve(self.root, vec(self.data.Y) - M @ self.fixed_effects(M)[0])
        return float(r @ r / r.size)

    def P(self) -> Array:
        """``K⁻¹ - K⁻¹M(MᵀK⁻¹M)⁻¹MᵀK⁻¹``."""
        Ki = np.linalg.inv(self.K)
        KiM = Ki @ self.M
        return Ki - KiM @ np.linalg.solve(self.M.T @ KiM, KiM.T)


def derivative(function: Callable[[Array], float], x: Array, step: float = 4e-3) -> Array:
    """Gradient of a function of a vector by central differences of sixth order."""
    offsets, weights = (-3, -2, -1, 1, 2, 3), np.array([-1, 9, -45, 45, -9, 1]) / 60
    result = np.empty(x.size)
    for k in range(x.size):
        e = np.zeros(x.size)
        e[k] = step
        result[k] = np.dot([function(x + m * e) for m in offsets], weights) / step
    return result
