"""The covariance ``K = C0 ⊗ GGᵀ + C1 ⊗ I`` without its matrix, by factors of C0 and C1."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from scipy import linalg

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.spectrum import EPSILON, Array, Indices

RIDGE = 1000 * EPSILON**0.5
"""What glimix-core adds to the diagonal of C1, so that it is never singular."""


def matrix(name: str, M: ArrayLike, advice: str = "") -> Array:
    """Copy an argument into a finite matrix of double precision; ``advice`` ends the message where values are missing.

    Raises
    ------
    ValueError
        Where M does not have two dimensions or a value is not finite.
    """
    copy = np.array(M, dtype=float)
    if copy.ndim != 2:
        raise ValueError(f"{name} must have two dimensions; it has {copy.ndim}")
    if not np.all(np.isfinite(copy)):
        raise ValueError(f"{name} has values that are not finite{advice}")
    return copy


class FactoredCovariance(ABC):
    """A covariance matrix C (p, p) by a factor L, which can be set. Numpy functions take it as the matrix C.

    Parameters
    ----------
    L : array_like (p, k)
        The factor.
    """

    def __init__(self, L: ArrayLike) -> None:
        self._L = self._checked(L)

    @staticmethod
    def _checked(L: ArrayLike) -> Array:
        return matrix("L", L)

    @property
    def L(self) -> Array:
        """The factor, (p, k)."""
        return self._L.copy()

    @L.setter
    def L(self, L: ArrayLike) -> None:
        new = self._checked(L)
        if new.shape != self._L.shape:
            raise ValueError(f"L must be {self._L.shape}; its shape is {new.shape}")
        self._L = new

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of C, (p, p)."""
        p = self._L.shape[0]
        return p, p

    @abstractmethod
    def value(self) -> Array:
        """C itself, (p, p)."""

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self.value(), dtype)

    def _gradient(self, rows: Indices, columns: Indices) -> Array:
        """Derivatives of ``L Lᵀ`` by the entries of L in these rows and columns: (p, p, entries)."""
        half = np.zeros((*self.shape, rows.size))
        half[rows, :, np.arange(rows.size)] = self._L[:, columns].T
        return np.asarray(half + half.transpose(1, 0, 2))


class LowRankCovariance(FactoredCovariance):
    """``C = L Lᵀ``, positive semi-definite, L (p, k) with k the largest rank of C."""

    @property
    def Lu(self) -> Array:
        """The parameters, (pk,): the entries of L row by row."""
        return self._L.reshape(-1).copy()

    @Lu.setter
    def Lu(self, values: ArrayLike) -> None:
        self.L = _parameters(values, self._L.size).reshape(self._L.shape)

    def value(self) -> Array:
        """C itself, (p, p)."""
        return np.asarray(self._L @ self._L.T)

    def gradient(self) -> dict[str, Array]:
        """Derivatives of C by its parameters.

        Returns
        -------
        dict
            ``Lu``, (p, p, pk): one matrix a parameter, in the order of `Lu`.
        """
        rows, columns = np.divmod(np.arange(self._L.size), self._L.shape[1])
        return {"Lu": self._gradient(rows, columns)}

    def chain(self, S: Array) -> Array:
        """Gradient by `Lu` of a function whose derivative by C is S (p, p), symmetric."""
        return np.asarray((2 * S @ self._L).reshape(-1))


