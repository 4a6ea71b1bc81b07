"""From a null model and genotypes to a result table."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from kron2sum_cli._version import __version__
from kron2sum_cli.errors import InputError, UsageError
from kron2sum_cli.genotypes.bed import is_plink_bed, open_bed
from kron2sum_cli.genotypes.chromosomes import encode_chromosomes, normalise_chromosome
from kron2sum_cli.genotypes.filters import VariantFilters, names_not_found, select_by_name
from kron2sum_cli.genotypes.source import GenotypeSource
from kron2sum_cli.model.hypotheses import Hypothesis, named_hypothesis
from kron2sum_cli.model.null_model import NullModel
from kron2sum_cli.model.scanner import block_scanner
from kron2sum_cli.pipeline.progress import Progress
from kron2sum_cli.pipeline.refit_block import refit_plan
from kron2sum_cli.pipeline.scan_block import Block, ScanPlan, scan_block
from kron2sum_cli.pipeline.settings import ScanSettings
from kron2sum_cli.pipeline.tests_asked import asked_hypotheses
from kron2sum_cli.reports.later_tests import null_record, test_context
from kron2sum_cli.tables.checkpoint import checkpoint
from kron2sum_cli.tables.null_file import NullFile, read_null
from kron2sum_cli.tables.outputs import atomic_output, guard_inputs
from kron2sum_cli.tables.provenance import file_records
from kron2sum_cli.tables.samples import match
from kron2sum_cli.tables.scan_parts import Span
from kron2sum_cli.tables.scan_table import ScanWriter, scan_schema
from kron2sum_cli.tables.text import read_name_list

logger = logging.getLogger("kron2sum.scan")

BLOCK_BYTES = 32 << 20
"""Genotypes of one block in memory, unless ``--memory`` asks for less."""

LARGEST_BLOCK, SMALLEST_BLOCK = 1024, 16
"""Variants in a block; a power of two between these."""

COPIES_OF_BLOCK = 4
"""Arrays of the size of a block that a thread holds at once: read, padded, rotated, and what BLAS packs."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Segment:
    """A run of variants that are tested with one null model.

    Attributes
    ----------
    chromosome : whose null model; None for that of the whole genome
    positions : in the file, increasing, of all variants that names allow
    wanted : which of them are asked for
    """

    chromosome: str | None
    positions: NDArray[np.intp]
    wanted: NDArray[np.bool_]


def scan_variants(settings: ScanSettings, progress: Progress) -> None:
    """Test every selected variant and write the result table.

    Raises
    ------
    InputError, NumericalError, OutputError, UsageError
        Where a file, the options or the numbers do not allow it.
    """
    guard_inputs(settings.out, settings.input_paths)
    null = read_null(settings.null)
    source = _open_genotypes(settings, null)
    guard_inputs(settings.out, source.files)
    rows = _rows(null, source)
    filters = _filters(settings, source)
    chosen = _choose(settings, source, filters)
    any_effect = named_hypothesis("any", null.traits)
    hypotheses = [any_effect, *asked_hypotheses(settings.tests, null.traits, null.whole.axes.Tinv)]
    schema = scan_schema(null.traits, [h.name for h in hypotheses[1:]], settings.refit > 0, {})
    counts = Counter(chosen.counts)
    metadata = _metadata(settings, null, source, chosen.span)
    width = _block_width(settings, null)
    logger.info("%d variants to test in blocks of %d", len(chosen.positions), width)
    with (
        checkpoint(settings.out, metadata | {"block": width}, settings.resume) as kept,
        atomic_output(settings.out) as file,
        threadpool_limits(limits=1, user_api="blas"),
        ScanWriter(file, schema, settings.to) as writer,
        progress.task("Scanning", len(chosen.positions), "variants") as advance,
    ):
        finished = 0
        for done in kept.finished():
            writer.write(done.batch)
            counts.update(done.counts)
            finished += 1
        if finished:
            logger.info("%d finished blocks of an interrupted scan taken over", finished)
        for segment in _segments(null, source, chosen):
            blocks = _blocks(segment, width)
            skipped, finished = min(finished, len(blocks)), max(finished - len(blocks), 0)
            advance(sum(int(np.count_nonzero(block.wanted)) for block in blocks[:skipped]))
            if skipped == len(blocks):
                continue
            plan = _plan(settings, null, source, rows, filters, hypotheses, schema, segment.chromosome)
            for done, block in _in_order(partial(scan_block, plan), blocks[skipped:], settings.common.threads):
                writer.write(done.batch)
                kept.add(done)
                counts.update(done.counts)
                advance(int(np.count_nonzero(block.wanted)))
        writer.set_metadata(metadata | {"counts": {k: v for k, v in sorted(counts.items()) if v}})
    for reason, number in counts.items():
        if number:
            logger.info("%d %s", number, reason)
    logger.info("results written to %s", settings.out)


