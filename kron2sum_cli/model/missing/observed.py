"""The data of the likelihood of observed cells: rotated traits with the missing cells filled in, and their rows of V.

A missing cell is one more fixed effect (Bartlett 1937): its column is 1 in that cell and 0 elsewhere, so that the value
that the cell was filled with does not matter. With E the columns of the q missing cells, ``z`` the filled traits and
``P = K⁻¹`` of all cells::

    y_oᵀ K_oo⁻¹ y_o = min over δ of (z - Eδ)ᵀ P (z - Eδ),      log|K_oo| = log|K| + log|EᵀPE|,

and the same holds with the fixed effects beside E. So missing cells and fixed effects form one design ``[E, A ⊗ Qx]``,
with Qx an orthonormal basis of the covariates, ``X = Qx Rx``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from scipy import linalg

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.collinearity import combination, dependencies
from kron2sum_cli.model.contrasts import Contrasts, basis_outside, covariate_basis, outside, rotate_coupled
from kron2sum_cli.model.likelihood import LikelihoodPoint
from kron2sum_cli.model.spectrum import Array, Indices, Mask, Spectrum, spectrum_of_features, spectrum_of_relationship


class PartlyObserved(Protocol):
    """Traits with missing cells, whatever their relationship matrix."""

    @property
    def nsamples(self) -> int:
        """Number of samples, n."""

    @property
    def ntraits(self) -> int:
        """Number of traits, p."""

    @property
    def mean_eigenvalue(self) -> float:
        """Mean eigenvalue of GGᵀ, τ."""

    @property
    def singular(self) -> bool:
        """Whether GGᵀ has null directions, in which C1 alone must have variance."""

    def observed(self) -> Mask:
        """Which cells were observed, (n, p)."""


@dataclass(frozen=True)
class PointOfCells(LikelihoodPoint):
    """A likelihood of observed cells at one (C0, C1)."""

    data: PartlyObserved


@dataclass(frozen=True)
class ObservedCells:
    """Traits with missing cells, in the coordinates of a spectrum without projected covariates.

    - ``filled``: the traits with missing cells filled in, rotated; Qx is its design.
    - ``X`` (n, c): covariates as they were given.
    - ``Qx`` (n, c): covariates of the likelihood: an orthonormal basis of X.
    - ``to_X`` (a, c, c): what turns each column of the effects of Qx into effects of X.
    - ``rows``, ``traits`` (q,): sample and trait of every missing cell, sorted by trait.
    - ``U`` (q, m): the rows of V of these samples.
    - ``outside_root`` (r, q): what the unit vectors of these samples have outside V, in an orthonormal basis; None
      where V is complete.
    - ``outside_gram`` (q, q): their inner products, ``outside_rootᵀ outside_root``.
    - ``filling`` (q,): what the cells were filled with.
    - ``left_out`` (c, a): effects that are left out (`effects_left_out`).
    - ``logdet_MtM``: ``log|M_oᵀM_o|`` of the observed rows of ``A ⊗ Qx``, a constant of REML.
    - ``prior``: prior variance τ of the effects of Qx, where GGᵀ was replaced by ``GGᵀ + τ Qx Qxᵀ``
      (`observed_spectrum`); None where it was not.
    - ``B_of_means`` (c, a): fixed effects of X that were taken off the traits before they were rotated; None for none.
    - ``added``: further fixed effects ``(A1 ⊗ F) vec(B1)``: A1 (p, e), and F in the rotated rows (m, k).
    """

    filled: Contrasts
    X: Array
    Qx: Array
    to_X: Array
    rows: Indices
    traits: Indices
    U: Array
    outside_root: Array | None
    outside_gram: Array | None
    filling: Array
    left_out: Mask
    logdet_MtM: float
    prior: float | None
    B_of_means: Array | None
    added: tuple[Array, Array] | None = None

    @property
    def nsamples(self) -> int:
        """Number of samples, n."""
        return self.filled.nsamples

    @property
    def ntraits(self) -> int:
        """Number of traits, p."""
        return self.filled.ntraits

    @property
    def ncells(self) -> int:
        """Number of missing cells, q."""
        return int(self.rows.size)

    @property
    def mean_eigenvalue(self) -> float:
        """Mean of the eigenvalues over all samples."""
        return self.filled.mean_eigenvalue

    @property
    def A(self) -> Array:
        """Trait design, (p, a)."""
        assert self.filled.design is not None
        return self.filled.design.A

    @property
    def Qx_rotated(self) -> Array:
        """The basis of the covariates in the rotated rows, (m, c)."""
        assert self.filled.design is not None
        return self.filled.design.X

    @property
    def terms(self) -> list[tuple[Array, Array]]:
        """The fixed effects, as pairs of a trait design and rotated covariates."""
        own = [(self.A, self.Qx_rotated)]
        return own if self.added is None else [*own, self.added]

    @property
    def singular(self) -> bool:
        """Whether GGᵀ has null directions, in which C1 alone must have variance."""
        return bool(self.filled.noutside) or bool(np.any(self.filled.s <= 0))

    def observed(self) -> Mask:
        """Which cells were observed, (n, p)."""
        mask = np.ones((self.nsamples, self.ntraits), dtype=np.bool_)
        mask[self.rows, self.traits] = False
        return mask


def observed_spectrum(relationship: Array, X: Array, features: bool, with_prior: bool) -> tuple[Spectrum, float | None]:
    """Spectrum of GGᵀ for `observed_cells`, with a prior of the fixed effects where REML allows it.

    Effects of an orthonormal basis Qx of X that have the prior covariance ``τ C0 ⊗ I`` add ``τ Qx Qxᵀ`` to GGᵀ; with an
    invertible trait design REML does not change. A matrix centred on the analysed samples has no variance along the
    intercept, so that C1 could not become singular without the prior.

    The relationship is GGᵀ (n, n), or G (n, r) where ``features``; the prior is added where ``with_prior``, for REML
    with an invertible trait design alone. Returns the spectrum, and τ or None.
    """
    n, c = X.shape
    none = np.empty((n, 0))
    if not with_prior or c == 0:
        of_whole = spectrum_of_features if features else spectrum_of_relationship
        return of_whole(relationship, none), None
    total = float(np.sum(relationship**2) if features else np.trace(relationship))
    tau = total / n
    Qx, _ = covariate_basis(X)
    if features:
        spectrum = spectrum_of_features(np.hstack([relationship, np.sqrt(tau) * Qx]), none)
        centred = float(np.sum((relationship - relationship.mean(axis=0)) ** 2) / n)
    else:
        spectrum = spectrum_of_relationship(relationship + tau * (Qx @ Qx.T), none, overwrite=True)
        centred = float((total - relationship.sum() / n) / n)
    return replace(spectrum, mean_diagonal=centred), tau


def missing_cells_of(Y: Array) -> Mask:
    """Which cells of traits (n, p) are missing.

    Raises NumericalError where a trait has no observed cell.
    """
    missing = np.isnan(Y)
    empty = np.flatnonzero(missing.all(axis=0))
    if empty.size:
        raise NumericalError(f"trait {int(empty[0]) + 1} has no observed value: leave it out")
    return missing


def observed_cells(spectrum: Spectrum, Y: Array, A: Array, X: Array, prior: float | None = None) -> ObservedCells:
    """Rotate traits with missing cells.

    The spectrum is of GGᵀ without projected covariates (X of no columns), with the prior that `observed_spectrum` gave.
    Y (n, p) is NaN where a cell is missing, A (p, a) has full column rank, X (n, c) over the samples of every trait
    (`check_observed`). Raises NumericalError where a trait has no observed cell.
    """
    missing = missing_cells_of(Y)
    means = np.nanmean(Y, axis=0)
    # Digits of a large mean would be lost in the rotation, and with them those of a small variance.
    taken = 0.0 if _effects_of_means(A, X, means) is None else means
    filled = rotate_coupled(spectrum, np.where(missing, means, Y) - taken, A, X)
    return restored_cells(filled, Y, X, effects_left_out(Y, A, X), prior)


def restored_cells(filled: Contrasts, Y: Array, X: Array, left_out: Mask, prior: float | None) -> ObservedCells:
    """What `observed_cells` returned, from the rotated traits ``filled`` that were kept of it.

    There missing cells are filled in by the means of their traits; in Y (n, p) they are NaN. ``left_out`` (c, a) are
    the `effects_left_out`.
    """
    assert filled.design is not None
    Qx, Rx = covariate_basis(X)
    missing = np.isnan(Y)
    means = np.nanmean(Y, axis=0)
    traits, rows = np.nonzero(missing.T)
    U = np.ascontiguousarray(filled.V[rows], dtype=np.float64)
    root, gram = _outside(filled, rows)
    to_X = effects_to_covariates(Qx, Rx, ~missing, left_out)
    logdet = _logdet_observed(~missing, filled.design.A, Qx, left_out)
    effects, filling = _effects_of_means(filled.design.A, X, means), means[traits]
    return ObservedCells(filled, X, Qx, to_X, rows, traits, U, root, gram, filling, left_out, logdet, prior, effects)


def effects_to_covariates(Qx: Array, Rx: Array, observed: Mask, left_out: Mask) -> Array:
    """What turns effects of Qx into those of ``X = Qx Rx``: (a, c, c), for each column of the effects.

    That is Rx⁻¹, unless some effects ``left_out`` (c, a) on a trait are 0. With Q_k the others' columns and
    ``Q_o = Q_k N`` over the samples that have the trait, ``X_k = Q_k (R_kk + N R_ok)`` there.
    """
    (c, a), inverse = left_out.shape, linalg.solve_triangular(Rx, np.eye(len(Rx)))
    to_X = np.repeat(np.asarray(inverse)[None], a, axis=0)
    for j in np.flatnonzero(left_out.any(axis=0)):
        k, o = np.flatnonzero(~left_out[:, j]), np.flatnonzero(left_out[:, j])
        seen = Qx[observed[:, j]]
        N = linalg.lstsq(seen[:, k], seen[:, o])[0]
        to_X[j] = np.zeros((c, c))
        to_X[j][np.ix_(k, k)] = np.linalg.inv(Rx[np.ix_(k, k)] + N @ Rx[np.ix_(o, k)])
    return to_X


def _outside(filled: Contrasts, rows: Indices) -> tuple[Array | None, Array | None]:
    """`ObservedCells.outside_root` and `outside_gram` of missing cells in these samples (q,)."""
    if not filled.noutside:
        return None, None
    samples, of_cell = np.unique(rows, return_inverse=True)
    rest = outside(_unit_vectors(filled.nsamples, samples), filled.V)
    root: Array = np.asarray(linalg.qr(rest, mode="r")[0][: samples.size, of_cell], np.float64)
    return root, np.asarray(root.T @ root, np.float64)


def _unit_vectors(n: int, samples: Indices) -> Array:
    """Those of some of n samples, (n, k)."""
    unit = np.zeros((n, samples.size))
    unit[samples, np.arange(samples.size)] = 1.0
    return unit


def _effects_of_means(A: Array, X: Array, means: Array) -> Array | None:
    """Fixed effects B (c, a) with ``X B Aᵀ = 1 meansᵀ``; None without an intercept, or where A is not invertible."""
    intercept = np.flatnonzero((X == 1).all(axis=0))
    if A.shape[1] < A.shape[0] or not intercept.size:
        return None
    B = np.zeros((X.shape[1], A.shape[1]))
    B[intercept[0]] = np.linalg.solve(A, means)
    return B


def without_missing(data: Contrasts, X: Array) -> ObservedCells:
    """Complete traits as observed cells, none missing; ``data`` is rotated with X (n, c) by `rotate_coupled`.

    Nothing was taken off them.
    """
    assert data.design is not None
    Y = np.zeros((len(X), data.ntraits))
    return restored_cells(data, Y, X, effects_left_out(Y, data.design.A, X), None)


def with_added(data: ObservedCells, A1: Array, F: Array) -> ObservedCells:
    """The same cells with fixed effects ``(A1 ⊗ F) vec(B1)`` beside the covariates'; A1 (p, e), F (n, k)."""
    wider = _with_inside(data, F)
    return replace(wider, added=(A1, wider.filled.V.T @ F))


