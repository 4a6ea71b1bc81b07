"""The null model of observed cells of families: the classes of `model.null_model`."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.model.bartlett import Refits
from kron2sum_cli.model.block_scanner import Scanner
from kron2sum_cli.model.climbing import Optimum
from kron2sum_cli.model.families import observed_fitting as fitting
from kron2sum_cli.model.families.observed import ObservedFamilies
from kron2sum_cli.model.families.observed_likelihood import ObservedFamilyPoint, evaluate
from kron2sum_cli.model.families.observed_prediction import missing_cells
from kron2sum_cli.model.families.observed_refit import ObservedFamilyRefits
from kron2sum_cli.model.families.observed_scanner import (
    ObservedFamilySetScanner,
    effects_of_observed,
    observed_family_projection,
    observed_family_scanner,
)
from kron2sum_cli.model.families.spectrum import FAMILIES, arrays_of_spectrum, coloured
from kron2sum_cli.model.generalised_least_squares import Effects
from kron2sum_cli.model.missing.undetermined import with_independent_traits
from kron2sum_cli.model.null_model import NullLikelihood, NullModel
from kron2sum_cli.model.prediction import MissingCells, Predictor
from kron2sum_cli.model.set_scanner import SetScanner
from kron2sum_cli.model.spectrum import Array
from kron2sum_cli.model.trait_axes import TraitAxes
from kron2sum_cli.model.uncertainty import estimates_from, without_undetermined


@dataclass(frozen=True)
class ObservedFamilyNullModel(NullModel):
    """A null model of the observed cells of traits with a block-diagonal relationship matrix.

    Attributes
    ----------
    traits : ObservedFamilies
        The traits and covariates by families.
    """

    traits: ObservedFamilies

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Eigenvalues, members and eigenvectors of the families of every size, and the traits, NaN where missing."""
        found = arrays_of_spectrum(self.traits.spectrum) | {"Y": self.traits.given}
        return {FAMILIES + name: array for name, array in found.items()}

    def scalars(self) -> dict[str, int | float | None]:
        """None but those of every fit."""
        return {}

    @property
    def spans_intercept(self) -> bool:
        """Whether a constant lies in the span of the covariates."""
        Q = self.traits.Q
        return bool(np.sum(Q.sum(axis=0) ** 2) > len(Q) * (1 - 1e-9))

    @property
    def coupled(self) -> bool:
        """They are: some cells are missing."""
        return True

    def point(self) -> ObservedFamilyPoint:
        """The likelihood at the fitted covariances."""
        return evaluate(self.traits, self.summary.axes, self.summary.reml)

    def scanner(self, dtype: type[np.floating]) -> Scanner:
        """See `families.observed_scanner`."""
        return observed_family_scanner(self.point(), dtype)

    def set_scanner(self, dtype: type[np.floating]) -> SetScanner:
        """See `families.observed_scanner.ObservedFamilySetScanner`; in double precision."""
        return ObservedFamilySetScanner(self.point())

    def scores(self) -> Array:
        """See `NullModel.scores`."""
        return np.asarray(self.point().alpha @ self.summary.axes.Tinv)

    def project(self, F: Array) -> Array:
        """See `NullModel.project`."""
        return observed_family_projection(self.point(), F)

    def colour(self, E: Array) -> Array:
        """See `NullModel.colour`: of all cells, those that are missing among them."""
        return coloured(self.traits.spectrum, self.summary.axes, E)

    def refits(self) -> Refits:
        """See `families.observed_refit`."""
        return ObservedFamilyRefits(Optimum(self.point(), self.summary.rank, self.summary.certificate))

    def predictor(self) -> Predictor:
        """See `prediction`."""
        point = self.point()
        scanner = observed_family_scanner(point, np.float64)
        return Predictor(point.axes, scanner.statistics, lambda K: effects_of_observed(point, K))

    def missing_cells(self) -> MissingCells:
        """Predictions of the missing cells of the fit."""
        return missing_cells(self.point())


@dataclass(frozen=True)
class ObservedTraitsOfFamilies(NullLikelihood[ObservedFamilyPoint]):
    """The likelihood of the observed cells of traits with a block-diagonal relationship matrix.

    Attributes
    ----------
    traits : ObservedFamilies
        The traits and covariates by families.
    """

    traits: ObservedFamilies

    @property
    def largest_rank(self) -> int:
        """The number of traits, or 0 where no two samples are related."""
        return 0 if self.traits.spectrum.independent else self.traits.ntraits

    @property
    def largest_matrix(self) -> int:
        """Products over all samples are the work: threads of BLAS pay."""
        return self.traits.nsamples

    def fit(self, rank: int) -> Optimum[ObservedFamilyPoint]:
        """See `families.observed_fitting.fit`."""
        return fitting.fit(self.traits, rank, self.reml)

    def climb(self, start: TraitAxes, rank: int) -> Optimum[ObservedFamilyPoint]:
        """See `families.observed_fitting.climb`."""
        return fitting.climb(self.traits, start, rank, self.reml)

    def null_model(self, optimum: Optimum[ObservedFamilyPoint]) -> NullModel:
        """The null model of an optimum; undetermined residual covariances are as of independent traits."""
        optimum = with_independent_traits(optimum)
        point = optimum.point
        covariance = fitting.direction_covariance(point, optimum.rank)
        B, of_effects = fitting.fixed_effects(point)
        effects = Effects(B, fitting.effect_errors(point, of_effects))
        found = estimates_from(point.axes, self.traits.mean_eigenvalue, self.mean_diagonal, covariance, effects)
        estimates = without_undetermined(found, self.traits.observed())
        return ObservedFamilyNullModel(self._summary(optimum, estimates), self.traits)