def _open_genotypes(settings: ScanSettings, null: NullFile) -> GenotypeSource:
    path = settings.geno if settings.geno is not None else _recorded_genotypes(settings, null)
    if not is_plink_bed(path):
        raise InputError(f"{path}: is not a PLINK .bed; convert it with plink2 --make-bed")
    return open_bed(path)


def _recorded_genotypes(settings: ScanSettings, null: NullFile) -> str:
    """The genotypes that the GRM was made from, if they are still what they were."""
    if not null.grm.get("genotypes"):
        raise UsageError("--geno: needed, because the relationship matrix of this null model was not made of genotypes")
    path = str(null.grm["path"])
    beside = os.path.join(os.path.dirname(settings.null), path)
    found = next((p for p in (path, beside) if os.path.isfile(p)), None)
    if found is None:
        raise InputError(f"{path}: the genotypes that the null model was made from are not there; name them with --geno")
    stem = found[:-4] if found.endswith(".bed") else found
    now = file_records([found, stem + ".bim", stem + ".fam"])
    if now != list(null.grm["files"]):
        raise InputError(
            f"{found}: is not the file that the null model was made from (its size or content differ); fit again, or"
            " name the genotypes to scan with --geno"
        )
    return found


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
        if names is not None and (unknown := names_not_found(names, source.variants)):
            logger.warning("--%s %s: %d of its %d names are in no variant of the genotypes", option, path, unknown, len(names))
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


