"""P values over a whole scan, from the largest statistics of simulated traits (``--bootstrap``)."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from kron2sum_cli.files.scan_columns import MLOG10P, MLOG10P_GW, MLOG10P_SET, MLOG10P_SET_GW
from kron2sum_cli.model.bootstrap import adjusted_mlog10p, threshold

LEVELS = ("0.1", "0.05", "0.01")
"""Levels of the thresholds."""

Largest = Mapping[str, tuple[float, ...]]
"""For every test and trait by name, the largest -log10 P of each simulated data set."""


def largest_of_parts(parts: Sequence[Largest]) -> dict[str, tuple[float, ...]]:
    """The largest statistics over parts of a scan; parts without any variant may have none."""
    names = dict.fromkeys(name for part in parts for name in part)
    values = {name: [part[name] for part in parts if name in part] for name in names}
    return {name: tuple(np.max(found, axis=0).tolist()) for name, found in values.items()}


def thresholds_of(largest: Largest) -> dict[str, dict[str, float]]:
    """The -log10 P above which P over the scan is at most each level that the number of data sets allows."""
    found = {}
    for name, values in largest.items():
        of_levels = {level: threshold(np.array(values), float(level)) for level in LEVELS}
        found[name] = {level: value for level, value in of_levels.items() if value is not None}
    return found


def name_of_test(how: str, test: str, any_effect: bool) -> str:
    """What the largest statistics call a test of sets.

    >>> name_of_test("skat", "any", True), name_of_test("skat", "common", False)
    ('skat', 'skat.common')
    """
    return how if any_effect else f"{how}.{test}"


def source_of(column: str) -> str:
    """The column of the -log10 P that a column is adjusted from.

    >>> source_of("MLOG10P_GW"), source_of("MLOG10P_GW.height")
    ('MLOG10P', 'MLOG10P.height')
    >>> source_of("MLOG10P_SET_GW.skat.common"), source_of("MLOG10P_SET_GW.fixed.common")
    ('MLOG10P_SET.skat.common', 'MLOG10P.common')
    """
    kind, dot, name = column.partition(".")
    if kind == MLOG10P_GW.name:
        return MLOG10P.name + dot + name
    how, dot_of_test, test = name.partition(".")
    return MLOG10P.name + dot_of_test + test if how == "fixed" else f"{MLOG10P_SET.name}.{name}"


def is_genome_wide(column: str) -> bool:
    """Whether a column has P values over the whole scan."""
    return column.partition(".")[0] in (MLOG10P_GW.name, MLOG10P_SET_GW.name)


def adjusted(batch: pa.RecordBatch, largest: Largest) -> pa.RecordBatch:
    """Rows with P over the whole scan in the columns for it; the rows have the columns that these come from."""
    for k, name in enumerate(batch.schema.names):
        if not is_genome_wide(name):
            continue
        observed = np.asarray(batch.column(source_of(name)).to_numpy(zero_copy_only=False), np.float64)
        of_test = np.array(largest[name.partition(".")[2] or "any"])
        batch = batch.set_column(
            k, batch.schema.field(name), pa.array(adjusted_mlog10p(observed, of_test), from_pandas=True)
        )
    return batch
