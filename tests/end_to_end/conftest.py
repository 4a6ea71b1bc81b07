"""A fit and a scan of example_data, made once, through the command line as it runs in a process."""

from collections.abc import Callable
from pathlib import Path

import pytest

from kron2sum_cli.cli import run

EXAMPLE = Path(__file__).parents[2] / "example_data"

Command = Callable[..., int]


def kron2sum(*arguments: object) -> int:
    """Run a command line in this process and return its exit code."""
    return run([str(argument) for argument in arguments])


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with null.npz, loco.npz and scan.parquet of example_data."""
    folder = tmp_path_factory.mktemp("example")
    fit = ("fit", "-q", "--pheno", EXAMPLE / "phenotypes.csv", "--covar", EXAMPLE / "covariates.csv")
    grm = ("--grm", EXAMPLE / "genotypes.bed")
    assert kron2sum(*fit, *grm, "--out", folder / "null.npz") == 0
    assert kron2sum(*fit, *grm, "--loco", "--out", folder / "loco.npz") == 0
    assert scan(folder / "null.npz", folder / "scan.parquet", "--test", "common", "--test", "specific") == 0
    return folder


def scan(null: Path, out: Path, *options: object) -> int:
    """Scan example_data."""
    return kron2sum("scan", "-q", "--null", null, "--geno", EXAMPLE / "genotypes.bed", "--out", out, *options)