def _choose(settings: ScanSettings, source: GenotypeSource, filters: VariantFilters) -> Chosen:
    """Variants by place (which a table covers or not), shard, and name."""
    total = len(source.variants)
    places = VariantFilters(chromosomes=filters.chromosomes, regions=filters.regions)
    placed, _ = select_by_name(source.variants, places)
    start, stop = _shard_edges(settings.shard, total)
    inside = placed[(placed >= start) & (placed < stop)]
    counts = {"variants read": len(inside)}
    everything = np.arange(total)
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
    """The stretch of the file of a shard, cut at multiples of the largest block."""
    if shard is None:
        return 0, total
    part, parts = shard
    edges = [min(-(-total * k // parts // LARGEST_BLOCK) * LARGEST_BLOCK, total) for k in range(parts)] + [total]
    return edges[part - 1], edges[part]


def _runs(positions: NDArray[np.intp]) -> tuple[tuple[int, int], ...]:
    """Half-open ranges of consecutive positions."""
    if not len(positions):
        return ()
    edges = np.flatnonzero(np.diff(positions) > 1) + 1
    return tuple((int(run[0]), int(run[-1]) + 1) for run in np.split(positions, edges))


def _metadata(settings: ScanSettings, null: NullFile, source: GenotypeSource, span: Span) -> dict[str, Any]:
    axes = null.whole.axes
    return {
        "version": __version__,
        "null": {
            "hash": null.hash,
            "method": null.method,
            "lml": null.whole.lml,
            "C0": null.whole.estimates.C0.tolist(),
            "C1": null.whole.estimates.C1.tolist(),
            "samples": len(null.samples),
            "covariates": list(null.covariates),
        },
        "nulls": [null_record(null, chromosome) for chromosome in (None, *null.chromosomes)],
        "null_of_chr": _null_of_chromosomes(null, source),
        "traits": list(null.traits),
        "axes": axes.T.tolist(),
        "filters": _filter_record(settings),
        "settings": {"tests": list(settings.tests), "precision": settings.precision, "stat": settings.stat, "refit": settings.refit},
        "inputs": {"geno": file_records(source.files)},
        "span": span.to_metadata(),
    }


def _null_of_chromosomes(null: NullFile, source: GenotypeSource) -> dict[str, str]:
    """With LOCO: which chromosome's null model the variants of a chromosome, as the file spells it, are tested with."""
    if not null.chromosomes:
        return {}
    spelled = source.variants.table["CHR"].unique().to_pylist()
    return {name: code for name in spelled if (code := normalise_chromosome(name)) in null.chromosomes}


def _filter_record(settings: ScanSettings) -> dict[str, Any]:
    record: dict[str, Any] = {
        name: getattr(settings, name)
        for name in ("maf", "mac", "max_missing", "hwe")
        if getattr(settings, name) is not None
    }
    for name in ("extract", "exclude"):
        path = getattr(settings, name)
        if path is not None:
            record[name] = file_records([path])
    return record


def _block_width(settings: ScanSettings, null: NullFile) -> int:
    """Variants in a block: a power of two that fits the memory.

    Raises
    ------
    InputError
        Where the null model and the smallest blocks need more than ``--memory``.
    """
    n = len(null.samples)
    size = 8 if settings.precision == "double" else 4
    per_variant = COPIES_OF_BLOCK * n * size
    width = min(LARGEST_BLOCK, max(SMALLEST_BLOCK, BLOCK_BYTES // (n * size)))
    limit = settings.common.memory_mib
    if limit is not None:
        model = n * n * (8 + size)
        left = limit * 2**20 - model - BASE_BYTES
        fits = left // (per_variant * settings.common.threads)
        if fits < SMALLEST_BLOCK:
            needed = (model + BASE_BYTES + SMALLEST_BLOCK * per_variant * settings.common.threads) >> 20
            raise InputError(
                f"--memory {limit}: the null model of {n} samples and {settings.common.threads} threads need"
                f" {needed + 1} MiB; allow that, or use fewer threads"
            )
        width = min(width, int(fits))
    return 1 << (int(width).bit_length() - 1)


BASE_BYTES = 300 << 20
"""What Python and its libraries take."""


def _segments(null: NullFile, source: GenotypeSource, chosen: Chosen) -> Iterator[Segment]:
    """Runs of variants with the same null model: the whole one's, or with LOCO that without their chromosome."""
    wanted = np.isin(chosen.named, chosen.positions, assume_unique=True)
    if not null.chromosomes:
        yield Segment(None, chosen.named, wanted)
        return
    codes, index = encode_chromosomes(source.variants.table["CHR"])
    edges = np.flatnonzero(np.diff(index[chosen.named])) + 1
    without = 0
    for part, asked in zip(np.split(chosen.named, edges), np.split(wanted, edges), strict=True):
        if not asked.any():
            continue
        code = codes[int(index[part[0]])]
        if code not in null.chromosomes:
            without += int(np.count_nonzero(asked))
        yield Segment(code if code in null.chromosomes else None, part, asked)
    if without:
        logger.warning("%d variants on chromosomes that the GRM has none of: tested with the whole GRM's null", without)


def _plan(
    settings: ScanSettings,
    null: NullFile,
    source: GenotypeSource,
    rows: NDArray[np.intp],
    filters: VariantFilters,
    hypotheses: Sequence[Hypothesis],
    schema: pa.Schema,
    chromosome: str | None,
) -> ScanPlan:
    model = null.load(chromosome)
    point = model.point()
    dtype = np.float32 if settings.precision == "single" else np.float64
    context = test_context(null_record(null, chromosome), settings.stat)
    return ScanPlan(
        source=source,
        rows=rows,
        filters=filters,
        scanner=block_scanner(point, model.Qx, dtype),
        centred=_spans_intercept(model),
        axes=point.axes,
        context=context,
        hypotheses=hypotheses,
        refit=refit_plan(model, settings.refit),
        traits=null.traits,
        schema=schema,
    )


def _spans_intercept(model: NullModel) -> bool:
    """Whether a constant lies in the span of the projected covariates."""
    n = model.Qx.shape[0]
    return bool(np.sum(model.Qx.sum(axis=0) ** 2) > n * (1 - 1e-9))


def _blocks(segment: Segment, width: int) -> list[Block]:
    """Blocks cut at multiples of the width in the file, those of which something is asked for."""
    edges = np.flatnonzero(np.diff(segment.positions // width)) + 1
    parts = zip(np.split(segment.positions, edges), np.split(segment.wanted, edges), strict=True)
    return [Block(positions, wanted) for positions, wanted in parts if wanted.any()]


def _in_order(work: Callable[[T], R], items: Sequence[T], threads: int) -> Iterator[tuple[R, T]]:
    """Results in the order of the items, at most two more than ``threads`` of them in the making."""
    with ThreadPoolExecutor(threads, thread_name_prefix="scan") as pool:
        waiting: list[tuple[Future[R], T]] = []
        try:
            for item in items:
                waiting.append((pool.submit(work, item), item))
                if len(waiting) > threads + 1:
                    future, first = waiting.pop(0)
                    yield future.result(), first
            while waiting:
                future, first = waiting.pop(0)
                yield future.result(), first
        finally:
            for future, _ in waiting:
                future.cancel()
