"""Tests of a set of variants as random effects: SKAT, burden, and combinations by Cauchy's distribution.

The effects B (s, p) of the s variants of a set on the traits are random, ``vec(B) ~ N(0, σ² Σ ⊗ W)``: Σ (p, p) is the
kernel of the traits, W (s, s) holds the squared weights of the variants. The score statistic of ``σ² = 0`` is
``Q = ‖W^½ U F‖²`` with the scores U (s, p) along the trait axes, ``U_j = SᵀP_jy_j``, and F a root of the kernel there,
``FFᵀ = TΣTᵀ`` (Wu et al. 2011, AJHG 89:82; for several traits Dutta et al. 2019, Genetic Epidemiology 43:4).

Kernels of the traits:

- any effect: ``Σ = g C0 + C1``, g the mean diagonal of GGᵀ: the covariance of the traits (the kernel "PhC" of
  MultiSKAT). Along the axes it is diagonal, and no invertible mixture of the traits changes the test.
- common: ``Σ = 11ᵀ``, the same effect of a variant on every trait ("Hom").
- any other hypothesis "effects in the span of A1 given effects in the span of A0" (one trait given the others, say):
  the scores of A1 less their regression on those of A0, whose effects are fixed and free. Where relatedness does not
  matter, that of one trait given the others is SKAT of that trait alone. Directions are orthonormal along the axes.
"""

from dataclasses import dataclass

import numpy as np
from scipy import linalg, special

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.generalised_least_squares import telling_columns
from kron2sum_cli.model.hypotheses import Hypothesis, orthonormal
from kron2sum_cli.model.sets.fixed_effects import SetScores, between_directions
from kron2sum_cli.model.sets.quadratic_forms import NO_VARIANCE, ROUNDING, mixture_mlog10p, positive_weights
from kron2sum_cli.model.spectrum import Array, Indices
from kron2sum_cli.model.tail_probability import LN10
from kron2sum_cli.model.trait_axes import TraitAxes


@dataclass(frozen=True)
class KernelScores:
    """Weighted scores ``W^½ U F`` (e, s) of a set of s variants along e directions of the traits, and their covariance.

    ``A`` is one matrix a direction (e, s, s) where the scores of different directions are independent, else one a pair
    of directions (e, e, s, s).
    """

    z: Array
    A: Array

    @property
    def independent(self) -> bool:
        """Whether the scores of different directions are independent."""
        return self.A.ndim == 3

    @property
    def blocks(self) -> Array:
        """Covariance matrices of independent groups of scores: (e, s, s), or (1, e s, e s)."""
        if self.independent:
            return self.A
        e, s = self.z.shape
        return self.A.transpose(0, 2, 1, 3).reshape(1, e * s, e * s)


def any_effect_kernel(axes: TraitAxes, mean_diagonal: float) -> Array:
    """A root F (p, p) of ``T(g C0 + C1)Tᵀ``, diagonal; ``mean_diagonal`` is g."""
    return np.asarray(np.diag(np.sqrt(mean_diagonal * axes.c0**2 + axes.c1**2)))


def beta_weights(eaf: Array, a: float, b: float) -> Array:
    """Weights (s,) of variants: the density of Beta(a, b) at their minor allele frequency.

    Beta(1, 1) gives every variant weight 1, Beta(1, 25) rare variants up to 25 times that of common ones.
    """
    maf = np.minimum(eaf, 1 - eaf)
    density = special.xlogy(a - 1, maf) + special.xlog1py(b - 1, -maf) - special.betaln(a, b)
    return np.asarray(np.exp(density))


def weighted_scores(scores: SetScores, F: Array, weights: Array) -> Array:
    """``W^½ U F`` (e, s) for a root F (p, e) of the kernel of the traits along the axes and weights (s,)."""
    return np.asarray((scores.u @ F).T * weights)


def kernel_scores(scores: SetScores, F: Array, weights: Array) -> KernelScores:
    """Scores of a set for one kernel of the traits, of which ``F`` (p, e) is a root along the axes.

    Raises NumericalError where rounding is all their variance.
    """
    if scores.V.ndim == 4:
        A = np.einsum("je,lf,jlab->efab", F, F, scores.V, optimize=True)
        A = A[0] if F.shape[1] == 1 else A
    elif np.all(np.count_nonzero(F, axis=1) <= 1):
        A = np.tensordot(F.T**2, scores.V, axes=1)
    else:
        A = np.einsum("je,jf,jab->efab", F, F, scores.V, optimize=True)
    kernel = KernelScores(weighted_scores(scores, F, weights), A * (weights[:, None] * weights))
    return _with_variance(kernel, scores, F, weights)


