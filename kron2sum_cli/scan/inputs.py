"""What a scan reads: its null model, its genotypes, and which of their samples and variants."""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError, UsageError, counted
from kron2sum_cli.files.inputs import FileRecord, file_records
from kron2sum_cli.files.null_file import NullFile, read_null
from kron2sum_cli.files.outputs import guard_inputs
from kron2sum_cli.files.samples import match
from kron2sum_cli.files.scan_metadata import Range, Span
from kron2sum_cli.files.text import read_file_list, read_name_list
from kron2sum_cli.files.trait_design import asked_hypotheses
from kron2sum_cli.genotypes.chromosomes import by_spelling
from kron2sum_cli.genotypes.filters import GENOTYPE_FILTERS, VariantFilters, in_places
from kron2sum_cli.genotypes.open import open_genotypes
from kron2sum_cli.genotypes.source import GenotypeSource
from kron2sum_cli.model.conditioning import given_variants
from kron2sum_cli.model.hypotheses import Hypothesis, named_hypothesis
from kron2sum_cli.model.random_slopes import LARGEST
from kron2sum_cli.scan.nulls import ConditionedVariants, KnownNull, LoadedNull, known_nulls, read_conditioned
from kron2sum_cli.scan.second_column import Interaction, read_interaction
from kron2sum_cli.settings import DEFAULT_REFIT, ScanSettings

logger = logging.getLogger("kron2sum.scan")

FEWEST_VARIANTS, MOST_VARIANTS, FEWEST_BLOCKS = 1024, 4096, 16
"""The largest block of a file is a power of two between the first two, of which the file, unless it is small, has so
many, for threads to share. Shards are cut at its multiples."""

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

    def load(self, chromosome: str | None) -> LoadedNull:
        """The null model without a chromosome, or (None) that of the whole genome, given the variants of the scan."""
        known, given = self.nulls[chromosome], None
        model = replace(self.null.load(chromosome, self.model_dtype), summary=known.summary)
        if self.conditioned is not None:
            given = given_variants(model, self.conditioned.G, self.null.description.own_covariates)
        return LoadedNull(model, known.scale, given)


def open_inputs(settings: ScanSettings) -> ScanInputs:
    """Open the null model and the genotypes, match their samples and choose variants.

    Raises InputError, NumericalError, OutputError, UsageError where a file is wrong, is also an output, or lacks
    samples of the null model, or a test is none.
    """
    names = _read_names(settings)
    null = read_null(settings.null)
    # What the null model does not allow is said before genotypes are read, which may take minutes.
    ploidy = settings.ploidy or int(null.grm.options.get("ploidy", 2))
    _refuse_by_null(settings, null, ploidy)
    interaction = read_interaction(settings.interaction, settings.covar, null)
    others = asked_hypotheses(settings.tests, null.traits, null.whole.axes.Tinv)
    tests = named_hypothesis("any", null.traits), *others
    covariate = interaction.values if interaction is not None and interaction.to_add else None
    given = bool(names.conditions) or covariate is not None
    _refuse_by_effects(settings, null, interaction, given)
    genotypes, files, rows = _open_genotypes(settings, ploidy, null)
    for path in settings.outputs:
        guard_inputs(path, genotypes.files)
    selection = select_variants(settings, names, genotypes)
    conditioned = read_conditioned(names.conditions, settings.founders, covariate, null, genotypes, rows)
    dtype = np.float64 if settings.precision == "double" else np.float32
    model_dtype = dtype if conditioned is None else np.float64
    return ScanInputs(
        null=null,
        nulls=known_nulls(null, tests, conditioned, settings.stat, model_dtype),
        null_of_chr=by_spelling(null.left_out, genotypes.variants.table["CHR"]),
        genotypes=genotypes,
        files=files,
        samples=rows,
        filters=VariantFilters(**{name: getattr(settings, name) for name in GENOTYPE_FILTERS}),
        selection=selection,
        tests=tests,
        refit=0.0 if given or settings.of_sets or null.description.reduced else settings.refit,
        dtype=dtype,
        model_dtype=model_dtype,
        conditioned=conditioned,
        interaction=interaction,
    )


