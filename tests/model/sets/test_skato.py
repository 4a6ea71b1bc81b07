"""SKAT-O against integrals over the sphere, simulation and limits that are known."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import special
from set_oracle import case, direction_kernel

from kron2sum_cli.model.sets.kernel_tests import KernelScores, any_effect_kernel, kernel_scores, skat
from kron2sum_cli.model.sets.quadratic_forms import mixture_mlog10p, mixture_quantile
from kron2sum_cli.model.sets.skato import (
    GRID,
    Sums,
    _mean_by_contours,
    _mean_by_series,
    _over_directions,
    _segments,
    grid_weights,
    skato,
    turned_covariance,
)
from kron2sum_cli.model.spectrum import Array

RHO = np.array(GRID)


def of_rho(A: Array, rho: float) -> Array:
    """Eigenvalues for one ρ, from the nonsymmetric product."""
    s = A.shape[-1]
    R = (1 - rho) * np.eye(s) + rho * np.ones((s, s))
    return np.sort(np.linalg.eigvals(R @ A).real.reshape(-1))


def joined(A: Array) -> Array:
    """Covariance (e s, e s) of the scores along all directions."""
    if A.ndim == 3:
        pairs = np.zeros((len(A), *A.shape))
        pairs[np.arange(len(A)), np.arange(len(A))] = A
        A = pairs
    return np.concatenate(np.concatenate(A, axis=1), axis=1).reshape(A.shape[0] * A.shape[2], -1)


def smallest(kernel: KernelScores) -> tuple[float, Array]:
    """-log10 of the smallest P value over the grid, and the quantiles of every Q_ρ there."""
    e, s = kernel.z.shape
    of_squares, of_sums = np.sum(kernel.z**2), np.sum(kernel.z.sum(axis=1) ** 2)
    every = [np.linalg.eigvals(np.kron(np.eye(e), (1 - rho) * np.eye(s) + rho) @ joined(kernel.A)).real for rho in GRID]
    weights = np.maximum(every, 0)
    best = np.max(mixture_mlog10p(weights, (1 - RHO) * of_squares + RHO * of_sums))
    return float(best), mixture_quantile(weights, -best * np.log(10))


def half_sphere(e: int, n: int) -> tuple[Array, Array]:
    """Directions (d, e) of one half of the sphere and their weights, by product rules."""
    angle = (np.arange(2 * n) + 0.5) * (np.pi / (2 * n))
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    if e == 2:
        return circle, np.full(2 * n, 1 / (2 * n))
    x, w = np.polynomial.legendre.leggauss(n)
    if e == 3:
        omega = [np.column_stack([np.sqrt(1 - one**2) * circle, np.full(2 * n, one)]) for one in x]
        return np.concatenate(omega), np.repeat(w / (4 * n), 2 * n)
    first, second = np.repeat(circle[::2], 2 * n, axis=0), np.tile(np.vstack([circle[::2], -circle[::2]]), (n, 1))
    omega = [np.column_stack([np.sqrt((1 + one) / 2) * first, np.sqrt((1 - one) / 2) * second]) for one in x]
    return np.concatenate(omega), np.repeat(w / (4 * n * n), 2 * n * n)


def exact(kernel: KernelScores, n: int, frequencies: int, nodes: int = 10) -> float:
    """P by a product rule for the sums and Davies' sum on the imaginary axis for the tail of Q_S given these."""
    e, s = kernel.z.shape
    mlog10p, q = smallest(kernel)
    V, ones = joined(kernel.A), np.kron(np.eye(e), np.ones((s, 1)))
    root = np.linalg.cholesky(ones.T @ V @ ones)
    C = np.linalg.solve(root, ones.T @ V).T
    lam, turn = np.linalg.eigh(V - C @ C.T)
    lam = np.where(lam > 1e-12 * lam[-1], lam, 0)
    kinks = [0.0, *(piece[1] for piece in _segments(RHO[:-1], q[:-1], float(q[-1])))]
    x, w = np.polynomial.legendre.leggauss(nodes)
    total = 0.0
    for omega, weight in zip(*half_sphere(e, n), strict=True):
        per_square, g = np.sum((root @ omega) ** 2), (turn.T @ C @ omega) ** 2
        R = np.concatenate([a + (b - a) * (1 + x) / 2 for a, b in pairwise(np.sqrt(kinks / per_square))])
        lengths = np.concatenate([(b - a) / 2 * w for a, b in pairwise(np.sqrt(kinks / per_square))])
        density = R ** (e - 1) * np.exp(-(R**2) / 2) * 2 ** (1 - e / 2) / special.gamma(e / 2)
        limit = np.min((q[:-1, None] - RHO[:-1, None] * per_square * R**2) / (1 - RHO[:-1, None]), axis=0)
        # No Q_S comes near the end of the period.
        period = limit[0] + np.sum(lam) + 18 * np.sqrt(2 * np.sum(lam**2)) + 60 * lam[-1]
        period += 2 * np.sum(g) * R[-1] ** 2 + 12 * np.sqrt(4 * np.sum(lam * g)) * R[-1]
        k = np.arange(frequencies) + 0.5
        t = 2j * np.pi * k / period
        left = 1 - 2 * np.outer(t, lam)
        shift = t * np.sum(g / left, axis=1)
        base = -0.5 * np.sum(np.log(left), axis=1)[:, None]
        terms = np.exp(base + np.outer(shift, R**2) - np.outer(t, limit)) / k[:, None]
        assert np.max(np.abs(terms[-1])) < 1e-9
        total += weight * float(lengths * density @ (0.5 + np.sum(terms.imag, axis=0) / np.pi))
    return 10**-mlog10p + total


