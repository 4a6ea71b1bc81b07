"""From a relationship matrix to a fitted null model, of complete traits or of observed cells."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from time import perf_counter
from typing import Generic

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from kron2sum_cli.errors import ConvergenceError, NumericalError
from kron2sum_cli.fit.design import Design
from kron2sum_cli.genotypes.source import Relationship
from kron2sum_cli.model import fitting
from kron2sum_cli.model.climbing import Optimum
from kron2sum_cli.model.contrasts import rotate_coupled, rotate_traits
from kron2sum_cli.model.fitting import Fit
from kron2sum_cli.model.missing import fitting as missing_fitting
from kron2sum_cli.model.missing.fitting import ObservedFit
from kron2sum_cli.model.missing.observed import observed_cells, observed_spectrum
from kron2sum_cli.model.null_model import FitSummary, NullModel, ObservedNullModel
from kron2sum_cli.model.rank import Fitted, ranks_by_aic
from kron2sum_cli.model.spectrum import Spectrum, spectrum_of_features, spectrum_of_relationship
from kron2sum_cli.model.trait_axes import TraitAxes
from kron2sum_cli.model.uncertainty import Estimates, estimates_of, estimates_of_observed
from kron2sum_cli.progress import Progress
from kron2sum_cli.settings import FitSettings

logger = logging.getLogger("kron2sum.fit")

Array = NDArray[np.float64]

ONE_THREAD_UP_TO = 2500
"""Up to so many samples a relationship matrix is decomposed with BLAS on one thread.

