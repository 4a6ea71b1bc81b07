"""Refits on the observed cells of families: C0 and C1 free again, with one variant in the model.

As in `families.refit`: the likelihood with effects ``A1 γ`` of a variant is that without it plus half of what the
variant explains at the same C0 and C1, and its score that of the residuals which the variant leaves.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import ConvergenceError, NumericalError
from kron2sum_cli.model.bartlett import (
    NO_CONVERGENCE,
    AtTruth,
    SecondOf,
    Simulated,
    information_change,
    pairs_at_truth,
    scoring_step,
)
from kron2sum_cli.model.block_scanner import PairStatistics
from kron2sum_cli.model.families.observed_fitting import ObservedFamilyLikelihood, climb
from kron2sum_cli.model.families.observed_likelihood import ObservedFamilyPoint, evaluate
from kron2sum_cli.model.families.observed_scanner import observed_family_set_scores, statistics_in_double
from kron2sum_cli.model.families.refit import RefitsOfFamilies, VariantEffects, effects_of_columns
from kron2sum_cli.model.missing.refit import SIMULATED_VARIANTS
from kron2sum_cli.model.spectrum import Array
from kron2sum_cli.model.trait_axes import TraitAxes


@dataclass(frozen=True)
class ObservedLikelihoodWithVariant(ObservedFamilyLikelihood):
    """The likelihood of observed cells with a variant in the model, to climb.

    The variant has columns (n, k), and its effects lie in the span of ``design`` (p, e).
    """

    variant: Array
    design: Array

    def effects_at(self, axes: TraitAxes) -> VariantEffects:
        """What the variant explains."""
        return self.effects(super().evaluate(axes))

    def effects(self, point: ObservedFamilyPoint) -> VariantEffects:
        """What the variant explains at a point of the likelihood without it; ``projected`` over the traits."""
        scores = observed_family_set_scores(point, self.variant)
        if np.any(statistics_in_double(point, self.variant).length <= 0):
            raise NumericalError("the variant lies in the span of the covariates in the samples of a trait")
        found = effects_of_columns(point.axes.T @ self.design, scores.u, scores.V.transpose(0, 2, 1, 3))
        columns = self.variant @ (point.axes.Tinv @ found.projected).T
        return replace(found, projected=point.project(columns[:, :, None])[:, :, 0])

    def evaluate(self, axes: TraitAxes) -> ObservedFamilyPoint:
        """The likelihood at one point, with the residuals that the variant leaves."""
        point = super().evaluate(axes)
        effects = self.effects(point)
        return replace(point, lml=point.lml + effects.gain, alpha=point.alpha - effects.projected)


@dataclass(frozen=True)
class ObservedFamilyRefits(RefitsOfFamilies[ObservedFamilyPoint]):
    """Refits of observed cells."""

    def columns(self, G: NDArray[np.floating]) -> Array:
        """The columns themselves."""
        return G.astype(np.float64)

    def with_variant(self, columns: Array, design: Array) -> ObservedLikelihoodWithVariant:
        """See `RefitsOfFamilies.with_variant`."""
        return ObservedLikelihoodWithVariant(self.null.point.data, self.null.point.reml, columns, design)

    def simulated(self, rng: np.random.Generator, second: SecondOf | None = None) -> Simulated:
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
        truth = AtTruth(axes.T, statistics.u, statistics.v, change)
        refits = ObservedFamilyRefits(null)
        found = Simulated(refits.null_lml, lambda design: refits.refit(G, design), truth)
        if second is None:
            return found
        H = second(G)
        columns = np.stack([rows, rotation.to_rows(H)], axis=2)
        both = [observed_family_set_scores(point, np.stack([g, h], axis=1)).V for g, h in zip(G.T, H.T, strict=True)]
        pairs = PairStatistics(statistics, statistics_in_double(point, H), np.array([V[:, :, 0, 1] for V in both]))
        known = pairs_at_truth(axes.T, pairs, columns, s, point.information_of_rows, step)
        return found.with_pairs(known, lambda: refits.of_pairs(G, H, G[:, :0]))
