"""Chromosome codes: what counts as the same one, and the lists and regions that users give."""

import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kron2sum_cli.errors import UsageError

PLINK_NUMBERS = {"23": "X", "24": "Y", "25": "XY", "26": "MT"}
"""What plink's numbers above 22 mean in human data."""

_WHOLE_NUMBER = r"[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+"
_REGION = re.compile(rf"(?P<chromosome>.+):(?P<first>{_WHOLE_NUMBER})-(?P<last>{_WHOLE_NUMBER})")
_RANGE = re.compile(r"(?P<first>[0-9]+)-(?P<last>[0-9]+)")
_LARGEST_CODE = 1000


@dataclass(frozen=True)
class Region:
    """A part of a chromosome: ``first <= POS <= last``; the code as `normalise_chromosome` spells it."""

    chromosome: str
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.chromosome}:{self.first}-{self.last}"


def normalise_chromosome(code: str) -> str:
    """The one spelling of a chromosome code, so that ``chr1`` is ``1`` and ``23`` is ``X``.

    A prefix ``chr`` (any case) and leading zeros go; as for plink, 23 is X, 24 is Y, 25 is XY, 26 and ``M``
    are MT, in any case. Everything else (names of contigs, 0 for unplaced) stays as it is.

    Examples
    --------
    >>> [normalise_chromosome(code) for code in ("chr1", "01", "23", "x", "M", "0", "GL000192.1")]
    ['1', '1', 'X', 'X', 'MT', '0', 'GL000192.1']
    """
    bare = code[3:] if code[:3].lower() == "chr" and len(code) > 3 else code
    if re.fullmatch("[0-9]+", bare):
        number = bare.lstrip("0") or "0"
        return PLINK_NUMBERS.get(number, number)
    if bare.upper() in {"M", "MT"}:
        return "MT"
    return bare.upper() if bare.upper() in PLINK_NUMBERS.values() else bare


def encode_chromosomes(column: pa.ChunkedArray) -> tuple[list[str], NDArray[np.intp]]:
    """The codes of a column ``CHR`` in order of appearance, and for each variant which one it has.

    Parameters
    ----------
    column : pyarrow.ChunkedArray
        M strings, as the file spells them.

    Returns
    -------
    codes : list of str
        The k codes as `normalise_chromosome` spells them.
    code_of_variant : NDArray (M,)
        Positions among them.
    """
    encoded = column.combine_chunks().dictionary_encode()
    spelled = [normalise_chromosome(code) for code in encoded.dictionary.to_pylist()]
    codes = list(dict.fromkeys(spelled))
    canonical = np.array([codes.index(code) for code in spelled], dtype=np.intp)
    return codes, canonical[np.asarray(encoded.indices)]


def parse_chromosomes(text: str) -> tuple[tuple[str, ...], ...]:
    """Read the value of ``--chr``: codes and ranges of numbers with commas between, as ``1-5,chr7,X``.

    Parameters
    ----------
    text : str
        The option's value.

    Returns
    -------
    tuple of tuple of str
        A tuple for each item of the list: the one code, or all codes of the range.

    Raises
    ------
    UsageError
        An item is empty, or a range runs backwards or beyond 1000.

    Examples
    --------
    >>> parse_chromosomes("1-3,chrX")
    (('1', '2', '3'), ('X',))
    """
    return tuple(_parse_item(item.strip(), text) for item in text.split(","))


def _parse_item(item: str, text: str) -> tuple[str, ...]:
    if not item:
        raise UsageError(f"--chr {text!r}: an item is empty; give codes with commas between, such as 1-5,7,X")
    limits = _RANGE.fullmatch(re.sub("chr", "", item, flags=re.IGNORECASE))
    if limits is None:
        return (normalise_chromosome(item),)
    first, last = int(limits["first"]), int(limits["last"])
    if not first <= last <= _LARGEST_CODE:
        raise UsageError(f"--chr {text!r}: {item!r} is not a range; give the smaller number first, such as 1-5")
    return tuple(normalise_chromosome(str(number)) for number in range(first, last + 1))


def parse_region(text: str) -> Region:
    """Read the value of ``--region``: ``chr:from-to``, both ends included, thousands commas allowed.

    Parameters
    ----------
    text : str
        The option's value.

    Raises
    ------
    UsageError
        It does not have that form, or runs backwards.

    Examples
    --------
    >>> parse_region("chr6:25,000,000-34000000")
    Region(chromosome='6', first=25000000, last=34000000)
    """
    parts = _REGION.fullmatch(text.strip())
    if parts is None:
        raise UsageError(f"--region {text!r} is not chr:from-to; write for example 6:25000000-34000000")
    first, last = (int(parts[end].replace(",", "")) for end in ("first", "last"))
    if first > last or last > 2**63 - 1:
        raise UsageError(f"--region {text!r}: {first} to {last} is not a region; give the smaller position first")
    return Region(normalise_chromosome(parts["chromosome"].strip()), first, last)
