"""BGEN files of another program's making, and files with one thing wrong."""

import os
import sqlite3
import struct
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.genotypes import bgen
from kron2sum_cli.genotypes.bgen import Compression, open_bgen, read_block
from kron2sum_cli.genotypes.sample_files import read_oxford_sample

N, M = 23, 40
SAMPLE_HEADER = "ID_1 ID_2 missing sex\n0 0 0 D\n"

WriteBgen = Callable[..., str]


@pytest.fixture
def write_bgen(tmp_path: Path) -> WriteBgen:
    """Writes (n, m, 3) probabilities with the package ``bgen`` and returns the path of the file."""
    bgen = pytest.importorskip("bgen")

    def write(
        probabilities: NDArray[np.float64],
        name: str = "g",
        bits: int = 16,
        compression: str | None = "zlib",
        alleles: Sequence[str] = ("A", "G"),
        iids: bool = True,
        index: bool = False,
        first_name: str = "rs0",
    ) -> str:
        n, m, _ = probabilities.shape
        path = tmp_path / f"{name}.bgen"
        names = [f"i{i}" for i in range(n)] if iids else []
        with bgen.BgenWriter(str(path), n, samples=names, compression=compression) as writer:
            for j in range(m):
                rsid = f"rs{j}" if j else first_name
                g = probabilities[:, j]
                writer.add_variant(f"v{j}", rsid, "01", j + 1, list(alleles), g, bit_depth=bits)
        if not index:
            os.remove(f"{path}.bgi")
        return str(path)

    return write


@pytest.fixture
def probabilities() -> NDArray[np.float64]:
    """(N, M, 3): certain genotypes in the first half, missing ones among them."""
    rng = np.random.default_rng(0)
    p = rng.dirichlet((0.5, 0.5, 0.5), (N, M))
    p[:, : M // 2] = np.eye(3)[rng.integers(0, 3, (N, M // 2))]
    p[rng.random((N, M)) < 0.1] = np.nan
    return p


def dosage_of_first(p: NDArray[np.float64]) -> NDArray[np.float64]:
    dosage: NDArray[np.float64] = 2 * p[..., 0] + p[..., 1]
    return dosage


@pytest.fixture
def path(write_bgen: WriteBgen, probabilities: NDArray[np.float64]) -> str:
    return write_bgen(probabilities)


@pytest.mark.parametrize("compression", [None, "zlib", "zstd"])
@pytest.mark.parametrize("bits", [1, 3, 8, 11, 16, 17, 24, 32])
@pytest.mark.filterwarnings("ignore:.*bit depth.*")
def test_dosages_count_the_first_allele(
    write_bgen: WriteBgen, probabilities: NDArray[np.float64], bits: int, compression: str | None
) -> None:
    bgen = pytest.importorskip("bgen")
    path = write_bgen(probabilities, bits=bits, compression=compression)
    block = open_bgen(path).read(np.arange(M), np.arange(N))
    expected = dosage_of_first(probabilities)
    np.testing.assert_allclose(block, expected, rtol=0, atol=2.1 / (2**bits - 1) + 2e-7)
    np.testing.assert_array_equal(block[:, : M // 2], expected[:, : M // 2])
    assert block.dtype == np.float32 and block.flags.f_contiguous
    with bgen.BgenReader(path) as reader:
        second = np.array([variant.alt_dosage for variant in reader]).T
    np.testing.assert_allclose(block, 2 - second, rtol=0, atol=4e-7)


def test_rows_and_variants_are_chosen_in_the_order_asked(path: str) -> None:
    source = open_bgen(path)
    whole = source.read(np.arange(M), np.arange(N))
    variants, rows = np.array([0, 7, M - 1]), np.array([12, 0, 5])
    np.testing.assert_array_equal(source.read(variants, rows), whole[np.ix_(rows, variants)])
    assert source.read(np.arange(0), rows).shape == (3, 0)
    assert source.read(variants, np.arange(0)).shape == (0, 3)


def test_names_of_samples_and_variants(path: str) -> None:
    source = open_bgen(path)
    assert source.samples.fids is None and source.samples.iids[4] == "i4"
    assert source.variants.table.slice(2, 1).to_pylist() == [
        {"CHR": "01", "POS": 3, "SNPID": "rs2", "EA": "A", "NEA": "G"}
    ]
    assert source.files == (path,)


def test_threads_read_the_same(path: str) -> None:
    source = open_bgen(path)
    rows = np.random.default_rng(0).permutation(N)
    blocks = [np.arange(start, min(start + 7, M)) for start in range(0, M, 7)] * 10
    alone = [source.read(block, rows) for block in blocks]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda block: source.read(block, rows), blocks))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("variants", "rows"), [([0, M], [0]), ([0], [-1]), ([0], [N])])
