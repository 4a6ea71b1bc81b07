"""Tables with samples as rows and traits or covariates as columns."""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError, NumericalError
from kron2sum_cli.files.columns import choose_columns
from kron2sum_cli.files.inputs import display_name
from kron2sum_cli.files.samples import Samples, refuse_duplicates
from kron2sum_cli.files.text import Row, id_columns, iter_rows, read_text

Kind = Literal["trait", "covariate"]

MOST_SIZE = 1e50
"""The largest number of a trait or covariate, and the inverse of the smallest that its largest may be: standard errors
come from fourth powers."""

MISSING = frozenset({"", "."}.union(map("".join, [*product("nN", "aA"), *product("nN", "aA", "nN")])))
"""What always stands for a missing value: nothing, ``.``, and NA and nan in any case."""


@dataclass(frozen=True)
class SampleTable:
    """Traits or covariates of the samples of one file, in its order.

    Attributes
    ----------
    samples : the n samples
    names : the q columns, in the order chosen
    values : (n, q) float64, NaN where missing; a categorical column holds positions in its ``levels``
    levels : for every column its levels, in the order of the file, or None where it is numeric
    path : the file
    warnings : what looks wrong but can be right, one message each
    """

    samples: Samples
    names: tuple[str, ...]
    values: NDArray[np.float64]
    levels: tuple[tuple[str, ...] | None, ...]
    path: str
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Layout:
    """Which fields of a row are what, and how to speak of them."""

    kind: Kind
    file: str
    header: Row
    id_width: int
    numeric: tuple[int, ...]
    categorical: tuple[int, ...]
    chosen: tuple[int, ...]
    missing: frozenset[str]

    @property
    def place(self) -> str:
        return f"{self.file}, line {self.header.line}"

    @property
    def numeric_names(self) -> tuple[str, ...]:
        return tuple(self.header.fields[i] for i in self.numeric)


@dataclass(frozen=True)
class _Body:
    """The rows below the header: IDs, their lines, numbers (row by row) and texts (column by column)."""

    ids: list[tuple[str, ...]]
    lines: "array[int]"
    numbers: "array[float]"
    texts: tuple[list[str], ...]


def read_sample_table(
    path: str,
    names: Sequence[str] | None = None,
    missing_codes: frozenset[str] = frozenset(),
    *,
    categorical: Sequence[str] = (),
    kind: Kind = "trait",
) -> SampleTable:
    """Read traits or covariates from CSV, TSV or white space, compressed or not.

    Parameters
    ----------
    path : the file; its first columns are ``FID IID``, ``#FID IID``, ``IID`` or ``#IID``
    names : columns to take, in this order; ``a-c`` takes those from a to c; None takes all
    missing_codes : what stands for a missing value beside the empty field, ``.``, NA and nan; a code that
        is a number means every spelling of that number
    categorical : columns whose values are names of levels; they are taken whether in ``names`` or not
    kind : what the columns are, for messages

    Raises
    ------
    InputError : the file cannot be read; the header is not as above, or a name is in it twice or not at
        all; a row is short or long, a sample is there twice, a value is no finite number. The message
        names the file, the line, the column and the value.
    UsageError : a column is chosen twice
    """
    rows = iter_rows(read_text(path), path)
    layout = _read_header(next(rows), display_name(path), names, categorical, missing_codes, kind)
    body = _read_body(rows, layout)
    fids = tuple(key[0] for key in body.ids) if layout.id_width == 2 else None
    samples = Samples(fids, tuple(key[-1] for key in body.ids), layout.file)
    refuse_duplicates(samples, body.lines)

    numbers = np.asarray(body.numbers, dtype=np.float64).reshape(len(samples), len(layout.numeric))
    for code in _numeric_codes(missing_codes):
        numbers[numbers == code] = np.nan
    _refuse_sizes(numbers, body, layout)
    columns = tuple(layout.header.fields[i] for i in layout.chosen)
    values, levels = _assemble(numbers, body.texts, layout)
    return SampleTable(samples, columns, values, levels, path, _minus_nine_warnings(values, levels, layout))


