"""How the result table of a scan is written and read; `files.scan_columns` has its columns.

The same rows and metadata make the same bytes, however the rows were cut into batches. Of the Parquet tables that are
read, a damaged one is refused, and a message says what any other file is.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, BinaryIO, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kron2sum_cli.errors import InputError, NumericalError
from kron2sum_cli.files.genome_wide import Largest, adjusted, is_genome_wide, source_of
from kron2sum_cli.files.inputs import HEAD_BYTES, describe
from kron2sum_cli.files.json_records import OtherLayout
from kron2sum_cli.files.scan_columns import SNPID, column_of
from kron2sum_cli.files.scan_metadata import METADATA_KEY, ScanMetadata
from kron2sum_cli.files.table_writers import (
    FOOTER_WORD,
    SEPARATORS,
    DelimitedWriter,
    JsonWriter,
    ParquetWriter,
    TableWriter,
    footer_checksum,
    rows_in_group,
)


def scan_batch(schema: pa.Schema, columns: Mapping[str, Any]) -> pa.RecordBatch:
    """Rows of a result table from one array a column (NumPy or Arrow); NaN becomes an empty cell."""
    arrays = [_array(columns[field.name], field.type) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def check_finite(batch: pa.RecordBatch) -> None:
    """Refuse NaN and infinity, naming column and variant: a statistic is a number or an empty cell."""
    for name in batch.schema.names:
        column = batch.column(name)
        if not pa.types.is_floating(column.type):
            continue
        wrong = pc.indices_nonzero(pc.invert(pc.is_finite(column)))
        if len(wrong):
            row = wrong[0].as_py()
            variant = batch.column(SNPID.name)[row].as_py() if SNPID.name in batch.schema.names else f"row {row + 1}"
            raise NumericalError(f"variant {variant}: {name} is {column[row].as_py()}, which is not a number to report")


class ScanWriter:
    """Writes a result table to an open binary file, which need not be seekable, as its rows come, in bounded memory.

    The metadata of a Parquet file can also be set later, for what is known only at the end. Use it as a context: after
    an exception nothing more is written, and the file is not a table.
    """

    def __init__(
        self, file: BinaryIO, schema: pa.Schema, to: str = "parquet", metadata: ScanMetadata | None = None
    ) -> None:
        self.metadata = metadata
        self._schema = schema
        self._writer: TableWriter
        if to == "parquet":
            columns = {name: column_of(name) for name in schema.names}
            repeating = [name for name, column in columns.items() if column is not None and column.repeating]
            self._writer = ParquetWriter(file, schema, repeating)
        elif to == "json":
            self._writer = JsonWriter(file)
        else:
            self._writer = DelimitedWriter(file, schema.names, SEPARATORS[to])

    def write(self, batch: pa.RecordBatch) -> None:
        """Add the rows of a batch, whose columns are those of the schema.

        Raises NumericalError if a cell is NaN or infinite.
        """
        check_finite(batch)
        self._writer.write(pa.RecordBatch.from_arrays(batch.columns, schema=self._schema))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                if self.metadata is not None and isinstance(self._writer, ParquetWriter):
                    self._writer.metadata = {METADATA_KEY: self.metadata.to_json()}
                self._writer.close()
        finally:
            self._writer.abandon()


def _array(values: Any, column_type: pa.DataType) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if isinstance(values, pa.Array):
        return values if values.type == column_type else values.cast(column_type)
    return pa.array(values, type=column_type, from_pandas=True)


MAGIC = b"PAR1"
"""First and last bytes of a Parquet file."""
_OF_KRON2SUM = re.compile(rb'kron2sum.{1,9}\{"axes":.*"version":"([0-9.]+)"\}', re.DOTALL)
"""What the footer of a table of a scan holds also where it has no checksum, and so is not parsed."""
_TAIL_BYTES = 4 + len(MAGIC)
"""Bytes at the end of the file: the length of the footer, and `MAGIC`."""


@dataclass(frozen=True)
class ScanFile:
    """A result table that was opened for reading.

    Of a part of a scan it has the largest simulated statistics of the whole scan, for P over the whole scan.
    """

    name: str
    schema: pa.Schema
    metadata: ScanMetadata
    num_rows: int
    _file: pq.ParquetFile
    largest: Largest = field(default_factory=dict)

    def iter_batches(
        self, columns: Sequence[str] | None = None, batch_size: int | None = None
    ) -> Iterator[pa.RecordBatch]:
        """The rows in order, some columns only where they are named.

        Raises InputError if the file is damaged (a checksum does not match).
        """
        names = self.schema.names if columns is None else list(columns)
        size = batch_size or rows_in_group(self.schema)
        rows = 0
        needed = [source_of(name) for name in names if self.largest and is_genome_wide(name)]
        try:
            for batch in self._file.iter_batches(batch_size=size, columns=list(dict.fromkeys([*names, *needed]))):
                rows += len(batch)
                yield (adjusted(batch, self.largest) if needed else batch).select(names)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise InputError(f"{self.name}: is damaged ({_first_line(error)}); copy or scan it again") from error
        if rows != self.num_rows:  # Arrow passes over pages of a kind that it does not know
            raise InputError(f"{self.name}: is damaged (it has {rows} of {self.num_rows} rows); copy or scan it again")

    def check(self) -> None:
        """Read everything, and compare it with its checksums.

        Raises InputError if it was damaged after it was written; NumericalError if a cell is NaN or infinite.
        """
        for batch in self.iter_batches():
            check_finite(batch)


def open_scan(source: str | BinaryIO, name: str | None = None) -> ScanFile:
    """Open the Parquet table of a scan: a path, or an open seekable file with a name for messages.

    Raises InputError if it is not a table that `kron2sum scan` wrote, or an incomplete one; the message says what it
    is.
    """
    name = name or str(source)
    with _reading(name), _opened(source) as file:
        head = file.read(HEAD_BYTES)
        if not head.startswith(MAGIC):
            remedy = "make one with kron2sum scan --to parquet"
            if describe(head) == "text":
                remedy = "text tables cannot be read again: keep the .parquet of the scan and export that"
            raise InputError(f"{name}: is {describe(head)}, not a Parquet table of kron2sum scan; {remedy}")
        _check_footer(file, name)
    with _reading(name):
        parquet = pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=False)
        schema = parquet.schema_arrow
    metadata = _metadata(schema, name)
    for column in schema.names:
        if column_of(column) is None:
            raise InputError(f"{name}: has a column {column}, which kron2sum scan does not write; scan again")
    return ScanFile(name, schema.remove_metadata(), metadata, parquet.metadata.num_rows, parquet)


def _check_footer(file: BinaryIO, name: str) -> None:
    """Compare the footer with its checksum, before it is parsed; refuse a file whose end `ScanWriter` did not write."""
    size = file.seek(0, 2)
    file.seek(max(size - _TAIL_BYTES, 0))
    tail = file.read()
    start = size - _TAIL_BYTES - int.from_bytes(tail[:4], "little")
    checksum_bytes = len(footer_checksum(b""))
    if tail[4:] != MAGIC or start < len(MAGIC):
        raise InputError(
            f"{name}: its end is missing or damaged: it was copied or written only in part; copy or scan it again"
        )
    file.seek(max(start - checksum_bytes, 0))
    checksum, footer = file.read(min(start, checksum_bytes)), file.read()
    if not checksum.startswith(FOOTER_WORD):
        of_kron2sum = _OF_KRON2SUM.search(footer)
        if of_kron2sum is not None and of_kron2sum[1].startswith(b"0.1."):  # had no checksum
            _metadata(pa.schema([], {METADATA_KEY: f'{{"version":"{of_kron2sum[1].decode()}"}}'}), name)
        if of_kron2sum is not None:
            raise InputError(
                f"{name}: another program has written this table of kron2sum scan again, perhaps with other rows or"
                " numbers; give the file that the scan wrote"
            )
        raise InputError(f"{name}: is a Parquet file, but not one of kron2sum scan; copy or scan it again")
    if checksum != footer_checksum(footer):
        raise InputError(f"{name}: its footer is damaged; copy or scan it again")


@contextmanager
def _opened(source: str | BinaryIO) -> Iterator[BinaryIO]:
    """The file, at its beginning, where one that is open already ends up again."""
    if isinstance(source, str):
        with open(source, "rb") as file:
            yield file
    else:
        source.seek(0)
        yield source
        source.seek(0)


@contextmanager
def _reading(name: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, pa.ArrowNotImplementedError) as error:  # among them ArrowInvalid and UnicodeDecodeError
        reason = "its end is missing or damaged: it was copied or written only in part"
        raise InputError(f"{name}: {reason}; copy or scan it again ({_first_line(error)})") from error
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror or _first_line(error)})") from error


def _metadata(schema: pa.Schema, name: str) -> ScanMetadata:
    text = (schema.metadata or {}).get(METADATA_KEY.encode())
    if text is None:
        raise InputError(f"{name}: is a Parquet file, but not one of kron2sum scan (no kron2sum metadata)")
    try:
        return ScanMetadata.from_json(text)
    except OtherLayout as error:
        raise InputError(f"{name}: {error}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{name}: its kron2sum metadata cannot be used: {error}; make it again with kron2sum scan"
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
