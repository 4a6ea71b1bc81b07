"""Relationship matrices of other programs: the same answer from every format, and every refusal."""

import gzip
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError, UsageError
from kron2sum_cli.genotypes import square_matrix as square
from kron2sum_cli.genotypes.relationship import open_relationship, open_sparse

N = 23
ROWS = np.random.default_rng(4).permutation(N)[:17]


@pytest.fixture(scope="module")
def K() -> NDArray[np.float64]:
    """A relationship matrix that single precision holds exactly."""
    rng = np.random.default_rng(3)
    G = rng.standard_normal((N, 40)) / np.sqrt(40)
    return (G @ G.T).astype(np.float32).astype(np.float64)


@pytest.fixture(autouse=True)
def several_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(square, "TILE", 5)


def ids(header: str = "") -> str:
    return header + "".join(f"f{i // 2}\ti{i}\n" for i in range(N))


def lower_text(K: NDArray[np.float64]) -> str:
    return "".join("\t".join(repr(float(v)) for v in K[i, : i + 1]) + "\n" for i in range(len(K)))


def square_text(K: NDArray[np.float64], delimiter: str = "\t") -> str:
    return "".join(delimiter.join(repr(float(v)) for v in row) + "\n" for row in K)


def named_text(K: NDArray[np.float64], corner: str = "IID", delimiter: str = ",") -> str:
    """Names on both sides, the columns in another order than the rows."""
    columns = np.random.default_rng(1).permutation(N)
    names = [f"i{i}" for i in range(N)]
    lines = [delimiter.join([corner, *(names[i] for i in columns)])]
    for i in range(N):
        first = f"f{i // 2}{delimiter}{names[i]}" if corner.startswith(("FID", "#FID")) else names[i]
        lines.append(delimiter.join([first, *(repr(float(v)) for v in K[i, columns])]))
    return "\n".join(lines) + "\n"


def text_of_r(K: NDArray[np.float64], sep: str = " ") -> str:
    """A matrix with names as R's ``write.table`` writes it: the header is one field shorter."""
    names = [f'"i{i}"' for i in range(N)]
    rows = [[name, *map(repr, map(float, row))] for name, row in zip(names, K, strict=True)]
    return "".join(sep.join(row) + "\n" for row in [names, *rows])