def wishart(seed: int, e: int, s: int, spread: float = 0.3) -> Array:
    rng = np.random.default_rng(seed)
    S = rng.binomial(2, rng.uniform(0.02, 0.4, size=s), size=(200, s)) - 0.3
    return np.stack([(S * rng.uniform(1 - spread, 1 + spread, size=(200, 1))).T @ S for _ in range(e)])


@pytest.mark.parametrize(("e", "s"), [(1, 1), (1, 2), (2, 3), (4, 30)])
def test_the_weights_of_every_rho_are_those_of_its_kernel(e: int, s: int) -> None:
    A = wishart(3 * e + s, e, s)
    kernel = KernelScores(np.ones((e, s)), A)
    found = grid_weights(turned_covariance(kernel, Sums.of(kernel)), RHO)
    for rho, weights in zip(GRID, found, strict=True):
        np.testing.assert_allclose(np.sort(weights), np.maximum(of_rho(A, rho), 0), atol=1e-12 * weights.max())


@pytest.mark.parametrize("size", [0.02, 0.1, 0.5, 1.0, 2.0, 5.0, 15.0])
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
    points = 50_000 if weight > 1e-4 else 600_000  # the edge has a peak of about this width
    angle = (np.arange(points) + 0.5) * (np.pi / points)
    drawn = np.linalg.cholesky(A[0]) @ np.array([np.cos(angle), np.sin(angle)])
    of_squares, of_sums = np.sum(drawn**2, axis=0), np.sum(drawn, axis=0) ** 2
    edge = np.min([q[k] / ((1 - rho) * of_squares + rho * of_sums) for k, rho in enumerate(GRID)], axis=0)
    nearest = np.min(edge)
    expected = (nearest / 2 - np.log(np.mean(np.exp((nearest - edge) / 2)))) / np.log(10)
    found = skato(kernel)
    assert abs(found - expected) < 1e-8 * max(1.0, found)
    assert mlog10p - np.log10(len(GRID)) < found < mlog10p


