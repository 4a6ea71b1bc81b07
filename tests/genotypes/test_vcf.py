"""VCF and BCF: genotypes, dosages, sites of several alleles, ploidies, and files with something wrong."""

import gzip
import io
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from kron2sum_cli.errors import InputError, UsageError
from kron2sum_cli.genotypes.open import is_genotype_file, open_genotype_file
from kron2sum_cli.genotypes.source import SpooledSource
from kron2sum_cli.genotypes.vcf import open_vcf

pytest.importorskip("cyvcf2")

nan = np.nan
HEADER = (
    '##fileformat=VCFv4.3\n##contig=<ID=1>\n##contig=<ID=chrX>\n##FORMAT=<ID=GT,Number=1,Type=String,Description="">\n'
)
DOSAGES = '##FORMAT=<ID=DS,Number=A,Type=Float,Description="">\n##FORMAT=<ID=HDS,Number=.,Type=Float,Description="">\n'


def write(folder: Path, *sites: str, samples: str = "a b c d", dosages: bool = False, name: str = "g.vcf") -> str:
    """A VCF of sites ``CHROM POS ID REF ALT FORMAT genotypes``."""
    columns = f"#CHROM POS ID REF ALT QUAL FILTER INFO FORMAT {samples}"
    lines = [columns] if samples else ["#CHROM POS ID REF ALT QUAL FILTER INFO"]
    for site in sites:
        fields = site.split()
        lines.append(" ".join([*fields[:5], ". . .", *fields[5:]]))
    text = HEADER + (DOSAGES if dosages else "") + "\n".join(lines).replace(" ", "\t") + "\n"
    (folder / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return str(folder / name)


def test_genotypes(tmp_path: Path) -> None:
    path = write(tmp_path, "1 4 v A C GT 0/0 0|1 1/1 ./.", "chrX 5 . GT G GT 0 1 1/0 ./1")
    source = open_vcf(path)
    assert source.variants.table.to_pylist() == [
        {"CHR": "1", "POS": 4, "SNPID": "v", "EA": "C", "NEA": "A"},
        {"CHR": "chrX", "POS": 5, "SNPID": ".", "EA": "G", "NEA": "GT"},
    ]
    assert source.samples.iids == ("a", "b", "c", "d") and source.samples.fids is None and source.files == (path,)
    expected = np.array([[0, 1, 2, nan], [0, 2, 1, nan]]).T
    block = source.read(np.arange(2), np.arange(4))
    np.testing.assert_array_equal(block, expected)
    assert block.dtype == np.float32 and block.flags.f_contiguous
    np.testing.assert_array_equal(source.read(np.array([1]), np.array([2, 0])), [[1], [0]])
    with pytest.raises(IndexError, match="not all below 2"):
        source.read(np.array([2]), np.array([0]))


def test_a_site_with_several_alleles_is_a_variant_for_each(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "1 5 m A C,G,* GT:DS 0/1:0.5,0.25,0 1/2:1,1,0 2/3:.,.,. 3/3:0,0,2",
        "1 7 n A . GT 0/0 0/0 0/0 ./.",
        dosages=True,
    )
    source = open_vcf(path)
    rows = [(row["SNPID"], row["EA"], row["NEA"]) for row in source.variants.table.to_pylist()]
    assert rows == [("m", "C", "A"), ("m", "G", "A"), ("m", "*", "A"), ("n", ".", "A")]
    expected = [[0.5, 1, 0, 0], [0.25, 1, 1, 0], [0, 0, 1, 2], [0, 0, 0, nan]]
    np.testing.assert_array_equal(source.read(np.arange(4), np.arange(4)).T, np.array(expected, np.float32))


def test_dosages_come_before_genotypes(tmp_path: Path) -> None:
    path = write(tmp_path, "1 4 v A C GT:DS 0/0:0.013 0/1:. 1/1:1.7 ./.:0.9", "1 5 w A C DS 1.5 0 . 2", dosages=True)
    expected = np.array([[0.013, 1, 1.7, 0.9], [1.5, 0, nan, 2]], np.float32)
    np.testing.assert_array_equal(open_vcf(path).read(np.arange(2), np.arange(4)).T, expected)


def test_dosages_of_haplotypes(tmp_path: Path) -> None:
    """As minimac4 writes them; DS comes before, and a haploid dosage is doubled."""
    path = write(
        tmp_path,
        "1 4 v A C GT:HDS 0|1:0.2,0.7 1|1:.,. 0|1:0.3,. .|.:0.1,0.2",
        "1 5 w A C HDS 0.25,0.5 . 0.25 1,1",
        "1 6 x A C GT:DS:HDS 0|0:0.5:0.2,0.2 0|1:1:0,1 0|1:1:0,1 0|1:1:0,1",
        "1 7 y A C,G GT:HDS 0|1:0,0.9 0|2:0,0 0|0:0,0 2|2:0,0",
        "X 8 z A C GT:HDS 0:0.25 1:1 0|1:0.25,0.5 .:.",
        dosages=True,
    )
    expected = [
        [0.9, 2, 1, 0.3],
        [0.75, nan, 0.5, 2],
        [0.5, 1, 1, 1],
        [1, 0, 0, 0],
        [0, 1, 0, 2],
        [0.5, 2, 0.75, nan],
    ]
    np.testing.assert_allclose(open_vcf(path).read(np.arange(6), np.arange(4)).T, np.array(expected), rtol=1e-6)


@pytest.mark.parametrize("ploidy", [1, 3, 4, 6, 8])
def test_any_ploidy(tmp_path: Path, ploidy: int) -> None:
    """Copies over the ploidy, times 2: the frequency of an allele is half of its mean, as for diploids."""
    copies = [0, 1, ploidy - 1, ploidy]
    genotypes = " ".join("/".join(["1"] * k + ["0"] * (ploidy - k)) for k in copies)
    source = open_vcf(write(tmp_path, f"1 4 v A C GT {genotypes}"))
    expected = (2 * np.array(copies) / ploidy).astype(np.float32)
    np.testing.assert_allclose(source.read(np.arange(1), np.arange(4))[:, 0], expected, rtol=1e-7)


def test_dosages_of_any_ploidy(tmp_path: Path) -> None:
    """DS counts the alleles that GT has, as plink2 reads it: 0 to 1 of a man's X, which is doubled, 0 to 4 of four."""
    path = write(
        tmp_path,
        "chrX 4 v A C GT:DS 1:0.9 .:0.25 0/1:0.9 1/1:1.9",
        "1 5 w A C GT:DS 0/0/1/1:1.8 1/1/1/1:4 ./././.:3 0/0/0/0:.",
        "1 6 x A C GT:DS .:1.8 0/1:0.9 ./.:1.2 1/1:2",
        "1 7 y A C GT:DS .:1.8 .:0.9 .:1.2 .:.",
        dosages=True,
    )
    expected = np.array([[1.8, 0.5, 0.9, 1.9], [0.9, 2, 1.5, 0], [1.8, 0.9, 1.2, 2], [1.8, 0.9, 1.2, nan]], np.float32)
    np.testing.assert_allclose(open_vcf(path).read(np.arange(4), np.arange(4)).T, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("site", "message"),
    [
        ("1 4 v A C GT:DS 0/0:0 0/1:2.5 0/0:0 0/0:0", "sample 'b' is 2.5, not between 0 and 2, the number of its"),
        (
            "1 4 v A C DS 0 0 -0.1 0",
            "variant v at 1:4: the dosage .DS, or .* of sample 'c' is -0.1, not between 0 and 2",
        ),
        ("1 4 v A C GT:DS 1:1.8 0:0 0/1:1 0/0:0", "sample 'a' is 1.8, not between 0 and 1"),
    ],
)
def test_dosages_that_are_no_number_of_copies(tmp_path: Path, site: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_vcf(write(tmp_path, site, dosages=True))


@pytest.mark.parametrize("alt", ["C", "C,G", "."])
def test_alleles_that_the_site_does_not_have(tmp_path: Path, alt: str) -> None:
    """They would be counted as other alleles than EA."""
    message = r"g.vcf, variant v at 1:4: the genotype \(GT\) of sample 'c' has allele 3, and the ALT alleles"
    with pytest.raises(InputError, match=message):
        open_vcf(write(tmp_path, f"1 4 v A {alt} GT 0/0 ./. 0/3 0/0"))


@pytest.mark.parametrize("name", ["g.vcf", "g.vcf.gz", "data"])
def test_told_from_the_content(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, "1 4 v A C GT 0/0 0/1 1/1 ./.", name=name)
    assert is_genotype_file(path) and isinstance(open_genotype_file(path), SpooledSource)
    if name == "g.vcf":
        assert is_genotype_file(str(tmp_path / "g")) and open_genotype_file(str(tmp_path / "g")).path == path


def test_threads_read_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    calls = np.array(["0/0", "0/1", "1/1", "./."])[rng.integers(0, 4, (60, 4))]
    source = open_vcf(write(tmp_path, *(f"1 {j + 1} v{j} A C GT " + " ".join(row) for j, row in enumerate(calls))))
    blocks = [np.arange(start, start + 10) for start in range(0, 60, 10)] * 20
    alone = [source.read(block, np.array([3, 1])) for block in blocks]
    with ThreadPoolExecutor(4) as pool:
        for one, other in zip(alone, pool.map(lambda block: source.read(block, np.array([3, 1])), blocks), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("sites", "samples", "message"),
    [
        (["1 x v A C GT 0/0 0/1 1/1 ./."], "a b c d", r"g\.vcf, line 6 \(1 x v A C \.\.\.\) is not a site"),
        (["1 4 v A C GT 0/0 0/1 1/1 1/1", "1 5 w A C GT 0/x 0/1 1/1 1/1"], "a b c d", r"line 7 \(1 5 w A C "),
        (["1 4 v A C GT 0/0 0/1 1/1"], "a b c d", "line 6 has 12 columns with tabs between, and the header 13; "),
        (["1 4 v A C GT"], "a b c d", "line 6 has 9 columns"),
        (
            ["1 4 v A C GT 0/0 0/1 1/1 1/1 0/1"],
            "a b c d",
            "line 6 has 14 columns with tabs between, and the header 13; ",
        ),
        ([], "a b c d", "has no variant"),
        (["1 4 v A C"], "", "has no samples, only sites"),
        (["1 4 v A C GT 0/0 0/1 1/1 1/1"], "a b c b", "cannot be read as VCF"),
        (["1 4 v A C DP 3 4 5 6"], "a b c d", "has no variant with genotypes"),
    ],
)
def test_what_is_refused(tmp_path: Path, sites: list[str], samples: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_vcf(write(tmp_path, *sites, samples=samples))


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(("added", "message"), [("\n\n", "7 is empty; remove it"), ("1 5 w", "7 has 1 columns")])
def test_lines_at_the_end(tmp_path: Path, added: str, message: str, compressed: bool) -> None:
    path = Path(write(tmp_path, "1 4 v A C GT 0/0 0/1 1/1 1/1"))
    text = (path.read_text() + added).encode()
    path.write_bytes(gzip.compress(text) if compressed else text)
    with pytest.raises(InputError, match=rf"g\.vcf, line {message}"):
        open_vcf(str(path))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("b", "b\xe9", "the name of sample 'b\ufffd' is not UTF-8; convert"),
        ("w", "\xfcw", "variant \ufffdw at 1:5 is not"),
    ],
)
def test_names_that_are_not_utf_8(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = Path(write(tmp_path, "1 4 v A C GT 0/0 0/1 1/1 1/1", "1 5 w A C GT 0/0 0/1 1/1 1/1"))
    path.write_bytes(path.read_text().replace(f"\t{old}\t", f"\t{new}\t").encode("latin1"))
    with pytest.raises(InputError, match=rf"g\.vcf: .*{message}"):
        open_vcf(str(path))


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "g.vcf").touch()
    with pytest.raises(InputError, match=r"g\.vcf is empty; check the command"):
        open_vcf(str(tmp_path / "g.vcf"))


def test_tabs_at_the_end_are_no_columns(tmp_path: Path) -> None:
    path = Path(write(tmp_path, "1 4 v A C GT 0/0 0/1 1/1 1/1"))
    path.write_text(path.read_text()[:-1] + "\t\n")
    np.testing.assert_array_equal(open_vcf(str(path)).read(np.arange(1), np.arange(4)).T, [[0, 1, 2, 2]])


def test_a_line_of_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(write(tmp_path, "1 4 v A C GT 0/0 0/1 1/1"), "rb") as file:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(file.read())))
    with pytest.raises(InputError, match="^standard input, line 6 has 12 columns"):
        open_genotype_file("-")


