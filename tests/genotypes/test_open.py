"""Which format a file is in, told from its content, which file a name means, and several files as one data set."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError, UsageError
from kron2sum_cli.genotypes.bed import BedSource
from kron2sum_cli.genotypes.bgen import BgenSource
from kron2sum_cli.genotypes.grm import GrmOptions, relationship_from_genotypes, relationships_by_chromosome
from kron2sum_cli.genotypes.open import is_genotype_file, open_genotype_file, open_genotypes
from kron2sum_cli.genotypes.pgen import PgenSource

N = 5
SOURCES = {".bed": BedSource, ".pgen": PgenSource, ".bgen": BgenSource}

N, M = 13, 30


@pytest.fixture
def folder(make_bed: Callable[..., str], simulate_dosages: Callable[..., Any], tmp_path: Path) -> Path:
    """The same genotypes as ``b.bed``, ``p.pgen`` and ``o.bgen``."""
    pgenlib, bgen = pytest.importorskip("pgenlib"), pytest.importorskip("bgen")
    dosages = simulate_dosages(N, 3, missing=0)
    make_bed(dosages, name="b")
    with (
        pgenlib.PgenWriter(bytes(tmp_path / "p.pgen"), N, variant_ct=3, nonref_flags=False) as p,
        bgen.BgenWriter(str(tmp_path / "o.bgen"), N, samples=[f"i{i}" for i in range(N)]) as o,
    ):
        for j, column in enumerate(dosages.T):
            p.append_biallelic(column.astype(np.int8))
            o.add_variant("v", f"rs{j}", "1", j + 1, ["A", "G"], np.eye(3)[2 - column.astype(int)])
    (tmp_path / "p.pvar").write_text(
        "#CHROM\tPOS\tID\tREF\tALT\n" + "".join(f"1\t{j + 1}\trs{j}\tG\tA\n" for j in range(3))
    )
    (tmp_path / "p.psam").write_text("#FID\tIID\n" + "".join(f"f{i // 3}\ti{i}\n" for i in range(N)))
    return tmp_path


@pytest.mark.parametrize("name", ["b.bed", "p.pgen", "o.bgen"])
def test_with_and_without_suffix(folder: Path, name: str) -> None:
    path = str(folder / name)
    stem, suffix = os.path.splitext(path)
    source = open_genotype_file(path)
    assert isinstance(source, SOURCES[suffix])
    assert open_genotype_file(stem).path == path
    assert is_genotype_file(path) and is_genotype_file(stem)
    alike = open_genotype_file(str(folder / "b.bed"))
    assert source.samples.iids == alike.samples.iids
    assert source.variants.table.equals(alike.variants.table)
    everything = np.arange(3), np.arange(N)
    np.testing.assert_array_equal(source.read(*everything), alike.read(*everything))


@pytest.mark.parametrize(("name", "companions"), [("b.bed", ("bim", "fam")), ("p.pgen", ("pvar", "psam"))])
def test_names_say_nothing_where_the_content_does(folder: Path, name: str, companions: tuple[str, str]) -> None:
    stem, suffix = os.path.splitext(name)
    os.rename(folder / name, folder / "g.data")
    for companion in companions:
        os.rename(folder / f"{stem}.{companion}", folder / f"g.data.{companion}")
    assert isinstance(open_genotype_file(str(folder / "g.data")), SOURCES[suffix])
    assert is_genotype_file(str(folder / "g.data"))
    os.rename(folder / "o.bgen", folder / "o.bed")
    assert isinstance(open_genotype_file(str(folder / "o.bed")), BgenSource)


def test_two_files_of_one_name(folder: Path) -> None:
    for name in ("b.bed", "p.pgen"):
        os.link(folder / name, folder / f"both{os.path.splitext(name)[1]}")
    with pytest.raises(UsageError, match=r"both may be any of .*both\.bed, .*both\.pgen; give one"):
        open_genotype_file(str(folder / "both"))


def test_a_relationship_matrix_comes_before_genotypes_of_its_name(folder: Path) -> None:
    (folder / "b.grm.bin").write_bytes(b"")
    assert not is_genotype_file(str(folder / "b")) and is_genotype_file(str(folder / "b.bed"))
    assert isinstance(open_genotype_file(str(folder / "b")), BedSource)


@pytest.mark.parametrize("name", ["none.bed", "none.pgen", "none.bgen", "none", "b.grm.bin", "b.fam"])
def test_what_is_not_there_or_not_genotypes(folder: Path, name: str) -> None:
    path = str(folder / name)
    assert is_genotype_file(path) == name.startswith("none.")
    message = "is not a genotype file; give a .bed" if name == "b.fam" else "there is no such file"
    with pytest.raises(InputError, match=message):
        open_genotype_file(path)


def test_other_paths(folder: Path) -> None:
    with pytest.raises(InputError, match="is a directory"):
        open_genotype_file(str(folder))
    (folder / "empty.pgen").write_bytes(b"")
    with pytest.raises(InputError, match=r"empty\.pvar is missing"):
        open_genotype_file(str(folder / "empty.pgen"))
    (folder / "empty.pvar").write_text("#CHROM\tPOS\tID\tREF\tALT\n1\t5\trs1\tA\tC\n")
    (folder / "empty.psam").write_text("#IID\nS1\n")
    with pytest.raises(InputError, match=r"empty\.pgen cannot be opened"):
        open_genotype_file(str(folder / "empty.pgen"))
    (folder / "text.bed").write_text("not a .bed at all")
    with pytest.raises(InputError, match="is not a PLINK 1 .bed"):
        open_genotype_file(str(folder / "text.bed"))
    assert not is_genotype_file(str(folder)) and not is_genotype_file("-")


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
    assert "also in" not in caplog.text
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
