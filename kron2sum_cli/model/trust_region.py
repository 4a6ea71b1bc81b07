"""One Newton step on factors of C0 and C1 in a trust region.

The unknowns are factors in the trait axes of the current point: ``C0 → (D0 + P)(D0 + P)ᵀ``, ``C1 → (D1 + N)(D1 + N)ᵀ``
with ``D0 = diag(c0)``, ``D1 = diag(c1)``, P lower and N upper triangular. Semi-definiteness is then no constraint, a
Newton step sees the curvature of the map and so lands on a face of the cone instead of creeping to it, and there is no
rotation left over. Axes are in the order of their genetic share, so that an entry of P (or N) beside the diagonal turns
an axis of much genetic (residual) variance towards one of little, and leaves the little as it is: the least eigenvalues
of C0 and C1, to which the likelihood is most sensitive, are moved by the entries on the diagonal alone.

Steps solve the trust-region problem by conjugate gradients (Steihaug 1983), preconditioned by the information, which is
a 2 × 2 block for every pair of axes. The expected information is a safe measure of length for a model that fits. Where
the model does not fit (a rank that is too low, with eigenvalues of GGᵀ of many sizes) it can be wrong by ten orders;
then the observed information takes its place.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kron2sum_cli.model.likelihood import Grams, LikelihoodPoint
from kron2sum_cli.model.spectrum import Array, Indices, Mask
from kron2sum_cli.model.trait_axes import TraitAxes, axes_of_factors, pairs_of_axes

MAX_CG = 60
"""Largest number of steps of conjugate gradients."""

NO_GRADIENT = 1e-20
"""Square of a gradient's length, in the metric, that is rounding."""

RIDGE = 1e-10
"""Share of the largest information of an unknown that is added to the information of every unknown."""

SMALL_BEND = 1e-3
"""Smallest curvature along a step to the edge of the trust region, as a share of what the expected information says;
below it the observed information takes its place."""

LEAST_OBSERVED = 1e-8
"""Smallest eigenvalue of a block of the observed information, in units of the expected one."""

ScoreChange = Callable[[Array, Array], tuple[Array, Array]]


@dataclass(frozen=True)
class ObservedRows:
    """Numbers from which the observed information of single directions follows, coupled fixed effects left aside.

    Eigenvalues ``s`` (m,) of GGᵀ; ``alpha`` (m, p) is ``K⁻¹r``, and ``W`` (m, p) the inverse variances, in the axes.
    """

    s: Array
    alpha: Array
    W: Array

    def grams(self, expected: Grams) -> Grams:
        """Twice the observed information of every pair of axes on its own, given twice the expected one."""
        squares = self.alpha**2
        products = (squares.T @ (self.s[:, None] ** power * self.W) for power in range(3))
        Q0, Q1, Q2 = (A + A.T - Q for A, Q in zip(products, expected, strict=True))
        return Q0, Q1, Q2

    def along(self, v: Array, power: int, expected: float) -> float:
        """Information of ``E = vvᵀ``, of C0 (``power`` 2) or C1 (0), given the expected one."""
        return float(np.sum(self.s**power * (self.alpha @ v) ** 2 * (self.W @ v**2))) - expected


@dataclass(frozen=True)
class Curvature:
    """The second order of a likelihood at one point.

    ``expected`` is twice the expected information of pairs of axes, for E1, for E0 with E1, and for E0, each (p, p).
    The observed information of single pairs follows from ``observed``, None where it is not at hand. ``change`` gives
    the change of (score0, score1) for a small step (E0, E1).
    """

    expected: Grams
    observed: ObservedRows | None
    change: ScoreChange

    def along(self, v: Array, power: int) -> float:
        """Information of ``E = vvᵀ``, of C0 (``power`` 2) or C1 (0); positive."""
        expected = 0.5 * float(v**2 @ self.expected[power] @ v**2)
        observed = expected if self.observed is None else self.observed.along(v, power, expected)
        return observed if observed > 0 else expected


@dataclass(frozen=True)
class Correction:
    """What an approximate change of scores lacks, in the axes of the point where that was found.

    To find it takes longer than many approximations, and it hardly changes over the short steps near an optimum.
    """

    axes: TraitAxes
    lacking: ScoreChange

    def added_to(self, change: ScoreChange, axes: TraitAxes) -> ScoreChange:
        """The change of scores at a point near by, in its own axes."""
        M = self.axes.T @ axes.Tinv

        def corrected(E0: Array, E1: Array) -> tuple[Array, Array]:
            d0, d1 = change(E0, E1)
            lacking0, lacking1 = self.lacking(M @ E0 @ M.T, M @ E1 @ M.T)
            return d0 + M.T @ lacking0 @ M, d1 + M.T @ lacking1 @ M

        return corrected


