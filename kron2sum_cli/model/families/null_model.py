"""The null model of families: the classes of `model.null_model` for a block-diagonal relationship matrix."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.bartlett import Refits
from kron2sum_cli.model.block_scanner import Scanner
from kron2sum_cli.model.climbing import Optimum
from kron2sum_cli.model.families import fitting
from kron2sum_cli.model.families.likelihood import FamilyPoint, FamilyTraits, evaluate, family_traits
from kron2sum_cli.model.families.observed import observed_families
from kron2sum_cli.model.families.observed_null_model import ObservedFamilyNullModel, ObservedTraitsOfFamilies
from kron2sum_cli.model.families.refit import FamilyRefits
from kron2sum_cli.model.families.scanner import (
    effects_of_covariates,
    family_projection,
    family_scanner,
    family_set_scanner,
)
from kron2sum_cli.model.families.spectrum import (
    FAMILIES,
    FamilySpectrum,
    arrays_of_spectrum,
    coloured,
    restored_spectrum,
)
from kron2sum_cli.model.generalised_least_squares import Effects
from kron2sum_cli.model.null_model import FitSummary, NullLikelihood, NullModel, TraitData
from kron2sum_cli.model.prediction import MissingCells, Predictor, no_missing_cells
from kron2sum_cli.model.set_scanner import SetScanner
from kron2sum_cli.model.spectrum import Array
from kron2sum_cli.model.trait_axes import TraitAxes
from kron2sum_cli.model.uncertainty import estimates_from

PAIRS_OF_RELATIVE = 2
"""Pairs of relatives for every sample that has some, as families of a few samples have them."""

COLUMNS_OF_COVARIATES = 6
"""Columns that a scan holds for every covariate: itself, and weighted (see `scanner.low_rank`)."""


@dataclass(frozen=True)
class FamilyNullModel(NullModel):
    """A null model of complete traits with a block-diagonal relationship matrix.

    Attributes
    ----------
    traits : FamilyTraits
        The rotated traits and covariates.
    """

    traits: FamilyTraits

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Eigenvalues, rotated traits and covariates, and members and eigenvectors of the families of every size."""
        traits = self.traits
        found = arrays_of_spectrum(traits.spectrum) | {"Z": traits.Z, "X": traits.X, "R": traits.R}
        return {FAMILIES + name: array for name, array in found.items()}

    def scalars(self) -> dict[str, int | float | None]:
        """None but those of every fit."""
        return {}

    @property
    def spans_intercept(self) -> bool:
        """Whether a constant lies in the span of the covariates."""
        Q = self.traits.spectrum.rotation.to_samples(self.traits.X)
        return bool(np.sum(Q.sum(axis=0) ** 2) > len(Q) * (1 - 1e-9))

    @property
    def coupled(self) -> bool:
        """They are not."""
        return False

    def point(self) -> FamilyPoint:
        """The likelihood at the fitted covariances."""
        return evaluate(self.traits, self.summary.axes, self.summary.reml)

    def scanner(self, dtype: type[np.floating]) -> Scanner:
        """See `families.scanner`."""
        return family_scanner(self.point(), dtype)

    def set_scanner(self, dtype: type[np.floating]) -> SetScanner:
        """See `families.scanner.FamilySetScanner`."""
        return family_set_scanner(self.point(), dtype)

    def scores(self) -> Array:
        """See `NullModel.scores`."""
        return self.traits.spectrum.rotation.to_samples(self.point().alpha)

    def project(self, F: Array) -> Array:
        """See `families.scanner.family_projection`."""
        return family_projection(self.point(), F)

    def colour(self, E: Array) -> Array:
        """See `NullModel.colour`."""
        return coloured(self.traits.spectrum, self.summary.axes, E)

    def refits(self) -> Refits:
        """See `families.refit`."""
        return FamilyRefits(Optimum(self.point(), self.summary.rank, self.summary.certificate))

    def predictor(self) -> Predictor:
        """See `prediction`."""
        point = self.point()
        scanner = family_scanner(point, np.float64)
        return Predictor(point.axes, scanner.statistics, lambda K: effects_of_covariates(point, K))

    def missing_cells(self) -> MissingCells:
        """None of them."""
        return no_missing_cells()


