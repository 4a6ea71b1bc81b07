"""Checks of the arrays that callers give."""

import numpy as np
from numpy.typing import ArrayLike

from kron2sum_cli.model.spectrum import Array


def matrix(name: str, M: ArrayLike, advice: str = "") -> Array:
    """A copy of M as a finite matrix of double precision; ``advice`` ends the message where values are missing.

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
