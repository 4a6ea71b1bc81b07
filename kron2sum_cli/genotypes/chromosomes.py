"""Chromosome codes: what counts as the same one, and the lists and regions that users give."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kron2sum_cli.errors import UsageError

PLINK_NUMBERS = {"23": "X", "24": "Y", "25": "XY", "26": "MT"}
"""What plink's numbers above 22 mean in human data."""

_LETTERS = {"X": "X", "Y": "Y", "XY": "XY", "PAR1": "XY", "PAR2": "XY", "MT": "MT", "M": "MT"}
"""The one spelling of codes that are letters; PAR1 and PAR2 are plink2's names of the two parts of XY."""

_WHOLE_NUMBER = r"[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+"
_REGION = re.compile(rf"(?P<chromosome>.+):(?P<first>{_WHOLE_NUMBER})-(?P<last>{_WHOLE_NUMBER})")
_SEVERAL = re.compile(rf":(?:{_WHOLE_NUMBER})-(?:{_WHOLE_NUMBER})[,;\s]")
_RANGE = re.compile(r"(?P<first>[0-9]+)-(?P<last>[0-9]+)")
_LARGEST_CODE = 1000
_LAST_HUMAN_NUMBER = 26


@dataclass(frozen=True)
class Region:
    """A part of a chromosome: ``first <= POS <= last``; 23 to 26 are numbers in its code."""

    chromosome: str
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.chromosome}:{self.first}-{self.last}"


def bare_code(code: str) -> str:
    """A chromosome code without a prefix ``chr``.

    >>> bare_code("chr7"), bare_code("X"), bare_code("chr")
    ('7', 'X', 'chr')
    """
    return code[3:] if code[:3].lower() == "chr" and len(code) > 3 else code


def normalise_chromosome(code: str, human: bool = True) -> str:
    """The one spelling of a chromosome code, so that ``chr1`` is ``1`` and ``23`` is ``X``.

    A prefix ``chr`` (any case) and leading zeros go; X, Y and XY are in capitals, ``M`` is MT, ``PAR1`` and ``PAR2``
    are XY. As for plink, 23 is X, 24 is Y, 25 is XY and 26 is MT in human data (see `is_human`). Everything else (names
    of contigs, 0 for unplaced) stays as it is.

    >>> [normalise_chromosome(code) for code in ("chr1", "01", "23", "x", "M", "0", "GL000192.1")]
    ['1', '1', 'X', 'X', 'MT', '0', 'GL000192.1']
    """
    bare = bare_code(code)
    if re.fullmatch("[0-9]+", bare):
        number = bare.lstrip("0") or "0"
        return PLINK_NUMBERS.get(number, number) if human else number
    return _LETTERS.get(bare.upper(), bare)


def is_human(codes: Iterable[str]) -> bool:
    """Whether the numbers 23 to 26 among the chromosomes of a data set stand for X, Y, XY and MT.

    They do not where there are numbers above 26 (cattle have 29 autosomes), or all of them and X (sheep have 26).

    >>> is_human(["1", "23"]), is_human(["23", "29"]), is_human(["chrX", "23", "24", "25", "26"])
    (True, False, False)
    """
    plain = {normalise_chromosome(code, human=False) for code in codes}
    numbers = [int(code) for code in plain if re.fullmatch("[0-9]+", code)]
    return max(numbers, default=0) <= _LAST_HUMAN_NUMBER and not {*PLINK_NUMBERS, "X"} <= plain


def encode_chromosomes(
    column: pa.ChunkedArray, known: Collection[str] = ()
) -> tuple[list[str], NDArray[np.intp], bool]:
    """The codes of a column ``CHR`` in order of appearance, and for each variant which one it has.

    Other codes of the data set are ``known`` from another file. Returns the k codes as `normalise_chromosome` spells
    them; positions among them; whether 23 to 26 were taken for X, Y, XY and MT.
    """
    encoded = column.combine_chunks().dictionary_encode()
    names = encoded.dictionary.to_pylist()
    human = is_human([*names, *known])
    spelled = [normalise_chromosome(code, human) for code in names]
    codes = list(dict.fromkeys(spelled))
    canonical = np.array([codes.index(code) for code in spelled], dtype=np.intp)
    return codes, canonical[np.asarray(encoded.indices)], human


def by_spelling(known: Mapping[str, str], column: pa.ChunkedArray) -> dict[str, str]:
    """What is known of chromosomes by their codes, by their names as a column ``CHR`` spells them."""
    if not known:
        return {}
    names = column.unique().to_pylist()
    human = is_human([*names, *known])
    codes = {name: normalise_chromosome(name, human) for name in names}
    return {name: known[code] for name, code in codes.items() if code in known}


def filled_positions(
    chromosomes: NDArray[np.intp], positions: NDArray[np.int64], chromosome: int = -1, position: int = 0
) -> NDArray[np.int64]:
    """Positions (m,), each unknown one (0 or negative) replaced by the last known one before it on its chromosome.

    Genotype files have variants in the order of the map, and arrays of mice or plants many without a position. Where
    none is known before, it is 0. Before the first variant stands one at ``position`` of ``chromosome``.
    """
    before = np.concatenate([[chromosome], chromosomes[:-1]])
    anchors = (positions > 0) | (chromosomes != before)
    source = np.maximum.accumulate(np.where(anchors, np.arange(len(chromosomes)), -1))
    filled = np.where(source >= 0, positions[source], position)
    return np.asarray(np.maximum(filled, 0))


def parse_chromosomes(text: str) -> tuple[tuple[str, ...], ...]:
    """Read the value of ``--chr``: codes and ranges of numbers with commas between, as ``1-5,chr7,X``.

    A tuple for each item of the list: the one code, or all codes of the range; 23 to 26 stay numbers, as the data say
    what they mean. Raises UsageError where an item is empty, or a range runs backwards or beyond 1000.

    >>> parse_chromosomes("1-3,chrX")
    (('1', '2', '3'), ('X',))
    """
    return tuple(_parse_item(item.strip(), text) for item in text.split(","))


def _parse_item(item: str, text: str) -> tuple[str, ...]:
    if not item:
        raise UsageError(f"--chr {text!r}: an item is empty; give codes with commas between, such as 1-5,7,X")
    limits = _RANGE.fullmatch(re.sub("chr", "", item, flags=re.IGNORECASE))
    if limits is None:
        return (normalise_chromosome(item, human=False),)
    first, last = int(limits["first"]), int(limits["last"])
    if not first <= last <= _LARGEST_CODE:
        raise UsageError(f"--chr {text!r}: {item!r} is not a range; give the smaller number first, such as 1-5")
    return tuple(str(number) for number in range(first, last + 1))


def parse_region(text: str) -> Region:
    """Read the value of ``--region``: ``chr:from-to``, both ends included, thousands commas allowed.

    Raises UsageError where it does not have that form, or runs backwards.

    >>> parse_region("chr6:25,000,000-34000000")
    Region(chromosome='6', first=25000000, last=34000000)
    """
    parts = _REGION.fullmatch(text.strip())
    if parts is None or _SEVERAL.search(parts["chromosome"]):
        again = "" if parts is None else ", and --region again for another"
        raise UsageError(f"--region {text!r} is not chr:from-to; write for example 6:25000000-34000000{again}")
    first, last = (int(parts[end].replace(",", "")) for end in ("first", "last"))
    if first > last or last > 2**63 - 1:
        raise UsageError(f"--region {text!r}: {first} to {last} is not a region; give the smaller position first")
    return Region(normalise_chromosome(parts["chromosome"].strip(), human=False), first, last)
