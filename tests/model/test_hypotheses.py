"""Tests by name, and what a design takes off the quadratic form."""

import numpy as np
import pytest

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.hypotheses import (
    TestContext,
    hypothesis,
    named_hypothesis,
    reduction,
    score_and_information,
    trait_effects,
)

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


@pytest.mark.parametrize("e", range(1, 7))
def test_reduction_is_that_of_the_definition_whatever_the_rank(e: int) -> None:
    """Traits of very different units, with and without the short way over what a design leaves out."""
    rng = np.random.default_rng(e)
    p, b = 6, 4
    T = rng.normal(size=(p, p)) / 10.0 ** np.arange(-2, 4)
    u, v, design = rng.normal(size=(b, p)), rng.gamma(3, size=(b, p)), rng.normal(size=(p, e))
    bases = [np.linalg.qr(np.sqrt(v[k])[:, None] * (T @ design))[0] for k in range(b)]
    expected = [np.sum((bases[k].T @ (u[k] / np.sqrt(v[k]))) ** 2) for k in range(b)]
    np.testing.assert_allclose(reduction(u, v, design, T), expected, rtol=1e-8)
    full = v[:, :, None] * np.eye(p)
    np.testing.assert_allclose(reduction(u, full, design, T), expected, rtol=1e-8)


def test_names_of_traits_may_have_bars() -> None:
    names = ("a|b", "c", "d|e|f")
    for text, tested, given in (
        ("trait:a|b", [0], [1, 2]),
        ("trait:a|b|c", [0], [2]),
        ("trait:c|a|b", [1], [2]),
        ("trait:d|e|f|a|b,c", [2], []),
    ):
        found = named_hypothesis(text, names)
        expected = hypothesis(text, np.eye(3)[:, tested], np.eye(3)[:, given])
        np.testing.assert_array_equal(found.full, expected.full)
        np.testing.assert_array_equal(found.base, expected.base)
    only = named_hypothesis("only:d|e|f", names)
    np.testing.assert_array_equal(only.full, named_hypothesis("trait:d|e|f|a|b,c", names).full)
    with pytest.raises(NumericalError, match=r"there is no trait a; there are a\|b"):
        named_hypothesis("trait:a|c", names)


def test_units_of_traits_decide_neither_rank_nor_digits_of_a_contrast() -> None:
    rng = np.random.default_rng(7)
    units, A0, A1 = np.array([1e8, 1.0, 1e-4, 1e6]), rng.normal(size=(4, 1)), rng.normal(size=(4, 2))
    u, v, T = rng.normal(size=(3, 4)), rng.gamma(3, size=(3, 4)), rng.normal(size=(4, 4))
    same = hypothesis("same", A1, A0)
    for sizes in (units, 1 / units):
        other = hypothesis("other", sizes[:, None] * A1, sizes[:, None] * A0)
        assert (other.df, other.full.shape[1]) == (2, 3)
        for one, two in ((same.base, other.base), (same.full, other.full)):
            np.testing.assert_allclose(reduction(u, v, two, T / sizes), reduction(u, v, one, T), rtol=1e-12)
    with pytest.raises(NumericalError, match="no rank beyond"):
        hypothesis("again", units[:, None] * A1 @ rng.normal(size=(2, 2)), units[:, None] * A1)
    rounding = np.vstack([np.outer([1.0, 2.0], [1.0, 3.0]), [1e-17, -1e-17]])
    assert hypothesis("with a row of rounding", rounding).df == 1


def test_effects_on_traits_keep_those_along_every_axis() -> None:
    """Also where traits are nearly multiples of each other, as offsets make them that no trait design fits."""
    rng = np.random.default_rng(2)
    T = np.diag([1e-7, 1.0, 1.0]) @ np.array([[1.0, 1.0, 1.0], [1.0, -1.0, 0.0], [1.0, 1.0, -2.0]])
    roots = rng.normal(size=(4, 3, 6))
    u, v = rng.normal(size=(4, 3)), roots @ roots.transpose(0, 2, 1)
    along = np.stack([np.linalg.solve(*one) for one in zip(v, u, strict=True)])
    context = TestContext(T, 100.0, 90, 90)
    found = trait_effects(u, v, np.linalg.inv(T), context)
    np.testing.assert_allclose(found.beta @ T.T, along, rtol=1e-6)
    again, _ = score_and_information(found.beta, v, T)  # as export has them from a table
    np.testing.assert_allclose(again, u, rtol=1e-6)
