"""From phenotype and covariate files to the traits, covariates and trait design of a fit."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

import numpy as np
import pandas as pd
import scipy
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError, NumericalError, UsageError, counted
from kron2sum_cli.files.sample_table import SampleTable, code_with_levels, read_sample_table
from kron2sum_cli.files.samples import Samples, match
from kron2sum_cli.files.text import read_id_list
from kron2sum_cli.files.trait_design import read_trait_design
from kron2sum_cli.files.trials import read_trial_table
from kron2sum_cli.fit.polygenic import (
    PolygenicPredictions,
    predictions_of,
    read_polygenic_predictions,
    with_predictions_only,
)
from kron2sum_cli.fit.relationship import Grm
from kron2sum_cli.fit.samples import AnalysedSamples, Missing, analysed_samples
from kron2sum_cli.fit.summary import report_samples, report_two_values
from kron2sum_cli.model.collinearity import combination, dependencies
from kron2sum_cli.model.missing.fitting import MissingCost, missing_cost
from kron2sum_cli.model.missing.observed import check_observed
from kron2sum_cli.model.null_model import TraitData
from kron2sum_cli.resources import available_memory_mib
from kron2sum_cli.settings import FitSettings

Transform = Literal["none", "standardize", "rank-normal"]


logger = logging.getLogger("kron2sum.fit")

Array = NDArray[np.float64]

INTERCEPT = "intercept"

DEPENDENT_DESIGN = 1e-12
"""Smallest share of its length that a column of the trait design may have outside the columns before it. Numbers are
written down, not measured: what is not rounding is meant."""

BASE_MIB = 180
"""What Python and its libraries take."""

TALL, SQUARE = 2, 3
"""Matrices of samples by the rank of GGᵀ, and of the rank by itself, that its eigendecomposition holds at once."""


@dataclass(frozen=True)
class Tables:
    """What a fit reads of its samples, beside the relationship matrix; None for what was not asked for."""

    pheno: SampleTable
    covar: SampleTable | None
    polygenic: PolygenicPredictions | None


@dataclass(frozen=True)
class NotAnalysed:
    """The t samples of the relationship matrix that are not analysed.

    ``rows`` (t,) are their positions in the matrix, and X (t, c) their covariates, NaN where one is not known.
    """

    samples: Samples
    rows: NDArray[np.intp]
    X: Array


@dataclass(frozen=True)
class Design(TraitData):
    """Everything of the model but the relationship matrix: Y, A, X and their names.

    ``covariates`` are names of the columns of X, ``not_analysed`` samples to predict, none unless predictions are asked
    for. ``polygenic`` (n, p) is what is taken off the traits for the null model of each chromosome; empty without
    ``--pred``.
    """

    samples: AnalysedSamples
    covariates: tuple[str, ...]
    not_analysed: NotAnalysed
    polygenic: Mapping[str, Array] = field(default_factory=dict)


def read_design(settings: FitSettings, tables: Tables, grm: Grm) -> Design:
    """Match the samples of the tables and of the relationship matrix, check the columns.

    Raises InputError, NumericalError, UsageError where a file, its numbers or the options do not make a model.
    """
    if tables.polygenic is not None and not grm.falls_into_families(settings):
        raise UsageError(
            "--pred: the predictions stand for a dense relationship matrix; give --grm none, a sparse matrix, or"
            " --grm-cutoff 0.05"
        )
    pheno, covar = tables.pheno, tables.covar
    keep = read_id_list(settings.keep) if settings.keep else None
    remove = read_id_list(settings.remove) if settings.remove else None
    samples = analysed_samples(pheno, covar, grm.samples, keep, remove, cast(Missing, settings.missing))
    report_samples(settings, pheno, covar, grm.samples, {"--keep": keep, "--remove": remove}, samples)
    report_two_values(samples.Y, samples.traits)
    Y = transform_traits(samples.Y, samples.traits, cast(Transform, settings.transform))
    X, covariates, kept = _covariates(settings, samples.X_values, samples.covariates)
    p = len(samples.traits)
    A = _trait_design(settings.trait_design, samples.traits) if settings.trait_design else np.eye(p)
    missing, cost = np.isnan(Y), None
    if missing.any():
        _check_missing(settings, samples, TraitData(Y, A, X), covariates)
        if grm.falls_into_families(settings):
            logger.info(
                "%s on %s",
                counted(int(missing.sum()), "missing cells"),
                counted(int(missing.any(axis=1).sum()), "samples"),
            )
        else:
            cost = missing_cost(missing, X.shape[1], grm.largest_rank(len(Y)))
    if grm.sparse is None:
        _require_memory(settings, samples, grm, cost)
    _check_traits(Y, X, samples.traits, covariates, pheno)
    not_analysed = _not_analysed(settings, samples, grm.samples, covar, kept)
    polygenic: Mapping[str, Array] = {}
    if tables.polygenic is not None:
        polygenic = predictions_of(tables.polygenic, samples.pheno_rows, Y, X, samples.traits)
    return Design(Y, A, X, samples, covariates, not_analysed, polygenic)


def _trait_design(path: str, traits: Sequence[str]) -> Array:
    """The trait design A (p, a) of a file, whose columns are independent, so that their effects are defined."""
    A = read_trait_design(path, traits)
    found = dependencies(A, DEPENDENT_DESIGN)
    if found:
        names = [f"column {k + 1}" for k in range(A.shape[1])]
        raise NumericalError(f"{path}: {combination(names, found[0])}; leave one of them out")
    return A


def read_tables(settings: FitSettings) -> Tables:
    """Read phenotypes, covariates and polygenic predictions.

    Raises InputError where a file is wrong; file, line and sample are named.
    """
    codes = frozenset(settings.missing_codes)
    if settings.pheno_long:
        pheno = read_trial_table(settings.pheno, settings.pheno_long, settings.pheno_names or None, codes)
    else:
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
    for note in pheno.notes:
        logger.info(note)
    if settings.pred is None:
        return Tables(pheno, covar, None)
    polygenic = read_polygenic_predictions(settings.pred, pheno)
    return Tables(with_predictions_only(pheno, polygenic), covar, polygenic)


def transform_traits(Y: NDArray[np.float64], names: Sequence[str], transform: Transform) -> NDArray[np.float64]:
    """Transform every trait of Y (n, p) over the samples that have it; NaN stays.

    ``standardize`` gives mean 0 and standard deviation 1 (with n - 1). ``rank-normal`` replaces the value of rank r of
    n by the normal quantile of (r - 3/8) / (n + 1/4) (Blom 1958); ties get their average rank. The trait itself is
    transformed, not its residuals: covariates stay in the model. Raises NumericalError where a trait to be transformed
    has fewer than two distinct values.
    """
    if transform == "none":
        return Y
    apply = _standardized if transform == "standardize" else _rank_normal
    transformed = np.full(Y.shape, np.nan)
    for column, name in enumerate(names):
        observed = ~np.isnan(Y[:, column])
        values = Y[observed, column]
        if values.size == 0 or values.min() == values.max():
            raise NumericalError(
                f"trait '{name}' has fewer than two distinct values in the analysed samples, so that "
                f"--transform {transform} is not defined; leave the trait out"
            )
        transformed[observed, column] = apply(values)
    return transformed


def _standardized(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean 0, standard deviation 1."""
    # Units are divided out first, so that neither sum nor squares overflow or vanish.
    scaled = values / np.abs(values).max()
    centred = scaled - scaled.mean()
    unit = np.abs(centred).max()
    centred /= unit
    return np.asarray(centred / centred.std(ddof=1), dtype=np.float64)


