"""What people try first and get wrong: one message that says what it is, and what to do."""

import gzip
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kron2sum_cli.cli import run
from tests.safety.test_places import line_of


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_compressed_table_of_a_scan_is_exported(
    folder: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    assert run(["export", "-q", "scan.parquet"]) == 0
    plain = capfdbinary.readouterr().out
    assert run(["scan", "-q", "--refit", "0", "--out", f"b.parquet{suffix}"]) == 0
    assert run(["export", "-q", f"b.parquet{suffix}"]) == 0
    assert capfdbinary.readouterr().out == plain
    assert run(["export", "-q", "--check", f"b.parquet{suffix}"]) == 0
    packed = Path(f"b.parquet{suffix}").read_bytes()
    Path("cut").write_bytes(packed[: len(packed) // 2])
    assert run(["export", "-q", "cut"]) == 1
    assert b"cut is damaged" in capfdbinary.readouterr().err


def test_a_compressed_null_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("null.npz.gz").write_bytes(gzip.compress(Path("null.npz").read_bytes()))
    assert run(["export", "-q", "null.npz.gz", "--out", "a.tsv"]) == 0
    assert run(["scan", "-q", "--null", "null.npz.gz"]) == 1
    assert "null.npz.gz: is compressed with gzip, not a null model of kron2sum fit; decompress it" in line_of(capsys)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"CHR\tPOS\n", "is text"),
        ("Größe\n".encode() * 200, "is text"),
        (b"abcd\x90\x00\x07\xff" * 9, "is a file of another kind"),
        (b"abcd" + bytes(60), "is a file of another kind"),
        (b"\x6c\x1b\x01\xff", "is a PLINK .bed file"),
    ],
)
def test_what_is_no_table_is_called_what_it_is(
    folder: Path, capsys: pytest.CaptureFixture[str], content: bytes, said: str
) -> None:
    Path("x").write_bytes(content)
    assert run(["export", "-q", "x"]) == 1
    assert f"x: {said}, not a Parquet table of kron2sum scan" in line_of(capsys)
    assert run(["scan", "-q", "--null", "x"]) == 1
    assert f"x: {said}, not a null model of kron2sum fit" in line_of(capsys)


def test_a_table_of_the_first_version_has_to_be_made_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pa.table({"x": [1]})
    with pq.ParquetWriter("old.parquet", table.schema, store_schema=False) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"kron2sum": '{"axes":[[1.0]],"traits":["a"],"version":"0.1.0"}'})
    assert run(["export", "-q", "old.parquet"]) == 1
    assert (
        "old.parquet: was written by kron2sum 0.1.0, and the layout of such files has changed since; make it again with"
        " kron2sum scan, whose options are in its log" in line_of(capsys)
    )


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("scan --out o.json", "--out o.json: .json is not a format that is written; end the name with .tsv, .csv"),
        ("export --out o.xlsx", "--out o.xlsx: .xlsx is not a format that is written; end the name with .tsv"),
        ("scan --out q.tsv --log q.tsv", "--log q.tsv: is the output, too; choose another name"),
        ("scan --out q.tsv --log link", "--log link: is the output, too; choose another name"),
        ("export --report r.html --log r.html", "--log r.html: is the output, too; choose another name"),
        ("fit --pheno y.csv --grm none --loco", "--grm none: the samples are independent; leave out --loco"),
        ("fit --pheno y.csv --grm none --rank 1 --grm-id g.fam", "are independent; leave out --grm-id, --rank"),
    ],
)
def test_options_that_do_not_go_together(
    folder: Path, capsys: pytest.CaptureFixture[str], command: str, said: str
) -> None:
    Path("link").symlink_to("q.tsv")
    assert run(command.split()) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(lines) == 1
    assert said in lines[0]
    assert lines[0].endswith(said) or "--log" in said or "format" in said


@pytest.mark.parametrize("out", ["folder", "nowhere/x"])
def test_an_output_in_a_wrong_place_is_refused_before_the_log_is_begun(
    folder: Path, capsys: pytest.CaptureFixture[str], out: str
) -> None:
    Path("folder").mkdir()
    before = sorted(os.listdir())
    assert run(["scan", "--out", out, "--log", "x.log"]) == 1
    assert out in line_of(capsys)
    assert sorted(os.listdir()) == before


def test_a_trait_that_is_not_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", "-q", "--trait", "nosuch"]) == 1
    assert "there is no trait 'nosuch' (--trait); the traits are t1, t2" in line_of(capsys)


def test_empty_genotypes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("g.bed").write_bytes(b"")
    assert run(["scan", "-q", "--geno", "g.bed"]) == 1
    assert "g.bed is empty; check the command that wrote it" in line_of(capsys)


def test_counts_of_0_are_not_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["scan", "--windows", "1mb", "--set-test", "skat", "--maf", "0", "--out", "w.tsv"]) == 0
    said = capsys.readouterr().err.splitlines()
    assert "20 sets" in said
    assert not [line for line in said if line.startswith("0 ")]


def test_kinship_that_is_not_semi_definite(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = [f"i{i} i{j} {-0.2 if (i + j) % 2 else 0.1}" for i in range(60) for j in range(i)]
    Path("king.kin0").write_text("\n".join(["#IID1 IID2 KINSHIP", *pairs]) + "\n")
    Path("y.csv").write_text("IID,a\n" + "".join(f"i{i},{i * i % 7}\n" for i in range(60)))
    fit = ["fit", "-q", "--pheno", "y.csv", "--grm", "king.kin0"]
    assert run(fit) == 1
    assert "; --grm-cutoff 0.05 sets small and negative relationships to 0, which mends most" in line_of(capsys)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--region 1:1-2", "400 lie outside --region; loosen or leave out --region (chromosome 1 has variants"),
        ("--mac 100", "400 are left out by --mac; loosen or leave out --mac"),
        ("--chr 1 --maf 0.5 --max-missing 0", "lie outside --chr, "),
    ],
)
def test_filters_that_leave_no_variant(
    folder: Path, capsys: pytest.CaptureFixture[str], options: str, said: str
) -> None:
    assert run(["scan", "-q", "--refit", "0", "--out", "x.tsv", *options.split()]) == 0
    err = capsys.readouterr().err
    assert "warning: no variant is tested: of the 400 of g.bed, " in err
    assert said in err
    assert len(Path("x.tsv").read_text().splitlines()) == 1


def test_filters_that_leave_no_variant_for_a_relationship_matrix(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("few").write_text("\n".join(line.split()[1] for line in Path("g.bim").read_text().splitlines()[:5]))
    assert run(["fit", "-q", "--pheno", "y.csv", "--grm", "g.bed", "--grm-extract", "few", "--grm-maf", "0.5"]) == 1
    assert "relationship matrix (variants read 400, left out: not in the list 395, " in (err := line_of(capsys))
    assert "; --grm-maf keeps rarer variants" in err
