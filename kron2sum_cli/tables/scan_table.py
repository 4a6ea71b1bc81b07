"""The result table of a scan: its columns, and its Parquet and text files.

The same rows and metadata make the same bytes, however the rows were cut into batches. The metadata is
one JSON object under the key `kron2sum`, with (at least)

- `version`, `null` (with its `hash`), `traits`, `axes`, `filters`, `settings`: equal in all parts of a scan;
- `inputs`: role to file records (name, size, hash), such as `{"geno": [{...}, ...]}`;
- `span`: the variants of the genotype file that were scanned, see `tables.scan_parts`;
- `counts`: numbers of variants, which add up over the parts.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kron2sum_cli.errors import InputError, NumericalError, UsageError
from kron2sum_cli.tables.arrow import not_finite, numbers
from kron2sum_cli.tables.metadata_checks import check_metadata
from kron2sum_cli.tables.parquet_seal import MAGIC, check_data, check_footer
from kron2sum_cli.tables.table_writers import (
    LARGEST_GROUP,
    SEPARATORS,
    DelimitedWriter,
    JsonWriter,
    ParquetWriter,
    TableWriter,
    rows_in_group,
)

METADATA_KEY = "kron2sum"

SET = "SET"
"""The first column of a table of sets of variants, which no other table has."""
VARIANT_COLUMNS = ("CHR", "POS", "SNPID", "EA", "NEA", "EAF", "N")
ANY_COLUMNS = ("CHISQ", "DF", "P", "MLOG10P")
REFIT_COLUMNS = ("CHISQ_REFIT", "MLOG10P_REFIT")
TRAIT_COLUMNS = ("BETA", "SE", "MLOG10P")
TRAIT_COUNT = "N"
TRAIT_REFIT_COLUMNS = ("BETA_REFIT", "SE_REFIT")
TEST_COLUMNS = ("CHISQ", "DF", "MLOG10P")

_TYPES = {"CHR": pa.string(), "POS": pa.int64(), "SNPID": pa.string(), "EA": pa.string(), "NEA": pa.string()}
_TYPES |= {"N": pa.int32(), "DF": pa.int32(), SET: pa.string()}
_TYPES |= {"N_VARIANTS": pa.int32(), "N_TESTED": pa.int32()}
_REPEATING = ("CHR", "EA", "NEA", "N", "DF")


def information_columns(p: int, coupled: bool = False) -> list[str]:
    """``INFO.1`` to ``INFO.p``; where the axes are coupled the lower triangle, ``INFO.1.1``, ``INFO.2.1``..."""
    if coupled:
        return [f"INFO.{i}.{j}" for i in range(1, p + 1) for j in range(1, i + 1)]
    return [f"INFO.{axis}" for axis in range(1, p + 1)]


def scan_schema(
    traits: Sequence[str],
    tests: Sequence[str],
    refit: bool,
    metadata: Mapping[str, Any],
    coupled: bool = False,
    counted: bool = False,
) -> pa.Schema:
    """The columns of a result table, in order, and its metadata.

    Parameters
    ----------
    traits : the p trait names
    tests : names of the tests beyond the any-effect test
    refit : whether the columns of exact refits are there
    metadata : what the file says of its making (see the module)
    coupled : whether the null model's fixed effects or missing cells couple the trait axes
    counted : whether every trait has its own number of samples

    Raises
    ------
    UsageError
        If a trait and a test have the same name, so that two columns would.
    """
    names = [*VARIANT_COLUMNS, *ANY_COLUMNS, *(REFIT_COLUMNS if refit else ())]
    of_trait = (*((TRAIT_COUNT,) if counted else ()), *TRAIT_COLUMNS)
    names += [f"{column}.{trait}" for trait in traits for column in of_trait]
    if refit:
        names += [f"{column}.{trait}" for trait in traits for column in TRAIT_REFIT_COLUMNS]
    of_test = (*TEST_COLUMNS, *(REFIT_COLUMNS if refit else ()))
    names += [f"{column}.{test}" for test in tests for column in of_test]
    names += information_columns(len(traits), coupled)
    refuse_repeated(names)
    return with_metadata(pa.schema([_field(name) for name in names]), metadata)


def set_schema(tests: Sequence[str]) -> pa.Schema:
    """The columns of a table of sets of variants, one row a set, for these tests beyond the any-effect test.

    Raises
    ------
    UsageError
        If two tests have the same name.
    """
    names = [SET, "N_VARIANTS", "N_TESTED", *ANY_COLUMNS]
    names += [f"{column}.{test}" for test in tests for column in TEST_COLUMNS]
    refuse_repeated(names)
    return pa.schema([_field(name) for name in names])


def refuse_repeated(names: Sequence[str]) -> None:
    """Refuse columns of which two have the same name.

    Raises
    ------
    UsageError
        Naming the first, and the trait or test that it is called after.
    """
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UsageError(
            f"two columns would be called {twice[0]}: rename the trait or test {twice[0].split('.', 1)[1]}"
        )


def with_metadata(schema: pa.Schema, metadata: Mapping[str, Any]) -> pa.Schema:
    """The same columns with other metadata, as canonical JSON (keys sorted, no spaces)."""
    text = json.dumps(metadata, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return schema.with_metadata({METADATA_KEY: text})


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
            variant = batch.column("SNPID")[row].as_py() if "SNPID" in batch.schema.names else f"row {row + 1}"
            raise NumericalError(f"variant {variant}: {name} is {column[row].as_py()}, which is not a number to report")


class ScanWriter:
    """Writes a result table to an open binary file as its rows come, in bounded memory.

    Parameters
    ----------
    file : where to write; need not be seekable
    schema : columns and metadata
    to : "parquet", "tsv", "csv" or "json"

    Use it as a context: after an exception nothing more is written, and the file is not a table.
    """

    def __init__(self, file: BinaryIO, schema: pa.Schema, to: str = "parquet") -> None:
        self._schema = schema
        self._writer: TableWriter
        if to == "parquet":
            self._writer = ParquetWriter(file, schema, [n for n in schema.names if _kind(n) in _REPEATING])
        elif to == "json":
            self._writer = JsonWriter(file)
        else:
            self._writer = DelimitedWriter(file, schema, SEPARATORS[to])

    def write(self, batch: pa.RecordBatch) -> None:
        """Add the rows of a batch, whose columns are those of the schema.

        Raises
        ------
        NumericalError
            If a cell is NaN or infinite.
        """
        check_finite(batch)
        self._writer.write(pa.RecordBatch.from_arrays(batch.columns, schema=self._schema.remove_metadata()))

    def set_metadata(self, metadata: Mapping[str, Any]) -> None:
        """Replace the metadata, for what is known only at the end (counts); text files have none."""
        if isinstance(self._writer, ParquetWriter):
            self._writer.metadata = with_metadata(self._schema, metadata).metadata

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._writer.close()
        finally:
            self._writer.abandon()


@dataclass(frozen=True)
class ScanFile:
    """A result table that was opened for reading.

    Attributes
    ----------
    name : the file, for messages
    schema : its columns
    metadata : what it says of its making
    num_rows : how many variants it has
    """

    name: str
    schema: pa.Schema
    metadata: Mapping[str, Any]
    num_rows: int
    _file: pq.ParquetFile

    def iter_batches(
        self, columns: Sequence[str] | None = None, batch_size: int | None = None
    ) -> Iterator[pa.RecordBatch]:
        """The rows in order, some columns only where they are named.

        Raises
        ------
        InputError
            If the file is damaged (a checksum does not match).
        """
        names = self.schema.names if columns is None else list(columns)
        size = batch_size or rows_in_group(self.schema)
        rows = 0
        try:
            for batch in self._file.iter_batches(batch_size=size, columns=names):
                rows += len(batch)
                yield batch.select(names)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise InputError(f"{self.name}: is damaged ({_first_line(error)}); copy or scan it again") from error
        if rows != self.num_rows:  # Arrow passes over pages of a kind that it does not know
            raise InputError(f"{self.name}: is damaged (it has {rows} of {self.num_rows} rows); copy or scan it again")

    def check(self, file: BinaryIO) -> None:
        """Read everything, and compare it with its checksums and hashes.

        Parameters
        ----------
        file : the same file, open and seekable

        Raises
        ------
        InputError
            If it was damaged or changed after it was written.
        NumericalError
            If a cell is NaN or infinite.
        """
        for batch in self.iter_batches():
            check_finite(batch)
        try:
            check_data(file)
        except ValueError as error:
            raise _changed(self.name, error) from error


def open_scan(source: str | BinaryIO, name: str | None = None) -> ScanFile:
    """Open the Parquet table of a scan.

    Parameters
    ----------
    source : a path, or an open seekable file
    name : what to call it in messages, where it is not a path

    Raises
    ------
    InputError
        If it is not a table that `kron2sum scan` wrote, or an incomplete one; the message says what it is.
    """
    name = name or str(source)
    with _reading(name), _opened(source) as file:
        head = file.read(len(MAGIC))
    if head != MAGIC:
        raise InputError(f"{name}: is {describe(head)}, not a Parquet table of kron2sum scan{_remedy(head)}")
    with _reading(name), _opened(source) as file:
        try:
            check_footer(file)
        except ValueError as error:
            raise _changed(name, error) from error
    with _reading(name):
        parquet = pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=False)
        schema = parquet.schema_arrow
    metadata = _metadata(schema, name)
    _check_layout(parquet, name)
    return ScanFile(name, schema.remove_metadata(), metadata, parquet.metadata.num_rows, parquet)


def _check_layout(parquet: pq.ParquetFile, name: str) -> None:
    """Refuse columns and row groups that `ScanWriter` does not write, before any memory is taken for them."""
    for field in parquet.schema_arrow:
        if field.type != _field(field.name).type:
            raise InputError(f"{name}: column {field.name} has values of type {field.type}; copy or scan it again")
    metadata = parquet.metadata
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        if group.num_rows > LARGEST_GROUP:
            raise InputError(f"{name}: has a group of {group.num_rows} rows, not as kron2sum writes it; scan it again")


def _changed(name: str, error: ValueError) -> InputError:
    return InputError(f"{name}: {error}; copy or scan it again")


def describe(head: bytes) -> str:
    """What a file is by its first bytes, in words."""
    if head[:4] == MAGIC:
        return "a Parquet file"
    if head[:2] == b"PK":
        return "a zip archive (as a null model is)"
    if head[:2] == b"\x1f\x8b":
        return "gzip-compressed"
    if head[:3] == b"\x6c\x1b\x01":
        return "a PLINK .bed file"
    if not head:
        return "empty"
    return "text" if all(byte in b"\t\r\n" or byte >= 32 for byte in head) else "a file of another kind"


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


def _remedy(head: bytes) -> str:
    if describe(head) == "text":
        return "; text tables cannot be read again: keep the .parquet of the scan and export that"
    return "; make one with kron2sum scan --to parquet"


def _field(name: str) -> pa.Field:
    column_type = _TYPES.get(_kind(name), pa.float64())
    return pa.field(name, column_type, nullable=name not in ("CHR", "POS", "SNPID", "EA", "NEA", "N"))


def _kind(name: str) -> str:
    return name.partition(".")[0]


def _array(values: Any, column_type: pa.DataType) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if isinstance(values, np.ndarray) and values.dtype.kind in "if":
        values = numbers(values)
    if isinstance(values, pa.Array):
        return values if values.type == column_type else values.cast(column_type)
    return pa.array(values, type=column_type, from_pandas=True)


@contextmanager
def _reading(name: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, pa.ArrowNotImplementedError) as error:  # among them ArrowInvalid and UnicodeDecodeError
        reason = "its end is missing or damaged: it was copied or written only in part"
        raise InputError(f"{name}: {reason}; copy or scan it again ({_first_line(error)})") from error
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror or _first_line(error)})") from error


def _metadata(schema: pa.Schema, name: str) -> Mapping[str, Any]:
    text = (schema.metadata or {}).get(METADATA_KEY.encode())
    if text is None:
        raise InputError(f"{name}: is a Parquet file, but not one of kron2sum scan (no kron2sum metadata)")
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: its kron2sum metadata is damaged; copy or scan it again") from error
    if not isinstance(metadata, dict) or "version" not in metadata:
        raise InputError(f"{name}: its kron2sum metadata has no version; make it again with kron2sum scan")
    try:
        check_metadata(metadata)
    except ValueError as error:
        raise InputError(
            f"{name}: its kron2sum metadata is wrong ({error}); make it again with kron2sum scan"
        ) from error
    return metadata


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
