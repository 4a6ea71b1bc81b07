"""Conditional means of the missing cells of families, with the variances of their errors.

For a family with ``V_all`` of all its cells and V⁻¹ of the observed ones, 0 elsewhere, and ``D = I - V_all V⁻¹``, a
missing cell has mean ``m + V_all α`` and variance ``diag(D V_all) + diag(D M H⁻¹ Mᵀ Dᵀ)``, m its fixed effects.
"""

from collections.abc import Iterator

import numpy as np

from kron2sum_cli.model.families.observed import ENTRIES, Families, Singles
from kron2sum_cli.model.families.observed_fitting import fixed_effects
from kron2sum_cli.model.families.observed_likelihood import ObservedFamilyPoint
from kron2sum_cli.model.missing.undetermined import uses_undetermined
from kron2sum_cli.model.prediction import MissingCells
from kron2sum_cli.model.spectrum import Array


def missing_cells(point: ObservedFamilyPoint) -> MissingCells:
    """Predictions of the missing cells of a fit.

    Those that depend on an undetermined residual covariance have no variance (NaN).
    """
    data, axes = point.data, point.axes
    mean = data.X @ fixed_effects(point)[0] + data.related(point.alpha) @ axes.C0 + point.alpha @ axes.C1
    variance, Hinv = np.zeros(data.missing.shape), point.effects_inverse
    for family, inverse in _families(point):
        variance[family.members] = _variance(family, inverse, Hinv, axes.C0, axes.C1)
    rows, traits = np.nonzero(data.missing)
    unsure = uses_undetermined(data.observed(), rows, traits)
    return MissingCells(rows, traits, mean[rows, traits], np.where(unsure, np.nan, variance[rows, traits]))


def _families(point: ObservedFamilyPoint) -> Iterator[tuple[Families, Array]]:
    """All families with missing cells, samples without relatives as families of one."""
    for group, inverse in zip(point.data.groups, point.inverses, strict=True):
        if isinstance(group, Families):
            yield group, inverse
        elif isinstance(group, Singles):
            incomplete = np.flatnonzero(~group.observed[group.kind].all(axis=1))
            step = max(1, ENTRIES // group.observed.shape[1] ** 2)
            for start in range(0, incomplete.size, step):
                some = incomplete[start : start + step]
                kind = group.kind[some]
                K, observed = group.K[kind][:, None, None], group.observed[kind][:, None]
                alone = Families(group.members[some, None], np.ones_like(K), K, observed, group.X[some, None])
                yield alone, inverse[kind][:, None, :, None]


def _variance(family: Families, inverse: Array, Hinv: Array, C0: Array, C1: Array) -> Array:
    """Conditional variances of all cells (f, m, p)."""
    f, m, p = family.observed.shape
    V = family.K[:, :, None, :, None] * C0[:, None, :]
    own = np.arange(m)
    V[:, own, :, own, :] += C1
    V = V.reshape(f, m * p, m * p)
    D = np.eye(m * p) - V @ inverse.reshape(V.shape)
    A = family.variance_of_effects(Hinv).reshape(V.shape)
    variance = np.einsum("fab,fba->fa", D, V) + np.einsum("fab,fba->fa", D @ A, D.transpose(0, 2, 1))
    return np.asarray(np.maximum(variance, 0.0).reshape(f, m, p))
