"""Which variants the sets of a scan have, and how sets are cut into blocks whose variants are read together."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.files.scan_metadata import Span
from kron2sum_cli.genotypes.chromosomes import Region, encode_chromosomes, normalise_chromosome
from kron2sum_cli.genotypes.founders import locus_of
from kron2sum_cli.scan.inputs import ScanInputs
from kron2sum_cli.scan.set_files import VariantSet, read_sets, windows
from kron2sum_cli.settings import ScanSettings

logger = logging.getLogger("kron2sum.scan")

NOT_THERE = "members of sets are no variant of the scan"


@dataclass(frozen=True)
class Members:
    """A set with its variants found.

    ``order`` is its place in the file, from which random numbers start. Variants are increasing ``positions`` (q,) in
    the genotypes; their weights are None where the file has none. ``chromosome`` says whose null model the set is
    tested with.
    """

    name: str
    order: int
    positions: NDArray[np.intp]
    weights: NDArray[np.float64] | None
    chromosome: str | None


@dataclass(frozen=True)
class FoundSets:
    """All sets of the file, in its order, those of the shard (``first`` to ``stop``), and what the table covers.

    ``counts`` are the sets of the shard, and their members that are no variant.
    """

    members: Sequence[Members]
    first: int
    stop: int
    span: Span
    counts: Counter[str]


@dataclass(frozen=True)
class SetBlock:
    """Consecutive sets whose variants (b,) are read and rotated together; they are tested with the same null model.

    All of its variants are rotated, so that no number depends on where a shard ends; the table has some of the sets.
    """

    sets: Sequence[Members]
    variants: NDArray[np.intp]
    chromosome: str | None


def blocks_of_sets(found: FoundSets, width: int) -> list[SetBlock]:
    """Blocks of consecutive sets of at most ``width`` variants together, or of one set; the same in all shards."""
    blocks: list[SetBlock] = []
    sets: list[Members] = []
    variants: set[int] = set()

    def close() -> None:
        asked = [one for one in sets if found.first <= one.order < found.stop]
        if asked:
            blocks.append(SetBlock(asked, np.array(sorted(variants), dtype=np.intp), sets[0].chromosome))

    for one in found.members:
        more = variants.union(one.positions.tolist())
        if sets and (len(more) > width or one.chromosome != sets[0].chromosome):
            close()
            sets, more = [], set(one.positions.tolist())
        sets.append(one)
        variants = more
    close()
    return blocks


def find_sets(settings: ScanSettings, inputs: ScanInputs) -> FoundSets:
    """The variants of every set that the options allow.

    A shard is a stretch of the sets, whose table covers these, as does that of all variants; another table covers the
    variants that were asked for.

    Raises
    ------
    InputError
        Where there are none.
    """
    table, allowed = inputs.genotypes.variants.table, np.flatnonzero(inputs.selection.asked)
    codes, code_of_variant, human = encode_chromosomes(table["CHR"])
    pos = np.asarray(table["POS"], dtype=np.int64)
    if settings.windows is not None:
        sets, path = windows(codes, code_of_variant[allowed], pos[allowed], *settings.windows), "--windows"
    elif settings.founders:
        sets, path = loci_of_founders(table.take(allowed)), "--founders"
    else:
        path = str(settings.sets)
        column = settings.set_weights if settings.beta is None else None
        sets = read_sets(path, column, lambda name: normalise_chromosome(name, human) in codes)
    start, stop, span = 0, len(sets), inputs.selection.span
    if settings.shard is not None or span.ranges == ((0, span.of),):
        part, parts = settings.shard or (1, 1)
        start, stop = len(sets) * (part - 1) // parts, len(sets) * part // parts
        span = Span(((start, stop),), ((0, len(sets)),), len(sets))
    named = _named(sets, table["SNPID"], allowed)
    in_order = _variants_in_order(codes, human, code_of_variant, pos, allowed)
    found = []
    counts = Counter({"sets": stop - start, NOT_THERE: 0})
    unknown: list[tuple[str | Region, str]] = []
    for order, one in enumerate(sets):
        weight_of: dict[int, float] = {}
        for member, weight in zip(one.members, one.weights or repeat(1.0), strict=False):
            here = named.get(member, []) if isinstance(member, str) else in_order.inside(member)
            if not here and start <= order < stop:
                unknown.append((member, one.name))
            for position in here:
                if weight_of.setdefault(position, weight) != weight:
                    raise InputError(
                        f"{path}: {member} has two different weights in set {one.name}, {weight_of[position]:g} and"
                        f" {weight:g}; keep one of its lines"
                    )
        ordered = np.array(sorted(weight_of), dtype=np.intp)
        weights = np.array([weight_of[k] for k in ordered.tolist()]) if one.weights else None
        on = {codes[int(code)] for code in np.unique(code_of_variant[ordered])}
        found.append(Members(one.name, order, ordered, weights, _null_of(on, one, path, inputs)))
    if not any(len(one.positions) for one in found):
        raise InputError(
            f"{path}: none of its sets has a variant of the scan; check its names and regions against"
            f" {inputs.genotypes.path}"
        )
    if unknown:
        counts[NOT_THERE] = len(unknown)
        logger.warning("%s: %d %s, such as %s of set %s", path, len(unknown), NOT_THERE, *unknown[0])
    return FoundSets(found, start, stop, span, counts)


def loci_of_founders(table: pa.Table) -> list[VariantSet]:
    """The loci of tables of founder probabilities, whose members are variants ``LOCUS.FOUNDER`` with EA = FOUNDER."""
    loci: dict[str, list[str]] = {}
    for name, founder in zip(table["SNPID"].to_pylist(), table["EA"].to_pylist(), strict=True):
        loci.setdefault(locus_of(name, founder), []).append(name)
    return [VariantSet(locus, tuple(dict.fromkeys(members)), 0) for locus, members in loci.items()]


def _named(sets: Sequence[VariantSet], column: pa.ChunkedArray, allowed: NDArray[np.intp]) -> dict[str, list[int]]:
    """Where the variants are whose names are members of sets."""
    names = {member for one in sets for member in one.members if isinstance(member, str)}
    named = np.flatnonzero(np.asarray(pc.is_in(column, value_set=pa.array(sorted(names), pa.string()))))
    named = np.intersect1d(named, allowed, assume_unique=True)
    found: dict[str, list[int]] = {}
    for position, name in zip(named.tolist(), column.take(named).to_pylist(), strict=True):
        found.setdefault(name, []).append(position)
    return found


@dataclass(frozen=True)
class _VariantsInOrder:
    """Variants in the order of chromosomes and positions, to find those of a region.

    With ``human`` 23 to 26 are X, Y, XY and MT. Chromosome k has positions ``pos[first[k]:first[k + 1]]``, increasing,
    and ``variants`` are those that lie there.
    """

    codes: Sequence[str]
    human: bool
    first: NDArray[np.intp]
    pos: NDArray[np.int64]
    variants: NDArray[np.intp]

    def inside(self, region: Region) -> list[int]:
        """The variants of a region; none where its chromosome is not there."""
        code = normalise_chromosome(region.chromosome, self.human)
        if code not in self.codes:
            return []
        k = self.codes.index(code)
        pos = self.pos[self.first[k] : self.first[k + 1]]
        start, end = np.searchsorted(pos, region.first), np.searchsorted(pos, region.last, side="right")
        return [int(one) for one in self.variants[self.first[k] + start : self.first[k] + end]]


def _variants_in_order(
    codes: Sequence[str],
    human: bool,
    code_of_variant: NDArray[np.intp],
    pos: NDArray[np.int64],
    allowed: NDArray[np.intp],
) -> _VariantsInOrder:
    code, position = code_of_variant[allowed], pos[allowed]
    order = np.lexsort((position, code))
    first = np.searchsorted(code[order], np.arange(len(codes) + 1))
    return _VariantsInOrder(codes, human, first, position[order], allowed[order])


def _null_of(chromosomes: set[str], one: VariantSet, path: str, inputs: ScanInputs) -> str | None:
    """Whose null model a set is tested with: with LOCO that of its chromosome."""
    nulls = {inputs.null.left_out.get(code) for code in chromosomes}
    if len(nulls) > 1:
        raise InputError(
            f"{path}, line {one.line}: set {one.name} has variants on chromosomes {', '.join(sorted(chromosomes))}, and"
            " the null model leaves out one chromosome at a time; split the set, or fit without --loco and --pred"
        )
    return next(iter(nulls), None)
