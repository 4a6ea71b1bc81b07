"""Profile-likelihood intervals against a search over the dense likelihood with plain unknowns."""

from itertools import product

import numpy as np
import pytest
from dense_oracle import Array, Data, Dense
from scipy import optimize, stats

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model import profile
from kron2sum_cli.model.contrasts import rotate_traits
from kron2sum_cli.model.fitting import fit
from kron2sum_cli.model.likelihood import Point
from kron2sum_cli.model.profile import heritability_interval
from kron2sum_cli.model.spectrum import Spectrum, spectrum_of_features
from kron2sum_cli.model.uncertainty import estimates_of

N = 50
FALL = stats.chi2.ppf(0.95, 1) / 2


def simulated(seed: int, p: int, h: float, r: int = 70) -> Data:
    """Traits that all have heritability h, correlated by 0.4 in both parts."""
    rng = np.random.default_rng(seed)
    G = rng.gamma(1.0, size=N)[:, None] * rng.normal(size=(N, r)) / np.sqrt(r)
    G /= np.sqrt(np.mean(np.sum(G**2, axis=1)))
    root = np.linalg.cholesky(0.6 * np.eye(p) + 0.4)
    genetic = G @ rng.normal(size=(r, p)) @ root.T
    Y = np.sqrt(h) * genetic + np.sqrt(1 - h) * rng.normal(size=(N, p)) @ root.T
    return Data(Y, np.eye(p), np.ones((N, 1)), G)


def fitted(data: Data, reml: bool, rank: int | None = None) -> tuple[Spectrum, Point]:
    spectrum = spectrum_of_features(data.G, data.X)
    return spectrum, fit(rotate_traits(spectrum, data.Y), rank or data.Y.shape[1], reml).point


def dense_profile(data: Data, reml: bool, mean_diagonal: float, h: float, start: Array) -> float:
    """The highest likelihood of two traits when the first has heritability h; unknowns: variances and correlations."""

    def negative(x: Array) -> float:
        v, a, b = np.exp(x[:3])
        rg, re = np.tanh(x[3:])
        first0, first1 = v * h / mean_diagonal, v * (1 - h)
        c0, c1 = rg * np.sqrt(first0 * a), re * np.sqrt(first1 * b)
        C0, C1 = np.array([[first0, c0], [c0, a]]), np.array([[first1, c1], [c1, b]])
        return -Dense(data, C0, C1).lml(reml)

    return -float(optimize.minimize(negative, start, method="BFGS", options={"gtol": 1e-4}).fun)


@pytest.mark.parametrize("reml", [True, False])
def test_the_likelihood_falls_by_half_the_quantile_at_both_ends(reml: bool) -> None:
    data = simulated(2, 2, 0.6)
    spectrum, point = fitted(data, reml)
    interval = heritability_interval(point, 0, spectrum.mean_diagonal, 2)
    C0, C1 = point.axes.C0, point.axes.C1
    correlations = [np.arctanh(C[0, 1] / np.sqrt(C[0, 0] * C[1, 1])) for C in (C0, C1)]
    start = np.array([np.log(C0[0, 0] + C1[0, 0]), np.log(C0[1, 1]), np.log(C1[1, 1]), *correlations])
    assert 0 < interval.low < interval.high < 1 and not interval.at_boundary
    for end in (interval.low, interval.high):
        value = dense_profile(data, reml, spectrum.mean_diagonal, end, start)
        assert point.lml - value == pytest.approx(FALL, abs=2e-3)


def test_one_trait_has_its_two_variances_only() -> None:
    data = simulated(1, 1, 0.5)
    spectrum, point = fitted(data, True)
    interval = heritability_interval(point, 0, spectrum.mean_diagonal, 1, level=0.9)

    def lml(h: float) -> float:
        def negative(log_variance: float) -> float:
            v = np.exp(log_variance)
            return -Dense(data, np.array([[v * h / spectrum.mean_diagonal]]), np.array([[v * (1 - h)]])).lml(True)

        return -float(optimize.minimize_scalar(negative, bounds=(-3, 3), method="bounded").fun)

    for end in (interval.low, interval.high):
        assert point.lml - lml(end) == pytest.approx(stats.chi2.ppf(0.9, 1) / 2, abs=1e-3)


