"""From a null model and genotypes to a result table."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
from threadpoolctl import threadpool_limits

from kron2sum_cli.errors import InputError, NumericalError
from kron2sum_cli.files.json_records import to_json
from kron2sum_cli.files.null_file import NullFile
from kron2sum_cli.files.scan_columns import scan_schema
from kron2sum_cli.files.scan_table import ScanWriter
from kron2sum_cli.files.table_writers import compressed_output
from kron2sum_cli.files.trait_design import asked_hypotheses
from kron2sum_cli.model.block_scanner import Scanner
from kron2sum_cli.model.hypotheses import Hypothesis, named_hypothesis
from kron2sum_cli.model.null_model import NullModel
from kron2sum_cli.progress import Advance, Progress
from kron2sum_cli.scan.block import ScanPlan, scan_block
from kron2sum_cli.scan.blocks import block_width, blocks_of, in_order, segments
from kron2sum_cli.scan.inputs import Chosen, ScanInputs, choose_variants, open_inputs
from kron2sum_cli.scan.metadata import null_scale, scan_metadata
from kron2sum_cli.scan.refits import RefitPlan, refit_plan
from kron2sum_cli.scan.resume import Checkpoint, FinishedBlock, checkpoint
from kron2sum_cli.settings import ScanSettings

logger = logging.getLogger("kron2sum.scan")


def scan_variants(settings: ScanSettings, progress: Progress) -> None:
    """Test every selected variant and write the result table.

    Raises
    ------
    InputError, NumericalError, OutputError, UsageError
        Where a file, the options or the numbers do not allow it.
    """
    inputs = open_inputs(settings)
    null = inputs.null
    chosen = choose_variants(settings, inputs)
    any_effect = named_hypothesis("any", null.traits)
    hypotheses = [any_effect, *asked_hypotheses(settings.tests, null.traits, null.whole.axes.Tinv)]
    settings = _without_refits(settings, null)
    tests = [h.name for h in hypotheses[1:]]
    d = null.description
    schema = scan_schema(null.traits, tests, settings.refit > 0, d.coupled, d.has_missing)
    counts = Counter(chosen.counts)
    metadata = scan_metadata(settings, inputs, chosen.span)
    width = block_width(settings, null)
    logger.info("%d variants to test in blocks of %d", len(chosen.positions), width)
    with (
        checkpoint(settings.out, to_json(metadata) | {"block": width}, settings.resume) as kept,
        compressed_output(settings.out) as file,
        threadpool_limits(limits=1, user_api="blas"),
        ScanWriter(file, schema, settings.to) as writer,
        progress.task("Scanning", len(chosen.positions), "variants") as advance,
    ):
        for done in _blocks(settings, inputs, chosen, width, hypotheses, schema, kept, advance):
            writer.write(done.batch)
            counts.update(done.counts)
        writer.metadata = replace(metadata, counts={k: v for k, v in sorted(counts.items()) if v})
    _report(counts, settings.out)


def _without_refits(settings: ScanSettings, null: NullFile) -> ScanSettings:
    """The settings without refits where the trait design of the null model does not allow them."""
    if settings.refit and null.description.reduced:
        logger.warning("no variants are refitted: refits need a null model without --trait-design, or a square one")
        return replace(settings, refit=0.0)
    return settings


def _blocks(
    settings: ScanSettings,
    inputs: ScanInputs,
    chosen: Chosen,
    width: int,
    hypotheses: Sequence[Hypothesis],
    schema: pa.Schema,
    kept: Checkpoint,
    advance: Advance,
) -> Iterator[FinishedBlock]:
    """All blocks in the order of the file: those of an interrupted scan, then the others, kept as they come."""
    finished = 0
    for done in kept.finished(schema):
        finished += 1
        yield done
    if finished:
        logger.info("%d finished blocks of an interrupted scan taken over", finished)
    for segment in segments(inputs, chosen):
        blocks = blocks_of(segment, width)
        skipped, finished = min(finished, len(blocks)), max(finished - len(blocks), 0)
        advance(sum(int(np.count_nonzero(block.wanted)) for block in blocks[:skipped]))
        if skipped == len(blocks):
            continue
        plan = _plan(settings, inputs, hypotheses, schema, segment.chromosome)
        for done, block in in_order(partial(scan_block, plan), blocks[skipped:], settings.common.threads):
            kept.add(done)
            advance(int(np.count_nonzero(block.wanted)))
            yield done
        del plan  # else two rotations would be in memory while the next is read
    if finished:
        raise InputError(f"{settings.out}: there are more finished blocks than this scan has; scan without --resume")


def _plan(
    settings: ScanSettings,
    inputs: ScanInputs,
    hypotheses: Sequence[Hypothesis],
    schema: pa.Schema,
    chromosome: str | None,
) -> ScanPlan:
    null = inputs.null
    dtype = np.float64 if settings.precision == "double" else np.float32
    model = null.load(chromosome, dtype)
    context = null_scale(null, chromosome).context(settings.stat)
    scanner = model.scanner(dtype)
    return ScanPlan(
        source=inputs.source,
        rows=inputs.rows,
        filters=inputs.filters,
        scanner=scanner,
        centred=model.spans_intercept,
        axes=model.summary.axes,
        context=context,
        hypotheses=hypotheses,
        refit=_refits(model, scanner, settings.refit, chromosome),
        traits=null.traits,
        observed=np.isfinite(null.description.Y) if null.description.has_missing else None,
        schema=schema,
    )


def _refits(
    model: NullModel,
    scanner: Scanner,
    threshold: float,
    chromosome: str | None,
) -> RefitPlan | None:
    """How to refit; nothing where the null model has no fit by maximum likelihood, which is said."""
    try:
        return refit_plan(model, scanner, threshold)
    except NumericalError as error:
        where = f" of chromosome {chromosome}" if chromosome else ""
        logger.warning("no variants%s are refitted: by maximum likelihood, which refits need, %s", where, error)
        return None


def _report(counts: Mapping[str, int], out: str) -> None:
    for reason, number in counts.items():
        if number:
            logger.info("%d %s", number, reason)
    logger.info("results written to %s", out)
