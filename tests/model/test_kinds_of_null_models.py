"""One interface: complete traits and observed cells of which none is missing answer alike; files give models back."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from set_oracle import scores_of_all

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.contrasts import rotate_coupled
from kron2sum_cli.model.missing.observed import without_missing
from kron2sum_cli.model.null_model import (
    CompleteTraits,
    NullLikelihood,
    NullModel,
    ObservedTraits,
    RotatedNullModel,
    TraitData,
    null_likelihood,
    restored_null_model,
    rotate_samples,
)
from kron2sum_cli.model.profile import heritability_interval
from kron2sum_cli.model.sets.fixed_effects import reduce_set
from kron2sum_cli.model.spectrum import spectrum_of_features

Array = NDArray[np.float64]

N, P = 90, 2


@dataclass(frozen=True)
class Study:
    """Traits of related samples, their variants, and the features of the relationship."""

    data: TraitData
    G: Array
    variants: Array


def study(share: float = 0.0, A: Array | None = None) -> Study:
    rng = np.random.default_rng(7)
    G = rng.normal(size=(N, 120)) / np.sqrt(120)
    X = np.column_stack([np.ones(N), rng.normal(size=N)])
    Y = (
        G @ rng.normal(size=(120, P)) @ [[1.0, 0.4], [0.0, 0.8]]
        + rng.normal(size=(N, P))
        + X @ [[1.0, 2.0], [0.3, 0.1]]
    )
    Y[rng.random(Y.shape) < share] = np.nan
    variants = rng.binomial(2, 0.3, size=(N, 6)).astype(float)
    return Study(TraitData(Y, np.eye(P) if A is None else A, X), G, variants - variants.mean(axis=0))


def likelihood(case: Study, reml: bool) -> NullLikelihood[Any]:
    return null_likelihood(rotate_samples(case.G.copy(), True, case.data, reml), case.data, reml)


def as_observed(case: Study, reml: bool) -> NullLikelihood[Any]:
    """Complete traits as observed cells of which none is missing."""
    data = case.data
    spectrum = spectrum_of_features(case.G, data.X[:, :0])
    cells = without_missing(rotate_coupled(spectrum, data.Y, data.A, data.X), data.X)
    return ObservedTraits(data, reml, spectrum.mean_diagonal, cells)


def both(reml: bool) -> tuple[NullModel, NullModel]:
    case = study()
    complete, observed = likelihood(case, reml), as_observed(case, reml)
    assert isinstance(complete, CompleteTraits)
    fitted = complete.fit(P)
    axes = fitted.point.axes
    return complete.null_model(fitted), observed.null_model(observed.fit_near(axes, P))


@pytest.mark.parametrize("reml", [True, False], ids=["REML", "ML"])
def test_both_kinds_say_the_same(reml: bool) -> None:
    complete, observed = both(reml)
    for name in ("C0", "C1", "h2", "rg", "B", "B_se", "C0_se", "h2_se"):
        expected = getattr(complete.summary.estimates, name)
        np.testing.assert_allclose(getattr(observed.summary.estimates, name), expected, rtol=1e-8, atol=1e-8)
    assert observed.summary.lml == pytest.approx(complete.summary.lml, abs=1e-9)
    assert observed.spans_intercept
    assert complete.spans_intercept


@pytest.mark.parametrize("reml", [True, False], ids=["REML", "ML"])
def test_both_kinds_score_variants_and_sets_alike(reml: bool) -> None:
    complete, observed = both(reml)
    G = study().variants
    one, other = complete.scanner(np.float64).statistics(G), observed.scanner(np.float64).statistics(G)
    T = complete.summary.axes.T
    np.testing.assert_allclose(other.u @ observed.summary.axes.T, one.u @ T, rtol=1e-9, atol=1e-10)
    information = np.einsum("ja,bj,jc->bac", T, one.v, T)
    T = observed.summary.axes.T
    np.testing.assert_allclose(np.einsum("ja,bjk,kc->bac", T, other.v, T), information, rtol=1e-9, atol=1e-10)
    scores = [scores_of_all(m.set_scanner(np.float64), G) for m in (complete, observed)]
    sets = [reduce_set(of, np.eye(P), m.summary.axes.T) for of, m in zip(scores, (complete, observed), strict=True)]
    assert sets[1].chisq == pytest.approx(sets[0].chisq, rel=1e-6)
    assert sets[1].rank == sets[0].rank == P * G.shape[1]


def test_both_kinds_refit_and_predict_alike() -> None:
    complete, observed = both(reml=True)
    case = study()
    refits = [m.refits() for m in (complete, observed)]
    assert refits[1].null_lml == pytest.approx(refits[0].null_lml, abs=1e-8)
    first, second = (r.of_variants(case.variants, np.zeros(6))(np.eye(P)) for r in refits)
    np.testing.assert_allclose(second.lml, first.lml, rtol=0, atol=2e-8)  # both end where a gain of 1e-8 is predicted
    np.testing.assert_allclose(second.beta, first.beta, rtol=0, atol=1e-5)
    K, own = case.G @ case.G[:5].T, np.sum(case.G[:5] ** 2, axis=1)
    predictors = [m.predictor() for m in (complete, observed)]
    genetic = [p.genetic_values(K, own) for p in predictors]
    cells = [p.new_cells(g, K, case.data.X[:5]) for p, g in zip(predictors, genetic, strict=True)]
    for one, other in (genetic, cells):
        np.testing.assert_allclose(other.mean, one.mean, rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(other.variance, one.variance, rtol=1e-9)
    assert all(m.missing_cells().mean.size == 0 for m in (complete, observed))
    summaries = [m.summary for m in (complete, observed)]
    intervals = [
        heritability_interval(m.point, 0, s.mean_diagonal, s.rank)
        for m, s in zip((complete, observed), summaries, strict=True)
    ]
    assert intervals[1].low == pytest.approx(intervals[0].low, abs=1e-3)
    assert intervals[1].high == pytest.approx(intervals[0].high, abs=1e-3)


@pytest.mark.parametrize("kind", ["complete", "trait design", "missing", "missing and trait design"])
@pytest.mark.parametrize("reml", [True, False], ids=["REML", "ML"])
def test_a_model_comes_back_from_what_a_file_keeps(kind: str, reml: bool) -> None:
    A = np.array([[1.0], [0.5]]) if "design" in kind else None
    case = study(0.1 if "missing" in kind else 0.0, A)
    problem = likelihood(case, reml)
    model = problem.null_model(problem.fit(P))
    assert isinstance(model, RotatedNullModel)
    arrays = model.arrays()
    again = restored_null_model(model.summary, model.contrasts, arrays["Qx"], case.data, arrays.get("prior"))
    assert again.point.lml == pytest.approx(model.summary.lml, rel=1e-12)
    for one, other in zip(
        vars(model.scanner(np.float64).statistics(case.variants)).values(),
        vars(again.scanner(np.float64).statistics(case.variants)).values(),
        strict=True,
    ):
        np.testing.assert_array_equal(other, one)
    assert ("prior" in arrays) == (kind == "missing" and reml)
    assert ("design_X" in arrays) == case.data.coupled
    assert model.spans_intercept == (A is None)


def test_precision_and_memory_follow_from_the_data() -> None:
    assert study().data.rotation_type(np.float32) is np.float32
    assert study(0.1).data.rotation_type(np.float32) is np.float64
    assert study(A=np.ones((P, 1))).data.rotation_type(np.float32) is np.float64
    assert study().data.scanner_bytes(50, 4) == N * 50 * 4
    assert study(0.1).data.scanner_bytes(50, 4) > 3 * N * 50 * 4
    names = [study().data.information, study(0.1).data.information, study(A=np.ones((P, 1))).data.information]
    assert names == ["observed"] * 3


def test_a_trait_without_any_value_is_refused() -> None:
    case = study(0.1)
    case.data.Y[:, 1] = np.nan
    with pytest.raises(NumericalError, match="trait 2 has no observed value"):
        likelihood(case, True)


def test_of_all_ranks_the_smallest_criterion_counts_parameters() -> None:
    problem = likelihood(study(), True)
    one, two = problem.fit(1), problem.fit(2)
    assert (one.nparameters, two.nparameters) == (2 + 3, 3 + 3)
    assert one.one_sided_aic == pytest.approx(5 - 2 * one.point.lml)
    assert two.one_sided_aic == pytest.approx(6 - 2 * two.point.lml)


@pytest.mark.parametrize("share", [0.0, 0.15])
@pytest.mark.parametrize("genetic", [1, 4])
def test_of_all_ranks_those_are_fitted_that_may_have_the_smallest_criterion(share: float, genetic: int) -> None:
    """Of so few samples that searches start from several places; each fit is that of its rank alone."""
    rng = np.random.default_rng(genetic)
    G = rng.normal(size=(80, 20)) / np.sqrt(20)
    Y = G @ rng.normal(size=(20, genetic)) @ rng.normal(size=(genetic, 4)) + 0.3 * rng.normal(size=(80, 4))
    Y[rng.random(Y.shape) < share] = np.nan
    problem = likelihood(Study(TraitData(Y, np.eye(4), np.ones((80, 1))), G, G), True)
    alone = {rank: problem.fit(rank) for rank in range(1, 5)}
    together = problem.fits(range(1, 5))
    for one in together:
        assert one.point.lml == pytest.approx(alone[one.rank].point.lml, abs=1e-6)
    least = min(one.one_sided_aic for one in alone.values())
    assert min(one.one_sided_aic for one in together) == pytest.approx(least, abs=1e-6)
    assert len(together) == (4 if genetic == 1 else 3)
    assert np.diff([one.point.lml for one in together]).min() > -1e-6


def test_the_criterion_takes_off_twice_the_mean_gain_of_axes_without_variance() -> None:
    """The scores of q such axes are a symmetric normal matrix; C0 gains the squares of its positive eigenvalues."""
    rng = np.random.default_rng(1)
    G, Y = rng.normal(size=(80, 100)) / 10, rng.normal(size=(80, 4))
    full = likelihood(Study(TraitData(Y, np.eye(4), np.ones((80, 1))), G, G), True).fit(4)
    for q in (1, 2, 3):
        Z = rng.normal(size=(100_000, q, q))
        eigenvalues = np.linalg.eigvalsh((Z + Z.transpose(0, 2, 1)) / 2)
        gain = np.mean(np.sum(np.maximum(eigenvalues, 0) ** 2, axis=1))
        penalty = full.one_sided_aic - replace(full, rank=4 - q).one_sided_aic
        assert penalty == pytest.approx(2 * gain, rel=0.02)
