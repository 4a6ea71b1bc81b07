"""SKAT-O: the best of a grid between SKAT and the burden test, with its own null distribution.

For weighted scores z_k (s,) along e directions of the traits, ``Q_ρ = (1 - ρ) Q_S + ρ Q_B`` with ``Q_S = Σ_k ‖z_k‖²``
(SKAT) and ``Q_B = Σ_k (1ᵀz_k)²`` (burden). The statistic is ``T = min_ρ P_ρ`` over a grid (Lee, Wu and Lin 2012,
Biostatistics 13:762), and with q_ρ the quantile of Q_ρ at T,

    P = P(Q_ρ > q_ρ for some ρ) = P(Q_B > q_1) + E[ P(Q_S > min_ρ (q_ρ - ρ Q_B) / (1 - ρ) | 1ᵀz) ; Q_B < q_1 ].

Given the sums ``1ᵀz``, Q_S is a weighted sum of noncentral χ²₁: its tail is the integral over t of `quadratic_forms`
with another generating function. Nothing is approximated by moments. Q_S must exceed a value that depends on Q_B alone:
under the integral over t, the mean of the generating function over all directions of sums with the same Q_B is the
normalising constant of a Bingham distribution, by Ruben's series or, where directions differ much, by a contour
integral; and the mean over Q_B is by Gauss and Legendre's rule between the kinks of the minimum. Errors are those of
these rules, 1e-8 of P or so, for one direction of the traits and for several. Below 1e-4300 the result is Bonferroni's
bound, T times the size of the grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import special
from scipy.linalg import lapack

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.sets.kernel_tests import KernelScores
from kron2sum_cli.model.sets.quadratic_forms import (
    LONGEST,
    ROUNDING,
    Complex,
    cgf,
    hyperbola,
    mixture_quantile,
    mixture_tails,
    positive_weights,
)
from kron2sum_cli.model.spectrum import Array
from kron2sum_cli.model.tail_probability import LN10

Number = TypeVar("Number", np.float64, np.complex128)

GRID = (0.0, 0.01, 0.04, 0.09, 0.16, 0.25, 0.5, 1.0)
"""Values of ρ, those of the R package SKAT."""

STEP, LEAST_AGREEMENT, MOST_HALVINGS, MOST_PARTS = 0.13, 1e-6, 5, 64
"""Step along the path of integration. It is halved where the sums over all nodes and over every other one differ by
more than `LEAST_AGREEMENT`, so many times; then a segment is cut in two, into so many parts at most."""

SHORT_PATH, LONGER, FARTHEST_END, SMALL_AT_END = 3.9, 3.0, 24.0, 1e-11
"""First end of the path along which all segments are integrated; by how much a path is made longer, up to where, until
the integrand at its end is so small, as a share of the integral."""

MOST_BISECTIONS = 12
"""Times that the interval of a saddle point is narrowed."""

LEAST_NODES, MOST_NODES, NODES_OF_PART = 6, 300, 14
"""Nodes of a stretch that is integrated by one rule, and of each of the parts of a stretch that needs more."""

FARTHEST = 1e4
"""Beyond this ``-log T`` the result is Bonferroni's bound."""

NEGLIGIBLE = 30.0
"""Terms of a sum whose logarithm is this much below that of the largest are left out."""

MOST_SPREAD, MOST_LOST = 30.0, 10.0
"""The mean over directions is a power series where their logarithms differ by less than `MOST_SPREAD`, and its terms
are larger than the sum by less than `MOST_LOST`, in the logarithm."""

CONTOUR_NODES, NODES_A_RADIAN, APART = 28, 1.8, 24.0
"""Nodes of the contour integral over directions, and further ones for every radian by which these differ; directions
that differ by more than `APART` radians have contours of their own."""


