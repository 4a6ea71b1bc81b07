"""Text files as people have them: compressed or not, any line end, comma, tab or white space."""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from kron2sum_cli.errors import InputError
from kron2sum_cli.files.inputs import GZIP_MAGIC, ZSTD_MAGIC, display_name, most_unpacked, read_bytes, suspicious
from kron2sum_cli.files.samples import Samples

__all__ = [
    "GZIP_MAGIC",
    "MISSING",
    "NAME_HEADERS",
    "Row",
    "display_name",
    "find_delimiter",
    "id_columns",
    "iter_rows",
    "most_unpacked",
    "parse_number",
    "read_file_list",
    "read_id_list",
    "read_name_list",
    "read_text",
    "split_rows",
    "suspicious",
]

MISSING = "NA"
"""An empty cell, where text is written."""

NAME_HEADERS = frozenset({"ID", "SNP", "SNPID", "RSID"})
"""Header names (in any case, with or without ``#``) that mark the column of variant names."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line that is not blank, cut into fields without surrounding white space.

    Attributes
    ----------
    line : number of the line in the file, from 1
    fields : its fields
    """

    line: int
    fields: tuple[str, ...]


def read_text(path: str) -> str:
    r"""Read a whole text file.

    Parameters
    ----------
    path : a file, compressed with gzip or Zstandard (told from its first bytes) or not; ``-`` is standard input

    Returns
    -------
    Its text, decoded from UTF-8 without a byte order mark, every line end as ``\n``.

    Raises
    ------
    InputError : the file is missing, a directory, unreadable, empty, binary, or not UTF-8
    """
    name = display_name(path)
    data = read_bytes(path)
    if data.startswith(ZSTD_MAGIC):
        try:
            data = bytes(pa.input_stream(pa.BufferReader(data), compression="zstd").read())
        except OSError as error:
            raise InputError(f"{name} is damaged Zstandard data ({error}); copy or compress the file again") from None
    nul = data.find(b"\0")
    if nul >= 0:
        raise InputError(
            f"{name}, line {_line_of(data, nul)}: there is a NUL byte, so the file looks binary; "
            "give a text file (from a spreadsheet: save it as CSV UTF-8)"
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte = data[error.start]
        raise InputError(
            f"{name}, line {_line_of(data, error.start)}: byte 0x{byte:02x} is not UTF-8; "
            "convert the file (for example: iconv -f latin1 -t utf-8)"
        ) from None
    if not text.strip():
        raise _empty(name)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse_number(field: str) -> float:
    """`float` without Python's own spellings (``1_000``, digits of other scripts).

    Raises
    ------
    ValueError : the field is no number
    """
    if "_" in field or not field.isascii():
        raise ValueError(f"{field!r} is not a number")
    return float(field)


def find_delimiter(header: str) -> str:
    r"""The delimiter that a header line shows: ``\t``, else ``,``, else a blank for any white space."""
    if "\t" in header:
        return "\t"
    return "," if "," in header else " "


def iter_rows(text: str, path: str, delimiter: str | None = None) -> Iterator[Row]:
    r"""The rows of a text one by one; blank lines are skipped, line numbers stay true.

    Parameters
    ----------
    text : what `read_text` returned
    path : the file it came from, for messages
    delimiter : ``\t``, ``,`` (with the quoting of CSV), or a blank for any run of white space;
        None tells it from the first line that is not blank

    Raises
    ------
    InputError : no row at all, or quotes of CSV that do not close
    """
    lines = text.split("\n")
    if delimiter is None:
        delimiter = find_delimiter(next((line for line in lines if line.strip()), ""))
    if delimiter == ",":
        rows = _comma_rows(lines, path)
    elif delimiter == "\t":
        rows = ((number, _tab_fields(line)) for number, line in enumerate(lines, 1))
    else:
        rows = ((number, line.split()) for number, line in enumerate(lines, 1))
    blank = True
    for number, fields in rows:
        if any(fields):
            blank = False
            yield Row(number, tuple(fields))
    if blank:
        raise _empty(display_name(path))


def split_rows(text: str, path: str, delimiter: str | None = None) -> list[Row]:
    """All rows of a text, as `iter_rows` gives them."""
    return list(iter_rows(text, path, delimiter))


def id_columns(header: Sequence[str]) -> int:
    """How many first columns of a header name the sample: 2 for FID IID, 1 for IID, 0 for no header.

    Either may start with ``#``; the case matters, as for plink2.
    """
    first = header[0].removeprefix("#") if header else ""
    if first == "IID":
        return 1
    return 2 if first == "FID" and len(header) > 1 and header[1] == "IID" else 0


def read_file_list(path: str) -> tuple[str, ...]:
    """Read a list of files, as for ``--geno-list``: one path a line, which may hold blanks.

    Raises
    ------
    InputError : the list cannot be read, or names a file twice
    """
    paths = tuple(line.strip() for line in read_text(path).split("\n") if line.strip())
    if len(set(paths)) < len(paths):
        twice = next(name for name in paths if paths.count(name) > 1)
        raise InputError(f"{display_name(path)} names {twice} more than once; remove one of the lines")
    return paths


def read_id_list(path: str) -> Samples:
    """Read a list of samples, as for ``--keep`` and ``--remove``.

    Parameters
    ----------
    path : a file with one sample a line, as ``FID IID`` or as ``IID`` alone; the header ``FID IID`` or
        ``IID`` (also with ``#``) may come first. Columns after the second are ignored, so that a
        ``.fam`` is such a list too.

    Returns
    -------
    The samples in the order of the file, each once however often it is listed.

    Raises
    ------
    InputError : the file cannot be read, or a line has an ID less than the first one
    """
    rows = split_rows(read_text(path), path)
    width = id_columns(rows[0].fields)
    if width:
        rows = rows[1:]
    else:
        width = min(2, len(rows[0].fields))
    for row in rows:
        if len(row.fields) < width or not all(row.fields[:width]):
            raise InputError(
                f"{display_name(path)}, line {row.line}: {' '.join(row.fields)!r} lacks an ID; "
                "give FID and IID in every line, or IID alone in every line"
            )
    ids = tuple(dict.fromkeys(row.fields[:width] for row in rows))
    fids = tuple(fields[0] for fields in ids) if width == 2 else None
    return Samples(fids, tuple(fields[-1] for fields in ids), display_name(path))


def read_name_list(path: str) -> tuple[str, ...]:
    """Read a list of variant names, as for ``--extract`` and ``--exclude``.

    Parameters
    ----------
    path : str
        A file of names with white space between them, one or several a line, as for plink2. If the first line is a
        header with a column ``SNPID``, ``ID``, ``SNP`` or ``RSID``, the names are in that column, so that an exported
        table of results and a ``.pvar`` are such lists too; only then a comma is a delimiter, as names may hold one.
        Lines of a ``.bim`` are recognised, and have the names in their second column.

    Returns
    -------
    tuple of str
        The names in the order of the file, each once.

    Raises
    ------
    InputError
        The file cannot be read, or a line has no name.
    """
    text = re.sub("^##.*", "", read_text(path), flags=re.MULTILINE)  # the comments of a .pvar
    rows = iter_rows(text, path)
    column = _name_column(next(rows).fields)
    if column is None:
        column, rows = 1, iter_rows(text, path, " ")
        if not _is_bim_line(next(iter_rows(text, path, " ")).fields):
            return tuple(dict.fromkeys(name for row in rows for name in row.fields))
    names = dict[str, None]()
    for row in rows:
        if len(row.fields) <= column or not row.fields[column]:
            raise InputError(
                f"{display_name(path)}, line {row.line}: there is no variant name in column {column + 1}; "
                "complete or remove the line"
            )
        names[row.fields[column]] = None
    return tuple(names)


def _name_column(header: Sequence[str]) -> int | None:
    """Position of the column of variant names, or None where the line is no header."""
    found = (i for i, name in enumerate(header) if name.removeprefix("#").upper() in NAME_HEADERS)
    return next(found, None)


def _is_bim_line(fields: Sequence[str]) -> bool:
    """Whether a line is one of a ``.bim``: chromosome, name, centimorgans, position, allele 1 and allele 2."""
    return (
        len(fields) == 6
        and re.fullmatch(r"-?[0-9.]+(e-?[0-9]+)?", fields[2]) is not None
        and re.fullmatch("-?[0-9]+", fields[3]) is not None
        and re.fullmatch(r"[ACGTNacgtn0-9.*<>_-]+", fields[4] + fields[5]) is not None
    )


def _empty(name: str) -> InputError:
    return InputError(f"{name} is empty; check the command that wrote it")


def _line_of(data: bytes, position: int) -> int:
    """Number of the line (from 1) that holds the byte at ``position``, whatever the line ends."""
    before = data[:position]
    return 1 + before.count(b"\n") + before.count(b"\r") - before.count(b"\r\n")


def _tab_fields(line: str) -> list[str]:
    fields = line.split("\t")
    return [field.strip() for field in fields] if " " in line else fields


def _comma_rows(lines: Sequence[str], path: str) -> Iterator[tuple[int, list[str]]]:
    """Rows of CSV, each with the number of its first line (a quoted field may hold line ends)."""
    reader = csv.reader((line + "\n" for line in lines), strict=True, skipinitialspace=True)
    while True:
        number = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(
                f"{display_name(path)}, line {number}: not readable as CSV ({error}); "
                "check the double quotes in this line"
            ) from None
        yield number, [field.strip() for field in fields]
