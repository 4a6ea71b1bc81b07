"""Exact refits: C0 and C1 free again with a variant in the model, for many variants at once.

With a variant's effects ``A1 γ`` in the model the maximum likelihood of (C0, C1) is close to the null model's, and so
is the curvature there: Newton steps with the information of the null model, one matrix for all variants, converge in a
few steps. Rows enter through their moments alone: a step costs the same whatever the number of samples.

Frames (see `variant_likelihood`) change by triangular factors close to I. So the information of the null model stays
the right one, and the axes that C0 leaves empty stay the last ones: a step is one along that face of the cone. A
variant whose optimum lies on another face goes there and climbs again, one axis at a time: it fills an empty axis
where the score points off the face, and empties its smallest axis where no step along the face leads further. What has
not converged then (its optimum lies far away, or C1 tends to a singular matrix) is left to the search that fits null
models.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.climbing import BOUNDARY, CERTIFIED_GAIN
from kron2sum_cli.model.contrasts import Contrasts, CoupledDesign
from kron2sum_cli.model.fitting import Fit, climb
from kron2sum_cli.model.information import direction_covariance, expected_information, uses_observed_information
from kron2sum_cli.model.likelihood import evaluate
from kron2sum_cli.model.row_moments import RowMoments, VariantMoments, row_moments
from kron2sum_cli.model.spectrum import Array
from kron2sum_cli.model.trait_axes import TraitAxes
from kron2sum_cli.model.variant_likelihood import Indices, Mask, Points, States, VariantLikelihood, put, take

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

BATCH_BYTES = 1 << 21
"""Size of the largest array of a batch of variants: several of them should stay in the cache."""


@dataclass(frozen=True)
class Refit:
    """Maximum likelihood with the variant in the model, for b variants.

    Attributes
    ----------
    lml : (b,) log-likelihood; NaN where the refit did not converge
    beta : (b, p) effects on the traits
    se : (b, p) their standard errors
    """

    lml: Array
    beta: Array
    se: Array


@dataclass(frozen=True)
class Refitter:
    """What all refits under one null model have in common.

    Attributes
    ----------
    data : rotated traits, covariates projected out
    null : the maximum likelihood (not restricted) fit without a variant
    moments : of the rows, traits in the axes of the null model
    empty : number of axes that its C0 leaves empty, the last ones
    metrics : (2N, 2N) inverse information along the face with 0, 1, ... p empty axes
    """

    data: Contrasts
    null: Fit
    moments: RowMoments
    empty: int
    metrics: tuple[Array, ...]

    def refit(self, variants: Array, design: Array, outside: Array | None = None) -> Refit:
        """Refit with effects in the span of ``design``.

        Parameters
        ----------
        variants : (m, b) rotated variants, ``VᵀG``
        design : (p, e), full column rank
        outside : (b,) squared lengths of the variants outside V and the covariates; needed where ``data.noutside``

        Returns
        -------
        Log-likelihoods by ML and the effects; NaN for a variant whose refit did not converge, and for one of length 0.

        Raises
        ------
        ValueError
            Where ``outside`` is needed and missing.
        """
        p, b, axes = self.data.ntraits, variants.shape[1], self.null.point.axes
        if outside is None:
            if self.data.noutside:
                raise ValueError("GGᵀ has null directions outside V: refits need the variants' squared lengths there")
            outside = np.zeros(b)
        basis = axes.well_conditioned(design)
        together = uses_observed_information(p, 0) and self.null.certificate.active_C1 == 0
        found = Refit(np.full(b, np.nan), np.full((b, p), np.nan), np.full((b, p), np.nan))
        present = np.einsum("ib,ib->b", variants, variants) + outside > 0
        size = max(1, BATCH_BYTES // (8 * p * p * self.moments.nodes.size))
        refit_part = _refit_together if together else _refit_apart
        for k in range(0, b, size):
            batch = k + np.flatnonzero(present[k : k + size])
            if batch.size:
                part = refit_part(self, variants[:, batch], outside[batch], basis)
                found.lml[batch], found.beta[batch], found.se[batch] = part.lml, part.beta, part.se
        return found


def refitter(data: Contrasts, null: Fit) -> Refitter:
    """Prepare refits under a null model.

    Raises
    ------
    ValueError
        Where the null model is restricted or has covariates that are not projected out.
    """
    if data.design is not None or null.point.reml:
        raise ValueError("refits need a null model by maximum likelihood with an invertible trait design A")
    axes, tau = null.point.axes, data.mean_eigenvalue
    genetic, residual = tau * axes.c0**2, np.maximum(axes.c1**2, BOUNDARY)
    ratio = RESIDUAL_ROOM * tau * float(np.min(residual / np.maximum(genetic, residual)))
    empty = int(np.count_nonzero(genetic < BOUNDARY))
    metrics = [_expected(data, axes, q) for q in range(data.ntraits + 1)]
    known = direction_covariance(null.point, null.rank)
    metrics[empty] = np.block([[known.v00, known.v01], [known.v01.T, known.v11]])
    return Refitter(
        data=data,
        null=null,
        moments=row_moments(replace(data, Z=data.Z @ axes.T.T), ratio),
        empty=empty,
        metrics=tuple(metrics),
    )


def refit(data: Contrasts, null: Fit, variants: Array, design: Array, outside: Array | None = None) -> Refit:
    """Refit one block of variants: see `refitter` and `Refitter.refit`."""
    return refitter(data, null).refit(variants, design, outside)


def _refit_together(fitter: Refitter, variants: Array, outside: Array, design: Array) -> Refit:
    moments, axes = fitter.moments.of_variants(variants, outside), fitter.null.point.axes
    likelihood = VariantLikelihood(fitter.moments, axes.T @ design, axes.logdet_T, fitter.empty, fitter.null.rank)
    states = _initial(fitter, outside.size)
    points, reached = _climb(likelihood, fitter.metrics[fitter.empty], moments, states)
    reached = _climb_other_faces(fitter, likelihood, moments, states, points, reached)
    half = np.linalg.solve(np.linalg.cholesky(points.information), design.T)
    refits = Refit(points.lml, points.gamma @ design.T, np.sqrt(np.sum(half**2, axis=1)))
    for k in np.flatnonzero(~reached):
        starts = (_axes(fitter, states.frame[k], states.share[k]), axes)
        refits.lml[k], refits.beta[k], refits.se[k] = _one(fitter, starts, variants[:, k], outside[k], design)
    return refits


def _refit_apart(fitter: Refitter, variants: Array, outside: Array, design: Array) -> Refit:
    starts = (fitter.null.point.axes,)
    each = [_one(fitter, starts, *variant, design) for variant in zip(variants.T, outside, strict=True)]
    return Refit(*(np.array(column) for column in zip(*each, strict=True)))


def _climb_other_faces(
    fitter: Refitter,
    likelihood: VariantLikelihood,
    variants: VariantMoments,
    states: States,
    points: Points,
    reached: Mask,
) -> Mask:
    """Go on with variants that have no optimum on the null model's face, and tell which have reached one.

    States and points are overwritten.
    """
    p, lowest = fitter.data.ntraits, points.lml.copy()
    empty = np.full(reached.size, fitter.empty)
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
            start = take(states, which)
            on_face = replace(likelihood, empty=int(q))
            found, reached[which] = _climb(on_face, fitter.metrics[q], take(variants, which), start, learn=True)
            put(states, which, start)
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
    a, b, d = expected_information(evaluate(data, TraitAxes(axes.T, axes.Tinv, c0, c1), reml=False))
    i, j = np.tril_indices(p)
    free = np.minimum(i, j) < p - empty
    determinant = np.where(free, a * d - b**2, 1.0)
    v00, v01, v11 = np.where(free, (d, -b, a), 0.0) / determinant
    return np.block([[np.diag(v00), np.diag(v01)], [np.diag(v01), np.diag(np.where(free, v11, 1 / d))]])


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


def _initial(fitter: Refitter, b: int) -> States:
    h = fitter.data.mean_eigenvalue * fitter.null.point.axes.c0**2
    h[h.size - fitter.empty :] = 0.0
    return States(*(np.repeat(M[None], b, axis=0) for M in (np.eye(h.size), np.diag(h))))


def _axes(fitter: Refitter, frame: Array, share: Array) -> TraitAxes:
    """The axes, in traits, of one state."""
    h, R = np.linalg.eigh(share)
    h = np.clip(h[::-1], 0.0, 1.0)
    h[h < BOUNDARY] = 0.0
    T = R[:, ::-1].T @ frame @ fitter.null.point.axes.T
    return TraitAxes(T, np.asarray(np.linalg.inv(T)), np.sqrt(h / fitter.data.mean_eigenvalue), np.sqrt(1 - h))


def _score(points: Points) -> Array:
    """The score in the pairs of axes of both matrices, (b, 2N)."""
    i, j = np.tril_indices(points.score0.shape[1])
    twice = np.where(i == j, 1.0, 2.0)
    return np.hstack([twice * points.score0[:, i, j], twice * points.score1[:, i, j]])


def _step(score: Array, metrics: Array) -> Array:
    """Newton steps (b, 2N) by one inverse information, or each by its own."""
    return score @ metrics if metrics.ndim == 2 else np.einsum("bn,bnm->bm", score, metrics)


def _changes(likelihood: VariantLikelihood, steps: Array) -> tuple[Array, Array]:
    """The changes of ``N τ C0 Nᵀ`` and ``N C1 Nᵀ``, each (b, p, p)."""
    p, pairs = likelihood.design.shape[0], steps.shape[1] // 2
    i, j = np.tril_indices(p)
    E0, E1 = np.empty((2, len(steps), p, p))
    E0[:, i, j] = E0[:, j, i] = likelihood.moments.data.mean_eigenvalue * steps[:, :pairs]
    E1[:, i, j] = E1[:, j, i] = steps[:, pairs:]
    return E0, E1


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


def _one(
    fitter: Refitter, starts: Sequence[TraitAxes], variant: Array, outside: float, design: Array
) -> tuple[float, Array, Array]:
    """Refit one variant by the search of null models, from several starts: far away there can be several optima."""
    alternative = _with_variant(fitter.data, variant, outside, design)
    best, nothing = -np.inf, np.full(fitter.data.ntraits, np.nan)
    found: tuple[float, Array, Array] = np.nan, nothing, nothing
    for start in starts:
        try:
            fitted = climb(alternative, start, fitter.null.rank, False)
        except (NumericalError, np.linalg.LinAlgError):
            continue
        point = fitted.point
        if fitted.certificate.certified and point.coupled is not None and point.lml > best:
            half = np.linalg.solve(point.coupled.chol, design.T)
            best = point.lml
            found = best, design @ point.coupled.beta[0], np.sqrt(np.sum(half**2, axis=0))
    return found


def _with_variant(data: Contrasts, variant: Array, outside: float, design: Array) -> Contrasts:
    """The data with the variant as a coupled fixed effect; what it has outside V is one more row."""
    if not data.noutside:
        return replace(data, design=CoupledDesign(design, variant[:, None], 0.0))
    return replace(
        data,
        Z=np.vstack([data.Z, np.zeros((1, data.ntraits))]),
        s=np.append(data.s, 0.0),
        noutside=data.noutside - 1,
        Kxm=np.hstack([data.Kxm, np.zeros((data.ncovariates, 1))]),
        design=CoupledDesign(design, np.append(variant, np.sqrt(outside))[:, None], 0.0),
    )