@dataclass(frozen=True)
class Sums:
    """Sums x (e,) of the weighted scores along e directions of the traits.

    ``covariance`` (e, e) is theirs, of rank ``rank``, and ``cross`` (e, s, e) that of the scores with them. Where
    variants cancel, sums of scores are differences of large numbers: better ones are those of the sum of the variants.
    """

    x: Array
    covariance: Array
    cross: Array
    rank: int

    @classmethod
    def of(cls, kernel: KernelScores) -> "Sums":
        """The sums of scores."""
        e, s = kernel.z.shape
        cross = np.zeros((e, s, e))
        if kernel.independent:
            cross[np.arange(e), :, np.arange(e)] = kernel.A.sum(axis=2)
        else:
            cross[:] = kernel.A.sum(axis=3).transpose(0, 2, 1)
        covariance = cross.sum(axis=1)
        least = ROUNDING * s * float(np.max(kernel.blocks))
        return cls(kernel.z.sum(axis=1), covariance, cross, int(np.sum(np.linalg.eigvalsh(covariance) > least)))

    def with_rank(self) -> "Sums":
        """The same without the directions in which they have no variance."""
        if self.rank == self.x.size:
            return self
        values, vectors = np.linalg.eigh(self.covariance)
        kept = vectors[:, values.size - self.rank :]
        within = kept @ kept.T
        return Sums(within @ self.x, within @ self.covariance @ within, self.cross @ within, self.rank)


def apart_from_sum(kernel: KernelScores, rank: int) -> tuple[KernelScores, Sums]:
    """The scores of a set and their sums, from the scores of its variants and, last, of their sum.

    ``rank`` is that of the information of the sum.
    """
    e, A = len(kernel.z), kernel.A
    if kernel.independent:
        A = np.zeros((e, *kernel.A.shape))
        A[np.arange(e), np.arange(e)] = kernel.A
    sums = Sums(kernel.z[:, -1], A[:, :, -1, -1], A[:, :, :-1, -1].transpose(0, 2, 1), rank)
    return KernelScores(kernel.z[:, :-1], kernel.A[..., :-1, :-1]), sums


@dataclass(frozen=True)
class _Conditional:
    """The scores given their sums: turned and over the root of the largest λ, ``L x + r`` with r ~ N(0, diag(λ)).

    The sums x (e,), of variances ``sums``, are turned, too, and independent: ``Q_B = ‖x‖²``. ``lam`` (m,) are λ over
    the ``largest``, and ``loadings`` (m, e) are L, every row of which has one entry where directions are
    ``independent``.
    """

    sums: Array
    lam: Array
    largest: float
    loadings: Array
    independent: bool

    def exponents(self, tau: NDArray[Number]) -> NDArray[Number]:
        """Eigenvalues v (N, e) of ``V(t) = t Lᵀ(I - 2t diag(λ))⁻¹L - ½ diag(sums)⁻¹`` at ``t = ½ - τ`` (N,).

        ``E[exp(t Q_S) | x]`` times the density of x is ``exp(xᵀVx)`` times a factor of t alone.
        """
        ratio = (0.5 - tau)[:, None] / ((1 - self.lam) + 2 * self.lam * tau[:, None])
        if self.independent:
            return np.asarray(ratio @ self.loadings**2 - 0.5 / self.sums, tau.dtype)
        V = self._matrices(ratio)
        return np.asarray(np.linalg.eigvals(V) if np.iscomplexobj(V) else np.linalg.eigvalsh(V), tau.dtype)

    def axes(self, tau: float) -> tuple[Array, Array]:
        """Eigenvalues (e,) of V at a real t, and squares of the loadings (m, e) of its eigenvectors."""
        ratio = (0.5 - tau) / ((1 - self.lam) + 2 * self.lam * tau)
        if self.independent:
            return ratio @ self.loadings**2 - 0.5 / self.sums, self.loadings**2
        v, vectors = np.linalg.eigh(self._matrices(ratio[None])[0])
        return v, (self.loadings @ vectors) ** 2

    def _matrices(self, ratio: NDArray[Number]) -> NDArray[Number]:
        """V (N, e, e) for ``t/(1 - 2tλ)`` (N, m)."""
        e = self.sums.size
        pairs = (self.loadings[:, :, None] * self.loadings[:, None, :]).reshape(-1, e * e)
        return np.asarray((ratio @ pairs).reshape(-1, e, e) - np.diag(0.5 / self.sums), ratio.dtype)


