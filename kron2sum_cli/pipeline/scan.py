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
from kron2sum_cli.model.hypotheses import Hypothesis, hypothesis, named_hypothesis
from kron2sum_cli.model.null_model import NullModel
from kron2sum_cli.model.scanner import block_scanner
from kron2sum_cli.pipeline.progress import Progress
from kron2sum_cli.pipeline.refit_block import refit_plan
from kron2sum_cli.pipeline.scan_block import ScanPlan, scan_block
from kron2sum_cli.pipeline.settings import ScanSettings
from kron2sum_cli.reports.later_tests import null_record, test_context
from kron2sum_cli.tables.null_file import NullFile, read_null
from kron2sum_cli.tables.outputs import atomic_output, guard_inputs
from kron2sum_cli.tables.provenance import file_records
from kron2sum_cli.tables.samples import match
from kron2sum_cli.tables.scan_table import ScanWriter, scan_schema
from kron2sum_cli.tables.text import read_name_list
from kron2sum_cli.tables.trait_design import read_trait_design

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
    """A run of variants that are tested with one null model: positions in the file, increasing."""

    chromosome: str | None
    positions: NDArray[np.intp]


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
    positions, left_out = select_by_name(source.variants, filters)
    for option, number in left_out.items():
        logger.info("%d variants left out by %s", number, option)
    span = _span(settings, len(source.variants))
    positions = positions[(positions >= span["start"]) & (positions < span["stop"])]
    hypotheses = _hypotheses(settings, null)
    schema = scan_schema(null.traits, [h.name for h in hypotheses[1:]], settings.refit > 0, {})
    counts = Counter({"variants read": span["stop"] - span["start"]})
    metadata = _metadata(settings, null, source, span)
    width = _block_width(settings, null)
    logger.info("%d variants to test in blocks of %d", len(positions), width)
    with (
        atomic_output(settings.out) as file,
        threadpool_limits(limits=1, user_api="blas"),
        ScanWriter(file, schema, settings.to) as writer,
        progress.task("Scanning", len(positions), "variants") as advance,
    ):
        for segment in _segments(null, source, positions):
            plan = _plan(settings, null, source, rows, filters, hypotheses, schema, segment.chromosome)
            blocks = _blocks(segment.positions, width)
            for done, block in _in_order(partial(scan_block, plan), blocks, settings.common.threads):
                writer.write(done.batch)
                counts.update(done.counts)
                advance(len(block))
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


def _span(settings: ScanSettings, total: int) -> dict[str, int]:
    """The stretch of the file that this shard scans, cut at multiples of the largest block."""
    if settings.shard is None:
        return {"start": 0, "stop": total, "of": total}
    part, parts = settings.shard
    edges = [min(-(-total * k // parts // LARGEST_BLOCK) * LARGEST_BLOCK, total) for k in range(parts)] + [total]
    return {"start": edges[part - 1], "stop": edges[part], "of": total}


def _hypotheses(settings: ScanSettings, null: NullFile) -> list[Hypothesis]:
    """The any-effect test, then the others in the order given."""
    found = [named_hypothesis("any", null.traits)]
    for text in settings.tests:
        name, equals, path = text.partition("=")
        if equals:
            found.append(hypothesis(name, read_trait_design(path, null.traits)))
        elif text != "any":
            found.append(named_hypothesis(text, null.traits))
    return found


def _metadata(settings: ScanSettings, null: NullFile, source: GenotypeSource, span: dict[str, int]) -> dict[str, Any]:
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
        "span": span,
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
    if settings.chromosomes:
        record["chr"] = [list(item) for item in settings.chromosomes]
    if settings.regions:
        record["region"] = [str(region) for region in settings.regions]
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


def _segments(null: NullFile, source: GenotypeSource, positions: NDArray[np.intp]) -> Iterator[Segment]:
    """Runs of variants with the same null model: the whole one's, or with LOCO that without their chromosome."""
    if not null.chromosomes:
        yield Segment(None, positions)
        return
    codes, index = encode_chromosomes(source.variants.table["CHR"])
    of_variant = index[positions]
    edges = np.flatnonzero(np.diff(of_variant)) + 1
    without = 0
    for part in np.split(positions, edges):
        if not len(part):
            continue
        code = codes[int(index[part[0]])]
        if code not in null.chromosomes:
            without += len(part)
        yield Segment(code if code in null.chromosomes else None, part)
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


def _blocks(positions: NDArray[np.intp], width: int) -> list[NDArray[np.intp]]:
    """Positions cut at multiples of the width in the file."""
    edges = np.flatnonzero(np.diff(positions // width)) + 1
    return [block for block in np.split(positions, edges) if len(block)]


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
