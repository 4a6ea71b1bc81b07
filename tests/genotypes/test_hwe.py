"""The exact test of Hardy-Weinberg equilibrium against rational arithmetic and plink2."""

import shutil
import subprocess
from collections.abc import Callable
from fractions import Fraction
from math import factorial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kron2sum_cli.genotypes.counts import genotype_counts
from kron2sum_cli.genotypes.filters import hwe_exact


def exact_p(het: int, hom_1: int, hom_2: int) -> Fraction:
    """Equation 1 and 2 of Wigginton et al. without rounding."""
    n, rare = het + hom_1 + hom_2, 2 * min(hom_1, hom_2) + het
    probability = {
        h: Fraction(2**h, factorial(h) * factorial((rare - h) // 2) * factorial(n - h - (rare - h) // 2))
        for h in range(rare % 2, rare + 1, 2)
    }
    tail = sum(p for p in probability.values() if p <= probability[het])
    return Fraction(tail) / Fraction(sum(probability.values()))


@given(st.lists(st.tuples(*[st.integers(0, 60)] * 3), min_size=1, max_size=8))
def test_equals_rational_arithmetic(cells: list[tuple[int, int, int]]) -> None:
    het, hom_1, hom_2 = np.array(cells, dtype=np.int64).T
    expected = [float(exact_p(*cell)) for cell in cells]
    np.testing.assert_allclose(hwe_exact(het, hom_1, hom_2), expected, rtol=1e-9)


def test_extremes() -> None:
    het, hom_1, hom_2 = np.array([[0, 0, 0], [0, 50, 0], [0, 20_000, 20_000], [40_000, 0, 0]]).T
    p = hwe_exact(het, hom_1, hom_2)
    assert p.tolist()[:2] == [1.0, 1.0]
    assert (p[2:] >= 0).all() and (p[2:] < 1e-300).all()
    assert hwe_exact(*np.zeros((3, 0), dtype=np.int64)).shape == (0,)


@pytest.mark.skipif(shutil.which("plink2") is None, reason="plink2 is not installed")
def test_equals_plink2(make_bed: Callable[..., str]) -> None:
    rng = np.random.default_rng(5)
    dosages = rng.choice([0, 1, 2, np.nan], (70, 40), p=[0.3, 0.3, 0.3, 0.1]).astype(np.float32)
    stem = make_bed(dosages).removesuffix(".bed")
    subprocess.run(["plink2", "--bfile", stem, "--hardy", "--silent", "--out", stem], check=True)
    lines = [line.split("\t") for line in Path(f"{stem}.hardy").read_text().splitlines()]
    expected = [float(line[lines[0].index("P")]) for line in lines[1:]]
    calls = genotype_counts(np.asfortranarray(dosages), hard_calls=True).hard_calls
    assert calls is not None
    np.testing.assert_allclose(hwe_exact(calls[1], calls[0], calls[2]), expected, rtol=1e-5)
