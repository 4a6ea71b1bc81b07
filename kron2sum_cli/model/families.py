"""A block-diagonal relationship matrix: families that are unrelated to each other.

Where GGᵀ falls into blocks, so does its eigendecomposition: ``GGᵀ = U diag(s) Uᵀ`` with U block-diagonal, a block for
every family, 1 for a sample without relatives. Row i of ``UᵀY`` then has covariance ``s_i C0 + C1``, independent of all
others, as in `contrasts`. The contrasts of the covariates would fill the blocks, so X stays in the model: along trait
axis j, with ``W_j`` the inverse variances of the rows,

    H_j = XᵀW_jX        b_j = H_j⁻¹XᵀW_jy_j        P_j = W_j - W_jX H_j⁻¹XᵀW_j

and ``2 l = -(n - c)p log 2π - log|K| - Σ_j log|H_j| - Σ_j y_jᵀP_jy_j`` under REML, for an X with orthonormal columns.
Everything costs O(np(p + c²)), and nothing of size n × n is made.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse
from scipy.sparse.csgraph import connected_components

from kron2sum_cli.errors import ConvergenceError, NumericalError
from kron2sum_cli.model import climbing
from kron2sum_cli.model.block_scanner import BlockStatistics, squared_lengths
from kron2sum_cli.model.climbing import Optimum
from kron2sum_cli.model.information import (
    DirectionCovariance,
    face_curvature,
    faces,
    free_directions,
    invert_dense,
    pair_positions,
)
from kron2sum_cli.model.likelihood import LOG2PI
from kron2sum_cli.model.spectrum import EPSILON, NEGATIVE_EIGENVALUE, Array
from kron2sum_cli.model.trait_axes import TraitAxes, axes_of_factors
from kron2sum_cli.model.trust_region import Curvature, ObservedRows

Indices = NDArray[np.intp]
Sparse = sparse.csr_array[np.float64, tuple[int, int]]
Precision = TypeVar("Precision", np.float32, np.float64)

ROWS_AT_ONCE = 1 << 15
"""Rows of a product over all samples and axes that are in memory at once."""

STARTS = (0.5, 0.1, 0.9)
"""Genetic shares of variance from which fits start; the first alone where a climb is expensive."""

CHEAP = 1_000_000
"""Samples times squared traits up to which a fit starts from all shares."""

MAX_STEPS = 200


@dataclass(frozen=True)
class FamiliesOfSize:
    """All families of one size.

    Attributes
    ----------
    members : NDArray (f, m)
        Samples of each of the f families, by their position.
    U : NDArray (f, m, m)
        Eigenvectors of each family's block, in columns.
    """

    members: Indices
    U: NDArray[np.floating]


@dataclass(frozen=True)
class FamilyRotation:
    """The block-diagonal U. Row i of ``UᵀM`` stands at the place of sample i, whose family has as many rows as members.

    Attributes
    ----------
    nsamples : int
        Number of samples, n.
    families : sequence of FamiliesOfSize
        Families of two or more members; all other samples are their own row.
    """

    nsamples: int
    families: Sequence[FamiliesOfSize]

    def to_rows(self, M: NDArray[Precision]) -> NDArray[Precision]:
        """``UᵀM`` for M (n, k), a new array in the precision of M."""
        rows = M.copy()
        for group in self.families:
            U = group.U.astype(M.dtype, copy=False)
            rows[group.members] = np.matmul(U.transpose(0, 2, 1), M[group.members])
        return rows

    def to_samples(self, rows: NDArray[Precision]) -> NDArray[Precision]:
        """``UR`` for R (n, k), a new array in the precision of R."""
        M = rows.copy()
        for group in self.families:
            M[group.members] = np.matmul(group.U.astype(rows.dtype, copy=False), rows[group.members])
        return M

    def in_precision(self, dtype: type[np.floating]) -> "FamilyRotation":
        """The same rotation with eigenvectors in another precision."""
        families = [FamiliesOfSize(group.members, group.U.astype(dtype)) for group in self.families]
        return FamilyRotation(self.nsamples, families)


@dataclass(frozen=True)
class FamilySpectrum:
    """The eigendecomposition of a block-diagonal GGᵀ.

    Attributes
    ----------
    rotation : FamilyRotation
        The eigenvectors.
    s : NDArray (n,)
        Eigenvalues, not negative, each at the place of its row.
    mean_diagonal : float
        Mean diagonal of GGᵀ centred over the samples, the factor of C0 in a heritability.
    """

    rotation: FamilyRotation
    s: Array
    mean_diagonal: float

    @property
    def nsamples(self) -> int:
        """Number of samples, n."""
        return self.rotation.nsamples


def family_spectrum(K: Sparse) -> FamilySpectrum:
    """Decompose a sparse symmetric relationship matrix K (n, n), family by family.

    Families are the connected components of the samples that have a relationship other than 0. Those of one size are
    decomposed together.

    Raises
    ------
    NumericalError
        Where a block has an eigenvalue below ``-NEGATIVE_EIGENVALUE`` times the largest of the matrix.
    """
    n = K.shape[0]
    s = K.diagonal()
    families = []
    for members in families_by_size(K):
        U, values = _decompose(K, members)
        s[members] = values
        families.append(FamiliesOfSize(members, U))
    largest = float(s.max(initial=0.0))
    if s.min(initial=0.0) < -NEGATIVE_EIGENVALUE * largest:
        raise NumericalError(
            f"the relationship matrix is not positive semi-definite: its eigenvalues go from {s.min():.3g} to"
            f" {largest:.3g}; set fewer relationships to 0 (a smaller --grm-cutoff), or check its file"
        )
    mean_diagonal = float((K.diagonal().sum() - K.sum() / n) / n)
    noise = n * EPSILON * largest
    return FamilySpectrum(FamilyRotation(n, families), np.where(s > noise, s, 0.0), mean_diagonal)


def families_by_size(K: Sparse) -> Iterator[Indices]:
    """Members (f, m) of all families of m samples, for every m of at least 2 that occurs, small families first."""
    _, family = connected_components(K, directed=False)
    sizes = np.bincount(family)
    order = np.argsort(family, kind="stable")
    of_sample = sizes[family[order]]
    for size in np.unique(sizes[sizes > 1]):
        yield order[of_sample == size].reshape(-1, size)


def _decompose(K: Sparse, members: Indices) -> tuple[Array, Array]:
    """Eigenvectors (f, m, m) and eigenvalues (f, m) of the blocks of families of one size."""
    f, m = members.shape
    position = np.full(K.shape[0], -1)
    position[members] = np.arange(m)
    number = np.full(K.shape[0], -1)
    number[members] = np.arange(f)[:, None]
    of_members = sparse.coo_array(K[members.reshape(-1)])
    row, column = members.reshape(-1)[of_members.row], of_members.col
    blocks = np.zeros((f, m, m))
    blocks[number[row], position[row], position[column]] = of_members.data
    values, U = np.linalg.eigh(0.5 * (blocks + blocks.transpose(0, 2, 1)))
    return U, values


@dataclass(frozen=True)
class FamilyTraits:
    """The data of one likelihood: traits and covariates in the rows of a `FamilySpectrum`.

    Attributes
    ----------
    spectrum : FamilySpectrum
        Rows and their eigenvalues.
    Z : NDArray (n, p)
        Rotated traits ``UᵀY``.
    X : NDArray (n, c)
        Rotated covariates ``UᵀQ``, Q an orthonormal basis of the covariates.
    R : NDArray (c, c)
        Upper triangular; the covariates as they were given are QR.
    """

    spectrum: FamilySpectrum
    Z: Array
    X: Array
    R: Array

    @property
    def s(self) -> Array:
        """Eigenvalues (n,)."""
        return self.spectrum.s

    @property
    def nsamples(self) -> int:
        """Number of samples, n."""
        return int(self.Z.shape[0])

    @property
    def ntraits(self) -> int:
        """Number of traits, p."""
        return int(self.Z.shape[1])

    @property
    def ncovariates(self) -> int:
        """Number of covariates, c."""
        return int(self.X.shape[1])

    @property
    def nrows(self) -> int:
        """Number of contrasts of a trait, n - c."""
        return self.nsamples - self.ncovariates

    @cached_property
    def mean_eigenvalue(self) -> float:
        """Mean eigenvalue of GGᵀ over the contrasts of the covariates, τ."""
        of_covariates = float(np.sum(self.s[:, None] * self.X**2))
        return (float(self.s.sum()) - of_covariates) / self.nrows

    @cached_property
    def residuals(self) -> Array:
        """Rotated traits (n, p) less what ordinary least squares on the covariates explains."""
        return np.asarray(self.Z - self.X @ (self.X.T @ self.Z))


def family_traits(spectrum: FamilySpectrum, Y: Array, X: Array) -> FamilyTraits:
    """Rotate traits Y (n, p) and covariates X (n, c).

    Raises
    ------
    NumericalError
        Where X does not have full column rank, or there are too few samples.
    """
    n, c = X.shape
    if c >= n:
        raise NumericalError(f"{c} covariates need more than {n} samples: give fewer covariates")
    Q, R = linalg.qr(X, mode="economic") if c else (X, np.empty((0, 0)))
    if c and np.any(np.abs(np.diag(R)) <= 1e-9 * np.linalg.norm(X, axis=0)):
        raise NumericalError("a covariate lies in the span of the others: leave it out")
    rotation = spectrum.rotation
    return FamilyTraits(spectrum, rotation.to_rows(Y), rotation.to_rows(np.asarray(Q)), np.asarray(R))


@dataclass(frozen=True)
class FamilyPoint:
    """The likelihood of families at one (C0, C1), in its trait axes; compare `likelihood.Point`.

    Attributes
    ----------
    data : FamilyTraits
        What it is the likelihood of.
    reml : bool
        Restricted or not.
    axes : TraitAxes
        Trait axes of (C0, C1).
    lml : float
        Log-likelihood with all constants.
    W : NDArray (n, p)
        Inverse variances.
    alpha : NDArray (n, p)
        ``P_j y_j``, rotated.
    score0, score1 : NDArray (p, p)
        Derivatives with respect to the covariances along the axes, symmetric.
    chol : NDArray (p, c, c)
        Lower Cholesky factors of every H_j.
    b : NDArray (c, p)
        Fixed effects of the orthonormal covariates along every axis.
    """

    data: FamilyTraits
    reml: bool
    axes: TraitAxes
    lml: float
    W: Array
    alpha: Array
    score0: Array
    score1: Array
    chol: Array
    b: Array

    @property
    def quadratic(self) -> float:
        """``rᵀK⁻¹r``."""
        return float(np.sum(self.alpha**2 / self.W))

    def normalised_effects(self, rows: slice) -> Array:
        """``F_j = W_jX L_j⁻ᵀ`` in some rows, so that ``P_j = W_j - F_jF_jᵀ``: (p, rows, c)."""
        p, c = self.data.ntraits, self.data.ncovariates
        inverse = np.linalg.inv(self.chol) if c else np.empty((p, 0, 0))
        weighted = self.W[rows].T[:, :, None] * self.data.X[rows]
        return np.asarray(np.matmul(weighted, inverse.transpose(0, 2, 1)))

    @cached_property
    def grams(self) -> tuple[Array, Array, Array]:
        """``tr(P_j M P_l M')`` for (M, M') = (I, I), (GGᵀ, I), (GGᵀ, GGᵀ): three (p, p); under ML with W for P."""
        data, W = self.data, self.W
        s = data.s[:, None]
        Q = [W.T @ (s**power * W) for power in range(3)]
        p, c = data.ntraits, data.ncovariates
        if not self.reml or c == 0:
            return Q[0], Q[1], Q[2]
        crossed = np.zeros((2, p * c, p * c))
        for rows in row_blocks(data.nsamples):
            F = self.normalised_effects(rows)
            squares = np.sum(F**2, axis=2)
            for power in range(3):
                one = (squares * data.s[rows] ** power) @ W[rows]
                Q[power] = Q[power] - one - one.T
            flat = F.transpose(1, 0, 2).reshape(-1, p * c)
            crossed[0] += flat.T @ flat
            crossed[1] += flat.T @ (data.s[rows, None] * flat)
        of_pairs = crossed.reshape(2, p, c, p, c)
        for power, (a, b) in enumerate(((0, 0), (1, 0), (1, 1))):
            Q[power] = Q[power] + np.einsum("jalb,jalb->jl", of_pairs[a], of_pairs[b])
        return Q[0], Q[1], Q[2]

    def apply_P(self, B: Array) -> Array:
        """``P_j b_j`` on every axis, for B (n, p) in rotated rows."""
        WB = self.W * B
        if self.data.ncovariates == 0:
            return np.asarray(WB)
        right = (self.data.X.T @ WB).T
        effects = np.stack([linalg.cho_solve((L, True), r) for L, r in zip(self.chol, right, strict=True)], axis=1)
        return np.asarray(WB - self.W * (self.data.X @ effects))

    def curvature(self, E0: Array, E1: Array) -> tuple[Array, Array]:
        """Change of (score0, score1) for a small step (E0, E1)."""
        Q0, Q1, Q2 = self.grams
        sa = self.data.s[:, None] * self.alpha
        change = self.apply_P(sa @ E0 + self.alpha @ E1)
        d0, d1 = change.T @ sa, change.T @ self.alpha
        return (
            -0.5 * (d0 + d0.T) + 0.5 * (Q2 * E0 + Q1 * E1),
            -0.5 * (d1 + d1.T) + 0.5 * (Q1 * E0 + Q0 * E1),
        )


def row_blocks(n: int) -> Iterator[slice]:
    """Stretches of rows, of a size that does not depend on the number of axes or covariates."""
    for start in range(0, n, ROWS_AT_ONCE):
        yield slice(start, min(start + ROWS_AT_ONCE, n))


def evaluate(data: FamilyTraits, axes: TraitAxes, reml: bool) -> FamilyPoint:
    """The likelihood at one point; O(np(p + c²)).

    Raises
    ------
    NumericalError
        Where a variance is 0 (C1 is singular and GGᵀ has a null direction), or covariates are collinear.
    """
    variances = axes.variances(data.s)
    if variances.min(initial=np.inf) <= 0:
        raise NumericalError("the likelihood is not defined: C1 is singular where GGᵀ is singular, too")
    W, Z, X = 1 / variances, data.Z @ axes.T.T, data.X
    n, p, c = data.nsamples, data.ntraits, data.ncovariates
    trace0, trace1 = data.s @ W, W.sum(axis=0)
    H, b = np.empty((p, c, c)), np.empty((c, p))
    for j in range(p):
        H[j] = (X * W[:, j, None]).T @ X
    try:
        chol = np.asarray(np.linalg.cholesky(H), np.float64)
    except np.linalg.LinAlgError:
        raise NumericalError("the covariates are collinear along a trait axis: leave one of them out") from None
    right = X.T @ (W * Z)
    for j in range(p):
        b[:, j] = linalg.cho_solve((chol[j], True), right[:, j]) if c else 0.0
    residual = Z - X @ b
    alpha = W * residual
    logdet = float(np.log(variances).sum()) - 2 * n * axes.logdet_T
    ndof = n * p
    if reml:
        logdet += 2 * float(np.log(np.diagonal(chol, axis1=1, axis2=2)).sum()) + 2 * c * axes.logdet_T
        ndof -= c * p
        taken0, taken1 = _traces_of_effects(data, W, H)
        trace0, trace1 = trace0 - taken0, trace1 - taken1
    score0 = alpha.T @ (data.s[:, None] * alpha) - np.diag(trace0)
    score1 = alpha.T @ alpha - np.diag(trace1)
    lml = -0.5 * (ndof * LOG2PI + logdet + float(np.sum(alpha * residual)))
    return FamilyPoint(data, reml, axes, lml, W, alpha, 0.5 * score0, 0.5 * score1, chol, b)


def _traces_of_effects(data: FamilyTraits, W: Array, H: Array) -> tuple[Array, Array]:
    """``tr(H_j⁻¹ XᵀW_j M W_jX)`` for M = GGᵀ and I, each (p,)."""
    inverse = np.linalg.inv(H)
    taken0, taken1 = np.empty(len(H)), np.empty(len(H))
    for j in range(len(H)):
        WX = W[:, j, None] * data.X
        lengths = np.einsum("ia,ab,ib->i", WX, inverse[j], WX, optimize=True)
        taken0[j], taken1[j] = data.s @ lengths, lengths.sum()
    return taken0, taken1


@dataclass(frozen=True)
class FamilyLikelihood:
    """The likelihood of families, to climb; see `climbing.Likelihood`."""

    data: FamilyTraits
    reml: bool
    floor: float = 0.0

    @property
    def tau(self) -> float:
        """Mean eigenvalue of GGᵀ."""
        return self.data.mean_eigenvalue

    @property
    def ncells(self) -> int:
        """Number of contrasts of all traits."""
        return self.data.nrows * self.data.ntraits

    @property
    def may_lose_C1(self) -> bool:
        """Whether an axis may have no residual variance at all."""
        return bool(self.data.s.min(initial=np.inf) > 0)

    def evaluate(self, axes: TraitAxes) -> FamilyPoint:
        """The likelihood at one point."""
        return evaluate(self.data, axes, self.reml)

    def curvature(self, point: FamilyPoint, mispredicted: bool) -> Curvature:
        """The expected and the observed information of pairs of axes, and the exact Hessian."""
        return Curvature(
            point.grams, ObservedRows(self.data.s, point.alpha, point.W), partial(FamilyPoint.curvature, point)
        )


def starting_axes(data: FamilyTraits, share: float) -> TraitAxes:
    """The covariance of the residuals, this share of it to τC0 and the rest to C1.

    Raises
    ------
    NumericalError
        Where traits are linear combinations of each other.
    """
    tau = data.mean_eigenvalue
    R = linalg.qr(data.residuals / np.sqrt(data.nrows), mode="r")[0][: data.ntraits]
    return axes_of_factors(np.sqrt(share / tau) * R.T, np.sqrt(1 - share) * R.T, tau)


def climb(data: FamilyTraits, start: TraitAxes, rank: int, reml: bool) -> Optimum[FamilyPoint]:
    """Climb from ``start`` to an optimum with C0 of at most this rank."""
    return climbing.climb(FamilyLikelihood(data, reml), start, rank, MAX_STEPS)


def fit(data: FamilyTraits, rank: int, reml: bool) -> Optimum[FamilyPoint]:
    """Maximise over C0 of at most this rank; of several starts the best end is kept.

    Raises
    ------
    ConvergenceError
        Where the optimum is not certified.
    """
    cheap = data.nsamples * data.ntraits**2 <= CHEAP
    starts = [starting_axes(data, share) for share in (STARTS if cheap else STARTS[:1])]
    fits = [climb(data, start, data.ntraits, reml) for start in starts]
    if rank < data.ntraits:
        fits = [climb(data, start, rank, reml) for start in [max(fits, key=lambda f: f.point.lml).point.axes, *starts]]
    best = max(fits, key=lambda f: f.point.lml)
    if not best.certificate.certified:
        raise ConvergenceError(best.certificate.complaint(best.point.lml), best)
    return best


def observed_information(point: FamilyPoint) -> Array:
    """Minus the second derivatives of the log-likelihood in the entries of (E0, E1): (2N, 2N), N = p(p+1)/2 pairs."""
    data = point.data
    p = data.ntraits
    pairs, index = p * (p + 1) // 2, pair_positions(p)
    both = np.hstack([data.s[:, None] * point.alpha, point.alpha])
    H = np.zeros((2 * pairs, 2 * pairs))
    for axis in range(p):
        rows = np.concatenate([index[axis], pairs + index[axis]])
        weighted = both * point.W[:, axis, None]
        gram = weighted.T @ both
        if data.ncovariates:
            explained = linalg.solve_triangular(point.chol[axis], data.X.T @ weighted, lower=True)
            gram -= explained.T @ explained
        H[np.ix_(rows, rows)] += gram
    i, j = np.tril_indices(p)
    twice = np.where(i == j, 0.5, 1.0)
    first, second = np.arange(pairs), pairs + np.arange(pairs)
    Q0, Q1, Q2 = (twice * Q[i, j] for Q in point.grams)
    H[first, first] -= Q2
    H[first, second] -= Q1
    H[second, first] -= Q1
    H[second, second] -= Q0
    return H


def direction_covariance(point: FamilyPoint, rank: int) -> DirectionCovariance:
    """Inverse observed information of (C0, C1) in the axes of an optimum; C0 has at most this rank."""
    empty = faces(point.axes, point.data.mean_eigenvalue, rank)
    curvature = face_curvature(point.axes, point.score0, point.score1, *empty)
    return invert_dense(observed_information(point) + curvature, free_directions(*empty))


def fixed_effects(point: FamilyPoint) -> tuple[Array, Array]:
    """B (c, p) of the covariates as they were given, and its standard errors (c, p)."""
    data, Tinv = point.data, point.axes.Tinv
    if data.ncovariates == 0:
        return np.empty((0, data.ntraits)), np.empty((0, data.ntraits))
    B = linalg.solve_triangular(data.R, point.b @ Tinv.T)
    variances = np.empty((data.ntraits, data.ncovariates))
    for j, L in enumerate(point.chol):
        # R⁻¹H⁻¹R⁻ᵀ = (R⁻¹L⁻ᵀ)(R⁻¹L⁻ᵀ)ᵀ
        half = linalg.solve_triangular(data.R, linalg.solve_triangular(L, np.eye(len(L)), lower=True).T)
        variances[j] = np.sum(half**2, axis=1)
    return B, np.sqrt((Tinv**2 @ variances).T)


@dataclass(frozen=True)
class FamilyScanner:
    """``u`` and ``v`` of blocks of variants under a null model of families.

    ``u_j = gᵀUα_j`` needs no rotation, and ``v_j = Σ_i g̃_i² w_ij - ‖L_j⁻¹XᵀW_jg̃‖²``. The weights of all axes are smooth
    functions of the eigenvalue, so ``[W_1 … W_p] ≈ B Cᵀ`` with few columns of B: ``XᵀW_jg̃ = Σ_k c_jk (B_k∘X)ᵀg̃``, one
    thin product for all axes.

    Attributes
    ----------
    rotation : FamilyRotation
        In the precision of the scan.
    alpha : NDArray (n, p)
        ``Uα``, in samples.
    weights : NDArray (n, p)
        Inverse variances.
    Q : NDArray (n, c)
        Orthonormal basis of the covariates, in samples.
    weighted : NDArray (n, kc)
        ``B_k∘X`` in rotated rows, for k = 1, 2, ...
    from_weighted : NDArray (p, c, kc)
        What turns ``(B_k∘X)ᵀg̃`` into ``L_j⁻¹XᵀW_jg̃``.
    """

    rotation: FamilyRotation
    alpha: NDArray[np.floating]
    weights: NDArray[np.floating]
    Q: NDArray[np.floating]
    weighted: NDArray[np.floating]
    from_weighted: Array

    def statistics(self, G: NDArray[np.floating]) -> BlockStatistics:
        """Statistics of a block of variants G (n, b), without missing values, in the precision of the scanner."""
        rows = self.rotation.to_rows(G)
        u = (G.T @ self.alpha).astype(np.float64)
        sums = (rows.T @ self.weighted).astype(np.float64)
        np.multiply(rows, rows, out=rows)
        v = (rows.T @ self.weights).astype(np.float64)
        for j, M in enumerate(self.from_weighted):
            v[:, j] -= np.sum((sums @ M.T) ** 2, axis=1)
        length = squared_lengths(G.T) - squared_lengths((self.Q.T @ G).T)
        return BlockStatistics(u, v, np.maximum(length, 0.0), np.zeros(len(length)))


def family_scanner(point: FamilyPoint, dtype: type[np.floating] = np.float32) -> FamilyScanner:
    """The scanner of blocks at a null model, in single or double precision."""
    data = point.data
    rotation = data.spectrum.rotation
    p, c = data.ntraits, data.ncovariates
    basis, coefficients = low_rank(point.W, float(np.finfo(dtype).eps))
    k = basis.shape[1]
    weighted = (basis[:, :, None] * data.X[:, None, :]).reshape(data.nsamples, k * c)
    solved = np.linalg.inv(point.chol) if c else np.empty((p, 0, 0))
    from_weighted = np.einsum("jab,jk->jakb", solved, coefficients).reshape(p, c, k * c)
    return FamilyScanner(
        rotation=rotation.in_precision(dtype),
        alpha=np.asfortranarray(rotation.to_samples(point.alpha).astype(dtype)),
        weights=np.asfortranarray(point.W.astype(dtype)),
        Q=rotation.to_samples(data.X).astype(dtype),
        weighted=np.asfortranarray(weighted.astype(dtype)),
        from_weighted=from_weighted,
    )


def low_rank(W: Array, tolerance: float) -> tuple[Array, Array]:
    """B (n, k) and C (p, k) with ``W = BCᵀ`` to a relative error of ``tolerance`` in the largest singular value."""
    Q, R = np.linalg.qr(W)
    left, sizes, right = np.linalg.svd(R)
    k = int(np.count_nonzero(sizes > tolerance * sizes[0]))
    return Q @ (left[:, :k] * sizes[:k]), right[:k].T
