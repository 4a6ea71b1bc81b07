"""The hypotheses that ``--test`` asks for."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.files.inputs import display_name
from kron2sum_cli.files.text import not_a_number, parse_number, read_text, split_rows
from kron2sum_cli.model.hypotheses import Hypothesis, hypothesis, named_hypothesis
from kron2sum_cli.option_values import contrast_files


def read_trait_design(path: str, traits: Sequence[str]) -> NDArray[np.float64]:
    """Read a (p, e) matrix: a header, then a row a trait that begins with its name, in any order.

    Raises InputError for a trait that is missing, unknown or named twice, a row of another length, a value that is not
    a number.
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
    if header.fields[0] in absent:
        raise InputError(
            f"{path}, line {header.line}: begins with the trait {header.fields[0]}, and is read as names of columns;"
            " put such a line before it, as trait,contrast"
        )
    if absent:
        raise InputError(f"{path}: has no row for trait {absent[0]}; give every trait one (zeros are allowed)")
    if len(header.fields) < 2:
        raise InputError(f"{path}, line {header.line}: there is no column beside the trait names")
    return np.array([found[trait] for trait in traits])


def _number(value: str, place: str) -> float:
    try:
        number = parse_number(value)
    except ValueError:
        raise InputError(f"{place}: {not_a_number(value)}") from None
    if not np.isfinite(number):
        raise InputError(f"{place}: {value} is not a finite number")
    return number


def asked_hypotheses(tests: Sequence[str], traits: Sequence[str], Tinv: NDArray[np.float64]) -> list[Hypothesis]:
    """Hypotheses in the order given, without the any-effect test.

    ``NAME=FILE`` is a (p, e) contrast. ``NAME=FILE0,FILE1`` has two nested designs A0 and A1, and gives three tests:
    ``NAME.h1`` (A0), ``NAME.h2`` (A0 and A1), and ``NAME`` (A1 given A0). Raises InputError, NumericalError where a
    file is wrong, or a design has no rank.
    """
    found: list[Hypothesis] = []
    for text in tests:
        name = text.partition("=")[0]
        designs = [read_trait_design(path, traits) for path in contrast_files(text)]
        if len(designs) == 1:
            found.append(hypothesis(name, designs[0]))
        elif designs:
            first, second = designs
            found.append(hypothesis(f"{name}.h1", first))
            found.append(hypothesis(f"{name}.h2", np.hstack([first, second])))
            found.append(hypothesis(name, second, first))
        elif text != "any":
            found.append(named_hypothesis(text, traits, Tinv))
    return found
