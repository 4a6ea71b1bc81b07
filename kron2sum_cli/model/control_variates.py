"""Statistics of simulated traits whose means are known: control variates of a likelihood ratio's mean.

Traits with known covariances ``K = C0 ⊗ GGᵀ + C1 ⊗ I`` and no effects have the residuals ``α = Py``, ``α ~ N(0, P)``,
P the inverse of K on the contrasts. With a variant, whose effects make the columns M, it is
``P1 = P - PM (MᵀPM)⁻¹ MᵀP``. The χ² of these effects at the known K has as many degrees of freedom as M has columns.
A likelihood ratio differs from it because C0 and C1 are estimated, once without and once with the variant. With the
scores S of C0 and C1 at K without the variant, those with it, ``S + δ``, and their information J, taken as the same,

- to first order by the change of the χ² along ``J⁻¹S``, whose mean over S is 0;
- to second order by ``(S + δ)ᵀ J⁻¹ (S + δ) - SᵀJ⁻¹S``. Entries of S are ``½ (αᵀ∂K α - tr P∂K)``. Normal quadratic
  forms have the covariance ``½ tr(P ∂K P ∂K')``, so its mean is ``mᵀJ⁻¹m + tr J⁻¹Δ`` with ``m = -½ tr (P - P1)∂K`` and
  ``Δ = ½ tr(P1 ∂K P1 ∂K') - ½ tr(P ∂K P ∂K')``, whether or not J is the right information.

Rows are independent along the trait axes, so all of these are sums over rows. Where they are not (missing cells, and
families' covariates), the first order is approximate in its size, not in its mean, and there is no second order.
"""

from dataclasses import dataclass

import numpy as np

from kron2sum_cli.model.block_scanner import BlockStatistics, PairStatistics
from kron2sum_cli.model.hypotheses import orthonormal, reduction
from kron2sum_cli.model.information import inverse_of_pairs
from kron2sum_cli.model.likelihood import LikelihoodPoint
from kron2sum_cli.model.spectrum import Array


@dataclass(frozen=True)
class RowSums:
    """Sums over the rows for b variants of k columns x, weights w (m, p) along the axes, and residuals α.

    - ``squares`` (2, b, k, k, p, p): ``Σ_i s_i^r w_ij w_il x_ic x_id`` for r = 0, 1.
    - ``cubes`` (3, b, k, k, p, p): ``Σ_i s_i^r w_ij w_il² x_ic x_id`` for r = 0, 1, 2.
    - ``residuals`` (2, b, k, p, p): ``Σ_i s_i^r α_ij w_il x_ic`` for r = 0, 1.

    There are no cubes and residuals where rows are not independent.
    """

    squares: Array
    cubes: Array | None = None
    residuals: Array | None = None


@dataclass(frozen=True)
class Truth:
    """The covariances that traits were simulated from, and the scores of the simulated traits there.

    Trait axes ``T`` (p, p), and eigenvalues ``s`` (m,) of the rows with their information ``weights`` (m, p) along the
    axes. Of C1 and C0, in this order, the ``scores`` (2, p, p) and the ``inverse`` information (2, 2, p, p) of every
    pair of axes, as `inverse_of_pairs` gives it. ``alpha`` (m, p) are the residuals where rows are independent.
    """

    T: Array
    s: Array
    weights: Array
    scores: Array
    inverse: Array
    alpha: Array | None

    @staticmethod
    def at(point: LikelihoodPoint, s: Array, alpha: Array | None = None) -> "Truth":
        """From the likelihood of the simulated traits at these covariances."""
        of_C0, of_both, of_C1 = inverse_of_pairs(point.axes, point.grams)
        inverse = np.array([[of_C1, of_both], [of_both, of_C0]])
        scores = np.array([point.score1, point.score0])
        return Truth(point.axes.T, s, point.information_of_rows, scores, inverse, alpha)

    def of_variants(self, statistics: BlockStatistics, rows: Array) -> "AtTruth":
        """What is known of variants with rotated columns (m, b)."""
        return AtTruth(self, self.T, statistics.u, statistics.v, self._sums(rows[:, :, None]))

    def of_pairs(self, pairs: PairStatistics, columns: Array) -> "AtTruth":
        """What is known of two rotated columns (m, b, 2) a variant, along 2p axes: the first, then the second."""
        p, b = len(self.T), len(pairs.cross)
        v = np.empty((b, 2, p, 2, p))
        turned = pairs.cross.transpose(0, 2, 1) if pairs.cross.ndim == 3 else pairs.cross
        both = (pairs.first.v, pairs.cross), (turned, pairs.second.v)
        for one, other in np.ndindex(2, 2):
            block = both[one][other]
            v[:, one, :, other] = block if block.ndim == 3 else block.reshape(b, p, 1) * np.eye(p)
        T, u = np.asarray(np.kron(np.eye(2), self.T), np.float64), np.hstack([pairs.first.u, pairs.second.u])
        return AtTruth(self, T, u, v.reshape(b, 2 * p, 2 * p), self._sums(columns))

    @property
    def step(self) -> Array:
        """The step of Fisher scoring from C1 and C0: (2, p, p)."""
        return np.asarray(2 * np.einsum("rtjl,tjl->rjl", self.inverse, self.scores))

    def _sums(self, columns: Array) -> RowSums:
        """Those of variants with rotated columns (m, b, k)."""
        (m, p), (b, k) = self.weights.shape, columns.shape[1:]
        squares = (columns[:, :, :, None] * columns[:, :, None, :]).reshape(m, -1)

        def sums(of_variants: Array, one: Array, other: Array, powers: int) -> Array:
            pairs = (one[:, :, None] * other[:, None, :]).reshape(m, p * p)
            return np.array([(of_variants * self.s[:, None] ** r).T @ pairs for r in range(powers)])

        of_squares = sums(squares, self.weights, self.weights, 2).reshape(2, b, k, k, p, p)
        if self.alpha is None:
            return RowSums(of_squares)
        return RowSums(
            squares=of_squares,
            cubes=sums(squares, self.weights, self.weights**2, 3).reshape(3, b, k, k, p, p),
            residuals=sums(columns.reshape(m, -1), self.alpha, self.weights, 2).reshape(2, b, k, p, p),
        )


