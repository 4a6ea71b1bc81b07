"""Probabilities of founders at loci, as R/qtl2 makes them of crosses: a column for every founder at every locus.

Two layouts are read, which the header tells apart:

- a row a sample, its columns named ``FOUNDER.LOCUS`` (as R's ``as.data.frame`` names those of an array) or
  ``LOCUS.FOUNDER``;
- a row for every sample at every locus: the sample, the locus (``marker``, ``locus``, ``SNPID`` ...), perhaps its
  chromosome and position, and a column a founder.

At a locus the probabilities of a sample add up to 1 (or to 2, as copies do). As genotypes they are copies of a
founder's allele, which add up to 2 to the last digit, so that with an intercept one of them follows from the others
whatever they were rounded to.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.files.samples import Samples, refuse_duplicates
from kron2sum_cli.files.text import id_columns, stream_rows
from kron2sum_cli.genotypes.genotype_table import (
    UNNAMED_ALLELE,
    UNPLACED,
    MapEntry,
    TableSource,
    copies_in_row,
    described,
    read_map,
    require_width,
    variant_column,
)
from kron2sum_cli.genotypes.source import Variants

logger = logging.getLogger("kron2sum.genotypes")

SEPARATORS = (".", ":", "_", "|", "/", "-", " ")
"""What may stand between a founder and a locus in the name of a column."""

USUAL_FOUNDERS = 40
"""Crosses have fewer founders, or genotypes of founders (36 of 8), than this."""

ROUNDING = 0.05
"""Largest share by which the probabilities of a sample at a locus may miss 1, having been rounded."""


@dataclass(frozen=True)
class FounderColumns:
    """The f founders and l loci of a table, and which of them each of its columns (f l,) is of."""

    founders: tuple[str, ...]
    loci: tuple[str, ...]
    founder: NDArray[np.intp]
    locus: NDArray[np.intp]

    @property
    def contiguous(self) -> bool:
        """Whether the columns of a locus stand side by side."""
        return int(np.count_nonzero(np.diff(self.locus))) == len(self.loci) - 1


@dataclass(frozen=True)
class _Content:
    """What a table holds: n samples, f founders, l loci with their columns, and probabilities (n, l, f)."""

    samples: Samples
    founders: tuple[str, ...]
    loci: tuple[str, ...]
    entries: Sequence[MapEntry]
    table: NDArray[np.float32]


def founder_columns(names: Sequence[str], known: Collection[str] = ()) -> FounderColumns | None:
    """Tell founders from loci in the names of columns; None where they are not every founder at every locus.

    Names may be readable in both ways. Then that one is taken of which more loci are ``known`` from a map; of equal
    ones that with no more founders than `USUAL_FOUNDERS`, then that whose columns of a locus stand side by side, then
    that with fewer founders.

    >>> founder_columns(["A.mk1", "B.mk1", "A.mk2", "B.mk2"]).loci
    ('mk1', 'mk2')
    """
    found = []
    for separator in SEPARATORS:
        if not all(separator in name for name in names):
            continue
        first = [name.partition(separator)[::2] for name in names]
        last = [name.rpartition(separator)[::-2] for name in names]
        found += [columns for pairs in (first, last) if (columns := _every_pair(pairs)) is not None]
    if not found:
        return None
    known = set(known)

    def preference(columns: FounderColumns) -> tuple[int, bool, bool, int]:
        in_map = sum(locus in known for locus in columns.loci) * len(columns.founders)
        return in_map, len(columns.founders) <= USUAL_FOUNDERS, columns.contiguous, -len(columns.founders)

    return max(found, key=preference)


def _every_pair(pairs: Sequence[tuple[str, ...]]) -> FounderColumns | None:
    """The founders and loci of pairs, if there are two founders or more, and every pair once."""
    of_column, founders = pd.factorize(np.array([founder for founder, _ in pairs], dtype=object))
    locus_of_column, loci = pd.factorize(np.array([locus for _, locus in pairs], dtype=object))
    complete = len(founders) * len(loci) == len(pairs) == len(set(pairs))
    if len(founders) < 2 or not complete or "" in founders or "" in loci:
        return None
    return FounderColumns(tuple(founders), tuple(loci), of_column, locus_of_column)


def open_founders(path: str, map_path: str | None = None) -> TableSource:
    """Read a table of founder probabilities, whose loci may lie in a map (see `read_map`).

    There is a variant ``LOCUS.FOUNDER`` with EA = FOUNDER for every founder at every locus, all founders of a locus
    side by side; its dosages, 0 to 2, add up to 2 at a locus. Raises InputError where the table or the map cannot be
    read, the names of its columns are not every founder at every locus, or probabilities do not add up to 1.
    """
    known = {} if map_path is None else read_map(map_path)
    header = _header(path)
    n_ids = id_columns(header) or 1
    is_long = len(header) > n_ids and variant_column(header[n_ids]) == "SNPID"
    content = _read_long(path, header, n_ids) if is_long else _read_wide(path, header, n_ids, known)
    dosages = _copies(content, path)
    rows = [
        (entry.chromosome, entry.position, f"{locus}.{founder}", founder, UNNAMED_ALLELE)
        for locus, own in zip(content.loci, content.entries, strict=True)
        for entry in [known.get(locus, own)]
        for founder in content.founders
    ]
    unplaced = sum(row[0] == UNPLACED for row in rows) // len(content.founders)
    if unplaced:
        logger.warning(
            "%s: %d of %d loci have no chromosome and position; give them with --map FILE",
            path,
            unplaced,
            len(content.loci),
        )
    logger.info(
        "%s: %d founders (%s) at %d loci, the first %s",
        path,
        len(content.founders),
        ", ".join(content.founders[:10]) + (", ..." if len(content.founders) > 10 else ""),
        len(content.loci),
        content.loci[0],
    )
    files = (path,) if map_path is None else (path, map_path)
    return TableSource(path, files, content.samples, Variants.of_rows(rows, path), dosages)


def variants_of_loci(table: pa.Table) -> dict[str, list[str]]:
    """The names of the variants of every locus, ``LOCUS.FOUNDER`` with FOUNDER for EA, in a table of variants."""
    loci: dict[str, list[str]] = {}
    for name, founder in zip(table["SNPID"].to_pylist(), table["EA"].to_pylist(), strict=True):
        loci.setdefault(name.removesuffix(f".{founder}"), []).append(name)
    return loci


def _header(path: str) -> tuple[str, ...]:
    """The names of the columns; R's ``write.table`` leaves out that of the first one."""
    rows = list(islice(stream_rows(path), 2))
    if not rows:
        raise InputError(f"{path} is empty; check the command that wrote it")
    names = tuple(name.strip() for name in rows[0].fields)
    return ("", *names) if len(rows[-1].fields) == len(names) + 1 else names


