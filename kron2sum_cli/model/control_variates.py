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

Rows of complete traits are independent along the trait axes: all of these are sums over rows (`Rows`). Elsewhere
(missing cells, and families) they are products with P over the samples (`Projection`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kron2sum_cli.model.block_scanner import BlockStatistics, PairStatistics
from kron2sum_cli.model.hypotheses import orthonormal, reduction
from kron2sum_cli.model.information import inverse_of_pairs, pair_positions
from kron2sum_cli.model.likelihood import LikelihoodPoint
from kron2sum_cli.model.spectrum import Array, parts_of
from kron2sum_cli.model.trait_axes import pairs_of_axes

ENTRIES_AT_ONCE = 1 << 21
"""Number of entries of data sets that are projected at once."""


@dataclass(frozen=True)
class Truth:
    """The covariances that traits were simulated from, and the scores of the simulated traits there.

    Trait axes ``T`` (p, p). Of C1 and C0, in this order, the ``scores`` (2, p, p) and the ``inverse`` information
    (2, 2, p, p) of every pair of axes, as `inverse_of_pairs` gives it.
    """

    T: Array
    scores: Array
    inverse: Array

    @staticmethod
    def at(point: LikelihoodPoint) -> "Truth":
        """From the likelihood of the simulated traits at these covariances."""
        of_C0, of_both, of_C1 = inverse_of_pairs(point.axes, point.grams)
        inverse = np.array([[of_C1, of_both], [of_both, of_C0]])
        return Truth(point.axes.T, np.array([point.score1, point.score0]), inverse)

    @property
    def step(self) -> Array:
        """The step of Fisher scoring from C1 and C0: (2, p, p)."""
        return np.asarray(2 * np.einsum("rtjl,tjl->rjl", self.inverse, self.scores))


@dataclass(frozen=True)
class Along:
    """Score ``u`` (b, kp) and information ``v`` (b, kp) or (b, kp, kp) of b variants of k columns along T (kp, kp).

    Axes are those of the first column, then those of the second.
    """

    T: Array
    u: Array
    v: Array

    @staticmethod
    def of_variants(statistics: BlockStatistics, T: Array) -> "Along":
        """Of one column a variant, along the trait axes T (p, p)."""
        return Along(T, statistics.u, statistics.v)

    @staticmethod
    def of_pairs(pairs: PairStatistics, T: Array) -> "Along":
        """Of two columns a variant, each along the trait axes T (p, p)."""
        p, b = len(T), len(pairs.cross)
        v = np.empty((b, 2, p, 2, p))
        turned = pairs.cross.transpose(0, 2, 1) if pairs.cross.ndim == 3 else pairs.cross
        both = (pairs.first.v, pairs.cross), (turned, pairs.second.v)
        for one, other in np.ndindex(2, 2):
            block = both[one][other]
            v[:, one, :, other] = block if block.ndim == 3 else block.reshape(b, p, 1) * np.eye(p)
        of_both, u = np.asarray(np.kron(np.eye(2), T), np.float64), np.hstack([pairs.first.u, pairs.second.u])
        return Along(of_both, u, v.reshape(b, 2 * p, 2 * p))

    def half_covariance(self, design: Array) -> Array:
        """H (b, kp, e) with ``HHᵀ = D (DᵀVD)⁻¹ Dᵀ``, D the design (kp, e) along the axes."""
        V = self.v if self.v.ndim == 3 else self.v[:, :, None] * np.eye(self.v.shape[1])
        D = orthonormal(self.T @ design)
        root = np.linalg.cholesky(D.T @ V @ D)
        return np.asarray(np.linalg.solve(root, np.broadcast_to(D.T, (len(V), *D.T.shape))).transpose(0, 2, 1))


@dataclass(frozen=True)
class AtTruth(ABC):
    """What is known of b variants of k columns at the covariances that traits were simulated from."""

    truth: Truth
    along: Along

    def chisq(self, design: Array) -> Array:
        """χ² (b,) of effects in the span of the design (kp, e); its mean is the rank of the design."""
        return reduction(self.along.u, self.along.v, design, self.along.T)

    def controls(self, design: Array) -> Array:
        """What the estimates of C0 and C1 change of that χ², less its mean, to first and to second order: (2, b)."""
        if design.shape[1] == 0:
            return np.zeros((2, len(self.along.u)))
        half = self.along.half_covariance(design)
        mean, change, lost = self.changes(half)
        first = 2 * np.einsum("rjl,rbjl->b", self.truth.step, mean)
        J, S = self.truth.inverse, self.truth.scores[:, None]
        found = np.einsum("rtjl,rbjl,tbjl->b", J, 2 * S + change, change, optimize=True)
        expected = np.einsum("rtjl,rbjl,tbjl->b", J, mean, mean, optimize=True)
        expected += np.einsum("rtjl,rtbjl->b", J, lost)
        return np.array([first, 2 * (found - expected)])

    @abstractmethod
    def changes(self, half: Array) -> tuple[Array, Array, Array]:
        """What the variant changes in the scores of C1 and C0 at every pair of axes.

        ``half`` (b, kp, e) is as `Along.half_covariance` has it. The mean m (2, b, p, p); what is found, less
        ``½ tr(P - P1)∂K``, (2, b, p, p); and Δ (2, 2, b, p, p).
        """


@dataclass(frozen=True)
class Rows:
    """Rows that are independent along the trait axes.

    Eigenvalues ``s`` (m,), inverse variances ``weights`` (m, p) and residuals ``alpha`` (m, p).
    """

    s: Array
    weights: Array
    alpha: Array

    def known(self, truth: Truth, along: Along, columns: Array) -> "AtTruth":
        """What is known of variants with rotated columns (m, b, k)."""
        (m, p), (b, k) = self.weights.shape, columns.shape[1:]
        squares = (columns[:, :, :, None] * columns[:, :, None, :]).reshape(m, -1)

        def sums(of_variants: Array, one: Array, other: Array, powers: int) -> Array:
            pairs = (one[:, :, None] * other[:, None, :]).reshape(m, p * p)
            return np.array([(of_variants * self.s[:, None] ** r).T @ pairs for r in range(powers)])

        return SumsOverRows(
            truth=truth,
            along=along,
            squares=sums(squares, self.weights, self.weights, 2).reshape(2, b, k, k, p, p),
            cubes=sums(squares, self.weights, self.weights**2, 3).reshape(3, b, k, k, p, p),
            residuals=sums(columns.reshape(m, -1), self.alpha, self.weights, 2).reshape(2, b, k, p, p),
        )


@dataclass(frozen=True)
class SumsOverRows(AtTruth):
    """Of rows that are independent: sums over the rows for columns x, weights w along the axes, and residuals α.

    - ``squares`` (2, b, k, k, p, p): ``Σ_i s_i^r w_ij w_il x_ic x_id`` for r = 0, 1.
    - ``cubes`` (3, b, k, k, p, p): ``Σ_i s_i^r w_ij w_il² x_ic x_id`` for r = 0, 1, 2.
    - ``residuals`` (2, b, k, p, p): ``Σ_i s_i^r α_ij w_il x_ic`` for r = 0, 1.
    """

    squares: Array
    cubes: Array
    residuals: Array

    def changes(self, half: Array) -> tuple[Array, Array, Array]:
        """See `AtTruth.changes`."""
        b, p = len(half), len(self.truth.T)
        inverse = (half @ half.transpose(0, 2, 1)).reshape(b, -1, p, half.shape[1] // p, p)
        effects = np.einsum("bcjdl,bdl->bcj", inverse, self.along.u.reshape(inverse.shape[:3]))
        moved = np.einsum("rbcjl,bcl->rbjl", self.residuals, effects)
        both = np.einsum("rbcdjl,bcj,bdl->rbjl", self.squares, effects, effects, optimize=True)
        mean = -0.5 * np.einsum("rbcdjl,bcjdl->rbjl", self.squares, inverse)
        return mean, 0.5 * (both - moved - moved.swapaxes(2, 3)), self._lost_variance(inverse)

    def _lost_variance(self, inverse: Array) -> Array:
        """``½ tr(P1 ∂K P1 ∂K') - ½ tr(P ∂K P ∂K')`` of C1 and C0 at every pair of axes, (2, 2, b, p, p).

        With ``P - P1 = ZZᵀ`` it is ``½ tr(Zᵀ∂KZ Zᵀ∂K'Z) - tr(Zᵀ∂K P ∂K'Z)``.
        """
        p, squares = len(self.truth.T), self.squares
        once = np.einsum("bcldl,qbcdjl->qbjl", inverse, self.cubes)
        once = 0.25 * (1 + np.eye(p)) * (once + once.swapaxes(2, 3))
        twice = np.einsum("bcjdj,rbdejl,belfl,tbcfjl->rtbjl", inverse, squares, inverse, squares, optimize=True)
        twice += np.einsum("rbcdjl,bdlej,tbefjl,bflcj->rtbjl", squares, inverse, squares, inverse, optimize=True)
        return np.asarray(0.25 * twice - once[np.array([[0, 1], [1, 2]])])


@dataclass(frozen=True)
class Projection:
    """P over the samples.

    ``project`` takes data sets F (n, p, k) along the axes to PF, ``related`` (n, k) to ``GGᵀF``, and ``alpha`` (n, p)
    are the residuals.
    """

    project: Callable[[Array], Array]
    related: Callable[[Array], Array]
    alpha: Array

    def known(self, truth: Truth, along: Along, columns: Array) -> "AtTruth":
        """What is known of variants with columns (n, b, k)."""
        p = self.alpha.shape[1]
        n, b, k = columns.shape
        on_axes = np.einsum("nbc,ja->nabcj", columns, np.eye(p)).reshape(n, p, -1)
        return ProductsOverSamples(truth, along, self, self.project(on_axes).reshape(n, p, b, k * p))


@dataclass(frozen=True)
class ProductsOverSamples(AtTruth):
    """Of samples that are not independent; ``projected`` (n, p, b, kp) are the columns on every axis times P."""

    over: Projection
    projected: Array

    def changes(self, half: Array) -> tuple[Array, Array, Array]:
        """See `AtTruth.changes`."""
        found = [
            self._of_variant(self.projected[:, :, k] @ half[k], self.along.u[k] @ half[k]) for k in range(len(half))
        ]
        mean, change, lost = zip(*found, strict=True)
        return np.stack(mean, axis=1), np.stack(change, axis=1), np.stack(lost, axis=2)

    def _of_variant(self, Z: Array, scores: Array) -> tuple[Array, Array, Array]:
        """Of one variant, ``P - P1 = ZZᵀ`` with Z (n, p, e), and ``Zᵀy`` (e,)."""
        both = np.stack([Z, self.over.related(Z.reshape(len(Z), -1)).reshape(Z.shape)])
        fitted = both @ scores
        moved = self.over.alpha.T @ fitted
        change = 0.5 * (fitted[0].T @ fitted - moved - moved.swapaxes(1, 2))
        products = np.tensordot(Z, both, axes=(0, 1)).transpose(2, 0, 3, 1, 4)
        mean = -0.5 * np.einsum("rjlee->rjl", products)
        symmetric = 0.5 * (products + products.swapaxes(1, 2))
        twice = np.einsum("rjlef,tjlef->rtjl", symmetric, symmetric)
        return mean, change, 0.5 * twice - self._once(both)

    def _once(self, both: Array) -> Array:
        """``tr(Zᵀ∂K P ∂K'Z)`` (2, 2, p, p) of Z and ``GGᵀZ``, both (n, p, e)."""
        _, n, p, e = both.shape
        rows, columns = pairs_of_axes(p)
        found = np.empty((2, 2, rows.size))
        for some in parts_of(rows.size, max(1, ENTRIES_AT_ONCE // (2 * n * p * e))):
            here = np.eye(p)[rows[some]], np.eye(p)[columns[some]]
            moved = sum(
                np.einsum("qj,rnqe->njrqe", at, both[:, :, of])
                for at, of in zip(here, (columns[some], rows[some]), strict=True)
            )
            projected = self.over.project(0.5 * moved.reshape(n, p, -1)).reshape(moved.shape)
            found[:, :, some] = np.einsum("njrqe,njtqe->rtq", 0.5 * moved, projected, optimize=True)
        return np.asarray(found[:, :, pair_positions(p)])


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
