"""What a null model's file says besides its fits."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.files.samples import Samples

Array = NDArray[np.float64]


@dataclass(frozen=True)
class NullDescription:
    """What a null model's file says besides its fits.

    Attributes
    ----------
    version : of the program that wrote it
    method : "reml" or "ml"
    traits, covariates : names, in the order of C0 and of the rows of B
    samples : the analysed samples, in the order of the rotation
    Y, X, A : (n, p) traits as analysed, NaN in missing cells; (n, c) covariates; (p, a) trait design
    grm : what the relationship matrix was made of: ``path``, ``files`` (name, size, hash), ``options``
    inputs : phenotype and covariate files (name, size, hash)
    counts : samples, by reason
    """

    version: str
    method: str
    traits: tuple[str, ...]
    covariates: tuple[str, ...]
    samples: Samples
    Y: Array
    X: Array
    A: Array
    grm: Mapping[str, Any]
    inputs: Mapping[str, Any]
    counts: Mapping[str, int]

    @property
    def ncells(self) -> int:
        """Number of missing cells of Y, q."""
        return int(np.count_nonzero(np.isnan(self.Y)))

    @property
    def has_missing(self) -> bool:
        """Whether the model is that of the observed cells, because some are missing."""
        return self.ncells > 0

    @property
    def nobserved(self) -> int:
        """Number of observed cells, np - q."""
        return self.Y.size - self.ncells

    @property
    def reduced(self) -> bool:
        """Whether the trait design has fewer columns than traits."""
        return bool(self.A.shape[1] < self.A.shape[0])

    @property
    def coupled(self) -> bool:
        """Whether the information of a variant has entries between trait axes, for either of these reasons."""
        return self.reduced or self.has_missing
