"""Files of sets of variants, windows, and how sets are cut into blocks."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from kron2sum_cli.errors import InputError
from kron2sum_cli.files.scan_metadata import Span
from kron2sum_cli.genotypes.chromosomes import Region
from kron2sum_cli.scan.set_members import FoundSets, Members, VariantSet, blocks_of_sets, read_sets, windows


def read(folder: Path, text: str, column: str | None = None) -> list[VariantSet]:
    path = folder / "sets"
    path.write_text(text)
    return read_sets(str(path), column)


def test_names_and_regions(tmp_path: Path) -> None:
    found = read(tmp_path, "# a comment\na rs1,rs2 chr2:5-9\nb rs3\n\na\trs4\n")
    assert found == [VariantSet("a", ("rs1", "rs2", Region("2", 5, 9), "rs4"), 2), VariantSet("b", ("rs3",), 3)]


def test_a_header_and_a_variant_a_line(tmp_path: Path) -> None:
    text = "SET,SNPID,CADD\na,rs1,0.5\nb,rs2,1\na,rs3,2\n"
    assert read(tmp_path, text) == [VariantSet("a", ("rs1", "rs3"), 2), VariantSet("b", ("rs2",), 3)]
    assert [one.weights for one in read(tmp_path, text, "CADD")] == [(0.5, 2.0), (1.0,)]
    assert read(tmp_path, "#" + text) == read(tmp_path, text)
    of_spreadsheet = text.replace(",", ";").replace("0.5", "0,5")
    quoted = text.replace("a,", '"a",').replace("SET,SNPID", '"SET","SNPID"')
    for other in (of_spreadsheet, quoted, '"SET";"SNPID";"CADD"' + of_spreadsheet.removeprefix("SET;SNPID;CADD")):
        assert read(tmp_path, other, "CADD") == read(tmp_path, text, "CADD")


def test_bed_counts_from_0_and_gff_from_1(tmp_path: Path) -> None:
    assert read(tmp_path, "chr1\t0\t10\tA\nchrX\t4\t9\tB\n")[0].members == (Region("1", 1, 10),)
    assert read(tmp_path, "1 99 200\n") == [VariantSet("1:100-200", (Region("1", 100, 200),), 1)]
    kinds = (("gene", "5\t9", "g1"), ("exon", "5\t6", "e1"), ("ncRNA_gene", "7\t8", "g2"))
    gff = "#!x\n" + "".join(f"1\te\t{kind}\t{place}\t.\t+\t.\tID={name}\n" for kind, place, name in kinds)
    assert [(one.name, one.members, one.line) for one in read(tmp_path, gff)] == [
        ("g1", (Region("1", 5, 9),), 2),
        ("g2", (Region("1", 7, 8),), 4),
    ]


def test_a_header_of_bed(tmp_path: Path) -> None:
    assert read(tmp_path, "chrom\tstart\tend\tgene\n1\t4\t9\tA\n") == [VariantSet("A", (Region("1", 5, 9),), 2)]


@pytest.mark.parametrize("written", ["ID=%s;Name=%s", 'gene_id "%s"; gene_name "%s";'])
def test_genes_of_one_name_go_by_their_id(tmp_path: Path, written: str) -> None:
    """Ensembl names hundreds of genes Y_RNA; the lines of one ID are one gene."""
    genes = [("1", "g1", "Y_RNA"), ("2", "g2", "Y_RNA"), ("3", "g3", "A B"), ("4", "g3", "A B")]
    gff = "".join(f"{chrom}\te\tgene\t5\t9\t.\t+\t.\t{written % (key, name)}\n" for chrom, key, name in genes)
    assert [(one.name, [member.chromosome for member in one.members]) for one in read(tmp_path, gff)] == [  # type: ignore[union-attr]
        ("g1", ["1"]),
        ("g2", ["2"]),
        ("A B", ["3", "4"]),
    ]


@pytest.mark.parametrize(
    ("attributes", "name"),
    [
        ("ID=g1;Name=A;description=once called Name B", "A"),
        ('note "x; gene_name y"; gene_id "g1"; gene_name "A";', "A"),
        ("ID=g1;Name=C%2CD%20E", "C,D E"),
        ("Dbxref=GeneID:1,HGNC:2;ID=g1", "g1"),
    ],
)
def test_attributes_of_genes(tmp_path: Path, attributes: str, name: str) -> None:
    assert [one.name for one in read(tmp_path, f"1\te\tgene\t5\t9\t.\t+\t.\t{attributes}\n")] == [name]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a rs1\nb\n", "line 2: set b has no variants"),
        ("1 5 5 a\n", "line 1: 5 and 5 are not the start and the end of a region"),
        ("1 5 9 a\n1 6\n", "line 2: has 2 fields, and BED has a chromosome, a start and an end"),
        ("1 5 9 a\n1 six 9 b\n", "line 2: six and 9 are not the start"),
        (
            "chr1 chr2\na rs1 1:9-5\n",
            "line 2: 9 and 5 are not the start and the end of a region; give the smaller first",
        ),
        ("1\te\tgene\t5\t9\t.\t+\t.\tnote=x\n", "line 1: the gene has no gene_name, Name, gene_id or ID"),
        ("1\te\texon\t5\t9\t.\t+\t.\tID=x\n", "has no sets"),
    ],
)
def test_lines_that_are_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path, text)


@pytest.mark.parametrize(("size", "step"), [(100, 100), (100, 50), (100, 30), (7, 1), (1, 1)])
def test_windows_have_every_variant(size: int, step: int) -> None:
    rng = np.random.default_rng(size + step)
    pos, chromosome = rng.integers(1, 900, size=60), rng.integers(0, 2, size=60)
    found = {one.name for one in windows(["1", "X"], chromosome, pos, size, step)}
    expected = {
        f"{'1X'[code]}:{start}-{start + size - 1}"
        for code in (0, 1)
        for start in range(1, 1000, step)
        if np.any((chromosome == code) & (start <= pos) & (pos < start + size))
    }
    assert found == expected


def test_variants_without_a_position_are_in_no_window() -> None:
    assert windows(["1"], np.zeros(2, int), np.array([0, 0]), 100, 100) == []


def test_names_that_are_numbers_are_no_bed(tmp_path: Path) -> None:
    (tmp_path / "sets").write_text("GENE1 1001 1002\nGENE2 90 17 5\n")
    found = read_sets(str(tmp_path / "sets"), None, lambda name: name in ("1", "2"))
    assert [(one.name, one.members) for one in found] == [("GENE1", ("1001", "1002")), ("GENE2", ("90", "17", "5"))]
    (tmp_path / "sets").write_text("9 10 20 A\n1 100 200 B\n")
    found = read_sets(str(tmp_path / "sets"), None, lambda name: name in ("1", "2"))
    assert [one.members for one in found] == [(Region("9", 11, 20),), (Region("1", 101, 200),)]


def test_lines_of_commas(tmp_path: Path) -> None:
    assert [one.name for one in read(tmp_path, ",,\na,rs1\n,\n")] == ["a"]
    with pytest.raises(InputError, match="has no sets; give one a line"):
        read(tmp_path, ",\n,,\n")


def found(sets: list[range], first: int = 0, stop: int | None = None, codes: str | None = None) -> FoundSets:
    members = [
        Members(f"s{k}", k, np.array(one, dtype=np.intp), None, codes[k] if codes else None)
        for k, one in enumerate(sets)
    ]
    return FoundSets(members, first, len(sets) if stop is None else stop, Span(((0, 1),), ((0, 1),), 1), Counter())


def test_overlapping_windows_share_their_variants() -> None:
    blocks = blocks_of_sets(found([range(k, k + 10) for k in range(0, 100, 5)]), 32)
    assert all(len(block.variants) <= 32 for block in blocks)
    assert sum(len(block.variants) for block in blocks) < 150  # and 200 one window at a time
    assert [one.order for block in blocks for one in block.sets] == list(range(20))
    for block in blocks:
        together = {k for one in block.sets for k in one.positions.tolist()}
        assert block.variants.tolist() == sorted(together)


def test_a_large_set_is_a_block() -> None:
    blocks = blocks_of_sets(found([range(3), range(50), range(4), range(0)]), 10)
    assert [[one.order for one in block.sets] for block in blocks] == [[0], [1], [2, 3]]
    assert [len(block.variants) for block in blocks] == [3, 50, 4]


def test_shards_rotate_the_same_blocks() -> None:
    sets = [range(7 * k, 7 * k + 5) for k in range(11)]
    whole = {block.variants[0]: block for block in blocks_of_sets(found(sets), 16)}
    rows = []
    for first, stop in ((0, 4), (4, 5), (5, 11)):
        for block in blocks_of_sets(found(sets, first, stop), 16):
            np.testing.assert_array_equal(block.variants, whole[block.variants[0]].variants)
            rows += [one.order for one in block.sets]
    assert rows == list(range(11))


def test_blocks_have_one_null_model() -> None:
    blocks = blocks_of_sets(found([range(2), range(2, 4), range(4, 6)], codes="112"), 100)
    assert [(block.chromosome, len(block.sets)) for block in blocks] == [("1", 2), ("2", 1)]