def write_gcta(folder: Path, K: NDArray[np.float64]) -> str:
    K[np.tril_indices(N)].astype("<f4").tofile(folder / "k.grm.bin")
    np.full(N * (N + 1) // 2, 100, "<f4").tofile(folder / "k.grm.N.bin")
    (folder / "k.grm.id").write_text(ids())
    return str(folder / "k")


def write_rel(folder: Path, text: str | None = None, binary: NDArray[Any] | None = None) -> str:
    (folder / "k.rel.id").write_text(ids("#FID\tIID\n"))
    if text is not None:
        (folder / "k.rel").write_text(text)
        return str(folder / "k.rel")
    assert binary is not None
    binary.tofile(folder / "k.rel.bin")
    return str(folder / "k.rel.bin")


def write_with_fam(folder: Path, text: str, name: str = "k.cXX.txt") -> tuple[str, str]:
    (folder / "k.fam").write_text("".join(f"f{i // 2} i{i} 0 0 1 -9 7\n" for i in range(N)))
    (folder / name).write_text(text)
    return str(folder / name), str(folder / "k.fam")


def write_npy(folder: Path, array: NDArray[Any]) -> tuple[str, str]:
    np.save(folder / "k.npy", array)
    (folder / "ids.txt").write_text("".join(f"i{i}\n" for i in range(N)))
    return str(folder / "k.npy"), str(folder / "ids.txt")


def write_table(folder: Path, text: str) -> str:
    (folder / "k.csv").write_text(text)
    return str(folder / "k.csv")


def write_compressed(folder: Path, name: str, text: str) -> str:
    """As the suffix says."""
    write_gcta(folder, np.eye(N))
    (folder / "k.grm.bin").unlink()
    (folder / "k.rel.id").write_text(ids("#FID\tIID\n"))
    with pa.output_stream(str(folder / name), compression="detect") as file:
        file.write(text.encode())
    return str(folder / name)


FORMATS: dict[str, Callable[[Path, NDArray[np.float64]], str | tuple[str, str]]] = {
    "gcta prefix": write_gcta,
    "gcta bin": lambda folder, K: write_gcta(folder, K) + ".grm.bin",
    "gcta id": lambda folder, K: write_gcta(folder, K) + ".grm.id",
    "gcta N": lambda folder, K: write_gcta(folder, K) + ".grm.N.bin",
    "gcta text": lambda folder, K: write_compressed(folder, "k.grm.gz", listed(K)),
    "gcta text prefix": lambda folder, K: write_compressed(folder, "k.grm.gz", listed(K)).removesuffix(".grm.gz"),
    "plink2 list": lambda folder, K: write_compressed(folder, "k.grm.zst", listed(K)),
    "rel zst": lambda folder, K: write_compressed(folder, "k.rel.zst", square_text(K)),
    "rel zst prefix": lambda folder, K: write_compressed(folder, "k.rel.zst", lower_text(K)).removesuffix(".rel.zst"),
    "rel square": lambda folder, K: write_rel(folder, square_text(K)),
    "rel square0": lambda folder, K: write_rel(folder, square_text(np.tril(K))),
    "rel triangle": lambda folder, K: write_rel(folder, lower_text(K)),
    "rel id": lambda folder, K: write_rel(folder, lower_text(K)) + ".id",
    "rel prefix": lambda folder, K: write_rel(folder, lower_text(K)).removesuffix(".rel"),
    "rel bin": lambda folder, K: write_rel(folder, binary=K),
    "rel bin prefix": lambda folder, K: write_rel(folder, binary=K).removesuffix(".rel.bin"),
    "rel bin square0": lambda folder, K: write_rel(folder, binary=np.tril(K)),
    "rel bin4": lambda folder, K: write_rel(folder, binary=K.astype("<f4")),
    "rel bin triangle": lambda folder, K: write_rel(folder, binary=K[np.tril_indices(N)]),
    "rel bin4 triangle": lambda folder, K: write_rel(folder, binary=K[np.tril_indices(N)].astype("<f4")),
    "gemma": lambda folder, K: write_with_fam(folder, square_text(K)),
    "blanks": lambda folder, K: write_with_fam(folder, "\n" + square_text(K, "  "), "k.txt"),
    "commas": lambda folder, K: write_with_fam(folder, square_text(K, ","), "k.dat"),
    "semicolons": lambda folder, K: write_with_fam(folder, square_text(K, ";").replace(".", ","), "k.txt"),
    "npy": write_npy,
    "npy fortran": lambda folder, K: write_npy(folder, np.asfortranarray(K)),
    "npy float32": lambda folder, K: write_npy(folder, K.astype(np.float32)),
    "npy big endian": lambda folder, K: write_npy(folder, K.astype(">f8")),
    "csv": lambda folder, K: write_table(folder, named_text(K)),
    "csv2 of R": lambda folder, K: write_table(folder, named_text(K, '""', ";").replace(".", ",")),
    "csv without corner": lambda folder, K: write_table(folder, named_text(K, '""')),
    "write.table of R": lambda folder, K: write_table(folder, text_of_r(K)),
    "write.table of R, unquoted": lambda folder, K: write_table(folder, text_of_r(K, "\t").replace('"', "")),
    "tsv with FID": lambda folder, K: write_table(folder, named_text(K, "FID\tIID", "\t")),
}


@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS.keys())
def test_every_format_gives_the_same(
    write: Callable[[Path, NDArray[np.float64]], Any], tmp_path: Path, K: NDArray[np.float64]
) -> None:
    given = write(tmp_path, K)
    file = open_relationship(*((given,) if isinstance(given, str) else given))
    assert file.samples.iids == tuple(f"i{i}" for i in range(N))
    for rows in (np.arange(N), ROWS):
        relationship = file.load(rows)
        assert relationship.G is None and relationship.K is not None
        np.testing.assert_array_equal(relationship.K, K[np.ix_(rows, rows)])
        assert relationship.samples == file.samples.take(rows)
    assert all(Path(name).is_file() for name in relationship.files)


