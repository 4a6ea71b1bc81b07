"""Tests that know how precisely C0 and C1 are known, after Satterthwaite (1946, *Biometrics Bulletin* 2:110).

A variant is among the data that C0 and C1 are estimated from, and where these are few the estimates contain much of its
score: χ² cannot become as large as its distribution says. Effects in the span of D (p, e) along the trait axes have
the information ``W = DᵀVD``, and χ² that of estimated covariances, Ŵ. To the first order in their variance, χ² has the
mean e, and with ::

    1/M = [var(tr W⁻¹Ŵ) + 2 E‖W⁻¹Ŵ - I‖²] / [2e(e + 2)]

the variance of ``M Beta(e/2, (M - e)/2)``, so that ``(χ²/e) / [(M - χ²)/(M - e)]`` is compared with F on e and M - e
degrees of freedom. M is the number of contrasts of samples that would tell as much about the covariances. Of one effect
``M = 2/var(W⁻¹Ŵ)``, Satterthwaite's degrees of freedom. Where no two samples are related M = n - c, and the test is
Hotelling's of p traits, which is exact; where all that counts lies between lines, M is their number less that of
covariates.

Along the trait axes the entries of V̂ are independent (`information.expected_information`), and the variant is one that
is inherited as the relationship matrix says, ``g ~ N(0, GGᵀ)``, as for Bartlett factors. Of a second column h, such as
``g ∘ e``, V and its derivatives are those of h (`contrasts_of_columns`); both columns are tested by the two P values.
"""

from dataclasses import dataclass

import numpy as np
import scipy

from kron2sum_cli.model.information import inverse_of_pairs
from kron2sum_cli.model.likelihood import Grams
from kron2sum_cli.model.spectrum import Array
from kron2sum_cli.model.tail_probability import LN10, chi2_mlog10p, chi2_of_mlog10p, f_mlog10p
from kron2sum_cli.model.trait_axes import TraitAxes

LARGEST_SHARE = 0.9
"""Share χ²/M above which -log10 P goes on along its tangent: near 1 it would hang on the last digit of M."""


@dataclass(frozen=True)
class EffectiveContrasts:
    """How many contrasts of samples would tell as much of the covariances as is known of them.

    - ``information`` (p,): V, that of a variant along the trait axes.
    - ``variance`` (p, p): of the estimate of each entry of V, over ``V_j V_l``; on the diagonal half of it.
    """

    information: Array
    variance: Array

    def of_effects(self, base: Array, full: Array) -> float:
        """M of the effects that ``full`` (p, e) adds to ``base`` (p, e0), both bases along the trait axes."""
        df = full.shape[1] - base.shape[1]
        added = self._projection(full) - self._projection(base)
        own = np.diagonal(added)
        return float(df * (df + 2) / np.sum(self.variance * (np.multiply.outer(own, own) + 2 * added**2)))

    def of_traits(self, Tinv: Array) -> Array:
        """M (p,) of the effect on every trait, given effects on the others; Tinv (p, p) as in `TraitAxes`."""
        squares = Tinv**2 / self.information
        squares /= squares.sum(axis=1, keepdims=True)
        return np.asarray(1 / np.einsum("aj,jl,al->a", squares, self.variance, squares))

    def _projection(self, D: Array) -> Array:
        """The projection (p, p) on the span of ``V^½D``."""
        basis = np.linalg.qr(np.sqrt(self.information)[:, None] * D)[0]
        return np.asarray(basis @ basis.T)


def effective_contrasts(axes: TraitAxes, grams: Grams) -> EffectiveContrasts:
    """From the covariances and ``tr(P_j M P_l M')``, as `information.full_grams` has them.

    The expected V_j is ``tr(P_j GGᵀ)``, and its derivatives in entry (j, l) of E0 and E1 are -Q2 and -Q1.
    """
    _, Q1, Q2 = grams
    information = axes.c0**2 * np.diag(Q2) + axes.c1**2 * np.diag(Q1)
    return _contrasts(information, Q2, Q1, inverse_of_pairs(axes, grams))


def contrasts_of_columns(axes: TraitAxes, grams: Grams, H: Array, projected: Array) -> EffectiveContrasts:
    """Those of columns that do not follow the relationship matrix, from averages over some of them, H (n, b).

    ``projected`` (n, p, b) are ``P_jh``. The expected V_j is ``E[hᵀP_jh]``, and its derivatives in entry (j, l) of E0
    and E1 are ``-E[hᵀP_jGGᵀP_lh]`` and ``-E[hᵀP_jP_lh]``. But for covariates ``GGᵀP_jh = (h - c1_j²P_jh)/c0_j²``.
    """
    b, axis = H.shape[1], np.arange(len(axes.c0))
    information = np.einsum("nb,njb->j", H, projected) / b
    by_E1 = np.einsum("njb,nlb->jl", projected, projected, optimize=True) / b
    larger, other = np.minimum.outer(axis, axis), np.maximum.outer(axis, axis)  # c0 decreases
    left, squared = information[other] - axes.c1[larger] ** 2 * by_E1, axes.c0[larger] ** 2
    by_E0 = np.divide(left, squared, out=np.zeros_like(left), where=squared > 0)
    return _contrasts(information, by_E0, by_E1, inverse_of_pairs(axes, grams))


def _contrasts(information: Array, by_E0: Array, by_E1: Array, known: tuple[Array, Array, Array]) -> EffectiveContrasts:
    """From V, minus its derivatives in the entries of E0 and E1, and the covariance of their estimates."""
    of_E0, of_both, of_E1 = known
    variance = by_E0**2 * of_E0 + 2 * by_E0 * by_E1 * of_both + by_E1**2 * of_E1
    return EffectiveContrasts(information, variance / np.multiply.outer(information, information))


def mlog10p_of_both(first: Array, second: Array, df: int) -> Array:
    """-log10 P of two independent tests on ``df`` degrees of freedom each, from theirs (b,), after Lancaster (1961).

    χ² on 2df degrees of freedom is the sum of those that have the two P values.
    """
    return chi2_mlog10p(chi2_of_mlog10p(first, df) + chi2_of_mlog10p(second, df), 2 * df)


def satterthwaite_mlog10p(chisq: Array, df: int, contrasts: Array | float) -> Array:
    """-log10 P of χ² (b,) or (b, p) of ``df`` effects whose covariances rest on M > df contrasts, a number or (p,)."""
    share = chisq / contrasts
    near = np.minimum(share, LARGEST_SHARE)
    a, b = df / 2, (np.broadcast_to(contrasts, share.shape) - df) / 2
    mlog10p = f_mlog10p(near / (1 - near) * b / a, df, 2 * b)
    far = share > LARGEST_SHARE
    x = LARGEST_SHARE
    density = (a - 1) * np.log(x) + (b[far] - 1) * np.log1p(-x) - scipy.special.betaln(a, b[far])
    mlog10p[far] += np.exp(density + LN10 * mlog10p[far]) / LN10 * (share[far] - x)
    return mlog10p


def share_found(df: int, contrasts: float, size: int, level: float = 1e-4) -> float:
    """How often the likelihood ratio has P below a level, over the level, where covariances rest on M > df contrasts.

    It takes them as known but for their scale, which it estimates from ``size`` values.
    """
    ratio = scipy.special.chdtri(df, level)
    chisq = -size * np.expm1(-ratio / size)
    return float(10 ** -satterthwaite_mlog10p(np.array([chisq]), df, contrasts)[0] / level)
