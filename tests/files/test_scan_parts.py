"""Which tables make one, in what order, and what is missing."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scan_metadata_of import scan_metadata_of

from kron2sum_cli.errors import InputError
from kron2sum_cli.files.inputs import FileRecord
from kron2sum_cli.files.scan_metadata import ScanPart, Span, difference, join_parts, union

GENO = (FileRecord("g.bed", 7, "ab"),)


def span(*ranges, of=100, asked=None):
    return Span(ranges, asked or ((0, of),), of)


def table(*ranges, of=100, asked=None, geno=GENO, counts=None, **changes):
    covered = sum(stop - start for start, stop in ranges)
    counts = counts or {"variants read": covered, "left out by maf": 1}
    inputs = {"geno": geno} | changes.pop("inputs", {})
    return scan_metadata_of(["x"], span(*ranges, of=of, asked=asked), counts=counts, inputs=inputs, **changes)


def join(*tables):
    return join_parts([f"t{i}" for i in range(len(tables))], tables)


def same(a, b):
    return a.to_json() == b.to_json()


def test_shards_make_the_whole_in_any_order():
    joined = join(table((40, 100)), table((0, 10)), table((10, 40)))
    assert joined.order == (1, 2, 0)
    assert same(joined.metadata, table((0, 100), counts={"variants read": 100, "left out by maf": 3}))
    assert joined.missing == ()


def test_one_table_stays_as_it_is():
    assert same(join(table((0, 100))).metadata, table((0, 100)))
    assert join(table((0, 100))).missing == ()


def test_missing_shards_are_named():
    assert join(table((10, 40))).missing == ("variants 1 to 10 of 100", "variants 41 to 100 of 100")
    assert join(table((0, 10)), table((11, 100))).missing == ("variant 11 of 100",)
    joined = join(table((0, 10)), table((40, 100)))
    assert joined.missing == ("variants 11 to 40 of 100",)
    assert joined.metadata.span == span((0, 10), (40, 100))


def test_part_that_was_asked_for_is_not_missing_the_rest():
    assert join(table((10, 40), asked=((10, 40),))).missing == ()
    assert join(table((10, 20), asked=((10, 40),))).missing == ("variants 21 to 40 of 100",)


def test_chromosomes_make_the_whole():
    parts = [table((0, 40), asked=((0, 40),)), table((40, 100), asked=((40, 100),))]
    assert join(*parts).metadata.span == span((0, 100))
    assert join(table((0, 40), asked=((0, 40),)), table((60, 100), asked=((60, 100),))).missing == ()


def test_regions_leave_gaps_that_nobody_misses():
    ranges = ((5, 10), (20, 30), (40, 50))
    regions = table(*ranges, asked=ranges)
    assert join(regions).missing == ()
    with pytest.raises(InputError, match="t1: lies between the parts of t0"):
        join(regions, table((10, 20), asked=((10, 20),)))


def test_joined_tables_can_be_joined_again():
    quarters = table((0, 10)), table((10, 40)), table((40, 60)), table((60, 100))
    halves = join(*quarters[:2]).metadata, join(*quarters[2:]).metadata
    assert same(join(*halves).metadata, join(*quarters).metadata)


def test_overlaps_are_refused():
    with pytest.raises(InputError, match=r"t1: overlaps t0 \(variants 31 to 40 of 100 are in both\)"):
        join(table((0, 40)), table((30, 100)))
    with pytest.raises(InputError, match="overlaps"):
        join(table((0, 100)), table((0, 100)))


def test_files_of_different_chromosomes_are_joined_in_the_order_given():
    one, two, three = ((FileRecord(f"{k}.bed", 1, str(k)),) for k in (1, 2, 3))
    joined = join(table((0, 9), of=9, geno=two), table((4, 7), of=7, geno=one), table((0, 4), of=7, geno=one))
    assert joined.order == (0, 2, 1)
    assert joined.missing == ()
    assert joined.metadata.span is None and "geno" not in joined.metadata.inputs
    assert joined.metadata.parts == (ScanPart(two, span((0, 9), of=9)), ScanPart(one, span((0, 7), of=7)))
    assert joined.metadata.counts["variants read"] == 16
    assert same(join(joined.metadata).metadata, joined.metadata)
    assert len(join(joined.metadata, table((0, 5), of=5, geno=three)).metadata.parts) == 3


OF_ONE_SCAN = table((0, 50))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"null": replace(OF_ONE_SCAN.null, hash="b" * 64)},
            "another null model than t0 .hash bbbbbbbbbbbb instead of 0123456789ab",
        ),
        (
            {"settings": replace(OF_ONE_SCAN.settings, precision="double")},
            r'settings: precision \("double" instead of "single"\)',
        ),
        ({"filters": {"maf": 0.05}}, r"filters: maf \(0.05 instead of 0.001\)"),
        ({"filters": {"maf": 0.001, "hwe": 0.1}}, r"filters: hwe \(0.1 instead of null\)"),
        (
            {  # whose scale differs, too
                "settings": replace(OF_ONE_SCAN.settings, conditioned=("v1",)),
                "nulls": (replace(OF_ONE_SCAN.nulls[0], quadratic=1.0),),
            },
            r'settings: conditioned \(\["v1"\] instead of null\)',
        ),
        ({"version": "9"}, "version"),
        ({"inputs": {"tests": GENO}}, "inputs: tests"),
    ],
)
def test_different_scans_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        join(OF_ONE_SCAN, table((50, 100), **change))


def test_exports_are_not_joined():
    with pytest.raises(InputError, match="only some rows or columns"):
        join(table((0, 50), export={"top": 3}), table((50, 100), export={"top": 3}))


ranges = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=6)


def members(spans):
    return {i for first, last in spans for i in range(first, last)}


@given(ranges, ranges)
def test_union_and_difference_are_those_of_sets(a, b):
    for found, true in ((union(a), members(a)), (difference(a, b), members(a) - members(b))):
        assert members(found) == true
        assert list(found) == sorted(found)
        assert all(first < last for first, last in found)


def test_empty_shard():
    assert join(table((0, 0)), table((0, 100))).metadata.span == span((0, 100))
    assert join(table((100, 100)), table((0, 100))).order == (1, 0)
    assert join(table((0, 100)), table((50, 50)), table((0, 0))).metadata.span == span((0, 100))
