"""What a fit says of its relationship matrix."""

import logging
from itertools import combinations

import numpy as np
import pytest

from kron2sum_cli.files.samples import Samples
from kron2sum_cli.fit.relationship import DUPLICATE_RELATEDNESS, report_relationship
from kron2sum_cli.genotypes import square_matrix as square
from kron2sum_cli.genotypes.source import Relationship


@pytest.mark.parametrize("repeated", [(), ((0, 1),), ((2, 9), (3, 4), (5, 10))])
def test_near_duplicates_are_named(repeated, monkeypatch, caplog):
    """In tiles smaller than the matrix; a pair is what its correlation says."""
    monkeypatch.setattr(square, "TILE", 4)
    G = np.random.default_rng(0).normal(size=(11, 40))
    for first, second in repeated:
        G[second] = G[first] + 0.01
    pairs = [(i, j) for i, j in combinations(range(11), 2) if np.corrcoef(G)[i, j] > DUPLICATE_RELATEDNESS]
    assert pairs == list(repeated)
    samples = Samples(None, tuple(f"i{k}" for k in range(11)), "ids")
    with caplog.at_level(logging.WARNING, "kron2sum"):
        report_relationship(Relationship(samples, None, G @ G.T, {}, ()), samples)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == bool(repeated)
    if repeated:
        assert f"relatedness: {len(repeated)} pair" in said[0]
        assert any(f"(such as i{i} and i{j})" in said[0] for i, j in repeated)
