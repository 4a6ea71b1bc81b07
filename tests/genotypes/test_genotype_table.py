"""Tables of genotypes: every layout gives the same, and what cannot be one is refused with line and column."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from kron2sum_cli.errors import InputError, UsageError
from kron2sum_cli.genotypes.genotype_table import TableSource, is_no_matrix, open_table, read_map, table_layout
from kron2sum_cli.genotypes.grm import GrmOptions, relationship_from_genotypes
from kron2sum_cli.genotypes.open import is_genotype_file, open_genotype_file, open_genotypes

nan = np.nan
COPIES = np.array([[0, 1, 2, nan], [2, 2, 1, 0], [1, nan, 0, 0]])
"""Three variants in four samples."""

SAMPLES_IN_ROWS = "IID,v1,v2,v3\na,0,2,1\nb,1,2,NA\nc,2,1,0\nd,NA,0,0\n"
VARIANTS_IN_ROWS = (
    "SNPID\tCHR\tPOS\tEA\tNEA\ta\tb\tc\td\n"
    + "v1\t1\t5\tA\tG\t0\t1\t2\tNA\nv2\t1\t9\tC\tT\t2\t2\t1\t0\nv3\tX\t7\tG\tA\t1\tNA\t0\t0\n"
)
HAPMAP = (
    "rs#\talleles\tchrom\tpos\tstrand\tassembly#\tcenter\tprotLSID\tassayLSID\tpanelLSID\tQCcode\ta\tb\tc\td\n"
    + "v1\tG/A\t1\t5\t+\tNA\tNA\tNA\tNA\tNA\tNA\tGG\tAG\tAA\tNN\n"
    + "v2\tT/C\t1\t9\t+\tNA\tNA\tNA\tNA\tNA\tNA\tC\tC\tY\tT\n"
    + "v3\tA/G\tX\t7\t+\tNA\tNA\tNA\tNA\tNA\tNA\tR\tN\tA\tA\n"
)
BIMBAM = "v1, A, G, 0, 1, 2, NA\nv2, C, T, 2, 2, 1, 0\nv3, G, A, 1, NA, 0, 0\n"
RAW = (
    "FID\tIID\tPAT\tMAT\tSEX\tPHENOTYPE\tv1_A\tv2_C\tv3_G\n0\ta\t0\t0\t1\t-9\t0\t2\t1\n0\tb\t0\t0\t1\t-9\t1\t2\tNA\n"
    + "0\tc\t0\t0\t1\t-9\t2\t1\t0\n0\td\t0\t0\t1\t-9\tNA\t0\t0\n"
)
TRAW = VARIANTS_IN_ROWS.replace("SNPID\tCHR\tPOS\tEA\tNEA", "SNP\tCHR\tPOS\tCOUNTED\tALT")
MAPS = {
    "x.csv": "marker,chromosome,position,A1,A2\nv1,1,5,A,G\nv3,X,7,G,A\nv2,1,9,C,T\n",
    "x.bim": "1 v1 0 5 A G\n1 v2 0 9 C T\nX v3 0 7 G A\n",
}
ROWS = [
    {"CHR": "1", "POS": 5, "SNPID": "v1", "EA": "A", "NEA": "G"},
    {"CHR": "1", "POS": 9, "SNPID": "v2", "EA": "C", "NEA": "T"},
    {"CHR": "X", "POS": 7, "SNPID": "v3", "EA": "G", "NEA": "A"},
]


def write(folder: Path, text: str, name: str = "g.txt") -> str:
    (folder / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return str(folder / name)


def read_all(source: TableSource) -> np.ndarray:
    return source.read(np.arange(len(source.variants)), np.arange(len(source.samples)))


@pytest.mark.parametrize(
    ("text", "layout"),
    [
        (SAMPLES_IN_ROWS, "samples in rows"),
        (SAMPLES_IN_ROWS.replace("IID", "taxa").replace(",", "\t"), "samples in rows"),
        (VARIANTS_IN_ROWS, "variants in rows"),
        (VARIANTS_IN_ROWS.replace("\t", " ").replace("SNPID", "marker"), "variants in rows"),
        (HAPMAP, "HapMap"),
        (BIMBAM, "BIMBAM"),
        (BIMBAM.replace(", ", " "), "BIMBAM"),
        (RAW, "samples in rows"),
        (TRAW, "variants in rows"),
    ],
)
@pytest.mark.parametrize("name", ["g.txt", "g.csv.gz"])
def test_every_layout_gives_the_same(tmp_path: Path, text: str, layout: str, name: str) -> None:
    path = write(tmp_path, text, name)
    names = write(tmp_path, "a\nb\nc\nd\n", "names") if layout == "BIMBAM" else None
    positions = write(tmp_path, MAPS["x.csv"], "x.csv")
    assert table_layout(path) == layout
    source = open_table(path, names, positions)
    assert source.samples.iids == ("a", "b", "c", "d") and source.variants.table.to_pylist() == ROWS
    block = read_all(source)
    np.testing.assert_array_equal(block, COPIES.T)
    assert block.dtype == np.float32 and block.flags.f_contiguous
    np.testing.assert_array_equal(source.read(np.array([0, 2]), np.array([3, 1])), COPIES[np.ix_([0, 2], [3, 1])].T)
    assert source.files == tuple(file for file in (path, names, positions) if file is not None)
    assert isinstance(open_genotype_file(path, sample=names, variant_map=positions), TableSource)


@pytest.mark.parametrize("name", MAPS)
def test_maps(tmp_path: Path, name: str) -> None:
    source = open_table(write(tmp_path, SAMPLES_IN_ROWS), map_path=write(tmp_path, MAPS[name], name))
    assert source.variants.table.to_pylist() == ROWS


@pytest.mark.parametrize(
    "text", ["1 v1 0 5\nX v3 0.5 7\n", "v1, 5, 1\nv3, 7, X\n", "Name\tChromosome\tPosition\nv1\t1\t5\nv3\tX\t7\n"]
)
def test_maps_without_alleles(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    """PLINK's .map, GEMMA's annotation, and GAPIT's."""
    source = open_table(write(tmp_path, SAMPLES_IN_ROWS), map_path=write(tmp_path, text, "x.map"))
    expected = [("1", 5, "v1", ".", "."), ("0", 0, "v2", ".", "."), ("X", 7, "v3", ".", ".")]
    assert [tuple(row.values()) for row in source.variants.table.to_pylist()] == expected
    assert "1 of 3 variants have no chromosome and position; give them with --map" in caplog.text


