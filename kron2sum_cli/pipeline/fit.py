"""From phenotype, covariate and relationship files to a null model's file."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from kron2sum_cli._version import __version__
from kron2sum_cli.errors import ConvergenceError, InputError, NumericalError
from kron2sum_cli.genotypes.grm import Scale, relationship_from_genotypes
from kron2sum_cli.genotypes.loco import relationships_by_chromosome
from kron2sum_cli.genotypes.open import is_genotype_file, open_genotypes
from kron2sum_cli.genotypes.relationship import RelationshipFile, open_relationship
from kron2sum_cli.genotypes.source import GenotypeSource, Relationship
from kron2sum_cli.model.collinearity import combination, dependencies
from kron2sum_cli.model.contrasts import Contrasts, rotate_coupled, rotate_traits
from kron2sum_cli.model.fitting import Fit, climb, fit
from kron2sum_cli.model.null_model import FitSummary, NullModel
from kron2sum_cli.model.rank import ranks_by_aic
from kron2sum_cli.model.spectrum import Spectrum, spectrum_of_features, spectrum_of_relationship
from kron2sum_cli.model.uncertainty import estimates_of
from kron2sum_cli.pipeline.progress import Advance, Progress
from kron2sum_cli.pipeline.settings import FitSettings
from kron2sum_cli.reports.estimates import screen_table
from kron2sum_cli.tables.analysed import AnalysedSamples, analysed_samples
from kron2sum_cli.tables.null_file import NullDescription, NullWriter
from kron2sum_cli.tables.outputs import atomic_output, guard_inputs
from kron2sum_cli.tables.phenotypes import SampleTable, read_sample_table
from kron2sum_cli.tables.provenance import file_records
from kron2sum_cli.tables.samples import Samples
from kron2sum_cli.tables.text import read_id_list, read_name_list
from kron2sum_cli.tables.trait_design import read_trait_design
from kron2sum_cli.tables.transform import transform_traits

logger = logging.getLogger("kron2sum.fit")

Array = NDArray[np.float64]

INTERCEPT = "intercept"
DOUBLE_UP_TO = 5000
"""Up to so many samples the products of the GRM are made in double precision; beyond in single, for half the time."""

DUPLICATE_RELATEDNESS = 0.99
"""Two samples whose relatedness is above this share of their own are reported as near-duplicates."""


@dataclass(frozen=True)
class Design:
    """Everything of the model but the relationship matrix.

    Attributes
    ----------
    samples : who is analysed, and from where
    Y, X, A : (n, p), (n, c), (p, a)
    covariates : names of the columns of X
    """

    samples: AnalysedSamples
    Y: Array
    X: Array
    A: Array
    covariates: tuple[str, ...]

    @property
    def coupled(self) -> bool:
        """Whether the trait design leaves fixed effects that the contrasts cannot drop."""
        return bool(self.A.shape[1] < self.A.shape[0])


def fit_null_model(settings: FitSettings, progress: Progress) -> None:
    """Fit the null model that the settings describe and write its file.

    Raises
    ------
    InputError, NumericalError, OutputError
        Where a file or the numbers do not allow it.
    ConvergenceError
        Where the optimum is not certified, unless the settings allow it.
    """
    guard_inputs(settings.out, settings.input_paths)
    grm = _Grm.open(settings)
    design = _design(settings, grm.samples)
    description = _description(settings, grm, design)
    with (
        atomic_output(settings.out) as file,
        NullWriter(file, description) as writer,
        threadpool_limits(settings.common.threads, user_api="blas"),
    ):
        summaries: dict[str | None, FitSummary] = {}
        profile: dict[str, Any] = {}
        for chromosome, model in _models(settings, grm, design, progress):
            writer.add(chromosome, model)
            summaries[chromosome] = model.summary
            if chromosome is None:
                profile = _profiles(settings, model, design.samples.traits)
        writer.finish(profile)
        chromosomes = {name: summary for name, summary in summaries.items() if name is not None}
        for line in screen_table(description, summaries[None], chromosomes, profile):
            logger.info("%s", line)
    logger.info("null model written to %s", settings.out)


@dataclass(frozen=True)
class _Grm:
    """The relationship matrix that was asked for, opened but not read: genotypes or a matrix file."""

    source: GenotypeSource | None
    file: RelationshipFile | None

    @staticmethod
    def open(settings: FitSettings) -> "_Grm":
        if is_genotype_file(settings.grm):
            return _Grm(open_genotypes(settings.grm), None)
        if settings.loco:
            raise InputError(
                f"{settings.grm}: --loco needs the genotypes that the matrix is made of; give --grm a .bed,"
                " .pgen or .bgen"
            )
        return _Grm(None, open_relationship(settings.grm, settings.grm_id))

    @property
    def samples(self) -> Samples:
        return self._one.samples

    @property
    def files(self) -> Sequence[str]:
        return self._one.files

    @property
    def _one(self) -> GenotypeSource | RelationshipFile:
        one = self.source or self.file
        assert one is not None
        return one

    def relationships(
        self, settings: FitSettings, rows: NDArray[np.intp], progress: Progress
    ) -> Iterator[tuple[str | None, Relationship]]:
        """The whole matrix (None), then with LOCO that without each chromosome."""
        if self.file is not None:
            yield None, self.file.load(rows)
            return
        assert self.source is not None
        extract = frozenset(read_name_list(settings.grm_extract)) if settings.grm_extract else None
        with progress.task("Reading the GRM's genotypes", len(self.source.variants), "variants") as advance:
            options: dict[str, Any] = {
                "scale": cast(Scale, settings.grm_scale),
                "min_maf": settings.grm_maf,
                "max_missing": settings.grm_geno,
                "extract": extract,
                "precision": "double" if len(rows) <= DOUBLE_UP_TO else "single",
                "progress": _increments(advance),
            }
            if not settings.loco:
                yield None, relationship_from_genotypes(self.source, rows, **options)
                return
            for part in relationships_by_chromosome(self.source, rows, **options):
                yield part.chromosome, part.relationship


def _increments(advance: Advance) -> Callable[[int, int], None]:
    """A callback of (done, total) for a listener to increments."""
    seen = 0

    def report(done: int, total: int) -> None:
        nonlocal seen
        advance(done - seen)
        seen = done

    return report


@contextmanager
def _step(name: str) -> Iterator[None]:
    start = perf_counter()
    yield
    logger.info("%s: %.1f s", name, perf_counter() - start)


def _design(settings: FitSettings, relationship: Samples) -> Design:
    """Read the tables, match the samples, check the columns."""
    codes = frozenset(settings.missing_codes)
    pheno = read_sample_table(settings.pheno, settings.pheno_names or None, codes)
    covar = None
    if settings.covar is not None:
        covar = read_sample_table(
            settings.covar,
            settings.covar_names or None,
            codes,
            categorical=settings.cat_covar_names,
            kind="covariate",
        )
    for table in (pheno, covar):
        for warning in table.warnings if table else ():
            logger.warning(warning)
    keep = read_id_list(settings.keep) if settings.keep else None
    remove = read_id_list(settings.remove) if settings.remove else None
    samples = analysed_samples(pheno, covar, relationship, keep, remove, cast(Literal["drop"], settings.missing))
    for reason, count in samples.counts.items():
        logger.info("%d %s", count, reason)
    if samples.counts.get("samples removed by --remove") == 0:
        logger.warning("--remove %s names no sample of %s; check its IDs", settings.remove, relationship.source)
    Y = transform_traits(samples.Y, samples.traits, cast(Literal["none"], settings.transform))
    X, covariates = _covariates(settings, samples)
    _check_traits(Y, X, samples.traits, covariates, pheno)
    p = len(samples.traits)
    A = read_trait_design(settings.trait_design, samples.traits) if settings.trait_design else np.eye(p)
    return Design(samples, Y, X, A, covariates)


def _covariates(settings: FitSettings, samples: AnalysedSamples) -> tuple[Array, tuple[str, ...]]:
    """X with its intercept, redundant columns refused or dropped."""
    n = len(samples.samples)
    ones = np.ones((n, 1 if settings.intercept else 0))
    X = np.hstack([ones, samples.X_values])
    names = (INTERCEPT,) * ones.shape[1] + samples.covariates
    found = dependencies(X)
    if found and not settings.drop_redundant:
        raise NumericalError(
            f"{settings.covar}: covariate {combination(names, found[0])} over the analysed samples;"
            " leave it out, or add --drop-redundant"
        )
    for dependency in found:
        logger.info("covariate %s: dropped", combination(names, dependency))
    dropped = {dependency.column for dependency in found}
    kept = [k for k in range(len(names)) if k not in dropped]
    return X[:, kept], tuple(names[k] for k in kept)


def _check_traits(Y: Array, X: Array, traits: Sequence[str], covariates: Sequence[str], pheno: SampleTable) -> None:
    """Refuse too few samples, and traits that are combinations of covariates and other traits."""
    n, p, c = Y.shape[0], Y.shape[1], X.shape[1]
    if n - c < p + 1:
        raise NumericalError(
            f"{pheno.path}: {n} samples have all traits and covariates, and {p} traits with {c} covariates need at"
            f" least {p + c + 1}; take fewer traits or covariates"
        )
    centred = Y - X @ np.linalg.lstsq(X, Y, rcond=None)[0] if c else Y
    scale = np.linalg.norm(Y - Y.mean(axis=0), axis=0)
    for k in np.flatnonzero(np.linalg.norm(centred, axis=0) <= 1e-7 * scale).tolist():
        raise NumericalError(
            f"{pheno.path}: trait {traits[k]} is a linear combination of the covariates ({', '.join(covariates)});"
            " leave it or them out"
        )
    for dependency in dependencies(centred):
        raise NumericalError(
            f"{pheno.path}: trait {combination(traits, dependency)}"
            + (" (and the covariates)" if c > 1 else "")
            + "; leave one of them out"
        )


def _models(
    settings: FitSettings, grm: _Grm, design: Design, progress: Progress
) -> Iterator[tuple[str | None, NullModel]]:
    """Fit every relationship matrix, those without a chromosome starting from the whole one's fit."""
    whole: Fit | None = None
    for chromosome, relationship in grm.relationships(settings, design.samples.relationship_rows, progress):
        if chromosome is None:
            _report_relationship(relationship, design)
        spectrum = _spectrum(relationship, design, progress)
        del relationship
        data = _contrasts(spectrum, design)
        fitted = _fit(settings, data, None if whole is None else whole)
        whole = whole or fitted
        yield chromosome, _null_model(settings, spectrum, data, fitted, design)


