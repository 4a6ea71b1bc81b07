"""Columns of text as numbers, and messages for cells that are not numbers."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.files.text import is_number

Kind = Literal["trait", "covariate"]

MOST_SIZE = 1e50
"""Bound on the largest absolute value of a trait or covariate, which must not be below the inverse of this, either:
standard errors come from fourth powers."""

MISSING_WORDS = frozenset({"", "."}.union(map("".join, [*product("nN", "aA"), *product("nN", "aA", "nN")])))
"""What always stands for a missing value: nothing, ``.``, and NA and nan in any case."""

SUSPECTED_CODES = (-9, -99, -999, -9999)
"""Numbers that often stand for missing: -9 is the code of PLINK 1."""

_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+([eE][-+]?\d+)?")


@dataclass(frozen=True)
class TextColumn:
    """A column as text.

    ``cells`` (n,) have their lines as index; ``ids`` (n, 1 or 2) name each row: its sample, or line and environment of
    a plot. ``file``, ``kind`` (of the column) and ``unit`` (what a row is) are for messages.
    """

    file: str
    kind: Kind
    name: str
    cells: "pd.Series[str]"
    ids: pd.DataFrame
    unit: Literal["sample", "plot"] = "sample"

    def cell(self, row: int) -> str:
        """Where a cell is, for messages."""
        ids = " ".join(self.ids.iloc[row])
        return f"{self.file}, line {self.cells.index[row]}: {self.kind} '{self.name}' of {self.unit} '{ids}'"


def as_numbers(column: TextColumn, delimiter: str, missing_codes: frozenset[str]) -> NDArray[np.float64]:
    """A column as numbers.

    NaN where missing. ``delimiter`` stands between the columns of the file; beside a semicolon a comma is the decimal
    mark. ``missing_codes`` stand for a missing value beside `MISSING_WORDS`, a number for every spelling of it. Raises
    InputError where a cell is no number, or the numbers are too large or too small to be computed with.
    """
    texts = column.cells.mask(column.cells.isin(MISSING_WORDS | missing_codes), "nan")
    if delimiter == ";":
        _refuse_mixed_marks(texts, column)
        texts = texts.str.replace(",", ".", regex=False)
    try:
        numbers = _strict_floats(texts)
    except ValueError:
        raise _cell_error(texts, column) from None
    for code in filter(is_number, missing_codes):
        numbers[numbers == float(code)] = np.nan
    _refuse_sizes(numbers, column)
    return numbers


def _refuse_mixed_marks(texts: "pd.Series[str]", column: TextColumn) -> None:
    """Refuse a column with both decimal commas and decimal points, of which one may stand between thousands."""
    commas, points = (texts.str.contains(mark, regex=False).to_numpy() for mark in (",", "."))
    if commas.any() and points.any():
        raise InputError(
            f"{column.cell(int(points.argmax()))} is {texts.iloc[int(points.argmax())]!r}, and another {column.unit} "
            f"has {texts.iloc[int(commas.argmax())]!r}; write all numbers with the same decimal mark, and nothing "
            "between thousands"
        )


def _strict_floats(texts: "pd.Series[str]") -> NDArray[np.float64]:
    """`float` of every cell, without Python's own spellings (``1_000``, digits of other scripts)."""
    joined = "".join(texts)
    if "_" in joined or not joined.isascii():
        raise ValueError
    return texts.to_numpy(dtype=object).astype(np.float64)


def _cell_error(texts: "pd.Series[str]", column: TextColumn) -> InputError:
    """Name the first cell of a column that is not a number."""
    row = next(row for row, text in enumerate(texts) if not is_number(text))
    value = column.cells.iloc[row]
    advice = "write a number or NA, or name what stands for missing with --missing-code"
    if _DECIMAL_COMMA.fullmatch(value):
        advice = f"the decimal mark must be a point: write {value.replace(',', '.')}"
    elif column.kind == "covariate":
        advice += ", or name the column in --cat-covar if it is categorical"
    return InputError(f"{column.cell(row)} is {value!r}, not a number; {advice}")


def _refuse_sizes(numbers: NDArray[np.float64], column: TextColumn) -> None:
    """Refuse infinite numbers, and those whose powers would be infinite or vanish."""
    sizes = np.abs(numbers)
    largest = np.fmax.reduce(sizes)
    if largest > MOST_SIZE:
        row = int(np.argmax(sizes > MOST_SIZE))
        value = numbers[row]
        what = "infinite" if np.isinf(value) else f"{value:g}, too large to be computed with"
        raise InputError(f"{column.cell(row)} is {what}; write a number between -1e50 and 1e50, or NA")
    if 0 < largest < 1 / MOST_SIZE:
        raise InputError(
            f"{column.file}: {column.kind} '{column.name}' has no number larger than {largest:g}, too small to be "
            "computed with; multiply all, so that they are of the order of 1"
        )


def missing_code_warnings(column: TextColumn, numbers: NDArray[np.float64]) -> list[str]:
    """Warn of -9, -99, -999, -9999 in a column without another value within a ninth: it may stand for missing."""
    found = []
    for code in SUSPECTED_CODES:
        is_code, near = numbers == code, np.abs(numbers - code) <= -code / 9
        if is_code.any() and not (near & ~is_code).any():
            found.append(missing_code_text(column, code, int(is_code.sum())))
    return found


def missing_code_text(column: TextColumn, code: int, count: int) -> str:
    """The warning of so many values of a code."""
    return (
        f"{column.file}: {column.kind} '{column.name}' is {code} in {count} {column.unit}s and has no other value from "
        f"{code * 10 // 9} to {code * 8 // 9}; if {code} stands for missing, give --missing-code {code}"
    )


def sorted_names(names: Iterable[str]) -> list[str]:
    """Names in the order of numbers if all of them are numbers, else in that of the alphabet.

    >>> sorted_names(["10", "9", "2"]), sorted_names(["E10", "E9"])
    (['2', '9', '10'], ['E10', 'E9'])
    """
    names = list(names)
    try:
        return sorted(names, key=lambda name: (float(name), name))
    except ValueError:
        return sorted(names)
