"""The result table of a scan of variants or of sets: blocks worked on at the same time, and written in order.

Finished blocks are kept to resume; with ``--bootstrap`` rows wait for P over the whole scan.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain
from typing import TypeVar

import pyarrow as pa
from threadpoolctl import threadpool_limits

from kron2sum_cli.files.genome_wide import Largest, adjusted, largest_of_parts, thresholds_of
from kron2sum_cli.files.json_records import to_json
from kron2sum_cli.files.scan_metadata import ScanMetadata
from kron2sum_cli.files.scan_table import ScanWriter
from kron2sum_cli.files.table_writers import compressed_output
from kron2sum_cli.model.bootstrap import (
    SimulatedTraits,
    normal_errors,
    permutations,
    simulated_normal,
    simulated_permuted,
)
from kron2sum_cli.progress import Advance
from kron2sum_cli.scan.block import BlockResult
from kron2sum_cli.scan.inputs import LoadedNull, ScanInputs
from kron2sum_cli.scan.resume import FinishedBlocks, finished_blocks
from kron2sum_cli.settings import ScanSettings

logger = logging.getLogger("kron2sum.scan")

AnyBlock = TypeVar("AnyBlock")
T = TypeVar("T")
R = TypeVar("R")


class ResultTable:
    """Writes the rows of blocks: at once, or with ``--bootstrap`` when the P values over the whole scan are known.

    ``largest`` are the largest statistics of the simulated data sets so far.
    """

    def __init__(self, settings: ScanSettings, finished: FinishedBlocks, writer: ScanWriter) -> None:
        self._settings, self._finished, self._writer = settings, finished, writer
        self._waiting: list[BlockResult] = []
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
        self.largest = largest_of_parts([self.largest, result.largest])
        if not self._settings.bootstrap:
            self._writer.write(result.rows)
        elif not self._finished.are_kept:
            self._waiting.append(result)

    def _finish(self) -> None:
        """Write the rows that had to wait."""
        if self._settings.bootstrap:
            of_shard = self._settings.shard is not None
            for result in chain(self._waiting, self._finished.read_again()):
                self._writer.write(result.rows if of_shard else adjusted(result.rows, self.largest))

    def describe(self, metadata: ScanMetadata) -> None:
        """Give the table its metadata, as they are known after the last block."""
        self._writer.metadata = metadata


@contextmanager
def result_table(
    settings: ScanSettings, columns: pa.Schema, metadata: ScanMetadata, width: int
) -> Iterator[ResultTable]:
    """The table that a scan in blocks of this width writes; BLAS has one thread meanwhile, as blocks run in threads."""
    with (
        finished_blocks(settings.out, to_json(metadata) | {"block": width}, settings.resume) as finished,
        compressed_output(settings.out) as file,
        threadpool_limits(limits=1, user_api="blas"),
        ScanWriter(file, columns, settings.to) as writer,
    ):
        yield ResultTable(settings, finished, writer)


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


def report_thresholds(settings: ScanSettings, largest: Largest) -> None:
    """Say above which -log10 P a variant is significant over the whole scan."""
    if settings.bootstrap and settings.shard is not None:
        logger.info("thresholds are those of all shards: kron2sum export joins them")
        return
    for name, levels in thresholds_of(largest).items():
        text = ", ".join(f"{value:.3f} at {level}" for level, value in levels.items())
        logger.info("threshold of -log10 P over the whole scan, %s: %s", name, text or "more data sets are needed")
