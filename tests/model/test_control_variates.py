"""Control variates of Bartlett factors: what they measure, and their means, by dense matrices."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from dense_oracle import Array

from kron2sum_cli.model.block_scanner import BlockStatistics, PairStatistics
from kron2sum_cli.model.contrasts import Contrasts, rotate_traits
from kron2sum_cli.model.control_variates import AtTruth, Truth, mean_by_controls
from kron2sum_cli.model.hypotheses import named_hypothesis
from kron2sum_cli.model.likelihood import Point, evaluate
from kron2sum_cli.model.spectrum import spectrum_of_features
from kron2sum_cli.model.trait_axes import TraitAxes, axes_of_covariances

P = 2
C0, C1 = np.array([[1, 0.3], [0.3, 0.6]]), np.array([[0.8, -0.2], [-0.2, 1]])
DESIGNS = {name: named_hypothesis(name, ("a", "b")).full for name in ("any", "common", "trait:a")}


def contrasts(rng: np.random.Generator, n: int = 14) -> Contrasts:
    """Contrasts of the mean, with random traits."""
    G = rng.normal(size=(n, 2 * n)) / np.sqrt(2 * n)
    data = rotate_traits(spectrum_of_features(G, np.ones((n, 1))), rng.normal(size=(n, P)))
    return data.without_projected()


class Dense:
    """The same in matrices over all rows and axes, axis by axis."""

    def __init__(self, axes: TraitAxes, s: Array) -> None:
        self.s, self.axes = s, axes
        self.K = self.covariance(np.diag(axes.c1**2), np.diag(axes.c0**2))
        self.P = np.linalg.inv(self.K)

    def covariance(self, E1: Array, E0: Array) -> Array:
        return np.kron(E0, np.diag(self.s)) + np.kron(E1, np.eye(self.s.size))

    def directions(self) -> list[Array]:
        """Changes of C1, then of C0, in the entries of their lower triangles."""
        none, found = np.zeros((P, P)), []
        for place, (j, k) in product(range(2), zip(*np.tril_indices(P), strict=True)):
            E = np.zeros((P, P))
            E[j, k] = E[k, j] = 1.0
            found.append(self.covariance(*((none, E) if place else (E, none))))
        return found

    def columns(self, x: Array, design: Array) -> Array:
        """Those of a variant (m, k) with effects in the span of a design (kp, e), along the axes."""
        k = x.shape[1]
        T = np.kron(np.eye(k), self.axes.T) @ design
        return np.asarray(sum(np.kron(T[c * P : (c + 1) * P], x[:, c, None]) for c in range(k)))

    def given(self, M: Array) -> Array:
        """P with the columns M as fixed effects."""
        PM = self.P @ M
        return self.P - PM @ np.linalg.solve(M.T @ PM, PM.T)

    def mean_chisq(self, M: Array, t: float, E1: Array, E0: Array) -> float:
        """E χ² of traits with the covariance K, when it is computed with one that is off by t (E1, E0)."""
        off = np.linalg.inv(self.K + t * self.covariance(E1, E0))
        return float(np.trace(np.linalg.solve(M.T @ off @ M, M.T @ off @ self.K @ off @ M)))


def truth_at(data: Contrasts) -> tuple[Point, Truth]:
    point = evaluate(data, axes_of_covariances(C0, C1, data.mean_eigenvalue), reml=False)
    return point, Truth.at(point, data.s, point.alpha)


def known_of(point: Point, truth: Truth, x: Array) -> AtTruth:
    """Of variants (m, b, k)."""
    nothing = np.zeros(x.shape[1])
    statistics = [
        BlockStatistics(x[:, :, c].T @ point.alpha, (x[:, :, c] ** 2).T @ point.W, nothing, nothing)
        for c in range(x.shape[2])
    ]
    if len(statistics) == 1:
        return truth.of_variants(statistics[0], x[:, :, 0])
    return truth.of_pairs(PairStatistics(*statistics, (x[:, :, 0] * x[:, :, 1]).T @ point.W), x)


def designs(k: int) -> list[Array]:
    return list(DESIGNS.values()) if k == 1 else [np.eye(2 * P), np.eye(2 * P)[:, [0, 1, 2]]]


@pytest.mark.parametrize("k", [1, 2])
def test_controls_by_dense_matrices(k: int) -> None:
    """The change of the mean χ² along a step of Fisher scoring, and what scores gain with the variant."""
    rng = np.random.default_rng(k)
    data = contrasts(rng)
    point, truth = truth_at(data)
    dense = Dense(point.axes, data.s)
    x = rng.normal(size=(data.s.size, 3, k))
    known, directions = known_of(point, truth, x), dense.directions()
    information = np.array([[0.5 * np.trace(dense.P @ A @ dense.P @ B) for B in directions] for A in directions])
    z = (data.Z @ point.axes.T.T).T.ravel()

    def scores(P1: Array) -> Array:
        """``½ (α1ᵀ∂K α1 - tr P∂K)``."""
        residual = P1 @ z
        return np.array([0.5 * (residual @ A @ residual - np.trace(dense.P @ A)) for A in directions])

    def moments(P1: Array) -> tuple[Array, Array]:
        """Mean and covariance of these scores."""
        mean = np.array([0.5 * np.trace((P1 - dense.P) @ A) for A in directions])
        return mean, np.array([[0.5 * np.trace(P1 @ A @ P1 @ B) for B in directions] for A in directions])

    for design in designs(k):
        controls = known.controls(design)
        for b in range(3):
            M = dense.columns(x[:, b], design)
            slope = (dense.mean_chisq(M, 1e-4, *truth.step) - dense.mean_chisq(M, -1e-4, *truth.step)) / 2e-4
            assert controls[0, b] == pytest.approx(slope, rel=1e-5)
            P1 = dense.given(M)
            found, (mean, covariance) = scores(P1), moments(P1)
            gain = found @ np.linalg.solve(information, found)
            gain -= scores(dense.P) @ np.linalg.solve(information, scores(dense.P))
            expected = mean @ np.linalg.solve(information, mean)
            expected += np.trace(np.linalg.solve(information, covariance - information))
            assert controls[1, b] == pytest.approx(gain - expected, rel=1e-8, abs=1e-8)


@pytest.mark.parametrize("k", [1, 2])
def test_means_are_zero(k: int) -> None:
    """For given variants, over simulated traits."""
    rng = np.random.default_rng(10 + k)
    data = contrasts(rng)
    x = rng.normal(size=(data.s.size, 2, k))
    axes, found = axes_of_covariances(C0, C1, data.mean_eigenvalue), []
    for _ in range(800):
        rows = np.sqrt(axes.variances(data.s)) * rng.normal(size=(data.s.size, P))
        point, truth = truth_at(replace(data, Z=rows @ axes.Tinv.T))
        found.append(known_of(point, truth, x).controls(designs(k)[1]).ravel())
    values = np.array(found)
    assert np.all(np.abs(values.mean(axis=0)) < 4 * values.std(axis=0) / np.sqrt(len(values)))


def test_a_scoring_step() -> None:
    """A step along which the expected score, ``½ tr(P ∂K P (K - K'))``, is the given one."""
    point, truth = truth_at(contrasts(np.random.default_rng(3)))
    products = [np.einsum("ij,il,i->jl", point.W, point.W, truth.s**power) for power in range(3)]
    E1, E0 = truth.step
    np.testing.assert_allclose(0.5 * (products[2] * E0 + products[1] * E1), point.score0, rtol=1e-8)
    np.testing.assert_allclose(0.5 * (products[1] * E0 + products[0] * E1), point.score1, rtol=1e-8)


def test_rows_that_are_not_independent_have_the_first_control_alone() -> None:
    rng = np.random.default_rng(4)
    data = contrasts(rng)
    point, truth = truth_at(data)
    x = rng.normal(size=(data.s.size, 3, 1))
    both = known_of(point, truth, x).controls(np.eye(P))
    alone = known_of(point, Truth.at(point, data.s), x).controls(np.eye(P))
    np.testing.assert_array_equal(alone, both[:1])


def test_a_mean_by_controls() -> None:
    """Controls of mean 0 are taken off as far as they explain; one that explains nothing stays out."""
    rng = np.random.default_rng(4)
    controls, noise = rng.normal(size=(500, 2)), rng.normal(size=500)
    values = 0.1 + controls @ [0.8, -0.3] + 0.01 * noise
    mean, error = mean_by_controls(values, controls)
    assert mean == pytest.approx(0.1, abs=2e-3) and error == pytest.approx(0.01 / np.sqrt(500), rel=0.1)
    mean, error = mean_by_controls(values, np.zeros((500, 1)))
    assert mean == pytest.approx(values.mean()) and error == pytest.approx(values.std() / np.sqrt(500), rel=0.01)
