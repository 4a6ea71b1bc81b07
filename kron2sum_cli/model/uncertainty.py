"""Estimates that follow from the fitted covariances, with standard errors.

Standard errors come from the curvature of the likelihood at the optimum (`information`) by the delta method. Where
the optimum lies on a boundary (an axis without genetic or without residual variance, or C0 of bounded rank), what
would leave the boundary counts as known: the standard error is the one along the boundary. Where nothing is left to
vary there is none: a variance or heritability of 0, or a correlation of 1, is not known without error. A
profile-likelihood interval says more there.
"""

from dataclasses import dataclass, replace

import numpy as np

from kron2sum_cli.model.generalised_least_squares import Effects, Metric, least_squares
from kron2sum_cli.model.information import DirectionCovariance, direction_covariance
from kron2sum_cli.model.likelihood import Point
from kron2sum_cli.model.missing.information import direction_covariance as observed_direction_covariance
from kron2sum_cli.model.missing.likelihood import ObservedPoint
from kron2sum_cli.model.missing.undetermined import undetermined
from kron2sum_cli.model.spectrum import Array, Mask
from kron2sum_cli.model.trait_axes import TraitAxes, pairs_of_axes

NO_VARIANCE = 1e-12
"""Smallest genetic (residual) share of variance of a trait that has genetic (residual) correlations."""

LEAST_FREE = 1e-6
"""Smallest share of an estimate's squared gradient along the boundary; below it the boundary determines it."""


@dataclass(frozen=True)
class Estimates:
    """Estimates of a null model and their standard errors (NaN where there is none).

    A correlation with a trait that has no genetic (residual) variance does not exist: it and its standard error are
    NaN. What the boundary holds has no standard error: a variance or heritability at 0, a correlation at 1 or -1 (two
    traits with one axis of genetic or residual variance, C0 of rank 1). Standard errors of C0, C1 and what follows from
    them are all NaN where the likelihood does not determine both (all eigenvalues of GGᵀ equal), or its curvature is
    not that of a maximum.

    - ``C0``, ``C0_se``, ``C1``, ``C1_se`` (p, p): genetic and residual covariance of the traits.
    - ``h2``, ``h2_se`` (p,): heritabilities, ``C0_jj ḡ / (C0_jj ḡ + C1_jj)``, ḡ the mean diagonal of the centred GGᵀ.
    - ``rg``, ``rg_se``, ``re``, ``re_se`` (p, p): genetic and residual correlations.
    - ``B``, ``B_se`` (c, a): fixed effects.
    - ``axis_share`` (p,): share of the total variance of the traits, each scaled to 1, that every trait axis carries.
    - ``axis_h2`` (p,): genetic share of variance of every trait axis.
    """

    C0: Array
    C0_se: Array
    C1: Array
    C1_se: Array
    h2: Array
    h2_se: Array
    rg: Array
    rg_se: Array
    re: Array
    re_se: Array
    B: Array
    B_se: Array
    axis_share: Array
    axis_h2: Array


@dataclass(frozen=True)
class Interval:
    """A profile-likelihood interval of a heritability.

    An end ``at_boundary`` is 0 or 1 because the likelihood does not fall far enough before it.
    """

    low: float
    high: float
    at_boundary: bool


def estimates_of(point: Point, Qx: Array, rank: int, mean_diagonal: float, A: Array, X: Array) -> Estimates:
    """Estimates at an optimum of complete traits, with trait design A (p, a) and covariates X (n, c).

    ``Qx`` (n, c) is a basis of the projected covariates, ``rank`` the largest of C0 allowed, and ``mean_diagonal`` ḡ.
    """
    covariance, effects = direction_covariance(point, rank), fixed_effects(point, Qx, A, X)
    return estimates_from(point.axes, point.data.mean_eigenvalue, mean_diagonal, covariance, effects)


