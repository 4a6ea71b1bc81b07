"""The public model: what it refuses and with which words, and moving it to other parameters."""

from typing import Any

import numpy as np
import pytest
from dense_oracle import Array, Data, Dense, vec
from scipy.linalg import null_space
from scipy.stats import multivariate_normal

import kron2sum_cli
from kron2sum_cli import Kron2Sum
from kron2sum_cli.errors import Kron2SumError, NumericalError

N = 20


def arguments(**changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    given = {
        "Y": rng.normal(size=(N, 3)),
        "A": np.eye(3),
        "X": np.hstack([np.ones((N, 1)), rng.normal(size=(N, 1))]),
        "G": rng.normal(size=(N, 30)),
    }
    return {**given, **changes}


def replaced(M: Array, row: int, column: int, value: float) -> Array:
    copy = M.copy()
    copy[row, column] = value
    return copy


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Y": np.ones(N)}, "Y must have two dimensions; it has 1"),
        ({"A": np.ones(3)}, "A must have two dimensions; it has 1"),
        ({"X": np.ones(N)}, "X must have two dimensions; it has 1"),
        ({"G": np.ones((N, 2, 2))}, "G must have two dimensions; it has 3"),
        ({name: np.ones((0, 3)) for name in "YXG"}, r"Y must have samples and traits; its shape is \(0, 3\)"),
        ({"X": np.ones((N + 1, 1))}, "X has 21 rows and Y has 20: both must have one a sample"),
        ({"G": np.ones((N - 1, 4))}, "G has 19 rows and Y has 20: both must have one a sample"),
        ({"A": np.eye(2)}, r"A must be \(3, a\) with a at most 3; its shape is \(2, 2\)"),
        ({"A": np.ones((3, 4))}, r"A must be \(3, a\) with a at most 3; its shape is \(3, 4\)"),
        ({"rank": 0}, "rank must be from 1 to the number of traits, 3; it is 0"),
        ({"rank": 4}, "rank must be from 1 to the number of traits, 3; it is 4"),
        ({"rank": 1.5}, "rank must be a whole number; it is 1.5"),
    ],
)
def test_wrong_shapes_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Kron2Sum(**arguments(**changes))


