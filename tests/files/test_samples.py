"""Matching samples across files."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kron2sum_cli.errors import InputError
from kron2sum_cli.files.samples import Samples, count_absent, match, refuse_duplicates

IDS = st.lists(st.tuples(st.sampled_from("fgh"), st.sampled_from("abcdefgh")), unique=True, max_size=20)


def with_fids(ids: list[tuple[str, str]], source: str = "file") -> Samples:
    return Samples(tuple(fid for fid, _ in ids), tuple(iid for _, iid in ids), source)


def without_fids(iids: str, source: str = "file") -> Samples:
    return Samples(None, tuple(iids), source)


def test_match_on_both_ids() -> None:
    reference = with_fids([("f", "a"), ("g", "a"), ("g", "b")])
    other = with_fids([("g", "b"), ("h", "c"), ("f", "a")])
    assert match(reference, other).tolist() == [2, -1, 0]
    assert match(reference, other).dtype == np.intp


def test_match_on_iid_where_either_lacks_fids() -> None:
    full = with_fids([("f", "a"), ("g", "b")])
    assert match(full, without_fids("bxa")).tolist() == [2, 0]
    assert match(without_fids("bxa"), full).tolist() == [1, -1, 0]
    assert match(without_fids("ab"), without_fids("ba")).tolist() == [1, 0]


@pytest.mark.parametrize("turned", [False, True])
def test_match_refuses_ambiguous_iids_in_either_file(turned: bool) -> None:
    full = with_fids([("f", "a"), ("f", "b"), ("g", "b")], "full.fam")
    short = without_fids("b", "short.csv")
    pair = (short, full) if turned else (full, short)
    with pytest.raises(InputError, match=r"full.fam: samples 'f b' and 'g b' have the same IID, but short.csv"):
        match(*pair)


def test_match_allows_repeated_ids_that_do_not_matter() -> None:
    full = with_fids([("f", "a"), ("f", "b"), ("g", "b")])
    assert match(full, without_fids("a")).tolist() == [0, -1, -1]
    assert match(without_fids("a"), full).tolist() == [0]


def test_match_refuses_a_sample_that_is_there_twice() -> None:
    twice = with_fids([("f", "a"), ("f", "a")], "twice.fam")
    with pytest.raises(InputError, match=r"twice.fam: sample 'f a', which is also in once.csv, is there more"):
        match(with_fids([("f", "a")], "once.csv"), twice)
    with pytest.raises(InputError, match="one: sample 'a', which is also in two"):
        match(without_fids("aa", "one"), without_fids("a", "two"))


def test_match_of_nothing() -> None:
    assert match(without_fids(""), without_fids("a")).tolist() == []
    assert match(without_fids("a"), with_fids([])).tolist() == [-1]


@given(IDS, IDS, st.randoms(use_true_random=False))
def test_match_whatever_the_order(
    one: list[tuple[str, str]], two: list[tuple[str, str]], shuffler: random.Random
) -> None:
    shuffled = list(two)
    shuffler.shuffle(shuffled)
    for other in (two, shuffled):
        positions = match(with_fids(one), with_fids(other))
        found = [other[i] if i >= 0 else None for i in positions]
        assert found == [key if key in two else None for key in one]
    assert count_absent(with_fids(one), with_fids(two)) == len(set(one) - set(two))


def test_count_absent_on_iids() -> None:
    assert count_absent(with_fids([("f", "a"), ("g", "b"), ("h", "b")]), without_fids("a")) == 2


def test_names_that_join_fid_and_iid() -> None:
    """As plink2 writes them into BGEN and VCF, which have one name for a sample."""
    pheno, joined = with_fids([("f", "a"), ("g", "b")]), Samples(None, ("g_b", "x_y", "f_a"), "g.bgen")
    assert match(pheno, joined).tolist() == [2, 0] and match(joined, pheno).tolist() == [1, -1, 0]
    assert count_absent(joined, pheno) == 1
    assert match(pheno, Samples(None, ("a", "g_b"), "g.bgen")).tolist() == [0, -1], "IIDs come first"


@pytest.mark.parametrize(
    "pheno", [with_fids([("f", "a"), ("g", "b")]), with_fids([("0", "a"), ("0", "b")]), without_fids("ab")]
)
def test_names_that_join_an_unknown_fid_and_iid(pheno: Samples) -> None:
    """As plink writes them into a .traw, and plink 1.9 into VCF, where no sample has a FID."""
    joined = Samples(None, ("0_b", "0_x", "0_a"), "g.traw")
    assert match(pheno, joined).tolist() == [2, 0] and match(joined, pheno).tolist() == [1, -1, 0]
    assert match(pheno, Samples(None, ("0_b", "x_y", "0_a"), "g.vcf")).max() == -1, "0_ is a part of the names"


def test_fids_that_are_all_zero_are_none() -> None:
    genotypes, pheno = with_fids([("0", "a"), ("0", "b")]), with_fids([("f", "b"), ("g", "a")])
    assert match(pheno, genotypes).tolist() == [1, 0] and match(genotypes, pheno).tolist() == [1, 0]
    assert match(with_fids([("0", "a"), ("f", "b")]), pheno).tolist() == [-1, 0], "one FID is known"


def test_refuse_duplicates() -> None:
    samples = with_fids([("f", "a"), ("g", "a"), ("f", "a")], "y.csv")
    with pytest.raises(InputError, match=r"y.csv, line 9: sample 'f a' was already in line 3; remove one"):
        refuse_duplicates(samples, [3, 5, 9])
    with pytest.raises(InputError, match=r"y.csv, sample 3: sample 'f a' was already in sample 1"):
        refuse_duplicates(samples)
    refuse_duplicates(samples.take([0, 1]))
    with pytest.raises(InputError, match="sample 'a' was already in line 1"):
        refuse_duplicates(without_fids("aa"), [1, 2])


def test_take_and_label() -> None:
    samples = with_fids([("f", "a"), ("g", "b")]).take(np.array([1, 0]))
    assert [samples.label(0), samples.label(1)] == ["g b", "f a"]
    assert without_fids("ab").take([1]).label(0) == "b"
