"""From phenotype, covariate and relationship files to a null model's file."""

import gc
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli._version import __version__
from kron2sum_cli.errors import NumericalError
from kron2sum_cli.files.inputs import file_records
from kron2sum_cli.files.null_file import PREDICTED, GrmRecord, NullDescription, NullMetadata, NullWriter, Predictions
from kron2sum_cli.files.outputs import atomic_output, guard_inputs
from kron2sum_cli.files.samples import Samples
from kron2sum_cli.fit.design import Design, read_design, read_tables
from kron2sum_cli.fit.null_model import blas_for, fitted_null, likelihoods_of, with_blas_threads
from kron2sum_cli.fit.polygenic import PolygenicPredictions
from kron2sum_cli.fit.relationship import Grm, report_relationship
from kron2sum_cli.fit.summary import Table, summarise
from kron2sum_cli.genotypes.source import Relationship
from kron2sum_cli.model.null_model import FitSummary, NullLikelihood, NullModel
from kron2sum_cli.model.prediction import Prediction, Predictor
from kron2sum_cli.model.profile import heritability_interval
from kron2sum_cli.model.spectrum import parts_of
from kron2sum_cli.model.uncertainty import Interval
from kron2sum_cli.progress import Progress
from kron2sum_cli.settings import FitSettings

logger = logging.getLogger("kron2sum.fit")

CHEAP_PROFILE = 1_000_000
"""Largest n p² for which profile-likelihood intervals are computed without being asked for."""

PREDICTED_AT_ONCE = 256
"""Samples that are predicted at a time."""

Array = NDArray[np.float64]


def fit_null_model(settings: FitSettings, progress: Progress) -> None:
    """Fit the null model that the settings describe and write its file.

    Raises InputError, NumericalError, OutputError where a file or the numbers do not allow it; ConvergenceError where
    the optimum is not certified, unless the settings allow it.
    """
    tables = read_tables(settings)
    grm = Grm.open(settings, tables.pheno.samples, tables.covar.samples if tables.covar else None)
    guard_inputs(settings.out, (*grm.files, *(tables.polygenic.files if tables.polygenic else ())))
    design = read_design(settings, tables, grm)
    description = _description(settings, grm, design, tables.polygenic)
    with (
        atomic_output(settings.out) as file,
        NullWriter(file, description) as writer,
        with_blas_threads(1),  # where more are faster, the step says so
    ):
        summaries: dict[str | None, FitSummary] = {}
        profile: dict[str, Interval] = {}
        predictions: Predictions | None = None
        for chromosome, model, relationship in _models(settings, grm, design, progress):
            writer.add(chromosome, model)
            summaries[chromosome] = model.summary
            if chromosome is None:
                profile = _profiles(settings, model, design)
            if relationship is not None:
                with blas_for(len(design.Y), settings.common.threads):
                    predictions = _predict(model, relationship, design, progress)
            del model, relationship
        if predictions is not None:
            writer.add_predictions(predictions)
        writer.finish(profile)
        chromosomes = {name: summary for name, summary in summaries.items() if name is not None}
        for part in summarise(description, summaries[None], chromosomes, profile):
            if isinstance(part, Table):
                progress.table(part.header, part.rows)
            else:
                logger.info("%s", part)
    logger.info("null model written to %s", settings.out)


def _models(
    settings: FitSettings, grm: Grm, design: Design, progress: Progress
) -> Iterator[tuple[str | None, NullModel, Relationship | None]]:
    """Fit every relationship matrix and its traits, those without a chromosome starting from the whole one's fit.

    With the whole one's fit comes its matrix, where predictions are asked for.
    """
    whole: FitSummary | None = None
    rows = np.concatenate([design.samples.relationship_rows, design.not_analysed.rows])
    for chromosome, relationship in grm.relationships(settings, rows, progress):
        kept = relationship if settings.predict and chromosome is None else None
        if settings.predict:
            relationship = _of_first(relationship, len(design.Y))  # nothing else may hold it
        if chromosome is None:
            report_relationship(relationship, design.samples.samples)
        likelihoods = _likelihoods(settings, relationship, design, progress)
        del relationship
        for predicted_without, likelihood in likelihoods:
            model = fitted_null(settings, likelihood, whole, design.samples.traits)
            del likelihood  # nothing may hold the rotation of one matrix while the next is made
            whole = whole or model.summary
            yield chromosome or predicted_without, model, kept
            del model
        del kept


def _likelihoods(
    settings: FitSettings, relationship: Relationship, design: Design, progress: Progress
) -> Iterator[tuple[str | None, NullLikelihood[Any]]]:
    """The likelihoods under one relationship matrix; what families need is loaded for a sparse one."""
    if relationship.sparse is None:
        return likelihoods_of(settings, relationship, design, progress)
    from kron2sum_cli.fit.families import likelihoods_of_families

    return likelihoods_of_families(settings, relationship.sparse, design, progress)


def _of_first(relationship: Relationship, n: int) -> Relationship:
    """A copy for the first n samples."""
    samples = relationship.samples.take(np.arange(n))
    G = None if relationship.G is None else relationship.G[:n].copy()
    K = None if relationship.K is None else relationship.K[:n, :n].copy()
    sparse = None if relationship.sparse is None else relationship.sparse[:n][:, :n]
    return Relationship(samples, G, K, relationship.counts, relationship.files, sparse)


