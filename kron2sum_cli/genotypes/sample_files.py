"""The samples of an Oxford ``.sample`` file, which lies beside a BGEN file."""

from collections.abc import Sequence

from kron2sum_cli.errors import InputError
from kron2sum_cli.files.samples import Samples, refuse_duplicates
from kron2sum_cli.files.text import Row, read_text, split_rows

FEWEST_COLUMNS = 5
"""FID, IID, father, mother and sex; plink2 lets the phenotype be absent, and real files append more."""


def read_fam(path: str) -> Samples:
    """Read the samples of a ``.fam``: white space of any kind between the columns, five or more of them.

    Parameters
    ----------
    path : the file

    Returns
    -------
    Its samples with FID and IID, in the order of the file.

    Raises
    ------
    InputError : the file cannot be read, a line is too short, or a sample is there twice
    """
    rows = split_rows(read_text(path), path, delimiter=" ")
    for row in rows:
        _check_columns(row, path)
    samples = Samples(fids=tuple(row.fields[0] for row in rows), iids=tuple(row.fields[1] for row in rows), source=path)
    refuse_duplicates(samples, [row.line for row in rows])
    return samples


def _check_columns(row: Row, path: str) -> None:
    if len(row.fields) < FEWEST_COLUMNS:
        raise InputError(
            f"{path}, line {row.line}: {' '.join(row.fields)!r} has {len(row.fields)} columns; "
            "a .fam has FID, IID, father, mother, sex and phenotype in every line"
        )


NO_FID = "0"
"""What stands for a family ID that is not known, for plink2."""


def read_psam(path: str) -> Samples:
    """Read the samples of a ``.psam``, or of a ``.fam`` in its place.

    Parameters
    ----------
    path : the file; lines that start with ``##`` are not read. Its header starts with ``#FID IID`` or
        ``#IID``; without a header it is read as a ``.fam``

    Returns
    -------
    Its samples in the order of the file; without FIDs where there is no such column, or ``0`` in all of it.

    Raises
    ------
    InputError : the file cannot be read, a line is too short, or a sample is there twice
    """
    rows = [row for row in split_rows(read_text(path), path, " ") if not row.fields[0].startswith("##")]
    header = rows[0].fields if rows else ()
    if header and not header[0].startswith("#"):
        return read_fam(path)
    width = 2 if header[:2] == ("#FID", "IID") else 1
    if header and width == 1 and header[0] != "#IID":
        raise InputError(
            f"{path}, line {rows[0].line}: {' '.join(header[:6])!r} is not the header of a .psam, which "
            "starts with #FID IID or with #IID; correct it"
        )
    rows = rows[1:]
    for row in rows:
        if len(row.fields) < len(header):
            raise InputError(
                f"{path}, line {row.line}: {' '.join(row.fields[:6])!r} has {len(row.fields)} columns, but "
                f"the header has {len(header)}; complete the line"
            )
    if not rows:
        raise InputError(f"{path} has no sample; check the command that wrote it")
    fids = known_fids([row.fields[0] for row in rows]) if width == 2 else None
    samples = Samples(fids, tuple(row.fields[width - 1] for row in rows), path)
    refuse_duplicates(samples, [row.line for row in rows])
    return samples


def known_fids(fids: Sequence[str]) -> tuple[str, ...] | None:
    """The family IDs, or None where all of them are ``0``: not known, as plink2 writes it."""
    return None if all(fid == NO_FID for fid in fids) else tuple(fids)


_ID_TYPE = "0"


def read_oxford_sample(path: str) -> Samples:
    """Read the samples of a ``.sample``: a line of names, a line of types, then one line a sample.

    Parameters
    ----------
    path : the file. Where its first two columns are ``ID_1 ID_2`` they are FID and IID; where only the
        first is an ID (as QCTOOL 2 writes it) it is the IID

    Returns
    -------
    Its samples in the order of the file; without FIDs where there are none, or ``0`` in all lines.

    Raises
    ------
    InputError : the file cannot be read, has not those two lines first, a line is too short, or a sample
        is there twice
    """
    rows = split_rows(read_text(path), path, " ")
    header, types = (rows[0].fields, rows[1].fields) if len(rows) > 1 else ((), ())
    width = 2 if header[1:2] and header[1].upper() == "ID_2" else 1
    if len(types) != len(header) or types[:width] != (_ID_TYPE,) * width or not header[0].upper().startswith("ID"):
        raise InputError(
            f"{path} does not start as a .sample file does: a line of names (ID_1 ID_2 missing sex ...), then a "
            "line of types (0 0 0 D ...); write it again, for example with plink2 --export bgen-1.2"
        )
    rows = rows[2:]
    for row in rows:
        if len(row.fields) != len(header):
            raise InputError(
                f"{path}, line {row.line}: {' '.join(row.fields[:6])!r} has {len(row.fields)} columns, but the "
                f"first line has {len(header)}; correct the line"
            )
    fids = known_fids([row.fields[0] for row in rows]) if width == 2 else None
    samples = Samples(fids, tuple(row.fields[width - 1] for row in rows), path)
    refuse_duplicates(samples, [row.line for row in rows])
    return samples
