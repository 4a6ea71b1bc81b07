"""One data set in every genotype format, converted by plink2: the same variants, alleles and dosages."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import kron2sum_cli
from kron2sum_cli.genotypes.counts import genotype_counts
from kron2sum_cli.genotypes.grm import GrmOptions, relationship_from_genotypes
from kron2sum_cli.genotypes.open import open_genotype_file
from kron2sum_cli.genotypes.source import GenotypeSource

EXAMPLE = Path(kron2sum_cli.__file__).parents[1] / "example_data" / "genotypes"
PGEN_STEP = 2.0**-15
"""A dosage of 2 is 32768 such steps."""

Plink2 = Callable[..., str]

pytestmark = [
    pytest.mark.skipif(shutil.which("plink2") is None, reason="plink2 is not installed"),
    pytest.mark.skipif(not EXAMPLE.with_suffix(".bed").is_file(), reason="there is no example data"),
]


@pytest.fixture
def plink2(tmp_path: Path) -> Plink2:
    """Runs plink2 in a folder of its own; the first argument is the name of the output, which is returned."""
    pytest.importorskip("pgenlib")

    def run(name: str, *arguments: str) -> str:
        out = tmp_path / name.partition(".")[0]
        command = ["plink2", *arguments, "--out", str(out), "--silent", "--threads", "1", "--allow-extra-chr"]
        subprocess.run(command, check=True, cwd=tmp_path, stderr=subprocess.DEVNULL)
        return str(tmp_path / name)

    return run


@pytest.fixture(scope="module")
def example() -> GenotypeSource:
    return open_genotype_file(str(EXAMPLE))


@pytest.fixture
def swapped(plink2: Plink2, example: GenotypeSource, tmp_path: Path) -> str:
    """A .pgen whose REF is what was ALT, for every other variant."""
    names = example.variants.table["SNPID"].to_pylist()[::2]
    alleles = example.variants.table["EA"].to_pylist()[::2]
    new_ref = tmp_path / "new_ref.txt"
    new_ref.write_text("".join(f"{name} {allele}\n" for name, allele in zip(names, alleles, strict=True)))
    ref_allele = ("--ref-allele", "force", str(new_ref), "2", "1")
    return plink2("swapped.pgen", "--bfile", str(EXAMPLE), *ref_allele, "--make-pgen")


def read_all(source: GenotypeSource) -> NDArray[np.float32]:
    return source.read(np.arange(len(source.variants)), np.arange(len(source.samples)))


def names_of(source: GenotypeSource) -> list[list[str]]:
    return [source.variants.table[name].to_pylist() for name in ("CHR", "POS", "SNPID")]


def alleles_of(source: GenotypeSource) -> NDArray[np.str_]:
    """(2, M) EA and NEA."""
    return np.array([source.variants.table[name].to_pylist() for name in ("EA", "NEA")])


def assert_equal(source: GenotypeSource, other: GenotypeSource, atol: float = 0) -> None:
    assert source.samples.iids == other.samples.iids
    assert source.variants.table.equals(other.variants.table)
    np.testing.assert_allclose(read_all(source), read_all(other), rtol=0, atol=atol)


FORMATS = [
    ("g.pgen", ("--make-pgen",)),
    ("g.pgen", ("--make-pgen", "vzs")),
    ("g.pgen", ("--make-bpgen",)),
    ("g.pgen", ("--make-pgen", "format=2")),
    ("g.bgen", ("--export", "bgen-1.2", "bits=8")),
    ("g.bgen", ("--export", "bgen-1.2")),
    ("g.bgen", ("--export", "bgen-1.3", "bits=8")),
    ("g.vcf", ("--export", "vcf", "id-paste=iid")),
    ("g.vcf.gz", ("--export", "vcf", "bgz", "id-paste=iid")),
    ("g.bcf", ("--export", "bcf", "id-paste=iid")),
]


@pytest.mark.parametrize(("name", "arguments"), FORMATS, ids=[" ".join(arguments) for _, arguments in FORMATS])
def test_hard_calls(plink2: Plink2, example: GenotypeSource, name: str, arguments: tuple[str, ...]) -> None:
    source = open_genotype_file(plink2(name, "--bfile", str(EXAMPLE), *arguments))
    assert type(source) is not type(example)
    assert_equal(source, example)
    assert source.samples.fids == (None if ("vcf" in arguments or "bcf" in arguments) else example.samples.fids)
    rows = np.arange(0, len(example.samples), 3)
    expected = relationship_from_genotypes(example, rows, GrmOptions())
    relationship = relationship_from_genotypes(source, rows, GrmOptions())
    assert relationship.counts == expected.counts
    assert relationship.samples.iids == expected.samples.iids
    for matrix, other in ((relationship.G, expected.G), (relationship.K, expected.K)):
        assert (matrix is None) == (other is None)
        if matrix is not None and other is not None:
            np.testing.assert_array_equal(matrix, other)


def test_reference_first_in_bgen_makes_it_the_effect_allele(plink2: Plink2, example: GenotypeSource) -> None:
    arguments = ("--bfile", str(EXAMPLE), "--export", "bgen-1.2", "bits=8", "ref-first")
    source = open_genotype_file(plink2("g.bgen", *arguments))
    np.testing.assert_array_equal(alleles_of(source), alleles_of(example)[::-1])
    np.testing.assert_array_equal(read_all(source), 2 - read_all(example))


def test_swapped_alleles(plink2: Plink2, example: GenotypeSource, swapped: str) -> None:
    stem = swapped.removesuffix(".pgen")
    source = open_genotype_file(swapped)
    assert names_of(source) == names_of(example)
    expected = alleles_of(example)
    expected[:, ::2] = expected[::-1, ::2]
    np.testing.assert_array_equal(alleles_of(source), expected)
    dosages = read_all(example)
    dosages[:, ::2] = 2 - dosages[:, ::2]
    np.testing.assert_array_equal(read_all(source), dosages)
    eaf, other = genotype_counts(dosages).eaf, genotype_counts(read_all(example)).eaf
    np.testing.assert_allclose(eaf[::2], 1 - other[::2], rtol=1e-12)
    assert_equal(open_genotype_file(plink2("s.bgen", "--pfile", stem, "--export", "bgen-1.2", "bits=8")), source)
    assert_equal(open_genotype_file(plink2("s.bed", "--pfile", stem, "--make-bed")), source)


def test_frequencies_are_those_of_plink2(plink2: Plink2, swapped: str) -> None:
    source = open_genotype_file(swapped)
    table = plink2("f.afreq", "--pfile", swapped.removesuffix(".pgen"), "--freq", "--nonfounders")
    lines = [line.split() for line in Path(table).read_text().splitlines()]
    columns = {name: i for i, name in enumerate(lines[0])}
    assert [line[columns["ALT"]] for line in lines[1:]] == source.variants.table["EA"].to_pylist()
    expected = [float(line[columns["ALT_FREQS"]]) for line in lines[1:]]
    np.testing.assert_allclose(genotype_counts(read_all(source)).eaf, expected, rtol=1e-5)


def test_dosages(plink2: Plink2, example: GenotypeSource, tmp_path: Path) -> None:
    bgen = pytest.importorskip("bgen")
    n, m = len(example.samples), 300
    probabilities = np.random.default_rng(0).dirichlet((1, 1, 1), (m, n))
    probabilities[np.random.default_rng(1).random((m, n)) < 0.05] = np.nan
    truth = tmp_path / "truth.bgen"
    with bgen.BgenWriter(str(truth), n, samples=list(example.samples.iids), compression="zlib") as writer:
        for j, p in enumerate(probabilities):
            writer.add_variant("v", f"rs{j}", "1", j + 1, ["A", "G"], p, bit_depth=16)
    source = open_genotype_file(str(truth))
    np.testing.assert_allclose(read_all(source), (2 * probabilities[..., 0] + probabilities[..., 1]).T, atol=4e-5)
    pgen = plink2("d.pgen", "--bgen", str(truth), "ref-last", "--make-pgen")
    dosages = open_genotype_file(pgen)
    assert_equal(dosages, source, atol=1.01 * PGEN_STEP)
    stem = pgen.removesuffix(".pgen")
    afreq = plink2("q.afreq", "--pfile", stem, "--freq", "cols=+machr2", "--nonfounders")
    lines = [line.split() for line in Path(afreq).read_text().splitlines()]
    quality = [float(line[lines[0].index("MACH_R2")]) for line in lines[1:]]
    np.testing.assert_allclose(genotype_counts(read_all(dosages), quality=True).info, quality, rtol=1e-4)
    for bits, atol in ((16, 2.0**-14), (8, 2 / 255)):
        again = plink2("d.bgen", "--pfile", stem, "--export", "bgen-1.2", f"bits={bits}")
        assert_equal(open_genotype_file(again), dosages, atol)
    for name, kind in (("d.vcf", "vcf"), ("d.bcf", "bcf")):
        again = plink2(name, "--pfile", stem, "--export", kind, "vcf-dosage=DS-force", "id-paste=iid")
        assert_equal(open_genotype_file(again), dosages, 5e-5 if kind == "vcf" else PGEN_STEP)
    first = plink2("r.bgen", "--pfile", stem, "--export", "bgen-1.2", "ref-first")
    np.testing.assert_allclose(read_all(open_genotype_file(first)), 2 - read_all(dosages), atol=2.0**-14)


def test_sex_chromosomes(plink2: Plink2, tmp_path: Path) -> None:
    n, sex = 30, np.random.default_rng(0).integers(1, 3, 30)
    header = "##fileformat=VCFv4.3\n##contig=<ID=X>\n##contig=<ID=Y>\n##contig=<ID=MT>\n"
    columns = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", *(f"i{i}" for i in range(n))]
    rng = np.random.default_rng(1)
    copies = {chromosome: rng.integers(0, 2, (2, n)) for chromosome in ("X", "Y", "MT")}
    expected, lines = [], []
    for chromosome, (one, two) in copies.items():
        diploid = (sex == 2) & (chromosome == "X")
        absent = (sex == 2) & (chromosome == "Y")
        calls = np.where(diploid, [f"{a}/{b}" for a, b in zip(one, two, strict=True)], one.astype(str))
        lines.append(f"{chromosome}\t50000000\tv\tA\tG\t.\t.\t.\tGT\t" + "\t".join(np.where(absent, ".", calls)))
        expected.append(np.where(absent, np.nan, np.where(diploid, one + two, 2 * one)))
    (tmp_path / "x.vcf").write_text(header + "\t".join(columns) + "\n" + "\n".join(lines) + "\n")
    (tmp_path / "sex.txt").write_text("#IID\tSEX\n" + "".join(f"i{i}\t{s}\n" for i, s in enumerate(sex)))
    pgen = plink2("x.pgen", "--vcf", "x.vcf", "--psam", "sex.txt", "--make-pgen")
    stem = pgen.removesuffix(".pgen")
    bgen8 = plink2("x8.bgen", "--pfile", stem, "--export", "bgen-1.2", "bits=8")
    bgen16 = plink2("x16.bgen", "--pfile", stem, "--export", "bgen-1.2")
    for path in (pgen, plink2("xb.bed", "--pfile", stem, "--make-bed"), bgen8, bgen16):
        np.testing.assert_array_equal(read_all(open_genotype_file(path)), np.array(expected).T)


def test_more_than_two_alleles(plink2: Plink2, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = (
        "#CHROM POS ID REF ALT QUAL FILTER INFO FORMAT a b",
        "1 5 m A C,G . . . GT 0/1 1/2",
        "1 9 b A C . . . GT 0/1 1/1",
    )
    vcf = "##fileformat=VCFv4.3\n##contig=<ID=1>\n" + "\n".join(lines).replace(" ", "\t")
    (tmp_path / "m.vcf").write_text(vcf + "\n")
    path = plink2("m.pgen", "--vcf", "m.vcf", "--make-pgen")
    source = open_genotype_file(path)
    assert source.variants.table["SNPID"].to_pylist() == ["b"]
    np.testing.assert_array_equal(read_all(source), [[1], [2]])
    assert "1 of 2 variants left out for more than two alleles, first 'm' at 1:5" in caplog.text
    advice = ("--pfile", path.removesuffix(".pgen"), "--max-alleles", "2", "--make-pgen")
    np.testing.assert_array_equal(read_all(open_genotype_file(plink2("n.pgen", *advice))), read_all(source))
