"""From covariates and a relationship matrix to the coordinates in which samples are independent.

Let ``Q = [Qx, Q⊥]`` be an orthonormal basis of sample space whose first c columns span X. The contrasts
``Q⊥ᵀy`` do not depend on the fixed effects, and ``Q⊥ᵀ GGᵀ Q⊥ = E diag(s) Eᵀ`` makes them independent:
``V = Q⊥E`` is the one rotation that the fit and the scan need. REML is the likelihood of ``VᵀY``; what ML and the
fixed effects need besides is small: ``Qxᵀ GGᵀ Qx`` (c × c) and ``Qxᵀ GGᵀ V`` (c × k).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from scipy.linalg import lapack

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.lapack import eigh_in_place, svd_in_place

Array = NDArray[np.float64]

EPSILON = float(np.finfo(float).eps)

NEGATIVE_EIGENVALUE = 1e-4
"""A relationship matrix whose smallest eigenvalue is below minus this share of its largest is refused."""

THIN_BELOW = 0.9
"""Null directions of GGᵀ are dropped from V where its rank is below this share of the contrasts."""


@dataclass(frozen=True)
class Spectrum:
    """GGᵀ seen from the contrasts of X.

    Attributes
    ----------
    V : (n, k) orthonormal, orthogonal to X, with ``VᵀGGᵀV = diag(s)``
    s : (k,) eigenvalues, in no particular order, not negative; contrasts outside V have eigenvalue 0
    Qx : (n, c) orthonormal basis of X
    Rx : (c, c) upper triangular, ``X = Qx Rx``
    Kxx : (c, c) ``QxᵀGGᵀQx``
    Kxv : (c, k) ``QxᵀGGᵀV``
    mean_diagonal : mean diagonal of GGᵀ centred over the samples, the factor of C0 in a heritability
    smallest_eigenvalue : of GGᵀ on the contrasts, before small ones were set to 0
    """

    V: Array
    s: Array
    Qx: Array
    Rx: Array
    Kxx: Array
    Kxv: Array
    mean_diagonal: float
    smallest_eigenvalue: float

    @property
    def nsamples(self) -> int:
        """Number of samples, n."""
        return int(self.V.shape[0])

    @property
    def ncovariates(self) -> int:
        """Number of projected covariates, c."""
        return int(self.Qx.shape[1])


@dataclass(frozen=True)
class Reflectors:
    """The orthonormal basis Q = [Qx, Q⊥] of an (n, c) matrix, as Householder reflections."""

    qr: Array
    tau: Array
    R: Array

    def to_basis(self, M: Array, both_sides: bool = False) -> Array:
        """``QᵀM`` (or ``QᵀMQ``) for an (n, m) matrix in Fortran order, which is overwritten."""
        M = self._apply(M, "L", "T")
        return self._apply(M, "R", "N") if both_sides else M

    def from_basis(self, M: Array) -> Array:
        """``QM`` for an (n, m) matrix in Fortran order, which is overwritten."""
        return self._apply(M, "L", "N")

    def _apply(self, M: Array, side: str, trans: str) -> Array:
        if self.tau.size == 0 or M.shape[1] == 0:
            return M
        work = 64 * max(M.shape)
        product, _, info = lapack.dormqr(side, trans, self.qr, self.tau, M, work, overwrite_c=1)
        if info != 0:
            raise NumericalError(f"LAPACK dormqr failed with code {info}")
        return np.asarray(product)


def reflectors(X: Array) -> Reflectors:
    """Householder basis of X (n, c), c < n, full column rank.

    Raises
    ------
    NumericalError
        Where a column of X lies in the span of the columns before it, naming its number.
    """
    n, c = X.shape
    if c >= n:
        raise NumericalError(f"{c} covariates need more than {n} samples: give fewer covariates")
    if c == 0:
        return Reflectors(np.empty((n, 0), order="F"), np.empty(0), np.empty((0, 0)))
    (qr, tau), R = linalg.qr(X, mode="raw")
    R = R[:c]
    norms = np.linalg.norm(X, axis=0)
    dependent = np.flatnonzero(np.abs(np.diag(R)) <= 1e-9 * norms)
    if dependent.size:
        raise NumericalError(
            f"covariate column {int(dependent[0]) + 1} of X is zero or lies in the span of the columns before it:"
            " leave it out"
        )
    return Reflectors(np.asfortranarray(qr, np.float64), np.asarray(tau, np.float64), np.asarray(R, np.float64))


def spectrum_of_features(G: Array, X: Array, overwrite: bool = False, threads: int = 1) -> Spectrum:
    """Spectrum of GGᵀ from G (n, r); in O(nr²) where r < n. ``overwrite`` lets G be destroyed.

    For ``threads`` see `eigh_in_place`, which decomposes GGᵀ where r ≥ n.
    """
    n, r = G.shape
    if r > n - X.shape[1]:
        return spectrum_of_relationship(G @ G.T, X, True, threads)
    basis = reflectors(X)
    c = X.shape[1]
    mean_diagonal = _centred_square(G)
    Gq = basis.to_basis(np.array(G, order="F", copy=not overwrite or not G.flags.f_contiguous))
    Gx = Gq[:c].copy()
    _, sigma, Ft = svd_in_place(Gq[c:])
    keep = sigma > max(n, r) * EPSILON * max(sigma.max(initial=0.0), float(np.linalg.norm(Gx)))
    sigma, Ft = sigma[keep], Ft[keep]
    GxF = Gx @ Ft.T
    return Spectrum(
        V=_lift(basis, Gq if keep.all() else np.asfortranarray(Gq[:, keep]), c),
        s=sigma**2,
        Qx=_lift_covariates(basis, n, c),
        Rx=basis.R,
        Kxx=Gx @ Gx.T,
        Kxv=GxF * sigma,
        mean_diagonal=mean_diagonal,
        smallest_eigenvalue=float(sigma[-1] ** 2) if sigma.size == n - c else 0.0,
    )


def spectrum_of_relationship(K: Array, X: Array, overwrite: bool = False, threads: int = 1) -> Spectrum:
    """Spectrum of ``GGᵀ = K`` (n, n), symmetric; O(n³). ``overwrite`` lets K be destroyed.

    For ``threads`` see `eigh_in_place`.

    Raises
    ------
    NumericalError
        Where K has an eigenvalue below ``-NEGATIVE_EIGENVALUE`` times its largest.
    """
    n, c = X.shape
    basis = reflectors(X)
    mean_diagonal = float((np.trace(K) - K.sum() / n) / n)
    K = K.T if K.flags.c_contiguous else K
    Kq = basis.to_basis(np.array(K, order="F", copy=not overwrite or not K.flags.f_contiguous), both_sides=True)
    Kxx, Kx_rest = 0.5 * (Kq[:c, :c] + Kq[:c, :c].T), Kq[:c, c:].copy()  # symmetric in the last digit, too
    del K
    s, E = eigh_in_place(Kq[c:, c:], threads)
    smallest, largest = float(s[0]), float(s[-1])
    noise = n * EPSILON * max(largest, float(np.trace(Kxx)))
    if smallest < -NEGATIVE_EIGENVALUE * max(largest, 0.0) - noise:
        raise NumericalError(
            f"the relationship matrix is not positive semi-definite: its eigenvalues (given the covariates) go from"
            f" {smallest:.3g} to {largest:.3g}; make it from genotypes with mean imputation, or check its file"
        )
    s = np.where(s > noise, s, 0.0)
    rank = int(np.count_nonzero(s))
    first = n - c - rank if rank <= THIN_BELOW * (n - c) else 0
    s = s[first:].copy()
    Kxv = np.where(s > 0, Kx_rest @ E[:, first:], 0.0)  # where s is 0 a semi-definite GGᵀ leaves only rounding
    return Spectrum(
        V=_lift(basis, Kq[:, c + first :] if first == 0 else Kq[:, c + first :].copy(order="F"), c),
        s=s,
        Qx=_lift_covariates(basis, n, c),
        Rx=basis.R,
        Kxx=Kxx,
        Kxv=Kxv,
        mean_diagonal=mean_diagonal,
        smallest_eigenvalue=smallest,
    )


def _centred_square(G: Array) -> float:
    """Mean diagonal of the centred GGᵀ, a column at a time where memory is short."""
    return float(sum(np.sum((g - g.mean()) ** 2) for g in G.T) / G.shape[0])


def _lift(basis: Reflectors, E: Array, c: int) -> Array:
    """``Q⊥E``, in place: E (n, k), whose last n - c rows are contrasts, becomes samples (n, k)."""
    E[:c] = 0
    return basis.from_basis(E)


def _lift_covariates(basis: Reflectors, n: int, c: int) -> Array:
    return basis.from_basis(np.eye(n, c, order="F"))
