"""The largest statistics of scans of simulated traits, for thresholds over a whole scan.

Traits ``y* = K^½ε`` of the null model are tested at its C0 and C1: ``u* = gᵀPy*`` and ``q0* = y*ᵀPy*``, while the
information of a variant is that of the scan. ε is normal, or a permutation of the samples' whitened residuals
``K^-½r``. The square root is the symmetric one, so that the null models without each chromosome share their traits.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg

from kron2sum_cli.model.conditioning import GivenVariants
from kron2sum_cli.model.hypotheses import Hypothesis, TestContext, orthonormal, relative_gain
from kron2sum_cli.model.null_model import NullModel
from kron2sum_cli.model.second_column import SecondStatistics
from kron2sum_cli.model.spectrum import Array, Floats, Indices, parts_of

TRAITS_AT_ONCE = 128
"""Number of data sets that are simulated at once."""

ENTRIES_AT_ONCE = 1 << 21
"""Number of scores that are looked at at once."""


@dataclass(frozen=True)
class SimulatedTraits:
    """B data sets of p traits under a null model, by ``y*ᵀPy*`` (B,) and their scores (n, p, B).

    The scores are ``Py*`` along the axes, whose products with a variant are the variant's.
    """

    scores: Floats
    quadratic: Array


def normal_errors(seed: int, number: int, n: int, p: int) -> Iterator[Array]:
    """Errors of B data sets in the traits, (n, p, k) at a time; the first are the same whatever their number."""
    rng = np.random.default_rng(seed)
    for part in parts_of(number, TRAITS_AT_ONCE):
        drawn = rng.standard_normal((min(part.stop, number) - part.start, n, p))
        yield np.ascontiguousarray(drawn.transpose(1, 2, 0))


def permutations(seed: int, number: int, n: int) -> Indices:
    """Orders of the samples (B, n)."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(n) for _ in range(number)])


def simulated_normal(
    model: NullModel, errors: Iterable[Array], given: GivenVariants | None, dtype: type[np.floating]
) -> SimulatedTraits:
    """Traits of normal errors, as `normal_errors` gives them, which are turned from the traits into the axes."""
    turn = linalg.polar(model.summary.axes.T)[0]
    return _simulated([_scores(model, np.einsum("jt,ntk->njk", turn, E), given, dtype) for E in errors])


def simulated_permuted(
    model: NullModel, Y: Array, orders: Indices, given: GivenVariants | None, dtype: type[np.floating]
) -> SimulatedTraits:
    """Traits (of complete traits Y (n, p)) with the whitened residuals of the samples in other orders (B, n)."""
    residuals = _project(model, (Y @ model.summary.axes.T.T)[:, :, None], given)
    whitened = model.colour(residuals)[:, :, 0]
    parts = (whitened[orders[part]].transpose(1, 2, 0) for part in parts_of(len(orders), TRAITS_AT_ONCE))
    return _simulated([_scores(model, E, given, dtype) for E in parts])


def _simulated(parts: Sequence[SimulatedTraits]) -> SimulatedTraits:
    scores = np.concatenate([part.scores for part in parts], axis=2)
    return SimulatedTraits(scores, np.concatenate([part.quadratic for part in parts]))


def _scores(model: NullModel, E: Array, given: GivenVariants | None, dtype: type[np.floating]) -> SimulatedTraits:
    """Scores of the traits of errors E (n, p, k) in the axes."""
    if given is None:
        scores, quadratic = model.simulated_scores(E)
        return SimulatedTraits(scores.astype(dtype, copy=False), quadratic)
    traits = model.colour(E)
    scores = _project(model, traits, given)
    return SimulatedTraits(scores.astype(dtype), np.einsum("njk,njk->k", traits, scores))


def _project(model: NullModel, F: Array, given: GivenVariants | None) -> Array:
    """``Pf``, with further variants given."""
    projected = model.project(F)
    if given is None:
        return projected
    if given.z.ndim == 2:
        along = np.einsum("nje,njk->jek", given.F, F)
        return np.asarray(projected - np.einsum("nje,jek->njk", given.F, along))
    return np.asarray(projected - np.einsum("nje,ek->njk", given.F, np.einsum("nje,njk->ek", given.F, F)))


