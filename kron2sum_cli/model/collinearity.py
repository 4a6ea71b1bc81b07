"""Columns that are linear combinations of others, found before a fit."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg

from kron2sum_cli.model.spectrum import Array

TOLERANCE = 1e-7
"""Smallest share of its length that a column may have outside the span of the columns before it; below it the column
counts as dependent on them."""


@dataclass(frozen=True)
class Dependency:
    """A column in the span of columns before it.

    Attributes
    ----------
    column : int
        Position of the column.
    others : tuple of int
        Positions of the columns of which it is a linear combination; none where it is zero.
    """

    column: int
    others: tuple[int, ...]


def dependencies(M: Array, tolerance: float = TOLERANCE) -> list[Dependency]:
    """Every column of M (n, q) that lies in the span of the columns before it; O(nq²)."""
    norms = np.linalg.norm(M, axis=0)
    found: list[Dependency] = []
    kept: list[int] = []
    basis = np.empty((M.shape[0], 0))
    for k in range(M.shape[1]):
        if norms[k] == 0:
            found.append(Dependency(k, ()))
            continue
        column = M[:, k] / norms[k]
        left = column - basis @ (basis.T @ column)
        left = left - basis @ (basis.T @ left)
        size = np.linalg.norm(left)
        if size > tolerance:
            kept.append(k)
            basis = np.hstack([basis, (left / size)[:, None]])
        else:
            weights = linalg.lstsq(M[:, kept] / norms[kept], column)[0]
            found.append(Dependency(k, tuple(kept[i] for i in np.flatnonzero(np.abs(weights) > 1e-5))))
    return found


def combination(names: Sequence[str], dependency: Dependency) -> str:
    """``x is a linear combination of a, b`` in words."""
    others = ", ".join(names[i] for i in dependency.others)
    name = names[dependency.column]
    if not dependency.others:
        return f"{name} is zero for every analysed sample"
    if len(dependency.others) == 1:
        return f"{name} is a multiple of {others}"
    return f"{name} is a linear combination of {others}"
