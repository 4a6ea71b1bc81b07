"""Relationship matrices that other programs made, told from their content and names."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError, UsageError
from kron2sum_cli.files.inputs import display_name
from kron2sum_cli.files.samples import Samples, refuse_duplicates
from kron2sum_cli.files.text import Row, id_columns, read_text, split_rows
from kron2sum_cli.genotypes.sample_files import read_fam
from kron2sum_cli.genotypes.source import Relationship
from kron2sum_cli.genotypes.square_matrix import (
    NUMPY_MAGIC,
    BinarySquare,
    TextSquare,
    gather,
    is_number,
    numbers,
    open_gcta,
    open_npy,
    open_plink2_binary,
    open_text_square,
    stream_rows,
)


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


STDIN = "-"
GCTA_SUFFIXES = (".grm.bin", ".grm.id", ".grm.N.bin")
PLINK2_SUFFIXES = (".rel.bin", ".rel.id", ".rel")


MOST_SIZE = 1e100
"""The largest number of a relationship matrix, and the inverse of the smallest that its largest may be."""


@dataclass(frozen=True)
class RelationshipFile:
    """A relationship matrix of which the names are read and the numbers are not yet.

    Attributes
    ----------
    samples : its samples, in the order of its rows
    files : every file that belongs to it
    format : what it is, for the log
    stored : how its numbers are stored
    """

    samples: Samples
    files: tuple[str, ...]
    format: str
    stored: BinarySquare | TextSquare | NamedTable

    def load(self, rows: NDArray[np.intp]) -> Relationship:
        """Read the numbers of some samples; beside the result, a row of the file is in memory.

        Parameters
        ----------
        rows : (n,) positions of the samples, each once, in the order wanted

        Returns
        -------
        K, the rows and columns of a matrix as they are; of a table that is G itself, G with r columns where
        r < n, else K = GGᵀ.

        Raises
        ------
        InputError : the file is cut short, or holds something else than finite numbers, or is not symmetric
        """
        counts = {"samples read": len(self.samples)}
        samples = self.samples.take(rows)
        if isinstance(self.stored, NamedTable) and not self.stored.square:
            counts["columns read"] = len(self.stored.names)
            G = self.stored.load_columns(rows)
            _refuse_size(G, MOST_SIZE**0.5, self.files[0])
            if G.shape[1] < len(rows):
                return Relationship(samples, G, None, counts, self.files)
            return Relationship(samples, None, G @ G.T, counts, self.files)
        K = gather(self.stored.lines(), self.stored.lower, rows, self.samples, self.files[0])
        _refuse_size(K, MOST_SIZE, self.files[0])
        return Relationship(samples, None, K, counts, self.files)


def open_relationship(path: str, id_path: str | None = None) -> RelationshipFile:
    """Open a relationship matrix in any of the formats known.

    - GCTA: ``.grm.bin`` with ``.grm.id``, given by any of its names or their common prefix;
    - plink2: ``.rel`` or ``.rel.bin`` with ``.rel.id``, square or triangle;
    - text without names (GEMMA's ``.cXX.txt`` and ``.sXX.txt``) and ``.npy``, square, with ``id_path``;
    - a table with a header: a square matrix with names on both sides, or samples as rows (``FID IID`` or
      ``IID`` first) and any other columns, which are G itself, neither centred nor scaled here.

    Parameters
    ----------
    path : the file or prefix
    id_path : names of the rows, a ``.fam`` or a list with ``FID IID`` or ``IID`` in each line

    Raises
    ------
    InputError : a file is missing, of no known format, of the wrong size, or names a sample twice
    UsageError : ``id_path`` is needed and not given, or given and not needed
    """
    stem = _stem(path, GCTA_SUFFIXES, (".grm.bin",))
    if stem is not None:
        return _with_names(f"{stem}.grm.bin", id_path or f"{stem}.grm.id", "GCTA .grm.bin")
    stem = _stem(path, PLINK2_SUFFIXES, (".rel", ".rel.bin"))
    if stem is not None:
        binary = path.endswith(".rel.bin") or not os.path.isfile(f"{stem}.rel")
        name = f"{stem}.rel.bin" if binary else f"{stem}.rel"
        return _with_names(name, id_path or f"{stem}.rel.id", "plink2 .rel")
    if path.endswith(".grm.gz"):
        raise InputError(f"{path} is GCTA's text format; convert it with gcta64 --grm-gz ... --make-grm-bin")
    _require_file(path)
    if _starts_with_numpy_magic(path):
        return _with_names(path, _needed(id_path, path), "NumPy .npy")
    first_row = next(stream_rows(path), None)
    if first_row is None:
        raise InputError(f"{path} is empty; check the command that wrote it")
    if all(is_number(field) for field in first_row.fields):
        return _with_names(path, _needed(id_path, path), "matrix in text")
    if id_path is not None:
        raise UsageError(f"{path} has names of its own: leave out --grm-id {id_path}")
    table = open_named_table(path)
    format_name = "matrix with names" if table.square else "table of G"
    return RelationshipFile(table.samples, (path,), format_name, table)


def _refuse_size(M: NDArray[np.float64], most: float, path: str) -> None:
    """Refuse numbers whose products are infinite or vanish; zeros alone are told of later."""
    largest = max(float(M.max(initial=0.0)), -float(M.min(initial=0.0)))
    if largest > most or 0 < largest < 1 / most:
        raise InputError(f"{path}: its largest number is {largest:g}; multiply all, so that it is of the order of 1")


def _with_names(path: str, id_path: str, format_name: str) -> RelationshipFile:
    """A matrix whose names are in a file of their own."""
    _require_file(path)
    _require_file(id_path)
    samples = _read_ids(id_path)
    n = len(samples)
    stored: BinarySquare | TextSquare
    if format_name == "GCTA .grm.bin":
        stored = open_gcta(path, id_path, n)
    elif path.endswith(".rel.bin"):
        stored = open_plink2_binary(path, id_path, n)
    elif format_name == "NumPy .npy":
        stored = open_npy(path, id_path, n)
    else:
        first_row = next(stream_rows(path), None)
        stored = open_text_square(path, first_row.fields if first_row else (), id_path, n)
    return RelationshipFile(samples, (path, id_path), format_name, stored)


def _stem(path: str, suffixes: tuple[str, ...], matrices: tuple[str, ...]) -> str | None:
    """The common prefix of a file set, given one of its names or the prefix; None if it is no such set."""
    for suffix in suffixes:
        if path.endswith(suffix):
            return path[: -len(suffix)]
    is_prefix = not os.path.isfile(path) and any(os.path.isfile(path + suffix) for suffix in matrices)
    return path if is_prefix else None


def _read_ids(path: str) -> Samples:
    """The names of the rows of a matrix; unlike in a list of samples to keep, none may come twice."""
    if path.endswith(".fam"):
        return read_fam(path)
    rows = split_rows(read_text(path), path)
    width = id_columns(rows[0].fields)
    if width:
        rows = rows[1:]
    width = width or min(2, len(rows[0].fields))
    for row in rows:
        if len(row.fields) < width or not all(row.fields[:width]):
            raise InputError(f"{path}, line {row.line}: {' '.join(row.fields)!r} lacks an ID")
    fids = tuple(row.fields[0] for row in rows) if width == 2 else None
    samples = Samples(fids, tuple(row.fields[width - 1] for row in rows), path)
    refuse_duplicates(samples, [row.line for row in rows])
    return samples


def _needed(id_path: str | None, path: str) -> str:
    if id_path is None:
        raise UsageError(
            f"{path} has no names of samples: give them with --grm-id FILE (a .fam, or a list of FID and IID "
            "in the order of the rows)"
        )
    return id_path


def _require_file(path: str) -> None:
    if os.path.isdir(path):
        raise InputError(f"{path} is a directory; give a file in it")
    if path == STDIN or (os.path.exists(path) and not os.path.isfile(path)):
        raise InputError(f"{display_name(path)} is no file, and a matrix is read more than once; write it to one first")
    if not os.path.isfile(path):
        raise InputError(f"{path}: there is no such file; check the path")


def _starts_with_numpy_magic(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(NUMPY_MAGIC)) == NUMPY_MAGIC
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check its permissions") from None