@dataclass(frozen=True)
class Chart:
    """The unknowns around one point, as one vector (2, N): the entries of P, then those of N.

    ``rows`` ≥ ``columns`` are the N pairs of axes; P has entries there, N at the transposed places. Of these ``free0``
    of P and ``free1`` of N are unknowns, and the others 0. ``tau`` is the mean eigenvalue of GGᵀ, ``rank`` the largest
    of C0.
    """

    axes: TraitAxes
    tau: float
    rank: int
    rows: Indices
    columns: Indices
    free0: Mask
    free1: Mask

    def split(self, x: Array) -> tuple[Array, Array]:
        """P and N, both (p, p), of a vector."""
        p = self.axes.c0.size
        P, N = np.zeros((p, p)), np.zeros((p, p))
        P[self.rows, self.columns], N[self.columns, self.rows] = x
        return P, N

    def join(self, P: Array, N: Array) -> Array:
        """The transpose of ``split``: gradients with respect to P and N as a vector."""
        return np.array([P[self.rows, self.columns] * self.free0, N[self.columns, self.rows] * self.free1])

    def directions(self, P: Array, N: Array) -> tuple[Array, Array]:
        """First-order change (E0, E1) of the diagonalised covariances."""
        E0 = P * self.axes.c0
        E1 = N * self.axes.c1
        return E0 + E0.T, E1 + E1.T

    def move(self, x: Array) -> TraitAxes:
        """The axes of the point reached by a step."""
        P, N = self.split(x)
        kept0, kept1 = (np.flatnonzero(np.bincount(k)) for k in (self.columns[self.free0], self.rows[self.free1]))
        L0 = self.axes.Tinv @ (np.diag(self.axes.c0) + P)[:, kept0]
        L1 = self.axes.Tinv @ (np.diag(self.axes.c1) + N)[:, kept1]
        return axes_of_factors(L0, L1, self.tau)


def chart_at(axes: TraitAxes, tau: float, rank: int, floor: float) -> Chart:
    """The unknowns around these axes: columns of the factors that are 0 stay 0.

    So do columns of C1's at their least length, ``floor``, which a climb holds: it moves as if they were 0, and raises
    what it reaches (`TraitAxes.raised`).
    """
    t, u = pairs_of_axes(axes.c0.size)
    return Chart(axes, tau, rank, t, u, (u < rank) & (axes.c0[u] > 0), axes.c1[t] > floor)


@dataclass(frozen=True)
class PairMetric:
    """A positive definite matrix of 2 × 2 blocks ``[a, b; b, d]``, one for the entries of P and N of each pair of axes.

    Blocks have 1, 0 and 1 where an entry is not free.
    """

    a: Array
    b: Array
    d: Array

    def solve(self, g: Array) -> Array:
        """``M⁻¹g``."""
        det = self.a * self.d - self.b**2
        return np.array([self.d * g[0] - self.b * g[1], self.a * g[1] - self.b * g[0]]) / det

    def norm(self, x: Array) -> float:
        """``√(xᵀMx)``."""
        return float(np.sqrt(max(self.inner(x, x), 0.0)))

    def inner(self, x: Array, y: Array) -> float:
        """``xᵀMy``."""
        return float((self.a * x[0] + self.b * x[1]) @ y[0] + (self.b * x[0] + self.d * x[1]) @ y[1])


def expected_metric(chart: Chart, point: LikelihoodPoint, grams: Grams) -> PairMetric:
    """The expected information of the unknowns at a point, with the curvature that the cone adds."""
    a, b, d = _blocks(chart, grams)
    cone0, cone1 = _cone_curvature(chart, point)
    a, d = _with_ridge(a + np.maximum(cone0, 0), chart.free0), _with_ridge(d + np.maximum(cone1, 0), chart.free1)
    limit = 0.9999 * np.sqrt(a * d)
    return PairMetric(a, np.clip(b, -limit, limit), d)


def _with_ridge(diagonal: Array, free: Mask) -> Array:
    """The diagonal with a little of its largest free entry added, and 1 where an entry is not free."""
    ridge = RIDGE * float(diagonal.max(initial=0.0, where=free))
    return np.where(free, diagonal + (ridge if ridge > 0 else 1.0), 1.0)


def observed_metric(chart: Chart, point: LikelihoodPoint, grams: Grams, expected: PairMetric) -> PairMetric:
    """The observed information of the unknowns, with the absolute values of its eigenvalues."""
    a, b, d = _blocks(chart, grams)
    cone0, cone1 = _cone_curvature(chart, point)
    unit0, unit1 = np.sqrt(expected.a), np.sqrt(expected.d)
    a, d = np.where(chart.free0, a + cone0, 1.0) / unit0**2, np.where(chart.free1, d + cone1, 1.0) / unit1**2
    b = b / (unit0 * unit1)
    values, vectors = np.linalg.eigh(np.moveaxis(np.array([[a, b], [b, d]]), 2, 0))
    sizes = np.maximum(np.abs(values), LEAST_OBSERVED)
    blocks = (vectors * sizes[:, None, :]) @ vectors.transpose(0, 2, 1)
    a, b, d = blocks[:, 0, 0] * unit0**2, blocks[:, 0, 1] * unit0 * unit1, blocks[:, 1, 1] * unit1**2
    return PairMetric(a, b, d)


