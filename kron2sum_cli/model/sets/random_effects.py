"""The tests of a set of variants beside that of fixed effects, by their names."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeVar

import numpy as np

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.block_scanner import least_left
from kron2sum_cli.model.hypotheses import Hypothesis, TestContext, test
from kron2sum_cli.model.sets.fixed_effects import SetScores, reduce_set, test_set
from kron2sum_cli.model.sets.kernel_tests import (
    KernelScores,
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
from kron2sum_cli.model.sets.skato import apart_from_sum, skato
from kron2sum_cli.model.spectrum import Array, Floats, Mask
from kron2sum_cli.model.trait_axes import TraitAxes

SetTest = Literal["burden", "skat", "skato", "acat", "lr", "omnibus"]
Result = TypeVar("Result")

OMNIBUS_WEIGHTS = ((1.0, 1.0), (1.0, 25.0))
"""Weights of the variants that the omnibus test combines, as STAAR-O does."""

LEAST_INFORMATION = 1e-9
"""A variant of which fixed effects or missing cells leave a smaller share of its information, in some direction of the
traits, has no P value of its own, as in a scan of variants: it may be rounding."""


@dataclass(frozen=True)
class SetNull:
    """The null model as tests of sets need it; ``mean_diagonal`` is g, that of the centred GGᵀ."""

    axes: TraitAxes
    mean_diagonal: float
    context: TestContext


@dataclass(frozen=True)
class VariantSetScores:
    """A set of s variants to test, with their weights and the frequencies of their effect alleles.

    ``sum_scores`` gives those of their sum with weights (s,), as one variant, and ``with_sum`` those of the variants
    and, last, of the sum with the weights of the set. ``genotypes_of_sum`` gives the sum (n,) with weights where
    variants cancel, else None. Null distributions are simulated from ``seed``.
    """

    scores: SetScores
    sum_scores: Callable[[Array], SetScores]
    with_sum: Callable[[], SetScores]
    genotypes_of_sum: Callable[[Array], Floats | None]
    weights: Array
    eaf: Array
    seed: tuple[int, ...]

    def of_omnibus(self) -> list["VariantSetScores"]:
        """The set with each of `OMNIBUS_WEIGHTS`."""
        return [replace(self, weights=beta_weights(self.eaf, a, b)) for a, b in OMNIBUS_WEIGHTS]

    @property
    def acat_weights(self) -> Array:
        """Weights (s,) of the P values of its variants."""
        return acat_weights(self.weights, self.eaf)


def random_effects_mlog10p(name: SetTest, one: VariantSetScores, tested: Hypothesis, null: SetNull) -> float:
    """-log10 P of a test of a set.

    ``skat``, ``burden``, ``skato`` and ``acat`` have the weights of the set; ``omnibus`` is skat, burden and acat, each
    with the weights Beta(1, 1) and Beta(1, 25), those of them that the set has combined by Cauchy's distribution;
    ``lr`` is mtSet's. Raises NumericalError where the set has no P value, saying why.
    """
    return _TESTS[name](one, tested, null)


def _skat(one: VariantSetScores, tested: Hypothesis, null: SetNull) -> float:
    return skat(kernel_of(one.scores, one.weights, tested, null))


def _skato(one: VariantSetScores, tested: Hypothesis, null: SetNull) -> float:
    with_sum = one.with_sum()
    joint = kernel_of(with_sum, np.append(one.weights, 1.0), tested, null)
    below, above = (reduce_set(with_sum.last, design, null.axes.T).rank for design in (tested.base, tested.full))
    return skato(*apart_from_sum(joint, above - below))


def _likelihood_ratio(one: VariantSetScores, tested: Hypothesis, null: SetNull) -> float:
    """mtSet's, which takes the best of all directions of the tested effects."""
    if tested.is_any_effect:
        kernel = kernel_scores(one.scores, np.eye(one.scores.u.shape[1]), one.weights)
    else:
        kernel = kernel_of(one.scores, one.weights, tested, null)
    return likelihood_ratio_test(kernel, np.random.default_rng(one.seed)).mlog10p


