"""Refits on the observed cells: C0 and C1 free again with a variant in the model.

Under a null model by REML their likelihood is that of the contrasts of the covariates over the observed cells, with the
variant as its only fixed effect (`missing.likelihood`). Each refit is a search of the size of the null model's.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Generic, Protocol

import numpy as np

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model import climbing
from kron2sum_cli.model.bartlett import Refit, SecondOf, Simulated
from kron2sum_cli.model.block_scanner import Scanner
from kron2sum_cli.model.climbing import Likelihood, Optimum, PointT
from kron2sum_cli.model.contrasts import Contrasts, rotate_coupled
from kron2sum_cli.model.control_variates import Along, Projection, Truth
from kron2sum_cli.model.families.spectrum import FamilyRotation
from kron2sum_cli.model.fitting import distinct_maxima, even_starts, of_rank_or_full
from kron2sum_cli.model.missing.fitting import (
    MAX_STEPS,
    ObservedLikelihood,
    best_beside,
    climb,
    has_few_common_samples,
    is_searched_thoroughly,
    places_beside,
)
from kron2sum_cli.model.missing.likelihood import ObservedPoint
from kron2sum_cli.model.missing.observed import ObservedCells, PartlyObserved, restored_cells, with_added
from kron2sum_cli.model.missing.scanner import observed_scanner
from kron2sum_cli.model.refit import STRONG_EFFECT
from kron2sum_cli.model.spectrum import Array, Floats, Spectrum
from kron2sum_cli.model.trait_axes import TraitAxes

SIMULATED_VARIANTS = 4
"""Variants of each trait that is simulated for a Bartlett factor: fewer than of complete traits (`model.refit`),
for each of these refits is a search of its own."""

PRECISE = 1e-12
"""A refit ends when no step is predicted to raise the log-likelihood by more than this: its effects are then within
10⁻⁶ of their standard errors of those at the maximum."""

OF_SIMULATED, ROUGH = 1e-6, 1e-4
"""The same for a refit of simulated traits, of which the likelihood alone counts, and for a climb that leads no higher
than a maximum already found."""


class Climb(Protocol[PointT]):
    """A climb of a likelihood with C0 of at most a rank."""

    def __call__(self, start: TraitAxes, *, tolerance: float = ...) -> Optimum[PointT]:
        """Where it ends from this start: see `climbing.climb`."""


@dataclass(frozen=True)
class RefitsOneByOne(ABC, Generic[PointT]):
    """Refits under one null model, each a search of its own; see `bartlett.Refits`.

    ``maxima`` are those of the likelihood without a variant, the highest first. ``few_cells`` are the cells where there
    are so few that refits are searched from afar, too, and where some two traits have few samples in common from beside
    their maxima; None elsewhere. Refits end when no step is predicted to raise the log-likelihood by the ``tolerance``.
    """

    maxima: tuple[Optimum[PointT], ...]
    few_cells: PartlyObserved | None = None
    tolerance: float = PRECISE

    @property
    def null(self) -> Optimum[PointT]:
        """The maximum without a variant."""
        return self.maxima[0]

    @property
    def null_lml(self) -> float:
        """The largest log-likelihood without a variant."""
        return self.null.point.lml

    @property
    def reml(self) -> bool:
        """Whether it is that of the contrasts of the covariates."""
        return self.null.point.reml

    @property
    def starts(self) -> list[TraitAxes]:
        """Where climbs start from."""
        return [one.point.axes for one in self.maxima]

    @cached_property
    def beside(self) -> PartlyObserved | None:
        """The cells if refits are searched from beside their maxima."""
        cells = self.few_cells
        return cells if cells and has_few_common_samples(cells) else None

    @abstractmethod
    def columns(self, G: Floats) -> Array:
        """Columns of genotypes G (n, b) as the likelihood takes them."""

    def highest(self, likelihood: Likelihood[PointT], neffects: int) -> Optimum[PointT] | None:
        """The highest maximum of the likelihood with a variant of so many effects; None where no climb ends at one.

        With few cells a variant that adds much can make another maximum the highest. There is hardly more than one
        without genetic variance, and a climb from there is another one than from the null model.
        """
        climb = partial(climbing.climb, likelihood, max_steps=MAX_STEPS, tolerance=self.tolerance)
        climb_from = partial(climb, rank=self.null.rank)
        best = _highest(self.starts, climb_from)
        if best is None or self.few_cells is None:
            return best
        if self.null.rank > 0 and best.point.lml > self.null_lml + STRONG_EFFECT * neffects:
            best = _highest(_without_genetic_variance(climb, best.point.axes), climb_from, best) or best
        return best_beside(best, self.beside, partial(_climb_above, climb_from, best)) if self.beside else best

    @property
    @abstractmethod
    def rotated(self) -> tuple[Array, Contrasts | FamilyRotation]:
        """Eigenvalues of GGᵀ (m,), and the rotation of the samples to these rows."""

    @abstractmethod
    def scanner(self, point: PointT) -> tuple[Scanner, Projection]:
        """Score and information of variants at a point, in double precision, and P over the rows of `columns`."""

    @abstractmethod
    def simulated_climb(self, truth: TraitAxes, rng: np.random.Generator) -> Callable[[int], Optimum[PointT]]:
        """Climbs of C0 of a rank, for traits simulated with the covariances of these axes, from there."""

    def simulated(self, truth: TraitAxes, rng: np.random.Generator, second: SecondOf | None = None) -> Simulated:
        """See `bartlett.Refits`."""
        null = of_rank_or_full(self.null.rank, truth.c0.size, self.simulated_climb(truth, rng))
        refits = type(self)((null,), tolerance=OF_SIMULATED)
        s, rotation = refits.rotated  # of the simulated traits: V has what they have outside it
        rows = np.sqrt(s)[:, None] * rng.normal(size=(s.size, SIMULATED_VARIANTS))
        G, point = rotation.to_samples(rows), refits.null.point.at(truth)
        known, columns = Truth.at(point), refits.columns(G)
        scanner, over = self.scanner(point)
        of_variants = over.known(known, Along.of_variants(scanner.statistics(G), truth.T), columns[:, :, None])
        found = Simulated(refits.null_lml, lambda design: refits.refit(columns, design), of_variants)
        if second is None:
            return found
        H = second(G)
        along = Along.of_pairs(scanner.pair_statistics(G, H), truth.T)
        both = over.known(known, along, np.stack([columns, refits.columns(H)], axis=2))
        return found.with_pairs(both, lambda: refits.of_pairs(G, H, G[:, :0]))

    @abstractmethod
    def fitted(self, columns: Array, design: Array) -> tuple[float, Array, Array] | None:
        """Refit one variant of columns (n, k) with effects in the span of a design (p, e); None where that fails.

        Log-likelihood, and effects (p,) of the last column on the traits with their standard errors (p,).
        """

    def of_variants(self, G: Floats, outside: Array) -> Callable[[Array], Refit]:
        """Refits of variants G (n, b) with effects in the span of a design (p, e); ``outside`` has no part in it."""
        columns = self.columns(G)
        return lambda design: self.refit(columns, design)

    def of_pairs(self, G: Floats, H: Floats, Q: Floats) -> Refit:
        """See `bartlett.Refits`; Q has no part in it."""
        return self.refit(np.stack([self.columns(G), self.columns(H)], axis=2), np.eye(self.null.point.axes.c0.size))

    def refit(self, columns: Array, design: Array) -> Refit:
        """Refits of b variants with effects in the span of a design (p, e) of full column rank, by `fitted`.

        ``columns`` (n, b) or (n, b, k) are what `columns` gave, one a variant or k. NaN for a variant whose refit did
        not converge, or that the covariates explain.
        """
        b, p = columns.shape[1], design.shape[0]
        found = Refit(np.full(b, np.nan), np.full((b, p), np.nan), np.full((b, p), np.nan))
        for k in range(b):
            one = self.fitted(columns[:, k].reshape(len(columns), -1), design)
            if one is not None:
                found.lml[k], found.beta[k], found.se[k] = one
        return found


@dataclass(frozen=True)
class ObservedRefitter(RefitsOneByOne[ObservedPoint]):
    """Refits of observed cells under one null model."""

    def columns(self, G: Floats) -> Array:
        """The columns themselves."""
        return G.astype(np.float64)

    def fitted(self, columns: Array, design: Array) -> tuple[float, Array, Array] | None:
        """See `RefitsOneByOne.fitted`."""
        basis = self.null.point.axes.well_conditioned(design)
        alternative = with_added(self.null.point.data, basis, columns)
        best = self.highest(ObservedLikelihood(alternative, self.reml), basis.shape[1] * columns.shape[1])
        if best is None:
            return None
        last = slice(-basis.shape[1] * columns.shape[1] + columns.shape[1] - 1, None, columns.shape[1])
        variances = np.einsum("te,ef,tf->t", basis, best.point.B_covariance[last, last], basis)
        return best.point.lml, basis @ best.point.theta[last], np.sqrt(variances)

    @property
    def rotated(self) -> tuple[Array, Contrasts]:
        """See `RefitsOneByOne.rotated`."""
        filled = self.null.point.data.filled
        return filled.s, filled

    def scanner(self, point: ObservedPoint) -> tuple[Scanner, Projection]:
        """See `RefitsOneByOne.scanner`."""
        filled, found = point.data.filled, observed_scanner(point, np.float64)

        def related(F: Array) -> Array:
            return filled.to_samples(filled.s[:, None] * filled.to_rows(F))

        return found, Projection(found.project, related, point.alpha_samples())

    def simulated_climb(self, truth: TraitAxes, rng: np.random.Generator) -> Callable[[int], Optimum[ObservedPoint]]:
        """See `RefitsOneByOne.simulated_climb`."""
        cells = _simulated_cells(self.null.point.data, truth, rng)
        return lambda rank: climb(cells, truth, rank, self.reml)


def _simulated_cells(cells: ObservedCells, axes: TraitAxes, rng: np.random.Generator) -> ObservedCells:
    """The same cells with traits from the model of these axes without fixed effects."""
    filled, p = cells.filled, cells.ntraits
    Y = filled.V @ (np.sqrt(axes.variances(filled.s)) * rng.normal(size=(filled.s.size, p)))
    if filled.noutside:
        noise = axes.c1 * rng.normal(size=(cells.nsamples, p))
        Y += noise - filled.V @ (filled.V.T @ noise)
    Y = Y @ axes.Tinv.T
    Y[cells.rows, cells.traits] = np.nan
    none = np.empty((cells.nsamples, 0))
    spectrum = Spectrum(
        V=np.asarray(filled.V), s=filled.s, Qx=none, Rx=none[:0], Kxx=none[:0], Kxv=filled.Kxm, mean_diagonal=0.0,
    )  # fmt: skip
    Y_filled = np.where(np.isnan(Y), np.nanmean(Y, axis=0), Y)
    filled = rotate_coupled(spectrum, Y_filled, cells.A, cells.X)
    return restored_cells(filled, Y, cells.X, cells.left_out, cells.prior)


def _highest(
    starts: Sequence[TraitAxes], climb_from: Climb[PointT], best: Optimum[PointT] | None = None
) -> Optimum[PointT] | None:
    """The highest of a maximum, where there is one, and of those that climbs from these starts end at."""
    for start in starts:
        try:
            found = _climb_above(climb_from, best, start)
        except (NumericalError, np.linalg.LinAlgError):
            continue
        if found.certificate.certified and (best is None or found.point.lml > best.point.lml):
            best = found
    return best


def _without_genetic_variance(climb: Callable[..., Optimum[PointT]], start: TraitAxes) -> list[TraitAxes]:
    """The maximum with C0 = 0, as a start; none where no climb gets there."""
    try:
        return [climb(start, rank=0, tolerance=ROUGH).point.axes]
    except (NumericalError, np.linalg.LinAlgError):
        return []


def _climb_above(climb_from: Climb[PointT], best: Optimum[PointT] | None, start: TraitAxes) -> Optimum[PointT]:
    """Where a climb ends; a rough end where it leads no higher than the best maximum so far."""
    if best is None:
        return climb_from(start)
    rough = climb_from(start, tolerance=ROUGH)
    return climb_from(rough.point.axes) if rough.point.lml > best.point.lml else rough


def observed_refits(data: ObservedCells, fitted: TraitAxes, rank: int, reml: bool) -> ObservedRefitter:
    """Refits from local maxima of the likelihood without a variant.

    Where there are so few cells that there can be several maxima, climbs start from several places, beside the fit
    among them; else from the fit alone. Raises ConvergenceError where no search ended at a maximum.
    """
    starts, few_cells = [fitted], is_searched_thoroughly(data)
    if few_cells:
        starts += even_starts(data.filled) + places_beside(data, fitted, rank)
    maxima = distinct_maxima(starts, partial(climb, data, rank=rank, reml=reml))
    return ObservedRefitter(tuple(maxima), data if few_cells else None)
