"""What identifies a file: its name, size and a hash of its content."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass

from kron2sum_cli.errors import InputError

WHOLE_BYTES = 64 << 20
"""Up to this size the whole file is hashed; of a larger one its size and `PARTS` evenly spaced parts."""
PARTS = 64
PART_BYTES = 1 << 20


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
    scan of a huge file does not read it twice.

    Raises
    ------
    InputError
        Where the file cannot be read.
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
