"""Genotypes of samples with another number of copies of a chromosome than two."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.files.samples import Samples
from kron2sum_cli.genotypes.source import GenotypeSource, Variants

ROUNDING = np.float32(1e-6)
"""Difference from a whole number that comes from rounding a dosage in single precision."""


@dataclass(frozen=True)
class Polyploid:
    """Genotypes whose dosages count 0 to ``ploidy`` copies (a `GenotypeSource`), where formats have 0 to 2.

    Attributes
    ----------
    source : GenotypeSource
        The genotypes with dosages of 0 to 2.
    ploidy : int
        Copies of a chromosome that every sample has.
    """

    source: GenotypeSource
    ploidy: int

    @property
    def path(self) -> str:
        """The genotype file."""
        return self.source.path

    @property
    def files(self) -> Sequence[str]:
        """Every file that belongs to it."""
        return self.source.files

    @property
    def samples(self) -> Samples:
        """All samples."""
        return self.source.samples

    @property
    def variants(self) -> Variants:
        """All variants."""
        return self.source.variants

    @property
    def has_dosages(self) -> bool:
        """Whether genotypes may be other than whole numbers."""
        return self.source.has_dosages

    def read(self, variants: NDArray[np.intp], rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Dosages of the effect allele, 0 to ``ploidy``, NaN where missing (see `GenotypeSource.read`)."""
        dosages = self.source.read(variants, rows) * np.float32(self.ploidy / 2)
        whole = np.rint(dosages)
        # A third of 2 copies is rounded, and three of them are no whole number again.
        return np.where(np.abs(dosages - whole) < ROUNDING, whole, dosages)