@dataclass(frozen=True)
class TraitsOfFamilies(NullLikelihood[FamilyPoint]):
    """The likelihood of complete traits with a block-diagonal relationship matrix.

    Attributes
    ----------
    traits : FamilyTraits
        The rotated traits and covariates.
    """

    traits: FamilyTraits

    @property
    def largest_rank(self) -> int:
        """The number of traits, or 0 where no two samples are related."""
        return 0 if self.traits.spectrum.independent else self.traits.ntraits

    @property
    def largest_matrix(self) -> int:
        """Products over all samples are the work: threads of BLAS pay."""
        return self.traits.nsamples

    def fit(self, rank: int) -> Optimum[FamilyPoint]:
        """See `families.fitting.fit`."""
        return fitting.fit(self.traits, rank, self.reml)

    def climb(self, start: TraitAxes, rank: int) -> Optimum[FamilyPoint]:
        """See `families.fitting.climb`."""
        return fitting.climb(self.traits, start, rank, self.reml)

    def null_model(self, optimum: Optimum[FamilyPoint]) -> NullModel:
        """The null model of an optimum."""
        point = optimum.point
        covariance = fitting.direction_covariance(point, optimum.rank)
        effects = Effects(*fitting.fixed_effects(point))
        estimates = estimates_from(point.axes, self.traits.mean_eigenvalue, self.mean_diagonal, covariance, effects)
        return FamilyNullModel(self._summary(optimum, estimates), self.traits)


def likelihood_of_families(spectrum: FamilySpectrum, data: TraitData, reml: bool) -> NullLikelihood[Any]:
    """The likelihood of traits, or of their observed cells, on families.

    Raises
    ------
    NumericalError
        Where a trait design has fewer columns than traits, or a trait has no observed cell.
    """
    if data.reduced:
        raise NumericalError("--trait-design is not available for a sparse relationship matrix; use a dense matrix")
    if data.has_missing:
        cells = observed_families(spectrum, data.Y, data.X)
        return ObservedTraitsOfFamilies(data, reml, spectrum.mean_diagonal, cells)
    return TraitsOfFamilies(data, reml, spectrum.mean_diagonal, family_traits(spectrum, data.Y, data.X))


def restored_families(summary: FitSummary, arrays: Mapping[str, NDArray[Any]], data: TraitData) -> NullModel:
    """A null model of families from what a file keeps of it.

    Parameters
    ----------
    summary : FitSummary
        The fit.
    arrays : Mapping of str to NDArray
        What its ``arrays`` gave, by their names without `FAMILIES`.
    data : TraitData
        What the model was fitted to.

    Raises
    ------
    KeyError, ValueError
        Where an array is absent, or their shapes do not go together.
    """
    spectrum = restored_spectrum(arrays, summary.mean_diagonal)
    n, p = len(spectrum.s), summary.axes.c0.size
    if data.has_missing:
        Y = np.asarray(arrays["Y"], dtype=np.float64)  # less predictions, where some were taken off
        if Y.shape != (n, p) or len(data.X) != n:
            raise ValueError("the arrays of the families do not go together")
        return ObservedFamilyNullModel(summary, observed_families(spectrum, Y, data.X))
    Z, X, R = (np.asarray(arrays[name], dtype=np.float64) for name in ("Z", "X", "R"))
    c = R.shape[0]
    if Z.shape != (n, p) or X.shape != (n, c) or R.shape != (c, c):
        raise ValueError("the arrays of the families do not go together")
    return FamilyNullModel(summary, FamilyTraits(spectrum, Z, X, R))


def columns_of_scan(data: TraitData, related: int) -> int:
    """Columns of n numbers that a scan of traits holds, of whose samples this many have relatives."""
    n, p, c = len(data.Y), int(data.Y.shape[1]), int(data.X.shape[1])
    if not data.has_missing:
        return 2 * p + COLUMNS_OF_COVARIATES * c
    squares = p * (p + 1) // 2 + p + 3 * c
    of_relative = p * p * (c + 2 + 5 * PAIRS_OF_RELATIVE)  # inverse covariances are there in double precision, too
    return int(np.ceil(squares + related / n * of_relative))
