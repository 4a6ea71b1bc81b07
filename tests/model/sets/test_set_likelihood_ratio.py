"""mtSet's likelihood ratio against the density of all cells, many starts of a general optimiser, and known tails."""

import numpy as np
import pytest
from scipy import optimize, stats
from scipy.linalg import null_space
from set_oracle import Case, case

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.hypotheses import named_hypothesis
from kron2sum_cli.model.sets.kernel_tests import KernelScores, directions_of, kernel_scores
from kron2sum_cli.model.sets.likelihood_ratio import (
    NullTail,
    _climb,
    _Problem,
    _scaled,
    _simulate,
    fit_tail,
    likelihood_ratio_test,
    maximise,
)
from kron2sum_cli.model.spectrum import Array


def problem_of(kernel: KernelScores, z: Array) -> _Problem:
    """The likelihood ratio of replicates z (r, p, s)."""
    p, s = kernel.z.shape
    if kernel.A.ndim == 3:
        return _Problem(z[:, None], kernel.A.reshape(1, p, s * s), np.arange(p), np.arange(p))
    first, second = np.divmod(np.arange(p * p), p)
    return _Problem(z[:, None], kernel.A.reshape(1, p * p, s * s), first, second)


def dense_ratio(one: Case, C_r: Array, weights: Array) -> float:
    """Twice the difference of the log densities of the contrasts without fixed effects."""
    N = null_space(one.dense.M.T)
    SW = one.S * weights
    more = one.dense.part(C_r, SW @ SW.T)
    null = stats.multivariate_normal(cov=N.T @ one.dense.K @ N).logpdf(N.T @ one.dense.y)
    full = stats.multivariate_normal(cov=N.T @ (one.dense.K + more) @ N).logpdf(N.T @ one.dense.y)
    return float(2 * (full - null))


@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_ratio_is_that_of_the_densities_of_all_cells(share: float, rank: int) -> None:
    one = case(21, share=share, s=4)
    weights = np.array([1.0, 0.5, 2.0, 1.0])
    kernel = kernel_scores(one.scores, np.eye(3), weights)
    F = np.random.default_rng(rank).normal(size=(3, rank)) * 0.4
    L = one.axes.Tinv @ F
    found, _ = problem_of(kernel, kernel.z[None]).value_and_gradient(F[None])
    assert found[0] == pytest.approx(dense_ratio(one, L @ L.T, weights), rel=1e-9, abs=1e-8)


