"""Contrasts and trait designs as files."""

from pathlib import Path

import numpy as np
import pytest

from kron2sum_cli.errors import InputError
from kron2sum_cli.files.trait_design import read_trait_design

TRAITS = ("t", "u v", "w")


@pytest.mark.parametrize(
    "text",
    [
        "trait,c,d\nw,3,0\nt,1,-1.5\nu v,2,0\n",
        "trait\tc\td\nt\t1\t-1.5\nu v\t2\t0\nw\t3\t0\n",
        "trait;c;d\nw;3;0\nt;1;-1,5\nu v;2,0;0\n",
    ],
)
def test_rows_are_put_in_the_order_of_the_traits(tmp_path: Path, text: str) -> None:
    (tmp_path / "c").write_text(text)
    np.testing.assert_array_equal(read_trait_design(str(tmp_path / "c"), TRAITS), [[1, -1.5], [2, 0], [3, 0]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("t,1\nu v,0\nw,-1\n", "c, line 1: begins with the trait t, and is read as names of columns; put such a line"),
        ("t,c\nt,1\nu v,0\n", "c: has no row for trait w; give every trait one"),
        ("trait,c\nt,1\nu v,0\nw,1\nx,1\n", "c, line 5: x is not a trait of the model, which has t, u v, w"),
        ("trait,c\nt,1\nt,0\n", "c, line 3: trait t is there twice"),
        ("trait,c\nt,1,2\n", "c, line 2: 2 values; the header has 1 columns"),
        ("trait,c\nt,NA\n", "c, line 2: 'NA' is not a number"),
        ("trait\tc\nt\t0,5\n", "c, line 2: '0,5' is not a number; write numbers with a decimal point"),
        ("trait,c\nt,inf\n", "c, line 2: inf is not a finite number"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c").write_text(text)
    with pytest.raises(InputError, match=message):
        read_trait_design(str(tmp_path / "c"), TRAITS)
