"""`kron2sum fit`."""

from typing import Any

import click

from kron2sum_cli import settings as defaults
from kron2sum_cli.cli.command import GroupedCommand
from kron2sum_cli.cli.options import (
    RANK,
    common_options,
    count_option,
    file_option,
    flag_option,
    names_option,
    number_option,
    option,
    refuse_terminal,
    settings_from,
)
from kron2sum_cli.settings import FitSettings

SAMPLES = "Traits, covariates and samples"
RELATIONSHIP = "Relationship matrix"
MODEL = "Model"
OUTPUT = "Output"

EXAMPLES = (
    "kron2sum fit --pheno example_data/phenotypes.csv --covar example_data/covariates.csv \\\n"
    "      --grm example_data/genotypes.bed",
    "kron2sum fit --pheno example_data/phenotypes.csv --pheno-name height,weight \\\n"
    "      --grm example_data/genotypes.bed --ml --rank 1 --out height_weight.npz",
)


@click.command(cls=GroupedCommand, examples=EXAMPLES)
@file_option(
    "--pheno",
    default="",
    group=SAMPLES,
    help="Traits: CSV, TSV or white space; FID IID or IID first.  [required]",
)
@names_option("--pheno-name", "pheno_names", group=SAMPLES, help="Traits to analyse, as a,b or a-d.", absent="all")
@names_option(
    "--pheno-long",
    group=SAMPLES,
    help="Columns of a trial with a row a plot, as line,env,value or line,site+year,value: means of lines; "
    "environments become traits.",
)
@file_option("--covar", group=SAMPLES, help="Covariates, in a file like that of the traits.")
@names_option("--covar-name", "covar_names", group=SAMPLES, help="Covariates to use.", absent="all")
@names_option("--cat-covar", "cat_covar_names", group=SAMPLES, help="Covariates that are categories.")
@option("--intercept/--no-intercept", default=True, group=SAMPLES, help="A column of ones among the covariates.")
@names_option("--missing-code", "missing_codes", group=SAMPLES, help="Further words for a missing value.")
@option(
    "--missing",
    type=click.Choice(defaults.MISSING_CHOICES),
    default=defaults.DEFAULT_MISSING,
    group=SAMPLES,
    help="A sample with some traits missing: drop it, or use exactly what was observed of it.",
)
@file_option("--keep", group=SAMPLES, help="Analyse these samples only.")
@file_option("--remove", group=SAMPLES, help="Leave these samples out.")
@option(
    "--transform",
    type=click.Choice(defaults.TRANSFORMS),
    default=defaults.DEFAULT_TRANSFORM,
    group=SAMPLES,
    help="Transformation of each trait.",
)
@flag_option("--drop-redundant", group=SAMPLES, help="Leave out covariates that follow from the others.")
@file_option(
    "--grm",
    multiple=True,
    group=RELATIONSHIP,
    help=".bed, .pgen, .bgen, .vcf, GCTA .grm.bin or .grm.sp, plink2 .rel or .kin0, GEMMA .cXX.txt, a square or sparse "
    "matrix, a table of pairs or of samples by features; repeatable for genotypes in several files; none for "
    "independent samples.  [required]",
)
@file_option("--grm-list", group=RELATIONSHIP, help="Genotypes in several files: a file that names one a line.")
@file_option(
    "--map",
    group=RELATIONSHIP,
    help="Chromosomes and positions of the variants of a table of genotypes, which --grm then is.",
)
@count_option("--ploidy", default=2, group=RELATIONSHIP, help="Copies of a chromosome that a sample has, of genotypes.")
@file_option("--grm-id", group=RELATIONSHIP, help="Samples of a matrix without names: a .fam or a list.")
@number_option("--grm-cutoff", high=1, group=RELATIONSHIP, help="Set all relationships below it to 0, such as 0.05.")
@option(
    "--grm-scale",
    type=click.Choice(defaults.GRM_SCALES),
    default=defaults.DEFAULT_GRM_SCALE,
    group=RELATIONSHIP,
    help="Scale of each variant.",
)
@number_option(
    "--grm-maf",
    high=0.5,
    default=defaults.DEFAULT_GRM_MAF,
    group=RELATIONSHIP,
    help="Smallest minor allele frequency of a variant.",
)
@number_option(
    "--grm-geno",
    high=1,
    default=defaults.DEFAULT_GRM_GENO,
    group=RELATIONSHIP,
    help="Largest share of missing genotypes of a variant.",
)
@file_option("--grm-extract", group=RELATIONSHIP, help="Use these variants only.")
@option("--reml/--ml", "reml", default=True, group=MODEL, help="Restricted or full maximum likelihood.")
@option("--rank", type=RANK, group=MODEL, absent="full", help="Rank of C0, or auto to choose it by a one-sided AIC.")
@file_option("--trait-design", group=MODEL, help="Trait design matrix A.", absent="identity")
@flag_option("--loco", group=MODEL, help="A null model for each chromosome, without its variants.")
@file_option(
    "--pred",
    group=MODEL,
    help="Take polygenic predictions without each chromosome (regenie's _pred.list) off the traits: a null model for "
    "each; with a sparse matrix or --grm none.",
)
@option(
    "--profile",
    type=click.Choice(defaults.PROFILES),
    group=MODEL,
    help="Profile-likelihood intervals of the heritabilities.",
)
@flag_option(
    "--predict",
    group=MODEL,
    help="Predict genetic values and missing traits of all samples of the relationship matrix, for export --to blup.",
)
@file_option("--out", default=defaults.DEFAULT_NULL, group=OUTPUT, help="The null model.")
@flag_option("--allow-unconverged", group=OUTPUT, help="Write the null model even if it did not converge.")
@common_options
@click.pass_context
def fit(ctx: click.Context, /, reml: bool, **values: Any) -> None:
    """Fit the null model: genetic and residual covariance of the traits."""
    settings = settings_from(FitSettings, {**values, "method": "reml" if reml else "ml"})
    refuse_terminal(settings.out)
    from kron2sum_cli.cli.console import session
    from kron2sum_cli.fit.fit import fit_null_model

    with session(ctx, settings) as progress:
        fit_null_model(settings, progress)
