"""What a result table says of its making: one JSON object under the key ``kron2sum`` of its Parquet file.

It holds no time, host or path, so that the same inputs give the same bytes, whatever the threads or shards.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.files.inputs import FileRecord
from kron2sum_cli.files.json_records import canonical_json, read_record, to_json
from kron2sum_cli.model.hypotheses import LEAST_LEFT, TestContext

Array = NDArray[np.float64]
Range = tuple[int, int]

METADATA_KEY = "kron2sum"
INDEPENDENT_TESTS = "independent tests that the variants amount to"
"""The sum of `model.inflation.independent_tests` over the blocks, in the counts of a scan."""

LAYOUT = 2
"""Version of the table's columns and of this object."""


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


@dataclass(frozen=True)
class NullScale:
    """What tests of variants need of one null model: that of the whole genome, or that without a chromosome.

    - ``chromosome``: the chromosome that was left out; None for the whole genome.
    - ``axes`` (p, p): T, the trait axes.
    - ``quadratic``: ``rᵀK⁻¹r``, from which tests measure.
    - ``size``: what the scale of a test counts: after ML the observed values of the traits (np where none is missing),
      after REML their contrasts, `residual_df`.
    - ``residual_df``: number of observed values less the number of fixed effects, (n - c)p.
    """

    chromosome: str | None
    axes: Array
    quadratic: float
    size: int
    residual_df: int

    def context(self, statistic: Literal["lr", "f"], precision: Literal["single", "double"]) -> TestContext:
        """The scale of tests by one statistic, with genotypes multiplied in this precision."""
        return TestContext(self.axes, self.quadratic, self.size, self.residual_df, statistic, LEAST_LEFT[precision])


@dataclass(frozen=True)
class TestOptions:
    """How a scan tested.

    - ``tests``: as they were asked for, files without their folders.
    - ``precision``, ``stat``: "single" or "double"; "lr" or "f".
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
    stat: Literal["lr", "f"]
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