def skato(kernel: KernelScores, sums: Sums | None = None) -> float:
    """-log10 P of a set by the best of SKAT, burden and what lies between, corrected for the choice of ρ.

    ``sums`` are those of the scores where None; where these have no variance SKAT alone is left. Raises NumericalError
    where the scores have no variance or an integral does not converge.
    """
    of_scores = (Sums.of(kernel) if sums is None else sums).with_rank()
    blocks, rho = turned_covariance(kernel, of_scores), np.array(GRID if of_scores.rank else GRID[:1])
    weights = grid_weights(blocks, rho)
    q = (1 - rho) * np.sum(kernel.z**2) + rho * np.sum(of_scores.x**2)
    tails = mixture_tails(weights, q)
    log_p = tails.log_upper
    best = int(np.argmin(log_p))
    conditional = _condition(blocks)
    if kernel.z.shape[1] == 1 or rho.size == 1 or conditional is None or log_p[best] == 0:
        return float(-log_p[best] / LN10 + 0.0)
    if log_p[best] < -FARTHEST:
        return float(-(log_p[best] + np.log(rho.size)) / LN10)
    others = np.arange(rho.size) != best
    quantiles = q.copy()
    quantiles[others] = mixture_quantile(weights[others], float(log_p[best]), (q[others], tails.take(others)))
    segments = _segments(rho[:-1], quantiles[:-1], float(quantiles[-1]))
    log_total = np.logaddexp(log_p[best], _log_beyond(conditional, segments))
    return float(max(0.0, -log_total / LN10))


@dataclass(frozen=True)
class _Tridiagonal:
    """Covariance of the scores of s variants along a direction, turned: ``1/√s`` is the first unit vector.

    The kernel ``(1 - ρ) I + ρ 11ᵀ`` of the variants is then diagonal, and stays so under every turn of the other
    vectors, so that one reduction to a tridiagonal matrix serves every ρ. The first of its ``diagonal`` (s,) is the
    variance of the sum of the scores over s, ``beside`` (s - 1,) is off the diagonal, and ``variance`` the largest of a
    score.
    """

    diagonal: Array
    beside: Array
    variance: float

    def weights(self, rho: float) -> Array:
        """Eigenvalues (s,) for the kernel ``(1 - ρ) I + ρ 11ᵀ`` of the variants."""
        s = self.diagonal.size
        if rho == 1:
            return np.append(np.zeros(s - 1), s * self.diagonal[0])
        diagonal, beside, ratio = self.diagonal.copy(), self.beside.copy(), 1 + rho * s / (1 - rho)
        diagonal[0] *= ratio
        beside[:1] *= np.sqrt(ratio)
        return (1 - rho) * _eigenvalues(diagonal, beside)

    def given_sums(self) -> tuple[Array, Array, Array]:
        """See `_Coupled.given_sums`."""
        of_sum = float(self.diagonal[0])
        if of_sum <= 0:
            return np.zeros(0), np.zeros((self.diagonal.size, 0)), _eigenvalues(self.diagonal, self.beside)
        loadings, lam = np.zeros((self.diagonal.size, 1)), np.zeros(self.diagonal.size)
        loadings[0] = np.sqrt(of_sum)
        if self.beside.size:
            rest = self.diagonal[1:].copy()
            rest[0] -= self.beside[0] ** 2 / of_sum
            lam[1:], vectors, _ = lapack.dstevd(rest, self.beside[min(1, rest.size - 1) :])
            loadings[1:, 0] = vectors[0] * self.beside[0] / np.sqrt(of_sum)
        return np.array([of_sum * self.diagonal.size]), loadings, lam


