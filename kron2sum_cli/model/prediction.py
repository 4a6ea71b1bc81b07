"""Best linear unbiased predictions of genetic values and of cells, with the variance of their errors.

The genetic values of a sample t have the covariance ``C0 ⊗ k_t`` with the cells of the fit, ``k_t`` (n,) its
relatedness to their samples. Along the trait axes the prediction is ``c0_j² k_tᵀα_j``, and the covariance of its
error ``diag(c0²) k_tt - diag(c0²) V(k_t) diag(c0²)``: score and information of a "variant" ``k_t``, so the scanners of
variants, for complete traits and for observed cells alike, compute predictions. That the fixed effects are estimated
is in the variances.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kron2sum_cli.model.block_scanner import BlockStatistics, block_scanner
from kron2sum_cli.model.likelihood import Point
from kron2sum_cli.model.missing.likelihood import ObservedPoint
from kron2sum_cli.model.missing.scanner import observed_scanner
from kron2sum_cli.model.missing.undetermined import uses_undetermined
from kron2sum_cli.model.spectrum import Array, Indices
from kron2sum_cli.model.trait_axes import TraitAxes


@dataclass(frozen=True)
class Prediction:
    """Conditional means (t, p) given the observed cells, and the variances of their errors."""

    mean: Array
    variance: Array


@dataclass(frozen=True)
class EffectsOfCovariates:
    """Fixed effects of the null model, as predictions of cells need them.

    A (p, a) is the trait design, B (c, a) are the estimates, and ``covariance`` (ca, ca) is that of vec(B).
    ``explained`` (t, p, ca) is ``H⁻¹MᵀK⁻¹k_t``, what vec(B) becomes where the traits along each axis are ``k_t``.
    """

    A: Array
    B: Array
    covariance: Array
    explained: Array


@dataclass(frozen=True)
class Predictor:
    """Predictions for samples from their relatedness K (n, t) to those of the fit.

    ``statistics`` gives score and information of K, taken for variants, in double precision, and ``effects`` the fixed
    effects for samples with such relatedness.
    """

    axes: TraitAxes
    statistics: Callable[[Array], BlockStatistics]
    effects: Callable[[Array], EffectsOfCovariates]

    def genetic_values(self, K: Array, relatedness: Array) -> Prediction:
        """Genetic values of t samples, in the fit or not; ``relatedness`` (t,) is that of every sample with itself."""
        axes, statistics, weights = self.axes, self.statistics(K), self.axes.c0**2
        mean = (statistics.u * weights) @ axes.Tinv.T
        own = np.multiply.outer(relatedness, weights)
        if statistics.v.ndim == 2:
            variance = (own - statistics.v * weights**2) @ (axes.Tinv**2).T
        else:
            loadings = axes.Tinv * weights
            variance = own @ (axes.Tinv**2).T
            variance = variance - np.einsum("aj,tjl,al->ta", loadings, statistics.v, loadings, optimize=True)
        return Prediction(mean, np.maximum(variance, 0.0))

    def new_cells(self, genetic: Prediction, K: Array, X: Array) -> Prediction:
        """Cells of samples that are not in the fit, from their genetic values and covariates X (t, c).

        ``var = var(genetic) + C1_aa + mᵀ cov(B) m - 2 mᵀ H⁻¹MᵀK⁻¹k``, m the sample's row of ``A ⊗ X`` for trait a.
        """
        axes, effects = self.axes, self.effects(K)
        mean = X @ effects.B @ effects.A.T + genetic.mean
        variance = genetic.variance + np.diag(axes.C1)
        loadings = axes.Tinv * axes.c0**2
        for j, of_trait in enumerate(effects.A):
            m = np.einsum("k,tc->tkc", of_trait, X).reshape(len(X), -1)
            moved = np.einsum("l,tlx->tx", loadings[j], effects.explained)
            variance[:, j] += np.sum(m * (m @ effects.covariance - 2 * moved), axis=1)
        return Prediction(mean, variance)


@dataclass(frozen=True)
class MissingCells:
    """Predictions of the q missing cells of a fit, given all observed cells, those of the same sample among them.

    The cells are those of samples ``rows`` and ``traits``; ``mean`` and ``variance`` are of the conditional
    distribution.
    """

    rows: Indices
    traits: Indices
    mean: Array
    variance: Array


def missing_cells(point: ObservedPoint) -> MissingCells:
    """Predictions of the missing cells of a fit of observed cells.

    Those that depend on an undetermined residual covariance have no variance (NaN).
    """
    data = point.data
    variance = np.where(uses_undetermined(data.observed(), data.rows, data.traits), np.nan, point.completed_variance)
    return MissingCells(point.data.rows, point.data.traits, point.completed, variance)


def observed_predictor(point: ObservedPoint) -> Predictor:
    """The predictor of a fit of observed cells."""
    scanner, data, q = observed_scanner(point, np.float64), point.data, point.data.ncells
    L = point.chol[q:, q:]

    def effects(K: Array) -> EffectsOfCovariates:
        tail = scanner.explained(K, scanner.rotate(K))[:, :, q:]
        b, p, size = tail.shape
        on_basis = np.linalg.solve(L.T, tail.reshape(b * p, size).T).T
        explained = np.einsum("kij,bpkj->bpki", data.to_X, on_basis.reshape(b, p, *data.to_X.shape[:2]))
        explained = np.asarray(explained.reshape(b, p, size), dtype=np.float64)
        return EffectsOfCovariates(data.A, point.B, point.B_covariance, explained)

    return Predictor(point.axes, scanner.statistics, effects)


def complete_predictor(point: Point, Qx: Array, A: Array, B: Array, covariance: Array) -> Predictor:
    """The predictor of a fit of complete traits with projected covariates, of basis Qx (n, c).

    A (p, a) is the trait design, B (c, a) are the estimates, and ``covariance`` (ca, ca) is that of vec(B).
    """
    data, axes = point.data, point.axes

    def effects(K: Array) -> EffectsOfCovariates:
        predicted = np.einsum("ci,ij,it->jct", data.Kxm, point.W, data.V.T @ K, optimize=True)
        on_axes = np.linalg.solve(data.Rx, Qx.T @ K - axes.c0[:, None, None] ** 2 * predicted)
        to_traits = np.linalg.solve(A, axes.Tinv).T
        explained = np.einsum("jk,jct->tjkc", to_traits, on_axes, optimize=True)
        return EffectsOfCovariates(A, B, covariance, explained.reshape(K.shape[1], axes.c0.size, -1))

    return Predictor(axes, block_scanner(point, Qx, np.float64).statistics, effects)
