"""Relationship matrices as plain numbers in a binary file: GCTA's, plink2's and NumPy's."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError

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
