"""The variants of a PLINK 2 ``.pvar``, compressed with Zstandard or not."""

import codecs
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from kron2sum_cli.errors import InputError
from kron2sum_cli.genotypes.source import Variants

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


BIM_COLUMNS = VariantColumns(
    names=("CHR", "SNPID", "CM", "POS", "EA", "NEA"),
    any_white_space=True,
    kind=".bim",
    expected="a .bim has six: chromosome, name, centimorgans (0 if unknown), position, allele 1 and allele 2",
)


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
    try:
        with open(path, "rb") as file:
            table = read_variant_lines(file, path, BIM_COLUMNS, chunk_bytes)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check the path") from None
    if not table.num_rows:
        raise InputError(f"{path} is empty; a .bim has one line for every variant of the .bed")
    return Variants(table, path)


HEADER_NAMES = {"#CHROM": "CHR", "POS": "POS", "ID": "SNPID", "REF": "NEA", "ALT": "EA"}
"""What the columns of a ``.pvar`` are called here."""

_NO_HEADER = VariantColumns(
    names=("CHR", "SNPID", "POS", "EA", "NEA"),
    any_white_space=True,
    kind=".pvar",
    expected="a .pvar without header has five (chromosome, name, position, ALT and REF), or six as a .bim",
)


def read_pvar(path: str, chunk_bytes: int = CHUNK_BYTES) -> Variants:
    """Read the variants of a ``.pvar``, ``.pvar.zst``, or of a ``.bim`` in its place.

    EA, the allele that dosages count, is ALT, and NEA is REF.

    Parameters
    ----------
    path : the file; lines that start with ``##`` are not read. Without a line ``#CHROM POS ID REF ALT``
        (in any order, and with other columns) it is one like a ``.bim``, where ALT comes before REF
    chunk_bytes : how much of it is parsed at once

    Returns
    -------
    Its variants, in the order of the file.

    Raises
    ------
    InputError : the file cannot be read or decompressed, has no variant, lacks a column, has a line of
        another number of columns or a position that is not a whole number, or has a variant with more than
        one ALT allele
    """
    try:
        # A NativeFile that is not seekable (Zstandard) has no readline of its own.
        with pa.input_stream(path, compression=_compression(path)) as stream:
            file = io.BufferedReader(stream, 1 << 20)
            table = _read_table(file, path, chunk_bytes)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({_reason(error)}); check the file") from None
    if not table.num_rows:
        raise InputError(f"{path} has no variant; a .pvar has one line for every variant of the .pgen")
    _refuse_multiallelic(table, path)
    return Variants(table, path)


def _compression(path: str) -> str | None:
    return "zstd" if path.endswith(".zst") else None


def _reason(error: OSError) -> str:
    return error.strerror or str(error).splitlines()[0]


def _read_table(file: BinaryIO, path: str, chunk_bytes: int) -> pa.Table:
    number, line = 1, file.readline(LONGEST_LINE).removeprefix(codecs.BOM_UTF8)
    while line.startswith(b"##"):
        number, line = number + 1, file.readline(LONGEST_LINE)
    if line.startswith(b"#CHROM"):
        columns = _columns_of(line, f"{path}, line {number}")
        return read_variant_lines(file, path, columns, chunk_bytes, first_line=number + 1)
    if line.startswith(b"#"):
        shown = line.decode("utf-8", "replace").split()[:6]
        raise InputError(
            f"{path}, line {number}: {' '.join(shown)!r} is not the header of a .pvar, "
            "which starts with #CHROM; write the file set again with plink2 --make-pgen"
        )
    columns = BIM_COLUMNS if len(line.split()) >= len(BIM_COLUMNS.names) else _NO_HEADER
    return read_variant_lines(file, path, columns, chunk_bytes, number, start=line)


def _columns_of(header: bytes, place: str) -> VariantColumns:
    text = header.decode("utf-8", "replace").rstrip("\r\n")
    fields = text.split("\t") if "\t" in text else text.split()
    absent = [name for name in HEADER_NAMES if fields.count(name) != 1]
    if absent:
        raise InputError(
            f"{place}: the header of a .pvar needs the columns {', '.join(HEADER_NAMES)} once each; "
            f"not so: {', '.join(absent)}"
        )
    return VariantColumns(
        names=tuple(HEADER_NAMES.get(name, f"{name} {i}") for i, name in enumerate(fields)),
        any_white_space="\t" not in text,
        kind=".pvar",
        expected=f"the header has {len(fields)}",
    )


def _refuse_multiallelic(table: pa.Table, path: str) -> None:
    several = pc.match_substring(table["EA"], ",")
    number = pc.sum(several).as_py()
    if number:
        first = table.filter(several).slice(0, 1).to_pylist()[0]
        raise InputError(
            f"{path}: {number} of {table.num_rows} variants have more than two alleles, first {first['SNPID']!r} "
            f"at {first['CHR']}:{first['POS']} with ALT {first['EA']}; leave them out with plink2 --pfile OLD "
            "--max-alleles 2 --make-pgen --out NEW, or split them with a recent plink2 (--make-pgen multiallelics=-)"
        )
