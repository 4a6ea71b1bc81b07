"""The maximum of the likelihood over C0 ⪰ 0 (of bounded rank) and C1 ⪰ 0, and the certificate that it is one.

The unknowns are factors in the trait axes of the current point: ``C0 → (D0 + P)(D0 + P)ᵀ`` and ``C1 → (D1 + N)²``
with ``D0 = diag(c0)``, ``D1 = diag(c1)``, N symmetric, and P (p × rank) symmetric in its upper square.
Semi-definiteness is then no constraint, a Newton step sees the curvature of the map and so lands on a face of the cone
instead of creeping to it, and there is no rotation left over. Steps solve the trust-region problem by conjugate
gradients (Steihaug 1983), preconditioned by the expected information, which is a 2 × 2 block for every pair of axes.

A stationary point in factors may be a saddle of the cone problem: where C0 or C1 has lost rank its score must not
point into the cone (that is checked on the matrix of the score, and left along the offending direction).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from kron2sum_cli.errors import ConvergenceError, NumericalError
from kron2sum_cli.model.contrasts import Contrasts
from kron2sum_cli.model.information import full_grams
from kron2sum_cli.model.likelihood import Point, covariates_singular, evaluate
from kron2sum_cli.model.spectrum import Array
from kron2sum_cli.model.trait_axes import TraitAxes, axes_of_factors

GAIN_TOLERANCE = 1e-8
"""A fit ends when no step is predicted to raise the log-likelihood by more than this."""

CERTIFIED_GAIN = 1e-6
"""A predicted gain above this is not an optimum."""

SHARES = (0.5, 0.1, 0.9)
"""Genetic shares of variance from which searches start; the first alone where a search is not `CHEAP`."""

CHEAP = 1_000_000
"""Rows times squared traits up to which a search is made from all starts."""

MAX_STEPS = 500
FACE = 1e-3
"""An axis whose c0 or c1 is below this share is tried at exactly 0."""

MAX_CG = 60

FLOOR = 1e-6
"""Smallest c1 of a search where the likelihood grows without bound as C1 becomes singular."""

BOUNDARY = 1e-12
"""An axis whose genetic (or residual) share of variance is below this is on the boundary."""

Indices = NDArray[np.intp]


NO_MAXIMUM = (
    "the likelihood has no maximum: it grows without bound as C1 becomes singular where GGᵀ is singular, too. Leave out"
    " one of each pair of samples with the same genotypes; under ML, use a relationship matrix that is not centred on"
    " the analysed samples, or REML"
)


@dataclass(frozen=True)
class Certificate:
    """Why a point is an optimum.

    Attributes
    ----------
    predicted_gain : what the best further Newton step is predicted to add to the log-likelihood
    cone_gain : what the best step from a face into the cone is predicted to add
    gradient_norm : norm of the projected gradient in the metric of the information
    smallest_C0, smallest_C1 : smallest eigenvalues, of the covariances scaled to total variance 1 on every axis
    active_C0, active_C1 : number of axes on the boundary of either cone
    steps, evaluations : Newton steps taken; likelihoods evaluated
    """

    predicted_gain: float
    cone_gain: float
    gradient_norm: float
    smallest_C0: float
    smallest_C1: float
    active_C0: int
    active_C1: int
    steps: int
    evaluations: int

    @property
    def certified(self) -> bool:
        """Whether the first-order conditions hold."""
        return max(self.predicted_gain, self.cone_gain) <= CERTIFIED_GAIN


@dataclass(frozen=True)
class Fit:
    """A fitted model: the point, its rank, and its certificate."""

    point: Point
    rank: int
    certificate: Certificate


@dataclass(frozen=True)
class _Chart:
    """The unknowns around one point, as one vector in which the Frobenius inner product is the plain one."""

    axes: TraitAxes
    tau: float
    rank: int

    def split(self, x: Array) -> tuple[Array, Array]:
        """P (p, p) with columns beyond the rank 0, and N (p, p), of a vector."""
        p = self.axes.c0.size
        half = np.sqrt(0.5)
        P, N = np.zeros((p, p)), np.zeros((p, p))
        i, j, kind = self.entries0
        n0 = i.size
        P[i, j] = np.where(kind == 1, half, 1.0) * x[:n0]
        mirror = kind == 1
        P[j[mirror], i[mirror]] = P[i[mirror], j[mirror]]
        t, u = np.tril_indices(p)
        N[t, u] = np.where(t == u, 1.0, half) * x[n0:]
        N[u, t] = N[t, u]
        return P, N

    def join(self, P: Array, N: Array) -> Array:
        """The transpose of ``split``: gradients with respect to P and N as a vector."""
        half = np.sqrt(0.5)
        i, j, kind = self.entries0
        x0 = np.where(kind == 1, half * (P[i, j] + P[j, i]), P[i, j])
        t, u = np.tril_indices(self.axes.c0.size)
        x1 = np.where(t == u, N[t, u], half * (N[t, u] + N[u, t]))
        return np.concatenate([x0, x1])

    @property
    def entries0(self) -> tuple[Indices, Indices, Indices]:
        """Row, column and kind (0 diagonal, 1 mirrored, 2 alone) of the entries of P."""
        i, j = np.tril_indices(self.axes.c0.size)
        keep = j < self.rank
        i, j = i[keep], j[keep]
        return i, j, np.where(i == j, 0, np.where(i < self.rank, 1, 2))

    def directions(self, P: Array, N: Array) -> tuple[Array, Array]:
        """First-order change (E0, E1) of the diagonalised covariances."""
        E0 = P * self.axes.c0
        E1 = N * self.axes.c1
        return E0 + E0.T, E1 + E1.T

    def move(self, x: Array) -> TraitAxes:
        """The axes of the point reached by a step."""
        P, N = self.split(x)
        L0 = self.axes.Tinv @ (np.diag(self.axes.c0) + P)[:, : self.rank]
        L1 = self.axes.Tinv @ (np.diag(self.axes.c1) + N)
        return axes_of_factors(L0, L1, self.tau)

    def gradient(self, point: Point) -> Array:
        """Gradient of the log-likelihood in the unknowns."""
        return self.join(2 * point.score0 * self.axes.c0, 2 * point.score1 * self.axes.c1)

    def hessian_product(self, point: Point, grams: tuple[Array, Array, Array], x: Array) -> Array:
        """Hessian of the log-likelihood times x."""
        P, N = self.split(x)
        d0, d1 = point.curvature(grams, *self.directions(P, N))
        return self.join(2 * (d0 * self.axes.c0 + point.score0 @ P), 2 * (d1 * self.axes.c1 + point.score1 @ N))


@dataclass(frozen=True)
class _Preconditioner:
    """Inverse of the expected information of every pair of axes, with the curvature that the cone adds."""

    a: Array
    b: Array
    d: Array
    partner: Indices
    n0: int

    def solve(self, g: Array) -> Array:
        """``M⁻¹g``."""
        x0, x1 = g[: self.n0], g[self.n0 :]
        y1 = x1[self.partner]
        det = self.a * self.d[self.partner] - self.b**2
        out1 = x1 / self.d
        out0 = (self.d[self.partner] * x0 - self.b * y1) / det
        out1[self.partner] = (self.a * y1 - self.b * x0) / det
        return np.concatenate([out0, out1])

    def norm(self, x: Array) -> float:
        """``√(xᵀMx)``."""
        x0, x1 = x[: self.n0], x[self.n0 :]
        squared = self.a @ x0**2 + self.d @ x1**2 + 2 * (self.b * x0) @ x1[self.partner]
        return float(np.sqrt(max(float(squared), 0.0)))

    def inner(self, x: Array, y: Array) -> float:
        """``xᵀMy``."""
        x0, x1, y0, y1 = x[: self.n0], x[self.n0 :], y[: self.n0], y[self.n0 :]
        cross = (self.b * x0) @ y1[self.partner] + (self.b * y0) @ x1[self.partner]
        return float((self.a * x0) @ y0 + (self.d * x1) @ y1 + cross)


def _preconditioner(chart: _Chart, point: Point, grams: tuple[Array, Array, Array]) -> _Preconditioner:
    Q0, Q1, Q2 = grams
    c0, c1 = chart.axes.c0, chart.axes.c1
    i, j, kind = chart.entries0
    k0 = np.where(kind == 2, np.sqrt(2.0), 1.0) * np.where(kind == 0, 2 * c0[i], c0[i] * (kind == 1) + c0[j])
    curved0 = np.diag(point.score0)
    a = 0.5 * Q2[i, j] * k0**2 + np.maximum(-(curved0[i] + curved0[j]), 0)
    t, u = np.tril_indices(c0.size)
    k1 = c1[t] + c1[u]
    curved1 = np.diag(point.score1)
    d = 0.5 * Q0[t, u] * k1**2 + np.maximum(-(curved1[t] + curved1[u]), 0)
    partner = np.flatnonzero(u < chart.rank)
    b = 0.5 * Q1[i, j] * k0 * k1[partner]
    ridge = 1e-10
    a = a + ridge * max(float(a.max(initial=0)), 1e-300)
    d = d + ridge * max(float(d.max()), 1e-300)
    limit = 0.9999 * np.sqrt(a * d[partner])
    return _Preconditioner(a, np.clip(b, -limit, limit), d, partner, i.size)


@dataclass(frozen=True)
class _Plan:
    """The unknowns around a point, their information, and the metric of the trust region."""

    chart: _Chart
    grams: tuple[Array, Array, Array]
    metric: _Preconditioner


@dataclass(frozen=True)
class _Ascent:
    """A step ``length · direction directionᵀ`` into a cone and what it is predicted to gain."""

    gain: float
    direction: Array
    length: float


@dataclass(frozen=True)
class _Step:
    x: Array
    predicted: float
    at_edge: bool


def _trust_region_step(plan: _Plan, point: Point, radius: float) -> _Step:
    """Steihaug's conjugate gradients for max g·x + ½x·Hx, ‖x‖_M ≤ radius."""
    chart, grams, M = plan.chart, plan.grams, plan.metric
    g = chart.gradient(point)
    x, Hx = np.zeros_like(g), np.zeros_like(g)
    residual = g
    y = M.solve(residual)
    direction = y
    ry = float(residual @ y)
    goal = ry * min(0.01, np.sqrt(max(ry, 0)))
    for _ in range(MAX_CG):
        if ry <= max(goal, 1e-14):
            break
        Hd = chart.hessian_product(point, grams, direction)
        bend = -float(direction @ Hd)
        length = ry / bend if bend > 0 else np.inf
        if bend <= 0 and not np.isfinite(radius):
            return _Step(x, np.inf, True)
        if bend <= 0 or M.norm(x + length * direction) >= radius:
            edge = _to_edge(M, x, direction, radius)
            x, Hx = x + edge * direction, Hx + edge * Hd
            return _Step(x, float(g @ x + 0.5 * x @ Hx), True)
        x, Hx = x + length * direction, Hx + length * Hd
        residual = residual + length * Hd
        y = M.solve(residual)
        ry, previous = float(residual @ y), ry
        direction = y + (ry / previous) * direction
    return _Step(x, float(g @ x + 0.5 * x @ Hx), False)


