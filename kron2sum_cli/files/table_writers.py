"""Rows of Arrow batches into Parquet, delimited text or JSON, as they come and in bounded memory."""

import gzip
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kron2sum_cli.files.outputs import Abandonable, atomic_output
from kron2sum_cli.files.text import EMPTY_CELL
from kron2sum_cli.option_values import split_suffix

SEPARATORS = {"tsv": "\t", "csv": ","}

FOOTER_WORD = b"kron2sum"
_CELLS_IN_GROUP = 1 << 19
LARGEST_GROUP, _SMALLEST_GROUP = 1 << 16, 1 << 10
_COMPRESSION_LEVEL = 1
_TEXT_ROWS = 1 << 13


@contextmanager
def compressed_output(path: str, gzip_level: int = 6) -> Iterator[BinaryIO]:
    """`atomic_output`, compressed where the name ends in ``.gz`` or ``.zst``.

    The same content gives the same bytes: no name and no time is written. When the block ends by an exception, nothing
    that would look like the end of a compressed file is written.
    """
    compression = split_suffix(path)[1]
    with atomic_output(path) as file:
        if not compression:
            yield file
            return
        into = Abandonable(file)
        packed: Any = (
            gzip.GzipFile(filename="", mode="wb", fileobj=into, mtime=0, compresslevel=gzip_level)
            if compression == ".gz"
            else pa.CompressedOutputStream(pa.PythonFile(into, mode="w"), "zstd")
        )
        try:
            yield packed
            packed.close()
        except BaseException:
            into.abandoned = True
            packed.close()
            raise


class TableWriter:
    """What takes the rows of a table, in order."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows."""
        raise NotImplementedError

    def close(self) -> None:
        """Write what is left, if anything is."""

    def abandon(self) -> None:
        """Write no more, not even what would make the file look complete; nothing to do after the end."""


def rows_in_group(schema: pa.Schema) -> int:
    """Rows of a Parquet row group: a function of the number of columns alone, so that shards agree."""
    rows = _CELLS_IN_GROUP // max(len(schema), 1)
    return min(max(1 << (rows.bit_length() - 1), _SMALLEST_GROUP), LARGEST_GROUP)


def footer_checksum(footer: bytes) -> bytes:
    """What stands before the footer of a Parquet file, where no reader of Parquet looks: a word and a checksum.

    Parquet has a checksum for the data of each page and none for its footer, and Arrow can crash on a damaged one.
    """
    return FOOTER_WORD + hashlib.blake2b(footer, digest_size=16).digest()


class ParquetWriter(TableWriter):
    """Row groups of a fixed size, whatever the size of the batches, to a file that need not be seekable.

    ``repeating`` columns have few different values.
    """

    def __init__(self, file: BinaryIO, schema: pa.Schema, repeating: list[str]) -> None:
        self.metadata: dict[str, str] = {}
        self._rows = rows_in_group(schema)
        self._waiting: list[pa.RecordBatch] = []
        self._nwaiting = 0
        self._file = _Counted(file)
        self._writer = pq.ParquetWriter(
            pa.PythonFile(self._file, mode="w"),
            schema,
            compression="zstd",
            compression_level=_COMPRESSION_LEVEL,
            use_dictionary=repeating or False,
            version="2.6",
            data_page_version="1.0",
            store_schema=False,
            write_page_checksum=True,
        )

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows; whole row groups are written."""
        self._waiting.append(batch)
        self._nwaiting += len(batch)
        if self._nwaiting < self._rows:
            return
        table = pa.Table.from_batches(self._waiting)
        whole = self._nwaiting - self._nwaiting % self._rows
        for start in range(0, whole, self._rows):
            self._write_group(table.slice(start, self._rows))
        self._waiting = table.slice(whole).to_batches()
        self._nwaiting -= whole

    def close(self) -> None:
        """Write the last rows and the end of the file."""
        if self._nwaiting:
            self._write_group(pa.Table.from_batches(self._waiting))
        if self.metadata:
            self._writer.add_key_value_metadata(self.metadata)
        self._file.hold()
        self._writer.close()
        self._file.release()

    def abandon(self) -> None:
        """Write no more: the file has no end and cannot be read as a table."""
        self._file.abandoned = True  # Arrow ends its file when it is destroyed, whatever happened
        self._writer.is_open = False

    def _write_group(self, table: pa.Table) -> None:
        # In one chunk: page edges would otherwise depend on the batches.
        self._writer.write_table(table.combine_chunks(), row_group_size=self._rows)


class DelimitedWriter(TableWriter):
    """A header line and a line a row."""

    def __init__(self, file: BinaryIO, names: Sequence[str], separator: str) -> None:
        self._file = file
        self._separator = separator
        file.write(delimited_header(names, separator))

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows."""
        for start in range(0, len(batch), _TEXT_ROWS):
            self._file.write(delimited_rows(batch.slice(start, _TEXT_ROWS), self._separator))