def _report_relationship(relationship: Relationship, design: Design) -> None:
    for reason, count in relationship.counts.items():
        logger.info("relationship matrix: %d %s", count, reason)
    if relationship.K is None:
        return
    root = np.sqrt(np.maximum(np.diag(relationship.K), 1e-300))
    pairs = []
    for i in range(1, len(root)):
        close = np.flatnonzero(relationship.K[i, :i] > DUPLICATE_RELATEDNESS * root[i] * root[:i])
        pairs += [(int(j), i) for j in close]
    if pairs:
        label = design.samples.samples.label
        j, i = pairs[0]
        logger.warning(
            "%d pairs of samples are near-duplicates by their relatedness (such as %s and %s): if they are one"
            " individual measured twice, remove one of each pair with --remove",
            len(pairs),
            label(j),
            label(i),
        )


def _spectrum(relationship: Relationship, design: Design, progress: Progress) -> Spectrum:
    X = np.empty((len(design.Y), 0)) if design.coupled else design.X
    with progress.task("Eigendecomposition", None, ""), _step("eigendecomposition"):
        if relationship.G is not None:
            spectrum = spectrum_of_features(relationship.G, X, overwrite=True)
        else:
            assert relationship.K is not None
            spectrum = spectrum_of_relationship(relationship.K, X, overwrite=True)
    logger.info("%d contrasts, rank of the relationship matrix among them %d", len(X) - X.shape[1], spectrum.s.size)
    return spectrum


