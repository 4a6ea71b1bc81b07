"""Refits: C0 and C1 free again with a variant in the model, for many variants at once.

Under a null model by REML the data of a refit are the contrasts of its covariates, ``VᵀY``. Their likelihood without a
variant is the restricted likelihood, which the null model maximises; with a variant, whose effects ``A1 γ`` are the
only fixed effects, it is maximised over γ, C0 and C1. Twice the difference is a likelihood ratio of nested models, and
it is defined wherever the null model is. Under a null model by ML both likelihoods are those of Y itself.

With a variant in the model the maximum of (C0, C1) is close to the null model's, and so is the curvature there: Newton
steps with the information of the null model, one matrix for all variants, converge in a few steps. Rows enter through
their moments alone: a step costs the same whatever the number of samples.

Frames (see `variant_likelihood`) change by triangular factors close to I. So the information of the null model stays
the right one, and the axes that C0 leaves empty stay the last ones: a step is one along that face of the cone. A
variant whose maximum lies on another face goes there and climbs again, one axis at a time: it fills an empty axis
where the score points off the face, and empties its smallest axis where no step along the face leads further. What has
not converged then (its maximum lies far away, or C1 tends to a singular matrix) is left to the search that fits null
models.

With few samples for each trait the likelihood can have several local maxima, and a variant can make another of them
the highest. Variants then climb from every local maximum of the null likelihood, and the highest end counts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.bartlett import Refit, SecondOf, Simulated, outside_rows
from kron2sum_cli.model.block_scanner import BlockStatistics, PairStatistics
from kron2sum_cli.model.climbing import BOUNDARY, CERTIFIED_GAIN
from kron2sum_cli.model.contrasts import Contrasts, CoupledDesign
from kron2sum_cli.model.control_variates import Along, Rows, Truth
from kron2sum_cli.model.fitting import (
    Fit,
    climb,
    distinct_maxima,
    even_starts,
    far_starts,
    may_have_several_maxima,
    of_rank_or_full,
    pushed_axes,
    starting_axes,
)
from kron2sum_cli.model.information import (
    direction_covariance,
    expected_information,
    free_directions,
    invert_pairs,
    lower_triangle,
    symmetric,
    uses_observed_information,
)
from kron2sum_cli.model.likelihood import evaluate
from kron2sum_cli.model.spectrum import Array, Floats, Indices, Mask, parts_of
from kron2sum_cli.model.trait_axes import TraitAxes
from kron2sum_cli.model.variant_likelihood import (
    Points,
    RowMoments,
    States,
    VariantLikelihood,
    VariantMoments,
    put,
    row_moments,
    take,
)

GAIN_TOLERANCE = 1e-8
"""A refit ends when the next step is predicted to add no more than this to the log-likelihood."""

MAX_STEPS = 40
SHORTEST = 1e-2
"""A refit that can only take a smaller share than this of a step is left to the search of null models."""

RESIDUAL_ROOM = 0.1
"""Refits may lower the smallest ratio of residual to genetic variance of the null model by this factor."""

RELEASED = 1e-6
"""Genetic share that an axis has at least where the information of a face on which it is not empty is taken."""

MOST_FACES = 8
"""A refit that has not ended on so many faces beside the null model's is left to the search of null models."""

STRONG_EFFECT, DISTANT_SHARES = 0.5, (0.5, 0.99)
"""A variant that adds more than `STRONG_EFFECT` per effect to the log-likelihood moves its maxima. Where there may be
several of them, such a variant climbs from starts with the genetic shares `DISTANT_SHARES` of variance, too, and from
beside the null model's maximum."""

NEARLY_EMPTY = 0.2
"""Where there may be several maxima, a refit that ends with a smaller residual share of variance of an axis than this
is compared with those where an axis has none."""

SIMULATED_EFFECTS, FEWEST_SIMULATED = 32, 2
"""Effects that the variants of each simulation for a Bartlett factor have in all, and the fewest variants."""

