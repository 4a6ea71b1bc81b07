"""Covariates as numbers: categorical columns become indicators of their levels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError, NumericalError
from kron2sum_cli.tables.phenotypes import SampleTable

MAX_LEVELS = 1000
"""A categorical covariate with more levels than this is taken for a mistake (an ID, a measurement)."""


@dataclass(frozen=True)
class CodedCovariates:
    """Covariates of some samples, all numeric.

    Attributes
    ----------
    names : the q columns; an indicator is named ``name=level``
    values : (n, q) float64
    levels : for every categorical covariate the number of samples in each of its levels; the first level
        is the one against which the others are coded
    """

    names: tuple[str, ...]
    values: NDArray[np.float64]
    levels: Mapping[str, Mapping[str, int]]


def code_covariates(table: SampleTable, rows: NDArray[np.intp]) -> CodedCovariates:
    """Covariates of the analysed samples, with indicators for categorical ones.

    A categorical covariate with levels l0, l1, ... among these samples becomes the columns ``name=l1``,
    ``name=l2``, ..., 1 in the samples of that level and 0 in the others. Levels are sorted as numbers if
    all of them are numbers, else as text.

    Parameters
    ----------
    table : the covariates, as read
    rows : (n,) positions of the samples in it; no value of theirs is missing

    Raises
    ------
    NumericalError : a categorical covariate has a single level among these samples
    InputError : it has more than `MAX_LEVELS`, or the name of an indicator is taken
    """
    names: list[str] = []
    columns: list[NDArray[np.float64]] = []
    counts: dict[str, Mapping[str, int]] = {}
    for name, values, levels in zip(table.names, table.values.T, table.levels, strict=True):
        if levels is None:
            names.append(name)
            columns.append(values[rows])
            continue
        codes = values[rows].astype(np.intp)
        present = _present_levels(name, codes, levels, table.samples.source)
        counts[name] = {level: int((codes == code).sum()) for level, code in present}
        for level, code in present[1:]:
            names.append(f"{name}={level}")
            columns.append((codes == code).astype(np.float64))
    _check_unique(names, table.samples.source)
    X = np.column_stack(columns)
    assert X.shape == (len(rows), len(names))
    return CodedCovariates(tuple(names), X, counts)


def code_others(
    table: SampleTable, rows: NDArray[np.intp], coded: Mapping[str, Mapping[str, int]]
) -> NDArray[np.float64]:
    """Covariates of further samples, coded as those of the analysed ones.

    Parameters
    ----------
    table : the covariates, as read
    rows : (t,) positions of the samples in it, -1 where it lacks them
    coded : the ``levels`` of the analysed samples' `CodedCovariates`

    Returns
    -------
    (t, q), NaN where a value is missing, or is a level that no analysed sample has
    """
    columns: list[NDArray[np.float64]] = []
    for name, values, levels in zip(table.names, table.values.T, table.levels, strict=True):
        own = np.where(rows >= 0, values[rows], np.nan)
        if levels is None:
            columns.append(own)
            continue
        code_of = {level: code for code, level in enumerate(levels)}
        codes = [code_of[level] for level in coded[name]]
        known = np.isin(own, codes)
        columns += [np.where(known, own == code, np.nan) for code in codes[1:]]
    return np.column_stack(columns) if columns else np.empty((len(rows), 0))


def _present_levels(name: str, codes: NDArray[np.intp], levels: Sequence[str], file: str) -> list[tuple[str, int]]:
    """The levels that occur, sorted, each with its code."""
    present = [(levels[code], int(code)) for code in np.unique(codes)]
    if len(present) == 1:
        raise NumericalError(
            f"{file}: categorical covariate '{name}' is '{present[0][0]}' in all {len(codes)} analysed "
            "samples; leave it out"
        )
    if len(present) > MAX_LEVELS:
        raise InputError(
            f"{file}: categorical covariate '{name}' has {len(present)} levels in {len(codes)} samples, "
            f"more than {MAX_LEVELS}; merge levels, or take it out of --cat-covar if it is a measurement"
        )
    try:
        return sorted(present, key=lambda item: (float(item[0]), item[0]))
    except ValueError:
        return sorted(present)


def _check_unique(names: Sequence[str], file: str) -> None:
    seen = set[str]()
    for name in names:
        if name in seen:
            raise InputError(
                f"{file}: '{name}' is both a column and a level of a categorical covariate; rename the column"
            )
        seen.add(name)
