"""Blocks of variants from Python: against the scanner of one variant."""

import numpy as np
import pytest
from scipy import stats

from kron2sum_cli import Kron2Sum
from kron2sum_cli.errors import NumericalError
from kron2sum_cli.model.hypotheses import TestContext, named_hypothesis, test
from kron2sum_cli.model.tail_probability import chi2_mlog10p


@pytest.mark.parametrize("A", [np.eye(3), np.array([[1.0], [0.5], [-1.0]])], ids=["identity", "one column"])
@pytest.mark.parametrize("r", [10, 60])
def test_a_block_equals_one_variant_at_a_time(A: np.ndarray, r: int) -> None:
    rng = np.random.default_rng(3)
    n, p = 50, 3
    X = np.column_stack([np.ones(n), rng.normal(size=n)])
    model = Kron2Sum(rng.normal(size=(n, p)), A, X, rng.normal(size=(n, r)) / np.sqrt(r), rank=p, restricted=True)
    model.fit(verbose=False)
    scanner = model.get_fast_scanner()
    G = rng.binomial(2, 0.4, size=(n, 6)).astype(float)
    G[:, 2] = 1.0
    G[:, 4] = X @ [1.0, 2.0]
    block = scanner.scan_block(G)
    for k in range(6):
        if k in (2, 4):
            assert np.isnan(block.chisq[k]) and np.isnan(block.beta[k]).all()
            continue
        one = scanner.scan(np.eye(p), G[:, [k]])
        assert block.chisq[k] == pytest.approx(2 * (one["lml"] - scanner.null_lml()), rel=1e-8)
        assert block.mlog10p[k] == pytest.approx(chi2_mlog10p(block.chisq[k], p))
        np.testing.assert_allclose(block.beta[k], one["effsizes1"][0], rtol=1e-8)
        np.testing.assert_allclose(block.se[k], one["effsizes1_se"][0], rtol=1e-8)


def test_wrong_shapes_are_refused() -> None:
    rng = np.random.default_rng(0)
    model = Kron2Sum(rng.normal(size=(30, 2)), np.eye(2), np.ones((30, 1)), rng.normal(size=(30, 40)))
    with pytest.raises(ValueError, match="one row a sample"):
        model.get_fast_scanner().scan_block(np.zeros((29, 2)))
    with pytest.raises(ValueError, match="not finite"):
        model.get_fast_scanner().scan_block(np.full((30, 1), np.nan))


def test_recoding_a_variant_and_mixing_the_traits_leave_the_any_effect_test() -> None:
    rng = np.random.default_rng(5)
    n, p = 80, 3
    K, X = rng.normal(size=(n, 100)) / 10, np.ones((n, 1))
    Y, M = rng.normal(size=(n, p)), rng.normal(size=(p, p))
    G = rng.binomial(2, 0.4, size=(n, 8)).astype(float)
    model = Kron2Sum(Y, np.eye(p), X, K, rank=p, restricted=True)
    model.fit(verbose=False)
    plain = model.get_fast_scanner().scan_block(G)
    recoded = model.get_fast_scanner().scan_block(2 - G)
    np.testing.assert_allclose(recoded.chisq, plain.chisq, rtol=1e-9)
    np.testing.assert_allclose(recoded.beta, -plain.beta, rtol=1e-8)
    mixed = Kron2Sum(Y @ M, np.eye(p), X, K, rank=p, restricted=True)
    of_mixed = mixed.at(M.T @ model.C0 @ M, M.T @ model.C1 @ M).get_fast_scanner().scan_block(G)
    np.testing.assert_allclose(of_mixed.chisq, plain.chisq, rtol=1e-8)
    np.testing.assert_allclose(of_mixed.beta, plain.beta @ M, rtol=1e-7)
    order = [2, 0, 1]
    permuted = Kron2Sum(Y[:, order], np.eye(p), X, K, rank=p, restricted=True)
    C0, C1 = (C[np.ix_(order, order)] for C in (model.C0, model.C1))
    of_permuted = permuted.at(C0, C1).get_fast_scanner().scan_block(G)
    np.testing.assert_allclose(of_permuted.chisq, plain.chisq, rtol=1e-9)
    np.testing.assert_allclose(of_permuted.trait_mlog10p, plain.trait_mlog10p[:, order], rtol=1e-8)


