"""Refits under a null model of families: C0 and C1 free again, with one variant in the model.

With effects ``A1 γ`` of a variant the likelihood of the contrasts of the covariates is the restricted one plus half of
what the variant explains at the same C0 and C1: ``l(C0, C1) + ½ uᵀD(DᵀVD)⁻¹Dᵀu``, D = T A1 (see `hypotheses`). γ is at
its maximum there, so that the score is that of the restricted likelihood with the residuals that the variant leaves.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import ConvergenceError, NumericalError
from kron2sum_cli.model import climbing
from kron2sum_cli.model.bartlett import (
    NO_CONVERGENCE,
    AtTruth,
    Refit,
    Simulated,
    information_change,
    scoring_step,
)
from kron2sum_cli.model.climbing import Likelihood, Optimum, PointT
from kron2sum_cli.model.families.fitting import MAX_STEPS, FamilyLikelihood, climb
from kron2sum_cli.model.families.likelihood import FamilyPoint, evaluate
from kron2sum_cli.model.families.scanner import explained_by_covariates
from kron2sum_cli.model.hypotheses import orthonormal
from kron2sum_cli.model.spectrum import Array
from kron2sum_cli.model.trait_axes import TraitAxes
from kron2sum_cli.model.trust_region import Curvature

SIMULATED_VARIANTS = 4
"""Variants of each trait that is simulated for a Bartlett factor."""


@dataclass(frozen=True)
class VariantEffects:
    """What a variant explains at one point.

    Attributes
    ----------
    D : NDArray (p, e)
        Orthonormal basis of the design along the trait axes.
    gamma : NDArray (e,)
        Effects in that basis.
    covariance : NDArray (e, e)
        Their covariance.
    projected : NDArray (n, p)
        ``P_j g̃`` on every axis, times its effect.
    gain : float
        Half of the reduction of ``rᵀK⁻¹r``.
    """

    D: Array
    gamma: Array
    covariance: Array
    projected: Array
    gain: float


@dataclass(frozen=True)
class LikelihoodWithVariant(FamilyLikelihood):
    """The likelihood with a variant in the model, to climb.

    Attributes
    ----------
    variant : NDArray (n,)
        The rotated variant.
    design : NDArray (p, e)
        Its effects lie in the span of these columns.
    grams : tuple of NDArray (p, p)
        Expected information of the null model, which that with a variant hardly differs from.
    """

    variant: Array
    design: Array
    grams: tuple[Array, Array, Array]

    def effects(self, point: FamilyPoint) -> VariantEffects:
        """What the variant explains at a point of the likelihood without it."""
        explained = explained_by_covariates(point, self.variant[:, None])[:, :, 0]
        projected = point.W * self.variant[:, None] - np.stack(
            [point.W[:, j] * (self.data.X @ _solve_transposed(L, explained[j])) for j, L in enumerate(point.chol)],
            axis=1,
        )
        v = self.variant @ projected
        if np.any(v <= 0):
            raise NumericalError("the variant lies in the span of the covariates")
        D = orthonormal(point.axes.T @ self.design)
        u = self.variant @ point.alpha
        covariance = np.asarray(np.linalg.inv(D.T @ (v[:, None] * D)), np.float64)
        gamma = covariance @ (D.T @ u)
        return VariantEffects(D, gamma, covariance, projected * (D @ gamma), 0.5 * float(u @ D @ gamma))

    def effects_at(self, axes: TraitAxes) -> VariantEffects:
        """What the variant explains."""
        return self.effects(super().evaluate(axes))

    def evaluate(self, axes: TraitAxes) -> FamilyPoint:
        """The likelihood at one point, with the residuals that the variant leaves."""
        point = super().evaluate(axes)
        effects = self.effects(point)
        return replace(point, lml=point.lml + effects.gain, alpha=point.alpha - effects.projected)

    def curvature(self, point: FamilyPoint, mispredicted: bool) -> Curvature:
        """That without the variant, and with the expected information of the null model."""
        return Curvature(self.grams, None, lambda E0, E1: point.curvature(E0, E1, self.grams))


def _solve_transposed(L: Array, b: Array) -> Array:
    return np.asarray(np.linalg.solve(L.T, b), np.float64) if b.size else b


@dataclass(frozen=True)
class FamilyRefits:
    """Refits under one null model of families; see `bartlett.Refits`.

    Attributes
    ----------
    null : Optimum
        The null model's maximum.
    """

    null: Optimum[FamilyPoint]

    @property
    def null_lml(self) -> float:
        """The largest log-likelihood without a variant."""
        return self.null.point.lml

    @property
    def reml(self) -> bool:
        """Whether it is that of the contrasts of the covariates."""
        return self.null.point.reml

    def of_variants(self, G: NDArray[np.floating], outside: Array) -> Callable[[Array], Refit]:
        """Refits of variants G (n, b) with effects in the span of a design (p, e)."""
        rows = self.null.point.data.spectrum.rotation.to_rows(G.astype(np.float64))
        return lambda design: self._refit(rows, design)

    def simulated(self, rng: np.random.Generator) -> Simulated:
        """Simulate traits of these families under the null model, and variants; fit the traits."""
        data, axes = self.null.point.data, self.null.point.axes
        Z = np.sqrt(axes.variances(data.s)) * rng.normal(size=data.Z.shape)
        null = climb(replace(data, Z=Z @ axes.Tinv.T), axes, self.null.rank, self.reml)
        if not null.certificate.certified:
            raise ConvergenceError(NO_CONVERGENCE)
        rows = np.sqrt(data.s)[:, None] * rng.normal(size=(data.s.size, SIMULATED_VARIANTS))
        point = evaluate(null.point.data, axes, self.reml)
        step = scoring_step(axes, point.grams, point.score0, point.score1)
        squares = rows**2
        v = squares.T @ point.W - np.sum(explained_by_covariates(point, rows) ** 2, axis=1).T
        truth = AtTruth(axes, rows.T @ point.alpha, v, information_change(squares, data.s, point.W, step))
        refits = FamilyRefits(null)
        return Simulated(refits.null_lml, lambda design: refits._refit(rows, design), truth)

    def _refit(self, rows: Array, design: Array) -> Refit:
        null = self.null.point
        return refit_each(
            rows, design, self.null, lambda g: LikelihoodWithVariant(null.data, null.reml, g, design, null.grams)
        )


class WithVariant(Likelihood[PointT], Protocol):
    """A likelihood with a variant in the model."""

    def effects_at(self, axes: TraitAxes) -> VariantEffects:
        """What the variant explains."""


def refit_each(
    G: Array, design: Array, null: Optimum[PointT], likelihood: Callable[[Array], WithVariant[PointT]]
) -> Refit:
    """Refits of variants G (n, b) one by one, from the null model; NaN where a climb did not converge.

    Parameters
    ----------
    G : NDArray (n, b)
        Variants, as ``likelihood`` takes one.
    design : NDArray (p, e)
        Effects on the traits lie in the span of these columns.
    null : Optimum
        The null model's maximum.
    likelihood : callable
        The likelihood with a variant.
    """
    b, p = G.shape[1], design.shape[0]
    found = Refit(np.full(b, np.nan), np.full((b, p), np.nan), np.full((b, p), np.nan))
    for k in range(b):
        with_variant = likelihood(G[:, k])
        try:
            best = climbing.climb(with_variant, null.point.axes, null.rank, MAX_STEPS)
        except NumericalError:
            continue
        if best.certificate.certified:
            axes = best.point.axes
            effects = with_variant.effects_at(axes)
            to_traits = axes.Tinv @ effects.D
            found.lml[k], found.beta[k] = best.point.lml, to_traits @ effects.gamma
            found.se[k] = np.sqrt(np.einsum("te,ef,tf->t", to_traits, effects.covariance, to_traits))
    return found
