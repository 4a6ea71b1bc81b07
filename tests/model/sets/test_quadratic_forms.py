"""Weighted sums of χ²₁ against mpmath, closed forms and simulation, from P near 1 to 10^-5000."""

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.sets.quadratic_forms import (
    cgf,
    hyperbola,
    mixture_mlog10p,
    mixture_quantile,
    mixture_tails,
    positive_weights,
)

mpmath.mp.dps = 60
LN10 = float(np.log(10))


@pytest.mark.parametrize("df", [1, 2, 3, 10, 57, 300])
@pytest.mark.parametrize("weight", [1e-8, 1.0, 3e5])
def test_equal_weights_are_a_scaled_chi_square(df: int, weight: float) -> None:
    xs = df * np.array([1e-6, 1e-3, 0.1, 0.5, 0.9, 0.999999, 1.0, 1.000001, 1.1, 1.5, 2, 3, 5, 10, 30, 100, 1e3, 1e4])
    found = mixture_mlog10p(np.full((xs.size, df), weight), weight * xs)
    for x, value in zip(xs, found, strict=True):
        upper = mpmath.gammainc(mpmath.mpf(df) / 2, mpmath.mpf(float(x)) / 2, regularized=True)
        assert abs(value - float(-mpmath.log10(upper))) <= 1e-11 * value + 1e-11 / LN10 + 1e-300


def of_pairs(weights: np.ndarray, q: float) -> mpmath.mpf:
    """P where every weight is there twice: a sum of exponential variables of different means."""
    total = mpmath.mpf(0)
    for i, one in enumerate(map(mpmath.mpf, map(float, weights))):
        product = mpmath.exp(-mpmath.mpf(float(q)) / (2 * one))
        for k, other in enumerate(map(mpmath.mpf, map(float, weights))):
            if k != i:
                product *= one / (one - other)
        total += product
    return total


@pytest.mark.parametrize("seed", range(6))
def test_weights_in_pairs_are_sums_of_exponentials(seed: int) -> None:
    """To 1e-10 of P, whether P is 0.99 or 1e-2000."""
    rng = np.random.default_rng(seed)
    weights = np.exp(rng.uniform(-6, 0, size=rng.integers(2, 13)))
    mean = 2 * weights.sum()
    for q in mean * np.array([0.3, 0.7, 0.99, 1.01, 1.3, 2, 4, 8, 20, 100, 1000]):
        expected = of_pairs(weights, q)
        found = mixture_mlog10p(np.repeat(weights, 2)[None], np.array([q]))[0]
        with mpmath.workdps(40):
            relative = mpmath.power(10, -mpmath.mpf(float(found))) / expected - 1
        assert abs(relative) < 1e-10 + 4e-16 * LN10 * found


def test_unequal_weights_against_an_integral() -> None:
    """One variable of weight 1 and one of weight w: P = E[P(χ²₁ > q - w z²)]."""
    for w, q in [(0.5, 1.0), (0.5, 20.0), (0.05, 3.0), (0.05, 60.0), (0.9, 90.0)]:

        def inner(z: mpmath.mpf, w: float = w, q: float = q) -> mpmath.mpf:
            left = q - w * z**2
            tail = mpmath.erfc(mpmath.sqrt(left / 2)) if left > 0 else mpmath.mpf(1)
            return tail * mpmath.exp(-(z**2) / 2) * mpmath.sqrt(2 / mpmath.pi)

        edge = mpmath.sqrt(q / w)
        expected = mpmath.quad(inner, [*mpmath.linspace(0, edge, 8), edge + 10, edge + 30])
        found = mixture_mlog10p(np.array([[1.0, w]]), np.array([q]))[0]
        assert abs(found - float(-mpmath.log10(expected))) < 1e-11 * max(found, 1)


def test_simulated_values() -> None:
    rng = np.random.default_rng(4)
    weights = np.exp(rng.uniform(-3, 0, size=20))
    drawn = rng.chisquare(1, size=(200_000, 20)) @ weights
    for share in (0.9, 0.5, 0.1, 0.01, 0.001):
        q = float(np.quantile(drawn, 1 - share))
        p = 10 ** -mixture_mlog10p(weights[None], np.array([q]))[0]
        assert abs(p - share) < 4.5 * np.sqrt(share * (1 - share) / drawn.size)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=80), st.floats(1e-3, 1e3), st.floats(1e-150, 1e150))
