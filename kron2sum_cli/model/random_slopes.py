"""Interactions where genetic and residual covariances of the traits change with the covariate, too: random slopes.

With e the covariate of the interaction, every sample has genetic and residual values at e = 0 and slopes on e,

    y_i = ... + u_i + e_i u'_i + r_i + e_i r'_i,    [u, u'] ~ N(0, Σg ⊗ GGᵀ),    [r, r'] ~ N(0, Σe ⊗ I),

Σg and Σe (2p, 2p): reaction norms of the animal breeders. The genetic covariance of the traits is C0 + e(S + Sᵀ) +
e²C0', and the residual one likewise; with no slopes it is the model of a scan. Σg and Σe are those that maximise the
restricted likelihood without a variant, and effects of variants are tested by generalised least squares there (Sul et
al. 2016, PLoS Genetics 12:e1005849, for one trait without residual slopes).

Nothing decouples this model: matrices are dense over the contrasts of all traits, (n - c)p, at every step of the fit,
and once for the variants tested.
"""

from dataclasses import dataclass

import numpy as np
import scipy
from scipy import linalg

from kron2sum_cli.errors import ConvergenceError
from kron2sum_cli.model.contrasts import Contrasts
from kron2sum_cli.model.fitting import FEW_ROWS
from kron2sum_cli.model.hypotheses import Statistic, TestContext, TestResult, compare
from kron2sum_cli.model.spectrum import Array, Floats

LARGEST = 10_000
"""Largest number of contrasts of all traits, (n - c)p, for which there are random slopes."""

FIRST_SHARE = 0.1
"""Variance of the slopes from which the search starts, over that of the values."""

NOISE = 0.1
"""What is added to the factors there, in standard deviations: where entries of one are 0 its gradient may be, too."""

FURTHER_STARTS, FURTHER_NOISE = 7, 1.0
"""Where contrasts are few (`FEW_ROWS`) there can be several maxima: so many further searches, from so much noise."""

STEPS_OF_ROUND, MAX_ROUNDS = 30, 40
"""Steps of a search between two looks at the curvature, and how often that is looked at."""

LEAST_CURVATURE = 1e-6
"""Smallest curvature of a direction in which lengths are measured, over the largest."""

LEAST_SLOPE, LEAST_GAIN = 1e-8, 10
"""Gradient in units of the curvature, and gain in units of rounding, below which a search ends: χ² is off by the root
of what the likelihood could still gain."""

CONVERGED = 1e-6
"""Largest gain in log-likelihood that one more step is predicted to have at the end of a search."""

NO_MAXIMUM = "the search of the variance components of random slopes did not converge"


