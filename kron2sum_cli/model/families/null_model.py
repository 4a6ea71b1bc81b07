"""The null models of families: the classes of `model.null_model` for a block-diagonal relationship matrix.

One of each for complete traits and one for observed cells. Missing cells are predicted by their conditional means: for
a family with ``V_all`` of all its cells and V⁻¹ of the observed ones, 0 elsewhere, and ``D = I - V_all V⁻¹``, a missing
cell has mean ``m + V_all α``, m its fixed effects, and variance ``diag(D V_all) + diag(D M H⁻¹ Mᵀ Dᵀ)``.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.bartlett import Refits
from kron2sum_cli.model.block_scanner import Scanner, precision_for
from kron2sum_cli.model.climbing import Optimum, PointT
from kron2sum_cli.model.collinearity import spans_constant
from kron2sum_cli.model.families import fitting, observed_fitting
from kron2sum_cli.model.families.likelihood import FamilyPoint, FamilyTraits, evaluate, family_traits, with_effects
from kron2sum_cli.model.families.observed import (
    ENTRIES_AT_ONCE,
    Families,
    ObservedFamilies,
    Singles,
    covariances,
    observed_families,
)
from kron2sum_cli.model.families.observed_likelihood import ObservedFamilyPoint
from kron2sum_cli.model.families.observed_likelihood import evaluate as evaluate_observed
from kron2sum_cli.model.families.observed_scanner import (
    ObservedFamilySetScanner,
    effects_of_observed,
    observed_family_scanner,
)
from kron2sum_cli.model.families.refit import family_refits, observed_family_refits
from kron2sum_cli.model.families.scanner import effects_of_covariates, family_scanner, family_set_scanner
from kron2sum_cli.model.families.spectrum import FamilySpectrum, arrays_of_spectrum, restored_spectrum
from kron2sum_cli.model.generalised_least_squares import Effects
from kron2sum_cli.model.missing.undetermined import uses_undetermined, with_independent_traits
from kron2sum_cli.model.null_model import FAMILIES, FitSummary, NullLikelihood, NullModel, TraitData
from kron2sum_cli.model.prediction import MissingCells, Predictor
from kron2sum_cli.model.satterthwaite import EffectiveContrasts, effective_contrasts
from kron2sum_cli.model.sets.scanner import SetScanner
from kron2sum_cli.model.spectrum import Array, parts_of
from kron2sum_cli.model.trait_axes import TraitAxes
from kron2sum_cli.model.uncertainty import estimates_from, without_undetermined


@dataclass(frozen=True)
class NullModelOfFamilies(NullModel):
    """What the null models of families have in common."""

    traits: FamilyTraits | ObservedFamilies

    def colour(self, E: Array) -> Array:
        """See `NullModel.colour`: of all cells, those that are missing among them."""
        spectrum, flat = self.traits.spectrum, E.reshape(len(E), -1)
        size = np.sqrt(self.summary.axes.variances(spectrum.s))[:, :, None]
        rows = spectrum.rotation.to_rows(flat).reshape(E.shape) * size
        return spectrum.rotation.to_samples(rows.reshape(flat.shape)).reshape(E.shape)

    def _precision(self, asked: type[np.floating]) -> type[np.floating]:
        return precision_for(self.summary.axes, self.traits.spectrum.s, False, asked)


@dataclass(frozen=True)
class FamilyNullModel(NullModelOfFamilies):
    """A null model of complete traits with a block-diagonal relationship matrix."""

    traits: FamilyTraits

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Eigenvalues, rotated traits and covariates, and members and eigenvectors of the families of every size."""
        traits = self.traits
        found = arrays_of_spectrum(traits.spectrum) | {"Z": traits.Z, "X": traits.X, "R": traits.R}
        return {FAMILIES + name: array for name, array in found.items()}

    @property
    def spans_intercept(self) -> bool:
        """Whether a constant lies in the span of the covariates."""
        Q = self.traits.spectrum.rotation.to_samples(self.traits.X)
        return spans_constant(Q)

    @property
    def coupled(self) -> bool:
        """They are not."""
        return False

    @cached_property
    def point(self) -> FamilyPoint:
        """The likelihood at the fitted covariances."""
        return evaluate(self.traits, self.summary.axes, self.summary.reml)

    def scanner(self, dtype: type[np.floating]) -> Scanner:
        """See `families.scanner`."""
        return family_scanner(self.point, self._precision(dtype))

    def set_scanner(self, dtype: type[np.floating]) -> SetScanner:
        """See `families.scanner.FamilySetScanner`."""
        return family_set_scanner(self.point, self._precision(dtype))

    def scores(self) -> Array:
        """See `NullModel.scores`."""
        return self.traits.spectrum.rotation.to_samples(self.point.alpha)

    def project(self, F: Array) -> Array:
        """See `NullModel.project`."""
        rotation, flat = self.traits.spectrum.rotation, F.reshape(len(F), -1)
        rows = self.point.project(rotation.to_rows(flat).reshape(F.shape))
        return rotation.to_samples(rows.reshape(flat.shape)).reshape(F.shape)

    def estimated_given(self, S: Array) -> tuple[NullModel, EffectiveContrasts]:
        """See `NullModel.estimated_given`."""
        if not self.summary.reml:
            return super().estimated_given(S)
        data, axes, rank = with_effects(self.traits, S), self.summary.axes, self.summary.rank
        fitted = fitting.climb_near(data, axes, rank, reml=True) if rank else None
        if fitted is None or not fitted.certificate.certified:
            fitted = fitting.fits(data, [rank], reml=True)[0]
        axes = fitted.point.axes.with_mean_eigenvalue(self.traits.mean_eigenvalue)
        summary = self.summary.at(evaluate(self.traits, axes, reml=True))
        return self.at(summary), effective_contrasts(axes, fitted.point.at(axes).grams)

    def refits(self) -> Refits:
        """See `families.refit`."""
        return family_refits(self.traits, self.summary.axes, self.summary.rank, self.summary.reml)

    def predictor(self) -> Predictor:
        """See `prediction`."""
        point = self.point
        scanner = family_scanner(point, np.float64)
        return Predictor(point.axes, scanner.statistics, lambda K: effects_of_covariates(point, K))


