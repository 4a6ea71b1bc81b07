"""Lines of variants in text (``.bim``, ``.pvar``), fast and small enough for tens of millions of them."""

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pyarrow as pa
from pyarrow import csv

from kron2sum_cli.errors import InputError

TABLE_COLUMNS = ("CHR", "POS", "SNPID", "EA", "NEA")
CHUNK_BYTES = 1 << 18
"""How much of a file is parsed at once; bounds the memory beside the finished table."""

LONGEST_LINE = 1 << 26
"""Bytes; a longer line is a mistake, or a compressed file made to fill the memory."""

_LARGEST_POSITION = 2**63 - 1
_NOT_SINGLE_TABS = (b"\t\t", b"\n\t", b"\t\n", b"\t\r")
_HEXADECIMAL = (b"\t0x", b"\t0X", b"\t-0x", b"\t-0X")


@dataclass(frozen=True)
class VariantColumns:
    """How the lines of a file are cut into columns.

    Attributes
    ----------
    names : one for every column, with those of `TABLE_COLUMNS` among them; the others are not read
    any_white_space : whether blanks and runs of white space lie between columns, else single tabs
    kind : what the file is, for messages, such as ``.bim``
    expected : which columns it should have, for messages
    """

    names: tuple[str, ...]
    any_white_space: bool
    kind: str
    expected: str


def table_schema() -> pa.Schema:
    """The columns of the table of `Variants`."""
    return pa.schema([(name, pa.int64() if name == "POS" else pa.string()) for name in TABLE_COLUMNS])


def read_variant_lines(
    file: BinaryIO,
    path: str,
    columns: VariantColumns,
    chunk_bytes: int = CHUNK_BYTES,
    first_line: int = 1,
    start: bytes = b"",
) -> pa.Table:
    """Read what is left of a file, one variant a line.

    Parameters
    ----------
    file : open for reading, at the beginning of a line
    path : its name, for messages
    columns : how a line is cut
    chunk_bytes : how much is parsed at once
    first_line : the number of the next line
    start : bytes that come before those of ``file``

    Returns
    -------
    The table of `Variants`, in the order of the file; it may be empty.

    Raises
    ------
    InputError : the file cannot be read, a line has another number of columns, or a position is not a
        whole number. Negative ones stand for unknown places and are kept
    """
    chunks = _line_chunks(file, path, chunk_bytes, first_line, start)
    tables = [_parse(chunk, line, path, columns) for chunk, line in chunks]
    pa.default_memory_pool().release_unused()  # else the process keeps as much again as the table takes
    return pa.concat_tables([pa.Table.from_batches([], schema=table_schema()), *tables])


def _line_chunks(file: BinaryIO, path: str, size: int, line: int, rest: bytes) -> Iterator[tuple[bytes, int]]:
    """The file in pieces of whole lines, each with the number of its first line."""
    try:
        while piece := file.read(size):
            whole, newline, tail = piece.rpartition(b"\n")
            if len(rest) > LONGEST_LINE:
                raise InputError(
                    f"{path}, line {line}: has more than {LONGEST_LINE} bytes; check that it is the file you mean"
                )
            if not newline:
                rest += piece
                continue
            chunk = rest + whole + newline
            yield chunk, line
            line, rest = line + chunk.count(b"\n"), tail
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}); check the file") from None
    if rest:
        yield rest, line


def _parse(chunk: bytes, line: int, path: str, columns: VariantColumns) -> pa.Table:
    if line == 1:
        chunk = chunk.removeprefix(codecs.BOM_UTF8)
    if columns.any_white_space and not _has_single_tabs(chunk):
        chunk = b"\n".join(b"\t".join(row.split()) for row in chunk.split(b"\n"))
    if not chunk.strip():
        return table_schema().empty_table()
    if b"\0" in chunk:
        number = line + chunk.count(b"\n", 0, chunk.index(b"\0"))
        raise InputError(f"{path}, line {number}: there is a NUL byte; write the file as UTF-8 text")
    if (b"x" in chunk or b"X" in chunk) and any(prefix in chunk for prefix in _HEXADECIMAL):
        _check_lines(chunk, line, path, columns)  # for Arrow, 0x10 is a whole number
    try:
        return _parse_tabs(chunk, columns)
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        _check_lines(chunk, line, path, columns)
        raise InputError(
            f"{path}, from line {line}: not readable as a {columns.kind} ({error}); is it UTF-8 text?"
        ) from None


def _has_single_tabs(chunk: bytes) -> bool:
    """Whether single tabs, and no other white space, part the columns."""
    if chunk.startswith(b"\t") or b" " in chunk:
        return False
    edges = np.frombuffer(chunk, np.uint8) - np.uint8(ord("\t")) < 2  # tabs and line ends
    # A search for two characters takes as long as all of this.
    suspect = (edges[1:] & edges[:-1]).any() or b"\r" in chunk
    return not (suspect and any(awkward in chunk for awkward in _NOT_SINGLE_TABS))


def _parse_tabs(chunk: bytes, columns: VariantColumns) -> pa.Table:
    return csv.read_csv(
        pa.BufferReader(chunk),
        csv.ReadOptions(use_threads=False, block_size=len(chunk) + 1, column_names=list(columns.names)),
        csv.ParseOptions(delimiter="\t", quote_char=False, double_quote=False),
        csv.ConvertOptions(column_types=table_schema(), include_columns=list(TABLE_COLUMNS), null_values=[]),
    )


def _check_lines(chunk: bytes, first_line: int, path: str, columns: VariantColumns) -> None:
    """Name the first line of the chunk that is wrong, and what is wrong with it."""
    names = columns.names
    for number, row in enumerate(chunk.split(b"\n"), first_line):
        text = row.decode("utf-8", "replace")
        fields = text.split() if columns.any_white_space else text.rstrip("\r").split("\t")
        if not text.strip():
            continue
        place = f"{path}, line {number}"
        if len(fields) != len(names):
            raise InputError(f"{place}: {' '.join(fields[:8])!r} has {len(fields)} columns; {columns.expected}")
        position, name = fields[names.index("POS")], fields[names.index("SNPID")]
        if not (re.fullmatch("-?[0-9]{1,19}", position) and abs(int(position)) <= _LARGEST_POSITION):
            raise InputError(
                f"{place}: position {position!r} of variant {name!r} is not a whole number; "
                "correct it, or take the variant out with plink"
            )