To make a matrix tridiagonal the threads of BLAS wait for each other several times a column. That halves 0.6 s at
n = 2,000 on two idle cores, and makes 20 seconds of them where another program has one of the cores. With one thread
no digit depends on ``--threads``, either.
"""

EQUAL_EIGENVALUES = 1e-9
"""Eigenvalues that differ by no more than this share of the largest are one."""


@dataclass(frozen=True)
class RotatedSamples:
    """The spectrum of a relationship matrix, and for observed cells by REML its shift (`observed_spectrum`)."""

    spectrum: Spectrum
    shift: Array | None


@dataclass(frozen=True)
class _Problem(Generic[Fitted]):
    """A likelihood to be maximised.

    Attributes
    ----------
    ntraits : p
    fit : the maximum with C0 of at most this rank
    climb : the optimum reached from given axes with C0 of at most this rank
    """

    ntraits: int
    fit: Callable[[int], Fitted]
    climb: Callable[[TraitAxes, int], Fitted]


def rotate_samples(
    settings: FitSettings, relationship: Relationship, design: Design, progress: Progress
) -> RotatedSamples:
    """Decompose a relationship matrix of the analysed samples, which is destroyed."""
    matrix = relationship.K if relationship.G is None else relationship.G
    assert matrix is not None
    features = relationship.G is not None
    shift = None
    with progress.task("Eigendecomposition", None, ""), _step("eigendecomposition"):
        if design.has_missing:
            shifted = settings.method == "reml" and not design.reduced
            spectrum, shift = observed_spectrum(matrix, design.X, features, shifted)
        else:
            X = design.X[:, :0] if design.reduced else design.X
            of_matrix = spectrum_of_features if features else spectrum_of_relationship
            few = len(X) <= ONE_THREAD_UP_TO
            with threadpool_limits(1, user_api="blas") if few else nullcontext():
                spectrum = of_matrix(matrix, X, True, settings.common.threads if few else 1)
    contrasts = spectrum.nsamples - spectrum.ncovariates
    logger.info("%d contrasts, rank of the relationship matrix among them %d", contrasts, spectrum.s.size)
    if spectrum.s.size == contrasts and np.ptp(spectrum.s) <= EQUAL_EIGENVALUES * spectrum.s.max():
        logger.warning(
            "the relationship matrix is a multiple of the identity given the covariates: genetic and residual variances"
            " cannot be told apart, so that heritabilities and correlations mean nothing; the sums of the variances do,"
            " and the tests of a scan"
        )
    return RotatedSamples(spectrum, shift)


@contextmanager
def _step(name: str) -> Iterator[None]:
    start = perf_counter()
    yield
    logger.info("%s: %.1f s", name, perf_counter() - start)


def fitted_null(
    settings: FitSettings, rotated: RotatedSamples, design: Design, whole: FitSummary | None
) -> NullModel | ObservedNullModel:
    """The null model of one relationship matrix; with the whole genome's fit at hand a warm one of its rank.

    Raises
    ------
    ConvergenceError
        Where the optimum is not certified, unless the settings allow it.
    NumericalError
        Where there are fewer traits than ranks, or no likelihood.
    """
    if design.has_missing:
        return _observed_null(settings, rotated, design, whole)
    # Many small products and decompositions: threads of BLAS would wait for each other more than they work.
    with threadpool_limits(1, user_api="blas"):
        return _complete_null(settings, rotated.spectrum, design, whole)


def _complete_null(settings: FitSettings, spectrum: Spectrum, design: Design, whole: FitSummary | None) -> NullModel:
    reml = settings.method == "reml"
    if design.reduced:
        data = rotate_coupled(spectrum, design.Y, design.A, design.X)
    else:
        data = rotate_traits(spectrum, design.Y)
    problem = _Problem(
        data.ntraits,
        lambda rank: fitting.fit(data, rank, reml),
        lambda start, rank: fitting.climb(data, start, rank, reml),
    )
    fitted = _fit(settings, problem, whole)
    point, g = fitted.point, spectrum.mean_diagonal
    estimates = estimates_of(point, spectrum.Qx, fitted.rank, g, design.A, design.X)
    return NullModel(_summary(settings, fitted, estimates, g), data, spectrum.Qx)


def _observed_null(
    settings: FitSettings, rotated: RotatedSamples, design: Design, whole: FitSummary | None
) -> ObservedNullModel:
    spectrum, reml = rotated.spectrum, settings.method == "reml"
    cells = observed_cells(spectrum, design.Y, design.A, design.X, rotated.shift)
    problem = _Problem(
        cells.ntraits,
        lambda rank: missing_fitting.fit(cells, rank, reml),
        lambda start, rank: missing_fitting.climb(cells, start, rank, reml),
    )
    with _step("fit of the observed cells"):
        fitted = _fit(settings, problem, whole)
    estimates = estimates_of_observed(fitted.point, fitted.rank, spectrum.mean_diagonal)
    return ObservedNullModel(_summary(settings, fitted, estimates, spectrum.mean_diagonal), cells)


def _fit(settings: FitSettings, problem: _Problem[Fitted], whole: FitSummary | None) -> Fitted:
    try:
        if whole is not None:
            warm = problem.climb(whole.axes, whole.rank)
            return warm if warm.certificate.certified else problem.fit(whole.rank)
        if settings.rank == "auto":
            return _best_rank(problem)
        p = problem.ntraits
        rank = p if settings.rank is None else settings.rank
        if rank > p:
            raise NumericalError(f"--rank {rank}: there are {p} traits; give at most that")
        return problem.fit(rank)
    except ConvergenceError as error:
        if settings.allow_unconverged and isinstance(error.result, Optimum):
            logger.warning("%s; written all the same (--allow-unconverged)", error)
            return error.result
        raise ConvergenceError(
            f"{error}; no null model was written (--allow-unconverged writes it; fewer or differently scaled traits,"
            " or --rank, may help)",
            error.result,
        ) from error


def _best_rank(problem: _Problem[Fitted]) -> Fitted:
    rows = ranks_by_aic(problem.fit, problem.ntraits)
    best = min(rows, key=lambda row: row.aic)
    logger.info("rank  parameters  log-likelihood           AIC")
    for row in rows:
        mark = "  <- chosen" if row is best else ""
        logger.info("%4d  %10d  %14.4f  %12.4f%s", row.rank, row.nparameters, row.fit.point.lml, row.aic, mark)
    return best.fit


def _summary(
    settings: FitSettings, fitted: Fit | ObservedFit, estimates: Estimates, mean_diagonal: float
) -> FitSummary:
    point = fitted.point
    return FitSummary(
        axes=point.axes,
        reml=settings.method == "reml",
        rank=fitted.rank,
        lml=point.lml,
        mean_diagonal=mean_diagonal,
        quadratic=point.quadratic,
        certificate=fitted.certificate,
        estimates=estimates,
    )
