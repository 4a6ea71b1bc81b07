"""Predictions against universal kriging with the dense covariance."""

from dataclasses import replace

import numpy as np
import pytest
from missing_oracle import Array, Observed, problem

from kron2sum_cli.model.contrasts import rotate_traits
from kron2sum_cli.model.generalised_least_squares import Metric, least_squares
from kron2sum_cli.model.likelihood import evaluate as evaluate_complete
from kron2sum_cli.model.missing.likelihood import evaluate
from kron2sum_cli.model.missing.observed import observed_cells, observed_spectrum
from kron2sum_cli.model.prediction import Prediction, complete_predictor, missing_cells, observed_predictor
from kron2sum_cli.model.spectrum import spectrum_of_features
from kron2sum_cli.model.trait_axes import axes_of_covariances


def split(seed: int, r: int, a: int | None, new: int = 6) -> tuple[Observed, Array, Array, Array, Array]:
    """A fit's problem and its G, then relatedness (n, t), own relatedness and covariates of samples outside it."""
    dense, G = problem(seed, n=66, r=r, a=a)
    fitted = replace(dense, Y=dense.Y[new:], X=dense.X[new:], R=dense.R[new:, new:])
    return fitted, G[new:], dense.R[new:, :new], np.diag(dense.R)[:new], dense.X[:new]


def kriged(dense: Observed, K: Array, own: Array, X: Array | None) -> Prediction:
    """Genetic values, or with covariates whole cells, of samples outside the fit."""
    t, p = len(own), len(dense.C0)
    covariance = np.kron(dense.C0, K.T)[:, dense.seen]
    M = np.zeros((t * p, dense.M.shape[1])) if X is None else np.kron(dense.A, X)
    variance = np.kron(np.diag(dense.C0), own) + (0 if X is None else np.repeat(np.diag(dense.C1), t))
    mean, spread = dense.kriging(covariance, M, variance)
    return Prediction(mean.reshape(p, t).T, spread.reshape(p, t).T)


def assert_same(found: Prediction, expected: Prediction) -> None:
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(found.variance, expected.variance, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("r", [90, 20])
@pytest.mark.parametrize("a", [None, 2])
def test_samples_outside_a_fit_of_observed_cells(reml: bool, r: int, a: int | None) -> None:
    dense, G, K, own, X = split(1, r, a)
    spectrum, prior = observed_spectrum(G, dense.X, True, reml and a is None)
    data = observed_cells(spectrum, dense.Y, dense.A, dense.X, prior)
    point = evaluate(data, axes_of_covariances(dense.C0, dense.C1, data.mean_eigenvalue), reml)
    predictor = observed_predictor(point)
    genetic = predictor.genetic_values(K, own)
    assert_same(genetic, kriged(dense, K, own, None))
    assert_same(predictor.new_cells(genetic, K, X), kriged(dense, K, own, X))


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("r", [90, 20])
def test_samples_outside_a_fit_of_complete_traits(reml: bool, r: int) -> None:
    dense, G, K, own, X = split(2, r, None)
    A = np.array([[1.0, 0.5, 0.0], [0.0, 1.0, 0.0], [0.2, 0.0, 2.0]])
    dense = replace(dense, Y=np.where(np.isnan(dense.Y), 1.0, dense.Y), A=A)
    spectrum = spectrum_of_features(G, dense.X)
    data = rotate_traits(spectrum, dense.Y)
    point = evaluate_complete(data, axes_of_covariances(dense.C0, dense.C1, data.mean_eigenvalue), reml)
    fitted = least_squares(Metric(point, spectrum.Qx), [(A, dense.X)])
    predictor = complete_predictor(point, spectrum.Qx, A, fitted.effects(0, 1.0).B, fitted.covariance)
    genetic = predictor.genetic_values(K, own)
    assert_same(genetic, kriged(dense, K, own, None))
    assert_same(predictor.new_cells(genetic, K, X), kriged(dense, K, own, X))


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("r", [90, 20])
@pytest.mark.parametrize("a", [None, 2])
def test_missing_cells_and_genetic_values_of_the_fit(reml: bool, r: int, a: int | None) -> None:
    dense, G = problem(3, r=r, a=a)
    spectrum, prior = observed_spectrum(G, dense.X, True, reml and a is None)
    data = observed_cells(spectrum, dense.Y, dense.A, dense.X, prior)
    point = evaluate(data, axes_of_covariances(dense.C0, dense.C1, data.mean_eigenvalue), reml)
    K = np.kron(dense.C0, dense.R) + np.kron(dense.C1, np.eye(60))
    positions = data.traits * 60 + data.rows
    M = np.kron(dense.A, dense.X)[positions]
    mean, variance = dense.kriging(K[np.ix_(positions, np.flatnonzero(dense.seen))], M, np.diag(K)[positions])
    found = missing_cells(point)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(found.variance, variance, rtol=1e-8)
    own = np.diag(dense.R)
    assert_same(observed_predictor(point).genetic_values(dense.R, own), kriged(dense, dense.R, own, None))


def test_predictions_of_masked_cells_cover_them() -> None:
    dense, _ = problem(4, n=400, p=2, r=600, share=0.0)
    rng = np.random.default_rng(5)
    K = np.kron(dense.C0, dense.R) + np.kron(dense.C1, np.eye(400))
    inside = total = 0
    for _ in range(3):
        Y = (np.linalg.cholesky(K) @ rng.normal(size=800)).reshape(2, 400).T
        seen = np.where(rng.random(Y.shape) < 0.3, np.nan, Y)
        data = observed_cells(observed_spectrum(dense.R, dense.X, False, True)[0], seen, dense.A, dense.X)
        point = evaluate(data, axes_of_covariances(dense.C0, dense.C1, data.mean_eigenvalue), True)
        found = missing_cells(point)
        miss = np.abs(Y[found.rows, found.traits] - found.mean) / np.sqrt(found.variance)
        inside, total = inside + int(np.sum(miss < 1.959964)), total + miss.size
    assert inside / total == pytest.approx(0.95, abs=0.03)
