"""From a relationship matrix to a fitted null model."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from time import perf_counter
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from kron2sum_cli.errors import ConvergenceError, NumericalError, VanishingCombinationError
from kron2sum_cli.fit.design import Design
from kron2sum_cli.genotypes.source import Relationship
from kron2sum_cli.model.climbing import Optimum
from kron2sum_cli.model.null_model import FitSummary, NullLikelihood, NullModel, null_likelihood, rotate_samples
from kron2sum_cli.progress import Progress
from kron2sum_cli.resources import idle_processors
from kron2sum_cli.settings import FitSettings

logger = logging.getLogger("kron2sum.fit")

ONE_THREAD_UP_TO = 2500
"""Up to this order a matrix is decomposed with BLAS on one thread.

To make a matrix tridiagonal the threads of BLAS wait for each other several times a column. That halves 0.6 s at
n = 2,000 on two idle cores, and makes 20 seconds of them where another program has one of the cores. With one thread
no digit depends on ``--threads``, either. Above it no more threads are used than processors are idle.
"""

NEARLY_IDLE = 0.25
"""A processor that others use for less than this share of the time counts as idle."""

EQUAL_EIGENVALUES = 1e-9
"""Eigenvalues that differ by no more than this share of the largest are one."""

VAGUE_HERITABILITY = 0.3
"""Standard error of a heritability, expected from the relationship matrix alone, above which there is a warning."""

TOO_LOW_RANK = 0.05
"""P value of the likelihood ratio against full rank below which the data support a higher rank of C0."""


def likelihoods_of(
    settings: FitSettings, relationship: Relationship, design: Design, progress: Progress
) -> Iterator[tuple[str | None, NullLikelihood[Any]]]:
    """Decompose the dense matrix of the analysed samples in its own memory, for the likelihood of their traits.

    Raises NumericalError where there is no such likelihood.
    """
    reml = settings.method == "reml"
    matrix = relationship.K if relationship.G is None else relationship.G
    assert matrix is not None
    features = relationship.G is not None
    blas = blas_for(len(matrix), settings.common.threads)
    with progress.task("Eigendecomposition", None, ""), step("eigendecomposition"), blas:
        rotated = rotate_samples(matrix, features, design, reml)
    spectrum = rotated.spectrum
    contrasts = spectrum.nsamples - spectrum.ncovariates
    logger.info("%d contrasts, rank of the relationship matrix among them %d", contrasts, spectrum.s.size)
    if spectrum.nnegative:
        logger.info(
            "%d eigenvalues of the relationship matrix are negative (the smallest %.3g, the largest of all %.3g): they"
            " are set to 0",
            spectrum.nnegative,
            spectrum.smallest,
            spectrum.s.max(initial=0.0),
        )
    _warn_of_equal_eigenvalues(spectrum.s, contrasts)
    likelihood = null_likelihood(rotated, design, reml)
    del relationship, matrix, rotated  # the likelihood holds what it needs of them
    yield None, likelihood


def _warn_of_equal_eigenvalues(s: NDArray[np.float64], contrasts: int) -> None:
    """Say where the eigenvalues vary too little to tell genetic from residual variance.

    The expected information of the heritability of one trait at 0 is ``½ Σ_i (s_i/τ - 1)²``, τ the mean of the n - c
    eigenvalues; it changes little with the heritability where they hardly vary.
    """
    if s.size == contrasts and np.ptp(s) <= EQUAL_EIGENVALUES * s.max():
        logger.warning(
            "the relationship matrix is a multiple of the identity given the covariates: genetic and residual variances"
            " cannot be told apart, so that heritabilities and correlations mean nothing; the sums of the variances do,"
            " and the tests of a scan"
        )
        return
    mean = s.sum() / contrasts
    spread = np.sum((s / mean - 1) ** 2) + (contrasts - s.size) if mean > 0 else 0.0
    if spread <= 0:  # the matrix is zero, which the fit refuses
        return
    error = float(np.sqrt(2 / spread))
    if error > VAGUE_HERITABILITY:
        logger.warning(
            "the eigenvalues of the relationship matrix hardly vary: a heritability has a standard error of some %.1f"
            " whatever its estimate says, and genetic and residual variances are hardly told apart; more samples, or"
            " closer relatives, would. The tests of a scan need neither",
            error,
        )


@contextmanager
def step(name: str) -> Iterator[None]:
    """Log how long a step took."""
    start = perf_counter()
    yield
    logger.info("%s: %.1f s", name, perf_counter() - start)


@cache
def _blas() -> ThreadpoolController:
    """BLAS, which takes long to find among all libraries that are loaded."""
    return ThreadpoolController()


@contextmanager
def with_blas_threads(number: int) -> Iterator[None]:
    """Let BLAS use so many threads."""
    with _blas().limit(limits=number, user_api="blas"):
        yield


def blas_for(order: int, threads: int) -> AbstractContextManager[None]:
    """The threads of BLAS for matrices of this order: as many of ``threads`` as will not wait for each other.

    All of them wait for one that has to share its processor with another program.
    """
    if order <= ONE_THREAD_UP_TO or threads == 1:
        return with_blas_threads(1)
    idle = idle_processors()
    used = threads if idle is None else min(threads, max(1, int(idle + NEARLY_IDLE)))
    if used < threads:
        logger.info("other programs keep processors busy: %d of %d threads are used", used, threads)
    return with_blas_threads(used)


def fitted_null(
    settings: FitSettings, likelihood: NullLikelihood[Any], whole: FitSummary | None, traits: Sequence[str]
) -> NullModel:
    """The null model of one relationship matrix; that without a chromosome starts from the whole genome's, ``whole``.

    Messages name the traits. Raises ConvergenceError where the optimum is not certified, unless the settings allow it;
    NumericalError where there are fewer traits than ranks.
    """
    with blas_for(likelihood.largest_matrix, settings.common.threads), step("fit"):
        return likelihood.null_model(_fit(settings, likelihood, whole, traits))


def _fit(
    settings: FitSettings, likelihood: NullLikelihood[Any], whole: FitSummary | None, traits: Sequence[str]
) -> Optimum[Any]:
    try:
        if whole is not None:
            return _warm_fit(likelihood, whole) or likelihood.fit(whole.rank)
        p = likelihood.largest_rank
        if settings.rank == "auto" and p:
            return _best_rank(likelihood.fits(range(1, p + 1)))
        rank = settings.rank if isinstance(settings.rank, int) else p
        if rank > p:
            raise NumericalError(f"--rank {rank}: there are {p} traits; give at most that")
        fitted = likelihood.fit(rank)
        if rank < p:
            _warn_of_low_rank(fitted, likelihood)
        return fitted
    except ConvergenceError as error:
        reason = error.naming(traits) if isinstance(error, VanishingCombinationError) else str(error)
        if settings.allow_unconverged and isinstance(error.result, Optimum):
            logger.warning("%s; written all the same (--allow-unconverged)", reason)
            return error.result
        raise ConvergenceError(
            f"{reason}; no null model was written (--allow-unconverged writes it; fewer or differently scaled traits,"
            " or --rank, may help)",
            error.result,
        ) from error


def _warm_fit(likelihood: NullLikelihood[Any], whole: FitSummary) -> Optimum[Any] | None:
    """The fit reached from the whole genome's, None where that is not certified.

    The start itself may have no likelihood: a singular C1 has none where the GGᵀ without a chromosome is singular.
    """
    try:
        warm = likelihood.fit_near(whole.axes, whole.rank)
    except NumericalError:
        return None
    return warm if warm.certificate.certified else None


def _warn_of_low_rank(fitted: Optimum[Any], likelihood: NullLikelihood[Any]) -> None:
    """Say where the data support a higher rank of C0 than the one asked for.

    The ratio is compared with χ² on the difference in parameters, which is conservative: full rank is at a boundary.
    """
    try:
        full = likelihood.fit(likelihood.largest_rank)
    except ConvergenceError:
        return
    ratio, df = 2 * (full.point.lml - fitted.point.lml), full.nparameters - fitted.nparameters
    p_value = float(scipy.special.chdtrc(df, max(ratio, 0.0)))
    if p_value < TOO_LOW_RANK:
        logger.warning(
            "C0 of rank %d has a log-likelihood %.2f below that of full rank (P = %.2g): its tests have too many false"
            " positives where the traits have more genetic variance than it allows; use --rank auto, or full rank",
            fitted.rank,
            ratio / 2,
            p_value,
        )


def _best_rank(fits: list[Optimum[Any]]) -> Optimum[Any]:
    """The fit with the smallest one-sided AIC; of the largest rank and of those below that may have it."""
    best = min(fits, key=lambda fitted: fitted.one_sided_aic)
    by_rank = {fitted.rank: fitted for fitted in fits}
    uncertified = []
    logger.info("rank  parameters  log-likelihood  one-sided AIC")
    for rank in range(1, max(by_rank) + 1):
        if rank in by_rank:
            found, mark = by_rank[rank], "  <- chosen" if by_rank[rank] is best else ""
            row = (rank, found.nparameters, found.point.lml, found.one_sided_aic, mark)
            logger.info("%4d  %10d  %14.4f  %13.4f%s", *row)
            continue
        least = by_rank[min(each for each in by_rank if each > rank)].least_aic(rank)
        if least < best.one_sided_aic:
            uncertified.append(rank)
            logger.info("%4d  no certified optimum", rank)
        else:
            logger.info("%4d  not fitted: its one-sided AIC is at least %.4f", rank, least)
    if uncertified:
        logger.warning(
            "no optimum with C0 of rank %s could be certified: --rank auto chose among the others",
            ", ".join(map(str, uncertified)),
        )
    return best