def _to_edge(M: _Preconditioner, x: Array, direction: Array, radius: float) -> float:
    """The positive t with ``‖x + t·direction‖_M = radius``."""
    a, b, c = M.inner(direction, direction), M.inner(x, direction), M.inner(x, x) - radius**2
    return float((-b + np.sqrt(max(b * b - a * c, 0.0))) / a)


class _Search:
    """A climb in progress: the point reached, the trust region, and what it has cost."""

    def __init__(self, data: Contrasts, start: TraitAxes, rank: int, reml: bool) -> None:
        self.data, self.rank, self.reml = data, rank, reml
        self.tau = data.mean_eigenvalue
        self.floor = 0.0 if bounded(data, reml) else FLOOR
        self.steps, self.evaluations = 0, 1
        self.point = evaluate(data, start.truncated(rank), reml)
        self.widen()

    def widen(self) -> None:
        """Start over with a wide trust region."""
        self.radius = float(np.sqrt(self.data.nrows * self.data.ntraits)) / 4

    def plan(self) -> "_Plan":
        """The local model at the point reached."""
        chart, grams = _Chart(self.point.axes, self.tau, self.rank), full_grams(self.point)
        return _Plan(chart, grams, _preconditioner(chart, self.point, grams))

    def attempt(self, axes: Callable[[], TraitAxes]) -> Point | None:
        """The likelihood at these axes, None where it is not defined."""
        self.evaluations += 1
        try:
            reached = axes()
            point = evaluate(self.data, reached, self.reml)
        except (NumericalError, np.linalg.LinAlgError):
            return None
        if reached.c1.min() < self.floor:
            return None
        return point if np.isfinite(point.lml) else None

    def newton(self, plan: "_Plan", step: "_Step") -> None:
        """Take the step if it raises the likelihood as predicted, and adapt the trust region."""
        trial = self.attempt(lambda: plan.chart.move(step.x))
        noise = 1e-13 * abs(self.point.lml)
        gain = -np.inf if trial is None else trial.lml - self.point.lml
        ratio = (gain + noise) / (step.predicted + noise)
        if ratio < 0.25:
            self.radius = 0.25 * min(self.radius, plan.metric.norm(step.x))
        elif ratio > 0.75 and step.at_edge:
            self.radius *= 2
        if trial is not None and ratio > 1e-4:
            self.point = trial

    def snap(self) -> bool:
        """Put nearly-zero axes at exactly 0 where that does not lower the likelihood."""
        axes, data = self.point.axes, self.data
        small0 = (axes.c0 > 0) & (axes.c0 * np.sqrt(self.tau) < FACE) & (np.diag(self.point.score0) <= 0)
        small1 = (axes.c1 > 0) & (axes.c1 < FACE) & (np.diag(self.point.score1) <= 0)
        small1 &= bool(data.nsilent == 0 and data.s.min(initial=np.inf) > 0)
        if not (small0.any() or small1.any()):
            return False
        c0, c1 = np.where(small0, 0.0, axes.c0), np.where(small1, 0.0, axes.c1)
        trial = self.attempt(lambda: TraitAxes(axes.T, axes.Tinv, c0, c1))
        if trial is None or trial.lml < self.point.lml - 1e-12 * abs(self.point.lml):
            return False
        self.point = trial
        return True

    def enter_cone(self, plan: "_Plan") -> bool:
        """Leave a face along the direction of steepest predicted ascent, if that raises the likelihood."""
        axes = self.point.axes
        ascent0, ascent1 = _cone_ascents(self.point, plan)
        genetic = ascent0.gain >= ascent1.gain
        ascent = ascent0 if genetic else ascent1
        L0, L1 = axes.Tinv * axes.c0, axes.Tinv * axes.c1
        length = ascent.length
        for _ in range(40):
            extra = axes.Tinv @ (np.sqrt(length) * ascent.direction[:, None])
            F0, F1 = (np.hstack([L0, extra]), L1) if genetic else (L0, np.hstack([L1, extra]))
            trial = self.attempt(partial(self._truncated_axes, F0, F1))
            if trial is not None and trial.lml > self.point.lml:
                self.point = trial
                self.widen()
                return True
            length *= 0.25
        return False

    def _truncated_axes(self, L0: Array, L1: Array) -> TraitAxes:
        return axes_of_factors(L0, L1, self.tau).truncated(self.rank)

    def result(self, plan: "_Plan", predicted: float) -> Fit:
        """The point reached, with its certificate."""
        return Fit(self.point, self.rank, _certificate(self, plan, predicted))


