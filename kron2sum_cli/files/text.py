"""Text files as people have them: compressed or not, any line end; columns by tab, comma, semicolon or white space."""

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.files.inputs import display_name, open_text, read_bytes
from kron2sum_cli.files.samples import Samples

EMPTY_CELL = "NA"
"""An empty cell, where text is written."""

NAME_HEADERS = frozenset({"ID", "SNP", "SNPID", "RSID"})
"""Header names (in any case, with or without ``#``) that mark the column of variant names."""

DECIMAL_COMMA = re.compile(r"[-+]?[0-9]*,[0-9]+([eE][-+]?[0-9]+)?")
"""A number with a comma for its decimal mark."""

_WORD = re.compile(r"[^ \t]+")


@dataclass(frozen=True, slots=True)
class Row:
    """One line that is not blank: its number from 1, and its fields without surrounding white space."""

    line: int
    fields: tuple[str, ...]


@dataclass(frozen=True)
class TextTable:
    """A text with the same columns in every row; blank lines are no rows.

    ``file`` is its name in messages, and ``text`` what `read_text` returned. The delimiter is tab, comma, semicolon, or
    a blank for any white space; the ``first`` row may be a header. Of all rows, also blank ones: ``lines`` on which
    each begins, and ``widths``, how many fields each has, 0 if it is blank.
    """

    file: str
    text: str
    delimiter: str
    first: Row
    lines: NDArray[np.intp]
    widths: NDArray[np.intp]

    def columns(self, positions: Sequence[int]) -> pd.DataFrame:
        """Some columns, all rows, as text without surrounding white space, empty where a row is too short.

        The columns are named by their positions (from 0) and the rows by their lines.
        """
        found = parse_columns(self.text, self.delimiter, positions)
        found = found[self.widths > 0].set_axis(self.lines[self.widths > 0], axis=0)
        if " " in self.text and self.delimiter != " ":
            found = found.apply(lambda column: column.str.strip())
        return found[list(positions)]


def read_text(path: str) -> str:
    r"""Read a whole text file.

    It may be compressed with gzip or Zstandard, which is told from its first bytes; ``-`` is standard input. The text
    is decoded from UTF-8 without a byte order mark, every line end is ``\n``. Raises InputError where the file is
    missing, a directory, unreadable, empty, binary, or not UTF-8.
    """
    name = display_name(path)
    data = read_bytes(path)
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


def parse_columns(text: str, delimiter: str, positions: Sequence[int]) -> pd.DataFrame:
    """Some columns of all lines of a text, which are empty where a line is too short; see `TextTable`.

    The columns are named by ``positions``, and the rows by their numbers from 1, blank lines among them.
    """
    width = max(2, *(position + 1 for position in positions))
    as_csv = delimiter in ",;"
    # A first line that is wide enough, so that pandas does not take the columns of longer ones for names of rows.
    wide = delimiter.join(["x"] * width) + "\n"
    return pd.read_csv(
        io.StringIO(wide + text),
        sep=r"\s+" if delimiter == " " else delimiter,
        header=None,
        names=range(width),
        usecols=sorted(positions),
        dtype=object,
        na_filter=False,
        skip_blank_lines=False,
        skipinitialspace=as_csv,
        quoting=csv.QUOTE_MINIMAL if as_csv else csv.QUOTE_NONE,
    ).iloc[1:]


def parse_number(field: str) -> float:
    """`float` without Python's own spellings (``1_000``, digits of other scripts); ValueError for what is no number."""
    if "_" in field or not field.isascii():
        raise ValueError(f"{field!r} is not a number")
    return float(field)


def parse_numbers(fields: Sequence[str]) -> NDArray[np.float64]:
    """`parse_number` of each of many fields."""
    joined = "".join(fields)
    if "_" in joined or not joined.isascii():
        raise ValueError("a field is not a number")
    return np.array(fields, dtype=np.float64)


def is_number(field: str) -> bool:
    """Whether a field reads as a number (NaN and infinity included)."""
    try:
        parse_number(field)
    except ValueError:
        return False
    return True


def not_a_number(field: str) -> str:
    """``'x' is not a number``, with what to do where it has a decimal comma.

    >>> not_a_number("0,5")
    "'0,5' is not a number; write numbers with a decimal point"
    """
    remedy = "; write numbers with a decimal point" if is_number(field.replace(",", ".", 1)) else ""
    return f"{field!r} is not a number{remedy}"


def numbers_of_row(row: Row, skipped: int, path: str) -> NDArray[np.float64]:
    """The fields of a row, without the first ``skipped``, as numbers; another text is refused."""
    try:
        return parse_numbers(row.fields[skipped:])
    except ValueError:
        pass
    column, value = next((i, v) for i, v in enumerate(row.fields) if i >= skipped and not is_number(v))
    raise InputError(f"{path}, line {row.line}, column {column + 1}: {not_a_number(value)}")


