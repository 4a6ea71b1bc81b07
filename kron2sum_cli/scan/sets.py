"""Joint tests of sets of variants: one row a set."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from kron2sum_cli.errors import InputError
from kron2sum_cli.files.arrow import numbers, texts
from kron2sum_cli.files.scan_columns import set_schema
from kron2sum_cli.files.scan_table import ScanWriter, scan_batch
from kron2sum_cli.files.table_writers import compressed_output
from kron2sum_cli.files.text import read_text, split_rows
from kron2sum_cli.files.trait_design import asked_hypotheses
from kron2sum_cli.genotypes.chromosomes import encode_chromosomes, parse_region
from kron2sum_cli.genotypes.counts import genotype_counts
from kron2sum_cli.genotypes.filters import VariantFilters, passes, select_by_name
from kron2sum_cli.model.hypotheses import Hypothesis, TestContext, compare, named_hypothesis
from kron2sum_cli.model.set_test import SetReduction, SetScores, reduce_set
from kron2sum_cli.progress import Progress
from kron2sum_cli.scan.block import EXPLAINED
from kron2sum_cli.scan.blocks import in_order
from kron2sum_cli.scan.inputs import ScanInputs, open_inputs
from kron2sum_cli.scan.metadata import null_scale, scan_metadata
from kron2sum_cli.settings import DEFAULT_REFIT, ScanSettings


@dataclass(frozen=True)
class VariantSet:
    """One set: its name, its members (variant names or regions ``chr:from-to``), and its line in the file."""

    name: str
    members: tuple[str, ...]
    line: int


def read_sets(path: str) -> list[VariantSet]:
    """Read sets, one a line: the name, then variants or regions, separated by white space or commas.

    A line whose name was there before adds to that set.

    Raises
    ------
    InputError
        For a line without members, or a file without lines.
    """
    sets: dict[str, VariantSet] = {}
    for row in split_rows(read_text(path), path, " "):
        name, *fields = row.fields
        members = tuple(member for field in fields for member in field.split(",") if member)
        if not members:
            raise InputError(f"{path}, line {row.line}: set {name} has no variants; put them behind its name")
        earlier = sets.get(name)
        sets[name] = (
            VariantSet(name, (*earlier.members, *members), earlier.line)
            if earlier
            else VariantSet(name, members, row.line)
        )
    if not sets:
        raise InputError(f"{path}: has no sets; give one a line, its name and then its variants")
    return list(sets.values())


logger = logging.getLogger("kron2sum.scan")

EXPLAINING = "sets that explain the traits completely (empty statistics)"
NOT_THERE = "members of sets are no variant of the scan"


@dataclass(frozen=True)
class _Members:
    """A set with its variants found: positions in the file, increasing, and the chromosome of its null model."""

    name: str
    positions: NDArray[np.intp]
    chromosome: str | None


@dataclass(frozen=True)
class _SetPlan:
    """What is done with every set under one null model."""

    inputs: ScanInputs
    scores: Callable[[NDArray[np.float64]], SetScores]
    context: TestContext
    hypotheses: Sequence[Hypothesis]
    schema: pa.Schema


def scan_sets(settings: ScanSettings, progress: Progress) -> None:
    """Test every set of ``--sets`` and write their table.

    Raises
    ------
    InputError, NumericalError, OutputError, UsageError
        Where a file, the options or the numbers do not allow it.
    """
    assert settings.sets is not None
    inputs = open_inputs(settings)
    null = inputs.null
    hypotheses = [named_hypothesis("any", null.traits)]
    hypotheses += asked_hypotheses(settings.tests, null.traits, null.whole.axes.Tinv)
    schema = set_schema([h.name for h in hypotheses[1:]])
    allowed = np.flatnonzero(inputs.selection.asked)
    members, counts = _find(read_sets(settings.sets), settings.sets, inputs, allowed)
    metadata = scan_metadata(_without_refits(settings), inputs)
    with (
        compressed_output(settings.out) as file,
        threadpool_limits(limits=1, user_api="blas"),
        ScanWriter(file, schema, settings.to) as writer,
        progress.task("Testing", len(members), "sets") as advance,
    ):
        for chromosome, group in groupby(members, key=lambda one: one.chromosome):
            plan = _plan(settings, inputs, hypotheses, schema, chromosome)
            for batch, _ in in_order(partial(_test_set, plan), list(group), settings.common.threads):
                writer.write(batch)
                counts[EXPLAINING] += batch["DF"][0].as_py() > 0 and not batch["CHISQ"][0].is_valid
                advance(1)
        writer.metadata = replace(metadata, counts=dict(counts))
    if counts[EXPLAINING]:
        logger.warning(
            "%d %s: they have as many effects as there are values; split them", counts[EXPLAINING], EXPLAINING
        )
    for reason, number in counts.items():
        logger.info("%d %s", number, reason)
    logger.info("results written to %s", settings.out)


def _without_refits(settings: ScanSettings) -> ScanSettings:
    """The settings as they apply to sets, which are not fitted again."""
    if settings.refit not in (0.0, DEFAULT_REFIT):
        logger.warning("--refit %g: sets of variants are not refitted", settings.refit)
    return replace(settings, refit=0.0)


def _find(
    sets: Sequence[VariantSet], path: str, inputs: ScanInputs, allowed: NDArray[np.intp]
) -> tuple[list[_Members], Counter[str]]:
    """The variants of every set that the options allow.

    Raises
    ------
    InputError
        Where there are none.
    """
    variants = inputs.genotypes.variants
    names = {member for one in sets for member in one.members if not _is_region(member)}
    column = variants.table["SNPID"]
    named = np.flatnonzero(np.asarray(pc.is_in(column, value_set=texts(sorted(names)))))
    named = np.intersect1d(named, allowed, assume_unique=True)
    places: dict[str, list[int]] = {}
    for position, name in zip(named.tolist(), column.take(numbers(named)).to_pylist(), strict=True):
        places.setdefault(name, []).append(position)
    codes, code_of_variant, _ = encode_chromosomes(variants.table["CHR"], inputs.null.chromosomes)
    found = []
    counts = Counter({"sets": len(sets), NOT_THERE: 0})
    unknown: list[tuple[str, str]] = []
    for one in sets:
        positions: set[int] = set()
        for member in one.members:
            here = _in_region(member, inputs, allowed) if _is_region(member) else places.get(member, [])
            if not here:
                unknown.append((member, one.name))
            positions.update(here)
        ordered = np.array(sorted(positions), dtype=np.intp)
        on = {codes[int(code)] for code in np.unique(code_of_variant[ordered])}
        found.append(_Members(one.name, ordered, _null_of(on, one, path, inputs)))
    if not any(len(one.positions) for one in found):
        raise InputError(
            f"{path}: none of its sets has a variant of the scan; check its names and regions against"
            f" {inputs.genotypes.path}"
        )
    if unknown:
        counts[NOT_THERE] = len(unknown)
        logger.warning("%s: %d %s, such as %s of set %s", path, len(unknown), NOT_THERE, *unknown[0])
    return found, counts


def _is_region(member: str) -> bool:
    chromosome, colon, rest = member.partition(":")
    first, dash, last = rest.replace(",", "").partition("-")
    return bool(chromosome and colon and dash and first.isdigit() and last.isdigit())


def _in_region(member: str, inputs: ScanInputs, allowed: NDArray[np.intp]) -> list[int]:
    positions, _ = select_by_name(inputs.genotypes.variants, VariantFilters(regions=(parse_region(member),)))
    return [int(k) for k in np.intersect1d(positions, allowed, assume_unique=True)]


def _null_of(chromosomes: set[str], one: VariantSet, path: str, inputs: ScanInputs) -> str | None:
    """Whose null model a set is tested with: with LOCO that of its chromosome."""
    there = chromosomes & set(inputs.null.chromosomes)
    if there and len(chromosomes) > 1:
        raise InputError(
            f"{path}, line {one.line}: set {one.name} has variants on chromosomes {', '.join(sorted(chromosomes))}, and"
            " the null model leaves out one chromosome at a time; split the set, or fit without --loco"
        )
    return next(iter(there), None)


def _plan(
    settings: ScanSettings,
    inputs: ScanInputs,
    hypotheses: Sequence[Hypothesis],
    schema: pa.Schema,
    chromosome: str | None,
) -> _SetPlan:
    context = null_scale(inputs.null, chromosome).context(settings.stat)
    return _SetPlan(inputs, inputs.null.load(chromosome).set_scores(), context, hypotheses, schema)


def _test_set(plan: _SetPlan, members: _Members) -> pa.RecordBatch:
    """One row of the table."""
    G = _genotypes(plan, members.positions)
    scores = plan.scores(G)
    columns: dict[str, Sequence[object]] = {
        "SET": [members.name],
        "N_VARIANTS": [len(members.positions)],
        "N_TESTED": [G.shape[1]],
    }
    for k, hypothesis in enumerate(plan.hypotheses):
        suffix = "." + hypothesis.name if k else ""
        below = reduce_set(scores, hypothesis.base, plan.context.T)
        above = reduce_set(scores, hypothesis.full, plan.context.T)
        chisq = mlog10p = None
        if above.rank > below.rank and _leaves_something(above, plan.context):
            drops = (np.array([below.chisq]), np.array([above.chisq]))
            result = compare(*drops, below.rank, above.rank, plan.context)
            chisq, mlog10p = float(result.chisq[0]), float(result.mlog10p[0])
        columns |= {
            "CHISQ" + suffix: [chisq],
            "DF" + suffix: [above.rank - below.rank],
            "MLOG10P" + suffix: [mlog10p],
        }
        if not k:
            columns["P"] = [None if mlog10p is None else 10.0**-mlog10p]
    return scan_batch(plan.schema, columns)


def _leaves_something(reduction: SetReduction, context: TestContext) -> bool:
    """Whether the effects of a set leave more of the traits unexplained than rounding does."""
    left = context.quadratic - reduction.chisq
    return reduction.rank < context.residual_df and left > EXPLAINED["float64"] * context.quadratic


def _genotypes(plan: _SetPlan, positions: NDArray[np.intp]) -> NDArray[np.float64]:
    """Centred, mean-imputed genotypes (n, q) of the variants that vary and pass the filters."""
    inputs = plan.inputs
    dosages = inputs.genotypes.read(positions, inputs.samples)
    counts = genotype_counts(dosages, hard_calls=inputs.filters.need_hard_calls)
    kept = np.flatnonzero(passes(counts, inputs.filters)[0] & ~counts.constant)
    G = dosages[:, kept].astype(np.float64)
    means = 2 * counts.eaf[kept]
    # Covariates are projected out afterwards: without an intercept the mean has to be put in, not taken off.
    return np.where(np.isnan(G), means, G)
