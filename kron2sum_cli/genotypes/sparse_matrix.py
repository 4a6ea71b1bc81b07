"""Sparse relationship matrices: those in which most pairs of samples are unrelated and not listed.

GCTA writes ``.grm.sp`` (fastGWA's sparse matrix), R and SAIGE write Matrix Market ``.mtx``, and KING, plink2 and
plink 1.9 write tables of pairs. A pair that is not listed is 0.
"""

from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from typing import TypeAlias

import numpy as np
import pandas as pd
import scipy
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.files.inputs import open_text, read_bytes
from kron2sum_cli.files.samples import NO_FID, Samples, match
from kron2sum_cli.files.text import is_number, with_points
from kron2sum_cli.genotypes.source import Relationship

Sparse: TypeAlias = "scipy.sparse.csr_array[np.float64, tuple[int, int]]"

ID_PAIRS = (
    ("FID1", "IID1", "FID2", "IID2"),
    ("FID1", "ID1", "FID2", "ID2"),
    ("FID", "ID1", "FID", "ID2"),
    ("IID1", "IID2"),
    ("ID1", "ID2"),
)
"""Columns that name the two samples of a pair, with and without family IDs: plink2 and plink 1.9, KING between
families, KING within families, and tables without family IDs. A leading # is ignored, and so is the case."""

ROWS_AT_ONCE = 1024
"""Rows of a dense matrix that are looked at at once."""

KINSHIP_COLUMNS = ("KINSHIP", "PHI")
"""Columns of kinship coefficients, half of a relationship."""

RELATIONSHIP_COLUMNS = ("PI_HAT", "RELATIONSHIP", "RELATEDNESS", "GRM", "REL", "VALUE", "R", "X")
"""Columns of relationships as they are."""


@dataclass(frozen=True)
class SparseMatrix:
    """A sparse relationship matrix.

    K (N, N) is symmetric; of a table of pairs its samples are those that are in one. Where ``listed_only``, samples of
    other files that are not among them are unrelated to all, with 1 on the diagonal. ``format`` is what it is, for the
    log.
    """

    samples: Samples
    K: Sparse
    listed_only: bool
    files: tuple[str, ...]
    format: str


def is_table_of_pairs(header: list[str]) -> bool:
    """Whether the columns of a table name two samples and a relationship."""
    columns = _upper(header)
    return _id_columns(columns) is not None and _value_column(columns) is not None


def read_gcta_sparse(path: str, samples: Samples, id_path: str) -> SparseMatrix:
    """Read ``.grm.sp``: lines of two positions (from 0) and a relationship, each pair once, the diagonal included.

    Raises InputError where a line is not that, a position is not one of the samples, or a sample has no diagonal.
    """
    table = _read_numbers(path)
    n = len(samples)
    positions = table[:, :2]
    outside = np.flatnonzero(
        (positions < 0).any(axis=1) | (positions >= n).any(axis=1) | (positions % 1 != 0).any(axis=1)
    )
    if outside.size:
        row = int(outside[0])
        raise InputError(
            f"{path}, line {_line(path, row)}: {table[row, 0]:g} {table[row, 1]:g} are no positions of the {n}"
            f" samples of {id_path}; give the .grm.id that was written with it"
        )
    K = _with_diagonal(_symmetric(positions.astype(np.intp), table[:, 2], n, path), samples, path)
    return SparseMatrix(samples, K, False, (path, id_path), "GCTA .grm.sp")


