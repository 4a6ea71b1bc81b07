"""Tables with samples as rows and traits or covariates as columns, and their cells as numbers."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError, NumericalError, UsageError, counted
from kron2sum_cli.files.samples import Samples, refuse_duplicates
from kron2sum_cli.files.text import (
    AMBIGUOUS_NAMES,
    DECIMAL_COMMA,
    TextTable,
    id_columns,
    is_number,
    parse_numbers,
    plain_name,
    read_table,
)

ADVICE_ON_REPLICATES = (
    "remove one of the two; of replicates of one line, give their mean in one row (--pheno-long makes means of plots)"
)
"""Remedy for a sample that is twice in a table."""

SUGGEST_AMONG = 10_000
"""Near spellings are looked for among no more names than this: it takes seconds beyond."""

LIST_AT_MOST = 10
"""A message lists no more columns than this."""

Kind = Literal["trait", "covariate"]

MOST_SIZE = 1e50
"""Bound on the largest absolute value of a trait or covariate, which must not be below the inverse of this, either:
standard errors come from fourth powers."""

MISSING_WORDS = frozenset({"", "."}.union(map("".join, [*product("nN", "aA"), *product("nN", "aA", "nN")])))
"""What always stands for a missing value: nothing, ``.``, and NA and nan in any case."""

SUSPECTED_CODES = (-9, -99, -999, -9999)
"""Numbers that often stand for missing: -9 is the code of PLINK 1."""

_THOUSANDS = re.compile(r"[-+]?[0-9]{1,3}(,[0-9]{3})+")


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


@dataclass(frozen=True)
class SampleTable:
    """Traits or covariates of the samples of one file, in its order.

    - ``names``: the q columns, in the order chosen.
    - ``values`` (n, q): NaN where missing; a categorical column holds positions in its ``levels``.
    - ``levels``: for every column its levels, in the order of the file, or None where it is numeric.
    - ``warnings``: what looks wrong but can be right, one message each.
    - ``notes``: what else is worth saying of how the values came about, one message each.
    - ``counts``: what the rows of the file were, to be read as "<number> <key>", where a row is not a sample.
    """

    samples: Samples
    names: tuple[str, ...]
    values: NDArray[np.float64]
    levels: tuple[tuple[str, ...] | None, ...]
    path: str
    warnings: tuple[str, ...]
    notes: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)


def read_sample_table(
    path: str,
    names: Sequence[str] | None = None,
    missing_codes: frozenset[str] = frozenset(),
    *,
    categorical: Sequence[str] = (),
    kind: Kind = "trait",
) -> SampleTable:
    """Read traits or covariates from columns by comma, tab, semicolon or white space, compressed or not.

    - ``path``: the file; its first columns are ``FID IID``, ``IID`` or another of `SAMPLE_NAMES`. With semicolons
      between the columns a comma in a number is the decimal mark.
    - ``names``: columns to take, in this order; ``a-c`` takes those from a to c; None takes all.
    - ``missing_codes``: what stands for a missing value beside the empty field, ``.``, NA and nan; a code that is a
      number means every spelling of that number.
    - ``categorical``: columns whose values are names of levels; they are taken whether in ``names`` or not.
    - ``kind``: what the columns are, for messages.

    Raises InputError where the file cannot be read; the header is not as above, or a name is in it twice or not at all;
    a row is short or long, a sample is there twice, a value is no finite number. The message names the file, the line,
    the column and the value; UsageError where a column is chosen twice.
    """
    table = read_table(path)
    header, file = table.first.fields, table.file
    width = id_columns(header) or int(plain_name(header[0]) in AMBIGUOUS_NAMES)
    chosen, factors = _chosen_columns(header, width, f"{file}, line {table.first.line}", names, categorical, kind)
    _check_widths(table, width)
    cells = table.columns([*range(width), *chosen]).iloc[1:]
    ids = cells.iloc[:, :width]
    nameless = (ids == "").to_numpy().any(axis=1)
    if nameless.any():
        raise InputError(
            f"{file}, line {ids.index[int(nameless.argmax())]}: the sample has an empty FID or IID; complete it or"
            " remove the line"
        )
    samples = Samples(tuple(ids[0]) if width == 2 else None, tuple(ids[width - 1]), file)
    refuse_duplicates(samples, cells.index.to_list(), ADVICE_ON_REPLICATES)

    values = np.empty((len(cells), len(chosen)))
    levels: list[tuple[str, ...] | None] = [None] * len(chosen)
    warnings: list[str] = []
    for k, position in enumerate(chosen):
        column = TextColumn(file, kind, header[position], cells[position], ids)
        if position in factors:
            known = column.cells.mask(column.cells.isin(MISSING_WORDS | missing_codes))
            codes, names_of_levels = pd.factorize(known)
            values[:, k] = np.where(codes < 0, np.nan, codes)
            levels[k] = tuple(names_of_levels)
            for level, code in enumerate(names_of_levels):
                if code in map(str, SUSPECTED_CODES):
                    warnings.append(missing_code_text(column, int(code), int((values[:, k] == level).sum())))
        else:
            values[:, k] = as_numbers(column, table.delimiter, missing_codes)
            warnings += missing_code_warnings(column, values[:, k])
    columns = tuple(header[position] for position in chosen)
    return SampleTable(samples, columns, values, tuple(levels), path, tuple(warnings))


def _chosen_columns(
    header: Sequence[str], width: int, place: str, names: Sequence[str] | None, categorical: Sequence[str], kind: Kind
) -> tuple[list[int], list[int]]:
    """Positions of the columns that are asked for behind ``width`` names of samples, and of those that are categories.

    The header, which stands at ``place``, is checked.
    """
    _check_header(header, width, place, kind)
    columns = header[width:]
    factors = choose_columns(categorical, columns, "--cat-covar", place)
    chosen: Sequence[int] = range(len(columns))
    if names is not None:
        option = "--pheno-name" if kind == "trait" else "--covar-name"
        chosen = choose_columns(names, columns, option, place)
        chosen = (*chosen, *(i for i in factors if i not in chosen))
    if not chosen:
        raise InputError(f"{place}: there is no {kind} beside the sample IDs; add a column or leave the file out")
    return [width + i for i in chosen], [width + i for i in factors]


def _check_header(header: Sequence[str], width: int, place: str, kind: Kind) -> None:
    """The first columns name the samples, and every other column has a name of its own."""
    columns = header[width:]
    if width == 0 or not {"FID", "IID"}.isdisjoint(columns):
        shown = " ".join(header[:3])
        remedy = "write it without quotes" if '"' in shown else "name the column of samples IID, and put it first"
        raise InputError(
            f"{place}: the first line must be a header that starts with FID IID or IID (or line, taxa, animal, "
            f"sample ...), but it starts with {shown!r}; {remedy}"
            + ("; of a trial with a row a plot, name its columns with --pheno-long" if kind == "trait" else "")
        )
    first: dict[str, int] = {}
    for number, name in enumerate(columns, width + 1):
        if not name:
            raise InputError(f"{place}: column {number} has no name; name it or remove the delimiter before it")
        if name in first:
            raise InputError(
                f"{place}: the name '{name}' is there twice (columns {first[name]} and {number}); rename one"
            )
        first[name] = number


def _check_widths(table: TextTable, id_width: int) -> None:
    """There are rows, and each has as many fields as the header; told before the cells of many columns are read."""
    width, widths = len(table.first.fields), table.widths[table.widths > 0][1:]
    if not widths.size:
        raise InputError(
            f"{table.file}, line {table.first.line}: there is no sample below the header; check what wrote the file"
        )
    wrong = np.flatnonzero(widths != width)
    if not wrong.size:
        return
    found, ids = int(widths[wrong[0]]), table.columns(range(id_width)).iloc[1 + int(wrong[0])]
    what, remedy = "short", "write NA where a value is missing"
    if found > width:
        what, remedy = "long", "remove the delimiter too many, or put a field that holds one in quotes"
    raise InputError(
        f"{table.file}, line {ids.name}: the row of sample '{' '.join(ids)}' is too {what}: {found} fields, but the"
        f" header has {width}; {remedy}"
    )


MAX_LEVELS = 1000
"""A categorical covariate with more levels than this is taken for a mistake (an ID, a measurement)."""


@dataclass(frozen=True)
class CodedCovariates:
    """Covariates of some samples, all numeric.

    An indicator is named ``name=level``; ``values`` are (n, q). ``levels`` has for every categorical covariate the
    number of samples in each level; the others are coded against the first.
    """

    names: tuple[str, ...]
    values: NDArray[np.float64]
    levels: Mapping[str, Mapping[str, int]]


def code_covariates(table: SampleTable, rows: NDArray[np.intp]) -> CodedCovariates:
    """Covariates of the analysed samples, with indicators for categorical ones.

    A categorical covariate with levels l0, l1, ... among these samples becomes the columns ``name=l1``, ``name=l2``,
    ..., 1 in the samples of that level and 0 in the others. Levels are sorted as numbers if all of them are numbers,
    else as text. No value in the rows (n,) of these samples is missing. Raises NumericalError where a categorical
    covariate has a single level among these samples; InputError where it has more than `MAX_LEVELS`, or the name of an
    indicator is taken.
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
    taken = pd.Index(names)[pd.Index(names).duplicated()]
    if len(taken):
        raise InputError(
            f"{table.samples.source}: '{taken[0]}' is both a column and a level of a categorical covariate; rename the"
            " column"
        )
    X = np.column_stack(columns)
    assert X.shape == (len(rows), len(names))
    return CodedCovariates(tuple(names), X, counts)


