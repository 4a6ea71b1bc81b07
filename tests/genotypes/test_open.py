"""Which format a file is in, told from its content, and which file a name means."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kron2sum_cli.errors import InputError, UsageError
from kron2sum_cli.genotypes.bed import BedSource
from kron2sum_cli.genotypes.bgen import BgenSource
from kron2sum_cli.genotypes.open import is_genotype_file, open_genotype_file
from kron2sum_cli.genotypes.pgen import PgenSource

N = 5
SOURCES = {".bed": BedSource, ".pgen": PgenSource, ".bgen": BgenSource}


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
    with pytest.raises(UsageError, match="standard input"):
        open_genotype_file("-")
    with pytest.raises(InputError, match="is a directory"):
        open_genotype_file(str(folder))
    (folder / "empty.pgen").write_bytes(b"")
    with pytest.raises(InputError, match=r"empty\.pgen cannot be opened"):
        open_genotype_file(str(folder / "empty.pgen"))
    (folder / "text.bed").write_text("not a .bed at all")
    with pytest.raises(InputError, match="is not a PLINK 1 .bed"):
        open_genotype_file(str(folder / "text.bed"))
    assert not is_genotype_file(str(folder)) and not is_genotype_file("-")
