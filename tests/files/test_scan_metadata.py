"""What a result table and a null model say of their making, written and read again; and which tables make one."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scan_metadata_of import scan_metadata_of

from kron2sum_cli.errors import InputError
from kron2sum_cli.files.inputs import FileRecord
from kron2sum_cli.files.null_file import GrmRecord, NullMetadata
from kron2sum_cli.files.scan_metadata import NullScale, ScanMetadata, ScanPart, Span, difference, join_parts, union
from kron2sum_cli.model.uncertainty import Interval

SPAN = Span(((0, 5), (7, 9)), ((0, 9),), 10)
METADATA = scan_metadata_of(["a", "b"], SPAN, ["common"], export={"top": 3}, coupled=True)

GENO = (FileRecord("g.bed", 7, "ab"),)


def test_every_record_is_read_back() -> None:
    axes = np.array([[1.0, 2.0], [3.0, 5.0]]) / 3
    of_chromosome = NullScale("X", axes, 7.5, 20, 15)
    metadata = replace(METADATA, nulls=(*METADATA.nulls, of_chromosome), null_of_chr={"chrX": "X"})
    again = ScanMetadata.from_json(metadata.to_json())
    assert again.to_json() == metadata.to_json()
    whole, without_x = again.nulls
    np.testing.assert_array_equal(without_x.axes, axes)
    assert (whole.chromosome, without_x.chromosome, again.null_of_chr) == (None, "X", {"chrX": "X"})
    assert (again.span, again.settings, again.export) == (SPAN, METADATA.settings, {"top": 3})
    context = without_x.context("f", "double")
    assert (context.quadratic, context.size, context.residual_df, context.statistic) == (7.5, 20, 15, "f")


def test_equal_records_are_equal_texts() -> None:
    text, other = (
        replace(METADATA, filters=filters).to_json() for filters in ({"maf": 0.1, "ü": 1}, {"ü": 1, "maf": 0.1})
    )
    assert text == other
    assert json.loads(text)["filters"] == {"maf": 0.1, "ü": 1}
    assert '"filters":{"maf":0.1,"ü":1}' in text


def test_a_table_of_several_files() -> None:
    part = ScanPart((FileRecord("1.bed", 3, "ab"),), SPAN)
    metadata = replace(METADATA, span=None, parts=(part,))
    assert ScanMetadata.from_json(metadata.to_json()).parts == (part,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layout": 1}, r"was written by kron2sum \S+, and the layout of such files has changed since; make it again"),
        ({"layout": 9}, r"was written by kron2sum \S+, which is newer; install that version"),
    ],
)
def test_metadata_of_other_versions(change: dict[str, object], message: str) -> None:
    content = json.loads(METADATA.to_json()) | change
    with pytest.raises(ValueError, match=message):
        ScanMetadata.from_json(json.dumps(content))


def test_metadata_of_a_null_model() -> None:
    grm = GrmRecord(("g.bed",), True, (FileRecord("g.bed", 3, "00"),), {"maf": 0.01})
    metadata = NullMetadata(
        "1.2.3", "ml", ("a",), ("intercept",), grm, {"pheno": ()}, {"analysed": 9},
        chromosomes=("1", "X"), profile={"a": Interval(0.25, 0.75, False)}, hash="ab",
    )  # fmt: skip
    assert NullMetadata.from_json(metadata.to_json()) == metadata
    older = json.loads(metadata.to_json()) | {"format": 1}
    with pytest.raises(ValueError, match=r"kron2sum 1\.2\.3, and the layout of such files has changed since"):
        NullMetadata.from_json(json.dumps(older))


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
