"""Matrices with one row a trait: the trait design A of the null model and contrasts of tests."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.tables.text import display_name, parse_number, read_text, split_rows


def read_trait_design(path: str, traits: Sequence[str]) -> NDArray[np.float64]:
    """Read a (p, e) matrix: a header, then a row a trait that begins with its name, in any order.

    Raises
    ------
    InputError
        For a trait that is missing, unknown or named twice, a row of another length, a value that is not a number.
    """
    header, *rows = split_rows(read_text(path), path)
    path = display_name(path)
    found: dict[str, list[float]] = {}
    for row in rows:
        name, *values = row.fields
        place = f"{path}, line {row.line}"
        if name not in traits:
            raise InputError(f"{place}: {name} is not a trait of the model, which has {', '.join(traits)}")
        if name in found:
            raise InputError(f"{place}: trait {name} is there twice")
        if len(values) != len(header.fields) - 1:
            raise InputError(f"{place}: {len(values)} values; the header has {len(header.fields) - 1} columns")
        found[name] = [_number(value, place) for value in values]
    absent = [trait for trait in traits if trait not in found]
    if absent:
        raise InputError(f"{path}: has no row for trait {absent[0]}; give every trait one (zeros are allowed)")
    if len(header.fields) < 2:
        raise InputError(f"{path}, line {header.line}: there is no column beside the trait names")
    return np.array([found[trait] for trait in traits])


def _number(value: str, place: str) -> float:
    try:
        number = parse_number(value)
    except ValueError:
        raise InputError(f"{place}: {value!r} is not a number") from None
    if not np.isfinite(number):
        raise InputError(f"{place}: {value} is not a finite number")
    return number
