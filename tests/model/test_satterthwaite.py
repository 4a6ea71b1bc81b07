"""Effective contrasts: against dense matrices, exact tests and simulation."""

from dataclasses import replace
from itertools import combinations_with_replacement

import numpy as np
import pytest
from dense_oracle import Array
from scipy import stats

from kron2sum_cli.model.block_scanner import BlockStatistics, block_scanner
from kron2sum_cli.model.contrasts import rotate_traits
from kron2sum_cli.model.fitting import fit
from kron2sum_cli.model.hypotheses import TestContext, named_hypothesis, test, trait_effects
from kron2sum_cli.model.likelihood import Point, evaluate
from kron2sum_cli.model.satterthwaite import (
    LARGEST_SHARE,
    contrasts_of_columns,
    effective_contrasts,
    mlog10p_of_both,
    satterthwaite_mlog10p,
    share_found,
)
from kron2sum_cli.model.spectrum import spectrum_of_features
from kron2sum_cli.model.trait_axes import axes_of_covariances

TRAITS = ("a", "b", "c")


def numeric_derivatives(function, C0: Array, C1: Array) -> list[Array]:
    """Central differences in every entry on and below the diagonals of C0, then of C1."""
    found, p = [], len(C0)
    for of_C0 in (True, False):
        for i, j in combinations_with_replacement(range(p), 2):
            step = np.zeros((p, p))
            step[i, j] = step[j, i] = 1e-5
            moved = [function(C0 + sign * of_C0 * step, C1 + sign * (not of_C0) * step) for sign in (1, -1)]
            found.append((moved[0] - moved[1]) / 2e-5)
    return found


def squares(point: Point) -> list[tuple[float, float]]:
    """Genetic and residual variance of every axis."""
    return list(zip(point.axes.c0**2, point.axes.c1**2, strict=True))


@pytest.mark.parametrize("others", [False, True], ids=["as related", "other columns"])
@pytest.mark.parametrize("r", [40, 6])
def test_contrasts_by_the_definition(r: int, others: bool) -> None:
    """``var(tr W⁻¹Ŵ) + 2 E‖W⁻¹Ŵ - I‖²`` with W and the information of C0 and C1 from dense matrices.

    Of variants that are inherited as the matrix says, and of the mean of some other columns.
    """
    rng = np.random.default_rng(3)
    n, p = 14, 3
    G, X = rng.normal(size=(n, r)), np.hstack([np.ones((n, 1)), rng.normal(size=(n, 1))])
    S, outside, H = G @ G.T, np.eye(n) - X @ np.linalg.pinv(X), rng.normal(size=(n, 4))
    of_columns = H @ H.T / 4 if others else S
    basis = np.linalg.svd(outside)[0][:, : n - 2]
    C0, C1 = (M @ M.T + 0.1 * np.eye(p) for M in rng.normal(size=(2, p, p)))

    def inverse(C0: Array, C1: Array) -> Array:
        """That of the covariance of the contrasts, as p × p blocks of (n - 2)²."""
        K = np.kron(C0, basis.T @ S @ basis) + np.kron(C1, np.eye(n - 2))
        return np.linalg.inv(K).reshape(p, n - 2, p, n - 2)

    def expected_information(C0: Array, C1: Array) -> Array:
        """``E[(I ⊗ g)ᵀP(I ⊗ g)]`` for g with covariance GGᵀ, or that of the columns: (p, p)."""
        return np.einsum("aibj,ji->ab", inverse(C0, C1), basis.T @ of_columns @ basis)

    size = p * (n - 2)
    P = inverse(C0, C1).reshape(size, size)
    dK = [
        -np.linalg.solve(P, np.linalg.solve(P, D.reshape(size, size)).T) for D in numeric_derivatives(inverse, C0, C1)
    ]
    fisher = np.array([[0.5 * np.trace(P @ one @ P @ other) for one in dK] for other in dK])
    covariance = np.linalg.inv(fisher)
    data = rotate_traits(spectrum_of_features(G, X), np.zeros((n, p)))
    point = evaluate(data, axes_of_covariances(C0, C1, data.mean_eigenvalue), reml=True)
    contrasts = effective_contrasts(point.axes, point.grams)
    if others:
        K = [basis @ np.linalg.inv(basis.T @ (a * S + b * np.eye(n)) @ basis) @ basis.T for a, b in squares(point)]
        contrasts = contrasts_of_columns(point.axes, point.grams, H, np.stack([P @ H for P in K], axis=1))
    context = TestContext(point.axes.T, 1.0, size, size, "satterthwaite", contrasts=contrasts)

    def by_definition(information) -> float:
        """M of effects with ``information(V)`` (e, e)."""
        root = np.linalg.cholesky(np.linalg.inv(information(expected_information(C0, C1))))
        changes = numeric_derivatives(lambda *C: root.T @ information(expected_information(*C)) @ root, C0, C1)
        J = np.array([change.ravel() for change in changes])
        of_trace = np.array([np.trace(change) for change in changes])
        total = of_trace @ covariance @ of_trace + 2 * np.trace(J.T @ covariance @ J)
        e = len(root)
        return 2 * e * (e + 2) / total

    def of_contrasts(L: Array):
        """The information of the combinations L of the effects on the traits, all others free."""
        return lambda V: np.linalg.inv(L @ np.linalg.inv(V) @ L.T)

    common = np.ones((p, 1))
    expected = {
        "any": by_definition(lambda V: V),
        "common": by_definition(lambda V: common.T @ V @ common),
        "only:b": by_definition(lambda V: V[1:2, 1:2]),
        "specific": by_definition(of_contrasts(np.array([[1, -1, 0], [0, 1, -1.0]]))),
        "trait:c": by_definition(of_contrasts(np.eye(3)[2:])),
    }
    found = {name: context.contrasts_of(named_hypothesis(name, TRAITS)) for name in expected}
    assert found == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(contrasts.of_traits(point.axes.Tinv)[2], found["trait:c"], rtol=1e-9)


