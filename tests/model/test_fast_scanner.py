"""Effects added to the null model: collinear columns, singular K, nested tests, and what is refused."""

from typing import Any

import numpy as np
import pytest
from dense_oracle import Array, Data, Dense, vec

from kron2sum_cli import Kron2Sum
from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.fast_scanner import FastScanner

N, P = 30, 3
DESIGNS = {
    "identity": np.eye(P),
    "square": np.random.default_rng(4).normal(size=(P, P)),
    "column": np.array([[1.0], [-0.5], [2.0]]),
}


def model_and_dense(design: str = "identity", r: int = 50) -> tuple[Kron2Sum, Dense]:
    rng = np.random.default_rng(11)
    X = np.hstack([np.ones((N, 1)), rng.normal(size=(N, 1))])
    G = rng.normal(size=(N, r)) / np.sqrt(r)
    Y = 3 + G @ rng.normal(size=(r, P)) + rng.normal(size=(N, P))
    A = DESIGNS[design]
    L0, L1 = rng.normal(size=(P, P)), np.tril(rng.normal(size=(P, P)), -1) + np.eye(P)
    dense = Dense(Data(Y, A, X, G), L0 @ L0.T, L1 @ L1.T)
    return Kron2Sum(Y, A, X, G, rank=P).at(dense.C0, dense.C1), dense


