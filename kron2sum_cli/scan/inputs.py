"""What a scan reads: its null model, its genotypes, and which of their samples and variants."""

import logging
import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError, UsageError
from kron2sum_cli.files.null_file import NullFile, read_null
from kron2sum_cli.files.outputs import guard_inputs
from kron2sum_cli.files.provenance import FileRecord, file_records
from kron2sum_cli.files.samples import match
from kron2sum_cli.files.scan_metadata import Span
from kron2sum_cli.files.text import read_file_list, read_name_list
from kron2sum_cli.genotypes.filters import VariantFilters, names_not_found, select_by_name
from kron2sum_cli.genotypes.open import open_genotypes
from kron2sum_cli.genotypes.source import GenotypeSource
from kron2sum_cli.settings import ScanSettings

logger = logging.getLogger("kron2sum.scan")

SHARD_MULTIPLE = 1024
"""Shards are cut at multiples of this many variants of the file, the largest block there is."""


@dataclass(frozen=True)
class ScanInputs:
    """Everything that a scan reads.

    Attributes
    ----------
    null : the null model's file
    source : the genotypes
    rows : (n,) positions of the null model's samples in them
    filters : on variants
    records : names, sizes and hashes of the files of the genotypes
    """

    null: NullFile
    source: GenotypeSource
    rows: NDArray[np.intp]
    filters: VariantFilters
    records: tuple[FileRecord, ...]


def open_inputs(settings: ScanSettings) -> ScanInputs:
    """Open the null model and the genotypes, and match their samples.

    Raises
    ------
    InputError, OutputError, UsageError
        Where a file is wrong, is also an output, or lacks samples of the null model.
    """
    guard_inputs(settings.out, settings.input_paths)
    null = read_null(settings.null)
    source, records = _open_genotypes(settings, null)
    guard_inputs(settings.out, source.files)
    return ScanInputs(null, source, _rows(null, source), _filters(settings, source), records)


@dataclass(frozen=True)
class Chosen:
    """The variants to scan.

    Attributes
    ----------
    positions : in the file, increasing
    named : those of the whole file that names allow, wherever they lie
    span : the stretch of the file that they were chosen from
    counts : how many were read, and left out by name
    """

    positions: NDArray[np.intp]
    named: NDArray[np.intp]
    span: Span
    counts: dict[str, int]


def choose_variants(settings: ScanSettings, inputs: ScanInputs) -> Chosen:
    """Variants by place (which a table covers or not), shard, and name."""
    source, filters = inputs.source, inputs.filters
    total = len(source.variants)
    places = VariantFilters(chromosomes=filters.chromosomes, regions=filters.regions)
    placed, _ = select_by_name(source.variants, places)
    start, stop = _shard_edges(settings.shard, total)
    # Shared where they are the same: of 10⁷ variants each takes 80 MB.
    inside = placed if stop - start == total else placed[(placed >= start) & (placed < stop)]
    everything = placed if len(placed) == total else np.arange(total)
    counts = {"variants read": len(inside)}
    for option in ("extract", "exclude"):
        names = getattr(filters, option)
        if names is None:
            continue
        named, _ = select_by_name(source.variants, VariantFilters(**{option: names}))
        before = len(inside)
        everything = np.intersect1d(everything, named, assume_unique=True)
        inside = np.intersect1d(inside, named, assume_unique=True)
        counts[f"variants left out by --{option}"] = before - len(inside)
    asked = _runs(placed) if filters.chromosomes or filters.regions else ((0, total),)
    ranges = tuple((max(a, start), min(b, stop)) for a, b in asked if a < stop and b > start)
    return Chosen(inside, everything, Span(ranges or ((start, start),), asked or ((0, 0),), total), counts)


