"""Arrow arrays straight from the memory of numpy arrays and from texts.

``pyarrow.array`` would do, but it imports pandas at its first call, a fifth of the time of a short scan.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_TYPES = {
    np.dtype(np.float64): pa.float64(),
    np.dtype(np.int32): pa.int32(),
    np.dtype(np.int64): pa.int64(),
}


def numbers(values: NDArray[Any], empty: NDArray[np.bool_] | None = None) -> pa.Array:
    """An array of float64, int32 or int64 without a copy; ``empty`` cells, and NaN, are null."""
    values = np.ascontiguousarray(values)
    if empty is None and values.dtype.kind == "f":
        empty = np.isnan(values)
    bitmap = None
    if empty is not None and empty.any():
        bitmap = pa.py_buffer(np.packbits(~empty, bitorder="little"))
    return pa.Array.from_buffers(_TYPES[values.dtype], len(values), [bitmap, pa.py_buffer(values)])


def flags(values: NDArray[np.bool_]) -> pa.Array:
    """An array of true and false."""
    bits = pa.py_buffer(np.packbits(values, bitorder="little"))
    return pa.Array.from_buffers(pa.bool_(), len(values), [None, bits])


def texts(values: Sequence[str]) -> pa.Array:
    """An array of strings."""
    encoded = [value.encode() for value in values]
    offsets = np.zeros(len(encoded) + 1, dtype=np.int32)
    np.cumsum([len(value) for value in encoded], out=offsets[1:])
    return pa.StringArray.from_buffers(len(encoded), pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded)))
