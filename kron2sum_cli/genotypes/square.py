"""Square symmetric matrices, worked on in place and tile by tile, so that no second one is needed."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.tables.samples import Samples

TILE = 512
LARGEST_ASYMMETRY = 1e-5
"""How far a matrix may be from symmetric, relative to its largest entry."""


def tiles(n: int) -> Iterator[slice]:
    """The rows of an n x n matrix in stretches of `TILE`."""
    for start in range(0, n, TILE):
        yield slice(start, min(start + TILE, n))


def add_outer_product(K: NDArray[np.float64], x: NDArray[np.floating[Any]]) -> None:
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


@np.errstate(invalid="ignore", over="ignore")  # NaNs are refused below; twice a diagonal is made, and not kept
def gather(
    lines: Iterable[tuple[int, NDArray[Any]]],
    lower: bool,
    rows: NDArray[np.intp],
    samples: Samples,
    path: str,
) -> NDArray[np.float64]:
    """Put some rows and columns of a stored symmetric matrix together.

    Parameters
    ----------
    lines : the N rows of the file in order, each with its position i: i + 1 numbers if ``lower``, else N
    lower : whether the file stores the lower triangle only. A file that stores N numbers a row with zeros
        in place of the upper triangle is recognised
    rows : (n,) the rows and columns wanted, each once, in the order wanted
    samples : the N samples of the file
    path : the file, for messages

    Returns
    -------
    (n, n) float64, exactly symmetric

    Raises
    ------
    InputError : an entry is not finite, or the matrix is not symmetric to 1e-5 of its largest entry
    """
    place = np.full(len(samples), -1, dtype=np.intp)
    place[rows] = np.arange(len(rows))
    in_file_order = np.sort(rows)
    K = np.zeros((len(rows), len(rows)))
    n_seen, one_triangle = 0, True
    for i, values in lines:
        if not lower:
            one_triangle = one_triangle and not values[i + 1 :].any()
        if place[i] < 0:
            continue
        n_seen += 1
        if lower:
            earlier = in_file_order[:n_seen]
            K[place[i], place[earlier]] = values[earlier]
        else:
            K[place[i]] = values[rows]
    chosen = samples.take(rows)
    if one_triangle:
        _add_transpose(K)
    _refuse_not_finite(K, chosen, path)
    if not one_triangle:
        _symmetrise(K, chosen, path)
    return K


def _refuse_not_finite(K: NDArray[np.float64], samples: Samples, path: str) -> None:
    for rows in tiles(len(K)):
        bad = np.argwhere(~np.isfinite(K[rows]))
        if len(bad):
            i, j = rows.start + bad[0, 0], bad[0, 1]
            raise InputError(
                f"{path}: the relationship of samples '{samples.label(i)}' and '{samples.label(j)}' is "
                f"{K[i, j]}; leave out a sample without relationships (--remove), or make the matrix again"
            )


def _add_transpose(K: NDArray[np.float64]) -> None:
    """Fill a matrix in which one of any two opposite entries is 0."""
    diagonal = K.diagonal().copy()
    for rows in tiles(len(K)):
        total = K[rows, : rows.stop] + K[: rows.stop, rows].T
        K[rows, : rows.stop] = total
        K[: rows.stop, rows] = total.T
    np.fill_diagonal(K, diagonal)


def _symmetrise(K: NDArray[np.float64], samples: Samples, path: str) -> None:
    """Put the mean in place of any two opposite entries, which may differ by their rounding only."""
    limit = LARGEST_ASYMMETRY * max((np.abs(K[rows]).max() for rows in tiles(len(K))), default=0.0)
    for rows in tiles(len(K)):
        below, above = K[rows, : rows.stop], K[: rows.stop, rows].T
        difference = np.abs(below - above)
        if difference.max() > limit:
            i, j = np.unravel_index(difference.argmax(), difference.shape)
            raise InputError(
                f"{path} is not symmetric: samples '{samples.label(rows.start + int(i))}' and "
                f"'{samples.label(int(j))}' have {below[i, j]:g} one way and {above[i, j]:g} the other; "
                "give a symmetric matrix"
            )
        mean = 0.5 * below + 0.5 * above  # the sum of large numbers may overflow
        K[rows, : rows.stop] = mean
        K[: rows.stop, rows] = mean.T
