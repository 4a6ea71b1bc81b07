"""What the likelihood of the observed cells costs, known before it is paid."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.model.missing.information import uses_observed_information

BYTES = 8


@dataclass(frozen=True)
class MissingCost:
    """The size of a problem with missing cells.

    Attributes
    ----------
    ncells : q, missing cells
    nrows : samples with a missing cell
    fit_bytes : memory of the fit beyond that of complete traits
    likelihood_flops : floating point operations of one likelihood and its gradient
    scan_ratio : operations of the scan of a variant, as a multiple of its rotation
    """

    ncells: int
    nrows: int
    fit_bytes: int
    likelihood_flops: float
    scan_ratio: float


def missing_cost(missing: NDArray[np.bool_], ncovariates: int, rank: int) -> MissingCost:
    """The cost for a pattern of missing cells (n, p), this many covariates, and GGᵀ of at most this rank."""
    n, p = missing.shape
    m = min(n, rank + ncovariates + p)
    q, rows = int(missing.sum()), int(missing.any(axis=1).sum())
    size = q + p * ncovariates
    largest = int(missing.sum(axis=0).max(initial=0))
    directions = 2 * p * (p + 1) if uses_observed_information(p, size) else 0
    matrices = (4 + directions) * size**2 + (q + 2 * largest) * m + (p * p + 6 * p) * m
    pairs = float(np.sum(np.multiply.outer(missing.sum(axis=0), missing.sum(axis=0)))) * m
    return MissingCost(
        ncells=q,
        nrows=rows,
        fit_bytes=BYTES * matrices,
        likelihood_flops=3 * pairs + float(size) ** 3,
        scan_ratio=1 + p * (rows + ncovariates) / n + 0.6 * p * size**2 / (n * m),
    )
