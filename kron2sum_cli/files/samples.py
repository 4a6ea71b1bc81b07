"""Sample identities: who is who across files, whatever the order."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError

NO_FID = "0"
"""What plink2 writes for a family ID that is not known."""

BETWEEN_NAMES = "\0"
"""Stands between the two names of a sample where they are compared as one; no text that is read has it."""


@dataclass(frozen=True)
class Samples:
    """The samples of one file, in its order.

    Family IDs are None where the file has none: samples then match on IID alone. ``source`` is the file they were read
    from, for messages.
    """

    fids: tuple[str, ...] | None
    iids: tuple[str, ...]
    source: str

    @classmethod
    def of_names(cls, names: Iterable[Sequence[str]], source: str) -> "Samples":
        """Samples from the IID, or the FID and the IID, of each."""
        *fids, iids = list(zip(*names, strict=True)) or [()]
        return cls(fids[0] if fids else None, iids, source)

    def __len__(self) -> int:
        return len(self.iids)

    def label(self, index: int) -> str:
        """``FID IID`` of one sample (``IID`` alone where there is no FID), for messages."""
        iid = self.iids[index]
        return iid if self.fids is None else f"{self.fids[index]} {iid}"

    def take(self, indices: Sequence[int] | NDArray[np.intp]) -> "Samples":
        """The samples at these positions, in this order."""
        fids = None if self.fids is None else tuple(self.fids[i] for i in indices)
        return Samples(fids, tuple(self.iids[i] for i in indices), self.source)


def refuse_duplicates(
    samples: Samples, lines: Sequence[int] | None = None, remedy: str = "remove one of the two"
) -> None:
    """Check that every sample of a file is there once.

    The message names the lines of the two where they are given, else their numbers from 1, and ends with the remedy.
    Raises InputError where a sample is there twice.
    """
    place = "sample" if lines is None else "line"
    numbers = range(1, len(samples) + 1) if lines is None else lines
    first: dict[str, int] = {}
    for index, key in enumerate(_keys(samples, with_fids=True)):
        earlier = first.setdefault(key, index)
        if earlier != index:
            raise InputError(
                f"{samples.source}, {place} {numbers[index]}: sample '{samples.label(index)}' was already "
                f"in {place} {numbers[earlier]}; {remedy}"
            )


def match(reference: Samples, other: Samples) -> NDArray[np.intp]:
    """Find the samples of one file in another.

    Samples match on (FID, IID) where both files have FIDs, else on IID alone; FIDs that are all ``0`` are none. Where
    one file has FIDs and no IID is in both files, the names of the other file are compared with ``FID_IID``, which
    plink writes into BGEN, VCF and ``.traw``; names that all begin with ``0_`` have no FID there. What matches must be
    unique in both files; IDs that the other file lacks may be repeated. Returns the position in ``other`` of each of
    the n samples of ``reference``, -1 where it is not there.
    Raises InputError where an ID that both files have is ambiguous in one of them.
    """
    reference_keys, other_keys = _comparable_keys(reference, other)
    if reference_keys == other_keys and len(set(reference_keys)) == len(reference_keys):
        return np.arange(len(reference_keys))
    positions = {key: index for index, key in enumerate(other_keys)}
    matched = [positions.get(key, -1) for key in reference_keys]
    if len(positions) < len(other_keys):
        _refuse_ambiguous(other, other_keys, set(reference_keys), reference.source)
    if len(set(reference_keys)) < len(reference_keys):
        _refuse_ambiguous(reference, reference_keys, set(other_keys), other.source)
    return np.array(matched, dtype=np.intp)


def count_absent(samples: Samples, other: Samples) -> int:
    """How many samples of one file have an ID that the other file lacks (by the rule of `match`)."""
    keys, other_keys = _comparable_keys(samples, other)
    there = set(other_keys)
    return sum(key not in there for key in keys)


def _comparable_keys(samples: Samples, other: Samples) -> tuple[list[str], list[str]]:
    """What the samples of two files are matched on, by the rule of `match`."""
    has_fids = [one.fids is not None and any(fid != NO_FID for fid in one.fids) for one in (samples, other)]
    keys, other_keys = _keys(samples, all(has_fids)), _keys(other, all(has_fids))
    if all(has_fids) or set(keys) & set(other_keys):
        return keys, other_keys
    joined = [
        [key.replace(BETWEEN_NAMES, "_") for key in _keys(one, has)]
        for one, has in zip((samples, other), has_fids, strict=True)
    ]
    if set(joined[0]) & set(joined[1]):
        return joined[0], joined[1]
    return _without_unknown_fids(keys), _without_unknown_fids(other_keys)


def _without_unknown_fids(names: list[str]) -> list[str]:
    """IIDs of names that all begin with a family ID that is not known; other names as they are."""
    unknown = f"{NO_FID}_"
    return [name.removeprefix(unknown) for name in names] if all(name.startswith(unknown) for name in names) else names


def _keys(samples: Samples, with_fids: bool) -> list[str]:
    if with_fids and samples.fids is not None:
        return [f"{fid}{BETWEEN_NAMES}{iid}" for fid, iid in zip(samples.fids, samples.iids, strict=True)]
    return list(samples.iids)


def _refuse_ambiguous(samples: Samples, keys: Sequence[str], concerned: set[str], partner: str) -> None:
    """Raise if one of the concerned keys occurs twice among ``samples``."""
    seen: dict[str, int] = {}
    for index, key in enumerate(keys):
        earlier = seen.setdefault(key, index)
        if earlier == index or key not in concerned:
            continue
        if BETWEEN_NAMES in key or samples.fids is None:
            raise InputError(
                f"{samples.source}: sample '{key.replace(BETWEEN_NAMES, ' ')}', which is also in {partner}, is there"
                " more than once; keep one of them"
            )
        raise InputError(
            f"{samples.source}: samples '{samples.label(earlier)}' and '{samples.label(index)}' have the same IID, but"
            f" {partner} has no FID to tell them apart; add FIDs there, or make the IIDs unique"
        )