def _read_header(
    header: Row,
    file: str,
    names: Sequence[str] | None,
    categorical: Sequence[str],
    missing_codes: frozenset[str],
    kind: Kind,
) -> _Layout:
    """Check the header and find the columns that are asked for."""
    place = f"{file}, line {header.line}"
    width = id_columns(header.fields)
    columns = header.fields[width:]
    _check_header(header, width, place)
    option = "--pheno-name" if kind == "trait" else "--covar-name"
    factors = choose_columns(categorical, columns, "--cat-covar", place)
    chosen: Sequence[int] = range(len(columns))
    if names is not None:
        chosen = choose_columns(names, columns, option, place)
        chosen = (*chosen, *(i for i in factors if i not in chosen))
    if not chosen:
        raise InputError(f"{place}: there is no {kind} beside the sample IDs; add a column or leave the file out")
    return _Layout(
        kind=kind,
        file=file,
        header=header,
        id_width=width,
        numeric=tuple(i + width for i in chosen if i not in factors),
        categorical=tuple(i + width for i in chosen if i in factors),
        chosen=tuple(i + width for i in chosen),
        missing=MISSING | missing_codes,
    )


def _check_header(header: Row, width: int, place: str) -> None:
    """The first columns name the samples, and every other column has a name of its own."""
    columns = header.fields[width:]
    if width == 0 or not {"FID", "IID"}.isdisjoint(columns):
        shown = " ".join(header.fields[:3])
        raise InputError(
            f"{place}: the first line must be a header that starts with FID IID, #FID IID, IID or #IID "
            f"(in capitals, without quotes), but it starts with {shown!r}"
        )
    if len(set(columns)) == len(columns) and "" not in columns:
        return
    first: dict[str, int] = {}
    for number, name in enumerate(columns, width + 1):
        if not name:
            raise InputError(f"{place}: column {number} has no name; name it or remove the delimiter before it")
        if name in first:
            raise InputError(
                f"{place}: the name '{name}' is there twice (columns {first[name]} and {number}); rename one"
            )
        first[name] = number


def _read_body(rows: Iterator[Row], layout: _Layout) -> _Body:
    """Read the rows one by one, so that no more than one is held as text fields."""
    body = _Body([], array("q"), array("d"), tuple([] for _ in layout.categorical))
    width = len(layout.header.fields)
    for row in rows:
        fields = row.fields
        ids = fields[: layout.id_width]
        if len(fields) != width or "" in ids:
            raise _row_error(row, layout)
        body.ids.append(ids)
        body.lines.append(row.line)
        cells = [fields[i] for i in layout.numeric]
        try:
            body.numbers.fromlist(_numbers(cells, layout.missing))
        except ValueError:
            raise _cell_error(row, layout) from None
        for texts, index in zip(body.texts, layout.categorical, strict=True):
            texts.append(fields[index])
    if not body.ids:
        raise InputError(f"{layout.place}: there is no sample below the header; check what wrote the file")
    return body


def _numbers(cells: list[str], missing: frozenset[str]) -> list[float]:
    """The numbers of a row; ValueError if one cell is neither a number nor a missing code."""
    try:
        return _strict_floats(cells)
    except ValueError:
        return _strict_floats(["nan" if cell in missing else cell for cell in cells])


def _strict_floats(cells: list[str]) -> list[float]:
    """`float` of every cell, without Python's own spellings (``1_000``, digits of other scripts)."""
    joined = "".join(cells)
    if "_" in joined or not joined.isascii():
        raise ValueError
    return list(map(float, cells))


def _row_error(row: Row, layout: _Layout) -> InputError:
    """What is wrong with a row that has an empty ID or not as many fields as the header."""
    width = len(layout.header.fields)
    place = f"{layout.file}, line {row.line}"
    if len(row.fields) == width:
        return InputError(f"{place}: the sample has an empty FID or IID; complete it or remove the line")
    sample = " ".join(row.fields[: layout.id_width])
    what = "short" if len(row.fields) < width else "long"
    return InputError(
        f"{place}: the row of sample '{sample}' is too {what}: {len(row.fields)} fields, but the header has "
        f"{width}; write NA where a value is missing"
    )


