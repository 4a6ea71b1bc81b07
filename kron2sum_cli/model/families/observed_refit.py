"""Refits on the observed cells of families: C0 and C1 free again, with one variant in the model.

As in `families.refit`: the likelihood with effects ``A1 γ`` of a variant is that without it plus half of what the
variant explains at the same C0 and C1, and its score that of the residuals which the variant leaves.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import ConvergenceError, NumericalError
from kron2sum_cli.model.bartlett import NO_CONVERGENCE, AtTruth, Refit, Simulated, information_change, scoring_step
from kron2sum_cli.model.climbing import Optimum
from kron2sum_cli.model.families.observed_fitting import ObservedFamilyLikelihood, climb
from kron2sum_cli.model.families.observed_likelihood import ObservedFamilyPoint, evaluate
from kron2sum_cli.model.families.observed_scanner import statistics_in_double
from kron2sum_cli.model.families.refit import SIMULATED_VARIANTS, VariantEffects, refit_each
from kron2sum_cli.model.hypotheses import orthonormal
from kron2sum_cli.model.spectrum import Array
from kron2sum_cli.model.trait_axes import TraitAxes


@dataclass(frozen=True)
class ObservedLikelihoodWithVariant(ObservedFamilyLikelihood):
    """The likelihood of observed cells with a variant in the model, to climb.

    Attributes
    ----------
    variant : NDArray (n,)
        The variant.
    design : NDArray (p, e)
        Its effects lie in the span of these columns.
    """

    variant: Array
    design: Array

    def effects_at(self, axes: TraitAxes) -> VariantEffects:
        """What the variant explains."""
        return self.effects(super().evaluate(axes))

    def effects(self, point: ObservedFamilyPoint) -> VariantEffects:
        """What the variant explains at a point of the likelihood without it; ``projected`` over the traits."""
        statistics = statistics_in_double(point, self.variant[:, None])
        if statistics.length[0] <= 0:
            raise NumericalError("the variant lies in the span of the covariates in the samples of a trait")
        D = orthonormal(point.axes.T @ self.design)
        u = statistics.u[0]
        covariance = np.asarray(np.linalg.inv(D.T @ statistics.v[0] @ D), np.float64)
        gamma = covariance @ (D.T @ u)
        column = self.variant[:, None] * (point.axes.Tinv @ (D @ gamma))
        projected = point.project(column[:, :, None])[:, :, 0]
        return VariantEffects(D, gamma, covariance, projected, 0.5 * float(u @ D @ gamma))

    def evaluate(self, axes: TraitAxes) -> ObservedFamilyPoint:
        """The likelihood at one point, with the residuals that the variant leaves."""
        point = super().evaluate(axes)
        effects = self.effects(point)
        return replace(point, lml=point.lml + effects.gain, alpha=point.alpha - effects.projected)


@dataclass(frozen=True)
class ObservedFamilyRefits:
    """Refits under one null model of observed cells of families; see `bartlett.Refits`.

    Attributes
    ----------
    null : Optimum
        The null model's maximum.
    """

    null: Optimum[ObservedFamilyPoint]

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
        return lambda design: self._refit(G.astype(np.float64), design)

    def simulated(self, rng: np.random.Generator) -> Simulated:
        """Simulate traits in these cells under the null model, and variants; fit the traits."""
        data, axes = self.null.point.data, self.null.point.axes
        rotation, s = data.spectrum.rotation, data.spectrum.s
        rows = np.sqrt(axes.variances(s)) * rng.normal(size=data.Y.shape)
        Y = np.where(data.missing, 0.0, rotation.to_samples(rows @ axes.Tinv.T))
        null = climb(replace(data, Y=Y), axes, self.null.rank, self.reml)
        if not null.certificate.certified:
            raise ConvergenceError(NO_CONVERGENCE)
        rows = np.sqrt(s)[:, None] * rng.normal(size=(s.size, SIMULATED_VARIANTS))
        G = rotation.to_samples(rows)
        point = evaluate(null.point.data, axes, self.reml)
        statistics = statistics_in_double(point, G)
        step = scoring_step(axes, point.grams, point.score0, point.score1)
        change = information_change(rows**2, s, point.information_of_rows, step)
        truth = AtTruth(axes, statistics.u, statistics.v, change)
        refits = ObservedFamilyRefits(null)
        return Simulated(refits.null_lml, lambda design: refits._refit(G, design), truth)

    def _refit(self, G: Array, design: Array) -> Refit:
        null = self.null.point
        return refit_each(
            G, design, self.null, lambda g: ObservedLikelihoodWithVariant(null.data, null.reml, g, design)
        )
