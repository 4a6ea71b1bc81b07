"""One axis through all chromosomes, and the positions of variants on it."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from kron2sum_cli.export.results import Array, ScanResults
from kron2sum_cli.genotypes.chromosomes import bare_code, filled_positions, normalise_chromosome

GAP = 0.004
"""Room between two chromosomes, as a share of the genome."""

NARROWEST = 0.004
"""Width of a chromosome whose variants all have one position, as a share of the genome."""

MOST_CHROMOSOMES = 60
"""With more chromosomes than this, the short ones are drawn as one stretch of scaffolds."""

SHORT_SHARE = 0.005
"""Share of the genome below which a chromosome is short."""

UNPLACED_LABEL = "unplaced"

_LETTERS = ("X", "Y", "XY", "PAR1", "PAR2", "MT", "M")


@dataclass(frozen=True)
class Genome:
    """Chromosomes side by side.

    A chromosome is unplaced if it is called 0, or if none of its variants has a position: its variants are then
    counted in the order of the table, and that number is their position on the axis.

    - ``chromosomes`` (k): the codes as the table spells them, in the order of the axis.
    - ``first``, ``last`` (k,): least and greatest position.
    - ``start``, ``width`` (k,): where each begins on the axis, and how long it is there.
    - ``unplaced`` (k,): chromosomes whose variants have no known place.
    - ``pooled`` (k,): scaffolds that are drawn as one stretch.
    - ``without_position``: number of variants whose position is not known (0 or negative).
    """

    chromosomes: tuple[str, ...]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    start: Array
    width: Array
    unplaced: NDArray[np.bool_]
    pooled: NDArray[np.bool_]
    without_position: int

    @property
    def length(self) -> float:
        """Length of the whole axis."""
        return float(self.start[-1] + self.width[-1]) if self.chromosomes else 1.0

    @property
    def labels(self) -> list[str]:
        """Names for people: without a prefix ``chr``, and `UNPLACED_LABEL` for chromosome 0."""
        return [UNPLACED_LABEL if normalise_chromosome(code) == "0" else bare_code(code) for code in self.chromosomes]

    @property
    def ticks(self) -> list[tuple[str, float, float]]:
        """Name, start and end on the axis of every chromosome, the pooled ones as one."""
        ends = self.start + self.width
        named = zip(self.labels, self.start.tolist(), ends.tolist(), self.pooled.tolist(), strict=True)
        ticks = [(name, start, end) for name, start, end, is_pooled in named if not is_pooled]
        if self.pooled.any():
            name = f"{np.count_nonzero(self.pooled):,}\nscaffolds"
            ticks.append((name, float(self.start[self.pooled].min()), float(ends[self.pooled].max())))
        return sorted(ticks, key=lambda tick: tick[1])

    def x(self, chromosomes: NDArray[np.intp], positions: NDArray[np.int64]) -> Array:
        """Places on the axis of variants, by chromosomes and positions as of `located_batches`."""
        scale = self.width / np.maximum(self.last - self.first, 1)
        scale = np.where(self.last > self.first, scale, 0.0)
        offset = np.maximum(positions - self.first[chromosomes], 0)
        return np.asarray(self.start[chromosomes] + scale[chromosomes] * offset)


def chromosome_key(code: str) -> tuple[int, int, tuple[tuple[int, str], ...]]:
    """Sorts chromosomes: by number, then X, Y, XY and MT, then others by name, in which numbers count as such.

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


def read_genome(scan: ScanResults) -> Genome:
    """The chromosomes of a table and how far they reach."""
    joined = {"min": "min", "max": "max", "count": "sum", "size": "sum"}  # how what parts of the table say is joined
    parts = []
    for batch in scan.read(["CHR", "POS"]):
        codes, positions = batch.column("CHR").to_pandas(), batch.column("POS").to_pandas()
        parts.append(positions.where(positions > 0).groupby(codes, sort=False).agg(list(joined)))
    extents = pd.concat(parts) if parts else pd.DataFrame(columns=list(joined), dtype=float)
    return _side_by_side(extents.groupby(level=0, sort=False).agg(joined).fillna(0))