@dataclass(frozen=True)
class _Coupled:
    """Covariance A (e s, e s) of the scores of s variants along e directions that are not independent.

    ``of_sums`` (e, e) is the covariance of their sums, of rank ``rank``, and ``cross`` (e s, e) that with them.
    """

    A: Array
    of_sums: Array
    cross: Array
    rank: int

    @property
    def variance(self) -> float:
        """The largest variance of a score."""
        return float(np.max(self.A))

    def weights(self, rho: float) -> Array:
        """Eigenvalues (e s,) for the kernel ``(1 - ρ) I + ρ 11ᵀ`` of the variants."""
        e = len(self.of_sums)
        s = len(self.A) // e
        if rho == 1:
            values = np.maximum(np.linalg.eigvalsh(self.of_sums), 0.0)
            return np.append(np.zeros(e * (s - 1)), values)
        root = np.kron(np.eye(e), np.sqrt(1 - rho) * (np.eye(s) - 1 / s) + np.sqrt(1 - rho + rho * s) / s)
        return np.asarray(np.linalg.eigvalsh(root @ self.A @ root), np.float64)

    def given_sums(self) -> tuple[Array, Array, Array]:
        """Variances of the sums (k,), then loadings (e s, k) and λ (e s,) of the scores given these."""
        beta, vectors = np.linalg.eigh(self.of_sums)
        kept = slice(beta.size - self.rank, None)
        C = self.cross @ vectors[:, kept] / np.sqrt(beta[kept])
        lam, V = np.linalg.eigh(self.A - C @ C.T)
        return beta[kept], V.T @ C, lam


_Turned = Sequence[_Tridiagonal] | Sequence[_Coupled]


def turned_covariance(kernel: KernelScores, sums: Sums) -> _Turned:
    """The covariance of the scores, ready for every ρ."""
    e, s = kernel.z.shape
    if kernel.independent:
        return [_tridiagonal(kernel.A[k], sums.covariance[k, k], sums.cross[k, :, k]) for k in range(e)]
    return [_Coupled(kernel.blocks[0], sums.covariance, sums.cross.reshape(e * s, e), sums.rank)]


def _tridiagonal(A: Array, of_sum: float, cross: Array) -> _Tridiagonal:
    """Turn a covariance matrix (s, s): a reflection, then LAPACK's reduction, which leaves the first unit vector.

    The sum has the variance ``of_sum`` and the covariances ``cross`` (s,) with the scores.
    """
    s, variance = len(A), float(np.max(A))
    if s == 1:
        return _Tridiagonal(A[0], A[0, :0], variance)
    v = np.full(s, s**-0.5)
    v[0] -= 1
    v /= np.linalg.norm(v)
    across = A @ v
    half = 2 * np.outer(across - (v @ across) * v, v)
    M = A - half - half.T
    M[:, 0] = (cross - 2 * (v @ cross) * v) / np.sqrt(s)
    M[0, 0] = of_sum / s
    _, diagonal, beside, _, _ = lapack.dsytrd(M, lower=1)
    return _Tridiagonal(diagonal, beside, variance)


def _eigenvalues(diagonal: Array, beside: Array) -> Array:
    """Eigenvalues (s,) of a symmetric tridiagonal matrix."""
    if not beside.size:
        return diagonal
    values, info = lapack.dsterf(diagonal, beside)
    if info:
        raise NumericalError("the eigenvalues of the covariance of the scores of a set were not found")
    return np.asarray(values, np.float64)


def grid_weights(blocks: _Turned, rho: Array) -> Array:
    """Eigenvalues (g, e s) of the covariance of z for the kernels ``(1 - ρ) I + ρ 11ᵀ`` of the variants."""
    return positive_weights(
        np.stack([np.concatenate([block.weights(one) for block in blocks]) for one in rho.tolist()])
    )


def _condition(blocks: _Turned) -> _Conditional | None:
    """The scores given their sums; None where the sums determine them."""
    parts = [block.given_sums() for block in blocks]
    lam = np.concatenate([part[2] for part in parts])
    largest = float(np.max(lam))
    if largest <= ROUNDING * max(block.variance for block in blocks):
        return None
    sums = np.concatenate([part[0] for part in parts])
    loadings, row, column = np.zeros((lam.size, sums.size)), 0, 0
    for _, of_part, _ in parts:  # scipy's block_diag takes ten times as long
        height, width = of_part.shape
        loadings[row : row + height, column : column + width] = of_part
        row, column = row + height, column + width
    kept_lam = np.where(lam > ROUNDING * largest, lam, 0.0) / largest
    return _Conditional(
        sums, kept_lam, largest, loadings / np.sqrt(largest * sums), isinstance(blocks[0], _Tridiagonal)
    )


_Segment = tuple[float, float, float, float]


