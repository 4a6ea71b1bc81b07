"""Uncompressed ``.npz`` archives without pickles, written and read in one pass; `numpy.load` opens them, too."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.files.outputs import Abandonable

_NO_TIME = (1980, 1, 1, 0, 0, 0)
_STRETCH_BYTES = 1 << 20


class NpzWriter:
    """Writes arrays one after the other; the same arrays make the same bytes, whether the file can seek or not."""

    def __init__(self, file: BinaryIO) -> None:
        self._sink = Abandonable(file)
        self._archive = zipfile.ZipFile(self._sink, "w", zipfile.ZIP_STORED, allowZip64=True)

    def write(self, name: str, array: NDArray[Any]) -> None:
        """Add an array."""
        with self._archive.open(zipfile.ZipInfo(name + ".npy", date_time=_NO_TIME), "w", force_zip64=True) as member:
            np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)

    def close(self) -> None:
        """Write the end of the archive."""
        self._archive.close()

    def abandon(self) -> None:
        """Write no more, not even the end that `zipfile` writes when it is destroyed; nothing to do after the end."""
        self._sink.abandoned = True


class NpzReader:
    """Arrays of an archive, whose sizes are checked before memory is taken for them, and each by its checksum.

    Every method raises what the parsers of zipfile and numpy raise, or ValueError, where the archive is damaged.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._archive = zipfile.ZipFile(file)

    def __contains__(self, name: str) -> bool:
        return name + ".npy" in self._archive.NameToInfo

    def names(self, prefix: str) -> list[str]:
        """Names of the arrays that begin with a prefix."""
        return [name.removesuffix(".npy") for name in self._archive.NameToInfo if name.startswith(prefix)]

    def array(self, name: str, *shape: int | None) -> NDArray[np.float64]:
        """An array of doubles of this shape; None stands for any length, and no shape for any."""
        with self._open(name, "f") as (member, found, fortran, dtype):
            fits = len(found) == len(shape) and all(w in (None, n) for w, n in zip(shape, found, strict=True))
            if shape and not fits:
                raise ValueError(f"{name} has the shape {found}")
            values = np.frombuffer(bytearray(member.read()), dtype)
            return values.reshape(found, order="F" if fortran else "C")

    def matrix(self, name: str, shape: tuple[int, int], dtype: type[np.floating], spare: int) -> NDArray[np.floating]:
        """A matrix (n, m) of doubles in another precision, transposed, with ``spare`` rows behind it: (m + spare, n).

        It is converted a few rows at a time, for a copy of it in double precision may not fit the memory.
        """
        n, m = shape
        with self._open(name, "f") as (member, found, fortran, stored), np.errstate(over="ignore"):
            if found != shape:
                raise ValueError(f"{name} has the shape {found}")
            rows = np.empty((m + spare, n), dtype)
            as_stored = rows[:m] if fortran else rows[:m].T
            step = max(_STRETCH_BYTES // (8 * max(as_stored.shape[1], 1)), 1)
            for start in range(0, len(as_stored), step):
                part = as_stored[start : start + step]
                part[:] = np.frombuffer(member.read(8 * part.size), stored).reshape(part.shape)
        return rows

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts."""
        with self._open(name, "U") as (member, found, _, dtype):
            return tuple(np.frombuffer(member.read(), dtype).reshape(found).tolist()) if found != (0,) else ()

    def text(self, name: str) -> str:
        """One text."""
        with self._open(name, "U") as (member, _, _, dtype):
            return str(np.frombuffer(member.read(), dtype)[0])

    @contextmanager
    def _open(self, name: str, kind: str) -> Iterator[tuple[IO[bytes], tuple[int, ...], bool, np.dtype[Any]]]:
        """The bytes of an array, its shape, whether they are in Fortran order, and its type; the sizes agree."""
        if name not in self:
            raise ValueError(f"{name} is missing")
        info = self._archive.NameToInfo[name + ".npy"]
        with self._archive.open(info) as member:
            version = np.lib.format.read_magic(member)
            reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = reader(member)
            size = int(np.prod(shape, dtype=object)) * dtype.itemsize
            if dtype.kind != kind or (kind == "f" and dtype != np.float64) or member.tell() + size != info.file_size:
                raise ValueError(f"{name} is of type {dtype} and shape {shape}, which does not fit its size")
            yield member, shape, fortran, dtype