def assert_same_fit(result: dict[str, Any], other: dict[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        np.testing.assert_allclose(result[name], other[name], rtol=1e-9, atol=1e-11, err_msg=name)


FIT = ("lml", "scale", "effsizes0", "effsizes0_se", "rank")


def assert_minimum_norm(result: dict[str, Any], dense: Dense, A1: Array, X1: Array) -> None:
    """The effects are the pseudo-inverse's: of all solutions of the normal equations, the shortest."""
    M = np.hstack([dense.M, np.kron(A1, X1)])
    white = np.linalg.solve(dense.root, M)
    pseudo_inverse = np.linalg.pinv(white, rcond=1e-9)
    beta = pseudo_inverse @ np.linalg.solve(dense.root, vec(dense.data.Y))
    se = np.sqrt(result["scale"] * np.sum(pseudo_inverse**2, axis=1))
    estimates = np.concatenate([vec(result["effsizes0"]), vec(result["effsizes1"])])
    np.testing.assert_allclose(estimates, beta, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(M @ estimates, M @ beta, rtol=1e-8, atol=1e-8)
    found = np.concatenate([vec(result["effsizes0_se"]), vec(result["effsizes1_se"])])
    np.testing.assert_allclose(found, se, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("design", DESIGNS)
def test_redundant_columns_of_X1_have_effects_of_minimum_norm(design: str) -> None:
    model, dense = model_and_dense(design)
    scanner = model.get_fast_scanner()
    rng = np.random.default_rng(0)
    g, A1 = rng.integers(0, 3, size=(N, 2)).astype(float), np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]])
    X1 = np.hstack([g, g[:, :1] - 2 * g[:, 1:], np.zeros((N, 1))])
    plain, redundant = scanner.scan(A1, g), scanner.scan(A1, X1)
    assert (plain["rank"], redundant["rank"]) == (4, 4)
    assert_same_fit(redundant, plain, ("lml", "scale"))
    assert_minimum_norm(plain, dense, A1, g)
    assert_minimum_norm(redundant, dense, A1, X1)


@pytest.mark.parametrize("design", DESIGNS)
def test_redundant_columns_of_A1_have_effects_of_minimum_norm(design: str) -> None:
    model, dense = model_and_dense(design)
    scanner = model.get_fast_scanner()
    g, A1 = np.random.default_rng(1).normal(size=(N, 1)), np.hstack([np.eye(P), np.ones((P, 1))])
    plain, redundant = scanner.scan(np.eye(P), g), scanner.scan(A1, g)
    assert (plain["rank"], redundant["rank"]) == (3, 3)
    assert_same_fit(redundant, plain, FIT)
    assert_minimum_norm(redundant, dense, A1, g)


@pytest.mark.parametrize("design", ["identity", "square"])
@pytest.mark.parametrize("r", [8, 50])
def test_a_variant_in_the_span_of_the_covariates_shares_their_effects(design: str, r: int) -> None:
    model, dense = model_and_dense(design, r)
    scanner = model.get_fast_scanner()
    for g in (np.ones((N, 1)), 10 * model.X @ [[2.0], [-1.0]]):
        result = scanner.scan(np.eye(P), g)
        assert result["rank"] == 0
        assert result["lml"] == scanner.null_lml()
        assert_minimum_norm(result, dense, np.eye(P), g)


def test_with_a_coupled_design_only_the_free_directions_of_traits_are_left() -> None:
    model, dense = model_and_dense("column")
    result = model.get_fast_scanner().scan(np.eye(P), dense.data.X[:, :1])
    other = dense.data.A[:, 0]
    free = np.hstack([dense.M, np.kron(np.eye(P)[:, :2], dense.data.X[:, :1])])
    beta = dense.fixed_effects(free)[0]
    assert other.all()
    assert result["rank"] == 2
    np.testing.assert_allclose(result["lml"], dense.log_density(free, beta, dense.scale(free)), rtol=1e-10)


def test_no_added_effects() -> None:
    scanner = model_and_dense()[0].get_fast_scanner()
    g = np.random.default_rng(1).normal(size=(N, 2))
    for A1, X1, shape in ((np.empty((P, 0)), g, (0,)), (np.eye(P), g[:, :0], (0, P))):
        result = scanner.scan(A1, X1)
        assert result["rank"] == 0
        assert result["effsizes1"].shape == result["effsizes1_se"].shape == shape
        assert result["lml"] == scanner.null_lml()
        np.testing.assert_array_equal(vec(result["effsizes0"]), scanner.null_beta)
        np.testing.assert_array_equal(vec(result["effsizes0_se"]), scanner.null_beta_se)


@pytest.mark.parametrize("design", DESIGNS)
def test_nested_designs_by_their_likelihood_ratios(design: str) -> None:
    """Common, then free effects: the ratios add up, and each is that of two dense fits."""
    model, dense = model_and_dense(design)
    scanner, g = model.get_fast_scanner(), np.random.default_rng(2).normal(size=(N, 1))
    common, free = np.ones((P, 1)), np.eye(P)
    lml = [scanner.null_lml(), scanner.scan(common, g)["lml"], scanner.scan(free, g)["lml"]]
    assert lml[0] < lml[1] < lml[2]
    for A1, value in ((common, lml[1]), (free, lml[2])):
        M = np.hstack([dense.M, np.kron(A1, g)])
        expected = dense.log_density(M, dense.fixed_effects(M)[0], dense.scale(M))
        np.testing.assert_allclose(value, expected, rtol=1e-10)


@pytest.mark.parametrize("design", DESIGNS)
def test_a_large_mean_costs_no_precision(design: str) -> None:
    """Traits and variants far from zero: what counts is what the null model leaves of them."""
    model, dense = model_and_dense(design)
    data, g = dense.data, np.random.default_rng(3).normal(size=(N, 1))
    shift = 1e5 * np.ones((N, 1)) @ np.ones((1, data.A.shape[1])) @ data.A.T
    shifted = Kron2Sum(data.Y + shift, data.A, data.X, data.G, rank=P).at(dense.C0, dense.C1)
    result = model.get_fast_scanner().scan(np.eye(P), g)
    variant = g if design == "column" else g + 1e3
    other = shifted.get_fast_scanner().scan(np.eye(P), variant)
    for name in ("lml", "scale", "effsizes1", "effsizes1_se"):
        np.testing.assert_allclose(other[name], result[name], rtol=1e-8, err_msg=name)


def test_a_covariate_far_from_zero() -> None:
    model, dense = model_and_dense()
    X = dense.data.X + np.array([0.0, 1e6])
    far = Kron2Sum(dense.data.Y, np.eye(P), X, dense.data.G, rank=P).at(dense.C0, dense.C1)
    np.testing.assert_allclose(far.lml(), model.lml(), rtol=1e-9)
    np.testing.assert_allclose(far.B[1], model.B[1], rtol=1e-6)
    g = np.random.default_rng(3).normal(size=(N, 1))
    result, other = (m.get_fast_scanner().scan(np.eye(P), g) for m in (model, far))
    for name in ("scale", "effsizes1", "effsizes1_se"):
        np.testing.assert_allclose(other[name], result[name], rtol=1e-7, err_msg=name)


def singular_K() -> tuple[FastScanner, Dense]:
    """GGᵀ centred on the samples and C1 singular: the intercept of one axis is known exactly."""
    rng = np.random.default_rng(5)
    G = rng.normal(size=(N, 50)) / np.sqrt(50)
    G = G - G.mean(axis=0)
    X = np.hstack([np.ones((N, 1)), rng.normal(size=(N, 1))])
    Y = rng.normal(size=(N, 2))
    C0, C1 = np.array([[2.0, 0.3], [0.3, 1.0]]), np.array([[1.0, 1.0], [1.0, 1.0]])
    model = Kron2Sum(Y, np.eye(2), X, G, rank=2, restricted=True).at(C0, C1)
    # The limit: K with a little more of C1.
    return model.get_fast_scanner(), Dense(Data(Y, np.eye(2), X, G), C0, C1 + 1e-7 * np.eye(2))


def test_singular_K_has_estimates_all_the_same() -> None:
    scanner, limit = singular_K()
    g = np.random.default_rng(6).normal(size=(N, 1))
    result, M = scanner.scan(np.eye(2), g), np.hstack([limit.M, np.kron(np.eye(2), g)])
    beta, covariance = limit.fixed_effects(M)
    estimates = np.concatenate([vec(result["effsizes0"]), vec(result["effsizes1"])])
    se = np.concatenate([vec(result["effsizes0_se"]), vec(result["effsizes1_se"])])
    assert result["rank"] == 2
    np.testing.assert_allclose(result["scale"], limit.scale(M), rtol=1e-5)
    np.testing.assert_allclose(estimates, beta, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(se, np.sqrt(result["scale"] * np.diag(covariance)), rtol=1e-3)
    assert scanner.null_lml() == np.inf


def test_traits_explained_completely_are_refused() -> None:
    model, dense = model_and_dense()
    rng = np.random.default_rng(7)
    with pytest.raises(NumericalError, match="the effects explain the traits completely"):
        model.get_fast_scanner().scan(np.eye(P), np.hstack([dense.data.Y, rng.normal(size=(N, 2))]))


@pytest.mark.parametrize(
    ("A1", "X1", "message"),
    [
        (np.eye(2), np.ones((N, 1)), r"A1 must have one row a trait, \(3, e\); its shape is \(2, 2\)"),
        (np.eye(3), np.ones((N - 1, 1)), r"X1 must have one row a sample, \(30, m\); its shape is \(29, 1\)"),
        (np.ones(3), np.ones((N, 1)), "A1 must have two dimensions; it has 1"),
        (np.eye(3), np.ones(N), "X1 must have two dimensions; it has 1"),
        (np.eye(3), np.full((N, 1), np.nan), "X1 has values that are not finite"),
        (np.full((3, 1), np.inf), np.ones((N, 1)), "A1 has values that are not finite"),
    ],
)
def test_wrong_arguments_are_refused(A1: Array, X1: Array, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model_and_dense()[0].get_fast_scanner().scan(A1, X1)
