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

Array = NDArray[np.float64]
Floats = NDArray[np.floating]
Indices = NDArray[np.intp]
Mask = NDArray[np.bool_]

EPSILON = float(np.finfo(float).eps)

NEGATIVE_EIGENVALUE = 1e-4
"""Largest share of the largest eigenvalue by which the smallest may be negative; beyond it the matrix is refused."""

THIN_BELOW = 0.9
"""Largest rank of GGᵀ, as a share of the number of contrasts, for which V leaves out the directions where GGᵀ is 0."""


ROWS_AT_ONCE = 1024
"""Rows of a product that are worked on together, so that they stay in the processor's cache."""


@dataclass(frozen=True)
class Spectrum:
    """The eigendecomposition of GGᵀ on the contrasts of X.

    - ``V`` (n, k): orthonormal, orthogonal to X, with ``VᵀGGᵀV = diag(s)``.
    - ``s`` (k,): eigenvalues, in no particular order, not negative; contrasts outside V have eigenvalue 0.
    - ``Qx`` (n, c): orthonormal basis of X.
    - ``Rx`` (c, c): upper triangular, ``X = Qx Rx``.
    - ``Kxx`` (c, c): ``QxᵀGGᵀQx``.
    - ``Kxv`` (c, k): ``QxᵀGGᵀV``.
    - ``mean_diagonal``: mean diagonal of GGᵀ centred over the samples, the factor of C0 in a heritability.
    - ``nnegative``: negative eigenvalues, beyond rounding, that were set to 0.
    - ``smallest``: the smallest of them.
    """

    V: Array
    s: Array
    Qx: Array
    Rx: Array
    Kxx: Array
    Kxv: Array
    mean_diagonal: float
    nnegative: int = 0
    smallest: float = 0.0

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
    """The orthonormal basis Q (n, n) of an (n, c) matrix ``M = Q [R; 0]``, as Householder reflections."""

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

    def first(self, c: int) -> Array:
        """The first c columns of Q: (n, c)."""
        return self.from_basis(np.eye(self.qr.shape[0], c, order="F"))

    def _apply(self, M: Array, side: str, trans: str) -> Array:
        if self.tau.size == 0 or M.shape[1] == 0:
            return M
        work = 64 * max(M.shape)
        product, _, info = lapack.dormqr(side, trans, self.qr, self.tau, M, work, overwrite_c=1)
        if info != 0:
            raise NumericalError(f"LAPACK dormqr failed with code {info}")
        return np.asarray(product)


def reflectors(X: Array, G: Array | None = None) -> Reflectors:
    """Householder basis of X (n, c), or of X and G (n, r) side by side, c + r ≤ n; X has full column rank, c < n.

    Raises NumericalError where a column of X lies in the span of the columns before it, naming its number.
    """
    n, c = X.shape
    if c >= n:
        raise NumericalError(f"{c} covariates need more than {n} samples: give fewer covariates")
    both = np.empty((n, c + (0 if G is None else G.shape[1])), order="F")
    both[:, :c] = X
    if G is not None:
        both[:, c:] = G
    if both.shape[1] == 0:
        return Reflectors(both, np.empty(0), np.empty((0, 0)))
    (qr, tau), R = linalg.qr(both, mode="raw", overwrite_a=True, check_finite=False)
    dependent = np.flatnonzero(np.abs(np.diag(R)[:c]) <= 1e-9 * np.linalg.norm(X, axis=0))
    if dependent.size:
        raise NumericalError(
            f"covariate column {int(dependent[0]) + 1} of X is zero or lies in the span of the columns before it:"
            " leave it out"
        )
    return Reflectors(np.asfortranarray(qr, np.float64), np.asarray(tau, np.float64), np.asarray(R, np.float64))


