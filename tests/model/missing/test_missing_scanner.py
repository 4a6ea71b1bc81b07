"""Tests of variants on the observed cells against the dense Gaussian."""

from dataclasses import replace

import numpy as np
import pytest
from missing_oracle import PATTERNS, Array, Observed, problem

from kron2sum_cli.model.block_scanner import block_scanner
from kron2sum_cli.model.contrasts import rotate_coupled, rotate_traits
from kron2sum_cli.model.fitting import fit as fit_complete
from kron2sum_cli.model.fitting import starting_axes
from kron2sum_cli.model.hypotheses import TestContext, named_hypothesis, test, trait_effects
from kron2sum_cli.model.likelihood import evaluate as evaluate_complete
from kron2sum_cli.model.missing.fitting import climb, fit
from kron2sum_cli.model.missing.likelihood import ObservedPoint, evaluate
from kron2sum_cli.model.missing.observed import observed_cells, observed_spectrum, with_added, without_missing
from kron2sum_cli.model.missing.refit import ObservedRefitter, observed_refits
from kron2sum_cli.model.missing.scanner import observed_scanner
from kron2sum_cli.model.refit import null_maxima as complete_maxima
from kron2sum_cli.model.refit import refitter
from kron2sum_cli.model.sets.fixed_effects import SetScores, reduce_set
from kron2sum_cli.model.sets.scanner import ObservedSetScanner
from kron2sum_cli.model.spectrum import spectrum_of_features
from kron2sum_cli.model.trait_axes import axes_of_covariances

TRAITS = ("a", "b", "c")


def point_of(dense: Observed, G: Array, reml: bool, shifted: bool = False) -> ObservedPoint:
    spectrum, shift = observed_spectrum(G, dense.X, True, shifted)
    data = observed_cells(spectrum, dense.Y, dense.A, dense.X, shift)
    return evaluate(data, axes_of_covariances(dense.C0, dense.C1, data.mean_eigenvalue), reml)


def variants(n: int, b: int = 7) -> Array:
    rng = np.random.default_rng(100)
    return rng.binomial(2, 0.3, size=(n, b)).astype(float)


