"""The samples of a PLINK 2 ``.psam``."""

from collections.abc import Sequence

from kron2sum_cli.errors import InputError
from kron2sum_cli.genotypes.fam import read_fam
from kron2sum_cli.tables.samples import Samples, refuse_duplicates
from kron2sum_cli.tables.text import read_text, split_rows

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
