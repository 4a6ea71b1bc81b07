"""Tests of sets of variants against the n·p × n·p matrices, closed forms and simulation."""

from dataclasses import replace

import mpmath
import numpy as np
import pytest
from scipy import stats
from set_oracle import Case, cancel, case, complete_scanner, direction_kernel, scores_of_all

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.contrasts import rotate_traits
from kron2sum_cli.model.hypotheses import reduction
from kron2sum_cli.model.likelihood import evaluate
from kron2sum_cli.model.sets.fixed_effects import SetScores, reduce_set
from kron2sum_cli.model.sets.kernel_tests import (
    acat_weights,
    any_effect_kernel,
    beta_weights,
    cauchy_mlog10p,
    information_of_variants,
    kernel_scores,
    null_weights,
    skat,
)
from kron2sum_cli.model.sets.quadratic_forms import mixture_mlog10p
from kron2sum_cli.model.spectrum import spectrum_of_features
from kron2sum_cli.model.tail_probability import chi2_mlog10p
from kron2sum_cli.model.trait_axes import axes_of_covariances

CASES = [
    pytest.param({"seed": 1}, id="complete"),
    pytest.param({"seed": 2, "r": 20}, id="boundary of GGᵀ"),
    pytest.param({"seed": 3, "p": 1, "s": 4}, id="one trait"),
    pytest.param({"seed": 4, "p": 4, "s": 15, "frequency": 0.03}, id="rare"),
    pytest.param({"seed": 5, "share": 0.3}, id="missing"),
    pytest.param({"seed": 6, "share": 0.2, "r": 20, "s": 8}, id="missing, boundary of GGᵀ"),
]