BATCH_BYTES = 1 << 21
"""Size of the largest array of a batch of variants: several of them should stay in the cache."""


@dataclass(frozen=True)
class NullMaximum:
    """A local maximum of the likelihood without a variant, and what all climbs from it share.

    The likelihood may have other maxima where it is ``one_of_several``. ``moments`` are of the rows, traits in the axes
    of the maximum, whose C0 leaves the last ``empty`` axes empty; ``metrics`` (2N, 2N) are the inverse information
    along the face with 0, 1, ... p empty axes. There are none of very many traits, or at a singular C1: variants are
    then refitted one by one.
    """

    data: Contrasts
    fit: Fit
    one_of_several: bool
    moments: RowMoments
    empty: int
    metrics: tuple[Array, ...]


@dataclass(frozen=True)
class Refitter:
    """Refits of complete traits under one null model.

    ``data`` have the covariates projected out: the contrasts alone under REML. ``maxima`` are local ones of the
    likelihood without a variant, the highest first.
    """

    data: Contrasts
    maxima: tuple[NullMaximum, ...]
    reml: bool

    @property
    def null(self) -> Fit:
        """The maximum without a variant."""
        return self.maxima[0].fit

    @property
    def null_lml(self) -> float:
        """The largest log-likelihood without a variant."""
        return self.null.point.lml

    def of_variants(self, G: Floats, outside: Array) -> Callable[[Array], Refit]:
        """Refits of variants G (n, b) with effects in the span of a design (p, e).

        ``outside`` (b,) is their squared length outside V and the covariates.
        """
        rotated = self._rotated(G)
        return lambda design: self.refit(rotated, design, outside)

    def of_pairs(self, G: Floats, H: Floats, Q: Floats) -> Refit:
        """Refits with effects of both columns, of G (n, b) and of H (n, b), on all traits: see `bartlett.Refits`."""
        columns = np.stack([self._rotated(G), self._rotated(H)], axis=2)
        outside = np.zeros((G.shape[1], 2, 2))
        if self.data.noutside:
            both = np.stack([G, H], axis=2).astype(np.float64)
            projected = np.einsum("nc,nbk->cbk", Q.astype(np.float64), both)
            outside = _grams(both) - _grams(columns) - _grams(projected)
        return self.refit(columns, np.eye(self.data.ntraits), outside)

    def _rotated(self, G: Floats) -> Array:
        V = self.data.V
        return np.asarray(V.T @ G.astype(V.dtype, copy=False), np.float64)

    def simulated(self, truth: TraitAxes, rng: np.random.Generator, second: SecondOf | None = None) -> Simulated:
        """See `bartlett.Refits`."""
        data, p = self.data, self.data.ntraits
        nvariants = max(FEWEST_SIMULATED, SIMULATED_EFFECTS // p)
        inside = np.sqrt(truth.variances(data.s)) * rng.normal(size=(data.s.size, p))
        outside = truth.c1 * outside_rows(rng, data.noutside, p)
        s = np.append(data.s, np.zeros(len(outside)))
        simulated = replace(
            data,
            Z=np.vstack([inside, outside]) @ truth.Tinv.T,
            s=s,
            noutside=data.noutside - len(outside),
            V=np.broadcast_to(np.float64(0), (data.nsamples, s.size)),  # these traits are simulated in rows
            Kxm=np.empty((0, s.size)),
        )
        null = of_rank_or_full(self.null.rank, p, lambda rank: climb(simulated, truth, rank, reml=False))
        fitter = refitter(simulated, [null], self.reml, thorough=False)
        rows = np.sqrt(s)[:, None] * rng.normal(size=(s.size, nvariants))
        point, nothing = fitter.null.point.at(truth), np.zeros(nvariants)
        known, over, T = Truth.at(point), Rows(s, point.W, point.alpha), truth.T
        first = BlockStatistics(rows.T @ point.alpha, (rows**2).T @ point.W, nothing, nothing)
        of_variants = over.known(known, Along.of_variants(first, T), rows[:, :, None])
        found = Simulated(fitter.null_lml, lambda design: fitter.refit(rows, design, nothing), of_variants)
        if second is None:
            return found
        of_second = np.zeros_like(rows)
        of_second[: data.s.size] = self._rotated(second(data.to_samples(rows[: data.s.size])))
        columns = np.stack([rows, of_second], axis=2)
        statistics = BlockStatistics(of_second.T @ point.alpha, (of_second**2).T @ point.W, nothing, nothing)
        pairs = PairStatistics(first, statistics, (rows * of_second).T @ point.W)
        both = over.known(known, Along.of_pairs(pairs, T), columns)
        return found.with_pairs(both, lambda: fitter.refit(columns, np.eye(p), np.zeros((nvariants, 2, 2))))

    def refit(self, variants: Array, design: Array, outside: Array | None = None) -> Refit:
        """Refit variants with effects, those of the last column, in the span of a design (p, e) of full column rank.

        ``variants`` are rotated, ``VᵀG`` (m, b), or k columns of each (m, b, k), all of them with such effects.
        ``outside`` (b,), or (b, k, k), are their squared lengths outside V and the covariates, or the products of their
        columns; needed where ``data.noutside``. NaN where a refit did not converge, and for a column of length 0.
        Raises ValueError where ``outside`` is needed and missing.
        """
        p, b = self.data.ntraits, variants.shape[1]
        variants = variants.reshape(*variants.shape[:2], -1)
        if outside is None:
            if self.data.noutside:
                raise ValueError("GGᵀ has null directions outside V: refits need the variants' squared lengths there")
            outside = np.zeros(b * variants.shape[2] ** 2)
        outside = outside.reshape(b, variants.shape[2], -1)
        best = Refit(np.full(b, np.nan), np.full((b, p), np.nan), np.full((b, p), np.nan))
        lengths = np.einsum("ibk,ibk->bk", variants, variants) + np.einsum("bkk->bk", outside)
        present = np.flatnonzero(np.all(lengths > 0, axis=1))
        for start in self.maxima:
            basis = start.fit.point.axes.well_conditioned(design)
            climb_from = _refit_together if start.metrics else _refit_apart
            largest = BATCH_BYTES // (8 * p * max(p, variants.shape[2]) * start.moments.nodes.size)
            for part in parts_of(present.size, largest):
                batch = present[part]
                found = climb_from(start, variants[:, batch], outside[batch], basis)
                higher = np.isfinite(found.lml) & ~(found.lml <= best.lml[batch])
                for kept, new in ((best.lml, found.lml), (best.beta, found.beta), (best.se, found.se)):
                    kept[batch[higher]] = new[higher]
        if self.maxima[0].one_of_several:
            much = best.lml > self.null_lml + STRONG_EFFECT * design.shape[1] * variants.shape[2]
            beside = pushed_axes(self.null.point.axes, self.null.rank, self.data.mean_eigenvalue)
            for k in map(int, np.flatnonzero(much)):
                alternative = _with_variant(self.data, variants[:, k], outside[k], basis)
                afar = [starting_axes(alternative, share) for share in DISTANT_SHARES]
                _raise(best, k, _highest(alternative, afar + beside, self.null.rank, basis))
        return best


def refitter(data: Contrasts, null: Sequence[Fit], reml: bool, thorough: bool = True) -> Refitter:
    """Prepare refits from local maxima of the likelihood of ``data`` without a variant, as `null_maxima` gives them.

    Under a null model by REML the data are `Contrasts.without_projected`. Where it is ``thorough``, and there may be
    further maxima with a variant, these are looked for. Raises ValueError where a maximum is one of the restricted
    likelihood, or covariates are not projected out.
    """
    if data.design is not None or any(fit.point.reml for fit in null):
        raise ValueError("refits need the likelihood of the contrasts, and an invertible trait design A")
    several = thorough and may_have_several_maxima(data, reml=False)
    return Refitter(data, tuple(_null_maximum(data, fit, several) for fit in null), reml)


def null_maxima(data: Contrasts, fitted: TraitAxes, rank: int) -> list[Fit]:
    """Local maxima of the likelihood without a variant (not restricted), the highest first.

    Where there are so few samples that there can be several, climbs start from many places; else from the axes of the
    null model alone. The data are those of `refitter`. Raises ConvergenceError where no search ended at a maximum.
    """
    starts = [fitted]
    if may_have_several_maxima(data, reml=False):
        starts += even_starts(data) + far_starts(data, rank)
        starts += pushed_axes(fitted, rank, data.mean_eigenvalue)
    return distinct_maxima(starts, partial(climb, data, rank=rank, reml=False))


def _null_maximum(data: Contrasts, fit: Fit, one_of_several: bool) -> NullMaximum:
    axes, tau = fit.point.axes, data.mean_eigenvalue
    genetic, residual = tau * axes.c0**2, np.maximum(axes.c1**2, BOUNDARY)
    ratio = RESIDUAL_ROOM * tau * float(np.min(residual / np.maximum(genetic, residual)))
    empty = int(np.count_nonzero(genetic < BOUNDARY))
    metrics: list[Array] = []
    if uses_observed_information(data.ntraits, 0) and fit.certificate.active_C1 == 0:
        metrics = [_expected(data, axes, q) for q in range(data.ntraits + 1)]
        metrics[empty] = direction_covariance(fit.point, fit.rank).matrix
    return NullMaximum(
        data=data,
        fit=fit,
        one_of_several=one_of_several,
        moments=row_moments(replace(data, Z=data.Z @ axes.T.T), ratio),
        empty=empty,
        metrics=tuple(metrics),
    )


def _refit_together(start: NullMaximum, variants: Array, outside: Array, design: Array) -> Refit:
    """Refit a batch of variants at once; one by one those that do not reach a maximum, or may have a higher one."""
    moments, axes = start.moments.of_variants(variants, outside), start.fit.point.axes
    likelihood = VariantLikelihood(start.moments, axes.T @ design, axes.logdet_T, start.empty, start.fit.rank)
    states = _initial(start, len(outside))
    points, reached = _climb(likelihood, start.metrics[start.empty], moments, states)
    reached = _climb_other_faces(start, likelihood, moments, states, points, reached)
    last = _last_column(design, variants.shape[2])
    half = np.linalg.solve(np.linalg.cholesky(points.information), last.T)
    refits = Refit(np.where(reached, points.lml, np.nan), points.gamma @ last.T, np.sqrt(np.sum(half**2, axis=1)))
    refits.beta[~reached] = refits.se[~reached] = np.nan
    near_face = np.linalg.eigvalsh(states.share)[:, -1] > 1 - NEARLY_EMPTY
    for k in np.flatnonzero(~reached | (start.one_of_several & near_face)):
        end = _axes(start, states.frame[k], states.share[k])
        starts = pushed_axes(end, start.fit.rank, start.data.mean_eigenvalue) if reached[k] else [end, axes]
        alternative = _with_variant(start.data, variants[:, k], outside[k], design)
        _raise(refits, int(k), _highest(alternative, starts, start.fit.rank, design))
    return refits


def _last_column(design: Array, k: int) -> Array:
    """What makes effects on the traits (p,) of the last of k columns out of those of all (ek,)."""
    return np.asarray(np.kron(design, np.eye(k)[-1:]), np.float64)


def _grams(columns: Array) -> Array:
    """Products (b, k, k) of the k columns of each of b variants (m, b, k)."""
    return np.asarray(np.einsum("mbk,mbl->bkl", columns, columns))


def _refit_apart(start: NullMaximum, variants: Array, outside: Array, design: Array) -> Refit:
    """Refit variants one by one."""
    b, p = len(outside), start.data.ntraits
    refits = Refit(np.full(b, np.nan), np.full((b, p), np.nan), np.full((b, p), np.nan))
    for k in range(b):
        alternative = _with_variant(start.data, variants[:, k], outside[k], design)
        _raise(refits, k, _highest(alternative, [start.fit.point.axes], start.fit.rank, design))
    return refits


def _raise(refits: Refit, k: int, found: tuple[float, Array, Array] | None) -> None:
    """Put what was found in the place of the k-th refit, where it is higher."""
    if found is not None and not found[0] <= refits.lml[k]:
        refits.lml[k], refits.beta[k], refits.se[k] = found


def _climb_other_faces(
    start: NullMaximum,
    likelihood: VariantLikelihood,
    variants: VariantMoments,
    states: States,
    points: Points,
    reached: Mask,
) -> Mask:
    """Go on with variants that have no optimum on the null model's face, and tell which have reached one.

    States and points are overwritten.
    """
    p, lowest = start.data.ntraits, points.lml.copy()
    empty = np.full(reached.size, start.empty)
    for _ in range(MOST_FACES):
        leaving = reached & (points.off_face > CERTIFIED_GAIN)
        moving = np.flatnonzero(leaving | (~reached & (empty < p)))
        filled = leaving[moving]
        for q in np.unique(empty[moving[filled]]):
            _fill(states, points, moving[filled & (empty[moving] == q)], q)
        for q in np.unique(empty[moving[~filled]]):
            _empty_smallest(states, moving[~filled & (empty[moving] == q)], q)
        empty[moving] += np.where(filled, -1, 1)
        for q in np.unique(empty[moving]):
            which = moving[empty[moving] == q]
            some = take(states, which)
            on_face = replace(likelihood, empty=int(q))
            found, reached[which] = _climb(on_face, start.metrics[q], take(variants, which), some, learn=True)
            put(states, which, some)
            put(points, which, found)
    return reached & (points.off_face <= CERTIFIED_GAIN) & (points.lml >= lowest)


def _fill(states: States, points: Points, which: Indices, empty: int) -> None:
    """Turn the axes of a face so that the last but ``empty - 1`` is the steepest way into the cone."""
    first = states.share.shape[1] - empty
    steepest = np.linalg.eigh(points.score0[which, first:, first:])[1][:, :, ::-1]
    states.frame[which, first:] = steepest.transpose(0, 2, 1) @ states.frame[which, first:]


def _empty_smallest(states: States, which: Indices, empty: int) -> None:
    """Take the genetic variance, now residual, from the axis that has least of it: the last but ``empty``."""
    full = states.share.shape[1] - empty
    h, R = np.linalg.eigh(states.share[which, :full, :full])
    h[:, 0] = 0.0
    states.share[which, :full, :full] = h[:, ::-1, None] * np.eye(full)
    states.frame[which, :full] = R[:, :, ::-1].transpose(0, 2, 1) @ states.frame[which, :full]


def _expected(data: Contrasts, axes: TraitAxes, empty: int) -> Array:
    """Inverse expected information along the face on which the last ``empty`` of these axes are empty."""
    p, tau = data.ntraits, data.mean_eigenvalue
    genetic = np.maximum(tau * axes.c0**2, RELEASED)
    genetic[p - empty :] = 0.0
    c0, c1 = np.sqrt(genetic / tau), np.sqrt(np.maximum(1 - genetic, BOUNDARY))
    information = expected_information(evaluate(data, TraitAxes(axes.T, axes.Tinv, c0, c1), reml=False))
    return invert_pairs(information, free_directions(genetic == 0, np.zeros(p, dtype=np.bool_))).matrix


def _climb(
    likelihood: VariantLikelihood, metric: Array, variants: VariantMoments, states: States, learn: bool = False
) -> tuple[Points, Mask]:
    """Climb from the given states, which are overwritten, and tell which reached an optimum on their face.

    Steps go by the inverse information ``metric`` (2N, 2N), which each variant updates by its own scores (BFGS) where
    it is to ``learn``: far from the null model its own curvature is another one.
    """
    points = likelihood.evaluate(states, variants)
    metrics = np.repeat(metric[None], points.lml.size, axis=0) if learn else metric
    score = _score(points)
    step = _step(score, metrics)
    predicted = 0.5 * np.einsum("bn,bn->b", score, step)
    length = np.ones(predicted.size)
    for _ in range(MAX_STEPS):
        rising = np.flatnonzero((predicted > GAIN_TOLERANCE) & (length > SHORTEST))
        if not rising.size:
            break
        taken = length[rising, None] * step[rising]
        trial, defined = _move(likelihood, take(states, rising), *_changes(likelihood, taken))
        tried = likelihood.evaluate(trial, take(variants, rising))
        noise = 1e-12 * np.abs(points.lml[rising])
        higher = defined & tried.inside & (tried.lml >= points.lml[rising] - noise)
        length[rising] = np.where(higher, 1.0, 0.5 * length[rising])
        won, which = rising[higher], np.flatnonzero(higher)
        put(states, won, take(trial, which))
        put(points, won, take(tried, which))
        new = _score(take(tried, which))
        if learn:
            metrics[won] = _updated(metrics[won], taken[which], score[won] - new)
        score[won] = new
        step[won] = _step(new, metrics[won] if learn else metrics)
        predicted[won] = 0.5 * np.einsum("bn,bn->b", new, step[won])
    return points, predicted <= GAIN_TOLERANCE


def _updated(metrics: Array, steps: Array, lost: Array) -> Array:
    """Inverse information (b, 2N, 2N) made to agree with what the score lost in a step, where that is a curvature."""
    curvature = np.einsum("bn,bn->b", steps, lost)
    is_one = curvature > 1e-8 * np.linalg.norm(steps, axis=1) * np.linalg.norm(lost, axis=1)
    rho = np.where(is_one, 1.0, 0.0) / np.where(is_one, curvature, 1.0)
    moved = np.einsum("bmn,bn->bm", metrics, lost)
    across = rho[:, None, None] * steps[:, :, None] * moved[:, None, :]
    along = rho + rho**2 * np.einsum("bn,bn->b", lost, moved)
    both = steps[:, :, None] * steps[:, None, :]
    return np.asarray(metrics - across - across.transpose(0, 2, 1) + along[:, None, None] * both)


def _initial(start: NullMaximum, b: int) -> States:
    h = start.data.mean_eigenvalue * start.fit.point.axes.c0**2
    h[h.size - start.empty :] = 0.0
    return States(*(np.repeat(M[None], b, axis=0) for M in (np.eye(h.size), np.diag(h))))


def _axes(start: NullMaximum, frame: Array, share: Array) -> TraitAxes:
    """The axes, in traits, of one state."""
    h, R = np.linalg.eigh(share)
    h = np.clip(h[::-1], 0.0, 1.0)
    h[h < BOUNDARY] = 0.0
    T = R[:, ::-1].T @ frame @ start.fit.point.axes.T
    return TraitAxes(T, np.asarray(np.linalg.inv(T)), np.sqrt(h / start.data.mean_eigenvalue), np.sqrt(1 - h))


def _score(points: Points) -> Array:
    """The score in the pairs of axes of both matrices, (b, 2N)."""
    twice = 2 - np.eye(points.score0.shape[1])
    return np.hstack([lower_triangle(twice * points.score0), lower_triangle(twice * points.score1)])


def _step(score: Array, metrics: Array) -> Array:
    """Newton steps (b, 2N) by one inverse information, or each by its own."""
    return score @ metrics if metrics.ndim == 2 else np.einsum("bn,bnm->bm", score, metrics)


def _changes(likelihood: VariantLikelihood, steps: Array) -> tuple[Array, Array]:
    """The changes of ``N τ C0 Nᵀ`` and ``N C1 Nᵀ``, each (b, p, p)."""
    of_C0, of_C1 = np.split(steps, 2, axis=1)
    return likelihood.moments.data.mean_eigenvalue * symmetric(of_C0), symmetric(of_C1)


def _move(likelihood: VariantLikelihood, states: States, E0: Array, E1: Array) -> tuple[States, Mask]:
    """The states after a step along the face, and whether they are defined."""
    frame, p = states.frame, likelihood.design.shape[0]
    genetic, residual = states.share + E0, np.eye(p) - states.share + E1
    full = p - likelihood.empty
    if 0 < full < p:
        # C0 keeps its rank: [A, B; Bᵀ, BᵀA⁻¹B], which elimination turns into [A, 0; 0, 0].
        eliminate = np.repeat(np.eye(p)[None], len(frame), axis=0)
        cross = np.linalg.solve(_regular(genetic[:, :full, :full]), genetic[:, :full, full:])
        eliminate[:, full:, :full] = -cross.transpose(0, 2, 1)
        genetic[:, full:], genetic[:, :, full:] = 0.0, 0.0
        residual = eliminate @ residual @ eliminate.transpose(0, 2, 1)
        frame = eliminate @ frame
    upper, defined = _upper_cholesky(genetic + residual)
    white = np.linalg.inv(upper)
    return States(white @ frame, white @ genetic @ white.transpose(0, 2, 1)), defined


def _regular(M: Array) -> Array:
    """The matrices, I in place of those that are not positive definite: the states that they lead to are refused."""
    try:
        np.linalg.cholesky(M)
        return M
    except np.linalg.LinAlgError:
        return np.where((np.linalg.eigvalsh(M)[:, 0] > 0)[:, None, None], M, np.eye(M.shape[1]))


def _upper_cholesky(M: Array) -> tuple[Array, Mask]:
    """Upper triangular U with ``M = UUᵀ`` a variant, and whether there is one (U is I where there is none)."""
    defined = np.ones(len(M), dtype=np.bool_)
    flipped = M[:, ::-1, ::-1]
    try:
        lower = np.linalg.cholesky(flipped)
    except np.linalg.LinAlgError:
        defined = np.linalg.eigvalsh(M)[:, 0] > BOUNDARY
        lower = np.linalg.cholesky(np.where(defined[:, None, None], flipped, np.eye(M.shape[1])))
    return np.asarray(lower[:, ::-1, ::-1]), defined


def _highest(
    alternative: Contrasts, starts: Sequence[TraitAxes], rank: int, design: Array
) -> tuple[float, Array, Array] | None:
    """Refit one variant, a fixed effect of these data, by the search of null models from several starts.

    The highest maximum, if one is reached: log-likelihood, effects on the traits (p,), their standard errors.
    """
    best, found = -np.inf, None
    for axes in starts:
        try:
            fitted = climb(alternative, axes, rank, False)
        except (NumericalError, np.linalg.LinAlgError):
            continue
        point = fitted.point
        if fitted.certificate.certified and point.coupled is not None and point.lml > best:
            beta = point.coupled.beta
            half = np.linalg.solve(point.coupled.chol, _last_column(design, len(beta)).T)
            best = point.lml
            found = best, design @ beta[-1], np.sqrt(np.sum(half**2, axis=0))
    return found


def _with_variant(data: Contrasts, variant: Array, outside: Array, design: Array) -> Contrasts:
    """The data with the k columns of a variant (m, k) as coupled fixed effects; what they have outside V is more rows.

    ``outside`` (k, k) are their products there.
    """
    more = min(data.noutside, variant.shape[1])
    if not more:
        return replace(data, design=CoupledDesign(design, variant, 0.0))
    squares, turn = np.linalg.eigh(outside)
    rows = np.sqrt(np.maximum(squares[-more:], 0.0))[:, None] * turn[:, -more:].T
    return replace(
        data,
        Z=np.vstack([data.Z, np.zeros((more, data.ntraits))]),
        s=np.append(data.s, np.zeros(more)),
        noutside=data.noutside - more,
        Kxm=np.hstack([data.Kxm, np.zeros((data.ncovariates, more))]),
        design=CoupledDesign(design, np.vstack([variant, rows]), 0.0),
    )
