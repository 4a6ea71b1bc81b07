"""What a result table says of its making."""

from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from kron2sum_cli._version import __version__
from kron2sum_cli.files.inputs import FileRecord, file_records
from kron2sum_cli.files.null_file import NullFile
from kron2sum_cli.files.scan_metadata import NullScale, ScanMetadata, ScannedNull, TestOptions
from kron2sum_cli.genotypes.chromosomes import is_human, normalise_chromosome
from kron2sum_cli.genotypes.filters import GENOTYPE_FILTERS
from kron2sum_cli.genotypes.source import GenotypeSource
from kron2sum_cli.option_values import contrast_files, without_folders
from kron2sum_cli.scan.inputs import ScanInputs, null_scale
from kron2sum_cli.settings import ScanSettings


def scan_metadata(settings: ScanSettings, inputs: ScanInputs) -> ScanMetadata:
    """The metadata of a result table, without its counts."""
    null, draws = inputs.null, settings.of_sets and "lr" in settings.set_tests
    return ScanMetadata(
        version=__version__,
        null=_scanned_null(null),
        traits=null.traits,
        filters=_filters(settings),
        settings=TestOptions(
            tests=tuple(without_folders(test) for test in settings.tests),
            precision=settings.precision,
            stat=settings.stat,
            refit=settings.refit,
            seed=settings.common.seed if settings.refit or settings.bootstrap or draws else None,
            conditioned=() if inputs.conditioned is None else inputs.conditioned.names,
            bootstrap=settings.bootstrap,
            resample=settings.resample,
            coding=settings.coding,
            interaction=settings.interaction,
            random_slopes=settings.random_slopes,
        ),
        inputs={"geno": inputs.files, **_further_inputs(settings)},
        coupled=null.description.coupled,
        null_of_chr=_null_of_chromosomes(null, inputs.genotypes),
        span=inputs.selection.span,
        nulls=_scales(inputs),
    )


def _scales(inputs: ScanInputs) -> tuple[NullScale, ...]:
    """The scales of all null models, with the variants that the scan is conditioned on."""
    chromosomes = (None, *inputs.null.chromosomes)
    if inputs.conditioned is None:
        return tuple(null_scale(inputs.null, chromosome) for chromosome in chromosomes)
    with threadpool_limits(limits=1, user_api="blas"):  # so that no digit depends on their number
        return tuple(inputs.load(chromosome).scale for chromosome in chromosomes)


def _scanned_null(null: NullFile) -> ScannedNull:
    observed: dict[str, int] = {}
    if null.description.has_missing:
        observed = dict(zip(null.traits, np.isfinite(null.description.Y).sum(axis=0).tolist(), strict=True))
    estimates = null.whole.estimates
    return ScannedNull(
        hash=null.hash,
        method=null.metadata.method,
        lml=null.whole.lml,
        C0=estimates.C0,
        C1=null.whole.axes.C1,  # undetermined entries, too
        samples=len(null.samples),
        covariates=null.covariates,
        observed=observed,
        rank=null.whole.rank,
        transform=null.metadata.transform,
        grm=tuple(record.name for record in null.grm.files),
    )


def _further_inputs(settings: ScanSettings) -> dict[str, tuple[FileRecord, ...]]:
    """The files of contrasts, of sets and of covariates, where there are some."""
    paths = {
        "tests": [path for test in settings.tests for path in contrast_files(test)],
        "sets": [] if settings.sets is None else [settings.sets],
        "covar": [] if settings.covar is None else [settings.covar],
    }
    return {role: file_records(files) for role, files in paths.items() if files}


def _null_of_chromosomes(null: NullFile, source: GenotypeSource) -> dict[str, str]:
    """With LOCO: which chromosome's null model the variants of a chromosome, as the file spells it, are tested with."""
    if not null.chromosomes:
        return {}
    spelled = source.variants.table["CHR"].unique().to_pylist()
    human, left_out = is_human([*spelled, *null.left_out]), null.left_out
    codes = {name: normalise_chromosome(name, human) for name in spelled}
    return {name: left_out[code] for name, code in codes.items() if code in left_out}


def _filters(settings: ScanSettings) -> dict[str, Any]:
    """The options on variants that were given."""
    given = {name: getattr(settings, name) for name in (*GENOTYPE_FILTERS, "ploidy")}
    lists = {"extract": settings.extract, "exclude": settings.exclude}
    given |= {name: path and file_records([path]) for name, path in lists.items()}
    if settings.of_sets:
        given |= {name: getattr(settings, name) for name in ("windows", "set_tests", "set_weights", "set_max_maf")}
        given["founders"] = settings.founders or None
    return {name: value for name, value in given.items() if value is not None}
