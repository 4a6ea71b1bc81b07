"""SKAT-O against integrals over the sphere, simulation and limits that are known."""

import numpy as np
import pytest
from set_oracle import case, direction_kernel

from kron2sum_cli.model.kernel_tests import KernelScores, any_effect_kernel, kernel_scores, skat
from kron2sum_cli.model.quadratic_forms import mixture_mlog10p, mixture_quantile
from kron2sum_cli.model.skato import GRID, _segments, grid_weights, skato
from kron2sum_cli.model.spectrum import Array

RHO = np.array(GRID)


def of_rho(A: Array, rho: float) -> Array:
    """Eigenvalues for one ρ, from the nonsymmetric product."""
    s = A.shape[-1]
    R = (1 - rho) * np.eye(s) + rho * np.ones((s, s))
    return np.sort(np.linalg.eigvals(R @ A).real.reshape(-1))


def smallest(kernel: KernelScores) -> tuple[float, Array]:
    """-log10 of the smallest P value over the grid, and the quantiles of every Q_ρ there."""
    of_squares, of_sums = np.sum(kernel.z**2), np.sum(kernel.z.sum(axis=1) ** 2)
    weights = np.array([np.maximum(of_rho(kernel.A, rho), 0) for rho in GRID])
    best = np.max(mixture_mlog10p(weights, (1 - RHO) * of_squares + RHO * of_sums))
    return float(best), mixture_quantile(weights, -best * np.log(10))


def wishart(seed: int, e: int, s: int, spread: float = 0.3) -> Array:
    rng = np.random.default_rng(seed)
    S = rng.binomial(2, rng.uniform(0.02, 0.4, size=s), size=(200, s)) - 0.3
    return np.stack([(S * rng.uniform(1 - spread, 1 + spread, size=(200, 1))).T @ S for _ in range(e)])


@pytest.mark.parametrize(("e", "s"), [(1, 1), (1, 2), (2, 3), (4, 30)])
def test_the_weights_of_every_rho_are_those_of_its_kernel(e: int, s: int) -> None:
    A = wishart(3 * e + s, e, s)
    found = grid_weights(KernelScores(np.ones((e, s)), A))
    for rho, weights in zip(GRID, found, strict=True):
        np.testing.assert_allclose(np.sort(weights), np.maximum(of_rho(A, rho), 0), atol=1e-12 * weights.max())


@pytest.mark.parametrize("size", [0.5, 1.0, 2.0, 5.0, 15.0])
@pytest.mark.parametrize("z", [[1.0, 1.0], [1.0, -1.0], [1.5, 0.1]])
@pytest.mark.parametrize("weight", [1.0, 1e-3, 1e-5])
def test_two_variants_against_the_integral_over_the_circle(size: float, z: list[float], weight: float) -> None:
    """The region without rejection is star-shaped: P is the mean of exp(-r²/2) over the directions of its edge.

    Common variants have such a small weight of Beta(1, 25) beside a rare one.
    """
    weights = np.array([1.0, weight])
    A = np.array([[[9.0, 3.0], [3.0, 4.0]]]) * np.outer(weights, weights)
    kernel = KernelScores(size * np.array([z]) * [3, 2] * weights, A)
    mlog10p, q = smallest(kernel)
    angle = (np.arange(2_000_000) + 0.5) * (np.pi / 2_000_000)
    drawn = np.linalg.cholesky(A[0]) @ np.array([np.cos(angle), np.sin(angle)])
    of_squares, of_sums = np.sum(drawn**2, axis=0), np.sum(drawn, axis=0) ** 2
    edge = np.min([q[k] / ((1 - rho) * of_squares + rho * of_sums) for k, rho in enumerate(GRID)], axis=0)
    nearest = np.min(edge)
    expected = (nearest / 2 - np.log(np.mean(np.exp((nearest - edge) / 2)))) / np.log(10)
    found = skato(kernel).mlog10p
    assert abs(found - expected) < 1e-8 * max(1.0, found)
    assert mlog10p - np.log10(len(GRID)) < found < mlog10p