def test_sites_without_genotypes_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = open_vcf(write(tmp_path, "1 4 v A C DP 3 4 5 6", "1 5 w A C GT 0/0 0/1 1/1 1/1"))
    assert source.variants.table["SNPID"].to_pylist() == ["w"]
    np.testing.assert_array_equal(source.read(np.arange(1), np.arange(4))[:, 0], [0, 1, 2, 2])
    assert "1 site without genotypes (GT) and dosages (DS, HDS) left out, first v at 1:4" in caplog.text


def test_probabilities_that_are_not_read_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    field = '##FORMAT=<ID=GP,Number=G,Type=Float,Description="Probabilities">\n'
    for dosages in (True, False):
        path = Path(write(tmp_path, "1 4 v A C GT 0/1 1/1 0/0 0/0", dosages=dosages))
        path.write_text(path.read_text().replace("#CHROM", field + "#CHROM"))
        open_vcf(str(path))
        assert ("has probabilities of genotypes (GP) and no dosages (DS)" in caplog.text) is not dosages


def test_an_info_field_called_ds_is_no_dosage(tmp_path: Path) -> None:
    """GATK's flag for downsampled samples."""
    path = Path(write(tmp_path, "1 5 w A C GT 0/0 0/1 1/1 1/1"))
    path.write_text(
        path.read_text().replace("##FORMAT", '##INFO=<ID=DS,Number=0,Type=Flag,Description="">\n##FORMAT', 1)
    )
    assert not open_vcf(str(path)).has_dosages


