"""The Bartlett factor: its parts against the dense Gaussian and by simulation, and what it depends on."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from dense_oracle import Array
from numpy.typing import NDArray
from scipy import linalg

from kron2sum_cli.errors import ConvergenceError
from kron2sum_cli.model import bartlett
from kron2sum_cli.model.bartlett import (
    Refit,
    SecondOf,
    Simulated,
    bartlett_factors,
    expected_shares,
    outside_rows,
)
from kron2sum_cli.model.contrasts import Contrasts, rotate_traits
from kron2sum_cli.model.fitting import Fit, climb, fit, of_rank_or_full
from kron2sum_cli.model.hypotheses import named_hypothesis
from kron2sum_cli.model.missing.observed import observed_cells
from kron2sum_cli.model.missing.refit import observed_refits
from kron2sum_cli.model.refit import Refitter, null_maxima, refitter
from kron2sum_cli.model.second_column import pair_hypotheses
from kron2sum_cli.model.spectrum import spectrum_of_features
from kron2sum_cli.model.trait_axes import TraitAxes

TRAITS = ("a", "b")
HYPOTHESES = [named_hypothesis(name, TRAITS) for name in ("any", "common", "specific", "trait:a")]


def simulated(n: int, r: int, seed: int = 0) -> tuple[Array, Array, Array]:
    """Traits, covariates and features."""
    rng = np.random.default_rng(seed)
    G = rng.normal(size=(n, r)) * np.exp(0.5 * rng.normal(size=r)) / np.sqrt(r)
    X = np.hstack([np.ones((n, 1)), rng.normal(size=(n, 1))])
    return G @ rng.normal(size=(r, 2)) + rng.normal(size=(n, 2)) @ [[1, 0.5], [0, 1]], X, G


def contrasts(n: int, r: int) -> Contrasts:
    Y, X, G = simulated(n, r)
    return rotate_traits(spectrum_of_features(G, X), Y)


def refits(n: int, r: int, reml: bool = True) -> Refitter:
    whole = contrasts(n, r)
    null = fit(whole, 2, reml)
    data = whole.without_projected() if reml else whole
    return refitter(data, null_maxima(data, null.point.axes, 2), reml)


def simulate_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten traits: enough to see what is done with them."""
    for limit in ("FEWEST_TRAITS", "MOST_TRAITS"):
        monkeypatch.setattr(bartlett, limit, 10)


@pytest.mark.parametrize("seed", [3, 4])
def test_traits_are_simulated_from_expected_shares(seed: int) -> None:
    """Against the posterior mean of each share by the dense likelihood of the contrasts, whatever the rank."""
    Y, X, G = simulated(30, 60, seed)
    whole = rotate_traits(spectrum_of_features(G, X), Y)
    data, K = whole.without_projected(), G @ G.T
    V = linalg.null_space(X.T)
    K, Z, tau = V.T @ K @ V, V.T @ Y, data.mean_eigenvalue
    for rank in (2, 1):
        null = refitter(data, null_maxima(data, fit(whole, rank, True).point.axes, rank), True).null
        axes, found = null.point.axes, expected_shares(null)
        estimated = tau * axes.c0**2

        def lml(k: int, share: float, axes: TraitAxes = axes) -> float:
            """Log-likelihood of axis k: the axes are independent of each other."""
            z, C = Z @ axes.T[k], share / tau * K + (1 - share) * np.eye(len(K))
            return float(-0.5 * (np.linalg.slogdet(C)[1] + z @ np.linalg.solve(C, z)))

        shares, expected = np.linspace(0.001, 0.999, 200), estimated.copy()
        for k in range(2):
            likelihood = np.array([lml(k, share) for share in shares])
            weights = np.exp(likelihood - likelihood.max())
            expected[k] = shares @ weights / weights.sum()
        np.testing.assert_allclose(tau * found.c0**2, np.sort(expected)[::-1], atol=0.02)
        np.testing.assert_allclose(tau * found.c0**2 + found.c1**2, 1)
        np.testing.assert_allclose(found.T @ found.Tinv, np.eye(2), atol=1e-10)


@pytest.mark.parametrize("rank", [1, 2])
def test_simulated_traits_have_the_rank_that_is_chosen(rank: int) -> None:
    """That of the null model, 1, or full rank where C0 that they come from has it."""
    rng, loadings = np.random.default_rng(5), np.array([[1.0, 0.5], [0.5, 1.0]])[:rank]
    G = rng.normal(size=(200, 50)) / np.sqrt(50)
    Y = 2 * G @ rng.normal(size=(50, rank)) @ loadings + rng.normal(size=(200, 2))
    data = rotate_traits(spectrum_of_features(G, np.ones((200, 1))), Y)
    start = fit(data, 2, reml=True).point.axes
    found = of_rank_or_full(1, 2, lambda k: climb(data, start, k, reml=True))
    assert found.rank == rank
    assert found.one_sided_aic == min(fit(data, k, reml=True).one_sided_aic for k in (1, 2))


