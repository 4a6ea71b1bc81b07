"""Predictions with a fitted null model: genetic values of samples with traits or without, and missing cells."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.files.null_predictions import NUMBERS, Predictions
from kron2sum_cli.files.samples import Samples
from kron2sum_cli.fit.design import Design
from kron2sum_cli.genotypes.source import Relationship
from kron2sum_cli.model.block_scanner import BlockStatistics, block_scanner
from kron2sum_cli.model.generalised_least_squares import least_squares, metric
from kron2sum_cli.model.missing.likelihood import ObservedPoint
from kron2sum_cli.model.missing.prediction import (
    EffectsOfCovariates,
    Prediction,
    effects_given_complete,
    effects_given_observed,
    genetic_values,
    missing_cells,
    new_cells,
)
from kron2sum_cli.model.missing.scanner import observed_scanner
from kron2sum_cli.model.null_model import NullModel, ObservedNullModel
from kron2sum_cli.model.trait_axes import TraitAxes
from kron2sum_cli.progress import Progress

Array = NDArray[np.float64]

BLOCK = 256
"""Samples that are predicted at a time."""


@dataclass(frozen=True)
class _Predictor:
    """What predicts from relatedness K (n, t) to the analysed samples.

    Attributes
    ----------
    axes : of the null model
    statistics : score and information of K, taken for variants
    effects : the fixed effects, for samples with such relatedness
    """

    axes: TraitAxes
    statistics: Callable[[Array], BlockStatistics]
    effects: Callable[[Array], EffectsOfCovariates]


def predict(
    model: NullModel | ObservedNullModel, relationship: Relationship, design: Design, progress: Progress
) -> Predictions:
    """Predict the analysed samples and the others.

    Parameters
    ----------
    model : of the analysed samples
    relationship : of the analysed samples, then the others
    """
    if isinstance(model, NullModel):
        return Predictions(_joined(design), **_numbers(_predictor(model, design), relationship, design, progress))
    point = model.point()
    numbers = _numbers(_observed_predictor(point), relationship, design, progress)
    cell = point.data.rows, point.data.traits
    numbers["cells"][cell], numbers["cells_variance"][cell] = missing_cells(point)
    return Predictions(_joined(design), **numbers)


def _numbers(predictor: _Predictor, relationship: Relationship, design: Design, progress: Progress) -> dict[str, Array]:
    """All means and variances, but for missing cells of analysed samples, which have what was observed of them."""
    n, t, p = len(design.Y), len(relationship.samples), design.Y.shape[1]
    out = {name: np.full((t, p), np.nan) for name in NUMBERS}
    X = np.vstack([np.full_like(design.X, np.nan), design.others.X])
    new = np.isfinite(X).all(axis=1) & (np.arange(t) >= n)
    with progress.task("Predicting", t, "samples") as advance:
        for start in range(0, t, BLOCK):
            rows = slice(start, min(start + BLOCK, t))
            K, own = _relatedness(relationship, n, rows)
            genetic = genetic_values(predictor.axes, predictor.statistics(K), own)
            out["genetic"][rows], out["genetic_variance"][rows] = genetic.mean, genetic.variance
            known = np.flatnonzero(new[rows])
            if known.size:
                part = Prediction(genetic.mean[known], genetic.variance[known])
                cells = new_cells(predictor.axes, part, X[rows][known], predictor.effects(K[:, known]))
                out["cells"][start + known], out["cells_variance"][start + known] = cells.mean, cells.variance
            advance(rows.stop - start)
    return out


def _relatedness(relationship: Relationship, n: int, rows: slice) -> tuple[Array, Array]:
    """Relatedness of some samples to the n analysed ones, (n, b), and to themselves, (b,)."""
    if relationship.G is not None:
        G = relationship.G
        return np.asarray(G[:n] @ G[rows].T), np.asarray(np.einsum("br,br->b", G[rows], G[rows]))
    assert relationship.K is not None
    return relationship.K[:n, rows].copy(), np.diag(relationship.K)[rows].copy()


def _joined(design: Design) -> Samples:
    first, rest = design.samples.samples, design.others.samples
    fids = None if first.fids is None or rest.fids is None else (*first.fids, *rest.fids)
    return Samples(fids, (*first.iids, *rest.iids), first.source)


def _observed_predictor(point: ObservedPoint) -> _Predictor:
    scanner = observed_scanner(point, np.float64)
    return _Predictor(point.axes, scanner.statistics, lambda K: effects_given_observed(point, scanner, K))


def _predictor(model: NullModel, design: Design) -> _Predictor:
    """With complete traits; a trait design of lower rank goes the way of observed cells, of which none is missing."""
    if design.reduced:
        return _observed_predictor(model.observed_point(design.X))
    point, B = model.point(), model.summary.estimates.B
    fitted = least_squares(metric(point, model.Qx), [(design.A, design.X)])

    def effects(K: Array) -> EffectsOfCovariates:
        return effects_given_complete(point, model.Qx, design.A, B, fitted.covariance, K)

    return _Predictor(point.axes, block_scanner(point, model.Qx, np.float64).statistics, effects)
