"""Which variants of a genotype file a result table covers, and how several tables make one.

The metadata of a table has `span`: `start` and `stop` (the first variant and the one after the last,
counted from 0 in the genotype file) of the `of` variants of that file. Where variants between them were not
looked at (`--chr`, `--region`), `gaps` has their ranges. `asked` has the ranges that the scan was asked for,
of which a shard has a part; it is left out where that is the whole file. A table joined from several genotype
files has `parts` instead: for each of them the files (`geno`) and the `span`. All other keys agree in tables
that can be joined, but `counts`, which are numbers of variants and add up, and `geno` in `inputs`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from kron2sum_cli.errors import InputError

Range = tuple[int, int]

_OF_ONE_PART = ("span", "parts", "counts", "inputs")
EXPORTED = "export"
"""Key of the metadata of a table that has some of the rows or columns of a scan."""


@dataclass(frozen=True)
class Span:
    """Variants of one genotype file.

    Attributes
    ----------
    ranges : those that a table covers: half-open ranges, increasing, at least one (which may be empty)
    asked : those that the scan was asked for, of which `ranges` may be a part (a shard)
    of : the number of variants of the file
    """

    ranges: tuple[Range, ...]
    asked: tuple[Range, ...]
    of: int

    @property
    def start(self) -> int:
        """The first variant covered."""
        return self.ranges[0][0]

    @property
    def stop(self) -> int:
        """The variant after the last one covered."""
        return self.ranges[-1][1]

    def to_metadata(self) -> dict[str, Any]:
        """What the metadata of a table say."""
        record: dict[str, Any] = {"start": self.start, "stop": self.stop, "of": self.of}
        gaps = [[a[1], b[0]] for a, b in pairwise(self.ranges)]
        if gaps:
            record["gaps"] = gaps
        if self.asked != ((0, self.of),):
            record["asked"] = [list(edges) for edges in self.asked]
        return record


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
class Part:
    """What one table covers of one genotype file: position and name of the table, files and span."""

    table: int
    name: str
    geno: Any
    span: Span


@dataclass(frozen=True)
class Joined:
    """How tables make one: their positions in the order of the rows, the metadata, and what is missing."""

    order: tuple[int, ...]
    metadata: Mapping[str, Any]
    missing: tuple[str, ...]


def join_parts(names: Sequence[str], tables: Sequence[Mapping[str, Any]]) -> Joined:
    """Order tables of one scan as the genotype file has the variants, and join their metadata.

    Parameters
    ----------
    names : of the tables, for messages
    tables : the metadata of each

    Returns
    -------
    The order, the metadata of the whole (equal to those of a scan that was never split), and for each
    missing range of variants a text that names it.

    Raises
    ------
    InputError
        If the tables are of different null models or settings, overlap, or cannot be put in order.
    """
    parts_of = [_parts(index, names[index], metadata) for index, metadata in enumerate(tables)]
    for name, metadata in zip(names[1:], tables[1:], strict=True):
        _check_agreement(names[0], tables[0], name, metadata)
    if len(tables) > 1 and EXPORTED in tables[0]:
        raise InputError(f"{names[0]}: has only some rows or columns of a scan; join the tables of the scan first")
    groups: dict[str, list[Part]] = {}
    for part in (part for parts in parts_of for part in parts):
        groups.setdefault(json.dumps(part.geno, sort_keys=True), []).append(part)
    order: dict[int, None] = {}
    joined: list[tuple[Any, Span]] = []
    missing: list[str] = []
    for parts in groups.values():
        parts.sort(key=lambda part: part.span.start)
        order |= dict.fromkeys(part.table for part in parts)
        span = _joined_span(parts)
        joined.append((parts[0].geno, span))
        missing += _missing(span)
    return Joined(tuple(order), _joined_metadata(tables, joined), tuple(missing))


def _check_agreement(first: str, a: Mapping[str, Any], other: str, b: Mapping[str, Any]) -> None:
    """Refuse to join tables that two different scans made, saying in what they differ."""
    if _null_hash(a) != _null_hash(b):
        raise InputError(
            f"{other}: was scanned with another null model than {first} (hash {_null_hash(b)[:12]} instead of "
            f"{_null_hash(a)[:12]}); join tables of one null model only"
        )
    for key in sorted((a.keys() | b.keys()) - set(_OF_ONE_PART)):
        if a.get(key) != b.get(key):
            what = first_difference(a.get(key), b.get(key), key)
            raise InputError(f"{other}: differs from {first} in {what}; join parts of one scan only")
    inputs_a, inputs_b = (_other_inputs(metadata) for metadata in (a, b))
    if inputs_a != inputs_b:
        what = first_difference(inputs_a, inputs_b, "inputs")
        raise InputError(f"{other}: differs from {first} in {what}; join parts of one scan only")


def _null_hash(metadata: Mapping[str, Any]) -> str:
    null = metadata.get("null")
    return str(null.get("hash", "")) if isinstance(null, dict) else ""


def _other_inputs(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {role: files for role, files in metadata["inputs"].items() if role != "geno"}


def first_difference(a: Any, b: Any, path: str) -> str:
    """The first place where two values differ, with both values."""
    if isinstance(a, dict) and isinstance(b, dict):
        key = min(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))
        return first_difference(a.get(key), b.get(key), f"{path}: {key}")
    return f"{path} ({_short(b)} instead of {_short(a)})"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _parts(index: int, name: str, metadata: Mapping[str, Any]) -> list[Part]:
    try:
        _sum([metadata["counts"]])
        if metadata.get("parts"):
            return [Part(index, name, part["geno"], _span(part["span"])) for part in metadata["parts"]]
        return [Part(index, name, metadata["inputs"].get("geno"), _span(metadata["span"]))]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{name}: its metadata do not say which variants it covers; scan again") from error


def _span(record: Mapping[str, Any]) -> Span:
    of = record["of"]
    edges = [record["start"], *(edge for gap in record.get("gaps", ()) for edge in gap), record["stop"]]
    asked = [edge for pair in record.get("asked", [[0, of]]) for edge in pair]
    for numbers in (edges, asked):
        increasing = all(type(edge) is int for edge in (0, *numbers, of)) and numbers == sorted(numbers)
        in_file = bool(numbers) and 0 <= numbers[0] <= numbers[-1] <= of
        if not (increasing and in_file and len(numbers) % 2 == 0):
            raise ValueError("edges must be whole numbers that increase within the file")
    return Span(_pairs(edges), _pairs(asked), of)


def _pairs(edges: Sequence[int]) -> tuple[Range, ...]:
    return tuple(zip(edges[::2], edges[1::2], strict=True))


def _joined_span(parts: Sequence[Part]) -> Span:
    """The span of parts in order, ranges that touch made one."""
    for a, b in pairwise(part for part in parts if part.span.start < part.span.stop):
        _check_order(a, b)
    ranges = union(edges for part in parts for edges in part.span.ranges)
    asked = union(edges for part in parts for edges in part.span.asked)
    return Span(ranges or parts[0].span.ranges, asked or parts[0].span.asked, parts[0].span.of)


def _check_order(a: Part, b: Part) -> None:
    """Refuse parts that overlap, or of which one lies in a gap of the other."""
    if a.span.stop <= b.span.start:
        return
    for first, last in a.span.ranges:
        for other_first, other_last in b.span.ranges:
            low, high = max(first, other_first), min(last, other_last)
            if low < high:
                raise InputError(
                    f"{b.name}: overlaps {a.name} ({_named((low, high))} of {a.span.of} are in both); leave one out"
                )
    raise InputError(f"{b.name}: lies between the parts of {a.name}; scan contiguous parts to join them in order")


def _missing(span: Span) -> list[str]:
    """What was asked for and is not there."""
    return [f"{_named(hole)} of {span.of}" for hole in difference(span.asked, span.ranges)]


def _named(edges: Range) -> str:
    """A half-open range as people count."""
    first, last = edges[0] + 1, edges[1]
    return f"variant {first}" if first == last else f"variants {first} to {last}"


def _joined_metadata(tables: Sequence[Mapping[str, Any]], joined: Sequence[tuple[Any, Span]]) -> Mapping[str, Any]:
    if len(tables) == 1:
        return tables[0]
    metadata = {key: value for key, value in tables[0].items() if key not in _OF_ONE_PART}
    metadata["counts"] = _sum([table["counts"] for table in tables])
    metadata["inputs"] = dict(tables[0]["inputs"])
    if len(joined) == 1:
        metadata["span"] = joined[0][1].to_metadata()
    else:
        metadata["inputs"].pop("geno", None)
        metadata["parts"] = [{"geno": geno, "span": span.to_metadata()} for geno, span in joined]
    return metadata


def _sum(counts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts added up, of any nesting; a count that one of them lacks is 0 there."""
    total: dict[str, Any] = {}
    for key, first in ((key, value) for count in counts for key, value in count.items()):
        if key not in total:
            values = [count[key] for count in counts if key in count]
            total[key] = _sum(values) if isinstance(first, dict) else sum(values)
    return total
