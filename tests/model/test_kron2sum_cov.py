"""The covariance K and its factors against their definitions and a dense K."""

import numpy as np
import pytest
from dense_oracle import Array

from kron2sum_cli import Kron2Sum, Kron2SumCov
from kron2sum_cli.errors import NumericalError

N, P = 12, 3


@pytest.fixture(params=[(5, 1), (5, 3), (12, 2), (30, 3)], ids=lambda q: f"r{q[0]}-rank{q[1]}")
def K(request: pytest.FixtureRequest) -> Kron2SumCov:
    r, rank = request.param
    rng = np.random.default_rng([r, rank])
    L0, L1 = rng.normal(size=(P, rank)), rng.normal(size=(P, P)) + 2 * np.eye(P)
    return Kron2SumCov.create(L0 @ L0.T, L1 @ L1.T, rng.normal(size=(N, r)))


def dense(K: Kron2SumCov) -> Array:
    return np.kron(K.C0, K.G @ K.G.T) + np.kron(K.C1, np.eye(N))


def test_value_solve_and_logdet(K: Kron2SumCov) -> None:
    D = dense(K)
    np.testing.assert_allclose(K.value(), D, rtol=1e-14)
    rng = np.random.default_rng(0)
    for v in (rng.normal(size=N * P), rng.normal(size=(N * P, 4))):
        np.testing.assert_allclose(K.solve(v), np.linalg.solve(D, v), rtol=1e-8, atol=1e-10)
        assert K.solve(v).shape == v.shape
    np.testing.assert_allclose(K.logdet(), np.linalg.slogdet(D)[1], rtol=1e-12)


def test_factors_are_those_of_the_definitions(K: Kron2SumCov) -> None:
    L = np.kron(K.Lh, K.Lx)
    np.testing.assert_allclose(L.T @ (K.D[:, None] * L), np.linalg.inv(dense(K)), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(K.Lx @ K.Lx.T, np.eye(N), atol=1e-12)
    np.testing.assert_allclose(K.Lx @ K.G @ K.G.T @ K.Lx.T, np.diag(K.Sx), atol=1e-10 * K.Sx.max())
    np.testing.assert_allclose(K.Lh @ K.C1 @ K.Lh.T, np.eye(P), atol=1e-10)
    np.testing.assert_allclose(K.Lh @ K.C0 @ K.Lh.T, np.diag(K.Sh), atol=1e-10 * K.Sh.max())
    np.testing.assert_allclose(K.D, 1 / (np.kron(K.Sh, K.Sx) + 1))


def test_K_of_a_fitted_model() -> None:
    rng = np.random.default_rng(3)
    G = rng.normal(size=(N, 8))
    model = Kron2Sum(rng.normal(size=(N, 2)), np.eye(2), np.ones((N, 1)), G, rank=2)
    K = Kron2SumCov.create(model.C0, model.C1, G)
    np.testing.assert_allclose(K.value(), model.covariance(), rtol=1e-12)


def test_many_columns_of_G_make_no_square_matrix_of_them() -> None:
    K = Kron2SumCov.create(np.eye(1), np.eye(1), np.ones((4, 200_000)) * np.arange(4)[:, None])
    assert K.Lx.shape == (4, 4)


@pytest.mark.parametrize(
    ("C0", "C1", "message"),
    [
        (np.eye(2), np.ones((2, 2)), "C1 is not positive definite"),
        (np.eye(2), np.diag([1.0, -1.0]), "C1 is not positive definite"),
        (np.diag([1.0, -1.0]), np.eye(2), "C0 is not positive semi-definite"),
    ],
)
def test_indefinite_matrices_are_refused(C0: Array, C1: Array, message: str) -> None:
    with pytest.raises(NumericalError, match=message):
        Kron2SumCov.create(C0, C1, np.ones((3, 1)))


@pytest.mark.parametrize(
    ("C0", "C1", "G", "message"),
    [
        (np.eye(2), np.eye(3), np.ones((3, 1)), "C0 and C1 must be square and of one size"),
        (np.ones((2, 3)), np.eye(2), np.ones((3, 1)), "C0 and C1 must be square and of one size"),
        (np.eye(2), np.eye(2), np.ones(3), "G must have two dimensions"),
        (np.eye(2), np.eye(2), np.full((3, 1), np.nan), "G has values that are not finite"),
        (np.array([[1.0, 0.5], [0.0, 1.0]]), np.eye(2), np.ones((3, 1)), "C0 must be symmetric"),
    ],
)
def test_wrong_shapes_and_values_are_refused(C0: Array, C1: Array, G: Array, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Kron2SumCov.create(C0, C1, G)


def test_solve_refuses_a_wrong_number_of_rows() -> None:
    K = Kron2SumCov.create(np.eye(2), np.eye(2), np.ones((3, 1)))
    with pytest.raises(ValueError, match="v has 5 rows; K has 6"):
        K.solve(np.ones(5))
