"""The climb of a likelihood of C0 ⪰ 0 (of bounded rank) and C1 ⪰ 0 from a start to an optimum, with its certificate.

Steps are those of `trust_region`. A stationary point in factors may be a saddle of the cone problem: where C0 or C1 has
lost rank its score must not point into the cone (that is checked on the matrix of the score, and left along the
offending direction).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Generic, Self, TypeVar

import numpy as np

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.likelihood import HasMeanEigenvalue, LikelihoodPoint
from kron2sum_cli.model.spectrum import Array, Mask
from kron2sum_cli.model.trait_axes import TraitAxes, axes_of_factors
from kron2sum_cli.model.trust_region import Curvature, LocalModel, Step, chart_at, local_model

CERTIFIED_GAIN = 1e-6
"""Largest gain in log-likelihood that may still be predicted at an optimum."""

BOUNDARY = 1e-12
"""Smallest genetic (residual) share of variance of an axis that is not on the boundary."""

GAIN_TOLERANCE = 1e-14
"""A climb ends when no step is predicted to raise the log-likelihood by more than this, unless told otherwise."""

POLISHED_GAIN = 1e-18
"""Predicted gain above which a last step is taken; below it an optimum is known to 10⁻⁹ of its standard errors."""

NEAR_BOUNDARY = 1e-3
"""Square root of the genetic (residual) share of variance below which an axis is tried at exactly 0."""

SMALL_GAIN = 1.0
"""A step that is predicted to gain less than this is so short that the likelihood should be quadratic along it."""

MISPREDICTED = 0.5
"""Largest error of a small step's predicted gain, as a share of it; above it the curvature counts as wrong.

With more than twice the true curvature, or less than two thirds of it, a Newton step leaves more than half of the
way."""

FIRST_FLOOR = 1e-3
"""Smallest c1 of a climb, where there is one, until all else is at its optimum: nearer to the boundary, where GGᵀ is
singular, too, scores are rounding."""

SETTLED_FLOOR, LEAST_FLOOR = 3e-4, 1e-6
"""Largest and smallest c1 along an axis that should have none, at the end of such a climb."""

LITTLE_HELD_GAIN, HELD_GAIN = 0.1 * CERTIFIED_GAIN, 0.5 * CERTIFIED_GAIN
"""Gains that may be left in the residual variance of such axes, above the floor of the likelihood and below it: the
nearer to the boundary, the more of a scan is rounding."""

LARGE_HELD_GAIN = 5e-3
"""Gain that may be left in it while the rest is taken to its optimum; the rest then ends far less than `CERTIFIED_GAIN`
below."""

NARROW = 1e-3
"""Radius of the trust region below which a small gain predicted within it says nothing of what is beyond."""

SMALLEST_RADIUS = 1e-9
"""Radius of the trust region below which a climb gives up."""

EARLY_SHARE = 0.1
"""A face of the boundary is left before its maximum where this share of the gain predicted off it exceeds the gain
predicted on it."""

MOST_LEAVING = 4
"""Largest number of axes that leave a face at once."""

PointT = TypeVar("PointT", bound=LikelihoodPoint)


@dataclass(frozen=True)
class Likelihood(ABC, Generic[PointT]):
    """A log-likelihood of C0 and C1 that `climb` maximises, restricted or not."""

    data: HasMeanEigenvalue
    reml: bool

    @property
    @abstractmethod
    def ncells(self) -> int:
        """Number of contrasts of all traits."""

    @property
    def floor(self) -> float:
        """Smallest c1 that a climb may reach: an axis that would fall below it is held there."""
        return 0.0

    @property
    @abstractmethod
    def may_lose_C1(self) -> bool:
        """Whether an axis may have no residual variance at all."""

    @abstractmethod
    def evaluate(self, axes: TraitAxes) -> PointT:
        """The likelihood at one point; raises NumericalError where it is not defined."""

    @abstractmethod
    def curvature(self, point: PointT) -> Curvature:
        """The second order at a point."""

    def corrected(self, point: PointT) -> Self:
        """The same likelihood with better curvatures, at this point and near it; itself where they are exact."""
        return self


@dataclass(frozen=True)
class Certificate:
    """The first-order conditions of an optimum, in figures.

    Attributes
    ----------
    predicted_gain : float
        Gain in log-likelihood predicted for the best further Newton step, and for residual variances that are held at
        the floor of the likelihood, if they fell to 0.
    cone_gain : float
        Gain predicted for the best step off the boundary, into the cone of C0 or C1.
    gradient_norm : float
        Norm of the projected gradient in the metric of the information.
    smallest_C0, smallest_C1 : float
        Smallest eigenvalues, of the covariances scaled to total variance 1 on every axis.
    active_C0, active_C1 : int
        Number of axes on the boundary of either cone.
    steps, evaluations : int
        Number of Newton steps taken, and of likelihoods evaluated.
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

    def complaint(self, lml: float) -> str:
        """Message for a fit that did not converge and ended at this log-likelihood."""
        return (
            f"the null model did not converge: after {self.steps} steps the log-likelihood is {lml:.6f},"
            f" and a gain of {max(self.predicted_gain, self.cone_gain):.3g} is still predicted"
        )


