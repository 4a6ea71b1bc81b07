"""Fits on the observed cells, and how precisely they know C0 and C1."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from missing_oracle import PATTERNS, Array, Observed, problem
from scipy.optimize import minimize

from benchmarks.missing_optima import Case, simulate, simulate_larger
from kron2sum_cli.errors import ConvergenceError
from kron2sum_cli.model import fitting as complete
from kron2sum_cli.model import uncertainty
from kron2sum_cli.model.contrasts import rotate_coupled
from kron2sum_cli.model.fitting import starting_axes
from kron2sum_cli.model.information import direction_covariance as complete_covariance
from kron2sum_cli.model.information import observed_information
from kron2sum_cli.model.likelihood import evaluate as evaluate_complete
from kron2sum_cli.model.missing import fitting as missing_fitting
from kron2sum_cli.model.missing import information as precision
from kron2sum_cli.model.missing.fitting import (
    ObservedFit,
    ObservedLikelihood,
    best_of,
    change_of_scores,
    climb,
    climb_near,
    corrected_start,
    fit,
    fits,
    vanishing_combination,
)
from kron2sum_cli.model.missing.likelihood import evaluate
from kron2sum_cli.model.missing.observed import ObservedCells, observed_cells, observed_spectrum, without_missing
from kron2sum_cli.model.spectrum import spectrum_of_features
from kron2sum_cli.model.trait_axes import TraitAxes, axes_of_covariances


def cells(dense: Observed, G: Array) -> ObservedCells:
    return observed_cells(spectrum_of_features(G, np.empty((len(G), 0))), dense.Y, dense.A, dense.X)


def best_by_lbfgs(dense: Observed, rank: int, reml: bool, starts: int = 3) -> float:
    """The highest dense log-likelihood of L-BFGS on factors."""
    p = len(dense.C0)
    tril = np.tril_indices(p)
    eye = np.eye(len(dense.R))

    def unpack(x: Array) -> tuple[Array, Array]:
        L1 = np.zeros((p, p))
        L1[tril] = x[p * rank :]
        return x[: p * rank].reshape(p, rank), L1

    def objective(x: Array) -> tuple[float, Array]:
        L0, L1 = unpack(x)
        here = replace(dense, C0=L0 @ L0.T, C1=L1 @ L1.T + 1e-10 * np.eye(p))
        basis = np.eye(p)
        gradient = [np.zeros((p, p)), np.zeros((p, p))]
        for k, R in enumerate((dense.R, eye)):
            for i in range(p):
                for j in range(i + 1):
                    E = np.outer(basis[i], basis[j])
                    gradient[k][i, j] = gradient[k][j, i] = 0.5 * here.slope(E + E.T, R, reml)
        return -here.lml(reml), -np.concatenate([(2 * gradient[0] @ L0).ravel(), (2 * gradient[1] @ L1)[tril]])

    rng = np.random.default_rng(0)
    best = -np.inf
    for _ in range(starts):
        x0 = 0.5 * rng.normal(size=p * rank + tril[0].size)
        x0[p * rank :][tril[0] == tril[1]] = 0.8
        best = max(best, -float(minimize(objective, x0, jac=True, method="L-BFGS-B", options={"gtol": 1e-6}).fun))
    return best


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_fit_is_the_maximum(reml: bool, pattern: str) -> None:
    dense, G = problem(1, 0.3, pattern, n=40, p=2)
    found = fit(cells(dense, G), 2, reml)
    assert found.certificate.certified
    assert found.point.lml >= best_by_lbfgs(dense, 2, reml) - 1e-6
    at_fit = replace(dense, C0=found.point.axes.C0, C1=found.point.axes.C1)
    assert found.point.lml == pytest.approx(at_fit.lml(reml), abs=1e-7)


@pytest.mark.parametrize("seed", [1, 5, 7])
def test_climbs_from_several_starts_end_at_the_same_place(seed: int) -> None:
    """To a ten-millionth: gains there are a thousand times less than likelihoods can tell."""
    dense, G = problem(seed, n=80, r=120)
    data = cells(dense, G)
    first, second, third = (
        climb(data, axes_of_covariances(a * dense.C0, b * dense.C1, data.mean_eigenvalue), 3, True).point.axes
        for a, b in ((1, 1), (0.5, 2), (2, 0.5))
    )
    for other in (second, third):
        np.testing.assert_allclose(other.C0, first.C0, rtol=0, atol=1e-7 * first.C0.max())
        np.testing.assert_allclose(other.C1, first.C1, rtol=0, atol=1e-7 * first.C1.max())


@pytest.mark.parametrize("reml", [True, False])
def test_a_fit_of_lower_rank(reml: bool) -> None:
    dense, G = problem(2, n=40)
    found = fit(cells(dense, G), 1, reml)
    assert np.linalg.matrix_rank(found.point.axes.C0, tol=1e-9) == 1
    assert found.certificate.certified
    assert found.point.lml >= best_by_lbfgs(dense, 1, reml, 2) - 1e-6


@pytest.mark.parametrize("reml", [True, False])
def test_without_missing_cells_it_is_the_fit_of_complete_traits(reml: bool) -> None:
    dense, G = problem(3, n=150)
    filled = np.where(np.isnan(dense.Y), np.random.default_rng(0).normal(size=dense.Y.shape), dense.Y)
    coupled = rotate_coupled(spectrum_of_features(G, np.empty((150, 0))), filled, dense.A, dense.X)
    expected = complete.fit(coupled, 3, reml)
    found = fit(without_missing(coupled, dense.X), 3, reml)
    assert found.point.lml == pytest.approx(expected.point.lml, abs=1e-7)
    np.testing.assert_allclose(found.point.axes.C0, expected.point.axes.C0, atol=1e-3)
    np.testing.assert_allclose(found.point.axes.C1, expected.point.axes.C1, atol=1e-3)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_corrected_start_is_nearer_than_the_fit_of_filled_traits(share: float) -> None:
    dense, G = problem(4, share, n=400, p=2, r=800)
    data = cells(dense, G)
    filled = complete.fit(data.filled, 2, True).point.axes
    lml = [evaluate(data, axes, True).lml for axes in (filled, corrected_start(data, filled))]
    assert lml[1] > lml[0]
    found = climb(data, corrected_start(data, filled), 2, True)
    assert found.certificate.certified
    assert found.certificate.evaluations <= 10


def test_a_boundary_of_C0_is_reached_exactly() -> None:
    dense, G = problem(5, n=80, p=3)
    rng = np.random.default_rng(1)
    noise = np.where(np.isnan(dense.Y), np.nan, rng.normal(size=dense.Y.shape))
    found = fit(cells(replace(dense, Y=noise), G), 3, True)
    assert found.certificate.certified
    assert found.certificate.active_C0 > 0
    assert found.certificate.smallest_C0 == 0


def test_a_boundary_of_C1_is_reached_where_the_covariates_have_variance() -> None:
    dense, G = problem(6, 0.2, n=60, p=2, r=90)
    rng = np.random.default_rng(2)
    G = G - G.mean(axis=0)
    Y = np.where(np.isnan(dense.Y), np.nan, G @ rng.normal(size=(90, 2)))
    spectrum, prior = observed_spectrum(G, dense.X, True, True)
    found = fit(observed_cells(spectrum, Y, dense.A, dense.X, prior), 2, True)
    assert found.certificate.certified
    assert found.certificate.active_C1 > 0


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_a_trait_design_that_does_not_fit_is_no_slower(seed: int) -> None:
    """The average information of what the design leaves in the residuals is a multiple of the observed one."""
    rng, n = np.random.default_rng(seed), 80
    G = rng.normal(size=(n, 2 * n)) / np.sqrt(2 * n)
    X = np.hstack([np.ones((n, 1)), rng.normal(size=(n, 1))])
    Y = G @ rng.normal(size=(2 * n, 2)) + rng.normal(size=(n, 2)) + 10 * X @ rng.normal(size=(2, 2))
    A = rng.normal(size=(2, 1))
    Y[rng.random(Y.shape) < 0.05] = np.nan
    data = observed_cells(spectrum_of_features(G, np.empty((n, 0))), Y, A, X)
    found = [climb(data, starting_axes(data.filled, share), 2, True) for share in (0.5, 0.1)]
    assert all(f.certificate.certified and f.certificate.steps <= 60 for f in found)
    np.testing.assert_allclose(found[0].point.lml, found[1].point.lml, rtol=1e-8)


def test_a_likelihood_without_a_maximum_says_so() -> None:
    dense, G = problem(7, 0.2, n=60, p=2, r=20)
    Y = np.where(np.isnan(dense.Y), np.nan, dense.Y - dense.Y + (G @ G.T @ np.ones((60, 2))) * [1.0, -2.0])
    Y[:, 1] += np.where(np.isnan(Y[:, 1]), 0, G @ np.random.default_rng(0).normal(size=20))
    with pytest.raises(ConvergenceError, match="tends to a singular matrix") as caught:
        fit(cells(replace(dense, Y=Y), G), 2, True)
    assert caught.value.result.point.lml > 0


@pytest.mark.parametrize(
    ("case", "lml"),
    [
        pytest.param(simulate(42), -239.766136, id="a search from every start ends 0.094 below, beside another face"),
        pytest.param(simulate(16), -144.878077, id="0.695 below, where a residual correlation has the other sign"),
        pytest.param(simulate_larger(2), -313.803830, id="0.108 below, with more samples but few cells of each trait"),
    ],
)
def test_an_optimum_beside_another_is_found(case: Case, lml: float) -> None:
    """Log-likelihoods are the best of searches from 20 random starts (`benchmarks/missing_optima.py`)."""
    found = fit(case.cells, case.rank, case.reml)
    assert found.certificate.certified
    assert found.point.lml >= lml - 1e-5


def derived_trait(seed: int, nboth: int) -> tuple[Observed, Array]:
    """Trait 2 is 1 + 2 * trait 1 in the ``nboth`` samples that have both."""
    dense, G = problem(seed, 0.0, n=40, p=2, r=60)
    Y = np.where(np.isnan(dense.Y), 0.0, dense.Y)
    both = slice(18, 18 + nboth)
    Y[both, 1] = 1 + 2 * Y[both, 0]
    Y[:18, 1] = Y[18 + nboth :, 0] = np.nan
    return replace(dense, Y=Y, X=np.ones((40, 1))), G


def test_a_combination_of_traits_without_variance_is_said() -> None:
    dense, G = derived_trait(0, 3)
    with pytest.raises(ConvergenceError, match=r"too few samples \(3\) have all of traits 1 and 2, and") as caught:
        fit(cells(dense, G), 2, True)
    axes = caught.value.result.point.axes
    combination = np.linalg.svd(axes.Tinv)[0][:, -1]
    np.testing.assert_allclose(combination / combination[1], [-2, 1], atol=1e-4)
    # Two contrasts of three samples: the density grows by a factor of 100 as the variance falls by one of 100.
    left = np.eye(2) - np.outer(combination, combination)
    lml = []
    for variance in (1e-3, 1e-5, 1e-7):
        C1 = left @ axes.C1 @ left + variance * np.outer(combination, combination)
        lml.append(replace(dense, C0=left @ axes.C0 @ left, C1=C1).lml(True))
    np.testing.assert_allclose(np.diff(lml), np.log(100), rtol=0.05)


@pytest.mark.parametrize(("nboth", "variance"), [(3, 1e-5), (1, 2e-4)])
@pytest.mark.parametrize("certified", [True, False])
def test_a_combination_that_loses_its_variance_slowly_is_said(certified: bool, nboth: int, variance: float) -> None:
    """Where few samples have all of many traits a climb ends its steps far from where the variance is 0.

    The farther the fewer, down to less samples than traits.
    """
    dense, G = derived_trait(0, nboth)
    data = cells(dense, G)
    end = climb(data, starting_axes(data.filled, 0.5), 2, True)
    near = np.array([[0.5, 1], [1, 2 + variance]])
    point = evaluate(data, axes_of_covariances(near, near, data.mean_eigenvalue), True)
    gain = 0.0 if certified else 0.1
    slow = replace(end, point=point, certificate=replace(end.certificate, predicted_gain=gain, cone_gain=0.0))
    if certified:
        assert best_of([slow], data) is slow
        return
    with pytest.raises(ConvergenceError, match=rf"too few samples \({nboth}\) have all of traits 1 and 2"):
        best_of([slow], data)
    if nboth == 1:  # where the samples are more than the traits another reason is as likely
        with pytest.raises(ConvergenceError, match="did not converge"):
            best_of([slow], replace(data, rows=data.rows[:0], traits=data.traits[:0]))


def test_a_lower_rank_is_not_begun_where_full_rank_ran_to() -> None:
    """The likelihood is not defined there; the first start of all is left."""
    dense, G = derived_trait(0, 3)
    with pytest.raises(ConvergenceError, match=r"too few samples \(3\)"):
        fit(cells(dense, G), 1, True)


def test_a_local_maximum_beside_a_combination_without_variance_is_taken() -> None:
    """Other searches run away, to higher likelihoods."""
    dense, G = derived_trait(1, 4)
    data = cells(dense, G)
    found = fit(data, 2, True)
    assert found.certificate.certified
    assert not vanishing_combination(found.point.axes).any()
    near = np.array([[0.5, 1], [1, 2 + 1e-5]])
    start = axes_of_covariances(near, near, data.mean_eigenvalue)
    away = climb(data, start, 2, True)
    assert not away.certificate.certified
    assert vanishing_combination(away.point.axes).all()
    assert away.point.lml > found.point.lml


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("r", [90, 20])
@pytest.mark.parametrize("a", [None, 2])
@pytest.mark.parametrize("over_rows", [True, False])
@pytest.mark.parametrize("largest", [1 << 25, 3000])
def test_the_information_is_minus_the_change_of_the_score(
    reml: bool, r: int, a: int | None, over_rows: bool, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its matrices are made in parts."""
    monkeypatch.setattr(precision, "goes_over_rows", lambda *sizes: over_rows)
    monkeypatch.setattr(precision, "LARGEST_PART", largest)
    dense, G = problem(8, r=r, a=a)
    data = cells(dense, G)
    tau = data.mean_eigenvalue
    axes = axes_of_covariances(dense.C0, dense.C1, tau)
    found = precision.information(evaluate(data, axes, reml))
    i, j = np.tril_indices(3)
    N, h = i.size, 1e-4

    def score(k: int, E: Array, step: float) -> Array:
        change = step * axes.Tinv @ E @ axes.Tinv.T
        moved = evaluate(data, axes_of_covariances(dense.C0 + (k == 0) * change, dense.C1 + k * change, tau), reml)
        back = moved.axes.T @ axes.Tinv
        entries = [np.where(i == j, 1, 2) * (back.T @ S @ back)[i, j] for S in (moved.score0, moved.score1)]
        return np.concatenate(entries)

    for column in range(2 * N):
        k, pair = divmod(column, N)
        E = np.zeros((3, 3))
        E[i[pair], j[pair]] = E[j[pair], i[pair]] = 1
        near, far = (score(k, E, m * h) - score(k, E, -m * h) for m in (1, 2))
        expected = -(8 * near - far) / (12 * h)
        np.testing.assert_allclose(found[:, column], expected, rtol=1e-6, atol=1e-6 * np.abs(found).max())


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("r", [90, 20])
@pytest.mark.parametrize("over_rows", [True, False])
def test_without_missing_cells_it_is_the_information_of_complete_traits(
    reml: bool, r: int, over_rows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "goes_over_rows", lambda *sizes: over_rows)
    dense, G = problem(9, r=r)
    filled = np.where(np.isnan(dense.Y), 1.0, dense.Y)
    coupled = rotate_coupled(spectrum_of_features(G, np.empty((60, 0))), filled, dense.A, dense.X)
    axes = axes_of_covariances(dense.C0, dense.C1, coupled.mean_eigenvalue)
    expected = observed_information(evaluate_complete(coupled, axes, reml))
    found = precision.information(evaluate(without_missing(coupled, dense.X), axes, reml))
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8)