def _with_variance(kernel: KernelScores, scores: SetScores, F: Array, weights: Array) -> KernelScores:
    """Scores along directions F (p, e); raises NumericalError where rounding is all their variance."""
    terms = np.max((F**2).T @ scores.sizes * weights**2, initial=0.0)
    if not np.max(np.einsum("kaa->ka", kernel.blocks), initial=0.0) > ROUNDING * terms:
        raise NumericalError(NO_VARIANCE)
    return kernel


@dataclass(frozen=True)
class Directions:
    """Scores of a set along e1 directions of the traits, less their regression on others.

    ``F`` (p, e) are the directions, first those that are regressed on; ``kept`` (k,) are the scores along these that
    are independent, ``slopes`` (k, e1 s) those of the regression, and ``covariance`` (e1 s, e1 s) that of what is left;
    None where there is nothing to regress on.
    """

    F: Array
    kept: Indices
    slopes: Array
    covariance: Array | None

    def scores(self, scores: SetScores, weights: Array) -> KernelScores:
        """Scores of the set times weights (s,).

        Raises NumericalError where rounding is all the variance of what is left.
        """
        if self.covariance is None:
            return kernel_scores(scores, self.F, weights)
        s = len(weights)
        e1 = len(self.covariance) // s
        A = self.covariance.reshape(e1, s, e1, s).transpose(0, 2, 1, 3) * (weights[:, None] * weights)
        kernel = KernelScores(self.of(scores.u[:, :, None])[:, :, 0] * weights, A[0] if e1 == 1 else A)
        return _with_variance(kernel, scores, self.F[:, -e1:], weights)

    def of(self, u: Array) -> Array:
        """Scores (e1, s, B) from those (s, p, B) along the axes of B data sets."""
        s, _, number = u.shape
        z = np.einsum("je,ajk->eak", self.F, u).reshape(-1, number)
        left = z[len(z) - self.slopes.shape[1] :] - self.slopes.T @ z[self.kept]
        return np.asarray(left.reshape(-1, s, number))


def directions_of(scores: SetScores, tested: Hypothesis, axes: TraitAxes, mean_diagonal: float) -> Directions:
    """The directions of the kernel of a hypothesis.

    Of effects in the span of A1 given effects in the span of A0 they are those of A1, regressed on those of A0: with
    the scores z0 and z1 of the two and their covariances, ``z1 - C10 C00⁻¹ z0``, of covariance ``C11 - C10 C00⁻¹ C01``.
    Effects of A0 that are linear combinations of others count once.
    """
    if tested.base.shape[1]:
        return _given_base(scores, tested, axes.T)
    any_effect = tested.is_any_effect
    F = any_effect_kernel(axes, mean_diagonal) if any_effect else orthonormal(axes.T @ tested.full)
    return Directions(F, np.zeros(0, dtype=np.intp), np.zeros((0, F.shape[1] * scores.u.shape[0])), None)


def _given_base(scores: SetScores, tested: Hypothesis, T: Array) -> Directions:
    """Directions of effects in the span of A1, less their regression on those of A0."""
    e0 = tested.base.shape[1]
    F = _basis_beyond(T @ tested.base, T @ tested.full)
    s, e1 = scores.u.shape[0], F.shape[1] - e0
    C = between_directions(F, scores.V)
    first = e0 * s
    kept = telling_columns(C[:first, :first], ((F[:, :e0] ** 2).T @ scores.sizes).reshape(-1), 1e-8)
    slopes, C11 = np.zeros((0, e1 * s)), C[first:, first:]
    if kept.size:
        slopes = linalg.solve(C[np.ix_(kept, kept)], C[kept, first:], assume_a="pos")
        C11 = C11 - C[first:, kept] @ slopes
    return Directions(F, kept, slopes, C11)


def _basis_beyond(base: Array, full: Array) -> Array:
    """Orthonormal columns (p, e) with the span of ``full``, of which the first have that of ``base``."""
    first = orthonormal(base)
    rest = full - first @ (first.T @ full)
    vectors = np.linalg.svd(rest, full_matrices=False)[0]
    return np.hstack([first, vectors[:, : full.shape[1] - base.shape[1]]])


