"""What a result table and a null model say of their making, written and read again."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scan_metadata_of import scan_metadata_of

from kron2sum_cli.files.inputs import FileRecord
from kron2sum_cli.files.null_file import GrmRecord, NullMetadata
from kron2sum_cli.files.scan_metadata import NullScale, ScanMetadata, ScanPart, Span
from kron2sum_cli.model.uncertainty import Interval

SPAN = Span(((0, 5), (7, 9)), ((0, 9),), 10)
METADATA = scan_metadata_of(["a", "b"], SPAN, ["common"], export={"top": 3}, coupled=True)


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
