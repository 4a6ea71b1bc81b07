"""The likelihood of the observed cells against the dense Gaussian."""

from dataclasses import replace
from functools import cached_property

import numpy as np
import pytest
from missing_oracle import PATTERNS, Array, Observed, problem

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.contrasts import rotate_coupled, rotate_traits
from kron2sum_cli.model.likelihood import evaluate as evaluate_complete
from kron2sum_cli.model.missing.likelihood import ObservedPoint, evaluate
from kron2sum_cli.model.missing.observed import (
    ObservedCells,
    check_observed,
    observed_cells,
    observed_spectrum,
    restored_cells,
    without_missing,
)
from kron2sum_cli.model.missing.scanner import observed_scanner
from kron2sum_cli.model.spectrum import spectrum_of_features
from kron2sum_cli.model.trait_axes import axes_of_covariances


def cells(dense: Observed, G: Array) -> ObservedCells:
    return observed_cells(spectrum_of_features(G, np.empty((len(G), 0))), dense.Y, dense.A, dense.X)


def point(data: ObservedCells, dense: Observed, reml: bool) -> ObservedPoint:
    return evaluate(data, axes_of_covariances(dense.C0, dense.C1, data.mean_eigenvalue), reml)


def assert_point_is(found: ObservedPoint, dense: Observed, reml: bool, rtol: float = 1e-8) -> None:
    assert found.lml == pytest.approx(dense.lml(reml), rel=rtol)
    np.testing.assert_allclose(found.B.T.ravel(), dense.beta, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(found.B_covariance, dense.B_covariance, rtol=rtol, atol=rtol)
    assert found.quadratic == pytest.approx(dense.quadratic(), rel=rtol)
    Tinv, p = found.axes.Tinv, len(dense.C0)
    for score, R in ((found.score0, dense.R), (found.score1, np.eye(len(dense.R)))):
        expected = np.array(
            [[0.5 * dense.slope(np.outer(x, y) + np.outer(y, x), R, reml) for x in Tinv.T] for y in Tinv.T]
        )
        np.testing.assert_allclose(score, expected, rtol=rtol, atol=rtol * max(1, np.abs(expected).max()))
        assert score.shape == (p, p)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.6])
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("r", [90, 20])
def test_it_is_the_gaussian_of_the_observed_cells(reml: bool, share: float, pattern: str, r: int) -> None:
    dense, G = problem(1, share, pattern, r=r)
    assert_point_is(point(cells(dense, G), dense, reml), dense, reml)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("r", [90, 20])
@pytest.mark.parametrize("p", [1, 5])
def test_other_numbers_of_traits(reml: bool, r: int, p: int) -> None:
    dense, G = problem(2, p=p, r=r)
    assert_point_is(point(cells(dense, G), dense, reml), dense, reml)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("a", [1, 2])
@pytest.mark.parametrize("r", [90, 20])
def test_a_trait_design_that_couples_the_traits(reml: bool, a: int, r: int) -> None:
    dense, G = problem(3, a=a, r=r)
    assert_point_is(point(cells(dense, G), dense, reml), dense, reml)


@pytest.mark.parametrize("reml", [True, False])
def test_no_covariates(reml: bool) -> None:
    dense, G = problem(4)
    dense = replace(dense, X=np.empty((len(G), 0)))
    found = point(cells(dense, G), dense, reml)
    K = dense.K
    expected = -0.5 * (
        dense.y.size * np.log(2 * np.pi) + np.linalg.slogdet(K)[1] + dense.y @ np.linalg.solve(K, dense.y)
    )
    assert found.lml == pytest.approx(expected, rel=1e-10)
    assert found.B.shape == (0, 3)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("r", [90, 20])
