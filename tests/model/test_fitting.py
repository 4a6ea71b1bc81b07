"""Fits end at the optimum, prove it, and say on which boundary; what has no optimum is refused."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from dense_oracle import Array, Data, Dense, derivative

from benchmarks.hard_null_models import CASES, best_of_lbfgs, make, simulate
from kron2sum_cli import Kron2Sum
from kron2sum_cli.errors import ConvergenceError, NumericalError
from kron2sum_cli.model import climbing, fitting
from kron2sum_cli.model.climbing import Optimum, _Climb
from kron2sum_cli.model.contrasts import Contrasts, rotate_coupled, rotate_traits
from kron2sum_cli.model.fitting import CompleteLikelihood, climb, climb_near, fit, nested_fits, starting_axes
from kron2sum_cli.model.information import full_grams
from kron2sum_cli.model.likelihood import Point, evaluate
from kron2sum_cli.model.spectrum import spectrum_of_features
from kron2sum_cli.model.trait_axes import TraitAxes, axes_of_covariances

Rng = np.random.Generator


# Hard problems


SLOW_FOR_LBFGS = ("eigenvalues over 12 orders", "traits almost collinear")


@pytest.mark.parametrize(
    ("case", "p"), [(case, p) for case in CASES for p in (1, 2, 3) if p < 3 or case not in SLOW_FOR_LBFGS]
)
def test_hard_problems_end_at_a_certified_optimum(case: str, p: int) -> None:
    """The small version of benchmarks/hard_null_models.py."""
    rng = np.random.default_rng([CASES.index(case), p])
    problem, reml = make(case, rng, p), bool((CASES.index(case) + p) % 2)
    data = rotate_traits(spectrum_of_features(problem.G, problem.X), problem.Y)
    result = fit(data, p, reml)
    assert result.certificate.certified
    assert result.certificate.steps <= 60
    assert result.point.lml >= best_of_lbfgs(data, p, reml, rng, starts=2) - 1e-4


@pytest.mark.parametrize("reml", [False, True], ids=["ML", "REML"])
@pytest.mark.parametrize("case", ["C0 of low rank", "scales of 1e6", "low rank GRM"])
def test_bounded_ranks(case: str, reml: bool) -> None:
    """No rank is below L-BFGS or below a smaller rank, and at full rank the bound does not matter."""
    rng = np.random.default_rng(CASES.index(case))
    problem = make(case, rng, 3)
    data = rotate_traits(spectrum_of_features(problem.G, problem.X), problem.Y)
    fits = [fit(data, rank, reml) for rank in (1, 2, 3)]
    lml = [f.point.lml for f in fits]
    assert all(f.certificate.certified for f in fits)
    assert lml[0] <= lml[1] + 1e-6 and lml[1] <= lml[2] + 1e-6
    for rank in (1, 2):
        assert lml[rank - 1] >= best_of_lbfgs(data, rank, reml, rng, starts=2) - 1e-4
        assert np.linalg.matrix_rank(fits[rank - 1].point.axes.C0, tol=1e-10 * problem.Y.var()) <= rank


def over_12_orders(rng: Rng, p: int, c: int) -> Contrasts:
    """Traits all genetic but for rounding, c covariates, and eigenvalues of GGᵀ over 12 orders."""
    n = 80
    s = 10.0 ** rng.uniform(-12, 0, size=n)
    C0, C1 = (L @ L.T / p for L in rng.normal(size=(2, p, p + 1)))
    Y, G = simulate(rng, n, C0, 1e-13 * C1, s / s.mean())
    X = np.hstack([np.ones((n, 1)), rng.normal(size=(n, c - 1))])
    return rotate_traits(spectrum_of_features(G, X), Y)


@pytest.mark.parametrize(("seed", "p", "reml"), [(2, 2, True), (3, 2, False)])
def test_a_rank_that_is_too_low_for_eigenvalues_over_12_orders(seed: int, p: int, reml: bool) -> None:
    """The expected information is then wrong by orders, and the likelihood is narrow where axes have to turn."""
    rng = np.random.default_rng(seed)
    data = over_12_orders(rng, p, 1)
    result = fit(data, 1, reml)
    assert result.certificate.certified
    assert result.certificate.steps <= 60
    assert result.point.lml >= best_of_lbfgs(data, 1, reml, rng, starts=2) - 1e-4


@pytest.mark.parametrize("seed", range(6))
def test_rounding_of_the_mean_slows_no_climb(seed: int) -> None:
    """Given all contrasts next to nothing is left of the mean's variance under ML: its curvature has to be right."""
    data = over_12_orders(np.random.default_rng(seed), 3, 3)
    result = climb(data, starting_axes(data, 0.5), 1, False)
    assert result.certificate.certified
    assert result.certificate.steps <= 60


