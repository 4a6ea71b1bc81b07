"""Combinations of traits without residual variance, where cells are missing."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from missing_oracle import Array, Observed

from benchmarks.calibration import features_and_variants
from kron2sum_cli.model.fitting import starting_axes
from kron2sum_cli.model.missing.fitting import ObservedFit, climb
from kron2sum_cli.model.missing.likelihood import ObservedPoint, evaluate
from kron2sum_cli.model.missing.observed import ObservedCells, observed_cells
from kron2sum_cli.model.missing.scanner import observed_scanner, variant_scanner
from kron2sum_cli.model.sets.fixed_effects import reduce_set
from kron2sum_cli.model.sets.random_effects import with_information
from kron2sum_cli.model.sets.scanner import ObservedSetScanner, SetVariants
from kron2sum_cli.model.spectrum import spectrum_of_features
from kron2sum_cli.model.trait_axes import TraitAxes, axes_of_covariances
from kron2sum_cli.model.uncertainty import estimates_of_observed


def residuals_of_low_rank(
    r: int, n: int = 60, p: int = 4, seed: int = 15, last_digits: int | None = None
) -> tuple[ObservedCells, Array, Array]:
    """Cells of traits whose residuals have one dimension less than there are traits, Y, and G of r columns.

    The last digit of Y is another one for every ``last_digits``.
    """
    rng = np.random.default_rng(seed)
    G = rng.normal(size=(n, r)) / np.sqrt(r)
    Y = G @ rng.normal(size=(r, p)) + rng.normal(size=(n, p - 1)) @ rng.normal(size=(p - 1, p))
    missing = rng.random((n, p)) < 0.6
    missing[np.arange(n), rng.integers(0, p, n)] = False
    Y[missing] = np.nan
    if last_digits is not None:
        Y = np.nextafter(Y, Y + np.random.default_rng(last_digits).integers(-1, 2, size=Y.shape))
    return observed_cells(spectrum_of_features(G, np.empty((n, 0))), Y, np.eye(p), np.ones((n, 1))), Y, G


def climbed(cells: ObservedCells) -> ObservedFit:
    """The maximum; here all starts lead there."""
    return climb(cells, starting_axes(cells.filled, 0.5), cells.ntraits, False)


@lru_cache
def fitted(seed: int, last_digits: int | None) -> tuple[ObservedFit, Array, Array]:
    """The maximum of such cells where GGᵀ is singular, Y, and G."""
    cells, Y, G = residuals_of_low_rank(18, seed=seed, last_digits=last_digits)
    return climbed(cells), Y, G


def test_where_the_relationship_matrix_is_singular() -> None:
    """C1 comes as near to its boundary as certifies the fit, and no nearer: beyond, rounding takes over."""
    best, Y, G = fitted(15, None)
    point = best.point
    assert 1e-10 < point.axes.c1.min() ** 2 < 1e-6
    dense = Observed(Y, np.eye(4), np.ones((60, 1)), G @ G.T, point.axes.C0, point.axes.C1)
    assert point.lml == pytest.approx(dense.lml(False), abs=1e-9)
    nearer = point.axes.C1 - 0.99 * point.axes.c1[0] ** 2 * np.multiply.outer(*2 * [point.axes.Tinv[:, 0]])
    assert replace(dense, C1=nearer).lml(False) < point.lml + 1e-6
    g = np.random.default_rng(1).binomial(2, 0.3, size=(60, 8)) - 0.6
    for dtype in (np.float32, np.float64):
        found = observed_scanner(point, dtype).statistics(g)
        assert np.all(found.length > 0)
        for k in range(8):
            V = point.axes.Tinv.T @ dense.statistics(g[:, k])[1] @ point.axes.Tinv  # of effects along the axes
            np.testing.assert_allclose(found.v[k], V, rtol=1e-6, atol=1e-6 * np.abs(V).max())


def statistics_in_long_double(Y: Array, G: Array, axes: TraitAxes, variants: Array) -> tuple[Array, Array]:
    """Scores ``M1ᵀQy`` and Gram matrix ``M1ᵀQM1`` of the effects of all variants on all axes, one intercept a trait."""
    (n, p), seen = Y.shape, np.isfinite(Y.T.ravel())
    Tinv, c0, c1, R = (np.asarray(M, np.longdouble) for M in (axes.Tinv, axes.c0, axes.c1, G))
    eye = np.eye(n, dtype=np.longdouble)
    K = np.kron((Tinv * c0**2) @ Tinv.T, R @ R.T) + np.kron((Tinv * c1**2) @ Tinv.T, eye)
    y, M, M1 = Y.T.ravel()[seen, None], np.kron(np.eye(p), np.ones((n, 1)))[seen], np.kron(Tinv, variants)[seen]
    whitened = np.hstack([y, M, M1]).astype(np.longdouble)
    K = K[np.ix_(seen, seen)]
    for k in range(len(K)):  # Cholesky: each row of the factor as soon as it is known is taken off the others
        pivot, below = np.sqrt(K[k, k]), K[k + 1 :, k] / np.sqrt(K[k, k])
        K[k + 1 :, k + 1 :] -= np.outer(below, below)
        whitened[k] /= pivot
        whitened[k + 1 :] -= np.outer(below, whitened[k])
    for k in range(1, 1 + p):  # Gram and Schmidt
        q = whitened[:, k] / np.sqrt(whitened[:, k] @ whitened[:, k])
        whitened -= np.outer(q, q @ whitened)
    y, M1 = whitened[:, 0], whitened[:, 1 + p :]
    return np.asarray(M1.T @ y, np.float64), np.asarray(M1.T @ M1, np.float64)


@pytest.mark.skipif(np.finfo(np.longdouble).eps > 1e-18, reason="long double is no longer than double")
@pytest.mark.parametrize("seed", [15, 17])
def test_tests_of_variants_where_rows_have_inverse_variances_of_a_billion(seed: int) -> None:
    """Half of them are in the span of G, so that nothing of them is where C1 alone has variance."""
    best, Y, G = fitted(seed, None)
    point = best.point
    assert point.W.max() > 1e8
    variants = np.hstack([G[:, :4], np.random.default_rng(1).binomial(2, 0.3, size=(60, 4)) - 0.6])
    u, V = statistics_in_long_double(Y, G, point.axes, variants)
    scanner = variant_scanner(point)
    assert scanner.cut is not None
    found = scanner.pair_statistics(variants, variants[:, ::-1])
    V = V.reshape(4, 8, 4, 8)
    for k, single in enumerate(scanner.statistics(variants).v):
        own, other = V[:, k, :, k], V[:, 7 - k, :, 7 - k]
        size, of_other = np.sqrt(np.diag(own)), np.sqrt(np.diag(other))
        np.testing.assert_allclose(single / np.outer(size, size), own / np.outer(size, size), atol=1e-9)
        np.testing.assert_array_equal(found.first.v[k], single)
        np.testing.assert_allclose(
            found.second.v[k] / np.outer(of_other, of_other), other / np.outer(of_other, of_other), atol=1e-9
        )
        cross = V[:, k, :, 7 - k] / np.outer(size, of_other)
        np.testing.assert_allclose(found.cross[k] / np.outer(size, of_other), cross, atol=1e-9)
        np.testing.assert_allclose(found.first.u[k] / size, u.reshape(4, 8)[:, k] / size, atol=1e-8)
    assert np.all(found.first.length > 0)
    of_set = ObservedSetScanner(scanner).rotate(variants).scores(np.arange(8))
    size = np.sqrt(np.einsum("jkjk->jk", V))
    scale = np.einsum("ja,lb->jlab", size, size)
    np.testing.assert_allclose(of_set.V / scale, V.transpose(0, 2, 1, 3) / scale, atol=1e-9)
    np.testing.assert_allclose(of_set.u, found.first.u, rtol=1e-12)


@pytest.mark.skipif(np.finfo(np.longdouble).eps > 1e-18, reason="long double is no longer than double")
def test_the_burden_of_variants_that_cancel_where_rows_have_inverse_variances_of_a_billion() -> None:
    """What is left of their sum lies in the span of G, and has a billionth of their information."""
    best, Y, G = fitted(15, None)
    point = best.point
    g = np.random.default_rng(1).binomial(2, 0.3, size=60) - 0.6
    variants = np.column_stack([g, G[:, 0], -g])
    u, V = statistics_in_long_double(Y, G, point.axes, G[:, [0]])
    weights = np.array([20.0, 1.0, 20.0])
    block = ObservedSetScanner(variant_scanner(point)).rotate(variants)
    found = SetVariants(block, np.arange(3), lambda: variants).scores_of_sum(weights)
    size = np.sqrt(np.diag(V))
    np.testing.assert_allclose(found.V[:, :, 0, 0] / np.outer(size, size), V / np.outer(size, size), atol=1e-9)
    np.testing.assert_allclose(found.u[0] / size, u / size, atol=1e-8)
    assert reduce_set(found, np.eye(4), point.axes.T).rank == 4


def test_a_climb_to_the_boundary_does_not_depend_on_rounding() -> None:
    """Axes that fall below the least residual variance are held at it: steps that were refused led anywhere."""
    found = []
    for last_digits in (None, 1):
        best, Y, G = fitted(17, last_digits)
        assert best.certificate.certified
        assert best.certificate.active_C1 > 0
        axes = best.point.axes
        dense = Observed(Y, np.eye(4), np.ones((60, 1)), G @ G.T, axes.C0, axes.C1)
        assert best.point.lml == pytest.approx(dense.lml(False), abs=1e-8)
        nearer = axes.with_residual(axes.c1**2 < 1e-7, 1e-7, best.point.data.mean_eigenvalue)
        assert replace(dense, C0=nearer.C0, C1=nearer.C1).lml(False) < best.point.lml + 1e-6
        found.append(best.point.lml)
    assert min(found) > -218.489183  # -218.6009 to -218.8065 where steps were refused
    assert np.ptp(found) < 1e-7


def errors_on_the_face(dense: Observed, rank1: int) -> tuple[Array, Array]:
    """Standard errors of C0 and C1, with C1 of this rank, by differences of the dense likelihood's slopes.

    Factors of C0 and of C1 are free; turns of the columns of the latter, which do not change it, have no information.
    """
    p = len(dense.C0)
    L0, L1 = (vectors * np.sqrt(np.maximum(values, 0)) for values, vectors in map(np.linalg.eigh, (dense.C0, dense.C1)))
    x0 = np.concatenate([L0.ravel(), L1[:, p - rank1 :].ravel()])
    basis = np.eye(p)

    def covariances(x: Array) -> Array:
        factors = x[: p * p].reshape(p, p), x[p * p :].reshape(p, rank1)
        return np.stack([F @ F.T for F in factors])

    def gradient(x: Array) -> Array:
        C0, C1 = covariances(x)
        here = replace(dense, C0=C0, C1=C1)
        slopes = np.zeros((2, p, p))
        for k, R in enumerate((dense.R, np.eye(len(dense.R)))):
            for i in range(p):
                for j in range(i + 1):
                    E = np.outer(basis[i], basis[j])
                    slopes[k, i, j] = slopes[k, j, i] = 0.5 * here.slope(E + E.T, R, False)
        factors = x[: p * p].reshape(p, p), x[p * p :].reshape(p, rank1)
        return np.concatenate([2 * (slope @ F).ravel() for slope, F in zip(slopes, factors, strict=True)])

    h, steps = 1e-4, np.eye(x0.size)
    hessian = np.stack([(gradient(x0 + h * e) - gradient(x0 - h * e)) / (2 * h) for e in steps])
    change = np.stack([(covariances(x0 + h * e) - covariances(x0 - h * e)).ravel() / (2 * h) for e in steps])
    turns = p * (p - 1) // 2 + rank1 * (rank1 - 1) // 2
    values, vectors = np.linalg.eigh(-0.5 * (hessian + hessian.T))
    kept = np.argsort(np.abs(values))[turns:]
    assert values[kept].min() > 0
    along = change.T @ vectors[:, kept]
    variances = np.sum(along**2 / values[kept], axis=1)
    errors = np.sqrt(variances).reshape(2, p, p)
    return errors[0], errors[1]


@pytest.mark.parametrize("r", [18, 90])
@pytest.mark.parametrize("reached", [True, False])
def test_standard_errors_are_those_along_the_boundary(r: int, reached: bool) -> None:
    """Also where rounding, or a singular GGᵀ, leaves a share of 1e-9 of an axis's variance in its residual."""
    cells, Y, G = residuals_of_low_rank(r, p=3)
    best = climbed(cells)
    axes = best.point.axes
    assert axes.c1[0] ** 2 < 1e-7
    near = replace(axes, c1=np.where(axes.c1 < 1e-4, 10**-4.5, axes.c1))
    point = best.point if reached else evaluate(cells, near, False)
    found = estimates_of_observed(point, 3, 1.0, np.eye(3))
    dense = Observed(Y, np.eye(3), np.ones((60, 1)), G @ G.T, axes.C0, axes.C1)
    expected = errors_on_the_face(dense, int(np.sum(axes.c1**2 > 1e-7)))
    np.testing.assert_allclose(found.C0_se, expected[0], rtol=1e-4)
    np.testing.assert_allclose(found.C1_se, expected[1], rtol=1e-4)


