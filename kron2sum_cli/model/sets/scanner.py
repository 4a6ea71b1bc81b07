"""Scores of sets of variants with C0 and C1 fixed at the null model: sets are taken from a block that is rotated once.

The rotation has the precision of the scan. The information of a set is a Gram matrix of rotated variants in double
precision: whatever the rotation rounded, it is positive semi-definite, and a combination of variants that is 0 has the
information of rounding squared.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kron2sum_cli.model.block_scanner import BlockScanner, inner_products
from kron2sum_cli.model.missing.scanner import ObservedScanner
from kron2sum_cli.model.sets.fixed_effects import SetScores
from kron2sum_cli.model.spectrum import Array, Floats, Indices, Mask, weighted_products

UNITS_OF_ROUNDING = 256
"""A sum of variants of length below so many units, beside what it is the sum of, is rounding."""

LEAST_SHARE = 1e-2
"""A sum of variants whose length is a smaller share of all that is summed is made of genotypes in double precision."""


class SetScanner(ABC):
    """Scores of sets of variants under one null model.

    A block of b variants is kept as arrays (k, b), made once; those of a set are their columns.
    """

    @property
    @abstractmethod
    def dtype(self) -> np.dtype[np.floating]:
        """The precision in which it takes variants."""

    @abstractmethod
    def arrays(self, G: Floats) -> tuple[Floats, ...]:
        """The arrays of a block of variants G (n, b); see `rotate`."""

    def length(self, *arrays: Floats) -> Array:
        """See `RotatedVariants.length`; here the first of the arrays are the variants themselves."""
        return inner_products(arrays[0].T, arrays[0].T)

    @abstractmethod
    def scores(self, *arrays: Floats) -> SetScores:
        """Scores and information of all variants of some arrays."""

    def rotate(self, G: Floats) -> "RotatedVariants":
        """Rotate a block of variants G (n, b), without missing values; centred where X has an intercept."""
        return RotatedVariants(self, self.arrays(G))


@dataclass(frozen=True)
class RotatedVariants:
    """A block of b variants, of which any set has scores, as the ``arrays`` (k, b) of a scanner."""

    scanner: SetScanner
    arrays: tuple[Floats, ...]

    @property
    def length(self) -> Array:
        """Squared length (b,) of every variant outside the covariates; its whole length where these couple the axes."""
        return self.scanner.length(*self.arrays)

    def scores(self, members: Indices) -> SetScores:
        """Scores and information of the variants ``members`` (q,) of the block."""
        return self.scanner.scores(*(_columns(M, members) for M in self.arrays))


def _columns(M: Floats, members: Indices) -> Floats:
    """Columns of M; a view where they lie side by side, as those of a gene mostly do."""
    if members.size and members[-1] - members[0] == members.size - 1 and np.all(np.diff(members) == 1):
        return M[:, members[0] : members[-1] + 1]
    return np.take(M, members, axis=1)


@dataclass(frozen=True)
class SetVariants:
    """The variants ``members`` (q,) of a block as a set.

    ``genotypes`` reads them (n, q), without missing values, centred where X has an intercept, in double precision.
    ``rounded`` (q,) are those whose genotypes were rounded to single precision, as dosages are; None for none.
    """

    block: RotatedVariants
    members: Indices
    genotypes: Callable[[], Floats]
    rounded: Mask | None = None

    def scores(self) -> SetScores:
        """Scores and information of the variants."""
        return self.block.scores(self.members)

    def scores_of_sum(self, weights: Array) -> SetScores:
        """Scores and information of the sum of the variants times weights (q,), as one variant."""
        return self.block.scanner.scores(*self._sum(weights))

    def scores_with_sum(self, weights: Array) -> SetScores:
        """Scores and information of the variants and, last, of their sum."""
        arrays = zip(self.block.arrays, self._sum(weights), strict=True)
        return self.block.scanner.scores(*(np.hstack([_columns(M, self.members), one]) for M, one in arrays))

    def genotypes_of_sum(self, weights: Array) -> Floats | None:
        """The sum (n,) where variants cancel, so that its scores are not the sum of rounded ones; None elsewhere."""
        summed, lengths = self._sum_of_rotated(weights)
        return self.genotypes() @ weights if self._length(summed) < LEAST_SHARE * np.sum(lengths) else None

    def _sum_of_rotated(self, weights: Array) -> tuple[tuple[Floats, ...], Array]:
        """Arrays of the sum of the rotated variants, in double precision, and the lengths (q,) of what is summed."""
        columns = [_columns(M, self.members) for M in self.block.arrays]
        summed = tuple(np.asarray(M @ weights[:, None], np.float64) for M in columns)
        return summed, np.abs(weights) * np.sqrt(self.block.scanner.length(*columns))

    def _length(self, one: tuple[Floats, ...]) -> float:
        """The length of a variant by its arrays."""
        return float(np.sqrt(self.block.scanner.length(*one)[0]))

    def _sum(self, weights: Array) -> tuple[Floats, ...]:
        """Arrays of the sum.

        It is made before its information: where variants cancel, information made of theirs would be a difference of
        large numbers; so would be what single precision has rounded. Where rounding is all that is left of the sum, it
        is 0.
        """
        scanner, single, double = self.block.scanner, np.finfo(np.float32).eps, np.finfo(np.float64).eps
        summed, lengths = self._sum_of_rotated(weights)
        precision = np.finfo(scanner.dtype).eps
        if scanner.dtype == np.float32 and self._length(summed) < LEAST_SHARE * np.sum(lengths):
            summed = scanner.arrays((self.genotypes() @ weights[:, None]).astype(np.float32))
            precision = double
        units = precision if self.rounded is None else np.where(self.rounded, single, precision)
        if self._length(summed) > UNITS_OF_ROUNDING * np.sum(units * lengths):
            return summed
        return tuple(0 * M for M in summed)


@dataclass(frozen=True)
class CompleteSetScanner(SetScanner):
    """Sets under a null model whose covariates are all projected out.

    Of a block there is ``[V, Vα]ᵀG`` (m + p, b), and the part of G outside V and the covariates (n, b) where there is
    something outside.
    """

    scanner: BlockScanner

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """That of the rotation."""
        return self.scanner.dtype

    def arrays(self, G: Floats) -> tuple[Floats, ...]:
        """See `SetScanner.arrays`."""
        rotated = self.scanner.rotation @ G
        if self.scanner.outside_weight is None:
            return (rotated,)
        m, Qx = len(self.scanner.weights), self.scanner.Qx
        return rotated, G - self.scanner.rotation[:m].T @ rotated[:m] - Qx @ (Qx.T @ G)

    def length(self, *arrays: Floats) -> Array:
        """See `RotatedVariants.length`."""
        rotated, *outside = arrays
        rows = rotated[: len(self.scanner.weights)]
        found = np.einsum("ib,ib->b", rows, rows, dtype=np.float64)
        return np.asarray(sum((inner_products(rest.T, rest.T) for rest in outside), found))

    def scores(self, *arrays: Floats) -> SetScores:
        """See `SetScanner.scores`."""
        rotated, *outside = arrays
        m, p = len(self.scanner.weights), self.scanner.weights.shape[1] - 1
        V = weighted_products(rotated[:m], self.scanner.weights[:, :p])
        if outside and self.scanner.outside_weight is not None:
            rest = outside[0].astype(np.float64)
            V += self.scanner.outside_weight[:, None, None] * (rest.T @ rest)
        return SetScores(rotated[m:].T.astype(np.float64), V, np.einsum("jaa->ja", V))


@dataclass(frozen=True)
class ObservedSetScanner(SetScanner):
    """Sets where missing cells or fixed effects couple the trait axes, in double precision.

    Of a block there are the variants themselves, G (n, b), and ``[V, α]ᵀG`` (m + p, b).
    """

    scanner: ObservedScanner

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """Double."""
        return self.scanner.dtype

    def arrays(self, G: Floats) -> tuple[Floats, ...]:
        """See `SetScanner.arrays`."""
        variants = np.asarray(G, np.float64)
        return variants, np.asarray(self.scanner.rotation @ variants, np.float64)

    def scores(self, *arrays: Floats) -> SetScores:
        """See `SetScanner.scores`."""
        (G, rotated), m = (np.asarray(M, np.float64) for M in arrays), len(self.scanner.weights)
        return SetScores(rotated[m:].T, *self.scanner.set_information(G, rotated[:m]))
