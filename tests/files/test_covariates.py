"""Indicators of categorical covariates."""

import numpy as np
import pytest

from kron2sum_cli.errors import InputError, NumericalError
from kron2sum_cli.files.sample_table import MAX_LEVELS, SampleTable, code_covariates, code_with_levels
from kron2sum_cli.files.samples import Samples


def table(
    names: tuple[str, ...], columns: list[list[float]], levels: tuple[tuple[str, ...] | None, ...]
) -> SampleTable:
    samples = Samples(None, tuple(f"s{i}" for i in range(len(columns[0]))), "x.csv")
    return SampleTable(samples, names, np.array(columns, dtype=float).T, levels, "x.csv", ())


def test_indicators_against_the_first_sorted_level() -> None:
    covar = table(("age", "site"), [[1, 2, 3, 4], [0, 1, 2, 0]], (None, ("Oslo", "Bergen", "Rome")))
    coded = code_covariates(covar, np.array([3, 1, 0, 2]))
    assert coded.names == ("age", "site=Oslo", "site=Rome")
    np.testing.assert_array_equal(coded.values, [[4, 1, 0], [2, 0, 0], [1, 1, 0], [3, 0, 1]])
    assert coded.levels == {"site": {"Bergen": 1, "Oslo": 2, "Rome": 1}}
    assert list(coded.levels["site"]) == ["Bergen", "Oslo", "Rome"]


def test_levels_that_are_numbers_sort_as_numbers() -> None:
    covar = table(("batch",), [[0, 1, 2]], (("10", "9", "1"),))
    assert code_covariates(covar, np.arange(3)).names == ("batch=9", "batch=10")


def test_only_levels_of_the_analysed_samples_count() -> None:
    covar = table(("site",), [[0, 1, 2]], (("a", "b", "c"),))
    coded = code_covariates(covar, np.array([1, 2]))
    assert coded.names == ("site=c",)
    assert coded.levels == {"site": {"b": 1, "c": 1}}


def test_further_samples_are_coded_alike() -> None:
    """Of the levels of those analysed; -1 is a sample that the table lacks."""
    covar = table(("age", "site"), [[1, 2, 3, np.nan], [0, 1, 2, 2]], (None, ("Oslo", "Bergen", "Rome")))
    coded = code_covariates(covar, np.array([1, 2]))
    assert coded.names == ("age", "site=Rome")
    found = code_with_levels(covar, np.array([3, 0, -1, 2]), coded.levels)
    np.testing.assert_array_equal(found, [[np.nan, 1], [1, np.nan], [np.nan, np.nan], [3, 1]])


def test_a_single_level_is_refused() -> None:
    covar = table(("site",), [[0, 0, 1]], (("Oslo", "Rome"),))
    with pytest.raises(NumericalError, match=r"x.csv: categorical covariate 'site' is 'Oslo' in all 2 analysed"):
        code_covariates(covar, np.array([0, 1]))


def test_too_many_levels_are_refused() -> None:
    n = MAX_LEVELS + 1
    covar = table(("id",), [list(range(n))], (tuple(map(str, range(n))),))
    with pytest.raises(InputError, match=f"categorical covariate 'id' has {n} levels in {n} samples"):
        code_covariates(covar, np.arange(n))


def test_name_of_an_indicator_is_taken() -> None:
    covar = table(("sex=M", "sex"), [[1, 2], [0, 1]], (None, ("F", "M")))
    with pytest.raises(InputError, match="'sex=M' is both a column and a level"):
        code_covariates(covar, np.arange(2))
