"""Leaving one chromosome out where there are hundreds of contigs."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bed_reader import to_bed
from example_commands import kron2sum

N, CONTIGS = 40, 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two traits, and two variants on every contig."""
    folder = tmp_path_factory.mktemp("contigs")
    rng = np.random.default_rng(6)
    names = [f"s{i}" for i in range(N)]
    genotypes = rng.binomial(2, 0.4, size=(N, 2 * CONTIGS)).astype(float)
    contigs = np.repeat([f"scaffold_{k}" for k in range(CONTIGS)], 2)
    properties = {"fid": names, "iid": names, "chromosome": contigs, "sid": [f"m{k}" for k in range(2 * CONTIGS)]}
    to_bed(folder / "g.bed", np.asfortranarray(genotypes), properties=properties)
    Y = genotypes @ rng.normal(size=(2 * CONTIGS, 2)) / 5 + rng.normal(size=(N, 2))
    pd.DataFrame(Y, names, ["a", "b"]).rename_axis("IID").to_csv(folder / "y.csv")
    return folder


def test_contigs_share_null_models(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit = ("fit", "--pheno", folder / "y.csv", "--grm", folder / "g.bed", "--threads", "1")
    assert kron2sum(*fit, "--loco", "--out", folder / "loco.npz") == 0
    said = capsys.readouterr().err
    assert "120 chromosomes with less than a fiftieth of the variants are left out in 40 groups, such as" in said
    assert "scaffold_0, scaffold_1, scaffold_2" in said
    geno = ("--geno", folder / "g.bed", "--refit", "0", "--precision", "double", "--threads", "1")
    assert kron2sum("scan", "-q", "--null", folder / "loco.npz", *geno, "--out", folder / "loco.parquet") == 0
    found = pd.read_parquet(folder / "loco.parquet")
    # The group of scaffold_7 by hand: a matrix without the variants of scaffolds 6, 7 and 8.
    others = [f"m{k}" for k in range(2 * CONTIGS) if k // 2 not in (6, 7, 8)]
    (folder / "others").write_text("\n".join(others) + "\n")
    assert kron2sum(*fit, "-q", "--grm-extract", folder / "others", "--out", folder / "hand.npz") == 0
    scan = ("scan", "-q", "--null", folder / "hand.npz", *geno, "--chr", "scaffold_7")
    assert kron2sum(*scan, "--out", folder / "hand.parquet") == 0
    expected = pd.read_parquet(folder / "hand.parquet").select_dtypes("number")
    np.testing.assert_allclose(found[expected.columns][found.CHR == "scaffold_7"], expected, rtol=1e-5, atol=1e-8)
