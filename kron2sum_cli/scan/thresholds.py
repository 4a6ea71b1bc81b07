"""Thresholds over a whole scan, of variants or of sets (``--bootstrap``), and rows that wait for them."""

import logging
from itertools import chain

from kron2sum_cli.errors import UsageError
from kron2sum_cli.files.genome_wide import Largest, adjusted, largest_of_parts, thresholds_of
from kron2sum_cli.files.null_file import NullFile
from kron2sum_cli.files.scan_table import ScanWriter
from kron2sum_cli.model.bootstrap import (
    SimulatedTraits,
    normal_errors,
    permutations,
    simulated_normal,
    simulated_permuted,
)
from kron2sum_cli.model.conditioning import GivenVariants
from kron2sum_cli.model.null_model import NullModel
from kron2sum_cli.scan.block import BlockResult
from kron2sum_cli.scan.inputs import number_type
from kron2sum_cli.scan.resume import FinishedBlocks
from kron2sum_cli.settings import ScanSettings

logger = logging.getLogger("kron2sum.scan")


def simulated_traits(
    settings: ScanSettings, null: NullFile, model: NullModel, given: GivenVariants | None
) -> SimulatedTraits:
    """Traits simulated under a null model, from the seed alone."""
    number, seed, dtype = settings.bootstrap, settings.common.seed, number_type(settings)
    data = null.description
    n, p = data.Y.shape
    if settings.resample == "normal":
        return simulated_normal(model, normal_errors(seed, number, n, p), given, dtype)
    if null.metadata.takes_predictions_off:
        raise UsageError("--resample permute does not go with the predictions of fit --pred; use --resample normal")
    if data.has_missing:
        raise UsageError("--resample permute needs traits without missing values; use --resample normal")
    return simulated_permuted(model, data.Y, permutations(seed, number, n), given, dtype)


class RowWriter:
    """Writes the rows of blocks: at once, or with ``--bootstrap`` when the P values over the whole scan are known.

    ``largest`` are the largest statistics of the simulated data sets so far.
    """

    def __init__(self, settings: ScanSettings, finished: FinishedBlocks, writer: ScanWriter) -> None:
        self._settings, self._finished, self._writer = settings, finished, writer
        self._waiting: list[BlockResult] = []
        self.largest: Largest = {}

    def add(self, result: BlockResult) -> None:
        """Take the next block."""
        self.largest = largest_of_parts([self.largest, result.largest])
        if not self._settings.bootstrap:
            self._writer.write(result.rows)
        elif not self._finished.are_kept:
            self._waiting.append(result)

    def finish(self) -> None:
        """Write the rows that had to wait."""
        if self._settings.bootstrap:
            of_shard = self._settings.shard is not None
            for result in chain(self._waiting, self._finished.read_again()):
                self._writer.write(result.rows if of_shard else adjusted(result.rows, self.largest))


def report_thresholds(settings: ScanSettings, largest: Largest) -> None:
    """Say above which -log10 P a variant is significant over the whole scan."""
    if settings.bootstrap and settings.shard is not None:
        logger.info("thresholds are those of all shards: kron2sum export joins them")
        return
    for name, levels in thresholds_of(largest).items():
        text = ", ".join(f"{value:.3f} at {level}" for level, value in levels.items())
        logger.info("threshold of -log10 P over the whole scan, %s: %s", name, text or "more data sets are needed")
