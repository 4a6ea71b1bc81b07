"""Tables of founder probabilities: which column is what, places from R/qtl2's maps, what is refused."""

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from kron2sum_cli.errors import InputError, UsageError
from kron2sum_cli.genotypes.founders import founder_columns, open_founders, variants_of_loci
from kron2sum_cli.genotypes.genotype_table import TableSource, read_map
from kron2sum_cli.genotypes.open import open_genotypes

MAP = "# Physical map of a cross\n# nrow 2\nmarker,chr,pos\nm1,2,3.25\nm2,X,10\n"
WIDE = '"","A.m1","B.m1","C.m1","A.m2","B.m2","C.m2"\n"s1",0.5,0.5,0,1,0,0\n"s2",0.2,0.3,0.5,0.25,0.25,0.5\n'
LONG = "IID\tmarker\tA\tB\tC\ns1\tm1\t0.5\t0.5\t0\ns2\tm2\t.25\t.25\t.5\ns2\tm1\t.2\t.3\t.5\ns1\tm2\t1\t0\t0\n"
COPIES = [[1, 1, 0, 2, 0, 0], [0.4, 0.6, 1, 0.5, 0.5, 1]]
"""Of A, B and C at m1, then at m2, in both samples."""


def write(folder: Path, text: str, name: str = "p.csv") -> str:
    (folder / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return str(folder / name)


def read_all(source: TableSource) -> np.ndarray:
    return source.read(np.arange(len(source.variants)), np.arange(len(source.samples)))


@pytest.mark.parametrize(
    "text",
    [
        WIDE,
        WIDE.replace('""', "IID").replace('"', "").replace(",", "\t"),
        WIDE.replace("A.m1", "m1.A").replace("B.m1", "m1.B").replace("C.m1", "m1.C")
        .replace("A.m2", "m2.A").replace("B.m2", "m2.B").replace("C.m2", "m2.C"),
        WIDE.replace(".m", ":m"),
        'id,A.m1,A.m2,B.m1,B.m2,C.m1,C.m2\ns1,0.5,1,.5,0,0,0\ns2,.2,.25,.3,.25,.5,.5\n',
        "id,A.m1,A.m2,B.m1,B.m2,C.m1,C.m2\ns1,1,2,1,0,0,0\ns2,.4,.5,.6,.5,1,1\n",
        WIDE.replace('"",', "").replace(",", "\t"),
        LONG,
    ],
)  # fmt: skip
def test_layouts_agree(tmp_path: Path, text: str) -> None:
    source = open_founders(write(tmp_path, text, "p.csv.gz"), write(tmp_path, MAP, "pmap.csv"))
    assert source.samples.iids == ("s1", "s2") and source.samples.fids is None
    assert source.variants.table.to_pylist() == [
        {"CHR": chromosome, "POS": position, "SNPID": f"{locus}.{founder}", "EA": founder, "NEA": "."}
        for locus, chromosome, position in (("m1", "2", 3_250_000), ("m2", "X", 10_000_000))
        for founder in "ABC"
    ]
    np.testing.assert_allclose(read_all(source), COPIES, rtol=1e-6)
    assert source.ploidy == 2 and source.has_dosages


def test_rounded_probabilities_add_up_to_2(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    probabilities = rng.dirichlet(np.full(8, 0.3), size=50).round(3)
    rows = [f"s{k}," + ",".join(map(str, row)) for k, row in enumerate(probabilities.tolist())]
    header = "IID," + ",".join(f"{founder}.m1" for founder in "ABCDEFGH")
    source = open_founders(write(tmp_path, "\n".join([header, *rows])))
    assert np.abs(probabilities.sum(axis=1) - 1).max() > 1e-4
    np.testing.assert_allclose(read_all(source).sum(axis=1), 2, atol=1e-6)


def test_missing_cells_take_their_locus_along(tmp_path: Path) -> None:
    lost = read_all(open_founders(write(tmp_path, WIDE.replace("0.2,0.3", "NA,0.3"))))
    assert np.isnan(lost[1, :3]).all() and not np.isnan(lost[0]).any() and not np.isnan(lost[1, 3:]).any()
    no_row = read_all(open_founders(write(tmp_path, LONG.replace("s2\tm1\t.2\t.3\t.5\n", ""))))
    np.testing.assert_array_equal(np.isnan(no_row), np.isnan(lost))


def test_founders_are_told_from_loci() -> None:
    def founders(names: list[str], known: tuple[str, ...] = ()) -> tuple[str, ...] | None:
        found = founder_columns(names, known)
        return None if found is None else found.founders

    two = ["x.p", "y.p", "x.q", "y.q", "x.r", "y.r"]
    assert founders(two) == ("x", "y")  # p, q and r stand side by side
    assert founders(two, ("x", "y")) == ("p", "q", "r")
    assert founders([f"c1.loc{k}.{f}" for k in range(9) for f in "ABCD"]) == tuple("ABCD")
    assert founders([f"{f}.c1.loc{k}" for k in range(9) for f in "ABCD"]) == tuple("ABCD")
    assert founders([f"{f}_m{k}" for f in "AB" for k in range(100)]) == ("A", "B")  # founder by founder
    for wrong in (["A.m1", "B.m1", "A.m2"], ["A.m1"], ["rs1", "rs2"], ["A.m1", "A.m1", "B.m1", "B.m1"], [".a"]):
        assert founders(wrong) is None
    table = pa.table({"SNPID": ["c1.loc2.A", "c1.loc2.B", "m.A"], "EA": ["A", "B", "A"]})
    assert variants_of_loci(table) == {"c1.loc2": ["c1.loc2.A", "c1.loc2.B"], "m": ["m.A"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (WIDE.replace('"C.m2"', '"D.m2"'), r"line 1: the columns are not every founder .*the first: A.m1, B.m1, C.m1"),
        (WIDE.replace("0.2,0.3", "0.2,0.1"), r"sample 's2' at locus m1 add up to 0.8, not to 1 \(0.2, 0.1, 0.5\)"),
        (WIDE.replace("0.5,0.5,0,", "1.5,-0.5,0,"), r"sample 's1' at locus m1 add up to 1, .* no negative ones"),
        (WIDE.replace("0.2,0.3", "0.2,high"), r"line 3, column 3: 'high' is not a number"),
        (WIDE.replace(",0,0\n", ",0\n"), r"line 2: 6 fields where the header has 7"),
        (WIDE.replace('"s2"', '"s1"'), r"line 3: sample 's1' was already in line 2"),
        (LONG.replace("s2\tm1", "s1\tm1"), r"line 4: sample s1 has locus m1 twice"),
        ("IID\tmarker\tA\ns1\tm1\t1\n", r"needs a column for each of two founders or more behind marker"),
        ("IID,A.m1,B.m1\n", r"has no samples"),
        ("# nothing\n", r"is empty"),
    ],
)
def test_refuses(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match="p.csv.*" + message):
        open_founders(write(tmp_path, text))


def test_other_formats_and_absent_files_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "##fileformat=VCFv4.2\n", "v.vcf")
    with pytest.raises(UsageError, match="--founders is for tables of founder probabilities, and .*v.vcf is a .vcf"):
        open_genotypes([str(tmp_path / "v.vcf")], founders=True)
    with pytest.raises(InputError, match="nothing.csv: there is no such file"):
        open_genotypes(["nothing.csv"], founders=True)


def test_maps_in_megabases_and_in_base_pairs(tmp_path: Path) -> None:
    entries = read_map(write(tmp_path, "marker,chr,pos\na,1,0.5\nb,1,12\nc,2,NA\n"))
    assert [entry.position for entry in entries.values()] == [500_000, 12_000_000, 0]
    assert entries["c"].chromosome == "0"
    maize = (
        "# Physical map for Maize MAGIC\n# nrow 2\n# ncol 3\nmarker,chr,pos_cM\nSYN83,1,0\nPZE.101000060,1,0.157104\n"
    )
    assert [entry.position for entry in read_map(write(tmp_path, maize)).values()] == [1, 157_104]
    whole = read_map(write(tmp_path, "marker,chr,pos\na,1,5\nb,1,12.0\n"))
    assert [entry.position for entry in whole.values()] == [5, 12]
