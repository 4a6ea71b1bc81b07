"""How the variants of a scan are cut into blocks, and how blocks are worked on at the same time."""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.files.null_file import NullFile
from kron2sum_cli.genotypes.chromosomes import encode_chromosomes
from kron2sum_cli.scan.block import Block
from kron2sum_cli.scan.inputs import Chosen, ScanInputs
from kron2sum_cli.settings import ScanSettings

logger = logging.getLogger("kron2sum.scan")

BLOCK_BYTES = 32 << 20
"""Genotypes of one block in memory, unless ``--memory`` asks for less."""

LARGEST_BLOCK, SMALLEST_BLOCK = 1024, 16
"""Variants in a block; a power of two between these."""

COPIES_OF_BLOCK = 4
"""Arrays of the size of a block that a thread holds at once: read, selected, rotated, and what BLAS packs."""

BASE_BYTES = 300 << 20
"""What Python and its libraries take."""

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


def segments(inputs: ScanInputs, chosen: Chosen) -> Iterator[Segment]:
    """Runs of variants with the same null model: the whole one's, or with LOCO that without their chromosome."""
    null, source = inputs.null, inputs.source
    everything = chosen.positions is chosen.named  # for which np.isin would take several times their memory
    wanted = np.ones(len(chosen.named), np.bool_) if everything else np.isin(chosen.named, chosen.positions)
    if not null.chromosomes:
        yield Segment(None, chosen.named, wanted)
        return
    codes, index, _ = encode_chromosomes(source.variants.table["CHR"], null.chromosomes)
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


def blocks_of(segment: Segment, width: int) -> list[Block]:
    """Blocks cut at multiples of the width in the file, those of which something is asked for."""
    multiples = np.arange(width, 1 + segment.positions.max(initial=0), width)
    edges = np.searchsorted(segment.positions, multiples)  # several in one place leave parts without variants
    parts = zip(np.split(segment.positions, edges), np.split(segment.wanted, edges), strict=True)
    return [Block(positions, wanted) for positions, wanted in parts if wanted.any()]


def block_width(settings: ScanSettings, null: NullFile) -> int:
    """Variants in a block: a power of two that fits the memory.

    Raises
    ------
    InputError
        Where the null model and the smallest blocks need more than ``--memory``.
    """
    d, n, size = null.description, len(null.samples), 8 if settings.precision == "double" else 4
    per_variant = COPIES_OF_BLOCK * n * size
    width = min(LARGEST_BLOCK, max(SMALLEST_BLOCK, BLOCK_BYTES // (n * size)))
    limit = settings.common.memory_mib
    if limit is not None:
        model = d.scanner_bytes(null.nrows, size)
        if settings.null == "-":  # held whole
            model += 8 * n * null.nrows * (1 + len(null.chromosomes))
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
