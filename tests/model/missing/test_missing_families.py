"""Observed cells of families against the dense Gaussian of these cells, and against the model with a dense matrix."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from made_up_families import Case, covariances, simulated
from missing_oracle import Observed
from numpy.typing import NDArray
from scipy import sparse

from kron2sum_cli.errors import NumericalError, VanishingCombinationError
from kron2sum_cli.model import bartlett
from kron2sum_cli.model.bartlett import bartlett_factors
from kron2sum_cli.model.bootstrap import normal_errors, simulated_normal
from kron2sum_cli.model.conditioning import conditioned_scanner, given_variants
from kron2sum_cli.model.families import observed_fitting
from kron2sum_cli.model.families.null_model import likelihood_of_families, restored_families
from kron2sum_cli.model.families.observed import Families, ObservedFamilies, observed_families
from kron2sum_cli.model.families.observed_likelihood import ObservedFamilyPoint, evaluate
from kron2sum_cli.model.families.observed_scanner import observed_family_scanner, observed_family_set_scores
from kron2sum_cli.model.families.spectrum import family_spectrum
from kron2sum_cli.model.hypotheses import named_hypothesis
from kron2sum_cli.model.missing import information as dense_information
from kron2sum_cli.model.missing.fitting import vanishing_combination
from kron2sum_cli.model.missing.likelihood import evaluate as evaluate_dense
from kron2sum_cli.model.missing.observed import effects_left_out, observed_cells, observed_spectrum
from kron2sum_cli.model.missing.scanner import observed_scanner
from kron2sum_cli.model.null_model import (
    FAMILIES,
    NullLikelihood,
    NullModel,
    TraitData,
    null_likelihood,
    rotate_samples,
)
from kron2sum_cli.model.profile import heritability_interval
from kron2sum_cli.model.trait_axes import axes_of_covariances

Array = NDArray[np.float64]

DESIGNS = [(40, 2, 1, 0.2), (45, 3, 4, 0.1), (50, 2, 0, 0.3), (30, 4, 2, 0.2)]


def with_missing(case: Case, share: float, seed: int = 1) -> Case:
    """The same case with cells missing at random, and a sample without any trait."""
    Y = case.Y.copy()
    Y[np.random.default_rng(seed).random(Y.shape) < share] = np.nan
    Y[3] = np.nan
    return Case(case.K, case.X, Y)


def cells_of(case: Case) -> ObservedFamilies:
    left_out = effects_left_out(case.Y, np.eye(case.Y.shape[1]), case.X)
    return observed_families(family_spectrum(sparse.csr_array(case.K)), case.Y, case.X, left_out)


def point_of(case: Case, reml: bool) -> tuple[ObservedFamilyPoint, Observed]:
    data, (C0, C1) = cells_of(case), covariances(case.Y.shape[1])
    point = evaluate(data, axes_of_covariances(C0, C1, data.mean_eigenvalue), reml)
    return point, Observed(case.Y, np.eye(case.Y.shape[1]), case.X, case.K, C0, C1)


@pytest.mark.parametrize("reml", [True, False], ids=["REML", "ML"])
@pytest.mark.parametrize(("n", "p", "c", "share"), DESIGNS)
def test_it_is_the_gaussian_of_the_observed_cells(n: int, p: int, c: int, share: float, reml: bool) -> None:
    point, dense = point_of(with_missing(simulated(n, p, c), share), reml)
    assert point.lml == pytest.approx(dense.lml(reml), rel=1e-12)
    assert point.quadratic == pytest.approx(dense.y @ dense.Q @ dense.y, rel=1e-10)
    E = np.random.default_rng(2).normal(size=(p, p))
    T, E = point.axes.T, E + E.T
    for score, R in ((point.score0, dense.R), (point.score1, np.eye(n))):
        assert np.sum((T.T @ score @ T) * E) == pytest.approx(dense.slope(E, R, reml), rel=1e-9, abs=1e-9)
    B, covariance = observed_fitting.fixed_effects(point)
    np.testing.assert_allclose(B.T.ravel(), dense.beta, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(covariance, dense.B_covariance.reshape(covariance.shape), rtol=1e-9, atol=1e-12)


def test_relatedness_of_samples_without_relatives_may_differ() -> None:
    case = with_missing(simulated(60, 3, 2, largest=3), 0.2)
    singles = np.count_nonzero(case.K, axis=1) == 1
    K = case.K.copy()
    K[singles, singles] = 1.0
    K[np.flatnonzero(singles)[::3], np.flatnonzero(singles)[::3]] = 0.97
    for matrix in (K, case.K):
        point, dense = point_of(Case(matrix, case.X, case.Y), True)
        assert point.lml == pytest.approx(dense.lml(True), rel=1e-12)
        check_statistics(point, dense)


def check_statistics(point: ObservedFamilyPoint, dense: Observed) -> None:
    n = len(dense.Y)
    G = np.random.default_rng(5).binomial(2, 0.3, size=(n, 6)).astype(float)
    found = observed_family_scanner(point, np.float64).statistics(G)
    Tinv = point.axes.Tinv
    for k, g in enumerate(G.T):
        columns = np.kron(Tinv, g[:, None])[dense.seen]
        np.testing.assert_allclose(found.u[k], columns.T @ dense.Q @ dense.y, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(found.v[k], columns.T @ dense.Q @ columns, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("reml", [True, False], ids=["REML", "ML"])
@pytest.mark.parametrize(("n", "p", "c", "share"), DESIGNS)
def test_statistics_of_variants(n: int, p: int, c: int, share: float, reml: bool) -> None:
    check_statistics(*point_of(with_missing(simulated(n, p, c), share), reml))


def test_statistics_of_sets_and_of_two_columns() -> None:
    point, dense = point_of(with_missing(simulated(45, 3, 4), 0.2), True)
    rng, p = np.random.default_rng(6), 3
    G, H = rng.binomial(2, 0.3, size=(2, 45, 4)).astype(float)
    scores = observed_family_set_scores(point, G)
    columns = np.kron(point.axes.Tinv, G)[dense.seen]
    V = (columns.T @ dense.Q @ columns).reshape(p, 4, p, 4).transpose(0, 2, 1, 3)
    np.testing.assert_allclose(scores.V, V, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(scores.u.T.ravel(), columns.T @ dense.Q @ dense.y, rtol=1e-8, atol=1e-9)
    pair = observed_family_scanner(point, np.float64).pair_statistics(G, H)
    for k in range(4):
        g, h = (np.kron(point.axes.Tinv, one[:, [k]])[dense.seen] for one in (G, H))
        np.testing.assert_allclose(pair.cross[k], g.T @ dense.Q @ h, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(pair.second.v[k], h.T @ dense.Q @ h, rtol=1e-8, atol=1e-9)


def test_small_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    case = with_missing(simulated(60, 3, 2), 0.2)
    whole, dense = point_of(case, True)
    monkeypatch.setattr("kron2sum_cli.model.families.observed.ENTRIES_AT_ONCE", 1)
    monkeypatch.setattr("kron2sum_cli.model.families.observed_scanner.NUMBERS_AT_ONCE", 1)
    monkeypatch.setattr("kron2sum_cli.model.families.observed_scanner.SAMPLES_AT_ONCE", 7)
    point, _ = point_of(case, True)
    assert len(point.data.groups) > len(whole.data.groups)
    assert point.lml == pytest.approx(whole.lml, rel=1e-13)
    check_statistics(point, dense)


def test_single_precision_differs_by_rounding_and_is_left_where_it_does_not_do() -> None:
    """A variant that only samples without a trait carry, nearly, is computed in double."""
    case = with_missing(simulated(300, 4, 5, seed=3), 0.1)
    case.Y[:, 2] *= 1e-3
    point, _ = point_of(case, True)
    G = np.random.default_rng(6).binomial(2, 0.2, size=(300, 40)).astype(float)
    G[:, 7] = np.isnan(case.Y[:, 1])
    G[:, 8] = G[:, 7] + 1e-2 * G[:, 0]
    G -= G.mean(axis=0)
    exact = observed_family_scanner(point, np.float64).statistics(G)
    found = observed_family_scanner(point).statistics(G.astype(np.float32))
    size = np.sqrt(np.einsum("bjj->bj", exact.v))
    assert np.all(np.abs(found.u - exact.u) < 1e-4 * np.abs(exact.u).max(axis=0))
    kept = np.arange(40) != 7
    scaled = np.abs(found.v - exact.v) / (size[:, :, None] * size[:, None, :])
    assert scaled[kept].max() < 5e-6
    assert scaled[8].max() < 1e-5
    assert found.length[7] == exact.length[7] == 0
    assert np.all(found.length[kept] > 1)


@pytest.mark.parametrize("reml", [True, False], ids=["REML", "ML"])
@pytest.mark.parametrize(("n", "p", "c", "share"), [(45, 3, 4, 0.1), (30, 4, 0, 0.2)])
def test_information_equals_that_of_the_dense_matrix(n: int, p: int, c: int, share: float, reml: bool) -> None:
    """Observed and average, in the axes of the same covariances."""
    case = with_missing(simulated(n, p, c), share)
    C0, C1 = covariances(p)
    spectrum, _ = observed_spectrum(case.K.copy(), case.X, False, False)
    dense = observed_cells(spectrum, case.Y, np.eye(p), case.X)
    axes = axes_of_covariances(C0, C1, dense.mean_eigenvalue)
    expected, found = evaluate_dense(dense, axes, reml), evaluate(cells_of(case), axes, reml)
    np.testing.assert_allclose(found.score0, expected.score0, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(found.score1, expected.score1, rtol=1e-8, atol=1e-9)
    for name in ("score_products", "trace_products"):
        one, other = (
            getattr(module, name)(q)
            for module, q in zip((observed_fitting, dense_information), (found, expected), strict=True)
        )
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-8 * np.abs(other).max(), err_msg=name)
    G = np.random.default_rng(5).binomial(2, 0.3, size=(n, 6)).astype(float)
    ours = observed_family_scanner(found, np.float64).statistics(G)
    theirs = observed_scanner(expected, np.float64).statistics(G)
    for name in ("u", "v", "length", "outside"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-8, atol=1e-9, err_msg=name)


@dataclass(frozen=True)
class Both:
    """The same case with families and with the dense matrix, both fitted."""

    case: Case
    found: NullModel
    dense: NullModel


@lru_cache
def fitted(p: int, c: int, share: float, reml: bool, rank: int, n: int) -> Both:
    case = with_missing(simulated(n, p, c, seed=4), share)
    data = TraitData(case.Y, np.eye(p), case.X)
    of_families = likelihood_of_families(family_spectrum(sparse.csr_array(case.K)), data, reml)
    dense = null_likelihood(rotate_samples(case.K.copy(), False, data, reml), data, reml)
    models = [likelihood.null_model(likelihood.fit(rank)) for likelihood in (of_families, dense)]
    return Both(case, *models)


@pytest.mark.parametrize(
    ("p", "c", "share", "rank", "reml"),
    [
        (2, 1, 0.2, 2, True),
        (2, 0, 0.05, 1, False),
        (3, 5, 0.05, 3, True),
        (3, 5, 0.05, 3, False),
        (4, 5, 0.2, 1, False),
        (3, 1, 0.01, 1, True),
    ],
)
def test_null_model_equals_that_of_the_dense_matrix(p: int, c: int, share: float, rank: int, reml: bool) -> None:
    both = fitted(p, c, share, reml, rank, 300 if p == 2 else 120)
    assert both.found.summary.certificate.certified
    assert both.found.summary.lml == pytest.approx(both.dense.summary.lml, abs=1e-7)
    for name in ("C0", "C1", "C0_se", "C1_se", "h2", "h2_se", "rg", "rg_se", "re", "re_se", "B", "B_se"):
        ours, theirs = (getattr(model.summary.estimates, name) for model in (both.found, both.dense))
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5, err_msg=name)
    assert both.found.spans_intercept == both.dense.spans_intercept == (c > 0)


def test_intervals_and_predictions_equal_those_of_the_dense_matrix() -> None:
    both = fitted(2, 1, 0.2, True, 2, 300)
    intervals = [
        heritability_interval(model.point, 0, model.summary.mean_diagonal, 2) for model in (both.found, both.dense)
    ]
    assert intervals[0].low == pytest.approx(intervals[1].low, abs=1e-4)
    cells = [model.missing_cells() for model in (both.found, both.dense)]
    order = [np.lexsort((one.rows, one.traits)) for one in cells]
    for name in ("rows", "traits", "mean", "variance"):
        ours, theirs = (getattr(one, name)[some] for one, some in zip(cells, order, strict=True))
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4, err_msg=name)
    K, X = both.case.K[:, :7], np.random.default_rng(3).normal(size=(7, 1))
    predicted = []
    for predictor in (both.found.predictor(), both.dense.predictor()):
        genetic = predictor.genetic_values(K, np.diag(both.case.K)[:7])
        predicted.append((genetic, predictor.new_cells(genetic, K, X)))
    for ours, theirs in zip(*predicted, strict=True):
        np.testing.assert_allclose(ours.mean, theirs.mean, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(ours.variance, theirs.variance, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("design", [np.eye(2), np.ones((2, 1))], ids=["any", "common"])
def test_refits_equal_those_of_the_dense_matrix(design: Array) -> None:
    both = fitted(2, 1, 0.2, True, 2, 300)
    G = np.random.default_rng(8).binomial(2, 0.4, size=(300, 2)).astype(float)
    refits = [model.refits().of_variants(G, np.zeros(2))(design) for model in (both.found, both.dense)]
    np.testing.assert_allclose(refits[0].lml, refits[1].lml, atol=1e-5)
    np.testing.assert_allclose(refits[0].beta, refits[1].beta, atol=1e-4)
    np.testing.assert_allclose(refits[0].se, refits[1].se, rtol=1e-3)


def test_the_bartlett_factor_of_refits(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("FEWEST_TRAITS", "MOST_TRAITS"):
        monkeypatch.setattr(bartlett, limit, 30)  # known to 0.03 each
    both = fitted(2, 1, 0.2, True, 2, 60)
    hypotheses = [named_hypothesis("any", ("a", "b"))]
    factors = [bartlett_factors(model.refits(), hypotheses, 1)[0] for model in (both.found, both.dense)]
    assert factors[0] == pytest.approx(factors[1], abs=0.06)


def test_given_variants_and_simulated_traits_equal_those_of_the_dense_matrix() -> None:
    both = fitted(2, 1, 0.2, True, 2, 300)
    rng = np.random.default_rng(9)
    G, S = rng.binomial(2, 0.4, size=(300, 5)).astype(float), rng.binomial(2, 0.4, size=(300, 2)).astype(float)
    in_traits, quadratic = [], []
    for model in (both.found, both.dense):
        given = given_variants(model, S, both.case.X)
        statistics = conditioned_scanner(model.scanner(np.float64), given).statistics(G)
        T = model.summary.axes.T
        in_traits.append((statistics.u @ T, np.einsum("ja,bjk,kc->bac", T, statistics.v, T)))
        simulated = simulated_normal(model, normal_errors(1, 400, 300, 2), given, np.float64)
        quadratic.append(simulated.quadratic.mean())
        nobserved = np.count_nonzero(np.isfinite(both.case.Y))
        assert quadratic[-1] == pytest.approx(nobserved - 2 - 4, rel=0.02)
    for ours, theirs in zip(*in_traits, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_covariate_that_a_traits_samples_do_not_show_is_left_out_of_its_effects() -> None:
    case = with_missing(simulated(80, 2, 2, seed=6), 0.1)
    batch = np.zeros(80)
    batch[:10] = 1
    case.Y[:10, 1] = np.nan
    case = Case(case.K, np.column_stack([case.X, batch]), case.Y)
    data = TraitData(case.Y, np.eye(2), case.X)
    likelihoods: list[NullLikelihood[Any]] = [
        likelihood_of_families(family_spectrum(sparse.csr_array(case.K)), data, True),
        null_likelihood(rotate_samples(case.K.copy(), False, data, True), data, True),
    ]
    found, dense = (one.null_model(one.fit(2)).summary for one in likelihoods)
    assert found.lml == pytest.approx(dense.lml, abs=1e-7)
    np.testing.assert_allclose(found.estimates.B, dense.estimates.B, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.estimates.B_se, dense.estimates.B_se, rtol=1e-4)
    assert np.isnan(found.estimates.B_se[2, 1])


def test_two_traits_that_no_sample_has_both_of() -> None:
    case = simulated(200, 2, 1, seed=6)
    apart = np.arange(200) % 2 == 0
    case.Y[apart, 0] = np.nan
    case.Y[~apart, 1] = np.nan
    data = TraitData(case.Y, np.eye(2), case.X)
    likelihood = likelihood_of_families(family_spectrum(sparse.csr_array(case.K)), data, True)
    estimates = likelihood.null_model(likelihood.fit(2)).summary.estimates
    assert np.isnan(estimates.C1[0, 1])
    assert np.isfinite(estimates.C0_se).all()


def test_independent_samples_have_the_maximum_of_the_multivariate_normal() -> None:
    """C0 = 0: the EM estimate of a covariance from incomplete data."""
    rng = np.random.default_rng(12)
    Y = rng.normal(size=(150, 3)) @ rng.normal(size=(3, 3)) + 2
    Y[rng.random(Y.shape) < 0.2] = np.nan
    Y = Y[np.isfinite(Y).any(axis=1)]
    n = len(Y)
    data = TraitData(Y, np.eye(3), np.ones((n, 1)))
    likelihood = likelihood_of_families(family_spectrum(sparse.csr_array(np.eye(n))), data, False)
    assert likelihood.largest_rank == 0
    model = likelihood.null_model(likelihood.fit(0))
    mean, C = np.nanmean(Y, axis=0), np.diag(np.nanvar(Y, axis=0))
    patterns, of_sample = np.unique(np.isfinite(Y), axis=0, return_inverse=True)
    for _ in range(500):
        filled, extra = Y.copy(), np.zeros((3, 3))
        for k, o in enumerate(patterns):
            rows = np.flatnonzero(of_sample == k)
            regression = C[np.ix_(~o, o)] @ np.linalg.inv(C[np.ix_(o, o)])
            filled[np.ix_(rows, ~o)] = mean[~o] + (Y[np.ix_(rows, o)] - mean[o]) @ regression.T
            extra[np.ix_(~o, ~o)] += rows.size * (C[np.ix_(~o, ~o)] - regression @ C[np.ix_(o, ~o)])
        mean = filled.mean(axis=0)
        C = ((filled - mean).T @ (filled - mean) + extra) / n
    np.testing.assert_allclose(model.summary.estimates.C1, C, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.summary.estimates.B[0], mean, rtol=1e-4)
    assert not model.summary.estimates.C0.any()


def test_arrays_restore_the_model() -> None:
    both = fitted(2, 1, 0.2, True, 2, 300)
    data = TraitData(both.case.Y, np.eye(2), both.case.X)
    arrays = {name.removeprefix(FAMILIES): array for name, array in both.found.arrays().items()}
    again = restored_families(both.found.summary, arrays, data)
    assert again.point.lml == pytest.approx(both.found.summary.lml, rel=1e-13)
    few = TraitData(data.Y[:-1], data.A, data.X[:-1])
    with pytest.raises(ValueError, match="do not go together"):
        restored_families(both.found.summary, arrays, few)


def test_a_trait_that_nobody_has_and_singular_covariances_are_refused() -> None:
    case = with_missing(simulated(30, 2, 1), 0.1)
    data = cells_of(case)
    twins = np.ones((30, 30)) * np.equal.outer(np.arange(30) // 2, np.arange(30) // 2)
    with pytest.raises(NumericalError, match="C1 is singular"):
        evaluate(cells_of(Case(twins, case.X, case.Y)), axes_of_covariances(np.eye(2), np.diag([1.0, 0.0]), 1.0), True)
    assert any(isinstance(group, Families) for group in data.groups)
    case.Y[:, 1] = np.nan
    with pytest.raises(NumericalError, match="trait 2 has no observed value"):
        cells_of(case)


def with_derived_trait(seed: int, nboth: int) -> Case:
    """Trait 2 is 1 + 2 * trait 1 in the ``nboth`` samples that have both."""
    case = simulated(40, 2, 0)
    Y = np.random.default_rng(seed).normal(size=(40, 2))
    both = slice(18, 18 + nboth)
    Y[both, 1] = 1 + 2 * Y[both, 0]
    Y[:18, 1] = Y[18 + nboth :, 0] = np.nan
    return Case(case.K, np.ones((40, 1)), Y)


@pytest.mark.parametrize("rank", [2, 1])
def test_a_combination_of_traits_without_variance_is_said(rank: int) -> None:
    with pytest.raises(VanishingCombinationError, match=r"too few samples \(3\) have all of traits 1 and 2, and"):
        observed_fitting.fits(cells_of(with_derived_trait(0, 3)), [rank], True)[0]


def test_a_local_maximum_beside_a_combination_without_variance_is_taken() -> None:
    data = cells_of(with_derived_trait(1, 4))
    found = observed_fitting.fits(data, [2], True)[0]
    assert found.certificate.certified
    near = np.array([[0.5, 1], [1, 2 + 1e-5]])
    away = observed_fitting.climb(data, axes_of_covariances(near, near, data.mean_eigenvalue), 2, True)
    assert vanishing_combination(away.point.axes).all() and not vanishing_combination(found.point.axes).any()
    assert away.point.lml > found.point.lml and not away.certificate.certified


def test_a_search_of_too_low_a_rank_takes_the_observed_information_in_data_of_any_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It takes as little as a likelihood; by the average information this search takes 150 steps, and others fail."""
    for limit in ("EXACT_ENTRIES", "EXACT_OPERATIONS"):
        monkeypatch.setattr(dense_information, limit, 0)
    found = observed_fitting.fits(cells_of(with_missing(simulated(300, 6, 1, seed=3, largest=4), 0.3)), [1], True)[0]
    assert found.certificate.certified and found.certificate.steps < 30
