"""Command lines on example_data, run in this process."""

from pathlib import Path

from kron2sum_cli.cli import run

EXAMPLE = Path(__file__).parents[2] / "example_data"


def kron2sum(*arguments: object) -> int:
    """Run a command line in this process and return its exit code."""
    return run([str(argument) for argument in arguments])


def scan(null: Path, out: Path, *options: object) -> int:
    """Scan example_data."""
    return kron2sum("scan", "-q", "--null", null, "--geno", EXAMPLE / "genotypes.bed", "--out", out, *options)
