"""Relationship matrices that other programs made, told from their content and names."""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError, UsageError
from kron2sum_cli.files.inputs import display_name, open_input, unreadable
from kron2sum_cli.files.samples import Samples, refuse_duplicates
from kron2sum_cli.files.text import Row, id_columns, is_number, numbers_of_row, stream_rows
from kron2sum_cli.genotypes.sample_files import read_sample_list
from kron2sum_cli.genotypes.source import Relationship
from kron2sum_cli.genotypes.sparse_matrix import (
    SparseMatrix,
    is_table_of_pairs,
    read_gcta_sparse,
    read_matrix_market,
    read_table_of_pairs,
)
from kron2sum_cli.genotypes.square_matrix import (
    StoredSquare,
    gather,
    open_gcta,
    open_npy,
    open_plink2,
    open_text_square,
    refuse_empty_diagonal,
)

NUMPY_MAGIC = b"\x93NUMPY"
GCTA_MATRICES = (".grm.bin", ".grm.gz", ".grm.zst", ".grm")
GCTA_SUFFIXES = (".grm.id", ".grm.N.bin", *GCTA_MATRICES)
PLINK2_MATRICES = (".rel", ".rel.zst", ".rel.bin")
PLINK2_SUFFIXES = (".rel.id", *PLINK2_MATRICES)

SPARSE_HEAD_BYTES = 1 << 16
"""Bytes at the beginning of a file by which a sparse matrix is recognised."""


