"""Choosing columns by name and by range."""

import pytest

from kron2sum_cli.errors import InputError, UsageError
from kron2sum_cli.files.sample_table import SUGGEST_AMONG, choose_columns

COLUMNS = ("height", "weight", "waist-hip", "bmi", "BMI2")


def choose(*wanted: str, columns: tuple[str, ...] = COLUMNS) -> tuple[int, ...]:
    return choose_columns(wanted, columns, "--pheno-name", "y.csv, line 1")


def test_names_in_the_order_wanted() -> None:
    assert choose("bmi", "height") == (3, 0)
    assert choose() == ()


def test_ranges_in_the_order_of_the_file() -> None:
    assert choose("weight-bmi", "height") == (1, 2, 3, 0)
    assert choose("weight-waist-hip") == (1, 2)
    assert choose("waist-hip-bmi") == (2, 3)
    assert choose("bmi-bmi") == (3,)


def test_a_column_of_that_name_comes_before_a_range() -> None:
    assert choose("a-c", columns=("a", "b", "c", "a-c")) == (3,)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hieght", r"y.csv, line 1: there is no column 'hieght' \(--pheno-name\); did you mean 'height' or 'w"),
        ("Bmi", r"did you mean 'bmi'\?"),
        ("zzz", r"no column 'zzz' .*; the columns are height, weight, waist-hip, bmi, BMI2$"),
        ("height-zzz", r"no column 'height-zzz'"),
        ("bmi-weight", r"'bmi-weight' \(--pheno-name\) runs backwards; write 'weight-bmi'"),
    ],
)
def test_names_that_are_not_there(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        choose(name)


def test_ambiguous_range() -> None:
    with pytest.raises(InputError, match=r"'a-b-c' .* can be read as several ranges"):
        choose("a-b-c", columns=("a", "b-c", "a-b", "c"))


@pytest.mark.parametrize("wanted", [("bmi", "bmi"), ("height-bmi", "weight")])
def test_twice(wanted: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=r"--pheno-name chooses the column '(bmi|weight)' twice"):
        choose(*wanted)


def test_very_many_columns_are_not_compared_nor_listed() -> None:
    columns = tuple(f"c{i}" for i in range(SUGGEST_AMONG + 1))
    with pytest.raises(InputError, match=r"the columns are c0, .*, c9 and 9991 more$"):
        choose("c10001", columns=columns)
    with pytest.raises(InputError, match=r"did you mean 'c17'\?"):
        choose("C17", columns=columns)


def test_a_part_of_a_name_with_a_comma() -> None:
    with pytest.raises(
        InputError, match=r"""no column 'BMI' .*; write a name with a comma in double quotes: '"BMI, x"'$"""
    ):
        choose("BMI", "x", columns=("height", "BMI, x"))