def _side_by_side(extents: pd.DataFrame) -> Genome:
    """Lay chromosomes along the axis: placed ones to scale, then scaffolds, then unplaced ones.

    Of each, by its code, there are the least and the greatest known position (0 where none is known), how many variants
    have one, and how many there are.
    """
    names = sorted(extents.index, key=chromosome_key)
    first, last, known, variants = extents.loc[names].to_numpy(dtype=np.int64).T
    unplaced = np.array([normalise_chromosome(name) == "0" for name in names], dtype=np.bool_) | (last == 0)
    first, last = np.where(unplaced, 1, first), np.where(unplaced, variants, last)
    width = (last - first).astype(float)
    per_variant = float(width[~unplaced].sum()) / max(int(variants[~unplaced].sum()), 1) or 1.0
    width[unplaced] = variants[unplaced] * per_variant
    total = width.sum() or 1.0
    pooled = _pooled(names, width / total)
    narrowest = NARROWEST * total * np.where(pooled, 10 / max(int(np.count_nonzero(pooled)), 10), 1.0)
    order = np.lexsort((pooled, unplaced & ~pooled))
    names = [names[k] for k in order]
    first, last, unplaced, pooled = first[order], last[order], unplaced[order], pooled[order]
    width = np.maximum(width, narrowest)[order]
    gap = np.where(pooled[:-1] & pooled[1:], 0.0, GAP * total)
    start = np.cumsum(np.concatenate([[0.0], width[:-1] + gap]))[: len(names)]
    return Genome(tuple(names), first, last, start, width, unplaced, pooled, int((variants - known).sum()))


def _pooled(names: Sequence[str], shares: Array) -> NDArray[np.bool_]:
    """Which of many chromosomes are too short to be told apart; the sex chromosomes and MT are not."""
    if len(names) <= MOST_CHROMOSOMES:
        return np.zeros(len(names), dtype=np.bool_)
    lettered = np.array([bare_code(name).upper() in _LETTERS for name in names])
    return np.asarray((shares < SHORT_SHARE) & ~lettered)


def located_batches(
    scan: ScanResults, columns: Sequence[str], genome: Genome
) -> Iterator[tuple[pa.RecordBatch, NDArray[np.intp], NDArray[np.int64]]]:
    """Batches with CHR, POS and other columns, and the chromosome and the position of every variant.

    A variant without a position stands at the one before it in the table, if that is on the same chromosome, else at 0:
    genotype files have variants in the order of the map, and arrays of mice or plants many without a position. On an
    unplaced chromosome the position is the variant's number in the order of the table. Yields b rows, indices (b,) into
    the chromosomes of the genome, and positions (b,) on them.
    """
    index = {name: k for k, name in enumerate(genome.chromosomes)}
    seen = np.zeros(len(index), dtype=np.int64)
    chromosome, position = -1, 0
    for batch in scan.read(["CHR", "POS", *columns]):
        encoded = batch.column("CHR").dictionary_encode()
        of_code = np.array([index[code] for code in encoded.dictionary.to_pylist()], dtype=np.intp)
        chromosomes = of_code[np.asarray(encoded.indices)]
        positions = filled_positions(chromosomes, np.asarray(batch.column("POS")), chromosome, position)
        chromosome, position = int(chromosomes[-1]), int(positions[-1])
        unplaced = genome.unplaced[chromosomes]
        if unplaced.any():
            number = pd.Series(chromosomes).groupby(chromosomes).cumcount().to_numpy() + 1
            positions = np.where(unplaced, seen[chromosomes] + number, positions)
        seen += np.bincount(chromosomes, minlength=len(seen))
        yield batch, chromosomes, positions