@pytest.mark.parametrize("A", [np.eye(3), np.array([[1.0], [0.5], [-1.0]])], ids=["identity", "one column"])
def test_hypotheses_are_two_nested_fits_at_fixed_K(A: np.ndarray) -> None:
    rng = np.random.default_rng(6)
    n, p, traits = 60, 3, ("a", "b", "c")
    model = Kron2Sum(rng.normal(size=(n, p)), A, np.ones((n, 1)), rng.normal(size=(n, 90)) / 9, rank=p)
    model.fit(verbose=False)
    scanner, point = model.get_fast_scanner(), model.point
    g = rng.normal(size=(n, 1))
    block = scanner.scan_block(g)
    size = n * p
    context = TestContext(point.axes.T, point.quadratic, size, size - A.shape[1])
    eye, ones = np.eye(p), np.ones((p, 1))
    cases = {
        "any": (None, eye),
        "common": (None, ones),
        "specific": (ones, eye),
        "trait:b": (eye[:, [0, 2]], eye),
        "only:c": (None, eye[:, [2]]),
        "trait:a|c": (eye[:, [1]], eye[:, [0, 1]]),
        "axis:2": (None, point.axes.Tinv[:, [1]]),
    }
    for name, (base, full) in cases.items():
        below = scanner.null_lml() if base is None else scanner.scan(base, g)["lml"]
        expected = 2 * (scanner.scan(full, g)["lml"] - below)
        found = test(block.u, block.v, named_hypothesis(name, traits, point.axes.Tinv), context)
        assert found.chisq[0] == pytest.approx(expected, rel=1e-7, abs=1e-9), name
    common, specific = (test(block.u, block.v, named_hypothesis(n, traits), context) for n in ("common", "specific"))
    assert common.chisq[0] + specific.chisq[0] == pytest.approx(block.chisq[0], rel=1e-12)
    assert common.df + specific.df == p


@pytest.mark.parametrize("A", [np.eye(3), np.array([[1.0], [0.5], [-1.0]])], ids=["identity", "one column"])
def test_any_hypothesis_from_a_block(A: np.ndarray) -> None:
    """Two nested fits at fixed K; a variant without statistics has none in any test."""
    rng = np.random.default_rng(7)
    n, p = 60, 3
    model = Kron2Sum(rng.normal(size=(n, p)), A, np.ones((n, 1)), rng.normal(size=(n, 90)) / 9, rank=p)
    scanner, ones = model.get_fast_scanner(), np.ones((p, 1))
    G = np.column_stack([rng.binomial(2, 0.4, size=n), np.zeros(n)]).astype(float)
    block = scanner.scan_block(G)
    lml = {e: scanner.scan(design, G[:, :1])["lml"] for e, design in ((1, ones), (3, np.eye(p)))}
    for A1, A0, gain in ((ones, None, lml[1] - scanner.null_lml()), (np.eye(p), ones, lml[3] - lml[1])):
        found = scanner.test_block(block, A1, A0)
        assert found.chisq[0] == pytest.approx(2 * gain, rel=1e-7)
        assert found.mlog10p[0] == pytest.approx(chi2_mlog10p(found.chisq[0], found.df))
        f, residual = scanner.test_block(block, A1, A0, "f"), n * p - A.shape[1] - (1 if A0 is None else 3)
        statistic = np.expm1(found.chisq[0] / (n * p)) * residual / found.df
        assert f.mlog10p[0] == pytest.approx(-np.log10(stats.f.sf(statistic, found.df, residual)), rel=1e-9)
        assert np.isnan([found.chisq[1], found.mlog10p[1], f.mlog10p[1]]).all()
    with pytest.raises(ValueError, match=r"A1 must have one row a trait, \(3, e\)"):
        scanner.test_block(block, np.ones((2, 1)))
    with pytest.raises(ValueError, match='statistic must be "lr" or "f"; it is \'satterthwaite\''):
        scanner.test_block(block, ones, statistic="satterthwaite")
    with pytest.raises(NumericalError, match="no rank beyond"):
        scanner.test_block(block, ones, ones)