def test_score_and_information_of_ml_agree_where_C1_is_singular() -> None:
    """``c0_j² tr(K_j⁻¹ GGᵀ K_l⁻¹) + c1_j² tr(K_j⁻¹ K_l⁻¹) = tr(K_l⁻¹)``, the trace in the score, and so with GGᵀ."""
    data = over_12_orders(np.random.default_rng(0), 2, 3)
    start = starting_axes(data, 0.5)
    axes = TraitAxes(start.T, start.Tinv, start.c0 * [2**0.5, 0], np.array([0.0, 1.0]))
    point = evaluate(data, axes, False)
    Q0, Q1, Q2 = full_grams(point)
    c0, c1 = axes.c0[:, None] ** 2, axes.c1[:, None] ** 2
    traces0 = np.diag(point.alpha.T @ (data.s[:, None] * point.alpha) - 2 * point.score0)
    traces1 = np.diag(point.alpha.T @ point.alpha - 2 * point.score1)
    np.testing.assert_allclose(c0 * Q2 + c1 * Q1, np.tile(traces0, (2, 1)), rtol=1e-11)
    np.testing.assert_allclose(c0 * Q1 + c1 * Q0, np.tile(traces1, (2, 1)), rtol=1e-11)


@pytest.mark.parametrize("k", [11, 76])
def test_few_samples_for_each_trait_are_searched_from_corners_and_beside(k: int) -> None:
    """Nearly all starts end at a maximum that is not the highest: one combination has no residual variance there."""
    problem = make("p near n/10", np.random.default_rng([77, k]), 3)
    data = rotate_traits(spectrum_of_features(problem.G, problem.X), problem.Y)
    reml = k == 76
    from_shares = max(climb(data, starting_axes(data, share), 3, reml).point.lml for share in (0.5, 0.1, 0.9))
    best = fit(data, 3, reml)
    assert best.certificate.certified and best.certificate.active_C1 >= 1
    assert best.point.lml > from_shares + 0.1


# The conditions of an optimum, by the dense density


@dataclass(frozen=True)
class Small:
    """A problem small enough for the dense density."""

    data: Data
    rank: int
    restricted: bool

    def fitted(self) -> Kron2Sum:
        data = self.data
        model = Kron2Sum(data.Y, data.A, data.X, data.G, rank=self.rank, restricted=self.restricted)
        model.fit(verbose=False)
        return model

    def lml(self, C0: Array, C1: Array) -> float:
        return Dense(self.data, C0, C1).lml(self.restricted)


def small(kind: str) -> Small:
    rng = np.random.default_rng(sorted(KINDS).index(kind))
    n, p = 60, 2
    G = rng.normal(size=(n, 80)) / np.sqrt(80)
    X = np.hstack([np.ones((n, 1)), rng.normal(size=(n, 1))])
    genetic, residual = G @ rng.normal(size=(80, p)), 1.5 * rng.normal(size=(n, p))
    related = np.linalg.svd(G)[0][:, :20]
    unrelated = residual - related @ (related.T @ residual)
    A = np.eye(p)
    if kind == "C1 singular":
        residual[:, 0] = 0
    elif kind == "C0 singular":
        genetic[:, 0], residual[:, 0] = 0, unrelated[:, 0]
    elif kind == "C0 zero":
        genetic, residual = np.zeros((n, p)), unrelated
    elif kind == "coupled traits":
        A = np.array([[1.0], [-0.5]])
    elif kind == "low rank":
        G = G[:, :20] * 2
    rank = 1 if kind == "rank 1" else 2
    return Small(Data(2 * genetic + residual + X[:, :1], A, X, G), rank, KINDS[kind])


