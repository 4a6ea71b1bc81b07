"""What each command was asked to do: one record a command, with what is wrong between its options.

A field is the option of its name (or of the name that it has in `cli`, such as ``--pheno-name`` for ``pheno_names``),
and means what ``kron2sum COMMAND --help`` says. None stands for an option that was not given, an empty tuple for one
that may be given several times and was not.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from kron2sum_cli.option_values import (
    DOMINANCE,
    FILES_OF_GENOTYPES,
    INTERACTION,
    OTHER_CONTENT,
    STDIO,
    SUFFIXES,
    TESTS_OF_SCAN,
    GenomeWide,
    Significance,
    contrast_files,
    empty_texts,
    files_without_genotypes,
    naming_problems,
    raise_all,
    repeated,
    split_suffix,
    stdin_twice,
    untrue_suffix,
)

if TYPE_CHECKING:
    from kron2sum_cli.genotypes.chromosomes import Region

DEFAULT_NULL = "null.npz"
DEFAULT_SCAN = "scan.parquet"
DEFAULT_SEED = 0
DEFAULT_TRANSFORM = "none"
NO_MATRIX = "none"
"""The value of --grm for independent samples."""

DEFAULT_GRM_SCALE: Literal["standardized", "centered"] = "standardized"
DEFAULT_GRM_MAF = 0.01
DEFAULT_GRM_GENO = 0.05
DEFAULT_METHOD: Literal["reml", "ml"] = "reml"
DEFAULT_MISSING = "drop"
DEFAULT_TESTS = ("any",)
DEFAULT_REFIT = 1e-4
DEFAULT_PRECISION: Literal["single", "double"] = "single"
DEFAULT_STAT: Literal["lr", "f", "satterthwaite"] = "lr"
DEFAULT_RESAMPLE: Literal["normal", "permute"] = "normal"
FIXED = "fixed"
DEFAULT_SET_TESTS = (FIXED,)
DEFAULT_SET_WEIGHTS = "beta:1,1"
DEFAULT_SCAN_FORMAT = "parquet"
DEFAULT_EXPORT_FORMAT = "tsv"

TRANSFORMS = ("none", "standardize", "rank-normal")
GRM_SCALES = ("standardized", "centered")
MISSING_CHOICES = ("drop", "exact")
PROFILES = ("h2",)
PRECISIONS = ("single", "double")
STATISTICS = ("lr", "f", "satterthwaite")
RESAMPLING = ("normal", "permute")
CODINGS = ("additive", "dominant", "recessive", "genotypic")
SET_TESTS = (FIXED, "burden", "skat", "skato", "acat", "lr", "omnibus")
SCAN_FORMATS = ("parquet", "tsv", "csv")
EXPORT_FORMATS = ("tsv", "csv", "parquet", "json", "ssf", "blup")
SCAN_PLOTS = ("manhattan", "mirrored", "qq", "effects")
NULL_PLOTS = ("architecture",)
TEST_PLOTS = ("manhattan", "mirrored", "qq")
LEAD_PLOTS = ("manhattan", "mirrored", "effects")
DEFAULT_CLUMP_KB = 500.0
DEFAULT_CLUMP_R2 = 0.1
DEFAULT_SIGNIFICANCE = 5e-8
FAMILY_WISE = 0.05
"""Family-wise error rate of the threshold line of a picture, by Bonferroni or a bootstrap. Divided by the number of
sets it is the largest P of a lead set."""
DEFAULT_STEPWISE_KB = 1000.0
DEFAULT_CODING: Literal["additive", "dominant", "recessive", "genotypic"] = "additive"


@dataclass(frozen=True)
class CommonSettings:
    """What every command takes.

    ``memory_mib`` is None for no bound, ``log`` None for no log.
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
        if self.log == STDIO:
            yield "--log -: standard output holds results only; name a file (or /dev/stderr)"
        if self.quiet and self.verbose:
            yield "--quiet and --verbose exclude each other"


