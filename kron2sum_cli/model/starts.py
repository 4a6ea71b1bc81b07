"""Where climbs of the likelihood start.

With few samples for each trait a likelihood can have several maxima, most of them where some combinations of the traits
have no residual variance. Starts from corners are near such maxima, and starts pushed to a face from a maximum already
found are near those beside it.
"""

import numpy as np
from scipy import linalg

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.contrasts import Contrasts
from kron2sum_cli.model.spectrum import Array
from kron2sum_cli.model.trait_axes import TraitAxes, axes_of_factors

SHARES = (0.5, 0.1, 0.9)
"""Genetic shares of variance from which climbs start; the first alone where a climb is not `CHEAP`."""

CHEAP = 1_000_000
"""Rows times squared traits up to which a fit climbs from all starts."""

FEW_ROWS = 30
"""Contrasts of each trait below which a fit climbs from corners and from pushed starts, too."""

CORNERS = 8
"""Largest number of axes that are nearly all genetic in a start from a corner."""

CORNER_SHARES = (0.99, 0.3)
"""Genetic shares of those axes, and of the others."""

CORNER_WEIGHTS = (0.9, 0.99)
"""Genetic shares for which rows are weighted to find such axes."""

PUSHED_SHARE = 0.9999
"""Genetic share of an axis that is pushed to where it has no residual variance."""


def starting_axes(data: Contrasts, share: float) -> TraitAxes:
    """The covariance of the contrasts, this share of it to τC0 and the rest to C1.

    Raises
    ------
    NumericalError
        Where traits are linear combinations of each other or GGᵀ is zero on the contrasts.
    """
    tau = data.mean_eigenvalue
    if tau <= 0:
        raise NumericalError("the relationship matrix is zero given the covariates: C0 cannot be estimated")
    root = _root_of_covariance(data)
    return axes_of_factors(np.sqrt(share / tau) * root, np.sqrt(1 - share) * root, tau)


def is_cheap(data: Contrasts) -> bool:
    """Whether a fit can afford several climbs."""
    return bool(data.Z.shape[0] * data.ntraits**2 <= CHEAP)


def has_few_rows(data: Contrasts) -> bool:
    """Whether there are so few samples for each of several traits that several maxima are likely."""
    return data.ntraits > 1 and data.nrows < FEW_ROWS * data.ntraits


def far_starts(data: Contrasts, rank: int) -> list[TraitAxes]:
    """Starts with some axes, or all, nearly all genetic."""
    p = data.ntraits
    corners = [start for weight in CORNER_WEIGHTS for start in corner_axes(data, min(rank, p - 1), weight)]
    return [starting_axes(data, CORNER_SHARES[0]), *corners]


def corner_axes(data: Contrasts, largest: int, weight: float) -> list[TraitAxes]:
    """Starts with 1 to ``largest`` axes nearly all genetic.

    Such axes vary little in rows of small eigenvalues s. They are those in which both the covariance of the contrasts
    and ``Zᵀ diag(1 / (1 - h + h s/τ)) Z``, h the weight, are diagonal, in the order of the latter.
    """
    root = _root_of_covariance(data)
    scaled = linalg.solve_triangular(root, without_covariates(data).T, lower=True)
    variances = 1 - weight + weight * data.s / data.mean_eigenvalue
    loadings = root @ linalg.eigh((scaled / variances) @ scaled.T)[1]
    counts = range(1, min(largest, CORNERS) + 1)
    return [_shared(data, loadings, np.where(np.arange(data.ntraits) < k, *CORNER_SHARES)) for k in counts]


def pushed_axes(data: Contrasts, axes: TraitAxes, rank: int) -> list[TraitAxes]:
    """Starts on the faces beside an optimum: those of its axes that may be genetic, each in turn nearly all so."""
    tau, order = data.mean_eigenvalue, np.arange(axes.c0.size)
    starts = []
    for k in np.flatnonzero(tau * axes.c0[: min(rank, CORNERS)] ** 2 < PUSHED_SHARE):
        c0 = np.where(order == k, np.sqrt(PUSHED_SHARE / tau), axes.c0)
        c1 = np.where(order == k, np.sqrt(1 - PUSHED_SHARE), axes.c1)
        starts.append(axes_of_factors(axes.Tinv * c0, axes.Tinv * c1, tau))
    return starts


def _shared(data: Contrasts, loadings: Array, shares: Array) -> TraitAxes:
    """Axes with these genetic shares; loadings (p, p) of the axes scaled to variance 1."""
    tau = data.mean_eigenvalue
    return axes_of_factors(loadings * np.sqrt(shares / tau), loadings * np.sqrt(1 - shares), tau)


def _root_of_covariance(data: Contrasts) -> Array:
    """Lower triangular L (p, p) with ``LLᵀ`` the covariance of the contrasts."""
    return np.asarray(linalg.qr(without_covariates(data), mode="r")[0][: data.ntraits].T / np.sqrt(data.nrows))


def without_covariates(data: Contrasts) -> Array:
    """The rotated traits less what covariates that are not projected out explain of each: (m, p)."""
    if data.design is None:
        return data.Z
    return np.asarray(data.Z - data.design.X @ np.linalg.lstsq(data.design.X, data.Z, rcond=None)[0])