def kernel_of(scores: SetScores, weights: Array, tested: Hypothesis, null: SetNull) -> KernelScores:
    """Weighted scores along the directions of a hypothesis."""
    return directions_of(scores, tested, null.axes, null.mean_diagonal).scores(scores, weights)


def _omnibus(one: VariantSetScores, tested: Hypothesis, null: SetNull) -> float:
    return combined_mlog10p(omnibus_parts(one, tested, null))


def combined_mlog10p(parts: Array) -> float:
    """-log10 P of the omnibus test from those of its parts, NaN where there is none; NumericalError without any."""
    known = parts[~np.isnan(parts)]
    if not known.size:
        raise NumericalError("the set has none of the tests that omnibus combines")
    return cauchy_mlog10p(known)


def omnibus_parts(one: VariantSetScores, tested: Hypothesis, null: SetNull) -> Array:
    """-log10 P (6,) of skat, burden and acat, each with all `OMNIBUS_WEIGHTS`: what ``omnibus`` combines.

    NaN where the set has no such test, as founders have no burden with equal weights: their probabilities sum to 1.
    """
    weighted = one.of_omnibus()
    kernels = [if_any(partial(_mixture, each, tested, null)) for each in weighted]
    known = [kernel for kernel in kernels if kernel is not None]
    found = np.full((3, len(weighted)), np.nan)
    if known:
        mixtures, q = zip(*known, strict=True)
        found[0, [kernel is not None for kernel in kernels]] = mixture_mlog10p(np.vstack(mixtures), np.array(q))
    for k, test_of in enumerate((_burden, _acat), start=1):
        parts = [if_any(partial(test_of, each, tested, null)) for each in weighted]
        found[k] = [np.nan if part is None else part for part in parts]
    return found.reshape(-1)


def _mixture(one: VariantSetScores, tested: Hypothesis, null: SetNull) -> tuple[Array, float]:
    """The weights (1, m) of the null distribution of skat, and its statistic."""
    kernel = kernel_of(one.scores, one.weights, tested, null)
    return null_weights(kernel.blocks), float(np.sum(kernel.z**2))


def if_any(test_of: Callable[[], Result]) -> Result | None:
    """The result of a test; None where the set has no such test."""
    try:
        return test_of()
    except NumericalError:
        return None


def _burden(one: VariantSetScores, tested: Hypothesis, null: SetNull) -> float:
    """The weighted sum of the variants, tested as one variant."""
    found = test_set(one.sum_scores(one.weights), tested, null.context)[1]
    if found is None:
        raise NumericalError("the weighted sum of the variants lies in the span of the covariates")
    return float(found.mlog10p[0])


def _acat(one: VariantSetScores, tested: Hypothesis, null: SetNull) -> float:
    """The P values of the variants by themselves, combined by Cauchy's distribution."""
    v, kept = with_information(one.scores)
    return cauchy_mlog10p(test(one.scores.u[kept], v[kept], tested, null.context).mlog10p, one.acat_weights[kept])


_TESTS: dict[SetTest, Callable[[VariantSetScores, Hypothesis, SetNull], float]] = {
    "burden": _burden,
    "skat": _skat,
    "skato": _skato,
    "acat": _acat,
    "lr": _likelihood_ratio,
    "omnibus": _omnibus,
}


def with_information(scores: SetScores) -> tuple[Array, Mask]:
    """Information of every variant by itself, and which variants (s,) have some on the effects on all traits.

    Raises NumericalError where no variant has.
    """
    v, sizes = information_of_variants(scores), scores.sizes.T
    left = least_left(v, sizes) if v.ndim == 3 else np.min(v / np.where(sizes > 0, sizes, 1.0), axis=1)
    kept = left > LEAST_INFORMATION
    if not kept.any():
        raise NumericalError("no variant of the set has information on the effects on all traits")
    return v, kept