def _read_wide(path: str, header: tuple[str, ...], n_ids: int, known: Mapping[str, MapEntry]) -> _Content:
    """A table with a row a sample."""
    columns = founder_columns(header[n_ids:], known)
    if columns is None:
        raise InputError(
            f"{path}, line 1: the columns are not every founder at every locus, named FOUNDER.LOCUS or LOCUS.FOUNDER"
            f" (the first: {', '.join(header[n_ids : n_ids + 3])}); write the array of R/qtl2 as a data frame, and"
            " nothing beside it but the samples, in the first column"
        )
    ids, lines, cells = [], [], []
    for row in islice(stream_rows(path), 1, None):
        require_width(row, header, path)
        ids.append([cell.strip() for cell in row.fields[:n_ids]])
        lines.append(row.line)
        cells.append(copies_in_row(row, n_ids, path, 2))
    samples = Samples.of_names(ids, path)
    if not ids:
        raise InputError(f"{path} has no samples; check the file")
    refuse_duplicates(samples, lines)
    table = np.empty((len(ids), len(columns.loci), len(columns.founders)), dtype=np.float32)
    table[:, columns.locus, columns.founder] = np.array(cells)
    return _Content(samples, columns.founders, columns.loci, [MapEntry()] * len(columns.loci), table)


def _read_long(path: str, header: tuple[str, ...], n_ids: int) -> _Content:
    """A table with a row for every sample at every locus; what it has no row of is missing."""
    columns = [None] * n_ids + [variant_column(name) for name in header[n_ids:]]
    columns = columns[: next((k for k in range(n_ids, len(header)) if columns[k] is None), len(header))]
    founders = header[len(columns) :]
    if len(founders) < 2 or len(set(founders)) < len(founders):
        raise InputError(f"{path}, line 1: needs a column for each of two founders or more behind {header[n_ids]}")
    sample_of: dict[tuple[str, ...], int] = {}
    locus_of_name: dict[str, int] = {}
    entries: list[MapEntry] = []
    cells: dict[tuple[int, int], NDArray[np.float32]] = {}
    for row in islice(stream_rows(path), 1, None):
        require_width(row, header, path)
        name, entry = described(row, columns, path)
        if name not in locus_of_name:
            locus_of_name[name] = len(entries)
            entries.append(entry)
        sample = sample_of.setdefault(tuple(cell.strip() for cell in row.fields[:n_ids]), len(sample_of))
        key = sample, locus_of_name[name]
        if key in cells:
            label = " ".join(row.fields[:n_ids])
            raise InputError(f"{path}, line {row.line}: sample {label} has locus {name} twice; remove one of the two")
        cells[key] = copies_in_row(row, len(columns), path, 2)
    if not cells:
        raise InputError(f"{path} has no samples; check the file")
    table = np.full((len(sample_of), len(entries), len(founders)), np.nan, dtype=np.float32)
    table[tuple(np.array(list(cells)).T)] = np.array(list(cells.values()))
    samples = Samples.of_names(sample_of, path)
    refuse_duplicates(samples)
    return _Content(samples, founders, tuple(locus_of_name), entries, table)


def _copies(content: _Content, path: str) -> NDArray[np.float32]:
    """Copies (l f, n) of the founders' alleles, which add up to 2; NaN at a locus where one of them is missing."""
    table = content.table
    total = table.sum(axis=2)  # NaN where one is missing
    seen = total[~np.isnan(total)]
    whole = 2.0 if seen.size and np.median(seen) > 1.5 else 1.0
    wrong = (np.abs(total - whole) > ROUNDING * whole) | (table < 0).any(axis=2)
    if wrong.any():
        sample, locus = (int(k) for k in np.argwhere(wrong)[0])
        cells = ", ".join(f"{value:g}" for value in table[sample, locus, :10])
        raise InputError(
            f"{path}: the probabilities of sample '{content.samples.label(sample)}' at locus {content.loci[locus]} add"
            f" up to {total[sample, locus]:g}, not to {whole:g} ({cells}); give those of all founders, and no negative"
            " ones"
        )
    table = table * (2 / total[:, :, None])
    return np.ascontiguousarray(table.reshape(len(table), -1).T)