def test_positions_outside_the_file_are_refused(path: str, variants: list[int], rows: list[int]) -> None:
    with pytest.raises(IndexError, match="not all below"):
        open_bgen(path).read(np.array(variants), np.array(rows))


@pytest.mark.parametrize("batch", [1, 7, 40])
def test_long_alleles_and_batches_of_variants(
    write_bgen: WriteBgen, probabilities: NDArray[np.float64], monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(bgen, "BATCH_VARIANTS", batch)
    long = "ACGT" * 2000
    source = open_bgen(write_bgen(probabilities, alleles=("A", long), first_name=""))
    table = source.variants.table
    assert table["NEA"].to_pylist() == [long] * M and table["POS"].to_pylist() == list(range(1, M + 1))
    assert table["SNPID"].to_pylist() == [".", *(f"rs{j}" for j in range(1, M))]


def test_phased_genotypes(tmp_path: Path) -> None:
    bgen = pytest.importorskip("bgen")
    p = np.array([[1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 0, 1], [0.25, 0.75, 0.5, 0.5], [np.nan] * 4])
    with bgen.BgenWriter(str(tmp_path / "g.bgen"), 5, samples=list("abcde")) as writer:
        writer.add_variant("v", "r", "1", 1, ["A", "G"], p, phased=True, bit_depth=16)
    block = open_bgen(str(tmp_path / "g.bgen")).read(np.arange(1), np.arange(5))[:, 0]
    np.testing.assert_allclose(block, [2, 1, 0, 0.75, np.nan], atol=1e-4)


@pytest.mark.parametrize("phased", [False, True])
@pytest.mark.parametrize("bits", [8, 11, 16, 32])
def test_haploid_genotypes_count_twice(phased: bool, bits: int) -> None:
    one = 2**bits - 1
    ploidy = [1, 2, 1, 0x80 | 1, 2, 0x80, 0, 0x80 | 2, 1]
    values = [one, one, 0, 0, 0, 0, one, 0, 0, one // 4]
    expected = np.array([2, 1 if phased else 2, 0, np.nan, 1, np.nan, np.nan, np.nan, 2 * (one // 4) / one])
    dosages = read_block(block(ploidy, values, bits, phased), "none", len(ploidy))
    np.testing.assert_array_equal(dosages, expected.astype(np.float32))


@pytest.mark.parametrize("phased", [False, True])
def test_genotypes_of_several_copies(phased: bool) -> None:
    """Copies over the ploidy, times 2: unphased P(3), P(2), P(1) of three copies; phased P on each chromosome."""
    one = 255
    values = [one, 0, 0, 0, one, 0, 0, 0, 0, 0, 0, one, 0, one, 0, 0]
    expected = [2 / 3, 2 / 3, 0, 0.5, 2] if phased else [2, 4 / 3, 0, 1, 2]
    values[13:15] = [one, one] if phased else [one, 0]
    dosages = read_block(block([3, 3, 3, 4, 2], values[:15], 8, phased), "none", 5)
    np.testing.assert_allclose(dosages, expected, rtol=1e-7)


def block(ploidy: Sequence[int], values: Sequence[int], bits: int = 8, phased: bool = False) -> bytes:
    """A genotype block, by the specification of the format."""
    stored = sum(value << bits * i for i, value in enumerate(values))
    head = struct.pack("<IHBB", len(ploidy), 2, 0, 2) + bytes(ploidy) + bytes([phased, bits])
    return head + stored.to_bytes(-(-bits * len(values) // 8), "little")


GOOD = block([2, 2], [255, 0, 0, 255])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (GOOD[:11], "it has 11 bytes, too few for 2 samples"),
        (GOOD[:-1], "it has 3 bytes for 4 probabilities of 8 bits"),
        (GOOD + b"\0", "it has 5 bytes for 4"),
        (block([2, 2, 2], [0] * 6), "it has 3 samples, and the file 2"),
        (block([2, 2], [0, 0, 200, 100]), "probabilities of sample 2 add up to more than 1"),
        (GOOD[:11] + b"\0" + GOOD[12:], "it claims 0 bits"),
        (GOOD[:11] + b"\x21" + GOOD[12:], "it claims 33 bits"),
        (GOOD[:10] + b"\2" + GOOD[11:], "2 as a sign of phase"),
    ],
)
def test_damaged_blocks(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_block(data, "none", 2)
    with pytest.raises(ValueError, match=message):
        read_block(struct.pack("<I", len(data)) + zlib.compress(data), "zlib", 2)


@pytest.mark.parametrize("compression", ["zlib", "zstd"])
def test_damaged_compression(compression: Compression) -> None:
    packed = zlib.compress(GOOD)
    for data in (b"", b"abc", struct.pack("<I", len(GOOD)) + b"not packed"):
        with pytest.raises(ValueError, match="claims|cannot be decompressed"):
            read_block(data, compression, 2)
    with pytest.raises(ValueError, match="it claims 4000000000 bytes"):
        read_block(struct.pack("<I", 4_000_000_000) + packed, compression, 2)
    with pytest.raises(ValueError, match="bytes decompressed, not 17|cannot be decompressed"):
        read_block(struct.pack("<I", 17) + packed, compression, 2)


def change(path: str, at: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(data)


def test_message_of_a_damaged_variant(path: str) -> None:
    source = open_bgen(path)
    change(path, int(source.ends[5]) - 12, b"\0" * 12)
    source.read(np.array([4, 6]), np.arange(N))
    with pytest.raises(InputError, match=r"g\.bgen, variant 6 \(rs5\): .* --exclude"):
        source.read(np.array([4, 5, 6]), np.arange(N))


def test_file_changed_after_opening(path: str, tmp_path: Path) -> None:
    source = open_bgen(path)
    os.truncate(path, int(source.ends[5]) - 5)
    with pytest.raises(InputError, match="variant 6 .*changed after it was opened"):
        source.read(np.array([5]), np.arange(N))
    with pytest.raises(InputError, match="variant 8 .*the file ends there"):
        source.read(np.array([7]), np.arange(N))
    os.remove(path)
    with pytest.raises(InputError, match="can no longer be read"):
        source.read(np.array([5]), np.arange(N))


@pytest.mark.parametrize("size", [0, 10, 19, 22, 30, 60])
def test_header_cut_short(path: str, size: int) -> None:
    os.truncate(path, size)
    with pytest.raises(InputError, match=r"g\.bgen (ends within its header|is not BGEN)"):
        open_bgen(path)


@pytest.mark.parametrize("missing", [1, 20, 200, 1500])
def test_file_cut_short(path: str, missing: int) -> None:
    os.truncate(path, os.path.getsize(path) - missing)
    with pytest.raises(InputError, match=r"is cut short or damaged in variant \d+ of 40"):
        open_bgen(path)


def test_other_numbers_in_the_header(path: str) -> None:
    data = Path(path).read_bytes()
    change(path, 8, struct.pack("<I", 4_000_000_000))
    with pytest.raises(InputError, match="in variant 41 of 4000000000"):
        open_bgen(path)
    change(path, 8, struct.pack("<I", M - 1))
    with pytest.raises(InputError, match=r"bytes behind the last of the 39 variants"):
        open_bgen(path)
    change(path, 8, struct.pack("<I", 0))
    with pytest.raises(InputError, match="has no variant"):
        open_bgen(path)
    change(path, 8, struct.pack("<2I", M, N + 1))
    with pytest.raises(InputError, match="24 samples, but 23 names"):
        open_bgen(path)
    change(path, 0, data[:24])
    assert len(open_bgen(path).variants) == M


@pytest.mark.parametrize("flags", [1 | 1 << 2, 3 | 2 << 2])
def test_other_layout(path: str, flags: int) -> None:
    change(path, 20, struct.pack("<I", flags))
    with pytest.raises(InputError, match=r"has BGEN layout .*plink2 --bgen OLD ref-first"):
        open_bgen(path)


def test_not_bgen(tmp_path: Path) -> None:
    (tmp_path / "x.bgen").write_text("this is some text, and long enough")
    with pytest.raises(InputError, match=r"x\.bgen is not BGEN"):
        open_bgen(str(tmp_path / "x.bgen"))
    with pytest.raises(InputError, match=r"y\.bgen cannot be read"):
        open_bgen(str(tmp_path / "y.bgen"))


@pytest.mark.parametrize("index", [False, True])
def test_more_than_two_alleles(tmp_path: Path, index: bool, caplog: pytest.LogCaptureFixture) -> None:
    bgen = pytest.importorskip("bgen")
    path = tmp_path / "g.bgen"
    with bgen.BgenWriter(str(path), 2, samples=["a", "b"]) as writer:
        writer.add_variant("v", "rs1", "1", 1, ["A", "G"], np.eye(3)[:2])
        writer.add_variant("v", "rs2", "1", 5, ["A", "G", "T"], np.eye(6)[:2])
        writer.add_variant("v", "rs3", "1", 7, ["A", "G"], np.eye(3)[[2, 0]])
    if not index:
        os.remove(f"{path}.bgi")
    source = open_bgen(str(path))
    assert source.variants.table["SNPID"].to_pylist() == ["rs1", "rs3"]
    np.testing.assert_array_equal(source.read(np.arange(2), np.arange(2)), [[2, 0], [1, 2]])
    assert "1 of 3 variants left out for more than two alleles, first 'rs2' at 1:5" in caplog.text


def test_a_single_allele(
    write_bgen: WriteBgen, probabilities: NDArray[np.float64], caplog: pytest.LogCaptureFixture
) -> None:
    path = Path(write_bgen(probabilities[:, :2]))
    alleles = struct.pack("<HIcIc", 2, 1, b"A", 1, b"G")
    path.write_bytes(path.read_bytes().replace(alleles, struct.pack("<HIc", 1, 1, b"A"), 1))
    source = open_bgen(str(path))
    assert source.variants.table["SNPID"].to_pylist() == ["rs1"]
    assert "1 of 2 variants left out for fewer than two alleles, first 'rs0' at 01:1" in caplog.text
    assert "split" not in caplog.text


def test_no_variant_with_two_alleles(tmp_path: Path) -> None:
    bgen = pytest.importorskip("bgen")
    with bgen.BgenWriter(str(tmp_path / "g.bgen"), 2, samples=["a", "b"]) as writer:
        writer.add_variant("v", "rs2", "1", 5, ["A", "G", "T"], np.eye(6)[:2])
    with pytest.raises(InputError, match="1 of 1 variant left out for more than two alleles"):
        open_bgen(str(tmp_path / "g.bgen"))


def test_sample_file(path: str) -> None:
    sample = Path(path).with_suffix(".sample")
    sample.write_text(SAMPLE_HEADER + "".join(f"f{i // 2} i{i} 0 NA\n" for i in range(N)))
    source = open_bgen(path)
    assert source.samples.label(3) == "f1 i3" and source.files == (path, str(sample))
    lines = sample.read_text().splitlines(keepends=True)
    sample.write_text("".join(lines[:-1]))
    with pytest.raises(InputError, match=r"g\.bgen has 23 samples, but .*g\.sample has 22"):
        open_bgen(path)
    sample.write_text("".join([*lines[:2], lines[3], lines[2], *lines[4:]]))
    with pytest.raises(InputError, match="in another order: sample 1 is 'i1' in the one and 'i0' in the other"):
        open_bgen(path)
    sample.write_text(SAMPLE_HEADER + "".join(f"{i} {i} 0 NA\n" for i in range(N)))
    assert open_bgen(path).samples.label(3) == "3 3", "names inside that say nothing are not looked at"


def test_sample_file_of_names_joined_inside(tmp_path: Path) -> None:
    bgen = pytest.importorskip("bgen")
    path = tmp_path / "g.bgen"
    with bgen.BgenWriter(str(path), 2, samples=["f_a", "f_b"]) as writer:
        writer.add_variant("v", "rs1", "1", 1, ["A", "G"], np.eye(3)[:2])
    path.with_suffix(".sample").write_text(SAMPLE_HEADER + "f a 0 1\nf b 0 1\n")
    assert open_bgen(str(path)).samples.label(1) == "f b"
    path.with_suffix(".sample").write_text(SAMPLE_HEADER + "f b 0 1\nf a 0 1\n")
    with pytest.raises(InputError, match="in another order: sample 1 is 'f_b' in the one and 'f_a'"):
        open_bgen(str(path))


def test_no_names_of_samples(write_bgen: WriteBgen, probabilities: NDArray[np.float64]) -> None:
    path = write_bgen(probabilities, iids=False)
    with pytest.raises(InputError, match=r"no names of samples in it, and .*g\.sample is missing"):
        open_bgen(path)


@pytest.mark.parametrize(
    ("text", "fids"),
    [
        (SAMPLE_HEADER + "f1 i1 0 1\nf2 i2 0 2\n", ("f1", "f2")),
        (SAMPLE_HEADER + "0 i1 0 1\n0 i2 0 2\n", None),
        ("ID_1\tID_2\tmissing\n0\t0\t0\nf1\ti1\t0\nf2\ti2\t0\n", ("f1", "f2")),
        ("ID sex\n0 D\ni1 1\ni2 2\n", None),
    ],
)
def test_sample_file_in_all_its_forms(tmp_path: Path, text: str, fids: Sequence[str] | None) -> None:
    (tmp_path / "x.sample").write_text(text)
    samples = read_oxford_sample(str(tmp_path / "x.sample"))
    assert (samples.fids, samples.iids) == (fids, ("i1", "i2"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("f1 i1 0 1\nf2 i2 0 2\n", "does not start as a .sample file"),
        ("ID_1 ID_2 missing\n", "does not start as a .sample file"),
        (SAMPLE_HEADER + "f1 i1 0\n", "line 3: 'f1 i1 0' has 3 columns, but the first line has 4"),
        (SAMPLE_HEADER + "f i 0 1\nf i 0 1\n", "line 4: sample 'f i' was already in line 3"),
    ],
)
def test_sample_file_that_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.sample").write_text(text)
    with pytest.raises(InputError, match=message):
        read_oxford_sample(str(tmp_path / "x.sample"))


def test_index_gives_the_same(
    write_bgen: WriteBgen, probabilities: NDArray[np.float64], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = open_bgen(write_bgen(probabilities, first_name=""))
    path = write_bgen(probabilities, name="with index", index=True, first_name="")
    monkeypatch.delattr(bgen, "_walk")
    source = open_bgen(path)
    assert source.files == (path, f"{path}.bgi")
    assert source.variants.table.equals(plain.variants.table)
    np.testing.assert_array_equal(source.starts, plain.starts)
    np.testing.assert_array_equal(source.ends, plain.ends)


@pytest.mark.parametrize(
    "change_index",
    [
        "DELETE FROM Variant WHERE rsid = 'rs39'",
        "DELETE FROM Variant WHERE rsid = 'rs7'",
        "DELETE FROM Variant",
        "UPDATE Variant SET size_in_bytes = size_in_bytes + 1 WHERE rsid = 'rs39'",
        "UPDATE Variant SET position = 'x' WHERE rsid = 'rs7'",
        "DROP TABLE Variant",
    ],
)
def test_index_that_does_not_fit_is_not_used(
    write_bgen: WriteBgen, probabilities: NDArray[np.float64], change_index: str
) -> None:
    path = write_bgen(probabilities, index=True)
    with sqlite3.connect(f"{path}.bgi") as connection:
        connection.execute(change_index)
    connection.close()
    source = open_bgen(path)
    assert source.files == (path,) and len(source.variants) == M
    Path(f"{path}.bgi").write_bytes(b"not a database, but some text")
    assert open_bgen(path).files == (path,)


def test_index_that_is_older_than_the_file_is_not_used(
    write_bgen: WriteBgen, probabilities: NDArray[np.float64], caplog: pytest.LogCaptureFixture
) -> None:
    """The same sizes and places, so that only the time tells: names of variants before they were corrected."""
    path = write_bgen(probabilities, index=True)
    with sqlite3.connect(f"{path}.bgi") as connection:
        connection.execute("UPDATE Variant SET rsid = 'old' WHERE rsid = 'rs7'")
    connection.close()
    os.utime(f"{path}.bgi", (1, 1))
    source = open_bgen(path)
    assert source.variants.table["SNPID"][7].as_py() == "rs7" and source.files == (path,)
    assert "bgi: is not used, as it is older than" in caplog.text and "bgenix -index -clobber" in caplog.text


def test_sample_file_of_another_name(path: str, tmp_path: Path) -> None:
    sample = tmp_path / "other.sample"
    sample.write_text(SAMPLE_HEADER + "".join(f"f{i // 2} i{i} 0 NA\n" for i in range(N)))
    source = open_bgen(path, str(sample))
    assert source.samples.label(3) == "f1 i3" and source.files == (path, str(sample))
