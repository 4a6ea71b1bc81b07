"""Who is analysed, with which values, and the counts of every step."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kron2sum_cli.errors import InputError, NumericalError
from kron2sum_cli.files.sample_table import SampleTable
from kron2sum_cli.files.samples import Samples
from kron2sum_cli.fit.samples import AnalysedSamples, analysed_samples

DROPS = (
    "samples removed by --keep",
    "samples removed by --remove",
    "samples not in the phenotype file",
    "samples not in the covariate file",
    "samples dropped for missing phenotype",
    "samples dropped for missing covariate",
    "samples analysed",
)


def samples(iids: str, source: str, fid: str | None = "f") -> Samples:
    return Samples(None if fid is None else (fid,) * len(iids), tuple(iids), source)


def table(who: Samples, names: str, values: list[list[float]], levels: object = None) -> SampleTable:
    kinds = levels if isinstance(levels, tuple) else (None,) * len(names)
    return SampleTable(who, tuple(names), np.array(values, dtype=float), kinds, who.source, ())


def accounted(result: AnalysedSamples) -> bool:
    """Every sample of the relationship file is in one of the counts."""
    total = sum(result.counts.get(key, 0) for key in DROPS)
    return total == result.counts["samples in the relationship file"]


def example() -> tuple[SampleTable, SampleTable, Samples]:
    nan = np.nan
    pheno = table(
        samples("hgfedcbaz", "y.csv"),
        "pq",
        [[1, 2], [3, 5], [nan, 1], [nan, nan], [2, 2], [4, 4], [6, 1], [7, 3], [0, 0]],
    )
    covar = table(samples("abcdefg", "x.csv"), "u", [[1], [nan], [3], [4], [5], [6], [7]])
    return pheno, covar, samples("abcdefghi", "g.fam")


def test_every_step_is_counted() -> None:
    pheno, covar, relationship = example()
    keep, remove = samples("abcdefgh", "keep"), samples("a", "remove")
    result = analysed_samples(pheno, covar, relationship, keep, remove)
    assert list(result.counts.items()) == [
        ("samples in the relationship file", 9),
        ("samples in the phenotype file", 9),
        ("phenotyped samples not in the relationship file", 1),
        ("samples in the covariate file", 7),
        ("samples removed by --keep", 1),
        ("samples remaining after --keep", 8),
        ("samples removed by --remove", 1),
        ("samples remaining after --remove", 7),
        ("samples not in the phenotype file", 0),
        ("samples not in the covariate file", 1),
        ("samples dropped for missing phenotype", 2),
        ("of these with some of the traits", 1),
        ("samples dropped for missing covariate", 1),
        ("samples analysed", 3),
    ]
    assert accounted(result)
    assert result.samples.iids == ("c", "d", "g")
    assert result.samples.source == "g.fam"
    np.testing.assert_array_equal(result.Y, [[4, 4], [2, 2], [3, 5]])
    np.testing.assert_array_equal(result.X_values, [[3], [4], [7]])
    assert (result.traits, result.covariates) == (("p", "q"), ("u",))
    assert result.relationship_rows.tolist() == [2, 3, 6]
    assert result.pheno_rows.tolist() == [5, 4, 1]


def test_without_covariates() -> None:
    pheno, _, relationship = example()
    result = analysed_samples(pheno, None, relationship)
    assert result.samples.iids == ("a", "b", "c", "d", "g", "h")
    assert result.covariates == ()
    assert result.X_values.shape == (6, 0)
    assert "samples in the covariate file" not in result.counts
    assert accounted(result)


def test_exact_keeps_who_has_some_trait() -> None:
    pheno, covar, relationship = example()
    result = analysed_samples(pheno, covar, relationship, missing="exact")
    assert result.samples.iids == ("a", "c", "d", "f", "g")
    assert result.counts["samples dropped for missing phenotype"] == 1
    assert result.counts["samples kept with some of the traits"] == 1
    assert np.isnan(result.Y[3]).tolist() == [True, False]
    rows = np.sort(np.concatenate([result.relationship_rows, result.not_analysed_rows]))
    np.testing.assert_array_equal(rows, np.arange(len(relationship)))
    assert accounted(result)


def test_categorical_covariates_are_coded() -> None:
    covar = table(samples("abc", "x.csv"), "us", [[1, 0], [2, 1], [3, 0]], (None, ("M", "F")))
    pheno = table(samples("cba", "y.csv"), "p", [[1], [2], [3]])
    result = analysed_samples(pheno, covar, samples("abc", "g.fam"))
    assert result.covariates == ("u", "s=M")
    np.testing.assert_array_equal(result.X_values, [[1, 1], [2, 0], [3, 1]])
    assert result.levels == {"s": {"F": 1, "M": 2}}


def test_iids_alone_match_where_a_file_has_no_fids() -> None:
    pheno = table(samples("ba", "y.csv", None), "p", [[1], [2]])
    covar = table(samples("ab", "x.csv", "other"), "u", [[1], [2]])
    result = analysed_samples(pheno, covar, samples("ab", "g.grm", None))
    assert result.Y[:, 0].tolist() == [2, 1]
    assert result.X_values[:, 0].tolist() == [1, 2]


def test_an_ambiguous_sample_can_be_removed() -> None:
    relationship = Samples(("f", "g", "f"), ("a", "a", "b"), "g.fam")
    pheno = table(samples("ab", "y.csv", None), "p", [[1], [2]])
    with pytest.raises(InputError, match=r"g.fam: samples 'f a' and 'g a' have the same IID"):
        analysed_samples(pheno, None, relationship)
    result = analysed_samples(pheno, None, relationship, remove=samples("a", "remove", "g"))
    assert result.relationship_rows.tolist() == [0, 2]


def test_no_samples_in_common() -> None:
    pheno, _, relationship = example()
    strangers = table(samples("xy", "x.csv"), "u", [[1], [2]])
    with pytest.raises(
        InputError,
        match=r"x.csv and g.fam have no samples in common \(g.fam has for example 'f a', x.csv has for "
        r"example 'f x'\); check that both files use the same IDs",
    ):
        analysed_samples(pheno, strangers, relationship)
    with pytest.raises(InputError, match=r"y.csv and g.fam have no samples .*'9 a', .*'f h'.*remove the FID"):
        analysed_samples(pheno, None, samples("abc", "g.fam", "9"))


@pytest.mark.parametrize(
    ("keep", "remove", "message"),
    [
        ("xyz", None, "--keep keep leaves no sample of g.fam .*'f a', keep has for example 'f x'"),
        ("", None, r"--keep keep leaves no sample of g.fam \(g.fam has for example 'f a'\)"),
        (None, "abcdefghi", "--remove remove leaves no sample of g.fam"),
    ],
)
def test_lists_that_leave_nobody(keep: str | None, remove: str | None, message: str) -> None:
    pheno, _, relationship = example()
    kept = None if keep is None else samples(keep, "keep")
    removed = None if remove is None else samples(remove, "remove")
    with pytest.raises(InputError, match=message):
        analysed_samples(pheno, None, relationship, kept, removed)


def test_nobody_is_complete() -> None:
    nan = np.nan
    pheno = table(samples("ab", "y.csv"), "pq", [[nan, nan], [1, nan]])
    relationship = samples("ab", "g.fam")
    with pytest.raises(InputError, match=r"y.csv: no sample is left .* trait 'q' is missing in 2 of 2 samples"):
        analysed_samples(pheno, None, relationship)
    with pytest.raises(InputError, match=r"y.csv: trait 'q' is missing in all 1 analysed samples: leave it out"):
        analysed_samples(pheno, None, relationship, missing="exact")
    covar = table(samples("ab", "x.csv"), "u", [[nan], [nan]])
    full = table(samples("ab", "y.csv"), "p", [[1], [2]])
    with pytest.raises(InputError, match=r"x.csv: .* covariate 'u' is missing in 2 of 2 samples"):
        analysed_samples(full, covar, relationship)


def test_constant_over_the_analysed_samples() -> None:
    both = table(samples("ab", "y.csv"), "pq", [[1, 2], [1, 2]])
    with pytest.raises(NumericalError, match=r"y.csv: traits 'p', 'q' are constant over the 2 analysed samples"):
        analysed_samples(both, None, samples("ab", "g.fam"))
    pheno = table(samples("abc", "y.csv"), "pq", [[1, 1], [1, 2], [2, 3]])
    with pytest.raises(NumericalError, match=r"y.csv: trait 'p' is constant over the 2 analysed samples; leave it out"):
        analysed_samples(pheno, None, samples("ab", "g.fam"))


def test_constant_because_another_trait_or_a_covariate_is_missing() -> None:
    nan = np.nan
    pheno = table(samples("abc", "y.csv"), "pqr", [[1, 2, 5], [nan, 3, 6], [nan, 4, 7]])
    everybody = samples("abc", "g.fam")
    message = (
        r"traits 'p', 'q', 'r' are constant over the 1 analysed sample \(2 samples dropped for missing phenotype\);"
        r" leave them, or 'p', which 2 samples lack, out \(--pheno-name\)"
    )
    with pytest.raises(NumericalError, match=message):
        analysed_samples(pheno, None, everybody)
    with pytest.raises(NumericalError, match="trait 'p' is constant over the 1 analysed sample that has it; leave it"):
        analysed_samples(pheno, None, everybody, missing="exact")
    whole = table(samples("abc", "y.csv"), "pq", [[1, 2], [1, 3], [2, 3]])
    covar = table(samples("abc", "x.csv"), "u", [[1], [2], [nan]])
    message = (
        r"trait 'p' is constant over the 2 analysed samples \(1 sample dropped for missing covariate\); leave it out"
    )
    with pytest.raises(NumericalError, match=message):
        analysed_samples(whole, covar, everybody)


VALUES = st.one_of(st.just(np.nan), st.floats(-1e6, 1e6))


@given(
    st.lists(st.tuples(VALUES, VALUES, VALUES), min_size=4, max_size=12),
    st.sets(st.integers(0, 11), max_size=3),
    st.randoms(use_true_random=False),
)
def test_the_order_of_files_does_not_matter(
    rows: list[tuple[float, float, float]], unlisted: set[int], shuffler: random.Random
) -> None:
    # Two samples without gaps, so that something is analysed.
    rows = [(0.0, 1.0, 2.0), (1.0, 3.0, 4.0), *rows]
    iids = "abcdefghijklmn"[: len(rows)]
    remove = samples("".join(iid for i, iid in enumerate(iids) if i - 2 in unlisted), "remove")
    values = np.array(rows)
    order = list(range(len(rows)))

    def shuffled() -> list[int]:
        shuffler.shuffle(order)
        return list(order)

    def run(pheno: list[int], covar: list[int], relationship: list[int]) -> AnalysedSamples:
        who = samples(iids, "file")
        return analysed_samples(
            table(who.take(pheno), "pq", values[pheno, :2].tolist()),
            table(who.take(covar), "u", values[covar, 2:].tolist()),
            who.take(relationship),
            remove=remove,
        )

    straight = run(*(list(range(len(rows))) for _ in range(3)))
    again = run(shuffled(), shuffled(), list(range(len(rows))))
    assert again.samples == straight.samples
    assert again.counts == straight.counts
    assert accounted(again)
    np.testing.assert_array_equal(again.Y, straight.Y)
    np.testing.assert_array_equal(again.X_values, straight.X_values)
    turned = run(shuffled(), shuffled(), shuffled())
    position = {iid: i for i, iid in enumerate(straight.samples.iids)}
    back = [position[iid] for iid in turned.samples.iids]
    np.testing.assert_array_equal(turned.Y, straight.Y[back])
    np.testing.assert_array_equal(turned.X_values, straight.X_values[back])
