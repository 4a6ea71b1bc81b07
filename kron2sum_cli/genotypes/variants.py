"""The variants of a PLINK file set: ``.bim`` and ``.pvar``, the latter compressed with Zstandard or not."""

import codecs
import io
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv

from kron2sum_cli.errors import InputError, counted
from kron2sum_cli.genotypes.source import VARIANT_SCHEMA, Variants

logger = logging.getLogger("kron2sum.genotypes")

CHUNK_BYTES = 1 << 18
"""How much of a file is parsed at once; bounds the memory beside the finished table."""

_LARGEST_POSITION = 2**63 - 1


@dataclass(frozen=True)
class VariantColumns:
    """How the lines of a file are cut into columns.

    - ``names``: one for every column, those of `VARIANT_SCHEMA` among them; the others are not read.
    - ``any_white_space``: whether blanks and runs of white space lie between columns, else single tabs.
    - ``kind``: what the file is, for messages, such as ``.bim``.
    - ``expected``: which columns it should have, for messages.
    """

    names: tuple[str, ...]
    any_white_space: bool
    kind: str
    expected: str


BIM_COLUMNS = VariantColumns(
    names=("CHR", "SNPID", "CM", "POS", "EA", "NEA"),
    any_white_space=True,
    kind=".bim",
    expected="a .bim has six: chromosome, name, centimorgans (0 if unknown), position, allele 1 and allele 2",
)

PVAR_COLUMNS_WITHOUT_HEADER = VariantColumns(
    names=("CHR", "SNPID", "POS", "EA", "NEA"),
    any_white_space=True,
    kind=".pvar",
    expected="a .pvar without header has five (chromosome, name, position, ALT and REF), or six as a .bim",
)

PVAR_NAMES = {"#CHROM": "CHR", "POS": "POS", "ID": "SNPID", "REF": "NEA", "ALT": "EA"}
"""What the columns of a ``.pvar`` are called here."""


def read_bim(path: str) -> Variants:
    """Read the variants of a ``.bim``: six columns, with tabs, blanks or both between them.

    The effect allele EA is the first allele of the file (allele 1), the one that dosages count. Negative positions
    stand for unknown places and are kept. Raises InputError where the file cannot be read or is empty, a line does not
    have six columns, or a position is not a whole number.
    """
    table = _read_table(path, lambda file: (BIM_COLUMNS, 1, b""))
    if not table.num_rows:
        raise InputError(f"{path} is empty; a .bim has one line for every variant of the .bed")
    return Variants(table, path)


def read_pvar(path: str) -> Variants:
    """Read the variants of a ``.pvar``, ``.pvar.zst``, or of a ``.bim`` in its place.

    EA, the allele that dosages count, is ALT (several have commas between them), and NEA is REF. Lines that start with
    ``##`` are not read. Without a line ``#CHROM POS ID REF ALT`` (in any order, and with other columns) the file is one
    like a ``.bim``, where ALT comes before REF. Raises InputError where the file cannot be read or decompressed, has no
    variant, lacks a column, or has a line of another number of columns or a position that is not a whole number.
    """
    table = _read_table(path, lambda file: _pvar_header(file, path))
    if not table.num_rows:
        raise InputError(f"{path} has no variant; a .pvar has one line for every variant of the .pgen")
    return Variants(table, path)


def with_two_alleles(variants: Variants, n_alleles: NDArray[np.integer], remedy: str) -> Variants:
    """The variants that have two of ``n_alleles`` (M,); a warning counts those of more and says how to split them.

    Another one counts those of fewer. Raises InputError where none has two alleles.
    """
    two_alleles = n_alleles == 2
    if two_alleles.all():
        return variants
    problems = []
    for others, which, advice in (
        (n_alleles > 2, "more than two alleles", f"; to test them, split them ({remedy})"),
        (n_alleles < 2, "fewer than two alleles", ""),
    ):
        if others.any():
            first = variants.table.slice(int(np.argmax(others)), 1).to_pylist()[0]
            problems.append(
                f"{variants.source}: {np.count_nonzero(others)} of {counted(len(variants), 'variants')} left out for"
                f" {which}, first {first['SNPID']!r} at {first['CHR']}:{first['POS']}{advice}"
            )
    if not two_alleles.any():
        raise InputError("\n".join(problems))
    for problem in problems:
        logger.warning("%s", problem)
    names = frozenset(variants.table["SNPID"].filter(pa.array(~two_alleles)).to_pylist())
    return Variants(variants.table.filter(pa.array(two_alleles)), variants.source, names)