class JsonWriter(TableWriter):
    """A list of objects, one a row and one a line; missing cells are null."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._before = "[\n"

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows."""
        for start in range(0, len(batch), _TEXT_ROWS):
            rows = batch.slice(start, _TEXT_ROWS).to_pylist()
            lines = ",\n".join(json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows)
            self._file.write((self._before + lines).encode())
            self._before = ",\n"

    def close(self) -> None:
        """End the list."""
        self._file.write(b"[]\n" if self._before == "[\n" else b"\n]\n")


class _Counted(Abandonable):
    """A file that knows its position by counting, since a pipe cannot tell."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self._position = 0
        self._held: list[bytes] | None = None

    def hold(self) -> None:
        """Keep what is written from now on until `release`."""
        self._held = []

    def release(self) -> None:
        """Write what was held, the footer, and before it its checksum."""
        footer = b"".join(self._held or ())
        self._held = None
        self._file.write(footer_checksum(footer) + footer)

    def tell(self) -> int:
        return self._position

    def write(self, data: Any) -> int:
        if self._held is not None:
            self._held.append(bytes(data))
        else:
            super().write(data)
        self._position += len(data)
        return len(data)


def delimited_header(names: Sequence[str], separator: str) -> bytes:
    """The header line."""
    header = pa.RecordBatch.from_arrays([pa.array([name]) for name in names], names=list(names))
    return delimited_rows(header, separator)


def delimited_rows(batch: pa.RecordBatch, separator: str) -> bytes:
    """One line a row: missing cells as ``NA``, floats with the fewest digits that read back the same.

    A text that has the separator, a quote or a line end in it is quoted.
    """
    if len(batch) == 0:
        return b""
    columns = [_cells(column, separator) for column in batch.columns]
    joined = pc.binary_join_element_wise(*columns, separator)
    lines = pc.binary_join_element_wise(joined, "", "\n")
    return _content(lines)


def _cells(column: pa.Array, separator: str) -> pa.Array:
    if pa.types.is_string(column.type):
        return _quoted(column, separator).fill_null(EMPTY_CELL)
    return column.cast(pa.string()).fill_null(EMPTY_CELL)


def _quoted(column: pa.Array, separator: str) -> pa.Array:
    special = pc.match_substring_regex(column, pattern=f'[{separator}"\r\n]')
    if not pc.any(special).as_py():
        return column
    quoted = pc.binary_join_element_wise('"', pc.replace_substring(column, '"', '""'), '"', "")
    return pc.if_else(special, quoted, column)


def _content(lines: pa.StringArray) -> bytes:
    """The texts of an array one after the other: its data buffer."""
    _, offsets, data = lines.buffers()
    edges = memoryview(offsets).cast("i")
    return bytes(memoryview(data)[edges[lines.offset] : edges[lines.offset + len(lines)]])
