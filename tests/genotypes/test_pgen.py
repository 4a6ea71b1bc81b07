"""PLINK 2 file sets: what is read, and what is refused."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.genotypes import pgen, variants
from kron2sum_cli.genotypes.pgen import open_pgen
from kron2sum_cli.genotypes.sample_files import read_psam
from kron2sum_cli.genotypes.variants import read_pvar

N, M = 37, 60
STEP = 2.0**-14
"""A .pgen stores dosages in such steps."""
PVAR_HEADER = "#CHROM\tPOS\tID\tREF\tALT\n"
ROWS = [
    {"CHR": "1", "POS": 100, "SNPID": "rs1", "EA": "A", "NEA": "G"},
    {"CHR": "X", "POS": 7, "SNPID": "rs2", "EA": "AT", "NEA": "C"},
]

WritePgen = Callable[..., str]


@pytest.fixture
def write_pgen(tmp_path: Path) -> WritePgen:
    """Writes (n, m) dosages as a PLINK 2 file set and returns the path of its ``.pgen``."""
    pgenlib = pytest.importorskip("pgenlib")

    def write(dosages: NDArray[np.float32], name: str = "g") -> str:
        n, m = dosages.shape
        path = tmp_path / f"{name}.pgen"
        with pgenlib.PgenWriter(bytes(path), n, variant_ct=m, nonref_flags=False, dosage_present=True) as writer:
            for column in np.nan_to_num(dosages.T, nan=-9):
                writer.append_dosages(np.ascontiguousarray(column))
        lines = [f"1\t{j + 1}\trs{j}\tG\tA\n" for j in range(m)]
        path.with_suffix(".pvar").write_text("##source=test\n" + PVAR_HEADER + "".join(lines))
        path.with_suffix(".psam").write_text("#IID\tSEX\n" + "".join(f"i{i}\t2\n" for i in range(n)))
        return str(path)

    return write


@pytest.fixture
def dosages() -> NDArray[np.float32]:
    """(N, M): variants of hard calls, of dosages and of both, with missing ones."""
    rng = np.random.default_rng(0)
    g = rng.binomial(2, 0.3, (N, M)).astype(np.float32)
    g[:, M // 3 :] = np.round(rng.uniform(0, 2, (N, M - M // 3)) / STEP) * STEP
    g[:, 2 * M // 3 :][rng.random((N, M // 3)) < 0.5] = 1
    g[rng.random((N, M)) < 0.1] = np.nan
    return g


@pytest.fixture
def path(write_pgen: WritePgen, dosages: NDArray[np.float32]) -> str:
    return write_pgen(dosages)


def companion(path: str, suffix: str) -> Path:
    return Path(path).with_suffix(suffix)


@pytest.mark.parametrize("piece_bytes", [1, 4 * N * 7, 1 << 20])
def test_dosages_come_back_as_written(
    path: str, dosages: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch, piece_bytes: int
) -> None:
    monkeypatch.setattr(pgen, "PIECE_BYTES", piece_bytes)
    source = open_pgen(path)
    block = source.read(np.arange(M), np.arange(N))
    np.testing.assert_allclose(block, dosages, rtol=0, atol=STEP / 2)
    np.testing.assert_array_equal(block[:, : M // 3], dosages[:, : M // 3])
    assert block.dtype == np.float32 and block.flags.f_contiguous
    variants, rows = np.array([0, 7, 8, M - 1]), np.array([12, 0, N - 1, 5])
    some = source.read(variants, rows)
    np.testing.assert_array_equal(some, block[np.ix_(rows, variants)])
    assert some.flags.f_contiguous


def test_has_dosages(path: str, write_pgen: WritePgen, tmp_path: Path) -> None:
    assert open_pgen(path).has_dosages
    if shutil.which("plink2") is not None:
        made = [
            "plink2",
            "--silent",
            "--pfile",
            path.removesuffix(".pgen"),
            "--make-pgen",
            "--out",
            str(tmp_path / "h"),
        ]
        for extra, expected in (([], True), (["erase-dosage"], False)):
            subprocess.run([*made[:5], *extra, *made[5:]], check=True)
            assert open_pgen(str(tmp_path / "h.pgen")).has_dosages == expected


def test_nothing_is_asked_for(path: str) -> None:
    source = open_pgen(path)
    assert source.read(np.arange(0), np.arange(3)).shape == (3, 0)
    assert source.read(np.arange(4), np.arange(0)).shape == (0, 4)


def test_names_of_samples_and_variants(path: str) -> None:
    source = open_pgen(path)
    assert source.samples.fids is None and source.samples.iids[4] == "i4"
    assert source.variants.table.slice(2, 1).to_pylist() == [
        {"CHR": "1", "POS": 3, "SNPID": "rs2", "EA": "A", "NEA": "G"}
    ]
    assert [os.path.basename(file) for file in source.files] == ["g.pgen", "g.pvar", "g.psam"]


def test_threads_read_the_same_with_a_reader_each(path: str) -> None:
    source = open_pgen(path)
    rows = np.random.default_rng(0).permutation(N)[:20]
    blocks = [np.arange(start, min(start + 11, M)) for start in range(0, M, 11)] * 50
    alone = [source.read(block, rows) for block in blocks]
    assert len(source._idle) == 1
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda block: source.read(block, rows), blocks))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)
    assert 1 <= len(source._idle) <= 4


@pytest.mark.parametrize(("variants", "rows"), [([0, M], [0]), ([0], [-1]), ([0], [N])])
def test_positions_outside_the_file_are_refused(path: str, variants: list[int], rows: list[int]) -> None:
    with pytest.raises(IndexError, match="not all below"):
        open_pgen(path).read(np.array(variants), np.array(rows))


@pytest.mark.parametrize("suffix", [".pvar", ".psam"])
def test_missing_companion(path: str, suffix: str) -> None:
    os.remove(companion(path, suffix))
    with pytest.raises(InputError, match=rf"g\{suffix} is missing; the (variants|samples) of .*g\.pgen"):
        open_pgen(path)


@pytest.mark.parametrize(("suffix", "message"), [(".pvar", "60 variants, but .* has 59"), (".psam", "37 samples")])
def test_companion_of_another_file(path: str, suffix: str, message: str) -> None:
    file = companion(path, suffix)
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(InputError, match=message):
        open_pgen(path)


def test_bim_and_fam_in_place_of_pvar_and_psam(path: str, dosages: NDArray[np.float32]) -> None:
    os.remove(companion(path, ".pvar"))
    os.remove(companion(path, ".psam"))
    companion(path, ".bim").write_text("".join(f"1 rs{j} 0 {j + 1} A G\n" for j in range(M)))
    companion(path, ".fam").write_text("".join(f"f i{i} 0 0 0 -9\n" for i in range(N)))
    source = open_pgen(path)
    assert source.variants.table.slice(1, 1).to_pylist() == [
        {"CHR": "1", "POS": 2, "SNPID": "rs1", "EA": "A", "NEA": "G"}
    ]
    assert source.samples.label(3) == "f i3"


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.9])
def test_file_cut_short(path: str, share: float) -> None:
    os.truncate(path, int(share * os.path.getsize(path)))
    with pytest.raises(InputError, match=r"g\.pgen cannot be (opened|read).*plink2 --validate"):
        open_pgen(path).read(np.arange(M), np.arange(N))


def test_file_cut_short_after_opening(write_pgen: WritePgen) -> None:
    path = write_pgen(np.random.default_rng(0).uniform(0, 2, (400, 300)).astype(np.float32))
    source = open_pgen(path)
    os.truncate(path, os.path.getsize(path) // 2)
    with pytest.raises(InputError, match=r"cannot be read in variants 1 to 300"):
        source.read(np.arange(300), np.arange(400))
    assert len(source._idle) == 0, "a reader that failed is not used again"


def test_several_alt_alleles(path: str, dosages: NDArray[np.float32], caplog: pytest.LogCaptureFixture) -> None:
    pvar = companion(path, ".pvar")
    pvar.write_text(pvar.read_text().replace("rs7\tG\tA\n", "rs7\tG\tA,T\n").replace("rs9\tG\tA\n", "rs9\tG\tA,C\n"))
    source = open_pgen(path)
    two_alleles = np.delete(np.arange(M), [7, 9])
    assert source.variants.table["SNPID"].to_pylist() == [f"rs{j}" for j in two_alleles]
    assert source.variants.left_out == {"rs7", "rs9"}
    block = source.read(np.arange(5, 20), np.arange(N))
    np.testing.assert_allclose(block, dosages[:, two_alleles[5:20]], rtol=0, atol=STEP / 2)
    assert "2 of 60 variants left out for more than two alleles, first 'rs7' at 1:8" in caplog.text
    pvar.write_text(pvar.read_text().replace("\tA\n", "\tA,T\n"))
    with pytest.raises(InputError, match="60 of 60 variants .* multiallelics=-"):
        open_pgen(path)


def test_genotypes_of_several_alt_alleles(tmp_path: Path) -> None:
    """Records that plink2 writes for them need their numbers of alleles to be read, and others beside them."""
    pgenlib = pytest.importorskip("pgenlib")
    alleles = np.random.default_rng(0).integers(0, [[[2]], [[4]], [[2]], [[3]], [[2]]], (5, N, 2)).astype(np.int32)
    alleles.sort(axis=2)
    path = tmp_path / "g.pgen"
    with pgenlib.PgenWriter(os.fsencode(path), N, variant_ct=5, nonref_flags=False, allele_ct_limit=4) as writer:
        for record, n_alleles in zip(alleles, (2, 4, 2, 3, 2), strict=True):
            writer.append_alleles(record.ravel(), allele_ct=n_alleles)
    alts = ("C", "C,G,T", "C", "C,G", "C")
    rows = [f"1\t{j + 1}\trs{j}\tA\t{alt}\n" for j, alt in enumerate(alts)]
    path.with_suffix(".pvar").write_text(PVAR_HEADER + "".join(rows))
    path.with_suffix(".psam").write_text("#IID\n" + "".join(f"i{i}\n" for i in range(N)))
    source = open_pgen(str(path))
    with ThreadPoolExecutor(2) as pool:
        blocks = list(pool.map(lambda _: source.read(np.arange(3), np.arange(N)), range(4)))
    for block in [*blocks, open_pgen(str(path)).read(np.arange(3), np.arange(N))]:
        np.testing.assert_array_equal(block, alleles[[0, 2, 4]].sum(axis=2).T)
    path.with_suffix(".pvar").write_text(PVAR_HEADER + "".join(rows[:4]))
    with pytest.raises(InputError, match=r"g\.pgen has 5 variants, but .*g\.pvar has 4; they do not"):
        open_pgen(str(path))


def test_pgenlib_is_not_installed(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pgenlib", None)
    with pytest.raises(InputError, match=r"pip install 'kron2sum-cli\[pgen\]'.*plink2 --pfile .*g --make-bed --out"):
        open_pgen(path)


def write_text(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


PVAR = PVAR_HEADER + "1\t100\trs1\tG\tA\nX\t7\trs2\tC\tAT\n"


@pytest.mark.parametrize(
    "text",
    [
        PVAR,
        PVAR.replace("\n", "\r\n"),
        PVAR.replace("\t", "  "),
        "##fileformat=VCFv4.3\n##contig=<ID=1 x>\n" + PVAR,
        "#CHROM\tID\tINFO\tPOS\tALT\tREF\tCM\n1\trs1\tA=1 2;B\t100\tA\tG\t0\nX\trs2\t.\t7\tAT\tC\t1.5\n",
        "1\trs1\t100\tA\tG\nX\trs2\t7\tAT\tC\n",
        "1 rs1 0 100 A G\nX rs2 0 7 AT C\n",
    ],
)
@pytest.mark.parametrize("chunk_bytes", [1, 30, 1 << 20])
def test_pvar_in_all_its_forms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, chunk_bytes: int) -> None:
    monkeypatch.setattr(variants, "CHUNK_BYTES", chunk_bytes)
    assert read_pvar(write_text(tmp_path, "x.pvar", text)).table.to_pylist() == ROWS


def test_compressed_pvar(tmp_path: Path) -> None:
    lines = "".join(f"1\t{j}\trs{j}\tG\tA\n" for j in range(50_000))
    with pa.output_stream(str(tmp_path / "x.pvar.zst"), compression="zstd") as file:
        file.write(("##source\n" + PVAR_HEADER + lines).encode())
    table = read_pvar(str(tmp_path / "x.pvar.zst")).table
    assert table["POS"].to_pylist() == list(range(50_000))
    data = (tmp_path / "x.pvar.zst").read_bytes()
    (tmp_path / "y.pvar.zst").write_bytes(data[: len(data) // 2])
    (tmp_path / "z.pvar.zst").write_bytes(b"plain text")
    for name in "yz":
        with pytest.raises(InputError, match=rf"{name}\.pvar\.zst cannot be read"):
            read_pvar(str(tmp_path / f"{name}.pvar.zst"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PVAR_HEADER, "has no variant"),
        ("##only\n", "has no variant"),
        ("", "has no variant"),
        ("#CHROM\tPOS\tID\tREF\n", "line 1: .* not so: ALT"),
        ("##x\n#CHROM\tPOS\tID\tREF\tALT\tALT\n", "line 2: .* not so: ALT"),
        ("#IID\tSEX\n", "is not the header of a .pvar"),
        (PVAR + "2\t5\trs3\tA\n", r"line 4: '2 5 rs3 A' has 4 columns; the header has 5"),
        ("##x\n" + PVAR + "2\tten\trs3\tA\tC\n", r"line 5: position 'ten' of variant 'rs3'"),
        ("1 rs1 5 A\n", "has 4 columns; a .pvar without header has five"),
    ],
)
def test_pvar_that_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_pvar(write_text(tmp_path, "x.pvar", text))


@pytest.mark.parametrize(
    ("text", "fids"),
    [
        ("#FID\tIID\tSEX\nf1\ti1\t1\nf2\ti2\t2\n", ("f1", "f2")),
        ("##x\n#FID IID PAT MAT SEX y\nf1 i1 0 0 1 NA\n\nf2 i2 0 0 2 1.5\n", ("f1", "f2")),
        ("#FID\tIID\n0\ti1\n0\ti2\n", None),
        ("#FID\tIID\n0\ti1\nf\ti2\n", ("0", "f")),
        ("#IID\ni1\ni2\n", None),
        ("#IID\tSID\tSEX\ni1\ta\tNA\ni2\tb\tNA\n", None),
        ("f1 i1 0 0 1 2\nf2 i2 0 0 2 1\n", ("f1", "f2")),
    ],
)
def test_psam_in_all_its_forms(tmp_path: Path, text: str, fids: Sequence[str] | None) -> None:
    samples = read_psam(write_text(tmp_path, "x.psam", text))
    assert (samples.fids, samples.iids) == (fids, ("i1", "i2"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("#IID\tSEX\n", "has no sample"),
        ("#IID\tSEX\ni1\t1\ni2\n", r"line 3: 'i2' has 1 columns, but the header has 2"),
        ("#IID\ni1\n\ni1\n", "line 4: sample 'i1' was already in line 2"),
        ("#SEX\tIID\n1\ti1\n", "line 1: '#SEX IID' is not the header of a .psam"),
        ("##comment\n", "has no sample"),
    ],
)
def test_psam_that_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_psam(write_text(tmp_path, "x.psam", text))