def _segments(rho: Array, q: Array, end: float) -> list[_Segment]:
    """Pieces of ``min_ρ (q_ρ - ρ b)/(1 - ρ)`` for b from 0 to ``end``: (from, to, intercept, slope)."""
    intercepts, slopes = q / (1 - rho), -rho / (1 - rho)
    with np.errstate(divide="ignore", invalid="ignore"):
        crossings = (intercepts[:, None] - intercepts) / (slopes - slopes[:, None])
    inside = crossings[(crossings > 0) & (crossings < end)]
    pieces: list[_Segment] = []
    for low, high in pairwise([0.0, *np.unique(inside).tolist(), end]):
        k = int(np.argmin(intercepts + slopes * (low + high) / 2))
        if pieces and pieces[-1][3] == slopes[k]:
            pieces[-1] = (pieces[-1][0], high, *pieces[-1][2:])
        else:
            pieces.append((low, high, float(intercepts[k]), float(slopes[k])))
    return pieces


@dataclass(frozen=True)
class _Nodes:
    """What is integrated over Q_B: nodes ``b`` (r,), and functions of t there.

    ``limit`` (r,) is the value that Q_S must exceed, over the largest λ, and ``log_weight`` (r,) are logs of weights
    times the density of the sums, whose exponential is in V, over all directions.
    """

    b: Array
    limit: Array
    log_weight: Array
    given: _Conditional

    def log_sizes(self, tau: Array) -> Array:
        """Logs of the integrands times t (N, r) at real ``t = ½ - τ`` (N,), roughly."""
        v, left = self.given.exponents(tau), (1 - self.given.lam) + 2 * self.given.lam * tau[:, None]
        top, base = np.max(v, axis=1), -0.5 * np.sum(np.log(left), axis=1)
        rough = np.log(np.prod(1 + _below(v, top)[:, :, None] * self.b, axis=1))
        logs = base[:, None] + np.outer(top, self.b) + np.outer(tau - 0.5, self.limit) + self.log_weight - rough / 2
        return np.asarray(logs)

    def sums(self, tau: Complex, factor: Complex, log_size: float) -> Array:
        """Real parts (N,) of the sums of the integrands over ``exp(log_size)``, times a factor, along a path."""
        t = 0.5 - tau
        base = cgf(self.given.lam[None], tau[None])[0] - np.log(t) + np.log(factor) - log_size
        logs = base[:, None] - np.outer(t, self.limit) + self.log_weight
        return np.asarray(np.sum(_over_directions(logs, self.given.exponents(tau), self.b).real, axis=1))


def _below(v: Array, top: Array) -> Array:
    """``2/e (top - v)`` (N, e): the mean of ``exp(b Σ_k v_k ω_k²)`` is about ``exp(b top) Π_k (1 + b below_k)^-½``."""
    return np.asarray((top[:, None] - v) * (2 / v.shape[1]))


def _over_directions(logs: Complex, v: Complex, b: Array) -> Complex:
    """``exp(logs)`` times the mean of ``exp(b Σ_k v_k ω_k²)`` over all directions ω: (N, r).

    ``logs`` (N, r) are the other factors at N points of a path and r nodes b, v (N, e) the exponents along the path.
    """
    top, centre = np.max(v.real, axis=1), _middle(v.real) + 1j * _middle(v.imag)
    spread = v - centre[:, None]
    radius, largest = np.max(np.abs(spread), axis=1), np.max(b)
    most = float(np.max(radius) * largest)
    if most > 1:  # perhaps not where it matters
        size, bound = (logs.real + np.outer(each, b) for each in (top, centre.real + radius))
        matters = np.max(bound, axis=1) > np.max(bound) - NEGLIGIBLE
        spread, most = spread * matters[:, None], float(np.max(radius[matters]) * largest)
    if most <= 1 or (most < MOST_SPREAD and np.max(bound) - np.max(size) < MOST_LOST):
        return np.asarray(np.exp(logs + np.outer(centre, b)) * _mean_by_series(spread, b, most))
    kept = size > np.max(size) - NEGLIGIBLE
    point, node = np.nonzero(kept)
    sums = np.zeros(logs.shape, np.complex128)
    sums[kept] = np.exp(logs[kept] + top[point] * b[node]) * _mean_by_contours(
        (top[:, None] - v)[point] * b[node, None]
    )
    return sums


