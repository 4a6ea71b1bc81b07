"""`kron2sum scan`."""

import os
from typing import Any

import click

from kron2sum_cli import settings as defaults
from kron2sum_cli.cli.command import GroupedCommand
from kron2sum_cli.cli.options import (
    CHROMOSOMES,
    REGION,
    SHARD,
    SIGNIFICANCE,
    TEST,
    WINDOWS,
    common_options,
    count_option,
    file_option,
    flag_option,
    genotype_file_options,
    genotypes_option,
    names_option,
    number_option,
    option,
    refuse_terminal,
    settings_from,
)
from kron2sum_cli.errors import UsageError
from kron2sum_cli.files.outputs import is_stream
from kron2sum_cli.option_values import format_of, unknown_suffix
from kron2sum_cli.settings import ScanSettings

INPUT = "Input"
FILTERS = "Variants (counted on the analysed samples)"
TESTS = "Tests"
OUTPUT = "Output"

EXAMPLES = (
    "kron2sum scan",
    "kron2sum scan --null null.npz --geno example_data/genotypes.bed --chr 1-3 --maf 0.01",
    "kron2sum scan --test common --test specific --out tests.parquet",
    "kron2sum scan --windows 500kb --set-test skat --set-test burden --set-weights beta:1,25 --set-max-maf 0.05",
    "kron2sum scan --condition snp0409 --out given_snp0409.parquet",
    "kron2sum scan --interaction age --out by_age.parquet",
    "kron2sum scan --coding genotypic --out dominance.parquet",
    "kron2sum scan --bootstrap 1000 --out thresholds.parquet",
    "kron2sum scan --stepwise 5e-8 --out signals.parquet",
    "kron2sum scan --shard 1/3 --out shard1.parquet",
    "kron2sum scan --region 1:20000000-30000000 --out - --to tsv | head",
)


