"""What a result table says of its making: one JSON object under the key ``kron2sum`` of its Parquet file.

It holds no time, host or path, so that the same inputs give the same bytes, whatever the threads or shards. By it
the tables of the parts of a scan are joined: in which order, what is missing, and what the whole says of itself.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.files.genome_wide import largest_of_parts, thresholds_of
from kron2sum_cli.files.inputs import FileRecord
from kron2sum_cli.files.json_records import canonical_json, read_record, to_json
from kron2sum_cli.model.hypotheses import LEAST_LEFT, Statistic, TestContext
from kron2sum_cli.model.satterthwaite import EffectiveContrasts

Array = NDArray[np.float64]
Range = tuple[int, int]

METADATA_KEY = "kron2sum"
INDEPENDENT_TESTS = "independent tests that the variants amount to"
"""The sum of `model.inflation.independent_tests` over the blocks, in the counts of a scan."""

LAYOUT = 2
"""Version of the table's columns and of this object."""

_OF_PARTS = ("span", "parts", "counts", "refit_factors", "largest", "thresholds")
"""Fields of the metadata that differ between the parts of a scan; each has the factors of its own refits only."""


@dataclass(frozen=True)
class Span:
    """Variants of one genotype file, counted from 0, as half-open ranges in increasing order.

    A table covers ``ranges``, at least one (which may be empty). The scan was ``asked`` for ranges of which these may
    be a part (a shard). The file has so many variants, ``of``.
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


@dataclass(frozen=True)
class ScannedNull:
    """The null model of a scan.

    - ``hash``: identifies it.
    - ``method``: "reml" or "ml".
    - ``lml``: log-likelihood with all constants.
    - ``C0``, ``C1`` (p, p): genetic and residual covariance of the traits.
    - ``samples``: how many were analysed.
    - ``observed``: samples that have each trait, where some lack one.
    - ``rank``: largest rank of C0 that was allowed.
    - ``transform``: what was done to each trait before the fit, one of `settings.TRANSFORMS`.
    - ``grm``: names of the files that the relationship matrix was made of.
    - ``reduced``: whether its trait design has fewer columns than traits.
    """

    hash: str
    method: Literal["reml", "ml"]
    lml: float
    C0: Array
    C1: Array
    samples: int
    covariates: tuple[str, ...]
    observed: Mapping[str, int] = field(default_factory=dict)
    rank: int | None = None
    transform: str = "none"
    grm: tuple[str, ...] = ()
    reduced: bool = False


@dataclass(frozen=True)
class NullScale:
    """What tests of variants need of one null model: that of the whole genome, or that without a chromosome.

    - ``chromosome``: the chromosome that was left out; None for the whole genome.
    - ``axes`` (p, p): T, the trait axes.
    - ``quadratic``: ``rᵀK⁻¹r``, from which tests measure.
    - ``size``: what the scale of a test counts: after ML the observed values of the traits (np where none is missing),
      after REML their contrasts, `residual_df`.
    - ``residual_df``: number of observed values less the number of fixed effects, (n - c)p.
    - ``contrasts``: on how many the covariances rest; None where tests take them as known.
    """

    chromosome: str | None
    axes: Array
    quadratic: float
    size: int
    residual_df: int
    contrasts: EffectiveContrasts | None = None

    def context(self, statistic: Statistic, precision: Literal["single", "double"]) -> TestContext:
        """The scale of tests by one statistic, with genotypes multiplied in this precision."""
        least = LEAST_LEFT[precision]
        return TestContext(
            self.axes, self.quadratic, self.size, self.residual_df, statistic, least, contrasts=self.contrasts
        )


@dataclass(frozen=True)
class TestOptions:
    """How a scan tested.

    - ``tests``: as they were asked for, files without their folders.
    - ``precision``, ``stat``: "single" or "double"; "lr", "f" or "satterthwaite".
    - ``refit``: variants with P below it were fitted again.
    - ``seed``: of the simulation of `ScanMetadata.refit_factors` and of `bootstrap`; None without both.
    - ``conditioned``: variants whose effects on every trait are in the model.
    - ``bootstrap``: number of data sets simulated under the null model, from `seed`.
    - ``resample``: how their errors were drawn.
    - ``coding``: how genotypes entered the model.
    - ``interaction``: covariate whose products with the variants were tested, too.
    - ``random_slopes``: whether refits of the interaction let C0 and C1 change with it.
    """

    __test__ = False  # not a test class, whatever its name

    tests: tuple[str, ...]
    precision: Literal["single", "double"]
    stat: Statistic
    refit: float
    seed: int | None = None
    conditioned: tuple[str, ...] = ()
    bootstrap: int = 0
    resample: Literal["normal", "permute"] = "normal"
    coding: Literal["additive", "dominant", "recessive", "genotypic"] = "additive"
    interaction: str | None = None
    random_slopes: bool = False


@dataclass(frozen=True)
class ScanPart:
    """A genotype file of a table that was joined from several: its files, and which of its variants were scanned."""

    geno: tuple[FileRecord, ...]
    span: Span


@dataclass(frozen=True)
class ScanMetadata:
    """What a result table says of its making.

    - ``version``: of the program that wrote it.
    - ``nulls``: that of the whole genome, and with LOCO that without each chromosome.
    - ``traits``: their names, in the order of `ScannedNull.C0` and of the columns of `NullScale.axes`.
    - ``filters``: the options on variants that were given, files as their records.
    - ``settings``: how variants were tested.
    - ``inputs``: the files of ``geno``, ``covar``, ``tests`` and ``sets``.
    - ``coupled``: whether fixed effects or missing cells couple the trait axes, so that the information is a matrix.
    - ``null_of_chr``: with LOCO, which null model a chromosome, as the file spells it, was tested with.
    - ``span``: the variants of the genotype file that were scanned; None for a table of several files, which has
      `parts`.
    - ``parts``: of a table joined from several genotype files.
    - ``counts``: numbers of variants (or sets), which add up over the parts of a scan.
    - ``refit_factors``: what the likelihood ratios of refits were divided by, by null model ("genome", whose factors
      those without a chromosome share) and test; empty where no variant was refitted.
    - ``largest``: with a bootstrap, the largest -log10 P of every test and trait in the variants covered, for each data
      set.
    - ``thresholds``: by test or trait, then by level, the -log10 P above which P over the variants covered is at most
      the level.
    - ``export``: of a table that `kron2sum export` made, how it chose rows and columns.
    """

    version: str
    null: ScannedNull
    nulls: tuple[NullScale, ...]
    traits: tuple[str, ...]
    filters: Mapping[str, Any]
    settings: TestOptions
    inputs: Mapping[str, tuple[FileRecord, ...]]
    coupled: bool = False
    null_of_chr: Mapping[str, str] = field(default_factory=dict)
    span: Span | None = None
    parts: tuple[ScanPart, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    refit_factors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    largest: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    thresholds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    export: Mapping[str, Any] | None = None

    def to_json(self) -> str:
        """The JSON text; equal metadata give equal texts."""
        return canonical_json({"layout": LAYOUT, "axes": self.nulls[0].axes, **to_json(self)})

    @classmethod
    def from_json(cls, text: str | bytes) -> "ScanMetadata":
        """The metadata of a JSON text; see `read_record`."""
        return read_record(cls, text, "layout", LAYOUT, "kron2sum scan")


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
    missing = tuple(
        f"{_named(hole, noun)} of {part.span.of}"
        for part in joined
        for hole in difference(part.span.asked, part.span.ranges)
    )
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
