"""From a null model and genotypes to a result table."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kron2sum_cli.errors import counted
from kron2sum_cli.files.scan_columns import MLOG10P, scan_schema
from kron2sum_cli.genotypes.chromosomes import Region, encode_chromosomes, normalise_chromosome
from kron2sum_cli.model.conditioning import conditioned_scanner
from kron2sum_cli.model.hypotheses import Hypothesis
from kron2sum_cli.model.inflation import DEFLATED, INFLATED, MedianP, inflation
from kron2sum_cli.model.null_model import NullModel
from kron2sum_cli.model.satterthwaite import EffectiveContrasts, share_found
from kron2sum_cli.option_values import BOTH_COLUMNS, INTERACTION
from kron2sum_cli.progress import Progress
from kron2sum_cli.scan.block import Scan, block_width, blocks_by_null, test_block
from kron2sum_cli.scan.inputs import ScanInputs, open_inputs
from kron2sum_cli.scan.nulls import check_known_contrasts, genotyped_covariates, null_scale
from kron2sum_cli.scan.refits import Once, factors_of_genome, refit_plan, second_of_simulated
from kron2sum_cli.scan.second_column import second_column
from kron2sum_cli.scan.stepwise import remove_earlier_signals, strong_places, write_signals
from kron2sum_cli.scan.table import result_table, scan_metadata, simulated_traits
from kron2sum_cli.settings import ScanSettings

logger = logging.getLogger("kron2sum.scan")

FEW_FOUND = 0.5
"""`share_found` below which a scan advises another statistic."""

FEWEST_VARIANTS = 100
"""Variants with a statistic below which λ says nothing."""

MOST_TESTS_NAMED = 8
"""Of more tests than this the log has the smallest and the largest λ."""


def scan_variants(settings: ScanSettings, progress: Progress) -> None:
    """Test every selected variant and write the result table.

    Raises InputError, NumericalError, OutputError, UsageError where a file, the options or the numbers do not allow it.
    """
    inputs = open_inputs(settings)
    data = inputs.null.description
    columns = scan_schema(
        inputs.null.traits,
        [test.name for test in inputs.tests[1:]],
        refit=inputs.refit > 0,
        coupled=data.coupled,
        counted=data.has_missing,
        dosages=inputs.genotypes.has_dosages,
        bootstrap=settings.bootstrap > 0,
        second=settings.second_test,
    )
    width = block_width(settings, inputs)
    inflation = Inflation(inputs.tests, inputs.null.traits, settings.second_test)
    strong: list[pa.RecordBatch] = []
    number = int(np.count_nonzero(inputs.selection.asked))
    logger.info("%s to test in blocks of %d", counted(number, "variants"), width)
    factors = factors_of_genome(settings, inputs) if inputs.null.chromosomes else None
    metadata = scan_metadata(settings, inputs)
    with result_table(settings, columns, metadata, inputs.selection.counts, width) as table:
        scan_under = partial(_scan, settings, inputs, columns, factors)
        with progress.task("Scanning", number, "variants") as advance:
            for result in table.results(
                blocks_by_null(inputs, width),
                lambda chromosome: partial(test_block, scan_under(chromosome)),
                lambda block: int(np.count_nonzero(block.asked)),
                advance,
            ):
                inflation.add(result.rows)
                if settings.stepwise is not None:
                    strong.append(strong_places(settings, result.rows))
        if settings.stepwise is not None:
            write_signals(settings, inputs, strong, table.largest, width, progress)
    _report(table.counts)
    _warn_of_no_variant(settings, inputs, table.counts)
    inflation.report(inputs)
    logger.info("results written to %s", settings.out)
    remove_earlier_signals(settings)
    table.report_thresholds()


def _scan(
    settings: ScanSettings,
    inputs: ScanInputs,
    columns: pa.Schema,
    factors: Once[NDArray[np.float64]] | None,
    chromosome: str | None,
) -> Scan:
    """The scan under the null model without a chromosome, or (None) that of the whole genome.

    ``factors`` are those of its refits; None for those of its own null model.
    """
    data, loaded = inputs.null.description, inputs.load(chromosome)
    model, given = loaded.model, loaded.given
    if chromosome == next(iter(inputs.null.chromosomes), None):
        _advise_statistic(settings, inputs, model, chromosome)
    # With missing cells a scanner takes single precision for what is not conditioned alone.
    scanner = model.scanner(np.float64 if given is not None and data.has_missing else inputs.dtype)
    if given is not None:
        scanner = conditioned_scanner(scanner, given)
    of_second = None if loaded.scale.contrasts is None else contrasts_of_second(settings, inputs, model, chromosome)
    covariates = genotyped_covariates(data, inputs.conditioned)
    own = np.hstack([data.own_covariates, covariates.X[:, data.X.shape[1] :]])
    return Scan(
        genotypes=inputs.genotypes,
        samples=inputs.samples,
        filters=inputs.filters,
        scanner=scanner,
        spans_intercept=model.spans_intercept,
        axes=model.summary.axes,
        context=loaded.scale.context(settings.stat, settings.precision),
        tests=inputs.tests,
        refit=refit_plan(settings, inputs, model, chromosome, factors) if inputs.refit > 0 else None,
        traits=inputs.null.traits,
        observed=np.isfinite(data.Y) if data.has_missing else None,
        covariates=covariates,
        columns=columns,
        conditioned=settings.is_conditioned,
        coding=settings.coding,
        second=second_column(inputs.interaction, settings.coding == "genotypic", own, scanner.dtype, of_second),
        simulated=simulated_traits(settings, inputs, loaded),
    )


def _advise_statistic(settings: ScanSettings, inputs: ScanInputs, model: NullModel, chromosome: str | None) -> None:
    """Say where few contrasts tell of the covariances, so that tests that take them as known find too little."""
    data = inputs.null.description
    if settings.stat == "satterthwaite" or not model.summary.reml or data.has_missing or settings.beyond_single_effects:
        return
    any_effect = inputs.tests[0]
    context = null_scale(data, model.summary, chromosome, model.effective_contrasts()).context("lr", "double")
    contrasts = context.contrasts_of(any_effect) or 0.0
    if contrasts > any_effect.df and share_found(any_effect.df, contrasts, context.size) < FEW_FOUND:
        logger.info(
            "the covariances rest on %.0f contrasts of samples, few for %d effects a variant: --stat %s finds too"
            " little; use --stat satterthwaite",
            contrasts,
            any_effect.df,
            settings.stat,
        )


def contrasts_of_second(
    settings: ScanSettings, inputs: ScanInputs, model: NullModel, chromosome: str | None
) -> EffectiveContrasts | None:
    """On how many contrasts the covariances rest in tests of second columns; None where variants have none."""
    second, name = second_of_simulated(inputs.interaction, settings.coding == "genotypic"), settings.second_test
    if second is None or name is None:
        return None
    found, p = model.contrasts_of_second(second, len(inputs.samples)), len(inputs.null.traits)
    of_traits = zip(inputs.null.traits, found.of_traits(model.summary.axes.Tinv), strict=True)
    known = [(name, p, found.of_effects(np.empty((p, 0)), np.eye(p)))]
    known += [(f"{name} {trait}", 1, float(contrasts)) for trait, contrasts in of_traits]
    check_known_contrasts(known, chromosome)
    return found


def _warn_of_no_variant(settings: ScanSettings, inputs: ScanInputs, counts: Mapping[str, int]) -> None:
    """Say which options left no variant to test, how many each took, and what would bring them back."""
    total, read = len(inputs.genotypes.variants), counts["variants read"]
    if counts.get("variants tested") or (settings.shard is not None and not read):  # shards may be empty
        return
    places = ["--chr"] * bool(settings.chromosomes) + ["--region"] * bool(settings.regions)
    lost = {"lie outside " + " and ".join(places): total - read} if settings.shard is None else {}
    lost |= {reason.removeprefix("variants "): number for reason, number in counts.items() if "tested" not in reason}
    lost = {reason: number for reason, number in lost.items() if number and reason != "read"}
    worst = max(lost, key=lambda reason: lost[reason], default="")
    remedy = f"; loosen or leave out {worst.split(' ', 2)[2].removeprefix('by ')}" if "--" in worst else ""
    if settings.regions and worst.startswith("lie outside"):
        remedy += _places_of(inputs, settings.regions[0])
    logger.warning(
        "no variant is tested: of the %d of %s, %s%s",
        total,
        inputs.genotypes.path,
        ", ".join(
            f"{number} {'are ' if reason.startswith('left out') else ''}{reason}" for reason, number in lost.items()
        ),
        remedy,
    )


def _places_of(inputs: ScanInputs, region: Region) -> str:
    """From where to where the variants of the chromosome of a region lie."""
    table = inputs.genotypes.variants.table
    codes, code_of_variant, human = encode_chromosomes(table["CHR"])
    here = code_of_variant == codes.index(normalise_chromosome(region.chromosome, human))
    pos = np.asarray(table["POS"], dtype=np.int64)[here]
    return f" (chromosome {region.chromosome} has variants from {pos.min()} to {pos.max()})"


def _report(counts: Mapping[str, int]) -> None:
    for reason, number in counts.items():
        if number:
            logger.info("%s", counted(number, reason))


class Inflation:
    """λ of all tests of a scan, from its rows as they come; every trait is tested given effects on the others."""

    def __init__(self, tests: Sequence[Hypothesis], traits: Sequence[str], second: str | None = None) -> None:
        self._df = {test.name: test.df for test in tests}
        if second is not None:
            self._df |= {second: len(traits), BOTH_COLUMNS: 2 * len(traits)}
        if len(traits) > 1:  # of a single one its test is that of any effect
            self._df |= dict.fromkeys(traits, 1)
        self._medians = MedianP(list(self._df))

    def add(self, rows: pa.RecordBatch) -> None:
        """Take some rows of the result table."""
        for name in self._df:
            mlog10p = rows.column(MLOG10P.named(name)).to_numpy(zero_copy_only=False)
            self._medians.add(name, np.asarray(mlog10p, np.float64))

    def lambdas(self) -> dict[str, float]:
        """λ of every test that enough variants have."""
        known = [name for name in self._df if self._medians.number(name) >= FEWEST_VARIANTS]
        return {name: inflation(self._medians.of(name), self._df[name]) for name in known}

    def report(self, inputs: ScanInputs) -> None:
        """Say λ in the log, and what to do or look for where that of any effect is far from 1."""
        found = self.lambdas()
        if "any" not in found:
            return
        text = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
        if len(found) > MOST_TESTS_NAMED:
            text = f"any {found['any']:.3f}, others {min(found.values()):.3f} to {max(found.values()):.3f}"
        logger.info("λ (median χ² over that expected): %s", text)
        if found.get(INTERACTION, 1.0) > INFLATED:
            logger.info(
                "λ of interaction above 1: if the covariate changes the effects of many variants a little, or how much"
                " the traits vary, the null model does not hold that, and P of interaction are too small: test those of"
                " interest with --random-slopes"
            )
        if inputs.null.description.reduced:  # means of traits are among the effects: λ says nothing of the rest
            return
        if found["any"] < DEFLATED and not inputs.null.chromosomes:
            if {record.hash for record in inputs.files} & {record.hash for record in inputs.null.grm.files}:
                logger.warning(
                    "λ is %.3f: the relationship matrix was made from the variants scanned, so that each competes with"
                    " itself in it and tests find too little: leave the chromosome out (fit --loco)",
                    found["any"],
                )
            else:
                logger.info("λ below 1: if the relationship matrix has the variants scanned in it, use fit --loco")
        elif found["any"] > INFLATED:
            logger.info(
                "λ above 1: many small effects over long disequilibrium, as in crosses and families, structure that the"
                " model does not hold, or traits far from normal; see the QQ plot"
            )
