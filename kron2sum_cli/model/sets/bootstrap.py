"""Tests of a set of variants in simulated data sets, for thresholds over a scan of sets.

The information of a set is that of the scan, and so is the null distribution of its statistic: only scores u* and
``y*ᵀPy*`` differ between data sets. P of skat is a function of Q alone, different for every set, so that it is computed
at few values and interpolated.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np
from numpy.polynomial.chebyshev import Chebyshev
from scipy import linalg

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.bootstrap import SimulatedTraits, relative_gains
from kron2sum_cli.model.hypotheses import Hypothesis, TestContext, relative_gain
from kron2sum_cli.model.sets.fixed_effects import SetScores, effects_of_set
from kron2sum_cli.model.sets.kernel_tests import cauchy_mlog10p_of_many, directions_of, null_weights
from kron2sum_cli.model.sets.quadratic_forms import mixture_mlog10p
from kron2sum_cli.model.sets.random_effects import SetNull, VariantSetScores, if_any, with_information
from kron2sum_cli.model.spectrum import Array

SimulatedTest = Literal["fixed", "burden", "skat", "acat", "omnibus"]

DEGREE = 32
"""Of the polynomial in log Q that interpolates the P values of a set."""


def simulated_set_mlog10p(
    name: SimulatedTest,
    one: VariantSetScores,
    u: Array,
    simulated: SimulatedTraits,
    tested: Hypothesis,
    null: SetNull,
) -> Array:
    """-log10 P (B,) of a test of a set in B data sets.

    ``u`` (s, p, B) are the scores of the set in these; those of the scan play no part. Raises NumericalError where the
    set has no P value, saying why.
    """
    return _TESTS[name](one, u, simulated, tested, null)


def _omnibus(one: VariantSetScores, u: Array, simulated: SimulatedTraits, tested: Hypothesis, null: SetNull) -> Array:
    """Skat, burden and acat with all weights of the omnibus test, those that the set has combined as in the scan."""
    parts = [
        if_any(partial(test_of, each, u, simulated, tested, null))
        for each in one.of_omnibus()
        for test_of in (_skat, _burden, _acat)
    ]
    return cauchy_mlog10p_of_many(np.stack([part for part in parts if part is not None]))


def _skat(one: VariantSetScores, u: Array, simulated: SimulatedTraits, tested: Hypothesis, null: SetNull) -> Array:
    """Of a variance component: Q in every data set against the one null distribution of the set."""
    directions = directions_of(one.scores, tested, null.axes, null.mean_diagonal)
    q = np.sum((directions.of(u) * one.weights[:, None]) ** 2, axis=(0, 1))
    return interpolated_mlog10p(null_weights(directions.scores(one.scores, one.weights).blocks), q)


def interpolated_mlog10p(weights: Array, q: Array) -> Array:
    """-log10 P of many values of one mixture with weights (1, m), to 1e-6: by a polynomial in log Q."""
    x = np.log(np.maximum(q, np.finfo(float).tiny))
    low, high = float(np.min(x)), float(np.max(x))
    if q.size <= DEGREE + 1 or high - low < 1e-6:
        return mixture_mlog10p(np.repeat(weights, q.size, axis=0), q)

    def at(places: Array) -> Array:
        return mixture_mlog10p(np.repeat(weights, places.size, axis=0), np.exp(places))

    return np.asarray(np.maximum(Chebyshev.interpolate(at, DEGREE, domain=[low, high])(x), 0.0))


def _burden(one: VariantSetScores, u: Array, simulated: SimulatedTraits, tested: Hypothesis, null: SetNull) -> Array:
    """The weighted sum of the variants as one variant."""
    g = one.genotypes_of_sum(one.weights)
    if g is None:
        of_sum = np.einsum("a,ajk->jk", one.weights, u)
    else:
        of_sum = np.tensordot(g.astype(simulated.scores.dtype), simulated.scores, axes=1)
    return _of_effects(one.sum_scores(one.weights), of_sum[None], simulated.quadratic, tested, null.context)


def _acat(one: VariantSetScores, u: Array, simulated: SimulatedTraits, tested: Hypothesis, null: SetNull) -> Array:
    """The P values of the variants by themselves, combined by Cauchy's distribution."""
    (v, kept), context = with_information(one.scores), null.context
    (gain,) = relative_gains(u[kept], v[kept], simulated.quadratic, [tested], context, each_trait=False)
    return cauchy_mlog10p_of_many(context.result(gain, tested.df, tested.full.shape[1]).mlog10p, one.acat_weights[kept])


def _fixed(one: VariantSetScores, u: Array, simulated: SimulatedTraits, tested: Hypothesis, null: SetNull) -> Array:
    """The effects of all variants."""
    return _of_effects(one.scores, u, simulated.quadratic, tested, null.context)


def _of_effects(scores: SetScores, u: Array, quadratic: Array, tested: Hypothesis, context: TestContext) -> Array:
    """The effects of variants with the information of ``scores``, as many as are independent.

    Raises NumericalError where these are none, or as many as there are values.
    """
    drops, ranks = [], []
    for design in (tested.base, tested.full):
        effects = effects_of_set(scores, design, context.T)
        drops.append(np.zeros(u.shape[2]))
        ranks.append(0)
        if effects is not None:
            h = np.einsum("je,ajk->eak", effects.D, u).reshape(-1, u.shape[2])[effects.kept]
            half = linalg.solve_triangular(effects.root, h / effects.size[:, None], lower=True)
            drops[-1], ranks[-1] = np.sum(half**2, axis=0), len(effects.kept)
    if ranks[1] == ranks[0] or ranks[1] >= context.residual_df:
        raise NumericalError("the variants have no effects to test, or as many as there are values")
    gain = relative_gain(drops[0], drops[1], quadratic, context.least_left)
    return context.result(gain, ranks[1] - ranks[0], ranks[1]).mlog10p


_TESTS: dict[SimulatedTest, Callable[[VariantSetScores, Array, SimulatedTraits, Hypothesis, SetNull], Array]] = {
    "fixed": _fixed,
    "burden": _burden,
    "skat": _skat,
    "acat": _acat,
    "omnibus": _omnibus,
}
