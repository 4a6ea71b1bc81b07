"""How the variants of a scan are cut into blocks."""

import logging
from collections.abc import Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.genotypes.chromosomes import encode_chromosomes
from kron2sum_cli.scan.block import Block
from kron2sum_cli.scan.inputs import ScanInputs, largest_block
from kron2sum_cli.settings import ScanSettings

logger = logging.getLogger("kron2sum.scan")

BLOCK_BYTES = 32 << 20
"""Genotypes of one block in memory, unless ``--memory`` asks for less."""

WIDE_BLOCK_BYTES = 128 << 20
"""The same for families with missing cells, whose tables are many times as large as a block and read for each."""

SMALLEST_BLOCK = 16
"""Fewest variants in a block."""

COPIES_OF_BLOCK = 4
"""Arrays of the size of a block that a thread holds at once: read, selected, rotated, and what BLAS packs."""

SIMULATED_COPIES = 4
"""Arrays in double precision of the size of a block's scores of simulated traits that a thread holds at once."""

BASE_BYTES = 300 << 20
"""What Python and its libraries take."""

T = TypeVar("T")
R = TypeVar("R")


def blocks_by_null(inputs: ScanInputs, width: int) -> Iterator[tuple[str | None, list[Block]]]:
    """Blocks in the order of the file, grouped by the chromosome that the null model leaves out.

    That is None for the null model of the whole genome: without LOCO, and for chromosomes that the GRM has none of.
    """
    selection, left_out = inputs.selection, inputs.null.left_out
    named = np.flatnonzero(selection.named)
    if not left_out:
        yield None, blocks_of(named, selection.asked, width)
        return
    codes, code_of_variant, _ = encode_chromosomes(inputs.genotypes.variants.table["CHR"], left_out)
    nulls = list(dict.fromkeys(left_out.get(code) for code in codes))
    null_of_variant = np.array([nulls.index(left_out.get(code)) for code in codes])[code_of_variant]
    without = 0
    for variants in np.split(named, np.flatnonzero(np.diff(null_of_variant[named])) + 1):
        asked = int(np.count_nonzero(selection.asked[variants]))
        if not asked:
            continue
        chromosome = nulls[int(null_of_variant[variants[0]])]
        without += asked if chromosome is None else 0
        yield chromosome, blocks_of(variants, selection.asked, width)
    if without:
        if inputs.null.metadata.takes_predictions_off:
            logger.warning(
                "%d variants on chromosomes without predictions: tested with the traits as they are", without
            )
        else:
            logger.warning(
                "%d variants on chromosomes that the GRM has none of: tested with the whole GRM's null", without
            )


def blocks_of(variants: NDArray[np.intp], asked: NDArray[np.bool_], width: int) -> list[Block]:
    """Blocks cut at multiples of the width in the file, those of which something is asked for.

    ``variants`` (b,) are positions in the file, increasing; ``asked`` (v,) says which variants of the file are asked
    for.
    """
    edges = np.arange(width, 1 + variants.max(initial=0), width)
    parts = np.split(variants, np.searchsorted(variants, edges))
    return [Block(part, asked[part]) for part in parts if asked[part].any()]


def block_width(settings: ScanSettings, inputs: ScanInputs) -> int:
    """Variants in a block: a power of two that fits the memory.

    Raises InputError where the null model and the smallest blocks need more than ``--memory``.
    """
    null = inputs.null
    d, n, size = null.description, len(null.samples), null.itemsize(inputs.model_dtype)
    columns = 2 if settings.has_second_column else 1
    per_variant = columns * COPIES_OF_BLOCK * n * (8 if d.has_missing else size)  # missing cells take doubles
    block_bytes = WIDE_BLOCK_BYTES if null.of_families and d.has_missing else BLOCK_BYTES
    p, limit = len(null.traits), settings.common.memory_mib
    of_data_sets = p * settings.bootstrap
    numbers = max(n, p * p, of_data_sets)  # genotypes, information about the effects, scores of simulated traits
    width = min(largest_block(len(inputs.genotypes.variants)), max(SMALLEST_BLOCK, block_bytes // (numbers * size)))
    per_variant += columns * SIMULATED_COPIES * 8 * of_data_sets
    if limit is not None:
        models = 2 if null.chromosomes and settings.refit else 1  # that of the whole genome for Bartlett factors
        model = models * null.scanner_bytes(size) + n * of_data_sets * size
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