def skat(kernel: KernelScores) -> float:
    """-log10 P of a variance component: ``Q = ‖z‖²`` against ``Σ λ_i χ²₁``, λ the eigenvalues of the covariance of z.

    Raises NumericalError where the scores have no variance.
    """
    q = np.sum(np.sum(kernel.z**2, axis=0), keepdims=True)
    return float(mixture_mlog10p(null_weights(kernel.blocks), q)[0])


def null_weights(blocks: Array) -> Array:
    """All eigenvalues of covariance matrices (k, m, m) as one row (1, k m)."""
    return positive_weights(np.asarray(np.linalg.eigvalsh(blocks), np.float64).reshape(1, -1))


def information_of_variants(scores: SetScores) -> Array:
    """Information of every variant of a set by itself: (s, p), or (s, p, p) where the axes are coupled."""
    if scores.V.ndim == 3:
        return np.asarray(np.einsum("jaa->aj", scores.V))
    return np.asarray(np.einsum("jlaa->ajl", scores.V))


def acat_weights(weights: Array, eaf: Array) -> Array:
    """Weights (s,) of the variants' P values: ``w² f (1 - f)``, which makes ACAT and SKAT weigh alike.

    Liu et al. 2019 (AJHG 104:410); their pooling of the rarest variants is not done here, because scores of a linear
    model with normal residuals have the normal distribution however rare the variant.
    """
    return np.asarray(weights**2 * eaf * (1 - eaf))


def cauchy_mlog10p(mlog10p: Array, weights: Array | None = None) -> float:
    """-log10 P of the Cauchy combination of P values, however dependent they are.

    ``T = Σ_i ω_i cot(π P_i)`` with weights that sum to 1, ``P = arccot(T)/π`` (Liu and Xie 2020, JASA 115:393), on the
    logarithmic scale, so that P may be far below the smallest double. A P value of exactly 1 would be ``T = -∞``: then
    the result is Bonferroni's, as in STAAR. Weights are not negative; None for equal ones. Raises NumericalError where
    there are no P values, or no weight is positive.
    """
    m = np.asarray(mlog10p, float)
    w = np.ones_like(m) if weights is None else np.asarray(weights, float)
    m, w = m[w > 0], w[w > 0]
    if not m.size or not np.all(np.isfinite(m)) or np.any(m < 0):
        raise NumericalError("P values to be combined must be numbers between 0 and 1, one of them with a weight")
    log_w = np.log(w / np.sum(w))
    complement = -np.expm1(-m * LN10)
    if np.any(complement == 0):
        return float(max(0.0, np.max(m) - np.log10(m.size)))
    small = complement >= 0.5
    positive = log_w[small] + _log_cot(-m[small] * LN10)
    negative = log_w[~small] + _log_cot(np.log(complement[~small]))
    above, below = (float(np.logaddexp.reduce(logs)) for logs in (positive, negative))
    if above > below:
        log_t = above + np.log1p(-np.exp(below - above))
        return float(-_log_arccot(log_t) / LN10)
    log_t = below + np.log1p(-np.exp(above - below)) if below > above else -np.inf
    return float(-np.log1p(-np.exp(_log_arccot(log_t))) / LN10)


def cauchy_mlog10p_of_many(mlog10p: Array, weights: Array | None = None) -> Array:
    """See `cauchy_mlog10p`, for P values (d, B) of B data sets that are not below the smallest double."""
    w = np.ones(len(mlog10p)) if weights is None else weights
    m, share = mlog10p[w > 0], w[w > 0] / np.sum(w[w > 0])
    bonferroni = np.maximum(0.0, np.max(m, axis=0) - np.log10(len(m)))
    certain = np.any(m == 0, axis=0)
    angle = np.pi * 10.0 ** -np.where(m == 0, 1.0, m)
    t = share @ (1 / np.tan(angle))
    return np.asarray(np.where(certain, bonferroni, -np.log10(np.arctan2(1.0, t) / np.pi)))


def _log_cot(log_p: Array) -> Array:
    """``log cot(πp)`` for p up to ½, from log p."""
    angle = np.pi * np.exp(log_p)
    ratio = np.where(angle > 1e-8, angle / np.tan(np.maximum(angle, 1e-8)), 1.0)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.maximum(ratio, 0.0)) - log_p - np.log(np.pi))


def _log_arccot(log_t: float) -> float:
    """``log(arccot(t)/π)`` for t not negative, from log t."""
    if log_t > 30:
        return float(-log_t - np.log(np.pi))
    return float(np.log(np.arctan2(1.0, np.exp(log_t)) / np.pi))
