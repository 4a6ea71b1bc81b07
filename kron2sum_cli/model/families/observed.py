"""Observed cells of families: the covariance of each family's cells, its inverse, and the sums that a likelihood needs.

The observed cells of a family of m samples have the covariance ``V = K ⊗ C0 + I ⊗ C1`` without the rows and columns of
missing cells, independent of all other families (cells of a sample lie side by side here). Its inverse is kept with
zeros in missing cells, so that families of one size are one array whatever is missing: (f, m, p, m, p). A sample
without relatives is a family of one, and all of one relatedness and one pattern of observed traits have one inverse:
they are a kind, of which sums of products over its samples are all that is needed.

In what follows N is ``V⁻¹M`` for the covariates' columns ``M = X ⊗ I``, and H the sum of ``MᵀV⁻¹M`` over families.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from scipy import linalg
from scipy.linalg import lapack

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.collinearity import GenotypedCovariates, clear_root
from kron2sum_cli.model.contrasts import covariate_basis
from kron2sum_cli.model.families.spectrum import FamilySpectrum
from kron2sum_cli.model.missing.observed import missing_cells_of
from kron2sum_cli.model.spectrum import Array, Indices, Mask, parts_of, weighted_products

ENTRIES_AT_ONCE = 1 << 20
"""Entries of the inverses of families that are worked on at once."""

LARGEST_SMALL = 16
"""Up to this order many matrices are inverted together, larger ones one by one."""

SINGULAR = "the likelihood is not defined: C1 is singular where the relationship matrix of a family is singular, too"


@dataclass(frozen=True)
class ScoreProducts:
    """What the average information sums over families, for unit changes of the entries of C0 and C1.

    ``products`` (3, p, p, p, p) are ``αᵀ∂V V⁻¹ ∂'Vα`` for two changes of C0, of C0 and of C1, and of C1; entry
    ``[., a, b, a', b']`` for a change of entry (a, b) and one of (a', b'). ``effects`` (2, p, p, p, c) are ``αᵀ∂V N``:
    changes of entry (a, b) of C0 or C1, and the effects on trait u of covariate l.
    """

    products: Array
    effects: Array

    def __add__(self, other: "ScoreProducts") -> "ScoreProducts":
        return ScoreProducts(self.products + other.products, self.effects + other.effects)


@dataclass(frozen=True)
class Families:
    """f families of one size m of 2 or more: samples (f, m) and their covariates (f, m, c).

    ``K`` (f, m, m) are relationship matrices, with eigenvectors ``U`` in columns; ``observed`` (f, m, p) says which
    cells were observed.
    """

    members: Indices
    U: Array
    K: Array
    observed: Mask
    X: Array

    @property
    def entries(self) -> int:
        """Entries of the inverses."""
        return int(self.observed.size * self.observed[0].size)

    def invert(self, C0: Array, C1: Array) -> tuple[Array, float]:
        """Inverses (f, m, p, m, p) of the covariances, and the sum of the logarithms of their determinants."""
        inverse, logdets = inverses(self.K, self.observed, C0, C1)
        return inverse, float(logdets.sum())

    def apply(self, inverse: Array, F: Array) -> Array:
        """``V⁻¹F`` for F (n, p, k), of the samples of the group: (f, m, p, k)."""
        f, m, p = self.observed.shape
        flat = inverse.reshape(f, m * p, m * p) @ F[self.members].reshape(f, m * p, -1)
        return np.asarray(flat.reshape(f, m, p, -1))

    def related(self, F: Array) -> Array:
        """``KF`` for F (n, ...), of the samples of the group."""
        f, m = self.members.shape
        return np.asarray((self.K @ F[self.members].reshape(f, m, -1)).reshape(f, m, *F.shape[1:]))

    def gram(self, inverse: Array) -> Array:
        """Their part of H, (p, c, p, c)."""
        p, c = self.observed.shape[2], self.X.shape[2]
        product = self._flat_X.T @ self.weighted(inverse).reshape(self.members.size, -1)
        return np.asarray(product.reshape(c, p, p, c).transpose(1, 0, 2, 3))

    def traces(self, inverse: Array) -> Array:
        """``tr(V⁻¹∂V)`` for unit changes of the entries of C0 and of C1: (2, p, p)."""
        of_C0 = np.einsum("fij,fitju->tu", self.K, inverse, optimize=True)
        return np.stack([of_C0, np.einsum("fitiu->tu", inverse)])

    def leverage(self, inverse: Array, Hinv: Array) -> Array:
        """``N H⁻¹ Nᵀ`` within families, H⁻¹ (p, c, p, c)."""
        f, m, p = self.observed.shape
        flat, A = inverse.reshape(f, m * p, m * p), self.variance_of_effects(Hinv)
        return np.asarray((flat @ A.reshape(f, m * p, m * p) @ flat).reshape(inverse.shape))

    def variance_of_effects(self, Hinv: Array) -> Array:
        """``M H⁻¹ Mᵀ`` of all cells, (f, m, p, m, p)."""
        f, m, p = self.observed.shape
        c = self.X.shape[2]
        half = (self._flat_X @ Hinv.transpose(1, 0, 2, 3).reshape(c, -1)).reshape(f, m * p * p, c)
        return (half @ self.X.transpose(0, 2, 1)).reshape(f, m, p, p, m).transpose(0, 1, 2, 4, 3)

    def leverage_traces(self, leverage: Array) -> Array:
        """`traces` of ``N H⁻¹ Nᵀ``."""
        return self.traces(leverage)

    def score_products(self, inverse: Array, alpha: Array) -> ScoreProducts:
        """See `ScoreProducts`; α (n, p)."""
        p, c = self.observed.shape[2], self.X.shape[2]
        pairs = inverse.transpose(0, 1, 3, 2, 4).reshape(-1, p * p)
        moved = self.related(alpha), alpha[self.members]
        products = [pairs.T @ _outer(moved[r], moved[s]) for r, s in ((0, 0), (0, 1), (1, 1))]
        by_effect = self.weighted(inverse).reshape(self.members.size, -1)
        effects = [(one.reshape(-1, p).T @ by_effect).reshape(p, p, p, c).transpose(1, 0, 2, 3) for one in moved]
        return ScoreProducts(_by_changes(products, p), np.stack(effects))

    def trace_products(self, inverse: Array, leverage: Array | None) -> Array:
        """``tr(V⁻¹∂V V⁻¹∂'V)`` (3, p, p, p, p) as in `ScoreProducts`, less twice that with the leverage for one V⁻¹."""
        p = self.observed.shape[2]
        one = self._related_pairs(inverse), inverse.transpose(0, 1, 3, 2, 4)
        other = one
        if leverage is not None:
            rest = inverse - 2 * leverage
            other = self._related_pairs(rest), rest.transpose(0, 1, 3, 2, 4)
        found = []
        for r, s in ((0, 0), (0, 1), (1, 1)):
            product = one[r].reshape(-1, p * p).T @ other[s].transpose(0, 2, 1, 3, 4).reshape(-1, p * p)
            found.append(product.reshape(p, p, p, p).transpose(3, 0, 1, 2))  # [b, a', b', a]
        return np.stack(found)

    def effect_products(self, inverse: Array) -> Array:
        """``Nᵀ∂V N`` for changes of entry (a, b) of C0 and C1: (2, p, p, c, p, p, c), [., a, u, l, b, u', l']."""
        f, m, p = self.observed.shape
        c = self.X.shape[2]
        N = self.weighted(inverse).reshape(f, m, -1)
        shape = (p, p, c, p, p, c)
        flat, moved = N.reshape(f * m, -1), (self.K @ N).reshape(f * m, -1)
        return np.stack([(one.T @ flat).reshape(shape) for one in (moved, flat)])

    def along(self, inverse: Array, Tinv: Array) -> Array:
        """Diagonal of V⁻¹ in the axes with this T⁻¹ and the families' eigenvectors: (f, m, p)."""
        rows = np.einsum("fir,fitju,fjr->frtu", self.U, inverse, self.U, optimize=True)
        return np.asarray(np.einsum("tj,frtu,uj->frj", Tinv, rows, Tinv, optimize=True))

    def weighted(self, inverse: Array) -> Array:
        """N: (f, m, p, p, c), the effects on trait u of covariate l in cell (i, t) at [., i, t, u, l]."""
        f, m, p = self.observed.shape
        blocks = inverse.transpose(0, 1, 2, 4, 3).reshape(f, m * p * p, m)
        return np.asarray((blocks @ self.X).reshape(f, m, p, p, -1))

    @property
    def _flat_X(self) -> Array:
        return self.X.reshape(self.members.size, -1)

    def _related_pairs(self, inverse: Array) -> Array:
        """``KV⁻¹`` by pairs of samples, (f, m, m, p, p)."""
        f, m, p = self.observed.shape
        product = (self.K @ inverse.reshape(f, m, -1)).reshape(f, m, p, m, p)
        return np.asarray(product.transpose(0, 1, 3, 2, 4))


@dataclass(frozen=True)
class Singles:
    """Samples without relatives, those of a kind (one relatedness, one pattern of observed traits) side by side.

    ``members`` (s,) are sorted by their kind, whose first samples stand at ``starts`` (k,); they have covariates ``X``
    (s, c). ``K`` (k,) is the relatedness of a sample of a kind with itself, ``observed`` (k, p) its pattern.
    """

    members: Indices
    starts: Indices
    K: Array
    observed: Mask
    X: Array

    @property
    def entries(self) -> int:
        """See `Families.entries`."""
        return int(self.observed.size * self.observed.shape[1])

    @cached_property
    def counts(self) -> Indices:
        """Number of samples of every kind (k,)."""
        return np.diff(np.append(self.starts, self.members.size))

    @cached_property
    def kind(self) -> Indices:
        """Kind of every sample (s,)."""
        return np.repeat(np.arange(self.starts.size), self.counts)

    @cached_property
    def XX(self) -> Array:
        """Sums of ``xxᵀ`` over every kind, (k, c²)."""
        return self.sums(self.X, self.X)

    def sums(self, A: Array, B: Array) -> Array:
        """Sums over every kind of the products of the columns of A (s, a) and B (s, b): (k, ab)."""
        if self.starts.size == self.members.size:
            return _outer(A, B)
        found = np.empty((self.starts.size, A.shape[1] * B.shape[1]))
        ends = np.append(self.starts, self.members.size)
        for k, (start, stop) in enumerate(pairwise(ends)):
            found[k] = (A[start:stop].T @ B[start:stop]).ravel()
        return found

    def invert(self, C0: Array, C1: Array) -> tuple[Array, float]:
        """See `Families.invert`; inverses (k, p, p)."""
        inverse, logdets = inverses(self.K[:, None, None], self.observed[:, None], C0, C1)
        return inverse[:, 0, :, 0], float(self.counts @ logdets)

    def apply(self, inverse: Array, F: Array) -> Array:
        """See `Families.apply`: (s, p, k)."""
        return np.asarray(inverse[self.kind] @ F[self.members])

    def related(self, F: Array) -> Array:
        """See `Families.related`."""
        return np.asarray(F[self.members] * self.K[self.kind].reshape(-1, *[1] * (F.ndim - 1)))

    def gram(self, inverse: Array) -> Array:
        """See `Families.gram`."""
        p, c = self.observed.shape[1], self.X.shape[1]
        return np.asarray((_flat(inverse).T @ self.XX).reshape(p, p, c, c).transpose(0, 2, 1, 3))

    def traces(self, inverse: Array) -> Array:
        """See `Families.traces`."""
        return self.leverage_traces(inverse * self.counts[:, None, None])

    def leverage(self, inverse: Array, Hinv: Array) -> Array:
        """See `Families.leverage`; the sum over the samples of every kind."""
        c = self.X.shape[1]
        A = (self.XX @ Hinv.transpose(1, 3, 0, 2).reshape(c * c, -1)).reshape(inverse.shape)
        return np.asarray(inverse @ A @ inverse)

    def leverage_traces(self, leverage: Array) -> Array:
        """See `Families.leverage_traces`."""
        return np.stack([np.tensordot(self.K, leverage, 1), leverage.sum(axis=0)])

    def score_products(self, inverse: Array, alpha: Array) -> ScoreProducts:
        """See `Families.score_products`."""
        p, c = self.observed.shape[1], self.X.shape[1]
        own, flat = alpha[self.members], _flat(inverse)
        squares, effects = self.sums(own, own), self.sums(own, self.X)
        products = [(flat * self.K[:, None] ** power).T @ squares for power in (2, 1, 0)]
        by_effect = [(flat * self.K[:, None] ** power).T @ effects for power in (1, 0)]
        return ScoreProducts(
            _by_changes(products, p), np.stack([one.reshape(p, p, p, c).transpose(0, 2, 1, 3) for one in by_effect])
        )

    def trace_products(self, inverse: Array, leverage: Array | None) -> Array:
        """See `Families.trace_products`."""
        p, flat = self.observed.shape[1], _flat(inverse)
        rest = inverse * self.counts[:, None, None]
        if leverage is not None:
            rest = rest - 2 * leverage
        products = [(flat * self.K[:, None] ** power).T @ _flat(rest) for power in (2, 1, 0)]
        return np.stack([one.reshape(p, p, p, p).transpose(3, 0, 1, 2) for one in products])

    def along(self, inverse: Array, Tinv: Array) -> Array:
        """See `Families.along`: (s, p)."""
        return np.asarray(np.einsum("tj,ktu,uj->kj", Tinv, inverse, Tinv, optimize=True)[self.kind])

    def effect_products(self, inverse: Array) -> Array:
        """See `Families.effect_products`."""
        p, c, flat = self.observed.shape[1], self.X.shape[1], _flat(inverse)
        found = np.zeros((2, p**4, c * c))
        for part in parts_of(len(flat), ENTRIES_AT_ONCE // p**4):
            both = _outer(flat[part], flat[part])
            found[1] += both.T @ self.XX[part]
            found[0] += (both * self.K[part, None]).T @ self.XX[part]
        return found.reshape(2, p, p, p, p, c, c).transpose(0, 1, 2, 5, 3, 4, 6)


Group = Families | Singles
"""Samples with inverses of one shape, and the sums over them; ``inverse`` is what `invert` returned."""


def _flat(blocks: Array) -> Array:
    return blocks.reshape(len(blocks), -1)


def _outer(A: Array, B: Array) -> Array:
    """Products of every two samples' numbers: (s, ab) of A (s, a), B (s, b), or (f m², ab) of (f, m, a), (f, m, b)."""
    if A.ndim == 2:
        return np.asarray((A[:, :, None] * B[:, None, :]).reshape(len(A), -1))
    return np.asarray((A[:, :, None, :, None] * B[:, None, :, None, :]).reshape(-1, A.shape[2] * B.shape[2]))


def _by_changes(products: Sequence[Array], p: int) -> Array:
    """From entries [a, a', b, b'] to [a, b, a', b']."""
    return np.stack([one.reshape(p, p, p, p).transpose(0, 2, 1, 3) for one in products])


def covariances(K: Array, C0: Array, C1: Array) -> Array:
    """``K ⊗ C0 + I ⊗ C1`` of all cells of families with relationship matrices K (f, m, m): (f, mp, mp)."""
    own, size = np.arange(K.shape[1]), K.shape[1] * len(C0)
    V = K[:, :, None, :, None] * C0[:, None, :]
    V[:, own, :, own, :] += C1
    return V.reshape(-1, size, size)


def inverses(K: Array, observed: Mask, C0: Array, C1: Array) -> tuple[Array, Array]:
    """Inverses (f, m, p, m, p) of the covariances of observed cells, 0 in missing ones, and log-determinants (f,).

    ``K`` (f, m, m) are relationship matrices, and ``observed`` (f, m, p) the observed cells. Raises NumericalError
    where a covariance is singular.
    """
    f, m, p = observed.shape
    V, seen = covariances(K, C0, C1), observed.reshape(f, m * p)
    size = np.where(seen, np.sqrt(np.einsum("fii->fi", V)), 1.0)
    if not np.all(size > 0):
        raise NumericalError(SINGULAR)
    scale = np.where(seen, 1 / size, 0.0)
    V *= scale[:, :, None]
    V *= scale[:, None, :]
    cells = np.arange(m * p)
    V[:, cells, cells] = 1.0
    try:
        inverse, pivots = _inverses_by_cholesky(V)
    except np.linalg.LinAlgError:
        raise NumericalError(SINGULAR) from None
    inverse *= scale[:, :, None]
    inverse *= scale[:, None, :]
    logdets = 2 * np.log(pivots).sum(axis=1) + 2 * np.log(size).sum(axis=1)
    return inverse.reshape(f, m, p, m, p), logdets


def _inverses_by_cholesky(V: Array) -> tuple[Array, Array]:
    """Inverses of positive definite matrices V (f, k, k), and the diagonals (f, k) of their Cholesky factors.

    LAPACK inverts a factor in half the time that numpy takes for any matrix, but not for many small ones. LinAlgError
    where one of the matrices is not positive definite.
    """
    f, k, _ = V.shape
    if k <= LARGEST_SMALL:
        inverse = np.linalg.inv(V)
        return 0.5 * (inverse + inverse.transpose(0, 2, 1)), np.einsum("fii->fi", np.linalg.cholesky(V))
    lower, pivots = np.empty_like(V), np.empty((f, k))
    for matrix, out, diagonal in zip(V, lower, pivots, strict=True):
        root, failed = lapack.dpotrf(matrix, lower=1)
        if failed:
            raise np.linalg.LinAlgError
        diagonal[:] = root.diagonal()
        out[:] = lapack.dpotri(root, lower=1)[0]
    cells = np.arange(k)
    lower[:, cells, cells] *= 0.5
    return lower + lower.transpose(0, 2, 1), pivots


@dataclass(frozen=True)
class ObservedFamilies:
    """Traits with missing cells on a block-diagonal relationship matrix.

    - ``Y`` (n, p): traits less what ordinary least squares on their own samples explain; 0 where a cell is missing.
    - ``X``, ``Q`` (n, c): covariates as they were given, and those of the likelihood: an orthonormal basis of X.
    - ``kept`` (e,): positions among the pc effects (those on a trait side by side) of those in the model: not those
      that a trait's samples do not tell from others.
    - ``B_taken`` (c, p): effects of X that were taken off Y.
    - ``to_X`` (p, c, c): what turns effects of Q on a trait into those of X.
    - ``logdet_MtM``: ``log|M_oᵀM_o|`` of the observed rows of ``Q ⊗ I``, a constant of REML.
    """

    spectrum: FamilySpectrum
    Y: Array
    missing: Mask
    X: Array
    Q: Array
    groups: tuple[Group, ...]
    kept: Indices
    B_taken: Array
    to_X: Array
    logdet_MtM: float

    @property
    def nsamples(self) -> int:
        """Number of samples, n."""
        return int(self.Y.shape[0])

    @property
    def ntraits(self) -> int:
        """Number of traits, p."""
        return int(self.Y.shape[1])

    @property
    def ncovariates(self) -> int:
        """Number of covariates, c."""
        return int(self.Q.shape[1])

    @property
    def nobserved(self) -> int:
        """Number of observed cells."""
        return int(self.missing.size - np.count_nonzero(self.missing))

    @cached_property
    def mean_eigenvalue(self) -> float:
        """Mean eigenvalue of GGᵀ, τ."""
        return float(self.spectrum.s.mean())

    @property
    def singular(self) -> bool:
        """Whether GGᵀ has null directions, in which C1 alone must have variance."""
        return bool(np.any(self.spectrum.s <= 0))

    @property
    def left_out(self) -> Mask:
        """Which effects (c, p) are left out."""
        out = np.ones(self.ntraits * self.ncovariates, dtype=np.bool_)
        out[self.kept] = False
        return out.reshape(self.ntraits, self.ncovariates).T

    @property
    def given(self) -> Array:
        """The traits as they were given (n, p), NaN in missing cells."""
        return np.where(self.missing, np.nan, self.Y + self.X @ self.B_taken)

    def observed(self) -> Mask:
        """Which cells were observed, (n, p)."""
        return ~self.missing

    @cached_property
    def covariates_of_traits(self) -> GenotypedCovariates:
        """The covariates over the samples of every trait."""
        return GenotypedCovariates(self.X, self.observed())

    def related(self, F: Array) -> Array:
        """``GGᵀF`` for F (n, ...)."""
        out = np.empty_like(F)
        for group in self.groups:
            out[group.members] = group.related(F)
        return out


def observed_families(spectrum: FamilySpectrum, Y: Array, X: Array, left_out: Mask) -> ObservedFamilies:
    """Traits Y (n, p), NaN in missing cells, and covariates X (n, c) of full rank, by families.

    ``left_out`` (c, p) are effects on a trait that its samples do not tell from others. With X = QR and N the products
    ``QᵀQ`` over the samples of a trait, kept columns k and others o, ``X_k = Q_k (R_kk + N_kk⁻¹ N_ko R_ok)`` there.
    Raises NumericalError where a trait has no observed cell.
    """
    missing = missing_cells_of(Y)
    p, c = Y.shape[1], X.shape[1]
    Q, R = covariate_basis(X)
    given = np.where(missing, 0.0, Y)
    grams, right = weighted_products(Q, (~missing).astype(np.float64)), Q.T @ given
    fitted, B, to_X, logdet = np.zeros((c, p)), np.zeros((c, p)), np.zeros((p, c, c)), 0.0
    for j, N in enumerate(grams):
        k, o = np.flatnonzero(~left_out[:, j]), np.flatnonzero(left_out[:, j])
        L = clear_root(N[np.ix_(k, k)])  # None where rounding is felt in these products
        root = L.T if L is not None else np.asarray(linalg.qr(Q[np.ix_(~missing[:, j], k)], mode="r")[0][: k.size])
        fitted[k, j] = linalg.cho_solve((root, False), right[k, j])
        from_Q = R[np.ix_(k, k)] + linalg.cho_solve((root, False), N[np.ix_(k, o)]) @ R[np.ix_(o, k)]
        B[k, j] = np.linalg.solve(from_Q, fitted[k, j])
        to_X[j][np.ix_(k, k)] = np.linalg.inv(from_Q)
        logdet += 2 * float(np.log(np.abs(np.diag(root))).sum())
    residual = np.where(missing, 0.0, given - Q @ fitted)
    groups, kept = _groups(spectrum, ~missing, Q), np.flatnonzero(~left_out.T.ravel())
    return ObservedFamilies(spectrum, residual, missing, X, Q, groups, kept, B, to_X, logdet)


def _groups(spectrum: FamilySpectrum, observed: Mask, X: Array) -> tuple[Group, ...]:
    groups: list[Group] = []
    alone = np.ones(len(X), dtype=np.bool_)
    for one in spectrum.rotation.families:
        alone[one.members] = False
        m = one.members.shape[1]
        for part in parts_of(len(one.members), ENTRIES_AT_ONCE // (m * observed.shape[1]) ** 2):
            members, U = one.members[part], one.U[part].astype(np.float64)
            K = (U * spectrum.s[members][:, None, :]) @ U.transpose(0, 2, 1)
            groups.append(Families(members, U, K, observed[members], X[members]))
    singles = np.flatnonzero(alone)
    if singles.size:
        groups.append(_singles(singles, spectrum.s[singles], observed[singles], X))
    return tuple(groups)


def _singles(members: Indices, K: Array, observed: Mask, X: Array) -> Singles:
    packed = np.packbits(observed, axis=1).astype(np.float64)
    order = np.lexsort((K, *packed.T))
    labels = np.column_stack([packed, K])[order]
    new = np.concatenate([[True], np.any(labels[1:] != labels[:-1], axis=1)])
    first = order[new]
    return Singles(members[order], np.flatnonzero(new), K[first], observed[first], X[members[order]])
