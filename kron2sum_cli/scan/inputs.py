"""What a scan reads: its null model, its genotypes, and which of their samples and variants."""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from kron2sum_cli.errors import InputError, NumericalError, UsageError
from kron2sum_cli.files.inputs import FileRecord, file_records
from kron2sum_cli.files.null_file import NullFile, read_null
from kron2sum_cli.files.outputs import guard_inputs
from kron2sum_cli.files.samples import match
from kron2sum_cli.files.scan_metadata import NullScale, Range, Span
from kron2sum_cli.files.text import read_file_list, read_name_list
from kron2sum_cli.files.trait_design import asked_hypotheses
from kron2sum_cli.genotypes.chromosomes import by_spelling
from kron2sum_cli.genotypes.filters import GENOTYPE_FILTERS, VariantFilters, have_names, in_places, names_not_found
from kron2sum_cli.genotypes.open import open_genotypes
from kron2sum_cli.genotypes.source import GenotypeSource
from kron2sum_cli.model.conditioning import GivenVariants
from kron2sum_cli.model.hypotheses import Hypothesis, Statistic, named_hypothesis
from kron2sum_cli.model.null_model import FitSummary, NullModel, TraitData
from kron2sum_cli.model.random_slopes import LARGEST
from kron2sum_cli.model.satterthwaite import share_found
from kron2sum_cli.scan.conditioned import ConditionedVariants, read_conditioned, scale_given
from kron2sum_cli.scan.second_column import Interaction, read_interaction
from kron2sum_cli.settings import DEFAULT_REFIT, ScanSettings

logger = logging.getLogger("kron2sum.scan")

FEWEST_VARIANTS, MOST_VARIANTS, FEWEST_BLOCKS = 1024, 4096, 16
"""The largest block of a file is a power of two between the first two, of which the file, unless it is small, has so
many, for threads to share. Shards are cut at its multiples."""