@pytest.mark.parametrize("first", ["", "id", "ID", "name", "Line"])
def test_samples_in_rows_as_r_writes_them(tmp_path: Path, first: str) -> None:
    text = f"{first},m1,m2\na,0,1\nb,2,NA\nc,1,1\n"
    source = open_table(
        write(tmp_path, text, "g.csv"), map_path=write(tmp_path, "marker,chr,pos\nm1,1,5\nm2,2,6\n", "m.csv")
    )
    assert source.samples.iids == ("a", "b", "c")
    assert source.variants.table["SNPID"].to_pylist() == ["m1", "m2"]
    np.testing.assert_array_equal(read_all(source), np.array([[0, 1], [2, nan], [1, 1]], np.float32))


def test_variants_in_rows_whose_map_knows_them(tmp_path: Path) -> None:
    path, places = write(tmp_path, "id,a,b\nm1,0,1\n", "g.csv"), write(tmp_path, "marker,chr,pos\nm1,1,5\n", "m.csv")
    assert open_table(path, map_path=places).samples.iids == ("a", "b")


def test_a_map_that_contradicts_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No place is chosen silently; the same place twice is none."""
    path = write(tmp_path, "SNPID CHR POS\nv1 1 5\nv2 1 6\nv2 1 6\nv1 2 5\n", "m.txt")
    assert {name: (entry.chromosome, entry.position) for name, entry in read_map(path).items()} == {"v2": ("1", 6)}
    assert "1 variant there twice, at different places, first v1 (1:5 and 2:5)" in caplog.text


def test_centimorgans_stand_for_a_million_base_pairs_where_there_are_none(tmp_path: Path) -> None:
    genetic = write(tmp_path, "marker,chr,cM\nv1,1,0\nv2,1,4.25\nv3,X,60.5\n")
    assert [(entry.chromosome, entry.position) for entry in read_map(genetic).values()] == [
        ("1", 1),
        ("1", 4_250_000),
        ("X", 60_500_000),
    ]
    unknown = write(tmp_path, "marker,chr,cM\nv1,1,NA\nv2,NA,4.25\n")
    assert [(entry.chromosome, entry.position) for entry in read_map(unknown).values()] == [("1", 0), ("0", 0)]
    both = write(tmp_path, "marker,chr,cM,bp\nv1,1,4.25,77\n")
    assert read_map(both)["v1"].position == 77


def test_what_the_table_says_comes_before_the_map(tmp_path: Path) -> None:
    other = write(tmp_path, "SNPID,CHR,POS,EA,NEA\nv1,7,7,T,T\n", "m.csv")
    assert open_table(write(tmp_path, VARIANTS_IN_ROWS), map_path=other).variants.table.to_pylist() == ROWS


def test_dosages_and_families(tmp_path: Path) -> None:
    source = open_table(write(tmp_path, "FID IID v1 v2\nf a 0.25 2\nf b 1.5 nan\n"))
    assert source.samples.label(1) == "f b"
    np.testing.assert_array_equal(read_all(source), np.array([[0.25, 2], [1.5, nan]], np.float32))


def test_decimal_commas_between_semicolons(tmp_path: Path) -> None:
    """As spreadsheets and R's write.csv2 write them where a comma is the decimal mark."""
    table = write(tmp_path, '"";"m,1";"m2"\n"a";0,25;1,5e0\n"b";2;NA\n', "g.csv")
    genetic = write(tmp_path, "marker;chr;cM\nm,1;1;4,25\nm2;X;60,5\n", "m.csv")
    source = open_table(table, map_path=genetic)
    assert [tuple(row.values())[:3] for row in source.variants.table.to_pylist()] == [
        ("1", 4_250_000, "m,1"),
        ("X", 60_500_000, "m2"),
    ]
    np.testing.assert_array_equal(read_all(source), np.array([[0.25, 1.5], [2, nan]], np.float32))


