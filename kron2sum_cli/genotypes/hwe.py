"""The exact test of Hardy-Weinberg equilibrium."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

_TIE = 1e-8
"""Two probabilities closer than this (relative) are the same but for rounding."""


def hwe_exact(
    heterozygous: NDArray[np.int64], homozygous_1: NDArray[np.int64], homozygous_2: NDArray[np.int64]
) -> NDArray[np.float64]:
    """P values of the exact test of Hardy-Weinberg equilibrium.

    Given the allele counts, the number h of heterozygous samples has the probability
    ``P(h) ∝ 2^h / (h! r! c!)``, with r and c samples homozygous for the rarer and the commoner allele; the
    p value is the sum of all P(h) that are not above that of the observed h.

    Parameters
    ----------
    heterozygous, homozygous_1, homozygous_2 : (m,) numbers of samples with each genotype

    Returns
    -------
    (m,) p values, without mid-p correction; 1 where there is no genotype, 0 where p underflows

    References
    ----------
    Wigginton, Cutler and Abecasis (2005), Am J Hum Genet 76:887, equations 1 and 2
    """
    rare = 2 * np.minimum(homozygous_1, homozygous_2) + heterozygous
    n = heterozygous + homozygous_1 + homozygous_2
    log_factorial = gammaln(np.arange(n.max(initial=0) + 1) + 1.0)
    cells = zip(heterozygous.tolist(), rare.tolist(), n.tolist(), strict=True)
    return np.array([_p_value(h, r, k, log_factorial) for h, r, k in cells])


def _p_value(heterozygous: int, rare: int, n: int, log_factorial: NDArray[np.float64]) -> float:
    """The p value of one variant, from the count of its rarer allele in n samples."""
    possible = np.arange(rare % 2, rare + 1, 2)
    homozygous = (rare - possible) // 2
    log_p = (
        possible * np.log(2.0)
        - log_factorial[possible]
        - log_factorial[homozygous]
        - log_factorial[n - possible - homozygous]
    )
    probabilities = np.exp(log_p - log_p.max())
    observed = probabilities[heterozygous // 2]
    tail = probabilities[probabilities <= observed * (1 + _TIE)].sum()
    return float(tail / probabilities.sum())
