"""SKAT-O: the best of a grid between SKAT and the burden test, with its own null distribution.

For weighted scores z_k (s,) along e directions of the traits, ``Q_ρ = (1 - ρ) Q_S + ρ Q_B`` with ``Q_S = Σ_k ‖z_k‖²``
(SKAT) and ``Q_B = Σ_k (1ᵀz_k)²`` (burden). The statistic is ``T = min_ρ P_ρ`` over a grid (Lee, Wu and Lin 2012,
Biostatistics 13:762), and with q_ρ the quantile of Q_ρ at T,

    P = P(Q_ρ > q_ρ for some ρ) = P(Q_B > q_1) + E[ P(Q_S > min_ρ (q_ρ - ρ Q_B) / (1 - ρ) | 1ᵀz) ; Q_B < q_1 ].

Given the sums ``1ᵀz``, Q_S is a weighted sum of noncentral χ²₁: its tail is the integral of `quadratic_forms` with
another generating function. Nothing is approximated by moments. The sums are ``R ω`` with R the length and ω the
direction of e standard normal variables: R by Gauss and Legendre's rule between the kinks of the minimum, ω by a rule
of degree 5 on the sphere (Stroud 1971, U_n: 5-2). For one direction the result is exact to its digits; for several the
distribution depends on ω only as far as the directions differ in their variants' correlations. Below 1e-4300 the result
is Bonferroni's bound, T times the size of the grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, product

import numpy as np
from scipy import special
from scipy.linalg import lapack

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.kernel_tests import KernelScores
from kron2sum_cli.model.quadratic_forms import (
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

GRID = (0.0, 0.01, 0.04, 0.09, 0.16, 0.25, 0.5, 1.0)
"""Values of ρ, those of the R package SKAT."""

STEP, LEAST_AGREEMENT, MOST_HALVINGS = 0.13, 1e-5, 5
"""Step along the path of integration, how far the sums over all and every other node may differ, and how often the
step is halved where they do."""

SHORT_PATH, LEAST_REST = 3.9, 1e-11
"""Where a path along which all segments are integrated ends first, and how small the integrand must be there."""

MOST_BISECTIONS = 12
"""Times that the interval of a saddle point is narrowed."""

MOST_NODES, NODES_OF_PART = 300, 24
"""Nodes of a stretch that is integrated by one rule, and of each of the parts of a stretch that needs more."""

FARTHEST = 1e4
"""Beyond this ``-log T`` the result is Bonferroni's bound."""

MOST_CORNERS = 6
"""With missing cells and more directions than this, the rule on the sphere has degree 3."""


@dataclass(frozen=True)
class OptimalTest:
    """The result of SKAT-O.

    Attributes
    ----------
    rho : float
        ρ of the smallest P value
    mlog10p : float
        -log10 P, corrected for the choice of ρ
    """

    rho: float
    mlog10p: float


@dataclass(frozen=True)
class _Conditional:
    """The scores given their sums, ``z = C ζ + r`` with independent standard normal ζ (e,) and r ~ N(0, V diag(λ) Vᵀ).

    Attributes
    ----------
    sums : NDArray (e,)
        Variances of the sums: ``Q_B = Σ_k sums_k ζ_k²``
    lam : NDArray (m,)
        λ over the largest
    largest : float
        The largest λ
    loadings : NDArray (m, e)
        ``VᵀC`` over the root of the largest λ
    independent : bool
        Whether every row of the loadings has one entry
    """

    sums: Array
    lam: Array
    largest: float
    loadings: Array
    independent: bool


def skato(kernel: KernelScores) -> OptimalTest:
    """Test a set by the best of SKAT, burden and what lies between.

    Raises
    ------
    NumericalError
        Where the scores have no variance or an integral does not converge.
    """
    s = kernel.z.shape[1]
    sum_of_squares, square_of_sums = np.sum(kernel.z**2), np.sum(np.sum(kernel.z, axis=1) ** 2)
    blocks, rho = _turned(kernel), np.array(_grid(kernel))
    weights = _weights(blocks, rho)
    q = (1 - rho) * sum_of_squares + rho * square_of_sums
    tails = mixture_tails(weights, q)
    log_p = tails.log_upper
    best = int(np.argmin(log_p))
    conditional = _condition(blocks)
    if s == 1 or rho.size == 1 or conditional is None or log_p[best] == 0:
        return OptimalTest(float(rho[best]), float(-log_p[best] / LN10 + 0.0))
    if log_p[best] < -FARTHEST:
        return OptimalTest(float(rho[best]), float(-(log_p[best] + np.log(rho.size)) / LN10))
    others = np.arange(rho.size) != best
    quantiles = q.copy()
    quantiles[others] = mixture_quantile(weights[others], float(log_p[best]), (q[others], tails.take(others)))
    segments = _segments(rho[:-1], quantiles[:-1], float(quantiles[-1]))
    log_total = np.logaddexp(log_p[best], _log_beyond(conditional, segments))
    return OptimalTest(float(rho[best]), float(max(0.0, -log_total / LN10)))


