"""Counts of a block of genotypes: arrays in, arrays out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HARD_CALL_DISTANCE = np.float32(0.1 + 1e-6)
"""Largest distance of a dosage from 0, 1 or 2 that still counts as that genotype (plink2's, and some rounding)."""

DOUBLES_AT_ONCE = 1 << 18
"""Genotypes that are in double precision at once."""

LOOKED_AT_FIRST = (128, 4096)
"""Samples among which most and nearly all variants vary, so that the others need not be looked at."""


@dataclass(frozen=True)
class GenotypeCounts:
    """What the genotypes of m variants in n samples add up to.

    - ``ploidy``: copies of a chromosome that a sample has.
    - ``n_called`` (m,): genotypes that are not missing, int64.
    - ``ea_count`` (m,): copies of the effect allele among them, float64.
    - ``constant`` (m,): whether all genotypes called are the same, or none is called.
    - ``info`` (m,): imputation quality: variance of the dosages over 2f(1-f), the variance that certain genotypes in
      Hardy-Weinberg equilibrium have (MaCH's r²). NaN where all genotypes are 0, 1 or 2, or where it was not asked for.
    - ``hard_calls`` (3, m): samples that have two, one and no copy of the effect allele without doubt, int64, where
      they were asked for.
    """

    n_samples: int
    ploidy: int
    n_called: NDArray[np.int64]
    ea_count: NDArray[np.float64]
    constant: NDArray[np.bool_]
    info: NDArray[np.float64]
    hard_calls: NDArray[np.int64] | None = None

    @property
    def eaf(self) -> NDArray[np.float64]:
        """(m,) frequency of the effect allele; NaN where no genotype is called."""
        return self._per_allele(self.ea_count)

    @property
    def mean(self) -> NDArray[np.float64]:
        """(m,) mean dosage; NaN where no genotype is called."""
        return self.ploidy * self.eaf

    @property
    def mac(self) -> NDArray[np.float64]:
        """(m,) copies of the rarer allele."""
        return np.minimum(self.ea_count, self.ploidy * self.n_called - self.ea_count)

    @property
    def maf(self) -> NDArray[np.float64]:
        """(m,) frequency of the rarer allele; NaN where no genotype is called."""
        # 1 - EAF would turn 0.1 into 0.09999999999999998, which --maf 0.1 leaves out.
        return self._per_allele(self.mac)

    @property
    def missing(self) -> NDArray[np.float64]:
        """(m,) share of the samples whose genotype is missing."""
        return (self.n_samples - self.n_called) / self.n_samples

    def take(self, variants: NDArray[np.intp]) -> "GenotypeCounts":
        """The counts of some of the variants."""
        return GenotypeCounts(
            self.n_samples,
            self.ploidy,
            self.n_called[variants],
            self.ea_count[variants],
            self.constant[variants],
            self.info[variants],
            None if self.hard_calls is None else self.hard_calls[:, variants],
        )

    def _per_allele(self, count: NDArray[np.float64]) -> NDArray[np.float64]:
        frequency = np.full(len(count), np.nan)
        np.divide(count, self.ploidy * self.n_called, out=frequency, where=self.n_called > 0)
        return frequency


def genotype_counts(
    dosages: NDArray[np.float32], hard_calls: bool = False, quality: bool = False, ploidy: int = 2
) -> GenotypeCounts:
    """Count the genotypes of a block of variants.

    - ``dosages`` (n, m): copies of the effect allele, 0 to 2, NaN where missing; float32 in Fortran order, n > 0.
    - ``hard_calls``: whether to count the genotypes called without doubt, which the Hardy-Weinberg test needs.
    - ``quality``: whether to compute the imputation quality.
    - ``ploidy``: copies of a chromosome that a sample has, which is the largest dosage.

    Sums of whole dosages are exact (below 8 million samples), those of others have a relative error of some 1e-7.
    Nothing in a variant depends on the other variants of the block.
    """
    n, m = dosages.shape
    by_variant = dosages.T
    total = by_variant.sum(axis=1)
    n_called = np.full(m, n, dtype=np.int64)
    incomplete = np.flatnonzero(np.isnan(total))
    if len(incomplete):
        some = by_variant[incomplete]
        missing = np.isnan(some)
        n_called[incomplete] -= np.count_nonzero(missing, axis=1)
        some[missing] = 0
        total[incomplete] = some.sum(axis=1)
    return GenotypeCounts(
        n_samples=n,
        ploidy=ploidy,
        n_called=n_called,
        ea_count=total.astype(np.float64),
        constant=_constant(by_variant),
        info=_quality(by_variant, ploidy) if quality else np.full(m, np.nan),
        hard_calls=_hard_calls(by_variant) if hard_calls else None,
    )


def _constant(by_variant: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether all genotypes called of each variant are the same: nearly all variants vary among the first samples."""
    m, n = by_variant.shape
    alike = np.arange(m)
    for first in (*LOOKED_AT_FIRST, n):
        some = by_variant[alike, :first]
        varies = np.fmin.reduce(some, axis=1) < np.fmax.reduce(some, axis=1)  # false where none is called, too
        alike = alike[~varies]
    constant = np.zeros(m, dtype=np.bool_)
    constant[alike] = True
    return constant


def _quality(by_variant: NDArray[np.float32], ploidy: int) -> NDArray[np.float64]:
    """``info = (Σx²/n - (Σx/n)²) / (zf(1-f))`` with ``f = Σx/zn`` at ploidy z, NaN where all x are whole numbers."""
    uncertain = ((by_variant != np.rint(by_variant)) & ~np.isnan(by_variant)).any(axis=1)
    info = np.full(len(by_variant), np.nan)
    for few in np.array_split(np.flatnonzero(uncertain), 1 + by_variant.size // DOUBLES_AT_ONCE):
        x = by_variant[few].astype(np.float64)
        called = ~np.isnan(x)
        f = np.mean(x, axis=1, where=called) / ploidy
        info[few] = np.var(x, axis=1, where=called) / (ploidy * f * (1 - f))
    return info


def _hard_calls(by_variant: NDArray[np.float32]) -> NDArray[np.int64]:
    near = (np.abs(by_variant - np.float32(copies)) <= HARD_CALL_DISTANCE for copies in (2, 1, 0))
    return np.array([np.count_nonzero(of_copies, axis=1) for of_copies in near], dtype=np.int64)