def climb(data: Contrasts, start: TraitAxes, rank: int, reml: bool) -> Fit:
    """Climb from ``start`` to an optimum with C0 of at most this rank; its certificate says whether it got there."""
    search = _Search(data, start, rank, reml)
    while search.steps < MAX_STEPS and search.radius > 1e-9:
        plan = search.plan()
        step = _trust_region_step(plan, search.point, search.radius)
        if step.predicted > GAIN_TOLERANCE or (step.at_edge and search.radius < 1e-3):
            search.newton(plan, step)
            search.snap()
        elif not search.snap():
            fit = search.result(plan, step.predicted)
            if fit.certificate.cone_gain <= GAIN_TOLERANCE or not search.enter_cone(plan):
                return fit
        search.steps += 1
    plan = search.plan()
    return search.result(plan, _trust_region_step(plan, search.point, np.inf).predicted)


def _ascent_into_cone(score: Array, gram: Array) -> "_Ascent":
    """The best step ``t vvᵀ`` into the cone, by the leading eigenvector of the score and its information."""
    values, vectors = linalg.eigh(score)
    v, slope = vectors[:, -1], float(values[-1])
    information = 0.5 * float(v**2 @ gram @ v**2)
    if slope <= 0 or information <= 0:
        return _Ascent(0.0, v, 0.0)
    return _Ascent(slope**2 / (2 * information), v, slope / information)


