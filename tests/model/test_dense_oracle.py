"""Every number of the model against the dense Gaussian, over the whole grid of options."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pytest
from dense_oracle import Array, Data, Dense, derivative, vec

from kron2sum_cli import Kron2Sum

N, P = 20, 3
RTOL = 1e-8
TRAIT_DESIGNS = ("identity", "square", "column")
GRID = list(product((False, True), (1, 2, 3), TRAIT_DESIGNS, (9, 40), (0, 1, 3)))


def same(actual: Any, expected: Any) -> None:
    """Equal to 1e-8 of the largest entry."""
    expected = np.asarray(expected, float)
    np.testing.assert_allclose(actual, expected, rtol=RTOL, atol=RTOL * float(np.max(np.abs(expected), initial=0)))


@dataclass(frozen=True)
class Case:
    """One point of the grid: the model at given parameters and its dense twin."""

    model: Kron2Sum
    dense: Dense
    restricted: bool
    A1: Array
    X1: Array

    @property
    def full_design(self) -> Array:
        return np.hstack([self.dense.M, np.kron(self.A1, self.X1)])


def trait_design(name: str, rng: np.random.Generator) -> Array:
    if name == "identity":
        return np.eye(P)
    return rng.normal(size=(P, P if name == "square" else 1))


@pytest.fixture(
    scope="module", params=GRID, ids=lambda q: f"{'REML' if q[0] else 'ML'}-rank{q[1]}-A={q[2]}-r{q[3]}-c{q[4]}"
)
def case(request: pytest.FixtureRequest) -> Case:
    restricted, rank, design, r, c = request.param
    rng = np.random.default_rng([restricted, rank, TRAIT_DESIGNS.index(design), r, c])
    X = np.hstack([np.ones((N, 1)), rng.normal(size=(N, 2))])[:, :c]
    G = rng.normal(size=(N, r)) / np.sqrt(r)
    A = trait_design(design, rng)
    mean = X @ rng.normal(size=(c, A.shape[1])) @ A.T
    Y = mean + G @ rng.normal(size=(r, P)) + rng.normal(size=(N, P)) @ rng.normal(size=(P, P))
    data = Data(Y, A, X, G)
    L0 = rng.normal(size=(P, rank))
    L1 = np.tril(rng.normal(size=(P, P)), -1) + np.diag(rng.uniform(1, 2, size=P))
    dense = Dense(data, L0 @ L0.T, L1 @ L1.T)
    model = Kron2Sum(Y, A, X, G, rank=rank, restricted=restricted).at(dense.C0, dense.C1)
    return Case(model, dense, restricted, rng.normal(size=(P, 2)), rng.normal(size=(N, 2)))


def test_parameters_are_those_given(case: Case) -> None:
    same(case.model.C0, case.dense.C0)
    same(case.model.C1, case.dense.C1)
    same(case.model.L0 @ case.model.L0.T, case.dense.C0)
    same(case.model.L1, np.linalg.cholesky(case.dense.C1))
    same(case.model.covariance(), case.dense.K)
    same(case.model.M, case.dense.M)


def test_lml(case: Case) -> None:
    same(case.model.lml(), case.dense.lml(case.restricted))
    assert case.model.value() == case.model.lml()


def gradient_of(case: Case, covariances: Callable[[Array], tuple[Array, Array]], x: Array) -> Array:
    def lml(x: Array) -> float:
        return Dense(case.dense.data, *covariances(x)).lml(case.restricted)

    return derivative(lml, x)


def test_gradient(case: Case) -> None:
    """By the entries of g L0, g the largest entry of G, and by L1: below its diagonal, then logs of the diagonal."""
    L0, L1, g = case.model.L0, case.model.L1, case.dense.data.G.max()
    below = np.tril_indices(P, -1)

    def change_L0(x: Array) -> tuple[Array, Array]:
        L = x.reshape(L0.shape) / g
        return L @ L.T, L1 @ L1.T

    def change_L1(x: Array) -> tuple[Array, Array]:
        L = np.diag(np.exp(x[-P:]))
        L[below] = x[:-P]
        return L0 @ L0.T, L @ L.T

    gradient = case.model.gradient()
    assert set(gradient) == {"C0.Lu", "C1.Lu"}
    same(gradient["C0.Lu"], gradient_of(case, change_L0, g * L0.reshape(-1)))
    same(gradient["C1.Lu"], gradient_of(case, change_L1, np.concatenate([L1[below], np.log(np.diag(L1))])))


def test_fixed_effects(case: Case) -> None:
    beta, covariance = case.dense.fixed_effects(case.dense.M)
    same(case.model.beta, beta)
    same(vec(case.model.B), beta)
    assert case.model.B.shape == (case.model.ncovariates, case.model.A.shape[1])
    same(case.model.beta_covariance, covariance)
    same(case.model.mean(), case.dense.M @ beta)


def test_scanner_without_added_effects(case: Case) -> None:
    scanner, dense = case.model.get_fast_scanner(), case.dense
    scale = dense.scale(dense.M)
    beta, covariance = dense.fixed_effects(dense.M)
    same(scanner.null_scale, scale)
    same(scanner.null_lml(), dense.log_density(dense.M, beta, scale))
    same(scanner.null_beta, beta)
    same(scanner.null_beta_covariance, scale * covariance)
    same(scanner.null_beta_se, np.sqrt(scale * np.diag(covariance)))


def test_scan(case: Case) -> None:
    result, dense, M = case.model.get_fast_scanner().scan(case.A1, case.X1), case.dense, case.full_design
    beta, covariance = dense.fixed_effects(M)
    scale, size0 = dense.scale(M), dense.M.shape[1]
    se = np.sqrt(scale * np.diag(covariance))
    same(result["scale"], scale)
    same(result["lml"], dense.log_density(M, beta, scale))
    same(vec(result["effsizes0"]), beta[:size0])
    same(vec(result["effsizes0_se"]), se[:size0])
    same(vec(result["effsizes1"]), beta[size0:])
    same(vec(result["effsizes1_se"]), se[size0:])
    assert result["effsizes1"].shape == (2, 2)
    assert result["rank"] == 4


def test_the_scale_is_the_best(case: Case) -> None:
    dense, M = case.dense, case.full_design
    beta = dense.fixed_effects(M)[0]
    scale, lml = (case.model.get_fast_scanner().scan(case.A1, case.X1)[key] for key in ("scale", "lml"))
    for other in (0.99 * scale, 1.01 * scale):
        assert dense.log_density(M, beta, other) < lml
