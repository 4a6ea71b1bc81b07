"""Which variants are scanned, and how they are cut into blocks."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import genotypes

from kron2sum_cli.genotypes.chromosomes import parse_region
from kron2sum_cli.genotypes.source import Variants
from kron2sum_cli.scan.block import blocks_by_null, blocks_of
from kron2sum_cli.scan.inputs import ScanInputs, Selection, VariantNames, largest_block, select_variants
from kron2sum_cli.scan.table import in_order
from kron2sum_cli.settings import ScanSettings

V = 12
SOURCE = genotypes(V, ["1"] * 5 + ["2"] * 4 + ["X"] * 3)


def selected(extract: frozenset[str] | None = None, exclude: frozenset[str] | None = None, **options: Any) -> Selection:
    return select_variants(ScanSettings(**options), VariantNames(extract, exclude), SOURCE)


def test_all_variants() -> None:
    selection = selected()
    assert selection.named.all() and selection.asked.all()
    assert selection.span.ranges == selection.span.asked == ((0, V),)
    assert selection.counts == {"variants read": V}


def test_by_name() -> None:
    """Names choose among the variants read; the table covers the others, too."""
    selection = selected(extract=frozenset({"v1", "v3", "v9"}), exclude=frozenset({"v3", "v5"}))
    assert np.flatnonzero(selection.asked).tolist() == [1, 9]
    np.testing.assert_array_equal(selection.named, selection.asked)
    assert selection.span.ranges == ((0, V),)
    assert selection.counts == {
        "variants read": V, "variants left out by --extract": 9, "variants left out by --exclude": 1
    }  # fmt: skip


def test_by_place() -> None:
    """Names are looked at in the whole file, so that blocks do not depend on regions."""
    selection = selected(regions=(parse_region("1:2-3"), parse_region("X:1-99")), exclude=frozenset({"v2", "v6"}))
    assert np.flatnonzero(selection.asked).tolist() == [1, 9, 10, 11]
    assert np.flatnonzero(~selection.named).tolist() == [2, 6]
    assert selection.span.ranges == selection.span.asked == ((1, 3), (9, 12))
    assert selection.counts == {"variants read": 5, "variants left out by --exclude": 1}


def test_nothing_in_a_place() -> None:
    selection = selected(regions=(parse_region("1:100-200"),))
    assert not selection.asked.any()
    assert selection.span.ranges == selection.span.asked == ((0, 0),)


def test_the_largest_block_leaves_some_for_every_thread() -> None:
    sizes = [largest_block(total) for total in (1, 32767, 32768, 65535, 65536, 10**7)]
    assert sizes == [1024, 1024, 2048, 2048, 4096, 4096]


@pytest.mark.parametrize("total", [1, 1024, 1025, 10247, 100_000])
@pytest.mark.parametrize("parts", [1, 3, 20])
def test_shards_are_the_whole(total: int, parts: int) -> None:
    """Every variant is in one shard, and their edges are multiples of the largest block."""
    source = genotypes(1)
    many = cast(Any, SimpleNamespace(variants=Variants(source.variants.table.take([0] * total), "x")))
    shards = [select_variants(ScanSettings(shard=(part, parts)), VariantNames(), many) for part in range(1, parts + 1)]
    assert np.sum([shard.asked for shard in shards], axis=0).tolist() == [1] * total
    for shard in shards:
        assert shard.named.all()
        ((start, _),) = shard.span.ranges
        assert start % largest_block(total) == 0 or start == total
        assert shard.span.asked == ((0, total),)


@given(st.sets(st.integers(0, 99)), st.sets(st.integers(0, 99)), st.sampled_from([1, 16, 64]))
def test_blocks_are_cut_at_multiples(named: set[int], asked: set[int], width: int) -> None:
    mask = np.isin(np.arange(100), sorted(asked & named))
    blocks = blocks_of(np.array(sorted(named), dtype=np.intp), mask, width)
    found = [int(variant) for block in blocks for variant in block.variants[block.asked]]
    assert found == sorted(named & asked)
    for block in blocks:
        assert block.asked.any() and block.variants[0] // width == block.variants[-1] // width
        same = [k for k in sorted(named) if k // width == block.variants[0] // width]
        assert block.variants.tolist() == same, "with all that names allow between the edges"


def inputs_with(left_out: dict[str, str], **filters: Any) -> ScanInputs:
    null = SimpleNamespace(chromosomes=left_out, metadata=SimpleNamespace(takes_predictions_off=False))
    return cast(
        ScanInputs, SimpleNamespace(null=null, null_of_chr=left_out, genotypes=SOURCE, selection=selected(**filters))
    )


def test_blocks_of_one_null_model() -> None:
    ((chromosome, blocks),) = blocks_by_null(inputs_with({}), 8)
    assert chromosome is None
    assert [block.variants.tolist() for block in blocks] == [list(range(8)), list(range(8, 12))]


def test_blocks_of_a_null_model_a_chromosome(caplog: pytest.LogCaptureFixture) -> None:
    found = dict(blocks_by_null(inputs_with({"1": "1", "2": "2"}), 4))
    variants = {chromosome: [block.variants.tolist() for block in blocks] for chromosome, blocks in found.items()}
    assert variants == {"1": [[0, 1, 2, 3], [4]], "2": [[5, 6, 7], [8]], None: [[9, 10, 11]]}
    assert "3 variants on chromosomes that the GRM has none of: tested with the whole GRM's null" in caplog.text


def test_chromosomes_that_are_left_out_together_share_blocks() -> None:
    found = [
        (name, [block.variants.tolist() for block in blocks])
        for name, blocks in blocks_by_null(inputs_with({"1": "1", "2": "1", "X": "X"}), 8)
    ]
    assert found == [("1", [list(range(8)), [8]]), ("X", [[9, 10, 11]])]


def test_chromosomes_of_which_nothing_is_asked_for_have_no_blocks() -> None:
    inputs = inputs_with({"1": "1", "2": "2", "X": "X"}, chromosomes=(("2",),))
    assert [chromosome for chromosome, _ in blocks_by_null(inputs, 4)] == ["2"]


def test_results_come_in_order() -> None:
    found = list(in_order(lambda k: k * k, list(range(20)), 3))
    assert found == [(k * k, k) for k in range(20)]


def test_a_failure_ends_the_others() -> None:
    started: list[int] = []

    def failing(k: int) -> int:
        started.append(k)
        if k == 2:
            raise ValueError("stop")
        return k

    with pytest.raises(ValueError, match="stop"):
        list(in_order(failing, list(range(100)), 1))
    assert len(started) < 10
