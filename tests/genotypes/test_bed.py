"""PLINK 1 file sets: what is read, and what is refused."""

import os
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import bed_reader
import numpy as np
import pytest

from kron2sum_cli.errors import InputError
from kron2sum_cli.genotypes.bed import open_bed

N, M = 13, 150
"""13 samples: three unused places in the last byte of a variant."""


@pytest.fixture
def path(make_bed: Callable[..., str], simulate_dosages: Callable[..., Any]) -> str:
    return make_bed(simulate_dosages(N, M))


def edit_lines(path: str, edit: Callable[[list[str]], list[str]]) -> None:
    lines = Path(path).read_text().splitlines(keepends=True)
    Path(path).write_text("".join(edit(lines)))


def fam_of(path: str) -> str:
    return path.removesuffix("bed") + "fam"


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 31])
def test_dosages_come_back_as_written(
    n: int, make_bed: Callable[..., str], simulate_dosages: Callable[..., Any]
) -> None:
    dosages = simulate_dosages(n, 40, missing=0.2)
    source = open_bed(make_bed(dosages))
    block = source.read(np.arange(40), np.arange(n))
    np.testing.assert_array_equal(block, dosages)
    assert block.dtype == np.float32 and block.flags.f_contiguous


def test_rows_and_variants_are_chosen_in_the_order_asked(
    make_bed: Callable[..., str], simulate_dosages: Callable[..., Any]
) -> None:
    dosages = simulate_dosages(N, M)
    source = open_bed(make_bed(dosages))
    rows = np.array([12, 0, 5])
    for positions in ([0, 7, 149], [0, 2, 2], [3, 3, 5], [4, 4]):
        variants = np.array(positions)
        np.testing.assert_array_equal(source.read(variants, rows), dosages[np.ix_(rows, variants)])
    assert source.read(np.arange(0), rows).shape == (3, 0)
    assert source.read(np.arange(3), np.arange(0)).shape == (0, 3)


def test_names_of_samples_and_variants(path: str) -> None:
    source = open_bed(path)
    assert source.samples.label(4) == "f1 i4"
    assert len(source.samples) == N and len(source.variants) == M
    assert source.variants.table.slice(2, 1).to_pylist() == [
        {"CHR": "1", "POS": 3, "SNPID": "rs2", "EA": "A", "NEA": "G"}
    ]
    assert [os.path.basename(file) for file in source.files] == ["g.bed", "g.bim", "g.fam"]


@pytest.mark.skipif(shutil.which("plink2") is None, reason="plink2 is not installed")
def test_dosages_count_the_first_allele_of_the_bim(path: str) -> None:
    stem = path.removesuffix(".bed")
    command = ["plink2", "--bfile", stem, "--export", "A", "--export-allele", f"{stem}.a1", "--out", stem]
    source = open_bed(path)
    names = source.variants.table["SNPID"].to_pylist()
    Path(f"{stem}.a1").write_text("".join(f"{name}\tA\n" for name in names))
    subprocess.run([*command, "--silent", "--allow-extra-chr"], check=True)
    raw = [line.split("\t")[6:] for line in Path(f"{stem}.raw").read_text().splitlines()[1:]]
    expected = np.array([[np.nan if field == "NA" else float(field) for field in row] for row in raw])
    np.testing.assert_array_equal(source.read(np.arange(M), np.arange(N)), expected)


def test_threads_read_the_same(path: str) -> None:
    source = open_bed(path)
    rows = np.random.default_rng(0).permutation(N)
    blocks = [np.arange(start, min(start + 11, M)) for start in range(0, M, 11)] * 20
    alone = [source.read(block, rows) for block in blocks]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda block: source.read(block, rows), blocks))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("n", [1, 5, 64])
