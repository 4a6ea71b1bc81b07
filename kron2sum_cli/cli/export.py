"""`kron2sum export`."""

from typing import Any

import click

from kron2sum_cli import settings as defaults
from kron2sum_cli.cli.command import GroupedCommand
from kron2sum_cli.cli.options import (
    FILE,
    SIGNIFICANCE,
    TEST,
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
from kron2sum_cli.option_values import STDIO, format_of, unknown_suffix
from kron2sum_cli.settings import ExportSettings

ROWS = "Rows"
COLUMNS = "Columns"
PICTURES = "Pictures and reports"
LEADS = "Lead variants (of --leads, pictures and reports)"
OUTPUT = "Output"

EXAMPLES = (
    "kron2sum export | head",
    "kron2sum export scan.parquet --top 10 --columns CHR,POS,SNPID,EA,MLOG10P,'BETA.*'",
    "kron2sum export scan.parquet --p-below 5e-8 --sort position --out hits.csv",
    "kron2sum export shard1.parquet shard2.parquet shard3.parquet --out merged.parquet",
    "kron2sum export null.npz --to json",
    "kron2sum export null.npz --to blup --out predictions.tsv",
    "kron2sum export --check scan.parquet null.npz",
    "kron2sum export scan.parquet --plot manhattan --out manhattan.png",
    "kron2sum export scan.parquet --report scan.html --null null.npz",
    "kron2sum export scan.parquet --leads --geno example_data/genotypes.bed --clump-r2 0.1 --clump-kb 1000",
    "kron2sum export scan.parquet --to ssf --out results.tsv.gz",
)


@click.command(cls=GroupedCommand, examples=EXAMPLES, short_help="Print, join, convert, draw or report results.")
@click.argument("inputs", nargs=-1, type=FILE, metavar="[SCAN.parquet ... | null.npz]")
@count_option("--top", group=ROWS, help="The N variants with the smallest P, in that order.")
@number_option("--p-below", open_ends=True, group=ROWS, metavar="P", help="Variants with a smaller P.")
@option(
    "--sort",
    metavar="KEY",
    group=ROWS,
    absent="order of the genotype file",
    help="position, p, or a column (-COLUMN: the largest first).",
)
@flag_option("--leads", group=ROWS, help="Lead variants only: the strongest of each locus in any test.")
@flag_option("--allow-gaps", group=ROWS, help="Export although parts of the scan are missing.")
@names_option(
    "--columns",
    group=COLUMNS,
    help="Columns in this order; patterns such as 'BETA.*' too; P.NAME for the P of MLOG10P.NAME; cov for all "
    "covariances; pve for shares of variance.",
)
@flag_option("--fdr", group=COLUMNS, help="P of every test adjusted for the false discovery rate, as FDR and FDR.NAME.")
@names_option(
    "--test",
    "tests",
    type=TEST,
    group=COLUMNS,
    help="Further tests, computed from the table: as for kron2sum scan; repeatable. With --plot: the tests to draw.",
)
@names_option("--trait", "traits", group=COLUMNS, help="Leave out the columns of all other traits.")
@option(
    "--plot",
    type=click.Choice((*defaults.SCAN_PLOTS, *defaults.NULL_PLOTS)),
    group=PICTURES,
    help="Draw a picture to --out FILE.png, .svg or .pdf; architecture is of a null model.",
)
@file_option("--report", group=PICTURES, help="Write one self-contained HTML page about the scan.")
@flag_option("--maf-classes", group=PICTURES, help="QQ plots by class of minor allele frequency too.")
@option(
    "--significance",
    type=SIGNIFICANCE,
    absent="5e-8; of sets 0.05 over their number",
    group=LEADS,
    help="Largest P of a lead variant; gw:0.05 for each test's threshold over the whole scan (scan --bootstrap).",
)
@number_option(
    "--clump-kb",
    default=defaults.DEFAULT_CLUMP_KB,
    absent=f"{defaults.DEFAULT_CLUMP_KB:g}",
    metavar="KB",
    group=LEADS,
    help="Variants no farther than this from a lead variant belong to it.",
)
@genotypes_option(
    group=LEADS,
    absent="by distance alone",
    help="Clump by linkage disequilibrium in these genotypes, those of the scan; repeatable.",
)
@genotype_file_options(LEADS)
@number_option(
    "--clump-r2",
    high=1,
    metavar="R2",
    group=LEADS,
    absent=f"{defaults.DEFAULT_CLUMP_R2:g}",
    help="Least r² with the lead variant; needs --geno.",
)
@file_option(
    "--null",
    group=LEADS,
    help="The scan's null model: clumps in the analysed samples, gives the report heritabilities.",
)
@option(
    "--digits",
    type=click.IntRange(1, 17),
    metavar="N",
    group=OUTPUT,
    absent="all",
    help="Significant digits of numbers.",
)
@option(
    "--to",
    type=click.Choice(defaults.EXPORT_FORMATS),
    group=OUTPUT,
    absent="by the suffix of --out, else tsv",
    help="Format; null models go to tsv, csv and json, their predictions to blup (tsv or, by the suffix, csv).",
)
@file_option(
    "--out", default=STDIO, group=OUTPUT, absent="standard output", help="The output; .gz or .zst compresses a table."
)
@flag_option("--check", group=OUTPUT, help="Only check that the files are whole and as they were written.")
@common_options
@click.pass_context
def export(ctx: click.Context, /, inputs: tuple[str, ...], to: str | None, **values: Any) -> None:
    """Print or convert results: tables of scans, joined where there are several, or a null model."""
    is_table, problems = values["plot"] is None and values["report"] is None, list[str]()
    if is_table and to is None:
        problems = unknown_suffix(values["out"], defaults.EXPORT_FORMATS)
    elif not is_table and to is not None:
        problems, to = [f"--to {to}: is for tables, not for --plot and --report; leave it out"], None
    if is_table and problems:  # one complaint of its suffix is enough
        values["out"] = STDIO
    to = to or format_of(values["out"], defaults.EXPORT_FORMATS, defaults.DEFAULT_EXPORT_FORMAT)
    inputs = inputs or (defaults.DEFAULT_SCAN,)
    settings = settings_from(ExportSettings, {**values, "inputs": inputs, "to": to}, problems)
    if settings.to == "parquet":
        refuse_terminal(settings.out)
    from kron2sum_cli.cli.console import session
    from kron2sum_cli.export.export import export as export_results

    with session(ctx, settings) as progress:
        export_results(settings, progress)
