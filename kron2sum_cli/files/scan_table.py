"""How the result table of a scan is written; `files.scan_columns` has its columns, `files.scan_file` reads it.

The same rows and metadata make the same bytes, however the rows were cut into batches.
"""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import pyarrow as pa

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.files.arrow import not_finite, numbers
from kron2sum_cli.files.scan_columns import SNPID, column_of
from kron2sum_cli.files.scan_metadata import METADATA_KEY, ScanMetadata
from kron2sum_cli.files.table_writers import SEPARATORS, DelimitedWriter, JsonWriter, ParquetWriter, TableWriter


def scan_batch(schema: pa.Schema, columns: Mapping[str, Any]) -> pa.RecordBatch:
    """Rows of a result table from one array a column (NumPy or Arrow); NaN becomes an empty cell."""
    arrays = [_array(columns[field.name], field.type) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def check_finite(batch: pa.RecordBatch) -> None:
    """Refuse NaN and infinity: a statistic is a number or an empty cell.

    Raises
    ------
    NumericalError
        Naming the column and the variant.
    """
    for name in batch.schema.names:
        column = batch.column(name)
        if not pa.types.is_floating(column.type):
            continue
        wrong = not_finite(column)
        if wrong.size:
            row = int(wrong[0])
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
            self._writer = ParquetWriter(file, schema, _repeating(schema))
        elif to == "json":
            self._writer = JsonWriter(file)
        else:
            self._writer = DelimitedWriter(file, schema.names, SEPARATORS[to])

    def write(self, batch: pa.RecordBatch) -> None:
        """Add the rows of a batch, whose columns are those of the schema.

        Raises
        ------
        NumericalError
            If a cell is NaN or infinite.
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


def _repeating(schema: pa.Schema) -> list[str]:
    """Names of the columns with few different values."""
    found = ((name, column_of(name)) for name in schema.names)
    return [name for name, column in found if column is not None and column.repeating]


def _array(values: Any, column_type: pa.DataType) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if isinstance(values, np.ndarray) and values.dtype.kind in "if":
        values = numbers(values)
    if isinstance(values, pa.Array):
        return values if values.type == column_type else values.cast(column_type)
    return pa.array(values, type=column_type, from_pandas=True)