def _middle(x: Array) -> Array:
    """Means (N,) of the smallest and the largest of each row."""
    return np.asarray((np.min(x, axis=1) + np.max(x, axis=1)) / 2)


def _mean_by_series(spread: Complex, b: Array, most: float) -> Complex:
    """Mean of ``exp(b Σ_k δ_k ω_k²)`` over all directions ω, by a power series: (N, r) for δ (N, e) and b (r,).

    It is ``Σ_j a_j b^j Γ(e/2)/Γ(e/2 + j)`` with ``Σ_j a_j x^j = Π_k (1 - xδ_k)^-½`` (Ruben 1962, Annals of Mathematical
    Statistics 33:542). The number of terms depends on ``most``, the largest product of b and δ.
    """
    j = np.arange(1, 200)
    number = 1 + int(np.argmax(j * np.log(most + 1e-9) - special.gammaln(j + 1) < -NEGLIGIBLE))
    unit = (most + 1e-9) / np.max(b)
    powers = np.cumprod(np.broadcast_to(spread / unit, (number, *spread.shape)), axis=0)
    power_sums, a = np.sum(powers, axis=2), np.ones((number + 1, len(spread)), np.complex128)
    for i in range(1, number + 1):
        a[i] = np.sum(power_sums[:i] * a[i - 1 :: -1][:i], axis=0) / (2 * i)
    terms = np.cumprod(np.outer(1 / (spread.shape[1] / 2 + np.arange(number)), b * unit), axis=0)
    return np.asarray(1 + a[1:].T @ terms.astype(np.complex128))


def _mean_by_contours(below: Complex) -> Complex:
    """Mean of ``exp(-Σ_k Δ_k ω_k²)`` over all directions ω, by an integral along a path around all ``-Δ_k``: (M,).

    It is ``Γ(e/2)/(2πi) ∫ exp(s) Π_k (s + Δ_k)^-½ ds`` for Δ (M, e), the smallest real part of which is 0. Where some
    of the ``-Δ_k`` are far above the others, the path comes back from -∞ between the two groups.
    """
    first = np.take_along_axis(below.imag, np.argmin(below.real, axis=1)[:, None], axis=1)
    angles = np.sort(np.where(below.real < NEGLIGIBLE, below.imag, first), axis=1)
    lowest = np.diff(angles, prepend=-np.inf, axis=1) > APART
    low, high = angles[lowest], angles[np.roll(lowest, -1, axis=1)]
    number = CONTOUR_NODES + 12 * np.ceil(NODES_A_RADIAN / 12 * (high - low)).astype(int)
    row, mean = np.nonzero(lowest)[0], np.zeros(len(below), np.complex128)
    for one in np.unique(number).tolist():
        some, turn = row[number == one], 0.5j * (low + high)[number == one]
        np.add.at(mean, some, np.exp(-turn) * _contour_integral(below[some] - turn[:, None], one))
    return mean


def _contour_integral(below: Complex, number: int) -> Complex:
    """The integral of `_mean_by_contours` around the Δ near the real axis (M, e), along Talbot's contour: (M,).

    With an even number of nodes (Weideman 2006, SIAM Journal on Numerical Analysis 44:2342).
    """
    angle = np.pi * np.arange(1 - number, number, 2) / number
    cot = 1 / np.tan(0.6407 * angle)
    s = number * (0.5017 * angle * cot - 0.6122 + 0.2645j * angle)
    weights = np.exp(s) * (0.5017 * cot - 0.5017 * 0.6407 * angle * (1 + cot**2) + 0.2645j)
    integral, columns = np.zeros(len(below), np.complex128), below.T.copy()
    for node, weight in zip(s, weights, strict=True):
        integral += weight / np.prod(_root(node + columns), axis=0)
    return np.asarray(integral * special.gamma(below.shape[1] / 2) / 1j)


def _root(z: Complex) -> Complex:
    """Square roots with positive real parts, in a quarter of the time of numpy's; not of negative real numbers."""
    root = np.empty_like(z)
    root.real = np.sqrt((np.sqrt(z.real * z.real + z.imag * z.imag) + z.real) / 2)
    root.imag = z.imag / (2 * root.real)
    return root