def test_without_missing_cells_it_is_the_likelihood_of_complete_traits(reml: bool, r: int) -> None:
    dense, G = problem(5, r=r)
    dense = replace(dense, Y=np.where(np.isnan(dense.Y), 1.0, dense.Y))
    none = spectrum_of_features(G, np.empty((len(G), 0)))
    coupled = rotate_coupled(none, dense.Y, dense.A, dense.X)
    axes = axes_of_covariances(dense.C0, dense.C1, coupled.mean_eigenvalue)
    of_coupled = evaluate_complete(coupled, axes, reml)
    projected = evaluate_complete(rotate_traits(spectrum_of_features(G, dense.X), dense.Y), axes, reml)
    for data in (cells(dense, G), without_missing(coupled, dense.X)):
        found = evaluate(data, axes, reml)
        assert found.lml == pytest.approx(of_coupled.lml, rel=1e-13)
        assert found.lml == pytest.approx(projected.lml, rel=1e-12)
        for name in ("score0", "score1"):
            np.testing.assert_allclose(getattr(found, name), getattr(of_coupled, name), rtol=1e-10, atol=1e-10)
            np.testing.assert_allclose(getattr(found, name), getattr(projected, name), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("reml", [True, False])
def test_a_sample_without_any_trait_changes_nothing(reml: bool) -> None:
    dense, G = problem(6)
    empty = np.zeros(len(G), bool)
    empty[[3, 17, 40]] = True
    with_empty = replace(dense, Y=np.where(empty[:, None], np.nan, dense.Y))
    without = replace(dense, Y=dense.Y[~empty], X=dense.X[~empty], R=dense.R[np.ix_(~empty, ~empty)])
    first = point(cells(with_empty, G), with_empty, reml)
    second = point(cells(without, G[~empty]), without, reml)
    assert first.lml == pytest.approx(second.lml, rel=1e-12)
    np.testing.assert_allclose(first.B, second.B, rtol=1e-10, atol=1e-12)
    for name in ("score0", "score1"):
        a, b = (x.axes.T.T @ getattr(x, name) @ x.axes.T for x in (first, second))
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("reml", [True, False])
def test_order_of_samples_and_traits_and_units_of_traits_do_not_matter(reml: bool) -> None:
    dense, G = problem(7)
    rng = np.random.default_rng(0)
    rows, order, unit = rng.permutation(len(G)), np.array([2, 0, 1]), np.array([1e-3, 1.0, 1e4])
    scale = np.outer(unit, unit)
    other = replace(
        dense,
        Y=(dense.Y * unit)[rows][:, order],
        X=dense.X[rows],
        R=dense.R[np.ix_(rows, rows)],
        C0=(dense.C0 * scale)[np.ix_(order, order)],
        C1=(dense.C1 * scale)[np.ix_(order, order)],
    )
    first, second = point(cells(dense, G), dense, reml), point(cells(other, G[rows]), other, reml)
    counts = np.isfinite(dense.Y).sum(axis=0) - reml * dense.X.shape[1]
    assert second.lml == pytest.approx(first.lml - counts @ np.log(unit), rel=1e-11)
    np.testing.assert_allclose(second.B, (first.B * unit)[:, order], rtol=1e-8)


def test_completed_cells_are_those_whose_score_vanishes() -> None:
    dense, G = problem(8, r=20)
    data = cells(dense, G)
    found = point(data, dense, True)
    alpha = found.alpha_samples() @ found.axes.T
    np.testing.assert_allclose(alpha[data.rows, data.traits], 0, atol=1e-10)
    np.testing.assert_allclose(alpha[np.isfinite(dense.Y)], (dense.Q @ dense.y)[_by_sample(dense)], atol=1e-10)


def _by_sample(dense: Observed) -> Array:
    """Positions of the observed cells, sample by sample, in the order trait by trait."""
    position = np.full(dense.Y.T.shape, -1)
    position[np.isfinite(dense.Y.T)] = np.arange(dense.y.size)
    return position.T[np.isfinite(dense.Y)]


def test_cells_are_restored_from_their_rotated_traits() -> None:
    dense, G = problem(14, r=20)
    spectrum, prior = observed_spectrum(G, dense.X, True, True)
    data = observed_cells(spectrum, dense.Y, dense.A, dense.X, prior)
    again = restored_cells(data.filled, dense.Y, dense.X, data.left_out, prior)
    for name in ("rows", "traits", "U", "outside_gram", "filling", "logdet_MtM"):
        np.testing.assert_array_equal(getattr(again, name), getattr(data, name))
    first, second = point(data, dense, True), point(again, dense, True)
    assert first.lml == second.lml
    np.testing.assert_allclose(np.diag(first.B_covariance), np.diag(dense.B_covariance), rtol=1e-8)


@pytest.mark.parametrize("features", [True, False])
@pytest.mark.parametrize("r", [90, 20])
def test_restricted_likelihood_with_a_prior_along_the_covariates(features: bool, r: int) -> None:
    dense, G = problem(9, r=r)
    spectrum, prior = observed_spectrum(G if features else dense.R, dense.X, features, True)
    plain = spectrum_of_features(G, np.empty((len(G), 0)))
    assert spectrum.mean_diagonal == pytest.approx(plain.mean_diagonal)
    data = observed_cells(spectrum, dense.Y, dense.A, dense.X, prior)
    assert_point_is(point(data, dense, True), dense, True)


def test_the_prior_lets_C1_be_singular_where_GGᵀ_is_centred() -> None:
    dense, G = problem(10)
    G = G - G.mean(axis=0)
    dense = replace(dense, R=G @ G.T, C1=np.outer(*[[1.0, -0.5, 0.3]] * 2))
    with pytest.raises(NumericalError, match="is not defined"):
        point(_cells_of(dense, False), dense, True)
    found = point(_cells_of(dense, True), dense, True)
    near = replace(dense, C1=dense.C1 + 1e-9 * np.eye(3))
    assert found.lml == pytest.approx(near.lml(True), abs=1e-3)


def _cells_of(dense: Observed, with_prior: bool) -> ObservedCells:
    spectrum, prior = observed_spectrum(dense.R, dense.X, False, with_prior)
    if not with_prior:  # what rounding leaves of a null direction is not one
        spectrum = replace(spectrum, s=np.where(spectrum.s > 1e-12, spectrum.s, 0.0))
    return observed_cells(spectrum, dense.Y, dense.A, dense.X, prior)


def test_a_trait_that_nobody_has_is_refused() -> None:
    dense, G = problem(11)
    Y = dense.Y.copy()
    Y[:, 1] = np.nan
    with pytest.raises(NumericalError, match="trait 2 has no observed value"):
        cells(replace(dense, Y=Y), G)


def confounded(seed: int, r: int = 90) -> tuple[Observed, Array, Array]:
    """A problem whose second covariate does not vary in the samples of trait b, its G, and which effects are known."""
    dense, G = problem(seed, r=r)
    X = np.hstack([dense.X, np.random.default_rng(seed).normal(size=(60, 1))])
    X[np.isfinite(dense.Y[:, 1]), 1] = 1.0
    kept = np.ones((3, 3), bool)
    kept[1, 1] = False
    return replace(dense, X=X), G, kept


class WithoutEffects(Observed):
    """Without the second covariate's effect on trait b."""

    @cached_property
    def M(self) -> Array:
        return np.delete(np.kron(self.A, self.X)[self.seen], 4, axis=1)


def test_covariates_that_a_traits_samples_do_not_tell_apart_are_refused_or_left_out() -> None:
    dense, _, _ = confounded(12)
    names = (("a", "b", "c"), ("intercept", "sex", "age"))
    assert check_observed(dense.Y, dense.A, problem(12)[0].X, *names) == []
    with pytest.raises(NumericalError, match="that have trait b, covariate sex is a multiple of intercept"):
        check_observed(dense.Y, dense.A, dense.X, *names)
    (left_out,) = check_observed(dense.Y, dense.A, dense.X, *names, drop_redundant=True)
    assert left_out.endswith("covariate sex is a multiple of intercept: its effect on b is left out")
    with pytest.raises(NumericalError, match="trait b, covariate sex"):  # a design that shares effects
        check_observed(dense.Y, np.ones((3, 1)), dense.X, *names, drop_redundant=True)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("r", [90, 20])
def test_an_effect_on_one_trait_that_is_left_out(reml: bool, r: int) -> None:
    confused, G, kept = confounded(12, r)
    dense = WithoutEffects(confused.Y, confused.A, confused.X, confused.R, confused.C0, confused.C1)
    found = point(cells(dense, G), dense, reml)
    assert found.lml == pytest.approx(dense.lml(reml), rel=1e-9)
    np.testing.assert_allclose(found.B.T[kept], dense.beta, rtol=1e-7)
    variances = np.diag(found.B_covariance).reshape(found.B.T.shape)
    np.testing.assert_allclose(variances[kept], np.diag(dense.B_covariance), rtol=1e-7)
    assert found.B[1, 1] == 0
    assert found.quadratic == pytest.approx(dense.quadratic(), rel=1e-9)
    for E, R, score in ((np.eye(3), dense.R, found.score0), (np.ones((3, 3)), np.eye(60), found.score1)):
        slope = np.sum(found.axes.T.T @ score @ found.axes.T * E)
        assert slope == pytest.approx(dense.slope(E, R, reml), rel=1e-6, abs=1e-6)
    g = np.random.default_rng(1).normal(size=(60, 2))
    statistics = observed_scanner(found, np.float64).statistics(g)
    u, V = dense.statistics(g[:, 0])
    np.testing.assert_allclose(found.axes.T.T @ statistics.u[0], u, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(found.axes.T.T @ statistics.v[0] @ found.axes.T, V, rtol=1e-6, atol=1e-8)


def test_a_trait_observed_on_too_few_samples_is_refused_by_name() -> None:
    dense, _ = problem(13)
    Y = dense.Y.copy()
    Y[3:, 2] = np.nan
    with pytest.raises(NumericalError, match="trait c is observed on 3 samples, and 2 covariates need at least 4"):
        check_observed(Y, dense.A, dense.X, ("a", "b", "c"), ("intercept", "age"))


@pytest.mark.parametrize("offset", [0.0, 300.0, 1e6])
def test_a_large_mean_beside_a_small_variance(offset: float) -> None:
    """The mean is a fixed effect of the intercept and takes no digit of what the likelihood depends on."""
    dense, G = problem(5, 0.2)
    spread = 1e-7
    Y = offset + spread * dense.Y
    spectrum = spectrum_of_features(G, np.empty((len(G), 0)))
    plain, moved = (
        evaluate(data, axes_of_covariances(scale**2 * dense.C0, scale**2 * dense.C1, data.mean_eigenvalue), True)
        for scale, data in (
            (1.0, observed_cells(spectrum, (Y - offset) / spread, dense.A, dense.X)),
            (spread, observed_cells(spectrum, Y, dense.A, dense.X)),
        )
    )
    np.testing.assert_allclose(moved.score0, plain.score0, rtol=1e-7, atol=1e-7 * np.abs(plain.score0).max())
    expected = spread * plain.B
    expected[0] += offset
    np.testing.assert_allclose(moved.B, expected, rtol=1e-9, atol=1e-9 * spread)
    np.testing.assert_allclose(moved.completed - offset, spread * plain.completed, atol=1e-9 * (offset + spread))