@dataclass(frozen=True)
class Optimum(Generic[PointT]):
    """Where a climb with C0 of at most this rank ended, and the certificate that says whether that is an optimum."""

    point: PointT
    rank: int
    certificate: Certificate

    @property
    def nparameters(self) -> int:
        """See `nparameters`."""
        return nparameters(self.point.axes.c0.size, self.rank)

    @property
    def one_sided_aic(self) -> float:
        """What the choice of a rank of C0 minimises, ``nparameters - 2 lml``: Akaike's criterion at a boundary.

        AIC takes off twice what parameters that are not needed are expected to add to 2 lml, which is one each inside.
        q axes without genetic variance add ``q(q+1)/2`` parameters to C0, and the squares of the positive eigenvalues
        of their score, a symmetric matrix of normal numbers, to 2 lml: half of all squares, ``q(q+1)/4`` in the mean.
        Source: Hughes and King (2003), J. Statist. Plann. Inference 115:397.
        """
        return self.nparameters - 2 * self.point.lml

    def least_aic(self, rank: int) -> float:
        """A bound of the one-sided AIC of a lower rank, whose likelihood is at most this one's."""
        return nparameters(self.point.axes.c0.size, rank) - 2 * self.point.lml


def nparameters(ntraits: int, rank: int) -> int:
    """Free parameters of C0 of rank k, ``pk - k(k-1)/2``, and of C1, ``p(p+1)/2``."""
    p, k = ntraits, rank
    return p * k - k * (k - 1) // 2 + p * (p + 1) // 2


@dataclass(frozen=True)
class _Ascent:
    """A step ``factor factorᵀ`` into a cone, factor (p, q) in the axes, and its predicted gain."""

    gain: float
    factor: Array