def test_fids_are_read_where_there_are_some(tmp_path: Path, K: NDArray[np.float64]) -> None:
    assert open_relationship(write_gcta(tmp_path, K)).samples.label(3) == "f1 i3"
    assert open_relationship(*write_with_fam(tmp_path, square_text(K))).samples.label(3) == "f1 i3"
    assert open_relationship(*write_npy(tmp_path, K)).samples.label(3) == "i3"


def test_names_may_be_numbers_where_r_wrote_them(tmp_path: Path, K: NDArray[np.float64]) -> None:
    path = write_table(tmp_path, text_of_r(K).replace('"i', '"'))
    file = open_relationship(path, None)
    assert file.samples.iids == tuple(map(str, range(N)))
    np.testing.assert_array_equal(file.load(np.arange(N)).K, K)


def test_a_short_row_of_a_matrix_from_r(tmp_path: Path, K: NDArray[np.float64]) -> None:
    lines = text_of_r(K).splitlines()
    lines[4] = lines[4].rpartition(" ")[0]
    file = open_relationship(write_table(tmp_path, "\n".join(lines) + "\n"), None)
    with pytest.raises(InputError, match=f"line 5: {N} fields where {N + 1} are due, one more than the header has"):
        file.load(np.arange(N))


@pytest.mark.parametrize("text", [text_of_r, named_text])
def test_names_that_r_has_changed(tmp_path: Path, K: NDArray[np.float64], text: Callable[..., str]) -> None:
    """As where R reads a matrix by read.table and writes it again: the header has X7.1 for 7-1."""
    rows = text(K).replace("i", "7-").splitlines()
    rows[0] = rows[0].replace("7-", "X7.")
    with pytest.raises(InputError, match=r"R has changed names of the header \('7-\d+' is 'X7.\d+' there\)"):
        open_relationship(write_table(tmp_path, "\n".join(rows) + "\n"), None)


def test_names_may_come_from_another_file(tmp_path: Path, K: NDArray[np.float64]) -> None:
    path = write_gcta(tmp_path, K)
    (tmp_path / "k.grm.id").rename(tmp_path / "elsewhere.txt")
    with pytest.raises(InputError, match=r"k\.grm\.id: there is no such file"):
        open_relationship(path)
    file = open_relationship(path, str(tmp_path / "elsewhere.txt"))
    np.testing.assert_array_equal(file.load(np.arange(N)).K, K)


def test_compressed_text(tmp_path: Path, K: NDArray[np.float64]) -> None:
    path, fam = write_with_fam(tmp_path, "")
    Path(path).write_bytes(gzip.compress(square_text(K).encode()))
    np.testing.assert_array_equal(open_relationship(path, fam).load(np.arange(N)).K, K)


@pytest.mark.parametrize("relative", [1e-7, 1e-3])
def test_asymmetry(tmp_path: Path, K: NDArray[np.float64], relative: float) -> None:
    askew = K.copy()
    askew[20, 3] += relative * np.abs(K).max()
    file = open_relationship(*write_npy(tmp_path, askew))
    if relative < square.LARGEST_ASYMMETRY:
        loaded = file.load(np.arange(N)).K
        assert loaded is not None
        np.testing.assert_array_equal(loaded, (askew + askew.T) / 2)
        return
    with pytest.raises(InputError, match=r"k\.npy is not symmetric: samples 'i20' and 'i3' have"):
        file.load(np.arange(N))
    file.load(np.delete(np.arange(N), 20))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["gcta bin", "rel square", "gemma", "npy", "csv"])
def test_numbers_that_are_not_finite(tmp_path: Path, K: NDArray[np.float64], bad: float, name: str) -> None:
    spoilt = K.copy()
    spoilt[7, 2] = spoilt[2, 7] = bad
    given = FORMATS[name](tmp_path, spoilt)
    file = open_relationship(*((given,) if isinstance(given, str) else given))
    with pytest.raises(InputError, match=r"k\.\S+: the relationship of samples '.*i2' and '.*i7' is"):
        file.load(np.arange(N))
    np.testing.assert_array_equal(file.load(np.arange(8, N)).K, K[8:, 8:])