@dataclass(frozen=True)
class VariantNames:
    """Variants to extract, to exclude (None where there is no such file) and to condition on."""

    extract: frozenset[str] | None = None
    exclude: frozenset[str] | None = None
    conditions: tuple[str, ...] = ()


def _read_names(settings: ScanSettings) -> VariantNames:
    """Read ``--extract``, ``--exclude`` and ``--condition-list``."""
    conditions = () if settings.condition_list is None else read_name_list(settings.condition_list)
    return VariantNames(
        extract=None if settings.extract is None else frozenset(read_name_list(settings.extract)),
        exclude=None if settings.exclude is None else frozenset(read_name_list(settings.exclude)),
        conditions=(*settings.conditions, *conditions),
    )


def _refuse_by_null(settings: ScanSettings, null: NullFile, ploidy: int) -> None:
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
    if settings.hwe is not None and ploidy != 2:
        raise UsageError(f"--hwe is a test of diploid genotypes, and --ploidy is {ploidy}; leave --hwe out")
    if settings.coding == "genotypic" and ploidy != 2:
        raise UsageError(
            f"--coding genotypic is for diploid genotypes, and --ploidy is {ploidy}; use dominant or recessive"
        )
    if null.description.reduced:
        _judge_trait_design(settings)


def _refuse_by_effects(settings: ScanSettings, null: NullFile, interaction: Interaction | None, given: bool) -> None:
    """Refuse options that do not go with effects that a scan adds to those of its null model, if any are ``given``.

    Beside that, say what is not refitted, and whose axes are tested.
    """
    if settings.stat == "satterthwaite" and interaction is not None and interaction.to_add:
        raise UsageError(
            f"--stat satterthwaite --interaction {interaction.name}: give the covariate to fit, too (fit --covar),"
            " or use --stat lr"
        )
    if settings.random_slopes:
        _refuse_random_slopes(null, given)
    if settings.of_sets and settings.refit not in (0.0, DEFAULT_REFIT):
        logger.warning("--refit %g: sets of variants are not refitted", settings.refit)
    elif settings.refit and settings.is_conditioned and not settings.of_sets and not null.description.reduced:
        logger.info("no variants are refitted given other variants")
    along = [test for test in settings.tests if test.startswith("axis:")]
    if along and null.chromosomes:
        logger.info("%s: of the null model of the whole genome, on every chromosome", ", ".join(along))


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


def _refuse_random_slopes(null: NullFile, given: bool) -> None:
    """Refuse random slopes where the model of them is not known, or too large."""
    data = null.description
    n, p = data.Y.shape
    remedy = "leave out --random-slopes"
    if null.of_families or data.has_missing or data.reduced:
        raise InputError(
            "--random-slopes: needs complete traits, a dense relationship matrix and no --trait-design of fewer columns"
            f" than traits; {remedy}"
        )
    if given:
        raise InputError(
            f"--random-slopes: needs all effects in the null model: give them to fit as covariates, or {remedy}"
        )
    size = (n - data.X.shape[1]) * p
    if size > LARGEST:
        raise InputError(
            f"--random-slopes: factorises matrices of the order of samples less covariates times traits, {size:,}, and"
            f" {LARGEST:,} is the most; analyse fewer traits, or {remedy}"
        )