class _Climb(Generic[PointT]):
    """A climb in progress: the point reached, the trust region, and the number of steps and evaluations."""

    def __init__(
        self, likelihood: Likelihood[PointT], start: TraitAxes, rank: int, tolerance: float = GAIN_TOLERANCE
    ) -> None:
        self.likelihood, self.rank, self.tolerance = likelihood, rank, tolerance
        self.tau = likelihood.data.mean_eigenvalue
        self.floor = max(likelihood.floor, FIRST_FLOOR) if likelihood.floor > 0 else 0.0
        self.steps, self.evaluations = 0, 1
        self.point = likelihood.evaluate(start.truncated(rank).raised(self.floor, self.tau))
        self.by_observed = False
        self._last: LocalModel | None = None
        self._corrected_at: PointT | None = None
        self.widen()

    def widen(self) -> None:
        """Make the trust region wide again."""
        self.radius = float(np.sqrt(self.likelihood.ncells)) / 4

    def model(self) -> LocalModel:
        """The local model at the point reached: the last one where a step was not taken and nothing was learned."""
        if self._last is None or self._last.point is not self.point:
            curvature = self.likelihood.curvature(self.point)
            chart = chart_at(self.point.axes, self.tau, self.rank, self.floor)
            self._last = local_model(self.point, chart, curvature, self.by_observed)
        return self._last

    def measure_by_observed(self) -> None:
        """Measure the lengths of further steps by the observed information."""
        self.by_observed = True
        self._last = None
        self.widen()

    def correct(self) -> None:
        """Take better curvatures, where the likelihood has any."""
        if self._corrected_at is not self.point:
            self._corrected_at, corrected = self.point, self.likelihood.corrected(self.point)
            if corrected is not self.likelihood:
                self.likelihood, self._last = corrected, None

    def attempt(self, axes: Callable[[], TraitAxes]) -> PointT | None:
        """The likelihood at these axes, None where it is not defined."""
        self.evaluations += 1
        try:
            point = self.likelihood.evaluate(axes().raised(self.floor, self.tau))
        except (NumericalError, np.linalg.LinAlgError):
            return None
        return point if np.isfinite(point.lml) else None

    def newton(self, model: LocalModel, step: Step) -> None:
        """Take the step if it raises the likelihood as predicted, and adapt the trust region."""
        trial = self.attempt(lambda: model.chart.move(step.x))
        noise = 1e-13 * abs(self.point.lml)
        gain = -np.inf if trial is None else trial.lml - self.point.lml
        ratio = (gain + noise) / (step.predicted + noise)
        lost_in_noise = step.at_edge and self.radius < NARROW and step.predicted < noise
        if ratio < 0.25 or lost_in_noise:
            self.radius = 0.25 * min(self.radius, model.metric.norm(step.x))
        elif ratio > 0.75 and step.at_edge:
            self.radius *= 2
        if trial is not None and ratio > 1e-4:
            self.point = trial
        if step.predicted < SMALL_GAIN and abs(ratio - 1) > MISPREDICTED:
            self.correct()

    def empty_small_axes(self) -> bool:
        """Set small genetic and residual variances of axes to the least they may be if the likelihood does not fall."""
        axes = self.point.axes
        small0 = (axes.c0 > 0) & (axes.c0 * np.sqrt(self.tau) < NEAR_BOUNDARY) & (np.diag(self.point.score0) <= 0)
        small1 = (axes.c1 > self.floor) & (axes.c1 < NEAR_BOUNDARY) & (np.diag(self.point.score1) <= 0)
        small1 &= self.likelihood.may_lose_C1 or self.floor > 0
        if not (small0.any() or small1.any()):
            return False
        c0, c1 = np.where(small0, 0.0, axes.c0), np.where(small1, self.floor, axes.c1)
        trial = self.attempt(lambda: TraitAxes(axes.T, axes.Tinv, c0, c1))
        if trial is None or trial.lml < self.point.lml - 1e-12 * abs(self.point.lml):
            return False
        self.point = trial
        return True

    def without_residual(self) -> Mask:
        """Which axes (p,) have no residual variance, or the least that they may have."""
        c1 = self.point.axes.c1
        return np.asarray((c1 <= self.floor) | (c1**2 < BOUNDARY))

    def held_slope(self) -> float:
        """What the log-likelihood gains by a share of variance that axes at the floor lose, as a multiple of it."""
        held = self.point.axes.c1 <= self.floor
        slopes = np.linalg.eigvalsh(self.point.score1[np.ix_(held, held)])
        return float(-np.minimum(slopes, 0.0).sum())

    def let_down(self, floor: float) -> PointT | None:
        """The point with axes at the floor let down to a lower one, which becomes the floor; None where undefined."""
        axes, held = self.point.axes, self.point.axes.c1 <= self.floor
        self.floor = floor
        return self.attempt(lambda: axes.with_residual(held, floor, self.tau))

    def settled(self, optimum: Optimum[PointT], max_steps: int) -> Optimum[PointT]:
        """The optimum with axes at the floor so near to the boundary that nothing is left to gain there.

        Where that changes the likelihood by little it changes nothing else; otherwise the climb goes on from a lower
        floor first.
        """
        left = self.held_slope() * self.floor**2
        if left > LARGE_HELD_GAIN and self.floor > self.likelihood.floor:
            lower = self.let_down(max(self.likelihood.floor, self.floor * np.sqrt(0.1 * LARGE_HELD_GAIN / left)))
            self.point = self.point if lower is None else lower
            self.widen()
            self._last = None
            optimum = self.run(max_steps)
            left = self.held_slope() * self.floor**2
        if left > LARGE_HELD_GAIN or self.point.axes.c1[0] > self.floor or self.floor == 0:
            return optimum
        share, slope = self.floor**2, max(left / self.floor**2, 1e-300)
        near = max(np.sqrt(LITTLE_HELD_GAIN / slope), min(self.likelihood.floor, np.sqrt(HELD_GAIN / slope)))
        trial = self.let_down(float(np.clip(near, LEAST_FLOOR, min(SETTLED_FLOOR, self.floor))))
        expected = left * (1 - self.floor**2 / share)
        if trial is None or abs(trial.lml - optimum.point.lml - expected) > max(MISPREDICTED * expected, HELD_GAIN):
            return optimum
        predicted = optimum.certificate.predicted_gain - expected
        certificate = replace(optimum.certificate, predicted_gain=predicted, smallest_C1=self.floor**2)
        return replace(optimum, point=trial, certificate=certificate)

    def leave_face_early(self, model: LocalModel, step: Step) -> bool:
        """Leave a face of the boundary before its maximum, where the gain predicted off it is much larger."""
        axes = self.point.axes
        on_face = self.without_residual()[0] or self.tau * axes.c0[self.rank - 1] ** 2 < BOUNDARY
        if step.at_edge or not on_face:
            return False
        ascents = _cone_ascents(model)
        return EARLY_SHARE * _gain(ascents) > step.predicted and self.enter_cone(ascents)

    def enter_cone(self, ascents: tuple[_Ascent, _Ascent]) -> bool:
        """Leave a face of the boundary along the directions of predicted ascent, if that raises the likelihood."""
        axes = self.point.axes
        genetic = ascents[0].gain >= ascents[1].gain
        extra = axes.Tinv @ (ascents[0] if genetic else ascents[1]).factor
        L0, L1 = ((axes.Tinv * c)[:, c > 0] for c in (axes.c0, axes.c1))
        for _ in range(40):
            F0, F1 = (np.hstack([L0, extra]), L1) if genetic else (L0, np.hstack([L1, extra]))
            trial = self.attempt(partial(self._truncated_axes, F0, F1))
            if trial is not None and trial.lml > self.point.lml:
                self.point = trial
                self.widen()
                return True
            extra = 0.5 * extra
        return False

    def _truncated_axes(self, L0: Array, L1: Array) -> TraitAxes:
        return axes_of_factors(L0, L1, self.tau).truncated(self.rank)

    def run(self, max_steps: int) -> Optimum[PointT]:
        """Climb to an optimum, in at most so many steps."""
        while self.steps < max_steps and self.radius > SMALLEST_RADIUS:
            model = self.model()
            step = model.step(self.radius)
            done = step.predicted <= self.tolerance and not (step.at_edge and self.radius < NARROW)
            if not self.by_observed and (model.misjudges(step) or (done and model.observed_gain() > CERTIFIED_GAIN)):
                self.measure_by_observed()
            elif not done:
                if not self.leave_face_early(model, step):
                    self.newton(model, step)
                    self.empty_small_axes()
            elif not self.empty_small_axes():
                ascents = _cone_ascents(model)
                if _gain(ascents) <= self.tolerance or not self.enter_cone(ascents):
                    return self.polished(model, step)
            self.steps += 1
        model = self.model()
        return self.optimum(model, model.step(np.inf).predicted)

    def polished(self, model: LocalModel, step: Step) -> Optimum[PointT]:
        """The optimum, a last step further where that leaves less to gain: gains so small are lost in rounding."""
        if step.predicted > POLISHED_GAIN:
            here, further = self.point, self.attempt(lambda: model.chart.move(step.x))
            if further is not None:
                self.point = further
                left = self.model().step(np.inf)
                if left.predicted < step.predicted:
                    return self.optimum(self.model(), left.predicted)
                self.point = here
        return self.optimum(model, step.predicted)

    def optimum(self, model: LocalModel, predicted: float) -> Optimum[PointT]:
        """The point reached, with its certificate."""
        g = model.gradient()
        share0 = self.tau * self.point.axes.c0[: self.rank] ** 2
        share1 = self.point.axes.c1**2
        certificate = Certificate(
            predicted_gain=float(predicted) + self.held_slope() * self.floor**2,
            cone_gain=_gain(_cone_ascents(model)),
            gradient_norm=model.metric.norm(model.metric.solve(g)),
            smallest_C0=float(share0.min()) if self.rank else 0.0,
            smallest_C1=float(share1.min()),
            active_C0=int(np.count_nonzero(share0 < BOUNDARY)),
            active_C1=int(np.count_nonzero(self.without_residual())),
            steps=self.steps,
            evaluations=self.evaluations,
        )
        return Optimum(self.point, self.rank, certificate)