@dataclass(frozen=True)
class FitSettings:
    """What `kron2sum fit` was asked to do.

    ``grm`` is one matrix, files of genotypes, which are one data set in this order, or `NO_MATRIX`. ``transform``,
    ``grm_scale``, ``missing`` and ``profile`` are of `TRANSFORMS`, `GRM_SCALES`, `MISSING_CHOICES` and `PROFILES`.
    ``rank`` is that of C0; None for full, "auto" to choose it.
    """

    pheno: str
    grm: tuple[str, ...]
    pheno_names: tuple[str, ...] = ()
    pheno_long: tuple[str, ...] = ()
    covar: str | None = None
    covar_names: tuple[str, ...] = ()
    cat_covar_names: tuple[str, ...] = ()
    missing_codes: tuple[str, ...] = ()
    intercept: bool = True
    keep: str | None = None
    remove: str | None = None
    transform: str = DEFAULT_TRANSFORM
    grm_list: str | None = None
    grm_id: str | None = None
    map: str | None = None
    ploidy: int = 2
    grm_cutoff: float | None = None
    grm_scale: Literal["standardized", "centered"] = DEFAULT_GRM_SCALE
    grm_maf: float = DEFAULT_GRM_MAF
    grm_geno: float = DEFAULT_GRM_GENO
    grm_extract: str | None = None
    method: Literal["reml", "ml"] = DEFAULT_METHOD
    rank: int | Literal["auto"] | None = None
    trait_design: str | None = None
    loco: bool = False
    pred: str | None = None
    missing: str = DEFAULT_MISSING
    drop_redundant: bool = False
    allow_unconverged: bool = False
    profile: str | None = None
    predict: bool = False
    out: str = DEFAULT_NULL
    common: CommonSettings = field(default_factory=CommonSettings)

    def __post_init__(self) -> None:
        raise_all([*empty_texts(vars(self) | {"log": self.common.log}), *self._problems()])

    @property
    def independent(self) -> bool:
        """Whether the samples are independent, ``--grm none``: C0 = 0."""
        return self.grm == (NO_MATRIX,)

    @property
    def input_paths(self) -> tuple[str, ...]:
        """Every file named as an input."""
        matrices = () if self.independent else self.grm
        named = (self.pheno, *matrices, self.grm_list, self.covar, self.keep, self.remove, self.grm_id, self.map)
        others = (self.grm_extract, self.trait_design, self.pred, *self.common.input_paths)
        return tuple(path for path in (*named, *others) if path is not None)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The file that is written."""
        return (self.out,)

    def _problems(self) -> Iterable[str]:
        yield from stdin_twice(self.input_paths)
        if not self.grm and self.grm_list is None:
            yield "--grm: a value is needed"
        yield from repeated("--grm", self.grm)
        if NO_MATRIX in self.grm and len(self.grm) > 1:
            yield "--grm none: the samples are independent; leave out the other --grm"
        yield from repeated("--pheno-name", self.pheno_names)
        yield from repeated("--pheno-long", self.pheno_long)
        if 0 < len(self.pheno_long) < 3:
            yield "--pheno-long: name three columns or more: of lines, of environments, of values"
        yield from repeated("--covar-name", self.covar_names)
        yield from repeated("--cat-covar", self.cat_covar_names)
        if self.covar is None:
            given = {"--covar-name": self.covar_names, "--cat-covar": self.cat_covar_names}
            yield from (f"{option} needs --covar" for option, names in given.items() if names)
        suffix, compression = split_suffix(self.out)
        if compression or (suffix in (*SUFFIXES, *OTHER_CONTENT) and suffix != ".npz"):
            yield f"--out {self.out}: a null model is an .npz file; choose another suffix"
        if self.independent:
            of_relatives = self._options_of_a_matrix()
            if of_relatives:
                yield f"--grm none: the samples are independent; leave out {', '.join(of_relatives)}"
        if self.pred is not None and (self.loco or self.predict):
            other = "--loco" if self.loco else "--predict"
            yield f"--pred and {other} exclude each other: predictions without a chromosome are taken off the traits"

    def _options_of_a_matrix(self) -> list[str]:
        """Options that were given and have no meaning for independent samples."""
        given = {
            "--grm-list": self.grm_list is not None,
            "--grm-id": self.grm_id is not None,
            "--grm-cutoff": self.grm_cutoff is not None,
            "--rank": self.rank is not None,
            "--loco": self.loco,
            "--predict": self.predict,
        }
        return [option for option, there in given.items() if there] + self.options_of_genotypes

    @property
    def options_of_genotypes(self) -> list[str]:
        """Options that were given and say how a matrix is made of genotypes."""
        given = {
            "--grm-extract": self.grm_extract is not None,
            "--grm-maf": self.grm_maf != DEFAULT_GRM_MAF,
            "--grm-geno": self.grm_geno != DEFAULT_GRM_GENO,
            "--grm-scale": self.grm_scale != DEFAULT_GRM_SCALE,
            "--map": self.map is not None,
            "--ploidy": self.ploidy != 2,
        }
        return [option for option, there in given.items() if there]


@dataclass(frozen=True)
class ScanSettings:
    """What `kron2sum scan` was asked to do.

    - ``geno``, ``geno_list``: genotypes, which are one data set in this order; without both those that the GRM was made
      from.
    - ``ploidy``: None for that of the null model's matrix.
    - ``chromosomes``: as `parse_chromosomes` returns them.
    - ``windows``: size and step in base pairs.
    - ``set_tests``, ``coding``, ``resample``, ``precision``, ``stat``, ``to``: of `SET_TESTS`, `CODINGS`, `RESAMPLING`,
      `PRECISIONS`, `STATISTICS`, `SCAN_FORMATS`.
    - ``covar``: the file that has the covariate of `interaction`; None where the null model has it.
    - ``shard``: (i, n) for the i-th of n parts, counted from 1.
    """

    null: str = DEFAULT_NULL
    geno: tuple[str, ...] = ()
    geno_list: str | None = None
    sample: str | None = None
    bim: str | None = None
    fam: str | None = None
    map: str | None = None
    ploidy: int | None = None
    extract: str | None = None
    exclude: str | None = None
    chromosomes: tuple[tuple[str, ...], ...] = ()
    regions: "tuple[Region, ...]" = ()
    maf: float | None = None
    mac: float | None = None
    max_missing: float | None = None
    min_info: float | None = None
    hwe: float | None = None
    tests: tuple[str, ...] = DEFAULT_TESTS
    sets: str | None = None
    windows: tuple[int, int] | None = None
    founders: bool = False
    set_tests: tuple[str, ...] = DEFAULT_SET_TESTS
    set_weights: str = DEFAULT_SET_WEIGHTS
    set_max_maf: float | None = None
    conditions: tuple[str, ...] = ()
    condition_list: str | None = None
    interaction: str | None = None
    random_slopes: bool = False
    covar: str | None = None
    coding: Literal["additive", "dominant", "recessive", "genotypic"] = DEFAULT_CODING
    bootstrap: int = 0
    resample: Literal["normal", "permute"] = DEFAULT_RESAMPLE
    stepwise: Significance | None = None
    stepwise_kb: float = DEFAULT_STEPWISE_KB
    refit: float = DEFAULT_REFIT
    shard: tuple[int, int] | None = None
    resume: bool = False
    precision: Literal["single", "double"] = DEFAULT_PRECISION
    stat: Literal["lr", "f", "satterthwaite"] = DEFAULT_STAT
    to: str = DEFAULT_SCAN_FORMAT
    out: str = DEFAULT_SCAN
    common: CommonSettings = field(default_factory=CommonSettings)

    def __post_init__(self) -> None:
        raise_all([*empty_texts(vars(self) | {"log": self.common.log}), *self._problems()])

    @property
    def input_paths(self) -> tuple[str, ...]:
        """Every file named as an input."""
        genotypes = (*self.geno, self.geno_list, self.sample, self.bim, self.fam, self.map)
        named = (self.null, *genotypes, self.extract, self.exclude, self.condition_list, self.covar, self.sets)
        return tuple(path for path in (*named, *self.contrasts, *self.common.input_paths) if path is not None)

    @property
    def contrasts(self) -> tuple[str, ...]:
        """The files of contrasts that ``--test`` names."""
        return tuple(path for test in self.tests for path in contrast_files(test))

    @property
    def signals_path(self) -> str:
        """The table of signals that belongs to the result table: its name with ``.signals.tsv``."""
        return f"{self.out}.signals.tsv"

    @property
    def outputs(self) -> tuple[str, ...]:
        """Every table that is written."""
        return (self.out,) if self.stepwise is None else (self.out, self.signals_path)

    def _problems(self) -> Iterable[str]:
        yield from stdin_twice(self.input_paths)
        yield from self._genotype_problems()
        yield from (problem for test in self.tests for problem in naming_problems(test))
        yield from repeated("--test", (test.partition("=")[0] for test in self.tests))
        yield from self._set_problems()
        yield from self._condition_problems()
        yield from self._column_problems()
        yield from self._statistic_problems()
        drawn = [name for name in self.set_tests if name in ("skato", "lr")] if self.bootstrap and self.of_sets else []
        if drawn:
            yield (
                f"--bootstrap has no thresholds of --set-test {drawn[0]}, which takes milliseconds or more a simulated"
                " scan and set; use skat, burden, acat, omnibus or fixed, or run twice"
            )
        if self.resample != DEFAULT_RESAMPLE and not self.bootstrap:
            yield "--resample needs --bootstrap"
        yield from self._stepwise_problems()
        yield from untrue_suffix(self.out, self.to)

    def _statistic_problems(self) -> Iterable[str]:
        for option in self.beyond_single_effects if self.stat == "satterthwaite" else ():
            yield f"--stat satterthwaite is for effects of variants, not for {option}; run twice"
        if self.stat == "satterthwaite" and self.is_conditioned and self.second_test is not None:
            yield (
                "--stat satterthwaite goes with --condition, or with --interaction and --coding genotypic, not with"
                " both; run twice"
            )

    def _stepwise_problems(self) -> Iterable[str]:
        if self.stepwise is None:
            if self.stepwise_kb != DEFAULT_STEPWISE_KB:
                yield "--stepwise-kb needs --stepwise"
            return
        if self.of_sets:
            yield "--stepwise is for variants, not for --sets, --windows and --founders; run twice"
        if self.interaction is not None or self.coding != DEFAULT_CODING:
            yield "--stepwise is for additive effects; leave out --interaction and --coding, or run twice"
        if self.shard is not None:
            yield (
                "--stepwise needs all variants of a locus, which may lie in two shards: divide the scan by chromosomes"
                " (--chr), or scan the shards without it"
            )
        if self.out == STDIO:
            yield "--stepwise needs --out FILE: it writes FILE.signals.tsv, too"
        if isinstance(self.stepwise, GenomeWide) and self.bootstrap < self.stepwise.least_bootstrap:
            yield f"--stepwise {self.stepwise} needs --bootstrap {self.stepwise.least_bootstrap} or more"

    def _condition_problems(self) -> Iterable[str]:
        yield from repeated("--condition", self.conditions)
        given = "--condition" if self.conditions else "--condition-list"
        if self.is_conditioned and self.refit not in (0.0, DEFAULT_REFIT):
            yield f"{given} and --refit exclude each other; for refits give the variants to fit as covariates"

    def _column_problems(self) -> Iterable[str]:
        if self.covar is not None and self.interaction is None:
            yield "--covar has the covariate of --interaction; covariates of the model belong to fit"
        if self.random_slopes and self.interaction is None:
            yield "--random-slopes needs --interaction: they are slopes on its covariate"
        if self.random_slopes and not self.refit:
            yield "--random-slopes tests the variants that --refit chooses, and --refit is 0"
        if self.interaction is not None and self.coding == "genotypic":
            yield "--interaction and --coding genotypic exclude each other; run twice"
        given = "--interaction" if self.interaction is not None else f"--coding {self.coding}"
        if self.interaction is None and self.coding == DEFAULT_CODING:
            return
        if self.of_sets:
            yield f"{given} is for variants, not for --sets, --windows and --founders; run twice"

    def _set_problems(self) -> Iterable[str]:
        given = {"--sets": self.sets is not None, "--windows": self.windows is not None, "--founders": self.founders}
        named = [option for option, there in given.items() if there]
        if len(named) > 1:
            yield f"{' and '.join(named)} exclude each other; run twice"
        if self.founders and not self.geno and self.geno_list is None:
            yield "--founders belongs to a table of founder probabilities: name it with --geno"
        if self.windows is not None and not 1 <= self.windows[1] <= self.windows[0]:
            size, step = self.windows
            yield f"--windows {size},{step}: the step must lie between 1 and the size"
        if not self.of_sets:
            given = {
                "--set-test": self.set_tests != DEFAULT_SET_TESTS,
                "--set-weights": self.set_weights != DEFAULT_SET_WEIGHTS,
                "--set-max-maf": self.set_max_maf is not None,
            }
            yield from (f"{option} needs --sets, --windows or --founders" for option, there in given.items() if there)
        yield from repeated("--set-test", self.set_tests)
        if (self.windows is not None or self.founders) and self.beta is None:
            yield f"--set-weights: {named[0]} has no column of weights; give beta:A,B"
        elif self.set_weights.startswith("beta:") and self.beta is None:
            yield f"--set-weights {self.set_weights}: must be beta:A,B with two positive numbers, such as beta:1,25"

    @property
    def beyond_single_effects(self) -> list[str]:
        """The options that ask for other tests than those of effects of variants at the null model's C0 and C1."""
        given = {
            "--sets, --windows and --founders": self.of_sets,
            "--bootstrap": bool(self.bootstrap),
            "--random-slopes": self.random_slopes,
        }
        return [option for option, there in given.items() if there]

    @property
    def is_conditioned(self) -> bool:
        """Whether the effects of other variants are in the model."""
        return bool(self.conditions) or self.condition_list is not None

    @property
    def second_test(self) -> str | None:
        """Name of the test of the second column of a variant: its product with a covariate, or its dominance deviation.

        None where variants have none.
        """
        if self.interaction is not None:
            return INTERACTION
        return DOMINANCE if self.coding == "genotypic" else None

    @property
    def of_sets(self) -> bool:
        """Whether sets of variants are tested, not every variant."""
        return self.sets is not None or self.windows is not None or self.founders

    @property
    def beta(self) -> tuple[float, float] | None:
        """A and B of ``--set-weights beta:A,B``; None where the weights are a column of the file of sets."""
        kind, colon, numbers = self.set_weights.partition(":")
        first, comma, second = numbers.partition(",")
        if kind != "beta" or not colon or not comma:
            return None
        try:
            a, b = float(first), float(second)
        except ValueError:
            return None
        return (a, b) if 0 < a < math.inf and 0 < b < math.inf else None

    def _genotype_problems(self) -> Iterable[str]:
        yield from repeated("--geno", self.geno)
        if self.resume and "-" in self.geno:
            yield "--resume needs genotypes that are the same again: give a file in place of --geno -"
        files = {name: getattr(self, name) for name in FILES_OF_GENOTYPES}
        yield from files_without_genotypes(files, self.geno, self.geno_list is not None)