def estimates_of_observed(point: ObservedPoint, rank: int, mean_diagonal: float, A: Array) -> Estimates:
    """Estimates at an optimum of observed cells; parameters as for `estimates_of`."""
    covariance = observed_direction_covariance(point, rank)
    effects = _effects_of_design(A, point.data.A, point.B, point.B_covariance)
    effects = replace(effects, se=np.where(point.data.left_out, np.nan, effects.se))
    found = estimates_from(point.axes, point.data.mean_eigenvalue, mean_diagonal, covariance, effects)
    return without_undetermined(found, point.data.observed())


def without_undetermined(found: Estimates, observed: Mask) -> Estimates:
    """Estimates from cells (n, p) without residual covariances of traits that no sample has both of."""
    apart = undetermined(observed)
    if not apart.any():
        return found
    residual = {name: np.where(apart, np.nan, getattr(found, name)) for name in ("C1", "C1_se", "re", "re_se")}
    return replace(found, **residual)


def _effects_of_design(A: Array, fitted: Array, B: Array, covariance: Array) -> Effects:
    """Fixed effects of the trait design A from those, B (c, a), of the one that was fitted, of the same span.

    ``covariance`` (ca, ca) is that of vec(B).
    """
    if not np.array_equal(A, fitted):
        back = np.linalg.inv(np.linalg.lstsq(fitted, A, rcond=None)[0])
        kron = np.kron(back, np.eye(B.shape[0]))
        B, covariance = B @ back.T, kron @ covariance[: B.size, : B.size] @ kron.T
    variance = np.maximum(np.diag(covariance)[: B.size], 0.0)
    return Effects(np.asarray(B), np.sqrt(variance).reshape(B.T.shape).T)


def estimates_from(
    axes: TraitAxes, mean_eigenvalue: float, mean_diagonal: float, covariance: DirectionCovariance, effects: Effects
) -> Estimates:
    """Estimates from trait axes, the covariance of (C0, C1) along them, and fixed effects."""
    C0, C1 = axes.C0, axes.C1
    h2, h2_se = _heritability(axes, mean_diagonal, covariance)
    present0, present1 = _present(C0, C1, mean_eigenvalue)
    rg, rg_se = _correlation(C0, axes.Tinv, covariance.v00, present0)
    re, re_se = _correlation(C1, axes.Tinv, covariance.v11, present1)
    return Estimates(
        C0=C0,
        C0_se=_entry_errors(axes.Tinv, covariance.v00),
        C1=C1,
        C1_se=_entry_errors(axes.Tinv, covariance.v11),
        h2=h2,
        h2_se=h2_se,
        rg=rg,
        rg_se=rg_se,
        re=re,
        re_se=re_se,
        B=effects.B,
        B_se=effects.se,
        axis_share=axis_shares(axes),
        axis_h2=mean_eigenvalue * axes.c0**2,
    )


def fixed_effects(point: Point, Qx: Array, A: Array, X: Array) -> Effects:
    """B (c, a) of ``(A ⊗ X) vec(B)`` by generalised least squares at a point, with standard errors."""
    fitted = least_squares(Metric(point, Qx), [(A, X)])
    B = fitted.effects(0, 1.0).B
    return _effects_of_design(A, A if point.data.design is None else point.data.design.A, B, fitted.covariance)


def axis_shares(axes: TraitAxes) -> Array:
    """Share of every trait axis in the total variance of the traits, each scaled to 1: (p,), adding to 1.

    Every axis has total variance ``τ c0² + c1² = 1``, so that row a of T⁻¹, squared, splits that of trait a.
    """
    squared = axes.Tinv**2
    return np.asarray((squared / squared.sum(axis=1, keepdims=True)).mean(axis=0))


def _present(C0: Array, C1: Array, mean_eigenvalue: float) -> tuple[Mask, Mask]:
    """Which traits have genetic variance, and which have residual variance."""
    genetic, residual = mean_eigenvalue * np.diag(C0), np.diag(C1)
    total = genetic + residual
    return genetic > NO_VARIANCE * total, residual > NO_VARIANCE * total


def _gradients(Tinv: Array, a: int) -> Array:
    """Derivatives of row a of ``C = T⁻¹ E T⁻ᵀ`` with respect to the pairs of E: (p, N)."""
    i, j = pairs_of_axes(Tinv.shape[0])
    row = Tinv[a]
    both = row[i] * Tinv[:, j] + row[j] * Tinv[:, i]
    return np.asarray(np.where(i == j, 0.5, 1.0) * both)