def read_matrix_market(path: str, samples: Samples, id_path: str) -> SparseMatrix:
    """Read a square, symmetric Matrix Market file.

    Raises InputError where it is none, or has another number of rows than there are samples.
    """
    try:
        K: Sparse = scipy.sparse.csr_array(scipy.io.mmread(path, spmatrix=False)).astype(np.float64)
    except (ValueError, OSError, OverflowError, TypeError) as error:
        raise InputError(f"{path}: cannot be read as Matrix Market ({error}); write it again") from None
    n = len(samples)
    if K.shape != (n, n):
        raise InputError(
            f"{path}: has {K.shape[0]} rows and {K.shape[1]} columns, and {id_path} {n} samples; give the IDs of its"
            " rows"
        )
    apart = abs(K - K.T)
    if apart.nnz and apart.max() > 1e-6 * abs(K).max():
        raise InputError(f"{path}: is not symmetric; write both triangles, or one with the header's word 'symmetric'")
    _refuse_numbers(K.data, path)
    return SparseMatrix(
        samples, _with_diagonal(0.5 * (K + K.T), samples, path), False, (path, id_path), "Matrix Market"
    )


def read_table_of_pairs(path: str) -> SparseMatrix:
    """Read a table with a header that names two samples and a value in every line; see `ID_PAIRS`.

    Kinship coefficients are doubled. A pair of a sample with itself is its diagonal, 1 where there is none. Raises
    InputError where a value is not a number, or a pair is there twice with different values.
    """
    table = _read_table(path)
    columns = _upper(list(table.columns))
    ids, value = _id_columns(columns), _value_column(columns)
    assert ids is not None
    assert value is not None
    values = pd.to_numeric(table.iloc[:, value], errors="coerce").to_numpy(dtype=np.float64)
    wrong = np.flatnonzero(~np.isfinite(values))
    if wrong.size:
        row = int(wrong[0])
        raise InputError(
            f"{path}, line {_line(path, row + 1)}: {table.columns[value]} is {table.iloc[row, value]!r}, which is no"
            " number; leave the pair out, or correct it"
        )
    values = values * (2.0 if columns[value] in KINSHIP_COLUMNS else 1.0)
    half = len(ids) // 2
    first, second = (table.iloc[:, list(part)].agg("\t".join, axis=1) for part in (ids[:half], ids[half:]))
    codes, names = pd.factorize(pd.concat([first, second], ignore_index=True))
    pairs = codes.reshape(2, -1).T
    samples = Samples.of_names([str(name).split("\t") for name in names], path)
    K = _symmetric(pairs, values, len(samples), path, header=1)
    missing = np.ones(len(samples))
    missing[pairs[pairs[:, 0] == pairs[:, 1], 0]] = 0.0
    return SparseMatrix(
        samples, scipy.sparse.csr_array(K + scipy.sparse.diags_array(missing)), True, (path,), "table of pairs"
    )


def unrelated_samples(samples: Samples) -> SparseMatrix:
    """The matrix of samples that are unrelated to each other."""
    K = scipy.sparse.csr_array(scipy.sparse.eye_array(len(samples), format="csr"))
    return SparseMatrix(samples, K, False, (), "independent samples")


def with_unlisted(
    matrix: SparseMatrix, samples: Samples, relatives: bool = False, named: Samples | None = None
) -> SparseMatrix:
    """A table of pairs with all samples of another file; those that are in no pair have 1 on the diagonal.

    The samples of pairs that the other file lacks come behind where ``relatives`` are asked for. Where only the table
    of pairs has no family IDs, theirs are those of the samples that are ``named``, or not known.
    """
    if not matrix.listed_only:
        return matrix
    rows = match(samples, matrix.samples)
    if relatives:
        others = np.setdiff1d(np.arange(len(matrix.samples)), rows)
        samples = _joined(samples, matrix.samples.take(others), named)
        rows = np.concatenate([rows, others])
    n, known, alone = len(rows), np.flatnonzero(rows >= 0), np.flatnonzero(rows < 0)
    listed = matrix.K[rows[known]][:, rows[known]].tocoo()
    row, column = np.concatenate([known[listed.row], alone]), np.concatenate([known[listed.col], alone])
    K = scipy.sparse.csr_array((np.concatenate([listed.data, np.ones(len(alone))]), (row, column)), shape=(n, n))
    return SparseMatrix(samples, K, True, matrix.files, matrix.format)


