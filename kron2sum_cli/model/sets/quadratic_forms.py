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
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import special

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.spectrum import Array, Mask, parts_of
from kron2sum_cli.model.tail_probability import LN10

Complex = NDArray[np.complex128]

STEP, LONGEST = 0.09, 5.8
"""Step of the trapezoidal rule along a hyperbola, and where it ends."""

SHORTER, LEAST_LOG = (3.2, 4.6), -33.0
"""Nearer ends of the path, which are enough where the logarithm of the integrand is below `LEAST_LOG` there in all
mixtures."""

LEAST_REST = 1e-13
"""Largest share of an integral that the last node of a path may have."""

LEAST_AGREEMENT = 2e-6
"""Largest relative difference of the sums over all and over every other node; the error goes with its square."""

MOST_HALVINGS = 4
"""Times that the step is halved where the sums do not agree."""

LAST_CHANGE = 3e-3
"""Relative change of a quantile after which Householder's method ends, which takes the error to its fourth power."""

FARTHEST_NODE = 1e9
"""Distance of a node from the branch point up to which squares of products of sixteen factors stay finite; and its
inverse, down to which they stay positive."""

ROUNDING = 1e-12
"""Share of the largest weight below which a weight, positive or negative, counts as 0 that was rounded."""

NO_VARIANCE = "the scores of the set have no variance: its variants lie in the span of the covariates"

MOST_ENTRIES = 1 << 20
"""Entries of the largest intermediate array: mixtures are worked on so many at a time."""


@dataclass(frozen=True)
class Tails:
    """Tails of k distributions at one value q each: one of the two to full relative precision.

    ``log_tail`` is ``log P(Q > q)`` where ``upper``, and ``log P(Q < q)`` elsewhere. ``density_slope`` is the
    derivative of ``log_density`` by q, and ``density_bend`` the second derivative of the density over the density,
    times q²: without a unit.
    """

    upper: Mask
    log_tail: Array
    log_density: Array
    density_slope: Array
    density_bend: Array

    @property
    def log_upper(self) -> Array:
        """``log P(Q > q)`` (k,)."""
        other = np.where(self.upper, -1.0, np.minimum(self.log_tail, -1e-300))
        return np.where(self.upper, self.log_tail, np.log1p(-np.exp(other)))

    @property
    def hazard(self) -> Array:
        """Density over ``P(Q > q)`` (k,)."""
        return np.asarray(np.exp(self.log_density - self.log_upper))

    def take(self, which: Mask) -> "Tails":
        """Those of some of the distributions."""
        numbers = self.log_tail, self.log_density, self.density_slope, self.density_bend
        return Tails(self.upper[which], *(part[which] for part in numbers))


def mixture_mlog10p(weights: Array, q: Array) -> Array:
    """``-log10 P(Σ_i λ_i χ²₁ > q)`` of k mixtures, to a relative precision of 1e-10 in P, below P = 1e-300 too.

    Weights (k, m) are λ of each mixture, not negative; fewer than m are filled up with zeros. Values of 0 and below
    have P = 1. Raises NumericalError where a mixture has no positive weight or a negative one, a value is not finite,
    or the integral does not converge.
    """
    return np.asarray(-mixture_tails(weights, q).log_upper / LN10 + 0.0)


