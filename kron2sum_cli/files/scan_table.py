"""The result table of a scan: its columns, and how it is written; `files.scan_file` reads it.

The same rows and metadata make the same bytes, however the rows were cut into batches. The metadata is
one JSON object under the key `kron2sum`, with (at least)

- `version`, `null` (with its `hash`), `traits`, `axes`, `filters`, `settings`: equal in all parts of a scan;
- `inputs`: role to file records (name, size, hash), such as `{"geno": [{...}, ...]}`;
- `span`: the variants of the genotype file that were scanned, see `files.scan_parts`;
- `counts`: numbers of variants, which add up over the parts.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import pyarrow as pa

from kron2sum_cli.errors import NumericalError, UsageError
from kron2sum_cli.files.arrow import not_finite, numbers
from kron2sum_cli.files.table_writers import SEPARATORS, DelimitedWriter, JsonWriter, ParquetWriter, TableWriter

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
    return with_metadata(pa.schema([column_field(name) for name in names]), metadata)


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
    return pa.schema([column_field(name) for name in names])


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


def column_field(name: str) -> pa.Field:
    """Name, type and nullability of a column of a result table."""
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
