"""Scores of sets of variants with C0 and C1 fixed at the null model: sets are taken from a block that is rotated once.

The rotation has the precision of the scan. The information of a set is a Gram matrix of rotated variants in double
precision: whatever the rotation rounded, it is positive semi-definite, and a combination of variants that is 0 has the
information of rounding squared.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.model.block_scanner import BlockScanner, inner_products
from kron2sum_cli.model.missing.scanner import CutScanner, ObservedScanner
from kron2sum_cli.model.sets.fixed_effects import SetScores, weighted_products
from kron2sum_cli.model.spectrum import Array

UNITS_OF_ROUNDING = 256
"""A sum of variants of length below so many units, beside what it is the sum of, is rounding."""

Floats = NDArray[np.floating]
Indices = NDArray[np.intp]


class RotatedVariants(Protocol):
    """A block of b variants, of which any set has scores."""

    @property
    def length(self) -> Array:
        """Squared length (b,) of every variant outside the covariates; its whole length where these couple the axes."""

    def scores(self, members: Indices) -> SetScores:
        """Scores and information of the variants ``members`` (q,) of the block."""

    def summed(self, members: Indices, weights: Array) -> "RotatedVariants":
        """A block of one variant, the sum of the variants ``members`` (q,) times ``weights`` (q,)."""


class SetScanner(Protocol):
    """Rotated variants under one null model."""

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """The precision in which it takes variants."""

    def rotate(self, G: Floats) -> RotatedVariants:
        """Rotate a block of variants G (n, b), without missing values; centred where X has an intercept.

        The next block of the same thread may take the memory of the result.
        """


@dataclass(frozen=True)
class CompleteVariants:
    """A block of variants under a null model whose covariates are all projected out.

    ``rotated`` (m + p, b) is ``[V, Vα]ᵀG``, and ``outside`` (n, b) the part of G outside V and the covariates; None
    where there is nothing outside.
    """

    scanner: BlockScanner
    rotated: Floats
    outside: Floats | None

    @property
    def length(self) -> Array:
        """See `RotatedVariants.length`."""
        rows = self.rotated[: len(self.scanner.weights)]
        length = np.einsum("ib,ib->b", rows, rows, dtype=np.float64)
        return np.asarray(length if self.outside is None else length + inner_products(self.outside.T, self.outside.T))

    def scores(self, members: Indices) -> SetScores:
        """See `RotatedVariants.scores`."""
        m, p = len(self.scanner.weights), self.scanner.weights.shape[1] - 1
        chosen = _columns(self.rotated, members)
        V = weighted_products(chosen[:m], self.scanner.weights[:, :p])
        if self.outside is not None and self.scanner.outside_weight is not None:
            rest = _columns(self.outside, members).astype(np.float64)
            V += self.scanner.outside_weight[:, None, None] * (rest.T @ rest)
        return SetScores(chosen[m:].T.astype(np.float64), V, np.einsum("jaa->ja", V))

    def summed(self, members: Indices, weights: Array) -> "CompleteVariants":
        """See `RotatedVariants.summed`."""
        outside = None if self.outside is None else _weighted_sum(self.outside, members, weights)
        return CompleteVariants(self.scanner, _weighted_sum(self.rotated, members, weights), outside)


def _columns(M: Floats, members: Indices) -> Floats:
    """Columns of M; a view where they lie side by side, as those of a gene mostly do."""
    if members.size and members[-1] - members[0] == members.size - 1 and np.all(np.diff(members) == 1):
        return M[:, members[0] : members[-1] + 1]
    return np.take(M, members, axis=1)


def _weighted_sum(M: Floats, members: Indices, weights: Array) -> Array:
    """The sum (k, 1) of columns ``members`` (q,) of M (k, b) times weights (q,), in double precision."""
    return np.asarray(_columns(M, members) @ weights[:, None], np.float64)


def scores_of_sum(
    variants: RotatedVariants, members: Indices, dtype: np.dtype[np.floating], weights: Array
) -> SetScores:
    """Scores and information of a set's weighted sum as one variant, rotated in the precision ``dtype``.

    The sum is made before its information: where variants cancel, information made of theirs would be a difference of
    large numbers. Where rounding is all that is left of the sum, scores and information are 0.
    """
    summed = variants.summed(members, weights)
    found, most = summed.scores(np.zeros(1, np.intp)), float(np.abs(weights) @ np.sqrt(variants.length[members]))
    if np.sqrt(summed.length[0]) > UNITS_OF_ROUNDING * float(np.finfo(dtype).eps) * most:
        return found
    return SetScores(0 * found.u, 0 * found.V, 0 * found.sizes)


@dataclass(frozen=True)
class CompleteSetScanner:
    """Sets under a null model whose covariates are all projected out."""

    scanner: BlockScanner

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """That of the rotation."""
        return self.scanner.dtype

    def rotate(self, G: Floats) -> CompleteVariants:
        """See `SetScanner.rotate`."""
        rotated, outside = self.scanner.rotated(G), None
        if self.scanner.outside_weight is not None:
            m, Qx = len(self.scanner.weights), self.scanner.Qx
            outside = G - self.scanner.rotation[:m].T @ rotated[:m] - Qx @ (Qx.T @ G)
        return CompleteVariants(self.scanner, rotated, outside)


@dataclass(frozen=True)
class ObservedVariants:
    """A block of variants G (n, b) where missing cells or fixed effects couple the trait axes, in double precision.

    ``rotated`` (m + p, b) is ``[V, α]ᵀG``.
    """

    scanner: ObservedScanner | CutScanner
    G: Array
    rotated: Array

    @property
    def length(self) -> Array:
        """See `RotatedVariants.length`."""
        return inner_products(self.G.T, self.G.T)

    def scores(self, members: Indices) -> SetScores:
        """See `RotatedVariants.scores`."""
        scanner, G, rotated = self.scanner, self.G[:, members], self.rotated[:, members]
        m = len(scanner.weights)
        return SetScores(rotated[m:].T, *scanner.set_information(G, rotated[:m]))

    def summed(self, members: Indices, weights: Array) -> "ObservedVariants":
        """See `RotatedVariants.summed`."""
        G, rotated = (_weighted_sum(M, members, weights) for M in (self.G, self.rotated))
        return ObservedVariants(self.scanner, G, rotated)


@dataclass(frozen=True)
class ObservedSetScanner:
    """Sets where missing cells or fixed effects couple the trait axes, in double precision."""

    scanner: ObservedScanner | CutScanner

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """Double."""
        return self.scanner.dtype

    def rotate(self, G: Floats) -> ObservedVariants:
        """See `SetScanner.rotate`."""
        variants = np.asarray(G, np.float64)
        return ObservedVariants(self.scanner, variants, np.asarray(self.scanner.rotation @ variants, np.float64))
