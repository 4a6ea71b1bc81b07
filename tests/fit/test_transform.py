"""Transformations of traits against scipy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.fit.design import transform_traits

NAMES = ("a", "b")


def two_traits() -> np.ndarray:
    rng = np.random.default_rng(5)
    Y = np.column_stack([rng.exponential(size=40), rng.integers(0, 5, size=40).astype(float)])
    Y[[3, 7], 0] = np.nan
    return Y


def test_none_is_nothing() -> None:
    Y = two_traits()
    assert transform_traits(Y, NAMES, "none") is Y


def test_standardize() -> None:
    Y = two_traits()
    Z = transform_traits(Y, NAMES, "standardize")
    np.testing.assert_array_equal(np.isnan(Z), np.isnan(Y))
    np.testing.assert_allclose(np.nanmean(Z, axis=0), 0, atol=1e-15)
    np.testing.assert_allclose(np.nanstd(Z, axis=0, ddof=1), 1, rtol=1e-14)
    np.testing.assert_allclose(Z[:, 1], stats.zscore(Y[:, 1], ddof=1), rtol=1e-13)


def test_rank_normal_is_blom_with_average_ranks() -> None:
    Y = two_traits()
    Z = transform_traits(Y, NAMES, "rank-normal")
    for column in range(2):
        y = Y[~np.isnan(Y[:, column]), column]
        expected = stats.norm.ppf((stats.rankdata(y) - 3 / 8) / (len(y) + 1 / 4))
        np.testing.assert_allclose(Z[~np.isnan(Y[:, column]), column], expected, rtol=1e-12, atol=1e-15)
    assert np.isnan(Z[[3, 7], 0]).all()


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_extreme_units(scale: float) -> None:
    Y = np.array([[1.0], [1.5], [1.7]])
    np.testing.assert_allclose(
        transform_traits(Y * scale, ("a",), "standardize"), transform_traits(Y, ("a",), "standardize")
    )


@pytest.mark.parametrize("transform", ["standardize", "rank-normal"])
@pytest.mark.parametrize("column", [[2.0, 2.0, np.nan], [np.nan] * 3])
def test_constant_trait(transform: str, column: list[float]) -> None:
    Y = np.column_stack([[1.0, 2.0, 3.0], column])
    with pytest.raises(NumericalError, match=f"trait 'b' has fewer than two distinct .*--transform {transform}"):
        transform_traits(Y, NAMES, transform)  # type: ignore[arg-type]


@given(st.lists(st.integers(-1000, 1000), min_size=2, max_size=30, unique=True), st.permutations(range(30)))
def test_order_of_samples_and_monotone_maps(values: list[int], shuffle: list[int]) -> None:
    Y = np.array(values, dtype=float)[:, np.newaxis]
    order = [i for i in shuffle if i < len(values)]
    for transform in ("standardize", "rank-normal"):
        Z = transform_traits(Y, ("a",), transform)
        np.testing.assert_allclose(transform_traits(Y[order], ("a",), transform), Z[order], rtol=1e-9, atol=1e-12)
    Z = transform_traits(Y, ("a",), "rank-normal")
    np.testing.assert_array_equal(transform_traits(Y**3, ("a",), "rank-normal"), Z)
    np.testing.assert_allclose(Z.sum(), 0, atol=1e-9)
