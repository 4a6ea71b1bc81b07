"""The genotype files that people bring give the result table of the .bed, from the command line."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from example_commands import EXAMPLE, kron2sum, scan

from kron2sum_cli.files.null_file import read_null

GENOTYPES = EXAMPLE / "genotypes"

pytestmark = pytest.mark.skipif(shutil.which("plink2") is None, reason="plink2 is not installed")


def plink2(*arguments: object) -> None:
    subprocess.run(["plink2", "--silent", "--threads", "1", *map(str, arguments)], check=True, capture_output=True)


def table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, sep="\t", dtype={"CHR": str})


def without_quality(rows: pd.DataFrame) -> pd.DataFrame:
    """The table without the quality of dosages, which is empty as all genotypes are certain."""
    if "INFO" not in rows:
        return rows
    assert rows["INFO"].isna().all()
    return rows.drop(columns="INFO")


@pytest.fixture(scope="module")
def expected(example: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The scan of the whole .bed, as text."""
    out = tmp_path_factory.mktemp("expected") / "s.tsv"
    assert scan(example / "null.npz", out, "--refit", "0") == 0
    return table(out)


@pytest.fixture(scope="module")
def chromosomes(expected: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The example in one .bed a chromosome."""
    folder = tmp_path_factory.mktemp("chromosomes")
    codes = list(dict.fromkeys(expected["CHR"]))
    for code in codes:
        plink2("--bfile", GENOTYPES, "--chr", code, "--make-bed", "--out", folder / f"chr{code}")
    return [folder / f"chr{code}.bed" for code in codes]


def test_one_file_a_chromosome(example: Path, chromosomes: list[Path], expected: pd.DataFrame, tmp_path: Path) -> None:
    out = tmp_path / "s.tsv"
    named = [word for path in chromosomes for word in ("--geno", path)]
    assert kron2sum("scan", "-q", "--null", example / "null.npz", "--refit", "0", "--out", out, *named) == 0
    pd.testing.assert_frame_equal(table(out), expected)
    listed = tmp_path / "files.txt"
    listed.write_text("".join(f"{path}\n" for path in chromosomes))
    again = tmp_path / "t.tsv"
    options = ("--geno-list", listed, "--refit", "0", "--out", again)
    assert kron2sum("scan", "-q", "--null", example / "null.npz", *options) == 0
    assert again.read_bytes() == out.read_bytes()


def test_a_null_model_from_one_file_a_chromosome(
    example: Path, chromosomes: list[Path], expected: pd.DataFrame, tmp_path: Path
) -> None:
    named = [word for path in chromosomes for word in ("--grm", path)]
    files = ("--pheno", EXAMPLE / "phenotypes.csv", "--covar", EXAMPLE / "covariates.csv")
    assert kron2sum("fit", "-q", *files, *named, "--out", tmp_path / "n.npz") == 0
    one, other = (read_null(str(path)).whole for path in (example / "null.npz", tmp_path / "n.npz"))
    assert one.lml == other.lml
    # Without --geno the scan finds all of the files that the matrix was made of.
    assert kron2sum("scan", "-q", "--null", tmp_path / "n.npz", "--refit", "0", "--out", tmp_path / "s.tsv") == 0
    pd.testing.assert_frame_equal(table(tmp_path / "s.tsv"), expected)


def test_matrices_are_not_joined(example: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("IID,x\na,1\nb,2\n")
    pheno = EXAMPLE / "phenotypes.csv"
    files = ("--grm", tmp_path / "a.csv", "--grm", tmp_path / "b.csv", "--out", tmp_path / "n.npz")
    assert kron2sum("fit", "-q", "--pheno", pheno, *files) == 2
    assert "only genotypes may lie in several files" in capsys.readouterr().err


def test_names_in_a_bgen_that_join_fid_and_iid(example: Path, expected: pd.DataFrame, tmp_path: Path) -> None:
    plink2("--bfile", GENOTYPES, "--export", "bgen-1.2", "bits=8", "--out", tmp_path / "g")
    (tmp_path / "g.sample").rename(tmp_path / "other.sample")
    options = ("--null", example / "null.npz", "--refit", "0", "--geno", tmp_path / "g.bgen")
    for more in ((), ("--sample", tmp_path / "other.sample")):
        assert kron2sum("scan", "-q", *options, *more, "--out", tmp_path / "s.tsv") == 0
        pd.testing.assert_frame_equal(without_quality(table(tmp_path / "s.tsv")), expected)
    files = ("--pheno", EXAMPLE / "phenotypes.csv", "--covar", EXAMPLE / "covariates.csv")
    matrix = ("--grm", tmp_path / "g.bgen", "--grm-id", tmp_path / "other.sample")
    assert kron2sum("fit", "-q", *files, *matrix, "--out", tmp_path / "n.npz") == 0
    one, other = (read_null(str(path)).whole for path in (example / "null.npz", tmp_path / "n.npz"))
    assert one.lml == other.lml


def test_a_fam_without_fids(example: Path, expected: pd.DataFrame, tmp_path: Path) -> None:
    fam = (EXAMPLE / "genotypes.fam").read_text().splitlines()
    (tmp_path / "zero.fam").write_text("".join("0 " + " ".join(line.split()[1:]) + "\n" for line in fam))
    options = ("--geno", EXAMPLE / "genotypes.bed", "--fam", tmp_path / "zero.fam", "--refit", "0")
    assert kron2sum("scan", "-q", "--null", example / "null.npz", *options, "--out", tmp_path / "s.tsv") == 0
    pd.testing.assert_frame_equal(table(tmp_path / "s.tsv"), expected)


FORMATS = {
    "g.pgen": ("--make-pgen",),
    "g.bgen": ("--export", "bgen-1.2", "bits=8"),
    "g.vcf": ("--export", "vcf"),
    "g.vcf.gz": ("--export", "vcf", "bgz"),
    "g.bcf": ("--export", "bcf"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_table(example: Path, expected: pd.DataFrame, tmp_path: Path, name: str) -> None:
    """To the last digit, as a null model and as a scan: names FID_IID in VCF, as plink2 writes them, too."""
    pytest.importorskip({"g.pgen": "pgenlib", "g.bgen": "bgen"}.get(name, "cyvcf2"))
    plink2("--bfile", GENOTYPES, *FORMATS[name], "--out", tmp_path / "g")
    geno = tmp_path / name
    options = ("--geno", geno, "--refit", "0", "--out", tmp_path / "s.tsv")
    assert kron2sum("scan", "-q", "--null", example / "null.npz", *options) == 0
    pd.testing.assert_frame_equal(without_quality(table(tmp_path / "s.tsv")), expected, rtol=0, atol=0)
    files = ("--pheno", EXAMPLE / "phenotypes.csv", "--covar", EXAMPLE / "covariates.csv", "--grm", geno)
    assert kron2sum("fit", "-q", *files, "--out", tmp_path / "n.npz") == 0
    one, other = (read_null(str(path)).whole for path in (example / "null.npz", tmp_path / "n.npz"))
    assert one.lml == other.lml


@pytest.mark.parametrize(("kind", "suffix"), [("A", "raw"), ("A-transpose", "traw")])
def test_a_table_gives_the_same_table(
    example: Path, expected: pd.DataFrame, tmp_path: Path, kind: str, suffix: str
) -> None:
    """With samples in rows and in columns; the effect allele is the one that is counted."""
    expected[["SNPID", "EA"]].to_csv(tmp_path / "ea.txt", sep="\t", header=False, index=False)
    counted = ("--export-allele", tmp_path / "ea.txt")
    plink2("--bfile", GENOTYPES, "--export", kind, *counted, "--out", tmp_path / "g")
    options = ["--geno", tmp_path / f"g.{suffix}", "--refit", "0", "--out", tmp_path / "s.tsv"]
    options += ["--map", EXAMPLE / "genotypes.bim"] if kind == "A" else []
    assert kron2sum("scan", "-q", "--null", example / "null.npz", *options) == 0
    pd.testing.assert_frame_equal(without_quality(table(tmp_path / "s.tsv")), expected, rtol=0, atol=0)


def test_a_table_with_a_map_is_genotypes_for_the_relationship_matrix_too(tmp_path: Path) -> None:
    """Chromosomes are left out, and the scan finds the table and its map."""
    plink2("--bfile", GENOTYPES, "--chr", "1-2", "--make-bed", "--out", tmp_path / "g")
    plink2("--bfile", tmp_path / "g", "--export", "A", "--out", tmp_path / "g")
    files = ("--pheno", EXAMPLE / "phenotypes.csv", "--covar", EXAMPLE / "covariates.csv", "--loco")
    matrices = {"bed": ("--grm", tmp_path / "g.bed"), "raw": ("--grm", tmp_path / "g.raw", "--map", tmp_path / "g.bim")}
    tables = []
    for name, matrix in matrices.items():
        null, out = tmp_path / f"{name}.npz", tmp_path / f"{name}.tsv"
        assert kron2sum("fit", "-q", *files, *matrix, "--out", null) == 0
        assert kron2sum("scan", "-q", "--null", null, "--refit", "0", "--precision", "double", "--out", out) == 0
        tables.append(table(out)[["CHR", "POS", "SNPID", "MLOG10P"]])
    pd.testing.assert_frame_equal(*tables, rtol=1e-6)


def test_mean_genotypes_for_the_relationship_matrix(example: Path, tmp_path: Path) -> None:
    """BIMBAM, as GEMMA reads it; the samples in a list."""
    plink2("--bfile", GENOTYPES, "--export", "A-transpose", "--out", tmp_path / "g")
    lines = [line.split("\t") for line in (tmp_path / "g.traw").read_text().splitlines()[1:]]
    bimbam = (", ".join([name, counted, other, *cells]) for _, name, _, _, counted, other, *cells in lines)
    (tmp_path / "g.txt").write_text("\n".join(bimbam) + "\n")
    files = ("--pheno", EXAMPLE / "phenotypes.csv", "--covar", EXAMPLE / "covariates.csv")
    matrix = ("--grm", tmp_path / "g.txt", "--grm-id", EXAMPLE / "genotypes.fam")
    assert kron2sum("fit", "-q", *files, *matrix, "--out", tmp_path / "n.npz") == 0
    one, other = (read_null(str(path)).whole for path in (example / "null.npz", tmp_path / "n.npz"))
    assert abs(one.lml - other.lml) < 1e-6


def test_imputation_quality_of_dosages(example: Path, tmp_path: Path) -> None:
    """MaCH's r², as plink2 has it, and the filter by it."""
    names = [line.split()[1] for line in (EXAMPLE / "genotypes.fam").read_text().splitlines()]
    families = [line.split()[0] for line in (EXAMPLE / "genotypes.fam").read_text().splitlines()]
    rng = np.random.default_rng(0)
    columns = [f"{family}_{name}" for family, name in zip(families, names, strict=True)]
    lines = ["##fileformat=VCFv4.3", "##contig=<ID=1>", '##FORMAT=<ID=DS,Number=A,Type=Float,Description="">']
    lines.append("\t".join(["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", *columns]))
    for j in range(30):
        copies = rng.binomial(2, 0.4, len(names))
        blurred = np.clip((1 - j / 40) * copies + j / 40 * 0.8 + rng.normal(0, 0.02, len(names)), 0, 2)
        lines.append(
            "\t".join(["1", str(j + 1), f"v{j}", "A", "C", ".", ".", ".", "DS", *(f"{x:.3f}" for x in blurred)])
        )
    (tmp_path / "d.vcf").write_text("\n".join(lines) + "\n")
    plink2("--vcf", tmp_path / "d.vcf", "dosage=DS", "--freq", "cols=+machr2", "--out", tmp_path / "q")
    expected = pd.read_csv(tmp_path / "q.afreq", sep="\t")["MACH_R2"].to_numpy()
    options = ("--geno", tmp_path / "d.vcf", "--refit", "0", "--out", tmp_path / "s.tsv")
    assert kron2sum("scan", "-q", "--null", example / "null.npz", *options) == 0
    n, analysed = len(names), len(read_null(str(example / "null.npz")).samples)
    found = table(tmp_path / "s.tsv")["INFO"].to_numpy()
    assert n - analysed < 0.2 * n
    np.testing.assert_allclose(found, expected, atol=0.1)
    assert found[0] > 0.9 and found[-1] < 0.2
    assert kron2sum("scan", "-q", "--null", example / "null.npz", *options, "--min-info", "0.5") == 0
    kept = table(tmp_path / "s.tsv")
    assert (kept["INFO"] >= 0.5).all() and len(kept) == (found >= 0.5).sum()


def test_effects_of_tetraploids_are_per_copy(tmp_path: Path) -> None:
    """The same statistics as with copies divided by two, and half of the effects."""
    rng = np.random.default_rng(5)
    copies = rng.binomial(4, rng.uniform(0.2, 0.8, 60), (80, 60))
    y = copies[:, 3] + rng.normal(size=80)
    ids = [f"i{i}" for i in range(80)]
    (tmp_path / "y.csv").write_text("IID,y\n" + "".join(f"{i},{v}\n" for i, v in zip(ids, y, strict=True)))
    for name, values in (("four", copies), ("two", copies / 2)):
        head = "SNPID\tCHR\tPOS\t" + "\t".join(ids) + "\n"
        rows = (f"v{j}\t1\t{j + 1}\t" + "\t".join(map(str, column)) + "\n" for j, column in enumerate(values.T))
        (tmp_path / f"{name}.txt").write_text(head + "".join(rows))
        ploidy = ("--ploidy", "4") if name == "four" else ()
        fit = ("--pheno", tmp_path / "y.csv", "--grm", tmp_path / f"{name}.txt", *ploidy)
        assert kron2sum("fit", "-q", *fit, "--out", tmp_path / f"{name}.npz") == 0
        scanned = ("--null", tmp_path / f"{name}.npz", "--refit", "0", "--mac", "1", "--out", tmp_path / f"{name}.tsv")
        assert kron2sum("scan", "-q", *scanned) == 0
    four, two = (without_quality(table(tmp_path / f"{name}.tsv").drop(columns="INFO")) for name in ("four", "two"))
    for column in ("SNPID", "N"):
        assert (four[column] == two[column]).all()
    for column, factor in (("EAF", 1), ("CHISQ", 1), ("BETA.y", 0.5), ("SE.y", 0.5)):
        np.testing.assert_allclose(four[column], factor * two[column], rtol=2e-4, err_msg=column)
    wrong = ("scan", "-q", "--null", tmp_path / "four.npz", "--hwe", "0.01", "--out", tmp_path / "x.tsv")
    assert kron2sum(*wrong) == 2