def _shard_edges(shard: tuple[int, int] | None, total: int) -> tuple[int, int]:
    """The stretch of the file of a shard, cut at multiples of `SHARD_MULTIPLE`."""
    if shard is None:
        return 0, total
    part, parts = shard
    edges = [min(-(-total * k // parts // SHARD_MULTIPLE) * SHARD_MULTIPLE, total) for k in range(parts)] + [total]
    return edges[part - 1], edges[part]


def _runs(positions: NDArray[np.intp]) -> tuple[tuple[int, int], ...]:
    """Half-open ranges of consecutive positions."""
    if not len(positions):
        return ()
    edges = np.flatnonzero(np.diff(positions) > 1) + 1
    return tuple((int(run[0]), int(run[-1]) + 1) for run in np.split(positions, edges))


def _open_genotypes(settings: ScanSettings, null: NullFile) -> tuple[GenotypeSource, tuple[FileRecord, ...]]:
    """The genotypes and the records of their files."""
    paths = (*settings.geno, *(read_file_list(settings.geno_list) if settings.geno_list is not None else ()))
    if not paths:
        return _recorded_genotypes(settings, null)
    source = open_genotypes(paths, sample=settings.sample, bim=settings.bim, fam=settings.fam)
    recorded = {record.name: record for record in null.grm.files}
    records = file_records(source.files)
    for record in records:
        if record.name in recorded and record != recorded[record.name]:
            logger.warning(
                "%s: %s has other content than the file of that name that the null model was made from; fit again if"
                " it changed since",
                source.path,
                record.name,
            )
    return source, records


def _recorded_genotypes(settings: ScanSettings, null: NullFile) -> tuple[GenotypeSource, tuple[FileRecord, ...]]:
    """The genotypes that the GRM was made from, if they are still what they were."""
    if not null.grm.genotypes:
        raise UsageError("--geno: needed, because the relationship matrix of this null model was not made of genotypes")
    found = []
    for path in null.grm.paths:
        beside = os.path.join(os.path.dirname(settings.null), path)
        existing = next((name for name in (path, beside) if os.path.isfile(name)), None)
        if existing is None:
            raise InputError(
                f"{path}: the genotypes that the null model was made from are not there; name them with --geno"
            )
        found.append(existing)
    # Nothing of it is parsed before its content is known to be the recorded one.
    files = null.grm.files
    unchanged = all(record in files for record in file_records(found))
    source = open_genotypes(found) if unchanged else None
    if source is None or file_records(source.files) != files:
        raise InputError(
            f"{', '.join(found)}: is not the file that the null model was made from (its size or content differ); fit"
            " again, or name the genotypes to scan with --geno"
        )
    return source, files


def _rows(null: NullFile, source: GenotypeSource) -> NDArray[np.intp]:
    """Positions of the null model's samples in the genotypes, all of which must be there."""
    rows = match(null.samples, source.samples)
    absent = np.flatnonzero(rows < 0)
    if absent.size:
        example, there = null.samples.label(int(absent[0])), source.samples.label(0)
        raise InputError(
            f"{source.path}: lacks {absent.size} of the {len(null.samples)} samples of the null model, such as"
            f" {example} (a sample that it has: {there}); fit the null model on the samples that will be scanned"
            " (fit --keep)"
        )
    logger.info("%d samples of the null model, all in %s with %d", len(rows), source.path, len(source.samples))
    return rows


def _filters(settings: ScanSettings, source: GenotypeSource) -> VariantFilters:
    lists: dict[str, frozenset[str] | None] = {}
    for option in ("extract", "exclude"):
        path = getattr(settings, option)
        lists[option] = None if path is None else frozenset(read_name_list(path))
        names = lists[option]
        unknown = 0 if names is None else names_not_found(names, source.variants)
        if names is not None and unknown == len(names) and option == "extract":
            raise InputError(
                f"--extract {path}: none of its {unknown} names is a variant of {source.path}, such as"
                f" {min(names)}; check that both use the same names"
            )
        if names is not None and unknown:
            logger.warning(
                "--%s %s: %d of its %d names are in no variant of the genotypes", option, path, unknown, len(names)
            )
    return VariantFilters(
        extract=lists["extract"],
        exclude=lists["exclude"],
        chromosomes=settings.chromosomes,
        regions=settings.regions,
        maf=settings.maf,
        mac=settings.mac,
        max_missing=settings.max_missing,
        hwe=settings.hwe,
    )
