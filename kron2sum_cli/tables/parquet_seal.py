"""What makes every changed byte of a result table show: hashes in its metadata.

Parquet has a checksum for the data of each page, and none for the rest. The seal covers the columns, the number of
rows and the metadata; the hash of the data covers every byte before the footer. Where the chunks of the columns lie
needs no hash: they fill the file without gaps, in order, as `table_writers` writes them.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

DATA_KEY = b"kron2sum.data"
SEAL_KEY = b"kron2sum.seal"
MAGIC_BYTES = 4

_TAIL_BYTES = 8
_PART_BYTES = 1 << 20


def seals(schema: pa.Schema, rows: Sequence[int], text: bytes, data: str) -> dict[bytes, bytes]:
    """The entries of the metadata that seal a table.

    Parameters
    ----------
    schema : its columns
    rows : of every row group
    text : its metadata
    data : hash of all bytes before the footer, from `new_hash`
    """
    columns = [[field.name, str(field.type), field.nullable] for field in schema]
    content = json.dumps([columns, list(rows), text.decode(errors="backslashreplace"), data])
    return {DATA_KEY: data.encode(), SEAL_KEY: hashlib.sha256(content.encode()).hexdigest().encode()}


def new_hash() -> "hashlib._Hash":
    """An empty hash for the data of a table."""
    return hashlib.sha256()


def check_seal(metadata: pq.FileMetaData, schema: pa.Schema, key: bytes, footer: int) -> None:
    """Check everything but the data.

    Parameters
    ----------
    metadata : of the file
    schema : its columns
    key : of its metadata as text
    footer : where the footer starts, see `footer_start`

    Raises
    ------
    ValueError
        If the file was changed after it was written.
    """
    entries = metadata.metadata or {}
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    expected = seals(schema, [group.num_rows for group in groups], entries[key], entries.get(DATA_KEY, b"").decode())
    if any(entries.get(name) != value for name, value in expected.items()):
        raise ValueError("its seal does not fit")
    place = MAGIC_BYTES
    for group in groups:
        for column in (group.column(i) for i in range(group.num_columns)):
            start = column.dictionary_page_offset if column.has_dictionary_page else column.data_page_offset
            if start != place or column.num_values != group.num_rows:
                raise ValueError("its columns do not lie where they should")
            place += column.total_compressed_size
    if place != footer or metadata.num_rows != sum(group.num_rows for group in groups):
        raise ValueError("its columns do not fill it")


def check_data(file: BinaryIO, metadata: pq.FileMetaData) -> None:
    """Read all data of a file and compare them with their hash.

    Raises
    ------
    ValueError
        If they differ.
    """
    left = footer_start(file)
    file.seek(0)
    digest = new_hash()
    while left > 0 and (part := file.read(min(left, _PART_BYTES))):
        digest.update(part)
        left -= len(part)
    if digest.hexdigest().encode() != metadata.metadata[DATA_KEY]:
        raise ValueError("its data are not those of its hash")


def footer_start(file: BinaryIO) -> int:
    """Where the footer of an open Parquet file begins."""
    end = file.seek(-_TAIL_BYTES, 2)
    return end - int.from_bytes(file.read(MAGIC_BYTES), "little")