@click.command(cls=GroupedCommand, examples=EXAMPLES)
@file_option("--null", default=defaults.DEFAULT_NULL, group=INPUT, help="The null model of kron2sum fit.")
@genotypes_option(
    group=INPUT,
    absent="those of the GRM",
    help="The genotypes; the format is told from the content; repeatable: all files are one data set, in this order.",
)
@file_option("--geno-list", group=INPUT, help="Genotypes in several files: a file that names one a line.")
@genotype_file_options(INPUT)
@count_option(
    "--ploidy", group=INPUT, absent="as fit", help="Copies of a chromosome that a sample has; effects are per copy."
)
@file_option("--extract", group=FILTERS, help="Scan these variants only.")
@file_option("--exclude", group=FILTERS, help="Leave these variants out.")
@names_option("--chr", "chromosomes", type=CHROMOSOMES, group=FILTERS, help="Chromosomes to scan, as 1-5,7,X.")
@names_option("--region", "regions", type=REGION, group=FILTERS, help="A part of a chromosome; repeatable.")
@number_option("--maf", high=0.5, group=FILTERS, help="Smallest minor allele frequency.")
@number_option("--mac", group=FILTERS, help="Smallest minor allele count.")
@number_option("--max-missing", high=1, group=FILTERS, help="Largest share of missing genotypes.")
@number_option("--min-info", high=1, group=FILTERS, help="Smallest imputation quality (INFO) of dosages.")
@number_option("--hwe", high=1, group=FILTERS, help="Smallest P of the exact Hardy-Weinberg test.")
@names_option(
    "--test",
    "tests",
    type=TEST,
    default=defaults.DEFAULT_TESTS,
    group=TESTS,
    absent="any",
    help="any, common, specific, trait:NAME, trait:NAME|OTHERS, only:NAME, axis:K, NAME=FILE for a contrast of "
    "the traits, or NAME=FILE0,FILE1 for nested ones; repeatable.",
)
@file_option(
    "--sets",
    group=TESTS,
    help="Test these sets of variants: a name, then variants or regions, a line; or genes as BED, GFF or GTF.",
)
@option(
    "--windows",
    type=WINDOWS,
    group=TESTS,
    help="Test the variants of windows together: size and step, as 100kb,50kb; without a step they do not overlap.",
)
@flag_option(
    "--founders",
    group=TESTS,
    help="--geno has probabilities of founders, as of R/qtl2, in columns FOUNDER.LOCUS or LOCUS.FOUNDER: test the "
    "founders of a locus together.",
)
@option(
    "--set-test",
    "set_tests",
    type=click.Choice(defaults.SET_TESTS),
    multiple=True,
    default=defaults.DEFAULT_SET_TESTS,
    group=TESTS,
    absent=defaults.FIXED,
    help="How sets are tested: fixed effects; their weighted sum (burden); random effects (skat, lr); the best of skat "
    "and burden (skato); P values of variants combined (acat); skat, burden and acat combined (omnibus); repeatable.",
)
@option(
    "--set-weights",
    default=defaults.DEFAULT_SET_WEIGHTS,
    metavar="WEIGHTS",
    group=TESTS,
    help="Weights of variants in a set: beta:A,B of the minor allele frequency, or a column of --sets.",
)
@number_option("--set-max-maf", high=0.5, group=TESTS, help="Largest minor allele frequency of a variant in a set.")
@option(
    "--condition",
    "conditions",
    multiple=True,
    metavar="ID",
    group=TESTS,
    help="Test variants given this one, whose effects on every trait are in the model; repeatable.",
)
@file_option("--condition-list", group=TESTS, help="Variants to condition on, in a file.")
@option(
    "--interaction",
    metavar="COVARIATE",
    group=TESTS,
    help="Test whether effects of variants differ by this covariate, too, of the null model or of --covar.",
)
@flag_option(
    "--random-slopes",
    group=TESTS,
    help="Refits of the interaction: let genetic and residual variances change with its covariate, too.",
)
@file_option("--covar", group=TESTS, help="A table of samples that has the covariate of --interaction.")
@option(
    "--coding",
    type=click.Choice(defaults.CODINGS),
    default=defaults.DEFAULT_CODING,
    group=TESTS,
    help="Genotypes by effect alleles, by carriers (dominant), by carriers of two (recessive), or by effect alleles "
    "and heterozygotes (genotypic).",
)
@option(
    "--stat",
    type=click.Choice(defaults.STATISTICS),
    default=defaults.DEFAULT_STAT,
    group=TESTS,
    help="Likelihood ratio, F test, or F test that knows how precisely the covariances are known (few samples).",
)
@count_option(
    "--bootstrap",
    least=0,
    default=0,
    metavar="B",
    group=TESTS,
    absent="none",
    help="Thresholds over the whole scan, and P values adjusted for it, from B simulated data sets.",
)
@option(
    "--resample",
    type=click.Choice(defaults.RESAMPLING),
    default=defaults.DEFAULT_RESAMPLE,
    group=TESTS,
    help="How they are simulated: normal errors, or the residuals of the samples in another order.",
)
@option(
    "--stepwise",
    type=SIGNIFICANCE,
    group=TESTS,
    help="After the scan, independent signals to OUT.signals.tsv: in every locus the strongest variant given those "
    "chosen, until none has a smaller P; gw:0.05 for the threshold of --bootstrap.",
)
@number_option(
    "--stepwise-kb",
    default=defaults.DEFAULT_STEPWISE_KB,
    absent=f"{defaults.DEFAULT_STEPWISE_KB:g}",
    metavar="KB",
    group=TESTS,
    help="Variants no farther than this from the strongest of a locus belong to it.",
)
@number_option(
    "--refit",
    high=1,
    default=defaults.DEFAULT_REFIT,
    group=TESTS,
    metavar="P",
    help="Fit variants with a smaller P again, C0 and C1 free; 0 for none, 1 for all.",
)
@option(
    "--precision",
    type=click.Choice(defaults.PRECISIONS),
    default=defaults.DEFAULT_PRECISION,
    group=TESTS,
    help="Precision of the products with genotypes.",
)
@flag_option("--resume", group=OUTPUT, help="Go on with an interrupted scan of the same output.")
@option("--shard", type=SHARD, group=OUTPUT, help="Scan the I-th of N parts; kron2sum export joins them.")
@option(
    "--to",
    type=click.Choice(defaults.SCAN_FORMATS),
    group=OUTPUT,
    absent="by the suffix of --out, else parquet",
    help="Format of the result table.",
)
@file_option("--out", group=OUTPUT, absent=defaults.DEFAULT_SCAN, help="The result table; .gz or .zst compresses it.")
@common_options
@click.pass_context
def scan(ctx: click.Context, /, to: str | None, out: str | None, **values: Any) -> None:
    """Test every variant for effects on the traits."""
    out = f"scan.{to or defaults.DEFAULT_SCAN_FORMAT}" if out is None else out
    problems = unknown_suffix(out, defaults.SCAN_FORMATS) if to is None else []
    to = to or format_of(out, defaults.SCAN_FORMATS, defaults.DEFAULT_SCAN_FORMAT)
    checked = defaults.DEFAULT_SCAN if problems else out  # one complaint of its suffix is enough
    settings = settings_from(ScanSettings, {**values, "to": to, "out": checked}, problems)
    if settings.to == "parquet":
        refuse_terminal(settings.out)
    if settings.stepwise is not None and is_stream(settings.out):
        raise UsageError(f"--stepwise needs --out FILE, not {settings.out}: it writes FILE.signals.tsv, too")
    # A scan has threads of its own; those that BLAS starts as it loads would keep processors busy and never be used.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    from kron2sum_cli.cli.console import session

    if settings.of_sets:
        from kron2sum_cli.scan.sets import scan_sets as run
    else:
        from kron2sum_cli.scan.scan import scan_variants as run

    with session(ctx, settings) as progress:
        run(settings, progress)
