"""Sets of variants: their files, the variants that they have, and blocks of sets whose variants are read together."""

import logging
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError, counted
from kron2sum_cli.files.scan_metadata import Span
from kron2sum_cli.files.text import read_text, split_rows
from kron2sum_cli.genotypes.chromosomes import Region, encode_chromosomes, normalise_chromosome, parse_region
from kron2sum_cli.genotypes.founders import variants_of_loci
from kron2sum_cli.scan.inputs import ScanInputs
from kron2sum_cli.settings import ScanSettings

logger = logging.getLogger("kron2sum.scan")

NOT_THERE = "members of sets are no variant of the scan"

Positions = NDArray[np.integer]


@dataclass(frozen=True)
class VariantSet:
    """One set of variants, named or in regions, with weights where the file has a column of them."""

    name: str
    members: tuple[str | Region, ...]
    line: int
    weights: tuple[float, ...] = ()


def read_sets(
    path: str, column: str | None = None, is_chromosome: Callable[[str], bool] = lambda name: True
) -> list[VariantSet]:
    """Read sets from a file, whose format is told from its content.

    - A set a line: its name, then variants or regions, separated by white space or commas.
    - A header ``SET SNPID ...`` and a variant a line; ``column`` names its column of weights.
    - BED: chromosome, start (from 0), end, and the name of the set (its place where there is none); a header may
      stand above. The chromosome of one line must be one of the genotypes: names of variants can be numbers, too.
    - GFF and GTF: the lines of genes, named by ``gene_name`` or ``Name``, or by ``gene_id`` or ``ID`` where they have
      no such name, or several have the same.

    Lines of the same name are one set. Raises InputError for a line without members, a region that is none, a file
    without sets, or weights that are not there, negative or no numbers.
    """
    text = _without_comments(read_text(path))
    lines = split_rows(text, path, None if _OF_SPREADSHEET.match(text) else " ")
    split = [(row.line, [word for field in row.fields for word in field.split(",") if word]) for row in lines]
    rows = [(line, words) for line, words in split if words]  # a line of commas has none
    header = rows[0][1] if rows else [""]
    entries: list[_Entry]
    if header[0].removeprefix("#") == "SET" and len(header) > 1:
        entries = _weighted(rows[1:], header, path, column)
    elif column is not None:
        raise InputError(f"{path}: has no header SET SNPID with a column {column}, which --set-weights names")
    elif len(header) > 8 and header[3].isdigit() and header[4].isdigit():
        entries = _genes(rows, path)
    elif (regions := _bed_lines(rows)) and any(is_chromosome(words[0]) for _, words in regions):
        entries = [(line, *_bed_region(line, words, path)) for line, words in regions]
    else:
        entries = [(line, name, [_member(word, path, line) for word in words], ()) for line, (name, *words) in rows]
    sets: dict[str, VariantSet] = {}
    for line, name, members, weights in entries:
        if not members:
            raise InputError(f"{path}, line {line}: set {name} has no variants; put them behind its name")
        earlier = sets.get(name, VariantSet(name, (), line))
        sets[name] = replace(earlier, members=(*earlier.members, *members), weights=(*earlier.weights, *weights))
    if not sets:
        raise InputError(f"{path}: has no sets; give one a line, its name and then its variants")
    return list(sets.values())


def _bed_lines(rows: Sequence[tuple[int, list[str]]]) -> Sequence[tuple[int, list[str]]]:
    """The lines of BED without its header; none where the first of them is no line of BED."""
    headed = bool(rows) and rows[0][1][0].lower() in _BED_HEADERS
    regions = rows[1:] if headed else rows
    words = regions[0][1] if regions else []
    return regions if len(words) > 2 and words[1].isdigit() and words[2].isdigit() else []


_OF_SPREADSHEET = re.compile(r'\s*#?("SET"|SET;)')
"""How a header begins that has quotes, or semicolons, between which a comma is the decimal mark."""


_BED_HEADERS = ("chrom", "chr", "chromosome", "seqnames")
"""Names of the first column that a header of BED may have."""


_Entry = tuple[int, str, Sequence[str | Region], tuple[float, ...]]


def _without_comments(text: str) -> str:
    """A text with the comments and track lines of BED and GFF emptied, so that lines keep their numbers."""
    lines = text.split("\n")
    skipped = ("#", "track ", "browser ")
    return "\n".join("" if line.startswith(skipped) and not line.startswith("#SET") else line for line in lines)


def _member(word: str, path: str, line: int) -> str | Region:
    """A name, or the region that it spells."""
    chromosome, colon, rest = word.partition(":")
    first, dash, last = rest.partition("-")
    if chromosome and colon and dash and first.isdigit() and last.isdigit():
        return _region(line, (chromosome, first, last), path, 1)
    return word


def _region(line: int, words: Sequence[str], path: str, first: int) -> Region:
    """The region of a chromosome, a start and an end; ``first`` is what the format counts from."""
    chromosome, start, end = words
    if not (start.isdigit() and end.isdigit() and int(start) + 1 - first <= int(end)):
        raise InputError(
            f"{path}, line {line}: {start} and {end} are not the start and the end of a region; give the smaller first"
        )
    return parse_region(f"{chromosome}:{int(start) + 1 - first}-{end}")


def _bed_region(line: int, words: Sequence[str], path: str) -> tuple[str, list[str | Region], tuple[float, ...]]:
    """Name and region of a line of BED."""
    if len(words) < 3:
        raise InputError(f"{path}, line {line}: has {len(words)} fields, and BED has a chromosome, a start and an end")
    region = _region(line, words[:3], path, 0)
    return (words[3] if len(words) > 3 else str(region)), [region], ()


