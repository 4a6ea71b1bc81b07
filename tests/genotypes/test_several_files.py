"""Genotypes in several files are one data set, whatever the formats and the order of samples."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError, UsageError
from kron2sum_cli.genotypes.grm import GrmOptions, relationship_from_genotypes, relationships_by_chromosome
from kron2sum_cli.genotypes.open import open_genotype_file, open_genotypes

N, M = 13, 30


@pytest.fixture
def dosages(simulate_dosages: Callable[..., Any]) -> NDArray[np.float32]:
    whole: NDArray[np.float32] = simulate_dosages(N, M)
    return whole


@pytest.fixture
def parts(make_bed: Callable[..., str], dosages: NDArray[np.float32], tmp_path: Path) -> list[str]:
    """Three files of 12, 11 and 7 variants on chromosomes 1, 2 and 3; the samples of the second are reversed."""
    paths = []
    edges = [(0, 12), (12, 23), (23, M)]
    for number, (start, stop) in enumerate(edges, 1):
        part = dosages[:, start:stop]
        path = make_bed(
            part[::-1] if number == 2 else part, name=f"chr{number}", chromosomes=[str(number)] * (stop - start)
        )
        names = Path(path.removesuffix("bed") + "bim")
        lines = [line.split("\t") for line in names.read_text().splitlines()]
        names.write_text(
            "".join("\t".join([c, f"rs{start + j}", *rest]) + "\n" for j, (c, _, *rest) in enumerate(lines))
        )
        if number == 2:
            fam = Path(path.removesuffix("bed") + "fam")
            lines_of_fam = Path(paths[0].removesuffix("bed") + "fam").read_text().splitlines(keepends=True)
            fam.write_text("".join(lines_of_fam[::-1]))
        paths.append(path)
    return paths


def test_variants_follow_one_another_and_samples_are_matched(parts: list[str], dosages: NDArray[np.float32]) -> None:
    source = open_genotypes(parts)
    assert source.variants.table["SNPID"].to_pylist() == [f"rs{j}" for j in range(M)]
    assert source.samples.iids == tuple(f"i{i}" for i in range(N))
    assert len(source.files) == 9 and source.path.endswith("chr1.bed and 2 more files")
    rows = np.array([12, 0, 5])
    for variants in (np.arange(M), np.arange(13, 20), np.array([0, 11, 12, 29]), np.array([22, 23]), np.arange(0)):
        block = source.read(variants, rows)
        np.testing.assert_array_equal(block, dosages[np.ix_(rows, variants)])
        assert block.flags.f_contiguous and block.dtype == np.float32
    with pytest.raises(IndexError, match="not all below 30"):
        source.read(np.array([M]), rows)


def test_the_order_is_the_one_given(parts: list[str]) -> None:
    source = open_genotypes(parts[::-1])
    assert source.variants.table["CHR"].to_pylist() == ["3"] * 7 + ["2"] * 11 + ["1"] * 12


def test_a_relationship_matrix_is_that_of_one_file(
    parts: list[str], make_bed: Callable[..., str], dosages: NDArray[np.float32]
) -> None:
    chromosomes = ["1"] * 12 + ["2"] * 11 + ["3"] * 7
    whole = open_genotype_file(make_bed(dosages, name="whole", chromosomes=chromosomes))
    source, rows = open_genotypes(parts), np.arange(2, N)
    options = GrmOptions(max_missing=0.2, precision="double")
    one, other = (relationship_from_genotypes(g, rows, options) for g in (whole, source))
    assert one.counts == other.counts and one.K is not None and other.K is not None
    np.testing.assert_array_equal(one.K, other.K)
    by_chromosome = (relationships_by_chromosome(g, rows, options) for g in (whole, source))
    for (a, of_whole), (b, of_parts) in zip(*by_chromosome, strict=True):
        assert a == b and of_whole.K is not None and of_parts.K is not None
        np.testing.assert_allclose(of_whole.K, of_parts.K, atol=1e-12)


def test_a_file_that_lacks_samples(
    parts: list[str], make_bed: Callable[..., str], dosages: NDArray[np.float32]
) -> None:
    fewer = make_bed(dosages[:9], name="fewer")
    with pytest.raises(
        InputError, match=r"fewer\.bed lacks 4 of the 13 samples of .*chr1\.bed: 'f3 i9', 'f3 i10', 'f3 i11', \.\.\."
    ):
        open_genotypes([parts[0], fewer])
    with pytest.raises(InputError, match=r"fewer\.bed lacks 4 of the 13 samples of .*chr1\.bed"):
        open_genotypes([fewer, parts[0]])


def test_variants_in_two_files_are_said(parts: list[str], caplog: pytest.LogCaptureFixture) -> None:
    open_genotypes(parts)
    assert "are also in" not in caplog.text
    for suffix in ("bed", "bim", "fam"):
        os.link(parts[0].removesuffix("bed") + suffix, parts[0].removesuffix("chr1.bed") + f"again.{suffix}")
    again = parts[0].removesuffix("chr1.bed") + "again.bed"
    source = open_genotypes([*parts, again])
    assert len(source.variants) == M + 12
    assert "12 variants of " in caplog.text and "chr1.bim, first 'rs0' at 1:1; all are kept" in caplog.text


def test_files_of_samples_and_variants(parts: list[str], tmp_path: Path) -> None:
    fam = tmp_path / "all.fam"
    os.rename(tmp_path / "chr1.fam", fam)
    source = open_genotypes([parts[0], parts[2]], fam=str(fam))
    assert source.files[2] == str(fam) and len(source.files) == 5
    message = r"--sample x\.sample belongs to a \.bgen or a table, and .*chr3\.bed is a \.bed"
    with pytest.raises(UsageError, match=message):
        open_genotypes([parts[2]], sample="x.sample")
