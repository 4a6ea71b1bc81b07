"""Scores and information of variants under a null model of observed cells of families.

With P of `families.observed_likelihood` and V⁻¹ in (p, p) blocks of pairs of samples, in any coordinates of traits::

    u = Σ_i g_i α_i,    V = Σ_i g_i² V⁻¹_ii + Σ_(pairs i<k of a family) g_i g_k (V⁻¹_ik + V⁻¹_ki) - ‖L⁻¹ Σ_i g_i N_i‖²,

``N = V⁻¹M``, ``LLᵀ = MᵀV⁻¹M``. The squares and products of relatives go against one table of p(p+1)/2 columns. N_i of
a sample with relatives has p²c numbers; that of a sample without is ``V⁻¹_ii ⊗ x_i``, and V⁻¹_ii is the same for all
of one pattern of observed traits, or a few functions of the relatedness, so that sums of ``g_i x_i`` are enough.

Tables are in coordinates of the traits in which the mean of V⁻¹_ii is the identity: rounding in single precision is
then of one size in all directions, whatever traits are correlated or observed on few samples.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import linalg

from kron2sum_cli.model.block_scanner import BlockStatistics, PairStatistics, ThreadMemory, least_left
from kron2sum_cli.model.families.observed import Families, Singles
from kron2sum_cli.model.families.observed_fitting import fixed_effects
from kron2sum_cli.model.families.observed_likelihood import ObservedFamilyPoint
from kron2sum_cli.model.families.scanner import low_rank
from kron2sum_cli.model.information import lower_triangle, pair_positions, symmetric
from kron2sum_cli.model.missing.scanner import LEFT_FOR_SINGLE, estimable
from kron2sum_cli.model.prediction import EffectsOfCovariates
from kron2sum_cli.model.sets.fixed_effects import SetScores
from kron2sum_cli.model.sets.scanner import SetScanner
from kron2sum_cli.model.spectrum import Array, Floats, Indices, parts_of

NUMBERS_AT_ONCE = 1 << 22
"""Numbers of one product in double precision that are in memory at once."""

SAMPLES_AT_ONCE = 4096
"""Samples of a block of variants that are multiplied at once, few enough to stay in a cache."""


@dataclass(frozen=True)
class PatternOfSingles:
    """Samples without relatives of one pattern of observed traits: ``rows`` of those of a `Stretch`.

    ``weighted`` (s, r, c) is ``b_k ∘ X`` for k = 1, ..., r, where V⁻¹_ii is ``Σ_k b_ik C_k``.
    """

    rows: slice
    weighted: Floats


@dataclass(frozen=True)
class Stretch:
    """Samples without relatives that are multiplied at once, at these rows of the tables, by pattern.

    ``coefficients`` (R, p(p+1)/2) are C_k of all patterns, one after the other.
    """

    rows: slice
    patterns: tuple[PatternOfSingles, ...]
    coefficients: Floats

    def effects(self, part: Floats, c: int) -> Floats:
        """``Σ_i g_i V⁻¹_ii ⊗ x_i`` of the stretch, for variants (b, s) and c covariates: (p(p+1)/2, cb)."""
        b, start = len(part), 0
        sums = np.empty((len(self.coefficients), c * b), part.dtype)
        for one in self.patterns:
            s, r, _ = one.weighted.shape
            flat, out = one.weighted.reshape(s, r * c), sums[start : start + r].reshape(r * c, b)
            np.matmul(flat.T, part[:, one.rows].T, out=out)
            start += r
        return np.asarray(self.coefficients.T @ sums)


@dataclass(frozen=True)
class ObservedFamilyScanner:
    """``u`` and ``V`` (p, p) of blocks of variants given the observed cells of families.

    - ``point``: the null model, for variants for which single precision is not enough.
    - ``order`` (n,): samples with relatives first, then the others by pattern; rows of the tables are in this order.
      First members of the families of a group lie side by side, then second ones, ..., so that relatives are multiplied
      without looking them up.
    - ``products`` (n, p + c): ``Py`` along the axes, and an orthonormal basis of the covariates.
    - ``squares`` (n, p(p+1)/2 + 1): V⁻¹_ii, and a column of ones.
    - ``groups``: members and families of every group, from the first row on.
    - ``pairs`` (r, p(p+1)/2): ``V⁻¹_ik + V⁻¹_ki`` of the pairs of relatives of a group: those of first members with
      second ones, with third ones, ..., those of second members with third ones, ...
    - ``skew`` (r, p(p-1)/2): ``V⁻¹_ik - V⁻¹_ki`` below the diagonal.
    - ``relatives`` (m, p²c): N_i of the m samples with relatives: coordinate of the variant, that of the effect,
      covariate.
    - ``stretches``: the other samples.
    - ``from_sums`` (pc, e): what turns sums of N_i into ``L⁻¹ Σ_i g_i N_i``.
    - ``turn`` (p, p): what turns V in the coordinates of the tables into ``turn V turnᵀ`` along the axes.
    """

    point: ObservedFamilyPoint
    order: Indices
    products: Floats
    squares: Floats
    groups: tuple[tuple[int, int], ...]
    pairs: Floats
    skew: Floats
    relatives: Floats
    stretches: tuple[Stretch, ...]
    from_sums: Floats
    turn: Array
    _memory: ThreadMemory = field(default_factory=ThreadMemory, repr=False, compare=False)

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """The precision in which it multiplies."""
        return self.products.dtype

    def statistics(self, G: Floats) -> BlockStatistics:
        """Statistics of a block of variants G (n, b), without missing values, in the precision of the scanner.

        Variants of which covariates and missing cells leave too little for that are computed in double. ``length`` is
        0 for a variant whose effects the samples of a trait do not tell from the covariates', or from each other.
        """
        (linear,), (effects,), (main,) = self._sums([G], [(0, 0)])
        found, left = self._block(linear, main, self._explained(effects))
        if self.dtype == np.float64:
            return estimable(found, left, G, self.point.data.covariates_of_traits)
        weak = np.flatnonzero(~(left > LEFT_FOR_SINGLE))
        if weak.size:
            found.put(weak, statistics_in_double(self.point, np.asarray(G[:, weak], np.float64)))
        return found

    def pair_statistics(self, G: Floats, H: Floats) -> PairStatistics:
        """Statistics of two columns a variant, G (n, b) and H (n, b): as `statistics`, with a third product."""
        (linear_g, linear_h), effects, (main_g, main_h, main) = self._sums([G, H], [(0, 0), (1, 1), (0, 1)])
        of_g, of_h = (self._explained(one) for one in effects)
        first, left_g = self._block(linear_g, main_g, of_g)
        second, left_h = self._block(linear_h, main_h, of_h)
        cross = main[0] - of_g @ of_h.transpose(0, 2, 1)
        found = PairStatistics(first, second, self.turn @ cross @ self.turn.T)
        if self.dtype == np.float64:
            covariates = self.point.data.covariates_of_traits
            first = estimable(first, left_g, G, covariates)
            return replace(found, first=first, second=estimable(second, left_h, H, covariates))
        least = np.minimum(np.minimum(left_g, left_h), found.given_first()[2])
        for k in np.flatnonzero(~(least > LEFT_FOR_SINGLE)):
            columns = np.column_stack([G[:, k], H[:, k]]).astype(np.float64)
            anew = statistics_in_double(self.point, columns)
            one = np.array([k])
            found.first.put(one, anew.take(np.array([0])))
            found.second.put(one, anew.take(np.array([1])))
            found.cross[k] = observed_family_set_scores(self.point, columns).V[:, :, 0, 1]
        return found

    def _sums(
        self, blocks: Sequence[Floats], pairs: Sequence[tuple[int, int]]
    ) -> tuple[list[Array], list[Floats], list[tuple[Array, Array]]]:
        """Sums over the samples, a stretch of them at a time, so that genotypes are read from memory once.

        Of every block (n, b) its products (b, p + c) with Py along the axes and with the covariates, and ``Σ g_i N_i``
        (b, p²c); of every pair of blocks ``Σ g_i h_k V⁻¹_ik`` (b, p, p), before covariates, and ``Σ g_i h_i`` (b,).
        """
        b, p, m = blocks[0].shape[1], self.turn.shape[0], len(self.relatives)
        c = self.products.shape[1] - p
        linear = [np.zeros((b, p + c)) for _ in blocks]
        squares = [np.zeros((b, self.squares.shape[1])) for _ in pairs]
        of_singles = [np.zeros((p * (p + 1) // 2, c * b), self.dtype) for _ in blocks]

        def add(parts: Sequence[Floats], rows: slice) -> None:
            for total, part in zip(linear, parts, strict=True):
                total += part @ self.products[rows]
            for total, (g, h) in zip(squares, pairs, strict=True):
                total += (parts[g] * parts[h]) @ self.squares[rows]

        ordered = self._ordered(blocks)
        for rows in parts_of(m, SAMPLES_AT_ONCE):
            add([block[:, rows] for block in ordered], rows)
        for stretch in self.stretches:
            parts = [block[:, stretch.rows] for block in ordered]
            add(parts, stretch.rows)
            for effects, part in zip(of_singles, parts, strict=True):
                effects += stretch.effects(part, c)
        unpacked = pair_positions(p).ravel()
        found: list[Floats] = [block[:, :m] @ self.relatives for block in ordered]
        for total, packed in zip(found, of_singles, strict=True):
            total += packed[unpacked].reshape(p * p * c, b).T
        quadratic = [
            (symmetric(total[:, :-1]) + self._of_relatives(ordered[g], ordered[h]), total[:, -1])
            for total, (g, h) in zip(squares, pairs, strict=True)
        ]
        return linear, found, quadratic

    def _ordered(self, blocks: Sequence[Floats]) -> Floats:
        """Blocks of variants (n, b) in the order of the tables, (b, n) each; a thread's next take their memory."""
        ordered: Floats = self._memory.take((len(blocks), blocks[0].shape[1], len(self.order)), self.dtype)
        for block, out in zip(blocks, ordered, strict=True):
            np.take(block.T.astype(self.dtype, copy=False), self.order, axis=1, out=out, mode="clip")
        return ordered

    def _explained(self, effects: Floats) -> Array:
        """``(L⁻¹ Σ_i g_i N_i)ᵀ`` (b, p, e) in the coordinates of the tables, from the sums (b, p²c)."""
        b, p, (pc, e) = len(effects), self.turn.shape[0], self.from_sums.shape
        return np.asarray((effects.reshape(b * p, pc) @ self.from_sums).reshape(b, p, e), np.float64)

    def _of_relatives(self, g: Floats, h: Floats) -> Array:
        """``Σ g_i h_k V⁻¹_ik`` (b, p, p) over the pairs of relatives, i other than k."""
        b, p = len(g), self.turn.shape[0]
        packed, skew = np.zeros((b, self.pairs.shape[1])), np.zeros((b, self.skew.shape[1]))
        start = done = 0
        for m, f in self.groups:
            own_g, own_h = (one[:, start : start + m * f].reshape(b, m, f) for one in (g, h))
            start += m * f
            for k in range(m - 1):
                rows = slice(done, done + (m - 1 - k) * f)
                one = own_g[:, k, None] * own_h[:, k + 1 :]
                if g is not h:
                    other = own_g[:, k + 1 :] * own_h[:, k, None]
                    skew += (0.5 * (one - other)).reshape(b, -1) @ self.skew[rows]
                    one = 0.5 * (one + other)
                packed += one.reshape(b, -1) @ self.pairs[rows]
                done = rows.stop
        found = symmetric(packed)
        if g is not h:
            i, j = np.tril_indices(p, -1)
            found[:, i, j] += skew
            found[:, j, i] -= skew
        return found

    def _block(self, linear: Array, main: tuple[Array, Array], explained: Array) -> tuple[BlockStatistics, Array]:
        """Statistics, and the smallest share (b,) of the information that covariates leave in any direction."""
        p = self.turn.shape[0]
        V = main[0] - explained @ explained.transpose(0, 2, 1)
        left = least_left(V, np.einsum("bjj->bj", main[0]))
        length = main[1] - np.sum(linear[:, p:] ** 2, axis=1)
        return BlockStatistics(linear[:, :p].copy(), self.turn @ V @ self.turn.T, length, np.zeros(len(length))), left


