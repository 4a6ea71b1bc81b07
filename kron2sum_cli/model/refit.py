"""Exact refits: C0 and C1 free again with a variant in the model, for many variants at once.

With a variant's effects ``A1 γ`` in the model the maximum likelihood of (C0, C1) is close to the null model's, and so
is the curvature there: Newton steps with the information of the null model, one matrix for all variants, converge in a
few steps. Rows enter through their moments alone: a step costs the same whatever the number of samples.

Frames (see `variant_likelihood`) change by triangular factors close to I. So the information of the null model stays
the right one, and the axes that C0 leaves empty stay the last ones: a step is one along that face of the cone. Where
the score points off a face with one empty axis, a variant climbs again from there with the face released. What does
not converge (its optimum lies on another face, or far away) is left to the search that fits null models.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.contrasts import Contrasts, CoupledDesign
from kron2sum_cli.model.fitting import BOUNDARY, CERTIFIED_GAIN, Fit, climb
from kron2sum_cli.model.information import DirectionCovariance, direction_covariance, uses_observed_information
from kron2sum_cli.model.likelihood import evaluate
from kron2sum_cli.model.row_moments import RowMoments, VariantMoments, row_moments
from kron2sum_cli.model.spectrum import Array
from kron2sum_cli.model.trait_axes import TraitAxes
from kron2sum_cli.model.variant_likelihood import Mask, Points, States, VariantLikelihood, put, take

GAIN_TOLERANCE = 1e-8
"""A refit ends when the next step is predicted to add no more than this to the log-likelihood."""

MAX_STEPS = 40
SHORTEST = 1e-2
"""A refit that can only take a smaller share than this of a step is left to the search of null models."""

RESIDUAL_ROOM = 0.1
"""Refits may lower the smallest ratio of residual to genetic variance of the null model by this factor."""

RELEASED = 1e-6
"""Genetic share that a released axis gets where the information off the face is taken."""

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
    metric : its inverse information along the face
    released : its inverse information with the face released; None where not exactly one axis is empty
    """

    data: Contrasts
    null: Fit
    moments: RowMoments
    empty: int
    metric: DirectionCovariance
    released: DirectionCovariance | None

    def refit(self, variants: Array, design: Array, outside: Array | None = None) -> Refit:
        """Refit with effects in the span of ``design``.

        Parameters
        ----------
        variants : (m, b) rotated variants, ``VᵀG``
        design : (p, e), full column rank
        outside : (b,) squared lengths of the variants outside V and the covariates; needed where ``data.nsilent``

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
            if self.data.nsilent:
                raise ValueError("GGᵀ has null directions outside V: refits need the variants' squared lengths there")
            outside = np.zeros(b)
        # The same span, and well conditioned whatever the units of the traits.
        basis = axes.Tinv @ np.linalg.qr(axes.T @ design)[0]
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
    released = None
    if empty == 1 and null.rank == data.ntraits:
        c0 = np.sqrt(np.maximum(genetic, RELEASED) / tau)
        inner = evaluate(data, TraitAxes(axes.T, axes.Tinv, c0, axes.c1), reml=False)
        released = direction_covariance(inner, null.rank)
    return Refitter(
        data=data,
        null=null,
        moments=row_moments(replace(data, Z=data.Z @ axes.T.T), ratio),
        empty=empty,
        metric=direction_covariance(null.point, null.rank),
        released=released,
    )


def refit(data: Contrasts, null: Fit, variants: Array, design: Array, outside: Array | None = None) -> Refit:
    """Refit one block of variants: see `refitter` and `Refitter.refit`."""
    return refitter(data, null).refit(variants, design, outside)


def _refit_together(fitter: Refitter, variants: Array, outside: Array, design: Array) -> Refit:
    moments, axes = fitter.moments.of_variants(variants, outside), fitter.null.point.axes
    likelihood = VariantLikelihood(fitter.moments, axes.T @ design, axes.logdet_T, fitter.empty, fitter.null.rank)
    states = _initial(fitter, outside.size)
    points, reached = _climb(likelihood, fitter.metric, moments, states)
    leaving = np.flatnonzero(reached & (points.off_face > CERTIFIED_GAIN))
    reached[leaving] = False
    if leaving.size and fitter.released is not None:
        start = take(states, leaving)
        found, reached[leaving] = _climb(replace(likelihood, empty=0), fitter.released, take(moments, leaving), start)
        put(states, leaving, start)
        put(points, leaving, found)
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


def _climb(
    likelihood: VariantLikelihood, metric: DirectionCovariance, variants: VariantMoments, states: States
) -> tuple[Points, Mask]:
    """Climb from the given states, which are overwritten, and tell which reached an optimum on their face."""
    points = likelihood.evaluate(states, variants)
    E0, E1, predicted = _step(likelihood, metric, points)
    length = np.ones(predicted.size)
    for _ in range(MAX_STEPS):
        rising = np.flatnonzero((predicted > GAIN_TOLERANCE) & (length > SHORTEST))
        if not rising.size:
            break
        size = length[rising, None, None]
        trial, defined = _move(likelihood, take(states, rising), size * E0[rising], size * E1[rising])
        tried = likelihood.evaluate(trial, take(variants, rising))
        noise = 1e-12 * np.abs(points.lml[rising])
        higher = defined & tried.inside & (tried.lml >= points.lml[rising] - noise)
        length[rising] = np.where(higher, 1.0, 0.5 * length[rising])
        won, which = rising[higher], np.flatnonzero(higher)
        put(states, won, take(trial, which))
        put(points, won, take(tried, which))
        E0[won], E1[won], predicted[won] = _step(likelihood, metric, take(tried, which))
    return points, predicted <= GAIN_TOLERANCE


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


def _step(likelihood: VariantLikelihood, metric: DirectionCovariance, points: Points) -> tuple[Array, Array, Array]:
    """Newton steps of ``N τ C0 Nᵀ`` and ``N C1 Nᵀ``, each (b, p, p), and what they are predicted to gain, (b,)."""
    i, j = np.tril_indices(likelihood.design.shape[0])
    tau, twice = likelihood.moments.data.mean_eigenvalue, np.where(i == j, 1.0, 2.0)
    g0, g1 = twice * points.score0[:, i, j], twice * points.score1[:, i, j]
    x0, x1 = g0 @ metric.v00 + g1 @ metric.v01.T, g0 @ metric.v01 + g1 @ metric.v11
    E0, E1 = np.empty(points.score0.shape), np.empty(points.score1.shape)
    E0[:, i, j] = E0[:, j, i] = tau * x0
    E1[:, i, j] = E1[:, j, i] = x1
    return E0, E1, 0.5 * (np.einsum("bn,bn->b", g0, x0) + np.einsum("bn,bn->b", g1, x1))


def _move(likelihood: VariantLikelihood, states: States, E0: Array, E1: Array) -> tuple[States, Mask]:
    """The states after a step along the face, and whether they are defined."""
    frame, p = states.frame, likelihood.design.shape[0]
    genetic, residual = states.share + E0, np.eye(p) - states.share + E1
    full = p - likelihood.empty
    if 0 < full < p:
        # C0 keeps its rank: [A, B; Bᵀ, BᵀA⁻¹B], which elimination turns into [A, 0; 0, 0].
        eliminate = np.repeat(np.eye(p)[None], len(frame), axis=0)
        cross = np.linalg.solve(genetic[:, :full, :full], genetic[:, :full, full:])
        eliminate[:, full:, :full] = -cross.transpose(0, 2, 1)
        genetic[:, full:], genetic[:, :, full:] = 0.0, 0.0
        residual = eliminate @ residual @ eliminate.transpose(0, 2, 1)
        frame = eliminate @ frame
    upper, defined = _upper_cholesky(genetic + residual)
    white = np.linalg.inv(upper)
    return States(white @ frame, white @ genetic @ white.transpose(0, 2, 1)), defined


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
    if not data.nsilent:
        return replace(data, design=CoupledDesign(design, variant[:, None], 0.0))
    return replace(
        data,
        Z=np.vstack([data.Z, np.zeros((1, data.ntraits))]),
        s=np.append(data.s, 0.0),
        nsilent=data.nsilent - 1,
        Kxm=np.hstack([data.Kxm, np.zeros((data.ncovariates, 1))]),
        design=CoupledDesign(design, np.append(variant, np.sqrt(outside))[:, None], 0.0),
    )
