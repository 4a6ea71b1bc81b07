"""Standard errors against second derivatives of the dense log-likelihood, and what they do at the edges."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import product

import numpy as np
import pytest
from dense_oracle import Array, Data, Dense, derivative, vec

from kron2sum_cli.model import information
from kron2sum_cli.model.contrasts import rotate_coupled, rotate_traits
from kron2sum_cli.model.fitting import Fit, fit
from kron2sum_cli.model.generalised_least_squares import Effects
from kron2sum_cli.model.information import DirectionCovariance, direction_covariance, uses_observed_information
from kron2sum_cli.model.likelihood import evaluate
from kron2sum_cli.model.spectrum import Spectrum, spectrum_of_features
from kron2sum_cli.model.trait_axes import TraitAxes, axes_of_factors
from kron2sum_cli.model.uncertainty import Estimates, estimates_from, estimates_of

N, P = 40, 3
LOWER = np.tril_indices(P)
C0_TRUE = np.array([[1.4, 0.6, -0.5], [0.6, 1.3, 0.1], [-0.5, 0.1, 1.1]])
C1_TRUE = np.array([[1.3, 0.3, 0.2], [0.3, 1.0, -0.3], [0.2, -0.3, 0.8]])
DESIGNS = {"identity": np.eye(P), "column": np.array([[1.0, 0.2], [0.5, 1.0], [-0.3, 0.4]])}


@dataclass(frozen=True)
class Fitted:
    data: Data
    reml: bool
    spectrum: Spectrum
    fit: Fit

    def estimates(self) -> Estimates:
        spectrum, data = self.spectrum, self.data
        return estimates_of(self.fit.point, spectrum.Qx, self.fit.rank, spectrum.mean_diagonal, data.A, data.X)


def fitted(data: Data, reml: bool, rank: int | None = None) -> Fitted:
    p = data.Y.shape[1]
    coupled = data.A.shape[1] < p
    spectrum = spectrum_of_features(data.G, data.X[:, :0] if coupled else data.X)
    rotated = rotate_coupled(spectrum, data.Y, data.A, data.X) if coupled else rotate_traits(spectrum, data.Y)
    return Fitted(data, reml, spectrum, fit(rotated, rank or p, reml))


def simulated(seed: int, r: int, C0: Array = C0_TRUE, C1: Array = C1_TRUE, design: str = "identity") -> Data:
    rng = np.random.default_rng(seed)
    p = C0.shape[0]
    G = rng.gamma(1.0, size=N)[:, None] * rng.normal(size=(N, r)) / np.sqrt(r)
    X = np.column_stack([np.ones(N), rng.normal(size=N)])
    Y = G @ rng.normal(size=(r, p)) @ root(C0).T + rng.normal(size=(N, p)) @ root(C1).T
    return Data(Y, DESIGNS[design] if p == P else np.eye(p), X, G)


def root(C: Array) -> Array:
    values, vectors = np.linalg.eigh(C)
    return vectors * np.sqrt(np.maximum(values, 0))


# The information, spelled out.


def dense_information(case: Fitted, observed: bool) -> Array:
    """Over the lower triangles of C0 and C1: ``½ tr(P ∂K P ∂K)``, or minus the second derivatives."""
    axes = case.fit.point.axes
    dense = Dense(case.data, axes.C0, axes.C1)
    projection = dense.P()
    inside = projection if case.reml else np.linalg.inv(dense.K)
    alpha = projection @ vec(case.data.Y)
    changes = []
    for kernel in (case.data.G @ case.data.G.T, np.eye(N)):
        for i, j in zip(*LOWER, strict=True):
            E = np.zeros((P, P))
            E[i, j] = E[j, i] = 1
            changes.append(np.kron(E, kernel))
    products = [inside @ change for change in changes]
    H = np.array([[0.5 * np.sum(a * b.T) for b in products] for a in products])
    if not observed:
        return H
    moved = np.array([change @ alpha for change in changes])
    return moved @ projection @ moved.T - H


def entry_errors(covariance: Array) -> tuple[Array, Array]:
    """Standard errors of C0 and C1 from the covariance of their lower triangles."""
    errors = []
    for part in np.split(np.sqrt(np.diag(covariance)), 2):
        C = np.zeros((P, P))
        C[LOWER] = part
        errors.append(np.maximum(C, C.T))
    return errors[0], errors[1]


@pytest.mark.parametrize(("reml", "r", "design"), list(product((True, False), (15, 60), DESIGNS)))
def test_observed_information(reml: bool, r: int, design: str) -> None:
    case = fitted(simulated(5, r, design=design), reml)
    assert case.fit.certificate.active_C0 == case.fit.certificate.active_C1 == 0
    estimates = case.estimates()
    expected = entry_errors(np.linalg.inv(dense_information(case, observed=True)))
    np.testing.assert_allclose(estimates.C0_se, expected[0], rtol=1e-6)
    np.testing.assert_allclose(estimates.C1_se, expected[1], rtol=1e-6)


@pytest.mark.parametrize(
    ("reml", "r", "design"),
    [
        (True, 15, "identity"),
        (True, 60, "identity"),
        (False, 15, "identity"),
        (False, 60, "identity"),
        (False, 60, "column"),
    ],
)
def test_expected_information(reml: bool, r: int, design: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(information, "OBSERVED_TRAITS", 0)
    case = fitted(simulated(5, r, design=design), reml)
    estimates = case.estimates()
    expected = entry_errors(np.linalg.inv(dense_information(case, observed=False)))
    np.testing.assert_allclose(estimates.C0_se, expected[0], rtol=1e-8)
    np.testing.assert_allclose(estimates.C1_se, expected[1], rtol=1e-8)


# Faces and the delta method, by finite differences on factors.


@dataclass(frozen=True)
class Factors:
    """C0 and C1 by the free entries of lower factors with k0 and k1 columns."""

    k0: int
    k1: int

    def of(self, L0: Array, L1: Array) -> Array:
        return np.concatenate(
            [lower[entries(k)] for lower, k in ((lower_factor(L0), self.k0), (lower_factor(L1), self.k1))]
        )

    def factors(self, x: Array) -> tuple[Array, Array]:
        L0, L1 = np.zeros((P, self.k0)), np.zeros((P, self.k1))
        size = entries(self.k0)[0].size
        L0[entries(self.k0)], L1[entries(self.k1)] = x[:size], x[size:]
        return L0, L1

    def covariances(self, x: Array) -> tuple[Array, Array]:
        L0, L1 = self.factors(x)
        return L0 @ L0.T, L1 @ L1.T


def entries(k: int) -> tuple[Array, Array]:
    i, j = np.tril_indices(P)
    return i[j < k], j[j < k]


def lower_factor(L: Array) -> Array:
    return np.linalg.qr(L.T, mode="r").T


def second_derivatives(function: Callable[[Array], float], x: Array, step: float = 2e-3) -> Array:
    """Central differences of fourth order in both directions."""
    offsets, weights = np.array([-2, -1, 1, 2]), np.array([1, -8, 8, -1]) / (12 * step)
    H, unit = np.empty((x.size, x.size)), step * np.eye(x.size)
    for a in range(x.size):
        for b in range(a + 1):
            values = [[function(x + s * unit[a] + t * unit[b]) for t in offsets] for s in offsets]
            H[a, b] = H[b, a] = weights @ np.array(values) @ weights
    return H


def meaning(C0: Array, C1: Array, mean_diagonal: float) -> Array:
    """All estimates as one vector: C0, C1, h2, rg and re."""
    genetic, residual = np.diag(C0), np.diag(C1)
    h2 = mean_diagonal * genetic / (mean_diagonal * genetic + residual)
    rg, re = (C / np.sqrt(np.outer(np.diag(C), np.diag(C))) for C in (C0, C1))
    return np.concatenate([C0.ravel(), C1.ravel(), h2, rg.ravel(), re.ravel()])


FACES = {
    "interior": (5, 60, C0_TRUE, C1_TRUE, P, (3, 3)),
    "rank 1": (5, 60, C0_TRUE, C1_TRUE, 1, (1, 3)),
    "rank 2": (5, 60, C0_TRUE, C1_TRUE, 2, (2, 3)),
    "C0 singular": (2, 60, np.outer([1, 0.8, -0.6], [1, 0.8, -0.6]), C1_TRUE, P, (2, 3)),
    "C1 singular": (1, 60, 3 * C0_TRUE, np.outer([1, 0.5, -0.5], [1, 0.5, -0.5]), P, (3, 1)),
}


@pytest.mark.parametrize("name", FACES)
@pytest.mark.parametrize("reml", [True, False])
def test_standard_errors_along_faces(name: str, reml: bool) -> None:
    seed, r, C0, C1, rank, (k0, k1) = FACES[name]
    case = fitted(simulated(seed, r, C0, C1), reml, rank)
    point, tau = case.fit.point, case.fit.point.data.mean_eigenvalue
    axes, g = point.axes, case.spectrum.mean_diagonal
    assert (np.count_nonzero(tau * axes.c0**2 > 1e-12), np.count_nonzero(axes.c1**2 > 1e-12)) == (k0, k1)
    chart = Factors(k0, k1)
    x = chart.of(axes.Tinv * axes.c0, axes.Tinv * axes.c1)
    H = second_derivatives(lambda x: evaluate(point.data, axes_of_factors(*chart.factors(x), tau), reml).lml, x)
    J = np.array([derivative(lambda x, m=m: meaning(*chart.covariances(x), g)[m], x) for m in range(4 * P**2 + P)])
    expected = np.sqrt(np.maximum(np.diag(J @ np.linalg.inv(-H) @ J.T), 0))
    e = case.estimates()
    actual = np.concatenate([part.ravel() for part in (e.C0_se, e.C1_se, e.h2_se, e.rg_se, e.re_se)])
    for k, se in ((k0, e.rg_se), (k1, e.re_se)):  # of rank 1 all correlations are 1 or -1
        assert np.array_equal(np.isnan(se), (k == 1) & ~np.eye(P, dtype=bool))
    assert np.all(np.abs(expected[np.isnan(actual)]) < 2e-6)
    actual = np.nan_to_num(actual)
    np.testing.assert_allclose(actual, expected, rtol=2e-4, atol=2e-6)


# What must not matter, and the edges.


def test_the_scale_of_a_trait_does_not_matter() -> None:
    data = simulated(5, 60)
    scale = np.array([1e6, 1.0, 1e-5])
    one = fitted(data, True).estimates()
    other = fitted(Data(data.Y * scale, data.A, data.X, data.G), True).estimates()
    squared = np.outer(scale, scale)
    factors = {"C0": squared, "C0_se": squared, "C1": squared, "C1_se": squared, "B": scale, "B_se": scale}
    for field in fields(Estimates):
        expected = getattr(one, field.name) * factors.get(field.name, 1.0)
        np.testing.assert_allclose(getattr(other, field.name), expected, rtol=1e-4, atol=1e-7, err_msg=field.name)


def test_definitions() -> None:
    case = fitted(simulated(5, 60), True)
    e, axes = case.estimates(), case.fit.point.axes
    g = case.spectrum.mean_diagonal
    centred = case.data.G - case.data.G.mean(axis=0)
    assert g == pytest.approx(np.trace(centred @ centred.T) / N)
    np.testing.assert_allclose(e.C0, axes.C0)
    np.testing.assert_allclose(e.h2, g * np.diag(e.C0) / (g * np.diag(e.C0) + np.diag(e.C1)))
    np.testing.assert_allclose(np.diag(e.rg), 1)
    np.testing.assert_allclose(np.diag(e.rg_se), 0)
    assert e.axis_share.sum() == pytest.approx(1)
    assert np.all((e.axis_h2 >= 0) & (e.axis_h2 <= 1))


@pytest.mark.parametrize("design", DESIGNS)
def test_fixed_effects(design: str) -> None:
    case = fitted(simulated(5, 60, design=design), True)
    axes = case.fit.point.axes
    beta, covariance = (dense := Dense(case.data, axes.C0, axes.C1)).fixed_effects(dense.M)
    e = case.estimates()
    np.testing.assert_allclose(vec(e.B), beta, rtol=1e-8)
    np.testing.assert_allclose(vec(e.B_se), np.sqrt(np.diag(covariance)), rtol=1e-8)


def test_no_covariates() -> None:
    data = simulated(5, 60)
    e = fitted(Data(data.Y, data.A, data.X[:, :0], data.G), False).estimates()
    assert e.B.shape == e.B_se.shape == (0, P)
    assert np.all(e.C0_se > 0)


def test_a_trait_without_genetic_variance_has_no_genetic_correlation() -> None:
    rng = np.random.default_rng(3)
    G = np.diag(rng.gamma(1.0, size=N))
    # Less variance where relatedness is larger than any C0 allows.
    y = rng.normal(size=N) / (0.3 + np.diag(G))
    e = fitted(Data(y[:, None], np.eye(1), np.empty((N, 0)), G), True).estimates()
    assert e.h2[0] == 0 and np.isnan(e.h2_se[0]) and np.isnan(e.C0_se[0, 0])
    assert np.isnan(e.rg[0, 0]) and np.isnan(e.rg_se[0, 0])
    assert (e.re[0, 0], e.re_se[0, 0]) == (1, 0)
    assert e.C1_se[0, 0] == pytest.approx(e.C1[0, 0] * np.sqrt(2 / N), rel=1e-6)


@pytest.mark.parametrize("share", [0.0, 1e-7])
def test_a_correlation_that_the_boundary_determines_has_no_standard_error(share: float) -> None:
    """Of three traits the first two have residuals that are multiples of each other, but for the boundary's share."""
    T = np.array([[1.0, -2.0, 0.0], [0.3, 0.4, 0.5], [0.1, 0.2, -1.0]])
    axes = TraitAxes(T, np.linalg.inv(T), np.sqrt(1 - np.array([share, 0.5, 0.4])), np.sqrt([share, 0.5, 0.4]))
    pairs = np.eye(6)
    held = DirectionCovariance(pairs, 0 * pairs, np.diag((np.arange(6) > 0).astype(float)))
    nothing = Effects(np.empty((0, 3)), np.empty((0, 3)))
    e = estimates_from(axes, 1.0, 1.0, held, nothing)
    assert abs(abs(e.re[0, 1]) - 1) < 1e-6 and np.isnan(e.re_se[0, 1]) and np.isnan(e.re_se[1, 0])
    assert np.all(np.isfinite(e.rg_se))
    assert np.array_equal(np.isnan(e.re_se), np.isin(np.arange(9), (1, 3)).reshape(3, 3))
    free = estimates_from(axes, 1.0, 1.0, DirectionCovariance(pairs, 0 * pairs, pairs), nothing)
    assert np.all(np.isfinite(free.re_se))