@pytest.mark.parametrize("size", [1.0, 2.0, 4.0])
def test_two_variants_and_two_directions_against_the_integral_over_the_sphere(size: float) -> None:
    A = np.array([[[9.0, 3.0], [3.0, 4.0]], [[5.0, 3.0], [3.0, 6.0]]])
    kernel = KernelScores(size * np.array([[2.0, 1.0], [2.0, -1.0]]), A)
    _, q = smallest(kernel)
    around = (np.arange(120) + 0.5) * (np.pi / 120)
    x, w = np.polynomial.legendre.leggauss(160)
    psi, w = (x + 1) * np.pi / 4, w * np.pi / 4 * np.sin((x + 1) * np.pi / 2)
    of_squares, of_sums = [], []
    for block in A:
        drawn = np.linalg.cholesky(block) @ np.array([np.cos(around), np.sin(around)])
        of_squares.append(np.sum(drawn**2, axis=0))
        of_sums.append(np.sum(drawn, axis=0) ** 2)
    expected = 0.0
    for angle, weight in zip(psi, w, strict=True):
        a, b = np.cos(angle) ** 2, np.sin(angle) ** 2
        squares = a * of_squares[0][:, None] + b * of_squares[1]
        sums = a * of_sums[0][:, None] + b * of_sums[1]
        edge = np.min([q[k] / ((1 - rho) * squares + rho * sums) for k, rho in enumerate(GRID)], axis=0)
        expected += weight * float(np.mean(np.exp(-edge / 2) * (1 + edge / 2)))
    assert skato(kernel).mlog10p == pytest.approx(-np.log10(expected), abs=2e-4)


@pytest.mark.parametrize(("e", "s"), [(1, 12), (2, 6), (4, 20)])
def test_the_null_distribution_is_that_of_simulated_scores(e: int, s: int) -> None:
    A = wishart(e, e, s)
    rng = np.random.default_rng(1)
    L = np.linalg.cholesky(A)
    drawn = np.einsum("kab,ikb->ika", L, rng.normal(size=(100_000, e, s)))
    of_squares, of_sums = np.sum(drawn**2, axis=(1, 2)), np.sum(np.sum(drawn, axis=2) ** 2, axis=1)
    for size in (1.0, 1.4, 1.7):
        kernel = KernelScores(size * np.einsum("kab,kb->ka", L, rng.normal(size=(e, s))), A)
        _, q = smallest(kernel)
        share = np.mean(np.any((1 - RHO) * of_squares[:, None] + RHO * of_sums[:, None] > q, axis=1))
        p = 10 ** -skato(kernel).mlog10p
        assert abs(p - share) < 4.5 * np.sqrt(max(p * (1 - p), 1e-5) / drawn.shape[0])


