"""Rows of an Arrow table as delimited text, column by column in Arrow rather than cell by cell in Python.

Arrow's functions are imported where they are used: they take a while, which a scan into Parquet need not spend.
"""

from collections.abc import Sequence

import pyarrow as pa

from kron2sum_cli.tables.text import MISSING


def delimited_header(names: Sequence[str], separator: str) -> bytes:
    """The header line."""
    header = pa.RecordBatch.from_arrays([pa.array([name]) for name in names], names=list(names))
    return delimited_rows(header, separator)


def delimited_rows(batch: pa.RecordBatch, separator: str) -> bytes:
    """One line a row: missing cells as ``NA``, floats with the fewest digits that read back the same.

    A text that has the separator, a quote or a line end in it is quoted.
    """
    import pyarrow.compute as pc

    if len(batch) == 0:
        return b""
    columns = [_cells(column, separator) for column in batch.columns]
    joined = pc.binary_join_element_wise(*columns, separator)
    lines = pc.binary_join_element_wise(joined, "", "\n")
    return _content(lines)


def _cells(column: pa.Array, separator: str) -> pa.Array:
    if pa.types.is_string(column.type):
        return _quoted(column, separator).fill_null(MISSING)
    return column.cast(pa.string()).fill_null(MISSING)


def _quoted(column: pa.Array, separator: str) -> pa.Array:
    import pyarrow.compute as pc

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
