"""The covariance K and its factors against their definitions and a dense K."""

from collections.abc import Callable

import numpy as np
import pytest
from dense_oracle import Array, derivative

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


@pytest.fixture(params=[(5, 1), (5, 3), (12, 2), (30, 3)], ids=lambda q: f"r{q[0]}-rank{q[1]}")
def by_factors(request: pytest.FixtureRequest) -> Kron2SumCov:
    r, rank = request.param
    rng = np.random.default_rng([r, rank])
    K = Kron2SumCov(rng.normal(size=(N, r)), P, rank)
    K.C0.Lu, K.C1.Lu = rng.normal(size=P * rank), rng.normal(size=P * (P + 1) // 2)
    return K


def test_factors_start_with_ones() -> None:
    K = Kron2SumCov(np.ones((4, 1)), 3, 2)
    np.testing.assert_array_equal(K.C0.L, np.ones((3, 2)))
    np.testing.assert_array_equal(K.C1.L, np.tril(np.ones((3, 3))))
    np.testing.assert_array_equal(K.C1.Lu, [1, 1, 1, 0, 0, 0])
    assert K.C0.shape == K.C1.shape == (3, 3)


def test_parameters_are_those_of_the_factors() -> None:
    K = Kron2SumCov(np.ones((4, 1)), 3, 2)
    K.C0.Lu, K.C1.Lu = np.arange(6), [1, 2, 3, 0, np.log(2), np.log(3)]
    np.testing.assert_array_equal(K.C0.L, [[0, 1], [2, 3], [4, 5]])
    np.testing.assert_allclose(K.C1.L, [[1, 0, 0], [1, 2, 0], [2, 3, 3]], rtol=1e-15)
    K.C0.L, K.C1.L = np.ones((3, 2)), np.diag([1.0, 2.0, 4.0])
    np.testing.assert_array_equal(K.C0.Lu, np.ones(6))
    np.testing.assert_allclose(K.C1.Lu, [0, 0, 0, 0, np.log(2), np.log(4)], rtol=1e-15)
    ridge = np.asarray(K.C1) - np.diag([1.0, 4.0, 16.0])
    np.testing.assert_allclose(ridge, 1000 * np.sqrt(np.finfo(float).eps) * np.eye(3), rtol=1e-9, atol=1e-15)


def test_numbers_by_factors(by_factors: Kron2SumCov) -> None:
    K, D = by_factors, dense(by_factors)
    np.testing.assert_allclose(K.value(), D, rtol=1e-14)
    np.testing.assert_allclose(K.solve(D), np.eye(N * P), atol=1e-8)
    np.testing.assert_allclose(K.logdet(), np.linalg.slogdet(D)[1], rtol=1e-10)
    L = np.kron(K.Lh, K.Lx)
    np.testing.assert_allclose(L.T @ (K.D[:, None] * L) @ D, np.eye(N * P), atol=1e-7)
    np.testing.assert_allclose(K.C1.logdet(), np.linalg.slogdet(K.C1.value())[1], rtol=1e-12)


def numeric(K: Kron2SumCov, name: str, number: Callable[[], float]) -> Array:
    """Gradient of a number of K by the parameters of C0 or C1, by differences; K is as before afterwards."""
    C = getattr(K, name)
    before = C.Lu

    def at(x: Array) -> float:
        C.Lu = x
        return number()

    result = derivative(at, before)
    C.Lu = before
    return result


@pytest.mark.parametrize("name", ["C0", "C1"])
def test_gradients_are_those_of_differences(by_factors: Kron2SumCov, name: str) -> None:
    K, rng = by_factors, np.random.default_rng(1)
    gradient, C = K.gradient()[f"{name}.Lu"], getattr(K, name)
    for i, j in rng.integers(0, N * P, size=(6, 2)):
        expected = numeric(K, name, lambda i=i, j=j: float(K.value()[i, j]))  # type: ignore[misc]
        np.testing.assert_allclose(gradient[i, j], expected, rtol=1e-7, atol=1e-7)
    for i, j in np.ndindex(P, P):
        expected = numeric(K, name, lambda i=i, j=j: float(C.value()[i, j]))  # type: ignore[misc]
        np.testing.assert_allclose(C.gradient()["Lu"][i, j], expected, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(K.logdet_gradient()[f"{name}.Lu"], numeric(K, name, K.logdet), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["C0.Lu", "C1.Lu"])
def test_products_with_the_gradient(by_factors: Kron2SumCov, name: str) -> None:
    K, rng = by_factors, np.random.default_rng(2)
    dK, L = K.gradient()[name], np.kron(K.Lh, K.Lx)
    v = rng.normal(size=(N * P, 2))
    one, several = K.gradient_dot(v[:, 0])[name], K.gradient_dot(v)[name]
    np.testing.assert_allclose(one, np.einsum("abk,b->ak", dK, v[:, 0]), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(several, np.einsum("abk,bm->mak", dK, v), rtol=1e-9, atol=1e-9)
    one, several = K.LdKL_dot(v[:, 0])[name], K.LdKL_dot(v)[name]
    scale = np.abs(several).max()
    np.testing.assert_allclose(one, np.einsum("ab,bck,dc,d->ak", L, dK, L, v[:, 0]), atol=1e-9 * scale)
    np.testing.assert_allclose(several, np.einsum("ab,bck,dc,dm->amk", L, dK, L, v), atol=1e-9 * scale)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda K: setattr(K.C0, "L", np.ones((3, 2))), r"L must be \(3, 1\); its shape is \(3, 2\)"),
        (lambda K: setattr(K.C0, "Lu", np.ones(2)), r"Lu must be \(3,\); its shape is \(2,\)"),
        (lambda K: setattr(K.C1, "L", np.eye(2)), r"L must be \(3, 3\); its shape is \(2, 2\)"),
        (lambda K: setattr(K.C1, "L", np.ones((3, 3))), "L must be square and lower triangular"),
        (lambda K: setattr(K.C1, "L", -np.eye(3)), "without negative entries on its diagonal"),
        (lambda K: setattr(K.C1, "Lu", np.full(6, np.nan)), "L has values that are not finite"),
        (lambda K: Kron2SumCov(np.ones((3, 1)), 0, 1), "dim and rank must be at least 1; they are 0 and 1"),
    ],
)
def test_wrong_factors_are_refused(change: Callable[[Kron2SumCov], None], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        change(Kron2SumCov(np.ones((4, 1)), 3, 1))


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
