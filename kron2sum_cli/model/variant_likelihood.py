"""The likelihood of (C0, C1) with a variant in the model, for many variants at once, each at its own (C0, C1).

A variant's (C0, C1) is held as a frame N and its genetic share H, ``N (τ C0 + C1) Nᵀ = I`` and ``N τ C0 Nᵀ = H``, with
N relative to the axes of the null model. The eigenvectors of H turn the frame into trait axes, in which every
(row, axis) entry of the traits is independent. Where the null model's C0 has empty axes they are the last of the frame.

At fixed traits and variants the likelihood needs sums ``Σ_i f(s_i) x_i y_i`` over the rows,
where x and y are traits or a variant and f is ``log(s d0 + d1)`` or a product of factors ``1/(s d0 + d1)`` and s. These
f are smooth: their only singularities are at ``s = -d1/d0``, so in ``log(s + δ)``, with δ no more than any d1/d0, they
are analytic at less than π from the real axis. Interpolation at K Chebyshev nodes of that variable then errs by
``ρ^-K``, where ``ρ = π/H + √((π/H)² + 1)`` for rows in an interval of half-length H (Trefethen 2013, Approximation
Theory and Approximation Practice, ch. 8): with about 40 nodes ``Σ_i f(s_i) x_i y_i = Σ_k f(σ_k) M_k`` to 12 digits,
``M_k = Σ_i ℓ_k(s_i) x_i y_i``. Thousands of rows become a few nodes, once a variant and not once an evaluation.
"""

from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np
from numpy.polynomial import chebyshev

from kron2sum_cli.model.climbing import BOUNDARY
from kron2sum_cli.model.contrasts import Contrasts
from kron2sum_cli.model.likelihood import LOG2PI
from kron2sum_cli.model.spectrum import Array, Indices, Mask

PRECISION = 1e-12
"""Relative error of an interpolated function of the eigenvalues."""


@dataclass(frozen=True)
class VariantMoments:
    """Moments of b variants of k columns: of columns with traits (b, p, k, K), and of pairs of columns (b, k, k, K)."""

    cross: Array
    square: Array


@dataclass(frozen=True)
class RowMoments:
    """Nodes in place of rows, and the moments of the traits.

    - ``nodes`` (K,): nodes σ_k, which replace the eigenvalues.
    - ``smallest_ratio``: δ, the smallest d1/d0 for which the nodes are precise enough.
    - ``cardinal`` (m, K): cardinal functions ``ℓ_k(s_i)``.
    - ``cardinal_outside`` (K,): ``ℓ_k(0)`` for rows outside V; zeros where there are none.
    - ``counts`` (K,): moments of ones over all rows.
    - ``traits`` (p, p, K): moments of pairs of traits.
    - ``covariates`` (c², K): moments of pairs of columns of Kxm.
    """

    data: Contrasts
    nodes: Array
    smallest_ratio: float
    cardinal: Array
    cardinal_outside: Array
    counts: Array
    traits: Array
    covariates: Array

    def of_variants(self, variants: Array, outside: Array) -> VariantMoments:
        """Moments of rotated variants (m, b, k) whose products outside V and X are ``outside`` (b, k, k)."""
        Z = self.data.Z
        _, b, k = variants.shape
        cross = np.empty((b, Z.shape[1], k, self.nodes.size))
        square = np.multiply.outer(outside, self.cardinal_outside)
        for column in range(k):
            of_column = variants[:, :, column]
            for trait in range(Z.shape[1]):
                cross[:, trait, column] = of_column.T @ (Z[:, trait, None] * self.cardinal)
            for other in range(k):
                square[:, column, other] += (of_column * variants[:, :, other]).T @ self.cardinal
        return VariantMoments(cross, square)


def row_moments(data: Contrasts, smallest_ratio: float) -> RowMoments:
    """Moments for all (C0, C1) with ``d1/d0 ≥ smallest_ratio`` (positive) on every axis."""
    s = np.append(data.s, 0.0) if data.noutside else data.s
    nodes, all_cardinal = _nodes(s, smallest_ratio)
    cardinal = all_cardinal[: data.s.size]
    outside = all_cardinal[-1] if data.noutside else np.zeros(nodes.size)
    p, c = data.ntraits, data.ncovariates
    traits = (data.Z[:, :, None] * data.Z[:, None, :]).reshape(-1, p * p).T @ cardinal
    pairs = (data.Kxm[:, None, :] * data.Kxm[None, :, :]).reshape(c * c, data.s.size)
    return RowMoments(
        data=data,
        nodes=nodes,
        smallest_ratio=smallest_ratio,
        cardinal=cardinal,
        cardinal_outside=outside,
        counts=cardinal.sum(axis=0) + data.noutside * outside,
        traits=traits.reshape(p, p, -1),
        covariates=pairs @ cardinal,
    )