def grid_weights(kernel: KernelScores) -> Array:
    """Eigenvalues (g, e s) of the null distribution of Q_ρ for every ρ of the grid."""
    return _weights(_turned(kernel), np.array(_grid(kernel)))


def _grid(kernel: KernelScores) -> tuple[float, ...]:
    """The grid, or SKAT alone where the sums have no variance."""
    s = kernel.z.shape[1]
    of_sums = max(float(np.sum(kernel.blocks[:, a : a + s, a : a + s])) for a in range(0, kernel.blocks.shape[1], s))
    return GRID if of_sums > ROUNDING * s * float(np.max(kernel.blocks)) else GRID[:1]


@dataclass(frozen=True)
class _Tridiagonal:
    """Covariance of the scores of s variants along a direction, turned: ``1/√s`` is the first unit vector.

    The kernel ``(1 - ρ) I + ρ 11ᵀ`` of the variants is then diagonal, and stays so under every turn of the other
    vectors, so that one reduction to a tridiagonal matrix serves every ρ.

    Attributes
    ----------
    diagonal : NDArray (s,)
        The first is the variance of the sum of the scores over s
    beside : NDArray (s - 1,)
        Off the diagonal
    variance : float
        The largest of a score
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
        if of_sum <= ROUNDING * self.variance:
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
    """Covariance of the scores of s variants along e directions that are not independent.

    Attributes
    ----------
    A : NDArray (e s, e s)
        The covariance
    e : int
        Number of directions
    """

    A: Array
    e: int

    @property
    def variance(self) -> float:
        """The largest variance of a score."""
        return float(np.max(self.A))

    def weights(self, rho: float) -> Array:
        """Eigenvalues (e s,) for the kernel ``(1 - ρ) I + ρ 11ᵀ`` of the variants."""
        s = len(self.A) // self.e
        root = np.kron(np.eye(self.e), np.sqrt(1 - rho) * (np.eye(s) - 1 / s) + np.sqrt(1 - rho + rho * s) / s)
        return np.asarray(np.linalg.eigvalsh(root @ self.A @ root), np.float64)

    def given_sums(self) -> tuple[Array, Array, Array]:
        """Variances of the sums (k,), then loadings (e s, k) and λ (e s,) of the scores given these."""
        s = len(self.A) // self.e
        J = np.kron(np.eye(self.e), np.ones((s, 1)))
        beta, vectors = np.linalg.eigh(J.T @ self.A @ J)
        kept = beta > ROUNDING * s * np.max(self.A)
        C = self.A @ J @ vectors[:, kept] / np.sqrt(beta[kept])
        lam, V = np.linalg.eigh(self.A - C @ C.T)
        return beta[kept], V.T @ C, lam


_Turned = Sequence[_Tridiagonal] | Sequence[_Coupled]


def _turned(kernel: KernelScores) -> _Turned:
    """The covariance of the scores, ready for every ρ."""
    if kernel.independent:
        return [_tridiagonal(A) for A in kernel.A]
    return [_Coupled(kernel.blocks[0], len(kernel.z))]


def _tridiagonal(A: Array) -> _Tridiagonal:
    """Turn a covariance matrix (s, s): a reflection, then LAPACK's reduction, which leaves the first unit vector."""
    s, variance = len(A), float(np.max(A))
    if s == 1:
        return _Tridiagonal(A[0], A[0, :0], variance)
    v = np.full(s, s**-0.5)
    v[0] -= 1
    v /= np.linalg.norm(v)
    across = A @ v
    half = 2 * np.outer(across - (v @ across) * v, v)
    _, diagonal, beside, _, _ = lapack.dsytrd(A - half - half.T, lower=1)
    return _Tridiagonal(diagonal, beside, variance)


def _eigenvalues(diagonal: Array, beside: Array) -> Array:
    """Eigenvalues (s,) of a symmetric tridiagonal matrix."""
    if not beside.size:
        return diagonal
    values, info = lapack.dsterf(diagonal, beside)
    if info:
        raise NumericalError("the eigenvalues of the covariance of the scores of a set were not found")
    return np.asarray(values, np.float64)


def _weights(blocks: _Turned, rho: Array) -> Array:
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
    return _Conditional(sums, kept_lam, largest, loadings / np.sqrt(largest), isinstance(blocks[0], _Tridiagonal))


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