def test_a_diagonal_that_was_left_out(tmp_path: Path, K: NDArray[np.float64]) -> None:
    """Or distances: an individual at no distance from itself."""
    hollow = K - np.diag(np.diag(K))
    file = open_relationship(*write_npy(tmp_path, hollow))
    message = r"k\.npy: sample 'i0' has 0 on the diagonal \(23 of 23 samples .*if these are distances, .* 1 - distance"
    with pytest.raises(InputError, match=message):
        file.load(np.arange(N))
    hollow[3] = hollow[:, 3] = 0
    np.fill_diagonal(hollow, np.where(np.arange(N) == 3, 0, 9))
    loaded = open_relationship(*write_npy(tmp_path, hollow)).load(np.arange(N)).K
    np.testing.assert_array_equal(loaded, hollow, "a sample without any relationship may stay")


@pytest.mark.parametrize("cut", [0, 4, 4 * 21, 4 * N * (N + 1) // 2 - 1])
def test_gcta_of_another_size(tmp_path: Path, K: NDArray[np.float64], cut: int) -> None:
    path = Path(write_gcta(tmp_path, K) + ".grm.bin")
    path.write_bytes(path.read_bytes()[:cut])
    expected = {4: "1 samples", 84: "6 samples"}.get(cut, "0 samples|cut short")
    with pytest.raises(InputError, match=rf"has {cut} bytes, .* {N} samples .* takes 1104; .*({expected})"):
        open_relationship(str(path))


def test_plink2_binary_of_another_size(tmp_path: Path, K: NDArray[np.float64]) -> None:
    path = write_rel(tmp_path, binary=K[:-1])
    with pytest.raises(InputError, match="4048 bytes, .* one of 4232, 2208, 2116, 1104"):
        open_relationship(path)


def test_file_cut_after_opening(tmp_path: Path, K: NDArray[np.float64]) -> None:
    path = Path(write_gcta(tmp_path, K) + ".grm.bin")
    file = open_relationship(str(path))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="ends in row 7"):
        file.load(np.arange(N))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda lines: lines[:-1], "has 22 rows, but 23 samples"),
        (lambda lines: [*lines, lines[0]], "has 24 rows, but 23 samples"),
        (lambda lines: [*lines[:4], "1\t2\n", *lines[5:]], "line 5: 2 numbers where 23 are expected"),
        (
            lambda lines: [*lines[:4], lines[4].replace("\t", "\tNA\t", 1).rsplit("\t", 1)[0] + "\n"],
            "line 5, column 2: 'NA' is not a number",
        ),
        (
            lambda lines: [*lines[:4], "0,5\t" + lines[4].partition("\t")[2], *lines[5:]],
            "line 5, column 1: '0,5' is not a number; write numbers with a decimal point",
        ),
    ],
)
def test_text_that_is_not_square(tmp_path: Path, K: NDArray[np.float64], edit: Any, message: str) -> None:
    text = "".join(edit(square_text(K).splitlines(keepends=True)))
    file = open_relationship(*write_with_fam(tmp_path, text))
    with pytest.raises(InputError, match=message):
        file.load(np.arange(N))