def _cone_ascents(point: Point, plan: "_Plan") -> tuple["_Ascent", "_Ascent"]:
    """Ascents into the cones of C0 (none where it has all the rank that it may) and of C1."""
    p, chart = point.data.ntraits, plan.chart
    rank = int(np.count_nonzero(chart.tau * point.axes.c0**2 >= BOUNDARY))
    room = chart.rank == p or rank < chart.rank
    ascent0 = _ascent_into_cone(point.score0, plan.grams[2]) if room else _Ascent(0.0, np.zeros(p), 0.0)
    return ascent0, _ascent_into_cone(point.score1, plan.grams[0])


def _certificate(search: _Search, plan: "_Plan", predicted: float) -> Certificate:
    ascents = _cone_ascents(search.point, plan)
    g = plan.chart.gradient(search.point)
    share0 = search.tau * search.point.axes.c0[: search.rank] ** 2
    share1 = search.point.axes.c1**2
    return Certificate(
        predicted_gain=float(predicted),
        cone_gain=max(ascent.gain for ascent in ascents),
        gradient_norm=float(np.sqrt(max(float(g @ plan.metric.solve(g)), 0.0))),
        smallest_C0=float(share0.min()),
        smallest_C1=float(share1.min()),
        active_C0=int(np.count_nonzero(share0 < BOUNDARY)),
        active_C1=int(np.count_nonzero(share1 < BOUNDARY)),
        steps=search.steps,
        evaluations=search.evaluations,
    )


