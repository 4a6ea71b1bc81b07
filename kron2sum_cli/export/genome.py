"""Where variants lie along the genome: the order of chromosomes, and one axis through all of them."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kron2sum_cli.export.results import Array, ScanView

GAP = 0.004
"""Room between two chromosomes, as a share of the genome."""

NARROWEST = 0.004
"""Width of a chromosome whose variants all have one position, as a share of the genome."""

_LETTERS = ("X", "Y", "XY", "MT", "M")


@dataclass(frozen=True)
class Genome:
    """Chromosomes side by side.

    Attributes
    ----------
    chromosomes : the k codes as the table spells them, in the order of the axis
    first, last : (k,) least and greatest known position
    start : (k,) where each begins on the axis
    width : (k,) how long each is on the axis
    without_position : number of variants whose position is not known (0 or negative)
    """

    chromosomes: tuple[str, ...]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    start: Array
    width: Array
    without_position: int

    @property
    def length(self) -> float:
        """Length of the whole axis."""
        return float(self.start[-1] + self.width[-1]) if self.chromosomes else 1.0

    @property
    def labels(self) -> list[str]:
        """The codes without a prefix ``chr``."""
        return [bare_code(code) for code in self.chromosomes]

    def x(self, codes: NDArray[np.intp], positions: NDArray[np.int64]) -> Array:
        """Places on the axis of variants, by chromosome and placed position."""
        return np.asarray(self.start[codes] + np.maximum(positions - self.first[codes], 0))


def bare_code(code: str) -> str:
    """A chromosome code without a prefix ``chr``.

    Examples
    --------
    >>> bare_code("chr7"), bare_code("X"), bare_code("chr")
    ('7', 'X', 'chr')
    """
    return code[3:] if code[:3].lower() == "chr" and len(code) > 3 else code


def chromosome_key(code: str) -> tuple[int, int, tuple[tuple[int, str], ...]]:
    """Sorts chromosomes: by number, then X, Y, XY and MT, then others by name, in which numbers count as such.

    Examples
    --------
    >>> sorted(["MT", "chr10", "scaffold_12", "X", "scaffold_3", "9"], key=chromosome_key)
    ['9', 'chr10', 'X', 'MT', 'scaffold_3', 'scaffold_12']
    """
    bare = bare_code(code)
    parts = tuple((int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", bare))
    if bare.isdecimal():
        return 0, int(bare), parts
    if bare.upper() in _LETTERS:
        return 1, _LETTERS.index(bare.upper()), parts
    return 2, 0, parts


def measure_genome(view: ScanView) -> Genome:
    """The chromosomes of a table and how far they reach."""
    spans: dict[str, tuple[int, int]] = {}
    without = 0
    for batch in view.read(["CHR", "POS"]):
        names, codes = _encoded(batch.column("CHR"))
        positions = np.asarray(batch.column("POS"))
        known = positions > 0
        without += int(np.count_nonzero(~known))
        first = np.full(len(names), np.iinfo(np.int64).max)
        last = np.zeros(len(names), dtype=np.int64)
        np.minimum.at(first, codes[known], positions[known])
        np.maximum.at(last, codes[known], positions[known])
        for name, low, high in zip(names, first.tolist(), last.tolist(), strict=True):
            before = spans.get(name, (low, high))
            spans[name] = (min(low, before[0]), max(high, before[1]))
    return _side_by_side(spans, without)


def _side_by_side(spans: dict[str, tuple[int, int]], without: int) -> Genome:
    chromosomes = tuple(sorted(spans, key=chromosome_key))
    last = np.array([spans[name][1] for name in chromosomes], dtype=np.int64)
    first = np.minimum(np.array([spans[name][0] for name in chromosomes], dtype=np.int64), last)
    known = float(np.sum(last - first)) or 1.0
    width = np.maximum((last - first).astype(float), NARROWEST * known)
    start = np.concatenate([[0.0], np.cumsum(width + GAP * known)[:-1]]) if chromosomes else np.empty(0)
    return Genome(chromosomes, first, last, start, width, without)


def placed_batches(
    view: ScanView, columns: Sequence[str], genome: Genome
) -> Iterator[tuple[pa.RecordBatch, NDArray[np.intp], NDArray[np.int64]]]:
    """Batches with the chromosome and the placed position of every variant.

    A variant without a position is placed at the one before it in the file, if that is on the same chromosome, else
    at 0: genotype files have variants in the order of the map, and arrays of mice or plants many without a position.

    Yields
    ------
    The batch with the columns (and CHR and POS), (b,) indices into the chromosomes of the genome, (b,) positions.
    """
    index = {name: k for k, name in enumerate(genome.chromosomes)}
    code, position = -1, 0
    for batch in view.read(["CHR", "POS", *columns]):
        names, of_batch = _encoded(batch.column("CHR"))
        codes = np.array([index[name] for name in names], dtype=np.intp)[of_batch]
        positions = _filled(codes, np.asarray(batch.column("POS")), code, position)
        code, position = int(codes[-1]), int(positions[-1])
        yield batch, codes, positions


def _filled(codes: NDArray[np.intp], positions: NDArray[np.int64], code: int, position: int) -> NDArray[np.int64]:
    """Positions, each unknown one replaced by the last known one on its chromosome; `code`, `position` came before."""
    before = np.concatenate([[code], codes[:-1]])
    anchors = (positions > 0) | (codes != before)
    source = np.maximum.accumulate(np.where(anchors, np.arange(len(codes)), -1))
    filled = np.where(source >= 0, positions[source], position)
    return np.asarray(np.maximum(filled, 0))


def _encoded(column: pa.Array) -> tuple[list[str], NDArray[np.intp]]:
    encoded = column.dictionary_encode()
    return encoded.dictionary.to_pylist(), np.asarray(encoded.indices).astype(np.intp)
