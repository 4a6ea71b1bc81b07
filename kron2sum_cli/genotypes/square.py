"""Work on square symmetric matrices in place, tile by tile, so that no second one is needed."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

TILE = 512


def tiles(n: int) -> Iterator[slice]:
    """The rows of an n x n matrix in stretches of `TILE`."""
    for start in range(0, n, TILE):
        yield slice(start, min(start + TILE, n))


def add_outer_product(K: NDArray[np.float64], x: NDArray[np.floating]) -> None:
    """Add x xᵀ, computed in the precision of x, to the lower triangle of K.

    Parameters
    ----------
    K : (n, n) float64; its part above the diagonal tiles is neither read nor written
    x : (n, b) in Fortran order
    """
    for rows in tiles(len(K)):
        K[rows, : rows.stop] += x[rows] @ x[: rows.stop].T


def mirror_lower(K: NDArray[np.float64]) -> None:
    """Copy the lower triangle of K (n, n) over the upper one."""
    for rows in tiles(len(K)):
        corner = np.tril(K[rows, rows])
        K[rows, rows] = corner + np.tril(corner, -1).T
        K[: rows.start, rows] = K[rows, : rows.start].T