def _nodes(s: Array, shift: float) -> tuple[Array, Array]:
    """Nodes, and the cardinal functions at s; where the rows are fewer than the nodes, the rows themselves."""
    x = np.log(s + shift)
    centre, half = 0.5 * (x.max() + x.min()), max(0.5 * float(np.ptp(x)), 1e-8)
    rate = np.pi / half + np.hypot(np.pi / half, 1)
    size = int(np.ceil(-np.log(PRECISION) / np.log(rate)))
    if s.size <= size:
        return s, np.eye(s.size)
    t = chebyshev.chebpts1(size)
    to_coefficients = chebyshev.chebvander(t, size - 1).T * (2 / size)
    to_coefficients[0] *= 0.5
    cardinal = chebyshev.chebvander((x - centre) / half, size - 1) @ to_coefficients
    return np.exp(centre + half * t) - shift, cardinal


@dataclass(frozen=True)
class States:
    """One (C0, C1) a variant: its frame N and its share H, (b, p, p) each."""

    frame: Array
    share: Array


@dataclass(frozen=True)
class Points:
    """The likelihood at one state a variant, b of them, with the best effects ``A1 γ``.

    The scores (b, p, p) are by ``N C0 Nᵀ`` and ``N C1 Nᵀ``, and ``off_face`` (b,) is the predicted gain of the best
    step off the face of C0. ``gamma`` (b, ek) are effects γ, those of the k columns of a variant side by side, with
    their ``information`` (b, ek, ek). ``inside`` (b,) says whether a state is in the cones, as far from their edges as
    the moments are precise.
    """

    lml: Array
    score0: Array
    score1: Array
    off_face: Array
    gamma: Array
    information: Array
    inside: Mask


Record = TypeVar("Record", States, Points, VariantMoments)


def take(record: Record, which: Indices) -> Record:
    """The record of some of the variants."""
    return replace(record, **{f.name: getattr(record, f.name)[which] for f in fields(record)})


def put(record: Record, which: Indices, other: Record) -> None:
    """Overwrite the entries of some variants."""
    for f in fields(record):
        getattr(record, f.name)[which] = getattr(other, f.name)


