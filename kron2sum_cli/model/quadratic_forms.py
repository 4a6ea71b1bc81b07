"""Tail probabilities of weighted sums of χ²₁ variables, to full relative precision however small they are.

``Q = Σ_i λ_i z_i²`` with independent standard normal z_i has the cumulant generating function
``K(t) = -½ Σ_i log(1 - 2λ_i t)``, and

    P(Q > q) = 1/(2πi) ∫ exp(K(t) - tq) / t dt

along any path from below to above the real axis that crosses it between 0 and 1/(2 max λ). Davies (1980, Applied
Statistics 29:323) and Imhof (1961, Biometrika 48:419) take the imaginary axis, where the integrand oscillates and a
probability below 1e-12 is lost among terms of size 1. Here the path crosses at the saddle point of the integrand, as
Lugannani and Rice's approximation does (1980, Advances in Applied Probability 12:475), and follows a hyperbola that is
tangent to the steepest descent: the trapezoidal rule then converges geometrically, and its error is relative to the
probability (Trefethen and Weideman 2014, SIAM Review 56:385). Below the mean the path crosses left of 0 and gives
``P(Q < q)``.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.spectrum import Array
from kron2sum_cli.model.tail_probability import LN10

Complex = NDArray[np.complex128]

STEP, LONGEST = 0.09, 5.8
"""Step of the trapezoidal rule along a hyperbola, and where it ends."""

LEAST_AGREEMENT = 2e-6
"""Largest relative difference of the sums over all and over every other node; the error goes with its square."""

MOST_HALVINGS = 4
"""Times that the step is halved where the sums do not agree."""

LAST_CHANGE = 1e-5
"""Relative change of a quantile after which Newton's method, which squares the error, ends."""

ROUNDING = 1e-12
"""Share of the largest weight below which a weight, positive or negative, counts as 0 that was rounded."""

MOST_ENTRIES = 1 << 20
"""Entries of the largest intermediate array: mixtures are worked on so many at a time."""


@dataclass(frozen=True)
class Tails:
    """Tails of k distributions at one value each: one of the two to full relative precision.

    Attributes
    ----------
    upper : NDArray of bool (k,)
        Whether ``log_tail`` is of the upper tail
    log_tail : NDArray (k,)
        ``log P(Q > q)`` where ``upper``, ``log P(Q < q)`` elsewhere
    log_density : NDArray (k,)
        Log density of Q at q
    """

    upper: NDArray[np.bool_]
    log_tail: Array
    log_density: Array

    @property
    def log_upper(self) -> Array:
        """``log P(Q > q)`` (k,)."""
        other = np.where(self.upper, -1.0, np.minimum(self.log_tail, -1e-300))
        return np.where(self.upper, self.log_tail, np.log1p(-np.exp(other)))


def mixture_mlog10p(weights: Array, q: Array) -> Array:
    """``-log10 P(Σ_i λ_i χ²₁ > q)`` of k mixtures.

    Parameters
    ----------
    weights : NDArray (k, m)
        λ of each mixture, not negative; fewer than m are filled up with zeros
    q : NDArray (k,)
        Values; 0 and below have P = 1

    Returns
    -------
    NDArray (k,)
        To a relative precision of 1e-10 in P, below P = 1e-300 too

    Raises
    ------
    NumericalError
        Where a mixture has no positive weight or a negative one, a value is not finite, or the integral does not
        converge.
    """
    return np.asarray(-mixture_tails(weights, q).log_upper / LN10 + 0.0)