def climb(
    likelihood: Likelihood[PointT],
    start: TraitAxes,
    rank: int,
    max_steps: int,
    tolerance: float = GAIN_TOLERANCE,
) -> Optimum[PointT]:
    """Climb from ``start`` to an optimum with C0 of at most this rank; its certificate says whether it got there.

    The climb ends when no step is predicted to raise the log-likelihood by more than the tolerance.
    """
    search = _Climb(likelihood, start, rank, tolerance)
    return search.settled(search.run(max_steps), max_steps)


def _cone_ascents(model: LocalModel) -> tuple[_Ascent, _Ascent]:
    """Ascents into the cones of C0 (as far as its rank may grow) and of C1."""
    point, chart, curvature = model.point, model.chart, model.curvature
    p = point.axes.c0.size
    rank = int(np.count_nonzero(chart.tau * point.axes.c0**2 >= BOUNDARY))
    room = p if chart.rank == p else chart.rank - rank
    return _ascent_into_cone(point.score0, curvature, 2, room), _ascent_into_cone(point.score1, curvature, 0, p)


def _gain(ascents: tuple[_Ascent, _Ascent]) -> float:
    return max(ascent.gain for ascent in ascents)


def _ascent_into_cone(score: Array, curvature: Curvature, power: int, room: int) -> _Ascent:
    """The best steps ``t vvᵀ`` into the cone, by leading eigenvectors v of the score; at most ``room`` of them."""
    values, vectors = np.linalg.eigh(score)
    gain, columns = 0.0, [np.zeros((score.shape[0], 0))]
    for slope, v in zip(values[::-1][: min(room, MOST_LEAVING)], vectors.T[::-1], strict=False):
        if slope <= 0 or (information := curvature.along(v, power)) <= 0:
            break
        gain += float(slope**2 / (2 * information))
        columns.append(np.sqrt(slope / information) * v[:, None])
    return _Ascent(gain, np.hstack(columns))
