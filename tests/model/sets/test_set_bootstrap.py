"""Tests of sets in many simulated data sets at once, against those of one after the other."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from set_oracle import Case, cancel, case
from test_random_effects import TRAITS, null_of, set_of

from kron2sum_cli.model.bootstrap import SimulatedTraits
from kron2sum_cli.model.hypotheses import compare, named_hypothesis
from kron2sum_cli.model.sets.bootstrap import SimulatedTest, interpolated_mlog10p, simulated_set_mlog10p
from kron2sum_cli.model.sets.fixed_effects import SetScores, reduce_set, test_set
from kron2sum_cli.model.sets.kernel_tests import cauchy_mlog10p
from kron2sum_cli.model.sets.quadratic_forms import mixture_mlog10p
from kron2sum_cli.model.sets.random_effects import omnibus_parts, random_effects_mlog10p
from kron2sum_cli.model.spectrum import Array

B = 50


def sum_of(one: Case, u: Array, weights: Array) -> SetScores:
    """Scores of the weighted sum of a set in a data set in which the variants have scores u (s, p)."""
    return replace(one.sum_scores(weights), u=(weights @ u)[None])


@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize("asked", ["any", "common", "trait:b", "only:b"])
@pytest.mark.parametrize("name", ["fixed", "burden", "skat", "acat", "omnibus"])
def test_every_data_set_has_the_p_of_its_scores(name: str, asked: str, share: float) -> None:
    one = case(41, share=share, s=5)
    rng = np.random.default_rng(3)
    weights = rng.uniform(0.5, 2, size=5)
    tested, null, scored = named_hypothesis(asked, TRAITS), null_of(one), set_of(one, weights)
    u = one.scores.u[:, :, None] * rng.normal(size=(5, 3, B)) * rng.uniform(0.2, 2, size=B)
    quadratic = null.context.quadratic * rng.uniform(0.8, 1.2, size=B)
    found = simulated_set_mlog10p(name, scored, u, SimulatedTraits(np.zeros((0, 3, B)), quadratic), tested, null)
    for k in range(B):
        scores, of_sum = replace(one.scores, u=u[:, :, k]), partial(sum_of, one, u[:, :, k])
        context = replace(null.context, quadratic=float(quadratic[k]))
        if name == "fixed":
            result = test_set(scores, tested, context)[1]
            assert result is not None
            expected = float(result.mlog10p[0])
        else:
            expected = random_effects_mlog10p(
                name, replace(scored, scores=scores, sum_scores=of_sum), tested, replace(null, context=context)
            )
        assert found[k] == pytest.approx(expected, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_the_omnibus_test_combines_what_the_set_has(share: float) -> None:
    """Alleles of one locus have no burden with equal weights, in the scan and in every data set."""
    one = case(43, share=share, s=3)
    cancel(one.S)
    eaf = np.array([0.5, 0.3, 0.2])
    tested, null = named_hypothesis("any", TRAITS), null_of(one)
    scored = replace(set_of(one), eaf=eaf)
    parts = omnibus_parts(scored, tested, null)
    assert np.isnan(parts).tolist() == [False, False, True, False, False, False]
    observed = random_effects_mlog10p("omnibus", scored, tested, null)
    assert observed == pytest.approx(cauchy_mlog10p(parts[~np.isnan(parts)]), rel=1e-12)
    simulated = SimulatedTraits(np.zeros((60, 3, 2)), np.full(2, null.context.quadratic))
    u = np.repeat(one.scores.u[:, :, None], 2, axis=2)
    found = simulated_set_mlog10p("omnibus", scored, u, simulated, tested, null)
    np.testing.assert_allclose(found, observed, rtol=1e-6)


@pytest.mark.parametrize("name", ["fixed", "burden"])
def test_a_trait_that_no_carrier_has_takes_a_degree_of_freedom(name: SimulatedTest) -> None:
    """As in the test of the scan itself."""
    one = case(42, share=0.3, s=2)
    carriers = np.flatnonzero(np.isnan(one.dense.Y[:, 0]) & np.isfinite(one.dense.Y[:, 1]))
    one.S[:] = 0
    one.S[carriers[:4], [0, 1, 0, 1]] = 1
    tested, null, scored = named_hypothesis("any", TRAITS), null_of(one), set_of(one)
    u, quadratic = np.repeat(one.scores.u[:, :, None], B, axis=2), np.full(B, null.context.quadratic)
    found = simulated_set_mlog10p(name, scored, u, SimulatedTraits(np.zeros((0, 3, B)), quadratic), tested, null)
    effects = scored.scores if name == "fixed" else scored.sum_scores(np.ones(2))
    above, nothing = reduce_set(effects, np.eye(3), one.axes.T), np.zeros(1)
    assert above.rank == (4 if name == "fixed" else 2)
    expected = compare(nothing, np.array([above.chisq]), 0, above.rank, null.context).mlog10p[0]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize("weight", [1e3, 1e7])
def test_variants_that_cancel_leave_the_burden_of_the_others(weight: float, share: float) -> None:
    """In single precision, too, in which the scores of simulated data sets are."""
    one = case(12, s=4, share=share, dtype=np.float32)
    cancel(one.S)
    tested, null = named_hypothesis("common", TRAITS), null_of(one)
    scores = np.random.default_rng(4).normal(size=(60, 3, B)).astype(np.float32)
    simulated = SimulatedTraits(scores, np.full(B, null.context.quadratic))
    u = np.einsum("na,npk->apk", one.S.astype(np.float32), scores).astype(np.float64)
    found, expected = (
        simulated_set_mlog10p("burden", set_of(one, np.array([a, a, a, 1.0])), u, simulated, tested, null)
        for a in (weight, 0.0)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("m", [1, 2, 8, 200])
def test_interpolated_p_values(m: int) -> None:
    rng = np.random.default_rng(m)
    weights = rng.random((1, m)) ** 3
    q = rng.chisquare(1, size=(1000, m)) @ weights[0]
    expected = mixture_mlog10p(np.repeat(weights, 1000, axis=0), q)
    np.testing.assert_allclose(interpolated_mlog10p(weights, q), expected, rtol=1e-6, atol=1e-6)
