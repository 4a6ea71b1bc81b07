"""Control variates of Bartlett factors: what they measure, and their means, by dense matrices."""

from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from dense_oracle import Array
from made_up_families import simulated
from missing_oracle import Observed
from scipy import sparse

from kron2sum_cli.model.block_scanner import BlockStatistics, PairStatistics
from kron2sum_cli.model.contrasts import Contrasts, rotate_traits
from kron2sum_cli.model.control_variates import Along, AtTruth, Rows, Truth, mean_by_controls
from kron2sum_cli.model.families.likelihood import evaluate as evaluate_families
from kron2sum_cli.model.families.observed import observed_families
from kron2sum_cli.model.families.observed_likelihood import evaluate as evaluate_observed_families
from kron2sum_cli.model.families.refit import FamilyRefits, ObservedFamilyRefits
from kron2sum_cli.model.families.spectrum import family_spectrum
from kron2sum_cli.model.hypotheses import named_hypothesis
from kron2sum_cli.model.likelihood import Point, evaluate
from kron2sum_cli.model.missing.likelihood import evaluate as evaluate_cells
from kron2sum_cli.model.missing.observed import effects_left_out, observed_cells, observed_spectrum
from kron2sum_cli.model.missing.refit import ObservedRefitter, RefitsOneByOne
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
    return point, Truth.at(point)


def known_of(point: Point, truth: Truth, x: Array) -> AtTruth:
    """Of variants (m, b, k)."""
    over = Rows(point.data.s, point.W, point.alpha)
    nothing = np.zeros(x.shape[1])
    statistics = [
        BlockStatistics(x[:, :, c].T @ point.alpha, (x[:, :, c] ** 2).T @ point.W, nothing, nothing)
        for c in range(x.shape[2])
    ]
    if len(statistics) == 1:
        return over.known(truth, Along.of_variants(statistics[0], truth.T), x)
    pairs = PairStatistics(*statistics, (x[:, :, 0] * x[:, :, 1]).T @ point.W)
    return over.known(truth, Along.of_pairs(pairs, truth.T), x)


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
    products = [np.einsum("ij,il,i->jl", point.W, point.W, point.data.s**power) for power in range(3)]
    E1, E0 = truth.step
    np.testing.assert_allclose(0.5 * (products[2] * E0 + products[1] * E1), point.score0, rtol=1e-8)
    np.testing.assert_allclose(0.5 * (products[1] * E0 + products[0] * E1), point.score1, rtol=1e-8)


@dataclass(frozen=True)
class Samples:
    """Samples that are not independent, with variants: the model's answers, and the dense Gaussian of the cells."""

    known: AtTruth
    dense: Observed
    Tinv: Array
    G: Array

    def columns(self, b: int, design: Array) -> Array:
        """Those of a variant with effects in the span of a design (kp, e), over the observed cells."""
        k = self.G.shape[2]
        parts = [np.kron(design[c * P : (c + 1) * P].T, self.G[:, b, c, None].T).T for c in range(k)]
        return np.asarray(sum(parts)[self.dense.seen])

    def change(self, E1: Array, E0: Array) -> Array:
        """The change of the covariance for changes of C1 and C0 along the axes."""
        E1, E0 = (self.Tinv @ E @ self.Tinv.T for E in (E1, E0))
        return self.dense.part(E0, self.dense.R) + self.dense.part(E1, np.eye(len(self.dense.R)))

    def mean_chisq(self, M: Array, t: float, E1: Array, E0: Array) -> float:
        """E χ² of the traits, when it is computed with a covariance that is off by t (E1, E0)."""
        off = np.linalg.inv(self.dense.K + t * self.change(E1, E0))
        X = self.dense.M
        off -= off @ X @ np.linalg.solve(X.T @ off @ X, X.T @ off)
        return float(np.trace(np.linalg.solve(M.T @ off @ M, M.T @ off @ self.dense.K @ off @ M)))