@pytest.mark.parametrize("size", [1.0, 2.0, 4.0, 8.0])
def test_two_variants_and_two_directions_against_the_integral_over_the_sphere(size: float) -> None:
    A = np.array([[[9.0, 3.0], [3.0, 4.0]], [[5.0, 3.0], [3.0, 6.0]]])
    kernel = KernelScores(size * np.array([[2.0, 1.0], [2.0, -1.0]]), A)
    _, q = smallest(kernel)
    around = (np.arange(200) + 0.5) * (np.pi / 200)
    x, w = np.polynomial.legendre.leggauss(200)
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
    assert 10 ** -skato(kernel) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("e", "n", "frequencies", "coupled", "size"),
    [
        *((2, 14, 1500, coupled, size) for coupled in (False, True) for size in (0.7, 1.5)),
        *((3, 13, 600, coupled, size) for coupled, size in ((False, 1.5), (True, 0.7))),
        *((4, 8, 400, coupled, size) for coupled, size in ((False, 0.7), (True, 1.5))),
    ],
)
def test_several_directions_against_the_exact_integral(
    e: int, n: int, frequencies: int, coupled: bool, size: float
) -> None:
    """Directions whose scores have other correlations and variances, without and with covariances between them."""
    rng = np.random.default_rng(e)
    A = np.stack([wishart(10 * e + k, 1, 8)[0] for k in range(e)]) * np.linspace(1, 0.5, e)[:, None, None]
    if coupled:
        mixed = 0.2 * rng.normal(size=(e, e)) + np.eye(e)
        A = np.einsum("ik,jk,kab->ijab", mixed, mixed, A)
    z = np.linalg.cholesky(joined(A)) @ rng.normal(size=8 * e)
    kernel = KernelScores(size * z.reshape(e, 8), A)
    assert 10 ** -skato(kernel) == pytest.approx(exact(kernel, n, frequencies), rel=1e-7)


