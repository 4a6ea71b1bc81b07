"""Input files, standard input and pipes, compressed or not: how they are opened, read and identified."""

import codecs
import gzip
import hashlib
import io
import os
import shutil
import sys
import zlib
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import BinaryIO, TextIO

import pyarrow as pa

from kron2sum_cli.errors import InputError

GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
"""First bytes of compressed files."""

HEAD_BYTES = 512
"""How much of a file `describe` looks at."""

_FIRST_BYTES = 1 << 24

WHOLE_BYTES = 64 << 20
"""Up to this size the whole file is hashed; of a larger one its size and `PARTS` evenly spaced parts."""
PARTS = 64
PART_BYTES = 1 << 20


def display_name(path: str) -> str:
    """The name of a file in messages: ``standard input`` for ``-``, else the path."""
    return "standard input" if path == "-" else path


def open_input(path: str, remedy: str = "check the path") -> AbstractContextManager[BinaryIO]:
    """A file, ``-`` or a pipe, open for reading; the remedy is for a message that there is no such file.

    Raises InputError where the file is missing, a directory or unreadable.
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


def describe(head: bytes) -> str:
    """What a file is by its first `HEAD_BYTES` bytes, in words."""
    if head[:4] == b"PAR1":
        return "a Parquet file"
    if head[:2] == b"PK":
        return "a zip archive (as a null model is)"
    if head[:3] in (b"\x6c\x1b\x01", b"\x6c\x1b\x00"):
        return "a PLINK .bed file"
    if compression_of(head) is not None:
        return f"compressed with {compression_of(head)}"
    if not head:
        return "empty"
    return "text" if _is_text(head) else "a file of another kind"


def _is_text(head: bytes) -> bool:
    """Whether bytes are the beginning of a text: UTF-8 without control characters."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # its last character may be cut
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\t\r\n\ufeff" for character in text)


def compression_of(head: bytes) -> str | None:
    """How a file is compressed, by its first bytes: gzip, Zstandard, or None for not."""
    if head.startswith(GZIP_MAGIC):
        return "gzip"
    return "Zstandard" if head.startswith(ZSTD_MAGIC) else None


def copy_decompressed(file: BinaryIO, into: BinaryIO, name: str) -> None:
    """Copy the content of a file compressed with gzip or Zstandard, and go to the beginning of the copy.

    Raises InputError where the file, called ``name``, is damaged.
    """
    with open(os.dup(file.fileno()), "rb") as source:
        source.seek(0)
        _decompress(source, str(compression_of(source.peek(HEAD_BYTES))), into, name)
    into.seek(0)


def open_text(path: str) -> TextIO:
    """Open a text file, decompressed where its first bytes say that it is compressed."""
    with open(path, "rb") as binary:
        kind = compression_of(binary.read(len(ZSTD_MAGIC)))
    encoding = "utf-8-sig"
    if kind is None:
        return open(path, encoding=encoding)
    if kind == "gzip":
        return gzip.open(path, "rt", encoding=encoding)
    return io.TextIOWrapper(io.BufferedReader(pa.input_stream(path, compression="zstd")), encoding)


def read_bytes(path: str) -> bytes:
    """The content of a file, decompressed. Of a file with NUL bytes, which is no text, it may be the beginning only.

    Raises InputError where it cannot be opened or read, or is damaged compressed data.
    """
    name = display_name(path)
    try:
        with open_input(path) as file:
            data = file.read(_FIRST_BYTES)
            kind = compression_of(data)
            if kind is not None or b"\0" not in data:
                data += file.read()
    except OSError as error:
        raise unreadable(name, error) from None
    if kind is None:
        return data
    content = io.BytesIO()
    _decompress(io.BytesIO(data), kind, content, name)
    return content.getvalue()


def _decompress(source: BinaryIO, kind: str, into: BinaryIO, name: str) -> None:
    try:
        content = gzip.GzipFile(fileobj=source) if kind == "gzip" else pa.input_stream(source, compression="zstd")
        shutil.copyfileobj(content, into)
    except (OSError, EOFError, zlib.error) as error:
        if getattr(error, "errno", None) is not None:  # of the disk, not of the content
            raise
        raise InputError(f"{name} is damaged {kind} data ({error}); copy or compress the file again") from None


@dataclass(frozen=True)
class FileRecord:
    """What identifies a file: its name without the folder, its size in bytes, and a hash.

    The hash is SHA-256 of the size and of the bytes, or of a large file of `PARTS` parts, in hexadecimal digits.
    """

    name: str
    size: int
    hash: str


def file_record(path: str) -> FileRecord:
    """The record of a file.

    All bytes are hashed up to `WHOLE_BYTES`; of a larger file `PARTS` parts from the first byte to the last, so that a
    scan of a huge file does not read it twice. Raises InputError where the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.sha256(str(size).encode())
            if size <= WHOLE_BYTES:
                while part := file.read(PART_BYTES):
                    digest.update(part)
            else:
                for i in range(PARTS):
                    file.seek(i * (size - PART_BYTES) // (PARTS - 1))
                    digest.update(file.read(PART_BYTES))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    return FileRecord(os.path.basename(path), size, digest.hexdigest())


def file_records(paths: Iterable[str]) -> tuple[FileRecord, ...]:
    """Records of the files that can be read again (not of standard input, pipes and devices)."""
    return tuple(file_record(path) for path in paths if path != "-" and os.path.isfile(path))
