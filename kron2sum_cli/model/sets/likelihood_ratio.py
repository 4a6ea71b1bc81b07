"""mtSet: the likelihood ratio test of a set of variants with random effects (Casale et al. 2015, Nat. Methods 12:755).

Effects ``vec(B) ~ N(0, C_r ⊗ W)`` add ``C_r ⊗ S W Sᵀ`` to the covariance of the null model, whose C0 and C1 stay as
they are. With ``C_r = T⁻¹ F Fᵀ T⁻ᵀ`` (F (p, k): rank k), ``z = vec(W^½ U)`` and its null covariance A, twice the gain
in the log-likelihood (of the contrasts without fixed effects) depends on z and A alone:

    LR(F) = z_Fᵀ (I + A_F)⁻¹ z_F - log|I + A_F|,      z_F = (Fᵀ ⊗ I) z,   A_F = (Fᵀ ⊗ I) A (F ⊗ I).

It is maximised over F. Under the null model z ~ N(0, A), so that the null distribution is simulated exactly, by drawing
s p numbers, without permuting genomes; the smaller P, the more often. As in the paper, its tail is that of a point mass
at 0 and of ``a χ²_d``, fitted to the largest tenth of the simulated values; below, P is the share of simulated values.
"""

from dataclasses import dataclass

import numpy as np
import scipy

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.sets.kernel_tests import KernelScores
from kron2sum_cli.model.sets.quadratic_forms import NO_VARIANCE
from kron2sum_cli.model.spectrum import Array, Indices
from kron2sum_cli.model.tail_probability import chi2_mlog10p

REPLICATES = ((200, 1.0), (1000, 0.2), (10_000, 0.02))
"""Simulated values of the null distribution, and the P below which there are so many. A tail that is fitted to 1,000
makes a P below 1e-4 a third too frequent."""

FITTED_SHARE = 0.1
"""Largest share of the simulated values that the tail is fitted to."""

NO_GAIN = 1e-6
"""A likelihood ratio below this counts as 0."""

SCALES = (0.15, 0.5, 1.5, 5.0)
"""Sizes of F that a maximisation starts from, in units of the scores' mean variance."""

MOST_STEPS, MOST_HALVINGS = 100, 25
"""Steps of a maximisation, and halvings of one."""

MOST_ENTRIES = 1 << 22
"""Entries of the matrices ``I + A_F`` that are held at a time."""


@dataclass(frozen=True)
class NullTail:
    """The null distribution of a likelihood ratio.

    The tail is ``positive · P(scale χ²_df > x)``, ``positive`` the share of values above 0; ``simulated`` (r,)
    increase.
    """

    simulated: Array
    positive: float
    scale: float
    df: float

    def mlog10p(self, lr: float) -> float:
        """-log10 P: of the fitted tail in the part that it was fitted to, of the simulated values below."""
        if lr <= NO_GAIN:
            return 0.0
        r = self.simulated.size
        above = r - int(np.searchsorted(self.simulated, lr))
        if above > FITTED_SHARE * r:
            return float(-np.log10((above + 1) / (r + 1)))
        return float(chi2_mlog10p(np.array([lr / self.scale]), self.df)[0] - np.log10(self.positive))


@dataclass(frozen=True)
class LikelihoodRatioTest:
    """The result of the likelihood ratio test of a set.

    ``lr`` is 0 where C_r = 0 is the most likely; ``C_r = T⁻¹ F Fᵀ T⁻ᵀ`` with F (p, k). P comes from so many
    ``replicates``, simulated values.
    """

    lr: float
    mlog10p: float
    F: Array
    replicates: int


@dataclass(frozen=True)
class _Problem:
    """Likelihood ratios of r replicates of the scores of a set, whose covariance is made of nb diagonal blocks.

    Scores are z (r, nb, p, m), and A (nb, q, m m) covariance matrices of the pairs of axes, ``first`` and ``second``
    (q,): p pairs where the axes are independent, else p p.
    """

    z: Array
    A: Array
    first: Indices
    second: Indices

    def take(self, which: Indices) -> "_Problem":
        """Some of the replicates."""
        return _Problem(self.z[which], self.A, self.first, self.second)

    def value_and_gradient(self, F: Array) -> tuple[Array, Array]:
        """``LR(F)`` (r,) and its gradient (r, p, k) for F (r, p, k)."""
        r, nb, _, m = self.z.shape
        k = F.shape[2]
        zF = (F.transpose(0, 2, 1)[:, None] @ self.z).reshape(r, nb, k * m)
        pairs = np.einsum("rqc,rqd->rcdq", F[:, self.first], F[:, self.second]).reshape(r, 1, k * k, -1)
        AF = (pairs @ self.A).reshape(r, nb, k, k, m, m).transpose(0, 1, 2, 4, 3, 5).reshape(r, nb, k * m, k * m)
        AF += np.eye(k * m)
        inverse, log_det = _inverse(AF)
        w = (inverse @ zF[..., None])[..., 0]
        value = np.sum(zF * w, axis=(1, 2)) - np.sum(log_det, axis=1)
        inverse += w[..., :, None] * w[..., None, :]
        N = inverse.reshape(r, nb, k, m, k, m).transpose(0, 1, 2, 4, 3, 5).reshape(r, nb, k * k, m * m)
        traces = np.sum(N @ self.A.transpose(0, 2, 1), axis=1).reshape(r, k, k, -1)
        gradient = 2 * np.sum(self.z @ w.reshape(r, nb, k, m).transpose(0, 1, 3, 2), axis=1)
        terms = np.einsum("rcdq,rqd->rqc", traces, F[:, self.second])
        for q, j in enumerate(self.first):
            gradient[:, j] -= 2 * terms[:, q]
        return np.asarray(value), gradient


