"""Joint tests of sets of variants: one row a set."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby

import pyarrow as pa
from threadpoolctl import threadpool_limits

from kron2sum_cli.files.genome_wide import thresholds_of
from kron2sum_cli.files.json_records import to_json
from kron2sum_cli.files.scan_columns import set_schema
from kron2sum_cli.files.scan_table import ScanWriter
from kron2sum_cli.files.table_writers import compressed_output
from kron2sum_cli.model.conditioning import conditioned_set_scanner
from kron2sum_cli.model.hypotheses import Hypothesis
from kron2sum_cli.model.sets.random_effects import SetNull
from kron2sum_cli.progress import Advance, Progress
from kron2sum_cli.scan.block import BlockResult
from kron2sum_cli.scan.blocks import block_width, in_order
from kron2sum_cli.scan.conditioned import genotyped_covariates, scale_given
from kron2sum_cli.scan.inputs import ScanInputs, model_type, number_type, open_inputs, tests_of
from kron2sum_cli.scan.metadata import null_scale, scan_metadata
from kron2sum_cli.scan.resume import FinishedBlocks, finished_blocks
from kron2sum_cli.scan.set_block import EXPLAINING, MANY_EFFECTS, NO_RESULT, SetPlan, test_sets
from kron2sum_cli.scan.set_members import SetBlock, blocks_of_sets, find_sets
from kron2sum_cli.scan.thresholds import RowWriter, report_thresholds, simulated_traits
from kron2sum_cli.settings import DEFAULT_REFIT, ScanSettings

logger = logging.getLogger("kron2sum.scan")


def scan_sets(settings: ScanSettings, progress: Progress) -> None:
    """Test every set of ``--sets`` or ``--windows`` and write their table.

    Raises InputError, NumericalError, OutputError, UsageError where a file, the options or the numbers do not allow it.
    """
    inputs = open_inputs(replace(settings, shard=None))
    null = inputs.null
    hypotheses = tests_of(settings, null)
    schema = set_schema([h.name for h in hypotheses[1:]], settings.set_tests, settings.bootstrap > 0)
    found, width = find_sets(settings, inputs), block_width(settings, inputs)
    blocks, counts = blocks_of_sets(found, width), found.counts
    metadata = replace(scan_metadata(_without_refits(settings), inputs), span=found.span)
    logger.info("%d sets to test in %d blocks", counts["sets"], len(blocks))
    with (
        finished_blocks(settings.out, to_json(metadata) | {"block": width}, settings.resume) as finished,
        compressed_output(settings.out) as file,
        threadpool_limits(limits=1, user_api="blas"),
        ScanWriter(file, schema, settings.to) as writer,
    ):
        rows = RowWriter(settings, finished, writer)
        with progress.task("Testing", counts["sets"], "sets") as advance:
            for result in _results(settings, inputs, hypotheses, schema, blocks, finished, advance):
                rows.add(result)
                counts.update(result.counts)
        rows.finish()
        some, largest = {reason: n for reason, n in sorted(counts.items()) if n}, rows.largest
        writer.metadata = replace(metadata, counts=some, largest=largest, thresholds=thresholds_of(largest))
    _report(counts)
    logger.info("results written to %s", settings.out)
    report_thresholds(settings, largest)


def _without_refits(settings: ScanSettings) -> ScanSettings:
    """The settings as they apply to sets, which are not fitted again."""
    if settings.refit not in (0.0, DEFAULT_REFIT):
        logger.warning("--refit %g: sets of variants are not refitted", settings.refit)
    return replace(settings, refit=0.0)


def _results(
    settings: ScanSettings,
    inputs: ScanInputs,
    hypotheses: Sequence[Hypothesis],
    schema: pa.Schema,
    blocks: Sequence[SetBlock],
    finished: FinishedBlocks,
    advance: Advance,
) -> Iterator[BlockResult]:
    """All blocks in the order of the sets: those of an interrupted scan, then the others, kept as they come."""
    done = 0
    for result in finished.read():
        done += 1
        advance(result.rows.num_rows)
        yield result
    for chromosome, group in groupby(blocks[done:], key=lambda block: block.chromosome):
        plan = _plan(settings, inputs, hypotheses, schema, chromosome)
        for result, block in in_order(partial(test_sets, plan), list(group), settings.common.threads):
            finished.add(result)
            advance(len(block.sets))
            yield result
        del plan  # else two rotations would be in memory while the next is read


def _plan(
    settings: ScanSettings,
    inputs: ScanInputs,
    hypotheses: Sequence[Hypothesis],
    schema: pa.Schema,
    chromosome: str | None,
) -> SetPlan:
    """What is done with every set under the null model without a chromosome, or (None) that of the whole genome."""
    dtype, data = number_type(settings), inputs.null.description
    model, scale = inputs.null.load(chromosome, model_type(settings, inputs)), null_scale(inputs.null, chromosome)
    scanner, given = model.set_scanner(dtype), None
    if inputs.conditioned is not None:
        given = inputs.conditioned.under(model, data)
        scanner, scale = conditioned_set_scanner(scanner, given), scale_given(scale, given, model.summary.reml)
    context = scale.context(settings.stat, settings.precision)
    null = SetNull(model.summary.axes, model.summary.mean_diagonal, context)
    covariates = genotyped_covariates(data, inputs.conditioned)
    simulated = simulated_traits(settings, inputs.null, model, given) if settings.bootstrap else None
    return SetPlan(inputs, settings, scanner, model.spans_intercept, covariates, null, hypotheses, schema, simulated)


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
