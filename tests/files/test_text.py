"""Reading text: compression, encodings, line ends, delimiters, lists."""

import csv
import errno
import gzip
import io
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kron2sum_cli.errors import InputError
from kron2sum_cli.files.text import (
    Row,
    find_delimiter,
    id_columns,
    read_file_list,
    read_id_list,
    read_name_list,
    read_text,
    split_rows,
)


def write(path: Path, data: bytes | str) -> str:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return str(path)


@pytest.mark.parametrize(
    "data",
    [
        b"a b\nc d\n",
        b"\xef\xbb\xbfa b\nc d\n",
        b"a b\r\nc d\r\n",
        b"a b\rc d\r",
        gzip.compress(b"a b\nc d\n", mtime=0),
        pa.compress(b"a b\nc d\n", "zstd", asbytes=True),
        gzip.compress(b"a b\n", mtime=0) + gzip.compress(b"c d\n", mtime=0),
        gzip.compress(b"\xef\xbb\xbfa b\r\nc d\r\n", mtime=0),
    ],
    ids=["plain", "bom", "crlf", "cr", "gzip", "zstd", "gzip members", "gzip bom crlf"],
)
def test_read_text_normalises(tmp_path: Path, data: bytes) -> None:
    assert read_text(write(tmp_path / "file.txt", data)) == "a b\nc d\n"


def test_read_text_keeps_other_scripts(tmp_path: Path) -> None:
    assert read_text(write(tmp_path / "f", "Größe\n身長\n")) == "Größe\n身長\n"


@pytest.mark.parametrize("data", [b"a b\n", gzip.compress(b"a b\n", mtime=0)])
def test_read_text_from_standard_input(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert read_text("-") == "a b\n"


def test_errors_name_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    with pytest.raises(InputError, match=r"^standard input is empty"):
        read_text("-")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"f is empty; check"),
        (b" \n\r\n\t\n", r"f is empty; check"),
        (b"\xef\xbb\xbf", r"f is empty; check"),
        (b"a\r\nb\n\x00c", r"f, line 3: there is a NUL byte, so the file looks binary"),
        ("a\tb\n".encode("utf-16"), r"f, line 1: there is a NUL byte"),
        (b"a\rb\rc\xe9\n", r"f, line 3: byte 0xe9 is not UTF-8; convert the file .*iconv"),
        (gzip.compress(b"a b c d e f g\n" * 50, mtime=0)[:-12], r"f is damaged gzip data"),
        (b"\x1f\x8b\x08\x00nothing of the kind", r"f is damaged gzip data"),
        (b"\x28\xb5\x2f\xfdnothing of the kind", r"f is damaged Zstandard data"),
    ],
)
def test_read_text_refuses(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_text(write(tmp_path / "f", data))


def test_read_text_missing_and_directory(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.csv: there is no such file"):
        read_text(str(tmp_path / "none.csv"))
    with pytest.raises(InputError, match="is a directory; give a file"):
        read_text(str(tmp_path))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), "f may not be read; check its permissions"),
        (OSError(errno.EIO, "Input/output error"), r"f cannot be read \(Input/output error\); check the disk"),
    ],
)
def test_read_text_of_what_cannot_be_read(monkeypatch: pytest.MonkeyPatch, error: OSError, message: str) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(InputError, match=message):
        read_text("f")


@pytest.mark.parametrize(
    ("header", "delimiter"),
    [
        ("a b\tc,d", "\t"),
        ("a b,c", ","),
        ("a  b", " "),
        ("a", " "),
        ("FID;IID;a,b", ";"),
        ("#IID;a b", ";"),
        ("f;i", ";"),
        ("marker;chr;pos (cM)", ";"),
        ('"";"m 1"', ";"),
        ("0,5;1,25", ";"),
        ("rs1;rs2 a", " "),
        ("a;b,c", ","),
    ],
)
def test_find_delimiter(header: str, delimiter: str) -> None:
    assert find_delimiter(header) == delimiter


def test_lines_stay_true_over_blank_lines() -> None:
    text = "\n  \nFID IID\n\n  1   2 \n"
    assert split_rows(text, "f") == [Row(3, ("FID", "IID")), Row(5, ("1", "2"))]


def test_tab_keeps_empty_fields_and_strips_blanks() -> None:
    assert split_rows("a\tb\tc\n1\t\t 3 \n\t\t\n", "f") == [Row(1, ("a", "b", "c")), Row(2, ("1", "", "3"))]


def test_csv_quotes_commas_and_line_ends() -> None:
    text = 'a,"b, ""c""",d\n1, "x\ny" ,3\n,,\n4,5,6\n'
    expected = [Row(1, ("a", 'b, "c"', "d")), Row(2, ("1", "x\ny", "3")), Row(5, ("4", "5", "6"))]
    assert split_rows(text.replace('" ,3', '",3'), "f") == expected


def test_only_line_feeds_end_lines() -> None:
    assert [row.line for row in split_rows("a\tb\u2028c\n1\t2\x0b3\n", "f")] == [1, 2]


def test_delimiter_can_be_given() -> None:
    assert split_rows("a,b c\td\n", "f", " ") == [Row(1, ("a,b", "c", "d"))]


def test_unclosed_quote_names_its_line() -> None:
    with pytest.raises(InputError, match=r"f, line 3: not readable as CSV .*double quotes"):
        split_rows('a,b\n1,2\n"3,4\n5,6\n', "f")


def test_rows_of_nothing_but_delimiters_are_no_rows() -> None:
    with pytest.raises(InputError, match="f is empty"):
        split_rows(",,\n", "f")


PLAIN = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF, categories=("L", "N", "P")), min_size=1)
WORD = PLAIN.filter(lambda word: not set(word) & set(',"\t'))


