"""Uncompressed ``.npz`` archives without pickles: written in one pass, read with every claim checked first."""

import json
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError

_TIMELESS = (1980, 1, 1, 0, 0, 0)
_TYPES = {"f": np.dtype("<f8"), "U": np.dtype("<U0")}
_END_BYTES, _END_MARK = 22, b"PK\5\6"
"""The last record of an archive without a comment, and how it begins."""
_STRETCH_BYTES = 1 << 20
_MOST_TEXT = 1 << 28
"""Bytes of a JSON text; numpy keeps four a character."""


class ArchiveWriter:
    """Writes arrays one after the other; the same arrays make the same bytes, whether the file can seek or not."""

    def __init__(self, file: BinaryIO) -> None:
        self._sink = _Sink(file)
        self._archive = zipfile.ZipFile(self._sink, "w", zipfile.ZIP_STORED, allowZip64=True)

    def write(self, name: str, array: NDArray[Any]) -> None:
        """Add an array."""
        info = zipfile.ZipInfo(name + ".npy", date_time=_TIMELESS)
        with self._archive.open(info, "w", force_zip64=True) as member:
            np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)

    def close(self) -> None:
        """Write the end of the archive."""
        self._archive.close()

    def abandon(self) -> None:
        """Write no more, not even the end that `zipfile` writes when it is destroyed; nothing to do after the end."""
        self._sink.abandoned = True


class _Sink:
    """A file that zipfile cannot seek in, and that takes nothing once it is abandoned."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.abandoned = False

    def write(self, data: Any) -> int:
        if not self.abandoned:
            try:
                self._file.write(data)
            except BaseException:
                self.abandoned = True  # else `zipfile` would go on when it is destroyed
                raise
        return memoryview(data).nbytes

    def flush(self) -> None:
        if not self.abandoned:
            self._file.flush()

    def close(self) -> None:
        """The owner of the file closes it."""


class ArchiveReader:
    """Arrays of an archive, each checked before memory is taken for it.

    Parameters
    ----------
    file : an open file that can seek
    name : of it, for messages
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.name = name
        self._bytes = file.seek(0, 2)
        try:
            self._archive = zipfile.ZipFile(file)
        except OSError:
            raise
        except Exception as error:  # zipfile raises what its parser meets: ValueError, struct.error, ...
            raise InputError(
                f"{name}: is not a null model, or is cut short or damaged; make it with kron2sum fit ({error})"
            ) from error
        file.seek(-_END_BYTES, os.SEEK_END)
        if file.read(len(_END_MARK)) != _END_MARK:
            raise self.damaged("something was added behind its end")

    def __contains__(self, key: str) -> bool:
        return key + ".npy" in self._archive.NameToInfo

    def names(self, prefix: str) -> list[str]:
        """All keys that begin so."""
        return [name.removesuffix(".npy") for name in self._archive.NameToInfo if name.startswith(prefix)]

    def damaged(self, reason: object) -> InputError:
        """The message for an archive that does not hold what it should."""
        return InputError(f"{self.name}: is not a null model of kron2sum fit, or is damaged ({reason}); fit it again")

    def matrix(self, key: str, shape: tuple[int, int], dtype: type[np.floating], spare: int) -> NDArray[np.floating]:
        """A matrix (n, m) of floats in another precision, transposed (m, n), with some rows to spare behind it.

        It is read a few columns at a time, for a copy of it in double precision may not fit the memory.
        """
        info, (n, m) = self._member(key), shape
        step = max(_STRETCH_BYTES // (8 * max(n, 1)), 1)
        with self._parsing(key), self._archive.open(info) as member, np.errstate(over="ignore"):
            found, fortran = self._check_header(member, info.file_size, key, "f")
            if found != shape:
                raise self.damaged(f"{key} has the shape {found}")
            rows = np.empty((m + spare, n), dtype)
            columns = rows[:m].T
            if not fortran and min(n, m) > 1:
                columns[:] = self.array(key)
                return rows
            for start in range(0, m, step):
                part = columns[:, start : start + step]
                content = np.frombuffer(member.read(8 * part.size), _TYPES["f"])
                part[:] = content.reshape(part.shape, order="F")
            member.read(1)  # the checksum is compared at the end
        return rows

    def array(self, key: str, kind: str = "f", shape: tuple[int | None, ...] | None = None) -> NDArray[Any]:
        """One array: float64 ("f") or text ("U"), of this shape (None: any length; no shape: any)."""
        info = self._member(key)
        with self._parsing(key):
            with self._archive.open(info) as member:
                self._check_header(member, info.file_size, key, kind)
            with self._archive.open(info) as member:
                value = np.lib.format.read_array(member, allow_pickle=False)
                member.read(1)  # the checksum is compared at the end
        wanted = shape if shape is not None else (None,) * value.ndim
        if value.ndim != len(wanted) or any(w not in (None, size) for w, size in zip(wanted, value.shape, strict=True)):
            raise self.damaged(f"{key} has the shape {value.shape}")
        return value

    @contextmanager
    def _parsing(self, key: str) -> Iterator[None]:
        """Whatever the parsers of zipfile and numpy raise says that the archive is damaged."""
        try:
            yield
        except (InputError, OSError, MemoryError):
            raise
        except Exception as error:
            raise self.damaged(f"{key}: {error}") from error

    def texts(self, key: str, number: int | None = None) -> tuple[str, ...]:
        """A list of texts, of this length."""
        try:
            found = tuple(self.array(key, "U", (number,)).tolist())
            "".join(found).encode()
        except ValueError as error:
            raise self.damaged(f"{key}: {error}") from error
        return found

    def text(self, key: str) -> str:
        """A text."""
        return str(self.array(key, "U", ()))

    def json(self, key: str) -> Any:
        """What a JSON text says."""
        try:
            found = json.loads(str(self.array(key, "U", ())), parse_constant=_refuse_constant)
            json.dumps(found, ensure_ascii=False).encode()  # no lone surrogates
            return found
        except (ValueError, RecursionError) as error:
            raise self.damaged(f"{key}: {error}") from error

    def _member(self, key: str) -> zipfile.ZipInfo:
        info = self._archive.NameToInfo.get(key + ".npy")
        if info is None:
            raise self.damaged(f"{key} is missing")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise self.damaged(f"{key} is compressed")
        if info.header_offset + info.file_size > self._bytes:
            raise self.damaged(f"{key} claims {info.file_size} bytes")
        return info

    def _check_header(self, member: Any, size: int, key: str, kind: str) -> tuple[tuple[int, ...], bool]:
        """Shape, and whether in Fortran order; refuse another type, or one that claims more bytes than the file has."""
        version = np.lib.format.read_magic(member)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = reader(member)
        wanted = _TYPES[kind]
        if dtype.kind != kind or dtype.byteorder != wanted.byteorder or (kind == "f" and dtype != wanted):
            raise self.damaged(f"{key} has the type {dtype}")
        claimed = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if any(n < 0 for n in shape) or claimed > size or (kind == "U" and not shape and claimed > _MOST_TEXT):
            raise self.damaged(f"{key} claims {shape} of {dtype}")
        return shape, fortran


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is no number")
