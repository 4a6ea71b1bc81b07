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
from kron2sum_cli.model.families.scanner import low_rank
from kron2sum_cli.model.missing.scanner import LEFT_FOR_SINGLE, UNITS_OF_ROUNDING
from kron2sum_cli.model.prediction import EffectsOfCovariates
from kron2sum_cli.model.set_test import SetScores
from kron2sum_cli.model.spectrum import EPSILON, Array

Floats = NDArray[np.floating]

ENTRIES = 1 << 22
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
    alpha : NDArray (n, p)
        ``Py`` along the axes.
    squares : NDArray (n, p(p+1)/2)
        V⁻¹_ii.
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
    Q : NDArray (n, c)
        Orthonormal basis of the covariates.
    """

    point: ObservedFamilyPoint
    order: Indices
    alpha: Floats
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
    Q: Floats

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """The precision in which it multiplies."""
        return self.alpha.dtype

    def rotate(self, G: Floats) -> Array:
        """Rotated variants ``UᵀG`` (n, b) in double precision."""
        return self.point.data.spectrum.rotation.to_rows(G.astype(np.float64))

    def statistics(self, G: Floats) -> BlockStatistics:
        """Statistics of a block of variants G (n, b), without missing values, in the precision of the scanner.

        Variants of which covariates and missing cells leave too little for that are computed in double. ``length`` is
        0 for a variant whose effects the samples of a trait do not tell from the covariates', or from each other.
        """
        ordered = self._ordered(G)
        main, explained = self._main(ordered, ordered), self.explained(ordered)
        found, left = self._block(ordered, main, explained)
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
        cross = self._main(g, h) - of_g @ of_h.transpose(0, 2, 1)
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
        b, p, c = len(ordered), self.turn.shape[0], self.Q.shape[1]
        if not self.from_sums.size:
            return np.zeros((b, p, 0))
        m = len(self.relatives)
        sums = (ordered[:, :m] @ self.relatives).reshape(b, p, p, c)
        for start, part in self._parts():
            products = [
                (ordered[:, one.rows] @ one.weighted).reshape(b, -1, c).transpose(1, 0, 2).reshape(-1, b * c)
                for one in part
            ]
            flat = np.concatenate(products)
            packed = self.coefficients[start : start + len(flat)].T @ flat
            sums += _unpacked(packed.T, p).reshape(b, c, p, p).transpose(0, 2, 3, 1)
        return np.asarray((sums.reshape(b * p, p * c) @ self.from_sums).reshape(b, p, -1), np.float64)

    def _parts(self) -> list[tuple[int, list[PatternOfSingles]]]:
        """Patterns, some at a time, with the position of their first coefficients."""
        c, start, here = self.Q.shape[1], 0, 0
        found: list[tuple[int, list[PatternOfSingles]]] = []
        for one in self.patterns:
            if not found or here >= SUMS_AT_ONCE:
                found.append((start, []))
                here = 0
            found[-1][1].append(one)
            start += one.weighted.shape[1] // c
            here += one.weighted.shape[1] // c
        return found

    def _ordered(self, G: Floats) -> Floats:
        return np.take(G.T, self.order, axis=1).astype(self.dtype, copy=False)

    def _main(self, g: Floats, h: Floats) -> Array:
        """``Σ g_i h_k V⁻¹_ik`` (b, p, p) of variants (b, n), before covariates."""
        p = self.turn.shape[0]
        packed = ((g * h) @ self.squares).astype(np.float64)
        if not self.first.size:
            return np.asarray(_unpacked(packed, p), np.float64)
        one = np.take(g, self.first, axis=1) * np.take(h, self.second, axis=1)
        if g is h:
            return np.asarray(_unpacked(packed + one @ self.pairs, p), np.float64)
        other = np.take(g, self.second, axis=1) * np.take(h, self.first, axis=1)
        found = _unpacked(packed + (0.5 * (one + other)) @ self.pairs, p)
        i, j = np.tril_indices(p, -1)
        skew = np.zeros_like(found)
        skew[:, i, j] = (0.5 * (one - other)) @ self.skew
        return np.asarray(found + skew - skew.transpose(0, 2, 1))

    def _block(self, ordered: Floats, main: Array, explained: Array) -> tuple[BlockStatistics, Array]:
        """Statistics, and the smallest share (b,) of the information that covariates leave in any direction."""
        V = main - explained @ explained.transpose(0, 2, 1)
        left = least_left(V, np.einsum("bjj->bj", main))
        projected = ordered @ self.Q
        length = inner_products(ordered, ordered) - inner_products(projected, projected)
        u = (ordered @ self.alpha).astype(np.float64)
        return BlockStatistics(u, self.turn @ V @ self.turn.T, length, np.zeros(len(length))), left


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


def _unpacked(packed: NDArray[np.floating], p: int) -> NDArray[np.floating]:
    """Symmetric (s, p, p) of lower triangles (s, p(p+1)/2)."""
    i, j = np.tril_indices(p)
    position = np.empty((p, p), np.intp)
    position[i, j] = position[j, i] = np.arange(i.size)
    return packed[:, position.ravel()].reshape(-1, p, p)


def observed_family_scanner(point: ObservedFamilyPoint, dtype: type[np.floating] = np.float32) -> ObservedFamilyScanner:
    """The scanner of blocks at a null model of observed cells of families, in single or double precision."""
    data, axes = point.data, point.axes
    p, c = data.ntraits, data.ncovariates
    turn, B = _coordinates(point)
    related = [(g, i) for g, i in zip(data.groups, point.inverses, strict=True) if isinstance(g, Families)]
    alone = [(g, i) for g, i in zip(data.groups, point.inverses, strict=True) if isinstance(g, Singles)]
    members = [group.members.ravel() for group, _ in related] + [group.members for group, _ in alone]
    order = np.concatenate(members)
    squares = np.empty((data.nsamples, p * (p + 1) // 2), dtype)
    relatives = np.empty((sum(group.members.size for group, _ in related), p * p * c), dtype)
    tables: list[tuple[Indices, Indices, Floats, Floats]] = []
    start = 0
    for group, inverse in related:
        turned = np.einsum("tx,fitju,uy->fijxy", B, inverse, B, optimize=True)
        rows = slice(start, start + group.members.size)
        own = np.arange(group.members.shape[1])
        squares[rows] = _packed(turned[:, own, own]).reshape(group.members.size, -1)
        N = np.einsum("tx,fitul,uy->fixyl", B, group.weighted(inverse), B, optimize=True)
        relatives[rows] = N.reshape(group.members.size, -1)
        tables.append(_table_of_pairs(turned, start, dtype))
        start = rows.stop
    patterns: list[PatternOfSingles] = []
    coefficients: list[Array] = [np.empty((0, squares.shape[1]))]
    for singles, inverse in alone:
        packed = _packed(B.T @ inverse @ B)
        squares[start:] = packed[singles.kind]
        for rows, weights, C in _patterns(singles, packed, float(np.finfo(dtype).eps)):
            weighted = (weights[:, :, None] * singles.X[rows][:, None, :]).reshape(len(weights), -1)
            moved = slice(start + rows.start, start + rows.stop)
            patterns.append(PatternOfSingles(moved, np.ascontiguousarray(weighted, dtype)))
            coefficients.append(C)
    first, second, pairs, skew = (np.concatenate(parts) for parts in zip(*tables, strict=True)) if tables else (
        np.empty(0, np.intp), np.empty(0, np.intp), np.empty((0, squares.shape[1]), dtype),
        np.empty((0, p * (p - 1) // 2), dtype),
    )  # fmt: skip
    return ObservedFamilyScanner(
        point=point,
        order=order,
        alpha=(point.alpha[order] @ axes.Tinv).astype(dtype),
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
        Q=data.Q[order].astype(dtype),
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
    step = max(1, ENTRIES // (point.data.missing.size * point.data.ntraits))
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