def starting_axes(data: Contrasts, share: float) -> TraitAxes:
    """The covariance of the contrasts, this share of it to τC0 and the rest to C1.

    Raises
    ------
    NumericalError
        Where traits are linear combinations of each other or GGᵀ is zero on the contrasts.
    """
    tau = data.mean_eigenvalue
    if tau <= 0:
        raise NumericalError("the relationship matrix is zero given the covariates: C0 cannot be estimated")
    residual = _without_covariates(data)
    root = linalg.qr(residual, mode="r")[0][: data.ntraits].T / np.sqrt(data.nrows)
    return axes_of_factors(np.sqrt(share / tau) * root, np.sqrt(1 - share) * root, tau)


def _without_covariates(data: Contrasts) -> Array:
    """The rotated traits less what covariates that are not projected out explain of each: (m, p)."""
    if data.design is None:
        return data.Z
    return np.asarray(data.Z - data.design.X @ np.linalg.lstsq(data.design.X, data.Z, rcond=None)[0])


def bounded(data: Contrasts, reml: bool) -> bool:
    """Whether the likelihood has a maximum.

    Where GGᵀ has null directions in which some combination of the traits is 0, a C1 without variance in that
    combination makes the density infinite: with fewer null directions than traits (two samples with the same
    genotypes are one) there always is such a combination. Under ML the same holds for any combination where the null
    directions lie in the span of the covariates (a matrix centred on the analysed samples).
    """
    null = data.s <= 0
    singular = bool(data.nsilent) or bool(null.any()) or (not reml and covariates_singular(data))
    if not singular:
        return True
    residual = _without_covariates(data)
    basis = linalg.qr(residual, mode="economic")[0]
    return int(np.linalg.matrix_rank(basis[null], tol=FLOOR)) == data.ntraits


def fit(data: Contrasts, rank: int, reml: bool) -> Fit:
    """Maximise over C0 of at most this rank.

    Small problems can have several optima, and there a search is cheap: it is then made from several starts and the
    best is kept. A fit of lower rank starts from the one of full rank, truncated.
    """
    p = data.ntraits
    cheap = data.Z.shape[0] * p**2 <= CHEAP
    fits = [climb(data, starting_axes(data, share), p, reml) for share in (SHARES if cheap else SHARES[:1])]
    if rank < p:
        starts = [f.point.axes for f in fits] + [starting_axes(data, SHARES[0])] * cheap
        fits = [climb(data, start, rank, reml) for start in starts]
    has_maximum = bounded(data, reml)
    # Without a global maximum a search that runs away is no rival of one that ends at a local maximum.
    certified = [f for f in fits if f.certificate.certified]
    best = max(fits if has_maximum else certified or fits, key=lambda f: f.point.lml)
    if not best.certificate.certified:
        raise ConvergenceError(_complaint(best) if has_maximum else NO_MAXIMUM, best)
    return best


def _complaint(fit: Fit) -> str:
    certificate = fit.certificate
    return (
        f"the null model did not converge: after {certificate.steps} steps the log-likelihood is {fit.point.lml:.6f},"
        f" and a gain of {max(certificate.predicted_gain, certificate.cone_gain):.3g} is still predicted"
    )