def _joined(first: Samples, others: Samples, named: Samples | None) -> Samples:
    """Samples of two files, with family IDs where the first has them."""
    fids = others.fids
    if fids is None:
        found = np.full(len(others), -1) if named is None or named.fids is None else match(others, named)
        known = named.fids if named is not None and named.fids is not None else ()
        fids = tuple(known[row] if row >= 0 else NO_FID for row in found)
    return Samples(None if first.fids is None else (*first.fids, *fids), (*first.iids, *others.iids), first.source)


def of_samples(matrix: SparseMatrix, rows: NDArray[np.intp]) -> Sparse:
    """The matrix of some samples (n, n), in their order."""
    return scipy.sparse.csr_array(matrix.K[rows][:, rows])


def above_cutoff(relationship: Relationship, cutoff: float) -> Relationship:
    """A relationship matrix as a sparse one, in which those below ``cutoff`` are 0; the diagonal stays.

    Of G, and of a dense matrix, a strip of rows is looked at at a time.
    """
    if relationship.sparse is not None:
        K = sparse_above_cutoff(relationship.sparse, cutoff)
        listed = scipy.sparse.tril(relationship.sparse, -1).nnz
    else:
        K = _dense_above_cutoff(relationship, cutoff)
        listed = K.shape[0] * (K.shape[0] - 1) // 2
    dropped = listed - (K.nnz - K.shape[0]) // 2
    counts = {**relationship.counts, f"pairs of samples below --grm-cutoff {cutoff:g} of {listed}": dropped}
    return Relationship(relationship.samples, None, None, counts, relationship.files, K)


def sparse_above_cutoff(K: Sparse, cutoff: float) -> Sparse:
    """A sparse matrix without the relationships below ``cutoff``."""
    C = K.tocoo()
    kept = (C.data >= cutoff) | (C.row == C.col)
    return scipy.sparse.csr_array((C.data[kept], (C.row[kept], C.col[kept])), shape=C.shape)


def _dense_above_cutoff(relationship: Relationship, cutoff: float) -> Sparse:
    G, dense = relationship.G, relationship.K
    n = len(relationship.samples)
    values, rows, columns = [], [], []
    for start in range(0, n, ROWS_AT_ONCE):
        stop = min(start + ROWS_AT_ONCE, n)
        if G is not None:
            strip = G[start:stop] @ G.T
        else:
            assert dense is not None
            strip = dense[start:stop]
        kept = np.greater_equal(strip, cutoff)
        kept[np.arange(stop - start), np.arange(start, stop)] = True
        row, column = np.nonzero(kept)
        values.append(strip[row, column])
        rows.append(row + start)
        columns.append(column)
    both = np.concatenate(rows), np.concatenate(columns)
    return scipy.sparse.csr_array((np.concatenate(values), both), shape=(n, n))


def near_duplicates(K: Sparse, share: float) -> list[tuple[int, int]]:
    """Pairs of samples whose relationship is above this share of that of each to itself."""
    C, root = K.tocoo(), np.sqrt(K.diagonal())
    close = (C.row < C.col) & (C.data > share * root[C.row] * root[C.col])
    return list(zip(C.row[close].tolist(), C.col[close].tolist(), strict=True))


def _symmetric(pairs: NDArray[np.intp], values: NDArray[np.float64], n: int, path: str, header: int = 0) -> Sparse:
    """Both triangles from pairs in any order; a pair may be there again with the same value."""
    _refuse_numbers(values, path, header)
    table = pd.DataFrame(np.sort(pairs, axis=1), columns=["low", "high"]).assign(value=values).drop_duplicates()
    again = table[table.duplicated(["low", "high"], keep=False)]
    if len(again):
        one, other = again[(again["low"] == again["low"].iat[0]) & (again["high"] == again["high"].iat[0])].index[:2]
        raise InputError(
            f"{path}, lines {_line(path, one + header)} and {_line(path, other + header)}: have the same pair of"
            f" samples with the values {values[one]:g} and {values[other]:g}; leave one of them out"
        )
    low, high, values = (table[name].to_numpy() for name in table.columns)
    off = low != high
    row, column = np.concatenate([low, high[off]]), np.concatenate([high, low[off]])
    return scipy.sparse.csr_array((np.concatenate([values, values[off]]), (row, column)), shape=(n, n))