def _read_table(path: str, read_header: Callable[[BinaryIO], tuple[VariantColumns, int, bytes]]) -> pa.Table:
    """All lines behind the header as one table.

    ``read_header`` returns the columns, the number of the first line of variants, and what it has read of that.
    """
    tables = [VARIANT_SCHEMA.empty_table()]
    try:
        with pa.input_stream(path) as stream:
            file = io.BufferedReader(stream, 1 << 20)
            columns, line, start = read_header(file)
            for chunk in _whole_lines(file, start):
                tables.append(_parse(chunk, line, path, columns))
                line += chunk.count(b"\n")
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror or str(error).splitlines()[0]}); check the file"
        ) from None
    return pa.concat_tables(tables)


def _whole_lines(file: BinaryIO, start: bytes) -> Iterator[bytes]:
    """The rest of a file in pieces of whole lines; the first one begins with ``start``."""
    while chunk := file.read(CHUNK_BYTES):
        yield start + chunk + file.readline()
        start = b""
    if start:
        yield start


def _parse(chunk: bytes, first_line: int, path: str, columns: VariantColumns) -> pa.Table:
    if first_line == 1:
        chunk = chunk.removeprefix(codecs.BOM_UTF8)
    tabs = chunk
    if columns.any_white_space and not _has_single_tabs(chunk):
        tabs = b"\n".join(b"\t".join(row.split()) for row in chunk.split(b"\n"))
    if not tabs.strip():
        return VARIANT_SCHEMA.empty_table()
    try:
        return csv.read_csv(
            pa.BufferReader(tabs),
            csv.ReadOptions(use_threads=False, block_size=len(tabs) + 1, column_names=list(columns.names)),
            csv.ParseOptions(delimiter="\t", quote_char=False, double_quote=False),
            csv.ConvertOptions(column_types=VARIANT_SCHEMA, include_columns=VARIANT_SCHEMA.names, null_values=[]),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        _refuse_wrong_line(chunk, first_line, path, columns)
        raise InputError(
            f"{path}, from line {first_line}: not readable as a {columns.kind} ({error}); is it UTF-8 text?"
        ) from None


def _has_single_tabs(lines: bytes) -> bool:
    """Whether no blank, and no tab beside other white space or at an end of a line, is in some lines."""
    # NumPy compares them in a fraction of the time that Python takes to search them for pairs of white space.
    text = np.frombuffer(b"\n" + lines + b"\n", np.uint8)
    tab, space = text == ord("\t"), (text == ord("\t")) | (text == ord("\n")) | (text == ord("\r"))
    return b" " not in lines and not ((tab[1:] & space[:-1]) | (tab[:-1] & space[1:])).any()


def _refuse_wrong_line(chunk: bytes, first_line: int, path: str, columns: VariantColumns) -> None:
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


def _pvar_header(file: BinaryIO, path: str) -> tuple[VariantColumns, int, bytes]:
    """The columns of a ``.pvar``, the number of the first line behind its header, and what was read of that."""
    number, line = 1, file.readline().removeprefix(codecs.BOM_UTF8)
    while line.startswith(b"##"):
        number, line = number + 1, file.readline()
    if line.startswith(b"#CHROM"):
        return _columns_of(line, f"{path}, line {number}"), number + 1, b""
    if line.startswith(b"#"):
        shown = line.decode("utf-8", "replace").split()[:6]
        raise InputError(
            f"{path}, line {number}: {' '.join(shown)!r} is not the header of a .pvar, "
            "which starts with #CHROM; write the file set again with plink2 --make-pgen"
        )
    like_bim = len(line.split()) >= len(BIM_COLUMNS.names)
    return BIM_COLUMNS if like_bim else PVAR_COLUMNS_WITHOUT_HEADER, number, line


def _columns_of(header: bytes, place: str) -> VariantColumns:
    text = header.decode("utf-8", "replace").rstrip("\r\n")
    fields = text.split("\t") if "\t" in text else text.split()
    absent = [name for name in PVAR_NAMES if fields.count(name) != 1]
    if absent:
        raise InputError(
            f"{place}: the header of a .pvar needs the columns {', '.join(PVAR_NAMES)} once each; "
            f"not so: {', '.join(absent)}"
        )
    return VariantColumns(
        names=tuple(PVAR_NAMES.get(name, f"{name} {i}") for i, name in enumerate(fields)),
        any_white_space="\t" not in text,
        kind=".pvar",
        expected=f"the header has {len(fields)}",
    )
