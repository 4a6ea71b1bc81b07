"""Refits under a null model of families, of complete traits or observed cells: C0 and C1 free, with one variant.

With effects ``A1 γ`` of a variant the likelihood of the contrasts of the covariates is the restricted one plus half of
what the variant explains at the same C0 and C1: ``l(C0, C1) + ½ uᵀD(DᵀVD)⁻¹Dᵀu``, D = T A1 (see `hypotheses`). γ is at
its maximum there, so that the score is that of the restricted likelihood with the residuals that the variant leaves.
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Self, TypeVar

import numpy as np

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.block_scanner import Scanner
from kron2sum_cli.model.climbing import Likelihood, Optimum
from kron2sum_cli.model.control_variates import Projection
from kron2sum_cli.model.families import fitting, observed_fitting
from kron2sum_cli.model.families.fitting import FamilyLikelihood, climb
from kron2sum_cli.model.families.likelihood import FamilyPoint, FamilyTraits
from kron2sum_cli.model.families.observed import ObservedFamilies
from kron2sum_cli.model.families.observed_fitting import ObservedFamilyLikelihood
from kron2sum_cli.model.families.observed_likelihood import ObservedFamilyPoint
from kron2sum_cli.model.families.observed_scanner import (
    observed_family_scanner,
    observed_family_set_scores,
    statistics_in_double,
)
from kron2sum_cli.model.families.scanner import explained_by_covariates, family_scanner
from kron2sum_cli.model.families.spectrum import FamilyRotation
from kron2sum_cli.model.fitting import distinct_maxima, even_starts, pushed_axes
from kron2sum_cli.model.hypotheses import orthonormal
from kron2sum_cli.model.likelihood import Grams
from kron2sum_cli.model.missing.fitting import places_beside
from kron2sum_cli.model.missing.refit import RefitsOneByOne
from kron2sum_cli.model.spectrum import Array, Floats
from kron2sum_cli.model.trait_axes import TraitAxes
from kron2sum_cli.model.trust_region import Curvature

AnyPoint = TypeVar("AnyPoint", bound=FamilyPoint | ObservedFamilyPoint)


@dataclass(frozen=True)
class VariantEffects:
    """What a variant of one or more columns explains at one point.

    ``D`` (p, e) is an orthonormal basis of the design along the trait axes, ``gamma`` (e,) are effects of the last
    column in that basis, with their covariance (e, e). ``projected`` (n, p) is ``P_j g̃`` on every axis, times its
    effect, of all columns, and ``gain`` half of the reduction of ``rᵀK⁻¹r``.
    """

    D: Array
    gamma: Array
    covariance: Array
    projected: Array
    gain: float


@dataclass(frozen=True)
class WithVariant(Likelihood[AnyPoint]):
    """A likelihood with a variant in the model, to climb.

    The variant has columns (n, k), rotated where all traits are complete, and its effects lie in the span of ``design``
    (p, e).
    """

    variant: Array
    design: Array

    @abstractmethod
    def without_variant(self, axes: TraitAxes) -> AnyPoint:
        """The likelihood without the variant."""

    @abstractmethod
    def effects(self, point: AnyPoint) -> VariantEffects:
        """What the variant explains at a point of the likelihood without it."""

    def effects_at(self, axes: TraitAxes) -> VariantEffects:
        """What the variant explains."""
        return self.effects(self.without_variant(axes))

    def evaluate(self, axes: TraitAxes) -> AnyPoint:
        """The likelihood at one point, with the residuals that the variant leaves."""
        point = self.without_variant(axes)
        effects = self.effects(point)
        return replace(point, lml=point.lml + effects.gain, alpha=point.alpha - effects.projected)


@dataclass(frozen=True)
class LikelihoodWithVariant(WithVariant[FamilyPoint], FamilyLikelihood):
    """The likelihood of complete traits with a variant in the model.

    ``grams`` are the expected information of the null model, which that with a variant hardly differs from.
    """

    grams: Grams | None

    def without_variant(self, axes: TraitAxes) -> FamilyPoint:
        """See `WithVariant.without_variant`."""
        return FamilyLikelihood.evaluate(self, axes)

    def effects(self, point: FamilyPoint) -> VariantEffects:
        """See `WithVariant.effects`; ``projected`` over the rows and axes."""
        explained = explained_by_covariates(point, self.variant)
        projected = point.W[:, :, None] * self.variant[:, None]
        for j, L in enumerate(point.chol):
            projected[:, j] -= point.W[:, j, None] * (point.data.X @ np.linalg.solve(L.T, explained[j]))
        v = np.einsum("na,njb->jab", self.variant, projected)
        if np.any(np.einsum("jaa->ja", v) <= 0):
            raise NumericalError("the variant lies in the span of the covariates")
        V = np.einsum("jab,jl->jalb", v, np.eye(len(v)))
        return effects_of_columns(point.axes.T @ self.design, self.variant.T @ point.alpha, V, projected)

    def corrected(self, point: FamilyPoint) -> Self:
        """With the expected information of every point instead of that of the null model."""
        return replace(self, grams=None)

    def curvature(self, point: FamilyPoint) -> Curvature:
        """That without the variant, with the expected information of the null model where that has predicted well."""
        if self.grams is None:
            return super().curvature(point)
        return Curvature(self.grams, None, lambda E0, E1: point.curvature(E0, E1, self.grams))


def effects_of_columns(along: Array, u: Array, V: Array, projected: Array | None = None) -> VariantEffects:
    """The effects of k columns of a variant in the span of a design, ``along`` (p, e) = ``T A1`` in the axes.

    From their scores u (k, p) and information V (p, k, p, k); ``projected`` (n, p, k) is ``P_j g̃`` of every column, or
    None for effects (p, k) in its place.
    """
    D, k = orthonormal(along), len(u)
    e = D.shape[1]
    information = np.einsum("je,jalb,lf->eafb", D, V, D, optimize=True).reshape(e * k, e * k)
    covariance = np.asarray(np.linalg.inv(information), np.float64)
    score = (D.T @ u.T).reshape(-1)
    gamma = covariance @ score
    effects = D @ gamma.reshape(e, k)
    explained = effects if projected is None else np.einsum("njk,jk->nj", projected, effects)
    last = slice(k - 1, None, k)
    return VariantEffects(D, gamma[last], covariance[last, last], explained, 0.5 * float(score @ gamma))


@dataclass(frozen=True)
class RefitsOfFamilies(RefitsOneByOne[AnyPoint]):
    """Refits under one null model of families, of complete traits or of observed cells."""

    @property
    def rotated(self) -> tuple[Array, FamilyRotation]:
        """See `RefitsOneByOne.rotated`."""
        spectrum = self.null.point.data.spectrum
        return spectrum.s, spectrum.rotation

    @abstractmethod
    def with_variant(self, columns: Array, design: Array) -> WithVariant[AnyPoint]:
        """The likelihood with the columns (n, k) of a variant, with effects in the span of a design (p, e)."""

    def fitted(self, columns: Array, design: Array) -> tuple[float, Array, Array] | None:
        """See `RefitsOneByOne.fitted`."""
        likelihood = self.with_variant(columns, design)
        best = self.highest(likelihood, design.shape[1] * columns.shape[1])
        if best is None:
            return None
        axes, effects = best.point.axes, likelihood.effects_at(best.point.axes)
        to_traits = axes.Tinv @ effects.D
        variances = np.einsum("te,ef,tf->t", to_traits, effects.covariance, to_traits)
        return best.point.lml, to_traits @ effects.gamma, np.sqrt(variances)


@dataclass(frozen=True)
class FamilyRefits(RefitsOfFamilies[FamilyPoint]):
    """Refits of complete traits, which climb from ``further`` starts, too."""

    further: tuple[TraitAxes, ...] = ()

    @property
    def starts(self) -> list[TraitAxes]:
        """The null model's maxima, and further ones."""
        return [*super().starts, *self.further]

    def columns(self, G: Floats) -> Array:
        """Rotated columns."""
        return self.null.point.data.spectrum.rotation.to_rows(G.astype(np.float64))

    def with_variant(self, columns: Array, design: Array) -> LikelihoodWithVariant:
        """See `RefitsOfFamilies.with_variant`."""
        null = self.null.point
        return LikelihoodWithVariant(null.data, null.reml, columns, design, null.grams)

    def scanner(self, point: FamilyPoint) -> tuple[Scanner, Projection]:
        """See `RefitsOneByOne.scanner`."""
        over = Projection(point.project, lambda F: point.data.s[:, None] * F, point.alpha)
        return family_scanner(point, np.float64), over

    def simulated_climb(self, truth: TraitAxes, rng: np.random.Generator) -> Callable[[int], Optimum[FamilyPoint]]:
        """See `RefitsOneByOne.simulated_climb`."""
        data = self.null.point.data
        Z = np.sqrt(truth.variances(data.s)) * rng.normal(size=data.Z.shape)
        simulated = replace(data, Z=Z @ truth.Tinv.T)
        return lambda rank: climb(simulated, truth, rank, self.reml)