def with_cells_inside(data: ObservedCells) -> ObservedCells:
    """The same cells with V so wide that no missing cell has a part outside it."""
    samples = np.unique(data.rows)
    wider = _with_inside(data, _unit_vectors(data.nsamples, samples))
    return replace(wider, outside_root=None, outside_gram=None)


def _with_inside(data: ObservedCells, F: Array) -> ObservedCells:
    """The same cells with columns of V for what F (n, k) has outside it."""
    filled = data.filled
    if not filled.noutside:
        return data
    smallest = 1e-9 * np.linalg.norm(F, axis=0).max(initial=0)
    E = basis_outside(F, (filled.V,), smallest, filled.noutside)
    wider = filled.widened(E)
    root, gram = _outside(wider, data.rows)
    U = np.hstack([data.U, E[data.rows]])
    return replace(data, filled=wider, U=U, outside_root=root, outside_gram=gram)


def effects_left_out(Y: Array, A: Array, X: Array) -> Mask:
    """Effects (c, a) on a trait that are left out: those of covariates that others explain in the trait's samples.

    None where effects are shared by traits, A other than the identity.
    """
    left_out = np.zeros((X.shape[1], A.shape[1]), dtype=np.bool_)
    if A.shape[0] == A.shape[1] and np.array_equal(A, np.eye(len(A))):
        for j, observed in enumerate(np.isfinite(Y).T):
            left_out[[found.column for found in dependencies(X[observed])], j] = True
    return left_out


