"""Predictions with a fitted null model: genetic values of samples with traits or without, and missing cells."""

import logging

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.files.null_file import PREDICTED, Predictions
from kron2sum_cli.files.samples import Samples
from kron2sum_cli.fit.design import Design
from kron2sum_cli.genotypes.source import Relationship
from kron2sum_cli.model.null_model import NullModel
from kron2sum_cli.model.prediction import Prediction, Predictor
from kron2sum_cli.progress import Progress

logger = logging.getLogger("kron2sum.fit")

Array = NDArray[np.float64]

BLOCK = 256
"""Samples that are predicted at a time."""


def predict(model: NullModel, relationship: Relationship, design: Design, progress: Progress) -> Predictions:
    """Predict the analysed samples and those that are not.

    Parameters
    ----------
    model : NullModel
        That of the analysed samples.
    relationship : Relationship
        Of the analysed samples, then of those that are not.
    design : Design
        What the model was fitted to, and who is not analysed.
    progress : Progress
        Told of every sample.
    """
    numbers = _numbers(model.predictor(), relationship, design, progress)
    missing = model.missing_cells()
    cell = missing.rows, missing.traits
    numbers["cells"][cell], numbers["cells_variance"][cell] = missing.mean, missing.variance
    unsure = int(np.count_nonzero(np.isnan(missing.variance)))
    if unsure:
        logger.warning(
            "%d predicted values depend on residual covariances that are not determined: they are those of traits that"
            " are independent given the others, and have no variance",
            unsure,
        )
    return Predictions(_joined(design), **numbers)


def _numbers(predictor: Predictor, relationship: Relationship, design: Design, progress: Progress) -> dict[str, Array]:
    """Genetic values of all samples, and cells of those not analysed, by the names of the arrays of `Predictions`.

    Missing cells of analysed samples are NaN here: what was observed in the same sample tells of them, too.
    """
    n, t, p = len(design.Y), len(relationship.samples), design.Y.shape[1]
    out = {name: np.full((t, p), np.nan) for name in PREDICTED}
    X = np.vstack([np.full_like(design.X, np.nan), design.not_analysed.X])
    new = np.isfinite(X).all(axis=1) & (np.arange(t) >= n)
    with progress.task("Predicting", t, "samples") as advance:
        for start in range(0, t, BLOCK):
            rows = slice(start, min(start + BLOCK, t))
            K, own = _relatedness(relationship, n, rows)
            genetic = predictor.genetic_values(K, own)
            out["genetic"][rows], out["genetic_variance"][rows] = genetic.mean, genetic.variance
            known = np.flatnonzero(new[rows])
            if known.size:
                part = Prediction(genetic.mean[known], genetic.variance[known])
                cells = predictor.new_cells(part, K[:, known], X[rows][known])
                out["cells"][start + known], out["cells_variance"][start + known] = cells.mean, cells.variance
            advance(rows.stop - start)
    return out


def _relatedness(relationship: Relationship, n: int, rows: slice) -> tuple[Array, Array]:
    """Relatedness of some samples to the n analysed ones, (n, b), and to themselves, (b,)."""
    if relationship.G is not None:
        G = relationship.G
        return np.asarray(G[:n] @ G[rows].T), np.asarray(np.einsum("br,br->b", G[rows], G[rows]))
    if relationship.sparse is not None:
        return relationship.sparse[:n][:, rows].toarray(), relationship.sparse.diagonal()[rows]
    assert relationship.K is not None
    return relationship.K[:n, rows].copy(), np.diag(relationship.K)[rows].copy()


def _joined(design: Design) -> Samples:
    first, rest = design.samples.samples, design.not_analysed.samples
    fids = None if first.fids is None or rest.fids is None else (*first.fids, *rest.fids)
    return Samples(fids, (*first.iids, *rest.iids), first.source)
