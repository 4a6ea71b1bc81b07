"""Square relationship matrices as they are stored: in text, in binary files, in GCTA's list of pairs."""

import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.files.inputs import open_text
from kron2sum_cli.files.samples import Samples
from kron2sum_cli.files.text import numbers_of_row, stream_rows

TILE = 512
"""Rows and columns of a large matrix that are worked on at once."""

LARGEST_ASYMMETRY = 1e-5
"""Largest difference of two opposite entries, relative to the largest entry, that still counts as rounding."""


@dataclass(frozen=True)
class StoredSquare:
    """An n x n matrix in a file.

    Row i holds n numbers, or where it is ``lower`` i + 1, the lower triangle with the diagonal. ``lines`` reads the
    rows one by one, each with its position, and raises InputError where the file is cut short, changed or damaged, or
    has other rows than it should.
    """

    lower: bool
    lines: Callable[[], Iterator[tuple[int, NDArray[Any]]]]


def open_text_square(path: str, ids: str, n: int) -> StoredSquare:
    """A matrix in text of the n samples listed in ``ids``: square, or a triangle, which begins with one number."""
    first = next(stream_rows(path), None)
    width = 0 if first is None else len(first.fields)
    if width not in {1, n}:
        raise InputError(f"{path} has {width} columns, but {ids} lists {n} samples; they do not belong together")
    return StoredSquare(width < n, partial(_lines_of_text, path, n, width < n))


def _lines_of_text(path: str, n: int, lower: bool) -> Iterator[tuple[int, NDArray[np.float64]]]:
    found = 0
    for i, row in enumerate(stream_rows(path)):
        found = i + 1
        wanted = i + 1 if lower else n
        if len(row.fields) != wanted and found <= n:
            raise InputError(
                f"{path}, line {row.line}: {len(row.fields)} numbers where {wanted} are expected; is the file cut"
                " short?"
            )
        if found <= n:
            yield i, numbers_of_row(row, 0, path)
    if found != n:
        raise InputError(f"{path} has {found} rows, but {n} samples; name each row once")


def _lines_of_binary(
    path: str, n: int, lower: bool, dtype: np.dtype[Any], offset: int = 0
) -> Iterator[tuple[int, NDArray[Any]]]:
    with open(path, "rb") as file:
        file.seek(offset)
        for i in range(n):
            wanted = (i + 1 if lower else n) * dtype.itemsize
            row = file.read(wanted)
            if len(row) < wanted:
                raise InputError(f"{path} ends in row {i + 1}; did another program change it?")
            yield i, np.frombuffer(row, dtype)