def test_a_chosen_rank_has_about_the_factor_of_full_rank() -> None:
    """Where simulated traits were all fitted with rank 1, it was 1.23 instead of 1.10."""
    whole = contrasts(62, 120)
    data = whole.without_projected()
    of_ranks = [refitter(data, null_maxima(data, fit(whole, k, True).point.axes, k), True) for k in (1, 2)]
    lower, full = (bartlett_factors(one, HYPOTHESES[:1], 1)[0] for one in of_ranks)
    assert lower == pytest.approx(full, abs=0.05)


def test_without_relatedness_there_is_no_share() -> None:
    null = fit(contrasts(30, 60), 0, reml=True)
    assert expected_shares(null) is null.point.axes


def test_shares_at_a_boundary_are_not_simulated() -> None:
    """An estimate of 0 or 1 of few samples."""
    G = np.linalg.qr(np.random.default_rng(1).normal(size=(40, 40)))[0] * np.sqrt(np.linspace(0.2, 2, 40))
    noise = np.random.default_rng(3).normal(size=(40, 2))
    data = rotate_traits(spectrum_of_features(G, np.ones((40, 1))), np.stack([noise[:, 0], G @ noise[:, 1]], axis=1))
    null = fit(data, 2, reml=True)
    assert np.any((null.point.axes.c0 == 0) | (null.point.axes.c1 == 0))
    contrasts_alone = data.without_projected()
    found = expected_shares(null_maxima(contrasts_alone, null.point.axes, 2)[0])
    assert np.all((found.c1**2 > 0.02) & (found.c1**2 < 0.98))


@pytest.mark.parametrize("r", [100, 15])
def test_what_is_known_of_simulated_traits(r: int) -> None:
    """The χ² has mean d, and its control variates mean 0: also where rows outside the rotation are not drawn."""
    fitter, rng = refits(40, r), np.random.default_rng(3)
    assert (fitter.data.noutside > 2) == (r == 15)
    truths = [fitter.simulated(fitter.null.point.axes, rng).at_truth for _ in range(100)]
    for hypothesis in HYPOTHESES[:2]:
        for values, mean in (
            (np.array([truth.chisq(hypothesis.full).mean() for truth in truths]), hypothesis.df),
            *(
                (np.array(one), 0)
                for one in zip(*(t.controls(hypothesis.full).mean(axis=1) for t in truths), strict=True)
            ),
        ):
            assert abs(values.mean() - mean) < 4 * values.std() / np.sqrt(len(values))


def test_rows_that_are_not_drawn() -> None:
    """RᵀR is a Wishart matrix: its mean, and the variances of its entries."""
    rng = np.random.default_rng(2)
    drawn = np.array([R.T @ R for R in (outside_rows(rng, 9, 3) for _ in range(4000))])
    np.testing.assert_allclose(drawn.mean(axis=0), 9 * np.eye(3), atol=0.3)
    np.testing.assert_allclose(drawn.var(axis=0), 9 * (np.ones((3, 3)) + np.eye(3)), rtol=0.15)
    assert outside_rows(rng, 2, 3).shape == (2, 3)


def test_a_factor_is_that_of_plain_simulation() -> None:
    """The mean likelihood ratio of simulated traits, without what is known of them, to its own error."""
    fitter, rng, hypotheses = refits(62, 120), np.random.default_rng(5), HYPOTHESES[2:]
    factors = bartlett_factors(fitter, hypotheses, 1)
    truth = expected_shares(fitter.null)
    simulations = [fitter.simulated(truth, rng) for _ in range(40)]
    for hypothesis, factor in zip(hypotheses, factors, strict=True):
        ratios = [
            2 * np.mean(one.lml(hypothesis.full) - one.lml(hypothesis.base)) / hypothesis.df for one in simulations
        ]
        assert abs(np.mean(ratios) - factor) < 3 * np.std(ratios) / np.sqrt(len(ratios))
    assert np.all(factors > 1.02)


def test_the_seed_decides() -> None:
    fitter = refits(150, 300)
    first = bartlett_factors(fitter, HYPOTHESES[:1], 1)
    np.testing.assert_array_equal(bartlett_factors(fitter, HYPOTHESES[:1], 1), first)
    other = bartlett_factors(fitter, HYPOTHESES[:1], 2)
    assert first != other
    np.testing.assert_allclose(first, other, atol=0.06)


