"""Counts of genotypes, against their definitions variant by variant."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from kron2sum_cli.genotypes.counts import genotype_counts

NAN = np.nan


def block(*variants: list[float]) -> NDArray[np.float32]:
    return np.array(variants, dtype=np.float32).T


def test_counts_of_each_kind_of_variant() -> None:
    counts = genotype_counts(
        block([0, 1, 2, 2], [0, 0, 0, 0], [1, 1, NAN, 1], [NAN] * 4, [NAN, 0, 1, NAN], [0.5, 0.5, 1.5, 1]),
        hard_calls=True,
    )
    assert counts.n_samples == 4
    assert counts.n_called.tolist() == [4, 4, 3, 0, 2, 4]
    assert counts.ea_count.tolist() == [5, 0, 3, 0, 1, 3.5]
    assert counts.constant.tolist() == [False, True, True, True, False, False]
    np.testing.assert_array_equal(counts.eaf, [0.625, 0, 0.5, NAN, 0.25, 3.5 / 8])
    np.testing.assert_array_equal(counts.maf, [0.375, 0, 0.5, NAN, 0.25, 3.5 / 8])
    np.testing.assert_array_equal(counts.mac, [3, 0, 3, 0, 1, 3.5])
    np.testing.assert_array_equal(counts.missing, [0, 0, 0.25, 1, 0.5, 0])
    assert counts.hard_calls is not None
    two_ea, one_ea, no_ea = counts.hard_calls.tolist()
    assert two_ea == [2, 0, 0, 0, 0, 0]
    assert one_ea == [1, 0, 3, 0, 1, 1]
    assert no_ea == [1, 4, 0, 0, 1, 0]


def test_hard_calls_of_dosages_are_those_without_doubt() -> None:
    counts = genotype_counts(block([0.1, 0.11, 0.9, 1.1, 1.5, 1.9]), hard_calls=True)
    assert counts.hard_calls is not None
    assert counts.hard_calls.tolist() == [[1], [2], [1]]


def test_hard_calls_are_counted_on_request_only() -> None:
    assert genotype_counts(block([0, 1])).hard_calls is None


def test_a_frequency_at_the_bound_is_not_below_it() -> None:
    counts = genotype_counts(block([2, 2, 2, 2, 2, 2, 2, 2, 2, 0]))
    assert counts.maf[0] == 0.1


@given(seed=st.integers(0, 1000), n=st.integers(1, 20), m=st.integers(1, 9))
def test_a_variant_does_not_depend_on_its_neighbours(seed: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    dosages = np.asfortranarray(rng.uniform(0, 2, (n, m)).astype(np.float32))
    dosages[rng.random((n, m)) < rng.random(m)] = NAN
    together = genotype_counts(dosages, hard_calls=True)
    for j in range(m):
        alone = genotype_counts(np.asfortranarray(dosages[:, [j]]), hard_calls=True)
        assert (alone.n_called[0], alone.ea_count[0]) == (together.n_called[j], together.ea_count[j])
        assert alone.constant[0] == together.constant[j]
        called = dosages[~np.isnan(dosages[:, j]), j].astype(np.float64)
        assert alone.n_called[0] == len(called)
        np.testing.assert_allclose(alone.ea_count[0], called.sum(), rtol=1e-6)


def test_imputation_quality() -> None:
    """The variance of the dosages over that of certain genotypes of the same frequency."""
    certain = np.array([0, 1, 2, 1, 1], np.float32)
    uncertain = np.array([0.1, 1.4, np.nan, 1.9, 0.6], np.float32)
    same = np.full(5, 0.5, np.float32)
    dosages = np.asfortranarray(np.stack([certain, uncertain, same], axis=1))
    info = genotype_counts(dosages, quality=True).info
    called = uncertain[[0, 1, 3, 4]].astype(float)
    f = called.mean() / 2
    np.testing.assert_allclose(info, [np.nan, called.var() / (2 * f * (1 - f)), 0], rtol=1e-12)
    assert np.isnan(genotype_counts(dosages).info).all()


def test_ploidy() -> None:
    dosages = np.asfortranarray([[0, 4], [1, 3], [np.nan, 4], [3, 4]], np.float32)
    counts = genotype_counts(dosages, ploidy=4)
    np.testing.assert_allclose(counts.eaf, [4 / 12, 15 / 16])
    np.testing.assert_allclose(counts.mean, [4 / 3, 15 / 4])
    np.testing.assert_array_equal(counts.mac, [4, 1])


def test_variants_that_vary_only_after_the_first_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kron2sum_cli.genotypes.counts.LOOKED_AT_FIRST", (1, 2))
    counts = genotype_counts(
        block([1, 1, 1, 2], [1, 1, 1, 1], [NAN, NAN, 1, 1], [NAN, NAN, 0, 1], [0, 1, 1, 1], [NAN, 1, NAN, 2], [NAN] * 4)
    )
    assert counts.constant.tolist() == [False, True, True, False, False, False, True]