def lines(rng: np.random.Generator, number: int, m: int) -> Array:
    """Genotypes (n, m) of inbred lines, five replicates of each."""
    of_lines = 2.0 * rng.binomial(1, 0.4, size=(number, m))
    return np.repeat(of_lines[:, of_lines.std(axis=0) > 0], 5, axis=0)


def null_of_lines(rng: np.random.Generator, number: int, residual: float) -> tuple[Array, Point]:
    """Three traits of unrelated lines with as large genetic variance, and their null model by REML."""
    G = np.kron(np.eye(number), np.ones((5, 1)))
    n = len(G)
    Y = G @ rng.normal(size=(number, 3)) @ rng.normal(size=(3, 3)) + residual * rng.normal(size=(n, 3))
    return Y, fit(rotate_traits(spectrum_of_features(G, np.ones((n, 1))), Y), 3, True).point


def context_of(point: Point) -> TestContext:
    known = effective_contrasts(point.axes, point.grams)
    size = (point.data.nsamples - 1) * 3
    return TestContext(point.axes.T, point.quadratic, size, size, "satterthwaite", contrasts=known)


def statistics_of(point: Point, g: Array) -> BlockStatistics:
    return block_scanner(point, np.full((len(g), 1), len(g) ** -0.5), np.float64).statistics(g)


def test_lines_without_residuals_have_the_test_of_hotelling() -> None:
    """The exact test of the means of 16 lines, where P of the likelihood ratio is too large."""
    rng = np.random.default_rng(5)
    Y, point = null_of_lines(rng, 16, 1e-4)
    means = Y.reshape(16, 5, 3).mean(axis=1)
    associated = np.repeat(2.0 * (means[:, :1] > np.median(means[:, 0])), 5, axis=0)
    g = np.hstack([lines(rng, 16, 40), associated])
    statistics, context = statistics_of(point, g), context_of(point)
    found = test(statistics.u, statistics.v, named_hypothesis("any", TRAITS), context)
    for k in range(g.shape[1]):
        X = np.column_stack([np.ones(16), g[::5, k]])
        null, full = (means - D @ np.linalg.lstsq(D, means, rcond=None)[0] for D in (X[:, :1], X))
        F = (np.linalg.det(null.T @ null) / np.linalg.det(full.T @ full) - 1) * (16 - 2 - 3 + 1) / 3
        assert found.mlog10p[k] == pytest.approx(-stats.f.logsf(F, 3, 12) / np.log(10), rel=5e-3)
    assert context.contrasts_of(named_hypothesis("common", TRAITS)) == pytest.approx(15, abs=1e-3)
    as_known = replace(context, statistic="lr", contrasts=None)
    ratio = test(statistics.u, statistics.v, named_hypothesis("any", TRAITS), as_known)
    assert found.mlog10p[-1] > ratio.mlog10p[-1] + 0.5


def test_with_residuals_there_are_more_contrasts_than_lines() -> None:
    _, point = null_of_lines(np.random.default_rng(5), 16, 8.0)
    assert 16 < (context_of(point).contrasts_of(named_hypothesis("any", TRAITS)) or 0) < 79