@pytest.mark.parametrize("e", [1, 3])
def test_nodes_close_to_the_limit_are_those_of_one_rule(e: int, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = np.array([1.0, 0.03, 0.01, 0.02])
    A = wishart(7, e, 4) * np.outer(weights, weights)
    for size in (1.0, 3.0):
        kernel = KernelScores(size * np.sqrt(np.einsum("kaa->ka", A)) * [1.0, -1.0, 0.3, 2.0], A)
        found = []
        for most in (10, 100_000):
            monkeypatch.setattr("kron2sum_cli.model.skato.MOST_NODES", most)
            found.append(skato(kernel).mlog10p)
        assert found[0] == pytest.approx(found[1], rel=1e-9)


def test_missing_cells_couple_the_directions() -> None:
    """Correlated directions, against simulation, and independent ones written as if they were correlated."""
    one = case(3, share=0.3, s=5)
    kernel = kernel_scores(one.scores, any_effect_kernel(one.axes, 0.8), np.ones(5))
    assert not kernel.independent
    rng = np.random.default_rng(2)
    drawn = (rng.normal(size=(100_000, 15)) @ np.linalg.cholesky(kernel.blocks[0]).T).reshape(-1, 3, 5)
    of_squares, of_sums = np.sum(drawn**2, axis=(1, 2)), np.sum(np.sum(drawn, axis=2) ** 2, axis=1)
    weights = []
    for rho in GRID:
        R = np.kron(np.eye(3), (1 - rho) * np.eye(5) + rho)
        weights.append(np.sort(np.linalg.eigvals(R @ kernel.blocks[0]).real))
    for size in (1.0, 1.6):
        tested = KernelScores(size * drawn[0], kernel.A)
        values = (1 - RHO) * size**2 * of_squares[0] + RHO * size**2 * of_sums[0]
        best = np.max(mixture_mlog10p(np.maximum(weights, 0), values))
        q = mixture_quantile(np.maximum(weights, 0), -best * np.log(10))
        share = np.mean(np.any((1 - RHO) * of_squares[:, None] + RHO * of_sums[:, None] > q, axis=1))
        p = 10 ** -skato(tested).mlog10p
        assert abs(p - share) < 4.5 * np.sqrt(p * (1 - p) / len(drawn))
    A = wishart(1, 2, 4)
    full = np.zeros((2, 2, 4, 4))
    full[[0, 1], [0, 1]] = A
    z = rng.normal(size=(2, 4)) * 10
    assert skato(KernelScores(z, full)).mlog10p == pytest.approx(skato(KernelScores(z, A)).mlog10p, rel=1e-6)


def test_one_variant_leaves_no_choice() -> None:
    one = case(5, s=1)
    for F in (any_effect_kernel(one.axes, 0.8), direction_kernel(one.axes.T, np.ones(3))):
        kernel = kernel_scores(one.scores, F, np.ones(1))
        assert skato(kernel).mlog10p == pytest.approx(skat(kernel).mlog10p, rel=1e-9)


def test_repeated_variants_leave_no_choice() -> None:
    A = np.full((2, 3, 3), 4.0) * np.array([1.0, 0.5])[:, None, None]
    kernel = KernelScores(np.repeat([[3.0], [1.0]], 3, axis=1), A)
    assert skato(kernel).mlog10p == pytest.approx(skat(kernel).mlog10p, rel=1e-9)


def test_sums_without_variance_leave_skat() -> None:
    A = np.array([[[1.0, -1.0], [-1.0, 1.0]]])
    kernel = KernelScores(np.array([[2.0, -2.0]]), A)
    found = skato(kernel)
    assert found.rho == 0
    assert found.mlog10p == pytest.approx(skat(kernel).mlog10p, rel=1e-9)


def test_effects_of_one_sign_choose_the_burden_and_far_tails_do_not_end() -> None:
    A = wishart(2, 2, 10)
    same = KernelScores(np.full((2, 10), 20.0), A)
    assert skato(same).rho == 1
    mlog10p = [skato(KernelScores(size * same.z, A)).mlog10p for size in (1, 2, 5, 10, 30)]
    assert mlog10p[2] > 300 and mlog10p[-1] > 5000
    assert np.all(np.diff(mlog10p) > 0)


def test_the_smaller_of_lines_has_corners() -> None:
    rho, q = np.array([0.0, 0.25, 0.5]), np.array([4.0, 3.3, 3.0])
    pieces = _segments(rho, q, 5.0)
    assert pieces[0][0] == 0 and pieces[-1][1] == 5.0
    for low, high, intercept, slope in pieces:
        for b in np.linspace(low, high, 5):
            assert intercept + slope * b == pytest.approx(np.min((q - rho * b) / (1 - rho)))
    assert [piece[1] for piece in pieces[:-1]] == [piece[0] for piece in pieces[1:]]
