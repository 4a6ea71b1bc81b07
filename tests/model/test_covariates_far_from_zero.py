"""A covariate far from 0, such as a year of birth, takes no digits of what does not depend on where its 0 is."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kron2sum_cli.model.kron2sum import Kron2Sum
from kron2sum_cli.model.null_model import NullModel, TraitData, null_likelihood, rotate_samples
from kron2sum_cli.model.spectrum import Array
from kron2sum_cli.model.trait_axes import axes_of_covariances

sys.path.insert(0, str(Path(__file__).parent / "missing"))
from missing_oracle import Observed, problem

FAR = 1e5
"""Mean of the covariate in standard deviations."""


def case(a: int | None, missing: bool, r: int) -> tuple[Observed, Observed, Array, float]:
    """Data, the same with the last covariate far from 0, G, and by how much the covariate moved."""
    dense, G = problem(21, r=r, a=a)
    if not missing:
        dense = replace(dense, Y=np.where(np.isnan(dense.Y), 0.3, dense.Y))
    X, shift = dense.X.copy(), FAR * dense.X[:, -1].std()
    X[:, -1] += shift
    return dense, replace(dense, X=X), G, shift


def null_model(dense: Observed, G: Array, reml: bool) -> NullModel:
    """The null model at the covariances of the problem, which are no optimum."""
    data = TraitData(dense.Y, dense.A, dense.X)
    likelihood = null_likelihood(rotate_samples(G.copy(), True, data, reml), data, reml)
    somewhere = likelihood.fit_near(axes_of_covariances(dense.C0, dense.C1, 1.0), len(dense.C0))
    axes = axes_of_covariances(dense.C0, dense.C1, somewhere.point.data.mean_eigenvalue)
    return likelihood.null_model(replace(somewhere, point=somewhere.point.at(axes)))


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("missing", [True, False])
@pytest.mark.parametrize("a", [None, 2])
@pytest.mark.parametrize("r", [90, 20])
def test_only_the_effect_of_the_intercept_depends_on_it(a: int | None, missing: bool, r: int, reml: bool) -> None:
    near_data, far_data, G, shift = case(a, missing, r)
    near, far = null_model(near_data, G, reml), null_model(far_data, G, reml)
    assert far.summary.lml == pytest.approx(near.summary.lml, abs=1e-8)
    assert far.summary.lml == pytest.approx(near_data.lml(reml), abs=1e-8)
    for name in ("score0", "score1"):
        expected = getattr(near.point, name)
        np.testing.assert_allclose(getattr(far.point, name), expected, rtol=1e-8, atol=1e-8)
    one, other = near.summary.estimates, far.summary.estimates
    for name in ("h2", "C0", "C1", "h2_se"):
        np.testing.assert_allclose(getattr(other, name), getattr(one, name), rtol=1e-8)
    np.testing.assert_allclose(other.B, one.B - np.array([[shift], [0.0]]) * one.B[1], rtol=1e-8)
    moved = np.kron(np.eye(len(near_data.A.T)), [[1.0, -shift], [0.0, 1.0]])
    variances = np.diag(moved @ near_data.B_covariance @ moved.T)
    np.testing.assert_allclose(other.B_se.T.ravel(), np.sqrt(variances), rtol=1e-8)
    G1 = np.random.default_rng(5).normal(size=(len(G), 4))
    for first, second in zip(_statistics(near, G1), _statistics(far, G1), strict=True):
        np.testing.assert_allclose(second, first, rtol=1e-8, atol=1e-8 * np.abs(first).max())


def _statistics(model: NullModel, G1: Array) -> tuple[Array, Array]:
    found = model.scanner(np.float64).statistics(G1)
    return found.u, found.v


@pytest.mark.parametrize("missing", [True, False])
@pytest.mark.parametrize("a", [None, 2])
def test_cells_of_new_samples(a: int | None, missing: bool) -> None:
    near_data, far_data, G, shift = case(a, missing, 90)
    rng = np.random.default_rng(6)
    new, X = rng.normal(size=(5, 90)) / 9, np.column_stack([np.ones(5), rng.normal(size=5)])
    K, own = G @ new.T, np.sum(new**2, axis=1)
    found = []
    for data, moved in ((near_data, 0.0), (far_data, shift)):
        predictor = null_model(data, G, True).predictor()
        genetic = predictor.genetic_values(K, own)
        found.append(predictor.new_cells(genetic, K, X + np.array([0.0, moved])))
    np.testing.assert_allclose(found[1].mean, found[0].mean, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(found[1].variance, found[0].variance, rtol=1e-7)


def test_an_effect_on_one_trait_that_is_left_out() -> None:
    """The last covariate does not vary in the samples of the second trait."""
    dense, far_data, G, shift = case(None, True, 90)
    observed = np.isfinite(dense.Y[:, 1])
    near, far = (
        null_model(replace(data, X=np.where(observed[:, None], [1.0, mean], data.X)), G, True).summary
        for data, mean in ((dense, 0.5), (far_data, 0.5 + shift))
    )
    assert far.lml == pytest.approx(near.lml, abs=1e-8)
    expected = near.estimates.B - np.array([[shift], [0.0]]) * near.estimates.B[1]
    np.testing.assert_allclose(far.estimates.B, expected, rtol=1e-8)
    np.testing.assert_allclose(far.estimates.B_se[1], near.estimates.B_se[1], rtol=1e-8)
    assert far.estimates.B[1, 1] == 0 and np.isnan(far.estimates.B_se[1, 1])


@pytest.mark.parametrize("restricted", [True, False])
def test_the_class_with_effects_that_traits_share(restricted: bool) -> None:
    near_data, far_data, G, shift = case(1, False, 90)
    near, far = (Kron2Sum(d.Y, d.A, d.X, G, rank=3, restricted=restricted) for d in (near_data, far_data))
    assert far.lml() == pytest.approx(near.lml(), abs=1e-8)
    assert near.lml() != near_data.lml(restricted)  # covariances at which the class starts
    np.testing.assert_allclose(far.B, near.B - np.array([[shift], [0.0]]) * near.B[1], rtol=1e-8)
    added = np.random.default_rng(5).normal(size=(len(G), 2))
    one, other = (model.get_fast_scanner().scan(np.eye(3)[:, :2], added) for model in (near, far))
    for name in ("lml", "scale", "effsizes1", "effsizes1_se"):
        np.testing.assert_allclose(other[name], one[name], rtol=1e-8)
    moved = one["effsizes0"] - np.array([[shift], [0.0]]) * one["effsizes0"][1]
    np.testing.assert_allclose(other["effsizes0"], moved, rtol=1e-8)
