"""Which variants are chosen, and the counts of those that are not."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from kron2sum_cli.errors import UsageError
from kron2sum_cli.genotypes.chromosomes import parse_chromosomes, parse_region
from kron2sum_cli.genotypes.counts import genotype_counts
from kron2sum_cli.genotypes.filters import VariantFilters, in_places, passes
from kron2sum_cli.genotypes.source import Variants


@pytest.fixture
def variants() -> Variants:
    """Ten variants, in two chunks: five on chromosome 1, three on chrX, two on 23."""
    table = pa.table(
        {
            "CHR": ["1"] * 5 + ["chrX"] * 3 + ["23"] * 2,
            "POS": [10, 20, 30, 30, 50, 10, 20, 30, 40, 50],
            "SNPID": [f"rs{i}" for i in range(9)] + ["rs0"],
            "EA": ["A"] * 10,
            "NEA": ["C"] * 10,
        }
    )
    return Variants(pa.concat_tables([table.slice(0, 4), table.slice(4)]), "x.bim")


def chosen(variants: Variants, chromosomes: str = "", *regions: str) -> list[int]:
    listed = parse_chromosomes(chromosomes) if chromosomes else ()
    return np.flatnonzero(in_places(variants, listed, [parse_region(region) for region in regions])).tolist()


@pytest.mark.parametrize(
    ("places", "positions"),
    [
        ([], list(range(10))),
        (["X"], [5, 6, 7, 8, 9]),
        (["1-22"], [0, 1, 2, 3, 4]),
        (["", "chr1:20-30"], [1, 2, 3]),
        (["", "1:50-60", "X:0-10"], [4, 5]),
        (["1", "1:20-60"], [1, 2, 3, 4]),
    ],
)
def test_choice_by_place(variants: Variants, places: list[str], positions: list[int]) -> None:
    assert chosen(variants, *places) == positions


def test_choice_by_name(variants: Variants) -> None:
    assert np.flatnonzero(variants.named({"rs0", "rs3", "no"})).tolist() == [0, 3, 9]
    assert not variants.named(frozenset()).any()


def test_unknown_chromosome(variants: Variants) -> None:
    with pytest.raises(UsageError, match=r"--chr 7: x\.bim has no such chromosome; it has 1, X"):
        chosen(variants, "1,7")
    with pytest.raises(UsageError, match="--chr 2 to 5"):
        chosen(variants, "2-5")
    with pytest.raises(UsageError, match="--region 7:1-2"):
        chosen(variants, "", "7:1-2")


def test_names_not_found(variants: Variants) -> None:
    assert variants.not_found(frozenset({"rs0", "rs1", "a", "b"})) == 2
    assert variants.not_found(frozenset()) == 0
    with_more_alleles = replace(variants, left_out=frozenset({"a"}))
    assert with_more_alleles.not_found(frozenset({"rs0", "rs1", "a", "b"})) == 1


def test_choice_by_genotypes() -> None:
    complete = np.tile([0, 1, 1, 2], 25)
    common = complete.astype(np.float32)
    rare = np.zeros(100, dtype=np.float32)
    rare[:2] = 1
    some_missing = common.copy()
    some_missing[:6] = np.nan
    far_from_equilibrium = np.repeat([0, 2], 50).astype(np.float32)
    never_called = np.full(100, np.nan, dtype=np.float32)
    dosages = np.array([common, rare, some_missing, far_from_equilibrium, never_called]).T
    counts = genotype_counts(dosages, hard_calls=True)

    def kept(filters: VariantFilters) -> tuple[list[int], dict[str, int]]:
        mask, left_out = passes(counts, filters)
        return np.flatnonzero(mask).tolist(), dict(left_out)

    assert kept(VariantFilters()) == ([0, 1, 2, 3, 4], {})
    assert kept(VariantFilters(maf=0.01)) == ([0, 1, 2, 3], {"--maf": 1})
    assert kept(VariantFilters(maf=0.011)) == ([0, 2, 3], {"--maf": 2})
    assert kept(VariantFilters(mac=2)) == ([0, 1, 2, 3], {"--mac": 1})
    assert kept(VariantFilters(mac=3)) == ([0, 2, 3], {"--mac": 2})
    assert kept(VariantFilters(max_missing=0.06)) == ([0, 1, 2, 3], {"--max-missing": 1})
    assert kept(VariantFilters(max_missing=0.0)) == ([0, 1, 3], {"--max-missing": 2})
    assert kept(VariantFilters(hwe=1e-6)) == ([0, 1, 2, 4], {"--hwe": 1})
    assert kept(VariantFilters(maf=0.02, mac=3, max_missing=0.1, hwe=1e-6)) == (
        [0, 2],
        {"--max-missing": 1, "--maf": 1, "--mac": 0, "--hwe": 1},
    )


def test_equilibrium_needs_hard_calls() -> None:
    assert VariantFilters(hwe=0.5).need_hard_calls and not VariantFilters(maf=0.1).need_hard_calls


@pytest.mark.parametrize(
    ("given", "codes", "expected"),
    [
        ("23", ["1", "X", "29"], None),
        ("X", ["1", "23", "29"], None),
        ("23", ["22", "23", "X"], ["23", "X"]),
        ("23", ["23", "24", "25", "26", "X"], ["23"]),
        ("23", ["1", "23", "29"], ["23"]),
        ("23", ["1", "X"], ["X"]),
        ("X", ["1", "23"], ["23"]),
        ("XY", ["X", "PAR1", "PAR2"], ["PAR1", "PAR2"]),
        ("PAR1", ["X", "25"], ["25"]),
    ],
)
def test_numbers_of_chromosomes_mean_what_the_file_says(
    given: str, codes: list[str], expected: list[str] | None
) -> None:
    table = pa.table({"CHR": codes, "POS": [5] * len(codes), "SNPID": codes, "EA": codes, "NEA": codes})
    for places in ([given], ["", f"{given}:1-9"]):
        if expected is None:
            with pytest.raises(UsageError, match="has no such chromosome"):
                chosen(Variants(table, "x.bim"), *places)
            continue
        assert [codes[k] for k in chosen(Variants(table, "x.bim"), *places)] == expected


def test_min_info_leaves_certain_genotypes_in() -> None:
    dosages = np.asfortranarray([[0, 0.1, 0.9], [1, 1.9, 1.0], [2, 1.1, 1.1], [1, 0.2, 0.8]], np.float32)
    counts = genotype_counts(dosages, quality=True)
    kept, dropped = passes(counts, VariantFilters(min_info=0.5))
    assert kept.tolist() == [True, True, False] and dropped == {"--min-info": 1}