def mixture_tails(weights: Array, q: Array) -> Tails:
    """Tails and densities of k mixtures ``Σ_i λ_i χ²₁``; weights (k, m) and q (k,) as in `mixture_mlog10p`."""
    scaled, largest = _scaled(weights)
    values = np.asarray(q, float) / largest
    if not np.all(np.isfinite(values)):
        raise NumericalError(f"a quadratic form is not finite: {values[~np.isfinite(values)][0]}")
    k, m = scaled.shape
    upper = values >= scaled.sum(axis=1)
    log_tail, log_density = np.full(k, -np.inf), np.full(k, -np.inf)
    positive = values > 0
    width = max(1, int(MOST_ENTRIES // (m * (LONGEST / STEP + 1))))
    for side in (True, False):
        which = np.flatnonzero(positive & (upper == side))
        for start in range(0, which.size, width):
            part = which[start : start + width]
            log_tail[part], log_density[part] = _invert(scaled[part], values[part], side)
    return Tails(upper, log_tail, log_density - np.log(largest))


def mixture_quantile(weights: Array, log_upper: float) -> Array:
    """Where the upper tails of k mixtures are ``exp(log_upper)``, by Newton's method on the logarithm of the tail.

    Parameters
    ----------
    weights : NDArray (k, m)
        λ of each mixture
    log_upper : float
        Natural logarithm of the tail probability, negative

    Returns
    -------
    NDArray (k,)
        To a relative precision of 1e-9

    Raises
    ------
    NumericalError
        Where it does not converge.
    """
    mean, variance = weights.sum(axis=1), 2 * np.sum(weights**2, axis=1)
    q = mean - 2 * np.max(weights, axis=1) * log_upper
    if log_upper > -600:
        q = np.maximum(variance / mean * special.gammainccinv(mean**2 / variance, np.exp(log_upper)), 1e-9 * mean)
    open_ones = np.arange(q.size)
    for _ in range(60):
        found = mixture_tails(weights[open_ones], q[open_ones])
        hazard = np.exp(found.log_density - found.log_upper)
        change = np.clip((found.log_upper - log_upper) / hazard / q[open_ones], -0.5, 1e3)
        q[open_ones] *= 1 + change
        open_ones = open_ones[np.abs(change) > LAST_CHANGE]
        if not open_ones.size:
            return np.asarray(q)
    raise NumericalError("a quantile of a quadratic form was not found")


def positive_weights(values: Array) -> Array:
    """Eigenvalues (k, m) of covariance matrices with what rounding left of zeros set to 0.

    Raises
    ------
    NumericalError
        Where a matrix has no positive eigenvalue or one that is negative beyond rounding.
    """
    largest = np.max(values, axis=-1, initial=0.0)
    if np.any(largest <= 0) or not np.all(np.isfinite(largest)):
        raise NumericalError("the scores of the set have no variance: its variants lie in the span of the covariates")
    if np.any(np.min(values, axis=-1) < -1e4 * ROUNDING * largest):
        raise NumericalError("the covariance of the scores of the set is not positive semi-definite")
    return np.where(values > ROUNDING * largest[..., None], values, 0.0)


def _scaled(weights: Array) -> tuple[Array, Array]:
    """Weights over their largest, and the largest (k,)."""
    kept = positive_weights(np.asarray(weights, float))
    largest = np.max(kept, axis=1)
    return kept / largest[:, None], largest


def _invert(weights: Array, q: Array, upper: bool) -> tuple[Array, Array]:
    """Log tail and log density of mixtures whose largest weight is 1, by the trapezoidal rule on hyperbolas.

    Distances ``τ = ½ - t`` to the branch point are what is kept, so that ``1 - 2λt = (1 - λ) + 2λτ`` is precise there.
    """
    tau = _upper_saddle(weights, q) if upper else _lower_saddle(weights, q)
    t = 0.5 - tau
    ratio = weights / ((1 - weights) + 2 * weights * tau[:, None])
    second, third = 2 * np.sum(ratio**2, axis=1), 8 * np.sum(ratio**3, axis=1)
    scale = 1 / np.sqrt(second + 1 / t**2)
    slope = np.minimum(third / (3 * second) * scale, 1.0)
    size = np.log1p(-2 * weights * t[:, None]) if not upper else np.log((1 - weights) + 2 * weights * tau[:, None])
    at_saddle = -0.5 * np.sum(size, axis=1) - t * q
    step = STEP
    for _ in range(MOST_HALVINGS + 1):
        tail, density, agreement = _trapezoid(weights, q, (tau, scale, slope, at_saddle), step)
        if np.all(agreement < LEAST_AGREEMENT):
            return at_saddle + np.log(tail), at_saddle + np.log(density)
        step /= 2
    raise NumericalError(f"the tail probability of a quadratic form did not converge at {q[np.argmax(agreement)]:g}")


def _trapezoid(
    weights: Array, q: Array, path: tuple[Array, Array, Array, Array], step: float
) -> tuple[Array, Array, Array]:
    """Tail, density (both over the integrand's size at the saddle), and how far every other node alone would differ."""
    tau, scale, slope, at_saddle = path
    offset, along = hyperbola(scale, slope, step)
    nodes: Complex = tau[:, None] - offset
    exponent = cgf(weights, nodes) - (0.5 - nodes) * q[:, None] - at_saddle[:, None]
    integrand = np.exp(exponent) * along
    tails = integrand / np.where(tau < 0.5, 1.0, -1.0)[:, None] / (0.5 - nodes)
    tail, density = np.sum(tails.real, axis=1), np.sum(integrand.real, axis=1)
    half = 2 * np.sum(tails.real[:, ::2], axis=1), 2 * np.sum(integrand.real[:, ::2], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        agreement = np.maximum(np.abs(half[0] / tail - 1), np.abs(half[1] / density - 1))
    return tail, density, np.where((tail > 0) & (density > 0), agreement, np.inf)


def hyperbola(scale: Array, slope: Array, step: float) -> tuple[Complex, Complex]:
    """Nodes and weights of ``1/(2πi) ∫ f(t) dt`` on the upper half of a hyperbola around each saddle point.

    ``t = c + scale (i sinh x + slope (cosh x - 1))``; the lower half is the conjugate, so that the integral of an f
    that is real on the real axis is the real part of the sum.

    Parameters
    ----------
    scale : NDArray (k,)
        Width of the integrand at the saddle point, ``f''^-½`` of its logarithm
    slope : NDArray (k,)
        Slope of the asymptote, from 0 (a straight line) to 1
    step : float
        Step in x

    Returns
    -------
    tuple of NDArray (k, N)
        Offsets ``t - c`` and weights
    """
    x = step * np.arange(int(LONGEST / step) + 1)
    sinh, cosh = np.sinh(x), np.cosh(x)
    offset = scale[:, None] * (1j * sinh + slope[:, None] * (cosh - 1))
    along = scale[:, None] * (cosh - 1j * slope[:, None] * sinh) * (step / np.pi)
    along[:, 0] /= 2
    return offset, along


def cgf(weights: Array, tau: Complex) -> Complex:
    """``-½ Σ log(1 - 2λt)`` at nodes ``τ = ½ - t`` (k, N) on or below the real axis, for weights (k, m), largest 1.

    Factors are multiplied in pairs before their logarithm is taken: each has an argument above -¾π on the paths taken
    here, so that the argument of a product lies between -2π and 0.
    """
    factors = (1 - weights)[:, None, :] + 2 * weights[:, None, :] * tau[:, :, None]
    last = factors.shape[2] // 2 * 2
    pairs = factors[:, :, 0:last:2] * factors[:, :, 1:last:2]
    if last < factors.shape[2]:
        pairs = np.concatenate([pairs, factors[:, :, last:]], axis=2)
    angle = np.arctan2(pairs.imag, pairs.real)
    np.subtract(angle, 2 * np.pi, out=angle, where=angle > 0)
    modulus = np.log(pairs.real**2 + pairs.imag**2)
    return np.asarray(-0.25 * np.sum(modulus, axis=2) - 0.5j * np.sum(angle, axis=2))


def _upper_saddle(weights: Array, q: Array) -> Array:
    """``τ = ½ - t`` where ``K'(t) = q + 1/t``, t between 0 and ½: (k,), to a few digits."""

    def slope(z: Array) -> Array:
        """Decreases in ``z = logit(2τ)``."""
        share = 1 / (1 + np.exp(-z))
        terms = weights / ((1 - weights) + weights * share[:, None])
        return np.asarray(np.sum(terms, axis=1) - q - 2 * (1 + np.exp(z)))

    z = _bisect(slope, -np.log(q + 4), np.full(q.size, 30.0))
    return np.asarray(0.5 / (1 + np.exp(-z)))


def _lower_saddle(weights: Array, q: Array) -> Array:
    """``τ = ½ - t`` where ``K'(t) = q + 1/t``, t below 0: (k,), to a few digits."""

    def slope(z: Array) -> Array:
        """Decreases in ``z = log(-t)``."""
        size = np.exp(z)[:, None]
        return np.asarray(np.sum(weights / (1 + 2 * weights * size), axis=1) - q + 1 / size[:, 0])

    return np.asarray(0.5 + np.exp(_bisect(slope, -np.log(q) - 1e-6, np.log((weights.shape[1] / 2 + 1) / q) + 1e-6)))


def _bisect(function: Callable[[Array], Array], low: Array, high: Array) -> Array:
    """Zeros (k,) of decreasing functions between bounds, to 1e-3."""
    low, high = low.copy(), high.copy()
    while np.max(high - low, initial=0.0) > 1e-3:
        middle = (low + high) / 2
        above = function(middle) > 0
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.asarray((low + high) / 2)