@pytest.mark.parametrize(("h", "boundary"), [(0.0, 0.0), (1.0, 1.0)])
@pytest.mark.parametrize("p", [1, 2])
def test_ends_at_the_boundary(h: float, boundary: float, p: int) -> None:
    spectrum, point = fitted(simulated(4, p, h), True)
    for trait in range(p):
        interval = heritability_interval(point, trait, spectrum.mean_diagonal, p)
        assert interval.at_boundary
        assert boundary in (interval.low, interval.high)
        assert interval.low < interval.high


def test_ends_before_1_where_relatedness_cannot_explain_everything() -> None:
    spectrum, point = fitted(simulated(4, 2, 0.95, r=20), True)
    interval = heritability_interval(point, 0, spectrum.mean_diagonal, 2)
    assert interval.low < interval.high < 1 and not interval.at_boundary


def test_the_scale_and_the_order_of_traits_do_not_matter() -> None:
    data = simulated(6, 3, 0.6)
    spectrum, point = fitted(data, True)
    one = [heritability_interval(point, t, spectrum.mean_diagonal, 3) for t in (0, 2)]
    other_data = Data((data.Y * [1e5, 1.0, 1e-5])[:, ::-1], data.A, data.X, data.G)
    spectrum, point = fitted(other_data, True)
    other = [heritability_interval(point, t, spectrum.mean_diagonal, 3) for t in (2, 0)]
    for a, b in zip(one, other, strict=True):
        assert (a.low, a.high) == pytest.approx((b.low, b.high), abs=1e-3)


@pytest.mark.parametrize(("seed", "rank"), list(product((1, 2), (1, 2, 3))))
def test_intervals_hold_the_estimate_and_widen_with_the_level(seed: int, rank: int) -> None:
    spectrum, point = fitted(simulated(seed, 3, 0.6), True, rank)
    data = point.data
    e = estimates_of(point, spectrum.Qx, rank, spectrum.mean_diagonal, np.eye(3), np.ones((data.nsamples, 1)))
    narrow, wide = (heritability_interval(point, 1, spectrum.mean_diagonal, rank, level) for level in (0.5, 0.95))
    assert wide.low <= narrow.low <= e.h2[1] <= narrow.high <= wide.high


def test_near_the_estimate_the_interval_is_that_of_the_standard_error() -> None:
    spectrum, point = fitted(simulated(2, 3, 0.6), True)
    e = estimates_of(point, spectrum.Qx, 3, spectrum.mean_diagonal, np.eye(3), np.ones((N, 1)))
    level = 0.02
    width = np.sqrt(stats.chi2.ppf(level, 1))
    for trait in range(3):
        interval = heritability_interval(point, trait, spectrum.mean_diagonal, 3, level)
        assert (interval.high - interval.low) / 2 == pytest.approx(width * e.h2_se[trait], rel=0.01)


def test_questions_without_an_answer() -> None:
    _, point = fitted(simulated(2, 2, 0.6), True)
    with pytest.raises(NumericalError, match="trait 2 is not one of the model's 2 traits"):
        heritability_interval(point, 2, 1.0, 2)
    with pytest.raises(NumericalError, match="must lie between 0 and 1; it is 1"):
        heritability_interval(point, 0, 1.0, 2, level=1.0)


def test_a_search_that_fails_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    spectrum, point = fitted(simulated(2, 2, 0.6), True)
    monkeypatch.setattr(profile, "MAX_ITERATIONS", 0)
    with pytest.raises(NumericalError, match="could not be maximised"):
        heritability_interval(point, 0, spectrum.mean_diagonal, 2, level=1e-12)