@dataclass(frozen=True)
class SlopesData:
    """Contrasts of the traits, and what their covariance is made of.

    ``Q`` (n, m) is an orthonormal basis of what is orthogonal to the covariates, and ``y`` (pm,) is ``QᵀY``, trait
    after trait. ``K`` (2, 2, m, m) are ``QᵀDᵃGGᵀDᵇQ``, D the diagonal matrix of e, and ``R`` (2, 2, m, m) are
    ``QᵀDᵃ⁺ᵇQ``.
    """

    Q: Array
    y: Array
    K: Array
    R: Array

    @property
    def ntraits(self) -> int:
        """Number of traits, p."""
        return int(self.y.size // self.Q.shape[1])


@dataclass(frozen=True)
class SlopesPoint:
    """The restricted likelihood at one (Σg, Σe).

    ``factors`` (2, 2p, 2p) are lower triangular L of Σg and of Σe, which are LLᵀ; their rows are the values of all
    traits, then the slopes. ``root`` (pm, pm) is the lower Cholesky factor of V, the covariance of y, and ``alpha``
    (pm,) ``V⁻¹y``.
    """

    lml: float
    factors: Array
    root: Array
    alpha: Array


def slopes_data_of(contrasts: Contrasts, Qx: Array, covariate: Array) -> SlopesData:
    """`slopes_data` of the contrasts of a null model (in double precision) with covariates of basis Qx (n, c)."""
    V = contrasts.V
    across = V @ contrasts.Kxm.T @ Qx.T
    relationship = (V * contrasts.s) @ V.T + across + across.T + Qx @ contrasts.Kxx @ Qx.T
    return slopes_data(contrasts.to_samples(contrasts.Z), Qx, relationship, covariate)


def slopes_data(Y: Array, X: Array, relationship: Array, covariate: Array) -> SlopesData:
    """Traits Y (n, p) and covariates X (n, c), of full column rank, with GGᵀ (n, n) and the covariate e (n,)."""
    n, c = X.shape
    Q = np.asarray(linalg.qr(X)[0][:, c:], np.float64) if c else np.eye(n)
    scaled = (Q, covariate[:, None] * Q)
    K = np.array([[one.T @ relationship @ other for other in scaled] for one in scaled])
    R = np.array([[one.T @ other for other in scaled] for one in scaled])
    return SlopesData(Q, (Q.T @ Y).T.ravel(), K, R)


def evaluate_slopes(data: SlopesData, factors: Array) -> SlopesPoint | None:
    """The likelihood; None where the covariance is singular."""
    p, m = data.ntraits, data.Q.shape[1]
    V = np.empty((p, m, p, m))
    blocks = [(L @ L.T).reshape(2, p, 2, p) for L in factors]
    for t, s in zip(*np.tril_indices(p), strict=True):
        V[t, :, s] = sum(
            np.tensordot(block[:, t, :, s], M, axes=2) for block, M in zip(blocks, (data.K, data.R), strict=True)
        )
        V[s, :, t] = V[t, :, s].T
    try:
        root = linalg.cholesky(V.reshape(p * m, p * m), lower=True, overwrite_a=True, check_finite=False)
    except linalg.LinAlgError:
        return None
    alpha = np.asarray(linalg.cho_solve((root, True), data.y))
    lml = -0.5 * (data.y.size * np.log(2 * np.pi) + 2 * np.log(np.diag(root)).sum() + data.y @ alpha)
    return SlopesPoint(float(lml), factors, root, alpha)


def gradient_of_factors(data: SlopesData, point: SlopesPoint) -> Array:
    """Gradient (k,) of the log-likelihood by the entries of the lower triangles of both factors."""
    entries = np.tril_indices(2 * data.ntraits)
    return np.concatenate([(S @ L)[entries] for S, L in zip(_scores(data, point), point.factors, strict=True)])


def _scores(data: SlopesData, point: SlopesPoint) -> Array:
    """Twice the gradient of the log-likelihood by Σg and by Σe: (2, 2p, 2p)."""
    p, m = data.ntraits, data.Q.shape[1]
    lower = np.tril(linalg.lapack.dpotri(point.root, lower=1)[0])
    blocks, by_trait = (lower + np.tril(lower, -1).T).reshape(p, m, p, m), point.alpha.reshape(p, m)
    scores = []
    for M in (data.K, data.R):
        outer = np.einsum("ti,abij,sj->atbs", by_trait, M, by_trait, optimize=True)
        traces = np.einsum("tisj,abij->atbs", blocks, M, optimize=True)
        scores.append((outer - traces).reshape(2 * p, 2 * p))
    return np.array(scores)


def curvature_of_factors(data: SlopesData, point: SlopesPoint) -> Array:
    """Curvature (k, k) of the log-likelihood in the same entries, made positive definite.

    The average information, and what the map from factors to covariances adds, ``-tr(EᵀSE)`` for a change E of a factor
    and the score S; of the eigenvalues the absolute values, and `LEAST_CURVATURE` of the largest at least.
    """
    p, m = data.ntraits, data.Q.shape[1]
    rows, columns = np.tril_indices(2 * p)
    moved = []
    for M, L in zip((data.K, data.R), point.factors, strict=True):
        of_alpha = np.einsum("abij,sj->abis", M, point.alpha.reshape(p, m))
        for i, j in zip(rows, columns, strict=True):
            change = np.zeros((2 * p, 2 * p))
            change[i] = L[:, j]
            both = (change + change.T).reshape(2, p, 2, p)
            moved.append(np.einsum("atbs,abis->ti", both, of_alpha).ravel())
    half = linalg.solve_triangular(point.root, np.array(moved).T, lower=True, check_finite=False)
    same_column = columns[:, None] == columns
    of_map = [np.where(same_column, S[rows[:, None], rows], 0.0) for S in _scores(data, point)]
    values, vectors = np.linalg.eigh(0.5 * half.T @ half - linalg.block_diag(*of_map))
    sizes = np.maximum(np.abs(values), LEAST_CURVATURE * np.abs(values).max())
    return np.asarray((vectors * sizes) @ vectors.T)


def fit_slopes(data: SlopesData, C0: Array, C1: Array) -> SlopesPoint:
    """Maximise the restricted likelihood, from covariances C0 and C1 (p, p) without slopes.

    The highest maximum that is found, where there can be several. Raises ConvergenceError where no search ends at one.
    """
    few = data.Q.shape[1] < FEW_ROWS * data.ntraits
    start = np.array([np.linalg.cholesky(_with_slopes(C, C0 + C1)) for C in (C0, C1)])
    rng = np.random.default_rng(0)
    found = []
    for noise in [NOISE] + [FURTHER_NOISE] * FURTHER_STARTS * few:
        drawn = np.tril(rng.standard_normal(start.shape))
        point = evaluate_slopes(data, start + noise * np.linalg.norm(start, axis=2)[:, :, None] * drawn)
        found.append(None if point is None else _climb(data, point))
    ends = [point for point in found if point is not None]
    if not ends:
        raise ConvergenceError(NO_MAXIMUM)
    return max(ends, key=lambda point: point.lml)


def _climb(data: SlopesData, point: SlopesPoint) -> SlopesPoint | None:
    """The maximum above a point, by rounds of L-BFGS in units of the curvature; None where it is not reached."""
    for _ in range(MAX_ROUNDS):
        higher = _round_of_steps(data, point)
        gain = higher.lml - point.lml
        point = higher
        if gain <= LEAST_GAIN * np.finfo(np.float64).eps * abs(point.lml):
            break
    gradient = gradient_of_factors(data, point)
    left = 0.5 * gradient @ np.linalg.solve(curvature_of_factors(data, point), gradient)
    return point if left <= CONVERGED else None


def _round_of_steps(data: SlopesData, point: SlopesPoint) -> SlopesPoint:
    """A point that is as high as this one or higher."""
    rows, columns = np.tril_indices(2 * data.ntraits)
    root = np.linalg.cholesky(curvature_of_factors(data, point))

    def moved(x: Array) -> SlopesPoint | None:
        factors = point.factors.copy()
        factors[:, rows, columns] += linalg.solve_triangular(root.T, x).reshape(2, -1)
        return evaluate_slopes(data, factors)

    def objective(x: Array) -> tuple[float, Array]:
        here = moved(x)
        if here is None:
            return np.inf, np.zeros_like(x)
        return -here.lml, -linalg.solve_triangular(root, gradient_of_factors(data, here), lower=True)

    x = scipy.optimize.fmin_l_bfgs_b(
        objective, np.zeros(2 * rows.size), m=30, factr=LEAST_GAIN, pgtol=LEAST_SLOPE, maxiter=STEPS_OF_ROUND
    )[0]
    end = moved(x)
    return point if end is None or end.lml < point.lml else end


def _with_slopes(C: Array, total: Array) -> Array:
    """A covariance of values C (p, p), positive definite, with that of slopes in proportion: (2p, 2p)."""
    return np.asarray(np.kron(np.diag([1.0, FIRST_SHARE]), C + 1e-2 * np.diag(np.diag(total))))


@dataclass(frozen=True)
class SlopesTests:
    """Tests of b variants with random slopes: of the interaction given the variant's own effects, and of both jointly.

    ``beta`` and ``se`` (b, p) are effects of the interaction on the traits.
    """

    interaction: TestResult
    joint: TestResult
    beta: Array
    se: Array


def slopes_tests(data: SlopesData, point: SlopesPoint, G: Floats, H: Floats, statistic: Statistic) -> SlopesTests:
    """Test variants G (n, b) and their products H (n, b) with the covariate."""
    p, b = data.ntraits, G.shape[1]
    rest = linalg.solve_triangular(point.root, data.y, lower=True, check_finite=False)
    quadratic, size = float(rest @ rest), data.y.size
    context = TestContext(np.eye(p), quadratic, size, size, statistic)
    first, both, beta, variance = np.empty(b), np.empty(b), np.empty((b, p)), np.empty((b, p))
    rows = [data.Q.T @ one.astype(np.float64) for one in (G, H)]
    for k in range(b):
        columns = np.hstack([np.kron(np.eye(p), one[:, [k]]) for one in rows])
        white = linalg.solve_triangular(point.root, columns, lower=True, check_finite=False)
        basis, R = np.linalg.qr(white)
        along = basis.T @ rest
        first[k], both[k] = np.sum(along[:p] ** 2), np.sum(along**2)
        inverse = linalg.solve_triangular(R, np.eye(2 * p))
        beta[k], variance[k] = (inverse @ along)[p:], np.sum(inverse[p:] ** 2, axis=1)
    scale = context.left(both)[:, None] / size
    return SlopesTests(
        interaction=compare(first, both, p, 2 * p, context),
        joint=compare(np.zeros(b), both, 0, 2 * p, context),
        beta=beta,
        se=np.sqrt(scale * variance),
    )


def slope_shares(point: SlopesPoint) -> tuple[Array, Array]:
    """Of every trait (p,) the variance of genetic and of residual slopes, over that of the values."""
    p = point.factors.shape[1] // 2
    sizes = [np.sum(L**2, axis=1) for L in point.factors]
    return sizes[0][p:] / sizes[0][:p], sizes[1][p:] / sizes[1][:p]
