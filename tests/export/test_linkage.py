"""Lead variants clumped by linkage disequilibrium: r² and loci by NumPy's correlations."""

import json
import logging
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bed_reader import to_bed
from numpy.typing import NDArray

from kron2sum_cli.cli import run
from kron2sum_cli.errors import InputError
from kron2sum_cli.export import loci
from kron2sum_cli.export.loci import GenotypeLinkage, open_linkage

Array = NDArray[np.float64]

N, M = 80, 60
TRAITS = ("a", "b")
SIGNIFICANCE = 0.4


def dosages() -> Array:
    """Two chromosomes of variants, each like the one before; one in thirty missing, the last variant constant."""
    random = np.random.default_rng(4)
    x = np.empty((N, M))
    for j in range(M):
        new = random.binomial(2, random.uniform(0.2, 0.5), N)
        x[:, j] = new if j % 10 == 0 else np.where(random.random(N) < 0.75, x[:, j - 1], new)
    x[random.random((N, M)) < 1 / 30] = np.nan
    x[:, -1] = 1
    return x


X = dosages()
CHROMOSOMES = ["1"] * (M // 2) + ["2"] * (M // 2)
POSITIONS = np.r_[np.arange(1, M // 2 + 1), np.arange(1, M // 2 + 1)] * 10_000


def write_bed(path: Path, variants: slice = slice(None), swapped: bool = False, spelling: str = "") -> str:
    x = np.ascontiguousarray(X[:, variants])
    number = x.shape[1]
    alleles = [np.repeat("A", number), np.repeat("C", number)]
    properties: dict[str, Any] = {
        "fid": [f"f{i}" for i in range(N)],
        "iid": [f"i{i}" for i in range(N)],
        "chromosome": [spelling + code for code in CHROMOSOMES[variants]],
        "sid": [f"v{j}" for j in range(M)][variants],
        "bp_position": POSITIONS[variants],
        "allele_1": alleles[swapped],
        "allele_2": alleles[not swapped],
    }
    to_bed(path, 2 - x if swapped else x, properties=properties, num_threads=1)
    return str(path)


def r2_of(rows: NDArray[np.intp]) -> Array:
    """Squared correlations with missing genotypes at the mean of these samples."""
    x = X[rows]
    x = np.where(np.isnan(x), np.nanmean(x, axis=0), x)[:, :-1]
    return np.asarray(np.corrcoef(x.T) ** 2)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with g.bed, null.npz of 60 of its samples, and scan.parquet."""
    folder = tmp_path_factory.mktemp("scanned")
    write_bed(folder / "g.bed")
    random = np.random.default_rng(8)
    y = np.nan_to_num(X[:, [4, 37]], nan=1.0) * 0.5 + random.normal(size=(N, 2))
    rows = [f"f{i} i{i} {a} {b}" for i, (a, b) in enumerate(y) if i % 4]
    (folder / "y.txt").write_text("\n".join(["FID IID a b", *rows]))
    fit = ("fit", "--pheno", folder / "y.txt", "--grm", folder / "g.bed", "--out", folder / "null.npz", "-q")
    scan = ("scan", "--null", folder / "null.npz", "--geno", folder / "g.bed", "--refit", "0", "-q")
    for command in (fit, (*scan, "--out", folder / "scan.parquet")):
        assert run([str(word) for word in command]) == 0
    return folder


ANALYSED = np.flatnonzero(np.arange(N) % 4)


def export(scanned: Path, *options: object, significance: float = SIGNIFICANCE) -> int:
    return run(["export", str(scanned / "scan.parquet"), "--significance", str(significance), *map(str, options)])


def leads_by_definition(scanned: Path, r2: Array, least: float, kb: float) -> list[str]:
    """Names of the lead variants in the order of the table: greedy over the smallest p of any test."""
    table = pd.read_parquet(scanned / "scan.parquet")
    scores = table[["MLOG10P", *(f"MLOG10P.{trait}" for trait in TRAITS)]].max(axis=1).to_numpy()
    left = [i for i in np.argsort(-scores, kind="stable").tolist() if scores[i] >= -np.log10(SIGNIFICANCE)]
    assert len(left) > 20
    leads = []
    while left:
        lead, *others = left
        leads.append(lead)
        left = [
            i
            for i in others
            if not (
                CHROMOSOMES[i] == CHROMOSOMES[lead]
                and abs(POSITIONS[i] - POSITIONS[lead]) <= 1000 * kb
                and r2[lead, i] >= least
            )
        ]
    return [f"v{i}" for i in sorted(leads)]


# r²


@pytest.mark.parametrize("cells", [1, 7 * N, 1 << 20])
def test_r2_is_the_squared_correlation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cells: int) -> None:
    monkeypatch.setattr(loci, "_CELLS_AT_ONCE", cells)
    link = open_linkage([write_bed(tmp_path / "g.bed")], "out.html", None)
    others = np.random.default_rng(0).permutation(M - 1)
    expected = r2_of(np.arange(N))
    for lead in (0, 17, 40):
        np.testing.assert_allclose(link.r2(lead, others), expected[lead, others], rtol=0, atol=1e-12)
    assert link.r2(3, np.array([M - 1])).tolist() == [0.0]


@pytest.mark.parametrize("copies", [2, 4])
def test_r2_of_a_table_whose_places_are_in_a_map(tmp_path: Path, copies: int) -> None:
    """Also of polyploids, of which no option tells how many copies they have."""
    names = [f"v{j}" for j in range(M)]
    table = pd.DataFrame(X * copies / 2, columns=names)
    table.insert(0, "IID", [f"i{i}" for i in range(N)])
    table.to_csv("table.csv", index=False, na_rep="NA")
    pd.DataFrame({"marker": names, "chr": CHROMOSOMES, "pos": POSITIONS}).to_csv("map.csv", index=False)
    link = open_linkage(["table.csv"], "out.html", None, {"map": "map.csv"})
    assert link.find(link.genotypes.variants.table).tolist() == list(range(M))
    assert link.genotypes.variants.table["POS"].to_pylist() == POSITIONS.tolist()
    found = link.r2(17, np.arange(M - 1))
    np.testing.assert_allclose(found, r2_of(np.arange(N))[17], rtol=0, atol=1e-12)


def test_variants_of_several_files_are_counted_one_after_the_other(tmp_path: Path) -> None:
    paths = [write_bed(tmp_path / "b.bed", slice(20, None)), write_bed(tmp_path / "a.bed", slice(0, 20))]
    link = open_linkage(paths, "out.html", None)
    whole = open_linkage([write_bed(tmp_path / "g.bed")], "out.html", None)
    table = whole.genotypes.variants.table
    indices = link.find(table)
    assert indices.tolist() == [*range(M - 20, M), *range(M - 20)]
    found, expected = link.r2(int(indices[19]), indices[5:40]), whole.r2(19, np.arange(5, 40))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)


def test_a_variant_is_known_by_name_place_and_alleles_in_any_order(tmp_path: Path) -> None:
    table = open_linkage([write_bed(tmp_path / "g.bed")], "out.html", None).genotypes.variants.table
    other = open_linkage([write_bed(tmp_path / "h.bed", swapped=True, spelling="chr")], "out.html", None)
    assert other.find(table).tolist() == list(range(M))
    moved = table.set_column(1, "POS", pa.array(POSITIONS + 1))
    assert set(other.find(moved).tolist()) == {-1}


# Lead variants of a table


@pytest.mark.parametrize(("least", "kb"), [(0.1, 1000), (0.5, 1000), (0.2, 30), (0, 50)])
def test_leads_are_those_of_the_definition(scanned: Path, least: float, kb: float) -> None:
    options = ("--geno", scanned / "g.bed", "--null", scanned / "null.npz", "--clump-r2", least, "--clump-kb", kb)
    assert export(scanned, "--leads", *options, "--out", "leads.parquet", "-q") == 0
    table = pq.read_table("leads.parquet")
    assert table.column("SNPID").to_pylist() == leads_by_definition(scanned, r2_of(ANALYSED), least, kb)
    record = json.loads(table.schema.metadata[b"kron2sum"])["export"]["leads"]
    assert record == {"significance": SIGNIFICANCE, "clump_kb": kb, "clump_r2": least, "geno": ["g.bed"]}


def test_without_the_null_model_all_samples_count(scanned: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        options = ("--geno", scanned / "g.bed", "--clump-r2", "0.2", "--columns", "SNPID", "--out", "leads.tsv")
        assert export(scanned, "--leads", *options) == 0
    expected = leads_by_definition(scanned, r2_of(np.arange(N)), 0.2, 500)
    assert Path("leads.tsv").read_text().split() == ["SNPID", *expected]
    assert expected != leads_by_definition(scanned, r2_of(ANALYSED), 0.2, 500)
    assert "among the 80 samples of the genotypes" in caplog.text


def test_without_genotypes_leads_are_those_of_the_distance(scanned: Path) -> None:
    assert export(scanned, "--leads", "--clump-kb", 40, "--out", "leads.tsv", "--columns", "SNPID", "-q") == 0
    expected = leads_by_definition(scanned, np.ones((M, M)), 0, 40)
    assert Path("leads.tsv").read_text().split() == ["SNPID", *expected]


def test_leads_can_be_sorted_and_cut_as_other_rows(scanned: Path) -> None:
    assert export(scanned, "--leads", "--top", 2, "--clump-kb", 40, "--out", "top.tsv", "-q") == 0
    table = pd.read_parquet(scanned / "scan.parquet").set_index("SNPID")["MLOG10P"]
    leads = leads_by_definition(scanned, np.ones((M, M)), 0, 40)
    assert list(pd.read_table("top.tsv")["SNPID"]) == list(table[leads].nlargest(2).index)


@pytest.mark.skipif(shutil.which("plink2") is None, reason="plink2 is not installed")
@pytest.mark.parametrize("form", [("g.pgen", "--make-pgen"), ("g.bgen", "--export", "bgen-1.2", "bits=8", "ref-first")])
def test_any_format_of_the_genotypes_gives_the_same_leads(scanned: Path, form: tuple[str, ...]) -> None:
    pytest.importorskip("pgenlib")
    name, *made = form
    plink2 = ["plink2", "--bfile", str(scanned / "g"), *made, "--out", "g", "--silent", "--threads", "1"]
    subprocess.run(plink2, check=True)
    options = ("--null", scanned / "null.npz", "--columns", "SNPID", "--out", "leads.tsv", "-q")
    assert export(scanned, "--leads", "--geno", name, *options) == 0
    expected = leads_by_definition(scanned, r2_of(ANALYSED), 0.1, 500)
    assert Path("leads.tsv").read_text().split() == ["SNPID", *expected]


def test_only_variants_near_leads_are_read(scanned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: set[int] = set()
    r2 = GenotypeLinkage.r2

    def noted(self: GenotypeLinkage, lead: int, others: NDArray[np.intp]) -> Array:
        asked.update([lead, *others.tolist()])
        return r2(self, lead, others)

    monkeypatch.setattr(GenotypeLinkage, "r2", noted)
    options = ("--geno", scanned / "g.bed", "--out", "leads.tsv", "-q")
    assert export(scanned, "--leads", *options, significance=0.1) == 0
    table = pd.read_parquet(scanned / "scan.parquet")
    scores = table[["MLOG10P", *(f"MLOG10P.{trait}" for trait in TRAITS)]].max(axis=1)
    assert asked and asked <= set(np.flatnonzero(scores >= 1).tolist())


# The report and the pictures


def test_the_report_says_how_leads_were_clumped(scanned: Path) -> None:
    pytest.importorskip("matplotlib")
    linked = ("--geno", scanned / "g.bed", "--null", scanned / "null.npz", "--clump-r2", "0.5")
    assert export(scanned, "--report", "linked.html", *linked, "-q") == 0
    page = Path("linked.html").read_text()
    assert "clumped by linkage disequilibrium: a lead variant takes all within 500 kb whose r² with it is 0.5" in page
    assert "among the 60 analysed samples" in page
    for name in leads_by_definition(scanned, r2_of(ANALYSED), 0.5, 500):
        assert f'<th scope="row" class="text">{name}</th>' in page


@pytest.mark.parametrize("plot", ["manhattan", "effects"])
def test_pictures_take_genotypes_too(scanned: Path, plot: str) -> None:
    pytest.importorskip("matplotlib")
    linked = ("--geno", scanned / "g.bed", "--null", scanned / "null.npz")
    assert export(scanned, "--plot", plot, "--out", "linked.svg", *linked, "-q") == 0
    assert export(scanned, "--plot", plot, "--out", "near.svg", "-q") == 0
    assert Path("linked.svg").read_bytes() != Path("near.svg").read_bytes()


# What cannot be


def test_variants_that_the_genotypes_lack_are_named(scanned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_bed(Path("half.bed"), slice(0, 30))
    assert export(scanned, "--leads", "--geno", "half.bed") == 1
    message = capsys.readouterr().err
    assert "half.bed: lacks" in message and "of the" in message and "at 2:" in message
    assert "with alleles A and C; give the genotypes that were scanned" in message


def test_samples_that_the_genotypes_lack_are_named(tmp_path: Path) -> None:
    first = write_bed(tmp_path / "g.bed")
    to_bed(tmp_path / "few.bed", X[:10], properties={"iid": [f"other{i}" for i in range(10)]}, num_threads=1)
    with pytest.raises(InputError, match="few.bed: lacks 80 of the 80 samples of .*such as f0 i0"):
        open_linkage([first, str(tmp_path / "few.bed")], "out.html", None)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--geno", "g.bed"), "--geno is for lead variants"),
        (("--geno", "g.bed", "--plot", "qq", "--out", "q.png"), "--geno is for lead variants"),
        (("--leads", "--clump-r2", "0.2"), "--clump-r2 needs the genotypes"),
        (("--leads", "--geno", "g.bed", "--clump-r2", "2"), "'--clump-r2': 2.0 is not in the range 0<=x<=1"),
        (("--leads", "--clump-kb", "-1"), "'--clump-kb': -1.0 is not in the range x>=0"),
        (("--leads", "--clump-kb", "nan"), "'--clump-kb': nan is not a finite number"),
        (("--leads", "--significance", "0"), "'--significance': '0' is neither a P between 0 and 1 nor gw:LEVEL"),
        (("--leads", "--significance", "1"), "'--significance': '1' is neither a P between 0 and 1 nor gw:LEVEL"),
        (("--leads", "--report", "r.html"), "--leads: for tables only"),
        (("--null", "null.npz"), "--null belongs to --report and to --geno"),
    ],
)
def test_options_that_do_not_go_together(
    options: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["export", "scan.parquet", *options]) == 2
    assert said in capsys.readouterr().err


def test_genotypes_are_never_overwritten(scanned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(scanned / "g.bim", "g.bim")
    shutil.copy(scanned / "g.fam", "g.fam")
    shutil.copy(scanned / "g.bed", "g.bed")
    assert export(scanned, "--leads", "--geno", "g.bed", "--to", "tsv", "--out", "g.bim") == 1
    assert "is also an input" in capsys.readouterr().err
    assert Path("g.bim").read_bytes() == (scanned / "g.bim").read_bytes()
