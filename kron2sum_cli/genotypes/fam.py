"""The samples of a PLINK 1 ``.fam``."""

from kron2sum_cli.errors import InputError
from kron2sum_cli.tables.samples import Samples, refuse_duplicates
from kron2sum_cli.tables.text import Row, read_text, split_rows

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
