"""How the genotypes of a variant enter the model: by the number of effect alleles, or by what a pair of them does."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Coding = Literal["additive", "dominant", "recessive", "genotypic"]

Floats = NDArray[np.float32]


def recode(dosages: Floats, coding: Coding, ploidy: int = 2) -> Floats:
    """Genotypes in the place of dosages (n, m) of the effect allele, in the array itself; NaN stays.

    One copy and more are 1 where the effect allele is dominant, all copies where it is recessive, and dosages between
    whole numbers go along straight lines, as in plink2: ``min(x, 1)`` and ``max(x - (ploidy - 1), 0)``. Other codings
    have one column beside dosages, and leave them as they are.
    """
    if coding == "dominant":
        np.minimum(dosages, np.float32(1), out=dosages)
    elif coding == "recessive":
        dosages -= np.float32(ploidy - 1)
        np.maximum(dosages, np.float32(0), out=dosages)
    return dosages


def dominance_deviation(dosages: Floats) -> Floats:
    """1 for a heterozygote and 0 for a homozygote of dosages 0 to 2, ``1 - |x - 1|`` between, NaN where missing.

    >>> dominance_deviation(np.array([0, 1, 2, 1.5], dtype=np.float32)).tolist()
    [0.0, 1.0, 0.0, 0.5]
    """
    deviation = dosages - np.float32(1)
    np.abs(deviation, out=deviation)
    np.subtract(np.float32(1), deviation, out=deviation)
    return deviation