def test_a_tail_has_no_units_and_decreases(weights: list[float], q: float, unit: float) -> None:
    lam = np.array([weights])
    value = q * lam.sum()
    here = mixture_mlog10p(lam, np.array([value]))[0]
    assert mixture_mlog10p(lam * unit, np.array([value * unit]))[0] == pytest.approx(here, rel=1e-9, abs=1e-10)
    assert mixture_mlog10p(lam, np.array([1.01 * value]))[0] > here
    with_zeros = np.hstack([lam, np.zeros((1, 5))])
    assert mixture_mlog10p(with_zeros, np.array([value]))[0] == pytest.approx(here, rel=1e-9, abs=1e-10)


def test_the_density_is_the_slope_of_the_tail() -> None:
    weights = np.tile(np.array([1.0, 0.4, 0.3, 0.01]), (4, 1))
    q, h = np.array([0.2, 1.5, 5.0, 40.0]), 1e-4
    upper = np.exp(mixture_tails(weights, q - h).log_upper) - np.exp(mixture_tails(weights, q + h).log_upper)
    np.testing.assert_allclose(np.exp(mixture_tails(weights, q).log_density), upper / (2 * h), rtol=1e-6)


@pytest.mark.parametrize("log_upper", [-0.01, -1.0, -20.0, -2000.0])
def test_a_quantile_has_its_tail(log_upper: float) -> None:
    weights = np.abs(np.random.default_rng(2).normal(size=(3, 9)))
    q = mixture_quantile(weights, log_upper)
    np.testing.assert_allclose(mixture_tails(weights, q).log_upper, log_upper, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("near", [-0.5, -40.0, -2000.0])
def test_a_quantile_does_not_depend_on_where_the_search_starts(near: float) -> None:
    weights = np.abs(np.random.default_rng(3).normal(size=(3, 9)))
    q = mixture_quantile(weights, near)
    for log_upper in (-1.0, -30.0, -1000.0):
        found = mixture_quantile(weights, log_upper, (q, mixture_tails(weights, q)))
        np.testing.assert_allclose(found, mixture_quantile(weights, log_upper), rtol=1e-9)


@pytest.mark.parametrize("m", [1, 3, 8, 200])
@pytest.mark.parametrize("step", [0.09, 0.13])
def test_the_logarithm_of_many_factors_is_the_sum_of_their_logarithms(m: int, step: float) -> None:
    rng = np.random.default_rng(m)
    weights = rng.random((4, m)) ** 4
    weights[:, 0] = 1
    tau = rng.uniform(0.001, 0.49, size=4)
    scale, slope = 1.4 * tau, rng.random(4)
    nodes = tau[:, None] - hyperbola(scale, slope, step, 5.8)[0]
    expected = -0.5 * np.sum(np.log((1 - weights)[:, None] + 2 * weights[:, None] * nodes[:, :, None]), axis=2)
    np.testing.assert_allclose(cgf(weights, nodes), expected, rtol=1e-12, atol=1e-11)


def test_a_value_of_0_has_probability_1() -> None:
    np.testing.assert_array_equal(mixture_mlog10p(np.ones((2, 3)), np.array([0.0, -1.0])), 0.0)


def test_what_has_no_distribution_is_refused() -> None:
    with pytest.raises(NumericalError, match="have no variance"):
        mixture_mlog10p(np.zeros((1, 3)), np.ones(1))
    with pytest.raises(NumericalError, match="not positive semi-definite"):
        mixture_mlog10p(np.array([[1.0, -0.1]]), np.ones(1))
    with pytest.raises(NumericalError, match="is not finite"):
        mixture_mlog10p(np.ones((1, 3)), np.array([np.nan]))


def test_rounding_of_zeros_is_no_weight() -> None:
    np.testing.assert_array_equal(positive_weights(np.array([[2.0, -1e-15, 1e-14]])), [[2.0, 0.0, 0.0]])