@pytest.mark.parametrize("observed_traits", [0, information.OBSERVED_TRAITS])
def test_what_the_data_cannot_tell_apart_has_no_standard_error(
    observed_traits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(information, "OBSERVED_TRAITS", observed_traits)
    data = simulated(5, N)
    G = np.linalg.qr(data.G)[0]
    e = fitted(Data(data.Y, data.A, data.X, G), True).estimates()
    assert np.all(np.isnan(e.C0_se)) and np.all(np.isnan(e.h2_se))
    assert np.all(np.isfinite(e.B_se))


def test_curvature_that_is_not_a_maximum_has_no_standard_error() -> None:
    case = fitted(simulated(5, 60), True)
    axes = case.fit.point.axes
    far = axes_of_factors(30 * axes.Tinv * axes.c0, 30 * axes.Tinv * axes.c1, case.fit.point.data.mean_eigenvalue)
    covariance = direction_covariance(evaluate(case.fit.point.data, far, True), P)
    assert np.all(np.isnan(covariance.v00))


def test_many_traits_have_the_expected_information() -> None:
    rng = np.random.default_rng(0)
    n, p = 150, information.OBSERVED_TRAITS + 1
    assert not uses_observed_information(p, 0)
    G = rng.normal(size=(n, 80)) / 9
    Y = G @ rng.normal(size=(80, p)) + rng.normal(size=(n, p))
    e = fitted(Data(Y, np.eye(p), np.ones((n, 1)), G), True).estimates()
    assert np.all(e.h2_se > 0) and np.all(np.isfinite(e.rg_se))
