"""Transformations of traits before the analysis, each trait for itself."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import NumericalError

Transform = Literal["none", "standardize", "rank-normal"]


def transform_traits(Y: NDArray[np.float64], names: Sequence[str], transform: Transform) -> NDArray[np.float64]:
    """Transform every trait over the samples that have it.

    ``standardize`` gives mean 0 and standard deviation 1 (with n - 1). ``rank-normal`` replaces the value
    of rank r of n by the normal quantile of (r - 3/8) / (n + 1/4) (Blom 1958); ties get their average
    rank. The trait itself is transformed, not its residuals: covariates stay in the model.

    Parameters
    ----------
    Y : (n, p) traits of the analysed samples, NaN where missing
    names : the p traits, for messages
    transform : which

    Returns
    -------
    (n, p) float64, NaN where Y is; Y itself for ``none``

    Raises
    ------
    NumericalError : a trait to be transformed has fewer than two distinct values
    """
    if transform == "none":
        return Y
    apply = _standardized if transform == "standardize" else _rank_normal
    transformed = np.full(Y.shape, np.nan)
    for column, name in enumerate(names):
        observed = ~np.isnan(Y[:, column])
        values = Y[observed, column]
        if values.size == 0 or values.min() == values.max():
            raise NumericalError(
                f"trait '{name}' has fewer than two distinct values in the analysed samples, so that "
                f"--transform {transform} is not defined; leave the trait out"
            )
        transformed[observed, column] = apply(values)
    return transformed


def _standardized(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean 0, standard deviation 1."""
    # Units are divided out first, so that neither sum nor squares overflow or vanish.
    scaled = values / np.abs(values).max()
    centred = scaled - scaled.mean()
    unit = np.abs(centred).max()
    centred /= unit
    return np.asarray(centred / centred.std(ddof=1), dtype=np.float64)


def _rank_normal(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Normal quantiles of the ranks, by Blom's formula."""
    # Here, because few fits ask for it and it would be a tenth of their start.
    from scipy.special import ndtri

    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    average_rank = np.cumsum(counts) - (counts - 1) / 2
    quantile = ndtri((average_rank - 0.375) / (values.size + 0.25))
    return np.asarray(quantile[inverse], dtype=np.float64)