def test_minus_one_to_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As rrBLUP codes genotypes."""
    source = open_table(write(tmp_path, "IID,v1,v2\na,-1,1\nb,0,NA\n"))
    np.testing.assert_array_equal(read_all(source), [[0, 2], [1, nan]])
    assert "genotypes are -1 to 1, which is taken for 0 to 2 copies" in caplog.text


def test_hapmap_whose_alleles_are_not_listed(tmp_path: Path) -> None:
    path = write(tmp_path, HAPMAP.replace("G/A", "NA").replace("T/C", "T"))
    source = open_table(path)
    assert [(row["EA"], row["NEA"]) for row in source.variants.table.to_pylist()] == [
        ("G", "A"),
        ("C", "T"),
        ("G", "A"),
    ]
    np.testing.assert_array_equal(read_all(source)[:, :2], np.array([[2, 1, 0, nan], [2, 2, 1, 0]]).T)


@pytest.mark.parametrize(("two", "one"), [("NN", "N"), ("--", "-"), ("00", "0"), ("XX", "x"), ("A-", ".")])
def test_hapmap_without_a_genotype(tmp_path: Path, two: str, one: str) -> None:
    """What the column of alleles does not have is no third allele."""
    source = open_table(write(tmp_path, HAPMAP.replace("\tNN\n", f"\t{two}\n").replace("\tN\t", f"\t{one}\t")))
    assert source.variants.table.to_pylist() == ROWS
    np.testing.assert_array_equal(read_all(source), COPIES.T)


@pytest.mark.parametrize(("alleles", "ea"), [("A/-", "-"), ("-/A", "A")])
def test_hapmap_of_deletions(tmp_path: Path, alleles: str, ea: str) -> None:
    other = alleles.replace("/", "").replace(ea, "")
    calls = f"\t{2 * other}\tA-\t{2 * ea}\tNN\n"
    source = open_table(write(tmp_path, HAPMAP.replace("G/A", alleles).replace("\tGG\tAG\tAA\tNN\n", calls)))
    assert source.variants.table.slice(0, 1).to_pylist() == [ROWS[0] | {"EA": ea, "NEA": other}]
    np.testing.assert_array_equal(read_all(source), COPIES.T)


def test_hapmap_of_insertions_in_one_letter(tmp_path: Path) -> None:
    source = open_table(write(tmp_path, HAPMAP.replace("T/C", "-/+").replace("\tC\tC\tY\tT", "\t+\t+\t0\t-")))
    assert source.variants.table.slice(1, 1).to_pylist() == [ROWS[1] | {"EA": "+", "NEA": "-"}]
    np.testing.assert_array_equal(read_all(source), COPIES.T)


def test_hapmap_of_three_alleles(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = open_table(write(tmp_path, HAPMAP.replace("\tC\tC\tY\tT", "\tC\tG\tY\tT")))
    assert source.variants.table["SNPID"].to_pylist() == ["v1", "v3"]
    np.testing.assert_array_equal(read_all(source), COPIES[[0, 2]].T)
    assert "1 of 3 variants left out for more than two alleles, first 'v2' at 1:9" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            SAMPLES_IN_ROWS.replace("1,2,NA", "1,3,NA"),
            r"line 3, column 3: 3 is not a number of copies \(0 to 2\); write NA",
        ),
        (SAMPLES_IN_ROWS.replace("1,2,NA", "1,1e99,NA"), r"column 3: 1e\+99 is not a number of copies"),
        (SAMPLES_IN_ROWS.replace("1,2,NA", "1,-9,NA"), "line 3, column 3: -9 is not a number of copies"),
        (SAMPLES_IN_ROWS.replace("1,2,NA", "1,AG,NA"), "line 3, column 3: 'AG' is not a number of copies"),
        (SAMPLES_IN_ROWS.replace("1,2,NA", "1,-1,NA"), r"genotypes below 0 \(-1\) and above 1 \(2\)"),
        ("IID,v1,v2\na,-0.01,1\nb,0,NA\n", r"below 0 \(the least is -0.01\), and none near -1, .*; write 0 where"),
        (SAMPLES_IN_ROWS.replace("1,2,NA", "1,2"), "line 3: 3 fields where the header has 4"),
        (SAMPLES_IN_ROWS.replace("\nb,", "\na,"), "line 3: sample 'a' was already in line 2"),
        ("IID,v1\n", "has 0 samples and 1 variants"),
        (VARIANTS_IN_ROWS.replace("\t0\n", "\n", 1), "line 3: 8 fields where 5 columns and 4 samples of .* make 9"),
        (VARIANTS_IN_ROWS.replace("\t9\t", "\tx\t"), "line 3: position 'x' is not a whole number"),
        (HAPMAP.replace("\tGG\tAG", "\tGGG\tAG"), "line 2: 'GGG' is no genotype of one or two letters"),
        ("weight,height\n1,2\n", "is not a genotype file; .* whose first column is IID"),
    ],
)
def test_tables_that_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_genotype_file(write(tmp_path, text))


def test_map_that_is_refused(tmp_path: Path) -> None:
    for text, message in (
        ("a,b,c,d,e\n", "does not name the columns SNPID"),
        ("1 v1 0 x\n", "position 'x'"),
        ("marker,chr,cM\nv1,1,x\n", "line 2: position 'x' is not a number; correct it, or write NA"),
        ("", "is empty"),
    ):
        with pytest.raises(InputError, match=message):
            read_map(write(tmp_path, text))


def test_names_of_samples_needed_and_not_needed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no names of samples: give them with --sample"):
        open_table(write(tmp_path, BIMBAM))
    with pytest.raises(UsageError, match="leave out --sample"):
        open_table(write(tmp_path, HAPMAP), "names")


def test_what_is_not_taken_for_a_relationship_matrix(tmp_path: Path) -> None:
    for text in (HAPMAP, BIMBAM, VARIANTS_IN_ROWS, "Gene\ta\tb\npilA\t0\t1\nfimH\t1\t1\n"):
        path = write(tmp_path, text)
        assert is_no_matrix(path) and is_genotype_file(path)
    for text in (SAMPLES_IN_ROWS, "id,a,b\na,1,0\nb,0,1\n", "1 0\n0 1\n", "a b 0.5\n", "ID1 ID2 KINSHIP\na b 0.1\n"):
        assert not is_genotype_file(write(tmp_path, text))


@pytest.mark.parametrize(
    ("name", "remedy"), [("x.ped", "--pedmap .*x --make-bed"), ("x.gen.gz", "--gen .*x.gen.gz ref-first")]
)
def test_remedies_for_other_formats(tmp_path: Path, name: str, remedy: str) -> None:
    with pytest.raises(InputError, match=f"is not a genotype file; convert it with: plink2 {remedy}"):
        open_genotype_file(write(tmp_path, "f a 0 0 1 2 A A\n", name))


@pytest.mark.parametrize("ploidy", [1, 3, 4, 6])
def test_any_ploidy(tmp_path: Path, ploidy: int) -> None:
    """Dosages are the cells of a table, or the copies in a VCF, whatever lies between."""
    copies = np.random.default_rng(ploidy).integers(0, ploidy + 1, (6, 4))
    names = list("abcdef")
    lines = (f"{name} {' '.join(map(str, row))}\n" for name, row in zip(names, copies, strict=True))
    text = "IID v1 v2 v3 v4\n" + "".join(lines)
    vcf = '##fileformat=VCFv4.3\n##contig=<ID=1>\n##FORMAT=<ID=GT,Number=1,Type=String,Description="">\n'
    vcf += "\t".join(["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", *names]) + "\n"
    for j, column in enumerate(copies.T):
        calls = ("/".join(["1"] * k + ["0"] * (ploidy - k)) for k in column)
        vcf += "\t".join(["1", str(j + 1), "v", "A", "C", ".", ".", ".", "GT", *calls]) + "\n"
    for path in (write(tmp_path, text), write(tmp_path, vcf, "g.vcf")):
        source = open_genotypes([path], ploidy=ploidy)
        assert source.ploidy == ploidy and source.files == (path,) and source.samples.iids == tuple(names)
        np.testing.assert_array_equal(source.read(np.arange(4), np.arange(6)), copies)
    with pytest.raises(InputError, match=rf"is not a number of copies \(0 to {ploidy}\); .* --ploidy"):
        open_genotypes([write(tmp_path, f"IID v\na {ploidy + 1}\n")], ploidy=ploidy)


def test_relationships_of_tetraploids(tmp_path: Path) -> None:
    copies = np.random.default_rng(0).integers(0, 5, (8, 40))
    text = "SNPID CHR POS " + " ".join(f"i{i}" for i in range(8)) + "\n"
    text += "".join(f"v{j} 1 {j} {' '.join(map(str, column))}\n" for j, column in enumerate(copies.T))
    source = open_genotypes([write(tmp_path, text)], ploidy=4)
    K = relationship_from_genotypes(source, np.arange(8), GrmOptions(precision="double")).K
    f = copies.mean(axis=0) / 4
    W = (copies - 4 * f) / np.sqrt(4 * f * (1 - f))
    np.testing.assert_allclose(K, W @ W.T / 40, atol=1e-6)