def _rank_normal(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Normal quantiles of the ranks, by Blom's formula."""
    average_rank = pd.Series(values).rank().to_numpy()
    return np.asarray(scipy.special.ndtri((average_rank - 0.375) / (values.size + 0.25)))


def _covariates(
    settings: FitSettings, values: Array, covariates: tuple[str, ...]
) -> tuple[Array, tuple[str, ...], list[int]]:
    """X with its intercept, redundant columns refused or dropped; its names, and which columns were kept."""
    X = _with_intercept(settings, values)
    names = (INTERCEPT,) * settings.intercept + covariates
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
    return X[:, kept], tuple(names[k] for k in kept), kept


def _with_intercept(settings: FitSettings, values: Array) -> Array:
    return np.hstack([np.ones((len(values), 1 if settings.intercept else 0)), values])


def _check_traits(Y: Array, X: Array, traits: Sequence[str], covariates: Sequence[str], pheno: SampleTable) -> None:
    """Refuse too few samples, and traits that are combinations of covariates and other traits."""
    n, p, c = Y.shape[0], Y.shape[1], X.shape[1]
    observed = ~np.isnan(Y)
    whole = observed.all(axis=1)
    if n - c < p + 1:
        what = "all traits and covariates" if whole.all() else "a trait and all covariates"
        raise NumericalError(
            f"{pheno.path}: {n} samples have {what}, and {p} traits with {c} covariates need at least {p + c + 1};"
            " take fewer traits or covariates"
        )
    for k, seen in enumerate(observed.T):
        y = Y[seen, k]
        if np.linalg.norm(_residuals(y, X[seen])) <= 1e-7 * np.linalg.norm(y - y.mean()):
            raise NumericalError(
                f"{pheno.path}: trait {traits[k]} is a linear combination of the covariates ({', '.join(covariates)});"
                " leave it or them out"
            )
    if np.count_nonzero(whole) - c < p + 1:
        return
    for dependency in dependencies(_residuals(Y[whole], X[whole])):
        raise NumericalError(
            f"{pheno.path}: trait {combination(traits, dependency)}"
            + (" (and the covariates)" if c > 1 else "")
            + "; leave one of them out"
        )


def _residuals(Y: Array, X: Array) -> Array:
    return np.asarray(Y - X @ np.linalg.lstsq(X, Y, rcond=None)[0]) if X.shape[1] else Y


def _check_missing(settings: FitSettings, samples: AnalysedSamples, data: TraitData, covariates: Sequence[str]) -> None:
    """Refuse traits on too few samples, and say which pairs of traits no sample has both of."""
    traits, missing = samples.traits, np.isnan(data.Y)
    for left_out in check_observed(data.Y, data.A, data.X, traits, covariates, settings.drop_redundant):
        logger.info("%s", left_out)
    together = (~missing).T.astype(float) @ ~missing
    apart = np.argwhere(np.tril(together == 0))
    if apart.size:
        j, k = apart[0]
        logger.warning(
            "no sample has both traits of %s (such as %s and %s): their residual covariances are not determined",
            counted(len(apart), "pairs"),
            traits[k],
            traits[j],
        )


def _require_memory(
    settings: FitSettings, samples: AnalysedSamples, grm: Grm, missing: MissingCost | None = None
) -> None:
    """Refuse a dense matrix, or more missing cells, than memory allows; say what missing cells cost."""
    n, limit, whose = len(samples.Y), settings.common.memory_mib, "--memory allows"
    if limit is None:
        limit, whose = available_memory_mib(), "the machine has"
    of_cells = 0
    if missing is not None:
        of_cells = missing.fit_bytes + 8 * n * grm.largest_rank(n)
    needed = BASE_MIB + ((_bytes_of_matrices(settings, samples, grm) + of_cells) >> 20)
    if missing is not None:
        logger.info(
            "%s on %s: the fit needs some %d MiB and %.2g operations a likelihood, the scan %.1f"
            " times those of complete traits",
            counted(missing.ncells, "missing cells"),
            counted(missing.nrows, "samples"),
            needed,
            missing.likelihood_flops,
            missing.scan_ratio,
        )
    if limit is None or needed <= limit:
        return
    if missing is not None:
        raise InputError(
            f"--missing exact: the fit with {counted(missing.ncells, 'missing cells')} on"
            f" {counted(missing.nrows, 'samples')} needs some {needed} MiB, and"
            f" {whose} {limit} MiB; {_way_out(samples, np.isnan(samples.Y))}, or use --missing drop"
        )
    cutoff = "--grm-cutoff 0.05" if settings.grm_cutoff is None else "a sparse matrix"
    raise InputError(
        f"--grm: a dense matrix of {n} samples needs some {needed} MiB for the fit, and {whose} {limit} MiB; allow"
        f" that, keep fewer samples (--keep), or give {cutoff}"
    )


def _bytes_of_matrices(settings: FitSettings, samples: AnalysedSamples, grm: Grm) -> int:
    """Memory of the relationship matrix and its eigendecomposition; what is cut off is not decomposed whole."""
    n = len(samples.Y)
    read = n + (len(samples.not_analysed_rows) if settings.predict else 0)
    rank = grm.largest_rank(n)
    decomposed = n * rank if settings.grm_cutoff is not None else TALL * n * rank + SQUARE * rank**2
    return 8 * (decomposed + (settings.loco + settings.predict) * read * grm.largest_rank(read))


def _way_out(samples: AnalysedSamples, missing: NDArray[np.bool_]) -> str:
    """Which trait and which samples have most missing cells."""
    of_trait, of_sample = missing.sum(axis=0), missing.sum(axis=1)
    trait, most = int(of_trait.argmax()), int(of_sample.max())
    worst = np.flatnonzero(of_sample == most)
    p = missing.shape[1]
    return (
        f"leave out (--pheno-name) traits such as {samples.traits[trait]}, which {of_trait[trait]} samples lack, or"
        f" (--remove) samples that lack {most} of the {p} traits ({worst.size}, such as"
        f" {samples.samples.label(int(worst[0]))})"
    )


def _not_analysed(
    settings: FitSettings, samples: AnalysedSamples, relationship: Samples, covar: SampleTable | None, kept: list[int]
) -> NotAnalysed:
    """The samples of the relationship matrix that are not analysed, where they are to be predicted."""
    rows = samples.not_analysed_rows if settings.predict else samples.not_analysed_rows[:0]
    found = relationship.take(rows)
    values = np.empty((len(rows), 0))
    if covar is not None:
        values = code_with_levels(covar, match(found, covar.samples), samples.levels)
    return NotAnalysed(found, rows, _with_intercept(settings, values)[:, kept])