class CholeskyCovariance(FactoredCovariance):
    """``C = L Lᵀ + ridge I``, L (p, p) lower triangular without negative entries on its diagonal.

    Parameters
    ----------
    L : array_like (p, p)
        The factor.
    ridge : float
        What is added to the diagonal of C.
    """

    def __init__(self, L: ArrayLike, ridge: float = 0.0) -> None:
        super().__init__(L)
        self.ridge = ridge

    @staticmethod
    def _checked(L: ArrayLike) -> Array:
        factor = matrix("L", L)
        if factor.shape[0] != factor.shape[1] or np.any(np.triu(factor, 1)) or np.any(np.diag(factor) < 0):
            raise ValueError("L must be square and lower triangular, without negative entries on its diagonal")
        return factor

    @property
    def Lu(self) -> Array:
        """The parameters, (p(p+1)/2,): L below its diagonal row by row, then the logarithms of its diagonal."""
        with np.errstate(divide="ignore"):
            return np.concatenate([self._L[self._below], np.log(np.diag(self._L))])

    @Lu.setter
    def Lu(self, values: ArrayLike) -> None:
        p, new = self._L.shape[0], np.zeros(self._L.shape)
        parameters = _parameters(values, p * (p + 1) // 2)
        new[self._below] = parameters[:-p]
        np.fill_diagonal(new, np.exp(parameters[-p:]))
        self.L = new

    @property
    def _below(self) -> tuple[Indices, Indices]:
        """Rows and columns of the entries of L below its diagonal."""
        return np.tril_indices(self._L.shape[0], -1)

    def value(self) -> Array:
        """C itself, (p, p)."""
        return np.asarray(self._L @ self._L.T + self.ridge * np.eye(self._L.shape[0]))

    def eigh(self) -> tuple[Array, Array]:
        """Eigenvalues (p,) of C and its eigenvectors, the columns of (p, p)."""
        U, sigma, _ = np.linalg.svd(self._L)
        return sigma**2 + self.ridge, U

    def logdet(self) -> float:
        """``log|C|``."""
        return float(np.log(self.eigh()[0]).sum())

    def gradient(self) -> dict[str, Array]:
        """Derivatives of C by its parameters.

        Returns
        -------
        dict
            ``Lu``, (p, p, p(p+1)/2): one matrix a parameter, in the order of `Lu`.
        """
        p, (rows, columns) = self._L.shape[0], self._below
        gradient = self._gradient(np.append(rows, np.arange(p)), np.append(columns, np.arange(p)))
        gradient[:, :, -p:] *= np.diag(self._L)
        return {"Lu": gradient}

    def chain(self, S: Array) -> Array:
        """Gradient by `Lu` of a function whose derivative by C is S (p, p), symmetric."""
        by_L = 2 * S @ self._L
        return np.concatenate([by_L[self._below], np.diag(by_L) * np.diag(self._L)])


class Kron2SumCov:
    """``K = C0 ⊗ GGᵀ + C1 ⊗ I`` by its factors: ``K⁻¹ = LᵀDL`` with ``L = Lh ⊗ Lx``.

    With the eigendecompositions ``GGᵀ = Uₓ Sₓ Uₓᵀ``, ``C1 = U₁ S₁ U₁ᵀ`` and
    ``S₁⁻½ U₁ᵀ C0 U₁ S₁⁻½ = Uₕ Sₕ Uₕᵀ``: ``Lx = Uₓᵀ``, ``Lh = Uₕᵀ S₁⁻½ U₁ᵀ`` and ``D = (Sₕ ⊗ Sₓ + I)⁻¹``.

    Made like ``glimix_core.cov.Kron2SumCov``, with the same parameters ``C0.Lu`` and ``C1.Lu``: the factor of C0 starts
    with ones, and that of C1 with ones on and below its diagonal. `create` makes it from given C0 and C1.

    Parameters
    ----------
    G : array_like (n, r)
        Relatedness is GGᵀ.
    dim : int
        Number of traits, p.
    rank : int
        Largest rank of C0.

    Raises
    ------
    ValueError
        Where G is not a finite matrix, or a number is below 1.

    Examples
    --------
    >>> import numpy as np
    >>> K = Kron2SumCov(G=[[-1.5, 1.0], [0.5, 1.0]], dim=2, rank=1)
    >>> K.C0.L = [[3.0], [2.0]]
    >>> K.C1.L = [[1.0, 0.0], [2.0, 1.0]]
    >>> v = np.arange(4.0)
    >>> bool(np.allclose(K.value() @ K.solve(v), v))
    True
    """

    def __init__(self, G: ArrayLike, dim: int, rank: int) -> None:
        if dim < 1 or rank < 1:
            raise ValueError(f"dim and rank must be at least 1; they are {dim} and {rank}")
        ones = np.ones((dim, dim))
        self._set(G, LowRankCovariance(np.ones((dim, rank))), CholeskyCovariance(np.tril(ones), RIDGE))

    def _set(self, G: ArrayLike, C0: LowRankCovariance, C1: CholeskyCovariance) -> None:
        self._G, self._C0, self._C1 = matrix("G", G), C0, C1
        n, r = self._G.shape
        U, sigma, _ = linalg.svd(self._G, full_matrices=n > r)
        self._Lx, self._Sx = U.T, np.zeros(n)
        self._Sx[: sigma.size] = sigma**2

    @staticmethod
    def create(C0: ArrayLike, C1: ArrayLike, G: ArrayLike) -> "Kron2SumCov":
        """Make it from C0 (p, p), C1 (p, p) and G (n, r) in O(n³ + p³).

        Raises
        ------
        ValueError
            Where shapes do not fit, a value is not finite, or C0 or C1 is not symmetric.
        NumericalError
            Where C0 is not positive semi-definite or C1 not positive definite.

        Examples
        --------
        >>> K = Kron2SumCov.create(C0=[[9, 6], [6, 4]], C1=[[1, 2], [2, 5]], G=[[-1.5, 1], [0.5, 1]])
        >>> K.value().shape
        (4, 4)
        """
        c0, c1 = matrix("C0", C0), matrix("C1", C1)
        _require_symmetric(c0, c1)
        S1, U1 = linalg.eigh(c1)
        if S1[0] <= S1.size * EPSILON * S1[-1]:
            raise NumericalError(f"C1 is not positive definite: its smallest eigenvalue is {S1[0]:.3g}")
        root = U1 / np.sqrt(S1)
        Sh, Uh = linalg.eigh(root.T @ c0 @ root)
        if Sh[0] < -1e-8 * np.max(np.abs(Sh)):
            raise NumericalError(
                f"C0 is not positive semi-definite: its smallest eigenvalue relative to C1 is {Sh[0]:.3g}"
            )
        K = object.__new__(Kron2SumCov)
        L0 = (U1 * np.sqrt(S1)) @ (Uh * np.sqrt(np.maximum(Sh, 0.0)))
        K._set(G, LowRankCovariance(L0), CholeskyCovariance(linalg.cholesky(c1, lower=True)))
        return K

    @property
    def G(self) -> Array:
        """The matrix G, (n, r)."""
        return self._G

    @property
    def C0(self) -> LowRankCovariance:
        """The genetic covariance, whose factor ``C0.L`` (p, rank) or parameters ``C0.Lu`` can be set."""
        return self._C0

    @property
    def C1(self) -> CholeskyCovariance:
        """The residual covariance, whose factor ``C1.L`` (p, p) or parameters ``C1.Lu`` can be set."""
        return self._C1

    @property
    def Lx(self) -> Array:
        """The eigenvectors of GGᵀ as rows, (n, n)."""
        return self._Lx

    @property
    def Sx(self) -> Array:
        """The eigenvalues of GGᵀ, (n,)."""
        return self._Sx

    @property
    def Lh(self) -> Array:
        """``Uₕᵀ S₁⁻½ U₁ᵀ``, (p, p): ``Lh C1 Lhᵀ = I`` and ``Lh C0 Lhᵀ = diag(Sh)``."""
        return self._trait_axes()[0]

    @property
    def Sh(self) -> Array:
        """The eigenvalues of C0 relative to C1, (p,)."""
        return self._trait_axes()[1]

    @property
    def D(self) -> Array:
        """``(Sₕ ⊗ Sₓ + I)⁻¹``, its diagonal: (pn,)."""
        return np.asarray(1 / (np.kron(self.Sh, self._Sx) + 1))

    def _trait_axes(self) -> tuple[Array, Array]:
        """Lh and Sh."""
        S1, U1 = self._C1.eigh()
        root = U1 / np.sqrt(S1)
        Uh, sigma, _ = linalg.svd(root.T @ self._C0.L)
        Sh = np.zeros(S1.size)
        Sh[: sigma.size] = sigma**2
        return np.asarray((root @ Uh).T), Sh

    def value(self) -> Array:
        """K itself, (pn, pn)."""
        C0, C1 = self._C0.value(), self._C1.value()
        return np.asarray(np.kron(C0, self._G @ self._G.T) + np.kron(C1, np.eye(self._G.shape[0])))

    def solve(self, v: ArrayLike) -> Array:
        """``K⁻¹v`` for v (pn,) or (pn, m); O(pn(n + p)) a column, K is never formed."""
        rhs, stack = self._stacked(v)
        Lh, Sh = self._trait_axes()
        weights = 1 / (np.multiply.outer(Sh, self._Sx) + 1)
        rotated = np.einsum("jk,ab,kbm->jam", Lh, self._Lx, stack, optimize=True)
        back = np.einsum("jk,ab,jam->kbm", Lh, self._Lx, weights[:, :, None] * rotated, optimize=True)
        return np.asarray(back.reshape(rhs.shape))

    def logdet(self) -> float:
        """``log|K| = n log|C1| - log|D|``."""
        return float(self._G.shape[0] * self._C1.logdet() - np.log(self.D).sum())

    def gradient(self) -> dict[str, Array]:
        """Derivatives of K by the parameters.

        Returns
        -------
        dict
            ``C0.Lu``, (pn, pn, p·rank), and ``C1.Lu``, (pn, pn, p(p+1)/2): large.
        """
        p, n = self._C1.shape[0], self._G.shape[0]

        def kronecker(dC: Array, over_samples: Array) -> Array:
            product = np.einsum("jlk,ab->jalbk", dC, over_samples)
            return np.asarray(product.reshape(p * n, p * n, -1))

        GG = self._G @ self._G.T
        return {
            "C0.Lu": kronecker(self._C0.gradient()["Lu"], GG),
            "C1.Lu": kronecker(self._C1.gradient()["Lu"], np.eye(n)),
        }

    def gradient_dot(self, v: ArrayLike) -> dict[str, Array]:
        """``∂K v`` for all parameters.

        Parameters
        ----------
        v : array_like (pn,) or (pn, m)
            One vector or several.

        Returns
        -------
        dict
            ``C0.Lu`` and ``C1.Lu``, one column a parameter: (pn, parameters), or (m, pn, parameters) for several.
        """
        rhs, stack = self._stacked(v)
        related = np.einsum("ar,br,jbm->jam", self._G, self._G, stack, optimize=True)
        products = {
            "C0.Lu": np.einsum("jlk,lam->mjak", self._C0.gradient()["Lu"], related, optimize=True),
            "C1.Lu": np.einsum("jlk,lam->mjak", self._C1.gradient()["Lu"], stack, optimize=True),
        }
        shape = (*rhs.shape[1:], rhs.shape[0], -1)
        return {name: product.reshape(shape) for name, product in products.items()}

    def logdet_gradient(self) -> dict[str, Array]:
        """Gradient of ``log|K|``, ``tr(K⁻¹ ∂K)``.

        Returns
        -------
        dict
            ``C0.Lu``, (p·rank,), and ``C1.Lu``, (p(p+1)/2,).
        """
        Lh, Sh = self._trait_axes()
        D = 1 / (np.multiply.outer(Sh, self._Sx) + 1)
        return {
            "C0.Lu": self._C0.chain((Lh.T * (D @ self._Sx)) @ Lh),
            "C1.Lu": self._C1.chain((Lh.T * D.sum(axis=1)) @ Lh),
        }

    def LdKL_dot(self, v: ArrayLike) -> dict[str, Array]:
        """``L ∂K Lᵀ v`` for all parameters, ``L = Lh ⊗ Lx``.

        Parameters
        ----------
        v : array_like (pn,) or (pn, m)
            One vector or several.

        Returns
        -------
        dict
            ``C0.Lu`` and ``C1.Lu``, one column a parameter: (pn, parameters), or (pn, m, parameters) for several.
        """
        (rhs, stack), Lh = self._stacked(v), self.Lh
        scaled = self._Sx[None, :, None] * stack
        return {
            f"{name}.Lu": np.einsum("jq,qrk,lr,lam->jamk", Lh, C.gradient()["Lu"], Lh, vectors, optimize=True).reshape(
                *rhs.shape, -1
            )
            for name, C, vectors in (("C0", self._C0, scaled), ("C1", self._C1, stack))
        }

    def _stacked(self, v: ArrayLike) -> tuple[Array, Array]:
        """The vectors v as they are, and with one axis a trait, a sample and a vector: (p, n, m)."""
        vectors = np.asarray(v, float)
        p, n = self._C1.shape[0], self._G.shape[0]
        if vectors.shape[:1] != (p * n,):
            raise ValueError(f"v has {vectors.shape[0] if vectors.ndim else 0} rows; K has {p * n}")
        return vectors, vectors.reshape(p, n, -1)


def _parameters(values: ArrayLike, size: int) -> Array:
    parameters = np.array(values, dtype=float)
    if parameters.shape != (size,):
        raise ValueError(f"Lu must be ({size},); its shape is {parameters.shape}")
    return parameters


def _require_symmetric(C0: Array, C1: Array) -> None:
    p = C1.shape[0]
    if C0.shape != (p, p) or C1.shape != (p, p):
        raise ValueError(f"C0 and C1 must be square and of one size; their shapes are {C0.shape} and {C1.shape}")
    for name, C in (("C0", C0), ("C1", C1)):
        if not np.allclose(C, C.T, rtol=1e-8, atol=1e-8 * float(np.max(np.abs(C)))):
            raise ValueError(f"{name} must be symmetric")