def test_a_corrected_curvature_is_the_observed_information_of_points_near_by() -> None:
    """In their own axes; what is added to the average information was found at another point."""
    dense, G = problem(8, r=20)
    data = cells(dense, G)
    here, near = (
        axes_of_covariances(scale * dense.C0, scale * dense.C1 + small * np.eye(3), data.mean_eigenvalue)
        for scale, small in ((1.0, 0.0), (1.001, 1e-4))
    )
    plain = ObservedLikelihood(data, True)
    corrected = plain.corrected(plain.evaluate(here))
    for axes, tolerance in ((here, 1e-12), (near, 0.005)):
        mirrored = TraitAxes(-axes.T, -axes.Tinv, axes.c0, axes.c1)
        point = plain.evaluate(mirrored)
        rng = np.random.default_rng(0)
        E0, E1 = (E + E.T for E in rng.normal(size=(2, 3, 3)))
        exact, found, average = (
            np.array(change(E0, E1))
            for change in (
                partial(change_of_scores, precision.information(point)),
                corrected.curvature(point).change,
                plain.curvature(point).change,
            )
        )
        assert np.abs(found - exact).max() < tolerance * np.abs(exact).max()
        assert np.abs(average - exact).max() > 0.05 * np.abs(exact).max()


def test_the_average_information_is_near_the_observed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    dense, G = problem(10, n=600, p=2, r=900)
    found = fit(cells(dense, G), 2, True)
    exact = precision.direction_covariance(found.point, 2)
    monkeypatch.setattr(precision, "EXACT_ENTRIES", 0)
    monkeypatch.setattr(precision, "EXACT_OPERATIONS", 0)
    average = precision.direction_covariance(found.point, 2)
    for name in ("v00", "v11"):
        a, b = (np.sqrt(np.diag(getattr(x, name))) for x in (exact, average))
        np.testing.assert_allclose(a, b, rtol=0.15)