def test_an_axis_that_is_nearly_there_counts_as_there() -> None:
    cells, _, _ = residuals_of_low_rank(90)
    best = climbed(cells)
    axes = best.point.axes
    assert axes.c1[0] == 0

    def errors(point: ObservedPoint) -> Array:
        return estimates_of_observed(point, best.rank, 1.0, np.eye(4)).C1_se

    near = evaluate(cells, replace(axes, c1=np.where(axes.c1 == 0, 10**-4.5, axes.c1)), False)
    np.testing.assert_allclose(errors(near), errors(best.point), rtol=2e-2)


@pytest.mark.parametrize(("seed", "c1"), [(3, 1e-3), (15, 1.7e-4), (2, 5e-5)])
def test_an_effect_on_a_trait_that_no_carrier_has_is_empty(seed: int, c1: float) -> None:
    """Its information is rounding, of which two axes without residual variance leave much."""
    rng = np.random.default_rng(seed)
    G, _ = features_and_variants("populations", 40, 2, rng)
    F = rng.normal(size=(4, 4))
    Y = G @ rng.normal(size=(G.shape[1], 2)) @ F[:, :2].T + rng.normal(size=(40, 2)) @ F[:, 2:].T
    missing = rng.uniform(size=Y.shape) < 0.3
    Y[missing & ~missing.all(axis=1, keepdims=True)] = np.nan
    data = observed_cells(spectrum_of_features(G, np.empty((40, 0))), Y, np.eye(4), np.ones((40, 1)))
    C0 = F[:, :2] @ F[:, :2].T
    axes = axes_of_covariances(C0, c1**2 * C0 + F[:, 2:] @ F[:, 2:].T, data.mean_eigenvalue)
    without = np.isnan(Y)[:, np.isnan(Y).sum(axis=0).argmax()]
    rare = np.zeros(40)
    rare[np.flatnonzero(without)[:3]] = 1
    common = rng.binomial(2, 0.4, size=40).astype(float)
    variants = np.column_stack([rare, common])
    variants -= variants.mean(axis=0)
    scanner = variant_scanner(evaluate(data, axes, False), np.float64)
    found = scanner.statistics(variants)
    assert found.length[0] == 0
    assert found.length[1] > 1
    of_set = ObservedSetScanner(scanner).rotate(variants).scores(np.arange(2))
    np.testing.assert_array_equal(with_information(of_set)[1], [False, True])
