"""The relationship matrix against its definition, plink2 and GEMMA."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.genotypes import square_matrix as square
from kron2sum_cli.genotypes.bed import open_bed
from kron2sum_cli.genotypes.grm import GrmOptions, Scale, relationship_from_genotypes
from kron2sum_cli.genotypes.source import Relationship

N = 60
SCALES: tuple[Scale, Scale] = ("standardized", "centered")


@pytest.fixture(autouse=True)
def several_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(square, "TILE", 7)


def dense_G(
    dosages: NDArray[Any],
    scale: Scale,
    min_maf: float = 0.01,
    max_missing: float = 0.05,
    among: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """G of all samples by the definition, one variant after the other."""
    columns = []
    for j, g in enumerate(dosages.T.astype(np.float64)):
        called = g[~np.isnan(g)]
        f = called.mean() / 2 if len(called) else 0.0
        used = among is None or among[j]
        if not used or np.isnan(g).mean() > max_missing or min(f, 1 - f) < max(min_maf, 1e-9):
            continue
        centred = np.where(np.isnan(g), 0, g - 2 * f)
        columns.append(centred / np.sqrt(2 * f * (1 - f)) if scale == "standardized" else centred)
    return np.array(columns).T / np.sqrt(len(columns))


def product(relationship: Relationship) -> NDArray[np.float64]:
    """GGᵀ, whichever way it is given."""
    if relationship.G is None:
        assert relationship.K is not None
        return relationship.K
    assert relationship.K is None
    return relationship.G @ relationship.G.T


@pytest.fixture
def dosages(simulate_dosages: Callable[..., Any]) -> NDArray[np.float32]:
    """300 variants with all reasons to leave one out: 10 rare, 10 without variation, 10 incomplete."""
    g = simulate_dosages(N, 300, missing=0.01, min_f=0.1)
    g[:, 20:30] = 0
    g[0, 20:30] = 1
    g[:, 40:45], g[:, 45:49], g[:, 49] = 0, 2, np.nan
    g[:10, 60:70] = np.nan
    return g


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("n_rows", [N, 41])
@pytest.mark.parametrize("block_mib", [0.0005, 0.01, 64])
@pytest.mark.parametrize("precision", ["single", "double"])
def test_K_is_the_definition(
    make_bed: Callable[..., str],
    dosages: NDArray[np.float32],
    scale: Scale,
    n_rows: int,
    block_mib: float,
    precision: Any,
) -> None:
    rows = np.random.default_rng(1).permutation(N)[:n_rows]
    G = dense_G(dosages, scale)
    source = open_bed(make_bed(dosages))
    relationship = relationship_from_genotypes(
        source, rows, GrmOptions(scale, block_mib=block_mib, precision=precision)
    )
    assert relationship.K is not None and relationship.G is None
    tolerance = 1e-6 if precision == "single" else 1e-13
    np.testing.assert_allclose(relationship.K, (G @ G.T)[np.ix_(rows, rows)], atol=tolerance)
    np.testing.assert_array_equal(relationship.K, relationship.K.T)
    assert relationship.samples == source.samples.take(rows)
    assert relationship.files == source.files


def test_no_digit_depends_on_the_number_of_threads(make_bed: Callable[..., str], dosages: NDArray[np.float32]) -> None:
    source = open_bed(make_bed(dosages))
    one, three = (
        relationship_from_genotypes(source, np.arange(N), GrmOptions(block_mib=0.01, threads=threads)).K
        for threads in (1, 3)
    )
    assert one is not None
    np.testing.assert_array_equal(one, three)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("block_mib", [0.0005, 64])
def test_G_where_there_are_fewer_variants_than_samples(
    make_bed: Callable[..., str], dosages: NDArray[np.float32], scale: Scale, block_mib: float
) -> None:
    rows = np.random.default_rng(1).permutation(N)[:45]
    few = dosages[:, :70]
    relationship = relationship_from_genotypes(open_bed(make_bed(few)), rows, GrmOptions(scale, block_mib=block_mib))
    assert relationship.G is not None and relationship.K is None
    np.testing.assert_allclose(relationship.G, dense_G(few, scale)[rows], atol=1e-14)


@pytest.mark.parametrize("n_rows", [39, 40, 41])
def test_G_and_K_around_the_border(make_bed: Callable[..., str], simulate_dosages: Any, n_rows: int) -> None:
    g = simulate_dosages(N, 40, missing=0, min_f=0.3)
    relationship = relationship_from_genotypes(open_bed(make_bed(g)), np.arange(n_rows), GrmOptions(block_mib=0.001))
    assert (relationship.G is None) == (n_rows <= 40)
    G = dense_G(g, "standardized")[:n_rows]
    np.testing.assert_allclose(product(relationship), G @ G.T, atol=1e-6)


def test_counts_and_progress(make_bed: Callable[..., str], dosages: NDArray[np.float32]) -> None:
    seen: list[int] = []
    listed = frozenset(f"rs{j}" for j in range(290)) | {"elsewhere"}
    relationship = relationship_from_genotypes(
        open_bed(make_bed(dosages)),
        np.arange(N),
        GrmOptions(extract=listed, block_mib=100 * N * 4 / 2**20),
        seen.append,
    )
    n_missing = int((np.isnan(dosages[:, :290]).mean(axis=0) > 0.05).sum())
    assert list(relationship.counts.items()) == [
        ("variants read", 300),
        ("left out: not in the list", 10),
        ("left out: missing", n_missing),
        ("left out: one allele", 9),
        ("left out: rare", 10),
        ("variants used", 290 - n_missing - 19),
    ]
    assert seen == [100, 100, 90]
    G = dense_G(dosages[:, :290], "standardized")
    np.testing.assert_allclose(product(relationship), G @ G.T, atol=1e-6)


def test_a_heterozygous_variant_counts_as_plink_counts_it(make_bed: Callable[..., str]) -> None:
    g = np.array([[1, 0], [1, 2], [1, 1]], dtype=np.float32)
    relationship = relationship_from_genotypes(open_bed(make_bed(g)), np.arange(3), GrmOptions())
    assert relationship.counts["variants used"] == 2
    np.testing.assert_allclose(product(relationship), [[1, -1, 0], [-1, 1, 0], [0, 0, 0]], atol=1e-12)


def test_filters_at_their_bounds_keep_the_variant(make_bed: Callable[..., str]) -> None:
    g = np.zeros((20, 3), dtype=np.float32)
    g[:4, 0] = 1  # f = 0.1
    g[:16, 1], g[16:, 1] = 2, 1  # f = 0.9
    g[:10, 2], g[19, 2] = 1, np.nan  # a share of 0.05 is missing
    relationship = relationship_from_genotypes(open_bed(make_bed(g)), np.arange(20), GrmOptions(min_maf=0.1))
    assert relationship.counts["variants used"] == 3


def test_no_variant_left(make_bed: Callable[..., str], dosages: NDArray[np.float32]) -> None:
    source = open_bed(make_bed(dosages[:, 20:50]))
    with pytest.raises(InputError, match=r"g\.bed: no variant is left .*variants read 30, .*rare"):
        relationship_from_genotypes(source, np.arange(N), GrmOptions(min_maf=0.5))
    with pytest.raises(InputError, match="not in the list 30"):
        relationship_from_genotypes(source, np.arange(N), GrmOptions(extract=frozenset({"no"})))


@pytest.mark.skipif(shutil.which("plink2") is None, reason="plink2 is not installed")
@pytest.mark.parametrize(("scale", "modifier"), [("standardized", ""), ("centered", "cov")])
def test_equals_plink2(make_bed: Callable[..., str], dosages: NDArray[np.float32], scale: Scale, modifier: str) -> None:
    path = make_bed(dosages)
    stem = path.removesuffix(".bed")
    command = ["plink2", "--bfile", stem, "--out", stem, "--silent", "--maf", "0.01", "--geno", "0.05"]
    subprocess.run([*command, "--make-rel", "square", "meanimpute", *modifier.split()], check=True)
    expected = np.loadtxt(f"{stem}.rel")
    relationship = relationship_from_genotypes(open_bed(path), np.arange(N), GrmOptions(scale))
    np.testing.assert_allclose(product(relationship), expected, atol=1e-5)


@pytest.mark.skipif(shutil.which("gemma") is None, reason="gemma is not installed")
@pytest.mark.parametrize(("scale", "kind"), [("standardized", "sXX"), ("centered", "cXX")])
def test_equals_gemma(
    make_bed: Callable[..., str], dosages: NDArray[np.float32], tmp_path: Path, scale: Scale, kind: str
) -> None:
    path = make_bed(dosages)
    mode = {"cXX": "1", "sXX": "2"}[kind]
    command = ["gemma", "-bfile", path.removesuffix(".bed"), "-gk", mode, "-o", "k", "-outdir", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    expected = np.loadtxt(tmp_path / f"k.{kind}.txt")
    relationship = relationship_from_genotypes(open_bed(path), np.arange(N), GrmOptions(scale))
    if scale == "standardized":
        # GEMMA divides by the observed standard deviation, not by that of Hardy-Weinberg proportions.
        used = dense_G(dosages, "centered")
        G = used / used.std(axis=0) / np.sqrt(used.shape[1])
        np.testing.assert_allclose(G @ G.T, expected, atol=1e-5)
        return
    np.testing.assert_allclose(product(relationship), expected, atol=1e-5)