def _description(
    settings: FitSettings, grm: Grm, design: Design, polygenic: PolygenicPredictions | None
) -> NullDescription:
    options: dict[str, Any] = {"scale": settings.grm_scale, "maf": settings.grm_maf, "geno": settings.grm_geno}
    if settings.ploidy != 2:
        options |= {"ploidy": settings.ploidy}
    if settings.map is not None:
        options |= {"map": settings.map}
    genotypes = grm.source is not None
    inputs = {"pheno": file_records([settings.pheno]), "covar": file_records([settings.covar or "-"])}
    if polygenic is not None:
        inputs |= {"pred": file_records(polygenic.files)}
    metadata = NullMetadata(
        version=__version__,
        method=settings.method,
        traits=design.samples.traits,
        covariates=design.covariates,
        grm=GrmRecord(
            paths=grm.paths,
            genotypes=genotypes,
            files=file_records(grm.files),
            options=options if genotypes else {},
        ),
        inputs=inputs,
        counts=dict(design.samples.counts),
        transform=settings.transform,
        left_out_with=grm.left_out_with if settings.loco else {},
    )
    return NullDescription(Y=design.Y, A=design.A, X=design.X, metadata=metadata, samples=design.samples.samples)


def _profiles(settings: FitSettings, model: NullModel, design: Design) -> dict[str, Interval]:
    """Profile-likelihood intervals of heritabilities: of all where they were asked for, else of those near 0 or 1.

    What was not asked for is left out where a likelihood is expensive: missing cells, many samples or traits.
    """
    summary, traits = model.summary, design.samples.traits
    cheap = not design.has_missing and len(design.Y) * len(traits) ** 2 <= CHEAP_PROFILE
    h2, se = summary.estimates.h2, summary.estimates.h2_se
    near = ~((2 * se < h2) & (h2 < 1 - 2 * se))  # 0 or 1 is within two standard errors, which say little then
    wanted = [j for j in range(len(traits)) if settings.profile is not None or (cheap and near[j])]
    if summary.rank == 0 or not wanted:  # C0 is 0 by assumption
        return {}
    found: dict[str, Interval] = {}
    # Thousands of small products of complete traits, in which threads of BLAS would only wait for each other.
    with with_blas_threads(settings.common.threads if design.has_missing else 1):
        for j in wanted:
            try:
                found[traits[j]] = heritability_interval(model.point, j, summary.mean_diagonal, summary.rank)
            except NumericalError as error:
                logger.warning("no profile interval for %s: %s", traits[j], error)
    gc.collect()  # scipy's brentq refers to itself, and so keeps the model that it was called for
    return found


# Predictions of genetic values and missing cells


def _predict(model: NullModel, relationship: Relationship, design: Design, progress: Progress) -> Predictions:
    """Predict the analysed samples and those that are not, whose relationships come in this order."""
    numbers = _predictions(model.predictor(), relationship, design, progress)
    missing = model.missing_cells()
    cell = missing.rows, missing.traits
    numbers["cells"][cell], numbers["cells_variance"][cell] = missing.mean, missing.variance
    unsure = int(np.count_nonzero(np.isnan(missing.variance)))
    if unsure:
        logger.warning(
            "%d predicted values depend on residual covariances that are not determined: they are those of traits that"
            " are independent given the others, and have no variance",
            unsure,
        )
    return Predictions(_all_samples(design), **numbers)


def _predictions(
    predictor: Predictor, relationship: Relationship, design: Design, progress: Progress
) -> dict[str, Array]:
    """Genetic values of all samples, and cells of those not analysed, by the names of the arrays of `Predictions`.

    Missing cells of analysed samples are NaN here: what was observed in the same sample tells of them, too.
    """
    n, t, p = len(design.Y), len(relationship.samples), design.Y.shape[1]
    out = {name: np.full((t, p), np.nan) for name in PREDICTED}
    X = np.vstack([np.full_like(design.X, np.nan), design.not_analysed.X])
    new = np.isfinite(X).all(axis=1) & (np.arange(t) >= n)
    with progress.task("Predicting", t, "samples") as advance:
        for rows in parts_of(t, PREDICTED_AT_ONCE):
            K, own = _relatedness(relationship, n, rows)
            genetic = predictor.genetic_values(K, own)
            out["genetic"][rows], out["genetic_variance"][rows] = genetic.mean, genetic.variance
            known = np.flatnonzero(new[rows])
            if known.size:
                part = Prediction(genetic.mean[known], genetic.variance[known])
                cells = predictor.new_cells(part, K[:, known], X[rows][known])
                out["cells"][rows][known], out["cells_variance"][rows][known] = cells.mean, cells.variance
            advance(rows.stop - rows.start)
    return out


def _relatedness(relationship: Relationship, n: int, rows: slice) -> tuple[Array, Array]:
    """Relatedness of some samples to the n analysed ones, (n, b), and to themselves, (b,)."""
    if relationship.G is not None:
        G = relationship.G
        return np.asarray(G[:n] @ G[rows].T), np.asarray(np.einsum("br,br->b", G[rows], G[rows]))
    if relationship.sparse is not None:
        return relationship.sparse[:n][:, rows].toarray(), relationship.sparse.diagonal()[rows]
    assert relationship.K is not None
    return relationship.K[:n, rows].copy(), np.diag(relationship.K)[rows].copy()


def _all_samples(design: Design) -> Samples:
    first, rest = design.samples.samples, design.not_analysed.samples
    fids = None if first.fids is None or rest.fids is None else (*first.fids, *rest.fids)
    return Samples(fids, (*first.iids, *rest.iids), first.source)
