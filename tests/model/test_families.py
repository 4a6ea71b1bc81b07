"""Block-diagonal relationship matrices against the dense Gaussian, and against the dense rotation of the matrix."""

from dataclasses import dataclass

import numpy as np
import pytest
from dense_oracle import Data, Dense
from numpy.typing import NDArray
from scipy import linalg, sparse

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model import fitting
from kron2sum_cli.model.block_scanner import block_scanner
from kron2sum_cli.model.contrasts import rotate_traits
from kron2sum_cli.model.families import fitting as family_fitting
from kron2sum_cli.model.families.fitting import fixed_effects
from kron2sum_cli.model.families.likelihood import FamilyPoint, FamilyTraits, evaluate, family_traits
from kron2sum_cli.model.families.scanner import family_scanner
from kron2sum_cli.model.families.spectrum import families_by_size, family_spectrum
from kron2sum_cli.model.spectrum import spectrum_of_relationship
from kron2sum_cli.model.trait_axes import axes_of_covariances

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """A relationship matrix of families in random order, covariates and traits."""

    K: Array
    X: Array
    Y: Array

    @property
    def families(self) -> FamilyTraits:
        return family_traits(family_spectrum(sparse.csr_array(self.K)), self.Y, self.X)

    def dense(self, C0: Array, C1: Array) -> Dense:
        data = Data(self.Y, np.eye(self.Y.shape[1]), self.X, np.linalg.cholesky(self.K))
        return Dense(data, C0, C1)


def simulated(n: int, p: int, c: int, seed: int = 1, largest: int = 8) -> Case:
    rng = np.random.default_rng(seed)
    blocks = []
    while sum(map(len, blocks)) < n:
        m = int(rng.integers(1, largest + 1))
        M = rng.normal(size=(m, m + 3))
        blocks.append(0.6 * np.eye(m) + 0.4 * M @ M.T / (m + 3))
    order = rng.permutation(n)
    K = linalg.block_diag(*blocks)[:n, :n][np.ix_(order, order)]
    X = np.hstack([np.ones((n, 1)), rng.normal(size=(n, c))])[:, :c]
    genetic = np.linalg.cholesky(K) @ rng.normal(size=(n, p)) @ rng.normal(size=(p, p))
    return Case(K, X, genetic + rng.normal(size=(n, p)) @ rng.normal(size=(p, p)) + 3)


def covariances(p: int, seed: int = 2) -> tuple[Array, Array]:
    L0, L1 = np.random.default_rng(seed).normal(size=(2, p, p))
    return L0 @ L0.T, L1 @ L1.T + 0.1 * np.eye(p)


DESIGNS = [(40, 1, 1), (45, 3, 4), (50, 2, 0), (30, 4, 2)]


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize(("n", "p", "c"), DESIGNS)
def test_likelihood_equals_the_dense_gaussian(n: int, p: int, c: int, reml: bool) -> None:
    case, (C0, C1) = simulated(n, p, c), covariances(p)
    data = case.families
    point = evaluate(data, axes_of_covariances(C0, C1, data.mean_eigenvalue), reml)
    assert point.lml == pytest.approx(case.dense(C0, C1).lml(reml), rel=1e-11)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize(("n", "p", "c"), DESIGNS)
def test_score_and_curvature_are_derivatives(n: int, p: int, c: int, reml: bool) -> None:
    data = simulated(n, p, c).families
    axes = axes_of_covariances(*covariances(p), data.mean_eigenvalue)
    rng = np.random.default_rng(3)
    E0, E1 = (M + M.T for M in rng.normal(size=(2, p, p)))
    # A step in the axes of the point is T⁻¹ E T⁻ᵀ in the traits; scores of the moved point come back the same way.
    step = 1e-5

    def moved(size: float) -> FamilyPoint:
        C0 = axes.C0 + size * axes.Tinv @ E0 @ axes.Tinv.T
        C1 = axes.C1 + size * axes.Tinv @ E1 @ axes.Tinv.T
        return evaluate(data, axes_of_covariances(C0, C1, data.mean_eigenvalue), reml)

    point, up, down = evaluate(data, axes, reml), moved(step), moved(-step)
    slope = np.sum(point.score0 * E0) + np.sum(point.score1 * E1)
    assert slope == pytest.approx((up.lml - down.lml) / (2 * step), rel=1e-6, abs=1e-5)
    for k, change in enumerate(point.curvature(E0, E1)):
        ends = [(q.score0, q.score1)[k] for q in (up, down)]
        in_traits = [q.axes.T.T @ S @ q.axes.T for q, S in zip((up, down), ends, strict=True)]
        expected = axes.Tinv.T @ (in_traits[0] - in_traits[1]) @ axes.Tinv / (2 * step)
        np.testing.assert_allclose(change, expected, rtol=1e-5, atol=1e-5 * max(1.0, np.abs(expected).max()))


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("rank", [1, 3])
def test_fit_equals_that_of_the_dense_rotation(rank: int, reml: bool) -> None:
    case = simulated(150, 3, 3, seed=4)
    spectrum = spectrum_of_relationship(case.K.copy(), case.X)
    dense = fitting.fit(rotate_traits(spectrum, case.Y), rank, reml)
    fitted = family_fitting.fit(case.families, rank, reml)
    assert fitted.certificate.certified
    assert fitted.point.lml == pytest.approx(dense.point.lml, abs=1e-7)


