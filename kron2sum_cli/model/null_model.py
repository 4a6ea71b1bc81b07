"""The null model, whatever its data: one interface from the relationship matrix to the tests of variants.

`rotate_samples` decomposes a relationship matrix, `null_likelihood` makes of it and of the traits the likelihood that a
fit maximises, and its maximum becomes a `NullModel`. Callers ask for scores, refits and predictions without knowing
whether all traits are complete (`CompleteNullModel`), some cells are missing (`ObservedNullModel`), or the relationship
matrix falls into families (`families.null_model`). A further kind of data is one more class of each of the two.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Generic, Literal

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.model import fitting
from kron2sum_cli.model.bartlett import Refits, SecondOf
from kron2sum_cli.model.block_scanner import Scanner, block_scanner, diagonal_scanner, precision_for
from kron2sum_cli.model.climbing import Certificate, Optimum, PointT
from kron2sum_cli.model.collinearity import spans_constant
from kron2sum_cli.model.contrasts import Contrasts, orthonormal_design, rotate_coupled, rotate_traits
from kron2sum_cli.model.generalised_least_squares import Metric, least_squares
from kron2sum_cli.model.information import grams_given_effects, uses_observed_information
from kron2sum_cli.model.likelihood import LikelihoodPoint, Point, evaluate
from kron2sum_cli.model.missing import fitting as missing_fitting
from kron2sum_cli.model.missing.information import uses_observed_information as fits_observed_information
from kron2sum_cli.model.missing.likelihood import ObservedPoint
from kron2sum_cli.model.missing.likelihood import evaluate as evaluate_observed
from kron2sum_cli.model.missing.observed import (
    ObservedCells,
    effects_left_out,
    observed_cells,
    observed_spectrum,
    restored_cells,
    without_missing,
)
from kron2sum_cli.model.missing.refit import observed_refits
from kron2sum_cli.model.missing.scanner import observed_scanner, variant_scanner
from kron2sum_cli.model.missing.undetermined import with_independent_traits
from kron2sum_cli.model.prediction import MissingCells, Predictor, complete_predictor, missing_cells, observed_predictor
from kron2sum_cli.model.refit import null_maxima, refitter
from kron2sum_cli.model.satterthwaite import EffectiveContrasts, contrasts_of_columns, effective_contrasts
from kron2sum_cli.model.sets.scanner import CompleteSetScanner, ObservedSetScanner, SetScanner
from kron2sum_cli.model.spectrum import Array, Floats, Mask, Spectrum, spectrum_of_features, spectrum_of_relationship
from kron2sum_cli.model.trait_axes import TraitAxes
from kron2sum_cli.model.uncertainty import Estimates, estimates_of, estimates_of_observed

MISSING_MATRICES = 3
"""Matrices over the missing cells, in double precision, that the likelihood of observed cells holds at once."""

FEWEST_COLUMNS, SIMULATED_COLUMNS, SIMULATED_NUMBERS = 50, 1000, 1 << 21
"""Second columns over which their information is averaged, as many as have so many numbers along all axes."""

CONTRASTS = ("Z", "s", "V", "Yx", "Kxx", "Kxm", "Rx")
"""Arrays of the contrasts that a file keeps."""

FAMILIES = "families/"
"""How the names of the arrays of families that a file keeps begin."""


@dataclass(frozen=True)
class TraitData:
    """What a null model is fitted to, beside the relationship matrix.

    Traits Y (n, p), NaN in missing cells; trait design A (p, a), the identity for effects on every trait of its own;
    covariates X (n, c).
    """

    Y: Array
    A: Array
    X: Array

    @property
    def ncells(self) -> int:
        """Number of missing cells of Y, q."""
        return int(np.count_nonzero(np.isnan(self.Y)))

    @property
    def has_missing(self) -> bool:
        """Whether some cells of Y are missing."""
        return self.ncells > 0

    @property
    def nobserved(self) -> int:
        """Number of observed cells, np - q."""
        return int(self.Y.size) - self.ncells

    @property
    def neffects(self) -> int:
        """Number of fixed effects: ca less those that are left out."""
        return int(self.A.shape[1] * self.X.shape[1] - np.count_nonzero(self.left_out))

    @cached_property
    def left_out(self) -> Mask:
        """Effects (c, a) that the observed cells of a trait do not tell from others: `effects_left_out`."""
        if not self.has_missing:
            return np.zeros((self.X.shape[1], self.A.shape[1]), dtype=np.bool_)
        return effects_left_out(self.Y, self.A, self.X)

    @property
    def reduced(self) -> bool:
        """Whether the trait design has fewer columns than traits: its effects stay in the likelihood."""
        return bool(self.A.shape[1] < self.A.shape[0])

    @property
    def own_covariates(self) -> Array:
        """Covariates that have an effect on every trait of its own."""
        return self.X[:, :0] if self.reduced else self.X

    @property
    def coupled(self) -> bool:
        """Whether the information of a variant has entries between trait axes."""
        return self.reduced or self.has_missing

    @property
    def information(self) -> Literal["observed", "average", "expected"]:
        """The information that standard errors come from."""
        (n, p), neffects = self.Y.shape, self.neffects
        if self.has_missing:
            return "observed" if fits_observed_information(p, n, self.ncells + neffects) else "average"
        return "observed" if uses_observed_information(p, neffects if self.reduced else 0) else "expected"

    def rotation_type(self, asked: type[np.floating]) -> type[np.floating]:
        """The precision in which a scan needs V: double where variants cannot be centred or cells are missing."""
        return np.float64 if self.coupled else asked

    def scanner_bytes(self, nrows: int, itemsize: int) -> int:
        """Memory of a model read for a scan, with ``nrows`` columns of V and numbers of ``itemsize`` bytes."""
        n = len(self.Y)
        rotation = n * nrows * (8 if self.reduced else itemsize)
        if not self.has_missing:
            return rotation
        q, size = self.ncells, self.ncells + self.neffects
        double = 8 * (n * nrows + size**2 + q * n) if itemsize < 8 else 0  # for variants for which single is too little
        return rotation + double + 8 * n * nrows + size**2 * (MISSING_MATRICES * 8 + itemsize) + q * n * (8 + itemsize)


@dataclass(frozen=True)
class FitSummary:
    """What a fit of one relationship matrix says (the whole genome's, or the one without a chromosome).

    ``axes`` are those of the fitted C0 and C1, and ``rank`` is the largest of C0 allowed. ``lml`` is the log-likelihood
    with all constants, ``mean_diagonal`` that of the centred GGᵀ, and ``quadratic`` is ``rᵀK⁻¹r``, from which tests of
    variants measure.
    """

    axes: TraitAxes
    reml: bool
    rank: int
    lml: float
    mean_diagonal: float
    quadratic: float
    certificate: Certificate
    estimates: Estimates

    def at(self, point: LikelihoodPoint) -> "FitSummary":
        """The same at other covariances; the certificate and the estimates stay those of the fit."""
        return replace(self, axes=point.axes, lml=point.lml, quadratic=point.quadratic)


@dataclass(frozen=True)
class NullModel(ABC):
    """A fitted null model with the data that tests of variants need."""

    summary: FitSummary

    @abstractmethod
    def arrays(self) -> dict[str, NDArray[Any]]:
        """The data as a file keeps them, by name."""

    def scalars(self) -> dict[str, int | float | None]:
        """The numbers beside the arrays that a file keeps, by name, and beside those of every fit."""
        return {}

    @property
    @abstractmethod
    def spans_intercept(self) -> bool:
        """Whether a constant lies in the span of covariates that have an effect on every trait of its own."""

    @property
    @abstractmethod
    def coupled(self) -> bool:
        """Whether missing cells or fixed effects couple the trait axes."""

    @cached_property
    @abstractmethod
    def point(self) -> LikelihoodPoint:
        """The likelihood at the fitted covariances, evaluated once: scanner, scores and contrasts come from it."""

    @abstractmethod
    def scanner(self, dtype: type[np.floating]) -> Scanner:
        """Scores and information of blocks of variants, in this precision, or double where that is not enough."""

    @abstractmethod
    def set_scanner(self, dtype: type[np.floating]) -> SetScanner:
        """Scores of sets of variants, rotated in this precision, or in double where axes are coupled."""

    @abstractmethod
    def scores(self) -> Array:
        """``Py`` of the traits in the trait axes, over the samples: (n, p), in double precision.

        The score of a variant g along axis j is ``gᵀ(Py)_j``.
        """

    @abstractmethod
    def project(self, F: Array) -> Array:
        """``P f`` for k data sets F (n, p, k) in the trait axes, over the samples: (n, p, k), in double precision.

        With P as in `conditioning`, the score of a variant g along axis j, were f the traits, is ``gᵀ(Pf)_j``.
        """

    @abstractmethod
    def colour(self, E: Array) -> Array:
        """``K^½e`` for k data sets E (n, p, k) in the trait axes, by the symmetric root along every axis: (n, p, k).

        What lies along covariates that are projected out is 0.
        """

    def simulated_scores(self, E: Array) -> tuple[Floats, Array]:
        """``Py`` (n, p, k) and ``yᵀPy`` (k,) of the traits ``y = K^½e`` of k data sets E (n, p, k) in the axes."""
        traits = self.colour(E)
        scores = self.project(traits)
        return scores, np.einsum("njk,njk->k", traits, scores)

    def effective_contrasts(self) -> EffectiveContrasts:
        """On how many contrasts C0 and C1 rest, in a model by REML; with missing cells a rough number."""
        return effective_contrasts(self.summary.axes, self.point.grams)

    def contrasts_of_second(self, second: SecondOf, nsamples: int) -> EffectiveContrasts:
        """On how many contrasts C0 and C1 rest in tests of second columns given the first, where no axes are coupled.

        From up to `SIMULATED_COLUMNS` variants ``g ~ N(0, GGᵀ)``, always the same ones.
        """
        p = self.summary.axes.c0.size
        number = min(max(SIMULATED_NUMBERS // (nsamples * p), FEWEST_COLUMNS), SIMULATED_COLUMNS)
        G = self.of_relationships(np.random.default_rng(0).normal(size=(nsamples, number)))
        H = second(G)
        H = H - G * (np.sum(G * H, axis=0) / np.sum(G * G, axis=0))
        projected = self.project(np.repeat(H[:, None], p, axis=1))
        return contrasts_of_columns(self.summary.axes, self.point.grams, H, projected)

    def of_relationships(self, E: Array) -> Array:
        """``(GGᵀ)^½e`` of the columns of E (n, b), but for covariates."""
        axes = TraitAxes(np.eye(1), np.eye(1), np.ones(1), np.zeros(1))
        return replace(self, summary=replace(self.summary, axes=axes)).colour(E[:, None])[:, 0]

    def at(self, summary: FitSummary) -> "NullModel":
        """The model of the same data with other estimates; its scanner has memory of its own."""
        return replace(self, summary=summary)

    def estimated_given(self, S: Array) -> tuple["NullModel", EffectiveContrasts]:
        """The model with C0 and C1 as REML estimates them given S, and on how many contrasts they then rest.

        S (n, k), orthonormal and orthogonal to the covariates, has effects on every trait in the likelihood, and not in
        the model. Raises ConvergenceError where no maximum is found; ValueError where axes are coupled, or by ML.
        """
        raise ValueError("C0 and C1 are estimated given variants from complete traits, without a trait design")

    @abstractmethod
    def refits(self) -> Refits:
        """Fits with C0 and C1 free again and a variant in the model.

        Raises ConvergenceError where the model is no maximum of its likelihood; ValueError where the trait design has
        fewer columns than traits.
        """

    @abstractmethod
    def predictor(self) -> Predictor:
        """Predictions of genetic values, and of cells of samples that are not in the fit."""

    def missing_cells(self) -> MissingCells:
        """Predictions of the missing cells of the fit; none of complete traits."""
        position, value = np.empty(0, np.intp), np.empty(0)
        return MissingCells(position, position, value, value)


@dataclass(frozen=True)
class RotatedNullModel(NullModel):
    """A null model whose samples one matrix V rotates, from a dense or thin relationship matrix.

    In the contrasts missing cells are filled in. ``Qx`` (n, c) is an orthonormal basis of the covariates that the
    contrasts leave out; of no columns where they stay in.
    """

    contrasts: Contrasts
    Qx: Array

    def colour(self, E: Array) -> Array:
        """See `NullModel.colour`."""
        return self._weighted(E, np.sqrt(self.summary.axes.variances(self.contrasts.s)), self.summary.axes.c1)

    def _weighted(self, F: Array, inside: Array, outside: Array) -> Array:
        """``V diag(w) Vᵀf`` for F (n, p, k), w ``inside`` (m, p), and ``outside`` (p,) times what V and Qx leave."""
        data, flat = self.contrasts, F.reshape(len(F), -1)
        rows = data.to_rows(flat)
        weighted = (rows.reshape(-1, *F.shape[1:]) * inside[:, :, None]).reshape(rows.shape)
        found = data.to_samples(weighted).reshape(F.shape)
        if data.noutside:
            rest = flat - data.to_samples(rows) - self.Qx @ (self.Qx.T @ flat)
            found += outside[:, None] * rest.reshape(F.shape)
        return found

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The contrasts, Qx, and rotated covariates ``design_X`` where they stay in."""
        data = self.contrasts
        found = {"Qx": self.Qx, **{name: getattr(data, name) for name in CONTRASTS}}
        if data.design is not None:
            found["design_X"] = data.design.given
        return found

    def scalars(self) -> dict[str, int | float | None]:
        """Contrasts outside V, and the constant of REML where covariates stay in."""
        design = self.contrasts.design
        return {"noutside": self.contrasts.noutside, "logdet_MtM": design.logdet_given if design else None}

    def _precision(self, asked: type[np.floating]) -> type[np.floating]:
        return precision_for(self.summary.axes, self.contrasts.s, self.contrasts.noutside > 0, asked)


@dataclass(frozen=True)
class CompleteNullModel(RotatedNullModel):
    """A null model of complete traits, with trait design A (p, a) and covariates X (n, c).

    The first m of the ``rows`` (m + p, n) are ``Vᵀ`` of the contrasts, the others room for a scanner, so that there is
    one copy of V; None where V was not read for a scan.
    """

    A: Array
    X: Array
    rows: Floats | None = None

    @property
    def spans_intercept(self) -> bool:
        """Whether a constant lies in the span of the projected covariates."""
        return spans_constant(self.Qx)

    @cached_property
    def point(self) -> Point:
        """The likelihood at the fitted covariances."""
        return evaluate(self.contrasts, self.summary.axes, self.summary.reml)

    def scanner(self, dtype: type[np.floating]) -> Scanner:
        """See `block_scanner`."""
        return block_scanner(self.point, self.Qx, self._precision(dtype), self.rows)

    def set_scanner(self, dtype: type[np.floating]) -> SetScanner:
        """See `NullModel.set_scanner`."""
        if self.coupled:
            return ObservedSetScanner(observed_scanner(self._observed_point(), np.float64))
        return CompleteSetScanner(diagonal_scanner(self.point, self.Qx, self._precision(dtype), self.rows))

    def scores(self) -> Array:
        """See `NullModel.scores`."""
        point = self.point
        return point.data.to_samples(point.alpha)

    def project(self, F: Array) -> Array:
        """See `NullModel.project`."""
        if self.coupled:
            return observed_scanner(self._observed_point(), np.float64).project(F)
        return self._weighted(F, self.point.W, self.point.outside_weight)

    def simulated_scores(self, E: Array) -> tuple[Floats, Array]:
        """See `NullModel.simulated_scores`: ``V W^½ Vᵀe``, two products in the precision of V."""
        if self.coupled:
            return super().simulated_scores(E)
        data, axes, V = self.contrasts, self.summary.axes, self.contrasts.V
        flat = E.reshape(len(E), -1).astype(V.dtype)
        rows = V.T @ flat
        by_axis = rows.reshape(-1, *E.shape[1:])
        weighted = by_axis / np.sqrt(axes.variances(data.s)).astype(V.dtype)[:, :, None]
        scores = (V @ weighted.reshape(rows.shape)).reshape(E.shape)
        quadratic = np.einsum("mjk,mjk->k", by_axis, by_axis, dtype=np.float64)
        if data.noutside:
            rest = (flat - V @ rows - self.Qx @ (self.Qx.T @ flat)).reshape(E.shape)
            scores = scores + rest / axes.c1[:, None]
            quadratic += np.einsum("njk,njk->k", rest, rest, dtype=np.float64)
        return scores, quadratic

    def refits(self) -> Refits:
        """See `refit.Refitter`."""
        reml, rank = self.summary.reml, self.summary.rank
        data = self.contrasts.without_projected() if reml else self.contrasts
        return refitter(data, null_maxima(data, self.summary.axes, rank), reml)

    def predictor(self) -> Predictor:
        """See `prediction`."""
        if self.coupled:
            return observed_predictor(self._observed_point())
        fitted = least_squares(Metric(self.point, self.Qx), [(self.A, self.X)])
        return complete_predictor(self.point, self.Qx, self.A, self.summary.estimates.B, fitted.covariance)

    @property
    def coupled(self) -> bool:
        """Whether a trait design of fewer columns than traits couples the axes."""
        return self.contrasts.design is not None

    def estimated_given(self, S: Array) -> tuple[NullModel, EffectiveContrasts]:
        """See `NullModel.estimated_given`."""
        if self.coupled or not self.summary.reml:
            return super().estimated_given(S)
        data = self.contrasts.with_effects(S)
        fitted = fitting.climb_near(data, self.summary.axes, self.summary.rank, reml=True)
        if not fitted.certificate.certified:
            fitted = fitting.fit(data, self.summary.rank, reml=True)
        found = fitted.point
        summary = self.summary.at(evaluate(self.contrasts, found.axes, reml=True))
        return self.at(summary), effective_contrasts(found.axes, grams_given_effects(found))

    def at(self, summary: FitSummary) -> NullModel:
        """See `NullModel.at`."""
        return replace(self, summary=summary, rows=None)

    def _observed_point(self) -> ObservedPoint:
        """The same as a likelihood of observed cells, of which none is missing."""
        cells = without_missing(self.contrasts, self.X)
        return evaluate_observed(cells, self.summary.axes, self.summary.reml)


@dataclass(frozen=True)
class ObservedNullModel(RotatedNullModel):
    """A null model of the observed cells of traits of which some are missing."""

    cells: ObservedCells

    def arrays(self) -> dict[str, NDArray[Any]]:
        """As of complete traits, and the prior covariance ``S = τ Rx⁻¹Rx⁻ᵀ`` of the effects where there is one."""
        if self.cells.prior is None:
            return super().arrays()
        inverse = np.linalg.inv(_triangular_factor(self.contrasts))
        return super().arrays() | {"prior": self.cells.prior * inverse @ inverse.T}

    @property
    def spans_intercept(self) -> bool:
        """Whether a constant lies in the span of the covariates, and A is invertible."""
        return not self._reduced and self.cells.Qx.shape[1] > 0 and spans_constant(self.cells.Qx)

    @property
    def coupled(self) -> bool:
        """They are: some cells are missing."""
        return True

    @cached_property
    def point(self) -> ObservedPoint:
        """The likelihood at the fitted covariances."""
        return evaluate_observed(self.cells, self.summary.axes, self.summary.reml)

    def scanner(self, dtype: type[np.floating]) -> Scanner:
        """See `variant_scanner`; in double precision where variants cannot be centred."""
        return variant_scanner(self.point, np.float64 if self._reduced else self._precision(dtype))

    def set_scanner(self, dtype: type[np.floating]) -> SetScanner:
        """See `NullModel.set_scanner`."""
        return ObservedSetScanner(variant_scanner(self.point, np.float64))

    def scores(self) -> Array:
        """See `NullModel.scores`."""
        return self.point.alpha_samples()

    def project(self, F: Array) -> Array:
        """See `missing.scanner.ObservedScanner.project`."""
        return observed_scanner(self.point, np.float64).project(F)

    def refits(self) -> Refits:
        """See `missing.refit.ObservedRefitter`."""
        return observed_refits(self.cells, self.summary.axes, self.summary.rank, self.summary.reml)

    def predictor(self) -> Predictor:
        """See `prediction`."""
        return observed_predictor(self.point)

    def missing_cells(self) -> MissingCells:
        """Predictions of the missing cells of the fit."""
        return missing_cells(self.point)

    @property
    def _reduced(self) -> bool:
        return bool(self.cells.A.shape[1] < self.cells.ntraits)


def _observed_null_model(summary: FitSummary, cells: ObservedCells) -> ObservedNullModel:
    return ObservedNullModel(summary, cells.filled, np.empty((cells.nsamples, 0)), cells)


def _triangular_factor(contrasts: Contrasts) -> Array:
    """Rx (c, c) of the covariates that stay in."""
    assert contrasts.design is not None
    assert contrasts.design.Rx is not None
    return contrasts.design.Rx


def restored_null_model(
    summary: FitSummary,
    contrasts: Contrasts,
    Qx: Array,
    data: TraitData,
    prior: Array | None = None,
    rows: Floats | None = None,
) -> NullModel:
    """A null model from what was kept of it.

    ``prior`` (c, c) is as `ObservedNullModel.arrays` returns it, and ``rows`` are those of `CompleteNullModel` where V
    was read for a scan.
    """
    if data.has_missing:
        # The last row of Rx⁻¹ has one entry.
        tau = None if prior is None else float(prior[-1, -1] * _triangular_factor(contrasts)[-1, -1] ** 2)
        return _observed_null_model(summary, restored_cells(contrasts, data.Y, data.X, data.left_out, tau))
    return CompleteNullModel(summary, contrasts, Qx, data.A, data.X, rows)


@dataclass(frozen=True)
class RotatedSamples:
    """A relationship matrix decomposed, given the covariates that are projected out, for the likelihood of some traits.

    ``prior`` is the prior variance of the effects of a basis of X (`observed_spectrum`), where there is one.
    """

    spectrum: Spectrum
    prior: float | None


def rotate_samples(relationship: Array, features: bool, data: TraitData, reml: bool) -> RotatedSamples:
    """Decompose a relationship matrix, GGᵀ (n, n) or, where ``features``, G (n, r); it is destroyed."""
    if data.has_missing:
        # A prior of fixed effects would be seen by the missing cells of traits of which some are left out.
        with_prior = reml and not data.reduced and not data.left_out.any()
        return RotatedSamples(*observed_spectrum(relationship, data.X, features, with_prior))
    X = data.X[:, :0] if data.reduced else data.X
    if features:
        return RotatedSamples(spectrum_of_features(relationship, X), None)
    return RotatedSamples(spectrum_of_relationship(relationship, X, overwrite=True), None)


@dataclass(frozen=True)
class NullLikelihood(ABC, Generic[PointT]):
    """The likelihood of C0 and C1 for some traits and one relationship matrix.

    ``mean_diagonal`` is that of the centred GGᵀ.
    """

    data: TraitData
    reml: bool
    mean_diagonal: float

    @property
    def largest_rank(self) -> int:
        """Largest rank of C0 that can be fitted: the number of traits, or 0 where no two samples are related."""
        return int(self.data.Y.shape[1])

    @property
    @abstractmethod
    def largest_matrix(self) -> int:
        """Order of the largest matrix that is factorised at every point; threads of BLAS pay where that is large."""

    @abstractmethod
    def fits(self, ranks: Sequence[int]) -> list[Optimum[PointT]]:
        """The maxima with C0 of at most each of these ranks, of which one is to be chosen: see `fitting.nested_fits`.

        Raises ConvergenceError where none of the largest rank could be certified; its result is the best point found.
        """

    def fit(self, rank: int) -> Optimum[PointT]:
        """The maximum with C0 of at most this rank; raises as `fits` does."""
        return self.fits([rank])[0]

    @abstractmethod
    def fit_near(self, start: TraitAxes, rank: int) -> Optimum[PointT]:
        """The maximum with C0 of at most this rank, from that of similar data; its certificate may fail."""

    @abstractmethod
    def null_model(self, optimum: Optimum[PointT]) -> NullModel:
        """The null model of an optimum."""

    def _summary(self, optimum: Optimum[Any], estimates: Estimates) -> FitSummary:
        point = optimum.point
        return FitSummary(
            axes=point.axes,
            reml=self.reml,
            rank=optimum.rank,
            lml=point.lml,
            mean_diagonal=self.mean_diagonal,
            quadratic=point.quadratic,
            certificate=optimum.certificate,
            estimates=estimates,
        )


@dataclass(frozen=True)
class CompleteTraits(NullLikelihood[Point]):
    """The likelihood of complete traits; ``Qx`` (n, c) is an orthonormal basis of the projected covariates."""

    contrasts: Contrasts
    Qx: Array

    @property
    def largest_matrix(self) -> int:
        """That of the traits, or of coupled fixed effects."""
        return max(len(self.data.A), self.data.neffects if self.data.reduced else 0)

    def fits(self, ranks: Sequence[int]) -> list[Optimum[Point]]:
        """See `fitting.fits`."""
        return fitting.fits(self.contrasts, ranks, self.reml)

    def fit_near(self, start: TraitAxes, rank: int) -> Optimum[Point]:
        """See `fitting.climb_near`."""
        return fitting.climb_near(self.contrasts, start, rank, self.reml)

    def null_model(self, optimum: Optimum[Point]) -> NullModel:
        """The null model of an optimum."""
        A, X = self.data.A, self.data.X
        estimates = estimates_of(optimum.point, self.Qx, optimum.rank, self.mean_diagonal, A, X)
        return CompleteNullModel(self._summary(optimum, estimates), self.contrasts, self.Qx, A, X)


@dataclass(frozen=True)
class ObservedTraits(NullLikelihood[ObservedPoint]):
    """The likelihood of the observed cells of traits of which some are missing."""

    cells: ObservedCells

    @property
    def largest_matrix(self) -> int:
        """That of the missing cells and fixed effects, q + ca."""
        return self.data.ncells + self.data.neffects

    def fits(self, ranks: Sequence[int]) -> list[Optimum[ObservedPoint]]:
        """See `missing.fitting.fits`."""
        return missing_fitting.fits(self.cells, ranks, self.reml)

    def fit_near(self, start: TraitAxes, rank: int) -> Optimum[ObservedPoint]:
        """See `missing.fitting.climb_near`."""
        return missing_fitting.climb_near(self.cells, start, rank, self.reml)

    def null_model(self, optimum: Optimum[ObservedPoint]) -> NullModel:
        """The null model of an optimum; undetermined residual covariances are as of independent traits."""
        optimum = with_independent_traits(optimum)
        estimates = estimates_of_observed(optimum.point, optimum.rank, self.mean_diagonal, self.data.A)
        return _observed_null_model(self._summary(optimum, estimates), self.cells)


def null_likelihood(rotated: RotatedSamples, data: TraitData, reml: bool) -> NullLikelihood[Any]:
    """The likelihood of traits, with the samples rotated for them by `rotate_samples`.

    Raises NumericalError where a trait has no observed cell.
    """
    spectrum, Y, A, X = rotated.spectrum, data.Y, orthonormal_design(data.A), data.X
    if data.has_missing:
        cells = observed_cells(spectrum, Y, A, X, rotated.prior)
        return ObservedTraits(data, reml, spectrum.mean_diagonal, cells)
    contrasts = rotate_coupled(spectrum, Y, A, X) if data.reduced else rotate_traits(spectrum, Y)
    return CompleteTraits(data, reml, spectrum.mean_diagonal, contrasts, spectrum.Qx)
