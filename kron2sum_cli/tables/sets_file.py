"""Sets of variants to test together."""

from dataclasses import dataclass

from kron2sum_cli.errors import InputError
from kron2sum_cli.tables.text import read_text, split_rows


@dataclass(frozen=True)
class VariantSet:
    """One set: its name, its members (variant names or regions ``chr:from-to``), and its line in the file."""

    name: str
    members: tuple[str, ...]
    line: int


def read_sets(path: str) -> list[VariantSet]:
    """Read sets, one a line: the name, then variants or regions, separated by white space or commas.

    A line whose name was there before adds to that set.

    Raises
    ------
    InputError
        For a line without members, or a file without lines.
    """
    sets: dict[str, VariantSet] = {}
    for row in split_rows(read_text(path), path, " "):
        name, *fields = row.fields
        members = tuple(member for field in fields for member in field.split(",") if member)
        if not members:
            raise InputError(f"{path}, line {row.line}: set {name} has no variants; put them behind its name")
        earlier = sets.get(name)
        sets[name] = (
            VariantSet(name, (*earlier.members, *members), earlier.line)
            if earlier
            else VariantSet(name, members, row.line)
        )
    if not sets:
        raise InputError(f"{path}: has no sets; give one a line, its name and then its variants")
    return list(sets.values())
