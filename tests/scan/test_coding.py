"""Genotypes recoded, against tables of what plink2's manual says of 0, 1, 2 copies and of dosages between."""

import numpy as np
import pytest

from kron2sum_cli.scan.block import Coding, recode
from kron2sum_cli.scan.second_column import dominance_deviation

DOSAGES = [0, 0.25, 1, 1.75, 2, np.nan]


@pytest.mark.parametrize(
    ("coding", "expected"),
    [
        ("additive", DOSAGES),
        ("genotypic", DOSAGES),
        ("dominant", [0, 0.25, 1, 1, 1, np.nan]),
        ("recessive", [0, 0, 0, 0.75, 1, np.nan]),
    ],
)
def test_diploid(coding: Coding, expected: list[float]) -> None:
    G = np.asfortranarray(np.array(DOSAGES, dtype=np.float32)[:, None])
    found = recode(G, coding)
    np.testing.assert_array_equal(found[:, 0], np.float32(expected))
    assert found is G and found.dtype == np.float32


def test_four_copies() -> None:
    copies = np.arange(5, dtype=np.float32)[:, None]
    np.testing.assert_array_equal(recode(copies.copy(), "dominant", 4)[:, 0], [0, 1, 1, 1, 1])
    np.testing.assert_array_equal(recode(copies.copy(), "recessive", 4)[:, 0], [0, 0, 0, 0, 1])


def test_heterozygotes_deviate() -> None:
    G = np.array(DOSAGES, dtype=np.float32)
    np.testing.assert_array_equal(dominance_deviation(G), np.float32([0, 0.25, 1, 0.25, 0, np.nan]))
    np.testing.assert_array_equal(G, np.float32(DOSAGES))
