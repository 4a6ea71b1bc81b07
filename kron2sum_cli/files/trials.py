"""Tables of trials, a row a plot: the means of lines in environments, which become traits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.files.sample_table import (
    MISSING_WORDS,
    SampleTable,
    TextColumn,
    as_numbers,
    choose_columns,
    missing_code_warnings,
    sorted_names,
)
from kron2sum_cli.files.samples import Samples
from kron2sum_cli.files.text import TextTable, read_table

UNEQUAL_FACTOR = 2.0
"""Numbers of plots that differ from their median by more than this factor are unequal."""

MANY_UNEQUAL = 0.1
"""Share of the means of a trait with unequal numbers of plots above which there is a warning."""


@dataclass(frozen=True)
class _Plots:
    """The plots that have a line and an environment.

    ``ids`` (m, 2) are ``line`` and ``environment`` of each, ``values`` (m, v) NaN where missing, ``counts`` what the
    rows of the file were, to be read as "<number> <key>", and ``warnings`` what looks wrong but can be right.
    """

    file: str
    ids: pd.DataFrame
    names: tuple[str, ...]
    values: NDArray[np.float64]
    counts: dict[str, int]
    warnings: tuple[str, ...]


def read_trial_table(
    path: str, columns: Sequence[str], names: Sequence[str] | None = None, missing_codes: frozenset[str] = frozenset()
) -> SampleTable:
    """Read a table with a row a plot; a line is a sample, an environment a trait.

    The value of line i in environment j is the mean of its plots that have a value, each with the same weight; NaN
    without such a plot.

    - ``path``: the file: columns by comma, tab, semicolon or white space, compressed or not, with a header.
    - ``columns``: the columns of lines, of environments (``site+year`` for what two or more columns say together, which
      is named ``site.year``), and of one or more values.
    - ``names``: traits to take, in this order; None for all, the environments sorted (as numbers if all are).
    - ``missing_codes``: what stands for a missing value beside the empty field, ``.``, NA and nan.

    Samples are lines in the order of the file, and traits named by their environment, of several values
    ``value.environment``. Its notes say of how many plots the means are, and its warnings where these differ. Raises
    InputError where the file cannot be read, a column is not there, a row is short or long, a value is no finite
    number, no plot has a line and an environment. The message names the file, the line, the column and the value.
    """
    plots = _read_plots(path, columns, missing_codes)
    every = _traits(plots, sorted_names(plots.ids["environment"].unique()))
    chosen = list(every)
    if names is not None:
        chosen = [chosen[k] for k in choose_columns(names, chosen, "--pheno-name", plots.file)]
    traits = {name: every[name] for name in chosen}
    counts = plots.counts | _counts_of_values(plots, traits)
    lines = plots.ids["line"].unique()
    means = np.empty((len(lines), len(traits)))
    numbers = np.empty(means.shape, dtype=np.intp)
    for k, value in enumerate(plots.names):
        of_value = [j for j, (name, _) in enumerate(traits.values()) if name == value]
        environments = [environment for name, environment in traits.values() if name == value]
        means[:, of_value], numbers[:, of_value] = _means(plots, k, lines, environments)
    shown = {name: number[number > 0] for name, number in zip(traits, numbers.T, strict=True)}
    return SampleTable(
        samples=Samples(None, tuple(lines), plots.file),
        names=tuple(shown),
        values=means,
        levels=(None,) * len(traits),
        path=path,
        warnings=(*plots.warnings, *_warnings(plots.file, shown)),
        notes=_notes(shown),
        counts=counts,
    )


def _read_plots(path: str, columns: Sequence[str], missing_codes: frozenset[str]) -> _Plots:
    """The plots of a file, without those that have no line or no environment."""
    table = read_table(path)
    header = table.first.fields
    parts = [columns[1]] if columns[1] in header else columns[1].split("+")
    positions = _positions(table, [columns[0], *parts, *columns[2:]])
    cells = _cells(table, positions)
    absent = cells.iloc[:, : 1 + len(parts)].isin(MISSING_WORDS | missing_codes)
    lacks_line, lacks_environment = absent.iloc[:, 0], absent.iloc[:, 1:].any(axis=1)
    counts = {
        "plots in the phenotype file": len(cells),
        "plots without a line": int(lacks_line.sum()),
        "plots without an environment": int((lacks_environment & ~lacks_line).sum()),
    }
    used = cells[~(lacks_line | lacks_environment)]
    if used.empty:
        raise InputError(
            f"{table.file}: none of its {len(cells)} rows has a line ({columns[0]}) and an environment ({columns[1]});"
            " check the columns that --pheno-long names"
        )
    environment = used.iloc[:, 1 : 1 + len(parts)].agg(".".join, axis=1)
    ids = pd.DataFrame({"line": used.iloc[:, 0], "environment": environment})
    names = tuple(header[position] for position in positions[1 + len(parts) :])
    values = np.empty((len(ids), len(names)))
    warnings: list[str] = []
    for k, name in enumerate(names):
        column = TextColumn(table.file, "trait", name, used.iloc[:, 1 + len(parts) + k], ids, "plot")
        values[:, k] = as_numbers(column, table.delimiter, missing_codes)
        warnings += missing_code_warnings(column, values[:, k])
    return _Plots(table.file, ids, names, values, counts, tuple(warnings))


def _positions(table: TextTable, columns: Sequence[str]) -> tuple[int, ...]:
    """Where the columns of these names are, each name once in the header."""
    header, place = table.first.fields, f"{table.file}, line {table.first.line}"
    positions = choose_columns(columns, header, "--pheno-long", place)
    for position in positions:
        if header.count(header[position]) > 1:
            raise InputError(f"{place}: the name '{header[position]}' is there twice; rename one")
    return positions


def _cells(table: TextTable, positions: Sequence[int]) -> pd.DataFrame:
    """Some columns below the header.

    There are rows, each with as many fields as the header, or all with one more: R's ``write.table`` puts numbers of
    rows before the columns, without a name.
    """
    width = len(table.first.fields)
    widths = table.widths[table.widths > 0][1:]
    if not widths.size:
        raise InputError(f"{table.file}, line {table.first.line}: there is no plot below the header")
    before = int((widths == width + 1).all())
    cells = table.columns([position + before for position in positions]).iloc[1:]
    wrong = np.flatnonzero(widths != width + before)
    if wrong.size:
        found = int(widths[wrong[0]])
        raise InputError(
            f"{table.file}, line {cells.index[wrong[0]]}: the row is too {'short' if found < width else 'long'}:"
            f" {found} fields, but the header has {width}; write NA where a value is missing"
        )
    return cells


def _traits(plots: _Plots, environments: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Value and environment of every trait, by its name: the environment, of several values ``value.environment``."""
    traits: dict[str, tuple[str, str]] = {}
    for value, environment in product(plots.names, environments):
        name = f"{value}.{environment}" if len(plots.names) > 1 else environment
        if name in traits:
            raise InputError(
                f"{plots.file}: {' in '.join(traits[name])} and {value} in {environment} would both be the trait"
                f" '{name}'; rename a column or an environment"
            )
        traits[name] = value, environment
    return traits