def mixture_tails(weights: Array, q: Array) -> Tails:
    """Tails and densities of k mixtures ``Σ_i λ_i χ²₁``; weights (k, m) and q (k,) as in `mixture_mlog10p`."""
    kept = positive_weights(np.asarray(weights, float))
    largest = np.max(kept, axis=1)
    scaled = kept / largest[:, None]
    values = np.asarray(q, float) / largest
    if not np.all(np.isfinite(values)):
        raise NumericalError(f"a quadratic form is not finite: {values[~np.isfinite(values)][0]}")
    k, m = scaled.shape
    upper = values >= scaled.sum(axis=1)
    log_tail, log_density, slope, bend = np.full(k, -np.inf), np.full(k, -np.inf), np.zeros(k), np.zeros(k)
    which = np.flatnonzero(values > 0)
    for some in parts_of(which.size, int(MOST_ENTRIES // (m * (LONGEST / STEP + 1)))):
        part = which[some]
        log_tail[part], log_density[part], slope[part], bend[part] = _invert(scaled[part], values[part], upper[part])
    return Tails(upper, log_tail, log_density - np.log(largest), slope / largest, bend * values**2)


def mixture_quantile(weights: Array, log_upper: float, near: tuple[Array, Tails] | None = None) -> Array:
    """Where the upper tails of k mixtures are ``exp(log_upper)``, to a relative precision of 1e-9.

    By Householder's method on the logarithm of the tail, from a better start where values and their tails are known
    ``near``. Raises NumericalError where it does not converge.
    """
    q = _first_quantile(weights, log_upper, near)
    open_ones = np.arange(q.size)
    for _ in range(60):
        found = mixture_tails(weights[open_ones], q[open_ones])
        hazard = found.hazard
        newton, second = (found.log_upper - log_upper) / hazard, found.density_slope + hazard
        third = hazard * second + found.density_bend / q[open_ones] ** 2 - found.density_slope**2 - second**2 / 2
        step = newton / np.maximum(1 + newton * second / 2 + newton**2 * third / 6, 0.5)
        change = np.clip(step / q[open_ones], -0.5, 1e3)
        q[open_ones] *= 1 + change
        open_ones = open_ones[np.abs(change) > LAST_CHANGE]
        if not open_ones.size:
            return np.asarray(q)
    raise NumericalError("a quantile of a quadratic form was not found")


def _first_quantile(weights: Array, log_upper: float, near: tuple[Array, Tails] | None) -> Array:
    """Quantiles (k,) of shifted gamma distributions with the same three moments.

    The logarithm of such a tail is taken for a function of that of the mixture, of which the value and two derivatives
    are known where it is ``near``.
    """
    mean, variance, third = (c * np.sum(weights**power, axis=1) for power, c in ((1, 1), (2, 2), (3, 8)))
    if log_upper <= -600:
        return np.asarray(mean - 2 * np.max(weights, axis=1) * log_upper)
    shape, scale = 4 * variance**3 / third**2, third / (2 * variance)
    shift, of_gamma = mean - shape * scale, np.full(mean.size, log_upper)
    if near is not None:
        q, tails = near
        y = np.maximum((q - shift) / scale, 1e-9 * shape)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            at_near = np.log(special.gammaincc(shape, y))
            hazard = np.exp((shape - 1) * np.log(y) - y - special.gammaln(shape) - at_near) / scale
            first = np.clip(hazard / tails.hazard, 0.2, 5)
            rise = tails.density_slope + tails.hazard - ((shape - 1) / y - 1) / scale - hazard
            second = np.clip(first * rise / tails.hazard, -0.05, 0.05)
            change = log_upper - tails.log_upper
            moved = at_near + change * (first + change * second / 2)
        of_gamma = np.clip(np.where(np.isfinite(moved), moved, log_upper), max(1.5 * log_upper, -700), log_upper / 2)
    return np.asarray(np.maximum(shift + scale * special.gammainccinv(shape, np.exp(of_gamma)), 1e-9 * mean))


def positive_weights(values: Array) -> Array:
    """Eigenvalues (k, m) of covariance matrices with what rounding left of zeros set to 0.

    Raises NumericalError where a matrix has no positive eigenvalue or one that is negative beyond rounding.
    """
    largest = np.max(values, axis=-1, initial=0.0)
    if np.any(largest <= 0) or not np.all(np.isfinite(largest)):
        raise NumericalError(NO_VARIANCE)
    if np.any(np.min(values, axis=-1) < -1e4 * ROUNDING * largest):
        raise NumericalError("the covariance of the scores of the set is not positive semi-definite")
    return np.where(values > ROUNDING * largest[..., None], values, 0.0)


def _invert(weights: Array, q: Array, upper: Mask) -> tuple[Array, Array, Array, Array]:
    """Log tail, log density, its derivatives over it, of mixtures whose largest weight is 1, by the trapezoidal rule.

    It goes along hyperbolas. Distances ``τ = ½ - t`` to the branch point are what is kept, so that
    ``1 - 2λt = (1 - λ) + 2λτ`` is precise there.
    """
    tau = np.empty(q.size)
    for side, saddle in ((upper, _upper_saddle), (~upper, _lower_saddle)):
        if side.any():
            tau[side] = saddle(weights[side], q[side])
    t, left = 0.5 - tau, (1 - weights) + 2 * weights * tau[:, None]
    ratio = weights / left
    square = ratio * ratio
    second, third = 2 * np.sum(square, axis=1), 8 * np.sum(square * ratio, axis=1)
    scale = 1 / np.sqrt(second + 1 / t**2)
    slope = np.minimum(third / (3 * second) * scale, 1.0)
    at_saddle = -0.5 * np.sum(np.log(left), axis=1) - t * q
    tail, density, changes, bends = np.zeros((4, q.size))
    open_ones, step, longest = np.arange(q.size), STEP, _end_of_path(ratio * scale[:, None])
    for _ in range(MOST_HALVINGS + 1):
        path = tuple(part[open_ones] for part in (tau, scale, slope, at_saddle))
        found = _trapezoid(weights[open_ones], q[open_ones], path, step, longest)
        tail[open_ones], density[open_ones] = found.tail, found.density
        changes[open_ones], bends[open_ones] = found.slope, found.bend
        open_ones = open_ones[found.disagreement >= LEAST_AGREEMENT]
        if not open_ones.size:
            return at_saddle + np.log(tail), at_saddle + np.log(density), changes, bends
        step, longest = step / (2 if longest == LONGEST else 1), LONGEST
    raise NumericalError(f"the tail probability of a quadratic form did not converge at {q[open_ones[0]]:g}")


def _end_of_path(c: Array) -> float:
    """Where ``Π_i |1 + 2i c_i sinh x|^-½`` is small for all mixtures; c (k, m) is scale times ``λ_i/(1 - 2λ_it)``."""
    square = 4 * c * c
    for longest in SHORTER:
        if np.max(-0.25 * np.sum(np.log1p(square * np.sinh(longest) ** 2), axis=1)) < LEAST_LOG:
            return longest
    return LONGEST


@dataclass(frozen=True)
class _Sums:
    """What the trapezoidal rule gives, for k mixtures.

    Tail and density are over the size of the integrand at the saddle point, ``slope`` and ``bend`` first and second
    derivative of the density over the density, and ``disagreement`` is how far, relatively, the sums over every other
    node differ.
    """

    tail: Array
    density: Array
    slope: Array
    bend: Array
    disagreement: Array


def _trapezoid(weights: Array, q: Array, path: tuple[Array, ...], step: float, longest: float) -> _Sums:
    """Integrals along paths, each with its saddle point τ, scale, slope, and log of the integrand's size there."""
    tau, scale, slope, at_saddle = path
    offset, along = hyperbola(scale, slope, step, longest)
    t: Complex = (0.5 - tau)[:, None] + offset
    integrand = np.exp(cgf(weights, tau[:, None] - offset) - t * q[:, None] - at_saddle[:, None]) * along
    tails = (integrand / t).real * np.where(tau < 0.5, 1.0, -1.0)[:, None]
    tail, density = np.sum(tails, axis=1), np.sum(integrand.real, axis=1)
    half = 2 * np.sum(tails[:, ::2], axis=1), 2 * np.sum(integrand.real[:, ::2], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        disagreement = np.maximum(np.abs(half[0] / tail - 1), np.abs(half[1] / density - 1))
        by_t = integrand * t
        changes, bends = -np.sum(by_t.real, axis=1) / density, np.sum((by_t * t).real, axis=1) / density
    ended = np.abs(tails[:, -1]) <= LEAST_REST * tail
    disagreement = np.where((tail > 0) & (density > 0) & ended, disagreement, np.inf)
    return _Sums(tail, density, changes, bends, disagreement)


def hyperbola(scale: Array, slope: Array, step: float, longest: float) -> tuple[Complex, Complex]:
    """Nodes and weights (k, N) of ``1/(2πi) ∫ f(t) dt`` on the upper half of a hyperbola around each saddle point c.

    ``t = c + scale (i sinh x + slope (cosh x - 1))`` up to x = ``longest``; nodes are the offsets ``t - c``. The lower
    half is the conjugate, so that the integral of an f that is real on the real axis is the real part of the sum.
    ``scale`` (k,) is the width of the integrand at the saddle point, ``f''^-½`` of its logarithm, and ``slope`` (k,)
    that of the asymptote, from 0 (a straight line) to 1.
    """
    x = step * np.arange(int(longest / step) + 1)
    sinh, cosh = np.sinh(x), np.cosh(x)
    offset = scale[:, None] * (1j * sinh + slope[:, None] * (cosh - 1))
    along = scale[:, None] * (cosh - 1j * slope[:, None] * sinh) * (step / np.pi)
    along[:, 0] /= 2
    return offset, along


def cgf(weights: Array, tau: Complex) -> Complex:
    """``-½ Σ log(1 - 2λt)`` at nodes ``τ = ½ - t`` (k, N) of paths from the real axis downwards.

    Four factors ``(1 - λ) + 2λτ`` at a time are a polynomial in τ without negative coefficients; four of these are
    multiplied before their logarithm is taken. The argument of such a product falls along the path, by less than π from
    node to node: where it rises, it was turned around once more. The largest weight λ is 1; nodes on the real axis may
    come in any order.
    """
    k, m = weights.shape
    distance = np.abs(tau)
    doublings = 2 if np.min(distance) > 1 / FARTHEST_NODE and np.max(distance) < FARTHEST_NODE else 0
    padded = np.zeros((k, -(-m // (4 << doublings)) * (4 << doublings)))
    padded[:, :m] = weights
    a, b = (1 - padded).reshape(k, -1, 4), (2 * padded).reshape(k, -1, 4)
    first = a[..., 0] * a[..., 1], a[..., 0] * b[..., 1] + b[..., 0] * a[..., 1], b[..., 0] * b[..., 1]
    second = a[..., 2] * a[..., 3], a[..., 2] * b[..., 3] + b[..., 2] * a[..., 3], b[..., 2] * b[..., 3]
    coefficients = np.zeros((k, a.shape[1], 5))
    for (i, x), (j, y) in product(enumerate(first), enumerate(second)):
        coefficients[:, :, i + j] += x * y
    square = tau * tau
    powers = np.stack([np.ones_like(tau), tau, square, square * tau, square * square], axis=1)
    factors = coefficients.astype(np.complex128) @ powers
    for _ in range(doublings):
        half = factors.shape[1] // 2
        factors = factors[:, :half] * factors[:, half:]
    re, im = factors.real.copy(), factors.imag.copy()
    angle = np.arctan2(im, re)
    turns = np.cumsum(np.count_nonzero(np.diff(angle, axis=2) > np.pi, axis=1), axis=1)
    total = np.sum(angle, axis=1)
    total[:, 1:] -= 2 * np.pi * turns
    return np.asarray(-0.25 * np.sum(np.log(re * re + im * im), axis=1) - 0.5j * total)


def _upper_saddle(weights: Array, q: Array) -> Array:
    """``τ = ½ - t`` where ``K'(t) = q + 1/t``, t between 0 and ½: (k,), roughly."""

    def slope(z: Array) -> tuple[Array, Array]:
        """Decreases in ``z = logit(2τ)``; and its derivative."""
        share = 1 / (1 + np.exp(-z))
        terms = weights / ((1 - weights) + weights * share[:, None])
        value = np.sum(terms, axis=1) - q - 2 * (1 + np.exp(z))
        return value, -np.sum(terms**2, axis=1) * share * (1 - share) - 2 * np.exp(z)

    low, t = -np.log(q + 4), _saddle_of_gamma(weights, q, 1.0)
    start = np.log(np.maximum(0.5 / t - 1, np.exp(low)))
    return np.asarray(0.5 / (1 + np.exp(-_root(slope, low, np.full(q.size, 30.0), start))))


def _lower_saddle(weights: Array, q: Array) -> Array:
    """``τ = ½ - t`` where ``K'(t) = q + 1/t``, t below 0: (k,), roughly."""

    def slope(z: Array) -> tuple[Array, Array]:
        """Decreases in ``z = log(-t)``; and its derivative."""
        size = np.exp(z)
        terms = weights / (1 + 2 * weights * size[:, None])
        return np.sum(terms, axis=1) - q + 1 / size, -2 * np.sum(terms**2, axis=1) * size - 1 / size

    low, high = -np.log(q) - 1e-6, np.log((weights.shape[1] / 2 + 1) / q) + 1e-6
    return np.asarray(0.5 + np.exp(_root(slope, low, high, np.log(-_saddle_of_gamma(weights, q, -1.0)))))


def _saddle_of_gamma(weights: Array, q: Array, side: float) -> Array:
    """The t (k,) above (side 1) or below 0 (side -1) for gamma distributions with the means and variances of mixtures.

    ``K'(t) = μ/(1 - θt)`` makes a quadratic equation of ``K'(t) = q + 1/t``.
    """
    mean = np.sum(weights, axis=1)
    theta = 2 * np.sum(weights * weights, axis=1) / mean
    half = (q - mean - theta) / 2
    root = np.hypot(half, np.sqrt(theta * q))
    # The root without cancellation; the product of the two is -1/(θq).
    return np.asarray(np.where(half * side > 0, (half + side * root) / (theta * q), side / (root - side * half)))


def _root(function: Callable[[Array], tuple[Array, Array]], low: Array, high: Array, start: Array) -> Array:
    """Zeros (k,) of decreasing functions between bounds, by Newton's method kept within them: to 0.1 or nearer."""
    z = np.clip(start, low, high)
    for _ in range(60):
        value, derivative = function(z)
        low, high = np.where(value > 0, z, low), np.where(value > 0, high, z)
        proposed = z - value / derivative
        following = np.where((proposed >= low) & (proposed <= high), proposed, (low + high) / 2)
        change, z = np.max(np.abs(following - z), initial=0.0), following
        if change < 0.3:
            break
    return np.asarray(z)
