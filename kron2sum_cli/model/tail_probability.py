"""-log10 of upper tail probabilities, far beyond where the probabilities themselves underflow."""

from collections.abc import Callable

import numpy as np
import scipy
from numpy.typing import ArrayLike

from kron2sum_cli.model.spectrum import Array, Mask

LN10 = float(np.log(10))
LN2 = float(np.log(2))
FAR_TAIL = 1e-200
"""Tail probabilities below this are computed as logarithms."""

LARGEST_BY_INVERSE, NEWTON_STEPS = 200.0, 12
"""-log10 P up to which χ² is found from P itself; beyond, by so many steps from there."""


def chi2_mlog10p(x: ArrayLike, df: float) -> Array:
    """-log10 P(χ²_df > x), NaN where x is NaN.

    The regularised upper incomplete gamma function ``Q(df/2, x/2)``; in the far tail by its continued fraction
    (Abramowitz and Stegun 6.5.31), evaluated by Lentz's method on the logarithmic scale.
    """
    values = np.maximum(np.asarray(x, float), 0.0)
    if df == 1:
        return _one_degree(np.sqrt(values))
    tail = scipy.special.gammaincc(df / 2, values / 2)
    result = _mlog10(tail, lambda which: scipy.special.gammainc(df / 2, values[which] / 2))
    far = tail < FAR_TAIL
    if far.any():
        result[far] = -_log_upper_gamma(df / 2, values[far] / 2) / LN10
    return np.asarray(result + 0.0)


def chi2_of_mlog10p(mlog10p: ArrayLike, df: int) -> Array:
    """χ² on ``df`` degrees of freedom that has these -log10 P, by Newton's method; NaN where they are NaN."""
    wanted = np.asarray(mlog10p, float)
    x = np.maximum(scipy.special.chdtri(df, 10.0 ** -np.minimum(wanted, LARGEST_BY_INVERSE)), np.finfo(float).tiny)
    far = wanted > LARGEST_BY_INVERSE
    for _ in range(NEWTON_STEPS if far.any() else 0):
        found = chi2_mlog10p(x[far], df)
        log_density = (df / 2 - 1) * np.log(x[far] / 2) - x[far] / 2 - scipy.special.gammaln(df / 2) - np.log(2)
        x[far] += (wanted[far] - found) * LN10 / np.exp(log_density + LN10 * found)
    return np.asarray(x)


def f_mlog10p(statistic: ArrayLike, df1: int, df2: ArrayLike) -> Array:
    """-log10 P(F_{df1, df2} > statistic), NaN where the statistic is NaN; df2 is a number, or one a statistic.

    The regularised incomplete beta function ``I_z(df2/2, df1/2)`` at ``z = df2 / (df2 + df1 F)``; in the far tail
    ``z^a (1-z)^b / (a B(a, b)) · ₂F₁(a+b, 1; a+1; z)`` (DLMF 8.17.8) on the logarithmic scale.
    """
    values = np.maximum(np.asarray(statistic, float), 0.0)
    df2 = np.broadcast_to(np.asarray(df2, float), values.shape)
    a, b = df2 / 2, df1 / 2
    z = df2 / (df2 + df1 * values)
    tail = scipy.special.betainc(a, b, z)
    result = _mlog10(tail, lambda which: scipy.special.betaincc(a[which], b, z[which]))
    far = tail < FAR_TAIL
    if far.any():
        result[far] = -_log_incomplete_beta(a[far], b, z[far], (df1 * values / (df2 + df1 * values))[far]) / LN10
    return np.asarray(result + 0.0)


def _one_degree(z: Array) -> Array:
    """-log10 P(|N(0, 1)| > z), several times as fast as the general case."""
    near = z < 0.5
    result = -(scipy.special.log_ndtr(-z) + LN2) / LN10
    of_near = -np.log1p(-scipy.special.erf(np.minimum(z, 0.5) * np.sqrt(0.5))) / LN10
    return np.asarray(np.where(near, of_near, result) + 0.0)


def _mlog10(tail: Array, body: Callable[[Mask], Array]) -> Array:
    """-log10 of a tail probability; from its complement where that is the smaller."""
    with np.errstate(divide="ignore"):
        result = np.asarray(-np.log10(tail))
    near = np.asarray(tail > 0.5)
    if near.any():
        result[near] = -np.log1p(-body(near)) / LN10
    return result


def _log_upper_gamma(a: float, x: Array) -> Array:
    """``log Q(a, x)`` for x well above a."""
    tiny = 1e-300
    b = x + 1 - a
    c = np.full_like(x, 1 / tiny)
    d = 1 / b
    h = d.copy()
    for i in range(1, 500):
        an = -i * (i - a)
        b = b + 2
        d = 1 / np.where(np.abs(an * d + b) < tiny, tiny, an * d + b)
        c = np.where(np.abs(b + an / c) < tiny, tiny, b + an / c)
        delta = d * c
        h = h * delta
        if np.all(np.abs(delta - 1) < 1e-16):
            break
    return np.asarray(-x + a * np.log(x) - scipy.special.gammaln(a) + np.log(h))


def _log_incomplete_beta(a: Array, b: float, z: Array, complement: Array) -> Array:
    """``log I_z(a, b)`` in its lower tail, ``complement = 1 - z``."""
    term = np.ones_like(z)
    total = np.ones_like(z)
    for k in range(100_000):
        term = term * (z * ((a + b + k) / (a + 1 + k)))
        total = total + term
        if np.all(term < 1e-17 * total):
            break
    log_power = np.where(z < 0.5, a * np.log(z), a * np.log1p(-np.minimum(complement, 0.5)))
    return np.asarray(log_power + b * np.log(complement) - np.log(a) - scipy.special.betaln(a, b) + np.log(total))