KINDS = {
    "interior": True,
    "C1 singular": True,
    "C0 singular": False,
    "C0 zero": True,
    "coupled traits": True,
    "low rank": False,
    "rank 1": False,
}


def dense_score(problem: Small, C0: Array, C1: Array) -> tuple[Array, Array]:
    """Derivatives of the dense log density with respect to symmetric C0 and C1, (2, 2) each."""

    def symmetric(x: Array) -> Array:
        return np.array([[x[0], x[1]], [x[1], x[2]]])

    def score(lml: Callable[[Array], float], C: Array) -> Array:
        return symmetric(derivative(lml, C[[0, 0, 1], [0, 1, 1]], step) * [1, 0.5, 1])

    step = 1e-4 * max(np.abs(C0).max(), np.abs(C1).max())
    score0 = score(lambda x: problem.lml(symmetric(x), C1), C0)
    return score0, score(lambda x: problem.lml(C0, symmetric(x)), C1)


@pytest.mark.parametrize("kind", KINDS)
def test_first_order_conditions_by_the_dense_density(kind: str) -> None:
    """Scores vanish along the faces that C0 and C1 are on, and none points into a cone."""
    problem = small(kind)
    model = problem.fitted()
    axes = model.axes
    scores = dense_score(problem, model.C0, model.C1)
    for score, root, bounded in zip(scores, (axes.c0, axes.c1), (problem.rank == 1, False), strict=True):
        in_axes = axes.Tinv.T @ score @ axes.Tinv
        np.testing.assert_allclose(in_axes * root, 0, atol=2e-3)
        if not bounded:
            assert np.linalg.eigvalsh(in_axes)[-1] < 2e-3


