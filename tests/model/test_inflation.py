"""λ from counted P values, and how many independent tests variants amount to."""

import numpy as np
import pytest

from kron2sum_cli.model.inflation import BINS, MOST_SAMPLES, MedianP, independent_tests, inflation


@pytest.mark.parametrize("shape", [0.2, 1.0, 3.0])
def test_medians_are_those_of_all_values(shape: float) -> None:
    p = np.random.default_rng(1).beta(shape, 1, size=20_001)
    medians = MedianP(["a", "b"])
    for part in np.array_split(p, 7):
        medians.add("a", -np.log10(np.append(part, np.nan)))
    assert medians.number("a") == len(p) and medians.number("b") == 0
    assert medians.of("a") == pytest.approx(np.median(p), abs=1 / BINS)
    assert np.isnan(medians.of("b"))


@pytest.mark.parametrize("p", [[0.7], [0.2, 0.6], [0.1, 0.3, 0.8], [0.1, 0.3, 0.8, 0.9]])
def test_medians_of_few_values(p: list[float]) -> None:
    medians = MedianP(["a"])
    medians.add("a", -np.log10(p))
    assert medians.of("a") == pytest.approx(np.median(p), abs=1 / BINS)


def test_extreme_p_values_are_counted() -> None:
    medians = MedianP(["a"])
    medians.add("a", np.array([0.0, 400.0, 400.0]))
    assert medians.number("a") == 3 and medians.of("a") < 1 / BINS


def test_inflation_of_the_expected_median_is_1() -> None:
    assert inflation(0.5, 1) == pytest.approx(1) and inflation(0.5, 7) == pytest.approx(1)
    assert inflation(0.3, 2) == pytest.approx(np.log(0.3) / np.log(0.5))  # χ² of two degrees of freedom in closed form


def test_two_variants_amount_to_two_less_their_r2() -> None:
    G = np.random.default_rng(2).normal(size=(500, 2)) @ np.array([[1.0, 0.8], [0.0, 0.6]])
    assert independent_tests(G) == pytest.approx(2 - np.corrcoef(G.T)[0, 1] ** 2)


def test_copies_count_once_and_independent_variants_each() -> None:
    G = np.random.default_rng(3).normal(size=(MOST_SAMPLES, 6))
    G = np.linalg.qr(G - G.mean(axis=0))[0]
    assert independent_tests(G) == pytest.approx(6)
    assert independent_tests(np.hstack([G, 2 - 2 * G, G[:, :2]])) == pytest.approx(6)
    assert independent_tests(G[:, :0]) == 0


def test_some_of_many_samples_tell_it() -> None:
    G = np.random.default_rng(4).normal(size=(3 * MOST_SAMPLES, 4))
    assert independent_tests(G.astype(np.float32)) == pytest.approx(independent_tests(G[::3]), rel=1e-5)
    G[::3, 1] = 7.0  # a rare variant that none of these carries counts as one
    assert independent_tests(G) == pytest.approx(independent_tests(G[::3, [0, 2, 3]]) + 1)