def largest_statistics(
    simulated: SimulatedTraits,
    u: Floats,
    v: Array,
    tests: Sequence[Hypothesis],
    traits: Sequence[str],
    context: TestContext,
) -> dict[str, Array]:
    """The largest -log10 P over b variants, of every test and every trait, for each data set: (B,) each.

    Every trait is tested given effects on the others. ``u`` (b, p, B) are scores of the variants in the data sets, and
    ``v`` (b, p) or (b, p, p) their information.
    """
    b, p, number = u.shape
    largest = np.zeros((len(tests) + p, number))
    for some in parts_of(b, ENTRIES_AT_ONCE // (p * number)):
        gains = relative_gains(u[some], v[some], simulated.quadratic, tests, context, each_trait=True)
        for k, gain in enumerate(gains):
            np.maximum(largest[k], gain.max(axis=0), out=largest[k])
    found = {}
    for k, test in enumerate(tests):
        found[test.name] = context.result(largest[k], test.df, test.full.shape[1]).mlog10p
    for j, trait in enumerate(traits):
        found[trait] = context.result(largest[len(tests) + j], 1, p).mlog10p
    return found


def largest_of_second(
    simulated: SimulatedTraits,
    u: Floats,
    u_second: Floats,
    statistics: SecondStatistics,
    context: TestContext,
) -> tuple[Array, Array]:
    """The largest -log10 P of the second columns of b variants, and of both columns, for each data set: (B,) each.

    ``u`` and ``u_second`` (b, p, B) are scores of the first and of the second columns, each alone.
    """
    b, p, number = u.shape
    largest = np.zeros((2, number))
    full = [v if v.ndim == 3 else v[:, :, None] * np.eye(p) for v in (statistics.first.v, statistics.v)]
    for some in parts_of(b, ENTRIES_AT_ONCE // (p * number)):
        given = _given_first(u[some], u_second[some], statistics.regression[some])
        of_first = _reduction(u[some], full[0][some], np.eye(p))
        above = of_first + _reduction(given, full[1][some], np.eye(p))
        for k, below in enumerate((of_first, np.zeros(of_first.shape))):
            gain = relative_gain(below, above, simulated.quadratic, context.least_left)
            np.maximum(largest[k], gain.max(axis=0), out=largest[k])
    return context.result(largest[0], p, 2 * p).mlog10p, context.result(largest[1], 2 * p, 2 * p).mlog10p


def _given_first(u: Floats, u_second: Floats, regression: Array) -> Floats:
    """Scores (b, p, B) of second columns given the first."""
    taken = regression.astype(u.dtype)
    explained = taken[:, :, None] * u if taken.ndim == 2 else np.matmul(taken.transpose(0, 2, 1), u)
    return np.asarray(u_second - explained)


def relative_gains(
    u: Floats,
    v: Array,
    quadratic: Array,
    tests: Sequence[Hypothesis],
    context: TestContext,
    each_trait: bool,
) -> list[Array]:
    """Drops of ``rᵀK⁻¹r`` by every test, and every trait if asked for, over what is left: (b, B) each.

    Scores u are (b, p, B), information v (b, p) or (b, p, p), ``y*ᵀPy*`` (B,).
    """
    p, found = u.shape[1], []
    full = v if v.ndim == 3 else v[:, :, None] * np.eye(p)
    of_all = _reduction(u, full, np.eye(p))
    for test in tests:
        above = of_all if test.full.shape[1] == p else _reduction(u, full, orthonormal(context.T @ test.full))
        below = _reduction(u, full, orthonormal(context.T @ test.base)) if test.base.size else np.zeros(above.shape)
        found.append(relative_gain(below, above, quadratic, context.least_left))
    if not each_trait:
        return found
    solved = np.linalg.solve(full, np.linalg.inv(context.T).T)  # V⁻¹T⁻ᵀ
    variance = np.einsum("jk,bkj->bj", np.linalg.inv(context.T), solved)
    effects = np.matmul((solved / np.sqrt(variance)[:, None, :]).transpose(0, 2, 1).astype(u.dtype), u)
    for j in range(p):
        below = of_all - effects[:, j].astype(np.float64) ** 2
        found.append(relative_gain(below, of_all, quadratic, context.least_left))
    return found


def _reduction(u: Floats, V: Array, D: Array) -> Array:
    """``uᵀD(DᵀVD)⁻¹Dᵀu`` for orthonormal D (p, e): (b, B)."""
    root = np.linalg.cholesky(np.einsum("je,bjk,kf->bef", D, V, D, optimize=True))
    turned = np.matmul(np.linalg.solve(root, np.broadcast_to(D.T, (len(V), *D.T.shape))).astype(u.dtype), u)
    return np.asarray(np.sum(turned * turned, axis=1, dtype=np.float64))


def adjusted_mlog10p(mlog10p: Array, largest: Array) -> Array:
    """Minus log10 of the share ``(1 + #{largest ≥ observed}) / (B + 1)``: the P value over a whole scan."""
    ordered = np.sort(largest)
    as_large = ordered.size - np.searchsorted(ordered, mlog10p, side="left")
    return np.asarray(np.where(np.isnan(mlog10p), np.nan, -np.log10((1 + as_large) / (ordered.size + 1)) + 0.0))


def threshold(largest: Array, level: float) -> float | None:
    """The -log10 P above which the P value over a whole scan is at most a level; None where B is too small for it."""
    allowed = int(np.floor(level * (largest.size + 1) * (1 + 1e-12))) - 1
    return None if allowed < 0 else float(np.sort(largest)[::-1][allowed])
