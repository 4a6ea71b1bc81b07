"""Blocks of variants from Python: against the scanner of one variant."""

import numpy as np
import pytest

from kron2sum_cli import Kron2Sum
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
