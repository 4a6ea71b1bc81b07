"""The hypotheses that ``--test`` asks for."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.model.hypotheses import Hypothesis, hypothesis, named_hypothesis
from kron2sum_cli.pipeline.hypothesis_names import contrast_files
from kron2sum_cli.tables.trait_design import read_trait_design


def asked_hypotheses(tests: Sequence[str], traits: Sequence[str], Tinv: NDArray[np.float64]) -> list[Hypothesis]:
    """Hypotheses in the order given, without the any-effect test.

    ``NAME=FILE`` is a (p, e) contrast. ``NAME=FILE0,FILE1`` has two nested designs A0 and A1, and gives three tests:
    ``NAME.h1`` (A0), ``NAME.h2`` (A0 and A1), and ``NAME`` (A1 given A0).

    Raises
    ------
    InputError, NumericalError
        Where a file is wrong, or a design has no rank.
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