def _sphere(e: int, independent: bool) -> tuple[Array, Array]:
    """Directions ω (d, e) and their weights for functions of ω that are even, of every coordinate if independent."""
    axes = np.eye(e)
    if e == 1:
        return axes, np.ones(1)
    if not independent and e > MOST_CORNERS:
        return axes, np.full(e, 1 / e)
    signs = [(1.0,) * e] if independent else [(1.0, *rest) for rest in product((1.0, -1.0), repeat=e - 1)]
    corners = np.array(signs) / np.sqrt(e)
    weights = np.concatenate([np.full(e, 2 / (e * (e + 2))), np.full(len(corners), e / (e + 2) / len(corners))])
    return np.vstack([axes, corners]), weights


@dataclass(frozen=True)
class _Nodes:
    """What is integrated over the segments: nodes of (R, ω) and functions of t.

    Attributes
    ----------
    of_nodes : NDArray (d, 3, r)
        R²; the value that Q_S must exceed, over the largest λ; logs of weights times the density of R
    lam : NDArray (m,)
        Eigenvalues over the largest
    g : NDArray (m, d)
        Squared loadings on each ω
    """

    of_nodes: Array
    lam: Array
    g: Array

    @property
    def square(self) -> Array:
        """R² (d, r)."""
        return self.of_nodes[:, 0]

    @property
    def limit(self) -> Array:
        """Value that Q_S must exceed, over the largest λ (d, r)."""
        return self.of_nodes[:, 1]

    def log_sizes(self, tau: Array) -> Array:
        """Logs of the integrands (d, N, r) at real ``t = ½ - τ`` (N,)."""
        t, left = 0.5 - tau, (1 - self.lam) + 2 * self.lam * tau[:, None]
        base = -0.5 * np.sum(np.log(left), axis=1) - np.log(t)
        of_path = _columns((t[:, None] / left) @ self.g, -t, np.ones(t.size))
        return np.asarray(of_path @ self.of_nodes + base[:, None], np.float64)

    def sums(self, tau: Complex, factor: Complex, log_size: float) -> Array:
        """Real parts (N,) of the sums of the integrands over ``exp(log_size)``, times a factor, along a path."""
        t = 0.5 - tau
        shift = (t[:, None] / ((1 - self.lam) + 2 * self.lam * tau[:, None])) @ self.g
        base = cgf(self.lam[None], tau[None])[0] - np.log(t) + np.log(factor) - log_size
        sizes = _columns(shift.real, -t.real, np.ones(t.size)) @ self.of_nodes + base.real[:, None]
        angles = _columns(shift.imag, -t.imag) @ self.of_nodes[:, :2] + base.imag[:, None]
        return np.asarray(np.sum(np.exp(sizes) * np.cos(angles), axis=(0, 2)))


def _columns(shift: Array, *others: Array) -> Array:
    """Shifts (N, d) beside functions (N,) of t that are the same in every direction: (d, N, columns)."""
    return np.stack([shift.T, *(np.broadcast_to(other, shift.T.shape) for other in others)], axis=2)


def _nodes(given: _Conditional, segments: Sequence[_Segment]) -> _Nodes:
    """Nodes for every segment of Q_B, in each of which Q_S must exceed ``intercept + slope Q_B``."""
    omega, weight = _sphere(given.sums.size, given.independent)
    e = given.sums.size
    per_square, of_omega = (omega**2) @ given.sums, (given.loadings @ omega.T) ** 2
    known = given.largest * np.sum(of_omega, axis=0)
    log_weights, squares, limits = [], [], []
    for low, high, intercept, slope in segments:
        ends = np.sqrt(np.array([low, high])[:, None] / per_square)
        # How much the logarithm of the integrand changes: by R², by the limit, and by the noncentrality at its saddle.
        shift = np.sqrt(float(np.max(of_omega)) * (intercept + slope * low) / given.largest)
        change = np.max((ends[1] - ends[0]) * (ends[1] / 2 + shift)) + slope * (low - high) / (2 * given.largest)
        steepest = np.sqrt(max(intercept, 0.0) / np.maximum(known - slope * per_square, np.finfo(np.float64).tiny))
        R, log_length = _rule(ends[0], ends[1], steepest, int(12 + np.sqrt(6 * float(change))))
        log_density = (e - 1) * np.log(R) - R**2 / 2 - (e / 2 - 1) * np.log(2) - special.gammaln(e / 2)
        log_weights.append(np.log(weight)[:, None] + log_length + log_density)
        squares.append(R**2)
        limits.append((intercept + slope * R**2 * per_square[:, None]) / given.largest)
    of_nodes = np.stack([np.hstack(squares), np.hstack(limits), np.hstack(log_weights)], axis=1)
    return _Nodes(of_nodes, given.lam, of_omega)


