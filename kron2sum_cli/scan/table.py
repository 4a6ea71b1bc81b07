"""The result table of a scan of variants or of sets: what it says of its making, and its rows.

Blocks are worked on at the same time, and written in order. Finished blocks are kept to resume; with ``--bootstrap``
rows wait for P over the whole scan.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from threadpoolctl import threadpool_limits

from kron2sum_cli._version import __version__
from kron2sum_cli.files.genome_wide import Largest, adjusted, largest_of_parts, thresholds_of
from kron2sum_cli.files.inputs import FileRecord, file_records
from kron2sum_cli.files.json_records import to_json
from kron2sum_cli.files.null_file import NullFile
from kron2sum_cli.files.scan_metadata import ScanMetadata, ScannedNull, TestOptions
from kron2sum_cli.files.scan_table import ScanWriter
from kron2sum_cli.files.table_writers import compressed_output
from kron2sum_cli.genotypes.filters import GENOTYPE_FILTERS
from kron2sum_cli.model.bootstrap import (
    SimulatedTraits,
    normal_errors,
    permutations,
    simulated_normal,
    simulated_permuted,
)
from kron2sum_cli.option_values import without_folders
from kron2sum_cli.progress import Advance
from kron2sum_cli.scan.block import BlockResult
from kron2sum_cli.scan.inputs import ScanInputs
from kron2sum_cli.scan.nulls import LoadedNull
from kron2sum_cli.scan.resume import FinishedBlocks, finished_blocks
from kron2sum_cli.settings import ScanSettings

logger = logging.getLogger("kron2sum.scan")

AnyBlock = TypeVar("AnyBlock")
T = TypeVar("T")
R = TypeVar("R")


def scan_metadata(settings: ScanSettings, inputs: ScanInputs) -> ScanMetadata:
    """The metadata of a result table, without its counts."""
    null, draws = inputs.null, settings.of_sets and "lr" in settings.set_tests
    return ScanMetadata(
        version=__version__,
        null=_scanned_null(null),
        traits=null.traits,
        filters=_filters(settings),
        settings=TestOptions(
            tests=tuple(without_folders(test) for test in settings.tests),
            precision=settings.precision,
            stat=settings.stat,
            refit=inputs.refit,
            seed=settings.common.seed if inputs.refit or settings.bootstrap or draws else None,
            conditioned=() if inputs.conditioned is None else inputs.conditioned.names,
            bootstrap=settings.bootstrap,
            resample=settings.resample,
            coding=settings.coding,
            interaction=settings.interaction,
            random_slopes=settings.random_slopes,
        ),
        inputs={"geno": inputs.files, **_further_inputs(settings)},
        coupled=null.description.coupled,
        null_of_chr=inputs.null_of_chr,
        span=inputs.selection.span,
        nulls=tuple(known.scale for known in inputs.nulls.values()),
    )


def _scanned_null(null: NullFile) -> ScannedNull:
    observed: dict[str, int] = {}
    if null.description.has_missing:
        observed = dict(zip(null.traits, np.isfinite(null.description.Y).sum(axis=0).tolist(), strict=True))
    estimates = null.whole.estimates
    return ScannedNull(
        hash=null.metadata.hash,
        method=null.metadata.method,
        lml=null.whole.lml,
        C0=estimates.C0,
        C1=null.whole.axes.C1,  # undetermined entries, too
        samples=len(null.samples),
        covariates=null.covariates,
        observed=observed,
        rank=null.whole.rank,
        transform=null.metadata.transform,
        grm=tuple(record.name for record in null.grm.files),
        reduced=null.description.reduced,
    )


def _further_inputs(settings: ScanSettings) -> dict[str, tuple[FileRecord, ...]]:
    """The files of contrasts, of sets and of covariates, where there are some."""
    paths = {
        "tests": settings.contrasts,
        "sets": [] if settings.sets is None else [settings.sets],
        "covar": [] if settings.covar is None else [settings.covar],
    }
    return {role: file_records(files) for role, files in paths.items() if files}


def _filters(settings: ScanSettings) -> dict[str, Any]:
    """The options on variants that were given."""
    given = {name: getattr(settings, name) for name in (*GENOTYPE_FILTERS, "ploidy")}
    lists = {"extract": settings.extract, "exclude": settings.exclude}
    given |= {name: path and file_records([path]) for name, path in lists.items()}
    if settings.of_sets:
        given |= {name: getattr(settings, name) for name in ("windows", "set_tests", "set_weights", "set_max_maf")}
        given["founders"] = settings.founders or None
    return {name: value for name, value in given.items() if value is not None}


class ResultTable:
    """Writes the rows of blocks: at once, or with ``--bootstrap`` when the P values over the whole scan are known.

    ``counts`` are numbers of variants (or sets) by what became of them, and ``largest`` the largest statistics of the
    simulated data sets, so far. At the end the table's metadata say both, too.
    """

    def __init__(
        self,
        settings: ScanSettings,
        metadata: ScanMetadata,
        counts: Mapping[str, int],
        finished: FinishedBlocks,
        writer: ScanWriter,
    ) -> None:
        self._settings, self._metadata, self._finished, self._writer = settings, metadata, finished, writer
        self._waiting: list[BlockResult] = []
        self._refit_factors: dict[str, Mapping[str, float]] = {}
        self.counts = Counter(counts)
        self.largest: Largest = {}

    def results(
        self,
        blocks_of_nulls: Iterable[tuple[str | None, Sequence[AnyBlock]]],
        work_under: Callable[[str | None], Callable[[AnyBlock], BlockResult]],
        size: Callable[[AnyBlock], int],
        advance: Advance,
    ) -> Iterator[BlockResult]:
        """All blocks in order, written as they come: those of an interrupted scan, then the others, which are kept.

        Blocks come in groups by the chromosome that their null model leaves out, under which ``work_under`` works.
        """
        done = 0
        for result in self._finished.read():
            done += 1
            self._add(result)
            yield result
        for chromosome, blocks in blocks_of_nulls:
            advance(sum(size(block) for block in blocks[:done]))
            blocks, done = blocks[done:], max(done - len(blocks), 0)
            if not blocks:
                continue
            work = work_under(chromosome)
            for result, block in in_order(work, blocks, self._settings.common.threads):
                self._finished.add(result)
                advance(size(block))
                self._add(result)
                yield result
            del work  # else two rotations would be in memory while the next is read
        self._finish()

    def _add(self, result: BlockResult) -> None:
        self.counts.update(result.counts)
        self._refit_factors |= result.refit_factors
        self.largest = largest_of_parts([self.largest, result.largest])
        if not self._settings.bootstrap:
            self._writer.write(result.rows)
        elif not self._finished.are_kept:
            self._waiting.append(result)

    def _finish(self) -> None:
        """Write the rows that had to wait, and the metadata with what is known after the last block."""
        if self._settings.bootstrap:
            of_shard = self._settings.shard is not None
            for result in chain(self._waiting, self._finished.read_again()):
                self._writer.write(result.rows if of_shard else adjusted(result.rows, self.largest))
        self._writer.metadata = replace(
            self._metadata,
            counts={reason: number for reason, number in sorted(self.counts.items()) if number},
            refit_factors=dict(sorted(self._refit_factors.items())),
            largest=self.largest,
            thresholds=thresholds_of(self.largest),
        )

    def report_thresholds(self) -> None:
        """Say above which -log10 P a variant is significant over the whole scan."""
        if self._settings.bootstrap and self._settings.shard is not None:
            logger.info("thresholds are those of all shards: kron2sum export joins them")
            return
        for name, levels in thresholds_of(self.largest).items():
            text = ", ".join(f"{value:.3f} at {level}" for level, value in levels.items())
            logger.info("threshold of -log10 P over the whole scan, %s: %s", name, text or "more data sets are needed")


@contextmanager
def result_table(
    settings: ScanSettings, columns: pa.Schema, metadata: ScanMetadata, counts: Mapping[str, int], width: int
) -> Iterator[ResultTable]:
    """The table that a scan in blocks of this width writes, with what was counted before the first of them.

    BLAS has one thread meanwhile, as blocks run in threads.
    """
    with (
        finished_blocks(settings.out, to_json(metadata) | {"block": width}, settings.resume) as finished,
        compressed_output(settings.out) as file,
        threadpool_limits(limits=1, user_api="blas"),
        ScanWriter(file, columns, settings.to) as writer,
    ):
        yield ResultTable(settings, metadata, counts, finished, writer)


def simulated_traits(settings: ScanSettings, inputs: ScanInputs, loaded: LoadedNull) -> SimulatedTraits | None:
    """Traits simulated under a null model, from the seed alone; None without ``--bootstrap``."""
    number, seed, null = settings.bootstrap, settings.common.seed, inputs.null
    if not number:
        return None
    data = null.description
    n, p = data.Y.shape
    if settings.resample == "normal":
        return simulated_normal(loaded.model, normal_errors(seed, number, n, p), loaded.given, inputs.dtype)
    return simulated_permuted(loaded.model, data.Y, permutations(seed, number, n), loaded.given, inputs.dtype)


def in_order(work: Callable[[T], R], items: Sequence[T], threads: int) -> Iterator[tuple[R, T]]:
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
