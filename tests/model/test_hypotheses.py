"""Tests by name."""

import numpy as np
import pytest

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.hypotheses import hypothesis, named_hypothesis

TRAITS = ("height", "weight", "glucose")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "must be any, common, specific"),
        ("axis:4", r"K from 1 to 3"),
        ("trait:heigth", "there is no trait heigth; did you mean height"),
        ("only:height|weight", "only:NAME takes one trait"),
        ("trait:height|", "there is no trait ;"),
        ("trait:height|weight,height", "height is on both sides of the bar"),
    ],
)
def test_names_that_mean_nothing_are_refused(name: str, message: str) -> None:
    with pytest.raises(NumericalError, match=message):
        named_hypothesis(name, TRAITS, np.eye(3))


def test_designs_without_rank_are_refused() -> None:
    ones = np.ones((3, 1))
    with pytest.raises(NumericalError, match="test zero: its design has no rank$"):
        hypothesis("zero", np.zeros((3, 2)))
    with pytest.raises(NumericalError, match="no rank beyond the design it is tested against"):
        hypothesis("again", 2 * ones, ones)
    with pytest.raises(NumericalError, match="test specific: its design has no rank beyond"):
        named_hypothesis("specific", TRAITS[:1])
    assert hypothesis("repeated", np.hstack([ones, ones])).df == 1
