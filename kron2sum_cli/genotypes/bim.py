"""The variants of a PLINK 1 ``.bim``, fast and small enough for tens of millions of them."""

import re
from collections.abc import Iterator

import pyarrow as pa
from pyarrow import csv

from kron2sum_cli.errors import InputError
from kron2sum_cli.genotypes.source import Variants

BIM_COLUMNS = ("CHR", "SNPID", "CM", "POS", "EA", "NEA")
TABLE_COLUMNS = ("CHR", "POS", "SNPID", "EA", "NEA")
CHUNK_BYTES = 32 << 20
"""How much of the file is parsed at once; bounds the memory beside the finished table."""

_LARGEST_POSITION = 2**63 - 1
_NOT_SINGLE_TABS = (b" ", b"\t\t", b"\n\t", b"\t\n", b"\t\r")
_HEXADECIMAL = (b"\t0x", b"\t0X", b"\t-0x", b"\t-0X")


def read_bim(path: str, chunk_bytes: int = CHUNK_BYTES) -> Variants:
    """Read the variants of a ``.bim``: six columns, with tabs, blanks or both between them.

    The effect allele EA is the first allele of the file (allele 1), the one that dosages count.

    Parameters
    ----------
    path : the file
    chunk_bytes : how much of it is parsed at once

    Returns
    -------
    Its variants, in the order of the file.

    Raises
    ------
    InputError : the file cannot be read or is empty, a line does not have six columns, or a position
        is not a whole number. Negative ones stand for unknown places and are kept
    """
    tables = [_parse(chunk, line, path) for chunk, line in _line_chunks(path, chunk_bytes)]
    table = pa.concat_tables(tables) if tables else None
    if table is None or not table.num_rows:
        raise InputError(f"{path} is empty; a .bim has one line for every variant of the .bed")
    return Variants(table, path)


def _line_chunks(path: str, size: int) -> Iterator[tuple[bytes, int]]:
    """The file in pieces of whole lines, each with the number of its first line."""
    line, rest = 1, b""
    try:
        with open(path, "rb") as file:
            while piece := file.read(size):
                whole, newline, tail = piece.rpartition(b"\n")
                if not newline:
                    rest += piece
                    continue
                chunk = rest + whole + newline
                yield chunk, line
                line, rest = line + chunk.count(b"\n"), tail
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check the path") from None
    if rest:
        yield rest, line


def _parse(chunk: bytes, line: int, path: str) -> pa.Table:
    if chunk.startswith(b"\t") or any(awkward in chunk for awkward in _NOT_SINGLE_TABS):
        chunk = b"\n".join(b"\t".join(row.split()) for row in chunk.split(b"\n"))
    if not chunk.strip():
        return _arrow_schema().empty_table()
    if any(prefix in chunk for prefix in _HEXADECIMAL):
        _check_lines(chunk, line, path)  # for Arrow, 0x10 is a whole number
    try:
        return _parse_tabs(chunk)
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        _check_lines(chunk, line, path)
        raise InputError(f"{path}, from line {line}: not readable as a .bim ({error}); is it UTF-8 text?") from None


def _arrow_schema() -> pa.Schema:
    return pa.schema([(name, pa.int64() if name == "POS" else pa.string()) for name in TABLE_COLUMNS])


def _parse_tabs(chunk: bytes) -> pa.Table:
    return csv.read_csv(
        pa.BufferReader(chunk),
        csv.ReadOptions(use_threads=False, block_size=len(chunk) + 1, column_names=list(BIM_COLUMNS)),
        csv.ParseOptions(delimiter="\t", quote_char=False, double_quote=False),
        csv.ConvertOptions(column_types=_arrow_schema(), include_columns=list(TABLE_COLUMNS), null_values=[]),
    )


def _check_lines(chunk: bytes, first_line: int, path: str) -> None:
    """Name the first line of the chunk that is wrong, and what is wrong with it."""
    for number, row in enumerate(chunk.split(b"\n"), first_line):
        fields = row.decode("utf-8", "replace").split()
        place = f"{path}, line {number}"
        if fields and len(fields) != len(BIM_COLUMNS):
            raise InputError(
                f"{place}: {' '.join(fields[:8])!r} has {len(fields)} columns; a .bim has six: chromosome, "
                "name, centimorgans (0 if unknown), position, allele 1 and allele 2"
            )
        if fields and not (re.fullmatch("-?[0-9]+", fields[3]) and abs(int(fields[3])) <= _LARGEST_POSITION):
            raise InputError(
                f"{place}: position {fields[3]!r} of variant {fields[1]!r} is not a whole number; "
                "correct it, or take the variant out with plink"
            )