def observed_family_scanner(point: ObservedFamilyPoint, dtype: type[np.floating] = np.float32) -> ObservedFamilyScanner:
    """The scanner of blocks at a null model of observed cells of families, in single or double precision."""
    data, axes = point.data, point.axes
    p, c = data.ntraits, data.ncovariates
    turn, B = _coordinates(point)
    related = [(g, i) for g, i in zip(data.groups, point.inverses, strict=True) if isinstance(g, Families)]
    alone = [(g, i) for g, i in zip(data.groups, point.inverses, strict=True) if isinstance(g, Singles)]
    members = [group.members.T.ravel() for group, _ in related] + [group.members for group, _ in alone]
    order = np.concatenate(members)
    squares = np.ones((data.nsamples, p * (p + 1) // 2 + 1), dtype)
    relatives = np.empty((sum(group.members.size for group, _ in related), p * p * c), dtype)
    pairs: list[Floats] = [np.empty((0, p * (p + 1) // 2), dtype)]
    skew: list[Floats] = [np.empty((0, p * (p - 1) // 2), dtype)]
    start = 0
    for group, inverse in related:
        m, f = group.members.T.shape
        rows = slice(start, start + m * f)
        turned = _turned(inverse, B).astype(dtype)
        squares[rows, :-1] = lower_triangle(np.einsum("fitiu->iftu", turned)).reshape(m * f, -1)
        of_relatives = turned.transpose(1, 0, 2, 4, 3).reshape(m, f, p * p, m)
        np.matmul(of_relatives, group.X.astype(dtype), out=relatives[rows].reshape(m, f, p * p, c))
        sums, differences = _table_of_pairs(turned.transpose(1, 3, 0, 2, 4))
        pairs.append(sums)
        skew.append(differences)
        start = rows.stop
    stretches: list[Stretch] = []
    for singles, inverse in alone:
        packed = lower_triangle(B.T @ inverse @ B)
        squares[start:, :-1] = packed[singles.kind]
        stretches = _stretches(singles, packed, start, dtype)
    return ObservedFamilyScanner(
        point=point,
        order=order,
        products=np.hstack([point.alpha @ axes.Tinv, data.Q])[order].astype(dtype),
        squares=squares,
        groups=tuple(group.members.T.shape for group, _ in related),
        pairs=np.concatenate(pairs),
        skew=np.concatenate(skew),
        relatives=relatives,
        stretches=tuple(stretches),
        from_sums=_from_sums(point, B).astype(dtype),
        turn=turn,
    )


def _coordinates(point: ObservedFamilyPoint) -> tuple[Array, Array]:
    """L and ``B = T⁻¹L⁻ᵀ`` with ``BᵀV⁻¹_iiB`` the identity on average: V along the axes is ``L (BᵀVB) Lᵀ``."""
    total = np.zeros((point.data.ntraits,) * 2)
    for group, inverse in zip(point.data.groups, point.inverses, strict=True):
        total += group.traces(inverse)[1]
    Tinv = point.axes.Tinv
    turn = np.linalg.cholesky(Tinv.T @ total @ Tinv / point.data.nsamples)
    return np.asarray(turn, np.float64), np.asarray(linalg.solve_triangular(turn, Tinv.T, lower=True).T)


def _from_sums(point: ObservedFamilyPoint, B: Array) -> Array:
    data = point.data
    p, c, kept = data.ntraits, data.ncovariates, data.kept
    half = np.zeros((p * c, kept.size))
    half[kept] = linalg.solve_triangular(point.chol, np.eye(kept.size), lower=True).T
    back = np.linalg.inv(B)
    return np.asarray(np.einsum("xu,ule->xle", back, half.reshape(p, c, kept.size)).reshape(p * c, kept.size))


def _turned(inverse: Array, B: Array) -> Array:
    """``BᵀV⁻¹B`` for the traits of every two samples of a family: (f, m, p, m, p)."""
    f, m, p = inverse.shape[:3]
    half = np.matmul(B.T, inverse.reshape(f * m, p, m * p))
    return np.asarray((half.reshape(-1, p) @ B).reshape(inverse.shape))


def _table_of_pairs(turned: Floats) -> tuple[Floats, Floats]:
    """Rows of both tables of all pairs of relatives, from blocks (m, m, f, p, p)."""
    m, _, _, p, _ = turned.shape
    blocks = turned[np.triu_indices(m, 1)].reshape(-1, p, p)
    other = blocks.transpose(0, 2, 1)
    i, j = np.tril_indices(p, -1)
    return lower_triangle(blocks + other), (blocks - other)[:, i, j]


def _stretches(singles: Singles, packed: Array, first: int, dtype: type[np.floating]) -> list[Stretch]:
    """Samples without relatives, from row ``first`` of the tables on, with V⁻¹_ii ``packed`` (kinds, p(p+1)/2)."""
    size = singles.members.size
    starts = range(0, size, SAMPLES_AT_ONCE)
    patterns: list[list[PatternOfSingles]] = [[] for _ in starts]
    coefficients = [[np.empty((0, packed.shape[1]))] for _ in starts]
    for rows, weights, C in _patterns(singles, packed, float(np.finfo(dtype).eps)):
        weighted = (weights[:, :, None] * singles.X[rows][:, None, :]).astype(dtype)
        for k in range(rows.start // SAMPLES_AT_ONCE, (rows.stop - 1) // SAMPLES_AT_ONCE + 1):
            part = slice(max(rows.start, starts[k]), min(rows.stop, starts[k] + SAMPLES_AT_ONCE))
            moved = slice(part.start - starts[k], part.stop - starts[k])
            patterns[k].append(PatternOfSingles(moved, weighted[part.start - rows.start : part.stop - rows.start]))
            coefficients[k].append(C)
    edges = [*starts, size]
    return [
        Stretch(slice(first + edges[k], first + edges[k + 1]), tuple(patterns[k]), np.vstack(C).astype(dtype))
        for k, C in enumerate(coefficients)
    ]


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
    flat = linalg.solve_triangular(point.chol, right[kept].reshape(kept.size, math.prod(right.shape[1:])), lower=True)
    return np.asarray(flat.reshape(kept.size, *right.shape[1:]))


def _chunks(point: ObservedFamilyPoint, b: int) -> list[slice]:
    return parts_of(b, NUMBERS_AT_ONCE // (point.data.missing.size * point.data.ntraits))


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
    found = BlockStatistics(G.T @ point.alpha @ Tinv, V, length, np.zeros(len(length)))
    return estimable(found, left, G, point.data.covariates_of_traits)


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
class ObservedFamilySetScanner(SetScanner):
    """Sets under a null model of observed cells of families, in double precision; of a block there are the variants."""

    point: ObservedFamilyPoint

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """Double."""
        return np.dtype(np.float64)

    def arrays(self, G: Floats) -> tuple[Floats, ...]:
        """See `SetScanner.arrays`; nothing is rotated."""
        return (np.asarray(G, np.float64),)

    def scores(self, *arrays: Floats) -> SetScores:
        """See `SetScanner.scores`."""
        return observed_family_set_scores(self.point, np.asarray(arrays[0], np.float64))


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