@pytest.mark.parametrize("name", ["Y", "A", "X", "G"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(name: str, value: float) -> None:
    given = arguments()
    given[name] = replaced(given[name], 1, 1, value)
    with pytest.raises(ValueError, match=f"{name} has values that are not finite"):
        Kron2Sum(**given)


def test_missing_traits_are_met_with_what_to_do() -> None:
    given = arguments()
    given["Y"] = replaced(given["Y"], 0, 0, np.nan)
    with pytest.raises(ValueError, match="leave out samples with a missing trait, or .* kron2sum fit --missing exact"):
        Kron2Sum(**given)


def with_column(M: Array, column: int, values: Array) -> Array:
    copy = M.copy()
    copy[:, column] = values
    return copy


Y, X = arguments()["Y"], arguments()["X"]


def dense_at(model: Kron2Sum, given: dict[str, Any]) -> Dense:
    return Dense(Data(given["Y"], given["A"], given["X"], given["G"]), model.C0, model.C1)


def assert_same_numbers(model: Kron2Sum, dense: Dense) -> None:
    """Of the dense model, where the pseudo-inverse stands for the inverse."""
    white = np.linalg.solve(dense.root, dense.M)
    pseudo_inverse = np.linalg.pinv(white, rcond=1e-9)
    beta = pseudo_inverse @ np.linalg.solve(dense.root, vec(dense.data.Y))
    np.testing.assert_allclose(model.beta, beta, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(vec(model.B), beta, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(model.beta_covariance, pseudo_inverse @ pseudo_inverse.T, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(model.mean(), dense.M @ beta, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(model.covariance(), dense.K, rtol=1e-12)
    scanner, residual = model.get_fast_scanner(), np.linalg.solve(dense.root, vec(dense.data.Y) - dense.M @ beta)
    scale = residual @ residual / residual.size
    np.testing.assert_allclose(scanner.null_scale, scale, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(scanner.null_beta, beta, rtol=1e-8, atol=1e-8)
    covariance = scanner.null_scale * pseudo_inverse @ pseudo_inverse.T
    np.testing.assert_allclose(scanner.null_beta_covariance, covariance, rtol=1e-7, atol=1e-7)


def assert_same_lml(model: Kron2Sum, dense: Dense, restricted: bool) -> None:
    N = null_space(dense.M.T)
    if restricted and N.shape[1] == 0:
        expected = 0.0  # the density of no contrasts
    elif restricted:
        expected = multivariate_normal(np.zeros(N.shape[1]), N.T @ dense.K @ N).logpdf(N.T @ vec(dense.data.Y))
    else:
        beta = np.linalg.lstsq(np.linalg.solve(dense.root, dense.M), np.linalg.solve(dense.root, vec(dense.data.Y)))[0]
        expected = dense.log_density(dense.M, beta)
    np.testing.assert_allclose(model.lml(), expected, rtol=1e-9, atol=1e-9)


SQUARE = np.random.default_rng(7).normal(size=(3, 3))


@pytest.mark.parametrize("restricted", [False, True], ids=["ML", "REML"])
@pytest.mark.parametrize("r", [4, 30])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"A": np.ones((3, 2))}, r"A\[:, 1\] is a multiple of A\[:, 0\]: effects are those of minimum norm"),
        ({"A": np.zeros((3, 1))}, r"A\[:, 0\] is zero"),
        ({"A": SQUARE[:, :2] @ SQUARE[:2]}, r"A\[:, 2\] is a linear combination of A\[:, 0\], A\[:, 1\]"),
        ({"X": np.ones((N, 2))}, r"X\[:, 1\] is a multiple of X\[:, 0\]: effects are those of minimum norm"),
        ({"X": np.hstack([X, X @ [[2.0], [1.0]]])}, r"X\[:, 2\] is a linear combination of X\[:, 0\], X\[:, 1\]"),
        ({"X": np.hstack([X, X]), "A": SQUARE}, r"X\[:, 2\] is a multiple of X\[:, 0\]"),
        ({"X": np.hstack([X, 0 * X])}, r"X\[:, 2\] is zero"),
    ],
)  # fmt: skip
def test_redundant_effects_are_warned_of_and_have_minimum_norm(
    restricted: bool, r: int, changes: dict[str, Any], message: str
) -> None:
    given = arguments(**changes)
    given["G"] = given["G"][:, :r]
    with pytest.warns(UserWarning, match=message):
        model = Kron2Sum(**given, restricted=restricted)
    dense = dense_at(model, given)
    assert_same_numbers(model, dense)
    assert_same_lml(model, dense, restricted)


def test_redundant_effects_do_not_change_a_fit() -> None:
    plain = Kron2Sum(**arguments(), rank=2, restricted=True)
    with pytest.warns(UserWarning, match=r"X\[:, 2\] is a linear combination"):
        redundant = Kron2Sum(**arguments(X=np.hstack([X, X @ [[2.0], [1.0]]])), rank=2, restricted=True)
    plain.fit(verbose=False)
    redundant.fit(verbose=False)
    np.testing.assert_allclose(redundant.lml(), plain.lml(), rtol=1e-9)
    np.testing.assert_allclose(redundant.mean(), plain.mean(), rtol=1e-6, atol=1e-8)
    g = np.random.default_rng(1).normal(size=(N, 1))
    ours, theirs = (model.get_fast_scanner().scan(np.eye(3), g) for model in (redundant, plain))
    for name in ("lml", "scale", "effsizes1", "effsizes1_se", "rank"):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("restricted", [False, True], ids=["ML", "REML"])
@pytest.mark.parametrize("r", [4, 30])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Y": with_column(Y, 0, np.zeros(N))}, r"Y\[:, 0\] is zero"),
        ({"Y": with_column(Y, 1, np.full(N, 7.0))}, r"Y\[:, 1\] is a multiple of X\[:, 0\]"),
        ({"Y": with_column(Y, 2, Y[:, 0])}, r"Y\[:, 2\] is a multiple of Y\[:, 0\]"),
        ({"Y": with_column(Y, 2, Y[:, 0] - 2 * Y[:, 1])}, r"Y\[:, 2\] is a linear combination of Y\[:, 0\], Y\[:, 1\]"),
        ({"Y": with_column(Y, 1, Y[:, 0] + X[:, 1])}, r"Y\[:, 1\] is a linear combination of X\[:, 1\], Y\[:, 0\]"),
        ({"G": np.zeros((N, 3))}, "the relationship matrix is zero given the covariates"),
        ({"G": np.empty((N, 0))}, "the relationship matrix is zero given the covariates"),
        ({"G": np.ones((N, 3)) * 1e-3}, "the relationship matrix is zero given the covariates"),
    ],
)  # fmt: skip
def test_where_there_is_no_maximum_there_are_numbers_but_no_fit(
    restricted: bool, r: int, changes: dict[str, Any], message: str
) -> None:
    given = arguments()
    given["G"] = given["G"][:, :r]
    given |= changes
    with pytest.warns(UserWarning, match=message):
        model = Kron2Sum(**given, restricted=restricted)
    dense = dense_at(model, given)
    assert_same_numbers(model, dense)
    assert_same_lml(model, dense, restricted)
    with pytest.raises(NumericalError, match=message):
        model.fit(verbose=False)


@pytest.mark.parametrize("restricted", [False, True], ids=["ML", "REML"])
@pytest.mark.parametrize("r", [1, 4, 30])
@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.filterwarnings("ignore:X.* effects are those of minimum norm:UserWarning")
def test_too_few_samples_have_numbers_but_no_fit(restricted: bool, r: int, n: int) -> None:
    given = arguments(A=SQUARE)
    given |= {"Y": given["Y"][:n], "X": given["X"][:n], "G": given["G"][:n, :r]}
    few = f"{n} samples are too few for 3 traits and {min(n, 2)} covariates: at least {3 + min(n, 2)} are needed"
    with pytest.warns(UserWarning, match=f"the likelihood has no maximum: {few}"):
        model = Kron2Sum(**given, restricted=restricted)
    dense = dense_at(model, given)
    assert_same_numbers(model, dense)
    assert_same_lml(model, dense, restricted)
    with pytest.raises(NumericalError, match=few):
        model.fit(verbose=False)
    scanner = model.get_fast_scanner()
    if n <= 2:
        assert (scanner.null_scale, scanner.null_lml()) == (0, np.inf)
        for refused in (lambda: scanner.scan(np.eye(3), np.ones((n, 1))), lambda: scanner.scan_block(np.ones((n, 1)))):
            with pytest.raises(NumericalError, match="the effects explain the traits completely"):
                refused()


def test_as_many_contrasts_as_traits_are_enough_for_a_maximum() -> None:
    given = arguments()
    given |= {name: given[name][:5] for name in ("Y", "X", "G")}
    with pytest.warns(UserWarning, match=r"5 samples of 3 traits are few for 6 fixed effects and 12 parameters"):
        model = Kron2Sum(**given, rank=3, restricted=True)
    model.fit(verbose=False)
    assert model.certificate is not None and model.certificate.certified
    best = model.lml()
    rng = np.random.default_rng(2)
    for _ in range(200):
        step0, step1 = (0.05 * rng.normal(size=(3, 3)) for _ in range(2))
        L0, L1 = model.L0 + step0 * np.abs(model.L0).max(), model.L1 + step1 * np.abs(model.L1).max()
        assert model.at(L0 @ L0.T, L1 @ L1.T).lml() < best


def test_the_start_does_not_need_a_positive_entry_of_G() -> None:
    """glimix-core divides G by its largest entry, be it negative or zero."""
    given = arguments()
    for G in (-np.abs(given["G"]), -np.maximum(given["G"], 0)):
        model = Kron2Sum(**(given | {"G": G}))
        assert np.isfinite(model.lml())
        assert np.linalg.matrix_rank(model.C0) == 1


def test_the_name_can_be_set() -> None:
    model = Kron2Sum(**arguments())
    assert model.name == "Kron2Sum"
    model.name = "mine"
    assert model.name == "mine"


def test_arguments_are_copied() -> None:
    given = arguments()
    model = Kron2Sum(**given, rank=2)
    before, B = model.lml(), model.B
    for name in ("Y", "A", "X", "G"):
        given[name][:] = 0
    assert model.lml() == before
    np.testing.assert_array_equal(model.B, B)


def test_a_model_that_is_not_fitted_has_a_likelihood_and_no_certificate() -> None:
    model = Kron2Sum(**arguments())
    assert np.isfinite(model.lml())
    assert model.certificate is None
    np.linalg.cholesky(model.C1)
    assert np.linalg.matrix_rank(model.C0) == 1


def test_at_leaves_the_model_as_it_was() -> None:
    model = Kron2Sum(**arguments(), rank=2, restricted=True)
    model.fit(verbose=False)
    lml, C0 = model.lml(), model.C0
    other = model.at(np.diag([1.0, 0.5, 0.0]), np.eye(3))
    np.testing.assert_allclose(other.C0, np.diag([1.0, 0.5, 0.0]), atol=1e-14)
    assert other.certificate is None
    assert model.certificate is not None and model.certificate.certified
    assert model.lml() == lml > other.lml()
    np.testing.assert_array_equal(model.C0, C0)
    again = other.at(model.C0, model.C1)
    np.testing.assert_allclose(again.lml(), lml, rtol=1e-12)
    other.fit(verbose=False)
    np.testing.assert_allclose(other.lml(), lml, rtol=1e-12)


@pytest.mark.parametrize(
    ("C0", "C1", "error", "message"),
    [
        (np.eye(2), np.eye(2), ValueError, r"C0 and C1 must be \(3, 3\); their shapes are \(2, 2\) and \(2, 2\)"),
        (np.eye(3), np.eye(3), ValueError, "C0 has rank above 2, the largest of this model"),
        (np.full((3, 3), np.nan), np.eye(3), ValueError, "C0 has values that are not finite"),
        (np.diag([1.0, 1.0, 0]), np.triu(np.ones((3, 3))), NumericalError, "must be symmetric"),
        (np.diag([1.0, -1.0, 0]), np.eye(3), NumericalError, "must be positive semi-definite"),
        (np.diag([1.0, 1.0, 0]), np.diag([1.0, 1.0, 0]), NumericalError, "zero or not finite"),
        (np.ones((3, 3)), np.ones((3, 3)), NumericalError, "singular: some traits are linear combinations"),
        (np.zeros((3, 3)), np.zeros((3, 3)), NumericalError, "zero or not finite"),
    ],
)
def test_at_refuses_what_is_not_a_pair_of_covariances(
    C0: Array, C1: Array, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Kron2Sum(**arguments(), rank=2).at(C0, C1)


def test_at_takes_a_C0_that_is_tiny_beside_C1() -> None:
    """Its rank is that of C0 alone: seen from C1, rounding makes it a full one."""
    rng, given = np.random.default_rng(0), arguments()
    L0, L1 = 1e-8 * rng.normal(size=(3, 1)), rng.normal(size=(3, 3))
    model = Kron2Sum(**given).at(L0 @ L0.T, L1 @ L1.T)
    expected = Dense(Data(given["Y"], given["A"], given["X"], given["G"]), L0 @ L0.T, L1 @ L1.T)
    np.testing.assert_allclose(model.covariance(), expected.K, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(model.lml(), expected.lml(False), rtol=1e-12)


def test_singular_C1_is_a_point_where_GG_is_positive_definite_only() -> None:
    given = arguments()
    C0, C1 = np.eye(3), np.diag([0.0, 1.0, 1.0])
    assert np.isfinite(Kron2Sum(**given, rank=3).at(C0, C1).lml())
    with pytest.raises(NumericalError, match="the likelihood is not defined: C1 is singular where GGᵀ is singular"):
        Kron2Sum(**(given | {"G": given["G"][:, :5]}), rank=3).at(C0, C1)
    centred = given["G"] - given["G"].mean(axis=0)
    assert np.isfinite(Kron2Sum(**(given | {"G": centred}), rank=3, restricted=True).at(C0, C1).lml())


def test_the_package_names_what_is_public() -> None:
    assert set(kron2sum_cli.__all__) == {"Kron2Sum", "Kron2SumCov", "__version__"}
    assert issubclass(NumericalError, Kron2SumError)
    with pytest.raises(AttributeError, match="has no attribute 'Kron3Sum'"):
        kron2sum_cli.Kron3Sum  # noqa: B018
