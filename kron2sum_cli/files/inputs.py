"""Opening what is read from beginning to end: files, standard input, pipes, also with gzip or Zstandard."""

import gzip
import io
import os
import stat
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import BinaryIO

from kron2sum_cli.errors import InputError

GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
"""First bytes of compressed files."""

SECONDS_FOR_WRITER = 10.0
"""A named pipe is given up when nobody has opened it for writing by then."""

_PIECE_BYTES = 1 << 24
_MOST_TIMES = 100
_UNSUSPICIOUS_BYTES = 1 << 28
"""A compressed file may unpack to so many times its size, and to so many bytes in any case."""


def display_name(path: str) -> str:
    """The name of a file in messages: ``standard input`` for ``-``, else the path."""
    return "standard input" if path == "-" else path


def open_input(path: str, remedy: str = "check the path") -> AbstractContextManager[BinaryIO]:
    """A file, ``-`` or a pipe, open for reading.

    Parameters
    ----------
    path : the file
    remedy : what to do where there is no such file

    Raises
    ------
    InputError : the file is missing, a directory or unreadable, or a named pipe that nobody writes to
    """
    if path == "-":
        if sys.stdin is None:
            raise InputError("-: standard input is closed; name a file")
        return nullcontext(sys.stdin.buffer)
    try:
        return _open_pipe(path) if _is_pipe(path) else open(path, "rb")
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
    """The content of a file, without gzip compression (Zstandard is for `read_text`).

    Of a file with NUL bytes, which is no text, perhaps only the beginning.

    Raises
    ------
    InputError : it cannot be opened or read, or is damaged compressed data, or unpacks to far more than text does
    """
    try:
        with open_input(path) as file:
            start = file.read(len(ZSTD_MAGIC))
            if not start.startswith(GZIP_MAGIC) and start != ZSTD_MAGIC:
                return b"".join(_pieces(file, start))
            packed = start + file.read()
    except OSError as error:
        raise unreadable(display_name(path), error) from None
    return packed if start == ZSTD_MAGIC else _unpacked(packed, display_name(path))


def _is_pipe(path: str) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except OSError:
        return False


def _open_pipe(path: str) -> BinaryIO:
    """Open a pipe, which waits until somebody writes to it: in a thread, to be able to give up."""
    opened: list[BinaryIO] = []
    thread = threading.Thread(target=lambda: opened.append(open(path, "rb")), daemon=True)  # noqa: SIM115
    thread.start()
    thread.join(SECONDS_FOR_WRITER)
    if opened:
        return opened[0]
    os.close(os.open(path, os.O_RDWR))  # for a moment a writer, so that the thread ends
    thread.join()
    opened[0].close()
    raise InputError(f"{path} is a pipe that nobody writes to; start the program that writes it, or give a file")


def _pieces(file: BinaryIO | gzip.GzipFile, start: bytes = b"") -> Iterator[bytes]:
    """What a file holds, up to the piece with its first NUL byte: a device may have no end."""
    piece = start
    while piece:
        yield piece
        piece = b"" if b"\0" in piece else file.read(_PIECE_BYTES)


def most_unpacked(packed_bytes: int) -> int:
    """To how many bytes a compressed file of this size may unpack: text is not much denser than its entropy."""
    return max(_MOST_TIMES * packed_bytes, _UNSUSPICIOUS_BYTES)


def suspicious(name: str) -> InputError:
    """The message for a compressed file that unpacks to more."""
    return InputError(f"{name} unpacks to more than {_MOST_TIMES} times its size; if that is right, give it unpacked")


def _unpacked(packed: bytes, name: str) -> bytes:
    left = most_unpacked(len(packed))
    pieces: list[bytes] = []
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
            for piece in _pieces(file, file.read(_PIECE_BYTES)):
                pieces.append(piece)
                left -= len(piece)
                if left < 0:
                    raise suspicious(name)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{name} is damaged gzip data ({error}); copy or compress the file again") from None
    return b"".join(pieces)
