"""What a fit says of the families of a sparse relationship matrix, and the memory that they need."""

import logging

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from kron2sum_cli.errors import InputError
from kron2sum_cli.model.families.spectrum import FamilySpectrum, Sparse, sizes_of_families
from kron2sum_cli.model.null_model import TraitData
from kron2sum_cli.resources import available_memory_mib

logger = logging.getLogger("kron2sum.fit")

MATRICES = 5
"""Matrices of its size that the eigendecomposition of a family holds at once."""


def require_memory(K: Sparse, memory_mib: int | None, data: TraitData) -> None:
    """Refuse a matrix with a family that is too large for what is fitted, and say which cutoff would split it.

    Raises
    ------
    InputError
        With the size of the family and the smallest cutoff that makes all families fit.
    """
    limit, whose = memory_mib, "--memory allows"
    if limit is None:
        limit, whose = available_memory_mib(), "the machine has"
    sizes = sizes_of_families(K)
    largest, needed = int(sizes.max(initial=1)), _needed_mib(sizes, data)
    if limit is None or needed <= limit:
        return
    cutoffs = np.round(np.arange(0.01, 0.5, 0.01), 2)
    enough = next((x for x in cutoffs if _needed_mib(sizes_of_families(_cut(K, float(x))), data) <= limit), None)
    advice = f"--grm-cutoff {enough:g} splits it" if enough is not None else "give a matrix of fewer samples"
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
        return int(8 * (squares.sum() + MATRICES * squares.max(initial=0.0))) >> 20
    return int(8 * (squares[sizes > 1].sum() + MATRICES * squares.max(initial=0.0))) >> 20


def _cut(K: Sparse, cutoff: float) -> Sparse:
    C = K.tocoo()
    kept = (C.data >= cutoff) | (C.row == C.col)
    return csr_array((C.data[kept], (C.row[kept], C.col[kept])), shape=C.shape)


def report_families(spectrum: FamilySpectrum) -> None:
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
