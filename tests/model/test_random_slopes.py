"""Random slopes on a covariate against the dense Gaussian, entry by entry, and what they must not depend on."""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy import linalg, stats
from scipy.optimize import minimize

from kron2sum_cli.errors import ConvergenceError
from kron2sum_cli.model import random_slopes as module
from kron2sum_cli.model.contrasts import rotate_traits
from kron2sum_cli.model.random_slopes import (
    SlopesData,
    evaluate_slopes,
    fit_slopes,
    gradient_of_factors,
    slope_shares,
    slopes_data,
    slopes_data_of,
    slopes_tests,
)
from kron2sum_cli.model.spectrum import Array, spectrum_of_features

N, P = 64, 2
ROWS, COLUMNS = np.tril_indices(2 * P)


@dataclass(frozen=True)
class Study:
    """Siblings with a polygenic interaction and residual variances that grow with the covariate e."""

    Y: Array
    X: Array
    G: Array
    e: Array
    variants: Array

    @property
    def data(self) -> SlopesData:
        return slopes_data(self.Y, self.X, self.G @ self.G.T, self.e)

    def covariance(self, genetic: Array, residual: Array) -> Array:
        """Of vec(Y), entry by entry, for Σg and Σe (2p, 2p): rows are the values of all traits, then the slopes."""
        K, V = self.G @ self.G.T, np.zeros((P * N, P * N))
        for t in range(P):
            for s in range(P):
                for i in range(N):
                    for j in range(N):
                        z, other = np.array([1, self.e[i]]), np.array([1, self.e[j]])
                        V[t * N + i, s * N + j] = z @ genetic[t::P, s::P] @ other * K[i, j]
                        V[t * N + i, s * N + j] += z @ residual[t::P, s::P] @ other * (i == j)
        return V


