"""Linear hypotheses about the effects of a variant, from its score and information along the trait axes.

For effects ``β = A1 γ`` (p,) of a variant on the traits, ``D = T A1``, score u and information v along the axes,
``χ²(A1) = uᵀD (Dᵀdiag(v)D)⁻¹ Dᵀu`` is the drop in ``rᵀK⁻¹r`` below that of the null model, q0. A hypothesis is a
design A1 tested given a smaller one A0, and its statistic the likelihood ratio with the scale of K free,
``N log((q0 - χ²(A0)) / (q0 - χ²(A0, A1)))``, N = np observations by ML, or (n - c)p contrasts by REML.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

import numpy as np
from scipy import linalg

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.block_scanner import scaled_solve
from kron2sum_cli.model.information import lower_triangle, symmetric
from kron2sum_cli.model.satterthwaite import EffectiveContrasts, satterthwaite_mlog10p
from kron2sum_cli.model.spectrum import Array, Mask
from kron2sum_cli.model.tail_probability import chi2_mlog10p, f_mlog10p

Statistic = Literal["lr", "f", "satterthwaite"]

LEAST_LEFT = {"single": 1e-5, "double": 1e-12}
"""Smallest share of ``rᵀK⁻¹r`` that effects are taken to leave unexplained, by the precision of the products with
genotypes: what is less is rounding. A variant that determines the traits has the statistics of one that leaves so
much, the largest there can be."""

SMALLEST_ROW = 1e-15
"""Smallest row of a contrast, beside the largest one, that is no rounding: traits may have units as different."""

_MOST_LISTED = 10
"""Largest number of traits that a message names."""


@dataclass(frozen=True)
class Hypothesis:
    """Effects in the span of A0 and A1, tested against effects in the span of A0.

    ``name`` is the ending of its columns in a result table, ``base`` (p, e0) a basis of A0, of which e0 may be 0, and
    ``full`` (p, e) one of [A0, A1]. They are orthonormal in the units in which the effects of A0 and A1 are alike.
    """

    name: str
    base: Array
    full: Array

    @property
    def df(self) -> int:
        """Degrees of freedom: the rank that A1 adds."""
        return int(self.full.shape[1] - self.base.shape[1])

    @property
    def is_any_effect(self) -> bool:
        """Whether it is that of an effect on any trait."""
        return bool(self.base.shape[1] == 0 and self.df == self.full.shape[0])


@dataclass(frozen=True)
class TestContext:
    """The scale of tests: it turns a drop in ``rᵀK⁻¹r`` into a statistic.

    - ``T`` (p, p): trait axes of the null model.
    - ``quadratic``: ``rᵀK⁻¹r`` of the null model, q0.
    - ``size``: what the scale of K is estimated from: np observations by ML, (n - c)p contrasts by REML.
    - ``residual_df``: number of observations less that of the null model's fixed effects.
    - ``statistic``: "lr" for the likelihood ratio on χ², "f" for the F test, exact for K known up to scale, or
      "satterthwaite" for that of `model.satterthwaite`.
    - ``least_left``: one of `LEAST_LEFT`.
    - ``contrasts``: on how many contrasts K rests; needed for "satterthwaite", and None else.
    """

    __test__ = False  # not a test class, whatever its name

    T: Array
    quadratic: float
    size: int
    residual_df: int
    statistic: Statistic = "lr"
    least_left: float = LEAST_LEFT["double"]
    contrasts: EffectiveContrasts | None = None

    def left(self, above: Array) -> Array:
        """What effects that lower ``rᵀK⁻¹r`` by ``above`` leave of it."""
        return np.maximum(self.quadratic - above, self.least_left * self.quadratic)

    def result(self, relative_gain: Array, df: int, rank: int) -> "TestResult":
        """The test on ``df`` degrees of freedom of effects of rank ``rank``, by their gain relative to what is left."""
        chisq = self.size * np.log1p(relative_gain)
        if self.statistic == "lr":
            return TestResult(chisq, df, chi2_mlog10p(chisq, df))
        residual = self.residual_df - rank
        return TestResult(chisq, df, f_mlog10p(relative_gain * (residual / df), df, residual))

    def contrasts_of(self, hypothesis: Hypothesis) -> float | None:
        """On how many contrasts the covariances in a test rest, where it depends on them."""
        if self.contrasts is None:
            return None
        base, full = (orthonormal(self.T @ design) for design in (hypothesis.base, hypothesis.full))
        return self.contrasts.of_effects(base, full)

    def leaves_nothing(self, above: "TestResult") -> Mask:
        """Which tests against no effect have the largest statistic there can be."""
        return np.asarray(above.chisq >= -(1 - 1e-9) * self.size * np.log(self.least_left))


@dataclass(frozen=True)
class TestResult:
    """A hypothesis tested on b variants.

    Attributes
    ----------
    chisq : NDArray (b,)
        Likelihood ratio statistic.
    df : int
        Degrees of freedom.
    mlog10p : NDArray (b,)
        Minus log10 of the p-value.
    """

    __test__ = False

    chisq: Array
    df: int
    mlog10p: Array


def hypothesis(name: str, A1: Array, A0: Array | None = None) -> Hypothesis:
    """Effects ``[A0, A1]`` against effects ``A0``.

    Raises
    ------
    NumericalError
        Where A1 adds no rank to A0.
    """
    base = _basis(A0) if A0 is not None and A0.size else np.empty((A1.shape[0], 0))
    full = _basis(np.hstack([base, A1]))
    if full.shape[1] <= base.shape[1]:
        raise NumericalError(
            f"test {name}: its design has no rank" + (" beyond the design it is tested against" if base.size else "")
        )
    return Hypothesis(name, base, full)


def named_hypothesis(name: str, traits: Sequence[str], Tinv: Array | None = None) -> Hypothesis:
    """A test by its name.

    ``any`` (A1 = I), ``common`` (A1 = 1), ``specific`` (A1 = I given A0 = 1), ``trait:NAME`` (the effect on a trait,
    effects on the others free), ``only:NAME`` (an effect on that trait alone: the test conditional on all others),
    ``trait:NAME|A,B`` (conditional on the traits A and B, on which there is no effect; effects on the rest free), and
    ``axis:K`` (an effect along the K-th trait axis, for which Tinv is needed).

    Raises
    ------
    NumericalError
        Where the name is none of these, a trait is unknown or both tested and without effect, or there are too few
        traits for the test.
    """
    eye, ones = np.eye(len(traits)), np.ones((len(traits), 1))
    kind, _, rest = name.partition(":")
    if name == "any":
        return hypothesis(name, eye)
    if name == "common":
        return hypothesis(name, ones)
    if name == "specific":
        return hypothesis(name, eye, ones)
    if kind == "axis" and Tinv is not None and rest.isdigit() and 1 <= int(rest) <= len(traits):
        return hypothesis(name, Tinv[:, [int(rest) - 1]])
    if kind in ("trait", "only") and rest:
        trait, bar, given = _parts(rest, traits)
        if kind == "only" and bar:
            raise NumericalError(f"test {name}: only:NAME takes one trait")
        others = [other for other in traits if other != trait]
        fixed = others if kind == "only" else (given.split(",") if bar else [])
        if trait in fixed:
            raise NumericalError(f"test {name}: {trait} is on both sides of the bar; after it name other traits only")
        for other in (trait, *fixed):
            if other not in traits:
                raise NumericalError(f"test {name}: there is no trait {other}; {_advice(other, traits)}")
        free = [k for k, other in enumerate(traits) if other != trait and other not in fixed]
        return hypothesis(name, eye[:, [traits.index(trait)]], eye[:, free])
    raise NumericalError(
        f"test {name}: must be any, common, specific, trait:NAME, trait:NAME|OTHERS, only:NAME or axis:K (K from 1 to"
        f" {len(traits)})"
    )


def _parts(text: str, traits: Sequence[str]) -> tuple[str, str, str]:
    """A trait, a bar, and the traits after it; a bar that is part of the name of a trait does not count."""
    if text in traits:
        return text, "", ""
    bars = [k for k, character in enumerate(text) if character == "|"]
    known = (k for k in bars if text[:k] in traits and set(text[k + 1 :].split(",")) <= set(traits))
    at = next(known, None)
    return text.partition("|") if at is None else (text[:at], "|", text[at + 1 :])


def _advice(name: str, traits: Sequence[str]) -> str:
    """Traits with a similar name, or the first traits, for the message about an unknown trait."""
    near = get_close_matches(name, traits)
    if near:
        return f"did you mean {' or '.join(near)}?"
    more = f" and {len(traits) - _MOST_LISTED} more" if len(traits) > _MOST_LISTED else ""
    return f"there are {', '.join(traits[:_MOST_LISTED])}{more}"


def reduction(u: Array, v: Array, design: Array, T: Array) -> Array:
    """``χ²`` of effects in the span of ``design`` (p, e), for u (b, p) and v (b, p) or (b, p, p): (b,).

    Where v is diagonal and the design leaves out fewer dimensions than it has, from the full test less the contrast
    left out. Orthonormal columns along the axes, so that traits of very different units cost no precision.
    """
    p, e = design.shape
    if e == 0:
        return np.zeros(u.shape[0])
    D = orthonormal(T @ design)
    if v.ndim == 3:
        return _quadratic(u @ D, np.einsum("je,bjk,kf->bef", D, v, D, optimize=True))
    if 2 * e <= p or p == 1:
        return _quadratic(u @ D, _information(v, D))
    total = np.sum(u * (u / v), axis=1)
    if e == p:
        return np.asarray(total)
    rows, units = row_sizes(design)[:, None], np.linalg.norm(T, axis=0)[:, None]
    L = orthonormal(linalg.solve(T.T / units, linalg.null_space((design / rows).T) / (rows * units)))
    return np.asarray(total - _quadratic((u / v) @ L, _information(1 / v, L)))


def orthonormal(M: Array) -> Array:
    """Orthonormal columns with the span of M (p, e), whose columns are independent."""
    return np.asarray(np.linalg.qr(M)[0])


def _information(weights: Array, D: Array) -> Array:
    """``Dᵀ diag(w) D`` a row of the weights (b, p): (b, e, e)."""
    p, e = D.shape
    pairs = (D[:, :, None] * D[:, None, :]).reshape(p, e * e)
    return np.asarray((weights @ pairs).reshape(-1, e, e))


def _quadratic(scores: Array, information: Array) -> Array:
    """``sᵀ I⁻¹ s`` a row, for s (b, e) and I (b, e, e)."""
    if scores.shape[1] == 1:
        return np.asarray(scores[:, 0] ** 2 / information[:, 0, 0])
    return np.asarray(np.einsum("be,be->b", scores, scaled_solve(information, scores[:, :, None])[:, :, 0]))


def test(u: Array, v: Array, hypothesis: Hypothesis, context: TestContext) -> TestResult:
    """Test one hypothesis on a block: u, v (b, p), every v positive."""
    below = reduction(u, v, hypothesis.base, context.T)
    above = reduction(u, v, hypothesis.full, context.T)
    ranks = hypothesis.base.shape[1], hypothesis.full.shape[1]
    return compare(below, above, *ranks, context, context.contrasts_of(hypothesis))


test.__test__ = False  # type: ignore[attr-defined]  # not a test of this code


def compare(
    below: Array,
    above: Array,
    rank_below: int,
    rank_above: int,
    context: TestContext,
    contrasts: Array | float | None = None,
) -> TestResult:
    """Compare two nested designs by their reductions (b,) of ``rᵀK⁻¹r``.

    ``contrasts`` are those that the covariances in this test rest on, where P depends on them.
    """
    gain, df = relative_gain(below, above, context.quadratic, context.least_left), rank_above - rank_below
    if contrasts is None:
        return context.result(gain, df, rank_above)
    mlog10p = satterthwaite_mlog10p(gain * context.left(above) * (context.size / context.quadratic), df, contrasts)
    return TestResult(context.size * np.log1p(gain), df, mlog10p)


def relative_gain(below: Array, above: Array, quadratic: Array | float, least_left: float) -> Array:
    """What a design lowers ``quadratic``, ``rᵀK⁻¹r``, by beyond a smaller one, over what it leaves.

    ``below`` and ``above`` are their reductions of it, and ``least_left`` the smallest share that may be left.
    """
    least = least_left * quadratic
    gain = np.maximum(np.minimum(above, quadratic - least) - below, 0.0)
    return np.asarray(gain / np.maximum(quadratic - above, least))


@dataclass(frozen=True)
class TraitEffects:
    """Effects on every trait in the joint model, (b, p) each.

    ``beta`` are effects of one more effect allele, ``se`` their standard errors with the scale of the joint model
    ``s1 = (q0 - χ²)/N``, and ``mlog10p`` is -log10 P of every trait's effect, given effects on the others.
    """

    beta: Array
    se: Array
    mlog10p: Array


def trait_effects(
    u: Array, v: Array, Tinv: Array, context: TestContext, below: Array | float = 0.0, rank_below: int = 0
) -> TraitEffects:
    """``β = T⁻¹ V⁻¹ u`` and its variances ``diag(T⁻¹ V⁻¹ T⁻ᵀ)``, for u (b, p), and v (b, p) or (b, p, p).

    Where u and v are given other effects, ``below`` (b,) is by how much those, of rank ``rank_below``, lower
    ``rᵀK⁻¹r``.
    """
    p = u.shape[1]
    if v.ndim == 3:
        along = scaled_solve(v, u[:, :, None])[:, :, 0]
        beta = along @ Tinv.T
        variance = np.einsum("bjj->bj", effect_covariance(v, Tinv))
        gain = np.sum(u * along, axis=1)
    else:
        beta = (u / v) @ Tinv.T
        variance = (1 / v) @ (Tinv**2).T
        gain = np.sum(u * (u / v), axis=1)
    above = (below + gain)[:, None]
    scale = context.left(above) / context.size
    rank = rank_below + p
    contrasts = None if context.contrasts is None else context.contrasts.of_traits(Tinv)
    result = compare(above - beta**2 / variance, np.broadcast_to(above, beta.shape), rank - 1, rank, context, contrasts)
    return TraitEffects(beta, np.sqrt(scale * variance), result.mlog10p)


def score_and_information(beta: Array, information: Array, T: Array) -> tuple[Array, Array]:
    """Score u (b, p) and information from the effects on the traits and the information of a result table."""
    effects = beta @ T.T
    if information.ndim == 3:
        return np.einsum("bjk,bk->bj", information, effects), information
    return effects * information, information


def effect_covariance(information: Array, Tinv: Array) -> Array:
    """``T⁻¹ V⁻¹ T⁻ᵀ`` for every variant: (b, p, p), for K with scale 1."""
    if information.ndim == 3:
        return np.asarray(Tinv @ np.linalg.inv(information) @ Tinv.T)
    return np.asarray(np.einsum("aj,bj,cj->bac", Tinv, 1 / information, Tinv, optimize=True))


def pack_information(v: Array) -> Array:
    """The entries of v that a table holds: all of (b, p), and the lower triangle, row by row, of (b, p, p)."""
    return v if v.ndim == 2 else lower_triangle(v)


def unpack_information(packed: Array, p: int) -> Array:
    """The reverse of `pack_information`."""
    return packed if packed.shape[1] == p else symmetric(packed)


def _basis(M: Array) -> Array:
    """Columns with the span of M (p, e), orthonormal but for the sizes of the rows of M.

    The rank of M does not depend on these, which are units of traits; so they decide neither it nor the precision.
    """
    columns = np.max(np.abs(M), axis=0, initial=0.0)
    M = M[:, columns > 0] / columns[columns > 0]
    rows = row_sizes(M)
    scaled = M / rows[:, None]
    U, sizes, _ = np.linalg.svd(scaled / np.linalg.norm(scaled, axis=0), full_matrices=False)
    return np.asarray(rows[:, None] * U[:, sizes > 1e-10 * max(M.shape)])


def row_sizes(M: Array) -> Array:
    """Largest absolute values of the rows of M: (p,); 1 for those that are 0 or, beside the others, rounding."""
    sizes = np.max(np.abs(M), axis=1, initial=0.0)
    return np.where(sizes > SMALLEST_ROW * np.max(sizes, initial=0.0), sizes, 1.0)
