"""Choosing the columns of a table by the names that a user gave."""

import difflib
from collections.abc import Mapping, Sequence

from kron2sum_cli.errors import InputError, UsageError

SUGGEST_AMONG = 10_000
"""Near spellings are looked for among no more names than this: it takes seconds beyond."""

LIST_AT_MOST = 10
"""A message lists no more columns than this."""


def choose_columns(
    wanted: Sequence[str], columns: Sequence[str], option: str, place: str, what: str = "column"
) -> tuple[int, ...]:
    """Positions of the columns that an option names.

    A name that is not literally there but reads ``a-c`` stands for the columns from a to c in the order
    of the file, as for plink2.

    Parameters
    ----------
    wanted : sequence of str
        Names and ranges, in the order wanted.
    columns : sequence of str
        All names in the file, each once.
    option, place, what : str
        For messages: the option that named them, file and line of the header, and "column" or "trait".

    Raises
    ------
    InputError
        A column is not there (near spellings are named), a range runs backwards or can be read in two ways.
    UsageError
        A column is chosen twice.
    """
    positions = {name: index for index, name in enumerate(columns)}
    chosen: dict[int, None] = {}
    for name in wanted:
        for index in _resolve(name, positions, option, place, what):
            if index in chosen:
                raise UsageError(f"{option} chooses the {what} '{columns[index]}' twice; name it once")
            chosen[index] = None
    return tuple(chosen)


def _resolve(name: str, positions: Mapping[str, int], option: str, place: str, what: str) -> Sequence[int]:
    """The columns that one name or one range stands for."""
    if name in positions:
        return (positions[name],)
    hyphens = [i for i, character in enumerate(name) if character == "-"]
    ends = [(name[:i], name[i + 1 :]) for i in hyphens]
    ranges = [(a, b) for a, b in ends if a in positions and b in positions]
    if not ranges:
        raise InputError(f"{place}: there is no {what} '{name}' ({option}); {_advice(name, positions, what)}")
    if len(ranges) > 1:
        raise InputError(f"{place}: '{name}' ({option}) can be read as several ranges; name each {what}")
    first, last = ranges[0]
    if positions[first] > positions[last]:
        raise InputError(f"{place}: '{name}' ({option}) runs backwards; write '{last}-{first}'")
    return range(positions[first], positions[last] + 1)


def _advice(name: str, positions: Mapping[str, int], what: str) -> str:
    """What to write instead of a name that is not there."""
    near = [column for column in positions if column.casefold() == name.casefold()]
    if not near and len(positions) <= SUGGEST_AMONG:
        near = difflib.get_close_matches(name, positions)
    if near:
        return "did you mean " + " or ".join(f"'{column}'" for column in near[:LIST_AT_MOST]) + "?"
    listed = ", ".join(list(positions)[:LIST_AT_MOST])
    more = f" and {len(positions) - LIST_AT_MOST} more" if len(positions) > LIST_AT_MOST else ""
    return f"the {what}s are {listed}{more}"
