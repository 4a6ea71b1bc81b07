"""The observed cells' Gaussian spelled out: rows and columns of the n·p × n·p covariance, textbook formulas.

Slow, and as short as the definitions. Nothing here is imported from the package.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import null_space
from scipy.stats import multivariate_normal

Array = NDArray[np.float64]

PATTERNS = ("random", "block", "one trait")


@dataclass(frozen=True)
class Observed:
    """Traits Y (n, p) with NaN, trait design A (p, a), covariates X (n, c), relatedness R (n, n), C0 and C1."""

    Y: Array
    A: Array
    X: Array
    R: Array
    C0: Array
    C1: Array

    @cached_property
    def seen(self) -> NDArray[np.bool_]:
        return np.isfinite(self.Y.T.ravel())

    @cached_property
    def y(self) -> Array:
        return self.Y.T.ravel()[self.seen]

    @cached_property
    def M(self) -> Array:
        return np.kron(self.A, self.X)[self.seen]

    def part(self, C: Array, R: Array) -> Array:
        """``C ⊗ R`` of the observed cells."""
        return np.kron(C, R)[np.ix_(self.seen, self.seen)]

    @cached_property
    def K(self) -> Array:
        return self.part(self.C0, self.R) + self.part(self.C1, np.eye(len(self.R)))

    @cached_property
    def inverse(self) -> Array:
        return np.linalg.inv(self.K)

    @cached_property
    def B_covariance(self) -> Array:
        return np.linalg.inv(self.M.T @ self.inverse @ self.M)

    @cached_property
    def beta(self) -> Array:
        return self.B_covariance @ (self.M.T @ self.inverse @ self.y)

    @cached_property
    def Q(self) -> Array:
        """``K⁻¹ - K⁻¹M(MᵀK⁻¹M)⁻¹MᵀK⁻¹``."""
        return self.inverse - self.inverse @ self.M @ self.B_covariance @ self.M.T @ self.inverse

    def lml(self, restricted: bool) -> float:
        """ML: the density at the best B. REML: the density of orthonormal contrasts that no B changes."""
        if not restricted:
            return float(multivariate_normal(self.M @ self.beta, self.K).logpdf(self.y))
        N = null_space(self.M.T)
        return float(multivariate_normal(np.zeros(N.shape[1]), N.T @ self.K @ N).logpdf(N.T @ self.y))

    def slope(self, E: Array, R: Array, restricted: bool) -> float:
        """Derivative of the log-likelihood where K grows by ``E ⊗ R``."""
        change, alpha = self.part(E, R), self.Q @ self.y
        trace = np.sum((self.Q if restricted else self.inverse) * change)
        return float(0.5 * (alpha @ change @ alpha - trace))

    def statistics(self, g: Array) -> tuple[Array, Array]:
        """Score (p,) and information (p, p) of the effects of a variant on the traits."""
        M1 = np.kron(np.eye(len(self.C0)), g[:, None])[self.seen]
        return M1.T @ self.Q @ self.y, M1.T @ self.Q @ M1

    def quadratic(self) -> float:
        return float(self.y @ self.Q @ self.y)

    def kriging(self, covariance: Array, M: Array, variance: Array) -> tuple[Array, Array]:
        """Universal kriging: means and variances of targets.

        ``covariance`` (targets, cells) with the observed cells, ``M`` (targets, ca) their rows of the design and
        ``variance`` (targets,) their own. By the bordered system of the weights and their multipliers.
        """
        size = self.M.shape[1]
        bordered = np.block([[self.K, self.M], [self.M.T, np.zeros((size, size))]])
        rhs = np.vstack([covariance.T, M.T])
        solution = np.linalg.solve(bordered, rhs)
        weights = solution[: self.y.size]
        return weights.T @ self.y, variance - np.sum(solution * rhs, axis=0)


def covariance(rng: np.random.Generator, p: int) -> Array:
    L = rng.normal(size=(p, p + 2))
    return L @ L.T / (p + 2)


def knock_out(rng: np.random.Generator, Y: Array, share: float, pattern: str) -> Array:
    """Y with about this share of its cells missing, no sample and no trait without any."""
    n, p = Y.shape
    if pattern == "random":
        missing = rng.random((n, p)) < share
    elif pattern == "block":
        missing = np.zeros((n, p), bool)
        missing[: round(min(share * p / (p - 1), 0.9) * n), : p - 1] = True
    else:
        missing = np.zeros((n, p), bool)
        missing[:, 0] = rng.random(n) < min(share * p, 0.8)
        missing[:, 1] = rng.random(n) < share / 2
    missing[missing.all(axis=1), -1] = False
    missing[0, 0] = True
    missing[0, -1] = False
    return np.where(missing, np.nan, Y)


def problem(
    seed: int, share: float = 0.3, pattern: str = "random", n: int = 60, p: int = 3, r: int = 90, a: int | None = None
) -> tuple[Observed, Array]:
    """A problem at random C0 and C1, and G with ``GGᵀ = R``; r < n makes GGᵀ singular."""
    rng = np.random.default_rng(seed)
    G = rng.normal(size=(n, r)) * rng.gamma(0.8, size=r) ** 0.5 / np.sqrt(r)
    X = np.hstack([np.ones((n, 1)), rng.normal(size=(n, 1))])
    C0, C1 = covariance(rng, p), covariance(rng, p)
    A = np.eye(p) if a is None else rng.normal(size=(p, a))
    genetic = G @ rng.normal(size=(r, p)) @ np.linalg.cholesky(C0).T
    Y = 2 + genetic + rng.normal(size=(n, p)) @ np.linalg.cholesky(C1).T
    return Observed(knock_out(rng, Y, share, pattern), A, X, G @ G.T, C0, C1), G