def _rule(low: Array, high: Array, steepest: Array, number: int) -> tuple[Array, Array]:
    """Nodes from ``low`` to ``high`` (d,), and logs of their weights: (d, r) each; as good as ``number`` of one rule.

    Where the sums nearly determine the scores (a variant of much larger weight than others) what is integrated falls
    from 1 to nothing in a small part of the stretch, beside ``steepest``, where Q_S has its limit for a mean. The nodes
    are close there.
    """
    if number <= MOST_NODES:
        x, w = _gauss_legendre(number)
        half = (high - low)[:, None] / 2
        return low[:, None] + half * (1 + x), np.log(half) + np.log(w)
    y, w = _graded(int(np.log2(number)) + 2)
    middle = np.clip(steepest, low, high)
    parts = [(middle, low - middle)] + ([(middle, high - middle)] if np.any(middle < high) else [])
    with np.errstate(divide="ignore"):  # a part may have no length
        log_length = [np.log(np.abs(length))[:, None] + np.log(w) for _, length in parts]
    return np.hstack([start[:, None] + length[:, None] * y for start, length in parts]), np.hstack(log_length)


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
    together = _log_integral(_nodes(given, segments), (SHORT_PATH, LONGEST), LEAST_REST)
    if together is not None:
        return together
    parts = [_log_integral(_nodes(given, [one]), (LONGEST,) * (MOST_HALVINGS + 1), np.inf) for one in segments]
    found = [part for part in parts if part is not None]
    if len(found) < len(parts):
        raise NumericalError("the null distribution of SKAT-O did not converge")
    return float(special.logsumexp(found))


def _log_integral(nodes: _Nodes, lengths: Sequence[float], rest: float) -> float | None:
    """Log of the integral over nodes along paths of these lengths, with half the step each time that it is too long.

    None where it does not converge: where sums over every other node do not agree, or more than a share ``rest`` of the
    integral is left where the path ends.
    """
    tau = _saddle(nodes)
    scale, bend, size = _shape(nodes, tau)
    step = STEP
    for longest in lengths:
        offset, along = hyperbola(np.array([scale]), np.array([bend]), step, longest)
        values = nodes.sums(tau - offset[0], along[0], size)
        total = float(np.sum(values))
        agree = total > 0 and abs(2 * float(np.sum(values[::2])) / total - 1) < LEAST_AGREEMENT
        if agree and np.max(np.abs(values[-3:])) <= rest * total:
            return size + float(np.log(total))
        step = step if agree else step / 2
    return None


def _saddle(nodes: _Nodes) -> float:
    """``τ = ½ - t`` where the sum of the integrands over the nodes is smallest; its log is convex in t."""
    low, high = -np.log(float(np.max(nodes.limit)) + 4) - 2, 30.0
    for _ in range(MOST_BISECTIONS):
        z = np.linspace(low, high, 12)
        sums = _log_sums(nodes.log_sizes(0.5 / (1 + np.exp(-z))))
        k = int(np.clip(np.argmin(sums), 1, 10))
        low, high = z[k - 1], z[k + 1]
        if max(sums[k - 1], sums[k + 1]) - sums[k] < 0.5:
            break
    return float(0.5 / (1 + np.exp(-z[k])))


def _shape(nodes: _Nodes, tau: float) -> tuple[float, float, float]:
    """Width of the integrand at τ, slope of the hyperbola, and the log of the integrand's size."""
    t = 0.5 - tau
    left = (1 - nodes.lam) + 2 * nodes.lam * tau
    logs = nodes.log_sizes(np.array([tau]))
    size = float(_log_sums(logs)[0])
    share = np.exp(logs[:, 0] - size)
    ratio = nodes.lam / left
    first = np.sum(ratio) + (1 / left**2 @ nodes.g)[:, None] * nodes.square - nodes.limit - 1 / t
    second = 2 * np.sum(ratio**2) + (4 * ratio / left**2 @ nodes.g)[:, None] * nodes.square
    third = 8 * np.sum(ratio**3) + (24 * ratio**2 / left**2 @ nodes.g)[:, None] * nodes.square
    scale = float(np.sum(share * (second + 1 / t**2 + first**2))) ** -0.5
    bend = min(float(np.sum(share * third) / np.sum(share * second)) / 3 * scale, 1.0)
    return scale, bend, size


def _log_sums(logs: Array) -> Array:
    """Logs of the sums of exponentials (N,) of (d, N, r)."""
    largest = np.max(logs, axis=(0, 2))
    return np.asarray(largest + np.log(np.sum(np.exp(logs - largest[:, None]), axis=(0, 2))))
