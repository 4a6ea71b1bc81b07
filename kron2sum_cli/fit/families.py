"""The likelihoods of traits on a sparse relationship matrix, which falls into families."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError, NumericalError
from kron2sum_cli.fit.design import BASE_MIB, Design
from kron2sum_cli.fit.null_model import blas_for, step
from kron2sum_cli.genotypes.sparse_matrix import sparse_above_cutoff
from kron2sum_cli.model.families.null_model import likelihood_of_families
from kron2sum_cli.model.families.spectrum import FamilySpectrum, Sparse, family_spectrum, sizes_of_families
from kron2sum_cli.model.null_model import NullLikelihood, TraitData
from kron2sum_cli.progress import Progress
from kron2sum_cli.resources import available_memory_mib
from kron2sum_cli.settings import FitSettings

logger = logging.getLogger("kron2sum.fit")

BYTES_OF_PAIR = 24
"""Of a relationship that is not 0, with its place, twice."""

MATRICES_OF_FAMILY = 5
"""Matrices of its size that the eigendecomposition of a family holds at once."""

MATRICES_OF_CELLS = 7
"""The same of the covariance of its cells, where some are missing."""


def likelihoods_of_families(
    settings: FitSettings, K: Sparse, design: Design, progress: Progress
) -> Iterator[tuple[str | None, NullLikelihood[Any]]]:
    """Decompose a sparse matrix of the analysed samples family by family, for the likelihoods of their traits.

    Yields that of the traits (None), then those less the polygenic prediction without each chromosome. Raises
    InputError where a family needs more memory than there is; NumericalError where there is no such likelihood.
    """
    reml = settings.method == "reml"
    _require_memory(K, settings.common.memory_mib, design)
    blas = blas_for(int(sizes_of_families(K).max()), settings.common.threads)
    with progress.task("Eigendecomposition", None, ""), step("eigendecomposition"), blas:
        families = _families(K, settings.grm_cutoff)
    _report_families(families)
    yield None, likelihood_of_families(families, design, reml)
    for chromosome, predicted in design.polygenic.items():
        yield chromosome, likelihood_of_families(families, replace(design, Y=design.Y - predicted), reml)


def _families(K: Sparse, cutoff: float | None) -> FamilySpectrum:
    """The eigendecomposition of a sparse matrix; an error says what may make the matrix positive semi-definite."""
    try:
        return family_spectrum(K)
    except NumericalError as error:
        advice = (
            f"give another --grm-cutoff than {cutoff:g}: a smaller one changes the matrix less, a larger one leaves"
            " smaller families"
            if cutoff is not None
            else "--grm-cutoff 0.05 sets small and negative relationships to 0, which mends most"
        )
        raise NumericalError(f"{error}; {advice}; or check its file") from error


def _require_memory(K: Sparse, memory_mib: int | None, data: TraitData) -> None:
    """Refuse a matrix with a family that is too large for what is fitted, and say which cutoff would split it."""
    limit, whose = memory_mib, "--memory allows"
    if limit is None:
        limit, whose = available_memory_mib(), "the machine has"
    sizes = sizes_of_families(K)
    fixed = BASE_MIB + (BYTES_OF_PAIR * K.nnz >> 20)
    largest, needed = int(sizes.max(initial=1)), fixed + _needed_mib(sizes, data)
    if limit is None or needed <= limit:
        return
    cutoffs = np.round(np.arange(0.01, 0.5, 0.01), 2).tolist()
    sizes_by_cutoff = ((x, sizes_of_families(sparse_above_cutoff(K, x))) for x in cutoffs)
    enough = next((x for x, sizes in sizes_by_cutoff if fixed + _needed_mib(sizes, data) <= limit), None)
    advice = (
        f"--grm-cutoff {enough:g} splits it" if enough is not None else "allow that, or give a matrix of fewer samples"
    )
    if data.has_missing:
        what = f"and with --missing exact the covariances of families of {data.Y.shape[1]} traits need"
        advice += ", or use --missing drop"
    else:
        what = "and its eigendecomposition needs"
    raise InputError(
        f"--grm: the largest family has {largest} samples, {what} some {needed} MiB, where {whose} {limit} MiB;"
        f" {advice}"
    )


def _needed_mib(sizes: NDArray[np.intp], data: TraitData) -> int:
    """Memory for decomposing all families, or with missing cells for the inverse covariances of their cells."""
    squares = sizes.astype(np.float64) ** 2
    if data.has_missing:
        squares *= data.Y.shape[1] ** 2
        return int(8 * (squares.sum() + MATRICES_OF_CELLS * squares.max(initial=0.0))) >> 20
    return int(8 * (squares[sizes > 1].sum() + MATRICES_OF_FAMILY * squares.max(initial=0.0))) >> 20


def _report_families(spectrum: FamilySpectrum) -> None:
    """Say how many samples are in families, and how large the largest is."""
    if spectrum.nnegative:
        logger.warning(
            "%d eigenvalues of the relationship matrix are negative (the smallest %.3g), as a cutoff can make them:"
            " they are set to 0, which gives the nearest positive semi-definite matrix",
            spectrum.nnegative,
            spectrum.smallest,
        )
    families = spectrum.rotation.families
    members = sum(group.members.size for group in families)
    if not members:
        logger.info("no two of the %d samples are related: C0 is 0", spectrum.nsamples)
        return
    logger.info(
        "%d of %d samples are in %d families of 2 to %d; the others are related to nobody",
        members,
        spectrum.nsamples,
        sum(len(group.members) for group in families),
        max(group.members.shape[1] for group in families),
    )
