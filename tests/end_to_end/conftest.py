"""A fit and a scan of example_data, made once, through the command line."""

from pathlib import Path

import pytest
from example_commands import EXAMPLE, kron2sum, scan


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


@pytest.fixture
def few_simulated_traits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bartlett factors from four traits: for tests that do not depend on how well a factor is known."""
    for limit in ("FEWEST_TRAITS", "MOST_TRAITS"):
        monkeypatch.setattr(f"kron2sum_cli.model.bartlett.{limit}", 4)
