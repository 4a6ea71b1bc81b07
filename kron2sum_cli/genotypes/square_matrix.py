"""Relationship matrices as plain numbers in a binary file: GCTA's, plink2's and NumPy's."""

import csv
import gzip
import os
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.files.inputs import GZIP_MAGIC, most_unpacked, suspicious
from kron2sum_cli.files.samples import Samples
from kron2sum_cli.files.text import Row, find_delimiter, parse_number

MOST_CHARACTERS = 1 << 27
"""Characters of a line; a longer one is a mistake, or a compressed file made to fill the memory."""


def stream_rows(path: str) -> Iterator[Row]:
    """The rows of a text file, gzip-compressed or not, that are not blank.

    The delimiter is told from the first line: tab, else comma (with the quoting of CSV), else white space.

    Raises
    ------
    InputError : the file cannot be read, or is not text
    """
    try:
        with open(path, "rb") as binary:
            compressed = binary.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        opener = gzip.open if compressed else open
        most = most_unpacked(os.path.getsize(path)) if compressed else sys.maxsize
        with opener(path, "rt", encoding="utf-8-sig", newline=None) as file:
            yield from _split(file, path, most)
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error, csv.Error):
        raise InputError(f"{path} is not readable as text; check that it is the file you mean") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check the path") from None


def _split(lines: Any, path: str, most: int) -> Iterator[Row]:
    delimiter = ""
    for number, line in enumerate(iter(partial(lines.readline, MOST_CHARACTERS), ""), 1):
        if "\0" in line or len(line) == MOST_CHARACTERS:
            what = "is longer than any matrix needs" if "\0" not in line else "has a NUL byte, so the file looks binary"
            raise InputError(f"{path}, line {number}: {what}; check that it is the file you mean")
        most -= len(line)
        if most < 0:
            raise suspicious(path)
        if not line.strip():
            continue
        delimiter = delimiter or find_delimiter(line)
        if delimiter == " ":
            fields = line.split()
        elif '"' in line:
            fields = next(csv.reader([line.rstrip("\n")], delimiter=delimiter, strict=True))
        else:
            fields = line.rstrip("\n").split(delimiter)
        yield Row(number, tuple(fields))


def numbers(row: Row, skipped: int, path: str) -> NDArray[np.float64]:
    """The fields of a row, without the first ``skipped``, as numbers.

    Raises
    ------
    InputError : one is not a number
    """
    fields = row.fields[skipped:]
    joined = "".join(fields)
    if "_" not in joined and joined.isascii():  # numpy takes what Python takes, see parse_number
        try:
            return np.array(fields, dtype=np.float64)
        except ValueError:
            pass
    column, value = next((i, v) for i, v in enumerate(row.fields) if i >= skipped and not is_number(v))
    raise InputError(f"{path}, line {row.line}, column {column + 1}: {value!r} is not a number")


def is_number(field: str) -> bool:
    """Whether a field reads as a number (NaN and infinity included)."""
    try:
        parse_number(field)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class TextSquare:
    """An n x n matrix in text without names.

    Attributes
    ----------
    path : the file
    n : rows
    lower : whether line i holds i numbers, the lower triangle with the diagonal
    """

    path: str
    n: int
    lower: bool

    def lines(self) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """The rows one by one, each with its position.

        Raises
        ------
        InputError : a line is too short or too long, holds something else than numbers, or there are too
            few or too many
        """
        found = 0
        for i, row in enumerate(stream_rows(self.path)):
            found = i + 1
            wanted = i + 1 if self.lower else self.n
            if len(row.fields) != wanted and found <= self.n:
                raise InputError(
                    f"{self.path}, line {row.line}: {len(row.fields)} numbers where {wanted} are expected; "
                    "is the file cut short?"
                )
            if found <= self.n:
                yield i, numbers(row, 0, self.path)
        if found != self.n:
            raise InputError(f"{self.path} has {found} rows, but {self.n} samples; name each row once")


