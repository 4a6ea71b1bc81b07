"""The rotation: its identities, the ways to it, and matrices that are not relationship matrices."""

import numpy as np
import pytest
from dense_oracle import Array, Data, Dense

from kron2sum_cli import Kron2Sum
from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.contrasts import rotate_traits
from kron2sum_cli.model.likelihood import evaluate
from kron2sum_cli.model.spectrum import Spectrum, spectrum_of_features, spectrum_of_relationship
from kron2sum_cli.model.trait_axes import axes_of_covariances

N = 30


def covariates(c: int) -> Array:
    return np.hstack([np.ones((N, 1)), np.random.default_rng(c).normal(size=(N, 3))])[:, :c]


def features(kind: str) -> Array:
    rng = np.random.default_rng(1)
    G = rng.normal(size=(N, 45)) / 6
    if kind == "thin":
        return G[:, :8]
    if kind == "nearly square":  # rank between 0.9 (n - c) and n - c: null directions are kept
        return G[:, : N - 3]
    if kind == "square of low rank":
        return G[:, :8] @ rng.normal(size=(8, 45))
    if kind == "duplicates":
        G[[3, 11]] = G[[2, 10]]
    if kind == "centred":
        return G - G.mean(axis=0)
    if kind == "one column":
        return G[:, :1]
    return G


KINDS = ("thin", "nearly square", "square of low rank", "duplicates", "centred", "one column", "wide")


def check(spectrum: Spectrum, G: Array, X: Array) -> None:
    K, V, Qx, s = G @ G.T, spectrum.V, spectrum.Qx, spectrum.s
    size = np.linalg.norm(K, 2)
    both = np.hstack([Qx, V])
    np.testing.assert_allclose(both.T @ both, np.eye(both.shape[1]), atol=1e-12)
    np.testing.assert_allclose(Qx @ spectrum.Rx, X, atol=1e-12)
    np.testing.assert_allclose(V.T @ K @ V, np.diag(s), atol=1e-11 * size)
    np.testing.assert_allclose(Qx.T @ K @ Qx, spectrum.Kxx, atol=1e-11 * size)
    np.testing.assert_allclose(Qx.T @ K @ V, spectrum.Kxv, atol=1e-11 * size)
    outside = np.eye(N) - both @ both.T
    np.testing.assert_allclose(outside @ K @ outside, 0, atol=1e-11 * size)
    assert (s >= 0).all()
    centring = np.eye(N) - 1 / N
    np.testing.assert_allclose(spectrum.mean_diagonal, np.trace(centring @ K @ centring) / N, rtol=1e-12)


@pytest.mark.parametrize("c", [0, 1, 3])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("overwrite", [False, True])
def test_identities(kind: str, c: int, overwrite: bool) -> None:
    G, X = features(kind), covariates(c)
    check(spectrum_of_features(G.copy(), X), G, X)
    for order in ("C", "F"):
        check(spectrum_of_relationship(np.array(G @ G.T, order=order), X, overwrite), G, X)


def test_arguments_are_kept_unless_given_away() -> None:
    X = covariates(2)
    for kind in ("thin", "wide"):
        for order in ("C", "F"):
            G = np.array(features(kind), order=order)
            kept = G.copy()
            spectrum_of_features(G, X)
            np.testing.assert_array_equal(G, kept)
            K = np.array(G @ G.T, order=order)
            kept = K.copy()
            spectrum_of_relationship(K, X)
            np.testing.assert_array_equal(K, kept)


@pytest.mark.parametrize("restricted", [False, True], ids=["ML", "REML"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("c", [0, 1, 3])
def test_likelihood_for_awkward_matrices(kind: str, c: int, restricted: bool) -> None:
    G, X, rng = features(kind), covariates(c), np.random.default_rng(3)
    Y = rng.normal(size=(N, 2)) + 1
    C0, C1 = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([[1.0, -0.3], [-0.3, 0.5]])
    expected = Dense(Data(Y, np.eye(2), X, G), C0, C1).lml(restricted)
    model = Kron2Sum(Y, np.eye(2), X, G, rank=2, restricted=restricted).at(C0, C1)
    np.testing.assert_allclose(model.lml(), expected, rtol=1e-9)
    data = rotate_traits(spectrum_of_relationship(G @ G.T, X), Y)
    point = evaluate(data, axes_of_covariances(C0, C1, data.mean_eigenvalue), restricted)
    np.testing.assert_allclose(point.lml, expected, rtol=1e-9)


def test_eigenvalues_of_features_keep_relative_accuracy() -> None:
    """Singular values are squared, not eigenvalues of GGᵀ computed: 20 orders of magnitude are kept."""
    U = np.linalg.qr(np.random.default_rng(0).normal(size=(N, 4)))[0]
    s = np.array([1.0, 1e-8, 1e-16, 1e-20])
    spectrum = spectrum_of_features(U * np.sqrt(s), np.empty((N, 0)))
    np.testing.assert_allclose(spectrum.s, s, rtol=1e-5)


def test_a_matrix_that_is_not_semi_definite_is_refused() -> None:
    G = features("wide")
    K = G @ G.T - 0.5 * np.eye(N)
    with pytest.raises(NumericalError, match="not positive semi-definite: its eigenvalues .* go from -0"):
        spectrum_of_relationship(K, covariates(1))


def test_what_the_covariates_leave_of_nothing_is_nothing() -> None:
    """Rounding of a matrix that lies in the span of the covariates is not taken for relatedness."""
    X = covariates(3)
    for K in (np.zeros((N, N)), X @ X.T, 1e6 * np.ones((N, N))):
        assert spectrum_of_relationship(K.copy(), X).s.size == 0
    for G in (np.zeros((N, 2)), X @ [[3.0], [1.0], [0.1]], 1e6 * np.ones((N, 5)), np.empty((N, 0))):
        assert spectrum_of_features(G, X).s.size == 0


def test_rounding_below_zero_is_zero() -> None:
    G = features("square of low rank")
    K = (G @ G.T).astype(np.float32).astype(float)
    K = (K + K.T) / 2
    assert np.linalg.eigvalsh(K)[0] < 0
    assert (spectrum_of_relationship(K, covariates(1)).s >= 0).all()


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.ones((N, N)), "30 covariates need more than 30 samples"),
        (np.ones((N, 2)), "covariate column 2 of X is zero or lies in the span of the columns before it"),
        (np.zeros((N, 1)), "covariate column 1 of X is zero or"),
    ],
)
def test_covariates_that_do_not_span_their_number_are_refused(X: Array, message: str) -> None:
    with pytest.raises(NumericalError, match=message):
        spectrum_of_features(features("wide"), X)
