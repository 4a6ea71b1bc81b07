"""Command lines on example_data, run in this process."""

import json
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from kron2sum_cli.cli import run

EXAMPLE = Path(__file__).parents[2] / "example_data"


def kron2sum(*arguments: object) -> int:
    """Run a command line in this process and return its exit code."""
    return run([str(argument) for argument in arguments])


def scan(null: Path, out: Path, *options: object) -> int:
    """Scan example_data."""
    return kron2sum("scan", "-q", "--null", null, "--geno", EXAMPLE / "genotypes.bed", "--out", out, *options)


def table(path: Path) -> pd.DataFrame:
    """The rows of a result table in Parquet."""
    return pq.read_table(path).to_pandas()


def metadata(path: Path) -> dict:
    """What a result table in Parquet says of its scan."""
    return json.loads(pq.read_schema(path).metadata[b"kron2sum"])


def fit_missing_and_independent(folder: Path) -> tuple[Path, Path]:
    """Null models of the traits of example_data: with their missing cells, and of samples that count as unrelated."""
    files = ("--pheno", EXAMPLE / "phenotypes.csv", "--covar", EXAMPLE / "covariates.csv")
    missing, independent = folder / "missing.npz", folder / "families.npz"
    grm = ("--grm", EXAMPLE / "genotypes.bed")
    assert kron2sum("fit", "-q", *files, *grm, "--missing", "exact", "--out", missing) == 0
    assert kron2sum("fit", "-q", *files, "--grm", "none", "--out", independent) == 0
    return missing, independent