def select_variants(settings: ScanSettings, names: VariantNames, genotypes: GenotypeSource) -> Selection:
    """The variants to scan by chromosome, region, shard and name.

    Names that no variant has are counted in a warning. Raises InputError where ``--extract`` names no variant.
    """
    variants, total = genotypes.variants, len(genotypes.variants)
    block = largest_block(total)
    start, stop = _edges_of_shard(settings.shard, total, block)
    asked = in_places(variants, settings.chromosomes, settings.regions)
    ranges = _ranges(asked) if settings.chromosomes or settings.regions else ((0, total),)
    asked[:start] = asked[stop:] = False
    covered = tuple((max(a, start), min(b, stop)) for a, b in ranges if a < stop and b > start)
    counts = {"variants read": int(np.count_nonzero(asked))}
    allowed = np.ones(total, dtype=np.bool_)
    for option, path, listed in (
        ("extract", settings.extract, names.extract),
        ("exclude", settings.exclude, names.exclude),
    ):
        if listed is None:
            continue
        unknown = variants.not_found(listed)
        if option == "extract" and unknown == len(listed):
            raise InputError(
                f"--extract {path}: none of its {unknown} names is a variant of {genotypes.path}, such as"
                f" {min(listed)}; check that both use the same names"
            )
        if unknown:
            logger.warning(
                "--%s %s: %d of its %d names are in no variant of the genotypes", option, path, unknown, len(listed)
            )
        by_list = variants.named(listed) == (option == "extract")
        counts[f"variants left out by --{option}"] = int(np.count_nonzero(asked & ~by_list))
        allowed &= by_list
        asked &= by_list
    if settings.min_info is not None and not genotypes.has_dosages:
        logger.warning("--min-info: leaves nothing out, as %s has no dosages", genotypes.path)
    return Selection(allowed, asked, Span(covered or ((start, start),), ranges or ((0, 0),), total), counts, block)


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


def _open_genotypes(
    settings: ScanSettings, ploidy: int, null: NullFile
) -> tuple[GenotypeSource, tuple[FileRecord, ...], NDArray[np.intp]]:
    """The genotypes, the records of their files, and where in them the null model's samples are: all must be there."""
    paths = (*settings.geno, *(read_file_list(settings.geno_list) if settings.geno_list is not None else ()))
    if not paths:
        genotypes, files = _recorded_genotypes(null, os.path.dirname(settings.null), ploidy)
    else:
        genotypes = open_genotypes(
            paths,
            sample=settings.sample,
            bim=settings.bim,
            fam=settings.fam,
            variant_map=settings.map,
            ploidy=ploidy,
            founders=settings.founders,
        )
        files, recorded = file_records(genotypes.files), {record.name: record for record in null.grm.files}
        for record in files:
            if recorded.get(record.name, record) != record:
                logger.warning(
                    "%s: %s has other content than the file of that name that the null model was made from; fit again"
                    " if it changed since",
                    genotypes.path,
                    record.name,
                )
    rows = match(null.samples, genotypes.samples)
    absent = np.flatnonzero(rows < 0)
    if absent.size:
        example, there = null.samples.label(int(absent[0])), genotypes.samples.label(0)
        raise InputError(
            f"{genotypes.path}: lacks {absent.size} of the {len(null.samples)} samples of the null model, such as"
            f" {example} (a sample that it has: {there}); fit the null model on the samples that will be scanned"
            " (fit --keep)"
        )
    logger.info(
        "%s of the null model, all in %s with %d",
        counted(len(rows), "samples"),
        genotypes.path,
        len(genotypes.samples),
    )
    return genotypes, files, rows


def _recorded_genotypes(null: NullFile, folder: str, ploidy: int) -> tuple[GenotypeSource, tuple[FileRecord, ...]]:
    """The genotypes that the GRM was made from, if they are still what they were; ``folder`` is the null model's."""
    if not null.grm.genotypes:
        raise UsageError("--geno: needed, because the relationship matrix of this null model was not made of genotypes")
    paths = [_where_it_is(path, folder) for path in null.grm.paths]
    variant_map = _where_it_is(str(null.grm.options["map"]), folder) if "map" in null.grm.options else None
    # Their content is compared first: of changed files the parser's message would mislead.
    unchanged = all(record in null.grm.files for record in file_records(paths))
    genotypes = None
    if unchanged:
        genotypes = open_genotypes(paths, variant_map=variant_map, ploidy=ploidy)
    if genotypes is None or file_records(genotypes.files) != null.grm.files:
        raise InputError(
            f"{', '.join(paths)}: is not the file that the null model was made from (its size or content differ); fit"
            " again, or name the genotypes to scan with --geno"
        )
    return genotypes, null.grm.files


def _where_it_is(path: str, folder: str) -> str:
    """A file that the null model was made from: where it was then, or relative to the null model's folder."""
    existing = next((name for name in (path, os.path.join(folder, path)) if os.path.isfile(name)), None)
    if existing is None:
        raise InputError(
            f"{path}: the genotypes that the null model was made from are not there; name them with --geno"
        )
    return existing