def study(seed: int = 1, n: int = N, p: int = P) -> Study:
    rng = np.random.default_rng(seed)
    family = np.repeat(np.arange(n // 4), 4)
    G = (rng.normal(size=(n // 4, 90))[family] + rng.normal(size=(n, 90))) / np.sqrt(180)
    e = rng.normal(size=n)
    X = np.column_stack([np.ones(n), e])
    variants = rng.binomial(2, 0.4, size=(n, 3)).astype(float)
    Y = (1 + 0.5 * e[:, None]) * (G @ rng.normal(size=(90, p))) + rng.normal(size=(n, p)) * np.exp(0.4 * e)[:, None]
    return Study(Y + 3, X, G, e, variants)


def some_factors(seed: int = 2) -> Array:
    return 0.5 * np.tril(np.random.default_rng(seed).normal(size=(2, 2 * P, 2 * P))) + 0.6 * np.eye(2 * P)


def test_the_likelihood_is_that_of_the_dense_gaussian() -> None:
    case, factors = study(), some_factors()
    Q = linalg.null_space(np.kron(np.eye(P), case.X).T)
    V = Q.T @ case.covariance(*(L @ L.T for L in factors)) @ Q
    expected = stats.multivariate_normal(np.zeros(len(V)), V).logpdf(Q.T @ case.Y.T.ravel())
    point = evaluate_slopes(case.data, factors)
    assert point is not None
    assert point.lml == pytest.approx(float(expected), abs=1e-9)
    assert evaluate_slopes(case.data, 0 * factors) is None


def test_the_gradient_is_that_of_differences() -> None:
    data, factors, step = study().data, some_factors(), 1e-5
    point = evaluate_slopes(data, factors)
    assert point is not None
    gradient = gradient_of_factors(data, point).reshape(2, -1)
    for k in range(2):
        for number, (i, j) in enumerate(zip(ROWS, COLUMNS, strict=True)):
            change = np.zeros_like(factors)
            change[k, i, j] = step
            ends = [evaluate_slopes(data, factors + sign * change) for sign in (1, -1)]
            slope = (ends[0].lml - ends[1].lml) / (2 * step)  # type: ignore[union-attr]
            assert gradient[k, number] == pytest.approx(slope, abs=1e-5)


@pytest.mark.parametrize(("seed", "n"), [(1, N), (2, N), (3, N), (32, 16)])
def test_the_maximum_is_the_highest_of_several_climbs(seed: int, n: int) -> None:
    """Of 16 samples, too, of which the first climb ends 3 below the highest maximum."""
    data, rng = study(seed, n).data, np.random.default_rng(seed)

    def objective(x: Array) -> tuple[float, Array]:
        factors = np.zeros((2, 2 * P, 2 * P))
        factors[:, ROWS, COLUMNS] = x.reshape(2, -1)
        point = evaluate_slopes(data, factors)
        if point is None:
            return 1e10, np.zeros_like(x)
        return -point.lml, -gradient_of_factors(data, point)

    starts = [some_factors(10 * seed + k)[:, ROWS, COLUMNS].ravel() * rng.uniform(0.5, 1.5) for k in range(4)]
    found = [minimize(objective, x, jac=True, method="L-BFGS-B", options={"maxiter": 600}).fun for x in starts]
    assert fit_slopes(data, np.eye(P), np.eye(P)).lml > -min(found) - 1e-6


def test_covariances_of_low_rank_are_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """There a climb in units of the curvature at its start was not over after 1,000 steps."""
    monkeypatch.setattr(module, "FURTHER_STARTS", 0)
    data = study(1, 32, 3).data
    point = fit_slopes(data, np.eye(3), np.eye(3))
    assert sum(np.linalg.matrix_rank(L @ L.T, tol=1e-4) for L in point.factors) < 12
    assert np.abs(gradient_of_factors(data, point)).max() < 1e-3


def test_tests_are_those_of_generalised_least_squares() -> None:
    case = study()
    data = case.data
    point = fit_slopes(data, np.eye(P), np.eye(P))
    G = case.variants - case.variants.mean(axis=0)
    H = G * case.e[:, None]
    found = slopes_tests(data, point, G, H, "lr")
    Vi = np.linalg.inv(case.covariance(*(L @ L.T for L in point.factors)))
    y, size = case.Y.T.ravel(), (N - 2) * P

    def left(*columns: Array) -> tuple[float, Array, Array]:
        M = np.hstack([np.kron(np.eye(P), case.X), *(np.kron(np.eye(P), one[:, None]) for one in columns)])
        covariance = np.linalg.inv(M.T @ Vi @ M)
        beta = covariance @ M.T @ Vi @ y
        return float((y - M @ beta) @ Vi @ (y - M @ beta)), beta, covariance

    for k in range(3):
        nothing, alone, (both, beta, covariance) = left()[0], left(G[:, k])[0], left(G[:, k], H[:, k])
        assert found.interaction.chisq[k] == pytest.approx(size * np.log(alone / both), rel=1e-7)
        assert found.joint.chisq[k] == pytest.approx(size * np.log(nothing / both), rel=1e-7)
        np.testing.assert_allclose(found.beta[k], beta[-P:], rtol=1e-6)
        np.testing.assert_allclose(found.se[k], np.sqrt(np.diag(covariance)[-P:] * both / size), rtol=1e-6)
    assert (found.interaction.df, found.joint.df) == (P, 2 * P)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_zero_and_unit_of_the_covariate_change_nothing(seed: int) -> None:
    """Slopes and values are correlated, so that 0 of the covariate may lie anywhere."""
    case = study(seed)
    G = case.variants - case.variants.mean(axis=0)
    other = Study(case.Y, case.X, case.G, 1.3 * case.e - 0.4, case.variants)
    fits = [(one.data, fit_slopes(one.data, np.eye(P), np.eye(P)), one.e) for one in (case, other)]
    assert fits[1][1].lml == pytest.approx(fits[0][1].lml, abs=1e-9)
    one, two = (slopes_tests(data, point, G, G * e[:, None], "lr") for data, point, e in fits)
    np.testing.assert_allclose(two.interaction.chisq, one.interaction.chisq, rtol=1e-6)
    np.testing.assert_allclose(two.joint.chisq, one.joint.chisq, rtol=1e-6)


@pytest.mark.parametrize("r", [90, 20])
def test_the_contrasts_of_a_null_model_have_all_of_it(r: int) -> None:
    """The relationship matrix, too, where it is of low rank, and the traits but for the covariates."""
    case = study()
    spectrum = spectrum_of_features(case.G[:, :r], case.X)
    found = slopes_data_of(rotate_traits(spectrum, case.Y), spectrum.Qx, case.e)
    expected = slopes_data(case.Y, case.X, case.G[:, :r] @ case.G[:, :r].T, case.e)
    points = [evaluate_slopes(data, some_factors()) for data in (found, expected)]
    assert points[0].lml == pytest.approx(points[1].lml, abs=1e-8)  # type: ignore[union-attr]


def test_shares_of_slopes() -> None:
    factors = np.zeros((2, 4, 4))
    factors[0] = np.diag([2.0, 1.0, 1.0, 0.5])
    factors[1] = np.diag([1.0, 1.0, 0.0, 3.0])
    point = module.SlopesPoint(0.0, factors, np.empty((0, 0)), np.empty(0))
    np.testing.assert_allclose(slope_shares(point), [[0.25, 0.25], [0.0, 9.0]])


def test_a_search_that_does_not_end_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ROUNDS", 1)
    monkeypatch.setattr(module, "STEPS_OF_ROUND", 2)
    with pytest.raises(ConvergenceError, match="random slopes did not converge"):
        fit_slopes(study().data, np.eye(P), np.eye(P))
