"""What the P values of a whole scan add up to: inflation of its tests, and how many independent tests it is."""

from collections.abc import Sequence

import numpy as np
import scipy

from kron2sum_cli.model.spectrum import Array, Floats, Indices

DEFLATED, INFLATED = 0.95, 1.05
"""λ of a test beyond these is remarked on."""

BINS = 20_000
"""Stretches of 0 to 1 in which P values are counted."""

CORRELATED_AT_ONCE = 128
"""Variants next to each other whose correlations are looked at; beyond, variants count as independent."""

MOST_SAMPLES = 1000
"""Samples that tell the correlation of variants, evenly spaced among all."""


def inflation(median: float, df: int) -> float:
    """Genomic control λ, the χ² of the median P value over the median of the distribution.

    ``λ = F⁻¹(1 - median P) / F⁻¹(1/2)`` with F of χ² with ``df`` degrees of freedom (Devlin and Roeder 1999).
    """
    # Not scipy.stats, which takes long to load.
    return float(scipy.special.chdtri(df, median) / scipy.special.chdtri(df, 0.5))


class MedianP:
    """Medians of the P values of several tests, by name, as they come, in memory that does not grow."""

    def __init__(self, tests: Sequence[str]) -> None:
        self._counts = {test: np.zeros(BINS, dtype=np.int64) for test in tests}

    def add(self, test: str, mlog10p: Array) -> None:
        """Take -log10 P of some variants, NaN where a variant has none."""
        p = 10.0 ** -mlog10p[~np.isnan(mlog10p)]
        np.add.at(self._counts[test], np.minimum((p * BINS).astype(np.intp), BINS - 1), 1)

    def number(self, test: str) -> int:
        """How many P values a test has."""
        return int(self._counts[test].sum())

    def of(self, test: str) -> float:
        """The median P of a test, of an even number the mean of the middle two; NaN without variants."""
        upto = np.cumsum(self._counts[test])
        if not upto[-1]:
            return float("nan")
        middle = np.array([(upto[-1] - 1) // 2, upto[-1] // 2])
        k = np.searchsorted(upto, middle, side="right")
        above = middle - (upto[k] - self._counts[test][k])  # how many of the bin are smaller
        return float(np.mean((k + (above + 0.5) / self._counts[test][k]) / BINS))


def independent_tests(G: Floats, some: Indices | None = None) -> float:
    """To how many independent tests some of variants G (n, b) amount, which lie next to each other and vary.

    ``Σ_i min(λ_i, 1)``, λ the eigenvalues of the correlation matrix of the χ² statistics: a direction that several
    variants share counts once (Li, Yeung, Cherny and Sham 2012, Human Genetics 131:747). Statistics of one degree of
    freedom correlate by r², r the correlation of the genotypes.
    """
    Z = G[:: -(-len(G) // MOST_SAMPLES)][:, slice(None) if some is None else some].astype(np.float64)
    if not Z.shape[1]:
        return 0.0
    Z -= Z.mean(axis=0)
    size = np.linalg.norm(Z, axis=0)
    constant = size <= 1e-9 * np.sqrt(len(Z))  # in these samples
    r = (Z.T @ Z) / np.outer(np.where(constant, 1.0, size), np.where(constant, 1.0, size))
    r[constant, constant] = 1.0
    return float(np.minimum(np.maximum(np.linalg.eigvalsh(r**2), 0.0), 1.0).sum())
