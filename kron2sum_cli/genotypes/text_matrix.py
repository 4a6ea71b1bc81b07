"""Matrices of numbers in text, read line by line so that the text is never in memory as a whole."""

import csv
import gzip
import os
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.tables.text import GZIP_MAGIC, Row, find_delimiter, most_unpacked, parse_number, suspicious

MOST_CHARACTERS = 1 << 27
"""Characters of a line; a longer one is a mistake, or a compressed file made to fill the memory."""


def stream_rows(path: str) -> Iterator[Row]:
    """The rows of a text file, gzip-compressed or not, that are not blank.

    The delimiter is told from the first line: tab, else comma (with the quoting of CSV), else white space.

    Raises
    ------
    InputError : the file cannot be read, or is not text
    """
    try:
        with open(path, "rb") as binary:
            compressed = binary.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        opener = gzip.open if compressed else open
        most = most_unpacked(os.path.getsize(path)) if compressed else sys.maxsize
        with opener(path, "rt", encoding="utf-8-sig", newline=None) as file:
            yield from _split(file, path, most)
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error, csv.Error):
        raise InputError(f"{path} is not readable as text; check that it is the file you mean") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check the path") from None


def _split(lines: Any, path: str, most: int) -> Iterator[Row]:
    delimiter = ""
    for number, line in enumerate(iter(partial(lines.readline, MOST_CHARACTERS), ""), 1):
        if "\0" in line or len(line) == MOST_CHARACTERS:
            what = "is longer than any matrix needs" if "\0" not in line else "has a NUL byte, so the file looks binary"
            raise InputError(f"{path}, line {number}: {what}; check that it is the file you mean")
        most -= len(line)
        if most < 0:
            raise suspicious(path)
        if not line.strip():
            continue
        delimiter = delimiter or find_delimiter(line)
        if delimiter == " ":
            fields = line.split()
        elif '"' in line:
            fields = next(csv.reader([line.rstrip("\n")], delimiter=delimiter, strict=True))
        else:
            fields = line.rstrip("\n").split(delimiter)
        yield Row(number, tuple(fields))


def numbers(row: Row, skipped: int, path: str) -> NDArray[np.float64]:
    """The fields of a row, without the first ``skipped``, as numbers.

    Raises
    ------
    InputError : one is not a number
    """
    fields = row.fields[skipped:]
    joined = "".join(fields)
    if "_" not in joined and joined.isascii():  # numpy takes what Python takes, see parse_number
        try:
            return np.array(fields, dtype=np.float64)
        except ValueError:
            pass
    column, value = next((i, v) for i, v in enumerate(row.fields) if i >= skipped and not is_number(v))
    raise InputError(f"{path}, line {row.line}, column {column + 1}: {value!r} is not a number")


def is_number(field: str) -> bool:
    """Whether a field reads as a number (NaN and infinity included)."""
    try:
        parse_number(field)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class TextSquare:
    """An n x n matrix in text without names.

    Attributes
    ----------
    path : the file
    n : rows
    lower : whether line i holds i numbers, the lower triangle with the diagonal
    """

    path: str
    n: int
    lower: bool

    def lines(self) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """The rows one by one, each with its position.

        Raises
        ------
        InputError : a line is too short or too long, holds something else than numbers, or there are too
            few or too many
        """
        found = 0
        for i, row in enumerate(stream_rows(self.path)):
            found = i + 1
            wanted = i + 1 if self.lower else self.n
            if len(row.fields) != wanted and found <= self.n:
                raise InputError(
                    f"{self.path}, line {row.line}: {len(row.fields)} numbers where {wanted} are expected; "
                    "is the file cut short?"
                )
            if found <= self.n:
                yield i, numbers(row, 0, self.path)
        if found != self.n:
            raise InputError(f"{self.path} has {found} rows, but {self.n} samples; name each row once")


def open_text_square(path: str, first_row: Sequence[str], ids: str, n: int) -> TextSquare:
    """A matrix in text of the n samples listed in ``ids``, square or lower triangle.

    Raises
    ------
    InputError : its first row has neither n numbers nor one
    """
    if len(first_row) not in {1, n}:
        raise InputError(
            f"{path} has {len(first_row)} columns, but {ids} lists {n} samples; they do not belong together"
        )
    return TextSquare(path, n, lower=len(first_row) < n)
