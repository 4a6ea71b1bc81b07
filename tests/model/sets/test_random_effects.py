"""Tests of sets by name and hypothesis, against projections of the n·p × n·p matrices and other programs' habits."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from set_oracle import Case, cancel, case, set_of_all

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.hypotheses import Hypothesis, TestContext, named_hypothesis, test
from kron2sum_cli.model.sets.fixed_effects import SetScores
from kron2sum_cli.model.sets.kernel_tests import (
    acat_weights,
    beta_weights,
    cauchy_mlog10p,
    directions_of,
    information_of_variants,
    kernel_scores,
    null_weights,
    skat,
)
from kron2sum_cli.model.sets.likelihood_ratio import likelihood_ratio_test
from kron2sum_cli.model.sets.quadratic_forms import mixture_mlog10p
from kron2sum_cli.model.sets.random_effects import SetNull, SetTest, VariantSetScores, kernel_of, random_effects_mlog10p
from kron2sum_cli.model.spectrum import Array
from kron2sum_cli.model.trait_axes import TraitAxes

TRAITS = ("a", "b", "c")
NAMES: tuple[SetTest, ...] = ("burden", "skat", "skato", "acat", "lr", "omnibus")
HYPOTHESES = ("any", "common", "only:b", "trait:b", "specific", "trait:a|c")


def null_of(one: Case) -> SetNull:
    size = int(one.dense.seen.sum())
    effects = one.dense.M.shape[1]
    context = TestContext(one.axes.T, float(one.dense.y @ one.dense.Q @ one.dense.y), size, size - effects)
    return SetNull(one.axes, 0.8, context)


def set_of(one: Case, weights: Array | None = None) -> VariantSetScores:
    s = one.S.shape[1]
    weights = np.ones(s) if weights is None else weights
    of_set, eaf = set_of_all(one.scanner, one.S), one.S.mean(axis=0) / 2
    with_sum, of_sum = partial(of_set.scores_with_sum, weights), of_set.genotypes_of_sum
    return VariantSetScores(one.scores, one.sum_scores, with_sum, of_sum, weights, eaf, (1, 2))


@pytest.mark.parametrize("hypothesis", ["any", "common", "specific", "trait:b"])
@pytest.mark.parametrize(("share", "dtype"), [(0.0, np.float64), (0.0, np.float32), (0.3, np.float64)])
def test_skato_of_variants_that_cancel_tends_to_a_limit(
    hypothesis: str, share: float, dtype: type[np.floating]
) -> None:
    """However much larger their weights are than those of the others, which alone are in the burden."""
    one = case(12, share=share, s=5, dtype=dtype)
    cancel(one.S)
    tested, null = named_hypothesis(hypothesis, TRAITS), null_of(one)
    found = [
        random_effects_mlog10p("skato", set_of(one, np.append(np.full(3, weight), [1.0, 1.0])), tested, null)
        for weight in (1e3, 1e5, 1e7)
    ]
    assert found == pytest.approx([found[0]] * 3, rel=1e-5 if dtype == np.float64 else 1e-4)


def projected(one: Case, base: Array) -> Array:
    """The projection that also takes off the effects of all variants of the set along ``base`` (p, e)."""
    Q = one.dense.Q
    M0 = np.kron(base, one.S)[one.dense.seen]
    return Q - Q @ M0 @ np.linalg.pinv(M0.T @ Q @ M0, rcond=1e-10, hermitian=True) @ M0.T @ Q


@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize("name", ["common", "only:b", "trait:b", "specific", "trait:a|c"])
def test_a_hypothesis_given_another_is_its_score_in_the_model_of_the_other(name: str, share: float) -> None:
    one = case(31, share=share, s=4)
    weights = np.array([1.0, 2.0, 0.5, 1.0])
    tested = named_hypothesis(name, TRAITS)
    found = kernel_of(one.scores, weights, tested, null_of(one))
    P = projected(one, tested.base)
    # Directions that are orthonormal along the axes, beyond those of the base.
    D, D0 = one.axes.T @ tested.full, one.axes.T @ tested.base
    beyond = D - D0 @ np.linalg.lstsq(D0, D, rcond=None)[0]
    F = np.linalg.svd(beyond, full_matrices=False)[0][:, : tested.df]
    columns = one.columns(one.axes.Tinv @ F, weights)
    score = columns.T @ P @ one.dense.y
    assert np.sum(found.z**2) == pytest.approx(score @ score, rel=1e-8)
    expected = np.linalg.eigvalsh(columns.T @ P @ columns)
    np.testing.assert_allclose(np.sort(null_weights(found.blocks)[0]), expected, atol=1e-9 * expected[-1])


@pytest.mark.parametrize("trait", [0, 2])
def test_without_relatedness_one_trait_given_the_others_is_skat_of_that_trait(trait: int) -> None:
    rng = np.random.default_rng(7)
    n, s = 80, 6
    X = np.hstack([np.ones((n, 1)), rng.normal(size=(n, 1))])
    S = rng.binomial(2, 0.1, size=(n, s)).astype(float)
    C1 = np.array([[2.0, 0.6, -0.3], [0.6, 1.0, 0.2], [-0.3, 0.2, 0.5]])
    Y = rng.normal(size=(n, 3)) @ np.linalg.cholesky(C1).T
    H = np.eye(n) - X @ np.linalg.pinv(X)
    T = np.linalg.inv(np.linalg.cholesky(C1))
    V = np.broadcast_to(S.T @ H @ S, (3, s, s)).copy()
    scores = SetScores(S.T @ H @ Y @ T.T, V, np.einsum("jaa->ja", V))
    tested = named_hypothesis(f"trait:{TRAITS[trait]}", TRAITS)
    axes = TraitAxes(T, np.linalg.inv(T), np.zeros(3), np.ones(3))
    found = skat(directions_of(scores, tested, axes, 1.0).scores(scores, np.ones(s)))
    u = S.T @ H @ Y[:, trait] / C1[trait, trait]
    lam = np.linalg.eigvalsh(S.T @ H @ S)[None] / C1[trait, trait]
    assert found == pytest.approx(mixture_mlog10p(lam, np.array([u @ u]))[0], rel=1e-8)


def test_repeated_variants_do_not_stop_a_test_given_other_effects() -> None:
    one = case(33, s=3)
    pairs = [0, 0, 1, 2]
    twice = SetScores(one.scores.u[pairs], one.scores.V[:, pairs][:, :, pairs], one.scores.sizes[:, pairs])
    tested = named_hypothesis("trait:a", TRAITS)
    expected = skat(kernel_of(one.scores, np.array([np.sqrt(2), 1.0, 1.0]), tested, null_of(one)))
    found = skat(kernel_of(twice, np.ones(4), tested, null_of(one)))
    assert found == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize("hypothesis", HYPOTHESES)
@pytest.mark.parametrize("name", NAMES)
def test_every_test_has_a_p_value_for_every_hypothesis(name: SetTest, hypothesis: str, share: float) -> None:
    one = case(34, share=share, s=4)
    found = random_effects_mlog10p(name, set_of(one), named_hypothesis(hypothesis, TRAITS), null_of(one))
    assert 0 <= found < 50


@pytest.mark.parametrize("hypothesis", ["any", "common", "trait:b"])
def test_one_variant_burden_acat_and_that_variant_are_one_test(hypothesis: str) -> None:
    one = case(35, s=1)
    tested, null = named_hypothesis(hypothesis, TRAITS), null_of(one)
    u, v = one.scores.u, information_of_variants(one.scores)
    expected = test(u, v, tested, null.context).mlog10p[0]
    for name in ("burden", "acat"):
        assert random_effects_mlog10p(name, set_of(one), tested, null) == pytest.approx(expected, rel=1e-8)


def test_the_omnibus_test_is_the_cauchy_combination_of_six() -> None:
    one = case(36, s=5, frequency=0.05)
    tested, null = named_hypothesis("any", TRAITS), null_of(one)
    eaf = one.S.mean(axis=0) / 2
    parts = [
        random_effects_mlog10p(name, set_of(one, beta_weights(eaf, *beta)), tested, null)
        for beta in ((1, 1), (1, 25))
        for name in ("skat", "burden", "acat")
    ]
    found = random_effects_mlog10p("omnibus", set_of(one, np.full(5, 7.0)), tested, null)
    assert found == pytest.approx(cauchy_mlog10p(np.array(parts)), rel=1e-12)


def test_acat_weighs_variants_by_weight_and_frequency() -> None:
    one = case(37, s=5)
    tested, null = named_hypothesis("any", TRAITS), null_of(one)
    weights = np.arange(1.0, 6)
    singles = test(one.scores.u, information_of_variants(one.scores), tested, null.context).mlog10p
    eaf = one.S.mean(axis=0) / 2
    expected = cauchy_mlog10p(singles, acat_weights(weights, eaf))
    assert random_effects_mlog10p("acat", set_of(one, weights), tested, null) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(41, 46))
def test_acat_leaves_out_a_variant_whose_carriers_lack_a_trait(seed: int) -> None:
    """Rounding is all the information on that trait, also where the set has no other variant."""
    one = case(seed, share=0.3, s=3)
    one.S[:, 0] = 0
    one.S[np.flatnonzero(np.isnan(one.dense.Y[:, 0]) & np.isfinite(one.dense.Y[:, 1]))[:3], 0] = 1
    tested, null, alone = named_hypothesis("any", TRAITS), null_of(one), replace(one, S=one.S[:, :1])
    with pytest.raises(NumericalError, match="no variant of the set has information"):
        random_effects_mlog10p("acat", set_of(alone), tested, null)
    others = replace(one, S=one.S[:, 1:])
    expected = random_effects_mlog10p("acat", set_of(others), tested, null)
    assert random_effects_mlog10p("acat", set_of(one), tested, null) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", range(41, 46))
@pytest.mark.parametrize("name", ["skat", "skato", "lr", "burden", "acat"])
def test_effects_on_a_trait_that_no_carrier_has_are_not_tested(name: SetTest, seed: int) -> None:
    """Rounding is all that their scores have."""
    one = case(seed, share=0.3, s=2)
    one.S[:] = 0
    carriers = np.flatnonzero(np.isnan(one.dense.Y[:, 0]) & np.isfinite(one.dense.Y[:, 1]))
    one.S[carriers[:4], [0, 1, 0, 1]] = 1
    for hypothesis in ("only:a", "trait:a"):
        with pytest.raises(NumericalError, match=r"no variance|span of the covariates|has information"):
            random_effects_mlog10p(name, set_of(one), named_hypothesis(hypothesis, TRAITS), null_of(one))
    if name != "acat":
        assert random_effects_mlog10p(name, set_of(one), named_hypothesis("any", TRAITS), null_of(one)) >= 0


def test_the_likelihood_ratio_takes_the_seed_of_the_set() -> None:
    one = case(38, s=4)
    tested, null = named_hypothesis("any", TRAITS), null_of(one)
    kernel = kernel_scores(one.scores, np.eye(3), np.ones(4))
    expected = likelihood_ratio_test(kernel, np.random.default_rng((1, 2))).mlog10p
    assert random_effects_mlog10p("lr", set_of(one), tested, null) == expected


def test_any_design_of_full_rank_is_any_effect() -> None:
    one = case(39, s=4)
    null = null_of(one)
    plain = kernel_of(one.scores, np.ones(4), named_hypothesis("any", TRAITS), null)
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    other = kernel_of(one.scores, np.ones(4), Hypothesis("mine", np.empty((3, 0)), basis), null)
    assert skat(other) == skat(plain)


def test_what_lies_in_the_span_of_the_covariates_has_no_p_value() -> None:
    one = case(40, s=2)
    two, of_sum, with_sum = (SetScores(np.zeros((s, 3)), np.zeros((3, s, s)), np.ones((3, s))) for s in (2, 1, 3))
    empty = VariantSetScores(
        two, lambda weights: of_sum, lambda: with_sum, lambda weights: None, np.ones(2), np.full(2, 0.1), (0,)
    )
    tested, null = named_hypothesis("any", TRAITS), null_of(one)
    for name, message in (
        ("skat", "no variance"),
        ("burden", "weighted sum of the variants"),
        ("acat", "no variant of the set"),
        ("skato", "no variance"),
        ("lr", "no variance"),
    ):
        with pytest.raises(NumericalError, match=message):
            random_effects_mlog10p(name, empty, tested, null)