def likelihood_ratio_test(kernel: KernelScores, rng: np.random.Generator) -> LikelihoodRatioTest:
    """Test a set by the likelihood ratio of random effects on all traits.

    Scores are along all p trait axes (kernel root ``F = I``); the null distribution is simulated. C_r has rank 1, as in
    the paper. Raises NumericalError where the scores have no variance.
    """
    scaled, mean = _scaled(kernel)
    found, F = maximise(scaled, scaled.z[None], 1)
    lr, simulated = float(found[0]), np.zeros(0)
    share = 0.0 if lr > NO_GAIN else 1.0
    for number, largest in REPLICATES:
        if share >= largest:
            break
        drawn = _simulate(scaled, rng, number - simulated.size)
        simulated = np.concatenate([simulated, maximise(scaled, drawn, 1)[0]])
        share = (np.count_nonzero(simulated >= lr) + 1) / (number + 1)
    mlog10p = fit_tail(simulated).mlog10p(lr) if share < FITTED_SHARE else float(np.log10(1 / share))
    return LikelihoodRatioTest(lr, mlog10p, F[0] / np.sqrt(mean), simulated.size)


def maximise(kernel: KernelScores, z: Array, rank: int) -> tuple[Array, Array]:
    """Largest likelihood ratios (r,) of replicates z (r, p, s) of the scores, and F (r, p, rank).

    First with the covariances made diagonal in the basis of their sum, from several starts, then as they are.
    """
    p, s = kernel.z.shape
    full = kernel.A if kernel.A.ndim == 4 else _between(kernel.A)
    vectors = np.linalg.eigh(np.einsum("jjab->ab", full))[1]
    q = np.argwhere(np.ones((p, p)) if kernel.A.ndim == 4 else np.eye(p))
    diagonal = np.einsum("jlab,ai,bi->ijl", full, vectors, vectors, optimize=True)[:, q[:, 0], q[:, 1], None]
    rough = _Problem((z @ vectors).transpose(0, 2, 1)[..., None], diagonal, q[:, 0], q[:, 1])
    exact = _Problem(z[:, None], full[q[:, 0], q[:, 1]].reshape(1, len(q), s * s), q[:, 0], q[:, 1])
    best, F = np.zeros(len(z)), np.zeros((len(z), p, rank))
    width = max(1, MOST_ENTRIES // (rank * s) ** 2)
    for start in range(0, len(z), width):
        part = np.arange(start, min(start + width, len(z)))
        best[part], F[part], _ = _climb(exact.take(part), *_rough_maximum(rough.take(part), z[part], full, rank))
    none = best <= NO_GAIN
    return np.where(none, 0.0, best), np.where(none[:, None, None], 0.0, F)


def fit_tail(simulated: Array) -> NullTail:
    """The null distribution of simulated likelihood ratios (r,).

    Scale and degrees of freedom minimise the squared differences of log P over the largest tenth of the values. Raises
    NumericalError where fewer than ten values are above 0.
    """
    values = np.sort(simulated)
    r = values.size
    positive = float(np.mean(values > NO_GAIN))
    top = values[r - max(10, int(FITTED_SHARE * r)) :]
    if top.size < 10 or top[0] <= NO_GAIN:
        raise NumericalError(f"fewer than 10 of {r} simulated likelihood ratios are above 0: they have no tail")
    expected = -np.log10((np.arange(top.size, 0, -1) - 0.5) / r)

    def differences(x: Array) -> Array:
        scale, df = np.exp(x)
        return np.asarray(chi2_mlog10p(top / scale, float(df)) - np.log10(positive) - expected)

    fitted = scipy.optimize.least_squares(
        differences, np.log([1.0, 1.0]), bounds=(np.log([0.05, 0.05]), np.log([20, 200]))
    )
    scale, df = np.exp(fitted.x)
    return NullTail(values, positive, float(scale), float(df))


def _inverse(A: Array) -> tuple[Array, Array]:
    """Inverses of positive definite matrices (..., q, q) and the logs of their determinants (...)."""
    if A.shape[-1] == 1:
        return 1 / A, np.asarray(np.log(A[..., 0, 0]))
    return np.asarray(np.linalg.inv(A)), np.asarray(np.linalg.slogdet(A)[1])


def _between(A: Array) -> Array:
    """Covariances of pairs of axes (p, p, s, s) from those of independent axes."""
    p, s = A.shape[:2]
    full = np.zeros((p, p, s, s))
    full[np.arange(p), np.arange(p)] = A
    return full


def _scaled(kernel: KernelScores) -> tuple[KernelScores, float]:
    """Scores in units of their root mean variance, and the mean variance."""
    mean = float(np.mean(np.einsum("kaa->ka", kernel.blocks)))
    if not mean > 0:
        raise NumericalError(NO_VARIANCE)
    return KernelScores(kernel.z / np.sqrt(mean), kernel.A / mean), mean


def _simulate(kernel: KernelScores, rng: np.random.Generator, replicates: int) -> Array:
    """Scores (r, p, s) drawn from their null distribution."""
    values, vectors = np.linalg.eigh(kernel.blocks)
    roots = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]
    drawn = rng.normal(size=(replicates, *roots.shape[:2]))
    return np.asarray(np.einsum("kab,rkb->rka", roots, drawn, optimize=True).reshape(replicates, *kernel.z.shape))


