"""Two columns a variant under every kind of null model, against dense generalised least squares at the same K."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import linalg, stats
from test_conditioning import KINDS, Case, N, case_of, close

from kron2sum_cli.model.bootstrap import largest_of_second, normal_errors, simulated_normal
from kron2sum_cli.model.conditioning import conditioned_scanner, given_variants
from kron2sum_cli.model.hypotheses import TestContext
from kron2sum_cli.model.second_column import (
    SecondStatistics,
    SecondTests,
    basis_of_covariates,
    second_statistics,
    test_second,
)
from kron2sum_cli.model.spectrum import Array

E = np.random.default_rng(5).normal(size=N) + (np.arange(N) % 2)


def columns(case: Case) -> tuple[Array, Array]:
    """Variants, centred where a constant is in the model, and their products with E."""
    G = case.variants - case.variants.mean(axis=0) if case.model.spans_intercept else case.variants
    return G, G * (E - E.mean())[:, None]


def found_in(case: Case, dtype: type[np.floating] = np.float64, given: Array | None = None) -> SecondStatistics:
    scanner, X = case.model.scanner(dtype), case.X
    if given is not None:
        scanner, X = conditioned_scanner(scanner, given_variants(case.model, given, X)), np.hstack([X, given])
    G, H = (np.asarray(one, scanner.dtype) for one in columns(case))
    return second_statistics(scanner, G, H, basis_of_covariates(X).astype(scanner.dtype))


def context_of(case: Case, quadratic: float) -> TestContext:
    n, p = case.data.Y.shape
    return TestContext(case.model.summary.axes.T, quadratic, n * p, n * p, statistic="f")


def results_of(case: Case, found: SecondStatistics, quadratic: float) -> SecondTests:
    return test_second(found, case.model.summary.axes.Tinv, context_of(case, quadratic), None)


def dense_drops(case: Case, given: Array | None) -> tuple[Array, Array, Array, Array, float]:
    """``rᵀK⁻¹r`` without a variant less that with g, and with g and h; effects of h, variances, and itself."""
    axes, p, Y = case.model.summary.axes, case.data.Y.shape[1], case.data.Y
    seen = np.isfinite(Y).T.ravel()
    K = (np.kron(axes.C0, case.K) + np.kron(axes.C1, np.eye(N)))[np.ix_(seen, seen)]
    root = np.linalg.cholesky(K)
    y = linalg.solve_triangular(root, Y.T.ravel()[seen], lower=True)
    M = np.kron(case.data.A, case.data.X)
    M = M if given is None else np.hstack([M, np.kron(np.eye(p), given)])

    def left(*further: Array) -> tuple[float, Array, Array]:
        design = np.hstack([M, *(np.kron(np.eye(p), column[:, None]) for column in further)])[seen]
        whitened = linalg.solve_triangular(root, design, lower=True)
        beta = np.linalg.lstsq(whitened, y, rcond=None)[0]
        return float(np.sum((y - whitened @ beta) ** 2)), beta[-p:], np.linalg.pinv(whitened.T @ whitened)[-p:, -p:]

    G, H = columns(case)
    q0 = left()[0]
    first = np.array([q0 - left(g)[0] for g in G.T])
    fits = [left(g, h) for g, h in zip(G.T, H.T, strict=True)]
    return (
        first,
        np.array([q0 - fit[0] for fit in fits]),
        np.array([fit[1] for fit in fits]),
        np.array([np.diag(fit[2]) for fit in fits]),
        q0,
    )


@pytest.mark.parametrize("conditioned", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_tests_are_those_of_dense_least_squares(kind: str, conditioned: bool) -> None:
    case = case_of(kind)
    given = E[:, None] if conditioned else None
    first, both, beta, variance, q0 = dense_drops(case, given)
    found = results_of(case, found_in(case, given=given), q0)
    n, p = case.data.Y.shape
    size, rank = n * p, case.data.Y.shape[1]
    close(found.second.chisq, size * np.log((q0 - first) / (q0 - both)))
    close(found.joint.chisq, size * np.log(q0 / (q0 - both)))
    close(found.effects.beta, beta)
    close(found.effects.se, np.sqrt(variance * ((q0 - both) / size)[:, None]))
    assert (found.second.df, found.joint.df) == (p, 2 * p)
    f = (both - first) / (q0 - both) * (size - 2 * rank) / p
    close(found.second.mlog10p, -stats.f.logsf(f, p, size - 2 * rank) / np.log(10))
    t = beta**2 / variance / (q0 - both)[:, None] * (size - 2 * rank)
    close(found.effects.mlog10p, -stats.f.logsf(t, 1, size - 2 * rank) / np.log(10))


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_column_has_the_statistics_of_a_scan_without_a_second(kind: str) -> None:
    case = case_of(kind)
    G, _ = columns(case)
    alone, first = case.model.scanner(np.float64).statistics(G), found_in(case).first
    for name in ("u", "v", "length", "outside"):
        np.testing.assert_array_equal(getattr(first, name), getattr(alone, name))


@pytest.mark.parametrize("kind", KINDS)
def test_single_precision(kind: str) -> None:
    case = case_of(kind)
    _, _, _, _, q0 = dense_drops(case, None)
    single, double = (results_of(case, found_in(case, dtype), q0) for dtype in (np.float32, np.float64))
    np.testing.assert_allclose(single.second.mlog10p, double.second.mlog10p, atol=2e-4)
    np.testing.assert_allclose(single.joint.mlog10p, double.joint.mlog10p, atol=2e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_second_columns_that_add_nothing(kind: str, dtype: type[np.floating]) -> None:
    """A multiple of the variant, a combination of it and a covariate, and one that is constant; not a near one."""
    case = case_of(kind)
    G = case.variants[:, :4] - case.variants[:, :4].mean(axis=0)
    free = case.X[:, 1] - case.X[:, 1].mean() if case.X.shape[1] else np.zeros(N)
    H = np.column_stack([3 * G[:, 0], 1e3 * G[:, 1] + free, np.zeros(N), G[:, 3] + 0.01 * E * G[:, 3]])
    scanner = case.model.scanner(dtype)
    found = second_statistics(scanner, *(np.asarray(one, scanner.dtype) for one in (G, H, basis_of_covariates(case.X))))
    np.testing.assert_array_equal(found.identifiable, [False, False, False, True])


def test_a_trait_seen_only_where_the_covariate_is_constant() -> None:
    """Its effect of the interaction is that of the variant: nothing is tested, in either precision."""
    case: Any = case_of("missing")
    sex = np.isfinite(case.data.Y[:, 0]).astype(float)
    G = case.variants - case.variants.mean(axis=0)
    H = G * (sex - sex.mean())[:, None]
    for dtype in (np.float32, np.float64):
        scanner = case.model.scanner(dtype)
        found = second_statistics(scanner, G, H, basis_of_covariates(case.X))
        assert not found.identifiable.any()


@pytest.mark.parametrize("conditioned", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_largest_statistics_of_simulated_traits(kind: str, conditioned: bool) -> None:
    """Of every data set those of dense least squares of its traits."""
    case, number = case_of(kind), 3
    p, axes = case.data.Y.shape[1], case.model.summary.axes
    given = E[:, None] if conditioned else None
    errors = np.concatenate(list(normal_errors(4, number, N, p)), axis=2)
    added = None if given is None else given_variants(case.model, given, case.X)
    simulated = simulated_normal(case.model, [errors], added, np.float64)
    statistics = found_in(case, given=given)
    u, u_second = (
        np.einsum("nb,njk->bjk", columns_of, simulated.scores) for columns_of in (columns(case)[0], statistics.H)
    )
    context = context_of(case, 1.0)
    found = largest_of_second(simulated, u, u_second, statistics, context)
    turn = linalg.polar(axes.T)[0]
    traits = np.einsum("tj,njk->ntk", axes.Tinv, case.model.colour(np.einsum("jt,ntk->njk", turn, errors)))
    for k in range(number):
        Y = np.where(np.isnan(case.data.Y), np.nan, traits[:, :, k])
        first, both, _, _, q0 = dense_drops(replace(case, data=replace(case.data, Y=Y)), given)
        second = context.result(((both - first) / (q0 - both)).max(), p, 2 * p).mlog10p
        joint = context.result((both / (q0 - both)).max(), 2 * p, 2 * p).mlog10p
        np.testing.assert_allclose([found[0][k], found[1][k]], [second, joint], rtol=1e-7)
