"""What `kron2sum export` was asked to do; see `settings`."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from kron2sum_cli.pipeline.hypothesis_names import contrast_files, naming_problems
from kron2sum_cli.pipeline.settings import (
    DEFAULT_CLUMP_KB,
    DEFAULT_CLUMP_R2,
    DEFAULT_EXPORT_FORMAT,
    DEFAULT_SCAN,
    DEFAULT_SIGNIFICANCE,
    EXPORT_FORMATS,
    LEAD_PLOTS,
    NULL_PLOTS,
    SCAN_PLOTS,
    CommonSettings,
)
from kron2sum_cli.pipeline.settings_rules import (
    STDIO,
    empty_texts,
    not_one_of,
    outside,
    raise_all,
    repeated,
    stdin_twice,
)


@dataclass(frozen=True)
class ExportSettings:
    """What `kron2sum export` was asked to do.

    Attributes
    ----------
    inputs : result tables of scans, or one null model
    to : the output's format, one of `EXPORT_FORMATS`
    top : the number of variants with the smallest P to keep; None for all
    p_below : keep variants with P below it; None for all
    sort : "position", "p", a column, or "-COLUMN" for the largest first; None for the file's order
    columns : names or patterns of the columns to keep (none: all)
    tests : further tests to compute from the tables, as for a scan
    traits : keep these traits' columns and leave out those of the others (none: all)
    digits : significant digits of numbers; None for all
    plot : a picture, one of `SCAN_PLOTS` or `NULL_PLOTS`, instead of a table
    report : an HTML page instead of a table
    null : the null model's file, from which the report has heritabilities with standard errors, and clumping the
        analysed samples
    leads : keep lead variants only
    geno : genotypes to clump lead variants by linkage disequilibrium; none to clump them by distance
    clump_kb : kilobases within which variants belong to one lead variant
    clump_r2 : the least r² with it, with genotypes; None for the default
    significance : P that a lead variant is below
    allow_gaps : merge tables although variants between them are missing
    check : only check that the inputs are as they were written
    out : the output
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
    clump_kb: float = DEFAULT_CLUMP_KB
    clump_r2: float | None = None
    significance: float = DEFAULT_SIGNIFICANCE
    allow_gaps: bool = False
    check: bool = False
    out: str = STDIO
    common: CommonSettings = field(default_factory=CommonSettings)

    def __post_init__(self) -> None:
        raise_all([*empty_texts(self), *self._problems()])

    @property
    def input_paths(self) -> tuple[str, ...]:
        """Every file named as an input."""
        contrasts = (path for test in self.tests for path in contrast_files(test))
        null = () if self.null is None else (self.null,)
        return (*self.inputs, *contrasts, *self.geno, *null, *self.common.input_paths)

    @property
    def least_r2(self) -> float:
        """The least r² of a variant with its lead variant."""
        return DEFAULT_CLUMP_R2 if self.clump_r2 is None else self.clump_r2

    @property
    def is_view(self) -> bool:
        """Whether a picture, a page or GWAS-SSF files are asked for, rather than one table."""
        return self.plot is not None or self.report is not None or self.to == "ssf"

    def _problems(self) -> Iterable[str]:
        if not self.inputs:
            yield "no file to export"
        if self.digits is not None and not 1 <= self.digits <= 17:
            yield f"--digits {self.digits}: must be from 1 to 17"
        if self.plot is not None:
            yield from not_one_of("--plot", self.plot, (*SCAN_PLOTS, *NULL_PLOTS))
        if self.plot is not None and self.out == STDIO:
            yield "--plot needs --out FILE.png, .svg or .pdf"
        if self.to == "ssf" and self.out == STDIO:
            yield "--to ssf needs --out FILE: it writes a file a trait, FILE with the trait before its suffix"
        if self.plot is not None and self.report is not None:
            yield "--plot and --report exclude each other; run twice"
        if self.check and (self.is_view or self.out != STDIO):
            yield "--check writes nothing; leave out --out, --plot and --report"
        yield from self._clump_problems()
        if not 0 < self.significance < 1:
            yield f"--significance {self.significance:g}: must be above 0 and below 1"
        rows = ("top", "p_below", "sort", "leads", "columns", "tests", "digits")
        ignored = [f"--{name.replace('_', '-').replace('tests', 'test')}" for name in rows if getattr(self, name)]
        if self.is_view and ignored:
            yield f"{', '.join(ignored)}: for tables only, not for --plot, --report or --to ssf"
        yield from stdin_twice(self.input_paths)
        yield from (problem for test in self.tests for problem in naming_problems(test))
        yield from repeated("--test", (test.partition("=")[0] for test in self.tests))
        yield from repeated("input files", (path for path in self.inputs if path != STDIO))
        yield from not_one_of("--to", self.to, EXPORT_FORMATS)
        if self.top is not None and self.top < 1:
            yield f"--top {self.top}: must be 1 or more"
        if self.p_below is not None and not self.p_below > 0:
            yield f"--p-below {self.p_below:g}: must be above 0"

    def _clump_problems(self) -> Iterable[str]:
        has_leads = self.leads or self.report is not None or self.plot in LEAD_PLOTS
        if self.geno and not has_leads:
            yield f"--geno is for lead variants: of --leads, --report, and --plot {', '.join(LEAD_PLOTS)}"
        if self.null is not None and self.report is None and not self.geno:
            yield "--null belongs to --report and to --geno"
        if self.clump_r2 is not None and not self.geno:
            yield "--clump-r2 needs the genotypes (--geno)"
        yield from repeated("--geno", self.geno)
        if not 0 <= self.clump_kb < math.inf:
            yield f"--clump-kb {self.clump_kb:g}: must be 0 or more"
        yield from outside("--clump-r2", self.clump_r2 or 0.0, 0, 1)