def _genes(rows: Sequence[tuple[int, list[str]]], path: str) -> list[_Entry]:
    """Lines, names and regions of the genes of GFF or GTF.

    Genes with different IDs are different sets: those that share a name with another one go by their ID.
    """
    genes = [(line, *gene) for line, words in rows if (gene := _gene(line, words, path)) is not None]
    names = Counter(name for name, _ in {(name, identity) for _, name, identity, _ in genes})
    return [(line, name if names[name] == 1 else identity, [region], ()) for line, name, identity, region in genes]


def _gene(line: int, words: Sequence[str], path: str) -> tuple[str, str, Region] | None:
    """Name, ID and region of a gene of GFF or GTF; None for a line of something else."""
    if len(words) < 9 or not words[2].endswith("gene"):
        return None
    found = _ATTRIBUTE.findall(" ".join(words[8:]))
    attributes = {key: (quoted or unquote(plain)).strip() for key, quoted, plain in found}
    named = [attributes[key] for key in ("gene_name", "Name", "gene_id", "ID") if attributes.get(key)]
    if not named:
        raise InputError(f"{path}, line {line}: the gene has no gene_name, Name, gene_id or ID")
    identity = attributes.get("gene_id") or attributes.get("ID") or named[0]
    return named[0], identity, _region(line, (words[0], words[3], words[4]), path, 1)


_ATTRIBUTE = re.compile(r"""(?:^|;)\s*(\w+)[= ]\s*(?:"([^"]*)"|([^;]*))""")
"""A key and its value, which GTF writes in quotes and GFF with escapes such as %20."""


def windows(codes: Sequence[str], code_of_variant: Positions, pos: Positions, size: int, step: int) -> list[VariantSet]:
    """Windows of ``size`` base pairs that begin every ``step``, from position 1, where there are variants.

    Variants lie at ``pos`` (m,) of the chromosomes with index ``code_of_variant`` (m,) in ``codes``.
    """
    found: list[VariantSet] = []
    for number, code in enumerate(codes):
        known = pos[(code_of_variant == number) & (pos > 0)]
        last = (known - 1) // step
        starts = np.concatenate([last - back for back in range(-(-size // step))] or [last])
        again = np.tile(known, max(1, -(-size // step)))
        inside = (starts >= 0) & (starts * step + size >= again)
        for start in np.unique(starts[inside]).tolist():
            region = Region(code, start * step + 1, start * step + size)
            found.append(VariantSet(str(region), (region,), 0))
    return found


def _weighted(rows: Sequence[tuple[int, list[str]]], header: list[str], path: str, column: str | None) -> list[_Entry]:
    """The rows of a file with a header: line, set, its variant, and its weight."""
    if column is not None and column not in header[2:]:
        raise InputError(f"{path}: has no column {column}, which --set-weights names; it has {', '.join(header)}")
    entries: list[_Entry] = []
    for line, words in rows:
        if len(words) != len(header):
            raise InputError(f"{path}, line {line}: has {len(words)} fields, and the header has {len(header)}")
        weights: tuple[float, ...] = ()
        if column is not None:
            text = words[header.index(column)]
            try:
                weights = (float(text),)
            except ValueError:
                weights = (np.nan,)
            if not 0 <= weights[0] < np.inf:
                raise InputError(f"{path}, line {line}: weight {text} of {words[1]} must be a number, 0 or more")
        entries.append((line, words[0], [words[1]], weights))
    return entries


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
    variants that were asked for. Raises InputError where there are none.
    """
    table, asked = inputs.genotypes.variants.table, inputs.selection.asked
    allowed = np.flatnonzero(asked)
    codes, code_of_variant, human = encode_chromosomes(table["CHR"])
    pos = np.asarray(table["POS"], dtype=np.int64)
    if settings.windows is not None:
        sets, path = windows(codes, code_of_variant[allowed], pos[allowed], *settings.windows), "--windows"
    elif settings.founders:
        loci, path = variants_of_loci(table.take(allowed)), "--founders"
        sets = [VariantSet(locus, tuple(dict.fromkeys(members)), 0) for locus, members in loci.items()]
    else:
        path = str(settings.sets)
        column = settings.set_weights if settings.beta is None else None
        sets = read_sets(path, column, lambda name: normalise_chromosome(name, human) in codes)
    start, stop, span = 0, len(sets), inputs.selection.span
    if settings.shard is not None or span.ranges == ((0, span.of),):
        part, parts = settings.shard or (1, 1)
        start, stop = len(sets) * (part - 1) // parts, len(sets) * part // parts
        span = Span(((start, stop),), ((0, len(sets)),), len(sets))
    names = {member for one in sets for member in one.members if isinstance(member, str)}
    named = inputs.genotypes.variants.positions(names)
    in_order = _variants_in_order(codes, human, code_of_variant, pos, allowed)
    found = []
    counts = Counter({"sets": stop - start, NOT_THERE: 0})
    unknown: list[tuple[str | Region, str]] = []
    for order, one in enumerate(sets):
        weight_of: dict[int, float] = {}
        for member, weight in zip(one.members, one.weights or repeat(1.0), strict=False):
            if isinstance(member, str):
                here = [position for position in named.get(member, []) if asked[position]]
            else:
                here = in_order.inside(member)
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
        logger.warning("%s: %s, such as %s of set %s", path, counted(len(unknown), NOT_THERE), *unknown[0])
    return FoundSets(found, start, stop, span, counts)


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