@dataclass(frozen=True)
class VariantLikelihood:
    """What the likelihoods of all variants have in common.

    ``moments`` are of the rows, with the traits in the axes of the null model, ``design`` (p, e) is A1 in these axes,
    and ``logdet_axes`` their ``log|det T|``. C0 leaves ``empty`` axes empty, and has at most this rank.
    """

    moments: RowMoments
    design: Array
    logdet_axes: float
    empty: int
    rank: int

    def evaluate(self, states: States, variants: VariantMoments) -> Points:
        """The likelihood at one state a variant; O(p³K) each."""
        data, tau = self.moments.data, self.moments.data.mean_eigenvalue
        h, R = np.linalg.eigh(states.share)
        largest = tau / (tau + self.moments.smallest_ratio)
        inside = np.all(h[:, self.empty :] > -BOUNDARY, axis=1) & (h[:, -1] <= largest)
        h = np.clip(h, 0.0, largest)
        h[:, : self.empty] = 0.0
        d0, d1, T = h / tau, 1 - h, R.transpose(0, 2, 1) @ states.frame
        variances = d0[:, :, None] * self.moments.nodes + d1[:, :, None]
        W = 1 / variances
        residual, gamma, information = self._residual_moments(T, W, variants)
        outer0, outer1 = self._outer_products(residual, W)
        logdet, trace0, trace1 = _determinant(self.moments, d0, d1, variances, W)
        nrows = data.nrows + data.ncovariates
        logdet -= 2 * nrows * (np.linalg.slogdet(T)[1] + self.logdet_axes)
        # rᵀK⁻¹r = αᵀKα for α = K⁻¹r, and K is s d0 + d1.
        quadratic = np.einsum("bj,bjj->b", d0, outer0) + np.einsum("bj,bjj->b", d1, outer1)
        S0, S1 = 0.5 * (outer0 - _diagonal(trace0)), 0.5 * (outer1 - _diagonal(trace1))
        return Points(
            lml=-0.5 * (nrows * data.ntraits * LOG2PI + logdet + quadratic),
            score0=R @ S0 @ R.transpose(0, 2, 1),
            score1=R @ S1 @ R.transpose(0, 2, 1),
            off_face=self._gain_off_face(S0, W),
            gamma=gamma,
            information=information,
            inside=inside,
        )

    def _residual_moments(self, T: Array, W: Array, variants: VariantMoments) -> tuple[Array, Array, Array]:
        """Moments (b, p, p, K) of pairs of axes less the effects, the effects γ and their information."""
        b, p = W.shape[:2]
        k, D = variants.cross.shape[2], T @ self.design
        e = D.shape[2]
        cross = (T @ variants.cross.reshape(b, p, -1)).reshape(variants.cross.shape)
        v = (W @ variants.square.reshape(b, k * k, -1).transpose(0, 2, 1)).reshape(b, p, 1, k, k)
        u = (cross @ W[:, :, :, None]).reshape(b, p, 1, k)
        pairs = (D[:, :, :, None] * D[:, :, None, :]).reshape(b, p, e * e)
        information = (pairs.transpose(0, 2, 1) @ v.reshape(b, p, k * k)).reshape(b, e, e, k, k)
        information = information.transpose(0, 1, 3, 2, 4).reshape(b, e * k, e * k)
        score = (D.transpose(0, 2, 1) @ u.reshape(b, p, k)).reshape(b, e * k, 1)
        gamma = np.linalg.solve(information, score)
        effects = np.asarray(D @ gamma.reshape(b, e, k))
        half = (T.reshape(b * p, p) @ self.moments.traits.reshape(p, -1)).reshape(b, p, p, -1)
        residual = T[:, None] @ half
        # (z_j - x_j g)(z_l - x_l g) = z_j z_l - x_j (z_l g - ½ x_l g²) - x_l (z_j g - ½ x_j g²).
        cross -= 0.5 * (effects @ variants.square.reshape(b, k, -1)).reshape(cross.shape)
        explained = (effects @ cross.transpose(0, 2, 1, 3).reshape(b, k, -1)).reshape(residual.shape)
        residual -= explained
        residual -= explained.transpose(0, 2, 1, 3)
        return residual, np.asarray(gamma[:, :, 0]), information

    def _outer_products(self, residual: Array, W: Array) -> tuple[Array, Array]:
        """``αᵀSα`` and ``αᵀα`` in the axes, α = K⁻¹r and S the eigenvalues; overwrites ``residual``."""
        nodes = self.moments.nodes
        residual *= W[:, :, None]
        residual *= W[:, None, :]
        sums = residual.reshape(-1, nodes.size) @ np.array([nodes, np.ones_like(nodes)]).T
        both = sums.reshape(*residual.shape[:3], 2)
        return both[..., 0], both[..., 1]

    def _gain_off_face(self, S0: Array, W: Array) -> Array:
        """What the best step ``t vvᵀ`` from the face into the cone is predicted to gain; empty axes come first here."""
        q, moments = self.empty, self.moments
        if q == 0 or S0.shape[1] - q >= self.rank:
            return np.zeros(S0.shape[0])
        values, vectors = np.linalg.eigh(S0[:, :q, :q])
        slope, squares = np.maximum(values[:, -1], 0.0), vectors[:, :, -1] ** 2
        weights = (squares[:, None] @ W[:, :q])[:, 0]
        return np.asarray(slope**2 / (weights**2 @ (moments.counts * moments.nodes**2)))


def _diagonal(values: Array) -> Array:
    return np.asarray(values[:, :, None] * np.eye(values.shape[1]))


def _determinant(moments: RowMoments, d0: Array, d1: Array, variances: Array, W: Array) -> tuple[Array, Array, Array]:
    """Log determinant (b,) of K in the axes, and its derivatives (b, p) with respect to d0 and d1."""
    logdet = (np.log(variances) @ moments.counts).sum(axis=1)
    trace0, trace1 = W @ (moments.nodes * moments.counts), W @ moments.counts
    if moments.data.ncovariates:
        extra, extra0, extra1 = _mean_terms(moments, d0, d1, W)
        logdet, trace0, trace1 = logdet + extra, trace0 + extra0, trace1 + extra1
    return logdet, trace0, trace1


def _mean_terms(moments: RowMoments, d0: Array, d1: Array, W: Array) -> tuple[Array, Array, Array]:
    """Log determinant of the projected covariates' conditional covariance and its derivatives: see `mean_block`."""
    (b, p), c, Kxx = d0.shape, moments.data.ncovariates, moments.data.Kxx
    a = d0[..., None, None]

    def weighted(weights: Array) -> Array:
        return np.asarray((weights @ moments.covariates.T).reshape(b, p, c, c))

    KWK = weighted(W)
    S = a * Kxx + d1[..., None, None] * np.eye(c) - a**2 * KWK
    inverse = np.linalg.inv(S)
    dS0 = Kxx - 2 * a * KWK + a**2 * weighted(moments.nodes * W**2)
    dS1 = np.eye(c) + a**2 * weighted(W**2)
    return (
        np.linalg.slogdet(S)[1].sum(axis=1),
        np.einsum("bjcd,bjdc->bj", inverse, dS0),
        np.einsum("bjcd,bjdc->bj", inverse, dS1),
    )