def test_the_package_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cyvcf2", None)
    with pytest.raises(InputError, match=r"pip install 'kron2sum-cli\[vcf\]'.*plink2 --vcf FILE dosage=DS"):
        open_vcf(write(tmp_path, "1 4 v A C GT 0/0 0/1 1/1 ./."))


@pytest.mark.parametrize("name", ["g.vcf", "g.vcf.gz"])
def test_standard_input(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "1 4 v A C GT 0/0 0|1 1/1 ./.", name=name)
    with open(path, "rb") as file:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(file.read())))
    source, expected = open_genotype_file("-"), open_vcf(path)
    assert source.path == "standard input" and not source.files
    assert source.samples.iids == expected.samples.iids and source.variants.table.equals(expected.variants.table)
    read = (np.arange(1), np.arange(4))
    np.testing.assert_array_equal(source.read(*read), expected.read(*read))


def test_what_standard_input_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"SNPID,a,b\nv,0,1\n")))
    with pytest.raises(InputError, match=r"^standard input is no VCF or BCF, .* give a path"):
        open_genotype_file("-")
    with pytest.raises(UsageError, match=r"--bim b\.bim belongs to a \.bed, and standard input is a \.vcf"):
        open_genotype_file("-", bim="b.bim")
    path = write(tmp_path, samples="", name="sites.vcf")
    with open(path, "rb") as file:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(file.read())))
    with pytest.raises(InputError, match="^standard input has no samples"):
        open_genotype_file("-")

    def full_disk(prefix: str) -> object:
        return open("/dev/full", "wb", buffering=0)

    monkeypatch.setattr("tempfile.NamedTemporaryFile", full_disk)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"##fileformat=VCFv4.3\n")))
    with pytest.raises(InputError, match="standard input does not fit into .* set TMPDIR"):
        open_genotype_file("-")


def test_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(prefix: str) -> object:
        return open("/dev/full", "wb", buffering=0)

    monkeypatch.setattr("tempfile.TemporaryFile", full_disk)
    with pytest.raises(InputError, match="genotypes do not fit into .* set TMPDIR"):
        open_vcf(write(tmp_path, "1 4 v A C GT 0/0 0/1 1/1 ./."))