def _nodes(given: _Conditional, segments: Sequence[_Segment]) -> _Nodes:
    """Nodes for every segment of Q_B, in each of which Q_S must exceed ``intercept + slope Q_B``."""
    e, lam = given.sums.size, given.largest
    known = lam * np.asarray(np.linalg.eigvalsh(given.loadings.T @ given.loadings))[[-1, 0]]
    furthest = np.sqrt(float(np.max(np.sum(given.loadings**2, axis=1))) / lam)
    low, high, intercept, slope = np.array(segments).T
    start, end = np.sqrt(low), np.sqrt(high)
    # How much the logarithm of the integrand changes: by x, by the limit, and by the noncentrality at its saddle.
    change = (end - start) * (end / (2 * np.max(given.sums)) + furthest * np.sqrt(intercept + slope * low))
    number = LEAST_NODES + np.sqrt(3 * np.max(change + slope * (low - high) / (2 * lam)))
    # And how near its singularities are, at the length of the sums at which directions begin to differ.
    differ = np.sqrt((1 / np.min(given.sums) - 1 / np.max(given.sums)) / 2)
    number = int(max(number, 6 * np.sqrt(np.max((end - start) * differ / np.hypot(start * differ, 1)))))
    falls = np.maximum(known - slope[:, None], np.finfo(np.float64).tiny)
    steepest = np.sqrt(np.maximum(intercept, 0.0)[:, None] / falls)
    x, log_weight = _rule(np.column_stack([start, steepest, end]), number)
    b = x * x
    log_weight += (e - 1) * np.log(x) - special.gammaln(e / 2) - np.sum(np.log(2 * given.sums)) / 2 + np.log(2)
    limit, kept = (intercept[:, None] + slope[:, None] * b) / lam, log_weight > -np.inf  # a part may have no length
    return _Nodes(b[kept], limit[kept], log_weight[kept], given)


def _rule(points: Array, number: int) -> tuple[Array, Array]:
    """Nodes of k stretches, and logs of their weights: (k, r) each; as good as ``number`` of one rule.

    ``points`` (k, 4) are where a stretch starts, where what is integrated falls in the first direction and in the last,
    and where it ends. Where the sums nearly determine the scores (a variant of much larger weight than others) it falls
    from 1 to nothing in a small part of the stretch, where Q_S has its limit for a mean. The nodes are close there, and
    at the ends.
    """
    if number <= MOST_NODES:
        y, w = _gauss_legendre(number)
        half = (points[:, 3:] - points[:, :1]) / 2
        return points[:, :1] + half * (1 + y), np.log(half * w)
    y, w = _graded(int(np.log2(number)) + 2)
    ends = np.clip(points, points[:, :1], points[:, 3:])
    half = np.diff(ends, axis=1)[:, :, None] / 2
    nodes = [ends[:, :-1, None] + half * y, ends[:, 1:, None] - half * y]
    with np.errstate(divide="ignore"):
        log_weights = np.log(half * np.tile(w, 2))
    return np.concatenate(nodes, axis=2).reshape(len(points), -1), log_weights.reshape(len(points), -1)


@lru_cache(maxsize=64)
def _graded(number: int) -> tuple[Array, Array]:
    """Nodes and weights on 0 to 1, as many between 0 and 2⁻ᵏ for every k below ``number``."""
    x, w = _gauss_legendre(NODES_OF_PART)
    ends = np.concatenate([[0.0], 0.5 ** np.arange(number)[::-1]])
    half = np.diff(ends)[:, None] / 2
    return (ends[:-1, None] + half * (1 + x)).ravel(), (half * w).ravel()


@lru_cache(maxsize=1024)
def _gauss_legendre(number: int) -> tuple[Array, Array]:
    """Nodes and weights on -1 to 1."""
    return special.roots_legendre(number)


