"""Which tables make one, in what order, and what is missing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kron2sum_cli.errors import InputError
from kron2sum_cli.files.scan_parts import Span, difference, join_parts, union

GENO = [{"name": "g.bed", "size": 7, "hash": "ab"}]


def table(start, stop, of=100, geno=GENO, counts=None, **changes):
    metadata = {
        "version": "0.1.0",
        "null": {"hash": "a" * 64, "method": "reml"},
        "traits": ["x"],
        "axes": [[1.0]],
        "filters": {"maf": 0.01},
        "settings": {"tests": ["any"], "precision": "single"},
        "inputs": {"geno": geno, "extract": []},
        "span": {"start": start, "stop": stop, "of": of},
        "counts": counts or {"variants read": stop - start, "left out": {"--maf": 1}},
    }
    for path, value in changes.items():
        *keys, last = path.split("__")
        record = metadata
        for key in keys:
            record = record[key]
        record[last] = value
    return metadata


def join(*tables):
    return join_parts([f"t{i}" for i in range(len(tables))], tables)


def test_shards_make_the_whole_in_any_order():
    parts = [table(40, 100), table(0, 10), table(10, 40)]
    joined = join(*parts)
    whole = table(0, 100, counts={"variants read": 100, "left out": {"--maf": 3}})
    assert joined.order == (1, 2, 0)
    assert joined.metadata == whole
    assert joined.missing == ()


def test_one_table_stays_as_it_is():
    assert join(table(0, 100)).metadata == table(0, 100)
    assert join(table(0, 100)).missing == ()


def test_missing_shards_are_named():
    assert join(table(10, 40)).missing == ("variants 1 to 10 of 100", "variants 41 to 100 of 100")
    assert join(table(0, 10), table(11, 100)).missing == ("variant 11 of 100",)
    joined = join(table(0, 10), table(40, 100))
    assert joined.missing == ("variants 11 to 40 of 100",)
    assert joined.metadata["span"] == {"start": 0, "stop": 100, "of": 100, "gaps": [[10, 40]]}


def test_part_that_was_asked_for_is_not_missing_the_rest():
    chromosome = table(10, 40, span__asked=[[10, 40]])
    assert join(chromosome).missing == ()
    shard = table(10, 20, span__asked=[[10, 40]])
    assert join(shard).missing == ("variants 21 to 40 of 100",)


def test_chromosomes_make_the_whole():
    parts = [table(0, 40, span__asked=[[0, 40]]), table(40, 100, span__asked=[[40, 100]])]
    assert join(*parts).metadata["span"] == {"start": 0, "stop": 100, "of": 100}
    assert join(table(0, 40, span__asked=[[0, 40]]), table(60, 100, span__asked=[[60, 100]])).missing == ()


def test_regions_leave_gaps_that_nobody_misses():
    regions = table(5, 50, span__gaps=[[10, 20], [30, 40]], span__asked=[[5, 10], [20, 30], [40, 50]])
    assert join(regions).missing == ()
    with pytest.raises(InputError, match="t1: lies between the parts of t0"):
        join(regions, table(10, 20, span__asked=[[10, 20]]))


def test_joined_tables_can_be_joined_again():
    halves = join(table(0, 10), table(10, 40)).metadata, join(table(40, 60), table(60, 100)).metadata
    assert join(*halves).metadata == join(table(0, 10), table(10, 40), table(40, 60), table(60, 100)).metadata


def test_overlaps_are_refused():
    with pytest.raises(InputError, match=r"t1: overlaps t0 \(variants 31 to 40 of 100 are in both\)"):
        join(table(0, 40), table(30, 100))
    with pytest.raises(InputError, match="overlaps"):
        join(table(0, 100), table(0, 100))


def test_files_of_different_chromosomes_are_joined_in_the_order_given():
    one, two = [{"name": "1.bed", "hash": "1"}], [{"name": "2.bed", "hash": "2"}]
    joined = join(table(0, 9, of=9, geno=two), table(4, 7, of=7, geno=one), table(0, 4, of=7, geno=one))
    assert joined.order == (0, 2, 1)
    assert joined.missing == ()
    assert "span" not in joined.metadata and "geno" not in joined.metadata["inputs"]
    assert joined.metadata["parts"] == [
        {"geno": two, "span": {"start": 0, "stop": 9, "of": 9}},
        {"geno": one, "span": {"start": 0, "stop": 7, "of": 7}},
    ]
    assert joined.metadata["counts"]["variants read"] == 16
    assert join(joined.metadata).metadata == joined.metadata
    three = [{"name": "3.bed", "hash": "3"}]
    assert len(join(joined.metadata, table(0, 5, of=5, geno=three)).metadata["parts"]) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"null__hash": "b" * 64}, "another null model than t0 .hash bbbbbbbbbbbb instead of aaaaaaaaaaaa"),
        ({"settings__precision": "double"}, r'settings: precision \("double" instead of "single"\)'),
        ({"filters__maf": 0.05}, r"filters: maf \(0.05 instead of 0.01\)"),
        ({"filters__hwe": 0.1}, r"filters: hwe \(0.1 instead of null\)"),
        ({"version": "9"}, "version"),
        ({"inputs__extract": [{"hash": "c"}]}, "inputs: extract"),
    ],
)
def test_different_scans_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        join(table(0, 50), table(50, 100, **change))


def test_exports_are_not_joined():
    with pytest.raises(InputError, match="only some rows or columns"):
        join(table(0, 50, export={"top": 3}), table(50, 100, export={"top": 3}))


@pytest.mark.parametrize(
    "span",
    [
        None,
        {},
        {"start": 0, "stop": 5},
        {"start": 5, "stop": 0, "of": 9},
        {"start": 0, "stop": 10, "of": 9},
        {"start": -1, "stop": 5, "of": 9},
        {"start": 0.5, "stop": 5, "of": 9},
        {"start": 0, "stop": 5, "of": "9"},
        {"start": 0, "stop": 5, "of": 9, "gaps": [[2]]},
        {"start": 0, "stop": 5, "of": 9, "gaps": [[4, 7]]},
        {"start": 0, "stop": 5, "of": 9, "asked": []},
        {"start": 0, "stop": 5, "of": 9, "asked": 3},
    ],
)
def test_crafted_spans_are_refused(span):
    with pytest.raises(InputError, match="t0: its metadata do not say"):
        join(table(0, 9, of=9, span=span))


@pytest.mark.parametrize(
    "change", [{"inputs": None}, {"inputs": []}, {"parts": 3}, {"parts": [3]}, {"counts": 3}, {"counts": {"a": "b"}}]
)
def test_other_crafted_metadata_are_refused(change):
    with pytest.raises(InputError):
        join(table(0, 5, **change), table(5, 100, **change))


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
    joined = join(table(0, 0), table(0, 100))
    assert joined.metadata["span"] == {"start": 0, "stop": 100, "of": 100}
    assert join(table(100, 100), table(0, 100)).order == (1, 0)
    assert join(table(0, 100), table(50, 50), table(0, 0)).metadata["span"]["stop"] == 100
    assert Span(((0, 0),), ((0, 0),), 0).to_metadata() == {"start": 0, "stop": 0, "of": 0}
