"""Loci and their signals, chosen one after the other."""

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from made_up import TRAITS, GenotypesInMemory, N, null_model, scan_of, trait_data

from kron2sum_cli.errors import NumericalError
from kron2sum_cli.files.scan_metadata import NullScale
from kron2sum_cli.model.null_model import TraitData, null_likelihood, rotate_samples
from kron2sum_cli.scan.nulls import KnownNull
from kron2sum_cli.scan.stepwise import ConditionalTests, Signal, loci_of
from kron2sum_cli.settings import ScanSettings

FAR = 10**6


def made_up_traits(G: np.ndarray, effects: dict[int, float]) -> TraitData:
    """Traits with effects of some variants on the first of them."""
    data = trait_data()
    Y = data.Y.copy()
    for k, effect in effects.items():
        Y[:, 0] += effect * G[:, k]
    return replace(data, Y=Y)


def given_tests(G: np.ndarray, data: TraitData, width: int = 5) -> ConditionalTests:
    source = GenotypesInMemory(G.astype(np.float32), ["1"] * G.shape[1])
    model, scan = null_model(data), scan_of(source, data)
    size = data.nobserved - data.neffects
    scale = NullScale(None, model.summary.axes.T, model.summary.quadratic, size, size)
    settings = ScanSettings(stepwise=1e-4, precision="double")
    known = KnownNull(model.summary, scale)
    return ConditionalTests(settings, scan, model, scale, known, data, np.empty((N, 0)), width)


def loci(tests: ConditionalTests, places: Any, window: int = 1000, least: float = 4.0) -> list[list[Signal]]:
    every, done = np.arange(len(places)), list[int]()
    found = loci_of(tests, every, np.array(places), every, window, least, done.append)
    assert sum(done) == len(every)
    return found


def variants(found: list[list[Signal]]) -> list[list[int]]:
    return [[signal.variant for signal in locus] for locus in found]


@pytest.fixture
def G() -> np.ndarray:
    rng = np.random.default_rng(5)
    return rng.binomial(2, rng.uniform(0.3, 0.7, 20), size=(N, 20)).astype(float)


def test_loci_begin_with_the_strongest_and_have_all_signals_near_it(G: np.ndarray) -> None:
    tests = given_tests(G, made_up_traits(G, {3: 3.0, 6: 3.0, 15: 3.5}))
    places = [100 * k + FAR * (k >= 10) for k in range(20)]
    assert variants(loci(tests, places, least=2.5)) == [[15], [6, 3]]
    assert [signal.step for signal in loci(tests, places, least=2.5)[1]] == [1, 2]
    assert variants(loci(tests, places, window=-1, least=2.5)) == [[15, 6, 3]]


def test_disequilibrium_beyond_the_window_makes_no_second_locus(G: np.ndarray) -> None:
    G[:, 15] = G[:, 3]
    G[:8, 15] = 2 - G[:8, 15]
    data = made_up_traits(G, {3: 4.0})
    tests, places = given_tests(G, data), [k * FAR for k in range(20)]
    assert (tests.given_chosen([]).mlog10p(tests.testable(np.array([3, 15]))) > 4).all()
    assert variants(loci(tests, places)) == [[3]]


def test_copies_of_a_signal_are_not_tested_and_counted(G: np.ndarray, caplog: pytest.LogCaptureFixture) -> None:
    G[:, 7] = 2 - G[:, 3]
    tests = given_tests(G, made_up_traits(G, {3: 4.0}))
    with caplog.at_level(logging.DEBUG):
        assert variants(loci(tests, np.arange(1, 21))) == [[3]]
    assert "locus of 20 variants: v3; 18 tested last, 1 others are combinations of signals" in caplog.text
    assert np.isnan(tests.given_chosen([3]).mlog10p(tests.testable(np.array([7])))).all()