@dataclass(frozen=True)
class ObservedLikelihoodWithVariant(WithVariant[ObservedFamilyPoint], ObservedFamilyLikelihood):
    """The likelihood of observed cells with a variant in the model."""

    def without_variant(self, axes: TraitAxes) -> ObservedFamilyPoint:
        """See `WithVariant.without_variant`."""
        return ObservedFamilyLikelihood.evaluate(self, axes)

    def effects(self, point: ObservedFamilyPoint) -> VariantEffects:
        """See `WithVariant.effects`; ``projected`` over the samples and traits."""
        scores = observed_family_set_scores(point, self.variant)
        if np.any(statistics_in_double(point, self.variant).length <= 0):
            raise NumericalError("the variant lies in the span of the covariates in the samples of a trait")
        found = effects_of_columns(point.axes.T @ self.design, scores.u, scores.V.transpose(0, 2, 1, 3))
        columns = self.variant @ (point.axes.Tinv @ found.projected).T
        return replace(found, projected=point.project(columns[:, :, None])[:, :, 0])


@dataclass(frozen=True)
class ObservedFamilyRefits(RefitsOfFamilies[ObservedFamilyPoint]):
    """Refits of observed cells."""

    def columns(self, G: Floats) -> Array:
        """The columns themselves."""
        return G.astype(np.float64)

    def with_variant(self, columns: Array, design: Array) -> ObservedLikelihoodWithVariant:
        """See `RefitsOfFamilies.with_variant`."""
        return ObservedLikelihoodWithVariant(self.null.point.data, self.null.point.reml, columns, design)

    def scanner(self, point: ObservedFamilyPoint) -> tuple[Scanner, Projection]:
        """See `RefitsOneByOne.scanner`."""
        over = Projection(point.project_along_axes, point.data.related, point.alpha_along_axes)
        return observed_family_scanner(point, np.float64), over

    def simulated_climb(
        self, truth: TraitAxes, rng: np.random.Generator
    ) -> Callable[[int], Optimum[ObservedFamilyPoint]]:
        """See `RefitsOneByOne.simulated_climb`."""
        data = self.null.point.data
        rows = np.sqrt(truth.variances(data.spectrum.s)) * rng.normal(size=data.Y.shape)
        Y = np.where(data.missing, 0.0, data.spectrum.rotation.to_samples(rows @ truth.Tinv.T))
        simulated = replace(data, Y=Y)
        return lambda rank: observed_fitting.climb(simulated, truth, rank, self.reml)


def family_refits(data: FamilyTraits, fitted: TraitAxes, rank: int, reml: bool) -> FamilyRefits:
    """Refits from local maxima of the likelihood without a variant: see `missing.refit.observed_refits`."""
    even: list[TraitAxes] = []
    starts = [fitted]
    if rank and fitting.may_have_several_maxima(data):
        even = even_starts(data)
        starts += even + pushed_axes(fitted, rank, data.mean_eigenvalue)
    maxima = distinct_maxima(starts, partial(climb, data, rank=rank, reml=reml))
    return FamilyRefits(tuple(maxima), further=tuple(even))


def observed_family_refits(data: ObservedFamilies, fitted: TraitAxes, rank: int, reml: bool) -> ObservedFamilyRefits:
    """Refits from local maxima of the likelihood without a variant: see `missing.refit.observed_refits`."""
    starts = [fitted]
    if observed_fitting.is_searched_beside(data):
        starts += even_starts(observed_fitting.filled_traits(data)) + places_beside(data, fitted, rank)
    maxima = distinct_maxima(starts, partial(observed_fitting.climb, data, rank=rank, reml=reml))
    return ObservedFamilyRefits(tuple(maxima), data if observed_fitting.is_searched_thoroughly(data) else None)
