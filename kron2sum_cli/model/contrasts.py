"""The data of one likelihood: traits in the coordinates of a spectrum."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import linalg

from kron2sum_cli.model.spectrum import Array, Floats, Spectrum, parts_of

COLUMNS_AT_ONCE = 128
"""Number of columns of V that are in double precision at once."""


@dataclass(frozen=True)
class CoupledDesign:
    """Fixed effects ``(A ⊗ X) vec(B)`` with a trait design A (p, a), of full column rank, that couples the trait axes.

    X (m, c) is an orthonormal basis of the covariates in the rotated rows: one far from 0, such as a year of birth,
    would cost the digits of its mean over its spread, twice where products are taken. The covariates as they were given
    are ``X Rx``, Rx upper triangular; None where X is not of covariates. ``log|(A ⊗ X)ᵀ(A ⊗ X)|`` is a constant of
    REML.
    """

    A: Array
    X: Array
    logdet_MtM: float
    Rx: Array | None = None

    @staticmethod
    def of_given(A: Array, X_given: Array, covariates: Array) -> "CoupledDesign":
        """The design from the given covariates in the rotated rows (m, c), and over the samples (n, c)."""
        Rx = covariate_basis(covariates)[1]
        X = linalg.solve_triangular(Rx, X_given.T, trans="T").T
        return CoupledDesign(A, np.asarray(X), X_given.shape[1] * _logdet_gram(A), Rx)

    @property
    def given(self) -> Array:
        """The given covariates in the rotated rows, (m, c)."""
        return self.X if self.Rx is None else np.asarray(self.X @ self.Rx)

    @property
    def logdet_given(self) -> float:
        """``logdet_MtM`` of the given covariates."""
        diagonal = np.ones(0) if self.Rx is None else np.diag(self.Rx)
        return self.logdet_MtM + float(2 * self.A.shape[1] * np.sum(np.log(np.abs(diagonal))))

    def effects_of_given(self, M: Array) -> Array:
        """``(I ⊗ Rx⁻¹) M`` for M (ca, q), effects of the basis."""
        if self.Rx is None or not M.size:
            return M
        c, q = self.X.shape[1], M.shape[1]
        by_column = M.reshape(-1, c, q).transpose(1, 0, 2).reshape(c, -1)
        solved = linalg.solve_triangular(self.Rx, by_column)
        return np.asarray(solved.reshape(c, -1, q).transpose(1, 0, 2).reshape(M.shape))


@dataclass(frozen=True)
class Contrasts:
    """Traits rotated to rows that are independent: row i has covariance ``s_i C0 + C1``.

    - ``Z`` (m, p): rotated traits, m = k + e: the k columns of V and e ≤ p that hold what Y has outside them.
    - ``s`` (m,): eigenvalues, 0 for the e appended rows.
    - ``noutside``: number of contrasts outside V, where GGᵀ and every trait are 0.
    - ``V`` (n, m): the rotation, ``Z = VᵀY``; in single precision where it was read for a scan in single precision.
    - ``Yx`` (c, p): ``QxᵀY``, the part of Y in the span of the projected covariates.
    - ``Kxx`` (c, c), ``Kxm`` (c, m): GGᵀ of the projected covariates, and between them and the rows.
    - ``Rx`` (c, c): upper triangular, ``X = Qx Rx``.
    - ``design``: fixed effects that are not projected out; None where all are.
    """

    Z: Array
    s: Array
    noutside: int
    V: Floats
    Yx: Array
    Kxx: Array
    Kxm: Array
    Rx: Array
    design: CoupledDesign | None

    @property
    def nrows(self) -> int:
        """Number of contrasts, n - c, those outside V included."""
        return int(self.Z.shape[0]) + self.noutside

    @property
    def nsamples(self) -> int:
        """Number of samples, n."""
        return int(self.V.shape[0])

    @property
    def ntraits(self) -> int:
        """Number of traits, p."""
        return int(self.Z.shape[1])

    @property
    def ncovariates(self) -> int:
        """Number of projected covariates, c."""
        return int(self.Yx.shape[0])

    @property
    def mean_eigenvalue(self) -> float:
        """Mean of the eigenvalues over all contrasts."""
        return float(self.s.sum()) / self.nrows

    @property
    def residuals(self) -> Array:
        """Rotated traits (m, p) less what ordinary least squares on covariates that are not projected out explains."""
        if self.design is None:
            return self.Z
        return np.asarray(self.Z - self.design.X @ np.linalg.lstsq(self.design.X, self.Z, rcond=None)[0])

    def without_projected(self) -> "Contrasts":
        """The contrasts alone: their likelihood is the restricted one, in which covariates have no part."""
        none = np.empty((0, 0))
        return replace(self, Yx=np.empty((0, self.ntraits)), Kxx=none, Kxm=np.empty((0, self.Z.shape[0])), Rx=none)

    def with_effects(self, S: Array) -> "Contrasts":
        """The contrasts with effects of S (n, k) on every trait; S is orthonormal, and orthogonal to the covariates."""
        wider = self.without_projected().widened(basis_outside(S, (self.V,), 1e-9, self.noutside))
        return replace(wider, design=CoupledDesign(np.eye(self.ntraits), wider.V.T @ S, 0.0))

    def widened(self, E: Array) -> "Contrasts":
        """The contrasts with further columns of V, E (n, e): orthonormal ones outside it, where every trait is 0."""

        def padded(M: Array) -> Array:
            return np.vstack([M, np.zeros((E.shape[1], M.shape[1]))])

        return replace(
            self,
            Z=padded(self.Z),
            s=np.append(self.s, np.zeros(E.shape[1])),
            noutside=self.noutside - E.shape[1],
            V=np.hstack([self.V, E]),
            Kxm=padded(self.Kxm.T).T,
            design=None if self.design is None else replace(self.design, X=padded(self.design.X)),
        )

    def to_rows(self, F: Array) -> Array:
        """``VᵀF`` for F (n, ...), in double precision."""
        nothing = np.empty((0, *F.shape[1:]))
        return np.concatenate([nothing, *(part.T @ F for _, part in self._in_double())])

    def to_samples(self, R: Array) -> Array:
        """``VR`` for R (m, ...), in double precision."""
        total = np.zeros((self.nsamples, *R.shape[1:]))
        for columns, part in self._in_double():
            total += part @ R[columns]
        return total

    def _in_double(self) -> Iterator[tuple[slice, Array]]:
        """V in double precision; a few columns at a time where it is in single, which saves a whole copy."""
        step = self.V.shape[1] if self.V.dtype == np.float64 else COLUMNS_AT_ONCE
        for columns in parts_of(self.V.shape[1], step):
            yield columns, np.asarray(self.V[:, columns], dtype=np.float64)


def rotate_traits(spectrum: Spectrum, Y: Array) -> Contrasts:
    """Rotate traits Y (n, p) whose covariates are all projected out (A of rank p)."""
    return _rotate(spectrum, Y, Y)


def covariate_basis(X: Array) -> tuple[Array, Array]:
    """Qx (n, c) orthonormal and Rx (c, c) upper triangular with ``X = Qx Rx``."""
    Qx, Rx = linalg.qr(X, mode="economic")
    return np.asarray(Qx, np.float64), np.asarray(Rx, np.float64)


def orthonormal_design(A: Array) -> Array:
    """A trait design (p, a) with orthonormal columns and the span of A; A itself where it is square.

    The likelihood depends on that span alone, and columns of other sizes, or nearly alike, would cost digits.
    """
    return A if A.shape[0] == A.shape[1] else np.asarray(linalg.qr(A, mode="economic")[0])


def rotate_coupled(spectrum: Spectrum, Y: Array, A: Array, X: Array) -> Contrasts:
    """Rotate traits Y (n, p) and covariates X (n, c) for a trait design A (p, a) of rank a < p.

    The spectrum must be one without projected covariates.
    """
    Qx, Rx = covariate_basis(X)
    rotated = _rotate(spectrum, Y, np.hstack([Y, Qx]))
    return replace(rotated, design=CoupledDesign(A, rotated.V.T @ Qx, X.shape[1] * _logdet_gram(A), Rx))


def _rotate(spectrum: Spectrum, Y: Array, M: Array) -> Contrasts:
    """Rotate traits Y (n, p) by a V that has what M (n, q), Y among it, has outside that of the spectrum."""
    V, s, Kxm = _append_outside(spectrum, M)
    return Contrasts(
        Z=V.T @ Y,
        s=s,
        noutside=spectrum.nsamples - spectrum.ncovariates - V.shape[1],
        V=V,
        Yx=spectrum.Qx.T @ Y,
        Kxx=spectrum.Kxx,
        Kxm=Kxm,
        Rx=spectrum.Rx,
        design=None,
    )


def _append_outside(spectrum: Spectrum, M: Array) -> tuple[Array, Array, Array]:
    """V with an orthonormal basis of the part of M (n, q) outside V and X appended, and s and Kxm with zeros for it."""
    V, s, Kxv = spectrum.V, spectrum.s, spectrum.Kxv
    room = spectrum.nsamples - spectrum.ncovariates - V.shape[1]
    if room == 0 or M.shape[1] == 0:
        return V, s, Kxv
    norms = np.linalg.norm(M, axis=0)
    E = basis_outside(M / np.where(norms > 0, norms, 1.0), (spectrum.Qx, V), 1e-9, room)
    extra = E.shape[1]
    return (
        np.hstack([V, E]),
        np.concatenate([s, np.zeros(extra)]),
        np.hstack([Kxv, np.zeros((Kxv.shape[0], extra))]),
    )


def outside(F: Array, *bases: Floats) -> Array:
    """What F (n, k) has outside orthonormal bases, which are orthogonal to each other."""
    for _ in range(2):  # twice is enough: Kahan and Parlett
        for inside in [Q @ (Q.T @ F) for Q in bases]:
            F = np.asarray(F - inside)
    return F


def basis_outside(F: Array, bases: Sequence[Floats], smallest: float, most: int) -> Array:
    """Orthonormal basis (n, e) of what F (n, k) has outside others, beyond ``smallest``; e is ``most`` at most."""
    E, R, _ = linalg.qr(outside(F, *bases), mode="economic", pivoting=True)
    number = min(int(np.count_nonzero(np.abs(np.diag(R)) > smallest)), most)
    # Columns that are nearly alike leave a small difference, of which the rounding of what was taken is a larger share.
    return np.asarray(np.linalg.qr(outside(np.asarray(E[:, :number], np.float64), *bases))[0])


def _logdet_gram(M: Array) -> float:
    R = linalg.qr(M, mode="r")[0]
    return float(2 * np.sum(np.log(np.abs(np.diag(R)))))
