"""Relationships in a table with a header: a square matrix with names on both sides, or G itself."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.genotypes.text_matrix import numbers, stream_rows
from kron2sum_cli.tables.samples import Samples, refuse_duplicates
from kron2sum_cli.tables.text import Row, id_columns


@dataclass(frozen=True)
class NamedTable:
    """A table with a line for each of n samples.

    Attributes
    ----------
    path : the file
    samples : the samples of its lines
    names : names of its columns of numbers, r of them
    n_id_columns : columns before them
    square : whether the columns are the same samples, so that this is GGᵀ; else it is G
    lower : always False: whole rows are stored
    """

    path: str
    samples: Samples
    names: tuple[str, ...]
    n_id_columns: int
    square: bool
    lower: bool = False

    def lines(self) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """The rows one by one, each with its position; of a square table in the order of its lines.

        Raises
        ------
        InputError : a line has too few or too many fields, or a field is not a number
        """
        rows = stream_rows(self.path)
        next(rows)
        column_of_name = {name: column for column, name in enumerate(self.names)}
        order = [column_of_name[iid] for iid in self.samples.iids] if self.square else slice(None)
        for i, row in enumerate(rows):
            yield i, self._numbers(row)[order]

    def load_columns(self, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """The rows wanted, each once, as (len(rows), r) float64.

        Raises
        ------
        InputError : as `lines`, or a number is not finite
        """
        place = np.full(len(self.samples), -1, dtype=np.intp)
        place[rows] = np.arange(len(rows))
        G = np.empty((len(rows), len(self.names)))
        for i, values in self.lines():
            if place[i] < 0:
                continue
            if not np.isfinite(values).all():
                name = self.names[int(np.argmin(np.isfinite(values)))]
                raise InputError(
                    f"{self.path}: sample '{self.samples.label(i)}' has no finite number in column {name!r}; "
                    "fill it in, or leave the sample out (--remove)"
                )
            G[place[i]] = values
        return G

    def _numbers(self, row: Row) -> NDArray[np.float64]:
        wanted = self.n_id_columns + len(self.names)
        if len(row.fields) != wanted:
            raise InputError(f"{self.path}, line {row.line}: {len(row.fields)} fields where the header has {wanted}")
        return numbers(row, self.n_id_columns, self.path)


def open_named_table(path: str) -> NamedTable:
    """Read the names of a table: its header and its first columns.

    Raises
    ------
    InputError : the header names no samples, a sample is there twice, or the table is neither a square matrix
        with the same names on both sides nor a table of other columns
    """
    rows = stream_rows(path)
    header = next(rows).fields
    n_id_columns = id_columns(header) or 1
    names = header[n_id_columns:]
    samples = _samples(rows, n_id_columns, path)
    in_both = len(set(names) & set(samples.iids))
    square = in_both == len(names) == len(set(samples.iids)) == len(samples)
    if in_both and len(names) == len(samples) and not square:
        stranger = next((name for name in names if name not in set(samples.iids)), names[0])
        raise InputError(
            f"{path} looks like a square matrix, but {stranger!r} of its header is not one of its rows (or "
            "is there twice); give both sides the same names"
        )
    if not square and not id_columns(header):
        raise InputError(
            f"{path}, line 1: the first column is {header[0]!r}; a table that is G itself starts with the "
            "columns FID and IID, or IID; a relationship matrix has the same names in its header and its rows"
        )
    if not names:
        raise InputError(f"{path} has no column besides the names of its samples")
    return NamedTable(path, samples, names, n_id_columns, square)


def _samples(rows: Iterator[Row], n_id_columns: int, path: str) -> Samples:
    ids: list[tuple[str, ...]] = []
    lines: list[int] = []
    for row in rows:
        fields = tuple(field.strip() for field in row.fields[:n_id_columns])
        if len(fields) < n_id_columns or not all(fields):
            raise InputError(f"{path}, line {row.line}: the line does not begin with the name of a sample")
        ids.append(fields)
        lines.append(row.line)
    if not ids:
        raise InputError(f"{path} has a header and no samples")
    fids = tuple(fields[0] for fields in ids) if n_id_columns == 2 else None
    samples = Samples(fids, tuple(fields[-1] for fields in ids), path)
    refuse_duplicates(samples, lines)
    return samples
