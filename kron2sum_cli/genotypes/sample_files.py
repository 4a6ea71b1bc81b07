"""Samples of genotype files: PLINK 1's ``.fam``, PLINK 2's ``.psam`` and Oxford's ``.sample``."""

import io
import itertools

import pandas as pd

from kron2sum_cli.errors import InputError
from kron2sum_cli.files.samples import NO_FID, Samples, refuse_duplicates
from kron2sum_cli.files.text import listed_samples, parse_columns, read_text

RENAME_DUPLICATE = (
    "give one of the two another name in this file (its line must stay, as the genotypes of both are there), and leave "
    "it out with fit --remove"
)
"""Remedy for a sample that is twice in the samples of genotypes."""

FAM_COLUMNS = 5
"""FID, IID, father, mother and sex; plink2 lets the phenotype be absent, and real files append more."""


def read_columns(text: str, width: int) -> pd.DataFrame:
    """The first two columns, or the only one, and the last of so many, of the lines of a text that are not blank."""
    table = parse_columns(text, " ", sorted({0, min(1, width - 1), width - 1}))
    return table[table[0] != ""]


def read_fam(path: str) -> Samples:
    """Read the samples of a ``.fam``: white space of any kind between the columns, five or more of them.

    They have no FIDs where all of them are ``0``. Raises InputError where the file cannot be read, a line is too short,
    or a sample is there twice.
    """
    text = read_text(path)
    return _samples(
        text, read_columns(text, FAM_COLUMNS), 2, path, "a .fam has FID, IID, father, mother, sex and phenotype"
    )


def read_psam(path: str) -> Samples:
    """Read the samples of a ``.psam``, or of a ``.fam`` in its place.

    Lines that start with ``##`` are not read. The header starts with ``#FID IID`` or ``#IID``; without one it is a
    ``.fam``. Samples have no FIDs where there is no such column, or ``0`` in all of it. Raises InputError where the
    file cannot be read, a line is too short, or a sample is there twice.
    """
    text = read_text(path)
    number, header = next(
        ((i, line.split()) for i, line in enumerate(io.StringIO(text), 1) if line.strip() and line[:2] != "##"),
        (0, []),
    )
    if header and not header[0].startswith("#"):
        return read_fam(path)
    if header and header[:2] != ["#FID", "IID"] and header[0] != "#IID":
        raise InputError(
            f"{path}, line {number}: {' '.join(header[:6])!r} is not the header of a .psam, which starts with "
            "#FID IID or with #IID; correct it"
        )
    lines = read_columns(text, len(header) or 1)
    lines = lines[lines.index > number] if header else lines.iloc[:0]
    if lines.empty:
        raise InputError(f"{path} has no sample; check the command that wrote it")
    return _samples(text, lines, 2 if header[0] == "#FID" else 1, path, f"the header has {len(header)}")


def read_oxford_sample(path: str) -> Samples:
    """Read the samples of a ``.sample``: a line of names, a line of types, then one line a sample.

    Where its first two columns are ``ID_1 ID_2`` they are FID and IID; where only the first is an ID (as QCTOOL 2
    writes it) it is the IID. Samples have no FIDs where all of them are ``0``. Raises InputError where the file cannot
    be read, has not those two lines first, a line is too short, or a sample is there twice.
    """
    text = read_text(path)
    first_lines = itertools.islice((line.split() for line in io.StringIO(text) if line.strip()), 2)
    header, types = [*first_lines, [], []][:2]
    n_ids = 2 if [name.upper() for name in header[1:2]] == ["ID_2"] else 1
    if len(types) != len(header) or types[:n_ids] != ["0"] * n_ids or not header[0].upper().startswith("ID"):
        raise InputError(
            f"{path} does not start as a .sample file does: a line of names (ID_1 ID_2 missing sex ...), then a "
            "line of types (0 0 0 D ...); write it again, for example with plink2 --export bgen-1.2"
        )
    lines = read_columns(text, len(header)).iloc[2:]
    return _samples(text, lines, n_ids, path, f"the first line has {len(header)}")


def read_sample_list(path: str) -> Samples:
    """Read the names of the rows of a matrix, or of the columns of a table, in their order.

    The file is a ``.fam``, or a list with ``FID IID`` or ``IID`` in each line, perhaps with such a header. Raises
    InputError where the file cannot be read, a line lacks a name, or a sample is there twice.
    """
    if path.endswith(".fam"):
        return read_fam(path)
    samples, lines = listed_samples(path)
    refuse_duplicates(samples, lines)
    return samples


def _samples(text: str, lines: pd.DataFrame, n_ids: int, path: str, expected: str) -> Samples:
    """The samples of some lines, whose first one or two columns name them and which have no empty column."""
    short = lines.index[lines.iloc[:, -1] == ""]
    if len(short):
        fields = text.split("\n")[short[0] - 1].split()
        raise InputError(
            f"{path}, line {short[0]}: {' '.join(fields[:6])!r} has {len(fields)} columns, but {expected} in every "
            "line; complete the line"
        )
    has_fids = n_ids == 2 and (lines[0] != NO_FID).any()
    fids = tuple(lines[0].to_list()) if has_fids else None  # iterating over the column would take long
    samples = Samples(fids, tuple(lines[n_ids - 1].to_list()), path)
    refuse_duplicates(samples, lines.index.to_list(), RENAME_DUPLICATE)
    return samples