def test_text_of_other_samples(tmp_path: Path, K: NDArray[np.float64]) -> None:
    path, fam = write_with_fam(tmp_path, square_text(K[:5, :5]))
    with pytest.raises(InputError, match=r"has 5 columns, but .*k\.fam lists 23 samples"):
        open_relationship(path, fam)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((N, N + 1)), r"shape \(23, 24\), but .* lists 23 samples"),
        (np.zeros(N), r"shape \(23,\)"),
        (np.zeros((N, N), dtype="U1"), "<U1 values"),
        (np.full((N, N), None), "not a readable .npy"),
        (np.zeros((N, N), dtype=complex), "complex128 values"),
    ],
)
def test_npy_of_another_kind(tmp_path: Path, array: NDArray[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_relationship(*write_npy(tmp_path, array))


@pytest.mark.parametrize("size", [6, 8, 20, 127, 128, 4000])
def test_npy_cut_short(tmp_path: Path, K: NDArray[np.float64], size: int) -> None:
    path, names = write_npy(tmp_path, K)
    Path(path).write_bytes(Path(path).read_bytes()[:size])
    with pytest.raises(InputError, match=r"k\.npy (is not a readable|has \d+ bytes)"):
        open_relationship(path, names)


def test_npy_that_promises_too_much_is_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    path, names = write_npy(tmp_path, np.zeros((N, N)))
    data = Path(path).read_bytes().replace(b"(23, 23)", b"(23, 1e9)", 1)
    Path(path).write_bytes(data)
    with pytest.raises(InputError, match=r"k\.npy"):
        open_relationship(path, names)


def test_names_needed_and_not_needed(tmp_path: Path, K: NDArray[np.float64]) -> None:
    npy, names = write_npy(tmp_path, K)
    text, _ = write_with_fam(tmp_path, square_text(K))
    for path in (npy, text):
        with pytest.raises(UsageError, match="give them with --grm-id"):
            open_relationship(path)
    with pytest.raises(UsageError, match="leave out --grm-id"):
        open_relationship(write_table(tmp_path, named_text(K)), names)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("f0 i0\nf1\n", "line 2: 'f1' lacks an ID"),
        ("f0 i0\n\nf0 i0\n", "line 3: sample 'f0 i0' was already in line 1"),
        ("", "is empty"),
        ("#FID IID\n", "takes 0"),
    ],
)
def test_bad_names(tmp_path: Path, K: NDArray[np.float64], content: str, message: str) -> None:
    path = write_gcta(tmp_path, K)
    (tmp_path / "k.grm.id").write_text(content)
    with pytest.raises(InputError, match=message):
        open_relationship(path)


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="no file here fails to be read")
def test_a_file_that_the_system_cannot_read() -> None:
    with pytest.raises(InputError, match="/proc/self/mem cannot be read .*; check the disk"):
        open_sparse("/proc/self/mem", None)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    for name in ("k", "k.grm.bin", "k.rel", "k.npy", "k.csv"):
        with pytest.raises(InputError, match="no such file"):
            open_relationship(str(tmp_path / name))
    with pytest.raises(InputError, match="is a directory"):
        open_relationship(str(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    for name, said in (("-", "standard input"), (str(tmp_path / "pipe"), "pipe")):
        with pytest.raises(InputError, match=f"{said} is no file, and a matrix is read more than once; write it to"):
            open_relationship(name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"IID a\xff\n", "not readable as text"),
        (b"\x1f\x8b\x08\x00broken", "not readable as text"),
        (b"name,a,b\nx,1,2\ny,3,4\n", "line 1: the first column is 'name'"),
        (b"IID\nx\ny\n", "no column besides"),
        (b"IID,a\n", "a header and no samples"),
        (b"IID,a\nx,1\n,2\n", "line 3: the line does not begin with the name"),
        (b"FID IID a\nf x 1\nf x 2\n", "line 3: sample 'f x' was already in line 2"),
        (b"IID,x,y\nx,1,0\nz,0,1\n", "looks like a square matrix, but 'y' of its header"),
        (b"IID,x,x\nx,1,0\nz,0,1\n", "looks like a square matrix, but 'x' of its header"),
    ],
)
def test_tables_that_cannot_be_told(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "k.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        open_relationship(str(path))


def listed(K: NDArray[np.float64]) -> str:
    """GCTA's text: two positions from 1, a number of variants, the relationship."""
    return "".join(f"{i + 1}\t{j + 1}\t100\t{float(K[i, j])!r}\n" for i in range(len(K)) for j in range(i + 1))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda lines: lines[:-1], "has 275 lines of 4 columns, but 23 samples make 276 lines of 4"),
        (lambda lines: [lines[1], lines[0], *lines[2:]], "line 1: has the pair 2 1 where 1 1 is expected"),
        (lambda lines: [*lines[:-1], "23 23 100 x\n"], "not readable as GCTA's list of pairs"),
    ],
)
def test_gcta_text_that_is_wrong(tmp_path: Path, K: NDArray[np.float64], edit: Any, message: str) -> None:
    write_gcta(tmp_path, K)
    text = "".join(edit(listed(K).splitlines(keepends=True)))
    (tmp_path / "k.grm.gz").write_bytes(gzip.compress(text.encode()))
    with pytest.raises(InputError, match=message):
        open_relationship(str(tmp_path / "k.grm.gz")).load(np.arange(N))


