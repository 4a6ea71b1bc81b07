"""Whether a file is as kron2sum wrote it: every checksum, hash and number."""

import logging
from typing import BinaryIO

from kron2sum_cli.tables.null_file import read_null
from kron2sum_cli.tables.scan_file import open_scan

LOGGER = logging.getLogger("kron2sum.export")


def check_null(path: str, name: str) -> None:
    """Read a null model with all its fits.

    Raises
    ------
    InputError
        If it is damaged, or its numbers are not those of its hash, or do not make a null model.
    """
    null = read_null(path)
    for chromosome in (None, *null.chromosomes):
        null.load(chromosome)
    left_out = f", {len(null.chromosomes)} chromosomes left out in turn" if null.chromosomes else ""
    LOGGER.info(
        "%s: sound: a null model of %d samples and %d traits%s, hash %s",
        name,
        len(null.samples),
        len(null.traits),
        left_out,
        null.hash,
    )


def check_scan(handle: BinaryIO, name: str) -> None:
    """Read a result table to its last byte.

    Raises
    ------
    InputError
        If it is damaged, or was changed after it was written.
    NumericalError
        If a cell is NaN or infinite.
    """
    table = open_scan(handle, name)
    table.check(handle)
    null = table.metadata.get("null")
    of = f", null model {null['hash']}" if isinstance(null, dict) and "hash" in null else ""
    LOGGER.info("%s: sound: %d rows, %d columns%s", name, table.num_rows, len(table.schema), of)
