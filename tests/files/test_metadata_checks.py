"""What a result table says of its making, checked when it is opened."""

import numpy as np
import pytest

from kron2sum_cli.files.metadata_checks import check_metadata


def of_axes(axes: np.ndarray) -> dict:
    return {"version": "1", "traits": [f"t{k}" for k in range(len(axes))], "axes": axes.tolist()}


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_axes_of_many_traits_in_any_unit(unit: float) -> None:
    """The determinant of 100 axes is below the smallest double where traits have a standard deviation of 10⁴."""
    check_metadata(of_axes(unit * np.random.default_rng(0).normal(size=(100, 100))))


def test_singular_axes_are_refused() -> None:
    with pytest.raises(ValueError, match="axes are singular"):
        check_metadata(of_axes(np.zeros((2, 2))))