def _diagonal_gradients(Tinv: Array) -> Array:
    """Derivatives of the diagonal of ``C = T⁻¹ E T⁻ᵀ`` with respect to the pairs of E: (p, N)."""
    i, j = pairs_of_axes(Tinv.shape[0])
    return np.asarray(np.where(i == j, 1.0, 2.0) * Tinv[:, i] * Tinv[:, j])


def _times(J: Array, covariance: Array) -> Array:
    return np.asarray(J * covariance if covariance.ndim == 1 else J @ covariance)


def _free(covariance: Array) -> Mask:
    """Which pairs (N,) vary along the boundary."""
    return np.asarray((covariance if covariance.ndim == 1 else np.diag(covariance)) > 0)


def _errors(J: Array, covariance: Array) -> Array:
    """Standard errors (k,) of estimates with derivatives J (k, N); NaN where the boundary determines them."""
    held = np.sum(J[:, _free(covariance)] ** 2, axis=1) <= LEAST_FREE * np.sum(J**2, axis=1)
    return np.where(held, np.nan, _root(np.einsum("kn,kn->k", _times(J, covariance), J)))


def _entry_errors(Tinv: Array, covariance: Array) -> Array:
    """Standard errors of the entries of C (p, p); one row at a time, so that memory is p times the number of pairs."""
    rows = np.stack([_errors(_gradients(Tinv, a), covariance) for a in range(len(Tinv))])
    return np.sqrt(0.5 * (rows**2 + rows.T**2))


def _heritability(axes: TraitAxes, mean_diagonal: float, covariance: DirectionCovariance) -> tuple[Array, Array]:
    """``h = ḡC0/(ḡC0 + C1)`` of every trait, ``dh = ḡ(C1 dC0 - C0 dC1)/(ḡC0 + C1)²``."""
    c0, c1, J = np.diag(axes.C0), np.diag(axes.C1), _diagonal_gradients(axes.Tinv)
    J0, J1, total = c1[:, None] * J, -c0[:, None] * J, mean_diagonal * c0 + c1
    blocks = (J0, covariance.v00, J0), (2 * J0, covariance.v01, J1), (J1, covariance.v11, J1)
    variance = np.sum([np.einsum("an,an->a", _times(left, block), right) for left, block, right in blocks], axis=0)
    along = [np.sum(part[:, _free(block)] ** 2, axis=1) for part, block in ((J0, covariance.v00), (J1, covariance.v11))]
    held = along[0] + along[1] <= LEAST_FREE * np.sum(J0**2 + J1**2, axis=1)
    return mean_diagonal * c0 / total, np.where(held, np.nan, mean_diagonal * _root(variance) / total**2)


def _correlation(C: Array, Tinv: Array, covariance: Array, present: Mask) -> tuple[Array, Array]:
    """``r = C_ab/√(C_aa C_bb)``, ``dr = dC_ab/√(C_aa C_bb) - r/2 (dC_aa/C_aa + dC_bb/C_bb)``.

    Where r is 1 or -1 because the boundary holds it there, it has no standard error.
    """
    diagonal = np.where(present, np.diag(C), np.nan)
    size = np.sqrt(np.multiply.outer(diagonal, diagonal))
    r, se = C / size, np.empty(C.shape)
    of_diagonal = _diagonal_gradients(Tinv) / diagonal[:, None]
    for a in range(len(C)):
        J = _gradients(Tinv, a) / size[a][:, None] - 0.5 * r[a][:, None] * (of_diagonal[a] + of_diagonal)
        se[a] = _errors(J, covariance)
    on_diagonal = np.eye(r.shape[0], dtype=bool)
    return np.where(on_diagonal & present, 1.0, r), np.where(on_diagonal & present, 0.0, se)


def _root(variance: Array) -> Array:
    """Square roots of variances: rounding may leave them just below 0."""
    return np.asarray(np.sqrt(np.maximum(variance, 0.0)))
