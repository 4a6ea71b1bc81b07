"""The samples of an Oxford ``.sample`` file, which lies beside a BGEN file."""

from kron2sum_cli.errors import InputError
from kron2sum_cli.genotypes.psam import known_fids
from kron2sum_cli.tables.samples import Samples, refuse_duplicates
from kron2sum_cli.tables.text import read_text, split_rows

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
