"""The variants of a PLINK 2 ``.pvar``, compressed with Zstandard or not."""

import codecs
import io
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from kron2sum_cli.errors import InputError
from kron2sum_cli.genotypes.bim import BIM_COLUMNS
from kron2sum_cli.genotypes.source import Variants
from kron2sum_cli.genotypes.variant_lines import CHUNK_BYTES, LONGEST_LINE, VariantColumns, read_variant_lines

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