def code_with_levels(
    table: SampleTable, rows: NDArray[np.intp], coded: Mapping[str, Mapping[str, int]]
) -> NDArray[np.float64]:
    """Covariates (t, q) of further samples, coded as the `CodedCovariates.levels` of the analysed ones.

    NaN where a value is missing or a level that no analysed sample has, and for samples that the table lacks (row -1).
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
    code_of = dict(present)
    return [(level, code_of[level]) for level in sorted_names(code_of)]


def choose_columns(
    wanted: Sequence[str], columns: Sequence[str], option: str, place: str, what: str = "column"
) -> tuple[int, ...]:
    """Positions of the columns that an option names.

    A name that is not literally there but reads ``a-c`` stands for the columns from a to c in the order of the file, as
    for plink2.

    ``columns`` are all names in the file, each once. For messages: the option that named them, the place
    (file and line) of the header, and what they are, "column" or "trait". Raises InputError where a column is not there
    (near spellings are named), a range runs backwards or can be read in two ways; UsageError where a column is chosen
    twice.
    """
    positions = {name: index for index, name in enumerate(columns)}
    chosen: dict[int, None] = {}
    for name in wanted:
        for index in _resolve(name, positions, option, place, what):
            if index in chosen:
                raise UsageError(f"{option} chooses the {what} '{columns[index]}' twice; name it once")
            chosen[index] = None
    return tuple(chosen)


def _resolve(name: str, positions: Mapping[str, int], option: str, place: str, what: str) -> Sequence[int]:
    """The columns that one name or one range stands for."""
    if name in positions:
        return (positions[name],)
    hyphens = [i for i, character in enumerate(name) if character == "-"]
    ends = [(name[:i], name[i + 1 :]) for i in hyphens]
    ranges = [(a, b) for a, b in ends if a in positions and b in positions]
    if not ranges:
        raise InputError(f"{place}: there is no {what} '{name}' ({option}); {_advice(name, positions, what)}")
    if len(ranges) > 1:
        raise InputError(f"{place}: '{name}' ({option}) can be read as several ranges; name each {what}")
    first, last = ranges[0]
    if positions[first] > positions[last]:
        raise InputError(f"{place}: '{name}' ({option}) runs backwards; write '{last}-{first}'")
    return range(positions[first], positions[last] + 1)


def _advice(name: str, positions: Mapping[str, int], what: str) -> str:
    """What to write instead of a name that is not there."""
    whole = [column for column in positions if name in [part.strip() for part in column.split(",")]]
    if whole:
        return f"write a name with a comma in double quotes: '\"{whole[0]}\"'"
    near = [column for column in positions if column.casefold() == name.casefold()]
    if not near and len(positions) <= SUGGEST_AMONG:
        near = difflib.get_close_matches(name, positions)
    if near:
        return "did you mean " + " or ".join(f"'{column}'" for column in near[:LIST_AT_MOST]) + "?"
    listed = ", ".join(list(positions)[:LIST_AT_MOST])
    more = f" and {len(positions) - LIST_AT_MOST} more" if len(positions) > LIST_AT_MOST else ""
    return f"the {what}s are {listed}{more}"


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
        numbers = parse_numbers(texts.to_list())
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


def _cell_error(texts: "pd.Series[str]", column: TextColumn) -> InputError:
    """Name the first cell of a column that is not a number."""
    row = next(row for row, text in enumerate(texts) if not is_number(text))
    value = column.cells.iloc[row]
    advice = "write a number or NA, or name what stands for missing with --missing-code"
    if DECIMAL_COMMA.fullmatch(value):
        advice = f"the decimal mark must be a point: write {value.replace(',', '.')}"
        if _THOUSANDS.fullmatch(value):
            advice += f", or {value.replace(',', '')} if the comma stands between thousands"
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
    number = counted(count, f"{column.unit}s")
    return (
        f"{column.file}: {column.kind} '{column.name}' is {code} in {number} and has no other value from "
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