def context(point: ObservedPoint) -> TestContext:
    size = int(np.count_nonzero(point.data.observed()))
    return TestContext(point.axes.T, point.quadratic, size, size - point.B.size)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.6])
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("r", [90, 20])
@pytest.mark.parametrize("a", [None, 2])
def test_score_and_information(reml: bool, share: float, pattern: str, r: int, a: int | None) -> None:
    dense, G = problem(1, share, pattern, r=r, a=a)
    point = point_of(dense, G, reml, shifted=reml and a is None)
    g = variants(60)
    found = observed_scanner(point, np.float64).statistics(g)
    T = point.axes.T
    for k in range(g.shape[1]):
        u, V = dense.statistics(g[:, k])
        np.testing.assert_allclose(found.u[k] @ T, u, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(T.T @ found.v[k] @ T, V, rtol=1e-8, atol=1e-8 * np.abs(V).max())
        assert (found.length[k] > 0) == (np.linalg.matrix_rank(V, hermitian=True, tol=1e-8 * V.max()) == 3)


def set_scores(point: ObservedPoint, G: Array) -> SetScores:
    return ObservedSetScanner(observed_scanner(point, np.float64)).rotate(G).scores(np.arange(G.shape[1]))


@pytest.mark.parametrize("r", [90, 20])
@pytest.mark.parametrize("a", [None, 2])
def test_sets_of_variants(r: int, a: int | None) -> None:
    """One of them is the sum of two others, and one is a covariate: neither adds effects that were not there."""
    dense, G = problem(3, r=r, a=a)
    point = point_of(dense, G, True, shifted=a is None)
    g = variants(60, 4)
    with_more = np.column_stack([g, g[:, 0] + g[:, 1], *([dense.X[:, 1]] if a is None else [])])
    scores = set_scores(point, with_more)
    for design in (np.eye(3), np.ones((3, 1)), np.eye(3)[:, :2]):
        M1 = np.kron(design, g)[dense.seen]
        u = M1.T @ dense.Q @ dense.y
        found = reduce_set(scores, design, point.axes.T)
        assert found.chisq == pytest.approx(u @ np.linalg.solve(M1.T @ dense.Q @ M1, u), rel=1e-7)
        assert found.rank == M1.shape[1]


def test_a_set_without_variants_has_no_rank() -> None:
    dense, G = problem(3)
    point = point_of(dense, G, True)
    scores = set_scores(point, np.empty((60, 0)))
    assert reduce_set(scores, np.eye(3), point.axes.T).rank == 0


@pytest.mark.parametrize("name", ["any", "common", "specific", "trait:b", "only:b"])
def test_every_hypothesis_is_a_likelihood_ratio_with_the_scale_free(name: str) -> None:
    dense, G = problem(2)
    point = point_of(dense, G, False)
    g = variants(60)
    statistics = observed_scanner(point, np.float64).statistics(g)
    tested = named_hypothesis(name, TRAITS)
    found = test(statistics.u, statistics.v, tested, context(point))
    root = np.linalg.cholesky(dense.K)
    y, n = np.linalg.solve(root, dense.y), dense.y.size

    def left(A1: Array, k: int) -> float:
        M = np.hstack([dense.M, np.kron(A1, g[:, [k]])[dense.seen]])
        return float(np.linalg.lstsq(np.linalg.solve(root, M), y, rcond=None)[1][0])

    for k in range(g.shape[1]):
        assert found.chisq[k] == pytest.approx(n * np.log(left(tested.base, k) / left(tested.full, k)), rel=1e-8)


def test_effects_on_the_traits() -> None:
    dense, G = problem(3)
    point = point_of(dense, G, True)
    g = variants(60)
    statistics = observed_scanner(point, np.float64).statistics(g)
    effects = trait_effects(statistics.u, statistics.v, point.axes.Tinv, context(point))
    for k in range(g.shape[1]):
        u, V = dense.statistics(g[:, k])
        np.testing.assert_allclose(effects.beta[k], np.linalg.solve(V, u), rtol=1e-8)
        scale = (dense.quadratic() - u @ np.linalg.solve(V, u)) / dense.y.size
        np.testing.assert_allclose(effects.se[k], np.sqrt(scale * np.diag(np.linalg.inv(V))), rtol=1e-8)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("r", [90, 20])
def test_without_missing_cells_they_are_the_statistics_of_complete_traits(reml: bool, r: int) -> None:
    dense, G = problem(4, r=r)
    Y = np.where(np.isnan(dense.Y), 1.0, dense.Y)
    spectrum = spectrum_of_features(G, dense.X)
    data = rotate_traits(spectrum, Y)
    axes = axes_of_covariances(dense.C0, dense.C1, data.mean_eigenvalue)
    expected = block_scanner(evaluate_complete(data, axes, reml), spectrum.Qx, np.float64).statistics(variants(60))
    coupled = rotate_coupled(spectrum_of_features(G, np.empty((60, 0))), Y, dense.A, dense.X)
    point = evaluate(without_missing(coupled, dense.X), axes, reml)
    found = observed_scanner(point, np.float64).statistics(variants(60))
    np.testing.assert_allclose(found.u, expected.u, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(found.v, expected.v[:, :, None] * np.eye(3), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.length, expected.length, rtol=1e-9)


def test_single_precision_and_centring() -> None:
    dense, G = problem(5, 0.4, n=200, r=300)
    point = point_of(dense, G, True)
    g = variants(200)
    double = observed_scanner(point, np.float64).statistics(g)
    centred = observed_scanner(point, np.float64).statistics(g - g.mean(axis=0))
    single = observed_scanner(point).statistics((g - g.mean(axis=0)).astype(np.float32))
    for name in ("u", "v", "length"):
        a, b, c = (getattr(x, name) for x in (double, centred, single))
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * np.abs(a).max())
        np.testing.assert_allclose(c, b, rtol=1e-4, atol=1e-5 * np.abs(a).max())


def test_single_precision_is_left_where_the_missing_cells_leave_too_little() -> None:
    """With axes that have no residual variance single precision may be off by 1e-2, or take a variant for none."""
    dense, G = problem(5, 0.6, n=80, p=5, r=120)
    values, vectors = np.linalg.eigh(dense.C1)
    dense = replace(dense, C1=(vectors * np.where(np.arange(5) < 3, 1e-7, values)) @ vectors.T)
    point = point_of(dense, G, True)
    g = np.random.default_rng(2).binomial(2, 0.1, size=(80, 40)) - 0.2
    double, single = (observed_scanner(point, dtype).statistics(g) for dtype in (np.float64, np.float32))
    assert np.all(single.length > 0)
    for name in ("any", "common"):
        hypothesis = named_hypothesis(name, "abcde")
        expected, found = (test(s.u, s.v, hypothesis, context(point)).mlog10p for s in (double, single))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_single_precision_is_left_for_variants_of_the_matrix() -> None:
    """They lie in V, outside which an axis with little residual variance has a weight that magnifies rounding."""
    dense, G = problem(5, 0.1, n=80, p=3, r=20)
    values, vectors = np.linalg.eigh(dense.C1)
    dense = replace(dense, C1=(vectors * np.where(np.arange(3) < 1, 1e-4, values)) @ vectors.T)
    point = point_of(dense, G, True)
    double, single = (observed_scanner(point, dtype).statistics(G) for dtype in (np.float64, np.float32))
    np.testing.assert_allclose(single.v, double.v, rtol=0, atol=1e-6 * np.abs(double.v).max())
    hypothesis = named_hypothesis("any", "abc")
    expected, found = (test(s.u, s.v, hypothesis, context(point)).mlog10p for s in (double, single))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_a_variant_does_not_depend_on_its_block() -> None:
    dense, G = problem(6)
    scanner = observed_scanner(point_of(dense, G, True), np.float64)
    g = variants(60)
    whole, part = scanner.statistics(g), scanner.statistics(g[:, 2:4])
    np.testing.assert_allclose(whole.v[2:4], part.v, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(whole.u[2:4], part.u, rtol=1e-12, atol=1e-12)


def test_small_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    dense, G = problem(10, r=20)
    scanner = observed_scanner(point_of(dense, G, True), np.float64)
    whole = scanner.statistics(variants(60, 70))
    monkeypatch.setattr("kron2sum_cli.model.missing.scanner.BATCH_ENTRIES", 1)
    np.testing.assert_allclose(scanner.statistics(variants(60, 70)).v, whole.v, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_variants_that_a_traits_samples_do_not_show_have_no_length(dtype: type) -> None:
    dense, G = problem(7)
    g = variants(60, 4)
    g[np.isfinite(dense.Y[:, 1]), 1] = 2.0
    g[:, 2] = dense.X[:, 1]
    g[:, 3] = 1.0
    found = observed_scanner(point_of(dense, G, True), dtype).statistics(g.astype(dtype))
    np.testing.assert_array_equal(found.length > 0, [True, False, False, False])


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("r", [90, 20])
@pytest.mark.parametrize("e", [3, 1])
def test_a_refit_is_the_maximum_with_the_variant_as_a_fixed_effect(reml: bool, r: int, e: int) -> None:
    """Of the likelihood of the contrasts of the covariates (REML), or of the observed cells (ML)."""
    dense, G = problem(8, n=80, r=r)
    spectrum, shift = observed_spectrum(G, dense.X, True, reml)
    data = observed_cells(spectrum, dense.Y, dense.A, dense.X, shift)
    null = climb(data, starting_axes(data.filled, 0.5), 3, reml)
    g, design = variants(80, 2), np.eye(3)[:, :e]
    found = ObservedRefitter((null,)).refit(g, design)
    assert np.all(found.lml > null.point.lml)
    for k in range(2):
        at = climb(with_added(null.point.data, design, g[:, [k]]), null.point.axes, 3, reml).point
        E = np.kron(design, g[:, [k]])[dense.seen]
        there = replace(dense, C0=at.axes.C0, C1=at.axes.C1)
        white = np.linalg.solve(np.linalg.cholesky(there.K), np.column_stack([dense.M, E, dense.y]))
        covariance = np.linalg.inv(white[:, :-1].T @ white[:, :-1])
        beta = covariance @ white[:, :-1].T @ white[:, -1]
        se = np.sqrt(np.diag(covariance)[-e:])
        np.testing.assert_array_less(np.abs(found.beta[k, :e] - beta[-e:]) / se, 1e-7)
        np.testing.assert_allclose(found.se[k, :e], se, rtol=1e-7)
        rest = white[:, -1] - white[:, :-1] @ beta
        lml = -0.5 * (rest @ rest + np.linalg.slogdet(there.K)[1] + dense.y.size * np.log(2 * np.pi))
        if reml:
            m = dense.M.shape[1]
            of_K = white[:, :m].T @ white[:, :m]
            logdets = np.linalg.slogdet(dense.M.T @ dense.M)[1] - np.linalg.slogdet(of_K)[1]
            lml += 0.5 * (logdets + m * np.log(2 * np.pi))
        assert found.lml[k] == pytest.approx(lml, rel=1e-10)
        if e == 3 and not reml:
            wider = replace(dense, X=np.hstack([dense.X, g[:, [k]]]))
            direct = climb(observed_cells(spectrum, dense.Y, dense.A, wider.X), null.point.axes, 3, False)
            assert found.lml[k] == pytest.approx(direct.point.lml, abs=1e-5)


@pytest.mark.parametrize("r", [90, 20])
def test_refits_without_a_missing_cell_are_those_of_complete_traits(r: int) -> None:
    dense, G = problem(8, n=80, r=r)
    Y = np.where(np.isnan(dense.Y), 0.1, dense.Y)
    projected = spectrum_of_features(G, dense.X)
    whole = rotate_traits(projected, Y)
    axes = fit_complete(whole, 3, True).point.axes
    data, g = whole.without_projected(), variants(80, 3)
    rows = data.to_rows(g)
    outside = np.sum(g**2, axis=0) - np.sum(rows**2, axis=0) - np.sum((projected.Qx.T @ g) ** 2, axis=0)
    complete = refitter(data, complete_maxima(data, axes, 3), reml=True)
    spectrum, shift = observed_spectrum(G, dense.X, True, True)
    observed = observed_refits(observed_cells(spectrum, Y, dense.A, dense.X, shift), axes, 3, True)
    assert observed.null_lml == pytest.approx(complete.null_lml, abs=1e-6)
    for design in (np.eye(3), np.ones((3, 1))):
        expected, found = complete.refit(rows, design, np.maximum(outside, 0)), observed.refit(g, design)
        np.testing.assert_allclose(found.lml, expected.lml, atol=2e-6)
        np.testing.assert_allclose(found.beta / found.se, expected.beta / expected.se, atol=5e-3)


def test_a_refit_of_a_variant_that_the_covariates_explain_is_empty() -> None:
    dense, G = problem(9, n=80)
    spectrum = spectrum_of_features(G, np.empty((80, 0)))
    null = fit(observed_cells(spectrum, dense.Y, dense.A, dense.X), 3, False)
    found = ObservedRefitter((null,)).refit(np.column_stack([dense.X[:, 1], variants(80, 1)]), np.eye(3))
    np.testing.assert_array_equal(np.isnan(found.lml), [True, False])
    assert np.isnan(found.beta[0]).all()