def _contrasts(spectrum: Spectrum, design: Design) -> Contrasts:
    if design.coupled:
        return rotate_coupled(spectrum, design.Y, design.A, design.X)
    return rotate_traits(spectrum, design.Y)


def _fit(settings: FitSettings, data: Contrasts, whole: Fit | None) -> Fit:
    """One fit; with the whole genome's fit at hand a warm one of its rank."""
    reml = settings.method == "reml"
    try:
        if whole is not None:
            warm = climb(data, whole.point.axes, whole.rank, reml)
            return warm if warm.certificate.certified else fit(data, whole.rank, reml)
        if settings.rank == "auto":
            return _best_rank(data, reml)
        rank = data.ntraits if settings.rank is None else settings.rank
        if rank > data.ntraits:
            raise NumericalError(f"--rank {rank}: there are {data.ntraits} traits; give at most that")
        return fit(data, rank, reml)
    except ConvergenceError as error:
        if settings.allow_unconverged and isinstance(error.result, Fit):
            logger.warning("%s; written all the same (--allow-unconverged)", error)
            return error.result
        raise ConvergenceError(
            f"{error}; no null model was written (--allow-unconverged writes it; fewer or differently scaled traits,"
            " or --rank, may help)",
            error.result,
        ) from error


def _best_rank(data: Contrasts, reml: bool) -> Fit:
    rows = ranks_by_aic(data, reml)
    best = min(rows, key=lambda row: row.aic)
    logger.info("rank  parameters  log-likelihood           AIC")
    for row in rows:
        mark = "  <- chosen" if row is best else ""
        logger.info("%4d  %10d  %14.4f  %12.4f%s", row.rank, row.nparameters, row.fit.point.lml, row.aic, mark)
    return best.fit


