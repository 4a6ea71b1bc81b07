"""The .bim and .fam as people have them."""

from pathlib import Path

import pytest

from kron2sum_cli.errors import InputError
from kron2sum_cli.genotypes import variants
from kron2sum_cli.genotypes.sample_files import read_fam
from kron2sum_cli.genotypes.variants import read_bim

TABS = "1\trs1\t0\t100\tA\tG\nX\trs2\t0.5\t-9\tAT\tC\n"
ROWS = [
    {"CHR": "1", "POS": 100, "SNPID": "rs1", "EA": "A", "NEA": "G"},
    {"CHR": "X", "POS": -9, "SNPID": "rs2", "EA": "AT", "NEA": "C"},
]


def write(folder: Path, text: str | bytes, suffix: str) -> str:
    path = folder / f"x.{suffix}"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


@pytest.mark.parametrize(
    "text",
    [
        TABS,
        TABS.rstrip("\n"),
        TABS.replace("\t", " "),
        TABS.replace("\t", "  ", 3),
        TABS.replace("\t", "\t\t"),
        TABS.replace("\n", "\r\n"),
        TABS.replace("\n", "\t\n"),
        TABS.replace("\n", "\t\r\n"),
        TABS.rstrip("\n") + "\t",
        "\t" + TABS,
        TABS.replace("\n", "\n\t", 1),
        TABS.replace("\n", " \n\n"),
        "\n" + TABS + "\n\n",
        " " + TABS.replace("\n", "\n\t", 1),
    ],
)
@pytest.mark.parametrize("chunk_bytes", [1, 7, 20, 1 << 20])
def test_bim_with_any_white_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, chunk_bytes: int) -> None:
    monkeypatch.setattr(variants, "CHUNK_BYTES", chunk_bytes)
    assert read_bim(write(tmp_path, text, "bim")).table.to_pylist() == ROWS


def test_bim_quotes_and_names_like_missing_values_are_kept(tmp_path: Path) -> None:
    path = write(tmp_path, "1\t\"rs1\t0\t1\tA\tG\n1\tNA\t0\t2\tNA\t'\n", "bim")
    table = read_bim(path).table
    assert table["SNPID"].to_pylist() == ['"rs1', "NA"]
    assert table["EA"].to_pylist() == ["A", "NA"]


@pytest.mark.parametrize("value", ["1e5", "12.5", "NA", "12345678901234567890", "ten"])
@pytest.mark.parametrize("delimiter", ["\t", " "])
@pytest.mark.parametrize("chunk_bytes", [30, 1 << 20])
def test_bim_position_that_is_not_a_whole_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, delimiter: str, chunk_bytes: int
) -> None:
    monkeypatch.setattr(variants, "CHUNK_BYTES", chunk_bytes)
    lines = [f"1\trs{i}\t0\t{i}\tA\tG\n" for i in range(20)]
    lines[11] = f"1\trs11\t0\t{value}\tA\tG\n"
    path = write(tmp_path, "\n" + "".join(lines).replace("\t", delimiter), "bim")
    with pytest.raises(InputError, match=rf"x\.bim, line 13: position '{value}' of variant 'rs11'"):
        read_bim(path)


@pytest.mark.parametrize(("line", "columns"), [("1\trs2\t100\tA\tG", 5), ("1 rs2 0 100 A G extra", 7), ("1", 1)])
def test_bim_with_another_number_of_columns(tmp_path: Path, line: str, columns: int) -> None:
    with pytest.raises(InputError, match=rf"line 3: .* has {columns} columns; a \.bim has six"):
        read_bim(write(tmp_path, TABS + line + "\n", "bim"))


@pytest.mark.parametrize("text", ["", "\n", " \n\t\n"])
def test_empty_bim(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"x\.bim is empty"):
        read_bim(write(tmp_path, text, "bim"))


def test_bim_that_is_not_utf8(tmp_path: Path) -> None:
    path = write(tmp_path, TABS.encode() + b"1\trs\xff\t0\t5\tA\tG\n", "bim")
    with pytest.raises(InputError, match=r"x\.bim, from line 1: not readable as a \.bim .*UTF-8"):
        read_bim(path)


def test_bim_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_bim(str(tmp_path))


@pytest.mark.parametrize("text", ["f1 i1 0 0 1 2\nf2 i2 0 0 2 1\n", "f1\ti1\t0\t0\t1\n\nf2 i2\t0\t0 2\t1 0.5 NA\r\n"])
def test_fam_with_any_white_space_and_further_columns(tmp_path: Path, text: str) -> None:
    samples = read_fam(write(tmp_path, text, "fam"))
    assert (samples.fids, samples.iids) == (("f1", "f2"), ("i1", "i2"))


def test_fam_with_a_sample_twice(tmp_path: Path) -> None:
    path = write(tmp_path, "f i 0 0 0 0\ng i 0 0 0 0\n\nf\ti 0 0 0 0\n", "fam")
    with pytest.raises(
        InputError, match=r"x\.fam, line 4: sample 'f i' was already in line 1; give one .* another name"
    ):
        read_fam(path)


def test_fam_with_a_short_line(tmp_path: Path) -> None:
    path = write(tmp_path, "f1 i1 0 0 1 2\nf2 i2\n", "fam")
    with pytest.raises(InputError, match=r"x\.fam, line 2: 'f2 i2' has 2 columns"):
        read_fam(path)