def _counts_of_values(plots: _Plots, traits: Mapping[str, tuple[str, str]]) -> dict[str, int]:
    """How many plots have no part in the traits, and why."""
    analysed = plots.ids["environment"].isin([environment for _, environment in traits.values()]).to_numpy()
    counts = {"plots in environments that are not analysed": int(np.count_nonzero(~analysed))}
    for name, values in zip(plots.names, plots.values.T, strict=True):
        if any(value == name for value, _ in traits.values()):
            counts[f"plots without a value of {name}"] = int(np.count_nonzero(np.isnan(values) & analysed))
    return counts


def _means(
    plots: _Plots, k: int, lines: NDArray[np.object_], environments: list[str]
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Means of the k-th value and their numbers of plots, lines by environments."""
    table = plots.ids.assign(value=plots.values[:, k]).dropna(subset="value")
    table = table.sort_values("value")  # the order of the rows must not show in the last digit
    mean = table.pivot_table("value", "line", "environment", "mean").reindex(index=lines, columns=environments)
    number = table.pivot_table("value", "line", "environment", "count").reindex(index=lines, columns=environments)
    return mean.to_numpy(dtype=np.float64), number.fillna(0).to_numpy(dtype=np.intp)


def _notes(numbers: Mapping[str, NDArray[np.intp]]) -> tuple[str, ...]:
    """Of how many plots the means of each trait are."""
    every = np.unique(np.concatenate(list(numbers.values())))
    if len(every) == 1:
        return (f"each mean of a line in an environment is of {_plots_text(int(every[0]))}",)
    return tuple(
        f"trait {name}: means of {len(number)} lines, each of {_range_text(number)}"
        for name, number in numbers.items()
        if len(number)
    )


def _range_text(number: NDArray[np.intp]) -> str:
    low, high = int(number.min()), int(number.max())
    return _plots_text(low) if low == high else f"{low} to {high} plots (median {np.median(number):g})"


def _plots_text(number: int) -> str:
    return "1 plot" if number == 1 else f"{number} plots"


def _warnings(file: str, numbers: Mapping[str, NDArray[np.intp]]) -> tuple[str, ...]:
    """Warn where many means of a trait are of far more or fewer plots than the others."""
    shares = {name: _share_unequal(number) for name, number in numbers.items()}
    worst = max(shares, key=lambda name: shares[name])
    if shares[worst] <= MANY_UNEQUAL:
        return ()
    more = sum(share > MANY_UNEQUAL for share in shares.values()) - 1
    return (
        f"{file}: the model takes all means of a trait as equally precise, and those of {worst} are of"
        f" {_range_text(numbers[worst])}"
        + (f", and {more} other trait{'s are' if more > 1 else ' is'} like it" if more else "")
        + "; leave out lines of few plots (--remove), or bring means of a model of the trial",
    )


def _share_unequal(number: NDArray[np.intp]) -> float:
    """Share of the means whose number of plots is off the median by more than `UNEQUAL_FACTOR`."""
    if not len(number):
        return 0.0
    median = np.median(number)
    return float(np.mean((number > UNEQUAL_FACTOR * median) | (UNEQUAL_FACTOR * number < median)))