def open_text_square(path: str, first_row: Sequence[str], ids: str, n: int) -> TextSquare:
    """A matrix in text of the n samples listed in ``ids``, square or lower triangle.

    Raises
    ------
    InputError : its first row has neither n numbers nor one
    """
    if len(first_row) not in {1, n}:
        raise InputError(
            f"{path} has {len(first_row)} columns, but {ids} lists {n} samples; they do not belong together"
        )
    return TextSquare(path, n, lower=len(first_row) < n)


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


NUMPY_MAGIC = b"\x93NUMPY"
_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True)
class BinarySquare:
    """An n x n matrix, row by row.

    Attributes
    ----------
    path : the file
    n : rows
    lower : whether only the lower triangle with the diagonal is there
    dtype : of a number
    offset : bytes before the first number
    """

    path: str
    n: int
    lower: bool
    dtype: np.dtype[Any]
    offset: int = 0

    @property
    def expected_bytes(self) -> int:
        """Bytes of the whole file."""
        numbers = self.n * (self.n + 1) // 2 if self.lower else self.n * self.n
        return self.offset + numbers * self.dtype.itemsize

    def lines(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """The rows one by one, each with its position."""
        with open(self.path, "rb", buffering=_BUFFER_BYTES) as file:
            file.seek(self.offset)
            for i in range(self.n):
                wanted = (i + 1 if self.lower else self.n) * self.dtype.itemsize
                data = file.read(wanted)
                if len(data) < wanted:
                    raise InputError(f"{self.path} ends in row {i + 1}; did another program change it?")
                yield i, np.frombuffer(data, self.dtype)


def open_gcta(path: str, ids: str, n: int) -> BinarySquare:
    """GCTA's ``.grm.bin``: the lower triangle in single precision.

    Raises
    ------
    InputError : its size does not fit n samples
    """
    matrix = BinarySquare(path, n, lower=True, dtype=np.dtype("<f4"))
    found = os.path.getsize(path)
    if found != matrix.expected_bytes:
        fitting = int((np.sqrt(8 * (found // 4) + 1) - 1) / 2)
        exactly = fitting * (fitting + 1) * 2 == found
        raise InputError(
            f"{path} has {found} bytes, but the lower triangle of the {n} samples in {ids} takes "
            f"{matrix.expected_bytes}; the file has {f'{fitting} samples' if exactly else 'been cut short'} "
            "or does not belong to these names"
        )
    return matrix


def open_plink2_binary(path: str, ids: str, n: int) -> BinarySquare:
    """plink2's ``.rel.bin``: square or lower triangle, in double or single precision, told by its size.

    Raises
    ------
    InputError : its size does not fit n samples
    """
    found = os.path.getsize(path)
    layouts = [BinarySquare(path, n, lower, np.dtype(number)) for number in ("<f8", "<f4") for lower in (False, True)]
    for matrix in layouts:
        if matrix.expected_bytes == found:
            return matrix
    sizes = ", ".join(str(matrix.expected_bytes) for matrix in layouts)
    raise InputError(
        f"{path} has {found} bytes, but a matrix of the {n} samples in {ids} takes one of {sizes} (square or "
        "triangle, in double or single precision); the file is cut short or does not belong to these names"
    )


def open_npy(path: str, ids: str, n: int) -> BinarySquare:
    """A square array in NumPy's ``.npy``, of whole or floating-point numbers.

    Raises
    ------
    InputError : it is not such an array of n rows and columns, or is cut short
    """
    try:
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, _, dtype = read_header(file)
            offset = file.tell()
    except OSError:
        raise
    except Exception as error:  # numpy raises what Python's own parser meets, too
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path} is not a readable .npy ({reason}); write it again with numpy.save") from None
    if dtype.kind not in "fiu":
        raise InputError(f"{path} holds {dtype} values; save an array of numbers (float64)")
    if shape != (n, n):
        raise InputError(
            f"{path} holds an array of shape {shape}, but {ids} lists {n} samples; the matrix needs one row "
            "and one column for each"
        )
    # The order does not matter: a transposed symmetric matrix is the same.
    matrix = BinarySquare(path, n, lower=False, dtype=dtype, offset=offset)
    found = os.path.getsize(path)
    if found != matrix.expected_bytes:
        raise InputError(f"{path} has {found} bytes, but its header promises {matrix.expected_bytes}; it is cut short")
    return matrix