@dataclass(frozen=True)
class ExportSettings:
    """What `kron2sum export` was asked to do.

    The inputs are result tables of scans, or one null model. ``to`` is of `EXPORT_FORMATS`, ``plot`` of `SCAN_PLOTS` or
    `NULL_PLOTS`. ``significance`` is None for `DEFAULT_SIGNIFICANCE`, of sets `FAMILY_WISE` over their number.
    """

    inputs: tuple[str, ...] = (DEFAULT_SCAN,)
    to: str = DEFAULT_EXPORT_FORMAT
    top: int | None = None
    p_below: float | None = None
    sort: str | None = None
    columns: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    traits: tuple[str, ...] = ()
    digits: int | None = None
    plot: str | None = None
    report: str | None = None
    null: str | None = None
    leads: bool = False
    geno: tuple[str, ...] = ()
    sample: str | None = None
    bim: str | None = None
    fam: str | None = None
    map: str | None = None
    clump_kb: float = DEFAULT_CLUMP_KB
    clump_r2: float | None = None
    significance: Significance | None = None
    allow_gaps: bool = False
    maf_classes: bool = False
    fdr: bool = False
    check: bool = False
    out: str = STDIO
    common: CommonSettings = field(default_factory=CommonSettings)

    def __post_init__(self) -> None:
        raise_all([*empty_texts(vars(self) | {"log": self.common.log}), *self._problems()])

    @property
    def input_paths(self) -> tuple[str, ...]:
        """Every file named as an input."""
        contrasts = (path for test in self.tests for path in contrast_files(test))
        named = (path for path in (self.null, *self.files_of_genotypes.values()) if path is not None)
        return (*self.inputs, *contrasts, *self.geno, *named, *self.common.input_paths)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The files that are written, beside those that are named after traits."""
        return (self.out,) if self.report is None else (self.out, self.report)

    @property
    def files_of_genotypes(self) -> dict[str, str | None]:
        """Files of samples and variants that belong to ``--geno``, by their options."""
        return {name: getattr(self, name) for name in FILES_OF_GENOTYPES}

    @property
    def least_r2(self) -> float:
        """The least r² of a variant with its lead variant."""
        return DEFAULT_CLUMP_R2 if self.clump_r2 is None else self.clump_r2

    @property
    def goes_by_p(self) -> bool:
        """Whether the P of the test of any effect chooses or sorts the rows of a table."""
        return self.top is not None or self.p_below is not None or self.sort == "p"

    @property
    def is_view(self) -> bool:
        """Whether a picture, a page or GWAS-SSF files are asked for, rather than one table."""
        return self.plot is not None or self.report is not None or self.to == "ssf"

    def _problems(self) -> Iterable[str]:
        if not self.inputs:
            yield "no file to export"
        if self.plot is not None and self.out == STDIO:
            yield "--plot needs --out FILE.png, .svg or .pdf"
        if self.to == "ssf" and self.out == STDIO:
            yield "--to ssf needs --out FILE: it writes a file a trait, FILE with the trait before its suffix"
        if self.plot is not None and self.report is not None:
            yield "--plot and --report exclude each other; run twice"
        yield from self._clump_problems()
        rows = ("top", "p_below", "sort", "leads", "fdr", "columns", "tests", "digits")
        ignored = [f"--{name.replace('_', '-').replace('tests', 'test')}" for name in rows if getattr(self, name)]
        if self.plot in TEST_PLOTS:
            ignored = [name for name in ignored if name != "--test"]
        if self.maf_classes and self.report is None and self.plot != "qq":
            yield "--maf-classes belongs to --plot qq and to --report"
        if self.check and (self.is_view or self.out != STDIO or ignored):
            yield f"--check writes nothing; leave out {', '.join(['--out, --plot, --report', *ignored])}"
        elif self.is_view and ignored:
            yield f"{', '.join(ignored)}: for tables only, not for --plot, --report or --to ssf"
        yield from stdin_twice(self.input_paths)
        named = (test for test in self.tests if test not in TESTS_OF_SCAN)
        yield from (problem for test in named for problem in naming_problems(test))
        yield from repeated("--test", (test.partition("=")[0] for test in self.tests))
        yield from repeated("input files", (path for path in self.inputs if path != STDIO))
        if self.plot is None and self.report is None:
            yield from untrue_suffix(self.out, self.to)

    def _clump_problems(self) -> Iterable[str]:
        has_leads = self.leads or self.report is not None or self.plot in LEAD_PLOTS
        if not self.leads and not self.is_view:
            given = {"significance": self.significance is not None, "clump-kb": self.clump_kb != DEFAULT_CLUMP_KB}
            for name in (name for name, there in given.items() if there):
                yield f"--{name} is for lead variants (--leads), pictures and reports; rows are chosen by --p-below"
        if self.geno and not has_leads:
            yield f"--geno is for lead variants: of --leads, --report, and --plot {', '.join(LEAD_PLOTS)}"
        if self.null is not None and self.report is None and not self.geno:
            yield "--null belongs to --report and to --geno"
        if self.clump_r2 is not None and not self.geno:
            yield "--clump-r2 needs the genotypes (--geno)"
        yield from repeated("--geno", self.geno)
        yield from files_without_genotypes(self.files_of_genotypes, self.geno)
        if self.report is not None and self.out != STDIO:
            yield f"--report {self.report} names the page: leave out --out {self.out}"
