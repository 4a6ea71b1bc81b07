"""Leaving one chromosome out, against making the matrix without it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.genotypes.bed import BedSource, open_bed
from kron2sum_cli.genotypes.grm import (
    GrmOptions,
    Scale,
    left_out_together,
    relationship_from_genotypes,
    relationships_by_chromosome,
)
from kron2sum_cli.genotypes.source import Relationship

N = 30
SPELLINGS = ["chr2", "1", "X", "23", "2"]
"""Two of them are spellings of others; in the file they take turns."""


@pytest.fixture(params=[200, 25], ids=["K", "G"])
def source(
    request: pytest.FixtureRequest, make_bed: Callable[..., str], simulate_dosages: Callable[..., Any]
) -> BedSource:
    m = request.param
    chromosomes = [SPELLINGS[j % 5] for j in range(m)]
    return open_bed(make_bed(simulate_dosages(N, m, missing=0.01, min_f=0.2), chromosomes=chromosomes))


def product(relationship: Relationship) -> NDArray[np.float64]:
    if relationship.G is not None:
        return relationship.G @ relationship.G.T
    assert relationship.K is not None
    return relationship.K.copy()


@pytest.mark.parametrize("scale", ["standardized", "centered"])
@pytest.mark.parametrize("block_mib", [0.001, 64])
def test_equals_the_matrix_made_without_the_chromosome(source: BedSource, scale: Scale, block_mib: float) -> None:
    rows = np.random.default_rng(0).permutation(N)[: N - 2]
    names = source.variants.table["SNPID"].to_pylist()
    spelled = source.variants.table["CHR"].to_pylist()
    seen, whole = [], 0
    options = GrmOptions(scale, block_mib=block_mib, precision="double")
    for chromosome, relationship in relationships_by_chromosome(source, rows, options):
        seen.append(chromosome)
        own = {None: (), "2": ("chr2", "2"), "1": ("1",), "X": ("X", "23")}[chromosome]
        others = frozenset(name for name, code in zip(names, spelled, strict=True) if code not in own)
        expected = relationship_from_genotypes(source, rows, GrmOptions(scale, extract=others, precision="double"))
        used = relationship.counts["variants used"]
        assert used == expected.counts["variants used"]
        whole = used if chromosome is None else whole
        assert relationship.counts.get("left out: on the chromosome", 0) == whole - used
        assert (relationship.G is None) == (len(names) == 200)
        np.testing.assert_allclose(product(relationship), product(expected), atol=1e-12)
        # A caller may overwrite what it was given.
        for array in (relationship.G, relationship.K):
            if array is not None:
                array[:] = np.nan
    assert seen == [None, "2", "1", "X"]


def test_reads_the_genotypes_at_most_twice(source: BedSource, monkeypatch: pytest.MonkeyPatch) -> None:
    read = BedSource.read
    n_read = 0

    def count(self: BedSource, variants: NDArray[np.intp], rows: NDArray[np.intp]) -> NDArray[np.float32]:
        nonlocal n_read
        n_read += len(variants)
        return read(self, variants, rows)

    monkeypatch.setattr(BedSource, "read", count)
    list(relationships_by_chromosome(source, np.arange(N), GrmOptions()))
    assert n_read <= 2 * len(source.variants)


def test_one_chromosome_only(make_bed: Callable[..., str], simulate_dosages: Callable[..., Any]) -> None:
    source = open_bed(make_bed(simulate_dosages(N, 40), chromosomes=["chr7", "7"] * 20))
    with pytest.raises(InputError, match="variants of the relationship matrix lie on chromosome 7"):
        next(relationships_by_chromosome(source, np.arange(N), GrmOptions()))


def test_many_contigs_are_left_out_together(make_bed: Callable[..., str], simulate_dosages: Callable[..., Any]) -> None:
    names = ["1"] * 60 + [f"contig{k}" for k in range(90) for _ in range(2)]
    source = open_bed(make_bed(simulate_dosages(N, len(names), min_f=0.2), chromosomes=names))
    first = left_out_together(source.variants.table["CHR"])
    assert first["1"] == "1" and list(first) == list(dict.fromkeys(names))
    groups = {group: [code for code in first if first[code] == group] for group in first.values()}
    assert {len(codes) for group, codes in groups.items() if group != "1"} == {3}, "2 of 240 variants each, 4.8 are few"
    assert all(codes[0] == group for group, codes in groups.items())
    variants = source.variants.table["SNPID"].to_pylist()
    for chromosome, relationship in relationships_by_chromosome(source, np.arange(N), GrmOptions(precision="double")):
        own = groups.get(chromosome or "", [])
        others = frozenset(name for name, code in zip(variants, names, strict=True) if code not in own)
        expected = relationship_from_genotypes(source, np.arange(N), GrmOptions(extract=others, precision="double"))
        np.testing.assert_allclose(product(relationship), product(expected), atol=1e-12)


def test_few_chromosomes_are_left_out_alone(make_bed: Callable[..., str], simulate_dosages: Callable[..., Any]) -> None:
    names = ["1"] * 151 + [f"contig{k}" for k in range(49)]
    source = open_bed(make_bed(simulate_dosages(N, 200), chromosomes=names))
    assert left_out_together(source.variants.table["CHR"]) == {name: name for name in names}