def spectrum_of_features(G: Array, X: Array) -> Spectrum:
    """Spectrum of GGᵀ from G (n, r); in O(nr²) where r < n.

    With ``[X, G] = Q R`` the singular values of the lower right block of R are those of ``Q⊥ᵀG``.
    """
    (n, r), c = G.shape, X.shape[1]
    if r > n - c:
        return spectrum_of_relationship(G @ G.T, X, overwrite=True)
    basis = reflectors(X, G)
    Gx = basis.R[:c, c:]
    F, sigma, Et = np.linalg.svd(basis.R[c:, c:])
    keep = sigma > max(n, r) * EPSILON * max(sigma.max(initial=0.0), float(np.linalg.norm(Gx)))
    F, sigma, Et = F[:, keep], sigma[keep], Et[keep]
    V = np.zeros((n, sigma.size), order="F")
    V[c : c + r] = F
    return Spectrum(
        V=basis.from_basis(V),
        s=sigma**2,
        Qx=basis.first(c),
        Rx=basis.R[:c, :c].copy(),
        Kxx=Gx @ Gx.T,
        Kxv=(Gx @ Et.T) * sigma,
        # Of the centred GGᵀ, column by column of G to save memory.
        mean_diagonal=float(sum(np.sum((g - g.mean()) ** 2) for g in G.T) / G.shape[0]),
    )


def spectrum_of_relationship(K: Array, X: Array, overwrite: bool = False) -> Spectrum:
    """Spectrum of ``GGᵀ = K`` (n, n), symmetric; O(n³). ``overwrite`` lets K be destroyed.

    Raises NumericalError where K has an eigenvalue below ``-NEGATIVE_EIGENVALUE`` times its largest, or has no
    eigenvalues.
    """
    n, c = X.shape
    basis = reflectors(X)
    mean_diagonal = float((np.trace(K) - K.sum() / n) / n)
    K = K.T if K.flags.c_contiguous else K
    Kq = basis.to_basis(np.array(K, order="F", copy=not overwrite or not K.flags.f_contiguous), both_sides=True)
    Kxx, Kx_rest = 0.5 * (Kq[:c, :c] + Kq[:c, :c].T), Kq[:c, c:].copy()  # symmetric in the last digit, too
    del K
    s = _eigenvectors_in_place(Kq[c:, c:])
    E = Kq[c:, c:]
    smallest, largest = float(s[0]), float(s[-1])
    noise = n * EPSILON * max(largest, float(np.trace(Kxx)))
    if smallest < -NEGATIVE_EIGENVALUE * max(largest, 0.0) - noise:
        raise NumericalError(
            f"the relationship matrix is not positive semi-definite: its eigenvalues (given the covariates) go from"
            f" {smallest:.3g} to {largest:.3g}; make it from genotypes with mean imputation, or check its file"
        )
    nnegative = int(np.count_nonzero(s < -noise))
    s = np.where(s > noise, s, 0.0)
    rank = int(np.count_nonzero(s))
    first = n - c - rank if rank <= THIN_BELOW * (n - c) else 0
    s = s[first:].copy()
    Kxv = np.where(s > 0, Kx_rest @ E[:, first:], 0.0)  # where s is 0 a semi-definite GGᵀ leaves only rounding
    V = Kq[:, c + first :]
    V[:c] = 0
    return Spectrum(
        V=basis.from_basis(V if first == 0 else V.copy(order="F")),
        s=s,
        Qx=basis.first(c),
        Rx=basis.R,
        Kxx=Kxx,
        Kxv=Kxv,
        mean_diagonal=mean_diagonal,
        nnegative=nnegative,
        smallest=smallest if nnegative else 0.0,
    )


def parts_of(size: int, largest: int) -> list[slice]:
    """Ranges of at most ``largest``, and at least 1, of ``size`` rows or columns."""
    step = max(largest, 1)
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]


def weighted_products(rows: Floats, weights: Floats) -> Array:
    """``Σ_i w_ij g_ia g_ib`` for rows (m, q) and every axis j of weights (m, p), in double precision: (p, q, q)."""
    roots = np.sqrt(weights.T.astype(np.float64))
    V = np.zeros((len(roots), rows.shape[1], rows.shape[1]))
    for part in parts_of(len(rows), ROWS_AT_ONCE):
        in_double = rows[part].astype(np.float64)
        for j, root in enumerate(roots[:, part]):
            half = in_double * root[:, None]
            V[j] += half.T @ half
    return V


def _eigenvectors_in_place(K: Array) -> Array:
    """Eigenvalues of a symmetric matrix, increasing; the matrix becomes its eigenvectors.

    numpy's LAPACK counts in 64 bits and does not hold the interpreter's lock, so that progress is shown and Ctrl-C
    works; it takes memory of four further matrices.
    """
    try:
        s, K[...] = np.linalg.eigh(K)
    except np.linalg.LinAlgError:
        raise NumericalError(
            "the eigenvalues of the relationship matrix did not converge: check its file for values that are not finite"
        ) from None
    return s
