"""The covariance ``K = C0 ⊗ GGᵀ + C1 ⊗ I`` without its matrix."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import linalg

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.arguments import matrix
from kron2sum_cli.model.spectrum import Array

EPSILON = float(np.finfo(float).eps)


@dataclass(frozen=True)
class Kron2SumCov:
    """``K = C0 ⊗ GGᵀ + C1 ⊗ I`` by its factors: ``K⁻¹ = LᵀDL`` with ``L = Lh ⊗ Lx``.

    With the eigendecompositions ``GGᵀ = Uₓ Sₓ Uₓᵀ``, ``C1 = U₁ S₁ U₁ᵀ`` and
    ``S₁⁻½ U₁ᵀ C0 U₁ S₁⁻½ = Uₕ Sₕ Uₕᵀ``: ``Lx = Uₓᵀ``, ``Lh = Uₕᵀ S₁⁻½ U₁ᵀ`` and ``D = (Sₕ ⊗ Sₓ + I)⁻¹``.

    Attributes
    ----------
    C0 : (p, p) positive semi-definite
    C1 : (p, p) positive definite
    G : (n, r)
    Lx : (n, n), its rows the eigenvectors of GGᵀ
    Lh : (p, p)
    Sx : (n,) eigenvalues of GGᵀ
    Sh : (p,) eigenvalues of C0 relative to C1

    Examples
    --------
    >>> import numpy as np
    >>> K = Kron2SumCov.create(C0=[[9.0, 6.0], [6.0, 4.0]], C1=[[1.0, 2.0], [2.0, 5.0]], G=[[-1.5, 1.0], [0.5, 1.0]])
    >>> v = np.arange(4.0)
    >>> bool(np.allclose(K.value() @ K.solve(v), v))
    True
    """

    C0: Array
    C1: Array
    G: Array
    Lx: Array
    Lh: Array
    Sx: Array
    Sh: Array

    @staticmethod
    def create(C0: ArrayLike, C1: ArrayLike, G: ArrayLike) -> "Kron2SumCov":
        """Factorise; O(n³ + p³).

        Raises
        ------
        ValueError
            Where shapes do not fit, a value is not finite, or C0 or C1 is not symmetric.
        NumericalError
            Where C0 is not positive semi-definite or C1 not positive definite.
        """
        c0, c1, g = (matrix(name, M) for name, M in (("C0", C0), ("C1", C1), ("G", G)))
        _require_symmetric(c0, c1)
        S1, U1 = linalg.eigh(c1)
        if S1[0] <= S1.size * EPSILON * S1[-1]:
            raise NumericalError(f"C1 is not positive definite: its smallest eigenvalue is {S1[0]:.3g}")
        U, sigma, _ = linalg.svd(g, full_matrices=g.shape[0] > g.shape[1])
        Sx = np.zeros(g.shape[0])
        Sx[: sigma.size] = sigma**2
        root = U1 / np.sqrt(S1)
        Sh, Uh = linalg.eigh(root.T @ c0 @ root)
        if Sh[0] < -1e-8 * np.max(np.abs(Sh)):
            raise NumericalError(
                f"C0 is not positive semi-definite: its smallest eigenvalue relative to C1 is {Sh[0]:.3g}"
            )
        return Kron2SumCov(c0, c1, g, U.T, (root @ Uh).T, Sx, np.maximum(Sh, 0.0))

    @property
    def D(self) -> Array:
        """``(Sₕ ⊗ Sₓ + I)⁻¹``, its diagonal: (pn,)."""
        return np.asarray(1 / (np.kron(self.Sh, self.Sx) + 1))

    def value(self) -> Array:
        """K itself, (pn, pn)."""
        return np.asarray(np.kron(self.C0, self.G @ self.G.T) + np.kron(self.C1, np.eye(self.G.shape[0])))

    def solve(self, v: ArrayLike) -> Array:
        """``K⁻¹v`` for v (pn,) or (pn, m); O(pn(n + p)) a column, K is never formed."""
        rhs = np.asarray(v, float)
        p, n = self.C0.shape[0], self.G.shape[0]
        if rhs.shape[:1] != (p * n,):
            raise ValueError(f"v has {rhs.shape[0] if rhs.ndim else 0} rows; K has {p * n}")
        stack = rhs.reshape(p, n, -1)
        weights = self.D.reshape(p, n, 1)
        rotated = np.einsum("jk,ab,kbm->jam", self.Lh, self.Lx, stack, optimize=True)
        back = np.einsum("jk,ab,jam->kbm", self.Lh, self.Lx, weights * rotated, optimize=True)
        return np.asarray(back.reshape(rhs.shape))

    def logdet(self) -> float:
        """``log|K| = n log|C1| - log|D|``."""
        return float(self.G.shape[0] * np.linalg.slogdet(self.C1)[1] - np.log(self.D).sum())


def _require_symmetric(C0: Array, C1: Array) -> None:
    p = C1.shape[0]
    if C0.shape != (p, p) or C1.shape != (p, p):
        raise ValueError(f"C0 and C1 must be square and of one size; their shapes are {C0.shape} and {C1.shape}")
    for name, C in (("C0", C0), ("C1", C1)):
        if not np.allclose(C, C.T, rtol=1e-8, atol=1e-8 * float(np.max(np.abs(C)))):
            raise ValueError(f"{name} must be symmetric")