def _cell_error(row: Row, layout: _Layout) -> InputError:
    """Name the first cell of a row that is not a number."""
    for index in layout.numeric:
        try:
            _numbers([row.fields[index]], layout.missing)
        except ValueError:
            break
    value = row.fields[index]
    advice = "write a number or NA, or name what stands for missing with --missing-code"
    if layout.kind == "covariate":
        advice += ", or name the column in --cat-covar if it is categorical"
    return InputError(
        f"{layout.file}, line {row.line}: {layout.kind} '{layout.header.fields[index]}' of sample "
        f"'{' '.join(row.fields[: layout.id_width])}' is {value!r}, not a number; {advice}"
    )


def _numeric_codes(missing_codes: frozenset[str]) -> list[float]:
    codes = []
    for code in missing_codes:
        try:
            codes.append(float(code))
        except ValueError:
            continue
    return codes


def _refuse_sizes(numbers: NDArray[np.float64], body: _Body, layout: _Layout) -> None:
    """Refuse infinite numbers, and those whose powers would be infinite or vanish."""
    largest = np.fmax(np.fmax.reduce(numbers, axis=0), -np.fmin.reduce(numbers, axis=0))
    if (largest > MOST_SIZE).any():
        row, column = np.argwhere(np.abs(numbers) > MOST_SIZE)[0]
        value = numbers[row, column]
        what = "infinite" if np.isinf(value) else f"{value:g}, too large to be computed with"
        raise InputError(
            f"{layout.file}, line {body.lines[row]}: {layout.kind} '{layout.numeric_names[column]}' of sample "
            f"'{' '.join(body.ids[row])}' is {what}; write a number between -1e50 and 1e50, or NA"
        )
    vanishing = (largest > 0) & (largest < 1 / MOST_SIZE)
    if vanishing.any():
        column = int(np.argmax(vanishing))
        raise InputError(
            f"{layout.file}: {layout.kind} '{layout.numeric_names[column]}' has no number larger than "
            f"{largest[column]:g}, too small to be computed with; multiply all, so that they are of the order of 1"
        )


def _assemble(
    numbers: NDArray[np.float64], texts: Sequence[Sequence[str]], layout: _Layout
) -> tuple[NDArray[np.float64], tuple[tuple[str, ...] | None, ...]]:
    """Put numeric and categorical columns together in the order chosen."""
    if not layout.categorical:
        return numbers, (None,) * len(layout.chosen)
    values = np.empty((len(numbers), len(layout.chosen)))
    order = {index: column for column, index in enumerate(layout.chosen)}
    values[:, [order[index] for index in layout.numeric]] = numbers
    levels: list[tuple[str, ...] | None] = [None] * len(layout.chosen)
    for index, cells in zip(layout.categorical, texts, strict=True):
        column = order[index]
        found = tuple(cell for cell in dict.fromkeys(cells) if cell not in layout.missing)
        code = {level: float(position) for position, level in enumerate(found)}
        values[:, column] = [code.get(cell, np.nan) for cell in cells]
        levels[column] = found
    return values, tuple(levels)


def _minus_nine_warnings(
    values: NDArray[np.float64], levels: Sequence[tuple[str, ...] | None], layout: _Layout
) -> tuple[str, ...]:
    """Warn where -9 is the only value in [-10, -8]: it may be the missing code of PLINK 1."""
    is_nine = values == -9
    near = (values >= -10) & (values <= -8)
    suspect = is_nine.any(axis=0) & (is_nine == near).all(axis=0)
    counts = is_nine.sum(axis=0)
    warnings = []
    for column, index in enumerate(layout.chosen):
        factor = levels[column]
        if suspect[column]:
            count = int(counts[column])
        elif factor is not None and "-9" in factor:
            count = int((values[:, column] == factor.index("-9")).sum())
        else:
            continue
        warnings.append(
            f"{layout.file}: {layout.kind} '{layout.header.fields[index]}' is -9 in {count} samples and has "
            "no other value from -10 to -8; if -9 stands for missing, give --missing-code -9"
        )
    return tuple(warnings)


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