@pytest.mark.parametrize(("n", "p", "c"), DESIGNS)
def test_statistics_of_variants_equal_dense_least_squares(n: int, p: int, c: int) -> None:
    case, (C0, C1) = simulated(n, p, c), covariances(p)
    data = case.families
    axes = axes_of_covariances(C0, C1, data.mean_eigenvalue)
    G = np.random.default_rng(5).binomial(2, 0.3, size=(n, 6)).astype(float)
    found = family_scanner(evaluate(data, axes, True), np.float64).statistics(G)
    P, y = case.dense(C0, C1).P(), case.Y.T.reshape(-1)
    for k, g in enumerate(G.T):
        effects = np.kron(axes.Tinv, g[:, None])
        np.testing.assert_allclose(found.u[k], effects.T @ P @ y, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(np.diag(found.v[k]), effects.T @ P @ effects, rtol=1e-8, atol=1e-8)


def test_single_precision_differs_by_rounding() -> None:
    case = simulated(200, 5, 6)
    spectrum = spectrum_of_relationship(case.K.copy(), case.X)
    fitted = fitting.fit(rotate_traits(spectrum, case.Y), 5, True)
    point = evaluate(case.families, fitted.point.axes, True)
    G = np.random.default_rng(6).binomial(2, 0.2, size=(200, 40)).astype(float)
    G -= G.mean(axis=0)
    exact = block_scanner(fitted.point, spectrum.Qx, np.float64).statistics(G)
    found = family_scanner(point).statistics(G.astype(np.float32))
    np.testing.assert_allclose(found.u, exact.u, rtol=1e-4, atol=1e-4 * np.abs(exact.u).max())
    np.testing.assert_allclose(found.v, exact.v, rtol=2e-6)


def test_effects_and_their_errors_equal_dense_least_squares() -> None:
    case, (C0, C1) = simulated(60, 3, 4), covariances(3)
    data = case.families
    point = evaluate(data, axes_of_covariances(C0, C1, data.mean_eigenvalue), True)
    B, se = fixed_effects(point)
    dense = case.dense(C0, C1)
    beta, covariance = dense.fixed_effects(dense.M)
    np.testing.assert_allclose(B.T.reshape(-1), beta, rtol=1e-9)
    np.testing.assert_allclose(se.T.reshape(-1), np.sqrt(np.diag(covariance)), rtol=1e-9)


def test_families_are_the_connected_components() -> None:
    K = np.eye(7)
    for i, j in ((0, 3), (3, 6), (1, 5)):
        K[i, j] = K[j, i] = 0.25
    found = [{frozenset(family) for family in members.tolist()} for members in families_by_size(sparse.csr_array(K))]
    assert found == [{frozenset({1, 5})}, {frozenset({0, 3, 6})}]


def test_a_matrix_with_a_negative_eigenvalue_is_refused() -> None:
    K = np.eye(4)
    K[0, 1] = K[1, 0] = 1.2
    with pytest.raises(NumericalError, match="not positive semi-definite.*-0.2"):
        family_spectrum(sparse.csr_array(K))


def test_collinear_covariates_are_refused() -> None:
    case = simulated(20, 1, 1)
    with pytest.raises(NumericalError, match="in the span of the others"):
        family_traits(family_spectrum(sparse.csr_array(case.K)), case.Y, np.ones((20, 2)))
