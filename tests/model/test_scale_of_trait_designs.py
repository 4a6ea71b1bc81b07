"""A trait design is its span: columns of other sizes, or nearly alike, change nothing but their own effects."""

import numpy as np
import pytest

from kron2sum_cli.model.null_model import TraitData, null_likelihood, rotate_samples

A = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, -1.0]])
CHANGES = {"sizes": np.diag([1e7, 1e-6]), "nearly alike": np.array([[1.0, 1.0], [0.0, 1e-6]])}


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_effects_alone_change(change: str, missing: bool) -> None:
    rng = np.random.default_rng(3)
    n = 80
    X = np.column_stack([np.ones(n), rng.normal(size=n)])
    G = rng.normal(size=(n, 60)) / np.sqrt(60)
    Y = X @ rng.normal(size=(2, 2)) @ A.T + G @ rng.normal(size=(60, 3)) + rng.normal(size=(n, 3))
    if missing:
        Y[::7, 1] = np.nan
    fits = {}
    for name, R in (("plain", np.eye(2)), ("changed", CHANGES[change])):
        data = TraitData(Y, A @ R, X)
        likelihood = null_likelihood(rotate_samples(G @ G.T, False, data, True), data, True)
        optimum = likelihood.fit(3)
        assert optimum.certificate.certified
        fits[name] = likelihood.null_model(optimum).summary
    plain, changed = fits["plain"].estimates, fits["changed"].estimates
    assert fits["changed"].lml == pytest.approx(fits["plain"].lml, rel=1e-9)
    np.testing.assert_allclose(changed.C1, plain.C1, rtol=1e-5)
    back = CHANGES[change]
    np.testing.assert_allclose(changed.B @ back.T, plain.B, rtol=1e-5)
    # The second column's effect is its old one over its new length, whatever the first is.
    np.testing.assert_allclose(changed.B_se[:, 1] * back[1, 1], plain.B_se[:, 1], rtol=1e-5)