def test_the_cases_are_what_they_are_called() -> None:
    active = {kind: small(kind).fitted().certificate for kind in KINDS}
    assert all(certificate is not None and certificate.certified for certificate in active.values())
    boundaries = {
        kind: (c.active_C0, c.active_C1) for kind, c in active.items() if c is not None and kind != "coupled traits"
    }
    assert boundaries == {
        "interior": (0, 0),
        "C1 singular": (0, 1),
        "C0 singular": (1, 0),
        "C0 zero": (2, 0),
        "low rank": (0, 0),
        "rank 1": (0, 0),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_every_other_point_is_less_likely(kind: str) -> None:
    problem, rng = small(kind), np.random.default_rng(0)
    model = problem.fitted()
    best = problem.lml(model.C0, model.C1)
    np.testing.assert_allclose(best, model.lml(), rtol=1e-9)
    L0 = np.hstack([model.L0, np.zeros((2, 2 - problem.rank))])
    for size in (1e-3, 1e-2, 1e-1, 0.5):
        for _ in range(8):
            step0, step1 = size * rng.normal(size=(2, 2, 2))
            F0 = (L0 + np.abs(model.C1).max() ** 0.5 * step0)[:, : problem.rank]
            F1 = model.L1 + np.abs(model.C1).max() ** 0.5 * step1
            assert problem.lml(F0 @ F0.T, F1 @ F1.T) < best + 1e-7


# Certificates


def test_a_search_cut_short_is_not_certified(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = small("interior").data
    data = rotate_traits(spectrum_of_features(problem.G, problem.X), problem.Y)
    best = fit(data, 2, True)
    for steps in (0, 1, 2):
        monkeypatch.setattr(fitting, "MAX_STEPS", steps)
        short = climb(data, starting_axes(data, 0.5), 2, True)
        assert not short.certificate.certified
        missing = best.point.lml - short.point.lml
        assert missing > 1e-4
        assert short.certificate.steps == steps
        assert short.certificate.predicted_gain > 0.2 * missing


def test_what_cannot_be_certified_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "MAX_STEPS", 1)
    problem = small("interior").data
    model = Kron2Sum(problem.Y, problem.A, problem.X, problem.G, rank=2)
    before = model.lml()
    with pytest.raises(ConvergenceError, match="did not converge: after 1 steps .* gain of .* predicted") as caught:
        model.fit(verbose=False)
    assert caught.value.exit_code == 3
    assert isinstance(caught.value.result, Optimum)
    assert caught.value.result.point.lml > before
    assert model.certificate is None


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("reml", [False, True], ids=["ML", "REML"])
def test_a_saddle_is_left(rank: int, reml: bool) -> None:
    """With C0 = 0, or C1 singular, factors have gradient 0: only the score shows that the cone can be entered."""
    problem = small("interior").data
    data = rotate_traits(spectrum_of_features(problem.G, problem.X), problem.Y)
    best = fit(data, rank, reml).point
    start = starting_axes(data, 0.5)
    order = np.argsort(np.abs(start.Tinv[0]))  # its axes all have the same share, and so come in any order
    T, Tinv = start.T[order], start.Tinv[:, order]
    no_genetics = TraitAxes(T, Tinv, np.zeros(2), np.ones(2))
    singular_C1 = TraitAxes(T, Tinv, start.c0 * [1.4, 1], start.c1 * [0, 1])
    for saddle in (no_genetics, singular_C1):
        result = climb(data, saddle, rank, reml)
        assert result.certificate.certified
        assert result.point.lml > evaluate(data, saddle.truncated(rank), reml).lml + 0.1
        np.testing.assert_allclose(result.point.lml, best.lml, rtol=1e-7)


def test_no_start_is_below_another_at_the_end() -> None:
    """Equal optima from all starts, on a problem with one optimum."""
    problem = small("interior").data
    data = rotate_traits(spectrum_of_features(problem.G, problem.X), problem.Y)
    lml = [climb(data, starting_axes(data, share), 2, True).point.lml for share in (0.01, 0.1, 0.5, 0.9, 0.99)]
    np.testing.assert_allclose(lml, lml[0], rtol=1e-9)


# Likelihoods without a maximum


def twins(rng: Rng, n: int, share: float, p: int = 2) -> tuple[Array, Array]:
    """Y and G of n samples of which two have the same genotypes; genetic share of variance."""
    G = rng.normal(size=(n, 2 * n)) / np.sqrt(2 * n)
    G[1] = G[0]
    genetic = G @ rng.normal(size=(2 * n, p))
    return np.sqrt(share) * genetic + np.sqrt(1 - share) * rng.normal(size=(n, p)), G


def without_a_third(seed: int, n: int = 30) -> tuple[Contrasts, Contrasts]:
    """Three traits of n samples in families, with the matrix of all variants and with that without a third of them."""
    rng = np.random.default_rng(seed)
    G = rng.normal(size=(n, 100)) * rng.gamma(0.5, size=100) ** 0.5
    G += np.repeat(rng.normal(size=(n // 5 + 1, 100)), 5, axis=0)[:n]
    matrices = [one / np.sqrt(np.mean(one**2) * one.shape[1]) for one in (G, np.delete(G, slice(66, 99), axis=1))]
    L0, L1 = rng.normal(size=(3, 3)), rng.normal(size=(3, 3))
    Y = matrices[0] @ rng.normal(size=(100, 3)) @ L0.T + rng.normal(size=(n, 3)) @ L1.T
    whole, left = (rotate_traits(spectrum_of_features(one, np.ones((n, 1))), Y) for one in matrices)
    return whole, left


@pytest.mark.parametrize("seed", [20, 68, 102])
def test_the_maximum_near_that_of_similar_data_is_the_highest(seed: int) -> None:
    """With few samples a climb from the maximum with all variants ends at a lower one than a search finds."""
    whole, left = without_a_third(seed)
    start, searched = fit(whole, 3, False).point.axes, fit(left, 3, False).point.lml
    assert climb(left, start, 3, False).point.lml < searched - 0.05
    found = climb_near(left, start, 3, False)
    assert found.certificate.certified
    assert found.point.lml == pytest.approx(searched, abs=1e-6)


def test_a_climb_from_similar_data_that_failed_is_not_searched_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asked for it searches then; to search here, too, would take the time twice."""
    _, left = without_a_third(20)
    found = climb(left, starting_axes(left, 0.5), 3, False)
    failed = replace(found, certificate=replace(found.certificate, predicted_gain=1.0))
    monkeypatch.setattr(fitting, "climb", lambda *_: failed)
    monkeypatch.setattr(fitting, "fits", lambda *_: pytest.fail("searched"))
    assert climb_near(left, failed.point.axes, 3, False) is failed


def test_a_lower_rank_is_searched_unless_it_has_the_maximum_of_a_higher_one() -> None:
    """A climb from there may end below what a search finds; where it ends as high there is no search."""
    _, data = without_a_third(20, n=150)
    full, two = fit(data, 3, False), fit(data, 2, False)
    flat = replace(full, point=replace(full.point, axes=full.point.axes.truncated(2)))
    below = replace(two, point=replace(two.point, lml=full.point.lml - 1e-3))
    as_high = replace(two, point=replace(two.point, lml=full.point.lml))
    for highest, reached, kept in ((full, as_high, two), (flat, below, two), (flat, as_high, as_high)):
        searched = {3: highest, 2: two}
        ends = nested_fits([2, 3], data.mean_eigenvalue, lambda *_, end=reached: end, searched.__getitem__)
        assert ends[0] is kept and ends[1] is highest


def test_a_climb_whose_curvatures_are_exact_keeps_its_local_model() -> None:
    _, data = without_a_third(20)
    search = _Climb(CompleteLikelihood(data, False), starting_axes(data, 0.5), 3)
    model = search.model()
    search.correct()
    assert search.model() is model


def test_a_rough_climb_ends_earlier_and_little_below() -> None:
    _, data = without_a_third(20)
    likelihood, start = CompleteLikelihood(data, False), starting_axes(data, 0.5)
    precise, rough = (climbing.climb(likelihood, start, 3, 100, tolerance) for tolerance in (1e-14, 1e-2))
    assert rough.certificate.evaluations < precise.certificate.evaluations
    assert 1e-12 < precise.point.lml - rough.point.lml < 2e-2


def test_two_samples_alike_make_the_likelihood_of_two_traits_unbounded() -> None:
    """In the combination of traits in which the twins agree, all their difference is explained by C1 = 0.

    That is no estimate. A fit ends at the local maximum where there is one, as with these moderate heritabilities.
    """
    Y, G = twins(np.random.default_rng(0), 60, 0.4)
    X = np.ones((60, 1))
    difference = Y[0] - Y[1]
    same = np.array([difference[1], -difference[0]])
    model = Kron2Sum(Y, np.eye(2), X, G, rank=2, restricted=True)
    other = np.array([1.0, 0.0])
    T = np.vstack([same / np.std(Y @ same), other])
    axes = np.linalg.inv(T)
    lml = [model.at(axes @ axes.T, axes @ np.diag([v, 1.0]) @ axes.T).lml() for v in (1e-4, 1e-6, 1e-8)]
    # One residual variance of one axis: half a log unit each time that it is divided by e.
    np.testing.assert_allclose(np.diff(lml), 0.5 * np.log(100), rtol=0.05)
    model.fit(verbose=False)
    assert model.certificate is not None and model.certificate.certified
    assert model.certificate.smallest_C1 > 0.1


def test_one_trait_of_two_samples_alike_is_bounded() -> None:
    Y, G = twins(np.random.default_rng(0), 60, 0.4, p=1)
    data = rotate_traits(spectrum_of_features(G, np.ones((60, 1))), Y)
    assert fitting.bounded(data, True) and fitting.bounded(data, False)
    assert fit(data, 1, True).certificate.certified


def centred(rng: Rng, n: int, share: float) -> tuple[Array, Array]:
    """Y and G of n samples with GGᵀ centred on them."""
    G = rng.normal(size=(n, 2 * n)) / np.sqrt(2 * n)
    G = G - G.mean(axis=0)
    Y = np.sqrt(share) * G @ rng.normal(size=(2 * n, 2)) + np.sqrt(1 - share) * rng.normal(size=(n, 2))
    return Y, G


def test_ml_with_a_centred_matrix_is_unbounded_and_reml_is_not() -> None:
    """Along the intercept GGᵀ is 0 and the mean is free: the density there grows as C1 becomes singular."""
    Y, G = centred(np.random.default_rng(1), 60, 0.4)
    X = np.ones((60, 1))
    data = rotate_traits(spectrum_of_features(G, X), Y)
    assert fitting.bounded(data, True) and not fitting.bounded(data, False)
    model = Kron2Sum(Y, np.eye(2), X, G, rank=2)
    lml = [model.at(np.eye(2), np.diag([v, 1.0])).lml() for v in (1e-10, 1e-12)]
    np.testing.assert_allclose(np.diff(lml), 0.5 * np.log(100), rtol=1e-3)
    model.fit(verbose=False)
    assert model.certificate is not None and model.certificate.certified
    assert model.certificate.smallest_C1 > 0.1
    with pytest.raises(NumericalError, match="the likelihood is not defined"):
        model.at(np.eye(2), np.diag([0.0, 1.0]))


def test_without_a_local_maximum_it_is_an_error_that_says_why() -> None:
    Y, G = centred(np.random.default_rng(2), 60, 0.999)
    X = np.ones((60, 1))
    reason = "the likelihood has no maximum: .* under ML, use a relationship matrix that is not centred"
    with pytest.raises(ConvergenceError, match=reason) as caught:
        Kron2Sum(Y, np.eye(2), X, G, rank=2).fit(verbose=False)
    assert caught.value.exit_code == 3
    model = Kron2Sum(Y, np.eye(2), X, G, rank=2, restricted=True)
    model.fit(verbose=False)
    assert model.certificate is not None and model.certificate.certified
    assert model.certificate.active_C1 >= 1


# Curvature


def score_of_traits(point: Point) -> tuple[Array, Array]:
    T = point.axes.T
    return T.T @ point.score0 @ T, T.T @ point.score1 @ T


@pytest.mark.parametrize("reml", [False, True], ids=["ML", "REML"])
@pytest.mark.parametrize("r", [8, 60])
@pytest.mark.parametrize("design", ["projected", "coupled"])
def test_curvature_is_the_change_of_the_score(design: str, r: int, reml: bool) -> None:
    rng = np.random.default_rng(r)
    n, p = 40, 3
    X = np.hstack([np.ones((n, 1)), rng.normal(size=(n, 1))])
    G, Y = rng.normal(size=(n, r)), rng.normal(size=(n, p))
    data: Contrasts = rotate_traits(spectrum_of_features(G, X), Y)
    if design == "coupled":
        data = rotate_coupled(spectrum_of_features(G, X[:, :0]), Y, rng.normal(size=(p, 1)), X)
    L0, L1 = rng.normal(size=(2, p, p))
    C0, C1 = L0 @ L0.T / r, L1 @ L1.T + np.eye(p)
    E0, E1 = (M + M.T for M in rng.normal(size=(2, p, p)))

    def at(step: float) -> Point:
        axes = axes_of_covariances(C0 + step * E0 / r, C1 + step * E1, data.mean_eigenvalue)
        return evaluate(data, axes, reml)

    point = at(0.0)
    T, Tinv = point.axes.T, point.axes.Tinv
    predicted = point.curvature(full_grams(point), T @ E0 @ T.T / r, T @ E1 @ T.T)
    h = 1e-4
    ahead, behind = score_of_traits(at(h)), score_of_traits(at(-h))
    for k in range(2):
        change = Tinv.T @ ((ahead[k] - behind[k]) / (2 * h)) @ Tinv
        np.testing.assert_allclose(predicted[k], change, rtol=1e-5, atol=1e-5 * np.abs(change).max())


def test_the_report_of_a_fit() -> None:
    model = small("interior").fitted()
    certificate = model.certificate
    assert certificate is not None
    assert certificate.predicted_gain <= 1e-8 and certificate.cone_gain <= 1e-8
    assert certificate.gradient_norm < 1e-3
    assert 0 < certificate.smallest_C0 < 1 and 0 < certificate.smallest_C1 < 1
    assert 1 <= certificate.steps <= certificate.evaluations
