"""What a command was asked to do: one frozen record a command, with its defaults and rules in one place.

The record of `kron2sum export` is in `export_settings`.

The rules are checked when a record is made, before any file is opened, and every broken rule is
reported at once. This module imports neither numpy nor pyarrow: the command line reads its defaults.
"""

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from kron2sum_cli.pipeline.hypothesis_names import contrast_files, naming_problems
from kron2sum_cli.pipeline.settings_rules import (
    STDIO,
    empty_texts,
    not_one_of,
    outside,
    raise_all,
    repeated,
    stdin_twice,
)

if TYPE_CHECKING:
    from kron2sum_cli.genotypes.chromosomes import Region

DEFAULT_NULL = "null.npz"
DEFAULT_SCAN = "scan.parquet"
DEFAULT_SEED = 0
DEFAULT_TRANSFORM = "none"
DEFAULT_GRM_SCALE = "standardized"
DEFAULT_GRM_MAF = 0.01
DEFAULT_GRM_GENO = 0.05
DEFAULT_METHOD: Literal["reml", "ml"] = "reml"
DEFAULT_MISSING = "drop"
DEFAULT_TESTS = ("any",)
DEFAULT_REFIT = 1e-4
DEFAULT_PRECISION = "single"
DEFAULT_STAT = "lr"
DEFAULT_SCAN_FORMAT = "parquet"
DEFAULT_EXPORT_FORMAT = "tsv"

TRANSFORMS = ("none", "standardize", "rank-normal")
GRM_SCALES = ("standardized", "centered")
MISSING_CHOICES = ("drop", "exact")
PROFILES = ("h2",)
PRECISIONS = ("single", "double")
STATISTICS = ("lr", "f")
SCAN_FORMATS = ("parquet", "tsv")
EXPORT_FORMATS = ("tsv", "csv", "parquet", "json", "ssf", "blup")
SCAN_PLOTS = ("manhattan", "mirrored", "qq", "effects")
NULL_PLOTS = ("architecture",)
LEAD_PLOTS = ("manhattan", "mirrored", "effects")
DEFAULT_CLUMP_KB = 500.0
DEFAULT_CLUMP_R2 = 0.1
DEFAULT_SIGNIFICANCE = 5e-8

_SUFFIXES = {".tsv": "tsv", ".txt": "tsv", ".csv": "csv", ".parquet": "parquet", ".json": "json"}


def format_of(out: str, formats: Iterable[str], default: str) -> str:
    """The format that the suffix of an output names, where it is one of `formats`; else the default."""
    named = _SUFFIXES.get(os.path.splitext(out)[1].lower())
    return named if named is not None and named in formats else default


@dataclass(frozen=True)
class CommonSettings:
    """What every command takes.

    Attributes
    ----------
    threads : threads that may run at once
    memory_mib : upper bound on the working set in MiB; None for no bound
    seed : seed of every random number
    log : the log file; None for no log
    config : the file that options were read from; None for none
    quiet, verbose : less or more on standard error
    """

    threads: int = 1
    memory_mib: int | None = None
    seed: int = DEFAULT_SEED
    log: str | None = None
    config: str | None = None
    quiet: bool = False
    verbose: bool = False

    def __post_init__(self) -> None:
        raise_all(self._problems())

    @property
    def input_paths(self) -> tuple[str, ...]:
        """Every file named as an input, whatever the command."""
        return () if self.config is None else (self.config,)

    def _problems(self) -> Iterable[str]:
        if self.threads < 1:
            yield f"--threads {self.threads}: must be 1 or more"
        if self.memory_mib is not None and self.memory_mib < 1:
            yield f"--memory {self.memory_mib}: must be 1 MiB or more"
        if self.seed < 0:
            yield f"--seed {self.seed}: must be 0 or more"
        if self.log == STDIO:
            yield "--log -: standard output holds results only; name a file (or /dev/stderr)"
        if self.quiet and self.verbose:
            yield "--quiet and --verbose exclude each other"