@dataclass(frozen=True)
class ObservedFamilyNullModel(NullModelOfFamilies):
    """A null model of the observed cells of traits with a block-diagonal relationship matrix."""

    traits: ObservedFamilies

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Eigenvalues, members and eigenvectors of the families of every size, and the traits, NaN where missing."""
        found = arrays_of_spectrum(self.traits.spectrum) | {"Y": self.traits.given}
        return {FAMILIES + name: array for name, array in found.items()}

    @property
    def spans_intercept(self) -> bool:
        """Whether a constant lies in the span of the covariates."""
        return spans_constant(self.traits.Q)

    @property
    def coupled(self) -> bool:
        """They are: some cells are missing."""
        return True

    @cached_property
    def point(self) -> ObservedFamilyPoint:
        """The likelihood at the fitted covariances."""
        return evaluate_observed(self.traits, self.summary.axes, self.summary.reml)

    def scanner(self, dtype: type[np.floating]) -> Scanner:
        """See `families.observed_scanner`."""
        return observed_family_scanner(self.point, self._precision(dtype))

    def set_scanner(self, dtype: type[np.floating]) -> SetScanner:
        """See `families.observed_scanner.ObservedFamilySetScanner`; in double precision."""
        return ObservedFamilySetScanner(self.point)

    def scores(self) -> Array:
        """See `NullModel.scores`."""
        return self.point.alpha_along_axes

    def project(self, F: Array) -> Array:
        """See `NullModel.project`."""
        return self.point.project_along_axes(F)

    def refits(self) -> Refits:
        """See `families.refit`."""
        return observed_family_refits(self.traits, self.summary.axes, self.summary.rank, self.summary.reml)

    def predictor(self) -> Predictor:
        """See `prediction`."""
        point = self.point
        scanner = observed_family_scanner(point, np.float64)
        return Predictor(point.axes, scanner.statistics, lambda K: effects_of_observed(point, K))

    def missing_cells(self) -> MissingCells:
        """Predictions of the missing cells of the fit."""
        return missing_cells(self.point)


@dataclass(frozen=True)
class LikelihoodOfFamilies(NullLikelihood[PointT]):
    """What the likelihoods of families have in common."""

    traits: FamilyTraits | ObservedFamilies

    @property
    def largest_rank(self) -> int:
        """The number of traits, or 0 where no two samples are related."""
        return 0 if self.traits.spectrum.independent else self.traits.ntraits

    @property
    def largest_matrix(self) -> int:
        """That of a family: sums over the samples are made in pieces, for which threads of BLAS do not pay."""
        return self.traits.spectrum.rotation.largest_family


@dataclass(frozen=True)
class TraitsOfFamilies(LikelihoodOfFamilies[FamilyPoint]):
    """The likelihood of complete traits with a block-diagonal relationship matrix."""

    traits: FamilyTraits

    def fits(self, ranks: Sequence[int]) -> list[Optimum[FamilyPoint]]:
        """See `families.fitting.fits`."""
        return fitting.fits(self.traits, ranks, self.reml)

    def fit_near(self, start: TraitAxes, rank: int) -> Optimum[FamilyPoint]:
        """See `families.fitting.climb_near`."""
        return fitting.climb_near(self.traits, start, rank, self.reml)

    def null_model(self, optimum: Optimum[FamilyPoint]) -> NullModel:
        """The null model of an optimum."""
        point = optimum.point
        covariance = fitting.direction_covariance(point, optimum.rank)
        effects = Effects(*fitting.fixed_effects(point))
        estimates = estimates_from(point.axes, self.traits.mean_eigenvalue, self.mean_diagonal, covariance, effects)
        return FamilyNullModel(self._summary(optimum, estimates), self.traits)


@dataclass(frozen=True)
class ObservedTraitsOfFamilies(LikelihoodOfFamilies[ObservedFamilyPoint]):
    """The likelihood of the observed cells of traits with a block-diagonal relationship matrix."""

    traits: ObservedFamilies

    def fits(self, ranks: Sequence[int]) -> list[Optimum[ObservedFamilyPoint]]:
        """See `families.observed_fitting.fits`."""
        return observed_fitting.fits(self.traits, ranks, self.reml)

    def fit_near(self, start: TraitAxes, rank: int) -> Optimum[ObservedFamilyPoint]:
        """See `families.observed_fitting.climb_near`."""
        return observed_fitting.climb_near(self.traits, start, rank, self.reml)

    def null_model(self, optimum: Optimum[ObservedFamilyPoint]) -> NullModel:
        """The null model of an optimum; undetermined residual covariances are as of independent traits."""
        optimum = with_independent_traits(optimum)
        point = optimum.point
        covariance = observed_fitting.direction_covariance(point, optimum.rank)
        B, of_effects = observed_fitting.fixed_effects(point)
        effects = Effects(B, observed_fitting.effect_errors(point, of_effects))
        found = estimates_from(point.axes, self.traits.mean_eigenvalue, self.mean_diagonal, covariance, effects)
        estimates = without_undetermined(found, self.traits.observed())
        return ObservedFamilyNullModel(self._summary(optimum, estimates), self.traits)


def likelihood_of_families(spectrum: FamilySpectrum, data: TraitData, reml: bool) -> NullLikelihood[Any]:
    """The likelihood of traits, or of their observed cells, on families.

    Raises NumericalError where a trait design has fewer columns than traits, or a trait has no observed cell.
    """
    if data.reduced:
        raise NumericalError("--trait-design is not available for a sparse relationship matrix; use a dense matrix")
    if data.has_missing:
        cells = observed_families(spectrum, data.Y, data.X, data.left_out)
        return ObservedTraitsOfFamilies(data, reml, spectrum.mean_diagonal, cells)
    return TraitsOfFamilies(data, reml, spectrum.mean_diagonal, family_traits(spectrum, data.Y, data.X))


def restored_families(summary: FitSummary, arrays: Mapping[str, NDArray[Any]], data: TraitData) -> NullModel:
    """A null model of families from what a file keeps: the arrays that it gave, by their names without `FAMILIES`.

    Raises KeyError, ValueError where an array is absent, or their shapes do not go together.
    """
    spectrum = restored_spectrum(arrays, summary.mean_diagonal)
    n, p = len(spectrum.s), summary.axes.c0.size
    if data.has_missing:
        Y = np.asarray(arrays["Y"], dtype=np.float64)  # less predictions, where some were taken off
        if Y.shape != (n, p) or len(data.X) != n:
            raise ValueError("the arrays of the families do not go together")
        return ObservedFamilyNullModel(summary, observed_families(spectrum, Y, data.X, data.left_out))
    Z, X, R = (np.asarray(arrays[name], dtype=np.float64) for name in ("Z", "X", "R"))
    c = R.shape[0]
    if Z.shape != (n, p) or X.shape != (n, c) or R.shape != (c, c):
        raise ValueError("the arrays of the families do not go together")
    return FamilyNullModel(summary, FamilyTraits(spectrum, Z, X, R))


# Predictions of missing cells


def missing_cells(point: ObservedFamilyPoint) -> MissingCells:
    """Predictions of the missing cells of a fit.

    Those that depend on an undetermined residual covariance have no variance (NaN).
    """
    data, axes = point.data, point.axes
    B, _ = observed_fitting.fixed_effects(point)
    mean = data.X @ B + data.related(point.alpha) @ axes.C0 + point.alpha @ axes.C1
    variance, Hinv = np.zeros(data.missing.shape), point.effects_inverse
    for family, inverse in _families_with_missing(point):
        variance[family.members] = _conditional_variances(family, inverse, Hinv, axes.C0, axes.C1)
    rows, traits = np.nonzero(data.missing)
    unsure = uses_undetermined(data.observed(), rows, traits)
    return MissingCells(rows, traits, mean[rows, traits], np.where(unsure, np.nan, variance[rows, traits]))


def _families_with_missing(point: ObservedFamilyPoint) -> Iterator[tuple[Families, Array]]:
    """All families with missing cells, samples without relatives as families of one."""
    for group, inverse in zip(point.data.groups, point.inverses, strict=True):
        if isinstance(group, Families):
            yield group, inverse
        elif isinstance(group, Singles):
            incomplete = np.flatnonzero(~group.observed[group.kind].all(axis=1))
            for part in parts_of(incomplete.size, ENTRIES_AT_ONCE // group.observed.shape[1] ** 2):
                some = incomplete[part]
                kind = group.kind[some]
                K, observed = group.K[kind][:, None, None], group.observed[kind][:, None]
                alone = Families(group.members[some, None], np.ones_like(K), K, observed, group.X[some, None])
                yield alone, inverse[kind][:, None, :, None]


def _conditional_variances(family: Families, inverse: Array, Hinv: Array, C0: Array, C1: Array) -> Array:
    """Conditional variances of all cells (f, m, p)."""
    f, m, p = family.observed.shape
    V = covariances(family.K, C0, C1)
    D = np.eye(m * p) - V @ inverse.reshape(V.shape)
    A = family.variance_of_effects(Hinv).reshape(V.shape)
    variance = np.einsum("fab,fba->fa", D, V) + np.einsum("fab,fba->fa", D @ A, D.transpose(0, 2, 1))
    return np.asarray(np.maximum(variance, 0.0).reshape(f, m, p))