def test_a_byte_decodes_by_the_specification(
    make_bed: Callable[..., str], simulate_dosages: Callable[..., Any], n: int
) -> None:
    """Two bits a sample, the first in the lowest: 00 two copies of allele 1, 01 missing, 10 one copy, 11 none."""
    path = make_bed(simulate_dosages(n, M, missing=0.2))
    codes = np.frombuffer(Path(path).read_bytes()[3:], np.uint8).reshape(M, -1)
    copies = np.array([2, np.nan, 1, 0])[(codes[:, :, None] >> np.arange(0, 8, 2)) & 3].reshape(M, -1)[:, :n].T
    source, rng = open_bed(path), np.random.default_rng(n)
    for rows in (np.arange(n), rng.permutation(n), np.arange(n // 2, n), rng.integers(0, n, 2 * n), np.arange(1)):
        for variants in (np.arange(M), np.arange(20, 61), np.sort(rng.permutation(M)[:40]), np.array([0, 1, M - 1])):
            found = source.read(variants, rows)
            np.testing.assert_array_equal(found, copies[np.ix_(rows, variants)])
            assert found.flags.f_contiguous


def test_a_last_sample_that_is_homozygous_everywhere_is_a_sample(
    make_bed: Callable[..., str], simulate_dosages: Callable[..., Any]
) -> None:
    dosages = simulate_dosages(N, M)
    dosages[-1] = 2
    np.testing.assert_array_equal(open_bed(make_bed(dosages)).read(np.arange(M), np.arange(N)), dosages)


@pytest.mark.parametrize(("variants", "rows"), [([0, M], [0]), ([0], [-1]), ([0], [N])])
def test_positions_outside_the_file_are_refused(path: str, variants: list[int], rows: list[int]) -> None:
    with pytest.raises(IndexError, match="not all below"):
        open_bed(path).read(np.array(variants), np.array(rows))


@pytest.mark.parametrize("suffix", ["bed", "bim", "fam"])
def test_missing_file(path: str, suffix: str) -> None:
    os.remove(path.removesuffix("bed") + suffix)
    with pytest.raises(InputError, match=rf"g\.{suffix}"):
        open_bed(path)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 7, 100, 3 + 4 * 149, 3 + 4 * M - 1, 3 + 4 * M + 1])
def test_bed_cut_or_grown(path: str, size: int) -> None:
    data = Path(path).read_bytes() + b"\0"
    Path(path).write_bytes(data[:size])
    short = "is empty" if size == 0 else "not a PLINK 1 .bed"
    with pytest.raises(InputError, match=short if size < 3 else f"has {size} bytes") as caught:
        open_bed(path)
    if size >= 3:
        assert f"{N} samples" in str(caught.value) and f"make {3 + 4 * M}" in str(caught.value)


def test_wrong_size_says_what_would_fit(path: str) -> None:
    edit_lines(fam_of(path), lambda lines: lines[:8])
    with pytest.raises(InputError, match="no whole number|300 variants .* or 13 to 16 samples"):
        open_bed(path)


def test_wrong_magic_number(path: str) -> None:
    data = Path(path).read_bytes()
    Path(path).write_bytes(b"chr" + data[3:])
    with pytest.raises(InputError, match="g.bed is not a PLINK 1 .bed: it starts with the bytes 63 68 72"):
        open_bed(path)


def test_sample_major_order_is_read(
    tmp_path: Path, make_bed: Callable[..., str], simulate_dosages: Callable[..., Any]
) -> None:
    dosages = simulate_dosages(N, M)
    path = make_bed(dosages)
    bed_reader.to_bed(path, dosages, major="individual", fam_filepath=tmp_path / "x", bim_filepath=tmp_path / "y")
    assert Path(path).read_bytes()[2] == 0
    rows, variants = np.array([12, 0, 5]), np.array([0, 7, 149])
    np.testing.assert_array_equal(open_bed(path).read(variants, rows), dosages[np.ix_(rows, variants)])
    Path(path).write_bytes(Path(path).read_bytes()[:-1])
    with pytest.raises(InputError, match=r"has 496 bytes, but .*\.bim and .*\.fam make 497"):
        open_bed(path)


@pytest.mark.parametrize("dropped", [1, 2, 3])
def test_fam_with_too_few_lines_of_the_same_size(
    make_bed: Callable[..., str], simulate_dosages: Callable[..., Any], dropped: int
) -> None:
    path = make_bed(simulate_dosages(16, M))
    edit_lines(fam_of(path), lambda lines: lines[:-dropped])
    with pytest.raises(InputError, match=rf"genotypes of more samples than the {16 - dropped} lines of .*g\.fam"):
        open_bed(path)


def test_files_of_other_names(path: str, tmp_path: Path) -> None:
    for suffix in ("bim", "fam"):
        os.rename(path.removesuffix("bed") + suffix, tmp_path / f"other.{suffix}")
    bim, fam = str(tmp_path / "other.bim"), str(tmp_path / "other.fam")
    with pytest.raises(InputError, match=r"g\.fam is missing; .*scan and export also take --fam FILE"):
        open_bed(path, bim)
    source = open_bed(path, bim, fam)
    assert source.files == (path, bim, fam) and len(source.samples) == N


@pytest.mark.parametrize("size", [3, 4, 200, 599])
def test_file_cut_short_after_opening(path: str, size: int) -> None:
    source = open_bed(path)
    os.truncate(path, size)
    with pytest.raises(InputError, match="can no longer be read"):
        source.read(np.arange(M), np.arange(N))
    with pytest.raises(InputError, match="can no longer be read"):
        source.read(np.array([0, M - 1]), np.arange(N))


def test_bim_of_another_file(path: str) -> None:
    edit_lines(path.removesuffix("bed") + "bim", lambda lines: lines[:-1])
    with pytest.raises(InputError, match="it would fit 150 variants"):
        open_bed(path)
