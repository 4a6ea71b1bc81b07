"""Predictions in a null model's file."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.files.npz_archive import ArchiveReader
from kron2sum_cli.files.null_description import NullDescription
from kron2sum_cli.files.samples import Samples

PREFIX = "predictions/"
NUMBERS = ("genetic", "genetic_variance", "cells", "cells_variance")

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Predictions:
    """Conditional means and variances given the observed cells.

    Attributes
    ----------
    samples : t samples, those of the fit first and in its order
    genetic, genetic_variance : (t, p) genetic values, and the variances of what they miss
    cells, cells_variance : (t, p) cells that the fit does not have, NaN where it has them, or lacks a covariate
    """

    samples: Samples
    genetic: Array
    genetic_variance: Array
    cells: Array
    cells_variance: Array


def prediction_arrays(predictions: Predictions) -> Iterator[tuple[str, NDArray[Any]]]:
    """All arrays of the predictions, by name."""
    yield PREFIX + "iids", np.array(predictions.samples.iids)
    if predictions.samples.fids is not None:
        yield PREFIX + "fids", np.array(predictions.samples.fids)
    for name in NUMBERS:
        yield PREFIX + name, getattr(predictions, name)


def read_predictions(archive: ArchiveReader, description: NullDescription, name: str) -> Predictions | None:
    """The predictions of a file that has some.

    Raises
    ------
    ValueError
        Where they are none of the description's traits and samples.
    """
    if PREFIX + "iids" not in archive:
        return None
    iids = archive.texts(PREFIX + "iids")
    fids = archive.texts(PREFIX + "fids", len(iids)) if PREFIX + "fids" in archive else None
    shape = (len(iids), len(description.traits))
    numbers = {key: archive.array(PREFIX + key, shape=shape) for key in NUMBERS}
    predictions = Predictions(Samples(fids, iids, name), **numbers)
    n = len(description.samples)
    if iids[:n] != description.samples.iids or (None if fids is None else fids[:n]) != description.samples.fids:
        raise ValueError("predictions are not of its samples")
    _check_numbers(predictions, description)
    return predictions


def _check_numbers(predictions: Predictions, description: NullDescription) -> None:
    n = len(description.samples)
    if not (np.isfinite(predictions.genetic).all() and np.isfinite(predictions.genetic_variance).all()):
        raise ValueError("predictions have a number that is not finite")
    known = np.isfinite(predictions.cells)
    if not np.array_equal(known, np.isfinite(predictions.cells_variance)):
        raise ValueError("predictions have a mean without a variance")
    if not np.array_equal(known[:n], np.isnan(description.Y)):
        raise ValueError("predictions are not of its missing cells")
    if min(predictions.genetic_variance.min(), np.nanmin(predictions.cells_variance, initial=0.0)) < 0:
        raise ValueError("predictions have a negative variance")
