"""Which rows of a result table are wanted, and in what order."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kron2sum_cli.export.genome import chromosome_key
from kron2sum_cli.files.scan_columns import CHR, MLOG10P, MLOG10P_SET, P_SET, POS, SET, START, P
from kron2sum_cli.genotypes.chromosomes import is_human, normalise_chromosome

_FEWEST_CANDIDATES = 1 << 16

LARGEST_EXACT_POWER = 22
"""The largest power of ten that is a double."""


@dataclass(frozen=True)
class RowKeys:
    """The columns by which rows are chosen and sorted.

    P and -log10 P are of the test of any effect, of sets in the first way of the table to test them.
    """

    p: str = P.name
    mlog10p: str = MLOG10P.name
    position: str = POS.name

    @classmethod
    def of(cls, columns: Sequence[str]) -> "RowKeys":
        """Those of a table with these columns."""
        if SET.name not in columns:
            return cls()
        kinds = (P_SET.name, MLOG10P_SET.name)
        ways = [rest for kind, _, rest in (name.partition(".") for name in columns) if kind in kinds]
        if MLOG10P.name in columns or not ways:
            return cls(position=START.name)
        return cls(P_SET.named(ways[0]), MLOG10P_SET.named(ways[0]), START.name)


def below(batches: Iterable[pa.RecordBatch], p_value: float, keys: RowKeys) -> Iterator[pa.RecordBatch]:
    """Rows with P below a value; those without a P are left out."""
    for batch in batches:
        yield batch.filter(pc.less(batch.column(keys.p), p_value))


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


def top_rows(batches: Iterable[pa.RecordBatch], number: int, keys: RowKeys) -> Iterator[pa.RecordBatch]:
    """The `number` rows with the largest -log10 P, largest first, of equal ones the first in the file.

    Rows without a statistic are never among them. Memory holds a few times `number` rows.
    """
    candidates: list[pa.RecordBatch] = []
    threshold = -np.inf
    for batch in batches:
        candidates.append(batch.filter(pc.greater(batch.column(keys.mlog10p), threshold)))
        if sum(map(len, candidates)) >= 2 * number + _FEWEST_CANDIDATES:
            candidates = _best(candidates, number, keys.mlog10p)
            if sum(map(len, candidates)) == number:
                threshold = candidates[-1].column(keys.mlog10p)[-1].as_py()
    if candidates:
        yield from _best(candidates, number, keys.mlog10p)


def _best(candidates: Sequence[pa.RecordBatch], number: int, column: str) -> list[pa.RecordBatch]:
    table = pa.Table.from_batches(candidates)
    order = pc.sort_indices(table, sort_keys=[(column, "descending")])
    batches: list[pa.RecordBatch] = table.take(order[:number]).combine_chunks().to_batches()
    return batches


def sort_columns(key: str, keys: RowKeys) -> Sequence[str]:
    """The columns that a value of ``--sort`` looks at."""
    if key == "position":
        return (CHR.name, keys.position)
    return (keys.mlog10p,) if key == "p" else (key.removeprefix("-"),)


def sorted_rows(batches: Iterable[pa.RecordBatch], key: str, keys: RowKeys) -> Iterator[pa.RecordBatch]:
    """All rows in the order of a key; those without a value last, of equal ones the first in the file.

    The key is "position" (chromosomes as numbers, then X, Y, XY, MT, then others by name), "p", a column, or "-COLUMN"
    for the largest first.
    """
    batches = list(batches)
    if not batches:
        return
    table = pa.Table.from_batches(batches)
    if key == "position":
        places = {"chromosome": _chromosome_ranks(table.column(CHR.name)), "position": table.column(keys.position)}
        order = pc.sort_indices(pa.table(places), sort_keys=[("chromosome", "ascending"), ("position", "ascending")])
    else:
        (column,) = sort_columns(key, keys)
        direction = "descending" if key == "p" or key.startswith("-") else "ascending"
        order = pc.sort_indices(pa.table({"key": table.column(column)}), sort_keys=[("key", direction)])
    yield from table.take(order).combine_chunks().to_batches()


def _chromosome_ranks(codes: pa.ChunkedArray) -> pa.ChunkedArray:
    """For every row the rank of its chromosome."""
    encoded = codes.combine_chunks().dictionary_encode()
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
            column = pa.array(_rounded(values, digits), mask=np.asarray(batch.column(k).is_null()))
            batch = batch.set_column(k, field, column.cast(field.type))
    return batch


def _rounded(values: NDArray[np.float64], digits: int) -> NDArray[np.float64]:
    """The doubles nearest to the values (b,) written with so many significant digits."""
    with np.errstate(divide="ignore", invalid="ignore"):
        decimals = digits - 1 - np.floor(np.log10(np.abs(values)))
    usual = np.abs(decimals) <= LARGEST_EXACT_POWER
    power = 10.0 ** np.abs(np.where(usual, decimals, 0))
    shorter = np.where(decimals >= 0, np.round(values * power) / power, np.round(values / power) * power)
    other = np.isfinite(decimals) & ~usual
    shorter[other] = [float(f"{value:.{digits - 1}e}") for value in values[other]]
    return np.where(np.isfinite(decimals), shorter, values)