def test_three_columns_without_a_header(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="three columns and no header: .* put the line 'ID1 ID2 RELATIONSHIP' first"):
        open_relationship(write_table(tmp_path, "a a 1\na b 0.5\nb b 1\n"))


def table_of_G(G: NDArray[np.float64], header: str = "IID") -> str:
    names = [f"v{j}" for j in range(G.shape[1])]
    prefix = "f," if header.startswith("FID") else ""
    lines = [",".join([header, *names])]
    lines += [f"{prefix}i{i}," + ",".join(repr(float(v)) for v in row) for i, row in enumerate(G)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("header", ["IID", "#IID", "FID,IID"])
@pytest.mark.parametrize("r", [1, 16, 17, 40, N])
def test_table_of_G(tmp_path: Path, header: str, r: int) -> None:
    G = np.random.default_rng(0).normal(5, 2, (N, r))
    file = open_relationship(write_table(tmp_path, table_of_G(G, header)))
    relationship = file.load(ROWS)
    assert dict(relationship.counts) == {"samples read": N, "columns read": r}
    assert relationship.samples.iids == tuple(f"i{i}" for i in ROWS)
    if r < len(ROWS):
        np.testing.assert_array_equal(relationship.G, G[ROWS])
        assert relationship.K is None
    else:
        assert relationship.K is not None and relationship.G is None
        np.testing.assert_allclose(relationship.K, G[ROWS] @ G[ROWS].T, rtol=1e-13)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("i9,1,x", "line 3, column 3: 'x' is not a number; where its columns are variants, say with --map where"),
        ("i9,1,", "line 3, column 3: '' is not a number"),
        ("i9,1", "line 3: 2 fields where the header has 3"),
        ("i9,1,2,3", "line 3: 4 fields where the header has 3"),
        ("i9,1,nan", "sample 'i9' has no finite number in column 'b'"),
    ],
)
def test_bad_lines_of_a_table(tmp_path: Path, line: str, message: str) -> None:
    file = open_relationship(write_table(tmp_path, f"IID,a,b\ni0,1,2\n{line}\n"))
    with pytest.raises(InputError, match=message):
        file.load(np.arange(2))


@pytest.mark.skipif(shutil.which("plink2") is None, reason="plink2 is not installed")
def test_what_plink2_writes(make_bed: Callable[..., str], simulate_dosages: Callable[..., Any]) -> None:
    stem = make_bed(simulate_dosages(60, 200, missing=0)).removesuffix(".bed")
    plink2 = ["plink2", "--bfile", stem, "--silent", "--out"]
    for name, options in {
        "square": ["--make-rel", "square"],
        "square0": ["--make-rel", "square0"],
        "triangle": ["--make-rel", "triangle"],
        "bin": ["--make-rel", "bin"],
        "bin4": ["--make-rel", "bin4"],
        "bin_triangle": ["--make-rel", "bin", "triangle"],
        "gcta": ["--make-grm-bin"],
        "zs": ["--make-rel", "square", "zs"],
        "list": ["--make-grm-list", "zs"],
    }.items():
        subprocess.run([*plink2, f"{stem}_{name}", *options], check=True)
        K = open_relationship(f"{stem}_{name}").load(np.arange(60)).K
        reference = open_relationship(f"{stem}_square.rel").load(np.arange(60)).K
        assert K is not None and reference is not None
        np.testing.assert_allclose(K, reference, atol=1e-5)  # text has 6 digits
