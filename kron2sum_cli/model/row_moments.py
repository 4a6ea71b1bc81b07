"""Sums over rows for every (C0, C1) at once.

At fixed traits and variants the likelihood needs sums ``Σ_i f(s_i) x_i y_i`` over the rows, where x and y are traits or
a variant and f is ``log(s d0 + d1)`` or a product of factors ``1/(s d0 + d1)`` and s. These f are smooth: their only
singularities are at ``s = -d1/d0``, so in ``log(s + δ)``, with δ no more than any d1/d0, they are analytic at less than
π from the real axis. Interpolation at K Chebyshev nodes of that variable then errs by ``ρ^-K``, where
``ρ = π/H + √((π/H)² + 1)`` for rows in an interval of half-length H (Trefethen 2013, Approximation Theory and
Approximation Practice, ch. 8): with about 40 nodes ``Σ_i f(s_i) x_i y_i = Σ_k f(σ_k) M_k`` to 12 digits,
``M_k = Σ_i ℓ_k(s_i) x_i y_i``. Thousands of rows become a few nodes, once a variant and not once an evaluation.
"""

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import chebyshev

from kron2sum_cli.model.contrasts import Contrasts
from kron2sum_cli.model.spectrum import Array

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

    Attributes
    ----------
    data : Contrasts
        The m rows.
    nodes : NDArray (K,)
        Nodes σ_k, which replace the eigenvalues.
    smallest_ratio : float
        δ, the smallest d1/d0 for which the nodes are precise enough.
    cardinal : NDArray (m, K)
        Cardinal functions ``ℓ_k(s_i)``.
    cardinal_outside : NDArray (K,)
        ``ℓ_k(0)`` for rows outside V; zeros where there are none.
    counts : NDArray (K,)
        Moments of ones over all rows.
    traits : NDArray (p, p, K)
        Moments of pairs of traits.
    covariates : NDArray (c², K)
        Moments of pairs of columns of Kxm.
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
