"""The Snakemake workflow runs as it stands, in shards, and makes what one scan makes."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from command_on_path import ROOT, copy_of_checkout


def test_what_a_data_set_is_made_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    snakefile = (ROOT / "workflows" / "snakemake" / "Snakefile").read_text()
    of_workflow: dict = {"Path": Path}
    exec(snakefile[snakefile.index("BESIDE =") : snakefile.index("rule all:")], of_workflow)
    with_companions = of_workflow["with_companions"]
    files = "a.b.pgen a.b.pvar.zst a.b.psam k.grm.bin k.grm.id v.vcf.gz g.bed g.bim g.fam"
    for name in files.split():
        Path(name).touch()
    assert with_companions("a.b.pgen") == ["a.b.pgen", "a.b.pvar.zst", "a.b.psam"]
    assert with_companions("g.bed") == ["g.bed", "g.bim", "g.fam"]
    assert with_companions("k.grm.bin") == with_companions("k") == ["k.grm.bin", "k.grm.id"]
    assert with_companions("v.vcf.gz") == ["v.vcf.gz"]
    assert with_companions("none") == []
    assert with_companions("absent.bed") == ["absent.bed"]  # Snakemake says that it is missing


@pytest.mark.skipif(find_spec("snakemake") is None, reason="Snakemake is not installed")
def test_the_sharded_workflow_makes_the_bytes_of_one_scan(tmp_path: Path, environment: dict[str, str]) -> None:
    folder = copy_of_checkout(tmp_path, "example_data", "workflows/snakemake") / "workflows" / "snakemake"

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done

    without_pictures = () if find_spec("matplotlib") else ("--config", "pictures=[]", "report=False")
    run(sys.executable, "-m", "snakemake", "--cores", "2", *without_pictures)
    results = folder / "results"
    geno = "../../example_data/genotypes.bed"
    run("kron2sum", "scan", "--null", "results/null.npz", "--geno", geno, "--maf", "0.01", "--out", "one.parquet")
    assert (results / "scan.parquet").read_bytes() == (folder / "one.parquet").read_bytes()
    hits = run("kron2sum", "export", "one.parquet", "--p-below", "5e-8", "--sort", "position")
    assert (results / "hits.tsv").read_text() == hits.stdout
    assert not (results / "shards").exists() or not list((results / "shards").iterdir())
    assert without_pictures or all((results / name).exists() for name in ("manhattan.png", "qq.png", "report.html"))
    # Threads come from the rules.
    assert "threads=2" in (results / "logs" / "fit.log").read_text()
    for part in (1, 2, 3):
        log = (results / "logs" / f"scan-{part}-of-3.log").read_text()
        assert f"shard=({part}, 3)" in log and "threads=1" in log
