"""Refits of few observed cells, whose likelihood may have several maxima."""

import numpy as np
import pytest

from benchmarks.refits_against_brute_force import likelihood_of, null_model, simulate


@pytest.mark.parametrize(("seed", "variant"), [(39, 0), (21, 1)])
def test_a_variant_that_moves_the_maxima(seed: int, variant: int) -> None:
    """Climbs from the null model's maxima end 1.55 and 0.30 below; the oracle is a search of the dense Gaussian."""
    case = simulate("missing", seed)
    p, genotypes = case.Y.shape[1], case.variants[:, variant]
    found = null_model(case).refits().of_variants(genotypes[:, None], np.zeros(1))(np.eye(p))
    likelihood, turn = likelihood_of(case)
    start = np.concatenate([np.eye(p)[:, : case.rank].ravel(), np.eye(p).ravel()])
    search = likelihood.with_variant(turn @ genotypes, np.eye(p)).maxima
    expected = search([start], case.rank, np.nanstd(case.Y, axis=0))[0][0]
    assert found.lml[0] == pytest.approx(expected, abs=1e-6)