def test_many_samples_need_no_factor() -> None:
    np.testing.assert_allclose(bartlett_factors(refits(500, 400), HYPOTHESES[:1], 1), 1.0, atol=0.03)


def test_plain_maximum_likelihood_has_no_factor() -> None:
    np.testing.assert_array_equal(bartlett_factors(refits(40, 100, reml=False), HYPOTHESES, 1), np.ones(4))


def test_observed_cells_have_about_the_same_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a missing cell: that of complete traits. With some: of fewer samples."""
    Y, X, G = simulated(60, 120)
    spectrum = spectrum_of_features(G, np.empty((60, 0)))
    complete = bartlett_factors(refits(60, 120), HYPOTHESES[:1], 1)

    def factor(missing: float) -> float:
        holes = np.random.default_rng(6).uniform(size=Y.shape) < missing
        cells = observed_cells(spectrum, np.where(holes, np.nan, Y), np.eye(2), X)
        start = fit(rotate_traits(spectrum_of_features(G, X), Y), 2, reml=True).point.axes
        fitter = observed_refits(cells, start, 2, reml=True)
        return float(bartlett_factors(fitter, HYPOTHESES[:1], 1)[0])

    assert factor(0) == pytest.approx(float(complete[0]), abs=0.06)
    simulate_few(monkeypatch)
    assert 1.0 < factor(0.2) < 1.3


@dataclass(frozen=True)
class Failing:
    """Refits of which a share of the simulated variants ends at no maximum: those with a large likelihood ratio.

    Where the share is NaN none can be fitted.
    """

    refits: Refitter
    share: float
    reml: bool = True
    null_lml: float = 0.0

    @property
    def null(self) -> Fit:
        return self.refits.null

    def of_variants(self, G: NDArray[np.floating], outside: Array) -> Callable[[Array], Refit]:
        raise NotImplementedError

    def of_pairs(self, G: NDArray[np.floating], H: NDArray[np.floating], Q: NDArray[np.floating]) -> Refit:
        raise NotImplementedError

    def simulated(self, truth: TraitAxes, rng: np.random.Generator, second: SecondOf | None = None) -> Simulated:
        whole = self.refits.simulated(truth, rng, second)

        def refit(design: Array) -> Refit:
            if np.isnan(self.share):
                raise np.linalg.LinAlgError
            found = whole.refit(design)
            failed = (
                found.lml > np.quantile(found.lml, 1 - self.share) if self.share else np.zeros(found.lml.size, bool)
            )
            return replace(found, lml=np.where(failed, np.nan, found.lml))

        return replace(whole, refit=refit)


def test_refits_that_mostly_fail_have_no_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    """The few that are left have small likelihood ratios, and gave factors as small as -0.02."""
    simulate_few(monkeypatch)
    known = refits(62, 120)
    np.testing.assert_array_equal(
        bartlett_factors(Failing(known, 0.0), HYPOTHESES[:1], 1), bartlett_factors(known, HYPOTHESES[:1], 1)
    )
    for share in (0.8, np.nan):
        with pytest.raises(ConvergenceError, match="too few traits"):
            bartlett_factors(Failing(known, share), HYPOTHESES[:1], 1)


@pytest.mark.parametrize("reml", [True, False])
def test_factors_of_second_columns(reml: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are those of plain simulation, and what is known of both columns has the right means."""
    simulate_few(monkeypatch)  # known better than the means below
    E = np.random.default_rng(4).normal(size=62)
    fitter, rng, pairs = refits(62, 120, reml), np.random.default_rng(5), pair_hypotheses("interaction", "joint", 2)
    assert [hypothesis.df for hypothesis in pairs] == [2, 4]
    factors = bartlett_factors(fitter, [*HYPOTHESES[:1], *pairs], 1, lambda G: G * E[:, None])
    if not reml:
        np.testing.assert_array_equal(factors, np.ones(3))
        return
    truth = expected_shares(fitter.null)
    simulations = [fitter.simulated(truth, rng, lambda G: G * E[:, None]) for _ in range(15)]
    for hypothesis, factor in zip(pairs, factors[1:], strict=True):
        base, full, df = hypothesis.base, hypothesis.full, hypothesis.df
        truths = [one.truth_of(full) for one in simulations]
        known = np.array([np.mean(truth.chisq(full) - truth.chisq(base)) for truth in truths])
        first, second = np.transpose([(t.controls(full) - t.controls(base)).mean(axis=1) for t in truths])
        ratios = np.array([2 * np.mean(one.lml(full) - one.lml(base)) / df for one in simulations])
        for values, mean in ((known, df), (first, 0), (second, 0), (ratios, factor)):
            assert abs(values.mean() - mean) < 4 * values.std() / np.sqrt(len(values))
    assert np.all(factors[1:] > 1.02)