@dataclass(frozen=True)
class NamedTable:
    """A table with a line for each of n samples.

    Lines are samples, and ``names`` those of its r columns of numbers, with ``n_id_columns`` before them. It is
    ``square`` where the columns are the same samples, so that this is GGᵀ; else it is G. The header has no name of the
    first column where it is ``of_r``.
    """

    path: str
    samples: Samples
    names: tuple[str, ...]
    n_id_columns: int
    square: bool
    of_r: bool

    def lines(self) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """The rows one by one, each with its position; of a square table in the order of its lines."""
        rows = stream_rows(self.path)
        next(rows)
        column_of_name = {name: column for column, name in enumerate(self.names)}
        order = [column_of_name[iid] for iid in self.samples.iids] if self.square else slice(None)
        for i, row in enumerate(rows):
            yield i, self._numbers(row)[order]

    def load_columns(self, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """The rows wanted, each once, as (len(rows), r) float64.

        Raises InputError as `lines`, or a number is not finite.
        """
        row_of = np.full(len(self.samples), -1, dtype=np.intp)
        row_of[rows] = np.arange(len(rows))
        G = np.empty((len(rows), len(self.names)))
        for i, values in self.lines():
            if row_of[i] < 0:
                continue
            if not np.isfinite(values).all():
                name = self.names[int(np.argmin(np.isfinite(values)))]
                raise InputError(
                    f"{self.path}: sample '{self.samples.label(i)}' has no finite number in column {name!r}; "
                    "fill it in, or leave the sample out (--remove)"
                )
            G[row_of[i]] = values
        return G

    def _numbers(self, row: Row) -> NDArray[np.float64]:
        wanted = self.n_id_columns + len(self.names)
        if len(row.fields) != wanted:
            if self.of_r:
                raise InputError(
                    f"{self.path}, line {row.line}: {len(row.fields)} fields where {wanted} are due, one more than the "
                    "header has"
                )
            raise InputError(f"{self.path}, line {row.line}: {len(row.fields)} fields where the header has {wanted}")
        try:
            return numbers_of_row(row, self.n_id_columns, self.path)
        except InputError as error:
            if self.square:
                raise
            raise InputError(f"{error}; where its columns are variants, say with --map where they lie") from None


def _is_header_of_r(header: tuple[str, ...], first: Row | None) -> bool:
    """Whether a header is as R's ``write.table`` gives it to a matrix with names: without one of the first column."""
    if first is None or not 1 < len(header) == len(first.fields) - 1:
        return False
    return not {first.fields[0], made_by_r(first.fields[0])}.isdisjoint(header)


def made_by_r(name: str) -> str:
    """What R's ``make.names`` makes of the name of a column, in a data frame or where it reads a table.

    >>> made_by_r("101-2"), made_by_r("i1")
    ('X101.2', 'i1')
    """
    name = re.sub(r"[^\w.]", ".", name)
    return name if re.match(r"[^\W\d_]|\.(?!\d)", name) else f"X{name}"


def open_named_table(path: str) -> NamedTable:
    """Read the names of a table: its header and its first columns.

    Raises InputError where the header names no samples, a sample is there twice, or the table is neither a square
    matrix with the same names on both sides nor a table of other columns.
    """
    rows = stream_rows(path)
    header = next(rows).fields
    if len(header) == 3 and is_number(header[2]):
        raise InputError(
            f"{path} has three columns and no header: if a line has two samples and their relationship, "
            "put the line 'ID1 ID2 RELATIONSHIP' first ('ID1 ID2 KINSHIP' for kinship coefficients)"
        )
    n_id_columns = id_columns(header) or 1
    first = next(rows, None)
    of_r = _is_header_of_r(header, first)
    names = header if of_r else header[n_id_columns:]
    samples = _samples(chain(() if first is None else (first,), rows), n_id_columns, path)
    in_both = len(set(names) & set(samples.iids))
    square = in_both == len(names) == len(set(samples.iids)) == len(samples)
    made = {made_by_r(iid): iid for iid in samples.iids}
    changed = next((name for name in names if name in made and name not in samples.iids), None)
    if changed is not None and set(names) <= {*made, *samples.iids}:
        raise InputError(
            f"{path}: R has changed names of the header ({made[changed]!r} is {changed!r} there); write the matrix"
            " again with the names as they were (check.names = FALSE where R read it or made a data frame of it)"
        )
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
    return NamedTable(path, samples, names, n_id_columns, square, of_r)


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
    samples = Samples.of_names(ids, path)
    refuse_duplicates(samples, lines)
    return samples


@dataclass(frozen=True)
class RelationshipFile:
    """A relationship matrix, or a table of G, of which the names are read and the numbers are not yet.

    The format is for the log.
    """

    samples: Samples
    files: tuple[str, ...]
    format: str
    stored: StoredSquare | NamedTable

    def load(self, rows: NDArray[np.intp]) -> Relationship:
        """Read the numbers of some samples; beside the result, a row of the file is in memory.

        ``rows`` (n,) are positions of the samples, each once, in the order wanted. Returns K, the rows and columns of a
        matrix as they are; of a table that is G itself, G with r columns where r < n, else K = GGᵀ. Raises InputError
        where the file is cut short, or holds something else than finite numbers, or is not symmetric, or a diagonal
        entry is 0.
        """
        counts = {"samples read": len(self.samples)}
        samples = self.samples.take(rows)
        if isinstance(self.stored, NamedTable):
            counts["columns read"] = len(self.stored.names)
            G = self.stored.load_columns(rows)
            if G.shape[1] < len(rows):
                return Relationship(samples, G, None, counts, self.files)
            return Relationship(samples, None, G @ G.T, counts, self.files)
        K = gather(self.stored.lines(), self.stored.lower, rows, self.samples, self.files[0])
        refuse_empty_diagonal(K, samples, self.files[0])
        return Relationship(samples, None, K, counts, self.files)


def open_relationship(path: str, id_path: str | None = None) -> RelationshipFile:
    """Open a relationship matrix in any of the formats known.

    - GCTA: ``.grm.bin``, or its text ``.grm.gz``, with ``.grm.id``, given by any of its names or their common prefix;
    - plink2: ``.rel``, ``.rel.zst`` or ``.rel.bin`` with ``.rel.id``, square or triangle;
    - text without names (GEMMA's ``.cXX.txt`` and ``.sXX.txt``) and ``.npy``, square, with ``id_path``;
    - a table with a header: a square matrix with names on both sides, or samples as rows (``FID IID`` or
      ``IID`` first) and any other columns, which are G itself, neither centred nor scaled here.

    Text may be compressed with gzip or Zstandard.

    It is named by its file or prefix; ``id_path`` has names of the rows, a ``.fam`` or a list with ``FID IID`` or
    ``IID`` in each line. Raises InputError where a file is missing, of no known format, of the wrong size, or names a
    sample twice; UsageError where ``id_path`` is needed and not given, or given and not needed.
    """
    stem = _stem(path, GCTA_SUFFIXES, GCTA_MATRICES[:3])
    if stem is not None:
        name = _existing(path, stem, GCTA_MATRICES)
        format_name = "GCTA .grm.bin" if name.endswith(".bin") else "GCTA .grm.gz"
        return _with_names(name, id_path or f"{stem}.grm.id", format_name, open_gcta)
    stem = _stem(path, PLINK2_SUFFIXES, PLINK2_MATRICES)
    if stem is not None:
        name = _existing(path, stem, PLINK2_MATRICES)
        return _with_names(name, id_path or f"{stem}.rel.id", "plink2 .rel", open_plink2)
    _require_file(path)
    with open_input(path) as file:
        is_npy = file.read(len(NUMPY_MAGIC)) == NUMPY_MAGIC
    if is_npy:
        return _with_names(path, _needed(id_path, path), "NumPy .npy", open_npy)
    rows = stream_rows(path)
    first_row = next(rows, None)
    if first_row is None:
        raise InputError(f"{path} is empty; check the command that wrote it")
    names_are_numbers = _is_header_of_r(first_row.fields, next(rows, None))
    if not names_are_numbers and all(is_number(field) for field in first_row.fields):
        return _with_names(path, _needed(id_path, path), "matrix in text", open_text_square)
    if id_path is not None:
        raise UsageError(f"{path} has names of its own: leave out --grm-id {id_path}")
    table = open_named_table(path)
    if table.square:
        return RelationshipFile(table.samples, (path,), "matrix with names", StoredSquare(False, table.lines))
    return RelationshipFile(table.samples, (path,), "table of G", table)


def open_sparse(path: str, id_path: str | None) -> SparseMatrix | None:
    """Read a sparse relationship matrix; None where the file is none.

    GCTA's ``.grm.sp`` with ``.grm.id``, given by its name or their common prefix; Matrix Market with ``id_path``; a
    table with a header that names two samples and a relationship (`sparse_matrix.read_table_of_pairs`). Raises
    InputError, UsageError as `open_relationship`.
    """
    if path.endswith(".grm.sp") or (not os.path.isfile(path) and os.path.isfile(f"{path}.grm.sp")):
        stem = path.removesuffix(".grm.sp")
        ids = id_path or f"{stem}.grm.id"
        for name in (f"{stem}.grm.sp", ids):
            _require_file(name)
        return read_gcta_sparse(f"{stem}.grm.sp", read_sample_list(ids), ids)
    if not os.path.isfile(path):
        return None
    try:
        with open_input(path) as file:
            head = file.read(SPARSE_HEAD_BYTES)
    except OSError as error:
        raise unreadable(path, error) from None
    if head.lower().startswith(b"%%matrixmarket"):
        return read_matrix_market(path, read_sample_list(_needed(id_path, path)), str(id_path))
    header = head.partition(b"\n")[0].decode(errors="replace")
    if not is_table_of_pairs(re.split(r"[\s,;]+", header.strip())):
        return None
    if id_path is not None:
        raise UsageError(f"{path} has names of its own: leave out --grm-id {id_path}")
    return read_table_of_pairs(path)


def _with_names(
    path: str, id_path: str, format_name: str, open_matrix: Callable[[str, str, int], StoredSquare]
) -> RelationshipFile:
    """A matrix whose names are in a file of their own; ``open_matrix`` takes both paths and the number of samples."""
    _require_file(path)
    _require_file(id_path)
    samples = read_sample_list(id_path)
    return RelationshipFile(samples, (path, id_path), format_name, open_matrix(path, id_path, len(samples)))


def _stem(path: str, suffixes: tuple[str, ...], matrices: tuple[str, ...]) -> str | None:
    """The common prefix of a file set, given one of its names or the prefix; None if it is no such set."""
    for suffix in suffixes:
        if path.endswith(suffix):
            return path[: -len(suffix)]
    is_prefix = not os.path.isfile(path) and any(os.path.isfile(path + suffix) for suffix in matrices)
    return path if is_prefix else None


def _existing(path: str, stem: str, suffixes: tuple[str, ...]) -> str:
    """The matrix of a file set: the one named, else the first that is there, else the first that could be."""
    if path.endswith(suffixes):
        return path
    return next((stem + suffix for suffix in suffixes if os.path.isfile(stem + suffix)), stem + suffixes[0])


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
    if path == "-" or (os.path.exists(path) and not os.path.isfile(path)):
        raise InputError(f"{display_name(path)} is no file, and a matrix is read more than once; write it to one first")
    if not os.path.isfile(path):
        raise InputError(f"{path}: there is no such file; check the path")