@given(st.lists(st.lists(WORD, min_size=3, max_size=3), min_size=1, max_size=8))
def test_delimiters_round_trip(rows: list[list[str]]) -> None:
    expected = [tuple(row) for row in rows]
    for delimiter in ("\t", ",", " "):
        text = "".join(delimiter.join(row) + "\n" for row in rows)
        assert [row.fields for row in split_rows(text, "f")] == expected


@given(st.lists(st.lists(PLAIN, min_size=2, max_size=2), min_size=1, max_size=8))
def test_quoted_csv_round_trip(rows: list[list[str]]) -> None:
    out = io.StringIO()
    csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    assert [row.fields for row in split_rows(out.getvalue(), "f", ",")] == [tuple(row) for row in rows]


@pytest.mark.parametrize(
    ("header", "width"),
    [
        (("FID", "IID", "y"), 2),
        (("#FID", "IID"), 2),
        (("IID", "y"), 1),
        (("#IID",), 1),
        (("fid", "iid"), 2),
        (("# IID", "y"), 1),
        (("Taxa", "y"), 1),
        (("sample_ID", "y"), 1),
        (("id", "y"), 0),
        (("FID", "y"), 0),
        (("FID",), 0),
        ((), 0),
    ],
)
def test_id_columns(header: tuple[str, ...], width: int) -> None:
    assert id_columns(header) == width


@pytest.mark.parametrize(
    ("text", "fids", "iids"),
    [
        ("f1 a\nf2 b\n", ("f1", "f2"), ("a", "b")),
        ("FID IID\nf1 a\n", ("f1",), ("a",)),
        ("#FID\tIID\nf1\ta\n", ("f1",), ("a",)),
        ("IID\na\nb\na\n", None, ("a", "b")),
        ("#IID sex\na 1\n", None, ("a",)),
        ("a\nb\n", None, ("a", "b")),
        ("f1 a 0 0 1 -9\nf2 b 0 0 2 -9\n", ("f1", "f2"), ("a", "b")),
        ("f1,a\nf1,b\n", ("f1", "f1"), ("a", "b")),
        ("f1;a\nf1;b\n", ("f1", "f1"), ("a", "b")),
        ("\n\nFID IID x\n\n f1  a 1\n f1\tb\n", ("f1", "f1"), ("a", "b")),
        ("FID IID\n", (), ()),
        ("Taxa\tpopulation\nB73\tSS\nMo17\tNSS\n", None, ("B73", "Mo17")),
        ("line 1\nline 2\n", ("line", "line"), ("1", "2")),
    ],
)
def test_read_id_list(tmp_path: Path, text: str, fids: tuple[str, ...], iids: tuple[str, ...]) -> None:
    samples = read_id_list(write(tmp_path / "list", text))
    assert (samples.fids, samples.iids) == (fids, iids)
    assert samples.source.endswith("list")


@pytest.mark.parametrize("text", ["f1 a\nb\n", "f1\ta\nf2\t\n"])
def test_read_id_list_lacking_an_id(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"list, line 2: '.*' lacks an ID; give FID and IID"):
        read_id_list(write(tmp_path / "list", text))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("rs1\nrs2\nrs1\n", ("rs1", "rs2")),
        ("rs1 A 0.1\nrs2 C 0.2\n", ("rs1", "A", "0.1", "rs2", "C", "0.2")),
        ("1:10:A:C,T\nrs2\n", ("1:10:A:C,T", "rs2")),
        ("SNP\nrs1\n", ("rs1",)),
        ("#ID P\nrs1 0.1\n", ("rs1",)),
        ("CHR\tPOS\tSNPID\n1\t10\trs1\n", ("rs1",)),
        ("CHR,POS,SNPID\n1,10,rs1\n", ("rs1",)),
    ],
)
def test_read_name_list(tmp_path: Path, text: str, names: tuple[str, ...]) -> None:
    assert read_name_list(write(tmp_path / "list", text)) == names


def test_several_names_a_line(tmp_path: Path) -> None:
    """As plink2 reads them."""
    assert read_name_list(write(tmp_path / "list", "rs1 rs2\trs3\n\nrs4 rs1\n")) == ("rs1", "rs2", "rs3", "rs4")


@pytest.mark.parametrize("name", ["x.bim", "list.txt"])
def test_a_bim_is_a_list(tmp_path: Path, name: str) -> None:
    """Also where the names are numbers, which chromosomes and positions are too."""
    bim = "1\t7\t0\t100\tA\tG\n1\t8\t1e-3\t7\tAT\t<DEL>\n"
    assert read_name_list(write(tmp_path / name, bim)) == ("7", "8")


def test_a_pvar_is_a_list(tmp_path: Path) -> None:
    pvar = "##fileformat=VCFv4.2\n##contig=<ID=1,length=5>\n#CHROM\tPOS\tID\tREF\tALT\n1\t100\trs1\tA\tG\n"
    assert read_name_list(write(tmp_path / "x.pvar", pvar)) == ("rs1",)


def test_read_name_list_lacking_a_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="list, line 3: there is no variant name in column 2"):
        read_name_list(write(tmp_path / "list", "CHR SNP\n1 rs1\n1\n"))


def test_list_of_files(tmp_path):
    (tmp_path / "list").write_text("chr1.bed\r\n\n  my data/chr 2.bed \nchr10.bed\n")
    assert read_file_list(str(tmp_path / "list")) == ("chr1.bed", "my data/chr 2.bed", "chr10.bed")
    (tmp_path / "list").write_text("a.bed\nb.bed\na.bed\n")
    with pytest.raises(InputError, match=r"names a.bed more than once"):
        read_file_list(str(tmp_path / "list"))
