"""How several result tables make one: their order, what is missing between them, and what the whole says of itself."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from kron2sum_cli.errors import InputError
from kron2sum_cli.files.genome_wide import largest_of_parts, thresholds_of
from kron2sum_cli.files.inputs import FileRecord
from kron2sum_cli.files.json_records import to_json
from kron2sum_cli.files.scan_metadata import Range, ScanMetadata, ScanPart, Span

_OF_PARTS = ("span", "parts", "counts", "refit_factors", "largest", "thresholds")
"""Fields of the metadata that differ between the parts of a scan; each has the factors of its own refits only."""


def union(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """Half-open ranges in increasing order, those that touch or overlap made one, without empty ones."""
    found: list[Range] = []
    for first, last in sorted(edges for edges in ranges if edges[0] < edges[1]):
        if found and first <= found[-1][1]:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return tuple(found)


def difference(whole: Iterable[Range], taken: Iterable[Range]) -> tuple[Range, ...]:
    """What is left of some ranges without others."""
    left = list(union(whole))
    for first, last in union(taken):
        pieces = ([(a, min(b, first)), (max(a, last), b)] for a, b in left)
        left = [edges for pair in pieces for edges in pair if edges[0] < edges[1]]
    return tuple(left)


@dataclass(frozen=True)
class _Part:
    """What one table covers of one genotype file: position and name of the table, files and span."""

    table: int
    name: str
    geno: tuple[FileRecord, ...]
    span: Span


@dataclass(frozen=True)
class Joined:
    """How tables make one.

    ``order`` has positions of the tables in the order of the rows. The metadata are of the whole, equal to those of a
    scan that was never split; ``missing`` has a text for each range of variants that was asked for and is in no table.
    """

    order: tuple[int, ...]
    metadata: ScanMetadata
    missing: tuple[str, ...]


_ASKED = ("filters", "settings")
"""What the user asked for, whose differences explain all others."""


def join_parts(names: Sequence[str], tables: Sequence[ScanMetadata]) -> Joined:
    """Order tables of one scan as the genotype file has the variants, and join their metadata.

    Raises InputError if the tables are of different null models or settings, overlap, or cannot be put in order.
    """
    for name, metadata in zip(names[1:], tables[1:], strict=True):
        _check_agreement(names[0], tables[0], name, metadata)
    if len(tables) > 1 and tables[0].export is not None:
        raise InputError(f"{names[0]}: has only some rows or columns of a scan; join the tables of the scan first")
    noun = "set" if "sets" in tables[0].counts else "variant"
    of_file: dict[tuple[FileRecord, ...], list[_Part]] = {}
    for index, (name, metadata) in enumerate(zip(names, tables, strict=True)):
        for part in _parts(metadata):
            of_file.setdefault(part.geno, []).append(_Part(index, name, part.geno, part.span))
    order: dict[int, None] = {}
    joined: list[ScanPart] = []
    for geno, parts in of_file.items():
        parts.sort(key=lambda part: part.span.start)
        order |= dict.fromkeys(part.table for part in parts)
        joined.append(ScanPart(geno, _joined_span(parts, noun)))
    missing = tuple(text for part in joined for text in _missing(part.span, noun))
    return Joined(tuple(order), _joined_metadata(tables, joined), missing)


def _parts(metadata: ScanMetadata) -> tuple[ScanPart, ...]:
    if metadata.span is None:
        return metadata.parts
    return (ScanPart(metadata.inputs.get("geno", ()), metadata.span),)


def _check_agreement(first: str, a: ScanMetadata, other: str, b: ScanMetadata) -> None:
    """Refuse to join tables that two different scans made, saying in what they differ."""
    if a.null.hash != b.null.hash:
        raise InputError(
            f"{other}: was scanned with another null model than {first} (hash {b.null.hash[:12]} instead of "
            f"{a.null.hash[:12]}); join tables of one null model only"
        )
    shared, of_other = _shared(a), _shared(b)
    asked, of_other_asked = ({key: one.get(key) for key in _ASKED} for one in (shared, of_other))
    difference = first_difference(asked, of_other_asked) or first_difference(shared, of_other)
    if difference is not None:
        raise InputError(f"{other}: differs from {first} in {difference}; join parts of one scan only")


def _shared(metadata: ScanMetadata) -> dict[str, Any]:
    """What is the same in all parts of a scan."""
    shared = {key: value for key, value in to_json(metadata).items() if key not in _OF_PARTS}
    return shared | {"inputs": {role: files for role, files in shared["inputs"].items() if role != "geno"}}


def first_difference(a: Any, b: Any, path: str = "") -> str | None:
    """The first place, in the order of the keys, where two values of JSON differ, with both; None where none does."""
    if a == b:
        return None
    if isinstance(a, dict) and isinstance(b, dict):
        key = min(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))
        return first_difference(a.get(key), b.get(key), f"{path}: {key}" if path else key)
    return f"{path} ({_short(b)} instead of {_short(a)})"


def _short(value: Any) -> str:
    """A value of JSON as text, its end left out where it is long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _joined_span(parts: Sequence[_Part], noun: str) -> Span:
    """The span of parts in order, ranges that touch made one."""
    for a, b in pairwise(part for part in parts if part.span.start < part.span.stop):
        _check_order(a, b, noun)
    ranges = union(edges for part in parts for edges in part.span.ranges)
    asked = union(edges for part in parts for edges in part.span.asked)
    return Span(ranges or parts[0].span.ranges, asked or parts[0].span.asked, parts[0].span.of)


def _check_order(a: _Part, b: _Part, noun: str) -> None:
    """Refuse parts that overlap, or of which one lies in a gap of the other."""
    if a.span.stop <= b.span.start:
        return
    for first, last in a.span.ranges:
        for other_first, other_last in b.span.ranges:
            low, high = max(first, other_first), min(last, other_last)
            if low < high:
                raise InputError(
                    f"{b.name}: overlaps {a.name} ({_named((low, high), noun)} of {a.span.of} are in both);"
                    " leave one out"
                )
    raise InputError(f"{b.name}: lies between the parts of {a.name}; scan contiguous parts to join them in order")


def _missing(span: Span, noun: str) -> list[str]:
    """What was asked for and is not there."""
    return [f"{_named(hole, noun)} of {span.of}" for hole in difference(span.asked, span.ranges)]


def _named(edges: Range, noun: str) -> str:
    """A half-open range of variants or sets as people count."""
    first, last = edges[0] + 1, edges[1]
    return f"{noun} {first}" if first == last else f"{noun}s {first} to {last}"


def _joined_metadata(tables: Sequence[ScanMetadata], joined: Sequence[ScanPart]) -> ScanMetadata:
    if len(tables) == 1:
        return tables[0]
    counts: Counter[str] = Counter()
    for table in tables:
        counts.update(table.counts)
    factors = {null: of_null for table in tables for null, of_null in table.refit_factors.items()}
    largest = largest_of_parts([table.largest for table in tables])
    whole = replace(
        tables[0],
        counts=dict(counts),
        refit_factors=dict(sorted(factors.items())),
        largest=largest,
        thresholds=thresholds_of(largest),
    )
    if len(joined) == 1:
        return replace(whole, span=joined[0].span, parts=())
    inputs = {role: files for role, files in whole.inputs.items() if role != "geno"}
    return replace(whole, inputs=inputs, span=None, parts=tuple(joined))