@dataclass(frozen=True)
class FitSettings:
    """What `kron2sum fit` was asked to do.

    Attributes
    ----------
    pheno, pheno_names : the phenotype file and the traits taken from it (none: all)
    covar, covar_names, cat_covar_names : the covariate file, its columns (none: all), the categorical ones
    missing_codes : further words for a missing value
    intercept : whether X has a column of ones
    keep, remove : files of samples to keep, to leave out
    transform : of each trait, one of `TRANSFORMS`
    grm, grm_id : the relationship matrix, and its sample list where the format has none
    grm_scale, grm_maf, grm_geno, grm_extract : how a GRM is made of genotypes
    method : "reml" or "ml"
    rank : the rank of C0; None for full, "auto" to choose it
    trait_design : file of the p x a matrix A; None for the identity
    loco : one null model for each chromosome of the GRM
    missing : what becomes of a sample with a trait missing, one of `MISSING_CHOICES`
    drop_redundant : leave out covariates inside the span of others
    allow_unconverged : write a null model that did not converge
    profile : "h2" for profile-likelihood intervals
    predict : whether the file gets predictions for all samples of the relationship matrix
    out : the null model's file
    """

    pheno: str
    grm: str
    pheno_names: tuple[str, ...] = ()
    covar: str | None = None
    covar_names: tuple[str, ...] = ()
    cat_covar_names: tuple[str, ...] = ()
    missing_codes: tuple[str, ...] = ()
    intercept: bool = True
    keep: str | None = None
    remove: str | None = None
    transform: str = DEFAULT_TRANSFORM
    grm_id: str | None = None
    grm_scale: str = DEFAULT_GRM_SCALE
    grm_maf: float = DEFAULT_GRM_MAF
    grm_geno: float = DEFAULT_GRM_GENO
    grm_extract: str | None = None
    method: Literal["reml", "ml"] = DEFAULT_METHOD
    rank: int | Literal["auto"] | None = None
    trait_design: str | None = None
    loco: bool = False
    missing: str = DEFAULT_MISSING
    drop_redundant: bool = False
    allow_unconverged: bool = False
    profile: str | None = None
    predict: bool = False
    out: str = DEFAULT_NULL
    common: CommonSettings = field(default_factory=CommonSettings)

    def __post_init__(self) -> None:
        raise_all([*empty_texts(self), *self._problems()])

    @property
    def input_paths(self) -> tuple[str, ...]:
        """Every file named as an input."""
        named = (self.pheno, self.grm, self.covar, self.keep, self.remove, self.grm_id, self.grm_extract)
        return tuple(path for path in (*named, self.trait_design, *self.common.input_paths) if path is not None)

    def _problems(self) -> Iterable[str]:
        yield from stdin_twice(self.input_paths)
        yield from repeated("--pheno-name", self.pheno_names)
        yield from repeated("--covar-name", self.covar_names)
        yield from repeated("--cat-covar", self.cat_covar_names)
        if self.covar is None:
            yield from (f"{option} needs --covar" for option in self._options_of_covariates())
        if isinstance(self.rank, int) and self.rank < 1:
            yield f"--rank {self.rank}: must be 1 or more, or auto"
        yield from not_one_of("--transform", self.transform, TRANSFORMS)
        yield from not_one_of("--grm-scale", self.grm_scale, GRM_SCALES)
        yield from not_one_of("--missing", self.missing, MISSING_CHOICES)
        if self.profile is not None:
            yield from not_one_of("--profile", self.profile, PROFILES)
        yield from outside("--grm-maf", self.grm_maf, 0, 0.5)
        yield from outside("--grm-geno", self.grm_geno, 0, 1)

    def _options_of_covariates(self) -> Iterable[str]:
        if self.covar_names:
            yield "--covar-name"
        if self.cat_covar_names:
            yield "--cat-covar"


@dataclass(frozen=True)
class ScanSettings:
    """What `kron2sum scan` was asked to do.

    Attributes
    ----------
    null : the null model's file
    geno : the genotypes; None for those that the GRM was made from
    extract, exclude : files of variants to keep, to leave out
    chromosomes : chromosomes to scan, as `parse_chromosomes` returns them (none: all)
    regions : parts of chromosomes to scan (none: all)
    maf, mac, max_missing, hwe : filters on the analysed samples; None for no filter
    tests : "any", "common", "specific", "trait:NAME", "trait:NAME|OTHERS", "only:NAME", "axis:K", "NAME=FILE" or
        "NAME=FILE0,FILE1"
    sets : file of sets of variants, each tested together; None to test every variant
    refit : variants with P below it are fitted again; 0 for never, 1 for all
    shard : (i, n) for the i-th of n parts, counted from 1
    resume : go on with an interrupted scan of the same output
    precision : "single" or "double"
    stat : "lr" for the likelihood ratio, "f" for the F test
    to : format of the result table, one of `SCAN_FORMATS`
    out : the result table
    """

    null: str = DEFAULT_NULL
    geno: str | None = None
    extract: str | None = None
    exclude: str | None = None
    chromosomes: tuple[tuple[str, ...], ...] = ()
    regions: "tuple[Region, ...]" = ()
    maf: float | None = None
    mac: float | None = None
    max_missing: float | None = None
    hwe: float | None = None
    tests: tuple[str, ...] = DEFAULT_TESTS
    sets: str | None = None
    refit: float = DEFAULT_REFIT
    shard: tuple[int, int] | None = None
    resume: bool = False
    precision: str = DEFAULT_PRECISION
    stat: str = DEFAULT_STAT
    to: str = DEFAULT_SCAN_FORMAT
    out: str = DEFAULT_SCAN
    common: CommonSettings = field(default_factory=CommonSettings)

    def __post_init__(self) -> None:
        raise_all([*empty_texts(self), *self._problems()])

    @property
    def input_paths(self) -> tuple[str, ...]:
        """Every file named as an input."""
        contrasts = tuple(path for test in self.tests for path in contrast_files(test))
        named = (self.null, self.geno, self.extract, self.exclude, self.sets, *contrasts, *self.common.input_paths)
        return tuple(path for path in named if path is not None)

    def _problems(self) -> Iterable[str]:
        yield from stdin_twice(self.input_paths)
        yield from self._filter_problems()
        yield from (problem for test in self.tests for problem in naming_problems(test))
        yield from repeated("--test", (test.partition("=")[0] for test in self.tests))
        yield from outside("--refit", self.refit, 0, 1)
        if self.sets is not None and (self.shard is not None or self.resume):
            yield "--sets: sets are scanned in one part, without --shard and --resume"
        if self.shard is not None and not 1 <= self.shard[0] <= self.shard[1]:
            part, parts = self.shard
            yield f"--shard {part}/{parts}: the part must lie between 1 and the number of parts"
        yield from not_one_of("--precision", self.precision, PRECISIONS)
        yield from not_one_of("--stat", self.stat, STATISTICS)
        yield from not_one_of("--to", self.to, SCAN_FORMATS)

    def _filter_problems(self) -> Iterable[str]:
        bounds = (("--maf", self.maf, 0.5), ("--max-missing", self.max_missing, 1), ("--hwe", self.hwe, 1))
        for option, value, high in bounds:
            if value is not None:
                yield from outside(option, value, 0, high)
        if self.mac is not None and not 0 <= self.mac < math.inf:
            yield f"--mac {self.mac:g}: must be 0 or more, and finite"