FEW_FOUND = 0.5
"""`share_found` below which a scan advises another statistic."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Selection:
    """Which of the v variants of the genotypes are scanned.

    - ``named`` (v,): those that ``--extract`` and ``--exclude`` allow.
    - ``asked`` (v,): those of them on the chromosomes and in the regions and the shard that are asked for.
    - ``span``: the chromosomes, regions and shard, as ranges of the file.
    - ``counts``: how many variants were read there, and left out by name.
    - ``largest_block``: variants in the largest block, at whose multiples shards are cut.
    """

    named: Mask
    asked: Mask
    span: Span
    counts: dict[str, int]
    largest_block: int


@dataclass(frozen=True)
class KnownNull:
    """What is known of a null model before variants are tested: its ``summary``, and the ``scale`` of the tests.

    Both are given the variants of the scan: the scale always, C0 and C1 with ``--stat satterthwaite``.
    """

    summary: FitSummary
    scale: NullScale


@dataclass(frozen=True)
class ScanInputs:
    """Everything that a scan reads.

    - ``null``: the null model's file, and ``nulls`` what is known of its models, by the chromosome that one leaves out;
      None for that of the whole genome.
    - ``null_of_chr``: with LOCO, the chromosome left out for variants of a chromosome, as the genotypes spell it.
    - ``genotypes``: the file of genotypes, whose records are ``files``.
    - ``samples`` (n,): rows of the null model's samples in the genotypes.
    - ``filters``, ``selection``: which variants are scanned.
    - ``tests``: the hypotheses, that of an effect on any trait first.
    - ``refit``: variants with a P below it are fitted again; none where it is 0.
    - ``dtype``: the precision of products with genotypes.
    - ``model_dtype``: that in which null models are read: double where variants are given, as the weight outside the
      relationship matrix magnifies their rounding.
    - ``conditioned``: variants whose effects are in the model of the scan, and the covariate of the interaction where
      its own effect is not in the null model; None where there are none.
    - ``interaction``: the covariate whose products with variants are tested, too; None where there is none.
    """

    null: NullFile
    nulls: Mapping[str | None, KnownNull]
    null_of_chr: Mapping[str, str]
    genotypes: GenotypeSource
    files: tuple[FileRecord, ...]
    samples: NDArray[np.intp]
    filters: VariantFilters
    selection: Selection
    tests: tuple[Hypothesis, ...]
    refit: float
    dtype: type[np.floating]
    model_dtype: type[np.floating]
    conditioned: ConditionedVariants | None = None
    interaction: Interaction | None = None

    def load(self, chromosome: str | None) -> "LoadedNull":
        """The null model without a chromosome, or (None) that of the whole genome, given the variants of the scan."""
        known = self.nulls[chromosome]
        model = replace(self.null.load(chromosome, self.model_dtype), summary=known.summary)
        given = None if self.conditioned is None else self.conditioned.under(model, self.null.description)
        return LoadedNull(model, known.scale, given)


@dataclass(frozen=True)
class LoadedNull:
    """A null model, and the scale of its tests, with what the variants that the scan is conditioned on explain."""

    model: NullModel
    scale: NullScale
    given: GivenVariants | None


def _known_nulls(
    null: NullFile, conditioned: ConditionedVariants | None, statistic: Statistic, dtype: type[np.floating]
) -> dict[str | None, KnownNull]:
    """What is known of every null model, by the chromosome that it leaves out; one of them is in memory at a time."""
    fits: list[tuple[str | None, FitSummary]] = [(None, null.whole), *null.chromosomes.items()]
    if conditioned is None and statistic != "satterthwaite":
        return {name: KnownNull(summary, null_scale(null.description, summary, name)) for name, summary in fits}
    with threadpool_limits(limits=1, user_api="blas"):  # so that no digit depends on their number
        return {name: _known_null(null, name, conditioned, statistic, dtype) for name, _ in fits}


def _known_null(
    null: NullFile,
    chromosome: str | None,
    conditioned: ConditionedVariants | None,
    statistic: Statistic,
    dtype: type[np.floating],
) -> KnownNull:
    """What is known of a null model, with C0 and C1 estimated given variants where the statistic rests on that."""
    data, model, contrasts = null.description, null.load(chromosome, dtype), None
    if statistic == "satterthwaite":
        if conditioned is None:
            contrasts = model.effective_contrasts()
        else:
            model, contrasts = conditioned.estimated(model, data)
    scale = replace(null_scale(data, model.summary, chromosome), contrasts=contrasts)
    if conditioned is not None:
        scale = scale_given(scale, conditioned.under(model, data), model.summary.reml)
    return KnownNull(model.summary, scale)


def _check_contrasts(nulls: Iterable[KnownNull], tests: Sequence[Hypothesis], traits: Sequence[str]) -> None:
    """Say on how many contrasts the covariances of tests rest, where P values depend on them; refuse too few."""
    for known in nulls:
        check_known_contrasts(contrasts_of_tests(known.scale, tests, traits), known.scale.chromosome)


def check_known_contrasts(known: Sequence[tuple[str, int, float]], chromosome: str | None) -> None:
    """Say names and contrasts of tests under the null model without a chromosome, or the whole; refuse too few."""
    refuse_few_contrasts(known, chromosome)
    if known:
        text = ", ".join(f"{name} {contrasts:.1f}" for name, _, contrasts in known)
        logger.info("contrasts on which covariances%s rest, by test: %s", _without(chromosome), text)


def refuse_few_contrasts(known: Sequence[tuple[str, int, float]], chromosome: str | None) -> None:
    """Raise NumericalError where a test, by name, degrees of freedom and contrasts, has no more of these than those."""
    for name, df, contrasts in known:
        if contrasts <= df:
            raise NumericalError(
                f"--stat satterthwaite: covariances of the null model{_without(chromosome)} rest on {contrasts:.1f}"
                f" contrasts of samples, too few for test {name} with {df} effect{'s' * (df > 1)} a variant; analyse"
                " fewer traits, or use --stat lr"
            )


def _without(chromosome: str | None) -> str:
    return f" without chromosome {chromosome}" if chromosome else ""


def contrasts_of_tests(
    scale: NullScale, tests: Sequence[Hypothesis], traits: Sequence[str]
) -> list[tuple[str, int, float]]:
    """Name, degrees of freedom and contrasts of every test and trait; nothing where P values do not depend on them."""
    if scale.contrasts is None:
        return []
    context = scale.context("satterthwaite", "double")
    known = [(test.name, test.df, context.contrasts_of(test) or 0.0) for test in tests]
    of_traits = scale.contrasts.of_traits(np.asarray(np.linalg.inv(scale.axes)))
    return known + [(trait, 1, contrasts) for trait, contrasts in zip(traits, of_traits, strict=True)]


def advise_statistic(settings: ScanSettings, inputs: ScanInputs, model: NullModel, chromosome: str | None) -> None:
    """Say where few contrasts tell of the covariances, so that tests that take them as known find too little."""
    data = inputs.null.description
    if settings.stat == "satterthwaite" or not model.summary.reml or data.has_missing or settings.beyond_single_effects:
        return
    any_effect = inputs.tests[0]
    scale = replace(null_scale(data, model.summary, chromosome), contrasts=model.effective_contrasts())
    context = scale.context("lr", "double")
    contrasts = context.contrasts_of(any_effect) or 0.0
    if contrasts > any_effect.df and share_found(any_effect.df, contrasts, context.size) < FEW_FOUND:
        logger.info(
            "the covariances rest on %.0f contrasts of samples, few for %d effects a variant: --stat %s finds too"
            " little; use --stat satterthwaite",
            contrasts,
            any_effect.df,
            settings.stat,
        )


def null_scale(data: TraitData, summary: FitSummary, chromosome: str | None) -> NullScale:
    """What tests of variants take from the null model without a chromosome, or (None) from the whole one."""
    observed = data.nobserved
    contrasts = observed - data.neffects
    return NullScale(
        chromosome=chromosome,
        axes=summary.axes.T,
        quadratic=summary.quadratic,
        size=contrasts if summary.reml else observed,
        residual_df=contrasts,
    )


def open_inputs(settings: ScanSettings) -> ScanInputs:
    """Open the null model and the genotypes, match their samples and choose variants.

    Raises InputError, NumericalError, OutputError, UsageError where a file is wrong, is also an output, or lacks
    samples of the null model, or a test is none.
    """
    names = read_names(settings)
    null = read_null(settings.null)
    _refuse_by_null(settings, null)
    genotypes, files = _open_genotypes(settings, null)
    for path in settings.outputs:
        guard_inputs(path, genotypes.files)
    _refuse_by_genotypes(settings, genotypes)
    selection = select_variants(settings, names, genotypes)
    rows = _rows(null, genotypes)
    conditioned = read_conditioned((*settings.conditions, *names.conditions), settings.founders, null, genotypes, rows)
    interaction = read_interaction(settings, null)
    if interaction is not None and interaction.to_add:
        if settings.stat == "satterthwaite":
            raise UsageError(
                f"--stat satterthwaite --interaction {interaction.name}: give the covariate to fit, too (fit --covar),"
                " or use --stat lr"
            )
        conditioned = _with_covariate(conditioned, interaction.values)
    if settings.random_slopes:
        _refuse_random_slopes(null, conditioned)
    tests, refit = _tests(settings, null), _refit_below(settings, null, conditioned)
    dtype = np.float64 if settings.precision == "double" else np.float32
    model_dtype = dtype if conditioned is None else np.float64
    nulls = _known_nulls(null, conditioned, settings.stat, model_dtype)
    _check_contrasts(nulls.values(), tests, null.traits)
    return ScanInputs(
        null=null,
        nulls=nulls,
        null_of_chr=by_spelling(null.left_out, genotypes.variants.table["CHR"]),
        genotypes=genotypes,
        files=files,
        samples=rows,
        filters=VariantFilters(**{name: getattr(settings, name) for name in GENOTYPE_FILTERS}),
        selection=selection,
        tests=tests,
        refit=refit,
        dtype=dtype,
        model_dtype=model_dtype,
        conditioned=conditioned,
        interaction=interaction,
    )


@dataclass(frozen=True)
class VariantNames:
    """The names of variants in the files of options of these names; None where there is no such file."""

    extract: frozenset[str] | None = None
    exclude: frozenset[str] | None = None
    conditions: tuple[str, ...] = ()


def read_names(settings: ScanSettings) -> VariantNames:
    """Read ``--extract``, ``--exclude`` and ``--condition-list``."""
    return VariantNames(
        extract=None if settings.extract is None else frozenset(read_name_list(settings.extract)),
        exclude=None if settings.exclude is None else frozenset(read_name_list(settings.exclude)),
        conditions=() if settings.condition_list is None else read_name_list(settings.condition_list),
    )


def _refuse_by_null(settings: ScanSettings, null: NullFile) -> None:
    """Refuse options that do not go with the null model.

    ``--resample permute`` needs samples that can be exchanged. By ML covariances are too small by themselves for
    ``--stat satterthwaite``; the contrasts of observed cells are known only about, and where covariates are many P was
    too small by them.
    """
    if settings.resample == "permute":
        if null.metadata.takes_predictions_off:
            raise UsageError("--resample permute does not go with the predictions of fit --pred; use --resample normal")
        if null.description.has_missing:
            raise UsageError("--resample permute needs traits without missing values; use --resample normal")
    if settings.stat == "satterthwaite":
        if null.metadata.method == "ml":
            raise UsageError("--stat satterthwaite needs a null model by REML; fit without --ml, or use --stat lr")
        if null.description.has_missing:
            raise UsageError(
                "--stat satterthwaite needs traits without missing values; fit with --missing drop, or use --stat lr"
            )
    if null.description.reduced:
        _judge_trait_design(settings)


def _judge_trait_design(settings: ScanSettings) -> None:
    """Refuse options that do not go with a trait design of fewer columns than traits; say what a scan is under it."""
    given = settings.is_conditioned or settings.stepwise is not None
    if settings.stat == "satterthwaite" and (given or settings.second_test is not None):
        raise UsageError(
            "--stat satterthwaite given other variants, or with a second column, needs a null model without"
            " --trait-design; use --stat lr"
        )
    logger.warning(
        "--trait-design: the intercept and other covariates have effects along its columns alone, so that tests of"
        " effects beside these (any, each trait) take means of traits for effects of variants, and depend on which"
        " allele is counted; test effects along its columns, with --test NAME=FILE"
    )
    if settings.refit and not settings.of_sets:
        logger.warning("no variants are refitted: refits need a null model without --trait-design, or a square one")


def _refuse_by_genotypes(settings: ScanSettings, genotypes: GenotypeSource) -> None:
    """Refuse options that do not go with the genotypes."""
    if settings.hwe is not None and genotypes.ploidy != 2:
        raise UsageError(f"--hwe is a test of diploid genotypes, and --ploidy is {genotypes.ploidy}; leave --hwe out")
    if settings.coding == "genotypic" and genotypes.ploidy != 2:
        raise UsageError(
            f"--coding genotypic is for diploid genotypes, and --ploidy is {genotypes.ploidy}; use dominant or"
            " recessive"
        )
    if settings.min_info is not None and not genotypes.has_dosages:
        logger.warning("--min-info: leaves nothing out, as %s has no dosages", genotypes.path)


def _refuse_random_slopes(null: NullFile, conditioned: ConditionedVariants | None) -> None:
    """Refuse random slopes where the model of them is not known, or too large."""
    data = null.description
    n, p = data.Y.shape
    remedy = "leave out --random-slopes"
    if null.of_families or data.has_missing or data.reduced:
        raise InputError(
            "--random-slopes: needs complete traits, a dense relationship matrix and no --trait-design of fewer columns"
            f" than traits; {remedy}"
        )
    if conditioned is not None:
        raise InputError(
            f"--random-slopes: needs all effects in the null model: give them to fit as covariates, or {remedy}"
        )
    size = (n - data.X.shape[1]) * p
    if size > LARGEST:
        raise InputError(
            f"--random-slopes: factorises matrices of the order of samples less covariates times traits, {size:,}, and"
            f" {LARGEST:,} is the most; analyse fewer traits, or {remedy}"
        )


def _refit_below(settings: ScanSettings, null: NullFile, conditioned: ConditionedVariants | None) -> float:
    """``--refit``, or 0 where sets, the trait design of the null model or fixed effects added do not allow refits."""
    if settings.of_sets:
        if settings.refit not in (0.0, DEFAULT_REFIT):
            logger.warning("--refit %g: sets of variants are not refitted", settings.refit)
        return 0.0
    if null.description.reduced:
        return 0.0
    if settings.refit and conditioned is not None:
        if settings.is_conditioned:
            logger.info("no variants are refitted given other variants")
        return 0.0
    return settings.refit


def _with_covariate(conditioned: ConditionedVariants | None, values: NDArray[np.float64]) -> ConditionedVariants:
    """Variants and a covariate (n,), whose effects on every trait are in the model."""
    column = values[:, None] - values.mean()
    if conditioned is None:
        return ConditionedVariants((), column)
    return replace(conditioned, G=np.hstack([conditioned.G, column]))


def _tests(settings: ScanSettings, null: NullFile) -> tuple[Hypothesis, ...]:
    """The test of an effect on any trait, then those of ``--test``; a note says whose axes are tested."""
    along = [test for test in settings.tests if test.startswith("axis:")]
    if along and null.chromosomes:
        logger.info("%s: of the null model of the whole genome, on every chromosome", ", ".join(along))
    others = asked_hypotheses(settings.tests, null.traits, null.whole.axes.Tinv)
    return named_hypothesis("any", null.traits), *others


def select_variants(settings: ScanSettings, names: VariantNames, genotypes: GenotypeSource) -> Selection:
    """The variants to scan by chromosome, region, shard and name.

    Names that no variant has are counted in a warning. Raises InputError where ``--extract`` names no variant.
    """
    variants, total = genotypes.variants, len(genotypes.variants)
    asked = in_places(variants, settings.chromosomes, settings.regions)
    ranges = _ranges(asked) if settings.chromosomes or settings.regions else ((0, total),)
    block = largest_block(total)
    start, stop = _edges_of_shard(settings.shard, total, block)
    asked[:start] = asked[stop:] = False
    covered = tuple((max(a, start), min(b, stop)) for a, b in ranges if a < stop and b > start)
    counts = {"variants read": int(np.count_nonzero(asked))}
    named = np.ones(total, dtype=np.bool_)
    for option, path, listed in (
        ("extract", settings.extract, names.extract),
        ("exclude", settings.exclude, names.exclude),
    ):
        if listed is None:
            continue
        unknown = names_not_found(listed, variants)
        if option == "extract" and unknown == len(listed):
            raise InputError(
                f"--extract {path}: none of its {unknown} names is a variant of {genotypes.path}, such as"
                f" {min(listed)}; check that both use the same names"
            )
        if unknown:
            logger.warning(
                "--%s %s: %d of its %d names are in no variant of the genotypes", option, path, unknown, len(listed)
            )
        allowed = have_names(variants, listed) == (option == "extract")
        counts[f"variants left out by --{option}"] = int(np.count_nonzero(asked & ~allowed))
        named &= allowed
        asked &= allowed
    return Selection(named, asked, Span(covered or ((start, start),), ranges or ((0, 0),), total), counts, block)


def largest_block(total: int) -> int:
    """Variants in the largest block of a file of so many: the products of larger blocks are faster."""
    fits = max(total // FEWEST_BLOCKS, 1)
    return min(MOST_VARIANTS, max(FEWEST_VARIANTS, 1 << (fits.bit_length() - 1)))


def _edges_of_shard(shard: tuple[int, int] | None, total: int, multiple: int) -> Range:
    """The stretch of the file of a shard, cut at multiples of a number of variants."""
    if shard is None:
        return 0, total
    part, parts = shard
    edges = [min(-(-total * k // parts // multiple) * multiple, total) for k in range(parts)] + [total]
    return edges[part - 1], edges[part]


def _ranges(mask: Mask) -> tuple[Range, ...]:
    """Half-open ranges in which a mask is true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]])))
    return tuple(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _open_genotypes(settings: ScanSettings, null: NullFile) -> tuple[GenotypeSource, tuple[FileRecord, ...]]:
    """The genotypes and the records of their files."""
    paths = (*settings.geno, *(read_file_list(settings.geno_list) if settings.geno_list is not None else ()))
    if not paths:
        return _recorded_genotypes(settings, null)
    genotypes = open_genotypes(
        paths,
        sample=settings.sample,
        bim=settings.bim,
        fam=settings.fam,
        variant_map=settings.map,
        ploidy=_ploidy(settings, null),
        founders=settings.founders,
    )
    recorded = {record.name: record for record in null.grm.files}
    files = file_records(genotypes.files)
    for record in files:
        if recorded.get(record.name, record) != record:
            logger.warning(
                "%s: %s has other content than the file of that name that the null model was made from; fit again if"
                " it changed since",
                genotypes.path,
                record.name,
            )
    return genotypes, files


def _recorded_genotypes(settings: ScanSettings, null: NullFile) -> tuple[GenotypeSource, tuple[FileRecord, ...]]:
    """The genotypes that the GRM was made from, if they are still what they were."""
    if not null.grm.genotypes:
        raise UsageError("--geno: needed, because the relationship matrix of this null model was not made of genotypes")
    paths = [_where_it_is(path, settings) for path in null.grm.paths]
    variant_map = _where_it_is(str(null.grm.options["map"]), settings) if "map" in null.grm.options else None
    # Their content is compared first: of changed files the parser's message would mislead.
    unchanged = all(record in null.grm.files for record in file_records(paths))
    genotypes = None
    if unchanged:
        genotypes = open_genotypes(paths, variant_map=variant_map, ploidy=_ploidy(settings, null))
    if genotypes is None or file_records(genotypes.files) != null.grm.files:
        raise InputError(
            f"{', '.join(paths)}: is not the file that the null model was made from (its size or content differ); fit"
            " again, or name the genotypes to scan with --geno"
        )
    return genotypes, null.grm.files


def _where_it_is(path: str, settings: ScanSettings) -> str:
    """A file that the null model was made from: where it was then, or relative to the null model's folder."""
    beside = os.path.join(os.path.dirname(settings.null), path)
    existing = next((name for name in (path, beside) if os.path.isfile(name)), None)
    if existing is None:
        raise InputError(
            f"{path}: the genotypes that the null model was made from are not there; name them with --geno"
        )
    return existing


def _ploidy(settings: ScanSettings, null: NullFile) -> int:
    """Copies of a chromosome: those asked for, else those of the genotypes of the null model's matrix."""
    return settings.ploidy or int(null.grm.options.get("ploidy", 2))


def _rows(null: NullFile, genotypes: GenotypeSource) -> NDArray[np.intp]:
    """Rows of the null model's samples in the genotypes, all of which must be there."""
    rows = match(null.samples, genotypes.samples)
    absent = np.flatnonzero(rows < 0)
    if absent.size:
        example, there = null.samples.label(int(absent[0])), genotypes.samples.label(0)
        raise InputError(
            f"{genotypes.path}: lacks {absent.size} of the {len(null.samples)} samples of the null model, such as"
            f" {example} (a sample that it has: {there}); fit the null model on the samples that will be scanned"
            " (fit --keep)"
        )
    logger.info("%d samples of the null model, all in %s with %d", len(rows), genotypes.path, len(genotypes.samples))
    return rows
