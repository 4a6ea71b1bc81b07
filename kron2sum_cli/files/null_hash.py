"""The hash that identifies a null model."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.model.null_model import FitSummary

Array = NDArray[np.float64]

PRIOR = "prior"
"""Of a fit of observed cells by REML: what was added to GGᵀ along the covariates."""

HASHED_ARRAYS = ("s", "Z", "Yx", "Kxx", "Kxm", "Rx", PRIOR, "families/s", "families/Z", "families/X")
"""Of the rotated data, those that a fit has; the rotation itself is large, and Z is what it makes of the traits."""


class ModelHash:
    """Grows as the fits of a model come.

    Parameters
    ----------
    names : the likelihood, traits, covariates and samples
    tables : traits, covariates and trait design
    """

    def __init__(self, names: Sequence[Any], tables: Sequence[Array]) -> None:
        self._digest = hashlib.sha256(repr(tuple(names)).encode())
        self._update(*tables)

    def add(self, prefix: str, summary: FitSummary, arrays: Mapping[str, Array]) -> None:
        """Take in a fit: its axes, what it says, and those of the `HASHED_ARRAYS` that it has."""
        scalars = [float(value) for value in (summary.rank, summary.lml, summary.mean_diagonal, summary.quadratic)]
        self._digest.update(repr((prefix, scalars)).encode())
        self._update(*astuple(summary.axes), *astuple(summary.estimates))
        self._update(*(arrays[name] for name in HASHED_ARRAYS if name in arrays))

    def add_predictions(self, names: Sequence[Any], numbers: Sequence[Array]) -> None:
        """Take in predictions: of which samples, and their means and variances."""
        self._digest.update(repr(tuple(names)).encode())
        self._update(*numbers)

    def hexdigest(self) -> str:
        """The hash, in hexadecimal digits."""
        return self._digest.hexdigest()

    def _update(self, *arrays: Array) -> None:
        for array in arrays:
            self._digest.update(np.ascontiguousarray(array).tobytes())