def test_no_rank_ends_below_a_lower_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever its searches end: those of full rank do not look beside an optimum here."""
    case, best_beside = simulate(16), missing_fitting.best_beside

    def beside_lower_ranks(
        best: ObservedFit, data: ObservedCells, climb_from: Callable[[TraitAxes], ObservedFit]
    ) -> ObservedFit:
        return best if best.rank == 3 else best_beside(best, data, climb_from)

    monkeypatch.setattr(missing_fitting, "best_beside", beside_lower_ranks)
    assert fit(case.cells, 3, case.reml).point.lml < -145
    lower, full = fits(case.cells, [2, 3], case.reml)
    assert (lower.rank, full.rank, full.certificate.certified) == (2, 3, True)
    assert full.point.lml >= lower.point.lml - 1e-6 > -145


def test_traits_with_few_common_samples_are_searched_where_their_heritabilities_differ() -> None:
    """Eight samples have both traits. The maximum, here to 5 digits, was found by many random starts."""
    rng = np.random.default_rng(68)
    G, L0, L1 = rng.normal(size=(30, 30)) / np.sqrt(30), rng.normal(size=(2, 1)), rng.normal(size=(2, 1))
    G += np.repeat(rng.normal(size=(3, 30)), 10, axis=0) * np.sqrt(0.01)
    Y = G @ rng.normal(size=(30, 1)) @ L0.T + rng.normal(size=(30, 1)) @ L1.T + 0.1 * rng.normal(size=(30, 2))
    Y[8:, 0] = np.nan
    C0, C1 = np.array([[1.26339, 0.59239], [0.59239, 0.27777]]), np.array([[1.90403, 0.71667], [0.71667, 0.38174]])
    dense = Observed(Y, np.eye(2), np.ones((30, 1)), G @ G.T, C0, C1)
    data = observed_cells(spectrum_of_features(G, np.empty((30, 0))), Y, dense.A, dense.X)
    lower = climb(data, starting_axes(data.filled, 0.5), 2, False)
    assert lower.point.lml < dense.lml(False) - 0.005
    for found in (fit(data, 2, False), climb_near(data, lower.point.axes, 2, False)):
        assert found.certificate.certified
        assert found.point.lml > dense.lml(False) - 1e-6


def test_missing_cells_make_estimates_less_precise() -> None:
    dense, G = problem(11, 0.0, n=300, p=2, r=500)
    whole = cells(replace(dense, Y=np.where(np.isnan(dense.Y), 0.0, dense.Y)), G)
    Y = whole.filled.V @ whole.filled.Z
    Y[np.random.default_rng(0).random(Y.shape) < 0.3] = np.nan
    some = cells(replace(dense, Y=Y), G)
    spread = []
    for data in (whole, some):
        point = evaluate(data, axes_of_covariances(dense.C0, dense.C1, data.mean_eigenvalue), True)
        spread.append(np.diag(precision.direction_covariance(point, 2).v00))
    assert np.all(spread[1] > spread[0])
    assert complete_covariance is uncertainty.direction_covariance
