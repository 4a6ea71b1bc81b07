"""Opening what is read from beginning to end: files, standard input, pipes, compressed or not."""

import gzip
import sys
import zlib
from contextlib import AbstractContextManager, nullcontext
from typing import BinaryIO

import pyarrow as pa

from kron2sum_cli.errors import InputError

GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
"""First bytes of compressed files."""

_FIRST_BYTES = 1 << 24


def display_name(path: str) -> str:
    """The name of a file in messages: ``standard input`` for ``-``, else the path."""
    return "standard input" if path == "-" else path


def open_input(path: str, remedy: str = "check the path") -> AbstractContextManager[BinaryIO]:
    """A file, ``-`` or a pipe, open for reading.

    Parameters
    ----------
    path : str
        The file.
    remedy : str
        What to do where there is no such file.

    Raises
    ------
    InputError
        The file is missing, a directory or unreadable.
    """
    if path == "-":
        if sys.stdin is None:
            raise InputError("-: standard input is closed; name a file")
        return nullcontext(sys.stdin.buffer)
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; {remedy}") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a directory; give a file in it") from None
    except PermissionError:
        raise InputError(f"{path} may not be read; check its permissions") from None
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(name: str, error: OSError) -> InputError:
    """The message for a failure of the system to read a file."""
    return InputError(f"{name} cannot be read ({error.strerror or error}); check the disk and the path")


def read_bytes(path: str) -> bytes:
    """The content of a file, decompressed; of one with NUL bytes, which is no text, perhaps only the beginning.

    Raises
    ------
    InputError
        It cannot be opened or read, or is damaged compressed data.
    """
    name = display_name(path)
    try:
        with open_input(path) as file:
            data = file.read(_FIRST_BYTES)
            packed = data.startswith((GZIP_MAGIC, ZSTD_MAGIC))
            if packed or b"\0" not in data:
                data += file.read()
    except OSError as error:
        raise unreadable(name, error) from None
    if not packed:
        return data
    kind = "gzip" if data.startswith(GZIP_MAGIC) else "Zstandard"
    try:
        return gzip.decompress(data) if kind == "gzip" else _from_zstandard(data)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{name} is damaged {kind} data ({error}); copy or compress the file again") from None


def _from_zstandard(data: bytes) -> bytes:
    with pa.input_stream(pa.BufferReader(data), compression="zstd") as stream:
        return bytes(stream.read())