@pytest.mark.parametrize("e", [2, 4, 16])
@pytest.mark.parametrize("turn", [0.0, 0.4, 1.2])
def test_means_over_directions_are_those_of_pairs(e: int, turn: float) -> None:
    """Pairs of directions with one exponent have an elementary mean, a divided difference; two directions, I₀."""
    v = np.repeat(np.linspace(0, 1, e // 2), 2) if e > 2 else np.array([0.0, 1.0])

    def expected(v: np.ndarray) -> complex:
        """Mean of ``exp(Σ_k v_k ω_k²)``."""
        if e == 2:
            return complex(np.exp((v[0] + v[1]) / 2) * special.iv(0, (v[0] - v[1]) / 2))
        each = v[::2]
        apart = np.prod((each[:, None] - each) + np.eye(e // 2), axis=1)
        return complex(special.gamma(e / 2) * np.sum(np.exp(each) / apart))

    for size in (3.0, 10.0, 40.0, 300.0):
        exponents = size * v * np.exp(1j * turn)
        found = _over_directions(np.zeros((1, 1), complex), exponents[None], np.ones(1))[0, 0]
        if e < 16 or size > 5:  # the divided difference cancels
            assert found == pytest.approx(expected(exponents), rel=2e-8 if e < 16 else 1e-5)
        if size < 20:
            by_contours = _mean_by_contours((exponents[-1] - exponents)[None])[0] * np.exp(exponents[-1])
            by_series = _mean_by_series((exponents - exponents.mean())[None], np.ones(1), size)[0, 0]
            assert by_series * np.exp(exponents.mean()) == pytest.approx(by_contours, rel=1e-8)


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
        p = 10 ** -skato(kernel)
        assert abs(p - share) < 4.5 * np.sqrt(max(p * (1 - p), 1e-5) / drawn.shape[0])


@pytest.mark.parametrize("e", [1, 3])
def test_nodes_close_to_the_limit_are_those_of_one_rule(e: int, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = np.array([1.0, 0.03, 0.01, 0.02])
    A = wishart(7, e, 4) * np.outer(weights, weights)
    for size in (1.0, 3.0):
        kernel = KernelScores(size * np.sqrt(np.einsum("kaa->ka", A)) * [1.0, -1.0, 0.3, 2.0], A)
        found = []
        for most in (10, 100_000):
            monkeypatch.setattr("kron2sum_cli.model.sets.skato.MOST_NODES", most)
            found.append(skato(kernel))
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
        p = 10 ** -skato(tested)
        assert abs(p - share) < 4.5 * np.sqrt(p * (1 - p) / len(drawn))
    A = wishart(1, 2, 4)
    full = np.zeros((2, 2, 4, 4))
    full[[0, 1], [0, 1]] = A
    z = rng.normal(size=(2, 4)) * 10
    assert skato(KernelScores(z, full)) == pytest.approx(skato(KernelScores(z, A)), rel=1e-6)


def test_one_variant_leaves_no_choice() -> None:
    one = case(5, s=1)
    for F in (any_effect_kernel(one.axes, 0.8), direction_kernel(one.axes.T, np.ones(3))):
        kernel = kernel_scores(one.scores, F, np.ones(1))
        assert skato(kernel) == pytest.approx(skat(kernel), rel=1e-9)


def test_repeated_variants_leave_no_choice() -> None:
    A = np.full((2, 3, 3), 4.0) * np.array([1.0, 0.5])[:, None, None]
    kernel = KernelScores(np.repeat([[3.0], [1.0]], 3, axis=1), A)
    assert skato(kernel) == pytest.approx(skat(kernel), rel=1e-9)


def test_sums_without_variance_leave_skat() -> None:
    A = np.array([[[1.0, -1.0], [-1.0, 1.0]]])
    kernel = KernelScores(np.array([[2.0, -2.0]]), A)
    assert skato(kernel) == pytest.approx(skat(kernel), rel=1e-9)


@pytest.mark.parametrize("weight", [1e4, 1e6, 1e8, 1e11])
@pytest.mark.parametrize(("e", "coupled"), [(1, False), (2, False), (2, True), (3, True)])
def test_variants_that_cancel_and_one_that_is_all_of_the_sum_are_two_tests(
    e: int, coupled: bool, weight: float
) -> None:
    """All ρ below 1 ask for the former alone, and they are independent: P is 1 - (1 - T)²."""
    A = np.zeros((e, e, 3, 3))
    A[np.arange(e), np.arange(e)] = [[weight**2, -(weight**2), 0.0], [-(weight**2), weight**2, 0.0], [0.0, 0.0, 1.0]]
    cross = np.einsum("ef,a->eaf", np.eye(e), [0.0, 0.0, 1.0])
    for first, last in ((1.5, 0.5), (0.5, 1.5), (2.0, 4.0), (0.1, 0.1)):
        z = np.array([[weight * first, -weight * first, last]] * e)
        kernel = KernelScores(z, A if coupled else A[np.arange(e), np.arange(e)])
        least = special.chdtrc(e, e * max(first, last) ** 2)
        assert 10 ** -skato(kernel, Sums(z[:, 2], np.eye(e), cross, e)) == pytest.approx(2 * least - least**2, rel=1e-6)


def test_effects_of_one_sign_are_found_by_their_sum_and_far_tails_do_not_end() -> None:
    A = wishart(2, 2, 10)
    same = KernelScores(np.full((2, 10), 20.0), A)
    assert skato(same) > skat(same)
    mlog10p = [skato(KernelScores(size * same.z, A)) for size in (1, 2, 5, 10, 30)]
    assert mlog10p[2] > 300 and mlog10p[-1] > 5000
    assert np.all(np.diff(mlog10p) > 0)


@pytest.mark.parametrize("e", [2, 4])
def test_far_tails_of_directions_that_differ_lie_within_their_bounds(e: int) -> None:
    """Between T and its Bonferroni bound; the largest score has a hundred times the weight of the others or theirs."""
    for small in (1.0, 0.01):
        weights = np.append(1.0, np.full(9, small))
        A = np.stack([wishart(10 + k, 1, 10)[0] for k in range(e)]) * np.outer(weights, weights)
        z = np.einsum("kab,kb->ka", np.linalg.cholesky(A), np.random.default_rng(e).normal(size=(e, 10)))
        for size in (5.0, 12.0, 20.0):
            kernel = KernelScores(size * z, A)
            mlog10p, found = smallest(kernel)[0], skato(kernel)
            assert mlog10p - np.log10(len(GRID)) < found < mlog10p


def test_the_smaller_of_lines_has_corners() -> None:
    rho, q = np.array([0.0, 0.25, 0.5]), np.array([4.0, 3.3, 3.0])
    pieces = _segments(rho, q, 5.0)
    assert pieces[0][0] == 0 and pieces[-1][1] == 5.0
    for low, high, intercept, slope in pieces:
        for b in np.linspace(low, high, 5):
            assert intercept + slope * b == pytest.approx(np.min((q - rho * b) / (1 - rho)))
    assert [piece[1] for piece in pieces[:-1]] == [piece[0] for piece in pieces[1:]]
