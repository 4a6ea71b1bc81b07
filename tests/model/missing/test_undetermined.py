"""Two traits that no sample has both of: their residual covariance is undetermined, and nothing else is."""

from dataclasses import replace

import numpy as np
import pytest
from missing_oracle import Array, Observed

from kron2sum_cli.model.missing.undetermined import made_independent
from kron2sum_cli.model.null_model import ObservedNullModel, TraitData, null_likelihood, rotate_samples


def apart(n: int = 240, p: int = 2, seed: int = 3) -> tuple[TraitData, Array]:
    """Traits of families of four, and G; no sample has both of the first two."""
    rng = np.random.default_rng(seed)
    K = np.kron(np.eye(n // 4), np.full((4, 4), 0.5) + 0.5 * np.eye(4))
    L = rng.normal(size=(p, p))
    Y = np.linalg.cholesky(K) @ rng.normal(size=(n, p)) @ L + rng.normal(size=(n, p)) @ rng.normal(size=(p, p))
    first = rng.random(n) < 0.5
    Y[first, 1] = Y[~first, 0] = np.nan
    return TraitData(Y, np.eye(p), np.ones((n, 1))), np.linalg.cholesky(K)


def fitted(data: TraitData, G: Array) -> ObservedNullModel:
    likelihood = null_likelihood(rotate_samples(G.copy(), True, data, False), data, False)
    model = likelihood.null_model(likelihood.fit(data.Y.shape[1]))
    assert isinstance(model, ObservedNullModel)
    return model


def test_all_else_has_the_standard_errors_of_the_dense_likelihood() -> None:
    data, G = apart()
    model = fitted(data, G)
    axes, found = model.summary.axes, model.summary.estimates
    assert axes.C1[0, 1] == pytest.approx(0, abs=1e-9)
    dense = Observed(data.Y, data.A, data.X, G @ G.T, axes.C0, axes.C1)
    assert model.summary.lml == pytest.approx(dense.lml(False), rel=1e-9)
    i, j = [0, 1, 1, 0, 1], [0, 0, 1, 0, 1]

    def lml(x: Array) -> float:
        C = np.zeros((2, 2, 2))
        C[[0, 0, 0, 1, 1], i, j] = C[[0, 0, 0, 1, 1], j, i] = x
        return replace(dense, C0=C[0], C1=C[1]).lml(False)

    x = np.concatenate([axes.C0[[0, 1, 1], [0, 0, 1]], np.diag(axes.C1)])
    h = 1e-3 * np.abs(x).max() * np.eye(5)
    H = [[(lml(x + a + b) - lml(x + a - b) - lml(x - a + b) + lml(x - a - b)) / (4 * a.max() * b.max())
          for a in h] for b in h]  # fmt: skip
    se = np.sqrt(np.diag(np.linalg.inv(-np.array(H))))
    np.testing.assert_allclose(found.C0_se[[0, 1, 1], [0, 0, 1]], se[:3], rtol=1e-3)
    np.testing.assert_allclose(np.diag(found.C1_se), se[3:], rtol=1e-3)
    for numbers in (found.C1, found.C1_se, found.re, found.re_se):
        np.testing.assert_array_equal(np.isnan(numbers), [[False, True], [True, False]])
    assert np.isfinite(found.rg_se).all() and np.isfinite(found.h2_se).all()


def test_predictions_that_depend_on_it_have_no_variance() -> None:
    data, G = apart(n=80, p=3, seed=4)
    data.Y[:5, 2] = np.nan  # the third trait is seen with either of the others
    missing = fitted(data, G).missing_cells()
    np.testing.assert_array_equal(np.isnan(missing.variance), missing.traits < 2)
    assert np.isfinite(missing.mean).all()


def test_the_other_traits_make_two_independent() -> None:
    rng = np.random.default_rng(5)
    L = rng.normal(size=(4, 6))
    C = L @ L.T
    pairs = np.zeros((4, 4), bool)
    pairs[0, 1] = pairs[0, 2] = True
    pairs |= pairs.T
    found = made_independent(C, pairs)
    np.testing.assert_allclose(found[~pairs], C[~pairs], rtol=1e-14)
    np.testing.assert_allclose(np.linalg.inv(found)[pairs], 0, atol=1e-8)