def _with_diagonal(K: Sparse, samples: Samples, path: str) -> Sparse:
    """The matrix, unless a sample has no variance of its own."""
    empty = np.flatnonzero(K.diagonal() <= 0)
    if empty.size:
        raise InputError(
            f"{path}: sample '{samples.label(int(empty[0]))}' has {K.diagonal()[empty[0]]:g} on the diagonal"
            f" ({empty.size} samples have none); write the matrix with its diagonal"
        )
    return K


def _refuse_numbers(values: NDArray[np.float64], path: str, header: int | None = None) -> None:
    """Refuse relationships that are not finite; with the number of lines above the first the message names the line."""
    wrong = np.flatnonzero(~np.isfinite(values))
    if wrong.size:
        where = path if header is None else f"{path}, line {_line(path, int(wrong[0]) + header)}"
        raise InputError(f"{where}: has a relationship that is not a finite number; leave that pair out")


def _read_numbers(path: str) -> NDArray[np.float64]:
    """Three numbers a line."""
    try:
        table = pd.read_csv(path, sep=r"\s+", header=None, dtype=np.float64)
    except (ValueError, OSError) as error:
        raise InputError(
            f"{path}{_first_without_numbers(path)}: cannot be read as lines of two positions and a number ({error});"
            " copy it again, or write it again with gcta64 --make-bK-sparse"
        ) from None
    if table.shape[1] != 3:
        raise InputError(f"{path}: has {table.shape[1]} columns; a .grm.sp has two positions and a relationship")
    return table.to_numpy()


def _first_without_numbers(path: str) -> str:
    """Which line is the first with a word that is no number, as messages say it."""
    with open_text(path) as file:
        wrong = (number for number, line in enumerate(file, 1) if not all(map(is_number, line.split())))
        found = next(wrong, None)
    return "" if found is None else f", line {found}"


def _line(path: str, before: int) -> int:
    """The number of the line before which so many have content: blank ones are passed over where tables are read."""
    with open_text(path) as file:
        return next(islice((number for number, line in enumerate(file, 1) if line.strip()), before, None))


def _read_table(path: str) -> pd.DataFrame:
    """A table of text, CSV or white space; between semicolons a decimal comma becomes a point."""
    text = read_bytes(path)
    header = text.partition(b"\n")[0]
    separator = next((mark for mark in (b"\t", b",", b";") if mark in header), None)
    try:
        table = pd.read_csv(
            BytesIO(text),
            sep=r"\s+" if separator is None else separator.decode(),
            dtype=str,
            keep_default_na=False,
            engine="c",
        )
    except ValueError as error:
        raise InputError(f"{path}: cannot be read as a table of pairs ({error})") from None
    return table.apply(with_points, result_type="expand") if separator == b";" else table


def _upper(header: list[str]) -> list[str]:
    return [name.lstrip("#").strip().upper() for name in header]


def _id_columns(columns: list[str]) -> tuple[int, ...] | None:
    """Positions of the columns that name the two samples."""
    for names in ID_PAIRS:
        if all(name in columns for name in names):
            return tuple(columns.index(name) for name in names)
    return None


def _value_column(columns: list[str]) -> int | None:
    """Position of the column of the relationship."""
    return next((columns.index(name) for name in (*KINSHIP_COLUMNS, *RELATIONSHIP_COLUMNS) if name in columns), None)
