"""Fewer points for the same picture: of those that would cover each other, one is kept."""

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.reports.scan_view import Array


class Thinner:
    """Keeps every point at the threshold or above, and below it the first one in each cell of a grid.

    Memory is that of the grid and of the points kept. Which points are kept does not depend on how they are cut
    into batches.

    Parameters
    ----------
    length : x runs from 0 to this
    threshold : y from which on every point is kept
    cells : columns of the grid over x, and rows over 0 to the threshold
    """

    def __init__(self, length: float, threshold: float, cells: tuple[int, int]) -> None:
        self._length, self._threshold, self._cells = length, threshold, cells
        self._occupied = np.zeros(cells[0] * cells[1], dtype=np.bool_)
        self._kept: list[tuple[Array, Array, NDArray[np.intp]]] = []

    def add(self, x: Array, y: Array, group: NDArray[np.intp]) -> None:
        """Take points (b,) with their groups; those with y NaN are left out."""
        high = np.flatnonzero(y >= self._threshold)
        low = np.flatnonzero(y < self._threshold)
        columns, rows = self._cells
        column = np.minimum((x[low] * (columns / self._length)).astype(np.intp), columns - 1)
        row = np.minimum((y[low] * (rows / self._threshold)).astype(np.intp), rows - 1)
        cell = column * rows + row
        free = np.flatnonzero(~self._occupied[cell])
        cells, first = np.unique(cell[free], return_index=True)
        self._occupied[cells] = True
        kept = np.sort(np.concatenate([high, low[free[first]]]))
        if kept.size:
            self._kept.append((x[kept], y[kept], group[kept]))

    def points(self) -> tuple[Array, Array, NDArray[np.intp]]:
        """x, y and group of the points kept, in the order they came."""
        if not self._kept:
            return np.empty(0), np.empty(0), np.empty(0, dtype=np.intp)
        x, y, group = (np.concatenate(parts) for parts in zip(*self._kept, strict=True))
        return x, y, group
