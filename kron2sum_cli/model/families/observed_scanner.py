"""Scores and information of variants under a null model of observed cells of families.

With P of `families.observed_likelihood` and V⁻¹ in (p, p) blocks of pairs of samples, in any coordinates of traits::

    u = Σ_i g_i α_i,    V = Σ_i g_i² V⁻¹_ii + Σ_(pairs i<k of a family) g_i g_k (V⁻¹_ik + V⁻¹_ki) - ‖L⁻¹ Σ_i g_i N_i‖²,

``N = V⁻¹M``, ``LLᵀ = MᵀV⁻¹M``. The squares and products of relatives go against one table of p(p+1)/2 columns. N_i of
a sample with relatives has p²c numbers; that of a sample without is ``V⁻¹_ii ⊗ x_i``, and V⁻¹_ii is the same for all
of one pattern of observed traits, or a few functions of the relatedness, so that sums of ``g_i x_i`` are enough.

Tables are in coordinates of the traits in which the mean of V⁻¹_ii is the identity: rounding in single precision is
then of one size in all directions, whatever traits are correlated or observed on few samples.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from kron2sum_cli.model.block_scanner import BlockStatistics, PairStatistics, inner_products, least_left
from kron2sum_cli.model.families.observed import Families, Indices, Singles
from kron2sum_cli.model.families.observed_fitting import fixed_effects
from kron2sum_cli.model.families.observed_likelihood import ObservedFamilyPoint
from kron2sum_cli.model.families.scanner import low_rank, samples_at_once
from kron2sum_cli.model.missing.scanner import LEFT_FOR_SINGLE, UNITS_OF_ROUNDING
from kron2sum_cli.model.prediction import EffectsOfCovariates
from kron2sum_cli.model.set_test import SetScores
from kron2sum_cli.model.spectrum import EPSILON, Array

Floats = NDArray[np.floating]

NUMBERS_AT_ONCE = 1 << 22
"""Numbers of one product in double precision that are in memory at once."""

SUMS_AT_ONCE = 1024
"""Sums over samples without relatives that are turned into those of fixed effects at once."""


@dataclass(frozen=True)
class PatternOfSingles:
    """Samples without relatives of one pattern of observed traits.

    Attributes
    ----------
    rows : slice
        Their positions.
    weighted : NDArray (s, rc)
        ``b_k ∘ X`` for k = 1, ..., r, where V⁻¹_ii is ``Σ_k b_ik C_k``.
    """

    rows: slice
    weighted: Floats


@dataclass(frozen=True)
class ObservedFamilyScanner:
    """``u`` and ``V`` (p, p) of blocks of variants given the observed cells of families.

    Attributes
    ----------
    point : ObservedFamilyPoint
        The null model, for variants for which single precision is not enough.
    order : NDArray (n,)
        Samples with relatives first, then the others by pattern; rows of the tables are in this order.
    products : NDArray (n, p + c)
        ``Py`` along the axes, and an orthonormal basis of the covariates.
    squares : NDArray (n, p(p+1)/2 + 1)
        V⁻¹_ii, and a column of ones.
    first, second : NDArray (r,)
        Positions of the pairs of relatives.
    pairs : NDArray (r, p(p+1)/2)
        ``V⁻¹_ik + V⁻¹_ki``.
    skew : NDArray (r, p(p-1)/2)
        ``V⁻¹_ik - V⁻¹_ki`` below the diagonal.
    relatives : NDArray (m, p²c)
        N_i of the m samples with relatives: coordinate of the variant, that of the effect, covariate.
    patterns : tuple of PatternOfSingles
        The other samples.
    coefficients : NDArray (R, p(p+1)/2)
        C_k of all patterns.
    from_sums : NDArray (pc, e)
        What turns sums of N_i into ``L⁻¹ Σ_i g_i N_i``.
    turn : NDArray (p, p)
        What turns V in the coordinates of the tables into ``turn V turnᵀ`` along the axes.
    """

    point: ObservedFamilyPoint
    order: Indices
    products: Floats
    squares: Floats
    first: Indices
    second: Indices
    pairs: Floats
    skew: Floats
    relatives: Floats
    patterns: tuple[PatternOfSingles, ...]
    coefficients: Floats
    from_sums: Floats
    turn: Array

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """The precision in which it multiplies."""
        return self.products.dtype

    def rotate(self, G: Floats) -> Array:
        """Rotated variants ``UᵀG`` (n, b) in double precision."""
        return self.point.data.spectrum.rotation.to_rows(G.astype(np.float64))

    def statistics(self, G: Floats) -> BlockStatistics:
        """Statistics of a block of variants G (n, b), without missing values, in the precision of the scanner.

        Variants of which covariates and missing cells leave too little for that are computed in double. ``length`` is
        0 for a variant whose effects the samples of a trait do not tell from the covariates', or from each other.
        """
        ordered = self._ordered(G)
        found, left = self._block(ordered, self._main(ordered, ordered), self.explained(ordered))
        if self.dtype == np.float64:
            return _estimable(found, left)
        weak = np.flatnonzero(~(left > LEFT_FOR_SINGLE))
        if weak.size:
            _put(found, weak, statistics_in_double(self.point, np.asarray(G[:, weak], np.float64)))
        return found

    def pair_statistics(self, G: Floats, H: Floats) -> PairStatistics:
        """Statistics of two columns a variant, G (n, b) and H (n, b): as `statistics`, with a third product."""
        g, h = self._ordered(G), self._ordered(H)
        of_g, of_h = self.explained(g), self.explained(h)
        first, left_g = self._block(g, self._main(g, g), of_g)
        second, left_h = self._block(h, self._main(h, h), of_h)
        cross = self._main(g, h)[0] - of_g @ of_h.transpose(0, 2, 1)
        found = PairStatistics(first, second, self.turn @ cross @ self.turn.T)
        if self.dtype == np.float64:
            return replace(found, first=_estimable(first, left_g), second=_estimable(second, left_h))
        least = np.minimum(np.minimum(left_g, left_h), found.given_first()[2])
        for k in np.flatnonzero(~(least > LEFT_FOR_SINGLE)):
            columns = np.column_stack([G[:, k], H[:, k]]).astype(np.float64)
            anew = statistics_in_double(self.point, columns)
            one = np.array([k])
            _put(found.first, one, _only(anew, 0))
            _put(found.second, one, _only(anew, 1))
            found.cross[k] = observed_family_set_scores(self.point, columns).V[:, :, 0, 1]
        return found

    def explained(self, ordered: Floats) -> Array:
        """``(L⁻¹ Σ_i g_i N_i)ᵀ`` of variants (b, n) in the order of the tables: (b, p, e) in their coordinates."""
        b, p = len(ordered), self.turn.shape[0]
        c = self.products.shape[1] - p
        if not self.from_sums.size:
            return np.zeros((b, p, 0))
        m = len(self.relatives)
        sums = ordered[:, :m] @ self.relatives
        unpacked = _positions(p).ravel()
        for start, stop, part in self._parts():
            flat = np.empty((stop - start, c, b), self.dtype)
            done = 0
            for one in part:
                r = one.weighted.shape[1] // c
                np.matmul(one.weighted.T, ordered[:, one.rows].T, out=flat[done : done + r].reshape(r * c, b))
                done += r
            packed = self.coefficients[start:stop].T @ flat.reshape(stop - start, c * b)
            sums += packed[unpacked].reshape(p * p * c, b).T
        return np.asarray((sums.reshape(b * p, p * c) @ self.from_sums).reshape(b, p, -1), np.float64)

    def _parts(self) -> list[tuple[int, int, list[PatternOfSingles]]]:
        """Patterns, some at a time, with the positions of their coefficients."""
        c, start, stop = self.products.shape[1] - self.turn.shape[0], 0, 0
        found: list[tuple[int, int, list[PatternOfSingles]]] = []
        part: list[PatternOfSingles] = []
        for one in self.patterns:
            part.append(one)
            stop += one.weighted.shape[1] // c
            if stop - start >= SUMS_AT_ONCE:
                found.append((start, stop, part))
                start, part = stop, []
        return [*found, (start, stop, part)] if part else found

    def _ordered(self, G: Floats) -> Floats:
        return np.take(G.T, self.order, axis=1).astype(self.dtype, copy=False)

    def _main(self, g: Floats, h: Floats) -> tuple[Array, Array]:
        """``Σ g_i h_k V⁻¹_ik`` (b, p, p) of variants (b, n), before covariates, and ``Σ g_i h_i`` (b,)."""
        p, step = self.turn.shape[0], samples_at_once(len(g))
        sums = np.zeros((len(g), self.squares.shape[1]))
        for start in range(0, g.shape[1], step):
            rows = slice(start, start + step)
            sums += (g[:, rows] * h[:, rows]) @ self.squares[rows]
        packed, length = sums[:, :-1], sums[:, -1]
        skew = np.zeros((len(g), p * (p - 1) // 2))
        for start in range(0, self.first.size, step):
            rows = slice(start, start + step)
            one = np.take(g, self.first[rows], axis=1) * np.take(h, self.second[rows], axis=1)
            if g is not h:
                other = np.take(g, self.second[rows], axis=1) * np.take(h, self.first[rows], axis=1)
                skew += (0.5 * (one - other)) @ self.skew[rows]
                one = 0.5 * (one + other)
            packed += one @ self.pairs[rows]
        found = _unpacked(packed, p)
        if g is not h:
            i, j = np.tril_indices(p, -1)
            found[:, i, j] += skew
            found[:, j, i] -= skew
        return found, length

    def _block(self, ordered: Floats, main: tuple[Array, Array], explained: Array) -> tuple[BlockStatistics, Array]:
        """Statistics, and the smallest share (b,) of the information that covariates leave in any direction."""
        p, step = self.turn.shape[0], samples_at_once(len(ordered))
        V = main[0] - explained @ explained.transpose(0, 2, 1)
        left = least_left(V, np.einsum("bjj->bj", main[0]))
        sums = np.zeros((len(ordered), self.products.shape[1]))
        for start in range(0, ordered.shape[1], step):
            rows = slice(start, start + step)
            sums += ordered[:, rows] @ self.products[rows]
        length = main[1] - np.sum(sums[:, p:] ** 2, axis=1)
        return BlockStatistics(sums[:, :p].copy(), self.turn @ V @ self.turn.T, length, np.zeros(len(length))), left


def _estimable(found: BlockStatistics, left: Array) -> BlockStatistics:
    return replace(found, length=np.where(left > UNITS_OF_ROUNDING * EPSILON, found.length, 0.0))


def _put(found: BlockStatistics, variants: Indices, anew: BlockStatistics) -> None:
    for part, of_some in ((found.u, anew.u), (found.v, anew.v), (found.length, anew.length)):
        part[variants] = of_some


def _only(found: BlockStatistics, k: int) -> BlockStatistics:
    one = slice(k, k + 1)
    return BlockStatistics(found.u[one], found.v[one], found.length[one], found.outside[one])


def _packed(blocks: Array) -> Array:
    """Lower triangles (..., p(p+1)/2) of (..., p, p)."""
    i, j = np.tril_indices(blocks.shape[-1])
    return np.asarray(blocks[..., i, j])


def _positions(p: int) -> Indices:
    """Where the entries of a symmetric (p, p) stand in its lower triangle."""
    i, j = np.tril_indices(p)
    position = np.empty((p, p), np.intp)
    position[i, j] = position[j, i] = np.arange(i.size)
    return position


def _unpacked(packed: Array, p: int) -> Array:
    """Symmetric (s, p, p) of lower triangles (s, p(p+1)/2)."""
    return packed[:, _positions(p).ravel()].reshape(-1, p, p)


def observed_family_scanner(point: ObservedFamilyPoint, dtype: type[np.floating] = np.float32) -> ObservedFamilyScanner:
    """The scanner of blocks at a null model of observed cells of families, in single or double precision."""
    data, axes = point.data, point.axes
    p, c = data.ntraits, data.ncovariates
    turn, B = _coordinates(point)
    related = [(g, i) for g, i in zip(data.groups, point.inverses, strict=True) if isinstance(g, Families)]
    alone = [(g, i) for g, i in zip(data.groups, point.inverses, strict=True) if isinstance(g, Singles)]
    members = [group.members.ravel() for group, _ in related] + [group.members for group, _ in alone]
    order = np.concatenate(members)
    squares = np.ones((data.nsamples, p * (p + 1) // 2 + 1), dtype)
    relatives = np.empty((sum(group.members.size for group, _ in related), p * p * c), dtype)
    tables: list[tuple[Indices, Indices, Floats, Floats]] = []
    start = 0
    for group, inverse in related:
        turned = _turned(inverse, B)
        rows = slice(start, start + group.members.size)
        squares[rows, :-1] = _packed(np.einsum("fitiu->fitu", turned)).reshape(group.members.size, -1)
        relatives[rows] = group.weighted(turned).reshape(group.members.size, -1)
        tables.append(_table_of_pairs(turned.transpose(0, 1, 3, 2, 4), start, dtype))
        start = rows.stop
    patterns: list[PatternOfSingles] = []
    coefficients: list[Array] = [np.empty((0, p * (p + 1) // 2))]
    for singles, inverse in alone:
        packed = _packed(B.T @ inverse @ B)
        squares[start:, :-1] = packed[singles.kind]
        for rows, weights, C in _patterns(singles, packed, float(np.finfo(dtype).eps)):
            weighted = (weights[:, :, None] * singles.X[rows][:, None, :]).reshape(len(weights), -1)
            moved = slice(start + rows.start, start + rows.stop)
            patterns.append(PatternOfSingles(moved, np.ascontiguousarray(weighted, dtype)))
            coefficients.append(C)
    first, second, pairs, skew = (np.concatenate(parts) for parts in zip(*tables, strict=True)) if tables else (
        np.empty(0, np.intp), np.empty(0, np.intp), np.empty((0, p * (p + 1) // 2), dtype),
        np.empty((0, p * (p - 1) // 2), dtype),
    )  # fmt: skip
    return ObservedFamilyScanner(
        point=point,
        order=order,
        products=np.hstack([point.alpha @ axes.Tinv, data.Q])[order].astype(dtype),
        squares=squares,
        first=first,
        second=second,
        pairs=pairs,
        skew=skew,
        relatives=relatives,
        patterns=tuple(patterns),
        coefficients=np.concatenate(coefficients).astype(dtype),
        from_sums=_from_sums(point, B).astype(dtype),
        turn=turn,
    )


def _coordinates(point: ObservedFamilyPoint) -> tuple[Array, Array]:
    """L and ``B = T⁻¹L⁻ᵀ`` with ``BᵀV⁻¹_iiB`` the identity on average: V along the axes is ``L (BᵀVB) Lᵀ``."""
    total = np.zeros((point.data.ntraits,) * 2)
    for group, inverse in zip(point.data.groups, point.inverses, strict=True):
        total += group.traces(inverse).of_C1
    Tinv = point.axes.Tinv
    turn = np.linalg.cholesky(Tinv.T @ total @ Tinv / point.data.nsamples)
    return np.asarray(turn, np.float64), np.asarray(linalg.solve_triangular(turn, Tinv.T, lower=True).T)


def _from_sums(point: ObservedFamilyPoint, B: Array) -> Array:
    data = point.data
    p, c, kept = data.ntraits, data.ncovariates, data.kept
    half = np.zeros((p * c, kept.size))
    if kept.size:
        half[kept] = linalg.solve_triangular(point.chol, np.eye(kept.size), lower=True).T
    back = np.linalg.inv(B)
    return np.asarray(np.einsum("xu,ule->xle", back, half.reshape(p, c, kept.size)).reshape(p * c, kept.size))


def _turned(inverse: Array, B: Array) -> Array:
    """``BᵀV⁻¹B`` for the traits of every two samples of a family: (f, m, p, m, p)."""
    f, m, p = inverse.shape[:3]
    half = np.matmul(B.T, inverse.reshape(f * m, p, m * p))
    return np.asarray((half.reshape(-1, p) @ B).reshape(inverse.shape))


def _table_of_pairs(turned: Array, start: int, dtype: type[np.floating]) -> tuple[Indices, Indices, Floats, Floats]:
    """Positions and rows of the tables of all pairs of relatives, from blocks (f, m, m, p, p)."""
    f, m, _, p, _ = turned.shape
    i, k = np.triu_indices(m, 1)
    blocks = turned[:, i, k].reshape(-1, p, p)
    other = blocks.transpose(0, 2, 1)
    first, second = (start + m * np.arange(f)[:, None] + one for one in (i, k))
    lower = np.tril_indices(p, -1)
    skew = (blocks - other)[:, lower[0], lower[1]]
    return first.ravel(), second.ravel(), _packed(blocks + other).astype(dtype), skew.astype(dtype)


def _patterns(singles: Singles, packed: Array, tolerance: float) -> list[tuple[slice, Array, Array]]:
    """Samples of every pattern, their weights (s, r), and C (r, p(p+1)/2)."""
    changes = np.flatnonzero(np.any(singles.observed[1:] != singles.observed[:-1], axis=1)) + 1
    edges = np.append(singles.starts, singles.members.size)
    found = []
    for kinds in np.split(np.arange(len(packed)), changes):
        rows = slice(int(edges[kinds[0]]), int(edges[kinds[-1] + 1]))
        if not np.any(packed[kinds]):  # nothing observed
            continue
        if kinds.size == 1:
            weights, C = np.ones((1, 1)), packed[kinds]
        else:
            weights, turned = low_rank(packed[kinds], tolerance)
            C = turned.T
        found.append((rows, weights[singles.kind[rows] - kinds[0]], C))
    return found


def _solved(point: ObservedFamilyPoint, G: Array) -> Array:
    """``V⁻¹`` of the columns of variants G (n, b) along every axis: (n, p, p, b)."""
    n, b = G.shape
    p = point.data.ntraits
    columns = point.axes.Tinv[None, :, :, None] * G[:, None, None, :]
    return point.solve(columns.reshape(n, p, p * b)).reshape(n, p, p, b)


def _of_effects(point: ObservedFamilyPoint, solved: Array) -> Array:
    """``Mᵀ V⁻¹`` of the columns of variants, from `_solved`: (pc, p, b), effects on a trait side by side."""
    n, p, _, b = solved.shape
    right = (point.data.Q.T @ solved.reshape(n, -1)).reshape(-1, p, p, b)
    return np.asarray(right.transpose(1, 0, 2, 3).reshape(-1, p, b))


def _half(point: ObservedFamilyPoint, right: Array) -> Array:
    kept = point.data.kept
    if not kept.size:
        return np.zeros((0, *right.shape[1:]))
    flat = linalg.solve_triangular(point.chol, right[kept].reshape(kept.size, -1), lower=True)
    return np.asarray(flat.reshape(kept.size, *right.shape[1:]))


def _chunks(point: ObservedFamilyPoint, b: int) -> list[slice]:
    step = max(1, NUMBERS_AT_ONCE // (point.data.missing.size * point.data.ntraits))
    return [slice(start, start + step) for start in range(0, b, step)]


def statistics_in_double(point: ObservedFamilyPoint, G: Array) -> BlockStatistics:
    """What `ObservedFamilyScanner.statistics` returns, of variants G (n, b), without tables."""
    p, Tinv, Q = point.data.ntraits, point.axes.Tinv, point.data.Q
    V, left = np.empty((G.shape[1], p, p)), np.empty(G.shape[1])
    for part in _chunks(point, G.shape[1]):
        solved = _solved(point, G[:, part])
        half = _half(point, _of_effects(point, solved))
        main = np.einsum("tj,nb,ntlb->bjl", Tinv, G[:, part], solved, optimize=True)
        V[part] = main - np.einsum("ejb,elb->bjl", half, half)
        left[part] = least_left(V[part], np.einsum("bjj->bj", main))
    length = np.sum(G**2, axis=0) - np.sum((Q.T @ G) ** 2, axis=0)
    return _estimable(BlockStatistics(G.T @ point.alpha @ Tinv, V, length, np.zeros(len(length))), left)


def observed_family_set_scores(point: ObservedFamilyPoint, G: Array) -> SetScores:
    """Scores and information of a set of variants G (n, q), in double precision."""
    p, q, Tinv = point.data.ntraits, G.shape[1], point.axes.Tinv
    V, halves = np.empty((p, p, q, q)), np.empty((point.data.kept.size, p, q))
    for part in _chunks(point, q):
        solved = _solved(point, G[:, part])
        halves[:, :, part] = _half(point, _of_effects(point, solved))
        V[:, :, :, part] = np.einsum("tj,na,ntlb->jlab", Tinv, G, solved, optimize=True)
    sizes = np.einsum("jjaa->ja", V).copy()
    V -= np.einsum("eja,elb->jlab", halves, halves, optimize=True)
    return SetScores(G.T @ point.alpha @ Tinv, V, sizes)


@dataclass(frozen=True)
class ObservedFamilyVariants:
    """A block of variants under a null model of observed cells of families.

    Attributes
    ----------
    point : ObservedFamilyPoint
        The null model.
    G : NDArray (n, b)
        The variants.
    """

    point: ObservedFamilyPoint
    G: Array

    @property
    def length(self) -> Array:
        """See `set_scanner.RotatedVariants.length`."""
        return inner_products(self.G.T, self.G.T)

    def scores(self, members: Indices) -> SetScores:
        """See `set_scanner.RotatedVariants.scores`."""
        return observed_family_set_scores(self.point, self.G[:, members])


@dataclass(frozen=True)
class ObservedFamilySetScanner:
    """Sets under a null model of observed cells of families, in double precision.

    Attributes
    ----------
    point : ObservedFamilyPoint
        The null model.
    """

    point: ObservedFamilyPoint

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """Double."""
        return np.dtype(np.float64)

    def rotate(self, G: Floats) -> ObservedFamilyVariants:
        """See `set_scanner.SetScanner.rotate`; nothing is rotated."""
        return ObservedFamilyVariants(self.point, np.asarray(G, np.float64))


def observed_family_projection(point: ObservedFamilyPoint, F: Array) -> Array:
    """``Pf`` for data F (n, p, k) in the trait axes, over the samples: (n, p, k)."""
    Tinv = point.axes.Tinv
    projected = point.project(np.asarray(np.einsum("tj,njk->ntk", Tinv, F)))
    return np.asarray(np.einsum("tj,ntk->njk", Tinv, projected))


def effects_of_observed(point: ObservedFamilyPoint, K: Array) -> EffectsOfCovariates:
    """The fixed effects of a null model, for samples with relatedness K (n, t) to its own."""
    data = point.data
    p, c, t = data.ntraits, data.ncovariates, K.shape[1]
    B, covariance = fixed_effects(point)
    explained = np.empty((t, p, p, c))
    for part in _chunks(point, t):
        right = _of_effects(point, _solved(point, K[:, part])).reshape(p, c, p, -1)
        explained[part] = np.einsum("uxy,uyvz,vzlb->blux", data.to_X, point.effects_inverse, right, optimize=True)
    return EffectsOfCovariates(np.eye(p), B, covariance, explained.reshape(t, p, p * c))