@pytest.mark.parametrize("gaps", [3, 7])
def test_copies_of_a_signal_are_judged_where_both_were_genotyped(G: np.ndarray, gaps: int) -> None:
    """A copy would have the effect of the samples in which one of the two is imputed."""
    data = made_up_traits(G, {3: 4.0})
    G[:, 7] = 2 - G[:, 3]
    outliers = np.argsort(-np.abs(data.Y[:, 0]))[:6]
    G[outliers, gaps] = np.nan
    tests = given_tests(G, data)
    tested = tests.testable(np.array([3, 7, 9]))
    for chosen in (3, 7):
        assert list(np.isnan(tests.given_chosen([chosen]).mlog10p(tested))) == [True, True, False]
    assert [len(locus) for locus in loci(tests, np.arange(1, 21))] == [1]


def test_of_variants_equal_but_for_rounding_the_first_is_chosen(G: np.ndarray) -> None:
    tests = given_tests(G, made_up_traits(G, {3: 4.0}))
    tested = tests.testable(np.array([2, 3, 7, 9]))
    eps = float(np.finfo(tests.scan.scanner.dtype).eps)
    mlog10p = np.array([np.nan, 8.0, 8.0 * (1 + 10 * eps), 7.9])
    assert tests.strongest(tested, mlog10p, 4.0) == (3, 8.0)
    assert tests.strongest(tested, mlog10p, mlog10p[2]) == (3, 8.0)
    assert tests.strongest(tested, mlog10p, 8.1) is None
    assert tests.strongest(tested, np.full(4, np.nan), 4.0) is None


def test_what_is_read_at_once_changes_nothing(G: np.ndarray) -> None:
    data = made_up_traits(G, {3: 3.0, 6: 2.0})
    one, other = (given_tests(G, data, width) for width in (3, 20))
    every = np.arange(20)
    expected = one.given_chosen([6, 3]).mlog10p(one.testable(every))
    np.testing.assert_allclose(other.given_chosen([6, 3]).mlog10p(other.testable(every)), expected, rtol=1e-9)


def test_signals_leave_degrees_of_freedom(caplog: pytest.LogCaptureFixture) -> None:
    """With a threshold that everything passes, variants are chosen until half of the contrasts are used."""
    G = np.random.default_rng(1).normal(size=(N, 80))
    tests = given_tests(G, trait_data())
    found = loci(tests, np.arange(1, 81), least=1e-6)
    chosen = sum(map(len, found))
    assert len(TRAITS) * chosen <= tests.scale.residual_df / 2 < len(TRAITS) * (chosen + 1)
    assert "as many as so few samples allow" in caplog.text


def test_signals_leave_contrasts_that_tell_of_the_covariances(caplog: pytest.LogCaptureFixture) -> None:
    """By `satterthwaite`, of the nine contrasts of ten lines: with a threshold that everything passes half are used."""
    rng, of_lines = np.random.default_rng(2), np.kron(np.eye(10), np.ones((N // 10, 1)))
    G = of_lines @ rng.normal(size=(10, 12))
    data = replace(trait_data(), X=np.ones((N, 1)))
    data = replace(data, Y=of_lines @ rng.normal(size=(10, 2)) + 0.1 * data.Y)
    likelihood = null_likelihood(rotate_samples(of_lines.copy(), True, data, True), data, True)
    model = likelihood.null_model(likelihood.fit(2))
    scan = scan_of(GenotypesInMemory(G.astype(np.float32), ["1"] * 12), data, model=model)
    size = data.nobserved - data.neffects
    contrasts = model.effective_contrasts()
    scale = NullScale(None, model.summary.axes.T, model.summary.quadratic, size, size, contrasts)
    settings = ScanSettings(stepwise=1e-4, precision="double", stat="satterthwaite")
    known = KnownNull(model.summary, scale)
    tests = ConditionalTests(settings, scan, model, scale, known, data, np.empty((N, 0)), 5)
    assert sum(map(len, loci(tests, np.arange(1, 13), least=1e-6))) == 4
    assert "4 signals on a chromosome are as many as so few samples allow" in caplog.text
    with pytest.raises(NumericalError, match=r"rest on [12]\.\d contrasts of samples, too few for test any with 2"):
        tests.given_chosen(range(8))