@dataclass(frozen=True)
class AtTruth:
    """What is known of b variants of k columns at the covariances that traits were simulated from.

    Score ``u`` (b, kp) and information ``v`` (b, kp) or (b, kp, kp) along the axes ``T`` (kp, kp) of all columns.
    """

    truth: Truth
    T: Array
    u: Array
    v: Array
    sums: RowSums

    def chisq(self, design: Array) -> Array:
        """χ² (b,) of effects in the span of the design (kp, e); its mean is the rank of the design."""
        return reduction(self.u, self.v, design, self.T)

    def controls(self, design: Array) -> Array:
        """What the estimates of C0 and C1 change of that χ², less its mean, to first and to second order: (2, b).

        (1, b) where the second is not known.
        """
        inverse = self._inverse_information(design)
        found = [self._first_order(inverse)]
        if self.sums.cubes is not None and self.sums.residuals is not None:
            found.append(self._second_order(inverse, self.sums.cubes, self.sums.residuals))
        return np.array(found)

    def _inverse_information(self, design: Array) -> Array:
        """``D (DᵀVD)⁻¹ Dᵀ`` (b, k, p, k, p), D the design along the axes."""
        b, p = len(self.u), len(self.truth.T)
        V = self.v if self.v.ndim == 3 else self.v[:, :, None] * np.eye(self.v.shape[1])
        D = orthonormal(self.T @ design)
        return np.asarray(D @ np.linalg.inv(D.T @ V @ D) @ D.T).reshape(b, -1, p, self.T.shape[0] // p, p)

    def _first_order(self, inverse: Array) -> Array:
        """``-tr[(DᵀVD)⁻¹ Dᵀ (M1ᵀP ∂K P M1) D]`` with ∂K of a step of Fisher scoring, M1 the columns on every axis."""
        return -np.asarray(np.einsum("bcjdl,rbcdjl,rjl->b", inverse, self.sums.squares, self.truth.step, optimize=True))

    def _second_order(self, inverse: Array, cubes: Array, residuals: Array) -> Array:
        """``(S + δ)ᵀ J⁻¹ (S + δ) - SᵀJ⁻¹S`` less its mean."""
        squares, J, S = self.sums.squares, self.truth.inverse, self.truth.scores[:, None]
        effects = np.einsum("bcjdl,bdl->bcj", inverse, self.u.reshape(inverse.shape[:3]))
        moved = np.einsum("rbcjl,bcl->rbjl", residuals, effects)
        both = np.einsum("rbcdjl,bcj,bdl->rbjl", squares, effects, effects, optimize=True)
        change = 0.5 * (both - moved - moved.swapaxes(2, 3))
        mean = -0.5 * np.einsum("rbcdjl,bcjdl->rbjl", squares, inverse)
        found = np.einsum("rtjl,rbjl,tbjl->b", J, 2 * S + change, change, optimize=True)
        expected = np.einsum("rtjl,rbjl,tbjl->b", J, mean, mean, optimize=True)
        expected += np.einsum("rtjl,rtbjl->b", J, self._lost_variance(inverse, cubes))
        return np.asarray(2 * (found - expected))

    def _lost_variance(self, inverse: Array, cubes: Array) -> Array:
        """``½ tr(P1 ∂K P1 ∂K') - ½ tr(P ∂K P ∂K')`` of C1 and C0 at every pair of axes, (2, 2, b, p, p).

        With ``P - P1 = ZZᵀ`` it is ``½ tr(Zᵀ∂KZ Zᵀ∂K'Z) - tr(Zᵀ∂K P ∂K'Z)``.
        """
        p, squares = len(self.truth.T), self.sums.squares
        once = np.einsum("bcldl,qbcdjl->qbjl", inverse, cubes)
        once = 0.25 * (1 + np.eye(p)) * (once + once.swapaxes(2, 3))
        twice = np.einsum("bcjdj,rbdejl,belfl,tbcfjl->rtbjl", inverse, squares, inverse, squares, optimize=True)
        twice += np.einsum("rbcdjl,bdlej,tbefjl,bflcj->rtbjl", squares, inverse, squares, inverse, optimize=True)
        return np.asarray(0.25 * twice - once[np.array([[0, 1], [1, 2]])])


def mean_by_controls(values: Array, controls: Array) -> tuple[float, float]:
    """Mean of values (t,) less what controls of mean 0 (t, k) explain of them by least squares, and its standard error.

    Glasserman (2003), Monte Carlo Methods in Financial Engineering, section 4.1. A control that does not vary explains
    nothing.
    """
    X = np.column_stack([np.ones(len(values)), controls])
    inverse = np.linalg.pinv(X)
    coefficients = inverse @ values
    left = values - X @ coefficients
    variance = left @ left / max(len(values) - int(np.linalg.matrix_rank(X)), 1)
    return float(coefficients[0]), float(np.sqrt(variance) * np.linalg.norm(inverse[0]))
