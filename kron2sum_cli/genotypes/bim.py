"""The variants of a PLINK 1 ``.bim``."""

from kron2sum_cli.errors import InputError
from kron2sum_cli.genotypes.source import Variants
from kron2sum_cli.genotypes.variant_lines import CHUNK_BYTES, VariantColumns, read_variant_lines

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
