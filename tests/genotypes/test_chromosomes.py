"""Chromosome codes, ``--chr`` and ``--region``."""

import numpy as np
import pyarrow as pa
import pytest

from kron2sum_cli.errors import UsageError
from kron2sum_cli.genotypes.chromosomes import (
    Region,
    encode_chromosomes,
    normalise_chromosome,
    parse_chromosomes,
    parse_region,
)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("1", "1"),
        ("chr1", "1"),
        ("CHR01", "1"),
        ("22", "22"),
        ("23", "X"),
        ("chrX", "X"),
        ("x", "X"),
        ("24", "Y"),
        ("25", "XY"),
        ("xy", "XY"),
        ("26", "MT"),
        ("M", "MT"),
        ("chrM", "MT"),
        ("0", "0"),
        ("00", "0"),
        ("chr", "chr"),
        ("PAR1", "XY"),
        ("chrPAR2", "XY"),
        ("chr6_GL000250v2_alt", "6_GL000250v2_alt"),
    ],
)
def test_spellings(code: str, expected: str) -> None:
    assert normalise_chromosome(code) == expected
    assert normalise_chromosome(expected) == expected


def test_encoding_joins_spellings_and_keeps_the_order() -> None:
    column = pa.chunked_array([["chr2", "X"], [], ["2", "23", "1"]], type=pa.string())
    codes, index, human = encode_chromosomes(column)
    assert codes == ["2", "X", "1"] and human
    np.testing.assert_array_equal(index, [0, 1, 0, 1, 2])


def test_encoding_nothing() -> None:
    codes, index, _ = encode_chromosomes(pa.chunked_array([], type=pa.string()))
    assert codes == [] and index.shape == (0,)


@pytest.mark.parametrize(
    ("column", "known"), [(["22", "23", "29", "X"], ()), (["chr23", "24", "25", "26", "X"], ()), (["23"], ("1", "29"))]
)
def test_chromosome_23_is_x_in_human_data_only(column: list[str], known: tuple[str, ...]) -> None:
    """Cattle have 29 autosomes, and sheep 26."""
    codes, _, human = encode_chromosomes(pa.chunked_array([column], type=pa.string()), known)
    assert not human and codes == [code.removeprefix("chr") for code in column]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", (("1",),)),
        ("1,2,X", (("1",), ("2",), ("X",))),
        ("1-3", (("1", "2", "3"),)),
        ("chr21-chr23, chrY", (("21", "22", "23"), ("Y",))),
        ("HLA-A", (("HLA-A",),)),
    ],
)
def test_lists(text: str, expected: tuple[tuple[str, ...], ...]) -> None:
    assert parse_chromosomes(text) == expected


@pytest.mark.parametrize("text", ["", " ", "1,,2", "1,", "5-1", "1-1000000"])
def test_malformed_lists(text: str) -> None:
    with pytest.raises(UsageError, match="--chr"):
        parse_chromosomes(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("6:100-200", Region("6", 100, 200)),
        ("chrX:0-0", Region("X", 0, 0)),
        ("6:25,000,000-34,000,000", Region("6", 25_000_000, 34_000_000)),
        ("HLA-A*01:01:5-9", Region("HLA-A*01:01", 5, 9)),
    ],
)
def test_regions(text: str, expected: Region) -> None:
    assert parse_region(text) == expected


@pytest.mark.parametrize(
    "text", ["6", "6:100", "6:100-", ":1-2", "6:200-100", "6:1,00-200", "6:a-b", "6:1e3-2e3", f"6:1-{2**63}"]
)
def test_malformed_regions(text: str) -> None:
    with pytest.raises(UsageError, match="--region"):
        parse_region(text)


@pytest.mark.parametrize("text", ["1:1-5,2:1-5", "1:1,000-5,000 2:1-5", "chr1:1-5; chr2:1-5"])
def test_several_regions_in_one_option(text: str) -> None:
    """Not a chromosome called 1:1-5,2, as HLA-A*01:01:1-5 is one."""
    with pytest.raises(UsageError, match="is not chr:from-to; .*, and --region again for another"):
        parse_region(text)
    assert parse_region("HLA-A*01:01:1-5").chromosome == "HLA-A*01:01"