def check_observed(
    Y: Array, A: Array, X: Array, traits: Sequence[str], covariates: Sequence[str], drop_redundant: bool = False
) -> list[str]:
    """Refuse traits with too few observed cells for their own effects and variance.

    Y (n, p) is NaN where a cell is missing, A is (p, a), X (n, c); traits and covariates are their names. With
    ``drop_redundant``, which A = I allows, effects on a trait that its samples do not tell apart are left out; returns
    which of them, of which trait. Raises NumericalError where a trait has fewer than c + 2 observed cells, or its
    samples do not tell covariates apart; names both.
    """
    left_out: list[str] = []
    may_drop = drop_redundant and bool(effects_left_out(Y, A, X).any())
    for name, y in zip(traits, Y.T, strict=True):
        observed = np.isfinite(y)
        count = int(np.count_nonzero(observed))
        found = dependencies(X[observed])
        c = X.shape[1] - len(found) * may_drop
        if count < c + 2:
            raise NumericalError(
                f"trait {name} is observed on {count} samples, and {c} covariates need at least {c + 2}: leave the"
                " trait or covariates out"
            )
        reasons = [
            f"over the {count} samples that have trait {name}, covariate {combination(covariates, dependency)}"
            for dependency in found
        ]
        if reasons and not may_drop:
            raise NumericalError(
                f"{reasons[0]}: leave the trait or the covariate out, or add --drop-redundant, which leaves out its"
                " effect on that trait"
            )
        left_out += [f"{reason}: its effect on {name} is left out" for reason in reasons]
    return left_out


def _logdet_observed(observed: Mask, A: Array, Qx: Array, left_out: Mask) -> float:
    """``log|M_oᵀM_o|`` by orthogonal triangularisation, a trait at a time."""
    kept = ~left_out.T.ravel()
    size = int(np.count_nonzero(kept))
    if size == 0:
        return 0.0
    c = Qx.shape[1]
    parts = [
        np.kron(row[None, :], linalg.qr(Qx[seen], mode="r")[0][:c]) for row, seen in zip(A, observed.T, strict=True)
    ]
    R = linalg.qr(np.vstack(parts)[:, kept], mode="r")[0]
    return float(2 * np.sum(np.log(np.abs(np.diag(R)[:size]))))