def _rough_maximum(problem: _Problem, z: Array, full: Array, rank: int) -> tuple[Array, Array]:
    """F (r, p, rank) of the best of several starts, climbed where the covariances are diagonal; its inverse Hessians.

    Near 0, ``LR(F) = tr Fᵀ(zzᵀ - E zzᵀ)F``: starts lie along the leading eigenvectors of that matrix.
    """
    excess = np.einsum("rja,rla->rjl", z, z) - np.einsum("jlaa->jl", full)
    _, vectors = np.linalg.eigh(excess)
    directions = [vectors[:, :, ::-1][:, :, :rank]]
    if rank == 1 and vectors.shape[1] > 1:
        directions.append(vectors[:, :, -2:-1])
    starts = [scale * direction for direction in directions for scale in SCALES]
    found = [problem.value_and_gradient(start)[0] for start in starts]
    best = np.argmax(found, axis=0)
    size = starts[0][0].size
    return _climb(problem, np.stack(starts)[best, np.arange(len(z))], np.tile(np.eye(size) * 0.1, (len(z), 1, 1)))[1:]


def _climb(problem: _Problem, F: Array, H: Array) -> tuple[Array, Array, Array]:
    """Maxima (r,) and F (r, p, k) by the BFGS method with a monotone line search, every replicate for itself.

    It begins with inverse Hessians H (r, p k, p k), of the sign of a maximum, and also returns those at its end.
    """
    shape = F.shape[1:]
    size = F[0].size
    F, H = F.copy(), H.copy()
    value, gradient = problem.value_and_gradient(F)
    active = np.arange(len(F))
    for _ in range(MOST_STEPS):
        g = gradient[active].reshape(-1, size)
        direction = np.einsum("rxy,ry->rx", H[active], g)
        longest = 1 + 2 * np.linalg.norm(F[active].reshape(-1, size), axis=1)
        direction /= np.maximum(1, np.linalg.norm(direction, axis=1) / longest)[:, None]
        slope = np.sum(g * direction, axis=1)
        going = slope > 1e-7
        active, direction, slope = active[going], direction[going], slope[going]
        if not active.size:
            break
        moved, old = _line_search(problem, active, (F, value, gradient), direction, slope)
        step = moved * direction
        change = old - gradient[active].reshape(-1, size)
        curvature = np.sum(step * change, axis=1)
        H[active] = _update(H[active], step, change, curvature)
        active = active[moved[:, 0] > 0]
    return value, F.reshape(-1, *shape), H


def _line_search(
    problem: _Problem, active: Indices, state: tuple[Array, Array, Array], direction: Array, slope: Array
) -> tuple[Array, Array]:
    """Steps (r, 1) that raise the likelihood ratio, 0 where none does, and the gradients before; changes the state."""
    F, value, gradient = state
    shape = F.shape[1:]
    old = gradient[active].reshape(len(active), -1).copy()
    length = np.ones((len(active), 1))
    taken = np.zeros((len(active), 1))
    open_ones = np.arange(len(active))
    for _ in range(MOST_HALVINGS):
        rows = active[open_ones]
        trial = F[rows] + (length[open_ones] * direction[open_ones]).reshape(-1, *shape)
        found, slopes = problem.take(rows).value_and_gradient(trial)
        better = found >= value[rows] + 1e-4 * length[open_ones, 0] * slope[open_ones]
        F[rows[better]], value[rows[better]], gradient[rows[better]] = trial[better], found[better], slopes[better]
        taken[open_ones[better]] = length[open_ones[better]]
        open_ones = open_ones[~better]
        length[open_ones] /= 2
        if not open_ones.size:
            break
    return taken, old


def _update(H: Array, step: Array, change: Array, curvature: Array) -> Array:
    """The BFGS update of inverse Hessians (r, q, q), where the curvature is that of a maximum."""
    good = curvature > 1e-12
    rho = np.where(good, 1 / np.where(good, curvature, 1.0), 0.0)
    left = np.eye(step.shape[1]) - rho[:, None, None] * step[:, :, None] * change[:, None, :]
    updated = left @ H @ left.transpose(0, 2, 1) + rho[:, None, None] * step[:, :, None] * step[:, None, :]
    return np.where(good[:, None, None], updated, H)