def open_gcta(path: str, ids: str, n: int) -> StoredSquare:
    """GCTA's ``.grm.bin``, the lower triangle in single precision, of a size that fits n samples; or ``.grm.gz``."""
    if not path.endswith(".bin"):
        return StoredSquare(True, partial(_lines_of_list, path, n))
    found, expected = os.path.getsize(path), n * (n + 1) // 2 * 4
    if found != expected:
        fitting = int((np.sqrt(8 * (found // 4) + 1) - 1) / 2)
        exactly = fitting * (fitting + 1) * 2 == found
        raise InputError(
            f"{path} has {found} bytes, but the lower triangle of the {n} samples in {ids} takes "
            f"{expected}; the file has {f'{fitting} samples' if exactly else 'been cut short'} "
            "or does not belong to these names"
        )
    return StoredSquare(True, partial(_lines_of_binary, path, n, True, np.dtype("<f4")))


def open_plink2(path: str, ids: str, n: int) -> StoredSquare:
    """plink2's ``.rel.bin``, square or lower triangle, in double or single precision, told by its size; or its text."""
    if not path.endswith(".bin"):
        return open_text_square(path, ids, n)
    found = os.path.getsize(path)
    sizes = []
    for dtype in (np.dtype("<f8"), np.dtype("<f4")):
        for lower in (False, True):
            sizes.append((n * (n + 1) // 2 if lower else n * n) * dtype.itemsize)
            if sizes[-1] == found:
                return StoredSquare(lower, partial(_lines_of_binary, path, n, lower, dtype))
    raise InputError(
        f"{path} has {found} bytes, but a matrix of the {n} samples in {ids} takes one of {', '.join(map(str, sizes))}"
        " (square or triangle, in double or single precision); the file is cut short or does not belong to these names"
    )


def open_npy(path: str, ids: str, n: int) -> StoredSquare:
    """A square array of n rows in NumPy's ``.npy``, of whole or floating-point numbers."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy raises what Python's own parser meets, too
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path} is not a readable .npy ({reason}); write it again with numpy.save") from None
    if array.dtype.kind not in "fiu":
        raise InputError(f"{path} holds {array.dtype} values; save an array of numbers (float64)")
    if array.shape != (n, n):
        raise InputError(
            f"{path} holds an array of shape {array.shape}, but {ids} lists {n} samples; the matrix needs one row "
            "and one column for each"
        )
    # The order does not matter: a transposed symmetric matrix is the same.
    return StoredSquare(False, partial(_lines_of_binary, path, n, False, array.dtype, array.offset))


def _lines_of_list(path: str, n: int) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """The rows of GCTA's ``.grm.gz``: a line for each pair of n samples in the lower triangle, in order.

    A line has the positions of two samples (from 1), the number of variants, and the relationship.
    """
    try:
        with open_text(path) as file:
            table = pd.read_csv(file, sep=r"\s+", header=None, dtype=np.float64).to_numpy()
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} is not readable as GCTA's list of pairs ({error})") from None
    if table.shape != (n * (n + 1) // 2, 4):
        raise InputError(
            f"{path} has {len(table)} lines of {table.shape[1]} columns, but {n} samples make "
            f"{n * (n + 1) // 2} lines of 4; the file is cut short or does not belong to these names"
        )
    row, column = np.tril_indices(n)
    wrong = np.flatnonzero((table[:, 0] != row + 1) | (table[:, 1] != column + 1))
    if len(wrong):
        raise InputError(
            f"{path}, line {wrong[0] + 1}: has the pair {table[wrong[0], 0]:g} {table[wrong[0], 1]:g} where "
            f"{row[wrong[0]] + 1} {column[wrong[0]] + 1} is expected; write it again with gcta64 --make-grm-gz"
        )
    yield from enumerate(np.split(table[:, 3], np.cumsum(np.arange(1, n))))


def tiles(n: int) -> Iterator[slice]:
    """The rows of an n x n matrix in slices of `TILE`."""
    for start in range(0, n, TILE):
        yield slice(start, min(start + TILE, n))


def add_outer_product(K: NDArray[np.float64], x: NDArray[np.floating[Any]], threads: int = 1) -> None:
    """Add x xᵀ, computed in the precision of x, to the lower triangle of K; each thread takes other rows.

    K (n, n) is neither read nor written above the diagonal tiles; x (n, b) is in Fortran order.
    """

    def add(rows: slice) -> None:
        K[rows, : rows.stop] += x[rows] @ x[: rows.stop].T

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(add, reversed([*tiles(len(K))])))  # the longest rows first


def mirror_lower(K: NDArray[np.float64]) -> None:
    """Copy the lower triangle of K (n, n) over the upper one."""
    for rows in tiles(len(K)):
        corner = np.tril(K[rows, rows])
        K[rows, rows] = corner + np.tril(corner, -1).T
        K[: rows.start, rows] = K[rows, : rows.start].T


@np.errstate(invalid="ignore", over="ignore")  # what is not finite is refused below
def gather(
    lines: Iterable[tuple[int, NDArray[Any]]],
    lower: bool,
    rows: NDArray[np.intp],
    samples: Samples,
    path: str,
) -> NDArray[np.float64]:
    """Put some rows and columns of a stored symmetric matrix together, exactly symmetric.

    - ``lines``: the N rows of the file in order, each with its position i: i + 1 numbers if ``lower``, else N.
    - ``lower``: whether the file stores the lower triangle only. A file that stores N numbers a row with zeros in place
      of the upper triangle is recognised.
    - ``rows`` (n,): the rows and columns wanted, each once, in the order wanted.
    - ``samples``: the N samples of the file.

    Raises InputError where an entry is not finite, or the matrix is not symmetric to 1e-5 of its largest entry.
    """
    row_of = np.full(len(samples), -1, dtype=np.intp)
    row_of[rows] = np.arange(len(rows))
    in_file_order = np.sort(rows)
    K = np.zeros((len(rows), len(rows)))
    n_seen, one_triangle = 0, True
    for i, values in lines:
        if not lower:
            one_triangle = one_triangle and not values[i + 1 :].any()
        if row_of[i] < 0:
            continue
        n_seen += 1
        if lower:
            earlier = in_file_order[:n_seen]
            K[row_of[i], row_of[earlier]] = values[earlier]
        else:
            K[row_of[i]] = values[rows]
    analysed = samples.take(rows)
    if one_triangle:
        _add_transpose(K)
    _refuse_not_finite(K, analysed, path)
    if not one_triangle:
        _symmetrise(K, analysed, path)
    return K


def refuse_empty_diagonal(K: NDArray[np.float64], samples: Samples, path: str) -> None:
    """Raise InputError where a sample is related to others (n, n) and not to itself."""
    empty = np.flatnonzero(K.diagonal() <= 0)
    empty = empty[np.abs(K[empty]).max(axis=1, initial=0.0) > 0]
    if len(empty):
        i = int(empty[0])
        raise InputError(
            f"{path}: sample '{samples.label(i)}' has {K[i, i]:g} on the diagonal ({len(empty)} of {len(K)} samples "
            "have 0 or less), where a relationship matrix has about 1, and kinship 0.5: fill the diagonal in if it was "
            "left out; if these are distances, give similarities, such as 1 - distance"
        )


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
        mean = (below + above) / 2
        K[rows, : rows.stop] = mean
        K[: rows.stop, rows] = mean.T