SAMPLE_NAMES = frozenset(
    {"iid", "taxa", "taxon", "sample", "sampleid", "line", "lines", "lineid", "individual", "individualid", "accession"}
    | {"strain", "animal", "animalid", "subject", "subjectid", "genotype", "entry", "clone", "cultivar", "variety"}
)
"""What the first column of samples may be called in any file, beside ``FID IID``; as `plain_name` has it."""


AMBIGUOUS_NAMES = ("", "id", "name")
"""First columns that name samples in a table of traits or covariates; in one of genotypes they may name variants. R
leaves the name of its row names empty."""


_BEFORE_SEMICOLON = SAMPLE_NAMES | {"fid", "id", "name", "marker"}


def plain_name(name: str) -> str:
    """The name of a column without what programs write differently: capitals, blanks, ``_`` and ``#``."""
    return name.strip().strip("#").replace("_", "").replace(" ", "").lower()


def find_delimiter(header: str) -> str:
    r"""The delimiter that a first line shows.

    A tab, else a semicolon after the name of a first column of samples or markers, where there is neither comma nor
    blank, or between numbers with decimal commas, else a comma, else a blank for any white space.
    """
    if "\t" in header:
        return "\t"
    first, semicolon, _ = header.partition(";")
    begins = bool(semicolon) and (first == '""' or plain_name(first.strip('"')) in _BEFORE_SEMICOLON)
    if begins or (";" in header.strip() and not set(", ") & set(header.strip())):
        return ";"
    if semicolon and all(map(is_number, with_points(header.strip().split(";")))):
        return ";"
    return "," if "," in header else " "


def read_table(path: str) -> TextTable:
    """Read a text with the same columns in every row, its delimiter told from its first line; see `text_table`."""
    return text_table(read_text(path), path)


def text_table(text: str, path: str, delimiter: str | None = None) -> TextTable:
    """Find the rows of a text.

    ``text`` is what `read_text` returned, and ``path`` is for messages. The delimiter is as in `TextTable`; None tells
    it from the first line that is not blank. With commas and semicolons a field may stand in double quotes. Raises
    InputError where there is no row, or quotes do not close.
    """
    name = display_name(path)
    delimiter = find_delimiter(_first_line(text)) if delimiter is None else delimiter
    lines, widths = _measure(text, delimiter, name)
    if not widths.any():
        raise _empty(name)
    return TextTable(name, text, delimiter, next(_rows(text, delimiter, name)), lines, widths)


def split_rows(text: str, path: str, delimiter: str | None = None) -> list[Row]:
    """The rows of a text, each with as many fields as it has; blank lines are no rows. See `text_table`.

    Between semicolons a decimal comma becomes a point. Raises InputError where there is no row, or quotes do not close.
    """
    name = display_name(path)
    delimiter = find_delimiter(_first_line(text)) if delimiter is None else delimiter
    rows = list(_rows(text, delimiter, name))
    if not rows:
        raise _empty(name)
    return [Row(row.line, with_points(row.fields)) for row in rows] if delimiter == ";" else rows


def stream_rows(path: str) -> Iterator[Row]:
    """The rows of a text file that are not blank; of gzip and Zstandard files too.

    The delimiter is told from the first line (`find_delimiter`); fields may be quoted as in CSV, and between semicolons
    a decimal comma becomes a point. Lines that begin with ``#`` and a blank are comments, as R/qtl2 writes them. Raises
    InputError where the file cannot be read, or is not text.
    """
    try:
        with open_text(path) as file:
            delimiter = ""
            for number, line in enumerate(file, 1):
                if not line.strip() or line.startswith("# "):
                    continue
                delimiter = delimiter or find_delimiter(line)
                blanks = delimiter == " "
                text = line.strip() if blanks else line.rstrip("\n")
                if '"' in text:
                    fields = next(csv.reader([text], delimiter=delimiter, skipinitialspace=blanks, strict=True))
                else:
                    fields = text.split() if blanks else text.split(delimiter)
                yield Row(number, with_points(fields) if delimiter == ";" else tuple(fields))
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error, csv.Error):
        raise InputError(f"{path} is not readable as text; check that it is the file you mean") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}); check the path") from None


def with_points(fields: Sequence[str]) -> tuple[str, ...]:
    """The fields of a row, numbers with a decimal point where they have a comma."""
    return tuple(
        field.replace(",", ".") if "," in field and DECIMAL_COMMA.fullmatch(field.strip()) else field
        for field in fields
    )


def id_columns(header: Sequence[str]) -> int:
    """How many first columns of a header name the sample: 2 for FID IID, 1 for IID and its like, 0 for no header."""
    names = [plain_name(name) for name in header[:2]]
    if names == ["fid", "iid"]:
        return 2
    return int(bool(names) and names[0] in SAMPLE_NAMES)


def read_file_list(path: str) -> tuple[str, ...]:
    """Read a list of files, as for ``--geno-list``: one path a line, which may hold blanks.

    Raises InputError where the list cannot be read, or names a file twice.
    """
    paths = tuple(line.strip() for line in read_text(path).split("\n") if line.strip())
    if len(set(paths)) < len(paths):
        twice = next(name for name in paths if paths.count(name) > 1)
        raise InputError(f"{display_name(path)} names {twice} more than once; remove one of the lines")
    return paths