def _null_model(settings: FitSettings, spectrum: Spectrum, data: Contrasts, fitted: Fit, design: Design) -> NullModel:
    point, mean_diagonal = fitted.point, spectrum.mean_diagonal
    summary = FitSummary(
        axes=point.axes,
        reml=settings.method == "reml",
        rank=fitted.rank,
        lml=point.lml,
        mean_diagonal=mean_diagonal,
        quadratic=point.quadratic,
        certificate=fitted.certificate,
        estimates=estimates_of(point, spectrum.Qx, fitted.rank, mean_diagonal, design.A, design.X),
    )
    return NullModel(summary, data, spectrum.Qx)


def _description(settings: FitSettings, grm: _Grm, design: Design) -> NullDescription:
    options = {"scale": settings.grm_scale, "maf": settings.grm_maf, "geno": settings.grm_geno}
    genotypes = grm.source is not None
    return NullDescription(
        version=__version__,
        method=settings.method,
        traits=design.samples.traits,
        covariates=design.covariates,
        samples=design.samples.samples,
        Y=design.Y,
        X=design.X,
        A=design.A,
        grm={
            "path": grm.source.path if grm.source is not None else settings.grm,
            "genotypes": genotypes,
            "files": file_records(grm.files),
            "options": options if genotypes else {},
        },
        inputs={"pheno": file_records([settings.pheno]), "covar": file_records([settings.covar or "-"])},
        counts=dict(design.samples.counts),
    )


def _profiles(settings: FitSettings, model: NullModel, traits: Sequence[str]) -> dict[str, Any]:
    """Profile-likelihood intervals of the heritabilities, where they were asked for."""
    if settings.profile is None:
        return {}
    # Here, because scipy.optimize would be a fifth of the start of every fit.
    from kron2sum_cli.model.profile import heritability_interval

    summary, point = model.summary, model.point()
    found = {}
    for j, trait in enumerate(traits):
        try:
            interval = heritability_interval(point, j, summary.mean_diagonal, summary.rank)
        except NumericalError as error:
            logger.warning("no profile interval for %s: %s", trait, error)
            continue
        found[trait] = {"low": interval.low, "high": interval.high, "at_boundary": interval.at_boundary}
    return found
