"""Joint tests of sets of variants: one row a set."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import groupby

import pyarrow as pa

from kron2sum_cli.files.genome_wide import thresholds_of
from kron2sum_cli.files.scan_columns import set_schema
from kron2sum_cli.model.conditioning import conditioned_set_scanner
from kron2sum_cli.model.sets.random_effects import SetNull
from kron2sum_cli.progress import Progress
from kron2sum_cli.scan.blocks import block_width
from kron2sum_cli.scan.conditioned import genotyped_covariates
from kron2sum_cli.scan.inputs import ScanInputs, open_inputs
from kron2sum_cli.scan.metadata import scan_metadata
from kron2sum_cli.scan.set_block import EXPLAINING, MANY_EFFECTS, NO_RESULT, SetPlan, test_sets
from kron2sum_cli.scan.set_members import blocks_of_sets, find_sets
from kron2sum_cli.scan.table import report_thresholds, result_table, simulated_traits
from kron2sum_cli.settings import DEFAULT_REFIT, ScanSettings

logger = logging.getLogger("kron2sum.scan")


def scan_sets(settings: ScanSettings, progress: Progress) -> None:
    """Test every set of ``--sets`` or ``--windows`` and write their table.

    Raises InputError, NumericalError, OutputError, UsageError where a file, the options or the numbers do not allow it.
    """
    inputs = open_inputs(replace(settings, shard=None))
    schema = set_schema([test.name for test in inputs.tests[1:]], settings.set_tests, settings.bootstrap > 0)
    found, width = find_sets(settings, inputs), block_width(settings, inputs)
    blocks, counts = blocks_of_sets(found, width), found.counts
    metadata = replace(scan_metadata(_without_refits(settings), inputs), span=found.span)
    logger.info("%d sets to test in %d blocks", counts["sets"], len(blocks))
    with result_table(settings, schema, metadata, width) as table:
        of_nulls = ((null, list(group)) for null, group in groupby(blocks, key=lambda block: block.chromosome))
        plan_under = partial(_plan, settings, inputs, schema)
        with progress.task("Testing", counts["sets"], "sets") as advance:
            for result in table.results(
                of_nulls, lambda null: partial(test_sets, plan_under(null)), lambda block: len(block.sets), advance
            ):
                counts.update(result.counts)
        some, largest = {reason: n for reason, n in sorted(counts.items()) if n}, table.largest
        table.describe(replace(metadata, counts=some, largest=largest, thresholds=thresholds_of(largest)))
    _report(counts)
    logger.info("results written to %s", settings.out)
    report_thresholds(settings, largest)


def _without_refits(settings: ScanSettings) -> ScanSettings:
    """The settings as they apply to sets, which are not fitted again."""
    if settings.refit not in (0.0, DEFAULT_REFIT):
        logger.warning("--refit %g: sets of variants are not refitted", settings.refit)
    return replace(settings, refit=0.0)


def _plan(settings: ScanSettings, inputs: ScanInputs, schema: pa.Schema, chromosome: str | None) -> SetPlan:
    """What is done with every set under the null model without a chromosome, or (None) that of the whole genome."""
    loaded = inputs.load(chromosome)
    model, scanner = loaded.model, loaded.model.set_scanner(inputs.dtype)
    if loaded.given is not None:
        scanner = conditioned_set_scanner(scanner, loaded.given)
    null = SetNull(
        model.summary.axes, model.summary.mean_diagonal, loaded.scale.context(settings.stat, settings.precision)
    )
    covariates = genotyped_covariates(inputs.null.description, inputs.conditioned)
    simulated = simulated_traits(settings, inputs, loaded)
    return SetPlan(inputs, settings, scanner, model.spans_intercept, covariates, null, inputs.tests, schema, simulated)


def _report(counts: Mapping[str, int]) -> None:
    """Say what was counted, and what has no result."""
    if counts.get(EXPLAINING):
        logger.warning(
            "%d %s: they have as many effects as there are values; split them", counts[EXPLAINING], EXPLAINING
        )
    if counts.get(MANY_EFFECTS):
        logger.warning(
            "%d %s; use --stat f, another --set-test, or fewer variants a set", counts[MANY_EFFECTS], MANY_EFFECTS
        )
    for reason, number in counts.items():
        if number and reason != MANY_EFFECTS:
            logger.log(logging.WARNING if reason.startswith(NO_RESULT) else logging.INFO, "%d %s", number, reason)
