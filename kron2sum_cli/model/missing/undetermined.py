"""Residual covariances that observed cells do not determine: those of two traits that no sample has both of.

The likelihood is the same whatever they are. They are given the values that leave the two traits independent given all
others, for which the determinant of C1 is largest (Dempster 1972, Covariance selection, Biometrics 28:157). They have
no standard error; all other estimates have.
"""

from dataclasses import replace
from typing import TypeVar

import numpy as np

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.climbing import BOUNDARY, Optimum
from kron2sum_cli.model.information import lower_triangle
from kron2sum_cli.model.missing.observed import PartlyObserved, PointOfCells
from kron2sum_cli.model.spectrum import Array, Indices, Mask
from kron2sum_cli.model.trait_axes import TraitAxes, axes_of_factors, factor

SWEEPS, CLOSE = 200, 1e-10
"""Largest number of passes over the pairs of traits, and the change of a correlation at which they end."""

LIKELIHOOD_CHANGE = 1e-6
"""Largest change of a log-likelihood that only rounding makes."""


ObservedT = TypeVar("ObservedT", bound=PointOfCells)


def undetermined(observed: Mask) -> Mask:
    """Pairs of traits (p, p) that no sample has both of, from which cells (n, p) were observed."""
    seen = observed.astype(float)
    return np.asarray(seen.T @ seen == 0)


def with_independent_traits(optimum: Optimum[ObservedT]) -> Optimum[ObservedT]:
    """The same optimum with undetermined residual covariances as of traits independent given the others."""
    point = optimum.point
    apart = undetermined(point.data.observed())
    if not apart.any():
        return optimum
    axes, tau = point.axes, point.data.mean_eigenvalue
    try:
        L1 = factor(made_independent(axes.C1, apart))
        moved = point.at(axes_of_factors((axes.Tinv * axes.c0)[:, axes.c0 > 0], L1, tau).truncated(optimum.rank))
    except (NumericalError, np.linalg.LinAlgError):
        return optimum
    if abs(moved.lml - point.lml) > LIKELIHOOD_CHANGE:
        return optimum
    share = moved.axes.c1**2
    certificate = replace(
        optimum.certificate, smallest_C1=float(share.min()), active_C1=int(np.count_nonzero(share < BOUNDARY))
    )
    return replace(optimum, point=moved, certificate=certificate)


def made_independent(C: Array, apart: Mask) -> Array:
    """C (p, p) with its entries ``apart`` such that these entries of its inverse are 0, by one pair at a time."""
    size = np.sqrt(np.diag(C))
    R = C / np.multiply.outer(size, size)
    pairs = [(j, k) for j, k in np.argwhere(apart) if j < k]
    for _ in range(SWEEPS):
        change = 0.0
        for j, k in pairs:
            others = np.setdiff1d(np.arange(len(R)), (j, k))
            new = R[j, others] @ np.linalg.pinv(R[np.ix_(others, others)], hermitian=True) @ R[others, k]
            change = max(change, abs(float(new - R[j, k])))
            R[j, k] = R[k, j] = new
        if change < CLOSE:
            break
    return np.asarray(R * np.multiply.outer(size, size))


def undetermined_directions(data: PartlyObserved, axes: TraitAxes) -> Array:
    """Changes of (E0, E1), the entries of pairs of axes (2N, k), that move an undetermined covariance alone."""
    p = data.ntraits
    found = np.zeros((p * (p + 1), 0))
    for a, b in np.argwhere(np.tril(undetermined(data.observed()))):
        change = np.multiply.outer(axes.T[:, a], axes.T[:, b])
        column = np.concatenate([np.zeros(p * (p + 1) // 2), lower_triangle(change + change.T)])
        found = np.column_stack([found, column / np.linalg.norm(column)])
    return found


def uses_undetermined(observed: Mask, rows: Indices, traits: Indices) -> Mask:
    """Which missing cells (q,) are of a trait whose covariance with an observed one of the sample is undetermined.

    From the observed cells (n, p), and the sample and trait of every missing one.
    """
    return np.asarray((observed[rows] & undetermined(observed)[traits]).any(axis=1))