def _log_beyond(given: _Conditional, segments: Sequence[_Segment]) -> float:
    """Log probability that Q_S exceeds its limit with Q_B in one of the segments.

    They are integrated along one path; far in the tail, where they need different ones, one by one.
    """
    together = _log_integral(_nodes(given, segments), SHORT_PATH, 0)
    if together is not None:
        return together
    return float(special.logsumexp([_log_of_segment(given, one, MOST_PARTS) for one in segments]))


def _log_of_segment(given: _Conditional, segment: _Segment, parts: int) -> float:
    """The same of one segment, which is cut into up to so many parts where it needs more than one path."""
    found = _log_integral(_nodes(given, [segment]), LONGEST, MOST_HALVINGS)
    if found is not None:
        return found
    if parts == 1:
        raise NumericalError("the null distribution of SKAT-O did not converge")
    low, high, intercept, slope = segment
    middle = (low**0.5 + high**0.5) ** 2 / 4
    halves = (low, middle, intercept, slope), (middle, high, intercept, slope)
    return float(special.logsumexp([_log_of_segment(given, half, parts // 2) for half in halves]))


def _log_integral(nodes: _Nodes, longest: float, halvings: int) -> float | None:
    """Log of the integral over nodes along a path that ends at ``longest``, or later where the integrand needs it.

    None where sums over every other node do not agree after the step was halved so many times.
    """
    tau = _saddle(nodes)
    scale, bend, size = _shape(nodes, tau)
    step = STEP
    while longest <= FARTHEST_END:
        offset, along = hyperbola(np.array([scale]), np.array([bend]), step, longest)
        values = nodes.sums(tau - offset[0], along[0], size)
        total = float(np.sum(values))
        if not np.max(np.abs(values[-3:])) <= SMALL_AT_END * abs(total):
            longest += LONGER
        elif total > 0 and abs(2 * float(np.sum(values[::2])) / total - 1) < LEAST_AGREEMENT:
            return size + float(np.log(total))
        elif halvings:
            step, halvings = step / 2, halvings - 1
        else:
            return None
    return None


def _saddle(nodes: _Nodes) -> float:
    """``τ = ½ - t`` where the sum of the integrands over the nodes is smallest; its log is convex in t."""
    low, high = -np.log(float(np.max(nodes.limit)) + 4) - 2, 30.0
    for _ in range(MOST_BISECTIONS):
        z = np.linspace(low, high, 20)
        tau = 0.5 / (1 + np.exp(-z))
        sums = _log_sums(nodes.log_sizes(tau)) - np.log(0.5 - tau)
        k = int(np.clip(np.argmin(sums), 1, 18))
        low, high = z[k - 1], z[k + 1]
        if max(sums[k - 1], sums[k + 1]) - sums[k] < 0.5:
            break
    return float(tau[k])


def _shape(nodes: _Nodes, tau: float) -> tuple[float, float, float]:
    """Width of the integrand at τ, slope of the hyperbola, and the log of the integrand's size."""
    t, lam = 0.5 - tau, nodes.given.lam
    v, squares = nodes.given.axes(tau)
    logs = nodes.log_sizes(np.array([tau]))
    size = float(_log_sums(logs)[0])
    # How much of the integrand is in each direction and node.
    share = 1 / (1 + _below(v[None], np.max(v, keepdims=True)).T * nodes.b)
    share *= np.exp(logs[0] - size) / np.sum(share, axis=0)
    left = (1 - lam) + 2 * lam * tau
    ratio = lam / left
    first = np.sum(ratio) + np.outer(1 / left**2 @ squares, nodes.b) - nodes.limit - 1 / t
    second = 2 * np.sum(ratio**2) + np.outer(4 * ratio / left**2 @ squares, nodes.b)
    third = 8 * np.sum(ratio**3) + np.outer(24 * ratio**2 / left**2 @ squares, nodes.b)
    scale = float(np.sum(share * (second + 1 / t**2 + first**2))) ** -0.5
    bend = min(float(np.sum(share * third) / np.sum(share * second)) / 3 * scale, 1.0)
    return scale, bend, size - float(np.log(t))


def _log_sums(logs: Array) -> Array:
    """Logs of the sums of exponentials (N,) of (N, r)."""
    largest = np.max(logs, axis=1)
    return np.asarray(largest + np.log(np.sum(np.exp(logs - largest[:, None]), axis=1)))
