"""Variants that covariates explain wherever they were genotyped."""

import numpy as np
import pytest

from kron2sum_cli.model.collinearity import ExplainedTraits, GenotypedCovariates, combination, dependencies
from kron2sum_cli.model.spectrum import Array

N = 120


def brute_force(X: Array, observed: np.ndarray, g: Array, absent: np.ndarray) -> bool:
    """By least squares over the genotyped samples of every trait."""
    for seen in observed.T:
        rows = seen & ~absent
        left = g[rows] - X[rows] @ np.linalg.lstsq(X[rows], g[rows], rcond=None)[0]
        if left @ left <= 1e-6 * (g[rows] @ g[rows]):
            return True
    return False


def covariates(seed: int, c: int) -> Array:
    rng = np.random.default_rng(seed)
    return np.column_stack([np.ones(N), rng.integers(0, 2, N), rng.normal(size=(N, c))])


@pytest.fixture(autouse=True)
def _few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kron2sum_cli.model.collinearity.AT_ONCE", 7)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("c", [0, 12])
@pytest.mark.parametrize("traits", [None, 3])
def test_it_is_least_squares_over_the_genotyped_samples(dtype: type, c: int, traits: int | None) -> None:
    rng = np.random.default_rng(c)
    X = covariates(1, c)
    observed = np.ones((N, 1), bool) if traits is None else rng.random((N, traits)) < 0.7
    G = rng.binomial(2, 0.3, size=(N, 40)).astype(float)
    absent = rng.random(G.shape) < np.linspace(0, 0.6, 40)
    G[:, 3] = 2 * X[:, 1]  # equals a covariate
    G[:, 5] = 2 * X[:, 1]
    G[~absent[:, 5] & (np.arange(N) > 60), 5] = 1  # and this one does not everywhere
    G[:, 8] = X @ rng.normal(size=X.shape[1])
    G[~absent[:, 9] & observed[:, 0], 9] = 0  # does not vary in the samples of the first trait
    G -= np.nanmean(np.where(absent, np.nan, G), axis=0)
    found = GenotypedCovariates(X, None if traits is None else observed).explain(G.astype(dtype), np.arange(40), absent)
    expected = [brute_force(X, observed, G[:, k], absent[:, k]) for k in range(40)]
    np.testing.assert_array_equal(found, expected)
    assert np.flatnonzero(expected).tolist() == [3, 8, 9]
    judge = GenotypedCovariates(X, None if traits is None else observed)
    everywhere = judge.explain(G.astype(dtype), np.arange(40), absent, of_every_trait=True)
    assert np.flatnonzero(everywhere).tolist() == ([3, 8, 9] if traits is None else [3, 8])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("traits", [None, 3])
def test_a_second_column_beside_the_covariates_and_the_first(dtype: type, traits: int | None) -> None:
    rng = np.random.default_rng(7)
    X = covariates(1, 4)
    observed = np.ones((N, 1), bool) if traits is None else rng.random((N, traits)) < 0.7
    G, H = (rng.binomial(2, 0.3, size=(N, 20)).astype(float) for _ in range(2))
    absent = rng.random(G.shape) < np.linspace(0, 0.6, 20)
    H[:, 3] = 2 * G[:, 3] + X[:, 2]
    H[~absent[:, 3] & (np.arange(N) > 110), 3] += 1  # not everywhere
    H[:, 8] = G[:, 8] - X[:, 1]
    H[absent[:, 8], 8] = rng.normal(size=absent[:, 8].sum())  # wherever it was genotyped
    H[:, 11] = X[:, 3]
    G[:, 12] = X[:, 1]  # the first is a covariate itself
    found = GenotypedCovariates(X, None if traits is None else observed).explain(
        H.astype(dtype), np.arange(20), absent, G.astype(dtype)
    )
    expected = [brute_force(np.column_stack([X, G[:, k]]), observed, H[:, k], absent[:, k]) for k in range(20)]
    np.testing.assert_array_equal(found, expected)
    assert np.flatnonzero(expected).tolist() == [8, 11]


