"""`kron2sum export`."""

from typing import Any

import click

from kron2sum_cli.cli.command import GroupedCommand
from kron2sum_cli.cli.console import session
from kron2sum_cli.cli.options import (
    FILE,
    TEST,
    common_options,
    file_option,
    flag_option,
    names_option,
    number_option,
    option,
    refuse_terminal,
    settings_from,
)
from kron2sum_cli.pipeline import settings as defaults
from kron2sum_cli.pipeline.settings import ExportSettings, format_of

ROWS = "Rows"
COLUMNS = "Columns"
PICTURES = "Pictures and reports"
OUTPUT = "Output"

EXAMPLES = (
    "kron2sum export | head",
    "kron2sum export scan.parquet --top 10 --columns CHR,POS,SNPID,EA,MLOG10P,'BETA.*'",
    "kron2sum export scan.parquet --p-below 5e-8 --sort position --out hits.csv",
    "kron2sum export shard1.parquet shard2.parquet shard3.parquet --out merged.parquet",
    "kron2sum export null.npz --to json",
    "kron2sum export --check scan.parquet null.npz",
    "kron2sum export scan.parquet --plot manhattan --out manhattan.png",
    "kron2sum export scan.parquet --report scan.html --null null.npz",
    "kron2sum export scan.parquet --to ssf --out results.tsv.gz",
)


@click.command(cls=GroupedCommand, examples=EXAMPLES)
@click.argument("inputs", nargs=-1, type=FILE, metavar="[SCAN.parquet ... | null.npz]")
@option("--top", type=int, metavar="N", group=ROWS, help="The N variants with the smallest P, in that order.")
@number_option("--p-below", group=ROWS, metavar="P", help="Variants with a smaller P.")
@option(
    "--sort",
    metavar="KEY",
    group=ROWS,
    absent="order of the genotype file",
    help="position, p, or a column (-COLUMN: the largest first).",
)
@flag_option("--allow-gaps", group=ROWS, help="Export although parts of the scan are missing.")
@names_option(
    "--columns", group=COLUMNS, help="Columns in this order; patterns such as 'BETA.*' too; cov for all covariances."
)
@names_option(
    "--test",
    "tests",
    type=TEST,
    group=COLUMNS,
    help="Further tests, computed from the table: as for kron2sum scan; repeatable.",
)
@names_option("--trait", "traits", group=COLUMNS, help="Leave out the columns of all other traits.")
@option("--digits", type=int, metavar="N", group=OUTPUT, absent="all", help="Significant digits of numbers.")
@option(
    "--to",
    type=click.Choice(defaults.EXPORT_FORMATS),
    group=OUTPUT,
    absent="by the suffix of --out, else tsv",
    help="Format; null models go to tsv and json.",
)
@option(
    "--plot",
    type=click.Choice((*defaults.SCAN_PLOTS, *defaults.NULL_PLOTS)),
    group=PICTURES,
    help="Draw a picture to --out FILE.png, .svg or .pdf; architecture is of a null model.",
)
@file_option("--report", group=PICTURES, help="Write one self-contained HTML page about the scan.")
@file_option("--null", group=PICTURES, help="The scan's null model, for the heritabilities of the report.")
@option(
    "--window",
    type=int,
    default=defaults.DEFAULT_WINDOW,
    show_default=True,
    metavar="BASES",
    group=PICTURES,
    help="Variants nearer than this belong to one lead variant.",
)
@number_option(
    "--significance",
    default=defaults.DEFAULT_SIGNIFICANCE,
    show_default=True,
    metavar="P",
    group=PICTURES,
    help="Significance of lead variants.",
)
@file_option("--out", default=defaults.STDIO, group=OUTPUT, absent="standard output", help="The output.")
@flag_option("--check", group=OUTPUT, help="Only check that the files are whole and as they were written.")
@common_options
@click.pass_context
def export(ctx: click.Context, /, inputs: tuple[str, ...], to: str | None, **values: Any) -> None:
    """Print or convert results: tables of scans, joined where there are several, or a null model."""
    to = to or format_of(values["out"], defaults.EXPORT_FORMATS, defaults.DEFAULT_EXPORT_FORMAT)
    inputs = inputs or (defaults.DEFAULT_SCAN,)
    settings = settings_from(ExportSettings, {**values, "inputs": inputs, "to": to})
    if settings.to == "parquet":
        refuse_terminal(settings.out)
    with session(ctx, settings) as progress:
        from kron2sum_cli.pipeline.export import export as export_results

        export_results(settings, progress)
