"""A null model by REML that has no fit by maximum likelihood: the scan goes on, and says that nothing is refitted."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from kron2sum_cli.cli import run


def test_a_scan_without_refits(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Traits of genotypes alone, which REML gives no residual variance; a centred matrix gives ML no maximum."""
    rng = np.random.default_rng(3)
    G = rng.normal(size=(60, 150))
    G -= G.mean(axis=0)
    y = G @ rng.normal(size=(150, 1)) / 12
    table = ["FID,IID,t", *(f"f{i},i{i},{y[i, 0]:.12g}" for i in range(60))]
    (folder / "alone.csv").write_text("\n".join(table) + "\n")
    columns = [f"c{j}" for j in range(150)]
    rows = (f"f{i},i{i}," + ",".join(f"{x:.12g}" for x in G[i]) for i in range(60))
    (folder / "G.csv").write_text("FID,IID," + ",".join(columns) + "\n" + "\n".join(rows) + "\n")
    assert run(["fit", "-q", "--pheno", "alone.csv", "--grm", "G.csv", "--out", "a.npz"]) == 0
    assert capsys.readouterr().err == ""
    assert run(["scan", "-q", "--null", "a.npz", "--geno", "g.bed", "--refit", "1", "--out", "a.parquet"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "warning: no variants are refitted: by maximum likelihood, which refits need, " in line
    found = pq.read_table(folder / "a.parquet")
    assert found["MLOG10P_REFIT"].null_count == found["BETA_REFIT.t"].null_count == len(found)
    assert run(["scan", "-q", "--null", "a.npz", "--geno", "g.bed", "--refit", "0", "--out", "b.parquet"]) == 0
    without = pq.read_table(folder / "b.parquet")
    assert without["CHISQ"].null_count < len(without)
    assert found["CHISQ"].equals(without["CHISQ"])