def test_covariates_that_only_the_samples_without_a_genotype_tell_apart() -> None:
    X = covariates(2, 0)
    X = np.column_stack([X, X[:, 1]])
    X[:4, 2] = 5.0
    g = np.random.default_rng(3).binomial(2, 0.3, size=(N, 2)).astype(float)
    g[:, 1] = X[:, 1]
    absent = np.zeros((N, 2), bool)
    absent[:4] = True
    np.testing.assert_array_equal(GenotypedCovariates(X, None).explain(g, np.arange(2), absent), [False, True])


def test_without_covariates_only_a_variant_of_zeros_is_explained() -> None:
    covariates = GenotypedCovariates(np.empty((N, 0)), None)
    assert isinstance(covariates, GenotypedCovariates)
    g = np.ones((N, 2))
    g[3:, 1] = 0
    absent = np.zeros((N, 2), bool)
    absent[:3] = True
    np.testing.assert_array_equal(covariates.explain(g, np.arange(2), absent), [False, True])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_variants_that_determine_a_combination_of_traits(dtype: type, offset: float) -> None:
    rng = np.random.default_rng(3)
    X = covariates(1, 2)
    G = rng.binomial(2, 0.3, size=(N, 6)).astype(float)
    Y = rng.normal(size=(N, 3))
    Y[:, 0] = 3 * G[:, 1] + X @ rng.normal(size=X.shape[1])  # a trait
    Y[:, 1] = Y[:, 2] + 1e-4 * G[:, 4] + 2  # a combination of two
    Y[:, 2] += 1e-2 * G[:, 5]
    G = (G - G.mean(axis=0)).astype(dtype)
    assert list(np.flatnonzero(ExplainedTraits(Y + offset, X).by(G))) == [1]
    Y[:, 1] = Y[:, 2] + G[:, 4]
    assert list(np.flatnonzero(ExplainedTraits(Y + offset, X).by(G))) == [1, 4]
    Y[rng.random(Y.shape) < 0.2] = np.nan  # each trait by itself
    assert list(np.flatnonzero(ExplainedTraits(Y + offset, X).by(G))) == [1]
    assert ExplainedTraits(Y, X).by(G[:, :0]).shape == (0,)


def test_variants_given_are_judged_where_they_were_genotyped() -> None:
    """Each by itself, with the others as they are; too few samples of one tell nothing."""
    rng = np.random.default_rng(8)
    given = rng.binomial(2, 0.3, size=(N, 2)).astype(float)
    called = np.ones((N, 2), bool)
    called[:9, 0], called[20:25, 1] = False, False
    imputed = np.where(called, given, 0.6)
    G = np.column_stack([given, given.sum(axis=1), rng.binomial(2, 0.3, size=(N, 2))]).astype(float)
    X = np.column_stack([np.ones(N), imputed])
    judge = GenotypedCovariates(X, None, called)
    assert judge.judges(np.zeros(5, bool)).all()
    nothing = np.zeros(G.shape, bool)
    assert list(judge.explain(G, np.arange(5), nothing)) == [True, True, False, False, False]
    few = np.arange(N) < 5
    assert not GenotypedCovariates(X, None, few[:, None]).explain(G[:, 3:], np.arange(2), nothing[:, 3:]).any()


def test_a_column_that_follows_from_very_many_names_the_first_ones() -> None:
    M = np.random.default_rng(1).normal(size=(100, 50))
    (found,) = dependencies(np.column_stack([M, M.sum(axis=1)]))
    said = combination([f"c{k}" for k in range(51)], found)
    assert said.startswith("c50 is a linear combination of c0, c1, ") and said.endswith("c19 and 30 more")
    (found,) = dependencies(np.column_stack([M[:, :3], M[:, :3].sum(axis=1)]))
    assert combination("abcd", found) == "d is a linear combination of a, b, c"