def test_effects_on_single_traits_are_those_of_their_tests() -> None:
    rng = np.random.default_rng(8)
    _, point = null_of_lines(rng, 20, 1.0)
    statistics, context = statistics_of(point, lines(rng, 20, 30)), context_of(point)
    effects = trait_effects(statistics.u, statistics.v, point.axes.Tinv, context)
    for j, trait in enumerate(TRAITS):
        alone = test(statistics.u, statistics.v, named_hypothesis(f"trait:{trait}", TRAITS), context)
        np.testing.assert_allclose(effects.mlog10p[:, j], alone.mlog10p, rtol=1e-9)


def test_units_of_traits_do_not_matter() -> None:
    _, point = null_of_lines(np.random.default_rng(4), 16, 1.0)
    units = np.array([1e6, 1.0, 1e-5])
    C0, C1 = (units[:, None] * C * units for C in (point.axes.C0, point.axes.C1))
    moved = evaluate(point.data, axes_of_covariances(C0, C1, point.data.mean_eigenvalue), reml=True)
    for name in ("any", "trait:b", "only:c"):
        contrasts = [context_of(at).contrasts_of(named_hypothesis(name, TRAITS)) for at in (point, moved)]
        assert contrasts[0] == pytest.approx(contrasts[1], rel=1e-6)


@pytest.mark.parametrize(("df", "contrasts"), [(1, 14.3), (3, 20.0), (3, 4.1), (8, 900.0)])
def test_p_is_that_of_a_beta_distribution(df: int, contrasts: float) -> None:
    chisq = np.linspace(0, LARGEST_SHARE, 50) * contrasts
    expected = -stats.beta.logsf(chisq / contrasts, df / 2, (contrasts - df) / 2) / np.log(10)
    usable = np.isfinite(expected) & (expected < 290)
    np.testing.assert_allclose(satterthwaite_mlog10p(chisq, df, contrasts)[usable], expected[usable], rtol=1e-8)
    each = satterthwaite_mlog10p(np.stack([chisq, chisq], axis=1), df, np.array([contrasts, 2 * contrasts]))
    np.testing.assert_array_equal(each[:, 0], satterthwaite_mlog10p(chisq, df, contrasts))


def test_p_goes_on_along_its_tangent() -> None:
    """Where χ² comes near M, and beyond it: finite, increasing, without a step, and no smaller than Beta's P."""
    contrasts = 20.0
    edge = LARGEST_SHARE * contrasts
    chisq = np.array([edge - 1e-4, edge, edge + 1e-4, 19.9, 20.0, 25.0])
    found = satterthwaite_mlog10p(chisq, 3, contrasts)
    assert found[2] - found[1] == pytest.approx(found[1] - found[0], rel=1e-3)
    assert np.all(np.diff(found) > 0)
    assert np.all(np.isfinite(found))
    assert found[3] < -stats.beta.logsf(chisq[3] / contrasts, 1.5, 8.5) / np.log(10)


def test_how_much_is_found_with_covariances_taken_as_known() -> None:
    """All where every sample counts, of one trait; hardly anything of four traits of 30 lines; by simulated Beta."""
    assert share_found(1, 400, 400) == pytest.approx(1, abs=0.05)
    assert share_found(4, 30, 596) < 0.01
    drawn = 45 * np.random.default_rng(0).beta(1, 21.5, size=400_000)
    ratio = -300 * np.log1p(-drawn / 300)
    expected = np.mean(stats.chi2.sf(ratio, 2) < 0.01) / 0.01
    assert share_found(2, 45, 300, 0.01) == pytest.approx(expected, rel=0.05)


def test_p_of_two_independent_tests() -> None:
    """Of two tests on two degrees of freedom it is Fisher's; by scipy on more."""
    first, second = np.array([0.0, 1.5, 12.0, 400.0]), np.array([0.3, 2.0, 0.1, 5.0])
    fisher = -(np.log1p(np.log(10) * (first + second)) / np.log(10) - first - second)
    np.testing.assert_allclose(mlog10p_of_both(first, second, 2), fisher, rtol=1e-9, atol=1e-12)
    total = sum(stats.chi2.isf(10.0 ** -one[:3], 5) for one in (first, second))
    found = mlog10p_of_both(first[:3], second[:3], 5)
    np.testing.assert_allclose(found, -stats.chi2.logsf(total, 10) / np.log(10), rtol=1e-9, atol=1e-12)