def samples_of(kind: str, k: int, seed: int) -> Samples:
    rng = np.random.default_rng(seed)
    case = simulated(18, P, 2, seed=3, largest=3)
    Y = case.Y.copy()
    if kind != "families":
        Y[rng.random(Y.shape) < 0.25] = np.nan
    G = rng.normal(size=(18, 2, k))
    axes = axes_of_covariances(C0, C1, case.families.mean_eigenvalue)
    refits: RefitsOneByOne[Any]
    if kind == "missing cells":
        spectrum, shift = observed_spectrum(case.K.copy(), case.X, False, True)
        refits = ObservedRefitter(())
        point: Any = evaluate_cells(observed_cells(spectrum, Y, np.eye(P), case.X, shift), axes, True)
    elif kind == "families":
        refits, point = FamilyRefits(()), evaluate_families(case.families, axes, True)
        columns = [point.data.spectrum.rotation.to_rows(G[:, :, c]) for c in range(k)]
    else:
        left_out = effects_left_out(Y, np.eye(P), case.X)
        data = observed_families(family_spectrum(sparse.csr_array(case.K)), Y, case.X, left_out)
        refits, point = ObservedFamilyRefits(()), evaluate_observed_families(data, axes, True)
    if kind != "families":
        columns = [G[:, :, c] for c in range(k)]
    (scanner, over), T = refits.scanner(point), point.axes.T
    if k == 1:
        along = Along.of_variants(scanner.statistics(G[:, :, 0]), T)
    else:
        along = Along.of_pairs(scanner.pair_statistics(G[:, :, 0], G[:, :, 1]), T)
    known = over.known(Truth.at(point), along, np.stack(columns, axis=2))
    return Samples(known, Observed(Y, np.eye(P), case.X, case.K, axes.C0, axes.C1), axes.Tinv, G)


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("kind", ["missing cells", "families", "families with missing cells"])
def test_controls_of_samples_that_are_not_independent(kind: str, k: int) -> None:
    """By dense matrices of the observed cells, whatever information the scores are measured with."""
    of = samples_of(kind, k, seed=5)
    dense, truth, none = of.dense, of.known.truth, np.zeros((P, P))
    Q, y, directions, metric = dense.Q, dense.y, [], np.zeros((2 * 3, 2 * 3))
    for r, (q, (i, j)) in product(range(2), enumerate(zip(*np.tril_indices(P), strict=True))):
        E = np.zeros((P, P))
        E[i, j] = E[j, i] = 1.0
        directions.append(of.change(*((none, E) if r else (E, none))))
        for t in range(2):
            metric[3 * r + q, 3 * t + q] = truth.inverse[r, t, i, j] * (2.0 if i == j else 1.0)

    def scores(residual: Array) -> Array:
        return np.array([0.5 * (residual @ A @ residual - np.trace(Q @ A)) for A in directions])

    def variance(P1: Array) -> Array:
        return np.array([[0.5 * np.trace(P1 @ A @ P1 @ B) for B in directions] for A in directions])

    for design in designs(k):
        controls = of.known.controls(design)
        for b in range(2):
            M = of.columns(b, design)
            slope = (of.mean_chisq(M, 1e-4, *truth.step) - of.mean_chisq(M, -1e-4, *truth.step)) / 2e-4
            assert controls[0, b] == pytest.approx(slope, rel=1e-5)
            P1 = Q - Q @ M @ np.linalg.solve(M.T @ Q @ M, M.T @ Q)
            before, after = scores(Q @ y), scores(P1 @ y)
            mean = np.array([0.5 * np.trace((P1 - Q) @ A) for A in directions])
            expected = mean @ metric @ mean + np.trace(metric @ (variance(P1) - variance(Q)))
            gain = after @ metric @ after - before @ metric @ before
            assert controls[1, b] == pytest.approx(gain - expected, rel=1e-8, abs=1e-8)


def test_a_mean_by_controls() -> None:
    """Controls of mean 0 are taken off as far as they explain; one that explains nothing stays out."""
    rng = np.random.default_rng(4)
    controls, noise = rng.normal(size=(500, 2)), rng.normal(size=500)
    values = 0.1 + controls @ [0.8, -0.3] + 0.01 * noise
    mean, error = mean_by_controls(values, controls)
    assert mean == pytest.approx(0.1, abs=2e-3) and error == pytest.approx(0.01 / np.sqrt(500), rel=0.1)
    mean, error = mean_by_controls(values, np.zeros((500, 1)))
    assert mean == pytest.approx(values.mean()) and error == pytest.approx(values.std() / np.sqrt(500), rel=0.01)