def _blocks(chart: Chart, grams: Grams) -> tuple[Array, Array, Array]:
    """Information of the entries of P, of P with N, and of N, for each pair of axes."""
    t, u = chart.rows, chart.columns
    twice = np.where(t == u, 2.0, 1.0)
    k0, k1 = chart.axes.c0[u], chart.axes.c1[t]
    Q0, Q1, Q2 = (twice * Q[t, u] for Q in grams)
    return Q2 * k0**2, np.where(chart.free0 & chart.free1, Q1 * k0 * k1, 0.0), Q0 * k1**2


def _cone_curvature(chart: Chart, point: LikelihoodPoint) -> tuple[Array, Array]:
    """Information that the curvature of the factors adds to that of the entries of P and of N."""
    return -2 * np.diag(point.score0)[chart.rows], -2 * np.diag(point.score1)[chart.columns]


@dataclass(frozen=True)
class Step:
    """A step x in the unknowns, and its predicted gain in log-likelihood.

    ``bend`` is the part of the gain that the curvature is predicted to take away, ``-½ xᵀHx``, and a step ``at_edge``
    ends at the edge of the trust region.
    """

    x: Array
    predicted: float
    bend: float
    at_edge: bool


@dataclass(frozen=True)
class LocalModel:
    """The quadratic model of a likelihood around a point, in the unknowns of its chart."""

    point: LikelihoodPoint
    chart: Chart
    curvature: Curvature
    metric: PairMetric

    def gradient(self) -> Array:
        """Gradient of the log-likelihood."""
        axes, point = self.chart.axes, self.point
        return self.chart.join(2 * point.score0 * axes.c0, 2 * point.score1 * axes.c1)

    def hessian_product(self, x: Array) -> Array:
        """Hessian of the log-likelihood times x."""
        point, chart, axes = self.point, self.chart, self.chart.axes
        P, N = chart.split(x)
        d0, d1 = self.curvature.change(*chart.directions(P, N))
        return chart.join(2 * (d0 * axes.c0 + point.score0 @ P), 2 * (d1 * axes.c1 + point.score1 @ N))

    def step(self, radius: float) -> Step:
        """Steihaug's conjugate gradients for max g·x + ½x·Hx, ‖x‖_M ≤ radius."""
        M, g = self.metric, self.gradient()
        x, Hx = np.zeros_like(g), np.zeros_like(g)
        residual = g
        y = M.solve(residual)
        direction = y
        ry = float(np.vdot(residual, y))
        goal = ry * min(0.01, np.sqrt(max(ry, 0)))
        for _ in range(MAX_CG):
            if ry <= max(goal, NO_GRADIENT):
                break
            Hd = self.hessian_product(direction)
            bend = -float(np.vdot(direction, Hd))
            length = ry / bend if bend > 0 else np.inf
            if bend <= 0 and not np.isfinite(radius):
                return Step(x, np.inf, 0.0, True)
            if bend <= 0 or M.norm(x + length * direction) >= radius:
                edge = _to_edge(M, x, direction, radius)
                x, Hx = x + edge * direction, Hx + edge * Hd
                return _step(g, x, Hx, True)
            x, Hx = x + length * direction, Hx + length * Hd
            residual = residual + length * Hd
            y = M.solve(residual)
            ry, previous = float(np.vdot(residual, y)), ry
            direction = y + (ry / previous) * direction
        return _step(g, x, Hx, False)

    def misjudges(self, step: Step) -> bool:
        """Whether a step to the edge of the trust region shows that the expected information is wrong."""
        length = self.metric.norm(step.x)
        return self.curvature.observed is not None and step.at_edge and abs(step.bend) < 0.5 * SMALL_BEND * length**2

    def observed_gain(self) -> float:
        """Gain that the observed information predicts for a Newton step of each pair of axes alone; 0 without it."""
        if self.curvature.observed is None:
            return 0.0
        metric = observed_metric(
            self.chart, self.point, self.curvature.observed.grams(self.curvature.expected), self.metric
        )
        g = self.gradient()
        return 0.5 * float(np.vdot(g, metric.solve(g)))


def local_model(point: LikelihoodPoint, chart: Chart, curvature: Curvature, by_observed: bool) -> LocalModel:
    """The local model around a point; the observed information measures lengths where that is asked for and at hand."""
    metric = expected_metric(chart, point, curvature.expected)
    if by_observed and curvature.observed is not None:
        metric = observed_metric(chart, point, curvature.observed.grams(curvature.expected), metric)
    return LocalModel(point, chart, curvature, metric)


def _step(g: Array, x: Array, Hx: Array, at_edge: bool) -> Step:
    bend = -0.5 * float(np.vdot(x, Hx))
    return Step(x, float(np.vdot(g, x)) - bend, bend, at_edge)


def _to_edge(M: PairMetric, x: Array, direction: Array, radius: float) -> float:
    """The positive t with ``‖x + t·direction‖_M = radius``."""
    a, b, c = M.inner(direction, direction), M.inner(x, direction), M.inner(x, x) - radius**2
    return float((-b + np.sqrt(max(b * b - a * c, 0.0))) / a)
