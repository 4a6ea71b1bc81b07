"""-log10 p against mpmath, from p near 1 to 10^-10000."""

import mpmath
import numpy as np
import pytest

from kron2sum_cli.model.tail_probability import chi2_mlog10p, chi2_of_mlog10p, f_mlog10p

mpmath.mp.dps = 60


@pytest.mark.parametrize("df", [1, 2, 3, 5, 20, 100])
def test_chi_square_tails(df: int) -> None:
    xs = np.concatenate(
        [[1e-4, 1e-2, 0.1, 0.3, 1, 3, 10, 100], df * np.array([0.5, 1, 2.0]), [900, 1e3, 1e4, 46_100, 1e5]]
    )
    found = chi2_mlog10p(xs, df)
    for x, value in zip(xs, found, strict=True):
        expected = -mpmath.log10(mpmath.gammainc(mpmath.mpf(df) / 2, mpmath.mpf(float(x)) / 2, regularized=True))
        assert abs(value - expected) <= 1e-10 * expected + 1e-55  # the digits that mpmath works with


@pytest.mark.parametrize(("df1", "df2"), [(1, 100), (2, 2390), (5, 9700), (50, 2000), (2, 40_000)])
@pytest.mark.parametrize("mlog10p", [0.01, 0.3, 1, 10, 150, 199, 201, 300, 1000, 9900])
def test_f_tails(df1: int, df2: int, mlog10p: float) -> None:
    statistic = float((mpmath.power(10, mpmath.mpf(mlog10p) * 2 / df2) - 1) * df2 / df1)
    z = mpmath.mpf(df2) / (df2 + df1 * mpmath.mpf(statistic))
    expected = -mpmath.log10(mpmath.betainc(mpmath.mpf(df2) / 2, mpmath.mpf(df1) / 2, 0, z, regularized=True))
    assert abs(f_mlog10p([statistic], df1, df2)[0] - expected) <= 1e-10 * expected + 1e-55


def test_edges() -> None:
    assert chi2_mlog10p([0.0], 1)[0] == 0 == chi2_mlog10p([0.0], 3)[0]
    assert np.isnan(chi2_mlog10p([np.nan], 1)[0])
    assert np.isnan(chi2_mlog10p([np.nan], 2)[0])
    assert chi2_mlog10p([-1e-12], 2)[0] == 0
    assert f_mlog10p([0.0], 2, 100)[0] == 0


def test_far_tails_go_on_increasing() -> None:
    xs = np.linspace(800, 1200, 4001)
    for df in (1, 2, 7):
        assert (np.diff(chi2_mlog10p(xs, df)) > 0).all()


@pytest.mark.parametrize("df", [1, 2, 5, 40])
def test_chi_square_of_its_p(df: int) -> None:
    chisq = df * np.array([0.5, 1.0, 3.0]) + np.array([[0.0], [900.0], [950.0], [3000.0], [1e5]])
    found = chi2_of_mlog10p(chi2_mlog10p(chisq, df), df)
    np.testing.assert_allclose(found, chisq, rtol=1e-7)
    assert np.isnan(chi2_of_mlog10p(np.array([np.nan]), df)).all()
