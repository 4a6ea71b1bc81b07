"""Result tables for the tests of reports: made in memory, or written and opened as a scan's."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scan_metadata_of import scan_metadata_of
from scipy import stats

from kron2sum_cli.export.results import ScanResults
from kron2sum_cli.files.scan_columns import scan_schema
from kron2sum_cli.files.scan_metadata import ScanMetadata, Span
from kron2sum_cli.files.scan_table import ScanWriter, open_scan, scan_batch

Array = NDArray[np.float64]


def mlog10p(chisq: Array, df: int) -> Array:
    return np.asarray(-stats.chi2.logsf(chisq, df) / np.log(10))


def simulated(
    size: int,
    traits: Sequence[str],
    tests: Sequence[str] = (),
    refit: bool = False,
    seed: int = 0,
    peaks: int = 3,
    chromosomes: Sequence[str] = ("1", "2", "X"),
) -> dict[str, Any]:
    """Columns of a table with some strong loci, and one variant in twenty without statistics."""
    random = np.random.default_rng(seed)
    p = len(traits)
    chromosome = np.sort(random.integers(len(chromosomes), size=size))
    position = random.integers(1, 50_000_000, size)
    order = np.lexsort((position, chromosome))
    eaf = random.uniform(0.001, 0.999, size)
    se = 1 / np.sqrt(2 * eaf * (1 - eaf) * 1000)[:, None] * np.ones(p)
    z = random.normal(size=(size, p))
    for lead in random.integers(size, size=min(peaks, size)):
        z[max(lead - 2, 0) : lead + 3] += random.normal(0, 6, size=p)
    columns: dict[str, Any] = {
        "CHR": np.array(chromosomes)[chromosome[order]].tolist(),
        "POS": position[order],
        "SNPID": [f"rs{i + 1}" for i in range(size)],
        "EA": np.array(["A", "C"])[random.integers(2, size=size)].tolist(),
        "NEA": np.array(["G", "T"])[random.integers(2, size=size)].tolist(),
        "EAF": eaf,
        "N": random.integers(900, 1001, size),
    }
    columns |= statistics(z, se, traits, tests, refit, random)
    nothing = random.random(size) < 0.05
    for name, values in columns.items():
        if name not in ("CHR", "POS", "SNPID", "EA", "NEA", "EAF", "N"):
            columns[name] = pa.array(np.asarray(values), mask=nothing)
    return columns


def statistics(
    z: Array, se: Array, traits: Sequence[str], tests: Sequence[str], refit: bool, random: np.random.Generator
) -> dict[str, Any]:
    size, p = z.shape
    chisq = np.sum(z**2, axis=1)
    columns: dict[str, Any] = {"CHISQ": chisq, "DF": np.full(size, p), "MLOG10P": mlog10p(chisq, p)}
    columns["P"] = 10.0 ** -columns["MLOG10P"]
    for j, trait in enumerate(traits):
        columns |= {f"BETA.{trait}": z[:, j] * se[:, j], f"SE.{trait}": se[:, j]}
        columns |= {f"MLOG10P.{trait}": mlog10p(z[:, j] ** 2, 1), f"AXIS.{j + 1}": 1 / se[:, j] ** 2}
    endings = ["", *(f".{test}" for test in tests)]
    for ending in endings[1:]:
        other = random.chisquare(1, size)
        columns |= {f"CHISQ{ending}": other, f"DF{ending}": np.ones(size), f"MLOG10P{ending}": mlog10p(other, 1)}
    if refit:
        few = np.where(columns["P"] < 1e-4, 1.0, np.nan)
        sources = [(kind, ending) for kind in ("CHISQ", "MLOG10P") for ending in endings]
        sources += [(kind, f".{trait}") for kind in ("BETA", "SE") for trait in traits]
        columns |= {f"{kind}_REFIT{ending}": few * columns[kind + ending] for kind, ending in sources}
    return columns


def metadata_of(traits: Sequence[str], tests: Sequence[str], size: int) -> ScanMetadata:
    return scan_metadata_of(traits, Span(((0, size),), ((0, size),), size), tests)


def view_of(
    columns: dict[str, Any],
    traits: Sequence[str],
    tests: Sequence[str] = (),
    refit: bool = False,
    batch_rows: int = 1 << 16,
) -> ScanResults:
    """A table in memory that is read in batches of so many rows."""
    size = len(columns["CHR"])
    metadata = metadata_of(traits, tests, size)
    schema = scan_schema(traits, tests, refit)
    table = pa.Table.from_batches([scan_batch(schema, columns)])

    def rows(names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        yield from table.select(list(names)).to_batches(max_chunksize=batch_rows)

    return ScanResults("memory", tuple(schema.names), metadata, rows, tuple(traits))


def opened(path: Path, columns: dict[str, Any], traits: Sequence[str], tests: Sequence[str] = ()) -> ScanResults:
    """The same through a file."""
    metadata = metadata_of(traits, tests, len(columns["CHR"]))
    schema = scan_schema(traits, tests)
    with open(path, "wb") as file, ScanWriter(file, schema, metadata=metadata) as writer:
        writer.write(scan_batch(schema, columns))
    scan = open_scan(str(path))
    return ScanResults(scan.name, tuple(scan.schema.names), scan.metadata, scan.iter_batches, tuple(traits))


def column(view: ScanResults, name: str) -> list[Any]:
    """A whole column."""
    return [value for batch in view.read([name]) for value in batch.column(name).to_pylist()]
