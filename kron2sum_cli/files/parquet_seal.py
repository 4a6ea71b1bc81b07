"""What makes every changed byte of a result table show: hashes between its data and its footer.

Parquet has a checksum for the data of each page and none for the rest, and a damaged footer can end the process that
parses it. So the 72 bytes before the footer hold a word, the hash of all bytes before them, and that of the footer;
no reader of Parquet looks there. The footer is compared before it is parsed, the data by ``export --check``.
"""

import hashlib
from typing import BinaryIO

MAGIC = b"PAR1"
WORD = b"kron2sum"

_HASH_BYTES = 32
_SEAL_BYTES = len(WORD) + 2 * _HASH_BYTES
_TAIL_BYTES = 4 + len(MAGIC)
_PART_BYTES = 1 << 20


def new_hash() -> "hashlib._Hash":
    """An empty hash."""
    return hashlib.sha256()


def seal(data_hash: bytes, footer: bytes) -> bytes:
    """The bytes to write between the data, of which this is the hash, and the footer (all that comes behind them)."""
    return WORD + data_hash + hashlib.sha256(footer).digest()


def check_footer(file: BinaryIO) -> None:
    """Check that a file ends as it was written.

    Parameters
    ----------
    file : a Parquet file, seekable

    Raises
    ------
    ValueError
        If the end is missing, is not sealed, or was changed; it says which.
    """
    found, footer = _end(file)
    if found[: len(WORD)] != WORD:
        raise ValueError("is a Parquet file, but not one of kron2sum scan")
    if found[-_HASH_BYTES:] != hashlib.sha256(footer).digest():
        raise ValueError("its footer was changed or damaged")


def check_data(file: BinaryIO) -> None:
    """Read a file with a sound footer to the end, and compare its data with their hash.

    Raises
    ------
    ValueError
        If they differ.
    """
    found, footer = _end(file)
    left = file.seek(0, 2) - len(footer) - _SEAL_BYTES
    file.seek(0)
    digest = new_hash()
    while left > 0 and (part := file.read(min(left, _PART_BYTES))):
        digest.update(part)
        left -= len(part)
    if found[len(WORD) : -_HASH_BYTES] != digest.digest():
        raise ValueError("its data were changed or damaged")


def _end(file: BinaryIO) -> tuple[bytes, bytes]:
    """The seal, and what comes behind it."""
    size = file.seek(0, 2)
    file.seek(max(size - _TAIL_BYTES, 0))
    tail = file.read(_TAIL_BYTES)
    start = size - _TAIL_BYTES - int.from_bytes(tail[:4], "little")
    if tail[4:] != MAGIC or start < len(MAGIC):
        raise ValueError("its end is missing or damaged: it was copied or written only in part")
    file.seek(max(start - _SEAL_BYTES, 0))
    end = file.read()
    return end[: -(size - start)], end[-(size - start) :]
