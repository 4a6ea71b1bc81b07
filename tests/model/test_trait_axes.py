"""The simultaneous diagonaliser of C0 and C1, also where one of them is singular or nearly so."""

import numpy as np
import pytest
from dense_oracle import Array

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.trait_axes import TraitAxes, axes_of_covariances, axes_of_factors, factor


def check(axes: TraitAxes, C0: Array, C1: Array, tau: float) -> None:
    p = len(C0)
    np.testing.assert_allclose(axes.T @ axes.Tinv, np.eye(p), atol=1e-10)
    np.testing.assert_allclose(axes.T @ C0 @ axes.T.T, np.diag(axes.c0**2), atol=1e-10 / tau)
    np.testing.assert_allclose(axes.T @ C1 @ axes.T.T, np.diag(axes.c1**2), atol=1e-10)
    np.testing.assert_allclose(tau * axes.c0**2 + axes.c1**2, 1, rtol=1e-12)
    np.testing.assert_allclose(axes.C0, C0, atol=1e-12 * np.abs(C0).max(initial=1))
    np.testing.assert_allclose(axes.C1, C1, atol=1e-12 * np.abs(C1).max(initial=1))
    np.testing.assert_allclose(axes.logdet_T, np.linalg.slogdet(axes.T)[1], rtol=1e-12)
    assert (np.diff(np.sqrt(tau) * axes.c0) <= 1e-12).all() and (axes.c0 >= 0).all() and (axes.c1 >= 0).all()


@pytest.mark.parametrize("tau", [1e-6, 1.0, 1e4])
@pytest.mark.parametrize(("rank0", "rank1"), [(4, 4), (1, 4), (4, 1), (2, 2), (0, 4), (4, 0), (3, 2)])
def test_axes_diagonalise_both(rank0: int, rank1: int, tau: float) -> None:
    rng = np.random.default_rng([rank0, rank1])
    L0, L1 = rng.normal(size=(4, rank0)) / np.sqrt(tau), rng.normal(size=(4, rank1))
    check(axes_of_factors(L0, L1, tau), L0 @ L0.T, L1 @ L1.T, tau)


def test_axes_of_covariances() -> None:
    rng = np.random.default_rng(1)
    L0, L1 = rng.normal(size=(3, 2)), rng.normal(size=(3, 3))
    check(axes_of_covariances(L0 @ L0.T, L1 @ L1.T, 2.0), L0 @ L0.T, L1 @ L1.T, 2.0)


def test_small_shares_of_factors_keep_relative_accuracy() -> None:
    """A residual share of 1e-20 would be lost in C1 beside C0; its factor shows it."""
    mix = np.array([[2.0, 1.0], [-1.0, 3.0]])
    axes = axes_of_factors(mix * [1.0, 1e-9], mix * [1e-10, 1.0], 1.0)
    np.testing.assert_allclose(axes.c1[0], 1e-10, rtol=1e-5)
    np.testing.assert_allclose(axes.c0[1], 1e-9, rtol=1e-5)


def test_traits_of_any_units() -> None:
    units = np.array([1e-6, 1.0, 1e6])
    rng = np.random.default_rng(2)
    L0, L1 = rng.normal(size=(2, 3, 3))
    plain = axes_of_factors(L0, L1, 1.0)
    scaled = axes_of_factors(units[:, None] * L0, units[:, None] * L1, 1.0)
    np.testing.assert_allclose(scaled.c0, plain.c0, rtol=1e-10)
    np.testing.assert_allclose(scaled.T * units, plain.T, rtol=1e-8)


def test_signs_are_those_of_the_largest_effect() -> None:
    """Other factors of the same covariances would turn axes round."""
    rng = np.random.default_rng(5)
    L0, L1 = rng.normal(size=(2, 4, 4))
    plain = axes_of_factors(L0, L1, 1.0)
    for _ in range(20):
        turns = np.linalg.qr(rng.normal(size=(2, 4, 4)))[0]
        np.testing.assert_allclose(axes_of_factors(L0 @ turns[0], L1 @ turns[1], 1.0).T, plain.T, atol=1e-10)
    effects = plain.Tinv / np.sqrt(np.diag(plain.C0 + plain.C1))[:, None]
    assert (effects.max(axis=0) > -effects.min(axis=0)).all()


def test_truncated_axes_keep_the_total() -> None:
    rng = np.random.default_rng(3)
    L0, L1 = rng.normal(size=(2, 3, 3))
    axes = axes_of_factors(L0, L1, 0.5)
    truncated = axes.truncated(1)
    assert np.linalg.matrix_rank(truncated.C0, tol=1e-10) == 1
    np.testing.assert_allclose(0.5 * truncated.C0 + truncated.C1, 0.5 * axes.C0 + axes.C1, rtol=1e-10)
    np.testing.assert_array_equal(axes.truncated(3).c0, axes.c0)


def test_variances_of_rows_and_axes() -> None:
    axes = axes_of_factors(np.eye(2), 2 * np.eye(2), 1.0)
    np.testing.assert_allclose(axes.variances(np.array([0.0, 3.0])), [[0.8, 0.8], [1.4, 1.4]])


@pytest.mark.parametrize(
    ("L0", "L1", "message"),
    [
        (np.zeros((2, 1)), np.zeros((2, 2)), "zero or not finite"),
        (np.array([[1.0], [0.0]]), np.zeros((2, 1)), "zero or not finite"),
        (np.full((2, 1), np.nan), np.eye(2), "zero or not finite"),
        (np.ones((2, 1)), np.ones((2, 1)), "singular: some traits are linear combinations of others"),
        (np.ones((2, 1)), np.empty((2, 0)), "singular: some traits are linear combinations of others"),
    ],
)
def test_singular_sums_are_refused(L0: Array, L1: Array, message: str) -> None:
    with pytest.raises(NumericalError, match=message):
        axes_of_factors(L0, L1, 1.0)


def test_factor() -> None:
    C = np.array([[4.0, 2.0], [2.0, 1.0]])
    np.testing.assert_allclose(factor(C) @ factor(C).T, C, atol=1e-12)
    np.testing.assert_array_equal(factor(np.zeros((2, 2))), np.zeros((2, 2)))
    with pytest.raises(NumericalError, match="must be symmetric"):
        factor(np.array([[1.0, 0.5], [0.0, 1.0]]))
    with pytest.raises(NumericalError, match="positive semi-definite; its smallest scaled eigenvalue is -1"):
        factor(np.array([[1.0, 2.0], [2.0, 1.0]]))
