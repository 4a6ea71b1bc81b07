"""Which rows of a result table are wanted, and in what order."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kron2sum_cli.export.genome import chromosome_key
from kron2sum_cli.genotypes.chromosomes import is_human, normalise_chromosome

_FEWEST_CANDIDATES = 1 << 16


def below(batches: Iterable[pa.RecordBatch], p_value: float) -> Iterator[pa.RecordBatch]:
    """Rows with P below a value; those without a P are left out."""
    for batch in batches:
        yield batch.filter(pc.less(batch.column("P"), p_value))


def numbered_rows(batches: Iterable[pa.RecordBatch], numbers: NDArray[np.intp]) -> Iterator[pa.RecordBatch]:
    """The rows of these numbers, which are increasing and count from 0."""
    start = 0
    for batch in batches:
        low, high = np.searchsorted(numbers, (start, start + len(batch)))
        yield batch.take(pa.array(numbers[low:high] - start))
        start += len(batch)


def with_columns(batches: Iterable[pa.RecordBatch], columns: Mapping[str, pa.Array]) -> Iterator[pa.RecordBatch]:
    """The rows with further columns, whose values are in the order of the rows."""
    start = 0
    for batch in batches:
        for name, values in columns.items():
            batch = batch.append_column(name, values.slice(start, len(batch)))
        yield batch
        start += len(batch)


def top_rows(batches: Iterable[pa.RecordBatch], number: int) -> Iterator[pa.RecordBatch]:
    """The `number` rows with the largest MLOG10P, largest first, of equal ones the first in the file.

    Rows without a statistic are never among them. Memory holds a few times `number` rows.
    """
    candidates: list[pa.RecordBatch] = []
    threshold = -np.inf
    for batch in batches:
        candidates.append(batch.filter(pc.greater(batch.column("MLOG10P"), threshold)))
        if sum(map(len, candidates)) >= 2 * number + _FEWEST_CANDIDATES:
            candidates = _best(candidates, number)
            if sum(map(len, candidates)) == number:
                threshold = candidates[-1].column("MLOG10P")[-1].as_py()
    if candidates:
        yield from _best(candidates, number)


def _best(candidates: Sequence[pa.RecordBatch], number: int) -> list[pa.RecordBatch]:
    table = pa.Table.from_batches(candidates)
    order = pc.sort_indices(table, sort_keys=[("MLOG10P", "descending")])
    batches: list[pa.RecordBatch] = table.take(order[:number]).combine_chunks().to_batches()
    return batches


def sort_columns(key: str) -> Sequence[str]:
    """The columns that a value of ``--sort`` looks at."""
    if key == "position":
        return ("CHR", "POS")
    return ("MLOG10P",) if key == "p" else (key.removeprefix("-"),)


def sorted_rows(batches: Iterable[pa.RecordBatch], key: str) -> Iterator[pa.RecordBatch]:
    """All rows in the order of a key; those without a value last, of equal ones the first in the file.

    Parameters
    ----------
    batches : iterable of pyarrow.RecordBatch
        The rows.
    key : str
        "position" (chromosomes as numbers, then X, Y, XY, MT, then others by name), "p", a column, or "-COLUMN" for
        the largest first.
    """
    table = pa.Table.from_batches(list(batches)) if (batches := list(batches)) else None
    if table is None:
        return
    if key == "position":
        keys = pa.table({"chromosome": _chromosome_ranks(table.column("CHR")), "position": table.column("POS")})
        order = pc.sort_indices(keys, sort_keys=[("chromosome", "ascending"), ("position", "ascending")])
    else:
        (column,) = sort_columns(key)
        direction = "descending" if key == "p" or key.startswith("-") else "ascending"
        keys = pa.table({"key": table.column(column)})
        order = pc.sort_indices(keys, sort_keys=[("key", direction)])
    yield from table.take(order).combine_chunks().to_batches()


def _chromosome_ranks(codes: pa.ChunkedArray) -> pa.ChunkedArray:
    """For every row the rank of its chromosome."""
    encoded = codes.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    names = encoded.dictionary.to_pylist()
    ranks = np.empty(len(names), dtype=np.int64)
    human = is_human(names)
    keys = [chromosome_key(normalise_chromosome(name, human)) for name in names]
    ranks[sorted(range(len(names)), key=keys.__getitem__)] = range(len(names))
    return pa.chunked_array([pa.array(ranks).take(encoded.indices)])


def rounded(batch: pa.RecordBatch, digits: int | None) -> pa.RecordBatch:
    """The rows with real numbers rounded to so many significant digits; all of them for None."""
    if digits is None:
        return batch
    for k, field in enumerate(batch.schema):
        if pa.types.is_floating(field.type):
            values = batch.column(k).to_numpy(zero_copy_only=False)
            with np.errstate(divide="ignore", invalid="ignore"):
                decimals = digits - 1 - np.floor(np.log10(np.abs(values)))
            usual = np.abs(decimals) <= 300  # not zero, empty, or beyond the powers of ten that a double has
            power = 10.0 ** np.abs(np.where(usual, decimals, 0))
            shorter = np.where(decimals >= 0, np.round(values * power) / power, np.round(values / power) * power)
            column = pa.array(np.where(usual, shorter, values), mask=np.asarray(batch.column(k).is_null()))
            batch = batch.set_column(k, field, column.cast(field.type))
    return batch