def read_id_list(path: str) -> Samples:
    """Read a list of samples, as for ``--keep`` and ``--remove``, each once however often it is listed.

    Raises InputError as `listed_samples`.
    """
    samples, _ = listed_samples(path)
    ids = pd.DataFrame({"fid": samples.fids or "", "iid": samples.iids})
    return samples.take(np.flatnonzero(~ids.duplicated()))


def listed_samples(path: str) -> tuple[Samples, list[int]]:
    """Read a list of samples, and the line of each.

    A line has one sample, as ``FID IID`` or as ``IID`` alone; the header ``FID IID`` or ``IID`` (also with ``#``) may
    come first. Columns after the second are ignored, so that a ``.fam`` is such a list too. Raises InputError where the
    file cannot be read, or a line has an ID less than the first one.
    """
    table = read_table(path)
    n_header = id_columns(table.first.fields)
    if n_header == 1 and table.first.fields[0] in table.columns([0])[0].iloc[1:2].to_list():
        n_header = 0  # what the second line begins with, too, is the name of a family
    width = n_header or min(2, len(table.first.fields))
    ids = table.columns(range(width)).iloc[1 if n_header else 0 :]
    lacking = (ids == "").to_numpy().any(axis=1)
    if lacking.any():
        line = int(ids.index.to_numpy()[lacking.argmax()])
        raise InputError(
            f"{table.file}, line {line}: {table.text.split(chr(10))[line - 1].strip()!r} lacks an ID; "
            "give FID and IID in every line, or IID alone in every line"
        )
    fids = tuple(ids[0].to_list()) if width == 2 else None
    return Samples(fids, tuple(ids[width - 1].to_list()), table.file), ids.index.to_list()


def read_name_list(path: str) -> tuple[str, ...]:
    """Read a list of variant names, as for ``--extract`` and ``--exclude``.

    Each once, in the order of the file. White space lies between names, one or several a line, as for plink2. If the
    first line is a header with a column ``SNPID``, ``ID``, ``SNP`` or ``RSID``, the names are in that column, so that
    an exported table of results and a ``.pvar`` are such lists too; only then a comma is a delimiter, as names may hold
    one. Lines of a ``.bim`` are recognised, and have the names in their second column. Raises InputError where the file
    cannot be read, or a line has no name.
    """
    text = re.sub("^##.*", "", read_text(path), flags=re.MULTILINE)  # the comments of a .pvar
    table = text_table(text, path)
    is_name = (name.removeprefix("#").upper() in NAME_HEADERS for name in table.first.fields)
    column = next((i for i, found in enumerate(is_name) if found), None)
    rows_above = 1
    if column is None:
        table, column, rows_above = text_table(text, path, " "), 1, 0
        if not _is_bim_line(table.first.fields):
            return tuple(dict.fromkeys(text.split()))
    names = table.columns([column])[column].iloc[rows_above:]
    if (names == "").any():
        raise InputError(
            f"{table.file}, line {names.index[names == ''][0]}: there is no variant name in column {column + 1}; "
            "complete or remove the line"
        )
    return tuple(dict.fromkeys(names))


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


def _first_line(text: str) -> str:
    """The first line that is not blank; empty where there is none."""
    return next((line for line in io.StringIO(text) if line.strip()), "")


def _measure(text: str, delimiter: str, name: str) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """What pandas does not tell: on which line each row begins, and how many fields it has, none if it is blank."""
    if delimiter in ",;" and '"' in text:
        rows = list(_csv_rows(text, delimiter, name))
        lines = [row.line for row in rows]
        widths = [len(row.fields) if any(row.fields) else 0 for row in rows]
    else:
        split = text.removesuffix("\n").split("\n")
        lines = list(range(1, len(split) + 1))
        if delimiter == " ":
            widths = [len(_WORD.findall(line)) for line in split]
        else:
            blank = delimiter + " "
            widths = [line.count(delimiter) + 1 if line.strip(blank) else 0 for line in split]
    return np.array(lines, dtype=np.intp), np.array(widths, dtype=np.intp)


def _rows(text: str, delimiter: str, name: str) -> Iterator[Row]:
    """The rows of a text one by one."""
    if delimiter in ",;":
        rows = _csv_rows(text, delimiter, name)
    else:
        split = enumerate(io.StringIO(text), 1)
        rows = (
            Row(i, tuple(_WORD.findall(line.strip()) if delimiter == " " else line.split("\t"))) for i, line in split
        )
    for row in rows:
        fields = tuple(field.strip() for field in row.fields)
        if any(fields):
            yield Row(row.line, fields)


def _csv_rows(text: str, delimiter: str, name: str) -> Iterator[Row]:
    """Rows of CSV, blank ones too, each with the number of its first line (a quoted field may hold line ends)."""
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True, skipinitialspace=True)
    while True:
        number = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(
                f"{name}, line {number}: not readable as CSV ({error}); check the double quotes in this line"
            ) from None
        yield Row(number, tuple(fields))