def kernels(one: Case, g: float) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Root along the axes and root in the coordinates of the traits."""
    p = len(one.dense.C0)
    T = one.axes.T
    return {
        "any": (any_effect_kernel(one.axes, g), np.linalg.cholesky(g * one.dense.C0 + one.dense.C1)),
        "common": (direction_kernel(T, np.ones(p)), np.ones((p, 1))),
        "one trait": (direction_kernel(T, np.eye(p)[0]), np.eye(p)[:, :1]),
        "free": (T @ np.diag(np.arange(1.0, p + 1)), np.diag(np.arange(1.0, p + 1))),
    }


@pytest.mark.parametrize("arguments", CASES)
def test_statistic_and_eigenvalues_equal_the_dense_form(arguments: dict[str, float]) -> None:
    one = case(**arguments)
    weights = np.random.default_rng(0).uniform(0.5, 2, size=one.S.shape[1])
    values, vectors = np.linalg.eigh(one.dense.Q)
    root_of_Q = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    for F, L in kernels(one, 0.8).values():
        columns = one.columns(L, weights)
        found = kernel_scores(one.scores, F, weights)
        score = columns.T @ one.dense.Q @ one.dense.y
        assert np.sum(found.z**2) == pytest.approx(score @ score, rel=1e-10)
        dense = np.linalg.eigvalsh(root_of_Q @ columns @ columns.T @ root_of_Q)[::-1][: columns.shape[1]]
        lam = np.sort(null_weights(found.blocks)[0])[::-1]
        np.testing.assert_allclose(lam, dense, rtol=0, atol=1e-11 * dense[0])


def test_one_variant_is_the_score_test_and_one_trait_a_chi_square() -> None:
    one = case(7, p=3, s=1)
    F = any_effect_kernel(one.axes, 0.8)
    u, v, phi = one.scores.u[0], one.scores.V[:, 0, 0], np.diag(F) ** 2
    found = skat(kernel_scores(one.scores, F, np.ones(1)))
    assert found == pytest.approx(mixture_mlog10p((phi * v)[None], np.array([np.sum(phi * u**2)]))[0])
    for direction in (np.ones(3), np.eye(3)[1]):
        tested = skat(kernel_scores(one.scores, direction_kernel(one.axes.T, direction), np.ones(1)))
        chisq = reduction(u[None], v[None], direction[:, None], one.axes.T)
        assert tested == pytest.approx(chi2_mlog10p(chisq, 1)[0], rel=1e-9)
    single = case(8, p=1, s=1)
    tested = skat(kernel_scores(single.scores, any_effect_kernel(single.axes, 1.0), np.array([3.0])))
    chisq = single.scores.u[0, 0] ** 2 / single.scores.V[0, 0, 0]
    assert tested == pytest.approx(chi2_mlog10p(chisq, 1), rel=1e-9)


def mixed(one: Case, M: np.ndarray) -> tuple[SetScores, np.ndarray]:
    """The scores and the kernel root of the same set after a mixture ``Y M`` of the traits."""
    dense = replace(one.dense, Y=one.dense.Y @ M, C0=M.T @ one.dense.C0 @ M, C1=M.T @ one.dense.C1 @ M)
    data = rotate_traits(spectrum_of_features(np.linalg.cholesky(one.dense.R), dense.X), dense.Y)
    axes = axes_of_covariances(dense.C0, dense.C1, data.mean_eigenvalue)
    return scores_of_all(complete_scanner(evaluate(data, axes, True), dense.X), one.S), any_effect_kernel(axes, 0.8)


@pytest.mark.parametrize("seed", range(3))
def test_mixtures_of_the_traits_leave_any_effect(seed: int) -> None:
    one = case(seed, p=3)
    M = np.random.default_rng(seed).normal(size=(3, 3)) * [1e3, 1.0, 1e-2]
    scores, F = mixed(one, M)
    plain = skat(kernel_scores(one.scores, any_effect_kernel(one.axes, 0.8), np.ones(6)))
    found = skat(kernel_scores(scores, F, np.ones(6)))
    assert found == pytest.approx(plain, rel=1e-8)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_the_null_distribution_is_that_of_simulated_scores(share: float) -> None:
    one = case(11, share=share, s=5)
    F = any_effect_kernel(one.axes, 0.8)
    kernel = kernel_scores(one.scores, F, np.array([1.0, 2.0, 0.5, 1.0, 1.0]))
    rng = np.random.default_rng(0)
    roots = [np.linalg.cholesky(block) for block in kernel.blocks]
    drawn = sum(np.sum((rng.normal(size=(100_000, len(L))) @ L.T) ** 2, axis=1) for L in roots)
    lam = null_weights(kernel.blocks)
    for level in (0.5, 0.05, 0.01, 1e-3):
        q = np.quantile(drawn, 1 - level)
        p = 10 ** -mixture_mlog10p(lam, np.array([q]))[0]
        assert abs(p - level) < 4.5 * np.sqrt(level / drawn.size)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_a_burden_is_the_variant_of_the_weighted_sum(share: float) -> None:
    one = case(12, share=share)
    weights = np.arange(1.0, 7)
    M1 = one.columns(np.eye(3), np.ones(6)) @ np.kron(np.eye(3), weights[:, None])
    u = M1.T @ one.dense.Q @ one.dense.y
    expected = u @ np.linalg.solve(M1.T @ one.dense.Q @ M1, u)
    found = reduce_set(one.sum_scores(weights), np.eye(3), one.axes.T)
    assert found.rank == 3
    assert found.chisq == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_variants_that_cancel_leave_the_burden_of_the_others(share: float) -> None:
    """However much larger their weights are, as those of rare variants by beta:1,25."""
    one = case(12, share=share, s=3)
    one.S[:] -= one.S.mean(axis=0)  # as a scan does
    one.S[:, 1] = -one.S[:, 0]
    u, V = one.dense.statistics(one.S[:, 2])
    for weight in (1.0, 1e3, 1e5):
        found = reduce_set(one.sum_scores(np.array([weight, weight, 1.0])), np.eye(3), one.axes.T)
        assert found.rank == 3
        assert found.chisq == pytest.approx(u @ np.linalg.solve(V, u), rel=1e-8)
    assert reduce_set(one.sum_scores(np.array([1.0, 1.0, 0.0])), np.eye(3), one.axes.T).rank == 0


def test_alleles_that_exclude_each_other_leave_the_burden_of_the_others_in_single_precision() -> None:
    one = case(12, s=4, dtype=np.float32)
    cancel(one.S)
    u, V = one.dense.statistics(one.S[:, 3])
    for weight in (1.0, 1e3, 1e5, 1e7):
        found = reduce_set(one.sum_scores(np.array([weight, weight, weight, 1.0])), np.eye(3), one.axes.T)
        assert found.rank == 3
        assert found.chisq == pytest.approx(u @ np.linalg.solve(V, u), rel=1e-4)
    assert reduce_set(one.sum_scores(np.array([1.0, 1.0, 1.0, 0.0])), np.eye(3), one.axes.T).rank == 0


@pytest.mark.parametrize("leaves", [1e-4, 1.5e-4, 2e-4])
def test_effects_that_others_explain_count_once_though_some_of_these_are_nearly_dependent(leaves: float) -> None:
    """As those of two alleles under a trait design: rounding over the little that they leave counted as one more."""
    for seed in range(40):
        columns = np.random.default_rng(seed).normal(size=(30, 3, 2))
        first, second, third = columns[:, 0].sum(axis=1), columns[:, 1, 0], columns[:, 2].sum(axis=1)
        columns[:, 1, 1] = -(first + 0.5 * second + leaves * third) / 0.5
        V = np.einsum("nja,nlb->jlab", columns, columns)
        scores = SetScores(np.einsum("nja,n->aj", columns, columns[:, 0, 0]), V, np.einsum("jjaa->ja", V))
        found = reduce_set(scores, np.eye(3), np.eye(3))
        assert found.rank == 5
        assert found.chisq == pytest.approx(columns[:, 0, 0] @ columns[:, 0, 0], rel=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_variants_by_themselves(share: float) -> None:
    one = case(13, share=share)
    chisq = reduction(one.scores.u, information_of_variants(one.scores), np.eye(3), one.axes.T)
    for k in range(6):
        u, V = one.dense.statistics(one.S[:, k])
        assert chisq[k] == pytest.approx(u @ np.linalg.solve(V, u), rel=1e-9)


def test_a_set_without_variation_is_refused() -> None:
    scores = SetScores(np.zeros((2, 3)), np.zeros((3, 2, 2)), np.zeros((3, 2)))
    with pytest.raises(NumericalError, match="have no variance"):
        skat(kernel_scores(scores, np.eye(3), np.ones(2)))


def test_repeated_variants_count_as_one_of_greater_weight() -> None:
    one = case(14, s=2)
    twice = SetScores(
        one.scores.u[[0, 0, 1]], one.scores.V[:, [0, 0, 1]][:, :, [0, 0, 1]], one.scores.sizes[:, [0, 0, 1]]
    )
    F = any_effect_kernel(one.axes, 0.8)
    expected = skat(kernel_scores(one.scores, F, np.array([np.sqrt(2), 1.0])))
    assert skat(kernel_scores(twice, F, np.ones(3))) == pytest.approx(expected, rel=1e-9)


def test_weights_of_frequencies() -> None:
    eaf = np.array([0.001, 0.3, 0.5, 0.9])
    np.testing.assert_array_equal(beta_weights(eaf, 1, 1), 1.0)
    np.testing.assert_allclose(beta_weights(eaf, 1, 25), stats.beta.pdf(np.minimum(eaf, 1 - eaf), 1, 25), rtol=1e-12)
    np.testing.assert_allclose(acat_weights(np.full(4, 2.0), eaf), 4 * eaf * (1 - eaf))


def exact_cauchy(mlog10p: np.ndarray, weights: np.ndarray) -> mpmath.mpf:
    with mpmath.workdps(2000):
        total = mpmath.mpf(0)
        for m, w in zip(mlog10p, weights / weights.sum(), strict=True):
            total += mpmath.mpf(float(w)) * mpmath.cot(mpmath.pi * mpmath.power(10, -mpmath.mpf(float(m))))
        angle = mpmath.atan(1 / total) if total > 0 else mpmath.pi + mpmath.atan(1 / total)
        return -mpmath.log10(angle / mpmath.pi)


@pytest.mark.parametrize(
    "mlog10p",
    [[0.3], [1.0, 2.0, 0.01], [0.001, 0.002], [320.0, 0.5, 1.0], [1500.0, 1499.9, 1e-9], [1e-12, 0.2], [5.0, 1e-7]],
)
def test_cauchy_combination(mlog10p: list[float]) -> None:
    values = np.array(mlog10p)
    weights = np.arange(1.0, values.size + 1)
    assert cauchy_mlog10p(values, weights) == pytest.approx(float(exact_cauchy(values, weights)), rel=1e-10, abs=1e-300)


def test_cauchy_of_one_p_value_and_of_equal_ones_is_that_value() -> None:
    for m in (1e-10, 0.1, np.log10(2), 3.0, 400.0, 1e5):
        assert cauchy_mlog10p(np.array([m])) == pytest.approx(m, rel=1e-12)
        assert cauchy_mlog10p(np.full(7, m)) == pytest.approx(m, rel=1e-12)


def test_cauchy_with_a_p_value_of_1_is_bonferroni() -> None:
    assert cauchy_mlog10p(np.array([0.0, 5.0])) == pytest.approx(5 - np.log10(2))
    assert cauchy_mlog10p(np.array([0.0, 0.1])) == 0.0
    with pytest.raises(NumericalError, match="numbers between 0 and 1"):
        cauchy_mlog10p(np.array([np.nan, 2.0]))
    with pytest.raises(NumericalError, match="one of them with a weight"):
        cauchy_mlog10p(np.array([1.0, 2.0]), np.zeros(2))


def test_weighted_p_values_without_weight_do_not_count() -> None:
    assert cauchy_mlog10p(np.array([2.0, np.inf]), np.array([1.0, 0.0])) == pytest.approx(2.0)


def test_units_of_variants_do_not_change_the_joint_test() -> None:
    one = case(15, s=5)
    sizes = np.array([1e-6, 1.0, 1e6, 1e3, 1e-3])
    scaled = SetScores(
        one.scores.u * sizes[:, None], one.scores.V * np.outer(sizes, sizes), one.scores.sizes * sizes**2
    )
    plain, found = (reduce_set(scores, np.eye(3), one.axes.T) for scores in (one.scores, scaled))
    assert found.rank == plain.rank == 15
    assert found.chisq == pytest.approx(plain.chisq, rel=1e-9)