@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize("name", ["common", "only:b", "trait:b"])
def test_the_ratio_of_one_direction_is_that_of_the_densities_given_the_others(name: str, share: float) -> None:
    """A scale of the kernel of the traits beside fixed effects of the set along the other directions."""
    one, tested = case(29, share=share, s=4), named_hypothesis(name, ("a", "b", "c"))
    weights = np.array([1.0, 0.5, 2.0, 1.0])
    kernel = directions_of(one.scores, tested, one.axes, 1.0).scores(one.scores, weights)
    found = likelihood_ratio_test(kernel, np.random.default_rng(0))
    direction = np.ones(3) if name == "common" else np.array([0.0, 1.0, 0.0])
    fixed = np.hstack([one.dense.M, np.kron(tested.base, one.S)[one.dense.seen]])
    N, SW = null_space(fixed.T), one.S * weights
    more = one.dense.part(np.outer(direction, direction), SW @ SW.T)

    def log_density(variance: float) -> float:
        covariance = N.T @ (one.dense.K + variance * more) @ N
        return float(stats.multivariate_normal(cov=covariance).logpdf(N.T @ one.dense.y))

    sizes = np.concatenate([[0.0], np.geomspace(1e-5, 10, 60)])
    best = sizes[int(np.argmax([log_density(size) for size in sizes]))]
    exact = optimize.minimize_scalar(lambda x: -log_density(x), bounds=(best / 2, best * 2 + 1e-9), method="bounded")
    assert found.lr == pytest.approx(2 * (max(-exact.fun, log_density(0.0)) - log_density(0.0)), abs=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize("rank", [1, 3])
def test_its_gradient(share: float, rank: int) -> None:
    one = case(22, share=share, s=4)
    kernel, _ = _scaled(kernel_scores(one.scores, np.eye(3), np.ones(4)))
    problem = problem_of(kernel, kernel.z[None])
    x = np.random.default_rng(1).normal(size=3 * rank)
    slope = optimize.approx_fprime(x, lambda v: float(problem.value_and_gradient(v.reshape(1, 3, rank))[0][0]), 1e-6)
    np.testing.assert_allclose(problem.value_and_gradient(x.reshape(1, 3, rank))[1].ravel(), slope, atol=2e-4)


@pytest.mark.parametrize(("share", "rank"), [(0.0, 1), (0.0, 3), (0.3, 1)])
def test_no_start_of_a_general_optimiser_ends_higher(share: float, rank: int) -> None:
    one = case(23, share=share, s=6)
    kernel, _ = _scaled(kernel_scores(one.scores, np.eye(3), np.ones(6)))
    rng = np.random.default_rng(3)
    z = _simulate(kernel, rng, 12) * np.repeat([1.0, 2.5], 6)[:, None, None]
    found, F = maximise(kernel, z, rank)
    for k in range(12):
        problem = problem_of(kernel, z[k : k + 1])

        def minus(x: Array, problem: _Problem = problem) -> tuple[float, Array]:
            value, gradient = problem.value_and_gradient(x.reshape(1, 3, rank))
            return -float(value[0]), -gradient.ravel()

        starts = rng.normal(size=(8, 3 * rank)) * 10 ** rng.uniform(-1, 1, size=(8, 1))
        best = max(-optimize.minimize(minus, x, jac=True, method="BFGS").fun for x in starts)
        assert found[k] > best - 1e-5
        assert found[k] == pytest.approx(max(0.0, -minus(F[k].ravel())[0]), abs=2e-6)


def test_a_climb_does_not_leap_to_where_matrices_are_singular() -> None:
    """Inverse Hessians may be far too large where the ratio hardly curves, and variants may be the same."""
    rng = np.random.default_rng(30)
    S = rng.normal(size=(20, 3))[:, [0, 0, 1, 2]]
    kernel, _ = _scaled(KernelScores(np.zeros((2, 4)), np.stack([S.T @ S, 2 * S.T @ S])))
    problem = problem_of(kernel, _simulate(kernel, rng, 100))
    F, H = np.full((100, 2, 1), 0.3), np.tile(0.1 * np.eye(2), (100, 1, 1))
    near, far = (_climb(problem, F, scale * H)[0] for scale in (1, 1e12))
    assert np.mean(np.abs(far - near) < 1e-5) > 0.9  # some end at the other of two maxima


def test_fitted_covariance_of_a_set_is_in_the_units_of_the_traits() -> None:
    one = case(24, s=4)
    kernel = kernel_scores(one.scores, np.eye(3), np.full(4, 3.0))
    kernel = KernelScores(kernel.z * 2.5, kernel.A)
    found = likelihood_ratio_test(kernel, np.random.default_rng(0))
    assert found.lr > 0
    C_r = one.axes.Tinv @ found.F @ found.F.T @ one.axes.Tinv.T
    assert np.linalg.matrix_rank(C_r, tol=1e-8 * np.trace(C_r)) == 1
    value, _ = problem_of(kernel, kernel.z[None]).value_and_gradient(found.F[None])
    assert value[0] == pytest.approx(found.lr, rel=1e-9)


def test_simulated_scores_have_the_null_covariance() -> None:
    one = case(25, share=0.3, s=3)
    kernel = kernel_scores(one.scores, np.eye(3), np.ones(3))
    drawn = _simulate(kernel, np.random.default_rng(4), 200_000).reshape(200_000, -1)
    np.testing.assert_allclose(np.cov(drawn.T), kernel.blocks[0], atol=0.02 * np.max(kernel.blocks))


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_p_values_under_the_null_model_are_uniform(share: float) -> None:
    """New draws against the null distribution of others, in its body and in its fitted tail."""
    one = case(26, share=share, s=5)
    kernel, _ = _scaled(kernel_scores(one.scores, np.eye(3), np.ones(5)))
    rng = np.random.default_rng(5)
    tail = fit_tail(maximise(kernel, _simulate(kernel, rng, 4000), 1)[0])
    new = maximise(kernel, _simulate(kernel, rng, 20_000), 1)[0]
    p = 10 ** -np.array([tail.mlog10p(float(lr)) for lr in new])
    for level in (0.3, 0.1, 0.05, 0.01, 0.001):
        sd = np.sqrt(level / 20_000 + (level / 4000 if level > 1e-3 else 5 * level / 4000))
        assert abs(np.mean(p <= level) - level) < 4.5 * sd


def test_a_tail_of_a_known_mixture_is_found() -> None:
    rng = np.random.default_rng(6)
    values = np.where(rng.random(100_000) < 0.3, 0.0, 0.8 * rng.chisquare(2.5, size=100_000))
    tail = fit_tail(values)
    assert tail.positive == pytest.approx(0.7, abs=0.01)
    for x in (10.0, 30.0, 60.0):
        assert tail.mlog10p(x) == pytest.approx(-np.log10(0.7 * stats.chi2(2.5).sf(x / 0.8)), rel=0.06)
    assert tail.mlog10p(0.0) == 0
    assert tail.mlog10p(1e4) > 1000
    assert tail.mlog10p(1.0) == pytest.approx(-np.log10(0.7 * stats.chi2(2.5).sf(1.25)), abs=0.02)


def test_small_p_values_come_from_more_simulated_values() -> None:
    """Of one variant and trait the ratio is ``x - 1 - log x`` of the score test's x > 1, so that both have one P."""
    found = {}
    for mlog10p, replicates in ((0.52, 200), (1.0, 1000), (4.0, 10_000)):
        x = stats.chi2.isf(10**-mlog10p, 1)
        kernel = KernelScores(np.full((1, 1), np.sqrt(x)), np.ones((1, 1, 1)))
        tests = [likelihood_ratio_test(kernel, np.random.default_rng(seed)) for seed in range(20)]
        np.testing.assert_allclose([each.lr for each in tests], x - 1 - np.log(x), rtol=1e-6)
        assert {each.replicates for each in tests} == {replicates}
        found[mlog10p] = np.array([each.mlog10p for each in tests])
    assert abs(found[1.0].mean() - 1) < 0.05
    assert abs(found[4.0].mean() - 4) < 0.1
    assert found[4.0].std() < 0.2


def test_large_p_values_are_right_though_they_come_from_few_simulated_values() -> None:
    """Each against the share of 8000 other simulated values, whose error is a sixth of that of 200."""
    one = case(29, s=5)
    kernel, _ = _scaled(kernel_scores(one.scores, np.eye(3), np.ones(5)))
    rng = np.random.default_rng(7)
    many = maximise(kernel, _simulate(kernel, rng, 8000), 1)[0]
    z = _simulate(kernel, rng, 120)
    p = np.mean(many >= maximise(kernel, z, 1)[0][:, None], axis=1)
    tests = [likelihood_ratio_test(KernelScores(z[k], kernel.A), rng) for k in np.flatnonzero(p > 0.05)]
    assert all((each.lr == 0) == (each.replicates == 0) == (each.mlog10p == 0) for each in tests)
    p, simulated = p[p > 0.05], np.array([each.replicates for each in tests])
    found = 10.0 ** -np.array([each.mlog10p for each in tests])
    np.testing.assert_array_equal(found[simulated == 0], p[simulated == 0])
    assert set(simulated) == {0, 200, 1000}
    p, found, simulated = (values[simulated > 0] for values in (p, found, simulated))
    errors = (found - p) / np.sqrt(p * (1 - p) * (1 / simulated + 1 / 8000))
    assert np.abs(errors).max() < 4.5
    assert abs(errors.mean()) < 4.5 / np.sqrt(errors.size)  # (k + 1) / (r + 1) alone makes it 0.1


def test_the_seed_is_all_that_the_p_value_depends_on_beside_the_scores() -> None:
    one = case(27, s=4)
    kernel = kernel_scores(one.scores, np.eye(3), np.ones(4))
    first, second = (likelihood_ratio_test(kernel, np.random.default_rng(9)) for _ in range(2))
    assert first.lr == second.lr and first.mlog10p == second.mlog10p


def test_units_of_the_scores_do_not_matter() -> None:
    one = case(28, s=4)
    kernel = kernel_scores(one.scores, np.eye(3), np.ones(4))
    plain = likelihood_ratio_test(kernel, np.random.default_rng(9))
    other = likelihood_ratio_test(KernelScores(kernel.z * 1e4, kernel.A * 1e8), np.random.default_rng(9))
    assert other.lr == pytest.approx(plain.lr, rel=1e-6, abs=1e-6)
    np.testing.assert_allclose(np.abs(other.F), np.abs(plain.F) / 1e4, rtol=1e-3, atol=1e-9)


def test_a_set_without_information_gives_no_tail() -> None:
    with pytest.raises(NumericalError, match="have no variance"):
        likelihood_ratio_test(KernelScores(np.zeros((2, 3)), np.zeros((2, 3, 3))), np.random.default_rng(0))
    with pytest.raises(NumericalError, match="fewer than 10 of 1000"):
        fit_tail(np.zeros(1000))
    assert NullTail(np.zeros(10), 0.5, 1.0, 1.0).mlog10p(-1.0) == 0
